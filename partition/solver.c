/*
 * solver.c - the table of solvers, best first, and what its rows share.
 */
#include "partition/internal.h"
#include "partition/lattice.h"
#include "partition/solvers.h"

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

/* Whether the speed of every node is known, declared or measured. */
static bool speeds_known(const struct problem *problem)
{
	for (int d = 0; d < problem->cluster->nodes.count; d++)
		if (!cost_node(problem, d, 1).known)
			return false;
	return true;
}

/* Whether sets of nodes can be numbered; identical nodes make fewer of them. */
static bool few_sets(const struct problem *problem)
{
	struct arena arena = {0};
	struct classes classes;
	const struct instance *in =
	    speeds_known(problem) ? instance_of(&arena, problem, 1) : NULL;

	if (in)
		classes_find(&arena, in, &classes);
	arena_release(&arena);
	return in && classes.sets < UINT64_MAX;
}

/* The first that applies is the one that a job without plan.solver gets. */
static const struct solver solvers[] = {
    {"manual", "blocks per node by hand, from plan.layers", by_hand, manual_solve, NULL, false},
    {"exact",
     "the shortest step, by a closed form that is minimised with a proof, then by the "
     "simulator",
     few_sets, NULL, exact_solve, false},
    {"search", "a short step for any number of nodes, without the proof", speeds_known, NULL,
     quick_solve, false},
    {"bottleneck", "the shortest longest stage or link, whatever the step takes", few_sets,
     NULL, bottleneck_search, true},
    {"proportional", "FLOPs in proportion to the declared compute of the nodes", always,
     proportional_solve, NULL, false},
    {"uniform", "as many blocks on every node", always, uniform_solve, NULL, false},
};

static const char *const names[] = {"manual",	    "exact",   "search", "bottleneck",
				    "proportional", "uniform", NULL};

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

int plan_program(const struct plan *plan, const struct problem *problem, struct text *text)
{
	struct arena arena = {0};
	const struct instance *in = instance_of(&arena, problem, plan->micro_batch);

	if (in)
		lp_write(in, text);
	arena_release(&arena);
	return in ? 0
		  : error(
			EXIT_CONFIG,
			"--dump-lp: not every node's speed is known: declare compute, or give "
			"a profile");
}
