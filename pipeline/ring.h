/*
 * pipeline/ring.h - the ring that generating goes round: rows of new tokens from the first
 * stage to the last (ring.c), who answers with the tokens after them; and the first stage's
 * desk, which decides what goes round next (desk.c).
 */
#ifndef EDGEPIPE_PIPELINE_RING_H
#define EDGEPIPE_PIPELINE_RING_H

#include "pipeline/internal.h"

/* -- ring.c -------------------------------------------------------------------------------- */

enum { ANSWER_ROWS = 16 };	/* at least generator_few() */
enum packet_kind { PACKET_PROMPT = 1, PACKET_PROMPT_END, PACKET_TOKENS, PACKET_END };

/* What goes ahead of rows; their number tells how much follows. 8 bytes. */
struct packet_head { int32_t kind, rows; };
/* A row: of which prompt, where its sequence is kept, and its place. */
struct packet_row { int32_t prompt, sequence, position; };
/* Rows on their way through a stage. What follows the head is one message: x, then the rows. */
struct packet {
	struct packet_head head;
	/* (head.rows, C), with room for what fills up the last piece */
	float *x;
	struct packet_row *row;		/* host copies; in the message they stand behind x */
	int32_t *id;			/* on the first stage */
	struct comm_request recv_head, recv_body, send_head, send_body;
	bool body_posted;
};
/* What the last stage says of rows. */
struct answer_row { int32_t prompt, sequence, id, finish; };
struct answer { int32_t rows, kind; struct answer_row row[ANSWER_ROWS]; };

enum { PACKETS = 3, ANSWERS = 32 };
struct ring {
	struct generation *g;
	int first, last;		/* ranks */
	int before, after;		/* ranks of the neighbours; -1: none */
	int rows;			/* of a packet, at most */
	struct packet packet[PACKETS];
	unsigned received, used, taken;	/* counts: posted, in use, handed out */
	struct answer answer_in;	/* where answers come in */
	struct comm_request answer_recv;
	struct answer answer_out[ANSWERS];
	struct comm_request answer_first[ANSWERS], answer_zero[ANSWERS];
	unsigned answers;
};
/* Allocates packets; on a rank without a stage there are none. */
void ring_open(struct ring *ring, struct generation *generation);
/* Bytes that ring_open allocates. */
size_t ring_bytes(int rows, int width);
/* On the first stage: an empty packet, whose last journey is over. Null after a failed
 * transfer. */
struct packet *ring_take(struct ring *ring);
/* On others: the next one from the stage before, which may be PACKET_END. */
struct packet *ring_receive(struct ring *ring);
/* To the stage after. */
int ring_send(struct ring *ring, struct packet *packet);
/* On the last stage: to the first, and to rank 0. */
int ring_answer(struct ring *ring, const struct answer *answer);
/* On the first stage, and on rank 0: the next answer. 1, 0 where none has come and `wait` is
 * false, -1. */
int ring_listen(struct ring *ring, struct answer *answer, bool wait);
int ring_settle(struct ring *ring);
void ring_close(struct ring *ring);

/* -- desk.c -------------------------------------------------------------------------------- */

/* What the first stage knows of a sequence that is kept. */
struct seat {
	int prompt;			/* -1: free */
	int sent;			/* tokens that went round */
	/* the token that is to go round; -1: under way, or of the prompt */
	int32_t next;
};
struct desk {
	const struct generation *g;
	struct seat *seat;		/* [sequences] */
	int taken, finished;		/* prompts */
	int waiting;			/* packets whose answers are to come */
	int groups;			/* that go round at once */
	int turn;			/* the seat that was served last */
	/* while prompts were on their way, and while none was */
	double prompt_s, token_s, mark_s;
	int prompts_waiting;
};
void desk_open(struct desk *desk, const struct generation *generation);
/* Fills a packet with what is next. False: nothing is, before an answer comes. */
bool desk_next(struct desk *desk, struct packet *packet);
void desk_answer(struct desk *desk, const struct answer *answer);
bool desk_done(const struct desk *desk);
void desk_close(struct desk *desk);

#endif
