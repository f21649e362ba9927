/*
 * partition/instance.h - the problem as numbers alone: a chain of blocks, nodes, links.
 * Solvers, bounds and the simulator's ranking work on it, so that tests can draw random ones
 * and benchmarks can read published ones.
 */
#ifndef EDGEPIPE_PARTITION_INSTANCE_H
#define EDGEPIPE_PARTITION_INSTANCE_H

#include "partition/partition.h"

/* Seconds are of one micro-batch. Prefix sums [blocks + 1]: blocks p..q-1 take sum[q] -
 * sum[p]. */
struct instance {
	int nodes, blocks, micro_batches;	/* n, L, M */
	int stages;			/* that a plan must have; 0: any number */
	bool head_alone;		/* the last stage may hold no block */
	const char *schedule;		/* that steps are simulated with; null: eager */
	/* prefix sums of every node: [nodes][blocks + 1] */
	const double *forward_s, *backward_s;
	/* What the first and the last stage do besides their blocks, [nodes]. */
	const double *first_forward_s, *first_backward_s, *last_forward_s, *last_backward_s;
	/* Where node i stands right before node j in the chain, the cut before block p occupies
	 * their link for cut_forward[p] * link_forward_s[i * nodes + j] seconds with its
	 * activations (from i to j), for cut_backward[p] * link_backward_s[i * nodes + j] with
	 * its gradients (from j to i); they arrive latency_forward_s, latency_backward_s later.
	 * INFINITY: not linked. */
	const double *cut_forward, *cut_backward;	/* [blocks + 1] */
	const double *link_forward_s, *link_backward_s, *latency_forward_s, *latency_backward_s;
	/* Stage of blocks p..q-1, K micro-batches in flight: weights[q] - weights[p] + K
	 * (stored[q] - stored[p] + stored_cut), and of the first and last stage first_weights +
	 * K first_stored, last_... beside it. Or, if need is not null, the row of its number of
	 * blocks and its ends there: [nodes][4 * (blocks + 1)], see stage_need. */
	const double *memory_bytes;	/* [nodes]: INFINITY: no limit */
	const double *weights, *stored;	/* prefix sums */
	double first_weights, first_stored, last_weights, last_stored, stored_cut;
	const struct stage_need *const *need;
	/* [nodes]: numbers of shared interfaces, -1: none; or null: none at all */
	const int *nic_send, *nic_receive;
	int nics;
};

/* What a stage takes by the allocator, bytes: fixed + K slot + E edge, where E is K, but at
 * least EDGES_LEAST between stages. */
struct stage_need { double fixed, slot, edge; };
/* so that validation can send one, compute one and receive one */
enum { EDGES_LEAST = 3 };

/* Which node holds which blocks: stage s has blocks first[s]..first[s + 1] - 1 on node[s]. */
struct placement {
	int stages;
	int node[PLAN_STAGES_MAX], first[PLAN_STAGES_MAX + 1];
	double period_s, model_s;	/* T and J: model_step */
};

/* -- instance.c ---------------------------------------------------------------------------- */

/* Forward and backward of blocks p..q-1 on a node, ends included. last: it is the last stage,
 * with the head; the one before a head alone ends with the last block too. */
static inline double stage_forward_s(const struct instance *in, int node, int p, int q,
				     bool last)
{
	const double *sum = in->forward_s + (size_t)node * (size_t)(in->blocks + 1);

	return sum[q] - sum[p] + (p == 0 ? in->first_forward_s[node] : 0) +
	       (last ? in->last_forward_s[node] : 0);
}
static inline double stage_backward_s(const struct instance *in, int node, int p, int q,
				      bool last)
{
	const double *sum = in->backward_s + (size_t)node * (size_t)(in->blocks + 1);

	return sum[q] - sum[p] + (p == 0 ? in->first_backward_s[node] : 0) +
	       (last ? in->last_backward_s[node] : 0);
}
static inline double stage_s(const struct instance *in, int node, int p, int q, bool last)
{
	return stage_forward_s(in, node, p, q, last) + stage_backward_s(in, node, p, q, last);
}
/* How long the cut before block p occupies the link from i to j: of both directions the longer
 * one. */
static inline double cut_longest_s(const struct instance *in, int i, int j, int p)
{
	size_t at = (size_t)i * (size_t)in->nodes + (size_t)j;
	double forward = in->cut_forward[p] * in->link_forward_s[at];
	double backward = in->cut_backward[p] * in->link_backward_s[at];

	return forward > backward ? forward : backward;
}
/* l_f + l_b + 2a. */
static inline double cut_way_s(const struct instance *in, int i, int j, int p)
{
	size_t at = (size_t)i * (size_t)in->nodes + (size_t)j;

	return in->cut_forward[p] * in->link_forward_s[at] +
	       in->cut_backward[p] * in->link_backward_s[at] + in->latency_forward_s[at] +
	       in->latency_backward_s[at];
}
/* How many micro-batches a stage has room for, at most M; 0: not even one. */
int stage_room(const struct instance *instance, int node, int p, int q, bool last);
/* The problem with micro-batches of a size, from the arena; null where some node's times are
 * not known. */
const struct instance *instance_of(struct arena *arena, const struct problem *problem,
				   int micro_batch);
/* What a placement costs, for the simulator and the bound, from the arena. */
const struct costs *instance_costs(struct arena *arena, const struct instance *instance,
				   const struct placement *placement);
/* Where a plan has its blocks. */
struct placement placement_of(const struct plan *plan);
/* Whether a placement is one: every block once, in order, on different linked nodes, as many
 * stages as asked for. */
bool placement_valid(const struct instance *instance, const struct placement *placement);

/* -- model.c ------------------------------------------------------------------------------- */

/*
 * J = sum over stages and links of (tau + l_f + l_b + 2a) + (M - 1) T. The period T is the
 * least that no stage and no direction of a link exceeds and whose in-flight counts have room
 * everywhere. A micro-batch takes R_i from the start of stage i to the end of the pipeline and
 * back, so a stage that takes one up every T holds
 *
 *     K_i = min(M, ceil(R_i / T))
 *
 * of them: with less no schedule keeps that period, and the greedy order does with no more,
 * nearly. (The ceil rule, by which the eager schedule takes what room there is, asks for
 * K_{i+1} + 1 + ceil((l_f + l_b + 2a) / T): never less.) A plan with room for one everywhere
 * has T = R_0: one micro-batch after the other. Fills period_s and model_s; INFINITY where not
 * even that has room, or nodes are not linked.
 */
double model_step(const struct instance *instance, struct placement *placement);
/* K of the above from R and T. */
int model_in_flight(const struct instance *instance, double rest_s, double period_s);
/* The step by simulation: eager, strict or greedy, whichever is shorter, with what memory
 * leaves in flight; or another schedule, which must have room for its own counts. INFINITY
 * where there is no room. Of very many micro-batches some are played, for the rest their period
 * stands. */
double placement_simulate(const struct instance *instance, const struct placement *placement);
/* Its longest stage or link direction. */
double placement_longest_s(const struct instance *instance, const struct placement *placement);
/* No schedule of this placement takes less: step_bound. */
double placement_bound(const struct instance *instance, const struct placement *placement);

/* -- pool.c -------------------------------------------------------------------------------- */

/* Placements that differ, least J first; {0} is empty. */
enum { POOL_MOST = 32 };
struct pool {
	struct placement *item;
	int count;
};
/* Adds a placement whose J is known, unless it is there, or infinite, or the pool has enough
 * better ones. */
bool pool_add(struct pool *pool, const struct placement *placement);
double pool_best(const struct pool *pool);	/* J; INFINITY where it is empty */
void pool_release(struct pool *pool);

#endif
