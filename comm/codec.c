/*
 * comm/codec.c - frames: how they lie in memory, which channels stay bf16, which random numbers
 * they are rounded with. The inner loops are in codec_scalar.c, codec_avx2.c, codec_avx512.c.
 *
 * A frame of int8 or int4:
 *
 *     uint32_t channel[4]              those that stay bf16; ~0: none, there are less than 4
 *     uint16_t kept[rows][4]           their values
 *     float    scale[rows][groups]
 *     int8     q[rows][channels]       x = q scale; 0 to 3 bytes of 0 follow
 *     int4     q[rows][groups][32]     x = H64 q scale
 *
 * The residual stream of a transformer has a few channels that are larger than the rest by one
 * or two orders of magnitude. In a group they would take all of its steps for themselves, and
 * turned by the Hadamard matrix they would spoil all of its channels; alone they cost 8 bytes a
 * row.
 *
 * Channels are worked through in tiles, so that no buffer depends on how many there are.
 */
#include "comm/internal.h"

#define FRAME_BYTES ((size_t)128 << 10)	/* of fp32: stays in the L2 cache between two passes */

/* Keep the random numbers apart from those of dropout and of the shuffle. */
#define KEY0 0x636f6465u
#define KEY1 0x6320f00du

/* -- layout -------------------------------------------------------------------------------- */

static size_t whole_words(size_t bytes)
{
	return (bytes + 3) & ~(size_t)3;
}

/* How rows of a frame are quantised; width: numbers of a row, with the padding of int4. */
struct layout {
	int group, groups, width;
	size_t row_bytes, scale_at, data_at, bytes;
};

static struct layout layout_of(enum codec_kind kind, int rows, int channels)
{
	struct layout l = {.group = kind == CODEC_INT8 ? CODEC_INT8_GROUP : CODEC_INT4_GROUP};
	size_t n = (size_t)rows;

	l.groups = (channels + l.group - 1) / l.group;
	l.width = kind == CODEC_INT8 ? channels : l.groups * l.group;
	l.row_bytes = (size_t)(kind == CODEC_INT8 ? l.width : l.width / 2);
	l.scale_at = CODEC_OUTLIERS * sizeof(uint32_t) + n * CODEC_OUTLIERS * sizeof(uint16_t);
	l.data_at = l.scale_at + n * (size_t)l.groups * sizeof(float);
	l.bytes = whole_words(l.data_at + n * l.row_bytes);
	return l;
}

static size_t none_bytes(int rows, int channels)
{
	return (size_t)rows * (size_t)channels * sizeof(float);
}

static size_t bf16_bytes(int rows, int channels)
{
	return whole_words((size_t)rows * (size_t)channels * sizeof(uint16_t));
}

static size_t int8_bytes(int rows, int channels)
{
	return layout_of(CODEC_INT8, rows, channels).bytes;
}

static size_t int4_bytes(int rows, int channels)
{
	return layout_of(CODEC_INT4, rows, channels).bytes;
}

int codec_frame_rows(int channels)
{
	size_t rows = FRAME_BYTES / (sizeof(float) * (size_t)channels);

	return rows ? (int)rows : 1;
}

/* -- random numbers ------------------------------------------------------------------------ */

/*
 * The random numbers of n elements of a row, from `first` on; room: CODEC_NOISE of them. Null
 * without noise. Element e of a sample has the (e % 8)-th half word of counter e / 8, whichever
 * frame it is in.
 */
static const uint16_t *draw(const struct codec_kernels *k, uint16_t *room,
			    const struct codec_noise *noise, int row, int width, int first,
			    int n)
{
	uint32_t r, tokens;
	uint64_t e;

	if (!noise)
		return NULL;
	r = (uint32_t)noise->first_row + (uint32_t)row;
	tokens = (uint32_t)noise->tokens;
	e = (uint64_t)(r % tokens) * (uint64_t)width + (uint64_t)first;
	struct philox at = {{(uint32_t)(e / 8), noise->first_sample + r / tokens, noise->step,
			     noise->block * 2 + noise->backward}};

	k->noise(room, at, (uint32_t)noise->seed ^ KEY0, (uint32_t)(noise->seed >> 32) ^ KEY1,
		 ((int)(e % 8) + n + 7) / 8);
	return room + e % 8;
}

static int least(int a, int b)
{
	return a < b ? a : b;
}

/* -- outliers ------------------------------------------------------------------------------ */

/* The channels of largest magnitude so far, largest first; size as kernels' most, -1: none. */
struct outliers {
	uint32_t channel[CODEC_OUTLIERS];
	int32_t size[CODEC_OUTLIERS];
};

static void insert(struct outliers *o, uint32_t channel, int32_t size)
{
	int at = CODEC_OUTLIERS - 1;

	if (size <= o->size[at])
		return;
	for (; at > 0 && size > o->size[at - 1]; at--) {
		o->size[at] = o->size[at - 1];
		o->channel[at] = o->channel[at - 1];
	}
	o->size[at] = size;
	o->channel[at] = channel;
}

/* Sixteen at a time: seldom is one among them. most is padded with -1. */
static void insert_all(struct outliers *o, const int32_t *most, int first, int n)
{
	for (int j = 0; j < n; j += 16) {
		int32_t bar = o->size[CODEC_OUTLIERS - 1], above = 0;

		for (int l = 0; l < 16; l++)
			above |= most[j + l] > bar;
		for (int l = 0; above && l < 16; l++)
			insert(o, (uint32_t)(first + j + l), most[j + l]);
	}
}

static struct outliers find_outliers(const struct codec_kernels *k, const float *x, int rows,
				     int channels)
{
	struct outliers o = {{~0u, ~0u, ~0u, ~0u}, {-1, -1, -1, -1}};
	int32_t most[CODEC_TILE + 16];

	for (int first = 0; first < channels; first += CODEC_TILE) {
		int n = least(CODEC_TILE, channels - first);

		k->most(most, x + first, (size_t)channels, rows, n);
		for (int l = 0; l < 16; l++)
			most[n + l] = -1;
		insert_all(&o, most, first, n);
	}
	return o;
}

/* A bit for each of n channels from `first` on that is no outlier, ended by zeros. */
static void keep_mask(uint64_t keep[CODEC_TILE / 64], const struct outliers *o, int first,
		      int n)
{
	memset(keep, 0, CODEC_TILE / 8);
	memset(keep, 0xff, (size_t)n / 64 * 8);
	if (n % 64)
		keep[n / 64] = ((uint64_t)1 << n % 64) - 1;
	for (int i = 0; i < CODEC_OUTLIERS; i++) {
		uint32_t at = o->channel[i] - (uint32_t)first;

		if (at < (uint32_t)n)
			keep[at / 64] &= ~((uint64_t)1 << at % 64);
	}
}

/* -- int8 and int4 ------------------------------------------------------------------------- */

struct frame {
	const struct codec_kernels *k;
	enum codec_kind kind;
	struct layout l;
	int rows, channels;
};

/* Channels first..first+n-1 of all rows. */
static void encode_tile(const struct frame *f, char *payload, const float *x,
			const struct outliers *o, int first, int n,
			const struct codec_noise *noise)
{
	const struct layout *l = &f->l;
	int units = f->kind == CODEC_INT8 ? n : (n + l->group - 1) / l->group * l->group;
	uint16_t room[CODEC_NOISE], *kept = (uint16_t *)(payload + sizeof o->channel);
	float *scale = (float *)(payload + l->scale_at) + first / l->group;
	char *q = payload + l->data_at + (f->kind == CODEC_INT8 ? first : first / 2);
	uint64_t keep[CODEC_TILE / 64];

	keep_mask(keep, o, first, n);
	for (int row = 0; row < f->rows; row++) {
		const float *in = x + (size_t)row * (size_t)f->channels + first;
		const uint16_t *random = draw(f->k, room, noise, row, l->width, first, units);

		(f->kind == CODEC_INT8 ? f->k->int8_encode : f->k->int4_encode)(
			q, scale, in, keep, n, random);
		for (int i = 0; i < CODEC_OUTLIERS; i++) {
			uint32_t at = o->channel[i] - (uint32_t)first;

			if (at < (uint32_t)n)
				kept[i] = codec_bf16(in[at], random ? random + at : NULL);
		}
		q += l->row_bytes;
		scale += l->groups;
		kept += CODEC_OUTLIERS;
	}
}

static void quantise(const struct codec_kernels *k, enum codec_kind kind, char *payload,
		     const float *x, int rows, int channels, const struct codec_noise *noise)
{
	struct frame f = {k, kind, layout_of(kind, rows, channels), rows, channels};
	struct outliers o = find_outliers(k, x, rows, channels);
	size_t end = f.l.data_at + (size_t)rows * f.l.row_bytes;

	memcpy(payload, o.channel, sizeof o.channel);
	if (channels < CODEC_OUTLIERS)
		memset(payload + sizeof o.channel, 0, f.l.scale_at - sizeof o.channel);
	for (int first = 0; first < channels; first += CODEC_TILE)
		encode_tile(&f, payload, x, &o, first, least(CODEC_TILE, channels - first),
			    noise);
	memset(payload + end, 0, f.l.bytes - end);
}

/* A channel number that cannot be is passed over: nothing is written outside of x. */
static void decode_row(const struct frame *f, float *x, const char *payload, int row)
{
	const struct layout *l = &f->l;
	const uint32_t *channel = (const uint32_t *)payload;
	const uint16_t *kept = (const uint16_t *)(channel + CODEC_OUTLIERS) +
			       (size_t)row * CODEC_OUTLIERS;
	const float *scale = (const float *)(payload + l->scale_at) +
			     (size_t)row * (size_t)l->groups;
	const char *q = payload + l->data_at + (size_t)row * l->row_bytes;

	for (int first = 0; first < f->channels; first += CODEC_TILE) {
		int n = least(CODEC_TILE, f->channels - first);

		if (f->kind == CODEC_INT8)
			f->k->int8_decode(x + first, q + first, scale + first / l->group, n);
		else
			f->k->int4_decode(x + first, q + first / 2, scale + first / l->group,
					  n);
	}
	for (int i = 0; i < CODEC_OUTLIERS; i++)
		if (channel[i] < (uint32_t)f->channels)
			x[channel[i]] = codec_float((uint32_t)kept[i] << 16);
}

/* -- frames -------------------------------------------------------------------------------- */

static void bf16_encode(const struct codec_kernels *k, uint16_t *y, const float *x, int rows,
			int channels, const struct codec_noise *noise)
{
	size_t count = (size_t)rows * (size_t)channels;
	uint16_t room[CODEC_NOISE];

	if (count % 2)
		y[count] = 0;
	if (!noise) {
		k->bf16_encode(y, x, count, NULL);
		return;
	}
	for (int row = 0; row < rows; row++)
		for (int first = 0; first < channels; first += CODEC_TILE) {
			int n = least(CODEC_TILE, channels - first);
			size_t at = (size_t)row * (size_t)channels + (size_t)first;

			k->bf16_encode(y + at, x + at, (size_t)n,
				       draw(k, room, noise, row, channels, first, n));
		}
}

void codec_encode(const struct codec_kernels *k, enum codec_kind kind, void *payload,
		  const float *x, int rows, int channels, const struct codec_noise *noise)
{
	if (kind == CODEC_NONE)
		memcpy(payload, x, none_bytes(rows, channels));
	else if (kind == CODEC_BF16)
		bf16_encode(k, payload, x, rows, channels, noise);
	else
		quantise(k, kind, payload, x, rows, channels, noise);
}

void codec_decode(const struct codec_kernels *k, enum codec_kind kind, float *x,
		  const void *payload, int rows, int channels)
{
	struct frame f = {.k = k, .kind = kind, .rows = rows, .channels = channels};

	if (kind == CODEC_NONE) {
		memcpy(x, payload, none_bytes(rows, channels));
		return;
	}
	if (kind == CODEC_BF16) {
		k->bf16_decode(x, payload, (size_t)rows * (size_t)channels);
		return;
	}
	f.l = layout_of(kind, rows, channels);
	for (int row = 0; row < rows; row++)
		decode_row(&f, x + (size_t)row * (size_t)channels, payload, row);
}

/* -- tables -------------------------------------------------------------------------------- */

static const struct codec_kernels *best(void)
{
	const struct codec_kernels *k = codec_avx512();

	if (!k)
		k = codec_avx2();
	return k ? k : codec_scalar();
}

static void none_encode(void *payload, const float *x, int rows, int channels,
			const struct codec_noise *noise)
{
	codec_encode(codec_scalar(), CODEC_NONE, payload, x, rows, channels, noise);
}

static void none_decode(float *x, const void *payload, int rows, int channels)
{
	codec_decode(codec_scalar(), CODEC_NONE, x, payload, rows, channels);
}

static void bf16_encode_best(void *payload, const float *x, int rows, int channels,
			     const struct codec_noise *noise)
{
	codec_encode(best(), CODEC_BF16, payload, x, rows, channels, noise);
}

static void bf16_decode_best(float *x, const void *payload, int rows, int channels)
{
	codec_decode(best(), CODEC_BF16, x, payload, rows, channels);
}

static void int8_encode_best(void *payload, const float *x, int rows, int channels,
			     const struct codec_noise *noise)
{
	codec_encode(best(), CODEC_INT8, payload, x, rows, channels, noise);
}

static void int8_decode_best(float *x, const void *payload, int rows, int channels)
{
	codec_decode(best(), CODEC_INT8, x, payload, rows, channels);
}

static void int4_encode_best(void *payload, const float *x, int rows, int channels,
			     const struct codec_noise *noise)
{
	codec_encode(best(), CODEC_INT4, payload, x, rows, channels, noise);
}

static void int4_decode_best(float *x, const void *payload, int rows, int channels)
{
	codec_decode(best(), CODEC_INT4, x, payload, rows, channels);
}

static void bf16_encode_scalar(void *payload, const float *x, int rows, int channels,
			       const struct codec_noise *noise)
{
	codec_encode(codec_scalar(), CODEC_BF16, payload, x, rows, channels, noise);
}

static void bf16_decode_scalar(float *x, const void *payload, int rows, int channels)
{
	codec_decode(codec_scalar(), CODEC_BF16, x, payload, rows, channels);
}

static void int8_encode_scalar(void *payload, const float *x, int rows, int channels,
			       const struct codec_noise *noise)
{
	codec_encode(codec_scalar(), CODEC_INT8, payload, x, rows, channels, noise);
}

static void int8_decode_scalar(float *x, const void *payload, int rows, int channels)
{
	codec_decode(codec_scalar(), CODEC_INT8, x, payload, rows, channels);
}

static void int4_encode_scalar(void *payload, const float *x, int rows, int channels,
			       const struct codec_noise *noise)
{
	codec_encode(codec_scalar(), CODEC_INT4, payload, x, rows, channels, noise);
}

static void int4_decode_scalar(float *x, const void *payload, int rows, int channels)
{
	codec_decode(codec_scalar(), CODEC_INT4, x, payload, rows, channels);
}

static const struct codec codecs[CODEC_KINDS] = {
	[CODEC_NONE] = {"none", none_bytes, none_encode, none_decode},
	[CODEC_BF16] = {"bf16", bf16_bytes, bf16_encode_best, bf16_decode_best},
	[CODEC_INT8] = {"int8", int8_bytes, int8_encode_best, int8_decode_best},
	[CODEC_INT4] = {"int4", int4_bytes, int4_encode_best, int4_decode_best},
};

static const struct codec references[CODEC_KINDS] = {
	[CODEC_NONE] = {"none", none_bytes, none_encode, none_decode},
	[CODEC_BF16] = {"bf16", bf16_bytes, bf16_encode_scalar, bf16_decode_scalar},
	[CODEC_INT8] = {"int8", int8_bytes, int8_encode_scalar, int8_decode_scalar},
	[CODEC_INT4] = {"int4", int4_bytes, int4_encode_scalar, int4_decode_scalar},
};

/* Four bits are enough for activations, and too few for gradients. */
const struct codec *codec_of(enum codec_kind kind, bool backward)
{
	return &codecs[kind == CODEC_INT4 && backward ? CODEC_INT8 : kind];
}

const struct codec *codec_reference(enum codec_kind kind, bool backward)
{
	return &references[kind == CODEC_INT4 && backward ? CODEC_INT8 : kind];
}
