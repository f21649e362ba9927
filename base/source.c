/*
 * source.c - a text that errors point into, and the way they are shown: as a compiler does.
 *
 *	campus.yaml:14:17: error: links.between[2].bandwidth: "10 Gbs" is not a rate
 *	     14 |     bandwidth: 10 Gbs
 *	        |                ^~~~~~
 *
 * Whatever stands in a file may end up on a terminal here: control characters and broken UTF-8
 * are shown as '?', long lines as a window around the place.
 */
#include "base/schema.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	FILE_MOST = 4 << 20,	/* bytes of a file */
	ERRORS_SHOWN = 50,
	WINDOW = 88,		/* columns of a line that are shown */
	LEFT = 48,		/* of them before the place, where the line is longer */
};

/* The bytes of the character at data[0..bytes): 1 for a byte that is not UTF-8. */
static size_t character_bytes(const char *data, size_t bytes)
{
	unsigned char c = (unsigned char)data[0];
	size_t count = c < 0xc2 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 1;

	if (count > bytes)
		return 1;
	for (size_t i = 1; i < count; i++)
		if (((unsigned char)data[i] & 0xc0) != 0x80)
			return 1;
	return count;
}

/* The bytes of the line break at data[0..bytes), of those that YAML 1.1 knows; 0 if none. */
static size_t break_bytes(const char *data, size_t bytes)
{
	if (data[0] == '\n')
		return 1;
	if (data[0] == '\r')
		return bytes > 1 && data[1] == '\n' ? 2 : 1;
	if (bytes > 1 && memcmp(data, "\xc2\x85", 2) == 0)
		return 2;
	if (bytes > 2 && (memcmp(data, "\xe2\x80\xa8", 3) == 0 ||
			  memcmp(data, "\xe2\x80\xa9", 3) == 0))
		return 3;
	return 0;
}

/* Adds a character so that it takes one column: a tab as a space, the unprintable as '?'. */
static void add_character(struct text *text, const char *data, size_t bytes)
{
	unsigned char c = (unsigned char)data[0];
	bool control = c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)data[1] < 0xa0);

	if (c == '\t')
		text_put(text, " ", 1);
	else if (control || (bytes == 1 && c >= 0x80))
		text_put(text, "?", 1);
	else
		text_put(text, data, bytes);
}

static void add_clean(struct text *text, const char *data)
{
	size_t left = strlen(data);

	while (left > 0) {
		size_t bytes = character_bytes(data, left);

		add_character(text, data, bytes);
		data += bytes;
		left -= bytes;
	}
}

/* Adds the columns [from, from + WINDOW) of a line; returns how many there were. */
static int add_window(struct text *text, const char *data, size_t left, int from)
{
	int column = 1, shown = 0;

	while (left > 0 && !break_bytes(data, left)) {
		size_t bytes = character_bytes(data, left);

		if (column >= from + WINDOW) {
			text_add(text, " ...");
			break;
		}
		if (column >= from) {
			add_character(text, data, bytes);
			shown++;
		}
		column++;
		data += bytes;
		left -= bytes;
	}
	return shown;
}

const char *source_next_line(const struct source *source, const char *data)
{
	const char *end = source->data + source->bytes;

	while (data < end) {
		size_t bytes = break_bytes(data, (size_t)(end - data));

		if (bytes > 0)
			return data + bytes;
		data++;
	}
	return end;
}

/* Where a line begins; the end of the text where it has no such line. */
static const char *line_start(const struct source *source, int line)
{
	const char *data = source->data;

	while (line-- > 1)
		data = source_next_line(source, data);
	return data;
}

/* Adds the line of the place, and below it a caret. Nothing where the text has no such line. */
static void add_line(struct text *text, const struct source *source, int line, int column,
		     int width)
{
	const char *data = line_start(source, line), *end = source->data + source->bytes;
	int from = column > WINDOW ? column - LEFT : 1, shown;

	if (data >= end)
		return;
	text_add(text, "\n%7d | %s", line, from > 1 ? "... " : "");
	shown = add_window(text, data, (size_t)(end - data), from);
	if (width > from + shown - column)
		width = from + shown - column;
	text_add(text, "\n%7s | %*s^", "", column - from + (from > 1 ? 4 : 0), "");
	for (int i = 1; i < width; i++)
		text_put(text, "~", 1);
}

void source_verror(struct source *source, int line, int column, int width, const char *fmt,
		   va_list values)
{
	struct text text = {0};
	char *message = NULL;

	if (++source->errors > ERRORS_SHOWN + 1)
		return;
	if (!source->override)
		text_add(&text, "%s:%d:%d: error: ", source->name, line, column);
	else
		text_add(&text, "%s: ", source->name);
	if (source->errors > ERRORS_SHOWN) {
		text_add(&text, "too many errors: the rest is not shown");
	} else if (vasprintf(&message, fmt, values) < 0) {
		text_add(&text, "%s", fmt);
	} else {
		add_clean(&text, message);
		if (!source->override)
			add_line(&text, source, line, column, width);
	}
	report(EXIT_CONFIG, "%s", text.data);
	free(message);
	text_release(&text);
}

void source_error(struct source *source, int line, int column, int width, const char *fmt, ...)
{
	va_list values;

	va_start(values, fmt);
	source_verror(source, line, column, width, fmt, values);
	va_end(values);
}

bool source_is_full(const struct source *source)
{
	return source->errors > ERRORS_SHOWN;
}

const char *source_quote(const char *text, char buffer[SOURCE_QUOTE])
{
	size_t bytes = strlen(text);

	if (bytes + 3 <= SOURCE_QUOTE) {
		snprintf(buffer, SOURCE_QUOTE, "\"%s\"", text);
		return buffer;
	}
	bytes = SOURCE_QUOTE - 6;
	while (bytes > 0 && ((unsigned char)text[bytes] & 0xc0) == 0x80)
		bytes--;
	snprintf(buffer, SOURCE_QUOTE, "\"%.*s...\"", (int)bytes, text);
	return buffer;
}

void source_place(const struct source *source, size_t offset, int *line, int *column)
{
	size_t at = 0;

	*line = *column = 1;
	while (at < offset && at < source->bytes) {
		size_t left = source->bytes - at;
		size_t bytes = break_bytes(source->data + at, left);

		if (bytes > 0) {
			++*line;
			*column = 1;
		} else {
			bytes = character_bytes(source->data + at, left);
			++*column;
		}
		at += bytes;
	}
}

char source_character(const struct source *source, int line, int column)
{
	const char *data = line_start(source, line), *end = source->data + source->bytes;

	for (int at = 1; at < column && data < end; at++)
		data += character_bytes(data, (size_t)(end - data));
	return data < end ? *data : '\0';
}

/* Reads at most FILE_MOST bytes: the file may be a pipe, or a device without an end. */
static int read_all(struct text *text, const char *path)
{
	FILE *file = fopen(path, "rb");
	char piece[16384];
	size_t got;
	int rc = -1;

	if (!file)
		return error(EXIT_INPUT, "cannot open '%s': %s", path, strerror(errno));
	while ((got = fread(piece, 1, sizeof piece, file)) > 0) {
		text_put(text, piece, got);
		if (text->bytes > FILE_MOST) {
			report(EXIT_CONFIG, "'%s' is larger than 4 MiB: not a configuration",
			       path);
			goto done;
		}
	}
	if (ferror(file)) {
		report(EXIT_INPUT, "cannot read '%s': %s", path, strerror(errno));
		goto done;
	}
	rc = 0;
done:
	fclose(file);
	return rc;
}

struct source *source_make(struct arena *arena, const char *name, const char *data,
			   size_t bytes)
{
	struct source *source = arena_take(arena, sizeof *source);

	/* Editors of Windows begin a file with the byte order mark of UTF-8. */
	if (bytes >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0) {
		data += 3;
		bytes -= 3;
	}
	source->name = arena_copy(arena, name, strlen(name));
	source->data = arena_copy(arena, data, bytes);
	source->bytes = bytes;
	return source;
}

struct source *source_read(struct arena *arena, const char *path)
{
	struct text text = {0};
	struct source *source = NULL;

	if (read_all(&text, path) == 0)
		source = source_make(arena, path, text.data ? text.data : "", text.bytes);
	text_release(&text);
	return source;
}
