/*
 * bench/make_tokens.c - makes a tokenised data file of random ids, so that training can be
 * measured at any vocabulary and sequence without a text or a tokenizer.
 *
 * links: model
 */
#include "model/model.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"make_tokens - a .safetensors data file of random token ids\n"
	"\n"
	"  make_tokens /tmp/train.safetensors --vocabulary 50257 --sequence 256 --samples 512\n"
	"\n"
	"Usage: make_tokens OUT.safetensors --vocabulary V --sequence T --samples N\n"
	"                   [--seed S]\n";

struct order {
	const char *path;
	uint64_t vocabulary, sequence, samples, seed;
};

static int read_options(struct order *order, int argc, char **argv)
{
	static const struct option options[] = {
		{"vocabulary", required_argument, NULL, 0},
		{"sequence", required_argument, NULL, 0},
		{"samples", required_argument, NULL, 0},
		{"seed", required_argument, NULL, 0},
		{0},
	};
	uint64_t *const value[] = {&order->vocabulary, &order->sequence, &order->samples,
				   &order->seed};
	int which, option;

	while ((option = getopt_long(argc, argv, "", options, &which)) == 0) {
		char *end;

		errno = 0;
		*value[which] = strtoull(optarg, &end, 10);
		if (errno || end == optarg || *end || *value[which] > INT32_MAX)
			return error(EXIT_USAGE, "'%s' is no value for --%s", optarg,
				     options[which].name);
	}
	if (option != -1 || argc - optind != 1 || !order->vocabulary || !order->sequence ||
	    !order->samples) {
		fputs(usage, stderr);
		return error(EXIT_USAGE,
			     "a file, a vocabulary, a sequence and samples are needed");
	}
	order->path = argv[optind];
	return 0;
}

static int make(const struct order *order)
{
	size_t count = order->samples * order->sequence;
	int32_t *id = xalloc(count * sizeof *id);
	struct safetensors_entry entry = {
	    "input_ids",
	    DTYPE_I32,
	    2,
	    {(long long)order->samples, (long long)order->sequence},
	    id};

	for (size_t i = 0; i < count; i++) {
		struct philox at = {{(uint32_t)i, (uint32_t)(i >> 32), 0, 0}};
		uint32_t word = philox(at, (uint32_t)order->seed, 0).word[0];

		id[i] = (int32_t)((uint64_t)word * order->vocabulary >> 32);
	}
	int done = safetensors_write(order->path, &entry, 1, NULL);
	free(id);
	return done;
}

int main(int argc, char **argv)
{
	struct order order = {.seed = 1};

	if (read_options(&order, argc, argv) < 0 || make(&order) < 0)
		return error_code();
	return EXIT_SUCCESS;
}
