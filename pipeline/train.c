/*
 * The training loop, the same on all ranks, on the thread that computes. A step: the executor
 * runs the schedule; the verdict (norm, loss) travels with the pipeline; all clip by the same
 * number and update. Nobody waits for all others: a stage is in its next step as soon as its
 * own part of this one is over, the data of the next step travel meanwhile, and what rank 0
 * logs comes a step later.
 *
 * Loss: the sum over all trained tokens of the batch / their number, however the batch is cut.
 */
#include <stdlib.h>
#include <string.h>

#include "pipeline/loop.h"

void wait_begins(const struct loop *loop, int kind, const char *what, const char *peer,
		 long long step)
{
	/* disks may be slow */
	double patience = kind == WATCH_STATE || kind == WATCH_BETWEEN ? 3 : 1;

	watchdog_enter(loop->t->executor.watchdog,
		       &(struct watchdog_section){kind, patience, what, peer, step, -1});
}

void wait_ends(const struct loop *loop)
{
	watchdog_leave(loop->t->executor.watchdog);
}

const char *data_peer(const struct loop *loop)
{
	return loop->logging ? "the first or the last stage" : "rank 0";
}

static bool due(long long every, long long step)
{
	return every > 0 && step % every == 0;
}

bool validates_after(const struct training *t, long long step)
{
	return t->validate && (due(t->config->validate_every, step) || step == t->steps);
}

/* -- checkpoints --------------------------------------------------------------------------- */

static int write_checkpoint(struct loop *loop, long long step)
{
	struct training *t = loop->t;
	struct checkpoint *c = &t->checkpoint;
	struct text line = {0};

	metrics_sync(&loop->metrics);
	c->step = step;
	c->place = loop->place;
	c->identity = t->identity;
	c->circumstance = t->circumstance;
	if (checkpoint_write(t->run, t->lora, c))
		return error_code() ? error_code() : EXIT_IO;
	note("checkpoint of step %lld", step);
	text_add(&line, "{\"kind\":\"checkpoint\",\"step\":%lld}", step);
	metrics_line(&loop->metrics, &line);
	text_release(&line);
	return 0;
}

static int gather_state(struct loop *loop)
{
	struct training *t = loop->t;
	struct checkpoint *c = &t->checkpoint;

	return state_gather(t, STAGE_VALUES, c->value) || state_gather(t, STAGE_M, c->m) ||
			       state_gather(t, STAGE_V, c->v)
		       ? -1
		       : 0;
}

/* Whatever rank 0 found, for all. */
static int same_status(struct loop *loop, int status)
{
	if (comm_broadcast(loop->t->comm, 0, &status, sizeof(status)))
		return -1;
	return status;
}

static int checkpoint(struct loop *loop, long long step)
{
	int status;

	wait_begins(loop, WATCH_STATE, "at the checkpoint", "rank 0 or its disk", step);
	status = gather_state(loop);
	if (!status && loop->logging)
		status = write_checkpoint(loop, step);
	/* A gathering fails with the transport: nobody can be told. */
	status = status < 0 ? status : same_status(loop, status);
	wait_ends(loop);
	loop->checkpointed = step;
	return status;
}

/* adapter/, from the state that the last checkpoint gathered. */
static int write_adapter(struct loop *loop)
{
	struct training *t = loop->t;
	struct arena arena = {0};
	int status = 0;

	wait_begins(loop, WATCH_STATE, "at the adapter", "rank 0 or its disk", t->steps);
	if (loop->logging &&
	    adapter_write(path_join(&arena, t->run, "adapter"), t->lora, t->model,
			  t->checkpoint.value, NULL))
		status = error_code() ? error_code() : EXIT_IO;
	arena_release(&arena);
	status = same_status(loop, status);
	wait_ends(loop);
	return status;
}

/* -- the run ------------------------------------------------------------------------------- */

static int open_executor(struct loop *loop)
{
	struct training *t = loop->t;
	struct executor_spec spec = t->executor;

	if (!t->stage)
		return 0;
	spec.comm = t->comm;
	spec.stage = t->stage;
	if (t->config->trace > 0)
		spec.trace = t->executor.trace =
		    trace_open((int)t->config->trace, t->micro_batches);
	loop->executor = executor_open(&spec);
	return loop->executor ? 0 : -1;
}

static int loop_open(struct loop *loop, struct training *t)
{
	struct arena arena = {0};
	long long keep = t->checkpoint.step > 0 ? t->checkpoint.step : -1;
	size_t ranks = (size_t)t->comm->size;
	int status = 0;

	*loop = (struct loop){.t = t, .metrics = {.fd = -1}, .checkpointed = t->checkpoint.step,
			      .place = t->checkpoint.place};
	loop->logging = t->comm->rank == 0;
	feed_open(&loop->feed, t, (struct feed_tags){TAG_IDS, TAG_LABELS, TAG_SEGMENTS});
	feed_open(&loop->valid_feed, t,
		  (struct feed_tags){TAG_VALID_IDS, TAG_VALID_LABELS, TAG_VALID_SEGMENTS});
	verdicts_open(&loop->verdicts, t);
	loop->times = xzalloc(2 * ranks, sizeof(*loop->times));
	loop->times_request = xzalloc(2 * ranks, sizeof(*loop->times_request));
	loop->pace = xzalloc(ranks, sizeof(*loop->pace));
	if (loop->logging) {
		loop->path = xcopy(path_join(&arena, t->run, "metrics.jsonl"));
		if (metrics_open(&loop->metrics, loop->path, keep, keep >= t->steps))
			status = error_code();
	}
	arena_release(&arena);
	wait_begins(loop, WATCH_STATE, "at the opening of the log", "rank 0 or its disk", -1);
	status = same_status(loop, status);
	wait_ends(loop);
	return status ? status : open_executor(loop);
}

/* Everything that is still on its way out leaves. */
static int settle_all(struct loop *loop)
{
	struct comm *comm = loop->t->comm;

	for (int i = 0; i < 2 * comm->size; i++)
		if (comm_wait(comm, &loop->times_request[i]))
			return -1;
	if (feed_settle(&loop->feed) || feed_settle(&loop->valid_feed) ||
	    verdicts_settle(&loop->verdicts))
		return -1;
	return loop->executor ? executor_drain(loop->executor) : 0;
}

static int settle(struct loop *loop)
{
	int status;

	wait_begins(loop, WATCH_SETTLE, "waiting until all that was sent has left",
		    "its receivers", loop->t->steps);
	status = settle_all(loop);
	wait_ends(loop);
	return status;
}

/* Nobody is gone while others still expect something. */
static int end_together(struct loop *loop)
{
	int status;

	wait_begins(loop, WATCH_SETTLE, "waiting at the end of the training", "the other ranks",
		    loop->t->steps);
	status = comm_barrier(loop->t->comm);
	wait_ends(loop);
	return status;
}

static void loop_close(struct loop *loop)
{
	metrics_close(&loop->metrics);
	executor_close(loop->executor);
	feed_close(&loop->feed);
	feed_close(&loop->valid_feed);
	verdicts_close(&loop->verdicts);
	trace_close(loop->t->executor.trace);
	loop->t->executor.trace = NULL;
	free(loop->times);
	free(loop->times_request);
	free(loop->pace);
	free(loop->path);
}

/* Hands a resumed state to the stages. Every rank must agree on where to go on. */
static int hand_out(struct loop *loop)
{
	struct training *t = loop->t;
	struct checkpoint *c = &t->checkpoint;
	struct { long long step; uint64_t place; } from = {c->step, c->place};

	if (comm_broadcast(t->comm, 0, &from, sizeof(from)))
		return -1;
	c->step = from.step;
	loop->place = from.place;
	if (from.step == 0)
		return 0;
	return state_scatter(t, STAGE_VALUES, c->value) || state_scatter(t, STAGE_M, c->m) ||
			       state_scatter(t, STAGE_V, c->v)
		       ? -1
		       : 0;
}

static int restore(struct loop *loop)
{
	int status;

	wait_begins(loop, WATCH_STATE, "at the state to start with", "rank 0", -1);
	status = hand_out(loop);
	wait_ends(loop);
	return status;
}

/* A step, its ops timed where that is asked for. The first one warms up: it counts where there
 * are few. */
static int run_timed(struct loop *loop, long long step)
{
	struct device *timed = loop->t->timed;
	long long first = loop->progress.first_step;
	int status;

	if (!timed || (step == first && loop->t->steps - first >= 2))
		return step_run(loop, step);
	timed_start(timed);
	status = step_run(loop, step);
	timed_stop(timed);
	return status;
}

/* A step and what is due after it. */
static int run_one(struct loop *loop, long long step)
{
	const struct training *t = loop->t;
	bool validates = validates_after(t, step);
	bool checkpoints = due(t->config->checkpoint_every, step) || step == t->steps;
	int status = run_timed(loop, step);

	if (status || (!validates && !checkpoints))
		return status;
	if (loop->logging && record_write(loop))
		return -1;
	if (validates)
		status = validation_run(loop, step);
	if (!status && checkpoints)
		status = checkpoint(loop, step);
	loop->mark_s = clock_s();
	return status;
}

/* A finished run has its adapter written anew. */
static int gather_again(struct loop *loop)
{
	int status;

	wait_begins(loop, WATCH_STATE, "at the state of the finished run", "the other ranks",
		    -1);
	status = gather_state(loop);
	wait_ends(loop);
	return status;
}

static int run_steps(struct loop *loop, long long first)
{
	struct training *t = loop->t;
	bool validates = t->validate && first == 1;
	int status = 0;

	if (t->stage && first <= t->steps)
		status = executor_begin(loop->executor, validates ? t->forward : t->schedule,
					(uint32_t)(validates ? 0 : first));
	if (!status && validates)
		status = validation_run(loop, 0);
	if (!status && first <= t->steps)
		status = step_start_batch(loop);
	loop->mark_s = clock_s();
	for (long long step = first; !status && step <= t->steps; step++)
		status = run_one(loop, step);
	if (!status && first > t->steps)
		status = gather_again(loop);
	return status ? status : write_adapter(loop);
}

/* RUN/trace.json. */
static int write_trace(struct loop *loop)
{
	struct training *t = loop->t;
	struct arena arena = {0};
	const char *path = loop->logging ? path_join(&arena, t->run, "trace.json") : NULL;
	int status;

	wait_begins(loop, WATCH_STATE, "at the trace", "the other ranks", t->steps);
	status = trace_write(t->executor.trace, t->comm, &t->places, t->stage_name,
			     (int)t->config->trace, path);
	status = status < 0 ? status : same_status(loop, status);
	wait_ends(loop);
	arena_release(&arena);
	return status;
}

/* From an open loop to the last line of its log. */
static int run_loop(struct loop *loop)
{
	struct training *t = loop->t;
	int status = restore(loop);
	long long first = t->checkpoint.step + 1;

	loop->progress = (struct progress){clock_s(), 0, first, 0};
	if (!status && loop->logging && first <= t->steps)
		record_run(loop);
	if (!status)
		status = run_steps(loop, first);
	if (status >= 0 && ((loop->logging && record_write(loop)) || settle(loop)))
		status = -1;
	if (!status && t->config->trace > 0 && first <= t->steps)
		status = write_trace(loop);
	if (loop->logging && status >= 0 && first <= t->steps)
		record_end(loop, first, status);
	if (!status && loop->valid_before > 0)
		say("valid   loss %.4f before, %.4f after", loop->valid_before,
		    loop->valid_after);
	return status;
}

int training_run(struct training *t)
{
	struct loop loop = {.t = t};
	int status;

	wait_begins(&loop, WATCH_BETWEEN, "between two waits of the training",
		    "the other ranks", -1);
	status = loop_open(&loop, t);
	if (!status)
		status = run_loop(&loop);
	executor_close(loop.executor);
	loop.executor = NULL;
	if (status >= 0 && end_together(&loop))
		status = -1;
	if (status < 0 && t->last_words)
		say("%s", t->last_words);
	if (status < 0)
		comm_abort(t->comm, error_code() ? error_code() : EXIT_RETRY);
	loop_close(&loop);
	wait_ends(&loop);
	return status < 0 ? EXIT_RETRY : status;
}
