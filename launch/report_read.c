/* report_read.c - metrics.jsonl: what was measured. */
#include <stdlib.h>
#include <string.h>

#include "launch/report.h"
#include "pipeline/pipeline.h"

/* A line in hand. */
struct reading {
	struct report *report;
	const struct json *line;
	long long first;		/* step of the last start; its first step warms up */
	int steady;			/* steps that the measures are sums of */
};

static double number(const struct json *map, const char *key)
{
	return json_as_number(json_find(map, key), 0);
}

static void append(struct curve *curve, double step, double value)
{
	curve->step[curve->count] = step;
	curve->value[curve->count++] = value;
}

static void add_measures(struct reading *r)
{
	struct report *report = r->report;
	const struct json *stages = json_find(r->line, "stages");
	int count = (int)json_size(stages);

	if (!report->measure && count <= PLAN_STAGES_MAX) {
		report->measure = arena_take(&report->arena, (size_t)count * sizeof(*report->measure));
		report->measures = count;
	}
	if (count != report->measures)
		return;
	r->steady++;
	for (int s = 0; s < count; s++) {
		const struct json *stage = json_at(stages, (size_t)s);
		struct stage_measure *m = &report->measure[s];

		m->forward_s += number(stage, "forward_s");
		m->backward_s += number(stage, "backward_s");
		m->idle_s += number(stage, "idle_s");
		m->send_s += number(stage, "send_s");
		m->sent_bytes += number(stage, "sent_bytes");
		if (number(stage, "peak_bytes") > m->peak_bytes)
			m->peak_bytes = number(stage, "peak_bytes");
	}
}

/* A start; what was measured before a resumption may be of another plan. */
static void take_start(struct reading *r)
{
	struct report *report = r->report;

	snprintf(report->time, sizeof(report->time), "%s", json_as_text(json_find(r->line, "time"), ""));
	report->steps = json_as_integer(json_find(r->line, "steps"), 0);
	report->measure = NULL;
	report->measures = report->step_s.count = r->steady = 0;
	report->code = -1;
	r->first = json_as_integer(json_find(r->line, "from_step"), 1);
}

static void take_line(struct reading *r)
{
	struct report *report = r->report;
	const char *kind = json_as_text(json_find(r->line, "kind"), "");

	if (!strcmp(kind, "run")) {
		take_start(r);
	} else if (!strcmp(kind, "step")) {
		append(&report->loss, number(r->line, "step"), number(r->line, "loss"));
		if (number(r->line, "step") <= (double)r->first && (double)report->steps > number(r->line, "step"))
			return;
		append(&report->step_s, number(r->line, "step"), number(r->line, "step_s"));
		add_measures(r);
	} else if (!strcmp(kind, "valid")) {
		append(&report->valid, number(r->line, "step"), number(r->line, "loss"));
	} else if (!strcmp(kind, "end")) {
		report->tokens_s = number(r->line, "tokens_s");
		report->wall_s = number(r->line, "wall_s");
		report->predicted_step_s = number(r->line, "predicted_step_s");
		report->code = (int)json_as_integer(json_find(r->line, "exit"), -1);
	}
}

/* Whether a validation followed a step. */
static bool validated(const struct report *report, double step)
{
	for (int i = 0; i < report->valid.count; i++)
		if (report->valid.step[i] == step)
			return true;
	return false;
}

/* As measured_step_s, of which this is the file's side. */
static double median_step(const struct report *report)
{
	const struct curve *took = &report->step_s;
	double *plain = xzalloc((size_t)took->count + 1, sizeof(*plain)), median;
	int count = 0;

	for (int i = 0; i < took->count; i++)
		if (!validated(report, took->step[i]))
			plain[count++] = took->value[i];
	for (int i = 0; i < took->count && count == 0; i++)
		plain[i] = took->value[i];
	median = median_of(plain, count > 0 ? count : took->count);
	free(plain);
	return median;
}

static void summarise(struct reading *r)
{
	struct report *report = r->report;

	report->median_step_s = median_step(report);
	for (int s = 0; s < report->measures && r->steady; s++) {
		struct stage_measure *m = &report->measure[s];

		m->forward_s /= r->steady;
		m->backward_s /= r->steady;
		m->idle_s /= r->steady;
		m->send_s /= r->steady;
		m->sent_bytes /= r->steady;
	}
}

static void open_curves(struct report *report, const char *data)
{
	struct curve *const curves[] = {&report->loss, &report->valid, &report->step_s};
	size_t lines = 1;

	for (const char *at = data; (at = strchr(at, '\n')); at++)
		lines++;
	for (size_t i = 0; i < sizeof(curves) / sizeof(*curves); i++) {
		curves[i]->step = arena_take(&report->arena, lines * sizeof(double));
		curves[i]->value = arena_take(&report->arena, lines * sizeof(double));
	}
}

/* Whole lines; a last one that is cut short is that of a run which was killed. */
static int read_lines(struct reading *r, const char *path, const char *data)
{
	size_t number_of = 1;

	for (const char *end; (end = strchr(data, '\n')); data = end + 1, number_of++) {
		struct json *line = json_parse_at(data, (size_t)(end - data), path, number_of);

		if (!line)
			return -1;
		r->line = line;
		take_line(r);
		json_free(line);
	}
	return 0;
}

int report_read(struct report *all)
{
	const char *path = path_join(&all->arena, all->run, "metrics.jsonl");
	struct reading reading = {.report = all, .first = 1};
	size_t bytes;
	char *data;
	int status;

	all->code = -1;
	if (!path_exists(path))
		return error(EXIT_INPUT, "'%s' holds no run: it has no metrics.jsonl", all->run);
	data = file_read(path, &bytes);
	if (!data)
		return -1;
	open_curves(all, data);
	status = read_lines(&reading, path, data);
	free(data);
	summarise(&reading);
	return status;
}
