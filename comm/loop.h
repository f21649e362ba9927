/*
 * comm/loop.h - what front.c (the thread that computes) and loop.c (the one that talks to the
 * transport) share.
 */
#ifndef EDGEPIPE_COMM_LOOP_H
#define EDGEPIPE_COMM_LOOP_H

#include <pthread.h>
#include <time.h>

#include "comm/internal.h"

enum {
	TASKS = 1024,			/* requests under way */
	QUEUE = 1024			/* items handed over and not yet taken */
};

#define PATIENCE_S 0.1			/* between looks at what should have been signalled */

/* A request of the second thread. */
struct task {
	struct task *next;		/* in the list of spare or of active ones */
	bool sends;
	int peer, tag;
	const void *out;
	void *in;
	size_t bytes;
	struct comm_request inner;
	int status;			/* 0: under way, 1: done; under the lock */
	bool cancelled;			/* so it was, or it had ended before; under the lock */
};

enum item_kind { ITEM_TASK, ITEM_CANCEL, ITEM_STREAM, ITEM_CLOSE, ITEM_TRANSFER, ITEM_ABORT };
struct item {
	enum item_kind kind;
	struct task *task;
	struct stream *stream;
	struct transfer *transfer;
	int code;
	/* set, under the lock, when an ITEM_CLOSE has been carried out */
	bool *done;
};

struct loop {
	struct comm *inner, front;
	int (*work)(struct comm *front, void *arg);
	void *arg;
	int result, rank;

	pthread_mutex_t lock;		/* for all in this paragraph, and the statuses */
	pthread_cond_t ended;		/* for the second thread */
	struct item queue[QUEUE + 1];	/* after a failure an abort is let in, full or not */
	int first, count;
	struct task *spare;
	/* the transport failed; an abort was carried out; work has returned */
	bool failed, aborted, over;
	/* of what failed, as said on the loop's thread; 0: nothing was */
	int code;

	/* what the loop sleeps on: the transport's or its own */
	struct bell *bell, own_bell;
	struct task *active;		/* the loop's own, as is the next */
	struct stream *streams;
	struct task task[TASKS];
};

extern const struct comm_ops front_ops;

/* So many seconds from now, for timed waits. */
struct timespec loop_deadline(double s);

#endif
