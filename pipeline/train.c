/*
 * The training loop, the same on all ranks, on the thread that computes. A step: the executor runs the schedule; the verdict (norm,
 * loss) travels with the pipeline; all clip by the same number and update. Nobody waits for all others: a stage is in
 * its next step as soon as its own part of this one is over, the data of the next step travel meanwhile, and what rank 0
 * logs comes a step later.
 *
 * Loss: the sum over all trained tokens of the batch / their number, however the batch is cut.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/internal.h"

/* Steps after which a pace that is not held is no accident. */
enum { PACE_STEPS = 3 };

struct loop {
	struct training *t;
	struct feed feed, valid_feed;
	struct executor *executor;	/* null without a stage */
	struct verdicts verdicts;
	struct metrics metrics;		/* rank 0, as are the next ones up to `logging` */
	struct progress progress;
	struct step_times *times;	/* [2 * size]: of every rank, of this step and the one before */
	struct comm_request *times_request;	/* likewise; elsewhere two */
	struct step_record record;	/* of the step whose times are on their way; step 0: none */
	struct step_times *pace;	/* of every rank: sums over the steps */
	bool warned;			/* that the machine cannot hold the declared speeds */
	bool logging;
	struct step_times mine[2];	/* of this step and the one before */
	uint64_t place;			/* next sample of the stream */
	long long checkpointed;		/* step of the last checkpoint */
	double valid_before, valid_after;	/* losses; 0: none */
	double mark_s;			/* when the last step ended, or what came after it */
	char *path;			/* of metrics.jsonl */
};

/* A wait outside of the executor, for the watchdog. */
static void enter(const struct loop *loop, int kind, const char *what, const char *peer,
		  long long step)
{
	double patience = kind == WATCH_STATE ? 3 : 1;	/* disks may be slow */

	watchdog_enter(loop->t->executor.watchdog,
		       &(struct watchdog_section){kind, patience, what, peer, step, -1});
}

static void leave(const struct loop *loop)
{
	watchdog_leave(loop->t->executor.watchdog);
}

/* -- what rank 0 logs ---------------------------------------------------------------------- */

/* Two steps' worth of slots: a step's times may come while those before are not yet written. */
static struct step_times *times_of(const struct loop *loop, long long step)
{
	return loop->times + step % 2 * loop->t->comm->size;
}

static int send_times(struct loop *loop, long long step, const struct step_times *times)
{
	struct comm *comm = loop->t->comm;
	struct comm_request *request = loop->times_request + step % 2 * comm->size;

	if (comm->rank == 0) {
		times_of(loop, step)[0] = *times;
		for (int rank = 1; rank < comm->size; rank++)
			if (comm_recv(comm, rank, TAG_TIMES, &times_of(loop, step)[rank],
				      sizeof(*times), &request[rank]))
				return -1;
		return 0;
	}
	if (comm_wait(comm, request))
		return -1;
	loop->mine[step % 2] = *times;
	return comm_send(comm, 0, TAG_TIMES, &loop->mine[step % 2], sizeof(*times), request);
}

/* Says once that the declared speeds are too much for this machine, and what would fit: by what it needed over
 * several steps, the first left out. */
static void check_pace(struct loop *loop, const struct step_record *record)
{
	const struct training *t = loop->t;
	double worst = 0;

	if (record->step == loop->progress.first_step)
		return;
	for (int rank = 0; rank < t->comm->size; rank++) {
		struct step_times *sum = &loop->pace[rank];

		sum->work_s += record->times[rank].work_s;
		sum->declared_s += record->times[rank].declared_s;
		if (sum->declared_s > 0 && sum->work_s / sum->declared_s > worst)
			worst = sum->work_s / sum->declared_s;
	}
	if (worst <= 1 || loop->warned || record->step < loop->progress.first_step + PACE_STEPS)
		return;
	loop->warned = true;
	warn("step %lld: this machine is too small to hold the declared speeds; "
	     "emulate.slowdown=%.2g would fit", record->step, 1.05 * worst * t->slowdown);
}

/* Writes the line of the step whose times are on their way. */
static int write_record(struct loop *loop)
{
	struct step_record *record = &loop->record;
	struct comm *comm = loop->t->comm;

	if (record->step == 0)
		return 0;
	for (int rank = 1; rank < comm->size; rank++)
		if (comm_wait(comm, &loop->times_request[record->step % 2 * comm->size + rank]))
			return -1;
	record->times = times_of(loop, record->step);
	step_line(loop->t, record, &loop->metrics);
	step_say(&loop->progress, loop->t, record);
	check_pace(loop, record);
	record->step = 0;
	return 0;
}

static int keep_record(struct loop *loop, struct step_record record)
{
	struct training *t = loop->t;
	double now = clock_s();

	if (write_record(loop))
		return -1;
	record.steps = t->steps;
	record.tokens = (long long)loop->feed.count;
	record.learning_rate = (float)learning_rate_at(t->config, record.step, t->steps);
	record.step_s = now - loop->mark_s;
	loop->mark_s = now;
	loop->progress.training_s += record.step_s;
	loop->record = record;
	return 0;
}

/* -- one step ------------------------------------------------------------------------------ */

/* As torch.nn.utils.clip_grad_norm_. */
static float clip_scale(double clip, float norm)
{
	float scale = (float)clip / (norm + 1e-6f);

	return clip > 0 && scale < 1 ? scale : 1;
}

static void update(const struct training *t, long long step, float norm)
{
	const struct train_config *c = t->config;
	struct adamw settings = {
		.learning_rate = learning_rate_at(c, step, t->steps),
		.beta1 = c->betas.item[0],
		.beta2 = c->betas.item[1],
		.epsilon = c->epsilon,
		.weight_decay = c->weight_decay,
		.grad_scale = clip_scale(c->clip, norm),
		.step = step,
	};

	if (t->stage)
		stage_update(t->stage, &settings);
}

static struct step_data step_data(long long step, const struct feed_view *batch, bool train)
{
	return (struct step_data){
		.step = (uint32_t)step,
		.ids = batch->ids,
		.labels = batch->labels,
		.loss_scale = train && batch->trained > 0 ? 1.0f / (float)batch->trained
			      : train ? 0 : 1,
		.train = train,
	};
}

/* What ends the run for everybody. */
static int judge(const struct loop *loop, long long step, const struct verdict *verdict)
{
	const struct training *t = loop->t;
	float loss = (float)verdict->loss, norm = (float)sqrt(verdict->squares);

	if (verdict->code == 0 && isfinite(loss) && isfinite(norm))
		return 0;
	if (t->comm->rank == 0 && verdict->code)
		report(verdict->code, "the batch of step %lld has no trained token: '%s'", step,
		       t->train->path);
	else if (t->comm->rank == 0)
		report(EXIT_DIVERGED,
		       "step %lld diverged: loss %g, gradient norm %g; the last checkpoint is of "
		       "step %lld; a lower learning rate or a longer warm-up may help",
		       step, (double)loss, (double)norm, loop->checkpointed);
	return verdict->code ? verdict->code : EXIT_DIVERGED;
}

static bool due(long long every, long long step)
{
	return every > 0 && step % every == 0;
}

static bool validates_after(const struct training *t, long long step)
{
	return t->validate && (due(t->config->validate_every, step) || step == t->steps);
}

/* Starts the data of the next step. */
static int start_batch(struct loop *loop)
{
	struct training *t = loop->t;
	struct feed_source source = {t->train, t->shuffle, UINT64_MAX};
	uint64_t place = loop->place +
			 (uint64_t)(loop->feed.started - loop->feed.taken) * t->samples;

	return feed_start(&loop->feed, t, &source, place);
}

/* The computing of a step, up to the last backward. */
static int compute(struct loop *loop, long long step, struct dump *dump, const struct feed_view *batch,
		   struct step_times *times, double *loss)
{
	struct training *t = loop->t;
	struct step_data data = step_data(step, batch, true);

	if (!t->stage)
		return 0;
	if (dump) {
		data.observe = dump_observe;
		data.observe_arg = dump;
	}
	stage_zero_gradients(t->stage);
	return executor_run(loop->executor, &data, loss, times);
}

/* Begins what comes after a step, so that its first messages find their receives. */
static int begin_after(struct loop *loop, long long step)
{
	struct training *t = loop->t;
	bool valid = validates_after(t, step);

	if (!t->stage || (!valid && step >= t->steps))
		return 0;
	return executor_begin(loop->executor, valid ? t->forward : t->schedule,
			      (uint32_t)(valid ? step : step + 1));
}

/* What is needed before the first op. */
static int open_step(struct loop *loop, long long step, struct feed_view *batch)
{
	struct training *t = loop->t;
	int status;

	enter(loop, WATCH_DATA, "waiting for the data", "rank 0", step);
	status = feed_next(&loop->feed, batch);
	loop->place += t->samples;
	if (!status && step < t->steps)
		status = start_batch(loop);
	leave(loop);
	return status ? -1 : verdicts_expect(&loop->verdicts);
}

/* What follows the last op: passes the norm on, begins what comes next, and waits for the verdict. Without a clip
 * nobody needs the norm to update. */
static int close_step(struct loop *loop, long long step, bool updates, double loss,
		      const struct feed_view *batch, struct verdict *verdict)
{
	struct training *t = loop->t;
	int status;

	enter(loop, WATCH_NORM, "waiting for the gradient's norm", "the next stage", step);
	status = verdicts_add(&loop->verdicts, loss, batch->trained);
	leave(loop);
	if (status || begin_after(loop, step))
		return -1;
	if (updates)
		update(t, step, 0);
	enter(loop, WATCH_VERDICT, "waiting for the loss and the norm", "the stage before", step);
	status = verdicts_wait(&loop->verdicts, verdict);
	leave(loop);
	return status;
}

/* Everything of a step but its record. */
static int step_through(struct loop *loop, long long step, struct dump *dump,
			struct feed_view *batch, struct verdict *verdict)
{
	struct training *t = loop->t;
	struct step_times times = {0};
	bool waits = t->config->clip > 0 || dump;
	double loss = 0;
	int status;

	if (open_step(loop, step, batch) || compute(loop, step, dump, batch, &times, &loss) ||
	    close_step(loop, step, !waits, loss, batch, verdict))
		return -1;
	status = judge(loop, step, verdict);
	if (!status && dump)
		status = dump_write(dump, (float)verdict->loss);
	if (!status && waits)
		update(t, step, (float)sqrt(verdict->squares));
	return status ? status : send_times(loop, step, &times);
}

/* Runs one step. 0, an exit code that all ranks agree on, or -1 after a failed transfer. */
static int run_step(struct loop *loop, long long step)
{
	struct training *t = loop->t;
	struct dump *dump = t->dump && step == 1 ? dump_open(t) : NULL;
	struct feed_view batch;
	struct verdict verdict;
	int status = step_through(loop, step, dump, &batch, &verdict);

	dump_close(dump);
	if (!status && loop->logging)
		status = keep_record(loop, (struct step_record){
						   .step = step,
						   .loss = (float)verdict.loss,
						   .grad_norm = (float)sqrt(verdict.squares),
						   .trained_tokens = batch.trained,
					   });
	return status;
}

/* -- validation ---------------------------------------------------------------------------- */

/* The head's sum to rank 0. */
static int loss_to_root(const struct training *t, double *loss)
{
	int last = t->places.rank_of_stage[t->places.stages - 1];

	if (last == 0)
		return 0;
	if (t->comm->rank == last)
		return comm_send_now(t->comm, 0, TAG_LOSS, loss, sizeof(*loss));
	return t->comm->rank == 0 ? comm_recv_now(t->comm, last, TAG_LOSS, loss, sizeof(*loss)) : 0;
}

static void record_valid(struct loop *loop, long long step, double loss, long long tokens)
{
	struct text line = {0};

	text_add(&line, "{\"kind\":\"valid\",\"step\":%lld,\"loss\":%.9g,\"tokens\":%lld}", step,
		 (double)(float)loss, tokens);
	metrics_line(&loop->metrics, &line);
	text_release(&line);
	say("step %4lld/%lld | validation loss %.4f (perplexity %.2f) over %lld tokens", step,
	    loop->t->steps, loss, exp(loss), tokens);
}

/* Forward only through one batch of the validation set; the next one's data travel meanwhile. */
static int validate_batch(struct loop *loop, long long step, const struct feed_source *source,
			  uint64_t place, double *loss, long long *tokens)
{
	struct training *t = loop->t;
	struct step_times times = {0};
	struct feed_view batch;
	struct step_data data;
	bool last = place + t->samples >= source->end;

	if (feed_next(&loop->valid_feed, &batch))
		return -1;
	*tokens += batch.trained;
	if (!last && feed_start(&loop->valid_feed, t, source, place + t->samples))
		return -1;
	if (!t->stage)
		return 0;
	data = step_data(step, &batch, false);
	if (executor_run(loop->executor, &data, loss, &times))
		return -1;
	return last ? 0 : executor_begin(loop->executor, t->forward, (uint32_t)step);
}

/* The whole validation set, in file order. What begins after a step has begun already. */
static int validate(struct loop *loop, long long step)
{
	struct training *t = loop->t;
	struct feed_source source = {t->valid, false, t->valid_samples};
	long long tokens = 0;
	double loss = 0;
	int status = feed_start(&loop->valid_feed, t, &source, 0);

	for (uint64_t place = 0; !status && place < source.end; place += t->samples)
		status = validate_batch(loop, step, &source, place, &loss, &tokens);
	enter(loop, WATCH_STATE, "at the validation loss", "the last stage", step);
	if (status || loss_to_root(t, &loss) || comm_broadcast(t->comm, 0, &loss, sizeof(loss)))
		return -1;
	leave(loop);
	if (!isfinite(loss)) {
		if (loop->logging)
			report(EXIT_DIVERGED, "the validation loss after step %lld is %g", step, loss);
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
	int status = 0;

	if (gather_state(loop))
		return -1;
	if (loop->logging)
		status = write_checkpoint(loop, step);
	loop->checkpointed = step;
	return same_status(loop, status);
}

/* adapter/, from the state that the last checkpoint gathered. */
static int write_adapter(struct loop *loop)
{
	struct training *t = loop->t;
	struct arena arena = {0};
	int status = 0;

	if (loop->logging &&
	    adapter_write(path_join(&arena, t->run, "adapter"), t->lora, t->model,
			  t->checkpoint.value))
		status = error_code() ? error_code() : EXIT_IO;
	arena_release(&arena);
	return same_status(loop, status);
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
	feed_open(&loop->feed, t, TAG_IDS, TAG_LABELS);
	feed_open(&loop->valid_feed, t, TAG_VALID_IDS, TAG_VALID_LABELS);
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
	status = same_status(loop, status);
	return status ? status : open_executor(loop);
}

/* Everything that is still on its way out leaves. */
static int settle(struct loop *loop)
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

static void loop_close(struct loop *loop)
{
	metrics_close(&loop->metrics);
	executor_close(loop->executor);
	feed_close(&loop->feed);
	feed_close(&loop->valid_feed);
	verdicts_close(&loop->verdicts);
	free(loop->times);
	free(loop->times_request);
	free(loop->pace);
	free(loop->path);
}

/* Hands a resumed state to the stages. Every rank must agree on where to go on. */
static int restore(struct loop *loop)
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

static void line_run(struct loop *loop)
{
	struct training *t = loop->t;
	struct text line = {0};
	char stamp[32];

	clock_stamp(stamp, sizeof(stamp));
	text_add(&line,
		 "{\"kind\":\"run\",\"time\":\"%s\",\"from_step\":%lld,\"steps\":%lld,"
		 "\"stages\":%d,\"schedule\":\"%s\",\"micro_batch\":%d,\"micro_batches\":%d}",
		 stamp, t->checkpoint.step + 1, t->steps, t->places.stages, t->schedule->name,
		 t->sequences, t->micro_batches);
	metrics_line(&loop->metrics, &line);
	text_release(&line);
}

static void line_end(struct loop *loop, long long first, int status)
{
	struct training *t = loop->t;
	struct text line = {0};
	double steps = (double)(t->steps - first + 1);
	double step_s = steps > 0 ? loop->progress.training_s / steps : 0;

	text_add(&line, "{\"kind\":\"end\",\"steps\":%lld,\"wall_s\":%.3f,\"tokens_s\":%.1f,",
		 t->steps, clock_s() - loop->progress.start_s,
		 step_s > 0 ? (double)loop->feed.count / step_s : 0);
	if (t->predicted_step_s > 0)
		text_add(&line, "\"predicted_step_s\":%.6f,", t->predicted_step_s);
	else
		text_add(&line, "\"predicted_step_s\":null,");
	text_add(&line, "\"measured_step_s\":%.6f,\"exit\":%d}", step_s, status);
	metrics_line(&loop->metrics, &line);
	text_release(&line);
}

/* A step and what is due after it. */
static int run_one(struct loop *loop, long long step)
{
	const struct training *t = loop->t;
	bool validates = validates_after(t, step);
	bool checkpoints = due(t->config->checkpoint_every, step) || step == t->steps;
	int status = run_step(loop, step);

	if (status || (!validates && !checkpoints))
		return status;
	if (loop->logging && write_record(loop))
		return -1;
	if (validates)
		status = validate(loop, step);
	enter(loop, WATCH_STATE, "at the checkpoint", "rank 0 or its disk", step);
	if (!status && checkpoints)
		status = checkpoint(loop, step);
	leave(loop);
	loop->mark_s = clock_s();
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
		status = validate(loop, 0);
	if (!status && first <= t->steps)
		status = start_batch(loop);
	loop->mark_s = clock_s();
	for (long long step = first; !status && step <= t->steps; step++)
		status = run_one(loop, step);
	if (!status && first > t->steps)
		status = gather_state(loop);
	return status ? status : write_adapter(loop);
}

int training_run(struct training *t)
{
	struct loop loop;
	long long first;
	int status = loop_open(&loop, t);

	if (!status)
		status = restore(&loop);
	first = t->checkpoint.step + 1;
	loop.progress = (struct progress){clock_s(), 0, first, 0};
	if (!status && loop.logging && first <= t->steps)
		line_run(&loop);
	if (!status)
		status = run_steps(&loop, first);
	if (status >= 0 && ((loop.logging && write_record(&loop)) || settle(&loop)))
		status = -1;
	if (loop.logging && status >= 0 && first <= t->steps)
		line_end(&loop, first, status);
	if (!status && loop.valid_before > 0)
		say("valid   loss %.4f before, %.4f after", loop.valid_before, loop.valid_after);
	executor_close(loop.executor);
	loop.executor = NULL;
	if (status >= 0 && comm_barrier(t->comm))	/* nobody is gone while others still expect something */
		status = -1;
	if (status < 0 && t->last_words)
		say("%s", t->last_words);
	if (status < 0)
		comm_abort(t->comm, error_code() ? error_code() : EXIT_RETRY);
	loop_close(&loop);
	return status < 0 ? EXIT_RETRY : status;
}
