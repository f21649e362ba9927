/*
 * tests/check_cost.c - where the seconds of a plan come from: measured beats declared, declared beats nothing, and
 * whoever is held to a declared pace is held to that, whatever was measured.
 *
 * links: partition
 */
#include "partition/internal.h"
#include "tests/suite.h"

#include <math.h>
#include <string.h>

static struct node nodes[] = {{.name = "a", .compute_flops = 1e9}, {.name = "b", .compute_flops = 2e9}, {.name = "c"}};
static struct cluster cluster = {.nodes = {nodes, 3}, .standard = {.bandwidth_bytes_s = 1e6, .latency_s = 1e-3}};
static struct model_config model = {
	.blocks = 4, .width = 16, .heads = 2, .kv_heads = 2, .head_size = 8, .mlp = 64, .vocabulary = 100,
	.positions = 64, .qkv_bias = true, .out_bias = true, .mlp_bias = true,
};
static struct plan_config want = {.schedule = "eager"};
static struct profile *profile;
static struct problem problem;

static void set_up(void)
{
	model.family = family_find("gpt2");
	profile = profile_open(3);
	problem = (struct problem){.cluster = &cluster, .profile = profile, .model = &model, .want = &want, .batch = 4,
				   .tokens = 32, .slowdown = 2};
}

static void tear_down(void)
{
	profile_free(profile);
}

#define assert_near(value, expected) ck_assert_double_lt(fabs((value) - (expected)), 1e-9 * fabs(expected) + 1e-15)

/* Two sequences of 32 tokens on node 1, which is declared and measured. */
START_TEST(measured_beats_declared)
{
	struct node_profile *b = &profile->node[1];
	struct node_cost cost;

	b->block_forward = (struct fit){1e-3, 1e-4, 1e-6, 0, false, ORIGIN_MEASURED};
	b->block_backward = (struct fit){2e-3, 0, 0, 0, false, ORIGIN_MEASURED};
	b->head_forward = (struct fit){0, 1e-5, 0, 0, false, ORIGIN_MEASURED};
	b->embedding_forward = (struct fit){3e-3, 0, 0, 0, false, ORIGIN_MEASURED};
	b->update_s = 5e-6;
	cost = cost_node(&problem, 1, 2);
	ck_assert(cost.known);
	assert_near(cost.block_forward_s, 1e-3 + 64 * 1e-4 + 64 * 32 * 1e-6);	/* not times slowdown: it is in there */
	assert_near(cost.block_backward_s, 2e-3);
	assert_near(cost.head_forward_s, 64e-5);
	assert_near(cost.embedding_forward_s, 3e-3);
	assert_near(cost.update_s, 5e-6);
	ck_assert_int_eq(cost_origin(&problem, 1), ORIGIN_MEASURED);
}
END_TEST

/* Node 0 is only declared, node 2 not even that. */
START_TEST(declared_beats_nothing)
{
	struct node_cost cost = cost_node(&problem, 0, 2);

	assert_near(cost.block_forward_s, 2 * 64 * model_block_forward_flops(&model, 32) / 1e9);
	ck_assert_int_eq(cost_origin(&problem, 0), ORIGIN_DECLARED);
	ck_assert(!cost_node(&problem, 2, 2).known);
	ck_assert_int_eq(cost_origin(&problem, 2), ORIGIN_GUESSED);
	problem.profile = NULL;
	assert_near(cost_node(&problem, 0, 2).block_forward_s, cost.block_forward_s);
}
END_TEST

static struct plan two_stages(void)
{
	struct plan plan = {.stages = 2, .micro_batch = 2, .micro_batches = 2, .schedule = "eager", .order = "strict"};

	plan.stage[0] = (struct plan_stage){.node = 0, .blocks = 2, .embedding = true};
	plan.stage[1] = (struct plan_stage){.node = 1, .first_block = 2, .blocks = 2, .head = true};
	cost_fill(&problem, &plan);
	return plan;
}

/* The way forth is measured, the way back declared; a cut that is slower when both directions are busy is that slow. */
START_TEST(links_likewise)
{
	struct link_profile *link = profile_link(profile, 0, 1);
	struct plan plan;

	*link = (struct link_profile){ORIGIN_MEASURED, 7e-3, 4e5, 3.9e5, 0, 1, 0, false, false, 0, 0};
	plan = two_stages();
	assert_near(plan.link[0].seconds_forward, plan.link[0].bytes_forward / 4e5);
	assert_near(plan.link[0].latency_forward, 7e-3);
	assert_near(plan.link[0].seconds_backward, plan.link[0].bytes_backward / 1e6 * 2);
	assert_near(plan.link[0].latency_backward, 2e-3);
	ck_assert_int_eq(link_origin(&problem, 0, 1), ORIGIN_MEASURED);
	ck_assert_int_eq(link_origin(&problem, 1, 0), ORIGIN_DECLARED);
	ck_assert_str_eq(plan_origins(&plan, &problem), "measured and declared");
	link->both_bytes_s = 2e5;
	plan = two_stages();
	assert_near(plan.link[0].seconds_forward, plan.link[0].bytes_forward / 2e5);
	cluster.standard.trace = "wifi.csv";	/* one moment of it was measured: the mean counts */
	plan = two_stages();
	assert_near(plan.link[0].seconds_forward, plan.link[0].bytes_forward / 1e6 * 2);
	ck_assert_int_eq(link_origin(&problem, 0, 1), ORIGIN_DECLARED);
	cluster.standard.trace = NULL;
}
END_TEST

/* The pace of an emulated node is the declared one, though the plan reckons with the measured one. */
START_TEST(pace_is_declared)
{
	double forward_s, backward_s, each = 2 * 64 / 2e9;
	struct plan plan;

	profile->node[1].block_forward = (struct fit){1, 0, 0, 0, false, ORIGIN_MEASURED};
	plan = two_stages();
	assert_near(plan.stage[1].forward_s, 2.0);
	plan_pace(&problem, &plan, 1, &forward_s, &backward_s);
	assert_near(forward_s, each * (2 * model_block_forward_flops(&model, 32) + model_head_flops(&model)));
	assert_near(backward_s, each * 2 * (model_block_flops(&model, 32) - model_block_forward_flops(&model, 32)));
}
END_TEST

/* What backward computes again takes its time, in the prediction and in the pace; what was measured, was measured so. */
START_TEST(what_is_computed_again_takes_time)
{
	double C = model.width, products = 2 * 12 * C * C, up = 2 * 4 * C * C, each = 2 * 64 / 2e9;
	double forward_s, backward_s, more = _i == RECOMPUTE_MLP ? up : model_block_forward_flops(&model, 32) - up;
	struct plan kept = two_stages(), plan;

	problem.recompute = (enum recompute)_i;
	plan = two_stages();
	ck_assert_double_eq(model_block_again_flops(&model, 0, RECOMPUTE_BLOCK), products - up);
	assert_near(model_block_again_flops(&model, 32, problem.recompute), more);
	assert_near(plan.stage[1].backward_s - kept.stage[1].backward_s, 2 * more * each);
	ck_assert_double_eq(plan.stage[1].forward_s, kept.stage[1].forward_s);
	plan_pace(&problem, &plan, 1, &forward_s, &backward_s);
	ck_assert_double_eq(forward_s, plan.stage[1].forward_s);
	ck_assert_double_eq(backward_s, plan.stage[1].backward_s);
	profile->node[1].block_forward = profile->node[1].block_backward =
		(struct fit){1, 0, 0, 0, false, ORIGIN_MEASURED};
	assert_near(cost_node(&problem, 1, 2).block_backward_s, 1.0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cost");
	TCase *tests = tcase_create("cost");

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, measured_beats_declared);
	tcase_add_test(tests, declared_beats_nothing);
	tcase_add_test(tests, links_likewise);
	tcase_add_test(tests, pace_is_declared);
	tcase_add_loop_test(tests, what_is_computed_again_takes_time, RECOMPUTE_MLP, RECOMPUTE_BLOCK + 1);
	suite_add_tcase(suite, tests);
	return run_suite(suite);
}
