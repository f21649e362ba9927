/*
 * partition/walk.h - what walk.c and prices.c share: the cheapest walk through nodes that holds
 * every block once.
 */
#ifndef EDGEPIPE_PARTITION_WALK_H
#define EDGEPIPE_PARTITION_WALK_H

#include "partition/instance.h"

/*
 * A walk is a plan that may come back to a node, though not at once; every stage and direction
 * of a link within a limit, with room for one micro-batch in flight. Each visit of a node costs
 * its price besides. Rows are of one block each, columns of the nodes that are left.
 */
struct walk {
	const struct instance *in;
	double stage_most_s, link_most_s;
	int count, *node;		/* nodes that are left */
	double *price;			/* [count] */
	/* [blocks + 1][count]: no stage of this node begins at this block */
	uint8_t *dead;
	/* [count], of the cheapest walk, or the mean of some that cost little more */
	double *visits;
	size_t work;			/* sums that were compared, since the walk was opened */
	/* Of every node and block: prefix sums of both times together; where a stage that
	 * something follows ends at the latest, for room; whether the last one has room from
	 * there. */
	double *sum;
	int16_t *room_end;
	bool *last_room;
	/* Ways over a cut, INFINITY beyond the limit: from each to all, to each from all. */
	double *way_from, *way_to, cut_forward, cut_backward;
	/* From a stage's begin to the end, and from the way after block p - 1 on; from the
	 * first block to a stage's begin, and to its end. [blocks + 1][count] */
	double *begin_s, *after_s, *reach_s, *leave_s;
	/* [blocks + 1][count]: of the stage that the cheapest rest begins with; blocks + 1: it
	 * is the last */
	int16_t *end;
};
void walk_open(struct walk *walk, const struct instance *instance);
void walk_close(struct walk *walk);
/* Takes the nodes that have a block where they may begin; price and dead are of all the
 * instance's nodes. */
void walk_limit(struct walk *walk, double stage_most_s, double link_most_s, const double *price,
		const uint8_t *dead);
/* No plan within the limits costs less than this, as long as it costs no more than most_s;
 * counts the visits of the walk that costs it (none, where it costs more than most_s). */
double walk_least(struct walk *walk, double most_s);
/* After walk_least: kills whatever no walk of at most most_s goes through. */
void walk_kill(struct walk *walk, double most_s);

/* -- groups.c ------------------------------------------------------------------------------ */

/* What a plan costs where ways between groups of nodes are dear. */
struct groups;
/* Freed by groups_close. */
struct groups *groups_open(const struct instance *instance);
/* No plan's stages and ways cost less, where no stage and no direction of a link takes longer
 * than most_s. */
double groups_least(struct groups *groups, double most_s);
void groups_close(struct groups *groups);

#endif
