/*
 * mpi.c - ranks as processes, joined by Open MPI.
 *
 * MPI counts bytes with an int, so a message is cut into pieces of 1 GiB, all under way at
 * once:
 *
 *	bytes	0	1 GiB - 1	1 GiB		2.5 GiB
 *	pieces	0	1 GiB - 1	1 GiB, 0	1 GiB, 1 GiB, 0.5 GiB
 *
 * The last piece is always shorter than a full one (USB ends its transfers the same way). Both
 * sides cut alike from the same size, and where the sizes differ, some piece has another length
 * than the receiver expects: a difference is always seen, and nobody waits for a piece that
 * will not come.
 *
 * One case escapes: Open MPI 4.1 does not check the size of what a rank sends to itself.
 *
 * MPI's non-overtaking rule is our order within a tag. The communicator is a private copy, so
 * that no library can take our messages.
 */
#include <errno.h>
#include <limits.h>
#include <mpi.h>
#include <stdlib.h>

#include "base/base.h"
#include "comm/comm.h"
#include "comm/internal.h"

#define PIECE_BYTES ((size_t)1 << 30)
enum { TRANSFERS = 64 };	/* made at once: more than a step needs: it allocates none */

/* A message under way: the state of a request. */
struct message {
	struct message *next;		/* in the list of spare ones */
	MPI_Request *piece;		/* [pieces]: only, or more */
	MPI_Request only;
	MPI_Request *more;		/* [room], kept for the next large message */
	int pieces, done, room;
	bool receives;
	int peer, tag;
	size_t bytes;
};

struct mpi {
	struct comm comm;
	MPI_Comm world;
	size_t piece_bytes;
	struct message *spare;
	struct arena arena;		/* the transfers; as old as the world */
};

/* -- transfers ----------------------------------------------------------------------------- */

static void grow(struct mpi *mpi)
{
	struct message *message = arena_take(&mpi->arena, TRANSFERS * sizeof *message);

	for (int i = 0; i < TRANSFERS; i++) {
		message[i].next = mpi->spare;
		mpi->spare = &message[i];
	}
}

/* A spare one with room for the pieces of a message. */
static struct message *take(struct mpi *mpi, size_t bytes)
{
	struct message *message;

	if (!mpi->spare)
		grow(mpi);
	message = mpi->spare;
	mpi->spare = message->next;
	message->bytes = bytes;
	message->pieces = (int)(bytes / mpi->piece_bytes) + 1;
	message->done = 0;
	if (message->pieces > 1 && message->pieces > message->room) {
		message->room = message->pieces;
		message->more = arena_take(&mpi->arena, (size_t)message->room *
							 sizeof *message->more);
	}
	message->piece = message->pieces > 1 ? message->more : &message->only;
	return message;
}

static void finish(struct mpi *mpi, struct comm_request *request, int error)
{
	struct message *message = request->state;

	message->next = mpi->spare;
	mpi->spare = message;
	request->state = NULL;
	request->error = error;
}

static size_t piece_size(const struct mpi *mpi, const struct message *message, int index)
{
	return index < message->pieces - 1 ? mpi->piece_bytes
					    : message->bytes % mpi->piece_bytes;
}

/* -- errors -------------------------------------------------------------------------------- */

/* Says what MPI says; a message that did not fit is our own mistake. Returns -1. */
static int transfer_error(const struct message *message, int rc)
{
	char text[MPI_MAX_ERROR_STRING] = "";
	int class = rc, length;

	MPI_Error_class(rc, &class);
	if (class == MPI_ERR_TRUNCATE)
		return error(EXIT_BUG, "rank %d sent more than the %zu bytes expected, tag %d",
			     message->peer, message->bytes, message->tag);
	MPI_Error_string(rc, text, &length);
	return error(EXIT_RETRY, "cannot %s rank %d (%zu bytes, tag %d): %s",
		     message->receives ? "receive from" : "send to", message->peer,
		     message->bytes, message->tag, text);
}

/* A piece arrived: is it as long as it should be? */
static int check_size(const struct mpi *mpi, const struct message *message,
		      const MPI_Status *status)
{
	int count;

	MPI_Get_count(status, MPI_BYTE, &count);
	if ((size_t)count == piece_size(mpi, message, message->done))
		return 0;
	return error(EXIT_BUG, "rank %d sent %zu bytes, not the %zu expected with tag %d",
		     message->peer, (size_t)message->done * mpi->piece_bytes + (size_t)count,
		     message->bytes, message->tag);
}

/* Gives up the pieces first to end - 1, so that nothing writes into the buffer later. */
static void give_up(struct message *message, int first, int end)
{
	for (int i = first; i < end; i++) {
		if (message->piece[i] == MPI_REQUEST_NULL)
			continue;
		if (!message->receives) {
			MPI_Request_free(&message->piece[i]);
			continue;
		}
		MPI_Cancel(&message->piece[i]);
		MPI_Wait(&message->piece[i], MPI_STATUS_IGNORE);
	}
}

/* -- the table ----------------------------------------------------------------------------- */

/* Starts all pieces. One of out and in is the buffer. */
static int start(struct mpi *mpi, const char *out, char *in, struct comm_request *request)
{
	struct message *message = request->state;
	size_t offset = 0;

	for (int i = 0; i < message->pieces; i++) {
		size_t bytes = piece_size(mpi, message, i);
		MPI_Request *piece = &message->piece[i];
		int rc = message->receives
			? MPI_Irecv(offset ? in + offset : in, (int)bytes, MPI_BYTE,
				    message->peer, message->tag, mpi->world, piece)
			: MPI_Isend(offset ? out + offset : out, (int)bytes, MPI_BYTE,
				    message->peer, message->tag, mpi->world, piece);

		if (rc != MPI_SUCCESS) {
			give_up(message, 0, i);
			finish(mpi, request, transfer_error(message, rc));
			return -1;
		}
		offset += bytes;
	}
	return 0;
}

static int mpi_send(struct comm *comm, int to, int tag, const void *data, size_t bytes,
		    struct comm_request *request)
{
	struct mpi *mpi = comm->state;
	struct message *message = take(mpi, bytes);

	message->receives = false;
	message->peer = to;
	message->tag = tag;
	*request = (struct comm_request){.state = message, .bytes = bytes};
	return start(mpi, data, NULL, request);
}

static int mpi_recv(struct comm *comm, int from, int tag, void *data, size_t bytes,
		    struct comm_request *request)
{
	struct mpi *mpi = comm->state;
	struct message *message = take(mpi, bytes);

	message->receives = true;
	message->peer = from;
	message->tag = tag;
	*request = (struct comm_request){.state = message, .bytes = bytes};
	return start(mpi, NULL, data, request);
}

static int mpi_test(struct comm *comm, struct comm_request *request)
{
	struct mpi *mpi = comm->state;
	struct message *message = request->state;
	MPI_Status status;
	int rc, done;

	if (!message)
		return request->error ? -1 : 1;
	for (; message->done < message->pieces; message->done++) {
		rc = MPI_Test(&message->piece[message->done], &done, &status);
		if (rc != MPI_SUCCESS) {
			rc = transfer_error(message, rc);
			goto fail;
		}
		if (!done)
			return 0;
		if (message->receives && (rc = check_size(mpi, message, &status)) < 0)
			goto fail;
	}
	finish(mpi, request, 0);
	return 1;
fail:
	give_up(message, message->done, message->pieces);
	finish(mpi, request, rc);
	return -1;
}

static void mpi_cancel(struct comm *comm, struct comm_request *request)
{
	struct message *message = request->state;

	if (!message)
		return;
	give_up(message, message->done, message->pieces);
	finish(comm->state, request, 0);
}

static void mpi_abort(struct comm *comm, int code)
{
	struct mpi *mpi = comm->state;

	fflush(NULL);
	MPI_Abort(mpi->world, code);
}

static void mpi_close(struct comm *comm)
{
	struct mpi *mpi = comm->state;

	MPI_Comm_free(&mpi->world);
	MPI_Finalize();
	arena_release(&mpi->arena);
	free(mpi);
}

static const struct comm_ops ops = {
	.name = "mpi",
	.send = mpi_send,
	.recv = mpi_recv,
	.test = mpi_test,
	.cancel = mpi_cancel,
	.abort = mpi_abort,
	.close = mpi_close,
};

/* -- opening ------------------------------------------------------------------------------- */

void comm_mpi_piece(struct comm *comm, size_t bytes)
{
	struct mpi *mpi = comm->state;

	mpi->piece_bytes = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
}

/* Some networks keep bits of the tag for themselves. */
static int check_tags(void)
{
	int *most, found;

	MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &most, &found);
	if (!found || *most < COMM_TAG_LAST)
		return error(EXIT_CONFIG, "this MPI has tags up to %d only; %d are needed",
			     found ? *most : 0, COMM_TAG_LAST);
	return 0;
}

struct comm *comm_mpi_open(int *argc, char ***argv)
{
	struct mpi *mpi = NULL;
	int level;

	if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS)
		return error_null(EXIT_CONFIG, "cannot start MPI");
	if (level < MPI_THREAD_FUNNELED) {
		report(EXIT_CONFIG, "this MPI was built without support for threads");
		goto fail;
	}
	if (check_tags() < 0)
		goto fail;
	mpi = xzalloc(1, sizeof *mpi);
	if (MPI_Comm_dup(MPI_COMM_WORLD, &mpi->world) != MPI_SUCCESS) {
		report(EXIT_RETRY, "cannot make a private communicator");
		goto fail;
	}
	MPI_Comm_set_errhandler(mpi->world, MPI_ERRORS_RETURN);
	MPI_Comm_rank(mpi->world, &mpi->comm.rank);
	MPI_Comm_size(mpi->world, &mpi->comm.size);
	log_rank(mpi->comm.rank);
	mpi->comm.ops = &ops;
	mpi->comm.state = mpi;
	mpi->piece_bytes = PIECE_BYTES;
	grow(mpi);
	return &mpi->comm;
fail:
	free(mpi);
	MPI_Finalize();
	return NULL;
}

/* A positive number from the environment; 0 where there is none. */
static int environment(const char *name)
{
	const char *text = getenv(name);
	char *end;
	long value;

	if (!text || !*text)
		return 0;
	errno = 0;
	value = strtol(text, &end, 10);
	return errno || *end || value < 1 || value > INT_MAX ? 0 : (int)value;
}

int comm_mpi_launched(void)
{
	int size = environment("OMPI_COMM_WORLD_SIZE");

	if (!size)
		size = environment("PMI_SIZE");
	/* srun tells the size of its step, which counts only where it started us as ranks. */
	if (!size && getenv("PMIX_RANK"))
		size = environment("SLURM_STEP_NUM_TASKS");
	return size ? size : 1;
}

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

const char *comm_mpi_version(void)
{
#ifdef OMPI_MAJOR_VERSION
	return "Open MPI " TEXT(OMPI_MAJOR_VERSION) "." TEXT(OMPI_MINOR_VERSION)
	       "." TEXT(OMPI_RELEASE_VERSION);
#else
	return "MPI " TEXT(MPI_VERSION) "." TEXT(MPI_SUBVERSION);
#endif
}
