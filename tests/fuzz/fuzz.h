/*
 * tests/fuzz/fuzz.h - what the fuzz targets share: files that parsers, which take paths, read.
 *
 * A target is LLVMFuzzerTestOneInput (https://llvm.org/docs/LibFuzzer.html). With clang and -DEDGEPIPE_FUZZ=ON it is
 * linked with libFuzzer and searches; else with replay.c, which hands it the files that it is given: the folder
 * corpus/NAME holds what it starts from and what was found.
 */
#ifndef EDGEPIPE_TESTS_FUZZ_H
#define EDGEPIPE_TESTS_FUZZ_H

#include "base/base.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* A folder of this process, in memory where the system has such; removed at its end. */
static char fuzz_path[64];

static void fuzz_close(void)
{
	folder_remove(fuzz_path);
}

static const char *fuzz_folder(void)
{
	if (*fuzz_path)
		return fuzz_path;
	snprintf(fuzz_path, sizeof fuzz_path, "%s/edgepipe-fuzz-XXXXXX",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(fuzz_path))
		abort();
	atexit(fuzz_close);
	return fuzz_path;
}

/* Writes FOLDER/NAME; its path goes to path. Errors from now on are held, not printed, until fuzz_done. */
static inline void fuzz_file(const char *name, const void *data, size_t bytes, char path[128])
{
	snprintf(path, 128, "%s/%s", fuzz_folder(), name);
	FILE *file = fopen(path, "wb");

	if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0)
		abort();
	error_hold();
}

/* Whoever fails has said why, and with a code that a user may meet: a bug is none of them. */
static inline void fuzz_done(bool failed)
{
	int code = error_code();

	if (failed != (code != 0) || code == EXIT_BUG || (failed && !*error_text()))
		abort();
	error_clear();
}

#endif
