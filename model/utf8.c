/*
 * model/utf8.c - characters in UTF-8 texts.
 */
#include "model/tokenizer.h"

#include <string.h>
#include <utf8proc.h>

uint32_t utf8_at(const char *text, size_t *size)
{
	const unsigned char *p = (const unsigned char *)text;

	if (p[0] < 0x80) {
		*size = 1;
		return p[0];
	}
	if (p[0] < 0xe0) {
		*size = 2;
		return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
	}
	if (p[0] < 0xf0) {
		*size = 3;
		return (p[0] & 0xfu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
	}
	*size = 4;
	return (p[0] & 7u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
}

uint32_t utf8_last(const char *text, size_t bytes, size_t *size)
{
	size_t at = bytes - 1;

	while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80)
		at--;
	return utf8_at(text + at, size);
}

void utf8_put(struct text *text, uint32_t c)
{
	unsigned char bytes[4];
	size_t size = 0;

	if (c < 0x80) {
		bytes[size++] = (unsigned char)c;
	} else if (c < 0x800) {
		bytes[size++] = (unsigned char)(0xc0 | c >> 6);
		bytes[size++] = (unsigned char)(0x80 | (c & 0x3f));
	} else if (c < 0x10000) {
		bytes[size++] = (unsigned char)(0xe0 | c >> 12);
		bytes[size++] = (unsigned char)(0x80 | (c >> 6 & 0x3f));
		bytes[size++] = (unsigned char)(0x80 | (c & 0x3f));
	} else {
		bytes[size++] = (unsigned char)(0xf0 | c >> 18);
		bytes[size++] = (unsigned char)(0x80 | (c >> 12 & 0x3f));
		bytes[size++] = (unsigned char)(0x80 | (c >> 6 & 0x3f));
		bytes[size++] = (unsigned char)(0x80 | (c & 0x3f));
	}
	text_put(text, bytes, size);
}

/* What the second byte of a character may be (RFC 3629, section 4). */
struct second {
	unsigned char least, most;
};
static struct second second_of(unsigned char first)
{
	switch (first) {
	case 0xe0:
		return (struct second){0xa0, 0xbf};
	case 0xed:
		return (struct second){0x80, 0x9f};
	case 0xf0:
		return (struct second){0x90, 0xbf};
	case 0xf4:
		return (struct second){0x80, 0x8f};
	default:
		return (struct second){0x80, 0xbf};
	}
}

/*
 * Looks at the character at p: whole says whether it is one; returns its bytes, or those of the
 * longest start of a character, at least 1.
 */
static size_t character(const unsigned char *p, size_t bytes, bool *whole)
{
	size_t more = p[0] < 0x80 ? 0 : p[0] < 0xe0 ? 1 : p[0] < 0xf0 ? 2 : 3;
	struct second second = second_of(p[0]);

	*whole = false;
	if (p[0] >= 0x80 && (p[0] < 0xc2 || p[0] > 0xf4))
		return 1;
	for (size_t i = 1; i <= more; i++) {
		if (i >= bytes || p[i] < second.least || p[i] > second.most)
			return i;
		second = (struct second){0x80, 0xbf};
	}
	*whole = true;
	return more + 1;
}

size_t utf8_valid(const char *text, size_t bytes)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t at = 0;
	bool whole;

	while (at < bytes) {
		uint64_t eight;

		if (bytes - at >= 8) {
			memcpy(&eight, p + at, 8);
			if (!(eight & 0x8080808080808080u)) {
				at += 8;
				continue;
			}
		}
		size_t size = character(p + at, bytes - at, &whole);
		if (!whole)
			return at;
		at += size;
	}
	return bytes;
}

void utf8_repair(struct text *text, const char *data, size_t bytes)
{
	size_t at = 0;

	while (at < bytes) {
		size_t valid = utf8_valid(data + at, bytes - at);
		bool whole;

		text_put(text, data + at, valid);
		at += valid;
		if (at == bytes)
			return;
		at += character((const unsigned char *)data + at, bytes - at, &whole);
		text_put(text, "\xef\xbf\xbd", 3);
	}
}

bool utf8_is_space(uint32_t c)
{
	if (c < 0x80)
		return c == ' ' || (c >= 9 && c <= 13);
	return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
	       c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static utf8proc_category_t category(uint32_t c)
{
	return utf8proc_category((utf8proc_int32_t)c);
}

bool unicode_is_mark(uint32_t c)
{
	utf8proc_category_t kind = category(c);

	if (c == 0x1cf2 || c == 0x1cf3) /* letters since Unicode 12 */
		return true;
	return (kind == UTF8PROC_CATEGORY_MN || kind == UTF8PROC_CATEGORY_MC ||
		kind == UTF8PROC_CATEGORY_ME) && !unicode_is_later(c);
}

bool utf8_is_word(uint32_t c)
{
	switch (category(c)) {
	case UTF8PROC_CATEGORY_LU:
	case UTF8PROC_CATEGORY_LL:
	case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM:
	case UTF8PROC_CATEGORY_LO:
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC:
	case UTF8PROC_CATEGORY_ME:
	case UTF8PROC_CATEGORY_ND:
	case UTF8PROC_CATEGORY_NL:
	case UTF8PROC_CATEGORY_PC:
		return true;
	case UTF8PROC_CATEGORY_CN:
		return unicode_is_newer_word(c);
	default: /* Other_Alphabetic symbols, and Join_Control */
		return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
		       (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189) ||
		       c == 0x200c || c == 0x200d;
	}
}
