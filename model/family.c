/*
 * The table of families: one row per tensor of a model. Loading, checking, LoRA targets, counts
 * and memory estimates are loops over it, so a family is added by adding rows.
 *
 * The order of the linears in a block is the order in which their adapters stand in every
 * family of values and in every checkpoint. Sizes and FLOPs that follow from the table are
 * counted here too.
 */
#include "model/model.h"

#include <string.h>

static bool has_head(const struct model_config *config) { return !config->tied; }
static bool has_qkv_bias(const struct model_config *config) { return config->qkv_bias; }
static bool has_out_bias(const struct model_config *config) { return config->out_bias; }
static bool has_mlp_bias(const struct model_config *config) { return config->mlp_bias; }
static bool has_qk_norm(const struct model_config *config) { return config->qk_norm; }

/* slot, name, rows, cols, linear, transposed, present */
static const struct tensor_row gpt2_row[] = {
	{SLOT_EMBED, "wte.weight", DIM_VOCABULARY, DIM_WIDTH, false, false, NULL},
	{SLOT_POSITIONS, "wpe.weight", DIM_POSITIONS, DIM_WIDTH, false, false, NULL},
	{SLOT_FINAL_NORM, "ln_f.weight", DIM_WIDTH, DIM_NONE, false, false, NULL},
	{SLOT_FINAL_NORM_BIAS, "ln_f.bias", DIM_WIDTH, DIM_NONE, false, false, NULL},
	{SLOT_HEAD, "lm_head.weight", DIM_VOCABULARY, DIM_WIDTH, false, false, has_head},
	{SLOT_NORM1, "ln_1.weight", DIM_WIDTH, DIM_NONE, false, false, NULL},
	{SLOT_NORM1_BIAS, "ln_1.bias", DIM_WIDTH, DIM_NONE, false, false, NULL},
	{SLOT_QKV, "attn.c_attn.weight", DIM_WIDTH, DIM_QKV, true, true, NULL},
	{SLOT_QKV_BIAS, "attn.c_attn.bias", DIM_QKV, DIM_NONE, false, false, NULL},
	{SLOT_OUT, "attn.c_proj.weight", DIM_Q, DIM_WIDTH, true, true, NULL},
	{SLOT_OUT_BIAS, "attn.c_proj.bias", DIM_WIDTH, DIM_NONE, false, false, NULL},
	{SLOT_NORM2, "ln_2.weight", DIM_WIDTH, DIM_NONE, false, false, NULL},
	{SLOT_NORM2_BIAS, "ln_2.bias", DIM_WIDTH, DIM_NONE, false, false, NULL},
	{SLOT_UP, "mlp.c_fc.weight", DIM_WIDTH, DIM_MLP, true, true, NULL},
	{SLOT_UP_BIAS, "mlp.c_fc.bias", DIM_MLP, DIM_NONE, false, false, NULL},
	{SLOT_DOWN, "mlp.c_proj.weight", DIM_MLP, DIM_WIDTH, true, true, NULL},
	{SLOT_DOWN_BIAS, "mlp.c_proj.bias", DIM_WIDTH, DIM_NONE, false, false, NULL},
	{SLOTS, NULL, DIM_NONE, DIM_NONE, false, false, NULL},
};

static const struct tensor_row llama_row[] = {
	{SLOT_EMBED, "embed_tokens.weight", DIM_VOCABULARY, DIM_WIDTH, false, false, NULL},
	{SLOT_FINAL_NORM, "norm.weight", DIM_WIDTH, DIM_NONE, false, false, NULL},
	{SLOT_HEAD, "lm_head.weight", DIM_VOCABULARY, DIM_WIDTH, false, false, has_head},
	{SLOT_NORM1, "input_layernorm.weight", DIM_WIDTH, DIM_NONE, false, false, NULL},
	{SLOT_Q, "self_attn.q_proj.weight", DIM_Q, DIM_WIDTH, true, false, NULL},
	{SLOT_Q_BIAS, "self_attn.q_proj.bias", DIM_Q, DIM_NONE, false, false, has_qkv_bias},
	{SLOT_K, "self_attn.k_proj.weight", DIM_KV, DIM_WIDTH, true, false, NULL},
	{SLOT_K_BIAS, "self_attn.k_proj.bias", DIM_KV, DIM_NONE, false, false, has_qkv_bias},
	{SLOT_V, "self_attn.v_proj.weight", DIM_KV, DIM_WIDTH, true, false, NULL},
	{SLOT_V_BIAS, "self_attn.v_proj.bias", DIM_KV, DIM_NONE, false, false, has_qkv_bias},
	{SLOT_Q_NORM, "self_attn.q_norm.weight", DIM_HEAD_SIZE, DIM_NONE, false, false,
	 has_qk_norm},
	{SLOT_K_NORM, "self_attn.k_norm.weight", DIM_HEAD_SIZE, DIM_NONE, false, false,
	 has_qk_norm},
	{SLOT_OUT, "self_attn.o_proj.weight", DIM_WIDTH, DIM_Q, true, false, NULL},
	{SLOT_OUT_BIAS, "self_attn.o_proj.bias", DIM_WIDTH, DIM_NONE, false, false,
	 has_out_bias},
	{SLOT_NORM2, "post_attention_layernorm.weight", DIM_WIDTH, DIM_NONE, false, false, NULL},
	{SLOT_GATE, "mlp.gate_proj.weight", DIM_MLP, DIM_WIDTH, true, false, NULL},
	{SLOT_GATE_BIAS, "mlp.gate_proj.bias", DIM_MLP, DIM_NONE, false, false, has_mlp_bias},
	{SLOT_UP, "mlp.up_proj.weight", DIM_MLP, DIM_WIDTH, true, false, NULL},
	{SLOT_UP_BIAS, "mlp.up_proj.bias", DIM_MLP, DIM_NONE, false, false, has_mlp_bias},
	{SLOT_DOWN, "mlp.down_proj.weight", DIM_WIDTH, DIM_MLP, true, false, NULL},
	{SLOT_DOWN_BIAS, "mlp.down_proj.bias", DIM_WIDTH, DIM_NONE, false, false, has_mlp_bias},
	{SLOTS, NULL, DIM_NONE, DIM_NONE, false, false, NULL},
};

static const char *const gpt2_attention[] = {"c_attn", NULL};
static const char *const llama_attention[] = {"q_proj", "v_proj", NULL};

static const struct family family[] = {
	{"gpt2", "GPT2LMHeadModel", "transformer.", "h.", gpt2_row, gpt2_attention, true},
	{"llama", "LlamaForCausalLM", "model.", "layers.", llama_row, llama_attention, false},
	{"mistral", "MistralForCausalLM", "model.", "layers.", llama_row, llama_attention,
	 false},
	{"qwen2", "Qwen2ForCausalLM", "model.", "layers.", llama_row, llama_attention, false},
	{"qwen3", "Qwen3ForCausalLM", "model.", "layers.", llama_row, llama_attention, false},
};
enum { FAMILIES = sizeof(family) / sizeof(*family) };

const struct family *family_find(const char *model_type)
{
	for (int i = 0; i < FAMILIES; i++)
		if (model_type && strcmp(family[i].name, model_type) == 0)
			return &family[i];
	return NULL;
}

int family_names(const char **names, int room)
{
	for (int i = 0; i < FAMILIES && i < room; i++)
		names[i] = family[i].name;
	return FAMILIES;
}

int dim_size(const struct model_config *config, enum dim dim)
{
	switch (dim) {
	case DIM_NONE:
		return 1;
	case DIM_WIDTH:
		return config->width;
	case DIM_VOCABULARY:
		return config->vocabulary;
	case DIM_POSITIONS:
		return config->positions;
	case DIM_Q:
		return config->heads * config->head_size;
	case DIM_KV:
		return config->kv_heads * config->head_size;
	case DIM_QKV:
		return (config->heads + 2 * config->kv_heads) * config->head_size;
	case DIM_MLP:
		return config->mlp;
	case DIM_HEAD_SIZE:
		return config->head_size;
	}
	return 1;
}

const struct tensor_row *model_row(const struct model_config *config, enum slot slot)
{
	const struct tensor_row *row;

	for (row = config->family->row; row->name; row++)
		if (row->slot == slot)
			return !row->present || row->present(config) ? row : NULL;
	return NULL;
}

size_t row_elements(const struct model_config *config, const struct tensor_row *row)
{
	return (size_t)dim_size(config, row->rows) * (size_t)dim_size(config, row->cols);
}

size_t model_parameters(const struct model_config *config)
{
	const struct tensor_row *row;
	size_t sum = 0;

	for (row = config->family->row; row->name; row++) {
		if (row->present && !row->present(config))
			continue;
		sum += row_elements(config, row) * (row->slot > SLOT_HEAD ? config->blocks : 1);
	}
	return sum;
}

double model_block_flops(const struct model_config *config, int T)
{
	double attention = 6.0 * T * dim_size(config, DIM_Q);
	const struct tensor_row *row;
	double weights = 0;

	for (row = config->family->row; row->name; row++)
		if (row->linear)
			weights += (double)row_elements(config, row);
	return 4 * weights + attention;
}

double model_block_forward_flops(const struct model_config *config, int T)
{
	/* Half of the linears, a third of the attention. */
	return (model_block_flops(config, T) - 2.0 * T * dim_size(config, DIM_Q)) / 2;
}

/* Of the product with one of the file's linears; 0 where the model has none. */
static double product_flops(const struct model_config *config, enum slot slot)
{
	const struct tensor_row *row = model_row(config, slot);

	return row ? 2.0 * (double)row_elements(config, row) : 0;
}

const char *recompute_name(enum recompute level)
{
	return level == RECOMPUTE_NONE ? "none" : level == RECOMPUTE_MLP ? "mlp" : "block";
}

double model_block_again_flops(const struct model_config *config, int T, enum recompute level)
{
	switch (level) {
	case RECOMPUTE_NONE:
		return 0;
	case RECOMPUTE_MLP:
		return product_flops(config, SLOT_GATE) + product_flops(config, SLOT_UP);
	case RECOMPUTE_BLOCK:
		return model_block_forward_flops(config, T) - product_flops(config, SLOT_DOWN);
	}
	return 0;
}

double model_head_flops(const struct model_config *config)
{
	return 4.0 * config->vocabulary * config->width;
}
