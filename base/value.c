/*
 * value.c - one value of a configuration: from a node of the tree to C, and back to text.
 *
 * Strict, since YAML's own guesses are famous for surprises: an integer is digits (no 1e3, no
 * 1_000, no 010), a flag is true or false (not yes, no, on), a quantity has its unit.
 */
#include "base/schema.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_LONGEST = 64 };	/* bytes of a number's text, unit included */

static const struct {
	const char *name;
	bool number;
	int unit;		/* enum unit; -1: none */
} kinds[] = {
	[FIELD_TEXT] = {"a text", false, -1},
	[FIELD_PATH] = {"a path", false, -1},
	[FIELD_WORD] = {"a word", false, -1},
	[FIELD_INTEGER] = {"an integer", true, -1},
	[FIELD_NUMBER] = {"a number", true, -1},
	[FIELD_FLAG] = {"true or false", false, -1},
	[FIELD_BYTES] = {"a size with its unit", true, UNIT_BYTES},
	[FIELD_BYTES_S] = {"a rate with its unit", true, UNIT_BYTES_S},
	[FIELD_SECONDS] = {"a duration with its unit", true, UNIT_SECONDS},
	[FIELD_FLOPS] = {"a speed with its unit", true, UNIT_FLOPS},
	[FIELD_TEXTS] = {"a word or a list of words", false, -1},
	[FIELD_NUMBERS] = {"a list of numbers", false, -1},
	[FIELD_LIST] = {"a list", false, -1},
};

const char *value_kind(enum field_kind kind)
{
	return kinds[kind].name;
}

bool value_is_number(enum field_kind kind)
{
	return kinds[kind].number;
}

int value_unit(enum field_kind kind)
{
	return kinds[kind].unit;
}

/* -- ranges and choices -------------------------------------------------------------------- */

bool value_in_range(const struct field *field, double value)
{
	if (field->least == 0 && field->most == 0)
		return true;
	return value >= field->least && value <= field->most;
}

static void add_limit(const struct field *field, double limit, struct text *text)
{
	int unit = value_unit(field->kind);
	char buffer[48];

	if (unit >= 0 && limit != 0)
		text_add(text, "%s", unit_write(limit, (enum unit)unit, buffer, sizeof buffer));
	else
		text_add(text, "%.15g", limit);
}

void value_add_range(const struct field *field, struct text *text)
{
	if (field->least == 0 && field->most == 0)
		return;
	if (field->least == field->most) {
		add_limit(field, field->least, text);
	} else if (isinf(field->most)) {
		text_add(text, "at least ");
		add_limit(field, field->least, text);
	} else {
		text_add(text, "between ");
		add_limit(field, field->least, text);
		text_add(text, " and ");
		add_limit(field, field->most, text);
	}
}

static bool is_built(const char *word)
{
	return word[0] != '-';
}

void value_add_words(const struct field *field, bool built, struct text *text)
{
	const char *between = "";

	for (const char *const *word = field->words; *word; word++) {
		if (is_built(*word) != built)
			continue;
		text_add(text, "%s%s", between, *word + !built);
		between = ", ";
	}
}

/* -- reading: every function returns -1 after an error at the node ------------------------- */

static int not_a(struct yaml *node, const char *shown, const char *what)
{
	char quote[SOURCE_QUOTE];

	if (node->kind == YAML_TEXT)
		yaml_error(node, "%s: %s is not %s", shown, source_quote(node->text, quote),
			   what);
	else
		yaml_error(node, "%s: must be %s, not %s", shown, what, yaml_kind(node));
	return -1;
}

/* The same for a number's text, with the word that would have done. */
static int not_a_number(const struct field *field, struct yaml *node, const char *shown,
			const char *what)
{
	struct text text = {0};

	text_add(&text, "%s", what);
	if (field->words)
		text_add(&text, " or \"%s\"", field->words[0]);
	not_a(node, shown, text.data);
	text_release(&text);
	return -1;
}

static int check_range(const struct field *field, struct yaml *node, const char *shown,
		       double value)
{
	struct text range = {0};
	char quote[SOURCE_QUOTE];

	if (value_in_range(field, value))
		return 0;
	value_add_range(field, &range);
	yaml_error(node, "%s: %s is out of range, it must be %s", shown,
		   source_quote(node->text, quote), range.data);
	text_release(&range);
	return -1;
}

/* The word that stands for 0, if this is it. */
static bool stands_for_zero(const struct field *field, const struct yaml *node)
{
	return value_is_number(field->kind) && field->words && node->kind == YAML_TEXT &&
	       strcmp(node->text, field->words[0]) == 0;
}

static int read_integer(const struct field *field, struct yaml *node, const char *shown,
			long long *slot)
{
	const char *text = node->text, *digits = text + (text[0] == '-');
	size_t count = strspn(digits, "0123456789");
	long long value;

	if (count == 0 || digits[count] != '\0')
		return not_a_number(field, node, shown, "an integer (digits alone)");
	if (digits[0] == '0' && count > 1)
		return not_a(node, shown, "an integer: it begins with a zero");
	errno = 0;
	value = strtoll(text, NULL, 10);
	if (errno == ERANGE)
		return not_a(node, shown, "an integer of 64 bits");
	if (check_range(field, node, shown, (double)value) < 0)
		return -1;
	*slot = value;
	return 0;
}

/* Whether a text is a decimal number: digits, a point, an exponent; no hex, inf, nan. */
static bool is_decimal(const char *text)
{
	const char *digits = "0123456789";
	size_t before, after = 0;

	text += text[0] == '-';
	before = strspn(text, digits);
	text += before;
	if (text[0] == '.') {
		after = strspn(++text, digits);
		text += after;
	}
	if (before + after == 0)
		return false;
	if (text[0] == 'e' || text[0] == 'E') {
		text += 1 + (text[1] == '-' || text[1] == '+');
		if (strspn(text, digits) == 0)
			return false;
		text += strspn(text, digits);
	}
	return text[0] == '\0';
}

static int read_number(const struct field *field, struct yaml *node, const char *shown,
		       double *slot)
{
	double value;

	if (strlen(node->text) > NUMBER_LONGEST || !is_decimal(node->text))
		return not_a(node, shown, "a number");
	value = strtod(node->text, NULL);
	if (!isfinite(value))
		return not_a(node, shown, "a number that a double can hold");
	if (check_range(field, node, shown, value) < 0)
		return -1;
	*slot = value;
	return 0;
}

static int read_quantity(const struct field *field, struct yaml *node, const char *shown,
			 double *slot)
{
	enum unit unit = (enum unit)value_unit(field->kind);
	char why[256];
	double value;

	if (strlen(node->text) > NUMBER_LONGEST)
		return not_a_number(field, node, shown, value_kind(field->kind));
	if (unit_read(node->text, unit, &value, why, sizeof why) < 0) {
		if (field->words)
			yaml_error(node, "%s: %s (or \"%s\")", shown, why, field->words[0]);
		else
			yaml_error(node, "%s: %s", shown, why);
		return -1;
	}
	if (check_range(field, node, shown, value) < 0)
		return -1;
	*slot = value;
	return 0;
}

static int read_flag(struct yaml *node, const char *shown, bool *slot)
{
	bool yes = strcmp(node->text, "true") == 0;

	if (!yes && strcmp(node->text, "false") != 0)
		return not_a(node, shown, "true or false");
	*slot = yes;
	return 0;
}

/* Says that a word is none of the choices, with the nearest. */
static int refuse_word(const struct field *field, struct yaml *node, const char *shown)
{
	const char *words[64], *near;
	struct text list = {0}, hint = {0};
	char quote[SOURCE_QUOTE];
	int count = 0;

	while (count < 64 && field->words[count]) {
		words[count] = field->words[count] + !is_built(field->words[count]);
		count++;
	}
	value_add_words(field, true, &list);
	near = nearest_word(node->text, words, count);
	if (near)
		text_add(&hint, " (did you mean \"%s\"?)", near);
	yaml_error(node, "%s: %s is none of %s%s", shown, source_quote(node->text, quote),
		   list.data, near ? hint.data : "");
	text_release(&list);
	text_release(&hint);
	return -1;
}

/* The index of the choice that a text names, in *slot. */
static int read_word(const struct field *field, struct yaml *node, const char *shown, int *slot)
{
	struct text list = {0};

	for (int i = 0; field->words[i]; i++) {
		if (strcmp(node->text, field->words[i] + !is_built(field->words[i])) != 0)
			continue;
		if (is_built(field->words[i])) {
			*slot = i;
			return 0;
		}
		value_add_words(field, true, &list);
		yaml_error(node, "%s: \"%s\" is not built yet (built: %s)", shown, node->text,
			   list.data);
		text_release(&list);
		return -1;
	}
	return refuse_word(field, node, shown);
}

static int read_text(const struct field *field, struct yaml *node, const char *shown,
		     const char **slot)
{
	int index;

	if (node->text[0] == '\0')
		return not_a(node, shown, value_kind(field->kind));
	if (field->words && read_word(field, node, shown, &index) < 0)
		return -1;
	*slot = node->text;
	return 0;
}

/* A path in the file is relative to its folder, one of --set to the working directory. */
static int read_path(struct config *config, const struct field *field, struct yaml *node,
		     const char *shown, const char **slot)
{
	struct arena *arena = &config->arena;
	const char *path;

	if (read_text(field, node, shown, &path) < 0)
		return -1;
	if (!node->source->override)
		path = path_join(arena, path_folder(arena, config->file), path);
	path = path_absolute(arena, path);
	if (!path)
		return -1;
	*slot = path;
	return 0;
}

static int read_texts(struct config *config, const struct field *field, struct yaml *node,
		      const char *shown, struct texts *slot)
{
	bool one = node->kind == YAML_TEXT;
	struct yaml *item = one ? node : node->first;
	struct texts texts = { .count = one ? 1 : node->count };

	if (node->kind == YAML_MAP)
		return not_a(node, shown, value_kind(field->kind));
	texts.item = arena_take(&config->arena, (size_t)texts.count * sizeof *texts.item);
	for (int i = 0; i < texts.count; i++, item = item->next) {
		if (item->kind != YAML_TEXT || yaml_is_nil(item) || !item->text[0])
			return not_a(item, shown, value_kind(field->kind));
		texts.item[i] = item->text;
	}
	*slot = texts;
	return 0;
}

static int read_numbers(struct config *config, const struct field *field, struct yaml *node,
			const char *shown, struct numbers *slot)
{
	struct numbers numbers = { .count = node->count };
	struct yaml *item = node->first;

	if (node->kind != YAML_LIST)
		return not_a(node, shown, value_kind(field->kind));
	numbers.item = arena_take(&config->arena, (size_t)numbers.count * sizeof *numbers.item);
	for (int i = 0; i < numbers.count; i++, item = item->next) {
		if (item->kind != YAML_TEXT)
			return not_a(item, shown, "a number");
		if (read_number(field, item, shown, &numbers.item[i]) < 0)
			return -1;
	}
	*slot = numbers;
	return 0;
}

static int read_scalar(struct config *config, const struct field *field, struct yaml *node,
		       const char *shown, void *slot)
{
	switch (field->kind) {
	case FIELD_TEXT:
		return read_text(field, node, shown, slot);
	case FIELD_PATH:
		return read_path(config, field, node, shown, slot);
	case FIELD_WORD:
		return read_word(field, node, shown, slot);
	case FIELD_FLAG:
		return read_flag(node, shown, slot);
	case FIELD_INTEGER:
		return read_integer(field, node, shown, slot);
	case FIELD_NUMBER:
		return read_number(field, node, shown, slot);
	default:
		return read_quantity(field, node, shown, slot);
	}
}

int value_read(struct config *config, const struct field *field, struct yaml *node,
	       const char *shown, void *slot)
{
	int rc;

	if (field->kind == FIELD_TEXTS)
		rc = read_texts(config, field, node, shown, slot);
	else if (field->kind == FIELD_NUMBERS)
		rc = read_numbers(config, field, node, shown, slot);
	else if (node->kind != YAML_TEXT)
		rc = not_a(node, shown, value_kind(field->kind));
	else if (!stands_for_zero(field, node))
		rc = read_scalar(config, field, node, shown, slot);
	else if (field->kind == FIELD_INTEGER)
		rc = 0, *(long long *)slot = 0;
	else
		rc = 0, *(double *)slot = 0;
	/* The item of a list bears the error; the list is what others ask about. */
	if (rc < 0)
		node->wrong = true;
	return rc;
}

void value_default(struct config *config, const struct field *field, void *slot)
{
	struct source source = { .name = field->path, .override = true };
	struct yaml text = { .kind = YAML_TEXT, .text = field->standard, .source = &source };
	struct yaml *node = &text;

	if (!field->standard)
		return;
	source.data = field->standard;
	source.bytes = strlen(field->standard);
	if (field->kind == FIELD_NUMBERS || field->kind == FIELD_TEXTS)
		node = yaml_tree(&config->arena, &source);
	if (node)
		value_read(config, field, node, "default", slot);
}
