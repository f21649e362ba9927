/*
 * model/place.h - where in a line a value stands, for messages.
 */
#ifndef EDGEPIPE_MODEL_PLACE_H
#define EDGEPIPE_MODEL_PLACE_H

#include "base/base.h"

/* The column, in bytes from 1, of the value that a path names in a text that is sound JSON:
 * "messages[2].content"; "" is the whole. As far as the path leads: 1 where it leads nowhere. */
size_t place_column(const char *data, size_t bytes, const char *path);
/* The key of a map that is nearest to a word; null: none is near. */
const char *json_nearest(const struct json *map, const char *word);

#endif
