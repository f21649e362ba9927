/*
 * base/arena.c - memory: the arena, the slab, the growing text, and malloc that cannot fail.
 *
 * Running out of memory is not an error that a caller could handle here: the big blocks are
 * counted beforehand (struct slab), so the process ends.
 */
#include "base/base.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK_BYTES ((size_t)64 << 10)
#define ARENA_ALIGN ((size_t)16)

struct arena_chunk {
	struct arena_chunk *next;
	size_t used, room;		/* of data, in bytes */
	_Alignas(16) char data[];
};

static void no_memory(size_t bytes) __attribute__((noreturn));

/* _exit: handlers may want memory, or locks that another thread holds. */
static void no_memory(size_t bytes)
{
	fprintf(stderr, "edgepipe: error: out of memory (%zu bytes asked for)\n", bytes);
	_exit(EXIT_BUG);
}

void *xalloc(size_t bytes)
{
	void *data = malloc(bytes ? bytes : 1);

	if (!data)
		no_memory(bytes);
	return data;
}

void *xrealloc(void *memory, size_t bytes)
{
	void *data = realloc(memory, bytes ? bytes : 1);

	if (!data)
		no_memory(bytes);
	return data;
}

void heap_trim(void)
{
	/* A sanitizer has a heap of its own, and glibc's does not expect to be trimmed before
	 * it was used. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	malloc_trim(0);
#endif
}

double heap_free_bytes(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	return (double)mallinfo2().fordblks;
#else
	return 0;
#endif
}

void *xzalloc(size_t count, size_t bytes)
{
	void *data = count && bytes ? calloc(count, bytes) : calloc(1, 1);
	size_t total;

	if (!data)
		no_memory(__builtin_mul_overflow(count, bytes, &total) ? SIZE_MAX : total);
	return data;
}

char *xcopy(const char *text)
{
	size_t bytes = strlen(text) + 1;

	return memcpy(xalloc(bytes), text, bytes);
}

/* A chunk with room. One made for a large piece goes second: the first stays open. */
static struct arena_chunk *chunk_for(struct arena *arena, size_t bytes)
{
	struct arena_chunk *first = arena->chunks;
	bool large = bytes > CHUNK_BYTES / 4;
	size_t room = large ? bytes : CHUNK_BYTES;

	if (first && first->room - first->used >= bytes)
		return first;
	if (room > SIZE_MAX - sizeof *first)
		no_memory(bytes);
	struct arena_chunk *chunk = xzalloc(1, sizeof *chunk + room);
	chunk->room = room;
	if (large && first) {
		chunk->next = first->next;
		first->next = chunk;
	} else {
		chunk->next = first;
		arena->chunks = chunk;
	}
	return chunk;
}

void *arena_take(struct arena *arena, size_t bytes)
{
	if (bytes > SIZE_MAX - ARENA_ALIGN)
		no_memory(bytes);
	/* Never zero bytes: two pieces never share an address. */
	bytes = ((bytes ? bytes : 1) + ARENA_ALIGN - 1) & ~(ARENA_ALIGN - 1);

	struct arena_chunk *chunk = chunk_for(arena, bytes);
	void *piece = chunk->data + chunk->used;
	chunk->used += bytes;
	return piece;
}

char *arena_copy(struct arena *arena, const char *text, size_t bytes)
{
	if (bytes == SIZE_MAX)
		no_memory(bytes);
	char *copy = arena_take(arena, bytes + 1);

	if (bytes)
		memcpy(copy, text, bytes);
	return copy;
}

char *arena_format(struct arena *arena, const char *fmt, ...)
{
	va_list args, again;

	va_start(args, fmt);
	va_copy(again, args);
	int bytes = vsnprintf(NULL, 0, fmt, args);
	char *text = arena_take(arena, bytes < 0 ? 1 : (size_t)bytes + 1);
	if (bytes > 0)
		vsnprintf(text, (size_t)bytes + 1, fmt, again);
	va_end(again);
	va_end(args);
	return text;
}

void arena_release(struct arena *arena)
{
	struct arena_chunk *next;

	for (struct arena_chunk *chunk = arena->chunks; chunk; chunk = next) {
		next = chunk->next;
		free(chunk);
	}
	arena->chunks = NULL;
}

void *slab_take(struct slab *slab, size_t bytes)
{
	const size_t most = SIZE_MAX & ~(size_t)(SLAB_ALIGN - 1);
	void *piece = slab->base ? slab->base + slab->used : NULL;

	/* A size beyond all memory stays beyond all memory: the estimate must not wrap. */
	if (bytes > most - slab->used)
		slab->used = most;
	else
		slab->used += (bytes + SLAB_ALIGN - 1) & ~(size_t)(SLAB_ALIGN - 1);
	return piece;
}

/* Makes room for so many more bytes and the NUL behind them. */
static void text_room(struct text *text, size_t more)
{
	size_t room = text->room ? text->room : 64;

	if (more > SIZE_MAX / 4 - text->bytes)
		no_memory(more);
	while (room < text->bytes + more + 1)
		room *= 2;
	if (room == text->room)
		return;
	char *data = realloc(text->data, room);
	if (!data)
		no_memory(room);
	text->data = data;
	text->room = room;
}

void text_put(struct text *text, const void *data, size_t bytes)
{
	text_room(text, bytes);
	if (bytes)
		memcpy(text->data + text->bytes, data, bytes);
	text->bytes += bytes;
	text->data[text->bytes] = '\0';
}

void text_add(struct text *text, const char *fmt, ...)
{
	va_list args, again;

	va_start(args, fmt);
	va_copy(again, args);
	int bytes = vsnprintf(NULL, 0, fmt, args);
	if (bytes >= 0) {
		text_room(text, (size_t)bytes);
		vsnprintf(text->data + text->bytes, (size_t)bytes + 1, fmt, again);
		text->bytes += (size_t)bytes;
	}
	va_end(again);
	va_end(args);
}

void text_release(struct text *text)
{
	free(text->data);
	*text = (struct text){0};
}
