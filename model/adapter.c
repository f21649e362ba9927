/*
 * PEFT adapter directories, written: adapter_config.json and adapter_model.safetensors, the same
 * bytes for the same values.
 */
#include "model/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static void add_pattern(struct text *text, const char *key,
			const struct module_numbers *numbers)
{
	text_add(text, "  \"%s\": {", key);
	for (int i = 0; i < numbers->count; i++) {
		text_add(text, i ? ",\n    " : "\n    ");
		json_add_text(text, numbers->item[i].key);
		text_add(text, ": ");
		add_number(text, numbers->item[i].number, false);
	}
	text_add(text, numbers->count ? "\n  },\n" : "},\n");
}

/* The fields that PEFT, vLLM and llama.cpp ask for, sorted and spaced as PEFT does. */
static void make_config(struct text *text, const struct lora *lora,
			const char *base)
{
	text_add(text, "{\n");
	add_pattern(text, "alpha_pattern", &lora->alphas);
	text_add(text, "  \"base_model_name_or_path\": ");
	json_add_text(text, base);
	text_add(text,
		 ",\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": %s,\n"
		 "  \"inference_mode\": true,\n  \"lora_alpha\": ",
		 lora->fan_in_fan_out ? "true" : "false");
	add_number(text, lora->alpha, false);
	text_add(text, ",\n  \"lora_dropout\": ");
	add_number(text, lora->dropout, true);
	text_add(text,
		 ",\n  \"modules_to_save\": null,\n  \"peft_type\": \"LORA\",\n  \"r\": %d,\n",
		 lora->rank);
	add_pattern(text, "rank_pattern", &lora->ranks);
	text_add(text, "  \"target_modules\": [\n");
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

static int write_config(const char *path, const struct lora *lora, const char *base)
{
	struct text text = {0};

	make_config(&text, lora, base);
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
		  const struct model_config *config, const float *values,
		  const struct adapter_about *about)
{
	const char *base = about && about->base ? about->base : config->folder;
	const char *readme = about ? about->readme : NULL;
	struct arena arena = {0};
	const char *temporary = arena_format(&arena, "%s.tmp", folder);
	int rc = -1;

	if (folder_remove(temporary) < 0 || folder_make(temporary) < 0)
		goto done;
	if (write_config(path_join(&arena, temporary, "adapter_config.json"), lora, base) < 0)
		goto done;
	if (write_tensors(path_join(&arena, temporary, "adapter_model.safetensors"), lora,
			  values) < 0)
		goto done;
	if (readme && file_write(path_join(&arena, temporary, "README.md"), readme,
				 strlen(readme)) < 0)
		goto done;
	rc = folder_publish(temporary, folder);
done:
	if (rc < 0)
		folder_remove(temporary);
	arena_release(&arena);
	return rc;
}
