/*
 * check_schedule.c - schedules: their sentences, their proof for every size in use, and what
 * the proof refuses.
 *
 * links: pipeline
 *
 * The proof is itself tested in two ways: a second, simpler count of what is in flight agrees
 * with it, and every single damage to a right schedule (an op left out, doubled, of another
 * kind, of another micro-batch) is refused.
 */
#include <stdlib.h>
#include <string.h>

#include "pipeline/pipeline.h"
#include "tests/suite.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
enum { STAGES_MOST = 16, MICRO_MOST = 64 };

/* A sanitizer makes everything about ten times slower: fewer sizes then. */
#if defined(__SANITIZE_ADDRESS__)
#define SLOW 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOW 1
#endif
#endif
#ifdef SLOW
enum { MICRO_STRIDE = 9 };
#else
enum { MICRO_STRIDE = 1 };
#endif

/* -- costs --------------------------------------------------------------------------------- */

struct pipe {
	struct costs costs;
	double s[6][STAGES_MOST];
	int room_most[STAGES_MOST];
};

/* What eager is asked with. */
static const struct pattern {
	const char *name;
	double forward_s, backward_s, link_s, latency_s;
	double spread;		/* each number is multiplied by 1 - spread to 1 + spread */
	int room_most;		/* of the first stage; fewer and fewer after it, then more */
	bool greedy;
} patterns[] = {
	{"no links", 1, 1, 0, 0, 0, 0, false},
	{"no links", 1, 1, 0, 0, 0, 0, true},
	{"short links", 1, 1.14, 0.4, 0.05, 0, 0, false},
	{"short links", 1, 1.14, 0.4, 0.05, 0, 0, true},
	{"long links", 1, 1, 3, 0.5, 0, 0, false},
	{"long links", 1, 1, 3, 0.5, 0, 0, true},
	{"far links", 0.5, 0.5, 0.1, 40, 0, 0, false},
	{"far links", 0.5, 0.5, 0.1, 40, 0, 0, true},
	{"mixed", 0.5, 0.6, 0.6, 0.3, 0.9, 0, false},
	{"mixed", 0.5, 0.6, 0.6, 0.3, 0.9, 0, true},
	{"little memory", 0.5, 0.6, 0.6, 0.3, 0.9, 5, false},
	{"little memory", 0.5, 0.6, 0.6, 0.3, 0.9, 5, true},
	{"no memory", 1, 1, 1, 1, 0.5, 1, false},
	{"no memory", 1, 1, 1, 1, 0.5, 1, true},
	{"no backward", 1, 0, 0.5, 0.1, 0.5, 0, false},
	{"no backward", 1, 0, 0.5, 0.1, 0.5, 0, true},
	{"nothing costs", 0, 0, 0, 0, 0, 0, false},
	{"nothing costs", 0, 0, 0, 0, 0, 0, true},
};

static void point(struct pipe *pipe, int stages)
{
	pipe->costs = (struct costs){
		.stages = stages, .forward_s = pipe->s[0], .backward_s = pipe->s[1],
		.link_forward_s = pipe->s[2], .link_backward_s = pipe->s[3],
		.latency_forward_s = pipe->s[4], .latency_backward_s = pipe->s[5],
	};
}

static void fill_pipe(struct pipe *pipe, const struct pattern *pattern, int stages)
{
	const double middle[6] = {pattern->forward_s, pattern->backward_s, pattern->link_s,
				  pattern->link_s, pattern->latency_s, pattern->latency_s};

	for (int i = 0; i < stages; i++) {
		struct philox at = {{(uint32_t)i, (uint32_t)stages, 0, 0}};
		struct philox x = philox(at, 1, 0), y = philox(at, 2, 0);

		for (int k = 0; k < 6; k++) {
			uint32_t word = k < 4 ? x.word[k] : y.word[k - 4];

			pipe->s[k][i] = middle[k] * (1 + pattern->spread *
						     (2 * (double)philox_unit(word) - 1));
		}
		pipe->room_most[i] = pattern->room_most - i;
		if (pipe->room_most[i] < 1)
			pipe->room_most[i] =
				pattern->room_most ? i % pattern->room_most + 1 : 99;
	}
	point(pipe, stages);
}

static struct schedule *plain(struct arena *arena, const char *name, int stages,
			      int micro_batches)
{
	struct schedule_want want = {.name = name, .stages = stages,
				     .micro_batches = micro_batches};

	return schedule_make(arena, &want);
}

/* -- generators ---------------------------------------------------------------------------- */

static const char *const generated[] = {"eager", "1f1b", "gpipe", "forward"};

static const struct sentence {
	const char *name;
	int stages, micro_batches, stage;
	const char *text;
} sentences[] = {
	{"1f1b", 4, 4, 3, "F0 B0 F1 B1 F2 B2 F3 B3"},
	{"1f1b", 4, 4, 2, "F0 F1 B0 F2 B1 F3 B2 B3"},
	{"1f1b", 4, 4, 1, "F0 F1 F2 B0 F3 B1 B2 B3"},
	{"1f1b", 4, 4, 0, "F0 F1 F2 F3 B0 B1 B2 B3"},
	{"1f1b", 4, 2, 0, "F0 F1 B0 B1"},	/* fewer micro-batches than stages */
	{"1f1b", 4, 2, 3, "F0 B0 F1 B1"},
	{"1f1b", 2, 4, 0, "F0 F1 B0 F2 B1 F3 B2 B3"},
	{"1f1b", 1, 3, 0, "F0 B0 F1 B1 F2 B2"},
	/* Without costs: 2 (stages - stage) - 1 in flight. */
	{"eager", 3, 6, 2, "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5"},
	{"eager", 3, 6, 1, "F0 F1 F2 B0 F3 B1 F4 B2 F5 B3 B4 B5"},
	{"eager", 3, 6, 0, "F0 F1 F2 F3 F4 B0 F5 B1 B2 B3 B4 B5"},
	{"eager", 3, 4, 0, "F0 F1 F2 F3 B0 B1 B2 B3"},
	{"eager", 1, 2, 0, "F0 B0 F1 B1"},
	{"gpipe", 4, 4, 0, "F0 F1 F2 F3 B0 B1 B2 B3"},
	{"gpipe", 4, 4, 3, "F0 F1 F2 F3 B0 B1 B2 B3"},
	{"gpipe", 1, 1, 0, "F0 B0"},
	{"forward", 3, 3, 1, "F0 F1 F2"},
};

START_TEST(sentence)
{
	const struct sentence *s = &sentences[_i];
	struct arena arena = {0};
	struct text text = {0};

	schedule_write(plain(&arena, s->name, s->stages, s->micro_batches), s->stage, &text);
	ck_assert_str_eq(text.data, s->text);
	text_release(&text);
	arena_release(&arena);
}
END_TEST

/* One for each kind of op: r, s for forward transfers, R, S for backward ones. */
static const char letters[] = "rFsRBSU";

/* All the ops of a stage. */
static void spell(const struct schedule *schedule, int stage, struct text *text)
{
	for (int i = 0; i < schedule->count[stage]; i++) {
		struct op op = schedule->op[stage][i];

		text_add(text, "%s%c%d", i ? " " : "", letters[op.kind], op.micro);
	}
}

static const struct sentence spelled[] = {
	/* Room 3, 2, 1; edge buffers 3, 3, 2. */
	{"1f1b", 3, 3, 0, "F0 s0 R0 F1 s1 R1 F2 s2 R2 B0 B1 B2 U0"},
	{"1f1b", 3, 3, 1, "r0 r1 r2 F0 s0 R0 F1 s1 R1 B0 S0 F2 s2 R2 B1 S1 B2 S2 U0"},
	{"1f1b", 3, 3, 2, "r0 r1 F0 B0 S0 r2 F1 B1 S1 F2 B2 S2 U0"},
	{"gpipe", 2, 2, 0, "F0 s0 R0 F1 s1 R1 B0 B1 U0"},
	{"1f1b", 1, 2, 0, "F0 B0 F1 B1 U0"},
	/* Room 3, 1; edge buffers 3, 3. */
	{"eager", 2, 4, 1, "r0 r1 r2 F0 B0 S0 r3 F1 B1 S1 F2 B2 S2 F3 B3 S3 U0"},
	{"forward", 3, 5, 0, "F0 s0 F1 s1 F2 s2 F3 s3 F4 s4"},
	{"forward", 3, 5, 1, "r0 r1 r2 F0 s0 r3 F1 s1 r4 F2 s2 F3 s3 F4 s4"},
	{"forward", 3, 5, 2, "r0 r1 r2 F0 r3 F1 r4 F2 F3 F4"},
	{"forward", 2, 2, 1, "r0 r1 F0 F1"},
};

START_TEST(ops_spelled)
{
	const struct sentence *s = &spelled[_i];
	struct arena arena = {0};
	struct text text = {0};

	spell(plain(&arena, s->name, s->stages, s->micro_batches), s->stage, &text);
	ck_assert_str_eq(text.data, s->text);
	text_release(&text);
	arena_release(&arena);
}
END_TEST

/* The ceil rule by hand: K = 1 at the end, before it K + 1 + ceil(round trip / T). */
static const struct rooms {
	double forward_s, backward_s, link_s, latency_s;
	int micro_batches;
	int room_most[4], room[4];
} rooms[] = {
	{1, 1, 0, 0, 64, {99, 99, 99, 99}, {4, 3, 2, 1}},
	{1, 1, 1e-13, 0, 64, {99, 99, 99, 99}, {4, 3, 2, 1}},
	{1, 1, 0.25, 0.5, 64, {99, 99, 99, 99}, {7, 5, 3, 1}},
	{1, 1, 0.5, 0.5, 64, {99, 99, 99, 99}, {7, 5, 3, 1}},	/* 2 / 2 is one */
	{0.1, 0.2, 0.05, 0.1, 64, {99, 99, 99, 99}, {7, 5, 3, 1}},	/* also one */
	{0.1, 0.2, 0.05, 0.1001, 64, {99, 99, 99, 99}, {10, 7, 4, 1}},
	{1, 1, 2.5, 0, 64, {99, 99, 99, 99}, {10, 7, 4, 1}},	/* the link is the longest */
	{1, 1, 0, 1e300, 64, {99, 99, 99, 99}, {64, 64, 64, 1}},
	{0, 0, 0, 1, 9, {99, 99, 99, 99}, {9, 9, 9, 1}},
	{0, 0, 0, 0, 9, {99, 99, 99, 99}, {4, 3, 2, 1}},
	{1, 1, 0.5, 0.5, 5, {99, 99, 99, 99}, {5, 5, 3, 1}},
	{1, 1, 0.5, 0.5, 64, {6, 99, 99, 99}, {6, 5, 3, 1}},
	/* What a later stage has no room for need not be in flight before it, */
	{1, 1, 0.5, 0.5, 64, {99, 99, 2, 99}, {6, 4, 2, 1}},
	/* nor does a stage need more than the one before has. */
	{1, 1, 0.5, 0.5, 64, {2, 99, 99, 99}, {2, 2, 2, 1}},
	{1, 1, 0.5, 0.5, 64, {99, 1, 99, 99}, {3, 1, 1, 1}},
};

START_TEST(rooms_follow_the_rule)
{
	const struct rooms *r = &rooms[_i];
	struct pattern pattern = {"", r->forward_s, r->backward_s, r->link_s, r->latency_s,
				  0, 0, false};
	struct arena arena = {0};
	struct pipe pipe;
	struct schedule_want want = {.name = "eager", .stages = 4,
				     .micro_batches = r->micro_batches, .costs = &pipe.costs,
				     .room_most = r->room_most};
	struct schedule *s;

	fill_pipe(&pipe, &pattern, 4);
	s = schedule_make(&arena, &want);
	for (int i = 0; i < 4; i++)
		ck_assert_msg(s->room[i] == r->room[i], "row %d: room %d of stage %d, not %d",
			      _i, s->room[i], i, r->room[i]);
	arena_release(&arena);
}
END_TEST

static int smaller(int a, int b)
{
	return a < b ? a : b;
}

static int expected_room(const char *name, int stage, int stages, int micro_batches)
{
	if (strcmp(name, "gpipe") == 0)
		return micro_batches;
	if (strcmp(name, "1f1b") == 0)
		return smaller(stages - stage, micro_batches);
	if (strcmp(name, "eager") == 0)
		return smaller(2 * (stages - stage) - 1, micro_batches);
	return 1;
}

/* How far ahead of what leaves its buffers a stage receives, at most: a second count of edges.
 * -1: not as many as there are micro-batches. */
static int received_ahead(const struct schedule *schedule, int stage, bool trains)
{
	bool last = stage == schedule->stages - 1;
	enum op_kind leaves = trains ? OP_SEND_BACKWARD : last ? OP_FORWARD : OP_SEND_FORWARD;
	int received = 0, left = 0, most = 0;

	for (int i = 0; i < schedule->count[stage]; i++) {
		enum op_kind kind = schedule->op[stage][i].kind;

		received += kind == OP_RECV_FORWARD;
		left += kind == leaves;
		if (received - left > most)
			most = received - left;
	}
	return received == schedule->micro_batches ? most : -1;
}

/* The most micro-batches of a stage that are forward but not yet backward; -1: out of order. */
static int in_flight(const struct schedule *schedule, int stage)
{
	int forward = 0, backward = 0, most = 0;

	for (int i = 0; i < schedule->count[stage]; i++) {
		struct op op = schedule->op[stage][i];

		if (op.kind == OP_FORWARD && op.micro != forward++)
			return -1;
		if (op.kind == OP_BACKWARD && op.micro != backward++)
			return -1;
		if (forward - backward > most)
			most = forward - backward;
	}
	return forward == schedule->micro_batches ? most : -1;
}

/* Of every stage; an assertion of Check is slow, so there is one for all of it. */
static void check_counts(const struct schedule *s, bool trains)
{
	int wrong = 0;

	for (int stage = 0; stage < s->stages; stage++) {
		int last = s->count[stage] - 1, before = stage ? s->room[stage - 1] : 0;
		int edge = s->room[stage] > before ? s->room[stage] : before;

		if (trains)
			wrong += in_flight(s, stage) != s->room[stage] ||
				 s->edge[stage] != edge;
		else
			wrong += in_flight(s, stage) != s->micro_batches;
		wrong += stage && received_ahead(s, stage, trains) != s->edge[stage];
		wrong += (s->op[stage][last].kind == OP_UPDATE) != trains;
	}
	ck_assert_msg(!wrong, "%s, %d stages, %d micro-batches: %d counts are wrong", s->name,
		      s->stages, s->micro_batches, wrong);
}

static void proved(const struct schedule *s)
{
	char why[200];

	ck_assert_msg(schedule_check(s, why, sizeof why) == 0,
		      "%s, %d stages, %d micro-batches: %s", s->name, s->stages,
		      s->micro_batches, why);
}

static void check_size(const char *name, int stages, int micro_batches)
{
	struct arena arena = {0};
	struct schedule *s = plain(&arena, name, stages, micro_batches);

	ck_assert_str_eq(s->name, name);
	ck_assert_int_eq(s->stages, stages);
	ck_assert_int_eq(s->micro_batches, micro_batches);
	proved(s);
	check_counts(s, strcmp(name, "forward") != 0);
	for (int stage = 0; stage < stages; stage++)
		ck_assert_int_eq(s->room[stage],
				 expected_room(name, stage, stages, micro_batches));
	arena_release(&arena);
}

START_TEST(every_size_is_proved)
{
	for (int stages = 1; stages <= STAGES_MOST; stages++)
		for (int m = 1; m <= MICRO_MOST; m += MICRO_STRIDE)
			check_size(generated[_i], stages, m);
}
END_TEST

static void check_pattern(const struct pattern *pattern, int stages, int micro_batches)
{
	struct arena arena = {0};
	struct pipe pipe;
	struct schedule_want want = {.name = "eager", .stages = stages,
				     .micro_batches = micro_batches, .costs = &pipe.costs,
				     .room_most = pipe.room_most, .greedy = pattern->greedy};
	struct schedule *s;

	fill_pipe(&pipe, pattern, stages);
	if (!pattern->room_most)
		want.room_most = NULL;
	s = schedule_make(&arena, &want);
	proved(s);
	check_counts(s, true);
	for (int i = 0; i < stages && pattern->room_most; i++)
		ck_assert_int_le(s->room[i], pipe.room_most[i]);
	arena_release(&arena);
}

/* Greedy orders take a simulation each: of their sizes, every third. */
START_TEST(every_size_of_eager_is_proved)
{
	const struct pattern *pattern = &patterns[_i];
	int stride = pattern->greedy ? 3 * MICRO_STRIDE : MICRO_STRIDE;

	for (int stages = 1; stages <= STAGES_MOST; stages++)
		for (int m = 1 + stages % stride; m <= MICRO_MOST; m += stride)
			check_pattern(pattern, stages, m);
}
END_TEST

/*
 * 3 stages, forward and backward 1 each, links of no cost, room 2, 2, 1. At 6 stage 1 has the
 * gradient of 1, and its next input comes at 7:
 *
 *     stage 0   F0 F1 .  .  .  B0 F2 B1 F3 .  .  B2 .  B3	(both orders)
 *     stage 1   .  F0 F1 .  B0 .  B1 F2 .  F3 B2 .  B3		(greedy)
 *     stage 1   .  F0 F1 .  B0 .  .  F2 B1 ...			(strict)
 *     stage 2   .  .  F0 B0 F1 B1 .  .  F2 B2 F3 B3
 */
static const struct { bool greedy; int stage; const char *text; } orders[] = {
	{false, 0, "F0 F1 B0 F2 B1 F3 B2 B3"},
	{false, 1, "F0 F1 B0 F2 B1 F3 B2 B3"},
	{true, 0, "F0 F1 B0 F2 B1 F3 B2 B3"},
	{true, 1, "F0 F1 B0 B1 F2 F3 B2 B3"},
	{true, 2, "F0 B0 F1 B1 F2 B2 F3 B3"},
};

START_TEST(greedy_takes_what_is_there)
{
	struct pattern pattern = {"", 1, 1, 0, 0, 0, 0, false};
	int room_most[3] = {2, 2, 2};
	struct arena arena = {0};
	struct text text = {0};
	struct pipe pipe;
	struct schedule_want want = {.name = "eager", .stages = 3, .micro_batches = 4,
				     .costs = &pipe.costs, .room_most = room_most,
				     .greedy = orders[_i].greedy};

	fill_pipe(&pipe, &pattern, 3);
	schedule_write(schedule_make(&arena, &want), orders[_i].stage, &text);
	ck_assert_str_eq(text.data, orders[_i].text);
	text_release(&text);
	arena_release(&arena);
}
END_TEST

START_TEST(names_are_for_jobs)
{
	const char *const *names = schedule_names();
	const char *const expected[] = {"eager", "1f1b", "gpipe"};
	int count = 0;

	for (; names[count]; count++)
		ck_assert_str_eq(names[count], expected[count]);
	ck_assert_int_eq(count, 3);
}
END_TEST

static void check_error(const struct schedule_want *want, int code, const char *part)
{
	struct arena arena = {0};

	error_hold();
	ck_assert_ptr_null(schedule_make(&arena, want));
	ck_assert_int_eq(error_code(), code);
	ck_assert_msg(strstr(error_text(), part) != NULL, "%s", error_text());
	error_clear();
	arena_release(&arena);
}

START_TEST(wrong_requests_are_errors)
{
	struct pipe pipe;
	const int no_room[] = {3, 0};
	const struct { struct schedule_want want; int code; const char *part; } wrong[] = {
		{{.name = "gpie", .stages = 2, .micro_batches = 2}, EXIT_CONFIG, "gpipe"},
		{{.name = "1f1d", .stages = 2, .micro_batches = 2}, EXIT_CONFIG, "1f1b"},
		{{.name = "eagre", .stages = 2, .micro_batches = 2}, EXIT_CONFIG, "eager"},
		{{.name = "", .stages = 2, .micro_batches = 2}, EXIT_CONFIG, "schedule"},
		{{.name = "1f1b", .stages = 0, .micro_batches = 2}, EXIT_BUG, "0 stages"},
		{{.name = "1f1b", .stages = 2, .micro_batches = 0}, EXIT_BUG, "0 micro"},
		{{.name = "gpipe", .stages = -1, .micro_batches = 2}, EXIT_BUG, "-1 stages"},
		{{.name = "eager", .stages = 2, .micro_batches = 2, .greedy = true},
		 EXIT_BUG, "without costs"},
		{{.name = "eager", .stages = 3, .micro_batches = 2, .costs = &pipe.costs},
		 EXIT_BUG, "costs of 2 stages"},
		{{.name = "eager", .stages = 2, .micro_batches = 2, .room_most = no_room},
		 EXIT_BUG, "stage 1"},
	};

	fill_pipe(&pipe, &patterns[0], 2);
	for (int i = 0; i < COUNT(wrong); i++)
		check_error(&wrong[i].want, wrong[i].code, wrong[i].part);
}
END_TEST

/* -- from rank 0 to all -------------------------------------------------------------------- */

static void check_equal(const struct schedule *a, const struct schedule *b)
{
	ck_assert_str_eq(a->name, b->name);
	ck_assert_int_eq(a->stages, b->stages);
	ck_assert_int_eq(a->micro_batches, b->micro_batches);
	for (int i = 0; i < a->stages; i++) {
		ck_assert_int_eq(a->count[i], b->count[i]);
		ck_assert_int_eq(a->room[i], b->room[i]);
		ck_assert_int_eq(a->edge[i], b->edge[i]);
		ck_assert_mem_eq(a->op[i], b->op[i], (size_t)a->count[i] * sizeof(struct op));
	}
}

/* What rank 0 has; the others start with another one, or none. */
static int share(struct comm *comm, void *arg)
{
	const struct schedule *rank_0 = arg;
	struct arena arena = {0};
	const struct schedule *other = comm->rank == 1 ? plain(&arena, "gpipe", 2, 3) : NULL;
	const struct schedule *s =
		schedule_share(&arena, comm, comm->rank == 0 ? rank_0 : other);

	ck_assert((s != NULL) == (rank_0 != NULL));
	if (s)
		check_equal(s, rank_0);
	arena_release(&arena);
	return 0;
}

START_TEST(shared_is_what_rank_0_has)
{
	struct arena arena = {0};
	struct pipe pipe;
	struct schedule_want want = {.name = "eager", .stages = 5, .micro_batches = 12,
				     .costs = &pipe.costs, .greedy = true};

	fill_pipe(&pipe, &patterns[8], 5);
	ck_assert_int_eq(comm_local_run(3, share, schedule_make(&arena, &want)), 0);
	for (int i = 0; i < COUNT(generated); i++)
		ck_assert_int_eq(comm_local_run(3, share,
						plain(&arena, generated[i], 3, 4)), 0);
	ck_assert_int_eq(comm_local_run(3, share, NULL), 0);
	arena_release(&arena);
}
END_TEST

/* The proof is asked on every rank: what cannot run is not taken. */
static int share_broken(struct comm *comm, void *arg)
{
	struct arena arena = {0};
	int code;

	error_hold();
	ck_assert_ptr_null(schedule_share(&arena, comm, comm->rank == 0 ? arg : NULL));
	code = error_code();
	error_clear();
	arena_release(&arena);
	return code == EXIT_BUG ? 0 : 1;
}

START_TEST(broken_is_not_taken)
{
	struct arena arena = {0};
	struct schedule *s = plain(&arena, "1f1b", 2, 2);

	s->count[1]--;
	ck_assert_int_eq(comm_local_run(2, share_broken, s), 0);
	s->count[1]++;
	s->room[0] = 0;
	ck_assert_int_eq(comm_local_run(2, share_broken, s), 0);
	arena_release(&arena);
}
END_TEST

/* -- the proof ----------------------------------------------------------------------------- */

/* A schedule written out by hand, in the letters of spell(); the arena owns it. */
static struct schedule *written(struct arena *arena, int stages, int micro_batches, int room,
				int edge, const char *const *text)
{
	struct schedule *s = arena_take(arena, sizeof *s);

	s->name = "written";
	s->stages = stages;
	s->micro_batches = micro_batches;
	s->op = arena_take(arena, (size_t)stages * sizeof *s->op);
	s->count = arena_take(arena, (size_t)stages * sizeof *s->count);
	s->room = arena_take(arena, (size_t)stages * sizeof *s->room);
	s->edge = arena_take(arena, (size_t)stages * sizeof *s->edge);
	for (int stage = 0; stage < stages; stage++) {
		const char *at = text[stage];

		s->room[stage] = room;
		s->edge[stage] = edge;
		s->op[stage] = arena_take(arena, (strlen(at) + 1) * sizeof(struct op));
		for (; *at; at += strspn(at, "0123456789 ")) {
			struct op *op = &s->op[stage][s->count[stage]++];

			op->kind = (enum op_kind)(strchr(letters, *at) - letters);
			op->micro = (int)strtol(++at, NULL, 10);
		}
	}
	return s;
}

static const struct verdict {
	int stages, micro_batches, room, edge;
	const char *text[3];
	const char *reason;	/* a part of it; null: the schedule is right */
} verdicts[] = {
	/* GPipe before 1F1B: gradients wait at stage 1 until stage 0 has posted receives for
	 * them. Sends do not block, so that is right. */
	{2, 3, 3, 3, {"F0 s0 F1 s1 F2 s2 R0 B0 R1 B1 R2 B2 U0",
		      "r0 r1 r2 F0 B0 S0 F1 B1 S1 F2 B2 S2 U0"}, NULL},
	{2, 3, 3, 3, {"F0 s0 F1 s1 F2 s2 R0 B0 R1 B1 R2 B2 U0",
		      "r0 F0 B0 S0 r1 F1 B1 S1 r2 F2 B2 S2 U0"}, NULL},
	/* One buffer of everything will do. */
	{2, 2, 1, 1, {"F0 s0 R0 B0 F1 s1 R1 B1 U0", "r0 F0 B0 S0 r1 F1 B1 S1 U0"}, NULL},
	{3, 2, 1, 1, {"F0 s0 R0 B0 F1 s1 R1 B1 U0", "r0 F0 s0 R0 B0 S0 r1 F1 s1 R1 B1 S1 U0",
		      "r0 F0 B0 S0 r1 F1 B1 S1 U0"}, NULL},
	/* Each waits for what the other sends later. */
	{2, 2, 2, 2, {"F0 s0 R0 B0 F1 s1 R1 B1 U0", "r0 F0 r1 F1 B0 S0 B1 S1 U0"}, "deadlock"},
	/* A send that is posted after what waits for its answer. */
	{2, 2, 2, 2, {"F0 s0 R0 F1 B0 s1 R1 B1 U0", "r0 r1 F0 F1 B0 S0 B1 S1 U0"}, "deadlock"},
	/* A receive further ahead than there are buffers; early is right where one is free. */
	{2, 2, 1, 1, {"F0 s0 R0 B0 F1 s1 R1 B1 U0", "r0 r1 F0 B0 S0 F1 B1 S1 U0"},
	 "before its edge buffer"},
	{2, 2, 1, 2, {"F0 s0 R0 B0 F1 s1 R1 B1 U0", "r0 r1 F0 B0 S0 F1 B1 S1 U0"}, NULL},
	{2, 2, 1, 1, {"F0 s0 R0 B0 F1 s1 R1 B1 U0", "r0 F0 B0 r1 S0 F1 B1 S1 U0"},
	 "before its edge buffer"},
	/* Sizes. */
	{1, 1, 0, 1, {"F0 B0 U0"}, "no room"},
	{1, 2, 2, 1, {"F0 F1 B0 B1 U0"}, "fewer edge buffers"},
	/* More in flight than there is room for, without any transfer. */
	{1, 2, 2, 2, {"F0 F1 B0 B1 U0"}, NULL},
	{1, 2, 1, 2, {"F0 F1 B0 B1 U0"}, "room"},
	/* Backwards out of order: law 9. */
	{1, 2, 2, 2, {"F0 F1 B1 B0 U0"}, "order"},
	{1, 2, 2, 2, {"F1 F0 B0 B1 U0"}, "order"},
	{1, 1, 1, 1, {"B0 F0 U0"}, "forward"},
	{1, 2, 2, 2, {"F0 F1 B0 U0 B1"}, "missing"},
	/* Nothing is run after the update. */
	{1, 1, 1, 1, {"F0 B0 U0 U0"}, "after the update"},
	{2, 1, 1, 1, {"F0 s0 R0 B0 U0", "r0 F0 B0 U0 S0"}, "after the update"},
	/* A gradient comes into the buffer that the output leaves from. */
	{2, 1, 1, 1, {"F0 R0 s0 B0 U0", "r0 F0 B0 S0 U0"}, "has not been sent"},
	/* Each op after what it needs. */
	{2, 1, 1, 1, {"s0 F0 R0 B0 U0", "r0 F0 B0 S0 U0"}, "not been computed"},
	{2, 1, 1, 1, {"F0 s0 R0 B0 U0", "r0 F0 S0 B0 U0"}, "not been computed"},
	{2, 1, 1, 1, {"F0 s0 R0 B0 U0", "F0 r0 B0 S0 U0"}, "input has no receive"},
	{2, 1, 1, 1, {"F0 s0 B0 R0 U0", "r0 F0 B0 S0 U0"}, "gradient has no receive"},
	{1, 1, 2, 2, {"F0 F1 B0 B1 U0"}, "no such micro-batch"},
	{1, 1, 1, 1, {"F0 B0 U1"}, "no such micro-batch"},
	/* Ends of the pipeline. */
	{1, 1, 1, 1, {"r0 F0 B0 U0"}, "receive from"},
	{1, 1, 1, 1, {"F0 s0 B0 U0"}, "send to"},
	{1, 1, 1, 1, {"F0 R0 B0 U0"}, "receive from"},
	{1, 1, 1, 1, {"F0 B0 S0 U0"}, "send to"},
	/* A cut that nobody crosses. */
	{2, 1, 1, 1, {"F0 B0 U0", "F0 B0 U0"}, "no receive"},
	/* Only some stages train. */
	{2, 1, 1, 1, {"F0 s0 R0 B0 U0", "r0 F0"}, "stage 0, op 3"},
	{2, 1, 1, 1, {"F0 s0 R0", "r0 F0 B0 S0 U0"}, "never goes backward"},
	/* Forward alone: the output leaves before its buffer is taken again. */
	{2, 2, 1, 1, {"F0 s0 F1 s1", "r0 F0 r1 F1"}, NULL},
	{3, 2, 2, 2, {"F0 s0 F1 s1", "r0 F0 r1 s0 F1 s1", "r0 F0 r1 F1"}, NULL},
	{2, 2, 1, 2, {"F0 F1 s0 s1", "r0 F0 r1 F1"}, NULL},
	{2, 2, 1, 1, {"F0 F1 s0 s1", "r0 F0 r1 F1"}, "buffer is still in use"},
	{3, 2, 1, 1, {"F0 s0 F1 s1", "r0 F0 r1 s0 F1 s1", "r0 F0 r1 F1"},
	 "stage 1, op 2"},
	{2, 2, 1, 1, {"F0 s0 F1 s1", "r0 r1 F0 F1"}, "before its edge buffer"},
	{2, 2, 1, 1, {"F0 s0 F1 s1", "r0 F0 r1"}, "never goes forward"},
	{1, 1, 1, 1, {"F0 B0"}, "no update"},
	{1, 1, 1, 1, {"F0 U0"}, "gradients are missing"},
	{1, 1, 1, 1, {""}, "never goes forward"},
};

START_TEST(verdict)
{
	const struct verdict *v = &verdicts[_i];
	struct arena arena = {0};
	struct schedule *s = written(&arena, v->stages, v->micro_batches, v->room, v->edge,
				     v->text);
	char why[200] = "?";
	int rc = schedule_check(s, why, sizeof why);

	if (v->reason) {
		ck_assert_int_eq(rc, -1);
		ck_assert_msg(strstr(why, v->reason) != NULL, "verdict %d: %s", _i, why);
	} else {
		ck_assert_msg(rc == 0, "verdict %d: %s", _i, why);
	}
	arena_release(&arena);
}
END_TEST

/* -- every single damage ------------------------------------------------------------------- */

enum { DAMAGE_STAGES = 3, DAMAGE_MICRO = 4 };

static void refused(const struct schedule *s, const char *damage, int stage, int at)
{
	char why[200] = "";

	ck_assert_msg(schedule_check(s, why, sizeof why) == -1,
		      "%s: %s of stage %d, op %d is accepted", s->name, damage, stage, at);
	ck_assert_str_ne(why, "");
}

static void damage_op(struct schedule *s, int stage, int at)
{
	struct op *op = &s->op[stage][at], right = *op;

	for (int kind = OP_RECV_FORWARD; kind <= OP_UPDATE + 1; kind++) {
		op->kind = (enum op_kind)kind;
		if (op->kind != right.kind)
			refused(s, "another kind", stage, at);
	}
	*op = right;
	for (int micro = -1; micro <= DAMAGE_MICRO; micro++) {
		op->micro = micro;
		if (micro != right.micro)
			refused(s, "another micro-batch", stage, at);
	}
	*op = right;
}

static void damage_order(struct schedule *s, int stage, int at)
{
	struct op *ops = s->op[stage], right = ops[at];
	size_t after = (size_t)(s->count[stage] - at - 1) * sizeof *ops;

	memmove(&ops[at], &ops[at + 1], after);
	s->count[stage]--;
	refused(s, "leaving out", stage, at);
	memmove(&ops[at + 1], &ops[at], after);
	ops[at] = right;
	memmove(&ops[at + 2], &ops[at + 1], after);
	ops[at + 1] = right;
	s->count[stage] += 2;
	refused(s, "doubling", stage, at);
	memmove(&ops[at + 1], &ops[at + 2], after);
	s->count[stage]--;
}

START_TEST(damage_is_refused)
{
	struct arena arena = {0};
	struct schedule *s = plain(&arena, generated[_i], DAMAGE_STAGES, DAMAGE_MICRO);

	for (int stage = 0; stage < s->stages; stage++) {
		size_t bytes = (size_t)s->count[stage] * sizeof(struct op);
		struct op *wide = arena_take(&arena, bytes + sizeof(struct op));

		memcpy(wide, s->op[stage], bytes);
		s->op[stage] = wide;
		for (int at = 0; at < s->count[stage]; at++) {
			damage_op(s, stage, at);
			damage_order(s, stage, at);
		}
		s->room[stage]--;
		refused(s, "less room", stage, 0);
		s->room[stage]++;
		/* The first stage receives nothing: forwards alone wait for any number of
		 * buffers. */
		s->edge[stage]--;
		if (stage > 0 || s->edge[stage] < s->room[stage])
			refused(s, "fewer edge buffers", stage, 0);
		s->edge[stage]++;
	}
	proved(s);
	arena_release(&arena);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("schedule");
	TCase *tcase = tcase_create("schedule");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, sentence, 0, COUNT(sentences));
	tcase_add_loop_test(tcase, ops_spelled, 0, COUNT(spelled));
	tcase_add_loop_test(tcase, every_size_is_proved, 0, COUNT(generated));
	tcase_add_loop_test(tcase, every_size_of_eager_is_proved, 0, COUNT(patterns));
	tcase_add_loop_test(tcase, rooms_follow_the_rule, 0, COUNT(rooms));
	tcase_add_loop_test(tcase, greedy_takes_what_is_there, 0, COUNT(orders));
	tcase_add_test(tcase, names_are_for_jobs);
	tcase_add_test(tcase, wrong_requests_are_errors);
	tcase_add_test(tcase, shared_is_what_rank_0_has);
	tcase_add_test(tcase, broken_is_not_taken);
	tcase_add_loop_test(tcase, verdict, 0, COUNT(verdicts));
	tcase_add_loop_test(tcase, damage_is_refused, 0, COUNT(generated));
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return run_suite(suite());
}
