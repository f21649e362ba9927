/*
 * validate.c - the loss on the validation set, by the forward pipeline.
 */
#include <math.h>

#include "pipeline/loop.h"

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* The head's sum to rank 0, and from there to all. */
static int share_loss(const struct training *t, double *loss)
{
	int last = t->places.rank_of_stage[t->places.stages - 1], status = 0;

	if (last != 0 && t->comm->rank == last)
		status = comm_send_now(t->comm, 0, TAG_LOSS, loss, sizeof(*loss));
	else if (last != 0 && t->comm->rank == 0)
		status = comm_recv_now(t->comm, last, TAG_LOSS, loss, sizeof(*loss));
	return status ? status : comm_broadcast(t->comm, 0, loss, sizeof(*loss));
}

/* The data of this batch, and the start of the next one's where there is one. */
static int take_batch(struct loop *loop, long long step, const struct feed_source *source,
		      uint64_t next, struct feed_view *batch)
{
	int status;

	wait_begins(loop, WATCH_DATA, "waiting for the data of the validation", data_peer(loop),
		    step);
	status = feed_next(&loop->valid_feed, batch);
	if (!status && next < source->end)
		status = feed_start(&loop->valid_feed, loop->t, source, next);
	wait_ends(loop);
	return status;
}

/* Forward only through one batch of the validation set; the next one's data travel
 * meanwhile. */
static int validate_batch(struct loop *loop, long long step, const struct feed_source *source,
			  uint64_t place, double *loss, long long *tokens)
{
	struct training *t = loop->t;
	struct step_times times = {0};
	struct feed_view batch;
	struct step_data data;
	bool last = place + t->samples >= source->end;

	if (take_batch(loop, step, source, place + t->samples, &batch))
		return -1;
	*tokens += batch.trained;
	if (!t->stage)
		return 0;
	data = step_data(t, step, &batch, false);
	if (executor_run(loop->executor, &data, loss, &times))
		return -1;
	return last ? 0 : executor_begin(loop->executor, t->forward, (uint32_t)step);
}

int validation_pass(struct loop *loop, long long step, double *loss, long long *tokens)
{
	struct training *t = loop->t;
	struct feed_source source = {t->valid, t->valid_packing, false, t->valid_samples};
	int status = feed_start(&loop->valid_feed, t, &source, 0);

	*loss = 0;
	*tokens = 0;
	for (uint64_t place = 0; !status && place < source.end; place += t->samples) {
		status = validate_batch(loop, step, &source, place, loss, tokens);
		if (!status && loop->logging && loop->evaluates)
			pass_say(&loop->progress, smaller(place + t->samples, source.end),
				 source.end);
	}
	wait_begins(loop, WATCH_VALID, "waiting for the validation loss",
		    "the last stage, by way of rank 0", step);
	status = status ? status : share_loss(t, loss);
	wait_ends(loop);
	return status ? -1 : 0;
}

/* What begins after a step has begun already. */
int validation_run(struct loop *loop, long long step)
{
	struct training *t = loop->t;
	long long tokens;
	double loss;

	if (validation_pass(loop, step, &loss, &tokens))
		return -1;
	if (!isfinite(loss)) {
		if (loop->logging)
			report(EXIT_DIVERGED, "the validation loss after step %lld is %g", step,
			       loss);
		return EXIT_DIVERGED;
	}
	if (t->stage && step < t->steps &&
	    executor_begin(loop->executor, t->schedule, (uint32_t)(step + 1)))
		return -1;
	if (!loop->logging)
		return 0;
	loop->valid_after = loss / (double)tokens;
	if (step == 0)
		loop->valid_before = loop->valid_after;
	record_valid(loop, step, loop->valid_after, tokens);
	return 0;
}
