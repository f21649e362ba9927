/*
 * tests/check_lora.c - which tensors LoRA has, in what order, what they start from, and PEFT's
 * adapter directories in both directions.
 *
 * links: base tensor model
 */
#include "tests/model_files.h"

#include <math.h>

static struct model_config *config_of(const char *text)
{
	struct model_config *config = model_config_read(model_folder("m", text));

	ck_assert_ptr_nonnull(config);
	return config;
}

/* Up to four target words. */
struct words {
	const char *word[4];
};

static struct lora_config want(const struct words *words)
{
	struct lora_config want = {.rank = 2, .alpha = 4};

	want.targets.item = arena_take(&paths, sizeof(struct words));
	for (int i = 0; i < 4 && words->word[i]; i++)
		want.targets.item[want.targets.count++] = words->word[i];
	return want;
}

static struct lora *resolve(const struct model_config *config, struct words words)
{
	struct lora_config asked = want(&words);

	return lora_resolve(config, &asked);
}

/* -- targets and layout -------------------------------------------------------------------- */

#define H0 "base_model.model.transformer.h.0."
#define L0 "base_model.model.model.layers.0."

START_TEST(gpt2_tensors_have_pefts_names_and_shapes)
{
	static const struct {
		const char *name;
		int rows, cols;
		enum slot slot;
	} expected[] = {
	    {H0 "attn.c_attn.lora_A.weight", 2, 8, SLOT_QKV},
	    {H0 "attn.c_attn.lora_B.weight", 24, 2, SLOT_QKV},
	    {H0 "attn.c_proj.lora_A.weight", 2, 8, SLOT_OUT},
	    {H0 "attn.c_proj.lora_B.weight", 8, 2, SLOT_OUT},
	    {H0 "mlp.c_fc.lora_A.weight", 2, 8, SLOT_UP},
	    {H0 "mlp.c_fc.lora_B.weight", 32, 2, SLOT_UP},
	    {H0 "mlp.c_proj.lora_A.weight", 2, 32, SLOT_DOWN},
	    {H0 "mlp.c_proj.lora_B.weight", 8, 2, SLOT_DOWN},
	};
	struct model_config *config = config_of(GPT2_TINY);
	struct lora *lora = resolve(config, (struct words){{"all"}});
	size_t offset = 0;

	ck_assert_ptr_nonnull(lora);
	ck_assert_int_eq(lora->count, 3 * 8);
	ck_assert(lora->fan_in_fan_out && lora->tensor[0].scale == 2);
	for (int i = 0; i < lora->count; i++) {
		const struct lora_tensor *tensor = &lora->tensor[i];

		ck_assert_int_eq(tensor->block, i / 8);
		ck_assert_int_eq(tensor->is_b, i % 2);
		ck_assert(tensor->rows == expected[i % 8].rows &&
			  tensor->cols == expected[i % 8].cols);
		ck_assert_int_eq(tensor->slot, expected[i % 8].slot);
		ck_assert_uint_eq(tensor->offset, offset);
		if (i < 8)
			ck_assert_str_eq(tensor->name, expected[i].name);
		offset += (size_t)tensor->rows * (size_t)tensor->cols;
	}
	ck_assert_uint_eq(lora->elements, offset);
	lora_free(lora);
	model_config_free(config);
}
END_TEST

START_TEST(llama_attention_is_q_and_v)
{
	struct model_config *config = config_of(LLAMA_TINY);
	struct lora *lora = resolve(config, (struct words){{"attention"}});

	ck_assert_ptr_nonnull(lora);
	ck_assert_int_eq(lora->count, 3 * 4);
	ck_assert(!lora->fan_in_fan_out);
	ck_assert_str_eq(lora->tensor[0].name, L0 "self_attn.q_proj.lora_A.weight");
	ck_assert_str_eq(lora->tensor[3].name, L0 "self_attn.v_proj.lora_B.weight");
	ck_assert(lora->tensor[3].rows == 4 && lora->tensor[3].cols == 2); /* two KV heads */
	lora_free(lora);
	lora = resolve(config, (struct words){{"all"}});
	ck_assert_int_eq(lora->count, 3 * 14);
	lora_free(lora);
	model_config_free(config);
}
END_TEST

/* Words of a job, how many linears they mean, and what is written as target_modules. */
static const struct {
	const char *config;
	struct words words;
	int linears;
	const char *names;
} targets[] = {
	{GPT2_TINY, {{"attention"}}, 3, "c_attn"},
	{GPT2_TINY, {{"all"}}, 12, "c_attn c_proj c_fc"},
	{GPT2_TINY, {{"c_proj"}}, 6, "c_proj"},
	{GPT2_TINY, {{"attn.c_proj"}}, 3, "attn.c_proj"},
	{GPT2_TINY, {{"mlp.c_proj", "attn.c_proj"}}, 6, "c_proj"},
	{GPT2_TINY, {{"c_fc", "c_attn"}}, 6, "c_attn c_fc"},
	{GPT2_TINY, {{"attention", "mlp.c_proj", "c_attn"}}, 6, "c_attn mlp.c_proj"},
	{GPT2_TINY, {{"h.1.attn.c_attn"}}, 1, "transformer.h.1.attn.c_attn"},
	{GPT2_TINY,
     {{"transformer.h.0.mlp.c_proj", "2.mlp.c_proj"}},
	 2,
	 "transformer.h.0.mlp.c_proj transformer.h.2.mlp.c_proj"},
	{LLAMA_TINY, {{"attention"}}, 6, "q_proj v_proj"},
	{LLAMA_TINY, {{"all"}}, 21, "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"},
	{LLAMA_TINY, {{"self_attn.o_proj"}}, 3, "o_proj"},
};

START_TEST(targets_mean_what_peft_means)
{
	struct model_config *config = config_of(targets[_i].config);
	struct lora *lora = resolve(config, targets[_i].words);
	struct text names = {0};

	ck_assert_ptr_nonnull(lora);
	ck_assert_int_eq(lora->count, 2 * targets[_i].linears);
	for (int i = 0; i < lora->modules; i++)
		text_add(&names, "%s%s", i ? " " : "", lora->module[i]);
	ck_assert_str_eq(names.data, targets[_i].names);
	text_release(&names);
	lora_free(lora);
	model_config_free(config);
}
END_TEST

static const struct {
	const char *config;
	struct words words;
	const char *said;
} bad_targets[] = {
	{GPT2_TINY, {{NULL}}, "no target is given"},
	{GPT2_TINY, {{"lm_head"}}, "\"lm_head\" is the head"},
	{GPT2_TINY, {{"wte"}}, "\"wte\" is an embedding"},
	{GPT2_TINY, {{"transformer.wpe"}}, "is an embedding"},
	{GPT2_TINY, {{"ln_1"}}, "\"ln_1\" is a norm"},
	{GPT2_TINY, {{"c_attn", "q_proj"}}, "\"q_proj\" matches no linear"},
	{GPT2_TINY, {{"c_attnn"}}, "did you mean \"c_attn\"?"},
	{GPT2_TINY, {{"atention"}}, "did you mean \"attention\"?"},
	{GPT2_TINY, {{"attn"}}, "matches no linear"},
	{GPT2_TINY, {{"_attn"}}, "matches no linear"}, /* only whole parts match */
	{GPT2_TINY, {{""}}, "matches no linear"},
	{GPT2_TINY, {{"h.3.attn.c_attn"}}, "matches no linear"}, /* blocks 0 to 2 */
	{LLAMA_TINY, {{"embed_tokens"}}, "is an embedding"},
	{LLAMA_TINY, {{"q_projj"}}, "did you mean \"q_proj\"?"},
	{LLAMA_TINY, {{"mlp.gate_pro"}}, "did you mean \"mlp.gate_proj\"?"},
};

START_TEST(targets_that_match_nothing_are_refused)
{
	struct model_config *config = config_of(bad_targets[_i].config);

	error_hold();
	ck_assert_ptr_null(resolve(config, bad_targets[_i].words));
	assert_said(EXIT_CONFIG, bad_targets[_i].said);
	model_config_free(config);
}
END_TEST

START_TEST(numbers_out_of_range_are_refused)
{
	struct model_config *config = config_of(GPT2_TINY);
	struct lora_config asked = want(&(struct words){{"all"}});
	const struct {
		long long rank;
		double alpha, dropout;
		const char *said;
	} bad[] = {
	    {0, 1, 0, "lora.rank is 0"},    {-4, 1, 0, "lora.rank is -4"},
	    {1 << 20, 1, 0, "lora.rank"},   {2, NAN, 0, "lora.alpha"},
	    {2, 1, 1, "lora.dropout is 1"}, {2, 1, -0.5, "lora.dropout is -0.5"},
	    {2, 1, NAN, "lora.dropout"},
	};

	for (int i = 0; i < COUNT(bad); i++) {
		asked.rank = bad[i].rank;
		asked.alpha = bad[i].alpha;
		asked.dropout = bad[i].dropout;
		error_hold();
		ck_assert_ptr_null(lora_resolve(config, &asked));
		assert_said(EXIT_CONFIG, bad[i].said);
	}
	model_config_free(config);
}
END_TEST

START_TEST(rslora_divides_by_the_root_of_the_rank)
{
	struct model_config *config = config_of(GPT2_TINY);
	struct lora_config asked = want(&(struct words){{"all"}});

	asked.rslora = true;
	asked.rank = 4;
	asked.alpha = 6;
	struct lora *lora = lora_resolve(config, &asked);
	ck_assert_float_eq(lora->tensor[0].scale, 3);
	lora_free(lora);
	model_config_free(config);
}
END_TEST

START_TEST(ranges_of_blocks_are_contiguous)
{
	struct model_config *config = config_of(GPT2_TINY);
	struct lora *lora =
	    resolve(config, (struct words){{"h.0.attn.c_attn", "2.attn.c_attn"}});
	const int expected[][4] = {
	    /* first block, blocks, from, to */
	    {0, 3, 0, 4}, {0, 1, 0, 2}, {1, 1, 2, 2}, {1, 2, 2, 4},
	    {2, 1, 2, 4}, {0, 0, 0, 0}, {3, 0, 4, 4},
	};
	int from, to;

	ck_assert_ptr_nonnull(lora);
	for (int i = 0; i < COUNT(expected); i++) {
		lora_range(lora, expected[i][0], expected[i][1], &from, &to);
		ck_assert_msg(from == expected[i][2] && to == expected[i][3], "row %d", i);
	}
	lora_free(lora);
	model_config_free(config);
}
END_TEST

/* -- values -------------------------------------------------------------------------------- */

START_TEST(a_is_uniform_and_b_is_zero)
{
	struct model_config *config = config_of("{\"model_type\":\"gpt2\",\"n_embd\":64,\"n_"
						"head\":2,\"n_layer\":2,\"vocab_size\":11}");
	struct lora_config asked = want(&(struct words){{"all"}});

	asked.rank = 32;
	struct lora *lora = lora_resolve(config, &asked);
	float *values = xzalloc(lora->elements, sizeof *values);
	ck_assert_int_eq(lora_values(lora, 0, lora->count, 7, values), 0);
	for (int i = 0; i < lora->count; i++) {
		const struct lora_tensor *tensor = &lora->tensor[i];
		size_t count = (size_t)tensor->rows * (size_t)tensor->cols;
		double bound = 1 / sqrt(tensor->cols), sum = 0, squares = 0;

		for (size_t j = 0; j < count; j++) {
			double value = values[tensor->offset + j];

			ck_assert(tensor->is_b ? value == 0 : value >= -bound && value < bound);
			sum += value / bound;
			squares += value * value / bound / bound;
		}
		if (tensor->is_b)
			continue;
		ck_assert_double_lt(fabs(sum / (double)count), 5 / sqrt(3.0 * (double)count));
		ck_assert_double_lt(fabs(squares / (double)count - 1.0 / 3), 0.03);
	}
	free(values);
	lora_free(lora);
	model_config_free(config);
}
END_TEST

START_TEST(values_depend_on_seed_and_name_alone)
{
	struct model_config *config = config_of(GPT2_TINY);
	struct lora *all = resolve(config, (struct words){{"all"}});
	struct lora *some = resolve(config, (struct words){{"mlp.c_proj"}});
	float *a = xzalloc(3 * all->elements, sizeof *a), *b = a + all->elements;
	float *c = b + all->elements;
	int from, to;

	lora_values(all, 0, all->count, 7, a);
	lora_values(all, 0, all->count, 8, b);
	ck_assert_mem_ne(a, b, 64 * sizeof *a);
	ck_assert_mem_ne(a, a + all->tensor[2].offset, 16 * sizeof *a);
	/* a stage's part alone */
	lora_range(all, 1, 1, &from, &to);
	size_t start = all->tensor[from].offset, end = all->tensor[to].offset;
	lora_values(all, from, to, 7, b);
	ck_assert_mem_eq(b, a + start, (end - start) * sizeof *a);
	/* other targets beside it change nothing */
	lora_values(some, 0, some->count, 7, c);
	ck_assert_str_eq(some->tensor[0].name, all->tensor[6].name);
	ck_assert_mem_eq(c, a + all->tensor[6].offset, 64 * sizeof *a);
	free(a);
	lora_free(all);
	lora_free(some);
	model_config_free(config);
}
END_TEST

/* -- writing an adapter -------------------------------------------------------------------- */

static struct lora *write_adapter(const struct model_config *config, struct lora_config asked,
				  const char *folder, float **values)
{
	struct lora *lora = lora_resolve(config, &asked);

	ck_assert_ptr_nonnull(lora);
	*values = xzalloc(lora->elements, sizeof **values);
	for (size_t i = 0; i < lora->elements; i++)
		(*values)[i] = (float)i / 3;
	ck_assert_int_eq(adapter_write(folder, lora, config, *values, NULL), 0);
	return lora;
}

START_TEST(an_adapter_is_written_as_peft_reads_it)
{
	struct model_config *config = config_of(GPT2_TINY);
	float *values;
	struct lora_config asked = want(&(struct words){{"attn.c_proj", "c_attn"}});
	char expected[1024];

	asked.dropout = 0.1;
	asked.alpha = 16;
	asked.rslora = true;
	struct lora *lora = write_adapter(config, asked, at("out"), &values);
	snprintf(
	    expected, sizeof expected,
	    "{\n  \"alpha_pattern\": {},\n  \"base_model_name_or_path\": \"%s/m\",\n"
	    "  \"bias\": \"none\",\n  \"fan_in_fan_out\": true,\n  \"inference_mode\": true,\n"
	    "  \"lora_alpha\": 16,\n  \"lora_dropout\": 0.1,\n  \"modules_to_save\": null,\n"
	    "  \"peft_type\": \"LORA\",\n  \"r\": 2,\n  \"rank_pattern\": {},\n"
	    "  \"target_modules\": [\n    \"c_attn\",\n    \"attn.c_proj\"\n  ],\n"
	    "  \"task_type\": \"CAUSAL_LM\",\n  \"use_dora\": false,\n  \"use_rslora\": "
	    "true\n}\n",
	    scratch);
	char *text = read_text(at("out/adapter_config.json"));
	ck_assert_str_eq(text, expected);
	struct safetensors *file = safetensors_open(at("out/adapter_model.safetensors"));
	ck_assert_int_eq(file->count, lora->count);
	const struct safetensor *last =
	    safetensors_find(file, lora->tensor[lora->count - 1].name);
	ck_assert_mem_eq(last->data, values + lora->tensor[lora->count - 1].offset,
			 last->bytes);
	ck_assert(last->shape[0] == 8 && last->shape[1] == 2);
	safetensors_close(file);
	free(text);
	free(values);
	lora_free(lora);
	model_config_free(config);
}
END_TEST

static const struct {
	double value;
	const char *alpha;
} numbers[] = {
	{16, "16"}, {0.5, "0.5"}, {1e-3, "0.001"}, {1.0 / 3, "0.3333333333333333"},
	{-8, "-8"}, {100, "100"}, {1e20, "1e+20"}, {0, "0"},
};

START_TEST(numbers_are_written_shortest)
{
	struct model_config *config = config_of(GPT2_TINY);
	struct lora_config asked = want(&(struct words){{"c_attn"}});
	float *values;
	char expected[64];

	asked.alpha = numbers[_i].value;
	struct lora *lora = write_adapter(config, asked, at("out"), &values);
	char *text = read_text(at("out/adapter_config.json"));
	snprintf(expected, sizeof expected, "\"lora_alpha\": %s,\n  \"lora_dropout\": 0.0,",
		 numbers[_i].alpha);
	ck_assert_msg(strstr(text, expected) != NULL, "%s is not in %s", expected, text);
	free(text);
	free(values);
	lora_free(lora);
	model_config_free(config);
}
END_TEST

START_TEST(an_older_adapter_is_replaced_whole)
{
	struct model_config *config = config_of(GPT2_TINY);
	float *values;

	folder_make(at("old"));
	put_text(at("old/README.md"), "of an older adapter");
	folder_make(at("old.tmp"));
	put_text(at("old.tmp/half"), "of an attempt that died");
	struct lora *lora =
	    write_adapter(config, want(&(struct words){{"all"}}), at("old"), &values);
	ck_assert(!path_exists(at("old/README.md")) && !path_exists(at("old/half")));
	ck_assert(!path_exists(at("old.tmp")));
	struct digest first, second;
	ck_assert_int_eq(digest_file(at("old/adapter_model.safetensors"), &first), 0);
	ck_assert_int_eq(adapter_write(at("old"), lora, config, values, NULL), 0);
	ck_assert_int_eq(digest_file(at("old/adapter_model.safetensors"), &second), 0);
	ck_assert(digest_equal(first, second));
	free(values);
	lora_free(lora);
	model_config_free(config);
}
END_TEST

START_TEST(a_folder_that_cannot_be_made_is_a_create_error)
{
	struct model_config *config = config_of(GPT2_TINY);
	struct lora *lora = resolve(config, (struct words){{"c_attn"}});
	float *values = xzalloc(lora->elements, sizeof *values);

	put_text(at("plain"), "a file");
	error_hold();
	ck_assert_int_eq(adapter_write(at("plain/adapter"), lora, config, values, NULL), -1);
	ck_assert_int_ne(error_code(), 0);
	error_clear();
	free(values);
	lora_free(lora);
	model_config_free(config);
}
END_TEST

/* -- going on from an adapter -------------------------------------------------------------- */

/* Writes an adapter of all linears whose configuration is then replaced. */
static void adapter_with(const struct model_config *config, struct words words,
			 const char *text)
{
	float *values;
	struct lora *lora = write_adapter(config, want(&words), at("init"), &values);

	if (text)
		put_text(at("init/adapter_config.json"), text);
	free(values);
	lora_free(lora);
}

static struct lora *resolve_init(const struct model_config *config)
{
	const struct lora_config asked = {.rank = 8, .alpha = 16, .init = at("init")};

	return lora_resolve(config, &asked);
}

/* Ways to say target_modules, for an adapter on the given words. */
static const struct {
	struct words words;
	const char *modules;
	const char *names;
} said[] = {
	{{{"all"}}, "[\"c_proj\",\"c_fc\",\"c_attn\"]", "c_attn c_proj c_fc"},
	{{{"all"}}, "\"all-linear\"", "c_attn c_proj c_fc"},
	{{{"c_attn"}}, "[\"attn.c_attn\"]", "c_attn"},
	{{{"c_attn"}}, "[\"c_attn\",\"q_proj\"]", "c_attn"},
	{{{"c_attn"}}, "\".*\\\\.c_attn\"", "c_attn"},
	{{{"attn.c_proj"}},
	 "[\"transformer.h.0.attn.c_proj\",\"transformer.h.2.attn.c_proj\","
	 "\"transformer.h.1.attn.c_proj\"]",
	 "attn.c_proj"},
	{{{"attn.c_proj"}}, "\"transformer\\\\.h\\\\.[0-9]+\\\\.attn\\\\.c_proj\"", "attn.c_proj"},
	{{{"1.attn.c_attn"}},
	 "\".*\\\\.h\\\\.1\\\\.(attn|mlp)\\\\.c_attn\"",
	 "transformer.h.1.attn.c_attn"},
	{{{"1.attn.c_attn", "1.mlp.c_fc"}},
	 "\"(?P<front>.*)\\\\.1\\\\..*(c_attn|c_fc)\"",
	 "transformer.h.1.attn.c_attn transformer.h.1.mlp.c_fc"},
};

START_TEST(targets_come_from_the_adapter)
{
	struct model_config *config = config_of(GPT2_TINY);
	struct text names = {0};

	adapter_with(config, said[_i].words,
		     arena_format(&paths,
				  "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4,"
				  "\"target_modules\":%s}",
				  said[_i].modules));
	struct lora *lora = resolve_init(config);
	ck_assert_ptr_nonnull(lora);
	for (int i = 0; i < lora->modules; i++)
		text_add(&names, "%s%s", i ? " " : "", lora->module[i]);
	ck_assert_str_eq(names.data, said[_i].names);
	ck_assert(lora->rank == 2 && lora->alpha == 4 && lora->tensor[0].scale == 2);
	float *values = xzalloc(lora->elements, sizeof *values);
	ck_assert_int_eq(lora_values(lora, 0, lora->count, 1, values), 0);
	for (size_t i = 0; i < lora->elements; i++)
		ck_assert_float_eq(values[i], (float)i / 3);
	free(values);
	text_release(&names);
	lora_free(lora);
	model_config_free(config);
}
END_TEST

START_TEST(a_stage_reads_its_own_part_of_the_adapter)
{
	struct model_config *config = config_of(LLAMA_TINY);
	int from, to;

	adapter_with(config, (struct words){{"all"}}, NULL);
	struct lora *lora = resolve_init(config);
	lora_range(lora, 2, 1, &from, &to);
	float *values = xzalloc(lora->elements, sizeof *values);
	ck_assert_int_eq(lora_values(lora, from, to, 1, values), 0);
	size_t start = lora->tensor[from].offset;
	for (size_t i = start; i < lora->elements; i++)
		ck_assert_float_eq(values[i - start], (float)i / 3);
	free(values);
	lora_free(lora);
	model_config_free(config);
}
END_TEST

START_TEST(a_given_key_must_be_the_adapters)
{
	struct model_config *config = config_of(GPT2_TINY);
	struct lora_config asked = want(&(struct words){{"attn.c_attn"}});
	struct lora *lora;

	adapter_with(config, (struct words){{"c_attn"}}, NULL);
	asked.init = at("init");
	asked.rank_given = asked.alpha_given = asked.dropout_given = true;
	asked.rslora_given = asked.targets_given = true;
	lora = lora_resolve(config, &asked); /* the same, in other words */
	ck_assert_ptr_nonnull(lora);
	lora_free(lora);

	struct lora_config other[5] = {asked, asked, asked, asked, asked};
	const char *const words[5] = {"lora.rank is 3", "lora.alpha is 5",
				      "lora.dropout is 0.5", "lora.rslora is 1",
				      "lora.targets names other modules"};
	other[0].rank = 3;
	other[1].alpha = 5;
	other[2].dropout = 0.5;
	other[3].rslora = true;
	other[4].targets.item[0] = "c_fc";
	for (int i = 4; i >= 0; i--) {
		error_hold();
		ck_assert_ptr_null(lora_resolve(config, &other[i]));
		assert_said(EXIT_CONFIG, words[i]);
		asked.targets.item[0] = "c_attn";
	}
	model_config_free(config);
}
END_TEST

#define ADAPTER(more) "{\"r\":2,\"lora_alpha\":4,\"target_modules\":[\"c_attn\"]" more "}"
static const struct {
	const char *text;
	int code;
	const char *words;
} refused[] = {
	{ADAPTER(",\"peft_type\":\"IA3\""), EXIT_CONFIG, "\"peft_type\""},
	{ADAPTER(",\"use_dora\":true"), EXIT_CONFIG, "\"use_dora\""},
	{ADAPTER(",\"bias\":\"lora_only\""), EXIT_CONFIG, "\"bias\""},
	{ADAPTER(",\"lora_bias\":true"), EXIT_CONFIG, "\"lora_bias\""},
	{ADAPTER(",\"modules_to_save\":[\"lm_head\"]"), EXIT_CONFIG, "\"modules_to_save\""},
	{ADAPTER(",\"exclude_modules\":\"h.0\""), EXIT_CONFIG, "\"exclude_modules\""},
	{ADAPTER(",\"trainable_token_indices\":[1]"), EXIT_CONFIG, "\"trainable_token_indices\""},
	{ADAPTER(",\"use_qalora\":true"), EXIT_CONFIG, "\"use_qalora\""},
	{ADAPTER(",\"alora_invocation_tokens\":[1,2]"), EXIT_CONFIG, "\"alora_invocation_tokens\""},
	{ADAPTER(",\"layer_replication\":[[0,2]]"), EXIT_CONFIG, "\"layer_replication\""},
	{ADAPTER(",\"target_parameters\":[\"x\"]"), EXIT_CONFIG, "\"target_parameters\""},
	{ADAPTER(",\"init_lora_weights\":\"pissa\""), EXIT_CONFIG, "\"pissa\" is not built"},
	{ADAPTER(",\"init_lora_weights\":\"olora\""), EXIT_CONFIG, "\"olora\" is not built"},
	{ADAPTER(",\"use_bdlora\":{\"x\":1}"), EXIT_CONFIG, "\"use_bdlora\""},
	{ADAPTER(",\"kasa_config\":{\"x\":1}"), EXIT_CONFIG, "\"kasa_config\""},
	{"{\"r\":2,\"lora_alpha\":4}", EXIT_DATA, "\"target_modules\" is neither"},
	{"{\"r\":2,\"target_modules\":[7]}", EXIT_DATA, "\"target_modules\" holds"},
	{"{\"r\":2,\"target_modules\":[\"\"]}", EXIT_DATA, "\"target_modules\" holds"},
	{"{\"r\":2,\"target_modules\":[]}", EXIT_CONFIG, "target_modules is empty"},
	{"{\"r\":2,\"target_modules\":[\"lm_head\",\"c_attn\"]}", EXIT_CONFIG, "is the head"},
	{"{\"r\":2,\"target_modules\":[\"q_proj\"]}", EXIT_CONFIG, "\"q_proj\" matches no linear"},
	{"{\"r\":2,\"target_modules\":\".*\"}", EXIT_CONFIG, "is an embedding"},
	{"{\"r\":2,\"target_modules\":\"c_attn\"}", EXIT_CONFIG,
	 "matches no linear"}, /* whole paths */
	{"{\"r\":2,\"target_modules\":\"(c_attn\"}", EXIT_DATA, "cannot be used"},
	{"{\"r\":2,\"target_modules\":\"(([a-z.0-9_]+)+)+[!?]\"}", EXIT_DATA, "cannot be used"},
	{"{\"r\":0,\"target_modules\":[\"c_attn\"]}", EXIT_DATA, "\"r\" is 0"},
	{"{\"r\":2.5,\"target_modules\":[\"c_attn\"]}", EXIT_DATA, "\"r\" is not a whole number"},
	{"{\"r\":2,\"lora_dropout\":1,\"target_modules\":[\"c_attn\"]}", EXIT_DATA,
	 "\"lora_dropout\""},
	{"{\"r\":3,\"target_modules\":[\"c_attn\"]}", EXIT_DATA, "ask for (3, 8)"},
	{"{\"r\":2,\"target_modules\":[\"c_attn\",\"c_fc\"]}", EXIT_DATA, "is missing"},
	{"{\"r\":2,\"target_modules\":[\"h.0.attn.c_attn\"]}", EXIT_DATA, "belongs to none"},
	{"[]", EXIT_DATA, "not a JSON object"},
	{"{", EXIT_DATA, "adapter_config.json:1:"},
};

START_TEST(adapters_that_mean_more_are_refused)
{
	struct model_config *config = config_of(GPT2_TINY);

	adapter_with(config, (struct words){{"c_attn"}}, refused[_i].text);
	error_hold();
	ck_assert_msg(resolve_init(config) == NULL, "%s", refused[_i].text);
	assert_said(refused[_i].code, refused[_i].words);
	model_config_free(config);
}
END_TEST

/* What PEFT 0.21 writes into every file, and what nobody knows. */
START_TEST(harmless_fields_are_ignored)
{
	struct model_config *config = config_of(GPT2_TINY);

	adapter_with(
	    config, (struct words){{"c_attn"}},
	    ADAPTER(
		",\"alora_invocation_tokens\":null,\"alpha_pattern\":{},\"arrow_config\":null,"
		"\"auto_mapping\":null,\"base_model_name_or_path\":\"x\",\"bias\":\"none\","
		"\"ensure_weight_tying\":false,\"exclude_modules\":[],\"fan_in_fan_out\":false,"
		"\"inference_mode\":true,\"init_lora_weights\":\"gaussian\",\"layers_to_"
		"transform\":null,"
		"\"loftq_config\":{},\"lora_bias\":false,\"megatron_core\":\"megatron.core\","
		"\"modules_to_save\":null,\"peft_type\":\"LORA\",\"qalora_group_size\":16,"
		"\"rank_pattern\":{},\"task_type\":\"CAUSAL_LM\",\"use_dora\":false,\"use_"
		"rslora\":false,"
		"\"something_new\":5"));
	struct lora *lora = resolve_init(config);
	ck_assert_ptr_nonnull(lora);
	lora_free(lora);
	model_config_free(config);
}
END_TEST

START_TEST(a_missing_adapter_is_an_input_error)
{
	struct model_config *config = config_of(GPT2_TINY);
	const struct lora_config asked = {.init = at("absent")};

	error_hold();
	ck_assert_ptr_null(lora_resolve(config, &asked));
	assert_said(EXIT_INPUT, "cannot find the adapter folder");
	adapter_with(config, (struct words){{"c_attn"}}, NULL);
	rename(at("init/adapter_model.safetensors"), at("init/adapter_model.bin"));
	error_hold();
	ck_assert_ptr_null(resolve_init(config));
	assert_said(EXIT_INPUT, "pickles are never loaded");
	model_config_free(config);
}
END_TEST

static TCase *plain_case(void)
{
	TCase *t = tcase_create("lora");

	tcase_add_unchecked_fixture(t, scratch_open, scratch_close);
	tcase_add_test(t, gpt2_tensors_have_pefts_names_and_shapes);
	tcase_add_test(t, llama_attention_is_q_and_v);
	tcase_add_loop_test(t, targets_mean_what_peft_means, 0, COUNT(targets));
	tcase_add_loop_test(t, targets_that_match_nothing_are_refused, 0, COUNT(bad_targets));
	tcase_add_test(t, numbers_out_of_range_are_refused);
	tcase_add_test(t, rslora_divides_by_the_root_of_the_rank);
	tcase_add_test(t, ranges_of_blocks_are_contiguous);
	tcase_add_test(t, a_is_uniform_and_b_is_zero);
	tcase_add_test(t, values_depend_on_seed_and_name_alone);
	return t;
}

static TCase *adapter_case(void)
{
	TCase *t = tcase_create("adapter");

	tcase_add_unchecked_fixture(t, scratch_open, scratch_close);
	tcase_add_test(t, an_adapter_is_written_as_peft_reads_it);
	tcase_add_loop_test(t, numbers_are_written_shortest, 0, COUNT(numbers));
	tcase_add_test(t, an_older_adapter_is_replaced_whole);
	tcase_add_test(t, a_folder_that_cannot_be_made_is_a_create_error);
	tcase_add_loop_test(t, targets_come_from_the_adapter, 0, COUNT(said));
	tcase_add_test(t, a_stage_reads_its_own_part_of_the_adapter);
	tcase_add_test(t, a_given_key_must_be_the_adapters);
	tcase_add_loop_test(t, adapters_that_mean_more_are_refused, 0, COUNT(refused));
	tcase_add_test(t, harmless_fields_are_ignored);
	tcase_add_test(t, a_missing_adapter_is_an_input_error);
	return t;
}

int main(void)
{
	Suite *s = suite_create("lora");

	suite_add_tcase(s, plain_case());
	suite_add_tcase(s, adapter_case());
	return run_suite(s);
}
