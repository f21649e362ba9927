/*
 * tensor/ - devices and kernels. A device is memory + kernels + a context (thread pool). The
 * table of kernels is filled from the scalar reference (ref.c), then overwritten slot by slot
 * (cpu*.c), so that nothing is ever missing and the reference is always there to compare with.
 *
 * Letters: B sequences, T tokens of a sequence, n = B*T rows, C width of the residual stream, H
 * heads, G key/value heads, D size of a head, F width of the MLP, V vocabulary, r rank of LoRA.
 * Matrices are row-major; every pointer is device memory. Argument order: device, outputs,
 * inputs, weights, sizes.
 *
 * Numbers: matrices are F32 unless a slot says "any", which is F32 or BF16, matrix by matrix.
 * Arithmetic is F32 (sums of norms and losses double) whatever is stored; BF16 is rounded to
 * nearest even when it is stored. A matrix whose data is null is not there.
 *
 * Accumulate contract: outputs are written (=), except for the ones marked "+=", which are the
 * gradients that flow into a residual stream or sum over micro-batches.
 *
 * Same bits whatever the number of threads: a kernel cuts its work into pieces whose size
 * depends on the shape alone, each piece is computed by one thread, and no sum crosses pieces.
 */
#ifndef EDGEPIPE_TENSOR_H
#define EDGEPIPE_TENSOR_H

#include "base/base.h"

/* -- device.c ------------------------------------------------------------------------------ */

enum dtype { DTYPE_F32, DTYPE_F64, DTYPE_F16, DTYPE_BF16, DTYPE_I32, DTYPE_I64 };
/* Bytes of one number, and its name as safetensors spells it: "F32", "BF16", ... */
size_t dtype_bytes(enum dtype dtype);
const char *dtype_name(enum dtype dtype);

/* A view of device memory. Row i starts ld elements after row i-1; ld >= cols. */
struct matrix {
	void *data;
	int rows, cols;
	size_t ld;
	enum dtype dtype;
};
static inline struct matrix matrix(void *data, int rows, int cols)
{
	return (struct matrix){data, rows, cols, (size_t)cols, DTYPE_F32};
}
static inline struct matrix matrix_of(enum dtype dtype, void *data, int rows, int cols)
{
	return (struct matrix){data, rows, cols, (size_t)cols, dtype};
}
/* Rows first..first+rows-1, or columns first..first+cols-1, of a view. */
struct matrix matrix_rows(struct matrix m, int first, int rows);
struct matrix matrix_cols(struct matrix m, int first, int cols);

/* Rows [first, first + tokens) hold one sample, where sequences of T rows hold several: which
 * one of the step's batch. */
struct segment {
	int32_t first, tokens;
	uint32_t sample;
};
/* Where a row stands: in which sample, and at which position of it. */
struct spot {
	uint32_t sample, position;
};

/*
 * Causal self-attention with grouped heads: query head h reads key/value head h / (H/G). Key j
 * is visible to query i where j <= i and, with a window > 0, i - j < window. Rows attend to
 * those of their own sequence; with segments > 0 to those of their own segment: `segment`,
 * device memory, has so many, which cover all rows one after the other, none longer than
 * tokens.
 */
struct attention {
	int sequences, tokens, heads, kv_heads, head_size;
	float scale;
	int window;
	int segments;
	const struct segment *segment;
};

/*
 * Attention of new tokens against the keys and values of their sequences that are kept: row i
 * of q is the token at position[i] of sequence[i], and sees what attention would let it see.
 * Both arrays in device memory. How keys and values lie is known to the slots keep and attend
 * alone.
 */
struct cached {
	int sequences, room;		/* tokens of a sequence, at most */
	int heads, kv_heads, head_size;
	float scale;
	int window;
	void *keys, *values;		/* cached_bytes each */
	enum dtype dtype;		/* of them, F32 or BF16 */
	const int32_t *sequence, *position;
};
enum { CACHED_KEYS = 16 };		/* that lie together; room is rounded up to it */
/* What keys, or values, take. */
size_t cached_bytes(const struct cached *cached);

/* Inverted dropout, a function of (key, step, sample, position, channel) alone. Row i belongs
 * to sample first_sample + i / tokens and position i % tokens, or as spot[i] (device memory)
 * says. */
struct dropout {
	float p;
	uint32_t key0, key1;		/* seed; the global tensor's number */
	uint32_t step, first_sample;
	int tokens;
	const struct spot *spot;
};

/* torch.optim.AdamW (decoupled decay, bias correction); step counts from 1. The gradient is
 * first multiplied by grad_scale (the clip). */
struct adamw {
	double learning_rate, beta1, beta2, epsilon, weight_decay;
	float grad_scale;
	long long step;
};

enum gelu { GELU_TANH, GELU_EXACT };

/* Parts of packed weights begin and end at multiples of it. */
enum { PACK_BLOCK = 64 };

struct device;

struct kernels {
	const char *name;
	/* c = alpha op(a) op(b) + beta c; op transposes where a_t or b_t. With beta 0, c is not
	 * read. a (m,k), b (k,n), c (m,n) after op. */
	void (*matmul)(struct device *dev, struct matrix c, struct matrix a, bool a_t,
		       struct matrix b, bool b_t, float alpha, float beta);
	/* y = x op(w) + bias + beta y, beta 0 or 1; bias (1, cols). x and w both F32, then y
	 * too, or both BF16 (w may be packed), y any. Without x (no data) only what such a
	 * product needs is made ready. */
	void (*linear)(struct device *dev, struct matrix y, struct matrix x, struct matrix w,
		       bool w_t, struct matrix bias, float beta);
	/*
	 * Frozen weights of BF16 in the order that the library's products like best: w (inner,
	 * cols) in packed_bytes of zeroed memory, 0 where nothing is packed (then cols is no
	 * multiple of PACK_BLOCK, or the table has no such products). linear takes it as a w
	 * whose ld is 0. pack writes part, or its transpose, at (row, col), which are such
	 * multiples, as its sizes are or end with w; part in host memory, F32 or BF16. At
	 * set-up and between micro-batches alone.
	 */
	size_t (*packed_bytes)(int inner, int cols);
	void (*pack)(struct device *dev, struct matrix w, int row, int col, struct matrix part,
		     bool part_t);
	/* As matmul, where the inner dimension or a side of c is a rank: a, b and c any. */
	void (*thin)(struct device *dev, struct matrix c, struct matrix a, bool a_t,
		     struct matrix b, bool b_t, float alpha, float beta);
	/* y = alpha x op(w) + bias + beta y where x has few rows, all any: bound by reading w,
	 * which is read once. The bits of a row depend neither on the number of rows nor on its
	 * place. */
	void (*few)(struct device *dev, struct matrix y, struct matrix x, struct matrix w,
		    bool w_t, struct matrix bias, float alpha, float beta);
	/* y = x; any */
	void (*copy)(struct device *dev, struct matrix y, struct matrix x);
	/* y = xᵀ; y any */
	void (*transpose)(struct device *dev, struct matrix y, struct matrix x);
	/* x any */
	void (*fill)(struct device *dev, struct matrix x, float value);
	/* y (n,C) = tokens[ids[i]] (V,C; F32, F16 or BF16) + positions[i % T] (F32), or that of
	 * spot[i] where spot is not null. */
	void (*embed)(struct device *dev, struct matrix y, const int32_t *ids,
		      const struct spot *spot, struct matrix tokens, struct matrix positions,
		      int T);

	/* y = (x - mean) * rstd * gain + bias; copy = x; stats (n,2) = mean, rstd, kept for
	 * backward. y, copy and x any. */
	void (*layer_norm)(struct device *dev, struct matrix y, struct matrix copy,
			   struct matrix stats, struct matrix x, struct matrix gain,
			   struct matrix bias, float epsilon);
	/* dx += , and copy = what it is then; copy, dy and x any */
	void (*layer_norm_backward)(struct device *dev, struct matrix dx, struct matrix copy,
				    struct matrix dy, struct matrix x, struct matrix stats,
				    struct matrix gain);
	/* y = x * rstd * gain; copy = x; stats (n,1) = rstd. y, copy and x any. Where the gain
	 * (1,D) is shorter than a row, each D numbers of it (a head) are by themselves; stats
	 * (n, C/D). */
	void (*rms_norm)(struct device *dev, struct matrix y, struct matrix copy,
			 struct matrix stats, struct matrix x, struct matrix gain,
			 float epsilon);
	/* dx += with accumulate, else dx =, and copy = what it is then; dx may be dy. All
	 * any. */
	void (*rms_norm_backward)(struct device *dev, struct matrix dx, struct matrix copy,
				  struct matrix dy, struct matrix x, struct matrix stats,
				  struct matrix gain, bool accumulate);

	/* Rotary positions where x lies: x (n, heads*D), table (T, D) = cos (D/2) then sin
	 * (D/2); pairs are (i, i + D/2) as in LLaMA. Row i has position i % T, or that of
	 * spot[i] where spot is not null. backward rotates the other way (the transpose). x
	 * any. */
	void (*rope)(struct device *dev, struct matrix x, const struct spot *spot,
		     struct matrix table, int head_size, bool backward);

	/* o (n, H*D) = softmax(scale q kᵀ) v; lse (n, H; F32) = log-sum-exp of the scaled
	 * scores. q (n, H*D), k, v (n, G*D), each with its own ld; all of one dtype, F32 or
	 * BF16. scratch: attention_scratch bytes of device memory, for matrices of that dtype;
	 * asked for with any segments > 0 it is enough for all numbers of them. */
	void (*attention)(struct device *dev, struct matrix o, struct matrix lse,
			  struct matrix q, struct matrix k, struct matrix v,
			  struct attention shape, void *scratch);
	/* dq, dk, dv written; from the gradient of o, with probabilities recomputed from lse. o
	 * is not read by the kernels here. */
	void (*attention_backward)(struct device *dev, struct matrix dq, struct matrix dk,
				   struct matrix dv, struct matrix d_o, struct matrix q,
				   struct matrix k, struct matrix v, struct matrix o,
				   struct matrix lse, struct attention shape, void *scratch);
	size_t (*attention_scratch)(int threads, struct attention shape, enum dtype dtype);

	/* Keeps the keys and values (n, G*D; any) of new tokens. */
	void (*keep)(struct device *dev, const struct cached *cached, struct matrix k,
		     struct matrix v);
	/* o (n, H*D) = softmax(scale q kᵀ) v over what is kept, the tokens' own included; o, q
	 * any. The bits of a row depend on its own tokens alone. */
	void (*attend)(struct device *dev, struct matrix o, struct matrix q,
		       const struct cached *cached);

	/* From here to dropout_backward all any. */
	void (*gelu)(struct device *dev, struct matrix y, struct matrix x, enum gelu kind);
	/* dx may be dy */
	void (*gelu_backward)(struct device *dev, struct matrix dx, struct matrix dy,
			      struct matrix x, enum gelu kind);
	/* y = silu(gate) * up; in backward dup may be dy */
	void (*swiglu)(struct device *dev, struct matrix y, struct matrix gate,
		       struct matrix up);
	void (*swiglu_backward)(struct device *dev, struct matrix dgate, struct matrix dup,
				struct matrix dy, struct matrix gate, struct matrix up);

	void (*dropout)(struct device *dev, struct matrix y, struct matrix x, struct dropout d);
	/* dx += mask * dy / (1 - p) */
	void (*dropout_backward)(struct device *dev, struct matrix dx, struct matrix dy,
				 struct dropout d);

	/*
	 * Rows of logits (n, V) and labels (n); a negative label is not trained. losses[i] =
	 * -log p(label) in double, 0 for an untrained row. gradient (any) = d loss / d logits
	 * times scale (0 for untrained rows); it may be the logits, or BF16 in their place, row
	 * by row (ld twice theirs), and nothing is left of them then.
	 */
	void (*cross_entropy)(struct device *dev, double *losses, struct matrix gradient,
			      struct matrix logits, const int32_t *labels, float scale);

	/*
	 * The same of the logits h wᵀ, h (n, C) and frozen w (V, C) of BF16, which never exist,
	 * and its gradient with respect to h: d_h (n, C), not written without data. Without h's
	 * data only what such a call needs is made ready. scratch: head_scratch bytes for so
	 * many rows at most and C columns, 0 where the table has no use for them (then the slot
	 * is slow).
	 */
	void (*head_loss)(struct device *dev, double *losses, struct matrix d_h,
			  struct matrix h, struct matrix w, const int32_t *labels, float scale,
			  void *scratch);
	size_t (*head_scratch)(int threads, int rows, int C);

	/* *sum = the sum of squares in double, over rows then columns in order. */
	void (*squared_norm)(struct device *dev, double *sum, struct matrix x);
	/* p, m, v updated; all of one shape. */
	void (*adamw)(struct device *dev, struct matrix p, struct matrix m, struct matrix v,
		      struct matrix gradient, struct adamw settings);
};

struct onednn;
struct timed;
struct device {
	struct kernels k;
	struct timed *timed;	/* timed.c; null: its kernels are not timed */
	struct pool *pool;
	struct onednn *onednn;	/* null: not built in, or not wanted */
	/* a product or layout that was asked for is not there, which was said; who sets up and
	 * who runs steps look here */
	bool lacks;
	bool fast_f32;		/* linear in F32 goes to oneDNN */
	bool host_memory;	/* kernels may be given host pointers (mapped weights, say) */
	ptrdiff_t offset;	/* far device: device pointer - host pointer */
	void *(*alloc)(struct device *dev, size_t bytes); /* SLAB_ALIGN-aligned, zeroed; null
							   * after an error */
	void (*free)(struct device *dev, void *memory);
	void (*upload)(struct device *dev, void *to, const void *from, size_t bytes);
	void (*download)(struct device *dev, void *to, const void *from, size_t bytes);
};

/*
 * How to open a device: "cpu", the same with "openblas" or "onednn" for all products in F32
 * (cpu takes what its rule says, see device.c), "reference" (scalar), "far" (the test device:
 * the CPU kernels behind pointers that fault when touched). Null after an error.
 */
struct device *device_open(const char *name, int threads);
void device_close(struct device *dev);
/* Whether products of BF16 are built in, and in this CPU (it obeys ONEDNN_MAX_CPU_ISA). */
bool cpu_has_bf16(void);
/* The libraries that "cpu" computes products with: "oneDNN 2.6.3 AVX-512 BF16, OpenBLAS 0.3.21
 * SkylakeX". */
const char *cpu_describe(char *buffer, size_t bytes);

/* -- convert.c ----------------------------------------------------------------------------- */

/* count numbers of a file's dtype (F32, F64, F16, BF16) to float; host memory, any
 * alignment. */
void convert_to_f32(float *to, const void *from, enum dtype dtype, size_t count);
/* The nearest bfloat16, ties to even; a NaN stays one. */
static inline uint16_t bf16_of(float x)
{
	union {
		float x;
		uint32_t bits;
	} u = {x};

	if (x != x)
		return (uint16_t)(u.bits >> 16 | 0x40);
	return (uint16_t)((u.bits + 0x7fff + (u.bits >> 16 & 1)) >> 16);
}
static inline float bf16_value(uint16_t half)
{
	union {
		uint32_t bits;
		float x;
	} u = {(uint32_t)half << 16};

	return u.x;
}

/* -- ref.c, cpu.c, far.c ------------------------------------------------------------------- */

/* The scalar reference, and the table that starts as its copy and uses OpenBLAS. */
extern const struct kernels kernels_ref;
struct kernels kernels_cpu(void);
/* The table whose slots take far pointers, over the CPU table. */
struct kernels kernels_far(void);

/* -- timed.c ------------------------------------------------------------------------------- */

/* What bounds an op: products of weights; products with a rank; attention; bytes. */
enum timed_kind { TIMED_PRODUCT, TIMED_THIN, TIMED_ATTENTION, TIMED_PASS };

/*
 * What the calls of one slot on one shape took together. bytes: what they must have read and
 * written at least. flops: of products alone, 2 a multiplication; attention counts the pairs
 * that are visible (the causal half), 2 products forward and 4 backward, where it recomputes a
 * fifth.
 */
struct timed_op {
	const char *slot;	/* "linear"; one pointer a slot */
	enum timed_kind kind;
	enum dtype dtype;	/* of its input */
	/* rows, inner, cols of a product; sequences, tokens, heads, kv heads, head size, window
	 * of attention; rows, cols of the others */
	int size[6];
	long long calls;
	double seconds, flops, bytes;
};

/* Everything that was timed on a device, since it was opened. */
struct timed {
	struct kernels inner;	/* the device's own table */
	bool counting;
	long long spans;	/* from a start to a stop, and their seconds */
	double spans_s, start_s;
	struct timed_op lost;	/* calls of slots and shapes that found no room */
	int count, room;
	struct timed_op op[];
};

/* Puts a table over the device's that times its kernels, until the device is closed; room: for
 * so many slots and shapes, allocated here. Results stay the same bits. */
void timed_open(struct device *dev, int room);
/* Calls count between a start and a stop alone. */
void timed_start(struct device *dev);
void timed_stop(struct device *dev);
/* "2048 x 768 -> 2304"; "4 x 512, 12 heads of 64"; "2048 x 3072". Returns buffer. */
const char *timed_shape(const struct timed_op *op, char *buffer, size_t bytes);

/* -- blas.c: what OpenBLAS says of itself -------------------------------------------------- */

/*
 * OpenBLAS picks a slow core on CPUs that it does not know. Returns the value that
 * OPENBLAS_CORETYPE should have had before the program started, or null where it chose well or
 * the user set it. launch/ then starts the program again with it.
 */
const char *blas_better_core(void);
const char *blas_describe(char *buffer, size_t bytes);	/* "OpenBLAS 0.3.21 SkylakeX" */

#endif
