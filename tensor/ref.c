/*
 * The scalar reference: every kernel in its plainest form, each forward with its backward right
 * after it, sums in double. The other tables start as copies of this one and are compared with
 * it. The kernels stand in ref_*.h, the optimizer's here.
 *
 * A backward quotes the line of the forward that it differentiates; dx stands for d loss / dx.
 * Compiled twice: as float here, and by the tests as double (REAL and KERNELS_REF defined
 * before this file is included) so that finite differences can tell a wrong gradient from
 * rounding. That is why the kernels are in headers.
 */
#include <math.h>

#include "tensor/internal.h"
#include "tensor/ref_activations.h"
#include "tensor/ref_attention.h"
#include "tensor/ref_loss.h"
#include "tensor/ref_norms.h"
#include "tensor/ref_products.h"
#include "tensor/ref_rows.h"

static void ref_squared_norm(UNUSED struct device *dev, double *sum, struct matrix x)
{
	double total = 0;

	for (int i = 0; i < x.rows; i++)
		for (int j = 0; j < x.cols; j++)
			total += (double)row(x, i)[j] * row(x, i)[j];
	*sum = total;
}

static void ref_adamw(UNUSED struct device *dev, struct matrix p, struct matrix m,
		      struct matrix v, struct matrix gradient, struct adamw a)
{
	double step_size = a.learning_rate / (1 - pow(a.beta1, (double)a.step));
	double root = sqrt(1 - pow(a.beta2, (double)a.step));

	for (int i = 0; i < p.rows; i++) {
		for (int j = 0; j < p.cols; j++) {
			REAL *param = &row(p, i)[j], *first = &row(m, i)[j],
			     *second = &row(v, i)[j];
			double g = row(gradient, i)[j] * (double)a.grad_scale;

			*first = a.beta1 * *first + (1 - a.beta1) * g;
			*second = a.beta2 * *second + (1 - a.beta2) * g * g;
			*param = *param * (1 - a.learning_rate * a.weight_decay) -
				 step_size * *first / (sqrt(*second) / root + a.epsilon);
		}
	}
}

const struct kernels KERNELS_REF = {
    .name = "reference",
    .matmul = ref_matmul,
    .linear = ref_linear,
    .packed_bytes = ref_packed_bytes,
    .pack = ref_pack,
    .thin = ref_matmul,
    .few = ref_few,
    .copy = ref_copy,
    .transpose = ref_transpose,
    .fill = ref_fill,
    .embed = ref_embed,
    .layer_norm = ref_layer_norm,
    .layer_norm_backward = ref_layer_norm_backward,
    .rms_norm = ref_rms_norm,
    .rms_norm_backward = ref_rms_norm_backward,
    .rope = ref_rope,
    .attention = ref_attention,
    .attention_backward = ref_attention_backward,
    .attention_scratch = ref_attention_scratch,
    .keep = ref_keep,
    .attend = ref_attend,
    .gelu = ref_gelu,
    .gelu_backward = ref_gelu_backward,
    .swiglu = ref_swiglu,
    .swiglu_backward = ref_swiglu_backward,
    .dropout = ref_dropout,
    .dropout_backward = ref_dropout_backward,
    .cross_entropy = ref_cross_entropy,
    .head_loss = ref_head_loss,
    .head_scratch = ref_head_scratch,
    .squared_norm = ref_squared_norm,
    .adamw = ref_adamw,
};
