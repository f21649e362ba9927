/*
 * bottleneck.c - the shortest longest stage or link direction, whatever else a step takes: over
 * sets of nodes, from the last stage to the first.
 *
 * For a period T, reach[S][d] is the earliest block p such that blocks p.. run on the nodes of
 * set S with d in front, no stage and no link longer than T. An earlier p is never worse, so
 * one number is enough: a class that can take some block but not an earlier one may be passed
 * with no block at all, and where such a plan turns up, the lattice decides. So it does where
 * more than one micro-batch in flight has no room, and where cuts differ: it knows of counts. A
 * set whose blocks before p are more than all the other nodes could hold is dead. T is found by
 * bisection, from a plan of a narrow beam down: a plan that is found has a period of its own,
 * so it ends.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "partition/lattice.h"
#include "partition/solvers.h"

#define BARELY 1e-9			/* below a period, by more than rounding */
#define CLOSE 1.001 /* ends of a bisection from which on the upper one is tried to be beaten */
enum { NOWHERE = 255, BLOCKS_MOST = 250, BISECTIONS = 200, ROW = 32, WORD = sizeof(uint64_t) };
enum { BEAM = 100, BEAM_LENGTHS = 2, BEAM_TRIES = 8 };
#define REACH_MOST ((uint64_t)1 << 29)	/* bytes */

struct reach {
	const struct instance *in;
	const struct classes *classes;
	size_t width;			/* classes, up to whole words */
	uint8_t *least;			/* [sets][width]: p, or NOWHERE */
	/* [classes][blocks + 2]: of the longest stage that ends before p; of the last one */
	uint8_t *begin;
	/* [classes][from]: NOWHERE where a class has no link to this one, else 0 */
	uint8_t (*apart)[ROW];
	int *used, *most;		/* members of the set at hand; blocks of a member */
	/* blocks that all the members outside the set can hold */
	int left;
	/* a plan had an empty stage: what was decided need not be true */
	bool gaps;
};

/* -- one period ---------------------------------------------------------------------------- */

static bool stage_allowed(const struct instance *in, int node, int q, int p, bool last,
			  double period_s)
{
	return stage_s(in, node, q, p, last) <= period_s &&
	       stage_room(in, node, q, p, last) > 0;
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
	/* Nothing ends before p, but before a later block: an empty stage may, so that an
	 * earlier p stays no worse. */
	for (int p = in->blocks - 1, later = begin[in->blocks]; p > 0; p--) {
		if (begin[p] == NOWHERE && later != NOWHERE)
			begin[p] = (uint8_t)p;
		later = begin[p];
	}
	for (int to = 0; to < r->classes->count; to++)
		r->apart[to][k] = classes_link(r->classes, k, to, &i, &j) &&
					  cut_longest_s(in, i, j, 1) <= period_s
				      ? 0
				      : NOWHERE;
}

/* The first stages of the plan that reached block 0 with class d in front, then what each of
 * them came from. */
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
			int next = r->least[set * r->width + (uint64_t)e];

			if (next == NOWHERE || r->apart[e][d] ||
			    r->begin[(size_t)d * ((size_t)r->in->blocks + 2) + (size_t)next] !=
				p)
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

/* Counts on to the next set. */
static void next_set(struct reach *r)
{
	const struct classes *c = r->classes;

	for (int k = 0; k < c->count; k++) {
		if (r->used[k] < c->size[k]) {
			r->used[k]++;
			r->left -= r->most[k];
			return;
		}
		r->left += r->used[k] * r->most[k];
		r->used[k] = 0;
	}
}

static bool dead(const struct reach *r, const uint8_t *least)
{
	for (size_t at = 0; at < r->width; at += WORD) {
		uint64_t word;

		memcpy(&word, least + at, WORD);
		if (word != UINT64_MAX)
			return false;
	}
	return true;
}

/* Puts every class before the set, at the earliest block that it may end before; the class that
 * reached block 0 with the set behind it, -1: none. */
static int extend(struct reach *r, uint64_t set)
{
	const struct classes *c = r->classes;
	const uint8_t *least = r->least + set * r->width;
	uint8_t end[ROW];

	memset(end, NOWHERE, sizeof(end));
	for (int d = 0; d < c->count; d++) {
		if (least[d] == NOWHERE)
			continue;
		for (int e = 0; e < ROW; e++) {
			uint8_t p = least[d] | r->apart[d][e];

			end[e] = p < end[e] ? p : end[e];
		}
	}
	for (int e = 0; e < c->count; e++) {
		uint8_t begin;

		if (end[e] == NOWHERE || r->used[e] == c->size[e])
			continue;
		begin = r->begin[(size_t)e * ((size_t)r->in->blocks + 2) + end[e]];
		if (begin == NOWHERE || begin > r->left - r->most[e])
			continue;
		r->least[(set + c->radix[e]) * r->width + (uint64_t)e] = begin;
		if (begin == 0)
			return e;
	}
	return -1;
}

static bool reach_period(struct reach *r, double period_s, struct placement *at)
{
	const struct classes *c = r->classes;
	size_t row = (size_t)r->in->blocks + 2;

	memset(r->used, 0, (size_t)c->count * sizeof(int));
	r->left = 0;
	for (int k = 0; k < c->count; k++) {
		fill_class(r, k, period_s);
		r->left += c->size[k] * r->most[k];
	}
	memset(r->least, NOWHERE, c->sets * r->width);
	for (int k = 0; k < c->count; k++) {
		r->least[c->radix[k] * r->width + (uint64_t)k] =
		    r->begin[(size_t)(k + 1) * row - 1];
		if (r->begin[(size_t)(k + 1) * row - 1] == 0)
			return place(r, c->radix[k], k, at), true;
	}
	for (uint64_t set = 1; set < c->sets; set++) {
		int d;

		next_set(r);
		if (dead(r, r->least + set * r->width))
			continue;
		d = extend(r, set);
		if (d >= 0)
			return place(r, set + c->radix[d], d, at), true;
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
	struct lattice_want want = {
	    .period_s = *period_s, .below_s = INFINITY, .labels_most = SIZE_MAX};
	struct lattice_found found;

	if (b->reach && !reach_period(b->reach, *period_s, &found.placement))
		return false;
	if (b->reach && !placement_valid(b->in, &found.placement)) {
		b->reach->gaps = true;
		return false;
	}
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

/* A plan by a narrow beam, with as short a period as it finds: a bisection may begin there. */
static bool begin_by_beam(struct bisection *b, double low_s, double endless_s)
{
	struct lattice_want want = {.below_s = INFINITY,
				    .labels_most = SIZE_MAX,
				    .beam = BEAM,
				    .lengths = BEAM_LENGTHS};
	struct lattice_found found;
	double high_s = endless_s;
	bool any = false;

	low_s = fmax(low_s, endless_s * BARELY);
	want.choices = lattice_classes(b->lattice)->count;
	for (int i = 0; i < BEAM_TRIES || (!any && i < BISECTIONS); i++) {
		want.period_s = sqrt(low_s * high_s);
		lattice_search(b->lattice, &want, &found);
		if (!found.found) {
			low_s = want.period_s;
			if (low_s > high_s / CLOSE)
				break;
			continue;
		}
		any = true;
		b->best = found.placement;
		high_s = b->best.period_s;
	}
	return any;
}

/* From a period below which there is nothing; false: there is no plan at all. */
static bool bisect(struct bisection *b, double low_s, double endless_s)
{
	bool known = begin_by_beam(b, low_s, endless_s);
	double high_s = known ? b->best.period_s : low_s * CLOSE;

	while (!known && !try_period(b, &high_s)) {
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

	reach.width = (count + WORD - 1) / WORD * WORD;
	reach.least = xalloc(c->sets * reach.width);
	reach.begin = arena_take(&arena, count * row);
	reach.apart = arena_take(&arena, count * sizeof(*reach.apart));
	reach.used = arena_take(&arena, count * sizeof(int));
	reach.most = arena_take(&arena, count * sizeof(int));
	b->reach = &reach;
	any = bisect(b, low_s, endless_s);
	*enough =
	    !reach.gaps &&
	    (!any || b->best.period_s <= placement_longest_s(b->in, &b->best) * (1 + BARELY));
	b->reach = NULL;
	free(reach.least);
	arena_release(&arena);
	return any && !reach.gaps;
}

double bottleneck_search(const struct instance *in, struct pool *pool)
{
	struct bisection b = {.lattice = lattice_open(in), .in = in};
	const struct classes *c = lattice_classes(b.lattice);
	double low_s, endless_s;
	bool any = false, enough = false;

	lattice_periods(b.lattice, INFINITY, &low_s, &endless_s);
	if (lattice_one_cut(b.lattice) && !in->stages && in->blocks <= BLOCKS_MOST &&
	    c->count <= ROW && c->sets < REACH_MOST / (uint64_t)c->count)
		any = solve_by_reach(&b, low_s, endless_s, &enough);
	if (!enough)
		any = bisect(&b, any ? placement_longest_s(in, &b.best) * (1 - BARELY) : low_s,
			     endless_s);
	pool_release(pool);
	if (any)
		pool_add(pool, &b.best);
	lattice_close(b.lattice);
	return 0;
}
