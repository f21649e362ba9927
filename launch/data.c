/*
 * launch/data.c - edgepipe data: picks the action.
 */
#include "launch/data.h"

#include <stdlib.h>
#include <string.h>

static const struct action {
	const char *name;
	int (*run)(int argc, char **argv);
} actions[] = {
	{"show", data_show},
	{"check", data_check},
	{"tokenize", data_tokens},
	{"detokenize", data_tokens},
};
#define ACTIONS ((int)(sizeof actions / sizeof actions[0]))

static const char usage[] =
	"edgepipe data - what the data files hold\n"
	"\n"
	"Examples:\n"
	"  edgepipe data show topologies/campus.yaml -n 3\n"
	"  edgepipe data check train.jsonl --model gpt2\n"
	"  edgepipe data tokenize --tokenizer campus/model texts.jsonl > ids.jsonl\n"
	"\n"
	"Usage: edgepipe data ACTION ...\n"
	"  show              samples as they will be trained on\n"
	"  check             every error of a data file, and what its samples are like\n"
	"  tokenize          text to token ids, for scripts\n"
	"  detokenize        token ids to text\n"
	"  -h, --help        this text; after an action, what it takes\n";

static int unknown(const char *name)
{
	const char *names[ACTIONS];
	struct text list = {0};

	for (int i = 0; i < ACTIONS; i++) {
		names[i] = actions[i].name;
		text_add(&list, "%s%s", i ? ", " : "", names[i]);
	}
	const char *near = nearest_word(name, names, ACTIONS);
	report(EXIT_USAGE, "data: '%s' is none of %s%s%s%s", name, list.data,
	       near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
	text_release(&list);
	return EXIT_USAGE;
}

const char *data_advice(size_t samples, size_t cut, size_t skipped)
{
	if (skipped > 0 && 5 * skipped >= samples)
		return "many samples have no token to train on: a longer data.sequence keeps more of their "
		       "answers (data.mask: none trains on what is there)";
	if (cut > 0 && 5 * cut >= samples)
		return "many samples are cut: a longer data.sequence keeps more of them";
	return NULL;
}

int command_data(int argc, char **argv)
{
	if (argc < 2) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0) {
		fputs(usage, stdout);
		return 0;
	}
	for (int i = 0; i < ACTIONS; i++) {
		if (strcmp(argv[1], actions[i].name) == 0)
			return actions[i].run(argc - 1, argv + 1);
	}
	return unknown(argv[1]);
}
