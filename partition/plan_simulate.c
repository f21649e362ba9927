/* plan_simulate.c - a plan's step op by op, for pictures. */
#include "partition/internal.h"

struct simulation *plan_simulate(struct arena *arena, const struct problem *problem, const struct plan *plan)
{
	const struct costs *costs = cost_of(arena, problem, plan);
	struct schedule *schedule = costs ? plan_schedule(arena, problem, plan) : NULL;

	if (!costs)
		return error_null(EXIT_CONFIG, "no step can be predicted: not every node declares its compute");
	return schedule ? simulate(arena, schedule, costs) : NULL;
}
