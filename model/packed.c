/*
 * model/packed.c - plain text: the whole file is one row of tokens, cut into sequences; only
 * the last is padded.
 *
 * A file is read in pieces of some megabytes that end where no word of any tokenizer can reach
 * over: behind a newline with a letter, a digit or punctuation before it, and before an ASCII
 * letter or digit. The newline is encoded again before the next piece and its tokens are taken
 * off, so that a tokenizer that puts something before a text does so once.
 */
#include "model/dataset.h"
#include "model/input.h"
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define PIECE ((size_t)4 << 20)

struct packer {
	struct reader *r;
	struct text text; /* what is not encoded yet */
	struct ids ids;	  /* what fills no row yet */
	struct ids newline, part;
	bool inside;	  /* text begins with the newline that ended the piece before */
	bool whole;	  /* pieces would not give what the whole gives */
	size_t line, column, offset; /* of the text's first byte, from 0 */
};

/* Says where the byte at an offset stands: file:line:column, from 1, columns in bytes. */
static int bad_byte(struct packer *p, size_t offset)
{
	size_t line = p->line, start = 0, column = p->column;
	const char *text = p->text.data;

	for (size_t i = 0; i < offset; i++) {
		if (text[i] == '\n') {
			line++;
			start = i + 1;
			column = 0;
		}
	}
	return error(EXIT_DATA, "%s:%zu:%zu: error: 0x%02X, byte %zu of the text, is not UTF-8",
		     p->r->path, line + 1, column + offset - start + 1, (uint8_t)text[offset],
		     p->offset + offset);
}

/* Encodes some of the text behind the ids that are there. */
static int encode(struct packer *p, size_t bytes)
{
	size_t valid = utf8_valid(p->text.data, bytes), known = 0;

	if (valid < bytes)
		return bad_byte(p, valid);
	p->part.count = 0;
	if (tokenizer_encode(p->r->tokenizer, p->text.data, bytes, true, &p->part) < 0)
		return -1;
	if (p->inside) {
		known = p->newline.count;
		if (p->part.count < known ||
		    memcmp(p->part.id, p->newline.id, known * sizeof *p->part.id) != 0)
			return error(EXIT_BUG,
				     "'%s': byte %zu is no place to cut the text for this "
				     "tokenizer",
				     p->r->path, p->offset);
	}
	size_t count = p->part.count - known;
	if (count > 0)
		memcpy(ids_take(&p->ids, count), p->part.id + known, count * sizeof *p->part.id);
	return 0;
}

/* Takes what was encoded off the text, but for its last newline. */
static void drop(struct packer *p, size_t bytes)
{
	size_t gone = bytes - 1;

	for (size_t i = 0; i < gone; i++) {
		p->column++;
		if (p->text.data[i] == '\n') {
			p->line++;
			p->column = 0;
		}
	}
	p->offset += gone;
	p->text.bytes -= gone;
	memmove(p->text.data, p->text.data + gone, p->text.bytes);
	p->inside = true;
}

/* Hands on full rows; at the end what is left, too. */
static int put_rows(struct packer *p, bool end)
{
	size_t T = (size_t)p->r->tokens, at = 0;

	for (; at + T <= p->ids.count || (end && at < p->ids.count); at += T) {
		size_t left = p->ids.count - at;

		if (reader_add(p->r, p->ids.id + at, NULL, left < T ? left : T) < 0)
			return -1;
	}
	if (at > p->ids.count)
		at = p->ids.count;
	p->ids.count -= at;
	if (at > 0)
		memmove(p->ids.id, p->ids.id + at, p->ids.count * sizeof *p->ids.id);
	return 0;
}

static bool is_plain(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* The last place where the text can be cut, 0: there is none. */
static size_t last_cut(const struct packer *p)
{
	const char *text = p->text.data;

	for (size_t i = p->text.bytes; i > 2 + (size_t)p->inside; i--) {
		unsigned char before = (unsigned char)text[i - 3];

		if (text[i - 2] == '\n' && is_plain(text[i - 1]) && before > ' ' && before < 0x7f)
			return i - 1;
	}
	return 0;
}

/* What a tokenizer makes of two lines at once it must make of them one by one. */
static int try_cut(struct packer *p)
{
	static const char lines[] = "a b.\nc d\ne";
	struct tokenizer *t = p->r->tokenizer;
	struct ids whole = {0}, pieces = {0};
	size_t known;
	int done = -1;

	if (tokenizer_encode(t, "\n", 1, true, &p->newline) < 0 ||
	    tokenizer_encode(t, lines, strlen(lines), true, &whole) < 0 ||
	    tokenizer_encode(t, lines, 5, true, &pieces) < 0)
		goto end;
	known = pieces.count;
	if (tokenizer_encode(t, lines + 4, strlen(lines) - 4, true, &pieces) < 0)
		goto end;
	size_t count = pieces.count - known, again = p->newline.count;
	p->whole = count < again || known + count - again != whole.count ||
		   memcmp(pieces.id, whole.id, known * sizeof *whole.id) != 0 ||
		   memcmp(pieces.id + known, p->newline.id, again * sizeof *whole.id) != 0 ||
		   memcmp(pieces.id + known + again, whole.id + known,
			  (count - again) * sizeof *whole.id) != 0;
	done = 0;
end:
	ids_release(&whole);
	ids_release(&pieces);
	return done;
}

static int read_pieces(struct packer *p, struct input *input)
{
	size_t enough = PIECE, bytes = 1;
	const int32_t *before;
	size_t count = tokenizer_before(p->r->tokenizer, &before);

	if (try_cut(p) < 0)
		return -1;
	if (count > 0)
		memcpy(ids_take(&p->ids, count), before, count * sizeof *before);
	while (bytes > 0) {
		const char *piece = input_piece(input, &bytes);

		if (!piece)
			return -1;
		text_put(&p->text, piece, bytes);
		size_t cut = bytes > 0 && !p->whole && p->text.bytes >= enough ? last_cut(p) : 0;
		if (cut == 0) {
			if (p->text.bytes >= enough)
				enough = 2 * p->text.bytes; /* a long line */
			continue;
		}
		if (encode(p, cut) < 0 || put_rows(p, false) < 0)
			return -1;
		drop(p, cut);
		enough = PIECE;
	}
	if (p->text.bytes == 0 || encode(p, p->text.bytes) < 0)
		return p->text.bytes == 0 ? 0 : -1;
	return put_rows(p, true);
}

int read_text(struct reader *r)
{
	struct packer p = {.r = r};
	int done = -1;

	if (reader_wants_answers(r))
		return error(EXIT_CONFIG,
			     "data.mask is %s, but '%s' is plain text without prompts",
			     mask_name(r), r->path);
	if (!r->tokenizer)
		return error(EXIT_USAGE, "'%s' is plain text: --model DIR counts its tokens", r->path);
	struct input *input = input_open(r->path);
	if (input)
		done = read_pieces(&p, input);
	input_close(input);
	text_release(&p.text);
	ids_release(&p.ids);
	ids_release(&p.newline);
	ids_release(&p.part);
	return done;
}
