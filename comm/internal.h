/*
 * comm/internal.h - what the files of comm/ (and their tests) share and nobody else needs.
 */
#ifndef EDGEPIPE_COMM_INTERNAL_H
#define EDGEPIPE_COMM_INTERNAL_H

#include "comm/comm.h"

/* Tags of the collectives, above those of the callers, so that neither can take the other's. */
enum comm_tag {
	COMM_TAG_BARRIER = COMM_TAG_MAX + 1,
	COMM_TAG_ANY,
	COMM_TAG_BROADCAST,
	COMM_TAG_FOLD,
	COMM_TAG_GATHER,
	COMM_TAG_LAST = COMM_TAG_GATHER,
};

/* comm_send_now and comm_recv_now for any tag, the reserved ones included. */
int comm_put(struct comm *comm, int to, int tag, const void *data, size_t bytes);
int comm_take(struct comm *comm, int from, int tag, void *data, size_t bytes);

/*
 * Sets the size above which the MPI transport cuts a message (at most 1 GiB, which it is
 * without this call), so that a test can cut small ones. Collective in effect: all ranks set
 * the same.
 */
void comm_mpi_piece(struct comm *comm, size_t bytes);

#endif
