/*
 * bench/schedules.c - how far each schedule stays above the lower bound of a step, in the
 * simulator: on random pipelines, on uniform ones, and where memory is short.
 *
 * The random pipelines are those on which the default was chosen: 2 to 8 stages whose forward
 * and backward take 0.25 to 0.75 each, links that are occupied up to 1.2 by a message, with a
 * latency of up to 0.5 (a stage takes 1 on average), 8 to 64 micro-batches.
 *
 * links: pipeline
 */
#include "pipeline/pipeline.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STAGES_MOST 8

static const char usage[] =
	"schedules - simulated step over its lower bound, for every schedule\n"
	"\n"
	"  schedules --seed 1\n"
	"\n"
	"Usage: schedules [--seed 1] [--pipelines 2000]\n"
	"  --seed N        of the random pipelines\n"
	"  --pipelines N   how many of them\n";

/* A pipeline, with what its costs point to. */
struct pipe {
	struct costs costs;
	double forward_s[STAGES_MOST], backward_s[STAGES_MOST];
	double link_forward_s[STAGES_MOST], link_backward_s[STAGES_MOST];
	double latency_forward_s[STAGES_MOST], latency_backward_s[STAGES_MOST];
	int stages, micro_batches;
};

/* The rows of the tables. */
static const struct way {
	const char *label, *name;
	bool costs, greedy, limited;	/* limited: can be told what memory allows */
} ways[] = {
	{"eager, strict", "eager", true, false, true},
	{"eager, greedy", "eager", true, true, true},
	{"eager, no costs", "eager", false, false, true},
	{"1f1b", "1f1b", false, false, false},
	{"gpipe", "gpipe", false, false, false},
};
enum { WAYS = sizeof(ways) / sizeof(*ways), BEST = WAYS, COLUMNS };

/* Simulated step over bound: [column][pipeline]. */
struct gaps {
	double *gap[COLUMNS];
	int count;
	long long bound_is_link;
};

static void fill_costs(struct pipe *p)
{
	p->costs = (struct costs){
		.stages = p->stages,
		.forward_s = p->forward_s, .backward_s = p->backward_s,
		.link_forward_s = p->link_forward_s, .link_backward_s = p->link_backward_s,
		.latency_forward_s = p->latency_forward_s,
		.latency_backward_s = p->latency_backward_s,
	};
}

/* -- random pipelines ---------------------------------------------------------------------- */

struct source { uint64_t seed; uint32_t pipeline, drawn; };

static double draw(struct source *source, double from, double to)
{
	struct philox at = {{source->pipeline, source->drawn++, 0, 0}};
	uint32_t low = (uint32_t)source->seed, high = (uint32_t)(source->seed >> 32);

	return from + (to - from) * (double)philox_unit(philox(at, low, high).word[0]);
}

static void random_pipe(struct pipe *p, uint64_t seed, int index)
{
	struct source source = {seed, (uint32_t)index, 0};

	p->stages = (int)draw(&source, 2, STAGES_MOST + 1);
	p->micro_batches = 8 << (int)draw(&source, 0, 4);
	for (int i = 0; i < p->stages; i++) {
		p->forward_s[i] = draw(&source, 0.25, 0.75);
		p->backward_s[i] = draw(&source, 0.25, 0.75);
		p->link_forward_s[i] = draw(&source, 0, 1.2);
		p->link_backward_s[i] = draw(&source, 0, 1.2);
		p->latency_forward_s[i] = draw(&source, 0, 0.5);
		p->latency_backward_s[i] = draw(&source, 0, 0.5);
	}
	fill_costs(p);
}

/* What memory allows: half of what hides the links. */
static void halve_rooms(const struct pipe *p, int *room_most)
{
	struct schedule_want want = {.name = "eager", .stages = p->stages,
				     .micro_batches = p->micro_batches, .costs = &p->costs};
	struct arena arena = {0};
	const struct schedule *s = schedule_make(&arena, &want);

	for (int i = 0; i < p->stages; i++)
		room_most[i] = (s->room[i] + 1) / 2;
	arena_release(&arena);
}

/* -- uniform pipelines --------------------------------------------------------------------- */

/* Forward and backward 1 each; the index counts through stages, micro-batches, links,
 * latency. */
static bool uniform_pipe(struct pipe *p, int index, double link_most, double link_least)
{
	static const double link[] = {0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3};
	static const double latency[] = {0, 0.25, 0.5, 1, 2, 3};
	int links = sizeof(link) / sizeof(*link);
	int latencies = sizeof(latency) / sizeof(*latency);
	double l = link[index % links], a = latency[index / links % latencies];

	p->stages = 2 + index / links / latencies % (STAGES_MOST - 1);
	p->micro_batches = 4 << index / links / latencies / (STAGES_MOST - 1);
	for (int i = 0; i < p->stages; i++) {
		p->forward_s[i] = p->backward_s[i] = 1;
		p->link_forward_s[i] = p->link_backward_s[i] = l;
		p->latency_forward_s[i] = p->latency_backward_s[i] = a;
	}
	fill_costs(p);
	return l >= link_least && l <= link_most;
}
#define UNIFORM_PIPES (11 * 6 * (STAGES_MOST - 1) * 5)

/* -- gaps ---------------------------------------------------------------------------------- */

static double step_of(const struct pipe *p, const struct way *way, const int *room_most)
{
	struct schedule_want want = {
		.name = way->name, .stages = p->stages, .micro_batches = p->micro_batches,
		.costs = way->costs ? &p->costs : NULL, .greedy = way->greedy,
		.room_most = room_most,
	};
	struct arena arena = {0};
	const struct schedule *schedule = schedule_make(&arena, &want);
	const struct simulation *simulation =
		schedule ? simulate(&arena, schedule, &p->costs) : NULL;
	double s = simulation ? simulation->step_s : INFINITY;

	arena_release(&arena);
	return s;
}

static void open_gaps(struct gaps *gaps, int most)
{
	*gaps = (struct gaps){.count = 0};
	for (int i = 0; i < COLUMNS; i++)
		gaps->gap[i] = xzalloc((size_t)most, sizeof(double));
}

static void add_gaps(struct gaps *gaps, const struct pipe *p, const int *room_most)
{
	const char *binding;
	double bound = step_bound(&p->costs, p->micro_batches, &binding, NULL);
	double best = INFINITY;

	for (int i = 0; i < WAYS; i++) {
		double gap = step_of(p, &ways[i], room_most) / bound;

		gaps->gap[i][gaps->count] = gap;
		if (!room_most || ways[i].limited)
			best = fmin(best, gap);
	}
	gaps->gap[BEST][gaps->count] = best;
	gaps->bound_is_link += strcmp(binding, "stage") != 0;
	gaps->count++;
}

static int ascending(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void print_gap(const char *label, double *gap, int count)
{
	double sum = 0;
	int tight = 0;

	for (int i = 0; i < count; i++) {
		sum += gap[i];
		tight += gap[i] < 1 + 1e-9;
	}
	qsort(gap, (size_t)count, sizeof(*gap), ascending);
	printf("  %-16s %7.4f %7.4f %7.4f %7.4f  %5.1f%%\n", label, sum / count,
	       gap[count / 2], gap[(int)(0.95 * (count - 1))], gap[count - 1],
	       100.0 * tight / count);
}

static void print_gaps(struct gaps *gaps, const char *title, bool limited)
{
	printf("%s: %d pipelines, a link binds in %.1f%%\n", title, gaps->count,
	       100.0 * (double)gaps->bound_is_link / gaps->count);
	printf("  %-16s %7s %7s %7s %7s  %6s\n", "", "mean", "median", "p95", "max", "exact");
	for (int i = 0; i < WAYS; i++)
		if (!limited || ways[i].limited)
			print_gap(ways[i].label, gaps->gap[i], gaps->count);
	print_gap("best of these", gaps->gap[BEST], gaps->count);
	printf("\n");
	for (int i = 0; i < COLUMNS; i++)
		free(gaps->gap[i]);
}

static void random_tables(uint64_t seed, int pipelines)
{
	struct gaps gaps, limited;
	int room_most[STAGES_MOST];

	open_gaps(&gaps, pipelines);
	open_gaps(&limited, pipelines);
	for (int i = 0; i < pipelines; i++) {
		struct pipe p;

		random_pipe(&p, seed, i);
		add_gaps(&gaps, &p, NULL);
		halve_rooms(&p, room_most);
		add_gaps(&limited, &p, room_most);
	}
	print_gaps(&gaps, "random, memory without limit", false);
	print_gaps(&limited, "random, room for half of what hides the links", true);
}

static void uniform_table(const char *title, double link_least, double link_most)
{
	struct gaps gaps;

	open_gaps(&gaps, UNIFORM_PIPES);
	for (int i = 0; i < UNIFORM_PIPES; i++) {
		struct pipe p;

		if (uniform_pipe(&p, i, link_most, link_least))
			add_gaps(&gaps, &p, NULL);
	}
	print_gaps(&gaps, title, false);
}

/* -- command line -------------------------------------------------------------------------- */

static int read_options(uint64_t *seed, uint64_t *pipelines, int argc, char **argv)
{
	static const struct option options[] = {
		{"seed", required_argument, NULL, 0},
		{"pipelines", required_argument, NULL, 0},
		{0},
	};
	uint64_t *const value[] = {seed, pipelines};
	const uint64_t most[] = {UINT64_MAX, 1000000};
	int which, option;

	while ((option = getopt_long(argc, argv, "", options, &which)) == 0) {
		char *end;

		errno = 0;
		*value[which] = strtoull(optarg, &end, 10);
		if (errno || end == optarg || *end || *value[which] > most[which])
			return error(EXIT_USAGE, "'%s' is no value for --%s", optarg,
				     options[which].name);
	}
	if (option != -1 || optind != argc || !*pipelines) {
		fputs(usage, stderr);
		return error(EXIT_USAGE, "see above");
	}
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t seed = 1, pipelines = 2000;

	if (read_options(&seed, &pipelines, argc, argv) < 0)
		return error_code();
	printf("simulated step / lower bound; exact: within 1e-9 of it\n\n");
	random_tables(seed, (int)pipelines);
	uniform_table("uniform, links up to 0.625 of a stage", 0, 1.25);
	uniform_table("uniform, links of 0.75 to 1 of a stage", 1.5, 2);
	uniform_table("uniform, links of 1.25 to 1.5 stages", 2.5, 3);
	return EXIT_SUCCESS;
}
