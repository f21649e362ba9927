/*
 * base/error.c - errors: said once, by the first who knows, and counted by their exit code.
 */
#include "base/voice.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

/*
 * Whether a text starts with "file:line:". A quote before the line number means that the colons
 * belong to a subject ("cannot reach 'lab:22:'"), not to a position.
 */
static bool has_position(const char *text)
{
	for (const char *p = text; *p && !strchr("'\"\n", *p); p++) {
		if (*p != ':' || p == text)
			continue;
		size_t digits = strspn(p + 1, "0123456789");
		if (digits > 0 && p[1 + digits] == ':')
			return true;
	}
	return false;
}

void report(int code, const char *fmt, ...)
{
	struct voice *v = voice();
	struct text said = {0}, line = {0};
	int saved = errno;
	va_list args;

	if (v->muted > 0)
		return;
	va_start(args, fmt);
	voice_text(&said, fmt, args);
	va_end(args);
	if (v->code == 0)
		v->code = code;
	/* Who holds errors says from which rank they came. */
	if (!said.data || !has_position(said.data))
		voice_prefix(&line, v->holding ? -1 : v->rank, "error");
	text_put(&line, said.data, said.bytes);
	text_release(&said);
	if (!v->holding) {
		voice_print(&line);
	} else {
		text_put(&v->held, line.data, line.bytes);
		if (line.bytes == 0 || line.data[line.bytes - 1] != '\n')
			text_put(&v->held, "\n", 1);
		text_release(&line);
	}
	errno = saved;
}

void error_hold(void)
{
	if (voice()->holding)
		return;
	error_clear();
	voice()->holding = true;
}

int error_code(void)
{
	return voice()->code;
}

const char *error_text(void)
{
	struct voice *v = voice();

	v->holding = false;
	return v->held.data ? v->held.data : "";
}

void error_clear(void)
{
	struct voice *v = voice();

	v->holding = false;
	v->code = 0;
	text_release(&v->held);
}

void error_mute(void)
{
	voice()->muted++;
}

void error_unmute(void)
{
	voice()->muted--;
}

#define WORD_MOST 63	/* longer words have no near ones */

static int least(int a, int b)
{
	return a < b ? a : b;
}

/*
 * Edits (insert, delete, replace, swap of neighbours) from a to b, case aside: the restricted
 * Damerau-Levenshtein distance. Both at most WORD_MOST bytes.
 */
static int distance(const char *a, int a_bytes, const char *b, int b_bytes)
{
	int rows[3][WORD_MOST + 1];
	int *before = rows[0], *above = rows[1], *row = rows[2];

	for (int j = 0; j <= b_bytes; j++)
		above[j] = before[j] = j;
	for (int i = 1; i <= a_bytes; i++) {
		row[0] = i;
		for (int j = 1; j <= b_bytes; j++) {
			int x = tolower((unsigned char)a[i - 1]);
			int y = tolower((unsigned char)b[j - 1]);

			row[j] = least(least(above[j], row[j - 1]) + 1,
				       above[j - 1] + (x != y));
			if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
			    y == tolower((unsigned char)a[i - 2]))
				row[j] = least(row[j], before[j - 2] + 1);
		}
		int *spare = before;
		before = above;
		above = row;
		row = spare;
	}
	return above[b_bytes];
}

const char *nearest_word(const char *word, const char *const *words, int count)
{
	int bytes = (int)strnlen(word, WORD_MOST + 1);
	int best = (bytes + 2) / 3 + 1;		/* a third of the letters may be wrong */
	const char *found = NULL;

	if (bytes > WORD_MOST)
		return NULL;
	for (int i = 0; i < count; i++) {
		int other = (int)strnlen(words[i], WORD_MOST + 1);

		if (other > WORD_MOST)
			continue;
		int d = distance(word, bytes, words[i], other);
		if (d < best && d < bytes) {
			best = d;
			found = words[i];
		}
	}
	return found;
}
