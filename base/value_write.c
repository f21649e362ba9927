/*
 * value_write.c - one value of a configuration, written so that it reads back to the same bits.
 */
#include "base/schema.h"

#include <stdlib.h>
#include <string.h>

static double number_of(const struct field *field, const void *slot)
{
	return field->kind == FIELD_INTEGER ? (double)*(const long long *)slot
					    : *(const double *)slot;
}

bool value_is_empty(const struct field *field, const void *slot)
{
	switch (field->kind) {
	case FIELD_TEXT:
	case FIELD_PATH:
		return !*(const char *const *)slot;
	case FIELD_TEXTS:
		return ((const struct texts *)slot)->count == 0;
	case FIELD_NUMBERS:
		return ((const struct numbers *)slot)->count == 0;
	case FIELD_LIST:
		return ((const struct list *)slot)->count == 0;
	case FIELD_WORD:
		return !field->standard && *(const int *)slot == 0;
	case FIELD_FLAG:
		return !field->standard && !*(const bool *)slot;
	default:
		return number_of(field, slot) == 0 && !field->words &&
		       (!field->standard || !value_in_range(field, 0));
	}
}

/* The shortest text that reads back to the same double. */
static void add_number(struct text *text, double value)
{
	char buffer[32];

	for (int digits = 6; digits <= 17; digits++) {
		snprintf(buffer, sizeof buffer, "%.*g", digits, value);
		if (strtod(buffer, NULL) == value)
			break;
	}
	text_add(text, "%s", buffer);
}

/* The units in which quantities are written: the first that gives a short number, or the last
 * with as many digits as it takes. */
static const char *const units[][7] = {
	[UNIT_BYTES] = {"TiB", "GiB", "MiB", "GB", "MB", "KiB", "B"},
	[UNIT_BYTES_S] = {"Gbit/s", "Mbit/s", "kbit/s", "bit/s", "MB/s", "kB/s", "B/s"},
	[UNIT_SECONDS] = {"h", "min", "s", "ms", "us", "ns", "s"},
	[UNIT_FLOPS] = {"PFLOPS", "TFLOPS", "GFLOPS", "MFLOPS", "kFLOPS", "FLOPS", "FLOPS"},
};

static void add_quantity(struct text *text, double value, enum unit unit)
{
	char buffer[64], why[8];
	double one, back;

	for (int i = 0; i < 6; i++) {
		snprintf(buffer, sizeof buffer, "1 %s", units[unit][i]);
		unit_read(buffer, unit, &one, why, sizeof why);
		snprintf(buffer, sizeof buffer, "%.9g %s", value / one, units[unit][i]);
		if (value / one >= 1 && value / one < 1e9 &&
		    unit_read(buffer, unit, &back, why, sizeof why) == 0 && back == value) {
			text_add(text, "%s", buffer);
			return;
		}
	}
	add_number(text, value);
	text_add(text, " %s", units[unit][6]);
}

/* Decodes the UTF-8 character at data (ended by a NUL); -1 where it is none. */
static int decode(const char *data, int *bytes)
{
	static const int least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned char c = (unsigned char)data[0];
	int count = c < 0x80 ? 1 : c < 0xc0 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
	int code = count < 2 ? c : c & (0xff >> (count + 1));

	for (int i = 1; i < count; i++) {
		if (((unsigned char)data[i] & 0xc0) != 0x80)
			return -1;
		code = code << 6 | (data[i] & 0x3f);
	}
	*bytes = count;
	return count == 0 || code < least[count] || code > 0x10ffff || (code & ~0x7ff) == 0xd800
		       ? -1 : code;
}

/* Whether YAML takes a character as it is between double quotes. */
static bool is_printable(int code)
{
	if (code < 0xa0)
		return code >= 0x20 && code < 0x7f && code != '"' && code != '\\';
	return code != 0x2028 && code != 0x2029 && code != 0xfeff && (code & 0xfffe) != 0xfffe;
}

/* Plain where nothing in it can mean anything to YAML, else in double quotes. */
static void add_text(struct text *text, const char *data)
{
	const char *plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			    "0123456789_/.-";
	const struct yaml node = { .kind = YAML_TEXT, .text = data };
	int bytes;

	if (data[0] != '-' && !yaml_is_nil(&node) && data[strspn(data, plain)] == '\0') {
		text_add(text, "%s", data);
		return;
	}
	text_put(text, "\"", 1);
	for (; *data; data += bytes) {
		int code = decode(data, &bytes);

		if (code < 0) {
			bytes = 1;
			text_put(text, "?", 1);
		} else if (is_printable(code)) {
			text_put(text, data, (size_t)bytes);
		} else {
			text_add(text, code < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)code);
		}
	}
	text_put(text, "\"", 1);
}

static void add_texts(struct text *text, const struct texts *texts)
{
	text_add(text, "[");
	for (int i = 0; i < texts->count; i++) {
		text_add(text, "%s", i ? ", " : "");
		add_text(text, texts->item[i]);
	}
	text_add(text, "]");
}

static void add_numbers(struct text *text, const struct numbers *numbers)
{
	text_add(text, "[");
	for (int i = 0; i < numbers->count; i++) {
		text_add(text, "%s", i ? ", " : "");
		add_number(text, numbers->item[i]);
	}
	text_add(text, "]");
}

void value_write(const struct field *field, const void *slot, struct text *text)
{
	const char *word;

	if (value_is_number(field->kind) && field->words && number_of(field, slot) == 0) {
		text_add(text, "%s", field->words[0]);
		return;
	}
	switch (field->kind) {
	case FIELD_TEXT:
	case FIELD_PATH:
		word = *(const char *const *)slot;
		add_text(text, word ? word : "");
		break;
	case FIELD_WORD:
		word = field->words[*(const int *)slot];
		text_add(text, "%s", word + (word[0] == '-'));
		break;
	case FIELD_FLAG:
		text_add(text, "%s", *(const bool *)slot ? "true" : "false");
		break;
	case FIELD_TEXTS:
		add_texts(text, slot);
		break;
	case FIELD_NUMBERS:
		add_numbers(text, slot);
		break;
	case FIELD_LIST:	/* schema_write.c goes into it */
		break;
	case FIELD_INTEGER:
		text_add(text, "%lld", *(const long long *)slot);
		break;
	case FIELD_NUMBER:
		add_number(text, *(const double *)slot);
		break;
	default:
		add_quantity(text, *(const double *)slot, (enum unit)value_unit(field->kind));
	}
}
