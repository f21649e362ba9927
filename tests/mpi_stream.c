/*
 * mpi_stream.c - the loop and its streams over Open MPI: the shared cases, a chain that sends in both directions, and
 * the same over emulated links that share an interface between processes.
 *
 * links: comm
 *
 * Every rank runs all tests, none of them forked (CK_NOFORK): MPI does not survive it.
 */
#include "comm/internal.h"
#include "tests/stream_cases.h"
#include "tests/suite.h"

/* Check's tests take no argument, and a process has one MPI world. */
static struct comm *world;

static int serve(struct comm *comm, int (*work)(struct comm *front, void *arg), void *arg)
{
	struct served served = {work, arg};

	return in_front(comm, &served);
}

/* All but a misfit, which leaves nothing to go on with. */
START_TEST(shared_case)
{
	if (comm_cases[_i].work == case_misfit)
		return;
	ck_assert_msg(serve(world, comm_cases[_i].work, NULL) == 0, "%s", comm_cases[_i].name);
}
END_TEST

static const struct chain chains[] = {
	{CODEC_INT8, 3 * 42 - 5, 768, 6, 4}, {CODEC_NONE, 3 * 42 - 5, 768, 6, 4},
	{CODEC_INT8, 7, 64, 20, 4},	     {CODEC_NONE, 7, 64, 20, 4},
	{CODEC_INT4, 700, 64, 6, 2},	     {CODEC_BF16, 700, 64, 6, 2},
};

START_TEST(tensors_arrive)
{
	struct chain chain = chains[_i];

	ck_assert_int_eq(serve(world, case_chain, &chain), 0);
}
END_TEST

/* A receive that stands when the loop ends leaves later messages of its tag alone. arg: the transfer, the stream's until
 * then. */
static int receives_in_vain(struct comm *comm, void *arg)
{
	struct stream_spec spec = {.name = "this > that", .peer = before(comm), .tag = CHAIN_TAG,
				   .rows = 1300, .channels = 64};
	struct stream *stream = stream_open(comm, &spec);
	int failures = 0;

	must(stream ? 0 : -1);
	must(transfer_post(stream, arg));
	clock_sleep(5e-3);
	must(comm_barrier(comm));
	return failures;
}

START_TEST(nothing_more_comes)
{
	struct chain chain = chains[3];
	struct transfer transfer = {0};

	ck_assert_int_eq(serve(world, receives_in_vain, &transfer), 0);
	ck_assert_int_eq(comm_barrier(world), 0);
	ck_assert_int_eq(serve(world, case_chain, &chain), 0);
}
END_TEST

enum { RANKS_MOST = 8 };

/* All links leave and enter through two interfaces that all processes share. */
static int shaped_chain(struct chain chain)
{
	struct shape shape[RANKS_MOST * RANKS_MOST];
	struct comm *shaped;
	int failures;

	for (int i = 0; i < world->size * world->size; i++)
		shape[i] = (struct shape){.bandwidth_bytes_s = 100e6, .latency_s = 3e-4, .nic_in = 1};
	shaped = comm_shaped_open(world, shape, 2);
	if (!shaped)
		return 1;
	failures = serve(shaped, case_chain, &chain);
	comm_close(shaped);
	return failures + (comm_barrier(world) < 0);
}

/* All bytes pass the one interface, one message after the other. */
START_TEST(interface_is_shared)
{
	struct chain chain = chains[_i];
	size_t bytes = stream_tensor_bytes(chain.codec, false, chain.rows, chain.channels) +
		       stream_tensor_bytes(chain.codec, true, chain.rows, chain.channels);
	double least = (double)bytes * chain.micros * chain.steps * (world->size - 1) / 100e6, s;

	ck_assert_int_le(world->size, RANKS_MOST);
	ck_assert_int_eq(comm_barrier(world), 0);
	s = clock_s();
	ck_assert_int_eq(shaped_chain(chain), 0);
	s = clock_s() - s;
	ck_assert_msg(s >= least, "%.3f s, less than %.3f s", s, least);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("mpi_stream");
	TCase *tcase = tcase_create("mpi");

	tcase_add_loop_test(tcase, shared_case, 0, COUNT(comm_cases));
	tcase_add_loop_test(tcase, tensors_arrive, 0, COUNT(chains));
	tcase_add_test(tcase, nothing_more_comes);
	tcase_add_loop_test(tcase, interface_is_shared, 0, 2);
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
