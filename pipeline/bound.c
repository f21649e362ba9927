/*
 * A lower bound of a step: what no order of work can avoid.
 *
 * Let down(k) be the way of a micro-batch from the start to stage k (forwards and forward links
 * before it), home(k) the way of a gradient from stage k to the end of the step (backward links
 * and backwards before it), around(k) the way from the end of a forward of stage k to the start
 * of its backward. Of M micro-batches,
 *
 *     stage k          idles during down(k), until the first has come; then it works M (f + b),
 *                      or M f, and the one that it forwards last goes around(k) and takes b,
 *                      or f, and the one that it forwards first goes around(k), before which
 *                      there is nothing to go backward with, and then M b;
 *                      what it does last is a backward (a forward would have its own backward
 *                      to come), and that gradient goes home(k)
 *     forward link i   gets nothing before down(i) + f; then it is occupied M l_f; the last to
 *                      leave it goes on to the end of the pipeline and back
 *     backward link i  gets nothing before the first has gone down all the way and come back to
 *                      it; then it is occupied M l_b; the last to leave it goes home
 *     interface        gets nothing before the first of its directions can; then it is occupied
 *                      by the messages of all of them; whichever is last has the rest of its
 *                      way to go
 *
 * In none of them the order of micro-batches matters, nor how many are in flight.
 */
#include "pipeline/pipeline.h"

#include <math.h>

static double down(const struct costs *c, int stage)
{
	double s = 0;

	for (int j = 0; j < stage; j++)
		s += c->forward_s[j] + c->link_forward_s[j] + c->latency_forward_s[j];
	return s;
}

static double home(const struct costs *c, int stage)
{
	double s = 0;

	for (int j = 0; j < stage; j++)
		s += c->backward_s[j] + c->link_backward_s[j] + c->latency_backward_s[j];
	return s;
}

/* Through cut `stage` to the last stage and back. */
static double around(const struct costs *c, int stage)
{
	double s = 0;

	for (int j = stage; j < c->stages - 1; j++)
		s += c->link_forward_s[j] + c->latency_forward_s[j] + c->forward_s[j + 1] +
		     c->backward_s[j + 1] + c->link_backward_s[j] + c->latency_backward_s[j];
	return s;
}

static double stage_bound(const struct costs *c, int k, double count)
{
	double f = c->forward_s[k], b = c->backward_s[k];

	double waits = around(c, k) + fmax(count * f + b, f + count * b);

	return down(c, k) + fmax(count * (f + b), waits) + home(c, k);
}

/* One message on a link is in the way around already. */
static double forward_link_bound(const struct costs *c, int i, double count)
{
	return down(c, i) + c->forward_s[i] + (count - 1) * c->link_forward_s[i] +
	       around(c, i) + c->backward_s[i] + home(c, i);
}

static double backward_link_bound(const struct costs *c, int i, double count)
{
	return down(c, i) + c->forward_s[i] + around(c, i) +
	       (count - 1) * c->link_backward_s[i] + c->backward_s[i] + home(c, i);
}

static bool passes(const int (*nics)[2], int cut, int nic)
{
	return nics && (nics[cut][0] == nic || nics[cut][1] == nic);
}

static double interface_bound(const struct costs *c, int nic, double count)
{
	double before = INFINITY, after = INFINITY, occupied = 0;

	for (int i = 0; i < c->stages - 1; i++) {
		double to = down(c, i) + c->forward_s[i], back = c->backward_s[i] + home(c, i);

		if (passes(c->nic_forward, i, nic)) {
			occupied += c->link_forward_s[i];
			before = fmin(before, to);
			after = fmin(after, around(c, i) - c->link_forward_s[i] + back);
		}
		if (passes(c->nic_backward, i, nic)) {
			occupied += c->link_backward_s[i];
			before = fmin(before, to + around(c, i) - c->link_backward_s[i] -
						      c->latency_backward_s[i]);
			after = fmin(after, c->latency_backward_s[i] + back);
		}
	}
	return occupied > 0 ? before + count * occupied + after : 0;
}

double step_bound(const struct costs *costs, int micro_batches, const char **binding,
		  int *index)
{
	const struct resource {
		const char *name;
		double (*bound)(const struct costs *costs, int index, double count);
		int count;
	} resources[] = {
		{"stage", stage_bound, costs->stages},
		{"forward link", forward_link_bound, costs->stages - 1},
		{"backward link", backward_link_bound, costs->stages - 1},
		{"interface", interface_bound, costs->nics},
	};
	const char *name = resources[0].name;
	double most = 0, named = 0;
	int which = 0;

	for (size_t r = 0; r < sizeof(resources) / sizeof(*resources); r++)
		for (int i = 0; i < resources[r].count; i++) {
			double s = resources[r].bound(costs, i, micro_batches);

			most = fmax(most, s);
			/* Of equals the first is named, whichever rounding lifts. */
			if (s <= named * (1 + 1e-12))
				continue;
			named = s;
			name = resources[r].name;
			which = i;
		}
	if (binding)
		*binding = name;
	if (index)
		*index = which;
	return most;
}
