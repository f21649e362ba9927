/*
 * profile_check.c - whether a profile is of this cluster, model, build and hardware: what
 * differs is named, all of it.
 */
#include "profiler/profiler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LINKS_SAID = 3 };

struct check {
	const char *path;
	int errors, links;
};

static void differs(struct check *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void differs(struct check *c, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	report(EXIT_CONFIG, "'%s': %s", c->path, text);
	c->errors++;
}

static bool equal(double a, double b)
{
	return fabs(a - b) <= 1e-6 * fmax(fabs(a), fabs(b));
}

static void check_words(struct check *c, const char *what, const char *then, const char *now)
{
	if (strcmp(then, now) != 0)
		differs(c, "measured with %s \"%s\", now it is \"%s\"", what, then, now);
}

static const char *held(bool emulated)
{
	return emulated ? "held to declared numbers" : "as they are";
}

static void check_key(struct check *c, const struct profile_key *then,
		      const struct profile_key *now)
{
	char a[33], b[33];

	if (!digest_equal(then->build, now->build))
		differs(c, "measured by another build: \"%s\" (%s), this is \"%s\" (%s)%s",
			then->build_text, digest_write(then->build, a), now->build_text,
			digest_write(now->build, b),
			strcmp(then->build_text, now->build_text) ? ""
								  : " (the sources differ)");
	if (!digest_equal(then->model, now->model))
		differs(
		    c,
		    "measured with another model: config.json had the digest %s, now it is %s",
		    digest_write(then->model, a), digest_write(now->model, b));
	if (then->lora_rank != now->lora_rank)
		differs(c, "measured with lora.rank %d, now it is %d", then->lora_rank,
			now->lora_rank);
	check_words(c, "lora.targets", then->lora_targets, now->lora_targets);
	check_words(c, "train.precision", then->precision, now->precision);
	check_words(c, "train.kernels", then->kernels, now->kernels);
	check_words(c, "train.recompute", then->recompute, now->recompute);
	if (then->emulate_links != now->emulate_links)
		differs(c, "measured with links %s, now they are %s", held(then->emulate_links),
			held(now->emulate_links));
	if (then->emulate_compute != now->emulate_compute)
		differs(c, "measured with nodes %s, now they are %s",
			held(then->emulate_compute), held(now->emulate_compute));
	if (!equal(then->slowdown, now->slowdown))
		differs(c, "measured with emulate.slowdown %g, now it is %g", then->slowdown,
			now->slowdown);
	/* Fits hold for other lengths, if less well: a warning, since a plan may be made
	 * without the data that know theirs. */
	if (then->tokens != now->tokens && then->tokens > 0 && now->tokens > 0)
		warn(
		    "'%s': measured with sequences of %d tokens: its times are extrapolated to "
		    "%d",
		    c->path, then->tokens, now->tokens);
}

static void check_hardware(struct check *c, const char *name, const struct hardware *then,
			   const struct hardware *now)
{
	if (!now->cpu[0] || !then->cpu[0])
		return;
	if (strcmp(then->cpu, now->cpu) || strcmp(then->isa, now->isa))
		differs(c, "node \"%s\" was measured on %s (%s), now it is %s (%s)", name,
			then->cpu, then->isa, now->cpu, now->isa);
	if (then->cores != now->cores)
		differs(c, "node \"%s\" was measured with %d usable cores, now there are %d",
			name, then->cores, now->cores);
	if (!equal(then->quota_cpus, now->quota_cpus))
		differs(
		    c,
		    "node \"%s\" was measured with a quota of %g cores, now it is %g (0: none)",
		    name, then->quota_cpus, now->quota_cpus);
}

static void check_node(struct check *c, const struct node_profile *then,
		       const struct node_profile *now)
{
	char a[32], b[32];

	check_hardware(c, now->name, &then->hardware, &now->hardware);
	if (then->threads > 0 && now->threads > 0 && then->threads != now->threads)
		differs(c, "node \"%s\" was measured with %d threads, now it has %d", now->name,
			then->threads, now->threads);
	if (!equal(then->held_flops, now->held_flops))
		differs(c, "node \"%s\" was held to %s, now it declares %s", now->name,
			unit_write(then->held_flops, UNIT_FLOPS, a, sizeof a),
			unit_write(now->held_flops, UNIT_FLOPS, b, sizeof b));
}

/* "50 Mbit/s, 2 ms" */
static const char *held_text(const struct link_profile *link, char *buffer, size_t bytes)
{
	char rate[32], latency[32];

	snprintf(buffer, bytes, "%s, %s",
		 link->held_bytes_s > 0
		     ? unit_write(link->held_bytes_s, UNIT_BYTES_S, rate, sizeof rate)
		     : "unlimited",
		 unit_write(link->held_latency_s, UNIT_SECONDS, latency, sizeof latency));
	return buffer;
}

static void check_link(struct check *c, const struct profile *profile,
		       const struct profile *want, int from, int to)
{
	const struct link_profile *then = profile_link(profile, from, to),
				  *now = profile_link(want, from, to);
	char a[80], b[80];

	if (!then->held || !now->held || (equal(then->held_bytes_s, now->held_bytes_s) &&
					  equal(then->held_latency_s, now->held_latency_s)))
		return;
	if (c->links++ < LINKS_SAID)
		differs(c, "the link %s > %s was held to %s, now it declares %s",
			want->node[from].name, want->node[to].name,
			held_text(then, a, sizeof a), held_text(now, b, sizeof b));
}

/* Where each of want's nodes stands in the profile; null after errors. The caller frees. */
static int *places_of(struct check *c, const struct profile *profile,
		      const struct profile *want)
{
	int *place = xzalloc((size_t)want->nodes, sizeof *place);

	for (int i = 0; i < want->nodes; i++) {
		place[i] = -1;
		for (int k = 0; k < profile->nodes; k++)
			if (!strcmp(profile->node[k].name, want->node[i].name))
				place[i] = k;
		if (place[i] < 0)
			differs(c, "there is no node \"%s\" in it", want->node[i].name);
	}
	if (!c->errors)
		return place;
	free(place);
	return NULL;
}

static void reorder(struct profile *profile, int nodes, const int *place)
{
	struct profile *other = profile_open(nodes);

	for (int i = 0; i < nodes; i++) {
		other->node[i] = profile->node[place[i]];
		for (int k = 0; k < nodes; k++)
			*profile_link(other, i, k) = *profile_link(profile, place[i], place[k]);
	}
	free(profile->node);
	free(profile->link);
	profile->node = other->node;
	profile->link = other->link;
	profile->nodes = nodes;
	free(other);
}

static int advise(const struct check *c)
{
	return error(EXIT_CONFIG,
		     "'%s' does not hold here; measure again: edgepipe profile TOPOLOGY",
		     c->path);
}

int profile_check(struct profile *profile, const struct profile *want, const char *path)
{
	struct check c = {.path = path};
	int *place;

	check_key(&c, &profile->key, &want->key);
	place = places_of(&c, profile, want);
	if (!place)
		return advise(&c);
	reorder(profile, want->nodes, place);
	free(place);
	for (int i = 0; i < want->nodes; i++)
		check_node(&c, &profile->node[i], &want->node[i]);
	for (int i = 0; i < want->nodes * want->nodes; i++)
		check_link(&c, profile, want, i / want->nodes, i % want->nodes);
	if (c.links > LINKS_SAID)
		differs(&c, "and %d more links differ", c.links - LINKS_SAID);
	profile_seal(profile);
	return c.errors ? advise(&c) : 0;
}
