/*
 * tests/check_safetensors.c - the reader takes every file that the format allows and no other,
 * says why, and neither crashes nor takes memory or time for a header that lies.
 *
 * links: base tensor model
 */
#include "tests/model_files.h"

#include <sys/resource.h>

/* A header that is given as text, followed by `data` zero bytes. */
struct file {
	const char *header;
	size_t data;
	const char *reason; /* null: a good file */
};

#define ONE(shape, offsets)                                                                    \
	"{\"a\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define TWO(first, second)                                                                     \
	"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":" first "},"                 \
	"\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":" second "}}"
#define TYPED(dtype, shape, end)                                                               \
	"{\"a\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[0," end "]}}"

static const struct file good[] = {
	{ONE("[2,3]", "[0,24]"), 24, NULL},
	{ONE("[]", "[0,4]"), 4, NULL},  /* no dimension: one number */
	{ONE("[0]", "[0,0]"), 0, NULL}, /* no number */
	{ONE("[3,0,5]", "[0,0]"), 0, NULL},
	{ONE("[9223372036854775807,2,0]", "[0,0]"), 0, NULL},
	{ONE("[1,1,1,1,1,1,1,1]", "[0,4]"), 4, NULL},
	{"{}", 0, NULL},
	{"{}      ", 0, NULL}, /* padding */
	{TWO("[0,4]", "[4,8]"), 8, NULL},
	{TWO("[4,8]", "[0,4]"), 8, NULL}, /* in any order */
	{"{\"__metadata__\":{\"format\":\"pt\"}}", 0, NULL},
	{"{\"__metadata__\":{},\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8,
	 NULL},
	{"{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,4]},"
	 "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
	 "\"c\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
	 4, NULL},
	{TYPED("F4", "[4]", "2"), 2, NULL},
	{TYPED("F6_E2M3", "[4]", "3"), 3, NULL},
	{TYPED("BOOL", "[5]", "5"), 5, NULL},
	{TYPED("C64", "[2]", "16"), 16, NULL},
	{"{\"../x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, NULL},
	{"{\"g\\u00e9 \\\"q\\\" 1.5e3\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
	 1, NULL},
};

static const struct file bad[] = {
	{"", 0, "does not start with '{'"},
	{" {}", 0, "does not start with '{'"},
	{"[]", 0, "does not start with '{'"},
	{"\xff{}", 0, "does not start with '{'"},
	{"{}\n", 0, "does not end with '}'"},
	{"{} x", 0, "does not end with '}'"},
	{"{}{}", 0, "error: "},
	{"{,}", 0, "error: "},
	{"{\"a\" 1}", 0, "error: "},
	{"{\"a\":{}", 0, "error: "},
	{"{\"\xff\":{}}", 0, "error: "},
	{"{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "error: "},
	{TWO("[0,4]", "[4,8]") "x}", 8, "error: "},
	{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
	 "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
	 8, "duplicate"},
	{"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
	 "duplicate"},
	{"{\"a\":7}", 0, "not an object"},
	{"{\"a\":null}", 0, "not an object"},
	{"{\"a\":{}}", 0, "\"dtype\" is missing"},
	{"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "\"shape\" is missing"},
	{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "\"data_offsets\" is missing"},
	{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4,
	 "a key beside"},
	{TYPED("F128", "[1]", "4"), 4, "unknown dtype \"F128\""},
	{TYPED("f32", "[1]", "4"), 4, "unknown dtype \"f32\""},
	{"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown dtype"},
	{TYPED("F4", "[3]", "2"), 2, "whole byte"},
	{TYPED("F6_E3M2", "[3]", "2"), 2, "whole byte"},
	{ONE("4", "[0,4]"), 4, "shape is not a list"},
	{ONE("[-1]", "[0,4]"), 4, "not a size"},
	{ONE("[1.5]", "[0,4]"), 4, "not a whole number"},
	{ONE("[1.0]", "[0,4]"), 4, "not a whole number"},
	{ONE("[1e0]", "[0,4]"), 4, "not a whole number"},
	{ONE("[\"1\"]", "[0,4]"), 4, "not a size"},
	{ONE("[null]", "[0,4]"), 4, "not a size"},
	{ONE("[9223372036854775808]", "[0,4]"), 4, "not a size"},
	{ONE("[18446744073709551616]", "[0,0]"), 0, "not a size"},
	{ONE("[4294967296,4294967296]", "[0,0]"), 0, "overflows"}, /* wraps to 0 */
	{ONE("[4294967297,4294967296]", "[0,4]"), 4, "overflows"}, /* wraps to something small */
	{ONE("[4611686018427387904]", "[0,0]"), 0, "overflows"},   /* only in bytes */
	{ONE("[9223372036854775807,3,0]", "[0,0]"), 0, "overflows"},
	{ONE("[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "9 dimensions"},
	{ONE("[1]", "[4,0]"), 4, "reversed"},
	{ONE("[1]", "[-4,0]"), 4, "not two offsets"},
	{ONE("[1]", "[0]"), 4, "not two offsets"},
	{ONE("[1]", "[0,4,8]"), 8, "not two offsets"},
	{ONE("[1]", "{}"), 4, "not two offsets"},
	{ONE("[1]", "[0,\"4\"]"), 4, "not two offsets"},
	{ONE("[1]", "[0,4.0]"), 4, "not a whole number"},
	{ONE("[1]", "[0,9223372036854775807]"), 4, "beyond the 4 bytes"},
	{ONE("[2]", "[0,8]"), 4, "beyond the 4 bytes"}, /* truncated */
	{ONE("[2]", "[0,4]"), 4, "span 4 bytes, but shape and dtype make 8"},
	{ONE("[0]", "[0,4]"), 4, "span 4 bytes, but shape and dtype make 0"},
	{ONE("[1]", "[4,8]"), 8, "hole before"}, /* does not start at 0 */
	{TWO("[0,4]", "[8,12]"), 12, "hole before"},
	{TWO("[0,4]", "[0,4]"), 4, "overlaps"},
	{TWO("[0,4]", "[2,6]"), 6, "overlaps"},
	{ONE("[1]", "[0,4]"), 5, "1 bytes after the last tensor"},
	{"{}", 3, "3 bytes after the last tensor"},
	{"{\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "empty name"},
	{"{\"a\\nb\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
	 "control character"},
	{"{\"__metadata__\":7}", 0, "__metadata__ is not an object"},
	{"{\"__metadata__\":{\"a\":1}}", 0, "not a text"},
};

static void put_length(struct text *text, uint64_t length)
{
	for (int i = 0; i < 8; i++) {
		unsigned char byte = (unsigned char)(length >> 8 * i);

		text_put(text, &byte, 1);
	}
}

/* Writes a file from its parts; length is what its first eight bytes claim. */
static char *make_file(uint64_t length, const char *header, size_t header_bytes, size_t data)
{
	char *path = at("x.safetensors");
	struct text text = {0};

	put_length(&text, length);
	text_put(&text, header, header_bytes);
	for (size_t i = 0; i < data; i++)
		text_put(&text, "", 1);
	put(path, text.data, text.bytes);
	text_release(&text);
	return path;
}

static void assert_refused(const char *path, const char *reason)
{
	error_hold();
	ck_assert_ptr_null(safetensors_open(path));
	assert_said(EXIT_DATA, reason);
}

START_TEST(good_files_are_read)
{
	const struct file *f = &good[_i];
	char *path = make_file(strlen(f->header), f->header, strlen(f->header), f->data);
	struct safetensors *file = safetensors_open(path);
	size_t sum = 0;

	ck_assert_msg(file != NULL, "%s", f->header);
	for (int i = 0; i < file->count; i++) {
		const struct safetensor *tensor = &file->tensor[i];

		ck_assert_ptr_eq(safetensors_find(file, tensor->name), tensor);
		ck_assert_uint_eq(
		    (size_t)((const char *)tensor->data - (const char *)file->map),
		    8 + strlen(f->header) + sum);
		sum += tensor->bytes;
	}
	ck_assert_uint_eq(sum, f->data);
	ck_assert_ptr_null(safetensors_find(file, "nothing"));
	safetensors_close(file);
}
END_TEST

START_TEST(bad_files_are_refused)
{
	const struct file *f = &bad[_i];

	assert_refused(make_file(strlen(f->header), f->header, strlen(f->header), f->data),
		       f->reason);
}
END_TEST

START_TEST(fields_are_read)
{
	const char *header =
	    "{\"x\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[2,14]},"
	    "\"y\":{\"dtype\":\"U16\",\"shape\":[],\"data_offsets\":[0,2]}}";
	struct safetensors *file =
	    safetensors_open(make_file(strlen(header), header, strlen(header), 14));

	ck_assert_ptr_nonnull(file);
	const struct safetensor *x = safetensors_find(file, "x"),
				*y = safetensors_find(file, "y");
	ck_assert_int_eq(file->count, 2);
	ck_assert_ptr_eq(y, &file->tensor[0]); /* file order is that of the data */
	ck_assert(x->known && x->dtype == DTYPE_BF16 && x->dims == 2 && x->bytes == 12);
	ck_assert(x->shape[0] == 2 && x->shape[1] == 3);
	ck_assert(!y->known && y->dims == 0 && y->bytes == 2);
	ck_assert_str_eq(y->dtype_text, "U16");
	safetensors_close(file);
}
END_TEST

/* Lengths that lie, with a good header behind them. */
static const struct {
	uint64_t length;
	const char *reason;
} lengths[] = {
	{0, "does not start with '{'"},	    {1, "does not start with '{'"},
	{52, "does not end with '}'"},	    {1000, "file ends before"},
	{100000000, "file ends before"},	    {100000001, "above the limit"},
	{UINT64_MAX, "above the limit"},	    {UINT64_MAX - 7, "above the limit"},
	{(uint64_t)1 << 63, "above the limit"},
};

START_TEST(lengths_that_lie_are_refused)
{
	const char *header = ONE("[1]", "[0,4]");

	assert_refused(make_file(lengths[_i].length, header, strlen(header), 4),
		       lengths[_i].reason);
}
END_TEST

START_TEST(files_too_short_for_a_length_are_refused)
{
	put(at("short.safetensors"), "\2\0\0\0\0\0\0", (size_t)_i);
	assert_refused(at("short.safetensors"), "too few");
}
END_TEST

START_TEST(what_is_no_file_is_an_input_error)
{
	error_hold();
	ck_assert_ptr_null(safetensors_open(at("absent.safetensors")));
	assert_said(EXIT_INPUT, "absent.safetensors");
	error_hold();
	ck_assert_ptr_null(safetensors_open(scratch));
	assert_said(EXIT_INPUT, "not a file");
}
END_TEST

/* -- headers made to hurt -------------------------------------------------------------------
 */

static double used_s(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)usage.ru_utime.tv_sec + 1e-6 * (double)usage.ru_utime.tv_usec;
}

/* Repeats a piece until the text has `bytes`, between a start and an end. */
static void fill(struct text *text, const char *start, const char *piece, size_t bytes,
		 const char *end)
{
	text_put(text, start, strlen(start));
	while (text->bytes < bytes)
		text_put(text, piece, strlen(piece));
	text_put(text, end, strlen(end));
}

static const struct {
	const char *start, *piece, *end, *reason;
} hostile[] = {
	{"{\"a\":", "[[[[[[[[[[[[[[[[", "}", "x.safetensors"}, /* deep */
	{"{\"a\":[", "{},{},{},{},{},", "{}]}", "x.safetensors"},
	{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1", ",1,1,1,1,1,1,1,1", "],\"data_offsets\":[0,4]}}",
	 "x.safetensors"},
	{"{\"", "aaaaaaaa", "\":{}}", "x.safetensors"}, /* a name without end */
	{"{\"a\":{},", "         ", "\"b\":{}}", "x.safetensors"},
	{"{\"__metadata__\":{\"a\":\"", "bbbbbbbb", "\"}}", "x.safetensors"},
};

/* Instrumented code is not what these limits are about. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { INSTRUMENTED = 1 };
#elif defined(__has_feature)
enum { INSTRUMENTED = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) };
#else
enum { INSTRUMENTED = 0 };
#endif

START_TEST(hostile_headers_cost_little)
{
	const size_t bytes[] = {(size_t)1 << 20, (size_t)31 << 20};
	struct text text = {0};
	struct rusage before, after;

	fill(&text, hostile[_i / 2].start, hostile[_i / 2].piece, bytes[_i % 2],
	     hostile[_i / 2].end);
	char *path = make_file(text.bytes, text.data, text.bytes, 4);
	text_release(&text);
	getrusage(RUSAGE_SELF, &before);
	double start_s = used_s();
	error_hold();
	ck_assert_ptr_null(safetensors_open(path));
	assert_said(EXIT_DATA, hostile[_i / 2].reason);
	getrusage(RUSAGE_SELF, &after);
	if (!INSTRUMENTED) {
		ck_assert_double_lt(used_s() - start_s, 5.0);
		/* the file itself is mapped, and counts as long as its pages are there */
		ck_assert_int_lt(after.ru_maxrss - before.ru_maxrss,
				 (256 << 10) + (long)(bytes[_i % 2] >> 10));
	}
	unlink(path);
}
END_TEST

/* The format allows 100 MB; ours are at most 32 MiB and padding. */
START_TEST(long_headers_must_be_padding)
{
	const size_t bytes = 99000000;
	char *header = xalloc(bytes);

	memset(header, ' ', bytes);
	memcpy(header, "{}", 2);
	struct safetensors *file = safetensors_open(make_file(bytes, header, bytes, 0));
	ck_assert_ptr_nonnull(file);
	safetensors_close(file);
	header[bytes - 1] = '}';
	assert_refused(make_file(bytes, header, bytes, 0), "without its padding");
	free(header);
	unlink(at("x.safetensors"));
}
END_TEST

START_TEST(a_thousand_overlapping_tensors_are_refused)
{
	struct text text = {0};

	text_add(&text, "{");
	for (int i = 0; i < 1000; i++)
		text_add(&text,
			 "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}",
			 i ? "," : "", i);
	text_add(&text, "}");
	assert_refused(make_file(text.bytes, text.data, text.bytes, 4), "overlaps");
	text_release(&text);
}
END_TEST

START_TEST(many_dimensions_and_long_names_are_refused)
{
	struct text text = {0};

	fill(&text, "{\"a\":{\"dtype\":\"F32\",\"shape\":[1", ",1", 131072,
	     "],\"data_offsets\":[0,4]}}");
	assert_refused(make_file(text.bytes, text.data, text.bytes, 4), "dimensions");
	text_release(&text);
	fill(&text, "{\"", "n", 1 << 20,
	     "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
	assert_refused(make_file(text.bytes, text.data, text.bytes, 1), "name has");
	text_release(&text);
}
END_TEST

START_TEST(a_hundred_thousand_tensors_are_read)
{
	struct text text = {0};
	char name[32];

	text_add(&text, "{");
	for (int i = 0; i < 100000; i++)
		text_add(&text,
			 "%s\"model.layers.%d.w\":{\"dtype\":\"U8\",\"shape\":[1],"
			 "\"data_offsets\":[%d,%d]}",
			 i ? "," : "", i, i, i + 1);
	text_add(&text, "}");
	char *path = make_file(text.bytes, text.data, text.bytes, 100000);
	text_release(&text);
	struct safetensors *file = safetensors_open(path);
	ck_assert_ptr_nonnull(file);
	for (int i = 0; i < 100000; i += 99) {
		snprintf(name, sizeof name, "model.layers.%d.w", i);
		ck_assert_ptr_eq(safetensors_find(file, name), &file->tensor[i]);
	}
	safetensors_close(file);
}
END_TEST

START_TEST(a_sparse_terabyte_is_refused_at_once)
{
	char *path = make_file(54, ONE("[1]", "[0,4]"), 54, 4);

	if (truncate(path, (off_t)1 << 40) < 0)
		return; /* a file system without such files */
	assert_refused(path, "after the last tensor");
	unlink(path);
}
END_TEST

/* -- writing ------------------------------------------------------------------------------- */

START_TEST(what_is_written_reads_back)
{
	const float a[6] = {1, -2, 3, 4, 5, 6}, b[1] = {7};
	const int64_t c[2] = {-1, 1LL << 40};
	const struct safetensors_entry entry[] = {
	    {"a", DTYPE_F32, 2, {2, 3}, a},
	    {"b \"quoted\"", DTYPE_F32, 0, {0}, b},
	    {"none", DTYPE_F32, 1, {0}, NULL},
	    {"c", DTYPE_I64, 1, {2}, c},
	};
	const char *const metadata[] = {"format", "pt", "k", "v\n", NULL};

	ck_assert_int_eq(safetensors_write(at("w"), entry, 4, metadata), 0);
	struct safetensors *file = safetensors_open(at("w"));
	ck_assert_ptr_nonnull(file);
	ck_assert_int_eq(file->count, 4);
	const struct safetensor *found = safetensors_find(file, "a");
	ck_assert_int_eq((int)((const char *)found->data - (const char *)file->map) % 8, 0);
	ck_assert_mem_eq(found->data, a, sizeof a);
	found = safetensors_find(file, "b \"quoted\"");
	ck_assert(found->dims == 0 && found->bytes == 4);
	ck_assert_mem_eq(found->data, b, sizeof b);
	ck_assert_mem_eq(safetensors_find(file, "c")->data, c, sizeof c);
	ck_assert_uint_eq(safetensors_find(file, "none")->bytes, 0);
	safetensors_close(file);
}
END_TEST

START_TEST(data_is_aligned_whatever_the_header)
{
	const double one[1] = {1};
	const char *const name = "nnnnnnnn";

	const struct safetensors_entry entry = {name + _i, DTYPE_F64, 1, {1}, one};
	ck_assert_int_eq(safetensors_write(at("a"), &entry, 1, NULL), 0);
	struct safetensors *file = safetensors_open(at("a"));
	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq((uintptr_t)file->tensor[0].data % 8, 0);
	safetensors_close(file);
}
END_TEST

START_TEST(the_header_digest_covers_the_header_alone)
{
	const float one[1] = {1}, two[1] = {2};
	struct safetensors_entry entry = {"a", DTYPE_F32, 1, {1}, one};
	struct digest digest[3];

	for (int i = 0; i < 3; i++) {
		entry.data = i == 1 ? two : one;
		entry.name = i == 2 ? "b" : "a";
		ck_assert_int_eq(safetensors_write(at("d"), &entry, 1, NULL), 0);
		struct safetensors *file = safetensors_open(at("d"));
		ck_assert_ptr_nonnull(file);
		digest[i] = file->header_digest;
		safetensors_close(file);
	}
	ck_assert(digest_equal(digest[0], digest[1]));
	ck_assert(!digest_equal(digest[0], digest[2]));
}
END_TEST

START_TEST(a_disk_that_is_full_is_an_io_error)
{
	const float one[1] = {1};
	const struct safetensors_entry entry = {"a", DTYPE_F32, 1, {1}, one};

	error_hold();
	ck_assert_int_eq(safetensors_write("/dev/full", &entry, 1, NULL), -1);
	assert_said(EXIT_IO, "/dev/full");
	error_hold();
	ck_assert_int_eq(safetensors_write(at("no/such/folder"), &entry, 1, NULL), -1);
	assert_said(EXIT_CREATE, "no/such/folder");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("safetensors");
	TCase *t = tcase_create("safetensors");

	tcase_add_unchecked_fixture(t, scratch_open, scratch_close);
	tcase_set_timeout(t, 30);
	tcase_add_loop_test(t, good_files_are_read, 0, COUNT(good));
	tcase_add_loop_test(t, bad_files_are_refused, 0, COUNT(bad));
	tcase_add_test(t, fields_are_read);
	tcase_add_loop_test(t, lengths_that_lie_are_refused, 0, COUNT(lengths));
	tcase_add_loop_test(t, files_too_short_for_a_length_are_refused, 0, 8);
	tcase_add_test(t, what_is_no_file_is_an_input_error);
	tcase_add_loop_test(t, hostile_headers_cost_little, 0, 2 * COUNT(hostile));
	tcase_add_test(t, long_headers_must_be_padding);
	tcase_add_test(t, a_thousand_overlapping_tensors_are_refused);
	tcase_add_test(t, many_dimensions_and_long_names_are_refused);
	tcase_add_test(t, a_hundred_thousand_tensors_are_read);
	tcase_add_test(t, a_sparse_terabyte_is_refused_at_once);
	tcase_add_test(t, what_is_written_reads_back);
	tcase_add_loop_test(t, data_is_aligned_whatever_the_header, 0, 8);
	tcase_add_test(t, the_header_digest_covers_the_header_alone);
	tcase_add_test(t, a_disk_that_is_full_is_an_io_error);
	suite_add_tcase(s, t);
	return run_suite(s);
}
