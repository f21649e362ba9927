/*
 * tests/check_profile.c - fits, and profile.json: what is written is read again, what is wrong in a file is named, and
 * a profile of something else is refused.
 *
 * links: profiler base
 */
#include "profiler/profiler.h"
#include "tests/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* -- fits ---------------------------------------------------------------------------------- */

static const struct { double c0, c1, c2; } truths[] = {
	{1e-4, 3e-6, 2e-9}, {0, 3e-6, 2e-9}, {1e-4, 0, 2e-9}, {1e-4, 3e-6, 0},
	{0, 3e-6, 0},       {5e-3, 0, 0},    {0, 0, 2e-9},
};
static const struct { double n, T; } sizes[] = {
	{128, 128}, {256, 128}, {256, 256}, {512, 256}, {1024, 256}, {2048, 256},
};

/* The samples of a truth, the odd ones longer by `noise`, the even ones shorter. */
static int draw(int truth, double noise, struct timing *sample)
{
	for (int i = 0; i < COUNT(sizes); i++) {
		struct fit fit = {truths[truth].c0, truths[truth].c1, truths[truth].c2, 0, false, 0};

		sample[i] = (struct timing){sizes[i].n, sizes[i].T,
					    fit_at(&fit, sizes[i].n, sizes[i].T), 1};
		sample[i].s *= i % 2 ? 1 + noise : 1 - noise;
	}
	return COUNT(sizes);
}

START_TEST(fit_finds_the_coefficients)
{
	struct timing sample[COUNT(sizes)];
	struct fit fit = fit_samples(sample, draw(_i, 0, sample));

	ck_assert_double_lt(fabs(fit.c0 - truths[_i].c0), 1e-9 + 1e-6 * truths[_i].c0);
	ck_assert_double_lt(fabs(fit.c1 - truths[_i].c1), 1e-12 + 1e-6 * truths[_i].c1);
	ck_assert_double_lt(fabs(fit.c2 - truths[_i].c2), 1e-15 + 1e-6 * truths[_i].c2);
	ck_assert_double_lt(fit.error, 1e-6);
	ck_assert(!fit.noisy);
	ck_assert_int_eq(fit.origin, ORIGIN_MEASURED);
}
END_TEST

/* 5 % each way is within what one accepts; 40 % is said to be noise. */
START_TEST(fit_knows_its_error)
{
	struct timing sample[COUNT(sizes)];
	struct fit fit = fit_samples(sample, draw(_i, 0.05, sample));

	ck_assert_double_gt(fit.error, 0.01);
	ck_assert_double_lt(fit.error, 0.12);
	ck_assert(!fit.noisy);
	fit = fit_samples(sample, draw(_i, 0.4, sample));
	ck_assert_double_gt(fit.error, FIT_NOISY);
	ck_assert(fit.noisy);
}
END_TEST

/* Times that fall with the size would want c1 below 0: more tokens never take less. */
START_TEST(fit_has_no_negative_coefficient)
{
	struct timing sample[] = {{128, 128, 3e-3, 1}, {256, 128, 2.5e-3, 1}, {512, 128, 2e-3, 1}};
	struct fit fit = fit_samples(sample, 3);

	ck_assert_double_ge(fit.c0, 0);
	ck_assert_double_ge(fit.c1, 0);
	ck_assert_double_ge(fit.c2, 0);
	ck_assert(fit.noisy);
}
END_TEST

/* A sample of weight counts more than the others; one or two samples are met exactly. */
START_TEST(fit_takes_few_samples_and_weights)
{
	struct timing one[] = {{512, 256, 4e-3, 1}};
	struct timing two[] = {{128, 128, 1.3e-3, 1}, {512, 256, 4e-3, 1}};
	struct timing three[] = {{128, 0, 1e-3, 1}, {256, 0, 3e-3, 100}, {512, 0, 4e-3, 1}};
	struct fit fit = fit_samples(one, 1);

	ck_assert_double_lt(fabs(fit_at(&fit, 512, 256) / 4e-3 - 1), 1e-9);
	fit = fit_samples(two, 2);
	ck_assert_double_lt(fabs(fit_at(&fit, 512, 256) / 4e-3 - 1), 1e-9);
	ck_assert_double_lt(fabs(fit_at(&fit, 128, 128) / 1.3e-3 - 1), 1e-9);
	fit = fit_samples(three, 3);
	ck_assert_double_lt(fabs(fit_at(&fit, 256, 0) / 3e-3 - 1), 0.02);
}
END_TEST

/* -- the file ------------------------------------------------------------------------------ */

static struct fit some_fit(int i)
{
	return (struct fit){1e-4 * i, 2e-6 * i, 3e-9 * i, 0.01 * i, i == 3, i == 4 ? ORIGIN_DECLARED
									       : ORIGIN_MEASURED};
}

static void fill_node(struct node_profile *node, const char *name)
{
	snprintf(node->name, sizeof node->name, "%s", name);
	node->hardware = (struct hardware){.cpu = "A \"CPU\"", .isa = "avx2 avx512", .host = "h", .cores = 4,
					   .sockets = 1, .numa_nodes = 1, .quota_cpus = 0.4,
					   .cache_bytes = {32768, 1048576, 33554432}, .memory_bytes = 8e9,
					   .memory_free_bytes = 7e9, .gpus = ""};
	node->threads = 2;
	node->held_flops = 11e9;
	node->block_forward = some_fit(1);
	node->block_backward = some_fit(2);
	node->embedding_forward = some_fit(3);
	node->embedding_backward = some_fit(0);
	node->head_forward = some_fit(4);
	node->head_backward = some_fit(5);
	node->update_s = 2e-4;
	node->matmul_flops = 5e10;
	node->process_bytes = 3e7;
	node->limit_bytes = 4e9;
}

static struct profile *some_profile(void)
{
	static const char *const names[] = {"library", "lab", "kiosk"};
	struct profile *profile = profile_open(3);
	struct profile_key key = {"edgepipe 1 (abc, Release)", {1, 2}, {3, 4}, 8, "c_attn c_proj", "fp32", "auto",
				  "mlp", true, true, 2.5, 64};

	profile->key = key;
	for (int i = 0; i < 3; i++)
		fill_node(&profile->node[i], names[i]);
	for (int i = 0; i < 9; i++)
		if (i / 3 != i % 3)
			profile->link[i] = (struct link_profile){ORIGIN_MEASURED, 1e-3 * i, 1e6 * i, 9e5 * i, 0,
								 65536, 0.02, i == 5, true, 1e6 * i, 1e-3 * i};
	return profile;
}

static struct profile *parse(const struct text *text)
{
	return profile_parse(text->data, text->bytes, "p.json");
}

START_TEST(what_is_written_is_read)
{
	struct profile *profile = some_profile(), *other;
	struct text text = {0}, again = {0};

	profile_write(profile, &text);
	other = parse(&text);
	ck_assert_ptr_nonnull(other);
	profile_write(other, &again);
	ck_assert_str_eq(text.data, again.data);
	ck_assert(digest_equal(other->digest, digest_of(text.data, text.bytes)));
	ck_assert(digest_equal(profile_identity(profile), profile_identity(other)));
	ck_assert_str_eq(other->node[1].hardware.cpu, "A \"CPU\"");
	ck_assert_int_eq(other->node[0].head_forward.origin, ORIGIN_DECLARED);
	ck_assert(other->node[2].embedding_forward.noisy);
	ck_assert_double_eq(other->node[2].block_backward.c2, 6e-9);
	ck_assert_double_eq(profile_link(other, 1, 2)->both_bytes_s, 4.5e6);
	ck_assert(profile_link(other, 1, 2)->noisy);
	ck_assert_double_eq(profile_link(other, 1, 2)->held_latency_s, 5e-3);
	profile_free(other);
	profile_free(profile);
	text_release(&text);
	text_release(&again);
}
END_TEST

/* What is not known is null, and is read as such. */
START_TEST(what_is_not_known_is_read)
{
	struct profile *profile = profile_open(2), *other;
	struct text text = {0};

	profile->key.lora_rank = profile->key.tokens = 1;
	snprintf(profile->node[0].name, 64, "a");
	snprintf(profile->node[1].name, 64, "b");
	profile_write(profile, &text);
	other = parse(&text);
	ck_assert_ptr_nonnull(other);
	ck_assert_int_eq(other->node[0].threads, 0);
	ck_assert_str_eq(other->node[0].hardware.cpu, "");
	ck_assert_int_eq(other->node[0].block_forward.origin, ORIGIN_GUESSED);
	ck_assert(!profile_link(other, 0, 1)->held);
	profile_free(other);
	profile_free(profile);
	text_release(&text);
}
END_TEST

/* One change to a sound file, and what must be said of it. */
static const struct { const char *find, *put, *said; } faults[] = {
	{"\"version\":1", "\"version\":2", "version: 2, not 1"},
	{"\"c0\":0.0001", "\"c0\":NaN", "p.json:"},			/* a place in the text */
	{"\"c0\":0.0001", "\"c0\":-0.0001", "nodes[0].block_forward.c0: -0.0001, not a number of at least 0"},
	{"\"c1\":2e-06", "\"c1\":null", "nodes[0].block_forward.c1: null"},
	{"\"c1\":2e-06", "\"c9\":2e-06", "nodes[0].block_forward.c1: missing"},
	{"\"source\":\"measured\",\"c0\"", "\"source\":\"felt\",\"c0\"", "source: \"felt\", not \"measured\""},
	{"\"threads\":2", "\"threads\":0", "nodes[0].threads: 0, not a whole number of at least 1"},
	{"\"node\":\"lab\"", "\"node\":\"library\"", "nodes[1].node: \"library\" stands there twice"},
	{"\"from\":\"library\"", "\"from\":\"attic\"", "links[0].from: \"attic\", not a node"},
	{"\"latency_s\":0.001,", "\"latency_s\":\"1 ms\",", "links[0].latency_s: \"1 ms\""},
	{"\"noisy\":false", "\"noisy\":0", "noisy: 0, not true or false"},
	{"\"lora\":{", "\"lora\":[],\"x\":{", "lora: a list, not a map"},
	{"\"model_digest\":\"", "\"model_digest\":\"zz", "model_digest: "},
	{"\"nodes\":[", "\"nodes\":[],\"x\":[", "nodes: not a list of 1 to"},
	{"\"to\":\"kiosk\"", "\"to\":\"lab\"", "links[1].to: this link stands there twice"},
};

/* The text with one occurrence replaced; the caller frees. */
static char *replaced(const struct text *text, const char *find, const char *put)
{
	const char *at = strstr(text->data, find);
	struct text out = {0};

	ck_assert_msg(at != NULL, "%s is not in it", find);
	text_add(&out, "%.*s%s%s", (int)(at - text->data), text->data, put, at + strlen(find));
	return out.data;
}

START_TEST(faults_are_named)
{
	struct profile *profile = some_profile();
	struct text text = {0};
	char *broken;

	profile_write(profile, &text);
	broken = replaced(&text, faults[_i].find, faults[_i].put);
	error_hold();
	ck_assert_ptr_null(profile_parse(broken, strlen(broken), "p.json"));
	ck_assert_int_eq(error_code(), EXIT_DATA);
	ck_assert_msg(strstr(error_text(), faults[_i].said) != NULL, "\"%s\" is not in: %s", faults[_i].said,
		      error_text());
	error_clear();
	free(broken);
	profile_free(profile);
	text_release(&text);
}
END_TEST

/* All of several errors; a file that was cut off, wherever; a link that is not there. */
START_TEST(broken_files_are_refused)
{
	struct profile *profile = some_profile();
	struct text text = {0};
	char *one, *two, *cut;

	profile_write(profile, &text);
	one = replaced(&text, "\"c1\":2e-06", "\"c1\":-1");
	two = replaced(&(struct text){one, strlen(one), 0}, "\"threads\":2", "\"threads\":\"two\"");
	error_hold();
	ck_assert_ptr_null(profile_parse(two, strlen(two), "p.json"));
	ck_assert(strstr(error_text(), "block_forward.c1: -1") && strstr(error_text(), "threads: \"two\""));
	error_mute();
	for (size_t bytes = 0; bytes < text.bytes - 2; bytes += 97)
		ck_assert_ptr_null(profile_parse(text.data, bytes, "p.json"));
	error_unmute();
	error_clear();
	error_hold();
	cut = xcopy(text.data);
	*strstr(cut, ",\n  {\"from\":\"kiosk\",\"to\":\"lab\"") = 0;
	cut = realloc(cut, strlen(cut) + 8);
	memcpy(cut + strlen(cut), "]}\n", 4);
	ck_assert_ptr_null(profile_parse(cut, strlen(cut), "p.json"));
	ck_assert_msg(strstr(error_text(), "the one from \"kiosk\" to \"lab\" is missing") != NULL, "%s", error_text());
	error_clear();
	free(cut);
	free(one);
	free(two);
	profile_free(profile);
	text_release(&text);
}
END_TEST

/* -- of what it is ------------------------------------------------------------------------- */

enum difference { NOTHING, BUILD, MODEL, RANK, TARGETS, PRECISION, KERNELS, RECOMPUTE, LINKS, COMPUTE, SLOWDOWN, NODE, CPU, CORES,
		  QUOTA, THREADS, HELD, HELD_LINK, DIFFERENCES };

static const char *const named[DIFFERENCES] = {
	[BUILD] = "measured by another build: \"edgepipe 1 (abc, Release)\"",
	[MODEL] = "another model",
	[RANK] = "lora.rank 8, now it is 16",
	[TARGETS] = "lora.targets \"c_attn c_proj\", now it is \"q_proj\"",
	[PRECISION] = "train.precision \"fp32\"",
	[KERNELS] = "train.kernels \"auto\"",
	[RECOMPUTE] = "measured with train.recompute \"mlp\", now it is \"block\"",
	[LINKS] = "links held to declared numbers, now they are as they are",
	[COMPUTE] = "nodes held to declared numbers",
	[SLOWDOWN] = "emulate.slowdown 2.5, now it is 3",
	[NODE] = "there is no node \"attic\"",
	[CPU] = "node \"lab\" was measured on A \"CPU\" (avx2 avx512), now it is B (avx2 avx512)",
	[CORES] = "node \"lab\" was measured with 4 usable cores, now there are 2",
	[QUOTA] = "a quota of 0.4 cores",
	[THREADS] = "node \"lab\" was measured with 2 threads, now it has 1",
	[HELD] = "node \"lab\" was held to 11 GFLOPS, now it declares 12 GFLOPS",
	[HELD_LINK] = "the link library > lab was held to 8 Mbit/s, 1 ms, now it declares 16 Mbit/s, 1 ms",
};

static void change(struct profile *want, enum difference what)
{
	struct node_profile *lab = &want->node[1];

	switch (what) {
	case BUILD: want->key.build.low++; break;
	case MODEL: want->key.model.low++; break;
	case RANK: want->key.lora_rank = 16; break;
	case TARGETS: snprintf(want->key.lora_targets, 256, "q_proj"); break;
	case PRECISION: snprintf(want->key.precision, 16, "bf16"); break;
	case KERNELS: snprintf(want->key.kernels, 16, "reference"); break;
	case RECOMPUTE: snprintf(want->key.recompute, 16, "block"); break;
	case LINKS: want->key.emulate_links = false; break;
	case COMPUTE: want->key.emulate_compute = false; break;
	case SLOWDOWN: want->key.slowdown = 3; break;
	case NODE: snprintf(lab->name, 64, "attic"); break;
	case CPU: snprintf(lab->hardware.cpu, 128, "B"); break;
	case CORES: lab->hardware.cores = 2; break;
	case QUOTA: lab->hardware.quota_cpus = 0; break;
	case THREADS: lab->threads = 1; break;
	case HELD: lab->held_flops = 12e9; break;
	case HELD_LINK: profile_link(want, 0, 1)->held_bytes_s = 2e6; break;
	default: break;
	}
}

START_TEST(a_profile_of_something_else_is_refused)
{
	struct profile *profile = some_profile(), *want = some_profile();

	change(want, (enum difference)_i);
	ck_assert_int_eq(digest_equal(profile_identity(profile), profile_identity(want)), _i == NOTHING);
	error_hold();
	ck_assert_int_eq(profile_check(profile, want, "p.json"), _i == NOTHING ? 0 : -1);
	ck_assert_int_eq(error_code(), _i == NOTHING ? 0 : EXIT_CONFIG);
	if (_i != NOTHING)
		ck_assert_msg(strstr(error_text(), named[_i]) != NULL, "\"%s\" is not in: %s", named[_i], error_text());
	error_clear();
	profile_free(profile);
	profile_free(want);
}
END_TEST

/* Another length of sequences is another entry of the cache, but a file that is given serves, with a warning. */
START_TEST(another_sequence_is_another_profile)
{
	struct profile *profile = some_profile(), *want = some_profile();

	want->key.tokens = 256;
	ck_assert(!digest_equal(profile_identity(profile), profile_identity(want)));
	ck_assert_int_eq(profile_check(profile, want, "p.json"), 0);
	ck_assert_int_eq(profile->key.tokens, 64);
	profile_free(profile);
	profile_free(want);
}
END_TEST

/* The file's nodes in another order, and one more: a part of a cluster needs no new profile. */
START_TEST(nodes_are_put_in_order)
{
	struct profile *profile = some_profile(), *want = profile_open(2);

	want->key = profile->key;
	fill_node(&want->node[0], "kiosk");
	fill_node(&want->node[1], "library");
	want->node[0].hardware.cpu[0] = 0;
	want->node[0].threads = 0;
	profile->node[2].threads = 7;
	ck_assert_int_eq(profile_check(profile, want, "p.json"), 0);
	ck_assert_int_eq(profile->nodes, 2);
	ck_assert_str_eq(profile->node[0].name, "kiosk");
	ck_assert_int_eq(profile->node[0].threads, 7);
	ck_assert_double_eq(profile_link(profile, 0, 1)->latency_s, 6e-3);
	ck_assert_double_eq(profile_link(profile, 1, 0)->latency_s, 2e-3);
	profile_free(profile);
	profile_free(want);
}
END_TEST

/* A cut is busy both ways: where that costs rate, it is what the cut has. */
START_TEST(rate_of_a_cut)
{
	struct link_profile link = {.bandwidth_bytes_s = 100, .both_bytes_s = 95};

	ck_assert_double_eq(link_profile_rate(&link), 100);
	link.both_bytes_s = 50;
	ck_assert_double_eq(link_profile_rate(&link), 50);
	link.both_bytes_s = 0;
	ck_assert_double_eq(link_profile_rate(&link), 100);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("profile");
	TCase *tests = tcase_create("profile");

	tcase_add_loop_test(tests, fit_finds_the_coefficients, 0, COUNT(truths));
	tcase_add_loop_test(tests, fit_knows_its_error, 0, COUNT(truths));
	tcase_add_test(tests, fit_has_no_negative_coefficient);
	tcase_add_test(tests, fit_takes_few_samples_and_weights);
	tcase_add_test(tests, what_is_written_is_read);
	tcase_add_test(tests, what_is_not_known_is_read);
	tcase_add_loop_test(tests, faults_are_named, 0, COUNT(faults));
	tcase_add_test(tests, broken_files_are_refused);
	tcase_add_loop_test(tests, a_profile_of_something_else_is_refused, 0, DIFFERENCES);
	tcase_add_test(tests, another_sequence_is_another_profile);
	tcase_add_test(tests, nodes_are_put_in_order);
	tcase_add_test(tests, rate_of_a_cut);
	suite_add_tcase(suite, tests);
	return run_suite(suite);
}
