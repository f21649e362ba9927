/*
 * wire.c - from the topology file to the wire: which codec each cut has, and what links and nodes are held to.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/session.h"

/* -- cuts inside a rank -------------------------------------------------------------------- */

static const struct plan_cut *cut_after(const struct session *s, int block)
{
	const struct plan_cut *cut = s->job.plan.cuts.item;

	for (int i = 0; i < s->job.plan.cuts.count; i++)
		if (cut[i].after_block == block)
			return &cut[i];
	return NULL;
}

/* What a link there would do: encode and decode frame by frame. stage_spec.pass. */
static void pass(void *arg, int block, bool backward, const struct micro_batch *micro, float *x)
{
	struct session *s = arg;
	const struct codec *codec = codec_of((enum codec_kind)cut_after(s, block)->codec, backward);
	int channels = s->model->width, rows = s->plan.micro_batch * s->data.tokens;
	int most = codec_frame_rows(channels);
	struct codec_noise noise = {
		.seed = micro->seed,
		.step = micro->step,
		.first_sample = micro->first_sample,
		.block = (uint32_t)block,
		.backward = true,
		.tokens = s->data.tokens,
	};

	for (int row = 0; row < rows; row += most) {
		int count = rows - row < most ? rows - row : most;
		float *at = x + (size_t)row * (size_t)channels;

		noise.first_row = row;
		codec->encode(s->frame, at, count, channels, backward ? &noise : NULL);
		codec->decode(at, s->frame, count, channels);
	}
}

/* A cut of the plan has a link of its own. */
static int check_cut(const struct session *s, const struct plan_cut *cut)
{
	if (cut->after_block >= s->model->blocks)
		return error(EXIT_CONFIG, "plan.cuts: there is no block %lld; the model has %d",
			     cut->after_block, s->model->blocks);
	for (int i = 0; i + 1 < s->plan.stages; i++)
		if (s->plan.stage[i].first_block + s->plan.stage[i].blocks - 1 == cut->after_block)
			return error(EXIT_CONFIG, "plan.cuts: block %lld is the last of node \"%s\": "
				     "the codec of that cut is its link's", cut->after_block,
				     s->stage_name[i]);
	return 0;
}

int cuts_open(struct session *s, struct stage_spec *spec)
{
	const struct plan_cut *cut = s->job.plan.cuts.item;
	int rows = codec_frame_rows(s->model->width);
	size_t most = 0;

	for (int i = 0; i < s->job.plan.cuts.count; i++) {
		size_t bytes = codec_of((enum codec_kind)cut[i].codec, false)
				       ->bytes(rows, s->model->width);
		size_t back = codec_of((enum codec_kind)cut[i].codec, true)
				      ->bytes(rows, s->model->width);

		if (check_cut(s, &cut[i]))
			return -1;
		most = bytes > most ? bytes : most;
		most = back > most ? back : most;
	}
	if (most == 0)
		return 0;
	s->frame = xzalloc(1, most);
	s->passes = xzalloc((size_t)spec->blocks + 1, sizeof(*s->passes));
	for (int i = 0; i < spec->blocks; i++)
		s->passes[i] = cut_after(s, spec->first_block + i) != NULL;
	spec->passes = s->passes;
	spec->pass = pass;
	spec->pass_arg = s;
	return 0;
}

/* The codecs of the cut after a block; false where both are none or there is no cut. */
static bool codecs_after(const struct session *s, int block, enum codec_kind codec[2])
{
	const struct plan_cut *cut = cut_after(s, block);

	codec[0] = codec[1] = cut ? (enum codec_kind)cut->codec : CODEC_NONE;
	for (int i = 0; i + 1 < s->plan.stages; i++)
		if (s->plan.stage[i].first_block + s->plan.stage[i].blocks - 1 == block) {
			codec[0] = (enum codec_kind)s->plan.link[i].codec_forward;
			codec[1] = (enum codec_kind)s->plan.link[i].codec_backward;
		}
	return codec[0] != CODEC_NONE || codec[1] != CODEC_NONE;
}

const char *wire_codecs(struct session *s)
{
	struct text text = {0};
	enum codec_kind codec[2];
	const char *copy;

	for (int block = 0; block < s->model->blocks; block++)
		if (codecs_after(s, block, codec))
			text_add(&text, "%s%d %s/%s", text.bytes ? ", " : "", block,
				 codec_of(codec[0], false)->name, codec_of(codec[1], true)->name);
	copy = arena_format(&s->arena, "%s", text.bytes ? text.data : "none");
	text_release(&text);
	return copy;
}

/* -- cuts between ranks -------------------------------------------------------------------- */

static void open_cuts(struct session *s)
{
	size_t cuts = (size_t)s->plan.stages;

	s->cuts = arena_take(&s->arena, cuts * sizeof(*s->cuts));
	for (int i = 0; i + 1 < s->plan.stages; i++) {
		const struct plan_stage *a = &s->plan.stage[i];
		const char *from = s->stage_name[i], *to = s->stage_name[i + 1];

		s->cuts[i] = (struct cut){
			.forward = (enum codec_kind)s->plan.link[i].codec_forward,
			.backward = (enum codec_kind)s->plan.link[i].codec_backward,
			.forward_name = arena_format(&s->arena, "%s > %s", from, to),
			.backward_name = arena_format(&s->arena, "%s > %s", to, from),
			.after_block = a->first_block + a->blocks - 1,
		};
	}
}

struct executor_spec wire_spec(struct session *s, const struct places *places)
{
	struct executor_spec spec = {
		.places = places,
		.seed = (uint64_t)s->job.train.seed,
		.sequences = s->plan.micro_batch,
		.tokens = s->data.tokens,
		.channels = s->model->width,
		.overlap = s->job.plan.overlap,
	};
	const struct plan_stage *own;

	open_cuts(s);
	spec.cuts = s->cuts;
	if (places->stage < 0)
		return spec;
	own = &s->plan.stage[places->stage];
	spec.slots = s->slots;
	spec.edges = s->edges;
	if (s->job.emulate.compute) {
		double head = own->head ? model_head_flops(s->model) * s->plan.micro_batch *
						  s->data.tokens * s->problem.slowdown /
						  cluster_node(&s->job.cluster, own->node)->compute_flops
					: 0;

		plan_pace(&s->problem, &s->plan, places->stage, &spec.pace_forward_s, &spec.pace_backward_s);
		spec.pace_valid_s = spec.pace_forward_s - head / 2;	/* no gradient of the logits */
	}
	return spec;
}

/* -- emulated links ------------------------------------------------------------------------ */

static double mean(const struct link_trace *trace)
{
	double sum = 0;

	for (int i = 0; i < trace->count; i++)
		sum += trace->bytes_s[i];
	return sum / trace->count;
}

int wire_traces(struct session *s)
{
	struct link *link = s->job.cluster.links.item;
	int status = 0;

	s->traces = arena_take(&s->arena, (size_t)s->job.cluster.links.count * sizeof(*s->traces));
	for (int i = 0; i < s->job.cluster.links.count; i++) {
		if (!link[i].trace)
			continue;
		s->traces[i] = link_trace_read(link[i].trace);
		if (!s->traces[i]) {
			status = -1;
			continue;
		}
		link[i].bandwidth_bytes_s = mean(s->traces[i]);
		for (int k = 0; k < s->traces[i]->count; k++)
			s->traces[i]->bytes_s[k] /= s->job.emulate.slowdown;
	}
	return status;
}

static const struct link_trace *trace_of(const struct session *s, const char *path)
{
	const struct link *link = s->job.cluster.links.item;

	for (int i = 0; path && i < s->job.cluster.links.count; i++)
		if (link[i].trace && !strcmp(link[i].trace, path))
			return s->traces[i];
	return NULL;
}

/* The shape of one direction. */
static struct shape shape_of(const struct session *s, int from, int to)
{
	const struct cluster *cluster = &s->job.cluster;
	struct link link = cluster_link(cluster, from, to);
	double slowdown = s->job.emulate.slowdown;

	if (from == to)
		return (struct shape){.nic_out = -1, .nic_in = -1};
	return (struct shape){
		.bandwidth_bytes_s = link.bandwidth_bytes_s / slowdown,
		.latency_s = link.latency_s * slowdown,
		.nic_out = cluster_nic(cluster, from, false),
		.nic_in = cluster_nic(cluster, to, true),
		.trace = trace_of(s, link.trace),
	};
}

int setup_wire(struct session *s)
{
	int ranks = s->comm->size, nics = 0;
	struct shape *shape;

	s->wire = s->comm;
	if (!s->job.emulate.links || ranks == 1)
		return 0;
	shape = arena_take(&s->arena, (size_t)ranks * (size_t)ranks * sizeof(*shape));
	for (int i = 0; i < ranks * ranks; i++)
		shape[i] = shape_of(s, i / ranks, i % ranks);
	for (int i = 0; i < ranks; i++)
		if (cluster_nic(&s->job.cluster, i, false) >= 0)
			nics = 2 * ranks;
	s->wire = comm_shaped_open(s->comm, shape, nics);
	return session_agree(s, s->wire ? 0 : -1);
}

static void shut(struct session *s)
{
	if (s->wire && s->wire != s->comm)
		comm_close(s->wire);
	s->wire = NULL;
}

struct aside {
	struct session *session;
	int (*work)(struct session *session, void *arg);
	void *arg;
	char *noted;
};

static int run_aside(struct comm *front, void *arg)
{
	struct aside *aside = arg;
	struct session *s = aside->session;
	struct comm *own = s->comm;
	int code;

	log_give(aside->noted);
	error_hold();
	s->comm = front;
	code = aside->work(s, aside->arg);
	/* What was held on this thread, and not said by all ranks together, would go with it. */
	if (code)
		fputs(error_text(), stderr);
	if (code == EXIT_RETRY)
		comm_abort(front, EXIT_RETRY);
	aside->noted = log_take();
	s->comm = own;
	return code;
}

int wire_aside(struct session *s, int (*work)(struct session *session, void *arg), void *arg)
{
	struct aside aside = {s, work, arg, NULL};
	int code = setup_wire(s);

	if (code)
		return code;
	aside.noted = log_take();
	error_clear();
	code = comm_serve(s->wire, run_aside, &aside);
	error_hold();
	log_give(aside.noted);
	shut(s);
	return code;
}

void wire_close(struct session *s)
{
	shut(s);
	for (int i = 0; s->traces && i < s->job.cluster.links.count; i++)
		link_trace_free(s->traces[i]);
	s->traces = NULL;
}
