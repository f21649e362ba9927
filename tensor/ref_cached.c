/*
 * The scalar reference of what generating text needs besides training: products of few rows,
 * and attention of new tokens against keys and values that are kept. Sums in double.
 *
 * Values lie as (sequences, G, room, D). Keys lie in panels of CACHED_KEYS tokens: (sequences,
 * G, room / CACHED_KEYS, D, CACHED_KEYS), so that a vector holds one number of each of a
 * panel's keys and no score needs a sum across a vector.
 */
#include <math.h>

#include "tensor/ref_values.h"

static double number(const void *data, enum dtype dtype, size_t at)
{
	return dtype == DTYPE_BF16 ? (double)bf16_value(((const uint16_t *)data)[at])
				   : (double)((const float *)data)[at];
}

static void store(void *data, enum dtype dtype, size_t at, double x)
{
	if (dtype == DTYPE_BF16)
		((uint16_t *)data)[at] = bf16_of((float)x);
	else
		((float *)data)[at] = (float)x;
}

size_t cached_bytes(const struct cached *c)
{
	return cached_head(c, c->sequences, 0) * dtype_bytes(c->dtype);
}

void ref_few(struct device *dev, struct matrix y, struct matrix x, struct matrix w, bool w_t,
	     struct matrix bias, float alpha, float beta)
{
	(void)dev;
	for (int i = 0; i < y.rows; i++)
		for (int j = 0; j < y.cols; j++) {
			double sum = 0;

			for (int l = 0; l < x.cols; l++)
				sum += value(x, i, l) * (w_t ? value(w, j, l) : value(w, l, j));
			sum *= (double)alpha;
			if (bias.data)
				sum += value(bias, 0, j);
			set(y, i, j, beta == 0 ? sum : sum + (double)beta * value(y, i, j));
		}
}

void ref_keep(struct device *dev, const struct cached *c, struct matrix k, struct matrix v)
{
	int D = c->head_size;

	(void)dev;
	for (int i = 0; i < k.rows; i++)
		for (int j = 0; j < c->kv_heads * D; j++) {
			size_t head = cached_head(c, c->sequence[i], j / D);
			int t = c->position[i];

			store(c->keys, c->dtype, head + cached_key(c, t, j % D),
			      value(k, i, j));
			store(c->values, c->dtype,
			      head + (size_t)t * (size_t)D + (size_t)(j % D), value(v, i, j));
		}
}

/* scale q k of key t and a query head. */
static double score(const struct cached *c, struct matrix q, int i, int h, size_t head, int t)
{
	double sum = 0;

	for (int d = 0; d < c->head_size; d++)
		sum += value(q, i, h * c->head_size + d) *
		       number(c->keys, c->dtype, head + cached_key(c, t, d));
	return (double)c->scale * sum;
}

static void attend_head(struct matrix o, struct matrix q, const struct cached *c, int i, int h)
{
	int D = c->head_size, last = c->position[i];
	int first = c->window > 0 && last >= c->window ? last - c->window + 1 : 0;
	size_t head = cached_head(c, c->sequence[i], h / (c->heads / c->kv_heads));
	double most = -INFINITY, sum = 0;

	for (int t = first; t <= last; t++)
		most = fmax(most, score(c, q, i, h, head, t));
	for (int t = first; t <= last; t++)
		sum += exp(score(c, q, i, h, head, t) - most);
	for (int d = 0; d < D; d++) {
		double mean = 0;

		for (int t = first; t <= last; t++)
			mean += exp(score(c, q, i, h, head, t) - most) / sum *
				number(c->values, c->dtype,
				       head + (size_t)t * (size_t)D + (size_t)d);
		set(o, i, h * D + d, mean);
	}
}

void ref_attend(struct device *dev, struct matrix o, struct matrix q, const struct cached *c)
{
	(void)dev;
	for (int i = 0; i < o.rows; i++)
		for (int h = 0; h < c->heads; h++)
			attend_head(o, q, c, i, h);
}
