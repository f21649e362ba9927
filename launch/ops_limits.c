/*
 * ops_limits.c - what a device can do at most, for the table of ops: the rate of a large product, and of a copy that no
 * cache holds. A few tenths of a second, with the kernels and the threads that train, before the memory is planned.
 */
#include <math.h>
#include <unistd.h>

#include "launch/session.h"

#define BOX_S 0.25		/* what repetitions may take together; the best of them counts */
#define LARGE_S 0.02		/* a product that takes so long is large enough */
enum { SIDE_LEAST = 128, SIDE_MOST = 2048, REPEATS_MOST = 50 };
/* The copied matrix: four times the caches, as far as the node's memory goes. */
enum { COPY_COLS = 4096, CACHES = 4 };
#define COPY_LEAST (64.0 * (1 << 20))
#define COPY_MOST (256.0 * (1 << 20))
#define MEMORY_PART 16		/* of the node's limit that one matrix may take */

/* Two or three matrices of one size. */
struct bench { struct device *dev; struct matrix a, b, c; };

static void multiply(const struct bench *m)
{
	const struct matrix none = {0};

	m->dev->k.linear(m->dev, m->c, m->a, m->b, false, none, 0);
}

static void copy(const struct bench *m)
{
	m->dev->k.copy(m->dev, m->b, m->a);
}

static double seconds_of(const struct bench *m, void (*work)(const struct bench *m))
{
	double start = clock_s();

	work(m);
	return clock_s() - start;
}

static double best_of(const struct bench *m, void (*work)(const struct bench *m))
{
	double start = clock_s(), best = seconds_of(m, work);

	for (int i = 1; i < REPEATS_MOST && clock_s() - start < BOX_S; i++)
		best = fmin(best, seconds_of(m, work));
	return best;
}

static int largest_side(double memory_limit_bytes)
{
	int side = SIDE_MOST;

	while (side > SIDE_LEAST && (double)side * side * sizeof(float) > memory_limit_bytes / MEMORY_PART)
		side /= 2;
	return side;
}

/* Squares of a dtype that grow until one takes long enough, by the slot that multiplies the model's. */
static int measure_product(struct device *dev, enum dtype dtype, double memory_limit_bytes, struct op_limits *limits)
{
	int side = SIDE_LEAST / 2, side_most = largest_side(memory_limit_bytes);
	size_t most = (size_t)side_most * (size_t)side_most, bytes = most * dtype_bytes(dtype);
	char *memory = dev->alloc(dev, 2 * bytes + most * sizeof(float));
	struct bench m = {.dev = dev};

	if (!memory)
		return -1;
	dev->k.fill(dev, matrix_of(dtype, memory, 2 * side_most, side_most), 0.5f);
	do {
		side *= 2;
		m.a = matrix_of(dtype, memory, side, side);
		m.b = matrix_of(dtype, memory + bytes, side, side);
		m.c = matrix(memory + 2 * bytes, side, side);
		multiply(&m);
	} while (side < side_most && seconds_of(&m, multiply) < LARGE_S);
	limits->product[dtype] =
		(struct product_limit){2.0 * side * side * side / best_of(&m, multiply), side};
	dev->free(dev, memory);
	return 0;
}

static int copy_rows(double memory_limit_bytes)
{
	double caches = (double)sysconf(_SC_LEVEL3_CACHE_SIZE);
	double bytes = fmin(fmax(CACHES * caches, COPY_LEAST), COPY_MOST);

	bytes = fmin(bytes, memory_limit_bytes / MEMORY_PART);
	return (int)fmax(bytes / (COPY_COLS * sizeof(float)), 1);
}

static int measure_memory(struct device *dev, double memory_limit_bytes, struct op_limits *limits)
{
	int rows = copy_rows(memory_limit_bytes);
	size_t count = (size_t)rows * COPY_COLS;
	float *memory = dev->alloc(dev, 2 * count * sizeof(float));
	struct bench m = {.dev = dev};

	if (!memory)
		return -1;
	m.a = matrix(memory, rows, COPY_COLS);
	m.b = matrix(memory + count, rows, COPY_COLS);
	limits->copy_bytes = (double)(count * sizeof(float));
	limits->memory_bytes_s = 2 * limits->copy_bytes / best_of(&m, copy);
	dev->free(dev, memory);
	return 0;
}

int setup_ops(struct session *s)
{
	struct op_limits *limits = &s->op_limits;
	const struct rank_facts *own = &s->facts[s->comm->rank];
	double memory_limit_bytes = own->memory_limit_bytes;
	int status, code;

	if (!s->options.profile_ops)
		return 0;
	status = measure_product(s->device, DTYPE_F32, memory_limit_bytes, limits);
	if (!status && own->dtype != DTYPE_F32)
		status = measure_product(s->device, own->dtype, memory_limit_bytes, limits);
	if (!status)
		status = measure_memory(s->device, memory_limit_bytes, limits);
	code = session_agree(s, status);
	if (code)
		return code;
	memory_forget(s);
	return setup_overhead(s);
}
