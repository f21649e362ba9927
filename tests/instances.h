/*
 * tests/instances.h - random instances for tests and benchmarks, and every placement of a small one. Each file that
 * includes it uses what it needs.
 */
#ifndef EDGEPIPE_TESTS_INSTANCES_H
#define EDGEPIPE_TESTS_INSTANCES_H

#include <math.h>
#include <string.h>

#include "partition/instance.h"

/* Draws in a fixed order: the same seed gives the same instances. */
struct draws { uint32_t seed, count; };

static inline double draw(struct draws *d, double low, double high)
{
	struct philox at = {{d->count++, 0, 0, 0}};

	return low + (high - low) * (philox(at, d->seed, 0x1a57u).word[0] / 4294967296.0);
}
static inline int draw_int(struct draws *d, int low, int high)
{
	int value = (int)floor(draw(d, low, high + 1.0));

	return value > high ? high : value;
}
/* With equal chances for every factor of ten. */
static inline double draw_scale(struct draws *d, double low, double high)
{
	return low * pow(high / low, draw(d, 0, 1));
}

struct instance_want {
	int nodes, blocks, micro_batches;
	int types;			/* nodes are of so many; 0: all differ */
	bool memory, uneven, unlinked;	/* limits that bite; blocks and cuts that differ; pairs without a link */
	double link_low_s, link_high_s;	/* of a message, in times of a block on a node of speed 1 */
	double latency_s;		/* at most */
};

static inline double *take_doubles(struct arena *arena, size_t count, double value)
{
	double *x = arena_take(arena, count * sizeof(*x));

	for (size_t i = 0; i < count; i++)
		x[i] = value;
	return x;
}

static inline void draw_blocks(struct arena *arena, struct draws *d, const struct instance_want *w, struct instance *in)
{
	size_t n = (size_t)w->nodes, row = (size_t)w->blocks + 1;
	double *f = take_doubles(arena, n * row, 0), *b = take_doubles(arena, n * row, 0);
	double *ends = take_doubles(arena, 4 * n, 0), *size = take_doubles(arena, row, 1);
	double embedding = draw(d, 0, 0.3), head = draw(d, 0, 2), ratio = draw(d, 0.8, 2);
	double returned = fmax(draw(d, -0.3, 0.3), 0);	/* the embedding's backward, in half of them */

	for (size_t p = 0; p < row && w->uneven; p++)
		size[p] = draw(d, 0.3, 2);
	for (size_t i = 0; i < n; i++) {
		size_t like = w->types ? i % (size_t)w->types : i;
		double slow = like == i ? draw_scale(d, 0.25, 4) : (f[like * row + 1]) / size[0];

		for (size_t p = 1; p < row; p++) {
			f[i * row + p] = f[i * row + p - 1] + slow * size[p - 1];
			b[i * row + p] = b[i * row + p - 1] + slow * size[p - 1] * ratio;
		}
		ends[i] = embedding * slow;
		ends[n + i] = returned * slow;
		ends[2 * n + i] = head * slow;
		ends[3 * n + i] = head * slow * 0.5;
	}
	in->forward_s = f;
	in->backward_s = b;
	in->first_forward_s = ends;
	in->first_backward_s = ends + n;
	in->last_forward_s = ends + 2 * n;
	in->last_backward_s = ends + 3 * n;
}

static inline void draw_links(struct arena *arena, struct draws *d, const struct instance_want *w, struct instance *in)
{
	size_t n = (size_t)w->nodes, types = w->types ? (size_t)w->types : n;
	double *x = take_doubles(arena, 4 * n * n, 0), *cut = take_doubles(arena, (size_t)w->blocks + 1, 1);
	double *back = take_doubles(arena, (size_t)w->blocks + 1, draw(d, 0, 1) < 0.5 ? 1 : draw(d, 0.3, 2));

	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < n; j++) {
			size_t like = i % types * n + j % types, at = i * n + j;
			bool fresh = i < types && j < types;
			double rate = draw_scale(d, w->link_low_s, w->link_high_s);

			for (size_t k = 0; k < 2; k++) {
				x[k * n * n + at] = fresh ? rate * draw(d, 0.5, 1.5) : x[k * n * n + like];
				x[(2 + k) * n * n + at] = fresh ? draw(d, 0, w->latency_s) : x[(2 + k) * n * n + like];
			}
			if (fresh && w->unlinked && draw(d, 0, 1) < 0.2)
				x[at] = INFINITY;
			/* Members of a type are linked alike, both ways. */
			if (w->types && i % types == j % types)
				for (size_t k = 0; k < 4; k++)
					x[k * n * n + at] = x[k * n * n + i % types * n + i % types];
		}
	for (int p = 0; p <= w->blocks && w->uneven; p++) {
		cut[p] = draw(d, 0.3, 2);
		back[p] = draw(d, 0.3, 2);
	}
	in->cut_forward = cut;
	in->cut_backward = back;
	in->link_forward_s = x;
	in->link_backward_s = x + n * n;
	in->latency_forward_s = x + 2 * n * n;
	in->latency_backward_s = x + 3 * n * n;
}

/* A block weighs 1, and a micro-batch in flight stores `stored` for each. */
static inline void draw_memory(struct arena *arena, struct draws *d, const struct instance_want *w, struct instance *in)
{
	size_t row = (size_t)w->blocks + 1, types = w->types ? (size_t)w->types : (size_t)w->nodes;
	double *weights = take_doubles(arena, row, 0), *stored = take_doubles(arena, row, 0);
	double *limit = take_doubles(arena, (size_t)w->nodes, INFINITY);
	double each = draw_scale(d, 0.02, 0.5), share = draw(d, 0.3, 1.5);

	for (size_t p = 1; p < row; p++) {
		weights[p] = (double)p;
		stored[p] = (double)p * each;
	}
	in->weights = weights;
	in->stored = stored;
	in->stored_cut = each * draw(d, 0, 0.5);
	in->first_weights = draw(d, 0, 2);
	in->last_weights = draw(d, 0, 2);
	in->first_stored = in->last_stored = each * draw(d, 0, 0.5);
	for (size_t i = 0; i < (size_t)w->nodes && w->memory; i++)
		limit[i] = i < types ? share * w->blocks * draw(d, 0.2, 2) : limit[i % types];
	in->memory_bytes = limit;
}

static inline struct instance *draw_instance(struct arena *arena, struct draws *d, const struct instance_want *w)
{
	struct instance *in = arena_take(arena, sizeof(*in));

	in->nodes = w->nodes;
	in->blocks = w->blocks;
	in->micro_batches = w->micro_batches;
	in->head_alone = true;
	draw_blocks(arena, d, w, in);
	draw_links(arena, d, w, in);
	draw_memory(arena, d, w, in);
	return in;
}

/* -- every placement ----------------------------------------------------------------------- */

struct every {
	const struct instance *in;
	void (*visit)(void *arg, const struct placement *placement);
	void *arg;
	struct placement at;
	bool used[PLAN_STAGES_MAX];
};

static inline void every_from(struct every *e, int p)
{
	int s = e->at.stages, blocks = e->in->blocks;

	for (int d = 0; d < e->in->nodes; d++) {
		if (e->used[d])
			continue;
		e->used[d] = true;
		e->at.node[s] = d;
		e->at.first[s] = p;
		e->at.stages = s + 1;
		for (int q = p + (p < blocks); q <= blocks; q++) {
			e->at.first[s + 1] = q;
			e->at.stages = s + 1;
			if (q == blocks && placement_valid(e->in, &e->at))
				e->visit(e->arg, &e->at);
			if ((q < blocks || (e->in->head_alone && p < blocks)) && s + 1 < e->in->nodes)
				every_from(e, q);
		}
		e->at.stages = s;
		e->used[d] = false;
	}
}

/* Calls visit with every valid placement. */
static inline void every_placement(const struct instance *in, void (*visit)(void *arg, const struct placement *placement),
				   void *arg)
{
	struct every e = {.in = in, .visit = visit, .arg = arg};

	every_from(&e, 0);
}

#endif
