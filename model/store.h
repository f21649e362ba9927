/*
 * model/store.h - tokenised samples in one file that is written once and then mapped.
 */
#ifndef EDGEPIPE_MODEL_STORE_H
#define EDGEPIPE_MODEL_STORE_H

#include "model/model.h"

/* What a store says of its samples. */
struct store_facts {
	uint64_t samples, words;
	uint64_t trained_tokens, cut, cut_tokens, skipped;
	int32_t tokens, pad;	 /* T; what fills short samples */
	uint32_t labels;	 /* samples have labels of their own behind their ids */
	char template[32];	 /* "": none */
	struct digest content;	 /* of the ids and labels */
};

/* -- store_write.c ------------------------------------------------------------------------- */

struct store_writer;
/* A file without a name in ${TMPDIR:-/tmp}, else in memory. -1 after an error. */
int file_nameless(void);
/* A new file beside its later place; with a null path one without a name, in memory where no disk
 * takes it. Null after an error (EXIT_CREATE). */
struct store_writer *store_create(const char *path);
/* A sample: ids, and labels where samples have their own (always or never); else `trained` tells
 * for each id whether it is its own label. -1 after an error (EXIT_IO). */
int store_put(struct store_writer *writer, const int32_t *ids, const int32_t *labels, size_t count,
	      bool own);
/* Completes the file and puts it in its place; the open file, or -1. Frees the writer, always. */
int store_finish(struct store_writer *writer, struct store_facts *facts, struct digest key);
/* Gives up. */
void store_abandon(struct store_writer *writer);

/* -- store.c ------------------------------------------------------------------------------- */

struct store;
/* Maps an open file and closes it. Null, without a word, where it is not a whole store of this
 * key. */
struct store *store_open(int file, struct digest key);
const struct store_facts *store_facts(const struct store *store);
/* The ids and unshifted labels of a sample, T each, padded. -1 where what lies on the disk is
 * not what was written. */
int store_sample(struct store *store, uint64_t sample, int32_t *ids, int32_t *labels);
/* How many of its ids come before the last that is trained, at least 1. */
int store_reach(struct store *store, uint64_t sample);
/* How many ids a sample has. */
int store_length(struct store *store, uint64_t sample);
void store_close(struct store *store);

/* -- layout -------------------------------------------------------------------------------- */

/*
 * head (STORE_HEAD bytes) | words, 4 bytes each: the ids of a sample, with the top bit set where
 * the label is -100, or ids and then labels | the first word of every sample, 8 bytes each, and
 * their number | one sum of 8 bytes for every piece of STORE_PIECE bytes of the words and the
 * index.
 */
#define STORE_HEAD 4096
#define STORE_PIECE ((size_t)1 << 18)
#define STORE_UNTRAINED 0x80000000u
struct store_head {
	char magic[8];
	struct digest key;
	struct store_facts facts;
	uint64_t index_at, sums_at, bytes; /* of the file */
	struct digest sums;
	struct digest self; /* of what stands before it */
};
#define STORE_MAGIC "edgeids1"

#endif
