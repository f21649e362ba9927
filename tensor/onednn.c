/*
 * oneDNN's matmul primitive and sgemm, one thread each: the pool of the device cuts the
 * products.
 *
 * A primitive is compiled for its shape when it is first asked for; what it needs to run
 * (memory objects, a stream, scratch memory) exists once for every thread of the pool. oneDNN's
 * own threads stay out: where it was built on OpenMP, the calling thread's team is set to one,
 * which is a setting of each thread.
 */
#include "tensor/onednn.h"

#ifdef EDGEPIPE_ONEDNN

#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PRODUCTS_MOST 1024
#define LAYOUTS_MOST 256
#define PACKINGS_MOST 16
/* A layout is asked for with so many rows. */
#define LAYOUT_ROWS 128

struct desc {
	dnnl_memory_desc_t md;
};

/* One run of a product by one thread. */
struct bound {
	dnnl_memory_t src, weights, bias, dst, scratch;
};

struct onednn_product {
	struct onednn_shape shape;
	dnnl_primitive_t primitive;
	struct bound *bound; /* threads */
	/* Rows that lie apart are copied together in the scratch memory where only so the library has
	 * a fast product: from a (at src_at), to c (at dst_at). */
	bool dense_src, dense_dst;
	size_t src_at, dst_at;
};

struct onednn_layout {
	int inner, cols;
	struct desc desc;
};

struct onednn_packing {
	const struct onednn_layout *layout;
	size_t ld;
	bool part_t;
	dnnl_primitive_t reorder;
	dnnl_memory_t from, to;
};

struct worker {
	dnnl_stream_t stream;
	bool ready;
};

struct onednn {
	dnnl_engine_t engine;
	int threads;
	struct worker *worker;
	void *scratch; /* threads times scratch_bytes */
	size_t scratch_bytes;
	struct onednn_product *product[PRODUCTS_MOST];
	int products;
	struct onednn_layout *layout[LAYOUTS_MOST];
	int layouts;
	struct onednn_packing *packing[PACKINGS_MOST];
	int packings;
};

/* -- what differs between the API's versions ----------------------------------------------- */

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t desc_arg;

static desc_arg desc_of(const struct desc *desc)
{
	return desc->md;
}

static dnnl_status_t desc_open(struct desc *desc, const dnnl_dims_t dims,
			       const dnnl_dims_t steps, dnnl_data_type_t type)
{
	return dnnl_memory_desc_create_with_strides(&desc->md, 2, dims, type, steps);
}

static dnnl_status_t desc_open_any(struct desc *desc, const dnnl_dims_t dims)
{
	return dnnl_memory_desc_create_with_tag(&desc->md, 2, dims, dnnl_bf16,
						dnnl_format_tag_any);
}

static dnnl_status_t desc_part(struct desc *desc, const struct desc *of, const dnnl_dims_t dims,
			       const dnnl_dims_t at)
{
	return dnnl_memory_desc_create_submemory(&desc->md, of->md, dims, at);
}

static dnnl_status_t desc_copy(struct desc *desc, desc_arg of)
{
	return dnnl_memory_desc_clone(&desc->md, of);
}

static void desc_close(struct desc *desc)
{
	dnnl_memory_desc_destroy(desc->md);
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
	return dnnl_post_ops_append_sum(ops, 1, 0, dnnl_data_type_undef);
}

static dnnl_status_t describe_matmul(dnnl_primitive_desc_t *pd, dnnl_engine_t engine,
				     const struct desc *src, const struct desc *weights,
				     const struct desc *bias, const struct desc *dst,
				     dnnl_primitive_attr_t attr)
{
	return dnnl_matmul_primitive_desc_create(pd, engine, src->md, weights->md,
						 bias ? bias->md : NULL, dst->md, attr);
}
#else
typedef const dnnl_memory_desc_t *desc_arg;

static desc_arg desc_of(const struct desc *desc)
{
	return &desc->md;
}

static dnnl_status_t desc_open(struct desc *desc, const dnnl_dims_t dims,
			       const dnnl_dims_t steps, dnnl_data_type_t type)
{
	return dnnl_memory_desc_init_by_strides(&desc->md, 2, dims, type, steps);
}

static dnnl_status_t desc_open_any(struct desc *desc, const dnnl_dims_t dims)
{
	return dnnl_memory_desc_init_by_tag(&desc->md, 2, dims, dnnl_bf16, dnnl_format_tag_any);
}

static dnnl_status_t desc_part(struct desc *desc, const struct desc *of, const dnnl_dims_t dims,
			       const dnnl_dims_t at)
{
	return dnnl_memory_desc_init_submemory(&desc->md, &of->md, dims, at);
}

static dnnl_status_t desc_copy(struct desc *desc, desc_arg of)
{
	desc->md = *of;
	return dnnl_success;
}

static void desc_close(struct desc *desc)
{
	(void)desc;
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
	return dnnl_post_ops_append_sum(ops, 1);
}

static dnnl_status_t describe_matmul(dnnl_primitive_desc_t *pd, dnnl_engine_t engine,
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

/* -- one thread each ------------------------------------------------------------------------
 */

/* The calling thread's OpenMP team is itself; nothing to do where oneDNN was built on something
 * else. */
static void own_team(void)
{
	void (*set)(int) = NULL;
	void *symbol = dlsym(RTLD_DEFAULT, "omp_set_num_threads");

	memcpy(&set, &symbol, sizeof set);
	if (set)
		set(1);
}

struct onednn *onednn_open(int threads)
{
	struct onednn *onednn = xzalloc(1, sizeof *onednn);

	own_team();
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

static void product_close(struct onednn_product *product, int threads)
{
	if (!product)
		return;
	for (int i = 0; product->bound && i < threads; i++) {
		struct bound *b = &product->bound[i];

		dnnl_memory_destroy(b->src);
		dnnl_memory_destroy(b->weights);
		dnnl_memory_destroy(b->bias);
		dnnl_memory_destroy(b->dst);
		dnnl_memory_destroy(b->scratch);
	}
	dnnl_primitive_destroy(product->primitive);
	free(product->bound);
	free(product);
}

static void packing_close(struct onednn_packing *packing)
{
	dnnl_primitive_destroy(packing->reorder);
	dnnl_memory_destroy(packing->from);
	dnnl_memory_destroy(packing->to);
	free(packing);
}

void onednn_close(struct onednn *onednn)
{
	if (!onednn)
		return;
	for (int i = 0; i < onednn->products; i++)
		product_close(onednn->product[i], onednn->threads);
	for (int i = 0; i < onednn->packings; i++)
		packing_close(onednn->packing[i]);
	for (int i = 0; i < onednn->layouts; i++) {
		desc_close(&onednn->layout[i]->desc);
		free(onednn->layout[i]);
	}
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

/* On the worker's first call. */
static void make_ready(struct worker *worker)
{
	if (!worker->ready)
		own_team();
	worker->ready = true;
}

void onednn_sgemm(struct onednn *onednn, int thread, const struct sgemm *g)
{
	make_ready(&onednn->worker[thread]);
	dnnl_sgemm(g->a_t ? 'T' : 'N', g->b_t ? 'T' : 'N', g->rows, g->cols, g->inner, g->alpha,
		   g->a, (dnnl_dim_t)g->lda, g->b, (dnnl_dim_t)g->ldb, g->beta, g->c,
		   (dnnl_dim_t)g->ldc);
}

/* -- products ------------------------------------------------------------------------------ */

struct descs {
	struct desc src, weights, bias, dst;
	int open; /* how many of them, in this order */
};

static void descs_close(struct descs *d)
{
	struct desc *all[] = {&d->src, &d->weights, &d->dst, &d->bias};

	while (d->open > 0)
		desc_close(all[--d->open]);
}

static bool descs_open(struct descs *d, const struct onednn_product *product)
{
	const struct onednn_shape *s = &product->shape;
	const dnnl_dim_t step = 1, m = s->rows, n = s->cols, k = s->inner;
	const dnnl_dim_t lda = product->dense_src ? k : (dnnl_dim_t)s->lda,
			 ldb = (dnnl_dim_t)s->ldb,
			 ldc = product->dense_dst ? n : (dnnl_dim_t)s->ldc;
	const struct {
		struct desc *desc;
		dnnl_dims_t dims, steps;
		dnnl_data_type_t type;
	} all[] = {
	    {&d->src, {m, k}, {lda, step}, dnnl_bf16},
	    {&d->weights, {k, n}, {s->b_t ? step : ldb, s->b_t ? ldb : step}, dnnl_bf16},
	    {&d->dst, {m, n}, {ldc, step}, s->out == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32},
	    {&d->bias, {1, n}, {n, step}, dnnl_f32},
	};

	for (d->open = 0; d->open < 3 + s->bias; d->open++)
		if (s->layout && all[d->open].desc == &d->weights) {
			if (desc_copy(&d->weights, desc_of(&s->layout->desc)) != dnnl_success)
				return false;
		} else if (desc_open(all[d->open].desc, all[d->open].dims, all[d->open].steps,
				     all[d->open].type) != dnnl_success)
			return false;
	return true;
}

/* Scratch memory is ours, and c may be added to. */
static dnnl_status_t attributes(dnnl_primitive_attr_t *attr, bool add)
{
	dnnl_post_ops_t ops = NULL;
	dnnl_status_t status = dnnl_primitive_attr_create(attr);

	if (status == dnnl_success)
		status =
		    dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
	if (status != dnnl_success || !add)
		return status;
	status = dnnl_post_ops_create(&ops);
	if (status == dnnl_success)
		status = append_sum(ops);
	if (status == dnnl_success)
		status = dnnl_primitive_attr_set_post_ops(*attr, ops);
	dnnl_post_ops_destroy(ops);
	return status;
}

static size_t slab_round(size_t bytes)
{
	return (bytes + SLAB_ALIGN - 1) / SLAB_ALIGN * SLAB_ALIGN;
}

/* All threads' scratch memory is enlarged to what a primitive needs; nobody runs now. */
static int grow_scratch(struct onednn *onednn, size_t bytes)
{
	void *memory;

	bytes = slab_round(bytes);
	if (bytes <= onednn->scratch_bytes)
		return 0;
	if (posix_memalign(&memory, SLAB_ALIGN, bytes * (size_t)onednn->threads))
		return -1;
	free(onednn->scratch);
	onednn->scratch = memory;
	onednn->scratch_bytes = bytes;
	return 0;
}

/* Copies of rows lie behind the library's own scratch memory. Returns the bytes of all. */
static size_t place_copies(struct onednn_product *product, desc_arg scratch)
{
	const struct onednn_shape *s = &product->shape;
	size_t rows = (size_t)s->rows, bytes = dnnl_memory_desc_get_size(scratch);

	product->src_at = slab_round(bytes);
	bytes = product->src_at +
		(product->dense_src ? rows * (size_t)s->inner * sizeof(uint16_t) : 0);
	product->dst_at = slab_round(bytes);
	return product->dst_at +
	       (product->dense_dst ? rows * (size_t)s->cols * dtype_bytes(s->out) : 0);
}

static bool bind_threads(struct onednn *onednn, struct onednn_product *product,
			 const struct descs *d, desc_arg scratch)
{
	product->bound = xzalloc((size_t)onednn->threads, sizeof *product->bound);
	for (int i = 0; i < onednn->threads; i++) {
		struct bound *b = &product->bound[i];
		const struct {
			dnnl_memory_t *memory;
			desc_arg desc;
		} all[] = {{&b->src, desc_of(&d->src)},
			   {&b->weights, desc_of(&d->weights)},
			   {&b->dst, desc_of(&d->dst)},
			   {&b->scratch, scratch},
			   {&b->bias, desc_of(&d->bias)}};

		for (int j = 0; j < 4 + product->shape.bias; j++)
			if (dnnl_memory_create(all[j].memory, all[j].desc, onednn->engine,
					       DNNL_MEMORY_NONE) != dnnl_success)
				return false;
	}
	return true;
}

/* The library would compute it number by number, a thousand times slower than its kernels. */
static bool is_slow(dnnl_primitive_desc_t pd)
{
	const char *name = "";

	return dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) ==
		   dnnl_success &&
	       strncmp(name, "ref", 3) == 0;
}

/* Compiles the product; with *slow, false is no failure. */
static bool compile(struct onednn *onednn, struct onednn_product *product, bool *slow)
{
	const struct onednn_shape *s = &product->shape;
	struct descs d = {0};
	dnnl_primitive_attr_t attr = NULL;
	dnnl_primitive_desc_t pd = NULL;
	bool done = false;

	own_team();
	if (descs_open(&d, product) && attributes(&attr, s->add) == dnnl_success &&
	    describe_matmul(&pd, onednn->engine, &d.src, &d.weights, s->bias ? &d.bias : NULL,
			    &d.dst, attr) == dnnl_success &&
	    !(*slow = is_slow(pd)) &&
	    dnnl_primitive_create(&product->primitive, pd) == dnnl_success) {
		desc_arg scratch =
		    dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);

		done = grow_scratch(onednn, place_copies(product, scratch)) == 0 &&
		       bind_threads(onednn, product, &d, scratch);
	}
	dnnl_primitive_desc_destroy(pd);
	dnnl_primitive_attr_destroy(attr);
	descs_close(&d);
	return done;
}

/* Where it lies if that is fast, else with rows copied together. */
static struct onednn_product *product_open(struct onednn *onednn,
					   const struct onednn_shape *shape)
{
	struct onednn_product *product = xzalloc(1, sizeof *product);
	bool slow = false;

	product->shape = *shape;
	if (compile(onednn, product, &slow))
		return product;
	product->dense_src = shape->lda != (size_t)shape->inner;
	product->dense_dst = shape->ldc != (size_t)shape->cols;
	if (slow && compile(onednn, product, &slow))
		return product;
	product_close(product, onednn->threads);
	return error_null(EXIT_BUG, "oneDNN has no %sproduct (%d, %d) x (%d, %d) in bf16",
			  slow ? "fast " : "", shape->rows, shape->inner, shape->inner,
			  shape->cols);
}

static bool same_shape(const struct onednn_shape *a, const struct onednn_shape *b)
{
	return a->rows == b->rows && a->cols == b->cols && a->inner == b->inner &&
	       a->lda == b->lda && a->ldb == b->ldb && a->ldc == b->ldc && a->b_t == b->b_t &&
	       a->bias == b->bias && a->add == b->add && a->out == b->out &&
	       a->layout == b->layout;
}

struct onednn_product *onednn_product(struct onednn *onednn, const struct onednn_shape *shape)
{
	for (int i = 0; i < onednn->products; i++)
		if (same_shape(&onednn->product[i]->shape, shape))
			return onednn->product[i];
	if (onednn->products == PRODUCTS_MOST)
		return error_null(EXIT_BUG, "more than %d shapes of products", PRODUCTS_MOST);
	struct onednn_product *product = product_open(onednn, shape);

	if (product)
		onednn->product[onednn->products++] = product;
	return product;
}

/* -- packed weights ------------------------------------------------------------------------ */

/* No layout pads further. */
static size_t rounded(int size)
{
	return ((size_t)size + PACK_BLOCK - 1) / PACK_BLOCK * PACK_BLOCK;
}

size_t onednn_packed_bytes(int inner, int cols)
{
	return rounded(inner) * rounded(cols) * sizeof(uint16_t);
}

/* Asks a product of LAYOUT_ROWS rows for the layout that it would choose. */
static bool choose_layout(struct onednn *onednn, struct onednn_layout *layout)
{
	const dnnl_dim_t m = LAYOUT_ROWS, k = layout->inner, n = layout->cols;
	const dnnl_dims_t src_dims = {m, k}, src_steps = {k, 1}, dims = {k, n};
	const dnnl_dims_t dst_dims = {m, n}, dst_steps = {n, 1};
	struct desc src = {0}, weights = {0}, dst = {0};
	dnnl_primitive_desc_t pd = NULL;
	bool done = false;

	own_team();
	if (desc_open(&src, src_dims, src_steps, dnnl_bf16) == dnnl_success &&
	    desc_open_any(&weights, dims) == dnnl_success &&
	    desc_open(&dst, dst_dims, dst_steps, dnnl_bf16) == dnnl_success &&
	    describe_matmul(&pd, onednn->engine, &src, &weights, NULL, &dst, NULL) ==
		dnnl_success) {
		desc_arg chosen = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);

		done = dnnl_memory_desc_get_size(chosen) <=
			   onednn_packed_bytes(layout->inner, layout->cols) &&
		       desc_copy(&layout->desc, chosen) == dnnl_success;
	}
	dnnl_primitive_desc_destroy(pd);
	desc_close(&src);
	desc_close(&weights);
	desc_close(&dst);
	return done;
}

struct onednn_layout *onednn_layout(struct onednn *onednn, int inner, int cols)
{
	for (int i = 0; i < onednn->layouts; i++)
		if (onednn->layout[i]->inner == inner && onednn->layout[i]->cols == cols)
			return onednn->layout[i];
	if (onednn->layouts == LAYOUTS_MOST)
		return error_null(EXIT_BUG, "more than %d sizes of weights", LAYOUTS_MOST);
	struct onednn_layout *layout = xzalloc(1, sizeof *layout);

	layout->inner = inner;
	layout->cols = cols;
	if (choose_layout(onednn, layout))
		return onednn->layout[onednn->layouts++] = layout;
	free(layout);
	return error_null(EXIT_BUG, "oneDNN has no layout for weights (%d, %d) in bf16", inner,
			  cols);
}

int onednn_pack(struct onednn *onednn, const struct onednn_layout *layout, void *packed,
		int row, int col, struct matrix part, bool part_t)
{
	const dnnl_dim_t ld = (dnnl_dim_t)part.ld, step = 1;
	const dnnl_dims_t dims = {part_t ? part.cols : part.rows,
				  part_t ? part.rows : part.cols};
	const dnnl_dims_t steps = {part_t ? step : ld, part_t ? ld : step}, at = {row, col};
	struct desc from = {0}, to = {0};
	dnnl_memory_t source = NULL, place = NULL;
	dnnl_primitive_desc_t pd = NULL;
	dnnl_primitive_t reorder = NULL;
	bool done = false;

	own_team();
	if (desc_open(&from, dims, steps, part.dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32) ==
		dnnl_success &&
	    desc_part(&to, &layout->desc, dims, at) == dnnl_success &&
	    dnnl_memory_create(&source, desc_of(&from), onednn->engine, part.data) ==
		dnnl_success &&
	    dnnl_memory_create(&place, desc_of(&to), onednn->engine, packed) == dnnl_success &&
	    dnnl_reorder_primitive_desc_create(&pd, desc_of(&from), onednn->engine,
					       desc_of(&to), onednn->engine,
					       NULL) == dnnl_success &&
	    dnnl_primitive_create(&reorder, pd) == dnnl_success) {
		dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, place}};

		done = dnnl_primitive_execute(reorder, onednn->worker[0].stream, 2, args) ==
		       dnnl_success;
	}
	dnnl_primitive_destroy(reorder);
	dnnl_primitive_desc_destroy(pd);
	dnnl_memory_destroy(source);
	dnnl_memory_destroy(place);
	desc_close(&from);
	desc_close(&to);
	return done ? 0
		    : error(EXIT_BUG, "oneDNN cannot pack (%d, %d) at (%d, %d) of (%d, %d)",
			    part.rows, part.cols, row, col, layout->inner, layout->cols);
}

static void copy_rows(char *to, size_t to_step, const char *from, size_t from_step,
		      size_t bytes, int rows)
{
	for (size_t i = 0; i < (size_t)rows; i++)
		memcpy(to + i * to_step, from + i * from_step, bytes);
}

static bool packing_open(struct onednn *onednn, struct onednn_packing *packing)
{
	const struct onednn_layout *layout = packing->layout;
	const dnnl_dim_t ld = (dnnl_dim_t)packing->ld, step = 1;
	const dnnl_dims_t dims = {layout->inner, layout->cols};
	const dnnl_dims_t steps = {packing->part_t ? step : ld, packing->part_t ? ld : step};
	struct desc from = {0};
	dnnl_primitive_desc_t pd = NULL;
	desc_arg to = desc_of(&layout->desc);
	bool done = false;

	own_team();
	if (desc_open(&from, dims, steps, dnnl_bf16) == dnnl_success &&
	    dnnl_memory_create(&packing->from, desc_of(&from), onednn->engine,
			       DNNL_MEMORY_NONE) == dnnl_success &&
	    dnnl_memory_create(&packing->to, to, onednn->engine, DNNL_MEMORY_NONE) ==
		dnnl_success &&
	    dnnl_reorder_primitive_desc_create(&pd, desc_of(&from), onednn->engine, to,
					       onednn->engine, NULL) == dnnl_success)
		done = dnnl_primitive_create(&packing->reorder, pd) == dnnl_success;
	dnnl_primitive_desc_destroy(pd);
	desc_close(&from);
	return done;
}

struct onednn_packing *onednn_packing(struct onednn *onednn, const struct onednn_layout *layout,
				      size_t ld, bool part_t)
{
	for (int i = 0; i < onednn->packings; i++) {
		struct onednn_packing *packing = onednn->packing[i];

		if (packing->layout == layout && packing->ld == ld && packing->part_t == part_t)
			return packing;
	}
	if (onednn->packings == PACKINGS_MOST)
		return error_null(EXIT_BUG, "more than %d ways of packing", PACKINGS_MOST);
	struct onednn_packing *packing = xzalloc(1, sizeof *packing);

	*packing = (struct onednn_packing){.layout = layout, .ld = ld, .part_t = part_t};
	if (packing_open(onednn, packing))
		return onednn->packing[onednn->packings++] = packing;
	packing_close(packing);
	return error_null(EXIT_BUG, "oneDNN cannot pack (%d, %d) in bf16", layout->inner,
			  layout->cols);
}

void onednn_packing_run(struct onednn *onednn, struct onednn_packing *packing, int thread,
			void *packed, const void *from)
{
	dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, packing->from}, {DNNL_ARG_TO, packing->to}};

	make_ready(&onednn->worker[thread]);
	dnnl_memory_set_data_handle(packing->from, (void *)from);
	dnnl_memory_set_data_handle(packing->to, packed);
	dnnl_primitive_execute(packing->reorder, onednn->worker[thread].stream, 2, args);
}

void onednn_run(
struct onednn *onednn, struct onednn_product *product, int thread, void *c,
		const void *a, const void *b, const float *bias)
{
	struct worker *worker = &onednn->worker[thread];
	struct bound *bound = &product->bound[thread];
	const struct onednn_shape *s = &product->shape;
	const size_t src_row = (size_t)s->inner * sizeof(uint16_t);
	const size_t dst_row = (size_t)s->cols * dtype_bytes(s->out);
	const size_t c_step = s->ldc * dtype_bytes(s->out);
	char *scratch = (char *)onednn->scratch + (size_t)thread * onednn->scratch_bytes;
	char *dst = scratch + product->dst_at;
	dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, bound->src},
				  {DNNL_ARG_WEIGHTS, bound->weights},
				  {DNNL_ARG_DST, bound->dst},
				  {DNNL_ARG_SCRATCHPAD, bound->scratch},
				  {DNNL_ARG_BIAS, bound->bias}};

	make_ready(worker);
	if (product->dense_src)
		copy_rows(scratch + product->src_at, src_row, a, s->lda * sizeof(uint16_t),
			  src_row, s->rows);
	if (product->dense_dst && s->add)
		copy_rows(dst, dst_row, c, c_step, dst_row, s->rows);
	dnnl_memory_set_data_handle(bound->src, product->dense_src ? scratch + product->src_at
								   : (void *)a);
	dnnl_memory_set_data_handle(bound->weights, (void *)b);
	dnnl_memory_set_data_handle(bound->dst, product->dense_dst ? dst : c);
	dnnl_memory_set_data_handle(bound->scratch, scratch);
	if (s->bias)
		dnnl_memory_set_data_handle(bound->bias, (void *)bias);
	dnnl_primitive_execute(product->primitive, worker->stream, 4 + s->bias, args);
	if (product->dense_dst)
		copy_rows(c, c_step, dst, dst_row, dst_row, s->rows);
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

#else /* built without oneDNN
: BF16 and its sgemm are never chosen */

struct onednn *onednn_open(int threads)
{
	(void)threads;
	return NULL;
}

int onednn_warm(struct onednn *onednn, struct pool *pool)
{
	(void)onednn, (void)pool;
	return 0;
}

void onednn_close(struct onednn *onednn)
{
	(void)onednn;
}

bool onednn_has_avx512(void)
{
	return false;
}

bool onednn_has_bf16(void)
{
	return false;
}

const char *onednn_describe(char *buffer, size_t bytes)
{
	snprintf(buffer, bytes, "%s", "");
	return buffer;
}

void onednn_sgemm(struct onednn *onednn, int thread, const struct sgemm *g)
{
	(void)onednn, (void)thread, (void)g;
}

struct onednn_product *onednn_product(struct onednn *onednn, const struct onednn_shape *shape)
{
	(void)onednn, (void)shape;
	return NULL;
}

struct onednn_layout *onednn_layout(struct onednn *onednn, int inner, int cols)
{
	(void)onednn, (void)inner, (void)cols;
	return NULL;
}

size_t onednn_packed_bytes(int inner, int cols)
{
	(void)inner, (void)cols;
	return 0;
}

int onednn_pack(struct onednn *onednn, const struct onednn_layout *layout, void *packed,
		int row, int col, struct matrix part, bool part_t)
{
	(void)onednn, (void)layout, (void)packed, (void)row, (void)col, (void)part,
	    (void)part_t;
	return -1;
}

struct onednn_packing *onednn_packing(struct onednn *onednn, const struct onednn_layout *layout,
				      size_t ld, bool part_t)
{
	(void)onednn, (void)layout, (void)ld, (void)part_t;
	return NULL;
}

void onednn_packing_run(struct onednn *onednn, struct onednn_packing *packing, int thread,
			void *packed, const void *from)
{
	(void)onednn, (void)packing, (void)thread, (void)packed, (void)from;
}

void onednn_run(struct onednn *onednn, struct onednn_product *product, int thread, void *c,
		const void *a, const void *b, const float *bias)
{
	(void)onednn, (void)product, (void)thread, (void)c, (void)a, (void)b, (void)bias;
}

#endif
