/*
 * The executor: interprets the ops of one stage for real. It knows no schedule by name; what it trusts is what
 * proof.c has proved: an op's slot is free when its turn comes, once the transfers that still read or write the
 * slot have ended, for which it waits.
 *
 * Order of a slot's life: receive the input, forward, send the output, receive its gradient (into the same edge
 * buffer), backward (in place), send the input's gradient (from the same buffer).
 */
#include <stdlib.h>
#include <string.h>

#include "pipeline/pipeline.h"

enum { TAG_FORWARD = 1, TAG_BACKWARD = 2 };

struct executor {
	struct comm *comm;
	struct stage *stage;
	const struct places *places;
	int sequences;			/* of a micro-batch */
	size_t cut_bytes;
	int slots;
	struct comm_request *recv_forward, *send_forward, *recv_backward, *send_backward;
};

/* One step under way. */
struct step {
	struct executor *executor;
	const struct schedule *schedule;
	const struct step_data *data;
	double *loss;
	struct step_times *times;
};

struct executor *executor_open(struct comm *comm, struct stage *stage,
			       const struct places *places, int sequences, size_t cut_bytes,
			       int slots)
{
	struct executor *x = xzalloc(1, sizeof(*x));
	struct comm_request *requests = xzalloc(4 * (size_t)slots, sizeof(*requests));

	*x = (struct executor){comm, stage, places, sequences, cut_bytes, slots, requests,
			       requests + slots, requests + 2 * slots, requests + 3 * slots};
	return x;
}

void executor_close(struct executor *executor)
{
	if (!executor)
		return;
	free(executor->recv_forward);
	free(executor);
}

/* -- one op -------------------------------------------------------------------------------- */

/* Waits for a transfer and books the time. */
static int await(const struct step *step, struct comm_request *request, double *account_s)
{
	double start = clock_s();
	int status = comm_wait(step->executor->comm, request);

	*account_s += clock_s() - start;
	return status;
}

static struct micro_batch micro_batch(const struct step *step, int micro, int n)
{
	const struct step_data *data = step->data;
	size_t first = (size_t)micro * (size_t)n;

	return (struct micro_batch){
		.seed = data->seed,
		.step = data->step,
		.first_sample = (uint32_t)(micro * step->executor->sequences),
		.ids = data->ids ? data->ids + first : NULL,
		.labels = data->labels ? data->labels + first : NULL,
		.loss_scale = data->loss_scale,
		.train = data->train,
	};
}

static int run_forward(const struct step *step, int micro, int slot, int n)
{
	struct executor *x = step->executor;
	struct micro_batch batch = micro_batch(step, micro, n);
	double loss = 0, start;

	if (await(step, &x->recv_forward[slot], &step->times->idle_s) ||
	    await(step, &x->send_forward[slot], &step->times->send_s) ||
	    await(step, &x->send_backward[slot], &step->times->send_s))
		return -1;
	start = clock_s();
	stage_forward(x->stage, slot, &batch, &loss);
	step->times->forward_s += clock_s() - start;
	*step->loss += loss;
	if (step->data->observe)
		step->data->observe(step->data->observe_arg, micro);
	return 0;
}

static int run_backward(const struct step *step, int micro, int slot, int n)
{
	struct executor *x = step->executor;
	struct micro_batch batch = micro_batch(step, micro, n);
	double start;

	if (await(step, &x->recv_backward[slot], &step->times->idle_s))
		return -1;
	start = clock_s();
	stage_backward(x->stage, slot, &batch);
	step->times->backward_s += clock_s() - start;
	return 0;
}

static int start_send(const struct step *step, int to_stage, int tag, const void *data,
		      struct comm_request *request)
{
	struct executor *x = step->executor;

	step->times->sent_bytes += (double)x->cut_bytes;
	return comm_send(x->comm, x->places->rank_of_stage[to_stage], tag, data, x->cut_bytes,
			 request);
}

static int start_recv(const struct step *step, int from_stage, int tag, void *data,
		      struct comm_request *request)
{
	struct executor *x = step->executor;

	return comm_recv(x->comm, x->places->rank_of_stage[from_stage], tag, data, x->cut_bytes,
			 request);
}

static int run_op(const struct step *step, struct op op, int n)
{
	struct executor *x = step->executor;
	int s = x->places->stage, slot = op.micro % step->schedule->room[s];

	switch (op.kind) {
	case OP_RECV_FORWARD:
		if (await(step, &x->send_backward[slot], &step->times->send_s) ||
		    await(step, &x->send_forward[slot], &step->times->send_s))
			return -1;
		return start_recv(step, s - 1, TAG_FORWARD, stage_input(x->stage, slot),
				  &x->recv_forward[slot]);
	case OP_FORWARD:
		return run_forward(step, op.micro, slot, n);
	case OP_SEND_FORWARD:
		return start_send(step, s + 1, TAG_FORWARD, stage_output(x->stage, slot),
				  &x->send_forward[slot]);
	case OP_RECV_BACKWARD:
		if (await(step, &x->send_forward[slot], &step->times->send_s))
			return -1;
		return start_recv(step, s + 1, TAG_BACKWARD, stage_grad_input(x->stage, slot),
				  &x->recv_backward[slot]);
	case OP_BACKWARD:
		return run_backward(step, op.micro, slot, n);
	case OP_SEND_BACKWARD:
		return start_send(step, s - 1, TAG_BACKWARD, stage_grad_output(x->stage, slot),
				  &x->send_backward[slot]);
	case OP_UPDATE:
		return 0;
	}
	return error(EXIT_BUG, "unknown op %d", (int)op.kind);
}

int executor_run(struct executor *x, const struct schedule *schedule,
		 const struct step_data *data, double *loss, struct step_times *times)
{
	struct step step = {x, schedule, data, loss, times};
	int s = x->places->stage, n = data->tokens * x->sequences;

	if (schedule->room[s] > x->slots)
		return error(EXIT_BUG, "schedule '%s' needs %d slots, the stage has %d",
			     schedule->name, schedule->room[s], x->slots);
	for (int i = 0; i < schedule->count[s]; i++)
		if (run_op(&step, schedule->op[s][i], n))
			return -1;
	for (int slot = 0; slot < x->slots; slot++)
		if (await(&step, &x->send_forward[slot], &times->send_s) ||
		    await(&step, &x->send_backward[slot], &times->send_s))
			return -1;
	times->peak_bytes = memory_peak_bytes();
	return 0;
}
