/*
 * check_exact - the solvers over instances against every placement of small ones: J, its proof, the bound over all plans,
 * the step by simulation.
 *
 * links: partition
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "partition/solvers.h"
#include "tests/instances.h"
#include "tests/suite.h"

enum { RANDOM = 500 / TIMES_LESS, TRAPS = 60, SIMULATED = 5 };
#define CLOSE 1e-9

/* What every placement of an instance says. */
struct truth {
	const struct instance *in;
	bool simulate;
	long count;
	double model_s, bound_s, step_s;
	long below;			/* placements that simulate below their own bound */
};

static void look(void *arg, const struct placement *placement)
{
	struct truth *t = arg;
	struct placement at = *placement;
	double step_s;

	t->count++;
	if (isinf(model_step(t->in, &at)))
		return;
	t->model_s = fmin(t->model_s, at.model_s);
	at.model_s = placement_bound(t->in, &at);
	t->bound_s = fmin(t->bound_s, at.model_s);
	/* Where there are few placements all are simulated, also those that cannot be the best by their bound. */
	if (!t->simulate || (at.model_s >= t->step_s && t->in->blocks > SIMULATED))
		return;
	step_s = placement_simulate(t->in, &at);
	t->below += step_s < at.model_s * (1 - CLOSE);
	t->step_s = fmin(t->step_s, step_s);
}

static struct truth truth_of(const struct instance *in, bool simulate)
{
	struct truth t = {.in = in, .simulate = simulate, .model_s = INFINITY, .bound_s = INFINITY,
			  .step_s = INFINITY};

	every_placement(in, look, &t);
	return t;
}

/* Sizes that a brute force can take, with a few large ones. */
static struct instance_want draw_want(struct draws *d)
{
	struct instance_want w = {.link_low_s = 0.05, .link_high_s = 3, .latency_s = 1};

	w.nodes = draw_int(d, 1, 6);
	w.blocks = draw_int(d, 1, 10);
	if (w.nodes > 4 && w.blocks > 6 && draw(d, 0, 1) < 0.9)
		w.blocks -= 5;
	w.micro_batches = draw_int(d, 1, 12);
	w.types = draw(d, 0, 1) < 0.3 ? draw_int(d, 1, 2) : 0;
	w.memory = draw(d, 0, 1) < 0.6;
	w.uneven = draw(d, 0, 1) < 0.3;
	w.unlinked = draw(d, 0, 1) < 0.3;
	return w;
}

static void equal(double got, double expected, uint32_t seed, const char *what)
{
	if (isinf(expected))
		ck_assert_msg(isinf(got), "seed %u: %s is %g where there is no plan", seed, what, got);
	else
		ck_assert_msg(fabs(got - expected) <= CLOSE * expected, "seed %u: %s is %.12g, not %.12g", seed, what,
			      got, expected);
}

/* Everything that is promised of one instance; how much longer than the best step the chosen one is, -1: no plan. */
static double check_instance(const struct instance *in, uint32_t seed)
{
	struct pool empty = {0}, pool = {0}, bottleneck = {0};
	struct truth t = truth_of(in, true);
	struct placement best;
	double proved_s = exact_solve(in, &empty), bound_s, step_s;

	equal(pool_best(&empty), t.model_s, seed, "J without plans to begin with");
	equal(proved_s, t.model_s, seed, "the proved J");
	ck_assert_msg(t.below == 0, "seed %u: %ld plans simulate below their bound", seed, t.below);
	proved_s = exact_search(in, &pool);
	equal(pool_best(&pool), t.model_s, seed, "J");
	equal(proved_s, t.model_s, seed, "the proved J after a search");
	bound_s = least_bound(in, &pool);
	step_s = refine_solve(in, &pool, &best);
	bottleneck_search(in, &bottleneck);
	ck_assert_msg(isinf(t.model_s) == isinf(pool_best(&bottleneck)), "seed %u: bottleneck", seed);
	if (!isinf(t.model_s)) {
		equal(bound_s, t.bound_s, seed, "the bound over all plans");
		ck_assert_msg(bound_s <= t.step_s * (1 + CLOSE), "seed %u: a plan takes %.12g, below the bound %.12g",
			      seed, t.step_s, bound_s);
		ck_assert_msg(placement_valid(in, &best), "seed %u: an invalid placement", seed);
		equal(placement_simulate(in, &best), step_s, seed, "the chosen step");
	}
	for (struct pool *p = &empty; p; p = p == &empty ? &pool : p == &pool ? &bottleneck : NULL)
		pool_release(p);
	return isinf(t.step_s) ? -1 : step_s / t.step_s - 1;
}

START_TEST(solvers_equal_brute_force)
{
	double sum = 0, worst = 0;
	int plans = 0, longer = 0;

	for (uint32_t seed = 1; seed <= RANDOM; seed++) {
		struct arena arena = {0};
		struct draws d = {seed, 0};
		struct instance_want w = draw_want(&d);
		double gap = check_instance(draw_instance(&arena, &d, &w), seed);

		arena_release(&arena);
		if (gap < 0)
			continue;
		plans++;
		sum += gap;
		worst = fmax(worst, gap);
		longer += gap > CLOSE;
	}
	printf("chosen by simulation over the best of all plans, %d instances (%d without any plan): mean %.3f %%, worst "
	       "%.2f %%, %d not the best\n", RANDOM, RANDOM - plans, 100 * sum / plans, 100 * worst, longer);
	ck_assert_msg(plans > RANDOM / 2, "%d plans", plans);
	ck_assert_msg(sum / plans < 0.02 && worst < 0.08, "mean %g, worst %g", sum / plans, worst);
}
END_TEST

/* -- the trap of in-flight counts ---------------------------------------------------------- */

/* Four nodes with room for a few in flight each, and links with a latency that is short or many stages long: how many must
 * be in flight hangs on which of them a plan takes. */
static struct instance *trap(struct arena *arena, struct draws *d)
{
	struct instance_want w = {.nodes = 4, .blocks = 4, .micro_batches = 12, .link_low_s = 0.05, .link_high_s = 0.2};
	struct instance *in = draw_instance(arena, d, &w);
	size_t n = 4;
	double *latency = take_doubles(arena, 16, 0), *limit = take_doubles(arena, n, INFINITY);
	double *weights = take_doubles(arena, 5, 0), *stored = take_doubles(arena, 5, 0);

	for (size_t at = 0; at < n * n; at++)
		latency[at] = draw(d, 0, 1) < 0.5 ? draw(d, 0, 1) : draw(d, 4, 12);
	for (size_t i = 0; i < n; i++)
		limit[i] = draw_int(d, 2, 9);
	for (size_t p = 1; p < 5; p++)
		stored[p] = (double)p;
	in->latency_forward_s = in->latency_backward_s = latency;
	in->memory_bytes = limit;
	in->weights = weights;
	in->stored = stored;
	in->stored_cut = in->first_stored = in->last_stored = in->first_weights = in->last_weights = 0;
	return in;
}

/* J if the count in flight were a function of the number of stages alone, at least 2 (S - i) - 1: the shortcut. */
struct shortcut { const struct instance *in; double model_s; };

static void look_short(void *arg, const struct placement *at)
{
	struct shortcut *s = arg;
	struct placement free = *at;
	struct instance roomy = *s->in;
	double limit[4] = {INFINITY, INFINITY, INFINITY, INFINITY};

	for (int i = 0; i < at->stages; i++) {
		int count = 2 * (at->stages - i) - 1;

		if (count > s->in->micro_batches)
			count = s->in->micro_batches;
		if (stage_room(s->in, at->node[i], at->first[i], at->first[i + 1],
			       i == at->stages - 1) < count)
			return;
	}
	roomy.memory_bytes = limit;
	s->model_s = fmin(s->model_s, model_step(&roomy, &free));
}

START_TEST(in_flight_is_no_function_of_stages)
{
	int caught = 0;

	for (uint32_t seed = 1; seed <= TRAPS; seed++) {
		struct arena arena = {0};
		struct draws d = {seed, 0};
		struct instance *in = trap(&arena, &d);
		struct shortcut s = {in, INFINITY};
		struct truth t = truth_of(in, false);

		check_instance(in, seed);
		every_placement(in, look_short, &s);
		caught += fabs(s.model_s - t.model_s) > CLOSE * t.model_s || isinf(s.model_s) != isinf(t.model_s);
		arena_release(&arena);
	}
	printf("the shortcut is wrong on %d of %d instances that were built for it\n", caught, TRAPS);
	ck_assert_int_ge(caught, TRAPS / 4);
}
END_TEST

/* -- the other solvers --------------------------------------------------------------------- */

struct longest { const struct instance *in; double period_s; };

static void look_long(void *arg, const struct placement *placement)
{
	struct longest *l = arg;
	struct placement at = *placement;

	model_step(l->in, &at);
	l->period_s = fmin(l->period_s, at.period_s);
}

/* Blocks that differ under cuts that are alike, and pairs without a link: there an earlier block is not always better. */
static void even_cuts(struct arena *arena, struct instance *in)
{
	in->cut_forward = in->cut_backward = take_doubles(arena, (size_t)in->blocks + 1, 1);
}

START_TEST(bottleneck_is_the_least)
{
	for (uint32_t seed = 1; seed <= 400 / TIMES_LESS; seed++) {
		struct arena arena = {0};
		struct draws d = {seed, 7};
		struct instance_want w = draw_want(&d);
		struct instance *in;
		struct longest l = {NULL, INFINITY};
		struct pool pool = {0};

		w.nodes = w.nodes > 4 ? 4 : w.nodes;
		w.uneven = w.unlinked = seed % 2;
		w.memory = seed % 3 == 0;
		l.in = in = draw_instance(&arena, &d, &w);
		if (seed % 2)
			even_cuts(&arena, in);
		every_placement(in, look_long, &l);
		bottleneck_search(in, &pool);
		if (isinf(l.period_s))
			ck_assert_int_eq(pool.count, 0);
		else
			ck_assert_msg(pool.count == 1 && pool.item[0].period_s <= l.period_s * (1 + 1e-8),
				      "seed %u: %.12g, not %.12g", seed, pool.count ? pool.item[0].period_s : 0,
				      l.period_s);
		pool_release(&pool);
		arena_release(&arena);
	}
}
END_TEST

START_TEST(stages_can_be_asked_for)
{
	for (uint32_t seed = 1; seed <= 100; seed++) {
		struct arena arena = {0};
		struct draws d = {seed, 9};
		struct instance_want w = draw_want(&d);
		struct instance *in;

		w.nodes = w.nodes > 4 ? 4 : w.nodes;
		in = draw_instance(&arena, &d, &w);
		in->stages = draw_int(&d, 1, w.nodes);
		check_instance(in, seed);
		arena_release(&arena);
	}
}
END_TEST

/* Nodes in groups of three: ways between them are so much dearer. */
static void part(struct arena *arena, struct instance *in, double dearer)
{
	size_t n = (size_t)in->nodes;
	double *latency = take_doubles(arena, n * n, 0);

	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < n; j++)
			latency[i * n + j] = in->latency_forward_s[i * n + j] + (i / 3 == j / 3 ? 0 : dearer);
	in->latency_forward_s = latency;
}

/* What a search without a proof says of J must be true where J is known: also if the best plan were worse than it is, for a
 * bound is never above that. */
START_TEST(quick_bound_is_true)
{
	static const double worse[] = {1, 1.02, 1.1, 1.4, 2.5};
	double sum = 0;
	int count = 0;

	for (uint32_t seed = 1; seed <= 400 / TIMES_LESS; seed++) {
		struct arena arena = {0};
		struct draws d = {seed, 11};
		struct instance_want w = draw_want(&d);
		struct instance *in;
		struct pool quick = {0}, exact = {0};
		double least_s, model_s;

		w.nodes = draw_int(&d, 1, 9);
		in = draw_instance(&arena, &d, &w);
		if (seed % 3 == 0 && !w.types)
			part(&arena, in, draw(&d, 1, 20));
		in->stages = seed % 7 == 0 ? draw_int(&d, 1, w.nodes) : 0;
		least_s = quick_search(in, &quick);
		exact_search(in, &exact);
		model_s = pool_best(&exact);
		ck_assert_msg(isinf(model_s) || least_s <= model_s * (1 + CLOSE), "seed %u: J %.12g is below %.12g", seed,
			      model_s, least_s);
		ck_assert(isinf(pool_best(&quick)) == isinf(model_s));
		for (size_t k = 0; k < sizeof(worse) / sizeof(*worse) && !isinf(model_s); k++) {
			least_s = priced_least(in, worse[k] * model_s);
			ck_assert_msg(least_s <= model_s * (1 + CLOSE), "seed %u: J %.12g is below %.12g", seed, model_s,
				      least_s);
			sum += least_s / model_s;
			count++;
		}
		pool_release(&quick);
		pool_release(&exact);
		arena_release(&arena);
	}
	printf("bounds by prices and groups over J, %d: mean %.4f\n", count, sum / count);
	ck_assert_msg(sum / count > 0.9, "%g", sum / count);
}
END_TEST

enum { CROWD = 45 };			/* nodes that differ: more sets than can be numbered */

/* Rows of every node, and of so many more a thousand times the first's. */
static const double *more_rows(struct arena *arena, const double *value, size_t nodes, size_t row)
{
	double *more = take_doubles(arena, (nodes + CROWD) * row, 0);

	memcpy(more, value, nodes * row * sizeof(*more));
	for (size_t i = 0; i < CROWD * row; i++)
		more[nodes * row + i] = value[i % row] * (1000 + (double)(i / row));
	return more;
}

static const double *more_links(struct arena *arena, const double *value, size_t nodes, double none)
{
	double *more = take_doubles(arena, (nodes + CROWD) * (nodes + CROWD), none);

	for (size_t i = 0; i < nodes; i++)
		memcpy(more + i * (nodes + CROWD), value + i * nodes, nodes * sizeof(*more));
	return more;
}

/* The same with many nodes that are of no use: slow, and without links. */
static struct instance crowd(struct arena *arena, const struct instance *in)
{
	size_t n = (size_t)in->nodes, row = (size_t)in->blocks + 1;
	struct instance big = *in;

	big.nodes += CROWD;
	big.forward_s = more_rows(arena, in->forward_s, n, row);
	big.backward_s = more_rows(arena, in->backward_s, n, row);
	big.first_forward_s = more_rows(arena, in->first_forward_s, n, 1);
	big.first_backward_s = more_rows(arena, in->first_backward_s, n, 1);
	big.last_forward_s = more_rows(arena, in->last_forward_s, n, 1);
	big.last_backward_s = more_rows(arena, in->last_backward_s, n, 1);
	big.memory_bytes = more_rows(arena, in->memory_bytes, n, 1);
	big.link_forward_s = more_links(arena, in->link_forward_s, n, INFINITY);
	big.link_backward_s = more_links(arena, in->link_backward_s, n, 0);
	big.latency_forward_s = more_links(arena, in->latency_forward_s, n, 0);
	big.latency_backward_s = more_links(arena, in->latency_backward_s, n, 0);
	return big;
}

/* Where sets cannot be numbered the bound over all plans is the relaxation's: true, and not far off. */
START_TEST(bound_of_many_is_true)
{
	double sum = 0;
	int count = 0;

	for (uint32_t seed = 1; seed <= 200; seed++) {
		struct arena arena = {0};
		struct draws d = {seed, 13};
		struct instance_want w = draw_want(&d);
		struct instance big, *in = draw_instance(&arena, &d, &w);
		struct truth t = truth_of(in, false);
		struct pool pool = {0};
		double least_s;

		big = crowd(&arena, in);
		search_solve(&big, &pool);
		least_s = least_bound(&big, &pool);
		ck_assert_msg(least_s <= t.bound_s * (1 + CLOSE), "seed %u: a plan's bound %.12g is below %.12g", seed,
			      t.bound_s, least_s);
		if (!isinf(t.bound_s)) {
			sum += least_s / t.bound_s;
			count++;
		}
		pool_release(&pool);
		arena_release(&arena);
	}
	printf("bounds over all plans by the relaxation over the least, %d: mean %.4f\n", count, sum / count);
	ck_assert_msg(sum / count > 0.7, "%g", sum / count);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("exact");
	TCase *tcase = tcase_create("exact"), *quick = tcase_create("quick");

	tcase_set_timeout(tcase, 240);
	tcase_add_test(tcase, solvers_equal_brute_force);
	tcase_add_test(tcase, in_flight_is_no_function_of_stages);
	tcase_add_test(tcase, bottleneck_is_the_least);
	tcase_add_test(tcase, stages_can_be_asked_for);
	tcase_set_timeout(quick, 120);
	tcase_add_test(quick, quick_bound_is_true);
	tcase_add_test(quick, bound_of_many_is_true);
	suite_add_tcase(s, tcase);
	suite_add_tcase(s, quick);
	return s;
}

int main(void)
{
	return run_suite(suite());
}
