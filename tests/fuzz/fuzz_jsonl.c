/*
 * tests/fuzz/fuzz_jsonl.c - data files of one JSON map a line, in whichever form the first line has.
 *
 * links: model
 */
#include "model/model.h"
#include "tests/fuzz/fuzz.h"

static const char config_json[] =
	"{\"model_type\": \"gpt2\", \"n_embd\": 8, \"n_head\": 2, \"n_layer\": 1, \"n_positions\": 64, "
	"\"vocab_size\": 512, \"eos_token_id\": 0}";

/* The target's own model, for as long as the process runs. */
static struct model_config *model;

static void close_model(void)
{
	model_config_free(model);
}

/* Adds the spelling of a byte as GPT-2 has it, as a JSON escape. */
static void add_byte(struct text *text, int byte, int *next)
{
	bool plain = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);

	text_add(text, ", \"\\u%04x\": %d", (unsigned)(plain ? byte : 256 + (*next)++), byte + 1);
}

/* A tokenizer of the 256 bytes. */
static void write_tokenizer(void)
{
	struct text text = {0};
	char path[128];
	int next = 0;

	text_add(&text, "{\"added_tokens\": [{\"id\": 0, \"content\": \"<|endoftext|>\", \"special\": true}], "
			"\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, "
			"\"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"merges\": [], "
			"\"vocab\": {\"<|endoftext|>\": 0");
	for (int byte = 0; byte < 256; byte++)
		add_byte(&text, byte, &next);
	text_add(&text, "}}}");
	fuzz_file("tokenizer.json", text.data, text.bytes, path);
	text_release(&text);
}

static const struct model_config *open_model(void)
{
	char path[128];

	if (model)
		return model;
	write_tokenizer();
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
	struct data_config want = {.sequence = 32, .cache = "none"};
	char path[128];

	fuzz_file("data.jsonl", data, bytes, path);
	struct dataset *dataset = dataset_open(path, "train", &want, config);

	fuzz_done(!dataset);
	dataset_close(dataset);
	return 0;
}
