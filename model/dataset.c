/*
 * model/dataset.c - training data: samples of T ids and labels in a mapped file, which is kept,
 * and the order they are taken in.
 *
 * The form of a file is told by its extension. Labels lie unshifted, as transformers wants
 * them; the shift happens when a sample is taken, so that the first token of a sample is never
 * a target.
 */
#include "model/data_cache.h"
#include "model/dataset.h"
#include "model/input.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEQUENCE_MOST (INT_MAX / 2)
#define SEQUENCE 256 /* T of text where data.sequence is not given */

static const struct form {
	const char *extension;
	bool text;
	int (*read)(struct reader *reader);
} forms[] = {
	{".jsonl", true, read_jsonl},
	{".txt", true, read_text},
	{".safetensors", false, read_tensors},
};
#define FORMS (sizeof forms / sizeof forms[0])

/* -- what the readers share ---------------------------------------------------------------- */

/* T of what `subject` names; -1 after an error. */
static int sequence_of(const struct data_config *data, const struct model_config *config,
		       long long otherwise, const char *subject)
{
	long long tokens = data->sequence > 0 ? data->sequence : otherwise;
	int most = config->positions > 0 ? config->positions : SEQUENCE_MOST;

	if (tokens > most)
		return error(EXIT_CONFIG,
			     "'%s': sequences of %lld tokens (%s) do not fit the %d positions "
			     "of the model '%s'",
			     subject, tokens,
			     data->sequence > 0 ? "data.sequence" : "data.sequence is not given",
			     most, config->folder);
	return (int)tokens;
}

int dataset_sequence(const struct data_config *data, const struct model_config *config)
{
	return sequence_of(data, config, SEQUENCE, data->train ? data->train : "data");
}

static bool ends_with(const char *text, const char *tail)
{
	size_t bytes = strlen(text), less = strlen(tail);

	return bytes > less && strcmp(text + bytes - less, tail) == 0;
}

bool dataset_is_text(const char *path)
{
	return ends_with(path, ".txt") || ends_with(path, ".txt.gz");
}

bool dataset_packs(const struct data_config *data, const char *path)
{
	return data->pack && !(path && dataset_is_text(path));
}

int reader_sequence(struct reader *r, long long otherwise)
{
	int tokens = sequence_of(r->data, r->config, otherwise, r->path);

	if (tokens < 0)
		return -1;
	r->tokens = tokens;
	return 0;
}

bool reader_wants_answers(const struct reader *r)
{
	return r->data->mask == MASK_PROMPT || r->data->mask == MASK_ASSISTANT;
}

const char *mask_name(const struct reader *r)
{
	return r->data->mask == MASK_PROMPT ? "prompt" : "assistant-only";
}

static int check_ids(const struct reader *r, const int32_t *ids, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (ids[i] < 0 || ids[i] >= r->config->vocabulary)
			return error(EXIT_DATA,
				     "'%s': id %d, token %zu of sample %zu, is outside the "
				     "vocabulary of %d",
				     r->path, ids[i], i, r->rows, r->config->vocabulary);
	}
	return 0;
}

/* How many of the first `count` tokens are targets of the one before them. */
static size_t count_trained(const int32_t *labels, size_t count)
{
	size_t trained = 0;

	if (!labels)
		return count > 0 ? count - 1 : 0;
	for (size_t t = 1; t < count; t++)
		trained += labels[t] != UNTRAINED;
	return trained;
}

static int add(struct reader *r, const int32_t *ids, const int32_t *labels, size_t count, bool own)
{
	size_t T = (size_t)r->tokens, kept = count < T ? count : T;
	size_t trained = count_trained(labels, kept);

	if (check_ids(r, ids, count) < 0)
		return -1;
	r->cut += count > kept;
	r->cut_tokens += count - kept;
	if (r->skips && trained == 0) {
		r->skipped++;
		if (!r->survey)
			return 0;
	}
	r->rows++;
	r->trained_tokens += trained;
	if (r->survey) {
		survey_add(r->survey, ids, count, kept, trained);
		return 0;
	}
	r->own_labels = own;
	if (r->muted)
		error_mute();
	r->unwritten = store_put(r->out, ids, labels, kept, own) < 0;
	if (r->muted)
		error_unmute();
	return r->unwritten ? -1 : 0;
}

int reader_add(struct reader *r, const int32_t *ids, const int32_t *labels, size_t count)
{
	return add(r, ids, labels, count, false);
}

int reader_add_own(struct reader *r, const int32_t *ids, const int32_t *labels, size_t count)
{
	return add(r, ids, labels, count, true);
}

/* -- opening ------------------------------------------------------------------------------- */

/* FOLDER/KIND with an extension, perhaps packed: the one that is there. Null after an error. */
static const char *file_in_folder(struct arena *arena, const char *folder, const char *kind)
{
	const char *found = NULL;

	for (size_t i = 0; i < 2 * FORMS; i++) {
		const char *name = arena_format(arena, "%s%s%s", kind, forms[i / 2].extension,
						i % 2 ? ".gz" : "");
		const char *path = path_join(arena, folder, name);

		if (!path_exists(path))
			continue;
		if (found)
			return error_null(EXIT_CONFIG,
					  "both '%s' and '%s' are there: name the file", found,
					  path);
		found = path;
	}
	if (!found)
		report(EXIT_INPUT,
		       "'%s' holds no %s.jsonl, %s.txt or %s.safetensors, nor one with .gz",
		       folder, kind, kind, kind);
	return found;
}

static const char *find_file(struct arena *arena, const char *path, const char *kind)
{
	struct stat status;

	if (stat(path, &status) < 0)
		return error_null(EXIT_INPUT, "cannot open '%s': %s", path, strerror(errno));
	if (S_ISDIR(status.st_mode))
		return file_in_folder(arena, path, kind);
	if (!S_ISREG(status.st_mode))
		return error_null(EXIT_INPUT, "cannot open '%s': it is no file", path);
	return arena_copy(arena, path, strlen(path));
}

static const struct form *find_form(const char *path)
{
	size_t bytes = strlen(path) - (path_is_gzip(path) ? strlen(".gz") : 0);
	bool json = ends_with(path, ".json");

	for (size_t i = 0; i < FORMS; i++) {
		size_t tail = strlen(forms[i].extension);

		if (bytes > tail &&
		    strncmp(path + bytes - tail, forms[i].extension, tail) == 0)
			return &forms[i];
	}
	return error_null(EXIT_CONFIG,
			  "'%s' is no data file by its name: .jsonl, .txt or .safetensors, or one "
			  "of these with .gz%s",
			  path, json ? " (jq -c '.[]' makes lines of a list)" : "");
}

static int open_tokenizer(struct reader *r)
{
	r->tokenizer = tokenizer_open(r->config->folder);
	if (!r->tokenizer)
		return -1;
	if (r->end < 0)
		r->end = tokenizer_find(r->tokenizer, "<|endoftext|>");
	if (r->end < 0)
		r->end = tokenizer_find(r->tokenizer, "</s>");
	int32_t end = r->end;
	if (end >= 0 && end < tokenizer_vocabulary(r->tokenizer) &&
	    tokenizer_decode(r->tokenizer, &end, 1, true, &r->end_text) < 0)
		return -1;
	return reader_sequence(r, SEQUENCE);
}

void reader_release(struct reader *r)
{
	tokenizer_close(r->tokenizer);
	template_close(r->template);
	chat_release(&r->chat);
	rendered_release(&r->rendered);
	ids_release(&r->ids_of_line);
	ids_release(&r->labels_of_line);
	text_release(&r->end_text);
}

/* -- making a store ------------------------------------------------------------------------ */

static int check_rows(const struct reader *r)
{
	if (r->rows + r->skipped == 0)
		return error(EXIT_DATA, "'%s' holds no sample", r->path);
	if (r->trained_tokens == 0)
		return error(EXIT_DATA,
			     "'%s': not one token of its %zu sample%s of %d tokens is trained",
			     r->path, r->rows + r->skipped, r->rows + r->skipped == 1 ? "" : "s",
			     r->tokens);
	return 0;
}

static struct store_facts facts_of(const struct reader *r)
{
	struct store_facts facts = {
		.trained_tokens = r->trained_tokens,
		.cut = r->cut,
		.cut_tokens = r->cut_tokens,
		.skipped = r->skipped,
		.tokens = r->tokens,
		.pad = r->end >= 0 ? r->end : 0,
		.labels = r->own_labels,
	};

	if (r->template)
		snprintf(facts.template, sizeof facts.template, "%s", template_name(r->template));
	return facts;
}

/* Reads the file into a store at a path, or nowhere. Null after an error; *unwritten: what failed
 * was the writing, and with a path nothing was said. */
static struct store *make_store(struct reader r, const struct form *form, const char *path,
				struct digest key, bool *unwritten)
{
	int file = -1;

	*unwritten = false;
	if (form->text && open_tokenizer(&r) < 0)
		goto end;
	if (path)
		error_mute();
	r.out = store_create(path);
	if (path)
		error_unmute();
	*unwritten = !r.out;
	r.muted = path != NULL;
	if (!r.out || form->read(&r) < 0 || check_rows(&r) < 0) {
		*unwritten = *unwritten || r.unwritten;
		goto end;
	}
	struct store_facts facts = facts_of(&r);
	if (path)
		error_mute();
	file = store_finish(r.out, &facts, key);
	if (path)
		error_unmute();
	r.out = NULL;
	*unwritten = file < 0;
end:
	store_abandon(r.out);
	reader_release(&r);
	return file < 0 ? NULL : store_open(file, key);
}

/* The folder to keep data in, made where it is missing; null: there is none, or it cannot be. */
static const char *make_folder(struct arena *arena, const struct data_config *data)
{
	const char *folder = data_cache_folder(arena, data);

	error_mute();
	bool made = folder && folder_make(folder) == 0;
	error_unmute();
	if (folder && !made)
		warn("cannot make '%s': tokenised data are not kept (data.cache: another folder, "
		     "or none)",
		     folder);
	return made ? folder : NULL;
}

/* A store that is kept, or a new one, which is kept where that is possible. */
static struct store *find_store(struct dataset *set, const struct reader *r,
				const struct form *form)
{
	const char *folder = make_folder(&set->arena, r->data);
	struct store *store = NULL;
	struct digest key;
	bool unwritten;

	if (data_key(r, form->extension, form->text, folder, &key) < 0)
		return NULL;
	set->cache = folder ? data_cache_path(&set->arena, folder, key) : NULL;
	int file = set->cache ? data_cache_open(set->cache) : -1;
	if (file >= 0)
		store = store_open(file, key);
	set->kept = store != NULL;
	if (store)
		return store;
	if (folder) {
		data_cache_sweep(folder);
		store = make_store(*r, form, set->cache, key, &unwritten);
		if (store || !unwritten)
			return store;
		warn("cannot write to '%s': tokenised data are not kept (data.cache: another "
		     "folder, or none)",
		     folder);
		set->cache = NULL;
	}
	return make_store(*r, form, NULL, key, &unwritten);
}

int reader_run(struct reader *r, struct arena *arena, const char *path, const char *kind)
{
	const struct form *form = NULL;

	r->path = find_file(arena, path, kind);
	if (r->path)
		form = find_form(r->path);
	if (!form)
		return -1;
	r->end = r->config->end_token;
	r->extension = form->extension;
	if (form->text && r->config->folder && open_tokenizer(r) < 0)
		return -1;
	if (form->text && !r->config->folder)
		r->tokens = SEQUENCE_MOST;
	return form->read(r);
}

struct dataset *dataset_open(const char *path, const char *kind, const struct data_config *data,
			     const struct model_config *config)
{
	struct dataset *set = xzalloc(1, sizeof *set);
	struct reader r = {.data = data, .config = config, .end = config->end_token};
	const struct form *form = NULL;

	set->path = r.path = find_file(&set->arena, path, kind);
	if (r.path)
		form = find_form(r.path);
	if (form)
		set->store = find_store(set, &r, form);
	if (!set->store) {
		dataset_close(set);
		return NULL;
	}
	const struct store_facts *facts = store_facts(set->store);
	set->samples = facts->samples;
	set->tokens = facts->tokens;
	set->trained_tokens = facts->trained_tokens;
	set->cut = facts->cut;
	set->cut_tokens = facts->cut_tokens;
	set->skipped = facts->skipped;
	set->template = facts->template[0] ? facts->template : NULL;
	set->digest = facts->content;
	return set;
}

void dataset_close(struct dataset *set)
{
	if (!set)
		return;
	store_close(set->store);
	arena_release(&set->arena);
	free(set);
}

/* -- taking samples ------------------------------------------------------------------------ */

/* The row of a place. */
static uint64_t row_at(const struct dataset *set, uint64_t seed, bool shuffle, uint64_t place)
{
	uint64_t epoch = place / set->samples, row = place % set->samples;

	return shuffle ? shuffle_index(seed, epoch, row, set->samples) : row;
}

static int damaged(const struct dataset *set)
{
	if (set->cache)
		unlink(set->cache);
	return error(EXIT_RETRY,
		     "the tokenised data of '%s' were damaged on the disk and are removed "
		     "('%s'): start again, with --resume",
		     set->path, set->cache ? set->cache : "a temporary file");
}

int dataset_row(const struct dataset *set, uint64_t row, int32_t *ids, int32_t *labels)
{
	return store_sample(set->store, row, ids, labels) < 0 ? damaged(set) : 0;
}

int dataset_row_length(const struct dataset *set, uint64_t row)
{
	int length = store_length(set->store, row);

	return length < 0 ? damaged(set) : length;
}

int dataset_length(const struct dataset *set, uint64_t seed, bool shuffle, uint64_t place)
{
	int length = store_reach(set->store, row_at(set, seed, shuffle, place));

	return length < 0 ? damaged(set) : length;
}

int dataset_sample(const struct dataset *set, uint64_t seed, bool shuffle, uint64_t place,
		   int32_t *ids, int32_t *labels)
{
	uint64_t row = row_at(set, seed, shuffle, place);
	size_t T = (size_t)set->tokens;
	int trained = 0;

	if (dataset_row(set, row, ids, labels) < 0)
		return -1;
	for (size_t t = 0; t + 1 < T; t++) {
		labels[t] = labels[t + 1] == UNTRAINED ? -1 : labels[t + 1];
		trained += labels[t] >= 0;
	}
	labels[T - 1] = -1;
	return trained;
}
