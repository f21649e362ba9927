/*
 * What there is where edgepipe is built without oneDNN: nothing opens and the CPU has nothing,
 * so that products of BF16 and oneDNN's sgemm are never chosen.
 */
#include "tensor/onednn.h"

#ifndef EDGEPIPE_ONEDNN

struct onednn *onednn_open(int threads)
{
	(void)threads;
	return NULL;
}

int onednn_warm(struct onednn *onednn, struct pool *pool)
{
	(void)onednn, (void)pool;
	return 0;
}

void onednn_close(struct onednn *onednn)
{
	(void)onednn;
}

bool onednn_has_avx512(void)
{
	return false;
}

bool onednn_has_bf16(void)
{
	return false;
}

const char *onednn_describe(char *buffer, size_t bytes)
{
	snprintf(buffer, bytes, "%s", "");
	return buffer;
}

void onednn_sgemm(struct onednn *onednn, int thread, const struct sgemm *g)
{
	(void)onednn, (void)thread, (void)g;
}

struct onednn_product *onednn_product(struct onednn *onednn, const struct onednn_shape *shape)
{
	(void)onednn, (void)shape;
	return NULL;
}

struct onednn_layout *onednn_layout(struct onednn *onednn, int inner, int cols)
{
	(void)onednn, (void)inner, (void)cols;
	return NULL;
}

size_t onednn_packed_bytes(int inner, int cols)
{
	(void)inner, (void)cols;
	return 0;
}

int onednn_pack(struct onednn *onednn, const struct onednn_layout *layout, void *packed,
		int row, int col, struct matrix part, bool part_t)
{
	(void)onednn, (void)layout, (void)packed, (void)row, (void)col, (void)part,
	    (void)part_t;
	return -1;
}

struct onednn_packing *onednn_packing(struct onednn *onednn, const struct onednn_layout *layout,
				      size_t ld, bool part_t)
{
	(void)onednn, (void)layout, (void)ld, (void)part_t;
	return NULL;
}

void onednn_packing_run(struct onednn *onednn, struct onednn_packing *packing, int thread,
			void *packed, const void *from)
{
	(void)onednn, (void)packing, (void)thread, (void)packed, (void)from;
}

void onednn_run(struct onednn *onednn, struct onednn_product *product, int thread, void *c,
		const void *a, const void *b, const float *bias)
{
	(void)onednn, (void)product, (void)thread, (void)c, (void)a, (void)b, (void)bias;
}

#endif
