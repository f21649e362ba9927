/*
 * model/pattern.c - regular expressions of tokenizer files, run by PCRE2.
 *
 * They are other people's, and so are the texts: the work for a text must grow with its length and
 * no faster. PCRE2's limits count steps of one match; how far a step looks, and how many matches
 * there are, they do not know. So every search is first a small one, which sees WINDOW bytes and
 * takes SMALL_STEPS steps at most. Almost all end there. What asks for more is done again with an
 * expression that calls back at each of its items, and is counted: SPEND_ITEM for an item and one
 * for each byte between it and the one before. A text of n bytes may spend SPEND_BYTE * n, and what
 * is left of SPEND_FREE from the texts before it.
 */
#include "model/pattern.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define WINDOW 128
#define LOOK_BEHIND 128 /* characters: nothing counts how far a search looks back */
#define SMALL_STEPS 32u /* from one place; those in use take about ten */
#define SPEND_ITEM 8	/* a call takes as long as looking at eight bytes or so */
#define SPEND_BYTE 64
#define SPEND_FREE (16 << 20)
#define DEPTH_LIMIT 100000u
#define HEAP_LIMIT 65536u /* KiB */
#define JIT_STACK_MOST ((size_t)4 << 20)

/* An expression in one of its two forms. */
struct form {
	pcre2_code *code;
	pcre2_match_context *limits;
	bool jit;
};

struct pattern {
	char *source; /* for messages, or the text that is found as it is */
	size_t bytes;
	char *rewritten; /* null: a literal */
	size_t least;	 /* so often it may ask for a thing, which is one item */
	struct form small, counted; /* counted: made when it is needed first */
	pcre2_match_data *match;
	pcre2_jit_stack *stack;
	/* What it may spend before a text, and in the search that runs; how far the search looked. */
	long long credit, left;
	size_t place;
};

/* -- compiling ----------------------------------------------------------------------------- */

static int compile(struct pattern *pattern, const char *path, struct form *form, uint32_t options)
{
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	PCRE2_SIZE offset;
	PCRE2_UCHAR why[160];
	int code;

	if (!context)
		return error(EXIT_BUG, "no memory for a regular expression");
	pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	pcre2_set_parens_nest_limit(context, 200);
	form->code = pcre2_compile((PCRE2_SPTR)pattern->rewritten, strlen(pattern->rewritten),
				   PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | options, &code,
				   &offset, context);
	pcre2_compile_context_free(context);
	if (form->code)
		return 0;
	pcre2_get_error_message(code, why, sizeof why);
	return error(EXIT_CONFIG, "'%s': cannot compile the regular expression '%s': %s (PCRE2 at "
		     "%zu of '%s')", path, pattern->source, (const char *)why, (size_t)offset,
		     pattern->rewritten);
}

static int open_form(struct pattern *pattern, const char *path, struct form *form, uint32_t options)
{
	if (compile(pattern, path, form, options) < 0)
		return -1;
	form->limits = pcre2_match_context_create(NULL);
	if (!form->limits)
		return error(EXIT_BUG, "no memory for the regular expression '%s'",
			     pattern->source);
	pcre2_set_depth_limit(form->limits, DEPTH_LIMIT);
	pcre2_set_heap_limit(form->limits, HEAP_LIMIT);
	pcre2_jit_stack_assign(form->limits, NULL, pattern->stack);
	/* Without a just-in-time compiler pcre2_match interprets: the same matches, slower. */
	form->jit = pattern->stack && pcre2_jit_compile(form->code, PCRE2_JIT_COMPLETE |
							PCRE2_JIT_PARTIAL_HARD) == 0;
	return 0;
}

static void close_form(struct form *form)
{
	pcre2_code_free(form->code);
	pcre2_match_context_free(form->limits);
}

static int check_behind(const struct pattern *pattern, const char *path)
{
	uint32_t most = 0;

	pcre2_pattern_info(pattern->small.code, PCRE2_INFO_MAXLOOKBEHIND, &most);
	if (most <= LOOK_BEHIND)
		return 0;
	return error(EXIT_CONFIG, "'%s': the regular expression '%s' looks back by %u characters, "
		     "which is more than %d", path, pattern->source, most, LOOK_BEHIND);
}

static int prepare(struct pattern *pattern, const char *path)
{
	pattern->credit = SPEND_FREE;
	pattern->match = pcre2_match_data_create(1, NULL);
	pattern->stack = pcre2_jit_stack_create((size_t)64 << 10, JIT_STACK_MOST, NULL);
	if (!pattern->match)
		return error(EXIT_BUG, "no memory for the regular expression '%s'",
			     pattern->source);
	if (open_form(pattern, path, &pattern->small, 0) < 0 || check_behind(pattern, path) < 0)
		return -1;
	pcre2_set_match_limit(pattern->small.limits, SMALL_STEPS);
	return 0;
}

struct pattern *pattern_open(const char *path, const char *source)
{
	struct pattern *pattern = pattern_literal(source, strlen(source));
	struct text rewritten;
	const char *why = pattern_rewrite(source, &rewritten, &pattern->least);
	int done = -1;

	pattern->rewritten = xcopy(rewritten.data ? rewritten.data : "");
	text_release(&rewritten);
	if (why)
		report(EXIT_CONFIG, "'%s': the regular expression '%s' holds what is not built: %s",
		       path, source, why);
	else
		done = prepare(pattern, path);
	if (done == 0)
		return pattern;
	pattern_close(pattern);
	return NULL;
}

struct pattern *pattern_literal(const char *text, size_t bytes)
{
	struct pattern *pattern = xzalloc(1, sizeof *pattern);

	pattern->source = xalloc(bytes + 1);
	memcpy(pattern->source, text, bytes);
	pattern->source[bytes] = '\0';
	pattern->bytes = bytes;
	return pattern;
}

void pattern_close(struct pattern *pattern)
{
	if (!pattern)
		return;
	close_form(&pattern->small);
	close_form(&pattern->counted);
	pcre2_match_data_free(pattern->match);
	pcre2_jit_stack_free(pattern->stack);
	free(pattern->rewritten);
	free(pattern->source);
	free(pattern);
}

/* -- matching ------------------------------------------------------------------------------ */

static int next_literal(const struct pattern *pattern, struct matches *m)
{
	const char *at = pattern->bytes == 0
				 ? NULL
				 : memmem(m->text + m->next, m->bytes - m->next, pattern->source,
					  pattern->bytes);

	if (!at)
		return 0;
	m->start = (size_t)(at - m->text);
	m->end = m->next = m->start + pattern->bytes;
	return 1;
}

/* Runs a form from a place in a text that ends, or seems to: how PCRE2 says it. */
static int run(const struct pattern *pattern, const struct form *form, const char *text,
	       size_t bytes, size_t at, uint32_t options)
{
	PCRE2_SPTR subject = (PCRE2_SPTR)text;
	int found = PCRE2_ERROR_JIT_STACKLIMIT;

	options |= PCRE2_NO_UTF_CHECK;
	if (form->jit)
		found = pcre2_jit_match(form->code, subject, bytes, at, options, pattern->match,
					form->limits);
	if (found == PCRE2_ERROR_JIT_STACKLIMIT)
		found = pcre2_match(form->code, subject, bytes, at, options | PCRE2_NO_JIT,
				    pattern->match, form->limits);
	return found;
}

/* PCRE2 calls before each item of the counted form. */
static int count(pcre2_callout_block *block, void *data)
{
	struct pattern *pattern = data;
	size_t at = block->current_position;
	size_t looked = at > pattern->place ? at - pattern->place : pattern->place - at;

	pattern->left -= (long long)(SPEND_ITEM + pattern->least + looked);
	pattern->place = at;
	return pattern->left < 0 ? PCRE2_ERROR_CALLOUT : 0;
}

static int open_counted(struct pattern *pattern)
{
	struct form *form = &pattern->counted;

	if (form->code)
		return 0;
	if (open_form(pattern, "tokenizer.json", form,
		      PCRE2_AUTO_CALLOUT | PCRE2_USE_OFFSET_LIMIT) < 0)
		return -1;
	pcre2_set_match_limit(form->limits, UINT32_MAX);
	pcre2_set_callout(form->limits, count, pattern);
	return 0;
}

/* Adds what the bytes up to a place earned. */
static void earn(struct pattern *pattern, struct matches *m, size_t at)
{
	pattern->credit += (long long)(at - m->earned) * SPEND_BYTE;
	if (pattern->credit > SPEND_FREE)
		pattern->credit = SPEND_FREE;
	m->earned = at;
}

/* Looks for matches that begin from at to last: 1, 0: none, -1. */
static int search_counted(struct pattern *pattern, struct matches *m, size_t at, size_t last)
{
	if (open_counted(pattern) < 0)
		return -1;
	earn(pattern, m, at);
	long long most = pattern->credit + (long long)(m->bytes - at) * SPEND_BYTE;
	/* An expression of a thousand words is gone through once for nothing. */
	pattern->left = most + (long long)(SPEND_ITEM * pattern->bytes);
	pattern->place = at;
	pcre2_set_offset_limit(pattern->counted.limits, last);
	int found = run(pattern, &pattern->counted, m->text, m->bytes, at, 0);
	if (pattern->left < most)
		pattern->credit -= most - pattern->left;
	if (found >= 0 || found == PCRE2_ERROR_NOMATCH)
		return found >= 0;
	if (pattern->credit < 0)
		pattern->credit = 0;
	return error(EXIT_DATA, "the regular expression '%s' takes too long at byte %zu of a text "
		     "(PCRE2: %d)", pattern->source, at, found);
}

/* Where a window that begins at a place ends: between two characters. */
static size_t window_end(const struct matches *m, size_t at)
{
	size_t end = m->bytes - at > WINDOW ? at + WINDOW : m->bytes;

	while (end < m->bytes && ((unsigned char)m->text[end] & 0xc0) == 0x80)
		end--;
	return end;
}

static int search(struct pattern *pattern, struct matches *m)
{
	const PCRE2_SIZE *span = pcre2_get_ovector_pointer(pattern->match);
	size_t at = m->next, size = 1;

	for (;;) {
		size_t end = window_end(m, at), last = end;
		int found = run(pattern, &pattern->small, m->text, end, at,
				end < m->bytes ? PCRE2_PARTIAL_HARD : 0);

		if (found >= 0)
			return 1;
		if (found == PCRE2_ERROR_NOMATCH && end == m->bytes)
			return 0;
		if (found == PCRE2_ERROR_NOMATCH ||
		    (found == PCRE2_ERROR_PARTIAL && span[0] > at)) {
			/* Nothing begins before this place. */
			at = found == PCRE2_ERROR_PARTIAL ? span[0] : end;
			continue;
		}
		if (found == PCRE2_ERROR_PARTIAL)
			last = at;
		found = search_counted(pattern, m, at, last);
		if (found != 0 || last == m->bytes)
			return found;
		utf8_at(m->text + last, &size);
		at = last + size;
	}
}

/*
 * As the onig crate's find_iter: an empty match right behind a match does not count, and the
 * search goes on one character later.
 */
int pattern_next(struct pattern *pattern, struct matches *m)
{
	if (!pattern->rewritten)
		return next_literal(pattern, m);
	while (m->next <= m->bytes) {
		const PCRE2_SIZE *span = pcre2_get_ovector_pointer(pattern->match);
		int found = search(pattern, m);
		size_t size = 1;

		if (found < 0)
			return -1;
		if (found == 0)
			break;
		if (span[0] < span[1] || !m->found || span[1] != m->end) {
			m->start = span[0];
			m->end = m->next = span[1];
			m->found = true;
			return 1;
		}
		if (m->next < m->bytes)
			utf8_at(m->text + m->next, &size);
		m->next += size;
	}
	earn(pattern, m, m->bytes);
	return 0;
}

void pattern_version(char version[64])
{
	version[0] = '\0';
	pcre2_config(PCRE2_CONFIG_VERSION, version);
}
