/*
 * pipeline/ - schedules as plain data, their proof, the executor that runs them, and the
 * training loop. It does not know what a plan is: it is handed "this rank runs this stage,
 * these ranks run the others, this schedule".
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

/*
 * What every stage does in one step, in order. Stage s has count[s] ops. Its room and its
 * edges:
 *
 *     room[s]   micro-batches in flight: m's activations are kept in slot m % room[s] from its
 *               forward to its backward
 *     edge[s]   buffers of the cuts: m's input, output and gradients use number m % edge[s],
 *               from the receive of its activations until the send of its gradient has ended;
 *               edge[s] >= room[s]
 *
 * How ops are run: sends and receives never block, they say that the transfer may start. A
 * transfer passes once its receive has been posted too; receives of a direction pass in order.
 * A forward waits for its input, and until the transfers that use its edge buffer have ended; a
 * backward waits for its gradient. A receive whose edge buffer is still being sent from waits
 * for that without holding up the ops after it.
 */
struct schedule {
	const char *name;
	int stages, micro_batches;
	struct op **op;
	int *count;
	int *room, *edge;
};

/* What a step costs, seconds; what the simulator and the bound know of stages and links. */
struct costs {
	int stages;
	const double *forward_s, *backward_s;	/* [stages]: of one micro-batch */
	const double *update_s;			/* [stages], or null: nothing */
	/* [stages - 1]: cut i lies between stages i and i + 1. How long one message occupies
	 * the link, and the latency after it, in each direction. */
	const double *link_forward_s, *link_backward_s, *latency_forward_s, *latency_backward_s;
	/* [stages - 1], or null: numbers of the interfaces that a direction of a cut leaves and
	 * arrives through, which it may share with others; -1: none. */
	const int (*nic_forward)[2], (*nic_backward)[2];
	int nics;
	/* Jitter: in the simulator every computation and message takes a lognormal factor of
	 * mean 1 and this deviation longer, drawn anew for each, from the seed. 0: none. */
	double jitter;
	uint32_t jitter_seed;
};

struct schedule_want {
	const char *name;
	int stages, micro_batches;
	/* What follows matters to "eager" alone. */
	/* null: nothing is known, transfers are taken to be shorter than a stage */
	const struct costs *costs;
	/* [stages]: what memory allows, at least 1; null: no limit */
	const int *room_most;
	/* the greedy order rather than the strict one; needs costs */
	bool greedy;
};
/*
 * "eager" (the default): 1F1B with as many micro-batches in flight as hide the links, by the
 * ceil rule K_i = K_{i+1} + 1 + ceil((l_f + l_b + 2a) / T), T the longest stage or link, at
 * most room_most. Greedy order: what a stage does next is its oldest ready backward, else a
 * forward when it has room, as the simulator with these costs sees it; better where memory
 * keeps K below the rule. Backwards come in micro-batch order in all of them (law 9). "gpipe":
 * all forwards, then all backwards. "1f1b": stage s warms up with stages - 1 - s forwards, then
 * alternates; at most stages - s in flight. "forward": forwards alone, for validation (room 1,
 * no update). All memory from the arena. Null after an error (EXIT_CONFIG: unknown name, with
 * the nearest; EXIT_BUG: sizes or room below 1, greedy without costs, costs of another number
 * of stages).
 */
struct schedule *schedule_make(struct arena *arena, const struct schedule_want *want);
/* The forwards, backwards of one stage as a sentence: "F0 F1 B0 B1". */
void schedule_write(const struct schedule *schedule, int stage, struct text *text);
/* The names that a job may ask for, ended by null ("forward" is not one of them). */
const char *const *schedule_names(void);
/* Rank 0's schedule on all ranks (mine matters there alone), in the arena; null on all of them
 * after a failed transfer, where rank 0 has none, or (EXIT_BUG) where the proof refuses it.
 * Collective. */
struct schedule *schedule_share(struct arena *arena, struct comm *comm,
				const struct schedule *mine);

/* -- proof.c ------------------------------------------------------------------------------- */

/*
 * Proves a schedule: every micro-batch goes forward once and backward once (or, without any
 * backward, forward once), in order, each after its receive; every send has its receive;
 * backwards in micro-batch order; never more in flight than room; no edge buffer is taken
 * before its backward and its sends are done; and no deadlock even if nothing is buffered on
 * the way: a transfer passes only when both ends are ready for it. 0, or -1 with the reason in
 * why.
 */
int schedule_check(const struct schedule *schedule, char *why, size_t why_bytes);

/* -- simulate.c ---------------------------------------------------------------------------- */

/* What a step of a schedule takes, by playing its ops with costs: every stage and every
 * direction of every link is a serial resource in order; latency comes after occupancy. */
struct simulation {
	double step_s;			/* until the last stage has updated */
	double *busy_s;			/* [stages]: computing */
	double *end_s;			/* [stages]: of the last op */
	/* [stages * micro_batches], micro-batches inner */
	double *forward_start_s, *backward_start_s;
	double *link_forward_busy_s, *link_backward_busy_s;	/* [stages - 1] */
	/* [(stages - 1) * micro_batches], likewise */
	double *link_forward_start_s, *link_backward_start_s;
};
/* Null after an error (a schedule that the proof refuses). Memory from the arena. */
struct simulation *simulate(struct arena *arena, const struct schedule *schedule,
			    const struct costs *costs);

/* -- clients.c ----------------------------------------------------------------------------- */

/*
 * Clients own their data and run the first blocks, each on its own device: first stages side by
 * side, in front of the servers' stage 0, each with links of its own up to it and down from it.
 * Micro-batch m is client m % count's. Seconds are of one micro-batch, all arrays [count].
 */
struct clients {
	int count;
	const double *forward_s, *backward_s;
	const double *up_s, *down_s;		/* how long a message occupies the link */
	const double *latency_up_s, *latency_down_s;	/* after it */
	/* interfaces, as of the servers' costs; or null */
	const int (*nic_up)[2], (*nic_down)[2];
};
/*
 * What a step takes, as simulate(), of clients in front of servers; count 0: of the servers
 * alone. Every device has its room: micro-batches in flight, of clients first, [count +
 * stages]. Strict order (1F1B with these rooms; room M: GPipe) or greedy; what a server sends
 * and receives passes in micro-batch order.
 */
double simulate_clients(const struct costs *servers, const struct clients *clients,
			int micro_batches, const int *room, bool greedy);

/* -- bound.c ------------------------------------------------------------------------------- */

/* No schedule of these stages on these links takes less (all micro-batches pass every stage,
 * link and interface, with whatever comes before the first and after the last of them);
 * binding, if not null, says which kind of resource it is ("stage", "forward link", "backward
 * link", "interface"), index which one. Without update_s. */
double step_bound(const struct costs *costs, int micro_batches, const char **binding,
		  int *index);

/* -- trace.c, trace_json.c ----------------------------------------------------------------- */

/* What one rank did when, of the last steps: a ring, allocated when it is opened. */
struct trace;
struct trace *trace_open(int steps, int micro_batches);
/* What that takes on a rank, at most, and on the one that writes the file (of so many ranks; 0:
 * on another one). */
double trace_bytes(long long steps, long long micro_batches, int ranks);
/* A forward, backward or update that was computed. Does nothing without a trace. */
void trace_add(struct trace *trace, struct op op, uint32_t step, double start_s, double end_s);
/* Where a stream notes its transfers, of the kind of their op. */
struct transfer_log *trace_log(struct trace *trace, enum op_kind kind);
void trace_close(struct trace *trace);
/* What all ranks noted, to rank 0, which writes it to a file in Chrome's trace format
 * (ui.perfetto.dev opens it): a process a node, a thread for computing and one for every
 * direction of its links, times by rank 0's clock. When everything has left. trace: null on a
 * rank without a stage. Collective. 0, -1 after a failed transfer, or an exit code (rank 0
 * alone). */
struct places;
int trace_write(const struct trace *trace, struct comm *comm, const struct places *places,
		const char *const *stage_name, int steps, const char *path);

/* -- executor.c ---------------------------------------------------------------------------- */

/* Who runs what: rank_of_stage[s] for every stage; stage is -1 on a rank that has none. */
struct places {
	int stages, stage;
	const int *rank_of_stage;
};

/* Sums over one step on one stage, seconds and bytes. forward_s and backward_s: computing only,
 * at the declared pace where that is emulated; declared_s: what it should have been there. */
struct step_times {
	double forward_s, backward_s, idle_s, send_s;
	double sent_bytes, peak_bytes;
	double declared_s;
};

/* The data of one step as a stage needs it: all micro-batches, one after the other. */
struct step_data {
	uint32_t step;
	const int32_t *ids, *labels;	/* (micro_batches, n) or null */
	/* Of packed sequences, else null: (micro_batches, segments); those that cover a
	 * micro-batch's rows count. */
	const struct segment *segment;
	int segments;
	float loss_scale;
	bool train;
	/* Called after each forward; null: not. */
	void (*observe)(void *arg, int micro);
	void *observe_arg;
};

/* The cut between two stages: how it travels, in each direction, and what its links are
 * called. */
struct cut {
	enum codec_kind forward, backward;
	const char *forward_name, *backward_name;	/* 'library > lab' */
	int after_block;
};

struct executor_spec {
	struct comm *comm;			/* a front: see comm_serve */
	struct stage *stage;
	const struct places *places;
	const struct cut *cuts;			/* [stages - 1] */
	uint64_t seed;				/* of the run */
	int sequences, tokens, channels;	/* of a micro-batch */
	int slots, edges;			/* of the stage */
	/* false: computing waits for every send to leave, for comparison */
	bool overlap;
	struct watchdog *watchdog;		/* or null */
	/* Emulated compute: what an op is held to, seconds; 0: nothing. valid: a forward of the
	 * validation. */
	double pace_forward_s, pace_backward_s, pace_valid_s;
	struct trace *trace;			/* or null: training passes are noted there */
};

/*
 * The executor interprets a schedule's ops for one stage; it knows none by name. A pass is one
 * run through the ops.
 */
struct executor;
/* spec is copied, what it points to must live as long. Null after an error. */
struct executor *executor_open(const struct executor_spec *spec);
/* Begins a pass: posts the receives that stand before everything else, so that the neighbour's
 * first message finds them. Once the pass before has run. */
int executor_begin(struct executor *executor, const struct schedule *schedule, uint32_t step);
/* Runs the ops of this rank's stage up to (not including) OP_UPDATE. *loss += the sum over the
 * step's trained tokens, folded micro-batch by micro-batch (on the head's rank). Its last sends
 * may still be under way. -1 after a failed transfer. */
int executor_run(struct executor *executor, const struct step_data *data, double *loss,
		 struct step_times *times);
/* Waits until everything has left. */
int executor_drain(struct executor *executor);
void executor_close(struct executor *executor);

/* -- metrics.c ----------------------------------------------------------------------------- */

/* RUN/metrics.jsonl (formats.md), written by rank 0: one write() a line. */
struct metrics { int fd; const char *path; };
/* Opens for appending; drops every line of a later step than `step`, and unless the run had
 * finished, how it ended. */
int metrics_open(struct metrics *metrics, const char *path, long long step, bool finished);
/* One line; the text has no newline. A failed write is warned about once and does not stop
 * training. */
void metrics_line(struct metrics *metrics, const struct text *line);
/* What was written so far survives a power cut: before a checkpoint is committed. */
void metrics_sync(struct metrics *metrics);
void metrics_close(struct metrics *metrics);

/* Peak resident memory of this process (VmHWM), and what is resident now (VmRSS), bytes. */
double memory_peak_bytes(void);
double memory_resident_bytes(void);

/* -- feed.c -------------------------------------------------------------------------------- */

/* What a rank holds of where samples lie in packed sequences, of which each has so many
 * segments at most; fills: rank 0. */
double feed_segments_bytes(long long batch, int segments, bool fills);

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
	int recompute;			/* enum recompute */
	int precision, kernels, weights;	/* words of the job's table */
	long long validate_every, checkpoint_every;
	long long trace;		/* last steps to trace; 0: none */
};
/* The rate of a step (from 1), as transformers' get_linear_/get_cosine_schedule_with_warmup or
 * constant with warm-up: the first step of a warm-up has rate 0. */
double learning_rate_at(const struct train_config *config, long long step, long long steps);

/* What a rank may hang in: kinds of the watchdog's sections. WATCH_STATE: files, and what goes
 * into them; WATCH_BETWEEN: whatever lies between the others; WATCH_KINDS: the first one that
 * is free for others. */
enum {
	WATCH_COMPUTE,
	WATCH_ACTIVATIONS,
	WATCH_GRADIENTS,
	WATCH_SEND,
	WATCH_DATA,
	WATCH_NORM,
	WATCH_VERDICT,
	WATCH_VALID,
	WATCH_TIMES,
	WATCH_STATE,
	WATCH_SETTLE,
	WATCH_BETWEEN,
	WATCH_KINDS
};

/* Sums over the steady steps of a run: all but the first, which warms up. */
struct measured {
	long long steps;
	/* [ranks], given by the caller; peak_bytes is no sum */
	struct step_times *times;
	/* Each one's seconds, room given by the caller: plain ones from the front, those that a
	 * validation follows from the back. */
	double *took_s;
	long long room, plain;
};
/* The step of the report and of the outcome: the median of the plain steady ones; of all of
 * them where a validation follows every one. Sorts took_s. 0: none. */
double measured_step_s(struct measured *measured);
/* The upper median; sorts. 0 of none. */
double median_of(double *values, long long count);

/* Everything that the loop needs; set up by launch/. All ranks fill it; the fields marked (0)
 * matter on rank 0 only. */
struct training {
	struct comm *comm;			/* a front: see comm_serve */
	struct places places;
	struct stage *stage;			/* null on a rank without a stage */
	int first_block, blocks;		/* of that stage */
	const struct schedule *schedule, *forward;
	const struct lora *lora;
	const struct model_config *model;
	const struct train_config *config;
	struct executor_spec executor;		/* all but comm and stage */
	long long steps;			/* resolved */
	int tokens, sequences, micro_batches;	/* T; of a micro-batch; M */
	uint64_t samples;			/* of a step: sequences */
	/* of emulated compute, for what is said of it */
	double slowdown;
	bool shuffle;
	const struct dataset *train, *valid;	/* (0) valid may be null */
	/* (0) of these sets, where sequences are packed */
	struct packing *packing, *valid_packing;
	/* of a sequence at most, its padding too; 0: sequences are not packed */
	int segments;
	/* whether there is a validation set, on all ranks; */
	bool validate;
	uint64_t valid_samples;			/* and its size, in sequences */
	const char *run;			/* (0) the run directory */
	const char *dump;			/* --dump, or null; same on all ranks */
	const char *const *stage_name;		/* (0) node of each stage */
	const char **identity, **circumstance;	/* (0) for checkpoints */
	/* (0) buffers and where to start; step 0: anew */
	struct checkpoint checkpoint;
	double predicted_step_s;		/* (0) 0: none */
	/* (0) filled: what steady steps took; or null */
	struct measured *measured;
	/* whose ops are timed, in all steps but the first where there are three; or null */
	struct device *timed;
	/* (0) said before everything is given up: how to go on */
	const char *last_words;
};
/*
 * Trains from training->checkpoint.step + 1 to steps: step lines to metrics.jsonl, progress
 * with ETA to stdout, validation, checkpoints, adapter/. Collective. 0, or an exit code, the
 * same on all ranks.
 */
int training_run(struct training *training);

/* -- evaluate.c ---------------------------------------------------------------------------- */

/* What forward passes over a data set found. */
struct evaluation {
	double loss;			/* mean over the trained tokens, nats */
	long long tokens;		/* of them */
	double seconds;
};
/*
 * One forward pass over training->valid, in file order, by the schedule `forward`; what only
 * training needs may be left out. *result is complete on rank 0. Collective. 0, or an exit
 * code, the same on all ranks: EXIT_DIVERGED where the loss is no number, EXIT_DATA where no
 * token counts.
 */
int evaluation_run(struct training *training, struct evaluation *result);

/* -- generate.c ---------------------------------------------------------------------------- */

/* Rows of a prompt that go round at once, at most. */
enum { GENERATE_ROWS = 128 };
/* Why a prompt is not gone on with: an end token; a stop text; the tokens that were asked for;
 * no room. */
enum finish { FINISH_NOT, FINISH_END, FINISH_STOP, FINISH_TOKENS, FINISH_ROOM };
struct prompt { const int32_t *id; int count; };
/* token_*: of the link to the next stage, heads included. prompt_s: while prompts were on their
 * way; token_s: while none was. */
struct generation_stats {
	double compute_s, prompt_s, token_s, token_bytes;
	long long tokens_sent, tokens;
};

/* Everything that generating needs; set up by launch/, the same on all ranks but for what is a
 * rank's own. */
struct generation {
	struct comm *comm;			/* a front: see comm_serve */
	struct places places;
	const struct cut *cut;			/* [stages - 1]: names of links */
	struct generator *generator;		/* null on a rank without a stage */
	int width, vocabulary;
	const struct prompt *prompt;
	int prompts;
	int tokens;				/* new ones of a prompt, at most */
	/* prompts at once; tokens of one, with what follows */
	int sequences, room;
	/* rows of a prompt at once, at most GENERATE_ROWS */
	int piece;
	struct sampling sampling;
	const int32_t *end;			/* end tokens */
	int ends;
	struct watchdog *watchdog;		/* or null */
	void *arg;
	/* On the last stage: whether the text of a prompt, worked on as that sequence, stops
	 * with this id: 1, 0, -1 after an error. Or null. */
	int (*stops)(void *arg, int sequence, int prompt, int32_t id);
	/* that it holds in all; that rank 0 holds of what it is told */
	double text_bytes, told_bytes;
	/* On rank 0: a token, in the order in which they are found. -1 after an error. */
	int (*tell)(void *arg, int prompt, int32_t id, enum finish finish);
	/* filled: prompt_s, token_s on all ranks, tokens on rank 0 */
	struct generation_stats stats;
};
/* Collective. 0, or an exit code, with which everything has been aborted. */
int generation_run(struct generation *generation);
/* What it allocates, on the last stage or another one; of it, what is sent from. */
double generation_bytes(const struct generation *generation, bool last);
double generation_sent_bytes(const struct generation *generation);

#endif
