/*
 * Writes checkpoints (their form: checkpoint.h).
 *
 * The folder is written under another name, step-00000050.tmp-XXXX, and moved when all of it is
 * on the disk: a folder with the plain name is whole unless the disk damaged it later, and then
 * a digest tells. No link and no file says which is the latest: the folders' names do.
 */
#include "model/checkpoint.h"
#include "model/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

static const char *const suffix[FAMILIES] = FAMILY_SUFFIXES;

static int write_state(struct arena *arena, const char *path, const struct lora *lora,
		       const float *const family[FAMILIES])
{
	size_t count = (size_t)lora->count;
	struct safetensors_entry *entry = arena_take(arena, FAMILIES * count * sizeof(*entry));

	for (size_t i = 0; i < FAMILIES * count; i++) {
		const struct lora_tensor *tensor = &lora->tensor[i % count];
		size_t which = i / count;

		entry[i] = (struct safetensors_entry){
		    .name = arena_format(arena, "%s%s", tensor->name, suffix[which]),
		    .dtype = DTYPE_F32,
		    .dims = 2,
		    .shape = {tensor->rows, tensor->cols},
		    .data = family[which] + tensor->offset,
		};
	}
	return safetensors_write(path, entry, (int)(FAMILIES * count), NULL);
}

static void add_pairs(struct text *text, const char *key, const char *const *pair)
{
	text_add(text, ",\n\"%s\":{", key);
	for (int i = 0; pair && pair[i]; i += 2) {
		text_add(text, i ? ",\n  " : "\n  ");
		json_add_text(text, pair[i]);
		text_add(text, ":");
		json_add_text(text, pair[i + 1]);
	}
	text_add(text, "}");
}

static int write_manifest(struct arena *arena, const char *folder,
			  const struct checkpoint *checkpoint)
{
	const char *state = path_join(arena, folder, CHECKPOINT_STATE);
	struct text text = {0};
	struct digest digest;
	struct stat status;
	char hex[33];

	if (stat(state, &status) < 0)
		return error(EXIT_IO, "cannot read '%s': %s", state, strerror(errno));
	if (digest_file(state, &digest) < 0)
		return -1;
	text_add(&text, "{\"version\":%d,\n\"step\":%lld,\n\"place\":%llu", CHECKPOINT_VERSION,
		 checkpoint->step, (unsigned long long)checkpoint->place);
	add_pairs(&text, "identity", checkpoint->identity);
	add_pairs(&text, "circumstance", checkpoint->circumstance);
	text_add(&text, ",\n\"files\":{\"%s\":{\"bytes\":%lld,\"xxh3_128\":\"%s\"}},\n",
		 CHECKPOINT_STATE, (long long)status.st_size, digest_write(digest, hex));
	digest = digest_of(text.data, text.bytes);
	text_add(&text, DIGEST_LINE "%s\"}\n", digest_write(digest, hex));
	int rc = file_write(path_join(arena, folder, CHECKPOINT_MANIFEST), text.data, text.bytes);
	text_release(&text);
	return rc;
}

/* A name of this attempt alone: a late writer of an earlier one must not meet it. */
static char *temporary_name(struct arena *arena, const char *folder)
{
	uint64_t attempt = 0;

	if (getrandom(&attempt, sizeof(attempt), GRND_NONBLOCK) < 0)
		attempt = (uint64_t)(clock_s() * 1e9);
	return arena_format(arena, "%s.tmp-%016llx", folder, (unsigned long long)attempt);
}

int checkpoint_write(const char *run, const struct lora *lora,
		     const struct checkpoint *checkpoint)
{
	const float *const family[FAMILIES] = {checkpoint->value, checkpoint->m, checkpoint->v};
	struct arena arena = {0};
	int rc = -1;

	if (checkpoint->step < 0 || checkpoint->step > CHECKPOINT_STEP_MOST)
		return error(EXIT_CONFIG, "cannot write a checkpoint of step %lld (at most %d)",
			     checkpoint->step, CHECKPOINT_STEP_MOST);
	const char *parent = path_join(&arena, run, "ckpt");
	const char *folder = arena_format(&arena, "%s/step-%08lld", parent, checkpoint->step);
	const char *temporary = temporary_name(&arena, folder);
	bool is_new = !path_exists(parent);
	if (folder_make(temporary) < 0)
		goto done;
	if (is_new && folder_sync(run) < 0)
		goto done;
	if (write_state(&arena, path_join(&arena, temporary, CHECKPOINT_STATE), lora, family) < 0)
		goto done;
	if (write_manifest(&arena, temporary, checkpoint) < 0)
		goto done;
	rc = folder_publish(temporary, folder);
done:
	if (rc < 0)
		folder_remove(temporary);
	arena_release(&arena);
	return rc;
}
