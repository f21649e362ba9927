/*
 * What the files of tensor/ share among themselves: work cut into rows, rows that are floats
 * whatever they are stored as, OpenBLAS held to one thread, and the slots that fill the CPU
 * table.
 */
#ifndef EDGEPIPE_TENSOR_INTERNAL_H
#define EDGEPIPE_TENSOR_INTERNAL_H

#include "tensor/tensor.h"

/* -- blas.c -------------------------------------------------------------------------------- */

/* Products run on one thread each: the pool of the device cuts them. */
void blas_one_thread(void);

/* -- cpu.c --------------------------------------------------------------------------------- */

/* Does rows first..end-1 of a kernel. */
typedef void rows_work(const void *arg, int first, int end);
/* Cuts the rows of a kernel into pieces that depend on the shape alone, and runs them on the
 * pool; cost is what one row costs, in elements touched. */
void run_rows(struct device *dev, rows_work *work, const void *arg, int rows, size_t cost);

/* -- cpu_rows.c: rows of F32 or BF16 as floats, a chunk at a time -------------------------- */

/*
 * Numbers of a row that a kernel takes at once: its buffers stay in the first cache, so that a
 * kernel passes over memory once whatever the dtypes are. F32 is used where it lies.
 */
#define CHUNK 1024
/* How much of a row there is to take from column j on. */
static inline int chunk_of(struct matrix m, int j)
{
	return m.cols - j < CHUNK ? m.cols - j : CHUNK;
}
/* Columns j..j+n-1 of row i: to be read, or to be changed before chunk_done. */
float *chunk_in(struct matrix m, int i, int j, int n, float buffer[CHUNK]);
/* Where to write columns from j on of row i, before chunk_done. */
float *chunk_out(struct matrix m, int i, int j, float buffer[CHUNK]);
/* Stores what chunk_in or chunk_out gave. */
void chunk_done(struct matrix m, int i, int j, int n, const float *x);
/* Columns j..j+n-1 of row i of y = those of x. */
void chunk_copy(struct matrix y, struct matrix x, int i, int j, int n);

/* -- cpu_loss.c: a softmax ---------------------------------------------------------------- */

/* NaN is passed over. */
float largest_of(const float *x, int n);
/* The sum of e = exp(x - most); y = e; y may be x. */
float exp_into(float *y, const float *x, float most, int n);

/* -- cpu_*.c ------------------------------------------------------------------------------- */

/* Each overwrites the slots that its file has. */
void cpu_matmul_slots(struct kernels *k);
void cpu_thin_slots(struct kernels *k); /* after cpu_matmul_slots */
void cpu_attention_slots(struct kernels *k);
void cpu_norm_slots(struct kernels *k);
void cpu_elementwise_slots(struct kernels *k);
void cpu_activation_slots(struct kernels *k);
void cpu_dropout_slots(struct kernels *k);
void cpu_loss_slots(struct kernels *k);
void cpu_head_slots(struct kernels *k);

/* The slot, of F32 alone. */
void cpu_matmul(struct device *dev, struct matrix c, struct matrix a, bool a_t, struct matrix b,
		bool b_t, float alpha, float beta);

/* -- ref_cached.c, cpu_cached.c, cpu_few.c ------------------------------------------------- */

/* The slots of the reference that have files of their own. */
void ref_few(struct device *dev, struct matrix y, struct matrix x, struct matrix w, bool w_t,
	     struct matrix bias, float alpha, float beta);
void ref_keep(struct device *dev, const struct cached *cached, struct matrix k,
	      struct matrix v);
void ref_attend(struct device *dev, struct matrix o, struct matrix q,
		const struct cached *cached);
void cpu_few_slots(struct kernels *k);
void cpu_cached_slots(struct kernels *k);
/* Where key or value head g of a sequence begins, in numbers, and key t's d-th number in it. */
static inline size_t cached_head(const struct cached *c, int sequence, int g)
{
	size_t room = ((size_t)c->room + CACHED_KEYS - 1) / CACHED_KEYS * CACHED_KEYS;

	return ((size_t)sequence * (size_t)c->kv_heads + (size_t)g) * room *
	       (size_t)c->head_size;
}
static inline size_t cached_key(const struct cached *c, int t, int d)
{
	size_t panel = (size_t)(t / CACHED_KEYS) * (size_t)c->head_size + (size_t)d;

	return panel * CACHED_KEYS + (size_t)(t % CACHED_KEYS);
}

/* -- timed.c, timed_slots.c ---------------------------------------------------------------- */

/* A call that began at start_s and is over now; flops and bytes are its own. */
void timed_keep_call(struct device *dev, double start_s, const struct timed_op *call);
/* Overwrites every slot that does work: attention_scratch and head_scratch are questions. */
void timed_slots(struct kernels *k);

/* -- views --------------------------------------------------------------------------------- */

static inline int at_most(int x, int most)
{
	return x < most ? x : most;
}

static inline float *row_of(struct matrix m, int i)
{
	return (float *)m.data + (size_t)i * m.ld;
}

static inline uint16_t *row_of_bf16(struct matrix m, int i)
{
	return (uint16_t *)m.data + (size_t)i * m.ld;
}

#endif
