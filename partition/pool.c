/* pool.c - the best placements that were found, by J: what the simulator chooses from. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "partition/instance.h"

static bool same(const struct placement *a, const struct placement *b)
{
	return a->stages == b->stages &&
	       !memcmp(a->node, b->node, (size_t)a->stages * sizeof(int)) &&
	       !memcmp(a->first, b->first, (size_t)(a->stages + 1) * sizeof(int));
}

bool pool_add(struct pool *pool, const struct placement *placement)
{
	int at = pool->count;

	if (!(placement->model_s < INFINITY))
		return false;
	for (int i = 0; i < pool->count; i++)
		if (same(&pool->item[i], placement))
			return false;
	if (pool->count == POOL_MOST && placement->model_s >= pool->item[at - 1].model_s)
		return false;
	if (!pool->item)
		pool->item = xalloc(POOL_MOST * sizeof(*pool->item));
	if (pool->count < POOL_MOST)
		pool->count++;
	for (at = pool->count - 1; at > 0 && pool->item[at - 1].model_s > placement->model_s;
	     at--)
		pool->item[at] = pool->item[at - 1];
	pool->item[at] = *placement;
	return true;
}

double pool_best(const struct pool *pool)
{
	return pool->count ? pool->item[0].model_s : INFINITY;
}

void pool_release(struct pool *pool)
{
	free(pool->item);
	*pool = (struct pool){0};
}
