/*
 * model/data_cache.c - tokenised data that are kept: ${XDG_CACHE_HOME:-~/.cache}/edgepipe/data,
 * or where data.cache says.
 *
 * A file's name is the digest of all that its content depends on, the data file's own digest
 * among them. Reading ten gigabytes for that takes long, so what was found is noted under the
 * file's number, size and times: a file that looks untouched is not read again. The time of the
 * last change of its inode, which nobody can set, is among them, and nothing is noted of a file
 * that changed a moment ago.
 *
 * What turns bytes into tokens are the sources of model/ and the tables of libraries: MODEL_SOURCES,
 * which the build computes, and the libraries' versions are in the digest.
 */
#include "model/data_cache.h"
#include "model/input.h"
#include "model/tokenizer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <model_sources.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOMENT_S 2     /* file systems and their clocks may be that coarse */
#define DAY_S 86400
#define UNUSED_S (30 * DAY_S)

static const char *const tokenizer_files[] = {
	"tokenizer.json",     "tokenizer.model",    "vocab.json",
	"merges.txt",	      "added_tokens.json",  "special_tokens_map.json",
	"vocab.txt",	      "tokenizer_config.json", "chat_template.jinja",
	"chat_template.json",
};

/* -- the digest of a file ------------------------------------------------------------------ */

static const char *note_path(struct arena *arena, const char *folder, const struct stat *status)
{
	char digest[33];
	struct text text = {0};

	text_add(&text, "%llu %llu %lld %lld %ld %lld %ld", (unsigned long long)status->st_dev,
		 (unsigned long long)status->st_ino, (long long)status->st_size,
		 (long long)status->st_mtim.tv_sec, status->st_mtim.tv_nsec,
		 (long long)status->st_ctim.tv_sec, status->st_ctim.tv_nsec);
	const char *path = arena_format(arena, "%s/%s.seen", folder,
					digest_write(digest_of(text.data, text.bytes), digest));
	text_release(&text);
	return path;
}

/* What was noted of a file: "seen", its digest, and a digest of that. */
static bool read_note(const char *path, struct digest *digest)
{
	struct digest noted[2];
	size_t bytes = 0;

	if (!path_exists(path))
		return false;
	error_mute();
	char *text = file_read(path, &bytes);
	error_unmute();
	bool good = text && bytes == sizeof noted;
	if (good) {
		memcpy(noted, text, sizeof noted);
		good = digest_equal(noted[1], digest_of(noted, sizeof noted[0]));
	}
	if (good)
		*digest = noted[0];
	free(text);
	return good;
}

static void write_note(const char *path, struct digest digest)
{
	struct digest noted[2] = {digest, digest_of(&digest, sizeof digest)};

	error_mute();
	(void)file_replace(path, noted, sizeof noted);
	error_unmute();
}

/* The digest of the data file, by its note where there is one. */
static int source_digest(const char *path, const char *folder, struct digest *digest)
{
	struct arena arena = {0};
	struct stat before, after;
	struct timespec now;
	int done = 0;

	if (stat(path, &before) < 0)
		return error(EXIT_INPUT, "cannot open '%s': %s", path, strerror(errno));
	const char *note = folder ? note_path(&arena, folder, &before) : NULL;
	if (note && read_note(note, digest))
		goto end;
	done = digest_file(path, digest);
	clock_gettime(CLOCK_REALTIME, &now);
	if (done == 0 && note && stat(path, &after) == 0 && path_exists(folder) &&
	    strcmp(note, note_path(&arena, folder, &after)) == 0 &&
	    now.tv_sec - after.st_ctim.tv_sec > MOMENT_S &&
	    now.tv_sec - after.st_mtim.tv_sec > MOMENT_S)
		write_note(note, *digest);
end:
	arena_release(&arena);
	return done;
}

/* -- the key ------------------------------------------------------------------------------- */

static int add_digest(struct text *text, const char *path, const char *name)
{
	struct digest digest;
	char hex[33];

	if (digest_file(path, &digest) < 0)
		return -1;
	text_add(text, "%s %s\n", name, digest_write(digest, hex));
	return 0;
}

/* The files of the tokenizer and of its chat template. */
static int add_tokenizer(struct text *text, const char *folder)
{
	struct arena arena = {0};
	int done = 0;

	for (size_t i = 0; i < sizeof tokenizer_files / sizeof tokenizer_files[0] && done == 0; i++) {
		const char *path = path_join(&arena, folder, tokenizer_files[i]);

		if (path_exists(path))
			done = add_digest(text, path, tokenizer_files[i]);
	}
	arena_release(&arena);
	return done;
}

int data_key(const struct reader *r, const char *extension, bool is_text, const char *folder,
	     struct digest *key)
{
	const struct data_config *data = r->data;
	struct text text = {0};
	struct digest source;
	char hex[33], patterns[64];

	pattern_version(patterns);
	if (source_digest(r->path, folder, &source) < 0)
		return -1;
	text_add(&text, "edgepipe data %s, %s, %s\n%s%s\nfile %s\n", MODEL_SOURCES, unicode_version(),
		 patterns, extension, path_is_gzip(r->path) ? ".gz" : "", digest_write(source, hex));
	text_add(&text, "sequence %lld of %d, vocabulary %d, end %d\nmask %d, template '%s'\n",
		 data->sequence, r->config->positions, r->config->vocabulary, r->config->end_token,
		 data->mask, data->template ? data->template : "");
	for (int i = 0; i < DATA_COLUMNS; i++)
		text_add(&text, "'%s'\n", data->column[i] ? data->column[i] : "");
	int done = is_text ? add_tokenizer(&text, r->config->folder) : 0;
	*key = digest_of(text.data, text.bytes);
	text_release(&text);
	return done;
}

/* -- the folder ---------------------------------------------------------------------------- */

const char *data_cache_folder(struct arena *arena, const struct data_config *data)
{
	const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

	if (data->cache)
		return strcmp(data->cache, "none") == 0 ? NULL : data->cache;
	if (cache && cache[0] == '/')
		return path_join(arena, cache, "edgepipe/data");
	if (home && home[0] == '/')
		return path_join(arena, home, ".cache/edgepipe/data");
	return NULL;
}

const char *data_cache_path(struct arena *arena, const char *folder, struct digest key)
{
	char hex[33];

	return arena_format(arena, "%s/%s.ids", folder, digest_write(key, hex));
}

int data_cache_open(const char *path)
{
	int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (file >= 0)
		(void)futimens(file, NULL);
	return file;
}

/* Whether a file of the folder is ours and old. */
static bool is_stale(int folder, const char *name, time_t now)
{
	const char *dot = strrchr(name, '.');
	bool temporary = strstr(name, ".tmp-") != NULL;
	struct stat status;

	if (!dot || (!temporary && strcmp(dot, ".ids") != 0 && strcmp(dot, ".seen") != 0) ||
	    strspn(name, "0123456789abcdef") != 32)
		return false;
	return fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISREG(status.st_mode) &&
	       now - status.st_mtime > (temporary ? DAY_S : UNUSED_S);
}

void data_cache_sweep(const char *path)
{
	DIR *folder = opendir(path);
	time_t now = time(NULL);
	struct dirent *entry;

	while (folder && (entry = readdir(folder))) {
		if (is_stale(dirfd(folder), entry->d_name, now))
			unlinkat(dirfd(folder), entry->d_name, 0);
	}
	if (folder)
		closedir(folder);
}
