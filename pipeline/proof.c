/*
 * The proof of a schedule: plays all stages together with transfers that nothing buffers, and
 * checks at every op that what it needs is there or will come. The play is deterministic and
 * monotone (what can pass stays able to pass until it has), so one order of play shows what
 * every order would: if it ends, no timing can deadlock.
 *
 * Since posting never blocks, what stops a play is an order of computations that waits in a
 * circle; a late receive or a taken edge buffer holds a transfer back, and is played too.
 */
#include <stdlib.h>
#include <string.h>

#include "pipeline/pipeline.h"

/* How far one stage is. Counters are of micro-batches, which must come in order; of transfers
 * they count what was posted. */
struct player {
	int next;			/* op */
	int recv_forward, forward, send_forward;
	int recv_backward, backward, send_backward;
	int passed_forward, passed_backward;	/* through the cut after this stage */
	bool updated;
};

struct play {
	const struct schedule *schedule;
	struct player *player;
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
	(*counter)++;
	return 1;
}

static bool is_first(int stage)
{
	return stage == 0;
}

static bool is_last(const struct play *play, int stage)
{
	return stage == play->schedule->stages - 1;
}

/* How many micro-batches of a stage are on their way out of their edge buffers. */
static int leaving(const struct play *play, int stage)
{
	const struct player *p = &play->player[stage];

	if (play->trains)
		return is_first(stage) ? p->backward : p->send_backward;
	return is_last(play, stage) ? p->forward : p->send_forward;
}

/* How many have left them. */
static int left(const struct play *play, int stage)
{
	const struct player *p = &play->player[stage];

	if (play->trains)
		return is_first(stage) ? p->backward : play->player[stage - 1].passed_backward;
	return is_last(play, stage) ? p->forward : p->passed_forward;
}

/* -- ops ----------------------------------------------------------------------------------- */

static int play_recv_forward(const struct play *play, int stage)
{
	struct player *p = &play->player[stage];
	int m = play->schedule->op[stage][p->next].micro;

	if (is_first(stage))
		return refuse(play, stage, "there is no stage to receive from");
	if (m - leaving(play, stage) >= play->schedule->edge[stage])
		return refuse(play, stage, "posted before its edge buffer is on its way out");
	return take(play, stage, &p->recv_forward);
}

static int play_recv_backward(const struct play *play, int stage)
{
	struct player *p = &play->player[stage];

	if (is_last(play, stage))
		return refuse(play, stage, "there is no stage to receive from");
	if (p->send_forward <= play->schedule->op[stage][p->next].micro)
		return refuse(play, stage, "its output has not been sent");
	return take(play, stage, &p->recv_backward);
}

static int play_send(const struct play *play, int stage, bool forward)
{
	struct player *p = &play->player[stage];
	int m = play->schedule->op[stage][p->next].micro;

	if (forward ? is_last(play, stage) : is_first(stage))
		return refuse(play, stage, "there is no stage to send to");
	if (m >= (forward ? p->forward : p->backward))
		return refuse(play, stage, "it has not been computed");
	return take(play, stage, forward ? &p->send_forward : &p->send_backward);
}

static int play_forward(const struct play *play, int stage)
{
	const struct schedule *s = play->schedule;
	struct player *p = &play->player[stage];
	int m = s->op[stage][p->next].micro;

	if (!is_first(stage) && p->recv_forward <= m)
		return refuse(play, stage, "its input has no receive");
	if (play->trains && m - p->backward >= s->room[stage])
		return refuse(play, stage, "more micro-batches in flight than it has room for");
	if (m - leaving(play, stage) >= s->edge[stage])
		return refuse(play, stage, "its edge buffer is still in use");
	if (m - left(play, stage) >= s->edge[stage])
		return 0;
	if (!is_first(stage) && play->player[stage - 1].passed_forward <= m)
		return 0;
	return take(play, stage, &p->forward);
}

static int play_backward(const struct play *play, int stage)
{
	struct player *p = &play->player[stage];
	int m = play->schedule->op[stage][p->next].micro;

	if (m >= p->forward)
		return refuse(play, stage, "it has not gone forward");
	if (!is_last(play, stage) && p->recv_backward <= m)
		return refuse(play, stage, "its gradient has no receive");
	if (!is_last(play, stage) && p->passed_backward <= m)
		return 0;
	return take(play, stage, &p->backward);
}

static int play_update(const struct play *play, int stage)
{
	struct player *p = &play->player[stage];

	if (p->backward < play->schedule->micro_batches)
		return refuse(play, stage, "gradients are missing");
	p->updated = true;
	return 1;
}

/* 1 when the next op of a stage ran, 0 when it must wait, -1 when it is wrong. */
static int play_op(const struct play *play, int stage)
{
	const struct schedule *s = play->schedule;
	struct op op = s->op[stage][play->player[stage].next];

	if (op.micro < 0 || op.micro >= (op.kind == OP_UPDATE ? 1 : s->micro_batches))
		return refuse(play, stage, "there is no such micro-batch");
	if (play->player[stage].updated)
		return refuse(play, stage, "after the update");
	switch (op.kind) {
	case OP_RECV_FORWARD: return play_recv_forward(play, stage);
	case OP_FORWARD: return play_forward(play, stage);
	case OP_SEND_FORWARD: return play_send(play, stage, true);
	case OP_RECV_BACKWARD: return play_recv_backward(play, stage);
	case OP_BACKWARD: return play_backward(play, stage);
	case OP_SEND_BACKWARD: return play_send(play, stage, false);
	case OP_UPDATE: return play_update(play, stage);
	}
	return refuse(play, stage, "unknown op");
}

/* -- play ---------------------------------------------------------------------------------- */

/* Passes what can through the cut after a stage. */
static bool pass(const struct play *play, int stage)
{
	struct player *p = &play->player[stage], *q = p + 1;
	int forward = p->passed_forward, backward = p->passed_backward;

	while (p->passed_forward < p->send_forward && p->passed_forward < q->recv_forward &&
	       p->passed_forward - left(play, stage + 1) < play->schedule->edge[stage + 1])
		p->passed_forward++;
	while (p->passed_backward < q->send_backward && p->passed_backward < p->recv_backward)
		p->passed_backward++;
	return p->passed_forward > forward || p->passed_backward > backward;
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
			if (!is_last(play, stage) && pass(play, stage))
				moved = true;
		}
	}
	return 0;
}

static int complain(const struct play *play, int stage, const char *reason)
{
	snprintf(play->why, play->why_bytes, "stage %d: %s", stage, reason);
	return -1;
}

/* Nothing stuck, nothing left undone. Every message has passed then, since each of the
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

static int check_sizes(const struct play *play)
{
	const struct schedule *s = play->schedule;

	for (int stage = 0; stage < s->stages; stage++) {
		if (s->room[stage] < 1)
			return complain(play, stage, "it has no room");
		if (s->edge[stage] < s->room[stage])
			return complain(play, stage, "fewer edge buffers than room");
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

int schedule_check(const struct schedule *schedule, char *why, size_t why_bytes)
{
	struct play play = {schedule, NULL, has_backward(schedule), why, why_bytes};
	int status;

	snprintf(why, why_bytes, "%s", "");
	play.player = xzalloc((size_t)schedule->stages, sizeof(*play.player));
	status = check_sizes(&play);
	if (!status)
		status = play_out(&play);
	if (!status)
		status = check_end(&play);
	free(play.player);
	return status;
}
