/* rest.c - the relaxation that prunes: what is left to place costs at least so much. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "partition/lattice.h"

#define NOISE 1e-9

static double block_s(const struct instance *in, int node, int x)
{
	const double *f = in->forward_s + (size_t)node * ((size_t)in->blocks + 1);
	const double *b = in->backward_s + (size_t)node * ((size_t)in->blocks + 1);

	return f[x + 1] - f[x] + b[x + 1] - b[x];
}

/* Whether every node's blocks are one row of times, faster or slower. */
static bool one_shape(const struct instance *in, const struct classes *c)
{
	for (int k = 1; k < c->count; k++) {
		int a = c->member[0], b = c->member[c->begin[k]];

		if (block_s(in, a, 0) <= 0 || block_s(in, b, 0) <= 0)
			return false;
		for (int x = 1; x < in->blocks; x++) {
			double left = block_s(in, a, x) * block_s(in, b, 0);
			double right = block_s(in, b, x) * block_s(in, a, 0);

			if (fabs(left - right) > NOISE * fmax(left, right))
				return false;
		}
	}
	return true;
}

static bool all_alike(const struct instance *in, int node)
{
	for (int x = 1; x < in->blocks; x++)
		if (fabs(block_s(in, node, x) - block_s(in, node, 0)) >
		    NOISE * block_s(in, node, 0))
			return false;
	return true;
}

static double most_of(const double *value, int count)
{
	double most = 0;

	for (int i = 1; i <= count; i++)
		most = fmax(most, value[i]);
	return most;
}

static double least_of(const double *value, int count)
{
	double least = INFINITY;

	for (int i = 1; i <= count; i++)
		least = fmin(least, value[i]);
	return least;
}

static int by_length(const void *a, const void *b)
{
	const struct way_out *x = a, *y = b;

	if (x->longest_s != y->longest_s)
		return (x->longest_s > y->longest_s) - (x->longest_s < y->longest_s);
	return (x->way_s > y->way_s) - (x->way_s < y->way_s);
}

/* Ways out of a class over the smallest cut, from short to long links: those that are cheaper
 * than all shorter ones. */
static void find_ways(struct arena *arena, struct rest *rest, const struct instance *in,
		      const struct classes *c, int from)
{
	struct way_out *all = xalloc((size_t)c->count * sizeof(*all));
	int count = 0, kept = 0, i, j;

	for (int to = 0; to < c->count; to++) {
		size_t at;
		double forward, backward;

		if (!classes_link(c, from, to, &i, &j))
			continue;
		at = (size_t)i * (size_t)in->nodes + (size_t)j;
		forward = rest->cut_forward * in->link_forward_s[at];
		backward = rest->cut_backward * in->link_backward_s[at];
		all[count].longest_s = forward > backward ? forward : backward;
		all[count++].way_s =
		    forward + backward + in->latency_forward_s[at] + in->latency_backward_s[at];
	}
	qsort(all, (size_t)count, sizeof(*all), by_length);
	for (i = 0; i < count; i++)
		if (!isinf(all[i].way_s) && (kept == 0 || all[i].way_s < all[kept - 1].way_s))
			all[kept++] = all[i];
	rest->way_out[from] = arena_take(arena, (size_t)kept * sizeof(*all) + 1);
	rest->ways[from] = kept;
	memcpy(rest->way_out[from], all, (size_t)kept * sizeof(*all));
	free(all);
}

/* The cheapest way out of a class, over the smallest cut, within the limit. */
static double cheapest_way(const struct rest *rest, int from, double most_s)
{
	int low = 0, high = rest->ways[from];

	while (low < high) {
		int mid = (low + high) / 2;

		if (rest->way_out[from][mid].longest_s <= most_s)
			low = mid + 1;
		else
			high = mid;
	}
	return low > 0 ? rest->way_out[from][low - 1].way_s : INFINITY;
}

/* Whole blocks that one micro-batch's room lets a node hold, wherever in the chain. */
static double blocks_that_fit(const struct instance *in, int node)
{
	double each, room;

	if (in->need) {
		for (int b = in->blocks; b > 0; b--)
			if (stage_room(in, node, 1, 1 + b, false) ||
			    stage_room(in, node, 0, b, false) ||
			    stage_room(in, node, 1, 1 + b, true) ||
			    (b == in->blocks && stage_room(in, node, 0, b, true)))
				return b;
		return 0;
	}
	each = in->weights[1] - in->weights[0] + in->stored[1] - in->stored[0];
	room = in->memory_bytes[node] - in->stored_cut;
	return each <= 0 || isinf(room) ? INFINITY
	       : room < each		? 0
					: floor(room / each * (1 + NOISE));
}

/* Work of each block: its time on the first class; where shapes differ, on whichever class is
 * fastest there. */
void rest_open(struct arena *arena, const struct instance *in, const struct classes *c,
	       struct rest *rest)
{
	size_t count = (size_t)c->count;
	bool shape = one_shape(in, c);

	rest->classes = c->count;
	rest->blocks = in->blocks;
	rest->cut_forward = least_of(in->cut_forward, in->blocks);
	rest->cut_backward = least_of(in->cut_backward, in->blocks);
	rest->shape = shape;
	rest->whole = shape && all_alike(in, c->member[0]);
	rest->one_cut = rest->cut_forward == most_of(in->cut_forward, in->blocks) &&
			rest->cut_backward == most_of(in->cut_backward, in->blocks);
	rest->unit = arena_take(arena, count * sizeof(double));
	rest->order = arena_take(arena, count * sizeof(int));
	rest->capacity = arena_take(arena, count * sizeof(double));
	rest->cost = arena_take(arena, count * sizeof(double));
	rest->work = arena_take(arena, ((size_t)in->blocks + 1) * sizeof(double));
	for (int x = 0; x < in->blocks; x++) {
		double least = block_s(in, c->member[0], x);

		for (int k = 1; k < c->count && !shape; k++)
			least = fmin(least, block_s(in, c->member[c->begin[k]], x));
		rest->work[x + 1] = rest->work[x] + (rest->whole ? 1 : least);
	}
	rest->way_out = arena_take(arena, count * sizeof(*rest->way_out));
	rest->ways = arena_take(arena, count * sizeof(int));
	rest->fit = arena_take(arena, count * sizeof(double));
	for (int k = 0; k < c->count; k++) {
		rest->order[k] = k;
		rest->fit[k] = blocks_that_fit(in, c->member[c->begin[k]]);
		find_ways(arena, rest, in, c, k);
	}
}

void rest_limit(struct rest *rest, const struct instance *in, const struct classes *c,
		double stage_most_s, double link_most_s, enum rest_ways ways)
{
	rest->way_most_s = 0;
	for (int k = 0; k < c->count; k++) {
		int node = c->member[c->begin[k]];
		double unit = rest->whole ? block_s(in, node, 0)
			      : rest->shape
				  ? block_s(in, node, 0) / block_s(in, c->member[0], 0)
				  : 1;
		double capacity = stage_most_s / unit, way_s;

		rest->unit[k] = unit;
		if (rest->whole)
			capacity = fmin(floor(capacity * (1 + NOISE)), rest->fit[k]);
		capacity = fmin(capacity, rest->work[in->blocks]);
		rest->capacity[k] = capacity;
		way_s = ways == REST_NONE ? 0 : cheapest_way(rest, k, link_most_s);
		if (ways == REST_BUT_LAST && isinf(way_s))
			way_s = 0;
		if (!isinf(way_s))
			rest->way_most_s = fmax(rest->way_most_s, way_s);
		rest->cost[k] = capacity > 0 ? unit + way_s / capacity : INFINITY;
		if (isinf(rest->cost[k]))
			rest->capacity[k] = 0;
	}
	/* The order of the limits before is nearly the one of these. */
	for (int i = 1; i < c->count; i++) {
		int k = rest->order[i], at = i;

		for (; at > 0 && rest->cost[rest->order[at - 1]] > rest->cost[k]; at--)
			rest->order[at] = rest->order[at - 1];
		rest->order[at] = k;
	}
}

double rest_unit(const struct rest *rest, const struct classes *c, const int *used)
{
	double least = INFINITY;

	for (int k = 0; k < rest->classes; k++)
		if (used[k] < c->size[k] && rest->unit[k] < least)
			least = rest->unit[k];
	return least;
}

double rest_least(const struct rest *rest, const struct classes *c, const int *used, int q)
{
	double left = rest->work[q], least = 0;

	for (int i = 0; i < rest->classes && left > 0; i++) {
		int k = rest->order[i];
		double work = (c->size[k] - used[k]) * rest->capacity[k];

		if (work <= 0)
			continue;
		if (work > left)
			work = left;
		least += work * rest->cost[k];
		left -= work;
	}
	return left > NOISE * rest->work[rest->blocks] ? INFINITY : least;
}
