/*
 * prompts.c - what generating begins with: prompts from the command line or a file, as ids, and the tokens that end a text
 * (transformers': generation_config.json's, else config.json's).
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "launch/session.h"

/* One source of prompts being read. */
struct reading {
	struct prompts *prompts;
	const struct prompt_source *source;
	const struct model_config *model;
	struct tokenizer *tokenizer;
	const struct chat_template *chat;	/* or null */
};

/* What stands behind `from` in ids is the next prompt. */
static int end_prompt(struct reading *r, size_t from, const char *where)
{
	struct prompts *p = r->prompts;
	size_t count = p->ids.count - from;
	int most = r->model->positions > 0 ? r->model->positions : 1 << 30;

	if (count == 0)
		return error(EXIT_DATA, "%s: the prompt is empty, and the tokenizer puts nothing before a text", where);
	if (count > (size_t)most)
		return error(EXIT_DATA, "%s: the prompt has %zu tokens, the model %d positions", where, count, most);
	for (size_t i = from; i < p->ids.count; i++)
		if (p->ids.id[i] < 0 || p->ids.id[i] >= r->model->vocabulary)
			return error(EXIT_DATA, "%s: id %d is not in 0..%d", where, p->ids.id[i],
				     r->model->vocabulary - 1);
	p->prompt = xrealloc(p->prompt, (size_t)(p->count + 1) * sizeof(*p->prompt));
	p->prompt[p->count++].count = (int)count;
	p->longest = (int)count > p->longest ? (int)count : p->longest;
	return 0;
}

/* "1 385 328", also with commas. */
static int add_ids(struct reading *r, const char *text, size_t bytes, const char *where)
{
	size_t from = r->prompts->ids.count;
	const char *at = text, *end = text + bytes;

	for (;;) {
		char *next;
		long id;

		while (at < end && (isspace((unsigned char)*at) || *at == ','))
			at++;
		if (at >= end)
			return end_prompt(r, from, where);
		errno = 0;
		id = strtol(at, &next, 10);
		if (next == at || next > end || errno || id < INT32_MIN || id > INT32_MAX)
			return error(EXIT_DATA, "%s: \"%.20s\" is not a token id, as --ids asks for", where, at);
		*ids_take(&r->prompts->ids, 1) = (int32_t)id;
		at = next;
	}
}

static int add_text(struct reading *r, const char *text, size_t bytes, const char *where)
{
	struct ids *ids = &r->prompts->ids;
	const int32_t *before;
	size_t from = ids->count, valid = utf8_valid(text, bytes), count;

	if (r->source->ids)
		return add_ids(r, text, bytes, where);
	if (valid < bytes)
		return error(EXIT_DATA, "%s:%zu: error: 0x%02X is not UTF-8", where, valid + 1, (uint8_t)text[valid]);
	if (r->chat)
		return template_ask(r->chat, r->tokenizer, where, r->source->system, text, bytes, ids)
			       ? -1 : end_prompt(r, from, where);
	count = tokenizer_before(r->tokenizer, &before);
	if (count > 0)
		memcpy(ids_take(ids, count), before, count * sizeof(*before));
	if (tokenizer_encode(r->tokenizer, text, bytes, true, ids))
		return -1;
	return end_prompt(r, from, where);
}

/* -- files --------------------------------------------------------------------------------- */

/* {"ids": [..]}, {"prompt": ".."} or {"text": ".."}. */
static int add_map(struct reading *r, const struct jsonl *lines, const struct json *map, const char *where)
{
	const struct json *list = json_find(map, "ids");
	size_t from = r->prompts->ids.count, bytes;
	const char *text, *key = json_find(map, "prompt") ? "prompt" : "text";

	if (list && r->chat)
		return jsonl_error(lines, EXIT_DATA, "ids", "\"ids\" are no text that --chat could write a chat of");
	for (size_t i = 0; json_kind(list) == JSON_LIST && i < json_size(list); i++) {
		long long id = json_as_integer(json_at(list, i), -1);

		if (id < 0 || id >= r->model->vocabulary)
			return jsonl_error(lines, EXIT_DATA, "ids", "item %zu of \"ids\" is not in 0..%d", i,
					   r->model->vocabulary - 1);
		*ids_take(&r->prompts->ids, 1) = (int32_t)id;
	}
	if (json_kind(list) == JSON_LIST)
		return end_prompt(r, from, where);
	if (!list && !json_find(map, key))
		return jsonl_error(lines, EXIT_DATA, "", "there is no \"prompt\", \"text\" or \"ids\"");
	text = jsonl_text(lines, key, &bytes);
	return text ? add_text(r, text, bytes, where) : -1;
}

static int read_jsonl(struct reading *r)
{
	struct jsonl *lines = jsonl_open(r->source->file);
	const struct json *map;
	char where[4200];
	int more = lines ? 0 : -1, line = 1;

	while (!more && (more = jsonl_next(lines, &map)) > 0) {
		snprintf(where, sizeof(where), "%.4000s:%d", r->source->file, line++);
		more = add_map(r, lines, map, where);
	}
	jsonl_close(lines);
	return more;
}

/* Where the last line that is not empty ends. */
static char *without_last_lines(char *at, char *end)
{
	while (end > at && (end[-1] == '\n' || end[-1] == '\r'))
		end--;
	return end;
}

/* A prompt a line, behind a byte order mark; empty lines are as in JSON lines: at the end alone. */
static int read_lines(struct reading *r)
{
	static const char mark[] = "\xef\xbb\xbf";
	size_t bytes;
	char *data = file_read(r->source->file, &bytes), where[4200];
	int status = 0, line = 1;

	if (!data)
		return -1;
	for (char *at = data + (strncmp(data, mark, strlen(mark)) == 0 ? strlen(mark) : 0),
		  *end = without_last_lines(at, data + bytes), *next; !status && at < end; at = next) {
		char *stop = memchr(at, '\n', (size_t)(end - at));
		size_t length = (size_t)((stop ? stop : end) - at);

		next = stop ? stop + 1 : end;
		length -= length > 0 && at[length - 1] == '\r';
		snprintf(where, sizeof(where), "%.4000s:%d", r->source->file, line++);
		status = length > 0 ? add_text(r, at, length, where)
				    : error(EXIT_DATA, "%s:1: error: the line is empty, a prompt is expected", where);
	}
	free(data);
	return status;
}

static int read_file(struct reading *r)
{
	const char *dot = strrchr(r->source->file, '.');

	return dot && !strcmp(dot, ".jsonl") ? read_jsonl(r) : read_lines(r);
}

/* -- the ends ------------------------------------------------------------------------------ */

/* -1, which no token has, for what is no id. */
static int32_t id_of(const struct json *value)
{
	long long id = json_as_integer(value, -1);

	return id < 0 || id > INT32_MAX ? -1 : (int32_t)id;
}

/* A number or a list of them; false where the key is not there. */
static bool take_ends(struct ids *ends, const struct json *value)
{
	if (json_kind(value) == JSON_WHOLE)
		*ids_take(ends, 1) = id_of(value);
	for (size_t i = 0; json_kind(value) == JSON_LIST && i < json_size(value); i++)
		*ids_take(ends, 1) = id_of(json_at(value, i));
	return json_kind(value) == JSON_WHOLE || json_kind(value) == JSON_LIST;
}

static int read_ends(struct ids *ends, const struct model_config *model)
{
	static const char *const names[] = {"generation_config.json", "config.json"};
	struct arena arena = {0};
	bool found = false;
	int status = 0;

	for (int i = 0; i < 2 && !found && !status; i++) {
		const char *path = path_join(&arena, model->folder, names[i]);
		struct json *document = path_exists(path) ? json_read(path) : NULL;

		if (document)
			found = take_ends(ends, json_find(document, "eos_token_id"));
		else if (path_exists(path))
			status = -1;
		json_free(document);
	}
	arena_release(&arena);
	return status;
}

/* -- chats --------------------------------------------------------------------------------- */

struct chat_template *prompts_template(const struct model_config *model, const char *name, struct tokenizer *tokenizer)
{
	struct chat_template *chat = NULL;
	struct ids ends = {0};
	struct text end = {0};

	if (!read_ends(&ends, model) &&
	    (ends.count == 0 || !tokenizer_decode(tokenizer, ends.id, 1, true, &end)))
		chat = template_open(model->folder, name, tokenizer, end.bytes > 0 ? end.data : NULL);
	text_release(&end);
	ids_release(&ends);
	return chat;
}

/* -- all of it ----------------------------------------------------------------------------- */

static void find_starts(struct prompts *p)
{
	const int32_t *id = p->ids.id;

	for (int i = 0; i < p->count; i++) {
		p->prompt[i].id = id;
		id += p->prompt[i].count;
	}
}

int prompts_read(struct prompts *p, const struct prompt_source *source, const struct model_config *model,
		 struct tokenizer *tokenizer, const struct chat_template *chat)
{
	struct reading r = {p, source, model, tokenizer, chat};
	int status = 0, stop = chat ? tokenizer_find(tokenizer, template_stop(chat)) : -1;

	for (int i = 0; i < source->texts && !status; i++)
		status = add_text(&r, source->text[i], strlen(source->text[i]), "--prompt");
	if (!status && source->file)
		status = read_file(&r);
	if (!status && p->count == 0)
		status = error(EXIT_DATA, "'%s' has no prompt", source->file);
	if (!status)
		status = read_ends(&p->ends, model);
	if (stop >= 0)
		*ids_take(&p->ends, 1) = (int32_t)stop;
	find_starts(p);
	return status;
}

static int share_ids(struct ids *ids, struct comm *comm)
{
	uint64_t count = ids->count;

	if (comm_broadcast(comm, 0, &count, sizeof(count)))
		return -1;
	if (comm->rank != 0 && count > 0)
		ids_take(ids, (size_t)count);
	return count > 0 ? comm_broadcast(comm, 0, ids->id, (size_t)count * sizeof(*ids->id)) : 0;
}

int prompts_share(struct prompts *p, struct comm *comm)
{
	int sizes[2] = {p->count, p->longest};

	if (comm_broadcast(comm, 0, sizes, sizeof(sizes)))
		return -1;
	p->count = sizes[0];
	p->longest = sizes[1];
	if (comm->rank != 0)
		p->prompt = xzalloc((size_t)p->count, sizeof(*p->prompt));
	if (comm_broadcast(comm, 0, p->prompt, (size_t)p->count * sizeof(*p->prompt)) || share_ids(&p->ids, comm) ||
	    share_ids(&p->ends, comm))
		return -1;
	find_starts(p);
	return 0;
}

void prompts_release(struct prompts *p)
{
	free(p->prompt);
	ids_release(&p->ids);
	ids_release(&p->ends);
}
