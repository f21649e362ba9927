/*
 * tests/fuzz/replay.c - hands a fuzz target every file of the folders that are its arguments: what was found stays mended
 * where there is no libFuzzer.
 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>

static int replay(const char *path)
{
	size_t bytes;
	char *data = file_read(path, &bytes);

	if (!data)
		return -1;
	LLVMFuzzerTestOneInput((const uint8_t *)data, bytes);
	free(data);
	return 0;
}

/* Returns how many files there were, -1 where one could not be read. */
static int replay_folder(const char *folder)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	char path[4096];
	int files = 0;

	while (dir && files >= 0 && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
		files = replay(path) < 0 ? -1 : files + 1;
	}
	if (dir)
		closedir(dir);
	return files;
}

int main(int argc, char **argv)
{
	int failed = argc < 2;

	for (int i = 1; i < argc; i++) {
		int files = replay_folder(argv[i]);

		printf("%d files of %s\n", files, argv[i]);
		failed |= files < 1;
	}
	return failed;
}
