/*
 * tests/stages.h - stages of the golden cases: a case opened, its first batch, one stage of the whole model.
 */
#ifndef EDGEPIPE_TESTS_STAGES_H
#define EDGEPIPE_TESTS_STAGES_H

#include "model/model.h"
#include "tests/suite.h"

#include <stdio.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))
#define GOLDEN TESTS_FOLDER "/golden"

static const char *const cases[] = {"gpt2",    "gpt2-exact", "llama", "llama3",
				    "mistral", "qwen2",      "qwen3"};

enum { SEQUENCES = 4, TOKENS = 12, ROWS = SEQUENCES * TOKENS };

/* What a stage may compute in here: F32, and BF16 where the CPU has it. */
static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};
static inline int dtypes_here(void)
{
	return cpu_has_bf16() ? 2 : 1;
}
static inline void say_dtypes_skipped(void)
{
	if (dtypes_here() == 1)
		puts("skipped: BF16, which this CPU (or ONEDNN_MAX_CPU_ISA, or the build) does not "
		     "multiply");
	fflush(stdout);
}

/* An open case; dtype, plain, recompute: of its stages, F32 and nothing again unless they are changed. */
struct golden {
	struct arena arena;
	enum dtype dtype;
	bool plain;
	enum recompute recompute;
	struct model_config *config;
	struct weights *weights;
	struct lora *lora;
	struct safetensors *answers;
	int32_t ids[ROWS], labels[ROWS];
	float *initial;
	int trained;
};

static inline void golden_batch(struct golden *g, const char *name)
{
	struct data_config data = {.shuffle = false, .cache = "none"};
	struct dataset *set = dataset_open(
		arena_format(&g->arena, "%s/%s/batches.safetensors", GOLDEN, name), "train", &data,
		g->config);

	ck_assert_ptr_nonnull(set);
	ck_assert_int_eq(set->tokens, TOKENS);
	for (int i = 0; i < SEQUENCES; i++)
		g->trained += dataset_sample(set, 1, false, (uint64_t)i, g->ids + i * TOKENS,
					     g->labels + i * TOKENS);
	dataset_close(set);
}

static inline void golden_open(struct golden *g, const char *name)
{
	struct lora_config want = {0};

	*g = (struct golden){0};
	want.init = arena_format(&g->arena, "%s/%s/initial", GOLDEN, name);
	g->config = model_config_read(arena_format(&g->arena, "%s/%s/model", GOLDEN, name));
	ck_assert_ptr_nonnull(g->config);
	g->weights = weights_open(g->config);
	g->lora = lora_resolve(g->config, &want);
	ck_assert(g->weights && g->lora);
	g->answers = safetensors_open(
		arena_format(&g->arena, "%s/%s/answers.safetensors", GOLDEN, name));
	ck_assert_ptr_nonnull(g->answers);
	g->initial = arena_take(&g->arena, g->lora->elements * sizeof(float));
	ck_assert_int_eq(lora_values(g->lora, 0, g->lora->count, 1, g->initial), 0);
	golden_batch(g, name);
}

static inline void golden_close(struct golden *g)
{
	safetensors_close(g->answers);
	lora_free(g->lora);
	weights_close(g->weights);
	model_config_free(g->config);
	arena_release(&g->arena);
}

static inline struct stage_spec whole(const struct golden *g)
{
	return (struct stage_spec){
		.blocks = g->config->blocks,
		.embedding = true,
		.head = true,
		.sequences = SEQUENCES,
		.tokens = TOKENS,
		.slots = 1,
		.edges = 1,
		.dtype = g->dtype,
		.plain = g->plain,
		.recompute = g->recompute,
	};
}

static inline struct micro_batch micro_batch(const struct golden *g)
{
	return (struct micro_batch){.seed = 1, .step = 1, .ids = g->ids, .labels = g->labels,
				    .loss_scale = 1.0f / (float)g->trained, .train = true};
}

#endif
