/*
 * launch/svg.h - pictures as SVG, written into a struct text. Every text is escaped here, whatever a node is called.
 *
 * A picture is to be read on white paper, by the colour-blind, and in black and white: lines differ in marker and dash as
 * well as in colour, areas in lightness. No script, nothing from outside.
 */
#ifndef EDGEPIPE_LAUNCH_SVG_H
#define EDGEPIPE_LAUNCH_SVG_H

#include "base/base.h"

/* -- svg.c --------------------------------------------------------------------------------- */

/* For text inside of elements and attributes of XML and HTML: markup and what XML forbids. */
void svg_escape(struct text *text, const char *value);

/* A whole picture of so many units; title and description are for those who cannot see it. Complete as a file with
 * alone, else to stand in a page that has svg_style once. */
void svg_open(struct text *text, double width, double height, const char *title, bool alone);
void svg_close(struct text *text);
/* The rules of the classes below, as CSS. */
extern const char svg_style[];

/* Classes: "axis" (black, thin), "grid" (light), "name" (text), "small", "title", "strong" (bold text), "halo"
 * (text over lines), and any
 * attributes in the form of  fill="#fff" . */
void svg_line(struct text *text, double x1, double y1, double x2, double y2, const char *attributes);
void svg_rect(struct text *text, double x, double y, double width, double height, const char *attributes);
/* anchor: "start", "middle", "end". */
void svg_text(struct text *text, double x, double y, const char *anchor, const char *class, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));
/* Points joined by lines. */
void svg_path(struct text *text, const double *x, const double *y, int count, const char *attributes);

/* The look of the i-th curve: colours of Okabe and Ito, without the yellow; dash is "none" for the first. */
const char *svg_color(int i);
const char *svg_dash(int i);
/* Its marker at a point: circle, square, triangle, diamond, ... */
void svg_marker(struct text *text, int i, double x, double y, double size);

/* -- axis.c -------------------------------------------------------------------------------- */

enum { TICKS_MAX = 24 };

/* Values low..high lie on from..to (to may be the smaller one: upwards). */
struct axis {
	double low, high, from, to;
	bool logarithmic;
	double tick[TICKS_MAX];
	int ticks;
};
/* An axis of round ticks around low..high: begins at 0 where that is near or below, unless it is logarithmic. */
struct axis axis_make(double low, double high, double from, double to, bool logarithmic);
double axis_at(const struct axis *axis, double value);
/* A tick as text, with as many digits as its neighbours need; returns buffer. */
const char *axis_write(const struct axis *axis, double value, char *buffer, size_t bytes);

#endif
