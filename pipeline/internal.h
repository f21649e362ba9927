/*
 * The parts of the training loop: who gets which data (feed.c), where the adapters' state goes (state.c), what
 * --dump writes (dump.c) and what people and files are told (progress.c).
 */
#ifndef EDGEPIPE_PIPELINE_INTERNAL_H
#define EDGEPIPE_PIPELINE_INTERNAL_H

#include "pipeline/pipeline.h"

enum { TAG_IDS = 11, TAG_LABELS, TAG_NORM, TAG_LOSS, TAG_STATE, TAG_DUMP };


/* -- feed.c -------------------------------------------------------------------------------- */

/* The ids and labels of one step. Rank 0 has both, the first stage the ids, the last one the labels. */
struct feed {
	struct comm *comm;
	int first_rank, last_rank;	/* of the first and the last stage */
	size_t count;			/* batch * T */
	int32_t *ids, *labels;
	struct comm_request send_ids, send_labels;
};
void feed_open(struct feed *feed, const struct training *training);
/* On rank 0: fills the batch with samples place, place + 1, ...; those from `end` on are empty. Returns the
 * number of trained tokens. */
long long feed_fill(struct feed *feed, const struct dataset *dataset,
		    const struct training *training, bool shuffle, uint64_t place, uint64_t end);
/* Sends the batch to where it is needed. Collective. */
int feed_share(struct feed *feed);
void feed_close(struct feed *feed);

/* -- state.c ------------------------------------------------------------------------------- */

/* One family of values (elements of all stages, global order) to rank 0, or from it. Collective. `all`
 * matters on rank 0 only. */
int state_gather(const struct training *training, enum stage_family family, float *all);
int state_scatter(const struct training *training, enum stage_family family, float *all);

/* -- dump.c -------------------------------------------------------------------------------- */

struct dump;
struct dump *dump_open(const struct training *training);
/* step_data.observe: keeps what the micro-batch that just went forward left. */
void dump_observe(void *dump, int micro);
/* Gathers everything on rank 0 and writes DIR/step-00000001.safetensors. Collective. */
int dump_write(struct dump *dump, float loss);
void dump_close(struct dump *dump);

/* -- progress.c ---------------------------------------------------------------------------- */

/* What rank 0 knows of a step when it is over. */
struct step_record {
	long long step, steps;
	float loss, grad_norm, learning_rate;
	long long tokens, trained_tokens;
	double step_s;
	const struct step_times *times;	/* of every stage */
};
struct progress {
	double start_s, last_s;		/* of the run; of the last printed line */
	long long first_step;
	double training_s;		/* steps alone, without validation and checkpoints */
};
/* The step line of metrics.jsonl. */
void step_line(const struct training *training, const struct step_record *record,
	       struct metrics *metrics);
/* A line for people, at most one a second, and always for the first and the last step. */
void step_say(struct progress *progress, const struct training *training,
	      const struct step_record *record);

#endif
