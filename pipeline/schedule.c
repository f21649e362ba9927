/*
 * Generators of schedules: each says how many micro-batches a stage keeps in flight; the order
 * of computations follows from that, and the transfers from the order. Nothing else in the tree
 * knows a schedule by name.
 *
 * 4 stages, 4 micro-batches, 1F1B (Narayanan et al., PipeDream, 2019; as flushed in
 * Megatron-LM, 2021):
 *
 *     stage 0   F0 F1 F2 F3 B0 B1 B2 B3
 *     stage 1   F0 F1 F2 B0 F3 B1 B2 B3
 *     stage 2   F0 F1 B0 F2 B1 F3 B2 B3
 *     stage 3   F0 B0 F1 B1 F2 B2 F3 B3
 *
 * GPipe (Huang et al., 2019): F0 F1 F2 F3 B0 B1 B2 B3 on every stage. Eager: order.c.
 *
 * Transfers never block, so they are posted as early as they can be: the receives of all edge
 * buffers at the start, a send after its computation, the next receive of a buffer after the
 * send that empties it. Stage 1 of 3 with 3 micro-batches, 2 in flight, 3 edge buffers (r, s
 * receive and send forward, R, S backward, U update):
 *
 *     r0 r1 r2 F0 s0 R0 F1 s1 R1 B0 S0 F2 s2 R2 B1 S1 B2 S2 U0
 */
#include <string.h>

#include "pipeline/order.h"

/* Buffers of a cut when nothing comes back: one is computed on, one comes in, one goes out. */
#define FORWARD_EDGES 3

struct row {
	const char *name;
	void (*rooms)(const struct schedule_want *want, int *room);
	bool backward;
	bool by_costs;			/* what a want says of costs and memory matters */
};

static int smaller(int a, int b)
{
	return a < b ? a : b;
}

static int larger(int a, int b)
{
	return a > b ? a : b;
}

static void gpipe_rooms(const struct schedule_want *want, int *room)
{
	for (int i = 0; i < want->stages; i++)
		room[i] = want->micro_batches;
}

static void one_f_one_b_rooms(const struct schedule_want *want, int *room)
{
	for (int i = 0; i < want->stages; i++)
		room[i] = smaller(want->stages - i, want->micro_batches);
}

static void no_rooms(const struct schedule_want *want, int *room)
{
	for (int i = 0; i < want->stages; i++)
		room[i] = 1;
}

static const struct row rows[] = {
	{"eager", rooms_that_hide, true, true},
	{"1f1b", one_f_one_b_rooms, true, false},
	{"gpipe", gpipe_rooms, true, false},
	{"forward", no_rooms, false, false},
};
static const char *const names[] = {"eager", "1f1b", "gpipe", NULL};
enum { ROWS = sizeof(rows) / sizeof(*rows), NAMES = sizeof(names) / sizeof(*names) - 1 };

const char *const *schedule_names(void)
{
	return names;
}

/* -- ops ----------------------------------------------------------------------------------- */

static void push(struct schedule *schedule, int stage, enum op_kind kind, int micro)
{
	schedule->op[stage][schedule->count[stage]++] = (struct op){kind, micro};
}

static void push_recv_forward(struct schedule *schedule, int stage, int micro)
{
	if (stage > 0 && micro < schedule->micro_batches)
		push(schedule, stage, OP_RECV_FORWARD, micro);
}

static void push_forward(struct schedule *schedule, int stage, int micro, bool backward)
{
	push(schedule, stage, OP_FORWARD, micro);
	if (stage < schedule->stages - 1) {
		push(schedule, stage, OP_SEND_FORWARD, micro);
		if (backward)
			push(schedule, stage, OP_RECV_BACKWARD, micro);
	}
	if (!backward)
		push_recv_forward(schedule, stage, micro + schedule->edge[stage]);
}

static void push_backward(struct schedule *schedule, int stage, int micro)
{
	push(schedule, stage, OP_BACKWARD, micro);
	if (stage > 0)
		push(schedule, stage, OP_SEND_BACKWARD, micro);
	push_recv_forward(schedule, stage, micro + schedule->edge[stage]);
}

/* The ops of a stage from the order of its computations. */
static void fill_stage(struct schedule *schedule, int stage, bool backward,
		       const struct op *order, int count)
{
	for (int m = 0; m < schedule->edge[stage]; m++)
		push_recv_forward(schedule, stage, m);
	for (int i = 0; i < count; i++)
		if (order[i].kind == OP_FORWARD)
			push_forward(schedule, stage, order[i].micro, backward);
		else
			push_backward(schedule, stage, order[i].micro);
	if (backward)
		push(schedule, stage, OP_UPDATE, 0);
}

/* -- rows to schedules --------------------------------------------------------------------- */

static const struct row *find_row(const char *name)
{
	const char *near;

	for (int i = 0; i < ROWS; i++)
		if (!strcmp(rows[i].name, name))
			return &rows[i];
	near = nearest_word(name, names, NAMES);
	return error_null(EXIT_CONFIG, "unknown schedule \"%s\" (did you mean \"%s\"?)", name,
			  near ? near : names[0]);
}

static int check_want(const struct schedule_want *want, const struct row *row)
{
	if (want->stages < 1 || want->micro_batches < 1)
		return error(EXIT_BUG, "a schedule of %d stages and %d micro-batches",
			     want->stages, want->micro_batches);
	if (!row->by_costs)
		return 0;
	if (want->costs && want->costs->stages != want->stages)
		return error(EXIT_BUG, "costs of %d stages for a schedule of %d",
			     want->costs->stages, want->stages);
	if (want->greedy && !want->costs)
		return error(EXIT_BUG, "a greedy order without costs");
	for (int i = 0; want->room_most && i < want->stages; i++)
		if (want->room_most[i] < 1)
			return error(EXIT_BUG, "stage %d of a schedule has no room", i);
	return 0;
}

static struct schedule *empty(struct arena *arena, const struct row *row, int stages,
			      int micro_batches)
{
	struct schedule *s = arena_take(arena, sizeof(*s));

	s->name = row->name;
	s->stages = stages;
	s->micro_batches = micro_batches;
	s->op = arena_take(arena, (size_t)stages * sizeof(*s->op));
	s->count = arena_take(arena, (size_t)stages * sizeof(*s->count));
	s->room = arena_take(arena, (size_t)stages * sizeof(*s->room));
	s->edge = arena_take(arena, (size_t)stages * sizeof(*s->edge));
	return s;
}

/* The most that an order has in flight: a greedy one may not need all it could have. */
static int most_in_flight(const struct op *order, int count)
{
	int now = 0, most = 1;

	for (int i = 0; i < count; i++) {
		now += order[i].kind == OP_FORWARD ? 1 : -1;
		most = larger(most, now);
	}
	return most;
}

/* What can be under way at a stage is in flight at the stage before: so many edge buffers, and
 * no receive ever waits for one. */
static void set_edges(struct schedule *s, bool backward)
{
	for (int i = 0; i < s->stages; i++) {
		s->edge[i] = s->room[i];
		if (backward && i > 0)
			s->edge[i] = larger(s->room[i], s->room[i - 1]);
		if (!backward && s->stages > 1)
			s->edge[i] = smaller(s->micro_batches, FORWARD_EDGES);
	}
}

static void fill(struct schedule *s, const struct schedule_want *want, const struct row *row,
		 struct op *const *order)
{
	int count = (row->backward ? 2 : 1) * s->micro_batches;

	row->rooms(want, s->room);
	if (row->by_costs && want->greedy)
		order_greedy(want, s->room, order);
	for (int i = 0; i < s->stages; i++) {
		if (row->by_costs && want->greedy)
			s->room[i] = most_in_flight(order[i], count);
		else
			order_strict(s->micro_batches, s->room[i], row->backward, order[i]);
	}
	set_edges(s, row->backward);
	for (int i = 0; i < s->stages; i++)
		fill_stage(s, i, row->backward, order[i], count);
}

struct schedule *schedule_make(struct arena *arena, const struct schedule_want *want)
{
	const struct row *row = find_row(want->name);
	size_t micro_batches = (size_t)want->micro_batches;
	struct arena scratch = {0};
	struct schedule *s;
	struct op **order;

	if (!row || check_want(want, row) < 0)
		return NULL;
	s = empty(arena, row, want->stages, want->micro_batches);
	order = arena_take(&scratch, (size_t)s->stages * sizeof(*order));
	for (int i = 0; i < s->stages; i++) {
		order[i] = arena_take(&scratch, 2 * micro_batches * sizeof(struct op));
		s->op[i] = arena_take(arena, (6 * micro_batches + 1) * sizeof(struct op));
	}
	fill(s, want, row, order);
	arena_release(&scratch);
	return s;
}

void schedule_write(const struct schedule *schedule, int stage, struct text *text)
{
	const char *space = "";

	for (int i = 0; i < schedule->count[stage]; i++) {
		struct op op = schedule->op[stage][i];

		if (op.kind != OP_FORWARD && op.kind != OP_BACKWARD)
			continue;
		text_add(text, "%s%c%d", space, op.kind == OP_FORWARD ? 'F' : 'B', op.micro);
		space = " ";
	}
}

/* -- from rank 0 to all -------------------------------------------------------------------- */

/* Ahead of the numbers of a schedule: its row in the table, and how many follow. */
struct parcel { int row, stages, micro_batches, ops; };

static const struct parcel nothing = {-1, 0, 0, 0};

static struct parcel measure(const struct schedule *s)
{
	struct parcel parcel = nothing;

	if (!s)
		return parcel;
	parcel = (struct parcel){-1, s->stages, s->micro_batches, 0};
	for (int i = 0; i < ROWS; i++)
		if (!strcmp(rows[i].name, s->name))
			parcel.row = i;
	for (int i = 0; i < s->stages; i++)
		parcel.ops += s->count[i];
	return parcel;
}

/* Sends an array of each stage's numbers, or all ops one stage after the other. */
static int broadcast_numbers(struct comm *comm, struct schedule *s)
{
	size_t bytes = (size_t)s->stages * sizeof(int);

	if (comm_broadcast(comm, 0, s->count, bytes) < 0 ||
	    comm_broadcast(comm, 0, s->room, bytes) < 0)
		return -1;
	return comm_broadcast(comm, 0, s->edge, bytes);
}

static int broadcast_ops(struct comm *comm, struct schedule *s, struct op *ops, int count)
{
	int given = 0;

	for (int i = 0; i < s->stages; i++) {
		if (s->count[i] < 0 || s->count[i] > count - given)
			return error(EXIT_BUG, "the schedule from rank 0 is broken: stage %d "
				     "has %d ops", i, s->count[i]);
		s->op[i] = ops + given;
		given += s->count[i];
	}
	return comm_broadcast(comm, 0, ops, (size_t)count * sizeof(*ops));
}

static void copy(struct schedule *to, const struct schedule *from, struct op *ops)
{
	size_t bytes = (size_t)from->stages * sizeof(int);

	memcpy(to->count, from->count, bytes);
	memcpy(to->room, from->room, bytes);
	memcpy(to->edge, from->edge, bytes);
	for (int i = 0; i < from->stages; i++) {
		memcpy(ops, from->op[i], (size_t)from->count[i] * sizeof(*ops));
		ops += from->count[i];
	}
}

static struct schedule *receive(struct arena *arena, struct comm *comm, struct parcel parcel,
				const struct schedule *mine)
{
	struct schedule *s = empty(arena, &rows[parcel.row], parcel.stages,
				   parcel.micro_batches);
	struct op *ops = arena_take(arena, (size_t)parcel.ops * sizeof(*ops));
	char why[200];

	if (comm->rank == 0)
		copy(s, mine, ops);
	if (broadcast_numbers(comm, s) < 0 || broadcast_ops(comm, s, ops, parcel.ops) < 0)
		return NULL;
	if (schedule_check(s, why, sizeof(why)) < 0)
		return error_null(EXIT_BUG, "the schedule from rank 0 is broken: %s", why);
	return s;
}

struct schedule *schedule_share(struct arena *arena, struct comm *comm,
				const struct schedule *mine)
{
	struct parcel parcel = comm->rank == 0 ? measure(mine) : nothing;
	struct schedule *s;

	if (comm_broadcast(comm, 0, &parcel, sizeof(parcel)) < 0)
		return NULL;
	if (!memcmp(&parcel, &nothing, sizeof(parcel)))
		return NULL;
	if (parcel.row < 0 || parcel.row >= ROWS || parcel.stages < 1 ||
	    parcel.micro_batches < 1 || parcel.ops < 0)
		return error_null(EXIT_BUG, "the schedule from rank 0 is broken: %d stages, "
				  "%d micro-batches, %d ops", parcel.stages,
				  parcel.micro_batches, parcel.ops);
	s = receive(arena, comm, parcel, mine);
	return comm_any(comm, !s) ? NULL : s;
}
