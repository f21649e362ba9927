/*
 * The inside of merging: merged.c, which adds an adapter to a tensor, and merged_files.c, which
 * lays out the folder.
 */
#ifndef EDGEPIPE_MODEL_MERGED_H
#define EDGEPIPE_MODEL_MERGED_H

#include "model/internal.h"

/* Writes a tensor of the model, with its adapter where it has one. -1 after an error. */
int merged_put(struct safetensors_writer *writer, const struct merged_model *merge,
	       const struct safetensor *tensor);

#endif
