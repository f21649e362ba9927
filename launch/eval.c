/* `edgepipe eval`: the loss of a model, with or without an adapter, on data that it was not trained on. */
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch/session.h"

static const char eval_help[] =
	"Usage: edgepipe eval TOPOLOGY.yaml [options]\n"
	"       mpirun -np NODES edgepipe eval TOPOLOGY.yaml [options]\n"
	"\n"
	"The loss (mean over the tokens that count, in nats) and the perplexity of the file's model on its data.valid: on\n"
	"this machine alone, or as a pipeline over the nodes of the file, one rank a node.\n"
	"\n"
	"      --adapter DIR   with the adapter in DIR (PEFT's form, or a run directory); without: with lora.init, or none\n"
	"      --data FILE     in place of data.valid\n"
	"      --json FILE     the result as JSON, - for standard output\n"
	"      --set KEY=VALUE override any key of the file, as data.sequence=128\n"
	"      --plan FILE     take nodes, blocks and micro-batch from a plan.json, as that of a run\n"
	"      --profile FILE  plan with what `edgepipe profile` measured\n"
	"  -h, --help          this text\n"
	"\n"
	"Examples:\n"
	"  edgepipe eval topologies/campus.yaml\n"
	"  edgepipe eval topologies/campus.yaml --adapter runs/a --json result.json\n"
	"  mpirun -np 5 edgepipe eval topologies/campus.yaml --adapter runs/a --plan runs/a/plan.json\n";

/* -- options ------------------------------------------------------------------------------- */

enum { OPTION_ADAPTER = 256, OPTION_DATA, OPTION_JSON, OPTION_SET, OPTION_PLAN, OPTION_PROFILE };

static const struct option long_options[] = {
	{"adapter", required_argument, NULL, OPTION_ADAPTER},
	{"data", required_argument, NULL, OPTION_DATA},
	{"json", required_argument, NULL, OPTION_JSON},
	{"set", required_argument, NULL, OPTION_SET},
	{"plan", required_argument, NULL, OPTION_PLAN},
	{"profile", required_argument, NULL, OPTION_PROFILE},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

/* Takes one option. 0, 1 for --help, -1 after an error. */
static int take_option(struct eval_options *o, int option, char **argv)
{
	switch (option) {
	case OPTION_ADAPTER: o->run.adapter = optarg; return 0;
	case OPTION_DATA: o->run.data = optarg; return 0;
	case OPTION_JSON: o->json = optarg; return 0;
	case OPTION_SET: o->run.set[o->run.set_count++] = optarg; return 0;
	case OPTION_PLAN: o->run.plan = optarg; return 0;
	case OPTION_PROFILE: o->run.profile = optarg; return 0;
	case 'h': return 1;
	default: return option_error("eval", long_options, option, argv);
	}
}

/* 0, 1 when the help was asked for, -1 after an error. */
static int read_options(struct eval_options *o, int argc, char **argv)
{
	int option, status = 0;

	o->run.set = xzalloc((size_t)argc, sizeof(*o->run.set));
	opterr = 0;
	optind = 1;
	while (!status && (option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1)
		status = take_option(o, option, argv);
	if (status)
		return status;
	o->run.topology = option_topology("eval", "edgepipe eval topologies/campus.yaml --adapter runs/a", NULL, argc, argv);
	return o->run.topology ? 0 : -1;
}

/* -- the passes ---------------------------------------------------------------------------- */

/* One evaluation under way on this rank. */
struct eval {
	const struct eval_options *options;
	struct training training;
	struct evaluation result;
};

/* As many micro-batches a pass as the plan has, but no more than the data fill. */
static int plan_passes(struct session *s)
{
	unsigned long long size = (unsigned long long)s->plan.micro_batch;
	unsigned long long filled = (s->data.valid_samples + size - 1) / size;
	struct schedule_want want = {.name = "forward", .stages = s->plan.stages,
				     .micro_batches = s->plan.micro_batches};
	struct schedule *mine = NULL;

	if (filled < (unsigned long long)want.micro_batches)
		want.micro_batches = (int)filled;
	if (s->comm->rank == 0)
		mine = schedule_make(&s->arena, &want);
	s->forward = schedule_share(&s->arena, s->comm, mine);
	return session_agree(s, s->forward ? 0 : -1);
}

static void fill_training(struct session *s, struct training *t)
{
	const struct plan *plan = &s->plan;

	t->stage = s->stage;
	t->places = (struct places){plan->stages, -1, s->rank_of_stage};
	for (int i = 0; i < plan->stages; i++)
		if (plan->stage[i].node == s->comm->rank)
			t->places.stage = i;
	t->executor = wire_spec(s, &t->places);
	t->executor.watchdog = watch_dog(s->watch);
	t->forward = s->forward;
	t->lora = s->lora;
	t->model = s->model;
	t->config = &s->job.train;
	t->tokens = s->data.tokens;
	t->sequences = plan->micro_batch;
	t->micro_batches = s->forward->micro_batches;
	t->samples = (uint64_t)plan->micro_batch * (uint64_t)t->micro_batches;
	t->valid = s->valid;
	t->valid_packing = s->valid_packing;
	t->segments = s->data.segments;
	t->valid_samples = s->data.valid_samples;
	t->stage_name = s->stage_name;
	watch_expect(s->watch, s, &t->places);
}

/* -- the result ---------------------------------------------------------------------------- */

static void add_name(struct text *text, const char *key, const char *value)
{
	text_add(text, ", \"%s\": ", key);
	if (value)
		json_add_text(text, value);
	else
		text_add(text, "null");
}

static int write_json(const struct session *s, const struct eval *e)
{
	const struct evaluation *r = &e->result;
	const char *path = e->options->json;
	struct text text = {0};
	int status = 0;

	text_add(&text, "{\"loss\": %.9g, \"perplexity\": %.9g, \"tokens\": %lld, \"samples\": %zu, \"sequence\": %d, "
		 "\"stages\": %d, \"seconds\": %.3f", r->loss, exp(r->loss), r->tokens, s->valid->samples,
		 s->data.tokens, s->plan.stages, r->seconds);
	add_name(&text, "data", s->valid->path);
	add_name(&text, "model", s->model->folder);
	add_name(&text, "adapter", s->lora->init);
	text_add(&text, "}\n");
	if (!strcmp(path, "-"))
		fputs(text.data, stdout);
	else
		status = file_replace(path, text.data, text.bytes);
	text_release(&text);
	return status || fflush(stdout) ? -1 : 0;
}

static int say_result(const struct session *s, const struct eval *e)
{
	const struct evaluation *r = &e->result;

	say("loss    %.6f, perplexity %.4f: %lld tokens of %zu sample%s of '%s', %.0f tokens/s", r->loss, exp(r->loss),
	    r->tokens, s->valid->samples, s->valid->samples == 1 ? "" : "s", s->valid->path,
	    (double)s->data.valid_samples * s->data.tokens / r->seconds);
	return e->options->json ? write_json(s, e) : 0;
}

/* -- the run ------------------------------------------------------------------------------- */

enum { WATCH_SETUP = WATCH_KINDS };

static int set_up(struct session *s)
{
	int status = setup_job(s);

	if (!status)
		status = setup_model(s);
	if (!status)
		status = setup_data(s);
	if (!status)
		status = setup_profile(s);
	if (!status)
		status = setup_plan(s);
	if (!status)
		status = plan_passes(s);
	if (!status)
		status = setup_stage(s);
	if (!status && watch_learn(s->watch, s))
		status = EXIT_RETRY;
	return status;
}

/* On the thread that computes; see wire_aside. */
static int evaluate(struct session *s, void *arg)
{
	struct eval *e = arg;

	fill_training(s, &e->training);
	e->training.comm = s->comm;
	return evaluation_run(&e->training, &e->result);
}

static int run_phases(struct session *s, struct eval *e)
{
	int status;

	/* Rank 0 may read or tokenize for minutes what the others then only hear of. */
	watchdog_enter(watch_dog(s->watch), &(struct watchdog_section){WATCH_SETUP, 20, "setting up", "the other ranks",
								       -1, -1});
	status = set_up(s);
	watchdog_leave(watch_dog(s->watch));
	if (!status)
		status = wire_aside(s, evaluate, e);
	return status ? status : session_agree(s, s->comm->rank == 0 ? say_result(s, e) : 0);
}

int eval_run(struct comm *comm, const struct eval_options *options, struct watch *watch, struct evaluation *result)
{
	struct session session = {.options = options->run, .comm = comm, .lock = -1, .watch = watch};
	struct eval eval = {.options = options};
	int status;

	log_rank(comm->rank);
	error_hold();
	status = run_phases(&session, &eval);
	session_release(&session);
	if (result && comm->rank == 0)
		*result = eval.result;
	return status;
}

/* -- the command --------------------------------------------------------------------------- */

static int run_eval(struct comm *comm, const void *options, struct watch *watch)
{
	return eval_run(comm, options, watch, NULL);
}

int command_eval(int argc, char **argv)
{
	struct eval_options options = {.run.command = "eval"};
	int status;

	error_hold();
	status = read_options(&options, argc, argv);
	if (!status && options.json && !strcmp(options.json, "-"))
		log_level(LOG_ASIDE);
	status = inference_command(status, eval_help, run_eval, &options);
	free(options.run.set);
	return status;
}
