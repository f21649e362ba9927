/*
 * plan_check.c - the invariants of a plan, whoever made it: a solver, a file, a message.
 *
 * Nothing is taken from the solver's word: counts, rooms and shares are worked out again from
 * the problem. The first thing that is wrong is said.
 */
#include "partition/internal.h"

#include <math.h>
#include <string.h>

#define fault(...) (snprintf(why, why_bytes, __VA_ARGS__), -1)

static int check_count(const struct plan *plan, const struct problem *problem, char *why,
		       size_t why_bytes)
{
	int nodes = problem->cluster->nodes.count, blocks = problem->model->blocks;
	int most = nodes < PLAN_STAGES_MAX ? nodes : PLAN_STAGES_MAX;

	if (plan->stages < 1 || plan->stages > most)
		return fault("%d stages, not 1..%d", plan->stages, most);
	if (plan->stages > blocks + 1)
		return fault("%d stages for %d blocks and a head", plan->stages, blocks);
	if (problem->want->stages && problem->want->stages != plan->stages)
		return fault("%d stages, but plan.stages is %lld", plan->stages,
			     problem->want->stages);
	if (!digest_equal(plan->model_digest, problem->model->digest))
		return fault("made for another model");
	return 0;
}

static bool used_before(const struct plan *plan, int s)
{
	for (int before = 0; before < s; before++)
		if (plan->stage[before].node == plan->stage[s].node)
			return true;
	return false;
}

/* Blocks follow on each other from 0 to the model's last; the ends are where they belong. */
static int check_stages(const struct plan *plan, const struct problem *problem, char *why,
			size_t why_bytes)
{
	int next = 0, last = plan->stages - 1;

	for (int s = 0; s <= last; s++) {
		const struct plan_stage *stage = &plan->stage[s];

		if (stage->node < 0 || stage->node >= problem->cluster->nodes.count)
			return fault("stage %d is on node %d, which is not there", s,
				     stage->node);
		if (used_before(plan, s))
			return fault("stage %d is on node %d, as one before", s, stage->node);
		if (stage->first_block != next)
			return fault("stage %d starts at block %d, not %d", s,
				     stage->first_block, next);
		if (stage->blocks < (s < last))
			return fault("stage %d has %d blocks", s, stage->blocks);
		if (stage->blocks > problem->model->blocks - next)
			return fault("stage %d ends after the model's last block", s);
		if (stage->embedding != (s == 0))
			return fault("stage %d and the embedding", s);
		if (stage->head != (s == last))
			return fault("stage %d and the head", s);
		next += stage->blocks;
	}
	if (next != problem->model->blocks)
		return fault("%d blocks of the model's %d", next, problem->model->blocks);
	return 0;
}

/* The solver and the layers that were asked for. */
static int check_wish(const struct plan *plan, const struct problem *problem, char *why,
		      size_t why_bytes)
{
	int s = 0;

	if (!solver_find(plan->solver))
		return fault("an unknown solver '%s'", plan->solver);
	for (int i = 0; i < problem->want->layers.count; i++) {
		int blocks = layers_entry(problem, i);

		if (blocks == LAYERS_OUT)
			continue;
		if (s >= plan->stages || plan->stage[s].node != i ||
		    plan->stage[s].blocks != blocks)
			return fault("plan.layers[%d] is not kept", i);
		s++;
	}
	if (problem->want->layers.count && s != plan->stages)
		return fault("more stages than plan.layers has");
	return 0;
}

static int check_shares(const struct plan *plan, const struct problem *problem, char *why,
			size_t why_bytes)
{
	double block = model_block_flops(problem->model, problem->tokens);
	double head = model_head_flops(problem->model);
	double all = block * problem->model->blocks + head;

	for (int s = 0; s < plan->stages; s++) {
		const struct plan_stage *stage = &plan->stage[s];
		double share = (stage->blocks * block + stage->head * head) / all;

		if (!(fabs(stage->share - share) < 1e-9))
			return fault("stage %d has a share of %g, not %g", s, stage->share,
				     share);
	}
	return 0;
}

/* Micro-batches make the batch, and as many are in flight as the schedule says. */
static int check_schedule(const struct plan *plan, const struct problem *problem, char *why,
			  size_t why_bytes)
{
	struct arena arena = {0};
	const char *name = problem->given ? problem->given->schedule : problem->want->schedule;
	struct schedule *schedule;
	int rc = 0;

	if (strcmp(plan->order, "strict") != 0 && strcmp(plan->order, "greedy") != 0)
		return fault("an unknown order '%.7s'", plan->order);
	if (strcmp(plan->schedule, name) != 0)
		return fault("schedule '%s', not '%s'", plan->schedule, name);
	if (plan->micro_batch < 1 || plan->micro_batches < 1 ||
	    (long long)plan->micro_batch * plan->micro_batches != problem->batch)
		return fault("%d micro-batches of %d are not a batch of %lld",
			     plan->micro_batches, plan->micro_batch, problem->batch);
	if (problem->micro_batch && plan->micro_batch != problem->micro_batch)
		return fault("micro-batches of %d, not %lld", plan->micro_batch,
			     problem->micro_batch);
	schedule = plan_schedule(&arena, problem, plan);
	if (!schedule)
		rc = fault("schedule '%s' cannot be made", plan->schedule);
	for (int s = 0; rc == 0 && s < plan->stages; s++)
		if (plan->stage[s].in_flight != schedule->room[s])
			rc = fault("stage %d has %d in flight, not %d", s,
				   plan->stage[s].in_flight, schedule->room[s]);
		else if (plan->stage[s].edges != stage_edges(plan, schedule, s))
			rc = fault("stage %d has %d edge buffers, not %d", s,
				   plan->stage[s].edges, stage_edges(plan, schedule, s));
	arena_release(&arena);
	return rc;
}

/* How the cuts travel, what stages and cuts take, and what follows from it. */
static int check_costs(const struct plan *plan, const struct problem *problem, char *why,
		       size_t why_bytes)
{
	struct plan fresh;

	memcpy(&fresh, plan, sizeof fresh);
	cost_fill(problem, &fresh);
	for (int s = 0; s < plan->stages; s++)
		if (fresh.stage[s].forward_s != plan->stage[s].forward_s ||
		    fresh.stage[s].backward_s != plan->stage[s].backward_s)
			return fault("stage %d takes %g s and %g s, not %g s and %g s", s,
				     fresh.stage[s].forward_s, fresh.stage[s].backward_s,
				     plan->stage[s].forward_s, plan->stage[s].backward_s);
	for (int s = 0; s + 1 < plan->stages; s++)
		if (memcmp(&fresh.link[s], &plan->link[s], sizeof fresh.link[s]) != 0)
			return fault("the link after stage %d has other costs", s);
	cost_predict(problem, &fresh);
	if (plan->least_bound_s > plan->step_s)
		return fault("no plan takes less than %g s, but this one takes %g s",
			     plan->least_bound_s, plan->step_s);
	if (fresh.step_s != plan->step_s || fresh.bound_s != plan->bound_s ||
	    strcmp(fresh.bottleneck, plan->bottleneck) != 0)
		return fault("a step takes %g s and at least %g s, not %g s and %g s",
			     fresh.step_s, fresh.bound_s, plan->step_s, plan->bound_s);
	return 0;
}

static int check_memory(const struct plan *plan, const struct problem *problem, char *why,
			size_t why_bytes)
{
	for (int s = 0; s < plan->stages; s++) {
		const struct plan_stage *stage = &plan->stage[s];
		double needed = (double)plan_memory(problem, plan, s).total +
				problem->overhead_bytes[stage->node];
		double limit = problem->memory_limit_bytes[stage->node];

		if (stage->memory_bytes != needed)
			return fault("stage %d needs %.0f bytes, not %.0f", s, needed,
				     stage->memory_bytes);
		if (stage->memory_limit_bytes != limit)
			return fault("stage %d may use %.0f bytes, not %.0f", s, limit,
				     stage->memory_limit_bytes);
		if (limit > 0 && needed > limit)
			return fault("stage %d needs %.0f bytes and may use %.0f", s, needed,
				     limit);
	}
	return 0;
}

int plan_check(const struct plan *plan, const struct problem *problem, char *why,
	       size_t why_bytes)
{
	int (*const check[])(const struct plan *, const struct problem *, char *, size_t) = {
		check_count, check_stages, check_wish, check_shares, check_schedule,
		check_costs, check_memory,
	};

	for (size_t i = 0; i < sizeof check / sizeof *check; i++)
		if (check[i](plan, problem, why, why_bytes) < 0)
			return -1;
	return 0;
}
