/* `edgepipe generate`: its options. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "launch/session.h"

static const char generate_help[] =
	"Usage: edgepipe generate TOPOLOGY.yaml --prompt TEXT [options]\n"
	"       mpirun -np NODES edgepipe generate TOPOLOGY.yaml --prompts FILE [options]\n"
	"\n"
	"What the file's model says after a prompt, to standard output as it comes: on this machine alone, or with its blocks\n"
	"on the nodes of the file, one rank a node, where only new tokens travel. Greedy, unless one of --temperature, --top-k\n"
	"and --top-p is given.\n"
	"\n"
	"      --prompt TEXT   a prompt; may be repeated\n"
	"      --prompts FILE  prompts: a line each, or .jsonl with \"prompt\", \"text\" or \"ids\"\n"
	"      --adapter DIR   with the adapter in DIR (PEFT's form, or a run directory); without: with lora.init, or none\n"
	"      --tokens N      at most so many new tokens a prompt (default: 128)\n"
	"      --temperature T divides the logits; 0: greedy (default: 1 where --top-k or --top-p is given)\n"
	"      --top-k K       among the K likeliest tokens\n"
	"      --top-p P       among the likeliest that have the share P together\n"
	"      --repetition-penalty R  above 1: against tokens that were there\n"
	"      --seed S        of the random numbers (default: 0); the same seed says the same, however it is run\n"
	"      --stop TEXT     ends where this text would come, which is not written; may be repeated\n"
	"      --chat          prompts are what a user says, in the model's chat template or that of data.template\n"
	"      --system TEXT   and this is what the system says before\n"
	"      --ids           prompts and output are token ids; needs no tokenizer\n"
	"      --batch N       work on N prompts at once (default: 16)\n"
	"      --json FILE     ids, texts and figures as JSON\n"
	"      --set KEY=VALUE override any key of the file, as train.precision=bf16\n"
	"      --plan FILE     take nodes and blocks from a plan.json, as that of a run\n"
	"      --profile FILE  plan with what `edgepipe profile` measured\n"
	"  -h, --help          this text\n"
	"\n"
	"Examples:\n"
	"  edgepipe generate topologies/campus.yaml --prompt 'Question: Where is the library?'\n"
	"  edgepipe generate topologies/campus.yaml --adapter runs/a --prompts questions.jsonl --stop Question --json answers.json\n"
	"  edgepipe generate topologies/campus.yaml --chat --set data.template=chatml --prompt 'Where is the library?'\n"
	"  mpirun -np 5 edgepipe generate topologies/campus.yaml --prompt 'The lab' --temperature 0.8 --top-p 0.95 --seed 7\n";

/* -- options ------------------------------------------------------------------------------- */

enum { OPTION_PROMPT = 256, OPTION_PROMPTS, OPTION_ADAPTER, OPTION_TOKENS, OPTION_TEMPERATURE, OPTION_TOP_K, OPTION_TOP_P,
       OPTION_PENALTY, OPTION_SEED, OPTION_STOP, OPTION_CHAT, OPTION_SYSTEM, OPTION_IDS, OPTION_BATCH, OPTION_JSON, OPTION_SET, OPTION_PLAN,
       OPTION_PROFILE };

static const struct option long_options[] = {
	{"prompt", required_argument, NULL, OPTION_PROMPT},
	{"prompts", required_argument, NULL, OPTION_PROMPTS},
	{"adapter", required_argument, NULL, OPTION_ADAPTER},
	{"tokens", required_argument, NULL, OPTION_TOKENS},
	{"temperature", required_argument, NULL, OPTION_TEMPERATURE},
	{"top-k", required_argument, NULL, OPTION_TOP_K},
	{"top-p", required_argument, NULL, OPTION_TOP_P},
	{"repetition-penalty", required_argument, NULL, OPTION_PENALTY},
	{"seed", required_argument, NULL, OPTION_SEED},
	{"stop", required_argument, NULL, OPTION_STOP},
	{"chat", no_argument, NULL, OPTION_CHAT},
	{"system", required_argument, NULL, OPTION_SYSTEM},
	{"ids", no_argument, NULL, OPTION_IDS},
	{"batch", required_argument, NULL, OPTION_BATCH},
	{"json", required_argument, NULL, OPTION_JSON},
	{"set", required_argument, NULL, OPTION_SET},
	{"plan", required_argument, NULL, OPTION_PLAN},
	{"profile", required_argument, NULL, OPTION_PROFILE},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static int take_whole(const char *name, long long least, long long most, long long *value)
{
	char *end;

	errno = 0;
	*value = strtoll(optarg, &end, 10);
	if (end == optarg || *end || errno || *value < least || *value > most)
		return error(EXIT_USAGE, "generate: --%s: '%s' is not a whole number in %lld..%lld", name, optarg, least,
			     most);
	return 0;
}

static int take_count(const char *name, int least, int *value)
{
	long long found;

	if (take_whole(name, least, 1 << 20, &found))
		return -1;
	*value = (int)found;
	return 0;
}

static int take_number(const char *name, double least, double most, double *value)
{
	char *end;

	*value = strtod(optarg, &end);
	if (end == optarg || *end || !(*value >= least && *value <= most))
		return error(EXIT_USAGE, "generate: --%s: '%s' is not a number in %g..%g", name, optarg, least, most);
	return 0;
}

/* Where the sampling options went: -1 of the temperature is that none was given. */
static int take_sampling(struct sampling *s, int option)
{
	switch (option) {
	case OPTION_TEMPERATURE: return take_number("temperature", 0, 1000, &s->temperature);
	case OPTION_TOP_K: return take_count("top-k", 0, &s->top_k);
	case OPTION_TOP_P: return take_number("top-p", 0, 1, &s->top_p);
	case OPTION_PENALTY: return take_number("repetition-penalty", 1e-3, 1e3, &s->repetition_penalty);
	default: return take_whole("seed", INT64_MIN, INT64_MAX, &s->seed);
	}
}

/* Takes one option. 0, 1 for --help, -1 after an error. */
static int take_option(struct generate_options *o, int option, char **argv)
{
	switch (option) {
	case OPTION_PROMPT: o->source.text[o->source.texts++] = optarg; return 0;
	case OPTION_PROMPTS: o->source.file = optarg; return 0;
	case OPTION_ADAPTER: o->run.adapter = optarg; return 0;
	case OPTION_TOKENS: return take_count("tokens", 1, &o->tokens);
	case OPTION_TEMPERATURE:
	case OPTION_TOP_K:
	case OPTION_TOP_P:
	case OPTION_PENALTY:
	case OPTION_SEED: return take_sampling(&o->sampling, option);
	case OPTION_STOP: o->stop[o->stops++] = optarg; return 0;
	case OPTION_CHAT: o->source.chat = true; return 0;
	case OPTION_SYSTEM: o->source.system = optarg; return 0;
	case OPTION_IDS: o->source.ids = true; return 0;
	case OPTION_BATCH: return take_count("batch", 1, &o->batch);
	case OPTION_JSON: o->json = optarg; return 0;
	case OPTION_SET: o->run.set[o->run.set_count++] = optarg; return 0;
	case OPTION_PLAN: o->run.plan = optarg; return 0;
	case OPTION_PROFILE: o->run.profile = optarg; return 0;
	case 'h': return 1;
	default: return option_error("generate", long_options, option, argv);
	}
}

static int check_options(struct generate_options *o, int argc, char **argv)
{
	o->run.topology = option_topology("generate", "edgepipe generate topologies/campus.yaml --prompt 'Once upon a time'",
					  " (a prompt needs --prompt)", argc, argv);
	if (!o->run.topology)
		return -1;
	if (o->source.texts == 0 && !o->source.file)
		return error(EXIT_USAGE, "generate: --prompt TEXT or --prompts FILE is missing");
	if (o->source.ids && o->stops > 0)
		return error(EXIT_USAGE, "generate: --stop is a text, but --ids asks for none");
	if (o->source.ids && o->source.chat)
		return error(EXIT_USAGE, "generate: --chat is about text, but --ids asks for none");
	if (o->json && strcmp(o->json, "-") == 0)
		return error(EXIT_USAGE, "generate: --json FILE needs a file: standard output has the text");
	if (o->source.system && !o->source.chat)
		return error(EXIT_USAGE, "generate: --system TEXT is for --chat");
	if (o->source.system && utf8_valid(o->source.system, strlen(o->source.system)) < strlen(o->source.system))
		return error(EXIT_USAGE, "generate: --system is not UTF-8");
	for (int i = 0; i < o->stops; i++)
		if (!o->stop[i][0])
			return error(EXIT_USAGE, "generate: --stop needs a text, not \"\"");
	if (o->sampling.temperature < 0)
		o->sampling.temperature = o->sampling.top_k > 0 || o->sampling.top_p < 1 ? 1 : 0;
	return 0;
}

/* 0, 1 when the help was asked for, -1 after an error. */
static int read_options(struct generate_options *o, int argc, char **argv)
{
	int option, status = 0;

	opterr = 0;
	optind = 1;
	while (!status && (option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1)
		status = take_option(o, option, argv);
	return status ? status : check_options(o, argc, argv);
}

/* -- the command --------------------------------------------------------------------------- */

static int run_generate(struct comm *comm, const void *options, struct watch *watch)
{
	return generate_run(comm, options, watch);
}

int command_generate(int argc, char **argv)
{
	struct generate_options options = {
		.run.command = "generate",
		.run.set = xzalloc((size_t)argc, sizeof(*options.run.set)),
		.source.text = xzalloc((size_t)argc, sizeof(*options.source.text)),
		.stop = xzalloc((size_t)argc, sizeof(*options.stop)),
		.tokens = 128,
		.batch = 16,
		.sampling = {.temperature = -1, .top_p = 1, .repetition_penalty = 1},
	};
	int status;

	error_hold();
	log_level(LOG_ASIDE);
	status = inference_command(read_options(&options, argc, argv), generate_help, run_generate, &options);
	free(options.run.set);
	free(options.source.text);
	free(options.stop);
	return status;
}
