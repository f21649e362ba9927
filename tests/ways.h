/*
 * tests/ways.h - ways to train stages: adapters of a rank and dropout, which rows are trained, where the model is cut;
 * one micro-batch of them, and how far results are apart. Includes tests/stages.h.
 */
#ifndef EDGEPIPE_TESTS_WAYS_H
#define EDGEPIPE_TESTS_WAYS_H

#include "tests/stages.h"

#include <math.h>
#include <stdlib.h>

/* -- a way to train ------------------------------------------------------------------------ */

enum labels { LABELS_GOLDEN, LABELS_ALL, LABELS_FEW, LABELS_NONE };

/* What is trained: adapters (rank 0: the case's own), and of which rows of the golden batch. */
struct way {
	const char *name, *targets;
	int rank;
	double dropout;
	int sequences, tokens;
	enum labels labels;
};

static inline float number(uint32_t key, size_t index)
{
	struct philox at = {{(uint32_t)index, 0, 0, 0}};

	return 2 * philox_unit(philox(at, key, 17).word[0]) - 1;
}

/* Adapters of the way's own, of which B is not zero. */
static inline void adapt(struct golden *g, const struct way *way)
{
	const char *targets[] = {way->targets};
	struct lora_config want = {.rank = way->rank, .alpha = 2 * way->rank,
				   .dropout = way->dropout, .targets = {targets, 1}};

	if (way->rank == 0)
		return;
	lora_free(g->lora);
	g->lora = lora_resolve(g->config, &want);
	ck_assert_ptr_nonnull(g->lora);
	g->initial = arena_take(&g->arena, g->lora->elements * sizeof(float));
	ck_assert_int_eq(lora_values(g->lora, 0, g->lora->count, 1, g->initial), 0);
	for (int i = 0; i < g->lora->count; i++) {
		const struct lora_tensor *t = &g->lora->tensor[i];
		float size = 0.3f / sqrtf((float)way->rank);

		for (int e = 0; t->is_b && e < t->rows * t->cols; e++)
			g->initial[t->offset + (size_t)e] = size * number((uint32_t)i, (size_t)e);
	}
}

static inline void label(struct golden *g, enum labels labels, int rows)
{
	if (labels != LABELS_GOLDEN)
		g->trained = 0;
	for (int i = 0; i < rows && labels != LABELS_GOLDEN; i++) {
		bool trained = labels == LABELS_ALL || (labels == LABELS_FEW && i % 17 == 3);

		g->labels[i] = trained ? g->ids[(i + 1) % rows] : -100;
		g->trained += trained;
	}
}

/* -- one micro-batch ----------------------------------------------------------------------- */

struct result {
	double loss;		/* per trained row */
	float *gradients;
};

/* The stages that a model is cut into; all their numbers add up to its blocks. */
struct cut {
	int stages, blocks[3];
};

static inline struct stage *open_part(struct golden *g, struct device *dev, const struct way *way,
			       int first, int blocks, bool head, size_t *offset)
{
	struct stage_spec spec = whole(g);
	struct stage *stage;
	int from, to;

	spec.first_block = first;
	spec.blocks = blocks;
	spec.embedding = first == 0;
	spec.head = head;
	spec.sequences = way->sequences;
	spec.tokens = way->tokens;
	lora_range(g->lora, first, blocks, &from, &to);
	*offset = from < to ? g->lora->tensor[from].offset : 0;
	stage = stage_open(dev, g->config, g->weights, g->lora, &spec, g->initial + *offset);
	ck_assert_ptr_nonnull(stage);
	stage_zero_gradients(stage);
	return stage;
}

/* Forward and backward, as ranks of a pipeline would. */
static inline struct result train_cut(struct golden *g, const char *device, int threads,
			       const struct way *way, const struct cut *cut)
{
	struct device *dev = device_open(device, threads);
	struct micro_batch micro = micro_batch(g);
	struct stage *stage[3];
	struct result result = {0};
	size_t offset[3], bytes = (size_t)(way->sequences * way->tokens) *
				  (size_t)g->config->width * sizeof(float);
	int first = 0, last = cut->stages - 1;

	micro.loss_scale = g->trained ? 1.0f / (float)g->trained : 1;
	result.gradients = arena_take(&g->arena, g->lora->elements * sizeof(float));
	for (int s = 0; s <= last; first += cut->blocks[s++])
		stage[s] = open_part(g, dev, way, first, cut->blocks[s], s == last, &offset[s]);
	ck_assert_int_eq(first, g->config->blocks);
	for (int s = 0; s <= last; s++) {
		if (s > 0)
			memcpy(stage_input(stage[s], 0), stage_edge(stage[s - 1], 0), bytes);
		stage_forward(stage[s], 0, &micro, &result.loss);
	}
	for (int s = last; s >= 0; s--) {
		stage_backward(stage[s], 0, &micro);
		if (s > 0)
			memcpy(stage_edge(stage[s - 1], 0), stage_edge(stage[s], 0), bytes);
		if (cut->blocks[s] > 0)
			stage_read(stage[s], STAGE_GRADIENTS, result.gradients + offset[s]);
		stage_close(stage[s]);
	}
	device_close(dev);
	if (g->trained)
		result.loss /= g->trained;
	return result;
}

static inline struct result train(struct golden *g, enum dtype dtype, const char *device, int threads,
			   const struct way *way)
{
	struct cut uncut = {1, {g->config->blocks}};

	g->dtype = dtype;
	return train_cut(g, device, threads, way, &uncut);
}

static inline void same_bits(const struct golden *g, const struct result *a, const struct result *b,
		      const char *what)
{
	ck_assert_msg(!memcmp(&a->loss, &b->loss, sizeof a->loss), "%s: loss %.17g, not %.17g",
		      what, b->loss, a->loss);
	for (size_t i = 0; i < g->lora->elements; i++)
		ck_assert_msg(!memcmp(a->gradients + i, b->gradients + i, sizeof(float)),
			      "%s: gradient %zu is %.9g, not %.9g", what, i,
			      (double)b->gradients[i], (double)a->gradients[i]);
}

/* -- how far apart -------------------------------------------------------------------------- */

static inline double norm_of(const float *x, size_t count)
{
	double squares = 0;

	for (size_t i = 0; i < count; i++)
		squares += (double)x[i] * (double)x[i];
	return sqrt(squares);
}

/* |x - y| as a part of |y|. */
static inline double error_of(const float *x, const float *y, size_t count)
{
	double squares = 0;

	for (size_t i = 0; i < count; i++)
		squares += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
	return sqrt(squares) / norm_of(y, count);
}

#endif
