/*
 * model.c - the two measures of a placement: the closed form J, which a solver can minimise
 * exactly, and the simulator, which interprets the very ops that the executor runs and so
 * decides between the best of J.
 */
#include <math.h>
#include <string.h>

#include "partition/instance.h"

#define NOISE 1e-12			/* what floating point may add to a whole number */
/* So many micro-batches are played at most; what the last of them take stands for each that is
 * not. */
enum { PLAYED_MOST = 512, PLAYED_LAST = 256 };

/* -- J ------------------------------------------------------------------------------------- */

int model_in_flight(const struct instance *in, double rest_s, double period_s)
{
	double count = ceil(rest_s / period_s - NOISE);

	return count < 1 ? 1 : count < in->micro_batches ? (int)count : in->micro_batches;
}

/* Seconds of a placement: rest[s] from stage s to the end and back; its longest stage or
 * direction of a link. */
struct ways { double rest[PLAN_STAGES_MAX], longest; };

static void fill_ways(const struct instance *in, const struct placement *at, struct ways *w)
{
	w->longest = 0;
	for (int s = at->stages - 1; s >= 0; s--) {
		bool last = s == at->stages - 1;
		double tau = stage_s(in, at->node[s], at->first[s], at->first[s + 1], last);

		w->longest = fmax(w->longest, tau);
		if (!last)
			w->longest =
			    fmax(w->longest, cut_longest_s(in, at->node[s], at->node[s + 1],
							   at->first[s + 1]));
		w->rest[s] = tau;
		if (!last)
			w->rest[s] +=
			    cut_way_s(in, at->node[s], at->node[s + 1], at->first[s + 1]) +
			    w->rest[s + 1];
	}
}

/* The least period that has room everywhere: a stage with room for K has R / K at least. */
static double least_period(const struct instance *in, const struct ways *w, const int *room,
			   int stages)
{
	double period_s = w->longest;

	for (int s = 0; s < stages; s++)
		if (room[s] < in->micro_batches)
			period_s = fmax(period_s, w->rest[s] / room[s]);
	return period_s;
}

double model_step(const struct instance *in, struct placement *at)
{
	struct ways w;
	int room[PLAN_STAGES_MAX];

	at->period_s = at->model_s = INFINITY;
	fill_ways(in, at, &w);
	if (isinf(w.rest[0]))
		return INFINITY;
	for (int s = 0; s < at->stages; s++) {
		room[s] = stage_room(in, at->node[s], at->first[s], at->first[s + 1],
				     s == at->stages - 1);
		if (room[s] < 1)
			return INFINITY;
	}
	at->period_s = least_period(in, &w, room, at->stages);
	at->model_s = w.rest[0] + (in->micro_batches - 1) * at->period_s;
	return at->model_s;
}

double placement_longest_s(const struct instance *in, const struct placement *at)
{
	struct ways w;

	fill_ways(in, at, &w);
	return w.longest;
}

/* -- the simulator ------------------------------------------------------------------------- */

/* Whether a schedule's counts have room: the eager one takes what there is; one that holds all
 * that are played, all. */
static bool has_room(const struct instance *in, const struct schedule *schedule,
		     const int *room, int stages)
{
	bool eager = !in->schedule || !strcmp(in->schedule, "eager");

	for (int s = 0; s < stages; s++) {
		int held = schedule->room[s];

		if (room[s] < (held == PLAYED_MOST && !eager ? in->micro_batches : held))
			return false;
	}
	return true;
}

static double played(const struct instance *in, int micro_batches, const struct costs *costs,
		     const int *room, bool greedy)
{
	struct arena arena = {0};
	struct schedule_want want = {
		.name = in->schedule ? in->schedule : "eager",
		.stages = costs->stages,
		.micro_batches = micro_batches,
		.costs = costs,
		.room_most = room,
		.greedy = greedy,
	};
	struct schedule *schedule = schedule_make(&arena, &want);
	bool fits = schedule && has_room(in, schedule, room, costs->stages);
	struct simulation *simulation = fits ? simulate(&arena, schedule, costs) : NULL;
	double step_s = simulation ? simulation->step_s : INFINITY;

	arena_release(&arena);
	return step_s;
}

static double simulated(const struct instance *in, const struct costs *costs, const int *room,
			bool greedy)
{
	double most_s, period_s;

	if (in->micro_batches <= PLAYED_MOST)
		return played(in, in->micro_batches, costs, room, greedy);
	most_s = played(in, PLAYED_MOST, costs, room, greedy);
	if (isinf(most_s))
		return INFINITY;
	period_s =
	    (most_s - played(in, PLAYED_MOST - PLAYED_LAST, costs, room, greedy)) / PLAYED_LAST;
	return most_s + (in->micro_batches - PLAYED_MOST) * period_s;
}

double placement_simulate(const struct instance *in, const struct placement *at)
{
	struct arena arena = {0};
	const struct costs *costs = instance_costs(&arena, in, at);
	int room[PLAN_STAGES_MAX];
	bool fits = true;
	double step_s = INFINITY;

	for (int s = 0; s < at->stages; s++) {
		room[s] = stage_room(in, at->node[s], at->first[s], at->first[s + 1],
				     s == at->stages - 1);
		fits = fits && room[s] > 0;
	}
	if (fits)
		step_s = simulated(in, costs, room, false);
	if (fits && (!in->schedule || !strcmp(in->schedule, "eager")))
		step_s = fmin(step_s, simulated(in, costs, room, true));
	arena_release(&arena);
	return step_s;
}

double placement_bound(const struct instance *in, const struct placement *at)
{
	struct arena arena = {0};
	double bound_s =
	    step_bound(instance_costs(&arena, in, at), in->micro_batches, NULL, NULL);

	arena_release(&arena);
	return bound_s;
}
