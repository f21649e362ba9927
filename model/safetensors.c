/*
 * safetensors files: eight bytes of length N, N bytes of JSON, the data.
 *
 *     0        8                      8+N                                   end
 *     | N (LE) | {"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  | data ... |
 *
 * A file is untrusted: lengths are compared before they are added, products are checked, and
 * tensors must cover the data exactly, as the format's own reader demands
 * (huggingface/safetensors, tensor.rs). Stricter than it: names hold no control characters,
 * entries have no foreign keys.
 */
#include "model/model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LENGTH_BYTES ((size_t)8)
#define HEADER_MOST ((size_t)100000000) /* the format's limit */
#define TEXT_MOST ((size_t)32 << 20) /* without padding: what parses within a second */
#define NAME_MOST ((size_t)4096)
#define TENSORS_MOST 200000

/* All dtypes of the format, those that we compute with first. */
static const struct dtype_row {
	const char *name;
	int bits;
	bool known;
	enum dtype dtype;
} dtype_rows[] = {
	{"F32", 32, true, DTYPE_F32}, {"F64", 64, true, DTYPE_F64},
	{"F16", 16, true, DTYPE_F16}, {"BF16", 16, true, DTYPE_BF16},
	{"I32", 32, true, DTYPE_I32}, {"I64", 64, true, DTYPE_I64},
	{"BOOL", 8, false, 0}, {"U8", 8, false, 0},
	{"I8", 8, false, 0}, {"U16", 16, false, 0},
	{"I16", 16, false, 0}, {"U32", 32, false, 0},
	{"U64", 64, false, 0}, {"F4", 4, false, 0},
	{"F6_E2M3", 6, false, 0}, {"F6_E3M2", 6, false, 0},
	{"F8_E5M2", 8, false, 0}, {"F8_E4M3", 8, false, 0},
	{"F8_E8M0", 8, false, 0}, {"F8_E4M3FNUZ", 8, false, 0},
	{"F8_E5M2FNUZ", 8, false, 0}, {"C64", 64, false, 0},
};

static const struct dtype_row *dtype_find(const char *name)
{
	for (size_t i = 0; name && i < sizeof(dtype_rows) / sizeof(*dtype_rows); i++)
		if (strcmp(dtype_rows[i].name, name) == 0)
			return &dtype_rows[i];
	return NULL;
}

/* -- the bytes ----------------------------------------------------------------------------- */

static int map_file(struct safetensors *file)
{
	int descriptor = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat status;

	if (descriptor < 0)
		return error(EXIT_INPUT, "cannot open '%s': %s", file->path, strerror(errno));
	if (fstat(descriptor, &status) < 0 || !S_ISREG(status.st_mode)) {
		close(descriptor);
		return error(EXIT_INPUT, "cannot read '%s': not a file", file->path);
	}
	if (status.st_size < (off_t)LENGTH_BYTES) {
		close(descriptor);
		return error(EXIT_DATA,
			     "cannot use '%s': %lld bytes are too few for a safetensors "
			     "file",
			     file->path, (long long)status.st_size);
	}
	void *map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, descriptor, 0);
	int why = errno;
	close(descriptor);
	if (map == MAP_FAILED)
		return error(EXIT_INPUT, "cannot map '%s': %s", file->path, strerror(why));
	file->map = map;
	file->map_bytes = (size_t)status.st_size;
	return 0;
}

/* The length of the header, little-endian whatever the machine; 0 after an error. */
static size_t header_bytes(const struct safetensors *file)
{
	const unsigned char *p = file->map;
	uint64_t bytes = 0;

	for (int i = 7; i >= 0; i--)
		bytes = bytes << 8 | p[i];
	if (bytes > HEADER_MOST)
		report(EXIT_DATA,
		       "cannot use '%s': a header of %llu bytes is above the limit of %zu",
		       file->path, (unsigned long long)bytes, HEADER_MOST);
	else if (bytes > file->map_bytes - LENGTH_BYTES)
		report(EXIT_DATA,
		       "cannot use '%s': the header should have %llu bytes, but the file "
		       "ends before (%zu bytes)",
		       file->path, (unsigned long long)bytes, file->map_bytes);
	else if (bytes < 2 || p[LENGTH_BYTES] != '{')
		report(EXIT_DATA, "cannot use '%s': the header does not start with '{'",
		       file->path);
	else
		return (size_t)bytes;
	return 0;
}

/* Without the padding, which may be spaces alone. */
static size_t without_padding(const char *header, size_t bytes)
{
	while (bytes > 0 && header[bytes - 1] == ' ')
		bytes--;
	return bytes;
}

/*
 * The JSON parser takes 1.0 and 1e3 for whole numbers, the format does not. Outside of strings
 * these letters occur in nothing else that a header may hold.
 */
static int check_numbers(const char *path, const char *header, size_t bytes)
{
	bool inside = false;

	for (size_t i = 0; i < bytes; i++) {
		if (header[i] == '"')
			inside = !inside;
		else if (inside && header[i] == '\\')
			i++;
		else if (!inside && memchr(".eE", header[i], 3))
			return error(EXIT_DATA,
				     "cannot use '%s': at byte %zu of the header is "
				     "something that is not a whole number",
				     path, i);
	}
	return 0;
}

static struct json *parse_header(struct safetensors *file, size_t *data_at)
{
	const char *header = (const char *)file->map + LENGTH_BYTES;
	size_t bytes = header_bytes(file);

	if (bytes == 0)
		return NULL;
	*data_at = LENGTH_BYTES + bytes;
	file->header_digest = digest_of(file->map, *data_at);
	bytes = without_padding(header, bytes);
	if (header[bytes - 1] != '}')
		return error_null(
		    EXIT_DATA, "cannot use '%s': the header does not end with '}'", file->path);
	if (bytes > TEXT_MOST)
		return error_null(EXIT_DATA,
				  "cannot use '%s': a header of %zu bytes without its "
				  "padding is above the limit of %zu",
				  file->path, bytes, TEXT_MOST);
	if (check_numbers(file->path, header, bytes) < 0)
		return NULL;
	return json_parse(header, bytes, file->path);
}

/* -- the entries --------------------------------------------------------------------------- */

static int bad_entry(const struct safetensors *file, const char *name, const char *why)
{
	return error(EXIT_DATA, "cannot use '%s': tensor \"%s\": %s", file->path, name, why);
}

static int check_name(const struct safetensors *file, const char *name)
{
	size_t bytes = strlen(name);

	if (bytes == 0)
		return error(EXIT_DATA, "cannot use '%s': a tensor has an empty name",
			     file->path);
	if (bytes > NAME_MOST)
		return error(EXIT_DATA,
			     "cannot use '%s': a tensor's name has %zu bytes (at most "
			     "%zu)",
			     file->path, bytes, NAME_MOST);
	for (const char *p = name; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return error(EXIT_DATA,
				     "cannot use '%s': a tensor's name holds a control "
				     "character (%d)",
				     file->path, *p);
	return 0;
}

static int check_keys(const struct safetensors *file, const char *name, const struct json *map)
{
	static const char *const keys[] = {"dtype", "shape", "data_offsets"};

	if (json_kind(map) != JSON_MAP)
		return bad_entry(file, name, "its entry is not an object");
	for (int i = 0; i < 3; i++)
		if (!json_find(map, keys[i]))
			return error(EXIT_DATA,
				     "cannot use '%s': tensor \"%s\": \"%s\" is missing",
				     file->path, name, keys[i]);
	if (json_size(map) != 3)
		return bad_entry(file, name,
				 "its entry has a key beside dtype, shape and "
				 "data_offsets");
	return 0;
}

/* A size or an offset; -1 where it is none. */
static long long whole(const struct json *value)
{
	return json_kind(value) == JSON_WHOLE ? json_as_integer(value, -1) : -1;
}

/* Reads the shape and counts the elements. */
static int read_shape(const struct safetensors *file, struct safetensor *tensor,
		      const struct json *list, size_t *elements)
{
	*elements = 1;
	if (json_kind(list) != JSON_LIST)
		return bad_entry(file, tensor->name, "its shape is not a list");
	if (json_size(list) > SAFETENSORS_DIMS)
		return error(EXIT_DATA,
			     "cannot use '%s': tensor \"%s\": its shape has %zu dimensions "
			     "(at most %d)",
			     file->path, tensor->name, json_size(list), SAFETENSORS_DIMS);
	tensor->dims = (int)json_size(list);
	for (int i = 0; i < tensor->dims; i++) {
		tensor->shape[i] = whole(json_at(list, (size_t)i));
		if (tensor->shape[i] < 0)
			return bad_entry(file, tensor->name,
					 "its shape holds something that is not "
					 "a size");
		if (__builtin_mul_overflow(*elements, (size_t)tensor->shape[i], elements))
			return bad_entry(file, tensor->name,
					 "the product of its shape overflows");
	}
	return 0;
}

static int read_dtype(const struct safetensors *file, struct safetensor *tensor,
		      const struct json *value, size_t elements)
{
	const struct dtype_row *row = dtype_find(json_as_text(value, NULL));
	size_t bits;

	if (!row)
		return error(EXIT_DATA,
			     "cannot use '%s': tensor \"%s\": unknown dtype \"%.32s\"",
			     file->path, tensor->name, json_as_text(value, "(not a text)"));
	tensor->known = row->known;
	tensor->dtype = row->dtype;
	tensor->dtype_text = row->name;
	if (__builtin_mul_overflow(elements, (size_t)row->bits, &bits))
		return bad_entry(file, tensor->name, "its size in bits overflows");
	if (bits % 8)
		return bad_entry(file, tensor->name, "it does not end at a whole byte");
	tensor->bytes = bits / 8;
	return 0;
}

/* The data must lie inside the file and have the size that shape and dtype make. */
static int read_offsets(const struct safetensors *file, struct safetensor *tensor,
			const struct json *list, size_t data_bytes)
{
	long long begin = whole(json_at(list, 0)), end = whole(json_at(list, 1));

	if (json_kind(list) != JSON_LIST || json_size(list) != 2 || begin < 0 || end < 0)
		return bad_entry(file, tensor->name, "its data_offsets are not two offsets");
	if (end < begin)
		return bad_entry(file, tensor->name, "its data_offsets are reversed");
	if ((unsigned long long)end > data_bytes)
		return error(EXIT_DATA,
			     "cannot use '%s': tensor \"%s\": its data_offsets end at %lld, "
			     "beyond the %zu bytes of data",
			     file->path, tensor->name, end, data_bytes);
	if ((size_t)(end - begin) != tensor->bytes)
		return error(EXIT_DATA,
			     "cannot use '%s': tensor \"%s\": its data_offsets span %lld "
			     "bytes, but shape and dtype make %zu",
			     file->path, tensor->name, end - begin, tensor->bytes);
	tensor->data = (const char *)file->map + (file->map_bytes - data_bytes) + begin;
	return 0;
}

static int read_entry(struct safetensors *file, struct safetensor *tensor, const char *name,
		      const struct json *map, size_t data_bytes)
{
	size_t elements;

	if (check_name(file, name) < 0 || check_keys(file, name, map) < 0)
		return -1;
	tensor->name = arena_copy(&file->arena, name, strlen(name));
	if (read_shape(file, tensor, json_find(map, "shape"), &elements) < 0 ||
	    read_dtype(file, tensor, json_find(map, "dtype"), elements) < 0)
		return -1;
	return read_offsets(file, tensor, json_find(map, "data_offsets"), data_bytes);
}

/* __metadata__ maps texts to texts; nothing in it matters here. */
static int check_metadata(const struct safetensors *file, const struct json *map)
{
	if (json_kind(map) == JSON_NIL)
		return 0;
	if (json_kind(map) != JSON_MAP)
		return error(EXIT_DATA, "cannot use '%s': __metadata__ is not an object",
			     file->path);
	for (void *it = json_first(map); it; it = json_next(map, it))
		if (json_kind(json_value(it)) != JSON_TEXT)
			return error(EXIT_DATA,
				     "cannot use '%s': a value in __metadata__ is not a "
				     "text",
				     file->path);
	return 0;
}

static int read_entries(struct safetensors *file, const struct json *map, size_t data_at)
{
	size_t entries = json_size(map);

	if (entries > TENSORS_MOST)
		return error(EXIT_DATA,
			     "cannot use '%s': %zu tensors are too many (at most %d)",
			     file->path, entries, TENSORS_MOST);
	file->tensor = arena_take(&file->arena, (entries + 1) * sizeof(*file->tensor));
	for (void *it = json_first(map); it; it = json_next(map, it)) {
		const char *name = json_name(it);

		if (strcmp(name, "__metadata__") == 0) {
			if (check_metadata(file, json_value(it)) < 0)
				return -1;
			continue;
		}
		if (read_entry(file, &file->tensor[file->count], name, json_value(it),
			       file->map_bytes - data_at) < 0)
			return -1;
		file->count++;
	}
	return 0;
}

/* -- the layout ---------------------------------------------------------------------------- */

/* By place; an empty tensor stands before the one that starts where it does. */
static int by_place(const void *one, const void *two)
{
	const struct safetensor *a = one, *b = two;

	if (a->data != b->data)
		return (const char *)a->data < (const char *)b->data ? -1 : 1;
	return (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

/* Tensors must lie one after the other, from the first byte of the data to the last. */
static int check_layout(struct safetensors *file, size_t data_at)
{
	const char *next = (const char *)file->map + data_at;
	const char *end = (const char *)file->map + file->map_bytes;

	qsort(file->tensor, (size_t)file->count, sizeof(*file->tensor), by_place);
	for (int i = 0; i < file->count; i++) {
		const struct safetensor *tensor = &file->tensor[i];

		if ((const char *)tensor->data > next)
			return bad_entry(file, tensor->name, "there is a hole before its data");
		if ((const char *)tensor->data < next)
			return bad_entry(file, tensor->name,
					 "its data overlaps another tensor's");
		next += tensor->bytes;
	}
	if (next != end)
		return error(EXIT_DATA,
			     "cannot use '%s': %zu bytes after the last tensor belong to "
			     "none",
			     file->path, (size_t)(end - next));
	return 0;
}

static int by_name(const void *one, const void *two)
{
	const struct safetensor *const *a = one, *const *b = two;

	return strcmp((*a)->name, (*b)->name);
}

static void make_index(struct safetensors *file)
{
	const struct safetensor **index =
	    arena_take(&file->arena, ((size_t)file->count + 1) * sizeof(*index));

	for (int i = 0; i < file->count; i++)
		index[i] = &file->tensor[i];
	qsort(index, (size_t)file->count, sizeof(*index), by_name);
	file->index = index;
}

struct safetensors *safetensors_open(const char *path)
{
	struct safetensors *file = xzalloc(1, sizeof(*file));
	struct json *header = NULL;
	size_t data_at;

	file->path = arena_copy(&file->arena, path, strlen(path));
	if (map_file(file) < 0)
		goto fail;
	header = parse_header(file, &data_at);
	if (!header)
		goto fail;
	if (read_entries(file, header, data_at) < 0 || check_layout(file, data_at) < 0)
		goto fail;
	make_index(file);
	json_free(header);
	return file;
fail:
	json_free(header);
	safetensors_close(file);
	return NULL;
}

const struct safetensor *safetensors_find(const struct safetensors *file, const char *name)
{
	const struct safetensor wanted = {.name = name}, *key = &wanted, **found;

	found = bsearch(&key, file->index, (size_t)file->count, sizeof(key), by_name);
	return found ? *found : NULL;
}

void safetensor_forget(const struct safetensor *tensor, size_t bytes)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t first = ((uintptr_t)tensor->data + page - 1) / page * page;
	uintptr_t end = ((uintptr_t)tensor->data + bytes) / page * page;

	if (end > first)
		madvise((void *)first, end - first, MADV_DONTNEED);
}

void safetensors_close(struct safetensors *file)
{
	if (!file)
		return;
	if (file->map)
		munmap(file->map, file->map_bytes);
	arena_release(&file->arena);
	free(file);
}
