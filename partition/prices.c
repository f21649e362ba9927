/*
 * prices.c - a lower bound of J for any number of nodes: over intervals [a, b] of periods no
 * plan has less than the cheapest walk with limits of b, plus (M - 1) a. Prices on nodes that
 * the walk comes back to make it a better one (walk.c); they begin as what the knapsack
 * (rest.c) would give for one more member of a class, and move by subgradients: up where there
 * are many visits, down where there is none. The interval that may hide the least is worked on
 * next: it is cut in half where its ends are what is wrong, and its nodes that no better plan
 * uses are left out.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "partition/lattice.h"
#include "partition/solvers.h"
#include "partition/walk.h"

#define SAME 1e-10			/* of two sums that rounding may tell apart */
#define WIDE 1.04			/* ends of an interval to begin with */
#define SHORTEST 1e-6 /* of the longest period: shorter ones are one interval */
/* After a step that was good, and one that was not: what of a direction goes into the next one,
 * and how much longer that is. */
#define OLD_GOOD 0.3
#define OLD_BAD 0.7
#define LONGER 1.5
#define SHORTER 0.5
#define BEGIN 0.3			/* length of the first step */
#define TOO_LITTLE 5e-4			/* of J: less is no progress */
#define NARROW 2e-3 /* of J: that the ends of an interval are apart, at M - 1 times */
enum { STEPS = 5, STEPS_WIDE = 2, STALLS_MOST = 2 };
#define WORK_MOST ((size_t)3000000000u)

/* Periods, and what stages and ways cost there at least; with the best prices so far, as far as
 * by walks. */
struct span {
	double low_s, high_s, ways_s, priced_s;
	/* of the next step, of one that would reach what is wanted */
	double length;
	int stalls;			/* how often in a row it got nowhere */
	double *price;			/* [nodes] */
	/* [blocks + 1][nodes]: no better plan has a stage there */
	uint8_t *dead;
};

struct prices {
	const struct instance *in;
	struct arena arena;
	struct classes classes;
	struct rest rest;
	struct walk walk;
	struct groups *groups;
	double best_s;
	struct span *span;
	int count, room;
	double *direction;		/* [nodes], of the walk's: where prices move to */
};

static double times(const struct prices *b)
{
	return b->in->micro_batches - 1;
}

static double least_of(const struct prices *b, const struct span *s)
{
	return s->ways_s + times(b) * s->low_s;
}

/* What stages and ways of a better plan cost less than. */
static double most_of(const struct prices *b, const struct span *s)
{
	return b->best_s - times(b) * s->low_s;
}

static void drop(struct span *s)
{
	free(s->price);
	free(s->dead);
}

static void push(struct prices *b, struct span s)
{
	if (least_of(b, &s) >= b->best_s * (1 - SAME)) {
		drop(&s);
		return;
	}
	if (b->count == b->room) {
		b->room = 2 * b->room + 16;
		b->span = xrealloc(b->span, (size_t)b->room * sizeof(s));
	}
	b->span[b->count++] = s;
}

static int least_span(const struct prices *b)
{
	int least = 0;

	for (int i = 1; i < b->count; i++)
		if (least_of(b, &b->span[i]) < least_of(b, &b->span[least]))
			least = i;
	return least;
}

/* What one more member of a class would save in the knapsack. */
static void begin_prices(struct prices *b, double period_s, double *price)
{
	const struct classes *c = &b->classes;
	struct rest *rest = &b->rest;
	double left = rest->work[b->in->blocks], marginal = 0;

	rest_limit(rest, b->in, c, period_s, period_s, REST_BUT_LAST);
	for (int i = 0; i < c->count && left > 0; i++) {
		int k = rest->order[i];

		left -= c->size[k] * rest->capacity[k];
		marginal = rest->capacity[k] > 0 ? rest->cost[k] : marginal;
	}
	for (int k = 0; k < c->count; k++)
		for (int m = 0; m < c->size[k]; m++)
			price[c->member[c->begin[k] + m]] =
			    rest->capacity[k] > 0
				? fmax(0, rest->capacity[k] * (marginal - rest->cost[k]))
				: 0;
}

/* -- one interval -------------------------------------------------------------------------- */

/* Cheapest walk at the prices that the walk has; whether it is the interval's best bound, which
 * is kept. */
static bool look(struct prices *b, struct span *s)
{
	double ways_s = walk_least(&b->walk, most_of(b, s));

	if (ways_s <= s->priced_s)
		return false;
	s->priced_s = ways_s;
	s->ways_s = fmax(s->ways_s, ways_s);
	for (int i = 0; i < b->walk.count; i++)
		s->price[b->walk.node[i]] = b->walk.price[i];
	return true;
}

/* Leaves out what no better plan uses. */
static void kill(struct prices *b, struct span *s)
{
	size_t n = (size_t)b->in->nodes, at = 0;

	walk_kill(&b->walk, most_of(b, s));
	for (int p = 0; p <= b->in->blocks; p++)
		for (int i = 0; i < b->walk.count; i++)
			s->dead[(size_t)p * n + (size_t)b->walk.node[i]] = b->walk.dead[at++];
	walk_limit(&b->walk, s->high_s, s->high_s, s->price, s->dead);
}

/* A step from the best prices, of the length that would just reach what is wanted if bounds
 * went on as they begin. */
static void move_prices(struct prices *b, const struct span *s, double reach_s)
{
	struct walk *w = &b->walk;
	double square = 0;

	for (int i = 0; i < w->count; i++)
		square += b->direction[i] * b->direction[i];
	for (int i = 0; i < w->count; i++)
		w->price[i] =
		    fmax(0, s->price[w->node[i]] +
				(square > 0 ? reach_s / square * b->direction[i] : 0));
}

/* Where the walks at hand point to: up where nodes are visited more than once, down where they
 * cost and are not. */
static void turn(struct prices *b, double old)
{
	const struct walk *w = &b->walk;

	for (int i = 0; i < w->count; i++) {
		double up = w->price[i] > 0 || w->visits[i] > 1 ? w->visits[i] - 1 : 0;

		b->direction[i] = up + old * (b->direction[i] - up);
	}
}

/* Works on an interval. */
static void work(struct prices *b, struct span *s, int steps)
{
	double before_s = s->ways_s, most_s = most_of(b, s);

	walk_limit(&b->walk, s->high_s, s->high_s, s->price, s->dead);
	s->priced_s = -INFINITY;
	look(b, s);
	if (s->ways_s >= most_s)
		return;
	kill(b, s);
	s->priced_s = walk_least(&b->walk, most_s);
	s->ways_s = fmax(s->ways_s, s->priced_s);
	turn(b, 0);
	for (int i = 0; i < steps && s->ways_s < most_s; i++) {
		bool better;

		move_prices(b, s, (most_s - s->priced_s) * s->length);
		better = look(b, s);
		turn(b, better ? OLD_GOOD : OLD_BAD);
		s->length = fmin(1, s->length * (better ? LONGER : SHORTER));
	}
	s->stalls = s->ways_s < before_s + TOO_LITTLE * b->best_s ? s->stalls + 1 : 0;
}

/* Takes over what an interval holds. */
static void split(struct prices *b, const struct span *s)
{
	size_t n = (size_t)b->in->nodes, states = n * ((size_t)b->in->blocks + 1);
	struct span lower = *s, upper = *s;

	lower.high_s = upper.low_s = (s->low_s + s->high_s) / 2;
	lower.ways_s = fmax(s->ways_s, groups_least(b->groups, lower.high_s));
	lower.price = memcpy(xalloc(n * sizeof(double)), s->price, n * sizeof(double));
	lower.dead = memcpy(xalloc(states), s->dead, states);
	push(b, lower);
	push(b, upper);
}

/* -- all ----------------------------------------------------------------------------------- */

/* Intervals that the cheap bounds do not settle. */
static void begin_spans(struct prices *b)
{
	struct lattice *lattice = lattice_open(b->in);
	size_t n = (size_t)b->in->nodes, states = n * ((size_t)b->in->blocks + 1);
	double low_s, high_s, next_s;

	lattice_periods(lattice, b->best_s, &low_s, &high_s);
	if (times(b) == 0)
		low_s = high_s;
	for (; low_s <= high_s; low_s = next_s) {
		struct span s = {.low_s = low_s, .high_s = high_s, .length = BEGIN};

		next_s = fmax(low_s * WIDE, high_s * SHORTEST);
		s.high_s = fmin(high_s, next_s);
		s.ways_s = lattice_least(lattice, s.high_s, s.high_s);
		if (s.ways_s < most_of(b, &s))
			s.ways_s = fmax(s.ways_s, groups_least(b->groups, s.high_s));
		if (s.ways_s >= most_of(b, &s))
			continue;
		s.price = xzalloc(n, sizeof(double));
		s.dead = xzalloc(states, 1);
		begin_prices(b, s.high_s, s.price);
		push(b, s);
	}
	lattice_close(lattice);
}

/* The interval that may hide the least, until that is settled, or too hard. */
static void work_all(struct prices *b)
{
	while (b->count > 0 && b->walk.work < WORK_MOST) {
		int i = least_span(b);
		struct span s = b->span[i];
		double width_s = times(b) * (s.high_s - s.low_s);
		bool wide = width_s > (b->best_s - least_of(b, &s)) / 3,
		     narrow = width_s < NARROW * b->best_s;

		if (narrow && s.stalls >= STALLS_MOST)
			return;
		b->span[i] = b->span[--b->count];
		if (narrow || s.stalls == 0)
			work(b, &s, wide ? STEPS_WIDE : STEPS);
		if (!narrow && (wide || s.stalls > 0))
			split(b, &s);
		else
			push(b, s);
	}
}

double priced_least(const struct instance *in, double best_s)
{
	struct prices b = {.in = in, .best_s = best_s};
	double least_s;

	classes_find(&b.arena, in, &b.classes);
	rest_open(&b.arena, in, &b.classes, &b.rest);
	walk_open(&b.walk, in);
	b.groups = groups_open(in);
	b.direction = arena_take(&b.arena, (size_t)in->nodes * sizeof(double));
	begin_spans(&b);
	work_all(&b);
	least_s = b.count > 0 ? fmin(best_s, least_of(&b, &b.span[least_span(&b)]) * (1 - SAME))
			      : best_s;
	while (b.count > 0)
		drop(&b.span[--b.count]);
	free(b.span);
	groups_close(b.groups);
	walk_close(&b.walk);
	arena_release(&b.arena);
	return least_s;
}
