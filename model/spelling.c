/*
 * model/spelling.c - GPT-2's spelling of bytes as printable characters (its bytes_to_unicode).
 *
 * Three runs of bytes are not printable in Latin-1: 0..32, 127..160 and 173. They are spelled,
 * in this order, as U+0100, U+0101, ... U+0143.
 */
#include "model/tokenizer.h"

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

void spelling_write(const char *data, size_t bytes, struct text *text)
{
	for (size_t i = 0; i < bytes; i++) {
		char spelling[SPELLING_BYTES];

		text_put(text, spelling, spelling_of((uint8_t)data[i], spelling));
	}
}

void spelling_read(const char *token, size_t bytes, struct text *text)
{
	size_t before = text->bytes;

	for (size_t at = 0, size; at < bytes; at += size) {
		int byte = byte_of(utf8_at(token + at, &size));

		if (byte < 0) {
			text->bytes = before;
			text_put(text, token, bytes);
			return;
		}
		text_put(text, &(uint8_t){(uint8_t)byte}, 1);
	}
}
