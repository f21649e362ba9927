/*
 * tests/check_tokenizer.c - the tokenizer against Hugging Face's: answers of a tiny one made
 * for this test (golden/tokenizer), everything that must be refused, and, where EDGEPIPE_SHARED
 * names the folder with real data, GPT-2's own vectors.
 *
 * links: model
 */
#include "model/model.h"
#include "tests/folder.h"
#include "tests/suite.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GOLDEN TESTS_FOLDER "/golden/tokenizer"


static void put_file(const char *name, const char *data)
{
	ck_assert_int_eq(file_write(in_folder(name), data, strlen(data)), 0);
}

static char *take_file(const char *path)
{
	size_t bytes;
	char *data = file_read(path, &bytes);

	ck_assert_ptr_nonnull(data);
	return data;
}

static void copy_file(const char *from, const char *name)
{
	char *data = take_file(path_join(&arena, from, name));

	put_file(name, data);
	free(data);
}

/* The data with the first occurrence of a text replaced; the caller frees. */
static char *replaced(const char *data, const char *find, const char *put)
{
	const char *at = strstr(data, find);
	struct text text = {0};

	ck_assert_msg(at != NULL, "'%s' is not there to be replaced", find);
	text_put(&text, data, (size_t)(at - data));
	text_put(&text, put, strlen(put));
	text_put(&text, at + strlen(find), strlen(at + strlen(find)));
	return text.data;
}

/* -- ids ----------------------------------------------------------------------------------- */

static bool same_ids(const struct ids *ids, const struct json *list, size_t from, size_t tail)
{
	if (ids->count + from + tail != json_size(list))
		return false;
	for (size_t i = 0; i < ids->count; i++) {
		if (ids->id[i] != json_as_integer(json_at(list, i + from), -2))
			return false;
	}
	return true;
}

static void print_ids(const struct ids *ids)
{
	for (size_t i = 0; i < ids->count; i++)
		fprintf(stderr, " %d", ids->id[i]);
	fprintf(stderr, "\n");
}

/* A text has these ids (less some at both ends of the list), and its bytes come back. */
static void check_text(struct tokenizer *tokenizer, const char *text, size_t bytes,
		       bool special, const struct json *list, size_t from, size_t tail)
{
	struct ids ids = {0};
	struct text back = {0};

	ck_assert_int_eq(tokenizer_encode(tokenizer, text, bytes, special, &ids), 0);
	if (!same_ids(&ids, list, from, tail))
		print_ids(&ids);
	ck_assert_msg(same_ids(&ids, list, from, tail), "other ids for '%s'", text);
	ck_assert_int_eq(tokenizer_decode(tokenizer, ids.id, ids.count, true, &back), 0);
	ck_assert_uint_eq(back.bytes, bytes);
	ck_assert_mem_eq(back.data ? back.data : "", text, bytes);
	ids_release(&ids);
	text_release(&back);
}

static void check_answers(struct tokenizer *tokenizer, const char *key, bool special)
{
	struct json *answers = json_read(GOLDEN "/answers.json");

	ck_assert_uint_gt(json_size(answers), 40);
	for (size_t i = 0; i < json_size(answers); i++) {
		const struct json *one = json_at(answers, i), *text = json_find(one, "text");

		check_text(tokenizer, json_as_text(text, NULL), json_text_bytes(text), special,
			   json_find(one, key), 0, 0);
	}
	json_free(answers);
}

START_TEST(answers_of_tokenizer_json)
{
	struct tokenizer *tokenizer = tokenizer_open(GOLDEN);

	ck_assert_ptr_nonnull(tokenizer);
	check_answers(tokenizer, "special", true);
	check_answers(tokenizer, "plain", false);
	ck_assert_int_eq(tokenizer_vocabulary(tokenizer), 405);
	ck_assert_int_eq(tokenizer_find(tokenizer, "<|endoftext|>"), 0);
	ck_assert_int_eq(tokenizer_find(tokenizer, "<tool>"), 400);
	ck_assert_int_eq(tokenizer_find(tokenizer, "no such token"), -1);
	tokenizer_close(tokenizer);
}
END_TEST

static const char added_decoder[] =
	"{\"tokenizer_class\": \"GPT2Tokenizer\","
    " \"eos_token\": {\"content\": \"<|endoftext|>\"},"
    " \"added_tokens_decoder\": {"
    "  \"400\": {\"content\": \"<tool>\", \"normalized\": true, \"special\": false, "
    "\"lstrip\": false},"
    "  \"401\": {\"content\": \"<tool>x\", \"normalized\": true, \"special\": false},"
    "  \"402\": {\"content\": \"l>x\", \"normalized\": false, \"special\": false},"
	"  \"403\": {\"content\": \"<think>\", \"normalized\": true, \"special\": false},"
	"  \"404\": {\"content\": \"<think>er\", \"normalized\": true}}}";

START_TEST(answers_of_vocabulary_and_merges)
{
	copy_file(GOLDEN, "vocab.json");
	copy_file(GOLDEN, "merges.txt");
	put_file("tokenizer_config.json", added_decoder);

	struct tokenizer *tokenizer = tokenizer_open(folder);
	ck_assert_ptr_nonnull(tokenizer);
	check_answers(tokenizer, "special", true);
	check_answers(tokenizer, "plain", false);
	tokenizer_close(tokenizer);
}
END_TEST

/* Older folders: the added tokens in a file of their own, the special ones named in another. */
START_TEST(special_tokens_of_old_folders)
{
	copy_file(GOLDEN, "vocab.json");
	copy_file(GOLDEN, "merges.txt");
	put_file("added_tokens.json", "{\"<tool>\": 400, \"<end>\": 401}");
	put_file("special_tokens_map.json",
		 "{\"eos_token\": \"<|endoftext|>\", \"pad_token\": \"<nowhere>\","
		 " \"additional_special_tokens\": [\"<end>\"]}");

	struct tokenizer *tokenizer = tokenizer_open(folder);
	const char *text = "<tool><end><|endoftext|>";
	const int32_t want[] = {400, 401, 0};
	struct ids ids = {0}, plain = {0};
	struct text words = {0};
	ck_assert_ptr_nonnull(tokenizer);
	ck_assert_int_eq(tokenizer_encode(tokenizer, text, strlen(text), true, &ids), 0);
	ck_assert_uint_eq(ids.count, 3);
	ck_assert_mem_eq(ids.id, want, sizeof want);
	ck_assert_int_eq(tokenizer_encode(tokenizer, text, strlen(text), false, &plain), 0);
	ck_assert_uint_gt(plain.count, 10);
	ck_assert_int_eq(plain.id[0], 400);
	ck_assert_int_eq(tokenizer_decode(tokenizer, want, 3, false, &words), 0);
	ck_assert_str_eq(words.data, "<tool>");
	ids_release(&ids);
	ids_release(&plain);
	text_release(&words);
	tokenizer_close(tokenizer);
}
END_TEST

/* Without any other file, <|endoftext|> is known to be special by its name. */
START_TEST(end_of_text_by_name)
{
	copy_file(GOLDEN, "vocab.json");
	copy_file(GOLDEN, "merges.txt");

	struct tokenizer *tokenizer = tokenizer_open(folder);
	struct ids ids = {0};
	ck_assert_ptr_nonnull(tokenizer);
	ck_assert_int_eq(tokenizer_encode(tokenizer, "<|endoftext|>", 13, true, &ids), 0);
	ck_assert_uint_eq(ids.count, 1);
	ck_assert_int_eq(ids.id[0], 0);
	ids_release(&ids);
	tokenizer_close(tokenizer);
}
END_TEST

START_TEST(space_before)
{
	char *data = take_file(GOLDEN "/tokenizer.json");
	char *spaced =
	    replaced(data, "\"add_prefix_space\":false", "\"add_prefix_space\":true");
	struct json *answers = json_read(GOLDEN "/answers.json");
	struct ids ids = {0};

	put_file("tokenizer.json", spaced);
	struct tokenizer *tokenizer = tokenizer_open(folder);
	ck_assert_ptr_nonnull(tokenizer);
	for (size_t i = 0; i < json_size(answers); i++) {
		const struct json *one = json_at(answers, i), *text = json_find(one, "text");

		ids.count = 0;
		ck_assert_int_eq(tokenizer_encode(tokenizer, json_as_text(text, NULL),
						  json_text_bytes(text), true, &ids),
				 0);
		ck_assert_msg(same_ids(&ids, json_find(one, "spaced"), 0, 0),
			      "other ids for '%s'", json_as_text(text, ""));
	}
	ids_release(&ids);
	tokenizer_close(tokenizer);
	json_free(answers);
	free(spaced);
	free(data);
}
END_TEST

/* Merges as "a b", as written before 2024, and no type of the model, as before 2021. */
START_TEST(older_spelling_of_merges)
{
	char *data = take_file(GOLDEN "/tokenizer.json");
	char *typeless = replaced(data, "\"type\":\"BPE\",", "");
	struct text text = {0};
	char *merges = strstr(typeless, "\"merges\":");

	text_put(&text, typeless, (size_t)(merges - typeless));
	for (char *p = merges; *p; p++) {
		if (p[0] == '[' && p[1] == '"')
			continue;
		if (strncmp(p, "\",\"", 3) == 0) {
			text_put(&text, " ", 1);
			p += 2;
		} else if (p[0] == '"' && p[1] == ']') {
			text_put(&text, p++, 1);
		} else {
			text_put(&text, p, 1);
		}
	}
	/* The list's own bracket went with the first pair's. */
	char *listed = replaced(text.data, "\"merges\":", "\"merges\":[");
	if (strstr(listed, "[["))
		memmove(strstr(listed, "[["), strstr(listed, "[[") + 1,
			strlen(strstr(listed, "[[")));
	put_file("tokenizer.json", listed);
	struct tokenizer *tokenizer = tokenizer_open(folder);
	ck_assert_ptr_nonnull(tokenizer);
	check_answers(tokenizer, "special", true);
	tokenizer_close(tokenizer);
	text_release(&text);
	free(listed);
	free(typeless);
	free(data);
}
END_TEST

/* A tokenizer of a few letters, its merges in order of rank. */
static struct tokenizer *lettered(const char *vocabulary, const char *merges)
{
	put_file("vocab.json", vocabulary);
	put_file("merges.txt", merges);
	return tokenizer_open(folder);
}

/* The ids of a word are these digits. */
static void check_word(struct tokenizer *tokenizer, const char *word, const char *digits)
{
	struct ids ids = {0};
	char said[64] = "";

	ck_assert_int_eq(tokenizer_encode(tokenizer, word, strlen(word), false, &ids), 0);
	ck_assert_uint_lt(ids.count, sizeof said);
	for (size_t i = 0; i < ids.count; i++)
		said[i] = (char)('0' + ids.id[i]);
	ck_assert_str_eq(said, digits);
	ids_release(&ids);
}

/* Of equal pairs the left one is merged first. */
START_TEST(leftmost_pair_first)
{
	struct tokenizer *tokenizer =
		lettered("{\"a\":0,\"b\":1,\"aa\":2,\"aaaa\":3}", "a a\naa aa\n");

	check_word(tokenizer, "a", "0");
	check_word(tokenizer, "aaa", "20");
	check_word(tokenizer, "aaaaa", "30");
	check_word(tokenizer, "aaaaaaa", "320");
	check_word(tokenizer, "aaabaaaaaa", "20132");
	tokenizer_close(tokenizer);
}
END_TEST

/* A pair that waits and has meanwhile become another keeps neither its rank nor its turn. */
START_TEST(pair_that_has_changed)
{
	struct tokenizer *tokenizer = lettered("{\"a\":0,\"b\":1,\"c\":2,\"d\":3,\"ab\":4,"
					       "\"bc\":5,\"abc\":6,\"bcd\":7}",
					       "b c\na b\nbc d\na bc\n");

	check_word(tokenizer, "abcd", "07");
	check_word(tokenizer, "abc", "6");
	check_word(tokenizer, "abdabc", "436");
	tokenizer_close(tokenizer);
}
END_TEST

/* The cache never takes a word for a longer one that fell into the same place. */
START_TEST(words_are_not_mixed_up)
{
	struct tokenizer *tokenizer = lettered("{\"a\":0,\"b\":1,\"c\":2,\"d\":3,\"ab\":4}",
					       "a b\n");
	char word[12] = "ab";

	for (int i = 0; i < 200000; i++) {
		struct ids ids = {0};

		for (int letter = 0; letter < 9; letter++)
			word[2 + letter] = "abcd"[i >> 2 * letter & 3];
		ck_assert_int_eq(tokenizer_encode(tokenizer, word, 11, false, &ids), 0);
		ids.count = 0;
		ck_assert_int_eq(tokenizer_encode(tokenizer, word, 2, false, &ids), 0);
		ck_assert_uint_eq(ids.count, 1);
		ck_assert_int_eq(ids.id[0], 4);
		ids_release(&ids);
	}
	tokenizer_close(tokenizer);
}
END_TEST

/* A word of a megabyte must not be quadratic: that would take minutes. */
START_TEST(long_words)
{
	static const char *const words[] = {"a", "the", "on", " ", "\n", "1", "?!"};
	struct tokenizer *tokenizer = tokenizer_open(GOLDEN);
	size_t bytes = 1000000, size = strlen(words[_i]);
	char *word = xalloc(bytes);
	struct ids ids = {0};
	struct text back = {0};

	for (size_t i = 0; i < bytes; i++)
		word[i] = words[_i][i % size];
	ck_assert_int_eq(tokenizer_encode(tokenizer, word, bytes, false, &ids), 0);
	ck_assert_int_eq(tokenizer_decode(tokenizer, ids.id, ids.count, false, &back), 0);
	ck_assert_uint_eq(back.bytes, bytes);
	ck_assert_mem_eq(back.data, word, bytes);
	ids_release(&ids);
	text_release(&back);
	free(word);
	tokenizer_close(tokenizer);
}
END_TEST

/* -- what is refused ----------------------------------------------------------------------- */

START_TEST(invalid_text)
{
	static const struct {
		const char *text;
		size_t bytes, at;
	} cases[] = {
		{"\xff", 1, 0},
		{"abc\xe9", 4, 3},
		{"ab\xed\xa0\x80", 5, 2},
		{"a\xc0\x80", 3, 1},
		{"\xc3\xa9\xf4\x90\x80\x80", 6, 2},
		{"<|endoftext|>\x80", 14, 13},
	};
	struct tokenizer *tokenizer = tokenizer_open(GOLDEN);
	struct ids ids = {0};
	char want[64];

	*ids_take(&ids, 1) = 7;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		error_hold();
		ck_assert_int_eq(
		    tokenizer_encode(tokenizer, cases[i].text, cases[i].bytes, true, &ids), -1);
		ck_assert_int_eq(error_code(), EXIT_DATA);
		snprintf(want, sizeof want, "byte %zu of the text", cases[i].at);
		ck_assert_ptr_nonnull(strstr(error_text(), want));
		error_clear();
		ck_assert_uint_eq(ids.count, 1);
	}
	ids_release(&ids);
	tokenizer_close(tokenizer);
}
END_TEST

START_TEST(invalid_ids)
{
	static const int32_t bad[] = {-1, 405, INT32_MAX, INT32_MIN};
	struct tokenizer *tokenizer = tokenizer_open(GOLDEN);
	struct text text = {0};

	for (size_t i = 0; i < 4; i++) {
		const int32_t ids[] = {5, bad[i]};

		error_hold();
		ck_assert_int_eq(tokenizer_decode(tokenizer, ids, 2, true, &text), -1);
		ck_assert_int_eq(error_code(), EXIT_DATA);
		ck_assert_ptr_nonnull(strstr(error_text(), "item 1"));
		error_clear();
		ck_assert_uint_eq(text.bytes, 0);
	}
	tokenizer_close(tokenizer);
}
END_TEST

#define NORMALIZER "\"normalizer\":null"
#define REPLACE(regex)                                                                         \
	"\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"" regex "\"},"
#define SPLIT(regex, behaviour)                                                                \
	"{\"type\":\"ByteLevel\",\"add",                                                      \
		"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex                         \
		"\"},\"behavior\":\"" behaviour "\",\"add"
#define TEMPLATE(item)                                                                         \
	"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["                     \
	"{\"Sequence\":{\"id\":\"A\"}}," item "],\"special_tokens\":{}}"

/* Edits of the tiny tokenizer.json that must be refused, with what the message names. */
static const struct edit {
	const char *find, *put;
	int code;
	const char *message;
} edits[] = {
	{NORMALIZER, "\"normalizer\":{\"type\":\"BertNormalizer\"}", EXIT_CONFIG,
	 "normalizer 'BertNormalizer'"},
	{NORMALIZER, "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Nmt\"}]}",
	 EXIT_CONFIG, "normalizer 'Nmt'"},
	{NORMALIZER, "\"normalizer\":{\"type\":\"Replace\",\"content\":\"a\"}", EXIT_DATA,
	 "pattern"},
	{NORMALIZER, REPLACE("a(") "\"content\":\"b\"}", EXIT_CONFIG, "'a('"},
	{NORMALIZER, REPLACE("(a)") "\"content\":\"$1\"}", EXIT_CONFIG, "'$1'"},
	{"{\"type\":\"ByteLevel\",\"add", "{\"type\":\"UnicodeScripts\",\"add", EXIT_CONFIG,
	 "pre_tokenizer 'UnicodeScripts'"},
	{"\"pre_tokenizer\":{", "\"pre_tokenizer\":null,\"x\":{", EXIT_CONFIG,
	 "field 'x' of type 'ByteLevel'"},
	{"\"use_regex\":true", "\"use_regex\":\"yes\"", EXIT_DATA, "use_regex"},
	{SPLIT("a[b-[c]&&d]", "Isolated"), EXIT_CONFIG, "&&"},
	{SPLIT("a{1,2}+", "Isolated"), EXIT_CONFIG, "a{1,2}+"},
	{SPLIT("[a", "Isolated"), EXIT_CONFIG, "[ without ]"},
	{SPLIT("\\\\p{Nonsense}", "Isolated"), EXIT_CONFIG, "Nonsense"},
	{SPLIT("(?<!a+)b", "Isolated"), EXIT_CONFIG, "lookbehind"},
	{SPLIT("(?<=a{20000})a", "Isolated"), EXIT_CONFIG, "looks back by 20000 characters"},
	{SPLIT("b(?<!(?:aa){64}b)", "Isolated"), EXIT_CONFIG, "looks back by 129 characters"},
	{SPLIT("a", "Sideways"), EXIT_CONFIG, "Sideways"},
	{"\"decoder\":{\"type\":\"ByteLevel\"", "\"decoder\":{\"type\":\"CTC\"", EXIT_CONFIG,
	 "decoder 'CTC'"},
	{"\"post_processor\":null", "\"post_processor\":{\"type\":\"Strange\"}", EXIT_CONFIG,
	 "post_processor 'Strange'"},
	{"\"post_processor\":null", TEMPLATE("{\"SpecialToken\":{\"id\":\"<s>\"}}"), EXIT_DATA,
	 "'<s>'"},
	{"\"post_processor\":null", TEMPLATE("{\"Sequence\":{\"id\":\"A\"}}"), EXIT_CONFIG,
	 "\"A\" once"},
	{"\"type\":\"BPE\"", "\"type\":\"Unigram\"", EXIT_CONFIG, "'Unigram'"},
	{"\"dropout\":null", "\"dropout\":0.1", EXIT_CONFIG, "dropout"},
	{"\"byte_fallback\":false", "\"byte_fallback\":1", EXIT_DATA, "byte_fallback"},
	{"\"ignore_merges\":false", "\"ignore_merges\":\"no\"", EXIT_DATA, "ignore_merges"},
	{"\"end_of_word_suffix\":null", "\"end_of_word_suffix\":\"</w>\"", EXIT_CONFIG,
	 "'</w>'"},
	{"\"version\":\"1.0\"", "\"version\":\"2.0\"", EXIT_CONFIG, "version '2.0'"},
	{"\"lstrip\":false", "\"lstrip\":0", EXIT_DATA, "lstrip"},
	{"\"single_word\":false", "\"single_word\":[]", EXIT_DATA, "single_word"},
	{"\"lstrip\":false", "\"strip\":true", EXIT_CONFIG, "'strip'"},
	{"\"special\":true", "\"special\":1", EXIT_DATA, "special"},
	{"\"content\":\"<tool>\"", "\"content\":\"\"", EXIT_DATA, "empty"},
	{"\"content\":\"<tool>\"", "\"content\":5", EXIT_DATA, "content"},
	{"\"content\":\"<tool>\"", "\"content\":\"a\\u0000\"", EXIT_DATA, "NUL"},
	{"\"id\":400", "\"id\":399", EXIT_DATA, "same id 399"},
	{"\"id\":400", "\"id\":-1", EXIT_DATA, "id -1"},
	{"\"id\":0,", "\"id\":5,", EXIT_DATA, "<|endoftext|>"},
	{"\"!\":1,", "\"!\":2147483648,", EXIT_DATA, "2147483648"},
	{"\"!\":1,", "\"!\":-5,", EXIT_DATA, "-5"},
	{"\"!\":1,", "\"!\":2,", EXIT_DATA, "same id 2"},
	{"\"!\":1,", "\"!\":1.5,", EXIT_DATA, "'!'"},
	{"\"!\":1,", "\"!\":1,\"!\":1,", EXIT_DATA, "duplicate"},
	{"[\"h\",\"e\"]", "[\"h\",\"nothing\"]", EXIT_DATA, "merge 0"},
	{"[\"h\",\"e\"]", "[\"h\",\"z\"]", EXIT_DATA, "merge 0"},
	{"[\"h\",\"e\"]", "[\"h\",\"e\",\"y\"]", EXIT_DATA, "merge 0"},
	{"[\"h\",\"e\"]", "\"h e y\"", EXIT_DATA, "merge 0"},
	{"[\"h\",\"e\"]", "{\"h\":\"e\"}", EXIT_DATA, "merge 0"},
	{"{\"version\"", "{,\"version\"", EXIT_DATA, ":1:2: error:"},
};

START_TEST(refused_files)
{
	const struct edit *edit = &edits[_i];
	char *data = take_file(GOLDEN "/tokenizer.json");
	char *edited = replaced(data, edit->find, edit->put);

	put_file("tokenizer.json", edited);
	error_hold();
	ck_assert_ptr_null(tokenizer_open(folder));
	ck_assert_int_eq(error_code(), edit->code);
	const char *said = error_text();
	ck_assert_msg(strstr(said, edit->message) != NULL, "'%s' is not in '%s'", edit->message,
		      said);
	ck_assert_ptr_nonnull(strstr(said, "tokenizer.json"));
	free(edited);
	free(data);
}
END_TEST

#define BYTE_LEVEL "\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":"

/* Whole files that must be refused. */
static const struct small {
	const char *data;
	int code;
	const char *message;
} smalls[] = {
	{"", EXIT_DATA, "tokenizer.json:1:1: error:"},
	{"[]", EXIT_DATA, "no JSON map"},
	{"{}", EXIT_CONFIG, "model 'none'"},
	{"{" BYTE_LEVEL "{\"vocab\":{},\"merges\":[]}}", EXIT_DATA, "vocabulary"},
	{"{" BYTE_LEVEL "{\"vocab\":[\"a\"],\"merges\":[]}}", EXIT_DATA, "vocabulary"},
	{"{" BYTE_LEVEL "{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", EXIT_DATA, "merges"},
	{"{" BYTE_LEVEL "{\"vocab\":{\"a\":0},\"merges\":\"a a\"}}", EXIT_DATA, "merges"},
	{"{" BYTE_LEVEL "{\"vocab\":{\"a\":0},\"merges\":[[\"a\",[\"a\"]]]}}", EXIT_DATA,
     "merge 0"},
	{"{" BYTE_LEVEL "{\"vocab\":{\"a\":0},\"merges\":[]},\"added_tokens\":[[]]}", EXIT_DATA,
     "added token"},
};

START_TEST(refused_small_files)
{
	put_file("tokenizer.json", smalls[_i].data);
	error_hold();
	ck_assert_ptr_null(tokenizer_open(folder));
	ck_assert_int_eq(error_code(), smalls[_i].code);
	const char *said = error_text();
	ck_assert_msg(strstr(said, smalls[_i].message) != NULL, "'%s' is not in '%s'",
		      smalls[_i].message, said);
}
END_TEST

/* What is not in the vocabulary is left out, as Hugging Face does it, or is the unk_token. */
START_TEST(byte_without_token)
{
	char *data = take_file(GOLDEN "/tokenizer.json");
	char *edited = replaced(data, "\"!\":1,", "\"!!!\":1,");
	char *unknown =
	    replaced(edited, "\"unk_token\":null", "\"unk_token\":\"<|endoftext|>\"");
	char *nowhere = replaced(edited, "\"unk_token\":null", "\"unk_token\":\"<nowhere>\"");
	const char *files[] = {edited, unknown, nowhere};
	static const size_t counts[] = {1, 2, 0};

	for (int i = 0; i < 3; i++) {
		struct ids ids = {0};

		unlink(in_folder("tokenizer.json"));
		put_file("tokenizer.json", files[i]);
		struct tokenizer *tokenizer = tokenizer_open(folder);
		ck_assert_ptr_nonnull(tokenizer);
		error_hold();
		int done = tokenizer_encode(tokenizer, "a!", 2, false, &ids);
		ck_assert_int_eq(done, i == 2 ? -1 : 0);
		ck_assert_uint_eq(ids.count, counts[i]);
		if (i == 1)
			ck_assert_int_eq(ids.id[1], 0);
		ck_assert_int_eq(strstr(error_text(), "<nowhere>") != NULL, i == 2);
		error_clear();
		ids_release(&ids);
		tokenizer_close(tokenizer);
	}
	free(nowhere);
	free(unknown);
	free(edited);
	free(data);
}
END_TEST

START_TEST(refused_folders)
{
	error_hold();
	ck_assert_ptr_null(tokenizer_open(folder));
	ck_assert_int_eq(error_code(), EXIT_INPUT);
	ck_assert_ptr_nonnull(strstr(error_text(), "tokenizer.json"));
	error_clear();

	copy_file(GOLDEN, "vocab.json");
	put_file("merges.txt", "#version: 0.2\nh e\nh  e\n");
	error_hold();
	ck_assert_ptr_null(tokenizer_open(folder));
	ck_assert_int_eq(error_code(), EXIT_DATA);
	ck_assert_ptr_nonnull(strstr(error_text(), "merges.txt:3:1: error:"));
	error_clear();

	unlink(in_folder("merges.txt"));
	copy_file(GOLDEN, "merges.txt");
	put_file("tokenizer_config.json", "{\"tokenizer_class\": \"BloomTokenizer\"}");
	error_hold();
	ck_assert_ptr_null(tokenizer_open(folder));
	ck_assert_int_eq(error_code(), EXIT_CONFIG);
	ck_assert_ptr_nonnull(strstr(error_text(), "BloomTokenizer"));
}
END_TEST

/* -- GPT-2 itself -------------------------------------------------------------------------- */

/* A folder or file of the shared data, null where it is not to be had. */
static char *shared(const char *name)
{
	const char *root = getenv("EDGEPIPE_SHARED");
	char *path = root ? arena_format(&arena, "%s/data/%s", root, name) : NULL;

	if (path && path_exists(path))
		return path;
	printf("skipped: EDGEPIPE_SHARED does not name a folder with data/%s\n", name);
	return NULL;
}

/* The ids of a line of vectors/NAME.out; moves *line on. */
static void check_line(struct tokenizer *tokenizer, const char *text, size_t bytes, char **line)
{
	struct ids ids = {0};
	char *end = strchrnul(*line, '\n');
	size_t i = 0;

	ck_assert_int_eq(tokenizer_encode(tokenizer, text, bytes, false, &ids), 0);
	for (char *p = *line; p < end; i++) {
		char *after;
		long id = strtol(p, &after, 10);

		if (after == p || after > end)
			break;
		ck_assert_uint_lt(i, ids.count);
		ck_assert_int_eq(ids.id[i], id);
		p = after;
	}
	ck_assert_uint_eq(i, ids.count);
	*line = *end ? end + 1 : end;
	ids_release(&ids);
}

static void check_vectors(struct tokenizer *tokenizer, const char *name)
{
	static const char between[] = "\n__ggml_vocab_test__\n";
	char *texts = take_file(shared("tokenizers/vectors/texts.inp"));
	char *answers = take_file(shared(name));
	char *line = answers;
	int count = 0;

	for (char *p = texts, *end; (end = strstr(p, between)) != NULL;
	     p = end + strlen(between)) {
		check_line(tokenizer, p, (size_t)(end - p), &line);
		count++;
	}
	ck_assert_int_eq(count, 46);
	ck_assert_int_eq(*line, '\0');
	free(texts);
	free(answers);
}

static void check_inputs(struct tokenizer *tokenizer)
{
	struct json *all = json_read(shared("tokenizers/vectors/tokenizer_tests.json"));
	const struct json *gpt2 = json_find(all, "distilgpt2");
	const struct json *whisper = json_find(all, "openai/whisper-tiny.en");

	ck_assert_uint_eq(json_size(gpt2), 18);
	ck_assert_uint_eq(json_size(whisper), 18);
	for (size_t i = 0; i < 18; i++) {
		const struct json *one = json_at(gpt2, i), *text = json_find(one, "input");
		const struct json *ids = json_find(json_find(one, "encoded"), "input_ids");

		check_text(tokenizer, json_as_text(text, ""), json_text_bytes(text), true, ids,
			   0, 0);
		/* Whisper's English one is GPT-2's with two special tokens before and one
		 * behind. */
		one = json_at(whisper, i);
		text = json_find(one, "input");
		ids = json_find(json_find(one, "encoded"), "input_ids");
		check_text(tokenizer, json_as_text(text, ""), json_text_bytes(text), true, ids,
			   2, 1);
	}
	json_free(all);
}

static void check_long_text(struct tokenizer *tokenizer)
{
	struct json *one = json_read(shared("tokenizers/vectors/gpt2_encoded_tokens.json"));
	const struct json *text = json_find(one, "text");

	ck_assert_uint_gt(json_size(json_find(one, "token_ids")), 100);
	check_text(tokenizer, json_as_text(text, ""), json_text_bytes(text), true,
		   json_find(one, "token_ids"), 0, 0);
	json_free(one);
}

START_TEST(gpt2_vectors)
{
	char *gpt2 = shared("tokenizers/gpt2");

	if (!gpt2)
		return;
	if (_i == 1) {
		copy_file(gpt2, "vocab.json");
		copy_file(gpt2, "merges.txt");
		gpt2 = folder;
	}
	struct tokenizer *tokenizer = tokenizer_open(gpt2);
	ck_assert_ptr_nonnull(tokenizer);
	ck_assert_int_eq(tokenizer_vocabulary(tokenizer), 50257);
	ck_assert_int_eq(tokenizer_find(tokenizer, "<|endoftext|>"), 50256);
	check_vectors(tokenizer, "tokenizers/vectors/gpt2.out");
	check_inputs(tokenizer);
	check_long_text(tokenizer);
	tokenizer_close(tokenizer);
}
END_TEST

START_TEST(gpt2_texts)
{
	static const struct {
		const char *name;
		size_t ids;
	} texts[] = {
		{"text/tinyshakespeare/input.txt", 338025},
		{"text/wikitext-2/test.txt", 295877},
		{"text/tinystories/tinystories-2MiB.txt", 509140},
	};
	char *gpt2 = shared("tokenizers/gpt2"), *path = shared(texts[_i].name);
	struct ids ids = {0};
	struct text back = {0};

	if (!gpt2 || !path)
		return;
	struct tokenizer *tokenizer = tokenizer_open(gpt2);
	char *text = take_file(path);
	ck_assert_int_eq(tokenizer_encode(tokenizer, text, strlen(text), true, &ids), 0);
	ck_assert_uint_eq(ids.count, texts[_i].ids);
	ck_assert_int_eq(tokenizer_decode(tokenizer, ids.id, ids.count, true, &back), 0);
	ck_assert_str_eq(back.data, text);
	ids_release(&ids);
	text_release(&back);
	free(text);
	tokenizer_close(tokenizer);
}
END_TEST

/* llama2 twice: from tokenizer.json, and from tokenizer.model alone. */
START_TEST(other_vectors)
{
	static const struct {
		const char *folder, *vectors;
		bool alone;
		size_t before;
	} cases[] = {
		{"tokenizers/llama2", "tokenizers/vectors/llama2.out", false, 1},
		{"tokenizers/llama2", "tokenizers/vectors/llama2.out", true, 1},
		{"tokenizers/qwen2", "tokenizers/vectors/qwen2.out", false, 0},
	};
	const char *path = shared(cases[_i].folder);
	const int32_t *ends;

	if (!path)
		return;
	if (cases[_i].alone) {
		size_t bytes;
		char *data = file_read(path_join(&arena, path, "tokenizer.model"), &bytes);
		ck_assert_int_eq(file_write(in_folder("tokenizer.model"), data,
					    bytes), 0);
		free(data);
		path = folder;
	}
	struct tokenizer *tokenizer = tokenizer_open(path);
	ck_assert_ptr_nonnull(tokenizer);
	check_vectors(tokenizer, cases[_i].vectors);
	ck_assert_uint_eq(tokenizer_before(tokenizer, &ends), cases[_i].before);
	if (cases[_i].before)
		ck_assert_int_eq(ends[0], 1);
	ck_assert_uint_eq(tokenizer_after(tokenizer, &ends), 0);
	tokenizer_close(tokenizer);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("tokenizer");
	TCase *tcase = tcase_create("tokenizer");

	tcase_add_checked_fixture(tcase, folder_open, folder_close);
	tcase_set_timeout(tcase, 20);
	tcase_add_test(tcase, answers_of_tokenizer_json);
	tcase_add_test(tcase, answers_of_vocabulary_and_merges);
	tcase_add_test(tcase, special_tokens_of_old_folders);
	tcase_add_test(tcase, end_of_text_by_name);
	tcase_add_test(tcase, space_before);
	tcase_add_test(tcase, older_spelling_of_merges);
	tcase_add_test(tcase, leftmost_pair_first);
	tcase_add_test(tcase, pair_that_has_changed);
	tcase_add_test(tcase, words_are_not_mixed_up);
	tcase_add_loop_test(tcase, long_words, 0, 7);
	tcase_add_test(tcase, invalid_text);
	tcase_add_test(tcase, invalid_ids);
	tcase_add_loop_test(tcase, refused_files, 0, (int)(sizeof edits / sizeof edits[0]));
	tcase_add_loop_test(tcase, refused_small_files, 0,
			    (int)(sizeof smalls / sizeof smalls[0]));
	tcase_add_test(tcase, byte_without_token);
	tcase_add_test(tcase, refused_folders);
	tcase_add_loop_test(tcase, gpt2_vectors, 0, 2);
	tcase_add_loop_test(tcase, gpt2_texts, 0, 3);
	tcase_add_loop_test(tcase, other_vectors, 0, 3);
	suite_add_tcase(suite, tcase);
	return run_suite(suite);
}
