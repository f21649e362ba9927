/*
 * tests/check_timed.c - what a timed table of kernels keeps: calls, seconds, FLOPs and bytes by slot and shape; that it
 * counts between a start and a stop alone, and says where there was no room. That every slot is wrapped, and computes the
 * same bits: check_kernels.c.
 *
 * links: tensor base
 */
#include "tensor/tensor.h"
#include "tests/suite.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS = 40, INNER = 24, COLS = 56, NUMBERS = 1 << 16 };

static struct device *open_timed(int room)
{
	struct device *dev = device_open("cpu", 2);

	ck_assert_ptr_nonnull(dev);
	timed_open(dev, room);
	return dev;
}

/* The ops of a slot together. */
static struct timed_op sum_of(const struct device *dev, const char *slot)
{
	struct timed_op sum = {0};

	for (int i = 0; i < dev->timed->count; i++) {
		const struct timed_op *op = &dev->timed->op[i];

		if (strcmp(op->slot, slot) != 0)
			continue;
		sum.calls += op->calls;
		sum.seconds += op->seconds;
		sum.flops += op->flops;
		sum.bytes += op->bytes;
	}
	return sum;
}

static void ck_work(const struct device *dev, const char *slot, long long calls, double flops, double bytes)
{
	struct timed_op sum = sum_of(dev, slot);

	ck_assert_msg(sum.calls == calls, "%s: %lld calls, not %lld", slot, sum.calls, calls);
	ck_assert_msg(sum.flops == flops, "%s: %.17g FLOPs, not %.17g", slot, sum.flops, flops);
	ck_assert_msg(sum.bytes == bytes, "%s: %.17g bytes, not %.17g", slot, sum.bytes, bytes);
}

/* Products of one shape are one op whatever is transposed, and c is read where it is added to. */
START_TEST(products)
{
	struct device *dev = open_timed(16);
	float *memory = dev->alloc(dev, NUMBERS * sizeof(float));
	struct matrix a = matrix(memory, ROWS, INNER), b = matrix(memory + 8192, INNER, COLS);
	struct matrix a_t = matrix(memory, INNER, ROWS), c = matrix(memory + 16384, ROWS, COLS);
	double flops = 2.0 * ROWS * INNER * COLS, inputs = 4.0 * (ROWS * INNER + INNER * COLS), out = 4.0 * ROWS * COLS;
	char shape[64];

	timed_start(dev);
	dev->k.matmul(dev, c, a, false, b, false, 1, 0);
	dev->k.matmul(dev, c, a_t, true, b, false, 1, 1);
	dev->k.thin(dev, c, a_t, true, b, false, 1, 0);
	dev->k.linear(dev, c, a, b, false, matrix(memory + 32768, 1, COLS), 0);
	dev->k.linear(dev, c, a, b, false, (struct matrix){0}, 0);
	timed_stop(dev);
	ck_work(dev, "matmul", 2, 2 * flops, 2 * inputs + 3 * out);
	ck_work(dev, "thin", 1, flops, inputs + out);
	ck_work(dev, "linear", 2, 2 * flops, 2 * inputs + 2 * out + 4.0 * COLS);
	ck_assert_int_eq(dev->timed->count, 3);
	ck_assert(dev->timed->op[0].kind == TIMED_PRODUCT && dev->timed->op[1].kind == TIMED_THIN);
	ck_assert_str_eq(timed_shape(&dev->timed->op[0], shape, sizeof shape), "40 x 24 -> 56");
	dev->free(dev, memory);
	device_close(dev);
}
END_TEST

/* Three queries of one head see 1 + 2 + 3 keys, and 1 + 2 + 2 in a window of two. */
START_TEST(attention)
{
	struct attention shape = {.sequences = 2, .tokens = 3, .heads = 4, .kv_heads = 2, .head_size = 8, .scale = 1};
	struct device *dev = open_timed(16);
	float *memory = dev->alloc(dev, NUMBERS * sizeof(float));
	void *scratch = dev->alloc(dev, dev->k.attention_scratch(2, shape, DTYPE_F32));
	struct matrix wide = matrix(memory, 6, 32), narrow = matrix(memory + 4096, 6, 16), lse = matrix(memory + 8192, 6, 4);
	struct matrix d_wide = matrix(memory + 12288, 6, 32), d_narrow = matrix(memory + 16384, 6, 16);
	char text[64];

	timed_start(dev);
	dev->k.attention(dev, wide, lse, d_wide, narrow, d_narrow, shape, scratch);
	dev->k.attention_backward(dev, d_wide, d_narrow, narrow, wide, wide, narrow, narrow, wide, lse, shape, scratch);
	ck_work(dev, "attention", 1, 2 * 2 * 8 * 6 * 2 * 4, 4.0 * (2 * 192 + 2 * 96 + 24));
	ck_work(dev, "attention_backward", 1, 4 * 2 * 8 * 6 * 2 * 4, 4.0 * (4 * 192 + 4 * 96 + 24));
	shape.window = 2;
	dev->k.attention(dev, wide, lse, d_wide, narrow, d_narrow, shape, scratch);
	ck_work(dev, "attention", 2, 2 * 2 * 8 * (6 + 5) * 2 * 4, 2 * 4.0 * (2 * 192 + 2 * 96 + 24));
	timed_stop(dev);
	ck_assert_int_eq(dev->timed->count, 3);
	ck_assert_str_eq(timed_shape(&dev->timed->op[0], text, sizeof text), "2 x 3, 4/2 heads of 8");
	ck_assert_str_eq(timed_shape(&dev->timed->op[2], text, sizeof text), "2 x 3, 4/2 heads of 8, window 2");
	dev->free(dev, memory);
	dev->free(dev, scratch);
	device_close(dev);
}
END_TEST

/* Bytes go by the dtype of each matrix, and what is not there has none. */
START_TEST(passes)
{
	struct device *dev = open_timed(16);
	float *memory = dev->alloc(dev, NUMBERS * sizeof(float));
	struct matrix x = matrix(memory, 8, 16), y = matrix(memory + 4096, 8, 16), none = {0};
	struct matrix gain = matrix(memory + 8192, 1, 16), stats = matrix(memory + 12288, 8, 1);
	struct adamw settings = {.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .grad_scale = 1, .step = 1};
	int32_t ids[8] = {0, 1, 2, 3, 0, 1, 2, 3};

	timed_start(dev);
	dev->k.copy(dev, y, x);
	dev->k.copy(dev, matrix_of(DTYPE_BF16, memory + 4096, 8, 16), x);
	dev->k.fill(dev, y, 1);
	dev->k.rms_norm(dev, y, none, stats, x, gain, 1e-6f);
	dev->k.rms_norm_backward(dev, y, none, x, x, stats, gain, true);
	dev->k.rms_norm_backward(dev, y, none, x, x, stats, gain, false);
	dev->k.adamw(dev, x, y, matrix(memory + 16384, 8, 16), matrix(memory + 20480, 8, 16), settings);
	dev->k.embed(dev, y, ids, NULL, matrix(memory + 24576, 100, 16), matrix(memory + 28672, 50, 16), 4);
	timed_stop(dev);
	ck_work(dev, "copy", 2, 0, 128 * (4 + 4 + 4 + 2));
	ck_work(dev, "fill", 1, 0, 128 * 4);
	ck_work(dev, "rms_norm", 1, 0, 4 * (128 + 8 + 128 + 16));
	ck_work(dev, "rms_norm_backward", 2, 0, 4 * ((2 + 1) * 128 + 2 * (2 * 128 + 8 + 16)));
	ck_work(dev, "adamw", 1, 0, 4 * 128 * 7);
	ck_work(dev, "embed", 1, 0, 4 * (128 + 8 + 128 + 4 * 16));
	dev->free(dev, memory);
	device_close(dev);
}
END_TEST

/* Seconds of the calls are a part of those between start and stop, and those of what went by. */
START_TEST(seconds_add_up)
{
	struct device *dev = open_timed(16);
	float *memory = dev->alloc(dev, NUMBERS * sizeof(float));
	struct matrix x = matrix(memory, 128, 128), y = matrix(memory + 16384, 128, 128), z = matrix(memory + 32768, 128, 128);
	double start = clock_s(), ops, spans, wall;

	for (int i = 0; i < 3; i++) {
		timed_start(dev);
		for (int k = 0; k < 20; k++)
			dev->k.matmul(dev, z, x, false, y, true, 1, 0);
		clock_sleep(0.01);
		timed_stop(dev);
	}
	wall = clock_s() - start;
	ops = sum_of(dev, "matmul").seconds;
	spans = dev->timed->spans_s;
	ck_assert_int_eq(dev->timed->spans, 3);
	ck_assert_int_eq(sum_of(dev, "matmul").calls, 60);
	ck_assert_msg(ops > 0 && ops < spans - 0.03 + 1e-6 && spans <= wall, "%g of %g of %g s", ops, spans, wall);
	dev->free(dev, memory);
	device_close(dev);
}
END_TEST

START_TEST(nothing_counts_outside)
{
	struct device *dev = open_timed(16);
	float *memory = dev->alloc(dev, NUMBERS * sizeof(float));

	dev->k.fill(dev, matrix(memory, 8, 8), 1);
	ck_assert_int_eq(dev->timed->count, 0);
	timed_start(dev);
	dev->k.fill(dev, matrix(memory, 8, 8), 2);
	timed_stop(dev);
	dev->k.fill(dev, matrix(memory, 8, 8), 3);
	ck_assert_int_eq(sum_of(dev, "fill").calls, 1);
	ck_assert(memory[0] == 3);
	dev->free(dev, memory);
	device_close(dev);
}
END_TEST

/* What finds no room is counted as such; what had room before still has it. */
START_TEST(a_full_table_says_so)
{
	struct device *dev = open_timed(2);
	float *memory = dev->alloc(dev, NUMBERS * sizeof(float));

	timed_start(dev);
	for (int rows = 1; rows <= 5; rows++)
		dev->k.fill(dev, matrix(memory, rows, 8), 1);
	dev->k.fill(dev, matrix(memory, 2, 8), 1);
	timed_stop(dev);
	ck_assert_int_eq(dev->timed->count, 2);
	ck_assert_int_eq(sum_of(dev, "fill").calls, 3);
	ck_assert_int_eq(dev->timed->lost.calls, 3);
	ck_assert(dev->timed->lost.bytes == (3 + 4 + 5) * 8 * 4 && dev->timed->lost.seconds > 0);
	dev->free(dev, memory);
	device_close(dev);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("timed");
	TCase *cases = tcase_create("timed");

	tcase_add_test(cases, products);
	tcase_add_test(cases, attention);
	tcase_add_test(cases, passes);
	tcase_add_test(cases, seconds_add_up);
	tcase_add_test(cases, nothing_counts_outside);
	tcase_add_test(cases, a_full_table_says_so);
	suite_add_tcase(suite, cases);
	return run_suite(suite);
}
