/*
 * profile_read.c - profile.json back into memory. Every error of the file is said, with the
 * place in the document, what stands there and what was expected.
 */
#include "profiler/profiler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS_MOST 1e6		/* a fit's coefficient above is no measurement */

struct reader {
	const char *name;		/* of the file */
	char where[160];		/* "nodes[1].block_forward." */
	struct profile *profile;
	int errors;
};

static void wrong(struct reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void wrong(struct reader *r, const char *fmt, ...)
{
	char text[384];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	report(EXIT_DATA, "'%s': %s%s", r->name, r->where, text);
	r->errors++;
}

/* What stands there, for messages. */
static const char *shown(const struct json *value, char *buffer, size_t bytes)
{
	switch (json_kind(value)) {
	case JSON_NONE: return "missing";
	case JSON_NIL: return "null";
	case JSON_FLAG: return json_as_flag(value, false) ? "true" : "false";
	case JSON_LIST: return "a list";
	case JSON_MAP: return "a map";
	case JSON_TEXT:
		snprintf(buffer, bytes, "\"%.60s\"", json_as_text(value, ""));
		return buffer;
	case JSON_WHOLE:
	case JSON_NUMBER:
		snprintf(buffer, bytes, "%.9g", json_as_number(value, 0));
		return buffer;
	}
	return "";
}

static bool is_number(const struct json *value)
{
	return json_kind(value) == JSON_WHOLE || json_kind(value) == JSON_NUMBER;
}

/* A number of at least 0. */
static void take(struct reader *r, const struct json *map, const char *key, double *number)
{
	const struct json *value = json_find(map, key);
	char buffer[80];

	*number = json_as_number(value, -1);
	if (is_number(value) && *number >= 0 && isfinite(*number))
		return;
	wrong(r, "%s: %s, not a number of at least 0", key,
	      shown(value, buffer, sizeof buffer));
	*number = 0;
}

/* The same, or null, which is 0: not known. */
static void take_maybe(struct reader *r, const struct json *map, const char *key,
		       double *number)
{
	*number = 0;
	if (json_kind(json_find(map, key)) != JSON_NIL)
		take(r, map, key, number);
}

static void take_whole(struct reader *r, const struct json *map, const char *key, int least,
		       int *number)
{
	const struct json *value = json_find(map, key);
	long long found = json_as_integer(value, -1);
	char buffer[80];

	*number = least;
	if (json_kind(value) == JSON_WHOLE && found >= least && found <= 1 << 30)
		*number = (int)found;
	else
		wrong(r, "%s: %s, not a whole number of at least %d", key,
		      shown(value, buffer, sizeof buffer), least);
}

static void take_flag(struct reader *r, const struct json *map, const char *key, bool *value)
{
	const struct json *found = json_find(map, key);
	char buffer[80];

	*value = json_as_flag(found, false);
	if (json_kind(found) != JSON_FLAG)
		wrong(r, "%s: %s, not true or false", key, shown(found, buffer, sizeof buffer));
}

static void take_text(struct reader *r, const struct json *map, const char *key, char *to,
		      size_t room)
{
	const struct json *value = json_find(map, key);
	const char *text = json_as_text(value, NULL);
	char buffer[80];

	to[0] = 0;
	if (!text)
		wrong(r, "%s: %s, not a text", key, shown(value, buffer, sizeof buffer));
	else if (strlen(text) >= room)
		wrong(r, "%s: \"%.40s...\", above %zu bytes", key, text, room - 1);
	else
		snprintf(to, room, "%s", text);
}

static void take_origin(struct reader *r, const struct json *map, enum origin *origin)
{
	const char *word = json_as_text(json_find(map, "source"), NULL);
	char buffer[80];

	for (*origin = ORIGIN_GUESSED; *origin <= ORIGIN_MEASURED; (*origin)++)
		if (word && !strcmp(word, origin_name(*origin)))
			return;
	*origin = ORIGIN_GUESSED;
	wrong(r, "source: %s, not \"measured\", \"declared\" or \"guessed\"",
	      shown(json_find(map, "source"), buffer, sizeof buffer));
}

static void take_digest(struct reader *r, const struct json *map, const char *key,
			struct digest *digest)
{
	const char *text = json_as_text(json_find(map, key), "");
	char half[17] = "", buffer[80];

	if (strlen(text) != 32 || strspn(text, "0123456789abcdef") != 32) {
		wrong(r, "%s: %s, not a digest of 32 hex digits", key,
		      shown(json_find(map, key), buffer, sizeof buffer));
		return;
	}
	memcpy(half, text, 16);
	digest->high = strtoull(half, NULL, 16);
	digest->low = strtoull(text + 16, NULL, 16);
}

/* Goes into a map of the current one, which r->where then names; null where there is none. */
static const struct json *enter(struct reader *r, const struct json *map, const char *key)
{
	const struct json *inner = json_find(map, key);
	size_t at = strlen(r->where);
	char buffer[80];

	if (json_kind(inner) != JSON_MAP) {
		wrong(r, "%s: %s, not a map", key, shown(inner, buffer, sizeof buffer));
		return NULL;
	}
	snprintf(r->where + at, sizeof r->where - at, "%s.", key);
	return inner;
}

static void leave(struct reader *r, size_t length)
{
	r->where[length] = 0;
}

static void read_fit(struct reader *r, const struct json *node, const char *key,
		     struct fit *fit)
{
	size_t at = strlen(r->where);
	const struct json *map = enter(r, node, key);

	if (!map)
		return;
	take_origin(r, map, &fit->origin);
	take(r, map, "c0", &fit->c0);
	take(r, map, "c1", &fit->c1);
	take(r, map, "c2", &fit->c2);
	take(r, map, "error", &fit->error);
	take_flag(r, map, "noisy", &fit->noisy);
	if (fmax(fit->c0, fmax(fit->c1, fit->c2)) > SECONDS_MOST)
		wrong(r, "c0, c1, c2: above %g s", SECONDS_MOST);
	if (!strncmp(key, "block_", 6) && fit->origin != ORIGIN_GUESSED &&
	    fit->c0 + fit->c1 + fit->c2 <= 0)
		wrong(r, "c0, c1, c2: all 0, but a block takes time");
	leave(r, at);
}

static void read_hardware(struct reader *r, const struct json *node, struct hardware *h)
{
	static const char *const level[] = {"cache_bytes[0]", "cache_bytes[1]",
					    "cache_bytes[2]"};
	size_t at = strlen(r->where);
	const struct json *map, *caches;

	if (json_kind(json_find(node, "hardware")) == JSON_NIL ||
	    !(map = enter(r, node, "hardware")))
		return;
	take_text(r, map, "cpu", h->cpu, sizeof h->cpu);
	take_text(r, map, "isa", h->isa, sizeof h->isa);
	take_text(r, map, "host", h->host, sizeof h->host);
	take_text(r, map, "gpus", h->gpus, sizeof h->gpus);
	take_whole(r, map, "cores", 1, &h->cores);
	take_whole(r, map, "sockets", 0, &h->sockets);
	take_whole(r, map, "numa_nodes", 0, &h->numa_nodes);
	take_maybe(r, map, "quota_cpus", &h->quota_cpus);
	take(r, map, "memory_bytes", &h->memory_bytes);
	take(r, map, "memory_free_bytes", &h->memory_free_bytes);
	caches = json_find(map, "cache_bytes");
	for (size_t i = 0; i < 3; i++) {
		h->cache_bytes[i] = json_as_number(json_at(caches, i), -1);
		if (h->cache_bytes[i] < 0)
			wrong(r, "%s: not a number of at least 0", level[i]);
	}
	leave(r, at);
}

static void read_rates(struct reader *r, const struct json *map, struct node_profile *node)
{
	size_t at = strlen(r->where);
	const struct json *inner = enter(r, map, "held");

	if (inner)
		take_maybe(r, inner, "flops", &node->held_flops);
	leave(r, at);
	inner = enter(r, map, "kernels");
	if (inner) {
		take_maybe(r, inner, "matmul_flops", &node->matmul_flops);
		take_maybe(r, inner, "update_s", &node->update_s);
	}
	leave(r, at);
	inner = enter(r, map, "process");
	if (inner) {
		take_maybe(r, inner, "bytes", &node->process_bytes);
		take_maybe(r, inner, "limit_bytes", &node->limit_bytes);
	}
	leave(r, at);
}

static int find_node(const struct profile *profile, const char *name)
{
	for (int i = 0; name && i < profile->nodes; i++)
		if (!strcmp(profile->node[i].name, name))
			return i;
	return -1;
}

static void read_node(struct reader *r, const struct json *map, struct node_profile *node)
{
	struct { const char *key; struct fit *fit; } fits[] = {
		{"block_forward", &node->block_forward},
		{"block_backward", &node->block_backward},
		{"embedding_forward", &node->embedding_forward},
		{"embedding_backward", &node->embedding_backward},
		{"head_forward", &node->head_forward},
		{"head_backward", &node->head_backward},
	};
	char name[sizeof node->name];

	take_text(r, map, "node", name, sizeof name);
	if (find_node(r->profile, name) >= 0)
		wrong(r, "node: \"%s\" stands there twice", name);
	memcpy(node->name, name, sizeof name);
	read_hardware(r, map, &node->hardware);
	if (json_kind(json_find(map, "threads")) != JSON_NIL)
		take_whole(r, map, "threads", 1, &node->threads);
	for (size_t i = 0; i < sizeof fits / sizeof *fits; i++)
		read_fit(r, map, fits[i].key, fits[i].fit);
	read_rates(r, map, node);
}

static void read_held(struct reader *r, const struct json *map, struct link_profile *link)
{
	size_t at = strlen(r->where);
	const struct json *inner;

	if (json_kind(json_find(map, "held")) == JSON_NIL || !(inner = enter(r, map, "held")))
		return;
	link->held = true;
	take(r, inner, "latency_s", &link->held_latency_s);
	take_maybe(r, inner, "bandwidth_bytes_s", &link->held_bytes_s);
	leave(r, at);
}

/* Which link an entry is of; null where that is wrong. */
static struct link_profile *link_of(struct reader *r, const struct json *map, bool *seen)
{
	static const char *const keys[] = {"from", "to"};
	int end[2], at;
	char buffer[80];

	for (int i = 0; i < 2; i++) {
		end[i] = find_node(r->profile, json_as_text(json_find(map, keys[i]), NULL));
		if (end[i] < 0)
			wrong(r, "%s: %s, not a node of the file", keys[i],
			      shown(json_find(map, keys[i]), buffer, sizeof buffer));
	}
	if (end[0] < 0 || end[1] < 0)
		return NULL;
	at = end[0] * r->profile->nodes + end[1];
	if (end[0] == end[1] || seen[at]) {
		wrong(r, "%s",
		      end[0] == end[1] ? "to: the same node as from"
				       : "to: this link stands there twice");
		return NULL;
	}
	seen[at] = true;
	return &r->profile->link[at];
}

static void read_link(struct reader *r, const struct json *map, bool *seen)
{
	struct link_profile *link = link_of(r, map, seen);

	if (!link)
		return;
	take_origin(r, map, &link->origin);
	take(r, map, "latency_s", &link->latency_s);
	take_maybe(r, map, "bandwidth_bytes_s", &link->bandwidth_bytes_s);
	take_maybe(r, map, "both_bytes_s", &link->both_bytes_s);
	take_maybe(r, map, "disjoint_bytes_s", &link->disjoint_bytes_s);
	take(r, map, "bytes", &link->bytes);
	take(r, map, "error", &link->error);
	take_flag(r, map, "noisy", &link->noisy);
	read_held(r, map, link);
}

static void read_links(struct reader *r, const struct json *links)
{
	int nodes = r->profile->nodes;
	bool *seen = xzalloc((size_t)nodes * (size_t)nodes, sizeof *seen);

	for (size_t i = 0; i < json_size(links); i++) {
		snprintf(r->where, sizeof r->where, "links[%zu].", i);
		read_link(r, json_at(links, i), seen);
	}
	r->where[0] = 0;
	for (int i = 0; i < nodes * nodes && !r->errors; i++)
		if (i / nodes != i % nodes && !seen[i])
			wrong(r, "links: the one from \"%s\" to \"%s\" is missing",
			      r->profile->node[i / nodes].name,
			      r->profile->node[i % nodes].name);
	free(seen);
}

static void read_key(struct reader *r, const struct json *document, struct profile_key *key)
{
	const struct json *map;

	take_text(r, document, "build", key->build_text, sizeof key->build_text);
	take_digest(r, document, "build_digest", &key->build);
	take_digest(r, document, "model_digest", &key->model);
	take_text(r, document, "precision", key->precision, sizeof key->precision);
	take_text(r, document, "kernels", key->kernels, sizeof key->kernels);
	take_text(r, document, "recompute", key->recompute, sizeof key->recompute);
	take_whole(r, document, "sequence", 1, &key->tokens);
	if ((map = enter(r, document, "lora"))) {
		take_whole(r, map, "rank", 1, &key->lora_rank);
		take_text(r, map, "targets", key->lora_targets, sizeof key->lora_targets);
	}
	leave(r, 0);
	if ((map = enter(r, document, "emulate"))) {
		take_flag(r, map, "links", &key->emulate_links);
		take_flag(r, map, "compute", &key->emulate_compute);
		take(r, map, "slowdown", &key->slowdown);
	}
	leave(r, 0);
}

/* All of a document whose lists are lists. */
static void read_all(struct reader *r, const struct json *document)
{
	const struct json *nodes = json_find(document, "nodes");

	read_key(r, document, &r->profile->key);
	for (int i = 0; i < r->profile->nodes; i++) {
		snprintf(r->where, sizeof r->where, "nodes[%d].", i);
		read_node(r, json_at(nodes, (size_t)i), &r->profile->node[i]);
	}
	read_links(r, json_find(document, "links"));
}

enum { NODES_MOST = 4096 };

static struct profile *read_document(const struct json *document, const char *name)
{
	size_t nodes = json_size(json_find(document, "nodes"));
	struct reader r = {.name = name};
	char buffer[80];

	if (json_find(document, "stages") && !json_find(document, "nodes"))
		wrong(&r, "this is a plan: use --plan");
	else if (json_as_integer(json_find(document, "version"), 0) != 1)
		wrong(&r, "version: %s, not 1",
		      shown(json_find(document, "version"), buffer, sizeof buffer));
	else if (json_kind(json_find(document, "nodes")) != JSON_LIST || nodes < 1 ||
		 nodes > NODES_MOST)
		wrong(&r, "nodes: not a list of 1 to %d nodes", NODES_MOST);
	if (r.errors)
		return NULL;
	r.profile = profile_open((int)nodes);
	read_all(&r, document);
	if (!r.errors)
		return r.profile;
	profile_free(r.profile);
	return NULL;
}

struct profile *profile_parse(const char *data, size_t bytes, const char *name)
{
	struct json *document = json_parse(data, bytes, name);
	struct profile *profile = document ? read_document(document, name) : NULL;

	if (profile)
		profile_seal(profile);
	json_free(document);
	return profile;
}

struct profile *profile_read(const char *path)
{
	size_t bytes;
	char *data = file_read(path, &bytes);
	struct profile *profile = data ? profile_parse(data, bytes, path) : NULL;

	free(data);
	return profile;
}
