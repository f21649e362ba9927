/*
 * check_schedule.c - schedules: their sentences, their proof for every size in use, and what
 * the proof refuses.
 *
 * links: pipeline
 *
 * The proof is itself tested in two ways: a second, simpler count of what is in flight agrees
 * with it, and every single damage to a right schedule (an op left out, doubled, of another
 * kind, of another micro-batch) is refused.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/pipeline.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
enum { STAGES_MOST = 16, MICRO_MOST = 64 };

static const char *const generated[] = {"1f1b", "gpipe", "forward"};

/* -- generators ---------------------------------------------------------------------------- */

static const struct sentence {
	const char *name;
	int stages, micro_batches, stage;
	const char *text;
} sentences[] = {
	{"1f1b", 4, 4, 3, "F0 B0 F1 B1 F2 B2 F3 B3"},
	{"1f1b", 4, 4, 2, "F0 F1 B0 F2 B1 F3 B2 B3"},
	{"1f1b", 4, 4, 1, "F0 F1 F2 B0 F3 B1 B2 B3"},
	{"1f1b", 4, 4, 0, "F0 F1 F2 F3 B0 B1 B2 B3"},
	{"1f1b", 4, 2, 0, "F0 F1 B0 B1"},	/* fewer micro-batches than stages */
	{"1f1b", 4, 2, 3, "F0 B0 F1 B1"},
	{"1f1b", 2, 4, 0, "F0 F1 B0 F2 B1 F3 B2 B3"},
	{"1f1b", 1, 3, 0, "F0 B0 F1 B1 F2 B2"},
	{"gpipe", 4, 4, 0, "F0 F1 F2 F3 B0 B1 B2 B3"},
	{"gpipe", 4, 4, 3, "F0 F1 F2 F3 B0 B1 B2 B3"},
	{"gpipe", 1, 1, 0, "F0 B0"},
	{"forward", 3, 3, 1, "F0 F1 F2"},
};

START_TEST(sentence)
{
	const struct sentence *s = &sentences[_i];
	struct arena arena = {0};
	struct text text = {0};

	schedule_write(schedule_make(&arena, s->name, s->stages, s->micro_batches), s->stage,
		       &text);
	ck_assert_str_eq(text.data, s->text);
	text_release(&text);
	arena_release(&arena);
}
END_TEST

/* One for each kind of op: r, s for forward transfers, R, S for backward ones. */
static const char letters[] = "rFsRBSU";

/* All the ops of a stage. */
static void spell(const struct schedule *schedule, int stage, struct text *text)
{
	for (int i = 0; i < schedule->count[stage]; i++) {
		struct op op = schedule->op[stage][i];

		text_add(text, "%s%c%d", i ? " " : "", letters[op.kind], op.micro);
	}
}

static const struct sentence spelled[] = {
	{"1f1b", 3, 3, 0, "F0 s0 F1 s1 F2 s2 R0 B0 R1 B1 R2 B2 U0"},
	{"1f1b", 3, 3, 1, "r0 F0 s0 r1 F1 s1 R0 B0 S0 r2 F2 s2 R1 B1 S1 R2 B2 S2 U0"},
	{"1f1b", 3, 3, 2, "r0 F0 B0 S0 r1 F1 B1 S1 r2 F2 B2 S2 U0"},
	{"gpipe", 2, 2, 0, "F0 s0 F1 s1 R0 B0 R1 B1 U0"},
	{"1f1b", 1, 2, 0, "F0 B0 F1 B1 U0"},
	{"forward", 3, 2, 0, "F0 s0 F1 s1"},
	{"forward", 3, 2, 1, "r0 F0 s0 r1 F1 s1"},
	{"forward", 3, 2, 2, "r0 F0 r1 F1"},
};

START_TEST(ops_spelled)
{
	const struct sentence *s = &spelled[_i];
	struct arena arena = {0};
	struct text text = {0};

	spell(schedule_make(&arena, s->name, s->stages, s->micro_batches), s->stage, &text);
	ck_assert_str_eq(text.data, s->text);
	text_release(&text);
	arena_release(&arena);
}
END_TEST

static int expected_room(const char *name, int stage, int stages, int micro_batches)
{
	if (strcmp(name, "gpipe") == 0)
		return micro_batches;
	if (strcmp(name, "1f1b") == 0)
		return stages - stage < micro_batches ? stages - stage : micro_batches;
	return 1;
}

/* The most micro-batches of a stage that are forward but not yet backward; and their order. */
static int in_flight(const struct schedule *schedule, int stage)
{
	int forward = 0, backward = 0, most = 0;

	for (int i = 0; i < schedule->count[stage]; i++) {
		struct op op = schedule->op[stage][i];

		if (op.kind == OP_FORWARD)
			ck_assert_int_eq(op.micro, forward++);
		if (op.kind == OP_BACKWARD)
			ck_assert_int_eq(op.micro, backward++);
		if (forward - backward > most)
			most = forward - backward;
	}
	ck_assert_int_eq(forward, schedule->micro_batches);
	return most;
}

static void check_size(const char *name, int stages, int micro_batches)
{
	bool trains = strcmp(name, "forward") != 0;
	struct arena arena = {0};
	struct schedule *s = schedule_make(&arena, name, stages, micro_batches);
	char why[200];

	ck_assert_str_eq(s->name, name);
	ck_assert_int_eq(s->stages, stages);
	ck_assert_int_eq(s->micro_batches, micro_batches);
	for (int queue = 1; queue <= 2; queue++)
		ck_assert_msg(schedule_check(s, queue, why, sizeof why) == 0,
			      "%s, %d stages, %d micro-batches, queue %d: %s", name, stages,
			      micro_batches, queue, why);
	for (int stage = 0; stage < stages; stage++) {
		int last = s->count[stage] - 1, most = in_flight(s, stage);

		ck_assert_int_eq(s->room[stage],
				 expected_room(name, stage, stages, micro_batches));
		if (trains)
			ck_assert_int_eq(most, s->room[stage]);
		ck_assert((s->op[stage][last].kind == OP_UPDATE) == trains);
	}
	arena_release(&arena);
}

START_TEST(every_size_is_proved)
{
	for (int stages = 1; stages <= STAGES_MOST; stages++)
		for (int micro_batches = 1; micro_batches <= MICRO_MOST; micro_batches++)
			check_size(generated[_i], stages, micro_batches);
}
END_TEST

START_TEST(names_are_for_jobs)
{
	const char *const *names = schedule_names();
	int count = 0;

	for (; names[count]; count++)
		ck_assert_str_ne(names[count], "forward");
	ck_assert_int_eq(count, 2);
}
END_TEST

static void check_error(const char *name, int stages, int micro_batches, int code,
			const char *part)
{
	struct arena arena = {0};

	error_hold();
	ck_assert_ptr_null(schedule_make(&arena, name, stages, micro_batches));
	ck_assert_int_eq(error_code(), code);
	ck_assert_msg(strstr(error_text(), part) != NULL, "%s", error_text());
	error_clear();
	arena_release(&arena);
}

START_TEST(wrong_requests_are_errors)
{
	check_error("gpie", 2, 2, EXIT_CONFIG, "gpipe");
	check_error("1f1d", 2, 2, EXIT_CONFIG, "1f1b");
	check_error("", 2, 2, EXIT_CONFIG, "schedule");
	check_error("1f1b", 0, 2, EXIT_BUG, "0 stages");
	check_error("1f1b", 2, 0, EXIT_BUG, "0 micro");
	check_error("gpipe", -1, 2, EXIT_BUG, "-1 stages");
}
END_TEST

/* -- the proof ----------------------------------------------------------------------------- */

/* A schedule written out by hand, in the letters of spell(); the arena owns it. */
static struct schedule *written(struct arena *arena, int stages, int micro_batches, int room,
				const char *const *text)
{
	struct schedule *s = arena_take(arena, sizeof *s);

	s->name = "written";
	s->stages = stages;
	s->micro_batches = micro_batches;
	s->op = arena_take(arena, (size_t)stages * sizeof *s->op);
	s->count = arena_take(arena, (size_t)stages * sizeof *s->count);
	s->room = arena_take(arena, (size_t)stages * sizeof *s->room);
	for (int stage = 0; stage < stages; stage++) {
		const char *at = text[stage];

		s->room[stage] = room;
		s->op[stage] = arena_take(arena, (strlen(at) + 1) * sizeof(struct op));
		for (; *at; at += strspn(at, "0123456789 ")) {
			struct op *op = &s->op[stage][s->count[stage]++];

			op->kind = (enum op_kind)(strchr(letters, *at) - letters);
			op->micro = (int)strtol(++at, NULL, 10);
		}
	}
	return s;
}

static const struct verdict {
	int stages, micro_batches, room, queue;
	const char *text[3];
	const char *reason;	/* a part of it; null: the schedule is right */
} verdicts[] = {
	/* GPipe before 1F1B: stage 1 sends gradients before stage 0 takes them. Right only with
	 * queues that hold what piles up. */
	{2, 4, 4, 3, {"F0 s0 F1 s1 F2 s2 F3 s3 R0 B0 R1 B1 R2 B2 R3 B3 U0",
		      "r0 F0 B0 S0 r1 F1 B1 S1 r2 F2 B2 S2 r3 F3 B3 S3 U0"}, NULL},
	{2, 4, 4, 1, {"F0 s0 F1 s1 F2 s2 F3 s3 R0 B0 R1 B1 R2 B2 R3 B3 U0",
		      "r0 F0 B0 S0 r1 F1 B1 S1 r2 F2 B2 S2 r3 F3 B3 S3 U0"}, "deadlock"},
	/* Each waits for what the other sends later. */
	{2, 2, 2, 9, {"F0 s0 R0 B0 F1 s1 R1 B1 U0", "r0 F0 r1 F1 B0 S0 B1 S1 U0"}, "deadlock"},
	/* Received early is right where a slot is free, wrong where it is not. */
	{2, 2, 2, 1, {"F0 s0 F1 s1 R0 B0 R1 B1 U0", "r0 r1 F0 B0 S0 F1 B1 S1 U0"}, NULL},
	{2, 2, 1, 2, {"F0 s0 R0 B0 F1 s1 R1 B1 U0", "r0 F0 B0 r1 S0 F1 B1 S1 U0"},
	 "slot is still in use"},
	/* More in flight than there is room for, without any transfer. */
	{1, 2, 2, 1, {"F0 F1 B0 B1 U0"}, NULL},
	{1, 2, 1, 1, {"F0 F1 B0 B1 U0"}, "room"},
	/* Backwards out of order: law 9. */
	{1, 2, 2, 1, {"F0 F1 B1 B0 U0"}, "order"},
	{1, 2, 2, 1, {"F1 F0 B0 B1 U0"}, "order"},
	{1, 1, 1, 1, {"B0 F0 U0"}, "forward"},
	{1, 2, 2, 1, {"F0 F1 B0 U0 B1"}, "missing"},
	/* A gradient comes into the buffer that the output leaves from. */
	{2, 1, 1, 1, {"F0 R0 s0 B0 U0", "r0 F0 B0 S0 U0"}, "has not been sent"},
	/* Each op after what it needs. */
	{2, 1, 1, 1, {"s0 F0 R0 B0 U0", "r0 F0 B0 S0 U0"}, "not been computed"},
	{2, 1, 1, 1, {"F0 s0 R0 B0 U0", "r0 F0 S0 B0 U0"}, "not been computed"},
	{2, 1, 1, 1, {"F0 s0 R0 B0 U0", "F0 r0 B0 S0 U0"}, "input has not been received"},
	{2, 1, 1, 1, {"F0 s0 B0 R0 U0", "r0 F0 B0 S0 U0"}, "gradient has not been received"},
	{1, 1, 2, 1, {"F0 F1 B0 B1 U0"}, "no such micro-batch"},
	/* Ends of the pipeline. */
	{1, 1, 1, 1, {"r0 F0 B0 U0"}, "receive from"},
	{1, 1, 1, 1, {"F0 s0 B0 U0"}, "send to"},
	{1, 1, 1, 1, {"F0 R0 B0 U0"}, "receive from"},
	{1, 1, 1, 1, {"F0 B0 S0 U0"}, "send to"},
	/* A cut that nobody crosses. */
	{2, 1, 1, 1, {"F0 B0 U0", "F0 B0 U0"}, "received"},
	/* Only some stages train. */
	{2, 1, 1, 1, {"F0 s0 R0 B0 U0", "r0 F0"}, "stage 0, op 2"},
	{2, 1, 1, 1, {"F0 s0 R0", "r0 F0 B0 S0 U0"}, "never goes backward"},
	/* Forward alone: room, and the output leaves before its slot is taken again. */
	{2, 2, 1, 1, {"F0 s0 F1 s1", "r0 F0 r1 F1"}, NULL},
	{3, 2, 2, 1, {"F0 s0 F1 s1", "r0 F0 r1 s0 F1 s1", "r0 F0 r1 F1"}, NULL},
	{2, 2, 1, 1, {"F0 F1 s0 s1", "r0 F0 r1 F1"}, "slot is still in use"},
	{3, 2, 1, 1, {"F0 s0 F1 s1", "r0 F0 r1 s0 F1 s1", "r0 F0 r1 F1"},
	 "stage 1, op 2"},
	{2, 2, 1, 1, {"F0 s0 F1 s1", "r0 r1 F0 F1"}, "slot is still in use"},
	{2, 2, 1, 1, {"F0 s0 F1 s1", "r0 F0 r1"}, "never goes forward"},
	{1, 1, 1, 1, {"F0 B0"}, "no update"},
	{1, 1, 1, 1, {"F0 U0"}, "gradients are missing"},
	{1, 1, 1, 1, {""}, "never goes forward"},
};

START_TEST(verdict)
{
	const struct verdict *v = &verdicts[_i];
	struct arena arena = {0};
	struct schedule *s = written(&arena, v->stages, v->micro_batches, v->room, v->text);
	char why[200] = "?";
	int rc = schedule_check(s, v->queue, why, sizeof why);

	if (v->reason) {
		ck_assert_int_eq(rc, -1);
		ck_assert_msg(strstr(why, v->reason) != NULL, "verdict %d: %s", _i, why);
	} else {
		ck_assert_msg(rc == 0, "verdict %d: %s", _i, why);
	}
	arena_release(&arena);
}
END_TEST

/* -- every single damage ------------------------------------------------------------------- */

enum { DAMAGE_STAGES = 3, DAMAGE_MICRO = 4 };

static void refused(const struct schedule *s, const char *damage, int stage, int at)
{
	char why[200] = "";

	for (int queue = 1; queue <= 8; queue += 7) {
		ck_assert_msg(schedule_check(s, queue, why, sizeof why) == -1,
			      "%s: %s of stage %d, op %d is accepted", s->name, damage, stage,
			      at);
		ck_assert_str_ne(why, "");
	}
}

static void damage_op(struct schedule *s, int stage, int at)
{
	struct op *op = &s->op[stage][at], right = *op;

	for (int kind = OP_RECV_FORWARD; kind <= OP_UPDATE + 1; kind++) {
		op->kind = (enum op_kind)kind;
		if (op->kind != right.kind)
			refused(s, "another kind", stage, at);
	}
	*op = right;
	for (int micro = -1; micro <= DAMAGE_MICRO; micro++) {
		op->micro = micro;
		if (op->kind != OP_UPDATE && micro != right.micro)
			refused(s, "another micro-batch", stage, at);
	}
	*op = right;
}

static void damage_order(struct schedule *s, int stage, int at)
{
	struct op *ops = s->op[stage], right = ops[at];
	size_t after = (size_t)(s->count[stage] - at - 1) * sizeof *ops;

	memmove(&ops[at], &ops[at + 1], after);
	s->count[stage]--;
	refused(s, "leaving out", stage, at);
	memmove(&ops[at + 1], &ops[at], after);
	ops[at] = right;
	memmove(&ops[at + 2], &ops[at + 1], after);
	ops[at + 1] = right;
	s->count[stage] += 2;
	refused(s, "doubling", stage, at);
	memmove(&ops[at + 1], &ops[at + 2], after);
	s->count[stage]--;
}

START_TEST(damage_is_refused)
{
	struct arena arena = {0};
	struct schedule *s = schedule_make(&arena, generated[_i], DAMAGE_STAGES, DAMAGE_MICRO);
	char why[200];

	for (int stage = 0; stage < s->stages; stage++) {
		size_t bytes = (size_t)s->count[stage] * sizeof(struct op);
		struct op *wide = arena_take(&arena, bytes + sizeof(struct op));

		memcpy(wide, s->op[stage], bytes);
		s->op[stage] = wide;
		for (int at = 0; at < s->count[stage]; at++) {
			damage_op(s, stage, at);
			damage_order(s, stage, at);
		}
		s->room[stage]--;
		refused(s, "less room", stage, 0);
		s->room[stage]++;
	}
	ck_assert_int_eq(schedule_check(s, 1, why, sizeof why), 0);
	arena_release(&arena);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("schedule");
	TCase *tcase = tcase_create("schedule");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, sentence, 0, COUNT(sentences));
	tcase_add_loop_test(tcase, ops_spelled, 0, COUNT(spelled));
	tcase_add_loop_test(tcase, every_size_is_proved, 0, COUNT(generated));
	tcase_add_test(tcase, names_are_for_jobs);
	tcase_add_test(tcase, wrong_requests_are_errors);
	tcase_add_loop_test(tcase, verdict, 0, COUNT(verdicts));
	tcase_add_loop_test(tcase, damage_is_refused, 0, COUNT(generated));
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
