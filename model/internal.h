/*
 * What several files of model/ share and nobody else needs.
 */
#ifndef EDGEPIPE_MODEL_INTERNAL_H
#define EDGEPIPE_MODEL_INTERNAL_H

#include "model/model.h"

#include <limits.h>

/* -- fields.c ------------------------------------------------------------------------------ */

/*
 * A JSON map of other people's, read field by field. A field that is absent or null takes the
 * standard value. A field of the wrong kind or out of range is an error (EXIT_DATA) that names
 * the file and the field; reading goes on, so that all errors of a file are said, and failed is
 * set.
 */
struct fields {
	const char *path; /* of the file, for messages */
	const struct json *map;
	bool failed;
};
#define FIELD_REQUIRED LLONG_MIN /* as the standard value: must be there */

/* Whether a field is there and not null. */
bool fields_given(const struct fields *fields, const char *key);
/* A field's value in [least, most], or the standard value. */
long long fields_integer(struct fields *fields, const char *key, long long least,
			 long long most, long long standard);
double fields_number(struct fields *fields, const char *key, double least, double most,
		     double standard);
bool fields_flag(struct fields *fields, const char *key, bool standard);
const char *fields_text(struct fields *fields, const char *key, const char *standard);
/* Says that a field changes the meaning and is not built (EXIT_CONFIG), and sets failed. */
void fields_refuse(struct fields *fields, const char *key, const char *why);
/* Whether a value says nothing: absent, null, false, or an empty text, list or map. */
bool json_is_nothing(const struct json *value);
/* Reads a small JSON file (at most `most` bytes) whose top is a map; null after an error. data
 * and bytes, where not null, receive the text, which the caller frees. */
struct json *json_read_map(const char *path, size_t most, char **data, size_t *bytes);

#define MODULE_ROOM 192 /* bytes of a module's path */

/* -- regex.c ------------------------------------------------------------------------------- */

/* A regular expression out of an adapter. text, where and field are for messages and must last: "WHERE: the
 * pattern "TEXT" in FIELD cannot be used". Null after an error (EXIT_DATA). */
struct regex;
struct regex *regex_open(const char *text, const char *where, const char *field);
/* Whether it matches at the start of a text (re.match), or all of it (re.fullmatch): 1, 0, or -1 after an error, which
 * a pattern that backtracks too long is. */
int regex_matches(const struct regex *regex, const char *text, bool whole);
/* The number in a named group of the text that matched last; -1: it took no part. */
long long regex_number(const struct regex *regex, const char *text, const char *group);
void regex_close(struct regex *regex);

/* -- modules.c ----------------------------------------------------------------------------- */

/* The number of every module (of targets: blocks times rows) that is chosen: that of the first key that
 * matches its path as PEFT matches it, else `standard`. -1 after an error. */
struct targets;
int module_numbers_read(const struct targets *targets, const struct module_numbers *numbers,
			const char *field, double standard, double *number);
/* The fewest keys that give the chosen modules these numbers, where they are not the standard one. */
void module_numbers_write(const struct targets *targets, struct arena *arena, double standard,
			  const double *number, struct module_numbers *numbers);

/* -- targets.c ----------------------------------------------------------------------------- */

/* Which linears of which blocks LoRA adapts. */
#define TARGET_ROWS 8
struct targets {
	const struct model_config *config;
	const char *where; /* who asked, for messages: "lora.targets" or a file */
	const struct tensor_row *row[TARGET_ROWS]; /* the linears of a block */
	int rows;
	bool *chosen; /* (blocks, rows) */
};
/* Nothing is chosen yet. Release with targets_release. */
void targets_init(struct targets *targets, const struct model_config *config,
		  const char *where);
/*
 * Adds what words mean: "attention", "all", or names as PEFT matches the items of a list (a
 * module's path that is equal to the name or ends with "." and the name). -1 with EXIT_CONFIG
 * for a word that means no linear inside blocks.
 */
int targets_add_words(struct targets *targets, const struct texts *words);
/* Adds what the target_modules of an adapter mean: a list of names (of which some may match
 * nothing, as in PEFT), or a regular expression that must match whole paths. */
int targets_add_adapter(struct targets *targets, const struct adapter_config *adapter);
/* A row's module inside a block: "attn.c_proj". */
void module_inside(char inside[MODULE_ROOM], const struct tensor_row *row);
bool targets_equal(const struct targets *a, const struct targets *b);
/* The shortest list of names that PEFT matches with exactly these modules, in global order. */
void targets_names(const struct targets *targets, struct arena *arena, const char ***name,
		   int *names);
void targets_release(struct targets *targets);
/* The path of a module from the top of the model: "transformer.h.3.attn.c_proj". */
void module_path(char path[MODULE_ROOM], const struct model_config *config,
		 const struct tensor_row *row, int block);

/* -- folder.c ------------------------------------------------------------------------------ */

/*
 * Puts the finished folder `temporary` in the place of `folder` and makes that durable:
 * everything in it has been fsynced, the folder itself and its parent are here. An older
 * `folder` is exchanged in one step and then removed: at no instant is there none.
 */
int folder_publish(const char *temporary, const char *folder);

#endif
