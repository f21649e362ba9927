/*
 * comm/internal.h - what the files of comm/ (and their tests) share and nobody else needs.
 */
#ifndef EDGEPIPE_COMM_INTERNAL_H
#define EDGEPIPE_COMM_INTERNAL_H

#include "comm/comm.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* How whoever waits for the transport polls it: bursts of tests (each moves a part of a large
 * message), and sleeps between them, longer and longer. */
#define POLL_BURST 20
#define POLL_LEAST_S 50e-6
#define POLL_MOST_S 1e-3

/* Tags of the collectives, above those of the callers, so that neither can take the other's. */
enum comm_tag {
	COMM_TAG_BARRIER = COMM_TAG_MAX + 1,
	COMM_TAG_ANY,
	COMM_TAG_BROADCAST,
	COMM_TAG_FOLD,
	COMM_TAG_GATHER,
	COMM_TAG_LAST = COMM_TAG_GATHER,
};

/* comm_send_now and comm_recv_now for any tag, the reserved ones included. */
int comm_put(struct comm *comm, int to, int tag, const void *data, size_t bytes);
int comm_take(struct comm *comm, int from, int tag, void *data, size_t bytes);

/*
 * Sets the size above which the MPI transport cuts a message (at most 1 GiB, which it is
 * without this call), so that a test can cut small ones. Collective in effect: all ranks set
 * the same.
 */
void comm_mpi_piece(struct comm *comm, size_t bytes);

/* -- bell.c -------------------------------------------------------------------------------- */

struct bell { _Atomic uint32_t count; uint32_t unused; };
/* How often it has rung. */
uint32_t bell_heard(const struct bell *bell);
/* Wakes all that wait. */
void bell_ring(struct bell *bell);
/* Sleeps until somebody has rung since `heard` was read, or for s seconds, or a little while
 * for no reason. */
void bell_wait(struct bell *bell, uint32_t heard, double s);

/* -- common.c ------------------------------------------------------------------------------ */

struct common {
	pthread_mutex_t *lock;		/* for free; null: there is no such memory */
	struct bell *bell;		/* [ranks] */
	double *free;			/* [nics], seconds of the monotonic clock */
	size_t bytes;
};
/* Collective. Where the ranks are on several machines there is none: an error (EXIT_CONFIG) if
 * nics > 0. */
int common_open(struct common *common, struct comm *comm, int nics);
void common_close(struct common *common);

/* -- front.c, loop.c: what stream.c needs -------------------------------------------------- */

struct loop;
/* The loop behind a front; null after an error (EXIT_BUG) where comm is none. */
struct loop *loop_of(struct comm *front);
/* From the second thread: hands over a new stream, or says that one has something to do. */
int loop_add_stream(struct loop *loop, struct stream *stream);
/* Takes a stream away from the loop; false after a failure: then the loop frees it at its
 * end. */
bool loop_close_stream(struct loop *loop, struct stream *stream);
int loop_post(struct loop *loop, struct stream *stream, struct transfer *transfer);
/* From the serving thread: something ended, for which the second one may wait. */
void loop_notify(struct loop *loop);
/* From the second thread: sleeps until something ends, or a while; -1 after a failure. */
int loop_rest(struct loop *loop);
void loop_lock(struct loop *loop);
void loop_unlock(struct loop *loop);

/* Frames of a stream that are under way at most: enough to fill a link of 400 Mbit/s with 10 ms
 * of round trip. */
enum { STREAM_FRAMES = 8 };

/* -- stream.c: what loop.c needs of it, from the serving thread ---------------------------- */

/* Begins a transfer. */
void stream_take(struct stream *stream, struct transfer *transfer);
/* 1 when something moved, 0 when not, -1 after an error. */
int stream_poll(struct stream *stream, struct comm *comm);
/* Gives up the receives that were posted ahead for a tensor that will not come. */
void stream_cancel(struct stream *stream, struct comm *comm);
void stream_free(struct stream *stream);
struct stream **stream_link(struct stream *stream);	/* for the loop's list */

/* -- codec.c, codec_*.c -------------------------------------------------------------------- */

#define CODEC_OUTLIERS 4		/* channels of a frame that stay bf16 */
#define CODEC_INT8_GROUP 128		/* channels that share a scale */
#define CODEC_INT4_GROUP 64
#define CODEC_TILE 1024 /* channels that a kernel takes at once at most: whole groups */
/* room for the random numbers of a tile, and what kernels read past it */
#define CODEC_NOISE (CODEC_TILE + 256)

/*
 * The inner loops, one table per instruction set. All give the same bytes. n: channels of one
 * row, CODEC_TILE at most unless it is size_t. noise: one 16-bit random number per element, or
 * null.
 */
struct codec_kernels {
	const char *name;
	/* 8 numbers per counter, of `count` counters from this one on; room for 16 more
	 * counters. */
	void (*noise)(uint16_t *to, struct philox counter, uint32_t key0, uint32_t key1,
		      int count);
	/* most[j] = the largest |x[r][j]| over the rows, as the bits of a float: not-a-number
	 * is largest. */
	void (*most)(int32_t *most, const float *x, size_t stride, int rows, int n);
	void (*bf16_encode)(uint16_t *y, const float *x, size_t n, const uint16_t *noise);
	void (*bf16_decode)(float *x, const uint16_t *y, size_t n);
	/* keep: a bit per channel; the others, and those from n on, count as 0. */
	void (*int8_encode)(void *q, float *scale, const float *x, const uint64_t *keep, int n,
			    const uint16_t *noise);
	void (*int8_decode)(float *x, const void *q, const float *scale, int n);
	void (*int4_encode)(void *q, float *scale, const float *x, const uint64_t *keep, int n,
			    const uint16_t *noise);
	void (*int4_decode)(float *x, const void *q, const float *scale, int n);
};
/* The scalar kernels; those of an instruction set, or null where this CPU does not have it. */
const struct codec_kernels *codec_scalar(void);
const struct codec_kernels *codec_avx2(void);
const struct codec_kernels *codec_avx512(void);
/* A frame with these kernels. */
void codec_encode(const struct codec_kernels *k, enum codec_kind kind, void *payload,
		  const float *x, int rows, int channels, const struct codec_noise *noise);
void codec_decode(const struct codec_kernels *k, enum codec_kind kind, float *x,
		  const void *payload, int rows, int channels);

static inline float codec_float(uint32_t bits)
{
	float x;

	memcpy(&x, &bits, sizeof x);
	return x;
}

static inline uint32_t codec_bits(float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof bits);
	return bits;
}

/* bf16 of one value: to nearest even, or with noise (0..65535) up as often as the bits cut off
 * say. */
static inline uint16_t codec_bf16(float x, const uint16_t *noise)
{
	uint32_t bits = codec_bits(x);

	if ((bits & 0x7fffffff) > 0x7f800000)
		return (uint16_t)(bits >> 16 | 0x40);
	return (uint16_t)((bits + (noise ? *noise : 0x7fff + (bits >> 16 & 1))) >> 16);
}

/*
 * The scale of a group whose largest magnitude has these bits, cut into `levels` steps. Never
 * subnormal, so that its inverse is finite; a scale that is not a number says that a value of
 * the group was not finite.
 */
static inline float codec_scale(int32_t most, float levels)
{
	float scale = codec_float((uint32_t)most) / levels;

	if (most >= 0x7f800000)
		return codec_float(0x7fc00000);
	return most > 0 && scale < 0x1p-126f ? 0x1p-126f : scale;
}

/* What the values of the group are multiplied by; 0 where all are 0 or the scale says that one
 * was not finite. */
static inline float codec_inverse(float scale, float unit)
{
	return scale > 0 ? unit / scale : 0;
}

#endif
