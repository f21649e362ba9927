/*
 * model/oniguruma.c - regular expressions of Oniguruma (Ruby's syntax), as Hugging Face's tokenizer
 * files write them, in the syntax of PCRE2.
 *
 * The two read almost the same. What PCRE2 reads otherwise is rewritten, and what cannot be
 * rewritten is refused by name.
 */
#include "model/pattern.h"

#include <stdlib.h>
#include <string.h>

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
	size_t least;	  /* the largest number of a {n,m} */
};

static void put(struct rewriting *r, const char *text)
{
	text_put(&r->out, text, strlen(text));
}

/* A set with the characters that PCRE2's tables may lack in some properties, whose names have spaces between. */
static void put_with_newer(struct rewriting *r, const char *set, const char *properties)
{
	put(r, set);
	for (size_t bytes; *properties; properties += bytes + (properties[bytes] == ' ')) {
		bytes = strcspn(properties, " ");
		put(r, unicode_newer(properties, bytes));
	}
}

/* A set of characters, in a class or as one. */
static void put_set(struct rewriting *r, const char *set, const char *properties, bool negated)
{
	if (r->class > 0 && negated)
		r->why = "the opposite of \\w or \\h in a class";
	if (r->class == 0)
		put(r, negated ? "[^" : "[");
	put_with_newer(r, set, properties);
	if (r->class == 0)
		put(r, "]");
}

/* A look for a character of \w behind or ahead, or for none. */
static void put_look(struct rewriting *r, const char *look)
{
	put(r, look);
	put(r, "[");
	put_with_newer(r, WORD, "word");
	put(r, "])");
}

/* \b is where one side is a word, \B where both are or none is. */
static void rewrite_edge(struct rewriting *r, bool edge)
{
	put(r, "(?:");
	put_look(r, "(?<=");
	put_look(r, edge ? "(?!" : "(?=");
	put(r, "|");
	put_look(r, "(?<!");
	put_look(r, edge ? "(?=" : "(?!");
	put(r, ")");
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
		put_set(r, set.data, "", negated);
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
	if (c >= '1' && c <= '9' && r->class == 0)
		r->why = "a reference to a group";
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
		put_set(r, WORD, "word", c == 'W');
	else if (c == 'd' || (c == 'D' && r->class == 0))
		put_set(r, "\\p{Nd}", "Nd", c == 'D');
	else if (c == 'h' || c == 'H')
		put_set(r, HEX, "", c == 'H');
	else if ((c == 'b' || c == 'B') && r->class == 0)
		rewrite_edge(r, c == 'b');
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
		const char *name, *set, *newer;
	} posix[] = {
		{"[:punct:]", "\\p{P}\\p{S}", "P S"},
		{"[:alpha:]", "\\p{Alphabetic}", "Alphabetic"},
		{"[:alnum:]", "\\p{Alphabetic}\\p{Nd}", "Alphabetic Nd"},
		{"[:digit:]", "\\p{Nd}", "Nd"},
		{"[:upper:]", "\\p{Uppercase}", "Lu"},
		{"[:lower:]", "\\p{Lowercase}", "Lowercase"},
		{"[:word:]", WORD, "word"},
		{"[:space:]", SPACE, ""},
	};

	for (size_t i = 0; i < sizeof posix / sizeof posix[0]; i++) {
		size_t bytes = strlen(posix[i].name);

		if (strncmp(r->p, posix[i].name, bytes) == 0) {
			put_with_newer(r, posix[i].set, posix[i].newer);
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
		for (const char *p = r->p + 1; p < end; p += strcspn(p, ",}") + 1) {
			size_t number = strtoul(p, NULL, 10);
			r->least = number > r->least ? number : r->least;
		}
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

const char *pattern_rewrite(const char *source, struct text *rewritten, size_t *least)
{
	struct rewriting r = {.source = source, .p = source};

	rewrite(&r);
	*rewritten = r.out;
	*least = r.least;
	return !r.why && r.class > 0 ? "[ without ]" : r.why;
}
