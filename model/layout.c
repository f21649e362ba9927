/*
 * Where everything of a stage lies. stage_layout is the allocator and the memory estimate in one: it is run
 * once with a null base to count, and once with memory.
 */
#include <math.h>
#include <stdlib.h>

#include "model/stage.h"

/* Where a slot's tensor goes in a block. */
static const size_t matrix_place[SLOTS] = {
	[SLOT_NORM1] = offsetof(struct block, norm1),
	[SLOT_NORM1_BIAS] = offsetof(struct block, norm1_bias),
	[SLOT_NORM2] = offsetof(struct block, norm2),
	[SLOT_NORM2_BIAS] = offsetof(struct block, norm2_bias),
	[SLOT_Q_NORM] = offsetof(struct block, q_norm),
	[SLOT_K_NORM] = offsetof(struct block, k_norm),
	[SLOT_QKV] = offsetof(struct block, qkv.w),
	[SLOT_QKV_BIAS] = offsetof(struct block, qkv.bias),
	[SLOT_Q] = offsetof(struct block, q.w),
	[SLOT_Q_BIAS] = offsetof(struct block, q.bias),
	[SLOT_K] = offsetof(struct block, k.w),
	[SLOT_K_BIAS] = offsetof(struct block, k.bias),
	[SLOT_V] = offsetof(struct block, v.w),
	[SLOT_V_BIAS] = offsetof(struct block, v.bias),
	[SLOT_OUT] = offsetof(struct block, out.w),
	[SLOT_OUT_BIAS] = offsetof(struct block, out.bias),
	[SLOT_GATE] = offsetof(struct block, gate.w),
	[SLOT_GATE_BIAS] = offsetof(struct block, gate.bias),
	[SLOT_UP] = offsetof(struct block, up.w),
	[SLOT_UP_BIAS] = offsetof(struct block, up.bias),
	[SLOT_DOWN] = offsetof(struct block, down.w),
	[SLOT_DOWN_BIAS] = offsetof(struct block, down.bias),
};

static struct matrix *block_matrix(struct block *block, enum slot slot)
{
	return (struct matrix *)((char *)block + matrix_place[slot]);
}

static struct linear *block_linear(struct block *block, enum slot slot)
{
	switch (slot) {
	case SLOT_QKV: return &block->qkv;
	case SLOT_Q: return &block->q;
	case SLOT_K: return &block->k;
	case SLOT_V: return &block->v;
	case SLOT_OUT: return &block->out;
	case SLOT_GATE: return &block->gate;
	case SLOT_UP: return &block->up;
	case SLOT_DOWN: return &block->down;
	default: return NULL;
	}
}

static struct matrix take(struct slab *slab, int rows, int cols)
{
	return matrix(slab_take(slab, (size_t)rows * (size_t)cols * sizeof(float)), rows, cols);
}

/* -- weights ------------------------------------------------------------------------------- */

/* A stage's way through the files: visits each of its tensors once, to count, to place or to fill. */
struct visit {
	struct stage *stage;
	const struct weights *weights;
	struct slab *slab;	/* null while filling */
	bool host_memory;
	float *buffer;		/* while filling: room for the largest tensor to convert */
	size_t buffer_elements;
};

static bool usable_in_place(const struct visit *visit, const struct safetensor *tensor)
{
	return visit->host_memory &&
	       (!tensor || (tensor->dtype == DTYPE_F32 && (uintptr_t)tensor->data % 4 == 0));
}

/* Rows at a time, so that no second full copy is ever resident. */
static void fill_tensor(const struct visit *visit, struct matrix to,
			const struct safetensor *tensor)
{
	struct device *dev = visit->stage->dev;
	size_t count = (size_t)to.rows * (size_t)to.cols, step = visit->buffer_elements;

	for (size_t at = 0; at < count; at += step) {
		size_t piece = count - at < step ? count - at : step;

		convert_to_f32(visit->buffer,
			       (const char *)tensor->data + at * dtype_bytes(tensor->dtype),
			       tensor->dtype, piece);
		dev->upload(dev, (float *)to.data + at, visit->buffer, piece * sizeof(float));
		safetensor_forget(tensor, (at + piece) * dtype_bytes(tensor->dtype));
	}
}

/* The first `rows` rows of a tensor (a vector is one row of cols). */
static void visit_tensor(const struct visit *visit, struct matrix *to, enum slot slot, int block,
			 int rows, int cols)
{
	const struct safetensor *tensor =
		visit->weights ? weights_find(visit->weights, slot, block) : NULL;

	if (!visit->slab) {
		if (!usable_in_place(visit, tensor))
			fill_tensor(visit, *to, tensor);
		return;
	}
	visit->stage->bytes.weights += (size_t)rows * (size_t)cols * sizeof(float);
	if (usable_in_place(visit, tensor))
		*to = matrix(tensor ? (void *)tensor->data : NULL, rows, cols);
	else
		*to = take(visit->slab, rows, cols);
}

static void visit_block(const struct visit *visit, int i)
{
	const struct model_config *config = visit->stage->config;
	struct block *block = &visit->stage->block[i];

	for (enum slot slot = SLOT_NORM1; slot < SLOTS; slot++) {
		const struct tensor_row *row = model_row(config, slot);
		struct linear *linear = block_linear(block, slot);

		if (!row)
			continue;
		int rows = dim_size(config, row->rows), cols = dim_size(config, row->cols);

		if (linear) {
			linear->slot = slot;
			linear->transposed = row->transposed;
			linear->in = row->transposed ? rows : cols;
			linear->out = row->transposed ? cols : rows;
		}
		visit_tensor(visit, block_matrix(block, slot), slot,
			     visit->stage->spec.first_block + i, linear ? rows : 1,
			     linear ? cols : rows);
	}
}

static void visit_ends(const struct visit *visit)
{
	struct stage *stage = visit->stage;
	const struct model_config *config = stage->config;
	const struct stage_spec *spec = &stage->spec;
	int C = config->width, V = config->vocabulary;

	if (spec->embedding) {
		visit_tensor(visit, &stage->tokens, SLOT_EMBED, 0, V, C);
		if (model_row(config, SLOT_POSITIONS))
			visit_tensor(visit, &stage->positions, SLOT_POSITIONS, 0, spec->tokens, C);
	}
	if (!spec->head)
		return;
	visit_tensor(visit, &stage->head.norm, SLOT_FINAL_NORM, 0, 1, C);
	if (model_row(config, SLOT_FINAL_NORM_BIAS))
		visit_tensor(visit, &stage->head.norm_bias, SLOT_FINAL_NORM_BIAS, 0, 1, C);
	if (spec->embedding && config->tied)
		stage->head.w = stage->tokens;
	else
		visit_tensor(visit, &stage->head.w, SLOT_HEAD, 0, V, C);
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
		struct linear *linear =
			block_linear(&stage->block[t->block - stage->spec.first_block], t->slot);
		struct matrix value = matrix(at(stage->values, offset), t->rows, t->cols);
		struct matrix gradient = matrix(at(stage->gradients, offset), t->rows, t->cols);

		linear->adapted = true;
		if (t->is_b) {
			linear->b = value;
			linear->grad_b = gradient;
		} else {
			linear->number = (uint32_t)i;
			linear->a = value;
			linear->grad_a = gradient;
		}
	}
}

/* -- activations and work ------------------------------------------------------------------ */

static void layout_saved(const struct stage *stage, struct saved *s, const struct block *block,
			 struct slab *slab)
{
	const struct model_config *c = stage->config;
	int n = stage->n, queries = c->heads * c->head_size, keys = c->kv_heads * c->head_size;

	s->x1 = take(slab, n, c->width);
	if (c->family->gpt2) {
		s->qkv = take(slab, n, 3 * c->width);
		s->q = matrix_cols(s->qkv, 0, c->width);
		s->k = matrix_cols(s->qkv, c->width, c->width);
		s->v = matrix_cols(s->qkv, 2 * c->width, c->width);
	} else {
		s->q = take(slab, n, queries);
		s->k = take(slab, n, keys);
		s->v = take(slab, n, keys);
		s->gate = take(slab, n, c->mlp);
	}
	s->o = take(slab, n, queries);
	s->lse = take(slab, n, c->heads);
	s->x2 = take(slab, n, c->width);
	s->up = take(slab, n, c->mlp);
	s->stats1 = take(slab, n, c->family->gpt2 ? 2 : 1);
	s->stats2 = take(slab, n, c->family->gpt2 ? 2 : 1);
	if (c->qk_norm) {
		s->q_stats = take(slab, n * c->heads, 1);
		s->k_stats = take(slab, n * c->kv_heads, 1);
	}
	for (enum slot slot = SLOT_NORM1; slot < SLOTS; slot++) {
		const struct linear *linear = block_linear((struct block *)block, slot);

		if (linear && linear->adapted)
			s->u[slot] = take(slab, n, stage->lora->rank);
	}
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
static size_t scratch_bytes(const struct stage *stage, int threads,
			    size_t (*scratch)(int threads, struct attention shape,
					      enum dtype dtype))
{
	size_t most = 0;

	for (int i = 0; i < stage->spec.blocks; i++) {
		size_t bytes = scratch(threads, stage->block[i].attention, DTYPE_F32);

		most = bytes > most ? bytes : most;
	}
	return most;
}

static void layout_work(struct stage *stage, struct slab *slab, int threads,
			size_t (*scratch)(int threads, struct attention shape,
					  enum dtype dtype))
{
	const struct model_config *c = stage->config;
	struct work *w = &stage->work;
	int n = stage->n, queries = c->heads * c->head_size, keys = c->kv_heads * c->head_size;
	int widest = widest_input(stage);

	w->h = take(slab, n, c->width);
	w->d_h = take(slab, n, c->width);
	w->act = take(slab, n, c->mlp);
	w->d_up = take(slab, n, c->mlp);
	w->d_o = take(slab, n, queries);
	if (c->family->gpt2) {
		w->d_qkv = take(slab, n, 3 * c->width);
		w->d_q = matrix_cols(w->d_qkv, 0, c->width);
		w->d_k = matrix_cols(w->d_qkv, c->width, c->width);
		w->d_v = matrix_cols(w->d_qkv, 2 * c->width, c->width);
	} else {
		w->d_gate = take(slab, n, c->mlp);
		w->d_q = take(slab, n, queries);
		w->d_k = take(slab, n, keys);
		w->d_v = take(slab, n, keys);
		w->rope = take(slab, stage->spec.tokens, c->head_size);
	}
	if (c->qk_norm) {
		w->q = take(slab, n, queries);
		w->k = take(slab, n, keys);
	}
	w->du = take(slab, n, stage->lora->rank);
	if (widest > 0) {
		w->dropped = take(slab, n, widest);
		w->d_dropped = take(slab, n, widest);
	}
	w->attention = slab_take(slab, scratch_bytes(stage, threads, scratch));
}

static void layout_head(struct stage *stage, struct slab *slab)
{
	struct head *head = &stage->head;
	int C = stage->config->width;

	head->rows = head_rows(stage->n, stage->config->vocabulary);
	head->h = take(slab, head->rows, C);
	head->d_h = take(slab, head->rows, C);
	head->stats = take(slab, head->rows, stage->config->family->gpt2 ? 2 : 1);
	head->logits = take(slab, head->rows, stage->config->vocabulary);
	head->losses = slab_take(slab, (size_t)head->rows * sizeof(double));
	head->labels = slab_take(slab, (size_t)stage->n * sizeof(int32_t));
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
	struct kernels cpu = kernels_cpu();
	size_t (*scratch)(int threads, struct attention shape, enum dtype dtype) =
		stage->dev ? stage->dev->k.attention_scratch : cpu.attention_scratch;
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
				     &stage->block[i], slab);
	for (int e = 0; e < spec->edges; e++) {
		stage->edge[e] = take(slab, stage->n, stage->config->width);
		stage->input[e] = spec->blocks > 0 && !spec->embedding
					  ? take(slab, stage->n, stage->config->width)
					  : stage->edge[e];
	}
	stage->bytes.activations = slab->used - used;
	used = slab->used;
	if (spec->blocks > 0)
		layout_work(stage, slab, threads, scratch);
	if (spec->embedding)
		stage->ids = slab_take(slab, (size_t)stage->n * sizeof(int32_t));
	if (spec->head)
		layout_head(stage, slab);
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
	for (int i = stage->from; i < stage->to; i++)
		stage->elements += (size_t)lora->tensor[i].rows * (size_t)lora->tensor[i].cols;
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

void stage_load(struct stage *stage, const struct weights *weights)
{
	size_t room = (size_t)1 << 20;
	struct visit visit = {stage, weights, NULL, stage->dev->host_memory, NULL, room};

	visit.buffer = xalloc(room * sizeof(float));
	visit_weights(&visit);
	free(visit.buffer);
	if (stage->work.rope.rows > 0)
		load_rope(stage);
}
