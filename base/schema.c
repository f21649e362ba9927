/*
 * schema.c - reads a tree through the table into a struct.
 *
 * Two rhythms. Maps are followed as they stand in the file, so that errors come in its order:
 * each key is a row, leads to rows ("train" to "train.batch"), or is unknown. Defaults and
 * missing keys are a matter of the table, once for the whole struct and once for every item of
 * a list.
 */
#include "base/schema.h"

#include <string.h>

/* Where the walk is: in the table, for people, and in the struct. */
struct place {
	struct config *config;
	const char *rows;	/* "links.between[]" */
	const char *shown;	/* "links.between[2]" */
	char *base;		/* of the struct that the rows' offsets count in */
};

static void read_struct(const struct place *place, struct yaml *map);

const char *schema_below(const struct field *field, const char *prefix)
{
	size_t bytes = strlen(prefix);
	const char *rest = field->path + bytes;

	if (strncmp(field->path, prefix, bytes) != 0 || (bytes > 0 && *rest++ != '.'))
		return NULL;
	return strstr(rest, "[]") ? NULL : rest;
}

static const char *below(const struct place *place, const char *prefix, const char *key)
{
	return prefix[0] ? arena_format(&place->config->arena, "%s.%s", prefix, key) : key;
}

/* The row with this path, or null; *inside tells whether other rows go on below it. */
static const struct field *find_row(const struct schema *schema, const char *path, bool *inside)
{
	const struct field *found = NULL;
	size_t bytes = strlen(path);

	*inside = false;
	for (int i = 0; i < schema->count; i++) {
		const struct field *field = &schema->field[i];

		if (strncmp(field->path, path, bytes) != 0)
			continue;
		if (field->path[bytes] == '\0')
			found = field;
		else if (field->path[bytes] == '.')
			*inside = true;
	}
	return found;
}

/* -- what is wrong with a key -------------------------------------------------------------- */

/* Collects the keys that rows know directly below a path; returns how many. */
static int known_keys(const struct place *place, struct arena *arena, const char **key)
{
	const struct schema *schema = place->config->schema;
	size_t bytes = strlen(place->rows);
	int count = 0;

	for (int i = 0; i < schema->count; i++) {
		const char *path = schema->field[i].path;
		size_t length;

		if (strncmp(path, place->rows, bytes) != 0 || (bytes && path[bytes] != '.'))
			continue;
		path += bytes + (bytes > 0);
		length = strcspn(path, ".[");
		if (count == 0 || strlen(key[count - 1]) != length ||
		    strncmp(key[count - 1], path, length) != 0)
			key[count++] = arena_copy(arena, path, length);
	}
	return count;
}

static void refuse_key(const struct place *place, struct yaml *node)
{
	struct arena scratch = {0};
	struct text hint = {0};
	char quote[SOURCE_QUOTE];
	const char **key, *near;
	int count;

	if (source_is_full(node->source)) {
		yaml_key_error(node, "unknown key");
		return;
	}
	key = arena_take(&scratch, (size_t)place->config->schema->count * sizeof *key);
	count = known_keys(place, &scratch, key);
	near = nearest_word(node->key, key, count);
	if (near)
		text_add(&hint, "did you mean \"%s\"?", near);
	for (int i = 0; i < count && !near; i++)
		text_add(&hint, "%s%s", i ? ", " : "known: ", key[i]);
	yaml_key_error(node, "unknown key %s%s%s (%s)", source_quote(node->key, quote),
		       place->shown[0] ? " in " : "", place->shown, hint.data);
	text_release(&hint);
	arena_release(&scratch);
}

/* A key that is not built: refused unless it says what is the case anyway. */
static void refuse_unbuilt(struct config *config, const struct field *field, struct yaml *node,
			   const char *shown)
{
	union value given = {0}, standard = {0};
	struct text one = {0}, two = {0};

	if (field->standard) {
		if (value_read(config, field, node, shown, &given) < 0)
			return;
		value_default(config, field, &standard);
		value_write(field, &given, &one);
		value_write(field, &standard, &two);
	}
	if (!field->standard ? node->kind == YAML_TEXT || node->count > 0
			     : strcmp(one.data, two.data) != 0)
		yaml_error(node, "%s: not built yet: %s", shown, field->refused);
	text_release(&one);
	text_release(&two);
}

/* -- the walk ------------------------------------------------------------------------------ */

static void read_list(const struct place *place, const struct field *field, struct yaml *node,
		      const char *shown)
{
	struct arena *arena = &place->config->arena;
	struct list *list = (struct list *)(place->base + field->offset);
	struct yaml *child = node->first;

	if (node->kind != YAML_LIST) {
		yaml_error(node, "%s: must be a list, not %s", shown, yaml_kind(node));
		return;
	}
	list->count = node->count;
	list->item = arena_take(arena, (size_t)node->count * field->item_bytes);
	for (int i = 0; i < node->count; i++, child = child->next) {
		struct place item = {
			place->config, arena_format(arena, "%s[]", field->path),
			arena_format(arena, "%s[%d]", shown, i),
			(char *)list->item + (size_t)i * field->item_bytes,
		};

		if (child->kind != YAML_MAP)
			yaml_error(child, "%s: must be a map of keys, not %s", item.shown,
				   yaml_kind(child));
		read_struct(&item, child);
	}
}

static void read_value(const struct place *place, const struct field *field, struct yaml *node,
		       const char *shown)
{
	if (field->given)
		*(bool *)(place->base + field->given) = true;
	value_read(place->config, field, node, shown, place->base + field->offset);
}

static void read_map(const struct place *place, struct yaml *map)
{
	struct config *config = place->config;

	for (struct yaml *node = map->first; node; node = node->next) {
		bool odd = strpbrk(node->key, ".[") != NULL, inside = false;
		const char *rows, *shown;
		const struct field *field;

		if (node->wrong)
			continue;
		rows = odd ? "" : below(place, place->rows, node->key);
		shown = odd ? "" : below(place, place->shown, node->key);
		field = odd ? NULL : find_row(config->schema, rows, &inside);
		if (!field && !inside)
			refuse_key(place, node);
		else if (yaml_is_nil(node))
			continue;
		else if (field && field->refused)
			refuse_unbuilt(config, field, node, shown);
		else if (field && field->kind == FIELD_LIST)
			read_list(place, field, node, shown);
		else if (field)
			read_value(place, field, node, shown);
		else if (node->kind == YAML_MAP)
			read_map(&(struct place){ config, rows, shown, place->base }, node);
		else
			yaml_error(node, "%s: must be a map of keys, not %s", shown,
				   yaml_kind(node));
	}
}

/* Says where a required key is missing: at the deepest map on the way to it that is there. */
static void check_required(const struct place *place, struct yaml *map, const char *path)
{
	struct yaml *at = map, *next;
	const char *shown = place->shown, *rest = path;
	char *key;

	for (; at->kind == YAML_MAP; at = next) {
		key = arena_copy(&place->config->arena, rest, strcspn(rest, "."));
		next = yaml_find(at, key);
		if (!next)
			break;
		shown = below(place, shown, key);
		rest += strlen(key);
		rest += rest[0] == '.';
	}
	if (at->wrong || (rest[0] == '\0' && !yaml_is_nil(at)))
		return;
	if (rest[0] == '\0')
		yaml_error(at, "%s: needs a value", shown);
	else
		source_error(at->source, at->line, at->column, at->width,
			     "missing key \"%s\"%s%s", rest, shown[0] ? " in " : "", shown);
}

static void read_struct(const struct place *place, struct yaml *map)
{
	const struct schema *schema = place->config->schema;

	for (int i = 0; i < schema->count; i++) {
		const struct field *field = &schema->field[i];

		if (schema_below(field, place->rows))
			value_default(place->config, field, place->base + field->offset);
	}
	if (map->kind != YAML_MAP)
		return;
	read_map(place, map);
	for (int i = 0; i < schema->count; i++) {
		const char *rest = schema_below(&schema->field[i], place->rows);

		if (rest && schema->field[i].required)
			check_required(place, map, rest);
	}
}

void schema_read(struct config *config, void *out)
{
	struct place place = { config, "", "", out };

	read_struct(&place, config->root);
}
