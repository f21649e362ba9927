/*
 * partition/lattice.h - what classes.c, rest.c, lattice.c, periods.c and exact.c share: nodes
 * that are alike, what the blocks that are not placed yet cost at least, and the dynamic
 * program over sets of nodes.
 */
#ifndef EDGEPIPE_PARTITION_LATTICE_H
#define EDGEPIPE_PARTITION_LATTICE_H

#include "partition/instance.h"

/* -- classes.c ----------------------------------------------------------------------------- */

/* Nodes in classes whose members may be exchanged: equal times, memory and links. Of a class
 * only how many are used matters, so a set of nodes is a number in mixed radix. */
struct classes {
	int count;
	/* [count]; [nodes]: the members of class 0, then 1, ... */
	int *size, *member;
	int *begin;			/* [count]: the first of a class in member */
	/* [count]: what a member adds to a set's number; how many sets there are, UINT64_MAX:
	 * too many to number, radix is random */
	uint64_t *radix, sets;
};
void classes_find(struct arena *arena, const struct instance *instance,
		  struct classes *classes);
/* Two nodes that stand for a link from a class to another one, or within itself; false: there
 * is no such pair. */
bool classes_link(const struct classes *classes, int from, int to, int *i, int *j);

/* -- rest.c -------------------------------------------------------------------------------- */

/* Whether every stage that is left has a way out; or one, the last, has none: then the longest
 * is left out at the end (way_most_s), or they are not counted at all. */
enum rest_ways { REST_ALL, REST_BUT_LAST, REST_NONE };
/*
 * What blocks 0..q-1 take at least on the nodes that are left, where no stage and no link
 * exceeds a limit. Of a class's member it is known how much work it can take and what a unit of
 * it costs there, with its share of the cheapest way out; the cheapest are filled first: the
 * linear relaxation of a knapsack.
 */
/* the longer direction; both with their latencies */
struct way_out { double longest_s, way_s; };
struct rest {
	int classes, blocks;
	/* a block costs all nodes alike, up to their speed; all blocks, all cuts are alike */
	bool shape, whole, one_cut;
	double cut_forward, cut_backward;	/* the smallest cut */
	int *order;			/* classes, cheapest first */
	/* [classes]: work of one member; seconds of a unit, with the way out */
	double *capacity, *cost;
	double *unit;			/* [classes]: seconds of a unit alone */
	/* [classes]: whole blocks that memory lets a member hold */
	double *fit;
	struct way_out **way_out;	/* [classes][ways]: longer links that are cheaper */
	int *ways;
	double way_most_s;		/* the longest of the cheapest ways out */
	/* [blocks + 1] prefix sum; in blocks where all are alike */
	double *work;
};
void rest_open(struct arena *arena, const struct instance *instance,
	       const struct classes *classes, struct rest *rest);
/* For a limit on stages and one on directions of links. */
void rest_limit(struct rest *rest, const struct instance *instance,
		const struct classes *classes, double stage_most_s, double link_most_s,
		enum rest_ways ways);
/* A unit on the fastest class that has a member left; INFINITY: none has. */
double rest_unit(const struct rest *rest, const struct classes *classes, const int *used);
/* Seconds at least for blocks 0..q-1; used[class]: members that are taken. INFINITY: they do
 * not suffice. */
double rest_least(const struct rest *rest, const struct classes *classes, const int *used,
		  int q);

/* -- lattice.c ----------------------------------------------------------------------------- */

/* What a pass over the lattice looks for. */
struct lattice_want {
	/* By J: no stage and no direction of a link takes longer than period_s, and in-flight
	 * counts follow from it. By the bound B.4: no forward, no backward, no direction of a
	 * link takes longer, and one micro-batch at a time is enough. */
	bool bound;
	double period_s;
	double base_s;			/* added to every sum */
	double below_s;			/* plans of at least this are not wanted */
	size_t labels_most;		/* gives up beyond */
	/* A beam search: of the labels with as many stages only so many go on, to so many
	 * classes (the cheapest), with so many lengths of a stage (the longest). 0: all. */
	int beam, choices, lengths;
	/* or null: every plan that is met goes there, and none is unwanted for another's
	 * sake */
	struct pool *pool;
};
struct lattice_found {
	/* complete: found is the best, and none means that there is none */
	bool found, complete;
	double sum_s;			/* of stages and ways: J without its (M - 1) T */
	/* base + sum; by the bound at least any stage's own part of it */
	double value_s;
	struct placement placement;	/* filled by model_step */
	size_t labels;
};
struct lattice;
struct lattice *lattice_open(const struct instance *instance);	/* freed by lattice_close */
const struct instance *lattice_instance(const struct lattice *lattice);
bool lattice_one_cut(const struct lattice *lattice);	/* all cuts are alike */
const struct classes *lattice_classes(const struct lattice *lattice);
/* What every plan's stages and ways cost at least, where no stage takes longer than the first
 * and no direction of a link longer than the second; INFINITY: there is none. */
double lattice_least(struct lattice *lattice, double stage_most_s, double link_most_s);
/* What the last stage takes at least. */
double lattice_last(const struct lattice *lattice);
void lattice_search(struct lattice *lattice, const struct lattice_want *want,
		    struct lattice_found *found);
void lattice_close(struct lattice *lattice);

/* -- periods.c ----------------------------------------------------------------------------- */

/* The shortest and the longest period that a plan with J below best_s may have. */
void lattice_periods(struct lattice *lattice, double best_s, double *low_s, double *high_s);

#endif
