/*
 * What the files of tensor/ share among themselves: work cut into rows, OpenBLAS held to one
 * thread, and the slots that fill the CPU table.
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

/* -- cpu_*.c ------------------------------------------------------------------------------- */

/* Each overwrites the slots that its file has. */
void cpu_matmul_slots(struct kernels *k);
void cpu_attention_slots(struct kernels *k);
void cpu_norm_slots(struct kernels *k);
void cpu_elementwise_slots(struct kernels *k);
void cpu_dropout_slots(struct kernels *k);
void cpu_loss_slots(struct kernels *k);

/* -- views --------------------------------------------------------------------------------- */

static inline float *row_of(struct matrix m, int i)
{
	return (float *)m.data + (size_t)i * m.ld;
}

#endif
