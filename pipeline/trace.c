/*
 * trace.c - what a rank did when. Nothing is allocated while it does it: a ring holds the last
 * steps, so that a trace shows how a run goes once it is under way, whatever its first steps
 * had to warm up.
 *
 * Ranks have clocks of their own. Rank 0 asks every rank for its time, a few times, and takes
 * the answer that was quickest; what that says the other clock is ahead may be off by half of
 * the way there and back. Less than that is no difference.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/internal.h"

/* of an event in the file, about */
enum { KINDS = OP_UPDATE + 1, QUESTIONS = 12, LINE_BYTES = 140 };

struct trace {
	struct trace_event *event;	/* what was computed: a ring */
	long room, count;
	struct transfer_log log[KINDS];	/* of the transfers' kinds */
};

struct trace *trace_open(int steps, int micro_batches)
{
	struct trace *trace = xzalloc(1, sizeof(*trace));
	size_t messages = (size_t)steps * (size_t)micro_batches;

	trace->room = (long)(2 * messages) + steps;
	trace->event = xzalloc((size_t)trace->room, sizeof(*trace->event));
	for (int kind = 0; kind < KINDS; kind++) {
		if (kind == OP_FORWARD || kind == OP_BACKWARD || kind == OP_UPDATE)
			continue;
		trace->log[kind].room = (long)messages;
		trace->log[kind].event = xzalloc(messages, sizeof(struct transfer_event));
	}
	return trace;
}

double trace_bytes(long long steps, long long micro_batches, int ranks)
{
	double computed = (double)steps * (2.0 * (double)micro_batches + 1),
	       sent = 4.0 * (double)steps * (double)micro_batches;
	double ring =
	    computed * sizeof(struct trace_event) + sent * sizeof(struct transfer_event);
	double events = (computed + sent) * sizeof(struct trace_event),
	       written = (computed + sent) * LINE_BYTES;

	/* To be sent they are copied into one array; who writes has all of them twice, and the
	 * file's text. */
	return ring + events + ranks * (2 * events + written);
}

void trace_add(struct trace *trace, struct op op, uint32_t step, double start_s, double end_s)
{
	if (trace)
		trace->event[trace->count++ % trace->room] =
			(struct trace_event){start_s, end_s, op.kind, op.micro, step, -1};
}

struct transfer_log *trace_log(struct trace *trace, enum op_kind kind)
{
	return &trace->log[kind];
}

void trace_close(struct trace *trace)
{
	if (!trace)
		return;
	for (int kind = 0; kind < KINDS; kind++)
		free(trace->log[kind].event);
	free(trace->event);
	free(trace);
}

static long kept(long count, long room)
{
	return count < room ? count : room;
}

struct trace_event *trace_events(const struct trace *trace, int stage, size_t *count)
{
	size_t all = (size_t)kept(trace->count, trace->room), n = 0;
	struct trace_event *event;

	for (int kind = 0; kind < KINDS; kind++)
		all += (size_t)kept(trace->log[kind].count, trace->log[kind].room);
	event = xzalloc(all + 1, sizeof(*event));
	for (long i = trace->count - kept(trace->count, trace->room); i < trace->count; i++) {
		event[n] = trace->event[i % trace->room];
		event[n++].stage = stage;
	}
	for (int kind = 0; kind < KINDS; kind++) {
		const struct transfer_log *log = &trace->log[kind];

		for (long i = log->count - kept(log->count, log->room); i < log->count; i++) {
			const struct transfer_event *e = &log->event[i % log->room];

			event[n++] = (struct trace_event){e->start_s,	     e->end_s, kind,
							  (int32_t)e->micro, e->step,  stage};
		}
	}
	*count = n;
	return event;
}

/* -- gathering ----------------------------------------------------------------------------- */

/* How far a rank's clock is ahead of this one's, 0. */
static int ask_clock(struct comm *comm, int rank, double *ahead_s)
{
	double quickest = INFINITY;

	*ahead_s = 0;
	for (int i = 0; i < QUESTIONS; i++) {
		double start = clock_s(), there, now;

		if (comm_send_now(comm, rank, TAG_CLOCK, &start, sizeof(start)) ||
		    comm_recv_now(comm, rank, TAG_CLOCK, &there, sizeof(there)))
			return -1;
		now = clock_s();
		if (now - start >= quickest)
			continue;
		quickest = now - start;
		*ahead_s = there - (start + now) / 2;
		if (fabs(*ahead_s) <= quickest / 2)
			*ahead_s = 0;
	}
	return 0;
}

static int tell_clock(struct comm *comm)
{
	double value;

	for (int i = 0; i < QUESTIONS; i++) {
		if (comm_recv_now(comm, 0, TAG_CLOCK, &value, sizeof(value)))
			return -1;
		value = clock_s();
		if (comm_send_now(comm, 0, TAG_CLOCK, &value, sizeof(value)))
			return -1;
	}
	return 0;
}

/* All ranks' events in one array, by this clock. */
static int join(struct comm *comm, void **piece, const size_t *bytes, struct trace_event **all,
		size_t *count)
{
	size_t sum = 0;

	for (int rank = 0; rank < comm->size; rank++)
		sum += bytes[rank] / sizeof(**all);
	*all = xzalloc(sum + 1, sizeof(**all));
	*count = 0;
	for (int rank = 0; rank < comm->size; rank++) {
		double ahead_s = 0;
		size_t n = bytes[rank] / sizeof(**all);

		if (rank > 0 && ask_clock(comm, rank, &ahead_s))
			return -1;
		memcpy(*all + *count, piece[rank], n * sizeof(**all));
		for (size_t i = 0; i < n; i++, ++*count) {
			(*all)[*count].start_s -= ahead_s;
			(*all)[*count].end_s -= ahead_s;
		}
	}
	return 0;
}

static int write_all(struct comm *comm, void **piece, const size_t *bytes, int steps,
		     const struct places *places, const char *const *stage_name,
		     const char *path)
{
	struct trace_event *all = NULL;
	struct text text = {0};
	size_t count;
	int status = join(comm, piece, bytes, &all, &count);

	if (!status) {
		trace_json(all, count, steps, places, stage_name, &text);
		if (file_replace(path, text.data, text.bytes) < 0)
			status = error_code() ? error_code() : EXIT_IO;
	}
	text_release(&text);
	free(all);
	return status;
}

int trace_write(const struct trace *trace, struct comm *comm, const struct places *places,
		const char *const *stage_name, int steps, const char *path)
{
	size_t ranks = (size_t)comm->size, count = 0;
	struct trace_event *mine = trace ? trace_events(trace, places->stage, &count) : NULL;
	void **piece = xzalloc(ranks, sizeof(*piece));
	size_t *bytes = xzalloc(ranks, sizeof(*bytes));
	int status =
	    comm_gather(comm, 0, mine ? (void *)mine : "", count * sizeof(*mine), piece, bytes);

	if (!status && comm->rank > 0)
		status = tell_clock(comm);
	if (!status && comm->rank == 0)
		status = write_all(comm, piece, bytes, steps, places, stage_name, path);
	for (int rank = 0; rank < comm->size; rank++)
		free(piece[rank]);
	free(piece);
	free(bytes);
	free(mine);
	return status;
}
