/*
 * memory.c - does everybody have room? From the allocator's own arithmetic, so that a plan that
 * is accepted runs and one that is refused would not have.
 */
#include "partition/internal.h"

static struct stage_spec spec_of(const struct problem *problem, const struct plan *plan, int s)
{
	const struct plan_stage *stage = &plan->stage[s];

	return (struct stage_spec){
		.first_block = stage->first_block,
		.blocks = stage->blocks,
		.embedding = stage->embedding,
		.head = stage->head,
		.sequences = plan->micro_batch,
		.tokens = problem->tokens,
		.slots = stage->in_flight,
		.edges = stage->edges,
		.dtype = problem->dtypes ? problem->dtypes[stage->node] : DTYPE_F32,
		.recompute = problem->recompute,
		.plain = problem->plain,
		.packed = problem->packed,
	};
}

/* What a stream of a cut takes at one end; emulation holds copies of what it sends. */
static size_t frames_of(const struct problem *problem, const struct plan *plan, int cut,
			bool backward, bool sends)
{
	const struct plan_link *link = &plan->link[cut];
	int kind = backward ? link->codec_backward : link->codec_forward;
	size_t bytes =
	    stream_memory((enum codec_kind)kind, backward, plan->micro_batch * problem->tokens,
			  problem->model->width);

	return problem->links_emulated && sends ? bytes + comm_shaped_memory(bytes) : bytes;
}

static size_t cuts_of(const struct problem *problem, const struct plan *plan, int s)
{
	size_t bytes = 0;

	for (int cut = s - 1; cut <= s; cut++) {
		if (cut < 0 || cut >= plan->stages - 1)
			continue;
		bytes += frames_of(problem, plan, cut, false, cut == s);
		bytes += frames_of(problem, plan, cut, true, cut < s);
	}
	return bytes;
}

struct generator_spec plan_generator(const struct problem *problem, const struct plan *plan,
				     int s)
{
	const struct plan_stage *stage = &plan->stage[s];

	return (struct generator_spec){
		.first_block = stage->first_block,
		.blocks = stage->blocks,
		.embedding = stage->embedding,
		.head = stage->head,
		.sequences = problem->generation->sequences,
		.room = problem->generation->room,
		.rows = problem->generation->piece,
		.dtype = problem->dtypes ? problem->dtypes[stage->node] : DTYPE_F32,
	};
}

struct generator_memory plan_generator_memory(const struct problem *problem,
					      const struct plan *plan, int s)
{
	struct generator_spec spec = plan_generator(problem, plan, s);
	struct generator_memory memory =
	    generator_memory(problem->model, problem->weights, problem->lora, &spec);
	double sent = generation_sent_bytes(problem->generation);
	size_t more = (size_t)generation_bytes(problem->generation, spec.head);

	if (problem->links_emulated && s + 1 < plan->stages)
		more += comm_shaped_memory((size_t)sent);
	memory.work += more;
	memory.total += more;
	return memory;
}

/* Keys and values are what stays of a forward that nothing comes back to. */
static struct stage_memory generating(const struct problem *problem, const struct plan *plan,
				      int s)
{
	struct generator_memory memory = plan_generator_memory(problem, plan, s);

	return (struct stage_memory){
		.weights = memory.weights,
		.adapters = memory.adapters,
		.activations = memory.cache,
		.work = memory.work,
		.total = memory.total,
	};
}

static struct stage_memory training(const struct problem *problem, const struct plan *plan,
				    int s)
{
	struct stage_spec spec = spec_of(problem, plan, s);
	struct stage_memory memory =
		stage_memory(problem->model, problem->weights, problem->lora, &spec,
			     problem->threads[plan->stage[s].node]);
	size_t frames = cuts_of(problem, plan, s);

	/* At a checkpoint, moments are on their way to rank 0. */
	if (problem->links_emulated && plan->stage[s].node != 0)
		frames += memory.adapters / 2;
	memory.work += frames;
	memory.total += frames;
	return memory;
}

struct stage_memory plan_memory(const struct problem *problem, const struct plan *plan, int s)
{
	return problem->generation ? generating(problem, plan, s) : training(problem, plan, s);
}

bool stage_fits(const struct plan_stage *stage)
{
	return stage->memory_limit_bytes <= 0 ||
	       stage->memory_bytes <= stage->memory_limit_bytes;
}

bool memory_fill(const struct problem *problem, struct plan *plan)
{
	bool fits = true;

	for (int s = 0; s < plan->stages; s++) {
		struct plan_stage *stage = &plan->stage[s];

		stage->memory_bytes = (double)plan_memory(problem, plan, s).total +
				      problem->overhead_bytes[stage->node];
		stage->memory_limit_bytes = problem->memory_limit_bytes[stage->node];
		fits = fits && stage_fits(stage);
	}
	return fits;
}

/* "weights 1.2 GiB, adapters 3 MiB, ..., rest 80 MiB": rest is the process itself, and
 * rounding. */
static void add_parts(struct text *text, const struct stage_memory *memory, double needed)
{
	size_t known = memory->weights + memory->adapters + memory->activations + memory->work;
	char part[5][32];

	text_add(text, "weights %s, adapters %s, activations %s, work %s, rest %s",
		 unit_write((double)memory->weights, UNIT_BYTES, part[0], sizeof part[0]),
		 unit_write((double)memory->adapters, UNIT_BYTES, part[1], sizeof part[1]),
		 unit_write((double)memory->activations, UNIT_BYTES, part[2], sizeof part[2]),
		 unit_write((double)memory->work, UNIT_BYTES, part[3], sizeof part[3]),
		 unit_write(needed - (double)known, UNIT_BYTES, part[4], sizeof part[4]));
}

static void add_stage(struct text *text, const struct problem *problem, const struct plan *plan,
		      int s)
{
	const struct plan_stage *stage = &plan->stage[s];
	const struct node *node = cluster_node(problem->cluster, stage->node);
	struct stage_memory memory = plan_memory(problem, plan, s);
	char needed[32], limit[32], blocks[64];

	text_add(text, "\n  '%s' (stage %d, %s) needs %s and has %s (%s): ", node->name, s,
		 blocks_write(stage, blocks, sizeof blocks),
		 unit_write(stage->memory_bytes, UNIT_BYTES, needed, sizeof needed),
		 unit_write(stage->memory_limit_bytes, UNIT_BYTES, limit, sizeof limit),
		 node->memory_bytes > 0 ? "declared" : "measured");
	add_parts(text, &memory, stage->memory_bytes);
}

void memory_add_remedy(const struct remedy *remedy, struct text *text)
{
	if (remedy->plain)
		text_add(text, "train.weights plain (fits), ");
	if (remedy->recompute != RECOMPUTE_NONE)
		text_add(text, "train.recompute %s (fits), ",
			 recompute_name(remedy->recompute));
}

static void add_help(struct text *text, const struct plan *plan, const struct remedy *remedy)
{
	text_add(text, "\n  what helps: ");
	if (remedy->micro_batch)
		text_add(text, "train.micro_batch %d (fits), ", remedy->micro_batch);
	else if (plan->micro_batch > 1)
		text_add(text, "a smaller train.micro_batch (%d now, alone not enough), ",
			 plan->micro_batch);
	memory_add_remedy(remedy, text);
	if (plan->stage[0].in_flight == plan->micro_batches &&
	    plan->micro_batches > plan->stages)
		text_add(text, "a plan.schedule with fewer micro-batches in flight, ");
	text_add(text, "a shorter data.sequence, fewer blocks there (plan.layers), more nodes");
}

int memory_refuse(const struct problem *problem, const struct plan *plan,
		  const struct remedy *remedy)
{
	struct text text = {0};
	int short_of = 0;

	for (int s = 0; s < plan->stages; s++)
		short_of += !stage_fits(&plan->stage[s]);
	text_add(&text, "memory does not suffice on %d of %d nodes, with micro-batches of %d "
		 "sequence%s:", short_of, plan->stages, plan->micro_batch,
		 plan->micro_batch > 1 ? "s" : "");
	for (int s = 0; s < plan->stages; s++)
		if (!stage_fits(&plan->stage[s]))
			add_stage(&text, problem, plan, s);
	add_help(&text, plan, remedy);
	report(EXIT_CONFIG, "%s", text.data);
	text_release(&text);
	return -1;
}
