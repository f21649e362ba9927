/*
 * writer.c - what was generated, to standard output as it comes, prompt after prompt, and to a file when all is there. Prompts
 * are worked on together: what comes of a later one waits until the ones before it are complete.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "launch/session.h"

/* What came of one prompt. */
struct output {
	struct ids ids;
	size_t shown;			/* ids that were written */
	struct transcript *text;	/* null where ids are written */
	enum finish finish;
};
struct writer {
	const struct prompts *prompts;
	bool texts, keeps;		/* keeps: what was written is wanted again, for writer_json */
	struct output *output;
	int current;			/* the prompt that is written */
	bool begun;			/* and its title was */
	struct text line;
};

struct writer *writer_open(const struct prompts *prompts, struct tokenizer *tokenizer, const char *const *stop, int stops,
			   bool keeps)
{
	struct writer *w = xzalloc(1, sizeof(*w));

	w->prompts = prompts;
	w->texts = tokenizer != NULL;
	w->keeps = keeps;
	w->output = xzalloc((size_t)prompts->count, sizeof(*w->output));
	for (int i = 0; i < prompts->count && tokenizer; i++)
		w->output[i].text = transcript_open(tokenizer, stop, stops,
						    prompts->prompt[i].id[prompts->prompt[i].count - 1]);
	return w;
}

static void let_go(struct output *o)
{
	ids_release(&o->ids);
	transcript_close(o->text);
	o->text = NULL;
}

void writer_close(struct writer *w)
{
	for (int i = 0; w && i < w->prompts->count; i++)
		let_go(&w->output[i]);
	if (!w)
		return;
	free(w->output);
	text_release(&w->line);
	free(w);
}

/* A text and its parts grow by halves or more; tokens are some bytes long. */
double writer_bytes(const struct prompts *prompts, int room, int tokens)
{
	double bytes = 0;

	for (int i = 0; i < prompts->count; i++) {
		int left = room - prompts->prompt[i].count + 1;

		bytes += sizeof(struct output) + (double)transcript_bytes(NULL, 0) +
			 (left < tokens ? left : tokens) * (1.5 * sizeof(int32_t) + 8);
	}
	return bytes;
}

static void show_ids(struct writer *w, struct output *o)
{
	for (; o->shown < o->ids.count; o->shown++)
		text_add(&w->line, "%s%d", o->shown > 0 ? " " : "", o->ids.id[o->shown]);
}

static void show_text(struct writer *w, struct output *o)
{
	size_t bytes;
	const char *text = transcript_show(o->text, o->finish != FINISH_NOT, &bytes);

	transcript_clean(&w->line, text, bytes);
}

/* What can be shown of the current prompt, and of those after it once it is complete. */
static int show(struct writer *w)
{
	w->line.bytes = 0;
	while (w->current < w->prompts->count) {
		struct output *o = &w->output[w->current];

		if (!w->begun && w->texts && w->prompts->count > 1)
			text_add(&w->line, "%s==> prompt %d <==\n", w->current > 0 ? "\n" : "", w->current + 1);
		w->begun = true;
		if (w->texts)
			show_text(w, o);
		else
			show_ids(w, o);
		if (o->finish == FINISH_NOT)
			break;
		text_add(&w->line, "\n");
		if (!w->keeps)
			let_go(o);
		w->current++;
		w->begun = false;
	}
	if (w->line.bytes > 0 && (fwrite(w->line.data, 1, w->line.bytes, stdout) != w->line.bytes || fflush(stdout)))
		return error(EXIT_IO, "cannot write to standard output: %s", strerror(errno));
	return 0;
}

int writer_add(struct writer *w, int prompt, int32_t id, enum finish finish)
{
	struct output *o = &w->output[prompt];

	*ids_take(&o->ids, 1) = id;
	o->finish = finish;
	if (w->texts && finish != FINISH_END && transcript_add(o->text, id) < 0)
		return -1;
	return show(w);
}

static void add_output(const struct output *o, int prompt_tokens, struct text *text)
{
	static const char *const finishes[] = {"", "end", "stop", "tokens", "room"};
	struct text clean = {0};
	size_t bytes;
	const char *data;

	text_add(text, "{\"prompt_tokens\": %d, \"finish\": \"%s\", \"ids\": [", prompt_tokens, finishes[o->finish]);
	for (size_t i = 0; i < o->ids.count; i++)
		text_add(text, "%s%d", i > 0 ? ", " : "", o->ids.id[i]);
	text_add(text, "]");
	if (o->text) {
		data = transcript_text(o->text, &bytes);
		transcript_clean(&clean, data, bytes);
		text_add(text, ", \"text\": ");
		json_add_text(text, clean.data ? clean.data : "");
		text_release(&clean);
	}
	text_add(text, "}");
}

int writer_ended(const struct writer *w, enum finish finish)
{
	int count = 0;

	for (int i = 0; i < w->prompts->count; i++)
		count += w->output[i].finish == finish;
	return count;
}

void writer_json(const struct writer *w, struct text *text)
{
	text_add(text, "\"prompts\": [");
	for (int i = 0; i < w->prompts->count; i++) {
		text_add(text, "%s\n  ", i > 0 ? "," : "");
		add_output(&w->output[i], w->prompts->prompt[i].count, text);
	}
	text_add(text, "\n]");
}
