/*
 * partition/internal.h - what the files of partition/ share among themselves.
 */
#ifndef EDGEPIPE_PARTITION_INTERNAL_H
#define EDGEPIPE_PARTITION_INTERNAL_H

#include "partition/partition.h"

/* -- solver.c ------------------------------------------------------------------------------ */

/* How many stages an automatic solver is to make: plan.stages, else one a node. -1 after an
 * error: more than there are nodes, or than blocks and head can fill. */
int stages_wanted(const struct problem *problem);
/* Adds a stage after those that are there: a node and the next so many blocks. */
void stage_add(struct plan *plan, int node, int blocks);

/* -- uniform.c, proportional.c, manual.c --------------------------------------------------- */

/* The solve of their rows. */
int uniform_solve(const struct problem *problem, struct plan *plan);
int proportional_solve(const struct problem *problem, struct plan *plan);
int manual_solve(const struct problem *problem, struct plan *plan);

/* Blocks for every stage in proportion to compute, where the head (on the last stage) weighs as
 * much as head blocks do: proportional.c. */
void proportional_split(int *layers, const double *compute, int stages, int blocks,
			double head);
/* Reads plan.layers[i]: blocks, or LAYERS_OUT; -1 where it is neither. */
#define LAYERS_OUT (-2)
int layers_entry(const struct problem *problem, int i);

/* -- plan.c -------------------------------------------------------------------------------- */

/* In-flight counts by the schedule, at most those that the plan has now, and the edges. -1
 * after an error. */
int plan_places(const struct problem *problem, struct plan *plan);
/* Buffers of stage s for its cuts: what its schedule asks for, and enough for validation. */
int stage_edges(const struct plan *plan, const struct schedule *schedule, int s);

/* Fills the ends and shares of a plan's stages, and names its schedule. */
void plan_begin(const struct problem *problem, struct plan *plan);
/* In-flight counts, at most those that the plan has now, for which everybody has room; and
 * memory. As plan_size. */
int plan_fit(const struct problem *problem, struct plan *plan, bool least);
/* Fills what hangs on the size of a micro-batch. least: no stage goes below 1F1B's places to
 * make room. 1: everybody has room; 0: not; -1 after an error. */
int plan_size(const struct problem *problem, struct plan *plan, int size, bool least);

/* -- choose.c ------------------------------------------------------------------------------ */

/* micro-batches: more of them are not tried where there is a plan with fewer */
enum { COUNT_MOST = 2048 };

/* The best plan that a solver over instances finds, or one of the others' (unless the solver is
 * a pure one), and the next best ones that place otherwise, best first (step_s 0: there are no
 * more); all zeroed by the caller. 1; 0: none fits; -1 after an error. */
int choose_plan(const struct problem *problem, const struct solver *solver, struct plan *plan,
		struct plan *other, int others);

/* -- cost.c -------------------------------------------------------------------------------- */

/* What a node takes for a micro-batch, seconds; all 0 where nothing is known of it. */
struct node_cost {
	bool known;
	double block_forward_s, block_backward_s;	/* of one block */
	double embedding_forward_s, embedding_backward_s, head_forward_s, head_backward_s;
	/* of one block's adapters, once a step */
	double update_s;
};
struct node_cost cost_node(const struct problem *problem, int node, int micro_batch);
/* How the cut between two nodes travels, and what it takes; decided: the codecs of links that
 * are to choose. */
struct plan_link cost_cut(const struct problem *problem, int upstream, int downstream,
			  int micro_batch, const struct plan_link *decided);
/* The same where both links are at hand. */
struct plan_link cost_cut_by(const struct problem *problem, const struct link *down,
			     const struct link *up, int upstream, int downstream,
			     int micro_batch, const struct plan_link *decided);
/* Fills forward_s, backward_s of every stage and every link from what is declared, for the
 * plan's micro-batch. */
void cost_fill(const struct problem *problem, struct plan *plan);
/* What the plan costs, for the simulator; from the arena. Null where a node in use declares no
 * compute. */
const struct costs *cost_of(struct arena *arena, const struct problem *problem,
			    const struct plan *plan);
/* Fills step_s, bound_s and bottleneck (the stage, direction of a link or interface that is
 * occupied longest), where they can be known. */
void cost_predict(const struct problem *problem, struct plan *plan);

/* -- memory.c ------------------------------------------------------------------------------ */

/* With what alone a plan would fit; zeros: with none of them. */
struct remedy {
	int micro_batch;	  /* a smaller one */
	bool plain;		  /* weights of BF16 kept once */
	enum recompute recompute; /* the first level */
};

/* What stage s of a plan takes memory for, by the allocator's own arithmetic. */
struct stage_memory plan_memory(const struct problem *problem, const struct plan *plan, int s);
/* Whether a filled stage has room. */
bool stage_fits(const struct plan_stage *stage);
/* Fills memory_bytes and memory_limit_bytes of every stage; whether all of them fit. */
bool memory_fill(const struct problem *problem, struct plan *plan);
/* Adds "train.weights plain (fits), " and the like of what does not depend on the plan. */
void memory_add_remedy(const struct remedy *remedy, struct text *text);
/* Says which stages of a filled plan do not fit, with their numbers, and what would help.
 * Returns -1. */
int memory_refuse(const struct problem *problem, const struct plan *plan,
		  const struct remedy *remedy);

/* -- refuse.c ------------------------------------------------------------------------------ */

/* Says why no placement holds the model, with its numbers, and what would help. Returns -1. */
int refuse_all(const struct problem *problem, const struct remedy *remedy);

/* -- blocks.c ------------------------------------------------------------------------------ */

/* What a stage holds, for people: "emb 0-4", "5", "10-11 head", "head". Returns buffer. */
const char *blocks_write(const struct plan_stage *stage, char *buffer, size_t bytes);
/* Whether a plan uses a node, and else why not; buffer is "" where it does. */
bool left_out(const struct problem *problem, const struct plan *plan, int node, char *why,
	      size_t bytes);

#endif
