/*
 * choose.c - the plan of a solver that decides everything: for every size of a micro-batch an
 * instance, good placements of it, the best of them by simulation; and of all sizes the one
 * whose plan, made by the engine's own arithmetic, has the shortest step. The plans of the
 * other solvers are among the candidates, so none of them beats the choice.
 */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "partition/internal.h"
#include "partition/solvers.h"

#define CODEC_COST 0.005 /* what less loss may add to the step, over all links: as a share */

/* Placements of a size that are made into plans, the best by simulation first; and how often an
 * instance is tightened where memory does not hold them. */
enum { EXACTLY = 8, ROUNDS = 6 };

struct choice {
	const struct problem *problem;
	const struct solver *solver;
	struct plan *best;		/* step_s 0: none yet */
	/* the next best that place otherwise, best first; step_s 0: there are no more */
	struct plan *other;
	int others;			/* how many are asked for */
	struct plan *draft;
	double least_bound_s;		/* of all sizes */
	/* whether sets of nodes can be, so that the bottleneck's plan can be had */
	bool numbered;
	/* per node, of placements that an instance took and memory does not hold */
	double *lack_bytes;
};

/* -- one placement ------------------------------------------------------------------------- */

/* Links with `codec: auto` begin with the lossiest that it may take. */
static void begin_codecs(struct plan *plan)
{
	for (int s = 0; s + 1 < plan->stages; s++)
		plan->link[s].codec_forward = plan->link[s].codec_backward =
		    CODEC_AUTO_LOSSIEST;
}

/* Which nodes lack how much for the draft. */
static void note_lack(struct choice *c)
{
	for (int s = 0; s < c->draft->stages; s++) {
		const struct plan_stage *stage = &c->draft->stage[s];
		double *lack = &c->lack_bytes[stage->node];

		if (stage->memory_limit_bytes > 0)
			*lack = fmax(*lack, stage->memory_bytes - stage->memory_limit_bytes);
	}
}

/* An instance that leaves nodes less, by what they lacked; null where none lacked anything. */
static const struct instance *tightened(struct choice *c, struct arena *arena,
					const struct instance *in)
{
	struct instance *tight = arena_take(arena, sizeof(*tight));
	double *limit = arena_take(arena, (size_t)in->nodes * sizeof(*limit));
	bool lacked = false;

	*tight = *in;
	tight->memory_bytes = limit;
	for (int d = 0; d < in->nodes; d++) {
		limit[d] = in->memory_bytes[d] - c->lack_bytes[d];
		lacked = lacked || c->lack_bytes[d] > 0;
		c->lack_bytes[d] = 0;
	}
	return lacked ? tight : NULL;
}

static bool same_places(const struct plan *a, const struct plan *b)
{
	if (a->stages != b->stages || a->micro_batch != b->micro_batch)
		return false;
	for (int s = 0; s < a->stages; s++)
		if (a->stage[s].node != b->stage[s].node ||
		    a->stage[s].blocks != b->stage[s].blocks)
			return false;
	return true;
}

static void keep_other(struct choice *c, const struct plan *plan)
{
	struct plan *other = c->other;
	int at = 0;

	while (at < c->others && other[at].step_s > 0 && !same_places(plan, &other[at]))
		at++;
	if (at == c->others)
		at--;
	if (at < 0 || (other[at].step_s > 0 && plan->step_s >= other[at].step_s))
		return;
	for (; at > 0 && other[at - 1].step_s > plan->step_s; at--)
		memcpy(&other[at], &other[at - 1], sizeof *other);
	memcpy(&other[at], plan, sizeof *other);
}

static void keep(struct choice *c, const struct plan *plan)
{
	bool first = c->best->step_s <= 0, same = !first && same_places(plan, c->best);

	if (first || plan->step_s < c->best->step_s) {
		if (!first && !same)
			keep_other(c, c->best);
		memcpy(c->best, plan, sizeof *plan);
	} else if (!same) {
		keep_other(c, plan);
	}
}

/* What a plan must stay below to be kept; INFINITY: any is. */
static double limit_s(const struct choice *c)
{
	const struct plan *last = c->others ? &c->other[c->others - 1] : c->best;

	return last->step_s > 0 ? last->step_s : INFINITY;
}

/* Makes a plan of a placement, and keeps it where it is the best so far. 1: memory does not
 * hold it; -1 after an error. */
static int consider(struct choice *c, const struct placement *at, int micro_batch)
{
	struct plan *draft = c->draft;
	int rc;

	memset(draft, 0, sizeof *draft);
	snprintf(draft->solver, sizeof draft->solver, "%s", c->solver->name);
	for (int s = 0; s < at->stages; s++)
		stage_add(draft, at->node[s], at->first[s + 1] - at->first[s]);
	plan_begin(c->problem, draft);
	begin_codecs(draft);
	rc = plan_size(c->problem, draft, micro_batch, false);
	if (rc <= 0)
		return rc < 0 ? -1 : 1;
	draft->model_s = at->model_s;
	keep(c, draft);
	return 0;
}

/* -- one size ------------------------------------------------------------------------------ */

/* The plans of the solvers that keep file order. */
static int add_others(struct choice *c, const struct instance *in, struct pool *pool,
		      int micro_batch)
{
	int rc = 0;

	for (int i = 0; solver_names()[i] && rc == 0; i++) {
		const struct solver *other = solver_find(solver_names()[i]);
		struct placement at;

		if (!other->solve || !strcmp(other->name, "manual"))
			continue;
		memset(c->draft, 0, sizeof *c->draft);
		error_mute();
		if (other->solve(c->problem, c->draft) == 0) {
			at = placement_of(c->draft);
			model_step(in, &at);
			pool_add(pool, &at);
			rc = consider(c, &at, micro_batch) < 0 ? -1 : 0;
		}
		error_unmute();
	}
	return rc;
}

/* One that the instance holds to fit. -1 after an error. */
static int consider_fitting(struct choice *c, const struct placement *at, int micro_batch)
{
	int rc = consider(c, at, micro_batch);

	if (rc > 0)
		note_lack(c);
	return rc < 0 ? -1 : 0;
}

static int consider_all(struct choice *c, const struct instance *in, const struct pool *pool,
			int micro_batch)
{
	struct placement best;
	int rc = 0;

	if (c->solver->pure)
		return pool->count ? consider_fitting(c, &pool->item[0], micro_batch) : 0;
	if (refine_solve(in, pool, &best) < INFINITY)
		rc = consider_fitting(c, &best, micro_batch);
	for (int i = 0, made = 0; i < pool->count && made < EXACTLY && rc == 0; i++) {
		if (c->best->step_s > 0 &&
		    placement_bound(in, &pool->item[i]) >= c->best->step_s)
			continue;
		rc = consider_fitting(c, &pool->item[i], micro_batch);
		made++;
	}
	return rc;
}

/* Those that cannot be the best, and may be among the next. -1 after an error. */
static int consider_next(struct choice *c, const struct instance *in, const struct pool *pool,
			 int micro_batch)
{
	int rc = 0;

	for (int i = 0; i < pool->count && rc >= 0 && c->others && !c->solver->pure; i++)
		if (placement_bound(in, &pool->item[i]) < limit_s(c))
			rc = consider(c, &pool->item[i], micro_batch);
	return rc < 0 ? -1 : 0;
}

/* Solves, from a pool that search_solve has filled, and where memory does not hold what was
 * found, searches and solves again with less of it. -1 after an error. */
static int search_rounds(struct choice *c, struct arena *arena, const struct instance *in,
			 struct pool *pool, int micro_batch)
{
	double proved_s = 0;
	int rc = 0;

	for (int round = 0; in && round < ROUNDS && rc == 0; round++) {
		double found_s, before_s = c->best->step_s;

		if (round > 0)
			search_solve(in, pool);
		found_s = c->solver->search(in, pool);
		if (round == 0)
			proved_s = found_s;
		rc = consider_all(c, in, pool, micro_batch);
		if (rc == 0)
			rc = consider_next(c, in, pool, micro_batch);
		if (c->best->micro_batch == micro_batch &&
		    (round == 0 || c->best->step_s < before_s || before_s <= 0)) {
			c->best->model_minimum_s = fmin(pool_best(pool), c->best->model_s);
			c->best->model_proved_s = proved_s;
		}
		in = tightened(c, arena, in);
		pool_release(pool);
		*pool = (struct pool){0};
	}
	return rc;
}

/* The plan with the shortest period alone. */
static int add_bottleneck(struct choice *c, const struct instance *in, int micro_batch)
{
	struct pool pool = {0};
	int rc = 0;

	bottleneck_search(in, &pool);
	if (pool.count)
		rc = consider(c, &pool.item[0], micro_batch) < 0 ? -1 : 0;
	pool_release(&pool);
	return rc;
}

/* Fills a pool, and counts what no plan of this size is below; that. */
static double bound_size(struct choice *c, const struct instance *in, struct pool *pool)
{
	double bound_s;

	search_solve(in, pool);
	bound_s = least_bound(in, pool);
	c->least_bound_s = fmin(c->least_bound_s, bound_s);
	return bound_s;
}

/* A size that is not tried: the bound is of all plans nevertheless. */
static void bound_instance(struct choice *c, int micro_batch)
{
	struct arena arena = {0};
	struct pool pool = {0};

	bound_size(c, instance_of(&arena, c->problem, micro_batch), &pool);
	pool_release(&pool);
	arena_release(&arena);
}

/* Everything for micro-batches of a size. -1 after an error. */
static int try_instance(struct choice *c, int micro_batch)
{
	struct arena arena = {0};
	struct pool pool = {0};
	const struct instance *in = instance_of(&arena, c->problem, micro_batch);
	double most_s = limit_s(c), bound_s;
	int rc = c->solver->pure ? 0 : add_others(c, in, &pool, micro_batch);

	bound_s = bound_size(c, in, &pool);
	if (rc == 0 && bound_s < most_s && c->numbered && !c->solver->pure)
		rc = add_bottleneck(c, in, micro_batch);
	if (rc == 0 && bound_s < most_s)
		rc = search_rounds(c, &arena, in, &pool, micro_batch);
	pool_release(&pool);
	arena_release(&arena);
	return rc;
}

/* -- all sizes ----------------------------------------------------------------------------- */

static int try_sizes(struct choice *c)
{
	const struct problem *problem = c->problem;
	long long most = INT_MAX / problem->tokens,
		  size = problem->batch < most ? problem->batch : most;
	int rc = 0;

	if (problem->micro_batch)
		return try_instance(c, (int)problem->micro_batch);
	for (; size >= 1 && rc == 0; size--) {
		if (problem->batch % size)
			continue;
		if (c->best->step_s > 0 && problem->batch / size > COUNT_MOST)
			bound_instance(c, (int)size);
		else
			rc = try_instance(c, (int)size);
	}
	return rc;
}

/* -- codecs -------------------------------------------------------------------------------- */

/* One direction of a cut that is to choose: the least lossy codec that costs the step next to
 * nothing. */
static int settle_codec(struct choice *c, struct plan *plan, int s, bool backward,
			double most_s)
{
	static const enum codec_kind by_loss[] = {CODEC_NONE, CODEC_BF16};
	struct plan *draft = c->draft;

	for (size_t i = 0; i < sizeof by_loss / sizeof *by_loss; i++) {
		int rc;

		memcpy(draft, plan, sizeof *draft);
		*(backward ? &draft->link[s].codec_backward : &draft->link[s].codec_forward) =
		    (int)by_loss[i];
		rc = plan_size(c->problem, draft, draft->micro_batch, false);
		if (rc < 0)
			return -1;
		if (rc > 0 && draft->step_s <= most_s) {
			memcpy(plan, draft, sizeof *draft);
			return 0;
		}
	}
	return 0;
}

static int settle_codecs(struct choice *c, struct plan *plan)
{
	double most_s = plan->step_s * (1 + CODEC_COST);

	for (int s = 0; s + 1 < plan->stages; s++)
		for (int backward = 0; backward < 2; backward++) {
			int a = plan->stage[s + backward].node,
			    b = plan->stage[s + !backward].node;

			if (cluster_link(c->problem->cluster, a, b).codec == CODEC_AUTO &&
			    settle_codec(c, plan, s, backward, most_s) < 0)
				return -1;
		}
	return 0;
}

static int by_step(const void *a, const void *b)
{
	double x = ((const struct plan *)a)->step_s, y = ((const struct plan *)b)->step_s;

	return (x > y) - (x < y);
}

static int settle_all(struct choice *c)
{
	int rc = settle_codecs(c, c->best), count = 0;

	for (; rc == 0 && count < c->others && c->other[count].step_s > 0; count++)
		rc = settle_codecs(c, &c->other[count]);
	if (count > 1)
		qsort(c->other, (size_t)count, sizeof *c->other, by_step);
	return rc;
}

/* A bound that rounding alone lifts above a step is that step; one that is above it by more
 * stays, and is found out. */
static double but_for_rounding(double bound_s, double step_s)
{
	return bound_s > step_s && bound_s <= step_s * (1 + 1e-9) ? step_s : bound_s;
}

int choose_plan(const struct problem *problem, const struct solver *solver, struct plan *plan,
		struct plan *other, int others)
{
	struct choice c = {
		.problem = problem,
		.solver = solver,
		.best = plan,
		.other = other,
		.others = others,
		.draft = xzalloc(1, sizeof *plan),
		.least_bound_s = INFINITY,
		.numbered = solver_find("bottleneck")->applicable(problem),
		.lack_bytes = xzalloc((size_t)problem->cluster->nodes.count, sizeof(double)),
	};
	int rc = try_sizes(&c);

	if (rc == 0 && plan->step_s > 0)
		rc = settle_all(&c);
	if (rc == 0 && plan->step_s > 0)
		plan->least_bound_s = but_for_rounding(c.least_bound_s, plan->step_s);
	free(c.lack_bytes);
	free(c.draft);
	return rc < 0 ? -1 : plan->step_s > 0;
}
