/*
 * tests/check_dataset.c - data files of every form: the ids and labels they give, what is cut
 * and padded, the order samples are taken in, and everything that must be refused.
 *
 * links: model
 */
#include "model/model.h"
#include "tests/folder.h"
#include "tests/suite.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GOLDEN TESTS_FOLDER "/golden/tokenizer"
#define END 0 /* <|endoftext|> of the tiny tokenizer */

static struct model_config config;
static struct data_config data;

static void set_up(void)
{
	folder_open();
	config = (struct model_config){
		.folder = GOLDEN, .vocabulary = 403, .positions = 1024, .end_token = -1};
	data = (struct data_config){.sequence = 16, .cache = "none"};
}

static char *put_bytes(const char *name, const char *text, size_t bytes)
{
	char *path = in_folder(name);

	unlink(path);
	ck_assert_int_eq(file_write(path, text, bytes), 0);
	return path;
}

static char *put_file(const char *name, const char *text)
{
	return put_bytes(name, text, strlen(text));
}

/* Opens a file that must be good. */
static struct dataset *opened(const char *path)
{
	struct dataset *set = dataset_open(path, "train", &data, &config);

	ck_assert_ptr_nonnull(set);
	return set;
}

/* All ids and labels of a set, (samples, T). */
struct rows {
	int32_t *ids, *labels;
};
static struct rows rows_of(const struct dataset *set)
{
	size_t T = (size_t)set->tokens, bytes = set->samples * T * sizeof(int32_t);
	struct rows rows = {arena_take(&arena, bytes), arena_take(&arena, bytes)};

	for (size_t i = 0; i < set->samples; i++)
		ck_assert_int_eq(dataset_row(set, i, rows.ids + i * T, rows.labels + i * T), 0);
	return rows;
}

/* Opens a file that must be refused. */
static void refused(const char *path, int code, const char *message)
{
	error_clear();
	error_hold();
	struct dataset *set = dataset_open(path, "train", &data, &config);
	int said = error_code();
	const char *text = error_text();
	ck_assert_msg(set == NULL && said == code, "code %d instead of %d: '%s'", said, code,
		      text);
	ck_assert_msg(strstr(text, message) != NULL, "'%s' is not in '%s'", message, text);
	error_clear();
}

/* Appends the ids of a text, special tokens found. */
static void add_ids(struct ids *ids, const char *text)
{
	struct tokenizer *tokenizer = tokenizer_open(GOLDEN);

	ck_assert_int_eq(tokenizer_encode(tokenizer, text, strlen(text), true, ids), 0);
	tokenizer_close(tokenizer);
}

/* A row holds these ids, the first `untrained` of them and the padding with label -100. */
static void check_row(const struct dataset *set, size_t row, const struct ids *want,
		      size_t untrained)
{
	size_t T = (size_t)set->tokens;
	struct rows rows = rows_of(set);

	for (size_t t = 0; t < T; t++) {
		int32_t id = rows.ids[row * T + t], label = rows.labels[row * T + t];
		bool inside = t < want->count;

		ck_assert_int_eq(id, inside ? want->id[t] : END);
		ck_assert_int_eq(label, inside && t >= untrained ? want->id[t] : -100);
	}
}

/* -- lines --------------------------------------------------------------------------------- */

static const char pairs[] =
	"{\"prompt\": \"Where? \", \"completion\": \"Here.\"}\n"
    "{\"completion\": \" a\", \"extra\": [1, {\"x\": null}], \"prompt\": \"\"}\r\n"
    "{\"prompt\": \"x<tool>\", \"completion\": \"y\\u00e9\\u0000\"}\n\n \t\n";

START_TEST(prompts_are_not_trained)
{
	static const int masks[] = {MASK_AUTO, MASK_PROMPT, MASK_NONE};

	data.mask = masks[_i];
	struct dataset *set = opened(put_file("train.jsonl", pairs));
	struct ids ids = {0};
	size_t prompt, trained = 0;
	bool masked = data.mask != MASK_NONE;

	ck_assert_uint_eq(set->samples, 3);
	ck_assert_int_eq(set->tokens, 16);
	ck_assert_uint_eq(set->cut, 0);

	add_ids(&ids, "Where? ");
	prompt = ids.count;
	add_ids(&ids, "Here.");
	*ids_take(&ids, 1) = END;
	check_row(set, 0, &ids, masked ? prompt : 0);
	trained += ids.count - (masked ? prompt : 1);

	ids.count = 0;
	add_ids(&ids, " a");
	*ids_take(&ids, 1) = END;
	check_row(set, 1, &ids, 0);
	trained += ids.count - 1; /* the first token of a sample is no target */

	ids.count = 0;
	add_ids(&ids, "x<tool>");
	prompt = ids.count;
	ck_assert_uint_eq(prompt, 2);
	add_ids(&ids, "y\xc3\xa9");
	ids.id[ids_take(&ids, 1) - ids.id] = 189; /* the token of a zero byte */
	*ids_take(&ids, 1) = END;
	check_row(set, 2, &ids, masked ? prompt : 0);
	trained += ids.count - (masked ? prompt : 1);

	ck_assert_uint_eq(set->trained_tokens, trained);
	ids_release(&ids);
	dataset_close(set);
}
END_TEST

START_TEST(texts_are_trained_whole)
{
	struct dataset *set = opened(put_file(
		"train.jsonl", "{\"text\": \"one two\", \"messages\": 1}\n{\"text\": \"\"}"));
	struct ids ids = {0};

	add_ids(&ids, "one two");
	*ids_take(&ids, 1) = END;
	ck_assert_uint_eq(set->samples, 1);
	ck_assert_uint_eq(set->skipped, 1); /* an end alone predicts nothing */
	check_row(set, 0, &ids, 0);
	ck_assert_uint_eq(set->trained_tokens, ids.count - 1);
	ids_release(&ids);
	dataset_close(set);
}
END_TEST

START_TEST(long_samples_are_cut)
{
	data.sequence = 4;
	const char *lines = "{\"prompt\": \"12\", \"completion\": \"34567\"}\n"
			    "{\"prompt\": \"1\", \"completion\": \"23\"}\n"
			    "{\"prompt\": \"1234567\", \"completion\": \"8\"}\n";
	struct dataset *set = opened(put_file("train.jsonl", lines));
	struct ids ids = {0};

	add_ids(&ids, "1234567");
	ck_assert_uint_eq(ids.count, 7); /* so every digit is a token */
	ids.count = 4;
	check_row(set, 0, &ids, 2);
	ck_assert_uint_eq(set->samples, 2);
	ck_assert_uint_eq(set->skipped, 1); /* nothing of its completion is left */
	ids.id[3] = END;
	check_row(set, 1, &ids, 1);
	ck_assert_uint_eq(set->cut, 2);
	ck_assert_uint_eq(set->cut_tokens, 4 + 5);
	ck_assert_uint_eq(set->trained_tokens, 2 + 3);
	ids_release(&ids);
	dataset_close(set);
}
END_TEST

/* The end-of-text token: the model's own, else <|endoftext|>. */
START_TEST(end_token)
{
	config.end_token = 33;
	struct dataset *set = opened(put_file("train.jsonl", "{\"text\": \"1\"}\n"));

	ck_assert_int_eq(rows_of(set).ids[1], 33);
	ck_assert_int_eq(rows_of(set).labels[1], 33);
	ck_assert_int_eq(rows_of(set).ids[2], 33); /* padding */
	ck_assert_int_eq(rows_of(set).labels[2], -100);
	dataset_close(set);
}
END_TEST

/* A tokenizer without <|endoftext|>; with is_s, one that has </s> instead. */
static void put_endless(bool is_s)
{
	size_t bytes;
	char *vocabulary = file_read(GOLDEN "/vocab.json", &bytes);
	char *merges = file_read(GOLDEN "/merges.txt", &bytes);
	char *name = strstr(vocabulary, "<|endoftext|>");
	const char *put = is_s ? "</s>\":0,\"xyzzy" : "nothing";
	struct text text = {0};

	text_put(&text, vocabulary, (size_t)(name - vocabulary));
	text_add(&text, "%s%s", put, is_s ? "\":500" : "\":0");
	text_add(&text, "%s", name + strlen("<|endoftext|>\":0"));
	put_file("vocab.json", text.data);
	put_file("merges.txt", merges);
	config.folder = folder;
	text_release(&text);
	free(vocabulary);
	free(merges);
}

START_TEST(no_end_token)
{
	put_endless(false);
	refused(put_file("train.jsonl", pairs), EXIT_CONFIG, "end-of-text");
	struct dataset *set = opened(put_file("train.jsonl", "{\"text\": \"12\"}\n"));
	ck_assert_int_eq(rows_of(set).ids[2], 0);
	ck_assert_int_eq(rows_of(set).labels[2], -100);
	ck_assert_uint_eq(set->trained_tokens, 1);
	dataset_close(set);

	put_endless(true);
	set = opened(put_file("train.jsonl", "{\"prompt\": \"1\", \"completion\": \"2\"}\n"));
	ck_assert_uint_eq(set->trained_tokens, 2);
	dataset_close(set);
}
END_TEST

/* The same sample in other words. */
START_TEST(forms_and_columns)
{
	static const struct {
		const char *line, *column, *name;
	} same[] = {
		{"{\"question\": \"Where? \", \"answer\": \"Here.\"}\n", NULL, NULL},
		{"{\"completion\": \"no\", \"prompt\": \"Where? \", \"a\": \"Here.\"}\n", "a",
		 "completion"},
		{"{\"text\": \"-\", \"q\": \"Where? \", \"answer\": \"Here.\"}\n", "q", "question"},
		{"\xef\xbb\xbf{\"prompt\": \"Where? \", \"completion\": \"Here.\"}", NULL, NULL},
	};
	struct dataset *want = opened(put_file(
		"train.jsonl", "{\"prompt\": \"Where? \", \"completion\": \"Here.\"}\n"));

	for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
		memset(data.column, 0, sizeof data.column);
		if (same[i].column && strcmp(same[i].name, "completion") == 0)
			data.column[COLUMN_COMPLETION] = same[i].column;
		else if (same[i].column)
			data.column[COLUMN_QUESTION] = same[i].column;
		struct dataset *set = opened(put_file("train.jsonl", same[i].line));
		ck_assert_msg(digest_equal(set->digest, want->digest), "%zu", i);
		dataset_close(set);
	}
	dataset_close(want);
	data.column[COLUMN_PROMPT] = "questoin";
	refused(put_file("train.jsonl", same[0].line), EXIT_DATA,
		"there is no \"questoin\", which data.columns names (did you mean \"question\"?)");
}
END_TEST

static const char chat_line[] =
	"{\"messages\": [{\"role\": \"user\", \"content\": \"1\"}, {\"role\": \"assistant\", "
	"\"content\": \"2\"}, {\"role\": \"user\", \"content\": \"3\"}, {\"role\": \"assistant\", "
	"\"content\": \"4\"}]}\n";

/* Chats on a tokenizer that has the tokens of ChatML. */
static void chats(const char *template, int mask)
{
	config.folder = TESTS_FOLDER "/golden/templates";
	config.vocabulary = 500;
	data.template = template;
	data.mask = mask;
	data.sequence = 64;
}

/* The digits among the labels, in order. */
static const char *trained_digits(const struct dataset *set, size_t row, char digits[65])
{
	size_t count = 0;
	struct rows rows = rows_of(set);

	for (size_t t = 0; t < 64; t++) {
		int32_t label = rows.labels[row * 64 + t];
		if (label >= 17 && label < 26) /* the tokens of 1..9 */
			digits[count++] = (char)(label - 17 + '1');
	}
	digits[count] = '\0';
	return digits;
}

START_TEST(masks_of_chats)
{
	char digits[65];

	chats("chatml", MASK_AUTO);
	struct dataset *set = opened(put_file("train.jsonl", chat_line));
	ck_assert_str_eq(trained_digits(set, 0, digits), "24");
	ck_assert_uint_eq(set->trained_tokens, 4); /* each with its <|im_end|> */
	ck_assert_str_eq(set->template, "chatml");
	dataset_close(set);
	data.mask = MASK_ASSISTANT;
	set = opened(in_folder("train.jsonl"));
	ck_assert_uint_eq(set->trained_tokens, 4);
	dataset_close(set);
	data.mask = MASK_PROMPT;
	set = opened(in_folder("train.jsonl"));
	ck_assert_str_eq(trained_digits(set, 0, digits), "4");
	ck_assert_uint_eq(set->trained_tokens, 2);
	dataset_close(set);
	data.mask = MASK_NONE;
	set = opened(in_folder("train.jsonl"));
	ck_assert_str_eq(trained_digits(set, 0, digits), "1234");
	dataset_close(set);
}
END_TEST

/* An answer can say that it is not to be trained. */
START_TEST(answers_that_are_not_trained)
{
	static const char *const says[][2] = {
		{"\"weight\": 0", "\"weight\": 1"}, {"\"train\": false", "\"training\": true"},
		{"\"training\": false", "\"weight\": null"},
	};
	char line[512], digits[65];

	chats("chatml", MASK_AUTO);
	for (size_t i = 0; i < 2 * sizeof says / sizeof says[0]; i++) {
		snprintf(line, sizeof line,
			 "{\"messages\": [{\"role\": \"user\", \"content\": \"1\", \"weight\": 0}, "
			 "{\"role\": \"assistant\", \"content\": \"2\", %s}, {\"role\": \"user\", "
			 "\"content\": \"3\"}, {\"role\": \"assistant\", \"content\": \"4\", %s}], "
			 "\"tools\": \"[]\"}\n",
			 says[i / 2][i % 2], says[i / 2][1 - i % 2]);
		struct dataset *set = opened(put_file("train.jsonl", line));
		ck_assert_str_eq(trained_digits(set, 0, digits), i % 2 ? "2" : "4");
		dataset_close(set);
	}
}
END_TEST

START_TEST(chats_in_other_words)
{
	static const char *const lines[] = {
		"{\"conversations\": [{\"from\": \"human\", \"value\": \"1\"}, {\"from\": \"gpt\", "
		"\"value\": \"2\"}, {\"from\": \"human\", \"value\": \"3\"}, {\"from\": \"gpt\", "
		"\"value\": \"4\"}], \"system\": null}\n",
		"{\"instruction\": \"3\", \"input\": \"\", \"output\": \"4\", "
		"\"history\": [[\"1\", \"2\"]]}\n",
	};

	chats("chatml", MASK_AUTO);
	struct dataset *want = opened(put_file("train.jsonl", chat_line));
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		struct dataset *set = opened(put_file("train.jsonl", lines[i]));

		ck_assert_msg(digest_equal(set->digest, want->digest), "%zu", i);
		dataset_close(set);
	}
	dataset_close(want);

	/* Without a word about a template, an instruction is written as Alpaca's, and the others ask. */
	data.template = NULL;
	data.sequence = 256;
	struct dataset *set = opened(put_file("train.jsonl", lines[1]));
	ck_assert_str_eq(set->template, "alpaca");
	dataset_close(set);
	refused(put_file("train.jsonl", lines[0]), EXIT_CONFIG, "has no chat_template");
}
END_TEST

static const struct broken_chat {
	const char *line;
	int code;
	const char *message;
} broken_chats[] = {
	{"{\"messages\": []}", EXIT_DATA, ":1:14: error: \"messages\" is no list of turns, it is empty"},
	{"{\"messages\": [{\"role\": \"tool\", \"content\": \"\"}]}", EXIT_CONFIG,
	 ":1:24: error: the role \"tool\" is not built"},
	{"{\"messages\": [{\"role\": \"asistant\", \"content\": \"\"}]}", EXIT_DATA,
	 "did you mean \"assistant\"?"},
	{"{\"messages\": [{\"role\": \"user\", \"content\": [1]}]}", EXIT_DATA,
	 ":1:43: error: \"content\" is no text, it is a list"},
	{"{\"messages\": [{\"role\": \"user\", \"contents\": \"\"}]}", EXIT_DATA,
	 ":1:15: error: messages[0] has no \"content\" (\"contents\" is there; "
	 "data.columns maps names)"},
	{"{\"messages\": [{\"role\": \"user\", \"content\": \"\"}, 5]}", EXIT_DATA,
	 "error: messages[1] is no map"},
	{"{\"messages\": [{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [1]}]}",
	 EXIT_CONFIG, "\"tool_calls\" is not built"},
	{"{\"messages\": [{\"role\": \"assistant\", \"content\": \"\", \"function_call\": {\"name\": \"f\"}}]}",
	 EXIT_CONFIG, "\"function_call\" is not built"},
	{"{\"messages\": [{\"role\": \"user\", \"content\": \"\"}], \"tools\": \"[{}]\"}",
	 EXIT_CONFIG, "\"tools\" is not built"},
	{"{\"messages\": [{\"role\": \"assistant\", \"content\": \"\", \"weight\": 0.5}]}",
	 EXIT_DATA, "bad.jsonl:1:62: error: \"weight\" is 0.5: 0 or 1"},
	{"{\"messages\": [{\"role\": \"user\", \"content\": \"\", \"train\": true}]}",
	 EXIT_CONFIG, "\"train\" of a turn that is no answer is not built"},
	{"{\"messages\": [{\"role\": \"assistant\", \"content\": \"\"}], \"tools\": [1]}",
	 EXIT_CONFIG, ":1:63: error: \"tools\" is not built"},
	{"{\"conversations\": [{\"role\": \"user\", \"value\": \"\"}]}", EXIT_DATA,
	 "conversations[0] has no \"from\""},
	{"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", EXIT_DATA, "not one token"},
};

START_TEST(chats_that_are_broken)
{
	chats("chatml", MASK_AUTO);
	refused(put_file("bad.jsonl", broken_chats[_i].line), broken_chats[_i].code,
		broken_chats[_i].message);
	chats("llama2", MASK_AUTO);
	refused(put_file("bad.jsonl",
			 "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}"),
		EXIT_DATA, ":1:15: error: turn 0: user and assistant must take turns");
}
END_TEST

static const struct broken {
	const char *lines;
	int code;
	const char *message;
} broken[] = {
	{"{\"text\": \"a\"}\n{\"text\": \"b\"\n", EXIT_DATA, "bad.jsonl:2:"},
	{"{\"text\": \"a\"}\n{\"text\": \"b\",}\n", EXIT_DATA, "14: error:"},
	{"{\"text\": \"a\"}\n{\"text\": 5}\n", EXIT_DATA,
	 "bad.jsonl:2:10: error: \"text\" is no text, it is 5"},
	{"{\"text\": \"a\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}\n", EXIT_DATA,
	 "bad.jsonl:2:1: error: there is no \"text\""},
	{"{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\"}\n", EXIT_DATA,
	 "bad.jsonl:2:1: error: there is no \"completion\""},
	{"{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": 1, \"completion\": \"\"}\n",
	 EXIT_DATA, "bad.jsonl:2:12: error: \"prompt\" is no text, it is 1"},
	{"{\"prompt\": \"a\", \"completion\": \"\"}\n", EXIT_DATA,
	 "bad.jsonl:1:31: error: the completion is empty"},
	{"{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n", EXIT_DATA,
	 "bad.jsonl:2:1: error: the line is empty"},
	{"\n{\"text\": \"b\"}\n", EXIT_DATA, "bad.jsonl:1:1: error: the line is empty"},
	{"[\"text\"]\n", EXIT_DATA, "bad.jsonl:1:1: error: the line is no JSON map"},
	{"{\"text\": \"a\"} {\"text\": \"b\"}\n", EXIT_DATA, "bad.jsonl:1:"},
	{"{\"text\": \"a\", \"text\": \"b\"}\n", EXIT_DATA, "bad.jsonl:1:"},
	{"{\"text\": \"\\ud800\"}\n", EXIT_DATA, "bad.jsonl:1:"},
	{"{\"text\": \"\xff\"}\n", EXIT_DATA, "bad.jsonl:1:"},
	{"{\"text\": \"a\"}\n\xef\xbb\xbf{\"text\": \"a\"}\n", EXIT_DATA, "bad.jsonl:2:"},
	{"{\"text\": NaN}\n", EXIT_DATA, "bad.jsonl:1:"},
	{"{\"words\": \"a\"}\n", EXIT_DATA, "bad.jsonl:1:1: error: the keys ("},
	{"{\"prompt\": \"a\"}\n", EXIT_DATA, "bad.jsonl:1:1: error: the keys ("},
	{"{\"messages\": []}\n", EXIT_CONFIG, "has no chat_template: name one with data.template (chatml,"},
	{"{\"question\": \"a\", \"answer\": 5}\n", EXIT_DATA, "bad.jsonl:1:29: error: \"answer\""},
	{"{\"instruction\": \"a\", \"input\": [], \"output\": \"b\"}\n", EXIT_DATA,
	 "bad.jsonl:1:31: error: \"input\" is no text, it is a list"},
	{"{\"text\": \"a\"}\n{\"txt\": \"b\"}\n", EXIT_DATA, "there is no \"text\" (\"txt\" is)"},
	{"", EXIT_DATA, "holds no sample"},
	{"\n \n", EXIT_DATA, "holds no sample"},
	{"{\"text\": \"\"}\n", EXIT_DATA, "not one token"},
	{"{\"prompt\": \"1234567890123456\", \"completion\": \"1\"}\n", EXIT_DATA,
	 "not one token"},
};

START_TEST(broken_lines)
{
	refused(put_file("bad.jsonl", broken[_i].lines), broken[_i].code, broken[_i].message);
}
END_TEST

START_TEST(deep_line)
{
	size_t depth = 1000000;
	char *line = xalloc(depth + 1);

	memset(line, '[', depth);
	line[depth] = '\n';
	refused(put_bytes("deep.jsonl", line, depth + 1), EXIT_DATA, "deep.jsonl");
	free(line);
}
END_TEST

START_TEST(masks_that_cannot_be)
{
	data.mask = MASK_PROMPT;
	refused(put_file("a.jsonl", "{\"text\": \"one two\"}\n"), EXIT_CONFIG, "data.mask is prompt");
	data.mask = MASK_ASSISTANT;
	refused(in_folder("a.jsonl"), EXIT_CONFIG, "data.mask is assistant-only");
	data.mask = MASK_PROMPT;
	refused(put_file("a.txt", "one two"), EXIT_CONFIG, "data.mask");
	refused(put_file("a.safetensors", "x"), EXIT_CONFIG, "data.mask");
}
END_TEST

/* -- plain text ---------------------------------------------------------------------------- */

START_TEST(text_is_packed)
{
	const char *text = "1234567890<|endoftext|>123456789012345678901234567890\n";
	struct ids ids = {0}, row = {0};

	add_ids(&ids, text);
	ck_assert_uint_eq(ids.count, 42);
	struct dataset *set = opened(put_file("train.txt", text));
	ck_assert_uint_eq(set->samples, 3);
	for (size_t i = 0; i < 3; i++) {
		row.id = ids.id + 16 * i;
		row.count = i < 2 ? 16 : 10;
		check_row(set, i, &row, 0);
	}
	ck_assert_uint_eq(set->trained_tokens, 15 + 15 + 9);
	ck_assert_uint_eq(set->cut, 0);
	dataset_close(set);

	data.sequence = 21; /* divides: no padding */
	set = opened(in_folder("train.txt"));
	ck_assert_uint_eq(set->samples, 2);
	ck_assert_uint_eq(set->trained_tokens, 40);
	dataset_close(set);

	data.sequence = 0;
	set = opened(in_folder("train.txt"));
	ck_assert_uint_eq(set->samples, 1);
	ck_assert_int_eq(set->tokens, 256);
	dataset_close(set);
	ids_release(&ids);
}
END_TEST

START_TEST(text_that_is_none)
{
	refused(put_file("train.txt", ""), EXIT_DATA, "no sample");
	refused(put_file("train.txt", "1"), EXIT_DATA, "not one token");
	refused(put_file("train.txt", "line\nab\xe9 \n"), EXIT_DATA,
		"train.txt:2:3: error: 0xE9, byte 7 of");
}
END_TEST

/* -- tokenised already --------------------------------------------------------------------- */

static char *put_tensors(const struct safetensors_entry *entry, int count)
{
	char *path = in_folder("train.safetensors");

	unlink(path);
	ck_assert_int_eq(safetensors_write(path, entry, count, NULL), 0);
	return path;
}

static const int32_t four[2][2][2] = {{{1, 2}, {3, 4}}, {{5, 6}, {7, 402}}};
static const int64_t four_labels[2][2][2] = {{{-100, 2}, {3, 4}}, {{5, -100}, {-100, 0}}};

START_TEST(tensors_as_they_are)
{
	const struct safetensors_entry entries[] = {
		{"other", DTYPE_F32, 1, {2}, &four},
		{"labels", DTYPE_I64, 3, {2, 2, 2}, four_labels},
		{"input_ids", DTYPE_I32, 3, {2, 2, 2}, four},
	};
	static const int32_t labels[] = {-100, 2, 3, 4, 5, -100, -100, 0};

	data.sequence = 0;
	data.mask = MASK_NONE;	    /* nothing beyond the labels */
	config.folder = "/nowhere"; /* no tokenizer is opened */
	struct dataset *set = opened(put_tensors(entries, 3));
	ck_assert_uint_eq(set->samples, 4);
	ck_assert_int_eq(set->tokens, 2);
	ck_assert_mem_eq(rows_of(set).ids, four, sizeof four);
	ck_assert_mem_eq(rows_of(set).labels, labels, sizeof labels);
	ck_assert_uint_eq(set->trained_tokens, 3);
	struct digest digest = set->digest;
	dataset_close(set);

	const struct safetensors_entry alone = {"input_ids", DTYPE_I64, 2, {4, 2}, four_labels};
	refused(put_tensors(&alone, 1), EXIT_DATA, "input_ids[0, 0] is -100");

	set = opened(put_tensors(entries + 2, 1));
	ck_assert_mem_eq(rows_of(set).labels, four, sizeof four);
	ck_assert_uint_eq(set->trained_tokens, 4);
	ck_assert(!digest_equal(set->digest, digest));
	dataset_close(set);
}
END_TEST

START_TEST(tensors_cut_and_padded)
{
	static const int64_t ids[] = {1, 2, 3, 4, 5, 6};
	const struct safetensors_entry entry = {"input_ids", DTYPE_I64, 2, {2, 3}, ids};
	static const int32_t cut[] = {1, 2, 4, 5}, padded[] = {1, 2, 3, 9, 9, 4, 5, 6, 9, 9};
	static const int32_t labels[] = {1, 2, 3, -100, -100, 4, 5, 6, -100, -100};

	config.end_token = 9;
	data.sequence = 2;
	struct dataset *set = opened(put_tensors(&entry, 1));
	ck_assert_int_eq(set->tokens, 2);
	ck_assert_mem_eq(rows_of(set).ids, cut, sizeof cut);
	ck_assert_uint_eq(set->cut, 2);
	ck_assert_uint_eq(set->cut_tokens, 2);
	dataset_close(set);

	data.sequence = 5;
	set = opened(in_folder("train.safetensors"));
	ck_assert_mem_eq(rows_of(set).ids, padded, sizeof padded);
	ck_assert_mem_eq(rows_of(set).labels, labels, sizeof labels);
	ck_assert_uint_eq(set->cut, 0);
	ck_assert_uint_eq(set->trained_tokens, 4);
	dataset_close(set);
}
END_TEST

START_TEST(tensors_that_cannot_be)
{
	static const int32_t ids[] = {1, 2, 3, 403}, labels[] = {1, -100, -1, 2},
			     high[] = {0, 0, 0, 403};
	static const int32_t none[] = {-100, -100, -100, -100};
	static const float floats[4];
	static const int64_t far[] = {0, 4294967296, 0, 0};
	struct safetensors_entry e[] = {{"input_ids", DTYPE_I32, 2, {2, 2}, ids},
					{"labels", DTYPE_I32, 2, {2, 2}, labels}};

	data.sequence = 0;
	refused(put_tensors(e, 1), EXIT_DATA,
		"input_ids[1, 1] is 403, not in the vocabulary of 403");
	e[0].data = floats;
	refused(put_tensors(e, 2), EXIT_DATA, "labels[1, 0] is -1");
	e[1].data = high;
	refused(put_tensors(e, 2), EXIT_DATA, "labels[1, 1] is 403");
	e[1].data = none;
	refused(put_tensors(e, 2), EXIT_DATA, "not one token");
	e[1].shape[0] = 1;
	e[1].shape[1] = 4;
	refused(put_tensors(e, 2), EXIT_DATA, "another shape");
	e[1].dims = 1;
	refused(put_tensors(e, 2), EXIT_DATA, "another shape");
	e[1].dtype = DTYPE_F32;
	refused(put_tensors(e, 2), EXIT_DATA, "\"labels\" is F32");
	e[0].dtype = DTYPE_F32;
	refused(put_tensors(e, 1), EXIT_DATA, "\"input_ids\" is F32");
	e[0] = (struct safetensors_entry){"input_ids", DTYPE_I64, 1, {4}, far};
	refused(put_tensors(e, 1), EXIT_DATA, "input_ids[0, 1] is 4294967296");
	e[0].dims = 0;
	refused(put_tensors(e, 1), EXIT_DATA, "no dimension");
	e[0] = (struct safetensors_entry){"input_ids", DTYPE_I64, 2, {0, 4}, far};
	refused(put_tensors(e, 1), EXIT_DATA, "no sample");
	e[0] = (struct safetensors_entry){"input_ids", DTYPE_I64, 2, {4, 0}, far};
	refused(put_tensors(e, 1), EXIT_DATA, "no dimension");
	e[0].name = "ids";
	refused(put_tensors(e, 1), EXIT_DATA, "no tensor \"input_ids\"");
	refused(put_file("train.safetensors", "no such thing"), EXIT_DATA, "train.safetensors");
}
END_TEST

/* -- files and sequences ------------------------------------------------------------------- */

START_TEST(files_and_folders)
{
	static const int32_t ids[] = {1, 2};
	const struct safetensors_entry entry = {"input_ids", DTYPE_I32, 1, {2}, ids};

	refused(in_folder("nothing.jsonl"), EXIT_INPUT, "nothing.jsonl");
	refused(folder, EXIT_INPUT, "train.jsonl");
	refused(put_file("train.csv", "a,b"), EXIT_CONFIG, ".jsonl, .txt or .safetensors");
	refused(folder, EXIT_INPUT, "train.jsonl");
	put_tensors(&entry, 1);
	put_file("valid.txt", "12");
	struct dataset *set = opened(folder);
	ck_assert_str_eq(set->path, in_folder("train.safetensors"));
	dataset_close(set);
	set = dataset_open(folder, "valid", &data, &config);
	ck_assert_ptr_nonnull(set);
	ck_assert_str_eq(set->path, in_folder("valid.txt"));
	dataset_close(set);
	put_file("train.txt", "12");
	refused(folder, EXIT_CONFIG, "both");

	config.folder = folder;
	refused(in_folder("train.txt"), EXIT_INPUT, "tokenizer");
	ck_assert_int_eq(mkdir(in_folder("folder.txt"), 0777), 0);
	refused(in_folder("folder.txt"), EXIT_INPUT, "train.jsonl");
}
END_TEST

START_TEST(sequences_and_positions)
{
	static const int32_t ids[40] = {0};
	const struct safetensors_entry entry = {"input_ids", DTYPE_I32, 2, {1, 40}, ids};

	config.positions = 32;
	data.sequence = 33;
	put_file("a.txt", "12");
	refused(in_folder("a.txt"), EXIT_CONFIG,
		"sequences of 33 tokens (data.sequence) do not fit the 32 positions");
	data.sequence = 0;
	refused(in_folder("a.txt"), EXIT_CONFIG, "256");
	error_hold();
	ck_assert_int_eq(dataset_sequence(&data, &config), -1);
	ck_assert_ptr_nonnull(strstr(error_text(), "'data': sequences of 256 tokens"));
	error_clear();
	config.positions = 0;
	ck_assert_int_eq(dataset_sequence(&data, &config), 256);
	config.positions = 32;
	refused(put_tensors(&entry, 1), EXIT_CONFIG, "sequences of 40 tokens");
	data.sequence = 32;
	ck_assert_int_eq(dataset_sequence(&data, &config), 32);
	dataset_close(opened(in_folder("a.txt")));
	dataset_close(opened(in_folder("train.safetensors")));
	config.vocabulary = 10;
	refused(in_folder("a.txt"), EXIT_DATA, "outside the vocabulary of 10");
}
END_TEST

/* -- samples ------------------------------------------------------------------------------- */

#define ROWS 37

/* ROWS samples (10 i, 10 i + 1, ..., 10 i + 4), the second label of odd ones untrained. */
static struct dataset *counted(void)
{
	static int32_t ids[ROWS][5], labels[ROWS][5];
	const struct safetensors_entry entries[] = {
		{"input_ids", DTYPE_I32, 2, {ROWS, 5}, ids},
		{"labels", DTYPE_I32, 2, {ROWS, 5}, labels}};

	for (int i = 0; i < ROWS; i++) {
		for (int t = 0; t < 5; t++)
			labels[i][t] = ids[i][t] = 10 * i + t;
		if (i % 2)
			labels[i][1] = -100;
	}
	data.sequence = 0;
	return opened(put_tensors(entries, 2));
}

START_TEST(labels_are_shifted)
{
	struct dataset *set = counted();
	int32_t ids[5], labels[5];

	for (int place = 0; place < 3 * ROWS; place++) {
		int i = place % ROWS;

		ck_assert_int_eq(dataset_sample(set, 1, false, (uint64_t)place, ids, labels),
				 i % 2 ? 3 : 4);
		for (int t = 0; t < 5; t++)
			ck_assert_int_eq(ids[t], 10 * i + t);
		ck_assert_int_eq(labels[0], i % 2 ? -1 : 10 * i + 1);
		for (int t = 1; t < 4; t++)
			ck_assert_int_eq(labels[t], 10 * i + t + 1);
		ck_assert_int_eq(labels[4], -1);
	}
	dataset_close(set);
}
END_TEST

START_TEST(epochs_are_permutations)
{
	struct dataset *set = counted();
	int order[3][ROWS], same[3] = {0};
	int32_t ids[5], labels[5];

	for (uint64_t epoch = 0; epoch < 3; epoch++) {
		bool seen[ROWS] = {false};

		for (uint64_t i = 0; i < ROWS; i++) {
			dataset_sample(set, 7, true, epoch * ROWS + i, ids, labels);
			int row = ids[0] / 10;
			ck_assert(!seen[row]);
			seen[row] = true;
			order[epoch][i] = row;
			ck_assert_int_eq(row, (int)shuffle_index(7, epoch, i, ROWS));
			same[0] += row == (int)i;
		}
	}
	for (int i = 0; i < ROWS; i++) {
		same[1] += order[0][i] == order[1][i];
		dataset_sample(set, 8, true, (uint64_t)i, ids, labels);
		same[2] += order[0][i] == ids[0] / 10;
	}
	ck_assert_int_lt(same[0], ROWS);
	ck_assert_int_lt(same[1], ROWS / 2);
	ck_assert_int_lt(same[2], ROWS / 2);
	dataset_close(set);
}
END_TEST

/* -- real texts ---------------------------------------------------------------------------- */

static char *shared(const char *name)
{
	const char *root = getenv("EDGEPIPE_SHARED");
	char *path = root ? arena_format(&arena, "%s/data/%s", root, name) : NULL;

	if (path && path_exists(path))
		return path;
	printf("skipped: EDGEPIPE_SHARED does not name a folder with data/%s\n", name);
	return NULL;
}

START_TEST(real_texts)
{
	config = (struct model_config){.folder = shared("tokenizers/gpt2"),
				       .vocabulary = 50257,
				       .positions = 1024,
				       .end_token = 50256};
	data.sequence = 0;
	if (!config.folder)
		return;
	struct dataset *set = opened(shared("text/tinyshakespeare/input.txt"));
	ck_assert_int_eq(set->tokens, 256);
	ck_assert_uint_eq(set->samples, 1321);
	ck_assert_uint_eq(set->trained_tokens, 1320 * 255 + 104);
	ck_assert_int_eq(rows_of(set).ids[1320 * 256 + 105], 50256);
	dataset_close(set);
	set = opened(shared("text/gsm8k/test.jsonl"));
	ck_assert_uint_eq(set->samples + set->skipped, 1319);
	dataset_close(set);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("dataset");
	TCase *tcase = tcase_create("dataset");

	tcase_add_checked_fixture(tcase, set_up, folder_close);
	tcase_set_timeout(tcase, 20);
	tcase_add_loop_test(tcase, prompts_are_not_trained, 0, 3);
	tcase_add_test(tcase, texts_are_trained_whole);
	tcase_add_test(tcase, long_samples_are_cut);
	tcase_add_test(tcase, end_token);
	tcase_add_test(tcase, no_end_token);
	tcase_add_loop_test(tcase, broken_lines, 0, (int)(sizeof broken / sizeof broken[0]));
	tcase_add_test(tcase, forms_and_columns);
	tcase_add_test(tcase, masks_of_chats);
	tcase_add_test(tcase, answers_that_are_not_trained);
	tcase_add_test(tcase, chats_in_other_words);
	tcase_add_loop_test(tcase, chats_that_are_broken, 0,
			    (int)(sizeof broken_chats / sizeof broken_chats[0]));
	tcase_add_test(tcase, deep_line);
	tcase_add_test(tcase, masks_that_cannot_be);
	tcase_add_test(tcase, text_is_packed);
	tcase_add_test(tcase, text_that_is_none);
	tcase_add_test(tcase, tensors_as_they_are);
	tcase_add_test(tcase, tensors_cut_and_padded);
	tcase_add_test(tcase, tensors_that_cannot_be);
	tcase_add_test(tcase, files_and_folders);
	tcase_add_test(tcase, sequences_and_positions);
	tcase_add_test(tcase, labels_are_shifted);
	tcase_add_test(tcase, epochs_are_permutations);
	tcase_add_test(tcase, real_texts);
	suite_add_tcase(suite, tcase);
	return run_suite(suite);
}
