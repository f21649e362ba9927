/*
 * gantt_svg.c - a Gantt chart drawn: forwards dark, backwards light, so that they differ without colour as well; messages
 * as thin bars between the stages, forward ones in the upper lane.
 */
#include <math.h>
#include <string.h>

#include "launch/gantt.h"
#include "launch/svg.h"

enum { WIDTH = 1040, LEFT = 150, RIGHT = 970, TOP = 44, ROW = 26, LANE = 7, CAPTION = 26, GAP = 14, FOOT = 66 };
#define FORWARD "#0072B2"
#define BACKWARD "#F0B040"
#define DIGIT 5.1			/* units that a digit is wide */

struct drawing {
	struct text *text;
	struct axis x;
	double unit_s;
	const char *unit;
	double y;			/* of what is drawn next */
};

static double row_height(int s, int stages)
{
	return s + 1 < stages ? ROW + 2 * LANE + 4 : ROW;
}

static double panel_height(const struct gantt *gantt)
{
	double height = CAPTION;

	for (int s = 0; s < gantt->stages; s++)
		height += row_height(s, gantt->stages);
	return height + GAP;
}

static double row_top(const struct drawing *d, const struct gantt *gantt, int stage)
{
	double y = d->y + CAPTION;

	for (int s = 0; s < stage; s++)
		y += row_height(s, gantt->stages);
	return y;
}

/* -- bars ---------------------------------------------------------------------------------- */

static void draw_op(const struct drawing *d, const struct gantt_bar *bar, double y)
{
	double x = axis_at(&d->x, bar->start_s / d->unit_s), width = axis_at(&d->x, bar->end_s / d->unit_s) - x;
	int digits = snprintf(NULL, 0, "%d", bar->micro);

	text_add(d->text, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%d\" class=\"%s\"/>\n", x, y, fmax(width, 0.3),
		 ROW, bar->backward ? "backward" : "forward");
	if (width > digits * DIGIT + 1)
		text_add(d->text, "<text x=\"%.2f\" y=\"%.1f\" text-anchor=\"middle\" class=\"%s\">%d</text>\n", x + width / 2,
			 y + ROW - 10.0, bar->backward ? "micro" : "micro light", bar->micro);
}

static void draw_message(const struct drawing *d, const struct gantt_bar *bar, double y)
{
	double x = axis_at(&d->x, bar->start_s / d->unit_s), width = axis_at(&d->x, bar->end_s / d->unit_s) - x;

	text_add(d->text, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%d\" class=\"%s sent\"/>\n", x,
		 y + ROW + 2 + (bar->backward ? LANE : 0), fmax(width, 0.3), LANE - 1, bar->backward ? "backward" : "forward");
}

/* -- around them --------------------------------------------------------------------------- */

static void draw_names(const struct drawing *d, const struct gantt *gantt)
{
	for (int s = 0; s < gantt->stages; s++) {
		double y = row_top(d, gantt, s);
		const char *name = gantt->name[s];

		svg_text(d->text, LEFT - 10, y + 11, "end", "", strlen(name) > 18 ? "%.17s\xe2\x80\xa6" : "%s", name);
		svg_text(d->text, LEFT - 10, y + 24, "end", "small", "%s", gantt->held[s]);
		svg_line(d->text, LEFT, y + ROW, RIGHT, y + ROW, "class=\"grid\"");
		if (gantt->step_s > 0)
			svg_text(d->text, RIGHT + 58, y + 17, "end", "", "%.0f %%",
				 100 * gantt->busy_s[s] / gantt->step_s);
	}
}

static void draw_panel(struct drawing *d, const struct gantt *gantt, const char *caption)
{
	double end = axis_at(&d->x, gantt->step_s / d->unit_s), bottom = d->y + panel_height(gantt) - GAP;

	svg_text(d->text, LEFT, d->y + 16, "start", "strong", "%s", caption);
	svg_text(d->text, RIGHT + 58, d->y + 16, "end", "small", "computes");
	draw_names(d, gantt);
	for (int i = 0; i < gantt->bars; i++) {
		double y = row_top(d, gantt, gantt->bar[i].stage);

		if (gantt->bar[i].message)
			draw_message(d, &gantt->bar[i], y);
		else
			draw_op(d, &gantt->bar[i], y);
	}
	svg_line(d->text, end, d->y + CAPTION - 4, end, bottom, "stroke=\"#000\" stroke-width=\"1\" stroke-dasharray=\"4 3\"");
	d->y = bottom + GAP;
}

static void draw_axis(const struct drawing *d)
{
	double y = d->y;
	char number[32];

	svg_line(d->text, LEFT, y, RIGHT, y, "class=\"axis\"");
	for (int i = 0; i < d->x.ticks; i++) {
		double x = axis_at(&d->x, d->x.tick[i]);

		if (x > RIGHT + 0.5)
			continue;
		svg_line(d->text, x, y, x, y + 5, "class=\"axis\"");
		svg_text(d->text, x, y + 18, "middle", "", "%s", axis_write(&d->x, d->x.tick[i], number, sizeof(number)));
	}
	svg_text(d->text, RIGHT + 12, y + 18, "start", "strong", "%s", d->unit);
}

static void draw_key(const struct drawing *d)
{
	static const struct { const char *class, *what; double height; } keys[] = {
		{"forward", "forward (number: micro-batch)", 14}, {"backward", "backward", 14},
		{"forward sent", "activations on the link", LANE - 1}, {"backward sent", "gradients on the link", LANE - 1}};
	double x = LEFT, y = d->y + 36;

	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		text_add(d->text, "<rect x=\"%.1f\" y=\"%.1f\" width=\"26\" height=\"%.0f\" class=\"%s\"/>\n", x,
			 y + 7 - keys[i].height / 2, keys[i].height, keys[i].class);
		svg_text(d->text, x + 32, y + 11, "start", "small", "%s", keys[i].what);
		x += 52 + 5.2 * (double)strlen(keys[i].what);
	}
	svg_text(d->text, RIGHT + 58, y + 11, "end", "small", "dashed: the end of the step");
}

/* The axis goes to the longest step, and a little beyond. */
static void scale(struct drawing *d, const struct gantt_panel *panel, int panels)
{
	double most = 0;

	for (int i = 0; i < panels; i++)
		most = fmax(most, panel[i].gantt->step_s);
	d->unit_s = most < 2 ? 1e-3 : 1;
	d->unit = most < 2 ? "ms" : "s";
	d->x = axis_make(0, most / d->unit_s, LEFT, RIGHT, false);
	d->x.high = most / d->unit_s * 1.005;
}

void gantt_svg(struct text *text, const char *title, const struct gantt_panel *panel, int panels, bool alone)
{
	struct drawing d = {.text = text, .y = TOP};
	double height = TOP + FOOT;

	for (int i = 0; i < panels; i++)
		height += panel_height(panel[i].gantt);
	scale(&d, panel, panels);
	svg_open(text, WIDTH, height, title, alone);
	text_add(text, "<style>.forward{fill:" FORWARD ";stroke:#fff;stroke-width:.5}.backward{fill:" BACKWARD
		 ";stroke:#fff;stroke-width:.5}.sent{opacity:.75}text.micro{font-size:9px;fill:#000}"
		 "text.light{fill:#fff}</style>\n");
	svg_text(text, 14, 26, "start", "title", "%s", title);
	for (int i = 0; i < panels; i++)
		draw_panel(&d, panel[i].gantt, panel[i].caption);
	draw_axis(&d);
	draw_key(&d);
	svg_close(text);
}
