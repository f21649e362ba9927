/*
 * profile_write.c - profile.json: a line a block of numbers, each with where they come from;
 * what is not known is null, so that every key can be asked for.
 */
#include "profiler/profiler.h"

static void add_key(struct text *text, const char *key, const char *value)
{
	text_add(text, "\"%s\":", key);
	json_add_text(text, value);
}

/* A number above 0, or null. */
static void add_positive(struct text *text, const char *key, double value)
{
	if (value > 0)
		text_add(text, "\"%s\":%.9g", key, value);
	else
		text_add(text, "\"%s\":null", key);
}

static const char *flag(bool value)
{
	return value ? "true" : "false";
}

static void add_head(struct text *text, const struct profile_key *key)
{
	char digest[33];

	add_key(text, "build", key->build_text);
	text_add(text, ",\"build_digest\":\"%s\",\n ", digest_write(key->build, digest));
	text_add(text, "\"model_digest\":\"%s\",\"lora\":{\"rank\":%d,",
		 digest_write(key->model, digest), key->lora_rank);
	add_key(text, "targets", key->lora_targets);
	text_add(text, "},");
	add_key(text, "precision", key->precision);
	text_add(text, ",");
	add_key(text, "kernels", key->kernels);
	text_add(text, ",");
	add_key(text, "recompute", key->recompute);
	text_add(
	    text,
	    ",\n \"emulate\":{\"links\":%s,\"compute\":%s,\"slowdown\":%.17g},"
	    "\"sequence\":%d,\n",
	    flag(key->emulate_links), flag(key->emulate_compute), key->slowdown, key->tokens);
}

static void add_hardware(struct text *text, const struct hardware *h)
{
	text_add(text, "   \"hardware\":");
	if (!h->cpu[0]) {
		text_add(text, "null,\n");
		return;
	}
	text_add(text, "{\"source\":\"measured\",");
	add_key(text, "cpu", h->cpu);
	text_add(text, ",");
	add_key(text, "isa", h->isa);
	text_add(text, ",");
	add_key(text, "host", h->host);
	text_add(text, ",\"cores\":%d,\"sockets\":%d,\"numa_nodes\":%d,", h->cores, h->sockets,
		 h->numa_nodes);
	add_positive(text, "quota_cpus", h->quota_cpus);
	text_add(text, ",\"cache_bytes\":[%.0f,%.0f,%.0f],\"memory_bytes\":%.0f,"
		 "\"memory_free_bytes\":%.0f,", h->cache_bytes[0], h->cache_bytes[1],
		 h->cache_bytes[2], h->memory_bytes, h->memory_free_bytes);
	add_key(text, "gpus", h->gpus);
	text_add(text, "},\n");
}

static void add_fit(struct text *text, const char *key, const struct fit *fit)
{
	text_add(text,
		 "   \"%s\":{\"source\":\"%s\",\"c0\":%.9g,\"c1\":%.9g,\"c2\":%.9g,"
		 "\"error\":%.4g,\"noisy\":%s},\n",
		 key, origin_name(fit->origin), fit->c0, fit->c1, fit->c2, fit->error,
		 flag(fit->noisy));
}

static void add_node(struct text *text, const struct node_profile *node)
{
	text_add(text, "  {");
	add_key(text, "node", node->name);
	text_add(text, ",\n");
	add_hardware(text, &node->hardware);
	text_add(text, "   \"threads\":");
	if (node->threads > 0)
		text_add(text, "%d,", node->threads);
	else
		text_add(text, "null,");
	text_add(text, "\"held\":{\"source\":\"declared\",");
	add_positive(text, "flops", node->held_flops);
	text_add(text, "},\n");
	add_fit(text, "block_forward", &node->block_forward);
	add_fit(text, "block_backward", &node->block_backward);
	add_fit(text, "embedding_forward", &node->embedding_forward);
	add_fit(text, "embedding_backward", &node->embedding_backward);
	add_fit(text, "head_forward", &node->head_forward);
	add_fit(text, "head_backward", &node->head_backward);
	text_add(text, "   \"kernels\":{\"source\":\"measured\",");
	add_positive(text, "matmul_flops", node->matmul_flops);
	text_add(text, ",");
	add_positive(text, "update_s", node->update_s);
	text_add(text, "},\n   \"process\":{\"source\":\"measured\",");
	add_positive(text, "bytes", node->process_bytes);
	text_add(text, ",");
	add_positive(text, "limit_bytes", node->limit_bytes);
	text_add(text, "}}");
}

static void add_held(struct text *text, const struct link_profile *link)
{
	text_add(text, "\"held\":");
	if (!link->held) {
		text_add(text, "null}");
		return;
	}
	text_add(text, "{\"source\":\"declared\",\"latency_s\":%.17g,", link->held_latency_s);
	if (link->held_bytes_s > 0)
		text_add(text, "\"bandwidth_bytes_s\":%.17g}}", link->held_bytes_s);
	else
		text_add(text, "\"bandwidth_bytes_s\":null}}");
}

static void add_link(struct text *text, const struct profile *profile, int from, int to)
{
	const struct link_profile *link = profile_link(profile, from, to);

	text_add(text, "  {");
	add_key(text, "from", profile->node[from].name);
	text_add(text, ",");
	add_key(text, "to", profile->node[to].name);
	text_add(text, ",\"source\":\"%s\",\"latency_s\":%.9g,", origin_name(link->origin),
		 link->latency_s);
	add_positive(text, "bandwidth_bytes_s", link->bandwidth_bytes_s);
	text_add(text, ",");
	add_positive(text, "both_bytes_s", link->both_bytes_s);
	text_add(text, ",");
	add_positive(text, "disjoint_bytes_s", link->disjoint_bytes_s);
	text_add(text, ",\"bytes\":%.0f,\"error\":%.4g,\"noisy\":%s,\n   ", link->bytes,
		 link->error, flag(link->noisy));
	add_held(text, link);
}

void profile_seal(struct profile *profile)
{
	struct text text = {0};

	profile_write(profile, &text);
	profile->digest = digest_of(text.data, text.bytes);
	text_release(&text);
}

void profile_write(const struct profile *profile, struct text *text)
{
	const char *comma = "";

	text_add(text, "{\"version\":1,");
	add_head(text, &profile->key);
	text_add(text, " \"nodes\":[\n");
	for (int i = 0; i < profile->nodes; i++) {
		text_add(text, "%s", i > 0 ? ",\n" : "");
		add_node(text, &profile->node[i]);
	}
	text_add(text, "],\n \"links\":[\n");
	for (int i = 0; i < profile->nodes * profile->nodes; i++) {
		if (i / profile->nodes == i % profile->nodes)
			continue;
		text_add(text, "%s", comma);
		add_link(text, profile, i / profile->nodes, i % profile->nodes);
		comma = ",\n";
	}
	text_add(text, "]}\n");
}
