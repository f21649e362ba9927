/*
 * Where everything of a stage lies. stage_layout is the allocator and the memory estimate in one: it is run
 * once with a null base to count, and once with memory.
 */
#include <math.h>
#include <stdlib.h>

#include "model/stage.h"

struct matrix take_of(struct slab *slab, enum dtype dtype, int rows, int cols)
{
	return matrix_of(dtype,
			 slab_take(slab, (size_t)rows * (size_t)cols * dtype_bytes(dtype)), rows,
			 cols);
}

struct matrix take(struct slab *slab, int rows, int cols)
{
	return take_of(slab, DTYPE_F32, rows, cols);
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

/* Room for n rows of what the widest of two linears reads, in and tail; or of its gradient, out and tail. */
static void *take_rows(const struct stage *stage, struct slab *slab, enum block_linear which,
		       enum block_linear other, bool gradient)
{
	enum block_linear both[] = {which, other};
	size_t most = 0;

	for (int i = 0; i < 2 * stage->spec.blocks; i++) {
		const struct linear *l = block_linear(&stage->block[i / 2], both[i % 2]);
		size_t cols = (size_t)(gradient ? l->out : l->in) + (size_t)l->tail;

		most = cols > most ? cols : most;
	}
	return slab_take(slab, (size_t)stage->n * most * dtype_bytes(stage->spec.dtype));
}

static bool any_adapted(const struct stage *stage, enum block_linear which)
{
	for (int i = 0; i < stage->spec.blocks; i++)
		if (block_linear(&stage->block[i], which)->tail)
			return true;
	return false;
}

static void layout_work(struct stage *stage, struct slab *slab, size_t attention_bytes)
{
	const struct model_config *c = stage->config;
	struct work *w = &stage->work;
	int n = stage->n, queries = c->heads * c->head_size, keys = c->kv_heads * c->head_size;
	int widest = widest_input(stage);
	enum dtype dtype = stage->spec.dtype;

	w->dtype = dtype;
	w->h = take_rows(stage, slab, LINEAR_QKV, LINEAR_UP, false);
	w->d_up = take_rows(stage, slab, LINEAR_UP, LINEAR_UP, true);
	/* Backward needs the activation again for an adapter alone. */
	w->act = any_adapted(stage, LINEAR_DOWN)
			 ? take_rows(stage, slab, LINEAR_DOWN, LINEAR_DOWN, false)
			 : w->d_up;
	/* Only a copy lies here, see stream_copy. */
	if (dtype != DTYPE_F32 || any_adapted(stage, LINEAR_OUT) ||
	    any_adapted(stage, LINEAR_DOWN))
		w->d_in = take_rows(stage, slab, LINEAR_OUT, LINEAR_DOWN, true);
	w->d_qkv = take_rows(stage, slab, LINEAR_QKV, LINEAR_QKV, true);
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

static void layout_head(struct stage *stage, struct slab *slab, int threads)
{
	struct head *head = &stage->head;
	int C = stage->config->width, V = stage->config->vocabulary;
	enum dtype dtype = stage->spec.dtype;
	struct kernels cpu = kernels_cpu();
	const struct kernels *k = stage->dev ? &stage->dev->k : &cpu;
	size_t scratch;

	head->fused = dtype == DTYPE_BF16 && k->head_scratch(threads, 1, C) > 0;
	head->rows = head->fused ? head_rows_fused(stage->n) : head_rows(stage->n, V);
	head->x = take(slab, head->rows, C);
	head->dx = take(slab, head->rows, C);
	head->d_h = take(slab, head->rows, C);
	head->h = take_of(slab, dtype, head->rows, C);
	head->stats = take(slab, head->rows, stage->config->family->gpt2 ? 2 : 1);
	scratch = head->fused ? k->head_scratch(threads, head->rows, C) : 0;
	head->scratch = head->fused ? slab_take(slab, scratch) : NULL;
	if (!head->fused || stage->spec.dump)
		head->logits = take(slab, head_rows(stage->n, V), V);
	head->gradient = matrix_of(dtype, head->logits.data, head->rows, V);
	head->gradient.ld = (size_t)V * sizeof(float) / dtype_bytes(dtype);
	head->losses = slab_take(slab, (size_t)head->rows * sizeof(double));
	head->labels = slab_take(slab, (size_t)head->rows * sizeof(int32_t));
}

/* The head runs between forward and backward of the blocks: it uses the same memory. */
static void layout_scratch(struct stage *stage, struct slab *slab, int threads)
{
	size_t start = slab->used, blocks;

	if (stage->spec.blocks > 0) {
		layout_work(stage, slab, scratch_bytes(stage, threads));
		layout_shared(stage, slab);
	}
	blocks = slab->used;
	slab->used = start;
	if (stage->spec.head)
		layout_head(stage, slab, threads);
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
	size_t used;

	stage->bytes = (struct stage_memory){0};
	frozen_layout(stage, weights, slab, host_memory);
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
	layout_scratch(stage, slab, threads);
	if (spec->blocks > 0 && !c->family->gpt2)
		stage->work.rope = take(slab, spec->tokens, c->head_size);
	if (spec->embedding)
		stage->ids = slab_take(slab, (size_t)stage->n * sizeof(int32_t));
	if (spec->packed) {
		stage->spot = slab_take(slab, (size_t)stage->n * sizeof(*stage->spot));
		stage->segment = slab_take(slab, (size_t)stage->n * sizeof(*stage->segment));
	}
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

/* -- life ---------------------------------------------------------------------------------- */

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
		block_shape(config, &stage->block[i]);
	for (int i = stage->from; i < stage->to; i++) {
		const struct lora_tensor *t = &lora->tensor[i];

		stage->elements += (size_t)t->rows * (size_t)t->cols;
		struct part *part =
			block_part(&stage->block[t->block - spec->first_block], t->slot);
		part->adapted = true;
		part->rank = t->rank;
		part->scale = t->scale;
	}
	for (int i = 0; i < spec->blocks; i++) {
		block_tails(&stage->block[i]);
		stage->block[i].attention = (struct attention){
			.sequences = spec->sequences,
			.tokens = spec->tokens,
			.heads = config->heads,
			.kv_heads = config->kv_heads,
			.head_size = config->head_size,
			.scale = (float)(1 / sqrt(config->head_size)),
			.window = config->window ? config->window[spec->first_block + i] : 0,
			.segments = spec->packed,
		};
	}
}

void stage_release(struct stage *stage)
{
	free(stage->block);
	free(stage->saved);
	free(stage->edge);
	free(stage->input);
}
