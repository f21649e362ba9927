/*
 * config.json of a Hugging Face model directory, reduced to what the arithmetic needs.
 *
 * Two spellings are in use: transformers 5 writes rope_parameters and dtype, older files
 * rope_theta, rope_scaling and torch_dtype (dtype is ignored in both: the file's tensors
 * decide). Standard values are those of transformers 5 (configuration_*.py), as an absent field
 * means them there. What changes the arithmetic and is not built is refused by name; everything
 * else is ignored.
 */
#include "model/model.h"
#include "model/internal.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BYTES ((size_t)1 << 20) /* of the file */
#define MOST_BLOCKS 10000
#define MOST_WIDTH (1 << 20)
#define MOST_SIZE (1 << 24) /* of the MLP, the vocabulary, all heads together */
#define MOST_HEAD_SIZE (1 << 14)
#define MOST_POSITIONS (1 << 30)

/* What transformers takes where a LLaMA-like file does not say; 0: derived. */
struct standard {
	const char *name;
	int positions, kv_heads, head_size, window;
};
static const struct standard standards[] = {
	{"llama", 2048, 0, 0, 0},
	{"mistral", 131072, 8, 0, 4096},
	{"qwen2", 32768, 32, 0, 4096},
	{"qwen3", 32768, 32, 128, 4096},
};

static const struct standard *standard_of(const struct model_config *config)
{
	for (size_t i = 1; i < sizeof(standards) / sizeof(*standards); i++)
		if (strcmp(standards[i].name, config->family->name) == 0)
			return &standards[i];
	return &standards[0];
}

static bool is_family(const struct model_config *config, const char *name)
{
	return strcmp(config->family->name, name) == 0;
}

/* An error about a field's value, as fields.c says them. */
static void nonsense(struct fields *f, const char *key, const char *why)
{
	report(EXIT_DATA, "cannot use '%s': \"%s\" %s", f->path, key, why);
	f->failed = true;
}

/* -- which family -------------------------------------------------------------------------- */

static int unknown_architecture(const struct fields *f, const char *name)
{
	const char *names[16];
	int count = family_names(names, 16);
	struct text known = {0};

	for (int i = 0; i < count && i < 16; i++)
		text_add(&known, "%s%s (%s)", i ? ", " : "", names[i],
			 family_find(names[i])->architecture);
	report(EXIT_DATA, "cannot use '%s': unknown architecture \"%s\" (known: %s)", f->path,
	       name, known.data);
	text_release(&known);
	return -1;
}

static const struct family *family_of_architecture(const char *architecture)
{
	const char *names[16];
	int count = family_names(names, 16);

	for (int i = 0; i < count && i < 16; i++)
		if (strcmp(family_find(names[i])->architecture, architecture) == 0)
			return family_find(names[i]);
	return NULL;
}

/* By model_type; architectures, where given, must agree: a classifier has another head. */
static int read_family(struct fields *f, struct model_config *config)
{
	const char *type = fields_text(f, "model_type", NULL);
	const struct json *list = json_find(f->map, "architectures");
	const char *architecture = json_as_text(json_at(list, 0), NULL);

	if (f->failed)
		return -1;
	if (!type && !architecture)
		return error(EXIT_DATA, "cannot use '%s': \"model_type\" is missing", f->path);
	config->family = type ? family_find(type) : family_of_architecture(architecture);
	if (!config->family)
		return unknown_architecture(f, type ? type : architecture);
	for (size_t i = 0; i < json_size(list); i++) {
		const char *name = json_as_text(json_at(list, i), "");

		if (strcmp(name, config->family->architecture) != 0)
			return unknown_architecture(f, name);
	}
	return 0;
}

/* -- fields that are not built ------------------------------------------------------------- */

static void refuse_flag(struct fields *f, const char *key, bool refused)
{
	if (fields_flag(f, key, !refused) == refused)
		fields_refuse(f, key, refused ? "true is not built" : "false is not built");
}

static void refuse_foreign(struct fields *f)
{
	if (!json_is_nothing(json_find(f->map, "quantization_config")))
		fields_refuse(f, "quantization_config", "quantized weights are not built");
	if (!json_is_nothing(json_find(f->map, "per_layer_config")))
		fields_refuse(f, "per_layer_config", "blocks that differ are not built");
	refuse_flag(f, "is_encoder_decoder", true);
	refuse_flag(f, "add_cross_attention", true);
	refuse_flag(f, "is_causal", false);
}

static void read_gelu(struct fields *f, struct model_config *config)
{
	static const char *const tanh[] = {"gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh",
					   "gelu_fast", "gelu_accurate"};
	const char *name = fields_text(f, "activation_function", "gelu_new");

	config->gelu = GELU_EXACT;
	if (strcmp(name, "gelu") == 0 || strcmp(name, "gelu_python") == 0)
		return;
	config->gelu = GELU_TANH;
	for (size_t i = 0; i < sizeof(tanh) / sizeof(*tanh); i++)
		if (strcmp(name, tanh[i]) == 0)
			return;
	report(EXIT_CONFIG,
	       "cannot use '%s': \"activation_function\": \"%s\" is not built (gelu_new, "
	       "gelu_pytorch_tanh and gelu are)",
	       f->path, name);
	f->failed = true;
}

static void check_silu(struct fields *f)
{
	const char *name = fields_text(f, "hidden_act", "silu");

	if (strcmp(name, "silu") == 0 || strcmp(name, "swish") == 0)
		return;
	report(EXIT_CONFIG, "cannot use '%s': \"hidden_act\": \"%s\" is not built (silu is)",
	       f->path, name);
	f->failed = true;
}

/* -- rotary positions ---------------------------------------------------------------------- */

/* rope_parameters (transformers 5), else rope_scaling; a map without fields if neither is
 * given. */
static struct fields rope_fields(struct fields *f)
{
	const struct json *now = json_find(f->map, "rope_parameters");
	const struct json *old = json_find(f->map, "rope_scaling");
	bool chosen_now = !json_is_nothing(now);
	struct fields rope = {f->path, chosen_now ? now : old, false};

	if (chosen_now && !json_is_nothing(old))
		warn("'%s' has both \"rope_parameters\" and \"rope_scaling\": the former counts",
		     f->path);
	if (!json_is_nothing(rope.map) && json_kind(rope.map) != JSON_MAP)
		nonsense(f, chosen_now ? "rope_parameters" : "rope_scaling",
			 "is not an object");
	if (json_kind(rope.map) != JSON_MAP)
		rope.map = NULL;
	for (void *it = json_first(rope.map); it; it = json_next(rope.map, it))
		if (json_kind(json_value(it)) == JSON_MAP)
			fields_refuse(f, json_name(it),
				      "rotary positions that differ from block to "
				      "block are not built");
	return rope;
}

static void read_rope_kind(struct fields *f, const struct fields *rope,
			   struct model_config *config)
{
	const char *key = fields_given(rope, "rope_type") ? "rope_type" : "type";
	const char *type = json_as_text(json_find(rope->map, key), "default");

	config->rope = ROPE_PLAIN;
	if (strcmp(type, "default") == 0)
		return;
	config->rope = ROPE_LINEAR;
	if (strcmp(type, "linear") == 0)
		return;
	config->rope = ROPE_LLAMA3;
	if (strcmp(type, "llama3") == 0)
		return;
	report(EXIT_CONFIG,
	       "cannot use '%s': \"%s\": \"%s\" is not built (default, linear and llama3 "
	       "are)",
	       f->path, key, type);
	config->rope = ROPE_PLAIN;
	f->failed = true;
}

static double rope_required(struct fields *f, struct fields *rope, const char *key)
{
	if (!fields_given(rope, key))
		nonsense(f, key, "is missing, as this \"rope_type\" needs it");
	return fields_number(rope, key, FLT_MIN, FLT_MAX, 1);
}

/* As modeling_rope_utils.py, standardize_rope_params: the top level wins for this one. */
static double rope_original(struct fields *f, struct fields *rope,
			    const struct model_config *config)
{
	const char *key = "original_max_position_embeddings";
	double standard = fields_number(rope, key, 1, MOST_POSITIONS, config->positions);

	return fields_number(f, key, 1, MOST_POSITIONS, standard);
}

static void read_rope(struct fields *f, struct model_config *config)
{
	struct fields rope = rope_fields(f);

	read_rope_kind(f, &rope, config);
	config->rope_theta = fields_number(f, "rope_theta", FLT_MIN, FLT_MAX, 10000);
	config->rope_theta =
	    fields_number(&rope, "rope_theta", FLT_MIN, FLT_MAX, config->rope_theta);
	double part = fields_number(f, "partial_rotary_factor", 0, 1, 1);
	if (fields_number(&rope, "partial_rotary_factor", 0, 1, part) != 1)
		fields_refuse(f, "partial_rotary_factor", "only 1 is built");
	if (config->head_size % 2)
		nonsense(f, "head_dim", "is odd, which rotary positions cannot be");
	if (config->rope == ROPE_LINEAR || config->rope == ROPE_LLAMA3)
		config->rope_factor = rope_required(f, &rope, "factor");
	if (config->rope == ROPE_LLAMA3) {
		config->rope_low = rope_required(f, &rope, "low_freq_factor");
		config->rope_high = rope_required(f, &rope, "high_freq_factor");
		config->rope_original = rope_original(f, &rope, config);
		if (!f->failed && config->rope_high <= config->rope_low)
			nonsense(f, "high_freq_factor", "is not above \"low_freq_factor\"");
	}
	f->failed |= rope.failed;
}

/* -- sliding windows ----------------------------------------------------------------------- */

/* The field sliding_window: absent is the family's standard, null is none (0). */
static int read_window(struct fields *f, const struct model_config *config)
{
	bool absent = json_kind(json_find(f->map, "sliding_window")) == JSON_NONE;
	int standard = absent ? standard_of(config)->window : 0;

	return (int)fields_integer(f, "sliding_window", 1, MOST_POSITIONS, standard);
}

/* One word of layer_types: whether that block slides. "attention" is an older name. */
static bool read_slides(struct fields *f, const struct json *list, int block)
{
	const char *word = json_as_text(json_at(list, block), "");

	if (strcmp(word, "sliding_attention") == 0)
		return true;
	if (strcmp(word, "full_attention") != 0 && strcmp(word, "attention") != 0) {
		report(EXIT_CONFIG,
		       "cannot use '%s': \"layer_types\": \"%s\" is not built "
		       "(full_attention and sliding_attention are)",
		       f->path, word);
		f->failed = true;
	}
	return false;
}

/*
 * Qwen says which blocks slide: layer_types, else those from max_window_layers on; and none
 * without use_sliding_window. In LLaMA and Mistral all blocks are alike, whatever a layer_types
 * says there.
 */
static void read_windows(struct fields *f, struct model_config *config)
{
	const struct json *list = json_find(f->map, "layer_types");
	bool qwen = is_family(config, "qwen2") || is_family(config, "qwen3");
	int window = is_family(config, "llama") ? 0 : read_window(f, config);
	int first = qwen ? (int)fields_integer(f, "max_window_layers", 0, INT_MAX, 28) : 0;

	if (qwen && !fields_flag(f, "use_sliding_window", false))
		window = 0;
	if (json_is_nothing(list))
		list = NULL;
	if (list && json_size(list) != (size_t)config->blocks)
		nonsense(f, "layer_types", "does not have one word per block");
	for (int i = 0; i < config->blocks && !f->failed; i++) {
		bool slides = list ? read_slides(f, list, i) : window > 0 && i >= first;

		if (list && qwen && slides && window == 0)
			nonsense(f, "layer_types", "has sliding blocks, but no window is set");
		else if (list && !qwen && slides != (window > 0) && !f->failed)
			fields_refuse(f, "layer_types",
				      "blocks that differ are not built for this "
				      "architecture");
		config->window[i] = slides ? window : 0;
	}
}

/* -- sizes --------------------------------------------------------------------------------- */

/* A size that must be there; other is a second name of the same field, or null. */
static int read_size(struct fields *f, const char *key, const char *other, int most)
{
	if (other && !fields_given(f, key) && fields_given(f, other))
		key = other;
	return (int)fields_integer(f, key, 1, most, FIELD_REQUIRED);
}

static void check_heads(struct fields *f, const struct model_config *c)
{
	if (f->failed)
		return;
	if (c->kv_heads > c->heads || c->heads % c->kv_heads != 0)
		nonsense(f, "num_key_value_heads", "does not divide the number of heads");
	if ((long long)c->heads * c->head_size > MOST_SIZE)
		nonsense(f, "head_dim", "times the number of heads is too large");
}

static void read_end_token(struct fields *f, struct model_config *config, int standard)
{
	const struct json *value = json_find(f->map, "eos_token_id");
	const struct json *first = json_kind(value) == JSON_LIST ? json_at(value, 0) : value;
	long long token = json_kind(value) == JSON_NONE ? standard : json_as_integer(first, -1);

	config->end_token = token >= 0 && token < config->vocabulary ? (int)token : -1;
}

static bool any_dropout(const struct fields *f, const char *key, double standard)
{
	return json_as_number(json_find(f->map, key), standard) > 0;
}

static void read_gpt2(struct fields *f, struct model_config *c)
{
	c->width = read_size(f, "n_embd", "hidden_size", MOST_WIDTH);
	c->blocks = read_size(f, "n_layer", "num_hidden_layers", MOST_BLOCKS);
	c->heads = read_size(f, "n_head", "num_attention_heads", MOST_SIZE);
	c->kv_heads = c->heads;
	if (c->width % c->heads)
		nonsense(f, "n_head", "does not divide \"n_embd\"");
	c->head_size = c->width / c->heads;
	c->mlp = (int)fields_integer(f, "n_inner", 1, MOST_SIZE, 4LL * c->width);
	c->vocabulary = read_size(f, "vocab_size", NULL, MOST_SIZE);
	c->positions = (int)fields_integer(
	    f, fields_given(f, "n_positions") ? "n_positions" : "max_position_embeddings", 1,
	    MOST_POSITIONS, 1024);
	c->norm_epsilon = (float)fields_number(f, "layer_norm_epsilon", 0, 1, 1e-5);
	c->tied = fields_flag(f, "tie_word_embeddings", true);
	c->qkv_bias = c->out_bias = c->mlp_bias = true;
	c->rope = ROPE_NONE;
	c->own_dropout = any_dropout(f, "attn_pdrop", 0.1) ||
			 any_dropout(f, "embd_pdrop", 0.1) ||
			 any_dropout(f, "resid_pdrop", 0.1);
	read_gelu(f, c);
	read_end_token(f, c, 50256);
	refuse_flag(f, "scale_attn_by_inverse_layer_idx", true);
	refuse_flag(f, "scale_attn_weights", false);
}

/* head_dim and num_key_value_heads: null is derived; absent is the family's standard if it
 * fits. */
static void read_llama_heads(struct fields *f, struct model_config *c)
{
	const struct standard *standard = standard_of(c);
	bool kv_absent = json_kind(json_find(f->map, "num_key_value_heads")) == JSON_NONE;
	bool size_absent = json_kind(json_find(f->map, "head_dim")) == JSON_NONE;
	bool derived = !fields_given(f, "head_dim") && !(size_absent && standard->head_size);
	int kv = kv_absent ? standard->kv_heads : 0;

	c->heads = read_size(f, "num_attention_heads", NULL, MOST_SIZE);
	if (kv == 0 || c->heads % kv != 0)
		kv = c->heads;
	c->kv_heads = (int)fields_integer(f, "num_key_value_heads", 1, MOST_SIZE, kv);
	/* transformers wants this of LLaMA even where head_dim is given */
	if ((derived || is_family(c, "llama")) && c->width % c->heads)
		nonsense(f, "num_attention_heads", "does not divide \"hidden_size\"");
	c->head_size = (int)fields_integer(f, "head_dim", 1, MOST_HEAD_SIZE,
					   derived ? c->width / c->heads : standard->head_size);
}

static void read_llama_biases(struct fields *f, struct model_config *c)
{
	bool has_field = is_family(c, "llama") || is_family(c, "qwen3");

	c->out_bias = has_field && fields_flag(f, "attention_bias", false);
	c->qkv_bias = c->out_bias || is_family(c, "qwen2");
	c->mlp_bias = is_family(c, "llama") && fields_flag(f, "mlp_bias", false);
	c->qk_norm = is_family(c, "qwen3");
}

static void read_llama(struct fields *f, struct model_config *c)
{
	const struct standard *standard = standard_of(c);
	bool qwen = is_family(c, "qwen2") || is_family(c, "qwen3");

	c->width = read_size(f, "hidden_size", NULL, MOST_WIDTH);
	c->blocks = read_size(f, "num_hidden_layers", NULL, MOST_BLOCKS);
	read_llama_heads(f, c);
	c->mlp = read_size(f, "intermediate_size", NULL, MOST_SIZE);
	c->vocabulary = read_size(f, "vocab_size", NULL, MOST_SIZE);
	c->positions = (int)fields_integer(f, "max_position_embeddings", 1, MOST_POSITIONS,
					   standard->positions);
	c->norm_epsilon = (float)fields_number(f, "rms_norm_eps", 0, 1, 1e-6);
	c->tied = fields_flag(f, "tie_word_embeddings", false);
	c->own_dropout = any_dropout(f, "attention_dropout", 0);
	read_llama_biases(f, c);
	check_silu(f);
	read_end_token(f, c, qwen ? -1 : 2);
	read_rope(f, c);
}

/* -- the whole ----------------------------------------------------------------------------- */

static int read_fields(struct fields *f, struct model_config *config)
{
	if (read_family(f, config) < 0)
		return -1;
	refuse_foreign(f);
	if (config->family->gpt2)
		read_gpt2(f, config);
	else
		read_llama(f, config);
	check_heads(f, config);
	if (f->failed)
		return -1;
	config->window = arena_take(&config->arena, (size_t)config->blocks * sizeof(int));
	if (!config->family->gpt2)
		read_windows(f, config);
	return f->failed ? -1 : 0;
}

struct model_config *model_config_read(const char *folder)
{
	struct model_config *config = xzalloc(1, sizeof(*config));
	struct json *map = NULL;
	char *data = NULL;
	size_t bytes;

	config->folder = path_absolute(&config->arena, folder);
	if (!config->folder)
		goto fail;
	if (!path_exists(folder)) {
		report(EXIT_INPUT, "cannot find the model folder '%s'", folder);
		goto fail;
	}
	struct fields f = {path_join(&config->arena, folder, "config.json"), NULL, false};
	map = json_read_map(f.path, MOST_BYTES, &data, &bytes);
	if (!map)
		goto fail;
	f.map = map;
	if (read_fields(&f, config) < 0)
		goto fail;
	config->digest = digest_of(data, bytes);
	json_free(map);
	free(data);
	return config;
fail:
	json_free(map);
	free(data);
	model_config_free(config);
	return NULL;
}

void model_config_free(struct model_config *config)
{
	if (!config)
		return;
	arena_release(&config->arena);
	free(config);
}
