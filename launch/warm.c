/*
 * Warming up. Buffers that libraries take when they are first used belong to the estimate, so they are used before it
 * is made: a product as large as the model's, and messages of a size that needs a rendezvous.
 */
#include <math.h>
#include <stdlib.h>

#include "launch/session.h"

enum { WARM_TAG = 21, WARM_BYTES = 256 << 10, WARM_ROWS = 1024, WARM_INNER = 2048, WARM_COLS = 2048 };

static int smaller(long long a, long long b)
{
	return (int)(a < b ? a : b);
}

/* A product in BF16 by weights that are packed, where those of the model are; false where they are not. */
static bool warm_packed(struct session *s, struct matrix y, struct matrix x, int cols)
{
	struct device *dev = s->device;
	size_t bytes = x.dtype == DTYPE_BF16 && s->job.train.weights == WEIGHTS_PACKED
			       ? dev->k.packed_bytes(x.cols, cols) : 0;
	struct matrix w = {.rows = x.cols, .cols = cols, .dtype = x.dtype}, none = {0};

	w.data = bytes > 0 ? dev->alloc(dev, bytes) : NULL;
	if (!w.data)
		return false;
	dev->k.linear(dev, y, x, w, false, none, 0);
	dev->free(dev, w.data);
	return true;
}

/* Products as large as the model's, up to a size from which libraries take no more. What they took and gave back they
 * will take again. */
static void warm_products(struct session *s)
{
	const struct model_config *model = s->model;
	int m = smaller(WARM_ROWS, s->generation ? GENERATE_ROWS : s->job.train.batch * s->data.tokens);
	int k = smaller(WARM_INNER, model->mlp), n = smaller(WARM_COLS, model->vocabulary);
	size_t a = (size_t)m * (size_t)k, b = (size_t)k * (size_t)n, c = (size_t)m * (size_t)n;
	enum dtype dtype = s->facts[s->comm->rank].dtype;
	float *memory = xzalloc(a + b + c, sizeof(float));
	struct matrix x = matrix(memory, m, k), y = matrix(memory + a + b, m, n), none = {0};
	struct matrix x_own = matrix_of(dtype, memory, m, k);
	double before;

	heap_trim();
	before = heap_free_bytes();
	s->device->k.matmul(s->device, y, x, false, matrix(memory + a, n, k), true, 1, 0);
	if (!warm_packed(s, y, x_own, n)) {
		s->device->k.linear(s->device, y, x_own, matrix_of(dtype, memory + a, n, k), true, none, 0);
		s->device->k.linear(s->device, y, x_own, matrix_of(dtype, memory + a, k, n), false, none, 0);
	}
	s->library_bytes = fmax(heap_free_bytes() - before, 0);
	free(memory);
}

static int warm_device(struct session *s)
{
	s->device = device_open(job_device(&s->job), s->facts[s->comm->rank].threads);
	if (!s->device)
		return -1;
	if (s->job.train.kernels != KERNELS_REFERENCE)
		warm_products(s);
	return s->device->lacks ? -1 : 0;
}

/* A message each way between neighbours in the file, and with rank 0. */
static int warm_link(struct session *s, int a, int b, char *buffer)
{
	int rank = s->comm->rank, peer = rank == a ? b : a;
	struct comm_request send = {0}, recv = {0};

	if ((rank != a && rank != b) || a == b || b >= s->comm->size)
		return 0;
	if (comm_recv(s->comm, peer, WARM_TAG, buffer, WARM_BYTES, &recv) ||
	    comm_send(s->comm, peer, WARM_TAG, buffer + WARM_BYTES, WARM_BYTES, &send) ||
	    comm_wait(s->comm, &recv) || comm_wait(s->comm, &send))
		return -1;
	return 0;
}

static int warm_links(struct session *s)
{
	char *buffer = xzalloc(2, WARM_BYTES);
	int status = 0;

	for (int i = 0; i < s->comm->size && !status; i++)
		status = warm_link(s, i, i + 1, buffer) || warm_link(s, 0, i, buffer);
	free(buffer);
	return status ? -1 : 0;
}

/* Code pages and small buffers that only training itself touches: 1.0 to 1.8 MiB a rank were measured; and what oneDNN
 * compiles for the shapes of BF16, 3 to 9 MiB. */
#define FIRST_TOUCH_BYTES (2.0 * (1 << 20))
#define COMPILED_BYTES (10.0 * (1 << 20))
/* What was free after one product is not where a larger buffer of the next fits. */
#define LIBRARY_SIZES 2

/* Measured once data are read and libraries are warm. */
int setup_overhead(struct session *s)
{
	heap_trim();		/* a stage may be made of what libraries freed, which would count twice */
	s->facts[s->comm->rank].overhead_bytes =
		memory_resident_bytes() + LIBRARY_SIZES * s->library_bytes + FIRST_TOUCH_BYTES +
		(s->facts[s->comm->rank].dtype == DTYPE_BF16 ? COMPILED_BYTES : 0);
	for (int i = 0; i < s->comm->size; i++)
		if (comm_broadcast(s->comm, i, &s->facts[i].overhead_bytes, sizeof(double)))
			return EXIT_RETRY;
	return 0;
}

int setup_warm(struct session *s)
{
	int code = session_agree(s, warm_device(s));

	if (code)
		return code;
	return warm_links(s) ? EXIT_RETRY : setup_overhead(s);
}
