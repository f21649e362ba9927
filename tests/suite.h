/*
 * tests/suite.h - how every test program runs its tests.
 *
 * The environment has the say: CK_FORK=no for a debugger or valgrind, CK_VERBOSITY for more to read. A process that has
 * initialised MPI must not be forked, whatever is said there: run_suite_as.
 */
#ifndef EDGEPIPE_TESTS_SUITE_H
#define EDGEPIPE_TESTS_SUITE_H

#include <check.h>
#include <stdlib.h>
#include <time.h>

/* A sanitizer makes everything about ten times slower: so many times fewer random cases are drawn there. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { TIMES_LESS = 8 };
#elif defined(__has_feature)
enum { TIMES_LESS = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ? 8 : 1 };
#else
enum { TIMES_LESS = 1 };
#endif

/* Seconds that this process has computed: how long something takes by itself, whatever else this machine does. */
static inline double computed_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* What takes less than so many of these seconds, far less on any machine; a sanitizer's are longer. */
#define ck_assert_computed_lt(start_s, s) ck_assert_double_lt(computed_s() - (start_s), (s) * TIMES_LESS)

/* Runs a suite and frees it; returns how its program ends. */
static inline int run_suite_as(Suite *suite, enum fork_status fork, enum print_output output)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	srunner_set_fork_status(runner, fork);
	srunner_run_all(runner, output);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static inline int run_suite(Suite *suite)
{
	return run_suite_as(suite, CK_FORK_GETENV, CK_ENV);
}

#endif
