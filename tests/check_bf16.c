/*
 * tests/check_bf16.c - stages in BF16: they follow the same stages in F32, and have the same bits
 * for any number of threads, wherever they are cut, and behind far pointers. Adapters of odd ranks
 * and of ranks above every width, dropout, rows that are multiples of nothing, labels that are few,
 * none or all.
 *
 * links: model
 */
#include "tests/ways.h"

static const struct way ways[] = {
	{"the golden batch", NULL, 0, 0, SEQUENCES, TOKENS, LABELS_GOLDEN},
	{"all, rank 4", "all", 4, 0, SEQUENCES, TOKENS, LABELS_GOLDEN},
	{"all, rank 1", "all", 1, 0, SEQUENCES, TOKENS, LABELS_GOLDEN},
	{"all, rank 3, 15 rows", "all", 3, 0, 3, 5, LABELS_ALL},
	{"attention, rank 3, 7 rows", "attention", 3, 0, 1, 7, LABELS_ALL},
	{"all, rank 256", "all", 256, 0, 1, 11, LABELS_ALL},
	{"dropout", "all", 3, 0.3, SEQUENCES, TOKENS, LABELS_GOLDEN},
	{"all rows trained", "all", 4, 0, SEQUENCES, TOKENS, LABELS_ALL},
	{"few rows trained", "all", 4, 0, SEQUENCES, TOKENS, LABELS_FEW},
	{"one row", "all", 5, 0, 1, 1, LABELS_ALL},
};

static void way_open(struct golden *g, const char *name, const struct way *way)
{
	golden_open(g, name);
	adapt(g, way);
	label(g, way->labels, way->sequences * way->tokens);
}

/* -- BF16 and F32 -------------------------------------------------------------------------- */

/*
 * The golden models are small and their weights large, so that every part of a model shows in its
 * answers: scores of attention reach tens, and rounding them to the 8 bits of BF16 turns gradients
 * by some degrees. What BF16 costs there is measured on the reference, which rounds what is stored
 * and computes in double; the CPU's kernels may cost little more. Seen were lengths of errors of
 * 0.7 to 1.73 times the reference's, of one tensor at most 2.2 times. Sizes of their own are bound
 * too: seen were losses off by 0.041 (three rows trained), cosines of 0.9991 and more for GPT-2 and
 * Qwen 3, and of 0.982 and more for the others.
 */
#define TIMES 2
#define TENSOR_TIMES 3
#define LOSS_OFF 0.06
#define COSINE 0.97
#define COSINE_CALM 0.998

static double cosine(const float *x, const float *y, size_t count)
{
	double product = 0;

	for (size_t i = 0; i < count; i++)
		product += (double)x[i] * (double)y[i];
	return product / (norm_of(x, count) * norm_of(y, count));
}

/* Each tensor by itself: a wrong one does not hide among others. */
static void compare_tensors(const struct golden *g, const char *what, const struct result *f32,
			    const struct result *reference, const struct result *cpu)
{
	double all = error_of(reference->gradients, f32->gradients, g->lora->elements);

	for (int i = 0; i < g->lora->count; i++) {
		const struct lora_tensor *t = &g->lora->tensor[i];
		size_t count = (size_t)t->rows * (size_t)t->cols;
		const float *want = f32->gradients + t->offset;
		double off = error_of(cpu->gradients + t->offset, want, count);
		double least = error_of(reference->gradients + t->offset, want, count);

		if (norm_of(want, count) == 0)	/* of one token's scores */
			ck_assert(norm_of(cpu->gradients + t->offset, count) == 0);
		else
			ck_assert_msg(off <= TENSOR_TIMES * fmax(least, all),
				      "%s: %s is off by %g of itself, the reference by %g, all by %g",
				      what, t->name, off, least, all);
	}
}

static bool is_calm(const struct golden *g)
{
	return g->config->family->gpt2 || g->config->qk_norm;
}

/* Every way in both families; of the other cases, whose ways are the same, the first two. */
static const char *const families[] = {"gpt2", "qwen3"};
static const char *const others[] = {"gpt2-exact", "llama", "llama3", "mistral", "qwen2"};
enum { FAMILY_WAYS = COUNT(families) * COUNT(ways), FOLLOWING = FAMILY_WAYS + 2 * COUNT(others) };

START_TEST(bf16_follows_f32)
{
	int other = _i - FAMILY_WAYS;
	const struct way *way = &ways[other < 0 ? _i / COUNT(families) : other / COUNT(others)];
	const char *name = other < 0 ? families[_i % COUNT(families)] : others[other % COUNT(others)];
	struct golden g;
	struct result f32, reference, cpu;
	double off, least, alike;
	char what[64];

	snprintf(what, sizeof what, "%s, %s", name, way->name);
	way_open(&g, name, way);
	f32 = train(&g, DTYPE_F32, "cpu", 1, way);
	reference = train(&g, DTYPE_BF16, "reference", 1, way);
	cpu = train(&g, DTYPE_BF16, "cpu", 1, way);
	off = error_of(cpu.gradients, f32.gradients, g.lora->elements);
	least = error_of(reference.gradients, f32.gradients, g.lora->elements);
	alike = cosine(cpu.gradients, f32.gradients, g.lora->elements);
	printf("%s: loss %.4f %+.4f, gradient off by %.4f, the reference by %.4f, cosine %.5f\n", what,
	       f32.loss, cpu.loss - f32.loss, off, least, alike);
	fflush(stdout);
	ck_assert_msg(fabs(cpu.loss - f32.loss) <= LOSS_OFF, "%s: loss %g, not %g", what, cpu.loss,
		      f32.loss);
	ck_assert_msg(off <= TIMES * least, "%s: off by %g, the reference by %g", what, off, least);
	ck_assert_msg(alike >= (is_calm(&g) ? COSINE_CALM : COSINE), "%s: cosine %g", what, alike);
	compare_tensors(&g, what, &f32, &reference, &cpu);
	ck_assert_msg(off > 1e-4, "%s: this is not BF16", what);
	golden_close(&g);
}
END_TEST

START_TEST(nothing_trained_gives_nothing)
{
	struct way way = ways[1];
	struct golden g;
	struct result got;

	way.labels = LABELS_NONE;
	way_open(&g, cases[_i], &way);
	got = train(&g, DTYPE_BF16, "cpu", 2, &way);
	ck_assert_double_eq(got.loss, 0);
	for (size_t i = 0; i < g.lora->elements; i++)
		ck_assert_float_eq(got.gradients[i], 0);
	golden_close(&g);
}
END_TEST

/* -- the same bits ------------------------------------------------------------------------- */

START_TEST(bf16_same_bits_on_any_threads_and_far)
{
	const struct way *way = &ways[_i % COUNT(ways)];
	struct golden g;
	struct result want, got;

	way_open(&g, cases[_i % COUNT(cases)], way);
	want = train(&g, DTYPE_BF16, "cpu", 1, way);
	for (int threads = 2; threads <= 3; threads++) {
		got = train(&g, DTYPE_BF16, "cpu", threads, way);
		same_bits(&g, &want, &got, "threads");
	}
	got = train(&g, DTYPE_BF16, "far", 2, way);
	same_bits(&g, &want, &got, "far");
	golden_close(&g);
}
END_TEST

START_TEST(bf16_same_bits_wherever_it_is_cut)
{
	static const struct cut cuts[] = {{2, {2, 3}}, {2, {5, 0}}, {3, {1, 3, 1}}, {3, {4, 1, 0}}};
	const struct way *way = &ways[_i % COUNT(ways)];
	struct golden g;
	struct result want, got;

	way_open(&g, cases[_i % COUNT(cases)], way);
	want = train(&g, DTYPE_BF16, "cpu", 1, way);
	for (int i = 0; i < COUNT(cuts); i++) {
		got = train_cut(&g, "cpu", 1 + i % 2, way, &cuts[i]);
		same_bits(&g, &want, &got, "cut");
	}
	golden_close(&g);
}
END_TEST

/* -- adapters and memory ------------------------------------------------------------------- */

/* After an update products read the new adapters: the stage goes on as one that starts from them. */
START_TEST(an_update_reaches_the_products)
{
	struct adamw adamw = {1e-2, 0.9, 0.999, 1e-8, 0, 1, 1};
	const struct way *way = &ways[3];
	struct golden g;
	struct device *dev = device_open("cpu", 1);
	struct stage *stage;
	struct micro_batch micro;
	double first, updated, fresh;
	size_t offset;

	way_open(&g, cases[_i % COUNT(cases)], way);
	g.dtype = dtypes[_i / COUNT(cases)];
	micro = micro_batch(&g);
	stage = open_part(&g, dev, way, 0, g.config->blocks, true, &offset);
	stage_forward(stage, 0, &micro, &first);
	stage_backward(stage, 0, &micro);
	stage_update(stage, &adamw);
	stage_read(stage, STAGE_VALUES, g.initial);
	stage_forward(stage, 0, &micro, &updated);
	stage_close(stage);
	stage = open_part(&g, dev, way, 0, g.config->blocks, true, &offset);
	stage_forward(stage, 0, &micro, &fresh);
	stage_close(stage);
	ck_assert_double_eq(updated, fresh);
	ck_assert_double_lt(updated, first);
	device_close(dev);
	golden_close(&g);
}
END_TEST

/* What a device was asked for; its own alloc. */
static size_t asked;
static void *(*device_alloc)(struct device *dev, size_t bytes);

static void *counted_alloc(struct device *dev, size_t bytes)
{
	asked += bytes;
	return device_alloc(dev, bytes);
}

/* On a device that cannot use mapped files all weights are allocated: the estimate, less the adapters' copy that
 * travels, and what the slab rounds up. */
START_TEST(the_estimate_is_what_is_allocated)
{
	const struct way *way = &ways[_i / COUNT(cases) % COUNT(ways)];
	struct golden g;
	struct device *dev = device_open("far", 2);
	struct stage_spec spec;
	struct stage_memory memory;
	size_t want, offset;

	way_open(&g, cases[_i % COUNT(cases)], way);
	g.dtype = dtypes[_i / COUNT(cases) / COUNT(ways)];
	spec = whole(&g);
	spec.sequences = way->sequences;
	spec.tokens = way->tokens;
	memory = stage_memory(g.config, g.weights, g.lora, &spec, 2);
	device_alloc = dev->alloc;
	dev->alloc = counted_alloc;
	asked = 0;
	stage_close(open_part(&g, dev, way, 0, g.config->blocks, true, &offset));
	want = memory.total - g.lora->elements * sizeof(float);
	ck_assert_uint_ge(asked, want);
	/* a block has at most 12 pieces of weights, the ends 6 */
	ck_assert_uint_le(asked, want + (12 * (size_t)g.config->blocks + 6) * SLAB_ALIGN);
	device_close(dev);
	golden_close(&g);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("bf16");
	TCase *bf16 = tcase_create("bf16"), *both = tcase_create("both dtypes");
	bool has = dtypes_here() == 2;

	say_dtypes_skipped();
	tcase_set_timeout(bf16, 60);
	tcase_add_loop_test(bf16, bf16_follows_f32, 0, has ? FOLLOWING : 0);
	tcase_add_loop_test(bf16, nothing_trained_gives_nothing, 0, has ? COUNT(cases) : 0);
	tcase_add_loop_test(bf16, bf16_same_bits_on_any_threads_and_far, 0,
			    has ? COUNT(ways) : 0);
	tcase_add_loop_test(bf16, bf16_same_bits_wherever_it_is_cut, 0, has ? COUNT(ways) : 0);
	tcase_add_loop_test(both, an_update_reaches_the_products, 0, COUNT(cases) * dtypes_here());
	tcase_add_loop_test(both, the_estimate_is_what_is_allocated, 0,
			    COUNT(cases) * COUNT(ways) * dtypes_here());
	suite_add_tcase(suite, bf16);
	suite_add_tcase(suite, both);
	return run_suite(suite);
}
