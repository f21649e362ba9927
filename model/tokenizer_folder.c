/*
 * model/tokenizer_folder.c - tokenizers without a tokenizer.json: vocab.json with merges.txt, or
 * tokenizer.model, and the files beside them that say what they mean.
 *
 * tokenizer_config.json names a class. What transformers builds in the code of that class is a row
 * of the table here, written as tokenizer.json would say it.
 */
#include "model/internal.h"
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define QWEN2_PATTERN                                                                          \
	"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}"        \
	"| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

static const struct row {
	const char *class[3]; /* tokenizer_class */
	bool pieces;	      /* tokenizer.model, not vocab.json and merges.txt */
	const char *parts;    /* null: said by tokenizer.model */
} rows[] = {
	{{"GPT2Tokenizer", "GPT2TokenizerFast"}, false,
	 "{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false},"
	 " \"decoder\": {\"type\": \"ByteLevel\"}}"},
	{{"Qwen2Tokenizer", "Qwen2TokenizerFast"}, false,
	 "{\"normalizer\": {\"type\": \"NFC\"},"
	 " \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": ["
	 "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" QWEN2_PATTERN "\"},"
	 " \"behavior\": \"Isolated\"},"
	 "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}]},"
	 " \"decoder\": {\"type\": \"ByteLevel\"}}"},
	{{"LlamaTokenizer", "LlamaTokenizerFast"}, true, NULL},
};

/* -- the files beside ---------------------------------------------------------------------- */

/* A token named as special, as a text or as a map with "content". One without an id is of no
 * use. */
static int read_special(struct tokenizer *t, const char *path, const struct json *value)
{
	const char *text = json_as_text(value, json_as_text(json_find(value, "content"), NULL));
	int id = text ? tokenizer_find(t, text) : -1;
	struct fields fields = {.path = path, .map = value};
	struct added flags = {.special = true};

	if (id < 0)
		return 0;
	if (json_kind(value) == JSON_MAP) {
		flags.single_word = fields_flag(&fields, "single_word", false);
		flags.left = fields_flag(&fields, "lstrip", false);
		flags.right = fields_flag(&fields, "rstrip", false);
		flags.normalized = fields_flag(&fields, "normalized", false);
	} else if (t->vocabulary.token[id].kind == TOKEN_SPECIAL) {
		return 0;
	}
	if (fields.failed)
		return -1;
	return tokenizer_add(t, path, text, strlen(text), id, &flags);
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
		const char *text = json_name(it);
		struct added flags = {.normalized = true};

		if (tokenizer_add(t, path, text, strlen(text),
				  json_as_integer(json_value(it), -1), &flags) < 0)
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

		if (tokenizer_read_added(t, path, json_value(it), *end ? -1 : id) < 0)
			return -1;
	}
	return 0;
}

static int read_config(struct tokenizer *t, const char *path, const struct json *config)
{
	struct fields fields = {.path = path, .map = config};
	bool spaced = fields_flag(&fields, "add_prefix_space", false);

	for (int i = 0; i < t->pretokenizer.count; i++) {
		if (t->pretokenizer.step[i].kind == STEP_BYTE_LEVEL)
			t->pretokenizer.step[i].prefix = spaced ? PREFIX_ALWAYS : PREFIX_NEVER;
	}
	if (fields.failed ||
	    read_decoder(t, path, json_find(config, "added_tokens_decoder")) < 0)
		return -1;
	return read_named(t, path, config);
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

static int read_piece_ends(struct tokenizer *t, const char *path, const struct json *config)
{
	return postprocessor_configure(t, path, config, true);
}

static int read_merge_ends(struct tokenizer *t, const char *path, const struct json *config)
{
	return postprocessor_configure(t, path, config, false);
}

static int read_beside(struct tokenizer *t, bool pieces)
{
	if (read_part(t, "added_tokens.json", read_added_map) < 0 ||
	    read_part(t, "tokenizer_config.json", read_config) < 0 ||
	    read_part(t, "special_tokens_map.json", read_named) < 0)
		return -1;
	return read_part(t, "tokenizer_config.json", pieces ? read_piece_ends : read_merge_ends);
}

/* -- vocab.json and merges.txt ------------------------------------------------------------- */

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
		if (!tokenizer_read_merge(t, p, bytes, rank++))
			return error(EXIT_DATA,
				     "%s:%d:1: error: no pair of tokens that join to a token",
				     path, line);
	}
	return 0;
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

static int read_merged(struct tokenizer *t, const struct row *row)
{
	const char *merges = path_join(&t->arena, t->folder, "merges.txt");
	struct json *parts = json_parse(row->parts, strlen(row->parts), row->class[0]);
	int done = parts ? tokenizer_read_parts(t, merges, parts) : -1;

	json_free(parts);
	if (done < 0 || read_part(t, "vocab.json", tokenizer_read_vocabulary) < 0 ||
	    read_merges_file(t, merges) < 0 || read_beside(t, false) < 0)
		return -1;
	int end = tokenizer_find(t, "<|endoftext|>");
	if (end < 0 || t->vocabulary.token[end].kind != TOKEN_MODEL)
		return 0;
	return tokenizer_add(t, merges, "<|endoftext|>", 13, end,
			     &(struct added){.special = true});
}

/* -- which --------------------------------------------------------------------------------- */

/* The row of the class that tokenizer_config.json names; where it names none, GPT-2's or
 * sentencepiece's, by the files that are there. Null after an error. */
static const struct row *choose_row(const char *path, const struct json *config, bool pieces)
{
	const char *standard = pieces ? "LlamaTokenizer" : "GPT2Tokenizer";
	const char *name = json_as_text(json_find(config, "tokenizer_class"), standard);

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		for (const char *const *class = rows[i].class; *class; class ++) {
			if (strcmp(*class, name) == 0)
				return &rows[i];
		}
	}
	refuse_part(path, "without tokenizer.json, the tokenizer_class", name);
	return NULL;
}

int tokenizer_read_folder(struct tokenizer *t)
{
	const char *pieces = path_join(&t->arena, t->folder, "tokenizer.model");
	const char *vocabulary = path_join(&t->arena, t->folder, "vocab.json");
	const char *merges = path_join(&t->arena, t->folder, "merges.txt");
	const char *config = path_join(&t->arena, t->folder, "tokenizer_config.json");
	bool merged = path_exists(vocabulary) && path_exists(merges);

	if (!merged && !path_exists(pieces))
		return error(EXIT_INPUT, "'%s' holds no tokenizer: neither tokenizer.json nor "
			     "tokenizer.model nor vocab.json with merges.txt", t->folder);
	struct json *root = path_exists(config) ? json_read(config) : NULL;
	if (path_exists(config) && !root)
		return -1;
	const struct row *row = choose_row(config, root, path_exists(pieces));
	int done = row ? 0 : -1;
	if (row && (row->pieces ? !path_exists(pieces) : !merged))
		done = error(EXIT_INPUT, "'%s' names a %s, whose %s not there", config,
			     row->class[0], row->pieces ? "tokenizer.model is"
							: "vocab.json and merges.txt are");
	if (done == 0 && row->pieces)
		done = tokenizer_read_pieces(t, pieces, root) < 0 ? -1 : read_beside(t, true);
	else if (done == 0)
		done = read_merged(t, row);
	json_free(root);
	return done;
}
