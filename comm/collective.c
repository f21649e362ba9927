/*
 * collective.c - what all ranks do together, built on send and receive of the table.
 *
 * Everything is a star around one rank (0, or the root): with a handful of ranks on slow links
 * two latencies matter more than the load of the centre. The centre takes the ranks one after
 * the other in a fixed order, whatever arrives first, so results do not depend on timing. Each
 * collective has its own tag, and messages of one tag keep their order, so that two calls in a
 * row do not mix.
 */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "comm/comm.h"
#include "comm/internal.h"

/* The root's bytes to everybody. */
static int spread(struct comm *comm, int root, int tag, void *data, size_t bytes)
{
	if (comm->rank != root)
		return comm_take(comm, root, tag, data, bytes);
	for (int rank = 0; rank < comm->size; rank++)
		if (rank != root && comm_put(comm, rank, tag, data, bytes) < 0)
			return -1;
	return 0;
}

int comm_barrier(struct comm *comm)
{
	if (comm->rank != 0 && comm_put(comm, 0, COMM_TAG_BARRIER, NULL, 0) < 0)
		return -1;
	for (int rank = 1; comm->rank == 0 && rank < comm->size; rank++)
		if (comm_take(comm, rank, COMM_TAG_BARRIER, NULL, 0) < 0)
			return -1;
	return spread(comm, 0, COMM_TAG_BARRIER, NULL, 0);
}

bool comm_any(struct comm *comm, bool condition)
{
	unsigned char any = condition, other = 0;

	if (comm->rank != 0 && comm_put(comm, 0, COMM_TAG_ANY, &any, 1) < 0)
		return true;
	/* A rank that cannot be heard counts as true, and the others shall still be told. */
	for (int rank = 1; comm->rank == 0 && rank < comm->size; rank++)
		if (comm_take(comm, rank, COMM_TAG_ANY, &other, 1) < 0 || other)
			any = 1;
	if (spread(comm, 0, COMM_TAG_ANY, &any, 1) < 0)
		return true;
	return any != 0;
}

int comm_broadcast(struct comm *comm, int root, void *data, size_t bytes)
{
	return spread(comm, root, COMM_TAG_BROADCAST, data, bytes);
}

/* At rank 0. The sum starts at -0, to which any number can be added without changing a bit. */
static int fold_here(struct comm *comm, double *value)
{
	double sum = -0.0, other;

	for (int rank = comm->size - 1; rank > 0; rank--) {
		if (comm_take(comm, rank, COMM_TAG_FOLD, &other, sizeof other) < 0)
			return -1;
		sum += other;
	}
	*value = sum + *value;
	return 0;
}

int comm_fold(struct comm *comm, double *value)
{
	double sum = *value;

	if (comm->rank == 0 ? fold_here(comm, &sum) < 0
			    : comm_put(comm, 0, COMM_TAG_FOLD, &sum, sizeof sum) < 0)
		return -1;
	if (spread(comm, 0, COMM_TAG_FOLD, &sum, sizeof sum) < 0)
		return -1;
	*value = sum;
	return 0;
}

/* One rank's piece at the root, malloc'ed; null after an error. */
static void *gather_one(struct comm *comm, int from, size_t *bytes)
{
	uint64_t size;
	void *piece;

	if (comm_take(comm, from, COMM_TAG_GATHER, &size, sizeof size) < 0)
		return NULL;
	piece = xalloc(size ? size : 1);
	if (comm_take(comm, from, COMM_TAG_GATHER, piece, size) < 0) {
		free(piece);
		return NULL;
	}
	*bytes = size;
	return piece;
}

static int gather_here(struct comm *comm, const void *mine, size_t mine_bytes, void **data,
		       size_t *bytes)
{
	int rank;

	for (rank = 0; rank < comm->size; rank++) {
		if (rank != comm->rank) {
			data[rank] = gather_one(comm, rank, &bytes[rank]);
			if (!data[rank])
				goto fail;
			continue;
		}
		data[rank] = xalloc(mine_bytes ? mine_bytes : 1);
		bytes[rank] = mine_bytes;
		if (mine_bytes)
			memcpy(data[rank], mine, mine_bytes);
	}
	return 0;
fail:
	while (rank-- > 0) {
		free(data[rank]);
		data[rank] = NULL;
	}
	return -1;
}

int comm_gather(struct comm *comm, int root, const void *mine, size_t mine_bytes, void **data,
		size_t *bytes)
{
	uint64_t size = mine_bytes;

	if (comm->rank == root)
		return gather_here(comm, mine, mine_bytes, data, bytes);
	if (comm_put(comm, root, COMM_TAG_GATHER, &size, sizeof size) < 0)
		return -1;
	return comm_put(comm, root, COMM_TAG_GATHER, mine, mine_bytes);
}
