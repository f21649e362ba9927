/* What a step's end decides, on its way through the pipeline; see internal.h. */
#include <stdlib.h>

#include "pipeline/internal.h"

void verdicts_open(struct verdicts *v, const struct training *training)
{
	*v = (struct verdicts){.training = training};
	v->send_down = xzalloc((size_t)training->comm->size, sizeof(*v->send_down));
}

static int rank_of(const struct verdicts *v, int stage)
{
	return v->training->places.rank_of_stage[stage];
}

static bool has_stage(const struct verdicts *v, int rank)
{
	for (int s = 0; s < v->training->places.stages; s++)
		if (rank_of(v, s) == rank)
			return true;
	return false;
}

int verdicts_expect(struct verdicts *v)
{
	const struct places *p = &v->training->places;
	struct comm *comm = v->training->comm;

	if (p->stage >= 0 && p->stage < p->stages - 1 &&
	    comm_recv(comm, rank_of(v, p->stage + 1), TAG_NORM, &v->up, sizeof(v->up),
		      &v->recv_up))
		return -1;
	if (p->stage == 0)
		return 0;
	return comm_recv(comm, rank_of(v, p->stage > 0 ? p->stage - 1 : 0), TAG_VERDICT,
			 &v->down, sizeof(v->down), &v->recv_down);
}

int verdicts_add(struct verdicts *v, double loss, long long trained)
{
	const struct training *t = v->training;
	const struct places *p = &t->places;
	struct verdict sum = {0, 0, 0};

	if (p->stage < 0)
		return 0;
	if (p->stage == p->stages - 1)
		sum = (struct verdict){0, trained > 0 ? loss / (double)trained : 0,
				       trained > 0 ? 0 : EXIT_DATA};
	else if (comm_wait(t->comm, &v->recv_up))
		return -1;
	else
		sum = v->up;
	stage_fold_norm(t->stage, &sum.squares);
	if (comm_wait(t->comm, &v->send_up))
		return -1;
	v->out_up = sum;
	if (p->stage > 0)
		return comm_send(t->comm, rank_of(v, p->stage - 1), TAG_NORM, &v->out_up,
				 sizeof(sum), &v->send_up);
	v->down = sum;
	return 0;
}

/* The stage after this one; from the first stage also the ranks without one. */
static bool is_next(const struct verdicts *v, int rank)
{
	const struct places *p = &v->training->places;

	if (p->stage >= 0 && p->stage < p->stages - 1 && rank == rank_of(v, p->stage + 1))
		return true;
	return p->stage == 0 && !has_stage(v, rank);
}

static int pass_on(struct verdicts *v)
{
	struct comm *comm = v->training->comm;

	for (int rank = 0; rank < comm->size; rank++)
		if (comm_wait(comm, &v->send_down[rank]))
			return -1;
	v->out_down = v->down;
	for (int rank = 0; rank < comm->size; rank++)
		if (is_next(v, rank) && comm_send(comm, rank, TAG_VERDICT, &v->out_down,
						  sizeof(v->out_down), &v->send_down[rank]))
			return -1;
	return 0;
}

int verdicts_wait(struct verdicts *v, struct verdict *verdict)
{
	if (comm_wait(v->training->comm, &v->recv_down) || pass_on(v))
		return -1;
	*verdict = v->down;
	return 0;
}

int verdicts_settle(struct verdicts *v)
{
	struct comm *comm = v->training->comm;
	int status = comm_wait(comm, &v->send_up);

	for (int rank = 0; rank < comm->size && !status; rank++)
		status = comm_wait(comm, &v->send_down[rank]);
	return status;
}

void verdicts_close(struct verdicts *v)
{
	free(v->send_down);
}
