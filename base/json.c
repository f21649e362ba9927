/*
 * base/json.c - JSON documents, read only, on top of jansson.
 *
 * The files come from other people: size, nesting (jansson stops at 2048 levels) and the memory
 * of the tree are bounded before anything is built.
 */
#include "base/base.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_MOST ((size_t)64 << 20)
#define TREE_MOST ((size_t)256 << 20)	/* bytes, about */
#define EXACT_MOST 0x1p53		/* doubles up to here are exact whole numbers */

/*
 * About how much the tree of a document will take: a value or a key costs some 64 bytes more
 * than its text, a list 128, a map 256. "[[],[],..." would be forty times its file.
 */
static size_t tree_bytes(const char *data, size_t bytes)
{
	size_t total = bytes;
	bool inside = false;

	for (size_t i = 0; i < bytes; i++) {
		if (data[i] == '"')
			inside = !inside;
		else if (inside && data[i] == '\\')
			i++;
		else if (!inside && data[i] == '{')
			total += 256;
		else if (!inside && data[i] == '[')
			total += 128;
		else if (!inside && (data[i] == ',' || data[i] == ':'))
			total += 64;
	}
	return total;
}

/* jansson speaks of a file where there may be a line. */
static struct json *refuse(const json_error_t *why, const char *name, size_t line)
{
	static const char tail[] = " near end of file";
	size_t bytes = strlen(why->text), less = strlen(tail);
	bool ends = bytes > less && strcmp(why->text + bytes - less, tail) == 0;

	return error_null(EXIT_DATA, "%s:%zu:%d: error: %.*s%s", name,
			  (size_t)(why->line > 0 ? why->line : 1) + line - 1,
			  why->column > 0 ? why->column : 1, (int)(ends ? bytes - less : bytes), why->text,
			  ends ? ", but here it ends" : "");
}

struct json *json_parse_at(const char *data, size_t bytes, const char *name, size_t line)
{
	const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
	json_error_t why;

	if (tree_bytes(data, bytes) > TREE_MOST)
		return error_null(EXIT_DATA, "%s:%zu:1: error: too many values", name, line);
	json_t *tree = json_loadb(data, bytes, flags, &why);
	/* Whole numbers beyond 64 bits (tokenizers write out 1e30) are read as doubles. */
	if (!tree && json_error_code(&why) == json_error_numeric_overflow)
		tree = json_loadb(data, bytes, flags | JSON_DECODE_INT_AS_REAL, &why);
	if (!tree)
		return refuse(&why, name, line);
	return (struct json *)tree;
}

struct json *json_parse(const char *data, size_t bytes, const char *name)
{
	return json_parse_at(data, bytes, name, 1);
}

struct json *json_read(const char *path)
{
	struct stat status;
	size_t bytes;

	if (stat(path, &status) == 0 && status.st_size > (off_t)FILE_MOST)
		return error_null(EXIT_DATA, "cannot read '%s': above 64 MiB", path);
	char *data = file_read(path, &bytes);
	if (!data)
		return NULL;
	struct json *document = json_parse(data, bytes, path);
	free(data);
	return document;
}

/* jansson's functions take no const, though they change nothing. */
static json_t *tree_of(const struct json *value)
{
	return (json_t *)value;
}

void json_free(struct json *document)
{
	json_decref(tree_of(document));
}

static bool is_whole(double number)
{
	return fabs(number) <= EXACT_MOST && number == floor(number);
}

enum json_kind json_kind(const struct json *value)
{
	const json_t *tree = tree_of(value);

	if (!tree)
		return JSON_NONE;
	switch (json_typeof(tree)) {
	case JSON_OBJECT:
		return JSON_MAP;
	case JSON_ARRAY:
		return JSON_LIST;
	case JSON_STRING:
		return JSON_TEXT;
	case JSON_INTEGER:
		return JSON_WHOLE;
	case JSON_REAL:
		return is_whole(json_real_value(tree)) ? JSON_WHOLE : JSON_NUMBER;
	case JSON_TRUE:
	case JSON_FALSE:
		return JSON_FLAG;
	case JSON_NULL:
		return JSON_NIL;
	}
	return JSON_NONE;
}

const struct json *json_find(const struct json *map, const char *key)
{
	return (const struct json *)json_object_get(tree_of(map), key);
}

size_t json_size(const struct json *value)
{
	return json_is_object(tree_of(value)) ? json_object_size(tree_of(value))
					      : json_array_size(tree_of(value));
}

const struct json *json_at(const struct json *list, size_t index)
{
	return (const struct json *)json_array_get(tree_of(list), index);
}

void *json_first(const struct json *map)
{
	return json_object_iter(tree_of(map));
}

void *json_next(const struct json *map, void *it)
{
	return json_object_iter_next(tree_of(map), it);
}

const char *json_name(void *it)
{
	return json_object_iter_key(it);
}

const struct json *json_value(void *it)
{
	return (const struct json *)json_object_iter_value(it);
}

const char *json_as_text(const struct json *value, const char *otherwise)
{
	return json_is_string(tree_of(value)) ? json_string_value(tree_of(value)) : otherwise;
}

size_t json_text_bytes(const struct json *value)
{
	return json_string_length(tree_of(value));
}

double json_as_number(const struct json *value, double otherwise)
{
	return json_is_number(tree_of(value)) ? json_number_value(tree_of(value)) : otherwise;
}

long long json_as_integer(const struct json *value, long long otherwise)
{
	if (json_kind(value) != JSON_WHOLE)
		return otherwise;
	if (json_is_real(tree_of(value)))
		return (long long)json_real_value(tree_of(value));
	return json_integer_value(tree_of(value));
}

bool json_as_flag(const struct json *value, bool otherwise)
{
	return json_is_boolean(tree_of(value)) ? json_is_true(tree_of(value)) : otherwise;
}

/* Bytes of the UTF-8 character at p (ended by a NUL), 0 where it is not one (RFC 3629). */
static size_t utf8_bytes(const unsigned char *p)
{
	size_t more = p[0] < 0x80 ? 0 : p[0] < 0xe0 ? 1 : p[0] < 0xf0 ? 2 : 3;

	if (p[0] >= 0x80 && (p[0] < 0xc2 || p[0] > 0xf4))
		return 0;
	for (size_t i = 1; i <= more; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	/* Longer than needed, a surrogate, beyond U+10FFFF. */
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return more + 1;
}

void json_add_text(struct text *text, const char *value)
{
	const unsigned char *p = (const unsigned char *)value;

	text_put(text, "\"", 1);
	while (*p) {
		size_t bytes = utf8_bytes(p);

		if (bytes == 0)
			text_add(text, "\\ufffd");
		else if (*p == '"' || *p == '\\')
			text_add(text, "\\%c", *p);
		else if (*p < 0x20 || *p == 0x7f)
			text_add(text, "\\u%04x", *p);
		else
			text_put(text, p, bytes);
		p += bytes ? bytes : 1;
	}
	text_put(text, "\"", 1);
}
