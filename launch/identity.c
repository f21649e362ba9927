/*
 * What a checkpoint belongs to. Identity: with another value the state would mean something else, so resuming is
 * refused. Circumstance: allowed to differ, with a warning, because results then differ from an uninterrupted
 * run's.
 */
#include <string.h>

#include "launch/session.h"

struct pairs { const char **item; int count; struct arena *arena; };

static void add(struct pairs *pairs, const char *key, const char *value)
{
	pairs->item[pairs->count++] = key;
	pairs->item[pairs->count++] = arena_copy(pairs->arena, value, strlen(value));
}

static void add_integer(struct pairs *pairs, const char *key, long long value)
{
	add(pairs, key, arena_format(pairs->arena, "%lld", value));
}

static void add_number(struct pairs *pairs, const char *key, double value)
{
	add(pairs, key, arena_format(pairs->arena, "%.17g", value));
}

static void add_digest(struct pairs *pairs, const char *key, struct digest digest)
{
	char text[33];

	add(pairs, key, digest_write(digest, text));
}

static const char *targets_text(const struct session *s)
{
	struct text text = {0};
	const char *copy;

	for (int i = 0; i < s->lora->modules; i++)
		text_add(&text, "%s%s", i > 0 ? " " : "", s->lora->module[i]);
	copy = arena_copy(&((struct session *)s)->arena, text.data ? text.data : "", text.bytes);
	text_release(&text);
	return copy;
}

enum { PAIRS_MAX = 64 };

static const char **identity(struct session *s)
{
	struct pairs p = {arena_take(&s->arena, PAIRS_MAX * sizeof(char *)), 0, &s->arena};

	add_digest(&p, "model", s->model->digest);
	add_digest(&p, "weights", s->weights_digest);
	add_digest(&p, "data", s->train->digest);
	add_integer(&p, "sequence", s->data.tokens);
	add(&p, "shuffle", s->job.data.shuffle ? "true" : "false");
	if (s->data.segments > 0)
		add(&p, "pack", "true");
	add_integer(&p, "batch", s->job.train.batch);
	add_integer(&p, "seed", s->job.train.seed);
	add_integer(&p, "lora.rank", s->lora->rank);
	add_number(&p, "lora.alpha", s->lora->alpha);
	add(&p, "lora.rslora", s->lora->rslora ? "true" : "false");
	add(&p, "lora.targets", targets_text(s));
	if (s->lora->ranks.count || s->lora->alphas.count)
		add(&p, "lora.patterns", lora_patterns(s->lora, &s->arena));
	return p.item;
}

static const char **circumstance(struct session *s)
{
	const struct train_config *t = &s->job.train;
	struct pairs p = {arena_take(&s->arena, PAIRS_MAX * sizeof(char *)), 0, &s->arena};

	add_integer(&p, "micro_batch", s->plan.micro_batch);
	add_integer(&p, "steps", s->data.steps);
	add_number(&p, "learning_rate", t->learning_rate);
	add_integer(&p, "schedule", t->schedule);
	add_integer(&p, "warmup", t->warmup);
	add_number(&p, "weight_decay", t->weight_decay);
	add_number(&p, "beta1", t->betas.item[0]);
	add_number(&p, "beta2", t->betas.item[1]);
	add_number(&p, "epsilon", t->epsilon);
	add_number(&p, "clip", t->clip);
	add_number(&p, "lora.dropout", s->lora->dropout);
	add_integer(&p, "kernels", t->kernels);
	add(&p, "precision", t->precision == PRECISION_BF16 ? "bf16" : "fp32");
	/* In fp32 every level gives the same bits. */
	add(&p, "recompute", recompute_name(t->precision == PRECISION_BF16 ? (enum recompute)t->recompute
									 : RECOMPUTE_NONE));
	add_integer(&p, "validate_every", t->validate_every);
	if (s->valid)
		add_digest(&p, "validation", s->valid->digest);
	add(&p, "codecs", wire_codecs(s));
	add(&p, "isa", s->facts[0].hardware.isa);
	add(&p, "blas", s->facts[0].blas);
	add(&p, "build", s->facts[0].build_text);
	return p.item;
}

void identity_make(struct session *s)
{
	s->identity = identity(s);
	s->circumstance = circumstance(s);
}
