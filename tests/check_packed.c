/*
 * tests/check_packed.c - weights of BF16 that are packed for the library's products, which takes widths that are
 * multiples of PACK_BLOCK: stages follow those in F32 as closely as stages with row-major weights do, before an update and
 * after it, and have the same bits for any number of threads, wherever they are cut. And for every layout, the
 * estimate of a stage's memory is what is allocated.
 *
 * links: model
 */
#include "tests/model_files.h"
#include "tests/ways.h"

/* -- models -------------------------------------------------------------------------------- */

/* Several parts in a linear (q, k and v of different widths; gate and up), W as it is and transposed. */
static const struct model {
	const char *name, *config;
} models[] = {
	{"gpt2", "{\"model_type\":\"gpt2\",\"n_embd\":64,\"n_head\":4,\"n_layer\":3,"
		 "\"n_positions\":16,\"vocab_size\":96,\"architectures\":[\"GPT2LMHeadModel\"]}"},
	{"llama", "{\"model_type\":\"llama\",\"hidden_size\":128,\"num_attention_heads\":4,"
		  "\"num_key_value_heads\":2,\"num_hidden_layers\":3,\"intermediate_size\":192,"
		  "\"vocab_size\":96,\"architectures\":[\"LlamaForCausalLM\"]}"},
};
enum { ENTRIES = 64 };

/* Odd ranks leave a column of a tail empty; the tails of three parts are not aligned to anything. */
static const struct way ways[] = {
	{"all, rank 3", "all", 3, 0, SEQUENCES, TOKENS, LABELS_ALL},
	{"all, rank 4, 15 rows", "all", 4, 0, 3, 5, LABELS_ALL},
	{"all, rank 5, dropout", "all", 5, 0.25, SEQUENCES, TOKENS, LABELS_ALL},
	{"attention, rank 1", "attention", 1, 0, 1, 7, LABELS_ALL},
};
enum { EACH = COUNT(models) * COUNT(ways) };

/* Scales that keep activations near 1; norms near 1. */
static void randomise(const struct safetensors_entry *entry, uint32_t key)
{
	size_t count = (size_t)entry->shape[0] * (size_t)(entry->dims > 1 ? entry->shape[1] : 1);
	float *data = (float *)entry->data;
	bool norm = entry->dims == 1 && strstr(entry->name, "bias") == NULL;
	float size = entry->dims == 1 ? 0.2f : 1.5f / sqrtf((float)entry->shape[1]);

	for (size_t i = 0; i < count; i++)
		data[i] = size * number(key, i) + (norm ? 1 : 0);
}

static void write_models(void)
{
	scratch_open();
	for (int m = 0; m < COUNT(models); m++) {
		char *folder = model_folder(models[m].name, models[m].config);
		struct model_config *config = model_config_read(folder);
		struct safetensors_entry entry[ENTRIES];
		int count;

		ck_assert_ptr_nonnull(config);
		count = model_entries(config, true, entry, ENTRIES);
		for (int i = 0; i < count; i++)
			randomise(&entry[i], (uint32_t)i + 100);
		ck_assert_int_eq(safetensors_write(path_join(&paths, folder, "model.safetensors"),
						   entry, count, NULL),
				 0);
		model_config_free(config);
	}
}

static void model_open(struct golden *g, int m, const struct way *way)
{
	*g = (struct golden){0};
	g->config = model_config_read(at(models[m].name));
	ck_assert_ptr_nonnull(g->config);
	g->weights = weights_open(g->config);
	ck_assert_ptr_nonnull(g->weights);
	for (int i = 0; i < ROWS; i++)
		g->ids[i] = (int32_t)(philox((struct philox){{(uint32_t)i, 0, 0, 0}}, 7, 17).word[0] %
				      (uint32_t)g->config->vocabulary);
	adapt(g, way);
	label(g, way->labels, way->sequences * way->tokens);
}

static struct stage_memory memory_of(const struct golden *g, const struct way *way)
{
	struct stage_spec spec = whole(g);

	spec.sequences = way->sequences;
	spec.tokens = way->tokens;
	return stage_memory(g->config, g->weights, g->lora, &spec, 2);
}

/* -- packed and F32 ------------------------------------------------------------------------ */

/*
 * Of the gradient's length; of one tensor's. Row-major weights are the measure: both compute the same in another order.
 */
#define LOSS_OFF 0.02
#define OFF 0.03
#define TENSOR_OFF 0.06
#define TIMES 1.5

static double worst_tensor(const struct golden *g, const struct result *f32,
			   const struct result *got)
{
	double worst = 0;

	for (int i = 0; i < g->lora->count; i++) {
		const struct lora_tensor *t = &g->lora->tensor[i];

		worst = fmax(worst, error_of(got->gradients + t->offset, f32->gradients + t->offset,
					     (size_t)t->rows * (size_t)t->cols));
	}
	return worst;
}

static void follow(struct golden *g, const char *what, const struct way *way,
		   const struct result *packed)
{
	struct result f32 = train(g, DTYPE_F32, "cpu", 1, way), plain;
	double off, least, worst = worst_tensor(g, &f32, packed);

	g->plain = true;
	plain = train(g, DTYPE_BF16, "cpu", 1, way);
	g->plain = false;
	off = error_of(packed->gradients, f32.gradients, g->lora->elements);
	least = error_of(plain.gradients, f32.gradients, g->lora->elements);
	printf("%s, %s: loss %.4f %+.4f, gradient off by %.4f, row-major by %.4f, a tensor by %.4f\n",
	       what, way->name, f32.loss, packed->loss - f32.loss, off, least, worst);
	fflush(stdout);
	ck_assert_msg(fabs(packed->loss - f32.loss) <= LOSS_OFF, "loss %g, not %g", packed->loss,
		      f32.loss);
	ck_assert_msg(off <= OFF && off <= TIMES * least, "off by %g, row-major by %g", off, least);
	ck_assert_msg(worst <= TENSOR_OFF, "a tensor is off by %g", worst);
	ck_assert_msg(off > 1e-4, "this is not BF16");
}

START_TEST(packed_follows_f32)
{
	const struct way *way = &ways[_i / COUNT(models)];
	struct golden g;
	struct stage_memory packed, plain;
	struct result got;

	model_open(&g, _i % COUNT(models), way);
	g.dtype = DTYPE_BF16;
	packed = memory_of(&g, way);
	g.plain = true;
	plain = memory_of(&g, way);
	g.plain = false;
	ck_assert_uint_gt(packed.weights, plain.weights);	/* it is packed */
	got = train(&g, DTYPE_BF16, "cpu", 1, way);
	follow(&g, models[_i % COUNT(models)].name, way, &got);
	golden_close(&g);
}
END_TEST

/* Adapters are packed again: the stage goes on as one that starts from them, which follows F32. */
START_TEST(an_update_is_packed)
{
	struct adamw adamw = {1e-2, 0.9, 0.999, 1e-8, 0, 1, 1};
	const struct way *way = &ways[_i / COUNT(models)];
	struct golden g;
	struct device *dev = device_open("cpu", 1);
	struct stage *stage;
	struct micro_batch micro;
	struct result got = {0}, fresh;
	double first;
	size_t offset;

	model_open(&g, _i % COUNT(models), way);
	g.dtype = DTYPE_BF16;
	micro = micro_batch(&g);
	got.gradients = arena_take(&g.arena, g.lora->elements * sizeof(float));
	stage = open_part(&g, dev, way, 0, g.config->blocks, true, &offset);
	stage_forward(stage, 0, &micro, &first);
	stage_backward(stage, 0, &micro);
	stage_update(stage, &adamw);
	stage_zero_gradients(stage);
	stage_forward(stage, 0, &micro, &got.loss);
	stage_backward(stage, 0, &micro);
	stage_read(stage, STAGE_VALUES, g.initial);
	stage_read(stage, STAGE_GRADIENTS, got.gradients);
	stage_close(stage);
	device_close(dev);
	got.loss /= g.trained;
	ck_assert_double_lt(got.loss, first / g.trained);
	fresh = train(&g, DTYPE_BF16, "cpu", 1, way);
	same_bits(&g, &fresh, &got, "after an update");
	follow(&g, models[_i % COUNT(models)].name, way, &got);
	golden_close(&g);
}
END_TEST

START_TEST(packed_same_bits)
{
	static const struct cut cuts[] = {{2, {1, 2}}, {2, {3, 0}}, {3, {1, 1, 1}}, {3, {2, 1, 0}}};
	const struct way *way = &ways[_i / COUNT(models)];
	struct golden g;
	struct result want, got;

	model_open(&g, _i % COUNT(models), way);
	want = train(&g, DTYPE_BF16, "cpu", 1, way);
	got = train(&g, DTYPE_BF16, "cpu", 2, way);
	same_bits(&g, &want, &got, "threads");
	for (int i = 0; i < COUNT(cuts); i++) {
		got = train_cut(&g, "cpu", 1 + i % 2, way, &cuts[i]);
		same_bits(&g, &want, &got, "cut");
	}
	golden_close(&g);
}
END_TEST

/* -- memory -------------------------------------------------------------------------------- */

static size_t asked;
static void *(*device_alloc)(struct device *dev, size_t bytes);

static void *counted_alloc(struct device *dev, size_t bytes)
{
	asked += bytes;
	return device_alloc(dev, bytes);
}

/* Files are F32. A stage of BF16 uses nothing of them where it lies but GPT-2's positions, the far device nothing. */
static const struct layout {
	const char *device;
	enum dtype dtype;
	bool plain;
} layouts[] = {
	{"far", DTYPE_F32, false},
	{"cpu", DTYPE_BF16, false},
	{"cpu", DTYPE_BF16, true},
	{"far", DTYPE_BF16, true},
};
enum { LEVELS = RECOMPUTE_BLOCK + 1 };

static size_t mapped_bytes(const struct golden *g, const struct layout *layout, const struct way *way)
{
	bool positions = g->config->family->gpt2 && !strcmp(layout->device, "cpu");

	return positions ? (size_t)way->tokens * (size_t)g->config->width * sizeof(float) : 0;
}

/* The estimate, less what is mapped and the adapters' copy that travels. */
START_TEST(the_estimate_is_what_is_allocated)
{
	const struct layout *layout = &layouts[_i % COUNT(layouts)];
	struct device *dev = device_open(layout->device, 2);
	struct golden g;
	size_t offset;

	device_alloc = dev->alloc;
	dev->alloc = counted_alloc;
	for (int m = 0; m < COUNT(models); m++)
		for (int w = 0; w < COUNT(ways); w++) {
			model_open(&g, m, &ways[w]);
			g.dtype = layout->dtype;
			g.plain = layout->plain;
			g.recompute = (enum recompute)(_i / COUNT(layouts));
			asked = 0;
			stage_close(open_part(&g, dev, &ways[w], 0, g.config->blocks, true, &offset));
			ck_assert_uint_eq(asked + mapped_bytes(&g, layout, &ways[w]) +
						  g.lora->elements * sizeof(float),
					  memory_of(&g, &ways[w]).total);
			golden_close(&g);
		}
	device_close(dev);
}
END_TEST

/* -- what the library lacks ---------------------------------------------------------------- */

/* Sizes of weights until there is no room for their layouts. */
static void exhaust_layouts(struct device *dev)
{
	enum { MOST = 300, COLS = 64 };
	float *numbers = xzalloc((size_t)MOST * COLS, sizeof *numbers);
	void *memory = dev->alloc(dev, dev->k.packed_bytes(MOST, COLS));

	for (int i = 1; i <= MOST && !dev->lacks; i++)
		dev->k.pack(dev, (struct matrix){memory, i, COLS, 0, DTYPE_BF16}, 0, 0,
			    matrix(numbers, i, COLS), false);
	dev->free(dev, memory);
	free(numbers);
}

/* What runs steps learns of a kernel that found nothing. */
START_TEST(a_stage_says_that_a_product_lacked)
{
	struct golden g;
	struct device *dev = device_open("cpu", 1);
	struct stage_spec spec;
	struct stage *stage;

	model_open(&g, 0, &ways[0]);
	g.dtype = DTYPE_BF16;
	spec = whole(&g);
	stage = stage_open(dev, g.config, g.weights, g.lora, &spec, g.initial);
	ck_assert_ptr_nonnull(stage);
	ck_assert(stage_sound(stage));
	error_hold();
	exhaust_layouts(dev);
	ck_assert(!stage_sound(stage));
	error_clear();
	stage_close(stage);
	device_close(dev);
	golden_close(&g);
}
END_TEST

/* Where a layout lacks, the kernel says so and returns, and no stage is opened. */
START_TEST(a_stage_without_its_products_is_not_opened)
{
	struct golden g;
	struct device *dev = device_open("cpu", 1);
	struct stage_spec spec;

	model_open(&g, 0, &ways[0]);
	g.dtype = DTYPE_BF16;
	spec = whole(&g);
	error_hold();
	exhaust_layouts(dev);
	ck_assert(dev->lacks);
	assert_said(EXIT_BUG, "sizes of weights");
	dev->lacks = false;
	error_hold();
	ck_assert_ptr_null(stage_open(dev, g.config, g.weights, g.lora, &spec, g.initial));
	assert_said(EXIT_BUG, "sizes of weights");
	device_close(dev);
	golden_close(&g);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("packed");
	TCase *packed = tcase_create("packed");
	bool has = dtypes_here() == 2;

	say_dtypes_skipped();
	tcase_add_unchecked_fixture(packed, write_models, scratch_close);
	tcase_set_timeout(packed, 60);
	tcase_add_loop_test(packed, packed_follows_f32, 0, has ? EACH : 0);
	tcase_add_loop_test(packed, an_update_is_packed, 0, has ? EACH : 0);
	tcase_add_loop_test(packed, packed_same_bits, 0, has ? EACH : 0);
	tcase_add_loop_test(packed, the_estimate_is_what_is_allocated, 0,
			    has ? COUNT(layouts) * LEVELS : 0);
	tcase_add_loop_test(packed, a_stage_says_that_a_product_lacked, 0, has);
	tcase_add_loop_test(packed, a_stage_without_its_products_is_not_opened, 0, has);
	suite_add_tcase(suite, packed);
	return run_suite(suite);
}
