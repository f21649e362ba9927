/*
 * One run of `edgepipe train` on one rank, from the options to the training loop. Set-up goes through phases;
 * every phase that can fail on one rank ends in session_agree, so that all ranks fail together and one fault is
 * said once, by rank 0.
 */
#ifndef EDGEPIPE_LAUNCH_SESSION_H
#define EDGEPIPE_LAUNCH_SESSION_H

#include <sys/types.h>

#include "comm/comm.h"
#include "launch/launch.h"
#include "pipeline/pipeline.h"
#include "profiler/profiler.h"

/* What the command line asked for. Texts belong to argv. */
struct train_options {
	const char *command;		/* "train", "profile", "eval" */
	const char *topology, *out, *dump, *plan;
	const char *profile;		/* train: to plan with; profile: to be written */
	const char *adapter, *data;	/* eval: an adapter or run directory; in place of data.valid */
	bool resume, overwrite, profile_ops;
	const char **set;		/* --set, in order */
	int set_count;
};

/* What every rank tells the others about itself. Plain data. */
struct rank_facts {
	struct hardware hardware;
	struct digest build, configuration, model, headers;
	char build_text[160], blas[96];
	int threads;
	enum dtype dtype;		/* that it computes in */
	pid_t pid;
	double memory_limit_bytes, overhead_bytes;
	bool memory_declared;
};

/* What rank 0 found in the data and everybody must know. Plain data. */
struct data_facts {
	int tokens;			/* T */
	unsigned long long train_samples, valid_samples;	/* sequences, where they are packed */
	int segments;			/* of a packed sequence, at most, its padding too; 0: they are not packed */
	long long steps;
};

/* What this rank's device can do at most, measured: FLOP/s of a large product (a cube of that side; 0: none of that dtype
 * was measured), bytes/s of a large copy. */
struct op_limits {
	struct product_limit { double flops_s; int side; } product[DTYPE_I64 + 1];
	double memory_bytes_s, copy_bytes;
};

struct session {
	struct train_options options;
	struct job job;
	struct comm *comm;
	struct rank_facts *facts;	/* of all ranks, on all ranks */
	double library_bytes;		/* that libraries take and give back while they multiply */
	struct model_config *model;
	struct weights *weights;
	struct lora *lora;
	struct dataset *train, *valid;	/* rank 0 */
	struct packing *packing, *valid_packing;	/* likewise, where sequences are packed */
	struct data_facts data;
	struct digest weights_digest;	/* of all weights that are run */
	const struct generation *generation;	/* as far as it is known before the plan; or null */
	struct problem problem;
	struct plan plan, given;	/* given: what --plan decided, on rank 0 */
	struct schedule *schedule, *forward;	/* of training; of validation */
	int *threads;			/* per node, for the problem; so are the next three */
	enum dtype *dtypes;
	double *memory_limit_bytes, *overhead_bytes;
	int *rank_of_stage;
	const char **stage_name;
	struct profile *profile;	/* what was measured, or null */
	struct device *device;
	struct op_limits op_limits;	/* --profile-ops */
	struct stage *stage;
	int slots, edges;		/* of that stage */
	struct cut *cuts;		/* between the plan's stages */
	bool *passes;			/* cuts inside this rank's stage, per block */
	float *frame;			/* for them */
	struct comm *wire;		/* comm, or what holds it to the declared links */
	struct link_trace **traces;	/* of links.between, in its order */
	float *values;			/* rank 0: value, m, v of all adapters */
	const char **identity, **circumstance;
	struct watch *watch;		/* or null, where ranks are threads */
	char *samples;			/* rank 0: of samples.md, see readme.h */
	char *run;			/* the run directory, absolute: rank 0's, which alone uses it */
	int lock;			/* rank 0: descriptor of its lock, or -1 */
	bool began;			/* the run directory has been written to */
	struct arena arena;
};

/* -- session.c ----------------------------------------------------------------------------- */

/*
 * Ends a phase. Collective. Where any rank failed (status != 0), rank 0 prints what was said, each text once
 * with the ranks that said it, and all ranks get the same exit code; else 0.
 */
int session_agree(struct session *session, int status);
/* Fills facts[] of all ranks from each rank's own. Collective. */
int session_exchange(struct session *session, const struct rank_facts *mine);
/* A difference in build, configuration or model is an error that says on which ranks; another ISA one warning. */
int session_compare(const struct session *session);
void session_release(struct session *session);

/* -- train.c ------------------------------------------------------------------------------- */

/* The whole of `edgepipe train` on this rank, over any transport. Collective. Returns the exit code, the same on
 * all ranks. */
int train_run(struct comm *comm, const struct train_options *options, struct watch *watch);

/* -- watch.c ------------------------------------------------------------------------------- */

struct watch;
/* Before any thread is started, MPI's included. From then on a hang ends the process with EXIT_RETRY, a signal with
 * 128 + its number. Null after an error. */
struct watch *watch_open(void);
struct watchdog *watch_dog(struct watch *watch);	/* null for null */
/* What is to be said when the run ends before its time. Collective; watch may be null. */
int watch_learn(struct watch *watch, struct session *session);
/* What this rank's first waits may take, by the plan. watch may be null. */
void watch_expect(struct watch *watch, const struct session *session, const struct places *places);
const char *watch_words(const struct watch *watch);
void watch_close(struct watch *watch);

/* -- setup.c ------------------------------------------------------------------------------- */

/* The phases, in order; each is collective and returns 0 or the exit code that all ranks agree on. */
int setup_job(struct session *session);		/* topology file, number of ranks */
int setup_model(struct session *session);	/* configuration, weights, adapters; comparison */
int setup_data(struct session *session);
int setup_warm(struct session *session);	/* warm.c: device, links, overhead; part of setup_data */
int setup_overhead(struct session *session);	/* warm.c: what each process needs besides its stage */
int setup_profile(struct session *session);	/* setup_profile.c: given, kept, or measured now */
int setup_flows(struct session *session);	/* flows.c: whether the plan's links carry at once what the profile says */
int setup_plan(struct session *session);
int setup_stage(struct session *session);
int setup_wire(struct session *session);	/* wire.c: emulated links */

/* -- inference.c: what eval and generate have of their own in the phases ------------------------------------ */

/* Whether the command does more than forward passes: what train and profile are about. */
bool session_trains(const struct session *session);
/* Where a file of several nodes is run by one rank, makes it a file of one node, this machine. */
void inference_alone(struct session *session);
/* The adapters of --adapter, else those that lora.init names, else none. Null after an error. */
struct lora *inference_lora(const struct session *session);
/* The plan of s->problem to generate by: where memory holds none, one that no memory limits. Rank 0. -1 after an error. */
int inference_plan(struct session *session);
/* What is evaluated: --data, else data.valid. */
const char *inference_data(const struct session *session);
/* A command from its options (status: 0, 1 for help, -1 after an error that is held) to its exit code. */
typedef int inference_run(struct comm *comm, const void *options, struct watch *watch);
int inference_command(int status, const char *help, inference_run *run, const void *options);

/* -- eval.c -------------------------------------------------------------------------------- */

/* What `edgepipe eval` is asked for besides. */
struct eval_options {
	struct train_options run;
	const char *json;		/* a file, "-", or null */
};
/* The whole of `edgepipe eval` on this rank, over any transport; result, on rank 0, may be null. As train_run. */
int eval_run(struct comm *comm, const struct eval_options *options, struct watch *watch,
	     struct evaluation *result);

/* -- prompts.c ----------------------------------------------------------------------------- */

/* Prompts as ids, on all ranks; and the tokens that end what follows them. */
struct prompts {
	struct prompt *prompt;
	int count, longest;
	struct ids ids, ends;		/* of all, one after the other */
};
/* Where they come from. */
struct prompt_source {
	const char **text;		/* --prompt, in order */
	int texts;
	const char *file;		/* --prompts, or null */
	bool ids;			/* they are ids, not text */
	bool chat;			/* each is what a user says, in the model's chat template; */
	const char *system;		/* after what the system says, or null */
};
/* Rank 0: reads them; tokenizer may be null where they are ids, and chat is where they are no chats. -1 after an error. */
int prompts_read(struct prompts *prompts, const struct prompt_source *source, const struct model_config *model,
		 struct tokenizer *tokenizer, const struct chat_template *chat);
/* The template that prompts are written in, by its name or, null, the model's own. Null after an error. */
struct chat_template *prompts_template(const struct model_config *model, const char *name, struct tokenizer *tokenizer);
/* Those of rank 0 on all ranks. Collective. -1 after a failed transfer. */
int prompts_share(struct prompts *prompts, struct comm *comm);
void prompts_release(struct prompts *prompts);

/* -- writer.c ------------------------------------------------------------------------------ */

/* What was generated, on its way to people and files; on rank 0. */
struct writer;
/* tokenizer null: ids are written, not text; keeps: writer_json will be asked for. */
struct writer *writer_open(const struct prompts *prompts, struct tokenizer *tokenizer, const char *const *stop, int stops,
			   bool keeps);
/* About what it holds at most, where prompts get so many tokens behind them, with `room` for all. */
double writer_bytes(const struct prompts *prompts, int room, int tokens);
/* A token; writes to standard output what it completes, prompt after prompt. -1 after an error. */
int writer_add(struct writer *writer, int prompt, int32_t id, enum finish finish);
/* How many prompts ended that way. */
int writer_ended(const struct writer *writer, enum finish finish);
/* Adds all of it as JSON, "prompts": [...]. */
void writer_json(const struct writer *writer, struct text *text);
void writer_close(struct writer *writer);

/* -- generate.c ---------------------------------------------------------------------------- */

/* What `edgepipe generate` is asked for. */
struct generate_options {
	struct train_options run;
	struct prompt_source source;
	int tokens, batch;
	struct sampling sampling;
	const char **stop;
	int stops;
	const char *json;
};
/* The whole of `edgepipe generate` on this rank, over any transport. As train_run. */
int generate_run(struct comm *comm, const struct generate_options *options, struct watch *watch);

/* -- wire.c -------------------------------------------------------------------------------- */

/* The cuts of plan.cuts that fall into this rank's stage: fills what the stage needs of them. -1 after an error. */
int cuts_open(struct session *session, struct stage_spec *spec);
/* The cuts, links' and others, that do not travel in fp32: "3 int8/int8, 7 int4/int8", or "none"; arena's. */
const char *wire_codecs(struct session *session);
/* How the plan's cuts travel, and what this rank is held to: all of the spec but comm and stage. */
struct executor_spec wire_spec(struct session *session, const struct places *places);
/* Reads the traces that links follow, and makes their means what the plan reckons with. -1 after an error. */
int wire_traces(struct session *session);
void wire_close(struct session *session);	/* collective; before the session's comm */
/* Runs work as training would run: on a second thread, with the session's comm being the wire, which is then closed
 * again. work returns an exit code; EXIT_RETRY (a failed transfer) aborts. Collective. */
int wire_aside(struct session *session, int (*work)(struct session *session, void *arg), void *arg);

/* -- measure.c ----------------------------------------------------------------------------- */

/* Measures all nodes and links into session->profile, on all ranks: some 10 to 60 s, with progress. Collective. */
int measure_cluster(struct session *session);

/* -- cache.c ------------------------------------------------------------------------------- */

/* Where a profile of this is kept; null where there is no home. */
char *cache_path(struct arena *arena, const struct profile *want);
/* One that holds for `want`, or null. */
struct profile *cache_find(struct arena *arena, const struct profile *want);
/* Keeps it; false, silently, where that cannot be. */
bool cache_keep(struct arena *arena, const struct profile *profile);

/* -- profile.c ----------------------------------------------------------------------------- */

/* The whole of `edgepipe profile` on this rank, over any transport; see train_run. */
int profile_run(struct comm *comm, const struct train_options *options);

/* -- setup_profile.c ----------------------------------------------------------------------- */

/* Gives back what was touched before the training: the weights' pages, freed memory, the peak. */
void memory_forget(struct session *session);

/* -- outcome.c ----------------------------------------------------------------------------- */

/* Rank 0, as is the other: a table of predicted against measured, per stage. Sorts what the steps took. */
void outcome_say(const struct session *session, struct measured *measured);
/* Writes RUN/profile.measured.json. -1 after an error. */
int outcome_write(struct session *session, const struct measured *measured);

/* -- ops.c, ops_limits.c: train --profile-ops ---------------------------------------------- */

/* Measures what this rank's device can do, all ranks at once. Collective, a phase; does nothing without the option. */
int setup_ops(struct session *session);
/* Has the device's ops timed from now on; returns the device. */
struct device *ops_open(struct session *session);
/* Every rank's table of ops, which rank 0 prints in the order of the stages, and RUN/ops.json. Collective. -1 after a
 * failed transfer. */
int ops_share(struct session *session);

/* -- rundir.c ------------------------------------------------------------------------------ */

/* Rank 0 alone. Finds, refuses or prepares the run directory and takes its lock; nothing that is in it is lost
 * here. 0 or -1 (EXIT_CREATE). */
int rundir_open(struct session *session);
/* Clears what --overwrite gives up, writes config.resolved.yaml and plan.json. */
int rundir_begin(struct session *session);
/* Gives the lock back; an empty directory of a run that never began is removed. */
void rundir_close(struct session *session, bool began);
/* Appends every rank's notes to log/rank-NN.log. Collective. */
int rundir_logs(struct session *session);

/* -- identity.c ---------------------------------------------------------------------------- */

/* Rank 0: what a checkpoint must agree with, and what it had better agree with (checkpoint.c). */
void identity_make(struct session *session);

/* -- banner.c ------------------------------------------------------------------------------ */

/* What is about to happen: model, adapters, data, step, links, plan. Rank 0. */
void banner_say(const struct session *session);

#endif
