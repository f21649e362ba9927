/*
 * tests/check_activation.c - GELU, SwiGLU and their gradients, of every set of loops that this CPU
 * has (the slots take the best alone): against double precision, in rows of any length, each
 * matrix F32 or BF16, in place, and of numbers that have no result.
 *
 * links: tensor base
 */
#include "tensor/activation.h"
#include "tests/suite.h"

#include <math.h>
#include <string.h>

#define MOST 70 /* numbers of a row: more than four vectors of any set, and a rest */

static const struct shape {
	const char *name;
	int outs, ins;
} shapes[ACTIVATIONS] = {
    [ACTIVATION_GELU_TANH] = {"gelu tanh", 1, 1},
    [ACTIVATION_GELU_EXACT] = {"gelu exact", 1, 1},
    [ACTIVATION_GELU_TANH_GRADIENT] = {"gelu tanh gradient", 1, 2},
    [ACTIVATION_GELU_EXACT_GRADIENT] = {"gelu exact gradient", 1, 2},
    [ACTIVATION_SWIGLU] = {"swiglu", 1, 2},
    [ACTIVATION_SWIGLU_GRADIENT] = {"swiglu gradient", 2, 3},
};

/* By the definitions; x is the last input but SwiGLU's, where it is the gate. */
static void right(enum activation which, const double in[], double out[])
{
	double x = in[shapes[which].ins - 1], gate = in[shapes[which].ins > 2];
	double cube = sqrt(2 / M_PI) * 0.044715, u = sqrt(2 / M_PI) * x + cube * x * x * x;
	double slope = (sqrt(2 / M_PI) + 3 * cube * x * x) / (cosh(u) * cosh(u));
	double share = 0.5 * erfc(-x / sqrt(2)), s = 1 / (1 + exp(-gate));

	switch (which) {
	case ACTIVATION_GELU_TANH:
		out[0] = x / (1 + exp(-2 * u));
		break;
	case ACTIVATION_GELU_EXACT:
		out[0] = x * share;
		break;
	case ACTIVATION_GELU_TANH_GRADIENT:
		out[0] = in[0] * (1 / (1 + exp(-2 * u)) + 0.5 * x * slope);
		break;
	case ACTIVATION_GELU_EXACT_GRADIENT:
		out[0] = in[0] * (share + x * exp(-x * x / 2) / sqrt(2 * M_PI));
		break;
	case ACTIVATION_SWIGLU:
		out[0] = gate * s * in[1];
		break;
	default:
		out[0] = in[0] * in[2] * (s + gate * s * (1 - s));
		out[1] = in[0] * gate * s;
	}
}

static float number(int key, int i)
{
	struct philox at = {{(uint32_t)i, 0, 0, 0}};

	return 2 * philox_unit(philox(at, (uint32_t)key, 17).word[0]) - 1;
}

static void put(struct matrix m, int j, float x)
{
	if (m.dtype == DTYPE_BF16)
		((uint16_t *)m.data)[j] = bf16_of(x);
	else
		((float *)m.data)[j] = x;
}

static float number_of(struct matrix m, int j)
{
	return m.dtype == DTYPE_BF16 ? bf16_value(((uint16_t *)m.data)[j])
				     : ((float *)m.data)[j];
}

/* A row of inputs and outputs, in guarded memory of its own. */
struct row {
	float memory[ACTIVATION_OUT + ACTIVATION_IN][MOST + 1];
	struct matrix out[ACTIVATION_OUT], in[ACTIVATION_IN];
	double wanted[ACTIVATION_IN][MOST]; /* the inputs as stored */
};

/* bf16: bit i: matrix i is BF16, inputs first. */
static void fill(struct row *r, int n, unsigned bf16, float size)
{
	memset(r->memory, 0x55, sizeof r->memory);
	for (int k = 0; k < ACTIVATION_IN + ACTIVATION_OUT; k++) {
		enum dtype dtype = bf16 >> k & 1 ? DTYPE_BF16 : DTYPE_F32;
		struct matrix m = matrix_of(dtype, r->memory[k], 1, n);

		if (k >= ACTIVATION_IN) {
			r->out[k - ACTIVATION_IN] = m;
			continue;
		}
		r->in[k] = m;
		for (int j = 0; j < n; j++) {
			put(m, j, size * number(k + 1, j));
			r->wanted[k][j] = (double)number_of(m, j);
		}
	}
}

/* Nothing behind the row was written. */
static void ck_guard(const struct row *r, int n)
{
	for (int k = 0; k < ACTIVATION_IN + ACTIVATION_OUT; k++) {
		struct matrix m = k < ACTIVATION_IN ? r->in[k] : r->out[k - ACTIVATION_IN];
		const unsigned char *end = m.data;

		end += (size_t)n * dtype_bytes(m.dtype);
		ck_assert(end[0] == 0x55 && end[1] == 0x55);
	}
}

static void ck_row(const struct row *r, const struct matrix out[], enum activation which, int n,
		   double size)
{
	for (int j = 0; j < n; j++) {
		double in[ACTIVATION_IN], want[ACTIVATION_OUT] = {0};

		for (int k = 0; k < ACTIVATION_IN; k++)
			in[k] = r->wanted[k][j];
		right(which, in, want);
		for (int o = 0; o < shapes[which].outs; o++) {
			double got = (double)number_of(out[o], j);
			double most = 1e-6 * size + 4e-7 * fabs(want[o]);

			if (out[o].dtype == DTYPE_BF16)
				most += fabs(want[o]) / 128;
			ck_assert_msg(fabs(got - want[o]) <= most,
				      "%s, %d of %d, from %g: %.9g is not %.9g",
				      shapes[which].name, j, n, in[shapes[which].ins - 1], got,
				      want[o]);
		}
	}
}

/* The loop of a test's number, null after a word where this CPU does not have the set. */
static activation_loop *loop_of(int test, enum activation *which)
{
	enum activation_set set = (enum activation_set)(test / ACTIVATIONS);
	activation_loop *loop;

	*which = (enum activation)(test % ACTIVATIONS);
	loop = activation_loop_of(set, *which);
	if (!loop)
		printf("%s: set %d skipped, not on this CPU\n", shapes[*which].name, (int)set);
	return loop;
}

START_TEST(loop_is_right)
{
	enum activation which;
	activation_loop *loop = loop_of(_i, &which);
	const float sizes[] = {1, 6, 25};
	struct row r;

	for (int n = 1; loop && n <= MOST; n += n < 18 ? 1 : 13)
		for (unsigned bf16 = 0; bf16 < 32; bf16++)
			for (int s = 0; s < 3; s++) {
				fill(&r, n, bf16, sizes[s]);
				loop(r.out, r.in);
				ck_row(&r, r.out, which, n, (double)sizes[s]);
				ck_guard(&r, n);
			}
}
END_TEST

/* The gradient may lie in the place of dy (SwiGLU's second). */
START_TEST(loop_works_in_place)
{
	enum activation which;
	activation_loop *loop = loop_of(_i, &which);
	struct row r;

	for (unsigned bf16 = 0; loop && bf16 < 32; bf16++) {
		fill(&r, MOST, bf16, 3);
		struct matrix out[ACTIVATION_OUT] = {r.out[0], r.in[0]};

		if (shapes[which].outs == 1)
			out[0] = r.in[0];
		loop(out, r.in);
		ck_row(&r, out, which, MOST, 3);
	}
}
END_TEST

/* Far out nothing is left, or all; what is no number stays none. */
START_TEST(loop_at_the_ends)
{
	const float far[] = {-1e18f, -1e4f, -100, 100, 1e4f, 1e18f};
	enum activation which;
	activation_loop *loop = loop_of(_i, &which);
	float x[20], one[20], y[20], z[20];

	for (int i = 0; loop && i < 6; i++) {
		struct matrix in[] = {matrix(one, 1, 20), matrix(one, 1, 20), matrix(one, 1, 20)};
		struct matrix out[] = {matrix(y, 1, 20), matrix(z, 1, 20)};
		bool swiglu = which >= ACTIVATION_SWIGLU;

		for (int j = 0; j < 20; j++) {
			x[j] = j == 3 || j == 18 ? NAN : far[i];
			one[j] = 1;
		}
		in[swiglu ? shapes[which].ins - 2 : shapes[which].ins - 1].data = x;
		loop(out, in);
		for (int j = 0; j < 20; j++) {
			bool slope = which == ACTIVATION_SWIGLU_GRADIENT ||
				     which == ACTIVATION_GELU_TANH_GRADIENT ||
				     which == ACTIVATION_GELU_EXACT_GRADIENT;
			float want = far[i] < 0 ? 0 : slope ? 1 : far[i];

			if (isnan(x[j]))
				ck_assert(isnan(y[j]));
			else
				ck_assert_msg(fabsf(y[j] - want) <= 1e-6f * fabsf(want) + 1e-30f,
					      "%s of %g is %g", shapes[which].name,
					      (double)x[j], (double)y[j]);
		}
	}
}
END_TEST

/* Every set's exponentials of rows of any length, and their sum; none of minus infinity. */
START_TEST(exponentials_are_right)
{
	exp_loop *loop = exp_loop_of((enum activation_set)_i);
	float x[MOST];
	uint16_t y[MOST + 1];

	if (!loop)
		printf("exponentials: set %d skipped, not on this CPU\n", _i);
	for (int n = 1; loop && n <= MOST; n++) {
		double sum = 0;

		for (int j = 0; j < n; j++)
			x[j] = j == 5 ? -INFINITY : 3 + 40 * (number(4, j) - 1);
		y[n] = 0x5555;
		float got = loop(y, x, 3, n);

		for (int j = 0; j < n; j++) {
			double want = exp((double)x[j] - 3);

			ck_assert(fabs((double)bf16_value(y[j]) - want) <= want / 250);
			sum += want;
		}
		ck_assert(fabs((double)got - sum) <= 1e-6 * sum);
		ck_assert_int_eq(y[n], 0x5555);
	}
	x[0] = NAN;
	ck_assert(!loop || isnan(loop(y, x, 3, 20)));
}
END_TEST

int main(void)

{
	Suite *suite = suite_create("activation");
	TCase *loops = tcase_create("loops");
	int tests = ACTIVATION_SETS * ACTIVATIONS;

	tcase_add_loop_test(loops, loop_is_right, 0, tests);
	tcase_add_loop_test(loops, loop_works_in_place, 0, tests);
	tcase_add_loop_test(loops, loop_at_the_ends, 0, tests);
	tcase_add_loop_test(loops, exponentials_are_right, 0, ACTIVATION_SETS);
	suite_add_tcase(suite, loops);
	return run_suite(suite);
}
