/*
 * tests/check_base.c - errors, log, memory, time, files, digests and JSON.
 *
 * links: base
 */
#include "base/base.h"
#include "tests/folder.h"
#include "tests/suite.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A sanitizer's malloc ends the process itself where ours would. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OTHER_MALLOC 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define OTHER_MALLOC 1
#endif
#endif

/* -- a folder for every test, and what it prints ------------------------------------------- */

static void tear_down(void)
{
	log_level(LOG_NORMAL);
	log_rank(-1);
	free(log_take());
	folder_close();
}

/* What speak() writes to a stream (1: stdout, 2: stderr), from the arena. */
static char *heard(int stream, void (*speak)(void))
{
	char *path = in_folder("heard");
	size_t bytes;

	fflush(NULL);
	int before = dup(stream);
	FILE *file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	dup2(fileno(file), stream);
	speak();
	fflush(NULL);
	dup2(before, stream);
	close(before);
	fclose(file);
	char *data = file_read(path, &bytes);
	char *text = arena_copy(&arena, data, bytes);
	free(data);
	unlink(path);
	return text;
}

/* -- error.c ------------------------------------------------------------------------------- */

static void say_errors(void)
{
	ck_assert_int_eq(error(EXIT_INPUT, "cannot open '%s'", "a.txt"), -1);
	ck_assert_ptr_null(error_null(EXIT_DATA, "campus.yaml:14:17: error: \"x\" is odd"));
	report(EXIT_DATA, "a b/my file.json:3: error: odd");
	report(EXIT_IO, "cannot reach 'lab:22: x'");
	report(EXIT_IO, ":22: no file before it");
	report(EXIT_IO, "one:two: three");
	report(EXIT_IO, "a\x1b[31m red\tname");
}

START_TEST(errors_are_printed_with_their_prefix)
{
	ck_assert_str_eq(heard(2, say_errors),
			 "edgepipe: error: cannot open 'a.txt'\n"
			 "campus.yaml:14:17: error: \"x\" is odd\n"
			 "a b/my file.json:3: error: odd\n"
			 "edgepipe: error: cannot reach 'lab:22: x'\n"
			 "edgepipe: error: :22: no file before it\n"
			 "edgepipe: error: one:two: three\n"
			 "edgepipe: error: a?[31m red\tname\n");
	ck_assert_int_eq(error_code(), EXIT_INPUT);
	error_clear();
	ck_assert_int_eq(error_code(), 0);
}
END_TEST

static void say_error_on_ranks(void)
{
	log_rank(0);
	report(EXIT_IO, "on zero");
	log_rank(3);
	report(EXIT_IO, "on three");
	warn("careful %d", 7);
	say("never seen");
}

START_TEST(a_rank_above_zero_is_named)
{
	ck_assert_str_eq(heard(2, say_error_on_ranks),
			 "edgepipe: error: on zero\n"
			 "edgepipe: rank 3: error: on three\n"
			 "edgepipe: rank 3: warning: careful 7\n");
}
END_TEST

static void hold_errors(void)
{
	char large[3000];

	error_hold();
	report(EXIT_CONFIG, "first");
	report(EXIT_DATA, "f.yaml:1:2: error: second\n  1 | x\n    | ^\n");
	memset(large, 'x', sizeof large);
	large[sizeof large - 1] = '\0';
	report(EXIT_DATA, "%s", large);
	error_hold();			/* changes nothing while holding */
	report(EXIT_DATA, "last");
}

START_TEST(held_errors_are_not_printed)
{
	ck_assert_str_eq(heard(2, hold_errors), "");
	ck_assert_int_eq(error_code(), EXIT_CONFIG);
	const char *text = error_text();
	ck_assert(strncmp(text, "edgepipe: error: first\nf.yaml:1:2: error: second\n"
			  "  1 | x\n    | ^\nedgepipe: error: xxx", 75) == 0);
	ck_assert_ptr_nonnull(strstr(text, "xxx\nedgepipe: error: last\n"));
	ck_assert_uint_gt(strlen(text), 3000);
	ck_assert_int_eq(error_code(), EXIT_CONFIG);
	error_clear();
	ck_assert_str_eq(error_text(), "");
	ck_assert_int_eq(error_code(), 0);
}
END_TEST

static void speak_after_text(void)
{
	error_hold();
	report(EXIT_DATA, "held");
	error_text();
	report(EXIT_DATA, "printed");
}

START_TEST(taking_the_text_ends_the_holding)
{
	ck_assert_str_eq(heard(2, speak_after_text), "edgepipe: error: printed\n");
	error_hold();
	ck_assert_int_eq(error_code(), 0);
	ck_assert_str_eq(error_text(), "");
}
END_TEST

static void *another_thread(void *arg)
{
	(void)arg;
	log_rank(4);
	error_hold();
	report(EXIT_DIVERGED, "in the other thread");
	bool fine = error_code() == EXIT_DIVERGED;
	error_clear();
	return fine ? arg : NULL;
}

START_TEST(threads_do_not_mix_their_errors)
{
	pthread_t other;
	void *result = NULL;
	int here;

	error_hold();
	report(EXIT_CONFIG, "mine");
	ck_assert_int_eq(pthread_create(&other, NULL, another_thread, &here), 0);
	pthread_join(other, &result);
	ck_assert_ptr_eq(result, &here);
	ck_assert_int_eq(error_code(), EXIT_CONFIG);
	ck_assert_str_eq(error_text(), "edgepipe: error: mine\n");
}
END_TEST

START_TEST(report_keeps_errno)
{
	error_hold();
	errno = ENOSPC;
	report(EXIT_IO, "x");
	ck_assert_int_eq(errno, ENOSPC);
}
END_TEST

START_TEST(the_nearest_word_is_found)
{
	static const char *const words[] = {"bandwidth", "latency", "nodes", "name", "lr", "s"};
	static const struct {
		const char *word, *nearest;
	} cases[] = {
		{"bandwith", "bandwidth"}, {"latancy", "latency"},  {"LATENCY", "latency"},
		{"latnecy", "latency"},	   {"node", "nodes"},	    {"nmae", "name"},
		{"band-width", "bandwidth"}, {"rl", "lr"},	    {"color", NULL},
		{"x", NULL},		   {"", NULL},		    {"latitude", NULL},
		{"bandwidthbandwidthbandwidthbandwidthbandwidthbandwidthbandwidthxxx", NULL},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const char *got = nearest_word(cases[i].word, words, 6);

		ck_assert_pstr_eq(got, cases[i].nearest);
	}
	ck_assert_ptr_null(nearest_word("latency", words, 0));
}
END_TEST

/* -- log.c --------------------------------------------------------------------------------- */

static void talk(void)
{
	log_level(LOG_NORMAL);
	say("step %d", 1);
	note("noted once");
	log_rank(0);
	say("step 2\n");
	log_rank(1);
	say("step 3");
	log_rank(-1);
	log_level(LOG_QUIET);
	say("step 4");
	warn("only on stderr");
}

START_TEST(say_speaks_on_rank_zero_only)
{
	ck_assert_str_eq(heard(1, talk), "step 1\nstep 2\n");
}
END_TEST

START_TEST(warnings_are_never_quiet)
{
	ck_assert_str_eq(heard(2, talk), "edgepipe: warning: only on stderr\n");
}
END_TEST

START_TEST(notes_are_kept_until_taken)
{
	char *text;

	ck_assert_ptr_null(log_take());
	note("one %d", 1);
	note("two\n");
	text = log_take();
	ck_assert_ptr_nonnull(text);
	ck_assert_ptr_null(log_take());
	/* "20260131T235959Z one 1" */
	ck_assert_int_eq(text[8], 'T');
	ck_assert_str_eq(text + 16, arena_format(&arena, " one 1\n%.16s two\n",
						 strchr(text, '\n') + 1));
	free(text);
}
END_TEST

static void note_aloud(void)
{
	log_level(LOG_VERBOSE);
	note("aloud");
}

START_TEST(notes_are_shown_when_verbose)
{
	ck_assert_str_eq(heard(2, note_aloud) + 16, " aloud\n");
}
END_TEST

/* -- arena.c ------------------------------------------------------------------------------- */

static bool is_filled(const char *data, int with, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		if ((unsigned char)data[i] != with)
			return false;
	}
	return true;
}

START_TEST(arena_pieces_are_aligned_zeroed_and_apart)
{
	static const size_t sizes[] = {0, 1, 15, 16, 17, 1000, 16384, 16385, 65536, 1000000, 3};
	struct arena a = {0};
	char *pieces[11 * 40];

	for (int i = 0; i < 11 * 40; i++) {
		size_t bytes = sizes[i % 11];

		pieces[i] = arena_take(&a, bytes);
		ck_assert_uint_eq((uintptr_t)pieces[i] % 16, 0);
		ck_assert(is_filled(pieces[i], 0, bytes));
		memset(pieces[i], i % 251 + 1, bytes);
	}
	for (int i = 0; i < 11 * 40; i++)
		ck_assert(is_filled(pieces[i], i % 251 + 1, sizes[i % 11]));
	arena_release(&a);
	ck_assert_ptr_null(a.chunks);
	arena_release(&a);
}
END_TEST

START_TEST(arena_copies_and_formats)
{
	struct arena a = {0};
	char *large = arena_format(&a, "%200000d", 7);

	ck_assert_str_eq(arena_copy(&a, "abcdef", 3), "abc");
	ck_assert_str_eq(arena_copy(&a, NULL, 0), "");
	ck_assert_str_eq(arena_format(&a, "%s-%d", "x", 5), "x-5");
	ck_assert_str_eq(arena_format(&a, "%s", ""), "");
	ck_assert_uint_eq(strlen(large), 200000);
	ck_assert_str_eq(large + 199998, " 7");
	arena_release(&a);
}
END_TEST

struct layout {
	char *first, *second, *third;
};

static struct layout lay_out(struct slab *slab)
{
	struct layout layout;

	layout.first = slab_take(slab, 1);
	layout.second = slab_take(slab, 64);
	layout.third = slab_take(slab, 65);
	return layout;
}

START_TEST(a_slab_counts_what_it_will_use)
{
	struct slab count = {0}, real = {0};
	struct layout empty = lay_out(&count);

	ck_assert_ptr_null(empty.first);
	ck_assert_ptr_null(empty.third);
	ck_assert_uint_eq(count.used, 256);
	real.base = aligned_alloc(SLAB_ALIGN, count.used);
	struct layout layout = lay_out(&real);
	ck_assert_uint_eq(real.used, count.used);
	ck_assert_ptr_eq(layout.first, real.base);
	ck_assert_ptr_eq(layout.second, real.base + 64);
	ck_assert_ptr_eq(layout.third, real.base + 128);
	free(real.base);
	/* The estimate of something impossible must not come out small. */
	slab_take(&count, SIZE_MAX - 100);
	slab_take(&count, SIZE_MAX - 100);
	ck_assert_uint_gt(count.used, SIZE_MAX / 2);
	ck_assert_uint_eq(count.used % SLAB_ALIGN, 0);
}
END_TEST

START_TEST(a_text_grows)
{
	struct text text = {0};

	text_add(&text, "%s", "");
	ck_assert_str_eq(text.data, "");
	for (int i = 0; i < 10000; i++) {
		text_add(&text, "%d,", i % 10);
		text_put(&text, "ab", 2);
	}
	ck_assert_uint_eq(text.bytes, 40000);
	ck_assert_uint_eq(strlen(text.data), 40000);
	ck_assert_uint_gt(text.room, text.bytes);
	ck_assert_str_eq(text.data + 39996, "9,ab");
	text_put(&text, "\0x", 2);
	ck_assert_uint_eq(text.bytes, 40002);
	ck_assert_int_eq(text.data[40001], 'x');
	text_release(&text);
	ck_assert_ptr_null(text.data);
	ck_assert_uint_eq(text.bytes + text.room, 0);
	text_release(&text);
}
END_TEST

START_TEST(the_x_functions_allocate)
{
	char *copy = xcopy("text"), *some = xalloc(0);
	char *zero = xzalloc(3, 5), *none = xzalloc(0, 8);

	ck_assert_str_eq(copy, "text");
	ck_assert_ptr_nonnull(some);
	ck_assert_ptr_nonnull(none);
	for (int i = 0; i < 15; i++)
		ck_assert_int_eq(zero[i], 0);
	free(copy);
	free(some);
	free(zero);
	free(none);
}
END_TEST

static int status_of(void (*end)(void))
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		close(2);
		end();
		_exit(0);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void take_too_much(void)
{
	/* Volatile, or the compiler sees what cannot work. */
	volatile size_t much = SIZE_MAX / 2;

	free(xalloc(much));
}

static void take_too_many(void)
{
	volatile size_t much = SIZE_MAX / 2;

	free(xzalloc(much, 4));
}

static void take_from_arena(void)
{
	struct arena a = {0};

	arena_take(&a, 10);
	arena_take(&a, SIZE_MAX - 20);
}

/* Rounded up, this would be nothing. */
static void take_all_from_arena(void)
{
	struct arena a = {0};

	arena_take(&a, SIZE_MAX - 5);
}

START_TEST(without_memory_the_process_ends)
{
#ifdef OTHER_MALLOC
	printf("skipped: the sanitizer's malloc ends the process itself\n");
	(void)status_of, (void)take_too_much, (void)take_too_many, (void)take_from_arena;
	(void)take_all_from_arena;
#else
	ck_assert_int_eq(status_of(take_too_much), EXIT_BUG);
	ck_assert_int_eq(status_of(take_too_many), EXIT_BUG);
	ck_assert_int_eq(status_of(take_from_arena), EXIT_BUG);
	ck_assert_int_eq(status_of(take_all_from_arena), EXIT_BUG);
#endif
}
END_TEST

/* -- clock.c ------------------------------------------------------------------------------- */

START_TEST(the_clock_runs_forward)
{
	double start = clock_s();

	clock_sleep(0.05);
	double slept = clock_s() - start;
	ck_assert_double_ge(slept, 0.05);
	ck_assert_double_lt(slept, 30);
	/* None of these sleeps; another program may have the core for that long, but not each time. */
	for (int try = 0; try < 100 && slept >= 0.05; try++) {
		start = clock_s();
		clock_sleep(-1);
		clock_sleep(0);
		clock_sleep(0.0 / 0.0);
		slept = clock_s() - start;
	}
	ck_assert_double_lt(slept, 0.05);
}
END_TEST

START_TEST(a_stamp_is_utc)
{
	char stamp[17], small[4] = "xxx";

	/* Nine hours east of Greenwich; midnight may pass between the two. */
	setenv("TZ", "ABC-9", 1);
	long before = time(NULL) / 3600 % 24;
	clock_stamp(stamp, sizeof stamp);
	long after = time(NULL) / 3600 % 24;
	unsetenv("TZ");
	long hour = (stamp[9] - '0') * 10 + stamp[10] - '0';
	ck_assert(hour == before || hour == after);
	ck_assert_uint_eq(strlen(stamp), 16);
	ck_assert_uint_eq(strspn(stamp, "0123456789"), 8);
	ck_assert_int_eq(stamp[8], 'T');
	ck_assert_uint_eq(strspn(stamp + 9, "0123456789"), 6);
	ck_assert_int_eq(stamp[15], 'Z');
	clock_stamp(small, sizeof small);
	ck_assert_str_eq(small, "");
}
END_TEST

/* -- file.c -------------------------------------------------------------------------------- */

/* The file's content, from the arena; null if it is not there. */
static char *content(const char *path)
{
	size_t bytes;

	if (!path_exists(path))
		return NULL;
	char *data = file_read(path, &bytes);
	char *copy = arena_copy(&arena, data, bytes);
	free(data);
	return copy;
}

/* Entries of the test's folder. */
static int entries(void)
{
	char *command = arena_format(&arena, "ls -A '%s' | wc -l", folder);
	FILE *pipe = popen(command, "r");
	int count = -1;

	ck_assert_int_eq(fscanf(pipe, "%d", &count), 1);
	pclose(pipe);
	return count;
}

START_TEST(files_are_written_and_read)
{
	static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 300000, 10};
	char *path = in_folder("file"), *data = xzalloc(1, 300000);
	size_t bytes = 7;

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		memset(data, 'a' + (int)i, sizes[i]);
		ck_assert_int_eq(file_write(path, data, sizes[i]), 0);
		char *back = file_read(path, &bytes);
		ck_assert_ptr_nonnull(back);
		ck_assert_uint_eq(bytes, sizes[i]);
		ck_assert_mem_eq(back, data, bytes);
		ck_assert_int_eq(back[bytes], 0);
		free(back);
	}
	free(data);
	/* Size 0 in stat, and more behind it. */
	char *status = file_read("/proc/self/smaps", &bytes);
	ck_assert_uint_gt(bytes, 4096);
	ck_assert_uint_eq(strlen(status), bytes);
	free(status);
}
END_TEST

START_TEST(files_that_cannot_be_read_are_named)
{
	size_t bytes = 7;

	error_hold();
	ck_assert_ptr_null(file_read(in_folder("nothing"), &bytes));
	ck_assert_int_eq(error_code(), EXIT_INPUT);
	ck_assert_ptr_null(file_read(folder, &bytes));
	ck_assert_uint_eq(bytes, 7);
	ck_assert_str_eq(error_text(),
			 arena_format(&arena,
				      "edgepipe: error: cannot open '%s/nothing': No such file "
				      "or directory\n"
				      "edgepipe: error: cannot read '%s': it is a folder\n",
				      folder, folder));
}
END_TEST

START_TEST(files_that_cannot_be_written_are_named)
{
	error_hold();
	ck_assert_int_eq(file_write(in_folder("no/where"), "x", 1), -1);
	ck_assert_int_eq(error_code(), EXIT_CREATE);
	error_clear();
	error_hold();
	ck_assert_int_eq(file_replace(in_folder("no/where"), "x", 1), -1);
	ck_assert_int_eq(error_code(), EXIT_CREATE);
	error_clear();
	error_hold();
	ck_assert_int_eq(file_write("/dev/full", "x", 1), -1);
	ck_assert_int_eq(error_code(), EXIT_IO);
	ck_assert_str_eq(error_text(), "edgepipe: error: cannot write '/dev/full': No space "
				       "left on device\n");
}
END_TEST

START_TEST(a_file_is_replaced_whole)
{
	char *path = in_folder("file");
	struct stat status;

	ck_assert_int_eq(file_replace(path, "old", 3), 0);
	ck_assert_str_eq(content(path), "old");
	ck_assert_int_eq(link(path, in_folder("other name")), 0);
	ck_assert_int_eq(chmod(path, 0600), 0);
	ck_assert_int_eq(file_replace(path, "newer", 5), 0);
	ck_assert_str_eq(content(path), "newer");
	/* A new file, not the old one written over; a private one stays so. */
	ck_assert_str_eq(content(in_folder("other name")), "old");
	ck_assert_int_eq(stat(path, &status), 0);
	ck_assert_uint_eq(status.st_mode & 07777, 0600);
	ck_assert_int_eq(entries(), 2);
}
END_TEST

START_TEST(a_failed_replacement_leaves_the_old_file)
{
	char *path = in_folder("file"), *large = xzalloc(1, 100000);
	struct rlimit before, tight;

	ck_assert_int_eq(file_write(path, "old", 3), 0);
	getrlimit(RLIMIT_FSIZE, &before);
	tight = before;
	tight.rlim_cur = 50000;
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &tight);
	error_hold();
	int rc = file_replace(path, large, 100000);
	setrlimit(RLIMIT_FSIZE, &before);
	ck_assert_int_eq(rc, -1);
	ck_assert_int_eq(error_code(), EXIT_IO);
	ck_assert_str_eq(content(path), "old");
	ck_assert_int_eq(entries(), 1);
	free(large);

	ck_assert_int_eq(folder_make(in_folder("folder")), 0);
	ck_assert_int_eq(file_replace(in_folder("folder"), "x", 1), -1);
	ck_assert_int_eq(entries(), 2);
}
END_TEST

START_TEST(a_stale_temporary_is_in_nobodys_way)
{
	char *path = in_folder("file");
	char *stale = arena_format(&arena, "%s.tmp-%d-%d", path, (int)getpid(), (int)gettid());

	ck_assert_int_eq(symlink(in_folder("elsewhere"), stale), 0);
	ck_assert_int_eq(file_replace(path, "new", 3), 0);
	ck_assert_str_eq(content(path), "new");
	ck_assert_ptr_null(content(in_folder("elsewhere")));
	ck_assert_int_eq(entries(), 1);
}
END_TEST

START_TEST(folders_are_made_with_their_parents)
{
	ck_assert_int_eq(folder_make(in_folder("a/b//c/")), 0);
	ck_assert_int_eq(folder_make(in_folder("a/b/c")), 0);
	ck_assert(path_exists(in_folder("a/b/c")));
	ck_assert_int_eq(folder_sync(in_folder("a/b")), 0);
	ck_assert_int_eq(file_write(in_folder("file"), "", 0), 0);
	error_hold();
	ck_assert_int_eq(folder_make(in_folder("file")), -1);
	ck_assert_int_eq(folder_make(in_folder("file/below")), -1);
	ck_assert_int_eq(folder_make(""), -1);
	ck_assert_int_eq(error_code(), EXIT_CREATE);
	error_clear();
	error_hold();
	ck_assert_int_eq(folder_sync(in_folder("nothing")), -1);
	ck_assert_int_eq(error_code(), EXIT_IO);
}
END_TEST

START_TEST(removing_a_folder_follows_no_links)
{
	ck_assert_int_eq(folder_make(in_folder("keep/deep")), 0);
	ck_assert_int_eq(file_write(in_folder("keep/file"), "kept", 4), 0);
	ck_assert_int_eq(folder_make(in_folder("gone/deep/deeper")), 0);
	ck_assert_int_eq(file_write(in_folder("gone/deep/file"), "x", 1), 0);
	ck_assert_int_eq(symlink("../keep", in_folder("gone/link")), 0);
	ck_assert_int_eq(symlink("../../keep/file", in_folder("gone/deep/link")), 0);
	ck_assert_int_eq(symlink("nowhere", in_folder("gone/dangling")), 0);
	ck_assert_int_eq(symlink("keep", in_folder("link")), 0);

	ck_assert_int_eq(folder_remove(in_folder("gone")), 0);
	ck_assert(!path_exists(in_folder("gone")));
	ck_assert_int_eq(folder_remove(in_folder("link/")), 0);
	ck_assert(!path_exists(in_folder("link")));
	ck_assert_str_eq(content(in_folder("keep/file")), "kept");
	ck_assert(path_exists(in_folder("keep/deep")));
	ck_assert_int_eq(folder_remove(in_folder("gone")), 0);
	ck_assert_int_eq(folder_remove(in_folder("keep/file")), 0);
	ck_assert_int_eq(entries(), 1);
}
END_TEST

START_TEST(a_folder_without_a_name_is_not_removed)
{
	static const char *const names[] = {"", "keep/.", "keep/..", ".", "..", "keep/./"};
	char *here = getcwd(NULL, 0);

	/* Deep enough that nothing else is in reach, should it be removed after all. */
	ck_assert_int_eq(folder_make(in_folder("a/b/keep")), 0);
	ck_assert_int_eq(file_write(in_folder("a/b/keep/file"), "kept", 4), 0);
	ck_assert_int_eq(chdir(in_folder("a/b")), 0);
	error_hold();
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		ck_assert_int_eq(folder_remove(names[i]), -1);
		ck_assert(path_exists("keep/file"));
	}
	ck_assert_int_eq(chdir(here), 0);
	free(here);
}
END_TEST

START_TEST(paths_are_joined_and_cut)
{
	char *here = getcwd(NULL, 0);

	ck_assert_str_eq(path_join(&arena, "a", "b"), "a/b");
	ck_assert_str_eq(path_join(&arena, "a/", "b"), "a/b");
	ck_assert_str_eq(path_join(&arena, "a", "/b"), "/b");
	ck_assert_str_eq(path_join(&arena, "", "b"), "b");
	ck_assert_str_eq(path_join(&arena, "/", "b"), "/b");
	ck_assert_str_eq(path_folder(&arena, "a"), ".");
	ck_assert_str_eq(path_folder(&arena, ""), ".");
	ck_assert_str_eq(path_folder(&arena, "a/b"), "a");
	ck_assert_str_eq(path_folder(&arena, "a//b/"), "a");
	ck_assert_str_eq(path_folder(&arena, "/a"), "/");
	ck_assert_str_eq(path_folder(&arena, "/"), "/");
	ck_assert_str_eq(path_folder(&arena, "/a/b/c.txt"), "/a/b");
	ck_assert_str_eq(path_absolute(&arena, "/a"), "/a");
	ck_assert_str_eq(path_absolute(&arena, "x/y"), path_join(&arena, here, "x/y"));
	free(here);
}
END_TEST

/* -- digest.c ------------------------------------------------------------------------------ */

START_TEST(digests_are_xxh3_128)
{
	char text[33], data[10000];
	struct digest whole, file;

	/* XXH3-128 of nothing, as xxhsum -H2 prints it. */
	digest_write(digest_of("", 0), text);
	ck_assert_str_eq(text, "99aa06d3014798d86001c324468d497f");
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (char)(i * i >> 3);
	whole = digest_of(data, sizeof data);
	struct digest_state *state = digest_open();
	for (size_t at = 0, piece = 0; at < sizeof data; at += piece, piece = piece * 2 + 1) {
		if (piece > sizeof data - at)
			piece = sizeof data - at;
		digest_add(state, data + at, piece);
	}
	ck_assert(digest_equal(digest_close(state), whole));
	ck_assert_int_eq(file_write(in_folder("file"), data, sizeof data), 0);
	ck_assert_int_eq(digest_file(in_folder("file"), &file), 0);
	ck_assert(digest_equal(file, whole));
	data[9999] ^= 1;
	ck_assert(!digest_equal(digest_of(data, sizeof data), whole));
	ck_assert(!digest_equal((struct digest){1, 2}, (struct digest){1, 3}));
	ck_assert(!digest_equal((struct digest){1, 2}, (struct digest){3, 2}));
	ck_assert_str_eq(digest_write((struct digest){0xabc, 0x1}, text),
			 "00000000000000010000000000000abc");
}
END_TEST

START_TEST(a_digest_of_no_file_is_an_error)
{
	struct digest digest = {5, 6};

	error_hold();
	ck_assert_int_eq(digest_file(in_folder("nothing"), &digest), -1);
	ck_assert_int_eq(digest_file(folder, &digest), -1);
	ck_assert_int_eq(error_code(), EXIT_INPUT);
	ck_assert_uint_eq(digest.low, 5);
}
END_TEST

/* -- json.c -------------------------------------------------------------------------------- */

static struct json *parse(const char *text)
{
	return json_parse(text, strlen(text), "test.json");
}

START_TEST(a_document_is_read)
{
	struct json *top = parse("{\"z\": [1, 2.5, \"three\", true, null, {}], \"a\": -7,\n"
				 " \"m\": {\"k\": false}}");
	const struct json *list = json_find(top, "z");

	ck_assert_int_eq(json_kind(top), JSON_MAP);
	ck_assert_uint_eq(json_size(top), 3);
	ck_assert_int_eq(json_kind(list), JSON_LIST);
	ck_assert_uint_eq(json_size(list), 6);
	ck_assert_int_eq(json_kind(json_at(list, 0)), JSON_WHOLE);
	ck_assert_int_eq(json_kind(json_at(list, 1)), JSON_NUMBER);
	ck_assert_int_eq(json_kind(json_at(list, 2)), JSON_TEXT);
	ck_assert_int_eq(json_kind(json_at(list, 3)), JSON_FLAG);
	ck_assert_int_eq(json_kind(json_at(list, 4)), JSON_NIL);
	ck_assert_int_eq(json_kind(json_at(list, 5)), JSON_MAP);
	ck_assert_ptr_null(json_at(list, 6));
	ck_assert_ptr_null(json_at(top, 0));
	ck_assert_ptr_null(json_find(list, "z"));
	ck_assert_ptr_null(json_find(top, "nothing"));
	ck_assert_int_eq(json_as_integer(json_find(top, "a"), 0), -7);
	ck_assert(json_as_flag(json_find(json_find(top, "m"), "k"), true) == false);
	json_free(top);
}
END_TEST

START_TEST(a_map_is_walked_in_file_order)
{
	struct json *top = parse("{\"zebra\":0,\"b\":1,\"a\":2,\"yak\":3,\"c\":4,\"\":5}");
	static const char *const order[] = {"zebra", "b", "a", "yak", "c", ""};
	int i = 0;

	for (void *it = json_first(top); it; it = json_next(top, it), i++) {
		ck_assert_str_eq(json_name(it), order[i]);
		ck_assert_int_eq(json_as_integer(json_value(it), -1), i);
	}
	ck_assert_int_eq(i, 6);
	ck_assert_ptr_null(json_first(json_find(top, "a")));
	ck_assert_ptr_null(json_first(NULL));
	json_free(top);
}
END_TEST

START_TEST(another_kind_gives_the_default)
{
	struct json *top = parse("[\"text\", 3, 2.5, true, null, [], {}]");

	for (size_t i = 0; i < 8; i++) {	/* one more than there are */
		const struct json *value = json_at(top, i);

		ck_assert_str_eq(json_as_text(value, "none"), i == 0 ? "text" : "none");
		ck_assert_uint_eq(json_text_bytes(value), i == 0 ? 4 : 0);
		ck_assert_int_eq(json_as_integer(value, -9), i == 1 ? 3 : -9);
		ck_assert(json_as_number(value, -9) == (i == 1 ? 3 : i == 2 ? 2.5 : -9));
		ck_assert(json_as_flag(value, false) == (i == 3));
		ck_assert(json_as_flag(value, true) == true);
		ck_assert_uint_eq(json_size(value), 0);
	}
	ck_assert_int_eq(json_kind(NULL), JSON_NONE);
	json_free(top);
	json_free(NULL);
}
END_TEST

START_TEST(numbers_keep_their_value)
{
	struct json *top = parse("[9223372036854775807, -9223372036854775808, 0, 5.0, 1e5, "
				 "-0.0]");

	ck_assert(json_as_integer(json_at(top, 0), 0) == INT64_MAX);
	ck_assert(json_as_integer(json_at(top, 1), 0) == INT64_MIN);
	ck_assert_int_eq(json_as_integer(json_at(top, 2), 1), 0);
	ck_assert_int_eq(json_kind(json_at(top, 3)), JSON_WHOLE);
	ck_assert_int_eq(json_as_integer(json_at(top, 3), 0), 5);
	ck_assert_int_eq(json_as_integer(json_at(top, 4), 0), 100000);
	ck_assert_int_eq(json_as_integer(json_at(top, 5), 1), 0);
	json_free(top);
	/* What tokenizer_config.json says for "no limit". */
	top = parse("{\"model_max_length\": 1000000000000000019884624838656, \"n\": 12}");
	ck_assert_int_eq(json_kind(json_find(top, "model_max_length")), JSON_NUMBER);
	ck_assert(json_as_number(json_find(top, "model_max_length"), 0) == 1e30);
	ck_assert_int_eq(json_as_integer(json_find(top, "model_max_length"), -1), -1);
	ck_assert_int_eq(json_kind(json_find(top, "n")), JSON_WHOLE);
	ck_assert_int_eq(json_as_integer(json_find(top, "n"), 0), 12);
	json_free(top);
}
END_TEST

static const struct {
	const char *text, *why;		/* the start of the message */
} broken[] = {
	{"", "test.json:1:1: error: "},
	{"{\"a\": 1,\n \"b\": }", "test.json:2:7: error: "},
	{"{\"a\": 1, \"a\": 2}", "test.json:1:12: error: duplicate object key"},
	{"{\"a\": {\"b\": 1, \"b\": 1}}", "test.json:1:18: error: duplicate object key"},
	{"[1, 2", "test.json:1:5: error: "},
	{"[1] [2]", "test.json:1:5: error: end of file expected"},
	{"[1,]", "test.json:1:4: error: "},
	{"['a']", "test.json:1:2: error: "},
	{"[NaN]", "test.json:1:4: error: "},
	{"[1e999]", "test.json:1:6: error: "},
	{"[\"\xff\"]", "test.json:1:2: error: "},
	{"[\"\xed\xa0\x80\"]", "test.json:1:2: error: "},
	{"[\"\\ud800\"]", "test.json:1:"},
	{"{\"a\\u0000b\": 1}", "test.json:1:"},
	{"[\"line\nbreak\"]", "test.json:"},
	{"// comment\n[]", "test.json:1:"},
};

START_TEST(broken_documents_are_refused)
{
	const char *why = broken[_i].why;

	error_hold();
	ck_assert_ptr_null(parse(broken[_i].text));
	ck_assert_int_eq(error_code(), EXIT_DATA);
	ck_assert_msg(strncmp(error_text(), why, strlen(why)) == 0, "%s: %s", broken[_i].text,
		      error_text());
}
END_TEST

START_TEST(nothing_is_read_beyond_the_end)
{
	/* Exactly as large as the text, for the sanitizer's sake. */
	char *data = memcpy(xalloc(5), "[123]", 5);
	struct json *top = json_parse(data, 5, "test.json");

	ck_assert_int_eq(json_as_integer(json_at(top, 0), 0), 123);
	json_free(top);
	error_hold();
	for (size_t bytes = 0; bytes < 5; bytes++)
		ck_assert_ptr_null(json_parse(data, bytes, "test.json"));
	memcpy(data, "[\"\0\"]", 5);
	ck_assert_ptr_null(json_parse(data, 5, "test.json"));
	free(data);
}
END_TEST

START_TEST(a_text_may_hold_a_nul)
{
	struct json *top = parse("[\"a\\u0000b\"]");

	ck_assert_uint_eq(json_text_bytes(json_at(top, 0)), 3);
	ck_assert_mem_eq(json_as_text(json_at(top, 0), ""), "a\0b", 4);
	json_free(top);
}
END_TEST

/* A text of count times piece. */
static struct text repeated(const char *piece, int count)
{
	struct text text = {0};

	for (int i = 0; i < count; i++)
		text_put(&text, piece, strlen(piece));
	return text;
}

START_TEST(bombs_do_not_go_off)
{
	static const struct {
		const char *piece;
		int count;
	} bombs[] = {{"[", 100000}, {"{\"a\":", 100000}, {"[{\"a\":", 50000}, {"[", 10000000}};

	error_hold();
	for (int i = 0; i < 4; i++) {
		struct text text = repeated(bombs[i].piece, bombs[i].count);

		ck_assert_ptr_null(json_parse(text.data, text.bytes, "bomb"));
		ck_assert_int_eq(error_code(), EXIT_DATA);
		text_release(&text);
	}
	/* Flat, but forty times as large in memory as on disk. */
	struct text text = repeated("[],", 3000000);
	double start = computed_s();
	text.data[0] = '[';
	ck_assert_ptr_null(json_parse(text.data, text.bytes, "bomb"));
	ck_assert_ptr_nonnull(strstr(error_text(), "bomb:1:1: error: too many values\n"));
	ck_assert_computed_lt(start, 1);
	text_release(&text);
}
END_TEST

START_TEST(a_large_vocabulary_is_fine)
{
	struct text text = {0};

	text_add(&text, "{");
	for (int i = 0; i < 200000; i++)
		text_add(&text, "%s\"token \\\" [%d\": %d", i ? ", " : "", i, i);
	text_add(&text, "}");
	struct json *top = json_parse(text.data, text.bytes, "vocabulary");
	ck_assert_uint_eq(json_size(top), 200000);
	ck_assert_int_eq(json_as_integer(json_find(top, "token \" [199999"), 0), 199999);
	json_free(top);
	text_release(&text);
	/* Brackets inside a text make no values. */
	text_add(&text, "[\"\\\"");
	for (int i = 0; i < 3000000; i++)
		text_put(&text, "[", 1);
	text_add(&text, "\"]");
	top = json_parse(text.data, text.bytes, "brackets");
	ck_assert_uint_eq(json_text_bytes(json_at(top, 0)), 3000001);
	json_free(top);
	text_release(&text);
}
END_TEST

START_TEST(json_files_are_read)
{
	char *path = in_folder("file.json");
	struct json *top;

	ck_assert_int_eq(file_write(path, "{\"a\": 3}\n", 9), 0);
	top = json_read(path);
	ck_assert_int_eq(json_as_integer(json_find(top, "a"), 0), 3);
	json_free(top);
	error_hold();
	ck_assert_ptr_null(json_read(in_folder("nothing.json")));
	ck_assert_int_eq(error_code(), EXIT_INPUT);
	error_clear();
	error_hold();
	ck_assert_int_eq(file_write(path, "{\"a\": 3\n", 8), 0);
	ck_assert_ptr_null(json_read(path));
	ck_assert_int_eq(error_code(), EXIT_DATA);
	ck_assert_int_eq(truncate(path, (64 << 20) + 1), 0);
	ck_assert_ptr_null(json_read(path));
	ck_assert_ptr_nonnull(strstr(error_text(), "file.json': above 64 MiB"));
	ck_assert_ptr_nonnull(strstr(error_text(), arena_format(&arena, "%s:", path)));
}
END_TEST

START_TEST(written_texts_read_back)
{
	static const char *const same[] = {
		"", "plain", "a \"quoted\" \\ text", "tab\tline\nend\r", "\x01\x1f\x7f",
		"gr\xc3\xbc\xc3\x9f", "\xe2\x82\xac \xf0\x9f\x90\x84", "/</script>"};
#define R "\xef\xbf\xbd"	/* U+FFFD, the replacement character */
	/* Not characters: stray bytes, too long, a surrogate, beyond U+10FFFF, cut off. */
	static const char *const mended[][2] = {
		{"\xff", R}, {"a\xc3", "a" R}, {"\xc0\x80", R R}, {"\xc1\xbf", R R},
		{"\xf5z", R "z"}, {"\xe2\x82", R R}, {"\xe0\x80\x80", R R R},
		{"\xed\xa0\x80", R R R}, {"\xf0\x80\x80\x80", R R R R},
		{"\xf4\x90\x80\x80", R R R R}, {"\xf5\x80\x80\x80", R R R R}};
#undef R
	size_t plain = sizeof same / sizeof *same;

	for (size_t i = 0; i < plain + sizeof mended / sizeof *mended; i++) {
		struct text text = {0};

		json_add_text(&text, i < plain ? same[i] : mended[i - plain][0]);
		struct json *back = json_parse(text.data, text.bytes, "back");
		ck_assert_str_eq(json_as_text(back, "none"),
				 i < plain ? same[i] : mended[i - plain][1]);
		json_free(back);
		text_release(&text);
	}
}
END_TEST

START_TEST(every_byte_gives_valid_json)
{
	for (int a = 1; a < 256; a++) {
		for (int b = 1; b < 256; b += 3) {
			char value[6] = {'x', (char)a, (char)b, (char)(a ^ b ^ 0x55), 'y', 0};
			struct text text = {0};

			json_add_text(&text, value);
			struct json *back = json_parse(text.data, text.bytes, "back");
			ck_assert_ptr_nonnull(back);
			json_free(back);
			text_release(&text);
		}
	}
}
END_TEST

/* -- all ----------------------------------------------------------------------------------- */

static TCase *part(Suite *suite, const char *name)
{
	TCase *t = tcase_create(name);

	tcase_add_checked_fixture(t, folder_open, tear_down);
	tcase_set_timeout(t, 60);
	suite_add_tcase(suite, t);
	return t;
}

static void add_memory_tests(Suite *suite)
{
	TCase *t = part(suite, "error, log");

	tcase_add_test(t, errors_are_printed_with_their_prefix);
	tcase_add_test(t, a_rank_above_zero_is_named);
	tcase_add_test(t, held_errors_are_not_printed);
	tcase_add_test(t, taking_the_text_ends_the_holding);
	tcase_add_test(t, threads_do_not_mix_their_errors);
	tcase_add_test(t, report_keeps_errno);
	tcase_add_test(t, the_nearest_word_is_found);
	tcase_add_test(t, say_speaks_on_rank_zero_only);
	tcase_add_test(t, warnings_are_never_quiet);
	tcase_add_test(t, notes_are_kept_until_taken);
	tcase_add_test(t, notes_are_shown_when_verbose);
	t = part(suite, "arena, clock");
	tcase_add_test(t, arena_pieces_are_aligned_zeroed_and_apart);
	tcase_add_test(t, arena_copies_and_formats);
	tcase_add_test(t, a_slab_counts_what_it_will_use);
	tcase_add_test(t, a_text_grows);
	tcase_add_test(t, the_x_functions_allocate);
	tcase_add_test(t, without_memory_the_process_ends);
	tcase_add_test(t, the_clock_runs_forward);
	tcase_add_test(t, a_stamp_is_utc);
}

static void add_file_tests(Suite *suite)
{
	TCase *t = part(suite, "file");

	tcase_add_test(t, files_are_written_and_read);
	tcase_add_test(t, files_that_cannot_be_read_are_named);
	tcase_add_test(t, files_that_cannot_be_written_are_named);
	tcase_add_test(t, a_file_is_replaced_whole);
	tcase_add_test(t, a_failed_replacement_leaves_the_old_file);
	tcase_add_test(t, a_stale_temporary_is_in_nobodys_way);
	tcase_add_test(t, folders_are_made_with_their_parents);
	tcase_add_test(t, removing_a_folder_follows_no_links);
	tcase_add_test(t, a_folder_without_a_name_is_not_removed);
	tcase_add_test(t, paths_are_joined_and_cut);
	t = part(suite, "digest");
	tcase_add_test(t, digests_are_xxh3_128);
	tcase_add_test(t, a_digest_of_no_file_is_an_error);
}

static void add_json_tests(Suite *suite)
{
	TCase *t = part(suite, "json");

	tcase_add_test(t, a_document_is_read);
	tcase_add_test(t, a_map_is_walked_in_file_order);
	tcase_add_test(t, another_kind_gives_the_default);
	tcase_add_test(t, numbers_keep_their_value);
	tcase_add_loop_test(t, broken_documents_are_refused, 0,
			    (int)(sizeof broken / sizeof *broken));
	tcase_add_test(t, nothing_is_read_beyond_the_end);
	tcase_add_test(t, a_text_may_hold_a_nul);
	tcase_add_test(t, bombs_do_not_go_off);
	tcase_add_test(t, a_large_vocabulary_is_fine);
	tcase_add_test(t, json_files_are_read);
	tcase_add_test(t, written_texts_read_back);
	tcase_add_test(t, every_byte_gives_valid_json);
}

int main(void)
{
	Suite *suite = suite_create("base");

	add_memory_tests(suite);
	add_file_tests(suite);
	add_json_tests(suite);
	return run_suite(suite);
}
