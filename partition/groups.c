/*
 * groups.c - what stages and ways cost at least, for nodes in groups with cheap ways within and
 * dear ones between, such as local networks: a walk with prices (walk.c) would circle in each
 * of them.
 *
 * Each stage but the last pays its node's cheapest way out, and of every group that has stages,
 * but the last stage's, one pays a way that leaves the group: the least that such a way is
 * above its node's cheapest. No node is used twice. So a knapsack over nodes, block by block,
 * gives what a group costs with w blocks, and one over groups what a plan costs. It is true of
 * any groups; they are what remains connected without the links above the widest gap in a
 * minimum spanning tree.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "partition/walk.h"

#define NOISE 1e-9			/* what rounding may add to a limit */

struct groups {
	const struct instance *in;
	struct arena arena;
	int count, *of;			/* groups; [nodes]: of a node */
	/* Seconds of w blocks wherever they are, and of the last w: [nodes][blocks + 1],
	 * INFINITY: no room. */
	double *any_s, *last_s;
	/* [nodes], [count]: cheapest way out; what one that leaves the group is above it */
	double *out_s, *leave_s;
	double *group[2], *all[2];	/* [blocks + 1]: without the last stage, and with it */
};

/* fmin is a call. */
static inline double lesser(double a, double b)
{
	return a < b ? a : b;
}

/* -- groups -------------------------------------------------------------------------------- */

/* A way over the smallest cut, whichever direction the plan goes. */
static double link_s(const struct instance *in, int i, int j, const double cut[2])
{
	size_t n = (size_t)in->nodes,
	       at[2] = {(size_t)i * n + (size_t)j, (size_t)j * n + (size_t)i};
	double way[2];

	for (int k = 0; k < 2; k++)
		way[k] = cut[0] * in->link_forward_s[at[k]] +
			 cut[1] * in->link_backward_s[at[k]] + in->latency_forward_s[at[k]] +
			 in->latency_backward_s[at[k]];
	return lesser(way[0], way[1]);
}

static void smallest_cut(const struct instance *in, double cut[2])
{
	cut[0] = cut[1] = INFINITY;
	for (int p = 1; p <= in->blocks; p++) {
		cut[0] = fmin(cut[0], in->cut_forward[p]);
		cut[1] = fmin(cut[1], in->cut_backward[p]);
	}
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The length of the tree's links below its widest gap. */
static double below_gap(double *length, int count)
{
	double widest = 0, below = 0;

	qsort(length, (size_t)count, sizeof(*length), ascending);
	for (int i = 0; i + 1 < count; i++)
		if (length[i + 1] > length[i] &&
		    length[i + 1] / fmax(length[i], 1e-12 * length[i + 1]) > widest) {
			widest = length[i + 1] / fmax(length[i], 1e-12 * length[i + 1]);
			below = length[i];
		}
	return below;
}

/* Prim's tree; then a node is of its parent's group, unless the link between them is beyond the
 * gap. */
static void find_groups(struct groups *g)
{
	const struct instance *in = g->in;
	size_t n = (size_t)in->nodes;
	double *near_s = arena_take(&g->arena, n * sizeof(double)),
	       *length = arena_take(&g->arena, n * sizeof(double));
	double *joined_s = arena_take(&g->arena, n * sizeof(double)), cut[2], most_s;
	int *parent = arena_take(&g->arena, n * sizeof(int)),
	    *order = arena_take(&g->arena, n * sizeof(int));
	bool *in_tree = arena_take(&g->arena, n * sizeof(bool));

	smallest_cut(in, cut);
	for (size_t i = 0; i < n; i++)
		near_s[i] = INFINITY;
	for (int step = 0, at = 0; step < in->nodes; step++) {
		int next = -1;

		in_tree[at] = true;
		order[step] = at;
		joined_s[at] = near_s[at];
		if (step > 0)
			length[step - 1] = near_s[at];
		for (int j = 0; j < in->nodes; j++) {
			double s = in_tree[j] ? 0 : link_s(in, at, j, cut);

			if (in_tree[j])
				continue;
			if (s < near_s[j]) {
				near_s[j] = s;
				parent[j] = at;
			}
			if (next < 0 || near_s[j] < near_s[next])
				next = j;
		}
		at = next;
	}
	most_s = below_gap(length, in->nodes - 1);
	for (int step = 0; step < in->nodes; step++) {
		int d = order[step];

		g->of[d] = step > 0 && joined_s[d] <= most_s ? g->of[parent[d]] : g->count++;
	}
}

/* -- costs --------------------------------------------------------------------------------- */

static void fill_stages(struct groups *g, int d)
{
	const struct instance *in = g->in;
	size_t row = (size_t)in->blocks + 1;
	double *any = g->any_s + (size_t)d * row, *last = g->last_s + (size_t)d * row;

	for (int w = 0; w <= in->blocks; w++) {
		int p = in->blocks - w;

		last[w] =
		    (w > 0 || in->head_alone) && stage_room(in, d, p, in->blocks, true) > 0
			? stage_s(in, d, p, in->blocks, true)
			: INFINITY;
		any[w] = INFINITY;
		for (p = 0; p + w <= in->blocks; p++)
			if (stage_s(in, d, p, p + w, false) < any[w] &&
			    stage_room(in, d, p, p + w, false) > 0)
				any[w] = stage_s(in, d, p, p + w, false);
	}
}

/* Each node's cheapest way out, and each group's: of links up to a limit. */
static void fill_ways(struct groups *g, double most_s)
{
	const struct instance *in = g->in;
	size_t n = (size_t)in->nodes;
	double cut[2];

	smallest_cut(in, cut);
	for (int k = 0; k < g->count; k++)
		g->leave_s[k] = INFINITY;
	for (int i = 0; i < in->nodes; i++) {
		double out_s = INFINITY, leave_s = INFINITY;

		for (int j = 0; j < in->nodes; j++) {
			size_t at = (size_t)i * n + (size_t)j;
			double forward_s = cut[0] * in->link_forward_s[at],
			       backward_s = cut[1] * in->link_backward_s[at];
			double way_s = forward_s + backward_s + in->latency_forward_s[at] +
				       in->latency_backward_s[at];

			if (i == j || forward_s > most_s || backward_s > most_s)
				continue;
			out_s = lesser(out_s, way_s);
			if (g->of[i] != g->of[j])
				leave_s = lesser(leave_s, way_s);
		}
		g->out_s[i] = out_s;
		if (!isinf(leave_s))
			g->leave_s[g->of[i]] = lesser(g->leave_s[g->of[i]], leave_s - out_s);
	}
}

/* -- the knapsacks ------------------------------------------------------------------------- */

/* Adds a node to what its group costs. */
static void add_node(struct groups *g, int d, double most_s)
{
	int L = g->in->blocks;
	const double *any = g->any_s + (size_t)d * ((size_t)L + 1),
		     *last = g->last_s + (size_t)d * ((size_t)L + 1);

	for (int w = L; w >= 0; w--) {
		double without = g->group[0][w], with = g->group[1][w];

		for (int k = 0; k <= w; k++) {
			if (last[k] <= most_s)
				with = lesser(with, g->group[0][w - k] + last[k]);
			if (k > 0 && any[k] > most_s && last[k] > most_s)
				break;
			if (k == 0 || any[k] > most_s)
				continue;
			without = lesser(without, g->group[0][w - k] + any[k] + g->out_s[d]);
			with = lesser(with, g->group[1][w - k] + any[k] + g->out_s[d]);
		}
		g->group[0][w] = without;
		g->group[1][w] = with;
	}
}

static void add_group(struct groups *g, int k)
{
	for (int w = g->in->blocks; w >= 0; w--) {
		double without = g->all[0][w], with = g->all[1][w];

		for (int x = 0; x <= w; x++) {
			without = lesser(without, g->all[0][w - x] + g->group[0][x] +
						      (x > 0 ? g->leave_s[k] : 0));
			with = lesser(with, g->all[1][w - x] + g->group[0][x] +
						(x > 0 ? g->leave_s[k] : 0));
			with = lesser(with, g->all[0][w - x] + g->group[1][x]);
		}
		g->all[0][w] = without;
		g->all[1][w] = with;
	}
}

static void clear(double *part[2], int blocks)
{
	for (int w = 0; w <= blocks; w++)
		part[0][w] = part[1][w] = INFINITY;
	part[0][0] = 0;
}

double groups_least(struct groups *g, double most_s)
{
	most_s *= 1 + NOISE;
	fill_ways(g, most_s);
	clear(g->all, g->in->blocks);
	for (int k = 0; k < g->count; k++) {
		clear(g->group, g->in->blocks);
		for (int d = 0; d < g->in->nodes; d++)
			if (g->of[d] == k)
				add_node(g, d, most_s);
		add_group(g, k);
	}
	return g->all[1][g->in->blocks];
}

struct groups *groups_open(const struct instance *in)
{
	struct groups *g = xzalloc(1, sizeof(*g));
	size_t n = (size_t)in->nodes, row = (size_t)in->blocks + 1;

	g->in = in;
	g->of = arena_take(&g->arena, n * sizeof(int));
	find_groups(g);
	g->any_s = arena_take(&g->arena, n * row * sizeof(double));
	g->last_s = arena_take(&g->arena, n * row * sizeof(double));
	g->out_s = arena_take(&g->arena, n * sizeof(double));
	g->leave_s = arena_take(&g->arena, (size_t)g->count * sizeof(double));
	for (int k = 0; k < 2; k++) {
		g->group[k] = arena_take(&g->arena, row * sizeof(double));
		g->all[k] = arena_take(&g->arena, row * sizeof(double));
	}
	for (int d = 0; d < in->nodes; d++)
		fill_stages(g, d);
	return g;
}

void groups_close(struct groups *g)
{
	arena_release(&g->arena);
	free(g);
}
