/*
 * model/bpe.c - byte-pair encoding of one word (Sennrich et al. 2016), on bytes as in GPT-2 or on
 * characters as in sentencepiece: what the word is before any merge (merge.c does those).
 *
 * Most words are short and come again: those are looked up in a cache that has one line of memory
 * per word and forgets on collision.
 *
 * A tokenizer of sentencepiece's kind has no words: a whole text is one, with U+2581 for spaces. It
 * is cut before each U+2581 whose character before it no merge joins with it. No merge can cross
 * such a place, so that the pieces are encoded as they would be in the whole.
 */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define WORD_BYTES 21
#define WORD_IDS 10
#define WORDS ((size_t)1 << 15)
#define SPACE_MARK "\xe2\x96\x81" /* U+2581 */
#define CHARACTERS 0x110000u

struct word {
	uint8_t used, bytes, count;
	char text[WORD_BYTES];
	int32_t id[WORD_IDS];
};
_Static_assert(sizeof(struct word) == 64, "a word is one cache line");

void bpe_open(struct bpe *bpe, const struct vocabulary *vocabulary, size_t merges)
{
	bpe->vocabulary = vocabulary;
	for (bpe->merges = 16; bpe->merges < 2 * merges;)
		bpe->merges *= 2;
	bpe->merge = xalloc(bpe->merges * sizeof *bpe->merge);
	memset(bpe->merge, -1, bpe->merges * sizeof *bpe->merge);
	bpe->word = xzalloc(WORDS, sizeof *bpe->word);
}

void bpe_release(struct bpe *bpe)
{
	free(bpe->merge);
	free(bpe->word);
	free(bpe->joined);
	free(bpe->first);
	free(bpe->start);
	free(bpe->symbol);
	free(bpe->heap);
	*bpe = (struct bpe){0};
}

bool bpe_add(struct bpe *bpe, const char *left, size_t left_bytes, const char *right,
	     size_t right_bytes, int rank)
{
	char both[256], *joined = both;
	int a = vocabulary_model(bpe->vocabulary, left, left_bytes);
	int b = vocabulary_model(bpe->vocabulary, right, right_bytes);

	if (a < 0 || b < 0)
		return false;
	if (left_bytes + right_bytes > sizeof both)
		joined = xalloc(left_bytes + right_bytes);
	memcpy(joined, left, left_bytes);
	memcpy(joined + left_bytes, right, right_bytes);
	int ab = vocabulary_model(bpe->vocabulary, joined, left_bytes + right_bytes);
	if (joined != both)
		free(joined);
	if (ab >= 0)
		bpe_join(bpe, a, b, ab, rank);
	return ab >= 0;
}

/* -- what follows from the vocabulary and the merges ---------------------------------------- */

static void find_bytes(struct bpe *bpe)
{
	for (int i = 0; i < 256; i++) {
		char spelling[8];
		size_t bytes;

		if (bpe->spelled)
			bytes = spelling_of((uint8_t)i, spelling);
		else
			bytes = (size_t)snprintf(spelling, sizeof spelling, "<0x%02X>", i);
		bpe->byte[i] = vocabulary_model(bpe->vocabulary, spelling, bytes);
		if (i < 128)
			bpe->ascii[i] = vocabulary_model(bpe->vocabulary, &(char){(char)i}, 1);
	}
}

/* Whether a token stands for the text that it is written as. */
static bool is_literal(const struct bpe *bpe, int32_t id)
{
	const struct token *token = &bpe->vocabulary->token[id];

	return id != bpe->unknown && token->bytes > 0 &&
	       !(token->bytes == 6 && memcmp(token->text, "<0x", 3) == 0);
}

/* Finds the characters that a merge joins with U+2581 behind; false where words must not be cut. */
static bool find_joined(struct bpe *bpe)
{
	bpe->joined = xzalloc(CHARACTERS / 8, 1);
	for (size_t i = 0; i < bpe->merges; i++) {
		const struct merge *merge = &bpe->merge[i];
		size_t size;

		if (merge->left < 0)
			continue;
		if (!is_literal(bpe, merge->left) || !is_literal(bpe, merge->right))
			return false;
		const struct token *left = &bpe->vocabulary->token[merge->left];
		const struct token *right = &bpe->vocabulary->token[merge->right];
		if (right->bytes < 3 || memcmp(right->text, SPACE_MARK, 3) != 0)
			continue;
		uint32_t c = utf8_last(left->text, left->bytes, &size);
		bpe->joined[c / 8] |= (uint8_t)(1u << c % 8);
	}
	return true;
}

void bpe_ready(struct bpe *bpe)
{
	find_bytes(bpe);
	bpe->unknown = -1;
	if (bpe->unknown_text)
		bpe->unknown = vocabulary_model(bpe->vocabulary, bpe->unknown_text,
					       strlen(bpe->unknown_text));
	if (bpe->spelled || bpe->ignore_merges ||
	    vocabulary_model(bpe->vocabulary, SPACE_MARK, 3) < 0)
		return;
	if (!find_joined(bpe)) {
		free(bpe->joined);
		bpe->joined = NULL;
	}
}

/* -- words --------------------------------------------------------------------------------- */

/* The symbols of a word before any merge. */
struct start {
	struct bpe *bpe;
	int32_t count;
	bool waits; /* an unknown one, for others to be fused with */
};

static void add_symbol(struct start *start, int32_t id)
{
	start->bpe->first[start->count++] = id;
}

/* Where every byte of a character has a token. */
static bool add_fallback(struct start *start, const char *c, size_t size)
{
	const int32_t *byte = start->bpe->byte;

	for (size_t i = 0; i < size; i++) {
		if (!start->bpe->byte_fallback || byte[(uint8_t)c[i]] < 0)
			return false;
	}
	for (size_t i = 0; i < size; i++)
		add_symbol(start, byte[(uint8_t)c[i]]);
	return true;
}

/* As Hugging Face's do it: an unknown one that waits is put down before the next that is in the
 * vocabulary, or unknown and not fused; not before bytes. */
static int add_character(struct start *start, int32_t id, const char *c, size_t size)
{
	const struct bpe *bpe = start->bpe;

	if (id < 0 && add_fallback(start, c, size))
		return 0;
	if (id < 0 && !bpe->unknown_text)
		return 0;
	if (id < 0 && bpe->unknown < 0)
		return error(EXIT_DATA, "'%.*s' is not in the vocabulary, and neither is the "
			     "unk_token '%s'", (int)size, c, bpe->unknown_text);
	if (start->waits && (id >= 0 || !bpe->fuse_unknown))
		add_symbol(start, bpe->unknown);
	start->waits = id < 0;
	if (id >= 0)
		add_symbol(start, id);
	return 0;
}

static int start_word(struct start *start, const char *word, size_t bytes)
{
	const struct bpe *bpe = start->bpe;
	size_t size = 1;

	for (size_t at = 0; at < bytes; at += size) {
		uint8_t first = (uint8_t)word[at];
		int32_t id = bpe->spelled ? bpe->byte[first] : bpe->ascii[first & 0x7f];

		if (!bpe->spelled && first >= 0x80) {
			utf8_at(word + at, &size);
			id = vocabulary_model(bpe->vocabulary, word + at, size);
		} else {
			size = 1;
		}
		if (add_character(start, id, word + at, size) < 0)
			return -1;
	}
	if (start->waits)
		add_symbol(start, bpe->unknown);
	return 0;
}

/* The id of a word that is a token, -1: none. */
static int32_t whole_word(const struct bpe *bpe, const char *word, size_t bytes)
{
	struct text spelled = {0};

	if (!bpe->spelled)
		return vocabulary_model(bpe->vocabulary, word, bytes);
	spelling_write(word, bytes, &spelled);
	int32_t id = vocabulary_model(bpe->vocabulary, spelled.data, spelled.bytes);
	text_release(&spelled);
	return id;
}

static int encode_new(struct bpe *bpe, const char *word, size_t bytes, struct ids *ids)
{
	struct start start = {.bpe = bpe};
	int32_t whole = bpe->ignore_merges ? whole_word(bpe, word, bytes) : -1;

	if (whole >= 0) {
		*ids_take(ids, 1) = whole;
		return 0;
	}
	if (bytes > INT32_MAX / 2)
		return error(EXIT_DATA, "a word of %zu bytes is too long to tokenise", bytes);
	if (bytes > bpe->firsts) {
		free(bpe->first);
		bpe->firsts = bytes < 64 ? 64 : bytes;
		bpe->first = xalloc(bpe->firsts * sizeof *bpe->first);
	}
	if (start_word(&start, word, bytes) < 0)
		return -1;
	bpe_merge(bpe, start.count, ids);
	return 0;
}

static void remember(struct word *slot, const char *word, size_t bytes, const int32_t *id,
		     size_t count)
{
	if (count > WORD_IDS)
		return;
	slot->used = 1;
	slot->bytes = (uint8_t)bytes;
	slot->count = (uint8_t)count;
	memcpy(slot->text, word, bytes);
	memcpy(slot->id, id, count * sizeof *id);
}

static int encode_piece(struct bpe *bpe, const char *word, size_t bytes, struct ids *ids)
{
	size_t before = ids->count;

	if (bytes > WORD_BYTES)
		return encode_new(bpe, word, bytes, ids);
	struct word *slot = &bpe->word[checksum(word, bytes, 0) & (WORDS - 1)];
	if (slot->used && slot->bytes == bytes && memcmp(slot->text, word, bytes) == 0) {
		memcpy(ids_take(ids, slot->count), slot->id, slot->count * sizeof *slot->id);
		return 0;
	}
	if (encode_new(bpe, word, bytes, ids) < 0)
		return -1;
	if (ids->count > before)
		remember(slot, word, bytes, ids->id + before, ids->count - before);
	return 0;
}

/* Where the next piece begins behind the start of a word: its end where it is not cut. */
static size_t next_cut(const struct bpe *bpe, const char *word, size_t bytes)
{
	for (size_t at = 1; at < bytes;) {
		const char *mark = memchr(word + at, SPACE_MARK[0], bytes - at);
		size_t size;

		if (!mark)
			return bytes;
		at = (size_t)(mark - word);
		if (bytes - at >= 3 && memcmp(mark, SPACE_MARK, 3) == 0) {
			uint32_t c = utf8_last(word, at, &size);
			if (!(bpe->joined[c / 8] >> c % 8 & 1))
				return at;
		}
		at++;
	}
	return bytes;
}

int bpe_encode(struct bpe *bpe, const char *word, size_t bytes, struct ids *ids)
{
	if (!bpe->joined)
		return encode_piece(bpe, word, bytes, ids);
	for (size_t at = 0, size; at < bytes; at += size) {
		size = next_cut(bpe, word + at, bytes - at);
		if (encode_piece(bpe, word + at, size, ids) < 0)
			return -1;
	}
	return 0;
}
