/*
 * Products by oneDNN on the calling thread: the rooms of oneDNN's C API behind one door, so
 * that the rest of tensor/ knows neither its version (v2 and v3 differ) nor whether it was
 * built in.
 */
#ifndef EDGEPIPE_TENSOR_ONEDNN_H
#define EDGEPIPE_TENSOR_ONEDNN_H

#include "tensor/tensor.h"

/* The engine, products made ready so far, and what every thread of a pool needs to run them. */
struct onednn;
/* Null where edgepipe was built without oneDNN, or it does not start (then nothing is said). */
struct onednn *onednn_open(int threads);
/* Lets every thread of the pool make its first calls: what the library keeps for a thread is
 * allocated then, and not while training. -1 after an error. */
int onednn_warm(struct onednn *onednn, struct pool *pool);
void onednn_close(struct onednn *onednn);
/* What the library may use of this CPU (it obeys ONEDNN_MAX_CPU_ISA): AVX-512; products of BF16
 * in hardware. */
bool onednn_has_avx512(void);
bool onednn_has_bf16(void);
/* "oneDNN 2.6.3 AVX-512 BF16"; "" where it was not built in. */
const char *onednn_describe(char *buffer, size_t bytes);

/* c = alpha op(a) op(b) + beta c in F32, row-major, as cblas_sgemm has it. */
struct sgemm {
	bool a_t, b_t;
	int rows, cols, inner;
	float alpha, beta;
	const float *a, *b;
	float *c;
	size_t lda, ldb, ldc;
};
/* On the calling thread, which is number `thread` of the pool. */
void onednn_sgemm(struct onednn *onednn, int thread, const struct sgemm *g);

/* How oneDNN likes weights (inner, cols) of BF16 best, for products of many rows; the same for
 * equal sizes. Null after an error. They take onednn_packed_bytes at most. */
struct onednn_layout;
struct onednn_layout *onednn_layout(struct onednn *onednn, int inner, int cols);
size_t onednn_packed_bytes(int inner, int cols);
/* Writes part (rows, cols; F32 or BF16), which lies transposed or not, at (row, col) of packed
 * weights. -1 after an error. */
int onednn_pack(struct onednn *onednn, const struct onednn_layout *layout, void *packed,
		int row, int col, struct matrix part, bool part_t);

/* The packing of whole weights from BF16 whose rows are ld apart (part_t: the transpose of what
 * is packed), made ready at its first use as a product is. It runs on one thread at a time. */
struct onednn_packing;
struct onednn_packing *onednn_packing(struct onednn *onednn, const struct onednn_layout *layout,
				      size_t ld, bool part_t);
void onednn_packing_run(struct onednn *onednn, struct onednn_packing *packing, int thread,
			void *packed, const void *from);

/* c (rows, cols; F32 or BF16) = a op(b) + bias + (add ? c : 0) for BF16 a and b; bias is
 * F32. */
struct onednn_shape {
	int rows, cols, inner;
	size_t lda, ldb, ldc;
	bool b_t, bias, add;
	enum dtype out;
	const struct onednn_layout *layout; /* of b; null: b is row-major */
};
struct onednn_product;
/* The product of a shape, made ready at its first use (main thread; allocates). Null after an
 * error. */
struct onednn_product *onednn_product(struct onednn *onednn, const struct onednn_shape *shape);
/* Runs it on thread number `thread` of the pool. */
void onednn_run(struct onednn *onednn, struct onednn_product *product, int thread, void *c,
		const void *a, const void *b, const float *bias);

#endif
