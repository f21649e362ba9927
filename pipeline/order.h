/*
 * pipeline/order.h - what schedule.c, order.c and simulate.c share: how many micro-batches a
 * stage keeps in flight, in which order it computes, and the timeline on which costs are
 * played.
 */
#ifndef EDGEPIPE_ORDER_H
#define EDGEPIPE_ORDER_H

#include "pipeline/pipeline.h"

/* -- order.c ------------------------------------------------------------------------------- */

/* room[stages] by the ceil rule (see schedule_make); it never grows from a stage to the next,
 * so that no stage waits for a micro-batch that the stage before has no room for. */
void rooms_that_hide(const struct schedule_want *want, int *room);
/* All forwards and backwards of a stage, order[2 * micro_batches]: room - 1 forwards, then one
 * of each in turn as long as there are forwards. Without backwards: the forwards, and their
 * count. */
int order_strict(int micro_batches, int room, bool backward, struct op *order);
/* The greedy order of all stages, order[stages][2 * micro_batches]. */
void order_greedy(const struct schedule_want *want, const int *room, struct op *const *order);

/* -- simulate.c ---------------------------------------------------------------------------- */

/* A direction of a cut: passes one message at a time, in micro-batch order. Times in seconds,
 * INFINITY while not known. */
struct wire {
	int to, next;			/* stage; micro-batch */
	uint32_t name;			/* what its jitter is keyed by */
	int nic[2];			/* -1: none */
	double occupied_s, latency_s, free_s;
	double *sent, *awaited;		/* [micro_batches]: when each was posted */
	double *began, *left, *arrived;
};

/* What is known of a step while it is played. */
struct timeline {
	struct arena arena;		/* of all that follows */
	const struct costs *costs;
	int stages, micro_batches;
	bool trains;
	const int *edge;		/* [stages]; null: enough */
	struct wire *forward, *backward;	/* [stages - 1] */
	double *nic_free_s;		/* [nics] */
	double *free_s;			/* [stages] */
	/* [stages * micro_batches], micro-batches inner */
	double *forward_start, *forward_end, *backward_start, *backward_end;
};

/* Decides what the stages of a timeline compute. */
struct pilot {
	void *state;
	/* What a stage does next, and when it can; INFINITY: nothing that is known. */
	struct op (*next)(const struct pilot *pilot, const struct timeline *timeline, int stage,
			  double *start_s);
	/* It has been done, and ended at free_s: what is posted after it. */
	void (*done)(const struct pilot *pilot, struct timeline *timeline, int stage,
		     struct op op);
	double patience_s;		/* transfers that start so little later come first */
};

/* awaited_s: when the receives were posted; INFINITY: not known yet. */
void timeline_open(struct timeline *timeline, const struct costs *costs, int micro_batches,
		   double awaited_s);
/* Plays until nothing more can start. */
void timeline_play(struct timeline *timeline, const struct pilot *pilot);
/* From when on an op has what it needs, apart from its stage. */
double timeline_ready(const struct timeline *timeline, int stage, struct op op);
void timeline_release(struct timeline *timeline);

#endif
