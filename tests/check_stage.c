/*
 * The runnable stage by itself: every golden case on every device (the far one proves that no host code touches device
 * memory), the memory estimate, and that a micro-batch allocates nothing.
 *
 * links: model
 */
#include "model/model.h"

#include <check.h>
#include <dlfcn.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))
#define GOLDEN TESTS_FOLDER "/golden"

static const char *const cases[] = {"gpt2",    "gpt2-exact", "llama", "llama3",
				    "mistral", "qwen2",      "qwen3"};
static const char *const devices[] = {"cpu", "reference", "far"};

/* -- counting allocations ------------------------------------------------------------------ */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTING 1
static atomic_long allocations;

/* Ours alone: OpenBLAS's kernels for small matrices take a buffer of their own. */
static void note_allocation(void *caller)
{
	Dl_info info;

	if (!dladdr(caller, &info) || !strstr(info.dli_fname, "openblas"))
		atomic_fetch_add(&allocations, 1);
}

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);
void *malloc(size_t bytes);
void *calloc(size_t count, size_t bytes);
void *realloc(void *memory, size_t bytes);
void *aligned_alloc(size_t align, size_t bytes);
int posix_memalign(void **memory, size_t align, size_t bytes);

void *malloc(size_t bytes)
{
	note_allocation(__builtin_return_address(0));
	return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
	note_allocation(__builtin_return_address(0));
	return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
	note_allocation(__builtin_return_address(0));
	return __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t align, size_t bytes)
{
	note_allocation(__builtin_return_address(0));
	return __libc_memalign(align, bytes);
}

int posix_memalign(void **memory, size_t align, size_t bytes)
{
	note_allocation(__builtin_return_address(0));
	*memory = __libc_memalign(align, bytes);
	return *memory ? 0 : 12;
}
#endif

/* -- one golden case ------------------------------------------------------------------------ */

enum { SEQUENCES = 4, TOKENS = 12, ROWS = SEQUENCES * TOKENS };

struct golden {
	struct arena arena;
	struct model_config *config;
	struct weights *weights;
	struct lora *lora;
	struct safetensors *answers;
	int32_t ids[ROWS], labels[ROWS];
	float *initial;
	int trained;
};

static void golden_batch(struct golden *g, const char *name)
{
	struct data_config data = {.shuffle = false};
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

static void golden_open(struct golden *g, const char *name)
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

static void golden_close(struct golden *g)
{
	safetensors_close(g->answers);
	lora_free(g->lora);
	weights_close(g->weights);
	model_config_free(g->config);
	arena_release(&g->arena);
}

static struct stage_spec whole(const struct golden *g)
{
	return (struct stage_spec){0, g->config->blocks, true, true, SEQUENCES, TOKENS, 1, false};
}

static struct micro_batch micro_batch(const struct golden *g)
{
	return (struct micro_batch){.seed = 1, .step = 1, .ids = g->ids, .labels = g->labels,
				    .loss_scale = 1.0f / (float)g->trained, .train = true};
}

/* Forward and backward of the first batch on a device; the gradients into the arena. */
static float *gradients_on(struct golden *g, const char *device, double *loss)
{
	struct device *dev = device_open(device, 2);
	struct stage_spec spec = whole(g);
	struct micro_batch micro = micro_batch(g);
	struct stage *stage = stage_open(dev, g->config, g->weights, g->lora, &spec, g->initial);
	float *gradients = arena_take(&g->arena, g->lora->elements * sizeof(float));

	ck_assert_ptr_nonnull(stage);
	stage_zero_gradients(stage);
	stage_forward(stage, 0, &micro, loss);
	stage_backward(stage, 0, &micro);
	stage_read(stage, STAGE_GRADIENTS, gradients);
	*loss /= g->trained;
	stage_close(stage);
	device_close(dev);
	return gradients;
}

START_TEST(device_equals_pytorch)
{
	struct golden g;
	double loss;
	float *gradients;

	golden_open(&g, cases[_i / COUNT(devices)]);
	gradients = gradients_on(&g, devices[_i % COUNT(devices)], &loss);
	ck_assert_double_eq_tol(loss, (double)*(const float *)safetensors_find(g.answers, "loss")->data,
				2e-5);
	for (int i = 0; i < g.lora->count; i++) {
		const struct lora_tensor *t = &g.lora->tensor[i];
		const float *theirs = safetensors_find(g.answers, t->name)->data;

		for (int e = 0; e < t->rows * t->cols; e++)
			ck_assert_float_eq_tol(gradients[t->offset + (size_t)e], theirs[e],
					       2e-5f * fmaxf(1, fabsf(theirs[e])));
	}
	golden_close(&g);
}
END_TEST

START_TEST(far_equals_cpu)
{
	struct golden g;
	double near_loss, far_loss;
	float *near, *far;

	golden_open(&g, cases[_i]);
	near = gradients_on(&g, "cpu", &near_loss);
	far = gradients_on(&g, "far", &far_loss);
	ck_assert_mem_eq(near, far, g.lora->elements * sizeof(float));
	ck_assert_mem_eq(&near_loss, &far_loss, sizeof(double));
	golden_close(&g);
}
END_TEST

START_TEST(micro_batch_allocates_nothing)
{
#ifdef COUNTING
	struct golden g;
	struct device *dev;
	struct stage *stage;
	struct stage_spec spec;
	struct micro_batch micro;
	struct adamw adamw = {1e-3f, 0.9f, 0.999f, 1e-8f, 0, 1, 1};
	double loss, norm = 0;
	void *volatile probe;				/* a compiler may drop an unused malloc */
	long before;

	golden_open(&g, cases[_i]);
	spec = whole(&g);
	micro = micro_batch(&g);
	dev = device_open("cpu", 2);
	stage = stage_open(dev, g.config, g.weights, g.lora, &spec, g.initial);
	stage_forward(stage, 0, &micro, &loss);		/* OpenBLAS takes its buffers once */
	before = atomic_load(&allocations);
	probe = malloc(1);
	free(probe);
	ck_assert_int_eq(atomic_load(&allocations), before + 1);
	before = atomic_load(&allocations);
	stage_zero_gradients(stage);
	stage_forward(stage, 0, &micro, &loss);
	stage_backward(stage, 0, &micro);
	stage_fold_norm(stage, &norm);
	stage_update(stage, &adamw);
	ck_assert_int_eq(atomic_load(&allocations), before);
	stage_close(stage);
	device_close(dev);
	golden_close(&g);
#else
	(void)_i;
#endif
}
END_TEST

/* Only trained tensors get gradients, and what is stored is what the arithmetic says: for GPT-2, per token and block,
 * 10 widths, the ranks of the adapted linears, the heads and 4 numbers. */
START_TEST(stored_activations)
{
	struct golden g;
	struct stage_spec spec;
	struct stage_memory memory, two;
	size_t per_token, C, bytes;

	golden_open(&g, "gpt2");
	spec = whole(&g);
	spec.head = false;
	memory = stage_memory(g.config, g.weights, g.lora, &spec, 1);
	spec.slots = 2;
	two = stage_memory(g.config, g.weights, g.lora, &spec, 1);
	C = (size_t)g.config->width;
	per_token = 10 * C + 4 * 4 + (size_t)g.config->heads + 4;
	bytes = ROWS * sizeof(float) * ((size_t)g.config->blocks * per_token + C);
	ck_assert_uint_eq(two.activations, 2 * memory.activations);
	/* Each of the 13 pieces of a block, and the edge, is rounded up to the slab's alignment. */
	ck_assert_uint_ge(memory.activations, bytes);
	ck_assert_uint_le(memory.activations, bytes + (13 * (size_t)g.config->blocks + 1) * SLAB_ALIGN);
	/* Values, gradients, two moments, and the copy that travels to rank 0. */
	ck_assert_uint_ge(memory.adapters, 5 * sizeof(float) * g.lora->elements);
	ck_assert_uint_le(memory.adapters, 5 * sizeof(float) * g.lora->elements + 5 * SLAB_ALIGN);
	golden_close(&g);
}
END_TEST

/* A block that slides needs less of attention's scratch; one that does not may stand behind it. */
START_TEST(scratch_fits_every_window)
{
	struct golden g;
	struct stage_spec spec;
	size_t narrow_first, narrow_last;
	int last;

	golden_open(&g, "qwen2");
	last = g.config->blocks - 1;
	spec = whole(&g);
	spec.tokens = 300;
	for (int i = 0; i <= last; i++)
		g.config->window[i] = i == 0 ? 5 : 0;
	narrow_first = stage_memory(g.config, g.weights, g.lora, &spec, 1).work;
	g.config->window[0] = 0;
	g.config->window[last] = 5;
	narrow_last = stage_memory(g.config, g.weights, g.lora, &spec, 1).work;
	ck_assert_uint_eq(narrow_first, narrow_last);
	golden_close(&g);
}
END_TEST

/* Dropout: another step drops others, the same step the same, and validation nothing. */
START_TEST(dropout)
{
	struct golden g;
	struct lora_config want = {.rank = 4, .alpha = 8, .dropout = 0.5};
	const char *targets[] = {"all"};
	struct device *dev = device_open("cpu", 1);
	struct stage_spec spec;
	struct stage *stage;
	struct micro_batch micro;
	double first, again, other, plain, valid;
	float *values;

	golden_open(&g, "llama");
	lora_free(g.lora);
	want.targets = (struct texts){targets, 1};
	g.lora = lora_resolve(g.config, &want);
	ck_assert_ptr_nonnull(g.lora);
	values = arena_take(&g.arena, g.lora->elements * sizeof(float));
	for (size_t i = 0; i < g.lora->elements; i++)
		values[i] = 0.05f * (float)(i % 7) - 0.1f;
	spec = whole(&g);
	stage = stage_open(dev, g.config, g.weights, g.lora, &spec, values);
	micro = micro_batch(&g);
	stage_forward(stage, 0, &micro, &first);
	stage_forward(stage, 0, &micro, &again);
	micro.step = 2;
	stage_forward(stage, 0, &micro, &other);
	micro.train = false;
	stage_forward(stage, 0, &micro, &valid);
	stage_close(stage);
	((struct lora *)g.lora)->dropout = 0;
	stage = stage_open(dev, g.config, g.weights, g.lora, &spec, values);
	stage_forward(stage, 0, &micro, &plain);
	ck_assert_double_eq(first, again);
	ck_assert_double_ne(first, other);
	ck_assert_double_eq(valid, plain);
	ck_assert_double_ne(first, plain);
	stage_close(stage);
	device_close(dev);
	golden_close(&g);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stage");
	TCase *cases_ = tcase_create("cases");
	SRunner *runner;
	int failed;

#ifndef COUNTING
	puts("skipped under sanitizers: micro_batch_allocates_nothing (they own malloc)");
#endif
	tcase_set_timeout(cases_, 60);
	tcase_add_loop_test(cases_, device_equals_pytorch, 0, COUNT(cases) * COUNT(devices));
	tcase_add_loop_test(cases_, far_equals_cpu, 0, COUNT(cases));
	tcase_add_loop_test(cases_, micro_batch_allocates_nothing, 0, COUNT(cases));
	tcase_add_test(cases_, stored_activations);
	tcase_add_test(cases_, scratch_fits_every_window);
	tcase_add_test(cases_, dropout);
	suite_add_tcase(suite, cases_);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
