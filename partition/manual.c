/*
 * manual.c - blocks per node by hand, in file order: plan.layers, as [5, 3, out, 2].
 *
 * A node with `out` is left out. 0 is for the last stage alone, which then runs the head
 * without a block; on any other it would be a hop that computes nothing.
 */
#include "partition/internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

int layers_entry(const struct problem *problem, int i)
{
	const char *text = problem->want->layers.item[i];
	long blocks;
	char *end;

	if (strcmp(text, "out") == 0)
		return LAYERS_OUT;
	blocks = strtol(text, &end, 10);
	if (end == text || *end || blocks < 0 || blocks > INT_MAX)
		return -1;
	return (int)blocks;
}

/* Every entry by itself; the index of the last node that is not out is where 0 may stand. */
static int check_entries(const struct problem *problem, int last)
{
	for (int i = 0; i < problem->want->layers.count; i++) {
		const char *text = problem->want->layers.item[i];
		int blocks = layers_entry(problem, i);

		if (blocks == -1)
			return error(EXIT_CONFIG,
				     "plan.layers[%d]: '%s' is neither a number of "
				     "blocks nor 'out'",
				     i, text);
		if (blocks == 0 && i != last)
			return error(EXIT_CONFIG,
				     "plan.layers[%d]: only the last stage may hold no "
				     "block (it runs the head): write 'out' to leave '%s' out",
				     i, cluster_node(problem->cluster, i)->name);
	}
	return 0;
}

static int check_sum(const struct problem *problem)
{
	int count = problem->want->layers.count, blocks = problem->model->blocks;
	long long sum = 0;

	for (int i = 0; i < count; i++) {
		int entry = layers_entry(problem, i);

		sum += entry == LAYERS_OUT ? 0 : entry;
	}
	if (sum != blocks)
		return error(EXIT_CONFIG,
			     "plan.layers: %lld blocks in all, but the model has %d", sum,
			     blocks);
	return 0;
}

static int check_count(const struct problem *problem, int stages)
{
	const struct plan_config *want = problem->want;

	if (want->layers.count != problem->cluster->nodes.count)
		return error(EXIT_CONFIG,
			     "plan.layers: %d entries for %d nodes: one a node in file "
			     "order, 'out' leaves a node out",
			     want->layers.count, problem->cluster->nodes.count);
	if (stages == 0)
		return error(EXIT_CONFIG, "plan.layers: every node is out");
	if (stages > PLAN_STAGES_MAX)
		return error(EXIT_CONFIG, "plan.layers: %d stages, but a plan has %d at most",
			     stages, PLAN_STAGES_MAX);
	if (want->stages && want->stages != stages)
		return error(EXIT_CONFIG, "plan.stages: %lld, but plan.layers makes %d",
			     want->stages, stages);
	return 0;
}

int manual_solve(const struct problem *problem, struct plan *plan)
{
	int count = problem->want->layers.count, stages = 0, last = -1;

	if (!count)
		return error(EXIT_CONFIG, "plan.solver: 'manual' needs plan.layers");
	for (int i = 0; i < count; i++) {
		if (layers_entry(problem, i) == LAYERS_OUT)
			continue;
		last = i;
		stages++;
	}
	if (check_count(problem, stages) < 0 || check_entries(problem, last) < 0 ||
	    check_sum(problem) < 0)
		return -1;
	for (int i = 0; i < count; i++)
		if (layers_entry(problem, i) != LAYERS_OUT)
			stage_add(plan, i, layers_entry(problem, i));
	return 0;
}
