/*
 * base/digest.c - digests of data and files: XXH3-128.
 */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define PIECE_BYTES ((size_t)1 << 20)

struct digest_state {
	XXH3_state_t *xxh;
};

static struct digest from_xxh(XXH128_hash_t hash)
{
	return (struct digest){.low = hash.low64, .high = hash.high64};
}

struct digest digest_of(const void *data, size_t bytes)
{
	return from_xxh(XXH3_128bits(data, bytes));
}

struct digest_state *digest_open(void)
{
	struct digest_state *state = xalloc(sizeof *state);

	/* xxHash wants 64-byte alignment and brings its own allocator for it. */
	state->xxh = XXH3_createState();
	if (!state->xxh || XXH3_128bits_reset(state->xxh) != XXH_OK) {
		fprintf(stderr, "edgepipe: error: out of memory for a digest\n");
		_exit(EXIT_BUG);
	}
	return state;
}

void digest_add(struct digest_state *state, const void *data, size_t bytes)
{
	if (bytes)
		XXH3_128bits_update(state->xxh, data, bytes);
}

struct digest digest_close(struct digest_state *state)
{
	struct digest digest = from_xxh(XXH3_128bits_digest(state->xxh));

	XXH3_freeState(state->xxh);
	free(state);
	return digest;
}

uint64_t checksum(const void *data, size_t bytes, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, bytes, seed);
}

int digest_file(const char *path, struct digest *digest)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (file < 0)
		return error(EXIT_INPUT, "cannot open '%s': %s", path, strerror(errno));
	struct digest_state *state = digest_open();
	char *piece = xalloc(PIECE_BYTES);
	while ((got = read(file, piece, PIECE_BYTES)) > 0 || (got < 0 && errno == EINTR)) {
		if (got > 0)
			digest_add(state, piece, (size_t)got);
	}
	if (got < 0)
		report(EXIT_INPUT, "cannot read '%s': %s", path, strerror(errno));
	free(piece);
	close(file);
	struct digest sum = digest_close(state);
	if (got < 0)
		return -1;
	*digest = sum;
	return 0;
}

bool digest_equal(struct digest a, struct digest b)
{
	return a.low == b.low && a.high == b.high;
}

const char *digest_write(struct digest digest, char text[33])
{
	snprintf(text, 33, "%016llx%016llx", (unsigned long long)digest.high,
		 (unsigned long long)digest.low);
	return text;
}
