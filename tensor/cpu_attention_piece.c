/*
 * Attention on the CPU: pieces of work. A span (a sequence, or a segment) is cut by its length
 * alone, and so are its sums, whatever other spans there are beside it.
 */
#include "tensor/attention_piece.h"
#include "tensor/internal.h"

/* Pieces of a span, at least, where there is as much work: enough for as many threads. */
#define PIECES 8

struct work attention_work(const struct attention_kernels *k, struct attention shape)
{
	struct work w = {.k = k, .shape = shape, .group = shape.heads / shape.kv_heads};
	int seen = shape.tokens;

	/* Before the window of the first query, its panel begins. */
	if (shape.window > 0 && shape.window < shape.tokens - BLOCK - PANEL)
		seen = shape.window + BLOCK + PANEL;
	w.blocks = (shape.tokens - 1) / BLOCK + 1;
	w.parts = at_most((PIECES - 1) / shape.kv_heads + 1, w.group * w.blocks);
	/* So short a segment has others beside it, and room of its own for sums: see
	 * sums_at. */
	if (shape.segments > 0 && w.blocks == 1)
		w.parts = 1;
	w.keys = whole(shape.tokens, PANEL);
	w.wide = whole(shape.head_size, PANEL);
	w.words = whole(shape.head_size, k->pair) / k->pair;
	w.width = whole(seen, PANEL) + 16;
	return w;
}

/* A thread's scratch while it is divided; null where only its size is asked for. */
struct scratch {
	char *memory;
	size_t used;
};

/* The next `count` floats or words, on a cache line. */
static void *taken(struct scratch *s, size_t count)
{
	char *start = s->memory ? s->memory + s->used : NULL;

	s->used += (count + 15) / 16 * 64;
	return start;
}

size_t attention_sums(const struct work *w)
{
	return 2 * (size_t)w->keys * (size_t)w->wide;
}

static struct room divided(const struct work *w, struct scratch *scratch)
{
	size_t head = (size_t)w->keys * (size_t)w->wide / (size_t)w->k->pair;
	size_t block = BLOCK * (size_t)w->wide / (size_t)w->k->pair;
	size_t scores = BLOCK * (size_t)w->width / (size_t)w->k->pair;
	struct room r;

	r.key_columns = taken(scratch, head);
	r.key_pairs = taken(scratch, head);
	r.v_columns = r.v_pairs = taken(scratch, head);
	r.q = taken(scratch, block);
	r.d_o = taken(scratch, block);
	r.q_pairs = taken(scratch, block);
	r.d_o_pairs = taken(scratch, block);
	r.p = taken(scratch, scores);
	r.ds = taken(scratch, scores);
	r.scores = taken(scratch, STRIP * (size_t)w->width);
	r.dp = taken(scratch, STRIP * (size_t)w->width);
	r.out = taken(scratch, STRIP * (size_t)w->wide);
	r.sums =
	    w->parts > 1 && w->shape.segments == 0 ? NULL : taken(scratch, attention_sums(w));
	return r;
}

static size_t thread_bytes(const struct work *w)
{
	struct scratch scratch = {0};

	divided(w, &scratch);
	return scratch.used;
}

/*
 * Where the sums of a segment that begins at row `first` lie, in floats: a segment in parts has
 * more than BLOCK rows, so that its keys in whole panels are at most half as many again.
 */
static size_t sums_at(const struct work *w, int first)
{
	size_t keys = (size_t)first + (size_t)first / 2;

	return keys * 2 * (size_t)w->wide * (size_t)(w->shape.kv_heads * w->parts);
}

size_t attention_bytes(const struct attention_kernels *k, int threads, struct attention shape)
{
	struct work w = attention_work(k, shape);
	size_t sums = 0;

	if (w.parts > 1 && shape.segments > 0)
		sums = sums_at(&w, shape.sequences * shape.tokens);
	else if (w.parts > 1)
		sums =
		    (size_t)(shape.sequences * shape.kv_heads * w.parts) * attention_sums(&w);
	return 64 + (size_t)threads * thread_bytes(&w) + sums * sizeof(float);
}

void attention_place(struct work *w, struct device *dev, void *scratch)
{
	w->scratch = (char *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
	w->bytes = thread_bytes(w);
	if (w->parts > 1)
		w->sums = (float *)(w->scratch + (size_t)pool_threads(dev->pool) * w->bytes);
}

int attention_heads(const struct work *all)
{
	const struct attention *shape = &all->shape;

	return (shape->segments > 0 ? shape->segments : shape->sequences) * shape->kv_heads;
}

/* Rows that attend to each other: number s of such spans. */
static struct segment span_of(const struct attention *shape, int s)
{
	return shape->segments > 0 ? shape->segment[s]
				   : (struct segment){s * shape->tokens, shape->tokens, 0};
}

struct work attention_head(const struct work *all, int head)
{
	struct segment span = span_of(&all->shape, head / all->shape.kv_heads);
	struct attention shape = all->shape;

	shape.tokens = span.tokens;
	struct work w = attention_work(all->k, shape);

	w.kv = head % shape.kv_heads;
	w.dq = matrix_rows(all->dq, span.first, span.tokens);
	w.dk = matrix_rows(all->dk, span.first, span.tokens);
	w.dv = matrix_rows(all->dv, span.first, span.tokens);
	w.d_o = matrix_rows(all->d_o, span.first, span.tokens);
	w.q = matrix_rows(all->q, span.first, span.tokens);
	w.key = matrix_rows(all->key, span.first, span.tokens);
	w.v = matrix_rows(all->v, span.first, span.tokens);
	w.o = matrix_rows(all->o, span.first, span.tokens);
	w.lse = matrix_rows(all->lse, span.first, span.tokens);
	if (w.parts == 1)
		return w;
	if (shape.segments > 0)
		w.sums = all->sums + sums_at(all, span.first) +
			 (size_t)(w.kv * w.parts) * attention_sums(&w);
	else
		w.sums = all->sums + (size_t)(head * w.parts) * attention_sums(&w);
	return w;
}

bool attention_piece(const struct work *all, int index, int thread, struct work *w,
		     struct room *r)
{
	struct scratch scratch = {all->scratch + (size_t)thread * all->bytes, 0};

	*w = attention_head(all, index / all->parts);
	*r = divided(all, &scratch);
	w->part = index % all->parts;
	if (w->parts > 1)
		r->sums = w->sums + (size_t)w->part * attention_sums(w);
	return w->part < w->parts;
}
