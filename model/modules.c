/*
 * Numbers of single modules: the rank_pattern and alpha_pattern of a PEFT adapter, to numbers
 * and back.
 *
 * PEFT asks re.match("(.*\.)?(KEY)$", path) for key after key; the first that matches counts.
 * Most keys are plain names ("attn.c_proj"), of which an adapter may have one for every module:
 * they are compared without an engine. A point in them stands for any character, as in Python.
 */
#include "model/internal.h"

#include <stdlib.h>
#include <string.h>

#define MOST_REGEXES 64 /* of keys that are more than a name */

struct key {
	const char *text;
	struct regex *regex; /* null: a plain name */
};

static bool is_plain(const char *key)
{
	static const char plain[] =
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";

	return key[strspn(key, plain)] == '\0';
}

/* The path ends with the name, which begins there or behind a point. */
static int name_matches(const char *path, const char *name)
{
	size_t path_bytes = strlen(path), name_bytes = strlen(name);

	if (name_bytes > path_bytes)
		return 0;
	const char *end = path + path_bytes - name_bytes;
	for (size_t i = 0; i < name_bytes; i++)
		if (name[i] != '.' && name[i] != end[i])
			return 0;
	return end == path || end[-1] == '.';
}

static int open_keys(struct arena *arena, const struct targets *targets, const char *field,
		     const struct module_numbers *numbers, struct key *key)
{
	int regexes = 0;

	for (int i = 0; i < numbers->count; i++) {
		key[i].text = numbers->item[i].key;
		if (is_plain(key[i].text))
			continue;
		if (++regexes > MOST_REGEXES)
			return error(EXIT_CONFIG, "%s: %s has more than %d regular expressions",
				     targets->where, field, MOST_REGEXES);
		const char *text = arena_format(arena, "(.*\\.)?(%s)$", key[i].text);
		key[i].regex = regex_open(text, targets->where, field);
		if (!key[i].regex)
			return -1;
	}
	return 0;
}

/* Which key is a module's; count: none; -1 after an error. */
static int find_key(const struct key *key, int count, const char *path)
{
	for (int i = 0; i < count; i++) {
		int rc = key[i].regex ? regex_matches(key[i].regex, path, false)
				      : name_matches(path, key[i].text);

		if (rc != 0)
			return rc < 0 ? -1 : i;
	}
	return count;
}

static int read_all(const struct targets *targets, const struct module_numbers *numbers,
		    const struct key *key, double standard, double *number)
{
	char path[MODULE_ROOM];

	for (int i = 0; i < targets->config->blocks * targets->rows; i++) {
		number[i] = standard;
		if (!targets->chosen[i])
			continue;
		module_path(path, targets->config, targets->row[i % targets->rows],
			    i / targets->rows);
		int found = find_key(key, numbers->count, path);
		if (found < 0)
			return -1;
		if (found < numbers->count)
			number[i] = numbers->item[found].number;
	}
	return 0;
}

int module_numbers_read(const struct targets *targets, const struct module_numbers *numbers,
			const char *field, double standard, double *number)
{
	struct key *key = xzalloc((size_t)numbers->count + 1, sizeof(*key));
	struct arena arena = {0};
	int rc = open_keys(&arena, targets, field, numbers, key);

	if (rc == 0)
		rc = read_all(targets, numbers, key, standard, number);
	for (int i = 0; i < numbers->count; i++)
		regex_close(key[i].regex);
	free(key);
	arena_release(&arena);
	return rc;
}

/* Whether the chosen modules of a row have one number in all blocks. */
static bool is_same(const struct targets *targets, const double *number, int r, double *same)
{
	bool found = false;

	for (int i = r; i < targets->config->blocks * targets->rows; i += targets->rows) {
		if (!targets->chosen[i])
			continue;
		if (found && number[i] != *same)
			return false;
		*same = number[i];
		found = true;
	}
	return found;
}

static void add_number(struct module_numbers *numbers, struct arena *arena, const char *key,
		       double number)
{
	numbers->item[numbers->count++] =
	    (struct module_number){arena_copy(arena, key, strlen(key)), number};
}

void module_numbers_write(const struct targets *targets, struct arena *arena, double standard,
			  const double *number, struct module_numbers *numbers)
{
	const int blocks = targets->config->blocks, rows = targets->rows;
	char text[MODULE_ROOM];
	double same = standard;

	*numbers = (struct module_numbers){
	    arena_take(arena, (size_t)blocks * (size_t)rows * sizeof(*numbers->item)), 0};
	for (int r = 0; r < rows; r++) {
		if (is_same(targets, number, r, &same)) {
			module_inside(text, targets->row[r]);
			if (same != standard)
				add_number(numbers, arena, text, same);
			continue;
		}
		for (int i = r; i < blocks * rows; i += rows) {
			if (!targets->chosen[i] || number[i] == standard)
				continue;
			module_path(text, targets->config, targets->row[r], i / rows);
			add_number(numbers, arena, text, number[i]);
		}
	}
}
