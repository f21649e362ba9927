/*
 * launch/data_tokens.c - edgepipe data tokenize|detokenize: text to token ids and back, for
 * scripts.
 *
 * One JSON map a line in, one a line out; nothing else goes to standard output. Lines are
 * written as they are read, so that the command can stand in a pipe.
 */
#include "launch/data.h"
#include "model/model.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"edgepipe data tokenize|detokenize - text to token ids and back\n"
	"\n"
	"Examples:\n"
	"  edgepipe data tokenize --tokenizer campus/model texts.jsonl > ids.jsonl\n"
	"  edgepipe data detokenize --tokenizer campus/model ids.jsonl\n"
	"  echo '{\"text\": \"Hello\"}' | edgepipe data tokenize --tokenizer gpt2 -\n"
	"\n"
	"Usage: edgepipe data tokenize|detokenize --tokenizer DIR [--special] FILE.jsonl\n"
	"  tokenize          a line {\"text\": \"..\"} becomes a line {\"ids\": [..]}\n"
	"  detokenize        a line {\"ids\": [..]} becomes a line {\"text\": \"..\"}\n"
	"  FILE.jsonl        one JSON map a line, other keys are ignored; - is standard input\n"
	"  --tokenizer DIR   a folder with tokenizer.json, tokenizer.model, or vocab.json and\n"
	"                    merges.txt\n"
	"  --special         special tokens in a text become their ids, and ids of special\n"
	"                    tokens are written out (without: plain text; left out)\n"
	"  -h, --help        this text\n";

struct data_command {
	const char *action, *folder, *file;
	bool special, help;
};

static int unknown_option(const char *word)
{
	static const char *const words[] = {"--tokenizer", "--special", "--help"};
	bool model = strncmp(word, "--model", strlen("--model")) == 0; /* as data check has it */
	const char *near = model ? words[0] : nearest_word(word, words, 3);

	return error(EXIT_USAGE,
		     "data: unknown option '%s'%s%s%s (see edgepipe data tokenize --help)",
		     word, near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static int read_options(struct data_command *command, int argc, char **argv)
{
	static const struct option options[] = {
		{"tokenizer", required_argument, NULL, 't'},
		{"special", no_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int option;

	opterr = optind = 0;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		if (option == 't')
			command->folder = optarg;
		else if (option == 's')
			command->special = true;
		else if (option == 'h')
			command->help = true;
		else if (option == ':')
			return error(EXIT_USAGE, "data: option '%s' needs a value",
				     argv[optind - 1]);
		else
			return unknown_option(argv[optind - 1]);
	}
	command->action = argv[0];
	command->file = optind < argc ? argv[optind] : NULL;
	if (optind + 1 < argc)
		return error(EXIT_USAGE, "data: one file at a time: '%s'", argv[optind + 1]);
	return 0;
}

static int check_options(const struct data_command *command)
{
	if (!command->folder)
		return error(EXIT_USAGE, "data: --tokenizer DIR is missing");
	if (!command->file)
		return error(EXIT_USAGE, "data: the file is missing (- is standard input)");
	return 0;
}

/* Adds bytes as a JSON text; zero bytes, which end a C string, become \u0000. */
static void add_bytes(struct text *out, const struct text *bytes)
{
	struct text piece = {0};
	const char *data = bytes->data ? bytes->data : "";

	text_put(out, "\"", 1);
	for (size_t at = 0; at <= bytes->bytes; at += strlen(data + at) + 1) {
		piece.bytes = 0;
		json_add_text(&piece, data + at);
		if (at > 0)
			text_add(out, "\\u0000");
		text_put(out, piece.data + 1, piece.bytes - 2);
	}
	text_put(out, "\"", 1);
	text_release(&piece);
}

static int add_ids(struct tokenizer *tokenizer, const struct jsonl *lines, bool special,
		   struct text *out)
{
	struct ids ids = {0};
	size_t bytes;
	const char *text = jsonl_text(lines, "text", &bytes);
	int done = text ? tokenizer_encode(tokenizer, text, bytes, special, &ids) : -1;

	if (done == 0) {
		text_add(out, "{\"ids\": [");
		for (size_t i = 0; i < ids.count; i++)
			text_add(out, i ? ", %d" : "%d", ids.id[i]);
		text_add(out, "]}\n");
	}
	ids_release(&ids);
	return done;
}

/* Takes the ids of a line; -1 where they are no list of ids. */
static int take_ids(const struct tokenizer *tokenizer, const struct jsonl *lines,
		    const struct json *map, struct ids *ids)
{
	const struct json *list = json_find(map, "ids");
	int size = tokenizer_vocabulary(tokenizer);

	if (json_kind(list) != JSON_LIST)
		return jsonl_error(lines, EXIT_DATA, "", "there is no list \"ids\"");
	for (size_t i = 0; i < json_size(list); i++) {
		long long id = json_as_integer(json_at(list, i), -1);

		if (id < 0 || id >= size)
			return jsonl_error(lines, EXIT_DATA, "ids",
					   "item %zu of \"ids\" is not in 0..%d", i, size - 1);
		*ids_take(ids, 1) = (int32_t)id;
	}
	return 0;
}

static int add_words(struct tokenizer *tokenizer, const struct jsonl *lines,
		     const struct json *map, bool special, struct text *out)
{
	struct ids ids = {0};
	struct text text = {0};
	int done = take_ids(tokenizer, lines, map, &ids);

	if (done == 0)
		done = tokenizer_decode_text(tokenizer, ids.id, ids.count, special, &text);
	if (done == 0) {
		text_add(out, "{\"text\": ");
		add_bytes(out, &text);
		text_add(out, "}\n");
	}
	text_release(&text);
	ids_release(&ids);
	return done;
}

static int convert(const struct data_command *command, struct tokenizer *tokenizer,
		   struct jsonl *lines)
{
	bool tokenize = strcmp(command->action, "tokenize") == 0;
	const struct json *map;
	struct text out = {0};
	int more;

	while ((more = jsonl_next(lines, &map)) > 0) {
		out.bytes = 0;
		if ((tokenize ? add_ids(tokenizer, lines, command->special, &out)
			      : add_words(tokenizer, lines, map, command->special, &out)) < 0) {
			more = -1;
			break;
		}
		if (fwrite(out.data, 1, out.bytes, stdout) != out.bytes)
			break;
	}
	text_release(&out);
	if (fflush(stdout) != 0 || ferror(stdout))
		return error(EXIT_IO, "cannot write to standard output: %s", strerror(errno));
	return more;
}

int data_tokens(int argc, char **argv)
{
	struct data_command command = {0};

	if (read_options(&command, argc, argv) < 0)
		return error_code();
	if (command.help) {
		fputs(usage, stdout);
		return 0;
	}
	if (check_options(&command) < 0)
		return error_code();
	struct tokenizer *tokenizer = tokenizer_open(command.folder);
	struct jsonl *lines = tokenizer ? jsonl_open(command.file) : NULL;
	int done = lines ? convert(&command, tokenizer, lines) : -1;
	jsonl_close(lines);
	tokenizer_close(tokenizer);
	return done < 0 ? error_code() : 0;
}
