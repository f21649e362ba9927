/*
 * model/template.c - how chats are written for a model: the well-known templates, one row each,
 * and which of them a model's own chat_template is.
 *
 * There is no Jinja here. A model's template is recognised word for word (template_words.c);
 * what differs between models of a kind without changing the kind (a standard system message, a
 * BOS) is read out of it. One that is not known is refused, with the row that it resembles.
 */
#include "model/chat.h"
#include "model/internal.h"

#include <stdlib.h>
#include <string.h>

#define TEMPLATE_MOST ((size_t)16 << 20) /* bytes of a file that holds one */

#define CHATML_TURN(role) {"<|im_start|>" role "\n", "<|im_end|>", "\n", false}
#define CHATMLS \
	.system = CHATML_TURN("system"), .user = CHATML_TURN("user"), \
	.assistant = CHATML_TURN("assistant"), .token = {"<|im_start|>", "<|im_end|>"}
#define HEADER_TURN(role) \
	{"<|start_header_id|>" role "<|end_header_id|>\n\n", "<|eot_id|>", NULL, true}
#define HEADER \
	.bos = true, .user = HEADER_TURN("user"), .assistant = HEADER_TURN("assistant"), \
	.token = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}
#define GEMMAS \
	.bos = true, .alternate = true, \
	.user = {"<start_of_turn>user\n", "<end_of_turn>", "\n", true}, \
	.assistant = {"<start_of_turn>model\n", "<end_of_turn>", "\n", true}, \
	.token = {"<start_of_turn>", "<end_of_turn>"}
#define INST .alternate = true, .token = {"[INST]", "[/INST]"}
#define ALPACA_TASK "Below is an instruction that describes a task. "
#define ALPACA_WRITE \
	"Write a response that appropriately completes the request."

enum {
	CHATML, QWEN, QWEN2, QWEN3, LLAMA2, LLAMA3, LLAMA3_1, MISTRAL, MISTRAL_V1, MISTRAL_V3,
	GEMMA, GEMMA3, PHI, ZEPHYR, ALPACA, ROWS
};
static const struct template_row rows[ROWS] = {
	[CHATML] = {"chatml", CHATMLS},
	[QWEN] = {"qwen", CHATMLS,
	 .standard = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
	[QWEN2] = {"qwen2", CHATMLS, .standard = "You are a helpful assistant."},
	[QWEN3] = {"qwen3", CHATMLS, .think = true},
	[LLAMA2] = {"llama2", INST, .system_way = SYSTEM_FIRST_USER, .trim_joined = true,
	 .system = {"<<SYS>>\n", "\n<</SYS>>\n\n", NULL, false},
	 .user = {"\1[INST] ", " [/INST]", NULL, true},
	 .assistant = {" ", " \2", NULL, true}},
	[LLAMA3] = {"llama3", HEADER, .system = HEADER_TURN("system")},
	[LLAMA3_1] = {"llama3.1", HEADER, .standard = "",
	 .system = {"<|start_header_id|>system<|end_header_id|>\n\n"
		    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
		    "<|eot_id|>", NULL, true},
	 .later = "<|start_header_id|>system<|end_header_id|>\n\n"},
	[MISTRAL] = {"mistral", INST, .bos = true, .system_way = SYSTEM_FIRST_USER,
	 .system = {"", "\n\n", NULL, false}, .user = {" [INST] ", " [/INST]", NULL, false},
	 .assistant = {" ", "\2", NULL, false}},
	[MISTRAL_V1] = {"mistral-v1", INST, .bos = true, .system_way = SYSTEM_REFUSED,
	 .user = {"[INST] ", " [/INST]", NULL, false}, .assistant = {"", "\2", NULL, false}},
	[MISTRAL_V3] = {"mistral-v3", INST, .bos = true, .system_way = SYSTEM_LAST_USER,
	 .system = {"", "\n\n", NULL, false}, .user = {"[INST] ", "[/INST]", NULL, false},
	 .assistant = {" ", "\2", NULL, true}},
	[GEMMA] = {"gemma", GEMMAS, .system_way = SYSTEM_REFUSED},
	[GEMMA3] = {"gemma3", GEMMAS, .system_way = SYSTEM_FIRST_USER, .system = {"", "\n\n", NULL, false}},
	[PHI] = {"phi", .system = {"<|system|>\n", "<|end|>", "\n", false},
	 .user = {"<|user|>\n", "<|end|>", "\n", false},
	 .assistant = {"<|assistant|>\n", "<|end|>", "\n", false}, .end = "\2",
	 .token = {"<|system|>", "<|user|>", "<|assistant|>", "<|end|>"}},
	[ZEPHYR] = {"zephyr", .system = {"<|system|>\n", "\2", "\n", false},
	 .user = {"<|user|>\n", "\2", "\n", false},
	 .assistant = {"<|assistant|>\n", "\2", "\n", false},
	 .token = {"<|system|>", "<|user|>", "<|assistant|>"}},
	[ALPACA] = {"alpaca", .alpaca = true, .alternate = true, .standard = ALPACA_TASK ALPACA_WRITE,
	 .system = {"", "\n\n", NULL, false},
	 .user = {"### Instruction:\n", "\n\n", NULL, false},
	 .assistant = {"### Response:\n", "\2", NULL, false}, .between = "\n\n"},
};

const char *const template_words[] = {
	"chatml",  "qwen",	 "qwen2",      "qwen3", "llama2", "llama3", "llama3.1",
	"mistral", "mistral-v1", "mistral-v3", "gemma", "gemma3", "phi",    "zephyr",
	"alpaca",  NULL,
};

static const struct template_row *find_row(const char *name)
{
	for (int i = 0; i < ROWS; i++) {
		if (strcmp(rows[i].name, name) == 0)
			return &rows[i];
	}
	return NULL;
}

static void add_names(struct text *list)
{
	for (int i = 0; i < ROWS; i++)
		text_add(list, "%s%s", i ? ", " : "", rows[i].name);
}

/* -- resembling ---------------------------------------------------------------------------- */

static bool has(const char *jinja, const char *words)
{
	return strstr(jinja, words) != NULL;
}

/* Whether a text stands there as a literal of Jinja, in either kind of quotes. */
static bool has_literal(const char *jinja, const char *text)
{
	char one[64], two[64];

	snprintf(one, sizeof one, "'%s'", text);
	snprintf(two, sizeof two, "\"%s\"", text);
	return has(jinja, one) || has(jinja, two);
}

static const struct template_row *resembling_inst(const char *jinja)
{
	if (has(jinja, "[SYSTEM_PROMPT]"))
		return NULL;
	if (has(jinja, "<<SYS>>"))
		return &rows[LLAMA2];
	if (has_literal(jinja, " [INST] ") && has_literal(jinja, " [/INST]"))
		return &rows[MISTRAL];
	if (has_literal(jinja, "[INST] ") && has_literal(jinja, "[/INST]"))
		return &rows[MISTRAL_V3];
	if (has_literal(jinja, "[INST] ") && has_literal(jinja, " [/INST]"))
		return &rows[MISTRAL_V1];
	return NULL;
}

static const struct template_row *resembling_bars(const char *jinja)
{
	if (has(jinja, "'<|user|>\\n' + message['content'] + eos_token"))
		return &rows[ZEPHYR];
	if (has(jinja, "'<|user|>\\n' + message['content'] + '<|end|>\\n'") &&
	    has(jinja, "eos_token"))
		return &rows[PHI];
	return NULL;
}

/* The row that a template of unknown words may be meant to write; null: none. */
static const struct template_row *resembling(const char *jinja)
{
	if (has(jinja, "<|im_sep|>"))
		return NULL;
	if (has(jinja, "<|im_start|>") && has(jinja, "<think>"))
		return has(jinja, "reasoning_content") ? &rows[QWEN3] : NULL;
	if (has(jinja, "<|im_start|>"))
		return &rows[CHATML];
	if (has(jinja, "<|start_header_id|>"))
		return &rows[has(jinja, "Cutting Knowledge Date") ? LLAMA3_1 : LLAMA3];
	if (has(jinja, "<start_of_turn>"))
		return &rows[has(jinja, "first_user_prefix") ? GEMMA3 : GEMMA];
	if (has(jinja, "[INST]"))
		return resembling_inst(jinja);
	return resembling_bars(jinja);
}

/* A template with its newlines spelled out: both ways stand in literals. */
static const char *flattened(struct arena *arena, const char *jinja)
{
	struct text flat = {0};

	text_put(&flat, "", 0);
	for (; *jinja; jinja++)
		text_put(&flat, *jinja == '\n' ? "\\n" : jinja, *jinja == '\n' ? 2 : 1);
	const char *copy = arena_copy(arena, flat.data, flat.bytes);
	text_release(&flat);
	return copy;
}

/* Takes what a model's own template says beyond its row. */
static void take_words(struct chat_template *t, const struct known_template *known,
		       const struct jinja *said)
{
	struct template_row *row = &t->row;
	const char *name = row->name;

	if (strcmp(name, rows[CHATML].name) == 0) {
		row->standard = said->standard;
		for (int i = 0; said->standard && i < ROWS; i++) {
			if (rows[i].standard && strcmp(rows[i].standard, said->standard) == 0)
				row->name = rows[i].name;
		}
		row->bos = has(said->words, "bos_token");
	}
	if (row->bos && strcmp(name, rows[MISTRAL].name) != 0 &&
	    strcmp(name, rows[MISTRAL_V3].name) != 0)
		row->bos = has(said->words, "bos_token");
	/* The first of Mistral's put a space between an answer and the next question. */
	if (strcmp(name, rows[MISTRAL_V1].name) == 0 && has(said->words, "eos_token + ' '"))
		row->assistant.after = " ";
	row->unempty = known->unempty;
	t->question = said->question;
}

/* -- a model's files ----------------------------------------------------------------------- */

/* A token of tokenizer_config.json: a text, or a map with its content. */
static const char *token_text(struct arena *arena, const struct json *map, const char *key)
{
	const struct json *value = json_find(map, key);
	const char *text;

	if (json_kind(value) == JSON_MAP)
		value = json_find(value, "content");
	text = json_as_text(value, NULL);
	return text && text[0] ? arena_copy(arena, text, strlen(text)) : NULL;
}

/* The template in a JSON file: a text, or the one called "default" in a list. */
static const char *jinja_in(struct arena *arena, const struct json *map)
{
	const struct json *value = json_find(map, "chat_template");
	const struct json *found = value;

	for (size_t i = 0; json_kind(value) == JSON_LIST && i < json_size(value); i++) {
		const struct json *item = json_at(value, i);

		if (strcmp(json_as_text(json_find(item, "name"), ""), "default") == 0)
			found = json_find(item, "template");
	}
	const char *text = json_as_text(found, NULL);
	return text ? arena_copy(arena, text, strlen(text)) : NULL;
}

/* What a JSON file of the folder says of templates and tokens, where others have not. */
static int read_json(struct chat_template *t, const char *folder, const char *name,
		     const char **jinja)
{
	const char *path = path_join(&t->arena, folder, name);

	if (!path_exists(path))
		return 0;
	struct json *map = json_read_map(path, TEMPLATE_MOST, NULL, NULL);
	if (!map)
		return -1;
	if (!t->bos)
		t->bos = token_text(&t->arena, map, "bos_token");
	if (!t->eos)
		t->eos = token_text(&t->arena, map, "eos_token");
	if (!*jinja)
		*jinja = jinja_in(&t->arena, map);
	json_free(map);
	return 0;
}

static int read_folder(struct chat_template *t, const char *folder, const char **jinja)
{
	const char *path = path_join(&t->arena, folder, "chat_template.jinja");
	size_t bytes;

	*jinja = NULL;
	if (path_exists(path)) {
		char *text = file_read(path, &bytes);

		if (!text)
			return -1;
		*jinja = arena_copy(&t->arena, text, bytes);
		free(text);
	}
	return read_json(t, folder, "chat_template.json", jinja) < 0 ||
			       read_json(t, folder, "tokenizer_config.json", jinja) < 0 ||
			       read_json(t, folder, "special_tokens_map.json", jinja) < 0
		       ? -1
		       : 0;
}

/* The first of some tokens that the vocabulary has; null: none. */
static const char *first_of(const struct tokenizer *tokenizer, const char *const *token)
{
	while (*token && tokenizer_find(tokenizer, *token) < 0)
		token++;
	return *token;
}

static int unknown_name(const char *name)
{
	const char *near = nearest_word(name, template_words, ROWS);
	struct text list = {0};

	add_names(&list);
	report(EXIT_CONFIG, "data.template: \"%s\" is none of %s%s%s%s", name, list.data,
	       near ? " (did you mean \"" : "", near ? near : "", near ? "\"?)" : "");
	text_release(&list);
	return -1;
}

static int unknown_template(struct arena *arena, const char *folder, const char *jinja)
{
	const struct template_row *like = jinja ? resembling(flattened(arena, jinja)) : NULL;
	struct text list = {0};

	add_names(&list);
	if (!jinja)
		report(EXIT_CONFIG, "'%s' has no chat_template: name one with data.template (%s)", folder,
		       list.data);
	else
		report(EXIT_CONFIG,
		       "the chat_template of '%s' is none that is known%s%s%s: name the one that writes "
		       "the same with data.template (%s)",
		       folder, like ? ", though it resembles \"" : "", like ? like->name : "",
		       like ? "\"" : "", list.data);
	text_release(&list);
	return -1;
}

static int choose_row(struct chat_template *t, const char *folder, const char *name,
		      const char *jinja)
{
	const struct known_template *known = NULL;
	struct jinja said = {0};

	if (!name && jinja)
		known = template_known(&t->arena, jinja, &said);
	const struct template_row *row = name ? find_row(name) : known ? find_row(known->name) : NULL;
	if (!row)
		return name ? unknown_name(name) : unknown_template(&t->arena, folder, jinja);
	t->row = *row;
	if (known)
		take_words(t, known, &said);
	if (known && known->today)
		warn("the chat_template of '%s' writes the date of the day; here it is 26 Jul 2024 "
		     "always", folder);
	return 0;
}

/* Whether a row writes this character: a token by its number. */
static bool writes(const struct template_row *row, char token)
{
	const struct turn_form *forms[] = {&row->system, &row->user, &row->assistant};
	bool found = (token == '\1' && row->bos) || (row->end && strchr(row->end, token));

	for (int i = 0; i < 3; i++)
		found = found || (forms[i]->before && strchr(forms[i]->before, token)) ||
			(forms[i]->stop && strchr(forms[i]->stop, token));
	return found;
}

/* Tokens that a template writes and the vocabulary lacks. */
static int check_tokens(const struct chat_template *t, const struct tokenizer *tokenizer,
			const char *folder)
{
	if (!t->eos && writes(&t->row, '\2'))
		return error(EXIT_CONFIG,
			     "the template %s writes the end-of-text token, and '%s' names none",
			     t->row.name, folder);
	if (t->row.assistant.stop[0] == '<' && tokenizer_find(tokenizer, t->row.assistant.stop) < 0)
		warn("'%s' has no token %s: the template %s spells it out as text", folder,
		     t->row.assistant.stop, t->row.name);
	return 0;
}

struct chat_template *template_open(const char *folder, const char *name,
				    const struct tokenizer *tokenizer, const char *end)
{
	static const char *const starts[] = {"<|begin_of_text|>", "<bos>", "<s>", NULL};
	struct chat_template *t = xzalloc(1, sizeof *t);
	const char *jinja;

	if (read_folder(t, folder, &jinja) < 0 || choose_row(t, folder, name, jinja) < 0)
		goto fail;
	if (!t->bos)
		t->bos = first_of(tokenizer, starts);
	if (!t->eos && end)
		t->eos = arena_copy(&t->arena, end, strlen(end));
	if (check_tokens(t, tokenizer, folder) < 0)
		goto fail;
	return t;
fail:
	template_close(t);
	return NULL;
}

const char *template_name(const struct chat_template *t)
{
	return t->row.name;
}

const char *template_stop(const struct chat_template *t)
{
	const char *stop = t->row.assistant.stop;

	stop += *stop == ' ';
	return *stop == '\2' ? t->eos : stop;
}

void template_close(struct chat_template *t)
{
	if (!t)
		return;
	arena_release(&t->arena);
	free(t);
}
