/* classes.c - which nodes may be exchanged for each other. */
#include <string.h>

#include "partition/lattice.h"

#define SETS_MOST ((uint64_t)1 << 40)

static bool same_times(const struct instance *in, int a, int b)
{
	size_t row = (size_t)in->blocks + 1, bytes = row * sizeof(double);

	return in->memory_bytes[a] == in->memory_bytes[b] &&
	       in->first_forward_s[a] == in->first_forward_s[b] &&
	       in->first_backward_s[a] == in->first_backward_s[b] &&
	       in->last_forward_s[a] == in->last_forward_s[b] &&
	       in->last_backward_s[a] == in->last_backward_s[b] &&
	       !memcmp(in->forward_s + (size_t)a * row, in->forward_s + (size_t)b * row,
		       bytes) &&
	       !memcmp(in->backward_s + (size_t)a * row, in->backward_s + (size_t)b * row,
		       bytes);
}

/* Whether the link from a to b equals the link from c to d. */
static bool same_link(const struct instance *in, int a, int b, int c, int d)
{
	size_t x = (size_t)a * (size_t)in->nodes + (size_t)b,
	       y = (size_t)c * (size_t)in->nodes + (size_t)d;

	return in->link_forward_s[x] == in->link_forward_s[y] &&
	       in->link_backward_s[x] == in->link_backward_s[y] &&
	       in->latency_forward_s[x] == in->latency_forward_s[y] &&
	       in->latency_backward_s[x] == in->latency_backward_s[y];
}

static bool same_links(const struct instance *in, int a, int b)
{
	if (!same_link(in, a, b, b, a))
		return false;
	for (int k = 0; k < in->nodes; k++)
		if (k != a && k != b &&
		    (!same_link(in, a, k, b, k) || !same_link(in, k, a, k, b)))
			return false;
	return true;
}

/* With the first member alone: being exchangeable is transitive, and then all inner links are
 * alike. */
static int class_of(const struct instance *in, const int *first, int count, int node)
{
	for (int c = 0; c < count; c++)
		if (same_times(in, first[c], node) && same_links(in, first[c], node))
			return c;
	return count;
}

/* Where there are too many sets, a random number for each class: two sets with the same sum are
 * then unlikely enough for a search that proves nothing. */
static void number_sets(struct classes *c)
{
	c->sets = 1;
	for (int i = 0; i < c->count && c->sets < UINT64_MAX; i++) {
		c->radix[i] = c->sets;
		if (c->sets > SETS_MOST / (uint64_t)(c->size[i] + 1))
			c->sets = UINT64_MAX;
		else
			c->sets *= (uint64_t)c->size[i] + 1;
	}
	for (int i = 0; i < c->count && c->sets == UINT64_MAX; i++) {
		struct philox word = philox((struct philox){{(uint32_t)i, 0, 0, 0}}, 0, 0);

		c->radix[i] = (uint64_t)word.word[0] << 32 | word.word[1];
	}
}

void classes_find(struct arena *arena, const struct instance *in, struct classes *c)
{
	size_t n = (size_t)in->nodes;
	int *own = arena_take(arena, n * sizeof(int)),
	    *first = arena_take(arena, n * sizeof(int)), at = 0;

	c->count = 0;
	c->size = arena_take(arena, n * sizeof(int));
	c->begin = arena_take(arena, n * sizeof(int));
	c->member = arena_take(arena, n * sizeof(int));
	c->radix = arena_take(arena, n * sizeof(uint64_t));
	for (int d = 0; d < in->nodes; d++) {
		own[d] = class_of(in, first, c->count, d);
		if (own[d] == c->count)
			first[c->count++] = d;
		c->size[own[d]]++;
	}
	for (int k = 0; k < c->count; k++) {
		c->begin[k] = at;
		for (int d = 0; d < in->nodes; d++)
			if (own[d] == k)
				c->member[at++] = d;
	}
	number_sets(c);
}

bool classes_link(const struct classes *c, int from, int to, int *i, int *j)
{
	*i = c->member[c->begin[from]];
	*j = c->member[c->begin[to]];
	if (from != to)
		return true;
	*j = c->size[to] > 1 ? c->member[c->begin[to] + 1] : *i;
	return c->size[to] > 1;
}
