/*
 * bench/codec.c - how fast one thread encodes and decodes what crosses a cut, and what is lost.
 *
 * A tensor of about 4 MiB in frames, as a stream cuts it: Gaussian, with four channels 50 times
 * as large as the rest, as the residual streams of transformers have. Every codec with the
 * kernels of every instruction set that this CPU has; verified, then timed, all of them in turn
 * in every round.
 *
 * links: comm
 */
#include "comm/internal.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>

#define TENSOR_BYTES (4 << 20)
#define LONG_ENOUGH_S 0.02	/* a span that can be trusted */
#define ROUNDS_MOST 64
#define LARGER 50		/* the planted channels, than the others */

static const char usage[] =
	"codec - GB/s of fp32 that one thread encodes and decodes, and what is lost\n"
	"\n"
	"  codec --channels 768\n"
	"\n"
	"Usage: codec [--channels 768] [--rounds 9]\n";

struct order { uint64_t channels, rounds; };

enum { NEAREST, STOCHASTIC, DECODE, WORKS };

/* One line of the table. */
struct way {
	const struct codec_kernels *k;
	enum codec_kind kind;
	long times[WORKS];
	double seconds[WORKS][ROUNDS_MOST];
};

struct bench {
	struct order order;
	int rows, channels, frame_rows;
	float *x, *y, *again;
	char *payload, *right;		/* one frame */
	char *all;			/* all frames of one codec, for decoding */
	struct way way[CODEC_KINDS * 3];
	int ways;
};

static const struct codec_noise noise = {
	.seed = 1, .step = 1, .block = 3, .backward = true, .tokens = 512};

/* -- data ---------------------------------------------------------------------------------- */

static bool planted(const struct bench *b, int channel)
{
	for (int i = 0; i < CODEC_OUTLIERS; i++)
		if (channel == (2 * i + 1) * b->channels / (2 * CODEC_OUTLIERS))
			return true;
	return false;
}

/* Normal numbers by Box and Muller; some channels this much larger. */
static void fill(const struct bench *b, float *x, float larger)
{
	for (int r = 0; r < b->rows; r++)
		for (int c = 0; c < b->channels; c++) {
			struct philox at = {{(uint32_t)r, (uint32_t)c}}, p = philox(at, 7, 7);
			double u = 1 - (double)philox_unit(p.word[0]);
			double angle = 2 * M_PI * (double)philox_unit(p.word[1]);

			*x++ = (float)(sqrt(-2 * log(u)) * cos(angle)) *
			       (planted(b, c) ? larger : 1);
		}
}

/* -- frames -------------------------------------------------------------------------------- */

static int rows_of(const struct bench *b, int first)
{
	return b->rows - first < b->frame_rows ? b->rows - first : b->frame_rows;
}

static size_t frame_bytes(const struct bench *b, enum codec_kind kind)
{
	return (codec_of(kind, false)->bytes(b->frame_rows, b->channels) + 63) & ~(size_t)63;
}

static const float *rows_at(const struct bench *b, const float *x, int first)
{
	return x + (size_t)first * (size_t)b->channels;
}

static void encode_all(const struct bench *b, const struct way *way, bool stochastic)
{
	char *to = b->all;

	for (int r = 0; r < b->rows; r += b->frame_rows, to += frame_bytes(b, way->kind)) {
		struct codec_noise at = noise;

		at.first_row = r;
		codec_encode(way->k, way->kind, to, rows_at(b, b->x, r), rows_of(b, r),
			     b->channels, stochastic ? &at : NULL);
	}
}

static void decode_all(const struct bench *b, const struct way *way)
{
	const char *from = b->all;

	for (int r = 0; r < b->rows; r += b->frame_rows, from += frame_bytes(b, way->kind))
		codec_decode(way->k, way->kind, b->y + (size_t)r * (size_t)b->channels, from,
			     rows_of(b, r), b->channels);
}

/* -- verifying ----------------------------------------------------------------------------- */

/* The bytes of the scalar kernels, there and back, for every frame. */
static int verify(const struct bench *b, const struct way *way)
{
	for (int r = 0; r < b->rows; r += b->frame_rows)
		for (int stochastic = 0; stochastic < 2; stochastic++) {
			const struct codec_noise *n = stochastic ? &noise : NULL;
			const float *x = rows_at(b, b->x, r);
			int rows = rows_of(b, r);
			size_t bytes = codec_of(way->kind, false)->bytes(rows, b->channels);

			codec_encode(way->k, way->kind, b->payload, x, rows, b->channels, n);
			codec_encode(codec_scalar(), way->kind, b->right, x, rows, b->channels,
				     n);
			codec_decode(way->k, way->kind, b->y, b->right, rows, b->channels);
			codec_decode(codec_scalar(), way->kind, b->again, b->right, rows,
				     b->channels);
			if (memcmp(b->payload, b->right, bytes) ||
			    memcmp(b->y, b->again,
				   (size_t)rows * (size_t)b->channels * sizeof(float)))
				return error(EXIT_BUG,
					     "%s of %s is not that of the scalar kernels",
					     codec_of(way->kind, false)->name, way->k->name);
		}
	return 0;
}

/* -- timing -------------------------------------------------------------------------------- */

static void work_once(const struct bench *b, const struct way *way, int work)
{
	if (work == DECODE)
		decode_all(b, way);
	else
		encode_all(b, way, work == STOCHASTIC);
}

static double seconds_of(const struct bench *b, struct way *way, int work)
{
	for (;; way->times[work] *= 2) {
		double start = clock_s(), span;

		for (long i = 0; i < way->times[work]; i++)
			work_once(b, way, work);
		span = clock_s() - start;
		if (span >= LONG_ENOUGH_S)
			return span / (double)way->times[work];
	}
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Round by round, all ways in turn: what disturbs the machine disturbs them alike. */
static void measure(struct bench *b)
{
	size_t rounds = b->order.rounds;

	for (size_t r = 0; r < rounds; r++)
		for (int w = 0; w < b->ways; w++)
			for (int work = 0; work < WORKS; work++)
				b->way[w].seconds[work][r] = seconds_of(b, &b->way[w], work);
	for (int w = 0; w < b->ways; w++)
		for (int work = 0; work < WORKS; work++)
			qsort(b->way[w].seconds[work], rounds, sizeof(double), by_size);
}

static void print_rates(const struct bench *b)
{
	double gigabytes = 4e-9 * b->rows * b->channels;
	size_t rounds = b->order.rounds;

	printf("%d x %d, frames of %d rows, one thread; GB/s of fp32, median (least - most) of "
	       "%zu rounds\n", b->rows, b->channels, b->frame_rows, rounds);
	printf("%-6s %-7s %6s  %20s  %20s  %20s\n", "codec", "kernels", "bits",
	       "encode, nearest", "encode, stochastic", "decode");
	for (int w = 0; w < b->ways; w++) {
		const struct way *way = &b->way[w];
		size_t bytes = codec_of(way->kind, false)->bytes(b->frame_rows, b->channels);

		printf("%-6s %-7s %6.2f", codec_of(way->kind, false)->name, way->k->name,
		       8.0 * (double)bytes / b->frame_rows / b->channels);
		for (int work = 0; work < WORKS; work++)
			printf("  %6.2f (%5.2f - %5.2f)",
			       gigabytes / way->seconds[work][rounds / 2],
			       gigabytes / way->seconds[work][rounds - 1],
			       gigabytes / way->seconds[work][0]);
		printf("\n");
	}
}

/* -- errors -------------------------------------------------------------------------------- */

/* All channels quantised, none kept as bf16: the kernels without what is around them. */
static void quantise_all(const struct bench *b, const struct way *way)
{
	float scale[CODEC_TILE / CODEC_INT4_GROUP];
	uint64_t keep[CODEC_TILE / 64];
	char q[CODEC_TILE];

	for (int r = 0; r < b->rows; r++)
		for (int c = 0; c < b->channels; c += CODEC_TILE) {
			int n = b->channels - c < CODEC_TILE ? b->channels - c : CODEC_TILE;
			size_t at = (size_t)r * (size_t)b->channels + (size_t)c;

			memset(keep, 0, sizeof keep);
			for (int j = 0; j < n; j++)
				keep[j / 64] |= (uint64_t)1 << j % 64;
			if (way->kind == CODEC_INT8) {
				way->k->int8_encode(q, scale, b->x + at, keep, n, NULL);
				way->k->int8_decode(b->y + at, q, scale, n);
			} else {
				way->k->int4_encode(q, scale, b->x + at, keep, n, NULL);
				way->k->int4_decode(b->y + at, q, scale, n);
			}
		}
}

/* |y - x| / |x| over the channels that are not planted. */
static double relative_error(const struct bench *b)
{
	double wrong = 0, norm = 0;

	for (int r = 0; r < b->rows; r++)
		for (int c = 0; c < b->channels; c++) {
			size_t at = (size_t)r * (size_t)b->channels + (size_t)c;
			double x = (double)b->x[at], d = (double)b->y[at] - x;

			if (planted(b, c))
				continue;
			wrong += d * d;
			norm += x * x;
		}
	return sqrt(wrong / norm);
}

static void print_error(const struct bench *b, const struct way *way, const char *rounding)
{
	double e = relative_error(b);

	printf("%-6s %-11s %10.2e %6.1f dB", codec_of(way->kind, false)->name, rounding, e,
	       -20 * log10(e));
}

static void print_errors(struct bench *b, float larger)
{
	fill(b, b->x, larger);
	for (int kind = CODEC_BF16; kind < CODEC_KINDS; kind++)
		for (int stochastic = 0; stochastic < 2; stochastic++) {
			struct way way = {.k = codec_scalar(), .kind = (enum codec_kind)kind};

			encode_all(b, &way, stochastic);
			decode_all(b, &way);
			print_error(b, &way, stochastic ? "stochastic" : "nearest");
			if (kind != CODEC_BF16 && !stochastic) {
				double e;

				quantise_all(b, &way);
				e = relative_error(b);
				printf("   without the bf16 channels %10.2e %6.1f dB", e,
				       -20 * log10(e));
			}
			printf("\n");
		}
}

/* -- the whole ----------------------------------------------------------------------------- */

static void make(struct bench *b)
{
	const struct codec_kernels *k[] = {codec_scalar(), codec_avx2(), codec_avx512()};
	size_t n, payload, frames;

	b->channels = (int)b->order.channels;
	b->rows = TENSOR_BYTES / 4 / b->channels;
	b->frame_rows = codec_frame_rows(b->channels);
	n = (size_t)b->rows * (size_t)b->channels * sizeof(float);
	frames = (size_t)((b->rows + b->frame_rows - 1) / b->frame_rows);
	payload = frame_bytes(b, CODEC_NONE) * 2 + 4096;	/* above all codecs */
	b->x = xalloc(n);
	b->y = xalloc(n);
	b->again = xalloc(n);
	b->payload = xalloc(payload);
	b->right = xalloc(payload);
	b->all = xalloc(payload * frames);
	for (int kind = 0; kind < CODEC_KINDS; kind++)
		for (int i = 0; i < (kind == CODEC_NONE ? 1 : 3); i++)
			if (k[i])
				b->way[b->ways++] = (struct way){.k = k[i],
								 .kind = (enum codec_kind)kind,
								 .times = {1, 1, 1}};
	fill(b, b->x, LARGER);
}

static int run(struct bench *b)
{
	for (int w = 0; w < b->ways; w++)
		if (verify(b, &b->way[w]) < 0)
			return -1;
	measure(b);
	print_rates(b);
	printf("\nrelative error of the other channels, 4 of %d are %d times as large\n",
	       b->channels, LARGER);
	print_errors(b, LARGER);
	printf("\nthe same, none is larger\n");
	print_errors(b, 1);
	return 0;
}

static int read_options(struct order *order, int argc, char **argv)
{
	static const struct option options[] = {
		{"channels", required_argument, NULL, 0},
		{"rounds", required_argument, NULL, 0},
		{0},
	};
	uint64_t *const value[] = {&order->channels, &order->rounds};
	const uint64_t most[] = {1 << 16, ROUNDS_MOST};
	int which, option;

	while ((option = getopt_long(argc, argv, "", options, &which)) == 0) {
		char *end;

		errno = 0;
		*value[which] = strtoull(optarg, &end, 10);
		if (errno || end == optarg || *end || !*value[which] ||
		    *value[which] > most[which])
			return error(EXIT_USAGE, "'%s' is no value for --%s", optarg,
				     options[which].name);
	}
	if (option != -1 || optind != argc) {
		fputs(usage, stderr);
		return error(EXIT_USAGE, "see above");
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct bench bench = {.order = {.channels = 768, .rounds = 9}};
	int done;

	if (read_options(&bench.order, argc, argv) < 0)
		return error_code();
	make(&bench);
	done = run(&bench);
	free(bench.x);
	free(bench.y);
	free(bench.again);
	free(bench.payload);
	free(bench.right);
	free(bench.all);
	return done < 0 ? error_code() : EXIT_SUCCESS;
}
