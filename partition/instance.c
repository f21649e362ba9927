/*
 * instance.c - from a problem to numbers, and what placements of it cost.
 *
 * Memory is the allocator's own arithmetic, sampled for every number of blocks with and without
 * the ends; the frames of cuts are not in it, so it is never more than the plan's own. What is
 * accepted here is checked again, exactly, when the plan is made.
 */
#include "partition/instance.h"

#include <math.h>
#include <stdlib.h>

#include "partition/internal.h"

/* -- memory -------------------------------------------------------------------------------- */

/* By its row: of its number of blocks, the embedding, the head. */
static const struct stage_need *need_of(const struct instance *in, int node, int p, int q,
					bool last)
{
	return &in->need[node][(2 * (p == 0) + last) * (in->blocks + 1) + q - p];
}

static double needed_by_row(const struct stage_need *need, bool alone, int in_flight)
{
	int edges = alone || in_flight > EDGES_LEAST ? in_flight : EDGES_LEAST;

	return need->fixed + in_flight * need->slot + edges * need->edge;
}

static double needed(const struct instance *in, int node, int p, int q, bool last,
		     int in_flight)
{
	bool first = p == 0;
	double weights, stored;

	if (in->need)
		return needed_by_row(need_of(in, node, p, q, last), first && last, in_flight);
	weights = in->weights[q] - in->weights[p] + (first ? in->first_weights : 0) +
		  (last ? in->last_weights : 0);
	stored = in->stored[q] - in->stored[p] + in->stored_cut +
		 (first ? in->first_stored : 0) + (last ? in->last_stored : 0);
	return weights + in_flight * stored;
}

int stage_room(const struct instance *in, int node, int p, int q, bool last)
{
	double memory = in->memory_bytes[node] * (1 + 1e-12);
	int low = 0, high = in->micro_batches;

	if (needed(in, node, p, q, last, high) <= memory)
		return high;
	while (high - low > 1) {
		int mid = (low + high) / 2;

		if (needed(in, node, p, q, last, mid) <= memory)
			low = mid;
		else
			high = mid;
	}
	return low;
}

/* By the allocator, without the frames of cuts: which codec they will have is not known. */
static double sampled(const struct problem *problem, struct plan *scratch,
		      struct plan_stage stage)
{
	scratch->stages = 1;
	scratch->stage[0] = stage;
	return (double)plan_memory(problem, scratch, 0).total;
}

/* The allocator's arithmetic is affine in slots and in edges, up to rounding: no sample is
 * below the row. */
static struct stage_need sample_need(const struct problem *problem, struct plan *scratch,
				     struct plan_stage stage)
{
	static const int in_flight[] = {1, 2, EDGES_LEAST, 2 * EDGES_LEAST};
	bool alone = stage.embedding && stage.head;
	double least, slots, edges;
	struct stage_need need;

	stage.in_flight = stage.edges = EDGES_LEAST;
	least = sampled(problem, scratch, stage);
	stage.edges = 2 * EDGES_LEAST;
	edges = sampled(problem, scratch, stage);
	stage.in_flight = 2 * EDGES_LEAST;
	slots = sampled(problem, scratch, stage);
	need = (struct stage_need){.fixed = INFINITY, .slot = (slots - edges) / EDGES_LEAST,
				   .edge = (edges - least) / EDGES_LEAST};
	for (size_t i = 0; i < sizeof in_flight / sizeof *in_flight; i++) {
		int k = in_flight[i];

		stage.in_flight = k;
		stage.edges = alone || k > EDGES_LEAST ? k : EDGES_LEAST;
		need.fixed = fmin(need.fixed, sampled(problem, scratch, stage) - k * need.slot -
						  stage.edges * need.edge);
	}
	return need;
}

/* Whether every block has as many adapters, so that it does not matter which of them a stage
 * holds. */
static bool alike(const struct lora *lora, int blocks)
{
	int from, to, first_from, first_to;

	lora_range(lora, 0, 1, &first_from, &first_to);
	for (int b = 1; b < blocks; b++) {
		lora_range(lora, b, 1, &from, &to);
		if (to - from != first_to - first_from)
			return false;
	}
	return true;
}

/* Of stages with so many blocks and these ends, wherever they lie, the least. */
static struct stage_need least_need(const struct problem *problem, struct plan *scratch,
				    int node, int ends, int blocks, bool any)
{
	int last = problem->model->blocks - blocks, p = ends & 2   ? 0
							: ends & 1 ? last
								   : last > 0;
	struct plan_stage stage = {.node = node,
				   .blocks = blocks,
				   .first_block = p,
				   .embedding = ends & 2,
				   .head = ends & 1};
	struct stage_need need = sample_need(problem, scratch, stage);

	for (p++; ends == 0 && !any && p < last; p++) {
		struct stage_need other;

		stage.first_block = p;
		other = sample_need(problem, scratch, stage);
		need.fixed = fmin(need.fixed, other.fixed);
		need.slot = fmin(need.slot, other.slot);
		need.edge = fmin(need.edge, other.edge);
	}
	return need;
}

static const struct stage_need *sample_needs(struct arena *arena, const struct problem *problem,
					     struct plan *scratch, int node)
{
	int row = problem->model->blocks + 1;
	struct stage_need *need = arena_take(arena, 4 * (size_t)row * sizeof(*need));
	bool any = alike(problem->lora, problem->model->blocks);

	for (int ends = 0; ends < 4; ends++)
		for (int blocks = ends != 1; blocks < row; blocks++)
			need[ends * row + blocks] =
			    least_need(problem, scratch, node, ends, blocks, any);
	return need;
}

/* Nodes with as many threads need as much; but where links are emulated, all but node 0 keep
 * copies of what they send it. */
static void fill_memory(struct arena *arena, const struct problem *problem,
			struct plan *scratch, struct instance *in)
{
	const struct stage_need **need = arena_take(arena, (size_t)in->nodes * sizeof(*need));
	double *limit = arena_take(arena, (size_t)in->nodes * sizeof(*limit));

	for (int d = 0; d < in->nodes; d++) {
		for (int before = problem->links_emulated; before < d && !need[d]; before++)
			if (problem->threads[before] == problem->threads[d])
				need[d] = need[before];
		if (!need[d])
			need[d] = sample_needs(arena, problem, scratch, d);
		limit[d] = problem->memory_limit_bytes[d] > 0
			       ? problem->memory_limit_bytes[d] - problem->overhead_bytes[d]
			       : INFINITY;
	}
	in->need = need;
	in->memory_bytes = limit;
}

/* -- times --------------------------------------------------------------------------------- */

static bool fill_times(struct arena *arena, const struct problem *problem, int micro_batch,
		       struct instance *in)
{
	size_t n = (size_t)in->nodes, row = (size_t)in->blocks + 1;
	double *forward = arena_take(arena, n * row * sizeof(double));
	double *backward = arena_take(arena, n * row * sizeof(double));
	double *ends = arena_take(arena, 4 * n * sizeof(double));

	for (size_t d = 0; d < n; d++) {
		struct node_cost cost = cost_node(problem, (int)d, micro_batch);

		if (!cost.known)
			return false;
		for (size_t p = 0; p < row; p++) {
			forward[d * row + p] = (double)p * cost.block_forward_s;
			backward[d * row + p] = (double)p * cost.block_backward_s;
		}
		ends[d] = cost.embedding_forward_s;
		ends[n + d] = cost.embedding_backward_s;
		ends[2 * n + d] = cost.head_forward_s;
		ends[3 * n + d] = cost.head_backward_s;
	}
	in->forward_s = forward;
	in->backward_s = backward;
	in->first_forward_s = ends;
	in->first_backward_s = ends + n;
	in->last_forward_s = ends + 2 * n;
	in->last_backward_s = ends + 3 * n;
	return true;
}

static void fill_links(struct arena *arena, const struct problem *problem, int micro_batch,
		       struct instance *in)
{
	size_t n = (size_t)in->nodes;
	const struct plan_link lossiest = {
	    CODEC_AUTO_LOSSIEST, CODEC_AUTO_LOSSIEST, 0, 0, 0, 0, 0, 0};
	double *value = arena_take(arena, 4 * n * n * sizeof(double)), *one;
	const struct link **entry = xalloc(n * n * sizeof(*entry));

	cluster_entries(problem->cluster, entry);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < n; j++) {
			size_t at = i * n + j;
			struct link down =
			    cluster_link_by(problem->cluster, entry[at], (int)i, (int)j);
			struct link up =
			    cluster_link_by(problem->cluster, entry[j * n + i], (int)j, (int)i);
			struct plan_link link = cost_cut_by(problem, &down, &up, (int)i, (int)j,
							    micro_batch, &lossiest);

			value[at] = link.seconds_forward;
			value[n * n + at] = link.seconds_backward;
			value[2 * n * n + at] = link.latency_forward;
			value[3 * n * n + at] = link.latency_backward;
		}
	free(entry);
	in->link_forward_s = value;
	in->link_backward_s = value + n * n;
	in->latency_forward_s = value + 2 * n * n;
	in->latency_backward_s = value + 3 * n * n;
	one = arena_take(arena, ((size_t)in->blocks + 1) * sizeof(double));
	for (int p = 0; p <= in->blocks; p++)
		one[p] = 1;
	in->cut_forward = in->cut_backward = one;
}

static void fill_interfaces(struct arena *arena, const struct problem *problem,
			    struct instance *in)
{
	int *nic = arena_take(arena, 2 * (size_t)in->nodes * sizeof(int));
	bool any = false;

	for (int d = 0; d < in->nodes; d++) {
		nic[d] = cluster_nic(problem->cluster, d, false);
		nic[in->nodes + d] = cluster_nic(problem->cluster, d, true);
		any = any || nic[d] >= 0;
	}
	if (!any)
		return;
	in->nic_send = nic;
	in->nic_receive = nic + in->nodes;
	in->nics = 2 * in->nodes;
}

const struct instance *instance_of(struct arena *arena, const struct problem *problem,
				   int micro_batch)
{
	struct instance *in = arena_take(arena, sizeof(*in));
	struct plan *scratch = arena_take(arena, sizeof(*scratch));

	in->nodes = problem->cluster->nodes.count;
	in->blocks = problem->model->blocks;
	in->micro_batches = (int)(problem->batch / micro_batch);
	in->stages = (int)problem->want->stages;
	in->head_alone = true;
	in->schedule = problem->want->schedule;
	scratch->micro_batch = micro_batch;
	if (!fill_times(arena, problem, micro_batch, in))
		return NULL;
	fill_links(arena, problem, micro_batch, in);
	fill_memory(arena, problem, scratch, in);
	fill_interfaces(arena, problem, in);
	return in;
}

/* -- placements ---------------------------------------------------------------------------- */

struct placement placement_of(const struct plan *plan)
{
	struct placement at = {.stages = plan->stages};

	for (int s = 0; s < plan->stages; s++) {
		at.node[s] = plan->stage[s].node;
		at.first[s + 1] = plan->stage[s].first_block + plan->stage[s].blocks;
	}
	return at;
}

bool placement_valid(const struct instance *in, const struct placement *at)
{
	int stages = at->stages;

	if (stages < 1 || stages > in->nodes || (in->stages && stages != in->stages) ||
	    at->first[0] != 0 || at->first[stages] != in->blocks)
		return false;
	for (int s = 0; s < stages; s++) {
		bool may_be_empty = in->head_alone && stages > 1 && s == stages - 1;

		if (at->first[s + 1] - at->first[s] < !may_be_empty || at->node[s] < 0 ||
		    at->node[s] >= in->nodes)
			return false;
		for (int before = 0; before < s; before++)
			if (at->node[before] == at->node[s])
				return false;
		if (s > 0 && isinf(cut_way_s(in, at->node[s - 1], at->node[s], at->first[s])))
			return false;
	}
	return true;
}

static void fill_cut(const struct instance *in, const struct placement *at, int s,
		     double *cut[4])
{
	size_t link = (size_t)at->node[s] * (size_t)in->nodes + (size_t)at->node[s + 1];
	int p = at->first[s + 1];

	cut[0][s] = in->cut_forward[p] * in->link_forward_s[link];
	cut[1][s] = in->cut_backward[p] * in->link_backward_s[link];
	cut[2][s] = in->latency_forward_s[link];
	cut[3][s] = in->latency_backward_s[link];
}

const struct costs *instance_costs(struct arena *arena, const struct instance *in,
				   const struct placement *at)
{
	size_t stages = (size_t)at->stages;
	double *value = arena_take(arena, 6 * stages * sizeof(*value));
	double *cut[4] = {value + 2 * stages, value + 3 * stages, value + 4 * stages,
			  value + 5 * stages};
	int (*nic)[2] = arena_take(arena, 2 * stages * sizeof(*nic));
	struct costs *costs = arena_take(arena, sizeof(*costs));

	for (int s = 0; s < at->stages; s++) {
		bool last = s + 1 == at->stages;

		value[s] =
		    stage_forward_s(in, at->node[s], at->first[s], at->first[s + 1], last);
		value[stages + (size_t)s] =
		    stage_backward_s(in, at->node[s], at->first[s], at->first[s + 1], last);
		if (last)
			break;
		fill_cut(in, at, s, cut);
		if (!in->nic_send)
			continue;
		nic[s][0] = in->nic_send[at->node[s]];
		nic[s][1] = in->nic_receive[at->node[s + 1]];
		nic[stages + (size_t)s][0] = in->nic_send[at->node[s + 1]];
		nic[stages + (size_t)s][1] = in->nic_receive[at->node[s]];
	}
	*costs = (struct costs){
		.stages = at->stages,
		.forward_s = value,
		.backward_s = value + stages,
		.link_forward_s = cut[0],
		.link_backward_s = cut[1],
		.latency_forward_s = cut[2],
		.latency_backward_s = cut[3],
		.nic_forward = in->nic_send ? nic : NULL,
		.nic_backward = in->nic_send ? nic + stages : NULL,
		.nics = in->nics,
	};
	return costs;
}
