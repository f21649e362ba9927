/* What is wrong with an option, or with the arguments behind the options. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "launch/launch.h"

enum { OPTIONS_MAX = 64 };

bool speaks_first(void)
{
	const char *rank = getenv("OMPI_COMM_WORLD_RANK");

	return !rank || !strcmp(rank, "0");
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
