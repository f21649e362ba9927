/*
 * model/tokenizer_file.c - tokenizer.json, the file of Hugging Face's tokenizers.
 *
 * It is other people's: what would change the ids and is not built is refused by name; fields that
 * are null, false or empty are ignored, and so are those that speak of other things than ids.
 */
#include "model/internal.h"
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* -- vocabulary and merges, in both forms -------------------------------------------------- */

int tokenizer_read_vocabulary(struct tokenizer *t, const char *path, const struct json *map)
{
	if (json_kind(map) != JSON_MAP || json_size(map) == 0)
		return error(EXIT_DATA, "'%s': the vocabulary is no map from tokens to ids",
			     path);
	for (void *it = json_first(map); it; it = json_next(map, it)) {
		const char *text = json_name(it);
		long long id = json_as_integer(json_value(it), -1);

		if (vocabulary_add(&t->vocabulary, path, text, strlen(text), id, TOKEN_MODEL) < 0)
			return -1;
	}
	return 0;
}

bool tokenizer_read_merge(struct tokenizer *t, const char *line, size_t bytes, int rank)
{
	const char *space = memchr(line, ' ', bytes);

	if (!space || memchr(space + 1, ' ', bytes - (size_t)(space + 1 - line)))
		return false;
	return bpe_add(&t->bpe, line, (size_t)(space - line), space + 1,
		       bytes - (size_t)(space + 1 - line), rank);
}

static int read_merges(struct tokenizer *t, const char *path, const struct json *list)
{
	if (json_kind(list) != JSON_LIST)
		return error(EXIT_DATA, "'%s': model.merges is no list", path);
	bpe_open(&t->bpe, &t->vocabulary, json_size(list));
	for (size_t i = 0; i < json_size(list); i++) {
		const struct json *merge = json_at(list, i);
		const struct json *left = json_at(merge, 0), *right = json_at(merge, 1);
		bool added = false;

		if (json_kind(merge) == JSON_TEXT)
			added = tokenizer_read_merge(t, json_as_text(merge, ""),
						     json_text_bytes(merge), (int)i);
		else if (json_size(merge) == 2 && json_kind(left) == JSON_TEXT &&
			 json_kind(right) == JSON_TEXT)
			added = bpe_add(&t->bpe, json_as_text(left, ""), json_text_bytes(left),
					json_as_text(right, ""), json_text_bytes(right),
					(int)i);
		if (!added)
			return error(EXIT_DATA,
				     "'%s': merge %zu is no pair of tokens that make a token",
				     path, i);
	}
	return 0;
}

/* -- the model ----------------------------------------------------------------------------- */

/* A text of the file that the tokenizer keeps; null where it is absent or null. */
static const char *kept_text(struct tokenizer *t, struct fields *fields, const char *key)
{
	const char *text = fields_text(fields, key, NULL);

	return text ? arena_copy(&t->arena, text, strlen(text)) : NULL;
}

static int read_bpe(struct tokenizer *t, const char *path, const struct json *map)
{
	static const char *const known[] = {"type", "vocab", "merges", "unk_token", "fuse_unk",
					    "byte_fallback", "ignore_merges", NULL};
	struct fields fields = {.path = path, .map = map};

	if (refuse_others(path, "the model's", map, known) < 0 ||
	    tokenizer_read_vocabulary(t, path, json_find(map, "vocab")) < 0 ||
	    read_merges(t, path, json_find(map, "merges")) < 0)
		return -1;
	t->bpe.unknown_text = kept_text(t, &fields, "unk_token");
	t->bpe.fuse_unknown = fields_flag(&fields, "fuse_unk", false);
	t->bpe.byte_fallback = fields_flag(&fields, "byte_fallback", false);
	t->bpe.ignore_merges = fields_flag(&fields, "ignore_merges", false);
	return fields.failed ? -1 : 0;
}

static int read_words(struct tokenizer *t, const char *path, const struct json *map)
{
	static const char *const known[] = {"type", "vocab", "unk_token", NULL};
	struct fields fields = {.path = path, .map = map};

	t->words = true;
	t->unknown_text = kept_text(t, &fields, "unk_token");
	if (fields.failed || refuse_others(path, "the model's", map, known) < 0)
		return -1;
	return tokenizer_read_vocabulary(t, path, json_find(map, "vocab"));
}

static int read_model(struct tokenizer *t, const char *path, const struct json *map)
{
	const char *type = json_as_text(json_find(map, "type"), json_is_nothing(map) ? "none" : "?");

	/* Before 2021 the model's type was not written; merges tell it. */
	if (strcmp(type, "?") == 0 && json_find(map, "merges"))
		type = "BPE";
	if (strcmp(type, "BPE") == 0)
		return read_bpe(t, path, map);
	if (strcmp(type, "WordLevel") == 0)
		return read_words(t, path, map);
	return refuse_part(path, "the model", type);
}

/* -- the rest ------------------------------------------------------------------------------ */

int tokenizer_read_added(struct tokenizer *t, const char *path, const struct json *map,
			 long long id)
{
	static const char *const known[] = {"id", "content", "special", "normalized",
					    "single_word", "lstrip", "rstrip", "__type", NULL};
	struct fields fields = {.path = path, .map = map};
	const char *content = fields_text(&fields, "content", "");
	struct added flags = {.special = fields_flag(&fields, "special", false),
			      .single_word = fields_flag(&fields, "single_word", false),
			      .left = fields_flag(&fields, "lstrip", false),
			      .right = fields_flag(&fields, "rstrip", false)};

	flags.normalized = fields_flag(&fields, "normalized", !flags.special);
	if (fields.failed || refuse_others(path, "an added token's", map, known) < 0)
		return -1;
	return tokenizer_add(t, path, content, strlen(content), id, &flags);
}

int tokenizer_read_parts(struct tokenizer *t, const char *path, const struct json *root)
{
	if (normalizer_read(&t->normalizer, path, json_find(root, "normalizer")) < 0 ||
	    pretokenizer_read(&t->pretokenizer, path, json_find(root, "pre_tokenizer")) < 0)
		return -1;
	return decoder_read(&t->decoder, path, json_find(root, "decoder"));
}

static int check_fields(const char *path, const struct json *root)
{
	static const char *const top[] = {"version",	    "truncation",    "padding",
					  "added_tokens",   "normalizer",    "pre_tokenizer",
					  "post_processor", "decoder",	     "model",
					  NULL};
	struct fields fields = {.path = path, .map = root};
	const char *version = fields_text(&fields, "version", "1.0");

	if (fields.failed)
		return -1;
	if (strcmp(version, "1.0") != 0)
		return refuse_part(path, "version", version);
	return refuse_others(path, "the", root, top);
}

/* A file that says nothing of what stands around a text leaves it to tokenizer_config.json. */
static int read_ends(struct tokenizer *t, const char *path, const struct json *map)
{
	const char *config = path_join(&t->arena, t->folder, "tokenizer_config.json");

	if (!json_is_nothing(map) || !path_exists(config))
		return postprocessor_read(t, path, map);
	struct json *root = json_read(config);
	int done = root ? postprocessor_configure(t, config, root, false) : -1;
	json_free(root);
	return done;
}

static int read_root(struct tokenizer *t, const char *path, const struct json *root)
{
	const struct json *added = json_find(root, "added_tokens");

	if (json_kind(root) != JSON_MAP)
		return error(EXIT_DATA, "'%s' is no JSON map", path);
	if (check_fields(path, root) < 0 || tokenizer_read_parts(t, path, root) < 0 ||
	    read_model(t, path, json_find(root, "model")) < 0)
		return -1;
	for (size_t i = 0; i < json_size(added); i++) {
		const struct json *one = json_at(added, i);

		if (tokenizer_read_added(t, path, one,
					 json_as_integer(json_find(one, "id"), -1)) < 0)
			return -1;
	}
	return read_ends(t, path, json_find(root, "post_processor"));
}

int tokenizer_read_json(struct tokenizer *t, const char *path)
{
	struct json *root = json_read(path);

	if (!root)
		return -1;
	int done = read_root(t, path, root);
	json_free(root);
	return done;
}
