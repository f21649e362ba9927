/*
 * profiler/flow.c - messages between two ranks, for their times alone: frames of the size that
 * tensors travel in, many under way, receives posted ahead, so that what is measured is what a
 * cut of the pipeline gets.
 *
 * One-way times need the other's clock. On one machine there is only one; elsewhere pings tell
 * the difference, as if both directions were as late: what is wrong with that cancels out in a
 * cut, which is crossed both ways.
 */
#include "profiler/flow.h"

#include <math.h>
#include <stdlib.h>

enum { TAG_PING = 41, TAG_SIZE, TAG_GO, TAG_FRAME, TAG_DONE };
enum { PINGS_LEAST = 3, PINGS_MOST = 9, FRAMES_MOST = 128 };
#define PINGS_S 0.08		/* what all of them may take */

_Static_assert(FLOW_MOST / FLOW_FRAME == FRAMES_MOST, "room for every frame");

void pair_open(struct pair_end *pair, struct comm *comm, int peer, bool near)
{
	*pair = (struct pair_end){.comm = comm, .peer = peer, .near = near};
	pair->out = xalloc(FLOW_FRAME);
	pair->in = xalloc(FLOW_MOST);
	pair->request = xzalloc(2 * FRAMES_MOST, sizeof *pair->request);
	for (size_t i = 0; i < FLOW_FRAME; i++)
		pair->out[i] = (char)(i * 2654435761u >> 13);	/* nothing that compresses */
}

void pair_close(struct pair_end *pair)
{
	free(pair->out);
	free(pair->in);
	free(pair->request);
}

/* -- pings --------------------------------------------------------------------------------- */

/* asked, answered: by the answering rank's clock. */
struct ping { double asked_s, answered_s; int more; };

static int answer(struct pair_end *pair)
{
	struct ping ping = {.more = 1};

	while (ping.more) {
		if (comm_recv_now(pair->comm, pair->peer, TAG_PING, &ping, sizeof ping))
			return -1;
		ping.asked_s = ping.answered_s = clock_s();
		if (comm_send_now(pair->comm, pair->peer, TAG_PING, &ping, sizeof ping))
			return -1;
	}
	return 0;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static int ask(struct pair_end *pair, double *latency_s)
{
	double way[PINGS_MOST], least = INFINITY, begin = clock_s();
	int count = 0;

	for (bool more = true; more; ) {
		struct ping ping = {.more = 1};
		double start = clock_s(), end, there;

		more = count + 1 < PINGS_MOST &&
		       (count + 1 < PINGS_LEAST || start - begin < PINGS_S);
		ping.more = more;
		if (comm_send_now(pair->comm, pair->peer, TAG_PING, &ping, sizeof ping) ||
		    comm_recv_now(pair->comm, pair->peer, TAG_PING, &ping, sizeof ping))
			return -1;
		end = clock_s();
		there = (end - start) / 2;
		/* Hosts of one name need not be one machine. */
		pair->near = pair->near && ping.asked_s >= start && ping.asked_s <= end;
		if (end - start < least && !pair->near)
			pair->offset_s = ping.asked_s - (start + end) / 2;
		least = fmin(least, end - start);
		way[count++] = pair->near ? ping.asked_s - start : there;
	}
	qsort(way, (size_t)count, sizeof *way, ascending);
	*latency_s = fmax(way[count / 2], 0);
	return 0;
}

int pair_ping(struct pair_end *pair, bool asks, double *latency_s)
{
	return asks ? ask(pair, latency_s) : answer(pair);
}

/* -- flows --------------------------------------------------------------------------------- */

static size_t frame_of(size_t bytes, size_t at)
{
	return bytes - at < FLOW_FRAME ? bytes - at : FLOW_FRAME;
}

/* One message each way. */
static int exchange(struct pair_end *pair, int tag, const void *mine, void *theirs,
		    size_t bytes)
{
	struct comm_request send = {0}, recv = {0};

	return comm_recv(pair->comm, pair->peer, tag, theirs, bytes, &recv) ||
	       comm_send(pair->comm, pair->peer, tag, mine, bytes, &send) ||
	       comm_wait(pair->comm, &recv) || comm_wait(pair->comm, &send) ? -1 : 0;
}

static int post_receives(struct pair_end *pair, size_t bytes)
{
	int i = 0;

	for (size_t at = 0; at < bytes; at += FLOW_FRAME)
		if (comm_recv(pair->comm, pair->peer, TAG_FRAME, pair->in + at,
			      frame_of(bytes, at), &pair->request[i++]))
			return -1;
	return 0;
}

static int post_sends(struct pair_end *pair, size_t bytes)
{
	int i = FRAMES_MOST;

	for (size_t at = 0; at < bytes; at += FLOW_FRAME)
		if (comm_send(pair->comm, pair->peer, TAG_FRAME, pair->out, frame_of(bytes, at),
			      &pair->request[i++]))
			return -1;
	return 0;
}

static int wait_all(struct pair_end *pair, int first)
{
	for (int i = first; i < first + FRAMES_MOST; i++)
		if (comm_wait(pair->comm, &pair->request[i]))
			return -1;
	return 0;
}

int pair_flow(struct pair_end *pair, size_t out_bytes, double *out_s, size_t *in_bytes)
{
	uint64_t mine = out_bytes, theirs = 0;
	double start, there, here;
	char go = 0, gone;

	if (exchange(pair, TAG_SIZE, &mine, &theirs, sizeof mine))
		return -1;
	if (theirs > FLOW_MOST || mine > FLOW_MOST)
		return error(EXIT_BUG, "a flow of %zu bytes",
			     (size_t)(theirs > mine ? theirs : mine));
	*in_bytes = (size_t)theirs;
	if (theirs == 0 && mine == 0)
		return 0;
	if (post_receives(pair, (size_t)theirs) || exchange(pair, TAG_GO, &go, &gone, 1))
		return -1;
	start = clock_s();
	if (post_sends(pair, out_bytes) || wait_all(pair, 0))
		return -1;
	here = clock_s();
	if (wait_all(pair, FRAMES_MOST) || exchange(pair, TAG_DONE, &here, &there, sizeof here))
		return -1;
	*out_s = there - pair->offset_s - start;
	return 0;
}
