/*
 * The weights of a model directory: one model.safetensors, or shards that an index names. Files
 * are only mapped; a rank touches the pages of its own blocks alone.
 *
 * Everything that the family's table asks for is looked up once, when the files are opened: a
 * wrong shape is found before the first step, and finding a tensor later cannot fail.
 */
#include "model/model.h"
#include "model/internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MOST_INDEX_BYTES ((size_t)32 << 20)
#define PIECE ((size_t)4 << 20)

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

/* The private index: tensors by slot, the ends first, then block by block. */
struct table {
	const struct safetensor *end[SLOTS];
	const struct safetensor *(*block)[SLOTS];
};

/* What is known while opening. */
struct opening {
	struct weights *weights;
	struct arena arena; /* names, dropped at the end */
	const char *folder;
	struct json *index;	/* null: one file */
	const struct json *map; /* weight_map: tensor -> shard */
	const char **shard;	/* name of each of weights->file */
};

/* -- files --------------------------------------------------------------------------------- */

/* A shard lies beside its index: no folder, no way up. */
static bool is_plain_name(const char *name)
{
	return name[0] != '\0' && name[0] != '.' && !strchr(name, '/') && !strchr(name, '\\');
}

static int open_file(struct opening *o, const char *name)
{
	struct weights *w = o->weights;
	struct safetensors *file = safetensors_open(path_join(&o->arena, o->folder, name));

	if (!file)
		return -1;
	o->shard[w->files] = name;
	w->file[w->files++] = file;
	return 0;
}

static struct safetensors *file_of(const struct opening *o, const char *shard)
{
	for (int i = 0; i < o->weights->files; i++)
		if (strcmp(o->shard[i], shard) == 0)
			return o->weights->file[i];
	return NULL;
}

static void make_room(struct opening *o, size_t files)
{
	o->weights->file = arena_take(&o->weights->arena, files * sizeof(*o->weights->file));
	o->shard = arena_take(&o->arena, files * sizeof(*o->shard));
}

/* The shard that the map gives for one tensor, checked; null after an error. */
static const char *shard_of(const struct opening *o, const char *path, void *it)
{
	const struct json *value = json_value(it);
	const char *shard = json_as_text(value, NULL);

	if (!shard || strlen(shard) != json_text_bytes(value) || !is_plain_name(shard))
		return error_null(EXIT_DATA,
				  "cannot use '%s': the file of \"%s\" is not a name "
				  "beside the index",
				  path, json_name(it));
	if (!file_of(o, shard) && o->weights->files == 10000)
		return error_null(EXIT_DATA, "cannot use '%s': more than 10000 shards", path);
	return shard;
}

static int open_shards(struct opening *o)
{
	const char *path = path_join(&o->arena, o->folder, index_name);

	o->index = json_read_map(path, MOST_INDEX_BYTES, NULL, NULL);
	if (!o->index)
		return -1;
	o->map = json_find(o->index, "weight_map");
	if (json_kind(o->map) != JSON_MAP || json_size(o->map) == 0)
		return error(EXIT_DATA, "cannot use '%s': \"weight_map\" is missing", path);
	make_room(o, json_size(o->map) < 10000 ? json_size(o->map) : 10000);
	for (void *it = json_first(o->map); it; it = json_next(o->map, it)) {
		const char *shard = shard_of(o, path, it);

		if (!shard || (!file_of(o, shard) && open_file(o, shard) < 0))
			return -1;
		if (!safetensors_find(file_of(o, shard), json_name(it)))
			return error(EXIT_DATA, "cannot use '%s': tensor \"%s\" is not in '%s'",
				     path, json_name(it), file_of(o, shard)->path);
	}
	return 0;
}

static int open_files(struct opening *o)
{
	if (path_exists(path_join(&o->arena, o->folder, single_name))) {
		make_room(o, 1);
		return open_file(o, single_name);
	}
	if (path_exists(path_join(&o->arena, o->folder, index_name)))
		return open_shards(o);
	if (path_exists(path_join(&o->arena, o->folder, "pytorch_model.bin")))
		return error(EXIT_INPUT,
			     "cannot open '%s/%s': there is a pytorch_model.bin, but "
			     "pickles are never loaded: save the model as safetensors",
			     o->folder, single_name);
	return error(EXIT_INPUT, "cannot open '%s/%s': neither it nor %s is there", o->folder,
		     single_name, index_name);
}

/* -- tensors ------------------------------------------------------------------------------- */

static const struct safetensor *lookup(const struct opening *o, const char *name)
{
	const char *shard;

	if (!o->map)
		return safetensors_find(o->weights->file[0], name);
	shard = json_as_text(json_find(o->map, name), NULL);
	return shard ? safetensors_find(file_of(o, shard), name) : NULL;
}

/* The name as transformers writes it; the head alone stands outside the prefix. */
static void full_name(char *name, size_t bytes, const struct family *family,
		      const struct tensor_row *row, int block)
{
	if (row->slot > SLOT_HEAD)
		snprintf(name, bytes, "%s%s%d.%s", family->prefix, family->block_prefix, block,
			 row->name);
	else
		snprintf(name, bytes, "%s%s", row->slot == SLOT_HEAD ? "" : family->prefix,
			 row->name);
}

static void add_shape(struct text *text, const long long *shape, int dims)
{
	text_add(text, "(");
	for (int i = 0; i < dims; i++)
		text_add(text, i ? ", %lld" : "%lld", shape[i]);
	text_add(text, ")");
}

static int wrong_shape(const struct opening *o, const struct safetensor *tensor,
		       const long long *want, int dims)
{
	struct text text = {0};

	text_add(&text, "tensor \"%s\" has shape ", tensor->name);
	add_shape(&text, tensor->shape, tensor->dims);
	text_add(&text, ", but config.json asks for ");
	add_shape(&text, want, dims);
	report(EXIT_DATA, "cannot use the model '%s': %s", o->folder, text.data);
	text_release(&text);
	return -1;
}

static int check_tensor(const struct opening *o, const struct safetensor *tensor,
			const struct tensor_row *row)
{
	const struct model_config *config = o->weights->config;
	long long want[2] = {dim_size(config, row->rows), dim_size(config, row->cols)};
	int dims = row->cols == DIM_NONE ? 1 : 2;
	bool is_float =
	    tensor->known && tensor->dtype != DTYPE_I32 && tensor->dtype != DTYPE_I64;

	if (tensor->dims != dims ||
	    memcmp(tensor->shape, want, (size_t)dims * sizeof(*want)) != 0)
		return wrong_shape(o, tensor, want, dims);
	if (!is_float)
		return error(EXIT_DATA,
			     "cannot use the model '%s': tensor \"%s\" is of type %s (F32, "
			     "F16, BF16 and F64 are built)",
			     o->folder, tensor->name, tensor->dtype_text);
	return 0;
}

/* Finds one tensor, with or without the family's prefix, and checks it. */
static int place(struct opening *o, const struct tensor_row *row, int block)
{
	const struct family *family = o->weights->config->family;
	struct table *table = o->weights->index;
	char name[192];

	full_name(name, sizeof(name), family, row, block);
	const struct safetensor *tensor = lookup(o, name);
	if (!tensor && row->slot != SLOT_HEAD)
		tensor = lookup(o, name + strlen(family->prefix));
	if (!tensor)
		return error(EXIT_DATA, "cannot use the model '%s': tensor \"%s\" is missing",
			     o->folder, name);
	if (check_tensor(o, tensor, row) < 0)
		return -1;
	if (row->slot > SLOT_HEAD)
		table->block[block][row->slot] = tensor;
	else
		table->end[row->slot] = tensor;
	return 0;
}

/* Piece by piece, so that no more than a piece is ever resident. */
static bool same_values(const struct safetensor *a, const struct safetensor *b)
{
	bool same = a->dtype == b->dtype && a->bytes == b->bytes;

	for (size_t at = 0; same && at < a->bytes; at += PIECE) {
		size_t bytes = a->bytes - at < PIECE ? a->bytes - at : PIECE;

		same = memcmp((const char *)a->data + at, (const char *)b->data + at, bytes) == 0;
		safetensor_forget(a, at + bytes);
		safetensor_forget(b, at + bytes);
	}
	return same;
}

/* A tied head may stand in the files too. transformers unties one with values of its own, which
 * is not built. */
static int place_tied_head(struct opening *o, struct table *table)
{
	const struct safetensor *embedding = table->end[SLOT_EMBED];
	const struct safetensor *head = lookup(o, "lm_head.weight");

	table->end[SLOT_HEAD] = embedding;
	if (!head || same_values(embedding, head))
		return 0;
	return error(EXIT_DATA,
		     "cannot use the model '%s': config.json ties the head to the embedding, but "
		     "\"%s\" holds other values than \"%s\"",
		     o->folder, head->name, embedding->name);
}

static int place_all(struct opening *o)
{
	const struct model_config *config = o->weights->config;
	size_t blocks = (size_t)config->blocks;
	struct table *table = arena_take(&o->weights->arena, sizeof(*table));

	table->block = arena_take(&o->weights->arena, blocks * sizeof(*table->block));
	o->weights->index = table;
	for (const struct tensor_row *row = config->family->row; row->name; row++) {
		if (row->present && !row->present(config))
			continue;
		for (int i = 0; i < (row->slot > SLOT_HEAD ? config->blocks : 1); i++)
			if (place(o, row, i) < 0)
				return -1;
	}
	return config->tied ? place_tied_head(o, table) : 0;
}

/* -- the whole ----------------------------------------------------------------------------- */

static struct digest digest_headers(const struct weights *weights)
{
	struct digest_state *state = digest_open();

	for (int i = 0; i < weights->files; i++)
		digest_add(state, &weights->file[i]->header_digest, sizeof(struct digest));
	return digest_close(state);
}

struct weights *weights_open(const struct model_config *config)
{
	struct weights *weights = xzalloc(1, sizeof(*weights));
	struct opening o = {.weights = weights, .folder = config->folder};

	weights->config = config;
	int rc = open_files(&o);
	if (rc == 0)
		rc = place_all(&o);
	if (rc == 0)
		weights->digest = digest_headers(weights);
	json_free(o.index);
	arena_release(&o.arena);
	if (rc == 0)
		return weights;
	weights_close(weights);
	return NULL;
}

const struct safetensor *weights_find(const struct weights *weights, enum slot slot, int block)
{
	const struct table *table = weights->index;

	return slot > SLOT_HEAD ? table->block[block][slot] : table->end[slot];
}

/* -- digests ------------------------------------------------------------------------------- */

struct digest weights_digest_of(const struct weights *weights, enum slot slot, int block)
{
	const struct safetensor *tensor = weights_find(weights, slot, block);
	struct digest_state *state = digest_open();

	digest_add(state, tensor->name, strlen(tensor->name) + 1);
	digest_add(state, tensor->data, tensor->bytes);
	safetensor_forget(tensor, tensor->bytes);
	return digest_close(state);
}

static void add_slot(const struct weights *weights, enum slot slot, int block, struct digest *sum)
{
	struct digest digest;

	if (!model_row(weights->config, slot))
		return;
	digest = weights_digest_of(weights, slot, block);
	sum->low += digest.low;
	sum->high += digest.high;
}

struct digest weights_digest(const struct weights *weights, int first_block, int blocks,
			     bool embedding, bool head)
{
	struct digest sum = {0, 0};

	for (int i = first_block; i < first_block + blocks; i++)
		for (enum slot slot = SLOT_NORM1; slot < SLOTS; slot++)
			add_slot(weights, slot, i, &sum);
	if (embedding) {
		add_slot(weights, SLOT_EMBED, 0, &sum);
		add_slot(weights, SLOT_POSITIONS, 0, &sum);
	}
	if (head) {
		add_slot(weights, SLOT_FINAL_NORM, 0, &sum);
		add_slot(weights, SLOT_FINAL_NORM_BIAS, 0, &sum);
		if (!weights->config->tied)
			add_slot(weights, SLOT_HEAD, 0, &sum);
	}
	return sum;
}

void weights_forget(const struct weights *weights)
{
	for (int i = 0; i < weights->files; i++)
		madvise(weights->file[i]->map, weights->file[i]->map_bytes, MADV_DONTNEED);
}

void weights_close(struct weights *weights)
{
	if (!weights)
		return;
	for (int i = 0; i < weights->files; i++)
		safetensors_close(weights->file[i]);
	arena_release(&weights->arena);
	free(weights);
}
