/*
 * The data of passes: rank 0 reads samples; ids go to the first stage, labels and the number of
 * trained tokens to the last, and where sequences are packed, to every stage which rows are
 * which sample's. Two batches are held, so that the next one travels while this one is
 * computed.
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

static size_t segment_bytes(const struct feed *feed)
{
	return feed->segments * sizeof(struct segment);
}

double feed_segments_bytes(long long batch, int segments, bool fills)
{
	double count = (double)batch * segments;

	/* Of training and of validation. */
	return 2 * count *
	       (FEED_BATCHES * sizeof(struct segment) + (fills ? sizeof(uint64_t) : 0));
}

/* Of packed sequences. */
static void open_segments(struct feed *feed, const struct training *t)
{
	size_t requests = feed->comm->rank == 0 ? (size_t)feed->comm->size : 1;

	feed->segments = (size_t)t->segments * (size_t)t->samples;
	if (feed->segments == 0)
		return;
	for (int i = 0; i < FEED_BATCHES; i++) {
		feed->batch[i].segment = xzalloc(1, segment_bytes(feed));
		feed->batch[i].segment_request = xzalloc(requests, sizeof(struct comm_request));
	}
	if (feed->comm->rank != 0)
		return;
	feed->sample = xzalloc((size_t)t->segments, sizeof(*feed->sample));
	feed->number = xzalloc(feed->segments, sizeof(*feed->number));
}

void feed_open(struct feed *feed, const struct training *training, struct feed_tags tags)
{
	const struct places *places = &training->places;
	int rank = training->comm->rank;

	*feed = (struct feed){.comm = training->comm, .places = places, .ids_tag = tags.ids,
			      .labels_tag = tags.labels, .segment_tag = tags.segments};
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
	open_segments(feed, training);
}

/* -- filling ------------------------------------------------------------------------------- */

/* Where a micro-batch's segments are written. */
struct cursor {
	struct segment *segment;
	uint64_t *number;
	int count, row;
};

/* Adds a segment of a sample, or of padding, which draws nothing that counts. */
static void add_segment(struct cursor *at, int tokens, uint64_t number)
{
	at->segment[at->count] = (struct segment){.first = at->row, .tokens = tokens};
	at->number[at->count++] = number;
	at->row += tokens;
}

/* One packed sequence, or an empty one behind the end. Returns how many positions are
 * trained. */
static int fill_row(const struct feed *feed, const struct feed_source *source, uint64_t place,
		    int T, int32_t *ids, int32_t *labels, struct cursor *at)
{
	int end = at->row + T, samples = 0, trained = 0;

	if (place < source->end)
		trained =
		    packing_row(source->packing, place, ids, labels, feed->sample, &samples);
	for (int i = 0; i < samples; i++)
		add_segment(at, feed->sample[i].tokens, feed->sample[i].number);
	if (at->row < end)
		add_segment(at, end - at->row, UINT64_MAX);
	return trained;
}

/* Samples are counted from the batch's first one in the stream: those of a batch that follow
 * each other there have the numbers that they have when they are not packed. */
static void number_samples(const struct feed *feed, struct feed_batch *batch)
{
	uint64_t least = UINT64_MAX;

	for (size_t i = 0; i < feed->segments; i++)
		if (batch->segment[i].tokens > 0 && feed->number[i] < least)
			least = feed->number[i];
	for (size_t i = 0; i < feed->segments; i++)
		batch->segment[i].sample = (uint32_t)(feed->number[i] - least);
}

static void fill_empty(int32_t *ids, int32_t *labels, size_t count)
{
	for (size_t k = 0; k < count; k++) {
		ids[k] = 0;
		labels[k] = -1;
	}
}

static int fill_packed(const struct feed *feed, struct feed_batch *batch,
		       const struct training *t, const struct feed_source *source,
		       uint64_t place)
{
	size_t T = (size_t)t->tokens, row = 0;
	size_t room = (size_t)t->segments * (size_t)t->sequences;

	memset(batch->segment, 0, segment_bytes(feed));
	fill_empty(batch->ids, batch->labels->label, feed->count);
	for (int m = 0; m < t->micro_batches; m++) {
		struct cursor at = {batch->segment + (size_t)m * room,
				    feed->number + (size_t)m * room, 0, 0};

		for (int i = 0; i < t->sequences; i++, row++) {
			int trained = fill_row(feed, source, place + row, t->tokens,
					       batch->ids + row * T,
					       batch->labels->label + row * T, &at);

			if (trained < 0)
				return -1;
			batch->labels->trained += trained;
		}
	}
	number_samples(feed, batch);
	return 0;
}

static int fill(const struct feed *feed, struct feed_batch *batch, const struct training *t,
		 const struct feed_source *source, uint64_t place)
{
	size_t T = (size_t)t->tokens;

	batch->labels->trained = 0;
	if (source->packing)
		return fill_packed(feed, batch, t, source, place);
	for (size_t i = 0; i < feed->count; i += T, place++) {
		if (place >= source->end) {
			fill_empty(batch->ids + i, batch->labels->label + i, T);
			continue;
		}
		int trained =
		    dataset_sample(source->dataset, (uint64_t)t->config->seed, source->shuffle,
				   place, batch->ids + i, batch->labels->label + i);
		if (trained < 0)
			return -1;
		batch->labels->trained += trained;
	}
	return 0;
}

/* -- travelling ---------------------------------------------------------------------------- */

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

/* To every stage. */
static int share_segments(struct feed *feed, struct feed_batch *batch)
{
	bool sends = feed->comm->rank == 0;

	for (int s = 0; batch->segment && s < feed->places->stages; s++) {
		int rank = feed->places->rank_of_stage[s];

		if (share(feed, rank, feed->segment_tag, batch->segment, segment_bytes(feed),
			  &batch->segment_request[sends ? rank : 0]))
			return -1;
	}
	return 0;
}

static int wait_batch(struct feed *feed, struct feed_batch *batch)
{
	int requests = !batch->segment ? 0 : feed->comm->rank == 0 ? feed->comm->size : 1;

	for (int i = 0; i < requests; i++)
		if (comm_wait(feed->comm, &batch->segment_request[i]))
			return -1;
	return comm_wait(feed->comm, &batch->ids_request) ||
			       comm_wait(feed->comm, &batch->labels_request)
		       ? -1
		       : 0;
}

int feed_start(struct feed *feed, const struct training *t, const struct feed_source *source,
	       uint64_t place)
{
	struct feed_batch *batch = &feed->batch[feed->started++ % FEED_BATCHES];

	if (wait_batch(feed, batch))
		return -1;
	if (feed->comm->rank == 0 && fill(feed, batch, t, source, place) < 0)
		return -1;
	if (share(feed, feed->first_rank, feed->ids_tag, batch->ids, ids_bytes(feed),
		  &batch->ids_request) ||
	    share(feed, feed->last_rank, feed->labels_tag, batch->labels, labels_bytes(feed),
		  &batch->labels_request))
		return -1;
	return share_segments(feed, batch);
}

int feed_next(struct feed *feed, struct feed_view *view)
{
	struct feed_batch *batch = &feed->batch[feed->taken++ % FEED_BATCHES];

	if (feed->comm->rank != 0 && wait_batch(feed, batch))
		return -1;
	*view = (struct feed_view){.ids = batch->ids, .segment = batch->segment};
	if (batch->labels) {
		view->labels = batch->labels->label;
		view->trained = batch->labels->trained;
	}
	return 0;
}

int feed_settle(struct feed *feed)
{
	for (int i = 0; i < FEED_BATCHES; i++)
		if (wait_batch(feed, &feed->batch[i]))
			return -1;
	return 0;
}

void feed_close(struct feed *feed)
{
	for (int i = 0; i < FEED_BATCHES; i++) {
		free(feed->batch[i].ids);
		free(feed->batch[i].labels);
		free(feed->batch[i].segment);
		free(feed->batch[i].segment_request);
	}
	free(feed->sample);
	free(feed->number);
}
