/*
 * model/spelling.c - GPT-2's spelling of bytes as printable characters (its bytes_to_unicode).
 *
 * Three runs of bytes are not printable in Latin-1: 0..32, 127..160 and 173. They are spelled,
 * in this order, as U+0100, U+0101, ... U+0143.
 */
#include "model/tokenizer.h"

#include <string.h>

static uint32_t character_of(uint8_t byte)
{
	if (byte <= 32)
		return 0x100u + byte;
	if (byte >= 127 && byte <= 160)
		return 0x121u + byte - 127;
	return byte == 173 ? 0x143 : byte;
}

/* The byte that a character spells, -1: none. */
static int byte_of(uint32_t character)
{
	if (character >= 0x100 && character <= 0x120)
		return (int)character - 0x100;
	if (character >= 0x121 && character <= 0x142)
		return (int)character - 0x121 + 127;
	if (character == 0x143)
		return 173;
	if (character > 0xff || character_of((uint8_t)character) != character)
		return -1;
	return (int)character;
}

size_t spelling_of(uint8_t byte, char spelling[SPELLING_BYTES])
{
	uint32_t c = character_of(byte);

	if (c < 0x80) {
		spelling[0] = (char)c;
		return 1;
	}
	spelling[0] = (char)(0xc0 | c >> 6);
	spelling[1] = (char)(0x80 | (c & 0x3f));
	return 2;
}

/* The byte spelled at *p, which moves on; -1: none. Tokens are valid UTF-8, as JSON is. */
static int spelled_byte(const unsigned char **p)
{
	uint32_t first = *(*p)++;

	if (first < 0x80)
		return byte_of(first);
	if (first < 0xc2 || first > 0xdf)
		return -1;
	return byte_of((first & 0x1f) << 6 | (*(*p)++ & 0x3f));
}

void spelling_read(const char *token, struct text *text)
{
	const unsigned char *p = (const unsigned char *)token;
	size_t before = text->bytes;

	while (*p) {
		int byte = spelled_byte(&p);

		if (byte < 0) {
			text->bytes = before;
			text_put(text, token, strlen(token));
			return;
		}
		text_put(text, &(uint8_t){(uint8_t)byte}, 1);
	}
}
