/*
 * model/jsonl.c - files of one JSON map a line, from a file or standard input, a line in memory
 * at a time.
 */
#include "model/model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct jsonl {
	const char *path; /* for messages */
	FILE *file;
	char *line;
	size_t room, number; /* number: of the last line, from 1 */
	struct json *map;
	struct arena arena;
};

struct jsonl *jsonl_open(const char *path)
{
	bool standard = strcmp(path, "-") == 0;
	FILE *file = standard ? stdin : fopen(path, "re");

	if (!file)
		return error_null(EXIT_INPUT, "cannot open '%s': %s", path, strerror(errno));
	struct jsonl *lines = xzalloc(1, sizeof *lines);
	lines->path = standard ? "<stdin>" : arena_copy(&lines->arena, path, strlen(path));
	lines->file = file;
	return lines;
}

void jsonl_close(struct jsonl *lines)
{
	if (!lines)
		return;
	if (lines->file != stdin)
		fclose(lines->file);
	json_free(lines->map);
	free(lines->line);
	arena_release(&lines->arena);
	free(lines);
}

int jsonl_error(const struct jsonl *lines, int code, const char *fmt, ...)
{
	char why[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, sizeof why, fmt, args);
	va_end(args);
	return error(code, "%s:%zu:1: error: %s", lines->path, lines->number, why);
}

/* Reads a line; its bytes, 0 at the end of the file. */
static ssize_t read_line(struct jsonl *lines)
{
	ssize_t bytes = getline(&lines->line, &lines->room, lines->file);

	if (bytes >= 0) {
		lines->number++;
		return bytes;
	}
	if (feof(lines->file) && !ferror(lines->file))
		return 0;
	return error(EXIT_INPUT, "cannot read '%s': %s", lines->path, strerror(errno));
}

static bool is_blank(const char *line, ssize_t bytes)
{
	return (ssize_t)strspn(line, " \t\r\n") == bytes;
}

static int parse_line(struct jsonl *lines, size_t bytes)
{
	while (bytes > 0 && (lines->line[bytes - 1] == '\n' || lines->line[bytes - 1] == '\r'))
		bytes--;
	lines->map = json_parse_at(lines->line, bytes, lines->path, lines->number);
	if (!lines->map)
		return -1;
	if (json_kind(lines->map) != JSON_MAP)
		return jsonl_error(lines, EXIT_DATA, "the line is no JSON map");
	return 1;
}

int jsonl_next(struct jsonl *lines, const struct json **map)
{
	size_t blank = 0;
	ssize_t bytes;

	json_free(lines->map);
	lines->map = NULL;
	while ((bytes = read_line(lines)) > 0 && is_blank(lines->line, bytes)) {
		if (blank == 0)
			blank = lines->number;
	}
	if (bytes <= 0)
		return (int)bytes;
	if (blank > 0) {
		lines->number = blank;
		return jsonl_error(lines, EXIT_DATA, "the line is empty");
	}
	int done = parse_line(lines, (size_t)bytes);
	*map = lines->map;
	return done;
}

const char *jsonl_text(const struct jsonl *lines, const char *key, size_t *bytes)
{
	const struct json *value = json_find(lines->map, key);

	if (json_kind(value) != JSON_TEXT) {
		jsonl_error(lines, EXIT_DATA,
			    value ? "\"%s\" is no text" : "there is no \"%s\"", key);
		return NULL;
	}
	*bytes = json_text_bytes(value);
	return json_as_text(value, "");
}
