/*
 * mpi_comm.c - the Open MPI transport: the shared cases, and messages cut into pieces.
 *
 * links: comm
 *
 * Every rank runs all tests, none of them forked (CK_NOFORK): MPI does not survive it.
 */
#include "comm/internal.h"
#include "tests/comm_cases.h"
#include "tests/suite.h"

/* Check's tests take no argument, and a process has one MPI world. */
static struct comm *world;

START_TEST(shared_case)
{
	ck_assert_msg(comm_cases[_i].work(world, NULL) == 0, "%s", comm_cases[_i].name);
}
END_TEST

START_TEST(launched_is_size)
{
	ck_assert_int_eq(comm_mpi_launched(), world->size);
}
END_TEST

/* Sizes around the cut, several messages of one tag under way. */
static int pieces(struct comm *comm)
{
	static const size_t sizes[] = {0, 999, 1000, 1001, 2000, 2500, 100000};
	struct comm_request send[COUNT(sizes)] = {{0}}, recv[COUNT(sizes)] = {{0}};
	unsigned char *out[COUNT(sizes)], *in[COUNT(sizes)];
	int failures = 0;

	for (int i = 0; i < COUNT(sizes); i++) {
		out[i] = xalloc(sizes[i] + 1);
		in[i] = xzalloc(sizes[i] + 1, 1);
		fill(out[i], sizes[i], comm->rank, i);
		must(comm_send(comm, after(comm), 3, out[i], sizes[i], &send[i]));
		must(comm_recv(comm, before(comm), 3, in[i], sizes[i], &recv[i]));
	}
	for (int i = 0; i < COUNT(sizes); i++) {
		must(comm_wait(comm, &recv[i]));
		must(comm_wait(comm, &send[i]));
		expect(filled(in[i], sizes[i], before(comm), i));
		expect(in[i][sizes[i]] == 0);
		free(out[i]);
		free(in[i]);
	}
	return failures;
}

START_TEST(cut_messages_arrive_whole)
{
	int failures = 0;

	comm_mpi_piece(world, 1000);
	for (int round = 0; round < 3; round++)
		failures += pieces(world);
	comm_mpi_piece(world, SIZE_MAX);
	ck_assert_int_eq(failures, 0);
}
END_TEST

/* Whatever the two sizes are, the receiver sees that they differ and waits for nothing. Where
 * more was sent than expected, pieces are left over: hence a tag for each pair. */
START_TEST(cut_misfits_are_errors)
{
	static const size_t sizes[] = {0, 8, 999, 1000, 1001, 2000, 2999, 3000, 3001};
	int failures = 0, tag = 1000;

	if (world->size == 1)
		return;		/* as in case_misfit */
	comm_mpi_piece(world, 1000);
	for (int sent = 0; sent < COUNT(sizes); sent++)
		for (int expected = 0; expected < COUNT(sizes); expected++) {
			if (sent == expected)
				continue;
			failures += misfit(world, tag, sizes[sent], sizes[expected],
					   (sent + expected) % 2 == 0);
			if (sent < expected)
				failures += whole(world, tag);
			tag++;
		}
	comm_mpi_piece(world, SIZE_MAX);
	ck_assert_int_eq(failures, 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("mpi_comm");
	TCase *tcase = tcase_create("mpi");

	tcase_add_loop_test(tcase, shared_case, 0, COUNT(comm_cases));
	tcase_add_test(tcase, launched_is_size);
	tcase_add_test(tcase, cut_messages_arrive_whole);
	tcase_add_test(tcase, cut_misfits_are_errors);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(int argc, char **argv)
{
	int status;

	world = comm_mpi_open(&argc, &argv);
	if (!world)
		return EXIT_FAILURE;
	status = run_suite_as(suite(), CK_NOFORK, world->rank == 0 ? CK_NORMAL : CK_MINIMAL);
	comm_close(world);
	return status;
}
