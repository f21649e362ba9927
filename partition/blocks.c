/*
 * blocks.c - words for who holds what, shared by the table, the file and the messages.
 */
#include "partition/internal.h"

#include <string.h>

const char *blocks_write(const struct plan_stage *stage, char *buffer, size_t bytes)
{
	int first = stage->first_block, last = first + stage->blocks - 1;
	char range[32] = "";

	if (stage->blocks == 1)
		snprintf(range, sizeof range, "%d", first);
	else if (stage->blocks > 1)
		snprintf(range, sizeof range, "%d-%d", first, last);
	snprintf(buffer, bytes, "%s%s%s%s%s", stage->embedding ? "emb" : "",
		 stage->embedding && stage->blocks ? " " : "", range,
		 stage->head && (stage->blocks || stage->embedding) ? " " : "",
		 stage->head ? "head" : "");
	return buffer;
}

bool left_out(const struct problem *problem, const struct plan *plan, int node, char *why,
	      size_t bytes)
{
	why[0] = 0;
	for (int s = 0; s < plan->stages; s++)
		if (plan->stage[s].node == node)
			return false;
	if (problem->given)
		snprintf(why, bytes, "the given plan has no stage there");
	else if (problem->want->layers.count)
		snprintf(why, bytes, "plan.layers says out");
	else if (strcmp(plan->solver, "proportional") == 0)
		snprintf(why, bytes,
			 "no faster than the %d nodes that plan.stages leaves room for",
			 plan->stages);
	else
		snprintf(why, bytes, "not among the first plan.stages = %d nodes",
			 plan->stages);
	return true;
}
