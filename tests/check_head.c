/*
 * tests/check_head.c - head and loss in one kernel, of BF16: losses and the gradient of the head's
 * input equal the reference, the same bits for any number of threads, behind far pointers and
 * beside other products. Vocabularies of less than a panel, of whole ones and with rests; rows
 * without a label; logits that grow from panel to panel.
 *
 * Skipped, and said, where the CPU or the build has no products of BF16.
 *
 * links: tensor base
 */
#include "tensor/tensor.h"
#include "tests/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SCALE 0.25f

static const struct shape {
	int rows, C, V;
	float size; /* of w: 10 makes nearly one-hot rows */
	bool rising;
} shapes[] = {
    {1, 8, 5, 1, false},	{3, 24, 37, 1, false},	  {64, 64, 1000, 1, false},
    {129, 32, 1024, 1, false},	{200, 48, 2048, 10, false}, {128, 40, 1025, 1, false},
    {300, 56, 2500, 1, true},	{70, 200, 3333, 3, false},
};

#define SHAPES ((int)(sizeof shapes / sizeof *shapes))

static float number(int key, int i)
{
	struct philox at = {{(uint32_t)i, 0, 0, 0}};

	return 2 * philox_unit(philox(at, (uint32_t)key, 17).word[0]) - 1;
}

/* All of a call, in memory of the device. */
struct call {
	struct device *dev;
	struct matrix d_h, h, w;
	double *losses;
	int32_t *labels;
	void *scratch;
};

static struct matrix numbers(struct device *dev, int rows, int cols, float size, int key,
			     bool rising)
{
	size_t count = (size_t)rows * (size_t)cols;
	uint16_t *half = xalloc(count * sizeof *half);
	struct matrix m = matrix_of(DTYPE_BF16, dev->alloc(dev, count * sizeof *half), rows, cols);

	for (size_t i = 0; i < count; i++) {
		float x = size * number(key, (int)i);

		/* with the ones of h's first column, a logit grows with its row of w */
		if (rising && i % (size_t)cols == 0)
			x = 0.01f * (float)(i / (size_t)cols);
		half[i] = bf16_of(x);
	}
	dev->upload(dev, m.data, half, count * sizeof *half);
	free(half);
	return m;
}

static struct call call_open(const char *device, int threads, const struct shape *s)
{
	struct call c = {.dev = device_open(device, threads)};
	int32_t *labels = xalloc((size_t)s->rows * sizeof *labels);
	float *ones = xalloc((size_t)s->rows * (size_t)s->C * sizeof *ones);
	double *losses = xalloc((size_t)s->rows * sizeof *losses);

	ck_assert_ptr_nonnull(c.dev);
	c.h = numbers(c.dev, s->rows, s->C, 1, 1, false);
	c.w = numbers(c.dev, s->V, s->C, s->size, 2, s->rising);
	if (s->rising)
		c.dev->k.fill(c.dev, matrix_cols(c.h, 0, 1), 1);
	for (int i = 0; i < s->rows * s->C; i++)
		ones[i] = 1; /* must be written over */
	c.d_h = matrix(c.dev->alloc(c.dev, (size_t)s->rows * (size_t)s->C * sizeof(float)),
		       s->rows, s->C);
	c.dev->upload(c.dev, c.d_h.data, ones, (size_t)s->rows * (size_t)s->C * sizeof(float));
	for (int i = 0; i < s->rows; i++)
		labels[i] = i % 5 == 3 ? -100 : (int32_t)((long long)i * 1031 % s->V);
	c.labels = c.dev->alloc(c.dev, (size_t)s->rows * sizeof *labels);
	c.dev->upload(c.dev, c.labels, labels, (size_t)s->rows * sizeof *labels);
	c.losses = c.dev->alloc(c.dev, (size_t)s->rows * sizeof *losses);
	for (int i = 0; i < s->rows; i++)
		losses[i] = 7;
	c.dev->upload(c.dev, c.losses, losses, (size_t)s->rows * sizeof *losses);
	c.scratch = c.dev->alloc(c.dev, c.dev->k.head_scratch(threads, s->rows, s->C) + 1);
	free(labels);
	free(losses);
	free(ones);
	return c;
}

static void call_close(struct call *c)
{
	c->dev->free(c->dev, c->h.data);
	c->dev->free(c->dev, c->w.data);
	c->dev->free(c->dev, c->d_h.data);
	c->dev->free(c->dev, c->labels);
	c->dev->free(c->dev, c->losses);
	c->dev->free(c->dev, c->scratch);
	device_close(c->dev);
}

static void call_run(struct call *c, bool train)
{
	c->dev->k.head_loss(c->dev, c->losses, train ? c->d_h : (struct matrix){0}, c->h, c->w,
			    c->labels, SCALE, c->scratch);
}

/* What a call gave, on the host: losses, then the gradient. */
struct result {
	double *losses;
	float *d_h;
};

static struct result result_of(const char *device, int threads, const struct shape *s,
			       bool train)
{
	struct call c = call_open(device, threads, s);
	size_t losses = (size_t)s->rows * sizeof(double);
	size_t d_h = (size_t)s->rows * (size_t)s->C * sizeof(float);
	struct result r = {xalloc(losses), xalloc(d_h)};

	call_run(&c, train);
	c.dev->download(c.dev, r.losses, c.losses, losses);
	c.dev->download(c.dev, r.d_h, c.d_h.data, d_h);
	call_close(&c);
	return r;
}

static void result_free(struct result *r)
{
	free(r->losses);
	free(r->d_h);
}

static bool has_bf16(void)
{
	if (!cpu_has_bf16())
		printf("check_head: skipped, no products of BF16 here\n");
	return cpu_has_bf16();
}

/* Exponentials are rounded to BF16 before they multiply; losses are not. */
START_TEST(equals_reference)
{
	const struct shape *s = &shapes[_i];

	if (!has_bf16())
		return;
	struct result want = result_of("reference", 1, s, true), got = result_of("cpu", 2, s, true);
	float most = 0;

	for (int i = 0; i < s->rows * s->C; i++)
		most = fmaxf(most, fabsf(want.d_h[i]));
	for (int i = 0; i < s->rows; i++)
		ck_assert_msg(fabs(want.losses[i] - got.losses[i]) <=
				      1e-5 * fmax(1, fabs(want.losses[i])),
			      "row %d: loss %.9g is not %.9g", i, got.losses[i], want.losses[i]);
	for (int i = 0; i < s->rows * s->C; i++)
		ck_assert_msg(fabsf(want.d_h[i] - got.d_h[i]) <= 4e-3f * most,
			      "row %d, column %d: %.9g is not %.9g (most %g)", i / s->C, i % s->C,
			      (double)got.d_h[i], (double)want.d_h[i], (double)most);
	result_free(&want);
	result_free(&got);
}
END_TEST

START_TEST(same_bits_on_any_threads_and_far)
{
	const struct shape *s = &shapes[_i];

	if (!has_bf16())
		return;
	struct result one = result_of("cpu", 1, s, true);

	for (int threads = 2; threads <= 5; threads++) {
		struct result other = result_of(threads == 5 ? "far" : "cpu", threads, s, true);

		ck_assert_mem_eq(one.losses, other.losses, (size_t)s->rows * sizeof(double));
		ck_assert_mem_eq(one.d_h, other.d_h,
				 (size_t)s->rows * (size_t)s->C * sizeof(float));
		result_free(&other);
	}
	result_free(&one);
}
END_TEST

/* Losses alone are the same, and the gradient is not touched. */
START_TEST(validates_alike)
{
	const struct shape *s = &shapes[_i];

	if (!has_bf16())
		return;
	struct result train = result_of("cpu", 2, s, true), valid = result_of("cpu", 2, s, false);

	ck_assert_mem_eq(train.losses, valid.losses, (size_t)s->rows * sizeof(double));
	for (int i = 0; i < s->rows * s->C; i++)
		ck_assert(valid.d_h[i] == 1);
	result_free(&train);
	result_free(&valid);
}
END_TEST

/* A row whose logits are no numbers says so; the others are as they were. */
START_TEST(not_a_number_stays_in_its_row)
{
	const struct shape *s = &shapes[3];

	if (!has_bf16())
		return;
	struct result want = result_of("cpu", 2, s, true);
	struct call c = call_open("cpu", 2, s);

	c.dev->k.fill(c.dev, matrix_cols(matrix_rows(c.h, 1, 1), 2, 1), NAN);
	call_run(&c, true);
	for (int i = 0; i < s->rows; i++)
		ck_assert(i == 1 ? isnan(c.losses[i]) : c.losses[i] == want.losses[i]);
	for (int i = 0; i < s->rows * s->C; i++)
		ck_assert(i / s->C == 1 || ((float *)c.d_h.data)[i] == want.d_h[i]);
	call_close(&c);
	result_free(&want);
}
END_TEST

/* y = h w for w (C, V), which is not packed: a product of the same sizes as the logits' of a tile. */
static float *linear_of(struct call *c, const struct shape *s)
{
	struct device *dev = c->dev;
	struct matrix w = numbers(dev, s->C, s->V, 1, 3, false), none = {0};
	size_t bytes = (size_t)s->rows * (size_t)s->V * sizeof(float);
	struct matrix y = matrix(dev->alloc(dev, bytes), s->rows, s->V);
	float *got = xalloc(bytes);

	dev->k.linear(dev, y, c->h, w, false, none, 0);
	dev->download(dev, got, y.data, bytes);
	dev->free(dev, w.data);
	dev->free(dev, y.data);
	return got;
}

/* A head of one tile and one panel, and a linear whose numbers differ from its products' in nothing
 * but that its weights are not packed: whichever comes first, both are what they are alone. */
START_TEST(packed_and_plain_products_are_told_apart)
{
	static const struct shape s = {128, 64, 256, 1, false};

	if (!has_bf16())
		return;
	struct result head = result_of("cpu", 2, &s, true);
	struct call alone = call_open("cpu", 2, &s), after = call_open("cpu", 2, &s);
	float *want = linear_of(&alone, &s), *got;

	call_run(&after, true);
	got = linear_of(&after, &s);
	ck_assert_mem_eq(got, want, (size_t)s.rows * (size_t)s.V * sizeof *got);
	call_run(&alone, true);
	ck_assert_mem_eq(alone.losses, head.losses, (size_t)s.rows * sizeof *head.losses);
	ck_assert_mem_eq(alone.d_h.data, head.d_h,
			 (size_t)s.rows * (size_t)s.C * sizeof *head.d_h);
	free(want);
	free(got);
	call_close(&alone);
	call_close(&after);
	result_free(&head);
}
END_TEST

/* Products of other shapes, until there is room for no more. */
static void exhaust_products(struct device *dev)
{
	enum { MOST = 2000 };
	struct matrix x = matrix_of(DTYPE_BF16, NULL, 1, 1), none = {0};

	for (int i = 1; i <= MOST && !dev->lacks; i++)
		dev->k.linear(dev, matrix(NULL, 1, i), x, matrix_of(DTYPE_BF16, NULL, 1, i), false,
			      none, 0);
}

/* Where the logits' product lacks, that is said, also where no gradient is asked for. */
START_TEST(a_product_that_lacks_is_said)
{
	static const struct shape s = {16, 64, 256, 1, false};

	if (!has_bf16())
		return;
	struct call c = call_open("cpu", 1, &s);

	error_hold();
	exhaust_products(c.dev);
	ck_assert(c.dev->lacks);
	for (int train = 0; train < 2; train++) {
		c.dev->lacks = false;
		call_run(&c, train);
		ck_assert(c.dev->lacks);
	}
	error_clear();
	call_close(&c);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("head");
	TCase *loss = tcase_create("loss");

	tcase_set_timeout(loss, 30);
	tcase_add_loop_test(loss, equals_reference, 0, SHAPES);
	tcase_add_loop_test(loss, same_bits_on_any_threads_and_far, 0, SHAPES);
	tcase_add_loop_test(loss, validates_alike, 0, SHAPES);
	tcase_add_test(loss, not_a_number_stays_in_its_row);
	tcase_add_test(loss, packed_and_plain_products_are_told_apart);
	tcase_add_test(loss, a_product_that_lacks_is_said);
	suite_add_tcase(suite, loss);
	return run_suite(suite);
}
