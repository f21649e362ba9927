/*
 * report_plan.c - the plan that a run followed, with what was predicted of it: the file's own numbers, not what would be
 * decided today. The problem around it is there for the simulator and for what would help.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch/report.h"

static double number(const struct json *map, const char *key)
{
	return json_as_number(json_find(map, key), 0);
}

/* The first line of what was said becomes the reason. */
static void keep_reason(struct report *report)
{
	const char *text = error_text(), *skip = "edgepipe: error: ";

	if (!strncmp(text, skip, strlen(skip)))
		text += strlen(skip);
	snprintf(report->why, sizeof(report->why), "%.*s", (int)strcspn(text, "\n"), text);
}

/* -- the problem --------------------------------------------------------------------------- */

static void describe_nodes(struct report *report)
{
	size_t nodes = (size_t)report->job.cluster.nodes.count;
	int *threads = arena_take(&report->arena, nodes * sizeof(*threads));
	double *limit = arena_take(&report->arena, nodes * sizeof(*limit));

	for (size_t i = 0; i < nodes; i++) {
		const struct node *node = cluster_node(&report->job.cluster, (int)i);

		threads[i] = node->cores > 0 ? (int)node->cores : 1;
		limit[i] = node->memory_bytes;
	}
	report->problem.threads = threads;
	report->problem.memory_limit_bytes = limit;
	report->problem.overhead_bytes = arena_take(&report->arena, nodes * sizeof(double));
}

/* What was measured for the plan, where that was kept. */
static void open_profile(struct report *report)
{
	const char *path = path_join(&report->arena, report->run, "profile.json");

	if (path_exists(path))
		report->profile = profile_read(path);
	if (report->profile && report->profile->nodes != report->job.cluster.nodes.count) {
		profile_free(report->profile);
		report->profile = NULL;
	}
	report->problem.profile = report->profile;
}

static int make_problem(struct report *report)
{
	const char *path = path_join(&report->arena, report->run, "config.resolved.yaml");
	struct job *job = &report->job;
	int tokens;

	if (job_read(job, path, NULL, 0) || job_trace_means(job))
		return -1;
	report->model = model_config_read(job->model);
	report->lora = report->model ? lora_resolve(report->model, &job->lora) : NULL;
	tokens = report->lora ? dataset_sequence(&job->data, report->model) : -1;
	if (tokens < 0)
		return -1;
	job->plan.layers.count = 0;	/* the plan says where they went */
	report->problem = (struct problem){
		.cluster = &job->cluster,
		.model = report->model,
		.lora = report->lora,
		.want = &job->plan,
		.batch = job->train.batch,
		.micro_batch = job->train.micro_batch,
		.recompute = (enum recompute)job->train.recompute,
		.tokens = tokens,
		.slowdown = job->emulate.links || job->emulate.compute ? job->emulate.slowdown : 1,
		.links_emulated = job->emulate.links,
	};
	describe_nodes(report);
	open_profile(report);
	return 0;
}

/* -- the plan's numbers -------------------------------------------------------------------- */

static int codec_named(const char *name)
{
	for (int kind = 0; kind < CODEC_KINDS; kind++)
		if (!strcmp(codec_of((enum codec_kind)kind, false)->name, name))
			return kind;
	return CODEC_NONE;
}

/* A file without latencies has those that are declared. */
static double declared_latency(const struct report *report, int from, int to)
{
	return cluster_link(&report->job.cluster, from, to).latency_s * report->problem.slowdown;
}

static void take_link(const struct json *link, int *codec, double *bytes, double *seconds, double *latency)
{
	*codec = codec_named(json_as_text(json_find(link, "codec"), "none"));
	*bytes = number(link, "bytes");
	*seconds = number(link, "seconds");
	*latency = json_as_number(json_find(link, "latency_s"), *latency);
}

static void take_links(const struct report *report, const struct json *from, int s)
{
	struct plan *plan = report->plan;
	struct plan_link *after = &plan->link[s], *before = s > 0 ? &plan->link[s - 1] : NULL;

	if (s + 1 < plan->stages) {
		after->latency_forward = declared_latency(report, plan->stage[s].node, plan->stage[s + 1].node);
		take_link(json_find(from, "forward_link"), &after->codec_forward, &after->bytes_forward,
			  &after->seconds_forward, &after->latency_forward);
	}
	if (before) {
		before->latency_backward = declared_latency(report, plan->stage[s].node, plan->stage[s - 1].node);
		take_link(json_find(from, "backward_link"), &before->codec_backward, &before->bytes_backward,
			  &before->seconds_backward, &before->latency_backward);
	}
}

static void take_stage(struct plan *plan, const struct json *from, int s)
{
	struct plan_stage *stage = &plan->stage[s];

	stage->embedding = s == 0;
	stage->head = s == plan->stages - 1;
	stage->in_flight = (int)json_as_integer(json_find(from, "in_flight"), 1);
	stage->share = number(from, "flops_share");
	stage->forward_s = number(from, "forward_s");
	stage->backward_s = number(from, "backward_s");
	stage->memory_bytes = number(from, "memory_bytes");
	stage->memory_limit_bytes = number(from, "memory_limit_bytes");
}

/* What a hand, or a disk, has put out of any range. */
static int refuse(const char *path, const char *what)
{
	return error(EXIT_DATA, "'%s': %s", path, what);
}

static bool is_time(const struct json *map, const char *key)
{
	double value = json_as_number(json_find(map, key), 0);

	return isfinite(value) && value >= 0;
}

/* The simulator plays what stands there: every count and time must be one that a plan can have. */
static int check_stage(const struct plan *plan, const struct json *stage, const char *path)
{
	static const char *const times[] = {"forward_s", "backward_s", "memory_bytes", "memory_limit_bytes", "flops_share"};
	static const char *const links[] = {"forward_link", "backward_link"}, *const of_link[] = {"bytes", "seconds", "latency_s"};
	long long in_flight = json_as_integer(json_find(stage, "in_flight"), 1);

	if (in_flight < 1 || in_flight > plan->micro_batches)
		return refuse(path, "in_flight of a stage is not between 1 and micro_batches");
	for (size_t i = 0; i < sizeof(times) / sizeof(*times); i++)
		if (!is_time(stage, times[i]))
			return refuse(path, "a number of a stage is not a finite one of at least 0");
	for (size_t i = 0; i < 6; i++)
		if (!is_time(json_find(stage, links[i / 3]), of_link[i % 3]))
			return refuse(path, "a number of a link is not a finite one of at least 0");
	return 0;
}

static int check_plan(const struct report *report, const struct plan *plan, const char *path)
{
	const struct json *file = report->file, *predicted = json_find(file, "predicted");
	long long count = json_as_integer(json_find(file, "micro_batches"), 1);
	const char *order = json_as_text(json_find(file, "order"), "strict");

	/* plan_read has the number of stages within PLAN_STAGES_MAX, and micro_batch at least 1. */
	if (count < 1 || count > report->problem.batch || count * plan->micro_batch != report->problem.batch)
		return refuse(path, "micro_batches times micro_batch is not train.batch");
	if (strcmp(order, "strict") != 0 && strcmp(order, "greedy") != 0)
		return refuse(path, "order is not strict, and not greedy");
	if (!is_time(predicted, "simulated_step_s") || !is_time(predicted, "lower_bound_s"))
		return refuse(path, "a predicted number is not a finite one of at least 0");
	return 0;
}

static int read_plan(struct report *report)
{
	const char *path = path_join(&report->arena, report->run, "plan.json");
	struct plan *plan = report->plan = arena_take(&report->arena, sizeof(*plan));
	const struct json *predicted;

	report->file = json_read(path);
	if (!report->file || plan_read(path, &report->problem, plan) < 0)
		return -1;
	if (check_plan(report, plan, path))
		return -1;
	plan->micro_batches = (int)json_as_integer(json_find(report->file, "micro_batches"), 1);
	snprintf(plan->order, sizeof(plan->order), "%s", json_as_text(json_find(report->file, "order"), "strict"));
	for (int s = 0; s < plan->stages; s++) {
		const struct json *stage = json_at(json_find(report->file, "stages"), (size_t)s);

		if (check_stage(plan, stage, path))
			return -1;
		take_stage(plan, stage, s);
		take_links(report, stage, s);
	}
	predicted = json_find(report->file, "predicted");
	plan->step_s = number(predicted, "simulated_step_s");
	plan->bound_s = number(predicted, "lower_bound_s");
	snprintf(plan->bottleneck, sizeof(plan->bottleneck), "%s",
		 json_as_text(json_find(predicted, "bottleneck"), ""));
	report->problem.batch = (long long)plan->micro_batch * plan->micro_batches;
	return 0;
}

/* Needs the model's config.json, where the configuration says it is. */
void report_read_plan(struct report *report)
{
	error_hold();
	report->planned = make_problem(report) == 0 && read_plan(report) == 0;
	if (report->planned && report->plan->step_s > 0)
		report->has_predicted = gantt_predict(&report->predicted, &report->problem, report->plan) == 0;
	else if (report->planned)
		gantt_open(&report->predicted, &report->problem, report->plan, 0);
	if (!report->planned)
		keep_reason(report);
	error_clear();
}
