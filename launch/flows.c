/*
 * flows.c - the flows of the chosen plan all at once, for a moment before the training: what links share, an interface or
 * an uplink, shows only then. Pairs that were measured one by one knew nothing of it.
 */
#include <string.h>

#include "launch/session.h"

#define SECONDS 0.4		/* of each flow, where links carry what the profile says */
#define ENOUGH 0.8		/* of that */
enum { FLOWS = 4 };		/* of a rank: to and from both neighbours */

/* The rate that a cut's direction is reckoned with; 0: unlimited. */
static double expected(const struct session *s, int cut, bool backward)
{
	const struct plan_link *link = &s->plan.link[cut];
	double seconds = backward ? link->seconds_backward : link->seconds_forward;

	return seconds > 0 ? (backward ? link->bytes_backward : link->bytes_forward) / seconds : 0;
}

static void add(const struct session *s, struct flow *flow, int *count, int cut, bool backward)
{
	int from = s->rank_of_stage[backward ? cut + 1 : cut], to = s->rank_of_stage[backward ? cut : cut + 1];
	double rate = expected(s, cut, backward);

	if (rate > 0 && (from == s->comm->rank || to == s->comm->rank))
		flow[(*count)++] = (struct flow){.sends = from == s->comm->rank,
						 .peer = from == s->comm->rank ? to : from, .bytes_s = rate,
						 .cut = cut, .backward = backward};
}

/* The planner knows of interfaces that are declared; and what follows a trace may be slower just now. */
static bool may_be_slow(const struct session *s, int from, int to)
{
	const struct cluster *cluster = &s->job.cluster;

	return cluster_link(cluster, from, to).trace || cluster_node(cluster, from)->nic || cluster_node(cluster, to)->nic;
}

static void judge(const struct session *s, const struct flow *flow)
{
	int from = s->rank_of_stage[flow->backward ? flow->cut + 1 : flow->cut];
	int to = s->rank_of_stage[flow->backward ? flow->cut : flow->cut + 1];
	char reached[32], said[32];

	if (flow->sends || flow->reached_bytes_s <= 0 || flow->reached_bytes_s >= ENOUGH * flow->bytes_s ||
	    may_be_slow(s, from, to))
		return;
	warn("the link %s > %s carries %s while all links of the plan are busy, %.0f %% of the %s that the profile "
	     "says: it shares something with others; nodes[].nic tells the planner what",
	     cluster_node(&s->job.cluster, from)->name, cluster_node(&s->job.cluster, to)->name,
	     unit_write(flow->reached_bytes_s, UNIT_BYTES_S, reached, sizeof(reached)),
	     100 * flow->reached_bytes_s / flow->bytes_s, unit_write(flow->bytes_s, UNIT_BYTES_S, said, sizeof(said)));
}

static int try_all(struct session *s, void *arg)
{
	struct flow flow[FLOWS], of[FLOWS];
	int count = 0;

	(void)arg;
	memset(flow, 0, sizeof(flow));
	for (int cut = 0; cut + 1 < s->plan.stages; cut++) {
		add(s, flow, &count, cut, false);
		add(s, flow, &count, cut, true);
	}
	if (flows_measure(s->comm, flow, count, SECONDS))
		return EXIT_RETRY;
	for (int rank = 0; rank < s->comm->size; rank++) {
		memcpy(of, flow, sizeof(of));
		if (comm_broadcast(s->comm, rank, of, sizeof(of)))
			return EXIT_RETRY;
		for (int i = 0; i < FLOWS && s->comm->rank == 0; i++)
			judge(s, &of[i]);
	}
	return 0;
}

int setup_flows(struct session *s)
{
	bool wanted = s->profile && s->plan.stages > 1;
	int code;

	if (comm_broadcast(s->comm, 0, &wanted, sizeof(wanted)))
		return EXIT_RETRY;
	if (!wanted)
		return 0;
	code = wire_aside(s, try_all, NULL);
	memory_forget(s);
	return code;
}
