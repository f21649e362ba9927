/*
 * model/place.c - where in a line a value stands.
 *
 * The tree of a JSON text keeps no positions, so they are sought in the text again once there
 * is an error about a value. The text is sound JSON by then.
 */
#include "model/place.h"

#include <stdlib.h>
#include <string.h>

struct scan {
	const char *data, *at, *end;
};

static void skip_space(struct scan *s)
{
	while (s->at < s->end && strchr(" \t\r\n", *s->at) && *s->at)
		s->at++;
}

/* Over a text; what stands between its quotes goes to *from and *bytes. */
static void skip_text(struct scan *s, const char **from, size_t *bytes)
{
	*from = ++s->at;
	while (s->at < s->end && *s->at != '"')
		s->at += *s->at == '\\' ? 2 : 1;
	if (s->at > s->end)
		s->at = s->end;
	*bytes = (size_t)(s->at - *from);
	if (s->at < s->end)
		s->at++;
}

static void skip_value(struct scan *s)
{
	const char *from;
	size_t bytes, depth = 0;

	do {
		skip_space(s);
		if (s->at == s->end)
			return;
		if (*s->at == '"') {
			skip_text(s, &from, &bytes);
			continue;
		}
		if (*s->at == '{' || *s->at == '[')
			depth++;
		else if ((*s->at == '}' || *s->at == ']') && depth > 0)
			depth--;
		else if (depth == 0)
			while (s->at + 1 < s->end && !strchr(",]} \t\r\n", s->at[1]))
				s->at++;
		s->at++;
	} while (depth > 0);
}

/* Moves from a map to the value of a key, or from a list to an item; false: it is not there. */
static bool enter(struct scan *s, const char *key, size_t key_bytes, size_t item)
{
	char closing = key ? '}' : ']';

	if (s->at == s->end || *s->at != (key ? '{' : '['))
		return false;
	s->at++;
	for (size_t i = 0;; i++) {
		const char *from = NULL;
		size_t bytes = 0;

		skip_space(s);
		if (s->at == s->end || *s->at == closing)
			return false;
		if (key) {
			skip_text(s, &from, &bytes);
			skip_space(s);
			s->at++; /* the colon */
			skip_space(s);
		}
		if (key ? bytes == key_bytes && memcmp(from, key, bytes) == 0 : i == item)
			return true;
		skip_value(s);
		skip_space(s);
		if (s->at < s->end && *s->at == ',')
			s->at++;
	}
}

size_t place_column(const char *data, size_t bytes, const char *path)
{
	struct scan s = {data, data, data + bytes};
	const char *found = data;

	while (path[0]) {
		size_t length = path[0] == '[' ? 0 : strcspn(path, ".[");
		size_t item = path[0] == '[' ? strtoul(path + 1, NULL, 10) : 0;

		skip_space(&s);
		if (!enter(&s, path[0] == '[' ? NULL : path, length, item))
			break;
		found = s.at;
		path += path[0] == '[' ? strcspn(path, "]") + 1 : length;
		path += path[0] == '.';
	}
	return (size_t)(found - data) + 1;
}

const char *json_nearest(const struct json *map, const char *word)
{
	const char *words[64];
	int count = 0;

	for (void *it = json_first(map); it && count < 64; it = json_next(map, it))
		words[count++] = json_name(it);
	return nearest_word(word, words, count);
}
