/*
 * bench/plan_table.c - the planner against other ways to place a chain, by simulated step, on published layer graphs,
 * networks and machines. Reads the instances that bench/plan_instances.py writes, and topology files (.yaml),
 * with the micro-batch that they give, else one sequence.
 *
 *	uniform		all nodes in their order, as many blocks each
 *	proportional	all nodes in their order, blocks by speed
 *	bottleneck	the least of the largest of stages and transfers, over all sets and orders of nodes
 *	PipeEdge	its published objective: the same for inference, forwards alone, where a device has one bandwidth
 *			(here: that of its best link) and two devices the smaller one of theirs
 *
 * The planner is `exact` as the program runs it for one size of a micro-batch: uniform and proportional are among what it
 * begins with, the others are not. The last two are tables over sets of nodes, hence up to 12 of them; as published, a
 * node must have room for its blocks and one micro-batch, and a head is not alone.
 *
 * links: launch partition pipeline model profiler comm base
 */
#include "bench/plan_input.h"
#include "partition/solvers.h"

#include <errno.h>
#include <math.h>
#include <string.h>

enum { SETS_MOST = 12 };

static const char usage[] =
	"plan_table - simulated steps of the planner and of other placements\n"
	"\n"
	"  python3 bench/plan_instances.py --plans DIR --topologies DIR > instances.txt\n"
	"  plan_table instances.txt topologies/*.yaml\n"
	"\n"
	"Ends with 1 where another one has the shorter step.\n";

/* -- in file order ------------------------------------------------------------------------- */

static double whole_s(const struct instance *in, int node)
{
	return stage_s(in, node, 0, in->blocks, true);
}

/* Nodes in their order with cuts after these shares of `amount`, a prefix sum; at least a block each. */
static bool cut_by(const struct instance *in, const double *amount, const double *share, struct placement *at)
{
	double end = 0, whole = 0;
	int p = 0;

	if (in->nodes > in->blocks)
		return false;
	for (int i = 0; i < in->nodes; i++)
		whole += share[i];
	*at = (struct placement){.stages = in->nodes};
	for (int i = 0; i < in->nodes; i++) {
		int most = in->blocks - (in->nodes - 1 - i);

		at->node[i] = i;
		at->first[i] = p++;
		end += share[i] / whole * amount[in->blocks];
		while (p < most && amount[p + 1] + amount[p] < 2 * end)
			p++;
	}
	at->first[in->nodes] = in->blocks;
	return true;
}

static bool uniform(const struct instance *in, struct placement *at)
{
	double amount[BLOCKS_MOST + 1], share[NODES_MOST];

	for (int p = 0; p <= in->blocks; p++)
		amount[p] = p;
	for (int i = 0; i < in->nodes; i++)
		share[i] = 1;
	return cut_by(in, amount, share, at);
}

static bool proportional(const struct instance *in, struct placement *at)
{
	double amount[BLOCKS_MOST + 1], share[NODES_MOST];

	for (int p = 0; p <= in->blocks; p++)
		amount[p] = stage_s(in, 0, 0, p, p == in->blocks);
	for (int i = 0; i < in->nodes; i++)
		share[i] = 1 / whole_s(in, i);
	return cut_by(in, amount, share, at);
}

/* -- the least bottleneck, over sets of nodes ---------------------------------------------- */

/* The least bottleneck of blocks 0..i-1 on the nodes of a set, of which `last` has the end, and what was before it. */
struct state { double most; int first, before; };

struct table {
	const struct instance *in;
	/* What blocks p..q-1 take on a node; what the cut before block p takes from node i to j. */
	double (*stage_s)(const struct instance *in, int node, int p, int q, bool last);
	double (*cut_s)(const struct table *table, int i, int j, int p);
	double byte_s[SETS_MOST];		/* of a node's best link */
	struct state *state;			/* [set][last][i] */
};

static struct state *state_of(const struct table *t, unsigned set, int last, int i)
{
	size_t n = (size_t)t->in->nodes, blocks = (size_t)t->in->blocks;

	return &t->state[((size_t)set * n + (size_t)last) * (blocks + 1) + (size_t)i];
}

/* Blocks i.. on node v, after `before` (-1: nothing), whatever is best so far for each end of them. */
static void extend(struct table *t, unsigned set, int before, int i, int v, double most)
{
	const struct instance *in = t->in;

	if (before >= 0)
		most = fmax(most, t->cut_s(t, before, v, i));
	for (int j = i + 1; j <= in->blocks && stage_room(in, v, i, j, j == in->blocks) > 0; j++) {
		struct state *next = state_of(t, set | 1u << v, v, j);
		double largest = fmax(most, t->stage_s(in, v, i, j, j == in->blocks));

		if (largest < next->most)
			*next = (struct state){largest, i, before};
	}
}

static void fill_table(struct table *t)
{
	int n = t->in->nodes, blocks = t->in->blocks;

	for (int v = 0; v < n; v++)
		extend(t, 0, -1, 0, v, 0);
	for (unsigned set = 1; set < 1u << n; set++)
		for (int last = 0; last < n; last++)
			for (int i = 1; i < blocks && set >> last & 1; i++)
				for (int v = 0; v < n && state_of(t, set, last, i)->most < INFINITY; v++)
					if (!(set >> v & 1))
						extend(t, set, last, i, v, state_of(t, set, last, i)->most);
}

/* Reads the placement out of the table, from its end: stages are the nodes of the set. */
static void take_back(const struct table *t, unsigned set, int last, struct placement *at)
{
	int stages = 0;

	for (unsigned s = set; s; s &= s - 1)
		stages++;
	*at = (struct placement){.stages = stages};
	at->first[stages] = t->in->blocks;
	for (int k = stages - 1; k >= 0; k--) {
		const struct state *state = state_of(t, set, last, at->first[k + 1]);

		at->node[k] = last;
		at->first[k] = state->first;
		set &= ~(1u << last);
		last = state->before;
	}
}

static bool take_best(const struct table *t, struct placement *at)
{
	double least = INFINITY;
	unsigned best = 0;
	int last = 0;

	for (unsigned set = 1; set < 1u << t->in->nodes; set++)
		for (int v = 0; v < t->in->nodes; v++)
			if (state_of(t, set, v, t->in->blocks)->most < least) {
				least = state_of(t, set, v, t->in->blocks)->most;
				best = set;
				last = v;
			}
	if (best)
		take_back(t, best, last, at);
	return best;
}

static bool solve(struct table *t, struct placement *at)
{
	size_t states = ((size_t)1 << t->in->nodes) * (size_t)t->in->nodes * (size_t)(t->in->blocks + 1);
	bool found;

	t->state = xalloc(states * sizeof(*t->state));
	for (size_t i = 0; i < states; i++)
		t->state[i].most = INFINITY;
	fill_table(t);
	found = take_best(t, at);
	free(t->state);
	return found;
}

static double longest_s(const struct table *t, int i, int j, int p)
{
	return cut_longest_s(t->in, i, j, p);
}

static bool bottleneck(const struct instance *in, struct placement *at)
{
	struct table t = {.in = in, .stage_s = stage_s, .cut_s = longest_s};

	return in->nodes <= SETS_MOST && solve(&t, at);
}

static double slower_s(const struct table *t, int i, int j, int p)
{
	return t->in->cut_forward[p] * fmax(t->byte_s[i], t->byte_s[j]);
}

static bool pipeedge(const struct instance *in, struct placement *at)
{
	struct table t = {.in = in, .stage_s = stage_forward_s, .cut_s = slower_s};

	if (in->nodes > SETS_MOST)
		return false;
	for (int i = 0; i < in->nodes; i++) {
		t.byte_s[i] = INFINITY;
		for (int j = 0; j < in->nodes; j++)
			if (i != j)
				t.byte_s[i] = fmin(t.byte_s[i], fmin(in->link_forward_s[i * in->nodes + j],
								     in->link_forward_s[j * in->nodes + i]));
	}
	return solve(&t, at);
}

/* -- the planner --------------------------------------------------------------------------- */

static void add(const struct instance *in, bool (*place)(const struct instance *in, struct placement *at),
		struct pool *pool)
{
	struct placement at;

	if (!place(in, &at) || !placement_valid(in, &at))
		return;
	model_step(in, &at);
	pool_add(pool, &at);
}

/* What it does with one size of a micro-batch: choose.c. */
static bool planner(const struct instance *in, struct placement *at)
{
	struct pool pool = {0};
	double step_s;

	add(in, uniform, &pool);
	add(in, proportional, &pool);
	exact_search(in, &pool);
	step_s = refine_solve(in, &pool, at);
	pool_release(&pool);
	return step_s < INFINITY;
}

/* -- the table ----------------------------------------------------------------------------- */

static const struct way {
	const char *name;
	bool (*place)(const struct instance *in, struct placement *at);	/* false: it has none */
} ways[] = {
	{"planner", planner},
	{"uniform", uniform},
	{"proportional", proportional},
	{"bottleneck", bottleneck},
	{"PipeEdge", pipeedge},
};
enum { WAYS = sizeof(ways) / sizeof(*ways) };

struct sums { int instances, worse, plans[WAYS]; double logarithms[WAYS], most[WAYS]; };

static double step_of(const struct instance *in, const struct way *way)
{
	struct placement at;

	return way->place(in, &at) && placement_valid(in, &at) ? placement_simulate(in, &at) : INFINITY;
}

static void add_line(const char *name, const struct instance *in, struct sums *sums)
{
	double step_s = step_of(in, &ways[0]);
	bool worse = false;

	printf("%-46s %5d %6d %5d %10.4g", name, in->nodes, in->blocks, in->micro_batches, step_s);
	for (int i = 1; i < WAYS; i++) {
		double other_s = step_of(in, &ways[i]);

		if (isinf(other_s)) {
			printf(" %12s", "-");
			continue;
		}
		printf(" %12.3f", other_s / step_s);
		sums->plans[i]++;
		sums->logarithms[i] += log(other_s / step_s);
		sums->most[i] = fmax(sums->most[i], other_s / step_s);
		if (other_s < step_s * (1 - 1e-9)) {
			printf(" <- shorter");
			worse = true;
		}
	}
	printf("\n");
	fflush(stdout);
	sums->instances++;
	sums->worse += worse;
}

static void print_sums(const struct sums *sums)
{
	printf("%-46s %29s", "mean (geometric)", "");
	for (int i = 1; i < WAYS; i++)
		printf(" %12.3f", exp(sums->logarithms[i] / sums->plans[i]));
	printf("\n%-46s %29s", "most", "");
	for (int i = 1; i < WAYS; i++)
		printf(" %12.3f", sums->most[i]);
	printf("\n%-46s %29s", "instances with a plan that fits", "");
	for (int i = 1; i < WAYS; i++)
		printf(" %12d", sums->plans[i]);
	printf("\nnever worse: %d of %d\n", sums->instances - sums->worse, sums->instances);
}

static int add_chains(struct input *input, struct sums *sums)
{
	struct chain *c = xalloc(sizeof(*c));
	bool more = next_line(input);
	int status;

	while ((status = read_chain(input, c, &more)) > 0)
		add_line(c->name, &c->in, sums);
	free(c);
	return status;
}

/* A file that cannot be planned is skipped, with what was said of it. */
static void add_topology(const char *path, struct sums *sums)
{
	struct declared *d = xzalloc(1, sizeof(*d));
	const struct instance *in = instance_of_file(d, path);
	const char *name = strrchr(path, '/');

	if (in)
		add_line(name ? name + 1 : path, in, sums);
	else
		printf("skipped: %s\n", path);
	release(d);
	free(d);
}

static int add_file(const char *path, struct sums *sums)
{
	struct input input = {.path = path};
	const char *end = strrchr(path, '.');
	int status;

	if (end && !strcmp(end, ".yaml")) {
		add_topology(path, sums);
		return 0;
	}
	input.file = fopen(path, "r");
	if (!input.file)
		return error(EXIT_INPUT, "cannot read '%s': %s", path, strerror(errno));
	status = add_chains(&input, sums);
	free(input.line);
	fclose(input.file);
	return status;
}

int main(int argc, char **argv)
{
	struct sums sums = {0};

	if (argc < 2 || argv[1][0] == '-') {
		bool help = argc == 2 && !strcmp(argv[1], "--help");

		fputs(usage, help ? stdout : stderr);
		return help ? 0 : EXIT_USAGE;
	}
	printf("%-46s %5s %6s %5s %10s", "instance", "nodes", "blocks", "micro", "planner s");
	for (int i = 1; i < WAYS; i++)
		printf(" %12s", ways[i].name);
	printf("\n");
	fflush(stdout);
	for (int i = 1; i < argc; i++)
		if (add_file(argv[i], &sums) < 0)
			return error_code();
	print_sums(&sums);
	return sums.worse > 0;
}
