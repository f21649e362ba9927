/*
 * generate.c - text from a model that is split over ranks. The first stage sends rows of new
 * tokens round (desk.c), every stage runs them through its blocks, the last one chooses the
 * tokens after them and answers. Only there is anything drawn; rank 0 alone hands out what was
 * found, wherever it stands in the ring.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/ring.h"

struct loop {
	struct generation *g;
	struct ring ring;
	struct desk desk;
	bool first, last, zero;
	int told;			/* prompts whose end rank 0 has handed out */
	struct sampler *sampler;	/* on the last stage, as is the next */
	int32_t *ids;			/* [sequences][room + 1]: of the prompt and behind it */
	int *count;			/* [sequences] */
	struct answer answer;
};

/* -- on the last stage -------------------------------------------------------------------- */

/* What is known of a sequence that is under way. */
static int32_t *ids_of(const struct loop *loop, int sequence)
{
	return loop->ids + (size_t)sequence * (size_t)(loop->g->room + 1);
}

static void remember_prompt(struct loop *loop, const struct packet_row *row)
{
	const struct prompt *p = &loop->g->prompt[row->prompt];

	memcpy(ids_of(loop, row->sequence), p->id, (size_t)p->count * sizeof(int32_t));
	loop->count[row->sequence] = p->count;
}

static bool is_end(const struct generation *g, int32_t id)
{
	for (int i = 0; i < g->ends; i++)
		if (g->end[i] == id)
			return true;
	return false;
}

/* Whether a prompt goes on behind this id; -1 after an error. */
static int judge(struct loop *loop, const struct packet_row *row, int32_t id)
{
	const struct generation *g = loop->g;
	int stopped, count = loop->count[row->sequence];

	if (is_end(g, id))
		return FINISH_END;
	stopped = g->stops ? g->stops(g->arg, row->sequence, row->prompt, id) : 0;
	if (stopped)
		return stopped < 0 ? -1 : FINISH_STOP;
	if (count - g->prompt[row->prompt].count >= g->tokens)
		return FINISH_TOKENS;
	return count >= g->room ? FINISH_ROOM : 0;
}

static int choose(struct loop *loop, const struct packet_row *row, float *logits,
		  struct answer_row *out)
{
	int *count = &loop->count[row->sequence], finish;
	int32_t *ids = ids_of(loop, row->sequence);
	int32_t id =
	    sampler_next(loop->sampler, logits, ids, (size_t)*count, (uint32_t)row->prompt);

	if (!isfinite(logits[id]))
		return error(EXIT_DIVERGED,
			     "the logits after token %d of prompt %d are no numbers",
			     row->position, row->prompt);
	ids[(*count)++] = id;
	finish = judge(loop, row, id);
	*out = (struct answer_row){row->prompt, row->sequence, id, finish};
	return finish < 0 ? -1 : 0;
}

/* The tokens after rows that have gone through all stages. */
static int answer_rows(struct loop *loop, const struct packet *packet)
{
	struct answer *answer = &loop->answer;
	int which[ANSWER_ROWS], count = packet->head.rows, V = loop->g->vocabulary;
	bool ends = packet->head.kind == PACKET_PROMPT_END;
	float *logits;

	if (ends)
		remember_prompt(loop, &packet->row[0]);
	which[0] = count - 1;
	for (int i = 0; !ends && i < count; i++)
		which[i] = i;
	*answer = (struct answer){.rows = ends ? 1 : count, .kind = packet->head.kind};
	logits = generator_logits(loop->g->generator, packet->x, which, answer->rows);
	for (int i = 0; i < answer->rows; i++)
		if (choose(loop, &packet->row[which[i]], logits + (size_t)i * (size_t)V,
			   &answer->row[i]))
			return -1;
	return ring_answer(&loop->ring, answer);
}

/* -- on rank 0 ---------------------------------------------------------------------------- */

static int tell(struct loop *loop, const struct answer *answer)
{
	struct generation *g = loop->g;

	for (int i = 0; i < answer->rows; i++) {
		const struct answer_row *row = &answer->row[i];

		loop->told += row->finish != 0;
		g->stats.tokens++;
		if (g->tell && g->tell(g->arg, row->prompt, row->id, (enum finish)row->finish))
			return -1;
	}
	return 0;
}

/* What has come for rank 0 where it is neither the first nor the last stage; all of it at the
 * end. */
static int tell_what_came(struct loop *loop, bool wait)
{
	struct answer answer;
	int there;

	while (loop->told < loop->g->prompts) {
		there = ring_listen(&loop->ring, &answer, wait);
		if (there <= 0)
			return there;
		if (tell(loop, &answer))
			return -1;
	}
	return 0;
}

/* -- a packet ----------------------------------------------------------------------------- */

static void run_rows(struct loop *loop, struct packet *packet)
{
	struct generation *g = loop->g;
	struct decode_row row[GENERATE_ROWS];
	double start = clock_s();

	for (int i = 0; i < packet->head.rows; i++)
		row[i] = (struct decode_row){loop->first ? packet->id[i] : 0,
					     packet->row[i].sequence, packet->row[i].position};
	watchdog_enter(g->watchdog, &(struct watchdog_section){
					WATCH_COMPUTE, 1, "computing tokens", NULL, -1, -1});
	generator_run(g->generator, packet->x, row, packet->head.rows);
	watchdog_leave(g->watchdog);
	g->stats.compute_s += clock_s() - start;
}

/* Through this stage, and on. */
static int pass_on(struct loop *loop, struct packet *packet)
{
	run_rows(loop, packet);
	if (!loop->last)
		return ring_send(&loop->ring, packet);
	return packet->head.kind == PACKET_PROMPT ? 0 : answer_rows(loop, packet);
}

/* -- the stages --------------------------------------------------------------------------- */

/* An answer reaches the desk, and whoever reads on rank 0. */
static int hear(struct loop *loop, const struct answer *answer)
{
	desk_answer(&loop->desk, answer);
	return loop->zero ? tell(loop, answer) : 0;
}

static int hear_answers(struct loop *loop, bool wait)
{
	struct answer answer;

	while (loop->desk.waiting > 0) {
		int there = ring_listen(&loop->ring, &answer, wait);

		if (there <= 0)
			return there;
		if (hear(loop, &answer))
			return -1;
		wait = false;
	}
	return 0;
}

/* The first stage; where it is the last one too, it hears itself. */
static int run_first(struct loop *loop)
{
	struct packet *packet = NULL;
	int waiting;

	while (!desk_done(&loop->desk)) {
		if (!loop->last && hear_answers(loop, false))
			return -1;
		packet = packet ? packet : ring_take(&loop->ring);
		if (!packet)
			return -1;
		waiting = loop->desk.waiting;
		if (!desk_next(&loop->desk, packet)) {
			if (hear_answers(loop, true))
				return -1;
			continue;
		}
		if (pass_on(loop, packet))
			return -1;
		if (loop->last && loop->desk.waiting > waiting && hear(loop, &loop->answer))
			return -1;
		packet = NULL;
	}
	packet = packet ? packet : ring_take(&loop->ring);
	if (!packet)
		return -1;
	packet->head = (struct packet_head){PACKET_END, 0};
	return ring_send(&loop->ring, packet);
}

static int run_other(struct loop *loop)
{
	bool listens = loop->zero && !loop->last;

	for (;;) {
		struct packet *packet = ring_receive(&loop->ring);

		if (!packet)
			return -1;
		if (packet->head.kind == PACKET_END)
			return ring_send(&loop->ring, packet) ||
				       (listens && tell_what_came(loop, true))
				   ? -1
				   : 0;
		if (pass_on(loop, packet) || (listens && tell_what_came(loop, false)))
			return -1;
		if (loop->zero && loop->last && packet->head.kind != PACKET_PROMPT &&
		    tell(loop, &loop->answer))
			return -1;
	}
}

/* -- the run ------------------------------------------------------------------------------ */

static void open_loop(struct loop *loop, struct generation *g)
{
	int stages = g->places.stages, stage = g->places.stage;

	*loop = (struct loop){.g = g,
			      .first = stage == 0,
			      .last = stage == stages - 1,
			      .zero = g->comm->rank == 0};
	ring_open(&loop->ring, g);
	if (loop->first)
		desk_open(&loop->desk, g);
	if (!loop->last)
		return;
	loop->sampler = sampler_open(&g->sampling, g->vocabulary);
	loop->ids = xzalloc((size_t)g->sequences * (size_t)(g->room + 1), sizeof(*loop->ids));
	loop->count = xzalloc((size_t)g->sequences, sizeof(*loop->count));
}

static void close_loop(struct loop *loop)
{
	free(loop->ids);
	free(loop->count);
	sampler_close(loop->sampler);
	desk_close(&loop->desk);
	ring_close(&loop->ring);
}

double generation_sent_bytes(const struct generation *g)
{
	return (double)ring_bytes(g->piece > generator_few() ? g->piece : generator_few(),
				  g->width);
}

double generation_bytes(const struct generation *g, bool last)
{
	double ids = (double)g->sequences * (double)(g->room + 1) * sizeof(int32_t);

	return generation_sent_bytes(g) +
	       (last ? ids + (double)sampler_bytes(g->vocabulary) + g->text_bytes : 0);
}

/* The first stage knows how long things took, rank 0 says it. */
static int share_times(struct loop *loop)
{
	struct generation_stats *s = &loop->g->stats;
	double both[2] = {loop->desk.prompt_s, loop->desk.token_s};

	if (comm_broadcast(loop->g->comm, loop->ring.first, both, sizeof(both)))
		return -1;
	s->prompt_s = both[0];
	s->token_s = both[1];
	return 0;
}

/* Everything has left, and nobody is gone while others still expect something. */
static int end_together(struct loop *loop)
{
	int status = ring_settle(&loop->ring);

	watchdog_enter(loop->g->watchdog,
		       &(struct watchdog_section){WATCH_SETTLE, 1, "waiting at the end",
						  "the other ranks", -1, -1});
	status = status ? status : share_times(loop);
	watchdog_leave(loop->g->watchdog);
	return status;
}

int generation_run(struct generation *g)
{
	struct loop loop;
	int status;

	watchdog_enter(g->watchdog,
		       &(struct watchdog_section){WATCH_BETWEEN, 3, "between two waits",
						  "the other ranks", -1, -1});
	open_loop(&loop, g);
	if (loop.first)
		status = run_first(&loop);
	else if (g->places.stage >= 0)
		status = run_other(&loop);
	else
		status = loop.zero ? tell_what_came(&loop, true) : 0;
	if (!status)
		status = end_together(&loop);
	if (status)
		comm_abort(g->comm, error_code() ? error_code() : EXIT_RETRY);
	close_loop(&loop);
	watchdog_leave(g->watchdog);
	return status ? error_code() ? error_code() : EXIT_RETRY : 0;
}
