/* The data of a step: rank 0 reads samples; ids go to the first stage, labels to the last. */
#include <stdlib.h>

#include "pipeline/internal.h"

void feed_open(struct feed *feed, const struct training *training)
{
	const struct places *places = &training->places;
	int rank = training->comm->rank;

	*feed = (struct feed){.comm = training->comm};
	feed->first_rank = places->rank_of_stage[0];
	feed->last_rank = places->rank_of_stage[places->stages - 1];
	feed->count = (size_t)training->micro_batches * (size_t)training->sequences *
		      (size_t)training->tokens;
	if (rank == 0 || rank == feed->first_rank)
		feed->ids = xzalloc(feed->count, sizeof(int32_t));
	if (rank == 0 || rank == feed->last_rank)
		feed->labels = xzalloc(feed->count, sizeof(int32_t));
}

long long feed_fill(struct feed *feed, const struct dataset *dataset,
		    const struct training *training, bool shuffle, uint64_t place, uint64_t end)
{
	size_t T = (size_t)training->tokens;
	long long trained = 0;

	for (size_t i = 0; i < feed->count; i += T, place++) {
		if (place < end) {
			trained += dataset_sample(dataset, (uint64_t)training->config->seed,
						  shuffle, place, feed->ids + i,
						  feed->labels + i);
			continue;
		}
		for (size_t t = 0; t < T; t++) {
			feed->ids[i + t] = 0;
			feed->labels[i + t] = -1;
		}
	}
	return trained;
}

/* From rank 0 to another; nothing to do where that is rank 0 itself. */
static int share(struct feed *feed, int to, int tag, int32_t *data, struct comm_request *send)
{
	size_t bytes = feed->count * sizeof(int32_t);

	if (to == 0)
		return 0;
	if (feed->comm->rank == 0)
		return comm_send(feed->comm, to, tag, data, bytes, send);
	if (feed->comm->rank == to)
		return comm_recv_now(feed->comm, 0, tag, data, bytes);
	return 0;
}

int feed_share(struct feed *feed)
{
	if (share(feed, feed->first_rank, TAG_IDS, feed->ids, &feed->send_ids) ||
	    share(feed, feed->last_rank, TAG_LABELS, feed->labels, &feed->send_labels))
		return -1;
	if (comm_wait(feed->comm, &feed->send_ids) || comm_wait(feed->comm, &feed->send_labels))
		return -1;
	return 0;
}

void feed_close(struct feed *feed)
{
	free(feed->ids);
	free(feed->labels);
}
