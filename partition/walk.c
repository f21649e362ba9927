/*
 * walk.c - the cheapest walk that holds every block once: what a plan costs at least. With a
 * price d on every node,
 *
 *     sum of the walk's stages and ways + sum over its visits of price
 *             - sum over all nodes of price
 *
 * is no more than what a plan costs, whatever the prices (none below 0), since a plan visits no
 * node twice; and every plan is a walk. Backwards over blocks: from begin_s of all nodes at a
 * block follows after_s of all nodes before the cut there, one sum for every pair of nodes.
 * Forwards likewise, so that it is known of each node and block what a walk costs that has a
 * stage there.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "partition/walk.h"

enum { WALKS_MOST = 32 };
#define NEARLY 0.1
#define NOISE 1e-9			/* what rounding may add to a limit */

void walk_open(struct walk *w, const struct instance *in)
{
	size_t n = (size_t)in->nodes, row = (size_t)in->blocks + 1;

	*w = (struct walk){.in = in};
	w->node = xzalloc(n, sizeof(int));
	w->price = xzalloc(n, sizeof(double));
	w->visits = xzalloc(n, sizeof(double));
	w->dead = xzalloc(n * row, 1);
	w->sum = xzalloc(n * row, sizeof(double));
	w->room_end = xzalloc(n * row, sizeof(int16_t));
	w->last_room = xzalloc(n * row, sizeof(bool));
	w->way_from = xzalloc(n * n, sizeof(double));
	w->way_to = xzalloc(n * n, sizeof(double));
	w->begin_s = xzalloc(n * row, sizeof(double));
	w->after_s = xzalloc(n * row, sizeof(double));
	w->reach_s = xzalloc(n * row, sizeof(double));
	w->leave_s = xzalloc(n * row, sizeof(double));
	w->end = xzalloc(n * row, sizeof(int16_t));
	for (int d = 0; d < in->nodes; d++)
		for (int p = 0; p <= in->blocks; p++) {
			size_t at = (size_t)d * row + (size_t)p;
			int q = p > 0 && w->room_end[at - 1] > p ? w->room_end[at - 1] : p;

			while (q < in->blocks && stage_room(in, d, p, q + 1, false) > 0)
				q++;
			w->room_end[at] = (int16_t)q;
			w->last_room[at] = stage_room(in, d, p, in->blocks, true) > 0;
			w->sum[at] = in->forward_s[at] + in->backward_s[at];
		}
}

void walk_close(struct walk *w)
{
	void *part[] = {w->node,     w->price,	   w->visits,	w->dead,   w->sum,
			w->room_end, w->last_room, w->way_from, w->way_to, w->begin_s,
			w->after_s,  w->reach_s,   w->leave_s,	w->end};

	for (size_t i = 0; i < sizeof(part) / sizeof(*part); i++)
		free(part[i]);
}

void walk_limit(struct walk *w, double stage_most_s, double link_most_s, const double *price,
		const uint8_t *dead)
{
	size_t n = (size_t)w->in->nodes, row = (size_t)w->in->blocks + 1, at = 0;

	w->stage_most_s = stage_most_s * (1 + NOISE);
	w->link_most_s = link_most_s * (1 + NOISE);
	w->cut_forward = w->cut_backward = -1;
	w->count = 0;
	for (size_t d = 0; d < n; d++) {
		bool any = false;

		for (size_t p = 0; p < row && !any; p++)
			any = !dead[p * n + d];
		if (!any)
			continue;
		w->price[w->count] = price[d];
		w->node[w->count++] = (int)d;
	}
	for (size_t p = 0; p < row; p++)
		for (int i = 0; i < w->count; i++)
			w->dead[at++] = dead[p * n + (size_t)w->node[i]];
}

/* The ways over the cut before block p. */
static void fill_ways(struct walk *w, int p)
{
	const struct instance *in = w->in;
	size_t n = (size_t)w->count;

	if (in->cut_forward[p] == w->cut_forward && in->cut_backward[p] == w->cut_backward)
		return;
	w->cut_forward = in->cut_forward[p];
	w->cut_backward = in->cut_backward[p];
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < n; j++) {
			int from = w->node[i], to = w->node[j];
			bool may = i != j && cut_longest_s(in, from, to, p) <= w->link_most_s;

			w->way_from[i * n + j] = w->way_to[j * n + i] =
			    may ? cut_way_s(in, from, to, p) : INFINITY;
		}
}

/* least[i] = min over j of value[j] + way[j][i], of values up to most. */
static void extend(struct walk *w, const double *value, const double *way, double most,
		   double *least)
{
	size_t n = (size_t)w->count, row[4] = {0}, rows = 0;

	for (size_t i = 0; i < n; i++)
		least[i] = INFINITY;
	for (size_t j = 0; j <= n; j++) {
		if (j < n && value[j] <= most)
			row[rows++] = j;
		if (rows == 0 || (rows < 4 && j < n))
			continue;
		while (rows < 4)
			row[rows++] = row[0];

		const double *a = way + row[0] * n, *b = way + row[1] * n,
			     *c = way + row[2] * n, *d = way + row[3] * n;
		double va = value[row[0]], vb = value[row[1]], vc = value[row[2]],
		       vd = value[row[3]];

		for (size_t i = 0; i < n; i++) {
			double ab = va + a[i] < vb + b[i] ? va + a[i] : vb + b[i];
			double cd = vc + c[i] < vd + d[i] ? vc + c[i] : vd + d[i];
			double of4 = ab < cd ? ab : cd;

			least[i] = of4 < least[i] ? of4 : least[i];
		}
		rows = 0;
		w->work += 4 * n;
	}
}

static double prices(const struct walk *w)
{
	double sum = 0;

	for (int i = 0; i < w->count; i++)
		sum += w->price[i];
	return sum;
}

/* -- backwards ----------------------------------------------------------------------------- */

/* The lesser of a rest from block p on, and the last stage alone there. */
static double or_last(struct walk *w, int i, int p, double least)
{
	const struct instance *in = w->in;
	int d = w->node[i], L = in->blocks;
	double tau = stage_s(in, d, p, L, true);

	if (tau >= least || tau > w->stage_most_s ||
	    !w->last_room[(size_t)d * ((size_t)L + 1) + (size_t)p])
		return least;
	w->end[(size_t)p * (size_t)w->count + (size_t)i] = (int16_t)(L + 1);
	return tau;
}

/* The cheapest rest that begins with a stage of node i at block p. */
static double begin_at(struct walk *w, int i, int p)
{
	const struct instance *in = w->in;
	int d = w->node[i], L = in->blocks;
	const double *sum = w->sum + (size_t)d * ((size_t)L + 1);
	double first = p == 0 ? in->first_forward_s[d] + in->first_backward_s[d] : 0,
	       least = INFINITY;
	int most = w->room_end[(size_t)d * ((size_t)L + 1) + (size_t)p];
	size_t at = (size_t)p * (size_t)w->count + (size_t)i;

	for (int q = p + 1; q <= most; q++) {
		double tau = sum[q] - sum[p] + first, rest;

		if (tau > w->stage_most_s)
			break;
		rest = w->after_s[(size_t)q * (size_t)w->count + (size_t)i];
		if (tau + rest < least) {
			least = tau + rest;
			w->end[at] = (int16_t)q;
		}
	}
	return or_last(w, i, p, least) + w->price[i];
}

/* Follows the cheapest walk from a node at block 0. */
static void count_visits(struct walk *w, int i)
{
	size_t n = (size_t)w->count;

	for (int p = 0;;) {
		int q = w->end[(size_t)p * n + (size_t)i], next = -1;
		const double *begin = w->begin_s + (size_t)q * n;
		double least = INFINITY;

		w->visits[i] += 1;
		if (q > w->in->blocks)
			return;
		fill_ways(w, q);
		for (size_t j = 0; j < n; j++)
			if (begin[j] + w->way_from[(size_t)i * n + j] < least) {
				least = begin[j] + w->way_from[(size_t)i * n + j];
				next = (int)j;
			}
		i = next;
		p = q;
	}
}

/* Follows the cheapest walks of at most so much from nodes that none has visited yet: where
 * there are many that cost nearly the same, their mean says more than one of them. */
static void follow_some(struct walk *w, double most)
{
	int walks = 0;

	for (; walks < WALKS_MOST; walks++) {
		int first = -1;

		for (int i = 0; i < w->count; i++)
			if (w->visits[i] == 0 && w->begin_s[i] <= most &&
			    (first < 0 || w->begin_s[i] < w->begin_s[first]))
				first = i;
		if (first < 0)
			break;
		count_visits(w, first);
	}
	for (int i = 0; i < w->count; i++)
		w->visits[i] /= walks;
}

double walk_least(struct walk *w, double most_s)
{
	size_t n = (size_t)w->count;
	double free_s = prices(w), most = (most_s + free_s) * (1 + NOISE), least = INFINITY;

	memset(w->visits, 0, n * sizeof(*w->visits));
	for (int p = w->in->blocks; p >= 0; p--) {
		double *begin = w->begin_s + (size_t)p * n;

		for (size_t i = 0; i < n; i++)
			begin[i] = w->dead[(size_t)p * n + i] ||
					   (p == w->in->blocks && !w->in->head_alone)
				       ? INFINITY
				       : begin_at(w, (int)i, p);
		if (p == 0)
			break;
		fill_ways(w, p);
		extend(w, begin, w->way_to, most, w->after_s + (size_t)p * n);
	}
	for (size_t i = 0; i < n; i++)
		least = fmin(least, w->begin_s[i]);
	if (least > most)
		return fmax(most_s, least - free_s);
	follow_some(w, least + NEARLY * (most - least));
	return least - free_s;
}

/* -- forwards ------------------------------------------------------------------------------ */

/* The cheapest begin that ends with a stage of node i before block q, and goes on. */
static double leave_at(const struct walk *w, int i, int q)
{
	const struct instance *in = w->in;
	int d = w->node[i], L = in->blocks;
	size_t n = (size_t)w->count;
	const int16_t *room_end = w->room_end + (size_t)d * ((size_t)L + 1);
	double least = INFINITY;

	for (int p = q - 1; p >= 0 && room_end[p] >= q; p--) {
		double tau = stage_s(in, d, p, q, false);

		if (tau > w->stage_most_s)
			break;
		if (w->reach_s[(size_t)p * n + (size_t)i] + tau < least)
			least = w->reach_s[(size_t)p * n + (size_t)i] + tau;
	}
	return least + w->price[i];
}

void walk_kill(struct walk *w, double most_s)
{
	size_t n = (size_t)w->count;
	double most = (most_s + prices(w)) * (1 + NOISE);

	for (int p = 0; p <= w->in->blocks; p++) {
		double *reach = w->reach_s + (size_t)p * n, *leave = w->leave_s + (size_t)p * n;

		if (p > 0) {
			for (size_t i = 0; i < n; i++)
				leave[i] = leave_at(w, (int)i, p);
			fill_ways(w, p);
			extend(w, leave, w->way_from, most, reach);
		} else {
			memset(reach, 0, n * sizeof(*reach));
		}
		for (size_t i = 0; i < n; i++)
			if (reach[i] + w->begin_s[(size_t)p * n + i] > most) {
				w->dead[(size_t)p * n + i] = 1;
				reach[i] = INFINITY;
			}
	}
}
