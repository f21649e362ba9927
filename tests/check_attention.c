/*
 * tests/check_attention.c - attention of the CPU, forward and backward, in every dtype and with
 * the kernels of every instruction set that this CPU has: equals the reference, leaves the gaps
 * between rows alone, gives the same bits for any number of threads, in any company of
 * sequences, and behind far pointers; segments are what they are as sequences of their own.
 *
 * links: tensor base
 */
#include "tensor/attention.h"
#include "tests/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { O, LSE, DQ, DK, DV, OUTS };
static const char *const names[OUTS] = {"o", "lse", "dq", "dk", "dv"};

/* All outputs of a run as floats, with the gaps between their rows. */
struct result {
	float *out[OUTS];
	size_t count[OUTS], ld[OUTS];
	int cols[OUTS];
};

struct run {
	struct device *dev;
	const struct attention_kernels *kernels; /* null for the device's own choice */
	enum dtype dtype;			 /* of what is stored */
	enum dtype rounded;			 /* of the inputs' numbers */
	int gap;
	void *memory[16]; /* of matrices and segments */
	int memories;
	uint32_t key;
};

static float number(uint32_t key, uint32_t index)
{
	struct philox at = {{index, 0, 0, 0}};

	return 2 * philox_unit(philox(at, key, 31).word[0]) - 1;
}

/* Numbers in (-size, size) in rows and gaps. */
static struct matrix made(struct run *r, enum dtype dtype, int rows, int cols, float size)
{
	struct matrix m = matrix_of(dtype, NULL, rows, cols);
	uint32_t key = ++r->key;

	m.ld = (size_t)cols + (size_t)r->gap + (r->gap ? key % 3 : 0);
	size_t count = (size_t)rows * m.ld;
	float *data = xalloc(count * sizeof *data);
	uint16_t *half = xalloc(count * sizeof *half);

	for (size_t i = 0; i < count; i++) {
		half[i] = bf16_of(size * number(key, (uint32_t)i));
		data[i] = r->rounded == DTYPE_BF16 ? bf16_value(half[i])
						   : size * number(key, (uint32_t)i);
	}
	m.data = r->dev->alloc(r->dev, count * sizeof *data);
	ck_assert_ptr_nonnull(m.data);
	r->memory[r->memories++] = m.data;
	r->dev->upload(r->dev, m.data, dtype == DTYPE_BF16 ? (void *)half : (void *)data,
		       count * dtype_bytes(dtype));
	free(data);
	free(half);
	return m;
}

static void give(struct run *r, struct result *to, int out, struct matrix m)
{
	size_t count = (size_t)m.rows * m.ld;
	void *data = xalloc(count * dtype_bytes(m.dtype));

	to->out[out] = xalloc(count * sizeof(float));
	to->count[out] = count;
	to->ld[out] = m.ld;
	to->cols[out] = m.cols;
	r->dev->download(r->dev, data, m.data, count * dtype_bytes(m.dtype));
	convert_to_f32(to->out[out], data, m.dtype, count);
	free(data);
}

static void release(struct result *result)
{
	for (int i = 0; i < OUTS; i++)
		free(result->out[i]);
}

#define SEGMENTS 12

struct problem {
	struct attention shape;
	int gap;
	int length[SEGMENTS]; /* of segments; the first is 0 where there are none */
};

/* Segments of these lengths, on the device. */
static void add_segments(struct run *r, const int *length, struct attention *s)
{
	struct segment segment[SEGMENTS];
	int first = 0;

	for (s->segments = 0; s->segments < SEGMENTS && length[s->segments]; s->segments++) {
		segment[s->segments] = (struct segment){first, length[s->segments], 0};
		first += length[s->segments];
	}
	if (s->segments == 0)
		return;
	ck_assert_int_eq(first, s->sequences * s->tokens);
	void *there = r->dev->alloc(r->dev, sizeof segment);

	r->memory[r->memories++] = there;
	r->dev->upload(r->dev, there, segment, sizeof segment);
	s->segment = there;
}

/* All that attention takes, rows [first, first + rows) of it. */
struct operands {
	struct matrix o, lse, q, k, v, d_o, dq, dk, dv;
};

static struct operands operand_rows(struct operands a, int first, int rows)
{
	return (struct operands){
	    matrix_rows(a.o, first, rows),   matrix_rows(a.lse, first, rows),
	    matrix_rows(a.q, first, rows),   matrix_rows(a.k, first, rows),
	    matrix_rows(a.v, first, rows),   matrix_rows(a.d_o, first, rows),
	    matrix_rows(a.dq, first, rows),  matrix_rows(a.dk, first, rows),
	    matrix_rows(a.dv, first, rows),
	};
}

/* Forward and backward; the scratch is full of NaN before each. */
static void call(struct run *r, struct operands a, struct attention s)
{
	struct device *dev = r->dev;
	int threads = pool_threads(dev->pool);
	size_t bytes = r->kernels ? attention_bytes(r->kernels, threads, s)
				  : dev->k.attention_scratch(threads, s, r->dtype);
	char *noise = xalloc(bytes);
	void *scratch = dev->alloc(dev, bytes);

	memset(noise, 0xff, bytes);
	dev->upload(dev, scratch, noise, bytes);
	if (r->kernels)
		attention_forward(r->kernels, dev, a.o, a.lse, a.q, a.k, a.v, s, scratch);
	else
		dev->k.attention(dev, a.o, a.lse, a.q, a.k, a.v, s, scratch);
	dev->upload(dev, scratch, noise, bytes);
	if (r->kernels)
		attention_gradients(r->kernels, dev, a.dq, a.dk, a.dv, a.d_o, a.q, a.k, a.v,
				    a.lse, s, scratch);
	else
		dev->k.attention_backward(dev, a.dq, a.dk, a.dv, a.d_o, a.q, a.k, a.v, a.o,
					  a.lse, s, scratch);
	dev->free(dev, scratch);
	free(noise);
}

/* A problem; apart: with every segment as a sequence of its own. */
static void attend(struct run *r, const struct problem *p, bool apart, struct result *result)
{
	struct attention s = p->shape;
	int n = s.sequences * s.tokens, wide = s.heads * s.head_size;
	int narrow = s.kv_heads * s.head_size;
	struct matrix q = made(r, r->dtype, n, wide, 2), k = made(r, r->dtype, n, narrow, 2);
	struct matrix v = made(r, r->dtype, n, narrow, 1), o = made(r, r->dtype, n, wide, 1);
	struct matrix d_o = made(r, r->dtype, n, wide, 1), dq = made(r, r->dtype, n, wide, 1);
	struct matrix dk = made(r, r->dtype, n, narrow, 1);
	struct matrix dv = made(r, r->dtype, n, narrow, 1);
	struct matrix lse = made(r, DTYPE_F32, n, s.heads, 1);
	struct operands all = {o, lse, q, k, v, d_o, dq, dk, dv};

	if (!apart) {
		add_segments(r, p->length, &s);
		call(r, all, s);
	}
	s.sequences = 1;
	for (int i = 0, first = 0; apart && p->length[i]; first += p->length[i++]) {
		s.tokens = p->length[i];
		call(r, operand_rows(all, first, s.tokens), s);
	}
	give(r, result, O, o);
	give(r, result, LSE, lse);
	give(r, result, DQ, dq);
	give(r, result, DK, dk);
	give(r, result, DV, dv);
}

/* The problem with inputs rounded to one dtype and stored as another. */
static struct result run_with(const struct attention_kernels *kernels, const char *device,
			      int threads, const struct problem *p, enum dtype rounded,
			      enum dtype stored, bool apart)
{
	struct run r = {.dev = device_open(device, threads),
			.kernels = kernels,
			.dtype = stored,
			.rounded = rounded,
			.gap = p->gap};
	struct result result;

	ck_assert_ptr_nonnull(r.dev);
	attend(&r, p, apart, &result);
	for (int i = 0; i < r.memories; i++)
		r.dev->free(r.dev, r.memory[i]);
	device_close(r.dev);
	return result;
}

static struct result run_on(const char *device, int threads, const struct problem *p,
			    enum dtype rounded, enum dtype stored)
{
	return run_with(NULL, device, threads, p, rounded, stored, false);
}

static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};

/* sequences, tokens, heads, heads of keys, size of a head, scale, window; gap. Sizes around the
 * blocks and tiles of any kernel; scores up to 30. */
static const struct problem problems[] = {
    {{1, 1, 1, 1, 1, 1, 0, 0, NULL}, 0, {0}},
    {{3, 1, 2, 1, 8, 0.7f, 0, 0, NULL}, 1, {0}},
    {{2, 2, 2, 2, 24, 0.5f, 0, 0, NULL}, 0, {0}},
    {{1, 63, 2, 1, 64, 0.3f, 0, 0, NULL}, 0, {0}},
    {{2, 64, 1, 1, 64, 0.3f, 0, 0, NULL}, 3, {0}},
    {{1, 65, 3, 1, 80, 0.2f, 0, 0, NULL}, 2, {0}},
    {{1, 200, 4, 2, 24, 0.4f, 0, 0, NULL}, 0, {0}},
    {{1, 200, 2, 2, 1, 1, 0, 0, NULL}, 1, {0}},
    {{1, 130, 2, 1, 128, 0.2f, 0, 0, NULL}, 5, {0}},
    {{1, 64, 3, 3, 7, 0.5f, 64, 0, NULL}, 4, {0}},
    {{1, 200, 6, 1, 8, 0.5f, 1, 0, NULL}, 1, {0}},
    {{2, 129, 2, 1, 33, 0.3f, 2, 0, NULL}, 0, {0}},
    {{1, 200, 2, 1, 64, 0.3f, 31, 0, NULL}, 7, {0}},
    {{1, 230, 2, 2, 10, 0.5f, 100, 0, NULL}, 0, {0}},
    {{1, 133, 14, 2, 16, 0.5f, 0, 0, NULL}, 1, {0}},
    {{1, 191, 3, 3, 3, 0.5f, 190, 0, NULL}, 0, {0}},
    /* Segments: of one token, around blocks and panels, in parts and not, across sequences. */
    {{1, 150, 4, 2, 24, 0.4f, 0, 0, NULL}, 0, {1, 65, 1, 63, 20}},
    {{2, 200, 14, 2, 16, 0.5f, 0, 0, NULL}, 1, {97, 64, 33, 6, 131, 1, 66, 2}},
    {{1, 230, 6, 1, 33, 0.3f, 31, 0, NULL}, 2, {100, 30, 31, 69}},
    {{1, 129, 9, 9, 8, 0.5f, 70, 0, NULL}, 0, {129}},
    {{3, 5, 2, 1, 64, 0.5f, 2, 0, NULL}, 3, {1, 1, 3, 2, 3, 4, 1}},
};

#define PROBLEMS ((int)(sizeof problems / sizeof *problems))

/* Under AddressSanitizer, ten times slower, every other problem on other threads. */
#if defined(__SANITIZE_ADDRESS__)
#define STEP 2
#else
#define STEP 1
#endif

/*
 * Allowed difference from the reference on the same numbers, as a part of the largest number of
 * the output. F32: scores of 30 round at 2^-20 before exp. BF16: o and the gradients are
 * rounded (2^-9 of each), and so are the probabilities and their gradients before they are
 * multiplied: errors of 2^-9 a term that mostly cancel. lse is never rounded.
 */
static float tolerance(enum dtype dtype, int out)
{
	if (dtype == DTYPE_F32 || out == LSE)
		return 5e-6f;
	return 6e-3f;
}

static void close_to(const struct result *want, const struct result *got, enum dtype dtype,
		     const struct attention_kernels *k, int problem)
{
	for (int out = 0; out < OUTS; out++) {
		float most = 1e-2f; /* what cancels to nothing has no scale of its own */

		for (size_t i = 0; i < want->count[out]; i++)
			most = fmaxf(most, fabsf(want->out[out][i]));
		for (size_t i = 0; i < want->count[out]; i++) {
			float a = want->out[out][i], b = got->out[out][i];

			if (!(fabsf(a - b) <= tolerance(dtype, out) * most))
				ck_abort_msg("%s, problem %d, %s: row %zu column %zu: %.9g is "
					     "not %.9g (most %g)",
					     k->name, problem, names[out], i / want->ld[out],
					     i % want->ld[out], b, a, most);
		}
	}
}

static void same_bits(const struct result *want, const struct result *got, const char *what,
		      int problem)
{
	for (int out = 0; out < OUTS; out++)
		for (size_t i = 0; i < want->count[out]; i++)
			if (memcmp(&want->out[out][i], &got->out[out][i], sizeof(float)) != 0)
				ck_abort_msg("%s, problem %d, %s: number %zu: %.9g is not %.9g",
					     what, problem, names[out], i, got->out[out][i],
					     want->out[out][i]);
}

/* Every choice of kernels is named, for what is not there is not tested. */
START_TEST(cpu_equals_reference)
{
	enum dtype dtype = dtypes[_i];

	for (int choice = 0; attention_kernels(dtype, choice); choice++)
		printf("%s: %s\n", dtype_name(dtype), attention_kernels(dtype, choice)->name);
	for (int i = 0; i < PROBLEMS; i++) {
		struct result want = run_on("reference", 1, &problems[i], dtype, DTYPE_F32);
		const struct attention_kernels *k;

		for (int choice = 0; (k = attention_kernels(dtype, choice)); choice++) {
			struct result got = run_with(k, "cpu", 1, &problems[i], dtype, dtype, false);

			close_to(&want, &got, dtype, k, i);
			release(&got);
		}
		release(&want);
	}
}
END_TEST

/* What it stores as BF16 is what it stores as F32, rounded. */
START_TEST(reference_rounds_what_it_stores)
{
	for (int i = 0; i < PROBLEMS; i++) {
		struct result want =
		    run_on("reference", 1, &problems[i], DTYPE_BF16, DTYPE_F32);
		struct result got =
		    run_on("reference", 1, &problems[i], DTYPE_BF16, DTYPE_BF16);

		for (int out = 0; out < OUTS; out++)
			for (size_t j = 0; out != LSE && j < want.count[out]; j++)
				want.out[out][j] = bf16_value(bf16_of(want.out[out][j]));
		same_bits(&want, &got, "reference", i);
		release(&want);
		release(&got);
	}
}
END_TEST

START_TEST(same_bits_on_any_threads_and_far)
{
	enum dtype dtype = dtypes[_i];

	for (int i = 0; i < PROBLEMS; i += STEP) {
		struct result want = run_on("cpu", 1, &problems[i], dtype, dtype);

		for (int threads = 2; threads <= 5; threads += 3) {
			struct result got = run_on("cpu", threads, &problems[i], dtype, dtype);

			same_bits(&want, &got, "threads", i);
			release(&got);
		}
		struct result got = run_on("far", 3, &problems[i], dtype, dtype);

		same_bits(&want, &got, "far", i);
		release(&want);
		release(&got);
	}
}
END_TEST

/* The first sequence of two has what it has alone. */
START_TEST(same_bits_in_any_company)
{
	static const struct problem pair = {{2, 150, 4, 2, 24, 0.4f, 0, 0, NULL}, 0, {0}};
	struct problem alone = pair;

	alone.shape.sequences = 1;
	struct result two = run_on("cpu", 2, &pair, dtypes[_i], dtypes[_i]);
	struct result one = run_on("cpu", 2, &alone, dtypes[_i], dtypes[_i]);

	for (int out = 0; out < OUTS; out++)
		two.count[out] /= 2;
	same_bits(&one, &two, "company", 0);
	release(&one);
	release(&two);
}
END_TEST

/* Every segment alone: what its rows compute is the same bits. dk and dv are sums over queries,
 * whose parts a short segment has not. */
START_TEST(segments_are_sequences)
{
	enum dtype dtype = dtypes[_i];

	for (int i = 0; i < PROBLEMS; i += STEP) {
		const struct problem *p = &problems[i];
		const struct attention_kernels *k;

		if (p->length[0] == 0)
			continue;
		struct result apart =
		    run_with(NULL, "reference", 1, p, dtype, DTYPE_F32, true);
		struct result packed = run_on("reference", 1, p, dtype, DTYPE_F32);

		same_bits(&apart, &packed, "reference", i);
		for (int choice = 0; (k = attention_kernels(dtype, choice)); choice++) {
			struct result want = run_with(k, "cpu", 2, p, dtype, dtype, true);
			struct result got = run_with(k, "cpu", 2, p, dtype, dtype, false);

			close_to(&want, &got, dtype, k, i);
			want.count[DK] = want.count[DV] = 0;
			same_bits(&want, &got, k->name, i);
			release(&want);
			release(&got);
		}
		release(&apart);
		release(&packed);
	}
}
END_TEST

/* The softmax of one score is 1 whatever the score: its gradient is 0, not what rounding
 * leaves. */
START_TEST(one_key_has_no_gradient)
{
	static const struct problem one = {{2, 70, 4, 2, 5, 0.7f, 1, 0, NULL}, 0, {0}};
	enum dtype dtype = dtypes[_i];
	const struct attention_kernels *k;

	for (int choice = 0; (k = attention_kernels(dtype, choice)); choice++) {
		struct result got = run_with(k, "cpu", 2, &one, dtype, dtype, false);

		for (int out = DQ; out <= DK; out++)
			for (size_t i = 0; i < got.count[out]; i++)
				ck_assert_msg(got.out[out][i] == 0, "%s, %s: %g", k->name,
					      names[out], got.out[out][i]);
		release(&got);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("attention");
	TCase *attention = tcase_create("attention");

	tcase_set_timeout(attention, 120);
	tcase_add_loop_test(attention, cpu_equals_reference, 0, 2);
	tcase_add_test(attention, reference_rounds_what_it_stores);
	tcase_add_loop_test(attention, same_bits_on_any_threads_and_far, 0, 2);
	tcase_add_loop_test(attention, same_bits_in_any_company, 0, 2);
	tcase_add_loop_test(attention, segments_are_sequences, 0, 2);
	tcase_add_loop_test(attention, one_key_has_no_gradient, 0, 2);
	suite_add_tcase(suite, attention);
	return run_suite(suite);
}
