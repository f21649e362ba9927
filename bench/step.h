/*
 * bench/step.h - the matrix products of a training step: those of every linear, forward and
 * backward, of the head in its chunks of rows, and of attention.
 */
#ifndef EDGEPIPE_BENCH_STEP_H
#define EDGEPIPE_BENCH_STEP_H

#include "model/block.h"

#include <stdio.h>
#include <string.h>

#define PRODUCTS 40

/* c (m,n) = a (m,k) b (k,n), so often in a micro-batch; `each` at once, a thread each, where it is
 * not 0. */
struct product {
	char name[32];
	int m, n, k, count;
	bool logits; /* c is F32 in any precision */
	int each;
};

static inline size_t items(const struct product *p)
{
	return p->each ? (size_t)p->each : 1;
}

static inline void add(struct product *p, int *count, struct product one,
		       const char *suffix)
{
	if (*count == PRODUCTS || one.count == 0)
		return;
	p[*count] = one;
	snprintf(p[*count].name, sizeof p->name, "%.20s %s", one.name, suffix);
	++*count;
}

/* The module's name: "attn.c_attn.weight" without its ends. */
static inline void name_of(char *name, size_t bytes, const char *tensor)
{
	const char *end = strrchr(tensor, '.'), *start = end;

	while (start && start > tensor && start[-1] != '.')
		start--;
	snprintf(name, bytes, "%.*s", end ? (int)(end - start) : (int)strlen(tensor),
		 end ? start : tensor);
}

static inline bool reads_the_block(enum slot slot)
{
	return slot == SLOT_QKV || slot == SLOT_Q || slot == SLOT_K || slot == SLOT_V;
}

/* q kt and do vt; p v and ds k; pt do and dst q. */
static inline void attention_products(struct product *p, int *count,
				      const struct model_config *config, int rows, int T)
{
	struct product one = {.name = "attention", T, T / 2, config->head_size,
			      2 * config->blocks, false, config->heads * (rows / T)};

	add(p, count, one, "q k");
	one.n = config->head_size;
	one.k = T / 2;
	add(p, count, one, "p v");
	one.m = T / 2;
	one.k = T;
	add(p, count, one, "pt d");
}

/* Of a micro-batch of so many rows; attention's where T, the sequence, is not 0. */
static inline int step_products(struct product *p, const struct model_config *config, int rows,
				int T)
{
	int count = 0, chunk = head_rows(rows, config->vocabulary);
	struct product head = {.name = "head", chunk, config->vocabulary, config->width,
			       (rows + chunk - 1) / chunk, true, 0};
	struct product back = {.name = "head", chunk, config->width, config->vocabulary,
			       head.count, false, 0};

	for (const struct tensor_row *row = config->family->row; row->name; row++) {
		int a = dim_size(config, row->rows), b = dim_size(config, row->cols);
		int in = row->transposed ? a : b, out = row->transposed ? b : a;
		struct product one = {.m = rows, .n = out, .k = in, .count = config->blocks};

		if (!row->linear || row->cols == DIM_NONE ||
		    (row->present && !row->present(config)))
			continue;
		name_of(one.name, sizeof one.name, row->name);
		add(p, &count, one, "forward");
		one.n = in;
		one.k = out;
		one.count -= reads_the_block(row->slot);
		add(p, &count, one, "backward");
	}
	add(p, &count, head, "forward");
	add(p, &count, back, "backward");
	if (T)
		attention_products(p, &count, config, rows, T);
	return count;
}

#endif
