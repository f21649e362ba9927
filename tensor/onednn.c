/*
 * oneDNN on one thread each: the engine, sgemm, and what the library says of this CPU. The pool
 * of the device cuts the products.
 *
 * oneDNN's own threads stay out: where it was built on OpenMP, the calling thread's team is set
 * to one, which is a setting of each thread.
 */
#include "tensor/onednn.h"

#ifdef EDGEPIPE_ONEDNN

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "tensor/onednn_internal.h"

struct onednn *onednn_open(int threads)
{
	struct onednn *onednn = xzalloc(1, sizeof *onednn);

	own_threads(1);
	onednn->threads = threads;
	onednn->worker = xzalloc((size_t)threads, sizeof *onednn->worker);
	if (dnnl_engine_create(&onednn->engine, dnnl_cpu, 0) != dnnl_success)
		goto fail;
	for (int i = 0; i < threads; i++)
		if (dnnl_stream_create(&onednn->worker[i].stream, onednn->engine,
				       dnnl_stream_default_flags) != dnnl_success)
			goto fail;
	return onednn;
fail:
	onednn_close(onednn);
	return NULL;
}

void onednn_close(struct onednn *onednn)
{
	if (!onednn)
		return;
	onednn_products_close(onednn);
	onednn_packings_close(onednn);
	for (int i = 0; i < onednn->threads; i++)
		dnnl_stream_destroy(onednn->worker[i].stream);
	dnnl_engine_destroy(onednn->engine);
	free(onednn->scratch);
	free(onednn->worker);
	free(onednn);
}

static bool isa_has(dnnl_cpu_isa_t wanted)
{
	return ((unsigned)dnnl_get_effective_cpu_isa() & (unsigned)wanted) == (unsigned)wanted;
}

bool onednn_has_avx512(void)
{
	return isa_has(dnnl_cpu_isa_avx512_core);
}

bool onednn_has_bf16(void)
{
	return isa_has(dnnl_cpu_isa_avx512_core_bf16);
}

const char *onednn_describe(char *buffer, size_t bytes)
{
	const dnnl_version_t *v = dnnl_version();
	const char *isa = isa_has(dnnl_cpu_isa_avx512_core_amx) ? " AMX"
			  : onednn_has_bf16()			? " AVX-512 BF16"
			  : onednn_has_avx512()			? " AVX-512"
								: "";

	snprintf(buffer, bytes, "oneDNN %d.%d.%d%s", v->major, v->minor, v->patch, isa);
	return buffer;
}

void onednn_sgemm(struct onednn *onednn, int thread, const struct sgemm *g)
{
	make_ready(&onednn->worker[thread]);
	dnnl_sgemm(g->a_t ? 'T' : 'N', g->b_t ? 'T' : 'N', g->rows, g->cols, g->inner, g->alpha,
		   g->a, (dnnl_dim_t)g->lda, g->b, (dnnl_dim_t)g->ldb, g->beta, g->c,
		   (dnnl_dim_t)g->ldc);
}

/* -- first calls --------------------------------------------------------------------------- */

enum { WARM = 16 };

struct warming {
	struct onednn *onednn;
	struct onednn_product *product;
	atomic_int here;
};

/* A worker takes one of these, since all wait for all. */
static void warm_worker(void *arg, int index, int thread)
{
	struct warming *w = arg;
	float a[WARM * WARM] = {0}, b[WARM * WARM] = {0}, c[WARM * WARM];
	struct sgemm g = {.rows = WARM, .cols = WARM, .inner = WARM, .alpha = 1, .a = a, .b = b,
			  .c = c, .lda = WARM, .ldb = WARM, .ldc = WARM};

	(void)index;
	atomic_fetch_add(&w->here, 1);
	while (atomic_load(&w->here) < w->onednn->threads)
		sched_yield();
	onednn_sgemm(w->onednn, thread, &g);
	if (w->product)
		onednn_run(w->onednn, w->product, thread, c, a, b, NULL);
}

int onednn_warm(struct onednn *onednn, struct pool *pool)
{
	struct onednn_shape shape = {.rows = WARM, .cols = WARM, .inner = WARM, .lda = WARM,
				     .ldb = WARM, .ldc = WARM, .out = DTYPE_F32};
	struct warming w = {.onednn = onednn};

	if (onednn_has_bf16() && !(w.product = onednn_product(onednn, &shape)))
		return -1;
	pool_run(pool, onednn->threads, warm_worker, &w);
	return 0;
}

#endif
