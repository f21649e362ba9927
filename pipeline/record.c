/*
 * record.c - what rank 0 logs of the training loop: metrics.jsonl and lines for people.
 */
#include <math.h>
#include <stdlib.h>

#include "pipeline/loop.h"

/* Steps after which a pace that is not held is no accident. */
enum { PACE_STEPS = 3 };
#define PACE_HELD 1.02			/* a stage's time, of the declared one */
#define PACE_ROOM 1.2			/* ranks that share cores disturb each other */

/* Two steps' worth of slots: a step's times may come while those before are not yet written. */
static struct step_times *times_of(const struct loop *loop, long long step)
{
	return loop->times + step % 2 * loop->t->comm->size;
}

int record_send(struct loop *loop, long long step, const struct step_times *times)
{
	struct comm *comm = loop->t->comm;
	struct comm_request *request = loop->times_request + step % 2 * comm->size;
	int status;

	if (comm->rank == 0) {
		times_of(loop, step)[0] = *times;
		for (int rank = 1; rank < comm->size; rank++)
			if (comm_recv(comm, rank, TAG_TIMES, &times_of(loop, step)[rank],
				      sizeof(*times), &request[rank]))
				return -1;
		return 0;
	}
	wait_begins(loop, WATCH_TIMES, "sending the times of a step", "rank 0", step);
	status = comm_wait(comm, request);
	wait_ends(loop);
	if (status)
		return -1;
	loop->mine[step % 2] = *times;
	return comm_send(comm, 0, TAG_TIMES, &loop->mine[step % 2], sizeof(*times), request);
}

/* Says once that the declared speeds are too much for this machine, where a stage was slower
 * than declared over several steps (the first left out), and what would fit. */
static void check_pace(struct loop *loop, const struct step_record *record)
{
	const struct training *t = loop->t;
	double slowest = 0;

	if (record->step == loop->progress.first_step)
		return;
	for (int rank = 0; rank < t->comm->size; rank++) {
		struct step_times *sum = &loop->pace[rank];
		const struct step_times *now = &record->times[rank];

		sum->forward_s += now->forward_s + now->backward_s;
		sum->declared_s += now->declared_s;
		if (sum->declared_s > 0)
			slowest = fmax(slowest, sum->forward_s / sum->declared_s);
	}
	if (slowest <= PACE_HELD || loop->warned ||
	    (record->step < loop->progress.first_step + PACE_STEPS && record->step < t->steps))
		return;
	loop->warned = true;
	warn(
	    "step %lld: this machine is too small to hold the declared speeds (a stage takes "
	    "%.2g times as long); "
	    "emulate.slowdown=%.2g should fit",
	    record->step, slowest, PACE_ROOM * slowest * t->slowdown);
}

static int smaller_first(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double median_of(double *values, long long count)
{
	if (count < 1)
		return 0;
	qsort(values, (size_t)count, sizeof(*values), smaller_first);
	return values[count / 2];
}

double measured_step_s(struct measured *m)
{
	long long steps = m->steps < m->room ? m->steps : m->room;

	return m->plain > 0 ? median_of(m->took_s, m->plain)
			    : median_of(m->took_s + m->room - steps, steps);
}

/* Adds a steady step to what the run measures. */
static void add_measured(const struct loop *loop, const struct step_record *record)
{
	struct measured *sum = loop->t->measured;

	if (!sum || record->step == loop->progress.first_step)
		return;
	if (sum->steps < sum->room && validates_after(loop->t, record->step))
		sum->took_s[sum->room - 1 - (sum->steps - sum->plain)] = record->step_s;
	else if (sum->steps < sum->room)
		sum->took_s[sum->plain++] = record->step_s;
	sum->steps++;
	for (int rank = 0; rank < loop->t->comm->size; rank++) {
		struct step_times *to = &sum->times[rank];
		const struct step_times *from = &record->times[rank];

		to->forward_s += from->forward_s;
		to->backward_s += from->backward_s;
		to->idle_s += from->idle_s;
		to->send_s += from->send_s;
		to->sent_bytes += from->sent_bytes;
		to->declared_s += from->declared_s;
		to->peak_bytes = from->peak_bytes;
	}
}

/* Until all ranks have said what the step took them. */
static int await_times(struct loop *loop, long long step)
{
	struct comm *comm = loop->t->comm;
	int status = 0;

	for (int rank = 1; rank < comm->size && !status; rank++) {
		snprintf(loop->awaited, sizeof(loop->awaited), "rank %d", rank);
		wait_begins(loop, WATCH_TIMES, "waiting for the times", loop->awaited, step);
		status = comm_wait(comm, &loop->times_request[step % 2 * comm->size + rank]);
		wait_ends(loop);
	}
	return status;
}

/* Writes the line of the step whose times are on their way. */
int record_write(struct loop *loop)
{
	struct step_record *record = &loop->record;

	if (record->step == 0)
		return 0;
	if (await_times(loop, record->step))
		return -1;
	record->times = times_of(loop, record->step);
	step_line(loop->t, record, &loop->metrics);
	step_say(&loop->progress, loop->t, record);
	check_pace(loop, record);
	add_measured(loop, record);
	record->step = 0;
	return 0;
}

int record_keep(struct loop *loop, struct step_record record)
{
	struct training *t = loop->t;
	double now = clock_s();

	if (record_write(loop))
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

void record_valid(struct loop *loop, long long step, double loss, long long tokens)
{
	struct text line = {0};

	text_add(&line, "{\"kind\":\"valid\",\"step\":%lld,\"loss\":%.9g,\"tokens\":%lld}",
		 step, (double)(float)loss, tokens);
	metrics_line(&loop->metrics, &line);
	text_release(&line);
	say("step %4lld/%lld | validation loss %.4f (perplexity %.2f) over %lld tokens", step,
	    loop->t->steps, loss, exp(loss), tokens);
}

void record_run(struct loop *loop)
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

void record_end(struct loop *loop, long long first, int status)
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
