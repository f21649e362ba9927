/*
 * tests/check_packing.c - several samples in a sequence: every epoch has each sample once and whole, in rows that a place
 * alone decides; training so is training on the samples one by one, with the same loss and the same gradients; and it
 * is the same bytes on any number of ranks, in every schedule, and when it goes on from a checkpoint.
 *
 * links: launch
 */
#include "tests/runs.h"

#include <math.h>

/* -- rows ---------------------------------------------------------------------------------- */

enum { T = 40, SAMPLES = 5000, UNTRAINED = -100 };

static struct arena arena;

/* Tokens of sample i: from 1 to T. What a sample has is its number, then 1, 2, ...: it can be told in a row. */
static int tokens_of(int i)
{
	return 1 + (int)((unsigned)i * 2654435761u >> 7) % T;
}

static char *put_samples(const char *name, int samples, int tokens, int (*count)(int), int32_t vocabulary)
{
	int32_t *ids = xzalloc((size_t)samples * (size_t)tokens, sizeof *ids);
	int32_t *labels = xzalloc((size_t)samples * (size_t)tokens, sizeof *labels);
	struct safetensors_entry entries[] = {
		{.name = "input_ids", .dtype = DTYPE_I32, .dims = 2, .shape = {samples, tokens}, .data = ids},
		{.name = "labels", .dtype = DTYPE_I32, .dims = 2, .shape = {samples, tokens}, .data = labels},
	};
	char *path = arena_format(&arena, "%s/%s", scratch, name);

	for (int i = 0; i < samples; i++)
		for (int t = 0; t < tokens; t++) {
			int32_t id = vocabulary ? (i * 31 + t * t * 7 + 3) % vocabulary : t ? t : i;

			ids[i * tokens + t] = id;
			labels[i * tokens + t] = t < count(i) ? id : UNTRAINED;
		}
	ck_assert_int_eq(safetensors_write(path, entries, 2, NULL), 0);
	free(ids);
	free(labels);
	return path;
}

static struct dataset *opened(const char *path, int vocabulary)
{
	struct data_config data = {0};
	struct model_config config = {.folder = scratch, .vocabulary = vocabulary, .end_token = -1};
	struct dataset *set = dataset_open(path, "train", &data, &config);

	ck_assert_ptr_nonnull(set);
	return set;
}

struct row {
	int32_t ids[T], labels[T];
	struct packed_sample sample[T];
	int samples, trained;
};

static struct row row_at(struct packing *packing, uint64_t place)
{
	struct row row;

	row.trained = packing_row(packing, place, row.ids, row.labels, row.sample, &row.samples);
	return row;
}

/* What of sample i is kept: all but its last token, which is only predicted. */
static int kept(int i)
{
	return tokens_of(i) > 1 ? tokens_of(i) - 1 : 1;
}

/* Checks a row of shuffled or unshuffled samples; counts them. */
static void check_row(const struct row *row, uint64_t seed, bool shuffle, uint64_t epoch, unsigned char *seen)
{
	int at = 0, trained = 0;

	for (int s = 0; s < row->samples; s++) {
		uint64_t place = row->sample[s].number - epoch * SAMPLES;
		int i = (int)(shuffle ? shuffle_index(seed, 0, place, SAMPLES) : place);

		ck_assert(place < SAMPLES);
		ck_assert_int_eq(row->sample[s].tokens, kept(i));
		for (int t = 0; t < kept(i); t++, at++) {
			bool predicts = t + 1 < tokens_of(i);

			ck_assert_int_eq(row->ids[at], t ? t : i);
			ck_assert_int_eq(row->labels[at], predicts ? t + 1 : -1);
			trained += predicts;
		}
		seen[i]++;
	}
	for (; at < T; at++)
		ck_assert_int_eq(row->labels[at], -1);
	ck_assert_int_eq(trained, row->trained);
}

START_TEST(every_epoch_has_each_sample_once)
{
	struct dataset *set = opened(put_samples("rows.safetensors", SAMPLES, T, tokens_of, 0), SAMPLES);
	bool shuffle = _i;
	struct packing *packing = packing_open(set, 7, shuffle), *again = packing_open(set, 7, shuffle);
	struct packing_facts facts = packing_facts(packing);
	unsigned char *seen = xzalloc(3, SAMPLES);
	size_t tokens = 0;

	for (int i = 0; i < SAMPLES; i++)
		tokens += (size_t)kept(i);
	ck_assert_uint_eq(facts.tokens, tokens);
	/* as good as best fit ought to be: hardly any padding in so many rows */
	ck_assert_uint_le(facts.rows, tokens / T + tokens / T / 50 + 3);
	for (uint64_t place = 0; place < 3 * facts.rows; place++) {
		struct row row = row_at(packing, place), same;

		ck_assert_int_le(row.samples, facts.most);
		check_row(&row, 7, shuffle, place / facts.rows, seen + place / facts.rows * SAMPLES);
		if (place % 61)
			continue;
		/* a place is all that a resumed run knows */
		same = row_at(again, place);
		ck_assert_mem_eq(row.ids, same.ids, sizeof row.ids);
		ck_assert_mem_eq(row.labels, same.labels, sizeof row.labels);
	}
	for (int i = 0; i < 3 * SAMPLES; i++)
		ck_assert_int_eq(seen[i], 1);
	free(seen);
	packing_close(packing);
	packing_close(again);
	dataset_close(set);
}
END_TEST

/* Rows come in another order in every epoch, and with another seed others share them; unshuffled they follow the file. */
START_TEST(order_of_rows)
{
	struct dataset *set = opened(put_samples("rows.safetensors", SAMPLES, T, tokens_of, 0), SAMPLES);
	struct packing *one = packing_open(set, 1, true), *two = packing_open(set, 2, true);
	struct packing *plain = packing_open(set, 1, false);
	size_t rows = packing_facts(one).rows;
	int moved = 0, others = 0;

	for (uint64_t place = 0; place < 100; place++) {
		struct row a = row_at(one, place), b = row_at(one, rows + place), c = row_at(two, place);

		moved += memcmp(a.ids, b.ids, sizeof a.ids) != 0;
		others += memcmp(a.ids, c.ids, sizeof a.ids) != 0;
	}
	ck_assert_int_gt(moved, 90);
	ck_assert_int_gt(others, 90);
	for (uint64_t place = 1; place < 100; place++)
		ck_assert_int_gt(row_at(plain, place).sample[0].number, row_at(plain, place - 1).sample[0].number);
	packing_close(one);
	packing_close(two);
	packing_close(plain);
	dataset_close(set);
}
END_TEST

/* -- training ------------------------------------------------------------------------------ */

/* Ten samples that fill four sequences of 12 tokens but for one. */
enum { FEW = 10, SHORT = 12, PACKED_ROWS = 4 };

static int few_tokens(int i)
{
	static const int tokens[FEW] = {4, 9, 1, 12, 3, 7, 8, 2, 6, 4};

	return tokens[i];
}

static char *few_samples(void)
{
	char *path = put_samples("few.safetensors", FEW, SHORT, few_tokens, 23);
	struct dataset *set = opened(path, 23);
	struct packing *packing = packing_open(set, 1, true);

	ck_assert_uint_eq(packing_facts(packing).rows, PACKED_ROWS);
	packing_close(packing);
	dataset_close(set);
	return path;
}

static const char with_dropout[] = "{rank: 3, alpha: 6, dropout: 0.3, targets: all}";

/* All samples are one batch, packed or not. */
static struct golden_run job(const char *name, const char *train, bool pack)
{
	char *path = few_samples();

	return (struct golden_run){
		.name = name,
		.ranks = 1,
		.threads = 1,
		.micro_batch = pack ? 1 : 2,
		.steps = 4,
		.schedule = "1f1b",
		.data = arena_format(&arena, "train: %s, valid: %s, shuffle: true, pack: %s", path, path,
				     pack ? "true" : "false"),
		.batch = pack ? PACKED_ROWS : FEW,
		.train = train,
	};
}

static char *folder_of(const struct golden_run *run)
{
	return arena_format(&arena, "%s-%d", run_folder(&arena, run, "local"), run->batch);
}

static char *run_and_read(const struct golden_run *run)
{
	char *folder = folder_of(run);

	ck_assert_int_eq(run_local(run, folder), 0);
	return run_result(&arena, folder);
}

/* The number of a key in a line of a run's result. */
static double number_of(const char *line, const char *key)
{
	const char *at = strstr(line, key);

	ck_assert_msg(at, "no %s in %.80s", key, line);
	return strtod(at + strlen(key), NULL);
}

/* Every loss and norm of two results, within a part of themselves; trained tokens are the same. */
static void compare_results(const char *name, const char *a, const char *b, double tolerance)
{
	static const char *const keys[] = {"\"loss\":", "\"grad_norm\":"};

	for (; *a && *b && *a != 'a'; a = strchr(a, '\n') + 1, b = strchr(b, '\n') + 1) {
		for (int k = 0; k < COUNT(keys); k++) {
			double x, y;

			if (strncmp(a, "\"step\"", 6) || !memmem(a, strcspn(a, "\n"), keys[k], strlen(keys[k])))
				continue;
			x = number_of(a, keys[k]);
			y = number_of(b, keys[k]);
			ck_assert_msg(fabs(x - y) <= tolerance * fabs(x), "%s, %.12s %s %.9g is not %.9g", name, a,
				      keys[k], y, x);
		}
		if (memmem(a, strcspn(a, "\n"), "trained", 7))
			ck_assert_double_eq(number_of(a, "\"trained_tokens\":"), number_of(b, "\"trained_tokens\":"));
	}
	ck_assert_int_eq(*a, *b);
}

static struct safetensors *dump_of(const struct golden_run *run)
{
	return safetensors_open(arena_format(&arena, "%s/dump/step-00000001.safetensors", folder_of(run)));
}

/* The adapters' gradients of step 1, tensor by tensor, against the largest number of each. */
static void compare_gradients(const struct golden_run *alone, const struct golden_run *packed, double tolerance)
{
	struct safetensors *a = dump_of(alone), *b = dump_of(packed);
	int compared = 0;

	for (int i = 0; i < a->count; i++) {
		const struct safetensor *x = &a->tensor[i], *y = safetensors_find(b, x->name);
		const float *want = x->data, *got = y ? y->data : NULL;
		double most = 0;

		if (!strstr(x->name, "lora_"))
			continue;
		ck_assert(y && y->bytes == x->bytes);
		for (size_t j = 0; j < x->bytes / sizeof(float); j++)
			most = fmax(most, fabs(want[j]));
		for (size_t j = 0; j < x->bytes / sizeof(float); j++)
			ck_assert_msg(fabs(want[j] - got[j]) <= tolerance * most,
				      "%s, %s, %zu: %.9g is not %.9g (most %g)", alone->name, x->name, j, got[j],
				      want[j], most);
		compared++;
	}
	ck_assert_int_gt(compared, 0);
	safetensors_close(a);
	safetensors_close(b);
}

/*
 * Sums over the rows of a micro-batch are taken in another order, which rounds otherwise: in F32 at 2^-24 of terms that
 * partly cancel; in BF16 dk and dv are stored, and a sum that falls to the other side of a step of 2^-8 differs by it.
 * Later steps follow AdamW, which divides such differences by gradients that are next to nothing.
 */
START_TEST(packed_is_unpacked)
{
	bool bf16 = _i >= COUNT(golden_cases);
	struct golden_run alone = job(golden_cases[_i % COUNT(golden_cases)], bf16 ? "precision: bf16" : NULL, false);
	struct golden_run packed = job(alone.name, alone.train, true);
	const char *one, *other;

	for (int dropout = 0; dropout < 2; dropout++) {
		alone.lora = packed.lora = dropout ? with_dropout : NULL;
		alone.steps = packed.steps = dropout ? 1 : 4;
		one = run_and_read(&alone);
		other = run_and_read(&packed);
		compare_results(alone.name, one, other, bf16 ? 2e-2 : 1e-4);
		compare_gradients(&alone, &packed, bf16 ? 3e-2 : 2e-5);
	}
	if (_i % 2)
		return;
	packed.ranks = 5;
	run_and_read(&packed);
	compare_gradients(&alone, &packed, bf16 ? 3e-2 : 2e-5);
}
END_TEST

static const char *const two_cases[] = {"gpt2", "qwen3-long"};

START_TEST(identity_of_packed_runs)
{
	static const char *const schedules[] = {"eager", "1f1b", "gpipe"};
	static const int ranks[] = {1, 2, 3, 5};
	struct golden_run run = job(two_cases[_i % 2], _i < 2 ? NULL : "precision: bf16", true);
	char *first;

	run.lora = with_dropout;
	run.steps = 4;
	run.micro_batch = 1 + _i % 2;
	first = run_and_read(&run);
	for (int i = 0; i < 6; i++) {
		run.ranks = ranks[i % COUNT(ranks)];
		run.schedule = schedules[i / 2];
		run.threads = 1 + i / 2 % 2;
		ck_assert_str_eq(run_and_read(&run), first);
	}
}
END_TEST

/* Two steps an epoch; three steps, then the rest of seven, are seven. */
START_TEST(goes_on_at_the_same_place)
{
	struct golden_run run = job("llama", "schedule: constant", true);
	char *whole, *folder;

	run.batch = 2;
	run.steps = 7;
	whole = run_and_read(&run);
	run.steps = 3;
	folder = folder_of(&run);
	ck_assert_str_ne(run_and_read(&run), whole);
	/* what step 1 computed is dumped by a run that starts there */
	struct train_options options = {.command = "train", .out = folder, .resume = true};

	run.steps = 7;
	options.topology = run_topology(&arena, &run, folder);
	ck_assert_int_eq(comm_local_run(1, run_rank, &options), 0);
	ck_assert_str_eq(strstr(run_result(&arena, folder), "adapter"), strstr(whole, "adapter"));
	/* another packing is another run */
	run.data = arena_format(&arena, "train: %s, valid: %s", few_samples(), few_samples());
	run.steps = 9;
	options.topology = run_topology(&arena, &run, folder);
	error_hold();
	ck_assert_int_eq(comm_local_run(1, run_rank, &options), EXIT_CONFIG);
	error_clear();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("packing");
	TCase *rows = tcase_create("rows"), *training = tcase_create("training");
	int status;

	log_level(LOG_QUIET);
	say_bf16_skipped();
	scratch_open();
	tcase_add_loop_test(rows, every_epoch_has_each_sample_once, 0, 2);
	tcase_add_test(rows, order_of_rows);
	suite_add_tcase(suite, rows);
	tcase_set_timeout(training, 60);
	tcase_add_loop_test(training, packed_is_unpacked, 0, COUNT(golden_cases) * (cpu_has_bf16() ? 2 : 1));
	tcase_add_loop_test(training, identity_of_packed_runs, 0, cpu_has_bf16() ? 4 : 2);
	tcase_add_test(training, goes_on_at_the_same_place);
	suite_add_tcase(suite, training);
	status = run_suite(suite);
	scratch_close();
	return status;
}
