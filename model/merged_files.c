/*
 * A model directory with the adapter merged in: the weights in one file or in shards, and what
 * else a model's folder holds (configuration, tokenizer, generation settings, licence).
 */
#include "model/merged.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define COPY_BYTES ((size_t)1 << 20)
#define HEADER_BYTES 512.0 /* of a tensor in a header and in the index, about, at most */

struct merging {
	const struct merged_model *merge;
	const char *folder; /* the temporary one */
	const struct safetensor **tensor;
	int *shard; /* of each tensor, from 0 */
	int count, shards;
	double done_bytes, all_bytes;
	struct arena arena;
};

/* -- the other files ----------------------------------------------------------------------- */

/* Weights in any form: those of the base, which are not what the folder is to hold. */
static bool is_weights(const char *name)
{
	static const char *const end[] = {
	    ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth",
	    ".h5", ".msgpack", ".gguf", ".ggml", ".onnx", ".ot", ".npz", ".ckpt", ".index",
	};
	size_t bytes = strlen(name);

	for (size_t i = 0; i < sizeof(end) / sizeof(*end); i++) {
		size_t length = strlen(end[i]);

		if (bytes >= length && strcmp(name + bytes - length, end[i]) == 0)
			return true;
	}
	return false;
}

static int copy_bytes(int from, int to, const char *path, char *buffer)
{
	ssize_t got;

	while ((got = read(from, buffer, COPY_BYTES)) > 0)
		for (ssize_t at = 0; at < got;) {
			ssize_t put = write(to, buffer + at, (size_t)(got - at));

			if (put < 0 && errno != EINTR)
				return error(EXIT_IO, "cannot write '%s': %s", path,
					     strerror(errno));
			at += put > 0 ? put : 0;
		}
	if (got < 0)
		return error(EXIT_INPUT, "cannot read the original of '%s': %s", path,
			     strerror(errno));
	if (fsync(to) < 0)
		return error(EXIT_IO, "cannot write '%s': %s", path, strerror(errno));
	return 0;
}

static int copy_file(const char *source, const char *path)
{
	int from = open(source, O_RDONLY | O_CLOEXEC), to = -1, rc = -1;
	char *buffer = xalloc(COPY_BYTES);

	if (from < 0) {
		report(EXIT_INPUT, "cannot open '%s': %s", source, strerror(errno));
		goto done;
	}
	to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (to < 0) {
		report(EXIT_CREATE, "cannot create '%s': %s", path, strerror(errno));
		goto done;
	}
	rc = copy_bytes(from, to, path, buffer);
done:
	if (from >= 0)
		close(from);
	if (to >= 0 && close(to) < 0 && rc == 0)
		rc = error(EXIT_IO, "cannot write '%s': %s", path, strerror(errno));
	free(buffer);
	return rc;
}

/* Each plain file of the model's folder that is to be copied: its size to *bytes, or, where
 * bytes is null, the file itself. Hidden files and folders stay behind. */
static int other_files(struct merging *m, double *bytes)
{
	const char *source = m->merge->weights->config->folder;
	DIR *folder = opendir(source);
	struct dirent *entry;
	struct stat status;
	int rc = 0;

	if (!folder)
		return error(EXIT_INPUT, "cannot read '%s': %s", source, strerror(errno));
	while (rc == 0 && (entry = readdir(folder))) {
		const char *path = path_join(&m->arena, source, entry->d_name);

		if (entry->d_name[0] == '.' || is_weights(entry->d_name) ||
		    stat(path, &status) < 0 || !S_ISREG(status.st_mode))
			continue;
		if (bytes)
			*bytes += (double)status.st_size;
		else
			rc = copy_file(path, path_join(&m->arena, m->folder, entry->d_name));
	}
	closedir(folder);
	return rc;
}

/* -- shards -------------------------------------------------------------------------------- */

static int by_name(const void *one, const void *two)
{
	const struct safetensor *const *a = one, *const *b = two;

	return strcmp((*a)->name, (*b)->name);
}

/* A name that stands in two files cannot stand twice in one. */
static int check_names(const struct merging *m)
{
	size_t bytes = (size_t)m->count * sizeof(*m->tensor);
	const struct safetensor **sorted = xalloc(bytes + 1);
	int rc = 0;

	memcpy(sorted, m->tensor, bytes);
	qsort(sorted, (size_t)m->count, sizeof(*sorted), by_name);
	for (int i = 1; i < m->count && rc == 0; i++)
		if (by_name(&sorted[i - 1], &sorted[i]) == 0)
			rc = error(EXIT_DATA,
				   "cannot merge '%s': two of its files hold a tensor \"%s\"",
				   m->merge->weights->config->folder, sorted[i]->name);
	free(sorted);
	return rc;
}

/* All tensors, in the order of the model's files; a shard is full when the next would be too much. */
static int divide(struct merging *m)
{
	const struct weights *weights = m->merge->weights;
	double filled = 0;

	for (int f = 0; f < weights->files; f++)
		m->count += weights->file[f]->count;
	m->tensor = arena_take(&m->arena, (size_t)m->count * sizeof(*m->tensor));
	m->shard = arena_take(&m->arena, (size_t)m->count * sizeof(*m->shard));
	m->count = 0;
	for (int f = 0; f < weights->files; f++)
		for (int i = 0; i < weights->file[f]->count; i++) {
			const struct safetensor *tensor = &weights->file[f]->tensor[i];
			double bytes = (double)tensor->bytes;

			if (filled > 0 && filled + bytes > m->merge->shard_bytes) {
				m->shards++;
				filled = 0;
			}
			filled += bytes;
			m->all_bytes += bytes;
			m->shard[m->count] = m->shards;
			m->tensor[m->count++] = tensor;
		}
	m->shards++;
	return check_names(m);
}

static const char *shard_name(struct merging *m, int shard)
{
	if (m->shards == 1)
		return "model.safetensors";
	return arena_format(&m->arena, "model-%05d-of-%05d.safetensors", shard + 1, m->shards);
}

static int write_shard(struct merging *m, int shard, int first, int end)
{
	static const char *const metadata[] = {"format", "pt", NULL};
	const struct merged_model *merge = m->merge;
	struct safetensors_writer *writer =
	    safetensors_create(path_join(&m->arena, m->folder, shard_name(m, shard)),
			       m->tensor + first, end - first, metadata);
	int rc = writer ? 0 : -1;

	for (int i = first; i < end && rc == 0; i++) {
		rc = merged_put(writer, merge, m->tensor[i]);
		m->done_bytes += (double)m->tensor[i]->bytes;
		if (rc == 0 && merge->progress)
			merge->progress(merge->arg, m->done_bytes, m->all_bytes);
	}
	if (writer && safetensors_end(writer) < 0)
		rc = -1;
	return rc;
}

static int write_shards(struct merging *m)
{
	int first = 0;

	for (int shard = 0; shard < m->shards; shard++) {
		int end = first;

		while (end < m->count && m->shard[end] == shard)
			end++;
		if (write_shard(m, shard, first, end) < 0)
			return -1;
		first = end;
	}
	return 0;
}

static int write_index(struct merging *m)
{
	struct text text = {0};

	if (m->shards == 1)
		return 0;
	text_add(&text, "{\n  \"metadata\": {\n    \"total_size\": %.0f\n  },\n  \"weight_map\": {",
		 m->all_bytes);
	for (int i = 0; i < m->count; i++) {
		text_add(&text, i ? ",\n    " : "\n    ");
		json_add_text(&text, m->tensor[i]->name);
		text_add(&text, ": \"%s\"", shard_name(m, m->shard[i]));
	}
	text_add(&text, "\n  }\n}\n");
	int rc = file_write(path_join(&m->arena, m->folder, "model.safetensors.index.json"),
			    text.data, text.bytes);
	text_release(&text);
	return rc;
}

/* -- the whole ----------------------------------------------------------------------------- */

static int check_room(struct merging *m)
{
	double need = m->all_bytes + HEADER_BYTES * m->count, room;
	struct statvfs status;
	char a[32], b[32];

	if (other_files(m, &need) < 0)
		return -1;
	if (statvfs(m->folder, &status) < 0)
		return 0;
	room = (double)status.f_bavail * (double)status.f_frsize;
	if (need <= room)
		return 0;
	return error(EXIT_CREATE, "'%s' will take %s, but its disk has room for %s", m->folder,
		     unit_write(need, UNIT_BYTES, a, sizeof(a)),
		     unit_write(room, UNIT_BYTES, b, sizeof(b)));
}

int merged_write(const char *folder, const struct merged_model *merge)
{
	struct merging m = {.merge = merge};
	int rc = -1;

	m.folder = arena_format(&m.arena, "%s.tmp", folder);
	if (folder_remove(m.folder) < 0 || folder_make(m.folder) < 0)
		goto done;
	if (divide(&m) < 0 || check_room(&m) < 0)
		goto done;
	if (write_shards(&m) < 0 || write_index(&m) < 0 || other_files(&m, NULL) < 0)
		goto done;
	rc = folder_publish(m.folder, folder);
done:
	if (rc < 0)
		folder_remove(m.folder);
	arena_release(&m.arena);
	return rc;
}
