/*
 * tests/check_config.c - config.json in the spellings of transformers 4 and 5, and the weights
 * that must fit it. What is expected of a field that is absent is what transformers 5.23 does.
 *
 * links: base tensor model
 */
#include "tests/model_files.h"

#include <math.h>

/* A LLaMA-like configuration: its type, fields that replace the standard ones, more fields. */
#define KIN(type, class, more)                                                                 \
	"{\"model_type\":\"" type                                                              \
	"\",\"architectures\":[\"" class "\"],\"hidden_size\":64,"                             \
					 "\"intermediate_size\":172,\"num_attention_heads\":"  \
					 "8,\"num_hidden_layers\":4,"                          \
					 "\"vocab_size\":100" more "}"
#define LLAMA(more) KIN("llama", "LlamaForCausalLM", more)
#define MISTRAL(more) KIN("mistral", "MistralForCausalLM", more)
#define QWEN2(more) KIN("qwen2", "Qwen2ForCausalLM", more)
#define QWEN3(more) KIN("qwen3", "Qwen3ForCausalLM", more)
#define GPT2(more)                                                                             \
	"{\"model_type\":\"gpt2\",\"n_embd\":48,\"n_head\":4,\"n_layer\":3,\"vocab_size\":"    \
	"100" more "}"

static struct model_config *read_config(const char *text)
{
	return model_config_read(model_folder("m", text));
}

static struct model_config *must_read(const char *text)
{
	struct model_config *config = read_config(text);

	ck_assert_msg(config != NULL, "%s", text);
	return config;
}

/* -- every family, as it comes ------------------------------------------------------------- */

START_TEST(gpt2_is_read)
{
	struct model_config *c =
	    must_read(GPT2(",\"n_positions\":64,\"n_ctx\":64,\"n_inner\":null,"
			   "\"layer_norm_epsilon\":1e-06,\"eos_token_id\":51,\"reorder_and_"
			   "upcast_attn\":true"));

	ck_assert_str_eq(c->family->name, "gpt2");
	ck_assert(c->family->gpt2 && c->tied && c->qkv_bias && c->out_bias && c->mlp_bias);
	ck_assert(c->width == 48 && c->heads == 4 && c->kv_heads == 4 && c->head_size == 12);
	ck_assert(c->blocks == 3 && c->mlp == 192 && c->vocabulary == 100 &&
		  c->positions == 64);
	ck_assert(c->norm_epsilon == 1e-6f && c->gelu == GELU_TANH && c->rope == ROPE_NONE);
	ck_assert(c->end_token == 51 && c->own_dropout && !c->qk_norm && c->window[2] == 0);
	ck_assert_str_eq(c->folder, at("m"));
	model_config_free(c);

	c = must_read(
	    GPT2(",\"attn_pdrop\":0,\"embd_pdrop\":0.0,\"resid_pdrop\":0,\"n_inner\":96,"
		 "\"activation_function\":\"gelu\",\"tie_word_embeddings\":false"));
	ck_assert(!c->own_dropout && c->mlp == 96 && c->gelu == GELU_EXACT && !c->tied);
	ck_assert(c->positions == 1024 && c->norm_epsilon == 1e-5f && c->end_token == -1);
	model_config_free(c);
}
END_TEST

START_TEST(llama_is_read)
{
	struct model_config *c = must_read(LLAMA(""));

	ck_assert(!c->family->gpt2 && !c->tied && !c->qkv_bias && !c->out_bias && !c->mlp_bias);
	ck_assert(c->width == 64 && c->heads == 8 && c->kv_heads == 8 && c->head_size == 8);
	ck_assert(c->mlp == 172 && c->blocks == 4 && c->positions == 2048);
	ck_assert(c->norm_epsilon == 1e-6f && c->rope == ROPE_PLAIN && c->rope_theta == 10000);
	ck_assert(c->end_token == 2 && !c->own_dropout && !c->qk_norm && c->window[0] == 0);
	model_config_free(c);

	c = must_read(LLAMA(
	    ",\"num_key_value_heads\":2,\"head_dim\":24,\"attention_bias\":true,"
	    "\"mlp_bias\":true,\"tie_word_embeddings\":true,\"eos_token_id\":[7,8],"
	    "\"attention_dropout\":0.1,\"sliding_window\":16,\"pretraining_tp\":2,"
	    "\"rms_norm_eps\":1e-05,\"max_position_embeddings\":128,\"hidden_act\":\"swish\""));
	ck_assert(c->kv_heads == 2 && c->head_size == 24 && c->qkv_bias && c->out_bias);
	ck_assert(c->mlp_bias && c->tied && c->end_token == 7 && c->own_dropout);
	ck_assert(c->window[0] == 0 && c->norm_epsilon == 1e-5f && c->positions == 128);
	model_config_free(c);

	c = must_read(
	    LLAMA(",\"head_dim\":null,\"num_key_value_heads\":null,\"eos_token_id\":null"));
	ck_assert(c->head_size == 8 && c->kv_heads == 8 && c->end_token == -1);
	model_config_free(c);
}
END_TEST

START_TEST(mistral_slides_in_all_blocks)
{
	struct model_config *c = must_read(MISTRAL(",\"attention_bias\":true"));

	ck_assert(c->window[0] == 4096 && c->window[3] == 4096 && c->kv_heads == 8);
	ck_assert(!c->qkv_bias && !c->out_bias && c->positions == 131072);
	model_config_free(c);
	c = must_read(MISTRAL(",\"sliding_window\":null"));
	ck_assert_int_eq(c->window[0], 0);
	model_config_free(c);
	c = must_read(
	    MISTRAL(",\"sliding_window\":3,\"layer_types\":[\"sliding_attention\","
		    "\"sliding_attention\",\"sliding_attention\",\"sliding_attention\"]"));
	ck_assert_int_eq(c->window[3], 3);
	model_config_free(c);
}
END_TEST

static void assert_windows(const char *text, int a, int b, int c, int d)
{
	struct model_config *config = must_read(text);
	int *w = config->window;

	ck_assert_msg(w[0] == a && w[1] == b && w[2] == c && w[3] == d, "%d %d %d %d: %s", w[0],
		      w[1], w[2], w[3], text);
	model_config_free(config);
}

START_TEST(qwen_says_which_blocks_slide)
{
	assert_windows(QWEN2(""), 0, 0, 0, 0);
	assert_windows(QWEN2(",\"sliding_window\":7,\"max_window_layers\":1"), 0, 0, 0, 0);
	assert_windows(QWEN2(",\"use_sliding_window\":true"), 0, 0, 0,
		       0); /* from block 28 on */
	assert_windows(QWEN2(",\"use_sliding_window\":true,\"max_window_layers\":2"), 0, 0,
		       4096, 4096);
	assert_windows(QWEN3(",\"use_sliding_window\":true,\"max_window_layers\":1,"
			     "\"sliding_window\":7"),
		       0, 7, 7, 7);
	assert_windows(QWEN2(",\"use_sliding_window\":true,\"max_window_layers\":0,"
			     "\"sliding_window\":null"),
		       0, 0, 0, 0);
	assert_windows(
	    QWEN2(",\"use_sliding_window\":true,\"sliding_window\":5,\"layer_types\":["
		  "\"sliding_attention\",\"full_attention\",\"sliding_attention\",\"full_"
		  "attention\"]"),
	    5, 0, 5, 0);
	assert_windows(
	    QWEN2(",\"use_sliding_window\":false,\"sliding_window\":null,\"layer_types\":["
		  "\"full_attention\",\"full_attention\",\"attention\",\"full_attention\"]"),
	    0, 0, 0, 0);
}
END_TEST

START_TEST(qwen_is_read)
{
	struct model_config *c = must_read(QWEN2(",\"attention_bias\":false"));

	ck_assert(c->qkv_bias && !c->out_bias && !c->mlp_bias && !c->qk_norm && !c->tied);
	ck_assert(c->kv_heads == 8 && c->head_size == 8 && c->positions == 32768);
	ck_assert_int_eq(c->end_token, -1);
	model_config_free(c);
	c = must_read(QWEN3(",\"num_key_value_heads\":4"));
	ck_assert(!c->qkv_bias && !c->out_bias && c->qk_norm);
	ck_assert_int_eq(c->head_size, 128); /* not width / heads */
	model_config_free(c);
	c = must_read(QWEN3(",\"attention_bias\":true,\"head_dim\":16"));
	ck_assert(c->qkv_bias && c->out_bias && c->head_size == 16);
	model_config_free(c);
}
END_TEST

/* -- both spellings of rotary positions ---------------------------------------------------- */

#define LLAMA3_FIELDS "\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0"
static const struct {
	const char *text;
	enum rope_kind kind;
	double theta, factor, original;
} ropes[] = {
	{LLAMA(""), ROPE_PLAIN, 10000, 0, 0},
	{LLAMA(",\"rope_theta\":500000,\"rope_scaling\":null"), ROPE_PLAIN, 5e5, 0, 0},
	{LLAMA(",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":1e6}"), ROPE_PLAIN,
	 1e6, 0, 0},
	{LLAMA(",\"rope_theta\":5,\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":"
	   "1e6}"),
	 ROPE_PLAIN, 1e6, 0, 0},
	{LLAMA(",\"rope_theta\":5,\"rope_parameters\":{\"rope_type\":\"default\"}"), ROPE_PLAIN, 5,
	 0, 0},
	{LLAMA(",\"rope_parameters\":{},\"rope_theta\":7"), ROPE_PLAIN, 7, 0, 0},
	{LLAMA(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}"), ROPE_LINEAR, 10000, 2, 0},
	{LLAMA(",\"rope_scaling\":{\"rope_type\":\"linear\",\"type\":\"yarn\",\"factor\":4}"),
	 ROPE_LINEAR, 10000, 4, 0},
	{LLAMA(",\"rope_parameters\":{\"rope_type\":\"default\"},"
	   "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}"),
	 ROPE_PLAIN, 10000, 0, 0},
	{LLAMA(",\"rope_scaling\":{\"rope_type\":\"llama3\"," LLAMA3_FIELDS
	   ",\"original_max_position_embeddings\":32},\"rope_theta\":500000.0"),
	 ROPE_LLAMA3, 5e5, 8, 32},
	{LLAMA(",\"rope_parameters\":{\"rope_type\":\"llama3\"," LLAMA3_FIELDS
	   ",\"original_max_position_embeddings\":32,\"rope_theta\":500000.0}"),
	 ROPE_LLAMA3, 5e5, 8, 32},
	{LLAMA(",\"original_max_position_embeddings\":64,\"rope_scaling\":{\"rope_type\":"
	   "\"llama3\"," LLAMA3_FIELDS ",\"original_max_position_embeddings\":32}"),
	 ROPE_LLAMA3, 10000, 8, 64},
	{LLAMA(",\"max_position_embeddings\":96,\"rope_scaling\":{\"rope_type\":"
	   "\"llama3\"," LLAMA3_FIELDS "}"),
	 ROPE_LLAMA3, 10000, 8, 96},
	{MISTRAL(",\"rope_theta\":1e6"), ROPE_PLAIN, 1e6, 0, 0},
	{QWEN2(",\"rope_theta\":1e6,\"rope_scaling\":null"), ROPE_PLAIN, 1e6, 0, 0},
	{QWEN3(",\"rope_parameters\":{\"rope_theta\":1e6,\"rope_type\":\"default\"}"), ROPE_PLAIN,
	 1e6, 0, 0},
};

START_TEST(rotary_positions_have_two_spellings)
{
	struct model_config *c = must_read(ropes[_i].text);

	ck_assert_int_eq(c->rope, ropes[_i].kind);
	ck_assert_double_eq(c->rope_theta, ropes[_i].theta);
	ck_assert_double_eq(c->rope_factor, ropes[_i].factor);
	ck_assert_double_eq(c->rope_original, ropes[_i].original);
	if (c->rope == ROPE_LLAMA3)
		ck_assert(c->rope_low == 1 && c->rope_high == 4);
	model_config_free(c);
}
END_TEST

/* -- refusals ------------------------------------------------------------------------------ */

static const struct {
	const char *text;
	int code;
	const char *words;
} refused[] = {
	/* nonsense */
	{"{\"model_type\":\"gemma2\"}", EXIT_DATA, "unknown architecture \"gemma2\" (known: gpt2"},
	{KIN("llama", "LlamaForSequenceClassification", ""), EXIT_DATA,
	 "unknown architecture \"LlamaForSequenceClassification\""},
	{KIN("mistral", "LlamaForCausalLM", ""), EXIT_DATA,
	 "unknown architecture \"LlamaForCausalLM\""},
	{"{\"architectures\":[\"T5ForConditionalGeneration\"]}", EXIT_DATA,
	 "unknown architecture \"T5"},
	{"{}", EXIT_DATA, "\"model_type\" is missing"},
	{"{\"model_type\":7}", EXIT_DATA, "\"model_type\" is not a text"},
	{"[]", EXIT_DATA, "not a JSON object"},
	{"{\"model_type\":\"gpt2\",}", EXIT_DATA, "config.json:1:"},
	{"{\"model_type\":\"gpt2\",\"model_type\":\"gpt2\"}", EXIT_DATA, "duplicate"},
	{"{\"model_type\":\"gpt2\",\"n_embd\":48,\"n_head\":4,\"vocab_size\":9}", EXIT_DATA,
	 "\"n_layer\" is missing"},
	{"{\"model_type\":\"llama\",\"num_attention_heads\":4}", EXIT_DATA,
	 "\"hidden_size\" is missing"},
	{"{\"model_type\":\"gpt2\",\"n_layer\":0,\"n_embd\":48,\"n_head\":4,\"vocab_size\":9}",
	 EXIT_DATA, "\"n_layer\" is 0"},
	{"{\"model_type\":\"gpt2\",\"n_layer\":1000000000,\"n_embd\":48,\"n_head\":4,\"vocab_"
	 "size\":9}",
	 EXIT_DATA, "\"n_layer\" is 1000000000"},
	{"{\"model_type\":\"gpt2\",\"n_layer\":1,\"n_embd\":48,\"n_head\":5,\"vocab_size\":9}",
	 EXIT_DATA, "\"n_head\" does not divide"},
	{"{\"model_type\":\"gpt2\",\"n_layer\":1,\"n_embd\":48,\"n_head\":4,\"vocab_size\":0}",
	 EXIT_DATA, "\"vocab_size\" is 0"},
	{"{\"model_type\":\"gpt2\",\"n_layer\":1,\"n_embd\":-48,\"n_head\":4,\"vocab_size\":9}",
	 EXIT_DATA, "\"n_embd\" is -48"},
	{"{\"model_type\":\"gpt2\",\"n_layer\":1,\"n_embd\":\"48\",\"n_head\":4,\"vocab_size\":9}",
	 EXIT_DATA, "\"n_embd\" is not a whole number"},
	{GPT2(",\"n_positions\":0"), EXIT_DATA, "\"n_positions\" is 0"},
	{GPT2(",\"n_inner\":1.5"), EXIT_DATA, "\"n_inner\" is not a whole number"},
	{GPT2(",\"layer_norm_epsilon\":-1e-5"), EXIT_DATA, "\"layer_norm_epsilon\" is -1e-05"},
	{GPT2(",\"tie_word_embeddings\":1"), EXIT_DATA, "\"tie_word_embeddings\" is neither"},
	{LLAMA(",\"num_key_value_heads\":16"), EXIT_DATA,
	 "\"num_key_value_heads\" does not divide"},
	{LLAMA(",\"num_key_value_heads\":3"), EXIT_DATA, "\"num_key_value_heads\" does not divide"},
	{LLAMA(",\"num_key_value_heads\":0"), EXIT_DATA, "\"num_key_value_heads\" is 0"},
	{LLAMA(",\"rms_norm_eps\":-1"), EXIT_DATA, "\"rms_norm_eps\" is -1"},
	{LLAMA(",\"rope_theta\":0"), EXIT_DATA, "\"rope_theta\" is 0"},
	{LLAMA(",\"rope_theta\":\"NaN\""), EXIT_DATA, "\"rope_theta\" is not a number"},
	{LLAMA(",\"rope_theta\":NaN"), EXIT_DATA, "config.json:1:"},
	{LLAMA(",\"head_dim\":7"), EXIT_DATA, "\"head_dim\" is odd"},
	{LLAMA(",\"head_dim\":0"), EXIT_DATA, "\"head_dim\" is 0"},
	{LLAMA(",\"rope_parameters\":7"), EXIT_DATA, "\"rope_parameters\" is not an object"},
	{LLAMA(",\"rope_scaling\":{\"type\":\"linear\"}"), EXIT_DATA, "\"factor\" is missing"},
	{LLAMA(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}"), EXIT_DATA,
	 "\"factor\" is 0"},
	{LLAMA(",\"rope_scaling\":{\"type\":\"llama3\",\"factor\":2}"), EXIT_DATA,
	 "\"low_freq_factor\" is missing"},
	{LLAMA(",\"rope_scaling\":{\"type\":\"llama3\",\"factor\":2,\"low_freq_factor\":4,"
	   "\"high_freq_factor\":4}"),
	 EXIT_DATA, "\"high_freq_factor\" is not above"},
	{MISTRAL(",\"sliding_window\":0"), EXIT_DATA, "\"sliding_window\" is 0"},
	{QWEN2(",\"layer_types\":[\"full_attention\"]"), EXIT_DATA,
	 "\"layer_types\" does not have"},
	{QWEN2(",\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\","
	   "\"sliding_attention\"]"),
	 EXIT_DATA, "no window is set"},
	/* what is not built */
	{GPT2(",\"activation_function\":\"quick_gelu\""), EXIT_CONFIG,
	 "\"quick_gelu\" is not built"},
	{GPT2(",\"scale_attn_by_inverse_layer_idx\":true"), EXIT_CONFIG,
	 "scale_attn_by_inverse_layer_idx"},
	{GPT2(",\"scale_attn_weights\":false"), EXIT_CONFIG, "\"scale_attn_weights\": false"},
	{GPT2(",\"add_cross_attention\":true"), EXIT_CONFIG, "add_cross_attention"},
	{LLAMA(",\"quantization_config\":{\"bits\":4}"), EXIT_CONFIG, "quantization_config"},
	{LLAMA(",\"hidden_act\":\"gelu\""), EXIT_CONFIG, "\"hidden_act\": \"gelu\""},
	{LLAMA(",\"is_causal\":false"), EXIT_CONFIG, "is_causal"},
	{LLAMA(",\"per_layer_config\":{\"1\":{\"head_dim\":4}}"), EXIT_CONFIG, "per_layer_config"},
	{LLAMA(",\"partial_rotary_factor\":0.5"), EXIT_CONFIG, "partial_rotary_factor"},
	{LLAMA(",\"rope_parameters\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.25}"),
	 EXIT_CONFIG, "partial_rotary_factor"},
	{LLAMA(",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}"), EXIT_CONFIG,
	 "\"yarn\" is not built"},
	{LLAMA(",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":4}"), EXIT_CONFIG,
	 "\"dynamic\""},
	{LLAMA(",\"rope_parameters\":{\"rope_type\":\"longrope\"}"), EXIT_CONFIG, "\"longrope\""},
	{LLAMA(",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}"),
	 EXIT_CONFIG, "\"full_attention\""},
	{MISTRAL(",\"layer_types\":[\"sliding_attention\",\"full_attention\",\"full_attention\","
	     "\"full_attention\"]"),
	 EXIT_CONFIG, "layer_types"},
	{LLAMA(",\"layer_types\":[\"sliding_attention\",\"full_attention\",\"full_attention\","
	   "\"full_attention\"]"),
	 EXIT_CONFIG, "layer_types"},
	{QWEN2(",\"layer_types\":[\"linear_attention\",\"full_attention\",\"full_attention\","
	   "\"full_attention\"]"),
	 EXIT_CONFIG, "\"linear_attention\" is not built"},
};

START_TEST(nonsense_and_what_is_not_built_are_refused)
{
	error_hold();
	ck_assert_msg(read_config(refused[_i].text) == NULL, "%s", refused[_i].text);
	ck_assert_ptr_nonnull(strstr(error_text(), "config.json"));
	assert_said(refused[_i].code, refused[_i].words);
}
END_TEST

START_TEST(all_errors_of_a_file_are_said)
{
	error_hold();
	ck_assert_ptr_null(read_config(LLAMA(",\"rms_norm_eps\":-1,\"rope_theta\":0,"
					     "\"hidden_act\":\"relu\"")));
	ck_assert_ptr_nonnull(strstr(error_text(), "rms_norm_eps"));
	ck_assert_ptr_nonnull(strstr(error_text(), "rope_theta"));
	assert_said(EXIT_DATA, "hidden_act");
}
END_TEST

START_TEST(a_missing_folder_or_file_is_an_input_error)
{
	error_hold();
	ck_assert_ptr_null(model_config_read(at("nowhere")));
	assert_said(EXIT_INPUT, "cannot find the model folder");
	folder_make(at("empty"));
	error_hold();
	ck_assert_ptr_null(model_config_read(at("empty")));
	assert_said(EXIT_INPUT, "config.json");
}
END_TEST

START_TEST(the_digest_is_of_the_bytes)
{
	struct model_config *a = must_read(GPT2("")), *b = must_read(GPT2(" "));

	ck_assert(!digest_equal(a->digest, b->digest));
	ck_assert(digest_equal(b->digest, digest_of(GPT2(" "), strlen(GPT2(" ")))));
	model_config_free(a);
	model_config_free(b);
}
END_TEST

START_TEST(parameters_and_flops_are_counted)
{
	struct model_config *c = must_read(GPT2(",\"n_positions\":64"));
	size_t block = 4 * 48 + 48 * 144 + 144 + 48 * 48 + 48 + 2 * 48 * 192 + 192 + 48;
	double linears = 48 * 144 + 48 * 48 + 2 * 48 * 192;

	ck_assert_uint_eq(model_parameters(c), 3 * block + 100 * 48 + 64 * 48 + 2 * 48);
	ck_assert_double_eq(model_block_flops(c, 10), 4 * linears + 6 * 10 * 48);
	ck_assert_double_eq(model_head_flops(c), 4.0 * 100 * 48);
	model_config_free(c);
	c = must_read(QWEN3(",\"num_key_value_heads\":4,\"head_dim\":16"));
	block = 2 * 64 + 128 * 64 + 2 * 64 * 64 + 64 * 128 + 2 * 16 + 3 * 64 * 172;
	ck_assert_uint_eq(model_parameters(c), 4 * block + 2 * 100 * 64 + 64);
	model_config_free(c);
}
END_TEST

/* -- weights ------------------------------------------------------------------------------- */

#define ROOM 64
static const char *const tiny[] = {
	GPT2_TINY,
	LLAMA_TINY,
	"{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_head\":2,\"n_layer\":2,\"n_positions\":16,"
	"\"vocab_size\":11,\"tie_word_embeddings\":false}",
	"{\"model_type\":\"qwen2\",\"hidden_size\":8,\"num_attention_heads\":2,\"num_hidden_"
	"layers\":2,"
	"\"intermediate_size\":12,\"vocab_size\":11,\"tie_word_embeddings\":true}",
	"{\"model_type\":\"qwen3\",\"hidden_size\":8,\"num_attention_heads\":2,\"num_hidden_"
	"layers\":2,"
	"\"intermediate_size\":12,\"vocab_size\":11,\"head_dim\":6,\"attention_bias\":true}",
	"{\"model_type\":\"mistral\",\"hidden_size\":8,\"num_attention_heads\":2,\"num_hidden_"
	"layers\":2,"
	"\"intermediate_size\":12,\"vocab_size\":11}",
};

/* The tensor of every row and block is the one with its name. */
static void assert_found(const struct model_config *c, const struct weights *w, bool prefix)
{
	for (const struct tensor_row *row = c->family->row; row->name; row++) {
		if (row->present && !row->present(c))
			continue;
		for (int b = 0; b < (row->slot > SLOT_HEAD ? c->blocks : 1); b++) {
			const struct safetensor *tensor = weights_find(w, row->slot, b);

			ck_assert_ptr_nonnull(tensor);
			ck_assert_str_eq(tensor->name, tensor_name(c, row, b, prefix));
			ck_assert_uint_eq(tensor->bytes, 4 * row_elements(c, row));
		}
	}
	if (c->tied)
		ck_assert_ptr_eq(weights_find(w, SLOT_HEAD, 0), weights_find(w, SLOT_EMBED, 0));
}

START_TEST(weights_are_found_with_and_without_prefix)
{
	bool prefix = _i % 2;
	struct model_config *c = must_read(tiny[_i / 2]);
	struct safetensors_entry entry[ROOM + 3];
	int count = model_entries(c, prefix, entry, ROOM);
	const float zero[16] = {0};

	/* what old files carry and nobody needs; a tied head may be there twice */
	entry[count++] =
	    (struct safetensors_entry){"h.0.attn.bias", DTYPE_F32, 2, {4, 4}, zero};
	entry[count++] =
	    (struct safetensors_entry){"h.0.attn.masked_bias", DTYPE_F32, 0, {0}, zero};
	if (c->tied) {
		entry[count] = entry[0];
		entry[count++].name = "lm_head.weight";
	}
	ck_assert_int_eq(safetensors_write(at("m/model.safetensors"), entry, count, NULL), 0);
	struct weights *w = weights_open(c);
	ck_assert_ptr_nonnull(w);
	assert_found(c, w, prefix);
	weights_close(w);
	model_config_free(c);
}
END_TEST

/* transformers unties such a head. */
START_TEST(a_tied_head_with_other_values_is_refused)
{
	struct model_config *c = must_read(GPT2_TINY);
	struct safetensors_entry entry[ROOM + 1];
	int count = model_entries(c, true, entry, ROOM);
	float head[11 * 8] = {0};

	head[87] = 1;
	entry[count] = entry[0];
	entry[count].name = "lm_head.weight";
	entry[count++].data = head;
	ck_assert_int_eq(safetensors_write(at("m/model.safetensors"), entry, count, NULL), 0);
	error_hold();
	ck_assert_ptr_null(weights_open(c));
	assert_said(EXIT_DATA, "holds other values than \"transformer.wte.weight\"");
	model_config_free(c);
}
END_TEST

/* Writes a model as two shards, tensors by turns, and an index of `text` (null: the right one).
 */
static void write_shards(const struct model_config *c, const char *text)
{
	struct safetensors_entry entry[ROOM], half[ROOM];
	int count = model_entries(c, true, entry, ROOM);
	struct text index = {0};

	text_add(&index, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
	for (int s = 0; s < 2; s++) {
		int halves = 0;

		for (int i = s; i < count; i += 2) {
			text_add(&index, "%s\"%s\":\"s%d.safetensors\"", s + i ? "," : "",
				 entry[i].name, s);
			half[halves++] = entry[i];
		}
		ck_assert_int_eq(
		    safetensors_write(at(s ? "m/s1.safetensors" : "m/s0.safetensors"), half,
				      halves, NULL),
		    0);
	}
	text_add(&index, "}}");
	put_text(at("m/model.safetensors.index.json"), text ? text : index.data);
	text_release(&index);
	unlink(at("m/model.safetensors"));
}

START_TEST(shards_are_found_by_their_index)
{
	struct model_config *c = must_read(LLAMA_TINY);
	struct digest digest;

	write_shards(c, NULL);
	put_text(at("m/s9.safetensors"), "not in the index, so never opened");
	struct weights *w = weights_open(c);
	ck_assert_ptr_nonnull(w);
	ck_assert_int_eq(w->files, 2);
	assert_found(c, w, true);
	digest = w->digest;
	weights_close(w);
	w = weights_open(c);
	ck_assert(digest_equal(w->digest, digest));
	weights_close(w);
	model_config_free(c);
}
END_TEST

#define MAP(name, file) "{\"weight_map\":{\"" name "\":" file "}}"
static const struct {
	const char *index;
	int code;
	const char *words;
} bad_index[] = {
	{"{}", EXIT_DATA, "\"weight_map\" is missing"},
	{"{\"weight_map\":{}}", EXIT_DATA, "\"weight_map\" is missing"},
	{"{\"weight_map\":[]}", EXIT_DATA, "\"weight_map\" is missing"},
	{MAP("x", "\"../m/s0.safetensors\""), EXIT_DATA, "not a name beside the index"},
	{MAP("x", "\"..\""), EXIT_DATA, "not a name beside the index"},
	{MAP("x", "\"/etc/passwd\""), EXIT_DATA, "not a name beside the index"},
	{MAP("x", "\"sub/s0.safetensors\""), EXIT_DATA, "not a name beside the index"},
	{MAP("x", "\"\""), EXIT_DATA, "not a name beside the index"},
	{MAP("x", "7"), EXIT_DATA, "not a name beside the index"},
	{MAP("x", "\"s0.safetensors\\u0000\""), EXIT_DATA, "not a name beside the index"},
	{MAP("x", "\"s7.safetensors\""), EXIT_INPUT, "s7.safetensors"},
	{MAP("x", "\"config.json\""), EXIT_DATA, "config.json"},
	{MAP("x", "\"s0.safetensors\""), EXIT_DATA, "\"x\" is not in"},
	{MAP("model.norm.weight", "\"s0.safetensors\""), EXIT_DATA, "is not in"}, /* in the other */
	{MAP("model.embed_tokens.weight", "\"s0.safetensors\""), EXIT_DATA, "is missing"},
	{"{\"weight_map\":{\"a\":\"s0.safetensors\",\"a\":\"s1.safetensors\"}}", EXIT_DATA,
	 "duplicate"},
};

START_TEST(an_index_that_lies_is_refused)
{
	struct model_config *c = must_read(LLAMA_TINY);

	write_shards(c, bad_index[_i].index);
	error_hold();
	ck_assert_ptr_null(weights_open(c));
	assert_said(bad_index[_i].code, bad_index[_i].words);
	model_config_free(c);
}
END_TEST

static void assert_weights_refused(const struct model_config *c,
				   const struct safetensors_entry *entry, int count,
				   const char *words)
{
	ck_assert_int_eq(safetensors_write(at("m/model.safetensors"), entry, count, NULL), 0);
	error_hold();
	ck_assert_ptr_null(weights_open(c));
	assert_said(EXIT_DATA, words);
}

START_TEST(tensors_that_do_not_fit_are_refused)
{
	struct model_config *c = must_read(LLAMA_TINY);
	struct safetensors_entry entry[ROOM], one;
	int count = model_entries(c, true, entry, ROOM), last = count - 1;

	one = entry[last]; /* model.layers.2.mlp.down_proj.weight (8, 12) */
	assert_weights_refused(c, entry, last,
			       "\"model.layers.2.mlp.down_proj.weight\" is missing");
	entry[last].shape[0] = 12;
	entry[last].shape[1] = 8;
	assert_weights_refused(c, entry, count,
			       "\"model.layers.2.mlp.down_proj.weight\" has shape "
			       "(12, 8), but config.json asks for (8, 12)");
	entry[last].dims = 1;
	entry[last].shape[0] = 96;
	assert_weights_refused(c, entry, count, "has shape (96)");
	entry[last] = one;
	entry[last].dtype = DTYPE_I32;
	assert_weights_refused(c, entry, count, "is of type I32");
	entry[last] = one;
	entry[0].shape[0] = 10; /* the embedding of another vocabulary */
	assert_weights_refused(c, entry, count,
			       "\"model.embed_tokens.weight\" has shape (10, 8)");
	model_config_free(c);
}
END_TEST

START_TEST(a_model_without_safetensors_is_an_input_error)
{
	struct model_config *c = model_config_read(model_folder("bare", GPT2_TINY));

	error_hold();
	ck_assert_ptr_null(weights_open(c));
	assert_said(EXIT_INPUT, "neither it nor");
	put_text(at("bare/pytorch_model.bin"), "pickle");
	error_hold();
	ck_assert_ptr_null(weights_open(c));
	assert_said(EXIT_INPUT, "pickles are never loaded");
	model_config_free(c);
}
END_TEST

/* -- real files, where they are at hand ---------------------------------------------------- */

START_TEST(real_models_are_read)
{
	static const char *const names[] = {
	    "golden/gpt2-tiny/model",  "golden/llama-tiny/model", "golden/llama3-tiny/model",
	    "golden/qwen2-tiny/model", "data/models/capp-gpt2",	  "data/models/gpt-nano-sort",
	    "data/models/stories260K"};
	const char *shared = getenv("EDGEPIPE_SHARED");

	for (int i = 0; i < COUNT(names); i++) {
		struct model_config *c = model_config_read(path_join(&paths, shared, names[i]));
		ck_assert_ptr_nonnull(c);
		struct weights *w = weights_open(c);
		ck_assert_ptr_nonnull(w);
		weights_close(w);
		model_config_free(c);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("config");
	TCase *t = tcase_create("config");

	tcase_add_unchecked_fixture(t, scratch_open, scratch_close);
	tcase_add_test(t, gpt2_is_read);
	tcase_add_test(t, llama_is_read);
	tcase_add_test(t, mistral_slides_in_all_blocks);
	tcase_add_test(t, qwen_says_which_blocks_slide);
	tcase_add_test(t, qwen_is_read);
	tcase_add_loop_test(t, rotary_positions_have_two_spellings, 0, COUNT(ropes));
	tcase_add_loop_test(t, nonsense_and_what_is_not_built_are_refused, 0, COUNT(refused));
	tcase_add_test(t, all_errors_of_a_file_are_said);
	tcase_add_test(t, a_missing_folder_or_file_is_an_input_error);
	tcase_add_test(t, the_digest_is_of_the_bytes);
	tcase_add_test(t, parameters_and_flops_are_counted);
	tcase_add_loop_test(t, weights_are_found_with_and_without_prefix, 0, 2 * COUNT(tiny));
	tcase_add_test(t, a_tied_head_with_other_values_is_refused);
	tcase_add_test(t, shards_are_found_by_their_index);
	tcase_add_loop_test(t, an_index_that_lies_is_refused, 0, COUNT(bad_index));
	tcase_add_test(t, tensors_that_do_not_fit_are_refused);
	tcase_add_test(t, a_model_without_safetensors_is_an_input_error);
	if (getenv("EDGEPIPE_SHARED"))
		tcase_add_test(t, real_models_are_read);
	else
		puts("real models are not read: EDGEPIPE_SHARED is not set");
	suite_add_tcase(s, t);
	return run_suite(s);
}
