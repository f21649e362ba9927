/*
 * yaml.c - a YAML file as a tree that keeps positions. By libyaml's events: its document loader
 * takes eleven seconds for 80,000 bytes of '[', the events with our own limit of the depth a
 * millisecond.
 *
 * A subset on purpose. Aliases can make a small file huge, tags name types of other people's
 * programs, merge keys and second documents hide where a value comes from: all refused. So are
 * duplicate keys, which libyaml lets pass. What leaves the tree useful (most of those) is
 * reported and reading goes on; a broken syntax ends it.
 */
#include "base/schema.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum {
	LEVELS = 64,
	VALUES_MOST = 400000,	/* bounds what a 4 MiB file of commas costs */
};

/* A list or a map that is not closed yet. */
struct level {
	struct yaml *node, *last;	/* and its newest child */
	struct yaml *pending;		/* a map's: the key that waits for its value */
};

struct reader {
	struct arena *arena;
	struct source *source;
	yaml_parser_t parser;
	struct level level[LEVELS];
	int depth, values, documents;
	struct yaml *root;
};

static int mark_line(const yaml_mark_t *mark) { return (int)mark->line + 1; }
static int mark_column(const yaml_mark_t *mark) { return (int)mark->column + 1; }

/* An error after which reading cannot go on. */
static int stop(struct reader *reader, const yaml_mark_t *mark, const char *why)
{
	source_error(reader->source, mark_line(mark), mark_column(mark), 1, "%s", why);
	return -1;
}

void yaml_error(struct yaml *node, const char *fmt, ...)
{
	va_list values;

	node->wrong = true;
	va_start(values, fmt);
	source_verror(node->source, node->line, node->column, node->width, fmt, values);
	va_end(values);
}

void yaml_key_error(struct yaml *node, const char *fmt, ...)
{
	int width = 0;
	va_list values;

	node->wrong = true;
	for (const char *c = node->key; *c; c++)
		width += ((unsigned char)*c & 0xc0) != 0x80;
	va_start(values, fmt);
	source_verror(node->source, node->key_line, node->key_column, width, fmt, values);
	va_end(values);
}

/* -- the tree ------------------------------------------------------------------------------ */

static struct yaml *node_make(struct reader *reader, enum yaml_kind kind,
			      const yaml_event_t *event)
{
	struct yaml *node = arena_take(reader->arena, sizeof *node);
	const yaml_mark_t *from = &event->start_mark, *to = &event->end_mark;

	node->kind = kind;
	node->line = mark_line(from);
	node->column = mark_column(from);
	node->width = from->line == to->line && to->column > from->column
			      ? (int)(to->column - from->column) : 1;
	node->source = reader->source;
	return node;
}

/* Hangs a value where it belongs: below the open level, under the pending key of a map. */
static void hang(struct reader *reader, struct yaml *node)
{
	struct level *level;
	struct yaml *key;

	if (reader->depth == 0) {
		reader->root = node;
		return;
	}
	level = &reader->level[reader->depth - 1];
	key = level->pending;
	if (key) {
		node->wrong = node->wrong || key->wrong;
		node->key = key->text;
		node->key_line = key->line;
		node->key_column = key->column;
		level->pending = NULL;
	}
	if (level->last)
		level->last->next = node;
	else
		level->node->first = node;
	level->last = node;
	level->node->count++;
}

static bool key_is_due(const struct reader *reader)
{
	const struct level *level;

	if (reader->depth == 0)
		return false;
	level = &reader->level[reader->depth - 1];
	return level->node->kind == YAML_MAP && !level->pending;
}

static void refuse_extras(struct yaml *node, const yaml_char_t *anchor, const yaml_char_t *tag)
{
	char quote[SOURCE_QUOTE];

	if (anchor)
		yaml_error(node, "anchors are not allowed here (%s): write the value out",
			   source_quote((const char *)anchor, quote));
	else if (tag)
		yaml_error(node, "tags are not allowed here (%s): the type of a key is fixed",
			   source_quote((const char *)tag, quote));
}

static int take_scalar(struct reader *reader, const yaml_event_t *event)
{
	struct yaml *node = node_make(reader, YAML_TEXT, event);
	const char *value = (const char *)event->data.scalar.value;
	size_t bytes = event->data.scalar.length;

	node->text = arena_copy(reader->arena, value, bytes);
	node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	refuse_extras(node, event->data.scalar.anchor, event->data.scalar.tag);
	if (memchr(value, '\0', bytes))
		yaml_error(node, "a text cannot hold the character NUL");
	if (!key_is_due(reader)) {
		hang(reader, node);
		return 0;
	}
	if (!node->quoted && strcmp(node->text, "<<") == 0)
		yaml_error(node, "merge keys (<<) are not allowed here: write the keys out");
	reader->level[reader->depth - 1].pending = node;
	return 0;
}

static int take_alias(struct reader *reader, const yaml_event_t *event)
{
	struct yaml *node = node_make(reader, YAML_TEXT, event);
	char quote[SOURCE_QUOTE];

	if (key_is_due(reader))
		return stop(reader, &event->start_mark, "a key must be a plain word");
	node->text = "";
	yaml_error(node, "aliases are not allowed here (%s): write the value out",
		   source_quote((const char *)event->data.alias.anchor, quote));
	hang(reader, node);
	return 0;
}

static int open_level(struct reader *reader, enum yaml_kind kind, const yaml_event_t *event)
{
	struct yaml *node;

	if (key_is_due(reader))
		return stop(reader, &event->start_mark, "a key must be a plain word");
	if (reader->depth == LEVELS)
		return stop(reader, &event->start_mark,
			    "more than 64 levels of lists and maps");
	node = node_make(reader, kind, event);
	node->width = 1;
	hang(reader, node);
	reader->level[reader->depth++] = (struct level){ .node = node };
	return 0;
}

/* By key, then by place: an order for qsort in which duplicates stand together. */
static int compare_keys(const void *a, const void *b)
{
	const struct yaml *one = *(struct yaml *const *)a, *two = *(struct yaml *const *)b;
	int by_key = strcmp(one->key, two->key);

	if (by_key != 0)
		return by_key;
	if (one->key_line != two->key_line)
		return one->key_line < two->key_line ? -1 : 1;
	return one->key_column - two->key_column;
}

/* Takes the nodes without a key out of a map. */
static void drop_nameless(struct yaml *map)
{
	struct yaml **at = &map->first;

	map->count = 0;
	while (*at) {
		if ((*at)->key) {
			map->count++;
			at = &(*at)->next;
		} else {
			*at = (*at)->next;
		}
	}
}

/* Reports the keys that a map has twice and keeps the first of each. */
static void refuse_duplicates(struct yaml *map)
{
	struct yaml **child, *kept;
	char quote[SOURCE_QUOTE];
	int i = 0;

	if (map->count < 2)
		return;
	child = xalloc((size_t)map->count * sizeof *child);
	for (struct yaml *node = map->first; node; node = node->next)
		child[i++] = node;
	qsort(child, (size_t)map->count, sizeof *child, compare_keys);
	kept = child[0];
	for (i = 1; i < map->count; i++) {
		if (strcmp(kept->key, child[i]->key) != 0) {
			kept = child[i];
			continue;
		}
		yaml_key_error(child[i], "duplicate key %s (first at line %d)",
			       source_quote(kept->key, quote), kept->key_line);
		child[i]->key = NULL;
	}
	free(child);
	drop_nameless(map);
}

static int close_level(struct reader *reader)
{
	struct yaml *node = reader->level[--reader->depth].node;
	int i = 0;

	if (node->kind == YAML_MAP) {
		refuse_duplicates(node);
		return 0;
	}
	node->item = arena_take(reader->arena, (size_t)node->count * sizeof *node->item);
	for (struct yaml *child = node->first; child; child = child->next)
		node->item[i++] = child;
	return 0;
}

/* A list or a map begins: the anchors and tags of both are alike. */
static int take_opening(struct reader *reader, const yaml_event_t *event)
{
	bool map = event->type == YAML_MAPPING_START_EVENT;
	const yaml_char_t *anchor = map ? event->data.mapping_start.anchor
					: event->data.sequence_start.anchor;
	const yaml_char_t *tag = map ? event->data.mapping_start.tag
				     : event->data.sequence_start.tag;

	if (open_level(reader, map ? YAML_MAP : YAML_LIST, event) < 0)
		return -1;
	refuse_extras(reader->level[reader->depth - 1].node, anchor, tag);
	return 0;
}

/* -- the events ---------------------------------------------------------------------------- */

static int take_event(struct reader *reader, const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (++reader->documents > 1)
			return stop(reader, &event->start_mark,
				    "a second document begins here: one file, one document");
		return 0;
	case YAML_SCALAR_EVENT:
	case YAML_ALIAS_EVENT:
	case YAML_SEQUENCE_START_EVENT:
	case YAML_MAPPING_START_EVENT:
		if (++reader->values > VALUES_MOST)
			return stop(reader, &event->start_mark,
				    "more than 400000 keys and values");
		if (event->type == YAML_SCALAR_EVENT)
			return take_scalar(reader, event);
		if (event->type == YAML_ALIAS_EVENT)
			return take_alias(reader, event);
		return take_opening(reader, event);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		return close_level(reader);
	default:
		return 0;
	}
}

/* Says what libyaml's reader (bytes to characters) stumbled over; it knows the byte alone. */
static void say_reader_error(struct reader *reader)
{
	const yaml_parser_t *parser = &reader->parser;
	int line, column;

	source_place(reader->source, parser->problem_offset, &line, &column);
	if (parser->problem_value >= 0)
		source_error(reader->source, line, column, 1, "%s (0x%02x)", parser->problem,
			     (unsigned)parser->problem_value);
	else
		source_error(reader->source, line, column, 1, "%s", parser->problem);
}

static void say_syntax_error(struct reader *reader)
{
	const yaml_parser_t *parser = &reader->parser;
	const yaml_mark_t *mark = &parser->problem_mark;
	int line = mark_line(mark), column = mark_column(mark);

	if (parser->error == YAML_MEMORY_ERROR)
		report(EXIT_BUG, "no memory while reading '%s'", reader->source->name);
	else if (parser->error == YAML_READER_ERROR)
		say_reader_error(reader);
	else if (source_character(reader->source, line, column) == '\t')
		source_error(reader->source, line, column, 1,
			     "a tab cannot indent: use spaces");
	else if (parser->context && parser->context_mark.line != mark->line)
		source_error(reader->source, line, column, 1, "%s, %s (it begins at line %d)",
			     parser->problem, parser->context,
			     mark_line(&parser->context_mark));
	else
		source_error(reader->source, line, column, 1, "%s%s%s", parser->problem,
			     parser->context ? ", " : "",
			     parser->context ? parser->context : "");
}

static int read_events(struct reader *reader)
{
	yaml_event_t event;
	bool done;
	int rc;

	do {
		if (!yaml_parser_parse(&reader->parser, &event)) {
			say_syntax_error(reader);
			return -1;
		}
		done = event.type == YAML_STREAM_END_EVENT;
		rc = take_event(reader, &event);
		yaml_event_delete(&event);
	} while (rc == 0 && !done);
	return rc;
}

/*
 * What libyaml is not even shown. UTF-16, which it would take. And %TAG lines before the
 * document: it compares each with all others, which makes minutes of a large file.
 */
static int check_start(struct source *source)
{
	const char *data = source->data, *end = data + source->bytes;
	int line = 1;

	if (source->bytes >= 2 && (memcmp(data, "\xff\xfe", 2) == 0 ||
				   memcmp(data, "\xfe\xff", 2) == 0)) {
		source_error(source, 1, 1, 1, "the text is UTF-16: save it as UTF-8");
		return -1;
	}
	while (data < end && strncmp(data, "---", 3) != 0) {
		if (strncmp(data, "%TAG", 4) == 0) {
			source_error(source, line, 1, 4, "%%TAG is not allowed here");
			return -1;
		}
		data = source_next_line(source, data);
		line++;
	}
	return 0;
}

struct yaml *yaml_tree(struct arena *arena, struct source *source)
{
	struct reader reader = { .arena = arena, .source = source };
	int rc;

	if (check_start(source) < 0)
		return NULL;
	if (!yaml_parser_initialize(&reader.parser))
		return error_null(EXIT_BUG, "no memory while reading '%s'", source->name);
	yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&reader.parser, (const unsigned char *)source->data,
				     source->bytes);
	rc = read_events(&reader);
	yaml_parser_delete(&reader.parser);
	if (rc < 0)
		return NULL;
	if (!reader.root)
		source_error(source, 1, 1, 1, "the file is empty");
	return reader.root;
}

static struct yaml *sound_tree(struct arena *arena, struct source *source)
{
	struct yaml *root = source ? yaml_tree(arena, source) : NULL;

	return root && source->errors == 0 ? root : NULL;
}

struct yaml *yaml_read(struct arena *arena, const char *path)
{
	return sound_tree(arena, source_read(arena, path));
}

struct yaml *yaml_parse(struct arena *arena, const char *data, size_t bytes, const char *name)
{
	return sound_tree(arena, source_make(arena, name, data, bytes));
}

struct yaml *yaml_find(const struct yaml *map, const char *key)
{
	if (!map || map->kind != YAML_MAP)
		return NULL;
	for (struct yaml *node = map->first; node; node = node->next)
		if (strcmp(node->key, key) == 0)
			return node;
	return NULL;
}

bool yaml_is_nil(const struct yaml *node)
{
	static const char *const nil[] = { "", "~", "null", "Null", "NULL" };

	if (!node)
		return true;
	if (node->kind != YAML_TEXT || node->quoted)
		return false;
	for (size_t i = 0; i < sizeof nil / sizeof *nil; i++)
		if (strcmp(node->text, nil[i]) == 0)
			return true;
	return false;
}

const char *yaml_kind(const struct yaml *node)
{
	return node->kind == YAML_TEXT ? "a text" : node->kind == YAML_LIST ? "a list"
									     : "a map of keys";
}
