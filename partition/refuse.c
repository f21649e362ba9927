/*
 * refuse.c - why no placement holds a model, in numbers that add up: what it needs besides the
 * processes, what the nodes have left of their memory, and where that suffices in all, what the
 * next whole block lacks.
 */
#include <math.h>
#include <string.h>

#include "partition/instance.h"
#include "partition/internal.h"

struct shortage {
	const struct problem *problem;
	const struct instance *in;
	/* that a plan could use: those with most left, the most first */
	int *node, count;
	struct plan *scratch;
	/* the nodes that hold most with the embedding, and with the head; -1: none does */
	int first, last;
};

enum role { FIRST, INNER, LAST, WHOLE };

static const char *name_of(const struct shortage *s, int node)
{
	return cluster_node(s->problem->cluster, node)->name;
}

/* So many blocks with one micro-batch in flight, by the allocator, with what the cuts beside
 * them take. */
static double role_bytes(const struct shortage *s, int node, enum role role, int blocks)
{
	const struct plan_link lossiest = {.codec_forward = CODEC_AUTO_LOSSIEST,
					   .codec_backward = CODEC_AUTO_LOSSIEST};
	int all = s->in->blocks, at = role == WHOLE ? 0 : (int)role,
	    other = s->node[s->node[0] == node && s->count > 1];
	struct plan *plan = s->scratch;

	plan->stages = role == WHOLE ? 1 : 3;
	for (int cut = 0; cut < 2; cut++)
		plan->link[cut] =
		    cost_cut(s->problem, node, other, plan->micro_batch, &lossiest);
	plan->stage[at] = (struct plan_stage){
		.node = node,
		.first_block = role == LAST ? all - blocks : role == INNER && blocks < all,
		.blocks = blocks,
		.embedding = role == FIRST || role == WHOLE,
		.head = role == LAST || role == WHOLE,
		.in_flight = 1,
		.edges = role == WHOLE ? 1 : EDGES_LEAST,
	};
	return (double)plan_memory(s->problem, plan, at).total;
}

/* How many blocks a node has room for; -1: not even what the role holds without any. */
static int held(const struct shortage *s, int node, enum role role)
{
	int blocks = role == LAST ? -1 : 0, most = s->in->blocks - (role != LAST);

	while (blocks < most &&
	       role_bytes(s, node, role, blocks + 1) <= s->in->memory_bytes[node])
		blocks++;
	return blocks;
}

static void fill_nodes(struct shortage *s, struct arena *arena)
{
	const double *left = s->in->memory_bytes;
	int most = s->in->stages ? s->in->stages : s->in->blocks + 1;

	s->node = arena_take(arena, (size_t)(s->in->nodes + 1) * sizeof(int));
	for (int d = 0; d < s->in->nodes; d++) {
		int at = s->count++;

		for (; at > 0 && left[s->node[at - 1]] < left[d]; at--)
			s->node[at] = s->node[at - 1];
		s->node[at] = d;
	}
	most = most < PLAN_STAGES_MAX ? most : PLAN_STAGES_MAX;
	s->count = s->count < most ? s->count : most;
}

/* -- in all -------------------------------------------------------------------------------- */

/* What the model needs over the nodes that have any left, and how much more that is than they
 * have left. */
static double needed_bytes(const struct shortage *s, double *more)
{
	double needed = role_bytes(s, s->node[0], WHOLE, s->in->blocks),
	       left = s->in->memory_bytes[s->node[0]];

	for (int i = 1; i < s->count; i++) {
		double one = role_bytes(s, s->node[i], INNER, 1),
		       has = s->in->memory_bytes[s->node[i]];
		double empty =
		    s->in->blocks > 1 ? 2 * one - role_bytes(s, s->node[i], INNER, 2) : one;

		if (has <= 0)
			break;
		needed += empty;
		left += has;
	}
	*more = needed - left;
	return needed;
}

/* "24 MiB each", "24 MiB to 31 MiB each". */
static void add_processes(const struct shortage *s, struct text *text)
{
	double least = INFINITY, most = 0;
	char a[32], b[32];

	for (int d = 0; d < s->in->nodes; d++) {
		least = fmin(least, s->problem->overhead_bytes[d]);
		most = fmax(most, s->problem->overhead_bytes[d]);
	}
	unit_write(least, UNIT_BYTES, a, sizeof a);
	unit_write(most, UNIT_BYTES, b, sizeof b);
	if (most > least * 1.05)
		text_add(text, "%s to %s each", a, b);
	else
		text_add(text, "%s each", a);
}

/* -- whole blocks -------------------------------------------------------------------------- */

/* Chooses the ends so that most blocks are held; how many that are. */
static int choose_ends(struct shortage *s, struct arena *arena)
{
	int *first = arena_take(arena, (size_t)s->count * sizeof(int)),
	    *last = arena_take(arena, (size_t)s->count * sizeof(int));
	int *inner = arena_take(arena, (size_t)s->count * sizeof(int)), all = 0, most = -1;

	for (int i = 0; i < s->count; i++) {
		first[i] = held(s, s->node[i], FIRST);
		last[i] = held(s, s->node[i], LAST);
		inner[i] = held(s, s->node[i], INNER);
		all += inner[i];
	}
	s->first = s->last = -1;
	for (int i = 0; i < s->count; i++)
		for (int j = 0; j < s->count; j++) {
			int blocks = all - inner[i] - inner[j] + first[i] + last[j];

			if (i == j || first[i] < 1 || last[j] < 0 || blocks <= most)
				continue;
			most = blocks;
			s->first = s->node[i];
			s->last = s->node[j];
		}
	return most;
}

static void add_end(const struct shortage *s, enum role role, int blocks, struct text *text)
{
	int node = s->node[0];
	double needed = role_bytes(s, node, role, blocks), left = s->in->memory_bytes[node];
	char a[32], b[32], c[32];

	text_add(
	    text,
	    "but no two nodes hold %s: it takes %s besides the process, and the largest, '%s', "
	    "has %s left, %s less",
	    role == LAST ? "both ends: the head alone"
			 : "both ends: the embedding with one block",
	    unit_write(needed, UNIT_BYTES, a, sizeof a), name_of(s, node),
	    unit_write(left, UNIT_BYTES, b, sizeof b),
	    unit_write(needed - left, UNIT_BYTES, c, sizeof c));
}

/* Who lacks least for one more block. */
static void add_next(const struct shortage *s, int blocks, struct text *text)
{
	double least = INFINITY;
	int node = s->node[0];
	char lack[32];

	for (int i = 0; i < s->count; i++) {
		int d = s->node[i];
		enum role role = d == s->first ? FIRST : d == s->last ? LAST : INNER;
		int has = held(s, d, role);
		double more = role_bytes(s, d, role, has + 1) - s->in->memory_bytes[d];

		if (has >= s->in->blocks - 1 || more >= least)
			continue;
		least = more;
		node = d;
	}
	text_add(
	    text,
	    "but not in whole blocks: they hold %d of %d, and '%s' lacks the least for one "
	    "more%s, %s",
	    blocks, s->in->blocks, name_of(s, node),
	    node == s->first  ? " beside the embedding"
	    : node == s->last ? " beside the head"
			      : "",
	    unit_write(least, UNIT_BYTES, lack, sizeof lack));
}

static void add_cut(struct shortage *s, struct arena *arena, struct text *text)
{
	int blocks = choose_ends(s, arena);

	text_add(text, ", which all nodes have left, ");
	if (blocks >= s->in->blocks || s->count < 2)
		text_add(text, "but no cut into stages was found that fits");
	else if (blocks >= 0)
		add_next(s, blocks, text);
	else if (held(s, s->node[0], FIRST) < 1)
		add_end(s, FIRST, 1, text);
	else
		add_end(s, LAST, 0, text);
}

/* -- what is said -------------------------------------------------------------------------- */

static void add_help(const struct shortage *s, int size, const struct remedy *remedy,
		     struct text *text)
{
	text_add(text, "\n  what helps: ");
	if (size > 1)
		text_add(text, "a smaller train.micro_batch (%d now), ", size);
	memory_add_remedy(remedy, text);
	if (strcmp(s->problem->want->schedule, "eager") != 0 && s->problem->batch > size)
		text_add(text, "a plan.schedule with fewer micro-batches in flight, ");
	text_add(
	    text,
	    "a shorter data.sequence, more memory (nodes[].memory, where more is there), more "
	    "nodes");
}

static void add_model(struct shortage *s, struct arena *arena, int size, struct text *text)
{
	double more, needed = needed_bytes(s, &more);
	char a[32], b[32];

	text_add(
	    text,
	    "no placement holds the model: with micro-batches of %d it needs %s besides the "
	    "processes (",
	    size, unit_write(needed, UNIT_BYTES, a, sizeof a));
	add_processes(s, text);
	text_add(text, ")");
	if (more > 0)
		text_add(text, ", %s more than all nodes have left",
			 unit_write(more, UNIT_BYTES, b, sizeof b));
	else
		add_cut(s, arena, text);
}

int refuse_all(const struct problem *problem, const struct remedy *remedy)
{
	struct arena arena = {0};
	struct text text = {0};
	int size = problem->micro_batch ? (int)problem->micro_batch : 1, node;
	struct shortage s = {.problem = problem, .in = instance_of(&arena, problem, size)};
	char limit[32], process[32];

	s.scratch = arena_take(&arena, sizeof *s.scratch);
	s.scratch->micro_batch = size;
	fill_nodes(&s, &arena);
	node = s.node[0];
	unit_write(problem->memory_limit_bytes[node], UNIT_BYTES, limit, sizeof limit);
	if (s.in->memory_bytes[node] <= 0)
		text_add(
		    &text,
		    "no node holds even the process: %s before any weights; the largest, '%s', "
		    "has %s",
		    unit_write(problem->overhead_bytes[node], UNIT_BYTES, process,
			       sizeof process),
		    name_of(&s, node), limit);
	else
		add_model(&s, &arena, size, &text);
	if (s.in->memory_bytes[node] > 0)
		text_add(&text, "; the largest, '%s', has %s", name_of(&s, node),
			 problem->memory_limit_bytes[node] > 0 ? limit : "no limit");
	add_help(&s, size, remedy, &text);
	report(EXIT_CONFIG, "%s", text.data);
	text_release(&text);
	arena_release(&arena);
	return -1;
}
