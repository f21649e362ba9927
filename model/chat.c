/*
 * model/chat.c - conversations: turns that grow.
 */
#include "model/chat.h"

#include <stdlib.h>

void chat_add(struct chat *chat, enum chat_role role, const char *text, size_t bytes)
{
	if (chat->count == chat->room) {
		chat->room = chat->room ? 2 * chat->room : 16;
		chat->turn = xrealloc(chat->turn, (size_t)chat->room * sizeof *chat->turn);
	}
	chat->turn[chat->count++] = (struct chat_turn){.role = role, .text = text, .bytes = bytes};
}

void chat_release(struct chat *chat)
{
	free(chat->turn);
	*chat = (struct chat){0};
}
