/*
 * tests/check_codec.c - the codecs of a link: every instruction set gives the bytes of the
 * scalar kernels, errors stay within a step, random rounding has the right mean and key, what
 * is not finite arrives as such.
 *
 * links: base comm
 */
#include "comm/internal.h"
#include "tests/suite.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#define GUARD 64
#define GUARD_BYTE 0xa5

static const struct codec_noise some_noise = {
	.seed = 42, .step = 3, .first_sample = 5, .block = 2, .tokens = 4, .first_row = 3};

/* The i-th table that this CPU has; the first is the scalar one. */
static const struct codec_kernels *kernels_at(int i)
{
	const struct codec_kernels *k[] = {codec_avx2(), codec_avx512()};
	int n = 0;

	for (int j = 0; j < 2; j++)
		if (k[j] && ++n == i)
			return k[j];
	return i == 0 ? codec_scalar() : NULL;
}

static size_t bytes_of(int kind, int rows, int channels)
{
	return codec_of((enum codec_kind)kind, false)->bytes(rows, channels);
}

/* -- data ---------------------------------------------------------------------------------- */

/* Sums of 8 uniform numbers, mean 0 and variance 2/3: Gaussian enough. Exactly sized, so that
 * a sanitizer sees what reads past it. */
static float *make_data(int rows, int channels, uint32_t seed)
{
	size_t n = (size_t)rows * (size_t)channels;
	float *x = xalloc(n * sizeof *x);

	for (size_t i = 0; i < n; i++) {
		float sum = 0;

		for (uint32_t half = 0; half < 2; half++) {
			struct philox p = philox((struct philox){{(uint32_t)i, half}}, seed, 1);

			for (int w = 0; w < 4; w++)
				sum += philox_unit(p.word[w]) - 0.5f;
		}
		x[i] = sum;
	}
	return x;
}

static void scale_channel(float *x, int rows, int channels, int channel, float factor)
{
	for (int r = 0; r < rows; r++)
		x[(size_t)r * (size_t)channels + (size_t)channel] *= factor;
}

/* Strange values here and there. */
static void season(float *x, int rows, int channels)
{
	static const uint32_t strange[] = {0x7f800000, 0xff800000, 0x7fc00001, 0xff812345, 1,
					   0x80000000, 0x007fffff, 0x7f7fffff, 0xff7fffff, 0};
	size_t n = (size_t)rows * (size_t)channels;

	for (size_t i = 0; i < n; i += 97)
		x[i] = codec_float(strange[i / 97 % 10]);
}

struct trip { unsigned char *payload; float *x; size_t bytes, count; };

/* There and back with these kernels; what lies behind payload and result must stay. */
static struct trip travel(const struct codec_kernels *k, int kind, const float *x, int rows,
			  int channels, const struct codec_noise *noise)
{
	struct trip t = {.bytes = bytes_of(kind, rows, channels),
			 .count = (size_t)rows * (size_t)channels};
	unsigned char *end, guard[GUARD];

	t.payload = xalloc(t.bytes + GUARD);
	t.x = xalloc(t.count * sizeof *x + GUARD);
	end = (unsigned char *)(t.x + t.count);
	memset(t.payload, 0x5a, t.bytes);
	memset(t.x, 0x5a, t.count * sizeof *x);
	memset(t.payload + t.bytes, GUARD_BYTE, GUARD);
	memset(end, GUARD_BYTE, GUARD);
	codec_encode(k, (enum codec_kind)kind, t.payload, x, rows, channels, noise);
	codec_decode(k, (enum codec_kind)kind, t.x, t.payload, rows, channels);
	memset(guard, GUARD_BYTE, GUARD);
	ck_assert_msg(!memcmp(t.payload + t.bytes, guard, GUARD),
		      "%s, kind %d, %d x %d: wrote past the payload", k->name, kind, rows,
		      channels);
	ck_assert_msg(!memcmp(end, guard, GUARD), "%s, kind %d, %d x %d: wrote past x", k->name,
		      kind, rows, channels);
	return t;
}

static void trip_free(struct trip *t)
{
	free(t->payload);
	free(t->x);
}

/* -- one result ---------------------------------------------------------------------------- */

static void compare(int rows, int channels, bool strange, float size)
{
	float *x = make_data(rows, channels, (uint32_t)(rows * 10000 + channels));

	for (int c = 5; c < channels; c += 190)
		scale_channel(x, rows, channels, c, 30);
	for (int i = 0; i < rows * channels; i++)
		x[i] *= size;
	if (strange)
		season(x, rows, channels);
	for (int kind = 0; kind < CODEC_KINDS; kind++)
		for (int noisy = 0; noisy < 2; noisy++) {
			const struct codec_noise *noise = noisy ? &some_noise : NULL;
			const struct codec_kernels *k;
			struct trip right = travel(codec_scalar(), kind, x, rows, channels,
						   noise);

			for (int i = 1; (k = kernels_at(i)); i++) {
				struct trip t = travel(k, kind, x, rows, channels, noise);

				ck_assert_msg(!memcmp(t.payload, right.payload, t.bytes),
					      "%s, kind %d, %d x %d, noise %d: another payload",
					      k->name, kind, rows, channels, noisy);
				ck_assert_msg(!memcmp(t.x, right.x, t.count * sizeof *x),
					      "%s, kind %d, %d x %d, noise %d: another result",
					      k->name, kind, rows, channels, noisy);
				trip_free(&t);
			}
			trip_free(&right);
		}
	free(x);
}

START_TEST(all_kernels_give_the_same_bytes)
{
	static const int channels[] = {511, 512, 513, 768, 1023, 1024, 1025, 1152, 2048, 5000};

	for (int c = 1; c <= 300; c++)
		compare(1 + c % 7, c, c % 3 == 0, c % 7 == 1 ? 1e-38f : 1);
	for (size_t i = 0; i < sizeof channels / sizeof *channels; i++)
		for (int rows = 1; rows <= 9; rows += 2)
			compare(rows, channels[i], rows == 3, rows == 5 ? 1e-38f : 1);
}
END_TEST

/* The largest of a group may lie a little beyond the last step; with extreme noise it stays. */
START_TEST(no_kernel_steps_too_far)
{
	static const uint64_t keep[CODEC_TILE / 64] = {~(uint64_t)0, ~(uint64_t)0};
	const struct codec_kernels *k;
	uint16_t noise[CODEC_NOISE];
	float x[128], scale[2];

	for (int i = 0; (k = kernels_at(i)); i++)
		for (int m = 1; m < 2000; m++) {
			int8_t q[128];
			uint8_t pairs[64];
			int wrong = 0;

			memset(noise, m % 2 ? 0xff : 0, sizeof noise);
			for (int j = 0; j < 128; j++)
				x[j] = 0;
			x[0] = (m % 2 ? 1 : -1) * sqrtf((float)m);
			k->int8_encode(q, scale, x, keep, 128, noise);
			k->int4_encode(pairs, scale, x, keep, 64, noise);
			for (int j = 0; j < 32; j++)
				wrong += !(pairs[j] & 15) || !(pairs[j] >> 4);
			ck_assert_int_eq(q[0], m % 2 ? 127 : -127);
			ck_assert_msg(!wrong, "%s: %d steps of -8", k->name, wrong);
		}
}
END_TEST

START_TEST(all_kernels_draw_the_half_words_of_philox)
{
	const struct codec_kernels *k;
	uint16_t got[(37 + 16) * 8];

	for (int i = 0; (k = kernels_at(i)); i++)
		for (int count = 1; count <= 37; count++) {
			struct philox at = {{0xfffffff0u, 7, 8, 9}};

			k->noise(got, at, 10, 11, count);
			for (int c = 0; c < count; c++, at.word[0]++) {
				struct philox p = philox(at, 10, 11);
				int wrong = 0;

				for (int h = 0; h < 8; h++)
					wrong += got[8 * c + h] !=
						 (uint16_t)(p.word[h / 2] >> 16 * (h % 2));
				ck_assert_msg(!wrong, "%s: counter %d of %d", k->name, c,
					      count);
			}
		}
}
END_TEST

START_TEST(the_tables_hold_the_best_kernels_and_the_scalar_ones)
{
	static const char *const names[] = {"none", "bf16", "int8", "int4"};
	int rows = 6, channels = 333;
	float *x = make_data(rows, channels, 1), *y = xalloc((size_t)(rows * channels) * 4);

	for (int kind = 0; kind < CODEC_KINDS; kind++) {
		const struct codec *codec = codec_of((enum codec_kind)kind, false);
		const struct codec *right = codec_reference((enum codec_kind)kind, false);
		size_t bytes = codec->bytes(rows, channels);
		void *a = xzalloc(1, bytes);
		struct trip t = travel(codec_scalar(), kind, x, rows, channels, &some_noise);

		ck_assert_str_eq(codec->name, names[kind]);
		ck_assert_str_eq(right->name, names[kind]);
		ck_assert_uint_eq(right->bytes(rows, channels), bytes);
		codec->encode(a, x, rows, channels, &some_noise);
		ck_assert(!memcmp(a, t.payload, bytes));
		memset(a, 0, bytes);
		right->encode(a, x, rows, channels, &some_noise);
		ck_assert(!memcmp(a, t.payload, bytes));
		codec->decode(y, a, rows, channels);
		ck_assert(!memcmp(y, t.x, t.count * sizeof *y));
		memset(y, 0, t.count * sizeof *y);
		right->decode(y, a, rows, channels);
		ck_assert(!memcmp(y, t.x, t.count * sizeof *y));
		trip_free(&t);
		free(a);
	}
	ck_assert_str_eq(codec_of(CODEC_INT4, true)->name, "int8");
	ck_assert_str_eq(codec_reference(CODEC_INT4, true)->name, "int8");
	ck_assert_str_eq(codec_of(CODEC_BF16, true)->name, "bf16");
	free(x);
	free(y);
}
END_TEST

/* -- sizes --------------------------------------------------------------------------------- */

START_TEST(a_payload_is_as_large_as_the_layout_says)
{
	ck_assert_uint_eq(bytes_of(CODEC_NONE, 3, 5), 60);
	ck_assert_uint_eq(bytes_of(CODEC_BF16, 3, 5), 32);
	ck_assert_uint_eq(bytes_of(CODEC_INT8, 1, 1), 16 + 8 + 4 + 4);
	ck_assert_uint_eq(bytes_of(CODEC_INT8, 42, 768), 16 + 42 * (8 + 6 * 4 + 768));
	ck_assert_uint_eq(bytes_of(CODEC_INT8, 3, 129), 16 + 3 * (8 + 2 * 4) + 388);
	ck_assert_uint_eq(bytes_of(CODEC_INT4, 42, 768), 16 + 42 * (8 + 12 * 4 + 384));
	ck_assert_uint_eq(bytes_of(CODEC_INT4, 3, 65), 16 + 3 * (8 + 2 * 4 + 64));
	for (int kind = 0; kind < CODEC_KINDS; kind++)
		for (int c = 1; c < 300; c++)
			ck_assert_uint_eq(bytes_of(kind, 1 + c % 5, c) % 4, 0);
}
END_TEST

START_TEST(a_frame_has_128_kib_or_one_row)
{
	ck_assert_int_eq(codec_frame_rows(1), 32768);
	ck_assert_int_eq(codec_frame_rows(768), 42);
	ck_assert_int_eq(codec_frame_rows(4096), 8);
	ck_assert_int_eq(codec_frame_rows(32768), 1);
	ck_assert_int_eq(codec_frame_rows(32769), 1);
	ck_assert_int_eq(codec_frame_rows(1000000), 1);
}
END_TEST

/* -- errors -------------------------------------------------------------------------------- */

/* Whether a channel is among the 4 largest: fewer than 4 are larger, or as large and before. */
static bool is_outlier(const float *x, int rows, int channels, int channel)
{
	float *most = xzalloc((size_t)channels, sizeof *most);
	int before = 0;

	for (int r = 0; r < rows; r++)
		for (int c = 0; c < channels; c++)
			most[c] = fmaxf(most[c], fabsf(x[r * channels + c]));
	for (int c = 0; c < channels; c++)
		before += most[c] > most[channel] || (most[c] == most[channel] && c < channel);
	free(most);
	return before < CODEC_OUTLIERS;
}

static void check_bf16(float got, float x, double most)
{
	if (!(fabs((double)got - (double)x) <= fabs((double)x) * most + 0x1p-134))
		ck_abort_msg("%g became %g", (double)x, (double)got);
}

/* Every element of an int8 trip: outliers within bf16's error, the rest within `most` steps. */
static void check_int8(const struct trip *t, const float *x, int rows, int channels,
		       double most)
{
	for (int first = 0; first < channels; first += 128) {
		int end = first + 128 < channels ? first + 128 : channels;
		bool outlier[128];

		for (int c = first; c < end; c++)
			outlier[c - first] = is_outlier(x, rows, channels, c);
		for (int r = 0; r < rows; r++) {
			const float *row = x + r * channels, *got = t->x + r * channels;
			double scale = 0;

			for (int c = first; c < end; c++)
				if (!outlier[c - first])
					scale = fmax(scale, fabs((double)row[c]) / 127);
			scale = scale > 0 ? fmax(scale, (double)FLT_MIN) : 0;
			for (int c = first; c < end; c++)
				if (outlier[c - first])
					check_bf16(got[c], row[c], most * 0x1p-7);
				else if (!(fabs((double)got[c] - (double)row[c]) <=
					   scale * most * 1.00001) ||
					 (scale == (double)FLT_MIN &&
					  fmod((double)got[c], scale) != 0))
					ck_abort_msg("%d, %d of %d x %d: %g became %g", r, c,
						     rows, channels, (double)row[c],
						     (double)got[c]);
		}
	}
}

static const int shapes[][2] = {{1, 1},	  {2, 3},   {3, 4},   {2, 5},	{4, 63},   {4, 64},
				{3, 65},  {5, 127}, {2, 128}, {3, 129}, {3, 200},  {4, 300},
				{2, 768}, {2, 1024}, {2, 1100}, {1, 2500}};
#define SHAPES ((int)(sizeof shapes / sizeof *shapes))

START_TEST(errors_stay_within_half_a_step)
{
	for (int i = 0; i < SHAPES; i++) {
		int rows = shapes[i][0], channels = shapes[i][1];
		float *x = make_data(rows, channels, (uint32_t)i);
		struct trip none, bf16, int8;

		scale_channel(x, rows, channels, channels / 2, 40);
		none = travel(codec_scalar(), CODEC_NONE, x, rows, channels, NULL);
		bf16 = travel(codec_scalar(), CODEC_BF16, x, rows, channels, NULL);
		int8 = travel(codec_scalar(), CODEC_INT8, x, rows, channels, NULL);
		ck_assert(!memcmp(none.x, x, none.count * sizeof *x));
		for (size_t e = 0; e < bf16.count; e++)
			check_bf16(bf16.x[e], x[e], 0x1p-8);
		check_int8(&int8, x, rows, channels, 0.5);
		trip_free(&int8);
		int8 = travel(codec_scalar(), CODEC_INT8, x, rows, channels, &some_noise);
		check_int8(&int8, x, rows, channels, 1);
		trip_free(&none);
		trip_free(&bf16);
		trip_free(&int8);
		free(x);
	}
}
END_TEST

START_TEST(bf16_rounds_to_nearest_even)
{
	static const uint32_t cases[][2] = {
		{0x3f808000, 0x3f80}, {0x3f818000, 0x3f82}, {0x3f808001, 0x3f81},
		{0x3f807fff, 0x3f80}, {0xbf818000, 0xbf82}, {0x7f7fffff, 0x7f80},
		{0x7f800000, 0x7f80}, {0xff800000, 0xff80}, {0x7f800001, 0x7fc0},
		{0xffffffff, 0xffff}, {0x80000000, 0x8000}, {0x00008001, 0x0001}};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		ck_assert_uint_eq(codec_bf16(codec_float(cases[i][0]), NULL), cases[i][1]);
}
END_TEST

/* y = H x / 8 from the definition: the sign is the parity of the common bits. */
static void hadamard(double y[64], const float *x)
{
	for (int i = 0; i < 64; i++) {
		y[i] = 0;
		for (int j = 0; j < 64; j++)
			y[i] += (__builtin_parity((unsigned)(i & j)) ? -1 : 1) * (double)x[j];
		y[i] /= 8;
	}
}

/* Whole groups that hold no outlier, turned again, are within half a step of what they were. */
START_TEST(int4_errs_by_half_a_step_of_the_rotated_group)
{
	int rows = 3, channels = 64 * 20, groups = 0;
	float *x = make_data(rows, channels, 8);
	struct trip t = travel(codec_scalar(), CODEC_INT4, x, rows, channels, NULL);

	for (int g = 0; g < channels / 64; g++) {
		bool alone = true;

		for (int c = 0; c < 64; c++)
			alone &= !is_outlier(x, rows, channels, 64 * g + c);
		for (int r = 0; alone && r < rows; r++, groups++) {
			double y[64], got[64], most = 0;

			hadamard(y, x + r * channels + 64 * g);
			hadamard(got, t.x + r * channels + 64 * g);
			for (int i = 0; i < 64; i++)
				most = fmax(most, fabs(y[i]));
			for (int i = 0; i < 64; i++)
				ck_assert(fabs(y[i] - got[i]) <= most / 14 * 1.00001);
		}
	}
	ck_assert_int_ge(groups, rows * 16);
	trip_free(&t);
	free(x);
}
END_TEST

/* |a - x| / |x| */
static double distance(const float *a, const float *x, size_t n)
{
	double error = 0, norm = 0;

	for (size_t i = 0; i < n; i++) {
		double d = (double)a[i] - (double)x[i];

		error += d * d;
		norm += (double)x[i] * (double)x[i];
	}
	return sqrt(error / norm);
}

/* With steps of a seventh of the largest of 64, an error of about 0.4 / sqrt(12). */
START_TEST(int4_errs_little_by_norm)
{
	for (int i = 0; i < SHAPES; i++) {
		int rows = shapes[i][0], channels = shapes[i][1];
		float *x = make_data(rows, channels, (uint32_t)i + 50);
		struct trip t = travel(codec_scalar(), CODEC_INT4, x, rows, channels, NULL);

		ck_assert_double_lt(distance(t.x, x, t.count), 0.14);
		if (channels >= 300)
			ck_assert_double_gt(distance(t.x, x, t.count), 0.08);
		trip_free(&t);
		free(x);
	}
}
END_TEST

/* -- random rounding ----------------------------------------------------------------------- */

#define STEPS 3000

START_TEST(random_rounding_has_the_right_mean)
{
	int rows = 2, channels = 150;
	size_t n = (size_t)(rows * channels);
	float *x = make_data(rows, channels, 77), *mean = xalloc(n * sizeof *mean);

	for (int kind = CODEC_BF16; kind < CODEC_KINDS; kind++) {
		double *sum = xzalloc(n, sizeof *sum);
		struct trip nearest = travel(codec_scalar(), kind, x, rows, channels, NULL);
		struct codec_noise noise = some_noise;
		double all = 0;

		for (noise.step = 0; noise.step < STEPS; noise.step++) {
			struct trip t = travel(codec_scalar(), kind, x, rows, channels, &noise);

			for (size_t i = 0; i < n; i++)
				sum[i] += (double)t.x[i];
			trip_free(&t);
		}
		for (size_t i = 0; i < n; i++) {
			mean[i] = (float)(sum[i] / STEPS);
			all += ((double)mean[i] - (double)x[i]) / (double)n;
		}
		/* About sqrt(2) times the error of nearest over sqrt(STEPS), 0.026. */
		ck_assert_double_lt(distance(mean, x, n), 0.035 * distance(nearest.x, x, n));
		/* No drift either: a tenth of nearest's deviation over sqrt(n STEPS). */
		ck_assert_double_lt(fabs(all), distance(nearest.x, x, n) * 0.006);
		trip_free(&nearest);
		free(sum);
	}
	free(mean);
	free(x);
}
END_TEST

/* Whether two keys give a tensor different bytes. */
static bool differs(int kind, const struct codec_noise *a, const struct codec_noise *b)
{
	int rows = 3, channels = 100;
	float *x = make_data(rows, channels, 4);
	struct trip t = travel(codec_scalar(), kind, x, rows, channels, a);
	struct trip u = travel(codec_scalar(), kind, x, rows, channels, b);
	bool other = memcmp(t.payload, u.payload, t.bytes) != 0;

	trip_free(&t);
	trip_free(&u);
	free(x);
	return other;
}

START_TEST(noise_is_keyed_by_all_of_its_key)
{
	for (int kind = CODEC_BF16; kind < CODEC_KINDS; kind++) {
		struct codec_noise n[8];

		for (int i = 0; i < 8; i++)
			n[i] = some_noise;
		n[1].seed ^= 1;
		n[2].seed ^= (uint64_t)1 << 40;
		n[3].step++;
		n[4].first_sample++;
		n[5].block++;
		n[6].backward = true;
		n[7].first_row++;
		for (int i = 0; i < 8; i++)
			for (int j = 0; j < 8; j++)
				ck_assert_msg(differs(kind, &n[i], &n[j]) == (i != j),
					      "kind %d: keys %d and %d", kind, i, j);
		/* Row 4 of a sample of 4 tokens is row 0 of the next one. */
		n[0].first_row = 4;
		n[4].first_row = 0;
		ck_assert(!differs(kind, &n[0], &n[4]));
	}
}
END_TEST

START_TEST(each_element_has_its_own_noise)
{
	int rows = 8, channels = 64, ups = 0, same = 0;
	float *x = xalloc((size_t)(rows * channels) * sizeof *x);
	struct trip t;

	for (int i = 0; i < rows * channels; i++)
		x[i] = 1 + 0x1p-8f;		/* halfway between two bf16 */
	t = travel(codec_scalar(), CODEC_BF16, x, rows, channels, &some_noise);
	for (int i = 0; i < rows * channels; i++) {
		ups += t.x[i] > 1;
		same += t.x[i] == t.x[(i + channels) % (rows * channels)];
	}
	ck_assert(ups > 256 - 80 && ups < 256 + 80);
	ck_assert(same > 256 - 80 && same < 256 + 80);
	trip_free(&t);
	free(x);
}
END_TEST

/* Elements are counted through a sample: four rows of 37 channels are one of 148. */
START_TEST(noise_goes_on_from_row_to_row)
{
	struct codec_noise rows = some_noise, row = some_noise;
	float *x = make_data(4, 37, 6);
	struct trip t, u;

	rows.first_row = row.first_row = 0;
	row.tokens = 1;
	t = travel(codec_scalar(), CODEC_BF16, x, 4, 37, &rows);
	u = travel(codec_scalar(), CODEC_BF16, x, 1, 148, &row);
	ck_assert(!memcmp(t.payload, u.payload, t.bytes));
	trip_free(&t);
	trip_free(&u);
	free(x);
}
END_TEST

/* The same four outliers in every row, so that all cuts choose them, in the same order. */
START_TEST(noise_does_not_depend_on_the_cut)
{
	int rows = 23, channels = 1100 + 37;
	float *x = make_data(rows, channels, 9), *y = xalloc((size_t)(rows * channels) * 4);
	struct codec_noise noise = some_noise;

	for (int r = 0; r < rows; r++)
		for (int i = 0; i < 4; i++)
			x[r * channels + 5 + 300 * i] = (float)(90 - 10 * i);
	for (int kind = CODEC_BF16; kind < CODEC_KINDS; kind++)
		for (int cut = 1; cut < rows; cut += 4) {
			struct trip t;

			noise.first_row = some_noise.first_row;
			t = travel(codec_scalar(), kind, x, rows, channels, &noise);
			for (int r = 0; r < rows; r += cut) {
				int n = cut < rows - r ? cut : rows - r;
				struct trip u;

				noise.first_row = some_noise.first_row + r;
				u = travel(codec_scalar(), kind, x + r * channels, n, channels,
					   &noise);
				memcpy(y + r * channels, u.x, u.count * sizeof *y);
				trip_free(&u);
			}
			ck_assert_msg(!memcmp(y, t.x, t.count * sizeof *y),
				      "kind %d, frames of %d rows", kind, cut);
			trip_free(&t);
		}
	free(y);
	free(x);
}
END_TEST

/* -- outliers ------------------------------------------------------------------------------ */

static void check_channels(const struct trip *t, const uint32_t right[4])
{
	uint32_t got[4];

	memcpy(got, t->payload, sizeof got);
	for (int i = 0; i < 4; i++)
		ck_assert_uint_eq(got[i], right[i]);
}

START_TEST(outlier_channels_stay_bf16)
{
	static const uint32_t planted[] = {1499, 0, 1024, 700};
	int rows = 5, channels = 1500;
	const struct codec_kernels *k;
	float *x = make_data(rows, channels, 10);

	for (int i = 0; i < 4; i++)	/* one row is enough; the largest first */
		x[i * channels + (int)planted[i]] = i % 2 ? (float)i - 50 : 50 - (float)i;
	for (int kind = CODEC_INT8; kind <= CODEC_INT4; kind++)
		for (int i = 0; (k = kernels_at(i)); i++) {
			struct trip t = travel(k, kind, x, rows, channels, NULL);

			check_channels(&t, planted);
			for (int r = 0; r < rows; r++)
				for (int o = 0; o < 4; o++) {
					int e = r * channels + (int)planted[o];
					uint32_t bits = codec_bf16(x[e], NULL);

					ck_assert(t.x[e] == codec_float(bits << 16));
				}
			trip_free(&t);
		}
	free(x);
}
END_TEST

START_TEST(of_equal_channels_the_lowest_are_outliers)
{
	static const uint32_t first[] = {0, 1, 2, 3}, later[] = {30, 0, 1, 2};
	static const uint32_t two[] = {0, 1, ~0u, ~0u};
	float x[3 * 1100];
	struct trip t;

	for (int i = 0; i < 3 * 1100; i++)
		x[i] = i % 3 ? 0.5f : -0.5f;
	t = travel(codec_scalar(), CODEC_INT8, x, 3, 1100, NULL);
	check_channels(&t, first);
	trip_free(&t);
	x[30] = 0.75f;
	t = travel(codec_scalar(), CODEC_INT8, x, 3, 1100, NULL);
	check_channels(&t, later);
	trip_free(&t);
	t = travel(codec_scalar(), CODEC_INT4, x, 3, 2, NULL);
	check_channels(&t, two);
	for (int i = 0; i < 6; i++)
		ck_assert(t.x[i] == x[i]);
	trip_free(&t);
}
END_TEST

START_TEST(a_wrong_channel_number_writes_nothing)
{
	uint32_t wrong[] = {100, 0x7fffffff, 0x80000000, ~0u};
	float *x = make_data(2, 100, 3);
	const struct codec_kernels *k = codec_scalar();
	struct trip t = travel(k, CODEC_INT8, x, 2, 100, NULL);
	float *last = t.x + t.count;

	memcpy(t.payload, wrong, sizeof wrong);
	codec_decode(k, CODEC_INT8, t.x, t.payload, 2, 100);
	ck_assert_uint_eq(codec_bits(last[0]), 0xa5a5a5a5);
	trip_free(&t);
	free(x);
}
END_TEST

/* -- values that are not, or hardly, numbers ----------------------------------------------- */

/* One row of several takes what is not finite; it must arrive there, and in no other row. */
static void check_arrival(const struct codec_kernels *k, int kind, float *x, int channels,
			  int first, int count, uint32_t bits, const struct codec_noise *noise)
{
	int rows = 3, row = 1, lost = 0, spread = 0;
	float saved[16];
	struct trip t;

	memcpy(saved, x + row * channels + first, (size_t)count * sizeof *x);
	for (int i = 0; i < count; i++)
		x[row * channels + first + i] = codec_float(bits);
	t = travel(k, kind, x, rows, channels, noise);
	for (int i = 0; i < count; i++)
		lost += isfinite(t.x[row * channels + first + i]) != 0;
	for (int c = 0; c < channels; c++)
		spread += !isfinite(t.x[c]) || !isfinite(t.x[2 * channels + c]);
	ck_assert_msg(!lost, "%s, kind %d: %d of %d %08x from channel %d on are lost", k->name,
		      kind, lost, count, bits, first);
	ck_assert_msg(!spread, "%s, kind %d: %08x in channel %d spreads to other rows", k->name,
		      kind, bits, first);
	trip_free(&t);
	memcpy(x + row * channels + first, saved, (size_t)count * sizeof *x);
}

START_TEST(what_is_not_finite_arrives_as_such)
{
	static const uint32_t strange[] = {0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000,
					   0x7f800001, 0xffffffff};
	int channels = 150;
	float *x = make_data(3, channels, 12);
	const struct codec_kernels *k;

	for (int i = 0; (k = kernels_at(i)); i++)
		for (int kind = 0; kind < CODEC_KINDS; kind++)
			for (int s = 0; s < 6; s++)
				for (int c = 0; c < channels; c += 1 + 2 * (s > 2)) {
					int count = c + 9 < channels ? 9 : 1;

					check_arrival(k, kind, x, channels, c, 1, strange[s],
						      NULL);
					check_arrival(k, kind, x, channels, c, count,
						      strange[s], c % 2 ? &some_noise : NULL);
				}
	free(x);
}
END_TEST

START_TEST(zeros_stay_zeros)
{
	float x[4 * 200] = {0};

	for (int i = 0; i < 4 * 200; i += 7)
		x[i] = -0.0f;
	for (int kind = 0; kind < CODEC_KINDS; kind++)
		for (int noisy = 0; noisy < 2; noisy++) {
			struct trip t = travel(codec_scalar(), kind, x, 4, 200,
					       noisy ? &some_noise : NULL);

			for (size_t i = 0; i < t.count; i++)
				ck_assert(t.x[i] == 0);
			trip_free(&t);
		}
}
END_TEST

/* From the largest numbers to the smallest. A step is never below 2^-126. */
START_TEST(scales_neither_overflow_nor_vanish)
{
	static const float sizes[] = {1.5e38f, 1e36f, 1e-30f, 0x1p-119f, 0x1p-120f, 1e-38f,
				      1e-40f,
				      0x1p-149f};
	int rows = 3, channels = 300;

	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		float *x = make_data(rows, channels, 13);
		struct trip t;

		for (int i = 0; i < rows * channels; i++)
			x[i] = fminf(fmaxf(x[i], -2), 2) * sizes[s];
		t = travel(codec_scalar(), CODEC_INT8, x, rows, channels, NULL);
		for (int i = 0; i < rows * channels; i++)
			ck_assert(isfinite(t.x[i]));
		check_int8(&t, x, rows, channels, 0.5);
		trip_free(&t);
		t = travel(codec_scalar(), CODEC_INT4, x, rows, channels, NULL);
		if (sizes[s] <= 1e36f && sizes[s] >= 1e-30f)
			ck_assert_double_lt(distance(t.x, x, t.count), 0.14);
		for (int i = 0; i < rows * channels; i++)
			ck_assert(isfinite(t.x[i]) || sizes[s] > 1e37f);
		trip_free(&t);
		free(x);
	}
}
END_TEST

/* What overflows in the rotation is seen as divergence, and alike everywhere. */
START_TEST(a_rotation_that_overflows_is_not_a_number)
{
	const struct codec_kernels *k;
	float x[64 * 2];

	for (int i = 0; i < 128; i++)
		x[i] = FLT_MAX;
	for (int i = 0; (k = kernels_at(i)); i++) {
		struct trip t = travel(k, CODEC_INT4, x, 1, 128, NULL);

		for (int c = 0; c < 128; c++)
			ck_assert(!isfinite(t.x[c]));
		trip_free(&t);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("codec");
	TCase *one = tcase_create("one result"), *error = tcase_create("errors");
	TCase *noise = tcase_create("noise"), *strange = tcase_create("strange values");

	tcase_add_test(one, all_kernels_give_the_same_bytes);
	tcase_add_test(one, no_kernel_steps_too_far);
	tcase_add_test(one, all_kernels_draw_the_half_words_of_philox);
	tcase_add_test(one, the_tables_hold_the_best_kernels_and_the_scalar_ones);
	tcase_add_test(one, a_payload_is_as_large_as_the_layout_says);
	tcase_add_test(one, a_frame_has_128_kib_or_one_row);
	tcase_add_test(error, errors_stay_within_half_a_step);
	tcase_add_test(error, bf16_rounds_to_nearest_even);
	tcase_add_test(error, int4_errs_by_half_a_step_of_the_rotated_group);
	tcase_add_test(error, int4_errs_little_by_norm);
	tcase_add_test(error, outlier_channels_stay_bf16);
	tcase_add_test(error, of_equal_channels_the_lowest_are_outliers);
	tcase_add_test(error, a_wrong_channel_number_writes_nothing);
	tcase_add_test(noise, random_rounding_has_the_right_mean);
	tcase_add_test(noise, noise_is_keyed_by_all_of_its_key);
	tcase_add_test(noise, each_element_has_its_own_noise);
	tcase_add_test(noise, noise_goes_on_from_row_to_row);
	tcase_add_test(noise, noise_does_not_depend_on_the_cut);
	tcase_add_test(strange, what_is_not_finite_arrives_as_such);
	tcase_add_test(strange, zeros_stay_zeros);
	tcase_add_test(strange, scales_neither_overflow_nor_vanish);
	tcase_add_test(strange, a_rotation_that_overflows_is_not_a_number);
	suite_add_tcase(suite, one);
	suite_add_tcase(suite, error);
	suite_add_tcase(suite, noise);
	suite_add_tcase(suite, strange);
	tcase_set_timeout(one, 60);
	tcase_set_timeout(noise, 60);
	tcase_set_timeout(strange, 60);
	return run_suite(suite);
}
