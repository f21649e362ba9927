/*
 * faulty.h - a transport that damages one message: what a network does when it does wrong.
 *
 * It wraps any transport on the rank that sends. The messages of this rank to rank `to` with
 * tags of tag_from..tag_to are counted from 0; the one with number `nth` is hit by the fault,
 * all others pass as they are. It works on a copy: the sender's bytes stay what they were.
 *
 *	struct faulty fault = {.kind = FAULT_FLIP, .to = 1, .tag_from = 7, .tag_to = 7,
 *			       .nth = 2, .offset = 40};
 *	struct comm *bad = faulty_open(comm, &fault);
 *	...
 *	comm_close(bad);		(closes comm too)
 *
 * The second message of FAULT_TWICE and FAULT_SWAP moves on inside comm_test, and close waits
 * for it: the receiver must take it, or end.
 */
#ifndef EDGEPIPE_FAULTY_H
#define EDGEPIPE_FAULTY_H

#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"

enum fault {
	FAULT_NONE,
	FAULT_FLIP,	/* the lowest bit of the byte at `offset` (from the end where negative) */
	FAULT_TAIL,	/* all bytes from `offset` on are zero; the size stays */
	FAULT_SHORT,	/* only the first `offset` bytes are sent: the receiver sees a misfit */
	FAULT_DROP,	/* never sent, but done for the sender */
	FAULT_TWICE,	/* sent, and sent again */
	FAULT_SWAP,	/* sent after the next that is counted, or at close where none comes */
};

struct faulty {
	enum fault kind;
	int to, tag_from, tag_to, nth;
	long offset;
};

struct faulty_state {
	struct comm comm;
	struct comm *inner;
	struct faulty fault;
	int count;
	char *copy;			/* of the message that is hit; null until then */
	size_t bytes;
	int tag;
	bool held;			/* the copy waits for the next message */
	struct comm_request extra;	/* the copy's own send */
};

/* The place of the fault in the message that is hit. */
static inline size_t faulty_offset(const struct faulty_state *state)
{
	long offset = state->fault.offset;

	if (offset < 0)
		offset += (long)state->bytes;
	if (offset < 0)
		return 0;
	return (size_t)offset < state->bytes ? (size_t)offset : state->bytes;
}

/* Sends the copy once more, or at last. */
static inline int faulty_send_copy(struct faulty_state *state)
{
	state->held = false;
	return state->inner->ops->send(state->inner, state->fault.to, state->tag, state->copy,
				       state->bytes, &state->extra);
}

/* The message that is hit. */
static inline int faulty_hit(struct faulty_state *state, int tag, const void *data,
			     size_t bytes, struct comm_request *request)
{
	struct comm *inner = state->inner;
	size_t offset;

	state->copy = xzalloc(bytes + 1, 1);
	state->bytes = bytes;
	state->tag = tag;
	if (bytes)
		memcpy(state->copy, data, bytes);
	offset = faulty_offset(state);
	*request = (struct comm_request){.bytes = bytes};
	if (state->fault.kind == FAULT_DROP)
		return 0;
	if (state->fault.kind == FAULT_SWAP) {
		state->held = true;
		return 0;
	}
	if (state->fault.kind == FAULT_FLIP && offset < bytes)
		state->copy[offset] ^= 1;
	if (state->fault.kind == FAULT_TAIL)
		memset(state->copy + offset, 0, bytes - offset);
	if (state->fault.kind == FAULT_SHORT)
		bytes = offset;
	if (inner->ops->send(inner, state->fault.to, tag, state->copy, bytes, request) < 0)
		return -1;
	return state->fault.kind == FAULT_TWICE ? faulty_send_copy(state) : 0;
}

static inline int faulty_send(struct comm *comm, int to, int tag, const void *data,
			      size_t bytes, struct comm_request *request)
{
	struct faulty_state *state = comm->state;
	const struct faulty *fault = &state->fault;
	struct comm *inner = state->inner;
	bool counts = to == fault->to && tag >= fault->tag_from && tag <= fault->tag_to;

	if (counts && fault->kind != FAULT_NONE && state->count++ == fault->nth)
		return faulty_hit(state, tag, data, bytes, request);
	if (inner->ops->send(inner, to, tag, data, bytes, request) < 0)
		return -1;
	return counts && state->held ? faulty_send_copy(state) : 0;
}

static inline int faulty_recv(struct comm *comm, int from, int tag, void *data, size_t bytes,
			      struct comm_request *request)
{
	struct faulty_state *state = comm->state;

	return state->inner->ops->recv(state->inner, from, tag, data, bytes, request);
}

static inline int faulty_test(struct comm *comm, struct comm_request *request)
{
	struct faulty_state *state = comm->state;

	if (state->extra.state)
		state->inner->ops->test(state->inner, &state->extra);
	return state->inner->ops->test(state->inner, request);
}

static inline void faulty_rest(struct comm *comm, double s)
{
	struct faulty_state *state = comm->state;

	if (state->inner->ops->rest)
		state->inner->ops->rest(state->inner, s);
	else
		clock_sleep(s);
}

static inline void faulty_cancel(struct comm *comm, struct comm_request *request)
{
	struct faulty_state *state = comm->state;

	state->inner->ops->cancel(state->inner, request);
}

static inline void faulty_abort(struct comm *comm, int code)
{
	struct faulty_state *state = comm->state;

	comm_abort(state->inner, code);
}

static inline void faulty_close(struct comm *comm)
{
	struct faulty_state *state = comm->state;

	if (!state->held || faulty_send_copy(state) == 0)
		comm_wait(state->inner, &state->extra);
	comm_close(state->inner);
	free(state->copy);
	free(state);
}

/* Takes inner over and closes it. Not collective: only the rank that sends needs it. */
static inline struct comm *faulty_open(struct comm *inner, const struct faulty *fault)
{
	static const struct comm_ops ops = {
		.name = "faulty",
		.send = faulty_send,
		.recv = faulty_recv,
		.test = faulty_test,
		.cancel = faulty_cancel,
		.abort = faulty_abort,
		.close = faulty_close,
		.rest = faulty_rest,
	};
	struct faulty_state *state = xzalloc(1, sizeof *state);

	state->inner = inner;
	state->fault = *fault;
	state->comm = (struct comm){
		.ops = &ops, .rank = inner->rank, .size = inner->size, .state = state};
	return &state->comm;
}

#endif
