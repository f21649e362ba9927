/*
 * Generators of schedules: each fills, per stage, an array of ops. Nothing else in the tree
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
 * GPipe (Huang et al., 2019): F0 F1 F2 F3 B0 B1 B2 B3 on every stage.
 */
#include <string.h>

#include "pipeline/pipeline.h"

/* How many forwards a stage runs before its first backward, and how many slots that takes. */
struct row {
	const char *name;
	int (*warm_up)(int stage, int stages, int micro_batches);
	bool backward;
};

static int smaller(int a, int b)
{
	return a < b ? a : b;
}

static int gpipe_warm_up(int stage, int stages, int micro_batches)
{
	(void)stage;
	(void)stages;
	return micro_batches;
}

static int one_f_one_b_warm_up(int stage, int stages, int micro_batches)
{
	return smaller(stages - stage, micro_batches);
}

static int no_warm_up(int stage, int stages, int micro_batches)
{
	(void)stage;
	(void)stages;
	(void)micro_batches;
	return 1;
}

static const struct row rows[] = {
	{"1f1b", one_f_one_b_warm_up, true},
	{"gpipe", gpipe_warm_up, true},
	{"forward", no_warm_up, false},
};
static const char *const names[] = {"1f1b", "gpipe", NULL};
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

static void push_forward(struct schedule *schedule, int stage, int micro)
{
	if (stage > 0)
		push(schedule, stage, OP_RECV_FORWARD, micro);
	push(schedule, stage, OP_FORWARD, micro);
	if (stage < schedule->stages - 1)
		push(schedule, stage, OP_SEND_FORWARD, micro);
}

static void push_backward(struct schedule *schedule, int stage, int micro)
{
	if (stage < schedule->stages - 1)
		push(schedule, stage, OP_RECV_BACKWARD, micro);
	push(schedule, stage, OP_BACKWARD, micro);
	if (stage > 0)
		push(schedule, stage, OP_SEND_BACKWARD, micro);
}

static void fill_stage(struct schedule *schedule, int stage, const struct row *row)
{
	int room = row->warm_up(stage, schedule->stages, schedule->micro_batches), backward = 0;

	schedule->room[stage] = room;
	for (int forward = 0; forward < schedule->micro_batches; forward++) {
		push_forward(schedule, stage, forward);
		if (row->backward && forward >= room - 1)
			push_backward(schedule, stage, backward++);
	}
	while (row->backward && backward < schedule->micro_batches)
		push_backward(schedule, stage, backward++);
	if (row->backward)
		push(schedule, stage, OP_UPDATE, 0);
}

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

struct schedule *schedule_make(struct arena *arena, const char *name, int stages,
			       int micro_batches)
{
	const struct row *row = find_row(name);
	struct schedule *s;
	size_t most = 6 * (size_t)micro_batches + 1;

	if (!row)
		return NULL;
	if (stages < 1 || micro_batches < 1)
		return error_null(EXIT_BUG, "a schedule of %d stages and %d micro-batches",
				  stages, micro_batches);
	s = arena_take(arena, sizeof(*s));
	s->name = row->name;
	s->stages = stages;
	s->micro_batches = micro_batches;
	s->op = arena_take(arena, (size_t)stages * sizeof(*s->op));
	s->count = arena_take(arena, (size_t)stages * sizeof(*s->count));
	s->room = arena_take(arena, (size_t)stages * sizeof(*s->room));
	for (int stage = 0; stage < stages; stage++) {
		s->op[stage] = arena_take(arena, most * sizeof(struct op));
		fill_stage(s, stage, row);
	}
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
