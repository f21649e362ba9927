/*
 * comm.c - the front of the table: checks what a caller hands in, and waits.
 *
 * Waiting is polling, since Open MPI makes progress only inside its own calls. A poll that
 * never sleeps takes half of the other core's GEMM, so between bursts of tests the waiter
 * sleeps, longer and longer up to a millisecond.
 */
#include "base/base.h"
#include "comm/comm.h"
#include "comm/internal.h"

static int check_tag(int tag)
{
	if (tag < 0 || tag > COMM_TAG_MAX)
		return error(EXIT_BUG, "the tag %d is outside 0 to %d", tag, COMM_TAG_MAX);
	return 0;
}

static int check_start(const struct comm *comm, int peer, int tag,
		       const struct comm_request *request)
{
	if (peer < 0 || peer >= comm->size)
		return error(EXIT_BUG, "cannot reach rank %d: the ranks are 0 to %d", peer,
			     comm->size - 1);
	if (request->state)
		return error(EXIT_BUG, "a request is still under way: rank %d, tag %d", peer,
			     tag);
	return 0;
}

static int start_send(struct comm *comm, int to, int tag, const void *data, size_t bytes,
		      struct comm_request *request)
{
	if (check_start(comm, to, tag, request) < 0)
		return -1;
	return comm->ops->send(comm, to, tag, data, bytes, request);
}

static int start_recv(struct comm *comm, int from, int tag, void *data, size_t bytes,
		      struct comm_request *request)
{
	if (check_start(comm, from, tag, request) < 0)
		return -1;
	return comm->ops->recv(comm, from, tag, data, bytes, request);
}

int comm_send(struct comm *comm, int to, int tag, const void *data, size_t bytes,
	      struct comm_request *request)
{
	if (check_tag(tag) < 0)
		return -1;
	return start_send(comm, to, tag, data, bytes, request);
}

int comm_recv(struct comm *comm, int from, int tag, void *data, size_t bytes,
	      struct comm_request *request)
{
	if (check_tag(tag) < 0)
		return -1;
	return start_recv(comm, from, tag, data, bytes, request);
}

int comm_test(struct comm *comm, struct comm_request *request)
{
	return comm->ops->test(comm, request);
}

static void rest(struct comm *comm, double s)
{
	if (comm->ops->rest)
		comm->ops->rest(comm, s);
	else
		clock_sleep(s);
}

int comm_wait(struct comm *comm, struct comm_request *request)
{
	double pause = POLL_LEAST_S;

	for (int tests = 1;; tests++) {
		int done = comm_test(comm, request);

		if (done)
			return done < 0 ? -1 : 0;
		if (tests % POLL_BURST)
			continue;
		rest(comm, pause);
		pause = pause * 2 < POLL_MOST_S ? pause * 2 : POLL_MOST_S;
	}
}

int comm_put(struct comm *comm, int to, int tag, const void *data, size_t bytes)
{
	struct comm_request request = {0};

	if (start_send(comm, to, tag, data, bytes, &request) < 0)
		return -1;
	return comm_wait(comm, &request);
}

int comm_take(struct comm *comm, int from, int tag, void *data, size_t bytes)
{
	struct comm_request request = {0};

	if (start_recv(comm, from, tag, data, bytes, &request) < 0)
		return -1;
	return comm_wait(comm, &request);
}

int comm_send_now(struct comm *comm, int to, int tag, const void *data, size_t bytes)
{
	return check_tag(tag) < 0 ? -1 : comm_put(comm, to, tag, data, bytes);
}

int comm_recv_now(struct comm *comm, int from, int tag, void *data, size_t bytes)
{
	return check_tag(tag) < 0 ? -1 : comm_take(comm, from, tag, data, bytes);
}

void comm_abort(struct comm *comm, int code)
{
	comm->ops->abort(comm, code);
}

void comm_close(struct comm *comm)
{
	if (comm)
		comm->ops->close(comm);
}
