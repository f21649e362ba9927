/*
 * The scalar reference of rows copied, embedded and rotated.
 */
#ifndef EDGEPIPE_TENSOR_REF_ROWS_H
#define EDGEPIPE_TENSOR_REF_ROWS_H

#include "tensor/ref_values.h"

static void ref_copy(UNUSED struct device *dev, struct matrix y, struct matrix x)
{
	for (int i = 0; i < y.rows; i++)
		for (int j = 0; j < y.cols; j++)
			set(y, i, j, value(x, i, j));
}

static void ref_transpose(UNUSED struct device *dev, struct matrix y, struct matrix x)
{
	for (int i = 0; i < y.rows; i++)
		for (int j = 0; j < y.cols; j++)
			set(y, i, j, value(x, j, i));
}

static void ref_fill(UNUSED struct device *dev, struct matrix x, float value)
{
	for (int i = 0; i < x.rows; i++)
		for (int j = 0; j < x.cols; j++)
			set(x, i, j, value);
}

static void ref_embed(UNUSED struct device *dev, struct matrix y, const int32_t *ids,
		      const struct spot *spot, struct matrix tokens, struct matrix positions,
		      int T)
{
	for (int i = 0; i < y.rows; i++) {
		int position = spot ? (int)spot[i].position : i % T;

		for (int j = 0; j < y.cols; j++)
			set(y, i, j,
			    value(tokens, ids[i], j) +
				(positions.data ? value(positions, position, j) : 0));
	}
}

/*
 * (a, b) -> (a cos - b sin, b cos + a sin). The transpose of a rotation is the rotation by the
 * opposite angle: backward changes the sign of sin.
 */
static void ref_rope(UNUSED struct device *dev, struct matrix x, const struct spot *spot,
		     struct matrix table, int head_size, bool backward)
{
	int half = head_size / 2;

	for (int i = 0; i < x.rows; i++) {
		int position = spot ? (int)spot[i].position : i % table.rows;
		const REAL *cosine = row(table, position), *sine = cosine + half;

		for (int first = 0; first < x.cols; first += head_size) {
			for (int j = 0; j < half; j++) {
				REAL s = backward ? -sine[j] : sine[j], c = cosine[j];
				REAL a = value(x, i, first + j);
				REAL b = value(x, i, first + half + j);

				set(x, i, first + j, a * c - b * s);
				set(x, i, first + half + j, b * c + a * s);
			}
		}
	}
}

#endif
