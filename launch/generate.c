/* The run of `edgepipe generate`: text from a model, on one machine or split over the nodes of a plan. */
#include <stdlib.h>
#include <string.h>

#include "launch/session.h"

/* -- set-up -------------------------------------------------------------------------------- */

/* One generation under way on this rank. */
struct generate {
	const struct generate_options *options;
	struct prompts prompts;
	struct generation g;
	struct tokenizer *tokenizer;	/* on rank 0, and everywhere with stop texts or chats; or null */
	struct chat_template *chat;	/* where there are chats, everywhere */
	const char **stop;		/* [stops]: those of the options, and what ends an answer where that is no token */
	int stops;
	struct transcript **stopping;	/* [sequences], on the last stage where there are stop texts */
	int *stopped;			/* [sequences]: the prompts that these are of */
	struct writer *writer;		/* rank 0 */
};

/* What reads prompts, and what ends texts. */
static int open_reading(struct session *s, struct generate *e)
{
	const struct generate_options *o = e->options;
	const char *end;

	e->stop = xzalloc((size_t)o->stops + 1, sizeof(*e->stop));
	for (int i = 0; i < o->stops; i++)
		e->stop[e->stops++] = o->stop[i];
	if (o->source.ids || (s->comm->rank != 0 && o->stops == 0 && !o->source.chat))
		return 0;
	e->tokenizer = tokenizer_open(s->model->folder);
	if (!e->tokenizer || !o->source.chat)
		return e->tokenizer ? 0 : -1;
	e->chat = prompts_template(s->model, s->job.data.template, e->tokenizer);
	if (!e->chat)
		return -1;
	end = template_stop(e->chat);
	if (tokenizer_find(e->tokenizer, end) < 0)
		e->stop[e->stops++] = end;
	say("chat    in the template %s, where %s ends an answer", template_name(e->chat), end);
	return 0;
}

static int smaller(int a, int b)
{
	return a < b ? a : b;
}

/* How many tokens a sequence has at most, where so many new ones may come. */
static int room_for(const struct session *s, const struct generate *e, int tokens)
{
	int room = e->prompts.longest + tokens;

	return s->model->positions > 0 ? smaller(room, s->model->positions) : room;
}

/* What memory and with it the plan hang on. */
static void fill_sizes(struct session *s, struct generate *e)
{
	struct generation *g = &e->g;

	g->width = s->model->width;
	g->vocabulary = s->model->vocabulary;
	g->prompt = e->prompts.prompt;
	g->prompts = e->prompts.count;
	g->tokens = e->options->tokens;
	g->sequences = smaller(e->options->batch, e->prompts.count);
	g->room = room_for(s, e, e->options->tokens);
	g->piece = smaller(e->prompts.longest, GENERATE_ROWS);
	g->text_bytes = (double)g->sequences * (double)transcript_bytes(e->stop, e->stops);
	g->told_bytes = writer_bytes(&e->prompts, g->room, g->tokens);
	s->generation = g;
}

/* Prompts, and for the plan the sequences that training would have. */
static int setup_prompts(struct session *s, struct generate *e)
{
	long long T = s->job.data.sequence > 0 ? s->job.data.sequence : 256;
	int status = open_reading(s, e), code;

	if (!status && s->comm->rank == 0)
		status = prompts_read(&e->prompts, &e->options->source, s->model, e->tokenizer, e->chat);
	code = session_agree(s, status);
	if (code)
		return code;
	s->data.tokens = (int)(s->model->positions > 0 && T > s->model->positions ? s->model->positions : T);
	if (prompts_share(&e->prompts, s->comm))
		return EXIT_RETRY;
	fill_sizes(s, e);
	return setup_warm(s);
}

static void fill_generation(struct session *s, struct generate *e)
{
	struct generation *g = &e->g;

	g->places = (struct places){s->plan.stages, -1, s->rank_of_stage};
	for (int i = 0; i < s->plan.stages; i++)
		if (s->plan.stage[i].node == s->comm->rank)
			g->places.stage = i;
	g->sampling = e->options->sampling;
	g->end = e->prompts.ends.id;
	g->ends = (int)e->prompts.ends.count;
	g->watchdog = watch_dog(s->watch);
	g->arg = e;
}

/* -- memory -------------------------------------------------------------------------------- */

/* All that stage i's rank takes, for this generation. */
static double needed(const struct session *s, const struct generation *g, int i, struct generator_memory *memory)
{
	struct problem problem = s->problem;

	problem.generation = g;
	*memory = plan_generator_memory(&problem, &s->plan, i);
	return (double)memory->total + s->overhead_bytes[s->plan.stage[i].node];
}

/* The most tokens, or prompts at once, that fit stage i: 0 where not even one does. */
static int most_that_fit(const struct session *s, const struct generate *e, int i, bool tokens)
{
	double limit = s->facts[s->plan.stage[i].node].memory_limit_bytes;
	int low = 0, high = tokens ? e->options->tokens : e->g.sequences;

	while (low < high) {
		int middle = low + (high - low + 1) / 2;
		struct generation tried = e->g;
		struct generator_memory memory;

		if (tokens)
			tried.room = room_for(s, e, middle);
		else
			tried.sequences = middle;
		if (needed(s, &tried, i, &memory) <= limit)
			low = middle;
		else
			high = middle - 1;
	}
	return low;
}

static const char *bytes_write(double bytes, char *buffer, size_t room)
{
	return unit_write(bytes, UNIT_BYTES, buffer, room);
}

/* "library needs 1 GiB and has 512 MiB: weights .., kept keys and values .. " */
static void add_memory(const struct session *s, const struct generate *e, int i, struct text *text)
{
	struct generator_memory m;
	double all = needed(s, &e->g, i, &m), rest = all - (double)(m.weights + m.adapters + m.cache + m.work);
	char b[6][32];

	text_add(text, "%s needs %s of %s: weights %s, keys and values of %d x %d tokens %s, work %s, rest %s", s->stage_name[i],
		 bytes_write(all, b[0], sizeof(b[0])),
		 bytes_write(s->facts[s->plan.stage[i].node].memory_limit_bytes, b[1], sizeof(b[1])),
		 bytes_write((double)(m.weights + m.adapters), b[2], sizeof(b[2])), e->g.sequences, e->g.room,
		 bytes_write((double)m.cache, b[3], sizeof(b[3])), bytes_write((double)m.work, b[4], sizeof(b[4])),
		 bytes_write(rest, b[5], sizeof(b[5])));
}

/* Rank 0: says what every node needs, or refuses what does not fit. */
static int check_memory(const struct session *s, const struct generate *e)
{
	struct text text = {0};
	int tokens = e->options->tokens, batch = e->g.sequences, lacking = 0;

	for (int i = 0; i < s->plan.stages; i++) {
		struct generator_memory m;
		bool fits = needed(s, &e->g, i, &m) <= s->facts[s->plan.stage[i].node].memory_limit_bytes;

		text.bytes = 0;
		add_memory(s, e, i, &text);
		if (fits) {
			say("%s %s", i == 0 ? "memory " : "       ", text.data);
			continue;
		}
		report(EXIT_CONFIG, "memory does not suffice: %s", text.data);
		tokens = smaller(tokens, most_that_fit(s, e, i, true));
		batch = smaller(batch, most_that_fit(s, e, i, false));
		lacking++;
	}
	text_release(&text);
	if (lacking && tokens < 1 && batch < 1)
		return error(EXIT_CONFIG, "not even one token fits beside the weights");
	if (lacking && tokens < 1)
		return error(EXIT_CONFIG, "what fits: --batch %d", batch);
	if (lacking && batch < 1)
		return error(EXIT_CONFIG, "what fits: --tokens %d", tokens);
	return lacking ? error(EXIT_CONFIG, "what fits: --tokens %d, or --batch %d", tokens, batch) : 0;
}

/* -- the generator --------------------------------------------------------------------------- */

static int open_generator(struct session *s, struct generate *e)
{
	int i = e->g.places.stage, from, to;
	struct generator_spec spec;
	size_t elements = 0;
	float *values;

	if (i < 0)
		return 0;
	spec = plan_generator(&s->problem, &s->plan, i);
	lora_range(s->lora, spec.first_block, spec.blocks, &from, &to);
	for (int k = from; k < to; k++)
		elements += (size_t)s->lora->tensor[k].rows * (size_t)s->lora->tensor[k].cols;
	values = xzalloc(elements + 1, sizeof(float));
	if (!lora_values(s->lora, from, to, 0, values))
		e->g.generator = generator_open(s->device, s->model, s->weights, s->lora, &spec, values);
	free(values);
	return e->g.generator ? 0 : -1;
}

static int32_t last_id(const struct prompt *prompt)
{
	return prompt->id[prompt->count - 1];
}

/* generation.stops, on the last stage. */
static int stops(void *arg, int sequence, int prompt, int32_t id)
{
	struct generate *e = arg;

	struct transcript *text = e->stopping[sequence];
	int stopped;

	if (e->stopped[sequence] != prompt)
		transcript_begin(text, last_id(&e->prompts.prompt[prompt]));
	e->stopped[sequence] = prompt;
	stopped = transcript_add(text, id);
	transcript_forget(text);
	return stopped;
}

/* generation.tell, on rank 0. */
static int tell(void *arg, int prompt, int32_t id, enum finish finish)
{
	struct generate *e = arg;

	return writer_add(e->writer, prompt, id, finish);
}

static void open_texts(struct session *s, struct generate *e)
{
	if (s->comm->rank == 0) {
		e->writer = writer_open(&e->prompts, e->tokenizer, e->stop, e->stops, e->options->json != NULL);
		e->g.tell = tell;
	}
	if (e->stops == 0 || e->g.places.stage != s->plan.stages - 1)
		return;
	e->stopping = xzalloc((size_t)e->g.sequences, sizeof(*e->stopping));
	e->stopped = xzalloc((size_t)e->g.sequences, sizeof(*e->stopped));
	for (int i = 0; i < e->g.sequences; i++) {
		e->stopping[i] = transcript_open(e->tokenizer, e->stop, e->stops, -1);
		e->stopped[i] = -1;
	}
	e->g.stops = stops;
}

static void release(struct generate *e)
{
	for (int i = 0; e->stopping && i < e->g.sequences; i++)
		transcript_close(e->stopping[i]);
	free(e->stopping);
	free(e->stopped);
	writer_close(e->writer);
	generator_close(e->g.generator);
	template_close(e->chat);
	free(e->stop);
	tokenizer_close(e->tokenizer);
	prompts_release(&e->prompts);
}

/* -- the result ---------------------------------------------------------------------------- */

/* What every stage counted, on all ranks; [stages]. Collective. */
static int share_stats(struct session *s, const struct generate *e, struct generation_stats *all)
{
	for (int i = 0; i < s->plan.stages; i++) {
		if (e->g.places.stage == i)
			all[i] = e->g.stats;
		if (comm_broadcast(s->comm, s->rank_of_stage[i], &all[i], sizeof(all[i])))
			return -1;
	}
	return 0;
}

static double per(double amount, double of)
{
	return of > 0 ? amount / of : 0;
}

/* Rank 0: texts that are shorter than was asked for. */
static void warn_of_room(const struct session *s, const struct generate *e)
{
	int full = writer_ended(e->writer, FINISH_ROOM);

	if (full > 0)
		warn("%d of %d text%s ended before --tokens %d: the model has %d positions, for the prompt and what follows it",
		     full, e->prompts.count, e->prompts.count == 1 ? "" : "s", e->options->tokens, s->model->positions);
}

static void say_result(const struct session *s, const struct generate *e, const struct generation_stats *all)
{
	const struct generation_stats *g = &e->g.stats;
	double prompts = (double)e->prompts.ids.count, later = (double)(g->tokens - e->prompts.count);

	say("speed   %.0f tokens of prompts in %.2f s, %.1f/s; %.0f tokens after the first ones in %.2f s, %.1f/s", prompts,
	    g->prompt_s, per(prompts, g->prompt_s), later, g->token_s, per(later, g->token_s));
	for (int i = 0; i + 1 < s->plan.stages; i++)
		say("%s %s: %.0f bytes a token", i == 0 ? "links  " : "       ", e->g.cut[i].forward_name,
		    per(all[i].token_bytes, (double)all[i].tokens_sent));
}

static int write_json(const struct session *s, const struct generate *e, const struct generation_stats *all)
{
	const struct generation_stats *g = &e->g.stats;
	struct text text = {0};
	int status;

	text_add(&text, "{");
	writer_json(e->writer, &text);
	text_add(&text, ",\n\"tokens\": %lld, \"prompt_tokens\": %zu, \"prompt_s\": %.6f, \"token_s\": %.6f, \"stages\": [", g->tokens,
		 e->prompts.ids.count, g->prompt_s, g->token_s);
	for (int i = 0; i < s->plan.stages; i++) {
		text_add(&text, "%s{\"node\": ", i > 0 ? ", " : "");
		json_add_text(&text, s->stage_name[i]);
		text_add(&text, ", \"compute_s\": %.6f, \"bytes_per_token\": %.1f}", all[i].compute_s,
			 per(all[i].token_bytes, (double)all[i].tokens_sent));
	}
	text_add(&text, "]}\n");
	status = file_replace(e->options->json, text.data, text.bytes);
	text_release(&text);
	return status;
}

static int finish(struct session *s, struct generate *e)
{
	struct generation_stats *all = arena_take(&s->arena, (size_t)s->plan.stages * sizeof(*all));
	int status = 0;

	if (share_stats(s, e, all))
		return EXIT_RETRY;
	say_result(s, e, all);
	if (s->comm->rank == 0)
		warn_of_room(s, e);
	if (s->comm->rank == 0 && e->options->json)
		status = write_json(s, e, all);
	return session_agree(s, status);
}

/* -- the run ------------------------------------------------------------------------------- */

enum { WATCH_SETUP = WATCH_KINDS };

static int set_up(struct session *s, struct generate *e)
{
	int status = setup_job(s);

	if (!status)
		status = setup_model(s);
	if (!status)
		status = setup_prompts(s, e);
	if (!status)
		status = setup_profile(s);
	if (!status)
		status = setup_plan(s);
	if (status)
		return status;
	fill_generation(s, e);
	status = session_agree(s, s->comm->rank == 0 ? check_memory(s, e) : 0);
	if (!status)
		status = session_agree(s, open_generator(s, e));
	if (!status && watch_learn(s->watch, s))
		status = EXIT_RETRY;
	return status;
}

/* On the thread that computes; see wire_aside. */
static int generate(struct session *s, void *arg)
{
	struct generate *e = arg;

	wire_spec(s, &e->g.places);
	e->g.cut = s->cuts;
	e->g.comm = s->comm;
	watch_expect(s->watch, s, &e->g.places);
	open_texts(s, e);
	return generation_run(&e->g);
}

static int run_phases(struct session *s, struct generate *e)
{
	int status;

	watchdog_enter(watch_dog(s->watch), &(struct watchdog_section){WATCH_SETUP, 20, "setting up", "the other ranks",
								       -1, -1});
	status = set_up(s, e);
	watchdog_leave(watch_dog(s->watch));
	if (!status)
		status = wire_aside(s, generate, e);
	return status ? status : finish(s, e);
}

int generate_run(struct comm *comm, const struct generate_options *options, struct watch *watch)
{
	struct session session = {.options = options->run, .comm = comm, .lock = -1, .watch = watch};
	struct generate e = {.options = options};
	int status;

	log_rank(comm->rank);
	error_hold();
	status = run_phases(&session, &e);
	release(&e);
	session_release(&session);
	return status;
}
