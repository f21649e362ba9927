/*
 * model/unicode.c - normal forms and lower case, on utf8proc's tables.
 *
 * utf8proc sorts combining marks by inserting, which takes for ever where a text is a million
 * marks; here the marks of a character are counted out instead. Runs of characters that no form
 * changes are copied. Hugging Face's normalizers know Unicode 9, and so do these: unicode_is_later.
 */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define DECOMPOSED_MOST 18 /* characters of one decomposition (U+FDFA) */
#define COMBINING_SECOND 0x8000u
#define INSERTED_MOST 32

/* Characters to be normalised. */
struct characters {
	utf8proc_int32_t *c;
	size_t count, room;
};

/*
 * Whether a character stands for itself in a form, and nothing before it changes it. It may still
 * be joined with what comes behind it.
 */
static bool is_plain(enum step_kind form, uint32_t c)
{
	if (c < 0x80 || (c < 0x300 && form == STEP_NFC))
		return true;
	if (c >= 0x1100 && c <= 0x11ff)
		return false;
	const utf8proc_property_t *property = utf8proc_get_property((utf8proc_int32_t)c);
	bool second = property->comb_index != UINT16_MAX && property->comb_index >= COMBINING_SECOND;

	if (c >= 0xac00 && c <= 0xd7a3)
		return form == STEP_NFC || form == STEP_NFKC;
	if (property->combining_class == 0 && !second && property->decomp_seqindex == UINT16_MAX)
		return true;
	return unicode_is_later(c);
}

bool unicode_is_nfc(const char *data, size_t bytes)
{
	for (size_t at = 0; at < bytes;) {
		uint64_t eight;
		size_t size;

		if (bytes - at >= 8) {
			memcpy(&eight, data + at, 8);
			if (!(eight & 0x8080808080808080u)) {
				at += 8;
				continue;
			}
		}
		if (!is_plain(STEP_NFC, utf8_at(data + at, &size)))
			return false;
		at += size;
	}
	return true;
}

static int class_of(utf8proc_int32_t c)
{
	return unicode_is_later((uint32_t)c) ? 0 : utf8proc_get_property(c)->combining_class;
}

/* Sorts marks by their class, those of one class as they stand. */
static void sort_marks(utf8proc_int32_t *c, size_t count)
{
	if (count <= INSERTED_MOST) {
		for (size_t i = 1; i < count; i++) {
			utf8proc_int32_t mark = c[i];
			size_t at = i;

			for (; at > 0 && class_of(c[at - 1]) > class_of(mark); at--)
				c[at] = c[at - 1];
			c[at] = mark;
		}
		return;
	}
	size_t start[257] = {0};
	utf8proc_int32_t *sorted = xalloc(count * sizeof *sorted);
	for (size_t i = 0; i < count; i++)
		start[class_of(c[i]) + 1]++;
	for (int i = 0; i < 256; i++)
		start[i + 1] += start[i];
	for (size_t i = 0; i < count; i++)
		sorted[start[class_of(c[i])]++] = c[i];
	memcpy(c, sorted, count * sizeof *c);
	free(sorted);
}

static void decompose(struct characters *all, uint32_t c, bool compatible)
{
	int boundary = UTF8PROC_BOUNDCLASS_START;

	if (all->room - all->count < DECOMPOSED_MOST) {
		all->room = 2 * all->room + 64;
		all->c = xrealloc(all->c, all->room * sizeof *all->c);
	}
	if (unicode_is_later(c)) {
		all->c[all->count++] = (utf8proc_int32_t)c;
		return;
	}
	all->count += (size_t)utf8proc_decompose_char(
		(utf8proc_int32_t)c, all->c + all->count,
		(utf8proc_ssize_t)(all->room - all->count),
		UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0),
		&boundary);
}

static void order(struct characters *all)
{
	for (size_t at = 0; at < all->count; at++) {
		size_t end = at;

		while (end < all->count && class_of(all->c[end]) != 0)
			end++;
		if (end > at + 1)
			sort_marks(all->c + at, end - at);
		if (end > at)
			at = end - 1;
	}
}

/* Adds the characters from at to end in a form. */
static void put_normal(enum step_kind form, const char *data, size_t at, size_t end,
		       struct characters *all, struct text *text)
{
	bool composed = form == STEP_NFC || form == STEP_NFKC;
	size_t size;

	all->count = 0;
	for (; at < end; at += size)
		decompose(all, utf8_at(data + at, &size),
			  form == STEP_NFKC || form == STEP_NFKD);
	order(all);
	if (composed)
		all->count = (size_t)utf8proc_normalize_utf32(
			all->c, (utf8proc_ssize_t)all->count,
			UTF8PROC_STABLE | UTF8PROC_COMPOSE);
	for (size_t i = 0; i < all->count; i++)
		utf8_put(text, (uint32_t)all->c[i]);
}

void unicode_normal(enum step_kind form, const char *data, size_t bytes, struct text *text)
{
	struct characters all = {0};
	size_t at = 0;

	while (at < bytes) {
		size_t from = at, last = at, size;

		/* Plain characters are copied, but for the last one if it may be joined. */
		while (at < bytes && is_plain(form, utf8_at(data + at, &size))) {
			last = at;
			at += size;
		}
		size_t copied = at < bytes ? last : at;
		text_put(text, data + from, copied - from);
		while (at < bytes && !is_plain(form, utf8_at(data + at, &size)))
			at += size;
		if (at > copied)
			put_normal(form, data, copied, at, &all, text);
	}
	free(all.c);
}

void unicode_lower(const char *data, size_t bytes, struct text *text)
{
	for (size_t at = 0, size; at < bytes; at += size) {
		uint32_t c = utf8_at(data + at, &size);

		if (c == 0x130)
			text_put(text, "i\xcc\x87", 3);
		else
			utf8_put(text, unicode_newer_lower((uint32_t)utf8proc_tolower((utf8proc_int32_t)c)));
	}
}

const char *unicode_version(void)
{
	return utf8proc_version();
}
