/*
 * The adapters' values, moments and gradients between their stages and rank 0. A stage's
 * tensors are one contiguous range of the global order, so each family is one message a stage.
 */
#include <stdlib.h>

#include "pipeline/internal.h"

/* The range of floats of a stage's tensors, from what every rank knows. */
struct range { size_t first, count; };

/* All ranks tell rank 0 where their range lies; -1 after an error. */
static int ranges(const struct training *t, struct range *range)
{
	struct range mine = {0, 0};
	int from, to;

	if (t->stage) {
		stage_adapters(t->stage, &from, &to, &mine.count);
		mine.first = from < to ? t->lora->tensor[from].offset : 0;
	}
	if (t->comm->rank != 0)
		return comm_send_now(t->comm, 0, TAG_STATE, &mine, sizeof(mine));
	range[0] = mine;
	for (int rank = 1; rank < t->comm->size; rank++)
		if (comm_recv_now(t->comm, rank, TAG_STATE, &range[rank], sizeof(*range)))
			return -1;
	return 0;
}

/* Rank 0's side: its own range by copy, everybody else's by a message each. */
static int move_on_root(const struct training *t, enum stage_family family, float *all,
			bool gather)
{
	struct range *range = xzalloc((size_t)t->comm->size, sizeof(*range));
	int status = ranges(t, range);

	if (!status && t->stage && gather)
		stage_read(t->stage, family, all + range[0].first);
	else if (!status && t->stage)
		stage_write(t->stage, family, all + range[0].first);
	for (int rank = 1; !status && rank < t->comm->size; rank++) {
		float *at = all + range[rank].first;
		size_t bytes = range[rank].count * sizeof(float);

		if (bytes > 0 && gather)
			status = comm_recv_now(t->comm, rank, TAG_STATE, at, bytes);
		else if (bytes > 0)
			status = comm_send_now(t->comm, rank, TAG_STATE, at, bytes);
	}
	free(range);
	return status;
}

static int move_elsewhere(const struct training *t, enum stage_family family, bool gather)
{
	size_t elements = 0;
	int from, to, status;
	float *mine;

	if (t->stage)
		stage_adapters(t->stage, &from, &to, &elements);
	if (ranges(t, NULL))
		return -1;
	if (elements == 0)
		return 0;
	mine = xalloc(elements * sizeof(float));
	if (gather) {
		stage_read(t->stage, family, mine);
		status = comm_send_now(t->comm, 0, TAG_STATE, mine, elements * sizeof(float));
	} else {
		status = comm_recv_now(t->comm, 0, TAG_STATE, mine, elements * sizeof(float));
		if (!status)
			stage_write(t->stage, family, mine);
	}
	free(mine);
	return status;
}

int state_gather(const struct training *t, enum stage_family family, float *all)
{
	return t->comm->rank == 0 ? move_on_root(t, family, all, true)
				  : move_elsewhere(t, family, true);
}

int state_scatter(const struct training *t, enum stage_family family, float *all)
{
	return t->comm->rank == 0 ? move_on_root(t, family, all, false)
				  : move_elsewhere(t, family, false);
}
