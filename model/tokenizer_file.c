/*
 * model/tokenizer_file.c - the files of a tokenizer: tokenizer.json, or vocab.json with
 * merges.txt.
 *
 * They are other people's: what would change the ids and is not built is refused by name;
 * fields that are null, false or empty are ignored, and so are those that speak of other things
 * than ids.
 */
#include "model/internal.h"
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* A field that cannot change anything, whatever it means. */
static bool is_harmless(const struct json *value)
{
	return json_is_nothing(value) ||
	       (json_kind(value) == JSON_WHOLE && json_as_integer(value, 1) == 0);
}

static int refuse(const char *path, const char *what, const char *name)
{
	return error(EXIT_CONFIG, "'%s': %s '%s' is not built; what is built: %s", path, what,
		     name, tokenizer_kinds[0].name);
}

/* Refuses the fields of a map that are neither known (words ended by null) nor harmless. */
static int refuse_others(const char *path, const char *place, const struct json *map,
			 const char *const *known)
{
	for (void *it = json_first(map); it; it = json_next(map, it)) {
		int i = 0;

		while (known[i] && strcmp(known[i], json_name(it)) != 0)
			i++;
		if (known[i] || is_harmless(json_value(it)))
			continue;
		struct text what = {0};
		const char *type = json_as_text(json_find(json_value(it), "type"), NULL);
		text_add(&what, "%s field '%s'%s", place, json_name(it),
			 type ? " of type" : " =");
		const char *value = type ? type : json_as_text(json_value(it), "...");
		int failed = refuse(path, what.data, value);
		text_release(&what);
		return failed;
	}
	return 0;
}

/* -- vocabulary and merges, in both forms -------------------------------------------------- */

static int read_vocabulary(struct tokenizer *t, const char *path, const struct json *map)
{
	if (json_kind(map) != JSON_MAP || json_size(map) == 0)
		return error(EXIT_DATA, "'%s': the vocabulary is no map from tokens to ids",
			     path);
	for (void *it = json_first(map); it; it = json_next(map, it)) {
		long long id = json_as_integer(json_value(it), -1);

		if (vocabulary_add(&t->vocabulary, path, json_name(it), id, TOKEN_SPELLED) < 0)
			return -1;
	}
	return 0;
}

/* Adds a merge written as "a b". */
static bool add_line(struct tokenizer *t, const char *line, size_t bytes, int rank)
{
	const char *space = memchr(line, ' ', bytes);

	if (!space || memchr(space + 1, ' ', bytes - (size_t)(space + 1 - line)))
		return false;
	return bpe_add(&t->bpe, &t->vocabulary, line, (size_t)(space - line), space + 1,
		       bytes - (size_t)(space + 1 - line), rank);
}

static int read_merge_list(struct tokenizer *t, const char *path, const struct json *list)
{
	if (json_kind(list) != JSON_LIST)
		return error(EXIT_DATA, "'%s': model.merges is no list", path);
	bpe_open(&t->bpe, &t->vocabulary, json_size(list));
	for (size_t i = 0; i < json_size(list); i++) {
		const struct json *merge = json_at(list, i);
		const struct json *left = json_at(merge, 0), *right = json_at(merge, 1);
		bool added = false;

		if (json_kind(merge) == JSON_TEXT)
			added = add_line(t, json_as_text(merge, ""), json_text_bytes(merge),
					 (int)i);
		else if (json_size(merge) == 2 && json_kind(left) == JSON_TEXT &&
			 json_kind(right) == JSON_TEXT)
			added = bpe_add(&t->bpe, &t->vocabulary, json_as_text(left, ""),
					json_text_bytes(left), json_as_text(right, ""),
					json_text_bytes(right), (int)i);
		if (!added)
			return error(EXIT_DATA,
				     "'%s': merge %zu is no pair of tokens that make a token",
				     path, i);
	}
	return 0;
}

/* Adds the merges of merges.txt: a line "#version ..." at most, then one merge a line. */
static int read_merge_lines(struct tokenizer *t, const char *path, const char *data)
{
	int line = 0, rank = 0;

	for (const char *p = data, *end; *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, '\n');
		size_t bytes = (size_t)(end - p);

		line++;
		if (bytes > 0 && p[bytes - 1] == '\r')
			bytes--;
		if (bytes == 0 || strncmp(p, "#version", 8) == 0)
			continue;
		if (!add_line(t, p, bytes, rank++))
			return error(EXIT_DATA,
				     "%s:%d:1: error: no pair of tokens that join to a token",
				     path, line);
	}
	return 0;
}

/* Without a token for every byte there would be unknown ones, and what becomes of them is not
 * built. */
static int check_unknown(const struct tokenizer *t, const char *path,
			 const struct json *unknown)
{
	for (int i = 0; i < 256 && !is_harmless(unknown); i++) {
		if (t->bpe.byte[i] < 0)
			return refuse(path, "with bytes that have no token, the unk_token",
				      json_as_text(unknown, "..."));
	}
	return 0;
}

/* Takes an added token: {"content": ..., "special": ..., "normalized": ...}. */
static int read_added(struct tokenizer *t, const char *path, const struct json *map,
		      long long id)
{
	static const char *const known[] = {"id", "content", "special", "normalized", NULL};
	struct fields fields = {.path = path, .map = map};
	const char *content = fields_text(&fields, "content", "");
	bool special = fields_flag(&fields, "special", false);
	bool normalized = fields_flag(&fields, "normalized", !special);

	if (fields.failed || refuse_others(path, "an added token's", map, known) < 0)
		return -1;
	return tokenizer_add(t, path, content, id, special, normalized);
}

/* -- tokenizer.json ------------------------------------------------------------------------ */

/* The type of a part of the file, "none" where it is null or not there. */
static const char *part_type(const struct json *root, const char *part)
{
	const struct json *value = json_find(root, part);

	return json_as_text(json_find(value, "type"), is_harmless(value) ? "none" : "?");
}

static int choose_kind(struct tokenizer *t, const char *path, const struct json *root)
{
	const struct tokenizer_kind *kind = tokenizer_kinds;
	const char *model = part_type(root, "model"), *decoder = part_type(root, "decoder");
	const char *pre_tokenizer = part_type(root, "pre_tokenizer");

	/* Before 2021 the model's type was not written; merges tell it. */
	if (strcmp(model, "?") == 0 && json_find(json_find(root, "model"), "merges"))
		model = "BPE";
	while (kind->name && strcmp(kind->model, model) != 0)
		kind++;
	if (!kind->name)
		return refuse(path, "the model", model);
	while (kind->name && strcmp(kind->pre_tokenizer, pre_tokenizer) != 0)
		kind++;
	if (!kind->name)
		return refuse(path, "the pre_tokenizer", pre_tokenizer);
	if (strcmp(decoder, "none") != 0 && strcmp(decoder, kind->decoder) != 0)
		return refuse(path, "the decoder", decoder);
	t->kind = kind;
	return 0;
}

/* Refuses what the file says beyond its kind. */
static int check_fields(const char *path, const struct json *root)
{
	static const char *const top[] = {"version",	  "truncation",	   "padding",
					  "added_tokens", "pre_tokenizer", "post_processor",
					  "decoder",	  "model",	   NULL};
	static const char *const pre[] = {"type", "add_prefix_space", "trim_offsets",
					  "use_regex", NULL};
	static const char *const model[] = {"type", "vocab", "merges", "unk_token", "fuse_unk",
					    NULL};
	struct fields fields = {.path = path, .map = root};
	const char *version = fields_text(&fields, "version", "1.0");

	if (fields.failed)
		return -1;
	if (strcmp(version, "1.0") != 0)
		return refuse(path, "version", version);
	if (refuse_others(path, "the", root, top) < 0 ||
	    refuse_others(path, "the model's", json_find(root, "model"), model) < 0)
		return -1;
	return refuse_others(path, "the pre_tokenizer's", json_find(root, "pre_tokenizer"),
			     pre);
}

static int read_pre_tokenizer(struct tokenizer *t, const char *path, const struct json *map)
{
	struct fields fields = {.path = path, .map = map};

	t->prefix_space = fields_flag(&fields, "add_prefix_space", true);
	if (!fields_flag(&fields, "use_regex", true))
		fields_refuse(&fields, "use_regex",
			      "a text that is not cut into words is not built");
	return fields.failed ? -1 : 0;
}

static int read_root(struct tokenizer *t, const char *path, const struct json *root)
{
	const struct json *model = json_find(root, "model");
	const struct json *added = json_find(root, "added_tokens");

	if (choose_kind(t, path, root) < 0 || check_fields(path, root) < 0 ||
	    read_pre_tokenizer(t, path, json_find(root, "pre_tokenizer")) < 0 ||
	    read_vocabulary(t, path, json_find(model, "vocab")) < 0 ||
	    read_merge_list(t, path, json_find(model, "merges")) < 0 ||
	    check_unknown(t, path, json_find(model, "unk_token")) < 0)
		return -1;
	for (size_t i = 0; i < json_size(added); i++) {
		const struct json *one = json_at(added, i);

		if (read_added(t, path, one, json_as_integer(json_find(one, "id"), -1)) < 0)
			return -1;
	}
	return postprocessor_read(t, path, json_find(root, "post_processor"));
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

/* -- vocab.json and merges.txt ------------------------------------------------------------- */

/* A token named as special, as a text or as a map with "content". One without an id is of no
 * use. */
static int read_special(struct tokenizer *t, const char *path, const struct json *value)
{
	const char *text = json_as_text(value, json_as_text(json_find(value, "content"), NULL));
	int id = text ? tokenizer_find(t, text) : -1;

	return id < 0 ? 0 : tokenizer_add(t, path, text, id, true, false);
}

/* Takes "eos_token" and its like from tokenizer_config.json or special_tokens_map.json. */
static int read_named(struct tokenizer *t, const char *path, const struct json *map)
{
	static const char *const names[] = {"bos_token", "eos_token", "unk_token", "pad_token",
					    NULL};
	const struct json *more = json_find(map, "additional_special_tokens");

	for (int i = 0; names[i]; i++) {
		if (read_special(t, path, json_find(map, names[i])) < 0)
			return -1;
	}
	for (size_t i = 0; i < json_size(more); i++) {
		if (read_special(t, path, json_at(more, i)) < 0)
			return -1;
	}
	return 0;
}

/* Takes added_tokens.json: {"<|im_end|>": 50257}. */
static int read_added_map(struct tokenizer *t, const char *path, const struct json *map)
{
	for (void *it = json_first(map); it; it = json_next(map, it)) {
		if (tokenizer_add(t, path, json_name(it), json_as_integer(json_value(it), -1),
				  false, true) < 0)
			return -1;
	}
	return 0;
}

/* Takes the "added_tokens_decoder" of tokenizer_config.json: {"50256": {"content": ...}}. */
static int read_decoder(struct tokenizer *t, const char *path, const struct json *map)
{
	for (void *it = json_first(map); it; it = json_next(map, it)) {
		char *end;
		long long id = strtoll(json_name(it), &end, 10);

		if (read_added(t, path, json_value(it), *end ? -1 : id) < 0)
			return -1;
	}
	return 0;
}

/* Which kind the folder's tokenizer_config.json names; GPT-2's where it names none. */
static int choose_class(struct tokenizer *t, const char *path, const struct json *config)
{
	const char *name = json_as_text(json_find(config, "tokenizer_class"), "GPT2Tokenizer");

	for (t->kind = tokenizer_kinds; t->kind->name; t->kind++) {
		for (const char *const *class = t->kind->class; *class; class ++) {
			if (strcmp(*class, name) == 0)
				return 0;
		}
	}
	return refuse(path, "without tokenizer.json, the tokenizer_class", name);
}

static int read_config(struct tokenizer *t, const char *path, const struct json *config)
{
	struct fields fields = {.path = path, .map = config};

	t->prefix_space = fields_flag(&fields, "add_prefix_space", false);
	if (fields.failed || choose_class(t, path, config) < 0 ||
	    read_decoder(t, path, json_find(config, "added_tokens_decoder")) < 0)
		return -1;
	if (read_named(t, path, config) < 0)
		return -1;
	return postprocessor_configure(t, path, config, false);
}

/* Reads a JSON file of the folder; one that is not there is an empty one. */
static int read_part(struct tokenizer *t, const char *name,
		     int (*read)(struct tokenizer *t, const char *path, const struct json *map))
{
	const char *path = path_join(&t->arena, t->folder, name);
	struct json *map = path_exists(path) ? json_read(path) : NULL;
	int done = path_exists(path) && !map ? -1 : read(t, path, map);

	json_free(map);
	return done;
}

static int read_merges_file(struct tokenizer *t, const char *path)
{
	size_t bytes, lines = 1;
	char *data = file_read(path, &bytes);

	if (!data)
		return -1;
	for (size_t i = 0; i < bytes; i++)
		lines += data[i] == '\n';
	bpe_open(&t->bpe, &t->vocabulary, lines);
	int done = strlen(data) == bytes ? read_merge_lines(t, path, data)
					 : error(EXIT_DATA, "'%s' holds a zero byte", path);
	free(data);
	return done;
}

int tokenizer_read_merges(struct tokenizer *t, const char *merges)
{
	if (read_part(t, "vocab.json", read_vocabulary) < 0 ||
	    read_merges_file(t, merges) < 0 ||
	    read_part(t, "added_tokens.json", read_added_map) < 0 ||
	    read_part(t, "tokenizer_config.json", read_config) < 0 ||
	    read_part(t, "special_tokens_map.json", read_named) < 0)
		return -1;
	int end = tokenizer_find(t, "<|endoftext|>");
	return end < 0 ? 0 : tokenizer_add(t, merges, "<|endoftext|>", end, true, false);
}
