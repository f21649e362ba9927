/*
 * tests/check_links.c - links between ranks that are threads: every ordered pair is measured once, whatever the number
 * of ranks, and what links are held to is found; and all flows of a chain at once.
 *
 * links: profiler comm base
 */
#include "profiler/profiler.h"
#include "tests/suite.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS_MOST = 6, TRIES = 20 };
#define BYTES_S 8e6		/* of the links that are held, but for one, which has a quarter */
#define LATENCY_S 2e-3

struct world {
	bool apart, shaped, far;
	struct link_profile link[RANKS_MOST * RANKS_MOST];
	int rounds[RANKS_MOST];
};

static void count_round(void *arg, int round, int rounds)
{
	int *seen = arg;

	ck_assert_int_eq(round, *seen);
	ck_assert_int_lt(round, rounds);
	++*seen;
}

static struct comm *open_shaped(struct comm *comm)
{
	struct shape shape[RANKS_MOST * RANKS_MOST];

	for (int i = 0; i < comm->size * comm->size; i++)
		shape[i] = (struct shape){BYTES_S, LATENCY_S, -1, -1, NULL};
	shape[1].bandwidth_bytes_s /= 4;	/* from rank 0 to rank 1 */
	return comm_shaped_open(comm, shape, 0);
}

static int measure(struct comm *inner, void *arg)
{
	struct world *world = arg;
	struct comm *comm = world->shaped ? open_shaped(inner) : inner;
	bool near[RANKS_MOST];
	struct links_spec spec = {.comm = comm, .near = near, .apart = world->apart, .sample_s = world->shaped ? 0.02 : 0.0005,
				  .progress = count_round, .progress_arg = &world->rounds[inner->rank]};
	int status;

	for (int i = 0; i < inner->size; i++)
		near[i] = !world->far;
	status = links_measure(&spec, &world->link[inner->rank * inner->size]);
	if (world->shaped)
		comm_close(comm);
	return status;
}

/* From 1 rank, which has no link, to RANKS_MOST. */
START_TEST(every_pair_is_measured)
{
	int ranks = _i / 2 + 1;
	struct world world = {.apart = _i % 2};

	ck_assert_int_eq(comm_local_run(ranks, measure, &world), 0);
	for (int i = 0; i < ranks; i++)
		ck_assert_int_eq(world.rounds[i], links_rounds(ranks));
	for (int i = 0; i < ranks * ranks; i++) {
		const struct link_profile *link = &world.link[i];
		bool pair = i / ranks != i % ranks;

		ck_assert_int_eq(link->origin, pair ? ORIGIN_MEASURED : ORIGIN_GUESSED);
		ck_assert_int_eq(link->bandwidth_bytes_s > 0, pair);
		ck_assert_int_eq(link->both_bytes_s > 0, pair);
		ck_assert_int_eq(link->disjoint_bytes_s > 0, pair && ranks > 3 && !world.apart);
	}
}
END_TEST

static bool within(double found, double least, double most)
{
	return found > least && found < most;
}

/* The first link that is found otherwise than it is held, by more than a busy machine adds; -1: none. */
static int found_otherwise(const struct world *world, int ranks)
{
	for (int i = 0; i < ranks * ranks; i++) {
		const struct link_profile *link = &world->link[i];
		double rate = i == 1 ? BYTES_S / 4 : BYTES_S;

		if (i / ranks == i % ranks)
			continue;
		if (!within(link->bandwidth_bytes_s, 0.7 * rate, 1.3 * rate) ||
		    !within(link->latency_s, 0.10 * LATENCY_S, 10 * LATENCY_S))
			return i;
	}
	return -1;
}

/* With clocks that are not known to be one, too. Another program may take the cores while one link is measured, but not
 * each time. */
START_TEST(what_links_are_held_to_is_found)
{
	struct world world = {.apart = _i == 0, .shaped = true, .far = _i == 2};
	int ranks = world.apart ? 4 : 3, wrong = 0;

	for (int try = 0; try < TRIES && wrong >= 0; try++) {
		memset(world.rounds, 0, sizeof(world.rounds));
		ck_assert_int_eq(comm_local_run(ranks, measure, &world), 0);
		wrong = found_otherwise(&world, ranks);
	}
	ck_assert_msg(wrong < 0, "from %d to %d: %g bytes/s, %g s", wrong / ranks, wrong % ranks,
		      world.link[wrong].bandwidth_bytes_s, world.link[wrong].latency_s);
}
END_TEST

/* A chain: both directions of every cut at once. Receivers find the rates, though they expect twice as much. arg: how many
 * flows are found otherwise. */
static int pass_flows(struct comm *inner, void *arg)
{
	struct comm *comm = open_shaped(inner);
	struct flow flow[4] = {0};
	int count = 0, rank = inner->rank, status;
	atomic_int *wrong = arg;

	for (int peer = rank - 1; peer <= rank + 1; peer += 2)
		for (int sends = 0; sends < 2 && peer >= 0 && peer < inner->size; sends++)
			flow[count++] = (struct flow){.peer = peer, .sends = sends, .bytes_s = 2 * BYTES_S};
	status = flows_measure(comm, flow, count, 0.1);
	for (int i = 0; i < count; i++) {
		double rate = rank == 1 && flow[i].peer == 0 ? BYTES_S / 4 : BYTES_S;

		if (flow[i].sends)
			continue;
		if (within(flow[i].reached_bytes_s, 0.7 * rate, 1.3 * rate))
			continue;
		printf("rank %d found %g bytes/s, not %g\n", rank, flow[i].reached_bytes_s, rate);
		++*wrong;
	}
	comm_close(comm);
	return status;
}

START_TEST(all_flows_of_a_chain_at_once)
{
	atomic_int wrong = 1;

	for (int try = 0; try < TRIES && wrong > 0; try++) {
		wrong = 0;
		ck_assert_int_eq(comm_local_run(4, pass_flows, &wrong), 0);
	}
	ck_assert_int_eq(wrong, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("links");
	TCase *tests = tcase_create("links");

	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, every_pair_is_measured, 0, 2 * RANKS_MOST);
	tcase_add_loop_test(tests, what_links_are_held_to_is_found, 0, 3);
	tcase_add_test(tests, all_flows_of_a_chain_at_once);
	suite_add_tcase(suite, tests);
	return run_suite(suite);
}
