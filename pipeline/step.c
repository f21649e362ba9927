/*
 * step.c - one training step: the executor runs the schedule; the verdict (norm, loss) travels
 * with the pipeline; all clip by the same number and update.
 */
#include <math.h>

#include "pipeline/loop.h"

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

	double start = clock_s();

	if (!t->stage)
		return;
	stage_update(t->stage, &settings);
	trace_add(t->executor.trace, (struct op){OP_UPDATE, 0}, (uint32_t)step, start,
		  clock_s());
}

struct step_data step_data(const struct training *t, long long step,
			   const struct feed_view *batch, bool train)
{
	return (struct step_data){
		.step = (uint32_t)step,
		.ids = batch->ids,
		.labels = batch->labels,
		.segment = batch->segment,
		.segments = t->segments * t->sequences,
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
		report(
		    EXIT_DIVERGED,
		    "step %lld diverged: loss %g, gradient norm %g; the last checkpoint is of "
		    "step %lld; a lower learning rate or a longer warm-up may help",
		    step, (double)loss, (double)norm, loop->checkpointed);
	return verdict->code ? verdict->code : EXIT_DIVERGED;
}

/* Starts the data of the next step. */
int step_start_batch(struct loop *loop)
{
	struct training *t = loop->t;
	struct feed_source source = {t->train, t->packing, t->shuffle, UINT64_MAX};
	uint64_t place = loop->place +
			 (uint64_t)(loop->feed.started - loop->feed.taken) * t->samples;

	return feed_start(&loop->feed, t, &source, place);
}

/* The computing of a step, up to the last backward. */
static int compute(struct loop *loop, long long step, struct dump *dump,
		   const struct feed_view *batch, struct step_times *times, double *loss)
{
	struct training *t = loop->t;
	struct step_data data = step_data(t, step, batch, true);

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

	wait_begins(loop, WATCH_DATA, "waiting for the data", data_peer(loop), step);
	status = feed_next(&loop->feed, batch);
	loop->place += t->samples;
	if (!status && step < t->steps)
		status = step_start_batch(loop);
	wait_ends(loop);
	return status ? -1 : verdicts_expect(&loop->verdicts);
}

/* What follows the last op: passes the norm on, begins what comes next, and waits for the
 * verdict. Without a clip nobody needs the norm to update. */
static int close_step(struct loop *loop, long long step, bool updates, double loss,
		      const struct feed_view *batch, struct verdict *verdict)
{
	struct training *t = loop->t;
	int status;

	wait_begins(loop, WATCH_NORM, "waiting for the gradient's norm", "the next stage",
		    step);
	status = verdicts_add(&loop->verdicts, loss, batch->trained);
	wait_ends(loop);
	if (status || begin_after(loop, step))
		return -1;
	if (updates)
		update(t, step, 0);
	wait_begins(loop, WATCH_VERDICT, "waiting for the loss and the norm",
		    "the stage before", step);
	status = verdicts_wait(&loop->verdicts, verdict);
	wait_ends(loop);
	return status;
}

static int share_dump(struct loop *loop, long long step, struct dump *dump, double loss)
{
	int status;

	wait_begins(loop, WATCH_STATE, "at the dump", "rank 0 or its disk", step);
	status = dump_write(dump, (float)loss);
	wait_ends(loop);
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
		status = share_dump(loop, step, dump, verdict->loss);
	if (!status && waits)
		update(t, step, (float)sqrt(verdict->squares));
	return status ? status : record_send(loop, step, &times);
}

/* Runs one step. 0, an exit code that all ranks agree on, or -1 after a failed transfer. */
int step_run(struct loop *loop, long long step)
{
	struct training *t = loop->t;
	struct dump *dump = t->dump && step == 1 ? dump_open(t) : NULL;
	struct feed_view batch;
	struct verdict verdict;
	int status = step_through(loop, step, dump, &batch, &verdict);

	dump_close(dump);
	if (!status && loop->logging)
		status = record_keep(loop, (struct step_record){
						   .step = step,
						   .loss = (float)verdict.loss,
						   .grad_norm = (float)sqrt(verdict.squares),
						   .trained_tokens = batch.trained,
					   });
	return status;
}
