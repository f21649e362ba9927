/*
 * model/merge.c - the merges of one word: that of the leftmost pair of least rank again and again.
 *
 * The symbols of a word are a linked list; the neighbours that can be merged wait in a heap ordered
 * by rank, then place. A merge leaves stale entries behind, which are dropped when they come up.
 *
 * A long word is merged block by block, in time that grows with its length. What makes that exact:
 * as long as no merge crosses a place, its two sides do not know of each other, and of two tokens
 * side by side nothing else decides whether a merge crosses between them. So tokens are those of
 * the whole word if every two neighbours, merged alone, are the same two. The last tokens before a
 * block are merged again with it, more of them until that holds.
 */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define SHORT 32   /* symbols: up to here looking for the least rank is faster than the heap */
#define BLOCK 2048 /* symbols: what a merge needs of them stays in the cache */
#define BACK 4	   /* tokens before a block that are merged again, at first */
#define WORK_MOST 8 /* times a word may be merged again before it is done as one block */

struct symbol {
	int32_t id;	       /* -1: merged into the one before */
	int32_t before, after; /* indexes, -1 at the ends */
};

/* A pair that can be merged: the symbol at left and the one after it. */
struct candidate {
	int32_t rank, left;
};

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

void bpe_join(struct bpe *bpe, int left, int right, int both, int rank)
{
	*merge_slot(bpe, left, right) = (struct merge){left, right, rank, both};
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

	if (!merge)
		return;
	if (*count == bpe->candidates) {
		bpe->candidates = 2 * bpe->candidates + 64;
		bpe->heap = xrealloc(bpe->heap, bpe->candidates * sizeof *bpe->heap);
	}
	heap_push(bpe->heap, count, (struct candidate){merge->rank, left});
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

/* The rank of the pair at i, INT32_MAX: it is not merged. */
static int32_t rank_at(const struct bpe *bpe, int32_t i)
{
	const struct merge *merge = merge_slot(bpe, bpe->symbol[i].id, bpe->symbol[i + 1].id);

	return merge->left < 0 ? INT32_MAX : merge->rank;
}

/* Merges the symbols of a short word; how many are left, which stand at the start. */
static int32_t merge_short(struct bpe *bpe, int32_t count)
{
	struct symbol *symbol = bpe->symbol;
	int32_t rank[SHORT + 1];

	for (int32_t i = 0; i + 1 < count; i++)
		rank[i] = rank_at(bpe, i);
	while (count > 1) {
		int32_t least = 0;

		for (int32_t i = 1; i + 1 < count; i++) {
			if (rank[i] < rank[least])
				least = i;
		}
		if (rank[least] == INT32_MAX)
			break;
		symbol[least].id = merge_slot(bpe, symbol[least].id, symbol[least + 1].id)->id;
		count--;
		for (int32_t i = least + 1; i < count; i++) {
			symbol[i].id = symbol[i + 1].id;
			rank[i - 1] = rank[i];
		}
		if (least + 1 < count)
			rank[least] = rank_at(bpe, least);
		if (least > 0)
			rank[least - 1] = rank_at(bpe, least - 1);
	}
	return count;
}

/* -- words --------------------------------------------------------------------------------- */

static void put_short(struct bpe *bpe, int32_t count, struct ids *ids)
{
	for (int32_t i = 0; i < count; i++)
		bpe->symbol[i].id = bpe->first[i];
	int32_t left = merge_short(bpe, count);
	int32_t *id = ids_take(ids, (size_t)left);

	for (int32_t i = 0; i < left; i++)
		id[i] = bpe->symbol[i].id;
}

static void need_symbols(struct bpe *bpe, size_t count)
{
	if (count <= bpe->symbols)
		return;
	bpe->symbols = count + count / 2;
	free(bpe->symbol);
	bpe->symbol = xalloc(bpe->symbols * sizeof *bpe->symbol);
}

/* Merges a part of a word; what is left is the list that begins at bpe->symbol[0]. */
static void merge_part(struct bpe *bpe, int32_t from, int32_t to)
{
	int32_t count = to - from;

	need_symbols(bpe, (size_t)count);
	for (int32_t i = 0; i < count; i++)
		bpe->symbol[i] = (struct symbol){bpe->first[from + i], i - 1,
						 i + 1 < count ? i + 1 : -1};
	merge_all(bpe, count);
}

/* A word of which the first tokens are there: their ids and where each begins. */
struct done {
	struct ids *ids;
	size_t base, count; /* base: ids before this word */
};

/* Puts the tokens of a part behind those that are kept. */
static void put_part(struct bpe *bpe, struct done *done, size_t keep, int32_t from, int32_t to)
{
	size_t most = keep + (size_t)(to - from);

	merge_part(bpe, from, to);
	if (most > bpe->starts) {
		bpe->starts = most + most / 2;
		bpe->start = xrealloc(bpe->start, bpe->starts * sizeof *bpe->start);
	}
	done->count = keep;
	done->ids->count = done->base + keep;
	for (int32_t i = 0; i >= 0; i = bpe->symbol[i].after) {
		*ids_take(done->ids, 1) = bpe->symbol[i].id;
		bpe->start[done->count++] = from + i;
	}
}

/* Whether the tokens before and behind a border, merged alone, are these two. */
static bool holds(struct bpe *bpe, const struct done *done, size_t border, int32_t end)
{
	int32_t from = bpe->start[border - 1], middle = bpe->start[border] - from;

	merge_part(bpe, from, border + 1 < done->count ? bpe->start[border + 1] : end);
	return bpe->symbol[0].after == middle && bpe->symbol[middle].after < 0;
}

static void put_long(struct bpe *bpe, int32_t count, struct ids *ids)
{
	struct done done = {.ids = ids, .base = ids->count};
	size_t work = 0;

	for (int32_t at = 0, end; at < count; at = end) {
		size_t back = BACK, keep = done.count > back ? done.count - back : 0;

		end = count - at > BLOCK ? at + BLOCK : count;
		for (;;) {
			work += (size_t)(end - (keep ? bpe->start[keep] : 0));
			if (work / WORK_MOST > (size_t)count) {
				keep = 0;
				end = count;
			}
			put_part(bpe, &done, keep, keep ? bpe->start[keep] : 0, end);
			if (keep == 0 || holds(bpe, &done, keep, end))
				break;
			keep = keep > back ? keep - back : 0;
			back *= 2;
		}
	}
}

void bpe_merge(struct bpe *bpe, int32_t count, struct ids *ids)
{
	need_symbols(bpe, SHORT);
	if (count > SHORT)
		put_long(bpe, count, ids);
	else if (count > 0)
		put_short(bpe, count, ids);
}
