/*
 * model/dataset.c - training data: rows of T ids and labels in memory, and the order they are
 * taken in.
 *
 * The form of a file is told by its extension. Labels lie unshifted, as transformers wants
 * them; the shift happens when a sample is taken, so that the first token of a sample is never
 * a target.
 */
#include "model/dataset.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
	int most = config->positions > 0 ? config->positions : INT_MAX / 2;

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
	return ends_with(path, ".txt");
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

static int32_t *moved(int32_t *from, size_t used, size_t room)
{
	int32_t *to = xalloc(room * sizeof *to);

	if (used)
		memcpy(to, from, used * sizeof *to);
	free(from);
	return to;
}

void reader_room(struct reader *r, size_t rows)
{
	size_t T = (size_t)r->tokens;

	if (rows == r->room)
		return;
	r->ids = moved(r->ids, r->rows * T, rows * T);
	r->labels = moved(r->labels, r->rows * T, rows * T);
	r->room = rows;
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

/* Whether one of the first `count` tokens is the target of another. */
static bool is_trained(const int32_t *labels, size_t count)
{
	for (size_t t = 1; t < count; t++) {
		if (!labels || labels[t] != UNTRAINED)
			return true;
	}
	return false;
}

int reader_add(struct reader *r, const int32_t *ids, const int32_t *labels, size_t count)
{
	size_t T = (size_t)r->tokens, kept = count < T ? count : T;

	if (check_ids(r, ids, count) < 0)
		return -1;
	r->cut += count > kept;
	r->cut_tokens += count - kept;
	if (r->skips && !is_trained(labels, kept)) {
		r->skipped++;
		return 0;
	}
	if (r->rows == r->room)
		reader_room(r, r->room + r->room / 2 + 16);

	int32_t *id = r->ids + r->rows * T, *label = r->labels + r->rows * T;
	for (size_t t = 0; t < T; t++) {
		id[t] = t < kept ? ids[t] : r->end >= 0 ? r->end : 0;
		label[t] = t >= kept ? UNTRAINED : labels ? labels[t] : ids[t];
	}
	r->rows++;
	return 0;
}

/* -- opening ------------------------------------------------------------------------------- */

/* FOLDER/KIND.jsonl, .txt or .safetensors: the one that is there. Null after an error. */
static const char *file_in_folder(struct arena *arena, const char *folder, const char *kind)
{
	const char *found = NULL;

	for (size_t i = 0; i < FORMS; i++) {
		const char *name = arena_format(arena, "%s%s", kind, forms[i].extension);
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
		report(EXIT_INPUT, "'%s' holds no %s.jsonl, %s.txt or %s.safetensors", folder,
		       kind, kind, kind);
	return found;
}

static const char *find_file(struct arena *arena, const char *path, const char *kind)
{
	struct stat status;

	if (stat(path, &status) < 0)
		return error_null(EXIT_INPUT, "cannot open '%s': %s", path, strerror(errno));
	if (S_ISDIR(status.st_mode))
		return file_in_folder(arena, path, kind);
	return arena_copy(arena, path, strlen(path));
}

static const struct form *find_form(const char *path)
{
	for (size_t i = 0; i < FORMS; i++) {
		if (ends_with(path, forms[i].extension))
			return &forms[i];
	}
	return error_null(EXIT_CONFIG,
			  "'%s' is no data file by its name: .jsonl, .txt or .safetensors",
			  path);
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

static void reader_release(struct reader *r)
{
	tokenizer_close(r->tokenizer);
	template_close(r->template);
	chat_release(&r->chat);
	rendered_release(&r->rendered);
	ids_release(&r->ids_of_line);
	ids_release(&r->labels_of_line);
	text_release(&r->end_text);
	free(r->ids);
	free(r->labels);
}

static size_t count_trained(const struct dataset *set)
{
	size_t T = (size_t)set->tokens, trained = 0;

	for (size_t i = 0; i < set->samples; i++) {
		for (size_t t = 1; t < T; t++)
			trained += set->labels[i * T + t] != UNTRAINED;
	}
	return trained;
}

static struct digest digest_rows(const struct dataset *set)
{
	size_t bytes = set->samples * (size_t)set->tokens * sizeof *set->ids;
	struct digest_state *state = digest_open();

	digest_add(state, set->ids, bytes);
	digest_add(state, set->labels, bytes);
	return digest_close(state);
}

/* Hands the rows over to the set, in blocks of their exact size. */
static int take_rows(struct dataset *set, struct reader *r)
{
	if (r->rows == 0 && r->skipped > 0)
		return error(EXIT_DATA,
			     "'%s': not one token of its %zu samples of %d tokens is trained",
			     r->path, r->skipped, r->tokens);
	if (r->rows == 0)
		return error(EXIT_DATA, "'%s' holds no sample", r->path);
	reader_room(r, r->rows);
	set->samples = r->rows;
	set->tokens = r->tokens;
	set->cut = r->cut;
	set->cut_tokens = r->cut_tokens;
	set->skipped = r->skipped;
	if (r->template) {
		const char *name = template_name(r->template);
		set->template = arena_copy(&set->arena, name, strlen(name));
	}
	set->ids = r->ids;
	set->labels = r->labels;
	r->ids = r->labels = NULL;
	set->trained_tokens = count_trained(set);
	if (set->trained_tokens == 0)
		return error(EXIT_DATA,
			     "'%s': not one token of its %zu samples of %d tokens is trained",
			     r->path, set->samples, set->tokens);
	set->digest = digest_rows(set);
	return 0;
}

struct dataset *dataset_open(const char *path, const char *kind, const struct data_config *data,
			     const struct model_config *config)
{
	struct dataset *set = xzalloc(1, sizeof *set);
	struct reader r = {.data = data, .config = config, .end = config->end_token};
	const struct form *form = NULL;
	int done = -1;

	set->path = r.path = find_file(&set->arena, path, kind);
	if (r.path)
		form = find_form(r.path);
	if (form && (!form->text || open_tokenizer(&r) == 0) && form->read(&r) == 0)
		done = take_rows(set, &r);
	reader_release(&r);
	if (done == 0)
		return set;
	dataset_close(set);
	return NULL;
}

void dataset_close(struct dataset *set)
{
	if (!set)
		return;
	free(set->ids);
	free(set->labels);
	arena_release(&set->arena);
	free(set);
}

/* -- taking samples ------------------------------------------------------------------------ */

/* The row of a place, and its epoch. */
static uint64_t row_at(const struct dataset *set, uint64_t seed, bool shuffle, uint64_t place)
{
	uint64_t epoch = place / set->samples, row = place % set->samples;

	return shuffle ? shuffle_index(seed, epoch, row, set->samples) : row;
}

int dataset_length(const struct dataset *set, uint64_t seed, bool shuffle, uint64_t place)
{
	const int32_t *label =
	    set->labels + row_at(set, seed, shuffle, place) * (size_t)set->tokens;
	int length = set->tokens - 1;

	while (length > 1 && label[length] == UNTRAINED)
		length--;
	return length < 1 ? 1 : length;
}

int dataset_sample(const struct dataset *set, uint64_t seed, bool shuffle, uint64_t place,
		   int32_t *ids, int32_t *labels)
{
	uint64_t row = row_at(set, seed, shuffle, place);
	size_t T = (size_t)set->tokens;
	int trained = 0;

	const int32_t *label = set->labels + row * T;
	memcpy(ids, set->ids + row * T, T * sizeof *ids);
	for (size_t t = 0; t + 1 < T; t++) {
		labels[t] = label[t + 1] == UNTRAINED ? -1 : label[t + 1];
		trained += labels[t] >= 0;
	}
	labels[T - 1] = -1;
	return trained;
}
