/*
 * model/pretokenised.c - safetensors files that hold input_ids and, if wanted, labels: nothing
 * is tokenised. The last dimension is the sequence, the others are flattened in order.
 */
#include "model/dataset.h"
#include "model/input.h"

#define FORGET_ROWS 1024

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_whole(const struct safetensor *tensor)
{
	return tensor->known && (tensor->dtype == DTYPE_I32 || tensor->dtype == DTYPE_I64);
}

/* An element of a mapped tensor, which may lie anywhere. */
static long long element(const struct safetensor *tensor, size_t i)
{
	int32_t narrow;
	int64_t wide;

	if (tensor->dtype == DTYPE_I32) {
		memcpy(&narrow, (const char *)tensor->data + i * sizeof narrow, sizeof narrow);
		return narrow;
	}
	memcpy(&wide, (const char *)tensor->data + i * sizeof wide, sizeof wide);
	return wide;
}

static int check_shapes(const struct reader *r, const struct safetensor *ids,
			const struct safetensor *labels)
{
	if (!ids)
		return error(EXIT_DATA, "'%s' holds no tensor \"input_ids\"", r->path);
	if (!is_whole(ids) || (labels && !is_whole(labels)))
		return error(EXIT_DATA, "'%s': \"%s\" is %s, not I32 or I64", r->path,
			     is_whole(ids) ? "labels" : "input_ids",
			     is_whole(ids) ? labels->dtype_text : ids->dtype_text);
	if (ids->dims < 1 || ids->shape[ids->dims - 1] < 1 ||
	    ids->shape[ids->dims - 1] > INT_MAX / 2)
		return error(EXIT_DATA, "'%s': \"input_ids\" has no dimension for the sequence",
			     r->path);
	if (labels &&
	    (labels->dims != ids->dims ||
	     memcmp(labels->shape, ids->shape, (size_t)ids->dims * sizeof ids->shape[0]) != 0))
		return error(EXIT_DATA, "'%s': \"labels\" has another shape than \"input_ids\"",
			     r->path);
	return 0;
}

/* Copies a row of T, checked: a label may also be -100. */
static int copy_row(const struct reader *r, const struct safetensor *tensor, bool labels,
		    size_t row, size_t T, int32_t *to)
{
	for (size_t t = 0; t < T; t++) {
		long long value = element(tensor, row * T + t);
		bool untrained = labels && value == UNTRAINED;

		if (!untrained && (value < 0 || value >= r->config->vocabulary))
			return error(EXIT_DATA,
				     "'%s': %s[%zu, %zu] is %lld, not in the vocabulary of %d%s",
				     r->path, tensor->name, row, t, value,
				     r->config->vocabulary, labels ? " (-100: untrained)" : "");
		to[t] = (int32_t)value;
	}
	return 0;
}

/* Gives back the pages of what was read. */
static void forget_rows(const struct safetensor *ids, const struct safetensor *labels, size_t count)
{
	size_t width = ids->dtype == DTYPE_I32 ? 4 : 8;

	safetensor_forget(ids, count * width);
	if (labels)
		safetensor_forget(labels, count * (labels->dtype == DTYPE_I32 ? 4 : 8));
}

static int copy_rows(struct reader *r, const struct safetensor *ids,
		     const struct safetensor *labels)
{
	size_t T = (size_t)ids->shape[ids->dims - 1], rows = 1;
	int32_t *row = xalloc(2 * T * sizeof *row);
	int done = 0;

	for (int i = 0; i < ids->dims - 1; i++)
		rows *= (size_t)ids->shape[i];
	for (size_t i = 0; i < rows && done == 0; i++) {
		done = copy_row(r, ids, false, i, T, row);
		if (done == 0 && labels)
			done = copy_row(r, labels, true, i, T, row + T);
		if (done == 0)
			done = labels ? reader_add_own(r, row, row + T, T)
				      : reader_add(r, row, NULL, T);
		if (i % FORGET_ROWS == 0)
			forget_rows(ids, labels, i * T);
	}
	free(row);
	return done;
}

/* Unpacks a file into one without a name, which is mapped then. */
static struct safetensors *open_packed(const struct reader *r)
{
	struct input *input = input_open(r->path);
	int file = input ? file_nameless() : -1;
	struct safetensors *tensors = NULL;
	char path[64];
	size_t bytes = file < 0 ? 0 : 1;

	while (bytes > 0) {
		const char *piece = input_piece(input, &bytes);

		if (!piece)
			goto end;
		for (size_t at = 0; at < bytes;) {
			ssize_t put = write(file, piece + at, bytes - at);

			if (put <= 0) {
				report(EXIT_IO, "cannot unpack '%s': %s", r->path, strerror(errno));
				goto end;
			}
			at += (size_t)put;
		}
	}
	snprintf(path, sizeof path, "/proc/self/fd/%d", file);
	if (file >= 0)
		tensors = safetensors_open(path);
end:
	if (file >= 0)
		close(file);
	input_close(input);
	return tensors;
}

int read_tensors(struct reader *r)
{
	int done = -1;

	/* Labels are the file's own mask: only what asks for prompts contradicts it. */
	if (reader_wants_answers(r))
		return error(EXIT_CONFIG,
			     "data.mask is %s, but '%s' is tokenised already: "
			     "its labels tell",
			     mask_name(r), r->path);
	struct safetensors *file = path_is_gzip(r->path) ? open_packed(r) : safetensors_open(r->path);
	if (!file)
		return -1;
	const struct safetensor *ids = safetensors_find(file, "input_ids");
	const struct safetensor *labels = safetensors_find(file, "labels");
	if (check_shapes(r, ids, labels) == 0 &&
	    reader_sequence(r, ids->shape[ids->dims - 1]) == 0)
		done = copy_rows(r, ids, labels);
	safetensors_close(file);
	return done;
}
