/* What train and plan have in common: the plan that is taken, and what is said of its step. */
#include "launch/launch.h"

#include <math.h>
#include <string.h>

#define LONG_S 120		/* beyond it, seconds are said as minutes, hours, days */

void plan_warn_set(const char *path, const char *const *set, int count)
{
	static const char *const decided[] = {"plan.solver=", "plan.schedule="};

	for (int i = 0; path && i < count; i++)
		for (size_t k = 0; k < sizeof(decided) / sizeof(*decided); k++)
			if (!strncmp(set[i], decided[k], strlen(decided[k])))
				warn("--set %s: --plan %s decides that", set[i], path);
}

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

/* "0.173 s", "2.45 h". */
static const char *time_say(double s, char *buffer, size_t bytes)
{
	double unit = s >= 3 * 86400 ? 86400 : s >= 2 * 3600 ? 3600 : s > LONG_S ? 60 : 1;
	const char *name = unit > 3600 ? "days" : unit > 60 ? "h" : unit > 1 ? "min" : "s";

	snprintf(buffer, bytes, s / unit >= 999.5 ? "%.0f %s" : "%.3g %s", s / unit, name);
	return buffer;
}

/* To three digits: "5930", "0.0123". */
static const char *rate_say(double rate, char *buffer, size_t bytes)
{
	double step = rate > 0 ? pow(10, floor(log10(rate)) - 2) : 1;

	snprintf(buffer, bytes, rate >= 100 ? "%.0f" : "%.3g", round(rate / step) * step);
	return buffer;
}

/* What can be said of a step where speeds are not known. */
static void add_no_prediction(const struct problem *problem, const struct plan *plan, struct text *text)
{
	int declared = problem->profile != NULL;

	for (int i = 0; i < problem->cluster->nodes.count; i++)
		declared += cluster_node(problem->cluster, i)->compute_flops > 0;
	if (declared)
		text_add(text, "no prediction: not every node declares its compute\n");
	else
		text_add(text, "no prediction%s: no node declares its compute; declare it, or measure with edgepipe profile\n",
			 !problem->given && !strcmp(plan->solver, "uniform") ? ", planned uniformly" : "");
}

/* J, as another solver finds it from --dump-lp, and what was proved of it. Four digits, to be told from others. */
static void add_closed_form(const struct plan *plan, struct text *text)
{
	double least = plan->model_minimum_s, proved = plan->model_proved_s;

	if (!(plan->model_s > 0 && least > 0))
		return;
	text_add(text, "; closed form %#.4g s (", plan->model_s);
	if (plan->model_s > least * (1 + 1e-9))
		text_add(text, "the least is %#.4g s, ", least);
	else if (proved >= least * (1 - 1e-9))
		text_add(text, "least, ");
	if (proved >= least * (1 - 1e-9))
		text_add(text, "proved)");
	else if (proved > 0)
		text_add(text, "proved to be within %.2g %% of the least)", 100 * (plan->model_s / proved - 1));
	else
		text_add(text, "nothing is proved)");
}

void prediction_add(const struct problem *problem, const struct plan *plan, struct text *text)
{
	char step[32], bound[32], least[32], rate[32];

	if (plan->step_s <= 0) {
		add_no_prediction(problem, plan, text);
		return;
	}
	text_add(text, "predict %s a step, %s tokens/s (simulated from %s numbers%s); no schedule of this plan takes less "
		 "than %s", time_say(plan->step_s, step, sizeof(step)),
		 rate_say((double)problem->batch * problem->tokens / plan->step_s, rate, sizeof(rate)),
		 plan_origins(plan, problem), problem->slowdown != 1 ? ", stretched" : "",
		 time_say(plan->bound_s, bound, sizeof(bound)));
	if (plan->least_bound_s > 0)
		text_add(text, ", no plan less than %s", time_say(plan->least_bound_s, least, sizeof(least)));
	text_add(text, "; bottleneck: ");
	add_bottleneck(problem, plan, text);
	add_closed_form(plan, text);
	text_add(text, "\n");
}
