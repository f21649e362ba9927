/*
 * bench/make_model.c - makes a Hugging Face model directory of a real shape with random
 * weights, so that speed and memory can be measured without anybody's weights.
 *
 * The tensors are those of the program's own table of families, so what is made is what is
 * read. Values are normal, a function of (seed, tensor, index), and streamed: memory does not
 * grow with the model.
 *
 * links: model
 */
#include "model/model.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PIECE ((size_t)1 << 16) /* elements made at a time, a multiple of 4 */

static const char usage[] =
	"make_model - a Hugging Face model directory of a real shape, with random weights\n"
	"\n"
	"  make_model gpt2 /tmp/gpt2 --dtype BF16\n"
	"\n"
	"Usage: make_model tiny|tiny-medium|small|gpt2|gpt2-medium|qwen2.5-0.5b OUT_DIR\n"
	"  --dtype F32|BF16   of the file (F32)\n"
	"  --seed N           of the values (1)\n"
	"  --config-only      no weights\n"
	"  --positions N      longest sequence (128 for tiny, 32 for tiny-medium, 256 for small, 1024 for gpt2, 32768 for\n"
	"                     qwen)\n";

/* -- shapes -------------------------------------------------------------------------------- */

static const struct shape {
	const char *name;
	bool gpt2;
	int vocabulary, positions, width, blocks, heads, kv_heads, mlp;
} shapes[] = {
	{"tiny", true, 1000, 128, 64, 4, 4, 4, 256},
	/* The proportions of gpt2-medium with sequences of 32 tokens: a head as long as 3.3 blocks. */
	{"tiny-medium", true, 2825, 32, 64, 24, 4, 4, 256},
	/* Of which two cores train a step of some thousand tokens in about a second. */
	{"small", true, 4096, 256, 384, 6, 6, 6, 1536},
	{"gpt2", true, 50257, 1024, 768, 12, 12, 12, 3072},
	{"gpt2-medium", true, 50257, 1024, 1024, 24, 16, 16, 4096},
	{"qwen2.5-0.5b", false, 151936, 32768, 896, 24, 14, 2, 4864},
};
#define SHAPES (sizeof shapes / sizeof shapes[0])

struct order {
	const struct shape *shape;
	const char *folder;
	enum dtype dtype;
	uint64_t seed;
	int positions;
	bool config_only;
};

static void add_gpt2(struct text *json, const struct shape *s, int positions)
{
	text_add(json,
		 "  \"architectures\": [\"GPT2LMHeadModel\"],\n  \"model_type\": \"gpt2\",\n");
	text_add(json, "  \"vocab_size\": %d,\n  \"n_positions\": %d,\n  \"n_embd\": %d,\n",
		 s->vocabulary, positions, s->width);
	text_add(json, "  \"n_layer\": %d,\n  \"n_head\": %d,\n", s->blocks, s->heads);
	text_add(json, "  \"activation_function\": \"gelu_new\",\n");
	text_add(json, "  \"layer_norm_epsilon\": 1e-05,\n  \"resid_pdrop\": 0.0,\n");
	text_add(json, "  \"embd_pdrop\": 0.0,\n  \"attn_pdrop\": 0.0,\n");
}

static void add_qwen2(struct text *json, const struct shape *s, int positions)
{
	text_add(json, "  \"architectures\": [\"Qwen2ForCausalLM\"],\n");
	text_add(json, "  \"model_type\": \"qwen2\",\n  \"hidden_act\": \"silu\",\n");
	text_add(json, "  \"vocab_size\": %d,\n  \"max_position_embeddings\": %d,\n",
		 s->vocabulary, positions);
	text_add(json, "  \"hidden_size\": %d,\n  \"intermediate_size\": %d,\n", s->width,
		 s->mlp);
	text_add(json, "  \"num_hidden_layers\": %d,\n  \"num_attention_heads\": %d,\n",
		 s->blocks, s->heads);
	text_add(json, "  \"num_key_value_heads\": %d,\n  \"rms_norm_eps\": 1e-06,\n",
		 s->kv_heads);
	text_add(json, "  \"rope_theta\": 1000000.0,\n  \"use_sliding_window\": false,\n");
}

static int write_config(const struct order *order)
{
	struct arena arena = {0};
	struct text json = {0};

	text_add(&json, "{\n");
	(order->shape->gpt2 ? add_gpt2 : add_qwen2)(&json, order->shape, order->positions);
	text_add(&json, "  \"tie_word_embeddings\": true,\n  \"torch_dtype\": \"%s\"\n}\n",
		 order->dtype == DTYPE_F32 ? "float32" : "bfloat16");
	int done = file_replace(path_join(&arena, order->folder, "config.json"), json.data,
				json.bytes);
	text_release(&json);
	arena_release(&arena);
	return done;
}

/* -- values -------------------------------------------------------------------------------- */

/* Four independent normal numbers: two Box-Muller pairs out of one Philox block. */
static void four_normal(float *to, uint64_t seed, uint32_t tensor, uint64_t block)
{
	struct philox at = {{(uint32_t)block, (uint32_t)(block >> 32), tensor, 0}};
	struct philox p = philox(at, (uint32_t)seed, (uint32_t)(seed >> 32));

	for (int i = 0; i < 4; i += 2) {
		float radius = sqrtf(-2.0f * logf(1.0f - philox_unit(p.word[i])));
		float angle = 6.2831853f * philox_unit(p.word[i + 1]);

		to[i] = radius * cosf(angle);
		to[i + 1] = radius * sinf(angle);
	}
}

/* Rounds to the nearest bfloat16, ties to even. The values are finite. */
static uint16_t to_bf16(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof bits);
	return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

struct tensor_plan {
	const struct tensor_row *row;
	int block;
	uint32_t number;
};

/* Mean and deviation: norms near 1, embeddings as GPT-2's, linears keep the size of what they
 * read. */
static void scale_of(const struct model_config *config, const struct tensor_row *row,
		     float *mean, float *deviation)
{
	bool bias = strstr(row->name, "bias") != NULL;
	int inputs = dim_size(config, row->transposed ? row->rows : row->cols);

	*mean = row->cols == DIM_NONE && !bias ? 1.0f : 0.0f;
	*deviation = row->linear ? 1.0f / sqrtf((float)inputs) : 0.02f;
}

static int write_values(FILE *file, const struct order *order,
			const struct model_config *config, const struct tensor_plan *plan)
{
	size_t count = row_elements(config, plan->row),
	       wide = order->dtype == DTYPE_F32 ? 4 : 2;
	float *value = xalloc(PIECE * sizeof *value), mean, deviation;
	uint16_t *narrow = xalloc(PIECE * sizeof *narrow);
	int done = 0;

	scale_of(config, plan->row, &mean, &deviation);
	for (size_t at = 0; at < count && done == 0; at += PIECE) {
		size_t n = count - at < PIECE ? count - at : PIECE;

		for (size_t i = 0; i < n; i += 4)
			four_normal(value + i, order->seed, plan->number, (at + i) / 4);
		for (size_t i = 0; i < n; i++) {
			value[i] = mean + deviation * value[i];
			narrow[i] = to_bf16(value[i]);
		}
		if (fwrite(wide == 4 ? (void *)value : (void *)narrow, wide, n, file) != n)
			done = error(EXIT_IO, "cannot write '%s': %s", order->folder,
				     strerror(errno));
	}
	free(value);
	free(narrow);
	return done;
}

/* -- the file ------------------------------------------------------------------------------ */

/* Calls each for every tensor of the model, in one order; stops at an error. */
static int for_each(const struct model_config *config,
		    int (*each)(void *arg, const struct tensor_plan *plan), void *arg)
{
	struct tensor_plan plan = {0};

	for (plan.block = -1; plan.block < config->blocks; plan.block++) {
		for (plan.row = config->family->row; plan.row->name; plan.row++) {
			bool inside = plan.row->slot > SLOT_HEAD;

			if (inside != (plan.block >= 0) ||
			    (plan.row->present && !plan.row->present(config)))
				continue;
			if (each(arg, &plan) < 0)
				return -1;
			plan.number++;
		}
	}
	return 0;
}

struct writing {
	const struct order *order;
	const struct model_config *config;
	struct text header;
	size_t offset;
	FILE *file;
};

static int add_header(void *arg, const struct tensor_plan *plan)
{
	struct writing *w = arg;
	const struct family *family = w->config->family;
	size_t bytes = row_elements(w->config, plan->row) * dtype_bytes(w->order->dtype);

	text_add(&w->header, "%s\"", plan->number ? "," : "{");
	if (plan->block >= 0)
		text_add(&w->header, "%s%s%d.", family->prefix, family->block_prefix,
			 plan->block);
	else if (plan->row->slot != SLOT_HEAD)
		text_add(&w->header, "%s", family->prefix);
	text_add(&w->header, "%s\":{\"dtype\":\"%s\",\"shape\":[%d", plan->row->name,
		 dtype_name(w->order->dtype), dim_size(w->config, plan->row->rows));
	if (plan->row->cols != DIM_NONE)
		text_add(&w->header, ",%d", dim_size(w->config, plan->row->cols));
	text_add(&w->header, "],\"data_offsets\":[%zu,%zu]}", w->offset, w->offset + bytes);
	w->offset += bytes;
	return 0;
}

static int add_values(void *arg, const struct tensor_plan *plan)
{
	struct writing *w = arg;

	return write_values(w->file, w->order, w->config, plan);
}

static int write_file(struct writing *w, const char *path)
{
	for_each(w->config, add_header, w);
	text_add(&w->header, "}");
	while (w->header.bytes % 8)
		text_put(&w->header, " ", 1);
	uint64_t bytes =
	    w->header.bytes; /* little-endian, as the machines that are supported */

	w->file = fopen(path, "wbe");
	if (!w->file)
		return error(EXIT_CREATE, "cannot create '%s': %s", path, strerror(errno));
	bool written = fwrite(&bytes, sizeof bytes, 1, w->file) == 1 &&
		       fwrite(w->header.data, 1, bytes, w->file) == bytes;
	int done = written ? for_each(w->config, add_values, w) : -1;
	if ((fclose(w->file) != 0 || !written) && error_code() == 0)
		done = error(EXIT_IO, "cannot write '%s': %s", path, strerror(errno));
	return done;
}

static int make(const struct order *order)
{
	struct arena arena = {0};
	struct writing w = {.order = order};
	int done = -1;

	if (folder_make(order->folder) < 0 || write_config(order) < 0)
		goto release;
	if (order->config_only) {
		done = 0;
		goto release;
	}
	struct model_config *config = model_config_read(order->folder);
	if (!config)
		goto release;
	w.config = config;
	done = write_file(&w, path_join(&arena, order->folder, "model.safetensors"));
	if (done == 0)
		say("%s: %zu parameters, %zu bytes", order->folder, model_parameters(config),
		    w.offset);
	model_config_free(config);
release:
	text_release(&w.header);
	arena_release(&arena);
	return done;
}

/* -- command line -------------------------------------------------------------------------- */

static int read_number(const char *text, const char *option, uint64_t most, uint64_t *number)
{
	char *end;

	errno = 0;
	*number = strtoull(text, &end, 10);
	if (errno || end == text || *end || *number > most)
		return error(EXIT_USAGE, "'%s' is no value for --%s", text, option);
	return 0;
}

static int read_options(struct order *order, int argc, char **argv)
{
	static const struct option options[] = {
		{"dtype", required_argument, NULL, 'd'},
		{"seed", required_argument, NULL, 's'},
		{"positions", required_argument, NULL, 'p'},
		{"config-only", no_argument, NULL, 'c'},
		{0},
	};
	uint64_t positions = 0;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'd' && strcmp(optarg, "BF16") == 0)
			order->dtype = DTYPE_BF16;
		else if (option == 'd' && strcmp(optarg, "F32") == 0)
			order->dtype = DTYPE_F32;
		else if (option == 'c')
			order->config_only = true;
		else if (option == 's' &&
			 read_number(optarg, "seed", UINT64_MAX, &order->seed) == 0)
			continue;
		else if (option == 'p' &&
			 read_number(optarg, "positions", 1 << 20, &positions) == 0)
			continue;
		else
			return error_code() ? -1 : error(EXIT_USAGE, "%s", usage);
	}
	for (size_t i = 0; i < SHAPES && argc - optind == 2; i++) {
		if (strcmp(shapes[i].name, argv[optind]) == 0)
			order->shape = &shapes[i];
	}
	if (!order->shape) {
		fputs(usage, stderr);
		return error(EXIT_USAGE, "a name of a shape and a folder are needed");
	}
	order->folder = argv[optind + 1];
	order->positions = positions ? (int)positions : order->shape->positions;
	return 0;
}

int main(int argc, char **argv)
{
	struct order order = {.dtype = DTYPE_F32, .seed = 1};

	if (read_options(&order, argc, argv) < 0 || make(&order) < 0)
		return error_code();
	return EXIT_SUCCESS;
}
