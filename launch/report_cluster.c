/*
 * report_cluster.c - the plan as a picture of the cluster: nodes in the pipeline's order with what they hold, the links
 * between them with their rates, and how busy both are in a predicted step.
 */
#include <math.h>
#include <string.h>

#include "launch/report.h"
#include "launch/svg.h"

enum { WIDTH = 1040, COLUMNS = 5, BOX = 128, GAP = 82, TALL = 96, ROW = 150, LEFT = 34, TOP = 12 };
#define BUSY "#0072B2"

/* Where a stage's box is. */
static double box_x(int s)
{
	return LEFT + s % COLUMNS * (BOX + GAP);
}

static double box_y(int s)
{
	return TOP + s / COLUMNS * ROW;
}

static const char *rate_of(double bytes_s, char *buffer, size_t bytes)
{
	if (bytes_s <= 0)
		snprintf(buffer, bytes, "no limit declared");
	else if (bytes_s >= 1.25e8)
		snprintf(buffer, bytes, "%.3g Gbit/s", bytes_s * 8e-9);
	else
		snprintf(buffer, bytes, "%.3g Mbit/s", bytes_s * 8e-6);
	return buffer;
}

static void draw_box(const struct report *report, int s, struct text *text)
{
	const struct plan_stage *stage = &report->plan->stage[s];
	const struct node *node = cluster_node(&report->job.cluster, stage->node);
	const struct node_profile *found = report->profile ? &report->profile->node[stage->node] : NULL;
	double x = box_x(s), y = box_y(s), share = 0;
	char unit[32];

	if (report->has_predicted)
		share = report->predicted.busy_s[s] / report->predicted.step_s;
	svg_rect(text, x, y, BOX, TALL, "rx=\"6\" fill=\"#f6f8fa\" stroke=\"#333\"");
	svg_text(text, x + 10, y + 20, "start", "strong", strlen(node->name) > 17 ? "%.16s\xe2\x80\xa6" : "%s", node->name);
	svg_text(text, x + 10, y + 37, "start", "", "%s", report->predicted.held[s]);
	if (found && found->block_forward.origin == ORIGIN_MEASURED && found->matmul_flops > 0)
		svg_text(text, x + 10, y + 53, "start", "small", "%s measured",
			 unit_write(found->matmul_flops, UNIT_FLOPS, unit, sizeof(unit)));
	else if (node->compute_flops > 0)
		svg_text(text, x + 10, y + 53, "start", "small", "%s declared",
			 unit_write(node->compute_flops, UNIT_FLOPS, unit, sizeof(unit)));
	svg_text(text, x + 10, y + 68, "start", "small", "%s estimated", unit_write(stage->memory_bytes, UNIT_BYTES, unit,
										   sizeof(unit)));
	if (!report->has_predicted)
		return;
	svg_rect(text, x + 10, y + 77, BOX - 20, 8, "fill=\"#fff\" stroke=\"#999\"");
	svg_rect(text, x + 10, y + 77, (BOX - 20) * fmin(share, 1), 8, "fill=\"" BUSY "\"");
}

/* An arrow along a row, or from the end of one to the start of the next; back: the other way. */
static void draw_arrow(int s, bool back, struct text *text)
{
	bool wraps = (s + 1) % COLUMNS == 0;
	double y = box_y(s) + (back ? 58 : 38), x1 = box_x(s) + BOX + 4, x2 = box_x(s + 1) - 4;
	const char *end = back ? "marker-start=\"url(#arrow)\"" : "marker-end=\"url(#arrow)\"";

	if (wraps)
		text_add(text, "<path d=\"M%.1f %.1f h18 V%.1f H%.1f V%.1f h8\" class=\"axis\" %s/>\n", x1, y,
			 box_y(s + 1) - (back ? 20.0 : 28.0), box_x(s + 1) - (back ? 14.0 : 8.0),
			 box_y(s + 1) + (back ? 58.0 : 38.0), end);
	else
		text_add(text, "<path d=\"M%.1f %.1f H%.1f\" class=\"axis\" %s/>\n", x1, y, x2, end);
}

/* What is written at a link: rate forward; rate backward where it differs, else the latency; how busy both are. */
struct link_words { char forward[32], backward[32], busy[48]; };

/* As the plan reckoned with it: measured, else declared. */
static struct link link_of(const struct report *report, int s, bool back)
{
	const struct plan_link *found = &report->plan->link[s];
	int a = report->plan->stage[s + back].node, b = report->plan->stage[s + !back].node;
	struct link link = cluster_link(&report->job.cluster, a, b);
	double bytes = back ? found->bytes_backward : found->bytes_forward;
	double seconds = back ? found->seconds_backward : found->seconds_forward;

	if (link_origin(&report->problem, a, b) != ORIGIN_MEASURED || !(seconds > 0))
		return link;
	link.bandwidth_bytes_s = bytes / seconds;
	link.latency_s = back ? found->latency_backward : found->latency_forward;
	return link;
}

static struct link_words describe(const struct report *report, int s)
{
	const struct plan *plan = report->plan;
	struct link forward = link_of(report, s, false), backward = link_of(report, s, true);
	double m = plan->micro_batches, step_s = report->predicted.step_s;
	struct link_words words = {"", "", ""};

	rate_of(forward.bandwidth_bytes_s, words.forward, sizeof(words.forward));
	if (backward.bandwidth_bytes_s != forward.bandwidth_bytes_s)
		rate_of(backward.bandwidth_bytes_s, words.backward, sizeof(words.backward));
	else if (forward.latency_s > 0)
		snprintf(words.backward, sizeof(words.backward), "%.3g ms", forward.latency_s * 1e3);
	if (report->has_predicted)
		snprintf(words.busy, sizeof(words.busy), "busy %.0f, %.0f %%", 100 * m * plan->link[s].seconds_forward / step_s,
			 100 * m * plan->link[s].seconds_backward / step_s);
	return words;
}

static void draw_link(const struct report *report, int s, struct text *text)
{
	struct link_words words = describe(report, s);
	double middle = box_x(s) + BOX + GAP / 2.0, y = box_y(s);

	draw_arrow(s, false, text);
	draw_arrow(s, true, text);
	if ((s + 1) % COLUMNS == 0) {
		svg_text(text, box_x(s) + BOX, y + TALL + 16, "end", "small", "%s%s%s%s%s", words.forward,
			 words.backward[0] ? ", " : "", words.backward, words.busy[0] ? ", " : "", words.busy);
		return;
	}
	svg_text(text, middle, y + 32, "middle", "small", "%s", words.forward);
	svg_text(text, middle, y + 72, "middle", "small", "%s", words.backward);
	svg_text(text, middle, y + 87, "middle", "small", "%s", words.busy);
}

void report_cluster(const struct report *report, struct text *text)
{
	int stages = report->plan->stages, rows = (stages + COLUMNS - 1) / COLUMNS;

	svg_open(text, WIDTH, TOP + rows * ROW - (ROW - TALL) + 16.0, "The plan: nodes in the pipeline's order", false);
	text_add(text, "<defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" "
		 "orient=\"auto-start-reverse\"><path d=\"M0 0 L8 4 L0 8 z\" fill=\"#333\"/></marker></defs>\n");
	for (int s = 0; s < stages; s++)
		draw_box(report, s, text);
	for (int s = 0; s + 1 < stages; s++)
		draw_link(report, s, text);
	svg_close(text);
}
