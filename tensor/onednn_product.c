/*
 * oneDNN's matmul primitive for products of BF16. One is compiled for its shape when it is
 * first asked for; what it needs to run (memory objects, scratch memory) exists once for every
 * thread of the pool.
 */
#include "tensor/onednn.h"

#ifdef EDGEPIPE_ONEDNN

#include <stdlib.h>

#include "tensor/onednn_internal.h"

/* One run of a product by one thread. */
struct bound {
	dnnl_memory_t src, weights, bias, dst, scratch;
};

struct onednn_product {
	struct onednn_shape shape;
	dnnl_primitive_t primitive;
	struct bound *bound; /* threads */
	/* Rows that lie apart are copied together in the scratch memory where only so the
	 * library has a fast product: from a (at src_at), to c (at dst_at). */
	bool dense_src, dense_dst;
	size_t src_at, dst_at;
};

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

void onednn_products_close(struct onednn *onednn)
{
	for (int i = 0; i < onednn->products; i++)
		product_close(onednn->product[i], onednn->threads);
}

/* -- compiling ----------------------------------------------------------------------------- */

struct descs {
	struct desc src, weights, dst, bias;
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
	const int m = s->rows, n = s->cols, k = s->inner;
	const struct {
		struct desc *desc;
		int rows, cols;
		size_t ld;
		bool turned;
		enum dtype dtype;
	} all[] = {
	    {&d->src, m, k, product->dense_src ? (size_t)k : s->lda, false, DTYPE_BF16},
	    {&d->weights, k, n, s->ldb, s->b_t, DTYPE_BF16},
	    {&d->dst, m, n, product->dense_dst ? (size_t)n : s->ldc, false, s->out},
	    {&d->bias, 1, n, (size_t)n, false, DTYPE_F32},
	};

	for (d->open = 0; d->open < 3 + s->bias; d->open++) {
		int i = d->open;
		dnnl_status_t status = s->layout && all[i].desc == &d->weights
					   ? desc_copy(&d->weights, desc_of(&s->layout->desc))
					   : desc_open(all[i].desc, all[i].rows, all[i].cols,
						       all[i].ld, all[i].turned, all[i].dtype);

		if (status != dnnl_success)
			return false;
	}
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

	own_threads(1);
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

/* -- running ------------------------------------------------------------------------------- */

static void copy_rows(char *to, size_t to_step, const char *from, size_t from_step,
		      size_t bytes, int rows)
{
	for (size_t i = 0; i < (size_t)rows; i++)
		memcpy(to + i * to_step, from + i * from_step, bytes);
}

void onednn_run(struct onednn *onednn, struct onednn_product *product, int thread, void *c,
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
	dnnl_memory_set_data_handle(bound->src,
				    product->dense_src ? scratch + product->src_at : (void *)a);
	dnnl_memory_set_data_handle(bound->weights, (void *)b);
	dnnl_memory_set_data_handle(bound->dst, product->dense_dst ? dst : c);
	dnnl_memory_set_data_handle(bound->scratch, scratch);
	if (s->bias)
		dnnl_memory_set_data_handle(bound->bias, (void *)bias);
	dnnl_primitive_execute(product->primitive, worker->stream, 4 + s->bias, args);
	if (product->dense_dst)
		copy_rows(c, c_step, dst, dst_row, dst_row, s->rows);
}

#endif
