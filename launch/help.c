/* `edgepipe help [config]`, and the text of `edgepipe --help`. */
#include <string.h>

#include "launch/launch.h"

static const char general[] =
	"edgepipe fine-tunes language models with LoRA as a pipeline over unequal servers joined by slow links.\n"
	"\n"
	"Usage: edgepipe COMMAND ...\n"
	"\n"
	"  train TOPOLOGY.yaml     fine-tune; started by mpirun, one rank a node of the file\n"
	"  profile TOPOLOGY.yaml   measure nodes and links, to plan with; started by mpirun, too\n"
	"  plan TOPOLOGY.yaml      which node would run what, how long a step would take, what would help\n"
	"  compare TOPOLOGY.yaml   training time against hop count: table, JSON, CSV, SVG\n"
	"  eval TOPOLOGY.yaml      loss and perplexity on held-out data, with or without an adapter\n"
	"  generate TOPOLOGY.yaml  text from the model, on one machine or split over the nodes\n"
	"  report RUN_DIR          report.html of a run, made again from its files\n"
	"  export RUN_DIR          the adapter for Hugging Face PEFT and others, alone or merged into the model\n"
	"  data ACTION             what data files hold (show, check); text to token ids and back\n"
	"  help [COMMAND|config]   this text, a command's, or every key of a topology file\n"
	"\n"
	"      --version           versions of edgepipe and of what it stands on\n"
	"  -h, --help              this text\n"
	"\n"
	"Example:\n"
	"  mpirun -np 5 edgepipe train topologies/campus.yaml\n";

static int help_config(void)
{
	struct text text = {0};

	schema_help(&job_schema, &text);
	fputs(text.data ? text.data : "", stdout);
	text_release(&text);
	return 0;
}

int command_help(int argc, char **argv)
{
	char name[32], flag[] = "--help", *ask[] = {name, flag, NULL};

	if (argc < 2) {
		fputs(general, stdout);
		return 0;
	}
	if (!strcmp(argv[1], "config"))
		return help_config();
	snprintf(name, sizeof(name), "%s", argv[1]);
	if (!strcmp(argv[1], "train"))
		return command_train(2, ask);
	if (!strcmp(argv[1], "plan"))
		return command_plan(2, ask);
	if (!strcmp(argv[1], "compare"))
		return command_compare(2, ask);
	if (!strcmp(argv[1], "profile"))
		return command_profile(2, ask);
	if (!strcmp(argv[1], "eval"))
		return command_eval(2, ask);
	if (!strcmp(argv[1], "generate"))
		return command_generate(2, ask);
	if (!strcmp(argv[1], "report"))
		return command_report(2, ask);
	if (!strcmp(argv[1], "export"))
		return command_export(2, ask);
	if (!strcmp(argv[1], "data"))
		return command_data(2, ask);
	report(EXIT_USAGE, "help: no help on '%s'; there is help on config, train, profile, plan, compare, export, data, eval, generate, report", argv[1]);
	return EXIT_USAGE;
}
