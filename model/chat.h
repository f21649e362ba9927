/*
 * model/chat.h - conversations on their way from a line of a file to ids: what was said by whom,
 * the text that a template makes of it, and what of that text is whose.
 */
#ifndef EDGEPIPE_MODEL_CHAT_H
#define EDGEPIPE_MODEL_CHAT_H

#include "model/model.h"

/* -- template.c ---------------------------------------------------------------------------- */

/* What stands around a turn's content; \1 is the BOS token, \2 the end-of-text token. */
struct turn_form {
	const char *before;
	const char *stop;  /* what ends the turn: trained with an answer */
	const char *after; /* null: nothing */
	bool trim;	   /* the content without spaces at its ends */
};
enum system_way {
	SYSTEM_TURN,	    /* a turn of its own */
	SYSTEM_FIRST_USER,  /* at the start of the first user's content */
	SYSTEM_LAST_USER,   /* at the start of the last turn, if it is the user's */
	SYSTEM_REFUSED,
};
struct template_row {
	const char *name;
	bool bos; /* the text starts with BOS */
	enum system_way system_way;
	const char *standard; /* what the system says where the chat has no such turn; null: nothing */
	struct turn_form system, user, assistant;
	const char *later;   /* before a system's turn that is not the first; null: as the first */
	const char *between; /* before a user's turn that is not the first; null: nothing */
	const char *end;     /* null: nothing */
	bool alternate;	     /* user, assistant, user, ... alone */
	bool trim_joined;    /* the user's content is trimmed with the system's before it */
	bool think;	     /* Qwen3's: the last answer begins with what was thought */
	bool alpaca;	     /* Alpaca's: an input is a block of its own */
	bool unempty;	     /* no empty messages of the system */
	const char *token[6]; /* tokens that it writes, where the vocabulary has them; ended by null */
};
/* A template as a model's tokenizer is to read it. */
struct chat_template {
	struct template_row row;
	const char *bos, *eos; /* texts; null: there is none */
	const char *question;  /* where the next answer begins; null: as any answer does */
	struct arena arena;
};

/* -- template_words.c ---------------------------------------------------------------------- */

/* What a Jinja template says. */
struct jinja {
	const char *words;    /* in one spelling, without the others */
	const char *standard; /* the standard message of ChatML that it holds; null: none */
	const char *question; /* behind what waits for an answer; null: what its row says */
};
struct known_template {
	const char *digest, *name;
	bool today;   /* it writes the date of today */
	bool unempty; /* it leaves empty messages of the system out */
};
/* What a Jinja template is, by its words; null: none that is known. */
const struct known_template *template_known(struct arena *arena, const char *jinja,
					    struct jinja *said);

/* -- render.c ------------------------------------------------------------------------------ */

struct span {
	size_t from, to; /* bytes */
};
struct spans {
	struct span *item;
	size_t count, room;
};
/* A chat as text. Once made it can be used again. */
struct rendered {
	struct text text;
	struct spans content; /* what people wrote: no special tokens are sought in there */
	struct spans answer;  /* the assistant's contents, each with what ends it */
};
/* -1 where the template has no place for a turn: its number in *turn, and why, nothing said. */
int render_chat(const struct chat_template *t, const struct chat *chat, struct rendered *out,
		int *turn, const char **why);
/* The same up to where the next answer begins. */
int render_question(const struct chat_template *t, const struct chat *chat, struct rendered *out,
		    int *turn, const char **why);
void rendered_release(struct rendered *rendered);

/* -- spelled.c ----------------------------------------------------------------------------- */

/* Appends the ids of a chat. Of each span of answer, `from` and `to` become numbers of ids. */
int encode_rendered(struct tokenizer *tokenizer, const struct chat_template *t,
		    struct rendered *rendered, struct ids *ids);

/* -- chat.c -------------------------------------------------------------------------------- */

/* A turn more; the text stays its owner's. */
void chat_add(struct chat *chat, enum chat_role role, const char *text, size_t bytes);
/* Frees the turns, not their texts. */
void chat_release(struct chat *chat);

#endif
