/*
 * Attention on the CPU: how the work is cut into pieces, what a piece works on, and where.
 */
#ifndef EDGEPIPE_TENSOR_ATTENTION_PIECE_H
#define EDGEPIPE_TENSOR_ATTENTION_PIECE_H

#include "tensor/attention.h"

/* All of the work, made for the longest span; or a piece, made for its own, whose rows are all
 * that the matrices hold. */
struct work {
	const struct attention_kernels *k;
	struct attention shape;
	struct matrix dq, dk, dv, d_o; /* backward */
	struct matrix q, key, v, o, lse;
	int part, kv; /* of a piece */
	int group;  /* query heads of a key/value head */
	int blocks; /* of a head */
	int parts;  /* of a key/value head */
	int keys;   /* tokens, in whole panels */
	int wide;   /* head_size, in whole panels */
	int words;  /* of a head */
	int width;  /* the most keys of a block, in whole panels, and a cache line more lest all
		     * rows fall on the same cache sets */
	size_t bytes; /* of a thread's scratch */
	char *scratch;
	float *sums; /* of all pieces, after the threads' scratch; null with one part */
};

/* A thread's scratch. Words of keys and queries, see attention.h; then floats. */
struct room {
	uint32_t *key_columns, *key_pairs; /* kᵀ, k */
	uint32_t *v_columns, *v_pairs;	   /* in one place: forward needs v, backward vᵀ */
	uint32_t *q, *d_o;		   /* rows of a block */
	uint32_t *q_pairs, *d_o_pairs;
	uint32_t *p, *ds;	  /* pairs of rows of a block */
	float *scores, *dp, *out; /* of a strip */
	float *sums;		  /* dk, then dv */
};

static inline int whole(int n, int step)
{
	return (n + step - 1) / step * step;
}

/* All of the work of a shape, without its matrices; its sums and the threads' rooms are in
 * scratch. */
struct work attention_work(const struct attention_kernels *k, struct attention shape);
void attention_place(struct work *w, struct device *dev, void *scratch);
/* Key/value heads of all spans together, of which each is in all->parts pieces; the work of
 * one. */
int attention_heads(const struct work *all);
struct work attention_head(const struct work *all, int head);
/* Floats of the sums dk and dv of a part. */
size_t attention_sums(const struct work *w);
/* Piece `index` on a thread. False where its span has fewer parts than others. */
bool attention_piece(const struct work *all, int index, int thread, struct work *w,
		     struct room *r);

#endif
