/*
 * The proof of a schedule: plays all stages together against bounded queues, and checks at
 * every op that what it needs is there. The play is deterministic and monotone (an op that can
 * run stays able to run until it has), so one order of play shows what every order would: if it
 * ends, no timing can deadlock. Larger queues only help.
 */
#include <stdlib.h>
#include <string.h>

#include "pipeline/pipeline.h"

/* How far one stage is. Counters are of micro-batches, which must come in order. */
struct player {
	int next;			/* op */
	int received_forward, forward, sent_forward;
	int received_backward, backward, sent_backward;
	bool updated;
};

struct play {
	const struct schedule *schedule;
	struct player *player;
	int queue;
	bool trains;			/* has backwards at all */
	char *why;
	size_t why_bytes;
};

static const char *kind_name(enum op_kind kind)
{
	static const char *const name[] = {"receive forward",  "forward",  "send forward",
					   "receive backward", "backward", "send backward",
					   "update"};
	return kind <= OP_UPDATE ? name[kind] : "unknown op";
}

static int refuse(const struct play *play, int stage, const char *reason)
{
	int at = play->player[stage].next;
	struct op op = play->schedule->op[stage][at];

	snprintf(play->why, play->why_bytes, "stage %d, op %d (%s of micro-batch %d): %s",
		 stage, at, kind_name(op.kind), op.micro, reason);
	return -1;
}

/* Takes the next in order of one counter. */
static int take(const struct play *play, int stage, int *counter)
{
	struct op op = play->schedule->op[stage][play->player[stage].next];

	if (op.micro != *counter)
		return refuse(play, stage, "out of order, repeated or skipped");
	if (op.micro >= play->schedule->micro_batches)
		return refuse(play, stage, "there is no such micro-batch");
	(*counter)++;
	return 1;
}

/* How many micro-batches of a stage have left their slots, sends included. */
static int freed(const struct play *play, int stage)
{
	const struct player *p = &play->player[stage];

	if (play->trains)
		return stage > 0 ? p->sent_backward : p->backward;
	return stage < play->schedule->stages - 1 ? p->sent_forward : p->forward;
}

static int play_recv(const struct play *play, int stage, bool forward)
{
	struct player *p = &play->player[stage];
	int from = forward ? stage - 1 : stage + 1;
	int m = play->schedule->op[stage][p->next].micro;

	if (from < 0 || from >= play->schedule->stages)
		return refuse(play, stage, "there is no stage to receive from");
	if (forward && m - freed(play, stage) >= play->schedule->room[stage])
		return refuse(play, stage, "its slot is still in use");
	if (!forward && p->sent_forward <= m)
		return refuse(play, stage, "its output has not been sent");
	if (m >= (forward ? play->player[from].sent_forward : play->player[from].sent_backward))
		return 0;
	return take(play, stage, forward ? &p->received_forward : &p->received_backward);
}

static int play_send(const struct play *play, int stage, bool forward)
{
	struct player *p = &play->player[stage];
	int to = forward ? stage + 1 : stage - 1, m = play->schedule->op[stage][p->next].micro;

	if (to < 0 || to >= play->schedule->stages)
		return refuse(play, stage, "there is no stage to send to");
	if (m >= (forward ? p->forward : p->backward))
		return refuse(play, stage, "it has not been computed");
	if (m - (forward ? play->player[to].received_forward
			 : play->player[to].received_backward) >= play->queue)
		return 0;
	return take(play, stage, forward ? &p->sent_forward : &p->sent_backward);
}

static int play_forward(const struct play *play, int stage)
{
	struct player *p = &play->player[stage];
	int m = play->schedule->op[stage][p->next].micro;

	if (stage > 0 && p->received_forward <= m)
		return refuse(play, stage, "its input has not been received");
	if (play->trains && m - p->backward >= play->schedule->room[stage])
		return refuse(play, stage, "more micro-batches in flight than it has room for");
	if (m - freed(play, stage) >= play->schedule->room[stage])
		return refuse(play, stage, "its slot is still in use");
	return take(play, stage, &p->forward);
}

static int play_backward(const struct play *play, int stage)
{
	struct player *p = &play->player[stage];
	int m = play->schedule->op[stage][p->next].micro;

	if (m >= p->forward)
		return refuse(play, stage, "it has not gone forward");
	if (stage < play->schedule->stages - 1 && p->received_backward <= m)
		return refuse(play, stage, "its gradient has not been received");
	return take(play, stage, &p->backward);
}

static int play_update(const struct play *play, int stage)
{
	struct player *p = &play->player[stage];

	if (p->updated)
		return refuse(play, stage, "a second update");
	if (p->backward < play->schedule->micro_batches)
		return refuse(play, stage, "gradients are missing");
	p->updated = true;
	return 1;
}

/* 1 when the next op of a stage ran, 0 when it must wait, -1 when it is wrong. */
static int play_op(const struct play *play, int stage)
{
	switch (play->schedule->op[stage][play->player[stage].next].kind) {
	case OP_RECV_FORWARD: return play_recv(play, stage, true);
	case OP_FORWARD: return play_forward(play, stage);
	case OP_SEND_FORWARD: return play_send(play, stage, true);
	case OP_RECV_BACKWARD: return play_recv(play, stage, false);
	case OP_BACKWARD: return play_backward(play, stage);
	case OP_SEND_BACKWARD: return play_send(play, stage, false);
	case OP_UPDATE: return play_update(play, stage);
	}
	return refuse(play, stage, "unknown op");
}

/* Plays until nobody can go on. */
static int play_out(const struct play *play)
{
	bool moved = true;

	while (moved) {
		moved = false;
		for (int stage = 0; stage < play->schedule->stages; stage++) {
			struct player *p = &play->player[stage];
			int ran = 1;

			while (p->next < play->schedule->count[stage] &&
			       (ran = play_op(play, stage)) > 0) {
				p->next++;
				moved = true;
			}
			if (ran < 0)
				return -1;
		}
	}
	return 0;
}

static int complain(const struct play *play, int stage, const char *reason)
{
	snprintf(play->why, play->why_bytes, "stage %d: %s", stage, reason);
	return -1;
}

/* Nothing stuck, nothing left undone. Every message was received then, since each of the
 * computations needed its own. */
static int check_end(const struct play *play)
{
	const struct schedule *s = play->schedule;

	for (int stage = 0; stage < s->stages; stage++)
		if (play->player[stage].next < s->count[stage])
			return refuse(play, stage, "deadlock: it waits for ever");
	for (int stage = 0; stage < s->stages; stage++) {
		const struct player *p = &play->player[stage];

		if (p->forward < s->micro_batches)
			return complain(play, stage, "a micro-batch never goes forward");
		if (play->trains && p->backward < s->micro_batches)
			return complain(play, stage, "a micro-batch never goes backward");
		if (play->trains && !p->updated)
			return complain(play, stage, "there is no update");
	}
	return 0;
}

static bool has_backward(const struct schedule *s)
{
	for (int stage = 0; stage < s->stages; stage++)
		for (int i = 0; i < s->count[stage]; i++)
			if (s->op[stage][i].kind == OP_BACKWARD)
				return true;
	return false;
}

int schedule_check(const struct schedule *schedule, int queue, char *why, size_t why_bytes)
{
	struct play play = {schedule, NULL, queue, has_backward(schedule), why, why_bytes};
	int status;

	snprintf(why, why_bytes, "%s", "");
	play.player = xzalloc((size_t)schedule->stages, sizeof(*play.player));
	status = play_out(&play);
	if (!status)
		status = check_end(&play);
	free(play.player);
	return status;
}
