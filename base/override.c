/*
 * override.c - what --set gives: "train.batch=16", "nodes.0.memory=4 GiB".
 *
 * It goes into the tree before the table sees it. So an override is checked like a line of the
 * file, may mend one, and may name a key that the file leaves out; its errors name it.
 */
#include "base/schema.h"

#include <string.h>

enum { SHOWN = 100 };	/* bytes of an override that its errors repeat */

/* An error that is not about a value: a malformed override, a place that is not there. */
static int refuse(struct source *source, int code, const char *why)
{
	source->errors++;
	return error(code, "%s: %s", source->name, why);
}

/* The value's own tree. Only what begins like YAML's lists, maps and quotes is read as YAML: a
 * path or a name that holds ": " or " #" needs no second quoting against it. */
static struct yaml *value_tree(struct arena *arena, struct source *source, const char *value)
{
	struct yaml *node;

	if (value[0] != '\0' && strchr("[{\"'", value[0])) {
		source->data = value;
		source->bytes = strlen(value);
		return yaml_tree(arena, source);
	}
	node = arena_take(arena, sizeof *node);
	*node = (struct yaml){ .kind = YAML_TEXT, .text = value, .width = 1, .source = source };
	return node;
}

/* A value that is empty, under a new key at the end of a map. */
static struct yaml *add_key(struct arena *arena, struct source *source, struct yaml *map,
			    const char *key)
{
	struct yaml *node = arena_take(arena, sizeof *node), **at = &map->first;

	*node = (struct yaml){ .kind = YAML_TEXT, .text = "", .key = key, .source = source };
	while (*at)
		at = &(*at)->next;
	*at = node;
	map->count++;
	return node;
}

static struct yaml *list_item(struct source *source, struct yaml *list, const char *part,
			      const char *shown)
{
	int index = path_index(part, strlen(part));
	struct yaml *item = NULL;
	struct text why = {0};

	if (index >= 0 && index < list->count)
		item = list->item[index];
	else if (index < 0)
		text_add(&why, "%s is a list of %d: name an item by its number, as %s.0", shown,
			 list->count, shown);
	else if (list->count)
		text_add(&why, "%s has %d items (0 to %d), there is no %d", shown, list->count,
			 list->count - 1, index);
	else
		text_add(&why, "%s has no items", shown);
	if (!item)
		refuse(source, EXIT_CONFIG, why.data);
	text_release(&why);
	return item;
}

/* One part of the path further; null after an error. */
static struct yaml *step(struct arena *arena, struct source *source, struct yaml *at,
			 const char *part, const char *shown)
{
	struct yaml *child;

	if (at->kind == YAML_LIST)
		return list_item(source, at, part, shown);
	if (yaml_is_nil(at) && path_index(part, strlen(part)) >= 0) {
		refuse(source, EXIT_CONFIG, arena_format(arena, "%s has no items", shown));
		return NULL;
	}
	if (at->kind == YAML_TEXT && !yaml_is_nil(at)) {
		refuse(source, EXIT_CONFIG,
		       arena_format(arena, "%s is a value, it holds no keys", shown));
		return NULL;
	}
	if (at->kind == YAML_TEXT) {
		at->kind = YAML_MAP;
		at->text = NULL;
	}
	child = yaml_find(at, part);
	return child ? child : add_key(arena, source, at, part);
}

/* Walks "nodes.0.memory" or "nodes[0].memory", making maps on the way; null after an error. */
static struct yaml *find_place(struct config *config, struct source *source, char *path)
{
	struct yaml *at = config->root;
	const char *shown = "the file";
	char *part, *rest = path;
	size_t kept = 0;

	for (const char *c = path; *c; c++)
		if (*c != ']')
			path[kept++] = *c == '[' ? '.' : *c;
	path[kept] = '\0';
	if (kept == 0 || path[0] == '.' || path[kept - 1] == '.' || strstr(path, "..")) {
		refuse(source, EXIT_USAGE, "its key has an empty part");
		return NULL;
	}
	while (at && (part = strsep(&rest, "."))) {
		at = step(&config->arena, source, at, part, shown);
		shown = part == path ? part
				     : arena_format(&config->arena, "%s.%s", shown, part);
	}
	return at;
}

static void replace(struct yaml *node, const struct yaml *value)
{
	struct yaml old = *node;

	*node = *value;
	node->key = old.key;
	node->key_line = old.key_line;
	node->key_column = old.key_column;
	node->next = old.next;
}

static struct source *add_source(struct config *config, const char *override)
{
	struct source *source = arena_take(&config->arena, sizeof *source);
	struct source **at = &config->source;
	size_t bytes = strlen(override);
	bool cut = bytes > SHOWN;
	char *name;

	bytes = cut ? SHOWN : bytes;
	while (cut && bytes > 0 && ((unsigned char)override[bytes] & 0xc0) == 0x80)
		bytes--;
	name = arena_format(&config->arena, "--set '%.*s%s'", (int)bytes, override,
			    cut ? "..." : "");
	for (char *c = name; *c; c++)
		*c = (unsigned char)*c < 0x20 ? ' ' : *c;
	source->name = name;
	source->override = true;
	while (*at)
		at = &(*at)->next;
	*at = source;
	return source;
}

void override_apply(struct config *config, const char *override)
{
	struct source *source = add_source(config, override);
	const char *equals = strchr(override, '=');
	struct yaml *value, *node;
	char *path;

	if (!equals || equals == override) {
		refuse(source, EXIT_USAGE, "must be KEY=VALUE, as train.batch=16");
		return;
	}
	path = arena_copy(&config->arena, override, (size_t)(equals - override));
	node = find_place(config, source, path);
	if (!node)
		return;
	override = arena_copy(&config->arena, equals + 1, strlen(equals + 1));
	value = value_tree(&config->arena, source, override);
	if (value)
		replace(node, value);
}
