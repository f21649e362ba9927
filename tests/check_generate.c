/*
 * `edgepipe generate` on ranks that are threads: the golden cases say what transformers' generate says, on 1, 3 and 5 ranks;
 * several prompts say the same however many are worked on at once, on however many ranks, drawn or not.
 *
 * links: launch
 */
#include "tests/runs.h"

static int run_generate(struct comm *comm, void *options)
{
	return generate_run(comm, options, NULL);
}

static struct generate_options standard(void)
{
	return (struct generate_options){
		.run.command = "generate",
		.tokens = 64,
		.batch = 16,
		.sampling = {.top_p = 1, .repetition_penalty = 1},
		.source.ids = true,
	};
}

static char *topology(struct arena *arena, const char *name, int ranks, const char *more)
{
	char *path = arena_format(arena, "%s/%s-%d.yaml", scratch, name, ranks);
	FILE *file = fopen(path, "w");

	ck_assert_ptr_nonnull(file);
	fprintf(file, "version: 1\nnodes:\n");
	for (int i = 0; i < ranks; i++)
		fprintf(file, "  - {name: n%d, cores: %d}\n", i, 1 + i % 2);
	fprintf(file, "model: {path: %s/%s/model}\nlora: {init: %s/%s/initial}\n%s", GOLDEN, name, GOLDEN, name, more);
	ck_assert_int_eq(fclose(file), 0);
	return path;
}

/* What comes of the prompts, as the JSON says it; standard output, which is the child's own, goes nowhere. */
static char *generated(struct arena *arena, struct generate_options options, int ranks)
{
	char *path = arena_format(arena, "%s/out.json", scratch), *text, *copy, *end;
	size_t bytes;

	ck_assert_ptr_nonnull(freopen("/dev/null", "w", stdout));
	options.json = path;
	ck_assert_int_eq(comm_local_run(ranks, run_generate, &options), 0);
	text = file_read(path, &bytes);
	ck_assert_ptr_nonnull(text);
	end = strstr(text, "\n],");
	ck_assert_ptr_nonnull(end);
	copy = arena_copy(arena, text, (size_t)(end - text));
	free(text);
	return copy;
}

/* A tensor of ids as text: "1, 2". */
static char *ids_of(struct arena *arena, const struct safetensors *file, const char *name)
{
	const struct safetensor *t = safetensors_find(file, name);
	struct text text = {0};
	char *copy;

	ck_assert_ptr_nonnull(t);
	ck_assert_int_eq(t->dtype, DTYPE_I32);
	for (long long i = 0; i < t->shape[0]; i++)
		text_add(&text, "%s%d", i > 0 ? ", " : "", ((const int32_t *)t->data)[i]);
	copy = arena_copy(arena, text.data, text.bytes);
	text_release(&text);
	return copy;
}

static const int worlds[] = {1, 3, 5};

START_TEST(as_transformers)
{
	struct arena arena = {0};
	const char *name = golden_cases[_i / COUNT(worlds)];
	int ranks = worlds[_i % COUNT(worlds)];
	struct safetensors *answers = safetensors_open(arena_format(&arena, "%s/%s/generated.safetensors", GOLDEN, name));
	struct generate_options options = standard();
	const char *prompt;

	ck_assert_ptr_nonnull(answers);
	prompt = ids_of(&arena, answers, "prompt");
	options.run.topology = topology(&arena, name, ranks, "plan: {solver: uniform}\n");
	options.source.text = &prompt;
	options.source.texts = 1;
	options.tokens = (int)safetensors_find(answers, "greedy")->shape[0];
	ck_assert_ptr_nonnull(strstr(generated(&arena, options, ranks),
				     arena_format(&arena, "\"ids\": [%s]", ids_of(&arena, answers, "greedy"))));
	options.sampling.repetition_penalty = 1.3;
	options.tokens = (int)safetensors_find(answers, "penalised")->shape[0];
	ck_assert_ptr_nonnull(strstr(generated(&arena, options, ranks),
				     arena_format(&arena, "\"ids\": [%s]", ids_of(&arena, answers, "penalised"))));
	safetensors_close(answers);
	arena_release(&arena);
}
END_TEST

/* Prompts of unequal length: 1, 4, 7 ... tokens. */
static char *write_prompts(struct arena *arena, int count)
{
	char *path = arena_format(arena, "%s/prompts.jsonl", scratch);
	FILE *file = fopen(path, "w");

	ck_assert_ptr_nonnull(file);
	for (int i = 0; i < count; i++) {
		fprintf(file, "{\"ids\": [%d", i % 23);
		for (int k = 0; k < 3 * i % 16; k++)
			fprintf(file, ", %d", (7 * i + 5 * k) % 23);
		fprintf(file, "]}\n");
	}
	ck_assert_int_eq(fclose(file), 0);
	return path;
}

/* Both families, a sliding window; greedy and drawn. The plan may leave nodes out, and not be in their order. */
START_TEST(same_however_it_is_run)
{
	static const char *const names[] = {"llama3", "mistral", "qwen3-long"};
	static const struct { int ranks, batch; const char *more; } ways[] = {
		{1, 1, ""}, {1, 3, ""}, {3, 16, "plan: {solver: uniform}\n"}, {3, 2, "plan: {solver: uniform}\n"},
		{5, 4, "plan: {layers: [out, 2, 1, out, 2]}\n"}, {2, 5, "plan: {layers: [out, 5]}\n"},
		{4, 16, "plan: {layers: [out, 2, 2, 1]}\nlinks: {default: {bandwidth: 50 MB/s, latency: 1 ms}}\n"
			"emulate: {links: true}\n"},
	};
	struct arena arena = {0};
	struct generate_options options = standard();
	const char *first = NULL;

	options.source.file = write_prompts(&arena, 9);
	options.tokens = 12;
	if (_i % 2)
		options.sampling = (struct sampling){.temperature = 1.5, .top_p = 0.9, .repetition_penalty = 1.1, .seed = 3};
	for (int i = 0; i < COUNT(ways); i++) {
		const char *found;

		options.batch = ways[i].batch;
		options.run.topology = topology(&arena, names[_i / 2], ways[i].ranks, ways[i].more);
		found = generated(&arena, options, ways[i].ranks);
		first = first ? first : found;
		ck_assert_str_eq(found, first);
	}
	options.sampling.seed++;
	ck_assert((_i % 2 != 0) == (strcmp(generated(&arena, options, ways[COUNT(ways) - 1].ranks), first) != 0));
	arena_release(&arena);
}
END_TEST

/* A model of 300 positions, and prompts of several pieces beside short ones; some reach the last position. */
START_TEST(long_prompts)
{
	static const struct { int ranks, batch; } ways[] = {{1, 1}, {1, 16}, {3, 2}, {5, 16}, {5, 3}};
	static const int lengths[] = {1, 128, 129, 300, 256, 90, 257, 299, 280};
	struct arena arena = {0};
	struct generate_options options = standard();
	char *path = arena_format(&arena, "%s/long.txt", scratch);
	FILE *file = fopen(path, "w");
	const char *first = NULL;

	ck_assert_ptr_nonnull(file);
	for (int i = 0; i < COUNT(lengths); i++)
		for (int k = 0; k < lengths[i]; k++)
			fprintf(file, "%d%s", (7 * i + 5 * k + k * k / 9) % 23, k + 1 < lengths[i] ? " " : "\n");
	ck_assert_int_eq(fclose(file), 0);
	options.source.file = path;
	options.tokens = 30;
	for (int i = 0; i < COUNT(ways); i++) {
		const char *found;

		options.batch = ways[i].batch;
		options.run.topology = topology(&arena, "qwen3-long", ways[i].ranks, "plan: {solver: uniform}\n");
		found = generated(&arena, options, ways[i].ranks);
		first = first ? first : found;
		ck_assert_str_eq(found, first);
	}
	for (int i = 0; i < COUNT(lengths); i++)
		ck_assert_ptr_nonnull(strstr(first, arena_format(&arena, "{\"prompt_tokens\": %d, \"finish\": \"%s\"",
								 lengths[i], lengths[i] > 270 ? "room" : "tokens")));
	arena_release(&arena);
}
END_TEST

/* The ids of the first prompt, from the one numbered `from` on, as text. */
static const char *ids_from(const char *json, int from)
{
	const char *at = strstr(json, "\"ids\": [");

	ck_assert_ptr_nonnull(at);
	at += strlen("\"ids\": [");
	for (int i = 0; i < from; i++) {
		at = strstr(at, ", ");
		ck_assert_ptr_nonnull(at);
		at += 2;
	}
	return at;
}

/* What came token by token goes on the same where it is a prompt of several pieces. */
START_TEST(goes_on_the_same)
{
	static const int lengths[] = {127, 128, 129, 200, 256, 270};
	struct arena arena = {0};
	struct generate_options options = standard();
	const char *prompt = "5", *all;

	options.run.topology = topology(&arena, "qwen3-long", 3, "plan: {solver: uniform}\n");
	options.source.text = &prompt;
	options.source.texts = 1;
	options.tokens = 299;
	options.sampling = (struct sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 4};
	all = generated(&arena, options, 3);
	for (int i = 0; i < COUNT(lengths); i++) {
		const char *want = ids_from(all, lengths[i]), *found, *end;
		const char *known = ids_from(all, 0);

		prompt = arena_format(&arena, "5, %.*s", (int)(want - known), known);
		found = ids_from(generated(&arena, options, 3), 0);
		end = strchr(want, ']');
		ck_assert_ptr_nonnull(end);
		ck_assert_msg(!strncmp(found, want, (size_t)(end - want + 1)), "after %d tokens", lengths[i]);
	}
	arena_release(&arena);
}
END_TEST

/* Two nodes, of which the second has little memory. */
static char *small_topology(struct arena *arena, const char *more)
{
	char *path = arena_format(arena, "%s/small.yaml", scratch);
	FILE *file = fopen(path, "w");

	ck_assert_ptr_nonnull(file);
	fprintf(file, "version: 1\nnodes: [{name: a, compute: 1 TFLOPS}, {name: b, compute: 1 TFLOPS, memory: 300 MiB}]\n"
		"model: {path: %s/qwen3/model}\n%s", GOLDEN, more);
	ck_assert_int_eq(fclose(file), 0);
	return path;
}

/* A failure on one rank ends all with one code. What training would need does not matter. */
START_TEST(memory_is_respected)
{
	struct arena arena = {0};
	struct generate_options options = standard();
	const char *prompt = "1 2 3";

	ck_assert_ptr_nonnull(freopen("/dev/null", "w", stdout));
	options.run.topology = small_topology(&arena, "data: {sequence: 16}\n"
					      "train: {batch: 40000, micro_batch: 40000}\nplan: {solver: uniform}\n");
	options.source.text = &prompt;
	options.source.texts = 1;
	ck_assert_int_eq(comm_local_run(2, run_generate, &options), 0);
	/* 32 positions each, of 3 blocks or 2, two heads of 14 */
	options.source.file = write_prompts(&arena, 36000);
	options.batch = 36000;
	ck_assert_int_eq(comm_local_run(2, run_generate, &options), EXIT_CONFIG);
	arena_release(&arena);
}
END_TEST

/* Blocks go where there is room for their keys and values: the second node has it for one of the five. */
START_TEST(plans_by_its_own_memory)
{
	struct arena arena = {0};
	struct generate_options options = standard();
	char *path = arena_format(&arena, "%s/room.txt", scratch);
	FILE *file = fopen(path, "w");

	ck_assert_ptr_nonnull(file);
	for (int i = 0; i < 31; i++)		/* all of the 32 positions are kept, of every prompt */
		fprintf(file, "%d ", i);
	for (int i = 0; i < 24000; i++)
		fprintf(file, "\n%d", i % 23);
	ck_assert_int_eq(fclose(file), 0);
	ck_assert_ptr_nonnull(freopen("/dev/null", "w", stdout));
	options.source.file = path;
	options.batch = 24001;
	options.tokens = 1;
	options.run.topology = small_topology(&arena, "data: {sequence: 16}\nplan: {layers: [3, 2]}\n");
	ck_assert_int_eq(comm_local_run(2, run_generate, &options), EXIT_CONFIG);
	options.run.topology = small_topology(&arena, "data: {sequence: 16}\nplan: {stages: 2}\n");
	ck_assert_int_eq(comm_local_run(2, run_generate, &options), 0);
	arena_release(&arena);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("generate");
	TCase *cases = tcase_create("cases");
	int status;

	log_level(LOG_QUIET);
	scratch_open();
	tcase_set_timeout(cases, 60);
	tcase_add_loop_test(cases, as_transformers, 0, COUNT(golden_cases) * COUNT(worlds));
	tcase_add_loop_test(cases, same_however_it_is_run, 0, 6);
	tcase_add_test(cases, long_prompts);
	tcase_add_test(cases, goes_on_the_same);
	tcase_add_test(cases, memory_is_respected);
	if (TIMES_LESS > 1)
		puts("skipped: plans by memory, of which a sanitizer takes most");
	else
		tcase_add_test(cases, plans_by_its_own_memory);
	suite_add_tcase(suite, cases);
	status = run_suite(suite);
	scratch_close();
	return status;
}
