/*
 * Writing safetensors files: entries in the given order, so the same values are the same bytes.
 */
#include "model/model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LENGTH_BYTES ((size_t)8)	/* before the header: its length, little-endian */

/* A file that is written piece by piece. */
struct safetensors_writer {
	const char *path;
	int descriptor;
};

static size_t entry_bytes(const struct safetensors_entry *entry)
{
	size_t bytes = dtype_bytes(entry->dtype);

	for (int i = 0; i < entry->dims; i++)
		bytes *= (size_t)entry->shape[i];
	return bytes;
}

static void add_metadata(struct text *header, const char *const *metadata)
{
	if (!metadata || !metadata[0])
		return;
	text_add(header, "\"__metadata__\":{");
	for (int i = 0; metadata[i]; i += 2) {
		if (i)
			text_add(header, ",");
		json_add_text(header, metadata[i]);
		text_add(header, ":");
		json_add_text(header, metadata[i + 1]);
	}
	text_add(header, "}");
}

static void add_entry(struct text *header, const char *name, const char *dtype,
		      const long long *shape, int dims, size_t begin, size_t bytes)
{
	if (header->bytes > 1)
		text_add(header, ",");
	json_add_text(header, name);
	text_add(header, ":{\"dtype\":\"%s\",\"shape\":[", dtype);
	for (int i = 0; i < dims; i++)
		text_add(header, i ? ",%lld" : "%lld", shape[i]);
	text_add(header, "],\"data_offsets\":[%zu,%zu]}", begin, begin + bytes);
}

/* The length and the header, padded with spaces so that the data starts at a multiple of 8. Closes the map that
 * header holds. */
static void close_header(struct text *text, struct text *header)
{
	unsigned char length[LENGTH_BYTES];

	text_add(header, "}");
	while (header->bytes % 8)
		text_add(header, " ");
	for (size_t i = 0; i < LENGTH_BYTES; i++)
		length[i] = (unsigned char)(header->bytes >> 8 * i);
	text_put(text, length, LENGTH_BYTES);
	text_put(text, header->data, header->bytes);
	text_release(header);
}

static void make_header(struct text *text, const struct safetensors_entry *entry, int count,
			const char *const *metadata)
{
	struct text header = {0};
	size_t at = 0;

	text_add(&header, "{");
	add_metadata(&header, metadata);
	for (int i = 0; i < count; i++) {
		add_entry(&header, entry[i].name, dtype_name(entry[i].dtype), entry[i].shape,
			  entry[i].dims, at, entry_bytes(&entry[i]));
		at += entry_bytes(&entry[i]);
	}
	close_header(text, &header);
}

static int write_all(int descriptor, const void *data, size_t bytes)
{
	const char *p = data;

	while (bytes > 0) {
		ssize_t put = write(descriptor, p, bytes);

		if (put < 0 && errno != EINTR)
			return -1;
		if (put > 0) {
			p += put;
			bytes -= (size_t)put;
		}
	}
	return 0;
}

int safetensors_write(const char *path, const struct safetensors_entry *entry, int count,
		      const char *const *metadata)
{
	int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	struct text header = {0};

	if (descriptor < 0)
		return error(EXIT_CREATE, "cannot create '%s': %s", path, strerror(errno));
	make_header(&header, entry, count, metadata);
	int rc = write_all(descriptor, header.data, header.bytes);
	text_release(&header);
	for (int i = 0; i < count && rc == 0; i++)
		rc = write_all(descriptor, entry[i].data, entry_bytes(&entry[i]));
	if (rc == 0)
		rc = fsync(descriptor);
	int why = errno;
	if (close(descriptor) < 0 && rc == 0) {
		rc = -1;
		why = errno;
	}
	if (rc < 0)
		return error(EXIT_IO, "cannot write '%s': %s", path, strerror(why));
	return 0;
}

/* -- piece by piece ------------------------------------------------------------------------ */

struct safetensors_writer *safetensors_create(const char *path,
					      const struct safetensor *const *tensor, int count,
					      const char *const *metadata)
{
	struct safetensors_writer *writer = xzalloc(1, sizeof(*writer));
	struct text header = {0}, text = {0};
	size_t at = 0;

	writer->path = path;
	writer->descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (writer->descriptor < 0) {
		report(EXIT_CREATE, "cannot create '%s': %s", path, strerror(errno));
		free(writer);
		return NULL;
	}
	text_add(&header, "{");
	add_metadata(&header, metadata);
	for (int i = 0; i < count; i++) {
		add_entry(&header, tensor[i]->name, tensor[i]->dtype_text, tensor[i]->shape,
			  tensor[i]->dims, at, tensor[i]->bytes);
		at += tensor[i]->bytes;
	}
	close_header(&text, &header);
	int rc = safetensors_put(writer, text.data, text.bytes);
	text_release(&text);
	if (rc == 0)
		return writer;
	safetensors_end(writer);
	return NULL;
}

int safetensors_put(struct safetensors_writer *writer, const void *data, size_t bytes)
{
	if (write_all(writer->descriptor, data, bytes) == 0)
		return 0;
	return error(EXIT_IO, "cannot write '%s': %s", writer->path, strerror(errno));
}

int safetensors_end(struct safetensors_writer *writer)
{
	int rc = fsync(writer->descriptor);

	if (rc < 0)
		report(EXIT_IO, "cannot write '%s': %s", writer->path, strerror(errno));
	if (close(writer->descriptor) < 0 && rc == 0)
		rc = error(EXIT_IO, "cannot write '%s': %s", writer->path, strerror(errno));
	free(writer);
	return rc;
}
