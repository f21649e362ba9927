/*
 * base/schema.h - what the files that read a configuration share: texts that errors point into
 * (source.c), trees with recoverable errors (yaml.c), single values (value.c), the walk
 * (schema.c).
 *
 *	source.c -> yaml.c -> override.c -> schema.c, value.c -> config.c
 *	 text        tree      --set         table   -> struct    for the callers
 */
#ifndef EDGEPIPE_BASE_SCHEMA_H
#define EDGEPIPE_BASE_SCHEMA_H

#include "base/base.h"

/* -- source.c ------------------------------------------------------------------------------ */

/* A text that errors point into: a file, or an override from the command line. */
struct source {
	const char *name;	/* the path as given, or "--set 'a.b=c'" */
	const char *data;
	size_t bytes;
	bool override;		/* short, and on the screen: no positions and lines are shown */
	int errors;		/* reported so far */
	struct source *next;
};
/* The file, from the arena; null after an error (EXIT_INPUT; EXIT_CONFIG above 4 MiB). */
struct source *source_read(struct arena *arena, const char *path);
/* A copy of a text in memory, from the arena. */
struct source *source_make(struct arena *arena, const char *name, const char *data,
			   size_t bytes);
/* The line and the column of a byte, and the first byte of a character (NUL: none there). */
void source_place(const struct source *source, size_t offset, int *line, int *column);
char source_character(const struct source *source, int line, int column);
/* The line after the one that data points into; the end of the text after the last. */
const char *source_next_line(const struct source *source, const char *data);
/*
 * Reports "NAME:LINE:COLUMN: error: ..." (EXIT_CONFIG) with the line and a caret line of that
 * width. Counts from 1, columns in characters. After many errors, one last line says so and the
 * rest is only counted.
 */
void source_error(struct source *source, int line, int column, int width, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
void source_verror(struct source *source, int line, int column, int width, const char *fmt,
		   va_list values) __attribute__((format(printf, 5, 0)));
/* Whether further errors are only counted: no need to work for their hints. */
bool source_is_full(const struct source *source);
/* The text in double quotes for a message, cut where it is long; returns buffer. */
#define SOURCE_QUOTE 64
const char *source_quote(const char *text, char buffer[SOURCE_QUOTE]);

/* -- yaml.c -------------------------------------------------------------------------------- */

/*
 * As yaml_read, but a tree that remains useful in spite of errors (a duplicate key, an anchor,
 * a tag) is returned, and source->errors tells: all errors of a file can be said at once.
 */
struct yaml *yaml_tree(struct arena *arena, struct source *source);
/* Reports an error about a value, or about a key, at its place; marks the node as wrong. */
void yaml_error(struct yaml *node, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void yaml_key_error(struct yaml *node, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Whether nothing is said there: empty, ~ or null (unquoted), or no node at all. */
bool yaml_is_nil(const struct yaml *node);
/* "a text", "a list", "a map of keys". */
const char *yaml_kind(const struct yaml *node);

/* -- override.c ---------------------------------------------------------------------------- */

/* Puts the value of "a.b=value" into config's tree. Errors are reported and counted by its
 * source, which joins config's. */
void override_apply(struct config *config, const char *override);

/* -- value.c ------------------------------------------------------------------------------- */

/* Room for a value of any kind of field. */
union value {
	const char *text;
	int word;
	long long integer;
	double number;
	bool flag;
	struct texts texts;
	struct numbers numbers;
	struct list list;
};
/* Reads a node (not of a FIELD_LIST, not nil) into the slot, which is untouched after an error.
 * Errors are reported at the node, with the path as people are to see it. */
int value_read(struct config *config, const struct field *field, struct yaml *node,
	       const char *shown, void *slot);
/* Reads the row's default, if it has one. */
void value_default(struct config *config, const struct field *field, void *slot);
/* Whether it is a number, with a unit or without; its enum unit, -1: none. */
bool value_is_number(enum field_kind kind);
int value_unit(enum field_kind kind);
bool value_in_range(const struct field *field, double value);
/* What values of a field are, for people: "an integer", "a rate with its unit". */
const char *value_kind(enum field_kind kind);
/* Adds "at least 1" or the like; nothing where any value is allowed. */
void value_add_range(const struct field *field, struct text *text);
/* Adds the choices that are built, or those that are not yet, "fp32, bf16"; nothing if none. */
void value_add_words(const struct field *field, bool built, struct text *text);

/* -- value_write.c ------------------------------------------------------------------------- */

/* Adds a value as YAML that value_read reads back to the same bits. */
void value_write(const struct field *field, const void *slot, struct text *text);
/* Whether there is nothing to write: null, an empty list, a zero that means "not given". */
bool value_is_empty(const struct field *field, const void *slot);

/* -- schema.c ------------------------------------------------------------------------------ */

/* Reads config's tree through its table into *out, and reports all that is wrong with it. */
void schema_read(struct config *config, void *out);
/* What follows "prefix." in a row's path where the row belongs to the struct at that prefix (""
 * for the whole, "nodes[]" for an item); null where it does not. */
const char *schema_below(const struct field *field, const char *prefix);

/* -- config.c ------------------------------------------------------------------------------ */

/* The number that a part of a path is ("12" of "nodes.12.name"), -1 if it is a key. */
int path_index(const char *part, size_t bytes);

#endif
