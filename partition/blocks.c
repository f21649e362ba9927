/*
 * blocks.c - words for who holds what, shared by the table, the file and the messages.
 */
#include "partition/internal.h"
#include "partition/solvers.h"

#include <limits.h>
#include <math.h>
#include <string.h>

/* nodes that are tried once more to tell what they would cost, with so many sizes */
enum { WHY_MOST = 6, SIZES_MOST = 8 };

const char *blocks_write(const struct plan_stage *stage, char *buffer, size_t bytes)
{
	int first = stage->first_block, last = first + stage->blocks - 1;
	char range[32] = "";

	if (stage->blocks == 1)
		snprintf(range, sizeof range, "%d", first);
	else if (stage->blocks > 1)
		snprintf(range, sizeof range, "%d-%d", first, last);
	snprintf(buffer, bytes, "%s%s%s%s%s", stage->embedding ? "emb" : "",
		 stage->embedding && stage->blocks ? " " : "", range,
		 stage->head && (stage->blocks || stage->embedding) ? " " : "",
		 stage->head ? "head" : "");
	return buffer;
}

/* -- why a node is left out ---------------------------------------------------------------- */

/* The shortest step with one more node, and its size of micro-batch. */
struct with { double step_s; int size; };

static void try_with(const struct problem *problem, const struct placement *at, int node,
		     int size, struct with *best)
{
	struct arena arena = {0};
	const struct instance *in = instance_of(&arena, problem, size);
	double step_s = in ? refine_with(in, at, node) : INFINITY;

	if (step_s < best->step_s)
		*best = (struct with){step_s, size};
	arena_release(&arena);
}

/* The next size from one that the job allows, up or down; 0: there is none. */
static long long next_size(const struct problem *problem, long long size, int by)
{
	long long most = INT_MAX / problem->tokens;

	for (size += by; size >= 1 && size <= problem->batch && size <= most; size += by)
		if (problem->batch % size == 0)
			return problem->batch / size > COUNT_MOST ? 0 : size;
	return 0;
}

/* With the plan's size, and where it was to be chosen with those next to it, SIZES_MOST in
 * all. */
static struct with best_with(const struct problem *problem, const struct plan *plan, int node)
{
	struct placement at = placement_of(plan);
	struct with best = {INFINITY, plan->micro_batch};
	long long down = plan->micro_batch, up = down;

	try_with(problem, &at, node, plan->micro_batch, &best);
	for (int tried = 1; !problem->micro_batch && tried < SIZES_MOST && (down || up);) {
		down = down ? next_size(problem, down, -1) : 0;
		if (down)
			try_with(problem, &at, node, (int)down, &best), tried++;
		up = up && tried < SIZES_MOST ? next_size(problem, up, 1) : 0;
		if (up)
			try_with(problem, &at, node, (int)up, &best), tried++;
	}
	return best;
}

/* What a step would take with a node that the solver did not choose. */
static void why_not(const struct problem *problem, const struct plan *plan, int node, char *why,
		    size_t bytes)
{
	struct with with = best_with(problem, plan, node);
	double more = 100 * (with.step_s / plan->step_s - 1);
	char alone[64] = "", size[48] = "";

	if (with.size != plan->micro_batch)
		snprintf(size, sizeof size, " (micro-batches of %d)", with.size);
	if (plan->stages == 1)
		snprintf(alone, sizeof alone, "'%.32s' alone is fastest: ",
			 cluster_node(problem->cluster, plan->stage[0].node)->name);
	if (isinf(with.step_s))
		snprintf(why, bytes, "no plan with it beside these nodes was found");
	else if (more >= 0.01)
		snprintf(why, bytes, "%swith it a step takes %.3g s, %.*f %% more%s", alone,
			 with.step_s,
			 more < 1     ? 2
			 : more < 100 ? 1
				      : 0,
			 more, size);
	else if (more < -0.05)
		snprintf(why, bytes, "no shorter plan with it was found");
	else
		snprintf(why, bytes, "with it a step takes no less: %.3g s%s",
			 fmax(with.step_s, plan->step_s), size);
}

/* How many nodes before this one, in file order, a plan leaves out. */
static int left_out_before(const struct plan *plan, int node)
{
	int count = node;

	for (int s = 0; s < plan->stages; s++)
		count -= plan->stage[s].node < node;
	return count;
}

bool left_out(const struct problem *problem, const struct plan *plan, int node, char *why,
	      size_t bytes)
{
	const struct solver *solver = solver_find(plan->solver);

	why[0] = 0;
	for (int s = 0; s < plan->stages; s++)
		if (plan->stage[s].node == node)
			return false;
	if (problem->given)
		snprintf(why, bytes, "the given plan has no stage there");
	else if (problem->want->layers.count)
		snprintf(why, bytes, "plan.layers says out");
	else if (solver && solver->search && problem->want->stages)
		snprintf(why, bytes, "plan.stages leaves room for %d node%s", plan->stages,
			 plan->stages > 1 ? "s" : "");
	else if (solver && solver->search && left_out_before(plan, node) >= WHY_MOST)
		snprintf(why, bytes,
			 "%d nodes do better without it; it was not tried again beside them",
			 plan->stages);
	else if (solver && solver->search)
		why_not(problem, plan, node, why, bytes);
	else if (strcmp(plan->solver, "proportional") == 0)
		snprintf(why, bytes,
			 "no faster than the %d nodes that plan.stages leaves room for",
			 plan->stages);
	else
		snprintf(why, bytes, "not among the first plan.stages = %d nodes",
			 plan->stages);
	return true;
}
