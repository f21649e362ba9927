/*
 * The kernels of attention.h over vectors of any width: included once for every instruction set
 * and word, which before defines
 *   KERNEL(name), TARGET, PAIR
 *   vec of WIDTH floats, vec_load, vec_store, vec_all (one number in all lanes), vec_add,
 *   vec_sub, vec_mul, vec_max, vec_fma (a b + c), vec_fnma (c - a b), vec_sum, vec_most (of the
 *   lanes), vec_scaled (p 2^n, 0 where x < -87.33; n is in the low bits of its third argument)
 *   ROWS x 2 vectors of sums fit the registers: ROWS
 *   where PAIR is 2: vec_dot (c + a b of pairs), vec_word, vec_halves, vec_pairs,
 *   vec_store_half, vec_round
 */

#include "tensor/exp_kernels.h"

/* 0 below -87.33. */
TARGET static inline vec KERNEL(exp)(vec x)
{
	vec shifted, p = KERNEL(exp_parts)(x, &shifted);

	return vec_scaled(p, x, shifted);
}

/* c + a b, where a is one word and b as many as lanes. */
TARGET static inline vec KERNEL(dot)(const uint32_t *a, vec b, vec c)
{
#if PAIR == 2
	return vec_dot(vec_word(*a), b, c);
#else
	float x;

	memcpy(&x, a, sizeof x);
	return vec_fma(vec_all(x), b, c);
#endif
}

/* -- packing ------------------------------------------------------------------------------- */

/* BF16 is the upper half of a float. */
TARGET static void KERNEL(load)(uint32_t *to, int wide, const void *from, int n,
				enum dtype dtype)
{
	size_t bytes = (size_t)n * (PAIR == 2 ? 2 : 4);

	if (PAIR == 1 && dtype == DTYPE_BF16)
		for (int i = 0; i < n; i++)
			to[i] = (uint32_t)((const uint16_t *)from)[i] << 16;
	else
		memcpy(to, from, bytes);
	memset((char *)to + bytes, 0, (size_t)wide * 4 / PAIR - bytes);
}

/* Rounds to nearest even, in both ways to BF16. */
TARGET static void KERNEL(store)(void *to, enum dtype dtype, const float *from, int n,
				 float factor)
{
	float *whole = to;
	uint16_t *half = to;
	int i = 0;

	if (dtype == DTYPE_F32) {
		for (; i < n; i++)
			whole[i] = from[i] * factor;
		return;
	}
#if PAIR == 2
	for (; i + WIDTH <= n; i += WIDTH)
		vec_round(half + i, vec_mul(vec_load(from + i), vec_all(factor)));
#endif
	for (; i < n; i++)
		half[i] = bf16_of(from[i] * factor);
}

/* In vectors by the compiler, as are all loops here without them. */
TARGET static void KERNEL(add)(float *to, const float *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] += from[i];
}

/* Four words at a time, lest every word of a row is another visit of its cache line. */
TARGET static void KERNEL(transpose)(uint32_t *to, const uint32_t *from, size_t ld, int words)
{
	for (int w = 0; w < words; w += 4)
		for (int j = 0; j < PANEL; j++)
			for (int i = 0; i < 4; i++)
				to[(w + i) * PANEL + j] =
				    from[(size_t)j * ld + (size_t)(w + i)];
}

/* Pairs of rows; single rows are only gathered. */
TARGET static void KERNEL(interleave)(uint32_t *to, const uint32_t *from, size_t ld, int rows)
{
	for (int i = 0; i < rows; i += PAIR, to += PANEL, from += PAIR * ld) {
#if PAIR == 2
		const uint16_t *a = (const uint16_t *)from, *b = (const uint16_t *)(from + ld);

		for (int j = 0; j < PANEL; j++)
			to[j] = (uint32_t)a[j] | (uint32_t)b[j] << 16;
#else
		memcpy(to, from, PANEL * sizeof *to);
#endif
	}
}

/* -- products ------------------------------------------------------------------------------ */

/* ROWS rows and two vectors of a product; row and word are the steps of a. */
TARGET static inline __attribute__((always_inline)) void
KERNEL(tile)(float *c, size_t ldc, const uint32_t *a, size_t row, size_t word,
	     const uint32_t *b, int words, bool add, float alpha)
{
	vec sum[ROWS][2];

#pragma GCC unroll 8
	for (int i = 0; i < ROWS; i++)
		sum[i][0] = sum[i][1] = vec_all(0);
	for (int w = 0; w < words; w++, a += word, b += PANEL) {
		vec b0 = vec_load((const float *)b), b1 = vec_load((const float *)b + WIDTH);

#pragma GCC unroll 8
		for (int i = 0; i < ROWS; i++) {
			sum[i][0] = KERNEL(dot)(a + (size_t)i * row, b0, sum[i][0]);
			sum[i][1] = KERNEL(dot)(a + (size_t)i * row, b1, sum[i][1]);
		}
	}
#pragma GCC unroll 8
	for (int i = 0; i < ROWS; i++) {
		for (int v = 0; v < 2; v++) {
			float *to = c + (size_t)i * ldc + v * WIDTH;

			vec_store(to, add ? vec_add(vec_load(to), sum[i][v])
					  : vec_mul(vec_all(alpha), sum[i][v]));
		}
	}
}

/* Each row's words follow one another. */
TARGET static void KERNEL(product)(float *c, size_t ldc, const uint32_t *a, size_t lda,
				   const uint32_t *b, int words, float alpha)
{
	for (int j = 0; j < PANEL; j += 2 * WIDTH)
		for (size_t i = 0; i < STRIP; i += ROWS)
			KERNEL(tile)
			(c + i * ldc + j, ldc, a + i * lda, lda, 1, b + j, words, false, alpha);
}

/* The words of STRIP rows follow one another. */
TARGET static void KERNEL(add_product)(float *c, size_t ldc, const uint32_t *a, size_t lda,
				       const uint32_t *b, int words)
{
	for (int j = 0; j < PANEL; j += 2 * WIDTH)
		for (size_t i = 0; i < STRIP; i += ROWS)
			KERNEL(tile)
			(c + i * ldc + j, ldc, a + i, 1, lda, b + j, words, true, 1);
}

/* -- rows of scores ------------------------------------------------------------------------ */

/* Two vectors at a time, as two are rounded into one. */
TARGET static float KERNEL(softmax)(float *s, int n, float *sum)
{
	vec most = vec_load(s), total = vec_all(0), total2 = total;

	for (int j = WIDTH; j < n; j += WIDTH)
		most = vec_max(vec_load(s + j), most);
	float top = vec_most(most);

	most = vec_all(top);
	for (int j = 0; j < n; j += 2 * WIDTH) {
		vec x = KERNEL(exp)(vec_sub(vec_load(s + j), most));
		vec y = KERNEL(exp)(vec_sub(vec_load(s + j + WIDTH), most));

		total = vec_add(total, x);
		total2 = vec_add(total2, y);
#if PAIR == 2
		vec_store(s + j / 2, vec_halves(x, y));
#else
		vec_store(s + j, x);
		vec_store(s + j + WIDTH, y);
#endif
	}
	*sum = vec_sum(vec_add(total, total2));
	return top;
}

/* s = p = exp(s - lse); returns p.dp. */
TARGET static inline float KERNEL(recompute)(float *s, const float *dp, int n, float lse)
{
	vec shift = vec_all(lse), delta = vec_all(0), delta2 = delta;

	for (int j = 0; j < n; j += 2 * WIDTH) {
		vec x = KERNEL(exp)(vec_sub(vec_load(s + j), shift));
		vec y = KERNEL(exp)(vec_sub(vec_load(s + j + WIDTH), shift));

		delta = vec_fma(x, vec_load(dp + j), delta);
		delta2 = vec_fma(y, vec_load(dp + j + WIDTH), delta2);
		vec_store(s + j, x);
		vec_store(s + j + WIDTH, y);
	}
	return vec_sum(vec_add(delta, delta2));
}

/* Row by row the probabilities and p.dp, then ds of the rows together. */
TARGET static void KERNEL(gradient)(float *s, float *dp, size_t ld, int n, const float *lse,
				    float scale, uint32_t *p, uint32_t *ds)
{
	vec factor = vec_all(scale), delta = vec_all(KERNEL(recompute)(s, dp, n, lse[0]));
#if PAIR == 2
	vec delta2 = vec_all(KERNEL(recompute)(s + ld, dp + ld, n, lse[1]));
#endif

	for (int j = 0; j < n; j += WIDTH) {
		vec x = vec_load(s + j);
		vec d = vec_mul(vec_mul(factor, x), vec_sub(vec_load(dp + j), delta));
#if PAIR == 2
		vec y = vec_load(s + ld + j);
		vec e = vec_mul(vec_mul(factor, y), vec_sub(vec_load(dp + ld + j), delta2));

		vec_store((float *)p + j, vec_pairs(vec_halves(x, y)));
		e = vec_halves(d, e);
		vec_store((float *)ds + j, vec_pairs(e));
		vec_store_half(dp + j / 2, dp + ld + j / 2, e);
#else
		(void)ld;
		vec_store((float *)p + j, x);
		vec_store((float *)ds + j, d);
		vec_store(dp + j, d);
#endif
	}
}

static const struct attention_kernels KERNEL(kernels) = {
    .name = KERNEL_NAME,
    .pair = PAIR,
    .load = KERNEL(load),
    .store = KERNEL(store),
    .add = KERNEL(add),
    .transpose = KERNEL(transpose),
    .interleave = KERNEL(interleave),
    .product = KERNEL(product),
    .add_product = KERNEL(add_product),
    .softmax = KERNEL(softmax),
    .gradient = KERNEL(gradient),
};
