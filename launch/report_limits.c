/* report_limits.c - how much of what there is a run takes: every stage's memory of its limit, every link's time of the step. */
#include <math.h>
#include <string.h>

#include "launch/report.h"
#include "launch/svg.h"

enum { WIDTH = 1040, TOP = 40, ROW = 40, NAMES = 120, MEMORY = 132, LINKS = 640, LONG = 240, BAR = 14, THIN = 9 };
#define PEAK "#0072B2"
#define SENT "#56B4E9"
#define RETURNED "#F0B040"

/* A bar of a share of what there is, in a frame; the estimate is a tick. */
static void draw_share(struct text *text, double x, double y, double height, double share, double tick, const char *color)
{
	char look[64];

	snprintf(look, sizeof(look), "fill=\"%s\"", color);
	svg_rect(text, x, y, LONG, height, "fill=\"#fff\" stroke=\"#bbb\"");
	svg_rect(text, x, y, LONG * fmin(share, 1), height, look);
	if (tick >= 0)
		svg_line(text, x + LONG * fmin(tick, 1), y - 3, x + LONG * fmin(tick, 1), y + height + 3,
			 "stroke=\"#000\" stroke-width=\"1.5\"");
}

static void draw_memory(const struct report *report, int s, double y, struct text *text)
{
	const struct plan_stage *stage = &report->plan->stage[s];
	double peak = s < report->measures ? report->measure[s].peak_bytes : 0;
	double limit = stage->memory_limit_bytes > 0 ? stage->memory_limit_bytes : fmax(stage->memory_bytes, peak);
	char a[32], b[32], c[32];

	draw_share(text, MEMORY, y + 3, BAR, peak / limit, stage->memory_bytes / limit, PEAK);
	svg_text(text, MEMORY + LONG + 10, y + 8, "start", "small", "peak %s (measured), estimated %s",
		 unit_write(peak, UNIT_BYTES, a, sizeof(a)), unit_write(stage->memory_bytes, UNIT_BYTES, b, sizeof(b)));
	if (stage->memory_limit_bytes > 0)
		svg_text(text, MEMORY + LONG + 10, y + 22, "start", "small", "limit %s (%s)",
			 unit_write(limit, UNIT_BYTES, c, sizeof(c)),
			 cluster_node(&report->job.cluster, stage->node)->memory_bytes > 0 ? "declared" : "measured");
	else
		svg_text(text, MEMORY + LONG + 10, y + 22, "start", "small", "no limit is known");
}

/* Predicted as a tick, measured as a bar where the step was traced, else predicted as a bar. */
static void draw_direction(const struct report *report, int cut, bool backward, double y, struct text *text)
{
	const struct gantt *predicted = &report->predicted, *measured = &report->measured;
	double plan = gantt_sent_s(predicted, cut, backward) / predicted->step_s, was = plan;
	const char *arrow = backward ? "\xe2\x86\x90" : "\xe2\x86\x92";

	if (report->has_measured)
		was = gantt_sent_s(measured, cut, backward) / measured->step_s;
	draw_share(text, LINKS, y, THIN, was, report->has_measured ? plan : -1, backward ? RETURNED : SENT);
	svg_text(text, LINKS + LONG + 10, y + 9, "start", "small", report->has_measured ? "%s %.0f %% (predicted %.0f %%)"
		 : "%s %.0f %% predicted", arrow, 100 * was, 100 * plan);
}

void report_limits(const struct report *report, struct text *text)
{
	int stages = report->plan->stages;

	svg_open(text, WIDTH, TOP + stages * ROW + 12.0, "Memory and links against their limits", false);
	svg_text(text, MEMORY, 20, "start", "strong", "memory of the limit");
	if (stages > 1 && report->has_predicted)
		svg_text(text, LINKS, 20, "start", "strong", "the link to the next stage, share of the step");
	for (int s = 0; s < stages; s++) {
		const char *name = cluster_node(&report->job.cluster, report->plan->stage[s].node)->name;
		double y = TOP + s * ROW;

		svg_text(text, NAMES, y + 15, "end", "", strlen(name) > 16 ? "%.15s\xe2\x80\xa6" : "%s", name);
		draw_memory(report, s, y, text);
		if (s + 1 == stages || !report->has_predicted)
			continue;
		draw_direction(report, s, false, y, text);
		draw_direction(report, s, true, y + THIN + 4, text);
	}
	svg_close(text);
}
