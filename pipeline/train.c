/*
 * The training loop, the same on all ranks. A step: rank 0 hands out the data; the executor runs the schedule;
 * the squared norm is folded from the last stage to the first, tensor by tensor, in a message that also carries
 * the loss; all clip by the same number and update.
 *
 * Loss: the sum over all trained tokens of the batch / their number, however the batch is cut.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/internal.h"

struct loop {
	struct training *t;
	struct feed feed;
	struct executor *executor;	/* null without a stage */
	struct metrics metrics;		/* rank 0, as are the next three */
	struct progress progress;
	struct step_times *times;	/* of every rank */
	bool logging;
	uint64_t place;			/* next sample of the stream */
	long long checkpointed;		/* step of the last checkpoint */
	double valid_before, valid_after;	/* losses; 0: none */
	char *path;			/* of metrics.jsonl */
};

/* What the last stage knows first and every rank must know: travels with the norm. */
struct verdict { double squares, loss; };

/* -- one step ------------------------------------------------------------------------------ */

/* Folds the norm from the last stage to the first and tells everybody. */
static int agree(struct loop *loop, double loss_sum, struct verdict *verdict)
{
	const struct training *t = loop->t;
	const struct places *p = &t->places;

	*verdict = (struct verdict){0, loss_sum};
	if (t->stage) {
		if (p->stage < p->stages - 1 &&
		    comm_recv_now(t->comm, p->rank_of_stage[p->stage + 1], TAG_NORM, verdict,
				  sizeof(*verdict)))
			return -1;
		stage_fold_norm(t->stage, &verdict->squares);
		if (p->stage > 0 && comm_send_now(t->comm, p->rank_of_stage[p->stage - 1],
						  TAG_NORM, verdict, sizeof(*verdict)))
			return -1;
	}
	return comm_broadcast(t->comm, p->rank_of_stage[0], verdict, sizeof(*verdict));
}

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

/* Times of all ranks to rank 0. */
static int gather_times(struct loop *loop, const struct step_times *mine)
{
	struct comm *comm = loop->t->comm;

	if (comm->rank != 0)
		return comm_send_now(comm, 0, TAG_LOSS, mine, sizeof(*mine));
	loop->times[0] = *mine;
	for (int rank = 1; rank < comm->size; rank++)
		if (comm_recv_now(comm, rank, TAG_LOSS, &loop->times[rank], sizeof(*mine)))
			return -1;
	return 0;
}

static struct step_data step_data(const struct loop *loop, long long step, long long trained,
				  bool train)
{
	return (struct step_data){
		.seed = (uint64_t)loop->t->config->seed,
		.step = (uint32_t)step,
		.tokens = loop->t->tokens,
		.ids = loop->feed.ids,
		.labels = loop->feed.labels,
		.loss_scale = 1.0f / (float)trained,
		.train = train,
	};
}

/* Fills and shares the batch of a step; *trained is the same on all ranks. */
static int next_batch(struct loop *loop, long long step, long long *trained)
{
	struct training *t = loop->t;

	if (t->comm->rank == 0)
		*trained = feed_fill(&loop->feed, t->train, t, t->shuffle, loop->place, UINT64_MAX);
	loop->place += (uint64_t)(t->sequences * t->micro_batches);
	if (comm_broadcast(t->comm, 0, trained, sizeof(*trained)))
		return -1;
	if (*trained > 0)
		return feed_share(&loop->feed);
	if (t->comm->rank == 0)
		report(EXIT_DATA, "the batch of step %lld has no trained token: '%s'", step,
		       t->train->path);
	return EXIT_DATA;
}

static int diverged(const struct loop *loop, long long step, float loss, float norm)
{
	if (isfinite(loss) && isfinite(norm))
		return 0;
	if (loop->t->comm->rank == 0)
		report(EXIT_DIVERGED,
		       "step %lld diverged: loss %g, gradient norm %g; the last checkpoint is of "
		       "step %lld; a lower learning rate or a longer warm-up may help",
		       step, (double)loss, (double)norm, loop->checkpointed);
	return EXIT_DIVERGED;
}

static void record_step(struct loop *loop, struct step_record *record)
{
	struct training *t = loop->t;

	record->steps = t->steps;
	record->tokens = (long long)loop->feed.count;
	record->times = loop->times;
	record->learning_rate = (float)learning_rate_at(t->config, record->step, t->steps);
	loop->progress.training_s += record->step_s;
	step_line(t, record, &loop->metrics);
	step_say(&loop->progress, t, record);
}

/* Runs one step. 0, an exit code that all ranks agree on, or -1 after a failed transfer. */
static int run_step(struct loop *loop, long long step)
{
	struct training *t = loop->t;
	struct dump *dump = t->dump && step == 1 ? dump_open(t) : NULL;
	struct step_times times = {0};
	struct step_record record = {.step = step};
	struct verdict verdict;
	double start = clock_s(), loss = 0;
	int status = next_batch(loop, step, &record.trained_tokens);

	if (!status && t->stage) {
		struct step_data data = step_data(loop, step, record.trained_tokens, true);

		if (dump) {
			data.observe = dump_observe;
			data.observe_arg = dump;
		}
		stage_zero_gradients(t->stage);
		status = executor_run(loop->executor, t->schedule, &data, &loss, &times);
	}
	if (!status)
		status = agree(loop, loss, &verdict);
	if (!status) {
		record.loss = (float)(verdict.loss / (double)record.trained_tokens);
		record.grad_norm = (float)sqrt(verdict.squares);
		status = dump ? dump_write(dump, record.loss) : 0;
	}
	dump_close(dump);
	if (!status)
		status = diverged(loop, step, record.loss, record.grad_norm);
	if (status)
		return status;
	update(t, step, record.grad_norm);
	if (gather_times(loop, &times))
		return -1;
	record.step_s = clock_s() - start;
	if (loop->logging)
		record_step(loop, &record);
	return 0;
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

/* Forward only over the whole validation set, in file order. */
static int validate(struct loop *loop, long long step)
{
	struct training *t = loop->t;
	uint64_t samples = t->comm->rank == 0 ? t->valid->samples : 0;
	uint64_t batch = (uint64_t)(t->sequences * t->micro_batches);
	long long tokens = 0, trained = 0;
	struct step_times times = {0};
	double loss = 0;

	if (comm_broadcast(t->comm, 0, &samples, sizeof(samples)))
		return -1;
	for (uint64_t place = 0; place < samples; place += batch) {
		struct step_data data = step_data(loop, step, 1, false);

		if (t->comm->rank == 0)
			trained = feed_fill(&loop->feed, t->valid, t, false, place, samples);
		tokens += trained;
		if (feed_share(&loop->feed))
			return -1;
		if (t->stage &&
		    executor_run(loop->executor, t->forward, &data, &loss, &times))
			return -1;
	}
	if (loss_to_root(t, &loss) || comm_broadcast(t->comm, 0, &loss, sizeof(loss)))
		return -1;
	if (!isfinite(loss)) {
		if (loop->logging)
			report(EXIT_DIVERGED, "the validation loss after step %lld is %g", step, loss);
		return EXIT_DIVERGED;
	}
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

static int loop_open(struct loop *loop, struct training *t)
{
	struct arena arena = {0};
	long long keep = t->checkpoint.step > 0 ? t->checkpoint.step : -1;
	int status = 0;

	*loop = (struct loop){.t = t, .metrics = {.fd = -1}, .checkpointed = t->checkpoint.step,
			      .place = t->checkpoint.place};
	loop->logging = t->comm->rank == 0;
	feed_open(&loop->feed, t);
	if (t->stage) {
		int room = t->schedule->room[t->places.stage];
		int valid_room = t->forward->room[t->places.stage];
		size_t cut = (size_t)t->sequences * (size_t)t->tokens * (size_t)t->model->width *
			     sizeof(float);

		loop->executor = executor_open(t->comm, t->stage, &t->places, t->sequences, cut,
					       room > valid_room ? room : valid_room);
	}
	if (loop->logging) {
		loop->times = xzalloc((size_t)t->comm->size, sizeof(*loop->times));
		loop->path = xcopy(path_join(&arena, t->run, "metrics.jsonl"));
		if (metrics_open(&loop->metrics, loop->path, keep, keep >= t->steps))
			status = error_code();
	}
	arena_release(&arena);
	return same_status(loop, status);
}

static void loop_close(struct loop *loop)
{
	metrics_close(&loop->metrics);
	executor_close(loop->executor);
	feed_close(&loop->feed);
	free(loop->times);
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
	text_add(&line, "\"predicted_step_s\":null,\"measured_step_s\":%.6f,\"exit\":%d}", step_s,
		 status);
	metrics_line(&loop->metrics, &line);
	text_release(&line);
}

static bool due(long long every, long long step)
{
	return every > 0 && step % every == 0;
}

static int run_steps(struct loop *loop, long long first)
{
	struct training *t = loop->t;
	const struct train_config *c = t->config;
	int status = 0;

	if (t->validate && first == 1)
		status = validate(loop, 0);
	for (long long step = first; !status && step <= t->steps; step++) {
		status = run_step(loop, step);
		if (!status && t->validate &&
		    (due(c->validate_every, step) || step == t->steps))
			status = validate(loop, step);
		if (!status && (due(c->checkpoint_every, step) || step == t->steps))
			status = checkpoint(loop, step);
	}
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
	if (loop.logging && status >= 0 && first <= t->steps)
		line_end(&loop, first, status);
	if (!status && loop.valid_before > 0)
		say("valid   loss %.4f before, %.4f after", loop.valid_before, loop.valid_after);
	if (status < 0)
		comm_abort(t->comm, error_code() ? error_code() : EXIT_RETRY);
	loop_close(&loop);
	return status < 0 ? EXIT_RETRY : status;
}
