/*
 * The text that grows out of ids, as people see it: a stop text ends it and is not shown, and what might still become one,
 * or is not a whole UTF-8 character yet, is held back.
 */
#include <stdlib.h>
#include <string.h>

#include "model/model.h"

struct transcript {
	struct tokenizer *tokenizer;
	const char *const *stop;
	int stops;
	int32_t before;		/* the id before the next one; -1: none */
	struct text text;	/* all of it, up to a stop text */
	struct text alone, together;	/* for the piece that an id adds */
	size_t shown;		/* bytes that transcript_show gave */
	bool stopped;
};

struct transcript *transcript_open(struct tokenizer *tokenizer, const char *const *stop, int stops, int32_t before)
{
	struct transcript *t = xzalloc(1, sizeof(*t));

	t->tokenizer = tokenizer;
	t->stop = stop;
	t->stops = stops;
	t->before = before;
	return t;
}

void transcript_close(struct transcript *t)
{
	if (!t)
		return;
	text_release(&t->text);
	text_release(&t->alone);
	text_release(&t->together);
	free(t);
}

void transcript_begin(struct transcript *t, int32_t before)
{
	t->before = before;
	t->text.bytes = t->shown = 0;
	t->stopped = false;
}

/* The text of an id behind the one before it: decoders treat the first one of a text apart. */
static int add_piece(struct transcript *t, int32_t id)
{
	int32_t both[2] = {t->before, id};
	struct text *alone = &t->alone, *together = &t->together;
	int first = t->before < 0, status;

	alone->bytes = together->bytes = 0;
	status = first ? 0 : tokenizer_decode(t->tokenizer, both, 1, false, alone);
	if (!status)
		status = tokenizer_decode(t->tokenizer, both + first, (size_t)(2 - first), false, together);
	if (!status && together->bytes > alone->bytes)
		text_put(&t->text, together->data + alone->bytes, together->bytes - alone->bytes);
	t->before = id;
	return status;
}

/* The first stop text that begins at or behind `from`. */
static bool find_stop(struct transcript *t, size_t from)
{
	size_t best = t->text.bytes;
	bool found = false;

	for (int i = 0; i < t->stops; i++) {
		size_t bytes = strlen(t->stop[i]);
		const char *at = t->text.bytes > from ? memmem(t->text.data + from, t->text.bytes - from, t->stop[i], bytes)
						      : NULL;

		if (at && (!found || (size_t)(at - t->text.data) < best)) {
			best = (size_t)(at - t->text.data);
			found = true;
		}
	}
	if (found)
		t->text.bytes = best;
	return found;
}

static size_t longest(const char *const *stop, int stops)
{
	size_t most = 0;

	for (int i = 0; i < stops; i++)
		most = strlen(stop[i]) > most ? strlen(stop[i]) : most;
	return most;
}

int transcript_add(struct transcript *t, int32_t id)
{
	size_t old = t->text.bytes, most = longest(t->stop, t->stops);

	if (t->stopped)
		return 1;
	if (add_piece(t, id))
		return -1;
	t->stopped = t->stops > 0 && find_stop(t, old > most ? old - most : 0);
	return t->stopped;
}

void transcript_forget(struct transcript *t)
{
	size_t most = longest(t->stop, t->stops), bytes = t->text.bytes;

	if (bytes > most)
		memmove(t->text.data, t->text.data + bytes - most, most);
	t->text.bytes = bytes > most ? most : bytes;
	t->shown = 0;
}

/* Three texts that grow by halves or more; a piece has some bytes, rarely a hundred. */
size_t transcript_bytes(const char *const *stop, int stops)
{
	return sizeof(struct transcript) + 3 * 256 + 2 * longest(stop, stops);
}

/* How many bytes at the end may be the beginning of a stop text. */
static size_t held_by_stops(const struct transcript *t)
{
	size_t most = 0;

	for (int i = 0; i < t->stops; i++)
		for (size_t n = strlen(t->stop[i]) - 1; n > most; n--)
			if (n <= t->text.bytes && !memcmp(t->text.data + t->text.bytes - n, t->stop[i], n))
				most = n;
	return most;
}

/* How many bytes at the end are the beginning of a character. */
static size_t held_by_utf8(const char *data, size_t bytes)
{
	for (size_t n = 1; n <= 3 && n <= bytes; n++) {
		uint8_t c = (uint8_t)data[bytes - n];

		if (c >= 0xc0)
			return n < (c >= 0xf0 ? 4u : c >= 0xe0 ? 3u : 2u) ? n : 0;
		if (c < 0x80)
			return 0;
	}
	return 0;
}

const char *transcript_show(struct transcript *t, bool all, size_t *bytes)
{
	size_t end = t->text.bytes, from = t->shown;

	if (!all && !t->stopped)
		end -= held_by_stops(t);
	if (!all && end > from)
		end -= held_by_utf8(t->text.data + from, end - from);
	*bytes = end > from ? end - from : 0;
	t->shown += *bytes;
	return t->text.data ? t->text.data + from : "";
}

const char *transcript_text(const struct transcript *t, size_t *bytes)
{
	*bytes = t->text.bytes;
	return t->text.data ? t->text.data : "";
}

/* How many bytes the character at data takes; 0: there is none. */
static size_t character(const char *data, size_t bytes)
{
	const uint8_t *p = (const uint8_t *)data;
	uint8_t c = p[0], least = 0x80, most = 0xbf;
	size_t n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;

	if (n == 0 || n > bytes || c == 0)
		return 0;
	if (c == 0xe0)
		least = 0xa0;		/* no longer than needed, */
	if (c == 0xed)
		most = 0x9f;		/* no surrogates, */
	if (c == 0xf0)
		least = 0x90;
	if (c == 0xf4)
		most = 0x8f;		/* nothing behind U+10FFFF */
	for (size_t i = 1; i < n; i++) {
		if (p[i] < (i == 1 ? least : 0x80) || p[i] > (i == 1 ? most : 0xbf))
			return 0;
	}
	return n;
}

void transcript_clean(struct text *to, const char *data, size_t bytes)
{
	for (size_t at = 0, n; at < bytes; at += n > 0 ? n : 1) {
		n = character(data + at, bytes - at);
		if (n > 0)
			text_put(to, data + at, n);
		else
			text_put(to, "\xef\xbf\xbd", 3);
	}
}
