/*
 * base/ - what every other folder stands on: errors, log, memory, time, random numbers, units,
 * digests, threads, JSON, YAML, and the table that drives configuration.
 *
 * It knows nothing of models, ranks or MPI. External libraries: jansson (json.c), libyaml
 * (yaml.c), xxHash (digest.c).
 */
#ifndef EDGEPIPE_BASE_H
#define EDGEPIPE_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* -- error.c ------------------------------------------------------------------------------- */

/*
 * An error is said once, by the first who knows: return error(EXIT_INPUT, "cannot open '%s':
 * %s", path, strerror(errno)). Callers pass -1 (or a null pointer) up. The code is what the
 * process will end with; the first one said by a thread wins.
 */
enum exit_code {
	EXIT_USAGE = 2,		/* a wrong command line */
	EXIT_DATA = 65,		/* a broken data or model file */
	EXIT_INPUT = 66,	/* a file that is not there or cannot be read */
	EXIT_BUG = 70,		/* our own mistake */
	EXIT_CREATE = 73,	/* an output that cannot be created */
	EXIT_IO = 74,		/* a disk that failed while writing */
	EXIT_RETRY = 75,	/* temporary: resuming will work */
	EXIT_SKIP = 77,		/* CTest: skipped */
	EXIT_CONFIG = 78,	/* a configuration that cannot work */
	EXIT_DIVERGED = 79,	/* NaN or Inf in loss or gradients */
};

/*
 * Says an error. Printed at once to stderr as "edgepipe: error: ..."; a text that starts with
 * "file:line:" is printed as it is, without the prefix. With errors held (error_hold), it is
 * kept until error_text. Thread-local: two ranks that live in one process do not mix.
 */
void report(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define error(code, ...) (report(code, __VA_ARGS__), -1)
#define error_null(code, ...) ((void *)(report(code, __VA_ARGS__), (char *)0))

/* Keeps what this thread says from now on instead of printing it. */
void error_hold(void);
/* The code of the first error this thread said since error_hold or error_clear; 0 if none. */
int error_code(void);
/* What was held, lines ended by newlines, "" if nothing. Belongs to the logger; ends
 * holding. */
const char *error_text(void);
/* Forgets held errors and the code, and stops holding. Frees the held text. */
void error_clear(void);

/* While muted (it nests), what this thread says is dropped, code and all: for trying what may
 * fail. */
void error_mute(void);
void error_unmute(void);

/* The word in words[0..count) nearest to word by edit distance, or null if none is near. */
const char *nearest_word(const char *word, const char *const *words, int count);

/* -- log.c --------------------------------------------------------------------------------- */

/* LOG_ASIDE: lines for people go to stderr, since stdout is for what was computed. */
enum log_level { LOG_QUIET, LOG_ASIDE, LOG_NORMAL, LOG_VERBOSE };

/* The level of the process (the one global), and the rank of the calling thread (-1: none). */
void log_level(enum log_level level);
void log_rank(int rank);

/* A line for people on stdout; only rank 0 (or a thread without a rank) prints. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A warning on stderr, prefixed "edgepipe: warning: " and the rank where there is one, and in
 * the log. While errors are held, ranks above 0 warn in their logs only: what all ranks find is
 * said once. */
void warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A line for this thread's log file: kept in memory with its time until log_take. */
void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* What note kept since the last call, lines ended by newlines; the caller frees. Null:
 * nothing. */
char *log_take(void);
/* Puts notes that another thread took before those of this one; takes them over. */
void log_give(char *notes);

/* -- arena.c ------------------------------------------------------------------------------- */

/*
 * struct arena: grows in chunks; all its memory lives until arena_release. For things as old as
 * a configuration or a plan. Never fails: without memory the process ends with EXIT_BUG.
 */
struct arena {
	struct arena_chunk *chunks;
};
void *arena_take(struct arena *arena, size_t bytes); /* zeroed, 16-byte aligned */
char *arena_copy(struct arena *arena, const char *text, size_t bytes); /* ended by a NUL */
char *arena_format(struct arena *arena, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void arena_release(struct arena *arena);

/*
 * struct slab: one allocation carved at set-up. Laid out twice by the same function: first with
 * a null base, where it only counts (slab.used is then the estimate), then with memory. The
 * base may be device memory: it is never touched here.
 */
#define SLAB_ALIGN 64
struct slab {
	char *base;
	size_t used;		/* bytes, a multiple of SLAB_ALIGN */
};
/* The next piece, SLAB_ALIGN-aligned; null while counting. */
void *slab_take(struct slab *slab, size_t bytes);

/* struct text: a string that grows. Release with text_release; {0} is empty. */
struct text {
	/* ended by a NUL once anything was added; may be null while empty */
	char *data;
	size_t bytes, room;
};
void text_add(struct text *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void text_put(struct text *text, const void *data, size_t bytes);
void text_release(struct text *text);

/* malloc, calloc, realloc and strdup that end the process with EXIT_BUG and a message without
 * memory. */
void *xalloc(size_t bytes);
void *xzalloc(size_t count, size_t bytes);
void *xrealloc(void *memory, size_t bytes);
/* Gives free memory back to the system, so that what is resident is what is used. */
void heap_trim(void);
/* Bytes of the heap that are free and were not given back. */
double heap_free_bytes(void);
char *xcopy(const char *text);

/* -- clock.c ------------------------------------------------------------------------------- */

/* Monotonic seconds; a sleep of so many (none for zero, less, or NaN). */
double clock_s(void);
void clock_sleep(double s);
/* The UTC time as "20260131T235959Z"; buffer of at least 17 bytes. */
void clock_stamp(char *buffer, size_t bytes);

/* -- file.c -------------------------------------------------------------------------------- */

/* The whole file, ended by a NUL that is not counted; the caller frees. Null after an error. */
char *file_read(const char *path, size_t *bytes);
/* Writes and fsyncs a new file; -1 after an error (EXIT_CREATE or EXIT_IO). */
int file_write(const char *path, const void *data, size_t bytes);
/* Replaces a file atomically: temporary name, fsync, rename, fsync of the folder. */
int file_replace(const char *path, const void *data, size_t bytes);
int folder_sync(const char *path);		/* fsync of a directory */
int folder_make(const char *path);		/* mkdir -p; EXIT_CREATE */
/* rm -r; 0 if it was not there; never follows links */
int folder_remove(const char *path);
bool path_exists(const char *path);
/* folder + "/" + name, or name alone where it is absolute; from the arena. */
char *path_join(struct arena *arena, const char *folder, const char *name);
char *path_folder(struct arena *arena, const char *path);	/* "." without a slash */
/* against the working directory */
char *path_absolute(struct arena *arena, const char *path);

/* -- random.c ------------------------------------------------------------------------------ */

/*
 * Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as
 * easy as 1, 2, 3" (SC 2011). Stateless: four words are a function of (counter, key) alone.
 */
struct philox { uint32_t word[4]; };
struct philox philox(struct philox counter, uint32_t key0, uint32_t key1);
/* A word as a float in [0, 1), on a grid of 2^-24. */
static inline float philox_unit(uint32_t word) { return (float)(word >> 8) * 0x1p-24f; }
/* The index-th place of a permutation of 0..count-1 that is a function of (seed, epoch). A
 * cycle-walking Feistel network over Philox: constant memory, O(1) a call. */
uint64_t shuffle_index(uint64_t seed, uint64_t epoch, uint64_t index, uint64_t count);

/* -- units.c ------------------------------------------------------------------------------- */

enum unit { UNIT_BYTES, UNIT_BYTES_S, UNIT_SECONDS, UNIT_FLOPS };
/*
 * Reads "8 GiB", "400 Mbit/s", "2 ms", "3.56 TFLOPS" (a space is optional) into bytes, bytes/s,
 * seconds, FLOP/s. -1 with the reason and the right spellings in why (as '"10 Gbs" is not a
 * rate (did you mean "10 Gbit/s" or "10 GB/s"?)'); a bare number is refused with the units
 * named.
 */
int unit_read(const char *text, enum unit unit, double *value, char *why, size_t why_bytes);
/* Writes a value with a fitting unit and 3 digits or so, "1.21 GiB"; returns buffer. */
const char *unit_write(double value, enum unit unit, char *buffer, size_t bytes);

/* -- digest.c ------------------------------------------------------------------------------ */

/* XXH3-128: detects accidents, not attackers. */
struct digest { uint64_t low, high; };
struct digest digest_of(const void *data, size_t bytes);
/* XXH3-64 of a short piece; seed: any number that the sum shall depend on too. */
uint64_t checksum(const void *data, size_t bytes, uint64_t seed);
int digest_file(const char *path, struct digest *digest);
bool digest_equal(struct digest a, struct digest b);
/* 32 hex digits; returns text */
const char *digest_write(struct digest digest, char text[33]);
/* A sum over many pieces, for things that do not lie in one block. */
struct digest_state;
struct digest_state *digest_open(void);
void digest_add(struct digest_state *state, const void *data, size_t bytes);
struct digest digest_close(struct digest_state *state);

/* -- watchdog.c ---------------------------------------------------------------------------- */

/* What a thread is about, for as long as it lasts. Texts must live that long. */
struct watchdog_section {
	int kind;			/* 0..31: what its usual time is learnt for */
	/* times the least deadline; 1 where nothing is special */
	double patience;
	const char *what;		/* "waiting for the activations of" */
	const char *peer;		/* who is waited for, or null */
	long long step;			/* -1: none */
	int micro;			/* -1: none */
};
/* Both are called on the watchdog's thread; expired does not return. */
struct watchdog_calls {
	void (*expired)(void *arg, const struct watchdog_section *section, double lasted_s);
	void (*signalled)(void *arg, int signal);	/* SIGTERM, SIGINT, SIGHUP */
	void *arg;
};
struct watchdog;
/*
 * To be called before any other thread is started: they inherit that the signals are the
 * watchdog's. The deadline of a section: max(10 s * patience, 5 times the longest of its kind).
 * For the first four of a kind, which may be far from usual: max(30 s * patience, 5 times the
 * longest of any kind so far, what is expected of the kind). EDGEPIPE_HANG_TIMEOUT=S replaces
 * the 10 s by S and the 30 s by 3 S; 0 turns all off. Null after an error.
 */
struct watchdog *watchdog_open(const struct watchdog_calls *calls);
/* What a section of a kind may take while the kind is new; INFINITY: whatever it likes. */
void watchdog_expect(struct watchdog *watchdog, int kind, double s);
/* Sections nest; the innermost one is watched, and when it is left the one around it begins
 * anew. Any thread, one at a time; a null watchdog does nothing. */
void watchdog_enter(struct watchdog *watchdog, const struct watchdog_section *section);
void watchdog_leave(struct watchdog *watchdog);
void watchdog_close(struct watchdog *watchdog);

/* -- threads.c ----------------------------------------------------------------------------- */

/*
 * A pool of worker threads that wait passively, after a moment. pool_run calls work(arg,
 * index, thread) for every index in 0..count-1, on the calling thread and the workers, and
 * returns when all are done. Which thread takes which index is not fixed, so the result of an
 * index must depend on the index alone; thread (0..threads-1) names private scratch. Not
 * re-entrant.
 */
struct pool;
struct pool *pool_open(int threads);
void pool_run(struct pool *pool, int count, void (*work)(void *arg, int index, int thread),
	      void *arg);
int pool_threads(const struct pool *pool);
void pool_close(struct pool *pool);

/* -- json.c -------------------------------------------------------------------------------- */

/* A JSON value, read-only; values inside a document belong to it. Duplicate keys are
 * refused. */
struct json;
/* JSON_WHOLE: a whole number; 5.0 is one, 1e30 (beyond 2^63) is a JSON_NUMBER. */
enum json_kind { JSON_NONE, JSON_NIL, JSON_FLAG, JSON_WHOLE, JSON_NUMBER, JSON_TEXT,
		 JSON_LIST, JSON_MAP };
/* The document in a file or in memory (name is for messages, as "file:line:column: ..."); null
 * after an error (EXIT_INPUT, EXIT_DATA). Free with json_free. */
struct json *json_read(const char *path);
struct json *json_parse(const char *data, size_t bytes, const char *name);
/* The same, for a piece of a file that starts at this line, from 1. */
struct json *json_parse_at(const char *data, size_t bytes, const char *name, size_t line);
void json_free(struct json *document);
/* All of these take a null pointer as JSON_NONE. */
enum json_kind json_kind(const struct json *value);
const struct json *json_find(const struct json *map, const char *key);	/* null: not there */
size_t json_size(const struct json *value);			/* items of a list or a map */
const struct json *json_at(const struct json *list, size_t index);
/* Walks a map in file order: for (it = json_first(map); it; it = json_next(map, it)). */
void *json_first(const struct json *map);
void *json_next(const struct json *map, void *it);
const char *json_name(void *it);
const struct json *json_value(void *it);
/* The value, or the default where it has another kind (a number takes an integer too). */
const char *json_as_text(const struct json *value, const char *otherwise);
size_t json_text_bytes(const struct json *value);		/* may hold NULs */
double json_as_number(const struct json *value, double otherwise);
long long json_as_integer(const struct json *value, long long otherwise);
bool json_as_flag(const struct json *value, bool otherwise);
/* Adds a JSON string literal, quoted and escaped. */
void json_add_text(struct text *text, const char *value);

/* -- yaml.c -------------------------------------------------------------------------------- */

/*
 * A YAML file as a tree that keeps positions. Scalars stay text: types are the schema's
 * business. Refused, with file:line:column: anchors, aliases, tags, merge keys, several
 * documents, more than 64 levels, duplicate keys, files above 4 MiB.
 */
enum yaml_kind { YAML_TEXT, YAML_LIST, YAML_MAP };
struct yaml {
	enum yaml_kind kind;
	const char *text;	/* YAML_TEXT: the value */
	bool quoted;
	const char *key;	/* in a map */
	int line, column;	/* of the value, from 1 */
	int width;		/* columns that the value takes on its line, at least 1 */
	int key_line, key_column;
	bool wrong;		/* an error about it was reported */
	struct source *source;	/* the file or the --set it came from */
	struct yaml *first, *next;	/* children; brothers */
	struct yaml **item;	/* a list's children once more, by number */
	int count;		/* children */
};
/* The tree, from the arena; null after errors were reported (EXIT_INPUT, EXIT_CONFIG). */
struct yaml *yaml_read(struct arena *arena, const char *path);
struct yaml *yaml_parse(struct arena *arena, const char *data, size_t bytes, const char *name);
struct yaml *yaml_find(const struct yaml *map, const char *key);	/* null: not there */

/* -- schema.c, config.c, schema_write.c, schema_help.c ------------------------------------- */

/*
 * One table row per configuration key drives parsing, defaults, ranges, --set, the resolved
 * file and `edgepipe help config`. A path names the key from the top: "train.batch";
 * "nodes[].memory" is a key of every item of a list. Fields are written into a struct at the
 * given offset.
 */
enum field_kind {
	FIELD_TEXT,		/* const char * */
	FIELD_PATH,		/* const char *, made absolute (against the file, or the working
				 * directory when it came by --set) */
	FIELD_WORD,		/* int: the index in words */
	FIELD_INTEGER,		/* long long */
	FIELD_NUMBER,		/* double */
	FIELD_FLAG,		/* bool */
	FIELD_BYTES,		/* double, with a unit; so are the next three */
	FIELD_BYTES_S,
	FIELD_SECONDS,
	FIELD_FLOPS,
	FIELD_TEXTS,		/* struct texts: one word or a list of words */
	FIELD_NUMBERS,		/* struct numbers: a list of numbers */
	/* struct list: items of item_bytes each, described by the rows whose path goes on with
	 * "[]." (offsets inside the item) */
	FIELD_LIST,
};
struct texts { const char **item; int count; };
struct numbers { double *item; int count; };
struct list { void *item; int count; };

struct field {
	const char *path;
	enum field_kind kind;
	size_t offset;
	const char *standard;		/* default as text; null: none, the value stays 0 */
	double least, most;		/* range of numbers, both included; both 0: any */
	/* FIELD_WORD, FIELD_TEXT: the choices, ended by null; one that starts with '-' is known
	 * and not built yet. A number: one word that stands for 0 ("auto", "unlimited"). */
	const char *const *words;
	size_t item_bytes;		/* FIELD_LIST */
	/* offset of a bool: whether a value was given; 0: none */
	size_t given;
	bool required;
	const char *refused;		/* not built, and what is the case instead: a value
					 * other than the default is an error that says this */
	const char *help;		/* one line for `help config` */
};

/* Rows of one top-level key, and of one list in it, stand together, as they are to be
 * printed. */
struct schema {
	const struct field *field;
	int count;
};

/* What was read: where each value came from, for later messages. */
struct config {
	struct arena arena;		/* all values; release with config_release */
	const char *file;
	const struct schema *schema;
	struct yaml *root;		/* null where the file could not be read at all */
	struct source *source;		/* the file, then the overrides */
};

/*
 * Reads a file into *out (zeroed by the caller), applies the overrides ("a.b=value",
 * "nodes.0.memory=4GiB") and the defaults. Reports every error of the file as file:line:col:
 * error: ... with the offending line and a caret, and the nearest right key. -1 after errors
 * (EXIT_CONFIG, EXIT_INPUT, EXIT_USAGE for a malformed override): what was sound is in *out
 * nevertheless, the rest holds its default, so that a caller may look for further errors before
 * it gives up.
 */
int config_read(struct config *config, const struct schema *schema, void *out, const char *path,
		const char *const *overrides, int override_count);
/*
 * Reports an error about the value at a path ("links.between.2.bandwidth") with its position;
 * the message follows the path, "links.between[2].bandwidth: ...". Where no value was given,
 * the position is the parent's. A second error about one value is not said.
 */
void config_error(const struct config *config, const char *path, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* How many errors were reported about this configuration so far. */
int config_errors(const struct config *config);
/* Whether the file or an override gave a value for this path. */
bool config_given(const struct config *config, const char *path);
/* Whether no error was reported about the value at this path or a map that it stands in. */
bool config_sound(const struct config *config, const char *path);
/* The line in the file of the value at this path; 0: not in the file. */
int config_line(const struct config *config, const char *path);
/* Adds the whole configuration as YAML, every value spelled out, paths absolute: reads back. */
void config_write(const struct config *config, const void *values, struct text *text);
/* Adds the table as text for people: key, type, default, range, help. */
void schema_help(const struct schema *schema, struct text *text);
void config_release(struct config *config);

#endif
