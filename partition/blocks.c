/*
 * blocks.c - words for who holds what, shared by the table, the file and the messages.
 */
#include "partition/internal.h"
#include "partition/solvers.h"

#include <math.h>
#include <string.h>

enum { WHY_MOST = 6 };		/* nodes that are tried once more to tell what they would cost: it takes a while */

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

/* What a step would take with a node that the solver did not choose. */
static void why_not(const struct problem *problem, const struct plan *plan, int node, char *why, size_t bytes)
{
	struct arena arena = {0};
	const struct instance *in = instance_of(&arena, problem, plan->micro_batch);
	struct placement at = {.stages = plan->stages};
	double step_s;

	for (int s = 0; s < plan->stages; s++) {
		at.node[s] = plan->stage[s].node;
		at.first[s + 1] = plan->stage[s].first_block + plan->stage[s].blocks;
	}
	step_s = in ? refine_with(in, &at, node) : INFINITY;
	if (isinf(step_s))
		snprintf(why, bytes, "no plan with it beside these nodes was found");
	else if (plan->stages == 1)
		snprintf(why, bytes, "'%.32s' alone is fastest: with it a step takes %.3g s, %.3g %% more",
			 cluster_node(problem->cluster, plan->stage[0].node)->name, step_s,
			 100 * (step_s / plan->step_s - 1));
	else if (step_s > plan->step_s * 1.0005)
		snprintf(why, bytes, "with it a step takes %.3g s, %.3g %% more", step_s,
			 100 * (step_s / plan->step_s - 1));
	else
		snprintf(why, bytes, "with it a step takes no less");
	arena_release(&arena);
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
		snprintf(why, bytes, "%d nodes do better without it; it was not tried again beside them", plan->stages);
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
