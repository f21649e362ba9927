/*
 * The same answer wherever the cuts are: at one micro-batch size, losses, gradient norms and the adapter file are the
 * same bytes for 1, 2, 3 and 5 ranks, all schedules, and 1 and 2 threads a rank. What a codec loses is the same too,
 * whether it travels or is coded inside a rank. Ranks are threads here; mpi_identity.c shows the same over MPI.
 *
 * CK_RUN_CASE=short runs a few of every kind, for sanitizers and other instruction sets; nothing in "whole" repeats it.
 *
 * links: launch
 */
#include "tests/runs.h"

static const char *const schedules[] = {"eager", "1f1b", "gpipe"};

/* Who computes, and in which order. */
struct way {
	int ranks;
	const char *schedule;
	int threads;
};

/* With one rank, 1F1B, one thread, which all are compared with: every number of ranks by every schedule, each of them with
 * 1 and with 2 threads. The first FEW have every schedule, the first SOME every number of ranks too. */
static const struct way ways[] = {
	{1, "gpipe", 2}, {2, "eager", 2}, {3, "1f1b", 2}, {5, "gpipe", 1}, {5, "eager", 2}, {3, "eager", 1},
	{1, "eager", 1}, {2, "1f1b", 1},  {3, "gpipe", 2}, {5, "1f1b", 1}, {2, "gpipe", 2},
};
enum { ALL = COUNT(ways), SOME = 5, FEW = 3 };

static char *run_and_read(struct arena *arena, const struct golden_run *run)
{
	char *folder = run_folder(arena, run, "local");

	ck_assert_int_eq(run_local(run, folder), 0);
	return run_result(arena, folder);
}

/* The first so many ways against one rank, 1F1B, one thread. */
static void compare(struct golden_run first_run, int count)
{
	struct arena arena = {0};
	char *first = run_and_read(&arena, &first_run);

	for (int i = 0; i < count; i++) {
		struct golden_run run = first_run;

		run.ranks = ways[i].ranks;
		run.schedule = ways[i].schedule;
		run.threads = ways[i].threads;
		ck_assert_str_eq(run_and_read(&arena, &run), first);
	}
	arena_release(&arena);
}

static struct golden_run base(const char *name, int micro_batch, int steps)
{
	return (struct golden_run){
		.name = name,
		.ranks = 1,
		.threads = 1,
		.micro_batch = micro_batch,
		.steps = steps,
		.schedule = "1f1b",
	};
}

/* What a case's stages are, not how ranks work together, is what differs between cases: some ways for each, by turns with
 * micro-batches of one sequence and of two. */
START_TEST(identity)
{
	compare(base(golden_cases[_i], 1 + _i % 2, 4), SOME);
}
END_TEST

/* Where all cases would take too long: both families. */
static const char *const two_cases[] = {"gpt2", "qwen3-long"};

static const char with_dropout[] = "{rank: 3, alpha: 6, dropout: 0.3, targets: all}";

/* A run with new adapters, dropout, shuffling and validation, none of which may depend on the cuts either; adapters of an
 * odd rank leave a column of every row to nobody. */
static struct golden_run rich(const char *name, int micro_batch, int steps)
{
	struct golden_run run = base(name, micro_batch, steps);

	run.lora = with_dropout;
	run.valid = name;
	return run;
}

START_TEST(identity_with_dropout)
{
	compare(rich(two_cases[_i], 1 + _i, 4), ALL);
}
END_TEST

/* Both dtypes. */
START_TEST(identity_in_short)
{
	struct golden_run run = rich(two_cases[_i], 1, 2);

	run.train = _i ? "precision: bf16" : NULL;
	compare(run, FEW);
}
END_TEST

/* In BF16 too. */
START_TEST(identity_of_bf16)
{
	struct arena arena = {0};
	struct golden_run run = rich(two_cases[_i], 2 - _i, 4);
	char *fp32;

	if (!cpu_has_bf16())
		return;
	fp32 = run_and_read(&arena, &run);
	run.train = "precision: bf16";
	ck_assert_str_ne(run_and_read(&arena, &run), fp32);
	compare(run, ALL);
	arena_release(&arena);
}
END_TEST

/* Without a clip an update does not wait for the norm of all. */
START_TEST(identity_without_a_clip)
{
	struct arena arena = {0};
	struct golden_run run = base(two_cases[_i], 1, 5);
	char *clipped, *first;

	run.valid = two_cases[_i];
	run.train = "clip: 0.01";
	clipped = run_and_read(&arena, &run);
	run.train = "clip: 0";
	first = run_and_read(&arena, &run);
	ck_assert_str_ne(first, clipped);
	run.ranks = 3;
	for (int s = 0; s < COUNT(schedules); s++) {
		run.schedule = schedules[s];
		ck_assert_str_eq(run_and_read(&arena, &run), first);
	}
	arena_release(&arena);
}
END_TEST

/* -- codecs -------------------------------------------------------------------------------- */

static const char *const codecs[] = {"bf16", "int8", "int4"};

/* A run of one rank with a codec after the blocks 1 and 3. */
static struct golden_run inside(struct arena *arena, const char *name, const char *codec)
{
	struct golden_run run = rich(name, 2, 4);

	run.plan = arena_format(arena, "cuts: [{after_block: 1, codec: %s}, "
				"{after_block: 3, codec: %s}]", codec, codec);
	return run;
}

/* The same cuts between three ranks. */
static struct golden_run between(struct arena *arena, const char *name, const char *codec)
{
	struct golden_run run = inside(arena, name, codec);

	run.ranks = 3;
	run.plan = "layers: [2, 2, 1]";
	run.rest = arena_format(arena, "links: {default: {codec: %s}}\n", codec);
	return run;
}

START_TEST(codecs_lose_the_same_between_ranks_and_inside)
{
	const char *name = two_cases[_i / COUNT(codecs)], *codec = codecs[_i % COUNT(codecs)];
	struct arena arena = {0};
	struct golden_run run = inside(&arena, name, codec);
	char *first = run_and_read(&arena, &run), *plain;

	run.threads = 2;
	ck_assert_str_eq(run_and_read(&arena, &run), first);
	run = between(&arena, name, codec);
	for (int i = 0; i < 2; i++) {
		run.schedule = i ? "gpipe" : "eager";
		run.threads = 1 + i;
		ck_assert_str_eq(run_and_read(&arena, &run), first);
	}
	/* and it does lose something */
	run = between(&arena, name, "none");
	plain = run_and_read(&arena, &run);
	ck_assert_str_ne(plain, first);
	arena_release(&arena);
}
END_TEST

/* A cut inside a rank beside cuts between ranks, each with a codec of its own, and another one in each direction. */
START_TEST(codecs_may_differ)
{
	struct arena arena = {0};
	struct golden_run run = inside(&arena, "llama3", "none");
	char *first;

	run.plan = "cuts: [{after_block: 0, codec: int4}, {after_block: 2, codec: int8}, "
		   "{after_block: 4, codec: bf16}]";
	first = run_and_read(&arena, &run);
	run.ranks = 3;
	run.schedule = "eager";
	run.plan = "layers: [1, 4, 0], cuts: [{after_block: 2, codec: int8}]";
	run.rest = "links: {between: [{nodes: [n0, n1], codec: int4},"
		   " {nodes: [n1, n2], codec: bf16}]}\n";
	ck_assert_str_eq(run_and_read(&arena, &run), first);
	/* int4's way back is int8. */
	run.rest = "links: {between: [{from: n0, to: n1, codec: int4}, {from: n1, to: n0, codec: int8},"
		   " {nodes: [n1, n2], codec: bf16}]}\n";
	ck_assert_str_eq(run_and_read(&arena, &run), first);
	run.rest = "links: {between: [{from: n0, to: n1, codec: int4},"
		   " {nodes: [n1, n2], codec: bf16}]}\n";
	ck_assert_str_ne(run_and_read(&arena, &run), first);
	arena_release(&arena);
}
END_TEST

/* Links and nodes that are held to declared numbers take their time, and compute the same. */
START_TEST(identity_of_emulated_links)
{
	struct arena arena = {0};
	struct golden_run run = between(&arena, "llama3", "int8");
	char *first = run_and_read(&arena, &run);

	run.rest = "links: {default: {codec: int8, bandwidth: 4 MB/s, latency: 1 ms}}\n"
		   "emulate: {links: true}\n";
	ck_assert_str_eq(run_and_read(&arena, &run), first);
	arena_release(&arena);
}
END_TEST

/* The test itself can tell: another micro-batch or another learning rate gives other bytes. */
START_TEST(difference_is_seen)
{
	struct arena arena = {0};
	struct golden_run a = base("gpt2", 2, 4), b;

	a.ranks = 2;
	b = a;
	b.steps = 5;
	ck_assert_str_ne(run_and_read(&arena, &a), run_and_read(&arena, &b));
	arena_release(&arena);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("identity");
	TCase *whole = tcase_create("whole"), *few = tcase_create("short");
	int status;

	log_level(LOG_QUIET);
	say_bf16_skipped();
	scratch_open();
	tcase_set_timeout(whole, 120);
	tcase_add_loop_test(whole, identity, 0, COUNT(golden_cases));
	tcase_add_loop_test(whole, identity_with_dropout, 0, COUNT(two_cases));
	tcase_add_loop_test(whole, identity_of_bf16, 0, COUNT(two_cases));
	tcase_add_loop_test(whole, identity_without_a_clip, 0, COUNT(two_cases));
	tcase_add_loop_test(whole, codecs_lose_the_same_between_ranks_and_inside, 0,
			    COUNT(two_cases) * COUNT(codecs));
	tcase_add_test(whole, codecs_may_differ);
	tcase_set_timeout(few, 120);
	tcase_add_loop_test(few, identity_in_short, 0, COUNT(two_cases));
	tcase_add_test(few, identity_of_emulated_links);
	tcase_add_test(few, difference_is_seen);
	suite_add_tcase(suite, whole);
	suite_add_tcase(suite, few);
	status = run_suite(suite);
	scratch_close();
	return status;
}
