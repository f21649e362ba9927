/*
 * The CPU table: the reference, with OpenBLAS and vectorised loops where they help.
 */
#include "tensor/internal.h"

/* Elements per piece: a few tens of microseconds of work, small enough to share a short kernel
 * among 8 threads, large enough to hide the wake-up of a worker. */
#define PIECE ((size_t)1 << 15)

struct rows {
	rows_work *work;
	const void *arg;
	int rows, step;
};

static void run_piece(void *arg, int index, int thread)
{
	const struct rows *r = arg;
	int first = index * r->step;
	int end = r->rows - first < r->step ? r->rows : first + r->step;

	(void)thread;
	r->work(r->arg, first, end);
}

void run_rows(struct device *dev, rows_work *work, const void *arg, int rows, size_t cost)
{
	size_t step = cost < PIECE ? PIECE / (cost ? cost : 1) : 1;
	struct rows r = {work, arg, rows, step < (size_t)rows ? (int)step : rows};

	if (rows > 0)
		pool_run(dev->pool, (rows - 1) / r.step + 1, run_piece, &r);
}

struct kernels kernels_cpu(void)
{
	struct kernels k = kernels_ref;

	k.name = "cpu";
	cpu_matmul_slots(&k);
	cpu_thin_slots(&k);
	cpu_attention_slots(&k);
	cpu_norm_slots(&k);
	cpu_elementwise_slots(&k);
	cpu_activation_slots(&k);
	cpu_dropout_slots(&k);
	cpu_loss_slots(&k);
	cpu_head_slots(&k);
	cpu_few_slots(&k);
	cpu_cached_slots(&k);
	return k;
}
