/*
 * model/packed.c - plain text: the whole file is one row of tokens, cut into sequences; only
 * the last is padded.
 */
#include "model/dataset.h"
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* Says where the byte at an offset stands: file:line:column, from 1, columns in bytes. */
static int bad_byte(const struct reader *r, const char *text, size_t offset)
{
	size_t line = 1, start = 0;

	for (size_t i = 0; i < offset; i++) {
		if (text[i] == '\n') {
			line++;
			start = i + 1;
		}
	}
	return error(EXIT_DATA, "%s:%zu:%zu: error: 0x%02X, byte %zu of the file, is not UTF-8",
		     r->path, line, offset - start + 1, (uint8_t)text[offset], offset);
}

static int encode_file(struct reader *r, struct ids *ids)
{
	size_t bytes;
	char *text = file_read(r->path, &bytes);
	int done;

	if (!text)
		return -1;
	size_t valid = utf8_valid(text, bytes);
	if (valid < bytes)
		done = bad_byte(r, text, valid);
	else
		done = tokenizer_encode(r->tokenizer, text, bytes, true, ids);
	free(text);
	return done;
}

int read_text(struct reader *r)
{
	size_t T = (size_t)r->tokens;
	struct ids ids = {0};
	int done = 0;

	if (reader_wants_answers(r))
		return error(EXIT_CONFIG,
			     "data.mask is %s, but '%s' is plain text without prompts",
			     mask_name(r), r->path);
	if (encode_file(r, &ids) < 0) {
		ids_release(&ids);
		return -1;
	}
	reader_room(r, (ids.count + T - 1) / T);
	for (size_t at = 0; at < ids.count && done == 0; at += T) {
		size_t left = ids.count - at;
		done = reader_add(r, ids.id + at, NULL, left < T ? left : T);
	}
	ids_release(&ids);
	return done;
}
