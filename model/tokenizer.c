/*
 * model/tokenizer.c - text to ids and back, as Hugging Face's tokenizers do it.
 *
 * A text is cut at the added tokens, what lies between them is cut into words by a regular
 * expression, and every word is encoded by itself. Decoding puts the bytes of the tokens side
 * by side. What can differ between kinds of tokenizers stands in a row of tokenizer_kinds.
 */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define MATCH_LIMIT 10000000u /* steps of the regular expression for one word */
#define DEPTH_LIMIT 100000u
#define HEAP_LIMIT 65536u /* KiB */

/*
 * GPT-2's pattern. \p{White_Space} stands for its \s: PCRE2's own \s counts U+180E, which
 * Unicode took off the list of spaces.
 */
#define GPT2_PATTERN \
	"'s|'t|'re|'ve|'m|'ll|'d" \
	"| ?\\p{L}+| ?\\p{N}+| ?[^\\p{White_Space}\\p{L}\\p{N}]+" \
	"|\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+"

const struct tokenizer_kind tokenizer_kinds[] = {
	{"the byte-level BPE of GPT-2", "BPE", "ByteLevel", "ByteLevel",
	 {"GPT2Tokenizer", "GPT2TokenizerFast"}, GPT2_PATTERN},
	{0},
};

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
static struct added *added_entry(struct tokenizer *t, int32_t id, bool again)
{
	for (int i = 0; again && i < t->added_count; i++) {
		if (t->added[i].id == id)
			return &t->added[i];
	}
	if (t->added_count == t->added_room) {
		int room = t->added_room ? 2 * t->added_room : 16;
		struct added *added = arena_take(&t->arena, (size_t)room * sizeof *added);

		t->added_room = room;
		if (t->added_count)
			memcpy(added, t->added, (size_t)t->added_count * sizeof *added);
		t->added = added;
	}
	return &t->added[t->added_count++];
}

int tokenizer_add(struct tokenizer *t, const char *path, const char *text, long long id,
		  bool special, bool normalized)
{
	struct vocabulary *v = &t->vocabulary;
	int there = vocabulary_find(v, text, strlen(text));
	bool again = there >= 0 && v->token[there].kind != TOKEN_SPELLED;
	enum token_kind kind = special ? TOKEN_SPECIAL : TOKEN_ADDED;

	if (text[0] == '\0')
		return error(EXIT_DATA, "'%s': the added token with the id %lld is empty", path,
			     id);
	if (there >= 0 && there != id)
		return error(EXIT_DATA,
			     "'%s': the added token '%s' has the id %lld here, "
			     "%d in the vocabulary",
			     path, text, id, there);
	if (there < 0 && vocabulary_add(v, path, text, id, kind) < 0)
		return -1;
	v->token[id].kind = kind;
	*added_entry(t, (int32_t)id, again) = (struct added){
		v->token[id].text, strlen(text), (int32_t)id, special, normalized};
	t->begins[normalized][(uint8_t)text[0]] = true;
	return 0;
}

static int compile(struct tokenizer *t)
{
	PCRE2_SIZE offset;
	int code;

	t->pattern = pcre2_compile((PCRE2_SPTR)t->kind->pattern, PCRE2_ZERO_TERMINATED,
				   PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &code, &offset,
				   NULL);
	if (!t->pattern) {
		PCRE2_UCHAR why[160];

		pcre2_get_error_message(code, why, sizeof why);
		return error(EXIT_BUG,
			     "cannot compile the pattern of %s at %zu: %s (PCRE2 10.40 or "
			     "newer is needed)",
			     t->kind->name, (size_t)offset, (const char *)why);
	}
	/* Without a just-in-time compiler pcre2_match interprets: the same words, slower. */
	(void)pcre2_jit_compile(t->pattern, PCRE2_JIT_COMPLETE);
	t->match = pcre2_match_data_create(1, NULL);
	t->limits = pcre2_match_context_create(NULL);
	if (!t->match || !t->limits)
		return error(EXIT_BUG, "no memory for the pattern of %s", t->kind->name);
	pcre2_set_match_limit(t->limits, MATCH_LIMIT);
	pcre2_set_depth_limit(t->limits, DEPTH_LIMIT);
	pcre2_set_heap_limit(t->limits, HEAP_LIMIT);
	return 0;
}

static int read_folder(struct tokenizer *t)
{
	const char *json = path_join(&t->arena, t->folder, "tokenizer.json");
	const char *vocabulary = path_join(&t->arena, t->folder, "vocab.json");
	const char *merges = path_join(&t->arena, t->folder, "merges.txt");

	if (path_exists(json))
		return tokenizer_read_json(t, json);
	if (path_exists(vocabulary) && path_exists(merges))
		return tokenizer_read_merges(t, merges);
	return error(EXIT_INPUT,
		     "'%s' holds no tokenizer: neither tokenizer.json nor vocab.json with "
		     "merges.txt",
		     t->folder);
}

struct tokenizer *tokenizer_open(const char *folder)
{
	struct tokenizer *t = xzalloc(1, sizeof *t);

	t->folder = arena_copy(&t->arena, folder, strlen(folder));
	if (read_folder(t) < 0 || compile(t) < 0) {
		tokenizer_close(t);
		return NULL;
	}
	return t;
}

void tokenizer_close(struct tokenizer *t)
{
	if (!t)
		return;
	pcre2_code_free(t->pattern);
	pcre2_match_data_free(t->match);
	pcre2_match_context_free(t->limits);
	bpe_release(&t->bpe);
	ids_release(&t->before);
	ids_release(&t->after);
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

size_t tokenizer_utf8(struct tokenizer *t, const char *text, size_t bytes)
{
	if (bytes == 0)
		return 0;
	/* Without PCRE2_NO_UTF_CHECK the whole text is checked before the first word is sought.
	 */
	int found = pcre2_match(t->pattern, (PCRE2_SPTR)text, bytes, 0, 0, t->match, t->limits);
	if (found <= PCRE2_ERROR_UTF8_ERR1 && found >= PCRE2_ERROR_UTF8_ERR21)
		return pcre2_get_startchar(t->match);
	return bytes;
}

/* Words of a text without added tokens. */
static int encode_words(struct tokenizer *t, const char *text, size_t bytes, struct ids *ids)
{
	const PCRE2_SIZE *span = pcre2_get_ovector_pointer(t->match);

	for (size_t at = 0; at < bytes; at = span[1]) {
		int found = pcre2_match(t->pattern, (PCRE2_SPTR)text, bytes, at,
					PCRE2_NO_UTF_CHECK, t->match, t->limits);

		if (found < 0 || span[1] <= at)
			return error(EXIT_DATA,
				     "cannot cut the text into words at byte %zu (PCRE2: %d)",
				     at, found);
		if (bpe_encode(&t->bpe, text + at, span[1] - at, ids) < 0)
			return -1;
	}
	return 0;
}

/* What lies between added tokens. */
static int encode_plain(struct tokenizer *t, const char *text, size_t bytes, struct ids *ids)
{
	struct text spaced = {0};

	if (bytes == 0)
		return 0;
	if (!t->prefix_space || text[0] == ' ')
		return encode_words(t, text, bytes, ids);
	text_put(&spaced, " ", 1);
	text_put(&spaced, text, bytes);
	int done = encode_words(t, spaced.data, spaced.bytes, ids);
	text_release(&spaced);
	return done;
}

/* A group of added tokens: HF cuts out those that are not normalized first. */
struct group {
	bool special, normalized;
};

/* The longest added token that a text begins with, null: none. */
static const struct added *added_at(const struct tokenizer *t, struct group group,
				    const char *text, size_t bytes)
{
	const struct added *longest = NULL;

	for (int i = 0; i < t->added_count; i++) {
		const struct added *added = &t->added[i];

		if (added->normalized != group.normalized || (added->special && !group.special))
			continue;
		if (added->bytes <= bytes && memcmp(added->text, text, added->bytes) == 0 &&
		    (!longest || added->bytes > longest->bytes))
			longest = added;
	}
	return longest;
}

/* Moves *at to the next added token, or to the end where there is none. */
static const struct added *added_next(const struct tokenizer *t, struct group group,
				      const char *text, size_t bytes, size_t *at)
{
	for (; *at < bytes; ++*at) {
		const struct added *added = NULL;

		if (t->begins[group.normalized][(uint8_t)text[*at]])
			added = added_at(t, group, text + *at, bytes - *at);
		if (added)
			return added;
	}
	return NULL;
}

/*
 * Cuts a text at the added tokens of a group, leftmost first, then longest. As in Hugging
 * Face's, the tokens that are not normalized are cut out of the whole text, the others out of
 * what is left.
 */
static int encode_group(struct tokenizer *t, struct group group, const char *text, size_t bytes,
			struct ids *ids)
{
	struct group rest = {group.special, true};
	const struct added *added;
	size_t at = 0;

	do {
		size_t from = at;

		added = added_next(t, group, text, bytes, &at);
		if ((group.normalized ? encode_plain(t, text + from, at - from, ids)
				      : encode_group(t, rest, text + from, at - from, ids)) < 0)
			return -1;
		if (added) {
			*ids_take(ids, 1) = added->id;
			at += added->bytes;
		}
	} while (added);
	return 0;
}

int tokenizer_encode(struct tokenizer *t, const char *text, size_t bytes, bool special,
		     struct ids *ids)
{
	size_t before = ids->count, valid = tokenizer_utf8(t, text, bytes);

	if (valid < bytes)
		return error(EXIT_DATA, "byte %zu of the text (0x%02X) is not UTF-8", valid,
			     (uint8_t)text[valid]);
	if (encode_group(t, (struct group){special, false}, text, bytes, ids) < 0) {
		ids->count = before;
		return -1;
	}
	return 0;
}

/* -- decoding ------------------------------------------------------------------------------ */

int tokenizer_decode(struct tokenizer *t, const int32_t *id, size_t count, bool special,
		     struct text *text)
{
	for (size_t i = 0; i < count; i++) {
		if (id[i] < 0 || id[i] >= t->vocabulary.size ||
		    !t->vocabulary.token[id[i]].text)
			return error(EXIT_DATA, "no token has the id %d (item %zu) in '%s'",
				     id[i], i, t->folder);
	}
	for (size_t i = 0; i < count; i++) {
		const struct token *token = &t->vocabulary.token[id[i]];

		if (token->kind == TOKEN_SPELLED)
			spelling_read(token->text, text);
		else if (token->kind == TOKEN_ADDED || special)
			text_put(text, token->text, strlen(token->text));
	}
	return 0;
}
