/*
 * model/samples.c - samples in JSONL: {"text": ...}, or {"prompt": ..., "completion": ...}, one
 * a line.
 *
 * The first line tells the form, every other must have it too. A prompt and its completion are
 * tokenised each by itself, so that the border between untrained and trained tokens is exact,
 * and the end-of-text token follows. Special tokens written in the text become their ids, as in
 * transformers.
 */
#include "model/dataset.h"

#include <string.h>

/* Forms that people use; those without a function are known by name only. */
struct line_form {
	const char *key[3]; /* must be there, ended by null */
	int (*add)(struct reader *reader, struct jsonl *lines, struct ids *ids);
};
static int add_pair(struct reader *reader, struct jsonl *lines, struct ids *ids);
static int add_text(struct reader *reader, struct jsonl *lines, struct ids *ids);

static const struct line_form line_forms[] = {
	{{"prompt", "completion"}, add_pair},
	{{"text"}, add_text},
	{{"messages"}, NULL},
	{{"question", "answer"}, NULL},
	{{"instruction", "output"}, NULL},
	{{"conversations"}, NULL},
};

static int encode_key(struct reader *r, struct jsonl *lines, const char *key, struct ids *ids)
{
	size_t bytes;
	const char *text = jsonl_text(lines, key, &bytes);

	return text ? tokenizer_encode(r->tokenizer, text, bytes, true, ids) : -1;
}

static int add_pair(struct reader *r, struct jsonl *lines, struct ids *ids)
{
	if (encode_key(r, lines, "prompt", ids) < 0)
		return -1;
	size_t prompt = ids->count;
	if (encode_key(r, lines, "completion", ids) < 0)
		return -1;
	if (ids->count == prompt)
		return jsonl_error(lines, EXIT_DATA, "the completion is empty");
	*ids_take(ids, 1) = r->end;
	return reader_add(r, ids->id, NULL, ids->count,
			  r->data->mask == MASK_NONE ? 0 : prompt);
}

static int add_text(struct reader *r, struct jsonl *lines, struct ids *ids)
{
	if (encode_key(r, lines, "text", ids) < 0)
		return -1;
	if (r->end >= 0)
		*ids_take(ids, 1) = r->end;
	return reader_add(r, ids->id, NULL, ids->count, 0);
}

static const struct line_form *form_of(const struct jsonl *lines, const struct json *map)
{
	size_t i = 0, count = sizeof line_forms / sizeof line_forms[0];

	while (i < count && !(json_find(map, line_forms[i].key[0]) &&
			      (!line_forms[i].key[1] || json_find(map, line_forms[i].key[1]))))
		i++;
	if (i == count)
		jsonl_error(lines, EXIT_DATA,
			    "neither \"prompt\" and \"completion\" nor \"text\" is there");
	else if (!line_forms[i].add)
		jsonl_error(lines, EXIT_CONFIG,
			    "lines with \"%s\" are not built; what is built: "
			    "\"prompt\" and \"completion\", or \"text\"",
			    line_forms[i].key[0]);
	else
		return &line_forms[i];
	return NULL;
}

static int check_form(const struct reader *r, const struct line_form *form)
{
	if (form->add == add_text && r->data->mask == MASK_PROMPT)
		return error(EXIT_CONFIG,
			     "data.mask is prompt, but the lines of '%s' have no \"prompt\"",
			     r->path);
	if (form->add == add_pair && r->end < 0)
		return error(EXIT_CONFIG,
			     "the completions of '%s' need an end-of-text token, "
			     "and '%s' names none",
			     r->path, r->config->folder);
	return 0;
}

static int read_lines(struct reader *r, struct jsonl *lines, struct ids *ids)
{
	const struct line_form *form = NULL;
	const struct json *map;
	int more;

	while ((more = jsonl_next(lines, &map)) > 0) {
		if (!form) {
			form = form_of(lines, map);
			if (!form || check_form(r, form) < 0)
				return -1;
		}
		ids->count = 0;
		if (form->add(r, lines, ids) < 0)
			return -1;
	}
	return more;
}

int read_jsonl(struct reader *r)
{
	struct jsonl *lines = jsonl_open(r->path);
	struct ids ids = {0};
	int done = lines ? read_lines(r, lines, &ids) : -1;

	ids_release(&ids);
	jsonl_close(lines);
	return done;
}
