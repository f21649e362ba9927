/*
 * model/spelled.c - the ids of a chat that was written out.
 *
 * The template's own tokens become their ids where the template wrote them and nowhere else: an
 * "<|im_end|>" that a user typed stays six or so tokens of text. So a chat in which nobody typed
 * a special token is encoded whole, as transformers does, and one in which somebody did is cut at
 * the template's tokens first. Words may reach over the border of header and content: the first
 * token with a byte of the content is where the content begins.
 */
#include "model/chat.h"
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* A token of the template in the text. */
struct mark {
	size_t from, to; /* bytes */
	size_t id;	 /* its number in the ids */
};
struct spelling {
	struct tokenizer *tokenizer;
	const struct chat_template *t;
	const struct rendered *rendered;
	struct ids *ids, part; /* part: scratch */
	size_t base;	       /* ids that were there before */
	bool whole;	       /* the text was encoded as one */
	struct mark *mark;
	size_t marks, room;
};

/* The longest token of the template that stands in text[at..end); its bytes, 0: none. */
static size_t token_at(const struct spelling *s, size_t at, size_t end, int *id)
{
	const struct template_row *row = &s->t->row;
	const char *tokens[] = {s->t->bos, s->t->eos, row->token[0], row->token[1],
				row->token[2], row->token[3]};
	size_t longest = 0;

	for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
		size_t bytes = tokens[i] ? strlen(tokens[i]) : 0;

		if (bytes <= longest || bytes > end - at ||
		    memcmp(s->rendered->text.data + at, tokens[i], bytes) != 0)
			continue;
		int found = tokenizer_find(s->tokenizer, tokens[i]);
		if (found >= 0 &&
		    s->tokenizer->vocabulary.token[found].kind != TOKEN_MODEL) {
			longest = bytes;
			*id = found;
		}
	}
	return longest;
}

/* Whether a special token stands in what people wrote. */
static bool is_typed(const struct spelling *s)
{
	const struct spans *content = &s->rendered->content;
	const struct tokenizer *t = s->tokenizer;

	for (size_t i = 0; i < 2 * content->count; i++) {
		const struct span *span = &content->item[i / 2];
		struct added_match match = {0};

		while (added_next(&t->added, i % 2, true, s->rendered->text.data + span->from,
				  span->to - span->from, &match)) {
			if (t->vocabulary.token[match.id].kind == TOKEN_SPECIAL)
				return true;
			match.done = match.end;
		}
	}
	return false;
}

static int add_text(struct spelling *s, size_t from, size_t to)
{
	if (from == to || s->whole)
		return 0;
	return tokenizer_encode(s->tokenizer, s->rendered->text.data + from, to - from, false,
				s->ids);
}

static void add_mark(struct spelling *s, size_t from, size_t to, int id)
{
	if (s->marks == s->room) {
		s->room = s->room ? 2 * s->room : 32;
		s->mark = xrealloc(s->mark, s->room * sizeof *s->mark);
	}
	size_t at = s->ids->count;
	if (s->whole) {
		/* The ids are there: this is the next of its kind. */
		at = s->marks > 0 ? s->mark[s->marks - 1].id + 1 : s->base;
		while (at < s->ids->count && s->ids->id[at] != id)
			at++;
	} else {
		*ids_take(s->ids, 1) = id;
	}
	s->mark[s->marks++] = (struct mark){from, to, at};
}

/* Finds the template's tokens, and encodes what is not encoded yet. */
static int encode_all(struct spelling *s)
{
	const struct spans *content = &s->rendered->content;
	size_t bytes = s->rendered->text.bytes, done = 0, next = 0;

	for (size_t at = 0; at < bytes;) {
		while (next < content->count && content->item[next].to <= at)
			next++;
		if (next < content->count && content->item[next].from <= at) {
			at = content->item[next].to;
			continue;
		}
		int id;
		size_t end = next < content->count ? content->item[next].from : bytes;
		size_t length = token_at(s, at, end, &id);
		if (length == 0) {
			at++;
			continue;
		}
		if (add_text(s, done, at) < 0)
			return -1;
		add_mark(s, at, at + length, id);
		done = at += length;
	}
	return add_text(s, done, bytes);
}

/* The number of the first id that has a byte at or behind a place in the text. */
static int border(struct spelling *s, size_t at, size_t *id)
{
	const struct mark *mark = NULL;
	size_t low = 0, high = s->marks, same = 0;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (s->mark[middle].to <= at)
			low = middle + 1;
		else
			high = middle;
	}
	mark = low > 0 ? &s->mark[low - 1] : NULL;
	size_t from = !mark ? 0 : s->whole ? mark->from : mark->to;
	size_t first = !mark ? s->base : s->whole ? mark->id : mark->id + 1;
	s->part.count = 0;
	if (at > from && tokenizer_encode(s->tokenizer, s->rendered->text.data + from, at - from,
					  s->whole, &s->part) < 0)
		return -1;
	while (same < s->part.count && first + same < s->ids->count &&
	       s->part.id[same] == s->ids->id[first + same])
		same++;
	*id = first + same;
	return 0;
}

int encode_rendered(struct tokenizer *tokenizer, const struct chat_template *t,
		    struct rendered *rendered, struct ids *ids)
{
	struct spelling s = {.tokenizer = tokenizer, .t = t, .rendered = rendered, .ids = ids,
			     .base = ids->count};
	int done = 0;

	s.whole = !is_typed(&s);
	if (s.whole)
		done = tokenizer_encode(tokenizer, rendered->text.data, rendered->text.bytes, true,
					ids);
	if (done == 0)
		done = encode_all(&s);
	for (size_t i = 0; i < rendered->answer.count && done == 0; i++) {
		struct span *span = &rendered->answer.item[i];

		if (border(&s, span->from, &span->from) < 0 ||
		    border(&s, span->to, &span->to) < 0)
			done = -1;
	}
	ids_release(&s.part);
	free(s.mark);
	return done;
}
