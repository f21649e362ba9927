/*
 * base/voice.h - what error.c and log.c share: the state of one thread's mouth.
 *
 * Thread-local, because two ranks may live in one process (comm/local.c) and must not mix.
 */
#ifndef EDGEPIPE_BASE_VOICE_H
#define EDGEPIPE_BASE_VOICE_H

#include "base/base.h"

struct voice {
	int rank;		/* -1: none */
	int code;		/* of the first error; 0: none */
	int muted;		/* above 0: errors are dropped */
	bool holding;		/* errors go to held instead of stderr */
	struct text held;
	struct text noted;
};

/* The calling thread's. */
struct voice *voice(void);

/* Adds "edgepipe: rank 3: kind: ", or "edgepipe: kind: " for rank 0 and -1. */
void voice_prefix(struct text *line, int rank, const char *kind);
/* Adds formatted text; control characters other than newline and tab become '?'. */
void voice_text(struct text *line, const char *fmt, va_list args);
/* Ends the line, writes it to stderr in one piece and releases it. */
void voice_print(struct text *line);

#endif
