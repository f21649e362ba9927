/*
 * model/tokenizer.h - what the files of the tokenizer share: the spelling of bytes, the
 * vocabulary, the merges, and the tokenizer that tokenizer_file.c fills and tokenizer.c runs.
 */
#ifndef EDGEPIPE_MODEL_TOKENIZER_H
#define EDGEPIPE_MODEL_TOKENIZER_H

#include "model/model.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* -- spelling.c ---------------------------------------------------------------------------- */

/*
 * GPT-2 spells every byte as one printable character, so that tokens are texts: bytes that are
 * printable in Latin-1 stand for themselves, the other 68 for U+0100 and up (a space is
 * U+0120).
 */
#define SPELLING_BYTES 2 /* the most bytes of one spelled byte in UTF-8 */
/* Writes the spelling of a byte; returns how many bytes it takes. */
size_t spelling_of(uint8_t byte, char spelling[SPELLING_BYTES]);
/* Adds the bytes that a token spells. One with other characters is no spelling and is taken as
 * it is. */
void spelling_read(const char *token, struct text *text);

/* -- vocabulary.c -------------------------------------------------------------------------- */

enum token_kind {
	TOKEN_SPELLED, /* of the model: spelled bytes */
	TOKEN_ADDED,   /* added beside the model: plain text, found before all else */
	TOKEN_SPECIAL, /* added, and a control token: text only on request */
};
struct token {
	const char *text; /* null: no token has this id */
	enum token_kind kind;
};
struct vocabulary {
	struct token *token; /* by id */
	int size, room;	     /* size: largest id + 1 */
	int32_t *slot;	     /* hash table by text: an id, or -1 */
	size_t slots, used;  /* slots is a power of two */
	struct arena arena;  /* the texts */
};
/* A new token; path is for messages. -1 for an id that is taken or out of range, or a text that
 * is there. */
int vocabulary_add(struct vocabulary *vocabulary, const char *path, const char *text,
		   long long id, enum token_kind kind);
/* The id of a text, -1: none. */
int vocabulary_find(const struct vocabulary *vocabulary, const char *text, size_t bytes);
void vocabulary_release(struct vocabulary *vocabulary);

/* -- bpe.c --------------------------------------------------------------------------------- */

/* Byte-pair encoding of one word: merges by rank, and a cache of the words seen. */
struct bpe {
	int32_t byte[256];     /* the token of each byte, -1: none */
	struct merge *merge;   /* hash table by pair of tokens */
	size_t merges;	       /* its slots, a power of two */
	struct word *word;     /* the cache */
	struct symbol *symbol; /* scratch for one word */
	struct candidate *heap;
	size_t symbols; /* room of both */
};
/* Empty, for a vocabulary and a number of merges. */
void bpe_open(struct bpe *bpe, const struct vocabulary *vocabulary, size_t merges);
/* Adds the merge of a rank (at most as many as bpe_open was told); false where one of the two
 * tokens, or the two joined, is not in the vocabulary. A later merge of the same pair takes its
 * place. */
bool bpe_add(struct bpe *bpe, const struct vocabulary *vocabulary, const char *left,
	     size_t left_bytes, const char *right, size_t right_bytes, int rank);
/* Appends the tokens of a word. -1 for a byte without a token. */
int bpe_encode(struct bpe *bpe, const char *word, size_t bytes, struct ids *ids);
void bpe_release(struct bpe *bpe);

/* -- tokenizer.c --------------------------------------------------------------------------- */

/* What tokenizer.json and tokenizer_config.json must say for a kind, and what follows. */
struct tokenizer_kind {
	const char *name;	   /* for messages */
	const char *model;	   /* model.type */
	const char *pre_tokenizer; /* pre_tokenizer.type */
	const char *decoder;	   /* decoder.type */
	const char *class[3];	   /* tokenizer_class, where there is no tokenizer.json */
	const char *pattern;	   /* how a text is cut into words */
};
extern const struct tokenizer_kind tokenizer_kinds[]; /* ended by name null */

struct added {
	const char *text;
	size_t bytes;
	int32_t id;
	bool special, normalized;
};
struct tokenizer {
	const struct tokenizer_kind *kind;
	const char *folder;
	struct vocabulary vocabulary;
	struct bpe bpe;
	bool prefix_space; /* a space is put before a text that has none */
	struct added *added;
	int added_count, added_room;
	bool begins[2][256]; /* first bytes of added tokens, by normalized */
	struct ids before, after; /* what stands around a text */
	pcre2_code *pattern;
	pcre2_match_data *match;
	pcre2_match_context *limits;
	struct arena arena;
};
/* Takes note of an added token; said again, the last word counts. -1 where it is empty, or its
 * id or text belongs to another token. */
int tokenizer_add(struct tokenizer *tokenizer, const char *path, const char *text, long long id,
		  bool special, bool normalized);
/* How many bytes at the start of a text are whole UTF-8 characters. */
size_t tokenizer_utf8(struct tokenizer *tokenizer, const char *text, size_t bytes);

/* -- postprocessor.c ----------------------------------------------------------------------- */

/* Takes the post_processor of tokenizer.json. */
int postprocessor_read(struct tokenizer *tokenizer, const char *path, const struct json *map);
/* Takes add_bos_token and add_eos_token of tokenizer_config.json (null: none). A sentencepiece
 * model has a beginning unless it is told otherwise. */
int postprocessor_configure(struct tokenizer *tokenizer, const char *path,
			    const struct json *config, bool sentencepiece);

/* -- tokenizer_file.c ---------------------------------------------------------------------- */

/* Fills a zeroed tokenizer from FOLDER/tokenizer.json, or from FOLDER/merges.txt and the
 * vocab.json and what describes it beside it. */
int tokenizer_read_json(struct tokenizer *tokenizer, const char *path);
int tokenizer_read_merges(struct tokenizer *tokenizer, const char *merges);

#endif
