/*
 * model/render.c - a chat as the text that a template makes of it, byte for byte what
 * transformers' apply_chat_template returns, with notes of which bytes people wrote and which
 * the assistant said.
 */
#include "model/chat.h"

#include <stdlib.h>
#include <string.h>

/* -- pieces -------------------------------------------------------------------------------- */

static void span_add(struct spans *spans, size_t from, size_t to)
{
	if (spans->count == spans->room) {
		spans->room = spans->room ? 2 * spans->room : 16;
		spans->item = xrealloc(spans->item, spans->room * sizeof *spans->item);
	}
	spans->item[spans->count++] = (struct span){from, to};
}

/* Text of the template itself. */
static void put(struct rendered *out, const struct chat_template *t, const char *piece)
{
	for (; piece && *piece; piece++) {
		const char *token = *piece == '\1' ? t->bos : *piece == '\2' ? t->eos : NULL;

		if (*piece > '\2')
			text_put(&out->text, piece, 1);
		else if (token)
			text_put(&out->text, token, strlen(token));
	}
}

/* Bytes of the space (as Python's str.strip means it) that a text begins with. */
static size_t space_at(const char *text, size_t bytes)
{
	const uint8_t *p = (const uint8_t *)text;

	if (bytes > 0 && ((p[0] >= 0x09 && p[0] <= 0x0d) || (p[0] >= 0x1c && p[0] <= 0x20)))
		return 1;
	if (bytes > 1 && p[0] == 0xc2 && (p[1] == 0x85 || p[1] == 0xa0))
		return 2;
	if (bytes < 3)
		return 0;
	uint32_t code = (uint32_t)(p[0] & 0x0f) << 12 | (uint32_t)(p[1] & 0x3f) << 6 |
			(p[2] & 0x3f);
	bool three = p[0] >= 0xe1 && p[0] <= 0xe3;
	bool space = code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
		     code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;

	return three && space ? 3 : 0;
}

static size_t space_before(const char *text, size_t bytes)
{
	for (size_t i = 1; i <= 3 && i <= bytes; i++) {
		if (space_at(text + bytes - i, i) == i)
			return i;
	}
	return 0;
}

/* What a person wrote. */
static void put_content(struct rendered *out, const char *text, size_t bytes, bool trim)
{
	size_t from = out->text.bytes, space;

	while (trim && (space = space_at(text, bytes)) > 0) {
		text += space;
		bytes -= space;
	}
	while (trim && (space = space_before(text, bytes)) > 0)
		bytes -= space;
	text_put(&out->text, text, bytes);
	span_add(&out->content, from, out->text.bytes);
}

/* Takes spaces off the end of a text that grew from `from`. */
static void trim_end(struct rendered *out, size_t from)
{
	struct text *text = &out->text;
	size_t space;

	while ((space = space_before(text->data + from, text->bytes - from)) > 0)
		text->bytes -= space;
	text->data[text->bytes] = '\0';
	for (size_t i = 0; i < out->content.count; i++) {
		struct span *span = &out->content.item[i];

		span->from = span->from < text->bytes ? span->from : text->bytes;
		span->to = span->to < text->bytes ? span->to : text->bytes;
	}
}

/* -- turns --------------------------------------------------------------------------------- */

struct render {
	const struct chat_template *t;
	const struct chat *chat;
	struct rendered *out;
	int first;     /* turns before it were the system's, at the start */
	int last_user; /* the last turn of the user */
};

static void put_form(const struct render *r, const struct turn_form *form,
		     const struct chat_turn *turn)
{
	put(r->out, r->t, form->before);
	put_content(r->out, turn->text, turn->bytes, form->trim);
	put(r->out, r->t, form->stop);
	put(r->out, r->t, form->after);
}

static void put_system_turn(const struct render *r, const struct turn_form *form,
			    const struct chat_turn *turn)
{
	if (turn->bytes > 0 || !r->t->row.unempty)
		put_form(r, form, turn);
}

/* The system's message at the start, where it is a turn of its own. */
static void put_system(const struct render *r)
{
	static const char with_input[] =
		"Below is an instruction that describes a task, paired with an input that "
		"provides further context. Write a response that appropriately completes "
		"the request.";
	const struct template_row *row = &r->t->row;
	const struct chat *chat = r->chat;
	const char *standard = row->standard;
	const struct chat_turn *next = r->first < chat->count ? &chat->turn[r->first] : NULL;

	if (row->system_way != SYSTEM_TURN)
		return;
	if (r->first > 0) {
		put_system_turn(r, &row->system, &chat->turn[0]);
		return;
	}
	if (!standard)
		return;
	if (row->alpaca && next && next->input_bytes > 0)
		standard = with_input;
	put(r->out, r->t, row->system.before);
	put(r->out, r->t, standard);
	put(r->out, r->t, row->system.stop);
	put(r->out, r->t, row->system.after);
}

static void put_user(const struct render *r, int i)
{
	const struct template_row *row = &r->t->row;
	const struct chat_turn *turn = &r->chat->turn[i], *system = NULL;
	bool here = row->system_way == SYSTEM_FIRST_USER
			    ? i == r->first
			    : row->system_way == SYSTEM_LAST_USER && i == r->chat->count - 1;
	bool trim = row->user.trim;

	if (r->first > 0 && here)
		system = &r->chat->turn[0];
	if (i > r->first)
		put(r->out, r->t, row->between);
	put(r->out, r->t, row->user.before);
	size_t from = r->out->text.bytes;
	if (system) {
		put_form(r, &row->system, system);
		trim = trim && !row->trim_joined;
	}
	put_content(r->out, turn->text, turn->bytes, trim);
	if (turn->input_bytes > 0) {
		put(r->out, r->t, row->alpaca ? "\n\n### Input:\n" : "\n");
		put_content(r->out, turn->input, turn->input_bytes, false);
	}
	if (row->user.trim && (system || turn->input_bytes > 0))
		trim_end(r->out, from);
	put(r->out, r->t, row->user.stop);
	put(r->out, r->t, row->user.after);
}

static const char *last_words(const char *text, size_t bytes, const char *words)
{
	const char *found = NULL, *at = text;
	size_t length = strlen(words);

	while ((at = memmem(at, bytes - (size_t)(at - text), words, length)))
		found = at++;
	return found;
}

struct piece {
	const char *text;
	size_t bytes;
};

/* A piece without newlines at its start, and at its end where both. */
static struct piece without_lines(struct piece p, bool both)
{
	while (p.bytes > 0 && p.text[0] == '\n') {
		p.text++;
		p.bytes--;
	}
	while (both && p.bytes > 0 && p.text[p.bytes - 1] == '\n')
		p.bytes--;
	return p;
}

/*
 * An answer of Qwen3: what stands between <think> and </think> is kept in the last answer
 * alone, which has that block even where nothing was thought.
 */
static void put_thought(const struct render *r, int i)
{
	const struct turn_form *form = &r->t->row.assistant;
	const struct chat_turn *turn = &r->chat->turn[i];
	struct piece said = {turn->text, turn->bytes}, thought = {turn->text, 0};
	const char *end = last_words(turn->text, turn->bytes, "</think>");

	if (end) {
		const char *first = memmem(turn->text, turn->bytes, "</think>", 8);

		said.text = end + strlen("</think>");
		said.bytes = turn->bytes - (size_t)(said.text - turn->text);
		said = without_lines(said, false);
		thought.bytes = (size_t)(first - turn->text);
		const char *begin = last_words(turn->text, thought.bytes, "<think>");
		if (begin) {
			thought.text = begin + strlen("<think>");
			thought.bytes = (size_t)(first - thought.text);
		}
		thought = without_lines(thought, true);
	}
	put(r->out, r->t, form->before);
	size_t from = r->out->text.bytes;
	if (i > r->last_user && (i == r->chat->count - 1 || thought.bytes > 0)) {
		put(r->out, r->t, "<think>\n");
		put_content(r->out, thought.text, thought.bytes, false);
		put(r->out, r->t, "\n</think>\n\n");
		from = thought.bytes > 0 ? from : r->out->text.bytes;
		said = without_lines(said, false);
	}
	put_content(r->out, said.text, said.bytes, false);
	put(r->out, r->t, form->stop);
	span_add(&r->out->answer, from, r->out->text.bytes);
	put(r->out, r->t, form->after);
}

static void put_answer(const struct render *r, int i)
{
	const struct turn_form *form = &r->t->row.assistant;
	const struct chat_turn *turn = &r->chat->turn[i];

	put(r->out, r->t, form->before);
	size_t from = r->out->text.bytes;
	put_content(r->out, turn->text, turn->bytes, form->trim);
	put(r->out, r->t, form->stop);
	span_add(&r->out->answer, from, r->out->text.bytes);
	put(r->out, r->t, form->after);
}

/* -- the whole ----------------------------------------------------------------------------- */

/* Why a turn has no place in the template; null: it has. */
static const char *misplaced(const struct render *r, int i)
{
	const struct template_row *row = &r->t->row;
	enum chat_role role = r->chat->turn[i].role;

	if (role == CHAT_SYSTEM && row->system_way == SYSTEM_REFUSED)
		return "the template has no place for a system message";
	if (role == CHAT_SYSTEM && i > 0 && row->alternate)
		return "a system message may stand at the start alone";
	if (role != CHAT_SYSTEM && row->alternate &&
	    (role == CHAT_USER) != ((i - r->first) % 2 == 0))
		return "user and assistant must take turns, the user first";
	return NULL;
}

int render_chat(const struct chat_template *t, const struct chat *chat, struct rendered *out,
		int *turn, const char **why)
{
	struct render r = {t, chat, out, 0, chat->count - 1};
	struct turn_form later = t->row.system;

	out->text.bytes = out->content.count = out->answer.count = 0;
	r.first = chat->count > 0 && chat->turn[0].role == CHAT_SYSTEM;
	for (int i = 0; i < chat->count; i++) {
		*turn = i;
		*why = misplaced(&r, i);
		if (*why)
			return -1;
		if (chat->turn[i].role == CHAT_USER)
			r.last_user = i;
	}
	if (t->row.later)
		later.before = t->row.later;
	if (t->row.bos)
		put(out, t, "\1");
	put_system(&r);
	for (int i = r.first; i < chat->count; i++) {
		if (chat->turn[i].role == CHAT_SYSTEM)
			put_system_turn(&r, &later, &chat->turn[i]);
		else if (chat->turn[i].role == CHAT_USER)
			put_user(&r, i);
		else if (t->row.think)
			put_thought(&r, i);
		else
			put_answer(&r, i);
	}
	put(out, t, t->row.end);
	return 0;
}

int render_question(const struct chat_template *t, const struct chat *chat, struct rendered *out,
		    int *turn, const char **why)
{
	struct chat_template open = *t;
	const char *header = t->question ? t->question : t->row.assistant.before;

	open.row.end = NULL;
	if (render_chat(&open, chat, out, turn, why) < 0)
		return -1;
	/* A space belongs to the first word of the answer. */
	put(out, t, strcmp(header, " ") == 0 ? NULL : header);
	return 0;
}

void rendered_release(struct rendered *rendered)
{
	text_release(&rendered->text);
	free(rendered->content.item);
	free(rendered->answer.item);
	*rendered = (struct rendered){0};
}
