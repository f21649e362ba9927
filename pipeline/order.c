/*
 * The order in which a stage computes, and how many micro-batches it keeps in flight.
 *
 * A stage with K in flight gets a gradient back K forwards later, so a round trip to the end of
 * the pipeline costs it round trip / K for each micro-batch. Slow links lengthen the round
 * trip; more in flight hide it. Since a stage alternates forwards and backwards, what a cut
 * adds is rounded up to whole periods: the ceil rule,
 *
 *     K_last = 1,  K_i = K_i+1 + 1 + ceil((l_f + l_b + a_f + a_b of cut i) / T)
 *
 * with T the longest stage or link. Links of no cost: 1F1B; all of a cut within one period:
 * 2 (stages - i) - 1, the "overlap-friendly" warm-up of Alpa (Zhuang et al., 2023) and "PB" of
 * DAPPLE (Fan et al., 2021).
 *
 * The strict order keeps exactly K in flight, whenever what may come; the greedy one takes what
 * is there. Where memory keeps K below the rule the strict order waits for each gradient in
 * turn, and the greedy one fills these holes with forwards.
 */
#include "pipeline/order.h"

#include <math.h>

static int smaller(int a, int b)
{
	return a < b ? a : b;
}

/* -- room ---------------------------------------------------------------------------------- */

static double longest(const struct costs *costs)
{
	double most = 0;

	for (int i = 0; i < costs->stages; i++)
		most = fmax(most, costs->forward_s[i] + costs->backward_s[i]);
	for (int i = 0; i < costs->stages - 1; i++)
		most = fmax(most, fmax(costs->link_forward_s[i], costs->link_backward_s[i]));
	return most;
}

/* How many periods a micro-batch spends on a cut, there and back; what only rounding adds is
 * none. */
static int periods_on_cut(const struct costs *costs, int cut, double period, int most)
{
	double s, periods;

	if (!costs)
		return 1;
	s = costs->link_forward_s[cut] + costs->link_backward_s[cut] +
	    costs->latency_forward_s[cut] + costs->latency_backward_s[cut];
	if (!(s > 0))
		return 0;
	periods = ceil(s / period - 1e-9);
	return periods < most ? (int)periods : most;
}

void rooms_that_hide(const struct schedule_want *want, int *room)
{
	double period = want->costs ? longest(want->costs) : 0;

	for (int i = 0; i < want->stages; i++) {
		room[i] = i ? room[i - 1] : want->micro_batches;
		if (want->room_most)
			room[i] = smaller(room[i], want->room_most[i]);
	}
	room[want->stages - 1] = 1;
	for (int i = want->stages - 2; i >= 0; i--)
		room[i] = smaller(room[i], room[i + 1] + 1 +
				  periods_on_cut(want->costs, i, period, want->micro_batches));
}

/* -- strict -------------------------------------------------------------------------------- */

int order_strict(int micro_batches, int room, bool backward, struct op *order)
{
	int count = 0, back = 0;

	for (int m = 0; m < micro_batches; m++) {
		order[count++] = (struct op){OP_FORWARD, m};
		if (backward && m >= room - 1)
			order[count++] = (struct op){OP_BACKWARD, back++};
	}
	while (backward && back < micro_batches)
		order[count++] = (struct op){OP_BACKWARD, back++};
	return count;
}

/* -- greedy -------------------------------------------------------------------------------- */

struct greedy {
	const int *room;
	struct op *const *order;
	int *forward, *backward;	/* [stages]: done */
};

static struct op greedy_next(const struct pilot *pilot, const struct timeline *t, int stage,
			     double *start_s)
{
	const struct greedy *g = pilot->state;
	struct op forward = {OP_FORWARD, g->forward[stage]};
	struct op backward = {OP_BACKWARD, g->backward[stage]};
	int in_flight = forward.micro - backward.micro;
	double forward_s = INFINITY, backward_s = INFINITY;

	if (forward.micro < t->micro_batches && in_flight < g->room[stage])
		forward_s = fmax(t->free_s[stage], timeline_ready(t, stage, forward));
	if (in_flight)
		backward_s = fmax(t->free_s[stage], timeline_ready(t, stage, backward));
	if (backward_s <= forward_s + pilot->patience_s) {
		*start_s = backward_s;
		return backward;
	}
	*start_s = forward_s;
	return forward;
}

static void greedy_done(const struct pilot *pilot, struct timeline *t, int stage, struct op op)
{
	struct greedy *g = pilot->state;

	g->order[stage][g->forward[stage] + g->backward[stage]] = op;
	if (op.kind == OP_FORWARD) {
		g->forward[stage]++;
		if (stage < t->stages - 1)
			t->forward[stage].sent[op.micro] = t->free_s[stage];
		return;
	}
	g->backward[stage]++;
	if (stage > 0)
		t->backward[stage - 1].sent[op.micro] = t->free_s[stage];
}

/* What comes within a billionth of a period counts as there: which of two equal times is
 * rounded up must not decide. */
void order_greedy(const struct schedule_want *want, const int *room, struct op *const *order)
{
	struct timeline t;
	struct greedy g = {.room = room, .order = order};
	struct pilot pilot = {&g, greedy_next, greedy_done, 1e-9 * longest(want->costs)};

	timeline_open(&t, want->costs, want->micro_batches, 0);
	g.forward = arena_take(&t.arena, (size_t)t.stages * sizeof(int));
	g.backward = arena_take(&t.arena, (size_t)t.stages * sizeof(int));
	timeline_play(&t, &pilot);
	timeline_release(&t);
}
