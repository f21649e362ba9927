/*
 * The same answer wherever the cuts are: at one micro-batch size, losses, gradient norms and the adapter file are the
 * same bytes for 1, 2, 3 and 5 ranks, both schedules, and 1 and 2 threads a rank. Ranks are threads here; mpi_identity.c
 * shows the same over MPI.
 *
 * links: launch
 */
#include "tests/runs.h"

static const int ranks[] = {1, 2, 3, 5};
static const char *const schedules[] = {"1f1b", "gpipe"};

static char *run_and_read(struct arena *arena, const struct golden_run *run)
{
	char *folder = run_folder(arena, run, "local");

	ck_assert_int_eq(run_local(run, folder), 0);
	return run_result(arena, folder);
}


static void compare_all(struct golden_run base)
{
	struct arena arena = {0};
	char *first = run_and_read(&arena, &base);

	for (int r = 0; r < COUNT(ranks); r++)
		for (int s = 0; s < COUNT(schedules); s++)
			for (int threads = 1; threads <= 2; threads++) {
				struct golden_run run = base;

				run.ranks = ranks[r];
				run.schedule = schedules[s];
				run.threads = threads;
				ck_assert_str_eq(run_and_read(&arena, &run), first);
			}
	arena_release(&arena);
}

START_TEST(identity)
{
	compare_all((struct golden_run){golden_cases[_i], 1, 1, 1, 4, "1f1b", NULL, NULL, false});
}
END_TEST

START_TEST(identity_of_larger_micro_batches)
{
	compare_all((struct golden_run){golden_cases[_i], 1, 1, 2, 4, "1f1b", NULL, NULL, false});
}
END_TEST

/* New adapters, dropout, shuffling and validation must not depend on the cuts either. */
START_TEST(identity_with_dropout)
{
	compare_all((struct golden_run){golden_cases[_i], 1, 1, 1, 6, "1f1b",
					"{rank: 3, alpha: 6, dropout: 0.3, targets: all}",
					golden_cases[_i], false});
}
END_TEST

/* The test itself can tell: another micro-batch or another learning rate gives other bytes. */
START_TEST(difference_is_seen)
{
	struct arena arena = {0};
	struct golden_run a = {"gpt2", 2, 1, 2, 4, "1f1b", NULL, NULL, false}, b = a;

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
	scratch_open();
	tcase_set_timeout(cases, 120);
	tcase_add_loop_test(cases, identity, 0, COUNT(golden_cases));
	tcase_add_loop_test(cases, identity_of_larger_micro_batches, 0, COUNT(golden_cases));
	tcase_add_loop_test(cases, identity_with_dropout, 0, COUNT(golden_cases));
	tcase_add_test(cases, difference_is_seen);
	suite_add_tcase(suite, cases);
	status = run_suite(suite);
	scratch_close();
	return status;
}
