/*
 * cache.c - profiles that were measured before: ${XDG_CACHE_HOME:-~/.cache}/edgepipe/profile-<digest>.json, where the
 * digest is of what a profile must be of to hold. Nothing here is an error: what cannot be cached is measured again.
 */
#include <stdlib.h>

#include "launch/session.h"

char *cache_path(struct arena *arena, const struct profile *want)
{
	const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	char digest[33], *folder;

	if (cache && cache[0] == '/')
		folder = path_join(arena, cache, "edgepipe");
	else if (home && home[0] == '/')
		folder = path_join(arena, home, ".cache/edgepipe");
	else
		return NULL;
	return arena_format(arena, "%s/profile-%s.json", folder, digest_write(profile_identity(want), digest));
}

struct profile *cache_find(struct arena *arena, const struct profile *want)
{
	const char *path = cache_path(arena, want);
	struct profile *profile = NULL;

	error_mute();
	if (path && path_exists(path))
		profile = profile_read(path);
	if (profile && profile_check(profile, want, path)) {
		profile_free(profile);
		profile = NULL;
	}
	error_unmute();
	return profile;
}

bool cache_keep(struct arena *arena, const struct profile *profile)
{
	const char *path = cache_path(arena, profile);
	struct text text = {0};
	bool kept = false;

	if (!path)
		return false;
	profile_write(profile, &text);
	error_mute();
	kept = !folder_make(path_folder(arena, path)) && !file_replace(path, text.data, text.bytes);
	error_unmute();
	text_release(&text);
	return kept;
}
