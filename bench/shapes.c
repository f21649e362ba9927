/*
 * bench/shapes.c - what a training step cannot go below with the libraries that there are: all
 * matrix products of its frozen weights, each alone at its best.
 *
 * Forward and backward of every linear of every block (the lowest block's gradient of its input
 * is not needed), of the head in the row chunks that training makes, and where asked of attention,
 * its causal half as products of half the keys, a sequence and head each; LoRA and all element-wise
 * work are free. Every product is tried in several ways: OpenBLAS, one call a thread
 * on a part of the rows or columns, weights stored either way; oneDNN with packed weights, the
 * same, and as one call on all its threads. Every way is verified against sums in double, then
 * timed; the best of all counts.
 *
 * links: model
 */
#include "bench/measure.h"
#include "bench/packed.h"
#include "bench/step.h"

#include <cblas.h>
#include <errno.h>
#include <float.h>
#include <getopt.h>
#include <math.h>
#include <unistd.h>

#define SAMPLES 64	   /* elements of a product that are computed again in double */
#define THREADS_MOST 256
#define PARTS_MOST 2048

static const char usage[] =
	"shapes - the least time that a step's matrix products take, each alone at its best\n"
	"\n"
	"  make_model gpt2 /tmp/gpt2 --config-only\n"
	"  shapes /tmp/gpt2 --rows 2048\n"
	"\n"
	"Usage: shapes MODEL_DIR|--peak\n"
	"  --rows N           tokens of a micro-batch (2048)\n"
	"  --micro-batches N  of a step (1)\n"
	"  --attention T      its products too, for sequences of T tokens\n"
	"  --precision P      fp32, bf16 or both (both)\n"
	"  --threads N        (the usable CPUs)\n"
	"  --rounds N         (3)\n"
	"  --peak             large squares alone\n";

struct order {
	const char *folder;
	uint64_t rows, micro_batches, threads, rounds, attention;
	bool fp32, bf16, peak;
};

static int squares(struct product *p)
{
	for (int i = 0; i < 3; i++) {
		int n = 1024 * (i + 1);

		p[i] = (struct product){"square", n, n, n, 1, false, 0};
	}
	return 3;
}

/* -- ways ---------------------------------------------------------------------------------- */

enum cut { CUT_NONE, CUT_ROWS, CUT_COLS };
/* b_t: the weights are stored (n,k). */
static const struct way {
	const char *name;
	bool packed, b_t;
	enum cut cut;
} ways[] = {
	{"blas rows", false, false, CUT_ROWS}, {"blas rows t", false, true, CUT_ROWS},
	{"blas cols", false, false, CUT_COLS}, {"blas cols t", false, true, CUT_COLS},
	{"dnn rows", true, false, CUT_ROWS},   {"dnn cols", true, false, CUT_COLS},
	{"dnn all", true, false, CUT_NONE},
};
#define WAYS ((int)(sizeof ways / sizeof *ways))
#define FIRST_PACKED 4

struct bench {
	struct order order;
	struct pool *pool;
	float *a, *b;		/* what is multiplied, rounded to BF16 where that is measured */
	uint16_t *half_a, *half_b;
	void *c;
	enum dtype in;
	double peak;		/* GF/s */
};

/* A product made ready to be run in one way. */
struct task {
	const struct bench *bench;
	const struct product *p;
	const struct way *way;
	int parts;
	struct packed *packed[PARTS_MOST];
};

/* Part i of count numbers in `parts`: where it starts, and how many it has. */
static int part_of(int count, int parts, int i, int *size)
{
	int first = (int)((int64_t)count * i / parts);

	*size = (int)((int64_t)count * (i + 1) / parts) - first;
	return first;
}

/* Where part i stands in c, a and b. */
static void place(const struct task *t, int i, int *row, int *rows, int *col, int *cols)
{
	if (t->p->each) {
		*row = *col = 0;
		*rows = t->p->m;
		*cols = t->p->n;
		return;
	}
	*row = part_of(t->p->m, t->way->cut == CUT_ROWS ? t->parts : 1,
		       t->way->cut == CUT_ROWS ? i : 0, rows);
	*col = part_of(t->p->n, t->way->cut == CUT_COLS ? t->parts : 1,
		       t->way->cut == CUT_COLS ? i : 0, cols);
}

/* The first number of c that part i makes; products of their own stand one behind the other. */
static size_t first_of(const struct task *t, int i, int row, int col)
{
	size_t before = t->p->each ? (size_t)i * (size_t)t->p->m : (size_t)row;

	return before * (size_t)t->p->n + (size_t)col;
}

static enum dtype out_type(const struct task *t)
{
	return t->p->logits ? DTYPE_F32 : t->bench->in;
}

static bool task_open(struct task *t, const struct bench *bench, const struct product *p,
		      const struct way *way)
{
	size_t wide = dtype_bytes(bench->in);
	char *a = bench->in == DTYPE_F32 ? (char *)bench->a : (char *)bench->half_a;
	char *b = bench->in == DTYPE_F32 ? (char *)bench->b : (char *)bench->half_b;
	int row, rows, col, cols;

	*t = (struct task){.bench = bench, .p = p, .way = way};
	if (p->each && way->cut != CUT_ROWS)
		return false;
	t->parts = way->cut == CUT_NONE ? 1 : p->each ? p->each : (int)bench->order.threads;
	if (!way->packed)
		return bench->in == DTYPE_F32;
	packed_threads(way->cut == CUT_NONE ? (int)bench->order.threads : 1);
	for (int i = 0; i < t->parts; i++) {
		place(t, i, &row, &rows, &col, &cols);
		struct packed_shape shape = {rows, cols, p->k, (size_t)p->n, bench->in,
					     out_type(t)};
		size_t at = first_of(t, i, row, col);

		if (rows && cols)
			t->packed[i] = packed_open(
			    &shape, a + (size_t)row * (size_t)p->k * wide,
			    b + (size_t)col * wide, (size_t)p->n,
			    (char *)bench->c + at * dtype_bytes(out_type(t)));
		if (rows && cols && !t->packed[i])
			return false;
	}
	return true;
}

static void task_close(struct task *t)
{
	for (int i = 0; i < t->parts; i++)
		packed_close(t->packed[i]);
}

static void run_blas(const struct task *t, int i)
{
	const struct product *p = t->p;
	const float *b = t->bench->b;
	int row, rows, col, cols;

	place(t, i, &row, &rows, &col, &cols);
	if (!rows || !cols)
		return;
	b += (size_t)col * (t->way->b_t ? (size_t)p->k : 1);
	cblas_sgemm(CblasRowMajor, CblasNoTrans, t->way->b_t ? CblasTrans : CblasNoTrans, rows,
		    cols, p->k, 1, t->bench->a + (size_t)row * (size_t)p->k, p->k, b,
		    t->way->b_t ? p->k : p->n, 0,
		    (float *)t->bench->c + first_of(t, i, row, col), p->n);
}

static void run_part(void *arg, int index, int thread)
{
	struct task *t = arg;

	(void)thread;
	if (!t->way->packed) {
		run_blas(t, index);
	} else if (t->packed[index]) {
		packed_threads(1);
		packed_run(t->packed[index]);
	}
}

static void task_run(void *arg)
{
	struct task *t = arg;

	if (t->way->cut != CUT_NONE) {
		pool_run(t->bench->pool, t->parts, run_part, t);
		return;
	}
	packed_threads((int)t->bench->order.threads);
	packed_run(t->packed[0]);
}

/* -- verifying ----------------------------------------------------------------------------- */

static double element(const struct task *t, size_t i, size_t j)
{
	size_t n = (size_t)t->p->n, inner = (size_t)t->p->k;
	const float *a = t->bench->a + i * inner, *b = t->bench->b;
	double sum = 0;

	for (size_t k = 0; k < inner; k++)
		sum += (double)a[k] * (double)b[t->way->b_t ? j * inner + k : k * n + j];
	return sum;
}

/* Some elements against double. A BF16 result is off by up to half a step of its 8 bits. */
static int verify(struct task *t)
{
	size_t n = (size_t)t->p->n, m = (size_t)t->p->m, count = items(t->p) * m * n;
	size_t step = count / SAMPLES + 1;
	bool half = out_type(t) == DTYPE_BF16;

	memset(t->bench->c, 0xff, count * dtype_bytes(out_type(t)));
	task_run(t);
	for (size_t at = 0; at < count; at += step) {
		size_t i = at / n, j = (at + i) % n;
		double right = element(t, i % m, j);
		double most = 4.0 * t->p->k * (double)FLT_EPSILON + (half ? fabs(right) / 256 : 0);
		const void *c = t->bench->c;
		double got = half ? (double)bf16_value(((const uint16_t *)c)[i * n + j])
				  : (double)((const float *)c)[i * n + j];

		if (!(fabs(got - right) <= most))
			return error(EXIT_BUG, "%s, %s: (%zu, %zu) is %g instead of %g",
				     t->p->name, t->way->name, i, j, got, right);
	}
	return 0;
}

/* -- timing -------------------------------------------------------------------------------- */

/* Round by round, all ways in turn; the least seconds of each way, infinity where there is none. */
static int measure(const struct bench *bench, const struct product *p, double best[])
{
	struct task *task = xzalloc((size_t)WAYS, sizeof *task);
	long times[WAYS];
	int done = 0;

	for (int w = 0; w < WAYS; w++) {
		best[w] = INFINITY;
		times[w] = 1;
		if (!task_open(&task[w], bench, p, &ways[w]))
			times[w] = 0;
		else if (done == 0)
			done = verify(&task[w]);
	}
	for (size_t r = 0; r < bench->order.rounds && done == 0; r++)
		for (int w = 0; w < WAYS; w++)
			if (times[w])
				best[w] = fmin(best[w], seconds_of(task_run, &task[w], &times[w]));
	for (int w = 0; w < WAYS; w++)
		task_close(&task[w]);
	free(task);
	return done;
}

/* -- operands ------------------------------------------------------------------------------ */

/* Uniform in [-1, 1): zeros would run faster on some cores. All are BF16 numbers, so that both
 * precisions have the same. */
static void fill(float *to, uint16_t *half, size_t count, uint32_t seed)
{
	for (size_t i = 0; i < count; i += 4) {
		struct philox at = {{(uint32_t)i, (uint32_t)(i >> 32), 0, 0}};
		struct philox p = philox(at, seed, 0);

		for (size_t j = 0; j < 4 && i + j < count; j++) {
			half[i + j] = bf16_of(2 * philox_unit(p.word[j]) - 1);
			to[i + j] = bf16_value(half[i + j]);
		}
	}
}

static void make_operands(struct bench *bench, const struct product *p, int count)
{
	size_t a = 0, b = 0, c = 0;

	for (int i = 0; i < count; i++) {
		a = larger(a, (size_t)p[i].m * (size_t)p[i].k);
		b = larger(b, (size_t)p[i].k * (size_t)p[i].n);
		c = larger(c, items(&p[i]) * (size_t)p[i].m * (size_t)p[i].n);
	}
	bench->a = xalloc(a * sizeof(float));
	bench->b = xalloc(b * sizeof(float));
	bench->half_a = xalloc(a * sizeof(uint16_t));
	bench->half_b = xalloc(b * sizeof(uint16_t));
	bench->c = xalloc(c * sizeof(float));
	fill(bench->a, bench->half_a, a, 1);
	fill(bench->b, bench->half_b, b, 2);
}

/* -- the tables ---------------------------------------------------------------------------- */

struct sum { double seconds, work; };	/* of a micro-batch; GFLOP */

static void print_heads(const struct bench *bench)
{
	printf("%-18s %5s %6s %6s %5s ", bench->in == DTYPE_F32 ? "fp32, GF/s" : "bf16, GF/s",
	       "m", "n", "k", "times");
	for (int w = bench->in == DTYPE_F32 ? 0 : FIRST_PACKED; w < WAYS; w++)
		printf(" %11s", ways[w].name);
	printf(" %10s\n", "seconds");
}

static int measure_all(struct bench *bench, const struct product *p, int count, struct sum *sum)
{
	double best[WAYS];

	print_heads(bench);
	for (int i = 0; i < count; i++) {
		double work = 2e-9 * p[i].m * p[i].n * p[i].k * (double)items(&p[i]);
		double least = INFINITY;

		if (measure(bench, &p[i], best) < 0)
			return -1;
		printf("%-18s %5d %6d %6d %5d ", p[i].name, p[i].m, p[i].n, p[i].k, p[i].count);
		for (int w = bench->in == DTYPE_F32 ? 0 : FIRST_PACKED; w < WAYS; w++) {
			least = fmin(least, best[w]);
			printf(" %11.1f", work / best[w]);
		}
		printf(" %10.6f\n", p[i].count * least);
		fflush(stdout);
		bench->peak = fmax(bench->peak, work / least);
		if (!isfinite(least))
			return 1;
		sum->seconds += p[i].count * least;
		sum->work += p[i].count * work;
	}
	return 0;
}

static int measure_precision(struct bench *bench, const struct product *p, int count,
			     const struct product *large, int larges)
{
	const char *name = bench->in == DTYPE_F32 ? "fp32" : "bf16";
	struct sum sum = {0}, none = {0};
	double steps = (double)bench->order.micro_batches;
	int lacks;

	bench->peak = 0;
	lacks = measure_all(bench, large, larges, &none);
	if (lacks == 0)
		lacks = measure_all(bench, p, count, &sum);
	if (lacks < 0)
		return -1;
	if (lacks) {
		printf("%s: no library here multiplies such matrices\n", name);
		return 0;
	}
	printf("peak %s %.1f GF/s: the best of all products\n", name, bench->peak);
	if (count)
		printf("bound %s %.4f s for a step of %.0f tokens: no more than %.1f tokens/s, "
		       "%.1f GF/s, %.0f %% of the peak\n",
		       name, steps * sum.seconds, steps * (double)bench->order.rows,
		       (double)bench->order.rows / sum.seconds, sum.work / sum.seconds,
		       100 * sum.work / sum.seconds / bench->peak);
	return 0;
}

static int run_all(struct bench *bench)
{
	struct product p[PRODUCTS + 3];
	char blas[128], packed[64];
	struct model_config *config = NULL;
	int large = squares(p), count = 0;

	if (!bench->order.peak) {
		config = model_config_read(bench->order.folder);
		if (!config)
			return -1;
		count = step_products(p + large, config, (int)bench->order.rows,
				      (int)bench->order.attention);
		model_config_free(config);
		for (int i = 0; i < large + count; i++)
			if (p[i].each > PARTS_MOST)
				return error(EXIT_USAGE, "more than %d sequences and heads",
					     PARTS_MOST);
	}
	make_operands(bench, p, large + count);
	openblas_set_num_threads(1);
	printf("%s, %s; %d threads, the best of %d rounds\n",
	       blas_describe(blas, sizeof blas), packed_describe(packed, sizeof packed),
	       (int)bench->order.threads, (int)bench->order.rounds);
	bench->in = DTYPE_F32;
	if (bench->order.fp32 && measure_precision(bench, p + large, count, p, large) < 0)
		return -1;
	bench->in = DTYPE_BF16;
	if (bench->order.bf16 && measure_precision(bench, p + large, count, p, large) < 0)
		return -1;
	return 0;
}

/* -- command line -------------------------------------------------------------------------- */

static int read_precision(struct order *order, const char *word)
{
	order->fp32 = strcmp(word, "bf16") != 0;
	order->bf16 = strcmp(word, "fp32") != 0;
	if (order->fp32 && order->bf16 && strcmp(word, "both") != 0)
		return error(EXIT_USAGE, "--precision is fp32, bf16 or both, not '%s'", word);
	return 0;
}

static int read_options(struct order *order, int argc, char **argv)
{
	static const struct option options[] = {
		{"rows", required_argument, NULL, 0},
		{"micro-batches", required_argument, NULL, 0},
		{"threads", required_argument, NULL, 0},
		{"rounds", required_argument, NULL, 0},
		{"attention", required_argument, NULL, 0},
		{"precision", required_argument, NULL, 'p'},
		{"peak", no_argument, NULL, 'l'},
		{0},
	};
	uint64_t *const value[] = {&order->rows, &order->micro_batches, &order->threads,
				   &order->rounds, &order->attention};
	const uint64_t most[] = {1 << 16, 1 << 16, THREADS_MOST, 64, 1 << 15};
	int which, option;

	while ((option = getopt_long(argc, argv, "", options, &which)) != -1) {
		char *end;

		if (option == 'p' && read_precision(order, optarg) < 0)
			return -1;
		if (option == 'l')
			order->peak = true;
		if (option == '?')
			break;
		if (option)
			continue;
		errno = 0;
		*value[which] = strtoull(optarg, &end, 10);
		if (errno || end == optarg || *end || !*value[which] ||
		    *value[which] > most[which])
			return error(EXIT_USAGE, "'%s' is no value for --%s", optarg,
				     options[which].name);
	}
	if (option != -1 || argc - optind != !order->peak) {
		fputs(usage, stderr);
		return error(EXIT_USAGE, "a folder with a config.json is needed, or --peak");
	}
	if (order->attention && (order->attention < 2 || order->rows % order->attention))
		return error(EXIT_USAGE, "--attention: whole sequences make up the rows");
	order->folder = argv[optind];
	return 0;
}

int main(int argc, char **argv)
{
	struct bench bench = {.order = {.rows = 2048, .micro_batches = 1, .rounds = 3,
					.fp32 = true, .bf16 = true}};
	int done;

	settle_blas(argv);
	bench.order.threads = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
	if (read_options(&bench.order, argc, argv) < 0)
		return error_code();
	bench.pool = pool_open((int)bench.order.threads);
	done = run_all(&bench);
	pool_close(bench.pool);
	free(bench.a);
	free(bench.b);
	free(bench.half_a);
	free(bench.half_b);
	free(bench.c);
	return done < 0 ? error_code() : EXIT_SUCCESS;
}
