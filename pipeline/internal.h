/*
 * The parts of the training loop: what a step decides (verdict.c), who gets which data
 * (feed.c), where the adapters' state goes (state.c), what --dump writes (dump.c) and what
 * people and files are told (progress.c).
 */
#ifndef EDGEPIPE_PIPELINE_INTERNAL_H
#define EDGEPIPE_PIPELINE_INTERNAL_H

#include "pipeline/pipeline.h"

enum {
	TAG_IDS = 11,
	TAG_LABELS,
	TAG_VALID_IDS,
	TAG_VALID_LABELS,
	TAG_NORM,
	TAG_VERDICT,
	TAG_TIMES,
	TAG_LOSS,
	TAG_STATE,
	TAG_DUMP,
	TAG_CLOCK,
	TAG_SEGMENTS,
	TAG_VALID_SEGMENTS
};

/* -- trace.c, trace_json.c ----------------------------------------------------------------- */

/* Something that a stage did; a message that it received or sent. */
struct trace_event {
	double start_s, end_s;
	int32_t kind, micro;		/* of its op */
	uint32_t step;
	int32_t stage;
};
/* Everything in a trace, oldest first within a kind, as a malloc'ed array; its length in
 * *count. */
struct trace_event *trace_events(const struct trace *trace, int stage, size_t *count);
/* Adds the file's text. All events by one clock, of the same `steps` last steps where they go
 * back that far. */
void trace_json(struct trace_event *event, size_t count, int steps, const struct places *places,
		const char *const *stage_name, struct text *text);

/* -- feed.c -------------------------------------------------------------------------------- */

enum { FEED_BATCHES = 2 };

struct labels;
/* One batch. Rank 0 has everything, the first stage the ids, the last one the labels, each one
 * the segments. */
struct feed_batch {
	int32_t *ids;
	struct labels *labels;
	/* (micro-batches, segments of one); null where sequences are not packed */
	struct segment *segment;
	struct comm_request ids_request, labels_request;
	struct comm_request *segment_request;	/* [size]: elsewhere the first */
};
struct feed {
	struct comm *comm;
	const struct places *places;
	int first_rank, last_rank;	/* of the first and the last stage */
	int ids_tag, labels_tag, segment_tag;
	size_t count;			/* batch * T */
	size_t segments;		/* of all micro-batches, room for them */
	struct packed_sample *sample;	/* rank 0: of a row */
	uint64_t *number;		/* rank 0, [segments]: of their samples */
	struct feed_batch batch[FEED_BATCHES];
	unsigned started, taken;
};
/* Where rank 0 takes sequences from, packed ones where there is a packing; those of places from
 * `end` on are empty. */
struct feed_source {
	const struct dataset *dataset;
	struct packing *packing;
	bool shuffle;
	uint64_t end;
};
/* The tags of a feed. */
struct feed_tags {
	int ids, labels, segments;
};
/* A batch as a stage needs it: null, 0 where this rank does not have it. */
struct feed_view {
	const int32_t *ids, *labels;
	const struct segment *segment;	/* see struct step_data */
	long long trained;		/* on rank 0 and the last stage */
};
void feed_open(struct feed *feed, const struct training *training, struct feed_tags tags);
/* All ranks: starts the next batch, samples place, place + 1, ...; at most FEED_BATCHES are
 * started and not yet given up by another start. */
int feed_start(struct feed *feed, const struct training *training,
	       const struct feed_source *source, uint64_t place);
/* All ranks: waits for the oldest batch that was not taken yet. */
int feed_next(struct feed *feed, struct feed_view *view);
/* Waits until everything has left. */
int feed_settle(struct feed *feed);
void feed_close(struct feed *feed);

/* -- state.c ------------------------------------------------------------------------------- */

/* One family of values (elements of all stages, global order) to rank 0, or from it.
 * Collective. `all` matters on rank 0 only. */
int state_gather(const struct training *training, enum stage_family family, float *all);
int state_scatter(const struct training *training, enum stage_family family, float *all);

/* -- dump.c -------------------------------------------------------------------------------- */

struct dump;
/* Room for what --dump gathers of a step. */
struct dump *dump_open(const struct training *training);
/* step_data.observe: keeps what the micro-batch that just went forward left. */
void dump_observe(void *dump, int micro);
/* Gathers everything on rank 0 and writes DIR/step-00000001.safetensors. Collective. */
int dump_write(struct dump *dump, float loss);
void dump_close(struct dump *dump);

/* -- verdict.c ----------------------------------------------------------------------------- */

/* What a step's end decides, the same on all ranks. */
struct verdict {
	double squares;			/* of the gradient, all stages */
	double loss;			/* mean over the trained tokens */
	int code;			/* EXIT_DATA where there was no trained token */
};
/*
 * How it travels: with the last gradients from the last stage to the first, each adding its own
 * squares (tensor by tensor, in global order: law 9); from there ahead of the first activations
 * of the next step back to the last, and to the ranks without a stage. No barrier, and no
 * message that the pipeline did not wait for anyway.
 */
struct verdicts {
	const struct training *training;
	struct verdict up, down;	/* as received */
	struct comm_request recv_up, recv_down;
	struct verdict out_up, out_down;
	struct comm_request send_up, *send_down;	/* [size] */
};
void verdicts_open(struct verdicts *verdicts, const struct training *training);
/* Posts the receives of a step, before its first op. */
int verdicts_expect(struct verdicts *verdicts);
/* After the last backward: adds what this rank knows, and passes it on. loss: the head's sum;
 * trained: its tokens. */
int verdicts_add(struct verdicts *verdicts, double loss, long long trained);
/* Waits for the verdict, and passes it on. */
int verdicts_wait(struct verdicts *verdicts, struct verdict *verdict);
/* Waits until everything has left. */
int verdicts_settle(struct verdicts *verdicts);
void verdicts_close(struct verdicts *verdicts);

/* -- progress.c ---------------------------------------------------------------------------- */

/* What rank 0 knows of a step when it is over. */
struct step_record {
	long long step, steps;
	float loss, grad_norm, learning_rate;
	long long tokens, trained_tokens;
	double step_s;
	const struct step_times *times;	/* of every rank */
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
/* The same of a pass through `all` samples, of which so many are done. */
void pass_say(struct progress *progress, uint64_t done, uint64_t all);

#endif
