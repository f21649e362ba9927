/* compare_options.c - what `edgepipe compare` is asked. Everything that is wrong is said, not only the first. */
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "launch/compare.h"

const char compare_help[] =
	"edgepipe compare - training time against hop count: how many servers should the chain have?\n"
	"\n"
	"Examples:\n"
	"  edgepipe compare topologies/campus.yaml\n"
	"  edgepipe compare topologies/fig5.yaml --hops 1..6 --codec none,bf16,int8 --efficiency 0.4 --svg hops.svg\n"
	"  edgepipe compare topologies/fig5.yaml --split fractional --schedule greedy,sequential --micro-batches 20,80\n"
	"\n"
	"Usage: edgepipe compare TOPOLOGY.yaml [OPTION]...\n"
	"      --hops A..B           servers in the chain (every number that the file has servers for); clients are beside them\n"
	"      --schedule S[,S..]    eager, 1f1b, gpipe, greedy (backward first, no limit in flight; with --split fractional,\n"
	"                            its default), sequential (nothing overlaps but clients with each other)\n"
	"      --codec C[,C..]       none, bf16, int8, int4 on all links (as the file says)\n"
	"      --micro-batches M[,M..]  of a step (train.batch over the micro-batch)\n"
	"      --micro-batch B       sequences in one (1)\n"
	"      --efficiency E        share of the declared compute that is achieved (1)\n"
	"      --split SPLIT         planned: what the planner chooses for so many servers (the default); blocks: whole blocks,\n"
	"                            as even as they can be; fractional: FLOPs in equal shares, as published\n"
	"      --tokens N            of the whole training, as 264M (train.steps x train.batch x data.sequence)\n"
	"      --json FILE, --csv FILE, --svg FILE   the rows, and a picture of them (- is standard output)\n"
	"      --set KEY=VALUE       overrides a key of the file, as for train\n"
	"  -h, --help                this text\n"
	"\n"
	"Runs without MPI and needs neither weights nor data: of the model it reads config.json. Times are simulated from declared\n"
	"numbers. planned and blocks respect the servers' memory; blocks and fractional take the first servers of the file, in its\n"
	"order. fractional is the setting in which the question is published: head on the last server, attention counted in full,\n"
	"int8 and int4 with one fp32 scale a group of 128 and nothing else. Clients (role: client) hold the embedding and the first\n"
	"plan.client_blocks blocks, and are dealt micro-batches in turn; their memory is not checked.\n";

enum { OPTION_HOPS = 256, OPTION_SCHEDULE, OPTION_CODEC, OPTION_COUNT, OPTION_SIZE, OPTION_EFFICIENCY, OPTION_SPLIT,
       OPTION_TOKENS, OPTION_JSON, OPTION_CSV, OPTION_SVG, OPTION_SET };

static const struct option long_options[] = {
	{"hops", required_argument, NULL, OPTION_HOPS},
	{"schedule", required_argument, NULL, OPTION_SCHEDULE},
	{"codec", required_argument, NULL, OPTION_CODEC},
	{"micro-batches", required_argument, NULL, OPTION_COUNT},
	{"micro-batch", required_argument, NULL, OPTION_SIZE},
	{"efficiency", required_argument, NULL, OPTION_EFFICIENCY},
	{"split", required_argument, NULL, OPTION_SPLIT},
	{"tokens", required_argument, NULL, OPTION_TOKENS},
	{"json", required_argument, NULL, OPTION_JSON},
	{"csv", required_argument, NULL, OPTION_CSV},
	{"svg", required_argument, NULL, OPTION_SVG},
	{"set", required_argument, NULL, OPTION_SET},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static const char *const splits[] = {"blocks", "fractional", "planned"};
static const char *const schedules[] = {"eager", "1f1b", "gpipe", "greedy", "sequential"};
static const char *const codecs[] = {"none", "bf16", "int8", "int4"};
#define COUNT(words) ((int)(sizeof(words) / sizeof(*(words))))

const char *split_name(int split)
{
	return splits[split];
}

/* -- words and numbers --------------------------------------------------------------------- */

/* The word of a list, or null after an error. */
static const char *word_of(const char *option, const char *given, const char *const *words, int count)
{
	const char *near = nearest_word(given, words, count);
	struct text all = {0};

	for (int i = 0; i < count; i++)
		if (!strcmp(given, words[i]))
			return words[i];
	for (int i = 0; i < count; i++)
		text_add(&all, "%s%s", i ? ", " : "", words[i]);
	report(EXIT_USAGE, "compare: %s: '%s' is none of %s%s%s%s", option, given, all.data,
	       near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
	text_release(&all);
	return NULL;
}

static int whole_of(const char *option, const char *given, int most, int *value)
{
	char *end;
	long number = strtol(given, &end, 10);

	if (end == given || *end || number < 1 || number > most)
		return error(EXIT_USAGE, "compare: %s: '%s' is no whole number of 1..%d", option, given, most);
	*value = (int)number;
	return 0;
}

static int number_of(const char *option, const char *given, double most, double *value)
{
	char *end;
	double number = strtod(given, &end);
	static const char suffix[] = "kMG";
	const char *found = *end && !end[1] && most > 1 ? strchr(suffix, *end) : NULL;

	for (const char *s = suffix; found && s <= found; s++)
		number *= 1000;
	if (end == given || (*end && !found) || !(number > 0) || number > most)
		return error(EXIT_USAGE, "compare: %s: '%s' is no number above 0 and up to %g%s", option, given,
			     most, most > 1 ? " (264000000 or 264M)" : "");
	*value = number;
	return 0;
}

/* Calls take(item) for every part of a list between commas. */
static int each_item(struct compare_options *o, const char *option, const char *given,
		     int (*take)(struct compare_options *o, const char *item))
{
	char *list = xcopy(given), *rest = list;
	int count = 0, status = 0;

	for (char *item; (item = strsep(&rest, ",")); count++) {
		if (count == CHOICES_MAX) {
			status = error(EXIT_USAGE, "compare: %s: more than %d at once", option, CHOICES_MAX);
			break;
		}
		status |= take(o, item);
	}
	free(list);
	return status;
}

static int take_schedule(struct compare_options *o, const char *item)
{
	const char *word = word_of("--schedule", item, schedules, COUNT(schedules));

	if (word)
		o->schedule[o->schedules++] = word;
	return word ? 0 : -1;
}

static int take_codec(struct compare_options *o, const char *item)
{
	const char *word = word_of("--codec", item, codecs, COUNT(codecs));

	if (word)
		o->codec[o->codecs++] = word;
	return word ? 0 : -1;
}

static int take_count(struct compare_options *o, const char *item)
{
	if (whole_of("--micro-batches", item, 1 << 16, &o->micro_batches[o->sizes]) < 0)
		return -1;
	o->sizes++;
	return 0;
}

/* "2..5", or "3" for itself alone. */
static int take_hops(struct compare_options *o, const char *given)
{
	char *first = xcopy(given), *dots = strstr(first, "..");
	int status;

	if (dots)
		*dots = '\0';
	status = whole_of("--hops", first, PLAN_STAGES_MAX, &o->hops_first);
	if (!status)
		status = whole_of("--hops", dots ? dots + 2 : first, PLAN_STAGES_MAX, &o->hops_last);
	if (!status && o->hops_last < o->hops_first)
		status = error(EXIT_USAGE, "compare: --hops: %s ends before it begins; A..B goes from A up to B", given);
	free(first);
	return status;
}

static int take_split(struct compare_options *o, const char *given)
{
	const char *word = word_of("--split", given, splits, COUNT(splits));

	for (int i = 0; word && i < COUNT(splits); i++)
		if (word == splits[i])
			o->split = i;
	return word ? 0 : -1;
}

/* -- the command line ---------------------------------------------------------------------- */

/* 0, 1 for --help, -1 after an error. */
static int take_option(struct compare_options *o, int option, char **argv)
{
	switch (option) {
	case OPTION_HOPS: return take_hops(o, optarg);
	case OPTION_SCHEDULE: return each_item(o, "--schedule", optarg, take_schedule);
	case OPTION_CODEC: return each_item(o, "--codec", optarg, take_codec);
	case OPTION_COUNT: return each_item(o, "--micro-batches", optarg, take_count);
	case OPTION_SIZE: return whole_of("--micro-batch", optarg, 1 << 16, &o->micro_batch);
	case OPTION_EFFICIENCY: return number_of("--efficiency", optarg, 1, &o->efficiency);
	case OPTION_SPLIT: return take_split(o, optarg);
	case OPTION_TOKENS: return number_of("--tokens", optarg, 1e18, &o->tokens);
	case OPTION_JSON: o->json = optarg; return 0;
	case OPTION_CSV: o->csv = optarg; return 0;
	case OPTION_SVG: o->svg = optarg; return 0;
	case OPTION_SET: o->set[o->set_count++] = optarg; return 0;
	case 'h': return 1;
	default: return option_error("compare", long_options, option, argv);
	}
}

/* What fits only together. */
static int check(struct compare_options *o)
{
	int status = 0, outputs = 0;

	for (int i = 0; i < o->schedules; i++)
		if (!strcmp(o->schedule[i], "greedy") && o->split != SPLIT_FRACTIONAL)
			status = error(EXIT_USAGE, "compare: --schedule greedy knows no limit in flight, so it goes with "
				       "--split fractional only (eager respects memory)");
	for (int i = 0; i < 3; i++) {
		const char *file = i == 0 ? o->json : i == 1 ? o->csv : o->svg;

		outputs += file && !strcmp(file, "-");
	}
	if (outputs > 1)
		status = error(EXIT_USAGE, "compare: only one of --json, --csv and --svg can be standard output");
	return status;
}

int compare_options_read(struct compare_options *o, int argc, char **argv)
{
	int option, status = 0;

	*o = (struct compare_options){.micro_batch = 1, .efficiency = 1, .split = SPLIT_PLANNED};
	o->set = xzalloc((size_t)argc, sizeof(*o->set));
	opterr = 0;
	optind = 1;
	while ((option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
		int taken = take_option(o, option, argv);

		if (taken > 0)
			return 1;
		status |= taken;
	}
	status |= check(o);
	o->topology = option_topology("compare", "edgepipe compare topologies/campus.yaml --hops 1..5", NULL, argc, argv);
	if (!o->topology)
		status = -1;
	if (!o->codecs)
		o->codecs = 1;
	return status ? -1 : 0;
}
