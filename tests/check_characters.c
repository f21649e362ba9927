/*
 * tests/check_characters.c - characters that the libraries' tables know otherwise than those of Hugging Face's
 * tokenizers are taken as those take them: newer than PCRE2's and utf8proc's, or older.
 *
 * links: model
 */
#include "model/model.h"
#include "tests/folder.h"
#include "tests/suite.h"

#include <string.h>

static void put_tokenizer(const char *data)
{
	ck_assert_int_eq(file_replace(in_folder("tokenizer.json"), data, strlen(data)), 0);
}

/* The ids that a text is made into by the tokenizer.json that is there. */
static struct ids ids_of(const char *text)
{
	struct tokenizer *tokenizer = tokenizer_open(folder);
	struct ids ids = {0};

	ck_assert_ptr_nonnull(tokenizer);
	ck_assert_int_eq(tokenizer_encode(tokenizer, text, strlen(text), false, &ids), 0);
	tokenizer_close(tokenizer);
	return ids;
}

/* An expression, a character, and whether it is found: alone between two others, a piece of its own. */
static const struct {
	const char *pattern, *text;
	size_t pieces;
} found[] = {
	{"\\\\d", "a\U00010D40a", 3},	 {"[x\\\\d]", "a\U00010D40a", 3},   {"\\\\D", "\U00010D40a", 2},
	{"[[:digit:]]", "a\U00010D40a", 3}, {"[[:punct:]]", "a\U00001B4Ea", 3}, {"[[:punct:]]", "a\U00002427a", 3},
	{"\\\\p{P}", "a\U00001B4Ea", 3}, {"\\\\p{S}", "a\U00002427a", 3},   {"\\\\P{S}", "a\U00002427", 2},
	{"\\\\p{Han}", "a\U000323AFa", 3}, {"[[:alpha:]]", "1\U00010D4A1", 3}, {"[[:upper:]]", "1\U00001C891", 3},
	{"[[:lower:]]", "1\U00001C8A1", 3}, {"[[:word:]]", "!\U00010D4A!", 3}, {"\\\\b.", "!\U00010D4A!", 3},
	{"\\\\B.", "!\U00010D4A\U00010D4A", 3},
};

START_TEST(expressions)
{
	put_tokenizer(arena_format(&arena, "{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\","
				   "\"pattern\":{\"Regex\":\"%s\"}},\"model\":{\"type\":\"WordLevel\","
				   "\"vocab\":{\"[U]\":0},\"unk_token\":\"[U]\"}}", found[_i].pattern));
	struct ids ids = ids_of(found[_i].text);

	ck_assert_msg(ids.count == found[_i].pieces, "'%s' cuts '%s' into %zu", found[_i].pattern, found[_i].text,
		      ids.count);
	ids_release(&ids);
}
END_TEST

/* What Punctuation takes as Unicode 8 had it. */
START_TEST(punctuation)
{
	static const struct {
		const char *text;
		size_t pieces;
	} cases[] = {{"a!a", 3}, {"a\U00002E43a", 1}, {"a\U00001B4Ea", 1}, {"a\U0000166Da", 3}, {"a\U000111C9a", 3}};

	put_tokenizer(arena_format(&arena, "{\"pre_tokenizer\":{\"type\":\"%s\"},\"model\":{\"type\":\"WordLevel\","
				   "\"vocab\":{\"[U]\":0},\"unk_token\":\"[U]\"}}",
				   _i ? "BertPreTokenizer" : "Punctuation"));
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct ids ids = ids_of(cases[i].text);

		ck_assert_msg(ids.count == cases[i].pieces, "'%s' is %zu pieces", cases[i].text, ids.count);
		ids_release(&ids);
	}
}
END_TEST

/* A normalizer, a text and what it becomes. */
static const struct {
	const char *type, *text, *normal;
} normal[] = {
	{"Lowercase", "A\U00001C89\U0000A7CB\U00010D65\U00016EA1", "a\U00001C8A\U00000264\U00010D85\U00016EBC"},
	{"NFKC", "\U000032FE\U000032FF\U0001E030", "\u30F2\U000032FF\U0001E030"},
	{"NFKD", "\U00010781\u00E9", "\U00010781e\u0301"},
	{"NFD", "\U00011938\u00E9", "\U00011938e\u0301"},
	{"NFC", "\U00011935\U00011930", "\U00011935\U00011930"},
	/* A mark that is not known yet parts others; U+0898 is of class 220, U+0301 of 230. */
	{"NFC", "e\u0898\u0301", "e\u0898\u0301"},
	{"NFC", "e\u0301\u0898", "\u00E9\u0898"},
	{"NFD", "q\u0301\u0898\u0323", "q\u0301\u0898\u0323"},
	{"StripAccents", "e\u0301\u0898\u1CF2x", "e\u0898x"},
};

START_TEST(normalizers)
{
	put_tokenizer(arena_format(&arena, "{\"normalizer\":{\"type\":\"%s\"},\"model\":{\"type\":\"WordLevel\","
				   "\"vocab\":{\"%s\":0,\"[U]\":1},\"unk_token\":\"[U]\"}}",
				   normal[_i].type, normal[_i].normal));
	struct ids ids = ids_of(normal[_i].text);

	ck_assert_uint_eq(ids.count, 1);
	ck_assert_msg(ids.id[0] == 0, "%s of '%s' is not '%s'", normal[_i].type, normal[_i].text, normal[_i].normal);
	ids_release(&ids);
}
END_TEST

/* A token that must be a single word, beside a letter and beside what is none. */
START_TEST(sides)
{
	static const char *const side[] = {"\U00001C89", "\U0002EE5D", "\U00016D79", "\U0001FA8F"};

	put_tokenizer("{\"added_tokens\":[{\"id\":1,\"content\":\"a\",\"single_word\":true}],"
		      "\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"[U]\":0},\"unk_token\":\"[U]\"}}");
	for (int i = 0; i < 4; i++) {
		struct ids ids = ids_of(arena_format(&arena, "%sa", side[i]));

		ck_assert_uint_eq(ids.count, i == 3 ? 2 : 1);
		ids_release(&ids);
	}
}
END_TEST

#define COUNT(list) (int)(sizeof(list) / sizeof(list)[0])

int main(void)
{
	Suite *suite = suite_create("characters");
	TCase *tcase = tcase_create("characters");

	tcase_add_checked_fixture(tcase, folder_open, folder_close);
	tcase_add_loop_test(tcase, expressions, 0, COUNT(found));
	tcase_add_loop_test(tcase, punctuation, 0, 2);
	tcase_add_loop_test(tcase, normalizers, 0, COUNT(normal));
	tcase_add_test(tcase, sides);
	suite_add_tcase(suite, tcase);
	return run_suite(suite);
}
