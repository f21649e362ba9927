/*
 * tests/check_partition.c - solvers, the size of a micro-batch, memory, what is in flight and what a step is
 * predicted to take, and the plan as a file and as a table. Models are made up; memory is the stage's own
 * arithmetic.
 *
 * links: partition pipeline model profiler comm base
 */
#include "partition/instance.h"
#include "partition/internal.h"
#include "tests/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NODES 8
#define BLOCKS 40

/* A problem with all that it points to. */
struct bench {
	struct problem problem;
	struct cluster cluster;
	struct node node[NODES];
	struct model_config model;
	struct plan_config want;
	const char *layers[NODES];
	int threads[NODES], window[BLOCKS];
	double limit[NODES], overhead[NODES];
};

static const char *const node_names[NODES] = {"a", "b", "c", "d", "e", "f", "g", "h"};
static struct bench bench;
static struct plan plan;

/* A small GPT-2 whose head costs as much as `head` blocks: 4 C V = head (48 C C + 6 T C). */
static void set_model(int blocks, int head)
{
	struct model_config *model = &bench.model;

	*model = (struct model_config){
		.family = family_find("gpt2"), .blocks = blocks, .width = 16, .heads = 2,
		.kv_heads = 2, .head_size = 8, .mlp = 64, .positions = 64, .end_token = -1,
		.tied = true, .qkv_bias = true, .out_bias = true, .mlp_bias = true,
		.window = bench.window, .digest = {0x1234, 0x5678},
	};
	model->vocabulary = head * (12 * model->width + 3 * bench.problem.tokens / 2);
	ck_assert_double_eq(model_head_flops(model), head * model_block_flops(model, 32));
}

static void set_lora(void)
{
	static const char *target[] = {"attention"};
	static const struct lora_config lora = {.rank = 2, .alpha = 4, .targets = {target, 1}};

	bench.problem.lora = lora_resolve(&bench.model, &lora);
	ck_assert_ptr_nonnull(bench.problem.lora);
}

/* Nodes without limits, a batch of 32 sequences, and a head as heavy as two blocks. */
static void set_problem(int nodes, int blocks)
{
	memset(&bench, 0, sizeof bench);
	bench.problem = (struct problem){
		.cluster = &bench.cluster, .model = &bench.model, .want = &bench.want,
		.batch = 32, .tokens = 32, .slowdown = 1, .threads = bench.threads,
		.memory_limit_bytes = bench.limit, .overhead_bytes = bench.overhead,
	};
	bench.cluster.nodes = (struct list){bench.node, nodes};
	bench.want.schedule = "eager";
	bench.want.layers.item = bench.layers;
	for (int i = 0; i < NODES; i++) {
		bench.node[i].name = node_names[i];
		bench.threads[i] = 1 + i % 2;
		bench.overhead[i] = 1000 + i;
	}
	set_model(blocks, 2);
	set_lora();
}

static void tear_down(void)
{
	lora_free((struct lora *)bench.problem.lora);
	memset(&bench, 0, sizeof bench);
	error_clear();
}

/* Numbers of a text as "5 3 1" or "out". */
static void set_layers(const char *text)
{
	static char copy[128];
	char *word, *rest = copy;

	snprintf(copy, sizeof copy, "%s", text);
	while ((word = strsep(&rest, " ")))
		bench.layers[bench.want.layers.count++] = word;
}

static void set_compute(const char *text)
{
	for (int i = 0; *text; i++) {
		char *end;

		bench.node[i].compute_flops = strtod(text, &end) * 1e9;
		text = end;
	}
}

/* "a3 c2 d0": node and blocks of every stage. */
static const char *sentence(const struct plan *made)
{
	static char text[256];
	char *end = text;

	for (int s = 0; s < made->stages; s++)
		end += snprintf(end, (size_t)(text + sizeof text - end), "%s%s%d",
				s ? " " : "", node_names[made->stage[s].node],
				made->stage[s].blocks);
	return text;
}

static void must_hold(void)
{
	char why[256] = "";

	ck_assert_msg(plan_check(&plan, &bench.problem, why, sizeof why) == 0, "%s", why);
}

/* -- solvers ------------------------------------------------------------------------------- */

static const struct {
	const char *solver;
	int nodes, blocks, stages;
	const char *compute, *layers, *expected, *used;
} solved[] = {
	{"uniform", 5, 10, 0, "", NULL, "a2 b2 c2 d2 e2", "uniform"},
	{"uniform", 4, 10, 0, "", NULL, "a3 b3 c2 d2", "uniform"},
	{"uniform", 5, 4, 0, "", NULL, "a1 b1 c1 d1 e0", "uniform"},
	{"uniform", 1, 7, 0, "", NULL, "a7", "uniform"},
	{"uniform", 2, 1, 0, "", NULL, "a1 b0", "uniform"},
	{"uniform", 5, 10, 3, "", NULL, "a4 b3 c3", "uniform"},
	{"uniform", 3, 9, 0, "1 2 7", NULL, "a3 b3 c3", "uniform"},
	/* The example of proportional.c: shares of 7, 4.2 and 0.8 blocks. */
	{"proportional", 3, 12, 0, "5 3 2", NULL, "a7 b4 c1", "proportional"},
	{"proportional", 5, 10, 0, "4 2 3 1 2", NULL, "a4 b2 c3 d1 e0", "proportional"},
	/* Shares of 0.2 and 10 blocks: the slow one holds one nevertheless. */
	{"proportional", 2, 10, 0, "2 118", NULL, "a1 b9", "proportional"},
	/* The last is too slow even for the head: the others share all blocks. */
	{"proportional", 3, 10, 0, "6 4 1", NULL, "a6 b4 c0", "proportional"},
	{"proportional", 4, 3, 0, "1 1 1 100", NULL, "a1 b1 c1 d0", "proportional"},
	{"proportional", 2, 3, 0, "1 1", NULL, "a3 b0", "proportional"}, /* 2.5 and 0.5 */
	{"proportional", 1, 3, 0, "7", NULL, "a3", "proportional"},
	/* plan.stages: the slowest are left out, of equals the later. */
	{"proportional", 4, 10, 2, "6 1 6 2", NULL, "a6 c4", "proportional"},
	{"proportional", 3, 10, 2, "6 6 6", NULL, "a6 b4", "proportional"},
	{"proportional", 4, 10, 0, "", NULL, "a3 b3 c2 d2", "uniform"},
	/* 16 or more micro-batches: a second node is worth its filling, one that is a hundred times slower is not. */
	{"exact", 2, 4, 0, "1 5", NULL, "a1 b3", "exact"},
	{"search", 2, 4, 0, "1 5", NULL, "a1 b3", "search"},
	{"bottleneck", 2, 4, 0, "1 5", NULL, "a1 b3", "bottleneck"},
	{"exact", 2, 4, 0, "5 1", NULL, "b1 a3", "exact"},
	{"exact", 3, 4, 0, "0.01 1 5", NULL, "b1 c3", "exact"},
	{"search", 3, 4, 0, "0.01 1 5", NULL, "b1 c3", "search"},
	{"bottleneck", 3, 4, 0, "0.01 1 5", NULL, "b1 c3", "bottleneck"},
	{"exact", 3, 10, 1, "3 6 2", NULL, "b10", "exact"},
	{"search", 3, 10, 1, "3 6 2", NULL, "b10", "search"},
	{"bottleneck", 3, 10, 1, "3 6 2", NULL, "b10", "bottleneck"},
	{"exact", 1, 3, 0, "7", NULL, "a3", "exact"},
	{NULL, 3, 4, 0, "0.01 1 5", NULL, "b1 c3", "exact"},
	{NULL, 4, 10, 0, "", NULL, "a3 b3 c2 d2", "uniform"},
	{NULL, 3, 10, 0, "5 3 2", "5 out 5", "a5 c5", "manual"},
	{"manual", 4, 10, 0, "", "out 9 1 0", "b9 c1 d0", "manual"},
	{"manual", 3, 10, 2, "1", "4 6 out", "a4 b6", "manual"},
	{"uniform", 2, 10, 0, "", "4 6", "a4 b6", "manual"},
};

START_TEST(solvers_give_the_known_layers)
{
	set_problem(solved[_i].nodes, solved[_i].blocks);
	set_compute(solved[_i].compute);
	bench.want.solver = solved[_i].solver;
	bench.want.stages = solved[_i].stages;
	if (solved[_i].layers)
		set_layers(solved[_i].layers);
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_str_eq(sentence(&plan), solved[_i].expected);
	ck_assert_str_eq(plan.solver, solved[_i].used);
	must_hold();
}
END_TEST

static const struct {
	const char *solver;
	int nodes, blocks, stages;
	const char *compute, *layers, *message;
} refused[] = {
	{"uniform", 6, 4, 0, "", NULL, "set plan.stages to 5"},
	{"proportional", 6, 4, 0, "1 1 1 1 1 1", NULL, "set plan.stages to 5"},
	{"uniform", 6, 4, 6, "", NULL, "plan.stages: 6 stages, but the model's 4 blocks"},
	{"uniform", 3, 4, 4, "", NULL, "plan.stages: 4 stages need as many nodes"},
	{"proportional", 3, 9, 4, "1 1 1", NULL, "plan.stages: 4 stages need as many nodes"},
	{"proportional", 3, 9, 0, "1 0 1", NULL, "nodes[1].compute: 'b' declares none"},
	{NULL, 3, 9, 0, "0 1 1", NULL, "nodes[0].compute: 'a' declares none"},
	{"exakt", 3, 9, 0, "", NULL, "plan.solver: 'exakt' is not built"},
	{"unifrom", 3, 9, 0, "", NULL, "did you mean 'uniform'"},
	{"manual", 3, 9, 0, "", NULL, "'manual' needs plan.layers"},
	{NULL, 3, 9, 0, "", "3 6", "plan.layers: 2 entries for 3 nodes"},
	{NULL, 3, 9, 0, "", "3 3 2", "plan.layers: 8 blocks in all, but the model has 9"},
	{NULL, 3, 9, 0, "", "3 3 4", "plan.layers: 10 blocks in all, but the model has 9"},
	{NULL, 3, 9, 0, "", "0 3 6", "plan.layers[0]: only the last stage may hold no block"},
	{NULL, 3, 9, 0, "", "9 0 0", "plan.layers[1]: only the last stage may hold no block"},
	{NULL, 3, 9, 0, "", "3 -3 9", "plan.layers[1]: '-3' is neither"},
	{NULL, 3, 9, 0, "", "3 two 4", "plan.layers[1]: 'two' is neither"},
	{NULL, 3, 9, 0, "", "3 3.0 3", "plan.layers[1]: '3.0' is neither"},
	{NULL, 3, 9, 0, "", "3 3 99999999999999999999", "plan.layers[2]: '9999"},
	{NULL, 3, 9, 0, "", "out out out", "every node is out"},
	{NULL, 3, 9, 3, "", "4 5 out", "plan.stages: 3, but plan.layers makes 2"},
	{NULL, 5, 3, 0, "", "1 1 1 0 0", "plan.layers[3]: only the last stage"},
};

static void must_refuse(const char *message)
{
	struct plan before;

	memset(&plan, 0x5a, sizeof plan);
	before = plan;
	error_hold();
	ck_assert_int_eq(plan_make(&bench.problem, &plan), -1);
	ck_assert_int_eq(error_code(), EXIT_CONFIG);
	ck_assert_msg(strstr(error_text(), message), "'%s' is not in: %s", message,
		      error_text());
	ck_assert(memcmp(&plan, &before, sizeof plan) == 0);
}

START_TEST(impossible_wishes_are_refused)
{
	set_problem(refused[_i].nodes, refused[_i].blocks);
	set_compute(refused[_i].compute);
	bench.want.solver = refused[_i].solver;
	bench.want.stages = refused[_i].stages;
	if (refused[_i].layers)
		set_layers(refused[_i].layers);
	must_refuse(refused[_i].message);
}
END_TEST

START_TEST(table_of_solvers_is_whole)
{
	int count = 0;

	set_problem(3, 9);
	for (; solver_names()[count]; count++) {
		const struct solver *solver = solver_find(solver_names()[count]);

		ck_assert_ptr_nonnull(solver);
		ck_assert_str_eq(solver->name, solver_names()[count]);
		ck_assert(solver->help && solver->applicable);
		ck_assert_msg(!solver->solve != !solver->search, "'%s' has both ways, or none", solver->name);
		ck_assert(!solver->search || strlen(solver->name) < sizeof plan.solver);
	}
	ck_assert_int_eq(count, 6);
	ck_assert_ptr_null(solver_find("oracle"));
	ck_assert_ptr_null(solver_find(NULL));
}
END_TEST

/* Numbers must be known of every node for the solvers that reckon with them, and layers for the one that takes them. */
START_TEST(solvers_apply_where_they_know_enough)
{
	static const char *const compute[] = {"", "1 2", "1 2 3"};

	for (int known = 0; known < 3; known++) {
		set_problem(3, 9);
		set_compute(compute[known]);
		for (int i = 0; solver_names()[i]; i++) {
			const struct solver *solver = solver_find(solver_names()[i]);
			bool right = solver->search ? known == 2 : strcmp(solver->name, "manual") != 0;

			ck_assert_msg(solver->applicable(&bench.problem) == right, "%s", solver->name);
		}
		set_layers("3 3 3");
		ck_assert(solver_find("manual")->applicable(&bench.problem));
		tear_down();
	}
}
END_TEST

/* -- random problems ----------------------------------------------------------------------- */

/* Numbers in [least, most] that are the same in every run. */
static int draw(int least, int most)
{
	static uint32_t count;
	struct philox words = philox((struct philox){{count++, 0, 0, 0}}, 7, 11);

	return least + (int)(words.word[0] % (uint32_t)(most - least + 1));
}

/* A way to cut `blocks` into stages by hand, with some nodes left out. */
static void draw_layers(int nodes, int blocks)
{
	static char text[NODES][16];
	int used = 0, last = draw(0, nodes - 1);

	bench.want.layers.count = nodes;
	for (int i = 0; i < nodes; i++) {
		int take = i == last ? blocks - used : draw(0, (blocks - used) / 2);

		snprintf(text[i], sizeof text[i],
			 i > last || (i < last && !take) ? "out" : "%d", take);
		used += i > last ? 0 : take;
		bench.layers[i] = text[i];
	}
}

static void draw_problem_of(const char *solver, int most_nodes, int most_blocks)
{
	int blocks = draw(1, most_blocks), most = blocks + 1 < most_nodes ? blocks + 1 : most_nodes;
	int nodes = draw(1, most);
	static const char *const schedules[] = {"gpipe", "1f1b", "eager"};
	static const int batches[] = {1, 2, 6, 12, 32, 35};

	set_problem(nodes, blocks);
	set_model(blocks, draw(1, 5));
	bench.want.solver = solver;
	bench.want.schedule = schedules[draw(0, 2)];
	bench.problem.batch = batches[draw(0, 5)];
	if (draw(0, 3) == 0)
		bench.problem.micro_batch = 1;
	for (int i = 0; i < nodes; i++)
		bench.node[i].compute_flops = draw(1, 50) * 1e9;
	if (strcmp(solver, "manual") == 0)
		draw_layers(nodes, blocks);
	else if (draw(0, 1))
		bench.want.stages = draw(1, nodes);
}

static void draw_problem(const char *solver)
{
	draw_problem_of(solver, NODES, BLOCKS);
}

/*
 * No stage that could give a block away is so loaded that another one with a block more would
 * be done before it is done with a block less: what the largest remainder promises.
 */
static void must_be_proportional(void)
{
	double head = model_head_flops(&bench.model) / model_block_flops(&bench.model, 32);
	double most = 0, least = 1e300;

	for (int s = 0; s < plan.stages; s++) {
		const struct plan_stage *stage = &plan.stage[s];
		double work = stage->blocks + (stage->head ? head : 0);
		double speed = bench.node[stage->node].compute_flops;

		if (stage->blocks > !stage->head && (work - 1) / speed > most)
			most = (work - 1) / speed;
		if ((work + 1) / speed < least)
			least = (work + 1) / speed;
	}
	ck_assert_msg(most <= least * (1 + 1e-6), "%s", sentence(&plan));
}

static void must_be_uniform(void)
{
	int blocks = bench.model.blocks;

	for (int s = 0; s < plan.stages; s++) {
		ck_assert_int_eq(plan.stage[s].node, s);
		ck_assert_int_ge(plan.stage[s].blocks, blocks / plan.stages);
		ck_assert_int_le(plan.stage[s].blocks,
				 (blocks + plan.stages - 1) / plan.stages);
		if (s)
			ck_assert_int_le(plan.stage[s].blocks, plan.stage[s - 1].blocks);
	}
}

/* What the bounds of a solver that decides everything promise of each other. */
static void must_say_what_was_proved(void)
{
	bool limited = false;		/* what almost fits is part of the proof */

	ck_assert_double_gt(plan.step_s, 0);
	ck_assert_double_gt(plan.least_bound_s, 0);
	ck_assert_double_le(plan.least_bound_s, plan.step_s);
	ck_assert_double_le(plan.least_bound_s, plan.bound_s * (1 + 1e-9));
	ck_assert_double_ge(plan.step_s, plan.bound_s * (1 - 1e-9));
	ck_assert_double_gt(plan.model_s, 0);
	ck_assert_double_le(plan.model_minimum_s, plan.model_s * (1 + 1e-9));
	ck_assert_double_le(plan.model_proved_s, plan.model_minimum_s * (1 + 1e-9));
	for (int d = 0; d < NODES; d++)
		limited = limited || bench.limit[d] > 0;
	if (strcmp(plan.solver, "exact") == 0 && !limited)
		ck_assert_double_ge(plan.model_proved_s, plan.model_minimum_s * (1 - 1e-9));
}

START_TEST(invariants_hold_on_random_problems)
{
	const char *solver = solver_names()[_i];

	/* fewer where each takes longer */
	for (int i = 0; i < (solver_find(solver)->search ? 40 : 200) / TIMES_LESS; i++) {
		draw_problem(solver);
		ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
		must_hold();
		ck_assert_str_eq(plan.solver, solver);
		for (int s = 1; s < plan.stages && solver_find(solver)->solve; s++)
			ck_assert_int_gt(plan.stage[s].node, plan.stage[s - 1].node);
		if (solver_find(solver)->search)
			must_say_what_was_proved();
		if (strcmp(solver, "uniform") == 0)
			must_be_uniform();
		if (strcmp(solver, "proportional") == 0)
			must_be_proportional();
		tear_down();
	}
}
END_TEST

/* The size that `auto` must find, by asking for every size by hand. */
static int size_by_hand(void)
{
	struct plan made;
	int best = 0;

	for (int size = 1; size <= bench.problem.batch; size++) {
		if (bench.problem.batch % size)
			continue;
		bench.problem.micro_batch = size;
		error_hold();
		if (plan_make(&bench.problem, &made) == 0 &&
		    (size == 1 || made.micro_batches >= 2 * made.stages))
			best = size;
		error_clear();
	}
	bench.problem.micro_batch = 0;
	return best;
}

START_TEST(auto_finds_the_largest_that_fits)
{
	int small = 0, none = 0;

	for (int i = 0; i < 120 / TIMES_LESS; i++) {
		int size, made;

		draw_problem(_i ? "proportional" : "uniform");
		bench.problem.micro_batch = 0;
		/* eager makes room instead, down to other counts than a size by hand */
		if (strcmp(bench.want.schedule, "eager") == 0)
			bench.want.schedule = "1f1b";
		ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
		size = plan.micro_batch;
		for (int s = 0; s < plan.stages; s++)
			bench.limit[plan.stage[s].node] = plan.stage[s].memory_bytes *
							  draw(30, 200) / 100;
		error_hold();
		made = plan_make(&bench.problem, &plan);
		ck_assert_int_eq(error_code(), made < 0 ? EXIT_CONFIG : 0);
		error_clear();
		ck_assert_int_eq(made < 0 ? 0 : plan.micro_batch, size_by_hand());
		none += made < 0;
		small += made == 0 && plan.micro_batch < size;
		if (made == 0)
			must_hold();
		tear_down();
	}
	ck_assert_int_gt(none, 6 / TIMES_LESS);
	ck_assert_int_gt(small, 6 / TIMES_LESS);
}
END_TEST

/* -- micro-batches ------------------------------------------------------------------------- */

static const struct { int batch, stages, size; } sizes[] = {
	{32, 1, 16}, {32, 2, 8}, {32, 4, 4}, {32, 5, 2}, {30, 3, 5}, {7, 1, 1}, {7, 2, 1},
	{8, 5, 1}, {1, 1, 1}, {2, 1, 1}, {12, 2, 3}, {40, 8, 2},
};

START_TEST(auto_leaves_two_micro_batches_a_stage)
{
	set_problem(sizes[_i].stages, 12);
	bench.problem.batch = sizes[_i].batch;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_int_eq(plan.micro_batch, sizes[_i].size);
	ck_assert_int_eq(plan.micro_batches, sizes[_i].batch / sizes[_i].size);
}
END_TEST

START_TEST(explicit_size_is_kept)
{
	set_problem(3, 12);
	bench.problem.micro_batch = 32;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_int_eq(plan.micro_batch, 32);
	ck_assert_int_eq(plan.micro_batches, 1);
	must_hold();
}
END_TEST

static const struct { long long batch, micro_batch; const char *message; } bad_sizes[] = {
	{32, 3, "train.micro_batch: 3 does not divide train.batch 32"},
	{32, 64, "train.micro_batch: 64 does not divide train.batch 32"},
	{32, -1, "train.micro_batch: -1 does not divide"},
	{1LL << 30, 1LL << 30, "train.micro_batch: 1073741824 sequences of 32 tokens are too"},
	{0, 0, "train.batch: 0 is not in"},
	{1LL << 40, 0, "train.batch: 1099511627776 is not in"},
};

START_TEST(bad_sizes_are_refused)
{
	set_problem(3, 12);
	bench.problem.batch = bad_sizes[_i].batch;
	bench.problem.micro_batch = bad_sizes[_i].micro_batch;
	must_refuse(bad_sizes[_i].message);
}
END_TEST

START_TEST(unknown_schedule_is_refused)
{
	set_problem(3, 12);
	bench.want.schedule = "1f2b";
	must_refuse("1f2b");
}
END_TEST

START_TEST(in_flight_comes_from_the_schedule)
{
	set_problem(3, 12);
	bench.problem.micro_batch = 4;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	/* Nothing is declared: what passes a cut is taken to be done within a period. */
	for (int s = 0; s < 3; s++)
		ck_assert_int_eq(plan.stage[s].in_flight, 2 * (3 - s) - 1);
	ck_assert_str_eq(plan.order, "strict");
	ck_assert_double_eq(plan.step_s, 0);
	bench.want.schedule = "1f1b";
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	for (int s = 0; s < 3; s++)
		ck_assert_int_eq(plan.stage[s].in_flight, 3 - s);
	bench.want.schedule = "gpipe";
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	for (int s = 0; s < 3; s++)
		ck_assert_int_eq(plan.stage[s].in_flight, 8);
	ck_assert_str_eq(plan.schedule, "gpipe");
}
END_TEST

/* A cut's buffers hold what is in flight at the stage before, and three suffice to validate. */
START_TEST(edges_hold_what_is_under_way)
{
	set_problem(4, 12);
	bench.problem.micro_batch = 2;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_int_eq(plan.stage[0].edges, 7);
	ck_assert_int_eq(plan.stage[1].edges, 7);
	ck_assert_int_eq(plan.stage[2].edges, 5);
	ck_assert_int_eq(plan.stage[3].edges, 3);
	bench.want.schedule = "1f1b";
	bench.problem.micro_batch = 16;		/* two micro-batches */
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	for (int s = 0; s < 4; s++)
		ck_assert_int_eq(plan.stage[s].edges, 3);
	tear_down();
	set_problem(1, 12);
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_int_eq(plan.stage[0].edges, 1);
}
END_TEST

/* -- costs --------------------------------------------------------------------------------- */

/* Three stages of 4 blocks, the last with the head (as 2 blocks): a period of 1.5 ms, which is
 * what the last stage takes for a micro-batch of 2 sequences. */
static void set_timed(void)
{
	set_problem(3, 12);
	bench.problem.micro_batch = 2;
	set_layers("4 4 4");
	for (int i = 0; i < 3; i++)
		bench.node[i].compute_flops =
			6 * model_block_flops(&bench.model, 32) * 2 * 32 / 1.5e-3;
}

/* Latency of each direction in periods, and how many periods a cut then takes there and back. */
static const struct { double latency; int periods; } rounds[] = {
	{0, 0}, {1e-6, 1}, {0.25, 1}, {0.5, 1}, {0.501, 2}, {1, 2}, {1.6, 4}, {100, 200},
};

START_TEST(eager_hides_whole_periods)
{
	static const int blocks_s[] = {4, 4, 6};
	int periods = rounds[_i].periods;

	set_timed();
	bench.cluster.standard.latency_s = rounds[_i].latency * 1.5e-3;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	must_hold();
	for (int s = 0; s < 3; s++) {
		int room = 1 + (2 - s) * (1 + periods);

		ck_assert_int_eq(plan.stage[s].in_flight, room < 16 ? room : 16);
		ck_assert_double_eq_tol(plan.stage[s].forward_s + plan.stage[s].backward_s,
					blocks_s[s] * 0.25e-3, 1e-12);
	}
	ck_assert_double_ge(plan.step_s, plan.bound_s * (1 - 1e-12));
	ck_assert_double_ge(plan.bound_s, 16 * 1.5e-3);
	if (periods == 0)
		ck_assert_str_eq(plan.bottleneck, "stage 2");
}
END_TEST

/* The last stage takes as long and stands deepest, so the bound is its own; the first is occupied a hundredth longer. With
 * cuts that share an interface, which together take longer than either alone, it is that. */
START_TEST(the_busiest_is_the_bottleneck)
{
	double bytes;

	set_timed();
	bench.want.layers.count = 0;
	set_layers("6 2 4");
	bench.node[0].compute_flops /= 1.01;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_str_eq(plan.bottleneck, "stage 0");
	bytes = (double)stream_tensor_bytes(CODEC_NONE, false, 2 * 32, 16);
	bench.cluster.standard.bandwidth_bytes_s = bytes / 1e-3;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_str_eq(plan.bottleneck, "stage 0");
	bench.node[1].nic = "air";
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_str_eq(plan.bottleneck, "interface air");
}
END_TEST

/* Of a thousand and a half micro-batches what the ranking plays of them is nearly the step. */
START_TEST(very_many_micro_batches_are_ranked_by_their_period)
{
	struct arena arena = {0};
	struct placement at = {.stages = 3, .node = {0, 1, 2}, .first = {0, 4, 8, 12}};
	const struct instance *in;

	set_timed();
	bench.problem.batch = 2 * 1500;
	bench.cluster.standard.latency_s = 1e-3;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	in = instance_of(&arena, &bench.problem, 2);
	ck_assert_int_eq(in->micro_batches, 1500);
	ck_assert_double_eq_tol(placement_simulate(in, &at), plan.step_s, 1e-4 * plan.step_s);
	arena_release(&arena);
}
END_TEST

/* By the rule, from what the plan says of its own stages and links; the greedy order may not need all of it. */
static void must_follow_the_rule(void)
{
	double period = 0;
	int room = 1;

	for (int s = 0; s < plan.stages; s++)
		period = fmax(period, plan.stage[s].forward_s + plan.stage[s].backward_s);
	for (int s = 0; s + 1 < plan.stages; s++)
		period = fmax(period, fmax(plan.link[s].seconds_forward,
					   plan.link[s].seconds_backward));
	ck_assert_int_eq(plan.stage[plan.stages - 1].in_flight, 1);
	for (int s = plan.stages - 2; s >= 0; s--) {
		const struct plan_link *link = &plan.link[s];
		double both = link->seconds_forward + link->seconds_backward +
			      link->latency_forward + link->latency_backward;

		room += 1 + (int)ceil(both / period - 1e-9);
		room = room < plan.micro_batches ? room : plan.micro_batches;
		if (!strcmp(plan.order, "strict"))
			ck_assert_int_eq(plan.stage[s].in_flight, room);
		else
			ck_assert_int_le(plan.stage[s].in_flight, room);
	}
}

/* Bandwidth is a period of its own where a link is slower than any stage. */
START_TEST(a_slow_link_is_the_period)
{
	struct plan strict;
	double bytes;

	set_timed();
	bytes = (double)stream_tensor_bytes(CODEC_NONE, false, 2 * 32, 16);
	bench.cluster.standard.bandwidth_bytes_s = bytes / 3e-3;	/* two periods */
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	must_hold();
	must_follow_the_rule();
	/* Both directions are two of its periods: 1 + 1 + 2 in flight at stage 1 in the strict order, and 3 more before it,
	 * which takes longer than the greedy one. */
	ck_assert_str_eq(plan.order, "greedy");
	ck_assert_int_eq(plan.stage[1].in_flight, 3);
	strict = plan;
	snprintf(strict.order, sizeof strict.order, "strict");
	strict.stage[1].in_flight = 4;
	strict.stage[0].in_flight = 7;
	cost_predict(&bench.problem, &strict);
	ck_assert_double_lt(plan.step_s, strict.step_s);
	ck_assert_double_ge(plan.bound_s, 16 * 3e-3);
	ck_assert_ptr_nonnull(strstr(plan.bottleneck, "link"));
}
END_TEST

START_TEST(each_direction_of_a_cut_has_its_cost)
{
	struct link between[] = {
		{.from = "a", .to = "b", .bandwidth_bytes_s = 1000, .codec = CODEC_INT4,
		 .bandwidth_given = true, .codec_given = true},
		{.from = "b", .to = "a", .latency_s = 0.5, .codec = CODEC_INT4,
		 .latency_given = true, .codec_given = true},
		{.from = "c", .to = "b", .codec = CODEC_BF16, .codec_given = true},
	};
	const struct plan_link *link = plan.link;
	const double int8 = (double)stream_tensor_bytes(CODEC_INT8, true, 2 * 32, 16);

	set_timed();
	bench.cluster.links = (struct list){between, 3};
	bench.cluster.standard.bandwidth_bytes_s = 500;
	bench.cluster.standard.latency_s = 0.25;
	bench.problem.slowdown = 4;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	must_hold();
	ck_assert_double_eq(link[0].bytes_forward,
			    (double)stream_tensor_bytes(CODEC_INT4, false, 2 * 32, 16));
	ck_assert_double_eq(link[0].seconds_forward, link[0].bytes_forward / 1000 * 4);
	ck_assert_double_eq(link[0].latency_forward, 1);
	/* int4's way back is int8. */
	ck_assert_double_eq(link[0].bytes_backward, int8);
	ck_assert_double_eq(link[0].seconds_backward, int8 / 500 * 4);
	ck_assert_double_eq(link[0].latency_backward, 2);
	ck_assert_int_eq(link[0].codec_forward, CODEC_INT4);
	ck_assert_int_eq(link[0].codec_backward, CODEC_INT4);
	ck_assert_int_eq(link[1].codec_forward, CODEC_NONE);
	ck_assert_int_eq(link[1].codec_backward, CODEC_BF16);
	ck_assert_double_lt(link[1].bytes_backward, link[1].bytes_forward);
	ck_assert_double_eq(plan.stage[0].forward_s + plan.stage[0].backward_s, 4 * 1e-3);
}
END_TEST

/* Every declared time stretched by two: the same plan, of twice the time. */
START_TEST(slowdown_stretches_the_prediction)
{
	struct plan slow;

	set_timed();
	bench.cluster.standard.bandwidth_bytes_s = 1e7;
	bench.cluster.standard.latency_s = 2e-3;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	bench.problem.slowdown = 2;
	ck_assert_int_eq(plan_make(&bench.problem, &slow), 0);
	ck_assert_double_gt(plan.step_s, 0);
	ck_assert_double_eq(slow.step_s, 2 * plan.step_s);
	ck_assert_double_eq(slow.bound_s, 2 * plan.bound_s);
	for (int s = 0; s < 3; s++)
		ck_assert_int_eq(slow.stage[s].in_flight, plan.stage[s].in_flight);
}
END_TEST

static void draw_links(void)
{
	static const double rates[] = {0, 1e5, 1e6, 1e8};

	bench.cluster.standard.bandwidth_bytes_s = rates[draw(0, 3)];
	bench.cluster.standard.latency_s = draw(0, 20) * 1e-3;
	bench.cluster.standard.codec = draw(0, CODEC_KINDS - 1);
	if (draw(0, 1))
		bench.node[0].nic = bench.node[1].nic = "wlan";
}

static void must_fit(void)
{
	for (int s = 0; s < plan.stages; s++) {
		ck_assert_int_ge(plan.stage[s].in_flight, 1);
		ck_assert_int_ge(plan.stage[s].edges, plan.stage[s].in_flight);
		if (s)
			ck_assert_int_ge(plan.stage[s].edges, plan.stage[s - 1].in_flight);
		ck_assert_double_le(plan.stage[s].memory_bytes, bench.limit[plan.stage[s].node]);
	}
}

/* What the instance says of a stage's memory is never more than the plan's own: a bound over plans must refuse none that
 * the engine would run. Nor is it much less: only the frames of cuts are not in it. */
static void is_least_memory(const struct instance *in, const struct placement *at, int s)
{
	double own = plan.stage[s].memory_bytes - bench.problem.overhead_bytes[at->node[s]];
	double limit[PLAN_STAGES_MAX] = {0}, cuts = 0;
	struct instance tight = *in;
	int p = at->first[s], q = at->first[s + 1], n = plan.micro_batch * bench.problem.tokens;
	bool last = s == at->stages - 1;

	tight.memory_bytes = limit;
	limit[at->node[s]] = own;
	ck_assert_int_ge(stage_room(&tight, at->node[s], p, q, last), plan.stage[s].in_flight);
	for (int i = 0; i < 2; i++)
		cuts += 2.0 * (double)stream_memory(CODEC_NONE, i, n, bench.model.width);
	cuts += (double)(plan.stage[s].edges - plan.stage[s].in_flight) * 2 * n * bench.model.width * 4;
	limit[at->node[s]] = own * 0.99 - cuts - 4096;
	ck_assert_int_lt(stage_room(&tight, at->node[s], p, q, last), plan.stage[s].in_flight);
}

/* The numbers that solvers reckon with are those of the plan: also where the head is alone, on a node of its own. */
START_TEST(instances_cost_what_plans_cost)
{
	int alone = 0;

	for (int i = 0; i < 200 / TIMES_LESS; i++) {
		struct arena arena = {0};
		struct placement at = {0};
		const struct instance *in;

		draw_problem("uniform");
		draw_links();
		if (bench.want.stages == 0 && draw(0, 1))
			set_model(bench.cluster.nodes.count, 5);	/* so that the last has no block, as often as not */
		bench.want.schedule = "1f1b";
		bench.want.solver = draw(0, 1) ? "uniform" : "proportional";
		ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
		in = instance_of(&arena, &bench.problem, plan.micro_batch);
		at = placement_of(&plan);
		ck_assert(placement_valid(in, &at));
		ck_assert_double_eq_tol(placement_bound(in, &at) / plan.bound_s, 1, 1e-9);
		alone += plan.stage[plan.stages - 1].blocks == 0;
		for (int st = 0; st < plan.stages; st++)
			is_least_memory(in, &at, st);
		arena_release(&arena);
		tear_down();
	}
	ck_assert_int_gt(alone, 10 / TIMES_LESS);
}
END_TEST

/* Problems with links, shared interfaces and memory that runs out: no other row of the table has a shorter step, no plan
 * at all has one below the bound of all plans. */
START_TEST(nothing_is_shorter_than_exact)
{
	int made = 0, shorter = 0, other_order = 0;

	for (int i = 0; i < 40 / TIMES_LESS; i++) {
		double ordered_s = INFINITY;

		draw_problem_of("exact", 5, 12);
		draw_links();
		bench.want.schedule = "eager";
		for (int d = 0; d < bench.cluster.nodes.count && draw(0, 1); d++)
			bench.limit[d] = draw(20, 400) * 1000.0;
		error_hold();
		if (plan_make(&bench.problem, &plan) == 0) {
			must_hold();
			must_say_what_was_proved();
			made++;
			for (int s = 1; s < plan.stages; s++)
				other_order += plan.stage[s].node < plan.stage[s - 1].node;
		} else {
			plan.step_s = INFINITY;
			plan.least_bound_s = 0;
		}
		for (int k = 0; solver_names()[k]; k++) {
			struct plan other;

			bench.want.solver = solver_names()[k];
			if (!strcmp(bench.want.solver, "manual") || plan_make(&bench.problem, &other) < 0)
				continue;
			ck_assert_msg(plan.step_s <= other.step_s * (1 + 1e-9), "problem %d: %s takes %g s, exact %g s", i,
				      bench.want.solver, other.step_s, plan.step_s);
			ck_assert_double_ge(other.step_s, plan.least_bound_s * (1 - 1e-9));
			if (solver_find(bench.want.solver)->solve)
				ordered_s = fmin(ordered_s, other.step_s);
		}
		shorter += plan.step_s < ordered_s * 0.99;
		error_clear();
		tear_down();
	}
	ck_assert_int_gt(made, 16 / TIMES_LESS);
	ck_assert_int_gt(shorter, 6 / TIMES_LESS);
	ck_assert_int_gt(other_order, 4 / TIMES_LESS);
}
END_TEST

/* Memory that no longer holds all that hides the links: less is in flight, the step is no
 * shorter than the bound, and what the check works out again is what the plan says. */
START_TEST(eager_makes_do_with_the_memory_there_is)
{
	int made = 0, fewer = 0, greedy = 0;

	for (int i = 0; i < 400 / TIMES_LESS; i++) {
		int before = 0, after = 0;

		draw_problem("proportional");
		draw_links();
		bench.want.schedule = "eager";
		bench.problem.batch = 32;
		bench.problem.micro_batch = draw(0, 1) ? 1 : 2;
		ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
		must_hold();
		must_follow_the_rule();
		ck_assert_double_ge(plan.step_s, plan.bound_s * (1 - 1e-9));
		for (int s = 0; s < plan.stages; s++) {
			before += plan.stage[s].in_flight;
			bench.limit[plan.stage[s].node] =
				plan.stage[s].memory_bytes * draw(60, 105) / 100;
		}
		error_hold();
		if (plan_make(&bench.problem, &plan) == 0) {
			must_hold();
			must_fit();
			ck_assert_double_ge(plan.step_s, plan.bound_s * (1 - 1e-9));
			for (int s = 0; s < plan.stages; s++)
				after += plan.stage[s].in_flight;
			ck_assert_int_le(after, before);
			made++;
			fewer += after < before;
			greedy += strcmp(plan.order, "greedy") == 0;
		}
		error_clear();
		tear_down();
	}
	ck_assert_int_gt(made, 20 / TIMES_LESS);
	ck_assert_int_gt(fewer, 10 / TIMES_LESS);
	ck_assert_int_gt(greedy, 3 / TIMES_LESS);
}
END_TEST

/* A byte less than all in flight need takes a place away; where not even one fits, the plan is refused. */
START_TEST(a_byte_less_is_a_place_less)
{
	double most;

	set_timed();
	bench.cluster.standard.latency_s = 1.5e-3;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_int_eq(plan.stage[0].in_flight, 7);
	most = plan.stage[0].memory_bytes;
	bench.limit[0] = most;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_int_eq(plan.stage[0].in_flight, 7);
	bench.limit[0] = most - 1;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	must_hold();
	ck_assert_int_eq(plan.stage[0].in_flight, 6);
	ck_assert_double_lt(plan.stage[0].memory_bytes, most);
	/* The same of a stage that has no place to give: the one before it gives, whose places
	 * it has edges for. */
	bench.limit[0] = 0;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_int_eq(plan.stage[2].edges, 4);
	bench.limit[2] = plan.stage[2].memory_bytes - 1;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	must_hold();
	ck_assert_int_eq(plan.stage[2].edges, 3);
	ck_assert_int_eq(plan.stage[1].in_flight, 3);
	bench.limit[2] = 3000;
	must_refuse("'c' (stage 2, 8-11 head) needs");
}
END_TEST

/* Where the size is free, a smaller micro-batch comes before less in flight than 1F1B has. */
START_TEST(a_free_size_keeps_the_places_of_1f1b)
{
	set_problem(4, 12);
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_int_eq(plan.micro_batch, 4);
	bench.problem.micro_batch = 4;
	bench.want.schedule = "1f1b";
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	bench.limit[0] = plan.stage[0].memory_bytes - 1;
	bench.want.schedule = "eager";
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_int_eq(plan.stage[0].in_flight, 3);
	bench.problem.micro_batch = 0;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	must_hold();
	ck_assert_int_eq(plan.micro_batch, 2);
	ck_assert_int_ge(plan.stage[0].in_flight, 4);
}
END_TEST

/* -- memory -------------------------------------------------------------------------------- */

START_TEST(memory_is_the_allocators_arithmetic)
{
	size_t cut = stream_memory(CODEC_INT4, false, 4 * 32, 16) +
		     stream_memory(CODEC_INT4, true, 4 * 32, 16);

	set_problem(3, 12);
	bench.problem.micro_batch = 4;
	bench.cluster.standard.codec = CODEC_INT4;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	for (int s = 0; s < 3; s++) {
		struct stage_spec spec = {.first_block = 4 * s,
					  .blocks = 4,
					  .embedding = s == 0,
					  .head = s == 2,
					  .sequences = 4,
					  .tokens = 32,
					  .slots = 5 - 2 * s,
					  .edges = s < 2 ? 5 : 3};
		struct stage_memory memory = stage_memory(
		    &bench.model, NULL, bench.problem.lora, &spec, bench.threads[s]);

		/* The frames of both directions of each of its cuts. */
		ck_assert_double_eq(plan.stage[s].memory_bytes,
				    (double)(memory.total + (s == 1 ? 2 : 1) * cut) + 1000 + s);
	}
}
END_TEST

/* Copies of what each end of a cut sends, and of what goes to rank 0 at a checkpoint. */
START_TEST(emulation_takes_memory)
{
	size_t forward = stream_memory(CODEC_INT4, false, 4 * 32, 16);
	size_t backward = stream_memory(CODEC_INT4, true, 4 * 32, 16);
	const size_t held[] = {comm_shaped_memory(forward), comm_shaped_memory(forward) + comm_shaped_memory(backward),
			       comm_shaped_memory(backward)};
	struct stage_memory memory[3];

	set_problem(3, 12);
	bench.problem.micro_batch = 4;
	bench.cluster.standard.codec = CODEC_INT4;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	for (int s = 0; s < 3; s++)
		memory[s] = plan_memory(&bench.problem, &plan, s);
	bench.problem.links_emulated = true;
	for (int s = 0; s < 3; s++)
		ck_assert_uint_eq(plan_memory(&bench.problem, &plan, s).total,
				  memory[s].total + held[s] + (s > 0 ? memory[s].adapters / 2 : 0));
	ck_assert_uint_ge(held[0], 2 * forward);
}
END_TEST

/* A byte less than a stage needs is refused with its numbers; what it needs is enough. */
START_TEST(memory_that_does_not_suffice_is_refused_with_numbers)
{
	struct stage_memory memory;
	char numbers[7][32], line[512];

	set_problem(3, 12);
	bench.problem.micro_batch = 4;
	bench.want.schedule = "1f1b";		/* which gives no place away */
	bench.node[1].memory_bytes = 1;		/* declared; c is measured */
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	for (int s = 0; s < 3; s++)
		bench.limit[s] = plan.stage[s].memory_bytes;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	must_hold();
	memory = plan_memory(&bench.problem, &plan, 1);
	bench.limit[1] -= 1;
	bench.limit[2] = 2000;
	snprintf(
	    line, sizeof line,
	    "\n  'b' (stage 1, 4-7) needs %s and has %s (declared): "
	    "weights %s, adapters %s, activations %s, work %s, rest %s\n",
	    unit_write(plan.stage[1].memory_bytes, UNIT_BYTES, numbers[0], 32),
	    unit_write(bench.limit[1], UNIT_BYTES, numbers[1], 32),
	    unit_write((double)memory.weights, UNIT_BYTES, numbers[2], 32),
	    unit_write((double)memory.adapters, UNIT_BYTES, numbers[3], 32),
	    unit_write((double)memory.activations, UNIT_BYTES, numbers[4], 32),
	    unit_write((double)memory.work, UNIT_BYTES, numbers[5], 32),
	    unit_write(plan.stage[1].memory_bytes - (double)(memory.weights + memory.adapters +
							     memory.activations + memory.work),
		       UNIT_BYTES, numbers[6], 32));
	must_refuse(
	    "memory does not suffice on 2 of 3 nodes, with micro-batches of 4 sequences:");
	ck_assert_msg(strstr(error_text(), line), "%s\nis not in: %s", line, error_text());
	ck_assert_ptr_nonnull(strstr(error_text(), "'c' (stage 2, 8-11 head) needs"));
	ck_assert_ptr_nonnull(strstr(error_text(), "(measured)"));
	ck_assert_ptr_null(strstr(error_text(), "'a'"));
	ck_assert_ptr_nonnull(
	    strstr(error_text(), "what helps: a smaller train.micro_batch (4 now"));
}
END_TEST

START_TEST(refusal_names_a_size_that_fits)
{
	set_problem(2, 12);
	bench.problem.micro_batch = 2;
	bench.want.schedule = "1f1b";
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	for (int s = 0; s < 2; s++)
		bench.limit[s] = plan.stage[s].memory_bytes;
	bench.problem.micro_batch = 8;
	must_refuse("what helps: train.micro_batch 2 (fits)");
	bench.want.schedule = "gpipe";
	must_refuse("a plan.schedule with fewer micro-batches in flight");
	bench.want.schedule = "1f1b";
	bench.problem.micro_batch = 0;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_int_eq(plan.micro_batch, 2);
}
END_TEST

/* Weights of BF16 kept once make room where two copies have none; where they are F32 that is no advice. */
START_TEST(refusal_names_weights_kept_once)
{
	enum dtype dtypes[2] = {DTYPE_BF16, DTYPE_BF16};
	double packed;

	set_problem(2, 12);
	lora_free((struct lora *)bench.problem.lora);
	bench.model.width = bench.model.mlp = bench.model.head_size = 64;
	bench.model.heads = bench.model.kv_heads = 1;
	set_lora();
	bench.problem.dtypes = dtypes;
	bench.problem.micro_batch = 1;
	bench.want.schedule = "1f1b";
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	packed = plan.stage[0].memory_bytes;
	bench.problem.plain = true;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	if (plan.stage[0].memory_bytes >= packed) {
		puts("skipped: nothing packs BF16 here");
		return;
	}
	for (int s = 0; s < 2; s++)
		bench.limit[s] = plan.stage[s].memory_bytes;
	bench.problem.plain = false;
	must_refuse("what helps: train.weights plain (fits), ");
	bench.limit[0] /= 2;
	must_refuse("what helps: ");
	ck_assert_ptr_null(strstr(error_text(), "train.weights"));
	dtypes[0] = dtypes[1] = DTYPE_F32;
	must_refuse("what helps: ");
	ck_assert_ptr_null(strstr(error_text(), "train.weights"));
}
END_TEST

/* -- the next best ------------------------------------------------------------------------- */

enum { RANKED = 6 };

/* The least steps of all plans, by trying each as if a file gave it. */
struct every {
	struct plan given;
	double step_s[RANKED];
};

static void note_step(struct every *all, double step_s)
{
	int at = RANKED - 1;

	if (step_s >= all->step_s[at])
		return;
	for (; at > 0 && all->step_s[at - 1] > step_s; at--)
		all->step_s[at] = all->step_s[at - 1];
	all->step_s[at] = step_s;
}

static void try_given(struct every *all)
{
	bench.problem.given = &all->given;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	bench.problem.given = NULL;
	note_step(all, plan.step_s);
}

static void try_stages(struct every *all, int left)
{
	struct plan *given = &all->given;

	if (left == 0)
		try_given(all);
	for (int node = 0; node < bench.cluster.nodes.count; node++)
		for (int blocks = given->stages ? left == 0 ? 0 : 1 : 1; blocks <= left; blocks++) {
			bool used = false;

			for (int s = 0; s < given->stages; s++)
				used = used || given->stage[s].node == node || given->stage[s].blocks == 0;
			if (used)
				continue;
			given->stage[given->stages++] = (struct plan_stage){.node = node, .blocks = blocks};
			try_stages(all, left - blocks);
			given->stages--;
		}
}

static void set_ranked(void)
{
	set_problem(3, 5);
	set_compute("5 3 4");
	bench.problem.micro_batch = 4;
	bench.cluster.standard = (struct link){.bandwidth_bytes_s = 4e6, .latency_s = 1e-4};
}

/* The solvers keep what is good by the closed form: of the truly next best, some may be missing. */
START_TEST(the_next_best_are_ranked)
{
	struct plan ranked[RANKED];
	struct every all = {.given = {.solver = "manual", .schedule = "eager", .micro_batch = 4}};

	set_ranked();
	for (int i = 0; i < RANKED; i++)
		all.step_s[i] = 1e9;
	try_stages(&all, 5);
	ck_assert_int_eq(plan_rank(&bench.problem, ranked, RANKED), RANKED);
	ck_assert_double_eq_tol(ranked[0].step_s, all.step_s[0], 1e-9 * all.step_s[0]);
	for (int i = 1; i < RANKED; i++) {
		ck_assert_double_ge(ranked[i].step_s, ranked[i - 1].step_s);
		ck_assert_double_le(ranked[i].step_s, 1.1 * all.step_s[i]);
	}
}
END_TEST

START_TEST(ranked_plans_place_differently)
{
	struct plan ranked[RANKED];
	char place[RANKED][300];

	set_ranked();
	set_compute("4 4 4");	/* so that `uniform` finds one of them too */
	bench.problem.micro_batch = 0;
	ck_assert_int_eq(plan_rank(&bench.problem, ranked, RANKED), RANKED);
	for (int i = 0; i < RANKED; i++) {
		snprintf(place[i], sizeof place[i], "%s x %d", sentence(&ranked[i]), ranked[i].micro_batch);
		for (int k = 0; k < i; k++)
			ck_assert_str_ne(place[i], place[k]);
		memcpy(&plan, &ranked[i], sizeof plan);
		must_hold();
		bench.problem.given = &ranked[i];
		ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
		bench.problem.given = NULL;
		ck_assert_double_eq(plan.step_s, ranked[i].step_s);
	}
	bench.want.solver = "uniform";
	ck_assert_int_eq(plan_rank(&bench.problem, ranked, RANKED), 1);
}
END_TEST

/* -- the check ----------------------------------------------------------------------------- */

static void break_stages(struct plan *p) { p->stages = 0; }
static void break_stages_more(struct plan *p) { p->stages = 5; }
static void break_digest(struct plan *p) { p->model_digest.high ^= 1; }
static void break_node(struct plan *p) { p->stage[1].node = 4; }
static void break_node_below(struct plan *p) { p->stage[1].node = -1; }
static void break_node_twice(struct plan *p) { p->stage[1].node = 0; }
static void break_first(struct plan *p) { p->stage[0].first_block = 1; }
static void break_gap(struct plan *p) { p->stage[1].first_block++; }
static void break_none(struct plan *p)
{
	p->stage[1].blocks += p->stage[0].blocks;
	p->stage[0].blocks = p->stage[1].first_block = 0;
}
static void break_short(struct plan *p) { p->stage[3].blocks--; }
static void break_long(struct plan *p) { p->stage[3].blocks++; }
static void break_embedding(struct plan *p) { p->stage[0].embedding = false; }
static void break_head(struct plan *p) { p->stage[1].head = true; }
static void break_solver(struct plan *p) { p->solver[0] = 'X'; }
static void break_share(struct plan *p) { p->stage[2].share += 1e-6; }
static void break_schedule(struct plan *p) { memcpy(p->schedule, "gpipe", 6); }
static void break_batch(struct plan *p) { p->micro_batches++; }
static void break_size(struct plan *p) { p->micro_batch /= 2; p->micro_batches *= 2; }
static void break_room(struct plan *p) { p->stage[0].in_flight++; }
static void break_memory(struct plan *p) { p->stage[2].memory_bytes--; }
static void break_limit(struct plan *p) { p->stage[2].memory_limit_bytes++; }
static void break_edges(struct plan *p) { p->stage[1].edges--; }
static void break_order(struct plan *p) { memcpy(p->order, "wild", 5); }
static void break_forward(struct plan *p) { p->stage[1].forward_s *= 1.5; }
static void break_backward(struct plan *p) { p->stage[3].backward_s = 0; }
static void break_codec(struct plan *p) { p->link[1].codec_backward = CODEC_INT8; }
static void break_bytes(struct plan *p) { p->link[2].bytes_forward--; }
static void break_step(struct plan *p) { p->step_s *= 0.9; }
static void break_bound(struct plan *p) { p->bound_s *= 0.9; }
static void break_least(struct plan *p) { p->least_bound_s = p->step_s * 1.01; }
static void break_bottleneck(struct plan *p) { p->bottleneck[0] = 'S'; }

static const struct { void (*damage)(struct plan *plan); const char *why; } damages[] = {
	{break_stages, "0 stages, not 1..4"}, {break_stages_more, "5 stages, not 1..4"},
	{break_digest, "another model"}, {break_node, "on node 4"},
	{break_node_below, "on node -1"},
	{break_node_twice, "as one before"}, {break_first, "starts at block 1, not 0"},
	{break_gap, "starts at block 4, not 3"}, {break_none, "stage 0 has 0 blocks"},
	{break_short, "8 blocks of the model's 9"}, {break_edges, "edge buffers"},
	{break_order, "unknown order 'wild'"}, {break_forward, "stage 1 takes"},
	{break_backward, "stage 3 takes"}, {break_codec, "after stage 1"},
	{break_bytes, "after stage 2"}, {break_step, "a step takes"},
	{break_bound, "a step takes"}, {break_least, "no plan takes less than"}, {break_bottleneck, "a step takes"}, {break_long, "ends after"},
	{break_embedding, "embedding"}, {break_head, "head"}, {break_solver, "unknown solver"},
	{break_share, "share"}, {break_schedule, "schedule 'gpipe', not 'eager'"},
	{break_batch, "are not a batch of 32"}, {break_size, "micro-batches of 2, not 4"},
	{break_room, "in flight"}, {break_memory, "needs"}, {break_limit, "may use"},
};

START_TEST(damaged_plans_are_found)
{
	char why[256] = "";

	set_problem(4, 9);
	bench.problem.micro_batch = 4;
	set_compute("1 1 1 1");
	bench.want.solver = "uniform";
	bench.cluster.standard = (struct link){.bandwidth_bytes_s = 1e8, .latency_s = 1e-4};
	bench.limit[0] = bench.limit[1] = bench.limit[2] = bench.limit[3] = 1e12;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	must_hold();
	damages[_i].damage(&plan);
	ck_assert_int_eq(plan_check(&plan, &bench.problem, why, sizeof why), -1);
	ck_assert_msg(strstr(why, damages[_i].why), "'%s' is not in '%s'", damages[_i].why,
		      why);
}
END_TEST

START_TEST(wishes_that_are_not_kept_are_found)
{
	char why[256] = "";

	set_problem(4, 9);
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	bench.want.stages = 3;
	ck_assert_int_eq(plan_check(&plan, &bench.problem, why, sizeof why), -1);
	ck_assert_ptr_nonnull(strstr(why, "plan.stages is 3"));
	bench.want.stages = 0;
	set_layers("3 2 3 1");
	ck_assert_int_eq(plan_check(&plan, &bench.problem, why, sizeof why), -1);
	ck_assert_str_eq(why, "plan.layers[2] is not kept");
	bench.want.layers.count = 0;
	set_layers("3 2 2 out");
	ck_assert_int_eq(plan_check(&plan, &bench.problem, why, sizeof why), -1);
	ck_assert_str_eq(why, "more stages than plan.layers has");
	bench.want.layers.count = 0;
	bench.limit[1] = plan.stage[1].memory_limit_bytes = plan.stage[1].memory_bytes - 1;
	ck_assert_int_eq(plan_check(&plan, &bench.problem, why, sizeof why), -1);
	ck_assert_ptr_nonnull(strstr(why, "stage 1 needs"));
}
END_TEST

/* -- the plan as bytes, as a file, as a table ---------------------------------------------- */

START_TEST(plan_is_the_same_bytes_every_time)
{
	struct plan other;

	set_problem(4, 9);
	memset(&plan, 0xaa, sizeof plan);
	memset(&other, 0x55, sizeof other);
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_int_eq(plan_make(&bench.problem, &other), 0);
	ck_assert(memcmp(&plan, &other, sizeof plan) == 0);
}
END_TEST

static const struct json *stage_key(const struct json *document, int s, const char *key)
{
	return json_find(json_at(json_find(document, "stages"), (size_t)s), key);
}

static long long stage_integer(const struct json *document, int s, const char *key)
{
	return json_as_integer(stage_key(document, s, key), -99);
}

static void check_file_stages(const struct json *file)
{
	static const long long blocks[][2] = {{0, 1}, {2, 2}, {0, -1}};
	static const char *const names[] = {"a", "c \"x\"", "d"};

	ck_assert_int_eq((int)json_size(json_find(file, "stages")), 3);
	for (int s = 0; s < 3; s++) {
		ck_assert_int_eq(stage_integer(file, s, "stage"), s);
		ck_assert_str_eq(json_as_text(json_at(stage_key(file, s, "nodes"), 0), ""),
				 names[s]);
		ck_assert_int_eq(stage_integer(file, s, "first_block"), blocks[s][0]);
		ck_assert_int_eq(stage_integer(file, s, "last_block"), blocks[s][1]);
		ck_assert_int_eq(json_as_flag(stage_key(file, s, "embedding"), s), s == 0);
		ck_assert_int_eq(json_as_flag(stage_key(file, s, "head"), !s), s == 2);
		ck_assert_int_eq(stage_integer(file, s, "in_flight"), 3 - s);
		ck_assert_int_eq(stage_integer(file, s, "memory_bytes"),
				 (long long)plan.stage[s].memory_bytes);
		ck_assert_int_eq(json_kind(stage_key(file, s, "forward_s")), JSON_NIL);
		ck_assert_int_eq(json_kind(stage_key(file, s, "backward_s")), JSON_NIL);
	}
	ck_assert_int_eq(stage_integer(file, 0, "memory_limit_bytes"), 9000000);
	ck_assert_int_eq(json_kind(stage_key(file, 1, "memory_limit_bytes")), JSON_NIL);
}

static void check_file_links(const struct json *file)
{
	for (int s = 0; s < 3; s++) {
		const struct json *next = stage_key(file, s, "forward_link");
		const struct json *back = stage_key(file, s, "backward_link");

		ck_assert_int_eq(json_kind(next), s == 2 ? JSON_NIL : JSON_MAP);
		ck_assert_int_eq(json_kind(back), s == 0 ? JSON_NIL : JSON_MAP);
		ck_assert_int_eq(json_as_integer(json_find(next, "to"), 3), s + 1);
		ck_assert_int_eq(json_as_integer(json_find(back, "to"), -1), s - 1);
		if (s == 2)
			continue;
		/* 2 sequences of 32 tokens, 16 floats each, in one frame with its header */
		ck_assert_int_eq(json_as_integer(json_find(next, "bytes"), 0),
				 2 * 32 * 16 * 4 + 32);
		ck_assert_int_eq(json_kind(json_find(next, "seconds")), JSON_NIL);
		ck_assert_str_eq(json_as_text(json_find(next, "codec"), ""), "none");
	}
}

static void set_small_problem(void)
{
	set_problem(4, 3);
	bench.want.schedule = "1f1b";
	bench.node[2].name = "c \"x\"";
	bench.limit[0] = 9000000;
	bench.node[0].memory_bytes = 9000000;
	bench.limit[3] = 8000000;
	bench.problem.micro_batch = 2;
	set_layers("2 out 1 0");
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	must_hold();
}

START_TEST(file_says_what_was_decided)
{
	static const char *const nulls[] = {
		"simulated_step_s", "tokens_s", "bottleneck", "lower_bound_s", "gap",
		"model_step_s", "model_minimum_s", "model_gap", "plan_bound_s",
	};
	struct text text = {0};
	struct json *file;
	char digest[33];

	set_small_problem();
	plan_write(&plan, &bench.problem, &text);
	file = json_parse(text.data, text.bytes, "plan.json");
	ck_assert_msg(file != NULL, "%s", text.data);
	ck_assert_int_eq(json_as_integer(json_find(file, "version"), 0), 1);
	ck_assert_str_eq(json_as_text(json_find(file, "solver"), ""), "manual");
	ck_assert_str_eq(json_as_text(json_find(file, "schedule"), ""), "1f1b");
	ck_assert_str_eq(json_as_text(json_find(file, "order"), ""), "strict");
	ck_assert_int_eq(json_as_integer(json_find(file, "micro_batch"), 0), 2);
	ck_assert_int_eq(json_as_integer(json_find(file, "micro_batches"), 0), 16);
	ck_assert_str_eq(json_as_text(json_find(file, "model_digest"), ""),
			 digest_write(bench.model.digest, digest));
	ck_assert_int_eq(json_kind(json_find(file, "profile_digest")), JSON_NIL);
	check_file_stages(file);
	check_file_links(file);
	for (size_t i = 0; i < sizeof nulls / sizeof *nulls; i++)
		ck_assert_int_eq(json_kind(json_find(json_find(file, "predicted"), nulls[i])),
				 JSON_NIL);
	ck_assert_int_eq((int)json_size(json_find(file, "left_out")), 1);
	ck_assert_str_eq(
	    json_as_text(json_find(json_at(json_find(file, "left_out"), 0), "node"), ""), "b");
	ck_assert_str_eq(json_as_text(json_find(json_at(json_find(file, "left_out"), 0), "why"),
				      ""), "plan.layers says out");
	json_free(file);
	text_release(&text);
}
END_TEST

static double predicted(const struct json *file, const char *key)
{
	return json_as_number(json_find(json_find(file, "predicted"), key), -1);
}

static const char *const of_all_plans[] = {"lower_bound_s", "gap", "model_step_s", "model_minimum_s", "model_gap"};

/* With costs declared, what was predicted is there too, for each direction. */
START_TEST(file_says_what_was_predicted)
{
	struct text text = {0};
	const struct json *next, *back;
	struct json *file;

	set_timed();
	bench.cluster.standard = (struct link){.bandwidth_bytes_s = 1e6, .codec = CODEC_INT4};
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	plan_write(&plan, &bench.problem, &text);
	file = json_parse(text.data, text.bytes, "plan.json");
	ck_assert_msg(file != NULL, "%s", text.data);
	ck_assert_str_eq(json_as_text(json_find(file, "schedule"), ""), "eager");
	next = stage_key(file, 1, "forward_link");
	back = stage_key(file, 1, "backward_link");
	ck_assert_str_eq(json_as_text(json_find(next, "codec"), ""), "int4");
	ck_assert_str_eq(json_as_text(json_find(back, "codec"), ""), "int8");
	ck_assert_double_eq_tol(json_as_number(json_find(next, "seconds"), 0),
				plan.link[1].bytes_forward / 1e6, 1e-12);
	ck_assert_double_eq_tol(json_as_number(json_find(back, "seconds"), 0),
				plan.link[0].bytes_backward / 1e6, 1e-12);
	ck_assert_double_eq_tol(json_as_number(stage_key(file, 0, "forward_s"), 0),
				plan.stage[0].forward_s, 1e-12);
	ck_assert_double_eq_tol(json_as_number(stage_key(file, 0, "backward_s"), 0),
				plan.stage[0].backward_s, 1e-12);
	ck_assert_double_eq_tol(predicted(file, "simulated_step_s"), plan.step_s, 1e-9);
	ck_assert_double_eq_tol(predicted(file, "plan_bound_s"), plan.bound_s, 1e-9);
	/* by hand nothing is known of other plans */
	for (size_t i = 0; i < sizeof of_all_plans / sizeof *of_all_plans; i++)
		ck_assert_int_eq(json_kind(json_find(json_find(file, "predicted"), of_all_plans[i])), JSON_NIL);
	ck_assert_double_eq_tol(predicted(file, "tokens_s"), 32 * 32 / plan.step_s, 1e-3);
	ck_assert_str_eq(json_as_text(json_find(json_find(file, "predicted"), "bottleneck"), ""),
			 plan.bottleneck);
	json_free(file);
	text_release(&text);
}
END_TEST

/* Of a solver that decides everything also what was proved of all plans; the codecs that it chose are there too. */
START_TEST(file_says_what_was_proved)
{
	struct text text = {0};
	struct json *file;

	set_problem(3, 12);
	set_compute("0.2 0.1 0.3");
	bench.problem.micro_batch = 2;
	bench.cluster.standard = (struct link){.bandwidth_bytes_s = 1e6, .latency_s = 1e-3, .codec = CODEC_AUTO};
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	must_hold();
	must_say_what_was_proved();
	ck_assert_int_gt(plan.stages, 1);
	plan_write(&plan, &bench.problem, &text);
	file = json_parse(text.data, text.bytes, "plan.json");
	ck_assert_msg(file != NULL, "%s", text.data);
	ck_assert_str_eq(json_as_text(json_find(file, "solver"), ""), "exact");
	ck_assert_double_eq_tol(predicted(file, "plan_bound_s"), plan.bound_s, 1e-9);
	ck_assert_double_eq_tol(predicted(file, "lower_bound_s"), plan.least_bound_s, 1e-9);
	ck_assert_double_eq_tol(predicted(file, "gap"), plan.step_s / plan.least_bound_s - 1, 1e-6);
	ck_assert_double_eq_tol(predicted(file, "model_step_s"), plan.model_s, 1e-9);
	ck_assert_double_eq_tol(predicted(file, "model_minimum_s"), plan.model_minimum_s, 1e-9);
	ck_assert_double_eq_tol(predicted(file, "model_gap"), 0, 1e-9);
	for (int s = 0; s + 1 < plan.stages; s++)
		ck_assert_str_eq(json_as_text(json_find(stage_key(file, s, "forward_link"), "codec"), ""),
				 codec_of((enum codec_kind)plan.link[s].codec_forward, false)->name);
	json_free(file);
	text_release(&text);
}
END_TEST

/* The least lossy codec that costs next to nothing: none where links are fast, int8 where they are the bottleneck, and never
 * what loses more; who does not choose takes none. */
START_TEST(codecs_are_chosen_by_what_they_cost)
{
	static const struct { double bandwidth; int codec; } rates[] = {{1e9, CODEC_NONE}, {3e3, CODEC_INT8}};
	struct plan none;

	for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
		set_problem(2, 12);
		set_compute("0.01 0.01");
		bench.want.stages = 2;
		bench.want.solver = NULL;
		bench.problem.micro_batch = 2;
		bench.cluster.standard = (struct link){.bandwidth_bytes_s = rates[i].bandwidth, .codec = CODEC_AUTO};
		ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
		must_hold();
		ck_assert_int_eq(plan.link[0].codec_forward, rates[i].codec);
		ck_assert_int_eq(plan.link[0].codec_backward, rates[i].codec);
		bench.cluster.standard.codec = CODEC_NONE;
		ck_assert_int_eq(plan_make(&bench.problem, &none), 0);
		ck_assert_double_le(plan.step_s, none.step_s * 1.005);
		if (rates[i].codec == CODEC_INT8)
			ck_assert_double_lt(plan.step_s, none.step_s * 0.9);
		bench.cluster.standard.codec = CODEC_AUTO;
		bench.want.solver = "uniform";
		ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
		must_hold();
		ck_assert_int_eq(plan.link[0].codec_forward, CODEC_NONE);
		ck_assert_int_eq(plan.link[0].codec_backward, CODEC_NONE);
		tear_down();
	}
}
END_TEST

/* What an instance takes to fit may lack a few buffers: then other cuts are searched, not given up. */
START_TEST(memory_that_is_almost_enough_is_searched_again)
{
	set_problem(3, 12);
	set_compute("0.2 0.1 0.3");
	bench.want.stages = 2;
	bench.problem.micro_batch = 2;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	for (int less = 1; less < 40; less++) {
		double before_s = plan.step_s;

		bench.limit[2] = plan.stage[plan.stage[0].node == 2 ? 0 : 1].memory_bytes - 1;
		ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
		must_hold();
		ck_assert_double_ge(plan.step_s, before_s * (1 - 1e-9));
		if (plan.stage[0].node != 2 && plan.stage[1].node != 2)
			return;		/* driven out, byte by byte */
	}
	ck_abort_msg("never left out");
}
END_TEST

/* The step of two stages on given nodes; INFINITY where memory does not hold them. */
static double step_of_pair(int first, int second, int blocks)
{
	struct plan given = {.micro_batch = 2, .stages = 2, .solver = "exact", .schedule = "eager"}, made;
	double step_s = INFINITY;

	given.stage[0] = (struct plan_stage){.node = first, .blocks = blocks};
	given.stage[1] = (struct plan_stage){.node = second, .first_block = blocks, .blocks = 12 - blocks};
	bench.problem.given = &given;
	error_hold();
	if (plan_make(&bench.problem, &made) == 0)
		step_s = made.step_s;
	error_clear();
	bench.problem.given = NULL;
	return step_s;
}

/* Limits a few bytes below what the best plan takes: what the search holds to fit does not, and without another search
 * the step is half as long again as the best that fits. Limits are lowered by all that lacks, so it may miss the best by
 * a little. */
START_TEST(searches_again_until_the_best_that_fits)
{
	set_problem(3, 12);
	set_compute("0.1 0.3 0.2");
	bench.want.stages = 2;
	bench.problem.micro_batch = 2;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	for (int s = 0; s < 2; s++)
		bench.limit[plan.stage[s].node] = plan.stage[s].memory_bytes - 5 * _i;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	must_hold();
	for (int first = 0; first < 3; first++)
		for (int second = 0; second < 3; second++)
			for (int blocks = 1; blocks <= 12 && first != second; blocks++)
				ck_assert_double_le(plan.step_s, 1.1 * step_of_pair(first, second, blocks));
}
END_TEST

/* Memory that holds the plan of a solver in file order to the byte, and hardly another one: it is among the candidates. */
START_TEST(plans_of_the_other_solvers_are_candidates)
{
	static const char *const others[] = {"uniform", "proportional"};

	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		struct plan other;

		set_problem(4, 7);
		set_compute("0.05 0.2 0.35 0.2");
		bench.want.schedule = "gpipe";
		bench.problem.micro_batch = 2;
		bench.cluster.standard = (struct link){.bandwidth_bytes_s = 1e5, .latency_s = 0.02};
		bench.want.solver = others[i];
		ck_assert_int_eq(plan_make(&bench.problem, &other), 0);
		for (int s = 0; s < other.stages; s++)
			bench.limit[other.stage[s].node] = other.stage[s].memory_bytes;
		bench.want.solver = _i ? "search" : NULL;
		ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
		must_hold();
		ck_assert_double_le(plan.step_s, other.step_s * (1 + 1e-9));
		tear_down();
	}
}
END_TEST

/* A stage alone meets its bound: a gap of 0 is no missing one. */
START_TEST(a_gap_of_nothing_is_said)
{
	struct text text = {0};
	struct json *file;

	set_problem(1, 12);
	set_compute("1");
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	plan_write(&plan, &bench.problem, &text);
	file = json_parse(text.data, text.bytes, "plan.json");
	ck_assert_msg(file != NULL, "%s", text.data);
	ck_assert_double_gt(predicted(file, "simulated_step_s"), 0);
	ck_assert_double_ge(predicted(file, "gap"), 0);
	ck_assert_double_lt(predicted(file, "gap"), 1e-9);
	json_free(file);
	text_release(&text);
}
END_TEST

START_TEST(table_is_for_people)
{
	struct text text = {0};
	char expected[1024], needed[3][32];

	set_small_problem();
	for (int s = 0; s < 3; s++)
		unit_write(plan.stage[s].memory_bytes, UNIT_BYTES, needed[s], 32);
	snprintf(expected, sizeof expected,
		 "plan: manual, 1f1b, 16 micro-batches of 2 sequences\n"
		 "stage  node   blocks    FLOPs  in flight  memory (estimate of limit)\n"
		 "    0  a      emb 0-1   40.0%%          3  %s of 8.58 MiB (declared)\n"
		 "    1  c \"x\"  2         20.0%%          2  %s of unknown\n"
		 "    2  d      head      40.0%%          1  %s of 7.63 MiB (measured)\n"
		 "left out: b (plan.layers says out)\n", needed[0], needed[1], needed[2]);
	plan_print(&plan, &bench.problem, &text);
	ck_assert_str_eq(text.data, expected);
	text_release(&text);
}
END_TEST

static const struct { struct plan_stage stage; const char *words; } labels[] = {
	{{.blocks = 5, .embedding = true}, "emb 0-4"},
	{{.first_block = 5, .blocks = 1}, "5"},
	{{.first_block = 10, .blocks = 2, .head = true}, "10-11 head"},
	{{.first_block = 12, .blocks = 0, .head = true}, "head"},
	{{.blocks = 12, .embedding = true, .head = true}, "emb 0-11 head"},
};

START_TEST(blocks_have_words)
{
	char buffer[64];

	ck_assert_str_eq(blocks_write(&labels[_i].stage, buffer, sizeof buffer),
			 labels[_i].words);
}
END_TEST

START_TEST(nodes_are_left_out_for_a_reason)
{
	char why[128];

	set_problem(3, 9);
	set_compute("3 1 2");
	bench.want.stages = 2;
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert_str_eq(plan.solver, "exact");
	ck_assert(!left_out(&bench.problem, &plan, 0, why, sizeof why));
	ck_assert(left_out(&bench.problem, &plan, 1, why, sizeof why));
	ck_assert_str_eq(why, "plan.stages leaves room for 2 nodes");
	bench.want.solver = "proportional";
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert(!left_out(&bench.problem, &plan, 0, why, sizeof why));
	ck_assert(left_out(&bench.problem, &plan, 1, why, sizeof why));
	ck_assert_str_eq(why, "no faster than the 2 nodes that plan.stages leaves room for");
	bench.want.solver = "uniform";
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert(!left_out(&bench.problem, &plan, 1, why, sizeof why));
	ck_assert(left_out(&bench.problem, &plan, 2, why, sizeof why));
	ck_assert_str_eq(why, "not among the first plan.stages = 2 nodes");
	/* Free to use all, the planner says what the others would cost. */
	bench.want = (struct plan_config){.schedule = "eager"};
	set_compute("30 0.01 20");
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert(left_out(&bench.problem, &plan, 1, why, sizeof why));
	ck_assert_msg(!strncmp(why, "with it a step takes ", 21) && strstr(why, " % more"), "%s", why);
	bench.cluster.standard = (struct link){.bandwidth_bytes_s = 100};
	ck_assert_int_eq(plan_make(&bench.problem, &plan), 0);
	ck_assert(left_out(&bench.problem, &plan, 2, why, sizeof why));
	ck_assert_msg(!strncmp(why, "'a' alone is fastest: with it a step takes ", 43), "%s", why);
}
END_TEST

#define LOOP(cases, test, table) \
	tcase_add_loop_test(cases, test, 0, (int)(sizeof table / sizeof *table))

static Suite *partition_suite(void)
{
	Suite *suite = suite_create("partition");
	TCase *cases = tcase_create("plans");

	tcase_set_timeout(cases, 60);
	tcase_add_checked_fixture(cases, NULL, tear_down);
	LOOP(cases, solvers_give_the_known_layers, solved);
	LOOP(cases, impossible_wishes_are_refused, refused);
	tcase_add_test(cases, table_of_solvers_is_whole);
	tcase_add_test(cases, solvers_apply_where_they_know_enough);
	tcase_add_loop_test(cases, invariants_hold_on_random_problems, 0, 6);
	tcase_add_test(cases, instances_cost_what_plans_cost);
	tcase_add_test(cases, nothing_is_shorter_than_exact);
	tcase_add_loop_test(cases, auto_finds_the_largest_that_fits, 0, 2);
	LOOP(cases, auto_leaves_two_micro_batches_a_stage, sizes);
	tcase_add_test(cases, explicit_size_is_kept);
	LOOP(cases, bad_sizes_are_refused, bad_sizes);
	tcase_add_test(cases, unknown_schedule_is_refused);
	tcase_add_test(cases, in_flight_comes_from_the_schedule);
	tcase_add_test(cases, edges_hold_what_is_under_way);
	LOOP(cases, eager_hides_whole_periods, rounds);
	tcase_add_test(cases, the_busiest_is_the_bottleneck);
	tcase_add_test(cases, very_many_micro_batches_are_ranked_by_their_period);
	tcase_add_test(cases, a_slow_link_is_the_period);
	tcase_add_test(cases, each_direction_of_a_cut_has_its_cost);
	tcase_add_test(cases, slowdown_stretches_the_prediction);
	tcase_add_test(cases, eager_makes_do_with_the_memory_there_is);
	tcase_add_test(cases, a_byte_less_is_a_place_less);
	tcase_add_test(cases, a_free_size_keeps_the_places_of_1f1b);
	tcase_add_test(cases, memory_is_the_allocators_arithmetic);
	tcase_add_test(cases, emulation_takes_memory);
	tcase_add_loop_test(cases, plans_of_the_other_solvers_are_candidates, 0, 2);
	tcase_add_loop_test(cases, searches_again_until_the_best_that_fits, 1, 4);
	tcase_add_test(cases, memory_that_does_not_suffice_is_refused_with_numbers);
	tcase_add_test(cases, refusal_names_a_size_that_fits);
	tcase_add_test(cases, refusal_names_weights_kept_once);
	LOOP(cases, damaged_plans_are_found, damages);
	tcase_add_test(cases, the_next_best_are_ranked);
	tcase_add_test(cases, ranked_plans_place_differently);
	tcase_add_test(cases, wishes_that_are_not_kept_are_found);
	tcase_add_test(cases, plan_is_the_same_bytes_every_time);
	tcase_add_test(cases, file_says_what_was_decided);
	tcase_add_test(cases, file_says_what_was_predicted);
	tcase_add_test(cases, file_says_what_was_proved);
	tcase_add_test(cases, codecs_are_chosen_by_what_they_cost);
	tcase_add_test(cases, memory_that_is_almost_enough_is_searched_again);
	tcase_add_test(cases, a_gap_of_nothing_is_said);
	tcase_add_test(cases, table_is_for_people);
	LOOP(cases, blocks_have_words, labels);
	tcase_add_test(cases, nodes_are_left_out_for_a_reason);
	suite_add_tcase(suite, cases);
	return suite;
}

int main(void)
{
	return run_suite(partition_suite());
}
