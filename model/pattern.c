/*
 * model/pattern.c - regular expressions as Hugging Face's tokenizer files write them.
 *
 * They are written for Oniguruma (Ruby's syntax). PCRE2 reads almost the same; what it reads
 * otherwise is rewritten, and what cannot be rewritten is refused by name. Other people's patterns
 * may take for ever: matching has limits, and an error names the pattern.
 */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define MATCH_LIMIT 4000000u /* steps of one match, and so many more per byte of a long text: */
#define MATCH_LIMIT_BYTE 4u
#define DEPTH_LIMIT 100000u
#define HEAP_LIMIT 65536u /* KiB */
#define JIT_STACK_MOST ((size_t)4 << 20)

struct pattern {
	char *source; /* for messages, or the text that is found as it is */
	size_t bytes;
	pcre2_code *code; /* null: a literal */
	pcre2_match_data *match;
	pcre2_match_context *limits;
	pcre2_jit_stack *stack;
	bool jit;
	uint32_t limit;
};

/* -- rewriting ----------------------------------------------------------------------------- */

/* Oniguruma's \w, \s and \h, to stand in a class. PCRE2's \s counts U+180E too. */
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define SPACE "\\p{White_Space}"
#define HEX "0-9a-fA-F"

struct rewriting {
	const char *source, *p; /* p: what comes next */
	struct text out;
	int class;	  /* how many [ are open */
	bool negated;	  /* the outermost one is [^ */
	const char *why;  /* what cannot be rewritten */
};

static void put(struct rewriting *r, const char *text)
{
	text_put(&r->out, text, strlen(text));
}

/* A set of characters, in a class or as one. */
static void put_set(struct rewriting *r, const char *set, bool negated)
{
	if (r->class > 0 && negated)
		r->why = "the opposite of \\w or \\h in a class";
	if (r->class == 0)
		put(r, negated ? "[^" : "[");
	put(r, set);
	if (set[0] == WORD[0] && strcmp(set, WORD) == 0)
		put(r, unicode_newer("word", 4));
	if (r->class == 0)
		put(r, "]");
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* \uHHHH, which PCRE2 writes \x{HHHH}. */
static void rewrite_code(struct rewriting *r)
{
	for (int i = 2; i < 6; i++) {
		if (!is_hex(r->p[i])) {
			r->why = "\\u without four hexadecimal digits";
			return;
		}
	}
	put(r, "\\x{");
	text_put(&r->out, r->p + 2, 4);
	put(r, "}");
	r->p += 4;
}

/*
 * A \\p{..} or \\P{..}: with the characters that PCRE2's tables lack; and a script is that of the
 * character alone, where PCRE2 counts all scripts in which it is used.
 */
static void rewrite_property(struct rewriting *r, bool negated)
{
	static const char *const scripts[] = {"Han", "Hiragana", "Katakana", "Latin", "Greek", "Cyrillic",
					      "Hangul", "Thai", "Arabic", "Hebrew", "Devanagari"};
	const char *name = r->p + 3;
	size_t bytes = strcspn(name, "}");
	const char *more = negated && r->class > 0 ? NULL : unicode_newer(name, bytes);
	struct text set = {0};

	text_add(&set, "%s", more || !negated ? "\\p{" : "\\P{");
	for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
		if (strlen(scripts[i]) == bytes && memcmp(scripts[i], name, bytes) == 0)
			text_add(&set, "sc:");
	}
	text_put(&set, name, bytes);
	text_add(&set, "}%s", more ? more : "");
	if (more)
		put_set(r, set.data, negated);
	else
		put(r, set.data);
	text_release(&set);
	r->p += 1 + bytes + (name[bytes] == '}');
}

/* An escape that is the same in both. */
static void copy_escape(struct rewriting *r, char c)
{
	if (strchr("QEKgCNRXyYOGZk", c) && c)
		r->why = "one of \\Q \\E \\K \\g \\C \\N \\R \\X \\y \\Y \\O \\G \\Z \\k";
	text_put(&r->out, r->p, 2);
	if (c == 'x' && r->p[2] == '{') { /* a character's number */
		size_t bytes = strcspn(r->p + 2, "}");

		text_put(&r->out, r->p + 2, bytes);
		r->p += bytes;
	}
}

static void rewrite_escape(struct rewriting *r)
{
	char c = r->p[1];

	if (c == '\0')
		r->why = "a \\ at the end";
	else if (c == 's' || c == 'S')
		put(r, c == 's' ? SPACE : "\\P{White_Space}");
	else if (c == 'w' || c == 'W')
		put_set(r, WORD, c == 'W');
	else if (c == 'h' || c == 'H')
		put_set(r, HEX, c == 'H');
	else if (c == 'b' && r->class == 0)
		put(r, "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))");
	else if (c == 'B' && r->class == 0)
		put(r, "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))");
	else if (c == 'v')
		put(r, "\\x0b");
	else if (c == 'u')
		rewrite_code(r);
	else if ((c == 'p' || c == 'P') && r->p[2] == '{')
		rewrite_property(r, c == 'P');
	else
		copy_escape(r, c);
	r->p += c ? 2 : 1;
}

/* [:punct:] and its like, of which the two think differently. */
static void rewrite_posix(struct rewriting *r)
{
	static const struct {
		const char *name, *set;
	} posix[] = {
		{"[:punct:]", "\\p{P}\\p{S}"},	    {"[:alpha:]", "\\p{Alphabetic}"},
		{"[:digit:]", "\\p{Nd}"},	    {"[:space:]", SPACE},
		{"[:upper:]", "\\p{Uppercase}"}, {"[:lower:]", "\\p{Lowercase}"},
		{"[:word:]", WORD},		    {"[:alnum:]", "\\p{Alphabetic}\\p{Nd}"},
	};

	for (size_t i = 0; i < sizeof posix / sizeof posix[0]; i++) {
		size_t bytes = strlen(posix[i].name);

		if (strncmp(r->p, posix[i].name, bytes) == 0) {
			put(r, posix[i].set);
			r->p += bytes;
			return;
		}
	}
	r->why = "a [:name:] that is not known";
}

/* A [ : a class begins, in a class too, where PCRE2 knows none: a union that is not negated is
 * written without its brackets. */
static void rewrite_open(struct rewriting *r)
{
	bool negated = r->p[1] == '^';

	if (r->class > 0 && r->p[1] == ':') {
		rewrite_posix(r);
		return;
	}
	if (r->class > 0 && negated)
		r->why = "a negated class in a class";
	if (r->class == 0)
		put(r, negated ? "[^" : "[");
	r->class ++;
	r->p += negated ? 2 : 1;
	if (*r->p == ']') {
		put(r, "\\]");
		r->p++;
	}
}

static void rewrite_class(struct rewriting *r)
{
	if (*r->p == '[') {
		rewrite_open(r);
		return;
	}
	if (*r->p == ']') {
		if (--r->class == 0)
			put(r, "]");
	} else if (r->p[0] == '&' && r->p[1] == '&') {
		r->why = "&& in a class";
	} else {
		text_put(&r->out, r->p, 1);
	}
	r->p++;
}

/* (?m), which PCRE2 writes (?s); other flags than i, m, x are refused. */
static void rewrite_group(struct rewriting *r)
{
	const char *p = r->p + 2;

	if (r->p[1] != '?' || strchr(":=!>#", *p)) {
		put(r, r->p[1] == '?' ? "(?" : "(");
		r->p += r->p[1] == '?' ? 2 : 1;
		return;
	}
	if (*p == '<') {
		put(r, "(?<");
		r->p += 3;
		return;
	}
	put(r, "(?");
	for (; strchr("imx-", *p) && *p; p++)
		put(r, *p == 'm' ? "s" : (char[2]){*p, '\0'});
	if (*p != ':' && *p != ')')
		r->why = "a group other than (?: (?= (?! (?> (?< and flags i, m, x";
	r->p = p;
}

/* {n,m}: PCRE2 has no {,m}, and a + behind it means something else there. */
static void rewrite_interval(struct rewriting *r)
{
	const char *end = r->p + 1 + strspn(r->p + 1, "0123456789,");

	if (*end == '}' && end > r->p + 1) {
		if (end[1] == '+')
			r->why = "a + behind {n,m}";
		put(r, r->p[1] == ',' ? "{0" : "{");
		text_put(&r->out, r->p + 1, (size_t)(end - r->p - 1));
		put(r, "}");
		r->p = end + 1;
		return;
	}
	put(r, "\\{");
	r->p++;
}

static void rewrite(struct rewriting *r)
{
	while (*r->p && !r->why) {
		if (*r->p == '\\')
			rewrite_escape(r);
		else if (r->class > 0)
			rewrite_class(r);
		else if (*r->p == '[')
			rewrite_open(r);
		else if (*r->p == '(')
			rewrite_group(r);
		else if (*r->p == '{')
			rewrite_interval(r);
		else
			text_put(&r->out, r->p++, 1);
	}
}

/* -- compiling ----------------------------------------------------------------------------- */

static int compile(struct pattern *pattern, const char *path, const char *rewritten)
{
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	PCRE2_SIZE offset;
	PCRE2_UCHAR why[160];
	int code;

	if (!context)
		return error(EXIT_BUG, "no memory for a regular expression");
	pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	pcre2_set_parens_nest_limit(context, 200);
	pattern->code = pcre2_compile((PCRE2_SPTR)rewritten, strlen(rewritten),
				      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code, &offset,
				      context);
	pcre2_compile_context_free(context);
	if (pattern->code)
		return 0;
	pcre2_get_error_message(code, why, sizeof why);
	return error(EXIT_CONFIG, "'%s': cannot compile the regular expression '%s': %s (PCRE2 at "
		     "%zu of '%s')", path, pattern->source, (const char *)why, (size_t)offset,
		     rewritten);
}

static int prepare(struct pattern *pattern)
{
	pattern->match = pcre2_match_data_create(1, NULL);
	pattern->limits = pcre2_match_context_create(NULL);
	if (!pattern->match || !pattern->limits)
		return error(EXIT_BUG, "no memory for the regular expression '%s'",
			     pattern->source);
	pcre2_set_depth_limit(pattern->limits, DEPTH_LIMIT);
	pcre2_set_heap_limit(pattern->limits, HEAP_LIMIT);
	/* Without a just-in-time compiler pcre2_match interprets: the same matches, slower. */
	pattern->jit = pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE) == 0;
	pattern->stack = pattern->jit ? pcre2_jit_stack_create((size_t)64 << 10, JIT_STACK_MOST,
							       NULL)
				      : NULL;
	if (pattern->stack)
		pcre2_jit_stack_assign(pattern->limits, NULL, pattern->stack);
	return 0;
}

struct pattern *pattern_open(const char *path, const char *source)
{
	struct pattern *pattern = xzalloc(1, sizeof *pattern);
	struct rewriting r = {.source = source, .p = source};
	int done = -1;

	pattern->source = xcopy(source);
	pattern->bytes = strlen(source);
	rewrite(&r);
	if (!r.why && r.class > 0)
		r.why = "[ without ]";
	if (r.why)
		report(EXIT_CONFIG, "'%s': the regular expression '%s' holds what is not built: %s",
		       path, source, r.why);
	else if (compile(pattern, path, r.out.data ? r.out.data : "") == 0)
		done = prepare(pattern);
	text_release(&r.out);
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
	pcre2_code_free(pattern->code);
	pcre2_match_data_free(pattern->match);
	pcre2_match_context_free(pattern->limits);
	pcre2_jit_stack_free(pattern->stack);
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

static void set_limit(struct pattern *pattern, size_t bytes)
{
	uint32_t limit = MATCH_LIMIT;

	if (bytes > MATCH_LIMIT / MATCH_LIMIT_BYTE)
		limit = bytes < UINT32_MAX / MATCH_LIMIT_BYTE ? (uint32_t)bytes * MATCH_LIMIT_BYTE
							      : UINT32_MAX;
	if (limit != pattern->limit)
		pcre2_set_match_limit(pattern->limits, limit);
	pattern->limit = limit;
}

static int search(struct pattern *pattern, const struct matches *m)
{
	PCRE2_SPTR text = (PCRE2_SPTR)m->text;
	int found = PCRE2_ERROR_JIT_STACKLIMIT;

	set_limit(pattern, m->bytes);
	if (pattern->jit)
		found = pcre2_jit_match(pattern->code, text, m->bytes, m->next,
					PCRE2_NO_UTF_CHECK, pattern->match, pattern->limits);
	if (found == PCRE2_ERROR_JIT_STACKLIMIT)
		found = pcre2_match(pattern->code, text, m->bytes, m->next,
				    PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, pattern->match,
				    pattern->limits);
	if (found >= 0)
		return 1;
	if (found == PCRE2_ERROR_NOMATCH)
		return 0;
	return error(EXIT_DATA, "the regular expression '%s' takes too long at byte %zu of a text "
		     "(PCRE2: %d)", pattern->source, m->next, found);
}

/*
 * As the onig crate's find_iter: an empty match right behind a match does not count, and the
 * search goes on one character later.
 */
int pattern_next(struct pattern *pattern, struct matches *m)
{
	if (!pattern->code)
		return next_literal(pattern, m);
	while (m->next <= m->bytes) {
		const PCRE2_SIZE *span = pcre2_get_ovector_pointer(pattern->match);
		int found = search(pattern, m);
		size_t size = 1;

		if (found <= 0)
			return found;
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
	return 0;
}

void pattern_version(char version[64])
{
	version[0] = '\0';
	pcre2_config(PCRE2_CONFIG_VERSION, version);
}
