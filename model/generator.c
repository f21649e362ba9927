/*
 * The runnable part of a model that generates: some of its blocks, with or without its ends, for rows of new tokens of
 * many sequences, whose keys and values it keeps. As a stage, it allocates everything when it is opened and nothing
 * afterwards; unlike one, it keeps nothing for a backward and runs any rows in any order.
 *
 * A row's bits do not depend on the rows beside it: FEW rows go through products that treat each alone; more rows come
 * of one prompt, in pieces that the prompt alone decides.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/stage.h"

enum { FEW = 16, PIECE = 32 };	/* rows; more than FEW are filled up to whole pieces, so that products come in few sizes */

struct generator {
	struct generator_spec spec;
	struct stage stage;		/* its weights, adapters, work */
	int rows;			/* room for, at once */
	struct saved saved;		/* of the block that is run */
	struct matrix x;		/* (rows, C), where the device's memory is its own */
	struct matrix gathered;		/* (rows, D or C): the rows' rotary positions, or learnt ones */
	struct cached *cached;		/* of every block */
	int32_t *sequence, *position, *ids;	/* (rows), device */
	int32_t *host_rows;		/* (3, rows) */
	struct matrix last;		/* (FEW, C): rows whose logits are asked for */
	float *logits;			/* (FEW, V), host; the head's own where it can be */
	float *host_logits;		/* where it cannot */
	int blocks_done;
	struct generator_memory bytes;
};

int generator_few(void)
{
	return FEW;
}

static int whole_pieces(int rows)
{
	return rows <= FEW ? rows : (rows + PIECE - 1) / PIECE * PIECE;
}

int generator_rows(int rows)
{
	int whole = whole_pieces(rows);

	return whole < FEW ? FEW : whole;
}

/* -- memory -------------------------------------------------------------------------------- */

static void layout_adapters(struct stage *stage, struct slab *slab)
{
	stage->values = slab_take(slab, stage->elements * sizeof(float));
	for (int i = stage->from; i < stage->to; i++) {
		const struct lora_tensor *t = &stage->lora->tensor[i];
		size_t offset = t->offset - stage->lora->tensor[stage->from].offset;
		struct part *part = block_part(&stage->block[t->block - stage->spec.first_block], t->slot);
		struct matrix value = matrix(stage->values ? stage->values + offset : NULL, t->rows, t->cols);

		if (t->is_b)
			part->b = value;
		else
			part->a = value;
	}
}

static void layout_cache(struct generator *d, struct slab *slab)
{
	const struct model_config *c = d->stage.config;

	for (int i = 0; i < d->spec.blocks; i++) {
		struct cached *cached = &d->cached[i];
		const struct attention *shape = &d->stage.block[i].attention;

		*cached = (struct cached){
			.sequences = d->spec.sequences,
			.room = d->spec.room,
			.heads = c->heads,
			.kv_heads = c->kv_heads,
			.head_size = c->head_size,
			.scale = shape->scale,
			.window = shape->window,
			.dtype = d->spec.dtype,
		};
		cached->keys = slab_take(slab, cached_bytes(cached));
		cached->values = slab_take(slab, cached_bytes(cached));
	}
}

/* The widest that a linear reads, with its tail. */
static int widest(const struct generator *d, enum block_linear which)
{
	int most = 0;

	for (int i = 0; i < d->spec.blocks; i++) {
		const struct linear *l = block_linear(&d->stage.block[i], which);

		most = l->in + l->tail > most ? l->in + l->tail : most;
	}
	return most;
}

/* What a block leaves of itself while it runs; all blocks have it in turn. */
static void layout_block(struct generator *d, struct slab *slab)
{
	const struct model_config *c = d->stage.config;
	const struct block *block = &d->stage.block[0];
	struct saved *s = &d->saved;
	struct work *w = &d->stage.work;
	enum dtype dtype = d->spec.dtype;
	int n = d->rows, queries = c->heads * c->head_size, keys = c->kv_heads * c->head_size;

	w->dtype = dtype;
	s->qkv = take_of(slab, dtype, n, queries + 2 * keys);
	s->o = take_of(slab, dtype, n, widest(d, LINEAR_OUT));
	s->up = take_of(slab, dtype, n, block->up.out);
	s->stats1 = s->stats2 = take(slab, n, 2);
	if (c->qk_norm) {
		s->q_stats = take(slab, n, c->heads);
		s->k_stats = take(slab, n, c->kv_heads);
		w->q = take_of(slab, dtype, n, queries);
		w->k = take_of(slab, dtype, n, keys);
	}
	w->h = take_of(slab, dtype, n, widest(d, LINEAR_QKV) > widest(d, LINEAR_UP) ? widest(d, LINEAR_QKV)
									       : widest(d, LINEAR_UP)).data;
	w->act = take_of(slab, dtype, n, widest(d, LINEAR_DOWN)).data;
}

static void layout_ends(struct generator *d, struct slab *slab, bool host_memory)
{
	const struct model_config *c = d->stage.config;
	struct head *head = &d->stage.head;
	size_t rows = (size_t)d->rows;

	if (!host_memory)
		d->x = take(slab, d->rows, c->width);
	d->sequence = slab_take(slab, rows * sizeof(int32_t));
	d->position = slab_take(slab, rows * sizeof(int32_t));
	if (d->spec.embedding)
		d->ids = slab_take(slab, rows * sizeof(int32_t));
	if (d->spec.blocks > 0 && !c->family->gpt2)
		d->stage.work.rope = take(slab, d->spec.room, c->head_size);
	d->gathered = take(slab, d->rows, c->family->gpt2 ? c->width : c->head_size);
	if (!d->spec.head)
		return;
	d->last = take(slab, FEW, c->width);
	head->h = take_of(slab, d->spec.dtype, FEW, c->width);
	head->stats = take(slab, FEW, 2);
	head->logits = take(slab, FEW, c->vocabulary);
}

/* Carves everything; with a null base it counts only. */
static void layout(struct generator *d, const struct weights *weights, struct slab *slab, bool host_memory)
{
	size_t used;

	frozen_layout(&d->stage, weights, slab, host_memory);
	d->bytes.weights = d->stage.bytes.weights;
	used = slab->used;
	layout_adapters(&d->stage, slab);
	d->bytes.adapters = slab->used - used;
	used = slab->used;
	layout_cache(d, slab);
	d->bytes.cache = slab->used - used;
	used = slab->used;
	if (d->spec.blocks > 0)
		layout_block(d, slab);
	layout_ends(d, slab, host_memory);
	d->bytes.work = slab->used - used;
	d->bytes.total = d->bytes.weights + d->bytes.adapters + d->bytes.cache + d->bytes.work;
}

static void prepare(struct generator *d, const struct model_config *config, const struct lora *lora,
		    const struct generator_spec *spec)
{
	struct stage_spec stage = {
		.first_block = spec->first_block,
		.blocks = spec->blocks,
		.embedding = spec->embedding,
		.head = spec->head,
		.sequences = 1,
		.tokens = spec->room,	/* of the table of rotary positions */
		.slots = 1,
		.edges = 1,
		.dtype = spec->dtype,
		.plain = true,		/* products of few rows read rows */
	};

	d->spec = *spec;
	d->rows = generator_rows(spec->rows);
	stage_prepare(&d->stage, config, lora, &stage);
	d->cached = xzalloc((size_t)spec->blocks + 1, sizeof(*d->cached));
}

static void unprepare(struct generator *d)
{
	stage_release(&d->stage);
	free(d->cached);
}

struct generator_memory generator_memory(const struct model_config *config, const struct weights *weights,
				     const struct lora *lora, const struct generator_spec *spec)
{
	struct generator d = {0};
	struct slab slab = {0};

	prepare(&d, config, lora, spec);
	layout(&d, weights, &slab, true);
	unprepare(&d);
	return d.bytes;
}

/* -- running ------------------------------------------------------------------------------- */

static struct run run_of(const struct generator *d, int rows)
{
	return (struct run){
		.dev = d->stage.dev,
		.config = d->stage.config,
		.work = &d->stage.work,
		.rows = rows,
		.tokens = rows,
		.few = rows <= FEW,
	};
}

/* The first rows of what a block leaves. */
static struct saved saved_of(const struct generator *d, const struct block *b, int rows)
{
	const struct model_config *c = d->stage.config;
	int queries = c->heads * c->head_size, keys = c->kv_heads * c->head_size;
	const struct saved *all = &d->saved;
	struct saved s = {
		.qkv = matrix_rows(all->qkv, 0, rows),
		.up = matrix_rows(all->up, 0, rows),
		.o = matrix_rows(all->o, 0, rows),
		.stats1 = matrix_cols(matrix_rows(all->stats1, 0, rows), 0, c->family->gpt2 ? 2 : 1),
	};

	s.stats2 = s.stats1;
	s.q = matrix_cols(s.qkv, 0, queries);
	s.k = matrix_cols(s.qkv, queries, keys);
	s.v = matrix_cols(s.qkv, queries + keys, keys);
	s.o.cols = queries;
	s.o.ld = (size_t)queries + (size_t)b->out.tail;
	s.gate_half = matrix_cols(s.up, 0, c->mlp);
	s.up_half = matrix_cols(s.up, b->up.out - c->mlp, c->mlp);
	if (c->qk_norm) {
		s.q_stats = matrix_rows(all->q_stats, 0, rows);
		s.k_stats = matrix_rows(all->k_stats, 0, rows);
	}
	return s;
}

/* Work memory of so many rows, and what the block's products need at that size. */
static void block_forward(const struct run *run, struct matrix x, struct saved *s, const struct block *b)
{
	if (run->config->family->gpt2)
		gpt2_forward(run, x, s, b);
	else
		llama_forward(run, x, s, b);
}

/* Positions of the rows, learnt or rotary, one behind the other. */
static void gather_positions(const struct generator *d, struct matrix table, const struct decode_row *row, int rows)
{
	struct device *dev = d->stage.dev;

	for (int i = 0, count; i < rows; i += count) {
		count = 1;
		while (i + count < rows && row[i + count].position == row[i].position + count)
			count++;
		dev->k.copy(dev, matrix_rows(d->gathered, i, count), matrix_rows(table, row[i].position, count));
	}
}

static void upload_rows(const struct generator *d, const struct decode_row *row, int rows)
{
	struct device *dev = d->stage.dev;
	size_t bytes = (size_t)rows * sizeof(int32_t);
	int32_t *sequence = d->host_rows, *position = sequence + d->rows, *ids = position + d->rows;

	for (int i = 0; i < rows; i++) {
		sequence[i] = row[i].sequence;
		position[i] = row[i].position;
		ids[i] = row[i].id;
	}
	dev->upload(dev, d->sequence, sequence, bytes);
	dev->upload(dev, d->position, position, bytes);
	if (d->spec.embedding)
		dev->upload(dev, d->ids, ids, bytes);
}

/* What the blocks begin with. Rows that fill up the last piece are zero: nobody reads what becomes of them. */
static void begin(const struct generator *d, struct matrix x, const float *host, const struct decode_row *row, int rows)
{
	const struct stage *stage = &d->stage;
	struct device *dev = stage->dev;
	struct matrix none = {0};

	if (stage->config->family->gpt2 && d->spec.embedding)
		gather_positions(d, stage->positions, row, rows);
	if (d->spec.embedding)
		dev->k.embed(dev, matrix_rows(x, 0, rows), d->ids, NULL, stage->tokens,
			     stage->config->family->gpt2 ? matrix_rows(d->gathered, 0, rows) : none, rows);
	else if (x.data != host)
		dev->upload(dev, x.data, host, (size_t)rows * (size_t)x.cols * sizeof(float));
	if (x.rows > rows)
		dev->k.fill(dev, matrix_rows(x, rows, x.rows - rows), 0);
	if (!stage->config->family->gpt2 && d->spec.blocks > 0)
		gather_positions(d, stage->work.rope, row, rows);
}

void generator_run(struct generator *d, float *host, const struct decode_row *row, int rows)
{
	struct device *dev = d->stage.dev;
	int C = d->stage.config->width, whole = whole_pieces(rows);
	struct matrix x = matrix(dev->host_memory ? host : d->x.data, whole, C);
	struct run run = run_of(d, whole);
	struct work work = d->stage.work;

	run.work = &work;
	work.q.rows = work.k.rows = whole;
	upload_rows(d, row, rows);
	begin(d, x, host, row, rows);
	work.rope = matrix_rows(d->gathered, 0, whole);
	for (int i = 0; i < d->spec.blocks; i++) {
		struct saved s = saved_of(d, &d->stage.block[i], whole);
		struct cached cached = d->cached[i];

		cached.sequence = d->sequence;
		cached.position = d->position;
		run.cached = &cached;
		run.new_rows = rows;
		block_forward(&run, x, &s, &d->stage.block[i]);
	}
	if (!dev->host_memory)
		dev->download(dev, host, x.data, (size_t)rows * (size_t)C * sizeof(float));
}

float *generator_logits(struct generator *d, const float *host, const int *which, int count)
{
	struct device *dev = d->stage.dev;
	int C = d->stage.config->width, V = d->stage.config->vocabulary;
	struct run run = run_of(d, count);
	struct head head = d->stage.head;

	for (int i = 0; i < count; i++)
		dev->upload(dev, (float *)d->last.data + (size_t)i * (size_t)C, host + (size_t)which[i] * (size_t)C,
			    (size_t)C * sizeof(float));
	head_next(&run, &head, matrix_rows(d->last, 0, count));
	if (dev->host_memory)
		return head.logits.data;
	dev->download(dev, d->host_logits, head.logits.data, (size_t)count * (size_t)V * sizeof(float));
	return d->host_logits;
}

/* -- life ---------------------------------------------------------------------------------- */

/* Whatever products need that is not memory of the generator is made now, for every size of rows. */
static void make_ready(const struct generator *d)
{
	for (int rows = PIECE; rows <= d->rows; rows += PIECE) {
		struct run run = run_of(d, rows);
		struct matrix x = matrix(NULL, rows, d->stage.config->width);

		for (int i = 0; i < d->spec.blocks; i++) {
			struct saved s = saved_of(d, &d->stage.block[i], rows);

			block_ready_forward(&run, &s, &d->stage.block[i], x);
		}
	}
}

static int allocate(struct generator *d, const struct weights *weights)
{
	struct device *dev = d->stage.dev;
	struct slab slab = {0};

	layout(d, weights, &slab, dev->host_memory);
	d->stage.memory = dev->alloc(dev, slab.used);
	if (!d->stage.memory)
		return -1;
	slab = (struct slab){d->stage.memory, 0};
	layout(d, weights, &slab, dev->host_memory);
	d->host_rows = xalloc(3 * (size_t)d->rows * sizeof(int32_t));
	if (!dev->host_memory && d->spec.head)
		d->host_logits = xalloc(FEW * (size_t)d->stage.config->vocabulary * sizeof(float));
	return 0;
}

struct generator *generator_open(struct device *dev, const struct model_config *config, const struct weights *weights,
			     const struct lora *lora, const struct generator_spec *spec, const float *values)
{
	struct generator *d = xzalloc(1, sizeof(*d));

	prepare(d, config, lora, spec);
	d->stage.dev = dev;
	if (allocate(d, weights)) {
		generator_close(d);
		return NULL;
	}
	frozen_load(&d->stage, weights);
	rope_load(&d->stage);
	dev->upload(dev, d->stage.values, values, d->stage.elements * sizeof(float));
	for (int i = 0; i < spec->blocks; i++)
		for (enum block_linear l = 0; l < BLOCK_LINEARS; l++)
			linear_adapt(dev, block_linear(&d->stage.block[i], l), true);
	make_ready(d);
	return d;
}

void generator_close(struct generator *d)
{
	if (!d)
		return;
	if (d->stage.memory)
		d->stage.dev->free(d->stage.dev, d->stage.memory);
	free(d->host_rows);
	free(d->host_logits);
	unprepare(d);
	free(d);
}
