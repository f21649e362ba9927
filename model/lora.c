/*
 * LoRA's own tensors: which there are, in what order, and what they start from.
 *
 * A linear y = W x becomes y = W x + scale B (A x) with A (rank, in) and B (out, rank); see Hu
 * et al., "LoRA: low-rank adaptation of large language models", 2021. Names, shapes and start
 * values are PEFT's, for GPT-2's transposed Conv1D too.
 */
#include "model/model.h"
#include "model/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RANK_MOST 65536

/* -- what is asked for --------------------------------------------------------------------- */

/* Says that a key of the job contradicts the adapter that it goes on from. */
static int differs(const struct lora_config *want, const char *key, double job, double adapter)
{
	return error(EXIT_CONFIG,
		     "lora.%s is %g, but the adapter '%s' that lora.init names has %g "
		     "(leave the key out, or give the same)",
		     key, job, want->init, adapter);
}

/* Rank, alpha, dropout and rslora are the adapter's; what the job gives must be the same. */
static int take_numbers(struct lora *lora, const struct lora_config *want,
			const struct adapter_config *adapter)
{
	if (want->rank_given && want->rank != adapter->rank)
		return differs(want, "rank", (double)want->rank, adapter->rank);
	if (want->alpha_given && want->alpha != adapter->alpha)
		return differs(want, "alpha", want->alpha, adapter->alpha);
	if (want->dropout_given && want->dropout != adapter->dropout)
		return differs(want, "dropout", want->dropout, adapter->dropout);
	if (want->rslora_given && want->rslora != adapter->rslora)
		return differs(want, "rslora", want->rslora, adapter->rslora);
	lora->rank = adapter->rank;
	lora->alpha = adapter->alpha;
	lora->dropout = adapter->dropout;
	lora->rslora = adapter->rslora;
	return 0;
}

/* What a module's adapter has, by place: (blocks, rows) as targets->chosen. */
struct shapes { double *rank, *alpha; };

/* The modules come from the adapter, as a set: the job may name the same ones otherwise. */
static int take_targets(struct targets *targets, const struct lora_config *want,
			const struct adapter_config *adapter)
{
	struct targets job;
	int rc = targets_add_adapter(targets, adapter);

	if (rc < 0 || !want->targets_given)
		return rc;
	targets_init(&job, targets->config, "lora.targets");
	rc = targets_add_words(&job, &want->targets);
	if (rc == 0 && !targets_equal(targets, &job))
		rc = error(EXIT_CONFIG,
			   "lora.targets names other modules than the adapter '%s' that "
			   "lora.init names (leave the key out, or name the same)",
			   want->init);
	targets_release(&job);
	return rc;
}

static int take_patterns(struct lora *lora, const struct targets *targets,
			 const struct adapter_config *adapter, const struct shapes *shapes)
{
	if (module_numbers_read(targets, &adapter->ranks, "rank_pattern", lora->rank,
				shapes->rank) < 0 ||
	    module_numbers_read(targets, &adapter->alphas, "alpha_pattern", lora->alpha,
				shapes->alpha) < 0)
		return -1;
	module_numbers_write(targets, &lora->arena, lora->rank, shapes->rank, &lora->ranks);
	module_numbers_write(targets, &lora->arena, lora->alpha, shapes->alpha, &lora->alphas);
	return 0;
}

static int resolve_init(struct lora *lora, struct targets *targets, const struct shapes *shapes,
			const struct lora_config *want)
{
	struct adapter_config *adapter = adapter_config_read(&lora->arena, want->init);

	if (!adapter)
		return -1;
	lora->init = arena_copy(&lora->arena, want->init, strlen(want->init));
	targets->where = arena_format(&lora->arena, "cannot use the adapter '%s'", want->init);
	lora->base = adapter->base;
	if (take_numbers(lora, want, adapter) < 0 || take_targets(targets, want, adapter) < 0)
		return -1;
	return take_patterns(lora, targets, adapter, shapes);
}

static int resolve_job(struct lora *lora, struct targets *targets, const struct shapes *shapes,
		       const struct lora_config *want)
{
	if (want->rank < 1 || want->rank > RANK_MOST)
		return error(EXIT_CONFIG, "lora.rank is %lld (possible: 1 to %d)", want->rank,
			     RANK_MOST);
	if (!isfinite(want->alpha))
		return error(EXIT_CONFIG, "lora.alpha is not a number");
	if (!(want->dropout >= 0 && want->dropout < 1))
		return error(EXIT_CONFIG, "lora.dropout is %g (possible: 0 up to, but not, 1)",
			     want->dropout);
	lora->rank = (int)want->rank;
	lora->alpha = want->alpha;
	lora->dropout = want->dropout;
	lora->rslora = want->rslora;
	for (int i = 0; i < targets->config->blocks * targets->rows; i++) {
		shapes->rank[i] = lora->rank;
		shapes->alpha[i] = lora->alpha;
	}
	return targets_add_words(targets, &want->targets);
}

/* -- the layout ---------------------------------------------------------------------------- */

/* Of a linear with `size` inputs (A) or outputs (B). */
static void add_tensor(struct lora *lora, const char *path, const struct lora_tensor *shape,
		       bool is_b, int size)
{
	struct lora_tensor *tensor = &lora->tensor[lora->count++];

	*tensor = *shape;
	tensor->name = arena_format(&lora->arena, "base_model.model.%s.lora_%c.weight", path,
				    is_b ? 'B' : 'A');
	tensor->is_b = is_b;
	tensor->rows = is_b ? size : shape->rank;
	tensor->cols = is_b ? shape->rank : size;
	tensor->offset = lora->elements;
	lora->elements += (size_t)tensor->rows * (size_t)tensor->cols;
}

static float scale_of(double rank, double alpha, bool rslora)
{
	return (float)(alpha / (rslora ? sqrt(rank) : rank));
}

/* Block by block, in a block in the order of the family's rows, A before B. */
static void lay_out(struct lora *lora, const struct targets *targets,
		    const struct shapes *shapes)
{
	const struct model_config *config = targets->config;
	int places = config->blocks * targets->rows;
	char path[MODULE_ROOM];

	lora->tensor = arena_take(&lora->arena, 2 * (size_t)places * sizeof(*lora->tensor));
	for (int i = 0; i < places; i++) {
		const struct tensor_row *row = targets->row[i % targets->rows];
		int rows = dim_size(config, row->rows), cols = dim_size(config, row->cols);
		const struct lora_tensor shape = {
		    .block = i / targets->rows,
		    .slot = row->slot,
		    .rank = (int)shapes->rank[i],
		    .alpha = shapes->alpha[i],
		    .scale = scale_of(shapes->rank[i], shapes->alpha[i], lora->rslora),
		};

		if (!targets->chosen[i])
			continue;
		module_path(path, config, row, shape.block);
		add_tensor(lora, path, &shape, false, row->transposed ? rows : cols);
		add_tensor(lora, path, &shape, true, row->transposed ? cols : rows);
	}
}

/* -- the adapter to go on from ------------------------------------------------------------- */

static struct safetensors *open_init(const struct lora *lora)
{
	struct arena arena = {0};
	char *path = path_join(&arena, lora->init, "adapter_model.safetensors");
	struct safetensors *file = NULL;

	if (!path_exists(path) &&
	    path_exists(path_join(&arena, lora->init, "adapter_model.bin")))
		report(EXIT_INPUT,
		       "cannot open '%s': there is an adapter_model.bin, but pickles are "
		       "never loaded: save the adapter as safetensors",
		       path);
	else
		file = safetensors_open(path);
	arena_release(&arena);
	return file;
}

/*
 * A tensor as PEFT writes it, or as PEFT reads it too: with the adapter's name ("default") in
 * it, as in a model's own state, or without the prefix of the wrapping PeftModel.
 */
static const struct safetensor *find_spelled(const struct safetensors *file, const char *name)
{
	static const char prefix[] = "base_model.model.", end[] = ".weight";
	char other[MODULE_ROOM + 64];
	const struct safetensor *found = safetensors_find(file, name);

	if (!found)
		found = safetensors_find(file, name + strlen(prefix));
	snprintf(other, sizeof(other), "%.*s.default%s", (int)(strlen(name) - strlen(end)), name,
		 end);
	if (!found)
		found = safetensors_find(file, other);
	return found ? found : safetensors_find(file, other + strlen(prefix));
}

/* The tensor in the adapter's file, checked; null after an error. */
static const struct safetensor *find_init(const struct safetensors *file,
					  const struct lora_tensor *tensor)
{
	const struct safetensor *found = find_spelled(file, tensor->name);

	if (!found)
		return error_null(EXIT_DATA,
				  "cannot use '%s': tensor \"%s\" is missing (is it an adapter "
				  "for another model?)",
				  file->path, tensor->name);
	if (found->dims != 2 || found->shape[0] != tensor->rows ||
	    found->shape[1] != tensor->cols)
		return error_null(
		    EXIT_DATA,
		    "cannot use '%s': tensor \"%s\" has %d dimensions "
		    "(%lld, %lld, ..), but the model and the adapter's rank ask for "
		    "(%d, %d) (is it an adapter for another model?)",
		    file->path, found->name, found->dims, found->dims > 0 ? found->shape[0] : 0,
		    found->dims > 1 ? found->shape[1] : 0, tensor->rows, tensor->cols);
	if (!found->known || found->dtype == DTYPE_I32 || found->dtype == DTYPE_I64)
		return error_null(EXIT_DATA, "cannot use '%s': tensor \"%s\" is of type %s",
				  file->path, tensor->name, found->dtype_text);
	return found;
}

/*
 * Every tensor is there with its shape, and no other: more adapters than the configuration
 * names, or an embedding that was trained along, would change what the adapter means.
 */
static int check_tensors(const struct lora *lora, const struct safetensors *file, bool *ours)
{
	for (int i = 0; i < lora->count; i++) {
		const struct safetensor *found = find_init(file, &lora->tensor[i]);

		if (!found)
			return -1;
		ours[found - file->tensor] = true;
	}
	for (int i = 0; i < file->count; i++)
		if (!ours[i])
			return error(EXIT_DATA,
				     "cannot use '%s': tensor \"%s\" belongs to none of "
				     "the adapter's target_modules (is it an adapter for "
				     "another model?)",
				     file->path, file->tensor[i].name);
	return 0;
}

static int check_init(const struct lora *lora)
{
	struct safetensors *file = open_init(lora);

	if (!file)
		return -1;
	bool *ours = xzalloc((size_t)file->count + 1, sizeof(*ours));
	int rc = check_tensors(lora, file, ours);
	free(ours);
	safetensors_close(file);
	return rc;
}

struct lora *lora_resolve(const struct model_config *config, const struct lora_config *want)
{
	struct lora *lora = xzalloc(1, sizeof(*lora));
	struct targets targets;

	targets_init(&targets, config, "lora.targets");
	size_t places = (size_t)config->blocks * (size_t)targets.rows;
	struct shapes shapes = {xzalloc(2 * places, sizeof(double)), NULL};
	shapes.alpha = shapes.rank + places;
	int rc = want->init ? resolve_init(lora, &targets, &shapes, want)
			    : resolve_job(lora, &targets, &shapes, want);
	if (rc == 0) {
		lora->fan_in_fan_out = config->family->gpt2;
		targets_names(&targets, &lora->arena, &lora->module, &lora->modules);
		lay_out(lora, &targets, &shapes);
	}
	free(shapes.rank);
	targets_release(&targets);
	if (rc == 0 && lora->init)
		rc = check_init(lora);
	if (rc == 0)
		return lora;
	lora_free(lora);
	return NULL;
}

void lora_range(const struct lora *lora, int first_block, int blocks, int *from, int *to)
{
	int i = 0;

	while (i < lora->count && lora->tensor[i].block < first_block)
		i++;
	*from = i;
	while (i < lora->count && lora->tensor[i].block < first_block + blocks)
		i++;
	*to = i;
}

static void add_numbers(struct text *text, const char *what, const struct module_numbers *numbers)
{
	for (int i = 0; i < numbers->count; i++)
		text_add(text, "%s%s %s=%.17g", text->bytes ? " " : "", what, numbers->item[i].key,
			 numbers->item[i].number);
}

const char *lora_patterns(const struct lora *lora, struct arena *arena)
{
	struct text text = {0};

	add_numbers(&text, "rank", &lora->ranks);
	add_numbers(&text, "alpha", &lora->alphas);
	const char *copy = arena_copy(arena, text.data ? text.data : "", text.bytes);
	text_release(&text);
	return copy;
}

/* -- values -------------------------------------------------------------------------------- */

/*
 * A as torch.nn.init.kaiming_uniform_(a = sqrt(5)) draws it: uniform in +-1/sqrt(in). Each
 * number is a function of the seed, the tensor's name and its place in the tensor.
 */
static void draw(float *values, const struct lora_tensor *tensor, uint64_t seed)
{
	struct digest name = digest_of(tensor->name, strlen(tensor->name));
	size_t count = (size_t)tensor->rows * (size_t)tensor->cols;
	float bound = (float)(1 / sqrt(tensor->cols));

	for (size_t i = 0; i < count; i += 4) {
		struct philox counter = {{(uint32_t)(i / 4), (uint32_t)(i / 4 >> 32),
					  (uint32_t)name.low, (uint32_t)(name.low >> 32)}};
		struct philox drawn = philox(counter, (uint32_t)seed, (uint32_t)(seed >> 32));

		for (size_t j = 0; j < 4 && i + j < count; j++)
			values[i + j] = bound * (2 * philox_unit(drawn.word[j]) - 1);
	}
}

static int load(const struct safetensors *file, float *values, const struct lora_tensor *tensor)
{
	const struct safetensor *found = find_init(file, tensor);
	size_t count = (size_t)tensor->rows * (size_t)tensor->cols;

	if (!found)
		return -1;
	convert_to_f32(values, found->data, found->dtype, count);
	for (size_t i = 0; i < count; i++)
		if (!isfinite(values[i]))
			return error(EXIT_DATA,
				     "cannot use '%s': number %zu of tensor \"%s\" is %f",
				     file->path, i, found->name, (double)values[i]);
	return 0;
}

int lora_values(const struct lora *lora, int from, int to, uint64_t seed, float *values)
{
	struct safetensors *file = lora->init ? open_init(lora) : NULL;
	int rc = lora->init && !file ? -1 : 0;

	for (int i = from; i < to && rc == 0; i++) {
		const struct lora_tensor *tensor = &lora->tensor[i];
		float *at = values + (tensor->offset - lora->tensor[from].offset);

		if (file)
			rc = load(file, at, tensor);
		else if (tensor->is_b)
			memset(at, 0,
			       (size_t)tensor->rows * (size_t)tensor->cols * sizeof(float));
		else
			draw(at, tensor, seed);
	}
	safetensors_close(file);
	return rc;
}

struct lora *lora_none(void)
{
	struct lora *lora = xzalloc(1, sizeof(*lora));

	lora->tensor = arena_take(&lora->arena, sizeof(*lora->tensor));
	return lora;
}

double lora_state_bytes(const struct lora *lora)
{
	return 2 * 3.0 * (double)lora->elements * sizeof(float);
}

void lora_free(struct lora *lora)
{
	if (!lora)
		return;
	arena_release(&lora->arena);
	free(lora);
}
