/* What train and plan have in common: the plan that is taken, and what is said of its step. */
#include "launch/launch.h"

int plan_decide(struct problem *problem, const char *path, struct plan *given, struct plan *plan)
{
	char why[256];

	if (path) {
		if (plan_read(path, problem, given))
			return -1;
		problem->given = given;
	}
	if (plan_make(problem, plan))
		return -1;
	if (plan_check(plan, problem, why, sizeof(why)))
		return error(EXIT_BUG, "the plan is wrong: %s", why);
	return 0;
}

static const char *stage_name(const struct problem *problem, const struct plan *plan, int s)
{
	return cluster_node(problem->cluster, plan->stage[s].node)->name;
}

/* "stage 3 (music)", "forward link 0 (library > physics)", "interface air". */
static void add_bottleneck(const struct problem *problem, const struct plan *plan, struct text *text)
{
	int i = 0;

	text_add(text, "%s", plan->bottleneck);
	if (sscanf(plan->bottleneck, "stage %d", &i) == 1)
		text_add(text, " (%s)", stage_name(problem, plan, i));
	else if (sscanf(plan->bottleneck, "forward link %d", &i) == 1)
		text_add(text, " (%s > %s)", stage_name(problem, plan, i), stage_name(problem, plan, i + 1));
	else if (sscanf(plan->bottleneck, "backward link %d", &i) == 1)
		text_add(text, " (%s > %s)", stage_name(problem, plan, i + 1), stage_name(problem, plan, i));
}

void prediction_add(const struct problem *problem, const struct plan *plan, struct text *text)
{
	double rate = (double)problem->batch * problem->tokens / plan->step_s;

	if (plan->step_s <= 0) {
		text_add(text, "no prediction: not every node declares its compute\n");
		return;
	}
	text_add(text, "predict %.3g s a step, %.*f tokens/s (simulated from %s numbers%s); no schedule of this plan "
		 "takes less than %.3g s", plan->step_s, rate < 100, rate, plan_origins(plan, problem),
		 problem->slowdown != 1 ? ", stretched" : "", plan->bound_s);
	if (plan->least_bound_s > 0)
		text_add(text, ", no plan less than %.3g s", plan->least_bound_s);
	text_add(text, "; bottleneck: ");
	add_bottleneck(problem, plan, text);
	text_add(text, "\n");
}
