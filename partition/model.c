/*
 * model.c - the two measures of a placement: the closed form J, which a solver can minimise exactly, and the
 * simulator, which interprets the very ops that the executor runs and so decides between the best of J.
 */
#include <math.h>
#include <stdlib.h>

#include "partition/instance.h"

#define NOISE 1e-12			/* what floating point may add to a whole number */

/* -- J ------------------------------------------------------------------------------------- */

static int whole_periods(double way_s, double period_s, int most)
{
	double count = way_s <= 0 ? 0 : ceil(way_s / period_s - NOISE);

	return count < most ? (int)count : most;
}

int model_in_flight(const struct instance *in, int downstream, double cut_s, double rest_s, double period_s)
{
	int most = in->micro_batches;
	int hidden = downstream + 1 + (downstream > 0 ? whole_periods(cut_s, period_s, most) : 0);
	int held = whole_periods(rest_s, period_s, most);

	if (held < 1)
		held = 1;
	return hidden < held ? hidden : held;
}

/* Seconds of a placement, from its end: cut[s] the way over the cut after s, rest[s] from s to the end and back. */
struct ways { double cut[PLAN_STAGES_MAX], rest[PLAN_STAGES_MAX], longest; };

static void fill_ways(const struct instance *in, const struct placement *at, struct ways *w)
{
	w->longest = 0;
	for (int s = at->stages - 1; s >= 0; s--) {
		double tau = stage_s(in, at->node[s], at->first[s], at->first[s + 1]);
		bool last = s == at->stages - 1;

		w->longest = fmax(w->longest, tau);
		if (!last)
			w->longest = fmax(w->longest, cut_longest_s(in, at->node[s], at->node[s + 1],
								    at->first[s + 1]));
		w->cut[s] = last ? 0 : cut_way_s(in, at->node[s], at->node[s + 1], at->first[s + 1]);
		w->rest[s] = tau + w->cut[s] + (last ? 0 : w->rest[s + 1]);
	}
}

static bool has_room(const struct instance *in, const struct ways *w, const int *room, int stages, double period_s)
{
	int in_flight = 0;

	for (int s = stages - 1; s >= 0; s--) {
		in_flight = model_in_flight(in, in_flight, w->cut[s], w->rest[s], period_s);
		if (in_flight > room[s])
			return false;
	}
	return true;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The periods above the shortest at which a count changes; the last of them is R_0. Freed by the caller. */
static double *breakpoints(const struct instance *in, const struct ways *w, int stages, int *count)
{
	double *period = xalloc(2 * (size_t)stages * (size_t)in->micro_batches * sizeof(*period));

	*count = 0;
	for (int s = 0; s < stages; s++)
		for (int k = 1; k <= in->micro_batches; k++) {
			double by_cut = w->cut[s] / k, by_rest = w->rest[s] / k;

			if (by_cut > w->longest)
				period[(*count)++] = by_cut;
			if (by_rest > w->longest)
				period[(*count)++] = by_rest;
			if (by_cut <= w->longest && by_rest <= w->longest)
				break;
		}
	qsort(period, (size_t)*count, sizeof(*period), ascending);
	return period;
}

/* The least period that has room everywhere; INFINITY: none. */
static double least_period(const struct instance *in, const struct ways *w, const int *room, int stages)
{
	double *period, found = INFINITY;
	int count, low = 0;

	if (has_room(in, w, room, stages, w->longest))
		return w->longest;
	period = breakpoints(in, w, stages, &count);
	for (int high = count; low < high;) {
		int mid = (low + high) / 2;

		if (has_room(in, w, room, stages, period[mid]))
			high = mid;
		else
			low = mid + 1;
	}
	if (low < count)
		found = period[low];
	free(period);
	return found;
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
		room[s] = stage_room(in, at->node[s], at->first[s], at->first[s + 1]);
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

static double simulated(const struct instance *in, const struct costs *costs, const int *room, bool greedy)
{
	struct arena arena = {0};
	struct schedule_want want = {
		.name = "eager",
		.stages = costs->stages,
		.micro_batches = in->micro_batches,
		.costs = costs,
		.room_most = room,
		.greedy = greedy,
	};
	struct schedule *schedule = schedule_make(&arena, &want);
	struct simulation *simulation = schedule ? simulate(&arena, schedule, costs) : NULL;
	double step_s = simulation ? simulation->step_s : INFINITY;

	arena_release(&arena);
	return step_s;
}

double placement_simulate(const struct instance *in, const struct placement *at)
{
	struct arena arena = {0};
	const struct costs *costs = instance_costs(&arena, in, at);
	int room[PLAN_STAGES_MAX];
	bool fits = true;
	double step_s = INFINITY;

	for (int s = 0; s < at->stages; s++) {
		room[s] = stage_room(in, at->node[s], at->first[s], at->first[s + 1]);
		fits = fits && room[s] > 0;
	}
	if (fits)
		step_s = fmin(simulated(in, costs, room, false), simulated(in, costs, room, true));
	arena_release(&arena);
	return step_s;
}

double placement_bound(const struct instance *in, const struct placement *at)
{
	struct arena arena = {0};
	double bound_s = step_bound(instance_costs(&arena, in, at), in->micro_batches, NULL, NULL);

	arena_release(&arena);
	return bound_s;
}
