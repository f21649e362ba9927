/*
 * check_comm.c - ranks as threads of one process: the shared cases, and what is particular to
 * them: aborts, ranks that end early, results.
 *
 * links: comm
 */
#include "tests/comm_cases.h"
#include "tests/suite.h"

static const int sizes[] = {1, 2, 3, 5};

START_TEST(shared_case)
{
	const struct comm_case *one = &comm_cases[_i / COUNT(sizes)];
	int size = sizes[_i % COUNT(sizes)];

	ck_assert_msg(comm_local_run(size, one->work, NULL) == 0, "%s with %d ranks", one->name,
		      size);
}
END_TEST

START_TEST(alone)
{
	struct comm *comm = comm_alone_open();

	ck_assert_int_eq(comm->rank, 0);
	ck_assert_int_eq(comm->size, 1);
	for (int i = 0; i < COUNT(comm_cases); i++)
		ck_assert_msg(comm_cases[i].work(comm, NULL) == 0, "%s", comm_cases[i].name);
	comm_close(comm);
	comm_close(NULL);
}
END_TEST

START_TEST(small_sends_do_not_wait)
{
	struct comm *comm = comm_alone_open();
	char out[4096] = "hello", in[4096];

	ck_assert_int_eq(comm_send_now(comm, 0, 1, out, sizeof out), 0);
	out[0] = 'j';
	ck_assert_int_eq(comm_recv_now(comm, 0, 1, in, sizeof in), 0);
	ck_assert_str_eq(in, "hello");
	comm_close(comm);
}
END_TEST

/* -- results ------------------------------------------------------------------------------- */

static int result_of_rank(struct comm *comm, void *arg)
{
	const int *results = arg;

	clock_sleep((comm->size - comm->rank) * 2e-3);
	comm_close(comm);
	return results[comm->rank];
}

START_TEST(first_result_counts)
{
	int results[] = {0, 0, 20, 30, -1};

	ck_assert_int_eq(comm_local_run(5, result_of_rank, results), 20);
	ck_assert_int_eq(comm_local_run(2, result_of_rank, results), 0);
}
END_TEST

static int speaks_as_rank(struct comm *comm, void *arg)
{
	char prefix[32], *noted;
	int failures = 0;

	(void)arg;
	error_hold();
	warn("hello");
	noted = log_take();
	snprintf(prefix, sizeof prefix, "rank %d:", comm->rank);
	expect(noted && (comm->rank == 0 || strstr(noted, prefix)));
	free(noted);
	error_clear();
	return failures;
}

START_TEST(each_thread_has_its_rank)
{
	ck_assert_int_eq(comm_local_run(3, speaks_as_rank, NULL), 0);
}
END_TEST

/* -- aborts -------------------------------------------------------------------------------- */

/* The last rank aborts while each other one is stuck in its own way. */
static int stuck(struct comm *comm, void *arg)
{
	int last = comm->size - 1, failures = 0;
	char *large = xzalloc(100000, 1), byte = 0;
	struct comm_request request = {0};
	double value = 1;

	(void)arg;
	if (comm->rank == last) {
		clock_sleep(0.05);
		comm_abort(comm, EXIT_RETRY);
	} else if (comm->rank == 0) {
		expect(comm_recv_now(comm, last, 1, &byte, 1) == -1);
	} else if (comm->rank == 1) {
		expect(comm_send_now(comm, last, 2, large, 100000) == -1);
	} else if (comm->rank == 2) {
		expect(comm_any(comm, false));
	} else {
		expect(comm_barrier(comm) == -1);
	}
	expect(comm_send(comm, 0, 1, &byte, 1, &request) == -1);
	expect(comm_test(comm, &request) == -1);
	expect(comm_recv(comm, 0, 1, &byte, 1, &request) == -1);
	expect(comm_wait(comm, &request) == -1);
	expect(comm->size == 1 || comm_barrier(comm) == -1);
	expect(comm->size == 1 || comm_any(comm, false));
	expect(comm->size == 1 || (comm_fold(comm, &value) == -1 && value == 1));
	free(large);
	return failures ? failures : -7;
}

START_TEST(abort_ends_all)
{
	double start = clock_s();

	for (int size = 1; size <= 5; size++)
		ck_assert_int_eq(comm_local_run(size, stuck, NULL), -7);
	ck_assert(clock_s() - start < 30);
}
END_TEST

/* After an abort a rank may release what it had under way: nobody touches it any more. */
static int releases(struct comm *comm, void *arg)
{
	struct comm_request send[8] = {{0}}, recv[8] = {{0}};
	char *out[8], *in[8];
	int rc = 0, i;

	(void)arg;
	for (i = 0; i < 8; i++) {
		out[i] = xzalloc(50000, 1);
		in[i] = xzalloc(50000, 1);
	}
	for (int round = 0; rc == 0; round++) {
		if (comm->rank == comm->size - 1 && round == 20)
			comm_abort(comm, EXIT_RETRY);
		for (i = 0; i < 8 && rc == 0; i++)
			rc = comm_recv(comm, before(comm), i, in[i], 50000, &recv[i]);
		for (i = 0; i < 8 && rc == 0; i++)
			rc = comm_send(comm, after(comm), i, out[i], 50000, &send[i]);
		for (i = 0; i < 8 && rc == 0; i++)
			rc = comm_wait(comm, &recv[i]);
		for (i = 0; i < 8 && rc == 0; i++)
			rc = comm_wait(comm, &send[i]);
	}
	for (i = 0; i < 8; i++) {
		free(out[i]);
		free(in[i]);
	}
	return rc;
}

START_TEST(abort_lets_go_of_buffers)
{
	for (int round = 0; round < 10; round++)
		ck_assert_int_eq(comm_local_run(5, releases, NULL), -1);
}
END_TEST

/* Rank 1 ends at once; the others wait for it, by receiving or by sending. */
static int waits_for_the_dead(struct comm *comm, void *arg)
{
	struct comm_request request = {0};
	char *large = xzalloc(100000, 1);
	int failures = 0;

	(void)arg;
	error_hold();
	if (comm->rank == 0)
		expect(comm_recv_now(comm, 1, 1, large, 100000) == -1);
	else if (comm->rank == 2)
		expect(comm_send_now(comm, 1, 2, large, 100000) == -1);
	if (comm->rank != 1) {
		expect(comm_barrier(comm) == -1);
		expect(comm_send(comm, comm->rank, 3, large, 1, &request) == -1);
	}
	/* Who saw it first says so. */
	expect(!error_code() || strstr(error_text(), "waiting for rank 1"));
	free(large);
	return failures;
}

START_TEST(ended_rank_is_not_waited_for)
{
	ck_assert_int_eq(comm_local_run(2, waits_for_the_dead, NULL), 0);
	ck_assert_int_eq(comm_local_run(3, waits_for_the_dead, NULL), 0);
}
END_TEST

/* What a rank sent before it ended can still be taken. */
static int last_words(struct comm *comm, void *arg)
{
	char byte = 5;
	int failures = 0;

	(void)arg;
	if (comm->rank == 1) {
		must(comm_send_now(comm, 0, 1, &byte, 1));
		return failures;
	}
	clock_sleep(0.02);
	byte = 0;
	must(comm_recv_now(comm, 1, 1, &byte, 1));
	expect(byte == 5);
	return failures;
}

START_TEST(last_words_are_heard)
{
	ck_assert_int_eq(comm_local_run(2, last_words, NULL), 0);
}
END_TEST

static int walks_away(struct comm *comm, void *arg)
{
	struct comm_request request = {0};

	error_hold();
	if (comm->rank == 1)
		return comm_send(comm, 0, 1, arg, 100000, &request);
	return comm_recv_now(comm, 1, 2, arg, 1) == -1 ? 0 : 9;
}

START_TEST(unfinished_transfers_are_errors)
{
	char *data = xzalloc(100000, 1);

	ck_assert_int_eq(comm_local_run(2, walks_away, data), -1);
	free(data);
}
END_TEST

/* -- without MPI --------------------------------------------------------------------------- */

START_TEST(launched_from_environment)
{
	static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK",
					    "SLURM_STEP_NUM_TASKS"};
	for (int i = 0; i < COUNT(names); i++)
		unsetenv(names[i]);
	ck_assert_int_eq(comm_mpi_launched(), 1);
	setenv("SLURM_STEP_NUM_TASKS", "6", 1);
	ck_assert_int_eq(comm_mpi_launched(), 1);
	setenv("PMIX_RANK", "0", 1);
	ck_assert_int_eq(comm_mpi_launched(), 6);
	setenv("PMI_SIZE", "4", 1);
	ck_assert_int_eq(comm_mpi_launched(), 4);
	setenv("OMPI_COMM_WORLD_SIZE", "5", 1);
	ck_assert_int_eq(comm_mpi_launched(), 5);
	setenv("OMPI_COMM_WORLD_SIZE", "x5", 1);
	ck_assert_int_eq(comm_mpi_launched(), 4);
	setenv("PMI_SIZE", "-4", 1);
	ck_assert_int_eq(comm_mpi_launched(), 6);
	for (int i = 0; i < COUNT(names); i++)
		unsetenv(names[i]);
}
END_TEST

START_TEST(version_is_one_line)
{
	const char *version = comm_mpi_version();

	ck_assert(strstr(version, "MPI ") != NULL);
	ck_assert(strchr(version, '\n') == NULL);
	ck_assert(version[strcspn(version, "0123456789")] != '\0');
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("comm");
	TCase *tcase = tcase_create("local");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, shared_case, 0, COUNT(comm_cases) * COUNT(sizes));
	tcase_add_test(tcase, alone);
	tcase_add_test(tcase, small_sends_do_not_wait);
	tcase_add_test(tcase, first_result_counts);
	tcase_add_test(tcase, each_thread_has_its_rank);
	tcase_add_test(tcase, abort_ends_all);
	tcase_add_test(tcase, abort_lets_go_of_buffers);
	tcase_add_test(tcase, ended_rank_is_not_waited_for);
	tcase_add_test(tcase, last_words_are_heard);
	tcase_add_test(tcase, unfinished_transfers_are_errors);
	tcase_add_test(tcase, launched_from_environment);
	tcase_add_test(tcase, version_is_one_line);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return run_suite(suite());
}
