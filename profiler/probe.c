/*
 * profiler/probe.c - one size of one part of a model, ready to be run again and again.
 *
 * Data are random: zeros and repeated numbers are multiplied faster than real ones. Inputs are
 * as large as hidden states, gradients as small as gradients, and the adapters' B, which
 * training starts at zero, is not zero.
 */
#include "profiler/probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GRADIENT 1e-3f		/* scale of what comes back */
#define ADAPTER 0.02f
enum { NUMBERS = 1 << 16, TURNS = 2, BLOCKS = 2, UPDATES = 3 };

struct probe {
	const struct compute_spec *spec;
	enum part part;
	struct stage_spec shape;
	struct stage *stage;
	size_t elements;		/* of an input */
	int32_t *ids, *labels;
	float *number;			/* NUMBERS of about variance 1 */
	double forward_s, backward_s;	/* what ops are held to; 0: nothing */
	double deadline_s;		/* when the last held op ended, by its pace */
	int next;			/* micro-batch */
};

/* -- data ---------------------------------------------------------------------------------- */

static float *random_numbers(size_t count, uint32_t key)
{
	float *number = xalloc(count * sizeof *number);

	for (size_t i = 0; i < count; i++) {
		struct philox p =
		    philox((struct philox){{(uint32_t)i, (uint32_t)(i >> 32), 0, 0}}, key, 0);
		float sum = philox_unit(p.word[0]) + philox_unit(p.word[1]) +
			    philox_unit(p.word[2]) + philox_unit(p.word[3]);

		number[i] = (sum - 2) * 1.7320508f;
	}
	return number;
}

static int32_t *random_ids(size_t count, int vocabulary, uint32_t key)
{
	int32_t *id = xalloc(count * sizeof *id);

	for (size_t i = 0; i < count; i++) {
		struct philox p = philox((struct philox){{(uint32_t)i, 1, 0, 0}}, key, 0);

		id[i] = (int32_t)(p.word[0] % (uint32_t)vocabulary);
	}
	return id;
}

static void fill(const struct probe *probe, float *to, float scale)
{
	for (size_t i = 0; i < probe->elements; i++)
		to[i] = scale * probe->number[i % NUMBERS];
}

/* -- life ---------------------------------------------------------------------------------- */

int probe_parts(const struct compute_spec *spec, enum part part)
{
	if (part != PART_BLOCK)
		return 1;
	return spec->model->blocks < BLOCKS ? spec->model->blocks : BLOCKS;
}

static struct stage_spec shape_of(const struct compute_spec *spec, enum part part,
				  int sequences, int tokens)
{
	int blocks = part == PART_BLOCK ? probe_parts(spec, part) : 0;

	return (struct stage_spec){
	    .first_block =
		part == PART_HEAD ? spec->model->blocks : (spec->model->blocks - blocks) / 2,
	    .blocks = blocks,
	    .embedding = part == PART_EMBEDDING,
	    .head = part == PART_HEAD,
	    .sequences = sequences,
	    .tokens = tokens,
	    .slots = TURNS,
	    .edges = TURNS,
	    .dtype = spec->dtype,
	    .recompute = spec->recompute,
	    .plain = spec->plain,
	};
}

double probe_bytes(const struct compute_spec *spec, enum part part, int sequences, int tokens)
{
	struct stage_spec shape = shape_of(spec, part, sequences, tokens);

	return (double)stage_memory(spec->model, spec->weights, spec->lora, &shape,
				    pool_threads(spec->device->pool)).total;
}

/* As executor.c is told: see wire_spec. */
static void set_pace(struct probe *probe)
{
	const struct compute_spec *spec = probe->spec;
	double n = (double)probe->shape.sequences * probe->shape.tokens;
	double forward = model_block_forward_flops(spec->model, probe->shape.tokens);
	double both = model_block_flops(spec->model, probe->shape.tokens);
	double again =
	    model_block_again_flops(spec->model, probe->shape.tokens, spec->recompute);

	if (spec->pace_flops <= 0)
		return;
	probe->forward_s = probe->shape.blocks * forward * n / spec->pace_flops;
	probe->backward_s =
	    probe->shape.blocks * (both - forward + again) * n / spec->pace_flops;
	if (probe->shape.head)
		probe->forward_s += model_head_flops(spec->model) * n / spec->pace_flops;
}

static size_t adapter_elements(const struct compute_spec *spec, const struct stage_spec *shape)
{
	size_t elements = 0;
	int from, to;

	lora_range(spec->lora, shape->first_block, shape->blocks, &from, &to);
	for (int i = from; i < to; i++)
		elements +=
		    (size_t)spec->lora->tensor[i].rows * (size_t)spec->lora->tensor[i].cols;
	return elements;
}

struct probe *probe_open(const struct compute_spec *spec, enum part part, int sequences,
			 int tokens)
{
	struct probe *probe = xzalloc(1, sizeof *probe);
	size_t n = (size_t)sequences * (size_t)tokens, adapters;
	float *values;

	probe->spec = spec;
	probe->part = part;
	probe->shape = shape_of(spec, part, sequences, tokens);
	probe->elements = n * (size_t)spec->model->width;
	probe->number = random_numbers(NUMBERS, 1);
	probe->ids = random_ids(n, spec->model->vocabulary, 2);
	probe->labels = random_ids(n, spec->model->vocabulary, 3);
	adapters = adapter_elements(spec, &probe->shape);
	values = random_numbers(adapters + 1, 4);
	for (size_t i = 0; i < adapters; i++)
		values[i] *= ADAPTER;
	probe->stage = stage_open(spec->device, spec->model, spec->weights, spec->lora,
				  &probe->shape, values);
	free(values);
	set_pace(probe);
	probe->deadline_s = clock_s();
	if (probe->stage)
		return probe;
	probe_close(probe);
	return NULL;
}

void probe_close(struct probe *probe)
{
	if (!probe)
		return;
	stage_close(probe->stage);
	free(probe->number);
	free(probe->ids);
	free(probe->labels);
	free(probe);
}

/* -- runs ---------------------------------------------------------------------------------- */

/* Holds an op to its declared time, from where the one before it ended by its own. */
static void hold(double *deadline_s, double declared_s)
{
	double now = clock_s();

	if (declared_s <= 0)
		return;
	*deadline_s += declared_s;
	if (*deadline_s > now)
		clock_sleep(*deadline_s - now);
}

/* What others would have sent. It takes time that no op takes. */
static void provide(struct probe *probe, float *to, float scale)
{
	double start = clock_s();

	fill(probe, to, scale);
	probe->deadline_s += clock_s() - start;
}

void probe_run(struct probe *probe, double *forward_s, double *backward_s)
{
	int m = probe->next++;
	double n = (double)probe->shape.sequences * probe->shape.tokens, loss = 0, start;
	struct micro_batch micro = {
		.step = 1,
		.first_sample = (uint32_t)(m * probe->shape.sequences),
		.ids = probe->ids,
		.labels = probe->labels,
		.loss_scale = (float)(1 / n),
		.train = true,
	};

	if (probe->part != PART_EMBEDDING)
		provide(probe, stage_input(probe->stage, m), 1);
	start = clock_s();
	stage_forward(probe->stage, m, &micro, &loss);
	hold(&probe->deadline_s, probe->forward_s);
	*forward_s = clock_s() - start;
	if (probe->part != PART_HEAD)
		provide(probe, stage_edge(probe->stage, m), GRADIENT);
	start = clock_s();
	stage_backward(probe->stage, m, &micro);
	hold(&probe->deadline_s, probe->backward_s);
	*backward_s = clock_s() - start;
}

double probe_update(struct probe *probe)
{
	struct adamw settings = {.learning_rate = 1e-6,
				 .beta1 = 0.9,
				 .beta2 = 0.999,
				 .epsilon = 1e-8,
				 .weight_decay = 0.01,
				 .grad_scale = 1,
				 .step = 1};
	double least = INFINITY;

	for (int i = 0; i < UPDATES; i++) {
		double start = clock_s();

		stage_update(probe->stage, &settings);
		settings.step++;
		least = fmin(least, clock_s() - start);
	}
	return least;
}

/* -- a product ----------------------------------------------------------------------------- */

enum { ROWS = 256, COLUMNS = 1024, PRODUCTS_MOST = 50 };
#define PRODUCTS_S 0.1

/* Numbers of the precision that trains, in the place of floats. */
static void round_numbers(float *number, size_t count, enum dtype dtype)
{
	for (size_t i = 0; dtype == DTYPE_BF16 && i < count; i++) {
		uint16_t half = bf16_of(number[i]);

		memcpy((uint16_t *)number + i, &half, sizeof half);
	}
}

/* (ROWS, COLUMNS) x (COLUMNS, COLUMNS), as a linear of the model: with packed weights where
 * training has them. */
struct probe_product {
	struct matrix c, a, w;
	void *memory;
};

static int product_open(const struct compute_spec *spec, struct probe_product *p)
{
	struct device *dev = spec->device;
	enum dtype dtype = spec->dtype;
	size_t a = (size_t)ROWS * COLUMNS, b = (size_t)COLUMNS * COLUMNS,
	       one = dtype_bytes(dtype);
	bool packs = dtype == DTYPE_BF16 && !spec->plain;
	size_t packed = packs ? dev->k.packed_bytes(COLUMNS, COLUMNS) : 0;
	float *number;
	char *at = p->memory = dev->alloc(dev, 2 * a * one + (packed ? packed : b * one));

	if (!at)
		return -1;
	number = random_numbers(a + b, 5);
	round_numbers(number, a + b, dtype);
	p->c = matrix_of(dtype, at, ROWS, COLUMNS);
	p->a = matrix_of(dtype, at + a * one, ROWS, COLUMNS);
	p->w = matrix_of(dtype, at + 2 * a * one, COLUMNS, COLUMNS);
	dev->upload(dev, p->a.data, number, a * one);
	if (packed) {
		p->w.ld = 0;
		dev->k.pack(dev, p->w, 0, 0,
			    matrix_of(dtype, (char *)number + a * one, COLUMNS, COLUMNS),
			    false);
	} else {
		dev->upload(dev, p->w.data, (char *)number + a * one, b * one);
	}
	free(number);
	return 0;
}

double probe_matmul(const struct compute_spec *spec)
{
	struct device *dev = spec->device;
	double flops = 2.0 * ROWS * COLUMNS * COLUMNS, start, deadline;
	struct probe_product p = {0};
	struct matrix none = {0};
	int products = 0;

	if (product_open(spec, &p))
		return 0;
	dev->k.linear(dev, p.c, p.a, p.w, false, none, 0); /* makes it ready */
	start = deadline = clock_s();
	do {
		dev->k.linear(dev, p.c, p.a, p.w, false, none, 0);
		hold(&deadline, spec->pace_flops > 0 ? flops / spec->pace_flops : 0);
		products++;
	} while (products < PRODUCTS_MOST && clock_s() - start < PRODUCTS_S);
	dev->free(dev, p.memory);
	return flops * products / (clock_s() - start);
}
