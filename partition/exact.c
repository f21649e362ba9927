/*
 * exact.c - minimises J over all plans, and proves it; likewise the bound B.4.
 *
 * J = V + (M - 1) T. V(T), the least sum of stages and ways among plans that fit period T,
 * falls with T: over periods of an interval [a, b] no plan has less than V(b) + (M - 1) a. One
 * pass over the lattice finds V(b), or that V(b) + (M - 1) a is no better than the best J
 * known. A pass that finds a plan leaves less: its own period and everything above is settled,
 * and so are periods at which V(b) alone makes J too large. What is left is cut in half.
 *
 * The bound B.4 of a plan is the larger of V + (M - 1) X, with X its longest forward, backward
 * or direction of a link, and of Up_k + M tau_k for every stage k, where Up_k is the way of a
 * micro-batch to the stage and of its gradient home. It is minimised alike, over intervals of
 * X.
 */
#include <math.h>
#include <stdlib.h>

#include "partition/lattice.h"
#include "partition/solvers.h"

#define SAME 1e-10			/* of two sums that rounding may tell apart */
#define WIDE 1.02			/* ends of an interval that is worth a pass */
#define NARROW 1.002 /* without passes: ends of an interval that halves say no more of */
enum {
	LABELS_MOST = 1 << 22,
	LABELS_ALL = 1 << 25,
	BOUND_LABELS = 1 << 22,
	SPLITS_MOST = 4000,
	HALVINGS = 20
};

/* Periods (X for the bound); V(high) at least; what a plan with such a period has at least. */
struct interval { double low_s, high_s, least_s, value_s; };

struct proof {
	struct lattice *lattice;
	const struct instance *in;
	bool bound;
	/* by the relaxation alone: too many sets for a pass that proves anything */
	bool relaxed;
	struct pool *pool;		/* by J alone */
	double best_s;
	struct interval *open;
	int count, room;
	double given_up_s;		/* least that an interval without a proof may hide */
	size_t labels;
};

static double least_of(const struct proof *proof, const struct interval *i)
{
	return fmax(i->value_s, i->least_s + (proof->in->micro_batches - 1) * i->low_s);
}

static void push(struct proof *proof, struct interval i)
{
	if (i.high_s < i.low_s || isinf(i.least_s) ||
	    least_of(proof, &i) >= proof->best_s * (1 - SAME))
		return;
	if (proof->count == proof->room) {
		proof->room = 2 * proof->room + 16;
		proof->open = xrealloc(proof->open, (size_t)proof->room * sizeof(i));
	}
	proof->open[proof->count++] = i;
}

/* The open interval that may hide the least. */
static struct interval pop(struct proof *proof)
{
	int best = 0;
	struct interval i;

	for (int k = 1; k < proof->count; k++)
		if (least_of(proof, &proof->open[k]) < least_of(proof, &proof->open[best]))
			best = k;
	i = proof->open[best];
	proof->open[best] = proof->open[--proof->count];
	return i;
}

/* No stage of a plan below best has a longer tau than this, where its forward, backward and
 * links take no longer. */
static double stage_most(const struct proof *proof, double period_s)
{
	return proof->bound ? fmin(2 * period_s, proof->best_s / proof->in->micro_batches)
			    : period_s;
}

/* What a plan with such an X has at least, by both parts of the bound: a longer stage makes V
 * less and M tau more. */
static double value_least(struct proof *proof, const struct interval *i)
{
	double times = proof->in->micro_batches - 1, low_s = 0, high_s = proof->best_s;
	/* the last stage's part is V + (M - 1) tau */
	double period_s = fmax(i->low_s, lattice_last(proof->lattice));

	if (!proof->bound || isinf(high_s))
		return i->value_s;
	for (int step = 0; step < HALVINGS; step++) {
		double mid_s = (low_s + high_s) / 2;
		double stage_most_s = fmin(2 * i->high_s, mid_s / proof->in->micro_batches);

		if (lattice_least(proof->lattice, stage_most_s, i->high_s) + times * period_s >
		    mid_s)
			low_s = mid_s;
		else
			high_s = mid_s;
	}
	return fmax(i->value_s, low_s);
}

/* A wide interval in two: passes over narrow ones end sooner, since more is known of the
 * period. */
static void split(struct proof *proof, const struct interval *i)
{
	double mid_s = sqrt(i->low_s * i->high_s);
	struct interval lower = *i, upper = *i;

	lower.high_s = upper.low_s = mid_s;
	lower.least_s =
	    fmax(i->least_s, lattice_least(proof->lattice, stage_most(proof, mid_s), mid_s));
	lower.value_s = value_least(proof, &lower);
	upper.value_s = value_least(proof, &upper);
	push(proof, lower);
	push(proof, upper);
}

/* X of a placement. */
static double longest_part(const struct instance *in, const struct placement *at)
{
	double longest_s = 0;

	for (int s = 0; s < at->stages; s++) {
		bool last = s == at->stages - 1;

		longest_s = fmax(longest_s, stage_forward_s(in, at->node[s], at->first[s],
							    at->first[s + 1], last));
		longest_s = fmax(longest_s, stage_backward_s(in, at->node[s], at->first[s],
							     at->first[s + 1], last));
		if (s > 0)
			longest_s = fmax(longest_s, cut_longest_s(in, at->node[s - 1],
								  at->node[s], at->first[s]));
	}
	return longest_s;
}

/* Takes what a pass found; the period of that plan. */
static double take(struct proof *proof, const struct lattice_want *want,
		   struct lattice_found *found)
{
	double times = proof->in->micro_batches - 1, part_s;

	if (!proof->bound) {
		pool_add(proof->pool, &found->placement);
		proof->best_s = pool_best(proof->pool);
		return found->placement.period_s;
	}
	part_s = longest_part(proof->in, &found->placement);
	/* What the pass reckoned with its interval's lower end, with the plan's own X
	 * instead. */
	proof->best_s =
	    fmin(proof->best_s,
		 fmax(found->value_s,
		      found->sum_s + times * fmax(part_s, want->base_s / fmax(times, 1))));
	return part_s;
}

static void settle(struct proof *proof, const struct interval *i)
{
	double times = proof->in->micro_batches - 1, period_s;
	struct interval lower, upper;
	struct lattice_want want = {
		.bound = proof->bound,
		.period_s = i->high_s,
		.base_s = times * i->low_s,
		.below_s = proof->best_s * (1 - SAME),
		.labels_most = proof->bound ? BOUND_LABELS : LABELS_MOST,
	};
	struct lattice_found found;

	lattice_search(proof->lattice, &want, &found);
	proof->labels += found.labels;
	period_s = found.found ? take(proof, &want, &found) : 0;
	if (!found.complete) {
		proof->given_up_s = fmin(proof->given_up_s, least_of(proof, i));
		return;
	}
	if (!found.found || times == 0)
		return;
	lower = upper = *i;
	if (proof->bound) {
		/* The best by both parts together: it says nothing of V alone. */
		lower.value_s = upper.value_s = found.value_s;
	} else {
		lower.least_s = upper.least_s = found.sum_s;
		upper.high_s = fmin(i->high_s, period_s * (1 - SAME));
	}
	upper.high_s = fmin(upper.high_s, (proof->best_s - upper.least_s) / times);
	lower.high_s = upper.low_s = (i->low_s + upper.high_s) / 2;
	push(proof, lower);
	push(proof, upper);
}

/* Settles intervals until none is left that could hide less; what is proved. */
static double settle_all(struct proof *proof)
{
	for (int splits = 0; proof->count > 0; splits++) {
		struct interval i = pop(proof);
		bool wide = i.high_s > i.low_s * (proof->relaxed ? NARROW : WIDE) &&
			    !isinf(proof->best_s);

		if (least_of(proof, &i) >= proof->best_s * (1 - SAME))
			break;
		if (proof->labels > (proof->bound ? BOUND_LABELS : LABELS_ALL) ||
		    splits > SPLITS_MOST || (proof->relaxed && !wide)) {
			proof->given_up_s = fmin(proof->given_up_s, least_of(proof, &i));
			break;
		}
		if (wide)
			split(proof, &i);
		else
			settle(proof, &i);
	}
	return fmin(proof->best_s, proof->given_up_s);
}

double exact_solve(const struct instance *in, struct pool *pool)
{
	struct proof proof = {.lattice = lattice_open(in),
			      .in = in,
			      .pool = pool,
			      .best_s = pool_best(pool),
			      .given_up_s = INFINITY};
	struct interval all = {0};
	double proved_s;

	lattice_periods(proof.lattice, proof.best_s, &all.low_s, &all.high_s);
	all.least_s = lattice_least(proof.lattice, all.high_s, all.high_s);
	push(&proof, all);
	proved_s = settle_all(&proof);
	lattice_close(proof.lattice);
	free(proof.open);
	return proved_s;
}

double exact_search(const struct instance *in, struct pool *pool)
{
	search_solve(in, pool);
	return exact_solve(in, pool);
}

double least_bound(const struct instance *in, const struct pool *pool)
{
	struct proof proof = {.lattice = lattice_open(in),
			      .in = in,
			      .bound = true,
			      .best_s = INFINITY,
			      .given_up_s = INFINITY};
	struct interval all = {0};
	double proved_s;

	proof.relaxed = lattice_classes(proof.lattice)->sets == UINT64_MAX;
	for (int i = 0; i < pool->count; i++)
		proof.best_s = fmin(proof.best_s, placement_bound(in, &pool->item[i]));
	lattice_periods(proof.lattice, proof.best_s, &all.low_s, &all.high_s);
	all.low_s /= 2;
	all.least_s = lattice_least(proof.lattice, stage_most(&proof, all.high_s), all.high_s);
	push(&proof, all);
	proved_s = settle_all(&proof);
	lattice_close(proof.lattice);
	free(proof.open);
	return proved_s;
}
