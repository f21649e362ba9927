/*
 * model/jsonl.c - files of one JSON map a line, from a file or standard input, a line in memory
 * at a time.
 */
#include "model/input.h"
#include "model/place.h"

#include "model/model.h"

#include <stdlib.h>
#include <string.h>

struct jsonl {
	struct input *input;
	struct text line;
	size_t bytes, number; /* of the last line, without its end; from 1 */
	struct json *map;
	size_t blank; /* empty lines before the last one, which is still to come */
	bool failed; /* no more lines can be read */
};

struct jsonl *jsonl_open(const char *path)
{
	struct input *input = input_open(path);

	if (!input)
		return NULL;
	struct jsonl *lines = xzalloc(1, sizeof *lines);
	lines->input = input;
	return lines;
}

void jsonl_close(struct jsonl *lines)
{
	if (!lines)
		return;
	input_close(lines->input);
	json_free(lines->map);
	text_release(&lines->line);
	free(lines);
}

/* -- errors -------------------------------------------------------------------------------- */

bool jsonl_failed(const struct jsonl *lines)
{
	return lines->failed;
}

int jsonl_error(const struct jsonl *lines, int code, const char *where, const char *fmt, ...)
{
	size_t column = place_column(lines->line.data, lines->bytes, where);
	char why[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, sizeof why, fmt, args);
	va_end(args);
	return error(code, "%s:%zu:%zu: error: %s", input_path(lines->input), lines->number,
		     column, why);
}

void jsonl_quote(const struct json *value, char quote[JSONL_QUOTE])
{
	static const char *const kinds[] = {
		[JSON_NONE] = "nothing", [JSON_NIL] = "null",	[JSON_LIST] = "a list",
		[JSON_MAP] = "a map",	 [JSON_TEXT] = "a text",
	};
	enum json_kind kind = json_kind(value);
	const char *text = json_as_text(value, "");

	if (kind == JSON_FLAG)
		snprintf(quote, JSONL_QUOTE, "%s",
			 json_as_flag(value, false) ? "true" : "false");
	else if (kind == JSON_WHOLE || kind == JSON_NUMBER)
		snprintf(quote, JSONL_QUOTE, "%.15g", json_as_number(value, 0));
	else if (kind == JSON_TEXT && strlen(text) <= JSONL_QUOTE - 8)
		snprintf(quote, JSONL_QUOTE, "\"%s\"", text);
	else
		snprintf(quote, JSONL_QUOTE, "%s", kinds[kind]);
}

/* -- lines --------------------------------------------------------------------------------- */

static bool is_blank(const struct text *line)
{
	return strspn(line->data, " \t\r\n") == line->bytes;
}

/* Says what a line is that begins like no map. */
static int refuse_line(const struct jsonl *lines)
{
	struct text quote = {0};
	char start[24];

	if (lines->line.data[strspn(lines->line.data, " \t")] == '[')
		return jsonl_error(lines, EXIT_DATA, "",
				   "the line is no JSON map, it begins a list: every line must be a map "
				   "(jq -c '.[]' makes such lines of a list)");
	snprintf(start, sizeof start, "%.*s", (int)lines->bytes, lines->line.data);
	json_add_text(&quote, start);
	int done = jsonl_error(lines, EXIT_DATA, "",
			       "the line is no JSON map (as {\"text\": ..}), it begins with %s",
			       quote.data);
	text_release(&quote);
	return done;
}

static int parse_line(struct jsonl *lines)
{
	const char *line = lines->line.data;

	if (lines->bytes > 0 && line[strspn(line, " \t")] != '{')
		return refuse_line(lines);
	lines->map = json_parse_at(line, lines->bytes, input_path(lines->input), lines->number);
	if (!lines->map)
		return -1;
	if (json_kind(lines->map) != JSON_MAP)
		return jsonl_error(lines, EXIT_DATA, "", "the line is no JSON map");
	return 1;
}

/* Reads up to a line that is not empty: 1, 0 at the end, -1. */
static int read_line(struct jsonl *lines)
{
	int more;

	lines->blank = 0;
	while ((more = input_line(lines->input, &lines->line)) > 0) {
		lines->number++;
		if (!is_blank(&lines->line))
			break;
		lines->blank++;
	}
	lines->failed = more < 0;
	return more;
}

/* Says that a line before the one that was read is empty; that one comes next. */
static int refuse_blank(struct jsonl *lines)
{
	size_t number = lines->number;

	lines->number -= lines->blank;
	lines->bytes = 0;
	jsonl_error(lines, EXIT_DATA, "", "the line is empty");
	lines->number = number;
	return -1;
}

int jsonl_next(struct jsonl *lines, const struct json **map)
{
	struct text *line = &lines->line;

	json_free(lines->map);
	lines->map = NULL;
	if (lines->blank == 0) {
		int more = read_line(lines);

		if (more <= 0)
			return more;
		if (lines->blank > 0)
			return refuse_blank(lines);
	}
	lines->blank = 0;
	lines->bytes = line->bytes;
	while (lines->bytes > 0 && strchr("\r\n", line->data[lines->bytes - 1]))
		lines->bytes--;
	int done = parse_line(lines);
	*map = lines->map;
	return done;
}

const char *jsonl_text(const struct jsonl *lines, const char *key, size_t *bytes)
{
	const struct json *value = json_find(lines->map, key);
	char quote[JSONL_QUOTE];

	if (json_kind(value) == JSON_TEXT) {
		*bytes = json_text_bytes(value);
		return json_as_text(value, "");
	}
	if (!value) {
		const char *near = json_nearest(lines->map, key);

		jsonl_error(lines, EXIT_DATA, "", "there is no \"%s\"%s%s%s", key,
			    near ? " (\"" : "", near ? near : "", near ? "\" is)" : "");
		return NULL;
	}
	jsonl_quote(value, quote);
	jsonl_error(lines, EXIT_DATA, key, "\"%s\" is no text, it is %s", key, quote);
	return NULL;
}
