/*
 * tests/check_tensor.c - what must hold of the kernels without an oracle, on the reference and
 * on the CPU: rotations undone, random masks that depend on nothing but their counters,
 * attention that is the same however it is written; then views of matrices and the conversion
 * of dtypes.
 *
 * links: tensor base
 */
#include "tensor/tensor.h"
#include "tensor/vector.h"
#include "tests/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const devices[] = {"reference", "cpu"};

static float number(uint32_t key, uint32_t index)
{
	struct philox at = {{index, 0, 0, 0}};

	return 2 * philox_unit(philox(at, key, 29).word[0]) - 1;
}

/* A matrix of numbers in (-1, 1); its data is freed by the caller. */
static struct matrix made(uint32_t key, int rows, int cols)
{
	size_t count = (size_t)rows * (size_t)cols;
	float *data = xalloc(count * sizeof *data);

	for (size_t i = 0; i < count; i++)
		data[i] = number(key, (uint32_t)i);
	return matrix(data, rows, cols);
}

static float *at(struct matrix m, int i, int j)
{
	return (float *)m.data + (size_t)i * m.ld + j;
}

static float difference(struct matrix a, struct matrix b)
{
	float most = 0;

	for (int i = 0; i < a.rows; i++)
		for (int j = 0; j < a.cols; j++)
			most = fmaxf(most, fabsf(*at(a, i, j) - *at(b, i, j)));
	return most;
}

static bool same_bits(struct matrix a, struct matrix b)
{
	return !memcmp(a.data, b.data, (size_t)a.rows * (size_t)a.cols * sizeof(float));
}

/* -- identities ---------------------------------------------------------------------------- */

START_TEST(rope_backward_undoes_rope)
{
	struct device *dev = device_open(devices[_i], 2);
	struct matrix x = made(1, 12, 3 * 16), kept = made(1, 12, 3 * 16),
		      table = made(2, 6, 16);

	for (int i = 0; i < 6; i++) {
		for (int j = 0; j < 8; j++) {
			double angle = i * pow(10000, -j / 8.0);

			*at(table, i, j) = (float)cos(angle);
			*at(table, i, j + 8) = (float)sin(angle);
		}
	}
	dev->k.rope(dev, x, NULL, table, 16, false);
	ck_assert_float_gt(difference(x, kept), 0.1f);
	dev->k.rope(dev, x, NULL, table, 16, true);
	ck_assert_float_le(difference(x, kept), 3e-7f);
	free(x.data);
	free(kept.data);
	free(table.data);
	device_close(dev);
}
END_TEST

/* Ones dropped out: the mean stays, and so does the variance p / (1 - p) of a factor. */
START_TEST(dropout_keeps_the_mean)
{
	struct device *dev = device_open(devices[_i], 2);
	struct matrix y = made(1, 500, 1001), ones = made(2, 500, 1001);
	struct dropout d = {.p = 0.2f, .key0 = 1, .step = 3, .tokens = 50};
	double count = 500 * 1001, sum = 0;
	int kept = 0;

	dev->k.fill(dev, ones, 1);
	dev->k.dropout(dev, y, ones, d);
	for (int i = 0; i < 500; i++) {
		for (int j = 0; j < 1001; j++) {
			sum += *at(y, i, j);
			kept += *at(y, i, j) == 1.25f;
		}
	}
	ck_assert_double_eq_tol(sum / count, 1, 5 * sqrt(0.25 / count));
	ck_assert_double_eq_tol(sum, 1.25 * kept, 1e-6);
	free(y.data);
	free(ones.data);
	device_close(dev);
}
END_TEST

static void drop(struct device *dev, struct matrix y, struct matrix x, struct dropout d)
{
	dev->k.fill(dev, y, 0);
	dev->k.dropout(dev, y, x, d);
}

/* The same counters give the same mask, in any batch; any other counter another. */
START_TEST(dropout_depends_on_its_counters_alone)
{
	struct device *dev = device_open(devices[_i], 2);
	struct matrix x = made(1, 8, 100), y = made(2, 8, 100), z = made(3, 8, 100);
	struct dropout d = {
	    .p = 0.5f, .key0 = 1, .key1 = 2, .step = 3, .first_sample = 4, .tokens = 4};
	struct dropout other[] = {d, d, d, d, d};

	drop(dev, y, x, d);
	drop(dev, z, x, d);
	ck_assert(same_bits(y, z));
	other[0].key0++;
	other[1].key1++;
	other[2].step++;
	other[3].first_sample++;
	other[4].tokens = 8;
	for (int i = 0; i < 5; i++) {
		drop(dev, z, x, other[i]);
		ck_assert(!same_bits(y, z));
	}
	/* The second sample alone, as another micro-batch would hold it. */
	dev->k.fill(dev, z, 0);
	dev->k.dropout(dev, matrix_rows(z, 4, 4), matrix_rows(x, 4, 4), other[3]);
	ck_assert(same_bits(matrix_rows(y, 4, 4), matrix_rows(z, 4, 4)));
	free(x.data);
	free(y.data);
	free(z.data);
	device_close(dev);
}
END_TEST

/* q, k, v, their gradients, and the rest. */
struct attended {
	struct attention shape;
	struct matrix o, lse, q, k, v, d_o, dq, dk, dv;
};

static struct attended attended(struct attention s)
{
	int n = s.sequences * s.tokens, wide = s.heads * s.head_size;
	int narrow = s.kv_heads * s.head_size;

	return (struct attended){s,
				 made(1, n, wide),
				 made(2, n, s.heads),
				 made(3, n, wide),
				 made(4, n, narrow),
				 made(5, n, narrow),
				 made(6, n, wide),
				 made(7, n, wide),
				 made(8, n, narrow),
				 made(9, n, narrow)};
}

static void attention(struct device *dev, struct attended *a)
{
	void *scratch = xalloc(dev->k.attention_scratch(pool_threads(dev->pool), a->shape, DTYPE_F32));

	dev->k.attention(dev, a->o, a->lse, a->q, a->k, a->v, a->shape, scratch);
	dev->k.attention_backward(dev, a->dq, a->dk, a->dv, a->d_o, a->q, a->k, a->v, a->o,
				  a->lse, a->shape, scratch);
	free(scratch);
}

static void release(struct attended *a)
{
	struct matrix *all[] = {&a->o,	 &a->lse, &a->q,  &a->k, &a->v,
				&a->d_o, &a->dq,  &a->dk, &a->dv};

	for (int i = 0; i < 9; i++)
		free(all[i]->data);
}

static const struct attention one_shape = {
    .sequences = 2,
    .tokens = 150,
    .heads = 4,
    .kv_heads = 2,
    .head_size = 8,
    .scale = 2,
};

START_TEST(wide_window_is_no_window)
{
	struct device *dev = device_open(devices[_i], 2);
	struct attended none = attended(one_shape), wide = attended(one_shape);

	attention(dev, &none);
	for (wide.shape.window = 150; wide.shape.window <= 400; wide.shape.window += 250) {
		attention(dev, &wide);
		ck_assert(same_bits(none.o, wide.o) && same_bits(none.lse, wide.lse));
		ck_assert(same_bits(none.dq, wide.dq) && same_bits(none.dk, wide.dk));
		ck_assert(same_bits(none.dv, wide.dv));
	}
	wide.shape.window = 149;
	attention(dev, &wide);
	ck_assert(!same_bits(none.o, wide.o));
	release(&none);
	release(&wide);
	device_close(dev);
}
END_TEST

/* A window of one: every token sees itself, and o is v. */
START_TEST(window_of_one_is_the_value)
{
	struct device *dev = device_open(devices[_i], 2);
	struct attention shape = one_shape;

	shape.window = 1;
	shape.kv_heads = 4;
	struct attended a = attended(shape);

	attention(dev, &a);
	ck_assert_float_le(difference(a.o, a.v), 1e-6f);
	ck_assert_float_le(difference(a.dv, a.d_o), 1e-6f);
	dev->k.fill(dev, a.v, 0);
	ck_assert_float_le(difference(a.dq, a.v), 1e-5f); /* p is 1 whatever the score */
	release(&a);
	device_close(dev);
}
END_TEST

/* Each key/value head given to its two query heads by hand. */
START_TEST(grouped_heads_are_repeated_heads)
{
	struct device *dev = device_open(devices[_i], 2);
	struct attention alone = one_shape;

	alone.kv_heads = 4;
	struct attended grouped = attended(one_shape), apart = attended(alone);

	for (int i = 0; i < 300; i++) {
		for (int j = 0; j < 32; j++) {
			*at(apart.k, i, j) = *at(grouped.k, i, j / 16 * 8 + j % 8);
			*at(apart.v, i, j) = *at(grouped.v, i, j / 16 * 8 + j % 8);
		}
	}
	attention(dev, &grouped);
	attention(dev, &apart);
	ck_assert(same_bits(grouped.o, apart.o) && same_bits(grouped.dq, apart.dq));
	for (int h = 0; h < 2; h++) {
		struct matrix dk = matrix_cols(apart.dk, h * 16, 8);

		for (int i = 0; i < dk.rows; i++)
			for (int j = 0; j < 8; j++)
				*at(dk, i, j) += *at(apart.dk, i, h * 16 + 8 + j);
		ck_assert_float_le(difference(matrix_cols(grouped.dk, h * 8, 8), dk), 2e-5f);
	}
	release(&grouped);
	release(&apart);
	device_close(dev);
}
END_TEST

/* A product is the sum of the products of its halves; its rows are those of the rows alone. */
START_TEST(matmul_of_parts)
{
	struct device *dev = device_open(devices[_i], 2);
	struct matrix a = made(1, 40, 60), b = made(2, 60, 50), c = made(3, 40, 50);
	struct matrix d = made(4, 40, 50);

	dev->k.matmul(dev, c, a, false, b, false, 1, 0);
	dev->k.matmul(dev, d, matrix_cols(a, 0, 20), false, matrix_rows(b, 0, 20), false, 1, 0);
	dev->k.matmul(dev, d, matrix_cols(a, 20, 40), false, matrix_rows(b, 20, 40), false, 1,
		      1);
	ck_assert_float_le(difference(c, d), 1e-5f);
	dev->k.fill(dev, d, 0);
	dev->k.matmul(dev, matrix_rows(d, 7, 9), matrix_rows(a, 7, 9), false, b, false, 1, 0);
	ck_assert_float_le(difference(matrix_rows(c, 7, 9), matrix_rows(d, 7, 9)), 1e-5f);
	ck_assert_float_eq(*at(d, 6, 49), 0);
	ck_assert_float_eq(*at(d, 16, 0), 0);
	free(a.data);
	free(b.data);
	free(c.data);
	free(d.data);
	device_close(dev);
}
END_TEST

/* -- vector functions ---------------------------------------------------------------------- */

/* The largest error in units of the last place of the right answer. */
static double worst_ulps(float (*approximate)(float), double (*exact)(double), float from,
			 float to)
{
	double worst = 0;

	for (float x = from; x < to; x += 1e-4f * fmaxf(1e-2f, fabsf(x))) {
		double want = exact(x), ulp = ldexp(1, ilogb(want) - 23);

		worst = fmax(worst, fabs(approximate(x) - want) / ulp);
	}
	return worst;
}

START_TEST(vector_functions_are_right)
{
	ck_assert_double_le(worst_ulps(vector_exp, exp, -87.3f, 88.3f), 1);
	ck_assert_double_le(worst_ulps(vector_erf, erf, -5, -1e-6f), 2);
	ck_assert_double_le(worst_ulps(vector_erf, erf, 1e-6f, 5), 2);
	ck_assert_float_eq(vector_exp(0), 1);
	ck_assert_float_eq(vector_exp(-88), 0);
	ck_assert_float_eq(vector_exp(-INFINITY), 0);
	ck_assert_float_eq(vector_exp(-1e30f), 0);
	ck_assert(isinf(vector_exp(89)) && isinf(vector_exp(INFINITY)));
	ck_assert(isnan(vector_exp(NAN)) && isnan(vector_erf(NAN)));
	ck_assert_float_eq(vector_erf(0), 0);
	ck_assert_float_eq(vector_erf(30), 1);
	ck_assert_float_eq(vector_erf(-INFINITY), -1);
}
END_TEST

/* -- views --------------------------------------------------------------------------------- */

START_TEST(views_count_in_their_dtype)
{
	static const struct {
		enum dtype dtype;
		const char *name;
		size_t bytes;
	} all[] = {
	    {DTYPE_F32, "F32", 4},   {DTYPE_F64, "F64", 8}, {DTYPE_F16, "F16", 2},
	    {DTYPE_BF16, "BF16", 2}, {DTYPE_I32, "I32", 4}, {DTYPE_I64, "I64", 8},
	};
	char data[400];
	struct matrix m = {data, 4, 5, 7, all[_i].dtype};
	struct matrix view = matrix_cols(matrix_rows(m, 1, 2), 3, 2);

	ck_assert_uint_eq(dtype_bytes(m.dtype), all[_i].bytes);
	ck_assert_str_eq(dtype_name(m.dtype), all[_i].name);
	ck_assert_ptr_eq(view.data, data + (7 + 3) * all[_i].bytes);
	ck_assert(view.rows == 2 && view.cols == 2 && view.ld == 7 && view.dtype == m.dtype);
	m = matrix(data, 3, 4);
	ck_assert(m.rows == 3 && m.cols == 4 && m.ld == 4 && m.dtype == DTYPE_F32);
}
END_TEST

/* -- conversion ---------------------------------------------------------------------------- */

static bool same_number(float got, double want)
{
	return isnan(want) ? isnan(got) : got == want && !signbit(got) == !signbit(want);
}

/* IEEE 754: (-1)^sign 2^(exponent - 15) (1 + fraction / 1024), with a full and an empty
 * exponent. */
static double half_by_formula(unsigned half)
{
	int exponent = half >> 10 & 31, fraction = half & 1023;
	double size = exponent == 31 ? (fraction ? NAN : INFINITY)
		      : exponent     ? ldexp(1024 + fraction, exponent - 25)
				     : ldexp(fraction, -24);

	return half >> 15 ? -size : size;
}

/* Sign 1, exponent 8 (bias 127), fraction 7. */
static double bfloat_by_formula(unsigned bfloat)
{
	int exponent = bfloat >> 7 & 255, fraction = bfloat & 127;
	double size = exponent == 255 ? (fraction ? NAN : INFINITY)
		      : exponent      ? ldexp(128 + fraction, exponent - 134)
				      : ldexp(fraction, -133);

	return bfloat >> 15 ? -size : size;
}

/* All 65536 values, from an odd address. */
START_TEST(convert_sixteen_bits)
{
	enum dtype dtype = _i ? DTYPE_BF16 : DTYPE_F16;
	char *from = xalloc(1 + 65536 * 2);
	float *to = xalloc(65536 * sizeof *to);

	for (unsigned i = 0; i < 65536; i++)
		memcpy(from + 1 + 2 * i, &(uint16_t){(uint16_t)i}, 2);
	convert_to_f32(to, from + 1, dtype, 65536);
	for (unsigned i = 0; i < 65536; i++) {
		double want = _i ? bfloat_by_formula(i) : half_by_formula(i);

		if (!same_number(to[i], want))
			ck_abort_msg("%s %04x: %.9g is not %.9g", dtype_name(dtype), i, to[i],
				     want);
	}
	free(from);
	free(to);
}
END_TEST

START_TEST(convert_wide)
{
	static const double wide[] = {0, -0.0, 1, 0.1, -1e300, 1e-300, INFINITY, NAN, 16777217};
	char from[1 + sizeof wide];
	float to[9] = {0}, back[9];

	memcpy(from + 1, wide, sizeof wide);
	convert_to_f32(to, from + 1, DTYPE_F64, 9);
	for (int i = 0; i < 9; i++)
		ck_assert(same_number(to[i], (float)wide[i]));
	memcpy(from + 1, to, sizeof to);
	convert_to_f32(back, from + 1, DTYPE_F32, 9);
	ck_assert_mem_eq(back, to, sizeof to);
	error_hold();
	convert_to_f32(to, from, DTYPE_I64, 1);
	ck_assert_int_eq(error_code(), EXIT_BUG);
	error_clear();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("tensor");
	TCase *identities = tcase_create("identities"), *numbers = tcase_create("numbers");

	tcase_add_loop_test(identities, rope_backward_undoes_rope, 0, 2);
	tcase_add_loop_test(identities, dropout_keeps_the_mean, 0, 2);
	tcase_add_loop_test(identities, dropout_depends_on_its_counters_alone, 0, 2);
	tcase_add_loop_test(identities, wide_window_is_no_window, 0, 2);
	tcase_add_loop_test(identities, window_of_one_is_the_value, 0, 2);
	tcase_add_loop_test(identities, grouped_heads_are_repeated_heads, 0, 2);
	tcase_add_loop_test(identities, matmul_of_parts, 0, 2);
	tcase_add_test(numbers, vector_functions_are_right);
	tcase_add_loop_test(numbers, views_count_in_their_dtype, 0, 6);
	tcase_add_loop_test(numbers, convert_sixteen_bits, 0, 2);
	tcase_add_test(numbers, convert_wide);
	suite_add_tcase(suite, identities);
	suite_add_tcase(suite, numbers);
	return run_suite(suite);
}
