/*
 * search.c - good plans without a proof: the lattice with a beam, one pass for each of a row of
 * periods. Short periods ask for many stages and long ones for few; J is least somewhere
 * between, so the row is coarse at first and then fine around the best.
 */
#include <math.h>

#include "partition/lattice.h"
#include "partition/solvers.h"

enum {
	LENGTHS = 3,
	CHOICES_MOST = 192,
	WORK = 20000,
	BEAM_LEAST = 24,
	BEAM_MOST = 3000,
	LABELS_MOST = 1 << 23
};
#define COARSE 1.2
#define FINE 1.04

static double try_period(struct lattice *lattice, const struct instance *in, double period_s,
			 struct pool *pool)
{
	int choices = in->nodes < CHOICES_MOST ? in->nodes : CHOICES_MOST,
	    beam = WORK / choices / LENGTHS;
	struct lattice_want want = {
		.period_s = period_s,
		.below_s = INFINITY,
		.labels_most = LABELS_MOST,
		.beam = beam < BEAM_LEAST ? BEAM_LEAST : beam > BEAM_MOST ? BEAM_MOST : beam,
		.choices = choices,
		.lengths = LENGTHS,
		.pool = pool,
	};
	struct lattice_found found;

	lattice_search(lattice, &want, &found);
	if (!found.found)
		return INFINITY;
	return found.placement.model_s;
}

/* From high to low, as long as something fits; the period of the best. */
static double sweep(struct lattice *lattice, const struct instance *in, double high_s,
		    double low_s, double ratio, struct pool *pool)
{
	double best_s = INFINITY, best_period_s = high_s;

	for (double period_s = high_s; period_s >= low_s; period_s /= ratio) {
		double step_s;

		if (lattice_least(lattice, period_s, period_s) +
			(in->micro_batches - 1) * low_s >=
		    pool_best(pool))
			continue;
		step_s = try_period(lattice, in, period_s, pool);
		if (step_s < best_s) {
			best_s = step_s;
			best_period_s = period_s;
		}
	}
	return best_period_s;
}

/* Any plan at all, so that the row of periods has an end: every node alone, and whatever fits
 * the longest period. */
static void begin(struct lattice *lattice, const struct instance *in, struct pool *pool)
{
	double low_s, high_s;

	for (int d = 0; d < in->nodes; d++) {
		struct placement alone = {.stages = 1, .node = {d}, .first = {0, in->blocks}};

		if (!placement_valid(in, &alone))
			continue;
		model_step(in, &alone);
		pool_add(pool, &alone);
	}
	lattice_periods(lattice, INFINITY, &low_s, &high_s);
	if (isinf(pool_best(pool)))
		try_period(lattice, in, high_s, pool);
}

void search_solve(const struct instance *in, struct pool *pool)
{
	struct lattice *lattice = lattice_open(in);
	double low_s, high_s, best_s;

	begin(lattice, in, pool);
	lattice_periods(lattice, pool_best(pool), &low_s, &high_s);
	best_s = sweep(lattice, in, high_s, low_s, COARSE, pool);
	lattice_periods(lattice, pool_best(pool), &low_s, &high_s);
	sweep(lattice, in, fmin(high_s, best_s * COARSE), fmax(low_s, best_s / COARSE), FINE,
	      pool);
	lattice_close(lattice);
}

double quick_solve(const struct instance *in, struct pool *pool)
{
	return isinf(pool_best(pool)) ? 0 : priced_least(in, pool_best(pool));
}

double quick_search(const struct instance *in, struct pool *pool)
{
	search_solve(in, pool);
	return quick_solve(in, pool);
}
