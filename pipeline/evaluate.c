/*
 * evaluate.c - the loss on a data set and nothing else: the validation of the training loop,
 * without a training around it.
 */
#include <math.h>

#include "pipeline/loop.h"

static int open_all(struct loop *loop)
{
	struct training *t = loop->t;
	struct executor_spec spec = t->executor;

	loop->progress.start_s = loop->progress.last_s = clock_s();
	feed_open(&loop->valid_feed, t,
		  (struct feed_tags){TAG_VALID_IDS, TAG_VALID_LABELS, TAG_VALID_SEGMENTS});
	if (!t->stage)
		return 0;
	spec.comm = t->comm;
	spec.stage = t->stage;
	loop->executor = executor_open(&spec);
	return loop->executor ? executor_begin(loop->executor, t->forward, 0) : -1;
}

/* Everything has left, and nobody is gone while others still expect something. */
static int settle(struct loop *loop)
{
	int status;

	wait_begins(loop, WATCH_SETTLE, "waiting at the end of the evaluation",
		    "the other ranks", -1);
	status = feed_settle(&loop->valid_feed);
	if (!status && loop->executor)
		status = executor_drain(loop->executor);
	executor_close(loop->executor);
	status = status ? status : comm_barrier(loop->t->comm);
	wait_ends(loop);
	return status;
}

/* What rank 0 finds wrong with the result, on all ranks. */
static int judge(struct loop *loop, const struct evaluation *result)
{
	int code = 0;

	if (loop->logging && result->tokens == 0)
		report(code = EXIT_DATA, "'%s' has no token that counts", loop->t->valid->path);
	else if (loop->logging && !isfinite(result->loss))
		report(code = EXIT_DIVERGED, "the loss on '%s' is %g", loop->t->valid->path,
		       result->loss);
	return comm_broadcast(loop->t->comm, 0, &code, sizeof(code)) ? -1 : code;
}

int evaluation_run(struct training *t, struct evaluation *result)
{
	struct loop loop = {.t = t, .evaluates = true, .logging = t->comm->rank == 0};
	double loss = 0, start = clock_s();
	int status;

	wait_begins(&loop, WATCH_BETWEEN, "between two waits of the evaluation",
		    "the other ranks", -1);
	status = open_all(&loop);
	if (!status)
		status = validation_pass(&loop, 0, &loss, &result->tokens);
	result->loss = loss / (double)result->tokens;
	result->seconds = clock_s() - start;
	if (!status)
		status = judge(&loop, result);
	if (status >= 0 && settle(&loop))
		status = -1;
	feed_close(&loop.valid_feed);
	wait_ends(&loop);
	return status < 0 ? EXIT_RETRY : status;
}
