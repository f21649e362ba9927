/*
 * The executor: interprets the ops of one stage for real. It knows no schedule by name; what it
 * trusts is what proof.c has proved.
 *
 * It computes and nothing else: transfers are handed to the streams of its cuts, which pass
 * them beside the computing. A buffer's life: receive the input, forward, send the output,
 * receive its gradient (into the edge that was sent), backward (in place), send the input's
 * gradient (from the same edge).
 */
#include <stdlib.h>
#include <string.h>

#include "pipeline/pipeline.h"

enum { TAG_FORWARD = 1, TAG_BACKWARD = 2 };

/* What a pass may begin late by and still make up for. */
#define PACE_CARRY_S 0.005

/* The transfers of one edge buffer. */
struct edge {
	struct transfer recv_forward, send_forward, recv_backward, send_backward;
};

struct executor {
	struct executor_spec spec;
	int stage_index, n;		/* n: rows of a micro-batch */
	struct edge *edge;		/* [spec.edges] */
	struct stream *recv_forward, *send_forward, *recv_backward, *send_backward;
	double forward_bytes, backward_bytes;	/* of one tensor that is sent */
	/* The pass under way: */
	const struct schedule *schedule;
	bool traced;
	uint32_t step;
	int next;			/* op */
	double deadline_s;		/* when the last paced op ends or ended */
};

/* One pass under way. */
struct pass {
	struct executor *x;
	const struct step_data *data;
	double *loss;
	struct step_times *times;
};

/* -- the streams of the cuts --------------------------------------------------------------- */

static struct stream_spec stream_spec(const struct executor_spec *spec, int cut, bool forward,
				      bool send)
{
	const struct cut *c = &spec->cuts[cut];
	int peer = forward == send ? cut + 1 : cut;

	return (struct stream_spec){
		.name = forward ? c->forward_name : c->backward_name,
		.peer = spec->places->rank_of_stage[peer],
		.tag = forward ? TAG_FORWARD : TAG_BACKWARD,
		.send = send,
		.backward = !forward,
		.codec = forward ? c->forward : c->backward,
		.rows = spec->sequences * spec->tokens,
		.channels = spec->channels,
		.tokens = spec->tokens,
		.seed = spec->seed,
		.block = (uint32_t)c->after_block,
	};
}

/* One stream; true where there is no such cut, too. */
static bool open_stream(struct executor *x, struct stream **stream, int cut, bool forward,
			bool send)
{
	struct stream_spec spec;

	if (cut < 0 || cut >= x->spec.places->stages - 1)
		return true;
	spec = stream_spec(&x->spec, cut, forward, send);
	*stream = stream_open(x->spec.comm, &spec);
	return *stream != NULL;
}

static void log_stream(const struct executor *x, struct stream *stream, enum op_kind kind)
{
	if (stream && x->spec.trace)
		stream_log(stream, trace_log(x->spec.trace, kind));
}

struct executor *executor_open(const struct executor_spec *spec)
{
	struct executor *x = xzalloc(1, sizeof(*x));
	int s = spec->places->stage;

	x->spec = *spec;
	x->stage_index = s;
	x->n = spec->sequences * spec->tokens;
	x->edge = xzalloc((size_t)spec->edges, sizeof(*x->edge));
	if (s < spec->places->stages - 1)
		x->forward_bytes = (double)stream_tensor_bytes(spec->cuts[s].forward, false,
							       x->n, spec->channels);
	if (s > 0)
		x->backward_bytes = (double)stream_tensor_bytes(spec->cuts[s - 1].backward,
								true, x->n, spec->channels);
	if (!open_stream(x, &x->recv_forward, s - 1, true, false) ||
	    !open_stream(x, &x->send_forward, s, true, true) ||
	    !open_stream(x, &x->recv_backward, s, false, false) ||
	    !open_stream(x, &x->send_backward, s - 1, false, true)) {
		executor_close(x);
		return NULL;
	}
	log_stream(x, x->recv_forward, OP_RECV_FORWARD);
	log_stream(x, x->send_forward, OP_SEND_FORWARD);
	log_stream(x, x->recv_backward, OP_RECV_BACKWARD);
	log_stream(x, x->send_backward, OP_SEND_BACKWARD);
	return x;
}

void executor_close(struct executor *x)
{
	if (!x)
		return;
	stream_close(x->recv_forward);
	stream_close(x->send_forward);
	stream_close(x->recv_backward);
	stream_close(x->send_backward);
	free(x->edge);
	free(x);
}

/* -- transfers ----------------------------------------------------------------------------- */

static struct edge *edge_of(const struct executor *x, int micro)
{
	return &x->edge[micro % x->spec.edges];
}

static int post(struct executor *x, struct stream *stream, struct transfer *transfer,
		float *data, int micro, const struct transfer *after)
{
	transfer->data = data;
	transfer->step = x->step;
	transfer->micro = (uint32_t)micro;
	transfer->first_sample = (uint32_t)(micro * x->spec.sequences);
	transfer->after = after;
	transfer->logged = x->traced;
	return transfer_post(stream, transfer);
}

static void enter(const struct executor *x, int kind, const char *what, const char *peer,
		  int micro)
{
	watchdog_enter(x->spec.watchdog,
		       &(struct watchdog_section){kind, 1, what, peer, x->step, micro});
}

static void leave(const struct executor *x)
{
	watchdog_leave(x->spec.watchdog);
}

/* What a transfer is, for the watchdog. */
static void enter_wait(const struct executor *x, const struct transfer *transfer)
{
	const struct edge *edge = edge_of(x, (int)transfer->micro);
	int s = x->stage_index, m = (int)transfer->micro;

	if (transfer == &edge->recv_forward)
		enter(x, WATCH_ACTIVATIONS, "waiting for the activations of",
		      x->spec.cuts[s - 1].forward_name, m);
	else if (transfer == &edge->recv_backward)
		enter(x, WATCH_GRADIENTS, "waiting for the gradients of",
		      x->spec.cuts[s].backward_name, m);
	else if (transfer == &edge->send_forward)
		enter(x, WATCH_SEND, "sending the activations of", x->spec.cuts[s].forward_name,
		      m);
	else
		enter(x, WATCH_SEND, "sending the gradients of",
		      x->spec.cuts[s - 1].backward_name, m);
}

/* A send; without overlap it has left before anything else is computed. */
static int post_send(const struct pass *pass, struct stream *stream, struct transfer *transfer,
		     int micro)
{
	struct executor *x = pass->x;
	double start, end;
	int status;

	pass->times->sent_bytes +=
	    transfer == &edge_of(x, micro)->send_forward ? x->forward_bytes : x->backward_bytes;
	if (post(x, stream, transfer, stage_edge(x->spec.stage, micro), micro, NULL))
		return -1;
	if (x->spec.overlap)
		return 0;
	start = clock_s();
	enter_wait(x, transfer);
	status = stream_drain(stream);
	leave(x);
	end = clock_s();
	pass->times->idle_s += end - start;
	x->deadline_s = x->deadline_s > end ? x->deadline_s : end;
	return status;
}

/* The ops that only post receives. */
static int post_receive(struct executor *x, struct op op)
{
	struct edge *edge = edge_of(x, op.micro);

	if (op.kind == OP_RECV_FORWARD)
		return post(x, x->recv_forward, &edge->recv_forward,
			    stage_input(x->spec.stage, op.micro), op.micro,
			    &edge->send_backward);
	return post(x, x->recv_backward, &edge->recv_backward,
		    stage_edge(x->spec.stage, op.micro), op.micro, &edge->send_forward);
}

/* Waits for a transfer, books the time, and notes when it had ended. */
static int await(const struct pass *pass, struct transfer *transfer, double *ready_s)
{
	struct executor *x = pass->x;
	double start = clock_s();
	bool waits = !transfer_ended(transfer);
	int status;

	if (waits)
		enter_wait(x, transfer);
	status = transfer_wait(x->spec.comm, transfer);
	if (waits)
		leave(x);
	pass->times->idle_s += clock_s() - start;
	if (transfer->ended_s > *ready_s)
		*ready_s = transfer->ended_s;
	return status;
}

/* -- computing ----------------------------------------------------------------------------- */

/* How many segments cover n rows. */
static int covering(const struct segment *segment, int n)
{
	int count = 1;

	while (segment[count - 1].first + segment[count - 1].tokens < n)
		count++;
	return count;
}

static struct micro_batch micro_batch(const struct pass *pass, int micro)
{
	const struct step_data *data = pass->data;
	size_t first = (size_t)micro * (size_t)pass->x->n;
	const struct segment *segment =
		data->segment ? data->segment + (size_t)micro * (size_t)data->segments : NULL;

	return (struct micro_batch){
		.seed = pass->x->spec.seed,
		.step = data->step,
		.first_sample = (uint32_t)(micro * pass->x->spec.sequences),
		.ids = data->ids ? data->ids + first : NULL,
		.labels = data->labels ? data->labels + first : NULL,
		.loss_scale = data->loss_scale,
		.train = data->train,
		.segment = segment,
		.segments = segment ? covering(segment, pass->x->n) : 0,
	};
}

/*
 * Holds an op to its declared time. It starts when the one before it ended and its input and
 * its room were there, by declared times, not when the machine got round to it: so what one
 * sleep was too long, the next one is shorter.
 */
static void pace(const struct pass *pass, double ready_s, double declared_s)
{
	struct executor *x = pass->x;
	double now = clock_s();

	if (declared_s <= 0)
		return;
	pass->times->declared_s += declared_s;
	x->deadline_s = (x->deadline_s > ready_s ? x->deadline_s : ready_s) + declared_s;
	if (x->deadline_s > now)
		clock_sleep(x->deadline_s - now);
}

/* What was computed since start_s. */
static void book(const struct pass *pass, struct op op, double start_s, double *sum_s)
{
	double now = clock_s();

	*sum_s += now - start_s;
	if (pass->x->traced)
		trace_add(pass->x->spec.trace, op, pass->x->step, start_s, now);
}

static int run_forward(const struct pass *pass, int micro)
{
	struct executor *x = pass->x;
	struct edge *edge = edge_of(x, micro);
	struct micro_batch batch = micro_batch(pass, micro);
	double loss = 0, start, ready_s = 0;

	if (await(pass, &edge->recv_forward, &ready_s) ||
	    await(pass, &edge->send_forward, &ready_s) ||
	    await(pass, &edge->send_backward, &ready_s))
		return -1;
	start = clock_s();
	enter(x, WATCH_COMPUTE, "computing the forward of", NULL, micro);
	stage_forward(x->spec.stage, micro, &batch, &loss);
	pace(pass, ready_s, pass->data->train ? x->spec.pace_forward_s : x->spec.pace_valid_s);
	leave(x);
	book(pass, (struct op){OP_FORWARD, micro}, start, &pass->times->forward_s);
	*pass->loss += loss;
	if (pass->data->observe)
		pass->data->observe(pass->data->observe_arg, micro);
	return stage_sound(x->spec.stage) ? 0 : -1;
}

static int run_backward(const struct pass *pass, int micro)
{
	struct executor *x = pass->x;
	struct micro_batch batch = micro_batch(pass, micro);
	double start, ready_s = 0;

	if (await(pass, &edge_of(x, micro)->recv_backward, &ready_s))
		return -1;
	start = clock_s();
	enter(x, WATCH_COMPUTE, "computing the backward of", NULL, micro);
	stage_backward(x->spec.stage, micro, &batch);
	pace(pass, ready_s, x->spec.pace_backward_s);
	leave(x);
	book(pass, (struct op){OP_BACKWARD, micro}, start, &pass->times->backward_s);
	return stage_sound(x->spec.stage) ? 0 : -1;
}

static int run_op(const struct pass *pass, struct op op)
{
	struct executor *x = pass->x;

	switch (op.kind) {
	case OP_RECV_FORWARD:
	case OP_RECV_BACKWARD:
		return post_receive(x, op);
	case OP_FORWARD:
		return run_forward(pass, op.micro);
	case OP_SEND_FORWARD:
		return post_send(pass, x->send_forward, &edge_of(x, op.micro)->send_forward,
				 op.micro);
	case OP_BACKWARD:
		return run_backward(pass, op.micro);
	case OP_SEND_BACKWARD:
		return post_send(pass, x->send_backward, &edge_of(x, op.micro)->send_backward,
				 op.micro);
	case OP_UPDATE:
		return 0;
	}
	return error(EXIT_BUG, "unknown op %d", (int)op.kind);
}

/* -- a pass -------------------------------------------------------------------------------- */

int executor_begin(struct executor *x, const struct schedule *schedule, uint32_t step)
{
	int s = x->stage_index;
	const struct op *op = schedule->op[s];

	if (schedule->room[s] > x->spec.slots || schedule->edge[s] > x->spec.edges)
		return error(EXIT_BUG,
			     "schedule '%s' needs %d slots and %d edges, the stage has %d "
			     "and %d",
			     schedule->name, schedule->room[s], schedule->edge[s],
			     x->spec.slots, x->spec.edges);
	x->schedule = schedule;
	x->traced = x->spec.trace && schedule->op[s][schedule->count[s] - 1].kind == OP_UPDATE;
	x->step = step;
	x->next = 0;
	for (; x->next < schedule->count[s] && op[x->next].kind == OP_RECV_FORWARD; x->next++)
		if (post_receive(x, op[x->next]))
			return -1;
	return 0;
}

static void book_stream(struct stream *stream, struct step_times *times)
{
	if (stream)
		times->send_s += stream_sent_s(stream);
}

int executor_run(struct executor *x, const struct step_data *data, double *loss,
		 struct step_times *times)
{
	struct pass pass = {x, data, loss, times};
	const struct schedule *schedule = x->schedule;
	int s = x->stage_index;
	double now = clock_s();

	x->deadline_s = x->deadline_s > now - PACE_CARRY_S ? x->deadline_s : now;
	for (; x->next < schedule->count[s]; x->next++)
		if (run_op(&pass, schedule->op[s][x->next]))
			return -1;
	book_stream(x->send_forward, times);
	book_stream(x->send_backward, times);
	times->peak_bytes = memory_peak_bytes();
	return 0;
}

int executor_drain(struct executor *x)
{
	if ((x->send_forward && stream_drain(x->send_forward)) ||
	    (x->send_backward && stream_drain(x->send_backward)))
		return -1;
	return 0;
}
