/* compare_row.c - one row: the step of a chain under a schedule, and what it waits for most. */
#include "launch/compare.h"

#include <math.h>
#include <string.h>

/* How many micro-batches client i is dealt. */
static int dealt(const struct chain *chain, int micro_batches, int i)
{
	int clients = chain->clients.count;

	return micro_batches > i ? (micro_batches - i + clients - 1) / clients : 0;
}

/* -- in flight ----------------------------------------------------------------------------- */

/* The servers' rooms where no plan said them: by the schedule's own rule. */
static int fill_rooms(struct chain *chain, struct arena *arena, const char *name, int micro_batches)
{
	struct schedule_want want = {
		.name = name,
		.stages = chain->costs.stages,
		.micro_batches = micro_batches,
		.costs = &chain->costs,
	};
	const struct schedule *schedule = schedule_make(arena, &want);

	if (!schedule)
		return -1;
	memcpy(chain->room + chain->clients.count, schedule->room, (size_t)want.stages * sizeof(int));
	return 0;
}

/* By the ceil rule over the way between clients and servers, shared among the clients; 1F1B: as if there were no way. */
static void fill_client_rooms(struct chain *chain, const char *name, int micro_batches, double period_s)
{
	const struct clients *clients = &chain->clients;

	for (int i = 0; i < clients->count; i++) {
		double way = clients->up_s[i] + clients->down_s[i] + clients->latency_up_s[i] + clients->latency_down_s[i] +
			     clients->forward_s[i] + clients->backward_s[i];
		double more = strcmp(name, "eager") ? 1 : 1 + ceil(way / period_s - 1e-9);
		double all = fmin(micro_batches, chain->room[clients->count] + more);

		chain->room[i] = (int)ceil(all / clients->count);
		if (!strcmp(name, "gpipe"))
			chain->room[i] = micro_batches;
	}
}

/* The longest that a micro-batch occupies anything; clients work side by side. */
static double period(const struct chain *chain)
{
	const struct costs *costs = &chain->costs;
	const struct clients *clients = &chain->clients;
	double most = 0;

	for (int s = 0; s < costs->stages; s++)
		most = fmax(most, costs->forward_s[s] + costs->backward_s[s]);
	for (int s = 0; s + 1 < costs->stages; s++)
		most = fmax(most, fmax(costs->link_forward_s[s], costs->link_backward_s[s]));
	for (int i = 0; i < clients->count; i++)
		most = fmax(most, fmax(clients->forward_s[i] + clients->backward_s[i],
				       fmax(clients->up_s[i], clients->down_s[i])) / clients->count);
	return most;
}

/* -- the step ------------------------------------------------------------------------------ */

static double piped(struct chain *chain, const struct compare_case *of)
{
	bool greedy = !strcmp(of->schedule, "greedy"), eager = !strcmp(of->schedule, "eager");
	int count = chain->clients.count + chain->costs.stages;
	double step_s;

	for (int i = 0; i < count && greedy; i++)
		chain->room[i] = of->micro_batches;
	if (!greedy)
		fill_client_rooms(chain, of->schedule, of->micro_batches, period(chain));
	step_s = simulate_clients(&chain->costs, &chain->clients, of->micro_batches, chain->room, greedy);
	if (eager)
		step_s = fmin(step_s, simulate_clients(&chain->costs, &chain->clients, of->micro_batches, chain->room,
						       true));
	return step_s;
}

/* One micro-batch of each of so many clients, joined behind them: up, through the servers and back, and nothing else
 * under way meanwhile. Without clients, one micro-batch. */
static double round_s(const struct chain *chain, int clients)
{
	const struct costs *costs = &chain->costs;
	const struct clients *side = &chain->clients;
	double up = 0, down = 0, servers = 0, joined = clients > 0 ? clients : 1;

	for (int i = 0; i < clients; i++) {
		up = fmax(up, side->forward_s[i] + side->up_s[i] + side->latency_up_s[i]);
		down = fmax(down, side->down_s[i] + side->latency_down_s[i] + side->backward_s[i]);
	}
	for (int s = 0; s < costs->stages; s++)
		servers += joined * (costs->forward_s[s] + costs->backward_s[s]);
	for (int s = 0; s + 1 < costs->stages; s++)
		servers += joined * (costs->link_forward_s[s] + costs->link_backward_s[s]) +
			   costs->latency_forward_s[s] + costs->latency_backward_s[s];
	return up + servers + down;
}

static double sequential(const struct chain *chain, int micro_batches)
{
	int clients = chain->clients.count, rest = clients ? micro_batches % clients : 0;

	if (!clients)
		return micro_batches * round_s(chain, 0);
	return micro_batches / clients * round_s(chain, clients) + (rest ? round_s(chain, rest) : 0);
}

static double step_of(struct chain *chain, struct arena *arena, const struct comparison *c,
		      const struct compare_case *of)
{
	bool planned = c->asked.split != SPLIT_FRACTIONAL, greedy = !strcmp(of->schedule, "greedy");

	if (!strcmp(of->schedule, "sequential"))
		return sequential(chain, of->micro_batches);
	if (planned && !c->clients)
		return chain->planned_s;
	if (!planned && !greedy && fill_rooms(chain, arena, of->schedule, of->micro_batches) < 0)
		return 0;
	return piped(chain, of);
}

/* -- what it waits for --------------------------------------------------------------------- */

struct busiest { double s; char *name; size_t bytes; };

static void consider(struct busiest *busiest, double s, const struct comparison *c, int from, int to)
{
	const struct cluster *cluster = &c->job.cluster;

	if (s <= busiest->s * (1 + 1e-9))
		return;
	busiest->s = s;
	if (to < 0)
		snprintf(busiest->name, busiest->bytes, "%.70s", cluster_node(cluster, from)->name);
	else
		snprintf(busiest->name, busiest->bytes, "%.70s > %.70s", cluster_node(cluster, from)->name,
			 cluster_node(cluster, to)->name);
}

/* The node or the direction of a link that is busy longest in a step. */
static void name_bottleneck(const struct comparison *c, const struct chain *chain, struct compare_row *row)
{
	struct busiest busiest = {0, row->bottleneck, sizeof(row->bottleneck)};
	const struct costs *costs = &chain->costs;
	const struct clients *clients = &chain->clients;
	const struct compare_stage *stage = chain->stage;
	int m = row->of.micro_batches;

	for (int s = 0; s < costs->stages; s++)
		consider(&busiest, m * (costs->forward_s[s] + costs->backward_s[s]), c, stage[s].node, -1);
	for (int i = 0; i < clients->count; i++) {
		int share = dealt(chain, m, i), node = c->client[i];

		consider(&busiest, share * (clients->forward_s[i] + clients->backward_s[i]), c, node, -1);
		consider(&busiest, share * clients->up_s[i], c, node, stage[0].node);
		consider(&busiest, share * clients->down_s[i], c, stage[0].node, node);
	}
	for (int s = 0; s + 1 < costs->stages; s++) {
		consider(&busiest, m * costs->link_forward_s[s], c, stage[s].node, stage[s + 1].node);
		consider(&busiest, m * costs->link_backward_s[s], c, stage[s + 1].node, stage[s].node);
	}
}

/* The first line of what was said, for a table. */
static void keep_reason(struct compare_row *row)
{
	const char *text = error_text();
	const char *skip = "edgepipe: error: ";

	if (!strncmp(text, skip, strlen(skip)))
		text += strlen(skip);
	snprintf(row->why, sizeof(row->why), "%.*s", (int)strcspn(text, "\n"), text);
	if (row->why[0] && row->why[strlen(row->why) - 1] == ':')
		row->why[strlen(row->why) - 1] = '\0';
}

void compare_row_fill(struct comparison *c, struct compare_row *row)
{
	struct arena arena = {0};
	struct chain chain;
	double batch = (double)row->of.micro_batches * c->asked.micro_batch;

	error_hold();
	if (chain_make(&chain, &arena, c, row->hops, &row->of) == 0)
		row->step_s = step_of(&chain, &arena, c, &row->of);
	if (row->step_s > 0) {
		row->total_s = row->step_s * c->asked.tokens / (batch * c->tokens);
		row->stage = arena_take(&c->arena, (size_t)row->hops * sizeof(*row->stage));
		memcpy(row->stage, chain.stage, (size_t)row->hops * sizeof(*row->stage));
		name_bottleneck(c, &chain, row);
	} else {
		keep_reason(row);
	}
	error_clear();
	arena_release(&arena);
}
