/*
 * tests/fuzz/fuzz_safetensors.c - safetensors files: the header, and that every tensor lies in the file.
 *
 * links: model
 */
#include "model/model.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	char path[128];

	fuzz_file("x.safetensors", data, bytes, path);
	struct safetensors *file = safetensors_open(path);

	for (int i = 0; file && i < file->count; i++) {
		const struct safetensor *tensor = &file->tensor[i];
		const volatile uint8_t *values = tensor->data;

		if (tensor->bytes) {
			(void)values[0];
			(void)values[tensor->bytes - 1];
		}
		if (safetensors_find(file, tensor->name) != tensor)
			abort();
	}
	fuzz_done(!file);
	safetensors_close(file);
	return 0;
}
