/*
 * uniform.c - as many blocks on every node, in file order.
 *
 * Where they do not divide, the first stages get one more: the last stage also runs the head,
 * so it never holds more blocks than another. The head is not weighed: 10 blocks over 4 nodes
 * are 3 3 2 2, and 4 blocks over 5 nodes 1 1 1 1 0, where the last runs the head alone. With
 * plan.stages the first nodes of the file are used, the others left out.
 */
#include "partition/internal.h"

int uniform_solve(const struct problem *problem, struct plan *plan)
{
	int stages = stages_wanted(problem), blocks = problem->model->blocks;

	if (stages < 0)
		return -1;
	for (int s = 0; s < stages; s++)
		stage_add(plan, s, blocks / stages + (s < blocks % stages));
	return 0;
}
