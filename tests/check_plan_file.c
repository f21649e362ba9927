/*
 * tests/check_plan_file.c - plans that are read again, edited, refused; and what is explained of them.
 *
 * links: partition pipeline model profiler comm base
 */
#include "partition/internal.h"
#include "tests/folder.h"
#include "tests/suite.h"

#include <stdlib.h>
#include <string.h>

enum { NODES = 3, BLOCKS = 12, TOKENS = 32 };

static struct node node[NODES];
static struct cluster cluster;
static struct model_config model;
static struct plan_config want;
static int threads[NODES] = {1, 1, 1}, window[BLOCKS];
static double limit[NODES], overhead[NODES] = {1000, 1000, 1000};
static struct problem problem;
static struct plan plan;
static char path[300];

/* Three nodes of 1, 2 and 1 GFLOPS, 10 Mbit/s and 5 ms between them; a small GPT-2 of 12 blocks. */
static void set_up(void)
{
	static const char *const names[] = {"lab", "office", "attic"};
	struct lora_config lora = {.rank = 2, .alpha = 2};
	static const char *targets[] = {"attention"};

	folder_open();
	snprintf(path, sizeof path, "%s/plan.json", folder);
	lora.targets = (struct texts){targets, 1};
	for (int i = 0; i < NODES; i++)
		node[i] = (struct node){.name = names[i], .compute_flops = i == 1 ? 2e9 : 1e9};
	cluster = (struct cluster){.nodes = {node, NODES},
				   .standard = {.bandwidth_bytes_s = 1.25e6, .latency_s = 5e-3}};
	model = (struct model_config){
		.family = family_find("gpt2"), .blocks = BLOCKS, .width = 256, .heads = 2, .kv_heads = 2,
		.head_size = 128, .mlp = 1024, .positions = 64, .end_token = -1, .tied = true, .vocabulary = 100,
		.qkv_bias = true, .out_bias = true, .mlp_bias = true, .window = window, .digest = {1, 2},
	};
	want = (struct plan_config){.schedule = "eager", .solver = "proportional"};
	problem = (struct problem){
		.cluster = &cluster, .model = &model, .want = &want, .batch = 16, .tokens = TOKENS, .slowdown = 1,
		.threads = threads, .memory_limit_bytes = limit, .overhead_bytes = overhead,
		.lora = lora_resolve(&model, &lora),
	};
	ck_assert_ptr_nonnull(problem.lora);
	ck_assert_int_eq(plan_make(&problem, &plan), 0);
}

static void tear_down(void)
{
	lora_free((struct lora *)problem.lora);
	folder_close();
}

static void save(const char *text)
{
	ck_assert_int_eq(file_replace(path, text, strlen(text)), 0);
}

/* The plan's file, with one text in it replaced (null: not). */
static void save_edited(const char *from, const char *to)
{
	struct text text = {0}, other = {0};
	char *at;

	plan_write(&plan, &problem, &text);
	at = from ? strstr(text.data, from) : text.data;
	ck_assert_msg(at != NULL, "'%s' is not in the file", from);
	text_put(&other, text.data, (size_t)(at - text.data));
	text_add(&other, "%s%s", from ? to : "", at + (from ? strlen(from) : 0));
	save(other.data);
	text_release(&text);
	text_release(&other);
}

START_TEST(plan_that_is_read_again_is_the_same)
{
	struct plan given, again;

	save_edited(NULL, NULL);
	ck_assert_int_eq(plan_read(path, &problem, &given), 0);
	problem.given = &given;
	ck_assert_int_eq(plan_make(&problem, &again), 0);
	ck_assert_mem_eq(&again, &plan, sizeof plan);
}
END_TEST

/* What a solver proved is not in the decisions: all else of the planner's plan is the same again, with the codecs that it
 * chose. */
START_TEST(planned_codecs_are_read_again)
{
	struct plan given, again;

	want.solver = "exact";
	want.stages = 3;
	cluster.standard.codec = CODEC_AUTO;
	cluster.standard.bandwidth_bytes_s = 5e5;
	ck_assert_int_eq(plan_make(&problem, &plan), 0);
	ck_assert(plan.link[0].codec_forward != CODEC_NONE || plan.link[1].codec_forward != CODEC_NONE);
	save_edited(NULL, NULL);
	ck_assert_int_eq(plan_read(path, &problem, &given), 0);
	problem.given = &given;
	ck_assert_int_eq(plan_make(&problem, &again), 0);
	ck_assert_double_eq(again.least_bound_s, 0);
	again.model_s = plan.model_s;
	again.model_minimum_s = plan.model_minimum_s;
	again.model_proved_s = plan.model_proved_s;
	again.least_bound_s = plan.least_bound_s;
	ck_assert_mem_eq(&again, &plan, sizeof plan);
}
END_TEST

START_TEST(edited_plan_is_taken)
{
	struct plan given, edited;
	char why[256] = "";

	save_edited("\"schedule\":\"eager\"", "\"schedule\":\"gpipe\"");
	ck_assert_int_eq(plan_read(path, &problem, &given), 0);
	given.stage[0].node = 2;		/* as if these had been edited too */
	given.stage[2].node = 0;
	problem.given = &given;
	ck_assert_int_eq(plan_make(&problem, &edited), 0);
	ck_assert_msg(plan_check(&edited, &problem, why, sizeof why) == 0, "%s", why);
	ck_assert_str_eq(edited.schedule, "gpipe");
	ck_assert_int_eq(edited.stage[0].node, 2);
	ck_assert_int_eq(edited.stage[0].in_flight, edited.micro_batches);
}
END_TEST

static const struct { const char *from, *to, *said; } bad[] = {
	{"\"version\":1", "\"version\":2", "version: must be 1"},
	{"\"micro_batch\":", "\"micro_batch\":3,\"was\":", "3 does not divide train.batch 16"},
	{"\"micro_batch\":", "\"micro_batch\":\"x\",\"was\":", "micro_batch: must be a whole number"},
	{"\"eager\"", "\"lazy\"", "schedule: \"lazy\" is none of eager, 1f1b, gpipe"},
	{"\"proportional\"", "\"oracle\"", "solver: \"oracle\" is none of "},
	{"\"model_digest\":\"", "\"model_digest\":\"f", "of another model"},
	{"[\"office\"]", "[\"ofice\"]", "did you mean \"office\"?"},
	{"[\"office\"]", "[\"lab\"]", "has stage 0 already"},
	{"[\"office\"]", "[\"lab\",\"office\"]", "a list of one node"},
	{"[\"office\"]", "7", "a list of one node"},
	{"\"first_block\":0", "\"first_block\":1", "block 0 is on no stage"},
	{"\"first_block\":0", "\"first_block\":-1", "whole number"},
	{"\"last_block\":11", "\"last_block\":12", "the model's last is 11"},
	{"\"last_block\":11", "\"last_block\":10", "the stages end with block 10"},
	{"\"last_block\":11", "\"last_block\":0", "before its first"},
	{"\"stages\":[", "\"stages\":[],\"were\":[", "1 to 3 stages"},
	{"\"stages\":[", "\"stages\":7,\"were\":[", "1 to 3 stages"},
	{"\"stages\":[", "\"stages\":[1,2,3,4],\"were\":[", "1 to 3 stages"},
	{"\"stages\":[", "\"stages\":[1,[],{}],\"were\":[", "stages[2].nodes"},
	{"\"codec\":\"none\"", "\"codec\":\"auto\"", "stages[0].forward_link.codec: \"auto\" is none of none, bf16, int8, int4"},
	{"{", "[{", "edgepipe-"},
};

START_TEST(bad_plan_is_refused)
{
	struct plan given;

	save_edited(bad[_i].from, bad[_i].to);
	error_hold();
	ck_assert_msg(plan_read(path, &problem, &given) == -1, "case %d was taken", _i);
	ck_assert_msg(strstr(error_text(), bad[_i].said) != NULL, "case %d: %s", _i, error_text());
}
END_TEST

START_TEST(all_errors_are_said)
{
	struct plan given;

	save("{\"version\":3,\"stages\":[{\"nodes\":[\"x\"]}]}");
	error_hold();
	ck_assert_int_eq(plan_read(path, &problem, &given), -1);
	ck_assert_ptr_nonnull(strstr(error_text(), "version"));
	ck_assert_ptr_nonnull(strstr(error_text(), "micro_batch"));
	ck_assert_ptr_nonnull(strstr(error_text(), "there is no node \"x\""));
	error_hold();
	ck_assert_int_eq(plan_read(path, &problem, &given), -1);
	ck_assert_ptr_nonnull(strstr(error_text(), "': schedule: is missing; it must be one of eager, 1f1b, gpipe\n"));
	ck_assert_ptr_null(strstr(error_text(), ": error: plan"));
	ck_assert_int_eq(error_code(), EXIT_CONFIG);
}
END_TEST

/* The slow links are the bottleneck: codecs help most, twice the compute of a node that waits does not. */
START_TEST(explanation_names_the_bottleneck)
{
	struct text text = {0};

	cluster.standard.bandwidth_bytes_s = 1e4;
	ck_assert_int_eq(plan_make(&problem, &plan), 0);
	ck_assert_int_eq(plan_explain(&plan, &problem, &text), 0);
	ck_assert_ptr_nonnull(strstr(text.data, "solver uniform: "));
	/* one node alone needs no link: the planner's step is a fraction of this one's */
	ck_assert_ptr_nonnull(strstr(text.data, "solver search: "));
	ck_assert_ptr_nonnull(strstr(text.data, "solver exact: "));
	ck_assert_double_lt(strtod(strstr(strstr(text.data, "solver exact: "), "step, ") + 6, NULL), 0.5);
	ck_assert_ptr_nonnull(strstr(text.data, "codec int4 on every link"));
	ck_assert_ptr_nonnull(strstr(text.data, "codec int8 on every link"));
	ck_assert_ptr_null(strstr(text.data, "attic computing"));
	ck_assert(strstr(text.data, "int4 on") < strstr(text.data, "bf16 on"));
	text_release(&text);
}
END_TEST

START_TEST(nothing_is_explained_without_numbers)
{
	struct text text = {0};

	for (int i = 0; i < NODES; i++)
		node[i].compute_flops = 0;
	ck_assert_int_eq(plan_make(&problem, &plan), 0);
	error_hold();
	ck_assert_int_eq(plan_explain(&plan, &problem, &text), -1);
	ck_assert_int_eq(error_code(), EXIT_CONFIG);
	text_release(&text);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("plan_file");
	TCase *cases = tcase_create("cases");

	tcase_add_checked_fixture(cases, set_up, tear_down);
	tcase_add_test(cases, plan_that_is_read_again_is_the_same);
	tcase_add_test(cases, planned_codecs_are_read_again);
	tcase_add_test(cases, edited_plan_is_taken);
	tcase_add_loop_test(cases, bad_plan_is_refused, 0, (int)(sizeof bad / sizeof *bad));
	tcase_add_test(cases, all_errors_are_said);
	tcase_add_test(cases, explanation_names_the_bottleneck);
	tcase_add_test(cases, nothing_is_explained_without_numbers);
	suite_add_tcase(suite, cases);
	return run_suite(suite);
}
