/*
 * compute.c - how long this node takes for a block, the embedding, the head with its loss, and
 * the optimizer: by running the stage that trains, with the threads that train, on the node's
 * own weights and random data of real magnitude.
 *
 * Two blocks run one after the other, with two micro-batches in turn, so that caches hold no
 * more than they would. Two sizes of half the sequence tell what grows with n from what grows
 * with n T; then come the sizes that the planner may ask for, smallest first, until a sample
 * takes GROW_S or the box is used up. Where nodes are held to a declared pace, so is every op
 * here, as the executor holds it: what one sleep is too long, the next one is shorter.
 */
#include "profiler/probe.h"

#include <math.h>
#include <stdlib.h>

#define GROW_S 0.2 /* a sample, forward and backward, that no larger one comes after */
#define SAMPLE_S 0.15		/* what repetitions of a size may take together */
#define THROTTLED_S 0.5		/* the same under a quota: many of its periods */
#define PACED_S 0.1		/* both at a declared pace, which leaves little to chance */
#define CLOCK_S 1e-9		/* what the clock tells apart: no time is 0 */
#define SLIGHT 0.01		/* a backward, of its forward: too little to matter */
#define OWN_WEIGHT 4.0		/* of a size that the planner may ask for */
enum { SIZES = 24, REPEATS_LEAST = 3, REPEATS_MOST = 200 };

struct size { int sequences, tokens; double weight; bool must; };

/* Times of one part, for its two fits. */
struct series {
	struct timing forward[SIZES], backward[SIZES];
	int count;
};

/* -- sizes --------------------------------------------------------------------------------- */

/* What a planner may ask for: divisors of the batch, or the given size alone with two below it.
 * The smallest, or the given one, is measured whatever it takes. */
static int list_sizes(const struct compute_spec *spec, struct size *size)
{
	int T = spec->tokens, count = 0;
	long long most = spec->micro_batch > 0 ? spec->micro_batch : spec->batch;

	if (T >= 32) {
		size[count++] = (struct size){1, T / 2, 1, false};
		size[count++] = (struct size){2, T / 2, 1, false};
	}
	for (long long b = 1; b <= most && count < SIZES - 1; b++) {
		bool asked = spec->micro_batch > 0 ? b == most : spec->batch % b == 0;
		bool below = spec->micro_batch > 0 && (b == 1 || b == most / 2);

		if (asked || below)
			size[count++] =
			    (struct size){(int)b, T, asked ? OWN_WEIGHT : 1,
					  asked && (b == 1 || spec->micro_batch > 0)};
	}
	return count;
}

/* -- one size ------------------------------------------------------------------------------ */

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double typical(const struct compute_spec *spec, double *time, int count)
{
	double sum = 0;

	if (!spec->throttled) {
		qsort(time, (size_t)count, sizeof *time, ascending);
		return count % 2 ? time[count / 2]
				 : (time[count / 2 - 1] + time[count / 2]) / 2;
	}
	for (int i = 0; i < count; i++)
		sum += time[i];
	return sum / count;
}

static int repeats_of(const struct compute_spec *spec, double once_s, double left_s)
{
	bool paced = spec->pace_flops > 0;
	double most_s = spec->throttled ? THROTTLED_S : paced ? PACED_S : SAMPLE_S;
	double repeats = fmin(most_s, fmax(left_s, 0)) / once_s;

	if (left_s <= 0)
		return 1;
	return repeats < REPEATS_LEAST	? REPEATS_LEAST
	       : repeats > REPEATS_MOST ? REPEATS_MOST
					: (int)repeats;
}

/* The times of a forward and a backward; *once_s: of both. */
static int run_size(const struct compute_spec *spec, struct probe *probe, double end_s,
		    struct timing *forward, struct timing *backward, double *once_s)
{
	double time[2][REPEATS_MOST], start;
	int repeats;

	probe_run(probe, &time[0][0], &time[1][0]);	/* warms up */
	start = clock_s();
	probe_run(probe, &time[0][0], &time[1][0]);
	*once_s = time[0][0] + time[1][0];
	repeats = repeats_of(spec, clock_s() - start, end_s - clock_s());
	for (int i = 1; i < repeats; i++)
		probe_run(probe, &time[0][i], &time[1][i]);
	forward->s = typical(spec, time[0], repeats);
	backward->s = typical(spec, time[1], repeats);
	return 0;
}

/* -- one part ------------------------------------------------------------------------------ */

static void add_timing(struct series *series, const struct size *size, int parts,
		       struct timing forward, struct timing backward)
{
	int i = series->count++;

	forward.n = backward.n = (double)size->sequences * size->tokens;
	forward.T = backward.T = size->tokens;
	forward.weight = backward.weight = size->weight;
	forward.s = fmax(forward.s / parts, CLOCK_S);
	backward.s = fmax(backward.s / parts, CLOCK_S);
	series->forward[i] = forward;
	series->backward[i] = backward;
}

/* Sizes that time and memory allow, the first one whatever time it takes; none where memory
 * holds not even that. The optimizer's update after the last one. */
static int run_part(const struct compute_spec *spec, enum part part, double end_s,
		    struct series *series, double *update_s)
{
	struct size size[SIZES];
	int sizes = list_sizes(spec, size), parts = probe_parts(spec, part);
	double once_s = 0;

	series->count = 0;
	for (int i = 0; i < sizes; i++) {
		struct timing forward, backward;
		struct probe *probe;

		if (series->count > 0 && !size[i].must &&
		    (once_s > (spec->pace_flops > 0 ? PACED_S : GROW_S) || clock_s() > end_s))
			continue;
		if (spec->memory_bytes > 0 && probe_bytes(spec, part, size[i].sequences,
							  size[i].tokens) > spec->memory_bytes)
			break;
		probe = probe_open(spec, part, size[i].sequences, size[i].tokens);
		if (!probe)
			return -1;
		run_size(spec, probe, end_s, &forward, &backward, &once_s);
		add_timing(series, &size[i], parts, forward, backward);
		if (update_s)
			*update_s = probe_update(probe) / parts;
		probe_close(probe);
	}
	return 0;
}

static void fit_part(const struct series *series, struct fit *forward, struct fit *backward)
{
	*forward = fit_samples(series->forward, series->count);
	*backward = fit_samples(series->backward, series->count);
}

/* A backward that is next to nothing, as the head's is, may be as noisy as it likes. */
static double error_of(const struct series *series, const struct fit *forward,
		       const struct fit *backward)
{
	const struct timing *last = &series->backward[series->count - 1];
	bool matters = last->s > SLIGHT * series->forward[series->count - 1].s;

	return matters ? fmax(forward->error, backward->error) : forward->error;
}

/* Measures a part; once more where the samples disagree, and keeps the better fit. What does
 * not fit memory is guessed. */
static int measure_part(const struct compute_spec *spec, enum part part, double end_s,
			struct fit *forward, struct fit *backward, double *update_s)
{
	struct series series;
	struct fit again[2];

	*forward = *backward = (struct fit){.origin = ORIGIN_GUESSED};
	if (run_part(spec, part, end_s, &series, update_s))
		return -1;
	if (series.count == 0)
		return 0;
	fit_part(&series, forward, backward);
	if (error_of(&series, forward, backward) <= FIT_NOISY || clock_s() > end_s)
		return 0;
	if (run_part(spec, part, end_s, &series, update_s))
		return -1;
	fit_part(&series, &again[0], &again[1]);
	if (again[0].error < forward->error)
		*forward = again[0];
	if (again[1].error < backward->error)
		*backward = again[1];
	return 0;
}

/* -- all ----------------------------------------------------------------------------------- */

static void warn_guessed(const struct node_profile *node)
{
	bool block = node->block_forward.origin == ORIGIN_GUESSED,
	     head = node->head_forward.origin == ORIGIN_GUESSED;

	if (block || head)
		warn(
		    "node '%s' has no memory for %s of the model: its speed is guessed, not "
		    "measured",
		    node->name,
		    block && head ? "a block or the head"
		    : block	  ? "a block"
				  : "the head");
}

int compute_measure(const struct compute_spec *spec, struct node_profile *node)
{
	const struct fit nothing = {.origin = ORIGIN_DECLARED};
	double start = clock_s(), box = spec->box_s;
	int status;

	node->matmul_flops = probe_matmul(spec);
	status = measure_part(spec, PART_BLOCK, start + 0.6 * box, &node->block_forward,
			      &node->block_backward, &node->update_s);
	if (!status)
		status = measure_part(spec, PART_HEAD, start + 0.9 * box, &node->head_forward,
				      &node->head_backward, NULL);
	if (!status && spec->pace_flops <= 0)
		status =
		    measure_part(spec, PART_EMBEDDING, start + box, &node->embedding_forward,
				 &node->embedding_backward, NULL);
	/* A declared pace has no time for these: they pass while the stage is held for its
	 * blocks and head. */
	if (spec->pace_flops > 0)
		node->embedding_forward = node->embedding_backward = node->head_backward =
		    nothing;
	if (!status)
		warn_guessed(node);
	heap_trim();
	return status;
}
