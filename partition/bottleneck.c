/*
 * bottleneck.c - the shortest longest stage or link direction, whatever else a step takes: over sets of nodes, from the
 * last stage to the first.
 *
 * For a period T, reach[S][d] is the earliest block p such that blocks p.. run on the nodes of set S with d in front, no
 * stage and no link longer than T. An earlier p is never worse, so one number is enough. Memory is that of one
 * micro-batch in flight; where more of them have no room, and where cuts differ, the lattice decides instead, which
 * knows of counts. T is found by bisection: a plan that is found has a period of its own, so it ends.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "partition/lattice.h"
#include "partition/solvers.h"

#define BARELY 1e-9			/* below a period, by more than rounding */
#define CLOSE 1.001			/* ends of a bisection from which on the upper one is tried to be beaten */
enum { NOWHERE = 255, BLOCKS_MOST = 250, BISECTIONS = 200 };
#define REACH_MOST ((uint64_t)1 << 29)	/* bytes */

struct reach {
	const struct instance *in;
	const struct classes *classes;
	uint8_t *least;			/* [sets][classes]: p, or NOWHERE */
	uint8_t *begin;			/* [classes][blocks + 2]: of the longest stage that ends before p; of the last one */
	bool *linked;			/* [classes][classes]: from, to */
	int *used, *most;		/* members of a set; blocks of a member */
};

/* -- one period ---------------------------------------------------------------------------- */

static bool stage_allowed(const struct instance *in, int node, int q, int p, bool last, double period_s)
{
	return stage_s(in, node, q, p, last) <= period_s && stage_room(in, node, q, p, last) > 0;
}

static void fill_class(struct reach *r, int k, double period_s)
{
	const struct instance *in = r->in;
	int node = r->classes->member[r->classes->begin[k]], i, j;
	uint8_t *begin = r->begin + (size_t)k * ((size_t)in->blocks + 2);

	r->most[k] = 0;
	for (int p = 0; p <= in->blocks + 1; p++) {
		bool last = p > in->blocks;
		int end = p - last, q = end - !(last && in->head_alone && in->nodes > 1);

		begin[p] = NOWHERE;
		for (; q >= 0 && stage_allowed(in, node, q, end, last, period_s); q--)
			begin[p] = (uint8_t)q;
		if (begin[p] != NOWHERE && end - begin[p] > r->most[k])
			r->most[k] = end - begin[p];
	}
	for (int to = 0; to < r->classes->count; to++)
		r->linked[k * r->classes->count + to] =
			classes_link(r->classes, k, to, &i, &j) && cut_longest_s(in, i, j, 1) <= period_s;
}

/* Whether the members that are left could hold the blocks before p at all. */
static bool may_hold(struct reach *r, uint64_t set, int p)
{
	const struct classes *c = r->classes;

	for (int k = 0; k < c->count; k++)
		r->used[k] = (int)(set / c->radix[k] % (uint64_t)(c->size[k] + 1));
	for (int k = 0; k < c->count && p > 0; k++)
		p -= (c->size[k] - r->used[k]) * r->most[k];
	return p <= 0;
}

static void extend(struct reach *r, uint64_t set, int d, int p)
{
	const struct classes *c = r->classes;
	size_t row = (size_t)r->in->blocks + 2;

	for (int e = 0; e < c->count; e++) {
		uint8_t begin, *least;

		if (r->used[e] == c->size[e] || !r->linked[e * c->count + d])
			continue;
		begin = r->begin[(size_t)e * row + (size_t)p];
		least = r->least + (set + c->radix[e]) * (uint64_t)c->count + (uint64_t)e;
		if (begin < *least)
			*least = begin;
	}
}

/* The first stages of the plan that reached block 0 with class d in front, then what each of them came from. */
static void place(const struct reach *r, uint64_t set, int d, struct placement *at)
{
	const struct classes *c = r->classes;
	int taken[PLAN_STAGES_MAX] = {0}, p = 0;

	at->stages = 0;
	for (;;) {
		bool found = false;

		at->node[at->stages] = c->member[c->begin[d] + taken[d]++];
		at->first[at->stages++] = p;
		set -= c->radix[d];
		for (int e = 0; e < c->count && set > 0 && !found; e++) {
			int next = r->least[set * (uint64_t)c->count + (uint64_t)e];

			if (next == NOWHERE || !r->linked[d * c->count + e] ||
			    r->begin[(size_t)d * ((size_t)r->in->blocks + 2) + (size_t)next] != p)
				continue;
			found = true;
			p = next;
			d = e;
		}
		if (!found)
			break;
	}
	at->first[at->stages] = r->in->blocks;
}

static bool reach_period(struct reach *r, double period_s, struct placement *at)
{
	const struct classes *c = r->classes;
	size_t row = (size_t)r->in->blocks + 2;

	for (int k = 0; k < c->count; k++)
		fill_class(r, k, period_s);
	memset(r->least, NOWHERE, c->sets * (uint64_t)c->count);
	for (int k = 0; k < c->count; k++)
		r->least[c->radix[k] * (uint64_t)c->count + (uint64_t)k] = r->begin[(size_t)(k + 1) * row - 1];
	for (uint64_t set = 1; set < c->sets; set++)
		for (int d = 0; d < c->count; d++) {
			int p = r->least[set * (uint64_t)c->count + (uint64_t)d];

			if (p == 0) {
				place(r, set, d, at);
				return true;
			}
			if (p != NOWHERE && may_hold(r, set, p))
				extend(r, set, d, p);
		}
	return false;
}

/* -- the least ----------------------------------------------------------------------------- */

struct bisection {
	struct lattice *lattice;
	struct reach *reach;		/* or null: the lattice decides */
	const struct instance *in;
	struct placement best;
};

/* Whether a period can be kept; a shorter one that the plan has, if it can. */
static bool try_period(struct bisection *b, double *period_s)
{
	struct lattice_want want = {.period_s = *period_s, .below_s = INFINITY, .labels_most = SIZE_MAX};
	struct lattice_found found;

	if (b->reach && !reach_period(b->reach, *period_s, &found.placement))
		return false;
	if (b->reach) {
		model_step(b->in, &found.placement);
		*period_s = fmin(*period_s, placement_longest_s(b->in, &found.placement));
	} else {
		lattice_search(b->lattice, &want, &found);
		if (!found.found)
			return false;
		*period_s = fmin(*period_s, found.placement.period_s);
	}
	b->best = found.placement;
	return true;
}

/* From a period below which there is nothing; false: there is no plan at all. */
static bool bisect(struct bisection *b, double low_s, double endless_s)
{
	double high_s = low_s * CLOSE;

	while (!try_period(b, &high_s)) {
		if (high_s > endless_s)
			return false;
		low_s = high_s;
		high_s *= 2;
	}
	for (int i = 0; i < BISECTIONS; i++) {
		bool close = high_s < low_s * CLOSE;
		double mid_s = close ? high_s * (1 - BARELY) : (low_s + high_s) / 2;

		if (try_period(b, &mid_s))
			high_s = mid_s;
		else if (close)
			return true;
		else
			low_s = mid_s;
	}
	return true;
}

/* With reach alone, where it can be had and is enough. */
static bool solve_by_reach(struct bisection *b, double low_s, double endless_s, bool *enough)
{
	const struct classes *c = lattice_classes(b->lattice);
	struct arena arena = {0};
	size_t count = (size_t)c->count, row = (size_t)b->in->blocks + 2;
	struct reach reach = {.in = b->in, .classes = c};
	bool any;

	reach.least = xalloc(c->sets * (uint64_t)c->count);
	reach.begin = arena_take(&arena, count * row);
	reach.linked = arena_take(&arena, count * count * sizeof(bool));
	reach.used = arena_take(&arena, count * sizeof(int));
	reach.most = arena_take(&arena, count * sizeof(int));
	b->reach = &reach;
	any = bisect(b, low_s, endless_s);
	*enough = !any || b->best.period_s <= placement_longest_s(b->in, &b->best) * (1 + BARELY);
	b->reach = NULL;
	free(reach.least);
	arena_release(&arena);
	return any;
}

double bottleneck_search(const struct instance *in, struct pool *pool)
{
	struct bisection b = {.lattice = lattice_open(in), .in = in};
	const struct classes *c = lattice_classes(b.lattice);
	double low_s, endless_s;
	bool any = false, enough = false;

	lattice_periods(b.lattice, INFINITY, &low_s, &endless_s);
	if (lattice_one_cut(b.lattice) && !in->stages && in->blocks <= BLOCKS_MOST &&
	    c->sets < REACH_MOST / (uint64_t)c->count)
		any = solve_by_reach(&b, low_s, endless_s, &enough);
	if (!enough)
		any = bisect(&b, any ? placement_longest_s(in, &b.best) * (1 - BARELY) : low_s, endless_s);
	pool_release(pool);
	if (any)
		pool_add(pool, &b.best);
	lattice_close(b.lattice);
	return 0;
}
