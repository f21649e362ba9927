/*
 * model/input.h - the bytes of a data file, wherever they come from.
 */
#ifndef EDGEPIPE_MODEL_INPUT_H
#define EDGEPIPE_MODEL_INPUT_H

#include "base/base.h"

struct input;
/* A file, one that gzip packed (by its name: .gz), or standard input ("-"). Null after an error.
 * A byte order mark at the start is passed over. */
struct input *input_open(const char *path);
void input_close(struct input *input);
/* How messages call it. */
const char *input_path(const struct input *input);
/* The next bytes, which last until the next call; none at the end. Null after an error. */
const char *input_piece(struct input *input, size_t *bytes);
/* The next line with its newline, in place of what the text held: 1, 0 at the end, -1. */
int input_line(struct input *input, struct text *line);
bool path_is_gzip(const char *path);

#endif
