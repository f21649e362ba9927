/*
 * loop.c - one thread talks to the transport, another computes.
 *
 * 	second thread (work)                      calling thread (loop)
 * 	comm_send(front, ...) ── queue ──────────► inner send, tested until it is done
 * 	transfer_post(...)    ── queue ──────────► stream: frames, codec, transfers
 * 	comm_wait, transfer_wait ◄── condition ─── status
 *
 * Open MPI makes progress only inside its calls, and only one thread may call it. So the loop
 * tests what is under way, in bursts; while nothing moves it sleeps, longer and longer up to
 * POLL_MOST_S, or until a bell rings: because the queue was filled, or because a transport that
 * can tell says that something has come. The queue and all statuses are under one lock: a step
 * hands over some tens of items, not millions.
 */
#include <stdlib.h>
#include <string.h>

#include "comm/loop.h"

enum { BATCH = 32 };		/* items taken at once */

struct timespec loop_deadline(double s)
{
	struct timespec at;
	long ns;

	clock_gettime(CLOCK_MONOTONIC, &at);
	ns = at.tv_nsec + (long)(s * 1e9);
	return (struct timespec){at.tv_sec + ns / 1000000000, ns % 1000000000};
}

/* -- the loop ------------------------------------------------------------------------------ */

void loop_notify(struct loop *loop)
{
	loop_lock(loop);
	pthread_cond_broadcast(&loop->ended);
	loop_unlock(loop);
}

/* What this thread said is the cause of all that work will say. */
static void fail(struct loop *loop)
{
	loop_lock(loop);
	loop->failed = true;
	loop->code = error_code();
	pthread_cond_broadcast(&loop->ended);
	loop_unlock(loop);
}

static int start_task(struct loop *loop, struct task *task)
{
	task->next = loop->active;
	loop->active = task;
	return task->sends ? loop->inner->ops->send(loop->inner, task->peer, task->tag,
						    task->out, task->bytes, &task->inner)
			   : loop->inner->ops->recv(loop->inner, task->peer, task->tag,
						    task->in, task->bytes, &task->inner);
}

static void cancel_task(struct loop *loop, struct task *task)
{
	for (struct task **at = &loop->active; *at; at = &(*at)->next) {
		if (*at != task)
			continue;
		*at = task->next;
		loop->inner->ops->cancel(loop->inner, &task->inner);
		break;
	}
	loop_lock(loop);
	task->cancelled = true;
	pthread_cond_broadcast(&loop->ended);
	loop_unlock(loop);
}

static void abort_inner(struct loop *loop, int code)
{
	comm_abort(loop->inner, loop->code ? loop->code : code);
	loop_lock(loop);
	loop->aborted = true;
	pthread_cond_broadcast(&loop->ended);
	loop_unlock(loop);
}

static void take_stream(struct loop *loop, struct stream *stream)
{
	*stream_link(stream) = loop->streams;
	loop->streams = stream;
}

static void close_stream(struct loop *loop, const struct item *item)
{
	struct stream **at = &loop->streams;

	while (*at != item->stream)
		at = stream_link(*at);
	*at = *stream_link(item->stream);
	stream_cancel(item->stream, loop->inner);
	loop_lock(loop);
	*item->done = true;
	pthread_cond_broadcast(&loop->ended);
	loop_unlock(loop);
}

static int take_item(struct loop *loop, const struct item *item)
{
	switch (item->kind) {
	case ITEM_TASK:
		return start_task(loop, item->task);
	case ITEM_CANCEL:
		cancel_task(loop, item->task);
		return 0;
	case ITEM_STREAM:
		take_stream(loop, item->stream);
		return 0;
	case ITEM_CLOSE:
		close_stream(loop, item);
		return 0;
	case ITEM_TRANSFER:
		stream_take(item->stream, item->transfer);
		return 0;
	case ITEM_ABORT:
		abort_inner(loop, item->code);
		return -1;
	}
	return -1;
}

/* The oldest item of the queue; false: it is empty. */
static bool pop(struct loop *loop, struct item *item)
{
	bool any;

	loop_lock(loop);
	any = loop->count > 0;
	if (any) {
		*item = loop->queue[loop->first];
		loop->first = (loop->first + 1) % (QUEUE + 1);
		if (loop->count-- >= QUEUE)
			pthread_cond_broadcast(&loop->ended);
	}
	loop_unlock(loop);
	return any;
}

/* How many items were taken; -1 after an error. */
static int take_items(struct loop *loop)
{
	struct item item;
	int count = 0;

	for (; count < BATCH && pop(loop, &item); count++)
		if (take_item(loop, &item) < 0)
			return -1;
	return count;
}

/* How many tasks ended; -1 after an error. */
static int test_tasks(struct loop *loop)
{
	int ended = 0;

	for (struct task **at = &loop->active; *at;) {
		struct task *task = *at;
		int done = comm_test(loop->inner, &task->inner);

		if (done < 0)
			return -1;
		if (!done) {
			at = &task->next;
			continue;
		}
		*at = task->next;
		loop_lock(loop);
		task->status = 1;
		pthread_cond_broadcast(&loop->ended);
		loop_unlock(loop);
		ended++;
	}
	return ended;
}

/* How much moved; -1 after an error. */
static int poll_all(struct loop *loop)
{
	int taken = take_items(loop), tested, moved = 0;
	struct comm_request idle = {0};

	/* A transport may have something to do though nobody asks for anything any more. */
	if (taken < 0 || comm_test(loop->inner, &idle) < 0)
		return -1;
	tested = test_tasks(loop);
	if (tested < 0)
		return -1;
	for (struct stream *stream = loop->streams; stream; stream = *stream_link(stream)) {
		int status = stream_poll(stream, loop->inner);

		if (status < 0)
			return -1;
		moved += status;
	}
	return taken + tested + moved;
}

/* Sleeps unless something is in the queue or the bell has rung; false when work has returned
 * and nothing is left to take. */
static bool rest(struct loop *loop, uint32_t heard, double s)
{
	bool idle, go_on;

	loop_lock(loop);
	idle = loop->count == 0 && (!loop->over || loop->active);
	loop_unlock(loop);
	if (idle)
		bell_wait(loop->bell, heard, s);
	loop_lock(loop);
	go_on = loop->count > 0 || !loop->over;
	loop_unlock(loop);
	return go_on;
}

/* The pause, or less where the transport has something to do before. */
static double until_due(const struct loop *loop, double pause)
{
	double left =
	    loop->inner->ops->due ? loop->inner->ops->due(loop->inner) - clock_s() : pause;

	return left >= pause ? pause : left > 0 ? left : 0;
}

static void run_loop(struct loop *loop)
{
	double pause = POLL_LEAST_S;
	uint32_t before = bell_heard(loop->bell);

	for (int still = 0;; still++) {
		uint32_t heard = bell_heard(loop->bell);
		int moved = poll_all(loop);

		if (moved < 0)
			break;
		if (moved > 0 || heard != before) {
			still = 0;
			pause = POLL_LEAST_S;
		}
		before = heard;
		if (still < POLL_BURST)
			continue;
		if (!rest(loop, heard, until_due(loop, pause)) && !loop->active)
			return;
		pause = pause * 2 < POLL_MOST_S ? pause * 2 : POLL_MOST_S;
	}
	fail(loop);
}

/* After a failure: work finds out by itself; an abort is still carried out, and streams are
 * still to be closed. */
static void outlive(struct loop *loop)
{
	struct item item;
	bool over;

	do {
		uint32_t heard = bell_heard(loop->bell);

		loop_lock(loop);
		over = loop->over;
		loop_unlock(loop);
		while (pop(loop, &item)) {
			if (item.kind == ITEM_ABORT)
				abort_inner(loop, item.code);
			else if (item.kind == ITEM_STREAM)
				take_stream(loop, item.stream);
		}
		if (!over)
			bell_wait(loop->bell, heard, PATIENCE_S);
	} while (!over);
}

/* -- both ---------------------------------------------------------------------------------- */

static void *second_main(void *arg)
{
	struct loop *loop = arg;
	int result;

	log_rank(loop->rank);
	result = loop->work(&loop->front, loop->arg);
	error_clear();
	free(log_take());
	loop_lock(loop);
	loop->result = result;
	loop->over = true;
	loop_unlock(loop);
	bell_ring(loop->bell);
	return NULL;
}

static struct loop *loop_open(struct comm *comm)
{
	struct loop *loop = xzalloc(1, sizeof(*loop));
	pthread_condattr_t monotonic;

	loop->inner = comm;
	loop->rank = comm->rank;
	loop->bell = comm->ops->bell ? comm->ops->bell(comm) : NULL;
	loop->bell = loop->bell ? loop->bell : &loop->own_bell;
	loop->front = (struct comm){&front_ops, comm->rank, comm->size, loop};
	pthread_mutex_init(&loop->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&loop->ended, &monotonic);
	pthread_condattr_destroy(&monotonic);
	for (int i = 0; i < TASKS; i++) {
		loop->task[i].next = loop->spare;
		loop->spare = &loop->task[i];
	}
	return loop;
}

static void loop_close(struct loop *loop)
{
	for (struct task *task = loop->active; task; task = task->next)
		if (!task->sends)
			loop->inner->ops->cancel(loop->inner, &task->inner);
	for (struct stream *stream = loop->streams, *next; stream; stream = next) {
		next = *stream_link(stream);
		stream_cancel(stream, loop->inner);
		stream_free(stream);
	}
	pthread_cond_destroy(&loop->ended);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
}

int comm_serve(struct comm *comm, int (*work)(struct comm *front, void *arg), void *arg)
{
	struct loop *loop = loop_open(comm);
	pthread_t second;
	int rc, result;

	loop->work = work;
	loop->arg = arg;
	rc = pthread_create(&second, NULL, second_main, loop);
	if (rc) {
		loop_close(loop);
		return error(EXIT_RETRY, "cannot start the computing thread: %s", strerror(rc));
	}
	run_loop(loop);
	outlive(loop);
	pthread_join(second, NULL);
	result = loop->result;
	loop_close(loop);
	return result;
}
