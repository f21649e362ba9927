/* gantt.c - what is on a Gantt chart: bars from a plan's simulated step. */
#include <string.h>

#include "launch/gantt.h"

static const char *held_by(struct arena *arena, const struct plan_stage *stage)
{
	int last = stage->first_block + stage->blocks - 1;
	const char *head = stage->head ? " head" : "", *embedding = stage->embedding ? "emb " : "";

	if (stage->blocks == 0)
		return arena_format(arena, "%s%s", embedding, stage->head ? "head" : "");
	if (stage->blocks == 1)
		return arena_format(arena, "%s%d%s", embedding, stage->first_block, head);
	return arena_format(arena, "%s%d-%d%s", embedding, stage->first_block, last, head);
}

void gantt_open(struct gantt *gantt, const struct problem *problem, const struct plan *plan, int bars)
{
	size_t stages = (size_t)plan->stages;

	*gantt = (struct gantt){.stages = plan->stages};
	gantt->name = arena_take(&gantt->arena, stages * sizeof(*gantt->name));
	gantt->held = arena_take(&gantt->arena, stages * sizeof(*gantt->held));
	gantt->busy_s = arena_take(&gantt->arena, stages * sizeof(*gantt->busy_s));
	gantt->bar = arena_take(&gantt->arena, (size_t)bars * sizeof(*gantt->bar));
	for (int s = 0; s < plan->stages; s++) {
		const char *name = cluster_node(problem->cluster, plan->stage[s].node)->name;

		gantt->name[s] = arena_copy(&gantt->arena, name, strlen(name));
		gantt->held[s] = held_by(&gantt->arena, &plan->stage[s]);
	}
}

void gantt_release(struct gantt *gantt)
{
	arena_release(&gantt->arena);
}

static void add_bars(struct gantt *gantt, const double *start_s, double lasts_s, int micro_batches, struct gantt_bar kind)
{
	for (int m = 0; m < micro_batches && lasts_s > 0; m++) {
		struct gantt_bar *bar = &gantt->bar[gantt->bars++];

		*bar = kind;
		bar->micro = m;
		bar->start_s = start_s[kind.stage * micro_batches + m];
		bar->end_s = bar->start_s + lasts_s;
	}
}

int gantt_predict(struct gantt *gantt, const struct problem *problem, const struct plan *plan)
{
	struct arena arena = {0};
	const struct simulation *sim = plan_simulate(&arena, problem, plan);
	int m = plan->micro_batches;

	gantt_open(gantt, problem, plan, 4 * m * plan->stages);
	for (int s = 0; sim && s < plan->stages; s++) {
		const struct plan_stage *stage = &plan->stage[s];
		const struct plan_link *link = &plan->link[s];

		add_bars(gantt, sim->forward_start_s, stage->forward_s, m, (struct gantt_bar){.stage = s});
		add_bars(gantt, sim->backward_start_s, stage->backward_s, m, (struct gantt_bar){.stage = s, .backward = true});
		gantt->busy_s[s] = sim->busy_s[s];
		if (s + 1 == plan->stages)
			continue;
		add_bars(gantt, sim->link_forward_start_s, link->seconds_forward, m,
			 (struct gantt_bar){.stage = s, .message = true});
		add_bars(gantt, sim->link_backward_start_s, link->seconds_backward, m,
			 (struct gantt_bar){.stage = s, .message = true, .backward = true});
	}
	gantt->step_s = sim ? sim->step_s : 0;
	arena_release(&arena);
	return sim ? 0 : -1;
}
