/*
 * model/postprocessor.c - what a tokenizer puts before and after a text: the post_processor of
 * tokenizer.json, or what tokenizer_config.json says where that has none.
 *
 * Only templates of one text matter here. ByteLevel moves offsets, which nobody asks for.
 */
#include "model/internal.h"
#include "model/tokenizer.h"

#include <string.h>

/* Adds an id to a list, at its front or its end. */
static int add_end(struct tokenizer *t, const char *path, struct ids *ids, long long id,
		   bool front)
{
	if (id < 0 || id >= t->vocabulary.size || !t->vocabulary.token[id].text)
		return error(EXIT_DATA, "'%s': the post_processor puts the id %lld, which no "
			     "token has", path, id);
	ids_take(ids, 1);
	if (front)
		memmove(ids->id + 1, ids->id, (ids->count - 1) * sizeof *ids->id);
	ids->id[front ? 0 : ids->count - 1] = (int32_t)id;
	return 0;
}

/* The ids of a special token of a template; several where its name stands for several. */
static int add_special(struct tokenizer *t, const char *path, const struct json *template,
		       const struct json *item, struct ids *ids)
{
	const char *name = json_as_text(json_find(item, "id"), "");
	const struct json *known = json_find(json_find(template, "special_tokens"), name);
	const struct json *list = json_find(known, "ids");

	if (json_kind(list) != JSON_LIST)
		return error(EXIT_DATA, "'%s': the post_processor says nothing of its special "
			     "token '%s'", path, name);
	for (size_t i = 0; i < json_size(list); i++) {
		if (add_end(t, path, ids, json_as_integer(json_at(list, i), -1), false) < 0)
			return -1;
	}
	return 0;
}

/* A template stands around what an earlier one has put. */
static void wrap(struct tokenizer *t, const struct ids *before, const struct ids *after)
{
	struct ids whole = {0};

	if (before->count > 0)
		memcpy(ids_take(&whole, before->count), before->id,
		       before->count * sizeof *before->id);
	if (t->before.count > 0)
		memcpy(ids_take(&whole, t->before.count), t->before.id,
		       t->before.count * sizeof *t->before.id);
	ids_release(&t->before);
	t->before = whole;
	if (after->count > 0)
		memcpy(ids_take(&t->after, after->count), after->id,
		       after->count * sizeof *after->id);
}

static int read_template(struct tokenizer *t, const char *path, const struct json *map)
{
	const struct json *single = json_find(map, "single");
	struct ids side[2] = {{0}};
	int texts = 0, done = 0;

	for (size_t i = 0; done == 0 && i < json_size(single); i++) {
		const struct json *item = json_at(single, i);
		const struct json *token = json_find(item, "SpecialToken");
		const char *text = json_as_text(json_find(json_find(item, "Sequence"), "id"), "");

		if (token)
			done = add_special(t, path, map, token, &side[texts > 0]);
		else if (strcmp(text, "A") == 0)
			texts++;
		else
			texts = 2;
	}
	if (done == 0 && texts != 1)
		done = error(EXIT_CONFIG, "'%s': a TemplateProcessing whose \"single\" does not "
			     "hold the text \"A\" once is not built", path);
	if (done == 0)
		wrap(t, &side[0], &side[1]);
	ids_release(&side[0]);
	ids_release(&side[1]);
	return done;
}

/* BERT's and RoBERTa's: "cls" before, "sep" after, each a list of a text and an id. */
static int read_pair(struct tokenizer *t, const char *path, const struct json *map)
{
	const struct json *cls = json_find(map, "cls"), *sep = json_find(map, "sep");
	struct ids side[2] = {{0}};
	int done = add_end(t, path, &side[0], json_as_integer(json_at(cls, 1), -1), false);

	if (done == 0)
		done = add_end(t, path, &side[1], json_as_integer(json_at(sep, 1), -1), false);
	if (done == 0)
		wrap(t, &side[0], &side[1]);
	ids_release(&side[0]);
	ids_release(&side[1]);
	return done;
}

int postprocessor_read(struct tokenizer *t, const char *path, const struct json *map)
{
	const struct json *list = json_find(map, "processors");
	const char *type = json_as_text(json_find(map, "type"), "?");

	if (json_is_nothing(map) || strcmp(type, "ByteLevel") == 0)
		return 0;
	if (strcmp(type, "TemplateProcessing") == 0)
		return read_template(t, path, map);
	if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0)
		return read_pair(t, path, map);
	if (strcmp(type, "Sequence") != 0)
		return error(EXIT_CONFIG, "'%s': the post_processor '%s' is not built", path,
			     type);
	for (size_t i = 0; i < json_size(list); i++) {
		if (postprocessor_read(t, path, json_at(list, i)) < 0)
			return -1;
	}
	return 0;
}

/* Puts the token that a key of tokenizer_config.json names, where there is one. */
static int add_named(struct tokenizer *t, const char *path, const struct json *config,
		     const char *key, const char *standard, bool front)
{
	const struct json *value = json_find(config, key);
	const char *name =
		json_as_text(value, json_as_text(json_find(value, "content"), standard));
	int id = name ? tokenizer_find(t, name) : -1;

	if (id < 0)
		return error(EXIT_DATA, "'%s': add_%.3s_token is true, and there is no token '%s'",
			     path, key, name ? name : key);
	return add_end(t, path, front ? &t->before : &t->after, id, front);
}

int postprocessor_configure(struct tokenizer *t, const char *path, const struct json *config,
			    bool sentencepiece)
{
	struct fields fields = {.path = path, .map = config};
	bool begin = fields_flag(&fields, "add_bos_token", sentencepiece);
	bool end = fields_flag(&fields, "add_eos_token", false);

	if (fields.failed)
		return -1;
	if (begin && add_named(t, path, config, "bos_token", sentencepiece ? "<s>" : NULL,
			       true) < 0)
		return -1;
	if (end && add_named(t, path, config, "eos_token", sentencepiece ? "</s>" : NULL,
			     false) < 0)
		return -1;
	return 0;
}

size_t tokenizer_before(const struct tokenizer *t, const int32_t **ids)
{
	*ids = t->before.id;
	return t->before.count;
}

size_t tokenizer_after(const struct tokenizer *t, const int32_t **ids)
{
	*ids = t->after.id;
	return t->after.count;
}
