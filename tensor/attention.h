/*
 * Attention on the CPU: what cpu_attention.c asks of an instruction set.
 *
 * Operands are made of words of 32 bits, a float or two BF16 that are multiplied together: so
 * all products are the same loops over words, and F32 and BF16 differ in one instruction. The
 * right operand of a product lies in panels of PANEL columns, a row of a panel being PANEL
 * words; the left one gives STRIP rows at a time, one word of each.
 */
#ifndef EDGEPIPE_TENSOR_ATTENTION_H
#define EDGEPIPE_TENSOR_ATTENTION_H

#include "tensor/tensor.h"

#define STRIP 8	 /* queries (or keys) whose sums are in registers together */
#define PANEL 32 /* columns of them */
#define BLOCK 64 /* queries between two visits of the sums dk and dv */

struct attention_kernels {
	const char *name;
	int pair; /* numbers in a word: 1 F32, 2 BF16 */

	/* One row of n numbers of dtype as words; the rest, up to whole words of `wide`
	 * numbers, is 0. */
	void (*load)(uint32_t *to, int wide, const void *from, int n, enum dtype dtype);
	/* to = factor from, n numbers of dtype */
	void (*store)(void *to, enum dtype dtype, const float *from, int n, float factor);
	/* to += from */
	void (*add)(float *to, const float *from, size_t n);
	/* A panel of the transposed matrix: word w of PANEL rows, which are ld words apart, for
	 * words 0..words-1, words a multiple of 4. */
	void (*transpose)(uint32_t *to, const uint32_t *from, size_t ld, int words);
	/* Rows of a panel, pair after pair of rows; from is the panel's first word of row 0. */
	void (*interleave)(uint32_t *to, const uint32_t *from, size_t ld, int rows);

	/* c (STRIP, PANEL) = alpha a b; a: row i, word w is a[i * lda + w]; b: a panel. */
	void (*product)(float *c, size_t ldc, const uint32_t *a, size_t lda, const uint32_t *b,
			int words, float alpha);
	/* c += a b; a: row i, word w is a[i + w * lda]. */
	void (*add_product)(float *c, size_t ldc, const uint32_t *a, size_t lda,
			    const uint32_t *b, int words);

	/* In place, n scores (a multiple of PANEL) to words of exp(s - most). Returns most. */
	float (*softmax)(float *s, int n, float *sum);
	/*
	 * `pair` rows of n scores and of dp, ld apart: p = exp(s - lse), ds = scale p (dp -
	 * p.dp). p and ds as n words, pairs of rows; ds also as pairs of columns, row by row,
	 * in the place of dp. s is lost.
	 */
	void (*gradient)(float *s, float *dp, size_t ld, int n, const float *lse, float scale,
			 uint32_t *p, uint32_t *ds);
};

/* The kernels for matrices of dtype that this CPU can run, best first; null after the last. */
const struct attention_kernels *attention_kernels(enum dtype dtype, int choice);

/* Each null where the CPU does not have it, or the compiler's target is not x86; but plain is
 * always there. */
const struct attention_kernels *attention_avx512(void);
const struct attention_kernels *attention_avx512_bf16(void);
const struct attention_kernels *attention_avx2(void);
const struct attention_kernels *attention_plain(void);

/* The slots of tensor.h, with these kernels. */
size_t attention_bytes(const struct attention_kernels *k, int threads, struct attention shape);
void attention_forward(const struct attention_kernels *k, struct device *dev, struct matrix o,
		       struct matrix lse, struct matrix q, struct matrix key, struct matrix v,
		       struct attention shape, void *scratch);
void attention_gradients(const struct attention_kernels *k, struct device *dev,
			 struct matrix dq, struct matrix dk, struct matrix dv,
			 struct matrix d_o, struct matrix q, struct matrix key, struct matrix v,
			 struct matrix lse, struct attention shape, void *scratch);

#endif
