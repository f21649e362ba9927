/*
 * explain.c - what a plan does with its time, and what would help most: every node and link at
 * twice its speed, every link with a codec, one change at a time, simulated anew with the
 * in-flight counts that then fit.
 */
#include "partition/internal.h"

#include <stdlib.h>
#include <string.h>

#define WORTH_SAYING 1.01		/* of the step */
enum { SHOWN = 5 };

/* -- where the time goes ------------------------------------------------------------------- */

/* Where a stage's numbers come from; and those of the links beside it, where that is
 * elsewhere. */
static void add_origin(struct text *text, const struct problem *problem,
		       const struct plan *plan, int s)
{
	enum origin own = cost_origin(problem, plan->stage[s].node), link;

	text_add(text, "  %s", origin_name(own));
	if (s + 1 == plan->stages)
		return;
	link = link_origin(problem, plan->stage[s].node, plan->stage[s + 1].node);
	if (link != own && link != ORIGIN_GUESSED)
		text_add(text, ", links %s", origin_name(link));
}

static void add_stage(struct text *text, const struct problem *problem, const struct plan *plan,
		      const struct simulation *sim, int s)
{
	const struct plan_stage *stage = &plan->stage[s];
	double m = plan->micro_batches;

	text_add(text, "%5d  %9.4g  %9.4g  %8.1f%%  %5.1f%%", s, m * stage->forward_s,
		 m * stage->backward_s, 100 * sim->busy_s[s] / sim->step_s,
		 100 - 100 * sim->busy_s[s] / sim->step_s);
	if (s + 1 < plan->stages)
		text_add(text, "  %9.4g  %8.1f%%  %9.4g  %8.1f%%",
			 m * plan->link[s].seconds_forward,
			 100 * sim->link_forward_busy_s[s] / sim->step_s,
			 m * plan->link[s].seconds_backward,
			 100 * sim->link_backward_busy_s[s] / sim->step_s);
	text_add(text, "%*s", s + 1 < plan->stages ? 0 : 44, "");
	if (stage->memory_limit_bytes > 0)
		text_add(text, "  %5.1f%%",
			 100 * stage->memory_bytes / stage->memory_limit_bytes);
	else
		text_add(text, "  %6s", "");
	add_origin(text, problem, plan, s);
	text_add(text, "\n");
}

static void add_times(struct text *text, const struct problem *problem, const struct plan *plan,
		      const struct simulation *sim)
{
	text_add(text, "stage  %9s  %9s  %9s  %6s  %9s  %9s  %9s  %9s  memory  from\n",
		 "forward s", "backward", "computes", "idle", "sends s", "of step", "receives",
		 "of step");
	for (int s = 0; s < plan->stages; s++)
		add_stage(text, problem, plan, sim, s);
}

/* -- what would help ----------------------------------------------------------------------- */

struct change {
	double step_s;
	char what[128];
};

static int faster_first(const void *a, const void *b)
{
	double x = ((const struct change *)a)->step_s, y = ((const struct change *)b)->step_s;

	return (x > y) - (x < y);
}

/* The step of a changed plan; the plan's own where it cannot be made. */
static double step_of(const struct problem *problem, struct plan *changed,
		      const struct plan *plan)
{
	for (int s = 0; s < changed->stages; s++)
		changed->stage[s].in_flight = plan->micro_batches;
	if (plan_fit(problem, changed, false) <= 0)
		return plan->step_s;
	cost_predict(problem, changed);
	return changed->step_s;
}

/* Each tries in `changed`, where a plan has room, and fills `change`. */
static void try_node(const struct problem *problem, const struct plan *plan, int s,
		     struct plan *changed, struct change *change)
{
	memcpy(changed, plan, sizeof(*changed));
	changed->stage[s].forward_s /= 2;
	changed->stage[s].backward_s /= 2;
	change->step_s = step_of(problem, changed, plan);
	snprintf(change->what, sizeof(change->what), "%.48s computing twice as fast",
		 cluster_node(problem->cluster, plan->stage[s].node)->name);
}

/* Cut s in both directions: twice the rate, or half the latency. */
static void try_link(const struct problem *problem, const struct plan *plan, int s,
		     bool latency, struct plan *changed, struct change *change)
{
	struct plan_link *link = &changed->link[s];

	memcpy(changed, plan, sizeof(*changed));
	link->seconds_forward /= latency ? 1 : 2;
	link->seconds_backward /= latency ? 1 : 2;
	link->latency_forward /= latency ? 2 : 1;
	link->latency_backward /= latency ? 2 : 1;
	change->step_s = step_of(problem, changed, plan);
	snprintf(change->what, sizeof(change->what), "the link %.32s - %.32s at %s",
		 cluster_node(problem->cluster, plan->stage[s].node)->name,
		 cluster_node(problem->cluster, plan->stage[s + 1].node)->name,
		 latency ? "half the latency" : "twice the rate");
}

static void try_codec(const struct problem *problem, const struct plan *plan,
		      enum codec_kind kind, struct plan *changed, struct change *change)
{
	int rows = plan->micro_batch * problem->tokens, width = problem->model->width;
	double forward = (double)stream_tensor_bytes(kind, false, rows, width);
	double backward = (double)stream_tensor_bytes(kind, true, rows, width);

	memcpy(changed, plan, sizeof(*changed));
	for (int s = 0; s + 1 < plan->stages; s++) {
		changed->link[s].seconds_forward *= forward / plan->link[s].bytes_forward;
		changed->link[s].seconds_backward *= backward / plan->link[s].bytes_backward;
	}
	change->step_s = step_of(problem, changed, plan);
	snprintf(change->what, sizeof(change->what), "codec %s on every link",
		 codec_of(kind, false)->name);
}

static void add_help(struct text *text, const struct problem *problem, const struct plan *plan)
{
	struct change *change =
	    xalloc((3 * (size_t)plan->stages + CODEC_KINDS) * sizeof(*change));
	struct plan *changed = xalloc(sizeof(*changed));
	int count = 0, shown = 0;

	for (int s = 0; s < plan->stages; s++)
		try_node(problem, plan, s, changed, &change[count++]);
	for (int s = 0; s + 1 < plan->stages; s++) {
		try_link(problem, plan, s, false, changed, &change[count++]);
		try_link(problem, plan, s, true, changed, &change[count++]);
	}
	for (int kind = CODEC_NONE + 1; kind < CODEC_KINDS && plan->stages > 1; kind++)
		try_codec(problem, plan, (enum codec_kind)kind, changed, &change[count++]);
	qsort(change, (size_t)count, sizeof(*change), faster_first);
	text_add(
	    text,
	    "what would help most, one change at a time, blocks where they are (simulated):\n");
	for (; shown < count && shown < SHOWN &&
	       change[shown].step_s * WORTH_SAYING <= plan->step_s;
	     shown++)
		text_add(text, "  %-56s %.3g s a step: %.2f x\n", change[shown].what,
			 change[shown].step_s, plan->step_s / change[shown].step_s);
	if (shown == 0)
		text_add(text, "  nothing that was tried gains 1 %%\n");
	free(changed);
	free(change);
}

/* -- the other solvers --------------------------------------------------------------------- */

/* The best plan that places otherwise, and what is busiest in it. */
static void add_runner_up(struct text *text, const struct problem *problem,
			  const struct plan *plan, struct plan *second)
{
	const struct solver *solver = solver_find(plan->solver);
	struct plan *again;

	if (!solver || !solver->search || solver->pure)
		return;
	again = xzalloc(1, sizeof(*again));
	memset(second, 0, sizeof(*second));
	if (choose_plan(problem, solver, again, second, 1) > 0 && second->step_s > 0) {
		text_add(text, "runner-up: ");
		plan_line(second, problem, text);
		text_add(
		    text,
		    ", %.2f %% more; its busiest is %s, and no schedule of it takes less than "
		    "%.3g s\n",
		    100 * (second->step_s / plan->step_s - 1), second->bottleneck,
		    second->bound_s);
	}
	free(again);
}

/* What the planner would do in place of a plan that is given. asked: as without it. */
static void add_own(struct text *text, const struct problem *asked, const struct plan *plan,
		    struct plan *own)
{
	error_mute();
	if (plan_make(asked, own) == 0 && own->step_s > 0) {
		double less = 100 * (1 - own->step_s / plan->step_s);

		text_add(text, "the planner's own: ");
		plan_line(own, asked, text);
		text_add(text, ", %.2f %% %s\n", less < 0 ? -less : less,
			 less < 0 ? "more" : "less");
	}
	error_unmute();
}

static void add_others(struct text *text, const struct problem *problem,
		       const struct plan *plan)
{
	struct plan *other = xalloc(sizeof(*other));
	struct plan_config want = *problem->want;
	struct problem asked = *problem;

	asked.want = &want;
	asked.given = NULL;
	want.layers.count = 0;
	if (problem->given) {
		want.solver = NULL;
		want.schedule = plan->schedule;
		add_own(text, &asked, plan, other);
	} else {
		add_runner_up(text, &asked, plan, other);
	}
	for (int i = 0; solver_names()[i]; i++) {
		want.solver = solver_names()[i];
		if (!strcmp(want.solver, plan->solver) ||
		    !solver_find(want.solver)->applicable(&asked))
			continue;
		error_mute();
		if (plan_make(&asked, other) < 0)
			text_add(text, "solver %s: no plan fits\n", want.solver);
		else if (other->step_s > 0)
			text_add(text, "solver %s: %.3g s a step, %.2f x\n", want.solver,
				 other->step_s, other->step_s / plan->step_s);
		error_unmute();
	}
	free(other);
}

int plan_explain(const struct plan *plan, const struct problem *problem, struct text *text)
{
	struct arena arena = {0};
	const struct costs *costs = cost_of(&arena, problem, plan);
	struct schedule *schedule = costs ? plan_schedule(&arena, problem, plan) : NULL;
	struct simulation *sim = schedule ? simulate(&arena, schedule, costs) : NULL;

	if (sim) {
		add_times(text, problem, plan, sim);
		add_others(text, problem, plan);
		add_help(text, problem, plan);
	}
	arena_release(&arena);
	if (!costs)
		return error(EXIT_CONFIG,
			     "nothing to explain: not every node declares its compute");
	return sim ? 0 : -1;
}
