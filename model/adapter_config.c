/*
 * adapter_config.json of PEFT adapters, read.
 *
 * PEFT 0.21 writes 41 fields, most of them null. What says nothing (null, false, empty) is
 * ignored, and so is what changes nothing; what changes the meaning and is not built is refused
 * by name. A field that nobody here knows is named in a warning.
 */
#include "model/internal.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BYTES ((size_t)1 << 20) /* of adapter_config.json */
#define MOST_NAMES 4096		     /* in a list or a pattern */
#define MOST_RANK 65536
#define MOST_PATTERNS 16 /* in layers_pattern */

/* Fields that change what the weights mean, or how they were made from other base weights. A
 * name that ends with '_' stands for all fields that start with it. */
static const char *const refused[] = {
	"use_", "alora_", "lora_bias", "modules_to_save", "exclude_modules",
	"trainable_token_indices", "layer_replication", "target_parameters", "arrow_config",
	"kasa_config", "monteclora_config", "velora_config", "corda_config", "eva_config",
	"lora_ga_config", "loftq_config", "ensure_weight_tying",
};
/* Fields that are read below. */
static const char *const taken[] = {
	"peft_type", "bias", "init_lora_weights", "r", "lora_alpha", "lora_dropout",
	"use_rslora", "fan_in_fan_out", "target_modules", "base_model_name_or_path",
	"rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern",
};
/* Fields that change nothing: where it comes from, what for, and settings of what is off. */
static const char *const harmless[] = {
	"auto_mapping", "inference_mode", "megatron_config", "megatron_core", "model_type",
	"parent_library", "peft_version", "qalora_group_size", "revision", "runtime_config",
	"task_type",
};
#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static bool is_in(const char *const *name, size_t count, const char *key)
{
	for (size_t i = 0; i < count; i++) {
		size_t bytes = strlen(name[i]);

		if (name[i][bytes - 1] == '_' ? strncmp(key, name[i], bytes) == 0
					      : strcmp(key, name[i]) == 0)
			return true;
	}
	return false;
}

/* What says something, and is not read. */
static void check_field(struct fields *f, const char *key)
{
	if (is_in(taken, COUNT(taken), key) || is_in(harmless, COUNT(harmless), key))
		return;
	if (is_in(refused, COUNT(refused), key))
		fields_refuse(f, key, "is not built");
	else
		warn("'%s': \"%.64s\" is a field that this program does not know; it is ignored",
		     f->path, key);
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
		if (!json_is_nothing(json_value(it)))
			check_field(f, json_name(it));
}

static void wrong(struct fields *f, const char *key, const char *why)
{
	report(EXIT_DATA, "cannot use '%s': \"%s\" %s", f->path, key, why);
	f->failed = true;
}

/* A text without NULs that is not empty; else null. */
static const char *plain_text(const struct json *value)
{
	const char *text = json_as_text(value, "");

	return text[0] && strlen(text) == json_text_bytes(value) ? text : NULL;
}

static void read_targets(struct fields *f, struct arena *arena, struct adapter_config *adapter)
{
	const struct json *value = json_find(f->map, "target_modules");
	bool is_list = json_kind(value) == JSON_LIST;
	size_t count = is_list ? json_size(value) : 1;

	adapter->targets_are_pattern = json_kind(value) == JSON_TEXT;
	if (!is_list && !adapter->targets_are_pattern) {
		wrong(f, "target_modules", "is neither a list of names nor a regular expression");
		return;
	}
	if (count > MOST_NAMES) {
		wrong(f, "target_modules", "has too many names");
		return;
	}
	adapter->targets.item = arena_take(arena, (count + 1) * sizeof(*adapter->targets.item));
	for (size_t i = 0; i < count; i++) {
		const char *text = plain_text(is_list ? json_at(value, i) : value);

		if (!text) {
			wrong(f, "target_modules", "holds something that is not a name");
			return;
		}
		adapter->targets.item[adapter->targets.count++] =
		    arena_copy(arena, text, strlen(text));
	}
}

/* Whether a value is a list of whole numbers, or one. */
static bool is_whole_numbers(const struct json *value)
{
	if (json_kind(value) != JSON_LIST)
		return json_kind(value) == JSON_WHOLE;
	for (size_t i = 0; i < json_size(value); i++)
		if (json_kind(json_at(value, i)) != JSON_WHOLE)
			return false;
	return true;
}

/* A list without items stands for all blocks, as in PEFT. */
static void read_layers(struct fields *f, struct arena *arena, struct adapter_config *adapter)
{
	const struct json *value = json_find(f->map, "layers_to_transform");
	bool is_list = json_kind(value) == JSON_LIST;
	size_t count = is_list ? json_size(value) : 1;

	if (!fields_given(f, "layers_to_transform") || (is_list && count == 0))
		return;
	if (adapter->targets_are_pattern)
		wrong(f, "layers_to_transform",
		      "stands beside a target_modules that is a regular expression");
	if (count > MOST_NAMES || !is_whole_numbers(value)) {
		wrong(f, "layers_to_transform", "is neither a number of a block nor a list of such");
		return;
	}
	adapter->layer = arena_take(arena, count * sizeof(*adapter->layer));
	adapter->layers = (int)count;
	for (size_t i = 0; i < count; i++)
		adapter->layer[i] = json_as_integer(is_list ? json_at(value, i) : value, -1);
}

static void read_layers_pattern(struct fields *f, struct arena *arena,
				struct adapter_config *adapter)
{
	const struct json *value = json_find(f->map, "layers_pattern");
	bool is_list = json_kind(value) == JSON_LIST;
	size_t count = is_list ? json_size(value) : 1;

	if (json_is_nothing(value))
		return;
	if (adapter->layers == 0)
		wrong(f, "layers_pattern", "stands there without layers_to_transform");
	if (count > MOST_PATTERNS) {
		wrong(f, "layers_pattern", "has too many patterns");
		return;
	}
	adapter->layers_pattern.item =
	    arena_take(arena, count * sizeof(*adapter->layers_pattern.item));
	for (size_t i = 0; i < count; i++) {
		const char *text = plain_text(is_list ? json_at(value, i) : value);

		if (!text) {
			wrong(f, "layers_pattern", "holds something that is not a text");
			return;
		}
		adapter->layers_pattern.item[adapter->layers_pattern.count++] =
		    arena_copy(arena, text, strlen(text));
	}
}

/* rank_pattern or alpha_pattern: a map from patterns to numbers. */
static void read_pattern(struct fields *f, struct arena *arena, const char *key, bool ranks,
			 struct module_numbers *numbers)
{
	const struct json *map = json_find(f->map, key);

	if (json_is_nothing(map))
		return;
	if (json_kind(map) != JSON_MAP || json_size(map) > MOST_NAMES) {
		wrong(f, key, json_kind(map) != JSON_MAP ? "is not a map from modules to numbers"
							 : "has too many modules");
		return;
	}
	numbers->item = arena_take(arena, json_size(map) * sizeof(*numbers->item));
	for (void *it = json_first(map); it; it = json_next(map, it)) {
		const struct json *value = json_value(it);
		double number = json_as_number(value, NAN);
		bool right = ranks ? json_kind(value) == JSON_WHOLE && number >= 1 &&
					 number <= MOST_RANK
				   : fabs(number) <= (double)FLT_MAX;

		if (!right) {
			wrong(f, key, arena_format(arena, "gives \"%s\" a number that is not %s",
						   json_name(it),
						   ranks ? "a whole one from 1 to 65536"
							 : "one of float32"));
			return;
		}
		numbers->item[numbers->count++] = (struct module_number){
		    arena_copy(arena, json_name(it), strlen(json_name(it))), number};
	}
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
	read_layers(&f, arena, adapter);
	read_layers_pattern(&f, arena, adapter);
	read_pattern(&f, arena, "rank_pattern", true, &adapter->ranks);
	read_pattern(&f, arena, "alpha_pattern", false, &adapter->alphas);
	json_free(map);
	return f.failed ? NULL : adapter;
}
