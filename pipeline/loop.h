/*
 * pipeline/loop.h - the training loop's state, and what its files need of each other: a step
 * (step.c), validation (validate.c), what rank 0 logs (record.c), the run (train.c).
 */
#ifndef EDGEPIPE_PIPELINE_LOOP_H
#define EDGEPIPE_PIPELINE_LOOP_H

#include "pipeline/internal.h"

struct loop {
	struct training *t;
	struct feed feed, valid_feed;
	struct executor *executor;	/* null without a stage */
	struct verdicts verdicts;
	struct metrics metrics;		/* rank 0, as are the next ones up to `logging` */
	struct progress progress;
	/* [2 * size]: of every rank, of this step and the one before */
	struct step_times *times;
	struct comm_request *times_request;	/* likewise; elsewhere two */
	/* of the step whose times are on their way; step 0: none */
	struct step_record record;
	struct step_times *pace;	/* of every rank: sums over the steps */
	bool warned;			/* that the machine cannot hold the declared speeds */
	bool logging;
	bool evaluates;			/* nothing but a validation, whose progress is said */
	struct step_times mine[2];	/* of this step and the one before */
	uint64_t place;			/* next sample of the stream */
	long long checkpointed;		/* step of the last checkpoint */
	double valid_before, valid_after;	/* losses; 0: none */
	double mark_s;			/* when the last step ended, or what came after it */
	char *path;			/* of metrics.jsonl */
	char awaited[32];		/* whose times rank 0 waits for */
};

/* -- train.c ------------------------------------------------------------------------------- */

/* A wait outside of the executor, for the watchdog: its section begins and ends. step -1:
 * none. */
void wait_begins(const struct loop *loop, int kind, const char *what, const char *peer,
		 long long step);
void wait_ends(const struct loop *loop);
/* Who is to blame when data do not travel: rank 0 sends them. */
const char *data_peer(const struct loop *loop);
/* Whether the validation set is due after this step. */
bool validates_after(const struct training *training, long long step);

/* -- step.c -------------------------------------------------------------------------------- */

/* What the executor is to do with a batch; train: or validate. */
struct step_data step_data(const struct training *training, long long step,
			   const struct feed_view *batch, bool train);
/* Starts the data of the next step. All ranks. */
int step_start_batch(struct loop *loop);
/* Runs one step. 0, an exit code that all ranks agree on, or -1 after a failed transfer.
 * Collective. */
int step_run(struct loop *loop, long long step);

/* -- validate.c ---------------------------------------------------------------------------- */

/* The whole validation set forward, in file order: the sum of the losses, on all ranks, and on
 * rank 0 and the last stage of how many tokens. Collective. -1 after a failed transfer. */
int validation_pass(struct loop *loop, long long step, double *loss, long long *tokens);
/* That, and its loss in the log; what begins after the step has begun already. As step_run. */
int validation_run(struct loop *loop, long long step);

/* -- record.c ------------------------------------------------------------------------------ */

/* All ranks: a step's times to rank 0, where they are waited for a step later. */
int record_send(struct loop *loop, long long step, const struct step_times *times);
/* Rank 0, as are the rest: keeps a step's record until its times have come, and writes the one
 * before. */
int record_keep(struct loop *loop, struct step_record record);
/* Writes the kept record, if there is one. */
int record_write(struct loop *loop);
void record_valid(struct loop *loop, long long step, double loss, long long tokens);
/* The first and the last line of a run. */
void record_run(struct loop *loop);
void record_end(struct loop *loop, long long first, int status);

#endif
