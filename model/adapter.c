/*
 * PEFT adapter directories: adapter_config.json and adapter_model.safetensors.
 *
 * PEFT 0.21 writes 41 fields, most of them null. Those that change what the weights mean are
 * refused unless they say nothing (null, false, empty); all others are ignored. What is written
 * is the same bytes for the same values.
 */
#include "model/model.h"
#include "model/internal.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BYTES ((size_t)1 << 20) /* of adapter_config.json */
#define MOST_TARGETS 4096
#define MOST_RANK 65536

/* -- reading ------------------------------------------------------------------------------- */

/* Fields that change what the weights mean, or how they were made from other base weights. A
 * name that ends with '_' stands for all fields that start with it. */
static const char *const refused[] = {
	"use_",
	"alora_",
	"lora_bias",
	"modules_to_save",
	"exclude_modules",
	"trainable_token_indices",
	"layer_replication",
	"target_parameters",
	"rank_pattern",
	"alpha_pattern",
	"layers_to_transform",
	"layers_pattern",
	"arrow_config",
	"kasa_config",
	"monteclora_config",
	"velora_config",
	"ensure_weight_tying",
};

static bool is_refused(const char *key)
{
	if (strcmp(key, "use_rslora") == 0)
		return false;
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		size_t bytes = strlen(refused[i]);

		if (refused[i][bytes - 1] == '_' ? strncmp(key, refused[i], bytes) == 0
						 : strcmp(key, refused[i]) == 0)
			return true;
	}
	return false;
}

/* Plain: what training started from does not matter. Others change the base weights too. */
static void check_initialization(struct fields *f)
{
	const struct json *value = json_find(f->map, "init_lora_weights");
	const char *word = json_as_text(value, NULL);

	if (!fields_given(f, "init_lora_weights") || json_kind(value) == JSON_FLAG ||
	    (word && strcmp(word, "gaussian") == 0))
		return;
	report(EXIT_CONFIG,
	       "cannot use '%s': \"init_lora_weights\": \"%s\" is not built (true, false "
	       "and gaussian are)",
	       f->path, word ? word : "?");
	f->failed = true;
}

static void check_meaning(struct fields *f)
{
	const char *type = fields_text(f, "peft_type", "LORA");
	const char *bias = fields_text(f, "bias", "none");

	if (strcmp(type, "LORA") != 0)
		fields_refuse(f, "peft_type", "adapters other than LORA are not built");
	if (strcmp(bias, "none") != 0)
		fields_refuse(f, "bias", "trained biases are not built (\"none\" is)");
	check_initialization(f);
	for (void *it = json_first(f->map); it; it = json_next(f->map, it))
		if (is_refused(json_name(it)) && !json_is_nothing(json_value(it)))
			fields_refuse(f, json_name(it), "is not built");
}

static int bad_targets(struct fields *f, const char *why)
{
	f->failed = true;
	return error(EXIT_DATA, "cannot use '%s': \"target_modules\" %s", f->path, why);
}

static int read_targets(struct fields *f, struct arena *arena, struct adapter_config *adapter)
{
	const struct json *value = json_find(f->map, "target_modules");
	bool is_list = json_kind(value) == JSON_LIST;
	size_t count = is_list ? json_size(value) : 1;

	adapter->targets_are_pattern = json_kind(value) == JSON_TEXT;
	if (!is_list && !adapter->targets_are_pattern)
		return bad_targets(f, "is neither a list of names nor a regular expression");
	if (count > MOST_TARGETS)
		return bad_targets(f, "has too many names");
	adapter->targets.item = arena_take(arena, (count + 1) * sizeof(*adapter->targets.item));
	for (size_t i = 0; i < count; i++) {
		const struct json *item = is_list ? json_at(value, i) : value;
		const char *text = json_as_text(item, "");

		if (text[0] == '\0' || strlen(text) != json_text_bytes(item))
			return bad_targets(f, "holds something that is not a name");
		adapter->targets.item[adapter->targets.count++] =
		    arena_copy(arena, text, strlen(text));
	}
	return 0;
}

struct adapter_config *adapter_config_read(struct arena *arena, const char *folder)
{
	struct adapter_config *adapter = arena_take(arena, sizeof(*adapter));
	struct fields f = {path_join(arena, folder, "adapter_config.json"), NULL, false};

	if (!path_exists(folder))
		return error_null(EXIT_INPUT, "cannot find the adapter folder '%s'", folder);
	struct json *map = json_read_map(f.path, MOST_BYTES, NULL, NULL);
	if (!map)
		return NULL;
	f.map = map;
	check_meaning(&f);
	/* standard values are PEFT's (LoraConfig) */
	adapter->rank = (int)fields_integer(&f, "r", 1, MOST_RANK, 8);
	adapter->alpha = fields_number(&f, "lora_alpha", -FLT_MAX, FLT_MAX, 8);
	adapter->dropout = fields_number(&f, "lora_dropout", 0, 0.999, 0);
	adapter->rslora = fields_flag(&f, "use_rslora", false);
	adapter->fan_in_fan_out = fields_flag(&f, "fan_in_fan_out", false);
	const char *base = fields_text(&f, "base_model_name_or_path", "");
	adapter->base = arena_copy(arena, base, strlen(base));
	read_targets(&f, arena, adapter);
	json_free(map);
	return f.failed ? NULL : adapter;
}

/* -- writing ------------------------------------------------------------------------------- */

/* The shortest decimal number that reads back as the same double; with ".0" where whole and a
 * fraction is usual. */
static void add_number(struct text *text, double value, bool fraction)
{
	char digits[40];

	for (int precision = 1; precision <= 17; precision++) {
		snprintf(digits, sizeof(digits), "%.*g", precision, value);
		if (strtod(digits, NULL) == value)
			break;
	}
	/* 1e+01 where 10 is meant */
	if (value == floor(value) && fabs(value) < 1e15)
		snprintf(digits, sizeof(digits), "%.0f", value);
	text_add(text, "%s%s", digits, fraction && !strpbrk(digits, ".e") ? ".0" : "");
}

/* The fields that PEFT, vLLM and llama.cpp ask for, sorted and spaced as PEFT does. */
static void make_config(struct text *text, const struct lora *lora,
			const struct model_config *config)
{
	text_add(text, "{\n  \"alpha_pattern\": {},\n  \"base_model_name_or_path\": ");
	json_add_text(text, config->folder);
	text_add(text,
		 ",\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": %s,\n"
		 "  \"inference_mode\": true,\n  \"lora_alpha\": ",
		 lora->fan_in_fan_out ? "true" : "false");
	add_number(text, lora->alpha, false);
	text_add(text, ",\n  \"lora_dropout\": ");
	add_number(text, lora->dropout, true);
	text_add(text,
		 ",\n  \"modules_to_save\": null,\n  \"peft_type\": \"LORA\",\n  \"r\": %d,\n"
		 "  \"rank_pattern\": {},\n  \"target_modules\": [\n",
		 lora->rank);
	for (int i = 0; i < lora->modules; i++) {
		text_add(text, "    ");
		json_add_text(text, lora->module[i]);
		text_add(text, i + 1 < lora->modules ? ",\n" : "\n");
	}
	text_add(text,
		 "  ],\n  \"task_type\": \"CAUSAL_LM\",\n  \"use_dora\": false,\n"
		 "  \"use_rslora\": %s\n}\n",
		 lora->rslora ? "true" : "false");
}

static int write_config(const char *path, const struct lora *lora,
			const struct model_config *config)
{
	struct text text = {0};

	make_config(&text, lora, config);
	int rc = file_write(path, text.data, text.bytes);
	text_release(&text);
	return rc;
}

static int write_tensors(const char *path, const struct lora *lora, const float *values)
{
	static const char *const metadata[] = {"format", "pt", NULL};
	struct safetensors_entry *entry = xzalloc((size_t)lora->count, sizeof(*entry));

	for (int i = 0; i < lora->count; i++) {
		const struct lora_tensor *tensor = &lora->tensor[i];

		entry[i] = (struct safetensors_entry){.name = tensor->name,
						      .dtype = DTYPE_F32,
						      .dims = 2,
						      .shape = {tensor->rows, tensor->cols},
						      .data = values + tensor->offset};
	}
	int rc = safetensors_write(path, entry, lora->count, metadata);
	free(entry);
	return rc;
}

int adapter_write(const char *folder, const struct lora *lora,
		  const struct model_config *config, const float *values)
{
	struct arena arena = {0};
	const char *temporary = arena_format(&arena, "%s.tmp", folder);
	int rc = -1;

	if (folder_remove(temporary) < 0 || folder_make(temporary) < 0)
		goto done;
	if (write_config(path_join(&arena, temporary, "adapter_config.json"), lora, config) < 0)
		goto done;
	if (write_tensors(path_join(&arena, temporary, "adapter_model.safetensors"), lora,
			  values) < 0)
		goto done;
	rc = folder_publish(temporary, folder);
done:
	if (rc < 0)
		folder_remove(temporary);
	arena_release(&arena);
	return rc;
}
