/*
 * shaped.c - any transport, slowed down to given links: a campus to be tried on a desk.
 *
 * All is done where a message is sent. It is copied into a node of a delay line and reserves
 * its link at once, so its whole future is known:
 *
 * 	start = max(now, when the pair is free, when each shared interface on its way is free)
 * 	left  = start + bytes / bandwidth, or what the trace says: the sender's request is done,
 * 		and pair and interfaces are free again
 * 	due   = left + latency: the message goes into the inner transport, where the receiver
 * 		waits with a plain receive
 *
 * The times are absolute and start from `free`, not from when somebody looked: a poll that
 * comes late delays the message it was for, and none after it. A sender that waits for each
 * message before it sends the next leaves the link idle for as long as it notices late; one
 * that keeps two or more under way has the exact rate.
 *
 * The delay line is driven by test alone (and while closing): a rank that has sent something
 * goes on to test, if only an idle request, until its messages are due and received. rest wakes
 * up in time for that.
 *
 * A send is done before its message was received, whatever its size, as on a network that
 * buffers; but like those buffers the window of a pair is finite. While more than WINDOW
 * messages have arrived that nobody receives, a send is done only when its own message is
 * received: so whoever runs ahead waits for the other side, and a program that ends on a
 * network without any buffers, where every send waits for its own receive, ends here too.
 * Messages that the inner transport buffers (small ones) count as received. Where it fails
 * after a send was done, all sends of this rank fail from then on.
 *
 * Where all ranks are on one machine, what they share (common.c) holds when each shared
 * interface is free, and the bells that tell a rank at once that a message was handed over.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "comm/internal.h"

enum { CLASSES = 60 };		/* sizes of nodes: without data, 64 bytes, 128 bytes, ... */
enum { WINDOW = STREAM_FRAMES };	/* messages: as much again as a stream has under way */

/* The state of a request, and a message in the delay line. */
struct node {
	struct node *next;		/* in its pair, the sent ones, or the spare ones */
	struct comm_request inner;
	int class;
	bool delayed;			/* through the line; else the inner request is all */
	bool owned, through;		/* its request is under way; the inner send is done */
	int to, tag;
	size_t bytes;
	double left, due;		/* see above */
	char data[];
};

/* From this rank to one other. */
struct pair {
	struct shape shape;
	bool plain;			/* nothing is slowed down */
	double free;
	struct node *first, **end;	/* not yet due; oldest first */
	int waiting;			/* in the inner transport, not yet through */
};

struct shaped {
	struct comm comm;
	struct comm *inner;
	struct pair *pair;		/* [to] */
	struct node *sent;		/* in the inner transport, not yet through */
	struct node *spare[CLASSES];
	struct common common;
	double opened, seen;		/* the zero of traces; the last test */
	bool looked;			/* the inner transport was tested since the last rest */
	bool broken;			/* a send failed */
	struct arena arena;		/* the nodes; as old as the transport */
};

/* -- nodes --------------------------------------------------------------------------------- */

static size_t room_of(int class)
{
	return class ? (size_t)32 << class : 0;
}

static struct node *take(struct shaped *shaped, size_t bytes)
{
	struct node *node;
	int class = 0;

	while (room_of(class) < bytes)
		class++;
	if ((node = shaped->spare[class]))
		shaped->spare[class] = node->next;
	else
		node = arena_take(&shaped->arena, sizeof *node + room_of(class));
	*node = (struct node){.class = class};
	return node;
}

static void put_back(struct shaped *shaped, struct node *node)
{
	node->next = shaped->spare[node->class];
	shaped->spare[node->class] = node;
}

/* -- links --------------------------------------------------------------------------------- */

/* When a message that starts then has left. */
static double leaves(const struct shaped *shaped, const struct shape *shape, double start,
		     size_t bytes)
{
	if (shape->trace)
		return shaped->opened + link_trace_end(shape->trace, start - shaped->opened,
						       (double)bytes);
	return shape->bandwidth_bytes_s > 0 ? start + (double)bytes / shape->bandwidth_bytes_s
					    : start;
}

/* Takes the pair and its interfaces for a message, from now on or as soon as all are free. */
static double reserve(struct shaped *shaped, struct pair *pair, size_t bytes)
{
	const struct shape *shape = &pair->shape;
	struct common *common = &shaped->common;
	double *out = shape->nic_out < 0 ? NULL : &common->free[shape->nic_out];
	double *in = shape->nic_in < 0 ? NULL : &common->free[shape->nic_in];
	double start = fmax(clock_s(), pair->free);

	if ((out || in) && pthread_mutex_lock(common->lock) == EOWNERDEAD)
		pthread_mutex_consistent(common->lock);
	if (out)
		start = fmax(start, *out);
	if (in)
		start = fmax(start, *in);
	pair->free = leaves(shaped, shape, start, bytes);
	if (out)
		*out = pair->free;
	if (in)
		*in = pair->free;
	if (out || in)
		pthread_mutex_unlock(common->lock);
	return pair->free;
}

/* -- the delay line ------------------------------------------------------------------------ */

static void finish(struct shaped *shaped, struct node *node)
{
	if (node->inner.error)
		shaped->broken = true;
	node->through = true;
	if (!node->owned)
		put_back(shaped, node);
}

/* Both ends have something to look after now. */
static void ring(const struct shaped *shaped, int to)
{
	if (!shaped->common.bell)
		return;
	bell_ring(&shaped->common.bell[to]);
	bell_ring(&shaped->common.bell[shaped->comm.rank]);
}

/* Hands the oldest message of a pair to the inner transport. */
static void issue(struct shaped *shaped, struct pair *pair)
{
	struct node *node = pair->first;

	pair->first = node->next;
	if (!pair->first)
		pair->end = &pair->first;
	if (!shaped->broken)
		shaped->inner->ops->send(shaped->inner, node->to, node->tag, node->data,
					 node->bytes, &node->inner);
	ring(shaped, node->to);
	if (!node->inner.state) {
		finish(shaped, node);
		return;
	}
	node->next = shaped->sent;
	shaped->sent = node;
	pair->waiting++;
}

static int look(struct shaped *shaped, struct node *node)
{
	shaped->looked = true;
	return shaped->inner->ops->test(shaped->inner, &node->inner);
}

static void drive(struct shaped *shaped)
{
	shaped->seen = clock_s();
	for (int to = 0; to < shaped->comm.size; to++) {
		struct pair *pair = &shaped->pair[to];

		while (pair->first && (pair->first->due <= shaped->seen || shaped->broken))
			issue(shaped, pair);
	}
	for (struct node **at = &shaped->sent; *at;) {
		struct node *node = *at;

		if (!look(shaped, node)) {
			at = &node->next;
			continue;
		}
		*at = node->next;
		shaped->pair[node->to].waiting--;
		finish(shaped, node);
	}
}

/* When the next message is due or has left that the last test did not see; HUGE_VAL: none. */
static double next_event(const struct shaped *shaped)
{
	double next = HUGE_VAL;

	for (int to = 0; to < shaped->comm.size; to++) {
		const struct node *node = shaped->pair[to].first;

		if (node && node->due < next)
			next = node->due;
		while (node && (!node->owned || node->left <= shaped->seen))
			node = node->next;
		if (node && node->left < next)
			next = node->left;
	}
	return next;
}

/* -- the table ----------------------------------------------------------------------------- */

/* After an inner operation with the request of a node. */
static int passed(struct shaped *shaped, struct comm_request *request, int rc)
{
	struct node *node = request->state;

	if (node->inner.state)
		return rc;
	request->state = NULL;
	request->error = node->inner.error;
	put_back(shaped, node);
	return rc;
}

static int shaped_recv(struct comm *comm, int from, int tag, void *data, size_t bytes,
		       struct comm_request *request)
{
	struct shaped *shaped = comm->state;
	struct node *node = take(shaped, 0);

	*request = (struct comm_request){.state = node, .bytes = bytes};
	return passed(shaped, request, shaped->inner->ops->recv(shaped->inner, from, tag, data,
								bytes, &node->inner));
}

static int delay(struct shaped *shaped, int to, int tag, const void *data, size_t bytes,
		 struct comm_request *request)
{
	struct pair *pair = &shaped->pair[to];
	struct node *node;

	*request = (struct comm_request){.bytes = bytes};
	if (shaped->broken)
		return request->error = -1;
	node = take(shaped, bytes);
	node->delayed = node->owned = true;
	node->to = to;
	node->tag = tag;
	node->bytes = bytes;
	if (bytes)
		memcpy(node->data, data, bytes);
	node->left = reserve(shaped, pair, bytes);
	node->due = node->left + pair->shape.latency_s;
	*pair->end = node;
	pair->end = &node->next;
	request->state = node;
	return 0;
}

static int shaped_send(struct comm *comm, int to, int tag, const void *data, size_t bytes,
		       struct comm_request *request)
{
	struct shaped *shaped = comm->state;
	struct node *node;

	if (!shaped->pair[to].plain)
		return delay(shaped, to, tag, data, bytes, request);
	node = take(shaped, 0);
	*request = (struct comm_request){.state = node, .bytes = bytes};
	return passed(shaped, request, shaped->inner->ops->send(shaped->inner, to, tag, data,
								bytes, &node->inner));
}

/* Of a delayed message: whether its sender is rid of it. */
static bool has_left(const struct shaped *shaped, const struct node *node)
{
	return shaped->seen >= node->left &&
	       (node->through || shaped->pair[node->to].waiting <= WINDOW);
}

static int shaped_test(struct comm *comm, struct comm_request *request)
{
	struct shaped *shaped = comm->state;
	struct node *node = request->state;
	int done;

	drive(shaped);
	if (!node)
		return request->error ? -1 : 1;
	if (!node->delayed) {
		done = look(shaped, node);
		return done ? passed(shaped, request, done) : 0;
	}
	if (!shaped->broken && !has_left(shaped, node))
		return 0;
	request->state = NULL;
	request->error = shaped->broken ? -1 : 0;
	node->owned = false;
	if (node->through)
		put_back(shaped, node);
	return request->error ? -1 : 1;
}

/* Where nobody asks the inner transport, what happens there must not cut every rest short. */
static void shaped_rest(struct comm *comm, double s)
{
	struct shaped *shaped = comm->state;
	double most = next_event(shaped) - clock_s();

	if (most < s)
		s = most;
	if (s <= 0)
		return;
	if (shaped->inner->ops->rest && shaped->looked)
		shaped->inner->ops->rest(shaped->inner, s);
	else
		clock_sleep(s);
	shaped->looked = false;
}

static double shaped_due(struct comm *comm)
{
	return next_event(comm->state);
}

static struct bell *shaped_bell(struct comm *comm)
{
	struct shaped *shaped = comm->state;

	return shaped->common.bell ? &shaped->common.bell[comm->rank] : NULL;
}

static void shaped_cancel(struct comm *comm, struct comm_request *request)
{
	struct shaped *shaped = comm->state;
	struct node *node = request->state;

	if (!node)
		return;
	shaped->inner->ops->cancel(shaped->inner, &node->inner);
	passed(shaped, request, 0);
}

static void shaped_abort(struct comm *comm, int code)
{
	struct shaped *shaped = comm->state;

	shaped->broken = true;
	shaped->inner->ops->abort(shaped->inner, code);
}

static void release(struct shaped *shaped)
{
	common_close(&shaped->common);
	arena_release(&shaped->arena);
	free(shaped->pair);
	free(shaped);
}

static void shaped_close(struct comm *comm)
{
	struct shaped *shaped = comm->state;

	for (drive(shaped); shaped->sent || next_event(shaped) < HUGE_VAL; drive(shaped))
		shaped_rest(comm, 1e-3);
	release(shaped);
}

static const struct comm_ops ops = {
	.name = "shaped",
	.send = shaped_send,
	.recv = shaped_recv,
	.test = shaped_test,
	.cancel = shaped_cancel,
	.abort = shaped_abort,
	.close = shaped_close,
	.rest = shaped_rest,
	.due = shaped_due,
	.bell = shaped_bell,
};

/* -- how much is held ---------------------------------------------------------------------- */

/* A copy of every frame that is under way, and a window of those that have arrived. */
size_t comm_shaped_memory(size_t stream_bytes)
{
	return stream_bytes + stream_bytes / STREAM_FRAMES * (WINDOW + 1);
}

/* -- opening ------------------------------------------------------------------------------- */

static int check_interfaces(const struct comm *inner, const struct shape *shape, int nics)
{
	for (int i = 0; i < inner->size * inner->size; i++)
		if (shape[i].nic_out >= nics || shape[i].nic_in >= nics)
			return error(EXIT_BUG, "a link has the interfaces %d and %d of %d",
				     shape[i].nic_out, shape[i].nic_in, nics);
	return 0;
}

static void open_pair(struct pair *pair, const struct shape *shape, bool alone)
{
	pair->shape = *shape;
	pair->end = &pair->first;
	pair->plain = alone || (shape->bandwidth_bytes_s <= 0 && !shape->trace &&
				shape->latency_s <= 0 && shape->nic_out < 0 &&
				shape->nic_in < 0);
}

struct comm *comm_shaped_open(struct comm *inner, const struct shape *shape, int nics)
{
	int rank = inner->rank, size = inner->size;
	struct shaped *shaped;

	if (check_interfaces(inner, shape, nics) < 0)
		return NULL;
	shaped = xzalloc(1, sizeof *shaped);
	shaped->inner = inner;
	shaped->comm = (struct comm){.ops = &ops, .rank = rank, .size = size, .state = shaped};
	shaped->pair = xzalloc((size_t)size, sizeof *shaped->pair);
	for (int to = 0; to < size; to++)
		open_pair(&shaped->pair[to], &shape[rank * size + to], to == rank);
	if (common_open(&shaped->common, inner, nics) < 0 || comm_barrier(inner) < 0)
		goto fail;
	shaped->opened = shaped->seen = clock_s();
	return &shaped->comm;
fail:
	release(shaped);
	return NULL;
}
