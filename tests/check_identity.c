/*
 * The same answer wherever the cuts are: at one micro-batch size, losses, gradient norms and the adapter file are the
 * same bytes for 1, 2, 3 and 5 ranks, all schedules, and 1 and 2 threads a rank. What a codec loses is the same too,
 * whether it travels or is coded inside a rank. Ranks are threads here; mpi_identity.c shows the same over MPI.
 *
 * links: launch
 */
#include "tests/runs.h"

/* ThreadSanitizer makes everything many times slower, and threads do the same in every case. */
#ifdef __SANITIZE_THREAD__
enum { CASES = 2 };
#else
enum { CASES = COUNT(golden_cases) };
#endif

static const int ranks[] = {1, 2, 3, 5};
static const char *const schedules[] = {"eager", "1f1b", "gpipe"};

static char *run_and_read(struct arena *arena, const struct golden_run *run)
{
	char *folder = run_folder(arena, run, "local");

	ck_assert_int_eq(run_local(run, folder), 0);
	return run_result(arena, folder);
}

/* Every (or every other) number of ranks and every schedule, each of them with 1 and with 2 threads. */
static void compare_all(struct golden_run first_run, int every)
{
	struct arena arena = {0};
	char *first = run_and_read(&arena, &first_run);

	for (int r = 0; r < COUNT(ranks); r += every)
		for (int s = 0; s < COUNT(schedules); s++) {
			struct golden_run run = first_run;

			run.ranks = ranks[r];
			run.schedule = schedules[s];
			run.threads = 1 + (r + s) % 2;
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

START_TEST(identity)
{
	compare_all(base(golden_cases[_i], 1, 4), 1);
}
END_TEST

START_TEST(identity_of_larger_micro_batches)
{
	compare_all(base(golden_cases[_i], 2, 4), 2);
}
END_TEST

/* Where all cases would take too long: both families. */
static const char *const two_cases[] = {"gpt2", "qwen3-long"};

static const char with_dropout[] = "{rank: 3, alpha: 6, dropout: 0.3, targets: all}";

/* New adapters, dropout, shuffling and validation must not depend on the cuts either. */
START_TEST(identity_with_dropout)
{
	struct golden_run run = base(golden_cases[_i], 1, 6);

	run.lora = with_dropout;
	run.valid = golden_cases[_i];
	compare_all(run, 1);
}
END_TEST

/* In BF16 too, of which adapters of an odd rank leave a column of every row to nobody. */
START_TEST(identity_of_bf16)
{
	struct arena arena = {0};
	struct golden_run run = base(two_cases[_i / 2], 1 + _i % 2, 4);
	char *fp32;

	if (!cpu_has_bf16())
		return;
	run.lora = with_dropout;
	run.valid = run.name;
	fp32 = run_and_read(&arena, &run);
	run.train = "precision: bf16";
	ck_assert_str_ne(run_and_read(&arena, &run), fp32);
	compare_all(run, 1 + _i % 2);
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
	struct golden_run run = base(name, 2, 4);

	run.lora = with_dropout;
	run.valid = name;
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
	static const char *const orders[] = {"eager", "gpipe"};
	const char *name = two_cases[_i / COUNT(codecs)], *codec = codecs[_i % COUNT(codecs)];
	struct arena arena = {0};
	struct golden_run run = inside(&arena, name, codec);
	char *first = run_and_read(&arena, &run), *plain;

	run.threads = 2;
	ck_assert_str_eq(run_and_read(&arena, &run), first);
	run = between(&arena, name, codec);
	for (int i = 0; i < 2 * COUNT(orders); i++) {
		run.schedule = orders[i / 2];
		run.threads = 1 + i % 2;
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
	TCase *cases = tcase_create("cases");
	int status;

	log_level(LOG_QUIET);
	say_bf16_skipped();
	scratch_open();
	tcase_set_timeout(cases, 120);
	tcase_add_loop_test(cases, identity, 0, CASES);
	tcase_add_loop_test(cases, identity_of_larger_micro_batches, 0, CASES);
	tcase_add_loop_test(cases, identity_with_dropout, 0, CASES);
	tcase_add_loop_test(cases, identity_of_bf16, 0, 2 * COUNT(two_cases));
	tcase_add_loop_test(cases, identity_without_a_clip, 0, COUNT(two_cases));
	tcase_add_loop_test(cases, codecs_lose_the_same_between_ranks_and_inside, 0,
			    COUNT(two_cases) * COUNT(codecs));
	tcase_add_test(cases, codecs_may_differ);
	tcase_add_test(cases, identity_of_emulated_links);
	tcase_add_test(cases, difference_is_seen);
	suite_add_tcase(suite, cases);
	status = run_suite(suite);
	scratch_close();
	return status;
}
