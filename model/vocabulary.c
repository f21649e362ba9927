/*
 * model/vocabulary.c - tokens: text to id and back.
 */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* Sixteen times the largest vocabulary seen: a bound on what a bad file takes. */
#define ID_LIMIT (1 << 22)

struct vocabulary_slot {
	uint32_t hash;
	int32_t id; /* -1: free */
};

/* The slot that holds a text, or the free one where it belongs. */
static struct vocabulary_slot *slot_of(const struct vocabulary *v, uint32_t hash,
				       const char *text, size_t bytes)
{
	size_t mask = v->slots - 1;

	for (size_t i = hash;; i++) {
		struct vocabulary_slot *slot = &v->slot[i & mask];

		if (slot->id < 0)
			return slot;
		if (slot->hash != hash)
			continue;
		const struct token *token = &v->token[slot->id];
		if (token->bytes == bytes && memcmp(token->text, text, bytes) == 0)
			return slot;
	}
}

/* Keeps the hash table at most half full. */
static void grow_slots(struct vocabulary *v)
{
	struct vocabulary old = *v;

	if (v->used * 2 < v->slots)
		return;
	v->slots = old.slots ? old.slots * 2 : 1024;
	v->slot = xalloc(v->slots * sizeof *v->slot);
	memset(v->slot, -1, v->slots * sizeof *v->slot);
	for (size_t i = 0; i < old.slots; i++) {
		size_t at = old.slot[i].hash;

		if (old.slot[i].id < 0)
			continue;
		while (v->slot[at & (v->slots - 1)].id >= 0)
			at++;
		v->slot[at & (v->slots - 1)] = old.slot[i];
	}
	free(old.slot);
}

static void grow_tokens(struct vocabulary *v, int size)
{
	if (size > v->room) {
		int room = size > 2 * v->room ? size : 2 * v->room;
		struct token *token = xzalloc((size_t)room, sizeof *token);

		if (v->size)
			memcpy(token, v->token, (size_t)v->size * sizeof *token);
		free(v->token);
		v->token = token;
		v->room = room;
	}
	if (size > v->size)
		v->size = size;
}

static uint32_t hash_of(const char *text, size_t bytes)
{
	return (uint32_t)checksum(text, bytes, 0);
}

int vocabulary_add(struct vocabulary *v, const char *path, const char *text, size_t bytes,
		   long long id, enum token_kind kind)
{
	uint32_t hash = hash_of(text, bytes);

	if (id < 0 || id >= ID_LIMIT)
		return error(EXIT_DATA, "'%s': the id %lld of token '%s' is not in 0..%d", path,
			     id, text, ID_LIMIT - 1);
	if (bytes > UINT32_MAX)
		return error(EXIT_DATA, "'%s': the token with the id %lld is too long", path, id);
	grow_slots(v);
	grow_tokens(v, (int)id + 1);
	if (v->token[id].text)
		return error(EXIT_DATA, "'%s': tokens '%s' and '%s' have the same id %lld",
			     path, v->token[id].text, text, id);
	struct vocabulary_slot *slot = slot_of(v, hash, text, bytes);
	if (slot->id >= 0)
		return error(EXIT_DATA, "'%s': token '%s' has two ids, %d and %lld", path, text,
			     slot->id, id);
	v->token[id] = (struct token){arena_copy(&v->arena, text, bytes), (uint32_t)bytes, kind,
					 kind == TOKEN_MODEL, NULL, 0, 0};
	*slot = (struct vocabulary_slot){hash, (int32_t)id};
	v->used++;
	return 0;
}

int vocabulary_find(const struct vocabulary *v, const char *text, size_t bytes)
{
	return v->slots ? slot_of(v, hash_of(text, bytes), text, bytes)->id : -1;
}

int vocabulary_model(const struct vocabulary *v, const char *text, size_t bytes)
{
	int id = vocabulary_find(v, text, bytes);

	return id >= 0 && v->token[id].model ? id : -1;
}

void vocabulary_release(struct vocabulary *v)
{
	free(v->token);
	free(v->slot);
	arena_release(&v->arena);
	*v = (struct vocabulary){0};
}
