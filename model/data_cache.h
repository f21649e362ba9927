/*
 * model/data_cache.h - where tokenised data are kept, and under which name.
 */
#ifndef EDGEPIPE_MODEL_DATA_CACHE_H
#define EDGEPIPE_MODEL_DATA_CACHE_H

#include "model/dataset.h"

/*
 * The digest of all that tokenised data depend on: the bytes of the file, what the `data` section
 * asks for, the files of the tokenizer (where text), the vocabulary, this program's version of
 * them. -1 after an error.
 */
int data_key(const struct reader *reader, const char *extension, bool text, const char *folder,
	     struct digest *key);
/* The folder that data.cache means; null: nothing is kept. */
const char *data_cache_folder(struct arena *arena, const struct data_config *data);
const char *data_cache_path(struct arena *arena, const char *folder, struct digest key);
/* Opens what is kept there as a file that was used just now; -1: nothing is. */
int data_cache_open(const char *path);
/* Removes what nobody used for a month, and what dead processes left. */
void data_cache_sweep(const char *folder);

#endif
