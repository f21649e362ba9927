/* edgepipe plan: decides and predicts from the topology file and the model's config.json, without starting anything. */
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launch/gantt.h"
#include "launch/launch.h"

static const char plan_help[] =
	"edgepipe plan - which node would run which blocks, and how long a step would take\n"
	"\n"
	"Examples:\n"
	"  edgepipe plan topologies/campus.yaml\n"
	"  edgepipe plan topologies/campus.yaml --explain\n"
	"  edgepipe plan topologies/campus.yaml --set plan.solver=uniform -o plan.json\n"
	"  edgepipe plan topologies/campus.yaml --profile profile.json\n"
	"  edgepipe plan topologies/campus.yaml --top 5 -o plan.json\n"
	"\n"
	"Usage: edgepipe plan TOPOLOGY.yaml [-o plan.json] [--profile FILE] [--plan FILE] [--explain] [--svg FILE]\n"
	"                     [--top N] [--dump-lp FILE] [--jitter SHARE] [--set KEY=VALUE]...\n"
	"  -o, --output FILE   writes the plan as JSON (- is standard output)\n"
	"      --profile FILE  plans with what `edgepipe profile` (or a run's profile.measured.json) measured; refused\n"
	"                      where it is of another model, build, or cluster\n"
	"      --plan FILE     takes nodes, blocks, micro-batch and schedule from a plan.json, which may be edited by hand\n"
	"      --top N         also the next best plans that place otherwise, N in all: with -o FILE, they are FILE.2 to\n"
	"                      FILE.N; with it the best one is looked for among more plans, and may be a better one; files of\n"
	"                      an earlier, longer list stay\n"
	"      --dump-lp FILE  writes the problem whose least value `exact` proves, for a solver of integer programs (cbc)\n"
	"      --jitter SHARE  simulates 200 steps in which nothing takes as long as planned: lognormal, of this deviation\n"
	"      --explain       what each stage does with its time, the other solvers, what would help most\n"
	"      --svg FILE      draws the step: who computes what when, and what is on the links (- is standard output)\n"
	"      --set KEY=VALUE overrides a key of the file, as for train\n"
	"  -h, --help          this text\n"
	"\n"
	"Runs without MPI and needs neither weights nor data: of the model it reads config.json. Times come from the\n"
	"profile, else from the declared compute and links. A sequence has data.sequence tokens, 256 where that is not given.\n"
	"Memory is the allocator's own arithmetic and what a process needs besides (from the profile, else guessed), checked\n"
	"against the nodes that declare theirs or were measured.\n";

enum { OPTION_EXPLAIN = 256, OPTION_SET, OPTION_PLAN, OPTION_PROFILE, OPTION_LP, OPTION_JITTER, OPTION_SVG, OPTION_TOP };
enum { TOP_MOST = 100 };

static const struct option long_options[] = {
	{"output", required_argument, NULL, 'o'},
	{"explain", no_argument, NULL, OPTION_EXPLAIN},
	{"set", required_argument, NULL, OPTION_SET},
	{"plan", required_argument, NULL, OPTION_PLAN},
	{"profile", required_argument, NULL, OPTION_PROFILE},
	{"dump-lp", required_argument, NULL, OPTION_LP},
	{"jitter", required_argument, NULL, OPTION_JITTER},
	{"top", required_argument, NULL, OPTION_TOP},
	{"svg", required_argument, NULL, OPTION_SVG},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

struct plan_command {
	const char *topology, *output, *given, *profile_path, *svg, *program;
	const char **set;
	int set_count;
	bool explain;
	/* What the problem points to. */
	struct job job;
	struct model_config *model;
	struct lora *lora;
	int *threads;
	enum dtype *dtypes;
	double *limit, *overhead;
	struct profile *profile;
	struct problem problem;
	struct plan plan, file;
	double jitter;			/* 0: not asked for */
	long long top;			/* 0: not asked for */
	struct plan *ranked;		/* [top], of which these are there: */
	int count;
};

static bool on_stdout(const char *path)
{
	return path && !strcmp(path, "-");
}

/* "FILE", "FILE.2", ... */
static const char *ranked_path(const struct plan_command *c, int i, char *buffer, size_t bytes)
{
	if (i == 0)
		return c->output;
	snprintf(buffer, bytes, "%s.%d", c->output, i + 1);
	return buffer;
}

/* -- options ------------------------------------------------------------------------------- */

static int take_top(struct plan_command *c, const char *value)
{
	char *end;

	c->top = strtoll(value, &end, 10);
	if (end == value || *end || c->top < 1 || c->top > TOP_MOST)
		return error(EXIT_USAGE, "plan: --top: '%s' is not in 1..%d", value, TOP_MOST);
	return 0;
}

static int take_jitter(struct plan_command *c, const char *value)
{
	char *end;

	c->jitter = strtod(value, &end);
	if (end == value || *end || !(c->jitter > 0 && c->jitter <= 1))
		return error(EXIT_USAGE, "plan: --jitter: '%s' is not a share above 0 and up to 1, as 0.1", value);
	return 0;
}

/* 0, 1 for --help, -1 after an error. */
static int take_option(struct plan_command *c, int option, char **argv)
{
	switch (option) {
	case 'o': c->output = optarg; return 0;
	case OPTION_EXPLAIN: c->explain = true; return 0;
	case OPTION_SET: c->set[c->set_count++] = optarg; return 0;
	case OPTION_PLAN: c->given = optarg; return 0;
	case OPTION_PROFILE: c->profile_path = optarg; return 0;
	case OPTION_LP: c->program = optarg; return 0;
	case OPTION_JITTER: return take_jitter(c, optarg);
	case OPTION_TOP: return take_top(c, optarg);
	case OPTION_SVG: c->svg = optarg; return 0;
	case 'h': return 1;
	default: return option_error("plan", long_options, option, argv);
	}
}

static int read_options(struct plan_command *c, int argc, char **argv)
{
	int option, status = 0;

	c->set = xzalloc((size_t)argc, sizeof(*c->set));
	opterr = 0;
	optind = 1;
	while (!status && (option = getopt_long(argc, argv, ":ho:", long_options, NULL)) != -1)
		status = take_option(c, option, argv);
	if (status)
		return status;
	c->topology = option_topology("plan", "edgepipe plan topologies/campus.yaml --explain", NULL, argc, argv);
	if (!c->topology)
		return -1;
	if (c->top && (c->given || on_stdout(c->output)))
		return error(EXIT_USAGE, "plan: --top %s", c->given ? "chooses plans, --plan gives one" :
			     "writes several files: -o - cannot take them");
	if (on_stdout(c->output) + on_stdout(c->svg) + on_stdout(c->program) > 1)
		return error(EXIT_USAGE, "plan: only one of --output, --svg and --dump-lp can be standard output");
	return 0;
}

/* -- the problem --------------------------------------------------------------------------- */

/* Reads the profile and checks it against this job. */
static int open_profile(struct plan_command *c, int tokens)
{
	struct profile *want;
	int status;

	if (!c->profile_path)
		return 0;
	c->profile = profile_read(c->profile_path);
	want = c->profile ? profile_wanted(&c->job, c->model, c->lora, tokens, NULL) : NULL;
	status = want ? profile_check(c->profile, want, c->profile_path) : -1;
	profile_free(want);
	return status;
}

/* What a profile found of a node, where it found it. */
static void apply_profile(struct plan_command *c, size_t i)
{
	const struct node_profile *found = &c->profile->node[i];

	if (found->threads > 0)
		c->threads[i] = found->threads;
	if (c->limit[i] <= 0)
		c->limit[i] = found->limit_bytes;
	if (found->process_bytes > 0)
		c->overhead[i] = found->process_bytes + (i == 0 ? lora_state_bytes(c->lora) : 0);
}

static void describe_nodes(struct plan_command *c)
{
	size_t nodes = (size_t)c->job.cluster.nodes.count;

	c->threads = xzalloc(nodes, sizeof(*c->threads));
	c->dtypes = xzalloc(nodes, sizeof(*c->dtypes));
	c->limit = xzalloc(nodes, sizeof(*c->limit));
	c->overhead = xzalloc(nodes, sizeof(*c->overhead));
	for (size_t i = 0; i < nodes; i++) {
		const struct node *node = cluster_node(&c->job.cluster, (int)i);

		c->threads[i] = node->cores > 0 ? (int)node->cores : 1;
		c->dtypes[i] = c->job.train.precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32;
		c->limit[i] = node->memory_bytes;
		c->overhead[i] = PROCESS_BYTES + (i == 0 ? lora_state_bytes(c->lora) : 0);
		if (c->profile)
			apply_profile(c, i);
	}
}

static int make_problem(struct plan_command *c)
{
	int tokens;

	if (job_read(&c->job, c->topology, c->set, c->set_count) || job_servers_only(&c->job, "plan") ||
	    job_trace_means(&c->job))
		return -1;
	c->model = model_config_read(c->job.model);
	if (!c->model)
		return -1;
	c->lora = lora_resolve(c->model, &c->job.lora);
	tokens = c->lora ? dataset_sequence(&c->job.data, c->model) : -1;
	if (tokens < 0 || open_profile(c, tokens))
		return -1;
	describe_nodes(c);
	c->problem = (struct problem){
		.cluster = &c->job.cluster,
		.profile = c->profile,
		.model = c->model,
		.lora = c->lora,
		.want = &c->job.plan,
		.batch = c->job.train.batch,
		.micro_batch = c->job.train.micro_batch,
		.recompute = (enum recompute)c->job.train.recompute,
		.tokens = tokens,
		.slowdown = c->job.emulate.links || c->job.emulate.compute ? c->job.emulate.slowdown : 1,
		.links_emulated = c->job.emulate.links,
		.threads = c->threads,
		.dtypes = c->dtypes,
		.plain = c->job.train.weights == WEIGHTS_PLAIN,
		.packed = dataset_packs(&c->job.data, c->job.data.train),
		.memory_limit_bytes = c->limit,
		.overhead_bytes = c->overhead,
	};
	return 0;
}

/* -- the plan ------------------------------------------------------------------------------ */

/* The best of them becomes the plan. */
static int rank_plans(struct plan_command *c)
{
	char why[256];

	c->ranked = xzalloc((size_t)c->top, sizeof(*c->ranked));
	c->count = plan_rank(&c->problem, c->ranked, (int)c->top);
	for (int i = 0; i < c->count; i++)
		if (plan_check(&c->ranked[i], &c->problem, why, sizeof(why)))
			return error(EXIT_BUG, "plan %d is wrong: %s", i + 1, why);
	if (c->count > 0)
		memcpy(&c->plan, &c->ranked[0], sizeof(c->plan));
	return c->count < 0 ? -1 : 0;
}

static int decide(struct plan_command *c)
{
	plan_warn_set(c->given, c->set, c->set_count);
	return c->top ? rank_plans(c) : plan_decide(&c->problem, c->given, &c->file, &c->plan);
}

/* -- what is said -------------------------------------------------------------------------- */

/* A line for each of the plans that were ranked. */
static void add_ranks(const struct plan_command *c, struct text *text)
{
	char path[PATH_MAX];

	for (int i = 0; i < c->count; i++) {
		text_add(text, "plan %d: ", i + 1);
		plan_line(&c->ranked[i], &c->problem, text);
		text_add(text, ", %.2f %% more", 100 * (c->ranked[i].step_s / c->ranked[0].step_s - 1));
		if (c->output)
			text_add(text, "; %s", ranked_path(c, i, path, sizeof(path)));
		text_add(text, "\n");
	}
	if (c->count < c->top)
		text_add(text, "no more plans that place otherwise were found\n");
}

static int add_jitter(const struct plan_command *c, struct text *text)
{
	struct jittered steps;

	if (plan_jitter(&c->problem, &c->plan, c->jitter, &steps))
		return -1;
	text_add(text, "jitter  of %g %% in every computation and message: %.3g s a step in the median of %d (simulated), "
		 "%.2f %% more than without; nine in ten below %.3g s\n", 100 * c->jitter, steps.median_s, JITTER_DRAWS,
		 100 * (steps.median_s / c->plan.step_s - 1), steps.most_s);
	return 0;
}

static int print_plan(const struct plan_command *c)
{
	struct text text = {0};
	int status = 0;

	plan_print(&c->plan, &c->problem, &text);
	prediction_add(&c->problem, &c->plan, &text);
	fputs(text.data, stdout);
	text.bytes = 0;
	if (c->top) {
		add_ranks(c, &text);
		fputs(text.data, stdout);
		text.bytes = 0;
	}
	if (c->jitter > 0) {
		status = add_jitter(c, &text);
		if (!status)
			fputs(text.data, stdout);
		text.bytes = 0;
	}
	if (c->explain && !status) {
		status = plan_explain(&c->plan, &c->problem, &text);
		if (!status)
			fputs(text.data, stdout);
	}
	text_release(&text);
	return status;
}

static int write_file(const char *path, struct text *text)
{
	int status = 0;

	if (on_stdout(path))
		fputs(text->data, stdout);
	else
		status = file_replace(path, text->data, text->bytes);
	text_release(text);
	return status;
}

static int write_plan(const struct plan_command *c, const struct plan *plan, const char *path)
{
	struct text text = {0};

	plan_write(plan, &c->problem, &text);
	return write_file(path, &text);
}

/* The plan, and after it those that were ranked behind it. */
static int write_plans(const struct plan_command *c)
{
	int status = write_plan(c, &c->plan, c->output);
	char path[PATH_MAX];

	for (int i = 1; i < c->count && !status; i++)
		status = write_plan(c, &c->ranked[i], ranked_path(c, i, path, sizeof(path)));
	if (c->top && !status && !access(ranked_path(c, c->count, path, sizeof(path)), F_OK))
		warn("'%s' is not of this list, but of an earlier one", path);
	return status;
}

static int write_program(const struct plan_command *c)
{
	struct text text = {0};

	if (plan_program(&c->plan, &c->problem, &text)) {
		text_release(&text);
		return -1;
	}
	if (!on_stdout(c->program) && !on_stdout(c->output) && !on_stdout(c->svg))
		printf("problem %s: closed form of %d micro-batches of %d, as the plan has\n", c->program,
		       c->plan.micro_batches, c->plan.micro_batch);
	return write_file(c->program, &text);
}

static int draw_plan(const struct plan_command *c)
{
	struct gantt gantt;
	struct gantt_panel panel = {&gantt, NULL};
	struct text text = {0};
	char title[128];
	int status = gantt_predict(&gantt, &c->problem, &c->plan);

	if (!status) {
		panel.caption = arena_format(&gantt.arena, "%.3g s a step, predicted from %s numbers; no schedule of this "
					     "plan takes less than %.3g s", c->plan.step_s,
					     plan_origins(&c->plan, &c->problem), c->plan.bound_s);
		snprintf(title, sizeof(title), "%.60s: one step, schedule %s, %d micro-batches", c->job.cluster.name,
			 c->plan.schedule, c->plan.micro_batches);
		gantt_svg(&text, title, &panel, 1, true);
		status = write_file(c->svg, &text);
	}
	gantt_release(&gantt);
	return status;
}

static void release(struct plan_command *c)
{
	free(c->set);
	free(c->ranked);
	free(c->threads);
	free(c->dtypes);
	free(c->limit);
	free(c->overhead);
	profile_free(c->profile);
	lora_free(c->lora);
	model_config_free(c->model);
	job_release(&c->job);
}

int command_plan(int argc, char **argv)
{
	struct plan_command *c = xzalloc(1, sizeof(*c));
	bool quiet;
	int status = read_options(c, argc, argv);

	if (status > 0)
		fputs(plan_help, stdout);
	quiet = on_stdout(c->output) || on_stdout(c->svg) || on_stdout(c->program);
	if (!status)
		status = make_problem(c) || decide(c) ||
			 (c->output && write_plans(c)) || (c->svg && draw_plan(c)) ||
			 (c->program && write_program(c)) || (!quiet && print_plan(c)) ? -1 : 0;
	if (status >= 0 && fflush(stdout))
		status = error(EXIT_IO, "cannot write to standard output");
	release(c);
	free(c);
	return status < 0 ? error_code() : 0;
}
