/*
 * The slots of attention: the best kernels that this CPU can run.
 */
#include "tensor/attention.h"
#include "tensor/internal.h"

const struct attention_kernels *attention_kernels(enum dtype dtype, int choice)
{
	const struct attention_kernels *all[] = {
	    dtype == DTYPE_BF16 ? attention_avx512_bf16() : NULL,
	    attention_avx512(),
	    attention_avx2(),
	    attention_plain(),
	};

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (all[i] && choice-- == 0)
			return all[i];
	return NULL;
}

static size_t cpu_attention_scratch(int threads, struct attention shape, enum dtype dtype)
{
	return attention_bytes(attention_kernels(dtype, 0), threads, shape);
}

static void cpu_attention(struct device *dev, struct matrix o, struct matrix lse,
			  struct matrix q, struct matrix k, struct matrix v,
			  struct attention shape, void *scratch)
{
	attention_forward(attention_kernels(q.dtype, 0), dev, o, lse, q, k, v, shape, scratch);
}

static void cpu_attention_backward(struct device *dev, struct matrix dq, struct matrix dk,
				   struct matrix dv, struct matrix d_o, struct matrix q,
				   struct matrix k, struct matrix v, struct matrix o,
				   struct matrix lse, struct attention shape, void *scratch)
{
	(void)o;
	attention_gradients(attention_kernels(q.dtype, 0), dev, dq, dk, dv, d_o, q, k, v, lse,
			    shape, scratch);
}

void cpu_attention_slots(struct kernels *k)
{
	k->attention = cpu_attention;
	k->attention_backward = cpu_attention_backward;
	k->attention_scratch = cpu_attention_scratch;
}
