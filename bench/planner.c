/*
 * bench/planner.c - how long the solvers take, and how far what they find is from what is proved, on instances that are
 * drawn from seeds: distinct nodes, nodes of a few types, and a thousand nodes on one switch, on a campus of local
 * networks, and on links at random.
 *
 * links: partition
 */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partition/solvers.h"
#include "tests/instances.h"

static const char usage[] =
	"planner - seconds and proved gaps of the solvers, on drawn instances\n"
	"\n"
	"Examples:\n"
	"  planner\n"
	"  planner --only 1000 --seeds 1\n"
	"\n"
	"Usage: planner [--seeds 5] [--only TEXT]\n"
	"  --seeds N    instances of every row (large ones: at most 2)\n"
	"  --only TEXT  rows whose name has this in it\n";

enum wiring { DISTINCT, SWITCH, CAMPUS };

struct row {
	const char *name;
	double (*solve)(const struct instance *instance, struct pool *pool);
	struct instance_want want;
	enum wiring wiring;
};

/* Links from the interfaces of nodes: a message takes as long as the slower of the two needs. */
static void use_switch(struct arena *arena, struct draws *d, struct instance *in)
{
	size_t n = (size_t)in->nodes;
	double *link = take_doubles(arena, n * n, 0), *own = take_doubles(arena, n, 0);
	double *latency = take_doubles(arena, n * n, 0.02);

	for (size_t i = 0; i < n; i++)
		own[i] = draw_scale(d, 0.05, 2);
	for (size_t i = 0; i < n * n; i++)
		link[i] = fmax(own[i / n], own[i % n]);
	in->link_forward_s = in->link_backward_s = link;
	in->latency_forward_s = in->latency_backward_s = latency;
}

enum { LAN = 25 };

/* Local networks of 25 nodes each, and a slower link between any two of those. */
static void use_campus(struct arena *arena, struct draws *d, struct instance *in)
{
	size_t n = (size_t)in->nodes, lans = (n + LAN - 1) / LAN;
	double *link = take_doubles(arena, n * n, 0), *between = take_doubles(arena, lans * lans, 0);
	double *latency = take_doubles(arena, n * n, 0.02);

	for (size_t a = 0; a < lans; a++)
		for (size_t b = 0; b <= a; b++)
			between[a * lans + b] = between[b * lans + a] = draw_scale(d, a == b ? 0.02 : 0.5, a == b ? 0.1 : 5);
	for (size_t i = 0; i < n * n; i++) {
		link[i] = between[i / n / LAN * lans + i % n / LAN];
		latency[i] = i / n / LAN == i % n / LAN ? 0.01 : 0.2;
	}
	in->link_forward_s = in->link_backward_s = link;
	in->latency_forward_s = in->latency_backward_s = latency;
}

#define WANT(n, l, m, t, mem) {.nodes = n, .blocks = l, .micro_batches = m, .types = t, .memory = mem, \
			       .link_low_s = 0.05, .link_high_s = 3, .latency_s = 0.3}

static const struct row rows[] = {
	{"bottleneck 16 distinct x 48", bottleneck_search, WANT(16, 48, 16, 0, false), DISTINCT},
	{"bottleneck 20 distinct x 48", bottleneck_search, WANT(20, 48, 16, 0, false), DISTINCT},
	{"bottleneck 24 distinct x 48", bottleneck_search, WANT(24, 48, 16, 0, false), DISTINCT},
	{"step 12 distinct x 48, M 4", exact_search, WANT(12, 48, 4, 0, false), DISTINCT},
	{"step 12 distinct x 48, M 16", exact_search, WANT(12, 48, 16, 0, false), DISTINCT},
	{"step 12 distinct x 48, M 16, memory", exact_search, WANT(12, 48, 16, 0, true), DISTINCT},
	{"step 16 distinct x 48, M 4", exact_search, WANT(16, 48, 4, 0, false), DISTINCT},
	{"step 16 distinct x 48, M 16", exact_search, WANT(16, 48, 16, 0, false), DISTINCT},
	{"step 16 distinct x 48, M 64", exact_search, WANT(16, 48, 64, 0, false), DISTINCT},
	{"step 16 distinct x 48, M 16, memory", exact_search, WANT(16, 48, 16, 0, true), DISTINCT},
	{"step 20 distinct x 48, M 16", exact_search, WANT(20, 48, 16, 0, false), DISTINCT},
	{"step 40 of 4 types x 48, M 16", exact_search, WANT(40, 48, 16, 4, false), DISTINCT},
	{"step 40 of 4 types x 48, M 16, memory", exact_search, WANT(40, 48, 16, 4, true), DISTINCT},
	{"1000 on one switch x 128, M 32", quick_search, WANT(1000, 128, 32, 0, false), SWITCH},
	{"1000 on a campus x 128, M 32", quick_search, WANT(1000, 128, 32, 0, false), CAMPUS},
	{"1000 on random links x 128, M 32", quick_search, WANT(1000, 128, 32, 0, false), DISTINCT},
};

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* "median (worst)" of a column, which is sorted by it. */
static void print_column(double *value, int count, const char *unit, double scale)
{
	qsort(value, (size_t)count, sizeof(*value), ascending);
	printf("  %8.3f %s (%.3f)", scale * value[count / 2], unit, scale * value[count - 1]);
}

static void run_row(const struct row *row, int seeds)
{
	double *second = xzalloc((size_t)seeds, sizeof(*second)), *gap = xzalloc((size_t)seeds, sizeof(*gap));
	int plans = 0;

	for (int seed = 1; seed <= seeds; seed++) {
		struct arena arena = {0};
		struct draws d = {(uint32_t)seed, 0};
		struct instance *in = draw_instance(&arena, &d, &row->want);
		struct pool pool = {0};
		double start, least_s;

		if (row->wiring == SWITCH)
			use_switch(&arena, &d, in);
		if (row->wiring == CAMPUS)
			use_campus(&arena, &d, in);
		start = clock_s();
		least_s = row->solve(in, &pool);
		second[seed - 1] = clock_s() - start;
		gap[plans] = pool_best(&pool) / least_s - 1;
		plans += pool.count > 0;
		pool_release(&pool);
		arena_release(&arena);
	}
	printf("%-40s", row->name);
	print_column(second, seeds, "s", 1);
	if (row->solve != bottleneck_search && plans > 0)
		print_column(gap, plans, "% above the proved J", 100);
	printf("\n");
	fflush(stdout);
	free(second);
	free(gap);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"seeds", required_argument, NULL, 's'},
						{"only", required_argument, NULL, 'o'},
						{"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	const char *only = "";
	char none[] = "", *end = none;
	long seeds = 5;
	int option;

	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (option == 's')
			seeds = strtol(optarg, &end, 10);
		else if (option == 'o')
			only = optarg;
		else
			return fputs(usage, option == 'h' ? stdout : stderr), option == 'h' ? 0 : EXIT_USAGE;
		if (*end || seeds < 1 || seeds > 1000)
			return fputs("planner: --seeds takes 1 to 1000\n", stderr), EXIT_USAGE;
	}
	printf("median (worst) of the instances of a row\n");
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		if (strstr(rows[i].name, only))
			run_row(&rows[i], rows[i].want.nodes >= 1000 && seeds > 2 ? 2 : (int)seeds);
	return 0;
}
