/*
 * Where everything of a stage lies. stage_layout is the allocator and the memory estimate in one: it is run
 * once with a null base to count, and once with memory.
 */
#include <math.h>
#include <stdlib.h>

#include "model/stage.h"

/* Where a vector goes in a block. */
static struct matrix *block_vector(struct block *block, enum slot slot)
{
	switch (slot) {
	case SLOT_NORM1: return &block->norm1;
	case SLOT_NORM1_BIAS: return &block->norm1_bias;
	case SLOT_NORM2: return &block->norm2;
	case SLOT_NORM2_BIAS: return &block->norm2_bias;
	case SLOT_Q_NORM: return &block->q_norm;
	case SLOT_K_NORM: return &block->k_norm;
	default: return NULL;
	}
}

/* Which of the file's linears make one of a block's, in the order of its columns; a bias follows its linear. */
static const struct recipe {
	size_t place;
	enum slot part[PARTS];	/* ended by SLOT_EMBED, which is none */
} recipes[] = {
	{offsetof(struct block, qkv), {SLOT_QKV}},
	{offsetof(struct block, qkv), {SLOT_Q, SLOT_K, SLOT_V}},
	{offsetof(struct block, out), {SLOT_OUT}},
	{offsetof(struct block, up), {SLOT_GATE, SLOT_UP}},
	{offsetof(struct block, up), {SLOT_UP}},
	{offsetof(struct block, down), {SLOT_DOWN}},
};
enum { RECIPES = sizeof(recipes) / sizeof(*recipes) };

/* Whether the model has the linears of a recipe; of two for one place the first holds. */
static bool recipe_holds(const struct model_config *config, int r)
{
	if (!model_row(config, recipes[r].part[0]))
		return false;
	return r == 0 || recipes[r].place != recipes[r - 1].place ||
	       !recipe_holds(config, r - 1);
}

static struct linear *linear_at(struct block *block, size_t place)
{
	return (struct linear *)((char *)block + place);
}

/* The part of a block's linears that is the file's `slot`; null: there is none. */
static struct part *block_part(struct block *block, enum slot slot)
{
	for (int r = 0; r < RECIPES; r++) {
		struct linear *linear = linear_at(block, recipes[r].place);

		for (int p = 0; p < linear->parts; p++)
			if (linear->part[p].slot == slot)
				return &linear->part[p];
	}
	return NULL;
}

/* Sizes of a block's linears, from the family's table. */
static void shape_block(const struct model_config *config, struct block *block)
{
	for (int r = 0; r < RECIPES; r++) {
		struct linear *linear = linear_at(block, recipes[r].place);

		if (!recipe_holds(config, r))
			continue;
		for (int p = 0; p < PARTS && recipes[r].part[p] != SLOT_EMBED; p++) {
			const struct tensor_row *row = model_row(config, recipes[r].part[p]);
			int rows = dim_size(config, row->rows), cols = dim_size(config, row->cols);

			linear->transposed = row->transposed;
			linear->in = row->transposed ? rows : cols;
			linear->part[p] = (struct part){.slot = row->slot,
							.out = row->transposed ? cols : rows,
							.first = linear->out};
			linear->out += linear->part[p].out;
			linear->parts++;
		}
	}
}

static struct matrix take_of(struct slab *slab, enum dtype dtype, int rows, int cols)
{
	return matrix_of(dtype,
			 slab_take(slab, (size_t)rows * (size_t)cols * dtype_bytes(dtype)), rows,
			 cols);
}

static struct matrix take(struct slab *slab, int rows, int cols)
{
	return take_of(slab, DTYPE_F32, rows, cols);
}

/* -- weights ------------------------------------------------------------------------------- */

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
	*to = mapped ? matrix_of(shape.dtype, tensor ? (void *)tensor->data : NULL, shape.rows,
				 shape.cols)
		     : take_of(visit->slab, shape.dtype, shape.rows, shape.cols);
	visit->stage->bytes.weights +=
		(size_t)to->rows * (size_t)to->cols * dtype_bytes(to->dtype);
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
		*to = matrix_of(tensor->dtype, (void *)tensor->data, rows, cols);
		visit->stage->bytes.weights +=
			(size_t)rows * (size_t)cols * dtype_bytes(tensor->dtype);
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
	struct matrix w = {slab_take(visit->slab, bytes), inner, cols, 0, DTYPE_BF16};

	visit->stage->bytes.weights += bytes;
	return w;
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
		visit->stage->bytes.weights +=
			(size_t)rows * (size_t)cols * dtype_bytes(dtype);
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
		visit->stage->bytes.weights += (size_t)linear->out * sizeof(float);
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
	for (int r = 0; r < RECIPES; r++) {
		if (!recipe_holds(config, r))
			continue;
		visit_weight(visit, linear_at(block, recipes[r].place), number);
		visit_bias(visit, linear_at(block, recipes[r].place), number);
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

/* -- adapters ------------------------------------------------------------------------------ */

static float *at(float *base, size_t offset)
{
	return base ? base + offset : NULL;
}

static void layout_adapters(struct stage *stage, struct slab *slab)
{
	const struct lora *lora = stage->lora;
	size_t bytes = stage->elements * sizeof(float);

	stage->values = slab_take(slab, bytes);
	stage->gradients = slab_take(slab, bytes);
	stage->m = slab_take(slab, bytes);
	stage->v = slab_take(slab, bytes);
	stage->norm = slab_take(slab, sizeof(double));
	for (int i = stage->from; i < stage->to; i++) {
		const struct lora_tensor *t = &lora->tensor[i];
		size_t offset = t->offset - lora->tensor[stage->from].offset;
		struct part *part =
			block_part(&stage->block[t->block - stage->spec.first_block], t->slot);
		struct matrix value = matrix(at(stage->values, offset), t->rows, t->cols);
		struct matrix gradient = matrix(at(stage->gradients, offset), t->rows, t->cols);

		if (t->is_b) {
			part->b = value;
			part->grad_b = gradient;
		} else {
			part->number = (uint32_t)i;
			part->a = value;
			part->grad_a = gradient;
		}
	}
}

/* -- activations and work ------------------------------------------------------------------ */

static struct matrix take_tail(const struct stage *stage, const struct linear *linear,
			       struct slab *slab)
{
	if (!linear->tail)
		return (struct matrix){0};
	return take_of(slab, stage->spec.dtype, stage->n, linear->tail);
}

static void layout_attention(const struct stage *stage, struct saved *s, const struct block *block,
			     struct slab *slab)
{
	const struct model_config *c = stage->config;
	int n = stage->n, queries = c->heads * c->head_size, keys = c->kv_heads * c->head_size;
	enum dtype dtype = stage->spec.dtype;

	s->qkv = take_of(slab, dtype, n, queries + 2 * keys);
	s->q = matrix_cols(s->qkv, 0, queries);
	s->k = matrix_cols(s->qkv, queries, keys);
	s->v = matrix_cols(s->qkv, queries + keys, keys);
	s->o = take_of(slab, dtype, n, queries + block->out.tail);
	s->u_out = matrix_cols(s->o, queries, block->out.tail);
	s->o.cols = queries;
	s->lse = take(slab, n, c->heads);
	s->x2 = take_of(slab, dtype, n, c->width);
	s->stats1 = take(slab, n, c->family->gpt2 ? 2 : 1);
	if (c->qk_norm) {
		s->q_stats = take(slab, n, c->heads);
		s->k_stats = take(slab, n, c->kv_heads);
	}
	s->u_qkv = take_tail(stage, &block->qkv, slab);
	s->u_down = take_tail(stage, &block->down, slab);
}

/* What the activation reads, and what it came from. */
static void layout_up(const struct stage *stage, struct saved *s, const struct block *block,
		      struct slab *slab)
{
	const struct model_config *c = stage->config;

	s->up = take_of(slab, stage->spec.dtype, stage->n, block->up.out);
	s->gate_half = matrix_cols(s->up, 0, c->mlp);
	s->up_half = matrix_cols(s->up, block->up.out - c->mlp, c->mlp);
	s->stats2 = take(slab, stage->n, c->family->gpt2 ? 2 : 1);
	s->u_up = take_tail(stage, &block->up, slab);
}

/* What is kept, or what is computed again. */
static void layout_saved(const struct stage *stage, struct saved *s, const struct block *block,
			 struct slab *slab, bool again)
{
	enum recompute level = stage->spec.recompute;

	if (!again)
		s->x1 = take_of(slab, stage->spec.dtype, stage->n, stage->config->width);
	if (again == (level == RECOMPUTE_BLOCK))
		layout_attention(stage, s, block, slab);
	if (again == (level != RECOMPUTE_NONE))
		layout_up(stage, s, block, slab);
}

/* One place for what is computed again, which every block of every micro-batch has while it is worked on. */
static void layout_shared(struct stage *stage, struct slab *slab)
{
	size_t start = slab->used, most = start;

	for (int i = 0; i < stage->spec.slots * stage->spec.blocks; i++) {
		slab->used = start;
		layout_saved(stage, &stage->saved[i], &stage->block[i % stage->spec.blocks], slab,
			     true);
		most = slab->used > most ? slab->used : most;
	}
	slab->used = most;
}

/* The widest input of any adapted linear, for dropout; 0 without dropout. */
static int widest_input(const struct stage *stage)
{
	int widest = 0;

	for (int i = stage->from; i < stage->to && stage->lora->dropout > 0; i++)
		if (!stage->lora->tensor[i].is_b && stage->lora->tensor[i].cols > widest)
			widest = stage->lora->tensor[i].cols;
	return widest;
}

/* The most that any block's attention needs: blocks with and without a window differ. */
static size_t scratch_bytes(const struct stage *stage, int threads)
{
	struct kernels cpu = kernels_cpu();
	size_t (*scratch)(int threads, struct attention shape, enum dtype dtype) =
		stage->dev ? stage->dev->k.attention_scratch : cpu.attention_scratch;
	size_t most = 0;

	for (int i = 0; i < stage->spec.blocks; i++) {
		size_t bytes = scratch(threads, stage->block[i].attention,
					stage->spec.dtype);

		most = bytes > most ? bytes : most;
	}
	return most;
}

/* Room for n rows of what the widest linear at a place reads, in and tail; or of its gradient, out and tail. */
static void *take_rows(const struct stage *stage, struct slab *slab, size_t place,
		       size_t other_place, bool gradient)
{
	size_t places[] = {place, other_place}, most = 0;

	for (int i = 0; i < 2 * stage->spec.blocks; i++) {
		const struct linear *l = linear_at(&stage->block[i / 2], places[i % 2]);
		size_t cols = (size_t)(gradient ? l->out : l->in) + (size_t)l->tail;

		most = cols > most ? cols : most;
	}
	return slab_take(slab, (size_t)stage->n * most * dtype_bytes(stage->spec.dtype));
}

static bool any_adapted(const struct stage *stage, size_t place)
{
	for (int i = 0; i < stage->spec.blocks; i++)
		if (linear_at(&stage->block[i], place)->tail)
			return true;
	return false;
}

#define PLACE(linear) offsetof(struct block, linear)

static void layout_work(struct stage *stage, struct slab *slab, size_t attention_bytes)
{
	const struct model_config *c = stage->config;
	struct work *w = &stage->work;
	int n = stage->n, queries = c->heads * c->head_size, keys = c->kv_heads * c->head_size;
	int widest = widest_input(stage);
	enum dtype dtype = stage->spec.dtype;

	w->dtype = dtype;
	w->h = take_rows(stage, slab, PLACE(qkv), PLACE(up), false);
	w->d_up = take_rows(stage, slab, PLACE(up), PLACE(up), true);
	/* Backward needs the activation again for an adapter alone. */
	w->act = any_adapted(stage, PLACE(down))
			 ? take_rows(stage, slab, PLACE(down), PLACE(down), false)
			 : w->d_up;
	/* Only a copy lies here, see stream_copy. */
	if (dtype != DTYPE_F32 || any_adapted(stage, PLACE(out)) || any_adapted(stage, PLACE(down)))
		w->d_in = take_rows(stage, slab, PLACE(out), PLACE(down), true);
	w->d_qkv = take_rows(stage, slab, PLACE(qkv), PLACE(qkv), true);
	w->d_h = take(slab, n, c->width);
	w->d_o = take_of(slab, dtype, n, queries);
	if (c->qk_norm) {
		w->q = take_of(slab, dtype, n, queries);
		w->k = take_of(slab, dtype, n, keys);
	}
	if (widest > 0) {
		w->dropped = take_of(slab, dtype, n, widest);
		w->d_dropped = take(slab, n, widest);
	}
	w->attention = slab_take(slab, attention_bytes);
}

static void layout_head(struct stage *stage, struct slab *slab)
{
	struct head *head = &stage->head;
	int C = stage->config->width, V = stage->config->vocabulary;
	enum dtype dtype = stage->spec.dtype;

	head->rows = head_rows(stage->n, V);
	head->x = take(slab, head->rows, C);
	head->dx = take(slab, head->rows, C);
	head->d_h = take(slab, head->rows, C);
	head->h = take_of(slab, dtype, head->rows, C);
	head->stats = take(slab, head->rows, stage->config->family->gpt2 ? 2 : 1);
	head->logits = take(slab, head->rows, V);
	head->gradient = matrix_of(dtype, head->logits.data, head->rows, V);
	head->gradient.ld = (size_t)V * sizeof(float) / dtype_bytes(dtype);
	head->losses = slab_take(slab, (size_t)head->rows * sizeof(double));
	head->labels = slab_take(slab, (size_t)head->rows * sizeof(int32_t));
}

/* The head runs between forward and backward of the blocks: it uses the same memory. */
static void layout_scratch(struct stage *stage, struct slab *slab, size_t attention_bytes)
{
	size_t start = slab->used, blocks;

	if (stage->spec.blocks > 0) {
		layout_work(stage, slab, attention_bytes);
		layout_shared(stage, slab);
	}
	blocks = slab->used;
	slab->used = start;
	if (stage->spec.head)
		layout_head(stage, slab);
	slab->used = blocks > slab->used ? blocks : slab->used;
}

static void layout_dump(struct stage *stage, struct slab *slab)
{
	stage->dump_output = take(slab, stage->n, stage->config->width);
	if (stage->spec.head)
		stage->dump_logits = take(slab, stage->n, stage->config->vocabulary);
}

void stage_layout(struct stage *stage, const struct weights *weights, struct slab *slab,
		  int threads, bool host_memory)
{
	const struct stage_spec *spec = &stage->spec;
	const struct model_config *c = stage->config;
	struct visit visit = {stage, weights, slab, host_memory, NULL, 0};
	size_t used;

	stage->bytes = (struct stage_memory){0};
	visit_weights(&visit);
	used = slab->used;
	layout_adapters(stage, slab);
	/* and the copy that travels to rank 0 */
	stage->bytes.adapters = slab->used - used + stage->elements * sizeof(float);
	used = slab->used;
	for (int slot = 0; slot < spec->slots; slot++)
		for (int i = 0; i < spec->blocks; i++)
			layout_saved(stage, &stage->saved[slot * spec->blocks + i],
				     &stage->block[i], slab, false);
	for (int e = 0; e < spec->edges; e++) {
		stage->edge[e] = take(slab, stage->n, stage->config->width);
		stage->input[e] = spec->blocks > 0 && !spec->embedding
					  ? take(slab, stage->n, stage->config->width)
					  : stage->edge[e];
	}
	stage->bytes.activations = slab->used - used;
	used = slab->used;
	layout_scratch(stage, slab, scratch_bytes(stage, threads));
	if (spec->blocks > 0 && !c->family->gpt2)
		stage->work.rope = take(slab, spec->tokens, c->head_size);
	if (spec->embedding)
		stage->ids = slab_take(slab, (size_t)stage->n * sizeof(int32_t));
	if (spec->dump)
		layout_dump(stage, slab);
	stage->bytes.work = slab->used - used;
	stage->bytes.total = stage->bytes.weights + stage->bytes.adapters +
			     stage->bytes.activations + stage->bytes.work;
}

struct stage_memory stage_memory(const struct model_config *config, const struct weights *weights,
				 const struct lora *lora, const struct stage_spec *spec,
				 int threads)
{
	struct stage stage = {0};
	struct slab slab = {0};

	stage_prepare(&stage, config, lora, spec);
	stage_layout(&stage, weights, &slab, threads, true);
	stage_release(&stage);
	return stage.bytes;
}

/* -- life and filling ---------------------------------------------------------------------- */

/* The rank columns of adapted parts one behind the other; an even number, as BF16 comes in pairs. */
static void shape_tail(struct linear *linear, int rank)
{
	for (int p = 0; p < linear->parts; p++) {
		linear->part[p].tail = linear->tail;
		linear->tail += linear->part[p].adapted ? rank : 0;
	}
	linear->tail += linear->tail % 2;
}

void stage_prepare(struct stage *stage, const struct model_config *config,
		   const struct lora *lora, const struct stage_spec *spec)
{
	stage->config = config;
	stage->lora = lora;
	stage->spec = *spec;
	stage->n = spec->sequences * spec->tokens;
	stage->block = xzalloc((size_t)spec->blocks + 1, sizeof(*stage->block));
	stage->saved = xzalloc((size_t)spec->slots * (size_t)spec->blocks + 1,
			       sizeof(*stage->saved));
	stage->edge = xzalloc((size_t)spec->edges, sizeof(*stage->edge));
	stage->input = xzalloc((size_t)spec->edges, sizeof(*stage->input));
	lora_range(lora, spec->first_block, spec->blocks, &stage->from, &stage->to);
	for (int i = 0; i < spec->blocks; i++)
		shape_block(config, &stage->block[i]);
	for (int i = stage->from; i < stage->to; i++) {
		const struct lora_tensor *t = &lora->tensor[i];

		stage->elements += (size_t)t->rows * (size_t)t->cols;
		block_part(&stage->block[t->block - spec->first_block], t->slot)->adapted = true;
	}
	for (int i = 0; i < spec->blocks; i++)
		for (int r = 0; r < RECIPES; r++)
			if (recipe_holds(config, r))
				shape_tail(linear_at(&stage->block[i], recipes[r].place),
					   lora->rank);
	for (int i = 0; i < spec->blocks; i++)
		stage->block[i].attention = (struct attention){
			.sequences = spec->sequences,
			.tokens = spec->tokens,
			.heads = config->heads,
			.kv_heads = config->kv_heads,
			.head_size = config->head_size,
			.scale = (float)(1 / sqrt(config->head_size)),
			.window = config->window ? config->window[spec->first_block + i] : 0,
		};
}

void stage_release(struct stage *stage)
{
	free(stage->block);
	free(stage->saved);
	free(stage->edge);
	free(stage->input);
}

/* Angular frequency of pair i, as transformers' rope initialisers: plain, linear, llama3. */
static double rope_frequency(const struct model_config *c, int i)
{
	double frequency = pow(c->rope_theta, -2.0 * i / c->head_size);
	double wavelength = 2 * M_PI / frequency, smooth;

	if (c->rope == ROPE_LINEAR)
		return frequency / c->rope_factor;
	if (c->rope != ROPE_LLAMA3 || wavelength < c->rope_original / c->rope_high)
		return frequency;
	if (wavelength > c->rope_original / c->rope_low)
		return frequency / c->rope_factor;
	smooth = (c->rope_original / wavelength - c->rope_low) / (c->rope_high - c->rope_low);
	return (1 - smooth) * frequency / c->rope_factor + smooth * frequency;
}

static void load_rope(struct stage *stage)
{
	const struct model_config *c = stage->config;
	int T = stage->spec.tokens, half = c->head_size / 2;
	size_t bytes = (size_t)T * (size_t)c->head_size * sizeof(float);
	float *table = xalloc(bytes);

	for (int t = 0; t < T; t++)
		for (int i = 0; i < half; i++) {
			/* Rounded to float twice, as transformers does: at long T the angles show it. */
			float angle = (float)t * (float)rope_frequency(c, i);

			table[t * c->head_size + i] = (float)cos((double)angle);
			table[t * c->head_size + half + i] = (float)sin((double)angle);
		}
	stage->dev->upload(stage->dev, stage->work.rope.data, table, bytes);
	free(table);
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

void stage_load(struct stage *stage, const struct weights *weights)
{
	size_t widest = widest_row(stage->config), threads = (size_t)pool_threads(stage->dev->pool);
	struct visit visit = {stage, weights, NULL, stage->dev->host_memory, NULL, widest};

	visit.buffer = xalloc(threads * widest * sizeof(float));
	visit_weights(&visit);
	free(visit.buffer);
	/* Reading a page brings its neighbours along: all go, and what is used where it lies comes back. */
	weights_forget(weights);
	if (stage->work.rope.rows > 0)
		load_rope(stage);
}

void stage_adapt(struct stage *stage)
{
	for (int i = 0; i < stage->spec.blocks; i++)
		for (int r = 0; r < RECIPES; r++)
			if (recipe_holds(stage->config, r))
				linear_adapt(stage->dev,
					     linear_at(&stage->block[i], recipes[r].place),
					     stage->lora->dropout > 0);
}
