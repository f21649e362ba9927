/*
 * model/tokenizer.c - text to ids and back, as Hugging Face's tokenizers do it.
 *
 * What a tokenizer does is read from its files; nothing here knows a kind of tokenizer by name.
 */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

void ids_release(struct ids *ids)
{
	free(ids->id);
	*ids = (struct ids){0};
}

int32_t *ids_take(struct ids *ids, size_t count)
{
	if (count > ids->room - ids->count) {
		size_t room = ids->count + count;

		room += room / 2 + 16;
		int32_t *id = xalloc(room * sizeof *id);
		if (ids->count)
			memcpy(id, ids->id, ids->count * sizeof *id);
		free(ids->id);
		ids->id = id;
		ids->room = room;
	}
	ids->count += count;
	return ids->id + ids->count - count;
}

/* -- opening ------------------------------------------------------------------------------- */

/* The entry of an added token, a new one unless it was added before. */
static struct added *added_entry(struct tokenizer *t, long long id, bool again)
{
	struct token *token = &t->vocabulary.token[id];

	if (!again)
		token->added = t->added.count;
	return again ? &t->added.added[token->added] : added_take(&t->added);
}

int tokenizer_add(struct tokenizer *t, const char *path, const char *text, size_t bytes,
		  long long id, const struct added *flags)
{
	struct vocabulary *v = &t->vocabulary;
	int there = vocabulary_find(v, text, bytes);
	bool again = there >= 0 && v->token[there].kind != TOKEN_MODEL;
	enum token_kind kind = flags->special ? TOKEN_SPECIAL : TOKEN_ADDED;

	if (bytes == 0)
		return error(EXIT_DATA, "'%s': the added token with the id %lld is empty", path,
			     id);
	if (there >= 0 && there != id)
		return error(EXIT_DATA,
			     "'%s': the added token '%s' has the id %lld here, "
			     "%d in the vocabulary",
			     path, text, id, there);
	if (there < 0 && vocabulary_add(v, path, text, bytes, id, kind) < 0)
		return -1;
	v->token[id].kind = kind;
	struct added *added = added_entry(t, id, again);
	int order = added->order;
	free(added->find);
	*added = *flags;
	added->order = order;
	added->id = (int32_t)id;
	added->bytes = bytes;
	added->find = xalloc(bytes);
	memcpy(added->find, text, bytes);
	return 0;
}

/* Those that are looked for in the normalized text are normalized too, and come back so. */
static int normalize_added(struct tokenizer *t)
{
	for (int i = 0; i < t->added.count; i++) {
		struct added *added = &t->added.added[i];
		const char *text = added->find;
		size_t bytes = added->bytes;

		if (!added->normalized)
			continue;
		if (normalizer_run(&t->normalizer, true, &text, &bytes, t->scratch) < 0)
			return -1;
		if (bytes == added->bytes && memcmp(text, added->find, bytes) == 0)
			continue;
		struct token *token = &t->vocabulary.token[added->id];
		token->shown = arena_copy(&t->arena, text, bytes);
		token->shown_bytes = (uint32_t)bytes;
		free(added->find);
		added->find = xalloc(bytes);
		memcpy(added->find, text, bytes);
		added->bytes = bytes;
	}
	return 0;
}

/* The last step that spells bytes is left out where the model can take bytes. */
static void leave_out_spelling(struct tokenizer *t)
{
	struct steps *steps = &t->pretokenizer;

	for (int i = 0; i + 1 < steps->count; i++) {
		if (steps->step[i].kind == STEP_SPELL)
			return;
	}
	if (steps->count == 0 || steps->step[steps->count - 1].kind != STEP_SPELL ||
	    t->words || t->bpe.byte_fallback)
		return;
	steps->count--;
	t->bpe.spelled = true;
}

int tokenizer_ready(struct tokenizer *t)
{
	leave_out_spelling(t);
	if (!t->words)
		bpe_ready(&t->bpe);
	if (normalize_added(t) < 0)
		return -1;
	added_ready(&t->added);
	return 0;
}

static int read_files(struct tokenizer *t)
{
	const char *json = path_join(&t->arena, t->folder, "tokenizer.json");

	return path_exists(json) ? tokenizer_read_json(t, json) : tokenizer_read_folder(t);
}

struct tokenizer *tokenizer_open(const char *folder)
{
	struct tokenizer *t = xzalloc(1, sizeof *t);

	t->folder = arena_copy(&t->arena, folder, strlen(folder));
	if (read_files(t) < 0 || tokenizer_ready(t) < 0) {
		tokenizer_close(t);
		return NULL;
	}
	return t;
}

void tokenizer_close(struct tokenizer *t)
{
	if (!t)
		return;
	bpe_release(&t->bpe);
	ids_release(&t->before);
	ids_release(&t->after);
	steps_release(&t->normalizer);
	steps_release(&t->pretokenizer);
	steps_release(&t->decoder);
	added_release(&t->added);
	text_release(&t->scratch[0]);
	text_release(&t->scratch[1]);
	vocabulary_release(&t->vocabulary);
	arena_release(&t->arena);
	free(t);
}

int tokenizer_vocabulary(const struct tokenizer *tokenizer)
{
	return tokenizer->vocabulary.size;
}

int tokenizer_find(const struct tokenizer *tokenizer, const char *token)
{
	return vocabulary_find(&tokenizer->vocabulary, token, strlen(token));
}

/* -- encoding ------------------------------------------------------------------------------ */

int tokenizer_word(struct tokenizer *t, const char *word, size_t bytes, struct ids *ids)
{
	if (!t->words)
		return bpe_encode(&t->bpe, word, bytes, ids);
	int id = vocabulary_model(&t->vocabulary, word, bytes);
	if (id < 0 && t->unknown_text)
		id = vocabulary_model(&t->vocabulary, t->unknown_text, strlen(t->unknown_text));
	if (id < 0)
		return error(EXIT_DATA, "the word '%.*s' is not in the vocabulary of '%s', and "
			     "neither is its unk_token", bytes > 100 ? 100 : (int)bytes, word,
			     t->folder);
	*ids_take(ids, 1) = id;
	return 0;
}

/* A text with its added tokens of one group. */
struct part {
	const char *text;
	size_t bytes;
	bool first;   /* it begins where the whole text begins */
	bool special; /* special tokens are looked for */
};

/* Cuts a normalized text at the added tokens that were normalized. */
static int encode_normalized(struct tokenizer *t, const struct part *part, struct ids *ids)
{
	struct added_match match = {0};
	size_t from = 0;

	for (;;) {
		int found = added_next(&t->added, true, part->special, part->text, part->bytes,
				       &match);
		size_t to = found ? match.start : part->bytes;

		if (from < to && pretokenizer_run(t, 0, part->text + from, to - from,
						  part->first && from == 0, ids) < 0)
			return -1;
		if (!found)
			return 0;
		*ids_take(ids, 1) = match.id;
		match.done = from = match.end;
	}
}

static int encode_raw(struct tokenizer *t, const struct part *part, struct ids *ids)
{
	struct part normalized = *part;

	if (part->bytes == 0)
		return 0;
	if (normalizer_run(&t->normalizer, part->first, &normalized.text, &normalized.bytes,
			   t->scratch) < 0)
		return -1;
	return encode_normalized(t, &normalized, ids);
}

/*
 * As in Hugging Face's, the added tokens that are not normalized are cut out of the whole text; what
 * is left is normalized piece by piece, and the others are cut out of that.
 */
static int encode_text(struct tokenizer *t, const struct part *part, struct ids *ids)
{
	struct added_match match = {0};
	size_t from = 0;

	for (;;) {
		int found = added_next(&t->added, false, part->special, part->text, part->bytes,
				       &match);
		size_t to = found ? match.start : part->bytes;
		struct part rest = {part->text + from, from < to ? to - from : 0, from == 0,
				    part->special};

		if (encode_raw(t, &rest, ids) < 0)
			return -1;
		if (!found)
			return 0;
		*ids_take(ids, 1) = match.id;
		match.done = from = match.end;
	}
}

int tokenizer_encode(struct tokenizer *t, const char *text, size_t bytes, bool special,
		     struct ids *ids)
{
	size_t before = ids->count, valid = utf8_valid(text, bytes);
	struct part whole = {text, bytes, true, special};

	if (valid < bytes)
		return error(EXIT_DATA, "byte %zu of the text (0x%02X) is not UTF-8", valid,
			     (uint8_t)text[valid]);
	if (encode_text(t, &whole, ids) < 0) {
		ids->count = before;
		return -1;
	}
	return 0;
}

/* -- decoding ------------------------------------------------------------------------------ */

static int check_ids(const struct tokenizer *t, const int32_t *id, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (id[i] < 0 || id[i] >= t->vocabulary.size ||
		    !t->vocabulary.token[id[i]].text)
			return error(EXIT_DATA, "no token has the id %d (item %zu) in '%s'",
				     id[i], i, t->folder);
	}
	return 0;
}

int tokenizer_decode(struct tokenizer *t, const int32_t *id, size_t count, bool special,
		     struct text *text)
{
	if (check_ids(t, id, count) < 0)
		return -1;
	return decoder_run(t, id, count, special, false, text);
}

int tokenizer_decode_text(struct tokenizer *t, const int32_t *id, size_t count, bool special,
			  struct text *text)
{
	if (check_ids(t, id, count) < 0)
		return -1;
	return decoder_run(t, id, count, special, true, text);
}
