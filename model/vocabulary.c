/*
 * model/vocabulary.c - tokens: text to id and back.
 */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define ID_LIMIT                                                                               \
	(1 << 22) /* sixteen times the largest vocabulary seen: a bound on what a bad file     \
		     takes */

/* The slot that holds a text, or the free one where it belongs. */
static int32_t *slot_of(const struct vocabulary *v, const char *text, size_t bytes)
{
	size_t mask = v->slots - 1;

	for (size_t i = digest_of(text, bytes).low;; i++) {
		int32_t *slot = &v->slot[i & mask];

		if (*slot < 0)
			return slot;
		const char *other = v->token[*slot].text;
		if (strncmp(other, text, bytes) == 0 && other[bytes] == '\0')
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
		if (old.slot[i] >= 0) {
			const char *text = v->token[old.slot[i]].text;
			*slot_of(v, text, strlen(text)) = old.slot[i];
		}
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

int vocabulary_add(struct vocabulary *v, const char *path, const char *text, long long id,
		   enum token_kind kind)
{
	size_t bytes = strlen(text);

	if (id < 0 || id >= ID_LIMIT)
		return error(EXIT_DATA, "'%s': the id %lld of token '%s' is not in 0..%d", path,
			     id, text, ID_LIMIT - 1);
	grow_slots(v);
	grow_tokens(v, (int)id + 1);
	if (v->token[id].text)
		return error(EXIT_DATA, "'%s': tokens '%s' and '%s' have the same id %lld",
			     path, v->token[id].text, text, id);
	int32_t *slot = slot_of(v, text, bytes);
	if (*slot >= 0)
		return error(EXIT_DATA, "'%s': token '%s' has two ids, %d and %lld", path, text,
			     *slot, id);
	v->token[id] = (struct token){arena_copy(&v->arena, text, bytes), kind};
	*slot = (int32_t)id;
	v->used++;
	return 0;
}

int vocabulary_find(const struct vocabulary *v, const char *text, size_t bytes)
{
	return v->slots ? *slot_of(v, text, bytes) : -1;
}

void vocabulary_release(struct vocabulary *v)
{
	free(v->token);
	free(v->slot);
	arena_release(&v->arena);
	*v = (struct vocabulary){0};
}
