/*
 * partition/solvers.h - the solvers over instances. Each adds placements to a pool, which keeps
 * the best by J.
 */
#ifndef EDGEPIPE_PARTITION_SOLVERS_H
#define EDGEPIPE_PARTITION_SOLVERS_H

#include "partition/instance.h"

/* -- exact.c ------------------------------------------------------------------------------- */

/* The search of its row. Adds a plan with the least J; what the pool holds already makes it
 * faster. Returns a proved lower bound of J: the pool's best where the proof was finished, less
 * where it would have taken too many labels. INFINITY: there is no plan. */
double exact_solve(const struct instance *instance, struct pool *pool);
/* With search.c's plans to begin with. */
double exact_search(const struct instance *instance, struct pool *pool);
/* The least bound B.4 of all plans, or what was proved of it: no plan and no schedule takes
 * less. A pool of good plans makes it faster. Where sets of nodes are too many to be numbered
 * it is the relaxation's. INFINITY: there is no plan. */
double least_bound(const struct instance *instance, const struct pool *pool);

/* -- search.c ------------------------------------------------------------------------------ */

/* Adds good plans, quickly, for any number of nodes: a beam search over the lattice, for
 * periods from long to short. */
void search_solve(const struct instance *instance, struct pool *pool);
/* The search of its row, which adds nothing: priced_least of the pool's best plan, 0 where
 * there is none. */
double quick_solve(const struct instance *instance, struct pool *pool);
/* Both. */
double quick_search(const struct instance *instance, struct pool *pool);

/* -- prices.c ------------------------------------------------------------------------------ */

/* No plan has a J below this, which is at most best_s, a J that is known: by walks with prices
 * on nodes, and by groups of nodes. */
double priced_least(const struct instance *instance, double best_s);

/* -- bottleneck.c -------------------------------------------------------------------------- */

/* Leaves a plan with the least period alone in the pool, where there is one; returns 0. */
double bottleneck_search(const struct instance *instance, struct pool *pool);

/* -- lp.c ---------------------------------------------------------------------------------- */

/* The problem of J in the LP format of mixed integer programs, for an independent solver;
 * stages without room for all micro-batches in flight are not in it. */
void lp_write(const struct instance *instance, struct text *text);

/* -- refine.c ------------------------------------------------------------------------------ */

/* The shortest step by simulation that is found from a pool of plans, and its plan. INFINITY:
 * none can run. */
double refine_solve(const struct instance *instance, const struct pool *pool,
		    struct placement *best);
/* The shortest step by simulation of a placement with one more node in it, wherever that is
 * best, with as many blocks as are best. INFINITY: none can run. */
double refine_with(const struct instance *instance, const struct placement *placement,
		   int node);

#endif
