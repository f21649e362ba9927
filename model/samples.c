/*
 * model/samples.c - samples in JSONL, one a line, in the forms that people have: a text, a
 * prompt and its completion, a question and its answer, an instruction (Alpaca), a conversation
 * (messages, or ShareGPT's).
 *
 * The first line tells the form, every other must have it too. A prompt and its completion are
 * tokenised each by itself, so that the border between untrained and trained tokens is exact,
 * and the end-of-text token follows. Special tokens written in a text, a prompt or a completion
 * become their ids, as in transformers; those written in a conversation do not.
 */
#include "model/turns.h"

#include <stdlib.h>
#include <string.h>

struct line_form {
	enum data_column key[2];
	int keys;
	bool list; /* the first key holds a list */
	bool chat; /* it needs a template */
	int (*add)(struct reader *r, struct jsonl *lines, const struct json *map);
};
static int add_pair(struct reader *r, struct jsonl *lines, const struct json *map);
static int add_text(struct reader *r, struct jsonl *lines, const struct json *map);
static int add_chat(struct reader *r, struct jsonl *lines, const struct json *map);

static const struct line_form line_forms[] = {
	{{COLUMN_PROMPT, COLUMN_COMPLETION}, 2, false, false, add_pair},
	{{COLUMN_MESSAGES}, 1, true, true, add_chat},
	{{COLUMN_CONVERSATIONS}, 1, true, true, add_chat},
	{{COLUMN_INSTRUCTION, COLUMN_OUTPUT}, 2, false, true, add_chat},
	{{COLUMN_QUESTION, COLUMN_ANSWER}, 2, false, false, add_pair},
	{{COLUMN_TEXT}, 1, false, false, add_text},
};
#define LINE_FORMS (sizeof line_forms / sizeof line_forms[0])

/* The standard names stand in launch's table of keys too. */
const char *column_name(const struct reader *r, enum data_column column)
{
	static const char *const names[DATA_COLUMNS] = {
		"text",	       "prompt",  "completion", "question", "answer", "messages",
		"role",	       "content", "instruction", "input",   "output", "conversations",
		"from",	       "value",	  "system",	"history",
	};

	return r->data->column[column] ? r->data->column[column] : names[column];
}

/* -- samples ------------------------------------------------------------------------------- */

/* Appends the ids of a text; without a tokenizer its bytes. */
static int encode_text(struct reader *r, const char *text, size_t bytes)
{
	if (r->tokenizer)
		return tokenizer_encode(r->tokenizer, text, bytes, true, &r->ids_of_line);
	int32_t *id = ids_take(&r->ids_of_line, bytes);
	for (size_t i = 0; i < bytes; i++)
		id[i] = (uint8_t)text[i];
	return 0;
}

static int encode_key(struct reader *r, struct jsonl *lines, enum data_column column)
{
	const char *key = column_name(r, column);
	size_t bytes;
	const char *text = jsonl_text(lines, key, &bytes);

	if (!text)
		return -1;
	if (encode_text(r, text, bytes) == 0)
		return 0;
	return jsonl_error(lines, EXIT_DATA, key, "\"%s\" cannot be tokenised", key);
}

/* Puts before the ids what the tokenizer puts before a text, unless the text says it itself. */
static void put_before(struct reader *r)
{
	const int32_t *before = NULL;
	size_t count = r->tokenizer ? tokenizer_before(r->tokenizer, &before) : 0;
	struct ids *ids = &r->ids_of_line;

	if (count == 0 || (ids->count >= count && memcmp(ids->id, before, count * sizeof *before) == 0))
		return;
	ids_take(ids, count);
	memmove(ids->id + count, ids->id, (ids->count - count) * sizeof *before);
	memcpy(ids->id, before, count * sizeof *before);
}

/* Puts what comes after a text, and the end-of-text token, once. */
static void put_after(struct reader *r)
{
	const int32_t *after = NULL;
	size_t count = r->tokenizer ? tokenizer_after(r->tokenizer, &after) : 0;
	struct ids *ids = &r->ids_of_line;

	if (count > 0)
		memcpy(ids_take(ids, count), after, count * sizeof *after);
	if (r->end >= 0 && (count == 0 || ids->id[ids->count - 1] != r->end))
		*ids_take(ids, 1) = r->end;
}

/* The labels of the line's ids, all of them trained or none. */
static int32_t *labels_of(struct reader *r, bool trained)
{
	const struct ids *ids = &r->ids_of_line;

	r->labels_of_line.count = 0;
	int32_t *labels = ids_take(&r->labels_of_line, ids->count);
	for (size_t i = 0; i < ids->count; i++)
		labels[i] = trained ? ids->id[i] : UNTRAINED;
	return labels;
}

static int add_line(struct reader *r, const int32_t *labels)
{
	return reader_add(r, r->ids_of_line.id, labels, r->ids_of_line.count);
}

static int add_text(struct reader *r, struct jsonl *lines, const struct json *map)
{
	(void)map;
	if (encode_key(r, lines, COLUMN_TEXT) < 0)
		return -1;
	put_before(r);
	put_after(r);
	return add_line(r, NULL);
}

static int add_plain_pair(struct reader *r, struct jsonl *lines)
{
	const enum data_column *key = r->form->key;

	if (encode_key(r, lines, key[0]) < 0)
		return -1;
	put_before(r);
	size_t prompt = r->ids_of_line.count;
	if (encode_key(r, lines, key[1]) < 0)
		return -1;
	if (r->ids_of_line.count == prompt)
		return jsonl_error(lines, EXIT_DATA, column_name(r, key[1]),
				   "the %s is empty", column_name(r, key[1]));
	put_after(r);
	int32_t *labels = labels_of(r, true);
	for (size_t i = 0; i < prompt && r->data->mask != MASK_NONE; i++)
		labels[i] = UNTRAINED;
	return add_line(r, labels);
}

static int add_pair(struct reader *r, struct jsonl *lines, const struct json *map)
{
	return r->template ? add_chat(r, lines, map) : add_plain_pair(r, lines);
}

/* The next turn of the assistant: each was rendered, in this order. */
static int next_answer(const struct chat *chat, int turn)
{
	do
		turn++;
	while (chat->turn[turn].role != CHAT_ASSISTANT);
	return turn;
}

/* Marks what the mask leaves of the answers. */
static int add_answers(struct reader *r)
{
	const struct spans *answer = &r->rendered.answer;
	int32_t *labels = labels_of(r, r->data->mask == MASK_NONE);
	bool last_alone = r->data->mask == MASK_PROMPT;
	int turn = -1;

	for (size_t i = 0; i < answer->count; i++) {
		turn = next_answer(&r->chat, turn);
		if ((last_alone && i + 1 < answer->count) || r->chat.turn[turn].untrained)
			continue;
		for (size_t k = answer->item[i].from; k < answer->item[i].to; k++)
			labels[k] = r->ids_of_line.id[k];
	}
	return add_line(r, labels);
}

static int read_turns(struct reader *r, struct jsonl *lines, const struct json *map)
{
	const enum data_column *key = r->form->key;

	r->chat.count = 0;
	if (key[0] == COLUMN_MESSAGES || key[0] == COLUMN_CONVERSATIONS)
		return turns_of_list(r, lines, map, key[0]);
	if (key[0] == COLUMN_INSTRUCTION)
		return turns_of_alpaca(r, lines, map);
	return turns_of_pair(r, lines, key);
}

/* Without a tokenizer: what was said, one turn behind the other. */
static int add_bare_chat(struct reader *r)
{
	for (int i = 0; i < r->chat.count; i++) {
		if (encode_text(r, r->chat.turn[i].text, r->chat.turn[i].bytes) < 0)
			return -1;
	}
	return add_line(r, NULL);
}

static int add_chat(struct reader *r, struct jsonl *lines, const struct json *map)
{
	char where[96];
	const char *why;
	int turn;

	if (read_turns(r, lines, map) < 0)
		return -1;
	if (!r->template)
		return add_bare_chat(r);
	if (render_chat(r->template, &r->chat, &r->rendered, &turn, &why) < 0) {
		turns_place(r, turn, where, sizeof where);
		return jsonl_error(lines, EXIT_DATA, where, "turn %d: %s (template %s)", turn,
				   why, template_name(r->template));
	}
	if (r->template->row.alpaca)
		put_before(r); /* other templates write what their models need themselves */
	if (encode_rendered(r->tokenizer, r->template, &r->rendered, &r->ids_of_line) < 0)
		return jsonl_error(lines, EXIT_DATA, "", "the chat cannot be tokenised");
	return add_answers(r);
}

/* -- the form of a file -------------------------------------------------------------------- */

/* Whether a line has the keys of a form. */
static bool fits(const struct reader *r, const struct line_form *form, const struct json *map,
		 bool kinds)
{
	for (int i = 0; i < form->keys; i++) {
		const struct json *value = json_find(map, column_name(r, form->key[i]));

		if (!value || (kinds && i == 0 && form->list && json_kind(value) != JSON_LIST))
			return false;
	}
	return true;
}

static bool is_mapped(const struct reader *r, const struct line_form *form)
{
	for (int i = 0; i < form->keys; i++) {
		if (r->data->column[form->key[i]])
			return true;
	}
	return false;
}

/* The form of the first line. Where data.columns names keys of forms, it is one of these. */
static const struct line_form *form_of(const struct reader *r, const struct json *map)
{
	bool mapped = false;

	for (size_t i = 0; i < LINE_FORMS; i++)
		mapped = mapped || is_mapped(r, &line_forms[i]);
	for (int kinds = 1; kinds >= 0; kinds--) {
		for (size_t i = 0; i < LINE_FORMS; i++) {
			if (is_mapped(r, &line_forms[i]) == mapped &&
			    fits(r, &line_forms[i], map, kinds))
				return &line_forms[i];
		}
	}
	return NULL;
}

/* Says what the first line lacks: a column that was named, else any form. */
static int no_form(const struct reader *r, const struct jsonl *lines, const struct json *map)
{
	for (int i = 0; i < DATA_COLUMNS; i++) {
		const char *name = r->data->column[i];
		const char *near = name ? json_nearest(map, name) : NULL;

		if (name && !json_find(map, name))
			return jsonl_error(lines, EXIT_DATA, "",
					   "there is no \"%s\", which data.columns names%s%s%s",
					   name, near ? " (did you mean \"" : "",
					   near ? near : "", near ? "\"?)" : "");
	}
	struct text keys = {0};
	text_put(&keys, "", 0);
	for (void *it = json_first(map); it && keys.bytes < 120; it = json_next(map, it)) {
		text_add(&keys, keys.bytes ? ", " : " (");
		json_add_text(&keys, json_name(it));
	}
	int done = jsonl_error(lines, EXIT_DATA, "",
			       "the keys%s%s tell no form: there must be \"text\", \"prompt\" and "
			       "\"completion\", \"question\" and \"answer\", \"messages\", "
			       "\"instruction\" and \"output\", or \"conversations\" "
			       "(data.columns maps other names)",
			       keys.data, keys.bytes ? ")" : "");
	text_release(&keys);
	return done;
}

static int check_form(struct reader *r, const struct line_form *form)
{
	const struct data_config *data = r->data;
	const char *name = data->template;

	if (form->add == add_text && reader_wants_answers(r))
		return error(EXIT_CONFIG,
			     "data.mask is %s, but the lines of '%s' have no \"prompt\"",
			     mask_name(r), r->path);
	if (form->add == add_text && name)
		return error(EXIT_CONFIG,
			     "data.template is %s, but the lines of '%s' hold texts, no chats",
			     name, r->path);
	if (!r->tokenizer)
		return 0;
	if (!name && form->key[0] == COLUMN_INSTRUCTION)
		name = "alpaca";
	if (form->chat || name) {
		r->template = template_open(r->config->folder, name, r->tokenizer, r->end_text.data);
		return r->template ? 0 : -1;
	}
	if (form->add == add_pair && r->end < 0)
		return error(EXIT_CONFIG,
			     "the completions of '%s' need an end-of-text token, "
			     "and '%s' names none",
			     r->path, r->config->folder);
	return 0;
}

static int add_next(struct reader *r, struct jsonl *lines, const struct json *map)
{
	if (!r->form) {
		r->form = form_of(r, map);
		r->form_column = r->form ? r->form->key[0] : DATA_COLUMNS;
		if (!r->form)
			return no_form(r, lines, map);
		r->unfit = check_form(r, r->form) < 0;
	}
	if (r->unfit)
		return -1;
	r->ids_of_line.count = 0;
	return r->form->add(r, lines, map);
}

/* A survey goes on behind a broken line. */
int read_jsonl(struct reader *r)
{
	struct jsonl *lines = jsonl_open(r->path);
	const struct json *map;
	int more = lines ? 1 : -1;

	r->skips = true;
	while (more > 0) {
		more = jsonl_next(lines, &map);
		if (more > 0 && add_next(r, lines, map) < 0)
			more = -1;
		if (more < 0 && r->survey && !jsonl_failed(lines) && !r->unfit) {
			survey_error(r->survey);
			more = 1;
		}
	}
	jsonl_close(lines);
	return more;
}

const char *reader_form(const struct reader *r)
{
	static const char *const names[] = {
		"prompt and completion", "messages",	    "conversations (ShareGPT)",
		"instruction (Alpaca)",	 "question and answer", "text",
	};

	if (!r->extension || strcmp(r->extension, ".jsonl") != 0)
		return r->extension && strcmp(r->extension, ".txt") == 0 ? "plain text, packed"
									  : "tokens";
	return r->form ? names[r->form - line_forms] : "unknown";
}
