/*
 * model/added.c - added tokens in a text: the leftmost, of those the longest.
 *
 * The tokens are sorted; a search narrows the range of those that begin with the bytes so far. It
 * takes time in the length of the token, not in their number.
 */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

static int compare(const struct added *a, const struct added *b)
{
	size_t bytes = a->bytes < b->bytes ? a->bytes : b->bytes;
	int order = memcmp(a->find, b->find, bytes);

	if (order != 0)
		return order;
	if (a->bytes != b->bytes)
		return a->bytes < b->bytes ? -1 : 1;
	/* Two that are the same once normalized: special ones first, then in the order of the
	 * file. */
	if (a->special != b->special)
		return a->special ? -1 : 1;
	return a->order < b->order ? -1 : 1;
}

static int compare_places(const void *a, const void *b)
{
	return compare(*(struct added *const *)a, *(struct added *const *)b);
}

struct added *added_take(struct added_tokens *tokens)
{
	if (tokens->count == tokens->room) {
		tokens->room = tokens->room ? 2 * tokens->room : 16;
		tokens->added = xrealloc(tokens->added,
					 (size_t)tokens->room * sizeof *tokens->added);
	}
	tokens->added[tokens->count] = (struct added){.order = tokens->count};
	return &tokens->added[tokens->count++];
}

void added_ready(struct added_tokens *tokens)
{
	for (int group = 0; group < 2; group++) {
		struct added **sorted = xalloc((size_t)tokens->count * sizeof *sorted);
		int count = 0;

		for (int i = 0; i < tokens->count; i++) {
			if (tokens->added[i].normalized == (bool)group &&
			    tokens->added[i].bytes > 0)
				sorted[count++] = &tokens->added[i];
		}
		qsort(sorted, (size_t)count, sizeof(struct added *), compare_places);
		tokens->sorted[group] = sorted;
		tokens->sorted_count[group] = count;
		for (int i = 0; i < count; i++)
			tokens->begins[group][(uint8_t)sorted[i]->find[0]] = true;
	}
}

void added_release(struct added_tokens *tokens)
{
	for (int i = 0; i < tokens->count; i++)
		free(tokens->added[i].find);
	free(tokens->added);
	free(tokens->sorted[0]);
	free(tokens->sorted[1]);
	*tokens = (struct added_tokens){0};
}

/* The first of sorted[low..high) whose byte at a depth is at least this one. */
static int bound(struct added *const *sorted, int low, int high, size_t depth, int byte)
{
	while (low < high) {
		int middle = low + (high - low) / 2;
		const struct added *added = sorted[middle];
		int other = depth < added->bytes ? (uint8_t)added->find[depth] : -1;

		if (other < byte)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The longest token of a group that a text begins with, null: none. */
static const struct added *longest_at(const struct added_tokens *tokens, bool normalized,
				      const char *text, size_t bytes)
{
	struct added *const *sorted = tokens->sorted[normalized];
	const struct added *longest = NULL;
	int low = 0, high = tokens->sorted_count[normalized];

	for (size_t depth = 0; low < high; depth++) {
		if (sorted[low]->bytes == depth)
			longest = sorted[low];
		if (depth == bytes)
			break;
		int byte = (uint8_t)text[depth];
		low = bound(sorted, low, high, depth, byte);
		high = bound(sorted, low, high, depth, byte + 1);
	}
	return longest;
}

/* Whether a match stands alone, with no letters or digits at its sides. */
static bool is_single(const char *text, size_t bytes, size_t start, size_t end)
{
	size_t size;

	return (start == 0 || !utf8_is_word(utf8_last(text, start, &size))) &&
	       (end == bytes || !utf8_is_word(utf8_at(text + end, &size)));
}

/* Takes the spaces behind a match; a run of them is looked through once, however many matches
 * begin in it. */
static void take_right(const char *text, size_t bytes, struct added_match *match)
{
	size_t size;

	if (match->end < match->space || match->end > match->space_end) {
		match->space = match->space_end = match->end;
		while (match->space_end < bytes &&
		       utf8_is_space(utf8_at(text + match->space_end, &size)))
			match->space_end += size;
	}
	match->end = match->space_end;
}

/* Takes the spaces at the sides that a token asks for, but none that the last match took. */
static void take_spaces(const struct added *added, const char *text, size_t bytes,
			struct added_match *match)
{
	size_t size;

	if (added->left) {
		while (match->start > match->done &&
		       utf8_is_space(utf8_last(text, match->start, &size)))
			match->start -= size;
		if (match->start < match->done)
			match->start = match->done;
	}
	if (added->right)
		take_right(text, bytes, match);
}

/* A token that does not count (special ones where none are asked for, one that must be a single
 * word and is none) is passed over whole, as in Hugging Face's. */
int added_next(const struct added_tokens *tokens, bool normalized, bool special,
	       const char *text, size_t bytes, struct added_match *match)
{
	const bool *begins = tokens->begins[normalized];

	if (tokens->sorted_count[normalized] == 0)
		return 0;
	while (match->next < bytes) {
		const struct added *added = NULL;

		while (match->next < bytes && !begins[(uint8_t)text[match->next]])
			match->next++;
		if (match->next < bytes)
			added = longest_at(tokens, normalized, text + match->next,
					   bytes - match->next);
		if (!added) {
			match->next++;
			continue;
		}
		match->start = match->next;
		match->end = match->next += added->bytes;
		if ((added->special && !special) ||
		    (added->single_word && !is_single(text, bytes, match->start, match->end)))
			continue;
		take_spaces(added, text, bytes, match);
		match->id = added->id;
		return 1;
	}
	return 0;
}
