/*
 * wanted.c - what a profile must be of to hold for a job: the build, the model's shape, what nodes and links are held
 * to, and, where ranks have told, their hardware and threads.
 */
#include <stdlib.h>
#include <string.h>

#include "launch/session.h"

/* In the order of the enums of launch.h. */
static const char *const precisions[] = {"fp32", "bf16"};
static const char *const kernels[] = {"auto", "reference", "openblas", "onednn"};

/* Ranks of single modules are a part of what was measured: as a digest, for they may be long. */
static void add_patterns(struct profile_key *key, const struct lora *lora)
{
	size_t bytes = strlen(key->lora_targets);
	struct arena arena = {0};
	const char *patterns = lora_patterns(lora, &arena);
	char digest[33];

	if (patterns[0])
		snprintf(key->lora_targets + bytes, sizeof(key->lora_targets) - bytes, " (%s)",
			 digest_write(digest_of(patterns, strlen(patterns)), digest));
	arena_release(&arena);
}

static int fill_key(struct profile_key *key, const struct job *job, const struct model_config *model,
		    const struct lora *lora, int tokens)
{
	struct text text = {0};

	if (digest_file("/proc/self/exe", &key->build))
		return -1;
	build_write(&text);
	snprintf(key->build_text, sizeof(key->build_text), "%s", text.data);
	text.bytes = 0;
	for (int i = 0; i < lora->modules; i++)
		text_add(&text, "%s%s", i > 0 ? " " : "", lora->module[i]);
	snprintf(key->lora_targets, sizeof(key->lora_targets), "%s", lora->modules > 0 ? text.data : "");
	add_patterns(key, lora);
	text_release(&text);
	key->model = model->digest;
	key->lora_rank = lora->rank;
	key->tokens = tokens;
	snprintf(key->precision, sizeof(key->precision), "%s", precisions[job->train.precision]);
	snprintf(key->recompute, sizeof(key->recompute), "%s", recompute_name((enum recompute)job->train.recompute));
	snprintf(key->kernels, sizeof(key->kernels), "%s%s", kernels[job->train.kernels],
		 job->train.weights == WEIGHTS_PLAIN ? " plain" : "");
	key->emulate_links = job->emulate.links;
	key->emulate_compute = job->emulate.compute;
	key->slowdown = job->emulate.links || job->emulate.compute ? job->emulate.slowdown : 1;
	return 0;
}

static void fill_node(struct node_profile *node, const struct job *job, int i, const struct rank_facts *facts)
{
	const struct node *declared = cluster_node(&job->cluster, i);

	snprintf(node->name, sizeof(node->name), "%s", declared->name);
	node->held_flops = job->emulate.compute ? declared->compute_flops : 0;
	if (!facts) {
		node->threads = (int)declared->cores;
		return;
	}
	node->hardware = facts[i].hardware;
	node->threads = facts[i].threads;
	node->process_bytes = facts[i].overhead_bytes;
	node->limit_bytes = facts[i].memory_limit_bytes;
}

static void fill_link(struct link_profile *to, const struct job *job, int from, int at)
{
	struct link link = cluster_link(&job->cluster, from, at);

	to->held = job->emulate.links && from != at;
	if (!to->held)
		return;
	to->held_bytes_s = link.bandwidth_bytes_s;	/* of a trace: its mean */
	to->held_latency_s = link.latency_s;
}

struct profile *profile_wanted(const struct job *job, const struct model_config *model, const struct lora *lora,
			       int tokens, const struct rank_facts *facts)
{
	int nodes = job->cluster.nodes.count;
	struct profile *profile = profile_open(nodes);

	if (fill_key(&profile->key, job, model, lora, tokens)) {
		profile_free(profile);
		return NULL;
	}
	for (int i = 0; i < nodes; i++) {
		fill_node(&profile->node[i], job, i, facts);
		for (int k = 0; k < nodes; k++)
			fill_link(profile_link(profile, i, k), job, i, k);
	}
	return profile;
}
