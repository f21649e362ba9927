/*
 * plan_json.c - plan.json: what was decided, for programs. What was not predicted is null, so
 * that every key can be asked for.
 */
#include "partition/internal.h"

#include <math.h>

static const char *flag(bool value)
{
	return value ? "true" : "false";
}

/* A positive number, or null for what was not predicted. */
static void add_seconds(struct text *text, const char *key, double value)
{
	if (value > 0)
		text_add(text, "\"%s\":%.9g,", key, value);
	else
		text_add(text, "\"%s\":null,", key);
}

/* How much a value lies above what no value is below, as a share; 0 is an answer. */
static void add_gap(struct text *text, const char *key, double value, double least)
{
	if (value > 0 && least > 0)
		text_add(text, "\"%s\":%.9g", key, fmax(value / least - 1, 0));
	else
		text_add(text, "\"%s\":null", key);
}

/* "key":{"to":1,"bytes":..,"seconds":..,"latency_s":..,"codec":"none"}, or null where to is
 * -1. */
static void add_link(struct text *text, const char *key, const struct plan *plan, int cut,
		     int to)
{
	const struct plan_link *link = &plan->link[cut < 0 ? 0 : cut];
	bool forward = to > cut;

	text_add(text, "\"%s\":", key);
	if (to < 0) {
		text_add(text, "null");
		return;
	}
	text_add(text, "{\"to\":%d,\"bytes\":%.0f,", to,
		 forward ? link->bytes_forward : link->bytes_backward);
	add_seconds(text, "seconds", forward ? link->seconds_forward : link->seconds_backward);
	add_seconds(text, "latency_s",
		    forward ? link->latency_forward : link->latency_backward);
	text_add(
	    text, "\"codec\":\"%s\"}",
	    codec_of((enum codec_kind)(forward ? link->codec_forward : link->codec_backward),
		     !forward)
		->name);
}

static void add_bytes(struct text *text, const char *key, double bytes)
{
	if (bytes > 0)
		text_add(text, "\"%s\":%.0f,", key, bytes);
	else
		text_add(text, "\"%s\":null,", key);
}

static void add_stage(struct text *text, const struct problem *problem, const struct plan *plan,
		      int s)
{
	const struct plan_stage *stage = &plan->stage[s];
	bool none = stage->blocks == 0;

	text_add(text, "{\"stage\":%d,\"nodes\":[", s);
	json_add_text(text, cluster_node(problem->cluster, stage->node)->name);
	text_add(text, "],\"first_block\":%d,\"last_block\":%d,", none ? 0 : stage->first_block,
		 none ? -1 : stage->first_block + stage->blocks - 1);
	text_add(text, "\"embedding\":%s,\"head\":%s,\"in_flight\":%d,", flag(stage->embedding),
		 flag(stage->head), stage->in_flight);
	text_add(text, "\"flops_share\":%.6f,", stage->share);
	add_seconds(text, "forward_s", stage->forward_s);
	add_seconds(text, "backward_s", stage->backward_s);
	add_bytes(text, "memory_bytes", stage->memory_bytes);
	add_bytes(text, "memory_limit_bytes", stage->memory_limit_bytes);
	add_link(text, "forward_link", plan, s, s < plan->stages - 1 ? s + 1 : -1);
	text_add(text, ",");
	add_link(text, "backward_link", plan, s - 1, s - 1);
	text_add(text, "}");
}

static void add_left_out(struct text *text, const struct problem *problem,
			 const struct plan *plan)
{
	const char *comma = "";
	char why[160];

	for (int i = 0; i < problem->cluster->nodes.count; i++) {
		if (!left_out(problem, plan, i, why, sizeof why))
			continue;
		text_add(text, "%s{\"node\":", comma);
		json_add_text(text, cluster_node(problem->cluster, i)->name);
		text_add(text, ",\"why\":");
		json_add_text(text, why);
		text_add(text, "}");
		comma = ",";
	}
}

static void add_predicted(struct text *text, const struct plan *plan,
			  const struct problem *problem)
{
	bool known = plan->step_s > 0;

	text_add(text, " \"predicted\":{");
	add_seconds(text, "simulated_step_s", plan->step_s);
	add_seconds(text, "tokens_s",
		    known ? (double)problem->batch * problem->tokens / plan->step_s : 0);
	text_add(text, "\"bottleneck\":");
	if (known)
		json_add_text(text, plan->bottleneck);
	else
		text_add(text, "null");
	text_add(text, ",");
	add_seconds(text, "plan_bound_s", plan->bound_s);
	add_seconds(text, "lower_bound_s", plan->least_bound_s);
	add_gap(text, "gap", plan->step_s, plan->least_bound_s);
	text_add(text, ",");
	add_seconds(text, "model_step_s", plan->model_s);
	add_seconds(text, "model_minimum_s", plan->model_minimum_s);
	add_gap(text, "model_gap", plan->model_minimum_s, plan->model_proved_s);
	text_add(text, "},\n");
}

void plan_write(const struct plan *plan, const struct problem *problem, struct text *text)
{
	char digest[33];

	text_add(text, "{\"version\":1,\"solver\":");
	json_add_text(text, plan->solver);
	text_add(text, ",\"schedule\":");
	json_add_text(text, plan->schedule);
	text_add(text, ",\"order\":\"%s\",\"micro_batch\":%d,\"micro_batches\":%d,\n",
		 plan->order, plan->micro_batch, plan->micro_batches);
	text_add(text, " \"model_digest\":\"%s\",\"profile_digest\":",
		 digest_write(plan->model_digest, digest));
	if (problem->profile)
		text_add(text, "\"%s\"", digest_write(problem->profile->digest, digest));
	else
		text_add(text, "null");
	text_add(text, ",\n \"stages\":[");
	for (int s = 0; s < plan->stages; s++) {
		text_add(text, "%s\n  ", s ? "," : "");
		add_stage(text, problem, plan, s);
	}
	text_add(text, "],\n");
	add_predicted(text, plan, problem);
	text_add(text, " \"left_out\":[");
	add_left_out(text, problem, plan);
	text_add(text, "]}\n");
}
