/* `edgepipe train`: from a topology file to a run directory. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launch/readme.h"
#include "launch/session.h"

static const char train_help[] =
	"Usage: mpirun -np NODES edgepipe train TOPOLOGY.yaml [options]\n"
	"\n"
	"Fine-tunes a language model with LoRA, as a pipeline over the nodes of the file: one rank a node.\n"
	"\n"
	"      --out DIR       the run directory (default: runs/<name>-<UTC time>)\n"
	"      --resume        go on from the newest checkpoint that verifies; needs --out or `out`\n"
	"      --overwrite     give up the run that the directory holds\n"
	"      --set KEY=VALUE override any key of the file, as train.steps=20 or nodes.0.memory=4GiB\n"
	"      --profile FILE  plan with what `edgepipe profile` measured; refused where it is of something else\n"
	"      --plan FILE     take nodes, blocks, micro-batch and schedule from a plan.json (edgepipe plan -o)\n"
	"      --dump DIR      write what step 1 computed to DIR/step-00000001.safetensors\n"
	"      --profile-ops   time every op, and end with a table of them beside this machine's limits\n"
	"  -h, --help          this text\n"
	"\n"
	"Examples:\n"
	"  mpirun -np 5 edgepipe train topologies/campus.yaml\n"
	"  mpirun -np 5 edgepipe train topologies/campus.yaml --out runs/a --set train.steps=20\n"
	"  mpirun -np 5 edgepipe train topologies/campus.yaml --out runs/a --resume\n"
	"  mpirun -np 5 edgepipe train topologies/campus.yaml --set train.steps=5 --profile-ops\n"
	"\n"
	"`edgepipe help config` lists every key. Activations and gradients travel between nodes as plain text; with\n"
	"public base weights they can reveal much of the training text.\n";

/* -- options ------------------------------------------------------------------------------- */

enum { OPTION_OUT = 256, OPTION_RESUME, OPTION_OVERWRITE, OPTION_SET, OPTION_DUMP, OPTION_PLAN,
       OPTION_PROFILE, OPTION_PROFILE_OPS };

static const struct option long_options[] = {
	{"out", required_argument, NULL, OPTION_OUT},
	{"resume", no_argument, NULL, OPTION_RESUME},
	{"overwrite", no_argument, NULL, OPTION_OVERWRITE},
	{"set", required_argument, NULL, OPTION_SET},
	{"dump", required_argument, NULL, OPTION_DUMP},
	{"plan", required_argument, NULL, OPTION_PLAN},
	{"profile", required_argument, NULL, OPTION_PROFILE},
	{"profile-ops", no_argument, NULL, OPTION_PROFILE_OPS},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

/* Takes one option. 0, 1 for --help, -1 after an error. */
static int take_option(struct train_options *o, int option, char **argv)
{
	switch (option) {
	case OPTION_OUT: o->out = optarg; return 0;
	case OPTION_RESUME: o->resume = true; return 0;
	case OPTION_OVERWRITE: o->overwrite = true; return 0;
	case OPTION_SET: o->set[o->set_count++] = optarg; return 0;
	case OPTION_DUMP: o->dump = optarg; return 0;
	case OPTION_PLAN: o->plan = optarg; return 0;
	case OPTION_PROFILE: o->profile = optarg; return 0;
	case OPTION_PROFILE_OPS: o->profile_ops = true; return 0;
	case 'h': return 1;
	default: return option_error("train", long_options, option, argv);
	}
}

static int check_options(struct train_options *o, int argc, char **argv)
{
	o->topology = option_topology("train", "mpirun -np 5 edgepipe train topologies/campus.yaml", NULL, argc, argv);
	if (!o->topology)
		return -1;
	if (o->out && !o->out[0])
		return error(EXIT_USAGE, "train: --out needs a directory, not \"\"");
	if (o->resume && o->overwrite)
		return error(EXIT_USAGE, "train: --resume and --overwrite exclude each other");
	return 0;
}

/* 0, 1 when the help was asked for, -1 after an error. */
static int read_options(struct train_options *o, int argc, char **argv)
{
	int option, status = 0;

	o->set = xzalloc((size_t)argc, sizeof(*o->set));
	opterr = 0;
	optind = 1;
	while (!status && (option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1)
		status = take_option(o, option, argv);
	return status ? status : check_options(o, argc, argv);
}

/* -- the run ------------------------------------------------------------------------------- */

enum { WATCH_SETUP = WATCH_KINDS, WATCH_ENDING };

/* Rank 0's part between the plan and the stage: directory, checkpoint. */
static int open_run(struct session *s, struct training *t)
{
	size_t elements = s->lora->elements;

	if (rundir_open(s))
		return -1;
	s->values = xzalloc(3 * elements + 1, sizeof(float));
	identity_make(s);
	t->checkpoint = (struct checkpoint){
		.value = s->values,
		.m = s->values + elements,
		.v = s->values + 2 * elements,
		.identity = s->identity,
		.circumstance = s->circumstance,
	};
	if (s->options.resume && checkpoint_load(s->run, s->lora, &t->checkpoint) < 0)
		return -1;
	if (s->options.dump && t->checkpoint.step > 0)
		return error(EXIT_USAGE, "train: --dump writes what step 1 computed, but '%s' goes on "
			     "after step %lld", s->run, t->checkpoint.step);
	return 0;
}

static void fill_training(struct session *s, struct training *t)
{
	const struct plan *plan = &s->plan;

	t->stage = s->stage;
	t->places = (struct places){plan->stages, -1, s->rank_of_stage};
	for (int i = 0; i < plan->stages; i++)
		if (plan->stage[i].node == s->comm->rank) {
			t->places.stage = i;
			t->first_block = plan->stage[i].first_block;
			t->blocks = plan->stage[i].blocks;
		}
	t->executor = wire_spec(s, &t->places);
	t->schedule = s->schedule;
	t->forward = s->forward;
	t->lora = s->lora;
	t->model = s->model;
	t->config = &s->job.train;
	t->steps = s->data.steps;
	t->tokens = s->data.tokens;
	t->sequences = plan->micro_batch;
	t->micro_batches = plan->micro_batches;
	t->samples = (uint64_t)plan->micro_batch * (uint64_t)plan->micro_batches;
	t->slowdown = s->problem.slowdown;
	t->shuffle = s->job.data.shuffle;
	t->train = s->train;
	t->valid = s->valid;
	t->packing = s->packing;
	t->valid_packing = s->valid_packing;
	t->segments = s->data.segments;
	t->valid_samples = s->data.valid_samples;
	t->validate = s->data.valid_samples > 0;
	t->run = s->run;
	t->dump = s->options.dump;
	t->stage_name = s->stage_name;
	t->identity = s->identity;
	t->circumstance = s->circumstance;
	t->predicted_step_s = plan->step_s;
	if (s->comm->rank == 0 && s->data.steps > t->checkpoint.step) {
		t->measured->room = s->data.steps - t->checkpoint.step;
		t->measured->took_s = arena_take(&s->arena, (size_t)t->measured->room * sizeof(double));
	}
	if (s->options.profile_ops && s->stage)
		t->timed = ops_open(s);
	t->executor.watchdog = watch_dog(s->watch);
	t->last_words = watch_words(s->watch);
	watch_expect(s->watch, s, &t->places);
}

/* A wait outside of the training, for the watchdog; to be left again. */
static void wait_begins(const struct session *s, int kind, double patience, const char *what, const char *peer)
{
	watchdog_enter(watch_dog(s->watch), &(struct watchdog_section){kind, patience, what, peer, -1, -1});
}

static void wait_ends(const struct session *s)
{
	watchdog_leave(watch_dog(s->watch));
}

/* The estimate of every node's memory beside its measured peak. Collective. */
static int say_memory(const struct session *s)
{
	double peak = memory_peak_bytes();
	char a[32], b[32];

	for (int i = 0; i < s->plan.stages; i++) {
		const struct plan_stage *stage = &s->plan.stage[i];
		double of = peak;

		if (comm_broadcast(s->comm, stage->node, &of, sizeof(of)))
			return -1;
		say("%s %-12s estimated %s, peak %s (measured, the whole run)", i == 0 ? "memory " : "       ",
		    s->stage_name[i], unit_write(stage->memory_bytes, UNIT_BYTES, a, sizeof(a)),
		    unit_write(of, UNIT_BYTES, b, sizeof(b)));
	}
	return 0;
}

/* Where the run goes on. */
static void say_start(const struct session *s, const struct checkpoint *from)
{
	if (s->options.resume && from->step == 0)
		say("resume  there is no checkpoint: starting at step 1");
	else if (from->step >= s->data.steps)
		say("resume  the run is finished: its checkpoint is of step %lld, and %lld steps are "
		    "asked for", from->step, s->data.steps);
	else if (from->step > 0)
		say("resume  going on after the checkpoint of step %lld", from->step);
}

/* Files of the run that all ranks have a part in. */
static int share_logs(struct session *s)
{
	int status;

	wait_begins(s, WATCH_STATE, 3, "at the logs", "rank 0 or its disk");
	status = rundir_logs(s);
	wait_ends(s);
	return status;
}

static int share_memory(const struct session *s)
{
	int status;

	wait_begins(s, WATCH_SETTLE, 1, "waiting for the peaks of memory", "the other ranks");
	status = say_memory(s);
	wait_ends(s);
	return status;
}

/* The table of --profile-ops. */
static int share_ops(struct session *s)
{
	int status;

	if (!s->options.profile_ops)
		return 0;
	wait_begins(s, WATCH_STATE, 3, "at the table of ops", "the other ranks");
	status = ops_share(s);
	wait_ends(s);
	return status;
}

/* How the prediction came true. What cannot be written of it ends no run. */
static void say_outcome(struct session *s, struct measured *measured)
{
	if (s->comm->rank != 0)
		return;
	outcome_say(s, measured);
	if (outcome_write(s, measured))
		warn("'%s/profile.measured.json' was not written", s->run);
}

/* What the adapter's directory says of itself, on rank 0; an adapter without it is as good. */
static void make_readme(const struct session *s)
{
	const struct readme readme = {s->run, &s->job, s->model, s->lora, -1};
	struct arena arena = {0};
	char *text;

	if (s->comm->rank != 0)
		return;
	wait_begins(s, WATCH_STATE, 3, "at the adapter's README.md", "this rank's disk");
	text = readme_make(&readme);
	if (file_replace(arena_format(&arena, "%s/adapter/README.md", s->run), text, strlen(text))) {
		warn("there is no '%s/adapter/README.md'", s->run);
		error_clear();
	}
	wait_ends(s);
	free(text);
	arena_release(&arena);
}

/* report.html, on rank 0; a run without one is as good. */
static void make_report(const struct session *s)
{
	int status;

	if (s->comm->rank != 0)
		return;
	wait_begins(s, WATCH_STATE, 3, "at the report", "this rank's disk");
	status = report_make(s->run, NULL);
	wait_ends(s);
	if (!status) {
		say("report  %s/report.html", s->run);
		return;
	}
	warn("there is no '%s/report.html'; `edgepipe report %s` makes it again", s->run, s->run);
	error_clear();
}

static int run_training(struct session *s, struct training *t)
{
	int status;

	if (s->comm->rank == 0) {
		banner_say(s);
		say_start(s, &t->checkpoint);
	}
	if (share_logs(s))
		return EXIT_RETRY;
	status = training_run(t);
	if (!status)
		say_outcome(s, t->measured);
	if (status || share_ops(s) || share_memory(s) || share_logs(s))
		return status ? status : EXIT_RETRY;
	say("adapter %s/adapter (loads in Hugging Face PEFT)", s->comm->rank == 0 ? s->run : "");
	make_readme(s);
	make_report(s);
	return 0;
}

/* The second thread, which computes. */
struct second { struct session *session; struct training *training; char *noted; };

static int run_second(struct comm *front, void *arg)
{
	struct second *second = arg;
	struct session *s = second->session;
	struct comm *own = s->comm;
	int status;

	log_give(second->noted);
	s->comm = second->training->comm = front;
	status = run_training(s, second->training);
	s->comm = own;
	return status;
}

/* From here on this thread talks to the other ranks, and another one computes. */
static int serve_training(struct session *s, struct training *t)
{
	struct second second = {s, t, log_take()};

	error_clear();
	return comm_serve(s->wire, run_second, &second);
}

/* From the topology file to a run that may begin. */
static int set_up(struct session *s, struct training *t)
{
	int status = setup_job(s);

	if (!status)
		status = setup_model(s);
	if (!status)
		status = setup_data(s);
	if (!status)
		status = setup_ops(s);
	if (!status)
		status = setup_profile(s);
	if (!status)
		status = setup_plan(s);
	if (!status)
		status = setup_flows(s);
	if (!status)
		status = session_agree(s, s->comm->rank == 0 ? open_run(s, t) : 0);
	if (!status)
		status = setup_stage(s);
	if (!status)
		status = setup_wire(s);
	if (!status)
		status = session_agree(s, s->comm->rank == 0 ? rundir_begin(s) : 0);
	if (!status && watch_learn(s->watch, s))
		status = EXIT_RETRY;
	return status;
}

static int run_phases(struct session *s, struct training *t)
{
	int status;

	/* One rank may read or tokenize for minutes what the others then only hear of. */
	wait_begins(s, WATCH_SETUP, 20, "setting up", "the other ranks");
	status = set_up(s, t);
	wait_ends(s);
	if (status)
		return status;
	fill_training(s, t);
	return serve_training(s, t);
}

int train_run(struct comm *comm, const struct train_options *options, struct watch *watch)
{
	struct session session = {
		.options = *options, .comm = comm, .lock = -1, .watch = watch};
	struct training training = {0};
	struct measured measured = {.times = xzalloc((size_t)comm->size, sizeof(*measured.times))};
	int status;

	log_rank(comm->rank);
	error_hold();
	training.measured = &measured;
	status = run_phases(&session, &training);
	session_release(&session);
	free(measured.times);
	return status;
}

static struct comm *open_comm(void)
{
	return comm_mpi_launched() > 1 ? comm_mpi_open(NULL, NULL) : comm_alone_open();
}

/* Whatever lies outside of all other sections is the end: what is left on emulated links, and MPI's own. */
static int run_over(struct comm *comm, const struct train_options *options, struct watch *watch)
{
	int status;

	watchdog_enter(watch_dog(watch), &(struct watchdog_section){WATCH_ENDING, 3, "ending", "the other ranks",
								    -1, -1});
	status = train_run(comm, options, watch);
	comm_close(comm);
	watchdog_leave(watch_dog(watch));
	return status;
}

int command_train(int argc, char **argv)
{
	struct train_options options = {.command = "train"};
	struct watch *watch;
	struct comm *comm;
	int status;

	error_hold();
	status = read_options(&options, argc, argv);
	if (status) {
		free(options.set);
		return stop_before(status, train_help);
	}
	error_clear();
	watch = watch_open();
	comm = watch ? open_comm() : NULL;
	status = comm ? run_over(comm, &options, watch) : error_code();
	watch_close(watch);
	free(options.set);
	return status;
}
