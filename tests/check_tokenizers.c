/*
 * tests/check_tokenizers.c - tokenizers of many kinds against Hugging Face's answers (golden/
 * tokenizers, made by the script there): ids, what stands around a text, and texts back. And files
 * that are made to do harm.
 *
 * links: model
 */
#include "model/model.h"
#include "tests/folder.h"
#include "tests/suite.h"

#include <stdlib.h>
#include <string.h>

#define GOLDEN TESTS_FOLDER "/golden/tokenizers/"

/* Seconds that nothing here takes whose work grows with its text, a tenth of them on a slow machine; what grows faster
 * takes minutes. */
#define SOON 10


static void put_bytes(const char *name, const void *data, size_t bytes)
{
	ck_assert_int_eq(file_replace(in_folder(name), data, bytes), 0);
}

static void put_file(const char *name, const char *data)
{
	put_bytes(name, data, strlen(data));
}

/* -- answers ------------------------------------------------------------------------------- */

static const char *const kinds[] = {
	"llama3", "qwen", "whole", "digits", "merged_with_previous", "merged_with_next",
	"contiguous", "removed", "fallback", "unknown", "unfused", "metaspace_first",
	"metaspace_always", "metaspace_never", "words", "words_split", "pieces",
};

/* A tokenizer.model in hexadecimal digits. */
static void put_model(const char *digits)
{
	size_t bytes = strlen(digits) / 2;
	unsigned char *data = xalloc(bytes);

	for (size_t i = 0; i < bytes; i++) {
		char two[3] = {digits[2 * i], digits[2 * i + 1], '\0'};
		data[i] = (unsigned char)strtoul(two, NULL, 16);
	}
	put_bytes("tokenizer.model", data, bytes);
	free(data);
}

/* The text of the file between two marks: the tokenizer as it was written. */
static void put_tokenizer(const char *kind, const struct json *file)
{
	const char *digits = json_as_text(json_find(file, "model"), NULL);
	char *path = arena_format(&arena, GOLDEN "%s.json", kind);
	size_t bytes;

	if (digits) {
		put_model(digits);
		return;
	}
	char *data = file_read(path, &bytes);
	const char *start = strstr(data, "\"tokenizer\":{");
	ck_assert_ptr_nonnull(start);
	start += strlen("\"tokenizer\":");
	put_bytes("tokenizer.json", start, strlen(start) - strlen("}\n"));
	free(data);
}

static void check_ids(const struct json *one, const char *key, const struct ids *ids)
{
	const struct json *want = json_find(one, key);
	const char *text = json_as_text(json_find(one, "text"), "");

	ck_assert_msg(ids->count == json_size(want), "%s of '%s': %zu ids instead of %zu", key,
		      text, ids->count, json_size(want));
	for (size_t i = 0; i < ids->count; i++)
		ck_assert_msg(ids->id[i] == json_as_integer(json_at(want, i), -1),
			      "%s of '%s': id %zu is %d", key, text, i, ids->id[i]);
}

static void encode(struct tokenizer *tokenizer, const struct json *one, bool special,
		   struct ids *ids)
{
	const struct json *text = json_find(one, "text");

	ck_assert_int_eq(tokenizer_encode(tokenizer, json_as_text(text, ""),
					  json_text_bytes(text), special, ids), 0);
}

static void put_ends(struct ids *ids, const int32_t *end, size_t count)
{
	for (size_t i = 0; i < count; i++)
		*ids_take(ids, 1) = end[i];
}

static void check_back(struct tokenizer *tokenizer, const struct json *one, const char *key,
		       bool special, const struct ids *ids)
{
	const struct json *want = json_find(one, key);
	struct text text = {0};

	ck_assert_int_eq(tokenizer_decode_text(tokenizer, ids->id, ids->count, special, &text),
			 0);
	ck_assert_msg(text.bytes == json_text_bytes(want) &&
			      memcmp(text.data ? text.data : "", json_as_text(want, ""),
				     text.bytes) == 0,
		      "%s: '%s' instead of '%s'", key, text.data, json_as_text(want, ""));
	text_release(&text);
}

/* The bytes of a text that grows id by id only ever grow. */
static void check_growth(struct tokenizer *tokenizer, const struct ids *ids)
{
	struct text before = {0};

	for (size_t count = 0; count <= ids->count; count++) {
		struct text text = {0};

		ck_assert_int_eq(tokenizer_decode(tokenizer, ids->id, count, true, &text), 0);
		ck_assert_uint_ge(text.bytes, before.bytes);
		ck_assert(before.bytes == 0 ||
			  memcmp(text.data, before.data, before.bytes) == 0);
		text_release(&before);
		before = text;
	}
	text_release(&before);
}

static void check_answer(struct tokenizer *tokenizer, const struct json *one)
{
	struct ids ids = {0}, whole = {0};
	const int32_t *end;

	encode(tokenizer, one, false, &ids);
	check_ids(one, "plain", &ids);
	ids.count = 0;
	encode(tokenizer, one, true, &ids);
	check_ids(one, "special", &ids);
	check_back(tokenizer, one, "back", true, &ids);
	check_back(tokenizer, one, "clean", false, &ids);
	check_growth(tokenizer, &ids);

	size_t before = tokenizer_before(tokenizer, &end);
	put_ends(&whole, end, before);
	encode(tokenizer, one, true, &whole);
	size_t after = tokenizer_after(tokenizer, &end);
	put_ends(&whole, end, after);
	check_ids(one, "whole", &whole);
	ids_release(&whole);
	ids_release(&ids);
}

START_TEST(answers)
{
	struct json *file = json_read(arena_format(&arena, GOLDEN "%s.json", kinds[_i]));
	const struct json *answers = json_find(file, "answers");

	ck_assert_uint_gt(json_size(answers), 20);
	put_tokenizer(kinds[_i], file);
	struct tokenizer *tokenizer = tokenizer_open(folder);
	ck_assert_ptr_nonnull(tokenizer);
	for (size_t i = 0; i < json_size(answers); i++)
		check_answer(tokenizer, json_at(answers, i));
	tokenizer_close(tokenizer);
	json_free(file);
}
END_TEST

/* A text of one word is cut where no merge crosses: the same ids as of the whole, and quickly. */
START_TEST(long_text_of_pieces)
{
	struct json *file = json_read(GOLDEN "fallback.json");
	struct ids ids = {0};
	struct text text = {0}, back = {0};

	put_tokenizer("fallback", file);
	struct tokenizer *tokenizer = tokenizer_open(folder);
	for (int i = 0; text.bytes < 1000000 / TIMES_LESS; i++)
		text_add(&text, _i == 0 ? "the bus %d  " : _i == 1 ? "bus%d" : " ", i);
	ck_assert_int_eq(tokenizer_encode(tokenizer, text.data, text.bytes, false, &ids), 0);
	ck_assert_int_eq(tokenizer_decode(tokenizer, ids.id, ids.count, false, &back), 0);
	ck_assert_uint_eq(back.bytes, text.bytes);
	ck_assert_mem_eq(back.data, text.data, text.bytes);
	text_release(&text);
	text_release(&back);
	ids_release(&ids);
	tokenizer_close(tokenizer);
	json_free(file);
}
END_TEST

/* -- files that are made to do harm -------------------------------------------------------- */

#define SMALL(normalizer, pre)                                                                 \
	"{\"normalizer\":" normalizer ",\"pre_tokenizer\":" pre                                    \
	",\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0,\"[U]\":1},\"unk_token\":\"[U]\"}}"
#define REGEX(pattern)                                                                         \
	"{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"" pattern "\"}}"

/* So many bytes of a text that repeats. */
static char *repeated(const char *text, size_t bytes)
{
	size_t each = strlen(text), done = 0;
	char *data = xalloc(bytes);

	for (; done + each <= bytes; done += each)
		memcpy(data + done, text, each);
	memset(data + done, '!', bytes - done);
	return data;
}

/* Tokenizes a text that repeats with the tokenizer.json that is there; how many ids, -1. */
static long long encode_repeated(const char *text, size_t bytes)
{
	struct tokenizer *tokenizer = tokenizer_open(folder);
	char *data = repeated(text, bytes);
	struct ids ids = {0};

	ck_assert_ptr_nonnull(tokenizer);
	double start = computed_s();
	int done = tokenizer_encode(tokenizer, data, bytes, false, &ids);
	ck_assert_computed_lt(start, SOON);
	long long count = done < 0 ? -1 : (long long)ids.count;
	ids_release(&ids);
	tokenizer_close(tokenizer);
	free(data);
	return count;
}

/* Expressions whose work grows faster than the text, in one match or in all of them together, end
 * soon and are named. */
START_TEST(patterns_that_take_for_ever)
{
	static const struct {
		const char *pattern, *text;
	} cases[] = {
		{"(a+)+Z", "a"}, {"(a|a)*b", "a"}, {"(?:a?){60}a{60}c", "a"}, {"(.*)*x", "a"},
		{"a.*b|a", "a"}, {"(a+)+b|a", "a"}, {"(?:a[^b]*+b|a)+c|a", "a"}, {"(?=.*b)a|a", "a"},
		{"(?:a{60}b|a)*b|a", "a"}, {"a{1000,}b|a", "a"}, {"(?<=a)a+b|a", "a"}, {".*b", "xa"},
		{"(a+)+b|a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac"},
	};

	put_file("tokenizer.json",
		 arena_format(&arena, SMALL("null", REGEX("%s")), cases[_i].pattern));
	error_hold();
	ck_assert_int_eq(encode_repeated(cases[_i].text, 1000000), -1);
	ck_assert_int_eq(error_code(), EXIT_DATA);
	ck_assert_ptr_nonnull(strstr(error_text(), cases[_i].pattern));
	ck_assert_ptr_nonnull(strstr(error_text(), "at byte "));
}
END_TEST

/* What many short pieces take is counted together. */
START_TEST(pieces_that_take_for_ever)
{
	put_file("tokenizer.json",
		 SMALL("null", "{\"type\":\"Sequence\",\"pretokenizers\":["
		       "{\"type\":\"CharDelimiterSplit\",\"delimiter\":\",\"}," REGEX("(a+)+b|a") "]}"));
	error_hold();
	ck_assert_int_eq(encode_repeated("aaaaaaaaaaaaaaaaaaaa,", 1000000 / TIMES_LESS), -1);
	ck_assert_ptr_nonnull(strstr(error_text(), "(a+)+b|a"));
}
END_TEST

#define LLAMA3                                                                                 \
	"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"                 \
	"| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* What is in use works on texts that are one long run; a match may be far away, end where a look
 * ends, or look back. */
START_TEST(patterns_on_long_runs)
{
	enum { BYTES = 3000000 / TIMES_LESS };
	static const struct {
		const char *pattern, *text;
		long long count;
	} cases[] = {
		{LLAMA3, " ", 1}, {LLAMA3, "a", 1}, {LLAMA3, "1", BYTES / 3}, {LLAMA3, "=", 1},
		{LLAMA3, "\n", 1}, {LLAMA3, "\xf0\x9f\x98\x80", 1}, {LLAMA3, " a", BYTES / 2},
		{LLAMA3, "\xe6\x95\xb0", 1}, {"Z", "a", 1}, {"aZ|aaa(?!Z)", "a", BYTES / 3},
		{"(?<=a)b+(?=c)", "abc", BYTES / 3 * 2 + 1}, {"\\bb", "a b", BYTES / 3 * 2},
	};
	const char *pattern = cases[_i].pattern;
	struct text quoted = {0};

	for (; *pattern; pattern++)
		text_add(&quoted, *pattern == '\\' ? "\\\\" : "%c", *pattern);
	put_file("tokenizer.json", arena_format(&arena, SMALL("null", REGEX("%s")), quoted.data));
	text_release(&quoted);
	ck_assert_int_eq(encode_repeated(cases[_i].text, BYTES), cases[_i].count);
}
END_TEST

/* A match of any length, on both sides of where a first look ends, is found whole; and so is one
 * that lies across it, with nothing found before. */
START_TEST(matches_of_all_lengths)
{
	static const char *const patterns[] = {"(?:a|\\\\u00e9)+c?|b+?", "d[a-b]+"};

	put_file("tokenizer.json", arena_format(&arena, SMALL("null", REGEX("%s")), patterns[_i]));
	for (int length = 1; length < 400; length++) {
		char *word = arena_format(&arena, _i == 0 ? "b\xc3\xa9%0*dcb" : "\xc3\xa9%0*ddbbbc",
					  length, 0);

		for (char *c = strchr(word, '0'); *c == '0'; c++)
			*c = 'a';
		ck_assert_int_eq(encode_repeated(word, strlen(word)), 3);
	}
}
END_TEST

/* Marks are sorted by counting: a million of them take no longer than other characters. */
START_TEST(a_million_marks)
{
	struct ids ids = {0};
	struct text text = {0};

	put_file("tokenizer.json", SMALL("{\"type\":\"NFC\"}", "null"));
	struct tokenizer *tokenizer = tokenizer_open(folder);
	for (int i = 0; i < 500000 / TIMES_LESS; i++)
		text_add(&text, "%s", i % 2 ? "\xcc\xa3" : "\xcc\x81");
	double start = computed_s();
	ck_assert_int_eq(tokenizer_encode(tokenizer, text.data, text.bytes, false, &ids), 0);
	ck_assert_computed_lt(start, SOON);
	text_release(&text);
	ids_release(&ids);
	tokenizer_close(tokenizer);
}
END_TEST

#define LEVEL "{\"type\":\"ByteLevel\",\"use_regex\":false}"
#define DOUBLED "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aa\"}"

/* So many of one kind in a row. */
static const char *row_of(const char *kind, const char *list, const char *one, int count)
{
	char *all = arena_format(&arena, "{\"type\":\"Sequence\",\"%s\":[%s", list, one);

	for (int i = 1; i < count; i++)
		all = arena_format(&arena, "%s,%s", all, one);
	return arena_format(&arena, strcmp(kind, "normalizer") == 0 ? SMALL("%s]}", "null")
								    : SMALL("null", "%s]}"), all);
}

/* More steps than the stack could hold, or than any tokenizer has, are refused. */
START_TEST(too_many_steps)
{
	static const struct {
		const char *kind, *list, *one, *message;
		int count, code;
	} rows[] = {
		{"normalizer", "normalizers", "{\"type\":\"NFC\"}", "64 steps", 65, EXIT_CONFIG},
		{"pre_tokenizer", "pretokenizers", "{\"type\":\"Whitespace\"}", "64 steps", 65, EXIT_CONFIG},
		{"pre_tokenizer", "pretokenizers", LEVEL, "ByteLevel", 5, EXIT_CONFIG},
		{"pre_tokenizer", "pretokenizers", "{\"type\":\"Metaspace\",\"replacement\":\"  \"}",
		 "one character", 1, EXIT_DATA},
	};

	put_file("tokenizer.json", row_of(rows[_i].kind, rows[_i].list, rows[_i].one, rows[_i].count));
	error_hold();
	ck_assert_ptr_null(tokenizer_open(folder));
	ck_assert_int_eq(error_code(), rows[_i].code);
	ck_assert_msg(strstr(error_text(), rows[_i].message) != NULL, "%s", error_text());
}
END_TEST

/* What doubles a text again and again ends before it takes the memory. */
START_TEST(text_that_grows)
{
	struct ids ids = {0};

	put_file("tokenizer.json", row_of("normalizer", "normalizers", DOUBLED, 40));
	struct tokenizer *tokenizer = tokenizer_open(folder);
	ck_assert_ptr_nonnull(tokenizer);
	error_hold();
	ck_assert_int_eq(tokenizer_encode(tokenizer, "a", 1, false, &ids), -1);
	ck_assert_int_eq(error_code(), EXIT_DATA);
	ck_assert_ptr_nonnull(strstr(error_text(), "text of 1 bytes grow"));
	ids_release(&ids);
	tokenizer_close(tokenizer);
}
END_TEST

/* Every space is a token that takes the spaces beside it: each is looked at a few times alone. */
START_TEST(spaces_taken_again)
{
	static const char *const side[] = {"lstrip", "rstrip"};
	enum { SPACES = 200000 / TIMES_LESS };
	struct ids ids = {0};
	char *text = xalloc(SPACES);

	memset(text, ' ', SPACES);
	put_file("tokenizer.json",
		 arena_format(&arena, "{\"added_tokens\":[{\"id\":2,\"content\":\" \",\"normalized\":false,"
			      "\"%s\":true}],\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0}}}",
			      side[_i]));
	struct tokenizer *tokenizer = tokenizer_open(folder);
	ck_assert_ptr_nonnull(tokenizer);
	double start = computed_s();
	ck_assert_int_eq(tokenizer_encode(tokenizer, text, SPACES, false, &ids), 0);
	ck_assert_computed_lt(start, SOON);
	ck_assert_uint_eq(ids.count, SPACES);
	free(text);
	ids_release(&ids);
	tokenizer_close(tokenizer);
}
END_TEST

enum { PIECE_BYTES = 512 }; /* the most that a piece may have */

/* Adds a piece of 128 bytes or more to a tokenizer.model: lengths take two bytes, seven bits each. */
static void add_piece(struct text *file, int number, size_t bytes)
{
	char piece[PIECE_BYTES + 2];
	const unsigned char start[] = {0x0a, (unsigned char)(0x83 + bytes % 128), (unsigned char)(bytes / 128),
				       0x0a, (unsigned char)(0x80 + bytes % 128), (unsigned char)(bytes / 128)};

	snprintf(piece, sizeof piece, "%0*d", (int)bytes, number);
	text_put(file, start, sizeof start);
	text_put(file, piece, bytes);
}

/* Puts a tokenizer.model of so many pieces of so many bytes, and of one of so many at its end. */
static void put_pieces(int pieces, size_t bytes, size_t last)
{
	struct text file = {0};

	for (int i = 0; i < pieces - 1; i++)
		add_piece(&file, i, bytes);
	add_piece(&file, pieces - 1, last);
	text_put(&file, "\x12\x02\x18\x02", 4);
	put_bytes("tokenizer.model", file.data, file.bytes);
	put_file("tokenizer_config.json", "{\"add_bos_token\":false}");
	text_release(&file);
}

/* The least of three times that a tokenizer is opened in. */
static double opened_in_s(void)
{
	double least = 1e9;

	for (int turn = 0; turn < 3; turn++) {
		double start = computed_s();
		struct tokenizer *tokenizer = tokenizer_open(folder);
		double took = computed_s() - start;

		ck_assert_ptr_nonnull(tokenizer);
		tokenizer_close(tokenizer);
		least = took < least ? took : least;
	}
	return least;
}

/* As many bytes in long pieces are read as soon as in short ones: hashing each start of a piece anew takes four times
 * as long. */
START_TEST(long_pieces)
{
	enum { PIECES = 8000 / TIMES_LESS };

	put_pieces(4 * PIECES, PIECE_BYTES / 4, PIECE_BYTES / 4);
	double of_short = opened_in_s();
	put_pieces(PIECES, PIECE_BYTES, PIECE_BYTES);
	double of_long = opened_in_s();
	ck_assert_msg(of_long < 1.8 * of_short, "%.3f s for long pieces, %.3f s for short ones", of_long, of_short);
}
END_TEST

START_TEST(piece_too_long)
{
	put_pieces(100, PIECE_BYTES, PIECE_BYTES + 1);
	error_hold();
	ck_assert_ptr_null(tokenizer_open(folder));
	ck_assert_ptr_nonnull(strstr(error_text(), "piece 99 has 513 bytes"));
}
END_TEST

static const struct {
	const char *data;
	size_t bytes;
	int code;
	const char *message;
} models[] = {
	{"", 0, EXIT_DATA, "no pieces"},
	{"\x0a", 1, EXIT_DATA, "byte 1: the file ends"},
	{"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10, EXIT_DATA, "length"},
	{"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, EXIT_DATA, "64 bits"},
	{"\x0a\x03\x0a\x05" "a", 5, EXIT_DATA, "length"},
	{"\x0b", 1, EXIT_DATA, "kind"},
	{"\x02", 1, EXIT_DATA, "number"},
	{"\x0a\x02\x0a\x00", 4, EXIT_DATA, "piece 0"},
	{"\x0a\x03\x0a\x01\xff", 5, EXIT_DATA, "piece 0"},
	{"\x0a\x08\x0a\x01" "a\x15\x00\x00\xc0\x7f", 10, EXIT_DATA, "piece 0"},
	{"\x0a\x03\x0a\x01" "a", 5, EXIT_CONFIG, "'unigram'"},
	{"\x0a\x03\x0a\x01" "a\x12\x02\x18\x03", 9, EXIT_CONFIG, "'word'"},
	{"\x0a\x03\x0a\x01" "a\x12\x02\x18\x02\x1a\x05\x0a\x03nmt\x1a\x03\x12\x01x", 21, EXIT_CONFIG,
	 "'nmt'"},
	{"\x0a\x03\x0a\x01" "a\x12\x05\x18\x02\xc0\x01\x01", 12, EXIT_CONFIG, "whitespace_as_suffix"},
	{"\x0a\x03\x0a\x01" "a\x12\x02\x18\x02\x1a\x02\x28\x00", 13, EXIT_CONFIG, "escape"},
	{"\x0a\x05\x0a\x01" "a\x18\x05\x12\x02\x18\x02", 11, EXIT_CONFIG, "UNUSED"},
	{"\x0a\x03\x0a\x01" "a\x0a\x03\x0a\x01" "a\x12\x02\x18\x02", 14, EXIT_DATA, "two ids"},
};

START_TEST(broken_models)
{
	put_bytes("tokenizer.model", models[_i].data, models[_i].bytes);
	error_hold();
	ck_assert_ptr_null(tokenizer_open(folder));
	ck_assert_int_eq(error_code(), models[_i].code);
	const char *said = error_text();
	ck_assert_msg(strstr(said, models[_i].message) != NULL, "'%s' is not in '%s'",
		      models[_i].message, said);
	ck_assert_ptr_nonnull(strstr(said, "tokenizer.model"));
}
END_TEST

/* A class and the files that it needs; what is said where they are not there. */
START_TEST(classes_and_files)
{
	static const struct {
		const char *class, *file, *message;
		int code;
	} cases[] = {
		{"LlamaTokenizer", "merges.txt", "tokenizer.model", EXIT_INPUT},
		{"GPT2Tokenizer", "tokenizer.model", "vocab.json", EXIT_INPUT},
		{"T5Tokenizer", "tokenizer.model", "'T5Tokenizer'", EXIT_CONFIG},
	};

	put_file("vocab.json", "{\"a\":0}");
	put_file(cases[_i].file, "");
	put_file("tokenizer_config.json",
		 arena_format(&arena, "{\"tokenizer_class\":\"%s\"}", cases[_i].class));
	error_hold();
	ck_assert_ptr_null(tokenizer_open(folder));
	ck_assert_int_eq(error_code(), cases[_i].code);
	const char *said = error_text();
	ck_assert_msg(strstr(said, cases[_i].message) != NULL, "'%s' is not in '%s'",
		      cases[_i].message, said);
}
END_TEST

#define COUNT(list) (int)(sizeof(list) / sizeof(list)[0])

int main(void)
{
	Suite *suite = suite_create("tokenizers");
	TCase *tcase = tcase_create("tokenizers");

	tcase_add_checked_fixture(tcase, folder_open, folder_close);
	tcase_set_timeout(tcase, 120);
	tcase_add_loop_test(tcase, answers, 0, COUNT(kinds));
	tcase_add_loop_test(tcase, long_text_of_pieces, 0, 3);
	tcase_add_loop_test(tcase, patterns_that_take_for_ever, 0, 13);
	tcase_add_test(tcase, pieces_that_take_for_ever);
	tcase_add_loop_test(tcase, patterns_on_long_runs, 0, 12);
	tcase_add_loop_test(tcase, matches_of_all_lengths, 0, 2);
	tcase_add_test(tcase, a_million_marks);
	tcase_add_loop_test(tcase, too_many_steps, 0, 4);
	tcase_add_test(tcase, text_that_grows);
	tcase_add_loop_test(tcase, spaces_taken_again, 0, 2);
	tcase_add_test(tcase, long_pieces);
	tcase_add_test(tcase, piece_too_long);
	tcase_add_loop_test(tcase, broken_models, 0, COUNT(models));
	tcase_add_loop_test(tcase, classes_and_files, 0, 3);
	suite_add_tcase(suite, tcase);
	return run_suite(suite);
}
