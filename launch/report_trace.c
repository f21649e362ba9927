/* report_trace.c - trace.json: the last step that was traced, as it went. */
#include <math.h>
#include <string.h>

#include "launch/report.h"

/* What a category of events is on a chart. */
static const struct { const char *category; bool message, backward; } kinds[] = {
	{"forward", false, false}, {"backward", false, true},
	{"send activations", true, false}, {"send gradients", true, true},
};

static double number(const struct json *map, const char *key)
{
	return json_as_number(json_find(map, key), 0);
}

static bool of_step(const struct report *report, const struct json *event)
{
	const struct json *args = json_find(event, "args");
	long long stage = json_as_integer(json_find(args, "stage"), -1);

	return json_as_integer(json_find(args, "step"), -1) == report->traced_step && stage >= 0 &&
	       stage < report->plan->stages;
}

static void add_bar(struct gantt *gantt, const struct json *event)
{
	const struct json *args = json_find(event, "args");
	const char *category = json_as_text(json_find(event, "cat"), "");
	double start = number(event, "ts") * 1e-6, lasts = number(event, "dur") * 1e-6;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		struct gantt_bar *bar = &gantt->bar[gantt->bars];
		int stage = (int)number(args, "stage");

		if (strcmp(category, kinds[i].category) != 0)
			continue;
		*bar = (struct gantt_bar){start, start + lasts, stage, (int)number(args, "micro_batch"), kinds[i].backward,
					  kinds[i].message};
		if (!bar->message)
			gantt->busy_s[stage] += lasts;
		else if (bar->backward)
			bar->stage--;	/* the cut before */
		gantt->bars += bar->stage >= 0;
	}
}

/* Times from the step's first op; a message to the step before may still be on its way then. */
static void settle(struct gantt *gantt)
{
	double first = INFINITY;

	for (int i = 0; i < gantt->bars; i++)
		first = fmin(first, gantt->bar[i].start_s);
	for (int i = 0; i < gantt->bars; i++) {
		gantt->bar[i].start_s -= first;
		gantt->bar[i].end_s -= first;
		gantt->step_s = fmax(gantt->step_s, gantt->bar[i].end_s);
	}
}

void report_read_trace(struct report *report)
{
	const char *path = path_join(&report->arena, report->run, "trace.json");
	const struct json *events;
	struct json *file;

	if (!report->planned || !path_exists(path))
		return;
	error_mute();
	file = json_read(path);
	error_unmute();
	events = json_find(file, "traceEvents");
	report->traced_step = json_as_integer(json_find(json_find(file, "otherData"), "last_step"), -1);
	gantt_open(&report->measured, &report->problem, report->plan, (int)json_size(events) + 1);
	for (size_t i = 0; i < json_size(events); i++)
		if (of_step(report, json_at(events, i)))
			add_bar(&report->measured, json_at(events, i));
	settle(&report->measured);
	/* A trace of an earlier start says nothing of this one. */
	report->has_measured = report->measured.bars > 0 && report->loss.count > 0 &&
			       report->loss.step[report->loss.count - 1] == (double)report->traced_step;
	json_free(file);
}

double gantt_sent_s(const struct gantt *gantt, int cut, bool backward)
{
	double sum = 0;

	for (int i = 0; i < gantt->bars; i++)
		if (gantt->bar[i].message && gantt->bar[i].stage == cut && gantt->bar[i].backward == backward)
			sum += gantt->bar[i].end_s - gantt->bar[i].start_s;
	return sum;
}
