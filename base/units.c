/*
 * base/units.c - numbers with units, as people write them.
 *
 * Spelling is strict, because "Gb/s" for "GB/s" is a factor of eight: a wrong one is refused
 * with the right ones that are near.
 */
#include "base/base.h"

#include <ctype.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct spelling {
	const char *text;
	double factor;		/* to the base unit */
	bool bits;		/* counts bits, where others count bytes */
	bool written;		/* unit_write uses it */
};

struct family {
	const char *noun;
	struct spelling spelling[16];	/* smallest first where written; ended by a null text */
};

static const struct family families[] = {
	[UNIT_BYTES] = {"a size", {
		{"B", 1, false, true}, {"kB", 1e3, false, false}, {"KB", 1e3, false, false},
		{"MB", 1e6, false, false}, {"GB", 1e9, false, false},
		{"TB", 1e12, false, false}, {"KiB", 0x1p10, false, true},
		{"MiB", 0x1p20, false, true}, {"GiB", 0x1p30, false, true},
		{"TiB", 0x1p40, false, true}}},
	[UNIT_BYTES_S] = {"a rate", {
		{"bit/s", 0.125, true, true}, {"kbit/s", 125, true, true},
		{"Mbit/s", 125e3, true, true}, {"Gbit/s", 125e6, true, true},
		{"Tbit/s", 125e9, true, true}, {"B/s", 1, false, false},
		{"kB/s", 1e3, false, false}, {"MB/s", 1e6, false, false},
		{"GB/s", 1e9, false, false}, {"KiB/s", 0x1p10, false, false},
		{"MiB/s", 0x1p20, false, false}, {"GiB/s", 0x1p30, false, false}}},
	[UNIT_SECONDS] = {"a duration", {
		{"ns", 1e-9, false, true}, {"us", 1e-6, false, true}, {"ms", 1e-3, false, true},
		{"s", 1, false, true}, {"min", 60, false, true}, {"h", 3600, false, true}}},
	[UNIT_FLOPS] = {"a speed", {
		{"FLOPS", 1, false, true}, {"kFLOPS", 1e3, false, true},
		{"MFLOPS", 1e6, false, true}, {"GFLOPS", 1e9, false, true},
		{"TFLOPS", 1e12, false, true}, {"PFLOPS", 1e15, false, true}}},
};

/* -- hints --------------------------------------------------------------------------------- */

#define SPELLING_MOST 15		/* bytes of a right spelling */
#define COST_MOST 6		/* of a near spelling */
#define COST_MOST_RATE 8	/* "mbps" for "Mbit/s" */
#define COST_MOST_SHORT 4	/* for words of one or two letters */

/*
 * How far a word is from a spelling: 2 an edit, 1 a wrong case, 3 more for another first letter
 * (which carries the prefix).
 */
static int cost_of(const char *word, const char *right)
{
	int row[SPELLING_MOST + 1], bytes = (int)strlen(right);

	for (int j = 0; j <= bytes; j++)
		row[j] = 2 * j;
	for (int i = 1; word[i - 1]; i++) {
		int corner = row[0];

		row[0] = 2 * i;
		for (int j = 1; j <= bytes; j++) {
			unsigned char a = (unsigned char)word[i - 1];
			unsigned char b = (unsigned char)right[j - 1];
			int swap = corner + (a == b ? 0 : tolower(a) == tolower(b) ? 1 : 2);
			int gap = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 2;

			corner = row[j];
			row[j] = swap < gap ? swap : gap;
		}
	}
	bool same = tolower((unsigned char)word[0]) == tolower((unsigned char)right[0]);
	return row[bytes] + (same ? 0 : 3);
}

enum kind { ANY_KIND, BITS_KIND, BYTES_KIND, BOTH_KINDS };

/* The spelling nearest to a word, other than one already found; null if none is near. */
static const struct spelling *nearest(const struct family *family, const char *word,
				      enum kind kind, const struct spelling *found, int most)
{
	const struct spelling *best = NULL;

	for (const struct spelling *s = family->spelling; s->text; s++) {
		if (s == found || (kind == BITS_KIND && !s->bits) ||
		    (kind == BYTES_KIND && s->bits))
			continue;
		int cost = cost_of(word, s->text);
		if (cost <= most) {
			most = cost - 1;
			best = s;
		}
	}
	return best;
}

/* What a rate counts. A small b that is neither "bit" nor "byte" may mean either. */
static enum kind kind_of(const char *word)
{
	if (strcasestr(word, "bit"))
		return BITS_KIND;
	if (strcasestr(word, "byte"))
		return BYTES_KIND;
	return strchr(word, 'b') ? BOTH_KINDS : ANY_KIND;
}

static void list_units(struct text *text, const struct family *family)
{
	for (const struct spelling *s = family->spelling; s->text; s++)
		text_add(text, "%s%s", s == family->spelling ? "" : ", ", s->text);
}

/* Adds the right spellings near a wrong one, or all of them. number is the text before it. */
static void add_hint(struct text *text, const struct family *family, const char *number,
		     int number_bytes, const char *word)
{
	const struct spelling *first = NULL, *second = NULL;
	enum kind kind = family == &families[UNIT_BYTES_S] ? kind_of(word) : ANY_KIND;
	int most = strlen(word) > 2 ? COST_MOST : COST_MOST_SHORT;

	if (kind == BOTH_KINDS) {
		first = nearest(family, word, BITS_KIND, NULL, COST_MOST_RATE);
		second = nearest(family, word, BYTES_KIND, NULL, COST_MOST_RATE);
	} else if ((first = nearest(family, word, kind, NULL, most))) {
		/* A second one only where it is about as near. */
		int cost = 2 * cost_of(word, first->text);

		second = nearest(family, word, kind, first, cost < most ? cost : most);
	}
	if (!first) {
		first = second;
		second = NULL;
	}
	if (!first) {
		text_add(text, " (its units: ");
		list_units(text, family);
		text_add(text, ")");
		return;
	}
	text_add(text, " (did you mean \"%.*s %s\"", number_bytes, number, first->text);
	if (second)
		text_add(text, " or \"%.*s %s\"", number_bytes, number, second->text);
	text_add(text, "?)");
}

/* -- the decimal point --------------------------------------------------------------------- */

/* A dot in every locale: a file means the same on every server. Returns the locale before. */
static locale_t use_decimal_point(locale_t *plain)
{
	*plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	return *plain ? uselocale(*plain) : (locale_t)0;
}

static void use_former_point(locale_t plain, locale_t before)
{
	if (!plain)
		return;
	uselocale(before);
	freelocale(plain);
}

/* -- reading ------------------------------------------------------------------------------- */

/* Bytes of the number at the start: digits, dot, exponent, nothing else; 0 if there is none. */
static size_t number_bytes(const char *text)
{
	const char *digit = "0123456789";
	size_t bytes = strspn(text, digit);

	if (bytes == 0)
		return 0;
	if (text[bytes] == '.' && isdigit((unsigned char)text[bytes + 1]))
		bytes += 1 + strspn(text + bytes + 1, digit);
	if (text[bytes] == 'e' || text[bytes] == 'E') {
		size_t sign = text[bytes + 1] == '+' || text[bytes + 1] == '-';
		size_t digits = strspn(text + bytes + 1 + sign, digit);

		if (digits > 0)
			bytes += 1 + sign + digits;
	}
	return bytes;
}

static double number_value(const char *text)
{
	locale_t plain, before = use_decimal_point(&plain);
	double value = strtod(text, NULL);

	use_former_point(plain, before);
	return value;
}

/* Dividing by 1000 is exact to the last bit where multiplying by 0.001 is not. */
static double in_base_unit(double value, const struct spelling *s)
{
	return s->factor < 1 ? value / rint(1 / s->factor) : value * s->factor;
}

static const struct spelling *find_spelling(const struct family *family, const char *word)
{
	for (const struct spelling *s = family->spelling; s->text; s++) {
		if (strcmp(s->text, word) == 0)
			return s;
	}
	return NULL;
}

/* Cuts a text into a number and a word without the blanks around them. */
static size_t split(const char *text, const char **number, char *word, size_t word_bytes)
{
	text += strspn(text, " ");
	size_t bytes = number_bytes(text);
	const char *rest = text + bytes + strspn(text + bytes, " ");
	size_t rest_bytes = strlen(rest);

	while (rest_bytes > 0 && rest[rest_bytes - 1] == ' ')
		rest_bytes--;
	*number = text;
	snprintf(word, word_bytes, "%.*s", (int)(rest_bytes < 64 ? rest_bytes : 64), rest);
	return bytes;
}

int unit_read(const char *text, enum unit unit, double *value, char *why, size_t why_bytes)
{
	const struct family *family = &families[unit];
	struct text reason = {0};
	const char *number;
	char word[65];

	size_t bytes = split(text, &number, word, sizeof word);
	const struct spelling *right = find_spelling(family, word);
	double result = bytes && right ? in_base_unit(number_value(number), right) : 0;
	if (bytes && right && isfinite(result)) {
		*value = result;
		return 0;
	}

	text_add(&reason, "\"%.64s\" ", text);
	if (bytes == 0 && number[0] == '-') {
		text_add(&reason, "is negative");
	} else if (bytes == 0) {
		text_add(&reason, "is not %s (a number and one of ", family->noun);
		list_units(&reason, family);
		text_add(&reason, ")");
	} else if (right) {
		text_add(&reason, "is too large");
	} else if (word[0] == '\0') {
		text_add(&reason, "has no unit (%s takes one of ", family->noun);
		list_units(&reason, family);
		text_add(&reason, ")");
	} else {
		text_add(&reason, "is not %s", family->noun);
		add_hint(&reason, family, number, (int)(bytes < 32 ? bytes : 32), word);
	}
	snprintf(why, why_bytes, "%s", reason.data);
	text_release(&reason);
	return -1;
}

/* -- writing ------------------------------------------------------------------------------- */

/* The largest written unit of which there is at least one, after rounding to three digits. */
static const struct spelling *fitting(const struct family *family, double value)
{
	const struct spelling *best = NULL;

	for (const struct spelling *s = family->spelling; s->text; s++) {
		if (s->written && (!best || value / s->factor >= 0.9995))
			best = s;
	}
	return best;
}

const char *unit_write(double value, enum unit unit, char *buffer, size_t bytes)
{
	const struct spelling *s;
	double size = fabs(value);

	if (!isfinite(value)) {
		snprintf(buffer, bytes, "%g", value);
		return buffer;
	}
	s = fitting(&families[unit], size);
	size /= s->factor;
	bool whole = fabs(size - rint(size)) <= 1e-9 * size;
	int digits = whole || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
	locale_t plain, before = use_decimal_point(&plain);
	snprintf(buffer, bytes, "%s%.*f %s", value < 0 ? "-" : "", digits, size, s->text);
	use_former_point(plain, before);
	return buffer;
}
