/*
 * front.c - the side of the loop that the computing thread sees: a transport whose operations
 * are handed over through a bounded queue, and what stream.c needs to hand over its transfers.
 */
#include <stdlib.h>

#include "comm/loop.h"

void loop_lock(struct loop *loop)
{
	pthread_mutex_lock(&loop->lock);
}

void loop_unlock(struct loop *loop)
{
	pthread_mutex_unlock(&loop->lock);
}

/* -- the queue ----------------------------------------------------------------------------- */

/* Under the lock. */
static int push(struct loop *loop, struct item item)
{
	while (loop->count >= QUEUE && !loop->failed)
		pthread_cond_wait(&loop->ended, &loop->lock);
	if (loop->failed && item.kind != ITEM_ABORT)
		return -1;
	loop->queue[(loop->first + loop->count++) % (QUEUE + 1)] = item;
	bell_ring(loop->bell);
	return 0;
}

static int hand_over(struct loop *loop, struct item item)
{
	int status;

	loop_lock(loop);
	status = push(loop, item);
	loop_unlock(loop);
	return status;
}

int loop_add_stream(struct loop *loop, struct stream *stream)
{
	return hand_over(loop, (struct item){.kind = ITEM_STREAM, .stream = stream});
}

bool loop_close_stream(struct loop *loop, struct stream *stream)
{
	bool done = false;

	loop_lock(loop);
	if (!push(loop, (struct item){.kind = ITEM_CLOSE, .stream = stream, .done = &done}))
		while (!done && !loop->failed)
			pthread_cond_wait(&loop->ended, &loop->lock);
	loop_unlock(loop);
	return done;
}

int loop_post(struct loop *loop, struct stream *stream, struct transfer *transfer)
{
	return hand_over(loop, (struct item){.kind = ITEM_TRANSFER, .stream = stream,
					     .transfer = transfer});
}

int loop_rest(struct loop *loop)
{
	struct timespec until = loop_deadline(PATIENCE_S);

	if (!loop->failed)
		pthread_cond_timedwait(&loop->ended, &loop->lock, &until);
	return loop->failed ? -1 : 0;
}

static int ask(struct comm *front, struct task want, struct comm_request *request)
{
	struct loop *loop = front->state;
	struct task *task, *next;
	int status = -1;

	*request = (struct comm_request){.bytes = want.bytes};
	loop_lock(loop);
	task = loop->spare;
	if (!task) {
		report(EXIT_BUG, "more than %d requests under way", TASKS);
	} else {
		next = task->next;
		*task = want;
		status = push(loop, (struct item){.kind = ITEM_TASK, .task = task});
		request->state = status ? NULL : task;
		if (status)
			task->next = next;
		else
			loop->spare = next;
	}
	request->error = status;
	loop_unlock(loop);
	return status;
}

static int front_send(struct comm *front, int to, int tag, const void *data, size_t bytes,
		      struct comm_request *request)
{
	return ask(front, (struct task){.sends = true, .peer = to, .tag = tag, .out = data,
					.bytes = bytes}, request);
}

static int front_recv(struct comm *front, int from, int tag, void *data, size_t bytes,
		      struct comm_request *request)
{
	return ask(front, (struct task){.peer = from, .tag = tag, .in = data, .bytes = bytes},
		   request);
}

static int front_test(struct comm *front, struct comm_request *request)
{
	struct loop *loop = front->state;
	struct task *task = request->state;
	int status;

	if (!task)
		return request->error ? -1 : 1;
	loop_lock(loop);
	status = task->status ? task->status : loop->failed ? -1 : 0;
	if (status > 0) {
		task->next = loop->spare;
		loop->spare = task;
	}
	loop_unlock(loop);
	if (status) {
		request->state = NULL;
		request->error = status < 0 ? -1 : 0;
	}
	return status;
}

/* Whatever ends, ends with a signal; a look that missed one comes again after s. */
static void front_rest(struct comm *front, double s)
{
	struct loop *loop = front->state;
	struct timespec until = loop_deadline(s);

	loop_lock(loop);
	if (!loop->failed)
		pthread_cond_timedwait(&loop->ended, &loop->lock, &until);
	loop_unlock(loop);
}

static void front_abort(struct comm *front, int code)
{
	struct loop *loop = front->state;

	loop_lock(loop);
	push(loop, (struct item){.kind = ITEM_ABORT, .code = code});
	while (!loop->aborted)
		pthread_cond_wait(&loop->ended, &loop->lock);
	loop_unlock(loop);
}

static void front_cancel(struct comm *front, struct comm_request *request)
{
	struct loop *loop = front->state;
	struct task *task = request->state;

	if (!task)
		return;
	loop_lock(loop);
	if (!task->status && !push(loop, (struct item){.kind = ITEM_CANCEL, .task = task}))
		while (!task->cancelled && !loop->failed)
			pthread_cond_wait(&loop->ended, &loop->lock);
	if (!loop->failed) {
		task->next = loop->spare;
		loop->spare = task;
	}
	loop_unlock(loop);
	request->state = NULL;
}

static void front_close(struct comm *front)
{
	(void)front;		/* comm_serve owns it */
}

const struct comm_ops front_ops = {
	.name = "front",
	.send = front_send,
	.recv = front_recv,
	.test = front_test,
	.cancel = front_cancel,
	.abort = front_abort,
	.close = front_close,
	.rest = front_rest,
};

struct loop *loop_of(struct comm *front)
{
	if (front->ops != &front_ops)
		return error_null(EXIT_BUG, "streams need the front of a loop, not '%s'",
				  front->ops->name);
	return front->state;
}

