/*
 * RUN/metrics.jsonl: one object a line, one write() a line, so that a killed run leaves whole
 * lines and at most one broken one at the end, which a resumed run drops.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pipeline/pipeline.h"

/* The step that a line belongs to; -1 for a line without one, or a broken one. */
static long long line_step(const char *line, size_t bytes)
{
	static const char key[] = "\"step\":";
	const char *at = memmem(line, bytes, key, sizeof(key) - 1);

	if (!at || line[bytes - 1] != '}')
		return -1;
	return strtoll(at + sizeof(key) - 1, NULL, 10);
}

static bool is_kind(const char *line, size_t bytes, const char *start)
{
	return bytes >= strlen(start) && !memcmp(line, start, strlen(start)) &&
	       line[bytes - 1] == '}';
}

/* What a run that goes on after `step` keeps of an earlier log. */
static void keep_lines(const char *data, size_t bytes, long long step, bool finished,
		       struct text *kept)
{
	const char *end = data + bytes;

	for (const char *line = data, *next; line < end; line = next) {
		const char *newline = memchr(line, '\n', (size_t)(end - line));
		size_t length = (size_t)((newline ? newline : end) - line);
		long long of = length > 0 ? line_step(line, length) : -1;

		next = line + length + 1;
		if (newline && ((of >= 0 && of <= step) ||
				is_kind(line, length, "{\"kind\":\"run\"") ||
				(finished && is_kind(line, length, "{\"kind\":\"end\""))))
			text_add(kept, "%.*s\n", (int)length, line);
	}
}

int metrics_open(struct metrics *metrics, const char *path, long long step, bool finished)
{
	struct text kept = {0};
	size_t bytes = 0;
	char *data = NULL;
	int status = 0;

	*metrics = (struct metrics){-1, path};
	if (path_exists(path)) {
		data = file_read(path, &bytes);
		if (!data)
			return -1;
		keep_lines(data, bytes, step, finished, &kept);
		free(data);
	}
	if (kept.bytes != bytes)
		status = file_replace(path, kept.data ? kept.data : "", kept.bytes);
	text_release(&kept);
	if (status)
		return -1;
	metrics->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (metrics->fd < 0)
		return error(EXIT_CREATE, "cannot write '%s': %s", path, strerror(errno));
	return 0;
}

void metrics_line(struct metrics *metrics, const struct text *line)
{
	struct text whole = {0};
	ssize_t written;

	if (metrics->fd < 0)
		return;
	text_put(&whole, line->data, line->bytes);
	text_put(&whole, "\n", 1);
	written = write(metrics->fd, whole.data, whole.bytes);
	if (written != (ssize_t)whole.bytes) {
		warn("cannot write '%s': %s; training goes on without it", metrics->path,
		     written < 0 ? strerror(errno) : "disk full");
		close(metrics->fd);
		metrics->fd = -1;
	}
	text_release(&whole);
}

void metrics_sync(struct metrics *metrics)
{
	if (metrics->fd >= 0)
		fdatasync(metrics->fd);
}

void metrics_close(struct metrics *metrics)
{
	if (metrics->fd >= 0)
		close(metrics->fd);
	metrics->fd = -1;
}

/* -- memory -------------------------------------------------------------------------------- */

static double status_bytes(const char *key)
{
	char line[256];
	double kib = 0;
	FILE *file = fopen("/proc/self/status", "r");

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, key, strlen(key)))
			kib = strtod(line + strlen(key), NULL);
	fclose(file);
	return kib * 1024;
}

double memory_peak_bytes(void)
{
	return status_bytes("VmHWM:");
}

double memory_resident_bytes(void)
{
	return status_bytes("VmRSS:");
}
