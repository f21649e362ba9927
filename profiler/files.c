/*
 * files.c - small kernel files, read without a word when they are missing.
 *
 * Unlike file_read this is silent: a machine without /proc or without control groups is not an
 * error, only one that says less about itself.
 */
#include "profiler/internal.h"

#include <stdlib.h>
#include <string.h>

bool peek(const char *root, const char *path, char *buffer, size_t bytes)
{
	char name[4096];
	FILE *file;
	size_t got;

	if ((size_t)snprintf(name, sizeof name, "%s%s", root, path) >= sizeof name)
		return false;
	file = fopen(name, "re");
	if (!file)
		return false;
	got = fread(buffer, 1, bytes - 1, file);
	buffer[got] = 0;
	fclose(file);
	return got > 0;
}

bool peek_number(const char *text, const char *key, double *value)
{
	size_t bytes = strlen(key);
	const char *line = text;

	while (line) {
		if (strncmp(line, key, bytes) == 0 && line[bytes] &&
		    strchr(": \t", line[bytes])) {
			const char *number = line + bytes + 1;
			char *end;
			double read = strtod(number, &end);

			if (end == number)
				return false;
			*value = read;
			return true;
		}
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return false;
}
