/*
 * tests/check_yaml.c - YAML as a tree with positions: what is read, and every refusal word for
 * word.
 *
 * links: base
 */
#include "base/base.h"
#include "tests/folder.h"
#include "tests/suite.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void set_up(void)
{
	error_clear();
	error_hold();
}

static void tear_down(void)
{
	error_clear();
	arena_release(&arena);
}

static struct yaml *parse(const char *text)
{
	return yaml_parse(&arena, text, strlen(text), "t.yaml");
}

/* -- what is read -------------------------------------------------------------------------- */

START_TEST(a_tree_keeps_positions)
{
	struct yaml *root = parse("# a comment\n"
				  "name: campus\n"
				  "nodes:\n"
				  "  - {name: \"l\\u00e4b\", cores: 4}\n"
				  "  - name: b c\n");
	struct yaml *nodes = yaml_find(root, "nodes"), *name = yaml_find(root, "name");

	ck_assert_str_eq(error_text(), "");
	ck_assert_int_eq(root->kind, YAML_MAP);
	ck_assert_int_eq(root->count, 2);
	ck_assert_int_eq(root->line, 2);
	ck_assert_str_eq(name->text, "campus");
	ck_assert(!name->quoted);
	ck_assert_int_eq(name->line, 2);
	ck_assert_int_eq(name->column, 7);
	ck_assert_int_eq(name->width, 6);
	ck_assert_int_eq(name->key_line, 2);
	ck_assert_int_eq(name->key_column, 1);
	ck_assert_int_eq(nodes->kind, YAML_LIST);
	ck_assert_int_eq(nodes->count, 2);
	ck_assert_ptr_eq(nodes->item[0], nodes->first);
	ck_assert_ptr_eq(nodes->item[1], nodes->first->next);
	name = yaml_find(nodes->item[0], "name");
	ck_assert_str_eq(name->text, "läb");
	ck_assert(name->quoted);
	ck_assert_int_eq(name->line, 4);
	ck_assert_int_eq(name->column, 12);
	ck_assert_int_eq(name->width, 10);
	ck_assert_int_eq(yaml_find(nodes->item[0], "cores")->key_column, 24);
	ck_assert_str_eq(yaml_find(nodes->item[1], "name")->text, "b c");
	ck_assert_ptr_null(yaml_find(root, "nod"));
	ck_assert_ptr_null(yaml_find(nodes, "name"));
	ck_assert_ptr_null(yaml_find(NULL, "name"));
}
END_TEST

START_TEST(scalars_stay_text)
{
	struct yaml *list = parse("[NO, 010, 1_000, 1.10, ~, '', \"a: b\", 2026-01-31, "
				  "'it''s']");
	const char *text[] = { "NO", "010", "1_000", "1.10", "~", "", "a: b", "2026-01-31",
			       "it's" };

	ck_assert_int_eq(list->count, 9);
	for (int i = 0; i < 9; i++) {
		ck_assert_str_eq(list->item[i]->text, text[i]);
		ck_assert_int_eq(list->item[i]->quoted, i == 5 || i == 6 || i == 8);
	}
}
END_TEST

START_TEST(what_editors_write_is_read)
{
	struct yaml *root = parse("\xef\xbb\xbf" "a: 1\r\nb:\t2 # tab\r\n---x: |\r\n  1\r\n");

	ck_assert_str_eq(error_text(), "");
	ck_assert_str_eq(yaml_find(root, "a")->text, "1");
	ck_assert_int_eq(yaml_find(root, "a")->column, 4);
	ck_assert_str_eq(yaml_find(root, "b")->text, "2");
	ck_assert_int_eq(yaml_find(root, "b")->line, 2);
	ck_assert_str_eq(yaml_find(root, "---x")->text, "1\n");
	root = parse("%YAML 1.1\n---\na: 1\n...\n");
	ck_assert_str_eq(yaml_find(root, "a")->text, "1");
}
END_TEST

/* -- what is refused ----------------------------------------------------------------------- */

static const struct { const char *text, *error; } bad[] = {
	{"", "t.yaml:1:1: error: the file is empty\n"},
	{"# nothing\n",
	 "t.yaml:1:1: error: the file is empty\n"
	 "      1 | # nothing\n"
	 "        | ^\n"},
	{"a: 1\nb: 2\na: 3\nb: 4\na: 5\n",
	 "t.yaml:3:1: error: duplicate key \"a\" (first at line 1)\n"
	 "      3 | a: 3\n"
	 "        | ^\n"
	 "t.yaml:5:1: error: duplicate key \"a\" (first at line 1)\n"
	 "      5 | a: 5\n"
	 "        | ^\n"
	 "t.yaml:4:1: error: duplicate key \"b\" (first at line 2)\n"
	 "      4 | b: 4\n"
	 "        | ^\n"},
	{"n:\n  - {key: 1, \"key\": 2}\n",
	 "t.yaml:2:14: error: duplicate key \"key\" (first at line 2)\n"
	 "      2 |   - {key: 1, \"key\": 2}\n"
	 "        |              ^~~\n"},
	{"a: &x 1\nb: *x\n",
	 "t.yaml:1:4: error: anchors are not allowed here (\"x\"): write the value out\n"
	 "      1 | a: &x 1\n"
	 "        |    ^~~~\n"
	 "t.yaml:2:4: error: aliases are not allowed here (\"x\"): write the value out\n"
	 "      2 | b: *x\n"
	 "        |    ^~\n"},
	{"a: &x {b: 1}\n",
	 "t.yaml:1:4: error: anchors are not allowed here (\"x\"): write the value out\n"
	 "      1 | a: &x {b: 1}\n"
	 "        |    ^\n"},
	{"a: !!python/object x\nb: ! [1]\n",
	 "t.yaml:1:4: error: tags are not allowed here (\"tag:yaml.org,2002:python/object\"):"
	 " the type of a key is fixed\n"
	 "      1 | a: !!python/object x\n"
	 "        |    ^~~~~~~~~~~~~~~~~\n"
	 "t.yaml:2:4: error: tags are not allowed here (\"!\"): the type of a key is fixed\n"
	 "      2 | b: ! [1]\n"
	 "        |    ^\n"},
	{"<<: {a: 1}\n",
	 "t.yaml:1:1: error: merge keys (<<) are not allowed here: write the keys out\n"
	 "      1 | <<: {a: 1}\n"
	 "        | ^~\n"},
	{"%TAG !e! tag:example.com,2000:\n---\na: 1\n",
	 "t.yaml:1:1: error: %TAG is not allowed here\n"
	 "      1 | %TAG !e! tag:example.com,2000:\n"
	 "        | ^~~~\n"},
	{"a: 1\n---\nb: 2\n",
	 "t.yaml:2:1: error: a second document begins here: one file, one document\n"
	 "      2 | ---\n"
	 "        | ^\n"},
	{"? [a, b]\n: c\n",
	 "t.yaml:1:3: error: a key must be a plain word\n"
	 "      1 | ? [a, b]\n"
	 "        |   ^\n"},
	{"{*x : 1}\n",
	 "t.yaml:1:2: error: a key must be a plain word\n"
	 "      1 | {*x : 1}\n"
	 "        |  ^\n"},
	{"a:\n\tb: 1\n",
	 "t.yaml:2:1: error: a tab cannot indent: use spaces\n"
	 "      2 |  b: 1\n"
	 "        | ^\n"},
	{"a: [1, 2\nb: 3\n",
	 "t.yaml:2:2: error: did not find expected ',' or ']', while parsing a flow sequence"
	 " (it begins at line 1)\n"
	 "      2 | b: 3\n"
	 "        |  ^\n"},
	{"a: \"x\n\nb: 1\n",
	 "t.yaml:4:1: error: found unexpected end of stream, while scanning a quoted scalar"
	 " (it begins at line 1)\n"},
	{"a: {b: 1}}\n",
	 "t.yaml:1:10: error: did not find expected key, while parsing a block mapping\n"
	 "      1 | a: {b: 1}}\n"
	 "        |          ^\n"},
	{"a: 1\nb: x\xffy\n",
	 "t.yaml:2:5: error: invalid leading UTF-8 octet (0xff)\n"
	 "      2 | b: x?y\n"
	 "        |     ^\n"},
	{"a: \xc3\xa4\x1b[31m\n",
	 "t.yaml:1:5: error: control characters are not allowed (0x1b)\n"
	 "      1 | a: \xc3\xa4?[31m\n"
	 "        |     ^\n"},
	{"\xff\xfe" "a",
	 "t.yaml:1:1: error: the text is UTF-16: save it as UTF-8\n"
	 "      1 | ??a\n"
	 "        | ^\n"},
	{"a: \"x\\0y\"\n",
	 "t.yaml:1:4: error: a text cannot hold the character NUL\n"
	 "      1 | a: \"x\\0y\"\n"
	 "        |    ^~~~~~\n"},
	{"ä: [\"ü\", &x ü]\n",		/* columns are characters, not bytes */
	 "t.yaml:1:10: error: anchors are not allowed here (\"x\"): write the value out\n"
	 "      1 | ä: [\"ü\", &x ü]\n"
	 "        |          ^~~~\n"},
	{"a: [0123456789, 0123456789, 0123456789, 0123456789, 0123456789, 0123456789, "
	 "0123456789, &x 1, 0123456789, 0123456789, 0123456789, 0123456789, 0123456789]\n",
	 "t.yaml:1:89: error: anchors are not allowed here (\"x\"): write the value out\n"
	 "      1 | ... 0123456789, 0123456789, 0123456789, 0123456789, &x 1, 0123456789, "
	 "0123456789, 0123456789 ...\n"
	 "        |                                                     ^~~~\n"},
	{"a: &x 0123456789-123456789-123456789-123456789-123456789-123456789-123456789-"
	 "123456789\n",
	 "t.yaml:1:4: error: anchors are not allowed here (\"x\"): write the value out\n"
	 "      1 | a: &x 0123456789-123456789-123456789-123456789-123456789-123456789-"
	 "123456789-123456789\n"
	 "        |    ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~"
	 "~~~~~~~~~~~~~~~~~~~\n"},
	{"abcdefghij: &x 0123456789-123456789-123456789-123456789-123456789-123456789-"
	 "123456789-123456789\n",
	 "t.yaml:1:13: error: anchors are not allowed here (\"x\"): write the value out\n"
	 "      1 | abcdefghij: &x 0123456789-123456789-123456789-123456789-123456789-"
	 "123456789-123456789-12 ...\n"
	 "        |             ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~"
	 "~~~~~~~~~~~~~~~~~~~~~\n"},
};

START_TEST(a_bad_file_is_refused)
{
	ck_assert_ptr_null(parse(bad[_i].text));
	ck_assert_str_eq(error_text(), bad[_i].error);
	ck_assert_int_eq(error_code(), EXIT_CONFIG);
}
END_TEST

START_TEST(a_nul_byte_is_refused)
{
	ck_assert_ptr_null(yaml_parse(&arena, "a: b\0c", 6, "t.yaml"));
	ck_assert_str_eq(error_text(),
			 "t.yaml:1:5: error: control characters are not allowed (0x00)\n"
			 "      1 | a: b?c\n"
			 "        |     ^\n");
}
END_TEST

START_TEST(the_depth_is_limited)
{
	char text[200] = "";

	for (int i = 0; i < 64; i++)
		strncat(text, "[", sizeof text - 1 - strlen(text));
	for (int i = 0; i < 64; i++)
		strncat(text, "]", sizeof text - 1 - strlen(text));
	ck_assert_ptr_nonnull(parse(text));
	ck_assert_str_eq(error_text(), "");
	error_hold();
	memmove(text + 1, text, sizeof text - 1);
	ck_assert_ptr_null(parse(text));
	ck_assert_ptr_nonnull(strstr(error_text(),
				     "t.yaml:1:65: error: more than 64 levels of lists and "
				     "maps\n"));
}
END_TEST

/* Repeats a piece to so many bytes and returns the seconds until it is refused. */
static double refused_after_s(const char *piece, size_t bytes, const char *error)
{
	char *text = xalloc(bytes);
	double start;

	for (size_t i = 0, of = strlen(piece); i < bytes; i++)
		text[i] = piece[i % of];
	error_clear();
	error_hold();
	start = computed_s();
	ck_assert_ptr_null(yaml_parse(&arena, text, bytes, "t.yaml"));
	start = computed_s() - start;
	ck_assert_msg(strstr(error_text(), error), "%.30s...: %.200s", piece, error_text());
	ck_assert_uint_lt(strlen(error_text()), 20000);
	free(text);
	arena_release(&arena);
	return start;
}

START_TEST(huge_files_are_refused_at_once)
{
	const size_t large = 4 << 20;

	/* libyaml's document loader takes eleven seconds for the first. */
	ck_assert_double_lt(refused_after_s("[", 80000, ":1:65: error: more than 64 "), 2 * TIMES_LESS);
	ck_assert_double_lt(refused_after_s("- ", large, "more than 64 levels"), 2 * TIMES_LESS);
	ck_assert_double_lt(refused_after_s("a: 1\n", large, "more than 400000 keys"), 5 * TIMES_LESS);
	ck_assert_double_lt(refused_after_s("%TAG !a! b\n", large, "%TAG is not allowed"), 2 * TIMES_LESS);
	ck_assert_double_lt(refused_after_s("*a\n", large, "error: "), 5 * TIMES_LESS);
}
END_TEST

START_TEST(errors_beyond_fifty_are_counted)
{
	struct text text = {0}, last = {0};

	for (int i = 0; i < 60; i++)
		text_add(&text, "- &x %d\n", i);
	ck_assert_ptr_null(parse(text.data));
	text_add(&last, "     50 | - &x 49\n        |   ^~~~~\n"
			"t.yaml:51:3: error: too many errors: the rest is not shown\n");
	ck_assert_uint_gt(strlen(error_text()), last.bytes);
	ck_assert_str_eq(error_text() + strlen(error_text()) - last.bytes, last.data);
	text_release(&text);
	text_release(&last);
}
END_TEST

/* -- files --------------------------------------------------------------------------------- */

/* Writes bytes to a file in a new folder, which folder_remove removes. */
static char *make_file(const char *data, size_t bytes)
{
	folder_open();
	ck_assert_int_eq(file_write(in_folder("t.yaml"), data, bytes), 0);
	return in_folder("t.yaml");
}

START_TEST(files_up_to_4_mib_are_read)
{
	size_t bytes = (4 << 20) + 1;
	char *data = xalloc(bytes), *path;
	const char *expected;

	memset(data, '#', bytes);
	memcpy(data, "a: 1\n", 5);
	path = make_file(data, bytes - 1);
	ck_assert_str_eq(yaml_find(yaml_read(&arena, path), "a")->text, "1");
	ck_assert_int_eq(folder_remove(folder), 0);
	path = make_file(data, bytes);
	ck_assert_ptr_null(yaml_read(&arena, path));
	expected = arena_format(&arena, "edgepipe: error: '%s' is larger than 4 MiB: not a "
				"configuration\n", path);
	ck_assert_str_eq(error_text(), expected);
	ck_assert_int_eq(folder_remove(folder), 0);
	free(data);
}
END_TEST

START_TEST(a_file_without_an_end_is_refused)
{
	ck_assert_ptr_null(yaml_read(&arena, "/dev/zero"));
	ck_assert_str_eq(error_text(), "edgepipe: error: '/dev/zero' is larger than 4 MiB: "
				       "not a configuration\n");
}
END_TEST

START_TEST(a_missing_file_is_another_code)
{
	ck_assert_ptr_null(yaml_read(&arena, "/nowhere/t.yaml"));
	ck_assert_str_eq(error_text(), "edgepipe: error: cannot open '/nowhere/t.yaml': "
				       "No such file or directory\n");
	ck_assert_int_eq(error_code(), EXIT_INPUT);
	error_clear();
	error_hold();
	ck_assert_ptr_null(yaml_read(&arena, "/"));
	ck_assert_str_eq(error_text(), "edgepipe: error: cannot read '/': Is a directory\n");
	ck_assert_int_eq(error_code(), EXIT_INPUT);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("yaml");
	TCase *tests = tcase_create("yaml");

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, a_tree_keeps_positions);
	tcase_add_test(tests, scalars_stay_text);
	tcase_add_test(tests, what_editors_write_is_read);
	tcase_add_loop_test(tests, a_bad_file_is_refused, 0, sizeof bad / sizeof *bad);
	tcase_add_test(tests, a_nul_byte_is_refused);
	tcase_add_test(tests, the_depth_is_limited);
	tcase_add_test(tests, huge_files_are_refused_at_once);
	tcase_add_test(tests, errors_beyond_fifty_are_counted);
	tcase_add_test(tests, files_up_to_4_mib_are_read);
	tcase_add_test(tests, a_file_without_an_end_is_refused);
	tcase_add_test(tests, a_missing_file_is_another_code);
	suite_add_tcase(suite, tests);
	return run_suite(suite);
}
