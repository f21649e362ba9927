/*
 * lattice.c - the dynamic program: plans are built from their last stage to their first, over
 * sets of nodes.
 *
 * A label is a plan's end: a set of classes' members, the class of its first node, the block p
 * it starts at, the sum of its stages and ways. Of two labels with the same set, class and p
 * one with a smaller sum can do whatever the other can: counts in flight follow from the sum,
 * and grow with it. (They are no function of the number of stages.) Where all blocks are alike,
 * so can one that starts at an earlier block, if what it costs more is less than those blocks
 * would cost on any node that is left: whatever stages stand before the other one, they stand
 * before it too, with as many blocks less, as long as that leaves each of them one. So only
 * those labels are kept that none other beats. A label is dropped where what is left costs so
 * much, at least (rest.c), that the whole is not wanted.
 */
#include "partition/lattice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

struct label {
	double sum, least;		/* least: with what is left, at least */
	/* by the bound: the largest of Up_k + M tau_k, from this stage on */
	double tail;
	uint64_t set;
	uint32_t parent, next;		/* downstream; of the same set, class and p */
	int16_t p, class;
	bool beaten;
};

struct lattice {
	struct arena arena;
	const struct instance *in;
	struct classes classes;
	struct rest rest;
	/* what the first and the last stage do beside their blocks, at least */
	double first_s, last_s;
	bool tight;			/* memory may run out, so counts matter */
	bool trims;			/* blocks and cuts are alike */
	struct label *label;
	size_t count, room;
	uint32_t *bucket;		/* of the layer that grows, by set, class and p */
	size_t buckets;
	/* members of classes: of the label that is extended; scratch */
	int *used, *placed;
	/* Of the pass; promise: with a beam, the least of the layer's labels, a heap with the
	 * largest on top. */
	double *promise;
	int promises, promise_room;
	const struct lattice_want *want;
	struct lattice_found *found;
	double below_s;
};

/* -- labels -------------------------------------------------------------------------------- */

static size_t bucket_of(const struct lattice *l, const struct label *label)
{
	uint64_t key = (label->set * (uint64_t)l->classes.count + (uint64_t)label->class) *
			   (uint64_t)(l->in->blocks + 1) +
		       (l->trims ? 0 : (uint64_t)label->p);

	key ^= key >> 31;
	key *= 0x9e3779b97f4a7c15u;
	return (size_t)(key >> 20) & (l->buckets - 1);
}

/* Puts the labels from `begin` on into twice as many buckets. */
static void widen(struct lattice *l, size_t begin)
{
	l->buckets *= 2;
	l->bucket = xrealloc(l->bucket, l->buckets * sizeof(*l->bucket));
	memset(l->bucket, 0xff, l->buckets * sizeof(*l->bucket));
	for (size_t i = begin; i < l->count; i++) {
		size_t b = bucket_of(l, &l->label[i]);

		l->label[i].next = l->bucket[b];
		l->bucket[b] = (uint32_t)i;
	}
}

/* Whether whatever follows b could follow a too, at no higher cost. left: stages that may still
 * come; unit_s: a block on the fastest node that is left. */
static bool beats(const struct lattice *l, const struct label *a, const struct label *b,
		  int left, double unit_s)
{
	if (a->p > b->p || (a->p < b->p && a->p < left))
		return false;
	/* Counts follow from sums: until the stages come that are shorter, a's must not be
	 * longer. */
	if (l->tight && !l->want->bound)
		unit_s = 0;
	return a->sum <= b->sum + (b->p - a->p) * unit_s &&
	       a->tail <= b->tail + (b->p - a->p) * unit_s;
}

/* Adds a label to the layer that begins at `begin`, unless another one beats it. */
static void add_label(struct lattice *l, const struct label *label, size_t begin, int left)
{
	double unit_s = l->trims ? rest_unit(&l->rest, &l->classes, l->used) : 0;
	size_t b = bucket_of(l, label);

	for (uint32_t i = l->bucket[b]; i != NONE; i = l->label[i].next) {
		struct label *other = &l->label[i];

		if (other->set != label->set || other->class != label->class || other->beaten ||
		    (!l->trims && other->p != label->p))
			continue;
		if (beats(l, other, label, left, unit_s))
			return;
		other->beaten = beats(l, label, other, left, unit_s);
	}
	if (l->count == l->room) {
		l->room *= 2;
		l->label = xrealloc(l->label, l->room * sizeof(*l->label));
	}
	l->label[l->count] = *label;
	l->label[l->count].next = l->bucket[b];
	l->bucket[b] = (uint32_t)l->count++;
	if (l->count - begin > l->buckets)
		widen(l, begin);
}

/* -- plans --------------------------------------------------------------------------------- */

/* The plan of a label that starts at block 0: members of a class in their order. */
static void place(const struct lattice *l, const struct label *label, struct placement *at)
{
	const struct classes *c = &l->classes;

	memset(l->placed, 0, (size_t)c->count * sizeof(int));
	at->stages = 0;
	for (;; label = &l->label[label->parent]) {
		at->node[at->stages] =
		    c->member[c->begin[label->class] + l->placed[label->class]++];
		at->first[at->stages++] = label->p;
		if (label->parent == NONE)
			break;
	}
	at->first[at->stages] = l->in->blocks;
}

/* A label that starts at block 0: the best of its kind so far is kept. */
static void end_label(struct lattice *l, const struct label *label)
{
	double value_s = fmax(l->want->base_s + label->sum, label->tail);

	if (l->want->pool) {
		struct placement at;

		place(l, label, &at);
		model_step(l->in, &at);
		pool_add(l->want->pool, &at);
	}
	if (value_s >= (l->want->pool ? l->found->value_s : l->below_s))
		return;
	l->found->value_s = value_s;
	if (!l->want->pool)
		l->below_s = value_s;
	l->found->found = true;
	l->found->sum_s = label->sum;
	place(l, label, &l->found->placement);
}

/* -- the beam ------------------------------------------------------------------------------ */

/* Moves the top of the heap down to where it belongs. */
static void sink(double *heap, int count)
{
	for (int i = 0, child; (child = 2 * i + 1) < count; i = child) {
		double value = heap[i];

		if (child + 1 < count && heap[child + 1] > heap[child])
			child++;
		if (heap[child] <= value)
			return;
		heap[i] = heap[child];
		heap[child] = value;
	}
}

static void rise(double *heap, int i)
{
	for (int up; i > 0 && heap[up = (i - 1) / 2] < heap[i]; i = up) {
		double value = heap[i];

		heap[i] = heap[up];
		heap[up] = value;
	}
}

/* Whether a label is among the most promising of its layer so far; it is counted then. */
static bool promises(struct lattice *l, double least)
{
	if (!l->want->beam)
		return true;
	if (l->promises < l->want->beam) {
		l->promise[l->promises] = least;
		rise(l->promise, l->promises++);
		return true;
	}
	l->found->complete = false;
	if (least >= l->promise[0])
		return false;
	l->promise[0] = least;
	sink(l->promise, l->promises);
	return true;
}

/* Leaves the most promising labels of a layer. */
static void narrow(struct lattice *l, size_t begin, size_t end)
{
	for (size_t i = begin; i < end && l->promises == l->want->beam; i++)
		l->label[i].beaten = l->label[i].beaten || l->label[i].least > l->promise[0];
	l->promises = 0;
}

/* -- extending ----------------------------------------------------------------------------- */

static bool may_end(const struct lattice *l, int stages)
{
	return !l->in->stages || l->in->stages == stages;
}

static bool may_go_on(const struct lattice *l, int stages)
{
	return stages < PLAN_STAGES_MAX && (!l->in->stages || stages < l->in->stages);
}

/* Whether the pass allows a label's first stage, of blocks q..p-1, for so long; last: nothing
 * follows it. */
static bool allowed(const struct lattice *l, const struct label *label, int node, int p,
		    double tau, bool last)
{
	const struct instance *in = l->in;
	int q = label->p;

	if (l->want->bound)
		return stage_forward_s(in, node, q, p, last) <= l->want->period_s &&
		       stage_backward_s(in, node, q, p, last) <= l->want->period_s &&
		       label->tail < l->below_s &&
		       (!l->tight || stage_room(in, node, q, p, last) > 0);
	if (tau > l->want->period_s)
		return false;
	return !l->tight || model_in_flight(in, label->sum, l->want->period_s) <=
				stage_room(in, node, q, p, last);
}

/* The stage of blocks q..p-1 on a class before a label's (null: before nothing), with the way
 * to it. false: it is not allowed, and neither would a longer one be. l->used counts its own
 * node too. */
static bool try_stage(struct lattice *l, const struct label *after, uint32_t parent, int class,
		      int q, int p, double way_s, int stages, size_t begin)
{
	const struct instance *in = l->in;
	int node = l->classes.member[l->classes.begin[class]];
	double tau = stage_s(in, node, q, p, !after), rest_s;
	struct label label = {
		.sum = (after ? after->sum : 0) + way_s + tau,
		.set = (after ? after->set : 0) + l->classes.radix[class],
		.parent = parent,
		.p = (int16_t)q,
		.class = (int16_t)class,
	};

	if (l->want->bound)
		label.tail =
		    fmax(in->micro_batches * tau, after ? after->tail + way_s + tau : 0);
	if (!allowed(l, &label, node, p, tau, !after))
		return false;
	if (q == 0 && may_end(l, stages))
		end_label(l, &label);
	if (q == 0 || !may_go_on(l, stages))
		return true;
	rest_s = rest_least(&l->rest, &l->classes, l->used, q);
	label.least = fmax(l->want->base_s + label.sum, label.tail) + rest_s;
	if (label.least < l->below_s && promises(l, label.least))
		add_label(l, &label, begin, (in->stages ? in->stages : in->nodes) - stages);
	return true;
}

/* All stages of a class that end before block p, or the longest of them. */
static void try_stages(struct lattice *l, const struct label *after, uint32_t parent, int class,
		       int most, int p, double way_s, int stages, size_t begin)
{
	int node = l->classes.member[l->classes.begin[class]], tried = 0, q = most;

	if (!l->want->lengths) {
		while (q >= 0 && try_stage(l, after, parent, class, q, p, way_s, stages, begin))
			q--;
		return;
	}
	while (q > 0 && stage_s(l->in, node, q - 1, p, !after) <= l->want->period_s)
		q--;
	for (; q <= most && tried < l->want->lengths; q++)
		tried += try_stage(l, after, parent, class, q, p, way_s, stages, begin);
}

/* The last stages of plans: one that ends with the head alone, too. */
static void begin_plans(struct lattice *l)
{
	int blocks = l->in->blocks,
	    most = l->in->head_alone && l->in->nodes > 1 ? blocks : blocks - 1;

	memset(l->used, 0, (size_t)l->classes.count * sizeof(int));
	for (int k = 0; k < l->classes.count; k++) {
		l->used[k] = 1;
		try_stages(l, NULL, NONE, k, most, blocks, 0, 1, 0);
		if (l->want->lengths && most == blocks)
			try_stage(l, NULL, NONE, k, blocks, blocks, 0, 1, 0);
		l->used[k] = 0;
	}
}

/* Whose members a label's plan has taken. */
static void count_used(struct lattice *l, const struct label *label)
{
	memset(l->used, 0, (size_t)l->classes.count * sizeof(int));
	for (;; label = &l->label[label->parent]) {
		l->used[label->class]++;
		if (label->parent == NONE)
			break;
	}
}

static void extend(struct lattice *l, uint32_t parent, int stages, size_t begin)
{
	const struct classes *c = &l->classes;
	const struct label label = l->label[parent];
	int i, j, left = l->want->choices ? l->want->choices : c->count;

	count_used(l, &label);
	for (int o = 0; o < c->count && left > 0; o++) {
		int k = l->rest.order[o];
		double way_s;

		if (l->used[k] == c->size[k] || !classes_link(c, k, label.class, &i, &j) ||
		    cut_longest_s(l->in, i, j, label.p) > l->want->period_s)
			continue;
		left--;
		way_s = cut_way_s(l->in, i, j, label.p);
		l->used[k]++;
		try_stages(l, &label, parent, k, label.p - 1, label.p, way_s, stages, begin);
		l->used[k]--;
	}
}

/* A stage's part of the bound, M tau, is less than what is wanted. */
static double stage_most(const struct lattice *l)
{
	if (!l->want->bound)
		return l->want->period_s;
	return fmin(2 * l->want->period_s, l->below_s / l->in->micro_batches);
}

void lattice_search(struct lattice *l, const struct lattice_want *want,
		    struct lattice_found *found)
{
	size_t begin = 0, end;

	*found = (struct lattice_found){.complete = true, .value_s = INFINITY};
	l->want = want;
	l->found = found;
	l->below_s = want->below_s;
	l->count = 0;
	memset(l->bucket, 0xff, l->buckets * sizeof(*l->bucket));
	l->promises = 0;
	if (want->beam > l->promise_room) {
		l->promise_room = want->beam;
		l->promise = xrealloc(l->promise, (size_t)want->beam * sizeof(*l->promise));
	}
	rest_limit(&l->rest, l->in, &l->classes, stage_most(l), want->period_s, REST_ALL);
	begin_plans(l);
	for (int stages = 2; begin < l->count && l->count <= want->labels_most; stages++) {
		end = l->count;
		if (want->beam)
			narrow(l, begin, end);
		memset(l->bucket, 0xff, l->buckets * sizeof(*l->bucket));
		for (size_t i = begin; i < end && l->count <= want->labels_most; i++)
			if (!l->label[i].beaten)
				extend(l, (uint32_t)i, stages, end);
		begin = end;
	}
	found->complete = found->complete && !want->lengths && !want->choices &&
			  l->count <= want->labels_most;
	found->labels = l->count;
	if (found->found)
		model_step(l->in, &found->placement);
}

/* -- opening ------------------------------------------------------------------------------- */

/* Whether some node could run out of memory. */
static bool may_run_out(const struct instance *in)
{
	for (int d = 0; d < in->nodes; d++)
		if (stage_room(in, d, 0, in->blocks, true) < in->micro_batches)
			return true;
	return false;
}

/* Whether a prefix sum is of equal parts. */
static bool even(const double *sum, int count)
{
	for (int i = 1; i < count; i++)
		if (fabs((sum[i + 1] - sum[i]) - (sum[1] - sum[0])) >
		    1e-9 * fabs(sum[count] - sum[0]))
			return false;
	return true;
}

/* What one node does at least beside its blocks, as the first or as the last stage. */
static double least_end(const struct instance *in, const double *forward_s,
			const double *backward_s)
{
	double least_s = INFINITY;

	for (int d = 0; d < in->nodes; d++)
		least_s = fmin(least_s, forward_s[d] + backward_s[d]);
	return least_s;
}

struct lattice *lattice_open(const struct instance *in)
{
	struct lattice *l = xzalloc(1, sizeof(*l));

	l->in = in;
	l->tight = may_run_out(in);
	l->first_s = least_end(in, in->first_forward_s, in->first_backward_s);
	l->last_s = least_end(in, in->last_forward_s, in->last_backward_s);
	classes_find(&l->arena, in, &l->classes);
	rest_open(&l->arena, in, &l->classes, &l->rest);
	l->trims =
	    l->rest.whole && l->rest.one_cut &&
	    (in->need || (even(in->weights, in->blocks) && even(in->stored, in->blocks)));
	l->used = arena_take(&l->arena, (size_t)l->classes.count * sizeof(int));
	l->placed = arena_take(&l->arena, (size_t)l->classes.count * sizeof(int));
	l->room = l->buckets = 1 << 12;
	l->label = xalloc(l->room * sizeof(*l->label));
	l->bucket = xalloc(l->buckets * sizeof(*l->bucket));
	return l;
}

const struct instance *lattice_instance(const struct lattice *l)
{
	return l->in;
}

bool lattice_one_cut(const struct lattice *l)
{
	return l->rest.one_cut;
}

const struct classes *lattice_classes(const struct lattice *l)
{
	return &l->classes;
}

double lattice_last(const struct lattice *l)
{
	return l->last_s;
}

double lattice_least(struct lattice *l, double stage_most_s, double link_most_s)
{
	double bare_s, ways_s;

	memset(l->used, 0, (size_t)l->classes.count * sizeof(int));
	rest_limit(&l->rest, l->in, &l->classes, stage_most_s, link_most_s, REST_NONE);
	bare_s = rest_least(&l->rest, &l->classes, l->used, l->in->blocks);
	rest_limit(&l->rest, l->in, &l->classes, stage_most_s, link_most_s, REST_BUT_LAST);
	ways_s = rest_least(&l->rest, &l->classes, l->used, l->in->blocks);
	return l->first_s + l->last_s + fmax(bare_s, ways_s - l->rest.way_most_s);
}

void lattice_close(struct lattice *l)
{
	if (!l)
		return;
	free(l->label);
	free(l->bucket);
	free(l->promise);
	arena_release(&l->arena);
	free(l);
}
