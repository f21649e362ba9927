/*
 * A folder that appears whole or not at all, also when a disk loses power: adapters and
 * checkpoints are written beside their place and then moved there.
 */
#include "model/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* Moves temporary to folder; *exchanged: an older one is now at temporary. */
static int put_in_place(const char *temporary, const char *folder, bool *exchanged)
{
	*exchanged = false;
	if (renameat2(AT_FDCWD, temporary, AT_FDCWD, folder, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno == EEXIST) {
		*exchanged = true;
		if (renameat2(AT_FDCWD, temporary, AT_FDCWD, folder, RENAME_EXCHANGE) == 0)
			return 0;
	}
	/* A file system without these flags (NFS): an older one goes first. */
	if (errno == EINVAL || errno == ENOSYS) {
		*exchanged = false;
		if (path_exists(folder) && folder_remove(folder) < 0)
			return -1;
		if (rename(temporary, folder) == 0)
			return 0;
	}
	return error(EXIT_CREATE, "cannot move '%s' to '%s': %s", temporary, folder,
		     strerror(errno));
}

int folder_publish(const char *temporary, const char *folder)
{
	struct arena arena = {0};
	bool exchanged;
	int rc = -1;

	if (folder_sync(temporary) < 0 || put_in_place(temporary, folder, &exchanged) < 0)
		goto done;
	if (folder_sync(path_folder(&arena, folder)) < 0)
		goto done;
	rc = exchanged ? folder_remove(temporary) : 0;
done:
	arena_release(&arena);
	return rc;
}
