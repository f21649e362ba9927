/*
 * model/turns.h - the turns of a chat out of a line of JSON.
 */
#ifndef EDGEPIPE_MODEL_TURNS_H
#define EDGEPIPE_MODEL_TURNS_H

#include "model/dataset.h"
#include "model/place.h"

/* The key that a column has in the file. */
const char *column_name(const struct reader *reader, enum data_column column);

/* Each fills reader->chat; -1 after an error about the line. */
int turns_of_list(struct reader *r, const struct jsonl *lines, const struct json *map,
		  enum data_column column);
int turns_of_alpaca(struct reader *r, const struct jsonl *lines, const struct json *map);
int turns_of_pair(struct reader *r, const struct jsonl *lines, const enum data_column *key);
/* Where in the line a turn stands, as jsonl_error wants it. */
void turns_place(const struct reader *r, int turn, char *where, size_t bytes);

#endif
