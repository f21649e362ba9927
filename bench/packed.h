/*
 * bench/packed.h - a product c = a b by oneDNN, its weights b packed as the library likes them
 * (format_tag::any), ready to be run again and again. Where oneDNN was not built in, nothing
 * opens.
 */
#ifndef EDGEPIPE_BENCH_PACKED_H
#define EDGEPIPE_BENCH_PACKED_H

#include "tensor/tensor.h"

#include <stdlib.h>

/* a (m, k), b (k, n) and c (m, n), rows of c are ldc apart; a and b are both of type `in`. */
struct packed_shape {
	int m, n, k;
	size_t ldc;
	enum dtype in, out;
};

#ifdef EDGEPIPE_ONEDNN
#include "tensor/onednn_api.h"

struct packed {
	dnnl_engine_t engine;
	dnnl_stream_t stream;
	dnnl_primitive_t primitive;
	dnnl_memory_t a, b, c;
};

/* How many of oneDNN's own threads the calling thread may use. */
static inline void packed_threads(int threads)
{
	own_threads(threads);
}

static inline const char *packed_describe(char *buffer, size_t bytes)
{
	const dnnl_version_t *v = dnnl_version();

	snprintf(buffer, bytes, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
	return buffer;
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
static inline bool packed_fill(struct packed *p, const struct desc *plain, void *b)
{
	dnnl_primitive_desc_t pd = NULL;
	dnnl_primitive_t reorder = NULL;
	dnnl_memory_t from = NULL;
	desc_arg to;
	bool done = false;

	if (dnnl_memory_get_memory_desc(p->b, &to) != dnnl_success)
		return false;
	if (dnnl_memory_create(&from, desc_of(plain), p->engine, b) == dnnl_success &&
	    dnnl_reorder_primitive_desc_create(&pd, desc_of(plain), p->engine, to,
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
	struct packed *p = xzalloc(1, sizeof *p);
	struct desc a_desc = {0}, any = {0}, plain = {0}, c_desc = {0};
	dnnl_primitive_desc_t pd = NULL;
	bool done = false;

	if (dnnl_engine_create(&p->engine, dnnl_cpu, 0) == dnnl_success &&
	    dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags) ==
		dnnl_success &&
	    desc_open(&a_desc, s->m, s->k, (size_t)s->k, false, s->in) == dnnl_success &&
	    desc_open_any(&any, s->k, s->n, s->in) == dnnl_success &&
	    desc_open(&plain, s->k, s->n, ldb, false, s->in) == dnnl_success &&
	    desc_open(&c_desc, s->m, s->n, s->ldc, false, s->out) == dnnl_success &&
	    describe_matmul(&pd, p->engine, &a_desc, &any, NULL, &c_desc, NULL) ==
		dnnl_success) {
		desc_arg b_desc = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);

		done = dnnl_primitive_create(&p->primitive, pd) == dnnl_success &&
		       dnnl_memory_create(&p->a, desc_of(&a_desc), p->engine, a) ==
			   dnnl_success &&
		       dnnl_memory_create(&p->b, b_desc, p->engine, DNNL_MEMORY_ALLOCATE) ==
			   dnnl_success &&
		       dnnl_memory_create(&p->c, desc_of(&c_desc), p->engine, c) ==
			   dnnl_success &&
		       packed_fill(p, &plain, b);
	}
	dnnl_primitive_desc_destroy(pd);
	desc_close(&a_desc);
	desc_close(&any);
	desc_close(&plain);
	desc_close(&c_desc);
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
