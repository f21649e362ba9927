/*
 * partition/instance.h - the problem as numbers alone: a chain of blocks, nodes, links. Solvers, bounds and the
 * simulator's ranking work on it, so that tests can draw random ones and benchmarks can read published ones.
 */
#ifndef EDGEPIPE_PARTITION_INSTANCE_H
#define EDGEPIPE_PARTITION_INSTANCE_H

#include "partition/partition.h"

/* Seconds are of one micro-batch. Prefix sums [blocks + 1]: blocks p..q-1 take sum[q] - sum[p]. */
struct instance {
	int nodes, blocks, micro_batches;	/* n, L, M */
	int stages;			/* that a plan must have; 0: any number */
	bool head_alone;		/* the last stage may hold no block */
	const double *forward_s, *backward_s;	/* prefix sums of every node: [nodes][blocks + 1] */
	/* What the first and the last stage do besides their blocks, [nodes]. */
	const double *first_forward_s, *first_backward_s, *last_forward_s, *last_backward_s;
	/* A message over the cut before block p occupies the link from i to j for cut[p] * link_s[i * nodes + j]
	 * seconds and arrives latency_s[i * nodes + j] later. INFINITY: not linked. */
	const double *cut_forward, *cut_backward;	/* [blocks + 1] */
	const double *link_s, *latency_s;
	/* Stage of blocks p..q-1, K micro-batches in flight: weights[q] - weights[p] + K (stored[q] - stored[p] +
	 * stored_cut), and of the first and last stage first_weights + K first_stored, last_... beside it. */
	const double *memory_bytes;	/* [nodes]: INFINITY: no limit */
	const double *weights, *stored;	/* prefix sums */
	double first_weights, first_stored, last_weights, last_stored, stored_cut;
	const int *nic_send, *nic_receive;	/* [nodes]: numbers of shared interfaces, -1: none; or null: none at all */
};

/* Which node holds which blocks: stage s has blocks first[s]..first[s + 1] - 1 on node[s]. */
struct placement {
	int stages;
	int node[PLAN_STAGES_MAX], first[PLAN_STAGES_MAX + 1];
	double period_s, model_s;	/* J and its T: model_step */
};

/* What a placement costs, for the simulator and the bound, from the arena. */
const struct costs *instance_costs(struct arena *arena, const struct instance *instance,
				   const struct placement *placement);
/*
 * J = sum over stages and links of (tau + l_f + l_b + 2a) + (M - 1) T, where the period T is the least that no stage
 * and no link direction exceeds and whose in-flight counts fit the memory of all: K of the last stage is 1, then
 * K_i = min(M, K_{i+1} + 1 + ceil((l_f + l_b + 2a) / T)). Fills period_s and model_s; INFINITY where no T fits.
 */
double model_step(const struct instance *instance, struct placement *placement);
/* The step by simulation: eager, strict or greedy, whichever is shorter, with what memory leaves in flight. INFINITY
 * where not even one micro-batch fits. */
double placement_simulate(const struct instance *instance, const struct placement *placement);

#endif
