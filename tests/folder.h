/*
 * tests/folder.h - temporary folders below $TMPDIR or /tmp: one for every test with an arena for what is made in it
 * (`folder`), or one for a whole program whose tests may be run as processes of their own (`scratch`).
 */
#ifndef EDGEPIPE_TESTS_FOLDER_H
#define EDGEPIPE_TESTS_FOLDER_H

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

/* Makes a new folder and puts its path. A program may call it before Check runs, so Check cannot be told. */
static inline void temporary_folder(char *path, size_t room)
{
	const char *where = getenv("TMPDIR");

	snprintf(path, room, "%s/edgepipe-XXXXXX", where ? where : "/tmp");
	if (!mkdtemp(path)) {
		perror(path);
		abort();
	}
}

/* -- one for every test -------------------------------------------------------------------- */

static char folder[256];
static struct arena arena;

static inline void folder_open(void)
{
	temporary_folder(folder, sizeof folder);
}

/* Forgets the errors of the test, too: what is said from here on is held no more. */
static inline void folder_close(void)
{
	error_clear();
	if (folder_remove(folder))
		abort();
	arena_release(&arena);
}

/* A path inside the folder; lives as long as it. */
static inline char *in_folder(const char *name)
{
	return path_join(&arena, folder, name);
}

/* -- one for the program ------------------------------------------------------------------- */

/* Made before the tests fork, and removed after them. */
static char scratch[256];

static inline void scratch_open(void)
{
	temporary_folder(scratch, sizeof scratch);
}

static inline void scratch_close(void)
{
	if (folder_remove(scratch))
		abort();
}

#endif
