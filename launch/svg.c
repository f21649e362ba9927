/* svg.c - the elements of a picture. */
#include "launch/svg.h"

#include <string.h>

static const char *const colors[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00"};
static const char *const dashes[] = {"none", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 4"};
enum { COLORS = sizeof(colors) / sizeof(*colors), DASHES = sizeof(dashes) / sizeof(*dashes) };

const char svg_style[] =
	"text{font-family:'Helvetica Neue',Helvetica,Arial,'Liberation Sans',sans-serif;font-size:12px;fill:#222}"
	"text.small{font-size:10.5px;fill:#444}"
	"text.title{font-size:15px;font-weight:600;fill:#000}"
	"text.strong{font-weight:600;fill:#000}"
	"text.halo{font-size:11px;paint-order:stroke;stroke:#fff;stroke-width:3px}"
	".axis{stroke:#333;stroke-width:1;fill:none}"
	".grid{stroke:#ddd;stroke-width:1;fill:none}";

/* -- text ---------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 sequence at p; 0: none that XML takes. */
static size_t sequence(const unsigned char *p)
{
	size_t bytes = *p < 0x80 ? 1 : *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : 2;

	if (*p < 0x20 || *p == 0x7f || (*p >= 0x80 && *p < 0xc2) || *p > 0xf4)
		return 0;
	for (size_t i = 1; i < bytes; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/* overlong, surrogates, beyond Unicode, U+FFFE and U+FFFF */
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
	    (*p == 0xf4 && p[1] > 0x8f) || (*p == 0xef && p[1] == 0xbf && p[2] >= 0xbe))
		return 0;
	return bytes;
}

static const char *entity(unsigned char c)
{
	switch (c) {
	case '&': return "&amp;";
	case '<': return "&lt;";
	case '>': return "&gt;";
	case '"': return "&quot;";
	case '\'': return "&#39;";
	default: return NULL;
	}
}

void svg_escape(struct text *text, const char *value)
{
	const unsigned char *p = (const unsigned char *)value;

	while (*p) {
		size_t bytes = sequence(p);

		if (entity(*p))
			text_add(text, "%s", entity(*p));
		else if (bytes)
			text_put(text, p, bytes);
		else
			text_add(text, *p == '\n' || *p == '\t' ? " " : "\xef\xbf\xbd");
		p += bytes ? bytes : 1;
	}
}

void svg_text(struct text *text, double x, double y, const char *anchor, const char *class, const char *fmt, ...)
{
	struct text plain = {0};
	va_list args, again;
	int bytes;

	va_start(args, fmt);
	va_copy(again, args);
	bytes = vsnprintf(NULL, 0, fmt, args);
	plain.data = xalloc((size_t)bytes + 1);
	vsnprintf(plain.data, (size_t)bytes + 1, fmt, again);
	va_end(again);
	va_end(args);
	text_add(text, "<text x=\"%.2f\" y=\"%.2f\" text-anchor=\"%s\" class=\"%s\">", x, y, anchor, class);
	svg_escape(text, plain.data);
	text_add(text, "</text>\n");
	text_release(&plain);
}

/* -- the picture --------------------------------------------------------------------------- */

void svg_open(struct text *text, double width, double height, const char *title, bool alone)
{
	if (alone)
		text_add(text, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
	text_add(text, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
		 "role=\"img\">\n<title>", width, height, width, height);
	svg_escape(text, title);
	text_add(text, "</title>\n");
	if (alone)
		text_add(text, "<style>%s</style>\n", svg_style);
	svg_rect(text, 0, 0, width, height, "fill=\"#fff\"");
}

void svg_close(struct text *text)
{
	text_add(text, "</svg>\n");
}

void svg_line(struct text *text, double x1, double y1, double x2, double y2, const char *attributes)
{
	text_add(text, "<line x1=\"%.2f\" y1=\"%.2f\" x2=\"%.2f\" y2=\"%.2f\" %s/>\n", x1, y1, x2, y2, attributes);
}

void svg_rect(struct text *text, double x, double y, double width, double height, const char *attributes)
{
	text_add(text, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" %s/>\n", x, y, width, height, attributes);
}

void svg_path(struct text *text, const double *x, const double *y, int count, const char *attributes)
{
	text_add(text, "<polyline points=\"");
	for (int i = 0; i < count; i++)
		text_add(text, "%s%.2f,%.2f", i ? " " : "", x[i], y[i]);
	text_add(text, "\" fill=\"none\" %s/>\n", attributes);
}

/* -- curves -------------------------------------------------------------------------------- */

const char *svg_color(int i)
{
	return colors[i % COLORS];
}

const char *svg_dash(int i)
{
	return dashes[i % DASHES];
}

/* Corners of the markers after the circle, in units of their size. */
static const struct { int count; double x[6], y[6]; } shapes[] = {
	{4, {-.9, .9, .9, -.9}, {-.9, -.9, .9, .9}},
	{3, {0, 1.15, -1.15}, {-1.2, .9, .9}},
	{4, {0, 1.3, 0, -1.3}, {-1.3, 0, 1.3, 0}},
	{3, {0, 1.15, -1.15}, {1.2, -.9, -.9}},
	{6, {-1.1, -.55, .55, 1.1, .55, -.55}, {0, -1, -1, 0, 1, 1}},
};
enum { SHAPES = sizeof(shapes) / sizeof(*shapes) + 1 };

void svg_marker(struct text *text, int i, double x, double y, double size)
{
	const char *color = svg_color(i);
	int shape = i % SHAPES - 1;

	if (shape < 0) {
		text_add(text, "<circle cx=\"%.2f\" cy=\"%.2f\" r=\"%.2f\" fill=\"%s\" stroke=\"#fff\"/>\n", x, y, size, color);
		return;
	}
	text_add(text, "<polygon points=\"");
	for (int k = 0; k < shapes[shape].count; k++)
		text_add(text, "%s%.2f,%.2f", k ? " " : "", x + size * shapes[shape].x[k], y + size * shapes[shape].y[k]);
	text_add(text, "\" fill=\"%s\" stroke=\"#fff\"/>\n", color);
}
