/*
 * model/store.c - tokenised samples in a mapped file.
 *
 * Pages go back to the system after some reads: what is resident does not depend on how many
 * samples there are. The pieces of a file up to VERIFY_BYTES are compared
 * with their checksums when it is opened, those of a larger one when they are first read.
 */
#include "model/store.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define VERIFY_BYTES ((uint64_t)1 << 30)
#define READS_MOST 32 /* each leaves some 64 KiB around what it touched, or a piece */

struct store {
	char *map;
	size_t bytes;
	struct store_head head;
	const uint64_t *sum;
	uint64_t pieces;
	bool *verified;
	int reads; /* since the pages were given back */
};

/* -- trust --------------------------------------------------------------------------------- */

/* To be called after each read: gives all pages back now and then; they can be read again. */
static void forget(struct store *s)
{
	if (++s->reads < READS_MOST)
		return;
	s->reads = 0;
	(void)madvise(s->map, s->bytes, MADV_DONTNEED);
}

/* Whether the pieces of a range of the file are what was written. */
static bool verify(struct store *s, uint64_t from, uint64_t to)
{
	uint64_t last = (to - 1 - STORE_HEAD) / STORE_PIECE;

	for (uint64_t i = (from - STORE_HEAD) / STORE_PIECE; i <= last; i++) {
		uint64_t at = STORE_HEAD + i * STORE_PIECE, end = at + STORE_PIECE;

		if (s->verified[i])
			continue;
		if (end > s->head.sums_at)
			end = s->head.sums_at;
		s->verified[i] = checksum(s->map + at, (size_t)(end - at), i) == s->sum[i];
		forget(s);
		if (!s->verified[i])
			return false;
	}
	return true;
}

/* Whether the numbers in the head agree with each other and with the file. */
static bool is_sound(const struct store *s, struct digest key)
{
	const struct store_head *h = &s->head;
	uint64_t words = h->facts.words + h->facts.words % 2;

	return memcmp(h->magic, STORE_MAGIC, sizeof h->magic) == 0 &&
	       digest_equal(h->self, digest_of(h, offsetof(struct store_head, self))) &&
	       digest_equal(h->key, key) && h->bytes == s->bytes &&
	       h->index_at == STORE_HEAD + words * sizeof(uint32_t) &&
	       h->sums_at == h->index_at + (h->facts.samples + 1) * sizeof(uint64_t) &&
	       s->bytes == h->sums_at + s->pieces * sizeof(uint64_t) && h->facts.samples > 0 &&
	       h->facts.tokens > 0;
}

static bool open_map(struct store *s, int file, struct digest key)
{
	struct stat status;

	if (fstat(file, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size <= STORE_HEAD)
		return false;
	s->bytes = (size_t)status.st_size;
	s->map = mmap(NULL, s->bytes, PROT_READ, MAP_SHARED, file, 0);
	if (s->map == MAP_FAILED) {
		s->map = NULL;
		return false;
	}
	memcpy(&s->head, s->map, sizeof s->head);
	for (size_t i = sizeof s->head; i < STORE_HEAD; i++) {
		if (s->map[i])
			return false;
	}
	if (s->head.sums_at < STORE_HEAD || s->head.sums_at > s->bytes)
		return false;
	s->pieces = (s->head.sums_at - STORE_HEAD + STORE_PIECE - 1) / STORE_PIECE;
	if (!is_sound(s, key))
		return false;
	s->sum = (const uint64_t *)(const void *)(s->map + s->head.sums_at);
	if (!digest_equal(s->head.sums, digest_of(s->sum, s->pieces * sizeof *s->sum)))
		return false;
	s->verified = xzalloc(s->pieces, sizeof *s->verified);
	if (s->head.sums_at > VERIFY_BYTES)
		return true;
	return verify(s, STORE_HEAD, s->head.sums_at);
}

struct store *store_open(int file, struct digest key)
{
	struct store *s = xzalloc(1, sizeof *s);
	bool good = open_map(s, file, key);

	close(file);
	if (good)
		return s;
	store_close(s);
	return NULL;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	if (s->map)
		munmap(s->map, s->bytes);
	free(s->verified);
	free(s);
}

const struct store_facts *store_facts(const struct store *s)
{
	return &s->head.facts;
}

/* -- samples ------------------------------------------------------------------------------- */

struct words {
	uint64_t from, to; /* bytes of the file */
	size_t count;	   /* ids */
};

/* Where a sample stands. -1 where the index is damaged. */
static int find(struct store *s, uint64_t sample, struct words *words)
{
	uint64_t at = s->head.index_at + sample * sizeof(uint64_t), bound[2];

	if (!verify(s, at, at + sizeof bound))
		return -1;
	memcpy(bound, s->map + at, sizeof bound);
	if (bound[0] > bound[1] || bound[1] > s->head.facts.words)
		return -1;
	words->from = STORE_HEAD + bound[0] * sizeof(uint32_t);
	words->to = STORE_HEAD + bound[1] * sizeof(uint32_t);
	words->count = (size_t)(bound[1] - bound[0]) / (s->head.facts.labels ? 2 : 1);
	if (words->count > (size_t)s->head.facts.tokens)
		return -1;
	return words->count > 0 && !verify(s, words->from, words->to) ? -1 : 0;
}

int store_length(struct store *s, uint64_t sample)
{
	struct words words;

	return find(s, sample, &words) < 0 ? -1 : (int)words.count;
}

int store_reach(struct store *s, uint64_t sample)
{
	struct words words;
	int32_t label;

	if (find(s, sample, &words) < 0)
		return -1;
	size_t reach = words.count > 0 ? words.count - 1 : 0;
	for (; reach > 1; reach--) {
		size_t at = s->head.facts.labels ? words.count + reach : reach;

		memcpy(&label, s->map + words.from + at * sizeof label, sizeof label);
		if (s->head.facts.labels ? label != -100
					 : !((uint32_t)label & STORE_UNTRAINED))
			break;
	}
	forget(s);
	return reach < 1 ? 1 : (int)reach;
}

int store_sample(struct store *s, uint64_t sample, int32_t *ids, int32_t *labels)
{
	const struct store_facts *facts = &s->head.facts;
	size_t T = (size_t)facts->tokens;
	struct words words;

	if (find(s, sample, &words) < 0)
		return -1;
	memcpy(ids, s->map + words.from, words.count * sizeof *ids);
	if (facts->labels)
		memcpy(labels, s->map + words.from + words.count * sizeof *ids,
		       words.count * sizeof *labels);
	forget(s);
	for (size_t t = 0; t < words.count && !facts->labels; t++) {
		bool trained = !((uint32_t)ids[t] & STORE_UNTRAINED);

		ids[t] = (int32_t)((uint32_t)ids[t] & ~STORE_UNTRAINED);
		labels[t] = trained ? ids[t] : -100;
	}
	for (size_t t = words.count; t < T; t++) {
		ids[t] = facts->pad;
		labels[t] = -100;
	}
	return 0;
}
