/*
 * What onednn*.c share where oneDNN is built in: the engine with all that was made ready on it.
 */
#ifndef EDGEPIPE_TENSOR_ONEDNN_INTERNAL_H
#define EDGEPIPE_TENSOR_ONEDNN_INTERNAL_H

#include <pthread.h>

#include "tensor/onednn.h"
#include "tensor/onednn_api.h"

#define PRODUCTS_MOST 1024
#define LAYOUTS_MOST 256
#define PACKINGS_MOST 16

struct worker {
	dnnl_stream_t stream;
	pthread_t owner; /* whose first call has been */
	bool ready;
};

struct onednn {
	dnnl_engine_t engine;
	int threads;
	struct worker *worker;
	void *scratch; /* threads times scratch_bytes */
	size_t scratch_bytes;
	struct onednn_product *product[PRODUCTS_MOST];
	int products;
	struct onednn_layout *layout[LAYOUTS_MOST];
	int layouts;
	struct onednn_packing *packing[PACKINGS_MOST];
	int packings;
};

struct onednn_layout {
	int inner, cols;
	struct desc desc;
};

/* On a thread's first call: its OpenMP team is itself. Number 0 is another thread where a pool
 * is run by another one than before. */
static inline void make_ready(struct worker *worker)
{
	if (worker->ready && pthread_equal(worker->owner, pthread_self()))
		return;
	own_threads(1);
	worker->owner = pthread_self();
	worker->ready = true;
}

/* All that onednn_product.c and onednn_pack.c made. */
void onednn_products_close(struct onednn *onednn);
void onednn_packings_close(struct onednn *onednn);

#endif
