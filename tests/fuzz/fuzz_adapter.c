/*
 * tests/fuzz/fuzz_adapter.c - adapter_config.json of other people's adapters, resolved against a model.
 *
 * links: model
 */
#include "model/model.h"
#include "tests/fuzz/fuzz.h"

static const char config_json[] =
	"{\"model_type\": \"gpt2\", \"n_embd\": 8, \"n_head\": 2, \"n_layer\": 3, \"n_positions\": 16, "
	"\"vocab_size\": 11}";

/* The target's own model, for as long as the process runs. */
static struct model_config *model;

static void close_model(void)
{
	model_config_free(model);
}

static const struct model_config *open_model(void)
{
	char path[128];

	if (model)
		return model;
	fuzz_file("config.json", config_json, strlen(config_json), path);
	model = model_config_read(fuzz_folder());
	if (!model)
		abort();
	atexit(close_model);
	return model;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	const struct model_config *config = open_model();
	struct lora_config want = {.rank = 8, .alpha = 16, .init = fuzz_folder()};
	char path[128];

	fuzz_file("adapter_config.json", data, bytes, path);
	struct lora *lora = lora_resolve(config, &want);

	fuzz_done(!lora);
	lora_free(lora);
	return 0;
}
