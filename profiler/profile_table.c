/*
 * profile_table.c - a profile for people: a line a node, a line a direction of a link.
 */
#include "profiler/profiler.h"

#include <string.h>

static int widest(const struct profile *profile, int least)
{
	for (int i = 0; i < profile->nodes; i++)
		if ((int)strlen(profile->node[i].name) > least)
			least = (int)strlen(profile->node[i].name);
	return least;
}

static void add_seconds(struct text *text, double s)
{
	char buffer[32];

	text_add(text, "  %10s",
		 s > 0 ? unit_write(s, UNIT_SECONDS, buffer, sizeof buffer) : "-");
}

static double larger(double a, double b)
{
	return a > b ? a : b;
}

/* Whether a node's embedding was measured; where compute is paced it is not, since it has no
 * FLOPs to be paced by. */
static bool has_embedding(const struct profile *profile, int T)
{
	for (int i = 0; i < profile->nodes; i++)
		if (fit_at(&profile->node[i].embedding_forward, T, T) > 0)
			return true;
	return false;
}

static void add_node(struct text *text, const struct node_profile *node, int width, int T,
		     bool embedding)
{
	const struct fit *fits[] = {&node->block_forward, &node->block_backward,
				    &node->head_forward};
	double error = 0;
	bool noisy = false;
	char rate[32];

	text_add(text, "%-*s  %7d  %12s", width, node->name, node->threads,
		 unit_write(node->matmul_flops, UNIT_FLOPS, rate, sizeof rate));
	for (size_t i = 0; i < sizeof fits / sizeof *fits; i++) {
		add_seconds(text, fit_at(fits[i], T, T));
		error = larger(error, fits[i]->error);
		noisy = noisy || fits[i]->noisy;
	}
	if (embedding)
		add_seconds(text, fit_at(&node->embedding_forward, T, T));
	add_seconds(text, node->update_s);
	text_add(text, "  %6.1f%%%s\n", 100 * error, noisy ? "  noisy" : "");
}

static void add_rate(struct text *text, double bytes_s)
{
	char buffer[32];

	text_add(text, "  %12s",
		 bytes_s > 0 ? unit_write(bytes_s, UNIT_BYTES_S, buffer, sizeof buffer) : "-");
}

static void add_link(struct text *text, const struct profile *profile, int from, int to,
		     int width)
{
	const struct link_profile *link = profile_link(profile, from, to);
	char latency[32];

	text_add(text, "%*s > %-*s  %10s", width, profile->node[from].name, width,
		 profile->node[to].name,
		 unit_write(link->latency_s, UNIT_SECONDS, latency, sizeof latency));
	add_rate(text, link->bandwidth_bytes_s);
	add_rate(text, link->both_bytes_s);
	add_rate(text, link->disjoint_bytes_s);
	text_add(text, "  %6.1f%%%s\n", 100 * link->error, link->noisy ? "  noisy" : "");
}

void profile_print(const struct profile *profile, int T, struct text *text)
{
	int width = widest(profile, (int)strlen("node"));
	bool embedding = has_embedding(profile, T);

	text_add(
	    text,
	    "matmul: a large product in %s; update: the optimizer, of a block's adapters; "
	    "error: largest "
	    "deviation of a sample from the fit\n",
	    profile->key.precision);
	text_add(text, "%-*s  %7s  %12s  %10s  %10s  %10s%s  %10s  %7s\n", width, "node",
		 "threads", "matmul", "block fwd", "block bwd", "head",
		 embedding ? "   embedding" : "", "update", "error");
	for (int i = 0; i < profile->nodes; i++)
		add_node(text, &profile->node[i], width, T, embedding);
	if (profile->nodes < 2)
		return;
	text_add(text, "%-*s  %10s  %12s  %12s  %12s  %7s\n", 2 * width + 3, "link", "latency",
		 "alone", "both ways", "all pairs", "error");
	for (int i = 0; i < profile->nodes * profile->nodes; i++)
		if (i / profile->nodes != i % profile->nodes)
			add_link(text, profile, i / profile->nodes, i % profile->nodes, width);
}
