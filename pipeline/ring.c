/*
 * ring.c - rows of new tokens on their way from stage to stage, and answers on their way back.
 * A packet is two messages, the first of which says how long the second is. Nothing here blocks
 * for good: the last stage has room for every answer that can be under way, so it always takes
 * the next packet, and so does everybody before it.
 */
#include <stdlib.h>
#include <string.h>

#include "pipeline/ring.h"

enum { TAG_HEAD = 51, TAG_BODY, TAG_ANSWER };

static size_t body_room(int rows, int width)
{
	return (size_t)generator_rows(rows) * (size_t)width * sizeof(float) +
	       (size_t)rows * sizeof(struct packet_row);
}

size_t ring_bytes(int rows, int width)
{
	return PACKETS * (body_room(rows, width) +
			  (size_t)rows * (sizeof(struct packet_row) + sizeof(int32_t)));
}

void ring_open(struct ring *ring, struct generation *g)
{
	const struct places *p = &g->places;
	int s = p->stage;

	*ring = (struct ring){.g = g,
			      .rows = g->piece > generator_few() ? g->piece : generator_few()};
	ring->first = p->rank_of_stage[0];
	ring->last = p->rank_of_stage[p->stages - 1];
	ring->before = s > 0 ? p->rank_of_stage[s - 1] : -1;
	ring->after = s >= 0 && s < p->stages - 1 ? p->rank_of_stage[s + 1] : -1;
	for (int i = 0; s >= 0 && i < PACKETS; i++) {
		struct packet *packet = &ring->packet[i];

		packet->x = xzalloc(1, body_room(ring->rows, g->width));
		packet->row = xzalloc((size_t)ring->rows, sizeof(*packet->row));
		packet->id = xzalloc((size_t)ring->rows, sizeof(*packet->id));
	}
}

void ring_close(struct ring *ring)
{
	for (int i = 0; i < PACKETS; i++) {
		free(ring->packet[i].x);
		free(ring->packet[i].row);
		free(ring->packet[i].id);
	}
}

static size_t body_bytes(const struct ring *ring, int rows)
{
	return (size_t)rows *
	       ((size_t)ring->g->width * sizeof(float) + sizeof(struct packet_row));
}

static void *rows_in_body(const struct ring *ring, const struct packet *packet)
{
	return packet->x + (size_t)packet->head.rows * (size_t)ring->g->width;
}

/* -- waiting ------------------------------------------------------------------------------- */

static void enter(const struct ring *ring, int kind, const char *what, const char *peer)
{
	watchdog_enter(ring->g->watchdog,
		       &(struct watchdog_section){kind, 1, what, peer, -1, -1});
}

static int await(const struct ring *ring, struct comm_request *request, int kind,
		 const char *what, const char *peer)
{
	int status;

	enter(ring, kind, what, peer);
	status = comm_wait(ring->g->comm, request);
	watchdog_leave(ring->g->watchdog);
	return status;
}

static int await_sent(const struct ring *ring, struct packet *packet)
{
	const char *name =
	    ring->after < 0 ? "" : ring->g->cut[ring->g->places.stage].forward_name;

	return await(ring, &packet->send_head, WATCH_SEND, "sending the activations of",
		     name) ||
		       await(ring, &packet->send_body, WATCH_SEND, "sending the activations of",
			     name)
		   ? -1
		   : 0;
}

/* -- packets ------------------------------------------------------------------------------- */

static struct packet *packet_of(struct ring *ring, unsigned number)
{
	return &ring->packet[number % PACKETS];
}

struct packet *ring_take(struct ring *ring)
{
	struct packet *packet = packet_of(ring, ring->taken++);

	return await_sent(ring, packet) ? NULL : packet;
}

/* A packet whose last journey is over waits for the next head. */
static int post_head(struct ring *ring)
{
	struct packet *packet = packet_of(ring, ring->received++);

	packet->body_posted = false;
	if (await_sent(ring, packet))
		return -1;
	return comm_recv(ring->g->comm, ring->before, TAG_HEAD, &packet->head,
			 sizeof(packet->head), &packet->recv_head);
}

/* What follows a head that has come. */
static int post_body(struct ring *ring, struct packet *packet)
{
	packet->body_posted = true;
	if (packet->head.kind == PACKET_END)
		return 0;
	if (packet->head.rows < 1 || packet->head.rows > ring->rows)
		return error(EXIT_RETRY, "a packet of %d rows came from rank %d",
			     packet->head.rows, ring->before);
	return comm_recv(ring->g->comm, ring->before, TAG_BODY, packet->x,
			 body_bytes(ring, packet->head.rows), &packet->recv_body);
}

/* The next packet travels while this one is computed, where its head is there. */
static int look_ahead(struct ring *ring)
{
	struct packet *next = packet_of(ring, ring->taken);
	int there;

	if (ring->received == ring->taken && post_head(ring))
		return -1;
	there = next->body_posted ? 0 : comm_test(ring->g->comm, &next->recv_head);
	return there > 0 ? post_body(ring, next) : there;
}

struct packet *ring_receive(struct ring *ring)
{
	const char *name = ring->g->cut[ring->g->places.stage - 1].forward_name;
	struct packet *packet = packet_of(ring, ring->taken);

	if (ring->received == ring->taken && post_head(ring))
		return NULL;
	ring->taken++;
	if (await(ring, &packet->recv_head, WATCH_ACTIVATIONS, "waiting for the activations of",
		  name) ||
	    (!packet->body_posted && post_body(ring, packet)) ||
	    await(ring, &packet->recv_body, WATCH_ACTIVATIONS, "waiting for the activations of",
		  name))
		return NULL;
	if (packet->head.kind == PACKET_END)
		return packet;
	memcpy(packet->row, rows_in_body(ring, packet),
	       (size_t)packet->head.rows * sizeof(*packet->row));
	return look_ahead(ring) ? NULL : packet;
}

int ring_send(struct ring *ring, struct packet *packet)
{
	struct generation *g = ring->g;
	bool ends = packet->head.kind == PACKET_END;
	size_t bytes = ends ? 0 : body_bytes(ring, packet->head.rows);

	if (ring->after < 0)
		return 0;
	if (packet->head.kind == PACKET_TOKENS) {
		g->stats.token_bytes += (double)(bytes + sizeof(packet->head));
		g->stats.tokens_sent += packet->head.rows;
	}
	if (comm_send(g->comm, ring->after, TAG_HEAD, &packet->head, sizeof(packet->head),
		      &packet->send_head))
		return -1;
	if (ends)
		return 0;
	memcpy(rows_in_body(ring, packet), packet->row,
	       (size_t)packet->head.rows * sizeof(*packet->row));
	return comm_send(g->comm, ring->after, TAG_BODY, packet->x, bytes, &packet->send_body);
}

/* -- answers ------------------------------------------------------------------------------- */

int ring_answer(struct ring *ring, const struct answer *answer)
{
	struct comm *comm = ring->g->comm;
	unsigned i = ring->answers++ % ANSWERS;
	struct answer *out = &ring->answer_out[i];

	if (await(ring, &ring->answer_first[i], WATCH_SEND, "sending tokens to",
		  "the first stage") ||
	    await(ring, &ring->answer_zero[i], WATCH_SEND, "sending tokens to", "rank 0"))
		return -1;
	*out = *answer;
	if (ring->first != comm->rank &&
	    comm_send(comm, ring->first, TAG_ANSWER, out, sizeof(*out), &ring->answer_first[i]))
		return -1;
	if (comm->rank != 0 && ring->first != 0 &&
	    comm_send(comm, 0, TAG_ANSWER, out, sizeof(*out), &ring->answer_zero[i]))
		return -1;
	return 0;
}

int ring_listen(struct ring *ring, struct answer *answer, bool wait)
{
	struct comm *comm = ring->g->comm;
	int there;

	if (!ring->answer_recv.state && ring->answer_in.rows == 0 &&
	    comm_recv(comm, ring->last, TAG_ANSWER, &ring->answer_in, sizeof(ring->answer_in),
		      &ring->answer_recv))
		return -1;
	there = comm_test(comm, &ring->answer_recv);
	if (there == 0 && wait)
		there = await(ring, &ring->answer_recv, WATCH_VERDICT, "waiting for tokens of",
			      "the last stage")
			    ? -1
			    : 1;
	if (there <= 0)
		return there;
	if (ring->answer_in.rows < 1 || ring->answer_in.rows > ANSWER_ROWS)
		return error(EXIT_RETRY, "an answer of %d rows came from rank %d",
			     ring->answer_in.rows, ring->last);
	*answer = ring->answer_in;
	ring->answer_in.rows = 0;
	return 1;
}

int ring_settle(struct ring *ring)
{
	for (int i = 0; i < PACKETS; i++)
		if (await_sent(ring, &ring->packet[i]))
			return -1;
	for (int i = 0; i < ANSWERS; i++)
		if (await(ring, &ring->answer_first[i], WATCH_SEND, "sending tokens to",
			  "the first stage") ||
		    await(ring, &ring->answer_zero[i], WATCH_SEND, "sending tokens to",
			  "rank 0"))
			return -1;
	return 0;
}
