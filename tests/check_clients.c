/*
 * check_clients.c - steps with clients in front of the servers, by hand and against the simulator of chains.
 *
 * links: pipeline
 */
#include <check.h>

#include "pipeline/pipeline.h"
#include "tests/suite.h"

enum { STAGES = 6 };

/* A chain of random costs, with what it points to. */
struct pipe {
	double value[6][STAGES];
	int nic[2][STAGES][2];
	struct costs costs;
};

static double draw(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return (*seed >> 8) * 0x1p-24;
}

static void fill(struct pipe *pipe, int stages, uint32_t seed)
{
	bool shared = draw(&seed) < 0.3;

	for (int i = 0; i < 6; i++)
		for (int s = 0; s < STAGES; s++)
			pipe->value[i][s] = draw(&seed) * (i < 2 ? 1 : i < 4 ? 0.8 : 0.3);
	for (int i = 0; i < 2; i++)
		for (int s = 0; s < STAGES; s++)
			for (int k = 0; k < 2; k++)
				pipe->nic[i][s][k] = k;
	pipe->costs = (struct costs){stages, pipe->value[0], pipe->value[1], NULL, pipe->value[2], pipe->value[3],
				     pipe->value[4], pipe->value[5], NULL, NULL, 2, 0, 0};
	if (!shared)
		return;
	pipe->costs.nic_forward = (const int (*)[2])pipe->nic[0];
	pipe->costs.nic_backward = (const int (*)[2])pipe->nic[1];
}

/* Without clients it is the simulator: all schedules, strict and greedy. */
START_TEST(nobody_in_front_is_a_chain)
{
	const struct clients none = {0};

	for (uint32_t seed = 1; seed <= 400; seed++) {
		const char *name = schedule_names()[seed % 3];
		int stages = 1 + (int)(seed % STAGES), micro_batches = 1 + (int)(seed % 13);
		bool greedy = seed % 3 == 0 && seed % 2;
		struct arena arena = {0};
		struct schedule *schedule;
		struct pipe pipe;

		fill(&pipe, stages, seed);
		schedule = schedule_make(&arena, &(struct schedule_want){name, stages, micro_batches, &pipe.costs, NULL,
									 greedy});
		ck_assert_ptr_nonnull(schedule);
		ck_assert_double_eq_tol(simulate_clients(&pipe.costs, &none, micro_batches, schedule->room, greedy),
					simulate(&arena, schedule, &pipe.costs)->step_s, 1e-9);
		arena_release(&arena);
	}
}
END_TEST

/* One client is one more stage in front. */
START_TEST(one_client_is_a_stage)
{
	for (uint32_t seed = 1; seed <= 200; seed++) {
		int stages = 2 + (int)(seed % (STAGES - 1)), micro_batches = 1 + (int)(seed % 11), room[STAGES];
		const struct clients none = {0};
		struct clients one;
		struct costs behind;
		struct pipe pipe;

		fill(&pipe, stages, seed);
		behind = (struct costs){stages - 1, pipe.costs.forward_s + 1, pipe.costs.backward_s + 1, NULL,
					pipe.costs.link_forward_s + 1, pipe.costs.link_backward_s + 1,
					pipe.costs.latency_forward_s + 1, pipe.costs.latency_backward_s + 1, NULL, NULL, 2, 0, 0};
		one = (struct clients){1, pipe.costs.forward_s, pipe.costs.backward_s, pipe.costs.link_forward_s,
				       pipe.costs.link_backward_s, pipe.costs.latency_forward_s,
				       pipe.costs.latency_backward_s, NULL, NULL};
		if (pipe.costs.nic_forward) {
			behind.nic_forward = pipe.costs.nic_forward + 1;
			behind.nic_backward = pipe.costs.nic_backward + 1;
			one.nic_up = pipe.costs.nic_forward;
			one.nic_down = pipe.costs.nic_backward;
		}
		for (int s = 0; s < stages; s++)
			room[s] = stages - s;
		for (int greedy = 0; greedy < 2; greedy++)
			ck_assert_double_eq_tol(simulate_clients(&behind, &one, micro_batches, room, greedy),
						simulate_clients(&pipe.costs, &none, micro_batches, room, greedy), 1e-9);
	}
}
END_TEST

/*
 * Two clients, one server, two micro-batches, everything 1 s but the server's backward, 2 s, and no latency:
 *
 *     client 0   F0 .. up .. .. .. .. down B0
 *     client 1   F1 .. up ..
 *     server           F0 B0 B0 F1 B1 B1           (backward first)
 *
 * F 0-1, up 1-2, server F0 2-3, B0 3-5, F1 5-6, B1 6-8, down 8-9, client 1's B 9-10. With three clients and one more
 * micro-batch 3 s later; with two clients alone the third's way up waits for nothing.
 */
START_TEST(by_hand)
{
	static const double one[] = {1, 1, 1}, two[] = {2}, none[] = {0, 0, 0};
	const struct costs server = {1, one, two, NULL, none, none, none, none, NULL, NULL, 0, 0, 0};
	const int room[] = {9, 9, 9, 9};
	struct clients clients = {2, one, one, one, one, none, none, NULL, NULL};

	ck_assert_double_eq(simulate_clients(&server, &clients, 2, room, true), 10);
	clients.count = 3;
	ck_assert_double_eq(simulate_clients(&server, &clients, 3, room, true), 13);
	clients.count = 2;
	ck_assert_double_eq(simulate_clients(&server, &clients, 3, room, true), 13);
}
END_TEST

/* A slow client's turn is waited for; its own work alone bounds the step. */
START_TEST(a_slow_client_is_waited_for)
{
	static const double forward[] = {1, 10}, backward[] = {1, 10}, one[] = {1, 1}, none[] = {0, 0};
	const struct costs server = {1, one, one, NULL, none, none, none, none, NULL, NULL, 0, 0, 0};
	const struct clients clients = {2, forward, backward, none, none, none, none, NULL, NULL};
	const int room[] = {9, 9, 9};

	ck_assert_double_eq(simulate_clients(&server, &clients, 2, room, true), 22);
	ck_assert_double_ge(simulate_clients(&server, &clients, 8, room, true), 80);
	ck_assert_double_le(simulate_clients(&server, &clients, 8, room, true), 84);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("clients");
	TCase *tests = tcase_create("clients");

	tcase_add_test(tests, nobody_in_front_is_a_chain);
	tcase_add_test(tests, one_client_is_a_stage);
	tcase_add_test(tests, by_hand);
	tcase_add_test(tests, a_slow_client_is_waited_for);
	suite_add_tcase(suite, tests);
	return run_suite(suite);
}
