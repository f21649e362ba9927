/*
 * model/steps.c - lists of steps, and what their readers share: patterns, and refusing by name.
 */
#include "model/internal.h"
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define STEPS_MOST 64 /* those in use have five; a text goes through them one inside the other */
#define GROWN_MOST ((size_t)16 << 20) /* bytes that a text may always grow to, and how many times */
#define GROWN_TIMES 64

struct step *steps_add(struct steps *steps, enum step_kind kind)
{
	if (steps->count == steps->room) {
		steps->room = steps->room ? 2 * steps->room : 4;
		steps->step = xrealloc(steps->step, (size_t)steps->room * sizeof *steps->step);
	}
	struct step *step = &steps->step[steps->count++];
	*step = (struct step){.kind = kind};
	return step;
}

int steps_read(struct steps *steps, const char *path, const struct json *list, step_reader *read)
{
	for (size_t i = 0; i < json_size(list); i++) {
		if (steps->count >= STEPS_MOST)
			return error(EXIT_CONFIG, "'%s': a normalizer, pre_tokenizer or decoder of "
				     "more than %d steps is not built", path, STEPS_MOST);
		if (read(steps, path, json_at(list, i)) < 0)
			return -1;
	}
	return 0;
}

int steps_growth(size_t from, size_t bytes)
{
	if (bytes <= GROWN_MOST || bytes / GROWN_TIMES <= from)
		return 0;
	return error(EXIT_DATA, "the steps of the tokenizer make a text of %zu bytes grow to %zu: "
		     "something in them repeats itself", from, bytes);
}

void step_text(struct step *step, const char *text, size_t bytes)
{
	step->text = xalloc(bytes + 1);
	step->bytes = bytes;
	memcpy(step->text, text, bytes);
	step->text[bytes] = '\0';
}

void steps_release(struct steps *steps)
{
	for (int i = 0; i < steps->count; i++) {
		pattern_close(steps->step[i].pattern);
		text_release(&steps->step[i].scratch);
		free(steps->step[i].text);
	}
	free(steps->step);
	*steps = (struct steps){0};
}

struct pattern *steps_pattern(const char *path, const struct json *value)
{
	const struct json *literal = json_find(value, "String");
	const struct json *regex = json_find(value, "Regex");
	const char *source = json_as_text(regex, NULL);

	if (json_kind(value) == JSON_TEXT)
		literal = value;
	if (source && strlen(source) == json_text_bytes(regex))
		return pattern_open(path, source);
	if (json_kind(literal) == JSON_TEXT && json_text_bytes(literal) > 0)
		return pattern_literal(json_as_text(literal, ""), json_text_bytes(literal));
	return error_null(EXIT_DATA, "'%s': a pattern is neither {\"String\": \"..\"} nor "
			  "{\"Regex\": \"..\"}", path);
}

int refuse_part(const char *path, const char *part, const char *name)
{
	return error(EXIT_CONFIG, "'%s': %s '%s' is not built (what is: docs/tokenizers.md)", path,
		     part, name);
}

/* A field that cannot change anything, whatever it means. */
static bool is_harmless(const struct json *value)
{
	return json_is_nothing(value) ||
	       (json_kind(value) == JSON_WHOLE && json_as_integer(value, 1) == 0);
}

int refuse_others(const char *path, const char *place, const struct json *map,
		  const char *const *known)
{
	for (void *it = json_first(map); it; it = json_next(map, it)) {
		int i = 0;

		while (known[i] && strcmp(known[i], json_name(it)) != 0)
			i++;
		if (known[i] || is_harmless(json_value(it)))
			continue;
		struct text what = {0};
		const char *type = json_as_text(json_find(json_value(it), "type"), NULL);
		text_add(&what, "%s field '%s'%s", place, json_name(it),
			 type ? " of type" : " =");
		const char *value = type ? type : json_as_text(json_value(it), "...");
		int failed = refuse_part(path, what.data, value);
		text_release(&what);
		return failed;
	}
	return 0;
}
