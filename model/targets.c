/*
 * Which linears LoRA adapts: from words, PEFT's names or PEFT's regular expressions to a set of
 * modules, and from a set back to the shortest names.
 *
 * GPT-2 has a c_proj in its attention and one in its MLP: the name "c_proj" means both, the
 * name "attn.c_proj" the first. A set with the first alone must therefore be written as
 * "attn.c_proj".
 */
#include "model/internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* -- modules ------------------------------------------------------------------------------- */

/* Bytes of a row's name without ".weight" or ".bias": its module's path inside the block. */
static int module_bytes(const struct tensor_row *row)
{
	return (int)(strrchr(row->name, '.') - row->name);
}

void module_inside(char inside[MODULE_ROOM], const struct tensor_row *row)
{
	snprintf(inside, MODULE_ROOM, "%.*s", module_bytes(row), row->name);
}

void module_path(char path[MODULE_ROOM], const struct model_config *config,
		 const struct tensor_row *row, int block)
{
	const struct family *family = config->family;

	if (row->slot > SLOT_HEAD)
		snprintf(path, MODULE_ROOM, "%s%s%d.%.*s", family->prefix, family->block_prefix,
			 block, module_bytes(row), row->name);
	else
		snprintf(path, MODULE_ROOM, "%s%.*s",
			 row->slot == SLOT_HEAD ? "" : family->prefix, module_bytes(row),
			 row->name);
}

/* PEFT's check_target_module_exists for an item of a list. */
static bool name_matches(const char *path, const char *name)
{
	size_t path_bytes = strlen(path), name_bytes = strlen(name);

	if (name_bytes > path_bytes || strcmp(path + path_bytes - name_bytes, name) != 0)
		return false;
	return name_bytes == path_bytes || path[path_bytes - name_bytes - 1] == '.';
}

void targets_init(struct targets *targets, const struct model_config *config, const char *where)
{
	const struct tensor_row *row;

	*targets = (struct targets){.config = config, .where = where};
	for (row = config->family->row; row->name && targets->rows < TARGET_ROWS; row++)
		if (row->linear)
			targets->row[targets->rows++] = row;
	targets->chosen = xzalloc((size_t)config->blocks * (size_t)targets->rows, sizeof(bool));
}

void targets_release(struct targets *targets)
{
	free(targets->chosen);
	targets->chosen = NULL;
}

bool targets_equal(const struct targets *a, const struct targets *b)
{
	size_t count = (size_t)a->config->blocks * (size_t)a->rows;

	return memcmp(a->chosen, b->chosen, count * sizeof(bool)) == 0;
}

/* -- names --------------------------------------------------------------------------------- */

/* Chooses a row's module in the blocks where its path matches a name; returns how many. */
static int choose_in_blocks(struct targets *t, int r, const char *name)
{
	char path[MODULE_ROOM];
	int found = 0;

	for (int i = 0; i < t->config->blocks; i++) {
		module_path(path, t->config, t->row[r], i);
		if (!name_matches(path, name))
			continue;
		t->chosen[i * t->rows + r] = true;
		found++;
	}
	return found;
}

/* Chooses the modules that a name matches; returns how many. */
static int choose_name(struct targets *t, const char *name)
{
	char inside[MODULE_ROOM];
	int found = 0;

	for (int r = 0; r < t->rows; r++) {
		snprintf(inside, sizeof(inside), "%.*s", module_bytes(t->row[r]),
			 t->row[r]->name);
		/* one of the two ends with the other, or no path can match */
		if (name_matches(inside, name) || name_matches(name, inside))
			found += choose_in_blocks(t, r, name);
	}
	return found;
}

/* What a module that is no linear inside blocks is, for messages. */
static const char *what_it_is(enum slot slot)
{
	switch (slot) {
	case SLOT_HEAD:
		return "the head";
	case SLOT_EMBED:
	case SLOT_POSITIONS:
		return "an embedding";
	default:
		return "a norm";
	}
}

/* The row of a module outside the linears that a name matches, or null. */
static const struct tensor_row *other_module(const struct targets *t, const char *name)
{
	const struct tensor_row *row;
	char path[MODULE_ROOM];

	for (row = t->config->family->row; row->name; row++) {
		module_path(path, t->config, row, 0);
		bool bias = strcmp(row->name + module_bytes(row), ".weight") != 0;
		if (!row->linear && !bias && name_matches(path, name))
			return row;
	}
	return NULL;
}

static int refuse_other(const struct targets *t, const char *name, const struct tensor_row *row)
{
	return error(EXIT_CONFIG,
		     "%s: \"%s\" is %s: LoRA is built for the linears inside blocks", t->where,
		     name, what_it_is(row->slot));
}

/* Says that a name means nothing, with the nearest that does and with all of them. */
static int refuse_unknown(const struct targets *t, const char *name)
{
	const char *words[2 * TARGET_ROWS + 2] = {"attention", "all"};
	char paths[TARGET_ROWS][MODULE_ROOM];
	struct text known = {0};
	int count = 2;

	for (int i = 0; i < t->rows; i++) {
		snprintf(paths[i], MODULE_ROOM, "%.*s", module_bytes(t->row[i]),
			 t->row[i]->name);
		words[count++] = strrchr(paths[i], '.') + 1;
		words[count++] = paths[i];
		text_add(&known, ", %s", paths[i]);
	}
	const char *near = nearest_word(name, words, count);
	report(EXIT_CONFIG,
	       "%s: \"%s\" matches no linear of this model%s%s%s (there are: attention, "
	       "all%s)",
	       t->where, name, near ? "; did you mean \"" : "", near ? near : "",
	       near ? "\"?" : "", known.data);
	text_release(&known);
	return -1;
}

static int add_word(struct targets *t, const char *word)
{
	const char *const *name = t->config->family->attention;
	const struct tensor_row *other;

	if (strcmp(word, "all") == 0) {
		memset(t->chosen, true, (size_t)t->config->blocks * (size_t)t->rows);
		return 0;
	}
	if (strcmp(word, "attention") == 0) {
		for (; *name; name++)
			choose_name(t, *name);
		return 0;
	}
	if (choose_name(t, word) > 0)
		return 0;
	other = other_module(t, word);
	return other ? refuse_other(t, word, other) : refuse_unknown(t, word);
}

int targets_add_words(struct targets *targets, const struct texts *words)
{
	if (words->count == 0)
		return error(EXIT_CONFIG, "%s: no target is given", targets->where);
	for (int i = 0; i < words->count; i++)
		if (add_word(targets, words->item[i]) < 0)
			return -1;
	return 0;
}

/* In an adapter one item must match, as in PEFT; but none may mean the head. */
static int add_list(struct targets *t, const struct texts *names)
{
	int found = 0;

	for (int i = 0; i < names->count; i++) {
		const struct tensor_row *other = other_module(t, names->item[i]);

		if (other)
			return refuse_other(t, names->item[i], other);
		found += choose_name(t, names->item[i]);
	}
	if (found == 0)
		return names->count
			   ? refuse_unknown(t, names->item[0])
			   : error(EXIT_CONFIG, "%s: target_modules is empty", t->where);
	return 0;
}

/* -- regular expressions ------------------------------------------------------------------- */

static int match_linears(const struct regex *regex, struct targets *t, const char *text)
{
	char path[MODULE_ROOM];
	int found = 0;

	for (int i = 0; i < t->config->blocks * t->rows; i++) {
		module_path(path, t->config, t->row[i % t->rows], i / t->rows);
		int rc = regex_matches(regex, path, true);
		if (rc < 0)
			return -1;
		t->chosen[i] |= rc == 1;
		found += rc;
	}
	if (found == 0)
		return error(EXIT_CONFIG,
			     "%s: the pattern \"%s\" in target_modules matches no linear "
			     "of this model",
			     t->where, text);
	return 0;
}

/* PEFT adapts everything that matches: more than linears inside blocks is not built. */
static int match_others(const struct regex *regex, const struct targets *t)
{
	const struct tensor_row *row;
	char path[MODULE_ROOM];

	for (row = t->config->family->row; row->name; row++) {
		if (row->slot > SLOT_HEAD || row->linear)
			continue;
		module_path(path, t->config, row, 0);
		int rc = regex_matches(regex, path, true);
		if (rc != 0)
			return rc < 0 ? -1 : refuse_other(t, path, row);
	}
	return 0;
}

static int add_pattern(struct targets *t, const char *text)
{
	struct regex *regex = regex_open(text, t->where, "target_modules");
	int rc = regex ? match_others(regex, t) : -1;

	if (rc == 0)
		rc = match_linears(regex, t, text);
	regex_close(regex);
	return rc;
}

/* -- layers_to_transform ------------------------------------------------------------------- */

/* PEFT's patterns for the number of a module's block; the first that matches counts. */
static int open_layers(struct arena *arena, const struct targets *t,
		       const struct adapter_config *adapter, struct regex **regex)
{
	const struct texts *patterns = &adapter->layers_pattern;

	if (patterns->count == 0) {
		regex[0] = regex_open(".*?\\.[^.]*\\.(?P<idx>\\d+)\\.", t->where, "layers_pattern");
		return regex[0] ? 1 : -1;
	}
	for (int i = 0; i < patterns->count; i++) {
		const char *text = arena_format(arena, "(?:^|.*?\\.)%s\\.(?P<idx>\\d+)\\.",
						patterns->item[i]);

		regex[i] = regex_open(text, t->where, "layers_pattern");
		if (!regex[i])
			return -1;
	}
	return patterns->count;
}

/* Whether a module is of a block that is to be transformed: 1, 0, or -1 after an error. */
static int is_wanted(struct regex *const *regex, int count, const struct adapter_config *adapter,
		     const char *path)
{
	int rc = 0;

	for (int i = 0; i < adapter->targets.count; i++)
		if (strcmp(path, adapter->targets.item[i]) == 0)
			return 1; /* a whole path stands above the list of blocks */
	for (int i = 0; i < count && rc == 0; i++) {
		rc = regex_matches(regex[i], path, false);
		if (rc != 1)
			continue;
		long long block = regex_number(regex[i], path, "idx");
		for (int k = 0; k < adapter->layers; k++)
			if (block == adapter->layer[k])
				return 1;
	}
	return rc < 0 ? -1 : 0;
}

static int drop_others(struct targets *t, struct regex *const *regex, int count,
		       const struct adapter_config *adapter)
{
	char path[MODULE_ROOM];
	int found = 0;

	for (int i = 0; i < t->config->blocks * t->rows; i++) {
		if (!t->chosen[i])
			continue;
		module_path(path, t->config, t->row[i % t->rows], i / t->rows);
		int rc = is_wanted(regex, count, adapter, path);
		if (rc < 0)
			return -1;
		t->chosen[i] = rc == 1;
		found += rc;
	}
	if (found == 0)
		return error(EXIT_CONFIG, "%s: layers_to_transform names no block of this model",
			     t->where);
	return 0;
}

/* Takes back what is chosen in other blocks than those of layers_to_transform. */
static int keep_layers(struct targets *t, const struct adapter_config *adapter)
{
	size_t patterns = (size_t)adapter->layers_pattern.count + 1;
	struct regex **regex = xzalloc(patterns, sizeof(struct regex *));
	struct arena arena = {0};
	int count = open_layers(&arena, t, adapter, regex);
	int rc = count < 0 ? -1 : drop_others(t, regex, count, adapter);

	for (size_t i = 0; i < patterns; i++)
		regex_close(regex[i]);
	free(regex);
	arena_release(&arena);
	return rc;
}

int targets_add_adapter(struct targets *targets, const struct adapter_config *adapter)
{
	static const char *const all[] = {"all"};

	if (!adapter->targets_are_pattern && add_list(targets, &adapter->targets) < 0)
		return -1;
	if (!adapter->targets_are_pattern)
		return adapter->layers ? keep_layers(targets, adapter) : 0;
	/* PEFT's own word for every linear but the head */
	if (strcasecmp(adapter->targets.item[0], "all-linear") == 0)
		return add_word(targets, all[0]);
	return add_pattern(targets, adapter->targets.item[0]);
}

/* -- back to names ------------------------------------------------------------------------- */

/* Whether a name that leaves the block open matches chosen modules only. */
static bool covers_chosen_only(const struct targets *t, const char *name)
{
	char path[MODULE_ROOM];

	for (int i = 0; i < t->config->blocks * t->rows; i++) {
		module_path(path, t->config, t->row[i % t->rows], i / t->rows);
		if (!t->chosen[i] && name_matches(path, name))
			return false;
	}
	return true;
}

/* Short names: several rows may share one. */
static void add_name(struct arena *arena, const char **name, int *names, const char *text)
{
	for (int i = 0; i < *names; i++)
		if (strcmp(name[i], text) == 0)
			return;
	name[(*names)++] = arena_copy(arena, text, strlen(text));
}

/* The shortest name of a row's module in all blocks that matches nothing else; null if there is
 * none, because some blocks are not chosen. inside: the module's path inside a block. */
static const char *short_name(const struct targets *t, const char *inside)
{
	const char *name = inside + strlen(inside);

	while (name > inside) {
		do
			name--;
		while (name > inside && name[-1] != '.');
		if (covers_chosen_only(t, name))
			return name;
	}
	return NULL;
}

void targets_names(const struct targets *targets, struct arena *arena, const char ***name,
		   int *names)
{
	const int blocks = targets->config->blocks, rows = targets->rows;
	char inside[MODULE_ROOM], path[MODULE_ROOM];

	*name = arena_take(arena, (size_t)blocks * (size_t)rows * sizeof(**name));
	*names = 0;
	for (int r = 0; r < rows; r++) {
		const struct tensor_row *row = targets->row[r];

		snprintf(inside, sizeof(inside), "%.*s", module_bytes(row), row->name);
		const char *some = short_name(targets, inside);
		if (some) {
			add_name(arena, *name, names, some);
			continue;
		}
		for (int i = 0; i < blocks; i++) {
			module_path(path, targets->config, row, i);
			if (targets->chosen[i * rows + r])
				(*name)[(*names)++] = arena_copy(arena, path, strlen(path));
		}
	}
}
