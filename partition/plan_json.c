/*
 * plan_json.c - plan.json: what was decided, for programs. What was not predicted is null, so
 * that every key can be asked for.
 */
#include "partition/internal.h"

static const char *flag(bool value)
{
	return value ? "true" : "false";
}

/* "key":{"to":1,"bytes":..,"seconds":null,"codec":"none"}, or null where to is -1. A cut has as
 * many bytes in both directions: activations one way, their gradients the other. */
static void add_link(struct text *text, const char *key, const struct problem *problem,
		     const struct plan *plan, int cut, int to)
{
	text_add(text, "\"%s\":", key);
	if (to < 0)
		text_add(text, "null");
	else
		text_add(text, "{\"to\":%d,\"bytes\":%zu,\"seconds\":null,\"codec\":\"none\"}",
			 to, plan_cut_bytes(problem, plan, cut));
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
	text_add(text, "\"flops_share\":%.6f,\"forward_s\":null,\"backward_s\":null,",
		 stage->share);
	add_bytes(text, "memory_bytes", stage->memory_bytes);
	add_bytes(text, "memory_limit_bytes", stage->memory_limit_bytes);
	add_link(text, "forward_link", problem, plan, s, s < plan->stages - 1 ? s + 1 : -1);
	text_add(text, ",");
	add_link(text, "backward_link", problem, plan, s - 1, s - 1);
	text_add(text, "}");
}

static void add_left_out(struct text *text, const struct problem *problem,
			 const struct plan *plan)
{
	const char *comma = "";
	char why[128];

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

static void add_predicted(struct text *text)
{
	static const char *const keys[] = {
		"simulated_step_s", "tokens_s", "bottleneck", "lower_bound_s", "gap",
		"model_step_s", "model_minimum_s", "model_gap",
	};

	text_add(text, " \"predicted\":{");
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		text_add(text, "%s\"%s\":null", i ? "," : "", keys[i]);
	text_add(text, "},\n");
}

void plan_write(const struct plan *plan, const struct problem *problem, struct text *text)
{
	char digest[33];

	text_add(text, "{\"version\":1,\"solver\":");
	json_add_text(text, plan->solver);
	text_add(text, ",\"schedule\":");
	json_add_text(text, plan->schedule);
	text_add(text, ",\"order\":\"strict\",\"micro_batch\":%d,\"micro_batches\":%d,\n",
		 plan->micro_batch, plan->micro_batches);
	text_add(text, " \"model_digest\":\"%s\",\"profile_digest\":null,\n \"stages\":[",
		 digest_write(plan->model_digest, digest));
	for (int s = 0; s < plan->stages; s++) {
		text_add(text, "%s\n  ", s ? "," : "");
		add_stage(text, problem, plan, s);
	}
	text_add(text, "],\n");
	add_predicted(text);
	text_add(text, " \"left_out\":[");
	add_left_out(text, problem, plan);
	text_add(text, "]}\n");
}
