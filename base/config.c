/*
 * config.c - a configuration as its users see it: one call to read it, and afterwards where
 * each value came from, for the checks that span several keys.
 */
#include "base/schema.h"

#include <stdlib.h>
#include <string.h>

/* The tree of the file, which must be a map; null after an error. */
static struct yaml *read_root(struct config *config)
{
	struct yaml *root = yaml_tree(&config->arena, config->source);

	if (!root || root->kind == YAML_MAP)
		return root;
	if (yaml_is_nil(root))
		yaml_error(root, "the file is empty");
	else
		yaml_error(root, "a map of keys is expected here, not %s", yaml_kind(root));
	return NULL;
}

int config_read(struct config *config, const struct schema *schema, void *out, const char *path,
		const char *const *overrides, int override_count)
{
	*config = (struct config){ .schema = schema };
	config->file = arena_copy(&config->arena, path, strlen(path));
	config->source = source_read(&config->arena, path);
	if (!config->source)
		return -1;
	config->root = read_root(config);
	if (!config->root)
		return -1;
	for (int i = 0; i < override_count; i++)
		override_apply(config, overrides[i]);
	schema_read(config, out);
	return config_errors(config) ? -1 : 0;
}

void config_release(struct config *config)
{
	arena_release(&config->arena);
	*config = (struct config){0};
}

int config_errors(const struct config *config)
{
	int errors = 0;

	for (const struct source *source = config->source; source; source = source->next)
		errors += source->errors;
	return errors;
}

int path_index(const char *part, size_t bytes)
{
	return bytes > 0 && bytes < 10 && strspn(part, "0123456789") == bytes
		       ? (int)strtol(part, NULL, 10) : -1;
}

static struct yaml *child_of(const struct yaml *node, const char *part, size_t bytes)
{
	struct yaml *child = node->first;

	if (node->kind == YAML_LIST) {
		int index = path_index(part, bytes);

		return index >= 0 && index < node->count ? node->item[index] : NULL;
	}
	while (child && (strlen(child->key) != bytes || strncmp(child->key, part, bytes) != 0))
		child = child->next;
	return child;
}

/* Follows a path as far as it goes; *rest is what is left of it, "" where the value is there.
 * *sound turns false where an error was reported on the way. */
static struct yaml *follow(const struct config *config, const char *path, const char **rest,
			   bool *sound)
{
	struct yaml *at = config->root;

	*sound = at && !at->wrong;
	while (at && path[0]) {
		size_t bytes = strcspn(path, ".");
		struct yaml *child = child_of(at, path, bytes);

		if (!child)
			break;
		at = child;
		*sound = *sound && !at->wrong;
		path += bytes + (path[bytes] == '.');
	}
	*rest = path;
	return at;
}

bool config_given(const struct config *config, const char *path)
{
	const char *rest;
	bool sound;
	struct yaml *node = follow(config, path, &rest, &sound);

	return rest[0] == '\0' && !yaml_is_nil(node);
}

bool config_sound(const struct config *config, const char *path)
{
	const char *rest;
	bool sound;

	follow(config, path, &rest, &sound);
	return sound;
}

int config_line(const struct config *config, const char *path)
{
	const char *rest;
	bool sound;
	struct yaml *node = follow(config, path, &rest, &sound);

	return node && rest[0] == '\0' && !node->source->override ? node->line : 0;
}

/* Adds "links.between[2].bandwidth" for "links.between.2.bandwidth". */
static void add_path(struct text *text, const char *path)
{
	for (size_t bytes; path[0]; path += bytes + (path[bytes] == '.')) {
		bytes = strcspn(path, ".");
		if (path_index(path, bytes) >= 0)
			text_add(text, "[%.*s]", (int)bytes, path);
		else
			text_add(text, "%s%.*s", text->bytes ? "." : "", (int)bytes, path);
	}
}

void config_error(const struct config *config, const char *path, const char *fmt, ...)
{
	struct text text = {0};
	const char *rest;
	char *message;
	va_list values;
	bool sound;
	struct yaml *node = follow(config, path, &rest, &sound);

	if (!node || (rest[0] == '\0' && node->wrong))
		return;
	add_path(&text, path);
	va_start(values, fmt);
	if (vasprintf(&message, fmt, values) < 0)
		message = xcopy(fmt);
	va_end(values);
	if (rest[0] == '\0')
		yaml_error(node, "%s: %s", text.data, message);
	else
		source_error(node->source, node->line, node->column, node->width, "%s: %s",
			     text.data, message);
	free(message);
	text_release(&text);
}
