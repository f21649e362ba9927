/*
 * The README.md of an adapter directory: of what model it is, how text was turned into tokens, and how the
 * run went, from the files of the run's directory alone, so that an export can write it too.
 *
 * RUN/samples.md holds the samples: they are made when the data has been read, since a tokenizer may take more memory
 * than is left for it later.
 */
#include <stdlib.h>
#include <string.h>

#include "launch/readme.h"
#include "launch/report.h"

enum { SAMPLES = 3, SAMPLE_BYTES = 2000 };

/* A name as code in a line: nothing in it ends that, or the line, or the cell of a table. */
static void add_code(struct text *text, const char *name)
{
	struct text clean = {0};

	transcript_clean(&clean, name, strlen(name));
	text_add(text, "`");
	for (size_t i = 0; i < clean.bytes; i++) {
		unsigned char c = (unsigned char)clean.data[i];

		if (c < 32 || c == 127 || c == '`' || c == '|')
			text_add(text, "\\x%02x", c);
		else
			text_put(text, &clean.data[i], 1);
	}
	text_add(text, "`");
	text_release(&clean);
}

/* -- samples ------------------------------------------------------------------------------- */

/* Text as an indented block, which nothing in it can end; what is too long is cut, and what is no text shown as \xNN. */
static void add_block(struct text *text, const char *data, size_t bytes)
{
	struct text clean = {0};
	size_t most;

	transcript_clean(&clean, data, bytes);
	most = clean.bytes < SAMPLE_BYTES ? clean.bytes : utf8_valid(clean.data, SAMPLE_BYTES);
	text_add(text, "\n    ");
	for (size_t i = 0; i < most; i++) {
		unsigned char c = (unsigned char)clean.data[i];

		if (c == '\n' && i + 1 < most)
			text_add(text, "\n    ");
		else if ((c < 32 && c != '\t' && c != '\n') || c == 127)
			text_add(text, "\\x%02x", c);
		else if (c != '\n')
			text_put(text, &clean.data[i], 1);
	}
	text_add(text, most < clean.bytes ? " ..\n\n" : "\n\n");
	text_release(&clean);
}

/* A sample's tokens as text, what is trained on between marks; the padding behind the last trained one is left out. */
static int render(struct tokenizer *tokenizer, const struct dataset *data, size_t sample, struct text *text)
{
	int32_t *ids = xalloc(2 * (size_t)data->tokens * sizeof(*ids)), *labels = ids + data->tokens;
	int last = data->tokens - 1, rc = dataset_row(data, sample, ids, labels);

	if (rc < 0)
		last = 0;
	while (last > 0 && labels[last] < 0)
		last--;
	for (int from = 0, to; from <= last && rc == 0; from = to) {
		bool trained = labels[from] >= 0;

		for (to = from + 1; to <= last && (labels[to] >= 0) == trained;)
			to++;
		if (trained)
			text_add(text, "\u27e6");
		rc = tokenizer_decode(tokenizer, ids + from, (size_t)(to - from), true, text);
		if (trained)
			text_add(text, "\u27e7");
	}
	free(ids);
	return rc;
}

static void add_samples(struct text *text, struct tokenizer *tokenizer, const struct dataset *data)
{
	for (size_t i = 0; i < data->samples && i < SAMPLES; i++) {
		struct text sample = {0};

		if (render(tokenizer, data, i, &sample) == 0) {
			/* Blocks with nothing between them would be one. */
			text_add(text, "\nSample %zu:\n", i + 1);
			add_block(text, sample.data ? sample.data : "", sample.bytes);
		}
		text_release(&sample);
	}
}

char *readme_samples(const struct dataset *data, const char *model)
{
	struct text text = {0};

	error_mute();
	struct tokenizer *tokenizer = tokenizer_open(model);
	if (tokenizer) {
		text_add(&text, "The first samples, as the model sees them; what is trained on stands between \u27e6 and "
			 "\u27e7, the chat template is `%s`.\n", data->template ? data->template : "none");
		add_samples(&text, tokenizer, data);
	} else {
		text_add(&text, "The data was ids of tokens, and no tokenizer lies beside the model: there is no text to "
			 "show.\n");
	}
	error_unmute();
	tokenizer_close(tokenizer);
	return text.data;
}

/* -- the run ------------------------------------------------------------------------------- */

/* The place of the last number that is of a step up to `step`, -1: of any; -1: there is none. */
static int last_of(const struct curve *curve, long long step)
{
	int last = -1;

	for (int i = 0; i < curve->count; i++)
		if (step < 0 || curve->step[i] <= (double)step)
			last = i;
	return last;
}

static void add_curve(struct text *text, const char *name, const struct curve *curve, int last)
{
	if (last < 0)
		return;
	text_add(text, "| %s | %.4f at step %.0f, %.4f at step %.0f |\n", name, curve->value[0], curve->step[0],
		 curve->value[last], curve->step[last]);
}

/* "physics 0-4, library 5-7", of plan.json. */
static void add_plan(struct text *text, const char *run)
{
	struct arena arena = {0};
	struct json *plan = json_read(path_join(&arena, run, "plan.json"));
	const struct json *stages = json_find(plan, "stages");

	if (plan)
		text_add(text, "| plan | %s, %s, %lld micro-batches of %lld:",
			 json_as_text(json_find(plan, "solver"), "?"), json_as_text(json_find(plan, "schedule"), "?"),
			 json_as_integer(json_find(plan, "micro_batches"), 0),
			 json_as_integer(json_find(plan, "micro_batch"), 0));
	for (size_t i = 0; i < json_size(stages); i++) {
		const struct json *stage = json_at(stages, i);

		text_add(text, i ? ", " : " ");
		add_code(text, json_as_text(json_at(json_find(stage, "nodes"), 0), "?"));
		text_add(text, " blocks %lld to %lld", json_as_integer(json_find(stage, "first_block"), 0),
			 json_as_integer(json_find(stage, "last_block"), 0));
	}
	if (plan)
		text_add(text, " |\n");
	json_free(plan);
	arena_release(&arena);
}

/* Of a step, as its line in metrics.jsonl says; 0: unknown. */
static long long step_tokens(const char *run)
{
	struct arena arena = {0};
	size_t bytes;
	char *data = file_read(path_join(&arena, run, "metrics.jsonl"), &bytes);
	const char *line = data ? strstr(data, "{\"kind\":\"step\"") : NULL;
	struct json *step = line ? json_parse(line, strcspn(line, "\n"), run) : NULL;
	long long tokens = json_as_integer(json_find(step, "tokens"), 0);

	json_free(step);
	free(data);
	arena_release(&arena);
	return tokens;
}

static void add_figures(struct text *text, const struct readme *r)
{
	struct report *report = xzalloc(1, sizeof(*report));
	const struct train_config *t = &r->job->train;
	long long tokens = step_tokens(r->run);
	char rate[32];

	report->run = r->run;
	if (report_read(report) == 0 && report->loss.count > 0) {
		int last = last_of(&report->loss, r->step);
		double steps = last < 0 ? 0 : report->loss.step[last];

		text_add(text, "| | |\n|---|---|\n| begun | %s |\n", report->time);
		text_add(text, "| steps | %.0f of %lld, %lld sequences of %lld tokens each |\n", steps, report->steps,
			 t->batch, t->batch > 0 ? tokens / t->batch : 0);
		text_add(text, "| tokens | %.0f |\n", steps * (double)tokens);
		text_add(text, "| learning rate, seed | %s, %lld |\n",
			 (snprintf(rate, sizeof(rate), "%g", t->learning_rate), rate), (long long)t->seed);
		add_curve(text, "loss", &report->loss, last);
		add_curve(text, "validation loss", &report->valid, last_of(&report->valid, r->step));
		if (r->step < 0 && report->wall_s > 0)
			text_add(text, "| time | %.1f s, %.0f tokens/s |\n", report->wall_s, report->tokens_s);
		add_plan(text, r->run);
	}
	arena_release(&report->arena);
	free(report);
}

/* -- the whole ----------------------------------------------------------------------------- */

static void add_head(struct text *text, const struct readme *r)
{
	const struct lora *lora = r->lora;
	char digest[33];

	text_add(text, "---\nlibrary_name: peft\nbase_model: ");
	json_add_text(text, r->model->folder);
	text_add(text, "\n---\n\n# LoRA adapter\n\nFor the %s model ", r->model->family->name);
	add_code(text, r->model->folder);
	text_add(text, " (%d blocks of width %d; config.json has XXH3-128 %s). ", r->model->blocks, r->model->width,
		 digest_write(r->model->digest, digest));
	text_add(text, "Rank %d, alpha %g%s, dropout %g, on ", lora->rank, lora->alpha, lora->rslora ? " (rsLoRA)" : "",
		 lora->dropout);
	for (int i = 0; i < lora->modules; i++)
		text_add(text, i ? ", %s" : "%s", lora->module[i]);
	text_add(text, ".\n\n```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
		 "base = AutoModelForCausalLM.from_pretrained(");
	json_add_text(text, r->model->folder);
	text_add(text, ")\nmodel = PeftModel.from_pretrained(base, \"THIS_DIRECTORY\")\n```\n\n");
}

char *readme_make(const struct readme *r)
{
	struct arena arena = {0};
	struct text text = {0};
	const char *samples = path_join(&arena, r->run, "samples.md");

	/* What a run that was killed early does not have is left out. */
	error_mute();
	add_head(&text, r);
	text_add(&text, "## The data\n\n");
	add_code(&text, r->job->data.train ? r->job->data.train : "none");
	text_add(&text, "\n\n");
	char *shown = path_exists(samples) ? file_read(samples, &(size_t){0}) : NULL;
	text_add(&text, "%s\n## The run\n\n", shown ? shown : "");
	free(shown);
	add_figures(&text, r);
	error_unmute();
	arena_release(&arena);
	return text.data;
}
