/*
 * The run directory (formats.md). Rank 0 alone writes it. Nothing in it is lost before everything that can be
 * checked has been checked: opening only looks and locks.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "launch/session.h"

/* What a run writes, and --overwrite removes. Nothing else in the directory is ever touched. */
static const char *const run_files[] = {
	"config.resolved.yaml", "plan.json", "profile.json", "profile.measured.json", "ops.json",
	"samples.md", "metrics.jsonl", "trace.json", "log", "ckpt", "adapter", "report.html",
};

/* A process that was killed may hold the lock until the launcher has torn its job down. */
#define LOCK_PATIENCE_S 15.0

/* The name of something in a directory other than our lock, or null. The arena owns it. */
static const char *any_entry(struct arena *arena, const char *path)
{
	DIR *folder = opendir(path);
	const char *found = NULL;
	struct dirent *entry;

	if (!folder)
		return NULL;
	while (!found && (entry = readdir(folder)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") &&
		    strcmp(entry->d_name, ".lock"))
			found = arena_copy(arena, entry->d_name, strlen(entry->d_name));
	closedir(folder);
	return found;
}

static int refuse_used(struct session *s)
{
	const char *entry = any_entry(&s->arena, s->run);

	bool run = path_exists(path_join(&s->arena, s->run, "metrics.jsonl")) ||
		   path_exists(path_join(&s->arena, s->run, "config.resolved.yaml"));

	if (!entry || (run && (s->options.resume || s->options.overwrite)))
		return 0;
	if (run)
		return error(EXIT_CREATE,
			     "'%s' holds a run: go on with --resume, or give it up with "
			     "--overwrite", s->run);
	return error(EXIT_CREATE,
		     "'%s' holds something else than a run (it has '%s'): choose another --out",
		     s->run, entry);
}

static int lock(struct session *s)
{
	const char *path = path_join(&s->arena, s->run, ".lock");
	double start = clock_s();

	s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (s->lock < 0)
		return error(EXIT_CREATE, "cannot write into '%s': %s", s->run, strerror(errno));
	while (flock(s->lock, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return error(EXIT_CREATE, "cannot lock '%s': %s", path, strerror(errno));
		if (clock_s() - start > LOCK_PATIENCE_S)
			return error(EXIT_RETRY, "another run is using '%s'", s->run);
		clock_sleep(0.1);
	}
	return 0;
}

static const char *run_path(struct session *s)
{
	const char *name = s->job.cluster.name;
	char stamp[32];

	if (s->options.out)
		return path_absolute(&s->arena, s->options.out);
	if (s->job.out)
		return path_absolute(&s->arena, s->job.out);
	clock_stamp(stamp, sizeof(stamp));
	return path_absolute(&s->arena, arena_format(&s->arena, "runs/%s-%s", name, stamp));
}

int rundir_open(struct session *s)
{
	s->run = xcopy(run_path(s));
	if (folder_make(s->run) || refuse_used(s))
		return -1;
	return lock(s);
}

void rundir_close(struct session *s, bool began)
{
	if (s->lock < 0)
		return;
	if (!began && !any_entry(&s->arena, s->run)) {
		unlink(path_join(&s->arena, s->run, ".lock"));
		rmdir(s->run);
	}
	close(s->lock);
	s->lock = -1;
}

static int write_text(struct session *s, const char *name, struct text *text)
{
	int status = file_replace(path_join(&s->arena, s->run, name), text->data, text->bytes);

	text_release(text);
	return status;
}

int rundir_begin(struct session *s)
{
	struct text config = {0}, plan = {0}, profile = {0};

	s->began = true;
	for (size_t i = 0; s->options.overwrite && i < sizeof(run_files) / sizeof(*run_files); i++) {
		const char *path = path_join(&s->arena, s->run, run_files[i]);

		if (folder_remove(path))
			return -1;
	}
	if (folder_make(path_join(&s->arena, s->run, "log")) ||
	    folder_sync(path_folder(&s->arena, s->run)))
		return -1;
	config_write(&s->job.config, &s->job, &config);
	plan_write(&s->plan, &s->problem, &plan);
	if (write_text(s, "config.resolved.yaml", &config) | write_text(s, "plan.json", &plan))
		return -1;
	if (file_replace(path_join(&s->arena, s->run, "samples.md"), s->samples, strlen(s->samples)))
		return -1;
	if (!s->profile)
		return 0;
	profile_write(s->profile, &profile);
	return write_text(s, "profile.json", &profile);
}

static void append_log(struct session *s, int rank, const char *data, size_t bytes)
{
	const char *path = arena_format(&s->arena, "%s/log/rank-%02d.log", s->run, rank);
	FILE *file = bytes > 0 ? fopen(path, "a") : NULL;

	if (!file)
		return;
	fwrite(data, 1, bytes, file);
	fclose(file);
}

int rundir_logs(struct session *s)
{
	char *mine = log_take();
	size_t bytes = mine ? strlen(mine) : 0;
	void **data = xzalloc((size_t)s->comm->size, sizeof(*data));
	size_t *sizes = xzalloc((size_t)s->comm->size, sizeof(*sizes));
	int status = comm_gather(s->comm, 0, mine ? mine : "", bytes, data, sizes);

	for (int i = 0; !status && s->comm->rank == 0 && i < s->comm->size; i++) {
		append_log(s, i, data[i], sizes[i]);
		free(data[i]);
	}
	free(mine);
	free(data);
	free(sizes);
	return status;
}
