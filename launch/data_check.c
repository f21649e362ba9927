/*
 * launch/data_check.c - edgepipe data check: every error of a data file, and what its samples
 * are like.
 */
#include "launch/data.h"
#include "model/model.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"edgepipe data check - every error of a data file, and what its samples are like\n"
	"\n"
	"Examples:\n"
	"  edgepipe data check topologies/campus.yaml          # its data.train and data.valid\n"
	"  edgepipe data check train.jsonl                     # lengths are bytes\n"
	"  edgepipe data check train.jsonl.gz --model gpt2 --sequence 512\n"
	"\n"
	"Usage: edgepipe data check FILE [--model DIR] [--sequence N] [--mask M] [--template T]\n"
	"       edgepipe data check TOPOLOGY.yaml [--model DIR] [--set K=V]...\n"
	"  FILE              .jsonl, .txt or .safetensors, each also .gz, or a folder with train.*\n"
	"  --model DIR       count tokens: with the tokenizer of this model (plain text needs it)\n"
	"  --sequence N      tokens of a sample (without it: 256)\n"
	"  --mask M, --template T   as data.mask and data.template of a topology file\n"
	"  --set K=V         overrides a key of the topology file\n"
	"  -h, --help        this text\n"
	"\n"
	"Errors are file:line:column on standard error, the first hundred in full; with one, the\n"
	"exit code is 65, or 78 where a thing is not built.\n";

struct check {
	const char *file, *model;
	struct data_config data; /* of a file that stands alone */
	const char *set[64];
	int sets;
	bool help;
	struct model_config *config;
};

static int read_mask(struct check *c, const char *word)
{
	static const char *const masks[] = {"auto", "none", "prompt", "assistant-only"};

	for (int i = 0; i < 4; i++) {
		if (strcmp(word, masks[i]) == 0) {
			c->data.mask = i;
			return 0;
		}
	}
	return error(EXIT_USAGE, "data check: --mask '%s' is none of auto, none, prompt, assistant-only",
		     word);
}

static int read_sequence(struct check *c, const char *text)
{
	char *end;
	long long tokens = strtoll(text, &end, 10);

	if (end == text || *end || tokens < 1 || tokens > 1 << 24)
		return error(EXIT_USAGE, "data check: --sequence '%s' is no number from 1", text);
	c->data.sequence = tokens;
	return 0;
}

static int read_options(struct check *c, int argc, char **argv)
{
	static const struct option options[] = {
		{"model", required_argument, NULL, 'm'}, {"sequence", required_argument, NULL, 'q'},
		{"mask", required_argument, NULL, 'k'},	 {"template", required_argument, NULL, 't'},
		{"set", required_argument, NULL, 's'},	 {"help", no_argument, NULL, 'h'},
		{0},
	};
	int option;

	opterr = optind = 0;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		if (option == 'm')
			c->model = optarg;
		else if (option == 'h')
			c->help = true;
		else if (option == 't')
			c->data.template = optarg;
		else if (option == 's' && c->sets < 64)
			c->set[c->sets++] = optarg;
		else if (option != 'q' && option != 'k')
			return option_error("data check", options, option, argv);
		else if ((option == 'q' ? read_sequence(c, optarg) : read_mask(c, optarg)) < 0)
			return -1;
	}
	c->file = optind < argc ? argv[optind] : NULL;
	if (optind + 1 < argc)
		return error(EXIT_USAGE, "data check: one file at a time: '%s'", argv[optind + 1]);
	if (!c->help && !c->file)
		return error(EXIT_USAGE, "data check: the file is missing");
	return 0;
}

/* -- what was found ------------------------------------------------------------------------ */

static void print_report(const char *path, const struct data_report *r)
{
	const char *unit = r->bytes ? "bytes" : "tokens";
	size_t kept = r->kept_tokens ? r->kept_tokens : 1;

	printf("%s\n", path);
	printf("  form        %s%s%s\n", r->form, r->template[0] ? ", written with the template " : "",
	       r->template);
	printf("  samples     %zu, %zu of them %s\n", r->samples, r->duplicates,
	       r->duplicates == 1 ? "a duplicate" : "duplicates");
	if (r->samples > 0)
		printf("  lengths     %zu at least, %zu median, %zu at 95 %%, %zu at most (%s, %zu in "
		       "all)\n",
		       r->shortest, r->median, r->p95, r->longest, unit, r->all_tokens);
	if (r->bytes)
		printf("  tokens      --model DIR counts them, and what is cut and trained\n");
	else
		printf("  truncation  %zu sample%s longer than %d and lose%s %zu tokens\n"
		       "  trained     %zu tokens, %.1f %% of what is kept; %zu sample%s without one "
		       "%s skipped\n",
		       r->cut, r->cut == 1 ? " is" : "s are", r->sequence, r->cut == 1 ? "s" : "",
		       r->cut_tokens, r->trained_tokens, 100 * (double)r->trained_tokens / (double)kept,
		       r->skipped, r->skipped == 1 ? "" : "s", r->skipped == 1 ? "is" : "are");
	const char *advice = r->bytes ? NULL : data_advice(r->samples, r->cut, r->skipped);
	if (advice)
		printf("  advice      %s\n", advice);
	printf("  errors      %zu\n", r->errors);
}

static int check_one(const struct check *c, const char *path, const char *kind,
		     const struct data_config *data)
{
	struct data_report found;
	int done = dataset_check(path, kind, data, c->config, &found);

	if (done < 0 && found.errors == 0)
		return -1;
	print_report(path, &found);
	fflush(stdout);
	if (found.errors > 100)
		report(EXIT_DATA, "'%s': %zu errors, the first 100 were said", path, found.errors);
	if (found.errors > 0 || done < 0)
		return -1;
	if (found.samples == 0)
		return error(EXIT_DATA, "'%s' holds no sample", path);
	if (!found.bytes && found.trained_tokens == 0)
		return error(EXIT_DATA, "'%s': not one token of its %zu sample%s is trained", path,
			     found.samples, found.samples == 1 ? "" : "s");
	return 0;
}

static bool is_topology(const char *path)
{
	const char *dot = strrchr(path, '.');

	return dot && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
}

static int check_job(struct check *c)
{
	struct job job;
	int done = job_read(&job, c->file, c->set, c->sets), valid = 0;

	if (done == 0) {
		c->config = model_config_read(c->model ? c->model : job.model);
		done = c->config ? 0 : -1;
	}
	if (done == 0 && !job.data.train && !job.data.valid)
		done = error(EXIT_CONFIG, "'%s' names no data", c->file);
	if (c->config && job.data.train)
		done = check_one(c, job.data.train, "train", &job.data);
	if (c->config && job.data.valid)
		valid = check_one(c, job.data.valid, "valid", &job.data);
	job_release(&job);
	return done < 0 || valid < 0 ? -1 : 0;
}

static int check_file(struct check *c)
{
	if (c->sets > 0)
		return error(EXIT_USAGE, "data check: --set goes with a topology file");
	if (c->model)
		c->config = model_config_read(c->model);
	if (c->model && !c->config)
		return -1;
	return check_one(c, c->file, "train", &c->data);
}

int data_check(int argc, char **argv)
{
	struct check check = {0};

	if (read_options(&check, argc, argv) < 0)
		return error_code();
	if (check.help) {
		fputs(usage, stdout);
		return 0;
	}
	int done = is_topology(check.file) ? check_job(&check) : check_file(&check);
	model_config_free(check.config);
	return done < 0 ? error_code() : 0;
}
