/*
 * model/bpe.c - byte-pair encoding of one word (Sennrich et al. 2016, on bytes as in GPT-2).
 *
 * The symbols of a word are a linked list; the neighbours that can be merged wait in a heap
 * ordered by rank, then place. A merge leaves stale entries behind, which are dropped when they
 * come up: n log n for a word of n bytes, whatever is in it. The result is that of merging the
 * leftmost pair of least rank again and again. Most words are short and come again: those are
 * looked up in a cache that has one line of memory per word and forgets on collision.
 */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define WORD_BYTES 21
#define WORD_IDS 10
#define WORDS ((size_t)1 << 15)

struct word {
	uint8_t used, bytes, count;
	char text[WORD_BYTES];
	int32_t id[WORD_IDS];
};
_Static_assert(sizeof(struct word) == 64, "a word is one cache line");

struct merge {
	int32_t left, right; /* left < 0: a free slot */
	int32_t rank, id;    /* id: the two joined */
};

struct symbol {
	int32_t id;	       /* -1: merged into the one before */
	int32_t before, after; /* indexes, -1 at the ends */
};

/* A pair that can be merged: the symbol at left and the one after it. */
struct candidate {
	int32_t rank, left;
};

void bpe_open(struct bpe *bpe, const struct vocabulary *vocabulary, size_t merges)
{
	for (int i = 0; i < 256; i++) {
		char spelling[SPELLING_BYTES];
		size_t bytes = spelling_of((uint8_t)i, spelling);

		bpe->byte[i] = vocabulary_find(vocabulary, spelling, bytes);
	}
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
	free(bpe->symbol);
	free(bpe->heap);
	*bpe = (struct bpe){0};
}

/* The slot of a pair, or the free one where it belongs. */
static struct merge *merge_slot(const struct bpe *bpe, int32_t left, int32_t right)
{
	uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
	size_t mask = bpe->merges - 1;

	key = (key ^ key >> 29) * 0x9e3779b97f4a7c15u;
	for (size_t i = key >> 32;; i++) {
		struct merge *merge = &bpe->merge[i & mask];

		if (merge->left < 0 || (merge->left == left && merge->right == right))
			return merge;
	}
}

static int joined(const struct vocabulary *vocabulary, const char *left, size_t left_bytes,
		  const char *right, size_t right_bytes)
{
	struct text text = {0};

	text_put(&text, left, left_bytes);
	text_put(&text, right, right_bytes);
	int id = vocabulary_find(vocabulary, text.data, text.bytes);
	text_release(&text);
	return id;
}

bool bpe_add(struct bpe *bpe, const struct vocabulary *vocabulary, const char *left,
	     size_t left_bytes, const char *right, size_t right_bytes, int rank)
{
	int a = vocabulary_find(vocabulary, left, left_bytes);
	int b = vocabulary_find(vocabulary, right, right_bytes);
	int ab = joined(vocabulary, left, left_bytes, right, right_bytes);

	if (a < 0 || b < 0 || ab < 0)
		return false;
	*merge_slot(bpe, a, b) = (struct merge){a, b, rank, ab};
	return true;
}

static bool comes_first(struct candidate a, struct candidate b)
{
	return a.rank != b.rank ? a.rank < b.rank : a.left < b.left;
}

static void heap_push(struct candidate *heap, size_t *count, struct candidate one)
{
	size_t i = (*count)++;

	for (; i > 0 && comes_first(one, heap[(i - 1) / 2]); i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = one;
}

static struct candidate heap_pop(struct candidate *heap, size_t *count)
{
	struct candidate first = heap[0], last = heap[--*count];
	size_t i = 0;

	for (size_t child = 1; child < *count; child = 2 * i + 1) {
		if (child + 1 < *count && comes_first(heap[child + 1], heap[child]))
			child++;
		if (!comes_first(heap[child], last))
			break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = last;
	return first;
}

/* The merge of the symbol at left with the one after it, null: none. */
static const struct merge *merge_at(const struct bpe *bpe, int32_t left)
{
	const struct symbol *symbol = &bpe->symbol[left];

	if (symbol->id < 0 || symbol->after < 0)
		return NULL;
	const struct merge *merge = merge_slot(bpe, symbol->id, bpe->symbol[symbol->after].id);
	return merge->left < 0 ? NULL : merge;
}

static void offer(struct bpe *bpe, size_t *count, int32_t left)
{
	const struct merge *merge = merge_at(bpe, left);

	if (merge)
		heap_push(bpe->heap, count, (struct candidate){merge->rank, left});
}

/*
 * Room for a word of n symbols. The heap starts with at most n - 1 candidates; each merge takes
 * one out and offers at most two, and there are at most n - 1 merges.
 */
static void grow_scratch(struct bpe *bpe, size_t bytes)
{
	if (bytes <= bpe->symbols)
		return;
	free(bpe->symbol);
	free(bpe->heap);
	bpe->symbols = bytes < 64 ? 64 : bytes;
	bpe->symbol = xalloc(bpe->symbols * sizeof *bpe->symbol);
	bpe->heap = xalloc(2 * bpe->symbols * sizeof *bpe->heap);
}

static void merge_all(struct bpe *bpe, int32_t symbols)
{
	size_t count = 0;

	for (int32_t i = 0; i < symbols; i++)
		offer(bpe, &count, i);
	while (count > 0) {
		struct candidate one = heap_pop(bpe->heap, &count);
		const struct merge *merge = merge_at(bpe, one.left);

		if (!merge || merge->rank != one.rank)
			continue;
		struct symbol *left = &bpe->symbol[one.left];
		struct symbol *right = &bpe->symbol[left->after];

		left->id = merge->id;
		left->after = right->after;
		right->id = -1;
		if (left->after >= 0)
			bpe->symbol[left->after].before = one.left;
		offer(bpe, &count, one.left);
		if (left->before >= 0)
			offer(bpe, &count, left->before);
	}
}

static int encode_new(struct bpe *bpe, const char *word, size_t bytes, struct ids *ids)
{
	int32_t last = (int32_t)bytes - 1;

	if (bytes > INT32_MAX / 2)
		return error(EXIT_DATA, "a word of %zu bytes is too long to tokenise", bytes);
	grow_scratch(bpe, bytes);
	for (int32_t i = 0; i <= last; i++) {
		int32_t id = bpe->byte[(uint8_t)word[i]];

		if (id < 0)
			return error(EXIT_DATA, "the tokenizer has no token for byte 0x%02X",
				     (uint8_t)word[i]);
		bpe->symbol[i] = (struct symbol){id, i - 1, i < last ? i + 1 : -1};
	}
	merge_all(bpe, last + 1);
	for (int32_t i = 0; i >= 0; i = bpe->symbol[i].after)
		*ids_take(ids, 1) = bpe->symbol[i].id;
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

int bpe_encode(struct bpe *bpe, const char *word, size_t bytes, struct ids *ids)
{
	size_t before = ids->count;

	if (bytes > WORD_BYTES)
		return encode_new(bpe, word, bytes, ids);
	struct word *slot = &bpe->word[digest_of(word, bytes).low & (WORDS - 1)];
	if (slot->used && slot->bytes == bytes && memcmp(slot->text, word, bytes) == 0) {
		memcpy(ids_take(ids, slot->count), slot->id, slot->count * sizeof *slot->id);
		return 0;
	}
	if (encode_new(bpe, word, bytes, ids) < 0)
		return -1;
	remember(slot, word, bytes, ids->id + before, ids->count - before);
	return 0;
}
