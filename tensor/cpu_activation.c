/*
 * The slots of GELU and SwiGLU on the CPU: rows of whichever loops its instruction set has.
 */
#include "tensor/activation.h"
#include "tensor/internal.h"

struct maps {
	struct matrix out[ACTIVATION_OUT], in[ACTIVATION_IN];
	activation_loop *loop;
};

static void map_rows(const void *arg, int first, int end)
{
	const struct maps *a = arg;

	for (int i = first; i < end; i++) {
		struct matrix out[ACTIVATION_OUT], in[ACTIVATION_IN];

		for (int k = 0; k < ACTIVATION_OUT; k++)
			out[k] = matrix_rows(a->out[k], i, 1);
		for (int k = 0; k < ACTIVATION_IN; k++)
			in[k] = matrix_rows(a->in[k], i, 1);
		a->loop(out, in);
	}
}

/* cost: how many matrices are touched. */
static void run_maps(struct device *dev, struct maps *a, enum activation which, size_t cost)
{
	a->loop = activation_loop_best(which);
	run_rows(dev, map_rows, a, a->out[0].rows, cost * (size_t)a->out[0].cols);
}

static void cpu_gelu(struct device *dev, struct matrix y, struct matrix x, enum gelu kind)
{
	struct maps a = {.out = {y}, .in = {x}};

	run_maps(dev, &a, kind == GELU_EXACT ? ACTIVATION_GELU_EXACT : ACTIVATION_GELU_TANH, 2);
}

static void cpu_gelu_backward(struct device *dev, struct matrix dx, struct matrix dy,
			      struct matrix x, enum gelu kind)
{
	struct maps a = {.out = {dx}, .in = {dy, x}};

	run_maps(dev, &a,
		 kind == GELU_EXACT ? ACTIVATION_GELU_EXACT_GRADIENT
				    : ACTIVATION_GELU_TANH_GRADIENT,
		 3);
}

static void cpu_swiglu(struct device *dev, struct matrix y, struct matrix gate,
		       struct matrix up)
{
	struct maps a = {.out = {y}, .in = {gate, up}};

	run_maps(dev, &a, ACTIVATION_SWIGLU, 3);
}

static void cpu_swiglu_backward(struct device *dev, struct matrix dgate, struct matrix dup,
				struct matrix dy, struct matrix gate, struct matrix up)
{
	struct maps a = {.out = {dgate, dup}, .in = {dy, gate, up}};

	run_maps(dev, &a, ACTIVATION_SWIGLU_GRADIENT, 5);
}

void cpu_activation_slots(struct kernels *k)
{
	k->gelu = cpu_gelu;
	k->gelu_backward = cpu_gelu_backward;
	k->swiglu = cpu_swiglu;
	k->swiglu_backward = cpu_swiglu_backward;
}
