/*
 * schema_write.c - a whole configuration as YAML that reads back to the same values: the
 * resolved file of a run. It walks the table, since values may have been decided after reading;
 * rows of one map stand together there, so a heading is written where a row's path leaves that
 * of the row before.
 */
#include "base/schema.h"

#include <string.h>

static void indent(struct text *text, int depth)
{
	for (int i = 0; i < depth; i++)
		text_put(text, "  ", 2);
}

static void write_struct(const struct schema *schema, const char *prefix, const char *base,
			 int depth, struct text *text);

/* "  - " before the first key of an item takes the place of its indentation. */
static void write_list(const struct schema *schema, const struct field *field,
		       const struct list *list, int depth, struct text *text)
{
	struct text prefix = {0}, item = {0};

	text_add(&prefix, "%s[]", field->path);
	text_add(text, "\n");
	for (int i = 0; i < list->count; i++) {
		const char *base = (const char *)list->item + (size_t)i * field->item_bytes;

		item.bytes = 0;
		write_struct(schema, prefix.data, base, depth + 1, &item);
		indent(text, depth);
		text_add(text, "- %s", item.bytes ? item.data + 2 * (depth + 1) : "{}\n");
	}
	text_release(&prefix);
	text_release(&item);
}

/* Writes the headings of the maps that a path enters and the one before was not in; returns how
 * deep the path's own key stands, and the key in *key. */
static int write_headings(const char *before, const char *path, int depth, const char **key,
			  struct text *text)
{
	bool apart = false;

	for (;;) {
		size_t bytes = strcspn(path, ".");

		*key = path;
		if (path[bytes] == '\0')
			return depth;
		apart = apart || strncmp(before, path, bytes + 1) != 0;
		if (apart) {
			indent(text, depth);
			text_add(text, "%.*s:\n", (int)bytes, path);
		} else {
			before += bytes + 1;
		}
		path += bytes + 1;
		depth++;
	}
}

/* Whether a key says nothing: its zero means "not given". */
static bool is_empty(const struct field *field, const char *base)
{
	if (field->required)
		return false;
	if (field->given && !field->standard)
		return !*(const bool *)(base + field->given);
	return value_is_empty(field, base + field->offset);
}

/* Writes the keys of a struct; prefix and base as in schema_below. */
static void write_struct(const struct schema *schema, const char *prefix, const char *base,
			 int depth, struct text *text)
{
	const char *before = "", *key;

	for (int i = 0; i < schema->count; i++) {
		const struct field *field = &schema->field[i];
		const char *path = schema_below(field, prefix);
		const char *slot = base + field->offset;
		int deep;

		if (!path || (field->refused && !field->standard))
			continue;
		if (is_empty(field, base))
			continue;
		deep = write_headings(before, path, depth, &key, text);
		before = path;
		indent(text, deep);
		text_add(text, "%s:", key);
		if (field->kind == FIELD_LIST) {
			write_list(schema, field, (const struct list *)slot, deep + 1, text);
			continue;
		}
		text_put(text, " ", 1);
		value_write(field, slot, text);
		text_put(text, "\n", 1);
	}
}

void config_write(const struct config *config, const void *values, struct text *text)
{
	write_struct(config->schema, "", values, 0, text);
}
