/*
 * The runnable stage by itself: every golden case on every device (the far one proves that no
 * host code touches device memory), the memory estimate, and that a micro-batch allocates
 * nothing.
 *
 * links: model
 */
#include "tests/stages.h"

#include <dlfcn.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const char *const devices[] = {"cpu", "reference", "far"};

/* -- counting allocations ------------------------------------------------------------------ */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTING 1
static atomic_long allocations;
static atomic_bool counting; /* only where it is asked: dladdr is slow in large libraries */

/* Ours alone: OpenBLAS and oneDNN take and give back buffers of their own. */
static void note_allocation(void *caller)
{
	Dl_info info;

	if (!atomic_load(&counting))
		return;
	if (!dladdr(caller, &info) ||
	    (!strstr(info.dli_fname, "openblas") && !strstr(info.dli_fname, "dnnl") &&
	     !strstr(info.dli_fname, "stdc++")))
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

enum { LEVELS = RECOMPUTE_BLOCK + 1 };

/* A case on a device in a dtype; BF16, which takes as long again, on the first device alone. */
struct way {
	const char *name, *device;
	enum dtype dtype;
};

static int ways(void)
{
	return COUNT(cases) * (COUNT(devices) + dtypes_here() - 1);
}

static struct way way_of(int i)
{
	int rest = i - COUNT(cases) * COUNT(devices);

	if (rest >= 0)
		return (struct way){cases[rest], devices[0], DTYPE_BF16};
	return (struct way){cases[i / COUNT(devices)], devices[i % COUNT(devices)], DTYPE_F32};
}

/* -- golden cases -------------------------------------------------------------------------- */

/* Forward and backward of the first batch on a device; the gradients into the arena. */
static float *gradients_on(struct golden *g, const char *device, double *loss)
{
	struct device *dev = device_open(device, 2);
	struct stage_spec spec = whole(g);
	struct micro_batch micro = micro_batch(g);
	struct stage *stage =
	    stage_open(dev, g->config, g->weights, g->lora, &spec, g->initial);
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
	ck_assert_double_eq_tol(
	    loss, (double)*(const float *)safetensors_find(g.answers, "loss")->data, 2e-5);
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

	golden_open(&g, cases[_i % COUNT(cases)]);
	g.dtype = dtypes[_i / COUNT(cases)];
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
	void *volatile probe; /* a compiler may drop an unused malloc */
	long before;

	golden_open(&g, cases[_i / LEVELS % COUNT(cases)]);
	g.dtype = dtypes[_i / LEVELS / COUNT(cases)];
	spec = whole(&g);
	spec.recompute = (enum recompute)(_i % LEVELS);
	micro = micro_batch(&g);
	dev = device_open("cpu", 2);
	stage = stage_open(dev, g.config, g.weights, g.lora, &spec, g.initial);
	stage_forward(stage, 0, &micro, &loss); /* OpenBLAS takes its buffers once */
	atomic_store(&counting, true);
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

/* -- below the lowest adapter ----------------------------------------------------------------
 */

/* The attention of the CPU, counted. */
static int attention_backwards;
static void counted(struct device *dev, struct matrix dq, struct matrix dk, struct matrix dv,
		    struct matrix d_o, struct matrix q, struct matrix k, struct matrix v,
		    struct matrix o, struct matrix lse, struct attention shape, void *scratch)
{
	attention_backwards++;
	kernels_cpu().attention_backward(dev, dq, dk, dv, d_o, q, k, v, o, lse, shape, scratch);
}

/* Gradients of a micro-batch with adapters of one word; B is zero at first, so that they are
 * the same whatever else is adapted. */
static float *gradients_of(struct golden *g, const char *word)
{
	struct lora_config want = {.rank = 4, .alpha = 8, .targets = {&word, 1}};
	struct stage_spec spec = whole(g);
	struct device *dev = device_open("cpu", 1);
	struct micro_batch batch = micro_batch(g);
	double loss;

	lora_free(g->lora);
	g->lora = lora_resolve(g->config, &want);
	ck_assert_ptr_nonnull(g->lora);
	float *values = arena_take(&g->arena, g->lora->elements * sizeof(float));
	float *gradients = arena_take(&g->arena, g->lora->elements * sizeof(float));

	lora_values(g->lora, 0, g->lora->count, 1, values);
	dev->k.attention_backward = counted;
	attention_backwards = 0;
	struct stage *stage = stage_open(dev, g->config, g->weights, g->lora, &spec, values);

	ck_assert_ptr_nonnull(stage);
	stage_forward(stage, 0, &batch, &loss);
	stage_backward(stage, 0, &batch);
	stage_read(stage, STAGE_GRADIENTS, gradients);
	stage_close(stage);
	device_close(dev);
	return gradients;
}

static const struct lowest {
	const char *name, *word;
	int attentions; /* that backward passes, of the lowest two blocks */
} lowests[] = {
    {"gpt2", "all", 2},
    {"gpt2", "c_attn", 2},
    {"gpt2", "attn.c_proj", 1},
    {"gpt2", "c_fc", 1},
    {"gpt2", "mlp.c_proj", 1},
    {"gpt2", "h.1.mlp.c_fc", 0},
    {"gpt2", "h.1.attn.c_attn", 1},
    {"llama", "q_proj", 2},
    {"llama", "down_proj", 1},
    {"llama", "gate_proj", 1},
    {"llama", "o_proj", 1},
    {"llama", "layers.1.mlp.up_proj", 0},
};

/* Nothing is computed that no adapter's gradient needs, and the gradients are those of a run
 * that computes all. */
START_TEST(nothing_below_the_lowest_adapter)
{
	const struct lowest *l = &lowests[_i];
	struct golden g, all;
	int compared = 0;

	golden_open(&g, l->name);
	golden_open(&all, l->name);
	float *full = gradients_of(&all, "all"), *some = gradients_of(&g, l->word);

	ck_assert_int_eq(attention_backwards, l->attentions + g.config->blocks - 2);
	for (int i = 0; i < g.lora->count; i++)
		for (int j = 0; j < all.lora->count; j++) {
			const struct lora_tensor *a = &g.lora->tensor[i],
						 *b = &all.lora->tensor[j];

			if (strcmp(a->name, b->name) != 0)
				continue;
			compared++;
			for (int e = 0; e < a->rows * a->cols; e++) {
				float x = some[a->offset + (size_t)e],
				      y = full[b->offset + (size_t)e];

				ck_assert_msg(fabsf(x - y) <= 1e-5f + 1e-4f * fabsf(y),
					      "%s: %g is not %g", a->name, x, y);
			}
		}
	ck_assert_int_eq(compared, g.lora->count);
	golden_close(&g);
	golden_close(&all);
}
END_TEST

/* Only trained tensors get gradients, and what is stored is what the arithmetic says: for
 * GPT-2, per token and block, 10 widths, the ranks of the adapted linears, and in F32 the heads
 * and 4 numbers; one of the first block's widths is the stage's input, which comes with the
 * edges. */
START_TEST(stored_activations)
{
	struct golden g;
	struct stage_spec spec;
	struct stage_memory memory, two, edges;
	size_t per_token, C, cut, bytes;

	golden_open(&g, "gpt2");
	g.dtype = dtypes[_i];
	spec = whole(&g);
	spec.head = false;
	memory = stage_memory(g.config, g.weights, g.lora, &spec, 1);
	spec.slots = spec.edges = 2;
	two = stage_memory(g.config, g.weights, g.lora, &spec, 1);
	spec.slots = 1;
	edges = stage_memory(g.config, g.weights, g.lora, &spec, 1);
	C = (size_t)g.config->width;
	cut = stage_cut_bytes(&spec, g.config);
	per_token = (10 * C + 4 * 4) * dtype_bytes(g.dtype) +
		    ((size_t)g.config->heads + 4) * sizeof(float);
	bytes = ROWS * ((size_t)g.config->blocks * per_token + C * sizeof(float));
	ck_assert_uint_eq(two.activations, 2 * memory.activations);
	/* One more edge: an input (unless ids come in) and an output, nothing of the blocks. */
	ck_assert_uint_eq(cut, ROWS * sizeof(float) * C);
	ck_assert_uint_ge(edges.activations, memory.activations + cut);
	ck_assert_uint_lt(edges.activations, memory.activations + cut + SLAB_ALIGN);
	spec.embedding = false;
	two = stage_memory(g.config, g.weights, g.lora, &spec, 1);
	spec.edges = 1;
	edges = stage_memory(g.config, g.weights, g.lora, &spec, 1);
	ck_assert_uint_ge(two.activations, edges.activations + 2 * cut);
	ck_assert_uint_lt(two.activations, edges.activations + 2 * (cut + SLAB_ALIGN));
	spec.edges = 2;
	spec.blocks = 0;
	ck_assert_uint_ge(stage_memory(g.config, g.weights, g.lora, &spec, 1).activations,
			  2 * cut);
	ck_assert_uint_lt(stage_memory(g.config, g.weights, g.lora, &spec, 1).activations,
			  2 * (cut + SLAB_ALIGN));
	/* Each of the 13 pieces of a block, and the edge, is rounded up to the slab's
	 * alignment. */
	ck_assert_uint_ge(memory.activations, bytes);
	ck_assert_uint_le(memory.activations,
			  bytes + (13 * (size_t)g.config->blocks + 1) * SLAB_ALIGN);
	/* Values, gradients, two moments, and the copy that travels to rank 0. */
	ck_assert_uint_ge(memory.adapters, 5 * sizeof(float) * g.lora->elements);
	ck_assert_uint_le(memory.adapters,
			  5 * sizeof(float) * g.lora->elements + 5 * SLAB_ALIGN);
	golden_close(&g);
}
END_TEST

/* -- cuts ---------------------------------------------------------------------------------- */

/* A model cut into two stages, the micro-batches of one sequence each. */
struct halves {
	struct golden g;
	struct device *dev;
	struct stage *lower, *upper;
	double loss[SEQUENCES], sum;
	float *gradients;
};

static struct micro_batch sequence_of(const struct golden *g, int m)
{
	struct micro_batch micro = micro_batch(g);

	micro.first_sample = (uint32_t)m;
	micro.ids += m * TOKENS;
	micro.labels += m * TOKENS;
	return micro;
}

static void halves_open(struct halves *h, const struct way *way, int slots, int edges)
{
	struct stage_spec spec;
	int from, to;

	*h = (struct halves){.dev = device_open(way->device, 1)};
	golden_open(&h->g, way->name);
	h->g.dtype = way->dtype;
	spec = whole(&h->g);
	spec.sequences = 1;
	spec.slots = slots;
	spec.edges = edges;
	spec.blocks = 2;
	spec.head = false;
	h->lower =
	    stage_open(h->dev, h->g.config, h->g.weights, h->g.lora, &spec, h->g.initial);
	lora_range(h->g.lora, 2, h->g.config->blocks - 2, &from, &to);
	spec.first_block = 2;
	spec.blocks = h->g.config->blocks - 2;
	spec.embedding = false;
	spec.head = true;
	h->upper = stage_open(h->dev, h->g.config, h->g.weights, h->g.lora, &spec,
			      h->g.initial + h->g.lora->tensor[from].offset);
	ck_assert(h->lower && h->upper);
	stage_zero_gradients(h->lower);
	stage_zero_gradients(h->upper);
	h->gradients = arena_take(&h->g.arena, h->g.lora->elements * sizeof(float));
}

static void halves_close(struct halves *h)
{
	stage_close(h->lower);
	stage_close(h->upper);
	device_close(h->dev);
	golden_close(&h->g);
}

static size_t cut_floats(const struct halves *h)
{
	return (size_t)TOKENS * (size_t)h->g.config->width;
}

static void halves_forward(struct halves *h, int m)
{
	struct micro_batch micro = sequence_of(&h->g, m % SEQUENCES);
	double none = 0;

	stage_forward(h->lower, m, &micro, &none);
	memcpy(stage_input(h->upper, m), stage_edge(h->lower, m),
	       cut_floats(h) * sizeof(float));
	stage_forward(h->upper, m, &micro, &h->loss[m % SEQUENCES]);
}

static void halves_backward(struct halves *h, int m)
{
	struct micro_batch micro = sequence_of(&h->g, m % SEQUENCES);

	stage_backward(h->upper, m, &micro);
	memcpy(stage_edge(h->lower, m), stage_edge(h->upper, m), cut_floats(h) * sizeof(float));
	stage_backward(h->lower, m, &micro);
}

/* The gradients of both, and the sum of the losses. */
static void halves_read(struct halves *h)
{
	int from, to;

	stage_read(h->lower, STAGE_GRADIENTS, h->gradients);
	lora_range(h->g.lora, 2, h->g.config->blocks - 2, &from, &to);
	stage_read(h->upper, STAGE_GRADIENTS, h->gradients + h->g.lora->tensor[from].offset);
	for (int m = 0; m < SEQUENCES; m++)
		h->sum += h->loss[m];
}

/* Micro-batches numbered from `first`, one after the other, with one slot and one edge. */
static float *one_by_one(struct halves *h, const struct way *way)
{
	halves_open(h, way, 1, 1);
	for (int m = 0; m < SEQUENCES; m++) {
		halves_forward(h, m);
		halves_backward(h, m);
	}
	halves_read(h);
	return h->gradients;
}

/* Two in flight with three edges: slot and edge of a number part. What is received early into
 * the edges of micro-batches to come harms nobody. */
static void two_in_flight(struct halves *h, const struct way *way)
{
	enum { FIRST = 8 }; /* in slot 0, with edge 2 */

	halves_open(h, way, 2, 3);
	halves_forward(h, FIRST);
	for (int m = FIRST; m < FIRST + SEQUENCES; m++) {
		if (m + 1 < FIRST + SEQUENCES)
			halves_forward(h, m + 1);
		for (size_t i = 0; i < cut_floats(h); i++) /* as a receive would */
			stage_input(h->upper, m + 2)[i] = stage_edge(h->lower, m + 2)[i] = 1e9f;
		halves_backward(h, m);
	}
	halves_read(h);
}

START_TEST(more_edges_than_slots)
{
	struct halves one, two;
	struct way way = way_of(_i);

	one_by_one(&one, &way);
	two_in_flight(&two, &way);
	ck_assert_mem_eq(two.loss, one.loss, sizeof(one.loss));
	ck_assert_mem_eq(two.gradients, one.gradients, one.g.lora->elements * sizeof(float));
	ck_assert_double_gt(one.sum, 0);
	halves_close(&one);
	halves_close(&two);
}
END_TEST

/* Micro-batches share buffers when their numbers leave the same rest, and only then. */
START_TEST(edges_go_round)
{
	struct way way = {"llama", devices[_i], DTYPE_F32};
	struct halves h;
	float *input[7], *edge[7];

	halves_open(&h, &way, 2, 3);
	for (int m = 0; m < 7; m++) {
		input[m] = stage_input(h.upper, m);
		edge[m] = stage_edge(h.upper, m);
		ck_assert_ptr_ne(input[m], edge[m]);
	}
	for (int m = 0; m < 7; m++)
		for (int other = 0; other < 7; other++) {
			ck_assert_int_eq(input[m] == input[other], m % 3 == other % 3);
			ck_assert_int_eq(edge[m] == edge[other], m % 3 == other % 3);
		}
	halves_close(&h);
}
END_TEST

/* A stage with the head alone has one buffer for what comes and what goes. */
START_TEST(a_stage_without_blocks_has_one_buffer)
{
	struct golden g;
	struct device *dev = device_open(devices[_i], 1);
	struct stage_spec spec;
	struct stage *stage;

	golden_open(&g, "llama");
	spec = whole(&g);
	spec.first_block = g.config->blocks;
	spec.blocks = 0;
	spec.embedding = false;
	spec.edges = 2;
	stage = stage_open(dev, g.config, g.weights, g.lora, &spec, g.initial);
	ck_assert_ptr_nonnull(stage);
	if (dev->host_memory)
		ck_assert_ptr_eq(stage_input(stage, 1), stage_edge(stage, 1));
	ck_assert_ptr_ne(stage_input(stage, 0), stage_input(stage, 1));
	stage_close(stage);
	device_close(dev);
	golden_close(&g);
}
END_TEST

/* What was passed: "f1 f3 b3 b1" forwards and backwards by block, and what is done to it. */
struct passed {
	const struct micro_batch *micro;
	float forward, backward;
	size_t floats;
	char said[256];
};

static void note_pass(void *arg, int block, bool backward, const struct micro_batch *micro,
		      float *x)
{
	struct passed *passed = arg;
	size_t used = strlen(passed->said);

	snprintf(passed->said + used, sizeof(passed->said) - used, "%c%d ",
		 backward ? 'b' : 'f', block);
	ck_assert_ptr_eq(micro, passed->micro);
	for (size_t i = 0; i < passed->floats; i++)
		x[i] *= backward ? passed->backward : passed->forward;
}

/* Forward and backward with cuts after some blocks of the whole model; null: none. */
static float *passed_on(struct golden *g, const char *device, const bool *passes,
			struct passed *passed, double *loss)
{
	struct device *dev = device_open(device, 1);
	struct stage_spec spec = whole(g);
	struct micro_batch micro = micro_batch(g);
	float *gradients = arena_take(&g->arena, g->lora->elements * sizeof(float));
	struct stage *stage;

	spec.passes = passes;
	spec.pass = note_pass;
	spec.pass_arg = passed;
	passed->micro = &micro;
	passed->floats = (size_t)ROWS * (size_t)g->config->width;
	stage = stage_open(dev, g->config, g->weights, g->lora, &spec, g->initial);
	ck_assert_ptr_nonnull(stage);
	stage_zero_gradients(stage);
	stage_forward(stage, 0, &micro, loss);
	stage_backward(stage, 0, &micro);
	stage_read(stage, STAGE_GRADIENTS, gradients);
	stage_close(stage);
	device_close(dev);
	return gradients;
}

START_TEST(what_crosses_a_cut_is_passed)
{
	struct golden g;
	struct passed none = {.forward = 1, .backward = 1}, same = none,
		      more = {.forward = 1.5f, .backward = 1.5f};
	struct way way = way_of(_i);
	double plain_loss, same_loss, more_loss;
	float *plain, *equal, *other;
	bool passes[16] = {false};

	golden_open(&g, way.name);
	g.dtype = way.dtype;
	ck_assert_int_eq(g.config->blocks, 5);
	passes[0] = passes[2] = passes[4] = true;
	plain = passed_on(&g, way.device, NULL, &none, &plain_loss);
	equal = passed_on(&g, way.device, passes, &same, &same_loss);
	other = passed_on(&g, way.device, passes, &more, &more_loss);
	ck_assert_str_eq(none.said, "");
	ck_assert_str_eq(same.said, "f0 f2 f4 b4 b2 b0 ");
	ck_assert_str_eq(more.said, same.said);
	ck_assert_mem_eq(equal, plain, g.lora->elements * sizeof(float));
	ck_assert_double_eq(same_loss, plain_loss);
	ck_assert_double_ne(more_loss, plain_loss);
	ck_assert(memcmp(other, plain, g.lora->elements * sizeof(float)) != 0);
	golden_close(&g);
}
END_TEST

/* A cut that lets no gradient through: blocks above it learn as ever, those below nothing. */
START_TEST(a_backward_is_passed_at_its_cut)
{
	struct golden g;
	struct passed none = {.forward = 1, .backward = 1},
		      wall = {.forward = 1, .backward = 0};
	double loss, same;
	float *plain, *cut;
	bool passes[16] = {[2] = true};
	int from, to, moved = 0;
	size_t above;

	golden_open(&g, cases[_i / COUNT(devices)]);
	plain = passed_on(&g, devices[_i % COUNT(devices)], NULL, &none, &loss);
	cut = passed_on(&g, devices[_i % COUNT(devices)], passes, &wall, &same);
	lora_range(g.lora, 3, g.config->blocks - 3, &from, &to);
	above = g.lora->tensor[from].offset;
	ck_assert_double_eq(loss, same);
	ck_assert_mem_eq(cut + above, plain + above,
			 (g.lora->elements - above) * sizeof(float));
	for (size_t i = 0; i < above; i++) {
		ck_assert_float_eq(cut[i], 0);
		moved += plain[i] != 0;
	}
	ck_assert_int_gt(moved, (int)above / 4);
	golden_close(&g);
}
END_TEST

/* A block that slides needs less of attention's scratch; one that does not may stand behind it.
 */
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

/* Bytes of work memory of blocks whose adapters are on so many of these modules. */
static size_t work_of(struct golden *g, enum dtype dtype, int modules)
{
	static const char *targets[] = {"q_proj", "o_proj"};
	struct lora_config want = {.rank = 4, .alpha = 8, .targets = {targets, modules}};
	struct lora *lora = lora_resolve(g->config, &want);
	struct stage_spec spec = whole(g);
	size_t bytes;

	ck_assert_ptr_nonnull(lora);
	spec.head = false;
	spec.dtype = dtype;
	bytes = stage_memory(g->config, g->weights, lora, &spec, 1).work;
	lora_free(lora);
	return bytes;
}

/* The stream's gradient has a place for a copy only where products cannot read it as it flows:
 * behind it goes a tail, or it is in F32 and they are not. */
START_TEST(a_copy_that_nobody_reads_has_no_place)
{
	struct golden g;
	size_t width, tail = 4;

	golden_open(&g, "llama");
	width = (size_t)g.config->width;
	ck_assert_uint_eq(work_of(&g, DTYPE_F32, 2) - work_of(&g, DTYPE_F32, 1),
			  ROWS * (width + tail) * sizeof(float));
	ck_assert_uint_eq(work_of(&g, DTYPE_BF16, 2) - work_of(&g, DTYPE_BF16, 1),
			  ROWS * tail * sizeof(uint16_t));
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

#ifndef COUNTING
	puts("skipped under sanitizers: micro_batch_allocates_nothing (they own malloc)");
#endif
	say_dtypes_skipped();
	tcase_set_timeout(cases_, 60);
	tcase_add_loop_test(cases_, device_equals_pytorch, 0, COUNT(cases) * COUNT(devices));
	tcase_add_loop_test(cases_, far_equals_cpu, 0, COUNT(cases) * dtypes_here());
	tcase_add_loop_test(cases_, micro_batch_allocates_nothing, 0,
			    COUNT(cases) * LEVELS * dtypes_here());
	tcase_add_loop_test(cases_, stored_activations, 0, COUNT(dtypes));
	tcase_add_loop_test(cases_, more_edges_than_slots, 0, ways());
	tcase_add_loop_test(cases_, edges_go_round, 0, COUNT(devices));
	tcase_add_loop_test(cases_, a_stage_without_blocks_has_one_buffer, 0, COUNT(devices));
	tcase_add_loop_test(cases_, what_crosses_a_cut_is_passed, 0, ways());
	tcase_add_loop_test(cases_, a_backward_is_passed_at_its_cut, 0,
			    COUNT(cases) * COUNT(devices));
	tcase_add_test(cases_, scratch_fits_every_window);
	tcase_add_test(cases_, a_copy_that_nobody_reads_has_no_place);
	tcase_add_loop_test(cases_, nothing_below_the_lowest_adapter, 0, COUNT(lowests));
	tcase_add_test(cases_, dropout);
	suite_add_tcase(suite, cases_);
	return run_suite(suite);
}
