/*
 * periods.c - between which periods a plan's own must lie, so that who searches by period knows
 * where to begin and to end.
 */
#include "partition/lattice.h"

#include <math.h>

enum { BISECTIONS = 60 };

/* The shortest period at which capacities suffice at all. */
static double shortest_period(struct lattice *l, double high_s)
{
	double low_s = 0;

	for (int i = 0; i < BISECTIONS; i++) {
		double mid_s = (low_s + high_s) / 2;

		if (isinf(lattice_least(l, mid_s, mid_s)))
			low_s = mid_s;
		else
			high_s = mid_s;
	}
	return low_s;
}

/* One micro-batch after the other, on the slowest stages and links: no period is longer. */
static double endless_period(const struct instance *in)
{
	double stage_most_s = 0, way_most_s = 0, cut = 0;

	for (int d = 0; d < in->nodes; d++)
		stage_most_s = fmax(stage_most_s, stage_s(in, d, 0, in->blocks, true));
	for (int i = 0; i < in->nodes * in->nodes; i++) {
		double way_s = in->link_forward_s[i] + in->link_backward_s[i] +
			       in->latency_forward_s[i] + in->latency_backward_s[i];

		if (i / in->nodes != i % in->nodes && !isinf(way_s))
			way_most_s = fmax(way_most_s, way_s);
	}
	for (int p = 1; p <= in->blocks; p++)
		cut = fmax(cut, fmax(in->cut_forward[p], in->cut_backward[p]));
	return in->nodes * (stage_most_s + way_most_s * fmax(cut, 1));
}

void lattice_periods(struct lattice *l, double best_s, double *low_s, double *high_s)
{
	const struct instance *in = lattice_instance(l);
	int times = in->micro_batches - 1;

	*high_s = endless_period(in);
	if (times > 0 && !isinf(best_s))
		*high_s = fmin(*high_s, (best_s - lattice_least(l, *high_s, *high_s)) / times);
	*low_s = fmax(shortest_period(l, *high_s), lattice_last(l));
	/* No shorter than a rounding of the other, where blocks cost nothing: whoever steps
	 * through periods must arrive. */
	*low_s = fmax(*low_s, *high_s * 1e-9);
}
