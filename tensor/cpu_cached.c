/*
 * Attention of new tokens against keys and values that are kept, on the CPU (how those lie:
 * ref_cached.c). One piece is one token and some query heads of one key head, which are read
 * once for them; the softmax goes along with the sum, a block of keys at a time (Milakov and
 * Gimelshein, "Online normalizer calculation for softmax", 2018).
 *
 * Blocks begin at multiples of BLOCK_KEYS, so a token's bits depend neither on its neighbours
 * nor on how many tokens came at once.
 */
#include <math.h>

#include "tensor/internal.h"
#include "tensor/lanes.h"

#define BLOCK_KEYS 64
#define HEADS 4			/* query heads of a piece, at most */
#define WIDE 512		/* numbers of a head; wider ones are left to the reference */
#define SPAN 4			/* vectors of a head's numbers that are summed together */

_Static_assert(CACHED_KEYS == LANES && BLOCK_KEYS % CACHED_KEYS == 0, "a panel is a vector");

struct attend {
	struct matrix o, q;
	const struct cached *c;
	int parts;		/* pieces of a key head */
};

/* What a piece has summed so far. */
struct sums {
	float q[HEADS][WIDE], o[HEADS][WIDE];
	float score[HEADS][BLOCK_KEYS];
	float most[HEADS], sum[HEADS];
};

/* Scores of a panel's keys, D numbers each. */
INLINE void panel_scores(struct sums *s, int heads, const void *keys, bool half, int D, int at)
{
	for (int h = 0; h < heads; h++) {
		const float *q = s->q[h];
		lanes sum = {0};

		for (int d = 0; d < D; d++)
			sum += q[d] * LOAD(keys, d * LANES, half);
		*(lanes *)(s->score[h] + at) = sum;
	}
}

/* o += the sum of p v over count keys, whose values are D numbers each. */
INLINE void add_values(float *o, const float *p, const void *values, bool half, int count,
		       int D)
{
	int d = 0;

	for (; d + SPAN * LANES <= D; d += SPAN * LANES) {
		lanes a[SPAN];

		for (int k = 0; k < SPAN; k++)
			a[k] = *(lanes *)(o + d + k * LANES);
		for (int t = 0; t < count; t++)
			for (int k = 0; k < SPAN; k++)
				a[k] += p[t] * LOAD(values, t * D + d + k * LANES, half);
		for (int k = 0; k < SPAN; k++)
			*(lanes *)(o + d + k * LANES) = a[k];
	}
	for (; d < D; d++)
		for (int t = 0; t < count; t++)
			o[d] += p[t] * ONE(values, t * D + d, half);
}

/* Scores of keys outside of [from, to) of the block are gone; the others become exp(score -
 * most). */
INLINE void weigh(struct sums *s, int h, int from, int to, float scale, int D)
{
	float *x = s->score[h], most = s->most[h], factor;

	for (int t = 0; t < BLOCK_KEYS; t++)
		x[t] = t >= from && t < to ? x[t] * scale : -__builtin_inff();
	most = fmaxf(most, row_most(x, BLOCK_KEYS));
	factor = vector_exp(s->most[h] - most);
	for (int t = 0; t < BLOCK_KEYS; t++)
		x[t] = vector_exp(x[t] - most);
	for (int d = 0; d < D; d++)
		s->o[h][d] *= factor;
	s->sum[h] = s->sum[h] * factor + row_sum(x, BLOCK_KEYS);
	s->most[h] = most;
}

/* Keys [first, last] of a block that begins with key `block`, of which they are part. */
INLINE void add_block(struct sums *s, int heads, const struct cached *c, size_t head, bool half,
		      int block, int first, int last)
{
	size_t bytes = half ? sizeof(uint16_t) : sizeof(float);
	const char *keys = (const char *)c->keys + head * bytes;
	const char *values = (const char *)c->values + head * bytes;
	int D = c->head_size, from = first > block ? first - block : 0;
	int to = at_most(last + 1 - block, BLOCK_KEYS);

	for (int t = from / LANES * LANES; t < to; t += LANES)
		panel_scores(s, heads, keys + (size_t)(block + t) * (size_t)D * bytes, half, D,
			     t);
	for (int h = 0; h < heads; h++) {
		weigh(s, h, from, to, c->scale, D);
		add_values(s->o[h], s->score[h] + from,
			   values + (size_t)(block + from) * (size_t)D * bytes, half, to - from,
			   D);
	}
}

VECTOR static void add_all(struct sums *s, int heads, const struct cached *c, size_t head,
			   int first, int last)
{
	for (int block = first / BLOCK_KEYS * BLOCK_KEYS; block <= last; block += BLOCK_KEYS) {
		if (c->dtype == DTYPE_BF16)
			add_block(s, heads, c, head, true, block, first, last);
		else
			add_block(s, heads, c, head, false, block, first, last);
	}
}

static void attend_piece(void *arg, int index, int thread)
{
	const struct attend *a = arg;
	const struct cached *c = a->c;
	int D = c->head_size, group = c->heads / c->kv_heads;
	int i = index / (c->kv_heads * a->parts), g = index / a->parts % c->kv_heads;
	int first_head = index % a->parts * HEADS, heads = at_most(group - first_head, HEADS);
	int column = (g * group + first_head) * D, last = c->position[i];
	struct sums s;

	(void)thread;
	for (int h = 0; h < heads; h++) {
		struct matrix q = matrix_cols(a->q, column + h * D, D);
		float *to = s.q[h];

		chunk_copy((struct matrix){to, 1, D, WIDE, DTYPE_F32}, matrix_rows(q, i, 1), 0,
			   0, D);
		memset(s.o[h], 0, (size_t)D * sizeof(float));
		s.most[h] = -__builtin_inff();
		s.sum[h] = 0;
	}
	add_all(&s, heads, c, cached_head(c, c->sequence[i], g),
		c->window > 0 && last >= c->window ? last - c->window + 1 : 0, last);
	for (int h = 0; h < heads; h++) {
		struct matrix o = matrix_cols(a->o, column + h * D, D);

		for (int d = 0; d < D; d++)
			s.o[h][d] /= s.sum[h];
		chunk_copy(matrix_rows(o, i, 1), (struct matrix){s.o[h], 1, D, WIDE, DTYPE_F32},
			   0, 0, D);
	}
}

static void cpu_attend(struct device *dev, struct matrix o, struct matrix q,
		       const struct cached *c)
{
	struct attend a = {o, q, c, (c->heads / c->kv_heads - 1) / HEADS + 1};

	if (c->head_size > WIDE)
		ref_attend(dev, o, q, c);
	else if (o.rows > 0)
		pool_run(dev->pool, o.rows * c->kv_heads * a.parts, attend_piece, &a);
}

void cpu_cached_slots(struct kernels *k)
{
	k->attend = cpu_attend;
}
