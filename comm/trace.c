/*
 * trace.c - bandwidth over time, as somebody measured it: for links that are emulated.
 *
 * 	seconds,mbit_s		(this line may be missing)
 * 	0,41.2
 * 	1,38.75			# what follows a hash is a comment
 * 	2,3.1
 *
 * Each rate holds for one second; after the last row the first follows again. Rates below
 * RATE_LEAST are refused: a message that met only such rows would as good as never arrive.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "comm/comm.h"

#define RATE_LEAST 1e-3		/* Mbit/s: 8 s for a kilobyte */
enum { ERRORS_SHOWN = 20 };

/* A file while it is read. */
struct reader {
	const char *path;
	int line, errors;
	bool header;		/* it was there, or may not come any more */
	struct link_trace *trace;
	int room;		/* of trace->bytes_s */
	double second;		/* of the row before; NaN before the first */
};

/* -- rows ---------------------------------------------------------------------------------- */

static void wrong(struct reader *reader, const char *why)
{
	reader->errors++;
	if (reader->errors <= ERRORS_SHOWN)
		report(EXIT_DATA, "%s:%d: error: %s", reader->path, reader->line, why);
	else if (reader->errors == ERRORS_SHOWN + 1)
		report(EXIT_DATA, "%s:%d: error: too many errors: the rest is not shown",
		       reader->path, reader->line);
}

static void add(struct reader *reader, double bytes_s)
{
	struct link_trace *trace = reader->trace;

	if (trace->count == reader->room) {
		int room = reader->room ? reader->room * 2 : 256;
		double *larger = xalloc((size_t)room * sizeof *larger);

		if (trace->count)
			memcpy(larger, trace->bytes_s, (size_t)trace->count * sizeof *larger);
		free(trace->bytes_s);
		trace->bytes_s = larger;
		reader->room = room;
	}
	trace->bytes_s[trace->count++] = bytes_s;
}

/* A decimal number at *text, which it moves behind; false: none is there. */
static bool take_number(char **text, double *value)
{
	size_t bytes;
	char *end;

	*text += strspn(*text, " \t");
	bytes = strspn(*text, "0123456789.eE+-");	/* not what strtod takes besides */
	*value = strtod(*text, &end);
	if (bytes == 0 || end != *text + bytes)
		return false;
	*text = end + strspn(end, " \t");
	return true;
}

static void check_second(struct reader *reader, double second)
{
	char why[128];

	if (second < 0 || second != floor(second)) {
		wrong(reader, "the seconds must be whole numbers: 0, 1, 2, ...");
		return;
	}
	if (second <= reader->second) {
		snprintf(why, sizeof why, "second %.0f comes after second %.0f", second,
			 reader->second);
		wrong(reader, why);
	} else if (second > reader->second + 1) {
		snprintf(why, sizeof why, "a gap: second %.0f comes after second %.0f", second,
			 reader->second);
		wrong(reader, why);
	}
	reader->second = second;
}

static void read_row(struct reader *reader, char *text, const char *end)
{
	double second, mbit_s;

	if (!take_number(&text, &second) || *text++ != ',' || !take_number(&text, &mbit_s) ||
	    text != end) {
		wrong(reader, "not a row of two numbers, seconds,mbit_s");
		return;
	}
	check_second(reader, second);
	if (!(mbit_s >= RATE_LEAST) || isinf(mbit_s))
		wrong(reader, "the rate must be at least 0.001 Mbit/s");
	add(reader, mbit_s * 1e6 / 8);
}

/* A line without its line feed, ended by a NUL. */
static void read_line(struct reader *reader, char *text, char *end)
{
	char *comment = memchr(text, '#', (size_t)(end - text));

	if (comment)
		end = comment;
	while (end > text && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
		end--;
	*end = '\0';
	text += strspn(text, " \t");
	if (text == end)
		return;
	if (reader->header || strcmp(text, "seconds,mbit_s") != 0)
		read_row(reader, text, end);
	reader->header = true;
}

/* -- the trace ----------------------------------------------------------------------------- */

struct link_trace *link_trace_read(const char *path)
{
	struct reader reader = {.path = path, .second = NAN};
	size_t bytes;
	char *data = file_read(path, &bytes), *text = data;

	if (!data)
		return NULL;
	reader.trace = xzalloc(1, sizeof *reader.trace);
	while (text < data + bytes) {
		size_t left = (size_t)(data + bytes - text);
		char *end = memchr(text, '\n', left);

		if (!end)
			end = data + bytes;
		reader.line++;
		read_line(&reader, text, end);
		text = end + 1;
	}
	free(data);
	if (reader.errors == 0 && reader.trace->count == 0) {
		reader.line++;
		wrong(&reader, "no rows of seconds,mbit_s");
	}
	if (reader.errors) {
		link_trace_free(reader.trace);
		return NULL;
	}
	return reader.trace;
}

void link_trace_free(struct link_trace *trace)
{
	if (!trace)
		return;
	free(trace->bytes_s);
	free(trace);
}

double link_trace_end(const struct link_trace *trace, double start, double bytes)
{
	double second = floor(start), into = start - second, period = 0;

	for (int rows = 0;; rows++) {
		double rate = trace->bytes_s[(long long)second % trace->count];
		double rest = (1 - into) * rate;

		if (bytes <= rest)
			return second + into + bytes / rate;
		bytes -= rest;
		period += rows ? rest : 0;
		second += 1;
		into = 0;
		/* all rows once: what is left passes in whole periods first */
		if (rows == trace->count) {
			second += floor(bytes / period) * trace->count;
			bytes = fmod(bytes, period);
		}
	}
}
