/*
 * plan_read.c - the decisions of a plan.json: nodes in order, their blocks, the micro-batch,
 * the schedule. What follows from them (in-flight counts, memory, predictions) is worked out
 * anew, so that a file may be edited by hand.
 */
#include "partition/internal.h"

#include <stdlib.h>
#include <string.h>

struct reader {
	const char *path;
	const struct problem *problem;
	struct plan *plan;
	int next;			/* the block that the next stage must start with */
	int errors;
};

static void wrong(struct reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void wrong(struct reader *r, const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	report(EXIT_CONFIG, "'%s': %s", r->path, text);
	r->errors++;
}

/* A word that is none of its choices, or no word at all (null). */
static void wrong_word(struct reader *r, const char *key, const char *word,
		       const char *const *words, int count)
{
	const char *near = word ? nearest_word(word, words, count) : NULL;
	struct text text = {0};

	for (int i = 0; i < count; i++)
		text_add(&text, "%s%s", i > 0 ? ", " : "", words[i]);
	if (!word)
		wrong(r, "%s: is missing; it must be one of %s", key, text.data);
	else
		wrong(r, "%s: \"%.32s\" is none of %s%s%s%s", key, word, text.data,
		      near ? " (did you mean \"" : "", near ? near : "", near ? "\"?)" : "");
	text_release(&text);
}

static int count_of(const char *const *names)
{
	int count = 0;

	while (names[count])
		count++;
	return count;
}

/* A whole number of a map; false after an error. */
static bool take_number(struct reader *r, const struct json *map, const char *where,
			const char *key, int least, int *number)
{
	const struct json *value = json_find(map, key);
	long long found = json_as_integer(value, least - 1LL);

	*number = (int)found;
	if (json_kind(value) == JSON_WHOLE && found >= least && found <= 1 << 30)
		return true;
	wrong(r,
	      json_kind(value) == JSON_NONE
		  ? "%s%s: is missing; it must be a whole number, at least %d"
		  : "%s%s: must be a whole number, at least %d",
	      where, key, least);
	return false;
}

static void read_node(struct reader *r, const struct json *stage, int s)
{
	const struct json *nodes = json_find(stage, "nodes");
	const struct cluster *cluster = r->problem->cluster;
	const char *name = json_as_text(json_at(nodes, 0), NULL), *near,
		   *names[PLAN_STAGES_MAX];
	int count =
		cluster->nodes.count < PLAN_STAGES_MAX ? cluster->nodes.count : PLAN_STAGES_MAX,
	    node;

	if (json_size(nodes) != 1 || !name) {
		wrong(r, "stages[%d].nodes: %smust be a list of one node", s,
		      json_kind(nodes) == JSON_NONE ? "is missing; it " : "");
		return;
	}
	node = cluster_find(cluster, name);
	for (int i = 0; i < count; i++)
		names[i] = cluster_node(cluster, i)->name;
	near = node < 0 ? nearest_word(name, names, count) : NULL;
	if (node < 0)
		wrong(r, "stages[%d].nodes: there is no node \"%.64s\"%s%s%s", s, name,
		      near ? " (did you mean \"" : "", near ? near : "", near ? "\"?)" : "");
	for (int before = 0; node >= 0 && before < s; before++)
		if (r->plan->stage[before].node == node)
			wrong(r, "stages[%d].nodes: \"%s\" has stage %d already", s, name,
			      before);
	r->plan->stage[s].node = node;
}

/* Blocks must follow on each other: neither a gap nor an overlap. */
static void read_blocks(struct reader *r, const struct json *stage, int s, int stages)
{
	char where[32];
	int first, last, all = r->problem->model->blocks;

	snprintf(where, sizeof where, "stages[%d].", s);
	if (!take_number(r, stage, where, "first_block", 0, &first) ||
	    !take_number(r, stage, where, "last_block", -1, &last))
		return;
	r->plan->stage[s].first_block = r->next;
	if (first == 0 && last == -1 && s == stages - 1 && s > 0)	/* the head alone */
		return;
	if (first > r->next)
		wrong(r, "stages[%d] starts with block %d: block %d is on no stage", s, first,
		      r->next);
	else if (first < r->next)
		wrong(r, "stages[%d] starts with block %d, which stage %d has already", s,
		      first, s - 1);
	if (last < first)
		wrong(r, "stages[%d] ends with block %d, before its first, %d", s, last, first);
	else if (last >= all)
		wrong(r, "stages[%d] ends with block %d: the model's last is %d", s, last,
		      all - 1);
	else
		r->plan->stage[s].blocks = last - r->next + 1;
	r->next = last + 1;
}

/* The codec of a direction of a cut; the file's own where the link is not to choose. */
static void read_codec(struct reader *r, const struct json *stage, int s, const char *key,
		       bool backward, int *codec)
{
	const char *name = json_as_text(json_find(json_find(stage, key), "codec"), NULL),
		   *words[CODEC_KINDS];
	char where[64];

	for (int kind = 0; name && kind < CODEC_KINDS; kind++)
		if (!strcmp(name, codec_of((enum codec_kind)kind, backward)->name)) {
			*codec = kind;
			return;
		}
	for (int kind = 0; kind < CODEC_KINDS; kind++)
		words[kind] = codec_of((enum codec_kind)kind, backward)->name;
	snprintf(where, sizeof where, "stages[%d].%s.codec", s, key);
	if (name)
		wrong_word(r, where, name, words, CODEC_KINDS);
}

static void read_stages(struct reader *r, const struct json *stages)
{
	int most = r->problem->cluster->nodes.count < PLAN_STAGES_MAX
		       ? r->problem->cluster->nodes.count
		       : PLAN_STAGES_MAX;
	size_t count = json_size(stages);

	if (json_kind(stages) != JSON_LIST || count < 1 || count > (size_t)most) {
		wrong(r, "stages: %smust be a list of 1 to %d stages",
		      json_kind(stages) == JSON_NONE ? "is missing; it " : "", most);
		return;
	}
	r->plan->stages = (int)count;
	for (int s = 0; s < r->plan->stages; s++) {
		read_node(r, json_at(stages, (size_t)s), s);
		read_blocks(r, json_at(stages, (size_t)s), s, r->plan->stages);
		read_codec(r, json_at(stages, (size_t)s), s, "forward_link", false,
			   &r->plan->link[s].codec_forward);
		if (s > 0)
			read_codec(r, json_at(stages, (size_t)s), s, "backward_link", true,
				   &r->plan->link[s - 1].codec_backward);
	}
	if (!r->errors && r->next != r->problem->model->blocks)
		wrong(r, "the stages end with block %d: the model's last is %d", r->next - 1,
		      r->problem->model->blocks - 1);
}

/* The codec that a link has in the topology file, where it differs from the plan's; else
 * null. */
static const char *contradicted(const struct reader *r, int from, int to, bool backward,
				const struct json *link)
{
	const char *named = json_as_text(json_find(link, "codec"), NULL), *own;
	int codec = cluster_link(r->problem->cluster, from, to).codec;

	if (!named || codec == CODEC_AUTO)
		return NULL;
	own = codec_of((enum codec_kind)codec, backward)->name;
	return strcmp(named, own) ? own : NULL;
}

/* A link that does not leave its codec to the planner keeps its own: said once for each. */
static void warn_codecs(const struct reader *r, const struct json *stages)
{
	for (int s = 0; s + 1 < r->plan->stages; s++) {
		int up = r->plan->stage[s].node, down = r->plan->stage[s + 1].node;
		const struct json *forward =
		    json_find(json_at(stages, (size_t)s), "forward_link");
		const struct json *backward =
		    json_find(json_at(stages, (size_t)s + 1), "backward_link");
		const char *own = contradicted(r, up, down, false, forward);
		const struct json *link = own ? forward : backward;

		own = own ? own : contradicted(r, down, up, true, backward);
		if (own)
			warn(
			    "%s: the plan says codec %s for the link '%s > %s', the topology "
			    "file says %s, which counts "
			    "(codec: auto leaves it to the plan)",
			    r->path, json_as_text(json_find(link, "codec"), ""),
			    cluster_node(r->problem->cluster, up)->name,
			    cluster_node(r->problem->cluster, down)->name, own);
	}
}

static void read_words(struct reader *r, const struct json *document)
{
	const char *solver = json_as_text(json_find(document, "solver"), NULL);
	const char *schedule = json_as_text(json_find(document, "schedule"), NULL);
	const char *digest = json_as_text(json_find(document, "model_digest"), NULL);
	char own[33];
	int known = 0;

	snprintf(r->plan->solver, sizeof r->plan->solver, "%s", solver ? solver : "");
	snprintf(r->plan->schedule, sizeof r->plan->schedule, "%s", schedule ? schedule : "");
	if (!solver || !solver_find(solver))
		wrong_word(r, "solver", solver, solver_names(), count_of(solver_names()));
	for (int i = 0; schedule && schedule_names()[i]; i++)
		known += !strcmp(schedule, schedule_names()[i]);
	if (!known)
		wrong_word(r, "schedule", schedule, schedule_names(),
			   count_of(schedule_names()));
	if (!digest)
		wrong(r, "model_digest: is missing; this model's is \"%s\"",
		      digest_write(r->problem->model->digest, own));
	else if (strcmp(digest, digest_write(r->problem->model->digest, own)) != 0)
		wrong(r, "model_digest: \"%.40s\" is of another model (this one is \"%s\")",
		      digest, own);
}

static void read_size(struct reader *r, const struct json *document)
{
	int size;

	if (!take_number(r, document, "", "micro_batch", 1, &size))
		return;
	if (r->problem->batch % size)
		wrong(r, "micro_batch: %d does not divide train.batch %lld", size,
		      r->problem->batch);
	else if (r->problem->micro_batch && r->problem->micro_batch != size)
		wrong(r, "micro_batch: %d, but train.micro_batch is %lld", size,
		      r->problem->micro_batch);
	r->plan->micro_batch = size;
}

int plan_read(const char *path, const struct problem *problem, struct plan *plan)
{
	struct json *document = json_read(path);
	struct reader r = {.path = path, .problem = problem, .plan = plan};

	memset(plan, 0, sizeof *plan);
	if (!document)
		return -1;
	if (!json_find(document, "stages") && json_find(document, "links")) {
		wrong(&r, "this is a profile: use --profile");
		json_free(document);
		return -1;
	}
	if (json_as_integer(json_find(document, "version"), 0) != 1)
		wrong(&r, "version: %smust be 1",
		      json_find(document, "version") ? "" : "is missing; it ");
	if (problem->want->layers.count)
		wrong(&r,
		      "plan.layers of the topology file decides by hand: take it or this plan");
	read_words(&r, document);
	read_size(&r, document);
	read_stages(&r, json_find(document, "stages"));
	if (!r.errors)
		warn_codecs(&r, json_find(document, "stages"));
	json_free(document);
	return r.errors ? -1 : 0;
}
