/*
 * The simulator: what a step takes, from a schedule and costs.
 *
 * Every stage and every direction of every cut is a serial resource whose next job is known (by
 * the schedule, by micro-batch order). Again and again, of all next jobs that have what they
 * need the one that starts earliest is fixed. Whatever is fixed later starts no earlier, so
 * nothing that is fixed later can change it. That holds for shared interfaces too: of the
 * transfers that wait for one, the first that came goes first (at the same instant: forwards
 * before backwards, lower cuts before higher ones).
 *
 * Posting takes no time: a send or receive is posted when the computation before it in the
 * stage's ops has ended. A message occupies its wire from its start, leaves it, and arrives
 * after the latency; the sender's buffer is free when it has left.
 */
#include "pipeline/order.h"

#include <math.h>
#include <string.h>

/* -- the timeline -------------------------------------------------------------------------- */

static double *times(struct arena *arena, size_t count, double value)
{
	double *s = arena_take(arena, count * sizeof(*s));

	for (size_t i = 0; i < count; i++)
		s[i] = value;
	return s;
}

static void open_wire(struct timeline *t, struct wire *wire, int to, double awaited_s)
{
	size_t count = (size_t)t->micro_batches;

	wire->to = to;
	wire->nic[0] = wire->nic[1] = -1;
	wire->sent = times(&t->arena, count, INFINITY);
	wire->awaited = times(&t->arena, count, awaited_s);
	wire->began = times(&t->arena, count, INFINITY);
	wire->left = times(&t->arena, count, INFINITY);
	wire->arrived = times(&t->arena, count, INFINITY);
}

static void open_wires(struct timeline *t, double awaited_s)
{
	const struct costs *c = t->costs;

	t->forward = arena_take(&t->arena, (size_t)t->stages * sizeof(*t->forward));
	t->backward = arena_take(&t->arena, (size_t)t->stages * sizeof(*t->backward));
	for (int cut = 0; cut < t->stages - 1; cut++) {
		struct wire *f = &t->forward[cut], *b = &t->backward[cut];

		open_wire(t, f, cut + 1, awaited_s);
		open_wire(t, b, cut, awaited_s);
		f->name = 4 * (uint32_t)cut + 2;
		b->name = 4 * (uint32_t)cut + 3;
		f->occupied_s = c->link_forward_s[cut];
		b->occupied_s = c->link_backward_s[cut];
		f->latency_s = c->latency_forward_s[cut];
		b->latency_s = c->latency_backward_s[cut];
		if (c->nic_forward)
			memcpy(f->nic, c->nic_forward[cut], sizeof(f->nic));
		if (c->nic_backward)
			memcpy(b->nic, c->nic_backward[cut], sizeof(b->nic));
	}
}

void timeline_open(struct timeline *t, const struct costs *costs, int micro_batches,
		   double awaited_s)
{
	size_t all = (size_t)costs->stages * (size_t)micro_batches;

	*t = (struct timeline){.costs = costs, .stages = costs->stages,
			       .micro_batches = micro_batches, .trains = true};
	open_wires(t, awaited_s);
	t->nic_free_s = times(&t->arena, (size_t)costs->nics, 0);
	t->free_s = times(&t->arena, (size_t)t->stages, 0);
	t->forward_start = times(&t->arena, all, INFINITY);
	t->forward_end = times(&t->arena, all, INFINITY);
	t->backward_start = times(&t->arena, all, INFINITY);
	t->backward_end = times(&t->arena, all, INFINITY);
}

void timeline_release(struct timeline *t)
{
	arena_release(&t->arena);
}

static size_t place(const struct timeline *t, int stage, int micro)
{
	return (size_t)stage * (size_t)t->micro_batches + (size_t)micro;
}

/* When the micro-batch that had this one's edge buffer has left it. */
static double buffer_free(const struct timeline *t, int stage, int micro)
{
	int before = t->edge ? micro - t->edge[stage] : -1;

	if (before < 0)
		return 0;
	if (t->trains)
		return stage > 0 ? t->backward[stage - 1].left[before]
				 : t->backward_end[place(t, stage, before)];
	return stage < t->stages - 1 ? t->forward[stage].left[before]
				     : t->forward_end[place(t, stage, before)];
}

double timeline_ready(const struct timeline *t, int stage, struct op op)
{
	if (op.kind == OP_FORWARD)
		return fmax(stage > 0 ? t->forward[stage - 1].arrived[op.micro] : 0,
			    buffer_free(t, stage, op.micro));
	if (op.kind == OP_BACKWARD)
		return stage < t->stages - 1 ? t->backward[stage].arrived[op.micro]
					     : t->forward_end[place(t, stage, op.micro)];
	return 0;
}

/* -- play ---------------------------------------------------------------------------------- */

/* The earliest of the next jobs: of a wire, or of a stage. */
struct job {
	double start_s, ready_s;
	struct wire *wire;		/* null: of a stage */
	int stage;
	struct op op;
};

static void consider_wire(const struct timeline *t, struct wire *wire, bool forward,
			  struct job *best)
{
	struct job job = {.wire = wire};
	int m = wire->next;

	if (m == t->micro_batches || isinf(wire->sent[m]))
		return;
	job.ready_s = fmax(fmax(wire->sent[m], wire->awaited[m]), wire->free_s);
	if (forward)
		job.ready_s = fmax(job.ready_s, buffer_free(t, wire->to, m));
	job.start_s = job.ready_s;
	for (int i = 0; i < 2; i++)
		if (wire->nic[i] >= 0)
			job.start_s = fmax(job.start_s, t->nic_free_s[wire->nic[i]]);
	if (job.start_s < best->start_s ||
	    (job.start_s == best->start_s && job.ready_s < best->ready_s))
		*best = job;
}

static void consider_stage(const struct timeline *t, const struct pilot *pilot, int stage,
			   struct job *best)
{
	struct job job = {.stage = stage};

	job.op = pilot->next(pilot, t, stage, &job.start_s);
	if (job.start_s + pilot->patience_s < best->start_s)
		*best = job;
}

/* How much longer than planned something takes: exp(N(-v / 2, v)), by Box and Muller's normal
 * numbers. */
static double stretch(const struct costs *c, uint32_t who, int micro)
{
	double v = log1p(c->jitter * c->jitter), normal;
	struct philox at;

	if (c->jitter <= 0)
		return 1;
	at = philox((struct philox){{who, (uint32_t)micro, 0, 0}}, c->jitter_seed, 0x6a177e5u);
	normal = sqrt(-2 * log(1 - (double)philox_unit(at.word[0]))) *
		 cos(2 * M_PI * (double)philox_unit(at.word[1]));
	return exp(sqrt(v) * normal - v / 2);
}

static void pass(struct timeline *t, const struct job *job)
{
	struct wire *wire = job->wire;

	wire->began[wire->next] = job->start_s;
	wire->free_s =
	    job->start_s + wire->occupied_s * stretch(t->costs, wire->name, wire->next);
	wire->left[wire->next] = wire->free_s;
	wire->arrived[wire->next] = wire->free_s + wire->latency_s;
	wire->next++;
	for (int i = 0; i < 2; i++)
		if (wire->nic[i] >= 0)
			t->nic_free_s[wire->nic[i]] = wire->free_s;
}

static void compute(struct timeline *t, const struct job *job)
{
	const struct costs *c = t->costs;
	int stage = job->stage;
	size_t at = place(t, stage, job->op.micro);
	double *end = &t->free_s[stage];

	switch (job->op.kind) {
	case OP_FORWARD:
		*end = job->start_s +
		       c->forward_s[stage] * stretch(c, 4 * (uint32_t)stage, job->op.micro);
		t->forward_start[at] = job->start_s;
		t->forward_end[at] = *end;
		break;
	case OP_BACKWARD:
		*end = job->start_s + c->backward_s[stage] *
					  stretch(c, 4 * (uint32_t)stage + 1, job->op.micro);
		t->backward_start[at] = job->start_s;
		t->backward_end[at] = *end;
		break;
	default:
		*end = job->start_s + (c->update_s ? c->update_s[stage] : 0);
	}
}

void timeline_play(struct timeline *t, const struct pilot *pilot)
{
	for (;;) {
		struct job job = {.start_s = INFINITY};

		for (int cut = 0; cut < t->stages - 1; cut++)
			consider_wire(t, &t->forward[cut], true, &job);
		for (int cut = 0; cut < t->stages - 1; cut++)
			consider_wire(t, &t->backward[cut], false, &job);
		for (int stage = 0; stage < t->stages; stage++)
			consider_stage(t, pilot, stage, &job);
		if (isinf(job.start_s))
			return;
		if (job.wire) {
			pass(t, &job);
			continue;
		}
		compute(t, &job);
		pilot->done(pilot, t, job.stage, job.op);
	}
}

/* -- a schedule on it ---------------------------------------------------------------------- */

struct reading {
	const struct schedule *schedule;
	int *next;			/* [stages]: op */
};

/* Posts the transfers up to the next computation. */
static void post(const struct reading *r, struct timeline *t, int stage)
{
	for (; r->next[stage] < r->schedule->count[stage]; r->next[stage]++) {
		struct op op = r->schedule->op[stage][r->next[stage]];
		double now = t->free_s[stage];

		switch (op.kind) {
		case OP_RECV_FORWARD: t->forward[stage - 1].awaited[op.micro] = now; break;
		case OP_SEND_FORWARD: t->forward[stage].sent[op.micro] = now; break;
		case OP_RECV_BACKWARD: t->backward[stage].awaited[op.micro] = now; break;
		case OP_SEND_BACKWARD: t->backward[stage - 1].sent[op.micro] = now; break;
		default: return;
		}
	}
}

static struct op reading_next(const struct pilot *pilot, const struct timeline *t, int stage,
			      double *start_s)
{
	const struct reading *r = pilot->state;
	struct op op = {OP_UPDATE, 0};

	*start_s = INFINITY;
	if (r->next[stage] == r->schedule->count[stage])
		return op;
	op = r->schedule->op[stage][r->next[stage]];
	*start_s = fmax(t->free_s[stage], timeline_ready(t, stage, op));
	return op;
}

static void reading_done(const struct pilot *pilot, struct timeline *t, int stage, struct op op)
{
	struct reading *r = pilot->state;

	(void)op;
	r->next[stage]++;
	post(r, t, stage);
}

static bool trains(const struct schedule *schedule)
{
	for (int i = 0; i < schedule->count[0]; i++)
		if (schedule->op[0][i].kind == OP_BACKWARD)
			return true;
	return false;
}

static void play_schedule(struct timeline *t, const struct schedule *schedule)
{
	struct reading reading = {schedule, NULL};
	struct pilot pilot = {&reading, reading_next, reading_done, 0};

	t->trains = trains(schedule);
	t->edge = schedule->edge;
	reading.next = arena_take(&t->arena, (size_t)t->stages * sizeof(int));
	for (int stage = 0; stage < t->stages; stage++)
		post(&reading, t, stage);
	timeline_play(t, &pilot);
}

static double *kept(struct arena *arena, const double *s, size_t count)
{
	return memcpy(arena_take(arena, count * sizeof(*s)), s, count * sizeof(*s));
}

/* When the messages of every cut started. */
static double *starts(struct arena *arena, const struct timeline *t, const struct wire *wire)
{
	double *s =
	    arena_take(arena, (size_t)t->stages * (size_t)t->micro_batches * sizeof(*s));

	for (int cut = 0; cut < t->stages - 1; cut++)
		for (int m = 0; m < t->micro_batches; m++)
			s[place(t, cut, m)] = wire[cut].began[m];
	return s;
}

static struct simulation *summary(struct arena *arena, const struct timeline *t)
{
	const struct costs *c = t->costs;
	struct simulation *sim = arena_take(arena, sizeof(*sim));
	size_t stages = (size_t)t->stages, all = stages * (size_t)t->micro_batches;
	double count = t->micro_batches;

	sim->busy_s = times(arena, stages, 0);
	sim->end_s = kept(arena, t->free_s, stages);
	sim->forward_start_s = kept(arena, t->forward_start, all);
	sim->backward_start_s = kept(arena, t->backward_start, all);
	sim->link_forward_busy_s = times(arena, stages, 0);
	sim->link_backward_busy_s = times(arena, stages, 0);
	sim->link_forward_start_s = starts(arena, t, t->forward);
	sim->link_backward_start_s = starts(arena, t, t->backward);
	for (int i = 0; i < t->stages; i++) {
		sim->step_s = fmax(sim->step_s, sim->end_s[i]);
		sim->busy_s[i] = count * c->forward_s[i];
		if (t->trains)
			sim->busy_s[i] += count * c->backward_s[i] +
					  (c->update_s ? c->update_s[i] : 0);
		if (i == t->stages - 1)
			break;
		sim->link_forward_busy_s[i] = count * c->link_forward_s[i];
		sim->link_backward_busy_s[i] = t->trains ? count * c->link_backward_s[i] : 0;
	}
	return sim;
}

struct simulation *simulate(struct arena *arena, const struct schedule *schedule,
			    const struct costs *costs)
{
	struct timeline timeline;
	struct simulation *simulation;
	char why[200];

	if (costs->stages != schedule->stages)
		return error_null(EXIT_BUG, "costs of %d stages for a schedule of %d",
				  costs->stages, schedule->stages);
	if (schedule_check(schedule, why, sizeof(why)) < 0)
		return error_null(EXIT_BUG, "cannot simulate schedule \"%s\": %s",
				  schedule->name, why);
	timeline_open(&timeline, costs, schedule->micro_batches, INFINITY);
	play_schedule(&timeline, schedule);
	simulation = summary(arena, &timeline);
	timeline_release(&timeline);
	return simulation;
}
