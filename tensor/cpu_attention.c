/*
 * Attention on the CPU. A piece of work is a part of the query heads of one key/value head of
 * one span: a sequence, or a segment. It packs k and v once, then takes the queries eight at a
 * time: their scores against all keys that any of them sees lie in the first cache while they
 * become probabilities. Of these only lse, the log-sum-exp of every row, is kept.
 *
 * Backward makes the probabilities again. What a block of queries adds to dk and dv is summed
 * in F32, head after head and block after block; each part has sums of its own, which are added
 * in order at the end. The parts depend on the length of a span alone, so that no sum depends
 * on which thread does what, nor on how many spans there are.
 */
#include <math.h>
#include <string.h>

#include "tensor/attention_piece.h"
#include "tensor/internal.h"

/* Queries first..first+rows-1 of head h. */
struct block {
	int h, first, rows;
	int key; /* the first that any sees, in whole panels */
};

/* Head h of token i. */
static void *head_of(const struct work *w, struct matrix m, int i, int h)
{
	return (char *)m.data + ((size_t)i * m.ld + (size_t)h * (size_t)w->shape.head_size) *
				    (m.dtype == DTYPE_BF16 ? 2 : 4);
}

/* -- packing ------------------------------------------------------------------------------- */

/* Rows of words, w->wide / pair apart; rows that are not there are 0. */
static void load_rows(const struct work *w, uint32_t *to, struct matrix m, int first, int rows,
		      int h)
{
	int i = 0, end = w->shape.tokens - first;
	size_t ld = (size_t)(w->wide / w->k->pair);

	for (; i < rows && i < end; i++)
		w->k->load(to + (size_t)i * ld, w->wide, head_of(w, m, first + i, h),
			   w->shape.head_size, m.dtype);
	memset(to + (size_t)i * ld, 0, (size_t)(rows - i) * ld * sizeof *to);
}

/* `rows` of `total` rows of panels of pairs, from rows of words; first is a whole panel. */
static void pack_pairs(const struct work *w, uint32_t *to, const uint32_t *from, int first,
		       int rows, int total)
{
	size_t ld = (size_t)(w->wide / w->k->pair);

	for (int j = 0; j < w->wide; j += PANEL)
		w->k->interleave(to + ((size_t)j * (size_t)total + (size_t)first * PANEL) /
					  (size_t)w->k->pair,
				 from + j / w->k->pair, ld, rows);
}

/* The panel of columns of key j: words of a head by PANEL keys. */
static uint32_t *columns(const struct work *w, uint32_t *packed, int j)
{
	return packed + (size_t)j * (size_t)(w->wide / w->k->pair);
}

/* Panel j of pairs of a matrix of `total` rows, from row first on. */
static const uint32_t *pairs(const struct work *w, const uint32_t *packed, int j, int first,
			     int total)
{
	return packed +
	       ((size_t)j * (size_t)total + (size_t)first * PANEL) / (size_t)w->k->pair;
}

/* Head kv of m as columns and as pairs; either may be null. */
static void pack_head(const struct work *w, uint32_t *as_columns, uint32_t *as_pairs,
		      uint32_t *rows, struct matrix m, int kv)
{
	for (int j = 0; j < w->keys; j += PANEL) {
		load_rows(w, rows, m, j, PANEL, kv);
		if (as_columns)
			w->k->transpose(columns(w, as_columns, j), rows,
					(size_t)(w->wide / w->k->pair), whole(w->words, 4));
		if (as_pairs)
			pack_pairs(w, as_pairs, rows, j, PANEL, w->keys);
	}
}

/* -- pieces, blocks and strips ------------------------------------------------------------- */

/* The first key of the panel where the window of a query begins. */
static int first_panel(const struct work *w, int query)
{
	int window = w->shape.window;

	return window > 0 && query >= window ? (query - window + 1) / PANEL * PANEL : 0;
}

/* Unit n of the part's: part 0 takes units 0, 2p-1, 2p, ...; part 1 units 1, 2p-2, 2p+1, ...:
 * late blocks see more keys than early ones. False where there is none. */
static bool block_of(const struct work *w, int n, struct block *b)
{
	int unit = n * w->parts + (n % 2 ? w->parts - 1 - w->part : w->part);

	if (n > (w->group * w->blocks - 1) / w->parts)
		return false;
	b->h = w->kv * w->group + unit / w->blocks;
	b->first = unit % w->blocks * BLOCK;
	b->rows = w->shape.tokens - b->first < BLOCK ? w->shape.tokens - b->first : BLOCK;
	b->key = first_panel(w, b->first);
	if (unit >= w->group * w->blocks)
		b->rows = 0;
	return true;
}

/* Keys from..end-1, in whole panels, of the strip of queries from `query` on. */
static void strip_keys(const struct work *w, int query, int *from, int *end)
{
	*from = first_panel(w, query);
	*end = whole(query + STRIP < w->keys ? query + STRIP : w->keys, PANEL);
}

/* Products of a strip of rows of words with the columns of keys from..end-1. */
static void strip_product(const struct work *w, float *to, const uint32_t *rows,
			  uint32_t *packed, int from, int end, float alpha)
{
	for (int j = from; j < end; j += PANEL)
		w->k->product(to + (j - from), (size_t)w->width, rows,
			      (size_t)(w->wide / w->k->pair), columns(w, packed, j), w->words,
			      alpha);
}

/* Scaled scores of a strip, -infinity where a key is not seen. */
static void strip_scores(const struct work *w, const struct room *r, const struct block *b,
			 int row, int from, int end)
{
	strip_product(w, r->scores, r->q + (size_t)row * (size_t)(w->wide / w->k->pair),
		      r->key_columns, from, end, w->shape.scale);
	for (int i = 0; i < STRIP; i++) {
		float *s = r->scores + (size_t)i * (size_t)w->width;
		int query = b->first + row + i, low = query - w->shape.window + 1 - from;
		int high = row + i < b->rows ? query + 1 - from : 0;

		for (int j = 0; w->shape.window > 0 && j < low && j < end - from; j++)
			s[j] = -INFINITY;
		for (int j = high; j < end - from; j++)
			s[j] = -INFINITY;
	}
}

/* Into r->out, a strip's words, in rows of width, times the pairs of keys from `from` on. */
static void strip_sums(const struct work *w, const struct room *r, const float *words,
		       const uint32_t *packed, int from, int query)
{
	int end = query + STRIP < w->keys ? query + STRIP : w->keys;

	for (int d = 0; d < w->wide; d += PANEL)
		w->k->product(r->out + d, (size_t)w->wide, (const uint32_t *)words,
			      (size_t)w->width, pairs(w, packed, d, from, w->keys),
			      (end - from) / w->k->pair, 1);
}

/* -- forward ------------------------------------------------------------------------------- */

static void attend_strip(const struct work *w, const struct room *r, const struct block *b,
			 int row)
{
	int from, end, query = b->first + row;
	float total[STRIP];

	strip_keys(w, query, &from, &end);
	strip_scores(w, r, b, row, from, end);
	for (int i = 0; i < STRIP && row + i < b->rows; i++) {
		float *s = r->scores + (size_t)i * (size_t)w->width;
		float most = w->k->softmax(s, end - from, &total[i]);

		row_of(w->lse, query + i)[b->h] = most + logf(total[i]);
	}
	strip_sums(w, r, r->scores, r->v_pairs, from, query);
	for (int i = 0; i < STRIP && row + i < b->rows; i++)
		w->k->store(head_of(w, w->o, query + i, b->h), w->o.dtype,
			    r->out + (size_t)i * (size_t)w->wide, w->shape.head_size,
			    1 / total[i]);
}

static void attend_piece(void *arg, int index, int thread)
{
	struct work w;
	struct room r;
	struct block b;

	if (!attention_piece(arg, index, thread, &w, &r))
		return;
	pack_head(&w, r.key_columns, NULL, r.q, w.key, w.kv);
	pack_head(&w, NULL, r.v_pairs, r.q, w.v, w.kv);
	for (int n = 0; block_of(&w, n, &b); n++) {
		if (b.rows == 0)
			continue;
		load_rows(&w, r.q, w.q, b.first, BLOCK, b.h);
		for (int row = 0; row < b.rows; row += STRIP)
			attend_strip(&w, &r, &b, row);
	}
}

void attention_forward(const struct attention_kernels *k, struct device *dev, struct matrix o,
		       struct matrix lse, struct matrix q, struct matrix key, struct matrix v,
		       struct attention shape, void *scratch)
{
	struct work w = attention_work(k, shape);

	w.o = o;
	w.lse = lse;
	w.q = q;
	w.key = key;
	w.v = v;
	attention_place(&w, dev, scratch);
	pool_run(dev->pool, attention_heads(&w) * w.parts, attend_piece, &w);
}

/* -- backward ------------------------------------------------------------------------------ */

/*
 * o = p v, p = softmax(scale q kᵀ): dp = do vᵀ; ds = scale p (dp - p.dp); dq = ds k. p.dp is
 * do.o, but so a query that sees one key alone gets 0 and not the rounding of two sums, which
 * Adam would follow.
 */
static void strip_gradient(const struct work *w, const struct room *r, const struct block *b,
			   int row)
{
	int from, end, query = b->first + row, pair = w->k->pair;
	size_t width = (size_t)w->width;
	float lse[STRIP] = {0};

	strip_keys(w, query, &from, &end);
	strip_scores(w, r, b, row, from, end);
	strip_product(w, r->dp, r->d_o + (size_t)row * (size_t)(w->wide / pair), r->v_columns,
		      from, end, 1);
	for (int i = 0; i < STRIP && row + i < b->rows; i++)
		lse[i] = row_of(w->lse, query + i)[b->h];
	for (int i = 0; i < STRIP; i += pair) {
		size_t at = (size_t)((row + i) / pair) * width + (size_t)(from - b->key);

		w->k->gradient(r->scores + (size_t)i * width, r->dp + (size_t)i * width, width,
			       end - from, lse + i, w->shape.scale, r->p + at, r->ds + at);
	}
	strip_sums(w, r, r->dp, r->key_pairs, from, query);
	for (int i = 0; i < STRIP && row + i < b->rows; i++)
		w->k->store(head_of(w, w->dq, query + i, b->h), w->dq.dtype,
			    r->out + (size_t)i * (size_t)w->wide, w->shape.head_size, 1);
}

/* dv += pᵀ do, dk += dsᵀ q for STRIP keys, from the block's strips that see any of them. */
static void key_sums(const struct work *w, const struct room *r, const struct block *b, int key)
{
	int first = key > b->first ? key - b->first : 0, end = whole(b->rows, STRIP);
	int pair = w->k->pair, window = w->shape.window;
	float *dk = r->sums + (size_t)key * (size_t)w->wide;
	float *dv = dk + (size_t)w->keys * (size_t)w->wide;
	size_t width = (size_t)w->width, at;

	if (window > 0 && key + STRIP - 1 + window - b->first < end)
		end = whole(key + STRIP - 1 + window - b->first, STRIP);
	at = (size_t)(first / pair) * width + (size_t)(key - b->key);
	for (int d = 0; d < w->wide && first < end; d += PANEL) {
		w->k->add_product(dv + d, (size_t)w->wide, r->p + at, width,
				  pairs(w, r->d_o_pairs, d, first, BLOCK),
				  (end - first) / pair);
		w->k->add_product(dk + d, (size_t)w->wide, r->ds + at, width,
				  pairs(w, r->q_pairs, d, first, BLOCK), (end - first) / pair);
	}
}

static void block_gradient(const struct work *w, const struct room *r, const struct block *b)
{
	load_rows(w, r->q, w->q, b->first, BLOCK, b->h);
	load_rows(w, r->d_o, w->d_o, b->first, BLOCK, b->h);
	pack_pairs(w, r->q_pairs, r->q, 0, BLOCK, BLOCK);
	pack_pairs(w, r->d_o_pairs, r->d_o, 0, BLOCK, BLOCK);
	for (int row = 0; row < b->rows; row += STRIP)
		strip_gradient(w, r, b, row);
	for (int key = b->key; key < b->first + b->rows; key += STRIP)
		key_sums(w, r, b, key);
}

/* dk and dv of a head from the first of its parts' sums, with the others added. */
static void store_sums(const struct work *w, float *sums)
{
	size_t head = (size_t)w->keys * (size_t)w->wide, row;

	for (int part = 1; part < w->parts; part++)
		w->k->add(sums, sums + (size_t)part * 2 * head, 2 * head);
	for (int j = 0; j < w->shape.tokens; j++) {
		row = (size_t)j * (size_t)w->wide;
		w->k->store(head_of(w, w->dk, j, w->kv), w->dk.dtype, sums + row,
			    w->shape.head_size, 1);
		w->k->store(head_of(w, w->dv, j, w->kv), w->dv.dtype, sums + head + row,
			    w->shape.head_size, 1);
	}
}

static void gradient_piece(void *arg, int index, int thread)
{
	struct work w;
	struct room r;
	struct block b;

	if (!attention_piece(arg, index, thread, &w, &r))
		return;
	memset(r.sums, 0, attention_sums(&w) * sizeof *r.sums);
	pack_head(&w, r.key_columns, r.key_pairs, r.q, w.key, w.kv);
	pack_head(&w, r.v_columns, NULL, r.q, w.v, w.kv);
	for (int n = 0; block_of(&w, n, &b); n++)
		if (b.rows > 0)
			block_gradient(&w, &r, &b);
	if (w.parts == 1)
		store_sums(&w, r.sums);
}

static void sum_parts(void *arg, int index, int thread)
{
	struct work w = attention_head(arg, index);

	(void)thread;
	if (w.parts > 1)
		store_sums(&w, w.sums);
}

void attention_gradients(const struct attention_kernels *k, struct device *dev,
			 struct matrix dq, struct matrix dk, struct matrix dv,
			 struct matrix d_o, struct matrix q, struct matrix key, struct matrix v,
			 struct matrix lse, struct attention shape, void *scratch)
{
	struct work w = attention_work(k, shape);
	int heads = attention_heads(&w);

	w.dq = dq;
	w.dk = dk;
	w.dv = dv;
	w.d_o = d_o;
	w.q = q;
	w.key = key;
	w.v = v;
	w.lse = lse;
	attention_place(&w, dev, scratch);
	pool_run(dev->pool, heads * w.parts, gradient_piece, &w);
	if (w.parts > 1)
		pool_run(dev->pool, heads, sum_parts, &w);
}
