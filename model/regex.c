/*
 * Regular expressions of adapters, which PEFT hands to Python's re: PCRE2, with limits against
 * "(a+)+$". Paths of modules are short, so honest patterns are far from them.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/internal.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_MOST 20000 /* of PCRE2's matcher for one path */

struct regex {
	const char *text, *where, *field; /* for messages */
	pcre2_code *code;
	pcre2_match_data *match;
	pcre2_match_context *limits;
};

static int unusable(const struct regex *regex, int code)
{
	PCRE2_UCHAR why[128] = "";

	pcre2_get_error_message(code, why, sizeof(why));
	return error(EXIT_DATA, "%s: the pattern \"%s\" in %s cannot be used: %s", regex->where,
		     regex->text, regex->field, (const char *)why);
}

struct regex *regex_open(const char *text, const char *where, const char *field)
{
	struct regex *regex = xzalloc(1, sizeof(*regex));
	PCRE2_SIZE at;
	int code;

	*regex = (struct regex){.text = text, .where = where, .field = field};
	regex->code =
	    pcre2_compile((PCRE2_SPTR)text, strlen(text), PCRE2_UTF, &code, &at, NULL);
	if (!regex->code) {
		unusable(regex, code);
		free(regex);
		return NULL;
	}
	regex->match = pcre2_match_data_create_from_pattern(regex->code, NULL);
	regex->limits = pcre2_match_context_create(NULL);
	pcre2_set_match_limit(regex->limits, STEPS_MOST);
	pcre2_set_heap_limit(regex->limits, 1 << 14);
	return regex;
}

int regex_matches(const struct regex *regex, const char *text, bool whole)
{
	uint32_t options = PCRE2_ANCHORED | (whole ? PCRE2_ENDANCHORED : 0);
	int rc = pcre2_match(regex->code, (PCRE2_SPTR)text, strlen(text), 0, options,
			     regex->match, regex->limits);

	if (rc >= 0)
		return 1;
	return rc == PCRE2_ERROR_NOMATCH ? 0 : unusable(regex, rc);
}

long long regex_number(const struct regex *regex, const char *text, const char *group)
{
	int number = pcre2_substring_number_from_name(regex->code, (PCRE2_SPTR)group);
	const PCRE2_SIZE *span = pcre2_get_ovector_pointer(regex->match);

	if (number < 0 || span[2 * number] == PCRE2_UNSET)
		return -1;
	return strtoll(text + span[2 * number], NULL, 10);
}

void regex_close(struct regex *regex)
{
	if (!regex)
		return;
	pcre2_match_context_free(regex->limits);
	pcre2_match_data_free(regex->match);
	pcre2_code_free(regex->code);
	free(regex);
}
