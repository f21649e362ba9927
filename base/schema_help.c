/*
 * schema_help.c - the table as text for people: `edgepipe help config`.
 *
 *	train
 *	  batch              sequences per step, over the whole cluster
 *	                     an integer, at least 1; default 32
 */
#include "base/schema.h"

#include <string.h>

enum { NAMES = 22 };	/* columns before the explanation */

/* Adds ", more" or "more" where nothing stands yet. */
static void add_part(struct text *text, const char *more)
{
	text_add(text, "%s%s", text->bytes ? ", " : "", more);
}

/* What may be written there: kind, choices, range, default. */
static void describe(const struct field *field, struct text *text)
{
	struct text range = {0}, unbuilt = {0};

	if (field->words && !value_is_number(field->kind)) {
		value_add_words(field, true, text);
		value_add_words(field, false, &unbuilt);
	} else {
		add_part(text, value_kind(field->kind));
	}
	if (unbuilt.data)
		text_add(text, " (not built yet: %s)", unbuilt.data);
	value_add_range(field, &range);
	if (range.data)
		add_part(text, range.data);
	if (field->words && value_is_number(field->kind))
		text_add(text, ", or %s", field->words[0]);
	if (field->required)
		add_part(text, "required");
	if (field->standard)
		text_add(text, "; default %s", field->standard);
	if (field->refused)
		text_add(text, "; not built yet");
	text_release(&range);
	text_release(&unbuilt);
}

static void add_row(const struct field *field, const char *name, int depth, struct text *text)
{
	const char *list = field->kind == FIELD_LIST ? "[]" : "";
	int room = NAMES - 2 * depth - (int)(strlen(name) + strlen(list));
	struct text what = {0};

	describe(field, &what);
	text_add(text, "%*s%s%s", 2 * depth, "", name, list);
	if (room > 0)
		text_add(text, "%*s", room, "");
	else
		text_add(text, "\n%*s", NAMES, "");
	text_add(text, "%s\n%*s%s\n", field->help ? field->help : "", NAMES, "", what.data);
	text_release(&what);
}

void schema_help(const struct schema *schema, struct text *text)
{
	const char *group = "";
	size_t group_bytes = 0;

	for (int i = 0; i < schema->count; i++) {
		const struct field *field = &schema->field[i];
		const char *path = field->path, *name;
		size_t bytes = strcspn(path, ".[");
		bool alone = path[bytes] == '\0';

		name = path + bytes + strspn(path + bytes, ".[]");
		if (bytes != group_bytes || strncmp(path, group, bytes) != 0) {
			text_add(text, "%s", i ? "\n" : "");
			if (!alone)
				text_add(text, "%.*s\n", (int)bytes, path);
		}
		add_row(field, alone ? path : name, alone ? 0 : 1, text);
		group = path;
		group_bytes = bytes;
	}
}
