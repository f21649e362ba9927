/*
 * tests/model_files.h - what the tests of model/ share: a temporary folder, files in it, and
 * tiny models whose tensors are made from their family's table.
 */
#ifndef EDGEPIPE_TESTS_MODEL_FILES_H
#define EDGEPIPE_TESTS_MODEL_FILES_H

#include "model/model.h"
#include "tests/folder.h"
#include "tests/suite.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* What is made for the tests of this program; it lives as long as the program. */
static struct arena paths;

/* A path inside the temporary folder. */
static inline char *at(const char *name)
{
	return path_join(&paths, scratch, name);
}

/* Not file_write: its fsync would cost the tests seconds. */
static inline void put(const char *path, const void *data, size_t bytes)
{
	FILE *file = fopen(path, "wb");

	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq(fwrite(data, 1, bytes, file), bytes);
	ck_assert_int_eq(fclose(file), 0);
}

static inline void put_text(const char *path, const char *text)
{
	put(path, text, strlen(text));
}

static inline char *read_text(const char *path)
{
	size_t bytes;
	char *text = file_read(path, &bytes);

	ck_assert_ptr_nonnull(text);
	return text;
}

/* After error_hold and a call that failed: the code, and words that the message must hold. */
#define assert_said(code, words)                                                               \
	do {                                                                                   \
		int code_ = error_code();                                                      \
		const char *text_ = error_text();                                              \
		ck_assert_msg(code_ == (code), "code %d instead of %d: %s", code_, (code),     \
			      text_);                                                          \
		ck_assert_msg(strstr(text_, (words)) != NULL, "\"%s\" is not in: %s", (words), \
			      text_);                                                          \
		error_clear();                                                                 \
	} while (0)

/* A folder with a config.json. */
static inline char *model_folder(const char *name, const char *config)
{
	char *folder = at(name);

	ck_assert_int_eq(folder_make(folder), 0);
	put_text(path_join(&paths, folder, "config.json"), config);
	return folder;
}

#define GPT2_TINY                                                                              \
	"{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_head\":2,\"n_layer\":3,\"n_positions\":16," \
	"\"vocab_size\":11,\"architectures\":[\"GPT2LMHeadModel\"]}"
#define LLAMA_TINY                                                                             \
	"{\"model_type\":\"llama\",\"hidden_size\":8,\"num_attention_heads\":4,"               \
	"\"num_key_value_heads\":2,\"num_hidden_layers\":3,\"intermediate_size\":12,"          \
	"\"vocab_size\":11,\"architectures\":[\"LlamaForCausalLM\"]}"

/* The name of a tensor as transformers writes it, or without the family's prefix. */
static inline const char *tensor_name(const struct model_config *config,
				      const struct tensor_row *row, int block, bool prefix)
{
	const struct family *f = config->family;
	const char *start = prefix && row->slot != SLOT_HEAD ? f->prefix : "";

	if (row->slot <= SLOT_HEAD)
		return arena_format(&paths, "%s%s", start, row->name);
	return arena_format(&paths, "%s%s%d.%s", start, f->block_prefix, block, row->name);
}

/* Entries of all tensors of a model, every number of tensor i being i; returns how many. */
static inline int model_entries(const struct model_config *config, bool prefix,
				struct safetensors_entry *entry, int room)
{
	int count = 0;

	for (const struct tensor_row *row = config->family->row; row->name; row++) {
		if (row->present && !row->present(config))
			continue;
		for (int b = 0; b < (row->slot > SLOT_HEAD ? config->blocks : 1); b++) {
			size_t elements = row_elements(config, row);
			float *data = arena_take(&paths, elements * sizeof *data);

			ck_assert_int_lt(count, room);
			for (size_t i = 0; i < elements; i++)
				data[i] = (float)count;
			entry[count++] = (struct safetensors_entry){
			    .name = tensor_name(config, row, b, prefix),
			    .dtype = DTYPE_F32,
			    .dims = row->cols == DIM_NONE ? 1 : 2,
			    .shape = {dim_size(config, row->rows), dim_size(config, row->cols)},
			    .data = data,
			};
		}
	}
	return count;
}

#endif
