/*
 * The data of passes: rank 0 reads samples; ids go to the first stage, labels and the number of trained tokens to the
 * last. Two batches are held, so that the next one travels while this one is computed.
 */
#include <stdlib.h>
#include <string.h>

#include "pipeline/internal.h"

/* What travels to the last stage: the number of trained tokens, then the labels. */
struct labels { int64_t trained; int32_t label[]; };

static size_t ids_bytes(const struct feed *feed)
{
	return feed->count * sizeof(int32_t);
}

static size_t labels_bytes(const struct feed *feed)
{
	return sizeof(struct labels) + ids_bytes(feed);
}

void feed_open(struct feed *feed, const struct training *training, int ids_tag, int labels_tag)
{
	const struct places *places = &training->places;
	int rank = training->comm->rank;

	*feed = (struct feed){.comm = training->comm, .ids_tag = ids_tag, .labels_tag = labels_tag};
	feed->first_rank = places->rank_of_stage[0];
	feed->last_rank = places->rank_of_stage[places->stages - 1];
	feed->count = (size_t)training->sequences * (size_t)training->micro_batches *
		      (size_t)training->tokens;
	for (int i = 0; i < FEED_BATCHES; i++) {
		if (rank == 0 || rank == feed->first_rank)
			feed->batch[i].ids = xzalloc(1, ids_bytes(feed));
		if (rank == 0 || rank == feed->last_rank)
			feed->batch[i].labels = xzalloc(1, labels_bytes(feed));
	}
}

static void fill(const struct feed *feed, struct feed_batch *batch, const struct training *t,
		 const struct feed_source *source, uint64_t place)
{
	size_t T = (size_t)t->tokens;

	batch->labels->trained = 0;
	for (size_t i = 0; i < feed->count; i += T, place++) {
		if (place < source->end) {
			batch->labels->trained += dataset_sample(
				source->dataset, (uint64_t)t->config->seed, source->shuffle, place,
				batch->ids + i, batch->labels->label + i);
			continue;
		}
		for (size_t k = 0; k < T; k++) {
			batch->ids[i + k] = 0;
			batch->labels->label[i + k] = -1;
		}
	}
}

/* From rank 0 to another; nothing to do where that is rank 0 itself. */
static int share(struct feed *feed, int to, int tag, void *data, size_t bytes,
		 struct comm_request *request)
{
	if (to == 0)
		return 0;
	if (feed->comm->rank == 0)
		return comm_send(feed->comm, to, tag, data, bytes, request);
	if (feed->comm->rank == to)
		return comm_recv(feed->comm, 0, tag, data, bytes, request);
	return 0;
}

int feed_start(struct feed *feed, const struct training *t, const struct feed_source *source,
	       uint64_t place)
{
	struct feed_batch *batch = &feed->batch[feed->started++ % FEED_BATCHES];

	if (comm_wait(feed->comm, &batch->ids_request) ||
	    comm_wait(feed->comm, &batch->labels_request))
		return -1;
	if (feed->comm->rank == 0)
		fill(feed, batch, t, source, place);
	if (share(feed, feed->first_rank, feed->ids_tag, batch->ids, ids_bytes(feed),
		  &batch->ids_request) ||
	    share(feed, feed->last_rank, feed->labels_tag, batch->labels, labels_bytes(feed),
		  &batch->labels_request))
		return -1;
	return 0;
}

int feed_next(struct feed *feed, struct feed_view *view)
{
	struct feed_batch *batch = &feed->batch[feed->taken++ % FEED_BATCHES];

	if (feed->comm->rank != 0 && (comm_wait(feed->comm, &batch->ids_request) ||
				      comm_wait(feed->comm, &batch->labels_request)))
		return -1;
	*view = (struct feed_view){.ids = batch->ids};
	if (batch->labels) {
		view->labels = batch->labels->label;
		view->trained = batch->labels->trained;
	}
	return 0;
}

int feed_settle(struct feed *feed)
{
	for (int i = 0; i < FEED_BATCHES; i++)
		if (comm_wait(feed->comm, &feed->batch[i].ids_request) ||
		    comm_wait(feed->comm, &feed->batch[i].labels_request))
			return -1;
	return 0;
}

void feed_close(struct feed *feed)
{
	for (int i = 0; i < FEED_BATCHES; i++) {
		free(feed->batch[i].ids);
		free(feed->batch[i].labels);
	}
}
