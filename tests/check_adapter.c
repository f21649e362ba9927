/*
 * tests/check_adapter.c - adapters that others made: ranks and alphas of single modules, blocks
 * of layers_to_transform, older spellings and types of tensors, hostile files; and back.
 *
 * links: base tensor model
 */
#include "tests/model_files.h"

#include <math.h>

#define ALL "[\"c_attn\",\"c_proj\",\"c_fc\"]"

/* Inputs and outputs of GPT2_TINY's linears. */
static void sizes(const char *module, long long *in, long long *out)
{
	*in = strstr(module, "mlp.c_proj") ? 32 : 8;
	*out = strstr(module, "c_attn") ? 24 : strstr(module, "c_fc") ? 32 : 8;
}

/* A module of an adapter: "0.attn.c_attn" with its rank. */
struct module {
	const char *name;
	int rank;
	float scale;
};
#define MODULES 12

static int count_of(const struct module *module)
{
	int count = 0;

	while (count < MODULES && module[count].name)
		count++;
	return count;
}

/* adapter_model.safetensors of these modules; number i of the file is i / 8, which every type holds. */
static void put_tensors(const struct module *module, const char *spelling, enum dtype dtype)
{
	struct safetensors_entry entry[2 * MODULES];
	int count = 2 * count_of(module), at_number = 0;

	for (int i = 0; i < count; i++) {
		const struct module *m = &module[i / 2];
		long long in, out;

		sizes(m->name, &in, &out);
		size_t numbers = (size_t)(i % 2 ? out : in) * (size_t)m->rank;
		unsigned char *data = arena_take(&paths, numbers * 4);
		for (size_t k = 0; k < numbers; k++) {
			float x = (float)(at_number++ % 64) / 8;
			uint32_t bits;
			uint16_t half;

			memcpy(&bits, &x, sizeof bits);
			half = dtype == DTYPE_BF16 ? (uint16_t)(bits >> 16)
			       : x == 0 ? 0 : (uint16_t)((bits >> 13) - (112 << 10));
			if (dtype == DTYPE_F32)
				memcpy(data + 4 * k, &x, sizeof x);
			else
				memcpy(data + 2 * k, &half, sizeof half);
		}
		entry[i] = (struct safetensors_entry){
		    .name = arena_format(&paths, spelling, m->name, i % 2 ? 'B' : 'A'),
		    .dtype = dtype,
		    .dims = 2,
		    .shape = {i % 2 ? out : m->rank, i % 2 ? m->rank : in},
		    .data = data,
		};
	}
	ck_assert_int_eq(safetensors_write(at("a/adapter_model.safetensors"), entry, count, NULL),
			 0);
}

#define PLAIN "base_model.model.transformer.h.%s.lora_%c.weight"

static void put_adapter(const char *text, const struct module *module)
{
	folder_make(at("a"));
	put_text(at("a/adapter_config.json"), text);
	put_tensors(module, PLAIN, DTYPE_F32);
}

static struct model_config *tiny(void)
{
	struct model_config *config = model_config_read(model_folder("m", GPT2_TINY));

	ck_assert_ptr_nonnull(config);
	return config;
}

static struct lora *resolve(const struct model_config *config, const char *folder)
{
	const struct lora_config want = {.init = folder};

	return lora_resolve(config, &want);
}

/* -- what single modules have -------------------------------------------------------------- */

/* Each as peft 0.21.2 resolves it (get_pattern_key, check_target_module_exists). */
static const struct {
	const char *text;
	struct module module[MODULES];
} said[] = {
	/* the first key that matches counts */
	{"{\"r\":2,\"lora_alpha\":4,\"target_modules\":" ALL ",\"layers_to_transform\":1,"
	 "\"rank_pattern\":{\"attn.c_proj\":4,\"c_proj\":8},\"alpha_pattern\":{\"c_proj\":16}}",
	 {{"1.attn.c_attn", 2, 2}, {"1.attn.c_proj", 4, 4}, {"1.mlp.c_fc", 2, 2},
	  {"1.mlp.c_proj", 8, 2}}},
	/* a key is an end of the path that begins behind a point; its points are any character */
	{"{\"r\":2,\"lora_alpha\":4,\"target_modules\":[\"c_attn\"],"
	 "\"rank_pattern\":{\"_attn\":9,\"ttn.c_attn\":9,\"h.1.attn.c_attn\":3,"
	 "\"transformer.h.2.attn.c_att\":9}}",
	 {{"0.attn.c_attn", 2, 2}, {"1.attn.c_attn", 3, 4 / 3.f}, {"2.attn.c_attn", 2, 2}}},
	/* regular expressions; alternatives are inside of PEFT's own brackets */
	{"{\"r\":2,\"lora_alpha\":4,\"target_modules\":[\"c_attn\",\"c_fc\"],"
	 "\"layers_to_transform\":[0,2],\"rank_pattern\":"
	 "{\"h\\\\.[0-1]\\\\..*c_fc|nothing\":1,\"^transformer\\\\.h\\\\.2.*\":5}}",
	 {{"0.attn.c_attn", 2, 2}, {"0.mlp.c_fc", 1, 4}, {"2.attn.c_attn", 5, .8f},
	  {"2.mlp.c_fc", 5, .8f}}},
	/* rsLoRA: alpha over the root of the module's own rank */
	{"{\"r\":4,\"lora_alpha\":8,\"use_rslora\":true,\"target_modules\":[\"c_fc\"],"
	 "\"rank_pattern\":{\"0.mlp.c_fc\":16},\"alpha_pattern\":{\"2.mlp.c_fc\":1.5}}",
	 {{"0.mlp.c_fc", 16, 2}, {"1.mlp.c_fc", 4, 4}, {"2.mlp.c_fc", 4, .75f}}},
	/* whole paths stand above layers_to_transform, an empty list of which means all */
	{"{\"r\":2,\"lora_alpha\":2,\"target_modules\":[\"c_fc\",\"transformer.h.0.attn.c_proj\"],"
	 "\"layers_to_transform\":[2]}",
	 {{"0.attn.c_proj", 2, 1}, {"2.mlp.c_fc", 2, 1}}},
	{"{\"r\":2,\"lora_alpha\":2,\"target_modules\":[\"attn.c_proj\"],\"layers_to_transform\":[]}",
	 {{"0.attn.c_proj", 2, 1}, {"1.attn.c_proj", 2, 1}, {"2.attn.c_proj", 2, 1}}},
	/* layers_pattern: what stands before the number, of which the first that matches counts */
	{"{\"r\":2,\"lora_alpha\":2,\"target_modules\":[\"c_fc\"],\"layers_to_transform\":[1,7],"
	 "\"layers_pattern\":\"h\"}",
	 {{"1.mlp.c_fc", 2, 1}}},
	{"{\"r\":2,\"lora_alpha\":2,\"target_modules\":[\"c_fc\"],\"layers_to_transform\":[1],"
	 "\"layers_pattern\":[\"layers\",\"[gh]\"]}",
	 {{"1.mlp.c_fc", 2, 1}}},
};

static void assert_modules(const struct lora *lora, const struct module *module)
{
	ck_assert_int_eq(lora->count, 2 * count_of(module));
	for (int i = 0; i < lora->count; i++) {
		const struct module *m = &module[i / 2];
		const struct lora_tensor *t = &lora->tensor[i];

		ck_assert_str_eq(t->name, arena_format(&paths, PLAIN, m->name, i % 2 ? 'B' : 'A'));
		ck_assert_msg(t->rank == m->rank && (i % 2 ? t->cols : t->rows) == m->rank, "%s: %d",
			      t->name, t->rank);
		ck_assert_float_eq(t->scale, m->scale);
	}
}

START_TEST(modules_have_what_peft_gives_them)
{
	struct model_config *config = tiny();

	put_adapter(said[_i].text, said[_i].module);
	struct lora *lora = resolve(config, at("a"));
	ck_assert_ptr_nonnull(lora);
	assert_modules(lora, said[_i].module);
	/* written and read again it means the same, number by number */
	float *values = xzalloc(2 * lora->elements, sizeof *values);
	ck_assert_int_eq(lora_values(lora, 0, lora->count, 0, values), 0);
	ck_assert_int_eq(adapter_write(at("b"), lora, config, values, NULL), 0);
	struct lora *again = resolve(config, at("b"));
	ck_assert_ptr_nonnull(again);
	assert_modules(again, said[_i].module);
	ck_assert_str_eq(lora_patterns(again, &paths), lora_patterns(lora, &paths));
	ck_assert_int_eq(lora_values(again, 0, again->count, 0, values + lora->elements), 0);
	ck_assert_mem_eq(values, values + lora->elements, lora->elements * sizeof *values);
	lora_free(again);
	lora_free(lora);
	free(values);
	model_config_free(config);
}
END_TEST

/* What is said of a whole row of modules takes one key, of single ones their paths. */
START_TEST(patterns_are_written_short)
{
	struct model_config *config = tiny();

	put_adapter(said[0].text, said[0].module);
	struct lora *lora = resolve(config, at("a"));
	ck_assert_str_eq(lora_patterns(lora, &paths),
			 "rank attn.c_proj=4 rank mlp.c_proj=8 alpha attn.c_proj=16 alpha mlp.c_proj=16");
	lora_free(lora);
	put_adapter(said[3].text, said[3].module);
	lora = resolve(config, at("a"));
	ck_assert_str_eq(lora_patterns(lora, &paths),
			 "rank transformer.h.0.mlp.c_fc=16 alpha transformer.h.2.mlp.c_fc=1.5");
	lora_free(lora);
	model_config_free(config);
}
END_TEST

/* -- tensors ------------------------------------------------------------------------------- */

static const struct module c_attn[MODULES] = {
	{"0.attn.c_attn", 2, 2}, {"1.attn.c_attn", 2, 2}, {"2.attn.c_attn", 2, 2}};
#define C_ATTN(more) "{\"r\":2,\"lora_alpha\":4,\"target_modules\":[\"c_attn\"]" more "}"

static const struct {
	const char *spelling;
	enum dtype dtype;
} spelled[] = {
	{PLAIN, DTYPE_F16},
	{PLAIN, DTYPE_BF16},
	{"base_model.model.transformer.h.%s.lora_%c.default.weight", DTYPE_F32},
	{"transformer.h.%s.lora_%c.weight", DTYPE_F32},
	{"transformer.h.%s.lora_%c.default.weight", DTYPE_BF16},
};

START_TEST(tensors_of_other_spellings_and_types_are_read)
{
	struct model_config *config = tiny();

	put_adapter(C_ATTN(""), c_attn);
	put_tensors(c_attn, spelled[_i].spelling, spelled[_i].dtype);
	struct lora *lora = resolve(config, at("a"));
	ck_assert_ptr_nonnull(lora);
	float *values = xzalloc(lora->elements, sizeof *values);
	ck_assert_int_eq(lora_values(lora, 0, lora->count, 0, values), 0);
	for (size_t i = 0; i < lora->elements; i++)
		ck_assert_float_eq(values[i], (float)(i % 64) / 8);
	free(values);
	lora_free(lora);
	model_config_free(config);
}
END_TEST

START_TEST(a_number_that_is_none_is_refused)
{
	struct model_config *config = tiny();
	size_t bytes;

	put_adapter(C_ATTN(""), c_attn);
	char *file = file_read(at("a/adapter_model.safetensors"), &bytes);
	memcpy(file + bytes - 4, (const float[]){NAN}, 4);
	put(at("a/adapter_model.safetensors"), file, bytes);
	struct lora *lora = resolve(config, at("a"));
	ck_assert_ptr_nonnull(lora);
	float *values = xzalloc(lora->elements, sizeof *values);
	error_hold();
	ck_assert_int_eq(lora_values(lora, 0, lora->count, 0, values), -1);
	assert_said(EXIT_DATA, "number 47 of tensor");
	free(values);
	free(file);
	lora_free(lora);
	model_config_free(config);
}
END_TEST

/* -- what is refused ----------------------------------------------------------------------- */

static const struct {
	const char *text;
	int code;
	const char *words;
} refused[] = {
	{C_ATTN(",\"rank_pattern\":[1]"), EXIT_DATA, "\"rank_pattern\" is not a map"},
	{C_ATTN(",\"rank_pattern\":{\"c_attn\":0}"), EXIT_DATA, "gives \"c_attn\""},
	{C_ATTN(",\"rank_pattern\":{\"c_attn\":2.5}"), EXIT_DATA, "gives \"c_attn\""},
	{C_ATTN(",\"rank_pattern\":{\"c_attn\":1000000}"), EXIT_DATA, "from 1 to 65536"},
	{C_ATTN(",\"rank_pattern\":{\"c_attn\":\"2\"}"), EXIT_DATA, "gives \"c_attn\""},
	{C_ATTN(",\"rank_pattern\":{\"c_attn\":60000}"), EXIT_DATA, "ask for (60000, 8)"},
	{C_ATTN(",\"alpha_pattern\":{\"c_attn\":1e300}"), EXIT_DATA, "gives \"c_attn\""},
	{C_ATTN(",\"alpha_pattern\":{\"c_attn\":1e400}"), EXIT_DATA, "adapter_config.json:1:"},
	{C_ATTN(",\"alpha_pattern\":{\"c_attn\":1,\"c_attn\":2}"), EXIT_DATA, "duplicate"},
	{C_ATTN(",\"alpha_pattern\":{\"c_attn\":true}"), EXIT_DATA, "gives \"c_attn\""},
	{C_ATTN(",\"rank_pattern\":{\"(c_attn\":4}"), EXIT_DATA, "in rank_pattern cannot be used"},
	{C_ATTN(",\"alpha_pattern\":{\"(([a-z.0-9_]+)+)+[!?]\":4}"), EXIT_DATA,
	 "in alpha_pattern cannot be used"},
	{C_ATTN(",\"layers_to_transform\":\"0\""), EXIT_DATA, "\"layers_to_transform\" is neither"},
	{C_ATTN(",\"layers_to_transform\":[0,1.5]"), EXIT_DATA, "\"layers_to_transform\" is neither"},
	{C_ATTN(",\"layers_to_transform\":true"), EXIT_DATA, "\"layers_to_transform\" is neither"},
	{C_ATTN(",\"layers_to_transform\":[3,-1]"), EXIT_CONFIG, "names no block"},
	{C_ATTN(",\"layers_to_transform\":[1]"), EXIT_DATA, "belongs to none"},
	{C_ATTN(",\"layers_pattern\":\"h\""), EXIT_DATA, "without layers_to_transform"},
	{C_ATTN(",\"layers_to_transform\":[0],\"layers_pattern\":[1]"), EXIT_DATA,
	 "\"layers_pattern\" holds"},
	{C_ATTN(",\"layers_to_transform\":[0],\"layers_pattern\":\"((a|b|.)*)*!\""), EXIT_DATA,
	 "in layers_pattern cannot be used"},
	{"{\"r\":2,\"target_modules\":\".*c_attn\",\"layers_to_transform\":[0]}", EXIT_DATA,
	 "regular expression"},
	{C_ATTN(",\"corda_config\":{\"x\":1}"), EXIT_CONFIG, "\"corda_config\""},
	{C_ATTN(",\"eva_config\":{\"rho\":2}"), EXIT_CONFIG, "\"eva_config\""},
	{C_ATTN(",\"loftq_config\":{\"loftq_bits\":4}"), EXIT_CONFIG, "\"loftq_config\""},
	{C_ATTN(",\"init_lora_weights\":\"eva\""), EXIT_CONFIG, "\"eva\" is not built"},
	{C_ATTN(",\"base_model_name_or_path\":7"), EXIT_DATA, "\"base_model_name_or_path\" is not"},
};

START_TEST(nonsense_is_refused)
{
	struct model_config *config = tiny();

	put_adapter(refused[_i].text, c_attn);
	double start = computed_s();
	error_hold();
	ck_assert_msg(resolve(config, at("a")) == NULL, "%s", refused[_i].text);
	assert_said(refused[_i].code, refused[_i].words);
	ck_assert_computed_lt(start, 1);
	model_config_free(config);
}
END_TEST

/* A piece of JSON many times, '#' being the number of the time. */
static char *repeated(const char *piece, int times)
{
	struct text all = {0};

	for (int i = 0; i < times; i++)
		for (const char *p = piece; *p; p++)
			if (*p == '#')
				text_add(&all, "%d", i);
			else
				text_put(&all, p, 1);
	char *copy = arena_copy(&paths, all.data, all.bytes);
	text_release(&all);
	return copy;
}

START_TEST(bombs_are_refused_quickly)
{
	struct model_config *config = tiny();
	const struct {
		const char *text, *words;
	} bombs[] = {
		{repeated("[", 500000), "adapter_config.json:1:"},
		{arena_format(&paths, "{\"r\":2,\"target_modules\":[\"c_attn\"],\"rank_pattern\":{%s\"x\":1}}",
			      repeated("\"#.*\":1,", 1000)),
		 "more than 64 regular expressions"},
		{arena_format(&paths, "{\"r\":2,\"target_modules\":[%s\"x\"]}",
			      repeated("\"c#\",", 5000)),
		 "too many names"},
		{repeated("          ", 110000), "larger than"},
		{arena_format(&paths, "{\"r\":2,\"target_modules\":\"%s\"}",
			      repeated("(a{999}){999}", 2000)),
		 "cannot be used"},
	};

	for (int i = 0; i < COUNT(bombs); i++) {
		put_adapter(bombs[i].text, c_attn);
		double start = computed_s();
		error_hold();
		ck_assert_msg(resolve(config, at("a")) == NULL, "bomb %d", i);
		ck_assert_msg(strstr(error_text(), bombs[i].words), "%s: %.300s", bombs[i].words,
			      error_text());
		error_clear();
		ck_assert_computed_lt(start, 1);
	}
	model_config_free(config);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("adapter");
	TCase *t = tcase_create("adapter");

	tcase_add_unchecked_fixture(t, scratch_open, scratch_close);
	tcase_add_loop_test(t, modules_have_what_peft_gives_them, 0, COUNT(said));
	tcase_add_test(t, patterns_are_written_short);
	tcase_add_loop_test(t, tensors_of_other_spellings_and_types_are_read, 0, COUNT(spelled));
	tcase_add_test(t, a_number_that_is_none_is_refused);
	tcase_add_loop_test(t, nonsense_is_refused, 0, COUNT(refused));
	tcase_add_test(t, bombs_are_refused_quickly);
	suite_add_tcase(s, t);
	return run_suite(s);
}
