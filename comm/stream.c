/*
 * stream.c - tensors in frames, one direction of a cut.
 *
 * A stream owns STREAM_FRAMES frame buffers, a ring. Sending: encode the next frame of the
 * oldest transfer into a free buffer and start its send. Receiving: post receives for the
 * frames that must come next, as many as there are buffers; when the oldest has come and its
 * tensor may be written, decode it. So a tensor of any size travels in pieces that all sizes of
 * int can count, a frame is encoded while the one before is on the wire, and a small message of
 * another tag waits for a few frames at most.
 *
 * All but stream_open, transfer_post and the waits runs on the serving thread.
 */
#include <stdlib.h>
#include <string.h>

#include "comm/internal.h"

enum { IDLE, UNDER_WAY };
#define ALIGNMENT 64

/* The first bytes of a frame. The checksum covers everything after itself. */
struct header {
	uint64_t checksum;
	uint64_t sequence;		/* of the frame in its stream */
	uint32_t bytes;			/* of the payload */
	uint32_t step, micro, index;	/* index: of the frame in its tensor */
};

struct frame {
	struct comm_request request;
	struct transfer *transfer;	/* gone once its last frame has been encoded */
	uint32_t step, micro;		/* of the transfer */
	int index;
	bool logged;			/* as its transfer */
	unsigned char *bytes;		/* header, payload */
	double start_s;
};

struct stream {
	struct stream_spec spec;
	struct loop *loop;
	const struct codec *codec;
	int frame_rows, frames;		/* rows of a full frame; frames of a tensor */
	struct frame frame[STREAM_FRAMES];
	int first, count;		/* the ring's frames that are under way */
	struct transfer *oldest, **newest;	/* handed over, not ended */
	struct transfer *at;		/* whose frames are being started */
	int next;			/* frame of it */
	uint64_t sequence;		/* of the next frame to send, or to come */
	struct stream *link;
	void *memory;
	struct transfer_log *log;	/* or null */
	double log_start_s;		/* of the tensor whose last frame is not over */
	/* Under the loop's lock: */
	/* transfers handed over; those whose last frame has left or come */
	long posted, left;
	double sent_s, busy_until_s;
};

/* -- shapes -------------------------------------------------------------------------------- */

static int rows_of(const struct stream *stream, int index)
{
	int left = stream->spec.rows - index * stream->frame_rows;

	return left < stream->frame_rows ? left : stream->frame_rows;
}

static size_t frame_bytes(const struct stream *stream, int index)
{
	return sizeof(struct header) +
	       stream->codec->bytes(rows_of(stream, index), stream->spec.channels);
}

static size_t slot_bytes(enum codec_kind kind, bool backward, int rows, int channels)
{
	const struct codec *codec = codec_of(kind, backward);
	int most = codec_frame_rows(channels);
	size_t bytes =
	    sizeof(struct header) + codec->bytes(rows < most ? rows : most, channels);

	return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

size_t stream_tensor_bytes(enum codec_kind kind, bool backward, int rows, int channels)
{
	const struct codec *codec = codec_of(kind, backward);
	int most = codec_frame_rows(channels), full = rows / most, rest = rows % most;
	size_t bytes = (size_t)full * (sizeof(struct header) + codec->bytes(most, channels));

	return rest ? bytes + sizeof(struct header) + codec->bytes(rest, channels) : bytes;
}

size_t stream_memory(enum codec_kind kind, bool backward, int rows, int channels)
{
	return STREAM_FRAMES * slot_bytes(kind, backward, rows, channels) + ALIGNMENT;
}

/* -- the second thread's side -------------------------------------------------------------- */

struct stream *stream_open(struct comm *front, const struct stream_spec *spec)
{
	struct loop *loop = loop_of(front);
	struct stream *stream;
	unsigned char *bytes;
	size_t slot;

	if (!loop)
		return NULL;
	stream = xzalloc(1, sizeof(*stream));
	stream->spec = *spec;
	stream->loop = loop;
	stream->codec = codec_of(spec->codec, spec->backward);
	stream->frame_rows = codec_frame_rows(spec->channels);
	stream->frames = (spec->rows + stream->frame_rows - 1) / stream->frame_rows;
	stream->newest = &stream->oldest;
	slot = slot_bytes(spec->codec, spec->backward, spec->rows, spec->channels);
	stream->memory = xzalloc(1, stream_memory(spec->codec, spec->backward, spec->rows,
						  spec->channels));
	bytes = stream->memory;
	bytes += (ALIGNMENT - (uintptr_t)bytes % ALIGNMENT) % ALIGNMENT;
	for (int i = 0; i < STREAM_FRAMES; i++)
		stream->frame[i].bytes = bytes + (size_t)i * slot;
	if (loop_add_stream(loop, stream)) {
		stream_free(stream);
		return NULL;
	}
	return stream;
}

int transfer_post(struct stream *stream, struct transfer *transfer)
{
	transfer->stream = stream;
	transfer->next = NULL;
	atomic_store(&transfer->status, UNDER_WAY);
	loop_lock(stream->loop);
	stream->posted++;
	loop_unlock(stream->loop);
	return loop_post(stream->loop, stream, transfer);
}

void stream_close(struct stream *stream)
{
	if (stream && loop_close_stream(stream->loop, stream))
		stream_free(stream);
}

bool transfer_ended(const struct transfer *transfer)
{
	return atomic_load(&transfer->status) == IDLE;
}

int transfer_wait(struct comm *front, struct transfer *transfer)
{
	struct loop *loop = loop_of(front);
	int status = 0;

	if (atomic_load(&transfer->status) == IDLE)
		return 0;
	loop_lock(loop);
	while (!status && atomic_load(&transfer->status) != IDLE)
		status = loop_rest(loop);
	loop_unlock(loop);
	return atomic_load(&transfer->status) == IDLE ? 0 : -1;
}

int stream_drain(struct stream *stream)
{
	int status = 0;

	loop_lock(stream->loop);
	while (!status && stream->left < stream->posted)
		status = loop_rest(stream->loop);
	loop_unlock(stream->loop);
	return status;
}

double stream_sent_s(struct stream *stream)
{
	double s;

	loop_lock(stream->loop);
	s = stream->sent_s;
	stream->sent_s = 0;
	loop_unlock(stream->loop);
	return s;
}

/* -- both directions ----------------------------------------------------------------------- */

struct stream **stream_link(struct stream *stream)
{
	return &stream->link;
}

void stream_cancel(struct stream *stream, struct comm *comm)
{
	for (int i = 0; i < stream->count && !stream->spec.send; i++)
		comm->ops->cancel(comm,
				  &stream->frame[(stream->first + i) % STREAM_FRAMES].request);
}

void stream_free(struct stream *stream)
{
	free(stream->memory);
	free(stream);
}

void stream_take(struct stream *stream, struct transfer *transfer)
{
	*stream->newest = transfer;
	stream->newest = &transfer->next;
	if (!stream->at) {
		stream->at = transfer;
		stream->next = 0;
	}
}

/* The frame after the last one that is under way; takes it. */
static struct frame *take_frame(struct stream *stream)
{
	struct frame *frame = &stream->frame[(stream->first + stream->count++) % STREAM_FRAMES];

	frame->transfer = stream->at;
	frame->step = stream->at->step;
	frame->micro = stream->at->micro;
	frame->index = stream->next++;
	frame->logged = stream->at->logged;
	if (stream->next == stream->frames) {
		stream->at = stream->at->next;
		stream->next = 0;
	}
	return frame;
}

void stream_log(struct stream *stream, struct transfer_log *log)
{
	stream->log = log;
}

/* A frame's part in its tensor's event. */
static void note_frame(struct stream *stream, const struct frame *frame, double start_s,
		       double end_s)
{
	struct transfer_log *log = stream->log;

	if (!log || !frame->logged)
		return;
	if (frame->index == 0)
		stream->log_start_s = start_s;
	if (frame->index == stream->frames - 1)
		log->event[log->count++ % log->room] = (struct transfer_event){
		    stream->log_start_s, end_s, frame->step, frame->micro};
}

/* The oldest frame has left, or was decoded. */
static void give_back(struct stream *stream)
{
	bool last = stream->frame[stream->first].index == stream->frames - 1;

	stream->first = (stream->first + 1) % STREAM_FRAMES;
	stream->count--;
	if (!last)
		return;
	loop_lock(stream->loop);
	stream->left++;
	loop_unlock(stream->loop);
	loop_notify(stream->loop);
}

/* The oldest transfer's data are free. The second thread may reuse it at once. */
static void end_transfer(struct stream *stream)
{
	struct transfer *transfer = stream->oldest;

	stream->oldest = transfer->next;
	if (!stream->oldest)
		stream->newest = &stream->oldest;
	transfer->ended_s = clock_s();
	atomic_store(&transfer->status, IDLE);
	loop_notify(stream->loop);
}

static bool may_touch(const struct transfer *transfer)
{
	return !transfer->after || atomic_load(&transfer->after->status) == IDLE;
}

static struct codec_noise noise_of(const struct stream *stream, const struct frame *frame)
{
	return (struct codec_noise){
		.seed = stream->spec.seed,
		.step = frame->transfer->step,
		.first_sample = frame->transfer->first_sample,
		.block = stream->spec.block,
		.backward = true,
		.tokens = stream->spec.tokens,
		.first_row = frame->index * stream->frame_rows,
	};
}

static float *rows_at(const struct stream *stream, const struct frame *frame)
{
	return frame->transfer->data + (size_t)frame->index * (size_t)stream->frame_rows *
					       (size_t)stream->spec.channels;
}

static uint64_t sum_of(const struct frame *frame, size_t bytes)
{
	return checksum(frame->bytes + sizeof(uint64_t), bytes - sizeof(uint64_t), 0);
}

/* Names the frame that failed. */
static int refuse(const struct stream *stream, const struct frame *frame, const char *why)
{
	return error(EXIT_RETRY, "link '%s', step %u, micro-batch %u, frame %d of %d (%s): %s",
		     stream->spec.name, (unsigned)frame->step, (unsigned)frame->micro,
		     frame->index + 1, stream->frames,
		     stream->spec.backward ? "gradients" : "activations", why);
}

/* -- sending ------------------------------------------------------------------------------- */

static void encode_frame(struct stream *stream, struct frame *frame)
{
	struct codec_noise noise = noise_of(stream, frame);
	int rows = rows_of(stream, frame->index);
	size_t bytes = frame_bytes(stream, frame->index);
	struct header header = {
		.sequence = stream->sequence++,
		.bytes = (uint32_t)(bytes - sizeof(struct header)),
		.step = frame->transfer->step,
		.micro = frame->transfer->micro,
		.index = (uint32_t)frame->index,
	};

	stream->codec->encode(frame->bytes + sizeof(header), rows_at(stream, frame), rows,
			      stream->spec.channels, stream->spec.backward ? &noise : NULL);
	memcpy(frame->bytes, &header, sizeof(header));
	header.checksum = sum_of(frame, bytes);
	memcpy(frame->bytes, &header, sizeof(header));
}

static int send_frame(struct stream *stream, struct comm *comm)
{
	struct transfer *transfer = stream->at;
	struct frame *frame = take_frame(stream);

	encode_frame(stream, frame);
	frame->start_s = clock_s();
	error_mute();
	int status = comm_send(comm, stream->spec.peer, stream->spec.tag, frame->bytes,
			       frame_bytes(stream, frame->index), &frame->request);
	error_unmute();
	if (status)
		return refuse(stream, frame, "cannot be sent");
	if (stream->at != transfer)
		end_transfer(stream);
	return 1;
}

/* Books a frame that has left. */
static void book(struct stream *stream, const struct frame *frame)
{
	double now = clock_s(), from = frame->start_s;

	loop_lock(stream->loop);
	if (from < stream->busy_until_s)
		from = stream->busy_until_s;
	stream->busy_until_s = now;
	stream->sent_s += now - from;
	note_frame(stream, frame, from, now);
	loop_unlock(stream->loop);
}

static int poll_send(struct stream *stream, struct comm *comm)
{
	int moved = 0, done;

	while (stream->count > 0) {
		struct frame *frame = &stream->frame[stream->first];

		error_mute();
		done = comm_test(comm, &frame->request);
		error_unmute();
		if (done < 0)
			return refuse(stream, frame, "cannot be sent");
		if (!done)
			break;
		book(stream, frame);
		give_back(stream);
		moved++;
	}
	if (stream->at && stream->count < STREAM_FRAMES && may_touch(stream->at))
		return send_frame(stream, comm);
	return moved;
}

/* -- receiving ----------------------------------------------------------------------------- */

/* One that fails at once is refused when its turn comes: a frame before it may be the one that
 * is missing. */
static int post_frame(struct stream *stream, struct comm *comm)
{
	struct frame *frame = take_frame(stream);

	error_mute();
	if (comm_recv(comm, stream->spec.peer, stream->spec.tag, frame->bytes,
		      frame_bytes(stream, frame->index), &frame->request))
		frame->request.error = -1;
	error_unmute();
	return 1;
}

/* Is the frame that came the one that must come next? */
static int check_frame(struct stream *stream, const struct frame *frame)
{
	size_t bytes = frame_bytes(stream, frame->index);
	struct header header;

	memcpy(&header, frame->bytes, sizeof(header));
	if (header.checksum != sum_of(frame, bytes))
		return refuse(stream, frame, "damaged on the way (the checksum differs)");
	if (header.bytes != bytes - sizeof(header))
		return refuse(stream, frame, "another length came");
	if (header.sequence > stream->sequence)
		return refuse(stream, frame, "lost or overtaken: a later frame came");
	if (header.sequence < stream->sequence)
		return refuse(stream, frame, "an earlier frame came again");
	if (header.step != frame->transfer->step || header.micro != frame->transfer->micro ||
	    header.index != (uint32_t)frame->index)
		return refuse(stream, frame, "another step, micro-batch or frame came");
	stream->sequence++;
	return 0;
}

static int accept_frame(struct stream *stream, struct frame *frame)
{
	double came_s = clock_s();

	if (check_frame(stream, frame))
		return -1;
	stream->codec->decode(rows_at(stream, frame), frame->bytes + sizeof(struct header),
			      rows_of(stream, frame->index), stream->spec.channels);
	note_frame(stream, frame, came_s, clock_s());
	give_back(stream);
	if (frame->index == stream->frames - 1)
		end_transfer(stream);
	return 1;
}

static int poll_recv(struct stream *stream, struct comm *comm)
{
	struct frame *frame = &stream->frame[stream->first];
	int done;

	if (stream->at && stream->count < STREAM_FRAMES)
		return post_frame(stream, comm);
	if (stream->count == 0 || !may_touch(frame->transfer))
		return 0;
	error_mute();
	done = comm_test(comm, &frame->request);
	error_unmute();
	if (done < 0)
		return refuse(stream, frame, "another size came, or the transport failed");
	return done ? accept_frame(stream, frame) : 0;
}

int stream_poll(struct stream *stream, struct comm *comm)
{
	return stream->spec.send ? poll_send(stream, comm) : poll_recv(stream, comm);
}
