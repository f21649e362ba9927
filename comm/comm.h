/*
 * comm/ - bytes between ranks. One narrow table of operations; two transports fill it: Open MPI
 * (mpi.c) and ranks as threads of one process (local.c). Everything else is built on the table
 * (collective.c), so both behave alike.
 *
 * Messages between two ranks with the same tag arrive in the order in which they were sent. A
 * receive names its source, tag and exact size; another size is an error.
 */
#ifndef EDGEPIPE_COMM_H
#define EDGEPIPE_COMM_H

#include <stdatomic.h>

#include "base/base.h"

/* -- the table ----------------------------------------------------------------------------- */

/* An operation under way. The caller holds it and must not move it until it is done. */
struct comm_request {
	void *state;		/* the transport's own; null when idle or done */
	size_t bytes;		/* of the message */
	int error;		/* set by the transport when the operation failed */
};

struct comm {
	const struct comm_ops *ops;
	int rank, size;
	void *state;
};

struct bell;
struct comm_ops {
	const char *name;
	/* Start to send or to receive; the buffer belongs to the operation until it is done.
	 * Messages may be larger than 2 GiB. 0, or -1 after an error. */
	int (*send)(struct comm *comm, int to, int tag, const void *data, size_t bytes,
		    struct comm_request *request);
	int (*recv)(struct comm *comm, int from, int tag, void *data, size_t bytes,
		    struct comm_request *request);
	/* 1 when done or idle, 0 when not, -1 after an error. Makes progress on everything. */
	int (*test)(struct comm *comm, struct comm_request *request);
	/* Ends the whole job with this code, now, without cleaning up; ranks that are threads
	 * see every operation fail instead. */
	void (*abort)(struct comm *comm, int code);
	void (*close)(struct comm *comm);
	/* Gives up a receive that is under way, for which nothing will come any more. */
	void (*cancel)(struct comm *comm, struct comm_request *request);
	/* (optional) Sleeps for s seconds, or less when something happened since the last test.
	 * Where it is null, comm_wait sleeps with the clock. */
	void (*rest)(struct comm *comm, double s);
	/* (optional) When the transport itself has something to do, by clock_s; HUGE_VAL:
	 * never. */
	double (*due)(struct comm *comm);
	/* (optional) What others ring when something may have come for this rank; may return
	 * null. */
	struct bell *(*bell)(struct comm *comm);
};

#define COMM_TAG_MAX 32767	/* tags of callers: 0..COMM_TAG_MAX */

/* Starts a transfer; see struct comm_ops. A zeroed request is idle. Not collective. */
int comm_send(struct comm *comm, int to, int tag, const void *data, size_t bytes,
	      struct comm_request *request);
int comm_recv(struct comm *comm, int from, int tag, void *data, size_t bytes,
	      struct comm_request *request);
int comm_test(struct comm *comm, struct comm_request *request);
/* Waits with backed-off polling (busy polling halves the other core's GEMM). 0, or -1 after an
 * error. */
int comm_wait(struct comm *comm, struct comm_request *request);
/* Send or receive and wait. A send of any size may wait for its receive. */
int comm_send_now(struct comm *comm, int to, int tag, const void *data, size_t bytes);
int comm_recv_now(struct comm *comm, int from, int tag, void *data, size_t bytes);

/* -- collective.c -------------------------------------------------------------------------- */

/* Collective: all ranks call these in the same order. All return 0 or -1 after an error. */
int comm_barrier(struct comm *comm);
/* True on all ranks if any rank says true (or the transport failed). */
bool comm_any(struct comm *comm, bool condition);
int comm_broadcast(struct comm *comm, int root, void *data, size_t bytes);
/*
 * Sum of one double per rank, folded ((v[n-1] + v[n-2]) + ...) + v[0]: the last rank first, so
 * the result does not depend on timing. The same bits on all ranks.
 */
int comm_fold(struct comm *comm, double *value);
/* Pieces of any size to the root: there *data is malloc'ed, *bytes its size, for each rank
 * (arrays of size entries that the caller gives); elsewhere data and bytes are not touched. */
int comm_gather(struct comm *comm, int root, const void *mine, size_t mine_bytes,
		void **data, size_t *bytes);

/* -- mpi.c --------------------------------------------------------------------------------- */

/* The world of Open MPI. Only the thread that called MPI_Init_thread may use it. Sets log_rank
 * of the calling thread. Collective. */
struct comm *comm_mpi_open(int *argc, char ***argv);
/* How many ranks the launcher started, from its environment, before MPI is; 1 without one. */
int comm_mpi_launched(void);
/* Version of the MPI library that this was built with, one line. */
const char *comm_mpi_version(void);

/* -- local.c ------------------------------------------------------------------------------- */

/*
 * Runs work(comm, arg) on size threads, each a rank, and returns when all have ended: 0, or the
 * first non-zero result in rank order. Sets log_rank of each thread, and drops the errors that
 * a thread still holds at its end. After an abort every operation of every rank fails; waiting
 * for a rank that has ended, or ending with transfers under way, aborts the world.
 */
int comm_local_run(int size, int (*work)(struct comm *comm, void *arg), void *arg);
/* A world of one rank, in the calling thread; close with comm_close. */
struct comm *comm_alone_open(void);

/* -- codec.c ------------------------------------------------------------------------------- */

/*
 * How a cut travels. The tensor of a micro-batch, (rows, channels) fp32, is cut into frames of
 * whole rows (one row: one token) by its shape alone; each frame is encoded alone.
 *
 *     none    fp32
 *     bf16    rounded to nearest even
 *     int8    symmetric, groups of at most 128 channels of a row (the last may be short), an
 *             fp32 scale each
 *     int4    groups of 64 after a Hadamard rotation; activations only, gradients of such a
 *             link are int8
 *
 * In int8 and int4 the 4 channels of largest magnitude of a frame (ties: the lowest) stay bf16.
 */
enum codec_kind { CODEC_NONE, CODEC_BF16, CODEC_INT8, CODEC_INT4, CODEC_KINDS };

/* What stochastic rounding of a frame is keyed by, besides the element: the same wherever the
 * cuts are. */
struct codec_noise {
	uint64_t seed;			/* of the run */
	/* of the micro-batch: row r is of sample first_sample + r / tokens */
	uint32_t step, first_sample;
	uint32_t block;			/* the cut: after this block */
	bool backward;
	int tokens;			/* T */
	int first_row;			/* of the frame in its micro-batch */
};
struct codec {
	const char *name;
	/* Bytes of the payload of a frame; a multiple of 4. */
	size_t (*bytes)(int rows, int channels);
	/* x: (rows, channels), dense. noise null: round to nearest, else stochastically.
	 * payload: 8-byte aligned. Not-a-number and infinity must arrive as some not-a-number
	 * or infinity, so that divergence is seen. */
	void (*encode)(void *payload, const float *x, int rows, int channels,
		       const struct codec_noise *noise);
	void (*decode)(float *x, const void *payload, int rows, int channels);
};
/* The codec of one direction of a link: int4's backward direction is int8. With the kernels of
 * the best instruction set of this CPU; the results do not depend on it. */
const struct codec *codec_of(enum codec_kind kind, bool backward);
/* The same in scalar code: what the others are tested against. */
const struct codec *codec_reference(enum codec_kind kind, bool backward);
/* Rows of a frame (the last may be shorter): about 128 KiB of fp32, at least one row. */
int codec_frame_rows(int channels);

/* -- loop.c -------------------------------------------------------------------------------- */

/*
 * One thread talks to the transport: the calling one. comm_serve runs work(front, arg) on a
 * second thread and serves it until it returns, with its result. front is a transport like any
 * other; what is asked of it is handed to the calling thread through a bounded queue, and so
 * are the transfers of streams. Polling backs off while nothing moves. The calling thread says
 * the errors of the transport; after one, everything that is asked of front fails. log_rank of
 * the second thread is the calling one's. `comm` stays the caller's.
 */
int comm_serve(struct comm *comm, int (*work)(struct comm *front, void *arg), void *arg);

/* -- stream.c ------------------------------------------------------------------------------ */

/*
 * One direction of a cut: tensors of one shape, from one rank to another, in frames. A frame
 * has a header (length, sequence number, step, micro-batch, place, XXH3 checksum of all of it)
 * and a payload of the codec. Frames are encoded, sent, received and decoded by the serving
 * thread, straight from and into the tensors, several under way at once; receives are posted
 * ahead. A frame that is not what must come next ends with EXIT_RETRY and the link, step and
 * frame named.
 */
struct stream_spec {
	/* of the link, as 'library > lab'; must live as long as the stream */
	const char *name;
	int peer, tag;
	bool send;
	bool backward;			/* gradients: rounded stochastically */
	enum codec_kind codec;
	int rows, channels;		/* of a tensor */
	/* of a sample; as are the next two, for stochastic rounding */
	int tokens;
	uint64_t seed;
	uint32_t block;			/* the cut is after this block */
};
struct stream;
/* front: that of comm_serve, which closes what is still open at its end. */
struct stream *stream_open(struct comm *front, const struct stream_spec *spec);
/* Gives up receives that were posted and did not come; what was sent must have left
 * (stream_drain). From then on no transfer is touched any more. */
void stream_close(struct stream *stream);
/* Bytes that stream_open allocates for frames of a tensor (rows, channels). */
size_t stream_memory(enum codec_kind codec, bool backward, int rows, int channels);

/* A tensor on its way. The caller holds it (zeroed at first) and must not move it while it is
 * under way. */
struct transfer {
	float *data;
	uint32_t step, micro, first_sample;
	const struct transfer *after;	/* must have ended before data is touched; or null */
	double ended_s;			/* when it ended, by clock_s */
	bool logged;			/* goes to the stream's log, where that has one */
	/* private */
	struct stream *stream;
	struct transfer *next;
	atomic_int status;
};
/* Hands a transfer over; transfers of a stream pass in this order. */
int transfer_post(struct stream *stream, struct transfer *transfer);
bool transfer_ended(const struct transfer *transfer);
/* Waits until the data may be used again (sent: all encoded; received: all there); an idle one
 * has ended. 0, or -1 after an error. */
int transfer_wait(struct comm *front, struct transfer *transfer);
/* Waits until the last frame that was sent has left. */
int stream_drain(struct stream *stream);
/* Bytes on the wire of one tensor (rows, channels), headers included. */
size_t stream_tensor_bytes(enum codec_kind codec, bool backward, int rows, int channels);
/* What transfers took, by clock_s: from when the first frame was on the wire (sent), or had
 * come, until the last one had left, or was decoded. A ring: the newest is event[(count - 1) %
 * room]. */
struct transfer_event { double start_s, end_s; uint32_t step, micro; };
struct transfer_log { struct transfer_event *event; long room, count; };
/* Before the first transfer: where those with `logged` are noted. To be read when nothing is
 * under way. */
void stream_log(struct stream *stream, struct transfer_log *log);
/* Seconds that frames were on their way out since the last call; overlaps count once. */
double stream_sent_s(struct stream *stream);

/* -- trace.c ------------------------------------------------------------------------------- */

/* Bandwidth over time: rows of seconds and Mbit/s, one a second, from a CSV file; it starts
 * again at its end. */
struct link_trace { int count; double *bytes_s; };
/* Null after an error (EXIT_INPUT, EXIT_DATA: `file:line`, all errors at once): no rows, gaps
 * between the seconds, rates that are not above 0. */
struct link_trace *link_trace_read(const char *path);
void link_trace_free(struct link_trace *trace);
/* When `bytes` bytes that start at `start` seconds of the trace have passed. */
double link_trace_end(const struct link_trace *trace, double start, double bytes);

/* -- shaped.c ------------------------------------------------------------------------------ */

/* One ordered pair of ranks as it shall behave. */
struct shape {
	double bandwidth_bytes_s;	/* 0: unlimited */
	double latency_s;
	/* number of the shared interface that its messages leave and enter through; -1: none is
	 * shared */
	int nic_out, nic_in;
	const struct link_trace *trace;	/* in place of the bandwidth; null: none */
};
/*
 * A transport that behaves like the given links, over any other; user space, no rights needed.
 * Messages of a pair pass one after the other (a token bucket without credit), each arrives
 * `latency` after its last byte. Messages of all pairs that share an interface pass that one
 * after the other too, each for as long as its own link takes.
 *
 * A message is copied when it is sent, and its send is done when its last byte has left,
 * received or not, unless several others of its pair have arrived and are not received: then
 * when it is received itself. It moves on inside comm_test of its sender (of any request, an
 * idle one too): a rank that has sent goes on to test until all has arrived, or closes, which
 * waits for that. A message to oneself is not slowed down.
 *
 * shape: [from * size + to], copied, its traces not. nics: how many interfaces are shared.
 * inner stays the caller's, who closes it after this. Collective; null after an error on all
 * ranks (EXIT_CONFIG: shared interfaces, but ranks on several machines).
 */
struct comm *comm_shaped_open(struct comm *inner, const struct shape *shape, int nics);
/* Bytes that an emulated link may hold of what a stream with so much stream_memory sends. */
size_t comm_shaped_memory(size_t stream_bytes);

/* See struct comm_ops. Close takes a null pointer as done; in a work of comm_local_run it does
 * nothing, since the run owns the world. With MPI it is collective and must come last. */
void comm_abort(struct comm *comm, int code);
void comm_close(struct comm *comm);

#endif
