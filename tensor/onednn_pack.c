/*
 * Weights in the layout that oneDNN's products of BF16 like best: what that is, and the
 * reorders that write it, a part at a time at set-up or whole ones again and again.
 */
#include "tensor/onednn.h"

#ifdef EDGEPIPE_ONEDNN

#include <stdlib.h>

#include "tensor/onednn_internal.h"

/* A layout is asked for with so many rows. */
#define LAYOUT_ROWS 128

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
	const int m = LAYOUT_ROWS, k = layout->inner, n = layout->cols;
	struct desc src = {0}, weights = {0}, dst = {0};
	dnnl_primitive_desc_t pd = NULL;
	bool done = false;

	own_threads(1);
	if (desc_open(&src, m, k, (size_t)k, false, DTYPE_BF16) == dnnl_success &&
	    desc_open_any(&weights, k, n, DTYPE_BF16) == dnnl_success &&
	    desc_open(&dst, m, n, (size_t)n, false, DTYPE_BF16) == dnnl_success &&
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

/* -- reorders ------------------------------------------------------------------------------ */

/* Copies weights from one layout to another; where from and to is said at each run. */
struct reorder {
	dnnl_primitive_t primitive;
	dnnl_memory_t from, to;
};

static bool reorder_open(struct onednn *onednn, struct reorder *r, desc_arg from, desc_arg to)
{
	dnnl_engine_t engine = onednn->engine;
	dnnl_primitive_desc_t pd = NULL;
	bool done;

	own_threads(1);
	done = dnnl_memory_create(&r->from, from, engine, DNNL_MEMORY_NONE) == dnnl_success &&
	       dnnl_memory_create(&r->to, to, engine, DNNL_MEMORY_NONE) == dnnl_success &&
	       dnnl_reorder_primitive_desc_create(&pd, from, engine, to, engine, NULL) ==
		   dnnl_success &&
	       dnnl_primitive_create(&r->primitive, pd) == dnnl_success;
	dnnl_primitive_desc_destroy(pd);
	return done;
}

static void reorder_close(struct reorder *r)
{
	dnnl_primitive_destroy(r->primitive);
	dnnl_memory_destroy(r->from);
	dnnl_memory_destroy(r->to);
}

static bool reorder_run(const struct reorder *r, dnnl_stream_t stream, void *to,
			const void *from)
{
	dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, r->from}, {DNNL_ARG_TO, r->to}};

	return dnnl_memory_set_data_handle(r->from, (void *)from) == dnnl_success &&
	       dnnl_memory_set_data_handle(r->to, to) == dnnl_success &&
	       dnnl_primitive_execute(r->primitive, stream, 2, args) == dnnl_success;
}

int onednn_pack(struct onednn *onednn, const struct onednn_layout *layout, void *packed,
		int row, int col, struct matrix part, bool part_t)
{
	const int rows = part_t ? part.cols : part.rows, cols = part_t ? part.rows : part.cols;
	const dnnl_dims_t dims = {rows, cols}, at = {row, col};
	struct desc from = {0}, to = {0};
	struct reorder reorder = {0};
	bool done = desc_open(&from, rows, cols, part.ld, part_t, part.dtype) == dnnl_success &&
		    desc_part(&to, desc_of(&layout->desc), dims, at) == dnnl_success &&
		    reorder_open(onednn, &reorder, desc_of(&from), desc_of(&to)) &&
		    reorder_run(&reorder, onednn->worker[0].stream, packed, part.data);

	reorder_close(&reorder);
	desc_close(&from);
	desc_close(&to);
	return done ? 0
		    : error(EXIT_BUG, "oneDNN cannot pack (%d, %d) at (%d, %d) of (%d, %d)",
			    part.rows, part.cols, row, col, layout->inner, layout->cols);
}

/* -- packings of whole weights ------------------------------------------------------------- */

struct onednn_packing {
	const struct onednn_layout *layout;
	size_t ld;
	bool part_t;
	struct reorder reorder;
};

static bool packing_open(struct onednn *onednn, struct onednn_packing *packing)
{
	const struct onednn_layout *layout = packing->layout;
	struct desc from = {0};
	bool done =
	    desc_open(&from, layout->inner, layout->cols, packing->ld, packing->part_t,
		      DTYPE_BF16) == dnnl_success &&
	    reorder_open(onednn, &packing->reorder, desc_of(&from), desc_of(&layout->desc));

	desc_close(&from);
	return done;
}

static void packing_close(struct onednn_packing *packing)
{
	reorder_close(&packing->reorder);
	free(packing);
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
	struct worker *worker = &onednn->worker[thread];

	make_ready(worker);
	reorder_run(&packing->reorder, worker->stream, packed, from);
}

void onednn_packings_close(struct onednn *onednn)
{
	for (int i = 0; i < onednn->packings; i++)
		packing_close(onednn->packing[i]);
	for (int i = 0; i < onednn->layouts; i++) {
		desc_close(&onednn->layout[i]->desc);
		free(onednn->layout[i]);
	}
}

#endif
