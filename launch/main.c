/* The program: picks the sub-command. */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "launch/launch.h"
#include "tensor/tensor.h"

struct command {
	const char *name;
	int (*run)(int argc, char **argv);
};
static const struct command commands[] = {
	{"train", command_train}, {"profile", command_profile}, {"plan", command_plan},
	{"compare", command_compare}, {"data", command_data}, {"eval", command_eval},
	{"generate", command_generate}, {"report", command_report}, {"export", command_export}, {"help", command_help}};
enum { COMMANDS = sizeof(commands) / sizeof(*commands) };

/* Known by name, so that asking for one is answered. */
static const char *const unbuilt[] = {"run", "doctor"};

/* OpenBLAS reads its settings when it is loaded, so the program starts itself again where they are wrong: the fast
 * core on CPUs that it does not know, and no threads of its own beside our pool. */
static void settle_blas(char **argv)
{
	const char *core = blas_better_core();
	const char *threads = getenv("OPENBLAS_NUM_THREADS");

	if (getenv("EDGEPIPE_SETTLED") || (!core && threads && !strcmp(threads, "1")))
		return;
	setenv("EDGEPIPE_SETTLED", "1", 1);
	setenv("OPENBLAS_NUM_THREADS", "1", 1);
	if (core)
		setenv("OPENBLAS_CORETYPE", core, 1);
	execv("/proc/self/exe", argv);
}

static int unknown(const char *name)
{
	const char *names[COMMANDS], *near;

	for (size_t i = 0; i < sizeof(unbuilt) / sizeof(*unbuilt); i++)
		if (!strcmp(name, unbuilt[i])) {
			report(EXIT_CONFIG, "the command '%s' is not built yet", name);
			return EXIT_CONFIG;
		}
	for (int i = 0; i < COMMANDS; i++)
		names[i] = commands[i].name;
	near = nearest_word(name, names, COMMANDS);
	if (near)
		report(EXIT_USAGE, "unknown command '%s' (did you mean '%s'?)", name, near);
	else
		report(EXIT_USAGE, "unknown command '%s'; see edgepipe --help", name);
	return EXIT_USAGE;
}

static int print_version(void)
{
	struct text text = {0};

	version_write(&text);
	fputs(text.data, stdout);
	text_release(&text);
	return 0;
}

int main(int argc, char **argv)
{
	settle_blas(argv);
	prctl(PR_SET_NAME, "edgepipe");	/* after an exec of /proc/self/exe it would be "exe" */
	mallopt(M_ARENA_MAX, 1);	/* a heap for every thread would not be in the estimate */
	if (argc < 2 || !strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))
		return command_help(1, argv);
	if (!strcmp(argv[1], "--version"))
		return print_version();
	for (int i = 0; i < COMMANDS; i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	if (argv[1][0] == '-') {
		report(EXIT_USAGE, "unknown option '%s'; there are --help and --version", argv[1]);
		return EXIT_USAGE;
	}
	return unknown(argv[1]);
}
