/*
 * tests/check_delays.c - when emulated links let messages go, exactly. A message reserves its link where it is sent, so all
 * that will become of it can be read at once: no time of this machine is judged. check_shaped.c shows that messages keep to
 * it, as far as that can be told on a machine that others use too.
 *
 * links: comm
 */
#include "comm/shaped.c"
#include "tests/suite.h"

enum { RANKS = 3, MESSAGES = 12, BYTES = 1000 };
#define LONG_S 10.0		/* on a link: longer than anything comes between two sends */
#define CLOSE_S 1e-6

/* What the ranks send, by turns to two others (-1: nothing), and what became of it. */
struct sending {
	struct shape shape[RANKS * RANKS];
	int to[RANKS][2];
	double opened[RANKS], before[RANKS], after[RANKS];
	double left[RANKS][MESSAGES], due[RANKS][MESSAGES];
};

static struct sending nothing_sent(void)
{
	struct sending s = {.to = {{-1, -1}, {-1, -1}, {-1, -1}}};

	for (int i = 0; i < RANKS * RANKS; i++)
		s.shape[i] = (struct shape){BYTES / LONG_S, 0, -1, -1, NULL};
	return s;
}

/* Sends it all; nobody receives. */
static int send_all(struct comm *inner, void *arg)
{
	struct sending *s = arg;
	struct comm *comm = comm_shaped_open(inner, s->shape, RANKS);
	int rank = inner->rank;
	struct comm_request request[MESSAGES] = {{0}};	/* under way for good */
	struct shaped *shaped;
	char data[BYTES] = {0};

	if (!comm || comm_barrier(inner) < 0)
		return 1;
	shaped = comm->state;
	s->opened[rank] = shaped->opened;
	s->before[rank] = clock_s();
	for (int i = 0; i < MESSAGES && s->to[rank][i % 2] >= 0; i++) {
		struct node *node;

		if (comm_send(comm, s->to[rank][i % 2], 1, data, BYTES, &request[i]) < 0)
			return 1;
		node = request[i].state;
		s->left[rank][i] = node->left;
		s->due[rank][i] = node->due;
	}
	s->after[rank] = clock_s();
	shaped->broken = true;	/* or closing would wait for them all */
	comm_close(comm);
	return 0;
}

static void run(struct sending *s)
{
	ck_assert_int_eq(comm_local_run(RANKS, send_all, s), 0);
}

static void same(double got, double want)
{
	ck_assert_double_eq_tol(got, want, CLOSE_S);
}

/* One after the other from when the first was sent, each for so long. */
static void in_a_row(const struct sending *s, int rank, double long_s)
{
	ck_assert_double_ge(s->left[rank][0], s->before[rank] + long_s - CLOSE_S);
	ck_assert_double_le(s->left[rank][0], s->after[rank] + long_s + CLOSE_S);
	for (int i = 1; i < MESSAGES; i++)
		same(s->left[rank][i], s->left[rank][i - 1] + long_s);
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* The same of what two ranks sent, in whatever order. */
static void in_a_row_together(const struct sending *s, int first, int second)
{
	double left[2 * MESSAGES];

	for (int i = 0; i < MESSAGES; i++) {
		left[i] = s->left[first][i];
		left[MESSAGES + i] = s->left[second][i];
	}
	qsort(left, 2 * MESSAGES, sizeof *left, ascending);
	for (int i = 1; i < 2 * MESSAGES; i++)
		same(left[i], left[i - 1] + LONG_S);
}

/* Directions have rates and latencies of their own. */
START_TEST(rates_and_latencies)
{
	struct sending s = nothing_sent();

	s.to[0][0] = s.to[0][1] = 1;
	s.to[1][0] = s.to[1][1] = 0;
	s.shape[1].latency_s = 3;
	s.shape[RANKS].bandwidth_bytes_s *= 2;
	run(&s);
	in_a_row(&s, 0, LONG_S);
	in_a_row(&s, 1, LONG_S / 2);
	for (int i = 0; i < MESSAGES; i++) {
		same(s.due[0][i], s.left[0][i] + 3);
		same(s.due[1][i], s.left[1][i]);
	}
}
END_TEST

START_TEST(links_of_a_rank_are_independent)
{
	struct sending s = nothing_sent();

	s.to[0][0] = 1;
	s.to[0][1] = 2;
	run(&s);
	for (int i = 2; i < MESSAGES; i++)
		same(s.left[0][i], s.left[0][i - 2] + LONG_S);
	ck_assert_double_le(s.left[0][1], s.after[0] + LONG_S + CLOSE_S);
}
END_TEST

START_TEST(outgoing_interface_is_shared)
{
	struct sending s = nothing_sent();

	s.to[0][0] = 1;
	s.to[0][1] = 2;
	s.shape[1].nic_out = s.shape[2].nic_out = 2;
	run(&s);
	in_a_row(&s, 0, LONG_S);
}
END_TEST

/* Ranks 0 and 1 send to rank 2. */
START_TEST(incoming_interface_is_shared)
{
	struct sending s = nothing_sent();

	s.to[0][0] = s.to[0][1] = s.to[1][0] = s.to[1][1] = 2;
	s.shape[2].nic_in = s.shape[RANKS + 2].nic_in = 0;
	run(&s);
	in_a_row_together(&s, 0, 1);
	/* the way out of the one is the way in of the other */
	s.shape[2] = (struct shape){BYTES / LONG_S, 0, 1, -1, NULL};
	s.shape[RANKS + 2].nic_in = 1;
	run(&s);
	in_a_row_together(&s, 0, 1);
}
END_TEST

START_TEST(other_interface_is_free)
{
	struct sending s = nothing_sent();

	s.to[0][0] = s.to[0][1] = s.to[1][0] = s.to[1][1] = 2;
	s.shape[2].nic_in = 0;
	s.shape[RANKS + 2].nic_in = 1;
	run(&s);
	in_a_row(&s, 0, LONG_S);
	in_a_row(&s, 1, LONG_S);
}
END_TEST

/* From where the trace was when the transport opened; check_shaped.c has link_trace_end by hand. */
START_TEST(trace_is_followed)
{
	double rates[] = {BYTES / 40.0, BYTES / 40.0 * 3};
	const struct link_trace trace = {2, rates};
	struct sending s = nothing_sent();

	s.to[0][0] = s.to[0][1] = 1;
	s.shape[1].trace = &trace;
	run(&s);
	for (int i = 1; i < MESSAGES; i++) {
		double start = s.left[0][i - 1] - s.opened[0];

		same(s.left[0][i] - s.opened[0], link_trace_end(&trace, start, BYTES));
		same(s.left[0][i], s.left[0][i - 1] + 20);	/* whole rounds of a tenth each */
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("delays");
	TCase *tcase = tcase_create("delays");

	tcase_add_test(tcase, rates_and_latencies);
	tcase_add_test(tcase, links_of_a_rank_are_independent);
	tcase_add_test(tcase, outgoing_interface_is_shared);
	tcase_add_test(tcase, incoming_interface_is_shared);
	tcase_add_test(tcase, other_interface_is_free);
	tcase_add_test(tcase, trace_is_followed);
	suite_add_tcase(suite, tcase);
	return run_suite(suite);
}
