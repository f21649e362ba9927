/*
 * model/turns.c - the turns of a chat out of a line: a list of messages (OpenAI's, ShareGPT's),
 * an instruction (Alpaca's), a prompt and its completion.
 */
#include "model/turns.h"

#include <stdlib.h>
#include <string.h>

static const struct role_name {
	const char *name;
	enum chat_role role;
} role_names[] = {
	{"system", CHAT_SYSTEM}, {"user", CHAT_USER},	   {"human", CHAT_USER},
	{"assistant", CHAT_ASSISTANT}, {"gpt", CHAT_ASSISTANT}, {"chatgpt", CHAT_ASSISTANT},
};
#define ROLE_NAMES ((int)(sizeof role_names / sizeof role_names[0]))

/* -- lists --------------------------------------------------------------------------------- */

static int unknown_role(const struct jsonl *lines, const char *where, const char *role)
{
	static const char *const unbuilt[] = {"tool", "function", "function_call", "observation",
					      "developer", "ipython"};
	const char *names[ROLE_NAMES], *near;

	for (int i = 0; i < ROLE_NAMES; i++)
		names[i] = role_names[i].name;
	near = nearest_word(role, names, ROLE_NAMES);
	for (size_t i = 0; i < sizeof unbuilt / sizeof unbuilt[0]; i++) {
		if (strcmp(role, unbuilt[i]) == 0)
			return jsonl_error(lines, EXIT_CONFIG, where,
					   "the role \"%s\" is not built (built: system, user, "
					   "assistant)",
					   role);
	}
	return jsonl_error(lines, EXIT_DATA, where,
			   "\"%s\" is no role (system, user or human, assistant or gpt)%s%s%s",
			   role, near ? ": did you mean \"" : "", near ? near : "",
			   near ? "\"?" : "");
}

/* What an item has in place of a key: a name like it, or the other convention's; null if neither. */
static const char *name_there(const struct json *item, const char *key)
{
	static const char *const names[][2] = {
		{"role", "from"}, {"content", "value"}, {"from", "role"}, {"value", "content"}};

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (strcmp(key, names[i][0]) == 0 && json_find(item, names[i][1]))
			return names[i][1];
	return json_nearest(item, key);
}

/* The text at a key of an item; null after an error. */
static const char *item_text(const struct jsonl *lines, const struct json *item,
			     const char *where, const char *key, size_t *bytes)
{
	const struct json *value = json_find(item, key);
	char place[160], quote[JSONL_QUOTE];

	if (json_kind(value) == JSON_TEXT) {
		*bytes = json_text_bytes(value);
		return json_as_text(value, "");
	}
	snprintf(place, sizeof place, "%s%s%s", where, value ? "." : "", value ? key : "");
	jsonl_quote(value, quote);
	const char *near = value ? NULL : name_there(item, key);
	if (value)
		jsonl_error(lines, EXIT_DATA, place, "\"%s\" is no text, it is %s", key, quote);
	else
		jsonl_error(lines, EXIT_DATA, place, "%s has no \"%s\"%s%s%s", where, key,
			    near ? " (\"" : "", near ? near : "",
			    near ? "\" is there; data.columns maps names)" : "");
	return NULL;
}

/* Whether a value says nothing: null, empty, an empty list written as a text. */
static bool is_nothing(const struct json *value)
{
	enum json_kind kind = json_kind(value);

	if (kind == JSON_TEXT)
		return json_text_bytes(value) == 0 || strcmp(json_as_text(value, ""), "[]") == 0;
	return kind == JSON_NONE || kind == JSON_NIL ||
	       ((kind == JSON_LIST || kind == JSON_MAP) && json_size(value) == 0);
}

/* Says that a key changes what is trained and is not built, where it says anything. */
static int refuse_key(const struct jsonl *lines, const struct json *map, const char *where,
		      const char *key)
{
	char place[160];

	if (is_nothing(json_find(map, key)))
		return 0;
	snprintf(place, sizeof place, "%s%s%s", where, where[0] ? "." : "", key);
	return jsonl_error(lines, EXIT_CONFIG, place, "\"%s\" is not built: chats of text alone",
			   key);
}

/* What a turn says of its own training: "weight" 0 or 1, "train" and "training" true or false. */
static int read_trained(struct reader *r, const struct jsonl *lines, const struct json *item,
			const char *where)
{
	static const char *const keys[] = {"weight", "train", "training"};
	struct chat_turn *turn = &r->chat.turn[r->chat.count - 1];
	char place[160], quote[JSONL_QUOTE];

	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		const struct json *value = json_find(item, keys[i]);
		enum json_kind kind = json_kind(value);
		double weight = kind == JSON_FLAG ? json_as_flag(value, false) : json_as_number(value, 2);

		if (kind == JSON_NONE || kind == JSON_NIL)
			continue;
		snprintf(place, sizeof place, "%s.%s", where, keys[i]);
		jsonl_quote(value, quote);
		if (weight != 0 && weight != 1)
			return jsonl_error(lines, EXIT_DATA, place, "\"%s\" is %s: 0 or 1, true or false "
					   "say whether an answer is trained", keys[i], quote);
		if (weight == 1 && kind == JSON_FLAG && turn->role != CHAT_ASSISTANT)
			return jsonl_error(lines, EXIT_CONFIG, place, "\"%s\" of a turn that is no answer is "
					   "not built: answers alone are trained (or all, with data.mask: none)",
					   keys[i]);
		turn->untrained = turn->untrained || weight == 0;
	}
	return 0;
}

static int add_turn(struct reader *r, const struct jsonl *lines, const struct json *item,
		    const char *where, const enum data_column *key)
{
	char place[160];
	size_t bytes;
	int i = 0;

	if (json_kind(item) != JSON_MAP)
		return jsonl_error(lines, EXIT_DATA, where, "%s is no map", where);
	if (refuse_key(lines, item, where, "tool_calls") < 0 ||
	    refuse_key(lines, item, where, "function_call") < 0)
		return -1;
	const char *role = item_text(lines, item, where, column_name(r, key[0]), &bytes);
	if (!role)
		return -1;
	while (i < ROLE_NAMES && strcmp(role, role_names[i].name) != 0)
		i++;
	snprintf(place, sizeof place, "%s.%s", where, column_name(r, key[0]));
	if (i == ROLE_NAMES)
		return unknown_role(lines, place, role);
	const char *text = item_text(lines, item, where, column_name(r, key[1]), &bytes);
	if (!text)
		return -1;
	chat_add(&r->chat, role_names[i].role, text, bytes);
	return read_trained(r, lines, item, where);
}

/* A system's message beside the turns. */
static int add_system(struct reader *r, const struct jsonl *lines, const struct json *map)
{
	const char *key = column_name(r, COLUMN_SYSTEM);
	const struct json *value = json_find(map, key);
	size_t bytes;

	if (json_kind(value) == JSON_NONE || json_kind(value) == JSON_NIL)
		return 0;
	const char *text = jsonl_text(lines, key, &bytes);
	if (!text)
		return -1;
	if (bytes > 0)
		chat_add(&r->chat, CHAT_SYSTEM, text, bytes);
	return 0;
}

int turns_of_list(struct reader *r, const struct jsonl *lines, const struct json *map,
		  enum data_column column)
{
	static const enum data_column messages[] = {COLUMN_ROLE, COLUMN_CONTENT};
	static const enum data_column sharegpt[] = {COLUMN_FROM, COLUMN_VALUE};
	const char *name = column_name(r, column);
	const struct json *list = json_find(map, name);
	char where[96], quote[JSONL_QUOTE];

	jsonl_quote(list, quote);
	if (!list)
		return jsonl_error(lines, EXIT_DATA, "",
				   "there is no \"%s\": the first line tells the form of all",
				   name);
	if (json_kind(list) != JSON_LIST || json_size(list) == 0)
		return jsonl_error(lines, EXIT_DATA, name, "\"%s\" is no list of turns, it is %s",
				   name, json_kind(list) == JSON_LIST ? "empty" : quote);
	if (refuse_key(lines, map, "", "tools") < 0 || refuse_key(lines, map, "", "functions") < 0 ||
	    (column == COLUMN_CONVERSATIONS && add_system(r, lines, map) < 0))
		return -1;
	for (size_t i = 0; i < json_size(list); i++) {
		snprintf(where, sizeof where, "%s[%zu]", name, i);
		if (add_turn(r, lines, json_at(list, i), where,
			     column == COLUMN_MESSAGES ? messages : sharegpt) < 0)
			return -1;
	}
	return 0;
}

void turns_place(const struct reader *r, int turn, char *where, size_t bytes)
{
	enum data_column column = r->form_column;

	where[0] = '\0';
	if (column == COLUMN_MESSAGES || column == COLUMN_CONVERSATIONS)
		snprintf(where, bytes, "%s[%d]", column_name(r, column), turn);
}

/* -- single keys --------------------------------------------------------------------------- */

/* Earlier turns: [["a question", "its answer"], ...]. */
static int add_history(struct reader *r, const struct jsonl *lines, const struct json *map)
{
	const char *key = column_name(r, COLUMN_HISTORY);
	const struct json *list = json_find(map, key);

	for (size_t i = 0; i < json_size(list); i++) {
		const struct json *pair = json_at(list, i);

		if (json_size(pair) != 2)
			return jsonl_error(lines, EXIT_DATA, key,
					   "item %zu of \"%s\" is no [question, answer]", i, key);
		for (size_t k = 0; k < 2; k++) {
			const struct json *text = json_at(pair, k);

			if (json_kind(text) != JSON_TEXT)
				return jsonl_error(lines, EXIT_DATA, key,
						   "item %zu of \"%s\" is no pair of texts", i,
						   key);
			chat_add(&r->chat, k == 0 ? CHAT_USER : CHAT_ASSISTANT,
				 json_as_text(text, ""), json_text_bytes(text));
		}
	}
	return 0;
}

/* The text at a key as a turn. */
static int add_key(struct reader *r, const struct jsonl *lines, enum data_column column,
		   enum chat_role role)
{
	size_t bytes;
	const char *text = jsonl_text(lines, column_name(r, column), &bytes);

	if (!text)
		return -1;
	chat_add(&r->chat, role, text, bytes);
	return 0;
}

int turns_of_alpaca(struct reader *r, const struct jsonl *lines, const struct json *map)
{
	const char *key = column_name(r, COLUMN_INPUT);
	const struct json *input = json_find(map, key);
	enum json_kind kind = json_kind(input);

	if (add_system(r, lines, map) < 0 || add_history(r, lines, map) < 0 ||
	    add_key(r, lines, COLUMN_INSTRUCTION, CHAT_USER) < 0)
		return -1;
	struct chat_turn *turn = &r->chat.turn[r->chat.count - 1];
	if (kind != JSON_NONE && kind != JSON_NIL) {
		turn->input = jsonl_text(lines, key, &turn->input_bytes);
		if (!turn->input)
			return -1;
	}
	return add_key(r, lines, COLUMN_OUTPUT, CHAT_ASSISTANT);
}

int turns_of_pair(struct reader *r, const struct jsonl *lines, const enum data_column *key)
{
	return add_key(r, lines, key[0], CHAT_USER) < 0 ||
			       add_key(r, lines, key[1], CHAT_ASSISTANT) < 0
		       ? -1
		       : 0;
}
