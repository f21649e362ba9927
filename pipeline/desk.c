/*
 * desk.c - which rows go round the ring next: prompts in pieces, one after the other without
 * waiting, then the tokens that came back, in as many groups as there are stages, so that no
 * stage waits for the others. A prompt that is finished leaves its seat to the next one.
 */
#include <stdlib.h>

#include "pipeline/ring.h"

void desk_open(struct desk *desk, const struct generation *g)
{
	*desk = (struct desk){.g = g, .groups = g->places.stages, .mark_s = clock_s()};
	desk->seat = xzalloc((size_t)g->sequences, sizeof(*desk->seat));
	for (int i = 0; i < g->sequences; i++)
		desk->seat[i].prompt = -1;
}

void desk_close(struct desk *desk)
{
	free(desk->seat);
}

bool desk_done(const struct desk *desk)
{
	return desk->finished == desk->g->prompts;
}

/* Time since the last mark belongs to prompts as long as one is on its way. */
static void mark(struct desk *desk)
{
	double now = clock_s();

	*(desk->prompts_waiting > 0 ? &desk->prompt_s : &desk->token_s) += now - desk->mark_s;
	desk->mark_s = now;
}

static void take_seats(struct desk *desk)
{
	for (int i = 0; i < desk->g->sequences && desk->taken < desk->g->prompts; i++)
		if (desk->seat[i].prompt < 0)
			desk->seat[i] = (struct seat){desk->taken++, 0, -1};
}

/* The next piece of the prompt of a seat. */
static void fill_prompt(struct desk *desk, struct packet *packet, int i)
{
	struct seat *seat = &desk->seat[i];
	const struct prompt *prompt = &desk->g->prompt[seat->prompt];
	int rows = prompt->count - seat->sent < desk->g->piece ? prompt->count - seat->sent
							       : desk->g->piece;
	bool ends = seat->sent + rows == prompt->count;

	packet->head = (struct packet_head){ends ? PACKET_PROMPT_END : PACKET_PROMPT, rows};
	for (int k = 0; k < rows; k++) {
		packet->row[k] = (struct packet_row){seat->prompt, i, seat->sent + k};
		packet->id[k] = prompt->id[seat->sent + k];
	}
	mark(desk);
	desk->prompts_waiting += seat->sent == 0;
	seat->sent += rows;
	desk->waiting += ends;
}

/* So many tokens go together that there are `groups` of them. */
static int group_size(const struct desk *desk)
{
	int seated = 0, size;

	for (int i = 0; i < desk->g->sequences; i++)
		seated += desk->seat[i].prompt >= 0;
	size = (seated + desk->groups - 1) / desk->groups;
	return size < generator_few() ? size : generator_few();
}

static bool fill_tokens(struct desk *desk, struct packet *packet)
{
	int most = group_size(desk), rows = 0, seats = desk->g->sequences;

	for (int k = 1; k <= seats && rows < most; k++) {
		int i = (desk->turn + k) % seats;
		struct seat *seat = &desk->seat[i];

		if (seat->prompt < 0 || seat->next < 0)
			continue;
		packet->row[rows] = (struct packet_row){seat->prompt, i, seat->sent++};
		packet->id[rows++] = seat->next;
		seat->next = -1;
	}
	if (rows == 0)
		return false;
	desk->turn = packet->row[rows - 1].sequence;
	packet->head = (struct packet_head){PACKET_TOKENS, rows};
	desk->waiting++;
	return true;
}

bool desk_next(struct desk *desk, struct packet *packet)
{
	take_seats(desk);
	if (desk->waiting >= ANSWERS)
		return false;
	for (int i = 0; i < desk->g->sequences; i++) {
		const struct seat *seat = &desk->seat[i];

		if (seat->prompt < 0 || seat->sent >= desk->g->prompt[seat->prompt].count)
			continue;
		fill_prompt(desk, packet, i);
		return true;
	}
	return fill_tokens(desk, packet);
}

void desk_answer(struct desk *desk, const struct answer *answer)
{
	mark(desk);
	desk->waiting--;
	if (answer->kind == PACKET_PROMPT_END)
		desk->prompts_waiting--;
	for (int k = 0; k < answer->rows; k++) {
		struct seat *seat = &desk->seat[answer->row[k].sequence];

		seat->next = answer->row[k].id;
		if (answer->row[k].finish) {
			seat->prompt = -1;
			desk->finished++;
		}
	}
}
