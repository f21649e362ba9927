/*
 * tests/runs.h - whole runs of `edgepipe train` on the golden cases: ranks as threads of this process, or over a world
 * that the caller opened.
 */
#ifndef EDGEPIPE_TESTS_RUNS_H
#define EDGEPIPE_TESTS_RUNS_H

#include "launch/session.h"
#include "tests/folder.h"
#include "tests/suite.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))
#define GOLDEN TESTS_FOLDER "/golden"

static const char *const golden_cases[] = {"gpt2",  "gpt2-exact", "gpt2-pattern", "llama",	  "llama3",
					   "mistral", "qwen2", "qwen2-pattern", "qwen3", "qwen3-long"};

/* A job in BF16 is one in F32 where the CPU does not multiply it. */
static inline void say_bf16_skipped(void)
{
	if (!cpu_has_bf16())
		puts("skipped: BF16, which this CPU (or ONEDNN_MAX_CPU_ISA, or the build) does not multiply");
	fflush(stdout);
}

/* How a golden case is run. */
struct golden_run {
	const char *name;		/* of the case */
	int ranks, threads, micro_batch, steps;
	const char *schedule;
	const char *lora;		/* the `lora` map; null: goes on from the case's adapter */
	const char *valid;		/* the case whose batches validate; null: none */
	bool resume;
	const char *data;		/* the `data` map; null: the case's batches */
	int batch;			/* 0: 4 */
	/* More of the file; null: nothing. train and plan: keys for these maps; rest: sections. Without plan's layers every
	 * rank has a stage. */
	const char *train, *plan, *rest;
};

static inline const char *or_nothing(const char *text)
{
	return text ? text : "";
}

/* Where a run writes; lives as long as the arena. */
static inline char *run_folder(struct arena *arena, const struct golden_run *run, const char *world)
{
	return arena_format(arena, "%s/%s-%s-%d-%d-%d-%s", scratch, run->name, world, run->ranks,
			    run->threads, run->micro_batch, run->schedule);
}

/* Writes the topology file of a run; returns its path. */
static inline char *run_topology(struct arena *arena, const struct golden_run *run,
				 const char *folder)
{
	struct text text = {0};
	char *path = arena_format(arena, "%s.yaml", folder);
	FILE *file;

	text_add(&text, "version: 1\nname: golden\nnodes:\n");
	for (int i = 0; i < run->ranks; i++)
		text_add(&text, "  - {name: n%d, cores: %d}\n", i, run->threads);
	text_add(&text, "model: {path: %s/%s/model}\n", GOLDEN, run->name);
	if (run->lora)
		text_add(&text, "lora: %s\n", run->lora);
	else
		text_add(&text, "lora: {init: %s/%s/initial}\n", GOLDEN, run->name);
	text_add(&text, "data: {");
	if (run->data)
		text_add(&text, "%s}\n", run->data);
	else
		text_add(&text, "train: %s/%s/batches.safetensors, ", GOLDEN, run->name);
	if (run->valid && !run->data)
		text_add(&text, "valid: %s/%s/batches.safetensors, ", GOLDEN, run->valid);
	if (!run->data)
		text_add(&text, "shuffle: %s}\n", run->valid ? "true" : "false");
	text_add(&text, "train: {batch: %d, micro_batch: %d, steps: %d, learning_rate: 1e-2, "
		 "warmup: 2, weight_decay: 0.1, checkpoint_every: 0%s%s}\n",
		 run->batch ? run->batch : 4, run->micro_batch, run->steps, run->train ? ", " : "",
		 or_nothing(run->train));
	/* These models are so small that a planner would put all of one on one rank. */
	text_add(&text, "plan: {schedule: %s, solver: %s%s%s}\n%s", run->schedule,
		 strstr(or_nothing(run->plan), "layers") ? "manual" : "uniform", run->plan ? ", " : "",
		 or_nothing(run->plan), or_nothing(run->rest));
	file = fopen(path, "w");
	if (!file || fwrite(text.data, 1, text.bytes, file) != text.bytes || fclose(file))
		abort();
	text_release(&text);
	return path;
}

static inline int run_rank(struct comm *comm, void *options)
{
	return train_run(comm, options, NULL);
}

/* Runs a case with ranks as threads; returns the exit code. */
static inline int run_local(const struct golden_run *run, const char *folder)
{
	struct arena arena = {0};
	struct train_options options = {
		.command = "train",
		.topology = run_topology(&arena, run, folder),
		.out = folder,
		.dump = arena_format(&arena, "%s/dump", folder),
		.resume = run->resume,
		.overwrite = !run->resume,
	};
	int status = comm_local_run(run->ranks, run_rank, &options);

	arena_release(&arena);
	return status;
}

/* What a run computed, as text: the reproducible columns of metrics.jsonl, and the digest of the adapter. */
static inline char *run_result(struct arena *arena, const char *folder)
{
	static const char *const keys[] = {"step", "loss", "grad_norm", "learning_rate", "tokens",
					   "trained_tokens"};
	struct text text = {0};
	struct digest digest;
	char hex[33], *copy, *line, *save, *data;
	size_t bytes;

	data = file_read(arena_format(arena, "%s/metrics.jsonl", folder), &bytes);
	ck_assert_ptr_nonnull(data);
	for (line = strtok_r(data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (!strstr(line, "\"kind\":\"step\"") && !strstr(line, "\"kind\":\"valid\""))
			continue;
		for (int i = 0; i < COUNT(keys); i++) {
			char *at = strstr(line, arena_format(arena, "\"%s\":", keys[i]));

			if (at)
				text_add(&text, "%.*s ", (int)strcspn(at, ",}"), at);
		}
		text_add(&text, "\n");
	}
	free(data);
	ck_assert_int_eq(digest_file(arena_format(arena, "%s/adapter/adapter_model.safetensors",
						  folder), &digest), 0);
	text_add(&text, "adapter %s\n", digest_write(digest, hex));
	copy = arena_copy(arena, text.data, text.bytes);
	text_release(&text);
	return copy;
}

#endif
