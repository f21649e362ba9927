/*
 * profiler/flow.h - messages between two ranks, for their times alone.
 */
#ifndef EDGEPIPE_PROFILER_FLOW_H
#define EDGEPIPE_PROFILER_FLOW_H

#include "comm/comm.h"

/* Bytes of a flow are whole frames, as tensors travel. */
#define FLOW_FRAME ((size_t)128 << 10)
#define FLOW_LEAST ((size_t)64 << 10)	/* the one flow of less than a frame */
#define FLOW_MOST ((size_t)16 << 20)

/* One rank's end of a pair. */
struct pair_end {
	struct comm *comm;
	int peer;
	bool near;			/* the peer's clock is this one's */
	double offset_s;		/* peer's clock less this one's; pings find it */
	char *out, *in;			/* FLOW_FRAME, FLOW_MOST bytes */
	struct comm_request *request;
};
void pair_open(struct pair_end *pair, struct comm *comm, int peer, bool near);
void pair_close(struct pair_end *pair);

/* The median latency of small messages from this rank to the peer, or, where it answers,
 * nothing. Both call it. */
int pair_ping(struct pair_end *pair, bool asks, double *latency_s);
/* Sends bytes while it receives what the peer sends, each of which may be 0. Both call it.
 * *out_s: until the last byte was there; *in_bytes: what the peer sent. */
int pair_flow(struct pair_end *pair, size_t out_bytes, double *out_s, size_t *in_bytes);

#endif
