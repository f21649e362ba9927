/*
 * model/store_write.c - writes a store: samples go to the disk as they come, so that the memory
 * for it does not depend on how many there are.
 *
 * The words of the samples stand first, and where each sample begins is known only then: those
 * numbers wait in a second file without a name. Every piece gets a checksum on its way.
 */
#include "model/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPILL_WORDS 8192

struct store_writer {
	const char *path, *temporary; /* null: without a name */
	int file, spill;
	uint64_t samples, words, written; /* written: bytes behind the head */
	char *piece;
	size_t filled;
	uint64_t *sum;
	size_t sums, room;
	uint64_t start[SPILL_WORDS]; /* of samples, not yet spilled */
	size_t starts;
	int32_t *scratch;
	size_t scratch_room;
	struct digest_state *content;
	struct arena arena;
};

/* A file without a name in the folder for such files; in memory where there is none. */
int file_nameless(void)
{
	const char *folder = getenv("TMPDIR");
	int file = open(folder && folder[0] == '/' ? folder : "/tmp",
			O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (file < 0)
		file = memfd_create("edgepipe samples", MFD_CLOEXEC);
	if (file < 0)
		return error(EXIT_CREATE, "cannot create a temporary file: %s", strerror(errno));
	return file;
}

struct store_writer *store_create(const char *path)
{
	struct store_writer *w = xzalloc(1, sizeof *w);

	w->file = w->spill = -1;
	w->content = digest_open();
	if (path) {
		w->path = arena_copy(&w->arena, path, strlen(path));
		w->temporary = arena_format(&w->arena, "%s.tmp-%d-%d", path, (int)getpid(),
					    (int)gettid());
		unlink(w->temporary);
		w->file = open(w->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (w->file < 0) {
			report(EXIT_CREATE, "cannot create '%s': %s", path, strerror(errno));
			w->temporary = NULL;
			goto fail;
		}
	} else {
		w->file = file_nameless();
	}
	w->spill = w->file < 0 ? -1 : file_nameless();
	if (w->spill < 0)
		goto fail;
	w->piece = xalloc(STORE_PIECE);
	return w;
fail:
	store_abandon(w);
	return NULL;
}

/* -- bytes --------------------------------------------------------------------------------- */

static int write_at(const struct store_writer *w, int file, const void *data, size_t bytes,
		    uint64_t at)
{
	const char *from = data;

	while (bytes > 0) {
		ssize_t put = pwrite(file, from, bytes, (off_t)at);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return error(EXIT_IO, "cannot write '%s': %s",
				     w->path ? w->path : "a temporary file",
				     put < 0 ? strerror(errno) : "the disk is full");
		from += put;
		at += (size_t)put;
		bytes -= (size_t)put;
	}
	return 0;
}

static int flush_piece(struct store_writer *w)
{
	if (w->filled == 0)
		return 0;
	if (w->sums == w->room) {
		w->room = w->room ? 2 * w->room : 64;
		w->sum = xrealloc(w->sum, w->room * sizeof *w->sum);
	}
	if (write_at(w, w->file, w->piece, w->filled, STORE_HEAD + w->written) < 0)
		return -1;
	w->sum[w->sums] = checksum(w->piece, w->filled, w->sums);
	w->sums++;
	w->written += w->filled;
	w->filled = 0;
	return 0;
}

static int put_bytes(struct store_writer *w, const void *data, size_t bytes)
{
	const char *from = data;

	while (bytes > 0) {
		size_t room = STORE_PIECE - w->filled, take = bytes < room ? bytes : room;

		memcpy(w->piece + w->filled, from, take);
		w->filled += take;
		from += take;
		bytes -= take;
		if (w->filled == STORE_PIECE && flush_piece(w) < 0)
			return -1;
	}
	return 0;
}

/* -- samples ------------------------------------------------------------------------------- */

static int spill_starts(struct store_writer *w)
{
	uint64_t at = (w->samples - w->starts) * sizeof w->start[0];
	int done = write_at(w, w->spill, w->start, w->starts * sizeof w->start[0], at);

	w->starts = 0;
	return done;
}

int store_put(struct store_writer *w, const int32_t *ids, const int32_t *labels, size_t count,
	      bool own)
{
	uint64_t length = count;

	if (own) {
		digest_add(w->content, &length, sizeof length);
		digest_add(w->content, ids, count * sizeof *ids);
		digest_add(w->content, labels, count * sizeof *labels);
		if (put_bytes(w, ids, count * sizeof *ids) < 0 ||
		    put_bytes(w, labels, count * sizeof *labels) < 0)
			return -1;
	} else {
		if (count > w->scratch_room) {
			free(w->scratch);
			w->scratch = xalloc(count * sizeof *w->scratch);
			w->scratch_room = count;
		}
		for (size_t i = 0; i < count; i++) {
			bool trained = !labels || labels[i] == ids[i];

			w->scratch[i] =
				(int32_t)((uint32_t)ids[i] | (trained ? 0 : STORE_UNTRAINED));
		}
		digest_add(w->content, &length, sizeof length);
		digest_add(w->content, w->scratch, count * sizeof *w->scratch);
		if (put_bytes(w, w->scratch, count * sizeof *w->scratch) < 0)
			return -1;
	}
	w->start[w->starts++] = w->words;
	w->words += own ? 2 * count : count;
	w->samples++;
	return w->starts == SPILL_WORDS ? spill_starts(w) : 0;
}

/* -- the end ------------------------------------------------------------------------------- */

/* Copies the starts behind the words, which get a number of bytes that 8 divides. */
static int put_index(struct store_writer *w)
{
	static const uint32_t zero;
	uint64_t at = 0, end = w->samples * sizeof w->start[0];

	if (w->words % 2 && put_bytes(w, &zero, sizeof zero) < 0)
		return -1;
	if (spill_starts(w) < 0)
		return -1;
	while (at < end) {
		size_t bytes = end - at < sizeof w->start ? (size_t)(end - at) : sizeof w->start;
		ssize_t got = pread(w->spill, w->start, bytes, (off_t)at);

		if (got <= 0)
			return error(EXIT_IO, "cannot read a temporary file: %s", strerror(errno));
		if (put_bytes(w, w->start, (size_t)got) < 0)
			return -1;
		at += (uint64_t)got;
	}
	return put_bytes(w, &w->words, sizeof w->words) < 0 ? -1 : flush_piece(w);
}

static int put_head(struct store_writer *w, struct store_facts *facts, struct digest key)
{
	union {
		struct store_head head;
		char bytes[STORE_HEAD];
	} block = {.bytes = {0}};
	struct store_head *head = &block.head;

	facts->samples = w->samples;
	facts->words = w->words;
	facts->content = digest_close(w->content);
	w->content = NULL;
	memcpy(head->magic, STORE_MAGIC, sizeof head->magic);
	head->key = key;
	head->facts = *facts;
	head->index_at = STORE_HEAD + (w->words + w->words % 2) * sizeof(uint32_t);
	head->sums_at = STORE_HEAD + w->written;
	head->bytes = head->sums_at + w->sums * sizeof *w->sum;
	head->sums = digest_of(w->sum, w->sums * sizeof *w->sum);
	head->self = digest_of(head, offsetof(struct store_head, self));
	if (write_at(w, w->file, w->sum, w->sums * sizeof *w->sum, head->sums_at) < 0)
		return -1;
	return write_at(w, w->file, &block, sizeof block, 0);
}

int store_finish(struct store_writer *w, struct store_facts *facts, struct digest key)
{
	int file = -1;

	if (put_index(w) < 0 || put_head(w, facts, key) < 0)
		goto end;
	if (w->path) {
		if (fsync(w->file) < 0) {
			report(EXIT_IO, "cannot sync '%s': %s", w->path, strerror(errno));
			goto end;
		}
		if (rename(w->temporary, w->path) < 0) {
			report(EXIT_CREATE, "cannot replace '%s': %s", w->path, strerror(errno));
			goto end;
		}
		w->temporary = NULL;
		if (folder_sync(path_folder(&w->arena, w->path)) < 0)
			goto end;
	}
	file = w->file;
	w->file = -1;
end:
	store_abandon(w);
	return file;
}

void store_abandon(struct store_writer *w)
{
	if (!w)
		return;
	if (w->temporary)
		unlink(w->temporary);
	if (w->file >= 0)
		close(w->file);
	if (w->spill >= 0)
		close(w->spill);
	if (w->content)
		digest_close(w->content);
	free(w->piece);
	free(w->sum);
	free(w->scratch);
	arena_release(&w->arena);
	free(w);
}
