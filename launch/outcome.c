/*
 * outcome.c - how the prediction came true: a table of predicted against measured at the end of a run, and what the run
 * measured in the form of a profile, from which the next plan can start.
 *
 * A stage measures the sum of its blocks and ends. What each of them took is what the profile (or the declared speed)
 * says of it, times what the stage took of its prediction. What a stage does not hold stays as it was; where nothing was
 * known of it, it is guessed from FLOPs at the speed of what the stage holds. Links are as in the profile: how long frames were on their way
 * says little of a link, since stages wait for each other.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch/session.h"

#define NOMINAL_FLOPS 1e9	/* of a node of which nothing is known: proportions are all that matters */

/* Per micro-batch, on stage i; 0 where the run had no steady step. */
struct pass_times { double forward_s, backward_s; };

static struct pass_times measured_of(const struct session *s, const struct measured *m, int stage)
{
	double count = (double)m->steps * s->plan.micro_batches;
	const struct step_times *times = &m->times[s->plan.stage[stage].node];

	return (struct pass_times){times->forward_s / count, times->backward_s / count};
}

/* -- the table ----------------------------------------------------------------------------- */

/* "12.1 ms  12.4 ms   +2.5%" */
static void add_pair(struct text *text, double predicted_s, double measured_s)
{
	char a[32], b[32];

	text_add(text, "  %9s  %9s", predicted_s > 0 ? unit_write(predicted_s, UNIT_SECONDS, a, sizeof(a)) : "-",
		 unit_write(measured_s, UNIT_SECONDS, b, sizeof(b)));
	if (predicted_s > 0)
		text_add(text, " %+6.1f%%", 100 * (measured_s / predicted_s - 1));
	else
		text_add(text, " %7s", "");
}

void outcome_say(const struct session *s, struct measured *m)
{
	const struct plan *plan = &s->plan;
	struct text text = {0};

	if (m->steps == 0)
		return;
	say("outcome of %lld steady steps, %s numbers predicted, against measured; a micro-batch:", m->steps,
	    plan_origins(plan, &s->problem));
	say("stage  %-12s  %9s  %9s %7s  %9s  %9s %7s", "node", "forward", "measured", "off by",
	    "backward", "measured", "off by");
	for (int i = 0; i < plan->stages; i++) {
		struct pass_times took = measured_of(s, m, i);

		text.bytes = 0;
		text_add(&text, "%5d  %-12s", i, s->stage_name[i]);
		add_pair(&text, plan->stage[i].forward_s, took.forward_s);
		add_pair(&text, plan->stage[i].backward_s, took.backward_s);
		say("%s", text.data);
	}
	text.bytes = 0;
	text_add(&text, " step  %-12s", "(median)");
	add_pair(&text, plan->step_s, measured_step_s(m));
	say("%s", text.data);
	text_release(&text);
}

/* -- the profile --------------------------------------------------------------------------- */

/* Seconds of FLOPs that are linear in n and in n T, at a rate. */
static struct fit flops_fit(double at_t, double at_2t, double T, double rate, enum origin origin)
{
	double slope = (at_2t - at_t) / T;

	return (struct fit){.c1 = (at_t - slope * T) / rate, .c2 = slope / rate, .origin = origin};
}

/* What the declared speed says, or a nominal one. */
static void declare_node(const struct session *s, struct node_profile *node, double declared_flops)
{
	const struct model_config *model = s->model;
	double rate = (declared_flops > 0 ? declared_flops : NOMINAL_FLOPS) / s->problem.slowdown;
	enum origin origin = declared_flops > 0 ? ORIGIN_DECLARED : ORIGIN_GUESSED;
	int T = s->data.tokens;
	double forward[2] = {model_block_forward_flops(model, T), model_block_forward_flops(model, 2 * T)};
	double both[2] = {model_block_flops(model, T), model_block_flops(model, 2 * T)};
	double again[2] = {model_block_again_flops(model, T, s->problem.recompute),
			   model_block_again_flops(model, 2 * T, s->problem.recompute)};
	double head = model_head_flops(model);

	node->block_forward = flops_fit(forward[0], forward[1], T, rate, origin);
	node->block_backward = flops_fit(both[0] - forward[0] + again[0], both[1] - forward[1] + again[1], T,
					 rate, origin);
	node->head_forward = flops_fit(head, head, T, rate, origin);
	node->head_backward.origin = node->embedding_forward.origin = node->embedding_backward.origin = origin;
}

static void declare_link(const struct session *s, struct link_profile *to, int from, int at)
{
	struct link link = cluster_link(&s->job.cluster, from, at);

	to->origin = link_origin(&s->problem, from, at);
	if (to->origin != ORIGIN_DECLARED)
		return;
	to->bandwidth_bytes_s = link.bandwidth_bytes_s / s->problem.slowdown;
	to->latency_s = link.latency_s * s->problem.slowdown;
}

/* What the plan was made from: the profile, else what is declared. */
static struct profile *start_from(const struct session *s)
{
	struct profile *profile = profile_wanted(&s->job, s->model, s->lora, s->data.tokens, s->facts);

	for (int i = 0; profile && i < profile->nodes; i++) {
		struct node_profile *node = &profile->node[i];

		if (s->profile) {
			double limit = node->limit_bytes, process = node->process_bytes;

			*node = s->profile->node[i];
			node->limit_bytes = limit;
			node->process_bytes = process;
		} else {
			declare_node(s, node, cluster_node(&s->job.cluster, i)->compute_flops);
		}
		for (int k = 0; k < profile->nodes; k++)
			if (s->profile && i != k)
				*profile_link(profile, i, k) = *profile_link(s->profile, i, k);
			else if (i != k)
				declare_link(s, profile_link(profile, i, k), i, k);
	}
	return profile;
}

/* By what was measured, where the stage holds it; what is guessed from FLOPs follows, and stays guessed. */
static void stretch(struct fit *fit, bool held, double by)
{
	if ((!held && fit->origin != ORIGIN_GUESSED) || fit->c0 + fit->c1 + fit->c2 <= 0)
		return;
	fit->c0 *= by;
	fit->c1 *= by;
	fit->c2 *= by;
	fit->error = 0;
	fit->noisy = false;
	fit->origin = held ? ORIGIN_MEASURED : ORIGIN_GUESSED;
}

/* Block, embedding, head: as far as a stage holds them. */
static double held_s(const struct plan_stage *stage, const struct fit *const fit[3], double n, double T)
{
	return stage->blocks * fit_at(fit[0], n, T) + stage->embedding * fit_at(fit[1], n, T) +
	       stage->head * fit_at(fit[2], n, T);
}

static void stretch_all(const struct plan_stage *stage, struct fit *const fit[3], double by)
{
	stretch(fit[0], stage->blocks > 0, by);
	stretch(fit[1], stage->embedding, by);
	stretch(fit[2], stage->head, by);
}

/* Stage i's blocks and ends, by what they took of what the profile says of them. */
static void correct(const struct session *s, const struct measured *m, int i, struct node_profile *node)
{
	const struct plan_stage *stage = &s->plan.stage[i];
	struct pass_times took = measured_of(s, m, i);
	double T = s->data.tokens, n = s->plan.micro_batch * T;
	struct fit *forward[] = {&node->block_forward, &node->embedding_forward, &node->head_forward};
	struct fit *backward[] = {&node->block_backward, &node->embedding_backward, &node->head_backward};
	double expected[] = {held_s(stage, (const struct fit *const *)forward, n, T),
			     held_s(stage, (const struct fit *const *)backward, n, T)};

	if (expected[0] > 0 && took.forward_s > 0)
		stretch_all(stage, forward, took.forward_s / expected[0]);
	/* A stage of the head alone may have no backward that others could be known by. */
	if (expected[1] > 0 && took.backward_s > 0)
		stretch_all(stage, backward, took.backward_s / expected[1]);
}

/* A node of which nothing was measured or declared keeps no nominal numbers. */
static void drop_nominal(struct node_profile *node)
{
	const struct fit nothing = {.origin = ORIGIN_GUESSED};

	if (node->block_forward.origin != ORIGIN_GUESSED)
		return;
	node->block_forward = node->block_backward = nothing;
	if (node->head_forward.origin == ORIGIN_GUESSED)
		node->head_forward = nothing;
}

int outcome_write(struct session *s, const struct measured *m)
{
	struct profile *profile = m->steps > 0 ? start_from(s) : NULL;
	struct text text = {0};
	int status;

	if (!profile)
		return m->steps > 0 ? -1 : 0;
	for (int i = 0; i < s->plan.stages; i++)
		correct(s, m, i, &profile->node[s->plan.stage[i].node]);
	for (int i = 0; i < profile->nodes; i++)
		drop_nominal(&profile->node[i]);
	profile_write(profile, &text);
	status = file_replace(path_join(&s->arena, s->run, "profile.measured.json"), text.data, text.bytes);
	text_release(&text);
	profile_free(profile);
	return status;
}
