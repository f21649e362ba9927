/*
 * The scalar reference of products, plain and of weights.
 */
#ifndef EDGEPIPE_TENSOR_REF_PRODUCTS_H
#define EDGEPIPE_TENSOR_REF_PRODUCTS_H

#include "tensor/ref_values.h"

/* Element (i, j) of op(a) op(b). */
static double product(struct matrix a, bool a_t, struct matrix b, bool b_t, int i, int j)
{
	int inner = a_t ? a.rows : a.cols;
	double sum = 0;

	for (int l = 0; l < inner; l++)
		sum += value(a, a_t ? l : i, a_t ? i : l) * value(b, b_t ? j : l, b_t ? l : j);
	return sum;
}

static void ref_matmul(UNUSED struct device *dev, struct matrix c, struct matrix a, bool a_t,
		       struct matrix b, bool b_t, float alpha, float beta)
{
	for (int i = 0; i < c.rows; i++) {
		for (int j = 0; j < c.cols; j++) {
			double sum = alpha * product(a, a_t, b, b_t, i, j);

			set(c, i, j, beta == 0 ? sum : sum + beta * value(c, i, j));
		}
	}
}

static void ref_linear(UNUSED struct device *dev, struct matrix y, struct matrix x,
		       struct matrix w, bool w_t, struct matrix bias, float beta)
{
	for (int i = 0; x.data && i < y.rows; i++) {
		for (int j = 0; j < y.cols; j++) {
			double sum = product(x, false, w, w_t, i, j);

			if (bias.data)
				sum += value(bias, 0, j);
			set(y, i, j, beta == 0 ? sum : sum + beta * value(y, i, j));
		}
	}
}

static size_t ref_packed_bytes(UNUSED int inner, UNUSED int cols)
{
	return 0;
}

static void ref_pack(UNUSED struct device *dev, UNUSED struct matrix w, UNUSED int row,
		     UNUSED int col, UNUSED struct matrix part, UNUSED bool part_t)
{
}

#endif
