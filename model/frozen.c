/*
 * The frozen weights of a stage: which of them are used where they are mapped, and how the others are converted or
 * packed into memory of the stage's own. One visit of all tensors counts, places and fills.
 */
#include <stdlib.h>

#include "model/stage.h"

/* A stage's way through the files: visits each of its tensors once, to count, to place or to fill. */
struct visit {
	struct stage *stage;
	const struct weights *weights;
	struct slab *slab;	/* null while filling */
	bool host_memory;
	float *buffer;		/* while filling: room for the widest row, for every thread */
	size_t buffer_elements;
};
/* So many bytes of a file are resident behind what is being converted, in so many pieces. */
#define FORGET_BYTES ((size_t)16 << 20)
#define FILL_PIECES 64

/* Mapped memory can be used as it lies. */
static bool usable_in_place(const struct visit *visit, const struct safetensor *tensor,
			    enum dtype dtype)
{
	return visit->host_memory &&
	       (!tensor || (tensor->dtype == dtype &&
			    (uintptr_t)tensor->data % dtype_bytes(dtype) == 0));
}

/* Rows of a matrix from a tensor's numbers, in pieces that threads share. */
struct filling {
	const struct visit *visit;
	struct matrix to;
	const struct safetensor *tensor;
	int step;	/* rows of a piece */
};

static void fill_row(const struct visit *visit, struct matrix row, const void *from,
		     enum dtype dtype, float *buffer)
{
	struct device *dev = visit->stage->dev;
	size_t count = (size_t)row.cols;
	uint16_t *half = (uint16_t *)buffer;

	if (dtype == row.dtype) {
		dev->upload(dev, row.data, from, count * dtype_bytes(dtype));
		return;
	}
	convert_to_f32(buffer, from, dtype, count);
	for (size_t j = 0; row.dtype == DTYPE_BF16 && j < count; j++)
		half[j] = bf16_of(buffer[j]);
	dev->upload(dev, row.data, buffer, count * dtype_bytes(row.dtype));
}

static void fill_piece(void *arg, int index, int thread)
{
	const struct filling *f = arg;
	const struct visit *visit = f->visit;
	size_t bytes = (size_t)f->to.cols * dtype_bytes(f->tensor->dtype);
	float *buffer = visit->buffer + (size_t)thread * visit->buffer_elements;
	int end = (index + 1) * f->step < f->to.rows ? (index + 1) * f->step : f->to.rows;

	for (int i = index * f->step; i < end; i++)
		fill_row(visit, matrix_rows(f->to, i, 1),
			 (const char *)f->tensor->data + (size_t)i * bytes, f->tensor->dtype,
			 buffer);
}

/* A few megabytes at a time, whose pages of the file are then given back, so that no second full copy is ever
 * resident. */
static void fill_tensor(const struct visit *visit, struct matrix to,
			const struct safetensor *tensor)
{
	size_t bytes = (size_t)to.cols * dtype_bytes(tensor->dtype);
	int most = (int)(FORGET_BYTES / bytes) + 1;

	for (int first = 0; first < to.rows; first += most) {
		int rows = to.rows - first < most ? to.rows - first : most;
		struct safetensor part = *tensor;
		struct filling f = {visit, matrix_rows(to, first, rows), &part,
				    rows / FILL_PIECES + 1};

		part.data = (const char *)tensor->data + (size_t)first * bytes;
		pool_run(visit->stage->dev->pool, (rows - 1) / f.step + 1, fill_piece, &f);
		safetensor_forget(tensor, (size_t)(first + rows) * bytes);
	}
}

static const struct safetensor *tensor_of(const struct visit *visit, enum slot slot, int block)
{
	return visit->weights ? weights_find(visit->weights, slot, block) : NULL;
}

/* What of a file is used where it lies is counted here; memory of the slab is counted by what the slab gave. */
static struct matrix use_mapped(const struct visit *visit, const struct safetensor *tensor,
				enum dtype dtype, int rows, int cols)
{
	visit->stage->bytes.weights += (size_t)rows * (size_t)cols * dtype_bytes(dtype);
	return matrix_of(dtype, tensor ? (void *)tensor->data : NULL, rows, cols);
}

/* A matrix of the file's, where that can be used as it lies, else of the stage's own. A vector is always the stage's
 * own: mapped, each would keep the pages around it. */
static void visit_tensor(const struct visit *visit, struct matrix *to, enum slot slot, int block,
			 struct matrix shape)
{
	const struct safetensor *tensor = tensor_of(visit, slot, block);
	bool mapped = shape.rows > 1 && usable_in_place(visit, tensor, shape.dtype);

	if (!visit->slab) {
		if (!mapped)
			fill_tensor(visit, *to, tensor);
		return;
	}
	*to = mapped ? use_mapped(visit, tensor, shape.dtype, shape.rows, shape.cols)
		     : take_of(visit->slab, shape.dtype, shape.rows, shape.cols);
}

/* A table that rows are read from one by one. In F32 it may stay in the file's narrower dtype, which loses nothing; in
 * BF16 it is what the head is where the two are tied, wherever the cuts are. */
static void visit_table(const struct visit *visit, struct matrix *to, enum slot slot, int rows,
			int cols)
{
	const struct safetensor *tensor = tensor_of(visit, slot, 0);
	enum dtype dtype = visit->stage->spec.dtype;
	bool readable = tensor && visit->host_memory && dtype == DTYPE_F32 &&
			tensor->dtype != DTYPE_F64 &&
			(uintptr_t)tensor->data % dtype_bytes(tensor->dtype) == 0;

	if (!readable) {
		visit_tensor(visit, to, slot, 0, matrix_of(dtype, NULL, rows, cols));
	} else if (visit->slab) {
		*to = use_mapped(visit, tensor, tensor->dtype, rows, cols);
	}
}

static size_t packed_bytes(const struct stage *stage, int inner, int cols)
{
	return stage->dev ? stage->dev->k.packed_bytes(inner, cols)
			  : kernels_cpu().packed_bytes(inner, cols);
}

/* Whether a linear's weights are packed: parts must end where the library's blocks do. */
static bool packs(const struct visit *visit, const struct linear *linear)
{
	const struct stage *stage = visit->stage;
	bool whole = linear->in % PACK_BLOCK == 0;

	if (stage->spec.dtype != DTYPE_BF16 || stage->spec.plain || !visit->host_memory)
		return false;
	for (int p = 0; p < linear->parts; p++)
		whole = whole && linear->part[p].out % PACK_BLOCK == 0;
	return whole && packed_bytes(stage, linear->in, linear->out) > 0 &&
	       packed_bytes(stage, linear->out, linear->in) > 0;
}

static struct matrix take_packed(const struct visit *visit, int inner, int cols)
{
	size_t bytes = packed_bytes(visit->stage, inner, cols);

	return (struct matrix){slab_take(visit->slab, bytes), inner, cols, 0, DTYPE_BF16};
}

static void layout_packed(const struct visit *visit, struct linear *linear)
{
	linear->forward = take_packed(visit, linear->in + linear->tail, linear->out);
	linear->backward = take_packed(visit, linear->out + linear->tail, linear->in);
	linear->forward_tail = take(visit->slab, linear->tail, linear->out);
	linear->backward_tail = take(visit->slab, linear->tail, linear->in);
}

/* Some rows of the file's matrix, as it lies where the library can read that, else in F32 in the buffer. */
static struct matrix readable_rows(struct matrix file, int first, int rows, float *buffer)
{
	struct matrix part = matrix_rows(file, first, rows);
	bool aligned = (uintptr_t)part.data % dtype_bytes(part.dtype) == 0;

	if (aligned && (part.dtype == DTYPE_F32 || part.dtype == DTYPE_BF16))
		return part;
	convert_to_f32(buffer, part.data, part.dtype, (size_t)rows * (size_t)part.cols);
	return matrix(buffer, rows, part.cols);
}

/* A part's rows of the file, for both directions: in forward they are rows of [W | B]ᵀ where the file has (in, out),
 * else columns; in backward the other way round. */
static void pack_rows(const struct visit *visit, const struct linear *linear,
		      const struct part *part, int first, struct matrix rows)
{
	struct device *dev = visit->stage->dev;

	if (linear->transposed) {
		dev->k.pack(dev, linear->forward, first, part->first, rows, false);
		dev->k.pack(dev, linear->backward, part->first, first, rows, true);
	} else {
		dev->k.pack(dev, linear->forward, 0, part->first + first, rows, true);
		dev->k.pack(dev, linear->backward, part->first + first, 0, rows, false);
	}
}

/* Straight from the mapped file, whose pages are given back behind. */
static void fill_packed(const struct visit *visit, const struct linear *linear,
			const struct part *part, const struct safetensor *tensor)
{
	int rows = linear->transposed ? linear->in : part->out;
	int cols = linear->transposed ? part->out : linear->in;
	struct matrix file = matrix_of(tensor->dtype, (void *)tensor->data, rows, cols);
	size_t row_bytes = (size_t)cols * dtype_bytes(tensor->dtype);
	int most = ((int)(FORGET_BYTES / row_bytes) / PACK_BLOCK + 1) * PACK_BLOCK;
	float *buffer = xalloc((size_t)most * (size_t)cols * sizeof(float));

	for (int first = 0; first < rows; first += most) {
		int count = rows - first < most ? rows - first : most;

		pack_rows(visit, linear, part, first, readable_rows(file, first, count, buffer));
		safetensor_forget(tensor, (size_t)(first + count) * row_bytes);
	}
	free(buffer);
}

static void visit_packed(const struct visit *visit, struct linear *linear, int block)
{
	if (visit->slab) {
		layout_packed(visit, linear);
		return;
	}
	for (int p = 0; p < linear->parts; p++)
		fill_packed(visit, linear, &linear->part[p],
			    tensor_of(visit, linear->part[p].slot, block));
}

/* w alone may be the file's: one part that is not adapted, in the dtype of the stage. */
static void visit_weight(const struct visit *visit, struct linear *linear, int block)
{
	int rows = (linear->transposed ? linear->in : linear->out) + linear->tail;
	int cols = (linear->transposed ? linear->out : linear->in) + linear->tail;
	enum dtype dtype = visit->stage->spec.dtype;

	if (packs(visit, linear)) {
		visit_packed(visit, linear, block);
		return;
	}
	if (linear->parts == 1 && linear->tail == 0) {
		visit_tensor(visit, &linear->w, linear->part[0].slot, block,
			     matrix_of(dtype, NULL, rows, cols));
		return;
	}
	if (visit->slab) {
		linear->w = take_of(visit->slab, dtype, rows, cols);
		return;
	}
	for (int p = 0; p < linear->parts; p++) {
		const struct part *part = &linear->part[p];

		fill_tensor(visit, linear_weight(linear, part->first, part->out, 0, linear->in),
			    tensor_of(visit, part->slot, block));
	}
}

/* The biases of all parts are one row; SLOT_X_BIAS follows SLOT_X. */
static void visit_bias(const struct visit *visit, struct linear *linear, int block)
{
	const struct model_config *config = visit->stage->config;

	if (!model_row(config, linear->part[0].slot + 1))
		return;
	if (visit->slab) {
		linear->bias = take(visit->slab, 1, linear->out);
		return;
	}
	for (int p = 0; p < linear->parts; p++)
		fill_tensor(visit,
			    matrix_cols(linear->bias, linear->part[p].first, linear->part[p].out),
			    tensor_of(visit, linear->part[p].slot + 1, block));
}

static void visit_block(const struct visit *visit, int i)
{
	const struct model_config *config = visit->stage->config;
	struct block *block = &visit->stage->block[i];
	int number = visit->stage->spec.first_block + i;

	for (enum slot slot = SLOT_NORM1; slot < SLOTS; slot++) {
		const struct tensor_row *row = model_row(config, slot);
		struct matrix *vector = block_vector(block, slot);

		if (row && vector)
			visit_tensor(visit, vector, slot, number,
				     matrix(NULL, 1, dim_size(config, row->rows)));
	}
	for (enum block_linear l = 0; l < BLOCK_LINEARS; l++) {
		visit_weight(visit, block_linear(block, l), number);
		visit_bias(visit, block_linear(block, l), number);
	}
}

static void visit_head(const struct visit *visit)
{
	struct stage *stage = visit->stage;
	const struct model_config *config = stage->config;
	struct head *head = &stage->head;
	enum dtype dtype = stage->spec.dtype;
	int C = config->width;

	visit_tensor(visit, &head->norm, SLOT_FINAL_NORM, 0, matrix(NULL, 1, C));
	if (model_row(config, SLOT_FINAL_NORM_BIAS))
		visit_tensor(visit, &head->norm_bias, SLOT_FINAL_NORM_BIAS, 0, matrix(NULL, 1, C));
	if (stage->spec.embedding && config->tied && stage->tokens.dtype == dtype)
		head->w = stage->tokens;
	else
		visit_tensor(visit, &head->w, SLOT_HEAD, 0,
			     matrix_of(dtype, NULL, config->vocabulary, C));
}

static void visit_ends(const struct visit *visit)
{
	struct stage *stage = visit->stage;
	const struct model_config *config = stage->config;
	const struct stage_spec *spec = &stage->spec;
	int C = config->width, V = config->vocabulary;

	if (spec->embedding) {
		visit_table(visit, &stage->tokens, SLOT_EMBED, V, C);
		if (model_row(config, SLOT_POSITIONS))
			visit_tensor(visit, &stage->positions, SLOT_POSITIONS, 0,
				     matrix(NULL, spec->tokens, C));
	}
	if (spec->head)
		visit_head(visit);
}

static void visit_weights(const struct visit *visit)
{
	for (int i = 0; i < visit->stage->spec.blocks; i++)
		visit_block(visit, i);
	visit_ends(visit);
}

void frozen_layout(struct stage *stage, const struct weights *weights, struct slab *slab,
		   bool host_memory)
{
	struct visit visit = {stage, weights, slab, host_memory, NULL, 0};
	size_t used = slab->used;

	visit_weights(&visit);
	stage->bytes.weights += slab->used - used;
}

/* The widest row of any tensor that is loaded. */
static size_t widest_row(const struct model_config *config)
{
	size_t most = 0;

	for (const struct tensor_row *row = config->family->row; row->name; row++) {
		int rows = dim_size(config, row->rows), cols = dim_size(config, row->cols);
		size_t width = (size_t)(row->cols == DIM_NONE ? rows : cols);

		most = width > most ? width : most;
	}
	return most;
}

void frozen_load(struct stage *stage, const struct weights *weights)
{
	size_t widest = widest_row(stage->config), threads = (size_t)pool_threads(stage->dev->pool);
	struct visit visit = {stage, weights, NULL, stage->dev->host_memory, NULL, widest};

	visit.buffer = xalloc(threads * widest * sizeof(float));
	visit_weights(&visit);
	free(visit.buffer);
	/* Reading a page brings its neighbours along: all go, and what is used where it lies comes back. */
	weights_forget(weights);
}
