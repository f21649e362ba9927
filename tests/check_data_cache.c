/*
 * tests/check_data_cache.c - tokenised data that are kept: found again, made anew where anything
 * they depend on changed or a byte of them did, shared by processes, in constant memory; files
 * that gzip packed, and files that are broken.
 *
 * links: model
 */
#include "model/model.h"
#include "tests/folder.h"
#include "tests/suite.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#define GOLDEN TESTS_FOLDER "/golden/tokenizer"

static struct model_config config;
static struct data_config data;

static void copy_file(const char *from, const char *name)
{
	size_t bytes;
	char *text = file_read(path_join(&arena, GOLDEN, from), &bytes);

	ck_assert_int_eq(file_replace(in_folder(name), text, bytes), 0);
	free(text);
}

static char *put_file(const char *name, const char *text)
{
	ck_assert_int_eq(file_replace(in_folder(name), text, strlen(text)), 0);
	return in_folder(name);
}

static void set_up(void)
{
	folder_open();
	copy_file("tokenizer.json", "tokenizer.json");
	config = (struct model_config){
		.folder = in_folder(""), .vocabulary = 403, .positions = 1024, .end_token = -1};
	data = (struct data_config){.sequence = 16, .cache = in_folder("cache")};
}

/* Whether a file's data were there already. */
static bool is_kept(const char *path)
{
	struct dataset *set = dataset_open(path, "train", &data, &config);

	ck_assert_ptr_nonnull(set);
	bool kept = set->kept;
	dataset_close(set);
	return kept;
}

static struct digest digest_at(const char *path, const char *cache)
{
	struct data_config other = data;

	other.cache = cache;
	struct dataset *set = dataset_open(path, "train", &other, &config);
	ck_assert_ptr_nonnull(set);
	struct digest digest = set->digest;
	dataset_close(set);
	return digest;
}

/* The one file of the cache with this ending, and how many there are. */
static const char *cached(const char *ending, int *count)
{
	DIR *list = opendir(data.cache);
	struct dirent *entry;
	const char *found = NULL;

	*count = 0;
	while (list && (entry = readdir(list))) {
		if (strstr(entry->d_name, ending)) {
			found = arena_format(&arena, "%s/%s", data.cache, entry->d_name);
			++*count;
		}
	}
	if (list)
		closedir(list);
	return found;
}

static const char lines[] = "{\"prompt\": \"one two\", \"completion\": \" three\"}\n"
			    "{\"prompt\": \"four\", \"completion\": \" five six\"}\n";

START_TEST(found_again)
{
	char *path = put_file("train.jsonl", lines);
	struct digest without = digest_at(path, "none");

	ck_assert(!is_kept(path));
	ck_assert(is_kept(path));
	ck_assert(digest_equal(digest_at(path, data.cache), without));
	/* Another name, the same bytes: the same data. */
	ck_assert(is_kept(put_file("other.jsonl", lines)));
	/* The same size, other bytes. */
	char changed[sizeof lines];
	memcpy(changed, lines, sizeof lines);
	changed[13] = 'X';
	ck_assert(!is_kept(put_file("train.jsonl", changed)));
	ck_assert(!digest_equal(digest_at(path, data.cache), without));
}
END_TEST

/* Everything that the samples depend on. */
START_TEST(made_anew)
{
	char *path = put_file("train.jsonl", lines);

	ck_assert(!is_kept(path));
	data.mask = MASK_NONE;
	ck_assert(!is_kept(path));
	data.mask = MASK_AUTO;
	data.sequence = 15;
	ck_assert(!is_kept(path));
	data.sequence = 16;
	data.column[COLUMN_PROMPT] = "completion";
	ck_assert(!is_kept(path));
	data.column[COLUMN_PROMPT] = NULL;
	data.template = "alpaca";
	data.sequence = 256;
	ck_assert(!is_kept(path));
	data.template = NULL;
	data.sequence = 16;
	config.end_token = 5;
	ck_assert(!is_kept(path));
	config.end_token = -1;
	put_file("tokenizer_config.json", "{}");
	ck_assert(!is_kept(path));
	unlink(in_folder("tokenizer_config.json"));
	ck_assert(is_kept(path));
}
END_TEST

/* No byte of a file is trusted. */
START_TEST(damaged)
{
	char *path = put_file("train.jsonl", lines);
	int count;

	ck_assert(!is_kept(path));
	const char *file = cached(".ids", &count);
	ck_assert_int_eq(count, 1);
	struct stat status;
	ck_assert_int_eq(stat(file, &status), 0);
	static const off_t fixed[] = {0, 9, 40, 200, 4096, 4100};
	for (size_t i = 0; i < 10; i++) {
		off_t at = i < 6 ? fixed[i] : status.st_size - 1 - 8 * (off_t)(i - 6);
		unsigned char byte;
		int handle = open(file, O_RDWR);

		if (i == 9)
			ck_assert_int_eq(ftruncate(handle, status.st_size - 5), 0);
		ck_assert_int_eq(pread(handle, &byte, 1, at), 1);
		byte ^= 0x10;
		ck_assert_int_eq(pwrite(handle, &byte, 1, at), 1);
		close(handle);
		ck_assert_msg(!is_kept(path), "byte %ld", (long)at);
		ck_assert(is_kept(path));
	}
	ck_assert_int_eq(unlink(file), 0);
	ck_assert_int_eq(mkdir(file, 0777), 0); /* nothing can be put there */
	ck_assert(!is_kept(path));
	ck_assert_int_eq(rmdir(file), 0);
}
END_TEST

START_TEST(nowhere_to_keep)
{
	char *path = put_file("train.jsonl", lines);
	struct digest want = digest_at(path, "none");

	ck_assert(digest_equal(digest_at(path, "/proc/nowhere"), want));
	ck_assert(digest_equal(digest_at(path, in_folder("tokenizer.json")), want));
	setenv("TMPDIR", "/proc/nowhere", 1);
	ck_assert(digest_equal(digest_at(path, "none"), want)); /* in memory */
}
END_TEST

START_TEST(old_files_go)
{
	static const char hex[] = "0123456789abcdef0123456789abcdef";
	struct timespec old[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
	char *path = put_file("train.jsonl", lines);
	int count;

	folder_make(data.cache);
	for (size_t i = 0; i < 4; i++) {
		const char *name = i == 0 ? arena_format(&arena, "%s/%s.ids", data.cache, hex)
				 : i == 1 ? arena_format(&arena, "%s/%s.seen", data.cache, hex)
				 : i == 2 ? arena_format(&arena, "%s/%s.ids.tmp-1-1", data.cache, hex)
					  : arena_format(&arena, "%s/mine.ids", data.cache);
		ck_assert_int_eq(file_write(name, "x", 1), 0);
		ck_assert_int_eq(utimensat(AT_FDCWD, name, old, 0), 0);
	}
	is_kept(path);
	cached(hex, &count);
	ck_assert_int_eq(count, 0);
	cached("mine", &count);
	ck_assert_int_eq(count, 1);
}
END_TEST

START_TEST(many_at_once)
{
	char *path = put_file("train.jsonl", lines);
	struct digest want = digest_at(path, "none");
	int status;

	for (int i = 0; i < 6; i++) {
		if (fork() == 0)
			_exit(digest_equal(digest_at(path, data.cache), want) ? 0 : 1);
	}
	for (int i = 0; i < 6; i++) {
		ck_assert_int_gt(wait(&status), 0);
		ck_assert_int_eq(status, 0);
	}
	ck_assert(is_kept(path));
}
END_TEST

/* -- memory -------------------------------------------------------------------------------- */

static char *put_large(const char *name, size_t bytes)
{
	FILE *file = fopen(in_folder(name), "w");
	bool text = strstr(name, ".txt") != NULL;

	for (size_t i = 0; bytes > 100; i++) {
		int put = fprintf(file, text ? "line %zu of some plain text.\n"
					     : "{\"text\": \"line %zu of some plain text\"}\n", i % 1000);
		bytes -= (size_t)put;
	}
	fclose(file);
	return in_folder(name);
}

/* The peak of a process that tokenises a file and reads every sample, KiB. */
static long peak(const char *path, bool kept)
{
	struct rusage usage;
	int status;
	pid_t child = fork();

	if (child == 0) {
		struct dataset *set = dataset_open(path, "train", &data, &config);
		int32_t ids[64], labels[64];

		if (!set || set->kept != kept)
			_exit(1);
		for (uint64_t i = 0; i < set->samples; i++)
			if (dataset_sample(set, 1, true, i, ids, labels) < 0)
				_exit(2);
		_exit(0);
	}
	ck_assert_int_eq(wait4(child, &status, 0, &usage), child);
	ck_assert_int_eq(status, 0);
	return usage.ru_maxrss;
}

/* Four times the file, the same memory; a sanitizer's own is beside the point. */
START_TEST(constant_memory)
{
	static const char *const names[] = {"small.jsonl", "large.jsonl", "small.txt", "large.txt"};
	size_t unit = (size_t)4 << 20;
	long kib[4][2];

	data.sequence = 64;
	for (int i = 0; i < 4; i++) {
		char *path = put_large(names[i], i % 2 ? 5 * unit : unit + unit / 2);

		kib[i][0] = peak(path, false);
		kib[i][1] = peak(path, true);
	}
	for (int i = 0; i < 4; i += 2) {
		fprintf(stderr, "%s: %ld KiB, %ld kept; %s: %ld KiB, %ld kept\n", names[i], kib[i][0], kib[i][1],
		       names[i + 1], kib[i + 1][0], kib[i + 1][1]);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		ck_assert_int_lt(kib[i + 1][0], kib[i][0] + 6 * 1024);
		ck_assert_int_lt(kib[i + 1][1], kib[i][1] + 4 * 1024);
#endif
	}
}
END_TEST

/* Pieces give what the whole gives. */
START_TEST(text_in_pieces)
{
	char *path = put_large("large.txt", (size_t)9 << 20);
	size_t bytes;
	char *text = file_read(path, &bytes);
	struct tokenizer *tokenizer = tokenizer_open(config.folder);
	struct ids ids = {0};
	int32_t row[64], labels[64];

	data.sequence = 64;
	ck_assert_int_eq(tokenizer_encode(tokenizer, text, bytes, true, &ids), 0);
	struct dataset *set = dataset_open(path, "train", &data, &config);
	ck_assert_uint_eq(set->samples, (ids.count + 63) / 64);
	for (size_t i = 0; i < set->samples; i++) {
		size_t left = ids.count - 64 * i;

		ck_assert_int_eq(dataset_row(set, i, row, labels), 0);
		ck_assert_mem_eq(row, ids.id + 64 * i, (left < 64 ? left : 64) * sizeof *row);
	}
	dataset_close(set);
	ids_release(&ids);
	tokenizer_close(tokenizer);
	free(text);
}
END_TEST

/* -- gzip ---------------------------------------------------------------------------------- */

/* One gzip member; appended where there is a file. */
static void put_gzip(const char *name, const char *text, size_t bytes)
{
	gzFile file = gzopen(in_folder(name), "ab");

	ck_assert_int_eq(gzwrite(file, text, (unsigned)bytes), (int)bytes);
	ck_assert_int_eq(gzclose(file), Z_OK);
}

static void refused(const char *path, int code, const char *message)
{
	error_clear();
	error_hold();
	struct dataset *set = dataset_open(path, "train", &data, &config);
	int said = error_code();
	const char *text = error_text();
	ck_assert_msg(!set && said == code && strstr(text, message), "%d: '%s' is not in '%s'", said,
		      message, text);
	error_clear();
}

START_TEST(packed_files)
{
	struct digest want = digest_at(put_file("plain.jsonl", lines), "none");
	char *path = in_folder("train.jsonl.gz");
	size_t bytes, half = strlen(lines) / 2;

	put_gzip("train.jsonl.gz", lines, half); /* two members, the border inside a line */
	put_gzip("train.jsonl.gz", lines + half, strlen(lines) - half);
	ck_assert(digest_equal(digest_at(path, "none"), want));
	ck_assert(digest_equal(digest_at(folder, "none"), want));
	put_file("train.txt", "x y z\n");
	refused(folder, EXIT_CONFIG, "both");
	put_gzip("a.txt.gz", "x y z\n", 6);
	ck_assert(digest_equal(digest_at(in_folder("a.txt.gz"), "none"),
			       digest_at(in_folder("train.txt"), "none")));

	char *packed = file_read(path, &bytes);
	for (size_t cut = 0; cut < bytes; cut += 7) {
		ck_assert_int_eq(file_replace(path, packed, cut), 0);
		struct dataset *set = NULL;
		error_hold();
		set = dataset_open(path, "train", &data, &config);
		/* Cut behind the first member, the line breaks off there. */
		ck_assert_msg(!set && error_code() == EXIT_DATA, "cut at %zu", cut);
		error_clear();
	}
	packed[bytes / 2] ^= 0x40;
	ck_assert_int_eq(file_replace(path, packed, bytes), 0);
	error_hold();
	ck_assert_ptr_null(dataset_open(path, "train", &data, &config));
	ck_assert_int_eq(error_code(), EXIT_DATA);
	error_clear();
	packed[bytes / 2] ^= 0x40;
	put_gzip("b.jsonl.gz", lines, strlen(lines));
	char *tail = file_read(in_folder("b.jsonl.gz"), &bytes);
	tail = xrealloc(tail, bytes + 4);
	memcpy(tail + bytes, "junk", 4);
	ck_assert_int_eq(file_replace(in_folder("b.jsonl.gz"), tail, bytes + 4), 0);
	refused(in_folder("b.jsonl.gz"), EXIT_DATA, "damaged");
	put_file("c.jsonl.gz", lines);
	refused(in_folder("c.jsonl.gz"), EXIT_DATA, "damaged");
	free(packed);
	free(tail);
}
END_TEST

START_TEST(packed_tensors)
{
	static const int32_t ids[] = {1, 2, 3, 4};
	const struct safetensors_entry entry = {"input_ids", DTYPE_I32, 2, {2, 2}, ids};
	size_t bytes;

	ck_assert_int_eq(safetensors_write(in_folder("a.safetensors"), &entry, 1, NULL), 0);
	char *plain = file_read(in_folder("a.safetensors"), &bytes);
	put_gzip("b.safetensors.gz", plain, bytes);
	free(plain);
	ck_assert(digest_equal(digest_at(in_folder("a.safetensors"), "none"),
			       digest_at(in_folder("b.safetensors.gz"), "none")));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("data_cache");
	TCase *tcase = tcase_create("data_cache");

	tcase_add_checked_fixture(tcase, set_up, folder_close);
	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, found_again);
	tcase_add_test(tcase, made_anew);
	tcase_add_test(tcase, damaged);
	tcase_add_test(tcase, nowhere_to_keep);
	tcase_add_test(tcase, old_files_go);
	tcase_add_test(tcase, many_at_once);
	tcase_add_test(tcase, constant_memory);
	tcase_add_test(tcase, text_in_pieces);
	tcase_add_test(tcase, packed_files);
	tcase_add_test(tcase, packed_tensors);
	suite_add_tcase(suite, tcase);
	return run_suite(suite);
}
