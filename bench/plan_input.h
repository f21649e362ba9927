/*
 * bench/plan_input.h - planning instances out of files: those that bench/plan_instances.py writes, in the form that is
 * described there, and topology files.
 */
#ifndef EDGEPIPE_BENCH_PLAN_INPUT_H
#define EDGEPIPE_BENCH_PLAN_INPUT_H

#include "launch/launch.h"
#include "partition/instance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NODES_MOST = 64, BLOCKS_MOST = 1024, NAME_ROOM = 128 };

/* -- chains -------------------------------------------------------------------------------- */

/* An instance, with what it points to. */
struct chain {
	struct instance in;
	char name[NAME_ROOM];
	double forward[BLOCKS_MOST + 1], backward[BLOCKS_MOST + 1];	/* prefix sums on a node of factor 1 */
	double weights[BLOCKS_MOST + 1], stored[BLOCKS_MOST + 1], cut[BLOCKS_MOST + 1];
	double memory[NODES_MOST], nothing[NODES_MOST];
	double node_forward[NODES_MOST * (BLOCKS_MOST + 1)], node_backward[NODES_MOST * (BLOCKS_MOST + 1)];
	double link_forward[NODES_MOST * NODES_MOST], link_backward[NODES_MOST * NODES_MOST];
	double latency_forward[NODES_MOST * NODES_MOST], latency_backward[NODES_MOST * NODES_MOST];
};

struct input {
	FILE *file;
	const char *path;
	char *line;
	size_t room;
	long number;
};

/* The next line; false at the end. */
static inline bool next_line(struct input *input)
{
	input->number++;
	return getline(&input->line, &input->room, input->file) > 0;
}

static inline int wrong(const struct input *input, const char *what)
{
	return error(EXIT_DATA, "%s:%ld: %s", input->path, input->number, what);
}

static inline int read_block(struct input *input, struct chain *c, int p)
{
	double forward, backward, weights, stored;

	if (!next_line(input) || sscanf(input->line, "block %lf %lf %lf %lf %lf", &forward, &backward, &weights, &stored,
					&c->cut[p]) != 5)
		return wrong(input, "no block");
	c->cut[p] = fmax(c->cut[p], 1);		/* times INFINITY, where nodes are not linked */
	c->forward[p + 1] = c->forward[p] + forward;
	c->backward[p + 1] = c->backward[p] + backward;
	c->weights[p + 1] = c->weights[p] + weights;
	c->stored[p + 1] = c->stored[p] + stored;
	return 0;
}

static inline int read_node(struct input *input, struct chain *c, int i)
{
	size_t at = (size_t)i * (size_t)(c->in.blocks + 1);
	double factor;

	if (!next_line(input) || sscanf(input->line, "node %lf %lf", &factor, &c->memory[i]) != 2)
		return wrong(input, "no node");
	for (int p = 0; p <= c->in.blocks; p++) {
		c->node_forward[at + (size_t)p] = c->forward[p] * factor;
		c->node_backward[at + (size_t)p] = c->backward[p] * factor;
	}
	return 0;
}

/* Of i before j: activations go from i to j, gradients back. */
static inline int take_link(const struct input *input, struct chain *c)
{
	int n = c->in.nodes, from, to;
	double seconds, latency;

	if (sscanf(input->line, "link %d %d %lf %lf", &from, &to, &seconds, &latency) != 4 || from < 0 || from >= n ||
	    to < 0 || to >= n)
		return wrong(input, "no link of two nodes");
	c->link_forward[from * n + to] = c->link_backward[to * n + from] = seconds;
	c->latency_forward[from * n + to] = c->latency_backward[to * n + from] = latency;
	return 0;
}

static inline void point(struct chain *c)
{
	struct instance *in = &c->in;

	in->forward_s = c->node_forward;
	in->backward_s = c->node_backward;
	in->first_forward_s = in->first_backward_s = in->last_forward_s = in->last_backward_s = c->nothing;
	in->cut_forward = in->cut_backward = c->cut;
	in->link_forward_s = c->link_forward;
	in->link_backward_s = c->link_backward;
	in->latency_forward_s = c->latency_forward;
	in->latency_backward_s = c->latency_backward;
	in->memory_bytes = c->memory;
	in->weights = c->weights;
	in->stored = c->stored;
}

/* The instance whose first line was read last; the line after it is read, too. 1, 0 at the end, -1 after an error. */
static inline int read_chain(struct input *input, struct chain *c, bool *more)
{
	int n, blocks, micro_batches, status = 0;

	if (!*more)
		return 0;
	*c = (struct chain){0};
	if (sscanf(input->line, "instance %127s %d %d %d", c->name, &n, &blocks, &micro_batches) != 4)
		return wrong(input, "no instance");
	if (n < 1 || n > NODES_MOST || blocks < 1 || blocks > BLOCKS_MOST || micro_batches < 1)
		return wrong(input, "too many nodes or blocks, or none");
	c->in = (struct instance){.nodes = n, .blocks = blocks, .micro_batches = micro_batches};
	for (int p = 0; p < blocks && !status; p++)
		status = read_block(input, c, p);
	for (int i = 0; i < n && !status; i++)
		status = read_node(input, c, i);
	for (int i = 0; i < n * n; i++)
		c->link_forward[i] = c->link_backward[i] = i / n == i % n ? 0 : INFINITY;
	while (!status && (*more = next_line(input)) && !strncmp(input->line, "link ", 5))
		status = take_link(input, c);
	point(c);
	return status ? -1 : 1;
}

/* -- topology files ------------------------------------------------------------------------ */

/* What is planned of a file: declared numbers alone, and memory where it is declared. */
struct declared {
	struct job job;
	struct model_config *model;
	struct lora *lora;
	int threads[NODES_MOST];
	double limit[NODES_MOST], overhead[NODES_MOST];
	struct problem problem;
	struct arena arena;
};

static inline const struct instance *instance_of_file(struct declared *d, const char *path)
{
	struct job *job = &d->job;
	int tokens;

	if (job_read(job, path, NULL, 0) || job_servers_only(job, "plan_table"))
		return NULL;
	if (job->cluster.nodes.count > NODES_MOST)
		return error_null(EXIT_CONFIG, "more than %d nodes", NODES_MOST);
	d->model = model_config_read(job->model);
	d->lora = d->model ? lora_resolve(d->model, &job->lora) : NULL;
	tokens = d->lora ? dataset_sequence(&job->data, d->model) : -1;
	if (tokens < 0)
		return NULL;
	for (int i = 0; i < job->cluster.nodes.count; i++) {
		d->threads[i] = 1;
		d->limit[i] = cluster_node(&job->cluster, i)->memory_bytes;
	}
	d->problem = (struct problem){
		.cluster = &job->cluster,
		.model = d->model,
		.lora = d->lora,
		.want = &job->plan,
		.batch = job->train.batch,
		.tokens = tokens,
		.slowdown = 1,
		.threads = d->threads,
		.memory_limit_bytes = d->limit,
		.overhead_bytes = d->overhead,
	};
	return instance_of(&d->arena, &d->problem, job->train.micro_batch > 0 ? (int)job->train.micro_batch : 1);
}

static inline void release(struct declared *d)
{
	arena_release(&d->arena);
	lora_free(d->lora);
	model_config_free(d->model);
	job_release(&d->job);
}

#endif
