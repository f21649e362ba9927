/*
 * local.c - ranks as threads of one process: for tests, and for a world of one rank without
 * MPI.
 *
 * Whoever comes second does the whole transfer. The side that comes first leaves a "half" in
 * the lane from source to destination; the other side finds it by tag, oldest first, and copies
 * the bytes straight from the sender's buffer into the receiver's. A small message does not
 * wait for its receiver: it is copied into the half, and the send is done (as in MPI, a program
 * must not rely on it).
 *
 * One lock for all, held during the copy too. That is what makes an abort safe: once the flag
 * is set nobody touches anybody's buffer, so a rank may return and release what it had under
 * way.
 *
 * A rank that waits for one that has ended would wait for ever. With MPI the launcher kills the
 * job; here the world is aborted.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base.h"
#include "comm/comm.h"
#include "comm/internal.h"

enum {
	SMALL_BYTES = 4096,	/* up to here a send does not wait */
	HALVES = 16,		/* made at once */
};

enum phase { WAITING, DONE, MISFIT };

/* A send or a receive that came before its other side. */
struct half {
	struct half *next;		/* in its queue, or in the list of spare ones */
	int peer, tag;
	size_t bytes;
	const void *out;		/* what is sent: the sender's buffer, or small */
	void *in;			/* where a receive wants it */
	enum phase phase;		/* of a half that a request points to */
	size_t came;			/* MISFIT: bytes of the message that came */
	char small[SMALL_BYTES];
};

/* Oldest first. */
struct queue {
	struct half *first, **end;
};

/* What is under way from one rank to another. */
struct lane {
	struct queue sends, receives;
};

struct rank {
	struct comm comm;
	struct world *world;
	pthread_cond_t wake;		/* something happened to a half of this rank */
	unsigned long events, seen;	/* happened so far; at the last test */
	int under_way;			/* requests of this rank */
	bool ended;
	pthread_t thread;
	int (*work)(struct comm *comm, void *arg);
	void *arg;
	int result;
};

struct world {
	int size;
	bool alone;			/* the one rank owns the world */
	pthread_mutex_t lock;		/* for all below, and what ranks have under way */
	bool aborted;
	struct rank *rank;		/* [size] */
	struct lane *lane;		/* [from * size + to] */
	struct half *spare;
	struct arena arena;		/* the halves */
};

/* -- halves -------------------------------------------------------------------------------- */

static struct half *take(struct world *world)
{
	struct half *half = world->spare;

	if (!half) {
		half = arena_take(&world->arena, HALVES * sizeof *half);
		for (int i = 0; i < HALVES - 1; i++)
			half[i].next = &half[i + 1];
	}
	world->spare = half->next;
	return half;
}

static void put_back(struct world *world, struct half *half)
{
	half->next = world->spare;
	world->spare = half;
}

static struct half *post(struct world *world, struct queue *queue, int peer, int tag,
			 size_t bytes)
{
	struct half *half = take(world);

	half->next = NULL;
	half->peer = peer;
	half->tag = tag;
	half->bytes = bytes;
	half->phase = WAITING;
	*queue->end = half;
	queue->end = &half->next;
	return half;
}

/* Takes the oldest half with this tag out of the queue; null: none. */
static struct half *find(struct queue *queue, int tag)
{
	for (struct half **at = &queue->first; *at; at = &(*at)->next) {
		struct half *half = *at;

		if (half->tag != tag)
			continue;
		*at = half->next;
		if (!*at)
			queue->end = at;
		return half;
	}
	return NULL;
}

static void copy(void *in, const void *out, size_t bytes)
{
	if (bytes)
		memcpy(in, out, bytes);
}

static void wake(struct world *world, int rank)
{
	world->rank[rank].events++;
	pthread_cond_signal(&world->rank[rank].wake);
}

static void abort_world(struct world *world)
{
	world->aborted = true;
	for (int rank = 0; rank < world->size; rank++)
		wake(world, rank);
}

static int misfit(int from, int tag, size_t came, size_t expected)
{
	return error(EXIT_BUG, "rank %d sent %zu bytes, not the %zu expected with tag %d", from,
		     came, expected, tag);
}

/* -- the table ----------------------------------------------------------------------------- */

static void leave_send(struct world *world, struct rank *self, int to, int tag,
		       const void *data, struct comm_request *request)
{
	struct lane *lane = &world->lane[self->comm.rank * world->size + to];
	struct half *half = post(world, &lane->sends, to, tag, request->bytes);

	if (request->bytes <= SMALL_BYTES) {
		copy(half->small, data, request->bytes);
		half->out = half->small;
		return;
	}
	half->out = data;
	request->state = half;
	self->under_way++;
}

static int local_send(struct comm *comm, int to, int tag, const void *data, size_t bytes,
		      struct comm_request *request)
{
	struct rank *self = comm->state;
	struct world *world = self->world;
	struct lane *lane = &world->lane[comm->rank * world->size + to];
	struct half *half;

	*request = (struct comm_request){.bytes = bytes};
	pthread_mutex_lock(&world->lock);
	if (world->aborted) {
		request->error = -1;
	} else if ((half = find(&lane->receives, tag))) {
		half->came = bytes;
		half->phase = half->bytes == bytes ? DONE : MISFIT;
		if (half->phase == DONE)
			copy(half->in, data, bytes);
		wake(world, to);
	} else {
		leave_send(world, self, to, tag, data, request);
	}
	pthread_mutex_unlock(&world->lock);
	return request->error;
}

/* Takes what a half brought; a size that does not fit is the receiver's error alone. */
static int accept_half(struct world *world, struct half *half, int from, void *data,
		       size_t bytes)
{
	int rc = half->bytes == bytes ? 0 : misfit(from, half->tag, half->bytes, bytes);

	if (rc == 0)
		copy(data, half->out, bytes);
	if (half->out == half->small) {
		put_back(world, half);
	} else {
		half->phase = DONE;
		wake(world, from);
	}
	return rc;
}

static int local_recv(struct comm *comm, int from, int tag, void *data, size_t bytes,
		      struct comm_request *request)
{
	struct rank *self = comm->state;
	struct world *world = self->world;
	struct lane *lane = &world->lane[from * world->size + comm->rank];
	struct half *half;

	*request = (struct comm_request){.bytes = bytes};
	pthread_mutex_lock(&world->lock);
	if (world->aborted) {
		request->error = -1;
	} else if ((half = find(&lane->sends, tag))) {
		request->error = accept_half(world, half, from, data, bytes);
	} else {
		half = post(world, &lane->receives, from, tag, bytes);
		half->in = data;
		request->state = half;
		self->under_way++;
	}
	pthread_mutex_unlock(&world->lock);
	return request->error;
}

/* 1, 0 or -1 as test says. */
static int look(struct world *world, const struct half *half)
{
	if (world->aborted)
		return -1;
	if (half->phase == DONE)
		return 1;
	if (half->phase == MISFIT)
		return misfit(half->peer, half->tag, half->came, half->bytes);
	if (!world->rank[half->peer].ended)
		return 0;
	abort_world(world);
	return error(EXIT_BUG, "waiting for rank %d (tag %d, %zu bytes), which has ended",
		     half->peer, half->tag, half->bytes);
}

static int local_test(struct comm *comm, struct comm_request *request)
{
	struct rank *self = comm->state;
	struct world *world = self->world;
	struct half *half = request->state;
	int done;

	if (!half)
		return request->error ? -1 : 1;
	pthread_mutex_lock(&world->lock);
	self->seen = self->events;
	done = look(world, half);
	if (done) {
		request->state = NULL;
		request->error = done < 0 ? -1 : 0;
		self->under_way--;
		put_back(world, half);	/* after an abort still queued, but nobody looks */
	}
	pthread_mutex_unlock(&world->lock);
	return done;
}

static void remove_half(struct queue *queue, const struct half *gone)
{
	for (struct half **at = &queue->first; *at; at = &(*at)->next) {
		if (*at != gone)
			continue;
		*at = gone->next;
		if (!*at)
			queue->end = at;
		return;
	}
}

static void local_cancel(struct comm *comm, struct comm_request *request)
{
	struct rank *self = comm->state;
	struct world *world = self->world;
	struct half *half = request->state;

	if (!half)
		return;
	pthread_mutex_lock(&world->lock);
	if (half->phase == WAITING)
		remove_half(&world->lane[half->peer * world->size + comm->rank].receives, half);
	request->state = NULL;
	self->under_way--;
	put_back(world, half);
	pthread_mutex_unlock(&world->lock);
}

static void local_rest(struct comm *comm, double s)
{
	struct rank *self = comm->state;
	struct timespec until;
	long ns;

	clock_gettime(CLOCK_MONOTONIC, &until);
	ns = until.tv_nsec + (long)(s * 1e9);
	until.tv_sec += ns / 1000000000;
	until.tv_nsec = ns % 1000000000;
	pthread_mutex_lock(&self->world->lock);
	while (self->events == self->seen)
		if (pthread_cond_timedwait(&self->wake, &self->world->lock, &until) != 0)
			break;
	pthread_mutex_unlock(&self->world->lock);
}

static void local_abort(struct comm *comm, int code)
{
	struct rank *self = comm->state;

	(void)code;		/* the process lives on: the caller knows its code */
	pthread_mutex_lock(&self->world->lock);
	abort_world(self->world);
	pthread_mutex_unlock(&self->world->lock);
}

static void world_free(struct world *world);

static void local_close(struct comm *comm)
{
	struct rank *self = comm->state;

	if (self->world->alone)
		world_free(self->world);
}

static const struct comm_ops ops = {
	.name = "local",
	.send = local_send,
	.recv = local_recv,
	.test = local_test,
	.cancel = local_cancel,
	.abort = local_abort,
	.close = local_close,
	.rest = local_rest,
};

/* -- the world ----------------------------------------------------------------------------- */

static void open_rank(struct world *world, int index)
{
	struct rank *rank = &world->rank[index];
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&rank->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	rank->world = world;
	rank->comm = (struct comm){
		.ops = &ops, .rank = index, .size = world->size, .state = rank};
}

static struct world *world_open(int size)
{
	struct world *world = xzalloc(1, sizeof *world);

	world->size = size;
	pthread_mutex_init(&world->lock, NULL);
	world->rank = xzalloc((size_t)size, sizeof *world->rank);
	world->lane = xzalloc((size_t)size * (size_t)size, sizeof *world->lane);
	for (int i = 0; i < size * size; i++) {
		struct lane *lane = &world->lane[i];

		lane->sends.end = &lane->sends.first;
		lane->receives.end = &lane->receives.first;
	}
	for (int i = 0; i < size; i++)
		open_rank(world, i);
	return world;
}

static void world_free(struct world *world)
{
	for (int i = 0; i < world->size; i++)
		pthread_cond_destroy(&world->rank[i].wake);
	pthread_mutex_destroy(&world->lock);
	arena_release(&world->arena);
	free(world->rank);
	free(world->lane);
	free(world);
}

/* A rank's buffers may die with it, so one with transfers under way takes the world along. */
static void leave(struct rank *self)
{
	struct world *world = self->world;

	pthread_mutex_lock(&world->lock);
	self->ended = true;
	if (self->under_way && !world->aborted) {
		if (self->result == 0)
			self->result = error(EXIT_BUG, "ended with %d transfers under way",
					     self->under_way);
		abort_world(world);
	}
	for (int rank = 0; rank < world->size; rank++)
		wake(world, rank);
	pthread_mutex_unlock(&world->lock);
}

static void *rank_main(void *arg)
{
	struct rank *self = arg;

	log_rank(self->comm.rank);
	self->result = self->work(&self->comm, self->arg);
	leave(self);
	/* What this thread still holds of its errors and notes would be lost with it. */
	error_clear();
	free(log_take());
	return NULL;
}

/* Starts the ranks with all signals blocked: those belong to the main thread. Returns how many
 * started; after an error they find the world aborted. */
static int start_ranks(struct world *world, int (*work)(struct comm *comm, void *arg),
		       void *arg)
{
	sigset_t all, before;
	int rc = 0, started = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (started < world->size) {
		struct rank *rank = &world->rank[started];

		rank->work = work;
		rank->arg = arg;
		rc = pthread_create(&rank->thread, NULL, rank_main, rank);
		if (rc != 0)
			break;
		started++;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc != 0) {
		report(EXIT_RETRY, "cannot start rank %d as a thread: %s", started,
		       strerror(rc));
		local_abort(&world->rank[0].comm, EXIT_RETRY);
	}
	return started;
}

int comm_local_run(int size, int (*work)(struct comm *comm, void *arg), void *arg)
{
	struct world *world = world_open(size);
	int started = start_ranks(world, work, arg);
	int result = 0;

	for (int rank = 0; rank < started; rank++)
		pthread_join(world->rank[rank].thread, NULL);
	for (int rank = 0; rank < started && result == 0; rank++)
		result = world->rank[rank].result;
	if (started < size)
		result = -1;
	world_free(world);
	return result;
}

struct comm *comm_alone_open(void)
{
	struct world *world = world_open(1);

	world->alone = true;
	return &world->rank[0].comm;
}
