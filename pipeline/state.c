/*
 * The adapters' values, moments and gradients between their stages and rank 0. A stage's tensors are one
 * contiguous range of the global order, so each family is one message a stage.
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

static int gather_on_root(const struct training *t, enum stage_family family, float *all)
{
	struct range *range = xzalloc((size_t)t->comm->size, sizeof(*range));
	int status = ranges(t, range);

	if (!status && t->stage)
		stage_read(t->stage, family, all + range[0].first);
	for (int rank = 1; !status && rank < t->comm->size; rank++)
		if (range[rank].count > 0)
			status = comm_recv_now(t->comm, rank, TAG_STATE, all + range[rank].first,
					       range[rank].count * sizeof(float));
	free(range);
	return status;
}

int state_gather(const struct training *t, enum stage_family family, float *all)
{
	size_t elements = 0;
	int from, to, status;
	float *mine;

	if (t->comm->rank == 0)
		return gather_on_root(t, family, all);
	if (t->stage)
		stage_adapters(t->stage, &from, &to, &elements);
	if (ranges(t, NULL))
		return -1;
	if (elements == 0)
		return 0;
	mine = xalloc(elements * sizeof(float));
	stage_read(t->stage, family, mine);
	status = comm_send_now(t->comm, 0, TAG_STATE, mine, elements * sizeof(float));
	free(mine);
	return status;
}

static int scatter_from_root(const struct training *t, enum stage_family family,
			     const float *all)
{
	struct range *range = xzalloc((size_t)t->comm->size, sizeof(*range));
	int status = ranges(t, range);

	if (!status && t->stage)
		stage_write(t->stage, family, all + range[0].first);
	for (int rank = 1; !status && rank < t->comm->size; rank++)
		if (range[rank].count > 0)
			status = comm_send_now(t->comm, rank, TAG_STATE, all + range[rank].first,
					       range[rank].count * sizeof(float));
	free(range);
	return status;
}

int state_scatter(const struct training *t, enum stage_family family, const float *all)
{
	size_t elements = 0;
	int from, to, status;
	float *mine;

	if (t->comm->rank == 0)
		return scatter_from_root(t, family, all);
	if (t->stage)
		stage_adapters(t->stage, &from, &to, &elements);
	if (ranges(t, NULL))
		return -1;
	if (elements == 0)
		return 0;
	mine = xalloc(elements * sizeof(float));
	status = comm_recv_now(t->comm, 0, TAG_STATE, mine, elements * sizeof(float));
	if (!status)
		stage_write(t->stage, family, mine);
	free(mine);
	return status;
}
