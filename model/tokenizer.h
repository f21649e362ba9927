/*
 * model/tokenizer.h - what the files of the tokenizer share.
 *
 * A text goes through: added tokens that are found in the text as it is (added.c), the normalizer
 * (normalizer.c), added tokens that are found in the normalized text, the pre-tokenizer, which
 * cuts words (pretokenizer.c), and the model, which gives ids for a word (bpe.c, or the vocabulary
 * alone). Ids go back to text through the decoder (decoder.c). Each of the three parts is a list
 * of steps, which tokenizer.json or a row of tokenizer_folder.c spells out.
 */
#ifndef EDGEPIPE_MODEL_TOKENIZER_H
#define EDGEPIPE_MODEL_TOKENIZER_H

#include "model/model.h"

/* -- spelling.c ---------------------------------------------------------------------------- */

/*
 * GPT-2 spells every byte as one printable character, so that tokens are texts: bytes that are
 * printable in Latin-1 stand for themselves, the other 68 for U+0100 and up (a space is
 * U+0120).
 */
#define SPELLING_BYTES 2 /* the most bytes of one spelled byte in UTF-8 */
/* Writes the spelling of a byte; returns how many bytes it takes. */
size_t spelling_of(uint8_t byte, char spelling[SPELLING_BYTES]);
/* Adds the spelling of some bytes. */
void spelling_write(const char *data, size_t bytes, struct text *text);
/* Adds the bytes that a token spells. One with other characters is no spelling and is taken as
 * it is. */
void spelling_read(const char *token, size_t bytes, struct text *text);

/* -- utf8.c -------------------------------------------------------------------------------- */

/* The character at the start of a valid text that is not empty; *size: its bytes. */
uint32_t utf8_at(const char *text, size_t *size);
/* The last character of a valid text that is not empty. */
uint32_t utf8_last(const char *text, size_t bytes, size_t *size);
void utf8_put(struct text *text, uint32_t character);
/* Adds bytes with U+FFFD for what is not UTF-8, one for each longest start of a character. */
void utf8_repair(struct text *text, const char *data, size_t bytes);
bool utf8_is_space(uint32_t character); /* White_Space */
bool utf8_is_word(uint32_t character);	/* \w of Unicode's regular expressions */

/* -- vocabulary.c -------------------------------------------------------------------------- */

enum token_kind {
	TOKEN_MODEL,   /* of the model */
	TOKEN_ADDED,   /* added beside the model: found before all else */
	TOKEN_SPECIAL, /* added, and a control token: text only on request */
};
struct token {
	const char *text; /* null: no token has this id */
	uint32_t bytes;
	enum token_kind kind;
	bool model;	   /* the model knows it */
	const char *shown; /* what an added token is decoded to, where that is not its text */
	uint32_t shown_bytes;
	int32_t added; /* place of its entry among the added tokens, where it is one */
};
struct vocabulary {
	struct token *token; /* by id */
	int size, room;	     /* size: largest id + 1 */
	struct vocabulary_slot *slot; /* hash table by text */
	size_t slots, used;  /* slots is a power of two */
	struct arena arena;  /* the texts */
};
/* A new token; path is for messages. -1 for an id that is taken or out of range, or a text that
 * is there. */
int vocabulary_add(struct vocabulary *vocabulary, const char *path, const char *text,
		   size_t bytes, long long id, enum token_kind kind);
/* The id of a text, -1: none. */
int vocabulary_find(const struct vocabulary *vocabulary, const char *text, size_t bytes);
/* The same where the model knows it. */
int vocabulary_model(const struct vocabulary *vocabulary, const char *text, size_t bytes);
void vocabulary_release(struct vocabulary *vocabulary);

/* -- pattern.c ----------------------------------------------------------------------------- */

/* A regular expression as Hugging Face's files write them (Oniguruma's), run by PCRE2. */
struct pattern;
/* Null after an error: EXIT_CONFIG for what PCRE2 cannot do or does otherwise. */
struct pattern *pattern_open(const char *path, const char *source);
/* A text that is found as it is. */
struct pattern *pattern_literal(const char *text, size_t bytes);
void pattern_close(struct pattern *pattern);
void pattern_version(char version[64]); /* of the library */

/* The characters of a property ("L", "Nd", "word") that PCRE2's tables may lack, as they stand in
 * a class; null: none. (newer.c) */
const char *unicode_newer(const char *property, size_t bytes);
/* Whether a character that utf8proc may not know is of \w; its lower case, or itself. */
bool unicode_is_newer_word(uint32_t character);
uint32_t unicode_newer_lower(uint32_t character);
/* Whether Hugging Face's normalizers, which know Unicode 9, take a character for a plain one that is a mark or decomposed
 * by now. */
bool unicode_is_later(uint32_t character);

/* A walk over the matches in a text. {.text, .bytes} is its start. */
struct matches {
	const char *text;
	size_t bytes;
	size_t start, end; /* of the last match */
	size_t next;	   /* private: where to look on */
	size_t earned;	   /* private: up to where work was allowed for */
	bool found;	   /* private: a match was found before */
};
/* 1: the next match, 0: there is none, -1: it takes too long, said with the pattern. The work grows
 * with the length of the texts, whatever the expression and the texts are. */
int pattern_next(struct pattern *pattern, struct matches *matches);

/* -- steps.c ------------------------------------------------------------------------------- */

enum step_kind {
	/* of normalizers */
	STEP_NFC, STEP_NFD, STEP_NFKC, STEP_NFKD, STEP_LOWERCASE, STEP_PREPEND, STEP_REPLACE,
	STEP_STRIP, STEP_STRIP_ACCENTS, STEP_SPELL, STEP_SQUEEZE,
	/* of pre-tokenizers */
	STEP_SPLIT, STEP_BYTE_LEVEL, STEP_METASPACE,	/* and STEP_SPELL */
	/* of decoders */
	STEP_BYTE_FALLBACK, STEP_FUSE, /* and STEP_REPLACE, _STRIP, _BYTE_LEVEL, _METASPACE */
};
/* What becomes of the matches that cut a text. */
enum behaviour {
	BEHAVIOUR_REMOVED,
	BEHAVIOUR_ISOLATED,
	BEHAVIOUR_MERGED_WITH_PREVIOUS,
	BEHAVIOUR_MERGED_WITH_NEXT,
	BEHAVIOUR_CONTIGUOUS,
};
enum prefix { PREFIX_NEVER, PREFIX_FIRST, PREFIX_ALWAYS };
struct step {
	enum step_kind kind;
	struct pattern *pattern;   /* of STEP_SPLIT, STEP_REPLACE, STEP_BYTE_LEVEL; or null */
	char *text;		   /* what is prepended, put in, stripped; a space's replacement */
	size_t bytes;
	enum behaviour behaviour;
	bool invert;		   /* the matches are what lies between those of the pattern */
	enum prefix prefix;	   /* whether a space is put before */
	bool cut;		   /* of STEP_METASPACE: cut before each replacement */
	long long left, right;	   /* how many are stripped at the ends; flags in a normalizer */
	struct text scratch;	   /* of STEP_BYTE_LEVEL, STEP_METASPACE: the changed text */
};
struct steps {
	struct step *step;
	int count, room;
};
/* A new step at the end, zeroed but for its kind. */
struct step *steps_add(struct steps *steps, enum step_kind kind);
void step_text(struct step *step, const char *text, size_t bytes);
void steps_release(struct steps *steps);
/* Adds the steps that one map of tokenizer.json spells out. */
typedef int step_reader(struct steps *steps, const char *path, const struct json *map);
/* Reads the list of a "Sequence", of not more steps than any tokenizer could use (EXIT_CONFIG). */
int steps_read(struct steps *steps, const char *path, const struct json *list, step_reader *read);
/* Refuses what steps make of a text where it has grown beyond all use (EXIT_DATA). */
int steps_growth(size_t from, size_t bytes);
/* Reads {"String": ..} or {"Regex": ..}; null after an error. */
struct pattern *steps_pattern(const char *path, const struct json *value);
/* Says that a part of a tokenizer is not built (EXIT_CONFIG). */
int refuse_part(const char *path, const char *part, const char *name);
/* Refuses the fields of a map that are neither known (words ended by null) nor say nothing. */
int refuse_others(const char *path, const char *place, const struct json *map,
		  const char *const *known);

/* -- normalizer.c -------------------------------------------------------------------------- */

/* Adds the steps of a normalizer, null: none. */
int normalizer_read(struct steps *steps, const char *path, const struct json *map);
/* Makes *text the normalized text, which lies where it lay if nothing changed it, else in one of
 * two scratch texts. first: it begins where the whole text begins. */
int normalizer_run(struct steps *steps, bool first, const char **text, size_t *bytes,
		   struct text scratch[2]);
/* Adds a text in which the matches of the step's pattern are replaced. */
int step_replace(const struct step *step, const char *data, size_t bytes, struct text *text);

/* -- unicode.c ----------------------------------------------------------------------------- */

/* Adds a text in a normal form: STEP_NFC .. STEP_NFKD. */
void unicode_normal(enum step_kind form, const char *data, size_t bytes, struct text *text);
/* Whether a text is surely in form C. */
bool unicode_is_nfc(const char *data, size_t bytes);
void unicode_lower(const char *data, size_t bytes, struct text *text);
bool unicode_is_mark(uint32_t character); /* a combining mark: category M of Unicode 9 */
const char *unicode_version(void); /* of the library, whose tables it has */

/* -- pretokenizer.c ------------------------------------------------------------------------ */

struct tokenizer;
/* Adds the steps of a pre-tokenizer, null: none. */
int pretokenizer_read(struct steps *steps, const char *path, const struct json *map);
/* Of a decoder too. */
int metaspace_read(struct steps *steps, const char *path, const struct json *map);
/* Cuts a text into words from a step on and adds their ids. first: the text begins where the
 * whole text begins. */
int pretokenizer_run(struct tokenizer *tokenizer, int step, const char *text, size_t bytes,
		     bool first, struct ids *ids);

/* -- decoder.c ----------------------------------------------------------------------------- */

/* Adds the steps of a decoder, null: none. */
int decoder_read(struct steps *steps, const char *path, const struct json *map);
/* Adds the text of ids, which are all known. whole: bytes that are no UTF-8 become U+FFFD, as
 * Hugging Face does it. */
int decoder_run(const struct tokenizer *tokenizer, const int32_t *id, size_t count, bool special,
		bool whole, struct text *text);

/* -- bpe.c --------------------------------------------------------------------------------- */

/* Two tokens that are joined. */
struct merge {
	int32_t left, right; /* left < 0: a free slot */
	int32_t rank, id;    /* id: the two joined */
};
/* Byte-pair encoding of one word: merges by rank, and a cache of the words seen. */
struct bpe {
	const struct vocabulary *vocabulary;
	bool spelled;	       /* words are bytes that the vocabulary spells */
	bool byte_fallback, fuse_unknown, ignore_merges;
	int32_t unknown;       /* the token of what is not in the vocabulary */
	const char *unknown_text; /* its text; null: what is unknown is left out */
	int32_t byte[256];     /* the token of each byte: spelled, or for byte_fallback; -1: none */
	int32_t ascii[128];    /* of each ASCII character */
	struct merge *merge;   /* hash table by pair of tokens */
	size_t merges;	       /* its slots, a power of two */
	uint8_t *joined;       /* bitmap of characters that a merge joins with U+2581 behind them;
				* null: words are not cut there */
	struct word *word;     /* the cache */
	/* Scratch for one word: its symbols before any merge, where its tokens begin, a part of it. */
	int32_t *first, *start;
	struct symbol *symbol;
	struct candidate *heap;
	size_t firsts, starts, symbols, candidates; /* room of each */
};
/* Empty, for a vocabulary and a number of merges. */
void bpe_open(struct bpe *bpe, const struct vocabulary *vocabulary, size_t merges);
/* Adds the merge of a rank (at most as many as bpe_open was told); false where one of the two
 * tokens, or the two joined, is not in the vocabulary. A later merge of the same pair takes its
 * place. */
bool bpe_add(struct bpe *bpe, const char *left, size_t left_bytes, const char *right,
	     size_t right_bytes, int rank);
/* The same by ids. (merge.c) */
void bpe_join(struct bpe *bpe, int left, int right, int both, int rank);
/* Merges the first symbols of bpe->first and appends what they become. (merge.c) */
void bpe_merge(struct bpe *bpe, int32_t count, struct ids *ids);
/* To be called when everything but the cache is set. */
void bpe_ready(struct bpe *bpe);
/* Appends the tokens of a word. -1 for one that is too long. */
int bpe_encode(struct bpe *bpe, const char *word, size_t bytes, struct ids *ids);
void bpe_release(struct bpe *bpe);

/* -- added.c ------------------------------------------------------------------------------- */

struct added {
	char *find; /* what is looked for: the token's text, normalized where it says so */
	size_t bytes;
	int32_t id;
	int order; /* in the file */
	bool special, normalized, single_word;
	bool left, right; /* takes spaces there */
};
/* Added tokens of which one group is looked for in the text as it is, the other in the normalized
 * one. */
struct added_tokens {
	struct added *added;
	int count, room;
	struct added **sorted[2]; /* by normalized, then text */
	int sorted_count[2];
	bool begins[2][256]; /* their first bytes */
};
/* A new one, to be filled. */
struct added *added_take(struct added_tokens *tokens);
/* To be called when all are there and normalized. */
void added_ready(struct added_tokens *tokens);
void added_release(struct added_tokens *tokens);
/* The next added token of a group in a text: 1 with what it takes, 0: none. */
struct added_match {
	size_t next;	   /* where to look on */
	size_t done;	   /* what the matches before took */
	size_t start, end; /* what this one takes */
	size_t space, space_end; /* the last run of spaces that a token took at its right */
	int32_t id;
};
int added_next(const struct added_tokens *tokens, bool normalized, bool special,
	       const char *text, size_t bytes, struct added_match *match);

/* -- tokenizer.c --------------------------------------------------------------------------- */

struct tokenizer {
	const char *folder;
	struct vocabulary vocabulary;
	bool words;	    /* the model is the vocabulary alone */
	const char *unknown_text; /* unk_token; null: none */
	struct bpe bpe;
	struct steps normalizer, pretokenizer, decoder;
	struct added_tokens added;
	struct ids before, after; /* what stands around a text */
	struct text scratch[2];	  /* of the normalizer */
	struct arena arena;
};
/* Takes note of an added token with its flags; said again, the last word counts. -1
 * where it is empty, or its id or text belongs to another token. */
int tokenizer_add(struct tokenizer *tokenizer, const char *path, const char *text, size_t bytes,
		  long long id, const struct added *flags);
/* To be called when all files are read: what follows from all of them. */
int tokenizer_ready(struct tokenizer *tokenizer);
/* Appends the ids of a word. */
int tokenizer_word(struct tokenizer *tokenizer, const char *word, size_t bytes,
		   struct ids *ids);

/* -- postprocessor.c ----------------------------------------------------------------------- */

/* Takes the post_processor of tokenizer.json. */
int postprocessor_read(struct tokenizer *tokenizer, const char *path, const struct json *map);
/* Takes add_bos_token and add_eos_token of tokenizer_config.json (null: none). A sentencepiece
 * model has a beginning unless it is told otherwise. */
int postprocessor_configure(struct tokenizer *tokenizer, const char *path,
			    const struct json *config, bool sentencepiece);

/* -- tokenizer_file.c, tokenizer_folder.c, sentencepiece.c --------------------------------- */

/* Each fills a zeroed tokenizer: from FOLDER/tokenizer.json; from what else is in the folder, as
 * tokenizer_config.json says; from FOLDER/tokenizer.model, where config is tokenizer_config.json or
 * null. */
int tokenizer_read_json(struct tokenizer *tokenizer, const char *path);
int tokenizer_read_folder(struct tokenizer *tokenizer);
int tokenizer_read_pieces(struct tokenizer *tokenizer, const char *path,
			  const struct json *config);
/* Takes a vocabulary: a map from tokens to ids. */
int tokenizer_read_vocabulary(struct tokenizer *tokenizer, const char *path,
			      const struct json *map);
/* Takes a merge written as "a b". */
bool tokenizer_read_merge(struct tokenizer *tokenizer, const char *line, size_t bytes, int rank);
/* Takes an added token: {"content": .., "special": .., "normalized": ..}. */
int tokenizer_read_added(struct tokenizer *tokenizer, const char *path, const struct json *map,
			 long long id);
/* Takes the parts that a text of JSON spells out: "normalizer", "pre_tokenizer", "decoder". */
int tokenizer_read_parts(struct tokenizer *tokenizer, const char *path,
			 const struct json *root);

#endif
