/* The phases between the command line and the first step. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launch/readme.h"
#include "launch/session.h"

/* -- job ----------------------------------------------------------------------------------- */

/* How this file should have been started; the arena owns it. */
static const char *right_command(struct session *s, int nodes)
{
	if (nodes == 1)
		return arena_format(&s->arena, "edgepipe %s %s", s->options.command, s->options.topology);
	return arena_format(&s->arena, "mpirun -np %d%s edgepipe %s %s", nodes,
			    nodes == 2 ? " --bind-to none" : "", s->options.command, s->options.topology);
}

static int check_ranks(struct session *s)
{
	int nodes = s->job.cluster.nodes.count, ranks = s->comm->size;

	if (nodes == ranks)
		return 0;
	return error(EXIT_CONFIG, "'%s' has %d node%s, but %d rank%s started: run it as\n    %s",
		     s->options.topology, nodes, nodes == 1 ? "" : "s", ranks,
		     ranks == 1 ? " was" : "s were", right_command(s, nodes));
}

int setup_job(struct session *s)
{
	int status = job_read(&s->job, s->options.topology, s->options.set, s->options.set_count);

	if (!status)
		inference_alone(s);
	if (!status && !s->job.data.train && !strcmp(s->options.command, "train"))
		config_error(&s->job.config, "data.train", "missing, and there is nothing to train on without it");
	if (!status && !strcmp(s->options.command, "eval") && !inference_data(s))
		config_error(&s->job.config, "data.valid", "missing, and --data FILE was not given");
	if (!status && job_servers_only(&s->job, session_trains(s) ? "train" : s->options.command))
		status = -1;
	if (!status && error_code())
		status = -1;
	if (!status)
		status = check_ranks(s);
	if (!status)
		status = wire_traces(s);
	if (!status && s->options.resume && !s->options.out && !s->job.out)
		status = error(EXIT_USAGE, "train: --resume needs --out (or `out` in the file)");
	return session_agree(s, status);
}

/* -- model --------------------------------------------------------------------------------- */

static const struct node *own_node(const struct session *s)
{
	return cluster_node(&s->job.cluster, s->comm->rank);
}

/* What comes from the adapter that lora.init names is the job's from here on: the resolved file must say the same. */
static void take_adapter(struct lora_config *want, const struct lora *lora)
{
	if (!want->init)
		return;
	want->rank = lora->rank;
	want->alpha = lora->alpha;
	want->dropout = lora->dropout;
	want->rslora = lora->rslora;
	want->targets = (struct texts){lora->module, lora->modules};
}

static int open_model(struct session *s)
{
	const char *folder = own_node(s)->model ? own_node(s)->model : s->job.model;

	s->model = model_config_read(folder);
	if (!s->model)
		return -1;
	s->weights = weights_open(s->model);
	if (!s->weights)
		return -1;
	s->lora = session_trains(s) ? lora_resolve(s->model, &s->job.lora) : inference_lora(s);
	if (!s->lora)
		return -1;
	if (session_trains(s))
		take_adapter(&s->job.lora, s->lora);
	return 0;
}

/* The topology file's bytes and the options: paths may resolve differently on every node. */
static void add_option(struct digest_state *state, const char *value)
{
	digest_add(state, value ? value : "", value ? strlen(value) + 1 : 1);
}

static int configuration_digest(const struct session *s, struct digest *digest)
{
	struct digest_state *state;
	size_t bytes;
	char *data = file_read(s->options.topology, &bytes);

	if (!data)
		return -1;
	state = digest_open();
	digest_add(state, data, bytes);
	for (int i = 0; i < s->options.set_count; i++)
		digest_add(state, s->options.set[i], strlen(s->options.set[i]) + 1);
	add_option(state, s->options.out);
	add_option(state, s->options.dump);
	add_option(state, s->options.plan);
	add_option(state, s->options.profile);
	add_option(state, s->options.adapter);
	add_option(state, s->options.data);
	add_option(state, s->options.resume ? "resume" : NULL);
	add_option(state, s->options.overwrite ? "overwrite" : NULL);
	add_option(state, s->options.profile_ops ? "profile-ops" : NULL);
	*digest = digest_close(state);
	free(data);
	return 0;
}

static int own_facts(const struct session *s, struct rank_facts *facts)
{
	const struct node *node = own_node(s);
	struct text version = {0};

	memset(facts, 0, sizeof(*facts));
	if (hardware_read(&facts->hardware) || configuration_digest(s, &facts->configuration) ||
	    digest_file("/proc/self/exe", &facts->build))
		return -1;
	build_write(&version);
	snprintf(facts->build_text, sizeof(facts->build_text), "%s", version.data);
	text_release(&version);
	cpu_describe(facts->blas, sizeof(facts->blas));
	facts->dtype = job_dtype(&s->job);
	facts->model = s->model->digest;
	facts->headers = s->weights->digest;
	facts->pid = getpid();
	facts->memory_declared = node->memory_bytes > 0;
	facts->memory_limit_bytes =
		facts->memory_declared ? node->memory_bytes : facts->hardware.memory_free_bytes;
	return 0;
}

/* Ranks on one host divide its usable cores, at least one each, unless the node declares its own. Free memory is
 * divided alike where it is not declared. */
static void divide_hosts(struct session *s)
{
	for (int i = 0; i < s->comm->size; i++) {
		struct rank_facts *f = &s->facts[i];
		long long declared = cluster_node(&s->job.cluster, i)->cores;
		int sharing = 0;

		for (int j = 0; j < s->comm->size; j++)
			sharing += !strcmp(s->facts[j].hardware.host, f->hardware.host);
		f->threads = f->hardware.cores / sharing;
		f->threads = declared > 0 ? (int)declared : f->threads < 1 ? 1 : f->threads;
		if (!f->memory_declared)
			f->memory_limit_bytes /= sharing;
		if (i == s->comm->rank && f->threads > f->hardware.cores)
			warn("node \"%s\" declares %d cores, %d are usable",
			     cluster_node(&s->job.cluster, i)->name, f->threads, f->hardware.cores);
	}
}

int setup_model(struct session *s)
{
	struct rank_facts mine;
	int status = open_model(s), code;

	if (!status)
		status = own_facts(s, &mine);
	code = session_agree(s, status);
	if (code)
		return code;
	s->facts = xzalloc((size_t)s->comm->size, sizeof(*s->facts));
	if (session_exchange(s, &mine))
		return EXIT_RETRY;
	divide_hosts(s);
	return session_agree(s, session_compare(s));
}

/* -- data ---------------------------------------------------------------------------------- */

/* Of a set, where its sequences are to be packed. The number of sequences goes to *samples. */
static struct packing *open_packing(struct session *s, const struct dataset *set, bool shuffle,
				    unsigned long long *samples)
{
	struct packing *packing;
	struct packing_facts facts;

	*samples = set ? set->samples : 0;
	if (!set || !dataset_packs(&s->job.data, s->train ? s->train->path : set->path))
		return NULL;
	packing = packing_open(set, (uint64_t)s->job.train.seed, shuffle);
	facts = packing_facts(packing);
	*samples = facts.rows;
	if (facts.most + 1 > s->data.segments)
		s->data.segments = facts.most + 1;	/* and padding */
	return packing;
}

/* What eval reads takes the place of training data: nothing else is read. */
static int open_evaluated(struct session *s)
{
	s->valid = dataset_open(inference_data(s), "valid", &s->job.data, s->model);
	if (!s->valid)
		return -1;
	s->data.tokens = s->valid->tokens;
	s->valid_packing = open_packing(s, s->valid, false, &s->data.valid_samples);
	return 0;
}

static int open_data(struct session *s)
{
	struct data_config *data = &s->job.data;

	s->train = dataset_open(data->train, "train", data, s->model);
	if (!s->train)
		return -1;
	if (data->valid) {
		struct data_config same = *data;

		same.sequence = s->train->tokens;
		s->valid = dataset_open(data->valid, "valid", &same, s->model);
		if (!s->valid)
			return -1;
	}
	if (data->pack_given && !data->pack && dataset_is_text(s->train->path))
		return error(EXIT_CONFIG, "data.pack: false is not for plain text ('%s'), which is one stream: it "
			     "is cut into sequences", s->train->path);
	s->data.tokens = s->train->tokens;
	s->packing = open_packing(s, s->train, data->shuffle, &s->data.train_samples);
	s->valid_packing = open_packing(s, s->valid, false, &s->data.valid_samples);
	return 0;
}

/* `steps`, or `epochs` times the batches of an epoch, rounded up. */
static long long total_steps(const struct session *s)
{
	const struct train_config *t = &s->job.train;

	if (t->epochs > 0)
		return (long long)ceil(t->epochs * (double)s->data.train_samples /
				       (double)t->batch * (1 - 1e-9));
	return t->steps;
}

int setup_data(struct session *s)
{
	bool trains = session_trains(s);
	int status = s->comm->rank != 0 ? 0 : trains ? open_data(s) : open_evaluated(s), code;

	if (s->comm->rank == 0 && !status && trains) {
		s->data.steps = total_steps(s);
		s->samples = readme_samples(s->train, s->model->folder);
	}
	code = session_agree(s, status);
	if (code)
		return code;
	if (comm_broadcast(s->comm, 0, &s->data, sizeof(s->data)))
		return EXIT_RETRY;
	return setup_warm(s);
}

/* -- plan ---------------------------------------------------------------------------------- */

static long long most_micro_batches(const struct session *s)
{
	const struct train_config *train = &s->job.train;

	return train->micro_batch > 0 ? train->batch / train->micro_batch : train->batch;
}

/* What a loop over batches keeps besides a stage. */
static double loop_bytes(const struct session *s, bool zero)
{
	return (zero ? lora_state_bytes(s->lora) : 0) + feed_segments_bytes(s->job.train.batch, s->data.segments, zero) +
	       trace_bytes(s->job.train.trace, most_micro_batches(s), zero ? s->comm->size : 0);
}

static void make_problem(struct session *s)
{
	size_t ranks = (size_t)s->comm->size;

	s->threads = arena_take(&s->arena, ranks * sizeof(*s->threads));
	s->dtypes = arena_take(&s->arena, ranks * sizeof(*s->dtypes));
	s->memory_limit_bytes = arena_take(&s->arena, ranks * sizeof(double));
	s->overhead_bytes = arena_take(&s->arena, ranks * sizeof(double));
	for (size_t i = 0; i < ranks; i++) {
		s->threads[i] = s->facts[i].threads;
		s->dtypes[i] = s->facts[i].dtype;
		s->memory_limit_bytes[i] = s->facts[i].memory_limit_bytes;
		s->overhead_bytes[i] = s->facts[i].overhead_bytes + (s->generation ? i == 0 ? s->generation->told_bytes : 0 : loop_bytes(s, i == 0));
	}
	s->problem = (struct problem){
		.cluster = &s->job.cluster,
		.profile = s->profile,
		.model = s->model,
		.weights = s->weights,
		.lora = s->lora,
		.want = &s->job.plan,
		.batch = s->job.train.batch,
		.micro_batch = s->job.train.micro_batch,
		.recompute = (enum recompute)s->job.train.recompute,
		.tokens = s->data.tokens,
		.slowdown = s->job.emulate.links || s->job.emulate.compute
				    ? s->job.emulate.slowdown : 1,
		.links_emulated = s->job.emulate.links,
		.threads = s->threads,
		.dtypes = s->dtypes,
		.plain = s->job.train.weights == WEIGHTS_PLAIN,
		.packed = s->data.segments > 0,
		.generation = s->generation,
		.memory_limit_bytes = s->memory_limit_bytes,
		.overhead_bytes = s->overhead_bytes,
	};
}

/* On resume, an automatic micro-batch stays what it was, so that the bits do. */
static void keep_micro_batch(struct session *s)
{
	const char *run = s->options.out ? s->options.out : s->job.out;
	char value[32];

	if (!s->options.resume || s->problem.micro_batch > 0)
		return;
	if (checkpoint_said(run, "circumstance", "micro_batch", value, sizeof(value)))
		s->problem.micro_batch = strtoll(value, NULL, 10);
	if (s->problem.micro_batch < 1 || s->problem.batch % s->problem.micro_batch)
		s->problem.micro_batch = 0;
}

static const struct plan_stage *own_stage(const struct session *s)
{
	for (int i = 0; i < s->plan.stages; i++)
		if (s->plan.stage[i].node == s->comm->rank)
			return &s->plan.stage[i];
	return NULL;
}

/* -- weights ------------------------------------------------------------------------------- */

/* Digests of the weights that are run: each block by the rank that has it, the ends by theirs, so that the sum does
 * not depend on the cuts. A tied embedding is read by the first and by the last stage, which must hold the same. */
struct weight_digests { struct digest own, shared; };

static struct weight_digests own_weights(const struct session *s, const struct plan_stage *own)
{
	struct weight_digests d = {{0, 0}, {0, 0}};

	if (!own)
		return d;
	d.own = weights_digest(s->weights, own->first_block, own->blocks, own->embedding, own->head);
	if (s->model->tied && (own->embedding || own->head))
		d.shared = weights_digest_of(s->weights, SLOT_EMBED, 0);
	return d;
}

static int compare_ends(const struct session *s, const struct weight_digests *all)
{
	int first = s->rank_of_stage[0], last = s->rank_of_stage[s->plan.stages - 1];

	if (s->comm->rank != 0 || digest_equal(all[first].shared, all[last].shared))
		return 0;
	return error(EXIT_CONFIG, "the embedding of node \"%s\" differs from that of node \"%s\", which "
		     "uses it as the head", s->stage_name[0], s->stage_name[s->plan.stages - 1]);
}

static int setup_weights(struct session *s)
{
	struct weight_digests *all =
		arena_take(&s->arena, (size_t)s->comm->size * sizeof(*all));

	all[s->comm->rank] = own_weights(s, own_stage(s));
	for (int i = 0; i < s->comm->size; i++) {
		if (comm_broadcast(s->comm, i, &all[i], sizeof(*all)))
			return EXIT_RETRY;
		s->weights_digest.low += all[i].own.low;
		s->weights_digest.high += all[i].own.high;
	}
	return session_agree(s, compare_ends(s, all));
}

/* Rank 0 decides the ops, proves them, and tells all. */
static struct schedule *share_schedule(struct session *s, const char *name)
{
	struct schedule_want want = {.name = name, .stages = s->plan.stages,
				     .micro_batches = s->plan.micro_batches};
	struct schedule *mine = NULL;
	char why[256];

	if (s->comm->rank == 0)
		mine = strcmp(name, "forward") ? plan_schedule(&s->arena, &s->problem, &s->plan)
					       : schedule_make(&s->arena, &want);
	if (mine && schedule_check(mine, why, sizeof(why))) {
		report(EXIT_BUG, "the schedule is wrong: %s", why);
		mine = NULL;
	}
	if (comm_any(s->comm, s->comm->rank == 0 && !mine))
		return NULL;
	return schedule_share(&s->arena, s->comm, mine);
}

static int setup_schedule(struct session *s)
{
	s->schedule = share_schedule(s, s->plan.schedule);
	s->forward = s->schedule ? share_schedule(s, "forward") : NULL;
	return session_agree(s, s->forward ? 0 : -1);
}

int setup_plan(struct session *s)
{
	int status = 0, code;

	make_problem(s);
	if (s->comm->rank == 0) {
		keep_micro_batch(s);
		plan_warn_set(s->options.plan, s->options.set, s->options.set_count);
		status = s->generation ? inference_plan(s)
				       : plan_decide(&s->problem, s->options.plan, &s->given, &s->plan);
	}
	code = session_agree(s, status);
	if (code)
		return code;
	if (comm_broadcast(s->comm, 0, &s->plan, sizeof(s->plan)))
		return EXIT_RETRY;
	code = setup_schedule(s);
	if (code)
		return code;
	s->rank_of_stage = arena_take(&s->arena, (size_t)s->plan.stages * sizeof(int));
	s->stage_name = arena_take(&s->arena, (size_t)s->plan.stages * sizeof(char *));
	for (int i = 0; i < s->plan.stages; i++) {
		s->rank_of_stage[i] = s->plan.stage[i].node;
		s->stage_name[i] = cluster_node(&s->job.cluster, s->plan.stage[i].node)->name;
	}
	return setup_weights(s);
}

/* -- stage --------------------------------------------------------------------------------- */

/* Micro-batches that the stage holds: what the plan says, or, where nothing comes back, one. */
static void room_of_stage(struct session *s, const struct plan_stage *own)
{
	int i = (int)(own - s->plan.stage);

	s->slots = session_trains(s) ? own->in_flight : s->forward->room[i];
	s->edges = session_trains(s) ? own->edges : s->forward->edge[i];
}

static int open_stage(struct session *s)
{
	const struct plan_stage *own = own_stage(s);
	int from, to;
	struct stage_spec spec;
	size_t elements = 0;
	float *values;

	if (!own)
		return 0;
	room_of_stage(s, own);
	spec = (struct stage_spec){
		.first_block = own->first_block,
		.blocks = own->blocks,
		.embedding = own->embedding,
		.head = own->head,
		.sequences = s->plan.micro_batch,
		.tokens = s->data.tokens,
		.slots = s->slots,
		.edges = s->edges,
		.dtype = s->facts[s->comm->rank].dtype,
		.recompute = (enum recompute)s->job.train.recompute,
		.plain = s->job.train.weights == WEIGHTS_PLAIN,
		.packed = s->data.segments > 0,
		.dump = s->options.dump != NULL,
	};
	if (cuts_open(s, &spec))
		return -1;
	lora_range(s->lora, own->first_block, own->blocks, &from, &to);
	for (int i = from; i < to; i++)
		elements += (size_t)s->lora->tensor[i].rows * (size_t)s->lora->tensor[i].cols;
	values = xzalloc(elements + 1, sizeof(float));
	if (!lora_values(s->lora, from, to, (uint64_t)s->job.train.seed, values))
		s->stage = stage_open(s->device, s->model, s->weights, s->lora, &spec, values);
	free(values);
	return s->stage ? 0 : -1;
}

int setup_stage(struct session *s)
{
	const struct rank_facts *f = &s->facts[s->comm->rank];
	const struct plan_stage *own = own_stage(s);

	note("%s on %s, %s, %s, %d threads", f->build_text, f->hardware.host, f->hardware.cpu, f->blas,
	     f->threads);
	if (own)
		note("node %s: %d blocks from %d%s%s, %d in flight", own_node(s)->name, own->blocks,
		     own->first_block, own->embedding ? ", embedding" : "",
		     own->head ? ", head" : "", own->in_flight);
	else
		note("node %s: left out by the plan", own_node(s)->name);
	return session_agree(s, open_stage(s));
}
