/*
 * proportional.c - FLOPs in proportion to declared compute, in file order.
 *
 * An example: 12 blocks, a head that costs as much as 2 of them, nodes of 5, 3 and 2 GFLOPS.
 * That is work for 14 blocks at 10 GFLOPS, so the shares are 7, 4.2 and 2.8; the last stage
 * runs the head, which leaves it 0.8 of a block. Rounded down they hold 7, 4 and 0; the block
 * that is left over goes to the largest remainder, the last: 7 4 1.
 *
 * Every stage but the last holds at least one block. A stage whose share is below what it must
 * hold is set to that, and the others share the rest. With plan.stages the slowest nodes are
 * left out (of two that are equally slow the later one). With no compute declared it is
 * `uniform`.
 */
#include "partition/internal.h"

#include <math.h>

/* What floating point may add to or take from a share that is a whole number. */
#define SHARE_NOISE 1e-9

static int least_blocks(int s, int stages)
{
	return s < stages - 1;
}

/* Shares of `blocks` blocks among the stages that are free, in blocks. */
static void fill_shares(double *share, const double *compute, const bool *set, int stages,
			int blocks, double head)
{
	int last = stages - 1;
	double work = blocks + (set[last] ? 0 : head), speed = 0;

	for (int s = 0; s < stages; s++)
		speed += set[s] ? 0 : compute[s];
	for (int s = 0; s < stages; s++)
		share[s] = work * (compute[s] / speed) - (s == last ? head : 0);
}

/* Sets every free stage whose share is too small to what it must hold; was there one? */
static bool set_small(int *layers, bool *set, int *rest, const double *share, int stages)
{
	bool any = false;

	for (int s = 0; s < stages; s++) {
		if (set[s] || share[s] > least_blocks(s, stages) - SHARE_NOISE)
			continue;
		set[s] = any = true;
		layers[s] = least_blocks(s, stages);
		*rest -= layers[s];
	}
	return any;
}

/* The free stage with the largest share beyond its blocks, the first of equals. */
static int largest_remainder(const int *layers, const bool *set, const double *share,
			     int stages)
{
	int best = -1;

	for (int s = 0; s < stages; s++) {
		if (set[s])
			continue;
		if (best < 0 || share[s] - layers[s] > share[best] - layers[best] + SHARE_NOISE)
			best = s;
	}
	return best;
}

void proportional_split(int *layers, const double *compute, int stages, int blocks, double head)
{
	bool set[PLAN_STAGES_MAX] = {false};
	double share[PLAN_STAGES_MAX];
	int rest = blocks;

	/* A stage that is set takes more than its share, so the others' only shrink: the set
	 * ones stay too small, and this ends. */
	do
		fill_shares(share, compute, set, stages, rest, head);
	while (set_small(layers, set, &rest, share, stages));
	for (int s = 0; s < stages; s++) {
		if (set[s])
			continue;
		layers[s] = (int)floor(share[s]);
		rest -= layers[s];
	}
	for (; rest > 0; rest--)
		layers[largest_remainder(layers, set, share, stages)]++;
}

static double declared(const struct problem *problem, int node)
{
	return cluster_node(problem->cluster, node)->compute_flops;
}

/* How many nodes declare compute; *silent is one that does not. */
static int count_declared(const struct problem *problem, int *silent)
{
	int count = 0;

	for (int i = 0; i < problem->cluster->nodes.count; i++) {
		if (declared(problem, i) > 0)
			count++;
		else
			*silent = i;
	}
	return count;
}

/* Whether a node is among the so many fastest; of equals the earlier ones are. */
static bool among_fastest(const struct problem *problem, int node, int stages)
{
	double mine = declared(problem, node);
	int ahead = 0;

	for (int i = 0; i < problem->cluster->nodes.count; i++)
		ahead += i < node ? declared(problem, i) >= mine : declared(problem, i) > mine;
	return ahead < stages;
}

static void solve_declared(const struct problem *problem, struct plan *plan, int stages)
{
	const struct model_config *model = problem->model;
	int node[PLAN_STAGES_MAX], layers[PLAN_STAGES_MAX], used = 0;
	double compute[PLAN_STAGES_MAX];

	for (int i = 0; i < problem->cluster->nodes.count; i++) {
		if (!among_fastest(problem, i, stages))
			continue;
		compute[used] = declared(problem, i);
		node[used++] = i;
	}
	proportional_split(layers, compute, stages, model->blocks, model_head_flops(model) /
			   model_block_flops(model, problem->tokens));
	for (int s = 0; s < stages; s++)
		stage_add(plan, node[s], layers[s]);
}

int proportional_solve(const struct problem *problem, struct plan *plan)
{
	int silent = -1, count = count_declared(problem, &silent), stages;

	if (count == 0) {
		snprintf(plan->solver, sizeof plan->solver, "uniform");
		return uniform_solve(problem, plan);
	}
	if (silent >= 0)
		return error(EXIT_CONFIG,
			     "nodes[%d].compute: '%s' declares none, but %d of %d "
			     "nodes do: declare it for all, or use plan.solver: uniform",
			     silent, cluster_node(problem->cluster, silent)->name, count,
			     problem->cluster->nodes.count);
	stages = stages_wanted(problem);
	if (stages < 0)
		return -1;
	solve_declared(problem, plan, stages);
	return 0;
}
