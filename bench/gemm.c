/*
 * bench/gemm.c - how fast this machine multiplies matrices: the ceiling under which a training
 * step runs, and how near to it the product of the CPU device comes.
 *
 * The ceiling is OpenBLAS's own sgemm with its own threads on large squares. Beside it are the
 * products of a GPT-2 training step, by OpenBLAS and by the device, whose pool cuts them into
 * tiles so that the bits do not depend on the threads. Every product is verified, then timed.
 *
 * links: tensor
 */
#include "bench/measure.h"

#include <cblas.h>
#include <errno.h>
#include <float.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS_MOST 64
#define SPIN_S 0.2		/* how long OpenBLAS's idle threads still burn their cores */
#define SAMPLES 64		/* elements of a product that are computed again in double */
#define LORA_RANK 8
#define HEAD_ROWS 256		/* of logits that training makes at once */

static const char usage[] =
	"gemm - fp32 matrix products: this machine's peak, and those of a GPT-2 training step\n"
	"\n"
	"  gemm --threads 2\n"
	"\n"
	"Usage: gemm [--threads N] [--tokens 2048] [--width 768] [--vocabulary 50257]\n"
	"            [--rounds 5] [--peak]\n"
	"  --threads N   beside one thread (default: the usable CPUs)\n"
	"  --tokens N    of a micro-batch\n"
	"  --peak        the large squares alone\n";

struct order {
	uint64_t threads, tokens, width, vocabulary, rounds, peak;
};

/* c (m,n) = op(a) op(b) + beta c over k. */
struct product {
	const char *name;
	int m, n, k;
	bool a_t, b_t;
	float beta;
};

/* The columns of the table. */
enum { BLAS_ONE, DEVICE_ONE, BLAS_ALL, DEVICE_ALL, WAYS };

struct bench {
	struct order order;
	struct device *one, *all;
	float *a, *b, *c, *again;
};

/* -- products ------------------------------------------------------------------------------ */

/* As linear.c and head.c ask for them: GPT-2's weights are (in, out), its head (V, C). */
static int training_products(struct product *p, const struct order *order)
{
	int n = (int)order->tokens, C = (int)order->width, V = (int)order->vocabulary;
	int rows = n < HEAD_ROWS ? n : HEAD_ROWS;
	const struct product all[] = {
		{"qkv forward", n, 3 * C, C, false, false, 0},
		{"out forward", n, C, C, false, false, 0},
		{"up forward", n, 4 * C, C, false, false, 0},
		{"down forward", n, C, 4 * C, false, false, 0},
		{"qkv backward", n, C, 3 * C, false, true, 0},
		{"out backward", n, C, C, false, true, 0},
		{"up backward", n, C, 4 * C, false, true, 0},
		{"down backward", n, 4 * C, C, false, true, 0},
		{"head forward", rows, V, C, false, true, 0},
		{"head backward", rows, C, V, false, false, 0},
		{"lora u = x At", n, LORA_RANK, C, false, true, 0},
		{"lora y += u Bt", n, 3 * C, LORA_RANK, false, true, 1},
		{"lora du = dy B", n, LORA_RANK, 3 * C, false, false, 0},
		{"lora dB += dyt u", 3 * C, LORA_RANK, n, true, false, 1},
		{"lora dA += dut x", LORA_RANK, C, n, true, false, 1},
		{"lora dx += du A", n, C, LORA_RANK, false, false, 1},
	};

	memcpy(p, all, sizeof all);
	return sizeof all / sizeof *all;
}

static int squares(struct product *p)
{
	p[0] = (struct product){"square", 1024, 1024, 1024, false, false, 0};
	p[1] = (struct product){"square", 2048, 2048, 2048, false, false, 0};
	p[2] = (struct product){"square", 3072, 3072, 3072, false, false, 0};
	return 3;
}

/* Uniform in [-1, 1): zeros would run faster on some cores. */
static void fill(float *to, size_t count, uint32_t seed)
{
	for (size_t i = 0; i < count; i += 4) {
		struct philox at = {{(uint32_t)i, (uint32_t)(i >> 32), 0, 0}};
		struct philox p = philox(at, seed, 0);

		for (size_t j = 0; j < 4 && i + j < count; j++)
			to[i + j] = 2 * philox_unit(p.word[j]) - 1;
	}
}

/* Room for the largest operands of all products. */
static void make_operands(struct bench *bench, const struct product *p, int count)
{
	size_t a = 0, b = 0, c = 0;

	for (int i = 0; i < count; i++) {
		a = larger(a, (size_t)p[i].m * (size_t)p[i].k);
		b = larger(b, (size_t)p[i].k * (size_t)p[i].n);
		c = larger(c, (size_t)p[i].m * (size_t)p[i].n);
	}
	bench->a = xalloc(a * sizeof(float));
	bench->b = xalloc(b * sizeof(float));
	bench->c = xalloc(c * sizeof(float));
	bench->again = xalloc(c * sizeof(float));
	fill(bench->a, a, 1);
	fill(bench->b, b, 2);
}

/* -- running ------------------------------------------------------------------------------- */

static void run_blas(const struct bench *bench, const struct product *p, float *c)
{
	cblas_sgemm(CblasRowMajor, p->a_t ? CblasTrans : CblasNoTrans,
		    p->b_t ? CblasTrans : CblasNoTrans, p->m, p->n, p->k, 1, bench->a,
		    p->a_t ? p->m : p->k, bench->b, p->b_t ? p->k : p->n, p->beta, c, p->n);
}

static void run_device(const struct bench *bench, struct device *dev, const struct product *p,
		       float *c)
{
	struct matrix a = p->a_t ? matrix(bench->a, p->k, p->m) : matrix(bench->a, p->m, p->k);
	struct matrix b = p->b_t ? matrix(bench->b, p->n, p->k) : matrix(bench->b, p->k, p->n);

	dev->k.matmul(dev, matrix(c, p->m, p->n), a, p->a_t, b, p->b_t, 1, p->beta);
}

static void run(const struct bench *bench, const struct product *p, int way, float *c)
{
	if (way == BLAS_ONE || way == BLAS_ALL)
		run_blas(bench, p, c);
	else
		run_device(bench, way == DEVICE_ONE ? bench->one : bench->all, p, c);
}

/* -- verifying ----------------------------------------------------------------------------- */

static double element(const struct bench *bench, const struct product *p, size_t i, size_t j)
{
	size_t m = (size_t)p->m, n = (size_t)p->n, inner = (size_t)p->k;
	double sum = 0;

	for (size_t k = 0; k < inner; k++)
		sum += (double)bench->a[p->a_t ? k * m + i : i * inner + k] *
		       (double)bench->b[p->b_t ? j * inner + k : k * n + j];
	return sum;
}

/* The device against single-threaded OpenBLAS everywhere, and against double in some places. */
static int verify(const struct bench *bench, const struct product *p)
{
	size_t count = (size_t)p->m * (size_t)p->n, step = count / SAMPLES + 1;
	double most = 4.0 * p->k * (double)FLT_EPSILON;

	openblas_set_num_threads(1);
	memset(bench->c, 0, count * sizeof(float));
	memset(bench->again, 0, count * sizeof(float));
	run(bench, p, BLAS_ONE, bench->again);
	run(bench, p, DEVICE_ALL, bench->c);
	for (size_t i = 0; i < count; i++)
		if (!(fabs((double)bench->c[i] - (double)bench->again[i]) <= most))
			return error(EXIT_BUG, "%s: element %zu is %g, OpenBLAS says %g",
				     p->name, i, (double)bench->c[i], (double)bench->again[i]);
	for (size_t i = 0; i < count; i += step) {
		double right = element(bench, p, i / (size_t)p->n, i % (size_t)p->n);

		if (!(fabs((double)bench->c[i] - right) <= most))
			return error(EXIT_BUG, "%s: element %zu is %g instead of %g", p->name,
				     i, (double)bench->c[i], right);
	}
	return 0;
}

/* -- timing -------------------------------------------------------------------------------- */

/* One way of one product. */
struct task {
	const struct bench *bench;
	const struct product *p;
	int way;
};

static void task_run(void *arg)
{
	const struct task *t = arg;

	run(t->bench, t->p, t->way, t->bench->c);
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct rate { double median, best; };	/* GF/s */

/* Round by round, all ways in turn: what disturbs the machine disturbs them alike. */
static void measure(const struct bench *bench, const struct product *p,
		    struct rate rate[WAYS])
{
	double seconds[WAYS][ROUNDS_MOST], work = 2e-9 * p->m * p->n * p->k;
	long times[WAYS] = {1, 1, 1, 1};
	size_t rounds = bench->order.rounds;

	for (size_t r = 0; r < rounds; r++)
		for (int way = 0; way < WAYS; way++) {
			int own = way == BLAS_ALL ? (int)bench->order.threads : 1;
			struct task task = {bench, p, way};

			openblas_set_num_threads(own);
			seconds[way][r] = seconds_of(task_run, &task, &times[way]);
			if (own > 1)
				clock_sleep(SPIN_S);
		}
	for (int way = 0; way < WAYS; way++) {
		qsort(seconds[way], rounds, sizeof(double), by_size);
		rate[way].median = work / seconds[way][rounds / 2];
		rate[way].best = work / seconds[way][0];
	}
}

/* -- the table ----------------------------------------------------------------------------- */

static void print_head(const struct bench *bench)
{
	char name[128];
	int threads = (int)bench->order.threads;

	printf("%s; GF/s, median (best) of %d rounds\n", blas_describe(name, sizeof name),
	       (int)bench->order.rounds);
	printf("%-17s %5s %5s %5s  %15s %15s %15s %15s\n", "product", "m", "n", "k",
	       "OpenBLAS, 1", "edgepipe, 1", "OpenBLAS, all", "edgepipe, all");
	printf("%-17s %5s %5s %5s  %15s %15s %13d x %13d x\n", "", "", "", "", "", "", threads,
	       threads);
}

/* Measures and prints some products; the best rates of OpenBLAS go to peak. */
static int measure_all(const struct bench *bench, const struct product *p, int count,
		       double peak[WAYS])
{
	struct rate rate[WAYS];

	for (int i = 0; i < count; i++) {
		if (verify(bench, &p[i]) < 0)
			return -1;
		measure(bench, &p[i], rate);
		printf("%-17s %5d %5d %5d ", p[i].name, p[i].m, p[i].n, p[i].k);
		for (int way = 0; way < WAYS; way++) {
			printf("  %6.1f (%5.1f)", rate[way].median, rate[way].best);
			if (peak && rate[way].best > peak[way])
				peak[way] = rate[way].best;
		}
		printf("\n");
		fflush(stdout);
	}
	return 0;
}

static int run_all(struct bench *bench)
{
	struct product p[32];
	double peak[WAYS] = {0};
	int large = squares(p), count = large;

	if (!bench->order.peak)
		count += training_products(p + large, &bench->order);
	make_operands(bench, p, count);
	print_head(bench);
	if (measure_all(bench, p, large, peak) < 0 ||
	    measure_all(bench, p + large, count - large, NULL) < 0)
		return -1;
	printf("peak 1 thread %.1f GF/s, %d threads %.1f GF/s (OpenBLAS's best)\n",
	       peak[BLAS_ONE], (int)bench->order.threads, peak[BLAS_ALL]);
	return 0;
}

/* -- command line -------------------------------------------------------------------------- */

static int read_options(struct order *order, int argc, char **argv)
{
	static const struct option options[] = {
		{"threads", required_argument, NULL, 0},
		{"tokens", required_argument, NULL, 0},
		{"width", required_argument, NULL, 0},
		{"vocabulary", required_argument, NULL, 0},
		{"rounds", required_argument, NULL, 0},
		{"peak", no_argument, NULL, 0},
		{0},
	};
	uint64_t *const value[] = {&order->threads, &order->tokens, &order->width,
				   &order->vocabulary, &order->rounds, &order->peak};
	const uint64_t most[] = {1024, 1 << 16, 1 << 14, 1 << 20, ROUNDS_MOST};
	int which, option;

	while ((option = getopt_long(argc, argv, "", options, &which)) == 0) {
		char *end;

		*value[which] = 1;
		if (!optarg)
			continue;
		errno = 0;
		*value[which] = strtoull(optarg, &end, 10);
		if (errno || end == optarg || *end || !*value[which] ||
		    *value[which] > most[which])
			return error(EXIT_USAGE, "'%s' is no value for --%s", optarg,
				     options[which].name);
	}
	if (option != -1 || optind != argc) {
		fputs(usage, stderr);
		return error(EXIT_USAGE, "see above");
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct bench bench = {
		.order = {.tokens = 2048, .width = 768, .vocabulary = 50257, .rounds = 5}};
	int done = -1;

	settle_blas(argv);
	bench.order.threads = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
	if (read_options(&bench.order, argc, argv) < 0)
		return error_code();
	bench.one = device_open("cpu", 1);
	bench.all = device_open("cpu", (int)bench.order.threads);
	if (bench.one && bench.all)
		done = run_all(&bench);
	device_close(bench.one);
	device_close(bench.all);
	free(bench.a);
	free(bench.b);
	free(bench.c);
	free(bench.again);
	return done < 0 ? error_code() : EXIT_SUCCESS;
}
