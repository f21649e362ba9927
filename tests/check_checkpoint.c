/*
 * tests/check_checkpoint.c - a checkpoint comes back bit by bit, or is refused: every damage is
 * noticed and the newest whole one is taken.
 *
 * links: base tensor model
 */
#include "tests/model_files.h"

#include <fcntl.h>

/* A run folder with a LoRA on a tiny model, and room for its state. */
struct bench {
	const char *run;
	struct model_config *config;
	struct lora *lora;
	float *memory;
	struct checkpoint now;
};

static const char *identity[] = {"seed", "7", "model_digest", "abc", "batch", "32", NULL};
static const char *circumstance[] = {"isa", "avx2", "learning_rate", "0.0002", NULL};

static struct bench bench_open(const char *run)
{
	static const char *word[] = {"all"};
	struct lora_config want = {.rank = 2, .alpha = 4, .targets = {word, 1}};
	struct bench b = {.run = at(run)};

	b.config = model_config_read(model_folder("m", GPT2_TINY));
	b.lora = lora_resolve(b.config, &want);
	ck_assert_ptr_nonnull(b.lora);
	b.memory = xzalloc(3 * b.lora->elements, sizeof(float));
	b.now.value = b.memory;
	b.now.m = b.memory + b.lora->elements;
	b.now.v = b.memory + 2 * b.lora->elements;
	b.now.identity = identity;
	b.now.circumstance = circumstance;
	return b;
}

static void bench_close(struct bench *b)
{
	free(b->memory);
	lora_free(b->lora);
	model_config_free(b->config);
}

/* The state of a step: every number differs from every other of this and of other steps. */
static float number_of(long long step, size_t i)
{
	return (float)(step * 100000) + (float)i;
}

static void write_step(struct bench *b, long long step)
{
	for (size_t i = 0; i < 3 * b->lora->elements; i++)
		b->memory[i] = number_of(step, i);
	b->now.step = step;
	b->now.place = (uint64_t)step * 32;
	ck_assert_int_eq(checkpoint_write(b->run, b->lora, &b->now), 0);
}

static int load(struct bench *b)
{
	memset(b->memory, 0, 3 * b->lora->elements * sizeof(float));
	b->now.step = -1;
	b->now.place = 0;
	return checkpoint_load(b->run, b->lora, &b->now);
}

/* Loads, and it must be this step, all of it. */
static void assert_loads(struct bench *b, long long step)
{
	ck_assert_int_eq(load(b), 1);
	ck_assert_int_eq(b->now.step, step);
	ck_assert_uint_eq(b->now.place, (uint64_t)step * 32);
	for (size_t i = 0; i < 3 * b->lora->elements; i++)
		ck_assert_float_eq(b->memory[i], number_of(step, i));
}

/* Between listen and assert_heard stderr goes to a file: warnings are not held as errors are.
 */
static int saved_stderr;

static void listen(void)
{
	int file = open(at("stderr"), O_WRONLY | O_CREAT | O_TRUNC, 0666);

	fflush(stderr);
	saved_stderr = dup(2);
	dup2(file, 2);
	close(file);
}

static char *stop_listening(void)
{
	fflush(stderr);
	dup2(saved_stderr, 2);
	close(saved_stderr);
	return read_text(at("stderr"));
}

static void assert_heard(const char *words)
{
	char *heard = stop_listening();

	ck_assert_msg(strstr(heard, words) != NULL, "\"%s\" is not in: %s", words, heard);
	free(heard);
}

static void assert_heard_nothing(void)
{
	char *heard = stop_listening();

	ck_assert_str_eq(heard, "");
	free(heard);
}

/* Loading skips the newest checkpoint, says so with these words, and takes step 1. */
static void assert_skips(struct bench *b, const char *words)
{
	listen();
	assert_loads(b, 1);
	assert_heard("skipping the checkpoint");
	listen();
	ck_assert_int_eq(load(b), 1);
	assert_heard(words);
}

static const char *of_step(const struct bench *b, long long step, const char *file)
{
	return arena_format(&paths, "%s/ckpt/step-%08lld%s%s", b->run, step, file ? "/" : "",
			    file ? file : "");
}

/* -- what is written ----------------------------------------------------------------------- */

START_TEST(a_checkpoint_comes_back)
{
	struct bench b = bench_open("run");

	write_step(&b, 50);
	assert_loads(&b, 50);
	write_step(&b, 100);
	write_step(&b, 75);
	assert_loads(&b, 100); /* the newest, not the last written */
	bench_close(&b);
}
END_TEST

START_TEST(tensors_are_keyed_by_global_names)
{
	struct bench b = bench_open("names");
	char name[256];

	write_step(&b, 3);
	struct safetensors *file = safetensors_open(of_step(&b, 3, "state.safetensors"));
	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(file->count, 3 * b.lora->count);
	for (int i = 0; i < file->count; i++) {
		static const char *const suffix[] = {"", ".exp_avg", ".exp_avg_sq"};
		const struct lora_tensor *tensor = &b.lora->tensor[i % b.lora->count];

		snprintf(name, sizeof name, "%s%s", tensor->name, suffix[i / b.lora->count]);
		ck_assert_str_eq(file->tensor[i].name, name);
		ck_assert(file->tensor[i].shape[0] == tensor->rows);
	}
	safetensors_close(file);
	bench_close(&b);
}
END_TEST

START_TEST(without_checkpoints_there_is_nothing_to_load)
{
	struct bench b = bench_open("fresh");

	ck_assert_int_eq(load(&b), 0);
	folder_make(at("fresh/ckpt"));
	ck_assert_int_eq(load(&b), 0);
	bench_close(&b);
}
END_TEST

START_TEST(the_same_step_can_be_written_again)
{
	struct bench b = bench_open("again");

	write_step(&b, 5);
	put_text(of_step(&b, 5, "manifest.json"), "damaged");
	write_step(&b, 5);
	assert_loads(&b, 5);
	write_step(&b, 5);
	assert_loads(&b, 5);
	bench_close(&b);
}
END_TEST

START_TEST(the_same_state_gives_the_same_bytes)
{
	struct bench b = bench_open("bytes");
	struct digest first, second;

	write_step(&b, 5);
	digest_file(of_step(&b, 5, "manifest.json"), &first);
	write_step(&b, 5);
	digest_file(of_step(&b, 5, "manifest.json"), &second);
	ck_assert(digest_equal(first, second));
	bench_close(&b);
}
END_TEST

START_TEST(leftovers_are_removed_and_other_names_ignored)
{
	static const char *const foreign[] = {
	    "step-0000005x",	 "step-000000099", "step-99",	    "latest",
	    "step-00000099.bak", "step-+0000099",  "Step-00000099", "step-00000099x"};
	struct bench b = bench_open("foreign");

	write_step(&b, 1);
	for (int i = 0; i < COUNT(foreign); i++)
		folder_make(arena_format(&paths, "%s/ckpt/%s", b.run, foreign[i]));
	folder_make(at("foreign/ckpt/step-00000002.tmp-0123456789abcdef"));
	put_text(at("foreign/ckpt/step-00000002.tmp-0123456789abcdef/state.safetensors"),
		 "half");
	listen();
	assert_loads(&b, 1);
	assert_heard_nothing();
	ck_assert(!path_exists(at("foreign/ckpt/step-00000002.tmp-0123456789abcdef")));
	for (int i = 0; i < COUNT(foreign); i++)
		ck_assert(path_exists(arena_format(&paths, "%s/ckpt/%s", b.run, foreign[i])));
	bench_close(&b);
}
END_TEST

START_TEST(a_checkpoint_that_cannot_be_written_is_an_error)
{
	struct bench b = bench_open("full");

	folder_make(b.run);
	put_text(at("full/ckpt"), "a file where the folder should be");
	error_hold();
	ck_assert_int_eq(checkpoint_write(b.run, b.lora, &b.now), -1);
	ck_assert_int_eq(error_code(), EXIT_CREATE);
	error_clear();
	b.now.step = 100000000;
	error_hold();
	ck_assert_int_eq(checkpoint_write(at("other"), b.lora, &b.now), -1);
	assert_said(EXIT_CONFIG, "step 100000000");
	bench_close(&b);
}
END_TEST

/* -- damage -------------------------------------------------------------------------------- */

static char *read_file(const char *path, size_t *bytes)
{
	char *data = file_read(path, bytes);

	ck_assert_ptr_nonnull(data);
	return data;
}

/* One bit in every 512 bytes, and in the last byte. */
static void flip_everywhere(struct bench *b, const char *path)
{
	size_t bytes;
	char *data = read_file(path, &bytes);
	int flips = 0;

	for (size_t i = 0; i < bytes; i += 512, flips++) {
		size_t at_byte = i + (size_t)flips * 37 % 512;

		if (at_byte >= bytes)
			at_byte = bytes - 1;
		data[at_byte] ^= (char)(1 << flips % 8);
		put(path, data, bytes);
		assert_loads(b, 1);
		data[at_byte] ^= (char)(1 << flips % 8);
	}
	put(path, data, bytes);
	assert_loads(b, 2);
	free(data);
}

START_TEST(a_flipped_bit_is_noticed)
{
	struct bench b = bench_open("flip");

	write_step(&b, 1);
	write_step(&b, 2);
	listen();
	flip_everywhere(&b, of_step(&b, 2, "state.safetensors"));
	flip_everywhere(&b, of_step(&b, 2, "manifest.json"));
	assert_heard("does not have the digest");
	bench_close(&b);
}
END_TEST

START_TEST(every_byte_of_the_manifest_counts)
{
	struct bench b = bench_open("bits");
	size_t bytes;

	write_step(&b, 1);
	write_step(&b, 2);
	const char *path = of_step(&b, 2, "manifest.json");
	char *data = read_file(path, &bytes);
	listen();
	for (size_t i = 0; i < bytes; i++) {
		data[i] ^= 1;
		put(path, data, bytes);
		assert_loads(&b, 1);
		data[i] ^= 1;
	}
	assert_heard("manifest.json");
	free(data);
	bench_close(&b);
}
END_TEST

START_TEST(a_truncated_file_is_noticed)
{
	static const char *const names[] = {"state.safetensors", "manifest.json"};
	struct bench b = bench_open("short");
	size_t bytes;

	write_step(&b, 1);
	write_step(&b, 2);
	listen();
	for (int f = 0; f < 2; f++) {
		const char *path = of_step(&b, 2, names[f]);
		char *data = read_file(path, &bytes);

		for (size_t i = 0; i < bytes; i += 257) {
			put(path, data, i);
			assert_loads(&b, 1);
		}
		put(path, data, bytes - 1);
		assert_loads(&b, 1);
		put(path, data, bytes);
		assert_loads(&b, 2);
		free(data);
	}
	assert_heard("bytes instead of");
	bench_close(&b);
}
END_TEST

START_TEST(a_longer_or_deleted_file_is_noticed)
{
	struct bench b = bench_open("gone");
	FILE *file;

	write_step(&b, 1);
	write_step(&b, 2);
	file = fopen(of_step(&b, 2, "state.safetensors"), "ab");
	fputc(0, file);
	fclose(file);
	assert_skips(&b, "bytes instead of");
	unlink(of_step(&b, 2, "state.safetensors"));
	assert_skips(&b, "state.safetensors is missing");
	write_step(&b, 2);
	unlink(of_step(&b, 2, "manifest.json"));
	assert_skips(&b, "manifest.json is missing");
	folder_remove(of_step(&b, 2, NULL));
	put_text(of_step(&b, 2, NULL), "a file with a checkpoint's name");
	assert_skips(&b, "no plain folder");
	bench_close(&b);
}
END_TEST

START_TEST(links_are_not_followed)
{
	struct bench b = bench_open("links");

	write_step(&b, 1);
	write_step(&b, 2);
	rename(of_step(&b, 2, "state.safetensors"), at("elsewhere"));
	ck_assert_int_eq(symlink(at("elsewhere"), of_step(&b, 2, "state.safetensors")), 0);
	assert_skips(&b, "no plain file");
	write_step(&b, 2);
	rename(of_step(&b, 2, "manifest.json"), at("elsewhere"));
	ck_assert_int_eq(symlink(at("elsewhere"), of_step(&b, 2, "manifest.json")), 0);
	assert_skips(&b, "no plain file");
	write_step(&b, 2);
	rename(of_step(&b, 2, NULL), at("elsewhere-folder"));
	ck_assert_int_eq(symlink(at("elsewhere-folder"), of_step(&b, 2, NULL)), 0);
	assert_skips(&b, "no plain folder");
	bench_close(&b);
}
END_TEST

START_TEST(a_checkpoint_under_another_name_is_refused)
{
	struct bench b = bench_open("moved");

	write_step(&b, 1);
	write_step(&b, 2);
	rename(of_step(&b, 2, NULL), of_step(&b, 9, NULL));
	assert_skips(&b, "is of step 2");
	bench_close(&b);
}
END_TEST

START_TEST(files_of_two_steps_do_not_mix)
{
	struct bench b = bench_open("mixed");

	write_step(&b, 1);
	write_step(&b, 2);
	write_step(&b, 3);
	rename(of_step(&b, 2, "state.safetensors"), of_step(&b, 3, "state.safetensors"));
	listen();
	assert_loads(&b, 1);
	assert_heard("does not have the digest that manifest.json names");
	bench_close(&b);
}
END_TEST

START_TEST(none_of_several_is_an_error)
{
	struct bench b = bench_open("none");

	write_step(&b, 1);
	write_step(&b, 2);
	put_text(of_step(&b, 1, "manifest.json"), "{}");
	put_text(of_step(&b, 2, "manifest.json"), "");
	listen();
	error_clear();
	ck_assert_int_eq(load(&b), -1);
	ck_assert_int_eq(error_code(), EXIT_DATA);
	assert_heard("none of the 2 checkpoints");
	bench_close(&b);
}
END_TEST

/* -- manifests that are whole, and wrong --------------------------------------------------- */

/* Puts a manifest with a right last line. */
static void forge(const struct bench *b, long long step, const char *body)
{
	struct text text = {0};
	char hex[33];

	text_add(&text, "%s", body);
	struct digest digest = digest_of(text.data, text.bytes);
	text_add(&text, "\"digest\":\"%s\"}\n", digest_write(digest, hex));
	put(of_step(b, step, "manifest.json"), text.data, text.bytes);
	text_release(&text);
}

/* The manifest of a step without its last line, with one text replaced by another. */
static char *replaced(const struct bench *b, long long step, const char *from, const char *to)
{
	char *data = read_text(of_step(b, step, "manifest.json"));
	char *last = strstr(data, "\"digest\":");
	char *found = strstr(data, from);

	ck_assert(last && found);
	*last = '\0';
	char *body = arena_format(&paths, "%.*s%s%s", (int)(found - data), data, to,
				  found + strlen(from));
	free(data);
	return body;
}

static const struct {
	const char *from, *to, *words;
} forged[] = {
	{"\"version\":1", "\"version\":2", "of version 2, this program knows 1"},
	{"\"version\":1", "\"version\":\"1\"", "of version -1"},
	{"\"step\":2", "\"step\":3", "is of step 3"},
	{"\"place\":64", "\"place\":-64", "no place"},
	{"\"place\":64", "\"place\":\"64\"", "no place"},
	{"\"state.safetensors\":{", "\"../../../etc/passwd\":{", "lists '../../../etc/passwd'"},
	{"\"state.safetensors\":{", "\"/etc/passwd\":{},\"state.safetensors\":{",
	 "lists '/etc/passwd'"},
	{"\"state.safetensors\":{", "\"state.safetensors\":7,\"x\":{", "lists 'x'"},
	{"\"bytes\":", "\"byte\":", "bytes instead of -1"},
	{"\"xxh3_128\":\"", "\"xxh3_128\":\"0", "does not have the digest"},
	{"\"files\":{", "\"file\":{", "does not list"},
	{"{\"version\"", "[{\"version\"", "not a JSON object"},
	{"\"step\":2,", "\"step\":2,\"step\":2,", "not a JSON object"},
};

START_TEST(a_forged_manifest_is_refused)
{
	struct bench b = bench_open("forged");

	write_step(&b, 1);
	write_step(&b, 2);
	forge(&b, 2, replaced(&b, 2, "\"identity\"", "\"identity\""));
	assert_loads(&b, 2); /* the forgery as such is good */
	forge(&b, 2, replaced(&b, 2, forged[_i].from, forged[_i].to));
	assert_skips(&b, forged[_i].words);
	bench_close(&b);
}
END_TEST

/* A state file that is whole, has the digest that its manifest names, and other tensors. */
static void forge_state(struct bench *b, const char *run, const char *word, const char *words)
{
	struct lora_config want = {
	    .rank = word[0] == 'c' ? 2 : 3, .alpha = 4, .targets = {&word, 1}};
	struct bench other = *b;

	other.run = at(run);
	other.lora = lora_resolve(b->config, &want);
	ck_assert_ptr_nonnull(other.lora);
	other.memory = xzalloc(3 * other.lora->elements, sizeof(float));
	other.now.value = other.now.m = other.now.v = other.memory;
	write_step(&other, 2);
	folder_remove(of_step(b, 2, NULL));
	rename(of_step(&other, 2, NULL), of_step(b, 2, NULL));
	assert_skips(b, words);
	free(other.memory);
	lora_free(other.lora);
}

START_TEST(a_state_with_other_tensors_is_refused)
{
	struct bench b = bench_open("set");

	write_step(&b, 1);
	forge_state(&b, "set-few", "c_attn", "has 18 tensors instead of 72");
	forge_state(&b, "set-shape", "all",
		    "is missing in state.safetensors or has another shape");
	bench_close(&b);
}
END_TEST

/* -- identity and circumstance ------------------------------------------------------------- */

START_TEST(another_identity_is_refused)
{
	const char *other[] = {"seed", "8", "model_digest", "abc", "batch", "16", NULL};
	const char *more[] = {"seed", "7", "model_digest", "abc", "batch", "32", "new",
			      "x",    NULL};
	const char *fewer[] = {"seed", "7", "model_digest", "abc", NULL};
	struct bench b = bench_open("identity");

	write_step(&b, 1);
	write_step(&b, 2);
	const char **const lists[] = {other, more, fewer};
	const char *const words[] = {"\"batch\" was 32 there and is 16 now",
				     "\"new\" was (nothing) there and is x now",
				     "\"batch\" was 32 there and is (nothing) now"};
	for (int i = 0; i < 3; i++) {
		b.now.identity = lists[i];
		listen();
		error_clear();
		ck_assert_int_eq(load(&b), -1);
		ck_assert_int_eq(error_code(), EXIT_CONFIG);
		ck_assert_float_eq(b.memory[0], 0);
		assert_heard(words[i]);
	}
	bench_close(&b);
}
END_TEST

START_TEST(another_circumstance_is_a_warning)
{
	const char *other[] = {"isa", "avx512", "learning_rate", "0.0002", NULL};
	struct bench b = bench_open("circumstance");

	write_step(&b, 2);
	b.now.circumstance = other;
	listen();
	error_clear();
	assert_loads(&b, 2);
	ck_assert_int_eq(error_code(), 0);
	assert_heard("\"isa\" was avx2 there and is avx512 now");
	bench_close(&b);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("checkpoint");
	TCase *t = tcase_create("checkpoint");

	tcase_add_unchecked_fixture(t, scratch_open, scratch_close);
	tcase_set_timeout(t, 30);
	tcase_add_test(t, a_checkpoint_comes_back);
	tcase_add_test(t, tensors_are_keyed_by_global_names);
	tcase_add_test(t, without_checkpoints_there_is_nothing_to_load);
	tcase_add_test(t, the_same_step_can_be_written_again);
	tcase_add_test(t, the_same_state_gives_the_same_bytes);
	tcase_add_test(t, leftovers_are_removed_and_other_names_ignored);
	tcase_add_test(t, a_checkpoint_that_cannot_be_written_is_an_error);
	tcase_add_test(t, a_flipped_bit_is_noticed);
	tcase_add_test(t, every_byte_of_the_manifest_counts);
	tcase_add_test(t, a_truncated_file_is_noticed);
	tcase_add_test(t, a_longer_or_deleted_file_is_noticed);
	tcase_add_test(t, links_are_not_followed);
	tcase_add_test(t, a_checkpoint_under_another_name_is_refused);
	tcase_add_test(t, files_of_two_steps_do_not_mix);
	tcase_add_test(t, none_of_several_is_an_error);
	tcase_add_loop_test(t, a_forged_manifest_is_refused, 0, COUNT(forged));
	tcase_add_test(t, a_state_with_other_tensors_is_refused);
	tcase_add_test(t, another_identity_is_refused);
	tcase_add_test(t, another_circumstance_is_a_warning);
	suite_add_tcase(s, t);
	return run_suite(s);
}
