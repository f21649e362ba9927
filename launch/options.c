/* What is wrong with an option, or with the arguments behind the options. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "launch/launch.h"

enum { OPTIONS_MAX = 64 };
#define SPEAKING_S 10.0		/* longer than rank 0 takes to say what is wrong, on a busy machine too */

/* Whether this process is the one that speaks before the ranks are joined: rank 0, or the only one. */
static bool speaks_first(void)
{
	const char *rank = getenv("OMPI_COMM_WORLD_RANK");

	return !rank || !strcmp(rank, "0");
}

/* mpirun ends all ranks once one has ended with an error: whoever is silent waits to be ended. */
int stop_before(int status, const char *help)
{
	int code = status > 0 ? 0 : error_code();

	if (speaks_first())
		fputs(status > 0 ? help : error_text(), status > 0 ? stdout : stderr);
	else if (code)
		clock_sleep(SPEAKING_S);
	error_clear();
	return code;
}

int option_error(const char *command, const struct option *options, int option, char **argv)
{
	const char *given = argv[optind - 1], *names[OPTIONS_MAX], *near;
	char bare[64];
	int count = 0;

	if (option == ':')
		return error(EXIT_USAGE, "%s: option '%s' needs a value", command, given);
	while (options[count].name && count < OPTIONS_MAX) {
		names[count] = options[count].name;
		count++;
	}
	snprintf(bare, sizeof(bare), "%.*s", (int)strcspn(given, "="), given);
	near = nearest_word(bare + strspn(bare, "-"), names, count);
	if (near)
		return error(EXIT_USAGE, "%s: unknown option '%s' (did you mean '--%s'?)", command,
			     given, near);
	return error(EXIT_USAGE, "%s: unknown option '%s'; see edgepipe %s --help", command, given,
		     command);
}

const char *option_topology(const char *command, const char *example, const char *hint, int argc, char **argv)
{
	if (optind + 1 == argc)
		return argv[optind];
	if (optind == argc)
		return error_null(EXIT_USAGE, "%s: which topology file? For example:\n    %s", command, example);
	return error_null(EXIT_USAGE, "%s: one topology file at a time; '%s' is a second one%s", command, argv[optind + 1],
			  hint ? hint : "");
}
