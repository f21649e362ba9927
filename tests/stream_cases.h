/*
 * stream_cases.h - streams as neighbours in a chain use them, for any transport; what must come out is computed with
 * the codec alone.
 *
 * Shared by check_stream.c (ranks as threads) and mpi_stream.c (ranks as processes). As in comm_cases.h, a case
 * returns how many of its expectations failed.
 */
#ifndef EDGEPIPE_STREAM_CASES_H
#define EDGEPIPE_STREAM_CASES_H

#include "tests/comm_cases.h"

enum { FORWARD, BACKWARD, DIRECTIONS };
enum { CHAIN_TAG = 7, CHAIN_SEED = 99, CHAIN_TOKENS = 5, CHAIN_SAMPLES = 3 };

/* A work for the front of a loop, over whatever transport the rank has. */
struct served {
	int (*work)(struct comm *front, void *arg);
	void *arg;
};

static inline int in_front(struct comm *comm, void *arg)
{
	const struct served *served = arg;

	return comm_serve(comm, served->work, served->arg);
}

/* -- tensors ------------------------------------------------------------------------------- */

/* Numbers that tell their tensor; some are large, as outliers are. */
static inline void fill_tensor(float *x, size_t count, uint32_t key)
{
	for (size_t i = 0; i < count; i++) {
		uint32_t bits = (uint32_t)i * 2654435761u + key * 40503u + 12345u;

		bits = (bits ^ bits >> 15) * 2246822519u;
		bits ^= bits >> 13;
		x[i] = ((float)(bits & 0xffff) - 32767.5f) / (bits >> 16 & 31 ? 8192.f : 256.f);
	}
}

/* What becomes of a tensor on its way, by the codec alone. */
static inline void travel(float *to, const float *x, const struct stream_spec *spec, uint32_t step,
			  uint32_t first_sample)
{
	const struct codec *codec = codec_of(spec->codec, spec->backward);
	int most = codec_frame_rows(spec->channels), rows;
	void *payload = xalloc(codec->bytes(most, spec->channels));

	for (int row = 0; row < spec->rows; row += rows) {
		size_t at = (size_t)row * (size_t)spec->channels;
		struct codec_noise noise = {.seed = spec->seed, .step = step,
					    .first_sample = first_sample, .block = spec->block,
					    .backward = true, .tokens = spec->tokens,
					    .first_row = row};

		rows = spec->rows - row < most ? spec->rows - row : most;
		codec->encode(payload, x + at, rows, spec->channels, spec->backward ? &noise : NULL);
		codec->decode(to + at, payload, rows, spec->channels);
	}
	free(payload);
}

/* -- the chain ----------------------------------------------------------------------------- */

struct chain {
	enum codec_kind codec;
	int rows, channels, micros, steps;
};

/* One direction of one cut, as one rank sees it. */
struct chain_end {
	struct stream_spec spec;
	struct stream *stream;		/* null: no such neighbour */
	int source, direction;
	float *data;			/* [micros] tensors */
	struct transfer *transfer;	/* [micros] */
};

static inline uint32_t chain_key(const struct chain_end *end, int step, int micro)
{
	return (uint32_t)(((end->source * DIRECTIONS + end->direction) * 100 + step) * 1000 + micro);
}

static inline size_t chain_floats(const struct chain *chain)
{
	return (size_t)chain->rows * (size_t)chain->channels;
}

static inline int chain_open(struct comm *comm, const struct chain *chain, struct chain_end *end,
			     int direction, bool send)
{
	int peer = comm->rank + (send == (direction == FORWARD) ? 1 : -1);
	int failures = 0;

	*end = (struct chain_end){.source = send ? comm->rank : peer, .direction = direction};
	if (peer < 0 || peer >= comm->size)
		return 0;
	end->spec = (struct stream_spec){
		.name = "this > that", .peer = peer, .tag = CHAIN_TAG + direction, .send = send,
		.backward = direction == BACKWARD, .codec = chain->codec, .rows = chain->rows,
		.channels = chain->channels, .tokens = CHAIN_TOKENS, .seed = CHAIN_SEED,
		.block = (uint32_t)(comm->rank < peer ? comm->rank : peer),
	};
	end->stream = stream_open(comm, &end->spec);
	must(end->stream ? 0 : -1);
	end->data = xalloc((size_t)chain->micros * chain_floats(chain) * sizeof(float));
	end->transfer = xzalloc((size_t)chain->micros, sizeof(*end->transfer));
	return 0;
}

/* Posts all micro-batches of a step, more than the ring of frames holds. */
static inline int chain_post(struct comm *comm, const struct chain *chain, struct chain_end *end,
			     int step)
{
	int failures = 0;

	for (int micro = 0; micro < chain->micros; micro++) {
		struct transfer *transfer = &end->transfer[micro];

		transfer->data = end->data + (size_t)micro * chain_floats(chain);
		transfer->step = (uint32_t)step;
		transfer->micro = (uint32_t)micro;
		transfer->first_sample = (uint32_t)(micro * CHAIN_SAMPLES);
		if (end->spec.send)
			fill_tensor(transfer->data, chain_floats(chain), chain_key(end, step, micro));
		must(transfer_post(end->stream, transfer));
	}
	return failures;
}

static inline int chain_check(struct comm *comm, const struct chain *chain,
			      const struct chain_end *end, int step)
{
	size_t count = chain_floats(chain);
	float *sent = xalloc(count * sizeof(float)), *come = xalloc(count * sizeof(float));
	int failures = 0;

	for (int micro = 0; micro < chain->micros; micro++) {
		fill_tensor(sent, count, chain_key(end, step, micro));
		travel(come, sent, &end->spec, (uint32_t)step, (uint32_t)(micro * CHAIN_SAMPLES));
		expect(!memcmp(end->data + (size_t)micro * count, come, count * sizeof(float)));
	}
	free(sent);
	free(come);
	return failures;
}

static inline int chain_wait(struct comm *comm, const struct chain *chain, struct chain_end *end,
			     double start)
{
	int failures = 0;

	for (int micro = 0; micro < chain->micros; micro++) {
		must(transfer_wait(comm, &end->transfer[micro]));
		expect(end->transfer[micro].ended_s >= start);
		expect(!micro || end->transfer[micro].ended_s >= end->transfer[micro - 1].ended_s);
		must(transfer_wait(comm, &end->transfer[micro]));
	}
	return failures;
}

enum { ENDS = 2 * DIRECTIONS };

static inline int chain_step(struct comm *comm, const struct chain *chain, struct chain_end *end,
			     int step)
{
	double start = clock_s();
	int failures = 0;

	for (int i = 0; i < ENDS; i++)
		if (end[i].stream)
			failures += chain_post(comm, chain, &end[i], step);
	for (int i = 0; i < ENDS; i++)
		if (end[i].stream)
			failures += chain_wait(comm, chain, &end[i], start);
	for (int i = 0; i < ENDS; i++)
		if (end[i].stream && end[i].spec.send)
			must(stream_drain(end[i].stream));
		else if (end[i].stream)
			failures += chain_check(comm, chain, &end[i], step);
	return failures;
}

/* Everybody sends to both neighbours and receives from them, all at once. */
static inline int case_chain(struct comm *comm, void *arg)
{
	const struct chain *chain = arg;
	struct chain_end end[ENDS];
	int failures = 0;

	for (int i = 0; i < ENDS; i++)
		failures += chain_open(comm, chain, &end[i], i / 2, i % 2 == 1);
	for (int step = 1; step <= chain->steps; step++)
		failures += chain_step(comm, chain, end, step);
	for (int i = 0; i < ENDS; i++) {
		if (end[i].stream && end[i].spec.send)
			expect(stream_sent_s(end[i].stream) > 0 && stream_sent_s(end[i].stream) == 0);
		free(end[i].data);
		free(end[i].transfer);
	}
	return failures;
}

#endif
