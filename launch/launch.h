/*
 * launch/ - the program: sub-commands, options, the topology file as a whole, binding.
 */
#ifndef EDGEPIPE_LAUNCH_H
#define EDGEPIPE_LAUNCH_H

#include "base/base.h"
#include "partition/partition.h"

/* -- job.c, job_table.c -------------------------------------------------------------------- */

/* `emulate`: hold links, compute to the declared numbers, every time stretched by slowdown. */
struct emulate_config { bool links, compute; double slowdown; };

/* A topology file: the cluster and the job. */
struct job {
	struct config config;		/* arena, positions */
	long long version;
	struct cluster cluster;
	const char *model;		/* model.path, absolute */
	struct lora_config lora;
	struct data_config data;
	struct train_config train;
	struct plan_config plan;
	struct emulate_config emulate;
	const char *out;		/* null: runs/<name>-<UTC time> */
};
/* Words of the table, in this order. */
enum precision { PRECISION_FP32, PRECISION_BF16 };
enum weights_layout { WEIGHTS_PACKED, WEIGHTS_PLAIN };
enum kernel_choice { KERNELS_AUTO, KERNELS_REFERENCE, KERNELS_OPENBLAS, KERNELS_ONEDNN };
enum role { ROLE_SERVER, ROLE_CLIENT };

extern const struct schema job_schema;
/* Reads a file and checks what spans several keys. -1 after errors (said with positions). */
int job_read(struct job *job, const char *path, const char *const *overrides, int count);
/* job_data.c. Reports what is wrong with the data section alone. */
void job_check_data(struct job *job);
/* job_role.c. For a command that has no use for clients: -1 after an error about every node that is one. */
int job_servers_only(const struct job *job, const char *command);
/* job_traces.c. Gives links that follow a trace its mean as their bandwidth. -1 after errors. */
int job_trace_means(struct job *job);
void job_release(struct job *job);

/* -- decide.c ------------------------------------------------------------------------------ */

/* Makes and checks the plan; with a path by what that plan.json decides, which goes to `given`, for as long as the
 * problem lives. -1 after an error. */
int plan_decide(struct problem *problem, const char *path, struct plan *given, struct plan *plan);
/* Warns of every --set beside --plan that the plan.json decides; path null: there is none. */
void plan_warn_set(const char *path, const char *const *set, int count);
/* A line of what a step would take, what limits it, and its closed form, or that this cannot be known. */
void prediction_add(const struct problem *problem, const struct plan *plan, struct text *text);

/* Of a process without a stage, where none was measured. Guessed: MPI's and OpenBLAS's buffers, code; 20 to 24 MiB were
 * measured. */
#define PROCESS_BYTES (24.0 * (1 << 20))

/* -- wanted.c ------------------------------------------------------------------------------ */

/* What a job's kernels are on this machine: the name for device_open, and what it computes in: BF16 where that is asked
 * for and the CPU has it, else F32. */
const char *job_device(const struct job *job);
enum dtype job_dtype(const struct job *job);

struct rank_facts;	/* session.h */
/* A profile without measurements: what one must be of to hold for this job (profile_check), with
 * sequences of so many tokens. facts, of all ranks, or null: their hardware is not known. Null after an error. */
struct profile *profile_wanted(const struct job *job, const struct model_config *model, const struct lora *lora,
			       int tokens, const struct rank_facts *facts);

/* -- one file per sub-command -------------------------------------------------------------- */

/* Each takes what follows the program's name (argv[0] is the sub-command) and returns an exit code. */
int command_train(int argc, char **argv);
int command_plan(int argc, char **argv);
int command_compare(int argc, char **argv);
int command_profile(int argc, char **argv);
int command_data(int argc, char **argv);
int command_report(int argc, char **argv);
int command_export(int argc, char **argv);
int command_eval(int argc, char **argv);
int command_generate(int argc, char **argv);
int command_help(int argc, char **argv);

/* -- report.c ------------------------------------------------------------------------------ */

/* report.html of a run directory, from its files; output null: into it. -1 after an error. */
int report_make(const char *run, const char *output);

/* -- options.c ----------------------------------------------------------------------------- */

struct option;		/* getopt.h */
/* Says what is wrong with the option that getopt_long (with ":" first) just refused, with the nearest right one.
 * Always -1. */
int option_error(const char *command, const struct option *options, int option, char **argv);

/* The one topology file behind the options that getopt_long has taken; null after an error, which shows `example` where there
 * is none, and ends with `hint` (or null) where there are two. */
const char *option_topology(const char *command, const char *example, const char *hint, int argc, char **argv);

/* What is printed where the options did not lead to a run, by one rank for all: the help where status is above 0, else the
 * error. Returns the exit code. */
int stop_before(int status, const char *help);

/* -- version.c ----------------------------------------------------------------------------- */

/* "edgepipe 0.1.0 (1234abc, Release)": what must be equal on all ranks. */
void build_write(struct text *text);
/* That, and the versions of MPI, OpenBLAS, hwloc and the CPU's ISA: --version. */
void version_write(struct text *text);

#endif
