/*
 * Fields of JSON files that other programs wrote (config.json, adapter_config.json) or that a
 * disk may have damaged (manifest.json): every kind and range is checked where it is read, and
 * said with the file and the field.
 */
#include "model/internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

bool json_is_nothing(const struct json *value)
{
	switch (json_kind(value)) {
	case JSON_NONE:
	case JSON_NIL:
		return true;
	case JSON_FLAG:
		return !json_as_flag(value, false);
	case JSON_TEXT:
		return json_text_bytes(value) == 0;
	case JSON_LIST:
	case JSON_MAP:
		return json_size(value) == 0;
	case JSON_WHOLE:
	case JSON_NUMBER:
		return false;
	}
	return false;
}

bool fields_given(const struct fields *fields, const char *key)
{
	enum json_kind kind = json_kind(json_find(fields->map, key));

	return kind != JSON_NONE && kind != JSON_NIL;
}

static void wrong(struct fields *fields, const char *key, const char *why)
{
	report(EXIT_DATA, "cannot use '%s': \"%s\" %s", fields->path, key, why);
	fields->failed = true;
}

void fields_refuse(struct fields *fields, const char *key, const char *why)
{
	report(EXIT_CONFIG, "cannot use '%s': \"%s\": %s", fields->path, key, why);
	fields->failed = true;
}

long long fields_integer(struct fields *fields, const char *key, long long least,
			 long long most, long long standard)
{
	const struct json *value = json_find(fields->map, key);
	long long number = json_as_integer(value, 0);
	char why[96];

	if (!fields_given(fields, key)) {
		if (standard != FIELD_REQUIRED)
			return standard;
		wrong(fields, key, "is missing");
		return least;
	}
	if (json_kind(value) == JSON_WHOLE && number >= least && number <= most)
		return number;
	if (json_kind(value) == JSON_WHOLE)
		snprintf(why, sizeof(why), "is %lld (possible: %lld to %lld)", number, least,
			 most);
	else
		snprintf(why, sizeof(why), "is not a whole number");
	wrong(fields, key, why);
	return least;
}

double fields_number(struct fields *fields, const char *key, double least, double most,
		     double standard)
{
	const struct json *value = json_find(fields->map, key);
	double number = json_as_number(value, 0);
	char why[96];

	if (!fields_given(fields, key))
		return standard;
	if (json_kind(value) != JSON_WHOLE && json_kind(value) != JSON_NUMBER) {
		wrong(fields, key, "is not a number");
		return standard;
	}
	if (number >= least && number <= most)
		return number;
	snprintf(why, sizeof(why), "is %g (possible: %g to %g)", number, least, most);
	wrong(fields, key, why);
	return standard;
}

bool fields_flag(struct fields *fields, const char *key, bool standard)
{
	const struct json *value = json_find(fields->map, key);

	if (!fields_given(fields, key))
		return standard;
	if (json_kind(value) != JSON_FLAG)
		wrong(fields, key, "is neither true nor false");
	return json_as_flag(value, standard);
}

const char *fields_text(struct fields *fields, const char *key, const char *standard)
{
	const struct json *value = json_find(fields->map, key);
	const char *text = json_as_text(value, standard);

	if (!fields_given(fields, key))
		return standard;
	if (json_kind(value) != JSON_TEXT)
		wrong(fields, key, "is not a text");
	else if (strlen(text) != json_text_bytes(value))
		wrong(fields, key, "holds a NUL");
	return text;
}

struct json *json_read_map(const char *path, size_t most, char **data, size_t *bytes)
{
	struct json *map = NULL;
	struct stat status;
	size_t size = 0;

	if (stat(path, &status) == 0 && status.st_size > (long long)most)
		return error_null(EXIT_DATA, "cannot use '%s': larger than %zu bytes", path,
				  most);
	char *text = file_read(path, &size);
	if (!text)
		return NULL;
	map = json_parse(text, size, path);
	if (map && json_kind(map) != JSON_MAP) {
		report(EXIT_DATA, "cannot use '%s': not a JSON object", path);
		json_free(map);
		map = NULL;
	}
	if (map && data) {
		*data = text;
		*bytes = size;
	} else {
		free(text);
	}
	return map;
}
