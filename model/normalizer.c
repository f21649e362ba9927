/*
 * model/normalizer.c - the normalizer of a tokenizer: what is changed in a text before it is cut.
 */
#include "model/internal.h"
#include "model/tokenizer.h"

#include <string.h>

/* -- reading ------------------------------------------------------------------------------- */

/* Normalizers that have no fields. */
static const struct {
	const char *type;
	enum step_kind kind;
} plain[] = {
	{"NFC", STEP_NFC},   {"NFD", STEP_NFD},
	{"NFKC", STEP_NFKC}, {"NFKD", STEP_NFKD},
	{"Lowercase", STEP_LOWERCASE}, {"StripAccents", STEP_STRIP_ACCENTS},
	{"ByteLevel", STEP_SPELL},
};

static int read_replace(struct steps *steps, const char *path, const struct json *map)
{
	const struct json *content = json_find(map, "content");
	const char *text = json_as_text(content, "");
	struct pattern *pattern = steps_pattern(path, json_find(map, "pattern"));

	if (!pattern)
		return -1;
	struct step *step = steps_add(steps, STEP_REPLACE);
	step->pattern = pattern;
	step_text(step, text, json_kind(content) == JSON_TEXT ? json_text_bytes(content) : 0);
	if (json_find(json_find(map, "pattern"), "Regex") && strchr(text, '$'))
		return refuse_part(path, "the replacement", text);
	return 0;
}

static int read_prepend(struct steps *steps, const char *path, const struct json *map)
{
	struct fields fields = {.path = path, .map = map};
	const char *text = fields_text(&fields, "prepend", "");
	struct step *step = steps_add(steps, STEP_PREPEND);

	step->prefix = PREFIX_ALWAYS;
	step_text(step, text, strlen(text));
	return fields.failed ? -1 : 0;
}

static int read_strip(struct steps *steps, const char *path, const struct json *map)
{
	struct fields fields = {.path = path, .map = map};
	struct step *step = steps_add(steps, STEP_STRIP);

	step->left = fields_flag(&fields, "strip_left", true);
	step->right = fields_flag(&fields, "strip_right", true);
	return fields.failed ? -1 : 0;
}

int normalizer_read(struct steps *steps, const char *path, const struct json *map)
{
	const char *type = json_as_text(json_find(map, "type"), "?");

	if (json_is_nothing(map))
		return 0;
	for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
		if (strcmp(type, plain[i].type) == 0) {
			steps_add(steps, plain[i].kind);
			return 0;
		}
	}
	if (strcmp(type, "Replace") == 0)
		return read_replace(steps, path, map);
	if (strcmp(type, "Prepend") == 0)
		return read_prepend(steps, path, map);
	if (strcmp(type, "Strip") == 0)
		return read_strip(steps, path, map);
	if (strcmp(type, "Sequence") != 0)
		return refuse_part(path, "the normalizer", type);
	return steps_read(steps, path, json_find(map, "normalizers"), normalizer_read);
}

/* -- running ------------------------------------------------------------------------------- */

int step_replace(const struct step *step, const char *data, size_t bytes, struct text *out)
{
	struct matches m = {.text = data, .bytes = bytes};
	size_t done = 0, before = out->bytes;
	int more;

	while ((more = pattern_next(step->pattern, &m)) > 0) {
		text_put(out, data + done, m.start - done);
		text_put(out, step->text, step->bytes);
		done = m.end;
		if (steps_growth(bytes, out->bytes - before) < 0)
			return -1;
	}
	text_put(out, data + done, bytes - done);
	return more;
}

static void strip_accents(const char *data, size_t bytes, struct text *out)
{
	for (size_t at = 0, size; at < bytes; at += size) {
		if (!unicode_is_mark(utf8_at(data + at, &size)))
			text_put(out, data + at, size);
	}
}

/* Sentencepiece's remove_extra_whitespaces: none at the ends, one at a time between. */
static void squeeze(const char *data, size_t bytes, struct text *out)
{
	bool spaced = true;

	for (size_t i = 0; i < bytes; i++) {
		if (data[i] != ' ' || !spaced)
			text_put(out, data + i, 1);
		spaced = data[i] == ' ';
	}
	if (out->bytes > 0 && out->data[out->bytes - 1] == ' ')
		out->bytes--;
}

/* What a Strip leaves is a part of the text, which stays where it is. */
static void strip(const struct step *step, const char **text, size_t *bytes)
{
	size_t size;

	while (step->left && *bytes > 0 && utf8_is_space(utf8_at(*text, &size))) {
		*text += size;
		*bytes -= size;
	}
	while (step->right && *bytes > 0 && utf8_is_space(utf8_last(*text, *bytes, &size)))
		*bytes -= size;
}

static int run_step(const struct step *step, const char *data, size_t bytes, struct text *out)
{
	switch (step->kind) {
	case STEP_NFC:
	case STEP_NFD:
	case STEP_NFKC:
	case STEP_NFKD:
		unicode_normal(step->kind, data, bytes, out);
		return 0;
	case STEP_LOWERCASE:
		unicode_lower(data, bytes, out);
		return 0;
	case STEP_STRIP_ACCENTS:
		strip_accents(data, bytes, out);
		return 0;
	case STEP_SPELL:
		spelling_write(data, bytes, out);
		return 0;
	case STEP_SQUEEZE:
		squeeze(data, bytes, out);
		return 0;
	case STEP_REPLACE:
		return step_replace(step, data, bytes, out);
	default: /* STEP_PREPEND */
		if (bytes > 0)
			text_put(out, step->text, step->bytes);
		text_put(out, data, bytes);
		return 0;
	}
}

int normalizer_run(struct steps *steps, bool first, const char **text, size_t *bytes,
		   struct text scratch[2])
{
	size_t from = *bytes;
	int next = 0;

	for (int i = 0; i < steps->count; i++) {
		const struct step *step = &steps->step[i];
		struct text *out = &scratch[next];

		if (step->kind == STEP_STRIP) {
			strip(step, text, bytes);
			continue;
		}
		if ((step->kind == STEP_PREPEND && step->prefix == PREFIX_FIRST && !first) ||
		    ((step->kind == STEP_NFC) && unicode_is_nfc(*text, *bytes)))
			continue;
		out->bytes = 0;
		if (run_step(step, *text, *bytes, out) < 0 || steps_growth(from, out->bytes) < 0)
			return -1;
		*text = out->data ? out->data : "";
		*bytes = out->bytes;
		next = !next;
	}
	return 0;
}
