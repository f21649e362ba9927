/* edgepipe compare: training time against hop count, simulated from declared numbers. */
#include "launch/compare.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* -- the setting --------------------------------------------------------------------------- */

/* Who serves and who is a client; servers compute at the rate that is achieved. */
static int part_nodes(struct comparison *c)
{
	const struct cluster *all = &c->job.cluster;
	size_t count = (size_t)all->nodes.count;
	struct node *server = arena_take(&c->arena, count * sizeof(*server));
	int silent = 0;

	c->node = arena_take(&c->arena, count * sizeof(*c->node));
	c->client = arena_take(&c->arena, count * sizeof(*c->client));
	c->servers = *all;
	c->servers.nodes = (struct list){server, 0};
	for (int i = 0; i < all->nodes.count; i++) {
		const struct node *node = cluster_node(all, i);

		if (node->compute_flops <= 0)
			silent += error(EXIT_CONFIG, "nodes[%d].compute: '%s' declares none, and compare has nothing else "
					"to go by", i, node->name);
		if (node->role == ROLE_CLIENT) {
			c->client[c->clients++] = i;
			continue;
		}
		server[c->servers.nodes.count] = *node;
		server[c->servers.nodes.count].compute_flops *= c->asked.efficiency;
		c->node[c->servers.nodes.count++] = i;
	}
	return silent ? -1 : 0;
}

static int open_model(struct comparison *c)
{
	c->model = model_config_read(c->job.model);
	if (!c->model)
		return -1;
	if (c->clients)
		c->client_blocks = (int)(c->job.plan.client_blocks ? c->job.plan.client_blocks : 1);
	if (c->client_blocks > c->model->blocks)
		return error(EXIT_CONFIG, "plan.client_blocks: %d blocks, but the model has %d", c->client_blocks,
			     c->model->blocks);
	c->rest = *c->model;
	c->rest.blocks -= c->client_blocks;
	if (c->rest.window)
		c->rest.window += c->client_blocks;
	c->lora = lora_resolve(&c->rest, &c->job.lora);
	c->tokens = c->lora ? dataset_sequence(&c->job.data, c->model) : -1;
	return c->tokens < 0 ? -1 : 0;
}

static void describe_servers(struct comparison *c)
{
	size_t servers = (size_t)c->servers.nodes.count;

	c->threads = arena_take(&c->arena, servers * sizeof(*c->threads));
	c->memory_limit_bytes = arena_take(&c->arena, servers * sizeof(double));
	c->overhead_bytes = arena_take(&c->arena, servers * sizeof(double));
	for (size_t i = 0; i < servers; i++) {
		const struct node *node = cluster_node(&c->servers, (int)i);

		c->threads[i] = node->cores > 0 ? (int)node->cores : 1;
		c->memory_limit_bytes[i] = node->memory_bytes;
		c->overhead_bytes[i] = PROCESS_BYTES + (i == 0 ? lora_state_bytes(c->lora) : 0);
	}
}

/* What takes its default from the file. */
static int settle_options(struct comparison *c)
{
	struct compare_options *o = &c->asked;
	const struct train_config *train = &c->job.train;
	int servers = c->servers.nodes.count, status = 0;

	if (o->hops_last > servers)
		status = error(EXIT_USAGE, "compare: --hops: %d, but the file has %d server%s", o->hops_last, servers,
			       servers == 1 ? "" : "s");
	if (!o->hops_first) {
		o->hops_first = 1;
		o->hops_last = servers < c->rest.blocks + 1 ? servers : c->rest.blocks + 1;
	}
	if (!o->schedules)
		o->schedule[o->schedules++] = o->split == SPLIT_FRACTIONAL ? "greedy" : c->job.plan.schedule;
	if (!o->sizes && train->batch % o->micro_batch)
		status = error(EXIT_USAGE, "compare: --micro-batch: %d does not divide train.batch %lld; say how many with "
			       "--micro-batches", o->micro_batch, train->batch);
	if (!o->sizes)
		o->micro_batches[o->sizes++] = (int)(train->batch / o->micro_batch);
	if (o->tokens <= 0 && !train->steps)
		status = error(EXIT_USAGE, "compare: --tokens is needed: train.epochs says nothing without the data");
	if (o->tokens <= 0)
		o->tokens = (double)train->steps * (double)train->batch * c->tokens;
	if (c->job.plan.stages)
		status = error(EXIT_CONFIG, "compare: plan.stages is what --hops varies; leave it out");
	if (c->job.plan.layers.count)
		status = error(EXIT_CONFIG, "compare: plan.layers places blocks by hand, for one number of hops; "
			       "leave it out");
	return status;
}

static int comparison_open(struct comparison *c)
{
	if (job_read(&c->job, c->asked.topology, c->asked.set, c->asked.set_count))
		return -1;
	if (job_trace_means(&c->job) || part_nodes(c) || open_model(c))
		return -1;
	describe_servers(c);
	c->slowdown = c->job.emulate.links || c->job.emulate.compute ? c->job.emulate.slowdown : 1;
	return settle_options(c);
}

static void comparison_close(struct comparison *c)
{
	free(c->asked.set);
	lora_free(c->lora);
	model_config_free(c->model);
	job_release(&c->job);
	arena_release(&c->arena);
}

/* -- the rows ------------------------------------------------------------------------------ */

static void list_rows(struct comparison *c)
{
	const struct compare_options *o = &c->asked;
	int hops = o->hops_last - o->hops_first + 1;

	c->row = arena_take(&c->arena, (size_t)(hops * o->codecs * o->schedules * o->sizes) * sizeof(*c->row));
	for (int h = o->hops_first; h <= o->hops_last; h++)
		for (int codec = 0; codec < o->codecs; codec++)
			for (int s = 0; s < o->schedules; s++)
				for (int size = 0; size < o->sizes; size++) {
					struct compare_row *row = &c->row[c->rows++];

					row->hops = h;
					row->of = (struct compare_case){o->codec[codec], o->schedule[s],
									o->micro_batches[size]};
				}
}

static int fill_rows(struct comparison *c)
{
	list_rows(c);
	c->best = -1;
	for (int i = 0; i < c->rows; i++) {
		const struct compare_row *row = &c->row[i];

		compare_row_fill(c, &c->row[i]);
		if (row->step_s > 0 && (c->best < 0 || row->total_s < c->row[c->best].total_s))
			c->best = i;
	}
	if (c->best < 0)
		return error(EXIT_CONFIG, "compare: no number of hops can run; with %d: %s", c->row[0].hops, c->row[0].why);
	return 0;
}

/* -- what is written ----------------------------------------------------------------------- */

static int write_file(const struct comparison *c, const char *path,
		      void (*write)(const struct comparison *c, struct text *text))
{
	struct text text = {0};
	int status = 0;

	if (!path)
		return 0;
	write(c, &text);
	if (!strcmp(path, "-"))
		fputs(text.data, stdout);
	else
		status = file_replace(path, text.data, text.bytes);
	text_release(&text);
	return status;
}

static bool on_stdout(const char *path)
{
	return path && !strcmp(path, "-");
}

static int write_all(const struct comparison *c)
{
	const struct compare_options *o = &c->asked;
	int status = write_file(c, o->json, compare_json) | write_file(c, o->csv, compare_csv) |
		     write_file(c, o->svg, compare_svg);

	if (!status && !on_stdout(o->json) && !on_stdout(o->csv) && !on_stdout(o->svg))
		status = write_file(c, "-", compare_table);
	if (fflush(stdout))
		status = error(EXIT_IO, "cannot write to standard output");
	return status;
}

int command_compare(int argc, char **argv)
{
	struct comparison *c = xzalloc(1, sizeof(*c));
	int status = compare_options_read(&c->asked, argc, argv);

	if (status > 0)
		fputs(compare_help, stdout);
	if (!status)
		status = comparison_open(c) || fill_rows(c) || write_all(c) ? -1 : 0;
	comparison_close(c);
	free(c);
	return status < 0 ? error_code() : 0;
}
