/*
 * pipeline/ - schedules as plain data, their proof, the executor that runs them, and the training
 * loop. It does not know what a plan is: it is handed "this rank runs this stage, these ranks run
 * the others, this schedule".
 */
#ifndef EDGEPIPE_PIPELINE_H
#define EDGEPIPE_PIPELINE_H

#include "base/base.h"
#include "comm/comm.h"
#include "model/model.h"

/* -- schedule.c ---------------------------------------------------------------------------- */

enum op_kind {
	OP_RECV_FORWARD,	/* activations of a micro-batch from the stage before */
	OP_FORWARD,
	OP_SEND_FORWARD,	/* to the stage after */
	OP_RECV_BACKWARD,	/* gradients from the stage after */
	OP_BACKWARD,
	OP_SEND_BACKWARD,	/* to the stage before */
	OP_UPDATE,		/* the optimizer step; micro is 0 */
};
struct op { enum op_kind kind; int micro; };

/* What every stage does in one step, in order. Stage s has count[s] ops and room[s] slots: micro-batch
 * m lives in slot m % room[s] from its forward (or the receive before it) to its backward. */
struct schedule {
	const char *name;
	int stages, micro_batches;
	struct op **op;
	int *count;
	int *room;
};
/*
 * "gpipe": all forwards, then all backwards. "1f1b": stage s warms up with stages - 1 - s forwards, then
 * alternates; at most stages - s in flight. "forward": forwards alone, for validation (room 1, no update).
 * Backwards come in micro-batch order in all of them (law 9). All memory from the arena. Null after an error
 * (EXIT_CONFIG: unknown name, with the nearest; EXIT_BUG: sizes below 1).
 */
struct schedule *schedule_make(struct arena *arena, const char *name, int stages,
			       int micro_batches);
/* The forwards, backwards of one stage as a sentence: "F0 F1 B0 B1". */
void schedule_write(const struct schedule *schedule, int stage, struct text *text);
/* The names that a job may ask for, ended by null ("forward" is not one of them). */
const char *const *schedule_names(void);

/* -- proof.c ------------------------------------------------------------------------------- */

/*
 * Proves a schedule: every micro-batch goes forward once and backward once (or, without any backward,
 * forward once), in order, each after its receive; every send has its receive; backwards in micro-batch
 * order; never more in flight than room; no slot is reused before its backward and its sends are done;
 * and no deadlock when each direction of each cut is a queue that holds `queue` messages (a send waits while
 * its queue is full; queue >= 1). 0, or -1 with the reason in why.
 */
int schedule_check(const struct schedule *schedule, int queue, char *why, size_t why_bytes);

/* -- executor.c ---------------------------------------------------------------------------- */

/* Who runs what: rank_of_stage[s] for every stage; stage is -1 on a rank that has none. */
struct places {
	int stages, stage;
	const int *rank_of_stage;
};

/* Sums over one step on one stage, seconds and bytes. forward_s and backward_s: computing only. */
struct step_times {
	double forward_s, backward_s, idle_s, send_s;
	double sent_bytes, peak_bytes;
};

/* The data of one step as a stage needs it: all micro-batches, one after the other. */
struct step_data {
	uint64_t seed;			/* of the run, for dropout */
	uint32_t step;
	int tokens;			/* T */
	const int32_t *ids, *labels;	/* (micro_batches, n) or null */
	float loss_scale;
	bool train;
	/* Called after each forward; null: not. */
	void (*observe)(void *arg, int micro);
	void *observe_arg;
};

/*
 * The executor interprets a schedule's ops for one stage; it knows none by name. It holds the requests of the
 * transfers; sends are asynchronous and drained before executor_run returns.
 */
struct executor;
struct executor *executor_open(struct comm *comm, struct stage *stage,
			       const struct places *places, int sequences, size_t cut_bytes,
			       int slots);
/* Runs the ops of this rank's stage up to (not including) OP_UPDATE. *loss += the sum over the step's trained
 * tokens, folded micro-batch by micro-batch (on the head's rank). -1 after a failed transfer. */
int executor_run(struct executor *executor, const struct schedule *schedule,
		 const struct step_data *data, double *loss, struct step_times *times);
void executor_close(struct executor *executor);

/* -- metrics.c ----------------------------------------------------------------------------- */

/* RUN/metrics.jsonl (formats.md), written by rank 0: one write() a line. */
struct metrics { int fd; const char *path; };
/* Opens for appending; drops every line of a later step than `step`, and unless the run had finished, how it
 * ended. */
int metrics_open(struct metrics *metrics, const char *path, long long step, bool finished);
/* One line; the text has no newline. A failed write is warned about once and does not stop training. */
void metrics_line(struct metrics *metrics, const struct text *line);
/* What was written so far survives a power cut: before a checkpoint is committed. */
void metrics_sync(struct metrics *metrics);
void metrics_close(struct metrics *metrics);

/* Peak resident memory of this process (VmHWM), and what is resident now (VmRSS), bytes. */
double memory_peak_bytes(void);
double memory_resident_bytes(void);

/* -- train.c ------------------------------------------------------------------------------- */

enum rate_schedule { RATE_LINEAR, RATE_COSINE, RATE_CONSTANT };

/* The `train` section of a job. */
struct train_config {
	long long batch, micro_batch;	/* sequences; micro_batch 0: auto */
	long long steps;		/* 0: not given */
	double epochs;			/* 0: not given */
	double learning_rate;
	int schedule;			/* enum rate_schedule */
	long long warmup;
	double weight_decay;
	struct numbers betas;		/* two */
	double epsilon, clip;
	long long seed;
	int precision, kernels;		/* words of the job's table */
	long long validate_every, checkpoint_every;
};
/* The rate of a step (from 1), as transformers' get_linear_/get_cosine_schedule_with_warmup or constant
 * with warm-up: the first step of a warm-up has rate 0. */
double learning_rate_at(const struct train_config *config, long long step, long long steps);

/* Everything that the loop needs; set up by launch/. All ranks fill it; the fields marked (0) matter on
 * rank 0 only. */
struct training {
	struct comm *comm;
	struct places places;
	struct stage *stage;			/* null on a rank without a stage */
	int first_block, blocks;		/* of that stage */
	const struct schedule *schedule, *forward;
	const struct lora *lora;
	const struct model_config *model;
	const struct train_config *config;
	long long steps;			/* resolved */
	int tokens, sequences, micro_batches;	/* T; of a micro-batch; M */
	bool shuffle;
	const struct dataset *train, *valid;	/* (0) valid may be null */
	bool validate;				/* whether there is a validation set, on all ranks */
	const char *run;			/* (0) the run directory */
	const char *dump;			/* --dump, or null; same on all ranks */
	const char *const *stage_name;		/* (0) node of each stage */
	const char **identity, **circumstance;	/* (0) for checkpoints */
	struct checkpoint checkpoint;		/* (0) buffers and where to start; step 0: anew */
	double predicted_step_s;		/* (0) 0: none */
};
/*
 * Trains from training->checkpoint.step + 1 to steps: step lines to metrics.jsonl, progress with ETA to
 * stdout, validation, checkpoints, adapter/. Collective. 0, or an exit code, the same on all ranks.
 */
int training_run(struct training *training);

#endif
