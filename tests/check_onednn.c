/*
 * tests/check_onednn.c - the slot linear, in F32 and BF16, by every library that there is: equal
 * to the reference, the same bits for any number of threads, and nothing computed where it is
 * only made ready. Shapes are multiples of nothing; gaps between rows hold NaN in what is read,
 * and must stay what they were in what is written.
 *
 * What this CPU or build lacks is skipped, and said.
 *
 * links: tensor base
 */
#include "tensor/tensor.h"
#include "tests/numbers.h"
#include "tests/suite.h"

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* Gaps: ld - cols of y, x and w. */
static const struct shape {
	int rows, inner, cols, gap_y, gap_x, gap_w;
} shapes[] = {
	{1, 1, 1, 0, 0, 0},
	{1, 1, 1, 2, 3, 5},
	{1, 2, 1, 0, 2, 4},
	{7, 5, 3, 0, 0, 0},
	{7, 5, 3, 1, 1, 1},	/* odd steps: rows of BF16 that are not aligned to 4 bytes */
	{2, 1, 300, 3, 0, 2},
	{1, 770, 67, 0, 2, 0},
	{300, 3, 1, 6, 1, 0},
	{48, 20, 60, 0, 4, 12},
	{129, 300, 131, 2, 6, 8},	/* a tile and a row */
	{257, 33, 515, 0, 0, 0},	/* tiles in both directions, with rests */
	{19, 2305, 776, 0, 8, 9},
	{6, 0, 5, 3, 0, 0},	/* nothing to sum: y is bias and what it was */
	{33, 64, 2306, 2306, 0, 0},	/* as the logits' gradient lies: every other row */
};

/* One way to ask for a shape. */
struct ask {
	const struct shape *shape;
	enum dtype in, out;
	bool w_t, bias;
	float beta;
};
/* w turned or not, bias or not, beta 0 or 1, and in BF16 two dtypes of y. */
static int asks_of(enum dtype in)
{
	return in == DTYPE_BF16 ? 16 : 8;
}

static struct ask ask_of(const struct shape *shape, enum dtype in, int i)
{
	return (struct ask){
		.shape = shape,
		.in = in,
		.out = i & 8 ? DTYPE_BF16 : DTYPE_F32,
		.w_t = i & 1,
		.bias = i & 2,
		.beta = i & 4 ? 1 : 0,
	};
}

/* -- data ---------------------------------------------------------------------------------- */

/* A matrix in device memory of numbers in (-1, 1), with `gap` between its rows. */
static struct matrix filled(struct device *dev, enum dtype dtype, int rows, int cols, int gap_cols,
			    float gap, uint32_t key)
{
	struct matrix m = matrix_of(dtype, NULL, rows, cols);
	size_t count, bytes = dtype_bytes(dtype);
	char *data;

	m.ld += (size_t)gap_cols;
	count = (size_t)rows * m.ld;
	data = xalloc(count * bytes);
	for (size_t i = 0; i < count; i++) {
		float x = i % m.ld < (size_t)cols ? mixed_number(key, i) : gap;
		uint16_t half = bf16_of(x);

		memcpy(data + i * bytes, dtype == DTYPE_BF16 ? (void *)&half : (void *)&x, bytes);
	}
	m.data = dev->alloc(dev, count * bytes);
	ck_assert_ptr_nonnull(m.data);
	dev->upload(dev, m.data, data, count * bytes);
	free(data);
	return m;
}

struct operands {
	struct matrix y, x, w, bias;
};

static struct operands operands_open(struct device *dev, const struct ask *a)
{
	const struct shape *s = a->shape;

	return (struct operands){
		.y = filled(dev, a->out, s->rows, s->cols, s->gap_y, 7, 1),
		.x = filled(dev, a->in, s->rows, s->inner, s->gap_x, NAN, 2),
		.w = filled(dev, a->in, a->w_t ? s->cols : s->inner, a->w_t ? s->inner : s->cols,
			    s->gap_w, NAN, 3),
		.bias = a->bias ? filled(dev, DTYPE_F32, 1, s->cols, 0, 0, 4) : (struct matrix){0},
	};
}

static void operands_close(struct device *dev, struct operands *o)
{
	dev->free(dev, o->y.data);
	dev->free(dev, o->x.data);
	dev->free(dev, o->w.data);
	dev->free(dev, o->bias.data);
}

/* All of y with its gaps, as floats. */
static float *read_y(struct device *dev, struct matrix y, size_t *count)
{
	size_t bytes = dtype_bytes(y.dtype);
	float *floats;
	void *stored;

	*count = (size_t)y.rows * y.ld;
	floats = xalloc(*count * sizeof *floats);
	stored = xalloc(*count * bytes);
	dev->download(dev, stored, y.data, *count * bytes);
	convert_to_f32(floats, stored, y.dtype, *count);
	free(stored);
	return floats;
}

/* What a device makes of it. */
static float *answer(struct device *dev, const struct ask *a, size_t *count)
{
	struct operands o = operands_open(dev, a);
	float *y;

	dev->k.linear(dev, o.y, o.x, o.w, a->w_t, o.bias, a->beta);
	y = read_y(dev, o.y, count);
	operands_close(dev, &o);
	return y;
}

static struct device *open_device(const char *name, int threads)
{
	struct device *dev = device_open(name, threads);

	ck_assert_ptr_nonnull(dev);
	return dev;
}

/* -- what there is ------------------------------------------------------------------------- */

static bool built_with_onednn(void)
{
	char text[128];

	return strstr(cpu_describe(text, sizeof text), "oneDNN") != NULL;
}

/* The devices, and what they multiply. */
static const struct kind {
	const char *device;
	enum dtype in;
} kinds[] = {
	{"cpu", DTYPE_F32},  {"openblas", DTYPE_F32}, {"onednn", DTYPE_F32}, {"far", DTYPE_F32},
	{"cpu", DTYPE_BF16}, {"onednn", DTYPE_BF16},  {"far", DTYPE_BF16},
};

static bool there_is(const struct kind *kind)
{
	if (kind->in == DTYPE_BF16)
		return cpu_has_bf16();
	return strcmp(kind->device, "onednn") != 0 || built_with_onednn();
}

/* -- tests --------------------------------------------------------------------------------- */

/*
 * How far y may be off: each of n additions rounds a sum of products of numbers in (-1, 1) to 2^-24
 * of itself, a sum that grows as sqrt(n) / 3; these errors add as sqrt(n) does, seldom to more than
 * three times that. The reference sums in double. Products of two BF16 are exact in F32, so both
 * dtypes are allowed the same. A y in BF16 may besides be its own neighbour, since a little before
 * rounding decides.
 */
static float allowed(const struct ask *a, float want)
{
	float sum = 1e-6f + 0x1p-24f * (float)a->shape->inner;

	return a->out == DTYPE_BF16 ? sum + 0x1p-7f * fabsf(want) : sum;
}

static void assert_equal(const struct kind *kind, const struct ask *a, const float *want,
			 const float *got, size_t count)
{
	const struct shape *s = a->shape;
	size_t ld = count / (size_t)s->rows;

	for (size_t i = 0; i < count; i++) {
		bool gap = i % ld >= (size_t)s->cols;

		if (gap ? got[i] == 7 : fabsf(got[i] - want[i]) <= allowed(a, want[i]))
			continue;
		ck_abort_msg("%s: (%d, %d) x (%d, %d), %s to %s, w_t %d, bias %d, beta %g: y (%zu, "
			     "%zu)%s is %.9g instead of %.9g",
			     kind->device, s->rows, s->inner, s->inner, s->cols, dtype_name(a->in),
			     dtype_name(a->out), a->w_t, a->bias, (double)a->beta, i / ld, i % ld,
			     gap ? ", a gap," : "", (double)got[i], gap ? 7 : (double)want[i]);
	}
}

/* The reference is slow: of the large shapes every fifth way is asked, which is each of them for one of the four. */
static int step_of(const struct shape *s)
{
	return (double)s->rows * s->inner * s->cols > 1e6 ? 5 : 1;
}

/* One ask of the reference, and every device that multiplies this dtype. */
static void ask_all(struct device *reference, struct device **dev, const struct ask *a)
{
	size_t count;
	float *want = answer(reference, a, &count);

	for (int k = 0; k < COUNT(kinds); k++) {
		float *got;

		if (!dev[k])
			continue;
		got = answer(dev[k], a, &count);
		assert_equal(&kinds[k], a, want, got, count);
		free(got);
	}
	free(want);
}

START_TEST(linear_equals_reference)
{
	enum dtype in = _i ? DTYPE_BF16 : DTYPE_F32;
	struct device *reference = open_device("reference", 1), *dev[COUNT(kinds)] = {0};
	int devices = 0;

	for (int k = 0; k < COUNT(kinds); k++)
		if (kinds[k].in == in && there_is(&kinds[k])) {
			dev[k] = open_device(kinds[k].device, 2);
			devices++;
		}
	for (int s = 0; s < COUNT(shapes) && devices; s++)
		for (int i = 0; i < asks_of(in); i += step_of(&shapes[s])) {
			struct ask a = ask_of(&shapes[s], in, i);

			ask_all(reference, dev, &a);
		}
	for (int k = 0; k < COUNT(kinds); k++)
		device_close(dev[k]);
	device_close(reference);
}
END_TEST

START_TEST(linear_same_bits_on_any_threads)
{
	const struct kind *kind = &kinds[_i];

	if (!there_is(kind))
		return;
	struct device *dev[3];

	for (int t = 0; t < COUNT(dev); t++)
		dev[t] = open_device(kind->device, t + 1);
	for (int s = 0; s < COUNT(shapes); s++)
		for (int i = 0; i < asks_of(kind->in); i += 3) {
			struct ask a = ask_of(&shapes[s], kind->in, i);
			size_t count;
			float *want = answer(dev[0], &a, &count);

			for (int t = 1; t < COUNT(dev); t++) {
				float *got = answer(dev[t], &a, &count);

				ck_assert_msg(!memcmp(want, got, count * sizeof *want),
					      "%s, %s: shape %d, way %d: %d threads, other bits",
					      kind->device, dtype_name(kind->in), s, i, t + 1);
				free(got);
			}
			free(want);
		}
	for (int t = 0; t < COUNT(dev); t++)
		device_close(dev[t]);
}
END_TEST

/* Sizes that occur: widened by an adapter's rank, the rows of y inside of a wider matrix. */
static const struct shape packed_shapes[] = {
	{129, 128, 64, 0, 0, 0},  {129, 136, 192, 0, 0, 0},    {44, 904, 128, 0, 0, 0},
	{130, 72, 192, 208, 0, 0}, {130, 136, 4864, 4880, 0, 0}, {130, 128, 64, 0, 24, 0},
	{1, 136, 64, 3, 5, 0},
};

/* y by packed weights, which a's w_t turns while they are packed. */
static float *packed_answer(struct device *dev, const struct ask *a, size_t *count)
{
	struct operands o = operands_open(dev, a);
	struct matrix packed = {.rows = a->shape->inner, .cols = a->shape->cols, .dtype = a->in};
	float *y;

	packed.data = dev->alloc(dev, dev->k.packed_bytes(packed.rows, packed.cols));
	ck_assert_ptr_nonnull(packed.data);
	dev->k.pack(dev, packed, 0, 0, o.w, a->w_t);
	dev->k.linear(dev, o.y, o.x, packed, false, o.bias, a->beta);
	y = read_y(dev, o.y, count);
	dev->free(dev, packed.data);
	operands_close(dev, &o);
	return y;
}

/* Every shape has a fast product: the library's own reference would be refused. */
START_TEST(packed_weights_equal_reference)
{
	static const struct kind kind = {"cpu", DTYPE_BF16};

	if (!cpu_has_bf16())
		return;
	struct device *reference = open_device("reference", 1), *dev = open_device("cpu", 2);

	for (int s = 0; s < COUNT(packed_shapes); s++)
		for (int i = 0; i < asks_of(kind.in); i += step_of(&packed_shapes[s])) {
			struct ask a = ask_of(&packed_shapes[s], kind.in, i);
			size_t count;
			float *want = answer(reference, &a, &count);
			float *got = packed_answer(dev, &a, &count);

			assert_equal(&kind, &a, want, got, count);
			free(want);
			free(got);
		}
	device_close(dev);
	device_close(reference);
}
END_TEST

/* Without x nothing is computed, and what was made ready computes the same. */
START_TEST(linear_without_x_is_made_ready)
{
	const struct kind *kind = &kinds[_i];

	if (!there_is(kind))
		return;
	struct device *dev = open_device(kind->device, 2), *fresh = open_device(kind->device, 2);

	for (int s = 0; s < COUNT(shapes); s++) {
		struct ask a = ask_of(&shapes[s], kind->in, s % asks_of(kind->in));
		struct operands o = operands_open(dev, &a);
		struct matrix x = o.x;
		size_t count;
		float *before = read_y(dev, o.y, &count), *after, *want;

		x.data = NULL;
		dev->k.linear(dev, o.y, x, o.w, a.w_t, o.bias, a.beta);
		after = read_y(dev, o.y, &count);
		ck_assert_mem_eq(before, after, count * sizeof *before);
		free(after);
		dev->k.linear(dev, o.y, o.x, o.w, a.w_t, o.bias, a.beta);
		after = read_y(dev, o.y, &count);
		want = answer(fresh, &a, &count);
		ck_assert_mem_eq(want, after, count * sizeof *want);
		ck_assert(shapes[s].inner == 0 || memcmp(before, after, count * sizeof *want) != 0);
		free(before);
		free(after);
		free(want);
		operands_close(dev, &o);
	}
	device_close(dev);
	device_close(fresh);
}
END_TEST

/* Shapes that differ in one number only are not taken for one another: each is asked again after all others. */
START_TEST(products_are_told_apart)
{
	const struct kind *kind = &kinds[_i];

	if (!there_is(kind))
		return;
	static const struct shape near[] = {
		{8, 6, 4, 0, 0, 0}, {9, 6, 4, 0, 0, 0}, {8, 7, 4, 0, 0, 0}, {8, 6, 5, 0, 0, 0},
		{8, 6, 4, 1, 0, 0}, {8, 6, 4, 0, 1, 0}, {8, 6, 4, 0, 0, 1}, {8, 4, 4, 0, 0, 0},
	};
	struct device *reference = open_device("reference", 1), *dev = open_device(kind->device, 1);

	for (int i = 0; i < 2 * COUNT(near) * asks_of(kind->in); i++) {
		struct ask a = ask_of(&near[i % COUNT(near)], kind->in,
				      i / COUNT(near) % asks_of(kind->in));
		size_t count;
		float *want = answer(reference, &a, &count), *got = answer(dev, &a, &count);

		assert_equal(kind, &a, want, got, count);
		free(want);
		free(got);
	}
	device_close(dev);
	device_close(reference);
}
END_TEST

/* Who is asked for by name is there, or says why not. */
START_TEST(onednn_is_there_or_refused)
{
	struct device *dev;

	error_hold();
	dev = device_open("onednn", 2);
	if (built_with_onednn()) {
		ck_assert_ptr_nonnull(dev);
		ck_assert(dev->fast_f32);
	} else {
		ck_assert_ptr_null(dev);
		ck_assert_int_eq(error_code(), EXIT_CONFIG);
		ck_assert_ptr_nonnull(strstr(error_text(), "without oneDNN"));
		ck_assert(!cpu_has_bf16());
	}
	error_clear();
	device_close(dev);
	dev = open_device("openblas", 1);
	ck_assert(!dev->fast_f32);
	device_close(dev);
}
END_TEST

/* c is zero, or what it was times beta. */
/* Threads of this process. */
static int tasks(void)
{
	DIR *folder = opendir("/proc/self/task");
	int count = 0;

	ck_assert_ptr_nonnull(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

struct elsewhere {
	struct device *dev;
	enum dtype in;
	int before, after;
};

static void *compute_elsewhere(void *arg)
{
	static const struct shape large = {512, 512, 512, 0, 0, 0};
	struct elsewhere *e = arg;
	struct ask a = ask_of(&large, e->in, 0);
	size_t count;

	e->before = tasks();
	free(answer(e->dev, &a, &count));
	e->after = tasks();
	return NULL;
}

/* A stage is opened by one thread and computed by another, which must not start a team of its own. */
START_TEST(libraries_start_no_threads)
{
	const struct kind *kind = &kinds[_i];
	struct elsewhere e = {.in = kind->in};
	pthread_t other;

	if (!there_is(kind))
		return;
	e.dev = open_device(kind->device, 1);
	compute_elsewhere(&e);
	ck_assert_int_eq(pthread_create(&other, NULL, compute_elsewhere, &e), 0);
	pthread_join(other, NULL);
	ck_assert_int_eq(e.after, e.before);
	device_close(e.dev);
}
END_TEST

START_TEST(a_product_of_nothing)
{
	struct device *dev = open_device("cpu", 1);

	for (int b = 0; b < 2; b++) {
		float beta = b ? 0.5f : 0;
		struct matrix c = filled(dev, DTYPE_F32, 3, 4, 2, 7, 1);
		struct matrix x = matrix(NULL, 3, 0), w = matrix(NULL, 0, 4);
		size_t count;
		float *before = read_y(dev, c, &count), *after;

		dev->k.matmul(dev, c, x, false, w, false, 1, beta);
		after = read_y(dev, c, &count);
		for (size_t i = 0; i < count; i++)
			ck_assert_float_eq(after[i], i % c.ld < 4 ? beta * before[i] : 7);
		free(before);
		free(after);
		dev->free(dev, c.data);
	}
	device_close(dev);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("onednn");
	TCase *linear = tcase_create("linear");
	char text[128];

	printf("%s\n", cpu_describe(text, sizeof text));
	if (!built_with_onednn())
		puts("skipped: oneDNN, which was not built in");
	if (!cpu_has_bf16())
		puts("skipped: BF16, which this CPU (or ONEDNN_MAX_CPU_ISA, or the build) does not "
		     "multiply");
	fflush(stdout);
	tcase_set_timeout(linear, 120);
	tcase_add_loop_test(linear, linear_equals_reference, 0, 2);
	tcase_add_test(linear, packed_weights_equal_reference);
	tcase_add_loop_test(linear, linear_same_bits_on_any_threads, 0, COUNT(kinds));
	tcase_add_loop_test(linear, linear_without_x_is_made_ready, 0, COUNT(kinds));
	tcase_add_loop_test(linear, products_are_told_apart, 0, COUNT(kinds));
	tcase_add_loop_test(linear, libraries_start_no_threads, 0, COUNT(kinds));
	tcase_add_test(linear, a_product_of_nothing);
	tcase_add_test(linear, onednn_is_there_or_refused);
	suite_add_tcase(suite, linear);
	return run_suite(suite);
}
