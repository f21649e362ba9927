/*
 * model/decoder.c - the decoder of a tokenizer: how the texts of tokens become a text.
 *
 * As in Hugging Face's tokenizers, steps work on a list of pieces, at first one for each token.
 */
#include "model/internal.h"
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* -- reading ------------------------------------------------------------------------------- */

static int read_strip(struct steps *steps, const char *path, const struct json *map)
{
	struct fields fields = {.path = path, .map = map};
	const char *text = fields_text(&fields, "content", " ");
	long long left = fields_integer(&fields, "start", 0, INT32_MAX, 0);
	long long right = fields_integer(&fields, "stop", 0, INT32_MAX, 0);
	struct step *step = steps_add(steps, STEP_STRIP);

	step_text(step, text, strlen(text));
	step->left = left;
	step->right = right;
	return fields.failed ? -1 : 0;
}

int decoder_read(struct steps *steps, const char *path, const struct json *map)
{
	const char *type = json_as_text(json_find(map, "type"), "?");

	if (json_is_nothing(map))
		return 0;
	if (strcmp(type, "ByteLevel") == 0)
		return steps_add(steps, STEP_BYTE_LEVEL) ? 0 : -1;
	if (strcmp(type, "ByteFallback") == 0)
		return steps_add(steps, STEP_BYTE_FALLBACK) ? 0 : -1;
	if (strcmp(type, "Fuse") == 0)
		return steps_add(steps, STEP_FUSE) ? 0 : -1;
	if (strcmp(type, "Metaspace") == 0)
		return metaspace_read(steps, path, map);
	if (strcmp(type, "Replace") == 0)
		return normalizer_read(steps, path, map);
	if (strcmp(type, "Strip") == 0)
		return read_strip(steps, path, map);
	if (strcmp(type, "Sequence") != 0)
		return refuse_part(path, "the decoder", type);
	return steps_read(steps, path, json_find(map, "decoders"), decoder_read);
}

/* -- running ------------------------------------------------------------------------------- */

/* Texts that stand side by side: piece i ends at end[i]. */
struct pieces {
	struct text text;
	size_t *end;
	size_t count, room;
};

/* Ends a piece at what has been put. */
static void end_piece(struct pieces *pieces)
{
	if (pieces->count == pieces->room) {
		pieces->room = 2 * pieces->room + 64;
		pieces->end = xrealloc(pieces->end, pieces->room * sizeof *pieces->end);
	}
	pieces->end[pieces->count++] = pieces->text.bytes;
}

static void add_piece(struct pieces *pieces, const char *data, size_t bytes)
{
	text_put(&pieces->text, data, bytes);
	end_piece(pieces);
}

static const char *piece_at(const struct pieces *pieces, size_t i, size_t *bytes)
{
	size_t start = i ? pieces->end[i - 1] : 0;

	*bytes = pieces->end[i] - start;
	return pieces->text.data ? pieces->text.data + start : "";
}

static void release_pieces(struct pieces *pieces)
{
	text_release(&pieces->text);
	free(pieces->end);
	*pieces = (struct pieces){0};
}

static void fuse(const struct pieces *in, struct pieces *out)
{
	add_piece(out, in->text.data ? in->text.data : "", in->text.bytes);
}

static void run_bytes(const struct pieces *in, struct pieces *out, bool whole)
{
	struct text bytes = {0};
	size_t size;

	for (size_t i = 0; i < in->count; i++) {
		const char *data = piece_at(in, i, &size);
		spelling_read(data, size, &bytes);
	}
	if (whole)
		utf8_repair(&out->text, bytes.data ? bytes.data : "", bytes.bytes);
	else
		text_put(&out->text, bytes.data ? bytes.data : "", bytes.bytes);
	end_piece(out);
	text_release(&bytes);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if ((c | 32) >= 'a' && (c | 32) <= 'f')
		return (c | 32) - 'a' + 10;
	return -1;
}

/* The byte that a token <0xHH> stands for, -1: none. Rust reads +H as a number too. */
static int byte_of(const char *data, size_t bytes)
{
	if (bytes != 6 || memcmp(data, "<0x", 3) != 0 || data[5] != '>')
		return -1;
	int high = data[3] == '+' ? 0 : hex_digit(data[3]), low = hex_digit(data[4]);
	return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* Ends a run of bytes: its text, or U+FFFD for each of them where it is none. */
static void end_run(struct text *run, struct pieces *out, bool whole)
{
	bool good = utf8_valid(run->data ? run->data : "", run->bytes) == run->bytes;

	if (run->bytes > 0 && (good || !whole))
		add_piece(out, run->data, run->bytes);
	for (size_t i = 0; !good && whole && i < run->bytes; i++)
		add_piece(out, "\xef\xbf\xbd", 3);
	run->bytes = 0;
}

static void run_fallback(const struct pieces *in, struct pieces *out, bool whole)
{
	struct text run = {0};
	size_t size;

	for (size_t i = 0; i < in->count; i++) {
		const char *data = piece_at(in, i, &size);
		int byte = byte_of(data, size);

		if (byte >= 0) {
			text_put(&run, &(uint8_t){(uint8_t)byte}, 1);
			continue;
		}
		end_run(&run, out, whole);
		add_piece(out, data, size);
	}
	end_run(&run, out, whole);
	text_release(&run);
}

static void run_strip(const struct step *step, const struct pieces *in, struct pieces *out)
{
	size_t size;

	for (size_t i = 0; i < in->count; i++) {
		const char *data = piece_at(in, i, &size);

		for (long long n = 0; n < step->left && size >= step->bytes &&
				      memcmp(data, step->text, step->bytes) == 0; n++) {
			data += step->bytes;
			size -= step->bytes;
		}
		for (long long n = 0; n < step->right && size >= step->bytes &&
				      memcmp(data + size - step->bytes, step->text,
					     step->bytes) == 0; n++)
			size -= step->bytes;
		add_piece(out, data, size);
	}
}

static void run_metaspace(const struct step *step, const struct pieces *in, struct pieces *out)
{
	size_t size;

	for (size_t i = 0; i < in->count; i++) {
		const char *data = piece_at(in, i, &size);
		struct matches m = {.text = data, .bytes = size};
		size_t done = 0;

		while (pattern_next(step->pattern, &m) > 0) {
			text_put(&out->text, data + done, m.start - done);
			if (i > 0 || step->prefix == PREFIX_NEVER)
				text_put(&out->text, " ", 1);
			done = m.end;
		}
		add_piece(out, data + done, size - done);
	}
}

static int run_replace(const struct step *step, const struct pieces *in, struct pieces *out)
{
	size_t size;

	for (size_t i = 0; i < in->count; i++) {
		const char *data = piece_at(in, i, &size);

		if (step_replace(step, data, size, &out->text) < 0)
			return -1;
		end_piece(out);
	}
	return 0;
}

static int run_step(const struct step *step, const struct pieces *in, struct pieces *out,
		    bool whole)
{
	switch (step->kind) {
	case STEP_BYTE_LEVEL:
		run_bytes(in, out, whole);
		return 0;
	case STEP_BYTE_FALLBACK:
		run_fallback(in, out, whole);
		return 0;
	case STEP_STRIP:
		run_strip(step, in, out);
		return 0;
	case STEP_METASPACE:
		run_metaspace(step, in, out);
		return 0;
	case STEP_REPLACE:
		return run_replace(step, in, out);
	default: /* STEP_FUSE */
		fuse(in, out);
		return 0;
	}
}

static const char *shown(const struct token *token, size_t *bytes)
{
	*bytes = token->shown ? token->shown_bytes : token->bytes;
	return token->shown ? token->shown : token->text;
}

/* The texts of ids; without a decoder with spaces between them. */
static void add_tokens(const struct tokenizer *t, const int32_t *id, size_t count, bool special,
		       struct pieces *pieces)
{
	size_t size;

	for (size_t i = 0; i < count; i++) {
		const struct token *token = &t->vocabulary.token[id[i]];

		if (token->kind == TOKEN_SPECIAL && !special)
			continue;
		if (t->decoder.count == 0 && pieces->count > 0)
			text_put(&pieces->text, " ", 1);
		const char *data = shown(token, &size);
		add_piece(pieces, data, size);
	}
}

/* GPT-2's only step needs no pieces. */
static void add_bytes(const struct tokenizer *t, const int32_t *id, size_t count, bool special,
		      struct text *text)
{
	size_t size;

	for (size_t i = 0; i < count; i++) {
		const struct token *token = &t->vocabulary.token[id[i]];

		if (token->kind == TOKEN_SPECIAL && !special)
			continue;
		const char *data = shown(token, &size);
		spelling_read(data, size, text);
	}
}

int decoder_run(const struct tokenizer *t, const int32_t *id, size_t count, bool special,
		bool whole, struct text *text)
{
	struct pieces pieces[2];
	int done = 0, now = 0;

	if (!whole && t->decoder.count == 1 && t->decoder.step[0].kind == STEP_BYTE_LEVEL) {
		add_bytes(t, id, count, special, text);
		return 0;
	}
	memset(pieces, 0, sizeof pieces);
	add_tokens(t, id, count, special, &pieces[0]);
	size_t from = pieces[0].text.bytes;
	for (int i = 0; done == 0 && i < t->decoder.count; i++) {
		struct pieces *out = &pieces[!now];

		out->text.bytes = out->count = 0;
		done = run_step(&t->decoder.step[i], &pieces[now], out, whole);
		if (done == 0)
			done = steps_growth(from, out->text.bytes);
		now = !now;
	}
	if (done == 0)
		text_put(text, pieces[now].text.data ? pieces[now].text.data : "",
			 pieces[now].text.bytes);
	release_pieces(&pieces[0]);
	release_pieces(&pieces[1]);
	return done;
}
