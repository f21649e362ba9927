/*
 * model/input.c - the bytes of a data file, from a file, a gzip file or standard input, a piece
 * in memory at a time.
 *
 * gzip is told by the name (.gz). Members that stand one after the other are one text, as in
 * gzip(1); bytes behind the last that begin no member, a checksum that does not hold and an end
 * before the end are errors: a copy that broke off must not train on half of the data.
 */
#include "model/input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define PIECE ((size_t)1 << 18)
#define LINE_MOST ((size_t)64 << 20) /* a few hundred bytes of gzip may be a line of any length */
#define GZIP_ALONE (15 + 16) /* inflateInit2: a gzip header, the largest window */

struct input {
	const char *path; /* for messages */
	int file;
	bool gzip, inside; /* inside: a member has begun and not ended */
	z_stream stream;
	unsigned char *packed; /* PIECE bytes, with gzip alone */
	char *piece;	       /* of the text */
	size_t at, bytes;      /* in the piece: what is next, and its end */
	size_t taken;	       /* bytes of the text before the piece */
	size_t lines;	       /* that were taken */
	struct arena arena;
};

bool path_is_gzip(const char *path)
{
	size_t bytes = strlen(path);

	return bytes > 3 && strcmp(path + bytes - 3, ".gz") == 0;
}

struct input *input_open(const char *path)
{
	bool standard = strcmp(path, "-") == 0;
	int file = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);

	if (file < 0)
		return error_null(EXIT_INPUT, "cannot open '%s': %s", path, strerror(errno));
	struct input *input = xzalloc(1, sizeof *input);
	input->path = standard ? "<stdin>" : arena_copy(&input->arena, path, strlen(path));
	input->file = file;
	input->piece = xalloc(PIECE);
	input->gzip = path_is_gzip(path);
	if (!input->gzip)
		return input;
	input->packed = xalloc(PIECE);
	if (inflateInit2(&input->stream, GZIP_ALONE) != Z_OK) {
		input->gzip = false;
		input_close(input);
		return error_null(EXIT_BUG, "cannot open '%s': no memory for zlib", path);
	}
	return input;
}

void input_close(struct input *input)
{
	if (!input)
		return;
	if (input->gzip)
		inflateEnd(&input->stream);
	if (input->file != STDIN_FILENO)
		close(input->file);
	free(input->packed);
	free(input->piece);
	arena_release(&input->arena);
	free(input);
}

const char *input_path(const struct input *input)
{
	return input->path;
}

/* -- pieces -------------------------------------------------------------------------------- */

/* Bytes of the file itself: how many, 0 at its end. */
static ssize_t read_file(struct input *input, void *to, size_t most)
{
	ssize_t got;

	do
		got = read(input->file, to, most);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return error(EXIT_INPUT, "cannot read '%s': %s", input->path, strerror(errno));
	return got;
}

/* More packed bytes, where all were taken; none at the end of the file. */
static int read_packed(struct input *input)
{
	ssize_t got = input->stream.avail_in == 0 ? read_file(input, input->packed, PIECE) : 0;

	if (got > 0) {
		input->stream.next_in = input->packed;
		input->stream.avail_in = (unsigned)got;
	}
	return got < 0 ? -1 : 0;
}

/* Unpacks what there is; 1 while there may be more, 0 at the end, which must not be inside a
 * member. */
static int inflate_some(struct input *input)
{
	z_stream *z = &input->stream;
	bool empty = z->avail_in == 0;
	unsigned room = z->avail_out;

	if (empty && !input->inside)
		return z->total_in > 0 ? 0
				       : error(EXIT_DATA, "'%s' is empty, no gzip data",
					       input->path);
	if (!input->inside && z->total_in > 0)
		inflateReset(z); /* the next member */
	input->inside = true;
	int done = inflate(z, Z_NO_FLUSH);
	if (done == Z_STREAM_END)
		input->inside = false;
	else if (done != Z_OK && done != Z_BUF_ERROR)
		return error(EXIT_DATA, "'%s' is damaged: its gzip data do not hold (%s)",
			     input->path, z->msg ? z->msg : "checksum or header");
	else if (empty && z->avail_out == room)
		return error(EXIT_DATA, "'%s' is cut off: its gzip data end before their end",
			     input->path);
	return 1;
}

static int unpack(struct input *input)
{
	z_stream *z = &input->stream;
	int more = 1;

	z->next_out = (unsigned char *)input->piece;
	z->avail_out = (unsigned)PIECE;
	while (z->avail_out > 0 && more > 0) {
		if (read_packed(input) < 0)
			return -1;
		more = inflate_some(input);
	}
	input->bytes = PIECE - z->avail_out;
	return more < 0 ? -1 : 0;
}

/* What a read gives; of a pipe, that may be a byte, but at least as many as a mark has. */
static int read_piece(struct input *input, size_t least)
{
	ssize_t got;

	do {
		got = read_file(input, input->piece + input->bytes, PIECE - input->bytes);
		if (got < 0)
			return -1;
		input->bytes += (size_t)got;
	} while (got > 0 && input->bytes < least);
	return 0;
}

/* The next piece; it is empty at the end. */
static int next_piece(struct input *input)
{
	static const char mark[] = "\xef\xbb\xbf";
	bool first = input->taken == 0 && input->bytes == 0;

	input->taken += input->bytes;
	input->at = input->bytes = 0;
	if ((input->gzip ? unpack(input) : read_piece(input, first ? strlen(mark) : 1)) < 0)
		return -1;
	if (first && input->bytes >= strlen(mark) && memcmp(input->piece, mark, strlen(mark)) == 0)
		input->at = strlen(mark);
	return 0;
}

const char *input_piece(struct input *input, size_t *bytes)
{
	if (input->at == input->bytes && next_piece(input) < 0)
		return NULL;
	const char *piece = input->piece + input->at;
	*bytes = input->bytes - input->at;
	input->at = input->bytes;
	return piece;
}

int input_line(struct input *input, struct text *line)
{
	line->bytes = 0;
	for (;;) {
		if (input->at == input->bytes && next_piece(input) < 0)
			return -1;
		size_t left = input->bytes - input->at;
		const char *from = input->piece + input->at;
		const char *end = left ? memchr(from, '\n', left) : NULL;
		size_t take = end ? (size_t)(end - from) + 1 : left;

		text_put(line, from, take);
		input->at += take;
		if (line->bytes > LINE_MOST)
			return error(EXIT_DATA, "%s:%zu:1: error: the line is longer than %zu MiB",
				     input->path, input->lines + 1, LINE_MOST >> 20);
		if (end || left == 0) {
			input->lines++;
			return line->bytes > 0;
		}
	}
}
