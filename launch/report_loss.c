/* report_loss.c - the loss over the steps: of training, thin where there are many steps, with its moving mean; of validation. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch/report.h"
#include "launch/svg.h"

enum { WIDTH = 1040, HEIGHT = 340, LEFT = 70, RIGHT = 880, TOP = 44, BOTTOM = 290, MANY = 120, POINTS = 800 };
#define TRAIN "#0072B2"
#define VALID "#D55E00"

struct loss_chart { struct text *text; struct axis x, y; };

static void widen(const struct curve *curve, double *low, double *high)
{
	for (int i = 0; i < curve->count; i++) {
		*low = fmin(*low, curve->value[i]);
		*high = fmax(*high, curve->value[i]);
	}
}

static void scale(struct loss_chart *chart, const struct report *report)
{
	double low = INFINITY, high = -INFINITY, last = 1, first = report->valid.count ? 0 : 1;

	widen(&report->loss, &low, &high);
	widen(&report->valid, &low, &high);
	for (int i = 0; i < report->loss.count; i++)
		last = fmax(last, report->loss.step[i]);
	for (int i = 0; i < report->valid.count; i++)
		last = fmax(last, report->valid.step[i]);
	chart->y = axis_make(low, high, BOTTOM, TOP, false);
	chart->x = axis_make(0, last, LEFT, RIGHT, false);
	chart->x.low = first;
	chart->x.high = fmax(last, first + 1);
}

static void draw_axes(const struct loss_chart *chart)
{
	char number[32];

	for (int i = 0; i < chart->y.ticks; i++) {
		double y = axis_at(&chart->y, chart->y.tick[i]);

		svg_line(chart->text, LEFT, y, RIGHT, y, "class=\"grid\"");
		svg_text(chart->text, LEFT - 8, y + 4, "end", "", "%s",
			 axis_write(&chart->y, chart->y.tick[i], number, sizeof(number)));
	}
	for (int i = 0; i < chart->x.ticks; i++) {
		double x = axis_at(&chart->x, chart->x.tick[i]);

		if (x < LEFT - 0.5 || x > RIGHT + 0.5 || chart->x.tick[i] != rint(chart->x.tick[i]))
			continue;
		svg_line(chart->text, x, BOTTOM, x, BOTTOM + 5, "class=\"axis\"");
		svg_text(chart->text, x, BOTTOM + 19, "middle", "", "%.0f", chart->x.tick[i]);
	}
	svg_line(chart->text, LEFT, BOTTOM, RIGHT, BOTTOM, "class=\"axis\"");
	svg_line(chart->text, LEFT, TOP, LEFT, BOTTOM, "class=\"axis\"");
	svg_text(chart->text, (LEFT + RIGHT) / 2.0, BOTTOM + 38, "middle", "strong", "step");
	text_add(chart->text, "<g transform=\"translate(20 %.1f) rotate(-90)\">", (TOP + BOTTOM) / 2.0);
	svg_text(chart->text, 0, 0, "middle", "strong", "loss (nats a token)");
	text_add(chart->text, "</g>\n");
}

/* A curve as it is, or the means of `width` neighbours, at most POINTS points. */
static void draw_curve(const struct loss_chart *chart, const struct curve *curve, int width, const char *look)
{
	double *x = xzalloc((size_t)curve->count + 1, sizeof(*x)), *y = xzalloc((size_t)curve->count + 1, sizeof(*y));
	int every = curve->count / POINTS + 1, count = 0;

	for (int i = 0; i < curve->count; i += every) {
		int from = i - width / 2 < 0 ? 0 : i - width / 2;
		int to = i + width / 2 >= curve->count ? curve->count - 1 : i + width / 2;
		double sum = 0;

		for (int k = from; k <= to; k++)
			sum += curve->value[k];
		x[count] = axis_at(&chart->x, curve->step[i]);
		y[count++] = axis_at(&chart->y, sum / (to - from + 1));
	}
	svg_path(chart->text, x, y, count, look);
	free(x);
	free(y);
}

static void draw_train(const struct loss_chart *chart, const struct curve *loss)
{
	int width = loss->count / 40;

	if (loss->count <= MANY) {
		draw_curve(chart, loss, 0, "stroke=\"" TRAIN "\" stroke-width=\"1.8\"");
		return;
	}
	draw_curve(chart, loss, 0, "stroke=\"" TRAIN "\" stroke-width=\"0.8\" opacity=\"0.35\"");
	draw_curve(chart, loss, width, "stroke=\"" TRAIN "\" stroke-width=\"2\"");
}

static void draw_valid(const struct loss_chart *chart, const struct curve *valid)
{
	draw_curve(chart, valid, 0, "stroke=\"" VALID "\" stroke-width=\"1.8\" stroke-dasharray=\"6 3\"");
	for (int i = 0; i < valid->count; i++)
		text_add(chart->text, "<rect x=\"%.2f\" y=\"%.2f\" width=\"7\" height=\"7\" fill=\"" VALID
			 "\" stroke=\"#fff\"/>\n", axis_at(&chart->x, valid->step[i]) - 3.5,
			 axis_at(&chart->y, valid->value[i]) - 3.5);
}

/* The last value at the right end. */
static double label(const struct loss_chart *chart, const struct curve *curve, const char *name, double avoid)
{
	double value = curve->value[curve->count - 1], y = axis_at(&chart->y, value);

	if (fabs(y - avoid) < 16)
		y = y <= avoid ? avoid - 16 : avoid + 16;
	svg_text(chart->text, RIGHT + 10, y + 4, "start", "", "%s %.4f", name, value);
	return y;
}

void report_loss(const struct report *report, struct text *text)
{
	struct loss_chart chart = {.text = text};
	const struct curve *loss = &report->loss, *valid = &report->valid;
	double at = -100;

	scale(&chart, report);
	svg_open(text, WIDTH, HEIGHT, "Loss over the steps", false);
	draw_axes(&chart);
	if (loss->count)
		draw_train(&chart, loss);
	if (valid->count) {
		draw_valid(&chart, valid);
		at = label(&chart, valid, "validation", -100);
	}
	if (loss->count)
		label(&chart, loss, "training", at);
	svg_text(text, LEFT, 24, "start", "small", "line: training, each step before its update%s%s",
		 loss->count > MANY ? " (thin), and the mean around it (thick)" : "",
		 valid->count ? "; dashed with squares: validation" : "");
	svg_close(text);
}
