/*
 * compare_chain.c - a chain of h servers: who is in it, what each holds, and what that costs.
 *
 * blocks and fractional take the first h servers of the file and share the FLOPs evenly among them, whatever their
 * speeds: blocks by whole blocks, fractional exactly. There the head is on the last server, and its share of blocks
 * is smaller by as much. planned asks the planner for h stages.
 */
#include "launch/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* FLOPs of one sequence. */
struct work { double forward, backward, head_forward, head_backward; };

/* As the engine computes: attention looks back only. */
static struct work causal_work(const struct comparison *c)
{
	double all = model_block_flops(c->model, c->tokens), forward = model_block_forward_flops(c->model, c->tokens);
	double again = model_block_again_flops(c->model, c->tokens, (enum recompute)c->job.train.recompute);

	return (struct work){forward * c->tokens, (all - forward + again) * c->tokens,
			     model_head_flops(c->model) * c->tokens, 0};
}

/* As published: every token attends to every one, twice what the engine computes; the head half and half. */
static struct work full_work(const struct comparison *c)
{
	double all = 2 * model_block_flops(c->model, c->tokens) - model_block_flops(c->model, 0);
	double forward = 2 * model_block_forward_flops(c->model, c->tokens) - model_block_forward_flops(c->model, 0);
	double head = model_head_flops(c->model) / 2 * c->tokens;

	return (struct work){forward * c->tokens, (all - forward) * c->tokens, head, head};
}

static struct work work_of(const struct comparison *c)
{
	return c->asked.split == SPLIT_FRACTIONAL ? full_work(c) : causal_work(c);
}

/* -- room for a chain ---------------------------------------------------------------------- */

static double *numbers(struct arena *arena, int count)
{
	return arena_take(arena, (size_t)count * sizeof(double));
}

static void chain_open(struct chain *chain, struct arena *arena, int clients, int hops)
{
	struct costs *costs = &chain->costs;

	*chain = (struct chain){0};
	chain->stage = arena_take(arena, (size_t)hops * sizeof(*chain->stage));
	chain->room = arena_take(arena, (size_t)(clients + hops) * sizeof(*chain->room));
	costs->stages = hops;
	costs->forward_s = chain->forward_s = numbers(arena, hops);
	costs->backward_s = chain->backward_s = numbers(arena, hops);
	costs->link_forward_s = chain->link_forward_s = numbers(arena, hops);
	costs->link_backward_s = chain->link_backward_s = numbers(arena, hops);
	costs->latency_forward_s = chain->latency_forward_s = numbers(arena, hops);
	costs->latency_backward_s = chain->latency_backward_s = numbers(arena, hops);
	chain->clients.count = clients;
}

/* -- links --------------------------------------------------------------------------------- */

static enum codec_kind codec_kind_of(const char *name)
{
	for (int kind = 0; kind < CODEC_KINDS; kind++)
		if (!strcmp(codec_of((enum codec_kind)kind, false)->name, name))
			return (enum codec_kind)kind;
	return CODEC_NONE;
}

/* Bytes of one element: fractional knows no frames, no channels that stay exact, and int4 both ways. */
static double published_bytes(enum codec_kind kind)
{
	const double scale = 4.0 / 128;

	return kind == CODEC_NONE ? 4 : kind == CODEC_BF16 ? 2 : kind == CODEC_INT8 ? 1 + scale : 0.5 + scale;
}

/* A micro-batch from one node of the file to another: how long it occupies the link, and its latency. decided: the codec
 * where the link leaves that to the planner. */
static void cross(const struct comparison *c, const struct compare_case *of, int from, int to, bool backward, int decided,
		  double *occupied_s, double *latency_s)
{
	struct link link = cluster_link(&c->job.cluster, from, to);
	int own = link.codec == CODEC_AUTO ? decided : link.codec;
	enum codec_kind kind = of->codec ? codec_kind_of(of->codec) : (enum codec_kind)own;
	int rows = c->asked.micro_batch * c->tokens, width = c->model->width;
	double bytes = (double)stream_tensor_bytes(kind, backward, rows, width);

	if (c->asked.split == SPLIT_FRACTIONAL)
		bytes = published_bytes(kind) * rows * width;
	*occupied_s = link.bandwidth_bytes_s > 0 ? bytes / link.bandwidth_bytes_s * c->slowdown : 0;
	*latency_s = link.latency_s * c->slowdown;
}

static void fill_nic(const struct comparison *c, int from, int to, int nic[2])
{
	nic[0] = cluster_nic(&c->job.cluster, from, false);
	nic[1] = cluster_nic(&c->job.cluster, to, true);
}

static void fill_links(struct chain *chain, struct arena *arena, const struct comparison *c,
		       const struct compare_case *of)
{
	struct costs *costs = &chain->costs;
	int (*forward)[2] = arena_take(arena, (size_t)costs->stages * sizeof(*forward));
	int (*backward)[2] = arena_take(arena, (size_t)costs->stages * sizeof(*backward));

	for (int s = 0; s + 1 < costs->stages; s++) {
		int a = chain->stage[s].node, b = chain->stage[s + 1].node;

		cross(c, of, a, b, false, chain->stage[s].codec_forward, &chain->link_forward_s[s],
		      &chain->latency_forward_s[s]);
		cross(c, of, b, a, true, chain->stage[s].codec_backward, &chain->link_backward_s[s],
		      &chain->latency_backward_s[s]);
		fill_nic(c, a, b, forward[s]);
		fill_nic(c, b, a, backward[s]);
	}
	costs->nic_forward = (const int (*)[2])forward;
	costs->nic_backward = (const int (*)[2])backward;
	costs->nics = 2 * c->job.cluster.nodes.count;
}

static void fill_clients(struct chain *chain, struct arena *arena, const struct comparison *c,
			 const struct compare_case *of)
{
	int count = c->clients, first = chain->stage[0].node;
	double *value = numbers(arena, 6 * count + 1);
	int (*up)[2] = arena_take(arena, (size_t)(2 * count + 1) * sizeof(*up));
	struct work work = work_of(c);

	chain->clients = (struct clients){
		.count = count,
		.forward_s = value,
		.backward_s = value + count,
		.up_s = value + 2 * count,
		.down_s = value + 3 * count,
		.latency_up_s = value + 4 * count,
		.latency_down_s = value + 5 * count,
		.nic_up = (const int (*)[2])up,
		.nic_down = (const int (*)[2])(up + count),
	};
	for (int i = 0; i < count; i++) {
		int node = c->client[i];
		double each = c->client_blocks * c->asked.micro_batch * c->slowdown /
			      (cluster_node(&c->job.cluster, node)->compute_flops * c->asked.efficiency);

		value[i] = work.forward * each;
		value[count + i] = work.backward * each;
		cross(c, of, node, first, false, CODEC_NONE, &value[2 * count + i], &value[4 * count + i]);
		cross(c, of, first, node, true, CODEC_NONE, &value[3 * count + i], &value[5 * count + i]);
		fill_nic(c, node, first, up[i]);
		fill_nic(c, first, node, up[count + i]);
	}
}

/* -- fractional ---------------------------------------------------------------------------- */

static void fill_fractional(struct chain *chain, const struct comparison *c)
{
	struct work work = work_of(c);
	double block = work.forward + work.backward, head = work.head_forward + work.head_backward;
	int hops = chain->costs.stages;
	double blocks = c->rest.blocks, even = (blocks * block + head) / hops;
	double with_head = fmax(0, (even - head) / block);
	double without = hops > 1 ? (blocks - with_head) / (hops - 1) : 0;

	for (int s = 0; s < hops; s++) {
		bool last = s == hops - 1;
		double held = last ? with_head : without;
		double each = c->asked.micro_batch * c->slowdown / cluster_node(&c->servers, s)->compute_flops;

		chain->stage[s] = (struct compare_stage){
			.node = c->node[s],
			.share = (held * block + last * head) / (c->model->blocks * block + head),
		};
		chain->forward_s[s] = (held * work.forward + last * work.head_forward) * each;
		chain->backward_s[s] = (held * work.backward + last * work.head_backward) * each;
	}
}

/* -- whole blocks -------------------------------------------------------------------------- */

/* How many blocks the last server takes beside the head, so that the largest share is smallest, and of equals the
 * smallest is largest. */
static int blocks_beside_head(double head, int blocks, int hops)
{
	double least = INFINITY;
	int best = blocks;

	for (int last = 0; last <= blocks - (hops - 1); last++) {
		int most = (blocks - last + hops - 2) / (hops - 1);
		double largest = fmax(most, last + head);

		if (largest > least + 1e-9)
			continue;
		least = largest;
		best = last;
	}
	return best;
}

/* plan.layers of the first `hops` servers: one more for the earlier ones where it does not come out even. */
static struct texts even_layers(struct arena *arena, const struct comparison *c, int hops)
{
	int servers = c->servers.nodes.count, blocks = c->rest.blocks;
	double head = model_head_flops(c->model) / model_block_flops(c->model, c->tokens);
	int last = hops > 1 ? blocks_beside_head(head, blocks, hops) : blocks, others = hops - 1;
	const char **item = arena_take(arena, (size_t)servers * sizeof(*item));

	for (int s = 0; s < servers; s++) {
		int each = others ? (blocks - last) / others + (s < (blocks - last) % others) : 0;

		item[s] = s >= hops ? "out" : arena_format(arena, "%d", s == hops - 1 ? last : each);
	}
	return (struct texts){item, servers};
}

/* The cluster with one codec on all links. */
static struct cluster with_codec(struct arena *arena, const struct cluster *cluster, const char *codec)
{
	struct cluster same = *cluster;
	struct link *link;

	if (!codec)
		return same;
	link = arena_take(arena, (size_t)cluster->links.count * sizeof(*link));
	if (cluster->links.count)
		memcpy(link, cluster->links.item, (size_t)cluster->links.count * sizeof(*link));
	same.links.item = link;
	same.standard.codec = codec_kind_of(codec);
	for (int i = 0; i < cluster->links.count; i++) {
		link[i].codec = codec_kind_of(codec);
		link[i].codec_given = true;
	}
	return same;
}

/* The best plan that so many servers allow: whoever plans better is asked here. */
static int plan_stages(struct problem *problem, struct plan_config *want, int hops, struct plan *plan)
{
	want->stages = hops;
	return plan_make(problem, plan);
}

static void adopt(struct chain *chain, const struct comparison *c, const struct plan *plan)
{
	for (int s = 0; s < plan->stages; s++) {
		const struct plan_stage *stage = &plan->stage[s];
		double all = c->model->blocks * model_block_flops(c->model, c->tokens) + model_head_flops(c->model);
		double rest = all - c->client_blocks * model_block_flops(c->model, c->tokens);

		chain->stage[s] = (struct compare_stage){
			.node = c->node[stage->node],
			.first_block = stage->first_block + c->client_blocks,
			.blocks = stage->blocks,
			.share = stage->share * rest / all,
			.codec_forward = plan->link[s].codec_forward,
			.codec_backward = plan->link[s].codec_backward,
		};
		chain->forward_s[s] = stage->forward_s;
		chain->backward_s[s] = stage->backward_s;
		chain->room[c->clients + s] = stage->in_flight;
	}
	chain->planned_s = plan->step_s;
}

static int fill_planned(struct chain *chain, struct arena *arena, const struct comparison *c,
			const struct compare_case *of)
{
	bool plannable = strcmp(of->schedule, "sequential") != 0;
	struct cluster cluster = with_codec(arena, &c->servers, of->codec);
	struct plan_config want = c->job.plan;
	struct plan *plan = arena_take(arena, sizeof(*plan));
	struct problem problem = {
		.cluster = &cluster,
		.model = &c->rest,
		.lora = c->lora,
		.want = &want,
		.batch = (long long)c->asked.micro_batch * of->micro_batches,
		.micro_batch = c->asked.micro_batch,
		.recompute = (enum recompute)c->job.train.recompute,
		.tokens = c->tokens,
		.slowdown = c->slowdown,
		.threads = c->threads,
		.memory_limit_bytes = c->memory_limit_bytes,
		.overhead_bytes = c->overhead_bytes,
	};

	want.schedule = plannable ? of->schedule : "1f1b";
	if (c->asked.split == SPLIT_BLOCKS) {
		want.layers = even_layers(arena, c, chain->costs.stages);
		want.solver = "manual";
	}
	if (plan_stages(&problem, &want, chain->costs.stages, plan) < 0)
		return -1;
	adopt(chain, c, plan);
	return 0;
}

int chain_make(struct chain *chain, struct arena *arena, const struct comparison *c, int hops,
	       const struct compare_case *of)
{
	int status = 0;

	chain_open(chain, arena, c->clients, hops);
	if (c->asked.split == SPLIT_FRACTIONAL)
		fill_fractional(chain, c);
	else if (hops > c->rest.blocks + 1)
		status = error(EXIT_CONFIG, "%d blocks and the head fill %d servers at most", c->rest.blocks,
			       c->rest.blocks + 1);
	else
		status = fill_planned(chain, arena, c, of);
	if (status < 0)
		return -1;
	fill_links(chain, arena, c, of);
	fill_clients(chain, arena, c, of);
	return 0;
}
