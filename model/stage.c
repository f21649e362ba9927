/*
 * The runnable stage: some blocks of a model, with or without its ends, for numbered micro-batches. It
 * allocates everything when it is opened and nothing afterwards.
 */
#include <stdlib.h>
#include <string.h>

#include "model/stage.h"

/* -- life ---------------------------------------------------------------------------------- */

static size_t cut_elements(const struct stage *stage)
{
	return (size_t)stage->n * (size_t)stage->config->width;
}

size_t stage_cut_bytes(const struct stage_spec *spec, const struct model_config *config)
{
	return (size_t)spec->sequences * (size_t)spec->tokens * (size_t)config->width *
	       sizeof(float);
}

static int stage_allocate(struct stage *stage, const struct weights *weights)
{
	struct device *dev = stage->dev;
	struct slab slab = {0};
	int threads = pool_threads(dev->pool);

	stage_layout(stage, weights, &slab, threads, dev->host_memory);
	stage->memory = dev->alloc(dev, slab.used);
	if (!stage->memory)
		return -1;
	slab = (struct slab){stage->memory, 0};
	stage_layout(stage, weights, &slab, threads, dev->host_memory);
	if (!dev->host_memory) {
		size_t cuts = 2 * (size_t)stage->spec.edges;

		stage->host = xalloc((cuts + 1) * cut_elements(stage) * sizeof(float));
		stage->host_cut = stage->host + cuts * cut_elements(stage);
	}
	if (stage->spec.head) {
		size_t rows = (size_t)stage->head.rows;

		stage->head.host_losses = xalloc(rows * sizeof(double));
		stage->head.host_labels = xalloc(rows * sizeof(int32_t));
		stage->head.host_rows = xalloc(rows * sizeof(int));
	}
	return 0;
}

static struct run run_of(const struct stage *stage, const struct micro_batch *micro)
{
	return (struct run){
		.dev = stage->dev,
		.config = stage->config,
		.work = &stage->work,
		.rows = stage->n,
		.dropout = micro->train ? (float)stage->lora->dropout : 0,
		.seed = micro->seed,
		.step = micro->step,
		.first_sample = micro->first_sample,
		.tokens = stage->spec.tokens,
		.spot = micro->segments > 0 ? stage->spot : NULL,
		.segment = micro->segments > 0 ? stage->segment : NULL,
		.segments = micro->segments,
		.recompute = stage->spec.recompute,
	};
}

/* Whatever products need that is not memory of the stage is made now, not in the first micro-batch. */
static void stage_ready(const struct stage *stage)
{
	struct micro_batch none = {0};
	struct run run = run_of(stage, &none);

	for (int i = 0; i < stage->spec.blocks; i++)
		block_ready(&run, &stage->saved[i], &stage->block[i], stage->edge[0]);
	if (stage->spec.head)
		head_ready(stage->dev, &stage->head);
}

struct stage *stage_open(struct device *dev, const struct model_config *config,
			 const struct weights *weights, const struct lora *lora,
			 const struct stage_spec *spec, const float *values)
{
	struct stage *stage = xzalloc(1, sizeof(*stage));

	stage->dev = dev;
	stage_prepare(stage, config, lora, spec);
	if (stage_allocate(stage, weights))
		goto fail;
	frozen_load(stage, weights);
	rope_load(stage);
	stage_write(stage, STAGE_VALUES, values);
	stage_ready(stage);
	if (!dev->lacks)
		return stage;
fail:
	stage_close(stage);
	return NULL;
}

void stage_close(struct stage *stage)
{
	if (!stage)
		return;
	stage->dev->free(stage->dev, stage->memory);
	free(stage->host);
	free(stage->head.host_losses);
	free(stage->head.host_labels);
	free(stage->head.host_rows);
	stage_release(stage);
	free(stage);
}

/* -- cuts ---------------------------------------------------------------------------------- */

/* Staging for a micro-batch: the input, then the edge. */
static float *host_input(const struct stage *stage, int m)
{
	return stage->host + 2 * (size_t)(m % stage->spec.edges) * cut_elements(stage);
}

static float *host_edge(const struct stage *stage, int m)
{
	return host_input(stage, m) + cut_elements(stage);
}

static struct matrix edge_of(const struct stage *stage, int m)
{
	return stage->edge[m % stage->spec.edges];
}

static struct matrix input_of(const struct stage *stage, int m)
{
	return stage->input[m % stage->spec.edges];
}

float *stage_input(struct stage *stage, int m)
{
	return stage->host ? host_input(stage, m) : input_of(stage, m).data;
}

float *stage_edge(struct stage *stage, int m)
{
	return stage->host ? host_edge(stage, m) : edge_of(stage, m).data;
}

/* -- a micro-batch ------------------------------------------------------------------------- */

/* What the blocks keep of a micro-batch. */
static struct saved *saved_of(struct stage *stage, int m)
{
	return &stage->saved[m % stage->spec.slots * stage->spec.blocks];
}

/* What a codec does to what crosses the cut after the stage's i-th block; false: nothing. */
static bool pass_cut(struct stage *stage, const struct micro_batch *micro, struct matrix x, int i,
		     bool backward)
{
	const struct stage_spec *spec = &stage->spec;
	struct device *dev = stage->dev;
	size_t bytes = cut_elements(stage) * sizeof(float);
	float *host = stage->host ? stage->host_cut : x.data;

	if (!spec->passes || !spec->passes[i])
		return false;
	if (stage->host)
		dev->download(dev, host, x.data, bytes);
	spec->pass(spec->pass_arg, spec->first_block + i, backward, micro, host);
	if (stage->host)
		dev->upload(dev, x.data, host, bytes);
	return true;
}

/* Where the rows of a packed micro-batch stand, to the device: some at a time, host memory for all is not needed. */
static void upload_spots(struct stage *stage, const struct micro_batch *micro)
{
	enum { SOME = 256 };
	struct device *dev = stage->dev;
	struct spot some[SOME];
	int row = 0, count = 0;

	if (micro->segments > 0)
		dev->upload(dev, stage->segment, micro->segment,
			    (size_t)micro->segments * sizeof(*micro->segment));
	for (int s = 0; s < micro->segments; s++) {
		for (int t = 0; t < micro->segment[s].tokens; t++) {
			some[count++] = (struct spot){micro->segment[s].sample, (uint32_t)t};
			if (++row < stage->n && count < SOME)
				continue;
			dev->upload(dev, stage->spot + (row - count), some,
				    (size_t)count * sizeof(*some));
			count = 0;
		}
	}
}

/* x = what the stage begins with: embedded ids, or what was received. */
static void forward_input(struct stage *stage, int m, const struct micro_batch *micro,
			  const struct run *run, struct matrix x)
{
	struct device *dev = stage->dev;

	if (stage->spec.embedding) {
		dev->upload(dev, stage->ids, micro->ids, (size_t)stage->n * sizeof(int32_t));
		dev->k.embed(dev, x, stage->ids, run->spot, stage->tokens, stage->positions,
			     stage->spec.tokens);
	} else if (stage->host) {
		dev->upload(dev, x.data, host_input(stage, m),
			    cut_elements(stage) * sizeof(float));
	} else if (x.data != input_of(stage, m).data) {
		dev->k.copy(dev, x, input_of(stage, m));
	}
}

static void keep_output(struct stage *stage, int m)
{
	struct device *dev = stage->dev;

	if (!stage->spec.dump)
		return;
	dev->k.copy(dev, stage->dump_output, edge_of(stage, m));
}

static void block_forward(const struct run *run, struct matrix x, struct saved *s,
			  const struct block *b)
{
	if (run->config->family->gpt2)
		gpt2_forward(run, x, s, b);
	else
		llama_forward(run, x, s, b);
}

bool stage_sound(const struct stage *stage)
{
	return !stage->dev->lacks;
}

void stage_forward(struct stage *stage, int m, const struct micro_batch *micro, double *loss)
{
	struct device *dev = stage->dev;
	struct run run = run_of(stage, micro);
	int blocks = stage->spec.blocks;
	struct saved *saved = saved_of(stage, m);
	struct matrix x = edge_of(stage, m);

	upload_spots(stage, micro);
	forward_input(stage, m, micro, &run, x);
	for (int i = 0; i < blocks; i++) {
		block_forward(&run, x, &saved[i], &stage->block[i]);
		pass_cut(stage, micro, x, i, false);
	}
	stage->last = m;
	keep_output(stage, m);
	if (stage->spec.head)
		*loss = head_run(&run, &stage->head, edge_of(stage, m), micro,
				 stage->dump_logits);
	else if (stage->host)
		dev->download(dev, host_edge(stage, m), edge_of(stage, m).data,
			      cut_elements(stage) * sizeof(float));
}

/* For the block's last linear, which reads it next. */
static void copy_gradient(const struct run *run, const struct linear *down, struct matrix d)
{
	struct matrix copy = stream_copy(run, down, d);

	if (copy.data)
		run->dev->k.copy(run->dev, copy, d);
}

/* What forward did not keep of a block but its input. Nothing that it writes is backward's yet. */
static void block_again(const struct run *run, struct saved *s, const struct block *b)
{
	struct matrix x = run->work->d_h;
	struct run again = *run;

	again.again = true;
	run->dev->k.copy(run->dev, x, s->x1);
	block_forward(&again, x, s, b);
}

void stage_backward(struct stage *stage, int m, const struct micro_batch *micro)
{
	struct device *dev = stage->dev;
	struct run run = run_of(stage, micro);
	struct matrix d = edge_of(stage, m);
	size_t bytes = cut_elements(stage) * sizeof(float);
	struct saved *saved = saved_of(stage, m);
	/* Of all that are adapted the lowest block; it may lie in another stage. */
	int bottom = stage->lora->tensor[0].block - stage->spec.first_block;

	upload_spots(stage, micro);
	if (stage->host && !stage->spec.head)
		dev->upload(dev, d.data, host_edge(stage, m), bytes);
	for (int i = stage->spec.blocks - 1; i >= 0 && i >= bottom; i--) {
		const struct linear *below = i > 0 ? &stage->block[i - 1].down : NULL;
		bool lowest = i == bottom;

		if (pass_cut(stage, micro, d, i, true) || i == stage->spec.blocks - 1)
			copy_gradient(&run, &stage->block[i].down, d);
		if (run.recompute == RECOMPUTE_BLOCK)
			block_again(&run, &saved[i], &stage->block[i]);
		if (stage->config->family->gpt2)
			gpt2_backward(&run, d, &saved[i], &stage->block[i], below, lowest);
		else
			llama_backward(&run, d, &saved[i], &stage->block[i], below, lowest);
	}
	if (stage->host && !stage->spec.embedding)
		dev->download(dev, host_edge(stage, m), d.data, bytes);
}

/* -- the optimizer ------------------------------------------------------------------------- */

static struct matrix flat(float *data, size_t offset, const struct lora_tensor *t)
{
	return matrix(data + offset, t->rows, t->cols);
}

void stage_zero_gradients(struct stage *stage)
{
	for (int i = stage->from; i < stage->to; i++) {
		const struct lora_tensor *t = &stage->lora->tensor[i];
		size_t offset = t->offset - stage->lora->tensor[stage->from].offset;

		stage->dev->k.fill(stage->dev, flat(stage->gradients, offset, t), 0);
	}
}

void stage_fold_norm(struct stage *stage, double *sum)
{
	struct device *dev = stage->dev;

	for (int i = stage->to - 1; i >= stage->from; i--) {
		const struct lora_tensor *t = &stage->lora->tensor[i];
		size_t offset = t->offset - stage->lora->tensor[stage->from].offset;
		double squares;

		dev->k.squared_norm(dev, stage->norm, flat(stage->gradients, offset, t));
		dev->download(dev, &squares, stage->norm, sizeof(squares));
		*sum += squares;
	}
}

/* Brings the adapters' values to where products read them. */
static void stage_adapt(struct stage *stage)
{
	bool dropout = stage->lora->dropout > 0;

	for (int i = 0; i < stage->spec.blocks; i++)
		for (enum block_linear l = 0; l < BLOCK_LINEARS; l++)
			linear_adapt(stage->dev, block_linear(&stage->block[i], l), dropout);
}

void stage_update(struct stage *stage, const struct adamw *settings)
{
	for (int i = stage->from; i < stage->to; i++) {
		const struct lora_tensor *t = &stage->lora->tensor[i];
		size_t offset = t->offset - stage->lora->tensor[stage->from].offset;

		stage->dev->k.adamw(stage->dev, flat(stage->values, offset, t),
				    flat(stage->m, offset, t), flat(stage->v, offset, t),
				    flat(stage->gradients, offset, t), *settings);
	}
	stage_adapt(stage);
}

/* -- reading and writing ------------------------------------------------------------------- */

void stage_adapters(const struct stage *stage, int *from, int *to, size_t *elements)
{
	*from = stage->from;
	*to = stage->to;
	*elements = stage->elements;
}

static float *family_of(const struct stage *stage, enum stage_family family)
{
	switch (family) {
	case STAGE_VALUES: return stage->values;
	case STAGE_GRADIENTS: return stage->gradients;
	case STAGE_M: return stage->m;
	case STAGE_V: return stage->v;
	}
	return NULL;
}

void stage_read(struct stage *stage, enum stage_family family, float *to)
{
	stage->dev->download(stage->dev, to, family_of(stage, family),
			     stage->elements * sizeof(float));
}

void stage_write(struct stage *stage, enum stage_family family, const float *from)
{
	stage->dev->upload(stage->dev, family_of(stage, family), from,
			   stage->elements * sizeof(float));
	if (family == STAGE_VALUES)
		stage_adapt(stage);
}

void stage_hidden(struct stage *stage, int i, float *to)
{
	int blocks = stage->spec.blocks;
	struct matrix x = i < blocks ? saved_of(stage, stage->last)[i].x1 : stage->dump_output;
	size_t count = cut_elements(stage), bytes = count * dtype_bytes(x.dtype);
	void *stored = x.dtype == DTYPE_F32 ? to : xalloc(bytes);

	stage->dev->download(stage->dev, stored, x.data, bytes);
	if (stored == to)
		return;
	convert_to_f32(to, stored, x.dtype, count);
	free(stored);
}

void stage_logits(struct stage *stage, float *to)
{
	stage->dev->download(stage->dev, to, stage->dump_logits.data,
			     (size_t)stage->n * (size_t)stage->config->vocabulary *
				     sizeof(float));
}
