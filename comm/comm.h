/*
 * comm/ - bytes between ranks. One narrow table of operations; two transports fill it: Open MPI
 * (mpi.c) and ranks as threads of one process (local.c). Everything else is built on the table
 * (collective.c), so both behave alike.
 *
 * Messages between two ranks with the same tag arrive in the order in which they were sent. A
 * receive names its source, tag and exact size; another size is an error.
 */
#ifndef EDGEPIPE_COMM_H
#define EDGEPIPE_COMM_H

#include "base/base.h"

/* -- the table ----------------------------------------------------------------------------- */

/* An operation under way. The caller holds it and must not move it until it is done. */
struct comm_request {
	void *state;		/* the transport's own; null when idle or done */
	size_t bytes;		/* of the message */
	int error;		/* set by the transport when the operation failed */
};

struct comm {
	const struct comm_ops *ops;
	int rank, size;
	void *state;
};

struct comm_ops {
	const char *name;
	/* Start to send or to receive; the buffer belongs to the operation until it is done.
	 * Messages may be larger than 2 GiB. 0, or -1 after an error. */
	int (*send)(struct comm *comm, int to, int tag, const void *data, size_t bytes,
		    struct comm_request *request);
	int (*recv)(struct comm *comm, int from, int tag, void *data, size_t bytes,
		    struct comm_request *request);
	/* 1 when done or idle, 0 when not, -1 after an error. Makes progress on everything. */
	int (*test)(struct comm *comm, struct comm_request *request);
	/* Ends the whole job with this code, now, without cleaning up; ranks that are threads
	 * see every operation fail instead. */
	void (*abort)(struct comm *comm, int code);
	void (*close)(struct comm *comm);
	/* (optional) Sleeps for s seconds, or less when something happened since the last test.
	 * Where it is null, comm_wait sleeps with the clock. */
	void (*rest)(struct comm *comm, double s);
};

#define COMM_TAG_MAX 32767	/* tags of callers: 0..COMM_TAG_MAX */

/* Starts a transfer; see struct comm_ops. A zeroed request is idle. Not collective. */
int comm_send(struct comm *comm, int to, int tag, const void *data, size_t bytes,
	      struct comm_request *request);
int comm_recv(struct comm *comm, int from, int tag, void *data, size_t bytes,
	      struct comm_request *request);
int comm_test(struct comm *comm, struct comm_request *request);
/* Waits with backed-off polling (busy polling halves the other core's GEMM). 0, or -1 after an
 * error. */
int comm_wait(struct comm *comm, struct comm_request *request);
/* Send or receive and wait. A send of any size may wait for its receive. */
int comm_send_now(struct comm *comm, int to, int tag, const void *data, size_t bytes);
int comm_recv_now(struct comm *comm, int from, int tag, void *data, size_t bytes);

/* -- collective.c -------------------------------------------------------------------------- */

/* Collective: all ranks call these in the same order. All return 0 or -1 after an error. */
int comm_barrier(struct comm *comm);
/* True on all ranks if any rank says true (or the transport failed). */
bool comm_any(struct comm *comm, bool condition);
int comm_broadcast(struct comm *comm, int root, void *data, size_t bytes);
/*
 * Sum of one double per rank, folded ((v[n-1] + v[n-2]) + ...) + v[0]: the last rank first, so
 * the result does not depend on timing. The same bits on all ranks.
 */
int comm_fold(struct comm *comm, double *value);
/* Pieces of any size to the root: there *data is malloc'ed, *bytes its size, for each rank
 * (arrays of size entries that the caller gives); elsewhere data and bytes are not touched. */
int comm_gather(struct comm *comm, int root, const void *mine, size_t mine_bytes,
		void **data, size_t *bytes);

/* -- mpi.c --------------------------------------------------------------------------------- */

/* The world of Open MPI. Only the thread that called MPI_Init_thread may use it. Sets log_rank
 * of the calling thread. Collective. */
struct comm *comm_mpi_open(int *argc, char ***argv);
/* How many ranks the launcher started, from its environment, before MPI is; 1 without one. */
int comm_mpi_launched(void);
/* Version of the MPI library that this was built with, one line. */
const char *comm_mpi_version(void);

/* -- local.c ------------------------------------------------------------------------------- */

/*
 * Runs work(comm, arg) on size threads, each a rank, and returns when all have ended: 0, or the
 * first non-zero result in rank order. Sets log_rank of each thread, and drops the errors that
 * a thread still holds at its end. After an abort every operation of every rank fails; waiting
 * for a rank that has ended, or ending with transfers under way, aborts the world.
 */
int comm_local_run(int size, int (*work)(struct comm *comm, void *arg), void *arg);
/* A world of one rank, in the calling thread; close with comm_close. */
struct comm *comm_alone_open(void);

/* See struct comm_ops. Close takes a null pointer as done; in a work of comm_local_run it does
 * nothing, since the run owns the world. With MPI it is collective and must come last. */
void comm_abort(struct comm *comm, int code);
void comm_close(struct comm *comm);

#endif
