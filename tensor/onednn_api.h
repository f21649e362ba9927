/*
 * oneDNN's C API in one spelling, for matrices: what versions 2 (descriptors are structs) and 3
 * (descriptors are handles) call differently. It is included where oneDNN is built in alone,
 * and by bench/, too.
 */
#ifndef EDGEPIPE_TENSOR_ONEDNN_API_H
#define EDGEPIPE_TENSOR_ONEDNN_API_H

#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>
#include <string.h>

#include "tensor/tensor.h"

/* Of what type a matrix is, and how it lies in memory. Zeroed it may be closed. */
struct desc {
	dnnl_memory_desc_t md;
};

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t desc_arg;

static inline desc_arg desc_of(const struct desc *desc)
{
	return desc->md;
}

static inline dnnl_status_t desc_steps(struct desc *desc, const dnnl_dims_t dims,
				       const dnnl_dims_t steps, dnnl_data_type_t type)
{
	return dnnl_memory_desc_create_with_strides(&desc->md, 2, dims, type, steps);
}

static inline dnnl_status_t desc_tag(struct desc *desc, const dnnl_dims_t dims,
				     dnnl_format_tag_t tag, dnnl_data_type_t type)
{
	return dnnl_memory_desc_create_with_tag(&desc->md, 2, dims, type, tag);
}

static inline dnnl_status_t desc_part(struct desc *desc, desc_arg of, const dnnl_dims_t dims,
				      const dnnl_dims_t at)
{
	return dnnl_memory_desc_create_submemory(&desc->md, of, dims, at);
}

static inline dnnl_status_t desc_copy(struct desc *desc, desc_arg of)
{
	return dnnl_memory_desc_clone(&desc->md, of);
}

static inline void desc_close(struct desc *desc)
{
	dnnl_memory_desc_destroy(desc->md);
}

static inline dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
	return dnnl_post_ops_append_sum(ops, 1, 0, dnnl_data_type_undef);
}

/* dst = src weights + bias, which may be null, as attr may. */
static inline dnnl_status_t describe_matmul(dnnl_primitive_desc_t *pd, dnnl_engine_t engine,
					    const struct desc *src, const struct desc *weights,
					    const struct desc *bias, const struct desc *dst,
					    dnnl_primitive_attr_t attr)
{
	return dnnl_matmul_primitive_desc_create(pd, engine, src->md, weights->md,
						 bias ? bias->md : NULL, dst->md, attr);
}
#else
typedef const dnnl_memory_desc_t *desc_arg;

static inline desc_arg desc_of(const struct desc *desc)
{
	return &desc->md;
}

static inline dnnl_status_t desc_steps(struct desc *desc, const dnnl_dims_t dims,
				       const dnnl_dims_t steps, dnnl_data_type_t type)
{
	return dnnl_memory_desc_init_by_strides(&desc->md, 2, dims, type, steps);
}

static inline dnnl_status_t desc_tag(struct desc *desc, const dnnl_dims_t dims,
				     dnnl_format_tag_t tag, dnnl_data_type_t type)
{
	return dnnl_memory_desc_init_by_tag(&desc->md, 2, dims, type, tag);
}

static inline dnnl_status_t desc_part(struct desc *desc, desc_arg of, const dnnl_dims_t dims,
				      const dnnl_dims_t at)
{
	return dnnl_memory_desc_init_submemory(&desc->md, of, dims, at);
}

static inline dnnl_status_t desc_copy(struct desc *desc, desc_arg of)
{
	desc->md = *of;
	return dnnl_success;
}

static inline void desc_close(struct desc *desc)
{
	(void)desc;
}

static inline dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
	return dnnl_post_ops_append_sum(ops, 1);
}

/* dst = src weights + bias, which may be null, as attr may. */
static inline dnnl_status_t describe_matmul(dnnl_primitive_desc_t *pd, dnnl_engine_t engine,
					    const struct desc *src, const struct desc *weights,
					    const struct desc *bias, const struct desc *dst,
					    dnnl_primitive_attr_t attr)
{
	dnnl_matmul_desc_t matmul;
	dnnl_status_t status = dnnl_matmul_desc_init(&matmul, &src->md, &weights->md,
						     bias ? &bias->md : NULL, &dst->md);

	return status == dnnl_success
		   ? dnnl_primitive_desc_create(pd, &matmul, attr, engine, NULL)
		   : status;
}
#endif

static inline dnnl_data_type_t desc_type(enum dtype dtype)
{
	return dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* Rows that lie ld apart; turned: columns do, the transpose lies there. F32 or BF16. */
static inline dnnl_status_t desc_open(struct desc *desc, int rows, int cols, size_t ld,
				      bool turned, enum dtype dtype)
{
	const dnnl_dim_t far = (dnnl_dim_t)ld;
	const dnnl_dims_t dims = {rows, cols}, steps = {turned ? 1 : far, turned ? far : 1};

	return desc_steps(desc, dims, steps, desc_type(dtype));
}

/* As the product that it is described for likes it best. */
static inline dnnl_status_t desc_open_any(struct desc *desc, int rows, int cols,
					  enum dtype dtype)
{
	const dnnl_dims_t dims = {rows, cols};

	return desc_tag(desc, dims, dnnl_format_tag_any, desc_type(dtype));
}

/* How many of oneDNN's own threads the calling thread may use: the size of its OpenMP team.
 * Nothing to do where the library was built on something else. */
static inline void own_threads(int threads)
{
	void (*set)(int) = NULL;
	void *symbol = dlsym(RTLD_DEFAULT, "omp_set_num_threads");

	memcpy(&set, &symbol, sizeof set);
	if (set)
		set(threads);
}

#endif
