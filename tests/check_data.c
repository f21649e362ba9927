/*
 * tests/check_data.c - edgepipe data: what it writes, what it says, and the codes it ends with.
 *
 * links: launch
 */
#include "launch/launch.h"
#include "model/model.h"
#include "tests/folder.h"
#include "tests/suite.h"

#include <fcntl.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GOLDEN TESTS_FOLDER "/golden/tokenizer"


static char *put_file(const char *name, const char *text, size_t bytes)
{
	char *path = in_folder(name);

	unlink(path);
	ck_assert_int_eq(file_write(path, text, bytes), 0);
	return path;
}

static void redirect(const char *name, int flags, int stream)
{
	int file = open(in_folder(name), flags, 0600);

	ck_assert_int_ge(file, 0);
	ck_assert_int_eq(dup2(file, stream), stream);
	close(file);
}

static const char *taken(const char *name)
{
	size_t bytes;
	char *data = file_read(in_folder(name), &bytes);
	const char *copy = arena_copy(&arena, data, bytes);

	free(data);
	return copy;
}

/*
 * Runs "data ARGUMENTS" (separated by spaces) with this standard input, and compares its code,
 * its whole standard output (null: any) and a part of what it says on standard error.
 */
static void run(const char *arguments, const char *input, int code, const char *output,
		const char *message)
{
	char *words = arena_format(&arena, "data %s", arguments), *rest = words, *word;
	char *argv[16];
	int argc = 0, before[3];

	while ((word = strsep(&rest, " ")) != NULL && argc < 15)
		argv[argc++] = word;
	argv[argc] = NULL;
	put_file("input", input, strlen(input));
	fflush(stdout);
	for (int i = 0; i < 3; i++)
		before[i] = dup(i);
	redirect("input", O_RDONLY, 0);
	redirect("output", O_CREAT | O_TRUNC | O_WRONLY, 1);
	redirect("said", O_CREAT | O_TRUNC | O_WRONLY, 2);
	__fpurge(stdin); /* what an earlier run left unread */
	clearerr(stdin);
	error_clear();
	int ended = command_data(argc, argv);
	fflush(stdout);
	for (int i = 0; i < 3; i++) {
		dup2(before[i], i);
		close(before[i]);
	}
	ck_assert_msg(ended == code, "'%s' ended with %d: %s", arguments, ended, taken("said"));
	if (output)
		ck_assert_str_eq(taken("output"), output);
	ck_assert_msg(strstr(taken("said"), message) != NULL, "'%s' is not in '%s'", message,
		      taken("said"));
	if (*message == '\0')
		ck_assert_str_eq(taken("said"), "");
}

#define TOKENIZE "tokenize --tokenizer " GOLDEN " "
#define DETOKENIZE "detokenize --tokenizer " GOLDEN " "

/* The line of ids that a text has, from the tokenizer itself. */
static char *line_of(const char *text)
{
	struct tokenizer *tokenizer = tokenizer_open(GOLDEN);
	struct ids ids = {0};
	char *line = arena_format(&arena, "{\"ids\": [");

	ck_assert_int_eq(tokenizer_encode(tokenizer, text, strlen(text), false, &ids), 0);
	for (size_t i = 0; i < ids.count; i++)
		line = arena_format(&arena, "%s%s%d", line, i ? ", " : "", ids.id[i]);
	ids_release(&ids);
	tokenizer_close(tokenizer);
	return arena_format(&arena, "%s]}\n", line);
}

START_TEST(there_and_back)
{
	const char *texts = "{\"text\": \"12\"}\n"
			    "{\"text\": \"<|endoftext|>\\u0000\\u00e9\\\"\", \"x\": 1}\n"
			    "{\"text\": \"\"}\n\n";
	const char *special = "{\"ids\": [17, 18]}\n"
			      "{\"ids\": [0, 189, 128, 103, 2]}\n"
			      "{\"ids\": []}\n";
	const char *back = "{\"text\": \"12\"}\n"
			   "{\"text\": \"<|endoftext|>\\u0000\xc3\xa9\\\"\"}\n"
			   "{\"text\": \"\"}\n";
	const char *without = "{\"text\": \"12\"}\n"
			      "{\"text\": \"\\u0000\xc3\xa9\\\"\"}\n"
			      "{\"text\": \"\"}\n";
	const char *plain = line_of("a <|endoftext|> b");
	char *file = put_file("texts.jsonl", texts, strlen(texts));

	run(TOKENIZE "--special -", texts, 0, special, "");
	run(arena_format(&arena, "tokenize %s --special --tokenizer=%s", file, GOLDEN), "", 0,
	    special, "");
	run(DETOKENIZE "-", special, 0, without, "");
	run(DETOKENIZE "--special -", special, 0, back, "");
	run(TOKENIZE "-", "{\"text\": \"a <|endoftext|> b\"}\n", 0, plain, "");
	run(DETOKENIZE "-", plain, 0, "{\"text\": \"a <|endoftext|> b\"}\n", "");
}
END_TEST

/* Bytes that are no UTF-8 become U+FFFD: JSON knows only characters. */
START_TEST(half_a_character)
{
	run(DETOKENIZE "-", "{\"ids\": [128, 17]}\n", 0, "{\"text\": \"\xef\xbf\xbd" "1\"}\n", "");
}
END_TEST

START_TEST(broken_lines)
{
	run(TOKENIZE "-", "{\"text\": \"1\"}\n{\"text\": 3}\n", EXIT_DATA, "{\"ids\": [17]}\n",
	    "<stdin>:2:10: error: \"text\" is no text, it is 3\n");
	run(TOKENIZE "-", "{\"ids\": [1]}\n", EXIT_DATA, "",
	    "<stdin>:1:1: error: there is no \"text\"");
	run(TOKENIZE "-", "{\"text\": \"1\"\n", EXIT_DATA, "", "<stdin>:1:");
	run(TOKENIZE "-", "\n{\"text\": \"1\"}\n", EXIT_DATA, "",
	    "<stdin>:1:1: error: the line is empty");
	run(DETOKENIZE "-", "{\"text\": \"1\"}\n", EXIT_DATA, "",
	    "<stdin>:1:1: error: there is no list \"ids\"");
	run(DETOKENIZE "-", "{\"ids\": [1, 405]}\n", EXIT_DATA, "",
	    "<stdin>:1:9: error: item 1 of \"ids\"");
	run(DETOKENIZE "-", "{\"ids\": [\"1\"]}\n", EXIT_DATA, "", "item 0");
	run(DETOKENIZE "-", "{\"ids\": [-1]}\n", EXIT_DATA, "", "item 0");
}
END_TEST

START_TEST(wrong_command_lines)
{
	run("--help", "", 0, NULL, "");
	ck_assert_ptr_nonnull(strstr(taken("output"), "Examples:"));
	run("tokenise --tokenizer x y", "", EXIT_USAGE, "", "did you mean 'tokenize'");
	run("tokenize --tokeniser x y", "", EXIT_USAGE, "", "did you mean '--tokenizer'");
	run("tokenize --tokenizer", "", EXIT_USAGE, "", "needs a value");
	run("tokenize x", "", EXIT_USAGE, "", "--tokenizer DIR is missing");
	run("tokenize --tokenizer x", "", EXIT_USAGE, "", "file is missing");
	run("tokenize --tokenizer x y z", "", EXIT_USAGE, "", "'z'");
	run("tokenize --tokenizer /nowhere -", "", EXIT_INPUT, "", "/nowhere");
	run(TOKENIZE "/nowhere.jsonl", "", EXIT_INPUT, "", "cannot open '/nowhere.jsonl'");
	run(TOKENIZE GOLDEN, "", EXIT_INPUT, "", "cannot read");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("data");
	TCase *tcase = tcase_create("data");

	tcase_add_checked_fixture(tcase, folder_open, folder_close);
	tcase_add_test(tcase, there_and_back);
	tcase_add_test(tcase, half_a_character);
	tcase_add_test(tcase, broken_lines);
	tcase_add_test(tcase, wrong_command_lines);
	suite_add_tcase(suite, tcase);
	return run_suite(suite);
}
