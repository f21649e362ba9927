/*
 * solver.c - the table of solvers, best first, and what its rows share.
 */
#include "partition/internal.h"

#include <string.h>

static bool by_hand(const struct problem *problem)
{
	return problem->want->layers.count > 0;
}

static bool always(const struct problem *problem)
{
	(void)problem;
	return true;
}

/* The first that applies is the one that a job without plan.solver gets. */
static const struct solver solvers[] = {
	{"manual", "blocks per node by hand, from plan.layers", by_hand, manual_solve},
	{"proportional", "FLOPs in proportion to the declared compute of the nodes", always,
	 proportional_solve},
	{"uniform", "as many blocks on every node", always, uniform_solve},
};

static const char *const names[] = {"manual", "proportional", "uniform", NULL};

_Static_assert(sizeof names / sizeof *names == sizeof solvers / sizeof *solvers + 1,
	       "a name for every row");

const char *const *solver_names(void)
{
	return names;
}

const struct solver *solver_find(const char *name)
{
	for (size_t i = 0; name && i < sizeof solvers / sizeof *solvers; i++)
		if (strcmp(solvers[i].name, name) == 0)
			return &solvers[i];
	return NULL;
}

int stages_wanted(const struct problem *problem)
{
	int nodes = problem->cluster->nodes.count, most = problem->model->blocks + 1;
	long long stages = problem->want->stages;

	if (stages > nodes)
		return error(EXIT_CONFIG,
			     "plan.stages: %lld stages need as many nodes, but the "
			     "file has %d",
			     stages, nodes);
	if (stages > most)
		return error(EXIT_CONFIG,
			     "plan.stages: %lld stages, but the model's %d blocks and "
			     "its head fill %d at most",
			     stages, most - 1, most);
	if (!stages && nodes > most)
		return error(EXIT_CONFIG,
			     "%d nodes, but the model's %d blocks and its head fill %d stages "
			     "at most: set plan.stages to %d, or leave nodes out with 'out' in "
			     "plan.layers",
			     nodes, most - 1, most, most);
	if (!stages)
		stages = nodes;
	if (stages > PLAN_STAGES_MAX)
		return error(EXIT_CONFIG,
			     "a plan has %d stages at most, this one would have %lld: "
			     "set plan.stages",
			     PLAN_STAGES_MAX, stages);
	return (int)stages;
}

void stage_add(struct plan *plan, int node, int blocks)
{
	const struct plan_stage *before = plan->stage + plan->stages - 1;
	struct plan_stage *stage = plan->stage + plan->stages;

	stage->first_block = plan->stages ? before->first_block + before->blocks : 0;
	stage->node = node;
	stage->blocks = blocks;
	plan->stages++;
}
