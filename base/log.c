/*
 * base/log.c - lines for people, warnings, and the log that a thread keeps for its file.
 *
 * Every line is put together first and written in one piece, since the lines of many ranks meet
 * in one terminal. Notes stay in memory because rank 0 alone writes the run's files; with
 * LOG_VERBOSE they are shown on stderr as well.
 */
#include "base/voice.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The one global: the level is the process's, whichever thread speaks. */
static atomic_int level_now = LOG_NORMAL;

static _Thread_local struct voice voice_here = {.rank = -1};

struct voice *voice(void)
{
	return &voice_here;
}

void log_level(enum log_level level)
{
	atomic_store(&level_now, (int)level);
}

void log_rank(int rank)
{
	voice_here.rank = rank < 0 ? -1 : rank;
}

void voice_prefix(struct text *line, int rank, const char *kind)
{
	if (rank > 0)
		text_add(line, "edgepipe: rank %d: %s: ", rank, kind);
	else
		text_add(line, "edgepipe: %s: ", kind);
}

void voice_text(struct text *line, const char *fmt, va_list args)
{
	char buffer[512];
	size_t start = line->bytes;
	va_list again;

	va_copy(again, args);
	int bytes = vsnprintf(buffer, sizeof buffer, fmt, args);
	if (bytes >= 0 && (size_t)bytes < sizeof buffer) {
		text_put(line, buffer, (size_t)bytes);
	} else if (bytes >= 0) {
		char *data = xalloc((size_t)bytes + 1);

		vsnprintf(data, (size_t)bytes + 1, fmt, again);
		text_put(line, data, (size_t)bytes);
		free(data);
	}
	va_end(again);

	/* A model file must not be able to steer the terminal through a message. */
	for (size_t i = start; i < line->bytes; i++) {
		unsigned char c = (unsigned char)line->data[i];

		if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
			line->data[i] = '?';
	}
}

static void end_line(struct text *line)
{
	if (line->bytes == 0 || line->data[line->bytes - 1] != '\n')
		text_put(line, "\n", 1);
}

void voice_print(struct text *line)
{
	end_line(line);
	fwrite(line->data, 1, line->bytes, stderr);
	text_release(line);
}

void say(const char *fmt, ...)
{
	struct text line = {0};
	va_list args;

	int level = atomic_load(&level_now);

	if (level == LOG_QUIET || voice_here.rank > 0)
		return;
	va_start(args, fmt);
	voice_text(&line, fmt, args);
	va_end(args);
	end_line(&line);
	fwrite(line.data, 1, line.bytes, level == LOG_ASIDE ? stderr : stdout);
	fflush(stdout);
	text_release(&line);
}

void warn(const char *fmt, ...)
{
	struct text line = {0};
	va_list args;

	voice_prefix(&line, voice_here.rank, "warning");
	va_start(args, fmt);
	voice_text(&line, fmt, args);
	va_end(args);
	note("%s", line.data + strlen("edgepipe: "));
	if (voice_here.holding && voice_here.rank > 0)
		text_release(&line);
	else
		voice_print(&line);
}

void note(const char *fmt, ...)
{
	struct text *noted = &voice_here.noted;
	char stamp[17];
	va_list args;

	clock_stamp(stamp, sizeof stamp);
	size_t start = noted->bytes;
	text_add(noted, "%s ", stamp);
	va_start(args, fmt);
	voice_text(noted, fmt, args);
	va_end(args);
	end_line(noted);
	if (atomic_load(&level_now) == LOG_VERBOSE)
		fwrite(noted->data + start, 1, noted->bytes - start, stderr);
}

void log_give(char *notes)
{
	struct text all = {0};

	if (!notes)
		return;
	text_add(&all, "%s", notes);
	text_put(&all, voice_here.noted.data, voice_here.noted.bytes);
	text_release(&voice_here.noted);
	voice_here.noted = all;
	free(notes);
}

char *log_take(void)
{
	char *data = voice_here.noted.data;

	voice_here.noted = (struct text){0};
	return data;
}
