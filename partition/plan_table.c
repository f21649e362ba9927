/*
 * plan_table.c - the plan for people: a line a stage, the codecs of its links, then who is left
 * out and why.
 */
#include "partition/internal.h"

#include <string.h>

/* The widths of the columns whose texts have no natural one. */
struct widths { int node, blocks; };

static void wider(int *width, const char *text)
{
	if ((int)strlen(text) > *width)
		*width = (int)strlen(text);
}

static struct widths measure(const struct plan *plan, const struct problem *problem)
{
	struct widths widths = {(int)strlen("node"), (int)strlen("blocks")};
	char blocks[64];

	for (int s = 0; s < plan->stages; s++) {
		const struct plan_stage *stage = &plan->stage[s];

		wider(&widths.node, cluster_node(problem->cluster, stage->node)->name);
		wider(&widths.blocks, blocks_write(stage, blocks, sizeof blocks));
	}
	return widths;
}

/* "1.21 GiB of 8 GiB (declared)" */
static void add_memory(struct text *text, const struct plan_stage *stage,
		       const struct node *node)
{
	char needed[32], limit[32];

	text_add(text, "%s of ", unit_write(stage->memory_bytes, UNIT_BYTES, needed,
					    sizeof needed));
	if (stage->memory_limit_bytes > 0)
		text_add(text, "%s (%s)",
			 unit_write(stage->memory_limit_bytes, UNIT_BYTES, limit, sizeof limit),
			 node->memory_bytes > 0 ? "declared" : "measured");
	else
		text_add(text, "unknown");
}

static void add_stage(struct text *text, const struct plan *plan, const struct problem *problem,
		      int s, struct widths widths)
{
	const struct plan_stage *stage = &plan->stage[s];
	const struct node *node = cluster_node(problem->cluster, stage->node);
	char blocks[64];

	text_add(text, "%5d  %-*s  %-*s  %5.1f%%  %9d  ", s, widths.node, node->name,
		 widths.blocks, blocks_write(stage, blocks, sizeof blocks), 100 * stage->share,
		 stage->in_flight);
	add_memory(text, stage, node);
	text_add(text, "\n");
}

void plan_line(const struct plan *plan, const struct problem *problem, struct text *text)
{
	char blocks[64];

	for (int s = 0; s < plan->stages; s++)
		text_add(text, "%s%s %s", s ? " | " : "",
			 cluster_node(problem->cluster, plan->stage[s].node)->name,
			 blocks_write(&plan->stage[s], blocks, sizeof blocks));
	text_add(text, ", micro-batches of %d: %.3g s a step", plan->micro_batch, plan->step_s);
}

/* A line a link, where any of them has a codec. */
static void add_links(struct text *text, const struct plan *plan, const struct problem *problem)
{
	bool any = false;

	for (int s = 0; s + 1 < plan->stages; s++)
		any = any || plan->link[s].codec_forward != CODEC_NONE ||
		      plan->link[s].codec_backward != CODEC_NONE;
	for (int s = 0; any && s + 1 < plan->stages; s++)
		text_add(text, "%-7s %s > %s: %s forward, %s backward\n", s ? "" : "links",
			 cluster_node(problem->cluster, plan->stage[s].node)->name,
			 cluster_node(problem->cluster, plan->stage[s + 1].node)->name,
			 codec_of((enum codec_kind)plan->link[s].codec_forward, false)->name,
			 codec_of((enum codec_kind)plan->link[s].codec_backward, true)->name);
}

void plan_print(const struct plan *plan, const struct problem *problem, struct text *text)
{
	struct widths widths = measure(plan, problem);
	char why[160];

	text_add(text, "plan: %s, %s, %d micro-batch%s of %d sequence%s\n",
		 problem->given ? "given" : plan->solver, plan->schedule, plan->micro_batches,
		 plan->micro_batches > 1 ? "es" : "", plan->micro_batch,
		 plan->micro_batch > 1 ? "s" : "");
	if (problem->recompute != RECOMPUTE_NONE)
		text_add(text, "train.recompute %s: backward computes %s again\n",
			 recompute_name(problem->recompute),
			 problem->recompute == RECOMPUTE_MLP
			     ? "the inputs of every MLP's activation"
			     : "every block's forward");
	text_add(text, "stage  %-*s  %-*s  %6s  %9s  %s\n", widths.node, "node", widths.blocks,
		 "blocks", "FLOPs", "in flight", "memory (estimate of limit)");
	for (int s = 0; s < plan->stages; s++)
		add_stage(text, plan, problem, s, widths);
	add_links(text, plan, problem);
	for (int i = 0; i < problem->cluster->nodes.count; i++)
		if (left_out(problem, plan, i, why, sizeof why))
			text_add(text, "left out: %s (%s)\n",
				 cluster_node(problem->cluster, i)->name, why);
}
