/*
 * Ranks as processes and ranks as threads compute the same bytes: five MPI ranks train a golden case, then rank 0 does
 * it again with five threads.
 *
 * links: launch
 */
#include "tests/runs.h"

static struct comm *world;

static void compare(struct golden_run run)
{
	struct arena arena = {0};
	char *folder = run_folder(&arena, &run, "mpi");
	struct train_options options = {.command = "train", .out = folder, .overwrite = true};
	char *over_mpi;

	if (world->rank == 0)
		options.topology = run_topology(&arena, &run, folder);
	else
		options.topology = arena_format(&arena, "%s.yaml", folder);
	ck_assert_int_eq(comm_barrier(world), 0);
	ck_assert_int_eq(train_run(world, &options, NULL), 0);
	if (world->rank == 0) {
		over_mpi = run_result(&arena, folder);
		folder = run_folder(&arena, &run, "local");
		ck_assert_int_eq(run_local(&run, folder), 0);
		ck_assert_str_eq(run_result(&arena, folder), over_mpi);
	}
	ck_assert_int_eq(comm_barrier(world), 0);
	arena_release(&arena);
}

static struct golden_run base(int i)
{
	return (struct golden_run){
		.name = golden_cases[i % COUNT(golden_cases)],
		.ranks = 5,
		.threads = 1,
		.micro_batch = 1,
		.steps = 4,
		.schedule = "eager",
		.train = i < COUNT(golden_cases) ? NULL : "precision: bf16",
	};
}

START_TEST(threads_equal_processes)
{
	compare(base(_i));
}
END_TEST

/* Where samples lie in packed sequences goes from rank 0 to every stage. */
START_TEST(packed_too)
{
	struct arena arena = {0};
	struct golden_run run = base(_i * (COUNT(golden_cases) - 1));

	run.data = arena_format(&arena, "train: %s/%s/batches.safetensors, pack: true", GOLDEN, run.name);
	compare(run);
	arena_release(&arena);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *suite = suite_create("identity over MPI");
	TCase *cases = tcase_create("cases");
	int status;

	world = comm_mpi_open(&argc, &argv);
	if (!world)
		return EXIT_FAILURE;
	log_level(LOG_QUIET);
	if (world->rank == 0) {
		say_bf16_skipped();
		scratch_open();
	}
	comm_broadcast(world, 0, scratch, sizeof(scratch));
	tcase_add_loop_test(cases, threads_equal_processes, 0,
			    COUNT(golden_cases) * (cpu_has_bf16() ? 2 : 1));
	tcase_add_loop_test(cases, packed_too, 0, 2);
	suite_add_tcase(suite, cases);
	status = run_suite(suite);
	if (comm_any(world, status != EXIT_SUCCESS))
		status = EXIT_FAILURE;
	if (world->rank == 0)
		scratch_close();
	comm_close(world);
	return status;
}
