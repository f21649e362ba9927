/*
 * model/sentencepiece.c - tokenizer.model, the file of Google's sentencepiece: a protobuf message
 * with the pieces of the vocabulary, their scores, and how texts are normalized.
 *
 * Of the kinds of models BPE alone is built. Its rule - join the two neighbours whose union has the
 * best score, the leftmost first - is that of merges whose rank is the union's place by score.
 */
#include "model/internal.h"
#include "model/tokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SPACE_MARK "\xe2\x96\x81" /* U+2581 */
#define PIECE_MOST 512		  /* bytes of a piece that others make up; usual are 16 characters */

/* -- the encoding of messages -------------------------------------------------------------- */

/* A message that is read field by field. */
struct message {
	const uint8_t *p, *end;
	const uint8_t *file; /* its start, for positions */
	const char *path;
	unsigned number, wire; /* of the field */
	uint64_t value;	       /* of a varint, or the bits of a fixed one */
	struct {
		const uint8_t *data;
		size_t bytes;
	} inside; /* of a field with a length */
};
enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_LENGTH = 2, WIRE_32 = 5 };

static int broken(const struct message *m, const char *why)
{
	return error(EXIT_DATA, "'%s': byte %zu: %s", m->path, (size_t)(m->p - m->file), why);
}

static int read_varint(struct message *m, uint64_t *value)
{
	*value = 0;
	for (int shift = 0; shift < 64; shift += 7) {
		if (m->p == m->end)
			return broken(m, "the file ends inside a number");
		uint8_t byte = *m->p++;
		*value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return 0;
	}
	return broken(m, "a number has more than 64 bits");
}

static int read_fixed(struct message *m, size_t bytes)
{
	if ((size_t)(m->end - m->p) < bytes)
		return broken(m, "the file ends inside a number");
	m->value = 0;
	for (size_t i = 0; i < bytes; i++)
		m->value |= (uint64_t)m->p[i] << 8 * i;
	m->p += bytes;
	return 0;
}

static int read_inside(struct message *m)
{
	uint64_t bytes;

	if (read_varint(m, &bytes) < 0)
		return -1;
	if (bytes > (uint64_t)(m->end - m->p))
		return broken(m, "a length goes beyond the message that it stands in");
	m->inside.data = m->p;
	m->inside.bytes = (size_t)bytes;
	m->p += bytes;
	return 0;
}

/* 1: the next field, 0: the end, -1: an error. */
static int next_field(struct message *m)
{
	uint64_t tag;

	if (m->p == m->end)
		return 0;
	if (read_varint(m, &tag) < 0)
		return -1;
	m->number = (unsigned)(tag >> 3);
	m->wire = tag & 7;
	m->value = 0;
	m->inside.data = m->p;
	m->inside.bytes = 0;
	if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
		return broken(m, "a field has no valid number");
	switch (m->wire) {
	case WIRE_VARINT:
		return read_varint(m, &m->value) < 0 ? -1 : 1;
	case WIRE_64:
		return read_fixed(m, 8) < 0 ? -1 : 1;
	case WIRE_LENGTH:
		return read_inside(m) < 0 ? -1 : 1;
	case WIRE_32:
		return read_fixed(m, 4) < 0 ? -1 : 1;
	default:
		return broken(m, "a field has no kind that is known");
	}
}

/* The message in a field. */
static struct message open_field(const struct message *m)
{
	return (struct message){.p = m->inside.data, .end = m->inside.data + m->inside.bytes,
				.file = m->file, .path = m->path};
}

/* -- what the file says -------------------------------------------------------------------- */

enum piece_kind {
	PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE
};
struct piece {
	const char *text; /* in the file, not ended */
	size_t bytes;
	float score;
	int kind;
};
struct file {
	struct piece *piece;
	int count, room;
	uint64_t model_type; /* 1: unigram, which is the standard, 2: BPE */
	bool suffix, byte_fallback;
	bool prefix, squeeze, escape;
	const char *rules; /* the normalizer's name, for messages; a copy */
	bool mapped;	   /* it maps characters */
};

static int read_piece(struct tokenizer *t, struct file *file, const struct message *outer)
{
	struct message m = open_field(outer);
	struct piece piece = {.text = "", .kind = PIECE_NORMAL};
	int more;

	while ((more = next_field(&m)) > 0) {
		uint32_t bits = (uint32_t)m.value;

		if (m.number == 1 && m.wire == WIRE_LENGTH) {
			piece.text = (const char *)m.inside.data;
			piece.bytes = m.inside.bytes;
		} else if (m.number == 2 && m.wire == WIRE_32) {
			memcpy(&piece.score, &bits, sizeof bits);
		} else if (m.number == 3 && m.wire == WIRE_VARINT) {
			piece.kind = m.value > PIECE_BYTE ? 0 : (int)m.value;
		}
	}
	if (more < 0)
		return -1;
	if (piece.bytes == 0 || piece.kind == 0 || isnan(piece.score) ||
	    utf8_valid(piece.text, piece.bytes) < piece.bytes ||
	    memchr(piece.text, 0, piece.bytes))
		return error(EXIT_DATA, "'%s': piece %d has no valid text, score or type",
			     outer->path, file->count);
	if (file->count == file->room) {
		struct piece *old = file->piece;
		file->room = file->room ? 2 * file->room : 1024;
		file->piece = arena_take(&t->arena, (size_t)file->room * sizeof *file->piece);
		if (old)
			memcpy(file->piece, old, (size_t)file->count * sizeof *old);
	}
	file->piece[file->count++] = piece;
	return 0;
}

static int read_trainer(struct file *file, const struct message *outer)
{
	struct message m = open_field(outer);
	int more;

	while ((more = next_field(&m)) > 0) {
		if (m.wire != WIRE_VARINT)
			continue;
		if (m.number == 3)
			file->model_type = m.value;
		else if (m.number == 24)
			file->suffix = m.value;
		else if (m.number == 35)
			file->byte_fallback = m.value;
	}
	return more;
}

static int read_rules(struct tokenizer *t, struct file *file, const struct message *outer)
{
	struct message m = open_field(outer);
	int more;

	while ((more = next_field(&m)) > 0) {
		if (m.number == 1 && m.wire == WIRE_LENGTH)
			file->rules = arena_copy(&t->arena, (const char *)m.inside.data,
						 m.inside.bytes);
		else if ((m.number == 2 || m.number == 6) && m.wire == WIRE_LENGTH)
			file->mapped = file->mapped || m.inside.bytes > 0;
		else if (m.number == 3 && m.wire == WIRE_VARINT)
			file->prefix = m.value;
		else if (m.number == 4 && m.wire == WIRE_VARINT)
			file->squeeze = m.value;
		else if (m.number == 5 && m.wire == WIRE_VARINT)
			file->escape = m.value;
	}
	return more;
}

static int read_file(struct tokenizer *t, struct file *file, struct message *m)
{
	int more;

	while ((more = next_field(m)) > 0) {
		int done = 0;

		if (m->wire != WIRE_LENGTH)
			continue;
		if (m->number == 1)
			done = read_piece(t, file, m);
		else if (m->number == 2)
			done = read_trainer(file, m);
		else if (m->number == 3)
			done = read_rules(t, file, m);
		if (done < 0)
			return -1;
	}
	return more;
}

/* -- what follows -------------------------------------------------------------------------- */

static int check_file(const char *path, const struct file *file)
{
	static const char *const types[] = {"?", "unigram", "BPE", "word", "char"};

	if (file->count == 0)
		return error(EXIT_DATA, "'%s' holds no pieces: is it a sentencepiece model?", path);
	if (file->model_type != 2)
		return refuse_part(path, "the model",
				   types[file->model_type < 5 ? file->model_type : 0]);
	if (file->mapped)
		return refuse_part(path, "the normalizer that maps characters,", file->rules);
	if (file->suffix)
		return refuse_part(path, "the trainer's", "treat_whitespace_as_suffix");
	if (!file->escape)
		return refuse_part(path, "the normalizer's", "escape_whitespaces = false");
	for (int i = 0; i < file->count; i++) {
		const struct piece *piece = &file->piece[i];

		if (piece->kind == PIECE_UNUSED)
			return refuse_part(path, "the type of a piece,", "UNUSED");
		if (piece->kind == PIECE_NORMAL && piece->bytes > PIECE_MOST)
			return error(EXIT_CONFIG, "'%s': piece %d has %zu bytes; more than %d are not "
				     "built", path, i, piece->bytes, PIECE_MOST);
	}
	return 0;
}

static int add_pieces(struct tokenizer *t, const char *path, const struct file *file)
{
	for (int i = 0; i < file->count; i++) {
		const struct piece *piece = &file->piece[i];
		char *text = arena_copy(&t->arena, piece->text, piece->bytes);

		if (vocabulary_add(&t->vocabulary, path, text, piece->bytes, i, TOKEN_MODEL) < 0)
			return -1;
		if (piece->kind == PIECE_UNKNOWN)
			t->bpe.unknown_text = text;
		bool added = piece->kind == PIECE_UNKNOWN || piece->kind == PIECE_CONTROL ||
			     piece->kind == PIECE_USER;
		if (added && tokenizer_add(t, path, text, piece->bytes, i,
					   &(struct added){.special = piece->kind != PIECE_USER}) < 0)
			return -1;
	}
	return 0;
}

static int compare_scores(const void *a, const void *b)
{
	float left = *(const float *)a, right = *(const float *)b;

	return left > right ? -1 : left < right;
}

/* The place of a score among the scores in falling order, equal ones at one place. */
static int rank_of(const float *sorted, int count, float score)
{
	int low = 0, high = count;

	while (low < high) {
		int middle = low + (high - low) / 2;

		if (sorted[middle] > score)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* A filter of the normal pieces by a hash that grows byte by byte: most starts of pieces are none,
 * and are known as such without a look at all of their bytes. */
struct filter {
	uint8_t *bit;
	uint64_t mask;
};

static uint64_t grow_hash(uint64_t hash, const char *text, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		hash = (hash ^ (uint8_t)text[i]) * 0x9e3779b97f4a7c15u;
	return hash;
}

static bool is_in(const struct filter *filter, uint64_t hash)
{
	uint64_t at = hash >> 24 & filter->mask;

	return filter->bit[at / 8] >> at % 8 & 1;
}

static struct filter make_filter(const struct file *file)
{
	struct filter filter = {.mask = 1023};

	while (filter.mask / 16 < (uint64_t)file->count)
		filter.mask = 2 * filter.mask + 1;
	filter.bit = xzalloc(filter.mask / 8 + 1, 1);
	for (int i = 0; i < file->count; i++) {
		const struct piece *piece = &file->piece[i];
		uint64_t at = grow_hash(0, piece->text, piece->bytes) >> 24 & filter.mask;

		if (piece->kind == PIECE_NORMAL)
			filter.bit[at / 8] |= (uint8_t)(1u << at % 8);
	}
	return filter;
}

/* The normal piece of a text, -1: none. */
static int normal_piece(const struct tokenizer *t, const struct file *file, const char *text,
			size_t bytes)
{
	int id = vocabulary_find(&t->vocabulary, text, bytes);

	return id >= 0 && file->piece[id].kind == PIECE_NORMAL ? id : -1;
}

/* Every way to make a piece of two others is a merge. With no memory, counts them. */
static size_t add_merges(struct tokenizer *t, const struct file *file, const struct filter *filter,
			 const float *sorted)
{
	size_t merges = 0;

	for (int i = 0; i < file->count; i++) {
		const struct piece *piece = &file->piece[i];
		uint64_t hash = 0;
		size_t size;

		if (piece->kind != PIECE_NORMAL)
			continue;
		int rank = sorted ? rank_of(sorted, file->count, piece->score) : 0;
		for (size_t at = 0; at < piece->bytes; at += size) {
			const char *rest = piece->text + at;
			utf8_at(rest, &size);
			int left = at && is_in(filter, hash)
					   ? normal_piece(t, file, piece->text, at)
					   : -1;
			hash = grow_hash(hash, rest, size);
			int right = left < 0 ? -1 : normal_piece(t, file, rest, piece->bytes - at);
			if (right < 0)
				continue;
			merges++;
			if (sorted)
				bpe_join(&t->bpe, left, right, i, rank);
		}
	}
	return merges;
}

static void make_merges(struct tokenizer *t, const struct file *file)
{
	float *sorted = xalloc((size_t)file->count * sizeof *sorted);
	struct filter filter = make_filter(file);

	for (int i = 0; i < file->count; i++)
		sorted[i] = file->piece[i].score;
	qsort(sorted, (size_t)file->count, sizeof *sorted, compare_scores);
	bpe_open(&t->bpe, &t->vocabulary, add_merges(t, file, &filter, NULL));
	add_merges(t, file, &filter, sorted);
	free(filter.bit);
	free(sorted);
}

/* The steps around the model. legacy: every text between special tokens begins with a space, as
 * transformers once did it; else only the first. */
static void make_steps(struct tokenizer *t, const struct file *file, bool legacy)
{
	struct step *step;

	if (file->squeeze)
		steps_add(&t->normalizer, STEP_SQUEEZE);
	if (file->prefix) {
		step = steps_add(&t->normalizer, STEP_PREPEND);
		step->prefix = legacy ? PREFIX_ALWAYS : PREFIX_FIRST;
		step_text(step, SPACE_MARK, 3);
	}
	step = steps_add(&t->normalizer, STEP_REPLACE);
	step->pattern = pattern_literal(" ", 1);
	step_text(step, SPACE_MARK, 3);

	step = steps_add(&t->decoder, STEP_REPLACE);
	step->pattern = pattern_literal(SPACE_MARK, 3);
	step_text(step, " ", 1);
	steps_add(&t->decoder, STEP_BYTE_FALLBACK);
	steps_add(&t->decoder, STEP_FUSE);
	if (file->prefix) {
		step = steps_add(&t->decoder, STEP_STRIP);
		step_text(step, " ", 1);
		step->left = 1;
	}
}

static int take_file(struct tokenizer *t, const char *path, struct file *file,
		     const struct json *config)
{
	struct fields fields = {.path = path, .map = config};
	bool legacy = fields_flag(&fields, "legacy", false);

	file->prefix = fields_flag(&fields, "add_prefix_space", file->prefix);
	if (fields.failed || check_file(path, file) < 0 || add_pieces(t, path, file) < 0)
		return -1;
	make_merges(t, file);
	t->bpe.byte_fallback = file->byte_fallback;
	t->bpe.fuse_unknown = true;
	make_steps(t, file, legacy);
	return 0;
}

int tokenizer_read_pieces(struct tokenizer *t, const char *path, const struct json *config)
{
	struct file file = {.model_type = 1, .prefix = true, .squeeze = true, .escape = true,
			    .rules = "?"};
	size_t bytes;
	char *data = file_read(path, &bytes);

	if (!data)
		return -1;
	struct message m = {.p = (const uint8_t *)data, .end = (const uint8_t *)data + bytes,
			    .file = (const uint8_t *)data, .path = path};
	int done = read_file(t, &file, &m);
	if (done == 0)
		done = take_file(t, path, &file, config);
	free(data);
	return done;
}
