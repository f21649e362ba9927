/*
 * tests/check_threads.c - the pool: every index once, run after run, for any number of threads.
 *
 * links: base
 */
#include "base/base.h"
#include "tests/suite.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>

#define MOST 5000

struct tally {
	atomic_int times[MOST];
	atomic_int in_use[8];		/* thread numbers at work */
	atomic_int wrong;
	int threads, count;
	atomic_bool block;		/* hold every index until all threads have one */
	atomic_int arrived, finished;
};

static void count_index(void *arg, int index, int thread)
{
	struct tally *tally = arg;

	if (index < 0 || index >= tally->count || thread < 0 || thread >= tally->threads) {
		atomic_fetch_add(&tally->wrong, 1);
		return;
	}
	if (atomic_fetch_add(&tally->in_use[thread], 1) != 0)
		atomic_fetch_add(&tally->wrong, 1);
	atomic_fetch_add(&tally->times[index], 1);
	if (atomic_load(&tally->block)) {
		atomic_fetch_add(&tally->arrived, 1);
		for (int i = 0; i < 2000 && atomic_load(&tally->arrived) < tally->threads; i++)
			clock_sleep(1e-3);
		if (atomic_load(&tally->arrived) < tally->threads)
			atomic_fetch_add(&tally->wrong, 1);
		if (thread > 0)
			clock_sleep(0.02);	/* pool_run has to wait for it */
	}
	atomic_fetch_sub(&tally->in_use[thread], 1);
	atomic_fetch_add(&tally->finished, 1);
}

START_TEST(every_index_runs_once)
{
	static const int counts[] = {0, 1, 2, 3, 4, 5, 17, 100, MOST, 2, 1, 0, 64};
	struct pool *pool = pool_open(_i);

	ck_assert_ptr_nonnull(pool);
	ck_assert_int_eq(pool_threads(pool), _i);
	for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
		struct tally *tally = xzalloc(1, sizeof *tally);

		tally->threads = _i;
		tally->count = counts[c];
		pool_run(pool, counts[c], count_index, tally);
		ck_assert_int_eq(tally->wrong, 0);
		for (int i = 0; i < MOST; i++)
			ck_assert_int_eq(tally->times[i], i < counts[c]);
		free(tally);
	}
	pool_close(pool);
}
END_TEST

static void add_one(void *arg, int index, int thread)
{
	(void)index;
	(void)thread;
	atomic_fetch_add((atomic_int *)arg, 1);
}

/* Short runs one behind the other: a worker that comes late must not touch the next run. */
START_TEST(many_short_runs)
{
	struct pool *pool = pool_open(_i);

	for (int run = 0; run < 20000; run++) {
		atomic_int done = 0;

		pool_run(pool, 1 + run % 7, add_one, &done);
		ck_assert_int_eq(done, 1 + run % 7);
	}
	pool_close(pool);
}
END_TEST

START_TEST(all_threads_take_part)
{
	struct pool *pool = pool_open(_i);
	struct tally *tally = xzalloc(1, sizeof *tally);

	tally->threads = tally->count = _i;
	tally->block = true;
	clock_sleep(0.02);		/* all asleep: all have to be woken */
	pool_run(pool, _i, count_index, tally);
	ck_assert_int_eq(tally->arrived, _i);
	ck_assert_int_eq(tally->finished, _i);
	ck_assert_int_eq(tally->wrong, 0);
	free(tally);
	pool_close(pool);
}
END_TEST

static int count_threads(void)
{
	DIR *list = opendir("/proc/self/task");
	int count = 0;

	while (list && readdir(list))
		count++;
	if (list)
		closedir(list);
	return count - 2;	/* "." and ".." */
}

/* A joined thread may be listed for a moment more. */
static int threads_of_process(int expected)
{
	int count = count_threads();

	for (int i = 0; i < 1000 && count != expected; i++) {
		clock_sleep(1e-3);
		count = count_threads();
	}
	return count;
}

START_TEST(a_pool_starts_one_thread_less_than_it_has)
{
	/* The first thread of all may bring a helper of the tools that watch, which stays. */
	pool_close(pool_open(2));
	int before = threads_of_process(1);

	for (int threads = -1; threads <= 3; threads++) {
		struct pool *pool = pool_open(threads);
		int expected = threads < 1 ? 1 : threads;

		ck_assert_int_eq(pool_threads(pool), expected);
		expected += before - 1;
		ck_assert_int_eq(threads_of_process(expected), expected);
		pool_close(pool);
	}
	pool_close(NULL);
}
END_TEST

/* Seconds of processor time that the process has used. */
static double time_used(void)
{
	struct rusage use;

	getrusage(RUSAGE_SELF, &use);
	return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
	       (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) * 1e-6;
}

/* The calling thread has a long index; the workers have none once it has begun. */
static void sleep_on_thread_zero(void *arg, int index, int thread)
{
	atomic_int *begun = arg;

	(void)index;
	if (thread == 0 && atomic_fetch_add(begun, 1) == 0)
		clock_sleep(0.3);
	for (int i = 0; i < 2000 && atomic_load(begun) == 0; i++)
		clock_sleep(1e-3);
}

START_TEST(waiting_costs_no_time)
{
	struct pool *pool = pool_open(4);
	atomic_int done = 0;

	pool_run(pool, 100, add_one, &done);
	clock_sleep(0.02);
	double start = time_used();
	clock_sleep(0.3);
	ck_assert_double_lt(time_used() - start, 0.05);
	/* Neither between runs nor for the last index of one. */
	start = time_used();
	atomic_store(&done, 0);
	pool_run(pool, 4, sleep_on_thread_zero, &done);
	ck_assert_double_lt(time_used() - start, 0.05);
	pool_close(pool);
}
END_TEST

struct signals {
	atomic_int arrived, blocked, seen;
};

static void look_at_signals(void *arg, int index, int thread)
{
	struct signals *signals = arg;
	sigset_t mask;

	(void)index;
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	if (thread > 0) {
		atomic_fetch_add(&signals->seen, 1);
		atomic_fetch_add(&signals->blocked, sigismember(&mask, SIGTERM) &&
						    sigismember(&mask, SIGUSR1));
	}
	atomic_fetch_add(&signals->arrived, 1);
	for (int i = 0; i < 5000 && atomic_load(&signals->arrived) < 3; i++)
		clock_sleep(1e-3);
}

START_TEST(workers_leave_signals_to_the_main_thread)
{
	struct pool *pool = pool_open(3);
	struct signals signals = {0};
	sigset_t mask;

	pool_run(pool, 3, look_at_signals, &signals);
	ck_assert_int_eq(signals.seen, 2);
	ck_assert_int_eq(signals.blocked, 2);
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	ck_assert(!sigismember(&mask, SIGTERM));
	pool_close(pool);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("threads");
	TCase *t = tcase_create("threads");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, every_index_runs_once, 1, 5);
	tcase_add_loop_test(t, many_short_runs, 1, 5);
	tcase_add_loop_test(t, all_threads_take_part, 1, 5);
	tcase_add_test(t, a_pool_starts_one_thread_less_than_it_has);
	tcase_add_test(t, waiting_costs_no_time);
	tcase_add_test(t, workers_leave_signals_to_the_main_thread);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run_suite(suite());
}
