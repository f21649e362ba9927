/*
 * partition/ - which blocks go where: problem, solvers, plan. Pure: no MPI, no kernels, no
 * clock.
 */
#ifndef EDGEPIPE_PARTITION_H
#define EDGEPIPE_PARTITION_H

#include "base/base.h"
#include "model/model.h"
#include "pipeline/pipeline.h"
#include "profiler/profiler.h"

/* -- problem ------------------------------------------------------------------------------- */

/* The `plan` section of a job. */
struct plan_config {
	const char *solver;		/* null: the first of solver_names that applies */
	long long stages;		/* 0: free */
	const char *schedule;		/* a name of schedule_names() */
	struct texts layers;		/* blocks per node, or "out"; count 0: none */
	bool overlap;			/* transfers beside computing */
	struct list cuts;		/* of struct plan_cut: codecs inside ranks */
	long long client_blocks;	/* that every client holds; 0: not given */
};
struct plan_cut { long long after_block; int codec; };

/* Everything that a solver looks at. */
struct problem {
	const struct cluster *cluster;
	/* of the cluster's nodes, in its order; or null: declared numbers alone */
	const struct profile *profile;
	const struct model_config *model;
	const struct weights *weights;
	const struct lora *lora;
	const struct plan_config *want;
	long long batch, micro_batch;	/* sequences; micro_batch 0: auto */
	enum recompute recompute;	/* of all stages */
	int tokens;			/* T */
	double slowdown;		/* stretches every declared time */
	bool links_emulated;		/* which takes memory */
	/* decisions of a file (plan_read), or null: the solver decides */
	const struct plan *given;
	/* Per node, filled by the caller: threads that its rank will use, the memory that
	 * training may use there (declared, else measured free; 0: unknown, not checked), and
	 * what the process needs besides the stage (libraries, data, checkpoint buffers). */
	const int *threads;
	const enum dtype *dtypes;	/* that it computes in; null: F32 on all */
	bool plain;			/* weights of BF16 are not packed */
	/* sequences hold several samples: see struct stage_spec */
	bool packed;
	/* what is generated, whose memory counts in place of training's; or null */
	const struct generation *generation;
	const double *memory_limit_bytes, *overhead_bytes;
};

/* -- plan.c -------------------------------------------------------------------------------- */

#define PLAN_STAGES_MAX 256
/* A link's codec where the planner decides: the least lossy that does not cost the step
 * anything worth naming. int4 is never among them: it is taken where it is asked for. */
#define CODEC_AUTO CODEC_KINDS
#define CODEC_AUTO_LOSSIEST CODEC_INT8

struct plan_stage {
	int node;			/* index in the file, which is also the rank */
	int first_block, blocks;	/* blocks 0: head alone, first_block past the last */
	bool embedding, head;
	int in_flight, edges;		/* room K; buffers of the cuts */
	double forward_s, backward_s;	/* of a micro-batch, predicted; 0: unknown */
	double memory_bytes, memory_limit_bytes;
	double share;			/* of the model's FLOPs */
};
/* How a cut travels: what one micro-batch takes, in each direction. */
struct plan_link {
	int codec_forward, codec_backward;	/* enum codec_kind */
	double bytes_forward, bytes_backward;	/* with headers */
	/* measured or declared */
	double seconds_forward, seconds_backward, latency_forward, latency_backward;
};
/* Plain data, so that rank 0 can broadcast it as bytes. */
struct plan {
	char solver[24], schedule[16], order[8];	/* order: "strict", "greedy" */
	int micro_batch, micro_batches;
	int stages;
	struct plan_stage stage[PLAN_STAGES_MAX];
	struct plan_link link[PLAN_STAGES_MAX];	/* the cut between stages i and i + 1 */
	/* Predicted from what is measured or declared; 0: unknown. The bound: B.4, of this
	 * plan. */
	double step_s, bound_s;
	/* what is occupied longest: "stage 2", "forward link 0", "interface air" */
	char bottleneck[32];
	/* Of solvers that decide everything; 0: not known. J of this plan, the least J found
	 * for its size of micro-batch, and what was proved of it; no plan that the job allows,
	 * with any schedule, takes less than least_bound_s. */
	double model_s, model_minimum_s, model_proved_s, least_bound_s;
	struct digest model_digest;
};

/*
 * Decides: the solver asked for (or by hand with plan.layers), then the micro-batch (the job's,
 * else the largest divisor of batch that fits everybody's memory and leaves at least 2
 * micro-batches a stage, else 1), in-flight counts from the schedule, and memory from the
 * allocator's own arithmetic. -1 after an error (EXIT_CONFIG): more stages than blocks + 1,
 * layers that do not add up, memory that does not suffice (with the numbers of every node that
 * lacks it), some but not all nodes declaring compute.
 */
int plan_make(const struct problem *problem, struct plan *plan);
/* The best plan as plan_make, then the next best that place otherwise (other nodes, order,
 * blocks, or size of a micro-batch), of those that a solver finds which decides everything:
 * ascending steps. More are looked at than for one plan alone. How many, 1 to most; -1 after an
 * error. */
int plan_rank(const struct problem *problem, struct plan *plan, int most);
/* The ops of a plan, from the arena; null after an error. */
struct schedule *plan_schedule(struct arena *arena, const struct problem *problem,
			       const struct plan *plan);

/* -- memory.c ------------------------------------------------------------------------------ */

/* What generates as stage s of a plan, of a problem with a generation; and all that its rank
 * allocates for it, where work has the buffers of links in it. */
struct generator_spec plan_generator(const struct problem *problem, const struct plan *plan,
				     int s);
struct generator_memory plan_generator_memory(const struct problem *problem,
					      const struct plan *plan, int s);

/* -- plan_simulate.c ----------------------------------------------------------------------- */

/* The plan's step as the simulator plays it, from the arena; null after an error (EXIT_CONFIG
 * where nothing is known of the speed of a node in use). */
struct simulation *plan_simulate(struct arena *arena, const struct problem *problem,
				 const struct plan *plan);

/* The step where every computation and message takes a random factor longer or shorter
 * (lognormal, mean 1, deviation `jitter`): of JITTER_DRAWS simulations the median, and what
 * nine in ten stay below. -1 after an error, as above. */
enum { JITTER_DRAWS = 200 };
struct jittered { double median_s, most_s; };
int plan_jitter(const struct problem *problem, const struct plan *plan, double jitter,
		struct jittered *steps);

/* -- cost.c -------------------------------------------------------------------------------- */

/* Where the predicted seconds of a node, or of the link from one to another, come from;
 * guessed: nothing is known. */
enum origin cost_origin(const struct problem *problem, int node);
enum origin link_origin(const struct problem *problem, int from, int to);
/* Where the prediction of a plan comes from: "measured", "declared", or "measured and
 * declared". */
const char *plan_origins(const struct plan *plan, const struct problem *problem);
/* What a stage's forward and backward of a micro-batch take at the declared pace of its node,
 * which must declare one. */
void plan_pace(const struct problem *problem, const struct plan *plan, int s, double *forward_s,
	       double *backward_s);

/* -- plan_check.c -------------------------------------------------------------------------- */

/* Asserts the invariants of a plan against its problem; -1 with the reason in why. */
int plan_check(const struct plan *plan, const struct problem *problem, char *why,
	       size_t why_bytes);

/* -- plan_json.c, plan_table.c ------------------------------------------------------------ */

/* plan.json (formats.md). What was not predicted is null. */
void plan_write(const struct plan *plan, const struct problem *problem, struct text *text);
/* In a line: "library emb 0-2 | physics 3-9 head, micro-batches of 1: 0.25 s a step". */
void plan_line(const struct plan *plan, const struct problem *problem, struct text *text);
/* The plan as a table for people. */
void plan_print(const struct plan *plan, const struct problem *problem, struct text *text);

/* -- plan_read.c --------------------------------------------------------------------------- */

/* The decisions of a plan.json, for problem.given: nodes, blocks, micro-batch, schedule,
 * solver; the rest is 0. -1 after errors (all of the file; EXIT_CONFIG, EXIT_DATA, EXIT_INPUT):
 * another model, an unknown node, a gap, an overlap. */
int plan_read(const char *path, const struct problem *problem, struct plan *plan);

/* The program that an independent solver can solve for the least J, at the plan's size of
 * micro-batch: lp.c. -1 after an error (EXIT_CONFIG: a node whose speed is not known). */
int plan_program(const struct plan *plan, const struct problem *problem, struct text *text);

/* -- explain.c ----------------------------------------------------------------------------- */

/* For people: what each stage does with a step, the other solvers' steps, what would help most.
 * -1 after an error (EXIT_CONFIG where a node in use declares no compute). */
int plan_explain(const struct plan *plan, const struct problem *problem, struct text *text);

/* -- uniform.c, proportional.c, manual.c --------------------------------------------------- */

/*
 * A solver either fills stage[].{node, first_block, blocks} and stages, in file order of the
 * nodes; or it decides everything, from numbers alone (instance.h). Rows of one table
 * (solver.c).
 */
struct instance;
struct pool;
struct solver {
	const char *name, *help;
	bool (*applicable)(const struct problem *problem);
	int (*solve)(const struct problem *problem, struct plan *plan);		/* or null: */
	/* Adds placements of an instance to a pool; returns what it proved that no J is below
	 * (0: nothing). */
	double (*search)(const struct instance *instance, struct pool *pool);
	/* its plan as it is, for comparison: none of the others is among the candidates */
	bool pure;
};
const struct solver *solver_find(const char *name);	/* null: unknown */
const char *const *solver_names(void);			/* ended by null */

#endif
