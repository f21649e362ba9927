/*
 * Every golden case against PyTorch, transformers and PEFT (tests/golden/make_golden.py): logits, hidden states, loss
 * and gradients of the first step, losses and gradient norms of all steps, the adapter after the last.
 *
 * links: launch
 */
#include "tests/runs.h"

#include <math.h>

/* Absolute, unless the name says otherwise. Looser, and a wrong epsilon or GELU passes unseen. */
static const struct { const char *what; double most; } tolerance[] = {
	{"logits", 2e-4},
	{"hidden_states", 5e-4},
	{"loss", 2e-5},
	{"gradient, of its largest or of 1", 2e-5},
	{"gradient 1 - cosine", 1e-6},
	{"losses", 2e-5},
	{"grad_norms, relative", 2e-5},
	{"final", 1e-4},		/* AdamW's first steps are near sign(g): small errors grow */
};

static void assert_within(const char *name, const char *tensor, int row, double off)
{
	ck_assert_msg(off <= tolerance[row].most, "%s, %s: %s is off by %g, allowed %g", name,
		      tensor, tolerance[row].what, off, tolerance[row].most);
}

static double largest_difference(const struct safetensor *a, const struct safetensor *b)
{
	double most = 0;

	ck_assert_uint_eq(a->bytes, b->bytes);
	ck_assert_int_eq(a->dtype, DTYPE_F32);
	for (size_t i = 0; i < a->bytes / sizeof(float); i++) {
		double off = fabs((double)((const float *)a->data)[i] -
				  (double)((const float *)b->data)[i]);

		most = off > most || isnan(off) ? off : most;
	}
	return most;
}

/* A gradient of tens rounds as coarsely as it is large. */
static double largest_or_one(const struct safetensor *a)
{
	double most = 1;

	for (size_t i = 0; i < a->bytes / sizeof(float); i++)
		most = fmax(most, fabs((double)((const float *)a->data)[i]));
	return most;
}

static double one_minus_cosine(const struct safetensor *a, const struct safetensor *b)
{
	const float *x = a->data, *y = b->data;
	double xy = 0, xx = 0, yy = 0;

	for (size_t i = 0; i < a->bytes / sizeof(float); i++) {
		xy += (double)x[i] * (double)y[i];
		xx += (double)x[i] * (double)x[i];
		yy += (double)y[i] * (double)y[i];
	}
	return 1 - xy / (sqrt(xx) * sqrt(yy));
}

static void compare_dump(const char *name, const char *folder, const struct safetensors *answers)
{
	struct arena arena = {0};
	struct safetensors *dump = safetensors_open(
		arena_format(&arena, "%s/dump/step-00000001.safetensors", folder));
	int gradients = 0;

	ck_assert_ptr_nonnull(dump);
	for (int i = 0; i < dump->count; i++) {
		const struct safetensor *ours = &dump->tensor[i];
		const struct safetensor *theirs = safetensors_find(answers, ours->name);
		bool gradient = strstr(ours->name, ".lora_");

		ck_assert_msg(theirs != NULL, "%s: PyTorch has no '%s'", name, ours->name);
		assert_within(name, ours->name,
			      gradient ? 3 : !strcmp(ours->name, "logits") ? 0 :
			      !strcmp(ours->name, "hidden_states") ? 1 : 2,
			      largest_difference(ours, theirs) /
				      (gradient ? largest_or_one(theirs) : 1));
		if (gradient)
			assert_within(name, ours->name, 4, one_minus_cosine(ours, theirs));
		gradients += gradient;
	}
	/* logits, hidden_states, loss, losses, grad_norms, and two tensors for each of ours */
	ck_assert_int_eq(2 * gradients + 5, answers->count);
	safetensors_close(dump);
	arena_release(&arena);
}

static void compare_final(const char *name, const char *folder, const struct safetensors *answers)
{
	struct arena arena = {0};
	struct safetensors *adapter = safetensors_open(
		arena_format(&arena, "%s/adapter/adapter_model.safetensors", folder));

	ck_assert_ptr_nonnull(adapter);
	for (int i = 0; i < adapter->count; i++) {
		const struct safetensor *ours = &adapter->tensor[i];
		const struct safetensor *theirs = safetensors_find(
			answers, arena_format(&arena, "final.%s", ours->name));

		ck_assert_msg(theirs != NULL, "%s: PEFT has no '%s'", name, ours->name);
		assert_within(name, ours->name, 7, largest_difference(ours, theirs));
	}
	safetensors_close(adapter);
	arena_release(&arena);
}

static void compare_steps(const char *name, const char *folder, const struct safetensors *answers)
{
	struct arena arena = {0};
	const float *losses = safetensors_find(answers, "losses")->data;
	const float *norms = safetensors_find(answers, "grad_norms")->data;
	char *result = run_result(&arena, folder), *line, *save;
	int step = 0;

	for (line = strtok_r(result, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		const char *loss = strstr(line, "\"loss\":"), *norm = strstr(line, "\"grad_norm\":");

		if (!loss)
			continue;
		assert_within(name, "losses", 5, fabs(strtod(loss + 7, NULL) - (double)losses[step]));
		assert_within(name, "grad_norms", 6,
			      fabs(strtod(norm + 12, NULL) / (double)norms[step] - 1));
		step++;
	}
	ck_assert_int_eq(step, 4);
	arena_release(&arena);
}

/* Five ranks: the last stage is the head alone where there are four blocks. */
static const int worlds[] = {1, 3, 5};

START_TEST(golden)
{
	struct arena arena = {0};
	struct golden_run run = {
		.name = golden_cases[_i / COUNT(worlds)],
		.ranks = worlds[_i % COUNT(worlds)],
		.threads = 1,
		.micro_batch = 2,
		.steps = 4,
		.schedule = "eager",
	};
	char *folder = run_folder(&arena, &run, "golden");
	struct safetensors *answers = safetensors_open(
		arena_format(&arena, "%s/%s/answers.safetensors", GOLDEN, run.name));

	ck_assert_ptr_nonnull(answers);
	ck_assert_int_eq(run_local(&run, folder), 0);
	compare_dump(run.name, folder, answers);
	compare_steps(run.name, folder, answers);
	compare_final(run.name, folder, answers);
	safetensors_close(answers);
	arena_release(&arena);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("golden");
	TCase *cases = tcase_create("cases");
	int status;

	log_level(LOG_QUIET);
	scratch_open();
	tcase_set_timeout(cases, 60);
	tcase_add_loop_test(cases, golden, 0, COUNT(golden_cases) * COUNT(worlds));
	suite_add_tcase(suite, cases);
	status = run_suite(suite);
	scratch_close();
	return status;
}
