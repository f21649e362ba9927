/*
 * tests/check_gradients.c - the reference is right: every backward equals central differences
 * of its forward, in double (the reference compiled a second time), forwards equal what PyTorch
 * gives, and attention equals its formula. check_kernels then compares the CPU with the
 * reference.
 *
 * links: tensor base
 */
#define REAL double
#define KERNELS_REF kernels_double
#include "tensor/ref.c"
#include "tests/suite.h"

#include <stdlib.h>

#define MOST 16

/* Inputs and outputs of one check, all double; freed together. */
struct bench {
	void *memory[MOST];
	int memories;
};

static double number(uint32_t key, uint32_t index)
{
	struct philox at = {{index, 0, 0, 0}};

	return 2.0 * philox_unit(philox(at, key, 23).word[0]) - 1;
}

/* A matrix of numbers in (-size, size) whose rows are two numbers apart. */
static struct matrix made(struct bench *b, int rows, int cols, double size)
{
	size_t ld = (size_t)cols + 2, count = (size_t)rows * ld;
	double *data = xalloc(count * sizeof *data);

	ck_assert_int_lt(b->memories, MOST);
	for (size_t i = 0; i < count; i++)
		data[i] = size * number((uint32_t)b->memories, (uint32_t)i);
	b->memory[b->memories++] = data;
	return (struct matrix){data, rows, cols, ld, DTYPE_F64};
}

static void release(struct bench *b)
{
	while (b->memories)
		free(b->memory[--b->memories]);
}

static double inner(struct matrix a, struct matrix b)
{
	double sum = 0;

	for (int i = 0; i < a.rows; i++)
		for (int j = 0; j < a.cols; j++)
			sum += row(a, i)[j] * row(b, i)[j];
	return sum;
}

/* loss(arg) as a function of x; dx is what backward says of it. */
typedef double loss_of(void *arg);

/*
 * Steps of 1e-5: the difference is then right to 1e-10 or so (its own error is h² f''' / 6, and
 * 1e-16 / h from rounding), hence the floor of 1e-3 under what 1e-6 is relative to.
 */
static void check_gradient(const char *name, struct matrix x, struct matrix dx, loss_of *loss,
			   void *arg)
{
	for (int i = 0; i < x.rows; i++) {
		for (int j = 0; j < x.cols; j++) {
			double *at = &row(x, i)[j], kept = *at, said = row(dx, i)[j];
			double h = 1e-5 * fmax(1, fabs(kept));

			*at = kept + h;
			double above = loss(arg);
			*at = kept - h;
			double below = loss(arg);
			*at = kept;
			loss(arg); /* and the statistics that it keeps */
			double seen = (above - below) / (2 * h);
			double scale = fmax(fmax(fabs(seen), fabs(said)), 1e-3);

			ck_assert_msg(fabs(seen - said) <= 1e-6 * scale,
				      "%s: row %d, column %d: %.12g said, %.12g seen", name, i,
				      j, said, seen);
		}
	}
}

/* Takes away what was there before a backward that adds. */
static void subtract(struct matrix a, struct matrix b)
{
	for (int i = 0; i < a.rows; i++)
		for (int j = 0; j < a.cols; j++)
			row(a, i)[j] -= row(b, i)[j];
}

static struct matrix copied(struct bench *b, struct matrix from)
{
	struct matrix to = made(b, from.rows, from.cols, 1);

	for (int i = 0; i < from.rows; i++)
		memcpy(row(to, i), row(from, i), (size_t)from.cols * sizeof(double));
	return to;
}

/* -- differences --------------------------------------------------------------------------- */

/* One forward whose loss is weight . y. */
struct forward {
	struct matrix y, weight, x, z, stats, gain, bias;
	enum gelu kind;
	struct dropout d;
};

static const struct kernels *const k = &kernels_double;

/* A matrix that is not there. */
static const struct matrix none = {0};

static double layer_norm_loss(void *arg)
{
	struct forward *f = arg;

	k->layer_norm(NULL, f->y, none, f->stats, f->x, f->gain, f->bias, 1e-5f);
	return inner(f->weight, f->y);
}

START_TEST(layer_norm_gradient)
{
	struct bench b = {0};
	struct forward f = {.y = made(&b, 3, 7, 1),
			    .weight = made(&b, 3, 7, 1),
			    .x = made(&b, 3, 7, 3),
			    .stats = made(&b, 3, 2, 1),
			    .gain = made(&b, 1, 7, 2),
			    .bias = made(&b, 1, 7, 1)};
	struct matrix dx = made(&b, 3, 7, 1), before = copied(&b, dx);

	layer_norm_loss(&f);
	k->layer_norm_backward(NULL, dx, none, f.weight, f.x, f.stats, f.gain);
	subtract(dx, before);
	check_gradient("layer_norm", f.x, dx, layer_norm_loss, &f);
	release(&b);
}
END_TEST

static double rms_norm_loss(void *arg)
{
	struct forward *f = arg;

	k->rms_norm(NULL, f->y, none, f->stats, f->x, f->gain, 1e-6f);
	return inner(f->weight, f->y);
}

START_TEST(rms_norm_gradient)
{
	struct bench b = {0};
	struct forward f = {.y = made(&b, 3, 7, 1),
			    .weight = made(&b, 3, 7, 1),
			    .x = made(&b, 3, 7, 3),
			    .stats = made(&b, 3, 1, 1),
			    .gain = made(&b, 1, 7, 2)};
	struct matrix dx = made(&b, 3, 7, 1), before = copied(&b, dx);

	rms_norm_loss(&f);
	k->rms_norm_backward(NULL, dx, none, f.weight, f.x, f.stats, f.gain, true);
	subtract(dx, before);
	check_gradient("rms_norm, added", f.x, dx, rms_norm_loss, &f);
	k->rms_norm_backward(NULL, dx, none, f.weight, f.x, f.stats, f.gain, false);
	check_gradient("rms_norm", f.x, dx, rms_norm_loss, &f);
	dx = copied(&b, f.weight);
	k->rms_norm_backward(NULL, dx, none, dx, f.x, f.stats, f.gain, false);
	check_gradient("rms_norm, in place", f.x, dx, rms_norm_loss, &f);
	release(&b);
}
END_TEST

static double gelu_loss(void *arg)
{
	struct forward *f = arg;

	k->gelu(NULL, f->y, f->x, f->kind);
	return inner(f->weight, f->y);
}

START_TEST(gelu_gradient)
{
	struct bench b = {0};
	struct forward f = {.y = made(&b, 5, 9, 1),
			    .weight = made(&b, 5, 9, 1),
			    .x = made(&b, 5, 9, 4),
			    .kind = (enum gelu)_i};
	struct matrix dx = copied(&b, f.weight);

	k->gelu_backward(NULL, dx, dx, f.x, f.kind);
	check_gradient(_i ? "gelu, exact" : "gelu, tanh", f.x, dx, gelu_loss, &f);
	release(&b);
}
END_TEST

static double swiglu_loss(void *arg)
{
	struct forward *f = arg;

	k->swiglu(NULL, f->y, f->x, f->z);
	return inner(f->weight, f->y);
}

START_TEST(swiglu_gradient)
{
	struct bench b = {0};
	struct forward f = {.y = made(&b, 4, 6, 1),
			    .weight = made(&b, 4, 6, 1),
			    .x = made(&b, 4, 6, 5),
			    .z = made(&b, 4, 6, 2)};
	struct matrix dgate = made(&b, 4, 6, 1), dup = copied(&b, f.weight);

	k->swiglu_backward(NULL, dgate, dup, dup, f.x, f.z);
	check_gradient("swiglu, gate", f.x, dgate, swiglu_loss, &f);
	check_gradient("swiglu, up", f.z, dup, swiglu_loss, &f);
	release(&b);
}
END_TEST

static double rope_loss(void *arg)
{
	struct forward *f = arg;

	for (int i = 0; i < f->x.rows; i++)
		memcpy(row(f->y, i), row(f->x, i), (size_t)f->x.cols * sizeof(double));
	k->rope(NULL, f->y, NULL, f->gain, 6, false);
	return inner(f->weight, f->y);
}

START_TEST(rope_gradient)
{
	struct bench b = {0};
	struct forward f = {.y = made(&b, 8, 12, 1),
			    .weight = made(&b, 8, 12, 1),
			    .x = made(&b, 8, 12, 1),
			    .gain = made(&b, 4, 6, 1)};
	struct matrix dx = copied(&b, f.weight);

	k->rope(NULL, dx, NULL, f.gain, 6, true);
	check_gradient("rope", f.x, dx, rope_loss, &f);
	release(&b);
}
END_TEST

static double dropout_loss(void *arg)
{
	struct forward *f = arg;

	k->dropout(NULL, f->y, f->x, f->d);
	return inner(f->weight, f->y);
}

START_TEST(dropout_gradient)
{
	struct bench b = {0};
	struct forward f = {.y = made(&b, 6, 9, 1),
			    .weight = made(&b, 6, 9, 1),
			    .x = made(&b, 6, 9, 1),
			    .d = {.p = 0.4f, .step = 3, .tokens = 3}};
	struct matrix dx = made(&b, 6, 9, 1), before = copied(&b, dx);

	k->dropout_backward(NULL, dx, f.weight, f.d);
	subtract(dx, before);
	check_gradient("dropout", f.x, dx, dropout_loss, &f);
	release(&b);
}
END_TEST

static const int32_t some_labels[] = {2, -100, 0, 6};

static double cross_entropy_loss(void *arg)
{
	struct forward *f = arg;
	double losses[4], sum = 0;

	k->cross_entropy(NULL, losses, none, f->x, some_labels, 0);
	for (int i = 0; i < 4; i++)
		sum += losses[i];
	return 0.5 * sum;
}

START_TEST(cross_entropy_gradient)
{
	struct bench b = {0};
	struct forward f = {.x = made(&b, 4, 7, 4)};
	struct matrix dx = copied(&b, f.x);
	double losses[4];

	k->cross_entropy(NULL, losses, dx, dx, some_labels, 0.5f);
	check_gradient("cross_entropy", f.x, dx, cross_entropy_loss, &f);
	release(&b);
}
END_TEST

/* -- attention ----------------------------------------------------------------------------- */

static const struct attention shapes[] = {
    {.sequences = 2, .tokens = 5, .heads = 2, .kv_heads = 2, .head_size = 3, .scale = 0.6f},
    {.sequences = 1, .tokens = 6, .heads = 4, .kv_heads = 2, .head_size = 2, .scale = 1.5f},
    {.sequences = 1,
     .tokens = 7,
     .heads = 3,
     .kv_heads = 1,
     .head_size = 4,
     .scale = 0.5f,
     .window = 3},
    {.sequences = 3, .tokens = 1, .heads = 1, .kv_heads = 1, .head_size = 1, .scale = 1},
    {.sequences = 2,
     .tokens = 5,
     .heads = 2,
     .kv_heads = 1,
     .head_size = 3,
     .scale = 0.6f,
     .window = 2,
     .segments = 4,
     .segment = (const struct segment[]){{0, 1, 0}, {1, 4, 0}, {5, 2, 0}, {7, 3, 0}}},
};

struct attended {
	struct attention shape;
	struct matrix o, lse, q, k, v, weight;
	void *scratch;
};

static struct attended attended(struct bench *b, struct attention s)
{
	int n = s.sequences * s.tokens, wide = s.heads * s.head_size;
	int narrow = s.kv_heads * s.head_size;
	void *scratch = xalloc(kernels_double.attention_scratch(1, s, DTYPE_F32));

	b->memory[b->memories++] = scratch;
	return (struct attended){s,
				 made(b, n, wide, 1),
				 made(b, n, s.heads, 1),
				 made(b, n, wide, 2),
				 made(b, n, narrow, 2),
				 made(b, n, narrow, 2),
				 made(b, n, wide, 1),
				 scratch};
}

static double attention_loss(void *arg)
{
	struct attended *a = arg;

	k->attention(NULL, a->o, a->lse, a->q, a->k, a->v, a->shape, a->scratch);
	return inner(a->weight, a->o);
}

START_TEST(attention_gradient)
{
	struct bench b = {0};
	struct attended a = attended(&b, shapes[_i]);
	struct matrix dq = copied(&b, a.q), dk = copied(&b, a.k), dv = copied(&b, a.v);

	attention_loss(&a);
	k->attention_backward(NULL, dq, dk, dv, a.weight, a.q, a.k, a.v, a.o, a.lse, a.shape,
			      a.scratch);
	check_gradient("attention, q", a.q, dq, attention_loss, &a);
	check_gradient("attention, k", a.k, dk, attention_loss, &a);
	check_gradient("attention, v", a.v, dv, attention_loss, &a);
	release(&b);
}
END_TEST

/* The sequence or the segment that a row is in. */
static int span_of(const struct attention *at, int row)
{
	int s = 0;

	if (at->segments == 0)
		return row / at->tokens;
	while (row >= at->segment[s].first + at->segment[s].tokens)
		s++;
	return s;
}

/* softmax(mask + scale q kᵀ) v, one number at a time, as it is written in a book. */
static double naive(const struct attended *a, int i, int h, int d, double *lse)
{
	const struct attention *at = &a->shape;
	int kv = h / (at->heads / at->kv_heads);
	double sum = 0, out = 0;

	for (int j = 0; j < a->q.rows; j++) {
		double score = 0, mask = j <= i && (!at->window || i - j < at->window) &&
					 span_of(at, i) == span_of(at, j);

		for (int e = 0; e < at->head_size; e++)
			score += row(a->q, i)[h * at->head_size + e] *
				 row(a->k, j)[kv * at->head_size + e];
		sum += mask * exp(at->scale * score);
		out += mask * exp(at->scale * score) * row(a->v, j)[kv * at->head_size + d];
	}
	*lse = log(sum);
	return out / sum;
}

START_TEST(attention_is_its_formula)
{
	struct bench b = {0};
	struct attended a = attended(&b, shapes[_i]);
	int D = a.shape.head_size;
	double lse;

	attention_loss(&a);
	for (int n = 0; n < a.o.rows; n++) {
		for (int j = 0; j < a.o.cols; j++) {
			double want = naive(&a, n, j / D, j % D, &lse);

			ck_assert_double_eq_tol(row(a.o, n)[j], want, 1e-12);
			ck_assert_double_eq_tol(row(a.lse, n)[j / D], lse, 1e-12);
		}
	}
	release(&b);
}
END_TEST

/* -- PyTorch ------------------------------------------------------------------------------- */

/* Inputs, and what torch 2 gives for them in float64. */
static const double x8[] = {-6, -3, -1, -0.1, 0, 0.3, 1.5, 4};
static const double gain8[] = {1, 0.5, 2, -1, 1.5, 0.25, 1, 3};
static const double bias8[] = {0.1, -0.2, 0.3, 0, 0.5, -0.5, 1, -1};

static struct matrix row8(const double *data)
{
	return (struct matrix){(void *)data, 1, 8, 8, DTYPE_F64};
}

static void check_row(const char *name, const double *got, const double *want, int count)
{
	for (int i = 0; i < count; i++)
		ck_assert_msg(fabs(got[i] - want[i]) <= 1e-8 * fmax(1, fabs(want[i])),
			      "%s: number %d: %.12g is not %.12g", name, i, got[i], want[i]);
}

START_TEST(activations_are_torch)
{
	static const double tanh8[] = {-8.43964897967453e-11,
				       -0.0036373920817729943,
				       -0.15880800939172324,
				       -0.046017248954564841,
				       0,
				       0.18537092354275922,
				       1.3995715769802328,
				       3.9999297540518075};
	static const double exact8[] = {-5.9195258694799691e-09,
					-0.0040496940948903104,
					-0.15865525393145702,
					-0.046017216272297101,
					0,
					0.1853734266566858,
					1.399789198096713,
					3.9998733150326675};
	static const double silu8[] = {-0.014835738939808647,
				       -0.14227761953270035,
				       -0.2689414213699951,
				       -0.047502081252106004,
				       0,
				       0.17233275504349771,
				       1.2263617142904655,
				       3.9280551601516338};
	double y[8], one[8] = {1, 1, 1, 1, 1, 1, 1, 1};

	k->gelu(NULL, row8(y), row8(x8), GELU_TANH);
	check_row("gelu, tanh", y, tanh8, 8);
	k->gelu(NULL, row8(y), row8(x8), GELU_EXACT);
	check_row("gelu, exact", y, exact8, 8);
	k->swiglu(NULL, row8(y), row8(x8), row8(one));
	check_row("silu", y, silu8, 8);
}
END_TEST

START_TEST(norms_are_torch)
{
	static const double layer8[] = {-1.8615737634557263,   -0.64213962402835012,
					-0.032165808914699612, -0.15710545016235797,
					0.78952290101348821,   -0.42481382027944298,
					1.7316625250418385,    3.8882238636230797};
	static const double rms8[] = {-2.1155434098894745,
				      -0.52888585247236863,
				      -0.70518113662982485,
				      0.035259056831491241,
				      0,
				      0.026444292623618432,
				      0.52888585247236863,
				      4.2310868197789491};
	double y[8], stats[2];
	struct matrix kept = {stats, 1, 2, 2, DTYPE_F64};

	k->layer_norm(NULL, row8(y), none, kept, row8(x8), row8(gain8), row8(bias8), 1e-5f);
	check_row("layer norm", y, layer8, 8);
	k->rms_norm(NULL, row8(y), none, kept, row8(x8), row8(gain8), 1e-6f);
	check_row("rms norm", y, rms8, 8);
}
END_TEST

START_TEST(cross_entropy_is_torch)
{
	static const double want[] = {3.9499080440373515e-05, 0.0007933602386170814,
				      0.005862183309802621,   0.014418644306962877,
				      0.015935066366132365,   -0.97848991031636812,
				      0.071416012768207138,   0.87002514424620558};
	static const int32_t label = 5;
	double x[8], loss;

	memcpy(x, x8, sizeof x);
	k->cross_entropy(NULL, &loss, row8(x), row8(x), &label, 1);
	check_row("loss", &loss, (const double[]){3.839233166318726}, 1);
	check_row("gradient", x, want, 8);
}
END_TEST

/* A head of 8 at positions 0, 1, 2; base 10000. */
START_TEST(rope_is_transformers)
{
	static const double want[] = {0.1,
				      0.2,
				      0.3,
				      0.4,
				      0.5,
				      0.6,
				      0.7,
				      0.8,
				      -0.36670526181713425,
				      0.13910078306750828,
				      0.29298511679108297,
				      0.39919980013334999,
				      0.35429825141485954,
				      0.61696918249618116,
				      0.70296495029191575,
				      0.80039959993336662,
				      -0.49626339706755507,
				      0.076811717091211582,
				      0.28594093531464021,
				      0.39839920106693311,
				      -0.11714367559100303,
				      0.62777381286375722,
				      0.7058596046746044,
				      0.80079839946720011};
	double x[24], table[24];

	for (int i = 0; i < 24; i++)
		x[i] = 0.1 * (i % 8 + 1);
	for (int i = 0; i < 12; i++) {
		double angle = i / 4 * pow(10000, -(i % 4) / 4.0);

		table[i / 4 * 8 + i % 4] = cos(angle);
		table[i / 4 * 8 + 4 + i % 4] = sin(angle);
	}
	k->rope(NULL, (struct matrix){x, 3, 8, 8, DTYPE_F64}, NULL,
		(struct matrix){table, 3, 8, 8, DTYPE_F64}, 8, false);
	check_row("rope", x, want, 24);
}
END_TEST

/* Two parameters, three steps of torch.optim.AdamW; the clip halves gradients given doubled. */
START_TEST(adamw_is_torch)
{
	static const double gradients[3][2] = {{1, -4}, {-0.5, 2e-3}, {2, 0}};
	static const double want[3][2] = {{0.899000002, -0.3995000005},
					  {0.87146729870584627, -0.33213190939752002},
					  {0.80478467237638396, -0.28003286255283488}};
	double p[2] = {1, -0.5}, m[2] = {0}, v[2] = {0};
	struct adamw a = {0.1, 0.9, 0.999, 1e-8, 0.01, 0.5f, 1};

	for (; a.step <= 3; a.step++) {
		const double *g = gradients[a.step - 1];

		k->adamw(NULL, (struct matrix){p, 1, 2, 2, DTYPE_F64},
			 (struct matrix){m, 1, 2, 2, DTYPE_F64},
			 (struct matrix){v, 1, 2, 2, DTYPE_F64},
			 (struct matrix){(void *)g, 1, 2, 2, DTYPE_F64}, a);
		check_row("adamw", p, want[a.step - 1], 2);
	}
	check_row("m", m, (const double[]){0.118, -0.16191}, 2);
	check_row("v", v, (const double[]){0.00131193775, 0.003992004999}, 2);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("gradients");
	TCase *differences = tcase_create("differences"), *torch = tcase_create("torch");
	int count = (int)(sizeof shapes / sizeof *shapes);

	tcase_add_test(differences, layer_norm_gradient);
	tcase_add_test(differences, rms_norm_gradient);
	tcase_add_loop_test(differences, gelu_gradient, 0, 2);
	tcase_add_test(differences, swiglu_gradient);
	tcase_add_test(differences, rope_gradient);
	tcase_add_test(differences, dropout_gradient);
	tcase_add_test(differences, cross_entropy_gradient);
	tcase_add_loop_test(differences, attention_gradient, 0, count);
	tcase_add_loop_test(differences, attention_is_its_formula, 0, count);
	tcase_add_test(torch, activations_are_torch);
	tcase_add_test(torch, norms_are_torch);
	tcase_add_test(torch, cross_entropy_is_torch);
	tcase_add_test(torch, rope_is_transformers);
	tcase_add_test(torch, adamw_is_torch);
	suite_add_tcase(suite, differences);
	suite_add_tcase(suite, torch);
	return run_suite(suite);
}
