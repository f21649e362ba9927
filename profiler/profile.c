/*
 * profile.c - what a cluster measured, in memory: nodes and ordered pairs of them, and what all
 * of it is of.
 */
#include "profiler/profiler.h"

#include <stdlib.h>
#include <string.h>

#define CLEARLY 0.9 /* of the rate alone: below it, both directions share something */

struct profile *profile_open(int nodes)
{
	struct profile *profile = xzalloc(1, sizeof *profile);

	profile->nodes = nodes;
	profile->node = xzalloc((size_t)nodes, sizeof *profile->node);
	profile->link = xzalloc((size_t)nodes * (size_t)nodes, sizeof *profile->link);
	profile->key.slowdown = 1;
	return profile;
}

void profile_free(struct profile *profile)
{
	if (!profile)
		return;
	free(profile->node);
	free(profile->link);
	free(profile);
}

struct link_profile *profile_link(const struct profile *profile, int from, int to)
{
	return &profile->link[from * profile->nodes + to];
}

double link_profile_rate(const struct link_profile *link)
{
	if (link->both_bytes_s > 0 && link->both_bytes_s < CLEARLY * link->bandwidth_bytes_s)
		return link->both_bytes_s;
	return link->bandwidth_bytes_s;
}

/* Not the host's name, which a container changes at every start, nor memory, which is looked at
 * anew. */
static void add_node(struct text *text, const struct node_profile *node)
{
	const struct hardware *h = &node->hardware;

	text_add(text, "node %s|%s|%s|%d|%d|%d|%.9g|%.9g|%.9g|%.9g|%d|%.9g\n", node->name,
		 h->cpu, h->isa, h->cores, h->sockets, h->numa_nodes, h->quota_cpus,
		 h->cache_bytes[0], h->cache_bytes[1], h->cache_bytes[2], node->threads,
		 node->held_flops);
}

struct digest profile_identity(const struct profile *profile)
{
	const struct profile_key *key = &profile->key;
	struct text text = {0};
	char build[33], model[33];
	struct digest digest;

	text_add(&text, "profile 3|%s|%s|%d|%s|%s|%s|%s|%d|%d|%.17g|%d\n",
		 digest_write(key->build, build), digest_write(key->model, model),
		 key->lora_rank, key->lora_targets, key->precision, key->kernels,
		 key->recompute, key->emulate_links, key->emulate_compute, key->slowdown,
		 key->tokens);
	for (int i = 0; i < profile->nodes; i++)
		add_node(&text, &profile->node[i]);
	for (int i = 0; i < profile->nodes * profile->nodes; i++)
		text_add(&text, "link %d|%d|%.17g|%.17g\n", i, profile->link[i].held,
			 profile->link[i].held_bytes_s, profile->link[i].held_latency_s);
	digest = digest_of(text.data, text.bytes);
	text_release(&text);
	return digest;
}
