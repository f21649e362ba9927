/* What is about to happen, for people. Every number says where it comes from when that is not plain. */
#include <string.h>

#include "launch/data.h"
#include "launch/session.h"

/* 1234567 as "1,234,567"; returns buffer. */
static const char *grouped(unsigned long long value, char *buffer, size_t bytes)
{
	char digits[32];
	int count = snprintf(digits, sizeof(digits), "%llu", value);
	size_t at = 0;

	for (int i = 0; i < count && at + 2 < bytes; i++) {
		if (i > 0 && (count - i) % 3 == 0)
			buffer[at++] = ',';
		buffer[at++] = digits[i];
	}
	buffer[at] = 0;
	return buffer;
}

static void say_model(const struct session *s)
{
	const struct model_config *m = s->model;
	size_t parameters = model_parameters(m);
	struct arena arena = {0};
	struct text targets = {0};
	char a[32], b[32];

	say("model   %s, %d blocks, width %d, vocabulary %d: %s parameters (%s)",
	    m->family->name, m->blocks, m->width, m->vocabulary,
	    grouped(parameters, a, sizeof(a)), m->folder);
	for (int i = 0; i < s->lora->modules; i++)
		text_add(&targets, "%s%s", i > 0 ? ", " : "", s->lora->module[i]);
	say("lora    rank %d, alpha %g%s, dropout %g on %s: %s trainable parameters (%.2f %%)%s",
	    s->lora->rank, s->lora->alpha, s->lora->rslora ? " (rsLoRA)" : "", s->lora->dropout,
	    targets.data, grouped(s->lora->elements, b, sizeof(b)),
	    100 * (double)s->lora->elements / (double)(parameters + s->lora->elements),
	    s->lora->init ? ", going on from lora.init" : "");
	text_release(&targets);
	if (s->lora->ranks.count || s->lora->alphas.count)
		say("        of single modules: %.200s", lora_patterns(s->lora, &arena));
	arena_release(&arena);
	if (m->own_dropout)
		say("        the base model's own dropouts are off");
}

static void say_dataset(const char *head, const struct dataset *d)
{
	char a[32];

	if (!d)
		return;
	const char *advice = data_advice(d->samples + d->skipped, d->cut, d->skipped);
	say("%s %s sample%s of %d tokens, %.0f %% of them trained (%s)", head,
	    grouped(d->samples, a, sizeof(a)), d->samples == 1 ? "" : "s", d->tokens,
	    100 * (double)d->trained_tokens / ((double)d->samples * d->tokens), d->path);
	if (d->cut > 0)
		say("        %zu sample%s longer and lost %zu tokens", d->cut,
		    d->cut == 1 ? " was" : "s were", d->cut_tokens);
	if (d->skipped > 0)
		say("        %zu sample%s no token to train on and %s skipped", d->skipped,
		    d->skipped == 1 ? " has" : "s have", d->skipped == 1 ? "was" : "were");
	if (advice)
		say("        %s", advice);
	if (d->kept)
		say("        they were tokenised before (%s)", d->cache);
	if (d->template)
		say("        chats are written with the template %s", d->template);
}

/* How much of the sequences is padding, and was before. */
static void say_packing(const struct dataset *d, const struct packing *packing)
{
	struct packing_facts f;
	char a[32];

	if (!packing)
		return;
	f = packing_facts(packing);
	say("        packed into %s sequences, up to %d samples in one: %.1f %% padding, %.1f %% without",
	    grouped(f.rows, a, sizeof(a)), f.most,
	    100 * (1 - (double)f.tokens / ((double)f.rows * d->tokens)),
	    100 * (1 - (double)f.tokens / ((double)d->samples * d->tokens)));
}

static void say_step(const struct session *s)
{
	const struct train_config *t = &s->job.train;
	long long tokens = t->batch * s->data.tokens;
	char a[32];

	say("step    %s tokens = %lld sequences x %d = %d micro-batches of %d x %d; %lld steps, "
	    "%.3g epochs", grouped((unsigned long long)tokens, a, sizeof(a)), t->batch,
	    s->data.tokens, s->plan.micro_batches, s->plan.micro_batch, s->data.tokens,
	    s->data.steps,
	    (double)s->data.steps * (double)t->batch / (double)s->data.train_samples);
}

/* "40 Mbit/s, 2 ms (declared), emulated through air". */
static void link_text(const struct session *s, int from, int to, struct text *text)
{
	struct link link = cluster_link(&s->job.cluster, from, to);
	const struct link_profile *found = s->problem.profile ? profile_link(s->problem.profile, from, to) : NULL;
	const char *nic[2] = {cluster_node(&s->job.cluster, from)->nic, cluster_node(&s->job.cluster, to)->nic};
	bool both = nic[0] && nic[1] && strcmp(nic[0], nic[1]);
	char rate[32], latency[32];

	if (found && found->origin != ORIGIN_GUESSED && !link.trace) {
		link.bandwidth_bytes_s = link_profile_rate(found);
		link.latency_s = found->latency_s;
	}
	if (link.bandwidth_bytes_s <= 0 && link.latency_s <= 0)
		text_add(text, "nothing declared");
	else
		text_add(text, "%s, %s (%s)",
			 link.bandwidth_bytes_s > 0
				 ? unit_write(link.bandwidth_bytes_s, UNIT_BYTES_S, rate, sizeof(rate))
				 : "unlimited",
			 unit_write(link.latency_s, UNIT_SECONDS, latency, sizeof(latency)),
			 origin_name(link_origin(&s->problem, from, to)));
	if (s->job.emulate.links)
		text_add(text, ", emulated");
	if (link.trace)
		text_add(text, ", the mean of %s", link.trace);
	if (nic[0] || nic[1])
		text_add(text, ", through %s%s%s", nic[0] ? nic[0] : nic[1], both ? " and " : "", both ? nic[1] : "");
}

static void say_links(const struct session *s)
{
	const struct plan_cut *cut = s->job.plan.cuts.item;

	for (int i = 0; i + 1 < s->plan.stages; i++) {
		int from = s->plan.stage[i].node, to = s->plan.stage[i + 1].node;
		struct text text = {0};

		link_text(s, from, to, &text);
		say("%s %s > %s: %s, codec %s forward, %s backward", i == 0 ? "links  " : "       ",
		    cluster_node(&s->job.cluster, from)->name,
		    cluster_node(&s->job.cluster, to)->name, text.data,
		    codec_of((enum codec_kind)s->plan.link[i].codec_forward, false)->name,
		    codec_of((enum codec_kind)s->plan.link[i].codec_backward, true)->name);
		text_release(&text);
	}
	for (int i = 0; i < s->job.plan.cuts.count; i++)
		say("cut     after block %lld, inside a node: codec %s", cut[i].after_block,
		    codec_of((enum codec_kind)cut[i].codec, false)->name);
	if (!s->job.plan.overlap)
		say("        plan.overlap is false: a transfer passes only while its node does not compute; the "
		    "prediction is for true");
}

static void say_emulation(const struct session *s)
{
	if (!s->job.emulate.links && !s->job.emulate.compute)
		return;
	say("emulate %s%s%s held to declared numbers", s->job.emulate.links ? "links" : "",
	    s->job.emulate.links && s->job.emulate.compute ? " and " : "",
	    s->job.emulate.compute ? "compute" : "");
	if (s->problem.slowdown != 1)
		say("        every declared time times %g (emulate.slowdown)", s->problem.slowdown);
}

/* A node whose CPU does not multiply bf16 computes in fp32, and says so. */
static void say_precision(const struct session *s)
{
	if (s->job.train.precision != PRECISION_BF16)
		return;
	for (int i = 0; i < s->comm->size; i++)
		if (s->facts[i].dtype == DTYPE_BF16)
			say("bf16    %s: weights and stored activations; sums, norms, loss and adapters in fp32 "
			    "(%s)", cluster_node(&s->job.cluster, i)->name, s->facts[i].blas);
		else
			say("bf16    %s: not here, fp32 instead: %s multiply no bf16 on %s",
			    cluster_node(&s->job.cluster, i)->name, s->facts[i].blas,
			    s->facts[i].hardware.cpu);
}

void banner_say(const struct session *s)
{
	struct text table = {0}, build = {0};
	char *save, *line;

	build_write(&build);
	say("%s: %s on %d node%s", build.data, s->job.cluster.name, s->comm->size,
	    s->comm->size == 1 ? "" : "s");
	text_release(&build);
	say_model(s);
	say_dataset("data   ", s->train);
	say_packing(s->train, s->packing);
	say_dataset("valid  ", s->valid);
	say_packing(s->valid, s->valid_packing);
	say_step(s);
	say_links(s);
	plan_print(&s->plan, &s->problem, &table);
	if (s->plan.step_s > 0)
		prediction_add(&s->problem, &s->plan, &table);
	for (line = strtok_r(table.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		say("%s", line);
	text_release(&table);
	say_precision(s);
	say_emulation(s);
	say("run     %s", s->run);
}
