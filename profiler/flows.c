/*
 * flows.c - what links carry while all flows of a plan pass at once. A receiver measures the
 * time between the end of its first frame and that of its last one, so that no clock but its
 * own is asked.
 */
#include "profiler/profiler.h"

#include <math.h>
#include <stdlib.h>

enum { TAG_FLOWS = 52, FRAMES = 16 };
#define FRAME_MOST (1 << 20)
#define LOOK_S 0.0005		/* between two looks at what has come */
#define SHORT_S 0.005		/* what is too short to tell a rate by */

struct passing {
	const struct flow *flow;
	size_t frame;			/* bytes */
	char *data;			/* FRAMES frames; one where it is sent */
	struct comm_request request[FRAMES];
	int done;
	double first_s, last_s;		/* when frames had come */
};

static size_t frame_of(const struct flow *flow, double seconds)
{
	double bytes = flow->bytes_s * seconds / FRAMES;

	return (size_t)fmin(fmax(bytes, 64), FRAME_MOST);
}

static int post(struct comm *comm, struct passing *p, bool sends)
{
	for (int i = 0; i < FRAMES && p->flow->sends == sends; i++)
		if (sends ? comm_send(comm, p->flow->peer, TAG_FLOWS, p->data, p->frame,
				      &p->request[i])
			  : comm_recv(comm, p->flow->peer, TAG_FLOWS,
				      p->data + (size_t)i * p->frame, p->frame, &p->request[i]))
			return -1;
	return 0;
}

/* Notes what has ended; 1 when all has, -1 after an error. */
static int look(struct comm *comm, struct passing *p)
{
	while (p->done < FRAMES) {
		int status = comm_test(comm, &p->request[p->done]);

		if (status <= 0)
			return status;
		p->last_s = clock_s();
		if (p->done++ == 0)
			p->first_s = p->last_s;
	}
	return 1;
}

static int pass_all(struct comm *comm, struct passing *p, int count)
{
	bool all = false;
	int status = 0;

	for (int i = 0; i < count; i++)
		status |= post(comm, &p[i], false);
	if (status || comm_barrier(comm))
		return -1;
	for (int i = 0; i < count; i++)
		status |= post(comm, &p[i], true);
	while (!status && !all) {
		all = true;
		for (int i = 0; i < count; i++) {
			int ended = look(comm, &p[i]);

			all = all && ended > 0;
			status |= ended < 0;
		}
		if (!all)
			clock_sleep(LOOK_S);
	}
	return status ? -1 : 0;
}

/* Nobody may write into buffers that are about to be freed. */
static void give_up(struct comm *comm, struct passing *p)
{
	for (int i = 0; i < FRAMES && !p->flow->sends; i++)
		comm->ops->cancel(comm, &p->request[i]);
}

int flows_measure(struct comm *comm, struct flow *flow, int count, double seconds)
{
	struct passing *p = xzalloc((size_t)count + 1, sizeof *p);
	int status;

	for (int i = 0; i < count; i++) {
		p[i].flow = &flow[i];
		p[i].frame = frame_of(&flow[i], seconds);
		p[i].data = xzalloc(flow[i].sends ? 1 : FRAMES, p[i].frame);
	}
	status = pass_all(comm, p, count);
	for (int i = 0; i < count; i++) {
		double took = p[i].last_s - p[i].first_s;

		if (status)
			give_up(comm, &p[i]);
		flow[i].reached_bytes_s =
		    took > SHORT_S ? (FRAMES - 1) * (double)p[i].frame / took : 0;
		free(p[i].data);
	}
	free(p);
	return status;
}
