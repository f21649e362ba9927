/*
 * check_trace.c - what a run traced is what its schedule says.
 *
 * links: launch
 *
 * Whole runs with ranks as threads, validation between and behind the traced steps; trace.json is read again.
 */
#include <check.h>
#include <math.h>

#include "pipeline/internal.h"
#include "tests/runs.h"

enum { STAGES = 3, MICRO = 4, STEPS = 5, TRACED = 2, LANES = 5 };

/* The events of one thread of one node. */
struct lane {
	struct text ops;		/* "F0 F1 B0 B1 U", in order of their starts */
	int count;
	double end_us;			/* of the last */
};

static void read_event(const struct json *event, struct lane lane[STAGES][LANES])
{
	long long pid = json_as_integer(json_find(event, "pid"), -1), tid = json_as_integer(json_find(event, "tid"), -1);
	double ts = json_as_number(json_find(event, "ts"), -1), dur = json_as_number(json_find(event, "dur"), -1);
	const struct json *args = json_find(event, "args");
	const char *name = json_as_text(json_find(event, "name"), "");
	struct lane *at;

	if (strcmp(json_as_text(json_find(event, "ph"), ""), "X") != 0)
		return;
	ck_assert(pid >= 0 && pid < STAGES && tid >= 0 && tid < LANES);
	ck_assert_int_eq(json_as_integer(json_find(args, "stage"), -1), pid);
	ck_assert_int_ge(json_as_integer(json_find(args, "step"), -1), STEPS - TRACED + 1);
	ck_assert_int_le(json_as_integer(json_find(args, "step"), -1), STEPS);
	ck_assert(ts >= 0 && dur >= 0);
	at = &lane[pid][tid];
	/* serial: none begins before the one before has ended, but for the printed digits */
	ck_assert_msg(ts >= at->end_us - 0.01, "%s of node %lld, thread %lld begins at %f, before %f", name, pid, tid, ts,
		      at->end_us);
	at->end_us = ts + dur;
	at->count++;
	text_add(&at->ops, "%s%s", at->ops.bytes ? " " : "", name);
}

/* What the schedule says a stage computes in the traced steps. */
static void expect(struct text *text, const char *schedule, int stage)
{
	struct arena arena = {0};
	struct schedule *s = schedule_make(&arena, &(struct schedule_want){.name = schedule, .stages = STAGES,
									   .micro_batches = MICRO});

	ck_assert_ptr_nonnull(s);
	for (int step = 0; step < TRACED; step++) {
		text_add(text, "%s", step ? " " : "");
		schedule_write(s, stage, text);
		text_add(text, " U");
	}
	arena_release(&arena);
}

static void check_file(const char *path, const char *schedule)
{
	struct lane lane[STAGES][LANES] = {0};
	struct json *document = json_read(path);
	const struct json *events = json_find(document, "traceEvents");

	ck_assert_ptr_nonnull(document);
	for (size_t i = 0; i < json_size(events); i++)
		read_event(json_at(events, i), lane);
	for (int s = 0; s < STAGES; s++) {
		const int messages = TRACED * MICRO;
		struct text right = {0};

		expect(&right, schedule, s);
		ck_assert_str_eq(lane[s][0].ops.data, right.data);
		ck_assert_int_eq(lane[s][1].count, s > 0 ? messages : 0);
		ck_assert_int_eq(lane[s][2].count, s < STAGES - 1 ? messages : 0);
		ck_assert_int_eq(lane[s][3].count, s < STAGES - 1 ? messages : 0);
		ck_assert_int_eq(lane[s][4].count, s > 0 ? messages : 0);
		text_release(&right);
		for (int l = 0; l < LANES; l++)
			text_release(&lane[s][l].ops);
	}
	json_free(document);
}

START_TEST(the_order_is_the_schedules)
{
	const char *schedule = schedule_names()[_i];
	struct golden_run run = {.name = "gpt2", .ranks = STAGES, .threads = 1, .micro_batch = 1,
				 .steps = STEPS, .schedule = schedule, .valid = "gpt2",
				 .train = "trace: 2, validate_every: 2"};
	struct arena arena = {0};
	const char *folder = run_folder(&arena, &run, "trace");

	ck_assert_int_eq(run_local(&run, folder), 0);
	check_file(arena_format(&arena, "%s/trace.json", folder), schedule);
	arena_release(&arena);
}
END_TEST

/* A trace longer than the run, one rank alone, and none. */
START_TEST(short_runs_have_short_traces)
{
	struct golden_run run = {.name = "gpt2", .ranks = 1, .threads = 1, .micro_batch = 1, .steps = 2,
				 .schedule = "1f1b", .train = "trace: 50"};
	struct arena arena = {0};
	const char *folder = run_folder(&arena, &run, "short"), *path = arena_format(&arena, "%s/trace.json", folder);
	struct json *document;

	ck_assert_int_eq(run_local(&run, folder), 0);
	document = json_read(path);
	ck_assert_int_eq(json_as_integer(json_find(json_find(document, "otherData"), "first_step"), 0), 1);
	ck_assert_int_eq((int)json_size(json_find(document, "traceEvents")), 7 + 2 * (2 * MICRO + 1));
	json_free(document);
	run.train = NULL;
	ck_assert_int_eq(run_local(&run, folder), 0);
	ck_assert(!path_exists(path));
	arena_release(&arena);
}
END_TEST

/* A sender that was late to see its message gone: nothing begins before the first, or ends before it begins. */
START_TEST(late_ends_of_sends)
{
	static const int ranks[] = {0, 1, 2};
	static const char *const names[] = {"a", "b", "c"};
	struct trace_event event[] = {
		{1.0, 1.001, OP_FORWARD, 0, 1, 0}, {1.001, 1.010, OP_SEND_FORWARD, 0, 1, 0},
		{1.0005, 1.003, OP_RECV_FORWARD, 0, 1, 1}, {1.0006, 1.002, OP_RECV_FORWARD, 1, 1, 1},
	};
	struct places places = {.stages = STAGES, .rank_of_stage = ranks};
	struct text text = {0};
	int begun = 0;

	trace_json(event, COUNT(event), 1, &places, names, &text);
	for (const char *at = text.data; (at = strstr(at, "\"ts\":")); at++, begun++) {
		ck_assert_double_ge(strtod(at + 5, NULL), 0);
		ck_assert_double_ge(strtod(strstr(at, "\"dur\":") + 6, NULL), 0);
	}
	ck_assert_int_eq(begun, COUNT(event));
	text_release(&text);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("trace");
	TCase *tests = tcase_create("trace");
	int failed;

	log_level(LOG_QUIET);
	scratch_open();
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, the_order_is_the_schedules, 0, 3);
	tcase_add_test(tests, short_runs_have_short_traces);
	tcase_add_test(tests, late_ends_of_sends);
	suite_add_tcase(suite, tests);
	failed = run_suite(suite);
	scratch_close();
	return failed;
}
