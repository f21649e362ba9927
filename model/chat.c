/*
 * model/chat.c - conversations: turns that grow, and questions to a model.
 */
#include "model/chat.h"

#include <stdlib.h>
#include <string.h>

void chat_add(struct chat *chat, enum chat_role role, const char *text, size_t bytes)
{
	if (chat->count == chat->room) {
		chat->room = chat->room ? 2 * chat->room : 16;
		chat->turn = xrealloc(chat->turn, (size_t)chat->room * sizeof *chat->turn);
	}
	chat->turn[chat->count++] = (struct chat_turn){.role = role, .text = text, .bytes = bytes};
}

int template_ask(const struct chat_template *t, struct tokenizer *tokenizer, const char *where,
		 const char *system, const char *text, size_t bytes, struct ids *ids)
{
	struct chat chat = {0};
	struct rendered rendered = {0};
	const char *why;
	int turn, status;

	if (system)
		chat_add(&chat, CHAT_SYSTEM, system, strlen(system));
	chat_add(&chat, CHAT_USER, text, bytes);
	if (render_question(t, &chat, &rendered, &turn, &why) < 0)
		status = error(EXIT_DATA, "%s: the template %s: %s", where, template_name(t), why);
	else
		status = encode_rendered(tokenizer, t, &rendered, ids);
	rendered_release(&rendered);
	chat_release(&chat);
	return status;
}

void chat_release(struct chat *chat)
{
	free(chat->turn);
	*chat = (struct chat){0};
}
