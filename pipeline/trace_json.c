/*
 * trace_json.c - events as Chrome's trace format: complete events ("X"), microseconds from the
 * first one on.
 *
 * A process is a node (pid: its rank), its threads are what can go on at once there: computing,
 * and its links in both directions. A message that is received takes as long as it did to be
 * sent, and ends when it was there: on a link with latency that is later than where it was
 * sent.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/internal.h"

/* By kind of op. */
static const struct { const char *name, *category; int thread;
} looks[] = {
    [OP_RECV_FORWARD] = {"in ", "receive activations", 1},
    [OP_FORWARD] = {"F", "forward", 0},
    [OP_SEND_FORWARD] = {"out ", "send activations", 2},
    [OP_RECV_BACKWARD] = {"in ", "receive gradients", 3},
    [OP_BACKWARD] = {"B", "backward", 0},
    [OP_SEND_BACKWARD] = {"out ", "send gradients", 4},
    [OP_UPDATE] = {"U", "update", 0},
};
static const char *const threads[] = {"computes", "activations in", "activations out",
				      "gradients in", "gradients out"};
enum { THREADS = sizeof(threads) / sizeof(*threads) };

/* What is written of all events; a message came after the one before. A sender may see late that one is gone, and a
 * receiver that one is there: nothing starts before the window or lasts less than no time for that. */
struct window {
	uint32_t first, last;		/* steps */
	double start_s;
	int micro_batches;
	/* [2][stages][steps][micro_batches]: how long a message took to be sent; 0: not
	 * known */
	double *sent_s;
	double *came_s;			/* [2][stages]: when the message before was there */
	int stages, steps;
};

static struct window find_window(const struct trace_event *event, size_t count, int steps,
				 int stages)
{
	struct window w = {.start_s = INFINITY, .stages = stages};

	for (size_t i = 0; i < count; i++) {
		w.last = event[i].step > w.last ? event[i].step : w.last;
		w.micro_batches =
		    event[i].micro >= w.micro_batches ? event[i].micro + 1 : w.micro_batches;
	}
	w.first = w.last >= (uint32_t)steps ? w.last - (uint32_t)steps + 1 : 1;
	w.steps = (int)(w.last - w.first) + 1;
	for (size_t i = 0; i < count; i++)
		if (event[i].step >= w.first)
			w.start_s = fmin(w.start_s, event[i].start_s);
	return w;
}

/* stage: the sender's. */
static double *sent(const struct window *w, bool backward, int stage, uint32_t step, int micro)
{
	size_t at = (size_t)(backward * w->stages + stage);

	return &w->sent_s[(at * (size_t)w->steps + (step - w->first)) *
			      (size_t)w->micro_batches +
			  (size_t)micro];
}

static void note_sends(struct window *w, const struct trace_event *event, size_t count)
{
	w->came_s = xzalloc(2 * (size_t)w->stages, sizeof(double));
	w->sent_s =
	    xzalloc(2 * (size_t)w->stages * (size_t)w->steps * (size_t)w->micro_batches + 1,
		    sizeof(double));
	for (size_t i = 0; i < count; i++) {
		const struct trace_event *e = &event[i];

		if (e->step >= w->first &&
		    (e->kind == OP_SEND_FORWARD || e->kind == OP_SEND_BACKWARD))
			*sent(w, e->kind == OP_SEND_BACKWARD, e->stage, e->step, e->micro) =
			    e->end_s - e->start_s;
	}
}

static double start_of(const struct window *w, const struct trace_event *e)
{
	bool backward = e->kind == OP_RECV_BACKWARD;
	double took_s, start_s, *came_s = &w->came_s[backward * w->stages + e->stage];

	if (e->kind != OP_RECV_FORWARD && !backward)
		return e->start_s;
	took_s = *sent(w, backward, e->stage + (backward ? 1 : -1), e->step, e->micro);
	start_s = fmax(took_s > 0 ? e->end_s - took_s : e->start_s, fmax(*came_s, w->start_s));
	*came_s = fmax(*came_s, e->end_s);
	return start_s;
}

static void add_event(const struct window *w, const struct trace_event *e, int pid,
		      struct text *text)
{
	double start = start_of(w, e), took = fmax(e->end_s - start, 0);
	char micro[16] = "";

	if (e->kind != OP_UPDATE)
		snprintf(micro, sizeof(micro), "%d", e->micro);
	text_add(
	    text,
	    ",\n{\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,"
	    "\"name\":\"%s%s\",\"cat\":\"%s\","
	    "\"args\":{\"step\":%u,\"stage\":%d,\"micro_batch\":%d}}",
	    pid, looks[e->kind].thread, 1e6 * (start - w->start_s), 1e6 * took,
	    looks[e->kind].name, micro, looks[e->kind].category, (unsigned)e->step, e->stage,
	    e->micro);
}

static void add_names(const struct places *places, const char *const *stage_name,
		      struct text *text)
{
	for (int s = 0; s < places->stages; s++) {
		int pid = places->rank_of_stage[s];

		text_add(
		    text,
		    "%s{\"ph\":\"M\",\"pid\":%d,\"name\":\"process_name\",\"args\":{\"name\":",
		    s ? ",\n" : "\n", pid);
		json_add_text(text, stage_name[s]);
		text_add(
		    text,
		    "}},\n{\"ph\":\"M\",\"pid\":%d,\"name\":\"process_sort_index\","
		    "\"args\":{\"sort_index\":%d}}",
		    pid, s);
		for (int t = 0; t < THREADS; t++)
			text_add(
			    text,
			    ",\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"thread_name\","
			    "\"args\":{\"name\":\"%s\"}}",
			    pid, t, threads[t]);
	}
}

static int earlier_first(const void *a, const void *b)
{
	const struct trace_event *x = a, *y = b;

	return (x->start_s > y->start_s) - (x->start_s < y->start_s);
}

void trace_json(struct trace_event *event, size_t count, int steps, const struct places *places,
		const char *const *stage_name, struct text *text)
{
	struct window w = find_window(event, count, steps, places->stages);

	note_sends(&w, event, count);
	qsort(event, count, sizeof(*event), earlier_first);
	text_add(
	    text,
	    "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"first_step\":%u,\"last_step\":%u,"
	    "\"stages\":%d},"
	    "\"traceEvents\":[",
	    (unsigned)w.first, (unsigned)w.last, places->stages);
	add_names(places, stage_name, text);
	for (size_t i = 0; i < count; i++)
		if (event[i].step >= w.first)
			add_event(&w, &event[i], places->rank_of_stage[event[i].stage], text);
	text_add(text, "\n]}\n");
	free(w.sent_s);
	free(w.came_s);
}
