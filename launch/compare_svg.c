/*
 * compare_svg.c - training time against hop count as a picture for a paper: a curve a case, its name and its marker at its
 * right end, its best hop count ringed.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch/compare.h"
#include "launch/svg.h"

enum { WIDTH = 760, HEIGHT = 460, LEFT = 72, RIGHT = 560, TOP = 64, BOTTOM = 398, LABEL_APART = 16 };
#define LOGARITHMIC_FROM 12.0		/* the largest value over the smallest */

struct chart {
	const struct comparison *c;
	struct text *text;
	struct axis x, y;
	const char *unit;
	double unit_s;
	int cases;			/* rows of one hop count */
};

/* A curve's name at its end, pushed off its neighbours. */
struct label { int of; double y; };

/* -- scales -------------------------------------------------------------------------------- */

static void choose_unit(struct chart *chart, double least_s)
{
	static const struct { const char *name; double s, from; } units[] = {
		{"days", 86400, 3 * 86400}, {"hours", 3600, 3600}, {"minutes", 60, 120}, {"seconds", 1, 0}};

	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
		if (least_s >= units[i].from) {
			chart->unit = units[i].name;
			chart->unit_s = units[i].s;
			return;
		}
}

static void scale(struct chart *chart)
{
	const struct comparison *c = chart->c;
	double least = INFINITY, most = 0;

	for (int i = 0; i < c->rows; i++) {
		if (c->row[i].step_s <= 0)
			continue;
		least = fmin(least, c->row[i].total_s);
		most = fmax(most, c->row[i].total_s);
	}
	choose_unit(chart, least);
	chart->y = axis_make(least / chart->unit_s, most / chart->unit_s, BOTTOM, TOP, most > LOGARITHMIC_FROM * least);
	if (!chart->y.logarithmic)
		chart->y = axis_make(0, most / chart->unit_s, BOTTOM, TOP, false);
	chart->x = (struct axis){.low = c->asked.hops_first - 0.3, .high = c->asked.hops_last + 0.3, .from = LEFT, .to = RIGHT};
}

static void draw_axes(const struct chart *chart)
{
	struct text *text = chart->text;
	int first = chart->c->asked.hops_first, last = chart->c->asked.hops_last, every = (last - first) / 16 + 1;
	char number[32];

	for (int i = 0; i < chart->y.ticks; i++) {
		double y = axis_at(&chart->y, chart->y.tick[i]);

		svg_line(text, LEFT, y, RIGHT, y, "class=\"grid\"");
		svg_text(text, LEFT - 8, y + 4, "end", "", "%s",
			 axis_write(&chart->y, chart->y.tick[i], number, sizeof(number)));
	}
	for (int h = first; h <= last; h += every) {
		double x = axis_at(&chart->x, h);

		svg_line(text, x, BOTTOM, x, BOTTOM + 5, "class=\"axis\"");
		svg_text(text, x, BOTTOM + 20, "middle", "", "%d", h);
	}
	svg_line(text, LEFT, BOTTOM, RIGHT, BOTTOM, "class=\"axis\"");
	svg_line(text, LEFT, TOP, LEFT, BOTTOM, "class=\"axis\"");
	svg_text(text, (LEFT + RIGHT) / 2.0, BOTTOM + 42, "middle", "strong", "hops (servers in the chain)");
	text_add(text, "<g transform=\"translate(20 %.1f) rotate(-90)\">", (TOP + BOTTOM) / 2.0);
	svg_text(text, 0, 0, "middle", "strong", "training time (%s%s)", chart->unit,
		 chart->y.logarithmic ? ", logarithmic" : "");
	text_add(text, "</g>\n");
}

/* -- curves -------------------------------------------------------------------------------- */

static double height_of(const struct chart *chart, const struct compare_row *row)
{
	return axis_at(&chart->y, row->total_s / chart->unit_s);
}

/* The i-th case's curve; where a hop count cannot run there is a gap. */
static void draw_curve(const struct chart *chart, int of)
{
	const struct comparison *c = chart->c;
	double *x = xzalloc((size_t)c->rows + 1, sizeof(*x)), *y = xzalloc((size_t)c->rows + 1, sizeof(*y));
	char look[96];
	int count = 0;

	snprintf(look, sizeof(look), "stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"%s\"", svg_color(of), svg_dash(of));
	for (int i = of; i < c->rows + chart->cases; i += chart->cases) {
		if (i < c->rows && c->row[i].step_s > 0) {
			x[count] = axis_at(&chart->x, c->row[i].hops);
			y[count++] = height_of(chart, &c->row[i]);
			continue;
		}
		if (count > 1)
			svg_path(chart->text, x, y, count, look);
		count = 0;
	}
	for (int i = of; i < c->rows; i += chart->cases)
		if (c->row[i].step_s > 0)
			svg_marker(chart->text, of, axis_at(&chart->x, c->row[i].hops), height_of(chart, &c->row[i]), 4);
	free(x);
	free(y);
}

/* How far the nearest other point of a hop count is from a height. */
static double clearance(const struct chart *chart, const struct compare_row *row, double y)
{
	double least = INFINITY;

	for (int i = 0; i < chart->c->rows; i++) {
		const struct compare_row *other = &chart->c->row[i];

		if (other != row && other->hops == row->hops && other->step_s > 0)
			least = fmin(least, fabs(height_of(chart, other) - y));
	}
	return least;
}

/* A ring around the best hop count of a case, and its value above or below, where more room is. */
static void draw_best(const struct chart *chart, int of)
{
	const struct comparison *c = chart->c;
	const struct compare_row *best = compare_best(c, &c->row[of].of);
	char number[24];
	double x, y;

	if (!best)
		return;
	x = axis_at(&chart->x, best->hops);
	y = height_of(chart, best);
	text_add(chart->text, "<circle cx=\"%.2f\" cy=\"%.2f\" r=\"8\" fill=\"none\" stroke=\"#000\" stroke-width=\"1.4\"/>\n", x,
		 y);
	if (chart->cases > 8)
		return;
	if (clearance(chart, best, y - 16) < 12 && clearance(chart, best, y + 16) > clearance(chart, best, y - 16) &&
	    y + 24 < BOTTOM)
		y += 36;
	svg_text(chart->text, x, y - 13, "middle", best == &c->row[c->best] ? "halo strong" : "halo", "%s",
		 compare_number(best->total_s / chart->unit_s, number, sizeof(number)));
}

/* -- names --------------------------------------------------------------------------------- */

/* Only what tells the cases apart; all of it where there is one. */
static void name_case(const struct chart *chart, int of, char *name, size_t bytes)
{
	const struct compare_options *o = &chart->c->asked;
	const struct compare_case *one = &chart->c->row[of].of;
	bool alone = chart->cases == 1;
	struct text text = {0};

	if (alone || o->codecs > 1)
		text_add(&text, "%s", compare_codec(chart->c, one));
	if (alone || o->schedules > 1)
		text_add(&text, "%s%s", text.bytes ? ", " : "", one->schedule);
	if (alone || o->sizes > 1)
		text_add(&text, "%sM = %d", text.bytes ? ", " : "", one->micro_batches);
	snprintf(name, bytes, "%s", text.data ? text.data : "");
	text_release(&text);
}

static int higher_first(const void *a, const void *b)
{
	double x = ((const struct label *)a)->y, y = ((const struct label *)b)->y;

	return (x > y) - (x < y);
}

/* Where the names stand: at their curves' ends, but apart, and inside the picture. */
static int place_labels(const struct chart *chart, struct label *label)
{
	const struct comparison *c = chart->c;
	int count = 0;

	for (int of = 0; of < chart->cases; of++) {
		int last = -1;

		for (int i = of; i < c->rows; i += chart->cases)
			last = c->row[i].step_s > 0 ? i : last;
		if (last >= 0)
			label[count++] = (struct label){of, height_of(chart, &c->row[last])};
	}
	qsort(label, (size_t)count, sizeof(*label), higher_first);
	for (int i = 1; i < count; i++)
		label[i].y = fmax(label[i].y, label[i - 1].y + LABEL_APART);
	if (count && label[count - 1].y > BOTTOM)
		label[count - 1].y = BOTTOM;
	for (int i = count - 2; i >= 0; i--)
		label[i].y = fmin(label[i].y, label[i + 1].y - LABEL_APART);
	return count;
}

static void draw_labels(const struct chart *chart)
{
	struct label *label = xzalloc((size_t)chart->cases, sizeof(*label));
	int count = place_labels(chart, label);
	char look[96], name[96];

	for (int i = 0; i < count; i++) {
		int of = label[i].of;
		double y = label[i].y;

		name_case(chart, of, name, sizeof(name));
		snprintf(look, sizeof(look), "stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"%s\"", svg_color(of),
			 svg_dash(of));
		svg_line(chart->text, RIGHT + 10, y, RIGHT + 38, y, look);
		svg_marker(chart->text, of, RIGHT + 24, y, 4);
		svg_text(chart->text, RIGHT + 44, y + 4, "start", "", "%s", name);
	}
	free(label);
}

static void draw_title(const struct chart *chart)
{
	const struct comparison *c = chart->c;
	const struct compare_options *o = &c->asked;
	char clients[64] = "", tokens[32];

	if (c->clients)
		snprintf(clients, sizeof(clients), "%d client%s, ", c->clients, c->clients > 1 ? "s" : "");
	svg_text(chart->text, LEFT - 52, 24, "start", "title", "Training time against hop count: %s", c->job.cluster.name);
	svg_text(chart->text, LEFT - 52, 44, "start", "small",
		 "%s tokens, sequences of %d, %s%s split, %g %% of the declared FLOPS; simulated. Ring: the best hop count.",
		 compare_tokens(o->tokens, tokens, sizeof(tokens)), c->tokens, clients,
		 split_name(o->split), 100 * o->efficiency);
}

void compare_svg(const struct comparison *c, struct text *text)
{
	struct chart chart = {.c = c, .text = text,
			      .cases = c->asked.codecs * c->asked.schedules * c->asked.sizes};

	scale(&chart);
	svg_open(text, WIDTH, HEIGHT, "Training time against hop count", true);
	draw_title(&chart);
	draw_axes(&chart);
	for (int of = 0; of < chart.cases; of++)
		draw_curve(&chart, of);
	for (int of = 0; of < chart.cases; of++)
		draw_best(&chart, of);
	draw_labels(&chart);
	svg_close(text);
}
