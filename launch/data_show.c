/*
 * launch/data_show.c - edgepipe data show: samples as they will be trained on, token by token.
 *
 * They come from the very store that training reads, so what is shown is what is trained. Where samples share sequences,
 * these are shown as training takes them, each sample by itself: it sees no other.
 */
#include "launch/data.h"
#include "model/model.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
	"edgepipe data show - samples as they will be trained on\n"
	"\n"
	"Examples:\n"
	"  edgepipe data show topologies/campus.yaml -n 3\n"
	"  edgepipe data show topologies/campus.yaml -n 1 --ids\n"
	"  edgepipe data show topologies/campus.yaml --set data.template=chatml --valid\n"
	"\n"
	"Usage: edgepipe data show TOPOLOGY.yaml [-n N] [--from K] [--ids | --json] [--valid] [--set K=V]...\n"
	"  -n N              how many samples, in file order (without it: 5); with data.pack, how\n"
	"                    many sequences, in the order of training, with the samples in each\n"
	"  --from K          the first one, from 0\n"
	"  --ids             one token a line: its number, its id, whether it is trained, its text\n"
	"  --json            one sample a line: {\"sample\", \"ids\", \"labels\", \"text\"}; with data.pack\n"
	"                    \"sequence\" stands before them, and \"sample\" is the place in it\n"
	"  --valid           of data.valid, not data.train\n"
	"  --set K=V         overrides a key of the topology file\n"
	"  -h, --help        this text\n"
	"\n"
	"In colour on a terminal (NO_COLOR turns it off): trained green, not trained grey, special\n"
	"tokens yellow. Elsewhere what is trained stands in [brackets].\n";

struct show {
	const char *topology;
	const char *set[64];
	int sets;
	long long count, from;
	bool ids, json, valid, help, colour;
	struct tokenizer *tokenizer;
	struct dataset *data;
	struct packing *packing; /* null: every sample is a sequence of its own */
	int32_t *id, *label;
	size_t length;
};

/* -- options ------------------------------------------------------------------------------- */

static int read_count(const char *option, const char *text, long long least, long long *count)
{
	char *end;

	errno = 0;
	*count = strtoll(text, &end, 10);
	if (errno || end == text || *end || *count < least)
		return error(EXIT_USAGE, "data show: %s '%s' is no number of at least %lld", option,
			     text, least);
	return 0;
}

static int read_options(struct show *s, int argc, char **argv)
{
	static const struct option options[] = {
		{"number", required_argument, NULL, 'n'}, {"from", required_argument, NULL, 'f'},
		{"ids", no_argument, NULL, 'i'},	  {"json", no_argument, NULL, 'j'},
		{"valid", no_argument, NULL, 'v'},	  {"set", required_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'},	  {0},
	};
	int option;

	opterr = optind = 0;
	s->count = 5;
	while ((option = getopt_long(argc, argv, ":hn:", options, NULL)) != -1) {
		if (option == 'n' && read_count("-n", optarg, 1, &s->count) < 0)
			return -1;
		if (option == 'f' && read_count("--from", optarg, 0, &s->from) < 0)
			return -1;
		s->ids |= option == 'i';
		s->json |= option == 'j';
		s->valid |= option == 'v';
		s->help |= option == 'h';
		if (option == 's' && s->sets < 64)
			s->set[s->sets++] = optarg;
		else if (!strchr("nfijvh", option))
			return option_error("data show", options, option, argv);
	}
	s->topology = optind < argc ? argv[optind] : NULL;
	if (optind + 1 < argc)
		return error(EXIT_USAGE, "data show: one file at a time: '%s'", argv[optind + 1]);
	if (!s->help && !s->topology)
		return error(EXIT_USAGE, "data show: the topology file is missing");
	if (!s->help && (strstr(s->topology, ".jsonl") || strstr(s->topology, ".safetensors")))
		return error(EXIT_USAGE, "data show: '%s' is no topology file; name one, and the data with --set "
			     "data.train=FILE", s->topology);
	if (s->ids && s->json)
		return error(EXIT_USAGE, "data show: --ids and --json exclude each other");
	return 0;
}

/* -- tokens -------------------------------------------------------------------------------- */

enum kind { MASKED, TRAINED, SPECIAL, SPECIAL_TRAINED };

static int decode(struct show *s, size_t from, size_t to, bool special, struct text *text)
{
	text->bytes = 0;
	text_put(text, "", 0);
	return tokenizer_decode(s->tokenizer, s->id + from, to - from, special, text);
}

/* The tokens as they are behind the one before them: a text's first token may lose its space. */
static int decode_behind(struct show *s, size_t from, size_t to, struct text *text)
{
	struct text before = {0};
	size_t back = from > 0;
	int done = decode(s, from - back, from, true, &before);

	if (done == 0)
		done = decode(s, from - back, to, true, text);
	if (done == 0 && text->bytes >= before.bytes && memcmp(text->data, before.data, before.bytes) == 0) {
		text->bytes -= before.bytes;
		memmove(text->data, text->data + before.bytes, text->bytes);
		text_put(text, "", 0);
	} else if (done == 0) {
		done = decode(s, from, to, true, text);
	}
	text_release(&before);
	return done;
}

/* A special token is written out on request alone; one that is a space and nothing else never is when it is alone. */
static enum kind kind_of(struct show *s, size_t t)
{
	struct text text = {0};
	bool trained = t > 0 && s->label[t] != -100;
	bool special = decode(s, t, t + 1, false, &text) == 0 && text.bytes == 0 &&
		       decode(s, t, t + 1, true, &text) == 0 && text.bytes > 0;

	text_release(&text);
	return (special ? SPECIAL : MASKED) + trained;
}

/* Control characters would move the cursor, or worse. */
static void put_plain(const struct text *text)
{
	for (size_t i = 0; i < text->bytes; i++) {
		unsigned char c = (unsigned char)text->data[i];

		if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
			printf("\\x%02x", c);
		else
			putchar(c);
	}
}

static int show_text(struct show *s)
{
	static const char *const colours[] = {"\033[90m", "\033[32m", "\033[33m", "\033[1;33m"};
	struct text text = {0};
	bool inside = false;
	int done = 0;

	for (size_t from = 0, to; from < s->length && done == 0; from = to) {
		enum kind kind = kind_of(s, from);
		bool trained = kind % 2;

		for (to = from + 1; to < s->length && kind_of(s, to) == kind;)
			to++;
		done = decode_behind(s, from, to, &text);
		if (!s->colour && trained != inside)
			putchar(trained ? '[' : ']');
		inside = trained;
		if (s->colour)
			fputs(colours[kind], stdout);
		put_plain(&text);
		if (s->colour)
			fputs("\033[0m", stdout);
	}
	if (!s->colour && inside)
		putchar(']');
	putchar('\n');
	text_release(&text);
	return done;
}

static int show_ids(struct show *s)
{
	static const char *const words[] = {"-", "trained", "- special", "trained special"};
	struct text text = {0}, quoted = {0};
	int done = 0;

	for (size_t t = 0; t < s->length && done == 0; t++) {
		done = decode_behind(s, t, t + 1, &text);
		quoted.bytes = 0;
		json_add_text(&quoted, text.data ? text.data : "");
		printf("%6zu %7d  %-15s  %s\n", t, s->id[t], words[kind_of(s, t)], quoted.data);
	}
	text_release(&text);
	text_release(&quoted);
	return done;
}

static int show_json(struct show *s, long long sequence, long long sample)
{
	struct text text = {0}, line = {0};
	int done = decode(s, 0, s->length, true, &text);

	text_add(&line, "{");
	if (s->packing)
		text_add(&line, "\"sequence\": %lld, ", sequence);
	text_add(&line, "\"sample\": %lld, \"ids\": [", sample);
	for (size_t t = 0; t < s->length; t++)
		text_add(&line, t ? ", %d" : "%d", s->id[t]);
	text_add(&line, "], \"labels\": [");
	for (size_t t = 0; t < s->length; t++)
		text_add(&line, t ? ", %d" : "%d", s->label[t]);
	text_add(&line, "], \"text\": ");
	json_add_text(&line, text.data ? text.data : "");
	text_add(&line, "}\n");
	fwrite(line.data, 1, line.bytes, stdout);
	text_release(&text);
	text_release(&line);
	return done;
}

/* -- samples ------------------------------------------------------------------------------- */

/* Bold on a terminal. */
static void put_head(const struct show *s, const char *mark, const char *what, long long number, const char *rest)
{
	printf("%s%s %s %lld: %s%s\n", s->colour ? "\033[1m" : "", mark, what, number, rest,
	       s->colour ? "\033[0m" : "");
}

static int show_sample(struct show *s, long long sequence, long long sample)
{
	size_t trained = 0;
	char rest[96];

	if (s->json)
		return show_json(s, sequence, sample);
	for (size_t t = 1; t < s->length; t++)
		trained += s->label[t] != -100;
	if (s->packing)
		snprintf(rest, sizeof rest, "%zu tokens, %zu trained", s->length, trained);
	else
		snprintf(rest, sizeof rest, "%zu tokens of %d, %zu trained", s->length, s->data->tokens, trained);
	put_head(s, "--", "sample", sample, rest);
	return s->ids ? show_ids(s) : show_text(s);
}

static int show_row(struct show *s, long long row)
{
	int length = dataset_row_length(s->data, (uint64_t)row);

	if (length < 0 || dataset_row(s->data, (uint64_t)row, s->id, s->label) < 0)
		return -1;
	s->length = (size_t)length;
	return show_sample(s, row, row);
}

/* A sample of a sequence: its labels are moved back to their tokens, the last of which is a label alone. */
static void take_part(struct show *s, const int32_t *id, const int32_t *label, int tokens)
{
	s->label[0] = -100;
	for (int t = 0; t < tokens; t++) {
		s->id[t] = id[t];
		s->label[t + 1] = label[t] < 0 ? -100 : label[t];
	}
	s->length = (size_t)tokens;
	if (label[tokens - 1] >= 0)
		s->id[s->length++] = label[tokens - 1];
}

static int show_sequence(struct show *s, long long place)
{
	size_t T = (size_t)s->data->tokens;
	struct packed_sample *sample = xalloc((size_t)packing_facts(s->packing).most * sizeof *sample);
	int32_t *id = xalloc(2 * T * sizeof *id), *label = id + T;
	int samples = 0, used = 0, done;
	char rest[96];

	int trained = packing_row(s->packing, (uint64_t)place, id, label, sample, &samples);
	done = trained < 0 ? -1 : 0;
	for (int i = 0; i < samples; i++)
		used += sample[i].tokens;
	snprintf(rest, sizeof rest, "%d sample%s, %d tokens of %zu, %d trained", samples, samples == 1 ? "" : "s",
		 used, T, trained);
	if (done == 0 && !s->json)
		put_head(s, "==", "sequence", place, rest);
	for (int i = 0, at = 0; i < samples && done == 0; at += sample[i++].tokens) {
		take_part(s, id + at, label + at, sample[i].tokens);
		done = show_sample(s, place, i);
	}
	free(sample);
	free(id);
	return done;
}

/* What is said of the whole file before its samples. */
static void put_facts(const struct show *s)
{
	const struct dataset *d = s->data;
	const char *advice = data_advice(d->samples + d->skipped, d->cut, d->skipped);

	printf("%s: %zu sample%s, %zu tokens trained%s%s; %zu cut, %zu skipped\n", d->path, d->samples,
	       d->samples == 1 ? "" : "s", d->trained_tokens, d->template ? ", template " : "",
	       d->template ? d->template : "", d->cut, d->skipped);
	if (s->packing)
		printf("packed into %zu sequences, up to %d samples in one\n", packing_facts(s->packing).rows,
		       packing_facts(s->packing).most);
	if (advice)
		printf("%s\n", advice);
}

static int show_samples(struct show *s)
{
	struct dataset *d = s->data;
	long long end = s->packing ? (long long)packing_facts(s->packing).rows : (long long)d->samples;
	int done = 0;

	if (s->from >= end)
		return error(EXIT_USAGE, "data show: --from %lld: there are %lld %s", s->from, end,
			     s->packing ? "sequences" : "samples");
	if (s->count < end - s->from)
		end = s->from + s->count;
	if (!s->json)
		put_facts(s);
	s->id = xalloc(((size_t)d->tokens + 1) * sizeof *s->id);
	s->label = xalloc(((size_t)d->tokens + 1) * sizeof *s->label);
	s->colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
	for (long long i = s->from; i < end && done == 0; i++)
		done = s->packing ? show_sequence(s, i) : show_row(s, i);
	if (done == 0 && (fflush(stdout) != 0 || ferror(stdout)))
		return error(EXIT_IO, "cannot write to standard output: %s", strerror(errno));
	return done;
}

static int show(struct show *s, struct job *job)
{
	const char *path = s->valid ? job->data.valid : job->data.train;
	struct model_config *config = NULL;
	int done = -1;

	if (!path)
		return error(EXIT_CONFIG, "'%s' names no data.%s", s->topology,
			     s->valid ? "valid" : "train");
	config = model_config_read(job->model);
	s->tokenizer = config ? tokenizer_open(job->model) : NULL;
	if (s->tokenizer)
		s->data = dataset_open(path, s->valid ? "valid" : "train", &job->data, config);
	if (s->data && dataset_packs(&job->data, s->data->path))
		s->packing = packing_open(s->data, (uint64_t)job->train.seed, job->data.shuffle && !s->valid);
	if (s->data)
		done = show_samples(s);
	packing_close(s->packing);
	dataset_close(s->data);
	tokenizer_close(s->tokenizer);
	model_config_free(config);
	free(s->id);
	free(s->label);
	return done;
}

int data_show(int argc, char **argv)
{
	struct show s = {0};
	struct job job;

	if (read_options(&s, argc, argv) < 0)
		return error_code();
	if (s.help) {
		fputs(usage, stdout);
		return 0;
	}
	int done = job_read(&job, s.topology, s.set, s.sets);
	if (done == 0)
		done = show(&s, &job);
	job_release(&job);
	return done < 0 ? error_code() : 0;
}
