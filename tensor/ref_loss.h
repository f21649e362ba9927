/*
 * The scalar reference of losses: of logits, and of a head whose logits are never kept.
 */
#ifndef EDGEPIPE_TENSOR_REF_LOSS_H
#define EDGEPIPE_TENSOR_REF_LOSS_H

#include <math.h>

#include "tensor/ref_products.h"

/*
 * loss = log(sum of exp(logit)) - logit[label], taken after the largest logit; so dlogit = p -
 * 1 at the label and p elsewhere.
 */
static double cross_entropy_row(struct matrix gradient, struct matrix logits, int i, int label,
				double scale)
{
	int V = logits.cols;
	double most = -INFINITY, sum = 0;

	for (int j = 0; j < V; j++)
		most = fmax(most, value(logits, i, j));
	for (int j = 0; j < V; j++)
		sum += exp(value(logits, i, j) - most);
	double loss = log(sum) - (value(logits, i, label) - most);

	for (int j = 0; gradient.data && j < V; j++)
		set(gradient, i, j,
		    (exp(value(logits, i, j) - most) / sum - (j == label)) * scale);
	return loss;
}

static void ref_cross_entropy(UNUSED struct device *dev, double *losses, struct matrix gradient,
			      struct matrix logits, const int32_t *labels, float scale)
{
	for (int i = 0; i < logits.rows; i++) {
		losses[i] = 0;
		if (labels[i] >= 0)
			losses[i] = cross_entropy_row(gradient, logits, i, labels[i], scale);
		for (int j = 0; labels[i] < 0 && gradient.data && j < logits.cols; j++)
			set(gradient, i, j, 0);
	}
}

/* Logit j of row i. */
static double logit(struct matrix h, struct matrix w, int i, int j)
{
	return product(h, false, w, true, i, j);
}

/* Nothing is kept of a row: its logits are computed for the largest, their sum and the
 * gradient. */
static double head_row(struct matrix d_h, struct matrix h, struct matrix w, int i, int label,
		       double scale)
{
	double most = -INFINITY, sum = 0, picked = logit(h, w, i, label);

	for (int j = 0; j < w.rows; j++)
		most = fmax(most, logit(h, w, i, j));
	for (int j = 0; j < w.rows; j++)
		sum += exp(logit(h, w, i, j) - most);
	for (int j = 0; d_h.data && j < w.rows; j++) {
		double d = (exp(logit(h, w, i, j) - most) / sum - (j == label)) * scale;

		for (int l = 0; l < w.cols; l++)
			row(d_h, i)[l] += d * value(w, j, l);
	}
	return log(sum) - (picked - most);
}

static void ref_head_loss(UNUSED struct device *dev, double *losses, struct matrix d_h,
			  struct matrix h, struct matrix w, const int32_t *labels, float scale,
			  UNUSED void *scratch)
{
	for (int i = 0; h.data && i < h.rows; i++) {
		for (int l = 0; d_h.data && l < h.cols; l++)
			row(d_h, i)[l] = 0;
		losses[i] = labels[i] < 0 ? 0 : head_row(d_h, h, w, i, labels[i], scale);
	}
}

static size_t ref_head_scratch(UNUSED int threads, UNUSED int rows, UNUSED int C)
{
	return 0;
}

#endif
