/*
 * tests/fuzz/fuzz_tokenizer_json.c - tokenizer.json; one that is accepted must encode and decode.
 *
 * links: model
 */
#include "tests/fuzz/fuzz_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	char path[128];

	fuzz_file("tokenizer.json", data, bytes, path);
	fuzz_tokenizer(fuzz_folder());
	return 0;
}
