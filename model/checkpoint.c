/*
 * Finds, verifies and loads checkpoints (their form: checkpoint.h): everything is keyed by
 * global tensor names, so that any number of ranks can take a run up.
 */
#include "model/checkpoint.h"
#include "model/internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MANIFEST_MOST ((size_t)1 << 20)

static const char state_name[] = CHECKPOINT_STATE;
static const char manifest_name[] = CHECKPOINT_MANIFEST;
static const char *const suffix[FAMILIES] = FAMILY_SUFFIXES;

/* -- verifying ----------------------------------------------------------------------------- */

/* A checkpoint that is being looked at. */
struct found {
	struct arena arena;
	const char *folder;
	long long step; /* as the folder's name says */
	uint64_t place;
	struct json *manifest;
	struct text why; /* it cannot be used, for people */
};
#define damaged(found, ...) (text_add(&(found)->why, __VA_ARGS__), -1)

/* The size of a plain file; -1 where it is none: a link may lead anywhere. */
static long long plain_bytes(const char *path)
{
	struct stat status;

	return lstat(path, &status) == 0 && S_ISREG(status.st_mode) ? (long long)status.st_size
								    : -1;
}

/* Where the last line starts, if the digest in it is that of everything before; 0 if not. */
static size_t check_last_line(const char *text, size_t bytes)
{
	const size_t line_bytes = strlen(DIGEST_LINE) + 32 + strlen("\"}\n");
	char hex[33];

	if (bytes <= line_bytes)
		return 0;
	size_t at = bytes - line_bytes;
	const char *line = text + at;
	digest_write(digest_of(text, at), hex);
	if (text[at - 1] != '\n' || memcmp(line, DIGEST_LINE, strlen(DIGEST_LINE)) != 0 ||
	    memcmp(line + strlen(DIGEST_LINE), hex, 32) != 0 ||
	    memcmp(line + strlen(DIGEST_LINE) + 32, "\"}\n", 3) != 0)
		return 0;
	return at;
}

/* Errors that others would print are held back: a damaged checkpoint is a warning. */
static int read_manifest(struct found *found)
{
	const char *path = path_join(&found->arena, found->folder, manifest_name);
	long long size = plain_bytes(path);
	size_t bytes = 0;

	if (size < 0 || size > (long long)MANIFEST_MOST)
		return damaged(found,
			       size < 0 ? "%s is missing or no plain file" : "%s is too large",
			       manifest_name);
	error_mute();
	char *text = file_read(path, &bytes);
	bool whole = text && check_last_line(text, bytes) > 0;
	found->manifest = whole ? json_parse(text, bytes, path) : NULL;
	free(text);
	error_unmute();
	if (!whole)
		return damaged(found, "%s does not have the digest that its last line names",
			       manifest_name);
	if (json_kind(found->manifest) != JSON_MAP)
		return damaged(found, "%s is not a JSON object", manifest_name);
	return 0;
}

static int check_manifest(struct found *found)
{
	long long version = json_as_integer(json_find(found->manifest, "version"), -1);
	long long step = json_as_integer(json_find(found->manifest, "step"), -1);
	long long place = json_as_integer(json_find(found->manifest, "place"), -1);

	if (version != CHECKPOINT_VERSION)
		return damaged(found, "it is of version %lld, this program knows %d", version,
			       CHECKPOINT_VERSION);
	if (step != found->step)
		return damaged(found, "%s is of step %lld", manifest_name, step);
	if (place < 0)
		return damaged(found, "%s names no place in the data", manifest_name);
	found->place = (uint64_t)place;
	return 0;
}

static int check_files(struct found *found)
{
	const struct json *files = json_find(found->manifest, "files");
	const struct json *state = json_find(files, state_name);
	const char *path = path_join(&found->arena, found->folder, state_name);
	long long bytes = plain_bytes(path);
	struct digest digest;
	char hex[33];

	for (void *it = json_first(files); it; it = json_next(files, it))
		if (strcmp(json_name(it), state_name) != 0)
			return damaged(found, "%s lists '%s', which is no file of a checkpoint",
				       manifest_name, json_name(it));
	if (json_kind(state) != JSON_MAP)
		return damaged(found, "%s does not list %s", manifest_name, state_name);
	if (bytes < 0)
		return damaged(found, "%s is missing or no plain file", state_name);
	if (bytes != json_as_integer(json_find(state, "bytes"), -1))
		return damaged(found, "%s has %lld bytes instead of %lld", state_name, bytes,
			       json_as_integer(json_find(state, "bytes"), -1));
	error_mute();
	int rc = digest_file(path, &digest);
	error_unmute();
	if (rc < 0 || strcmp(digest_write(digest, hex),
			     json_as_text(json_find(state, "xxh3_128"), "")) != 0)
		return damaged(found, "%s does not have the digest that %s names", state_name,
			       manifest_name);
	return 0;
}

static int verify(struct found *found)
{
	struct stat status;

	if (lstat(found->folder, &status) < 0 || !S_ISDIR(status.st_mode))
		return damaged(found, "it is no plain folder");
	if (read_manifest(found) < 0 || check_manifest(found) < 0)
		return -1;
	return check_files(found);
}

/* -- comparing ----------------------------------------------------------------------------- */

static const char *pair_value(const char *const *pair, const char *key)
{
	for (int i = 0; pair && pair[i]; i += 2)
		if (strcmp(pair[i], key) == 0)
			return pair[i + 1];
	return NULL;
}

static const char *or_nothing(const char *text)
{
	return text ? text : "(nothing)";
}

static void different(const struct found *found, bool is_error, const char *key,
		      const char *then, const char *now)
{
	if (is_error)
		report(EXIT_CONFIG,
		       "cannot resume from '%s': \"%s\" was %s there and is %s now",
		       found->folder, key, or_nothing(then), or_nothing(now));
	else
		warn("resuming from '%s': \"%s\" was %s there and is %s now", found->folder,
		     key, or_nothing(then), or_nothing(now));
}

/* Says all differences between the pairs of now and those of the manifest; returns how many. */
static int compare(const struct found *found, const char *section, const char *const *now,
		   bool is_error)
{
	const struct json *map = json_find(found->manifest, section);
	int differences = 0;

	for (int i = 0; now && now[i]; i += 2) {
		const char *then = json_as_text(json_find(map, now[i]), NULL);

		if (then && strcmp(then, now[i + 1]) == 0)
			continue;
		different(found, is_error, now[i], then, now[i + 1]);
		differences++;
	}
	for (void *it = json_first(map); it; it = json_next(map, it)) {
		if (pair_value(now, json_name(it)))
			continue;
		different(found, is_error, json_name(it), json_as_text(json_value(it), NULL),
			  NULL);
		differences++;
	}
	return differences;
}

/* -- loading ------------------------------------------------------------------------------- */

/* The tensor of the file if it has its shape, else null. */
static const struct safetensor *find_state(const struct safetensors *file,
					   const struct lora_tensor *tensor, const char *end)
{
	char name[MODULE_ROOM + 64];

	snprintf(name, sizeof(name), "%s%s", tensor->name, end);
	const struct safetensor *found = safetensors_find(file, name);
	if (!found || !found->known || found->dtype != DTYPE_F32 || found->dims != 2 ||
	    found->shape[0] != tensor->rows || found->shape[1] != tensor->cols)
		return NULL;
	return found;
}

/* Looks first and copies then: a checkpoint is never half loaded. */
static int copy_state(struct found *found, const struct safetensors *file,
		      const struct lora *lora, float *const family[FAMILIES])
{
	if (file->count != FAMILIES * lora->count)
		return damaged(found, "%s has %d tensors instead of %d", state_name,
			       file->count, FAMILIES * lora->count);
	for (int i = 0; i < FAMILIES * lora->count; i++)
		if (!find_state(file, &lora->tensor[i / FAMILIES], suffix[i % FAMILIES]))
			return damaged(
			    found, "tensor \"%s%s\" is missing in %s or has another shape",
			    lora->tensor[i / FAMILIES].name, suffix[i % FAMILIES], state_name);
	for (int i = 0; i < FAMILIES * lora->count; i++) {
		const struct lora_tensor *tensor = &lora->tensor[i / FAMILIES];
		const struct safetensor *from = find_state(file, tensor, suffix[i % FAMILIES]);

		if (family[i % FAMILIES])
			memcpy(family[i % FAMILIES] + tensor->offset, from->data, from->bytes);
	}
	return 0;
}

static int load_state(struct found *found, const struct lora *lora,
		      struct checkpoint *checkpoint)
{
	float *const family[FAMILIES] = {checkpoint->value, checkpoint->m, checkpoint->v};

	error_mute();
	struct safetensors *file =
	    safetensors_open(path_join(&found->arena, found->folder, state_name));
	error_unmute();
	if (!file)
		return damaged(found, "%s is not a safetensors file", state_name);
	int rc = copy_state(found, file, lora, family);
	safetensors_close(file);
	return rc;
}

/* 1: loaded; 0: damaged, said as a warning; -1: an error. */
static int load_step(const char *parent, long long step, const struct lora *lora,
		     struct checkpoint *checkpoint)
{
	struct found found = {.step = step};
	int rc = 0;

	found.folder = arena_format(&found.arena, "%s/step-%08lld", parent, step);
	if (verify(&found) < 0)
		goto skip;
	rc = -1;
	if (checkpoint->identity &&
	    compare(&found, "identity", checkpoint->identity, true) > 0)
		goto done;
	rc = 0;
	if (load_state(&found, lora, checkpoint) < 0)
		goto skip;
	if (checkpoint->circumstance)
		compare(&found, "circumstance", checkpoint->circumstance, false);
	checkpoint->step = step;
	checkpoint->place = found.place;
	rc = 1;
	goto done;
skip:
	warn("skipping the checkpoint '%s': %s", found.folder, found.why.data);
done:
	json_free(found.manifest);
	text_release(&found.why);
	arena_release(&found.arena);
	return rc;
}

/* -- which there are ----------------------------------------------------------------------- */

/* The step of a name that starts with "step-" and eight digits; -1: it does not. */
static long long step_of(const char *name, const char **rest)
{
	long long step = 0;

	if (strncmp(name, "step-", 5) != 0)
		return -1;
	for (int i = 5; i < 13; i++) {
		if (name[i] < '0' || name[i] > '9')
			return -1;
		step = 10 * step + (name[i] - '0');
	}
	*rest = name + 13;
	return step;
}

static void remove_leftover(const char *parent, const char *name)
{
	struct arena arena = {0};

	error_mute();
	if (folder_remove(path_join(&arena, parent, name)) < 0)
		warn("cannot remove '%s/%s', which an earlier attempt left", parent, name);
	error_unmute();
	arena_release(&arena);
}

static int newest_first(const void *one, const void *two)
{
	const long long *a = one, *b = two;

	return (*a < *b) - (*a > *b);
}

/* The steps of all checkpoints, newest first, freed by the caller; removes leftovers. -1:
 * error. */
static int list_steps(const char *parent, bool clean, long long **steps)
{
	DIR *folder = opendir(parent);
	struct text list = {0};
	struct dirent *entry;
	const char *rest;

	*steps = NULL;
	if (!folder)
		return errno == ENOENT
			   ? 0
			   : error(EXIT_INPUT, "cannot read '%s': %s", parent, strerror(errno));
	while ((entry = readdir(folder))) {
		long long step = step_of(entry->d_name, &rest);

		if (clean && step >= 0 && strncmp(rest, ".tmp-", 5) == 0)
			remove_leftover(parent, entry->d_name);
		else if (step >= 0 && *rest == '\0')
			text_put(&list, &step, sizeof(step));
	}
	closedir(folder);
	int count = (int)(list.bytes / sizeof(**steps));
	*steps = xzalloc((size_t)count + 1, sizeof(**steps));
	if (count)
		memcpy(*steps, list.data, list.bytes);
	text_release(&list);
	qsort(*steps, (size_t)count, sizeof(**steps), newest_first);
	return count;
}

bool checkpoint_said(const char *run, const char *pairs, const char *key, char *value,
		     size_t bytes)
{
	struct arena arena = {0};
	const char *parent = path_join(&arena, run, "ckpt");
	long long *steps;
	bool found_one = false;
	int count;

	error_mute();
	count = list_steps(parent, false, &steps);
	for (int i = 0; i < count && !found_one; i++) {
		struct found found = {.step = steps[i]};
		const char *text;

		found.folder = arena_format(&found.arena, "%s/step-%08lld", parent, steps[i]);
		if (!read_manifest(&found)) {
			text = json_as_text(json_find(json_find(found.manifest, pairs), key), NULL);
			found_one = text != NULL;
			snprintf(value, bytes, "%s", text ? text : "");
		}
		json_free(found.manifest);
		text_release(&found.why);
		arena_release(&found.arena);
	}
	error_unmute();
	free(steps);
	arena_release(&arena);
	return found_one;
}

int checkpoint_load(const char *run, const struct lora *lora, struct checkpoint *checkpoint)
{
	struct arena arena = {0};
	const char *parent = path_join(&arena, run, "ckpt");
	long long *steps;
	int count = list_steps(parent, true, &steps);
	int rc = count < 0 ? -1 : 0;

	for (int i = 0; i < count && rc == 0; i++)
		rc = load_step(parent, steps[i], lora, checkpoint);
	if (rc == 0 && count > 0)
		rc = error(EXIT_DATA,
			   "cannot resume: none of the %d checkpoints in '%s' can be used",
			   count, parent);
	free(steps);
	arena_release(&arena);
	return rc;
}

/* The steps that there are, for an error about one that is not; the arena owns the text. */
static const char *steps_text(struct arena *arena, const long long *steps, int count)
{
	struct text text = {0};

	for (int i = 0; i < count && i < 20; i++)
		text_add(&text, i ? ", %lld" : "%lld", steps[i]);
	if (count > 20)
		text_add(&text, ", ..");
	const char *copy = arena_copy(arena, text.data ? text.data : "none", count ? text.bytes : 4);
	text_release(&text);
	return copy;
}

long long checkpoint_values(const char *run, long long step, const struct lora *lora,
			    float *value)
{
	struct checkpoint checkpoint = {.value = value};
	struct arena arena = {0};
	const char *parent = path_join(&arena, run, "ckpt");
	long long *steps;
	int count = list_steps(parent, false, &steps);
	int rc = count < 0 ? -1 : 0;
	bool there = false;

	for (int i = 0; i < count && rc == 0; i++) {
		if (step >= 0 && steps[i] != step)
			continue;
		there = true;
		rc = load_step(parent, steps[i], lora, &checkpoint);
	}
	if (rc == 0 && there)
		rc = error(EXIT_DATA, "no checkpoint in '%s' that was asked for can be used",
			   parent);
	else if (rc == 0 && step >= 0)
		rc = error(EXIT_INPUT, "there is no checkpoint of step %lld in '%s' (there are: %s)",
			   step, parent, steps_text(&arena, steps, count));
	else if (rc == 0)
		rc = error(EXIT_INPUT, "there is no checkpoint in '%s'", parent);
	free(steps);
	arena_release(&arena);
	return rc < 0 ? -1 : checkpoint.step;
}
