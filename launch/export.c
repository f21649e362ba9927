/*
 * `edgepipe export`: what a run has trained, or somebody's adapter, as a directory that other
 * tools load.
 */
#include <dirent.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "launch/launch.h"
#include "launch/readme.h"
#include "model/model.h"

static const char export_help[] =
	"edgepipe export - what a run has trained, for other tools\n"
	"\n"
	"Examples:\n"
	"  edgepipe export runs/campus --format peft\n"
	"  edgepipe export runs/campus --format peft --step 150 --out campus-150\n"
	"  edgepipe export adapters/from-a-friend --model campus/model --format peft\n"
	"  edgepipe export runs/campus --format merged --out campus-tuned\n"
	"\n"
	"Usage: edgepipe export RUN_DIR|ADAPTER_DIR --format peft|merged [options]\n"
	"  RUN_DIR         what `train` left: its adapter, or, where it has none yet, its newest checkpoint that verifies\n"
	"  ADAPTER_DIR     any LoRA adapter with adapter_config.json and adapter_model.safetensors\n"
	"      --format F  peft: an adapter directory, which Python's peft, vLLM and llama.cpp load\n"
	"                  merged: a whole model directory with the adapter in its weights, which transformers and all that\n"
	"                  reads its models load; in the weights' own type, rounded once from fp32\n"
	"      --step N    of a run: its checkpoint of that step\n"
	"      --model DIR the base model, where it is not the directory that the adapter or the run names\n"
	"      --out DIR   the directory to make (default: the source's name with the format behind it)\n"
	"      --overwrite replace the adapter (merged: the model) that is at --out\n"
	"      --shard-size SIZE  merged: the most bytes of tensors in one file of weights (default: 4 GB)\n"
	"  -h, --help      this text\n"
	"\n"
	"The directory appears whole or not at all.\n";

#define SHARD_BYTES 4e9
#define PROGRESS_S 3.0
#define VLLM_RANK 16		/* its standard --max-lora-rank */

enum { OPTION_FORMAT = 256, OPTION_STEP, OPTION_MODEL, OPTION_OUT, OPTION_OVERWRITE,
       OPTION_SHARD };

static const struct option long_options[] = {
	{"format", required_argument, NULL, OPTION_FORMAT},
	{"step", required_argument, NULL, OPTION_STEP},
	{"model", required_argument, NULL, OPTION_MODEL},
	{"out", required_argument, NULL, OPTION_OUT},
	{"overwrite", no_argument, NULL, OPTION_OVERWRITE},
	{"shard-size", required_argument, NULL, OPTION_SHARD},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

struct export {
	/* the command line's */
	const char *source, *format, *folder, *out;
	long long step;			/* -1: not given */
	bool overwrite;
	double shard_bytes;
	/* what is exported */
	const char *adapter;		/* its directory; null: from a checkpoint */
	struct job job;			/* of a run, for a checkpoint */
	struct model_config *model;
	struct weights *weights;	/* merged */
	struct lora *lora;
	float *values;
	double said_s;			/* when the last line about progress was */
	struct arena arena;
};

static bool merges(const struct export *e)
{
	return !strcmp(e->format, "merged");
}

/* -- options ------------------------------------------------------------------------------- */

static int take_step(struct export *e, const char *text)
{
	char *end;

	e->step = strtoll(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end || e->step > 99999999)
		return error(EXIT_USAGE, "export: --step needs a number of a step, not '%s'", text);
	return 0;
}

static int take_shard(struct export *e, const char *text)
{
	char why[160];

	if (unit_read(text, UNIT_BYTES, &e->shard_bytes, why, sizeof(why)))
		return error(EXIT_USAGE, "export: --shard-size: %s", why);
	if (e->shard_bytes < 1)
		return error(EXIT_USAGE, "export: --shard-size: '%s' is nothing", text);
	return 0;
}

/* Takes one option. 0, 1 for --help, -1 after an error. */
static int take_option(struct export *e, int option, char **argv)
{
	switch (option) {
	case OPTION_FORMAT: e->format = optarg; return 0;
	case OPTION_STEP: return take_step(e, optarg);
	case OPTION_MODEL: e->folder = optarg; return 0;
	case OPTION_OUT: e->out = optarg; return 0;
	case OPTION_OVERWRITE: e->overwrite = true; return 0;
	case OPTION_SHARD: return take_shard(e, optarg);
	case 'h': return 1;
	default: return option_error("export", long_options, option, argv);
	}
}

static int check_format(const char *format)
{
	static const char *const formats[] = {"peft", "merged"};
	const int count = sizeof(formats) / sizeof(*formats);

	if (!format)
		return error(EXIT_USAGE, "export: which --format? There are peft and merged");
	for (int i = 0; i < count; i++)
		if (!strcmp(format, formats[i]))
			return 0;
	const char *near = nearest_word(format, formats, count);
	return error(EXIT_USAGE, "export: unknown format '%s'%s%s%s (there are peft and merged)", format,
		     near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* A path without slashes at its end, which would lead into the folder. */
static const char *plain_path(struct export *e, const char *path)
{
	size_t bytes = strlen(path);

	while (bytes > 1 && path[bytes - 1] == '/')
		bytes--;
	return arena_copy(&e->arena, path, bytes);
}

/* The source's name with the format behind it: "runs/campus-peft", "runs/campus-step-150-peft". */
static const char *standard_out(struct export *e)
{
	if (e->step >= 0)
		return arena_format(&e->arena, "%s-step-%lld-%s", e->source, e->step, e->format);
	return arena_format(&e->arena, "%s-%s", e->source, e->format);
}

static int check_options(struct export *e, int argc, char **argv)
{
	if (optind == argc)
		return error(EXIT_USAGE, "export: which run or adapter? For example:\n"
			     "    edgepipe export runs/campus --format peft");
	if (argc - optind > 1)
		return error(EXIT_USAGE, "export: one run or adapter at a time; '%s' is a second one",
			     argv[optind + 1]);
	e->source = plain_path(e, argv[optind]);
	if (check_format(e->format))
		return -1;
	if (!e->source[0] || (e->out && !e->out[0]) || (e->folder && !e->folder[0]))
		return error(EXIT_USAGE, "export: \"\" is no directory");
	e->out = e->out ? plain_path(e, e->out) : standard_out(e);
	return 0;
}

/* 0, 1 when the help was asked for, -1 after an error. */
static int read_options(struct export *e, int argc, char **argv)
{
	int option, status = 0;

	opterr = 0;
	optind = 1;
	while (!status && (option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1)
		status = take_option(e, option, argv);
	return status ? status : check_options(e, argc, argv);
}

/* -- where from ---------------------------------------------------------------------------- */

static bool has(struct export *e, const char *folder, const char *name)
{
	return path_exists(path_join(&e->arena, folder, name));
}

/* Finds out what the source is; -1 after an error. */
static int find_source(struct export *e)
{
	const char *adapter = path_join(&e->arena, e->source, "adapter");

	if (!path_exists(e->source))
		return error(EXIT_INPUT, "cannot find '%s'", e->source);
	if (has(e, e->source, "adapter_config.json")) {
		e->adapter = e->source;
		if (e->step >= 0)
			return error(EXIT_USAGE, "export: --step is for runs, and '%s' is an adapter",
				     e->source);
		return 0;
	}
	if (!has(e, e->source, "config.resolved.yaml"))
		return error(EXIT_INPUT, "'%s' is neither a run (it has no config.resolved.yaml) nor an "
			     "adapter (no adapter_config.json)", e->source);
	if (e->step < 0 && has(e, adapter, "adapter_config.json"))
		e->adapter = adapter;
	return 0;
}

/* The adapter's own words for its base, where they are a directory. */
static const char *base_of(struct export *e)
{
	struct adapter_config *config = adapter_config_read(&e->arena, e->adapter);

	if (!config)
		return NULL;
	if (has(e, config->base, "config.json"))
		return config->base;
	if (config->base[0])
		return error_null(EXIT_INPUT, "the adapter '%s' is for the model '%s', which is no model "
				  "directory here: name one with --model", e->adapter, config->base);
	return error_null(EXIT_INPUT, "the adapter '%s' does not say what model it is for: name its "
			  "directory with --model", e->adapter);
}

static int open_adapter(struct export *e)
{
	const struct lora_config want = {.init = e->adapter};
	const char *folder = e->folder ? e->folder : base_of(e);

	e->model = folder ? model_config_read(folder) : NULL;
	e->lora = e->model ? lora_resolve(e->model, &want) : NULL;
	if (!e->lora)
		return -1;
	e->values = xzalloc(e->lora->elements, sizeof(float));
	return lora_values(e->lora, 0, e->lora->count, 0, e->values);
}

static int open_checkpoint(struct export *e)
{
	if (job_read(&e->job, path_join(&e->arena, e->source, "config.resolved.yaml"), NULL, 0))
		return -1;
	e->model = model_config_read(e->folder ? e->folder : e->job.model);
	e->lora = e->model ? lora_resolve(e->model, &e->job.lora) : NULL;
	if (!e->lora)
		return -1;
	e->values = xzalloc(e->lora->elements, sizeof(float));
	e->step = checkpoint_values(e->source, e->step, e->lora, e->values);
	return e->step < 0 ? -1 : 0;
}

/* -- the base ------------------------------------------------------------------------------ */

/* Whether a digest is the one that the run's checkpoints name; true, too, where there is nothing to compare with. */
static bool is_same(struct export *e, const char *key, struct digest digest)
{
	char was[33], is[33];

	return e->source == e->adapter || !checkpoint_said(e->source, "identity", key, was, sizeof(was)) ||
	       !strcmp(was, digest_write(digest, is));
}

/* A merged model of other weights than those of the training would be nonsense that loads. Who names a model on the command
 * line may mean another copy, as one in another type. */
static int check_base(struct export *e)
{
	const struct model_config *model = e->model;

	if (!is_same(e, "model", model->digest))
		warn("'%s/config.json' is not what it was when '%s' was trained", model->folder, e->source);
	if (!merges(e))
		return 0;
	e->weights = weights_open(model);
	if (!e->weights)
		return -1;
	if (is_same(e, "weights", weights_digest(e->weights, 0, model->blocks, true, true)))
		return 0;
	if (!e->folder)
		return error(EXIT_CONFIG, "the weights in '%s' are not those that '%s' was trained on: name their directory "
			     "with --model", model->folder, e->source);
	warn("the weights in '%s' are not those that '%s' was trained on", model->folder, e->source);
	return 0;
}

/* -- where to ------------------------------------------------------------------------------ */

static bool is_empty(const char *path)
{
	DIR *folder = opendir(path);
	int entries = 0;

	if (!folder)
		return false;
	while (entries < 3 && readdir(folder))
		entries++;
	closedir(folder);
	return entries < 3;
}

/* Whether `inner` is `outer` or lies in it. */
static bool lies_in(const char *inner, const char *outer)
{
	char *a = realpath(inner, NULL), *b = realpath(outer, NULL);
	size_t bytes = b ? strlen(b) : 0;
	bool in = a && b && strncmp(a, b, bytes) == 0 && (a[bytes] == '/' || a[bytes] == '\0');

	free(a);
	free(b);
	return in;
}

/* Only what is an export itself is ever replaced, and never what is read. */
static int check_out(struct export *e)
{
	if (!path_exists(e->out) || is_empty(e->out))
		return 0;
	if (!e->overwrite)
		return error(EXIT_CREATE, "'%s' exists: choose another --out, or replace it with "
			     "--overwrite", e->out);
	if (lies_in(e->source, e->out) || lies_in(e->model->folder, e->out))
		return error(EXIT_CREATE, "cannot replace '%s', which is read here: choose another --out",
			     e->out);
	if (!has(e, e->out, merges(e) ? "config.json" : "adapter_config.json"))
		return error(EXIT_CREATE, "'%s' is not %s, which --overwrite would replace: choose "
			     "another --out", e->out, merges(e) ? "a model" : "an adapter");
	return 0;
}

/* Its README.md: the adapter's own, or what the run's files say; null: there is none. The caller frees. */
static char *readme_of(struct export *e)
{
	const struct readme readme = {e->source, &e->job, e->model, e->lora, e->step};
	const char *path = e->adapter ? path_join(&e->arena, e->adapter, "README.md") : NULL;

	if (!e->adapter)
		return readme_make(&readme);
	return path_exists(path) ? file_read(path, &(size_t){0}) : NULL;
}

/* What another tool asks for is said here rather than there. */
static void warn_rank(const struct lora *lora)
{
	int most = 0;

	for (int i = 0; i < lora->count; i++)
		if (lora->tensor[i].rank > most)
			most = lora->tensor[i].rank;
	if (most > VLLM_RANK)
		warn("the adapter has rank %d: vLLM takes ranks above %d only with --max-lora-rank", most, VLLM_RANK);
	if (lora->ranks.count || lora->alphas.count)
		warn("modules have ranks or alphas of their own (rank_pattern, alpha_pattern): PEFT reads that, other tools "
		     "may not");
}

static int write_adapter(struct export *e)
{
	char *readme = readme_of(e);
	/* Somebody else's adapter goes on being of the model that it names. */
	bool names = e->adapter && e->lora->base && e->lora->base[0];
	struct adapter_about about = {names ? e->lora->base : NULL, readme};
	warn_rank(e->lora);
	int rc = adapter_write(e->out, e->lora, e->model, e->values, &about);

	free(readme);
	return rc;
}

/* A line every few seconds, and none where all is done in less. */
static void say_progress(void *arg, double done_bytes, double all_bytes)
{
	struct export *e = arg;
	double now = clock_s();
	char a[32], b[32];

	if (now - e->said_s < PROGRESS_S)
		return;
	e->said_s = now;
	say("merged  %s of %s", unit_write(done_bytes, UNIT_BYTES, a, sizeof(a)),
	    unit_write(all_bytes, UNIT_BYTES, b, sizeof(b)));
	fflush(stdout);
}

static int write_merged(struct export *e)
{
	struct merged_model merge = {.lora = e->lora, .values = e->values, .shard_bytes = e->shard_bytes,
			      .progress = say_progress, .arg = e, .weights = e->weights};

	e->said_s = clock_s();
	return merged_write(e->out, &merge);
}

static int export_it(struct export *e)
{
	if (find_source(e) || (e->adapter ? open_adapter(e) : open_checkpoint(e)) || check_out(e) || check_base(e))
		return -1;
	if (merges(e) ? write_merged(e) : write_adapter(e))
		return -1;
	if (e->adapter)
		say("export  %s, the adapter '%s'", e->out, e->adapter);
	else
		say("export  %s, of step %lld of '%s'", e->out, e->step, e->source);
	return 0;
}

int command_export(int argc, char **argv)
{
	struct export e = {.step = -1, .shard_bytes = SHARD_BYTES};
	int status = read_options(&e, argc, argv);

	if (status > 0)
		fputs(export_help, stdout);
	else if (status == 0)
		status = export_it(&e);
	if (status >= 0 && fflush(stdout))
		status = error(EXIT_IO, "cannot write to standard output");
	free(e.values);
	weights_close(e.weights);
	lora_free(e.lora);
	model_config_free(e.model);
	job_release(&e.job);
	arena_release(&e.arena);
	return status < 0 ? error_code() : 0;
}
