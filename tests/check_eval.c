/*
 * `edgepipe eval`: the loss of the golden cases' first batch with their adapters is PyTorch's, the same bits on 1, 3 and 5
 * ranks and on one rank in place of five, and without an adapter it is the base model's.
 *
 * links: launch
 */
#include "tests/runs.h"

#include <math.h>

static const int worlds[] = {1, 3, 5};

struct world { struct eval_options options; struct evaluation result; };

static int run_eval(struct comm *comm, void *arg)
{
	struct world *w = arg;

	return eval_run(comm, &w->options, NULL, &w->result);
}

/* The first four rows of a case's batches, those that step 1 of the golden answers is of. */
static char *first_batch(struct arena *arena, const char *name)
{
	char *path = arena_format(arena, "%s/%s-batch.safetensors", scratch, name);
	struct safetensors *all = safetensors_open(arena_format(arena, "%s/%s/batches.safetensors", GOLDEN, name));
	struct safetensors_entry entry[2];

	ck_assert_ptr_nonnull(all);
	for (int i = 0; i < 2; i++) {
		const struct safetensor *t = safetensors_find(all, i == 0 ? "input_ids" : "labels");

		ck_assert_ptr_nonnull(t);
		entry[i] = (struct safetensors_entry){.name = t->name, .dtype = t->dtype, .dims = 2,
						      .shape = {t->shape[t->dims - 2], t->shape[t->dims - 1]},
						      .data = t->data};
	}
	ck_assert_int_eq(safetensors_write(path, entry, 2, NULL), 0);
	safetensors_close(all);
	return path;
}

/* A topology file without data. */
static char *topology(struct arena *arena, const char *name, int ranks, const char *more)
{
	char *path = arena_format(arena, "%s/%s-%d.yaml", scratch, name, ranks);
	FILE *file = fopen(path, "w");

	ck_assert_ptr_nonnull(file);
	fprintf(file, "version: 1\nnodes:\n");
	for (int i = 0; i < ranks; i++)
		fprintf(file, "  - {name: n%d, cores: %d}\n", i, 1 + i % 2);
	fprintf(file, "model: {path: %s/%s/model}\n%strain: {batch: 4, micro_batch: 2}\nplan: {solver: uniform}\n", GOLDEN,
		name, more);
	ck_assert_int_eq(fclose(file), 0);
	return path;
}

static double loss_of(struct eval_options options, int ranks)
{
	struct world w = {.options = options};

	w.options.run.command = "eval";
	ck_assert_int_eq(comm_local_run(ranks, run_eval, &w), 0);
	ck_assert_int_gt(w.result.tokens, 0);
	return w.result.loss;
}

START_TEST(losses)
{
	struct arena arena = {0};
	const char *name = golden_cases[_i];
	struct safetensors *answers = safetensors_open(arena_format(&arena, "%s/%s/answers.safetensors", GOLDEN, name));
	double wanted, first = 0;
	struct eval_options options = {
		.run.adapter = arena_format(&arena, "%s/%s/initial", GOLDEN, name),
		.run.data = first_batch(&arena, name),
	};

	ck_assert_ptr_nonnull(answers);
	wanted = (double)*(const float *)safetensors_find(answers, "loss")->data;
	for (int i = 0; i < COUNT(worlds); i++) {
		double loss;

		options.run.topology = topology(&arena, name, worlds[i], "");
		loss = loss_of(options, worlds[i]);
		first = i == 0 ? loss : first;
		ck_assert_msg(fabs(loss / wanted - 1) < 1e-5, "%s: %.9g instead of %.9g", name, loss, wanted);
		ck_assert(loss == first);
	}
	ck_assert(loss_of(options, 1) == first);
	safetensors_close(answers);
	arena_release(&arena);
}
END_TEST

/* lora.init of the file counts where there is no --adapter; a run's directory is as good as its adapter. */
START_TEST(adapters)
{
	struct arena arena = {0};
	char *init = arena_format(&arena, "%s/llama/initial", GOLDEN), *run = arena_format(&arena, "%s/run", scratch);
	struct eval_options options = {.run.data = first_batch(&arena, "llama")};
	double base, with;

	options.run.topology = topology(&arena, "llama", 1, "");
	base = loss_of(options, 1);
	options.run.topology = topology(&arena, "llama", 1, arena_format(&arena, "lora: {init: %s}\n", init));
	with = loss_of(options, 1);
	ck_assert(base != with);
	options.run.topology = topology(&arena, "llama", 1, "lora: {rank: 64, targets: all}\n");
	ck_assert(loss_of(options, 1) == base);
	ck_assert_int_eq(folder_make(run), 0);
	ck_assert_int_eq(symlink(init, arena_format(&arena, "%s/adapter", run)), 0);
	options.run.adapter = run;
	ck_assert(loss_of(options, 1) == with);
	arena_release(&arena);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("eval");
	TCase *cases = tcase_create("cases");
	int status;

	log_level(LOG_QUIET);
	scratch_open();
	tcase_set_timeout(cases, 60);
	tcase_add_loop_test(cases, losses, 0, COUNT(golden_cases));
	tcase_add_test(cases, adapters);
	suite_add_tcase(suite, cases);
	status = run_suite(suite);
	scratch_close();
	return status;
}
