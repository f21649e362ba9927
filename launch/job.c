/*
 * job.c - a topology file as a whole: read through the table, then the checks that span several
 * keys.
 *
 * The checks also run where the table found errors, so that one look at the messages mends the
 * file; they skip what an error was reported about. Links are checked by sorting: a file of 4
 * MiB may hold 100,000.
 */
#include "launch/launch.h"

#include <stdlib.h>
#include <string.h>

enum { HINTS = 50 };	/* errors after which no nearest word is looked for */

/* Nodes by name, for the checks. */
struct named { const char *name; int index; };
struct names {
	struct named *item;
	const char **word;	/* the names alone, for nearest_word */
	int count;
	bool complete;		/* every node has one: a name that is not here is wrong */
};

/* "links.between.3.nodes" in a buffer. */
struct path { char text[80]; };

static struct path path_of(const char *list, int index, const char *key)
{
	struct path path;

	snprintf(path.text, sizeof path.text, "%s.%d%s%s", list, index, key[0] ? "." : "", key);
	return path;
}

static bool given(const struct job *job, const char *path)
{
	return config_given(&job->config, path);
}

static bool sound(const struct job *job, const char *path)
{
	return config_sound(&job->config, path);
}

/* -- nodes --------------------------------------------------------------------------------- */

static int compare_named(const void *a, const void *b)
{
	const struct named *one = a, *two = b;
	int by_name = strcmp(one->name, two->name);

	return by_name ? by_name : one->index - two->index;
}

/* The index of a name, or -1. */
static int find_node(const struct names *names, const char *name)
{
	int low = 0, high = names->count;

	while (low < high) {
		int middle = low + (high - low) / 2;

		if (strcmp(names->item[middle].name, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == names->count || strcmp(names->item[low].name, name) != 0)
		return -1;
	return names->item[low].index;
}

static void names_make(struct names *names, const struct cluster *cluster)
{
	int count = cluster->nodes.count;

	names->item = xzalloc((size_t)count, sizeof *names->item);
	names->word = xzalloc((size_t)count, sizeof *names->word);
	names->count = 0;
	for (int i = 0; i < count; i++) {
		const char *name = cluster_node(cluster, i)->name;

		if (!name)
			continue;
		names->word[names->count] = name;
		names->item[names->count++] = (struct named){ name, i };
	}
	qsort(names->item, (size_t)names->count, sizeof *names->item, compare_named);
	names->complete = count > 0 && names->count == count;
}

static void names_release(struct names *names)
{
	free(names->item);
	free(names->word);
}

static void check_names(struct job *job, const struct names *names)
{
	const struct named *first = names->item;

	for (int i = 1; i < names->count; i++) {
		const struct named *node = &names->item[i];
		struct path path = path_of("nodes", node->index, "name");
		int line;

		if (strcmp(first->name, node->name) != 0) {
			first = node;
			continue;
		}
		line = config_line(&job->config, path_of("nodes", first->index, "name").text);
		if (line)
			config_error(&job->config, path.text,
				     "duplicate node name \"%s\" (first at line %d)",
				     node->name, line);
		else
			config_error(&job->config, path.text,
				     "duplicate node name \"%s\" (nodes[%d] has it)",
				     node->name, first->index);
	}
}

/* The CPU, or cuda:N, which is to come. */
static void check_device(struct job *job, int index)
{
	const char *device = cluster_node(&job->cluster, index)->device;
	struct path path = path_of("nodes", index, "device");
	bool cuda = device && strncmp(device, "cuda:", 5) == 0 && device[5] != '\0' &&
		    device[5 + strspn(device + 5, "0123456789")] == '\0';

	if (!device || strcmp(device, "cpu") == 0)
		return;
	if (cuda)
		config_error(&job->config, path.text, "\"%s\" is not built yet (built: cpu)", device);
	else
		config_error(&job->config, path.text, "\"%s\" is no device (cpu or cuda:N)", device);
}

static void check_nodes(struct job *job, const struct names *names)
{
	if (job->cluster.nodes.count == 0 && given(job, "nodes"))
		config_error(&job->config, "nodes", "there must be at least one");
	check_names(job, names);
	for (int i = 0; i < job->cluster.nodes.count; i++)
		check_device(job, i);
	if (job->cluster.name && strchr(job->cluster.name, '/'))
		config_error(&job->config, "name",
			     "it names a folder, so it cannot hold a slash");
}

/* Clients feed servers; what they hold is theirs alone. */
static void check_clients(struct job *job)
{
	int clients = 0, nodes = job->cluster.nodes.count;

	for (int i = 0; i < nodes; i++)
		clients += cluster_node(&job->cluster, i)->role == ROLE_CLIENT;
	if (clients && clients == nodes)
		config_error(&job->config, "nodes", "all are clients, there must be at least one server");
	if (!clients && job->plan.client_blocks && sound(job, "nodes"))
		config_error(&job->config, "plan.client_blocks", "no node has role: client");
}

/* -- links --------------------------------------------------------------------------------- */

/* One entry of links.between that is sound in itself. For both directions a < b. */
struct pair { bool both; int a, b, index; };

static int compare_ends(const struct pair *one, const struct pair *two)
{
	if (one->both != two->both)
		return one->both - two->both;
	return one->a != two->a ? one->a - two->a : one->b - two->b;
}

static int compare_pairs(const void *a, const void *b)
{
	const struct pair *one = a, *two = b;
	int by_ends = compare_ends(one, two);

	return by_ends ? by_ends : one->index - two->index;
}

/* The index of a node that a link names; -1 where there is none, which is an error if all nodes
 * could be read. */
static int link_end(struct job *job, const struct names *names, const char *name,
		    const char *path)
{
	int index = find_node(names, name);
	const char *near = NULL;

	if (index >= 0 || !names->complete)
		return index;
	if (config_errors(&job->config) < HINTS)
		near = nearest_word(name, names->word, names->count);
	if (near)
		config_error(&job->config, path,
			     "there is no node \"%s\" (did you mean \"%s\"?)", name, near);
	else
		config_error(&job->config, path, "there is no node \"%s\"", name);
	return -1;
}

/* Which form an entry has: its two names and where they stand; -1 after an error. */
static int link_names(struct job *job, const struct link *link, int index, const char *name[2],
		      struct path path[2])
{
	struct path whole = path_of("links.between", index, "");
	struct path nodes = path_of("links.between", index, "nodes");

	if (link->nodes.count && (link->from || link->to)) {
		config_error(&job->config, nodes.text, "takes the place of from and to");
		return -1;
	}
	if (link->from || link->to) {
		name[0] = link->from;
		name[1] = link->to;
		path[0] = path_of("links.between", index, "from");
		path[1] = path_of("links.between", index, "to");
		if (link->from && link->to)
			return 0;
		config_error(&job->config, whole.text, "has %s without %s",
			     link->from ? "from" : "to", link->from ? "to" : "from");
		return -1;
	}
	if (!given(job, nodes.text)) {
		config_error(&job->config, whole.text, "needs nodes: [a, b], or from and to");
		return -1;
	}
	if (link->nodes.count != 2) {
		config_error(&job->config, nodes.text, "must name two nodes, not %d",
			     link->nodes.count);
		return -1;
	}
	for (int i = 0; i < 2; i++) {
		char key[24];

		snprintf(key, sizeof key, "nodes.%d", i);
		name[i] = link->nodes.item[i];
		path[i] = path_of("links.between", index, key);
	}
	return 0;
}

/* Checks one entry; true, and its ends in *pair, where nothing is wrong with them. */
static bool check_link(struct job *job, const struct names *names, int index, struct pair *pair)
{
	const struct link *link = (const struct link *)job->cluster.links.item + index;
	const char *keys[] = { "nodes", "from", "to" }, *name[2];
	struct path path[2];
	int end[2];

	for (int i = 0; i < 3; i++)
		if (!sound(job, path_of("links.between", index, keys[i]).text))
			return false;
	if (link_names(job, link, index, name, path) < 0)
		return false;
	for (int i = 0; i < 2; i++)
		end[i] = link_end(job, names, name[i], path[i].text);
	if (end[0] < 0 || end[1] < 0)
		return false;
	if (end[0] == end[1]) {
		config_error(&job->config, path[1].text,
			     "a link joins two nodes, not \"%s\" to itself", name[0]);
		return false;
	}
	pair->both = !link->from;
	pair->index = index;
	pair->a = pair->both && end[0] > end[1] ? end[1] : end[0];
	pair->b = pair->both && end[0] > end[1] ? end[0] : end[1];
	return true;
}

/* One direction may be set apart from a link given for both; the same form twice is a slip. */
static void check_links(struct job *job, const struct names *names)
{
	int count = job->cluster.links.count, pairs = 0;
	struct pair *pair = xzalloc((size_t)count, sizeof *pair);
	const struct pair *first = pair;

	for (int i = 0; i < count; i++)
		pairs += check_link(job, names, i, &pair[pairs]);
	qsort(pair, (size_t)pairs, sizeof *pair, compare_pairs);
	for (int i = 1; i < pairs; i++) {
		if (compare_ends(first, &pair[i]) != 0) {
			first = &pair[i];
			continue;
		}
		config_error(&job->config, path_of("links.between", pair[i].index, "").text,
			     "the link %s %s %s is given twice (first as links.between[%d])",
			     cluster_node(&job->cluster, first->a)->name,
			     first->both ? "-" : "->",
			     cluster_node(&job->cluster, first->b)->name, first->index);
	}
	free(pair);
}

static void check_traces(struct job *job)
{
	const struct link *link = job->cluster.links.item;

	for (int i = 0; i < job->cluster.links.count; i++) {
		struct path path = path_of("links.between", i, "trace");

		if (link[i].trace && link[i].bandwidth_given)
			config_error(&job->config, path.text, "takes the place of bandwidth");
		else if (link[i].trace && !job->emulate.links)
			config_error(&job->config, path.text,
				     "a trace is followed with emulate.links: true only");
	}
}

/* -- training ------------------------------------------------------------------------------ */

static void check_lora(struct job *job)
{
	struct lora_config *lora = &job->lora;

	if (lora->dropout >= 1)
		config_error(&job->config, "lora.dropout", "must be below 1");
	if (lora->targets.count == 0 && sound(job, "lora.targets"))
		config_error(&job->config, "lora.targets", "names no module");
}

static void check_betas(struct job *job)
{
	const struct numbers *betas = &job->train.betas;

	if (!sound(job, "train.betas"))
		return;
	if (betas->count != 2) {
		config_error(&job->config, "train.betas", "must be two numbers, not %d",
			     betas->count);
		return;
	}
	for (int i = 0; i < 2; i++)
		if (betas->item[i] >= 1)
			config_error(&job->config, path_of("train.betas", i, "").text,
				     "must be below 1");
}

static void check_train(struct job *job)
{
	struct train_config *train = &job->train;
	bool both = sound(job, "train.batch") && sound(job, "train.micro_batch");

	if (both && train->micro_batch && train->batch % train->micro_batch != 0)
		config_error(&job->config, "train.micro_batch",
			     "%lld does not divide train.batch (%lld)", train->micro_batch,
			     train->batch);
	if (given(job, "train.epochs")) {
		if (given(job, "train.steps"))
			config_error(&job->config, "train.epochs",
				     "takes the place of train.steps: give one of the two");
		else if (sound(job, "train.epochs") && train->epochs == 0)
			config_error(&job->config, "train.epochs", "must be above 0");
		train->steps = 0;
	}
	if (train->precision == PRECISION_BF16 && (train->kernels == KERNELS_REFERENCE ||
						    train->kernels == KERNELS_OPENBLAS))
		config_error(&job->config, "train.kernels",
			     "multiplies fp32 alone, but train.precision is bf16 (auto and onednn "
			     "multiply both)");
	check_betas(job);
}

/* One codec a cut. */
static void check_cuts(struct job *job)
{
	const struct plan_cut *cut = job->plan.cuts.item;

	for (int i = 1; i < job->plan.cuts.count; i++) {
		struct path path = path_of("plan.cuts", i, "after_block");
		int first = 0;

		while (cut[first].after_block != cut[i].after_block)
			first++;
		if (first < i && sound(job, path.text) &&
		    sound(job, path_of("plan.cuts", first, "after_block").text))
			config_error(&job->config, path.text,
				     "block %lld has a codec already (plan.cuts[%d])",
				     cut[i].after_block, first);
	}
}

/* Declared numbers are needed to hold anything to them. */
static void check_emulate(struct job *job)
{
	for (int i = 0; job->emulate.compute && i < job->cluster.nodes.count; i++)
		if (cluster_node(&job->cluster, i)->compute_flops <= 0 &&
		    sound(job, path_of("nodes", i, "compute").text))
			config_error(&job->config, "emulate.compute",
				     "nodes[%d] declares no compute to be held to", i);
}

/* -- the plan ------------------------------------------------------------------------------ */

/* Blocks on a node by hand: a number, -1 for "out", -2 for neither. */
static int layer_of(const char *text)
{
	size_t digits = strspn(text, "0123456789");

	if (strcmp(text, "out") == 0)
		return -1;
	if (digits == 0 || digits > 6 || text[digits] != '\0')
		return -2;
	return (int)strtol(text, NULL, 10);
}

/* Checks the entries of plan.layers; returns how many nodes have a stage, -1 after an error. */
static int check_entries(struct job *job)
{
	const struct texts *layers = &job->plan.layers;
	int stages = 0, last = -1, errors = config_errors(&job->config);

	for (int i = 0; i < layers->count; i++) {
		if (layer_of(layers->item[i]) == -2)
			config_error(&job->config, path_of("plan.layers", i, "").text,
				     "\"%s\" is neither a number of blocks nor out",
				     layers->item[i]);
		if (layer_of(layers->item[i]) != -1) {
			last = i;
			stages++;
		}
	}
	for (int i = 0; i < last; i++)
		if (layer_of(layers->item[i]) == 0)
			config_error(&job->config, path_of("plan.layers", i, "").text,
				     "only the last stage can be without a block (head alone)");
	if (stages == 0)
		config_error(&job->config, "plan.layers", "leaves all nodes out");
	return config_errors(&job->config) > errors ? -1 : stages;
}

static void check_plan(struct job *job)
{
	const struct plan_config *plan = &job->plan;
	int nodes = job->cluster.nodes.count, stages;

	if (plan->stages > nodes && sound(job, "nodes") && nodes)
		config_error(&job->config, "plan.stages",
			     "%lld stages need as many nodes, there %s %d", plan->stages,
			     nodes == 1 ? "is" : "are", nodes);
	if (!given(job, "plan.layers") || !sound(job, "plan.layers"))
		return;
	stages = check_entries(job);
	if (plan->layers.count != nodes && sound(job, "nodes") && nodes)
		config_error(&job->config, "plan.layers", "has %d entries for %d node%s",
			     plan->layers.count, nodes, nodes == 1 ? "" : "s");
	else if (stages > 0 && plan->stages && plan->stages != stages)
		config_error(&job->config, "plan.stages",
			     "plan.layers has %d stage%s, not %lld", stages,
			     stages == 1 ? "" : "s", plan->stages);
}

/* -- the whole ----------------------------------------------------------------------------- */

/* The file's name without folder and ending, as the cluster's name. */
static char *name_of_file(struct arena *arena, const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	const char *dot = strrchr(name, '.');
	size_t bytes = strlen(name);

	if (dot && dot > name && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0))
		bytes = (size_t)(dot - name);
	return arena_copy(arena, name, bytes);
}

int job_read(struct job *job, const char *path, const char *const *overrides, int count)
{
	struct names names;

	memset(job, 0, sizeof *job);
	if (config_read(&job->config, &job_schema, job, path, overrides, count) < 0 &&
	    !job->config.root)
		return -1;
	if (!job->cluster.name)
		job->cluster.name = name_of_file(&job->config.arena, path);
	names_make(&names, &job->cluster);
	check_nodes(job, &names);
	check_links(job, &names);
	check_traces(job);
	names_release(&names);
	check_lora(job);
	job_check_data(job);
	check_train(job);
	check_plan(job);
	check_clients(job);
	check_cuts(job);
	check_emulate(job);
	return config_errors(&job->config) ? -1 : 0;
}

void job_release(struct job *job)
{
	config_release(&job->config);
}
