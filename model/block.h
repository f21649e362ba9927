/*
 * What a block is made of: shared by layout.c and frozen.c, which allocate and fill it, gpt2.c and llama.c, which
 * run it, linear.c and head.c. Letters: n rows of a micro-batch, C width, F width of the MLP, r rank of LoRA.
 */
#ifndef EDGEPIPE_MODEL_BLOCK_H
#define EDGEPIPE_MODEL_BLOCK_H

#include "model/model.h"

/* One of the file's linears that a linear is made of, with its adapter where LoRA targets it. */
struct part {
	enum slot slot;
	int out, first;		/* columns [first, first + out) of y */
	bool adapted;
	int rank;		/* r, of its adapter; so is scale */
	float scale;
	int tail;		/* where its rank columns begin in a tail */
	struct matrix a, b;	/* (r, in), (out, r) */
	struct matrix grad_a, grad_b;
	uint32_t number;	/* of A in the global order: keys the dropout */
};

/*
 * Frozen linears that read the same x, as one product: y = x Wᵀ + bias, + scale (x Aᵀ) Bᵀ in the columns of adapted
 * parts. w has room for the adapters beside W, so that LoRA costs no pass of its own: with u = scale x Aᵀ at the
 * end of x's rows (the tail) y = [x | u] [W | B]ᵀ, and with du = scale dy B at the end of dy's dx = [dy | du] [W; A].
 */
#define PARTS 3
struct linear {
	struct part part[PARTS];
	int parts;
	int in, out;		/* out: of all parts */
	int tail;		/* columns of a tail: the ranks of all adapted parts, made even */
	bool transposed;	/* W lies as (in, out), as in the file */
	struct matrix w;	/* (out + tail, in + tail), or (in + tail, out + tail) where transposed */
	/* Or, packed, [W | B]ᵀ (in + tail, out) and [W; A] (out + tail, in), with what adapters write there. */
	struct matrix forward, backward;
	struct matrix forward_tail, backward_tail;	/* (tail, out), (tail, in) F32 */
	struct matrix bias;	/* (1, out); data null: none */
};

/* Weights and adapters of one block. qkv: GPT-2's c_attn, or q, k and v; up: GPT-2's c_fc, or gate and up. */
struct block {
	struct matrix norm1, norm1_bias, norm2, norm2_bias, q_norm, k_norm;
	struct linear qkv, out, up, down;
	struct attention attention;
};

/*
 * What backward needs of one block for one micro-batch, and nothing else. Norm outputs, GELU and SwiGLU
 * outputs, and normalised queries and keys are computed again. In the stage's dtype, statistics in F32.
 * What stage_spec.recompute does not keep lies in work memory, where all blocks and micro-batches have it in turn.
 */
struct saved {
	struct matrix x1;	/* (n, C) the block's input */
	struct matrix qkv;	/* (n, (H + 2G)*D) */
	struct matrix q, k, v;	/* its columns */
	struct matrix o;	/* (n, H*D) attention's output, with the tail of out */
	struct matrix lse;	/* (n, H) */
	struct matrix x2;	/* (n, C) after attention */
	struct matrix up;	/* (n, F) before the activation; LLaMA: (n, 2F) */
	struct matrix gate_half, up_half;	/* LLaMA: its columns */
	struct matrix stats1, stats2, q_stats, k_stats;
	struct matrix u_qkv, u_out, u_up, u_down;	/* (n, tail) of adapted linears */
};

/* Scratch that every block and every micro-batch of the stage shares. Rows of what linears read have room for their
 * tails, see linear_input. */
struct work {
	enum dtype dtype;	/* of what products read */
	void *h;		/* norm output */
	void *act;		/* activation */
	void *d_in;		/* the gradient of the block's output, of x2 */
	void *d_up, *d_qkv;
	struct matrix d_h;	/* (n, C) F32; the residual stream of a block that is computed again */
	struct matrix d_o;	/* (n, H*D) */
	struct matrix q, k;	/* (n, H*D), (n, G*D) normalised and rotated, with QK norm */
	struct matrix dropped, d_dropped;	/* (n, widest input of an adapted linear), with dropout */
	void *attention;
	struct matrix rope;	/* (T, D) */
};

/* What the functions of a block work with. */
struct run {
	struct device *dev;
	const struct model_config *config;
	const struct work *work;
	int rows;		/* n */
	float dropout;		/* 0: none, or not training */
	uint64_t seed;
	uint32_t step, first_sample;
	int tokens;		/* T */
	/* Of a packed micro-batch, device memory, else null: of every row; and what attends together. */
	const struct spot *spot;
	const struct segment *segment;
	int segments;
	enum recompute recompute;
	/* Generating: the block's kept keys and values with the places of the rows, of which new_rows are tokens and the rest
	 * fills up; null: rows are whole sequences. few: products treat every row alone. */
	const struct cached *cached;
	int new_rows;
	bool few;
	bool again;		/* a forward for backward's sake, which has no use for the block's output */
};

/* Which rows attend to each other in a micro-batch. */
static inline struct attention attention_of(const struct run *run, const struct block *b)
{
	struct attention shape = b->attention;

	shape.segments = run->segments;
	shape.segment = run->segment;
	return shape;
}

/* -- block.c ------------------------------------------------------------------------------- */

/* Its linears, in the order in which they are run. */
enum block_linear { LINEAR_QKV, LINEAR_OUT, LINEAR_UP, LINEAR_DOWN, BLOCK_LINEARS };
struct linear *block_linear(struct block *block, enum block_linear which);
/* Parts and sizes of its linears, from the family's table. */
void block_shape(const struct model_config *config, struct block *block);
/* Tails for its adapted parts, once these are known. */
void block_tails(struct block *block);
/* The part of a block's linears that is the file's `slot`; null: there is none. */
struct part *block_part(struct block *block, enum slot slot);
/* Where a vector of the file's goes; null: it is none of a norm. */
struct matrix *block_vector(struct block *block, enum slot slot);

/* -- linear.c ------------------------------------------------------------------------------ */

/* What a linear reads in forward, (n, in), and in backward, (n, out), in work memory: the tail follows every row. */
struct matrix linear_input(const struct run *run, const struct linear *linear, void *memory);
struct matrix linear_gradient(const struct run *run, const struct linear *linear, void *memory);
/* The gradient (n, out) of a linear that adds to the residual stream, whose gradient is d: d itself where products
 * can read that, else a place in work->d_in for a copy of it. */
struct matrix stream_gradient(const struct run *run, const struct linear *linear, struct matrix d);
/* Where a copy is wanted, that place; else nothing. */
struct matrix stream_copy(const struct run *run, const struct linear *linear, struct matrix d);
/* y = the linear of x + beta y; u (n, tail) is kept for backward where the linear is adapted. Without y.data, u alone. */
void linear_forward(const struct run *run, struct matrix y, struct matrix u, struct matrix x,
		    const struct linear *linear, float beta);
/*
 * dx = the gradient of the input, unless dx.data is null; gradients of A and B +=. x is read only where
 * the linear is adapted. The frozen weight gets no gradient.
 */
void linear_backward(const struct run *run, struct matrix dx, struct matrix dy, struct matrix x,
		     struct matrix u, const struct linear *linear);
bool linear_adapted(const struct linear *linear);
/* o = the attention of queries q and keys k; where keys are kept, with all that were there before. */
void block_attention(const struct run *run, const struct saved *s, struct matrix q, struct matrix k,
		     const struct block *b);
/* As block_ready, where only forward is run. */
void block_ready_forward(const struct run *run, const struct saved *s, const struct block *b,
			 struct matrix x);
/* Makes ready what the products of a block need; x: where the residual stream flows. */
void block_ready(const struct run *run, const struct saved *s, const struct block *b,
		 struct matrix x);
/* What w holds, where it is not packed, from inputs [in, in + ins) to outputs [out, out + outs), as it lies. Outputs behind
 * the linear's own are A's ranks, inputs behind its own B's. */
struct matrix linear_weight(const struct linear *linear, int out, int outs, int in, int ins);
/* Brings the adapters' values into w, after they changed. With dropout A stays out of it: see linear_backward. */
void linear_adapt(struct device *dev, const struct linear *linear, bool dropout);

/* -- gpt2.c, llama.c ----------------------------------------------------------------------- */

/* x (n, C) = the block of x; fills s, and leaves what up and down read in work->h and, adapted, in work->act. With
 * run->again the last linear adds nothing. */
void gpt2_forward(const struct run *run, struct matrix x, struct saved *s,
		  const struct block *block);
/*
 * d (n, C): the gradient of the output on entry, of the input on return; below: null, or the linear of the block below
 * that reads it next. On entry stream_copy(run, &block->down, d) holds a copy of d, on return the one of below does.
 * With `lowest`, nothing below needs a gradient and d is left undefined. At RECOMPUTE_BLOCK the block's forward has just been
 * run again.
 */
void gpt2_backward(const struct run *run, struct matrix d, const struct saved *s,
		   const struct block *block, const struct linear *below, bool lowest);
void llama_forward(const struct run *run, struct matrix x, struct saved *s,
		   const struct block *block);
void llama_backward(const struct run *run, struct matrix d, const struct saved *s,
		    const struct block *block, const struct linear *below, bool lowest);

/* -- head.c -------------------------------------------------------------------------------- */

/*
 * Final norm, head and loss, `rows` rows at a time: trained rows are gathered, the others are skipped. In F32
 * their logits exist; in BF16 logits exist where they are dumped alone, for fewer rows at a time.
 */
struct head {
	struct matrix norm, norm_bias, w;	/* w (V, C) */
	int rows;			/* of a chunk */
	struct matrix x, dx, d_h, stats;	/* (rows, C), (rows, C), (rows, C), (rows, 2) */
	struct matrix h;		/* (rows, C), in the dtype that products read */
	void *scratch;			/* of head_loss, where fused: device */
	bool fused;			/* head and loss are one kernel */
	struct matrix logits;		/* (rows or fewer, V) F32 */
	struct matrix gradient;		/* in the logits' place, as h */
	double *losses;			/* (rows), device */
	int32_t *labels;		/* (rows), device */
	double *host_losses;		/* (rows), host; so are the next two */
	int32_t *host_labels;
	int *host_rows;			/* where a chunk's rows come from */
};
/* How many rows of logits exist at once, and how many of h where they do not: functions of the shape alone. */
int head_rows(int n, int vocabulary);
int head_rows_fused(int n);
/*
 * x (n, C), the last block's output, becomes its own gradient where micro->train. Returns the sum of the
 * losses, in row order. Where all_logits.data is not null, it receives all logits (n, V).
 */
double head_run(const struct run *run, const struct head *head, struct matrix x,
		const struct micro_batch *micro, struct matrix all_logits);
/* The logits of a few rows x (n, C), for the token after each. */
void head_next(const struct run *run, const struct head *head, struct matrix x);
/* Makes the products of every size of chunk ready. */
void head_ready(struct device *dev, const struct head *head);

#endif
