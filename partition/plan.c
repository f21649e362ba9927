/*
 * plan.c - decides: who holds which blocks, then how large a micro-batch is, and with it how
 * many are in flight and what memory that takes.
 */
#include "partition/instance.h"
#include "partition/internal.h"

#include <limits.h>
#include <string.h>

#define WORTH 1e-3		/* what another order must save, as a share of the step */

/* A solver that was asked for; null after an error where it cannot be had. */
static const struct solver *applies(const struct problem *problem, const struct solver *solver)
{
	if (!solver->search || solver->applicable(problem))
		return solver;
	for (int d = 0; d < problem->cluster->nodes.count; d++)
		if (!cost_node(problem, d, 1).known)
			return error_null(
			    EXIT_CONFIG,
			    "plan.solver: '%s' needs the speed of every node, but '%s' "
			    "declares no "
			    "compute: declare it, or measure with edgepipe profile",
			    solver->name, cluster_node(problem->cluster, d)->name);
	return error_null(
	    EXIT_CONFIG,
	    "plan.solver: '%s' is for fewer, or more alike, than these %d nodes: take search",
	    solver->name, problem->cluster->nodes.count);
}

static const struct solver *choose_solver(const struct problem *problem)
{
	const struct plan_config *want = problem->want;
	const char *name = want->solver, *near;
	int count = 0;

	while (solver_names()[count])
		count++;
	if (name && !solver_find(name)) {
		near = nearest_word(name, solver_names(), count);
		return error_null(EXIT_CONFIG, "plan.solver: '%s' is not built%s%s%s", name,
				  near ? " (did you mean '" : "", near ? near : "",
				  near ? "'?)" : "");
	}
	if (name && want->layers.count && strcmp(name, "manual") != 0) {
		warn("plan.layers decides by hand: plan.solver '%s' is not asked", name);
		name = NULL;
	}
	if (name)
		return applies(problem, solver_find(name));
	for (int i = 0; i < count; i++) {
		const struct solver *solver = solver_find(solver_names()[i]);

		if (solver->applicable(problem))
			return solver;
	}
	return error_null(EXIT_BUG, "no solver applies");
}

/* The ends, and what part of the model's FLOPs each stage runs (the embedding costs none). */
static void fill_ends(const struct problem *problem, struct plan *plan)
{
	double block = model_block_flops(problem->model, problem->tokens);
	double head = model_head_flops(problem->model);
	double all = problem->model->blocks * block + head;

	for (int s = 0; s < plan->stages; s++) {
		struct plan_stage *stage = &plan->stage[s];

		stage->embedding = s == 0;
		stage->head = s == plan->stages - 1;
		stage->share = (stage->blocks * block + (stage->head ? head : 0)) / all;
	}
}

void plan_begin(const struct problem *problem, struct plan *plan)
{
	fill_ends(problem, plan);
	snprintf(plan->schedule, sizeof plan->schedule, "%s",
		 problem->given ? problem->given->schedule : problem->want->schedule);
	plan->model_digest = problem->model->digest;
}

/* What a file decided. */
static void adopt(const struct plan *given, struct plan *plan)
{
	snprintf(plan->solver, sizeof plan->solver, "%s", given->solver);
	for (int s = 0; s < given->stages; s++) {
		stage_add(plan, given->stage[s].node, given->stage[s].blocks);
		plan->link[s].codec_forward = given->link[s].codec_forward;
		plan->link[s].codec_backward = given->link[s].codec_backward;
	}
}

struct schedule *plan_schedule(struct arena *arena, const struct problem *problem,
			       const struct plan *plan)
{
	int most[PLAN_STAGES_MAX];
	struct schedule_want want = {
		.name = plan->schedule,
		.stages = plan->stages,
		.micro_batches = plan->micro_batches,
		.costs = cost_of(arena, problem, plan),
		.room_most = most,
		.greedy = !strcmp(plan->order, "greedy"),
	};

	for (int s = 0; s < plan->stages; s++)
		most[s] = plan->stage[s].in_flight;
	return schedule_make(arena, &want);
}

/* Takes a place from the first stage that lacks memory, else from the one before it, whose
 * places it has edges for. false: there is none to take. */
static bool take_place(struct plan *plan, bool least)
{
	for (int s = 0; s < plan->stages; s++) {
		struct plan_stage *stage = &plan->stage[s];
		int keep = least ? plan->stages - s : 1;

		if (stage_fits(stage))
			continue;
		if (stage->in_flight > keep)
			return stage->in_flight--, true;
		if (s > 0 && stage[-1].in_flight > (least ? keep + 1 : 1))
			return stage[-1].in_flight--, true;
		return false;
	}
	return false;
}

int stage_edges(const struct plan *plan, const struct schedule *schedule, int s)
{
	int edges = schedule->edge[s];

	return plan->stages > 1 && edges < EDGES_LEAST ? EDGES_LEAST : edges;
}

int plan_places(const struct problem *problem, struct plan *plan)
{
	struct arena arena = {0};
	struct schedule *schedule = plan_schedule(&arena, problem, plan);

	for (int s = 0; schedule && s < plan->stages; s++) {
		plan->stage[s].in_flight = schedule->room[s];
		plan->stage[s].edges = stage_edges(plan, schedule, s);
	}
	arena_release(&arena);
	return schedule ? 0 : -1;
}

/* The counts of the greedy order, which may not need all that it could have; with fewer, it may
 * be another order. */
static int settle_places(const struct problem *problem, struct plan *plan)
{
	int before, after = INT_MAX;

	do {
		before = after;
		after = 0;
		if (plan_places(problem, plan) < 0)
			return -1;
		for (int s = 0; s < plan->stages; s++)
			after += plan->stage[s].in_flight;
	} while (after < before);
	return 0;
}

/* Where memory keeps the counts below what the links ask for, or a link is the bottleneck, the
 * greedy order may be the shorter one: the simulator decides. -1 after an error. */
static int choose_order(const struct problem *problem, struct plan *plan)
{
	struct plan greedy;

	cost_predict(problem, plan);
	if (plan->step_s <= 0)
		return 0;
	memcpy(&greedy, plan, sizeof greedy);
	snprintf(greedy.order, sizeof greedy.order, "greedy");
	if (settle_places(problem, &greedy) < 0)
		return -1;
	memory_fill(problem, &greedy);
	cost_predict(problem, &greedy);
	if (greedy.step_s > 0 && greedy.step_s < plan->step_s * (1 - WORTH))
		memcpy(plan, &greedy, sizeof greedy);
	return 0;
}

int plan_fit(const struct problem *problem, struct plan *plan, bool least)
{
	bool eager = !strcmp(plan->schedule, "eager"), fits;

	do {
		if (plan_places(problem, plan) < 0)
			return -1;
		fits = memory_fill(problem, plan);
	} while (!fits && eager && take_place(plan, least));
	return fits;
}

int plan_size(const struct problem *problem, struct plan *plan, int size, bool least)
{
	bool eager = !strcmp(plan->schedule, "eager");
	int fits;

	plan->micro_batch = size;
	plan->micro_batches = (int)(problem->batch / size);
	snprintf(plan->order, sizeof plan->order, "strict");
	for (int s = 0; s < plan->stages; s++)
		plan->stage[s].in_flight = INT_MAX;
	cost_fill(problem, plan);
	fits = plan_fit(problem, plan, least);
	if (fits <= 0)
		return fits;
	if (eager)
		return choose_order(problem, plan) < 0 ? -1 : 1;
	cost_predict(problem, plan);
	return 1;
}

/* Tries the divisors of batch from `most` down to 1, as plan_size; the plan is left at the last
 * tried. */
static int try_down(const struct problem *problem, struct plan *plan, long long most)
{
	int rc = 0;

	if (most > INT_MAX / problem->tokens)
		most = INT_MAX / problem->tokens;
	for (long long size = most > 1 ? most : 1; size >= 1 && rc == 0; size--)
		if (problem->batch % size == 0)
			rc = plan_size(problem, plan, (int)size, true);
	return rc;
}

static int check_size(const struct problem *problem)
{
	long long size = problem->micro_batch;

	if (problem->batch < 1 || problem->batch > INT_MAX)
		return error(EXIT_CONFIG, "train.batch: %lld is not in 1..%d", problem->batch,
			     INT_MAX);
	if (size == 0)
		return 0;
	if (size < 0 || problem->batch % size != 0)
		return error(EXIT_CONFIG,
			     "train.micro_batch: %lld does not divide train.batch %lld", size,
			     problem->batch);
	if (size > INT_MAX / problem->tokens)
		return error(EXIT_CONFIG,
			     "train.micro_batch: %lld sequences of %d tokens are too "
			     "many at once",
			     size, problem->tokens);
	return 0;
}

/* What an explicit size that does not fit could be instead; 0: nothing fits. */
static int smaller_size(const struct problem *problem, const struct plan *plan)
{
	struct plan other;

	if (plan->micro_batch == 1)
		return 0;
	memcpy(&other, plan, sizeof other);
	if (try_down(problem, &other, plan->micro_batch - 1) <= 0)
		return 0;
	return other.micro_batch;
}

/* Whether other settings leave room: for any placement where a solver searches, else for this
 * one. */
static bool would_fit(const struct problem *other, const struct plan *plan,
		      const struct solver *searching)
{
	struct plan draft = {.stages = 0};

	if (searching)
		return choose_plan(other, searching, &draft, NULL, 0) > 0;
	memcpy(&draft, plan, sizeof draft);
	return plan_size(other, &draft, plan->micro_batch,
			 !other->given && !other->micro_batch) > 0;
}

/* Which settings would make a plan fit, each alone. */
static struct remedy remedy_of(const struct problem *problem, const struct plan *plan,
			       const struct solver *searching)
{
	struct problem once = *problem, again = *problem;
	struct remedy remedy = {.recompute = RECOMPUTE_NONE};

	once.plain = true;
	remedy.plain = !problem->plain && would_fit(&once, plan, searching);
	while (again.recompute < RECOMPUTE_BLOCK && remedy.recompute == RECOMPUTE_NONE) {
		again.recompute++;
		if (would_fit(&again, plan, searching))
			remedy.recompute = again.recompute;
	}
	return remedy;
}

static int choose_size(const struct problem *problem, struct plan *plan)
{
	long long size = problem->given ? problem->given->micro_batch : problem->micro_batch;
	int rc;

	if (size)
		rc = plan_size(problem, plan, (int)size, false);
	else
		rc = try_down(problem, plan, problem->batch / (2 * plan->stages));
	if (rc == 0) {
		struct remedy remedy = remedy_of(problem, plan, NULL);

		remedy.micro_batch = smaller_size(problem, plan);
		return memory_refuse(problem, plan, &remedy);
	}
	return rc < 0 ? -1 : 0;
}

/* By a solver that keeps file order, or by a file. */
static int make_ordered(const struct problem *problem, const struct solver *solver,
			struct plan *plan)
{
	if (problem->given) {
		adopt(problem->given, plan);
	} else {
		snprintf(plan->solver, sizeof plan->solver, "%s", solver->name);
		if (solver->solve(problem, plan) < 0)
			return -1;
	}
	plan_begin(problem, plan);
	return choose_size(problem, plan);
}

int plan_rank(const struct problem *problem, struct plan *plan, int most)
{
	const struct solver *solver;
	int rc, count = 1;

	/* Also what lies between the fields: a plan travels, and is compared, as bytes. */
	memset(plan, 0, (size_t)most * sizeof *plan);
	if (check_size(problem) < 0)
		return -1;
	solver = problem->given ? NULL : choose_solver(problem);
	if (!problem->given && !solver)
		return -1;
	if (solver && solver->search) {
		rc = choose_plan(problem, solver, plan, plan + 1, most - 1);
		if (rc == 0) {
			struct remedy remedy = remedy_of(problem, plan, solver);

			return refuse_all(problem, &remedy);
		}
	} else {
		rc = make_ordered(problem, solver, plan);
	}
	if (rc < 0)
		return -1;
	while (count < most && plan[count].step_s > 0)
		count++;
	return count;
}

int plan_make(const struct problem *problem, struct plan *plan)
{
	struct plan draft;

	if (plan_rank(problem, &draft, 1) < 0)
		return -1;
	memcpy(plan, &draft, sizeof draft);
	return 0;
}
