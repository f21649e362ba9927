/*
 * tests/check_recompute.c - train.recompute: the same bits at every level in F32, wherever the cuts are, and as much
 * memory less as docs/memory.md says.
 *
 * links: launch
 */
#include "tests/runs.h"

#include <math.h>

static const char *const levels[] = {"none", "mlp", "block"};
static const char *const devices[] = {"cpu", "reference", "far"};
enum { LEVELS = COUNT(levels), SEQUENCES = 4, ROOM = 512 };

/* -- a stage ------------------------------------------------------------------------------- */

/* A golden case's model with adapters, and a batch of its first tokens. */
struct model {
	struct arena arena;
	struct model_config *config;
	struct weights *weights;
	struct lora *lora;
	int32_t ids[ROOM], labels[ROOM];
	int tokens;
	float *values;
};

static const struct lora_config *lora_named(const char *name)
{
	static const char *all[] = {"all"}, *attention[] = {"attention"};
	static const struct lora_config wide = {.rank = 3, .alpha = 6, .dropout = 0.3, .targets = {all, 1}};
	static const struct lora_config narrow = {.rank = 4, .alpha = 8, .targets = {attention, 1}};

	return strcmp(name, "all") ? &narrow : &wide;
}

static void model_open(struct model *m, const char *name, const char *lora)
{
	*m = (struct model){.tokens = 12};
	m->config = model_config_read(arena_format(&m->arena, "%s/%s/model", GOLDEN, name));
	ck_assert_ptr_nonnull(m->config);
	m->weights = weights_open(m->config);
	m->lora = lora_resolve(m->config, lora_named(lora));
	ck_assert(m->weights && m->lora);
	m->values = arena_take(&m->arena, m->lora->elements * sizeof(float));
	for (size_t i = 0; i < m->lora->elements; i++)
		m->values[i] = 0.03f * (float)(i % 11) - 0.15f;
	for (int i = 0; i < SEQUENCES * m->tokens; i++) {
		m->ids[i] = (7 * i + i / 5) % m->config->vocabulary;
		m->labels[i] = i % 9 ? (3 * i + 1) % m->config->vocabulary : -1;
	}
}

static void model_close(struct model *m)
{
	lora_free(m->lora);
	weights_close(m->weights);
	model_config_free(m->config);
	arena_release(&m->arena);
}

static struct stage_spec whole(const struct model *m, enum recompute level)
{
	return (struct stage_spec){
		.blocks = m->config->blocks, .embedding = true, .head = true, .sequences = 1,
		.tokens = m->tokens, .slots = 2, .edges = 2, .recompute = level,
	};
}

/* Losses and gradients of micro-batches of one sequence, two of them in flight. */
struct answer {
	double loss[SEQUENCES];
	float *gradients;
};

static struct micro_batch sequence_of(const struct model *m, int i)
{
	return (struct micro_batch){
		.seed = 5, .step = 2, .first_sample = (uint32_t)i, .ids = m->ids + i * m->tokens,
		.labels = m->labels + i * m->tokens, .loss_scale = 0.02f, .train = true,
	};
}

static void run_sequences(struct stage *stage, const struct model *m, struct answer *answer)
{
	struct micro_batch micro[SEQUENCES];

	stage_zero_gradients(stage);
	for (int i = 0; i < SEQUENCES + 1; i++) {
		if (i < SEQUENCES) {
			micro[i] = sequence_of(m, i);
			stage_forward(stage, i, &micro[i], &answer->loss[i]);
		}
		if (i > 0)
			stage_backward(stage, i - 1, &micro[i - 1]);
	}
}

static struct answer answer_of(struct model *m, const char *device, enum recompute level, enum dtype dtype)
{
	struct stage_spec spec = whole(m, level);
	struct device *dev = device_open(device, 2);
	struct answer answer = {.gradients = arena_take(&m->arena, m->lora->elements * sizeof(float))};
	struct stage *stage;

	spec.dtype = dtype;
	stage = stage_open(dev, m->config, m->weights, m->lora, &spec, m->values);
	ck_assert_ptr_nonnull(stage);
	run_sequences(stage, m, &answer);
	stage_read(stage, STAGE_GRADIENTS, answer.gradients);
	stage_close(stage);
	device_close(dev);
	return answer;
}

static void same_bits(const char *name, const char *lora, const char *device)
{
	struct model m;
	struct answer kept;

	model_open(&m, name, lora);
	kept = answer_of(&m, device, RECOMPUTE_NONE, DTYPE_F32);
	for (int level = RECOMPUTE_MLP; level <= RECOMPUTE_BLOCK; level++) {
		struct answer again = answer_of(&m, device, (enum recompute)level, DTYPE_F32);

		ck_assert_mem_eq(again.loss, kept.loss, sizeof(kept.loss));
		ck_assert_mem_eq(again.gradients, kept.gradients, m.lora->elements * sizeof(float));
	}
	model_close(&m);
}

/* With dropout on every linear: masks are drawn anew, and are the same. */
START_TEST(gradients_are_the_same_bits)
{
	same_bits(golden_cases[_i / COUNT(devices)], "all", devices[_i % COUNT(devices)]);
}
END_TEST

/* Without an adapter on the MLP, whose activation then lies where its gradient will. */
START_TEST(gradients_of_attention_are_the_same_bits)
{
	same_bits(golden_cases[_i], "attention", "cpu");
}
END_TEST

static double distance(const float *a, const float *b, size_t count)
{
	double apart = 0, length = 0;

	for (size_t i = 0; i < count; i++) {
		apart += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
		length += (double)b[i] * (double)b[i];
	}
	return sqrt(apart / length);
}

/* In BF16 what is computed again starts from a stream that was rounded: losses are the same bits, as forward is, and
 * gradients are others, but as near to those in F32 as without. */
START_TEST(bf16_differs_by_a_rounding)
{
	struct model m;
	struct answer kept, exact;
	double usual;

	model_open(&m, golden_cases[_i], "all");
	exact = answer_of(&m, "cpu", RECOMPUTE_NONE, DTYPE_F32);
	kept = answer_of(&m, "cpu", RECOMPUTE_NONE, DTYPE_BF16);
	usual = distance(kept.gradients, exact.gradients, m.lora->elements);
	for (int level = RECOMPUTE_MLP; level <= RECOMPUTE_BLOCK; level++) {
		struct answer again = answer_of(&m, "cpu", (enum recompute)level, DTYPE_BF16);

		ck_assert_mem_eq(again.loss, kept.loss, sizeof(kept.loss));
		ck_assert(memcmp(again.gradients, kept.gradients, m.lora->elements * sizeof(float)) != 0);
		ck_assert_double_lt(distance(again.gradients, exact.gradients, m.lora->elements), 1.5 * usual);
	}
	model_close(&m);
}
END_TEST

/* -- memory -------------------------------------------------------------------------------- */

/* What a token takes of one block: elements of the stage's dtype, and numbers that are always F32. The table of
 * docs/memory.md. r: the rank where a linear is adapted, made even for all parts together. */
struct amount { size_t elements, numbers; };

static size_t even_rank(const struct model *m, int block, const enum slot *slot, int slots)
{
	size_t rank = 0;
	int from, to;

	lora_range(m->lora, block, 1, &from, &to);
	for (int i = from; i < to; i++)
		for (int k = 0; k < slots; k++)
			if (m->lora->tensor[i].slot == slot[k] && !m->lora->tensor[i].is_b)
				rank += (size_t)m->lora->tensor[i].rank;
	return rank + rank % 2;
}

static size_t up_rank(const struct model *m, int block)
{
	return even_rank(m, block, (const enum slot[]){SLOT_GATE, SLOT_UP}, 2);
}

static size_t other_ranks(const struct model *m, int block)
{
	return even_rank(m, block, (const enum slot[]){SLOT_QKV, SLOT_Q, SLOT_K, SLOT_V}, 4) +
	       even_rank(m, block, (const enum slot[]){SLOT_OUT}, 1) +
	       even_rank(m, block, (const enum slot[]){SLOT_DOWN}, 1);
}

static struct amount kept_of(const struct model *m, int block, enum recompute level)
{
	const struct model_config *c = m->config;
	size_t d = (size_t)c->width, H = (size_t)c->heads, G = (size_t)c->kv_heads, D = (size_t)c->head_size;
	size_t F = (size_t)c->mlp, norm = c->family->gpt2 ? 2 : 1, up = c->family->gpt2 ? F : 2 * F;
	struct amount a = {d, 0};

	if (level == RECOMPUTE_BLOCK)
		return a;
	a.elements += d + (2 * H + 2 * G) * D + other_ranks(m, block);
	a.numbers += H + norm + (c->qk_norm ? H + G : 0);
	if (level == RECOMPUTE_MLP)
		return a;
	a.elements += up + up_rank(m, block);
	a.numbers += norm;
	return a;
}

static size_t bytes_of(struct amount a, size_t n, enum dtype dtype)
{
	return n * (a.elements * dtype_bytes(dtype) + a.numbers * sizeof(float));
}

static struct amount difference(struct amount a, struct amount b)
{
	return (struct amount){a.elements - b.elements, a.numbers - b.numbers};
}

/* GPT-2's own words for it: 10 d, the ranks, the heads, 4. */
START_TEST(of_gpt2_ten_widths_are_kept)
{
	struct model m;
	struct amount a;
	size_t d, ranks;

	model_open(&m, "gpt2", "all");
	d = (size_t)m.config->width;
	ranks = 4 * 4;				/* a rank of 3 takes 4 columns */
	a = kept_of(&m, 0, RECOMPUTE_NONE);
	ck_assert_uint_eq(a.elements, 10 * d + ranks);
	ck_assert_uint_eq(a.numbers, (size_t)m.config->heads + 4);
	a = kept_of(&m, 0, RECOMPUTE_MLP);
	ck_assert_uint_eq(a.elements, 6 * d + ranks - 4);
	ck_assert_uint_eq(a.numbers, (size_t)m.config->heads + 2);
	a = kept_of(&m, 0, RECOMPUTE_BLOCK);
	ck_assert_uint_eq(a.elements, d);
	ck_assert_uint_eq(a.numbers, 0);
	model_close(&m);
}
END_TEST

/* To the byte: what a micro-batch in flight takes, and the one place for what is computed again. 64 rows, so that no piece
 * ends beside the slab's alignment. */
START_TEST(memory_is_what_the_table_says)
{
	enum { ROWS = 64 };
	enum dtype dtype = _i % 2 ? DTYPE_BF16 : DTYPE_F32;
	enum recompute level = (enum recompute)(_i / 2 % LEVELS);
	struct model m;
	struct stage_spec spec;
	struct stage_memory one, two, kept;
	size_t blocks = 0, shared;

	model_open(&m, golden_cases[_i / 2 / LEVELS], "all");
	spec = whole(&m, level);
	spec.head = false;
	spec.sequences = 4;
	spec.tokens = ROWS / spec.sequences;
	spec.dtype = dtype;
	two = stage_memory(m.config, m.weights, m.lora, &spec, 1);
	spec.slots = 1;
	one = stage_memory(m.config, m.weights, m.lora, &spec, 1);
	spec.recompute = RECOMPUTE_NONE;
	kept = stage_memory(m.config, m.weights, m.lora, &spec, 1);
	for (int b = 0; b < m.config->blocks; b++)
		blocks += bytes_of(kept_of(&m, b, level), ROWS, dtype);
	ck_assert_uint_eq(two.activations - one.activations, blocks);
	shared = bytes_of(difference(kept_of(&m, 0, RECOMPUTE_NONE), kept_of(&m, 0, level)), ROWS, dtype);
	ck_assert_uint_eq(one.work - kept.work, shared);
	ck_assert_uint_eq(kept.activations - one.activations, (size_t)m.config->blocks * shared);
	ck_assert_uint_eq(one.weights + one.adapters, kept.weights + kept.adapters);
	model_close(&m);
}
END_TEST

/* -- runs ---------------------------------------------------------------------------------- */

static char *result_of(struct arena *arena, const struct golden_run *run)
{
	char *folder = run_folder(arena, run, "local");

	ck_assert_int_eq(run_local(run, folder), 0);
	return run_result(arena, folder);
}

/* Losses, norms and the adapter of three ranks are at every level the bytes of one rank that keeps all. */
START_TEST(runs_end_the_same)
{
	static const char *const schedules[] = {"eager", "gpipe"};
	struct arena arena = {0};
	struct golden_run run = {.name = golden_cases[_i], .ranks = 1, .threads = 1, .micro_batch = 1, .steps = 4,
				 .schedule = "1f1b", .lora = "{rank: 3, alpha: 6, dropout: 0.3, targets: all}"};
	char *kept = result_of(&arena, &run);

	for (int i = 0; i < 2; i++) {
		run.train = arena_format(&arena, "recompute: %s", levels[1 + i]);
		run.ranks = 3;
		run.threads = 1 + i;
		run.schedule = schedules[i];
		ck_assert_str_eq(result_of(&arena, &run), kept);
	}
	arena_release(&arena);
}
END_TEST

/* How many products with weights a run makes in a step. */
static double products_of(struct arena *arena, enum recompute level)
{
	struct golden_run run = {.name = "gpt2", .ranks = 1, .threads = 1, .micro_batch = 1, .steps = 3, .schedule = "1f1b",
				 .train = arena_format(arena, "recompute: %s", levels[level])};
	char *folder = run_folder(arena, &run, levels[level]);
	struct train_options options = {.command = "train", .topology = run_topology(arena, &run, folder), .out = folder,
					.overwrite = true, .profile_ops = true};
	struct json *document;
	const struct json *ops;
	double calls = 0;

	ck_assert_int_eq(comm_local_run(run.ranks, run_rank, &options), 0);
	document = json_read(arena_format(arena, "%s/ops.json", folder));
	ck_assert_ptr_nonnull(document);
	ops = json_find(json_at(json_find(document, "stages"), 0), "ops");
	for (size_t i = 0; i < json_size(ops); i++)
		if (!strcmp(json_as_text(json_find(json_at(ops, i), "op"), ""), "linear"))
			calls += json_as_number(json_find(json_at(ops, i), "calls"), 0);
	json_free(document);
	return calls;
}

/* The stages of a run do compute again: three products more a block and micro-batch. */
START_TEST(stages_of_a_run_compute_again)
{
	enum { BLOCKS = 5, MICRO_BATCHES = 4 };
	struct arena arena = {0};
	double kept = products_of(&arena, RECOMPUTE_NONE), again = products_of(&arena, RECOMPUTE_BLOCK);

	ck_assert_double_eq(again - kept, 3 * BLOCKS * MICRO_BATCHES);
	arena_release(&arena);
}
END_TEST

static long long calls_of(const struct device *dev, const char *slot)
{
	long long calls = 0;

	for (int i = 0; i < dev->timed->count; i++)
		calls += !strcmp(dev->timed->op[i].slot, slot) ? dev->timed->op[i].calls : 0;
	return calls;
}

/* So do the stages that a profile is measured with. */
START_TEST(a_profile_measures_what_is_computed_again)
{
	enum recompute level = (enum recompute)_i;
	struct model m;
	struct node_profile node = {.name = "alone"};
	struct compute_spec spec;

	model_open(&m, "gpt2", "attention");
	spec = (struct compute_spec){
		.device = device_open("cpu", 1), .recompute = level, .model = m.config, .weights = m.weights,
		.lora = m.lora, .tokens = m.tokens, .batch = 1, .micro_batch = 1, .box_s = 0.1,
	};
	timed_open(spec.device, 256);
	timed_start(spec.device);
	ck_assert_int_eq(compute_measure(&spec, &node), 0);
	timed_stop(spec.device);
	ck_assert_int_gt(calls_of(spec.device, "attention"), 0);
	ck_assert_int_eq(calls_of(spec.device, "attention"),
			 (level == RECOMPUTE_BLOCK ? 2 : 1) * calls_of(spec.device, "attention_backward"));
	device_close(spec.device);
	model_close(&m);
}
END_TEST

/* -- plans --------------------------------------------------------------------------------- */

/* Two alike nodes for a model, in one micro-batch of 16 sequences. */
struct cramped {
	struct model m;
	struct node node[2];
	struct cluster cluster;
	struct plan_config want;
	int threads[2];
	double limit[2], overhead[2];
	struct problem problem;
	struct plan plan;
};

static void cramped_open(struct cramped *c, const char *solver)
{
	*c = (struct cramped){
		.node = {{.name = "a", .compute_flops = 1e9}, {.name = "b", .compute_flops = 1e9}},
		.want = {.schedule = "eager", .solver = solver},
		.threads = {1, 1},
	};
	model_open(&c->m, "gpt2", "attention");
	c->cluster.nodes = (struct list){c->node, 2};
	c->problem = (struct problem){
		.cluster = &c->cluster, .model = c->m.config, .lora = c->m.lora, .want = &c->want, .batch = 32,
		.micro_batch = 16, .tokens = 32, .slowdown = 1, .threads = c->threads,
		.memory_limit_bytes = c->limit, .overhead_bytes = c->overhead,
	};
}

/* What the fuller node needs at a level, where memory is no matter. */
static double need_of(struct cramped *c, enum recompute level)
{
	double most = 0;

	c->limit[0] = c->limit[1] = 0;
	c->want.schedule = "1f1b";
	c->problem.recompute = level;
	ck_assert_int_eq(plan_make(&c->problem, &c->plan), 0);
	for (int s = 0; s < c->plan.stages; s++)
		most = fmax(most, c->plan.stage[s].memory_bytes);
	return most;
}

static void refused_with(struct cramped *c, const char *help)
{
	error_hold();
	ck_assert_int_eq(plan_make(&c->problem, &c->plan), -1);
	ck_assert_int_eq(error_code(), EXIT_CONFIG);
	ck_assert_msg(strstr(error_text(), help) != NULL, "\"%s\" is not in: %s", help, error_text());
	error_clear();
}

/* Memory between what two levels need: the one holds, the other is refused, and the refusal names the one. */
START_TEST(a_level_makes_room)
{
	struct cramped c;
	enum recompute level = (enum recompute)_i;
	double enough, less;
	struct text table = {0};

	cramped_open(&c, "uniform");
	enough = need_of(&c, level);
	less = need_of(&c, (enum recompute)(level - 1));
	ck_assert_double_lt(enough, less);
	c.limit[0] = c.limit[1] = (enough + less) / 2;
	refused_with(&c, arena_format(&c.m.arena, "train.recompute %s (fits), ", levels[level]));
	c.problem.recompute = level;
	ck_assert_int_eq(plan_make(&c.problem, &c.plan), 0);
	plan_print(&c.plan, &c.problem, &table);
	ck_assert_ptr_nonnull(strstr(table.data, arena_format(&c.m.arena, "\ntrain.recompute %s: ", levels[level])));
	text_release(&table);
	model_close(&c.m);
}
END_TEST

static bool holds(struct cramped *c, double limit)
{
	int status;

	c->limit[0] = c->limit[1] = limit;
	error_mute();
	status = plan_make(&c->problem, &c->plan);
	error_unmute();
	error_clear();
	return status == 0;
}

/* The same for a solver that decides everything: the least memory with which it finds a plan at the level of blocks. */
START_TEST(a_level_makes_room_for_any_placement)
{
	struct cramped c;
	double low = 0, high;

	cramped_open(&c, "exact");
	high = need_of(&c, RECOMPUTE_BLOCK);
	while (high - low > 256) {
		double mid = (low + high) / 2;

		*(holds(&c, mid) ? &high : &low) = mid;
	}
	ck_assert(holds(&c, high));
	c.problem.recompute = RECOMPUTE_NONE;
	refused_with(&c, "train.recompute block (fits), ");
	c.limit[0] = c.limit[1] = low;
	error_hold();
	ck_assert_int_eq(plan_make(&c.problem, &c.plan), -1);
	ck_assert_msg(!strstr(error_text(), "train.recompute"), "%s", error_text());
	error_clear();
	model_close(&c.m);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("recompute");
	TCase *cases = tcase_create("cases");
	int status;

	log_level(LOG_QUIET);
	scratch_open();
	tcase_set_timeout(cases, 120);
	tcase_add_loop_test(cases, gradients_are_the_same_bits, 0, COUNT(golden_cases) * COUNT(devices));
	tcase_add_loop_test(cases, gradients_of_attention_are_the_same_bits, 0, COUNT(golden_cases));
	if (cpu_has_bf16())
		tcase_add_loop_test(cases, bf16_differs_by_a_rounding, 0, COUNT(golden_cases));
	else
		puts("skipped where the CPU multiplies no bf16: bf16_differs_by_a_rounding");
	tcase_add_test(cases, of_gpt2_ten_widths_are_kept);
	tcase_add_loop_test(cases, memory_is_what_the_table_says, 0, 2 * LEVELS * COUNT(golden_cases));
	tcase_add_loop_test(cases, runs_end_the_same, 0, COUNT(golden_cases));
	tcase_add_test(cases, stages_of_a_run_compute_again);
	tcase_add_loop_test(cases, a_profile_measures_what_is_computed_again, 0, LEVELS);
	tcase_add_loop_test(cases, a_level_makes_room, RECOMPUTE_MLP, RECOMPUTE_BLOCK + 1);
	tcase_add_test(cases, a_level_makes_room_for_any_placement);
	suite_add_tcase(suite, cases);
	status = run_suite(suite);
	scratch_close();
	return status;
}
