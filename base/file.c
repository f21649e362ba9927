/*
 * base/file.c - whole files, folders and paths.
 *
 * What is written is on the disk when a function returns 0: a run that is killed the moment
 * after must find it.
 */
#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* -- reading ------------------------------------------------------------------------------- */

/* Reads to the end into a block that grows; the size in stat is a hint (0 in /proc). */
static char *read_all(int file, const char *path, size_t room, size_t *bytes)
{
	char *data = malloc(room + 1);
	size_t used = 0;

	while (data) {
		if (used == room) {
			char *more = room <= SIZE_MAX / 4 ? realloc(data, 2 * room + 1) : NULL;

			if (!more)
				break;
			data = more;
			room *= 2;
		}
		ssize_t got = read(file, data + used, room - used);
		if (got < 0 && errno != EINTR) {
			report(EXIT_INPUT, "cannot read '%s': %s", path, strerror(errno));
			free(data);
			return NULL;
		}
		if (got == 0) {
			data[used] = '\0';
			*bytes = used;
			return data;
		}
		used += got > 0 ? (size_t)got : 0;
	}
	free(data);
	return error_null(EXIT_INPUT, "cannot read '%s': too large for memory", path);
}

char *file_read(const char *path, size_t *bytes)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	size_t size = 0;
	char *data = NULL;

	if (file < 0)
		return error_null(EXIT_INPUT, "cannot open '%s': %s", path, strerror(errno));
	if (fstat(file, &status) < 0)
		report(EXIT_INPUT, "cannot read '%s': %s", path, strerror(errno));
	else if (S_ISDIR(status.st_mode))
		report(EXIT_INPUT, "cannot read '%s': it is a folder", path);
	else	/* one byte more than the file, so that the end is met without growing */
		data = read_all(file, path,
				status.st_size > 0 ? (size_t)status.st_size + 1 : 4096, &size);
	close(file);
	if (data && bytes)
		*bytes = size;
	return data;
}

/* -- writing ------------------------------------------------------------------------------- */

/* fsync, where the thing behind the descriptor has a disk (pipes and devices say EINVAL). */
static int sync_it(int file)
{
	if (fsync(file) == 0 || errno == EINVAL || errno == EROFS || errno == ENOTSUP)
		return 0;
	return -1;
}

/* Writes, fsyncs and closes an open file. */
static int write_out(int file, const char *path, const char *data, size_t bytes)
{
	int why = 0;

	while (bytes > 0 && !why) {
		ssize_t put = write(file, data, bytes);

		if (put < 0 && errno != EINTR)
			why = errno;
		if (put > 0) {
			data += put;
			bytes -= (size_t)put;
		}
	}
	if (!why && sync_it(file) < 0)
		why = errno;
	if (close(file) < 0 && !why)
		why = errno;
	if (why)
		return error(EXIT_IO, "cannot write '%s': %s", path, strerror(why));
	return 0;
}

int file_write(const char *path, const void *data, size_t bytes)
{
	int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (file < 0)
		return error(EXIT_CREATE, "cannot create '%s': %s", path, strerror(errno));
	return write_out(file, path, data, bytes);
}

int folder_sync(const char *path)
{
	int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (folder < 0)
		return error(EXIT_IO, "cannot open '%s': %s", path, strerror(errno));
	int rc = sync_it(folder);
	if (rc < 0)
		report(EXIT_IO, "cannot sync '%s': %s", path, strerror(errno));
	close(folder);
	return rc;
}

/* Creates a temporary file; one left by a dead process that had our number is taken away.
 * Errors name the file that was asked for. */
static int create_beside(const char *temporary, const char *path)
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	struct stat status;

	int file = open(temporary, flags, 0666);
	if (file < 0 && errno == EEXIST && unlink(temporary) == 0)
		file = open(temporary, flags, 0666);
	if (file < 0)
		return error(EXIT_CREATE, "cannot create '%s': %s", path, strerror(errno));
	/* A private file stays private. */
	if (stat(path, &status) == 0 && fchmod(file, status.st_mode & 07777) < 0)
		warn("cannot keep the mode of '%s': %s", path, strerror(errno));
	return file;
}

int file_replace(const char *path, const void *data, size_t bytes)
{
	struct arena arena = {0};
	char *temporary = arena_format(&arena, "%s.tmp-%d-%d", path, (int)getpid(),
				       (int)gettid());
	int rc = -1;

	int file = create_beside(temporary, path);
	if (file < 0)
		goto release;
	if (write_out(file, path, data, bytes) < 0)
		goto unlink;
	if (rename(temporary, path) < 0) {
		report(EXIT_CREATE, "cannot replace '%s': %s", path, strerror(errno));
		goto unlink;
	}
	rc = folder_sync(path_folder(&arena, path));
	goto release;
unlink:
	unlink(temporary);
release:
	arena_release(&arena);
	return rc;
}

/* -- folders ------------------------------------------------------------------------------- */

/* mkdir that is content with a folder that is there. */
static int make_one(const char *path)
{
	struct stat status;

	if (mkdir(path, 0777) == 0)
		return 0;
	int why = errno;
	if (why == EEXIST && stat(path, &status) == 0 && S_ISDIR(status.st_mode))
		return 0;
	return error(EXIT_CREATE, "cannot create folder '%s': %s", path, strerror(why));
}

int folder_make(const char *path)
{
	char *prefix = xcopy(path);
	int rc = 0;

	for (char *p = prefix; *p && rc == 0; p++) {
		if (p == prefix || *p != '/')
			continue;
		*p = '\0';
		rc = make_one(prefix);
		*p = '/';
	}
	if (rc == 0)
		rc = make_one(prefix);
	free(prefix);
	return rc;
}

static int remove_at(int parent, const char *name, const char *path);

/* Removes what is in a folder, and closes it. */
static int empty_folder(int folder, const char *path)
{
	DIR *list = fdopendir(folder);
	struct dirent *entry;
	int rc = 0;

	if (!list) {
		close(folder);
		return error(EXIT_IO, "cannot read folder '%s': %s", path, strerror(errno));
	}
	while (rc == 0 && (errno = 0, entry = readdir(list))) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			rc = remove_at(dirfd(list), entry->d_name, path);
	}
	if (rc == 0 && errno != 0)
		rc = error(EXIT_IO, "cannot read folder '%s': %s", path, strerror(errno));
	closedir(list);
	return rc;
}

/*
 * Removes name in the folder parent; path is for messages. Always relative to an open folder
 * and without following links: nobody can lead it elsewhere by swapping a folder for a link.
 */
static int remove_at(int parent, const char *name, const char *path)
{
	if (unlinkat(parent, name, 0) == 0 || errno == ENOENT || errno == ENOTDIR)
		return 0;
	/* EISDIR is Linux's word for a folder, EPERM is POSIX's. */
	if (errno != EISDIR && errno != EPERM)
		goto fail;
	int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (folder < 0)
		goto fail;
	if (empty_folder(folder, path) < 0)
		return -1;
	if (unlinkat(parent, name, AT_REMOVEDIR) == 0)
		return 0;
fail:
	return error(EXIT_IO, "cannot remove '%s' (in '%s'): %s", name, path, strerror(errno));
}

int folder_remove(const char *path)
{
	char *plain = xcopy(path);
	size_t bytes = strlen(plain);
	int rc;

	/* "link/" would name the folder that the link leads to. */
	while (bytes > 0 && plain[bytes - 1] == '/')
		plain[--bytes] = '\0';
	const char *slash = strrchr(plain, '/');
	const char *last = slash ? slash + 1 : plain;
	/* What rm refuses too: the root, and what a folder calls itself. */
	if (bytes == 0 || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
		rc = error(EXIT_IO, "cannot remove '%s': not a name of its own", path);
	else
		rc = remove_at(AT_FDCWD, plain, plain);
	free(plain);
	return rc;
}

/* -- paths --------------------------------------------------------------------------------- */

bool path_exists(const char *path)
{
	struct stat status;

	return stat(path, &status) == 0;
}

char *path_join(struct arena *arena, const char *folder, const char *name)
{
	size_t bytes = strlen(folder);

	if (name[0] == '/' || bytes == 0)
		return arena_copy(arena, name, strlen(name));
	return arena_format(arena, folder[bytes - 1] == '/' ? "%s%s" : "%s/%s", folder, name);
}

char *path_folder(struct arena *arena, const char *path)
{
	size_t bytes = strlen(path);

	while (bytes > 1 && path[bytes - 1] == '/')
		bytes--;
	while (bytes > 0 && path[bytes - 1] != '/')
		bytes--;
	if (bytes == 0)
		return arena_copy(arena, ".", 1);
	while (bytes > 1 && path[bytes - 1] == '/')
		bytes--;
	return arena_copy(arena, path, bytes);
}

char *path_absolute(struct arena *arena, const char *path)
{
	if (path[0] == '/')
		return arena_copy(arena, path, strlen(path));
	while (path[0] == '.' && path[1] == '/')
		path += 2;
	char *here = getcwd(NULL, 0);
	if (!here)
		return error_null(EXIT_INPUT, "cannot name the working directory: %s",
				  strerror(errno));
	char *absolute = path_join(arena, here, path);
	free(here);
	return absolute;
}
