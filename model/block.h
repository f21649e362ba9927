/*
 * What a block is made of: shared by stage.c, which allocates it, gpt2.c and llama.c, which run it, linear.c
 * and head.c. Letters: n rows of a micro-batch, C width, F width of the MLP, r rank of LoRA.
 */
#ifndef EDGEPIPE_MODEL_BLOCK_H
#define EDGEPIPE_MODEL_BLOCK_H

#include "model/model.h"

/* A frozen linear y = x Wᵀ + bias, with its adapter where LoRA targets it: + scale (x Aᵀ) Bᵀ. */
struct linear {
	enum slot slot;
	struct matrix w;	/* as in the file: (out, in), or (in, out) where transposed */
	struct matrix bias;	/* (1, out); data null: none */
	int in, out;
	bool transposed;
	bool adapted;
	struct matrix a, b;	/* (r, in), (out, r) */
	struct matrix grad_a, grad_b;
	uint32_t number;	/* of A in the global order: keys the dropout */
};

/* Weights and adapters of one block. GPT-2 has qkv, up and down; LLaMA q, k, v, gate, up and down. */
struct block {
	struct matrix norm1, norm1_bias, norm2, norm2_bias, q_norm, k_norm;
	struct linear qkv, q, k, v, out, gate, up, down;
	struct attention attention;
};

/* What backward needs of one block for one micro-batch, and nothing else. Norm outputs, GELU and SwiGLU
 * outputs, and normalised queries and keys are computed again. */
struct saved {
	struct matrix x1;	/* (n, C) the block's input */
	struct matrix q, k, v;	/* (n, H*D), (n, G*D); GPT-2: views into one (n, 3C) */
	struct matrix qkv;
	struct matrix o;	/* (n, H*D) attention's output */
	struct matrix lse;	/* (n, H) */
	struct matrix x2;	/* (n, C) after attention */
	struct matrix gate, up;	/* (n, F) before the activation */
	struct matrix stats1, stats2, q_stats, k_stats;
	struct matrix u[SLOTS];	/* (n, r) x Aᵀ of every adapted linear */
};

/* Scratch that every block and every micro-batch of the stage shares. */
struct work {
	struct matrix h, d_h;	/* (n, C) norm output, and its gradient */
	struct matrix act;	/* (n, F) activation */
	struct matrix d_gate, d_up;	/* (n, F) */
	struct matrix d_o;	/* (n, H*D) */
	struct matrix d_qkv, d_q, d_k, d_v;
	struct matrix q, k;	/* (n, H*D), (n, G*D) normalised and rotated, with QK norm */
	struct matrix du;	/* (n, r) */
	struct matrix dropped, d_dropped;	/* (n, widest input of an adapted linear), with dropout */
	void *attention;
	struct matrix rope;	/* (T, D) */
};

/* What the functions of a block work with. */
struct run {
	struct device *dev;
	const struct model_config *config;
	const struct work *work;
	float lora_scale;
	float dropout;		/* 0: none, or not training */
	uint64_t seed;
	uint32_t step, first_sample;
	int tokens;		/* T */
};

/* -- linear.c ------------------------------------------------------------------------------ */

/* y = the linear of x + beta y; u (n, r) is kept for backward where the linear is adapted. */
void linear_forward(const struct run *run, struct matrix y, struct matrix u, struct matrix x,
		    const struct linear *linear, float beta);
/*
 * dx = (or +=, with accumulate) the gradient of the input, unless dx.data is null; gradients of A and B +=.
 * x is read only where the linear is adapted. The frozen weight gets no gradient.
 */
void linear_backward(const struct run *run, struct matrix dx, struct matrix dy, struct matrix x,
		     struct matrix u, const struct linear *linear, bool accumulate);

/* -- gpt2.c, llama.c ----------------------------------------------------------------------- */

/* x (n, C) = the block of x; fills s. */
void gpt2_forward(const struct run *run, struct matrix x, struct saved *s,
		  const struct block *block);
/* d (n, C): the gradient of the output on entry, of the input on return; with `lowest`, nothing below needs a
 * gradient and d is left undefined. */
void gpt2_backward(const struct run *run, struct matrix d, const struct saved *s,
		   const struct block *block, bool lowest);
void llama_forward(const struct run *run, struct matrix x, struct saved *s,
		   const struct block *block);
void llama_backward(const struct run *run, struct matrix d, const struct saved *s,
		    const struct block *block, bool lowest);

/* -- head.c -------------------------------------------------------------------------------- */

/* Final norm, head and loss. Logits exist for `rows` rows at a time. */
struct head {
	struct matrix norm, norm_bias, w;	/* w (V, C) */
	int rows;			/* of a chunk */
	struct matrix h, d_h, stats;	/* (rows, C), (rows, C), (rows, 2) */
	struct matrix logits;		/* (rows, V) */
	double *losses;			/* (rows), device */
	int32_t *labels;		/* (n), device */
	double *host_losses;		/* (rows), host */
};
/* How many rows of logits exist at once: a function of the shape alone. */
int head_rows(int n, int vocabulary);
/*
 * x (n, C), the last block's output, becomes its own gradient where micro->train. Returns the sum of the
 * losses, in row order. Where all_logits.data is not null, it receives all logits (n, V).
 */
double head_run(const struct run *run, const struct head *head, struct matrix x,
		const struct micro_batch *micro, struct matrix all_logits);

#endif
