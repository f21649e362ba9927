/*
 * bench/packed.h - a product c = a b by oneDNN, its weights b packed as the library likes them
 * (format_tag::any), ready to be run again and again. Where oneDNN was not built in, nothing
 * opens.
 */
#ifndef EDGEPIPE_BENCH_PACKED_H
#define EDGEPIPE_BENCH_PACKED_H

#include "tensor/tensor.h"

#include <stdlib.h>
#include <string.h>

/* a (m, k), b (k, n) and c (m, n), rows of c are ldc apart; a and b are both of type `in`. */
struct packed_shape {
	int m, n, k;
	size_t ldc;
	enum dtype in, out;
};

#ifdef EDGEPIPE_ONEDNN
#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>

struct packed {
	dnnl_engine_t engine;
	dnnl_stream_t stream;
	dnnl_primitive_t primitive;
	dnnl_memory_t a, b, c;
};

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t packed_desc;
typedef const_dnnl_memory_desc_t packed_desc_arg;

static inline packed_desc_arg packed_desc_of(const packed_desc *desc)
{
	return *desc;
}

static inline dnnl_status_t packed_desc_any(packed_desc *desc, const dnnl_dims_t dims,
					    dnnl_data_type_t type)
{
	return dnnl_memory_desc_create_with_tag(desc, 2, dims, type, dnnl_format_tag_any);
}

static inline dnnl_status_t packed_desc_rows(packed_desc *desc, const dnnl_dims_t dims,
					     const dnnl_dims_t steps, dnnl_data_type_t type)
{
	return dnnl_memory_desc_create_with_strides(desc, 2, dims, type, steps);
}

static inline void packed_desc_close(packed_desc *desc)
{
	dnnl_memory_desc_destroy(*desc);
}

static inline dnnl_status_t packed_matmul(dnnl_primitive_desc_t *to, dnnl_engine_t engine,
					  const packed_desc *a, const packed_desc *b,
					  const packed_desc *c)
{
	return dnnl_matmul_primitive_desc_create(to, engine, *a, *b, NULL, *c, NULL);
}
#else
typedef dnnl_memory_desc_t packed_desc;
typedef const dnnl_memory_desc_t *packed_desc_arg;

static inline packed_desc_arg packed_desc_of(const packed_desc *desc)
{
	return desc;
}

static inline dnnl_status_t packed_desc_any(packed_desc *desc, const dnnl_dims_t dims,
					    dnnl_data_type_t type)
{
	return dnnl_memory_desc_init_by_tag(desc, 2, dims, type, dnnl_format_tag_any);
}

static inline dnnl_status_t packed_desc_rows(packed_desc *desc, const dnnl_dims_t dims,
					     const dnnl_dims_t steps, dnnl_data_type_t type)
{
	return dnnl_memory_desc_init_by_strides(desc, 2, dims, type, steps);
}

static inline void packed_desc_close(packed_desc *desc)
{
	(void)desc;
}

static inline dnnl_status_t packed_matmul(dnnl_primitive_desc_t *to, dnnl_engine_t engine,
					  const packed_desc *a, const packed_desc *b,
					  const packed_desc *c)
{
	dnnl_matmul_desc_t op;

	if (dnnl_matmul_desc_init(&op, a, b, NULL, c) != dnnl_success)
		return dnnl_invalid_arguments;
	return dnnl_primitive_desc_create(to, &op, NULL, engine, NULL);
}
#endif

/* How many of oneDNN's own threads the calling thread may use. */
static inline void packed_threads(int threads)
{
	void (*set)(int) = NULL;
	void *symbol = dlsym(RTLD_DEFAULT, "omp_set_num_threads");

	memcpy(&set, &symbol, sizeof set);
	if (set)
		set(threads);
}

static inline const char *packed_describe(char *buffer, size_t bytes)
{
	const dnnl_version_t *v = dnnl_version();

	snprintf(buffer, bytes, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
	return buffer;
}

static inline dnnl_data_type_t packed_type(enum dtype type)
{
	return type == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
}

static inline void packed_close(struct packed *p)
{
	if (!p)
		return;
	dnnl_memory_destroy(p->a);
	dnnl_memory_destroy(p->b);
	dnnl_memory_destroy(p->c);
	dnnl_primitive_destroy(p->primitive);
	dnnl_stream_destroy(p->stream);
	dnnl_engine_destroy(p->engine);
	free(p);
}

/* Copies the plain weights, row-major with ldb, to the packed ones. */
static inline bool packed_fill(struct packed *p, const packed_desc *plain, void *b)
{
	dnnl_primitive_desc_t pd = NULL;
	dnnl_primitive_t reorder = NULL;
	dnnl_memory_t from = NULL;
	packed_desc_arg to;
	bool done = false;

	if (dnnl_memory_get_memory_desc(p->b, &to) != dnnl_success)
		return false;
	if (dnnl_memory_create(&from, packed_desc_of(plain), p->engine, b) == dnnl_success &&
	    dnnl_reorder_primitive_desc_create(&pd, packed_desc_of(plain), p->engine, to,
					       p->engine, NULL) == dnnl_success &&
	    dnnl_primitive_create(&reorder, pd) == dnnl_success) {
		dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, p->b}};

		done = dnnl_primitive_execute(reorder, p->stream, 2, args) == dnnl_success &&
		       dnnl_stream_wait(p->stream) == dnnl_success;
	}
	dnnl_primitive_destroy(reorder);
	dnnl_primitive_desc_destroy(pd);
	dnnl_memory_destroy(from);
	return done;
}

/* Null where the library cannot: a type that the CPU has no products of. b is read with ldb and
 * not needed any more. */
static inline struct packed *packed_open(const struct packed_shape *s, void *a, void *b,
					 size_t ldb, void *c)
{
	dnnl_dims_t a_dims = {s->m, s->k}, b_dims = {s->k, s->n}, c_dims = {s->m, s->n};
	dnnl_dims_t a_steps = {s->k, 1}, b_steps = {(dnnl_dim_t)ldb, 1},
		    c_steps = {(dnnl_dim_t)s->ldc, 1};
	struct packed *p = xzalloc(1, sizeof *p);
	dnnl_data_type_t in = packed_type(s->in), out = packed_type(s->out);
	packed_desc a_desc, any, plain, c_desc;
	dnnl_primitive_desc_t pd = NULL;
	bool done = false;

	memset(&a_desc, 0, sizeof a_desc);
	if (dnnl_engine_create(&p->engine, dnnl_cpu, 0) != dnnl_success ||
	    dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags) !=
		dnnl_success ||
	    packed_desc_rows(&a_desc, a_dims, a_steps, in) != dnnl_success ||
	    packed_desc_any(&any, b_dims, in) != dnnl_success ||
	    packed_desc_rows(&plain, b_dims, b_steps, in) != dnnl_success ||
	    packed_desc_rows(&c_desc, c_dims, c_steps, out) != dnnl_success) {
		packed_close(p);
		return NULL;
	}
	if (packed_matmul(&pd, p->engine, &a_desc, &any, &c_desc) == dnnl_success) {
		packed_desc_arg b_desc =
		    dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);

		done = dnnl_primitive_create(&p->primitive, pd) == dnnl_success &&
		       dnnl_memory_create(&p->a, packed_desc_of(&a_desc), p->engine, a) ==
			   dnnl_success &&
		       dnnl_memory_create(&p->b, b_desc, p->engine, DNNL_MEMORY_ALLOCATE) ==
			   dnnl_success &&
		       dnnl_memory_create(&p->c, packed_desc_of(&c_desc), p->engine, c) ==
			   dnnl_success &&
		       packed_fill(p, &plain, b);
	}
	dnnl_primitive_desc_destroy(pd);
	packed_desc_close(&a_desc);
	packed_desc_close(&any);
	packed_desc_close(&plain);
	packed_desc_close(&c_desc);
	if (done)
		return p;
	packed_close(p);
	return NULL;
}

static inline void packed_run(struct packed *p)
{
	dnnl_exec_arg_t args[] = {
		{DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->b}, {DNNL_ARG_DST, p->c}};

	dnnl_primitive_execute(p->primitive, p->stream, 3, args);
	dnnl_stream_wait(p->stream);
}
#else
struct packed;

static inline void packed_threads(int threads)
{
	(void)threads;
}

static inline const char *packed_describe(char *buffer, size_t bytes)
{
	snprintf(buffer, bytes, "no oneDNN");
	return buffer;
}

static inline void packed_close(struct packed *p)
{
	(void)p;
}

static inline struct packed *packed_open(const struct packed_shape *s, void *a, void *b,
					 size_t ldb, void *c)
{
	(void)s, (void)a, (void)b, (void)ldb, (void)c;
	return NULL;
}

static inline void packed_run(struct packed *p)
{
	(void)p;
}
#endif
#endif
