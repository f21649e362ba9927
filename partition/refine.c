/*
 * refine.c - the shortest step by simulation, from plans that are good by J.
 *
 * J is approximate, so its best plan is not always the best one; but a plan that is, is near
 * one of J's best. All of the pool are simulated, then whatever is one change away from the
 * best of them, as long as that helps. What the bound B.4 rules out is not simulated.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "partition/solvers.h"

#define WORTH 2e-4			/* what a change must save, as a share of the step */
#define SLACK 1.1			/* a start may be so much longer than the best one */
enum { STARTS = 3, SIMULATIONS_MOST = 400 };	/* the latter for each start */

struct climb {
	const struct instance *in;
	struct placement best;
	double best_s;
	int simulations;
};

/* Takes a neighbour where it is better. */
static bool better(struct climb *c, const struct placement *at)
{
	double step_s;

	if (!placement_valid(c->in, at) || c->simulations >= SIMULATIONS_MOST ||
	    placement_bound(c->in, at) >= c->best_s * (1 - WORTH))
		return false;
	c->simulations++;
	step_s = placement_simulate(c->in, at);
	if (step_s >= c->best_s * (1 - WORTH))
		return false;
	c->best = *at;
	c->best_s = step_s;
	return true;
}

static bool uses(const struct placement *at, int node)
{
	for (int s = 0; s < at->stages; s++)
		if (at->node[s] == node)
			return true;
	return false;
}

/* A block across one cut, or across two, so that it moves from a stage to the next but one. */
static bool shift(struct climb *c)
{
	for (int s = 1; s < c->best.stages; s++)
		for (int t = s; t < c->best.stages && t < s + 2; t++)
			for (int by = -1; by <= 1; by += 2) {
				struct placement at = c->best;

				for (int k = s; k <= t; k++)
					at.first[k] += by;
				if (better(c, &at))
					return true;
			}
	return false;
}

static bool swap(struct climb *c)
{
	for (int i = 0; i < c->best.stages; i++)
		for (int j = i + 1; j < c->best.stages; j++) {
			struct placement at = c->best;

			at.node[i] = c->best.node[j];
			at.node[j] = c->best.node[i];
			if (better(c, &at))
				return true;
		}
	return false;
}

/* Another node in the place of one. */
static bool replace(struct climb *c)
{
	for (int d = 0; d < c->in->nodes; d++)
		for (int i = 0; i < c->best.stages && !uses(&c->best, d); i++) {
			struct placement at = c->best;

			at.node[i] = d;
			if (better(c, &at))
				return true;
		}
	return false;
}

/* Without a stage: its blocks go to the one before or after. */
static bool leave_out(struct climb *c)
{
	for (int i = 0; i < c->best.stages && c->best.stages > 1; i++)
		for (int down = 0; down < 2; down++) {
			struct placement at = c->best;
			int from = i + (down || i == 0);

			memmove(at.node + i, at.node + i + 1,
				(size_t)(at.stages - i - 1) * sizeof(int));
			memmove(at.first + from, at.first + from + 1,
				(size_t)(at.stages - from) * sizeof(int));
			at.stages--;
			at.first[0] = 0;
			if (better(c, &at))
				return true;
		}
	return false;
}

/* Makes room for a node before stage i (i == stages: at the end), with a block of the stage
 * before or after. */
static void insert(struct placement *at, int node, int i, bool from_next)
{
	memmove(at->node + i + 1, at->node + i, (size_t)(at->stages - i) * sizeof(int));
	memmove(at->first + i + 1, at->first + i, (size_t)(at->stages - i + 1) * sizeof(int));
	at->node[i] = node;
	at->stages++;
	if (from_next)
		at->first[i + 1]++;
	else
		at->first[i]--;
}

/* A node more, before stage i of a placement. */
static bool take_in_at(struct climb *c, const struct placement *from, int node, int i)
{
	for (int next = 0; next < 2; next++) {
		struct placement at = *from;

		/* At an end there is one neighbour; after the last also the head alone. */
		if ((next && i == from->stages) || (!next && i == 0))
			continue;
		insert(&at, node, i, next);
		if (better(c, &at))
			return true;
		if (i < from->stages || !c->in->head_alone)
			continue;
		at.first[i] = c->in->blocks;
		if (better(c, &at))
			return true;
	}
	return false;
}

static bool take_in(struct climb *c)
{
	const struct placement from = c->best;

	for (int d = 0; d < c->in->nodes && from.stages < PLAN_STAGES_MAX; d++)
		for (int i = 0; i <= from.stages && !uses(&from, d); i++)
			if (take_in_at(c, &from, d, i))
				return true;
	return false;
}

static void climb(struct climb *c)
{
	bool (*const change[])(struct climb *) = {shift, swap, replace, leave_out, take_in};
	bool any = true;

	while (any && c->simulations < SIMULATIONS_MOST) {
		any = false;
		for (size_t i = 0; i < sizeof change / sizeof *change && !any; i++)
			any = change[i](c);
	}
}

/* Simulates the pool, in J's order; step_s of each, INFINITY where the bound rules it out. */
static void rank(const struct instance *in, const struct pool *pool, double *step_s)
{
	double best_s = INFINITY;

	for (int i = 0; i < pool->count; i++) {
		step_s[i] = INFINITY;
		if (placement_bound(in, &pool->item[i]) >= best_s * SLACK)
			continue;
		step_s[i] = placement_simulate(in, &pool->item[i]);
		best_s = fmin(best_s, step_s[i]);
	}
}

double refine_solve(const struct instance *in, const struct pool *pool, struct placement *best)
{
	double step_s[POOL_MOST], best_s = INFINITY;

	rank(in, pool, step_s);
	for (int start = 0; start < STARTS; start++) {
		struct climb c = {.in = in, .best_s = INFINITY};
		int from = -1;

		for (int i = 0; i < pool->count; i++)
			if (step_s[i] < c.best_s) {
				c.best_s = step_s[i];
				from = i;
			}
		if (from < 0)
			break;
		c.best = pool->item[from];
		step_s[from] = INFINITY;
		climb(&c);
		if (c.best_s >= best_s)
			continue;
		best_s = c.best_s;
		*best = c.best;
	}
	if (!isinf(best_s))
		model_step(in, best);
	return best_s;
}

double refine_with(const struct instance *in, const struct placement *placement, int node)
{
	double least_s = INFINITY;

	if (placement->stages == PLAN_STAGES_MAX)
		return INFINITY;
	for (int i = 0; i <= placement->stages; i++) {
		struct climb c = {.in = in, .best_s = INFINITY};

		take_in_at(&c, placement, node, i);
		while (!isinf(c.best_s) && shift(&c))
			;
		least_s = fmin(least_s, c.best_s);
	}
	return least_s;
}
