/*
 * cost.c - what a plan costs: from what a profile measured, else from declared rates, FLOPs
 * over declared compute, bytes over declared bandwidth. The head's gradient is computed with
 * its loss, so all its work is in the forward.
 */
#include "partition/internal.h"

#include <string.h>

/* As it would be at the declared pace. */
static struct node_cost declared_cost(const struct problem *problem, int node, int micro_batch)
{
	const struct model_config *model = problem->model;
	double rate = cluster_node(problem->cluster, node)->compute_flops;
	double forward = model_block_forward_flops(model, problem->tokens);
	double again = model_block_again_flops(model, problem->tokens, problem->recompute);
	double backward = model_block_flops(model, problem->tokens) - forward + again;
	double each = (double)micro_batch * problem->tokens / rate * problem->slowdown;

	if (rate <= 0)
		return (struct node_cost){.known = false};
	return (struct node_cost){
		.known = true,
		.block_forward_s = forward * each,
		.block_backward_s = backward * each,
		.head_forward_s = model_head_flops(model) * each,
	};
}

/* Measured on the node as it is held, if it is: emulate.slowdown is in there already. */
static struct node_cost profiled_cost(const struct problem *problem, int node, int micro_batch)
{
	const struct node_profile *found = &problem->profile->node[node];
	double n = (double)micro_batch * problem->tokens, T = problem->tokens;

	return (struct node_cost){
		.known = true,
		.block_forward_s = fit_at(&found->block_forward, n, T),
		.block_backward_s = fit_at(&found->block_backward, n, T),
		.embedding_forward_s = fit_at(&found->embedding_forward, n, T),
		.embedding_backward_s = fit_at(&found->embedding_backward, n, T),
		.head_forward_s = fit_at(&found->head_forward, n, T),
		.head_backward_s = fit_at(&found->head_backward, n, T),
		.update_s = found->update_s,
	};
}

enum origin cost_origin(const struct problem *problem, int node)
{
	const struct node_profile *found =
	    problem->profile ? &problem->profile->node[node] : NULL;

	if (found && found->block_forward.origin != ORIGIN_GUESSED)
		return found->block_forward.origin;
	return cluster_node(problem->cluster, node)->compute_flops > 0 ? ORIGIN_DECLARED
								       : ORIGIN_GUESSED;
}

struct node_cost cost_node(const struct problem *problem, int node, int micro_batch)
{
	const struct profile *profile = problem->profile;

	if (profile && profile->node[node].block_forward.origin != ORIGIN_GUESSED)
		return profiled_cost(problem, node, micro_batch);
	return declared_cost(problem, node, micro_batch);
}

void plan_pace(const struct problem *problem, const struct plan *plan, int s, double *forward_s,
	       double *backward_s)
{
	const struct plan_stage *stage = &plan->stage[s];
	struct node_cost cost = declared_cost(problem, stage->node, plan->micro_batch);

	*forward_s = stage->blocks * cost.block_forward_s + stage->head * cost.head_forward_s;
	*backward_s = stage->blocks * cost.block_backward_s;
}

static void fill_stage(const struct problem *problem, const struct plan *plan,
		       struct plan_stage *stage)
{
	struct node_cost cost = cost_node(problem, stage->node, plan->micro_batch);

	stage->forward_s = stage->blocks * cost.block_forward_s +
			   stage->embedding * cost.embedding_forward_s +
			   stage->head * cost.head_forward_s;
	stage->backward_s = stage->blocks * cost.block_backward_s +
			    stage->embedding * cost.embedding_backward_s +
			    stage->head * cost.head_backward_s;
}

/* What the profile says of a link; null: nothing. A link that follows a trace was measured at
 * one moment of it: its mean is what counts. */
static const struct link_profile *found_link(const struct problem *problem,
					     const struct link *link, int from, int to)
{
	const struct link_profile *found =
	    problem->profile ? profile_link(problem->profile, from, to) : NULL;

	return found && found->origin != ORIGIN_GUESSED && !link->trace ? found : NULL;
}

/* What a link carries and how late, as measured or as declared. */
static void link_speed(const struct problem *problem, const struct link *link, int from, int to,
		       double *bytes_s, double *latency_s)
{
	const struct link_profile *found = found_link(problem, link, from, to);

	*bytes_s = link->bandwidth_bytes_s / problem->slowdown;
	*latency_s = link->latency_s * problem->slowdown;
	if (!found)
		return;
	*bytes_s = link_profile_rate(found);
	*latency_s = found->latency_s;
}

enum origin link_origin(const struct problem *problem, int from, int to)
{
	struct link link = cluster_link(problem->cluster, from, to);
	const struct link_profile *found = found_link(problem, &link, from, to);

	if (found)
		return found->origin;
	return link.bandwidth_bytes_s > 0 || link.latency_s > 0 ? ORIGIN_DECLARED
								: ORIGIN_GUESSED;
}

/* One direction of a cut. *codec is what was decided, for a link that is to choose; else the
 * link's own. */
static void fill_direction(const struct problem *problem, int micro_batch,
			   const struct link *link, int from, int to, bool backward, int *codec,
			   double *bytes, double *seconds, double *latency)
{
	double bytes_s;

	if (link->codec != CODEC_AUTO)
		*codec = link->codec;
	*bytes =
	    (double)stream_tensor_bytes((enum codec_kind) * codec, backward,
					micro_batch * problem->tokens, problem->model->width);
	link_speed(problem, link, from, to, &bytes_s, latency);
	*seconds = bytes_s > 0 ? *bytes / bytes_s : 0;
}

struct plan_link cost_cut(const struct problem *problem, int upstream, int downstream,
			  int micro_batch, const struct plan_link *decided)
{
	struct link down = cluster_link(problem->cluster, upstream, downstream);
	struct link up = cluster_link(problem->cluster, downstream, upstream);

	return cost_cut_by(problem, &down, &up, upstream, downstream, micro_batch, decided);
}

struct plan_link cost_cut_by(const struct problem *problem, const struct link *down,
			     const struct link *up, int upstream, int downstream,
			     int micro_batch, const struct plan_link *decided)
{
	struct plan_link link = *decided;

	fill_direction(problem, micro_batch, down, upstream, downstream, false,
		       &link.codec_forward, &link.bytes_forward, &link.seconds_forward,
		       &link.latency_forward);
	fill_direction(problem, micro_batch, up, downstream, upstream, true,
		       &link.codec_backward, &link.bytes_backward, &link.seconds_backward,
		       &link.latency_backward);
	return link;
}

void cost_fill(const struct problem *problem, struct plan *plan)
{
	for (int s = 0; s < plan->stages; s++)
		fill_stage(problem, plan, &plan->stage[s]);
	for (int s = 0; s + 1 < plan->stages; s++)
		plan->link[s] = cost_cut(problem, plan->stage[s].node, plan->stage[s + 1].node,
					 plan->micro_batch, &plan->link[s]);
}

/* The interfaces that a message from one node to another passes. */
static void fill_nics(const struct cluster *cluster, int from, int to, int nic[2])
{
	nic[0] = cluster_nic(cluster, from, false);
	nic[1] = cluster_nic(cluster, to, true);
}

const struct costs *cost_of(struct arena *arena, const struct problem *problem,
			    const struct plan *plan)
{
	size_t stages = (size_t)plan->stages;
	double *value = arena_take(arena, 7 * stages * sizeof(*value));
	double *forward = value, *backward = value + stages;
	double *link_f = value + 2 * stages, *link_b = value + 3 * stages;
	double *latency_f = value + 4 * stages, *latency_b = value + 5 * stages,
	       *update = value + 6 * stages;
	int (*nic)[2] = arena_take(arena, 2 * stages * sizeof(*nic));
	struct costs *costs = arena_take(arena, sizeof(*costs));

	for (size_t s = 0; s < stages; s++) {
		const struct plan_stage *stage = &plan->stage[s];
		struct node_cost cost = cost_node(problem, stage->node, plan->micro_batch);

		if (!cost.known)
			return NULL;
		update[s] = stage->blocks * cost.update_s;
		forward[s] = stage->forward_s;
		backward[s] = stage->backward_s;
		link_f[s] = plan->link[s].seconds_forward;
		link_b[s] = plan->link[s].seconds_backward;
		latency_f[s] = plan->link[s].latency_forward;
		latency_b[s] = plan->link[s].latency_backward;
		if (s + 1 == stages)
			continue;
		fill_nics(problem->cluster, stage->node, stage[1].node, nic[s]);
		fill_nics(problem->cluster, stage[1].node, stage->node, nic[stages + s]);
	}
	*costs = (struct costs){
		.stages = plan->stages,
		.forward_s = forward,
		.backward_s = backward,
		.update_s = update,
		.link_forward_s = link_f,
		.link_backward_s = link_b,
		.latency_forward_s = latency_f,
		.latency_backward_s = latency_b,
		.nic_forward = nic,
		.nic_backward = nic + stages,
		.nics = 2 * problem->cluster->nodes.count,
	};
	return costs;
}

/* -- the prediction ------------------------------------------------------------------------ */

/* What is occupied longest in a step, so far: of equals the first, whichever rounding lifts. */
struct busiest { double s; const char *kind; int index; };

static void consider(struct busiest *b, double s, const char *kind, int index)
{
	if (b->kind && s <= b->s * (1 + 1e-9))
		return;
	*b = (struct busiest){s, kind, index};
}

/* What passes an interface for a micro-batch. */
static double interface_s(const struct costs *c, int nic)
{
	double s = 0;

	for (int i = 0; i + 1 < c->stages; i++) {
		if (c->nic_forward[i][0] == nic || c->nic_forward[i][1] == nic)
			s += c->link_forward_s[i];
		if (c->nic_backward[i][0] == nic || c->nic_backward[i][1] == nic)
			s += c->link_backward_s[i];
	}
	return s;
}

/* The bottleneck: the stage, direction of a link, or interface that a micro-batch occupies
 * longest. */
static struct busiest find_busiest(const struct costs *c)
{
	struct busiest b = {0, NULL, 0};

	for (int s = 0; s < c->stages; s++)
		consider(&b, c->forward_s[s] + c->backward_s[s], "stage", s);
	for (int s = 0; s + 1 < c->stages; s++)
		consider(&b, c->link_forward_s[s], "forward link", s);
	for (int s = 0; s + 1 < c->stages; s++)
		consider(&b, c->link_backward_s[s], "backward link", s);
	for (int nic = 0; nic < c->nics; nic++)
		consider(&b, interface_s(c, nic), "interface", nic);
	return b;
}

static void name_bottleneck(const struct cluster *cluster, const struct costs *costs,
			    struct plan *plan)
{
	struct busiest b = find_busiest(costs);

	if (!strcmp(b.kind, "interface"))
		snprintf(plan->bottleneck, sizeof(plan->bottleneck), "%s %s", b.kind,
			 cluster_node(cluster, b.index % cluster->nodes.count)->nic);
	else
		snprintf(plan->bottleneck, sizeof(plan->bottleneck), "%s %d", b.kind, b.index);
}

void cost_predict(const struct problem *problem, struct plan *plan)
{
	struct arena arena = {0};
	const struct costs *costs = cost_of(&arena, problem, plan);
	struct schedule *schedule = costs ? plan_schedule(&arena, problem, plan) : NULL;
	struct simulation *simulation = schedule ? simulate(&arena, schedule, costs) : NULL;

	plan->step_s = plan->bound_s = 0;
	if (simulation) {
		plan->step_s = simulation->step_s;
		plan->bound_s = step_bound(costs, plan->micro_batches, NULL, NULL);
		name_bottleneck(problem->cluster, costs, plan);
	}
	arena_release(&arena);
}

const char *plan_origins(const struct plan *plan, const struct problem *problem)
{
	int measured = 0, others = 0;

	for (int s = 0; s < plan->stages; s++) {
		const struct plan_stage *stage = &plan->stage[s];

		*(cost_origin(problem, stage->node) == ORIGIN_MEASURED ? &measured : &others) +=
		    1;
		if (s + 1 < plan->stages)
			*(link_origin(problem, stage->node, stage[1].node) == ORIGIN_MEASURED
			      ? &measured
			      : &others) += 1;
	}
	return others == 0 ? "measured" : measured == 0 ? "declared" : "measured and declared";
}
