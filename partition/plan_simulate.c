/* plan_simulate.c - a plan's step op by op, for pictures, and how long it takes where nothing
 * takes as long as planned. */
#include "partition/internal.h"

#include <stdlib.h>

struct simulation *plan_simulate(struct arena *arena, const struct problem *problem,
				 const struct plan *plan)
{
	const struct costs *costs = cost_of(arena, problem, plan);
	struct schedule *schedule = costs ? plan_schedule(arena, problem, plan) : NULL;

	if (!costs)
		return error_null(
		    EXIT_CONFIG,
		    "no step can be predicted: not every node declares its compute");
	return schedule ? simulate(arena, schedule, costs) : NULL;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int plan_jitter(const struct problem *problem, const struct plan *plan, double jitter,
		struct jittered *steps)
{
	struct arena arena = {0};
	const struct costs *planned = cost_of(&arena, problem, plan);
	struct schedule *schedule = planned ? plan_schedule(&arena, problem, plan) : NULL;
	double step_s[JITTER_DRAWS];

	for (int i = 0; schedule && i < JITTER_DRAWS; i++) {
		struct arena draw = {0};
		struct costs costs = *planned;

		costs.jitter = jitter;
		costs.jitter_seed = (uint32_t)i + 1;
		step_s[i] = simulate(&draw, schedule, &costs)->step_s;
		arena_release(&draw);
	}
	arena_release(&arena);
	if (!schedule)
		return error(EXIT_CONFIG,
			     "no step can be predicted: not every node declares its compute");
	qsort(step_s, JITTER_DRAWS, sizeof *step_s, ascending);
	steps->median_s = step_s[JITTER_DRAWS / 2];
	steps->most_s = step_s[JITTER_DRAWS * 9 / 10];
	return 0;
}
