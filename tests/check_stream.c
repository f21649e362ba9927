/*
 * check_stream.c - the loop that serves a second thread, and streams of frames over it: everything that a transport
 * must do, tensors that arrive as their codec leaves them, what happens at the end and after an abort. Ranks are
 * threads.
 *
 * links: base comm
 */
#include "comm/loop.h"
#include "tests/stream_cases.h"
#include "tests/suite.h"

enum { HEADER_BYTES = 32, FRAMES = 8 };

static int serve_local(int size, int (*work)(struct comm *front, void *arg), void *arg)
{
	struct served served = {work, arg};

	return comm_local_run(size, in_front, &served);
}

static double cpu_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* -- the front ----------------------------------------------------------------------------- */

static const int sizes[] = {1, 2, 3, 5};

/* All but a misfit, which leaves nothing to go on with: see check_stream_faults.c. */
START_TEST(shared_case)
{
	const struct comm_case *one = &comm_cases[_i / COUNT(sizes)];
	int size = sizes[_i % COUNT(sizes)];

	if (one->work == case_misfit)
		return;
	ck_assert_msg(serve_local(size, one->work, NULL) == 0, "%s with %d ranks", one->name, size);
}
END_TEST

/* Nothing moves for a while. */
static int sleeps(struct comm *comm, void *arg)
{
	struct comm_request request = {0};
	char in = 0, out = 1;
	int failures = 0;

	(void)arg;
	must(comm_recv(comm, before(comm), 1, &in, 1, &request));
	clock_sleep(2);
	must(comm_send_now(comm, after(comm), 1, &out, 1));
	must(comm_wait(comm, &request));
	return failures;
}

static int served_cheaply(struct comm *comm, void *arg)
{
	double start = cpu_s();
	int failures = 0;

	(void)arg;
	expect(comm_serve(comm, sleeps, NULL) == 0);
	expect(cpu_s() - start <= 0.1);
	return failures;
}

START_TEST(serving_is_cheap)
{
	ck_assert_int_eq(comm_local_run(2, served_cheaply, NULL), 0);
}
END_TEST

static int result_of_rank(struct comm *front, void *arg)
{
	const int *results = arg;

	return results[front->rank];
}

START_TEST(result_is_that_of_work)
{
	int results[] = {0, 0, 20, 30, -1};

	ck_assert_int_eq(serve_local(5, result_of_rank, results), 20);
	ck_assert_int_eq(serve_local(2, result_of_rank, results), 0);
}
END_TEST

static int speaks_as_rank(struct comm *comm, void *arg)
{
	char prefix[32];
	int failures = 0;

	(void)arg;
	error_hold();
	warn("hello");
	snprintf(prefix, sizeof(prefix), "rank %d:", comm->rank);
	for (char *noted = log_take(); noted; free(noted), noted = NULL)
		expect(comm->rank == 0 || strstr(noted, prefix));
	error_clear();
	return failures;
}

START_TEST(second_thread_has_the_rank)
{
	ck_assert_int_eq(serve_local(3, speaks_as_rank, NULL), 0);
}
END_TEST

static int asks_the_wrong_one(struct comm *comm, void *arg)
{
	struct stream_spec spec = {.name = "here > there", .rows = 1, .channels = 1};
	int failures = 0;

	(void)arg;
	error_hold();
	expect(!stream_open(comm, &spec));
	expect(error_code() == EXIT_BUG && strstr(error_text(), "'local'"));
	error_clear();
	return failures;
}

START_TEST(streams_need_a_front)
{
	ck_assert_int_eq(comm_local_run(1, asks_the_wrong_one, NULL), 0);
}
END_TEST

/* -- tensors ------------------------------------------------------------------------------- */

static const int channels[] = {1, 3, 64, 768};

/* Every codec, channels, and rows of one frame or several: 10 tensors or more than 10 frames under way. */
START_TEST(tensors_arrive)
{
	int wide = channels[_i / 4 % COUNT(channels)], most = codec_frame_rows(wide);
	const int rows[] = {1, most, most + 1, 3 * most - 5};
	struct chain chain = {.codec = (enum codec_kind)(_i / 16), .rows = rows[_i % 4],
			      .channels = wide, .micros = _i % 4 < 2 ? 10 : 5, .steps = 2};

	ck_assert_msg(serve_local(3, case_chain, &chain) == 0, "codec %d, %d rows of %d",
		      (int)chain.codec, chain.rows, chain.channels);
}
END_TEST

/* A spec between ranks 0 and 1. */
static struct stream_spec spec_of(const struct comm *comm, bool backward, enum codec_kind codec,
				  int rows, int wide)
{
	return (struct stream_spec){
		.name = "library > lab", .peer = !comm->rank, .tag = CHAIN_TAG + backward,
		.send = comm->rank == backward, .backward = backward, .codec = codec, .rows = rows,
		.channels = wide, .tokens = CHAIN_TOKENS, .seed = CHAIN_SEED, .block = 4,
	};
}

/* The fields of a frame, and that they and the payload are under the checksum. */
static int check_header(struct comm *comm, const unsigned char *frame, size_t bytes, int number,
			int frames)
{
	struct { uint64_t checksum, sequence; uint32_t bytes, step, micro, index; } header;
	int failures = 0;

	memcpy(&header, frame, sizeof(header));
	expect(sizeof(header) == HEADER_BYTES);
	expect(header.checksum == checksum(frame + 8, bytes - 8, 0));
	expect(header.sequence == (uint64_t)number);
	expect(header.bytes == bytes - HEADER_BYTES);
	expect(header.step == 6 && header.micro == (uint32_t)(number / frames));
	expect(header.index == (uint32_t)(number % frames));
	return failures;
}

enum { RAW_TENSORS = 3, RAW_ROWS = 1300 };

/* Takes the frames of three tensors as plain messages. */
static int take_raw(struct comm *comm, const struct stream_spec *spec)
{
	const struct codec *codec = codec_of(spec->codec, spec->backward);
	int most = codec_frame_rows(spec->channels), frames = (RAW_ROWS + most - 1) / most;
	unsigned char *frame = xalloc(HEADER_BYTES + codec->bytes(most, spec->channels));
	size_t sum = 0;
	int failures = 0;

	for (int i = 0; i < RAW_TENSORS * frames; i++) {
		int left = RAW_ROWS - i % frames * most;
		size_t bytes = HEADER_BYTES +
			       codec->bytes(left < most ? left : most, spec->channels);

		must(comm_recv_now(comm, spec->peer, spec->tag, frame, bytes));
		failures += check_header(comm, frame, bytes, i, frames);
		sum += bytes;
	}
	expect(sum == RAW_TENSORS * stream_tensor_bytes(spec->codec, spec->backward, RAW_ROWS,
							spec->channels));
	free(frame);
	return failures;
}

static int raw(struct comm *comm, void *arg)
{
	const int *which = arg;
	struct stream_spec spec = spec_of(comm, which[1], (enum codec_kind)which[0], RAW_ROWS, 64);
	size_t count = (size_t)RAW_ROWS * 64;
	struct transfer transfer[RAW_TENSORS] = {{0}};
	struct stream *stream;
	float *data;
	int failures = 0;

	if (!spec.send)
		return take_raw(comm, &spec);
	data = xzalloc(count, sizeof(*data));
	fill_tensor(data, count, 1);
	stream = stream_open(comm, &spec);
	must(stream ? 0 : -1);
	must(stream_drain(stream));
	for (uint32_t i = 0; i < RAW_TENSORS; i++) {
		transfer[i].data = data;
		transfer[i].step = 6;
		transfer[i].micro = i;
		must(transfer_post(stream, &transfer[i]));
	}
	must(stream_drain(stream));
	for (int i = 0; i < RAW_TENSORS; i++)
		must(transfer_wait(comm, &transfer[i]));
	free(data);
	return failures;
}

START_TEST(bytes_are_as_said)
{
	int which[] = {_i / 2, _i % 2};

	ck_assert_int_eq(serve_local(2, raw, which), 0);
}
END_TEST

/* The ring of frames, and little more; it does not grow with the tensor. */
START_TEST(memory_is_a_ring)
{
	for (int i = 0; i < CODEC_KINDS * 2; i++) {
		enum codec_kind kind = (enum codec_kind)(i / 2);
		const struct codec *codec = codec_of(kind, i % 2);
		size_t full = HEADER_BYTES + codec->bytes(codec_frame_rows(64), 64);
		size_t one = HEADER_BYTES + codec->bytes(1, 64);
		size_t large = stream_memory(kind, i % 2, 1000000, 64);
		size_t small = stream_memory(kind, i % 2, 1, 64);

		ck_assert(large >= FRAMES * full && large <= FRAMES * (full + 64) + 64);
		ck_assert(small >= FRAMES * one && small <= FRAMES * (one + 64) + 64);
	}
}
END_TEST

static int waits_for_nothing(struct comm *comm, void *arg)
{
	struct transfer idle = {0};
	int failures = 0;

	(void)arg;
	expect(transfer_wait(comm, &idle) == 0);
	return failures;
}

START_TEST(idle_transfer_has_ended)
{
	ck_assert_int_eq(serve_local(1, waits_for_nothing, NULL), 0);
}
END_TEST

/* -- transfers that depend on others ------------------------------------------------------- */

enum { LONG_FRAMES = 2 * FRAMES, LONG_ROWS = LONG_FRAMES * 512 };

/* Receives into the buffer that is being sent from: the other rank takes nothing until its own tensor has had the
 * time to come first, which is all encoded when half of it waits in each ring. */
static int shares_a_buffer(struct comm *comm, void *arg)
{
	struct stream_spec spec[] = {spec_of(comm, false, CODEC_NONE, LONG_ROWS, 64),
				     spec_of(comm, true, CODEC_NONE, LONG_ROWS, 64)};
	size_t count = (size_t)LONG_ROWS * 64;
	float *mine = xalloc(2 * count * sizeof(float)), *theirs = mine + count;
	struct transfer out = {.data = mine, .step = 1};
	struct transfer in = {.data = comm->rank ? theirs : mine, .step = 1,
			      .after = comm->rank ? NULL : &out};
	struct stream *stream[] = {stream_open(comm, &spec[0]), stream_open(comm, &spec[1])};
	int failures = 0;

	(void)arg;
	must(stream[0] && stream[1] ? 0 : -1);
	fill_tensor(mine, count, (uint32_t)comm->rank);
	must(transfer_post(stream[comm->rank], &out));
	if (comm->rank == 1) {
		must(transfer_wait(comm, &out));
		clock_sleep(0.05);
	}
	must(transfer_post(stream[!comm->rank], &in));
	must(transfer_wait(comm, &in));
	must(stream_drain(stream[comm->rank]));
	fill_tensor(comm->rank ? mine : theirs, count, (uint32_t)!comm->rank);
	expect(!memcmp(mine, theirs, count * sizeof(float)));
	free(mine);
	return failures;
}

START_TEST(after_is_respected)
{
	ck_assert_int_eq(serve_local(2, shares_a_buffer, NULL), 0);
}
END_TEST

enum { AHEAD = 3000 };

/* More is handed over at once than the queue holds, and nothing of it can end before all is. */
static int posts_far_ahead(struct comm *comm, void *arg)
{
	struct stream_spec spec = spec_of(comm, false, CODEC_NONE, 1, 3);
	struct stream *stream = stream_open(comm, &spec);
	struct transfer *transfer = xzalloc(AHEAD, sizeof(*transfer));
	float (*data)[3] = xzalloc(AHEAD, sizeof(*data));
	char go = 1;
	int failures = 0;

	(void)arg;
	must(stream ? 0 : -1);
	if (spec.send)
		must(comm_recv_now(comm, 1, 1, &go, 1));
	for (int i = 0; i < AHEAD; i++) {
		if (spec.send)
			fill_tensor(data[i], 3, (uint32_t)i);
		transfer[i].data = data[i];
		transfer[i].micro = (uint32_t)i;
		must(transfer_post(stream, &transfer[i]));
	}
	if (!spec.send)
		must(comm_send_now(comm, 0, 1, &go, 1));
	for (int i = 0; i < AHEAD; i++) {
		float expected[3];

		must(transfer_wait(comm, &transfer[i]));
		fill_tensor(expected, 3, (uint32_t)i);
		expect(!memcmp(data[i], expected, sizeof(expected)));
	}
	must(stream_drain(stream));
	free(data);
	free(transfer);
	return failures;
}

START_TEST(queue_has_room_again)
{
	ck_assert_int_eq(serve_local(2, posts_far_ahead, NULL), 0);
}
END_TEST

/* -- the end ------------------------------------------------------------------------------- */

enum { VAIN = 5 };

/* Receives for several frames stand, and nothing comes. What is under way belongs to the stream until comm_serve has
 * ended: arg holds it, [rank * VAIN]. */
static int receives_in_vain(struct comm *comm, void *arg)
{
	struct stream_spec spec = spec_of(comm, false, CODEC_NONE, 3 * 512, 64);
	struct transfer *transfer = (struct transfer *)arg + comm->rank * VAIN;
	struct stream *stream;
	int failures = 0;

	spec.peer = after(comm);
	spec.send = false;
	stream = stream_open(comm, &spec);
	must(stream ? 0 : -1);
	for (int i = 0; i < VAIN; i++)
		must(transfer_post(stream, &transfer[i]));
	clock_sleep(0.02);
	must(comm_barrier(comm));
	return failures;
}

/* A rank that is waited for must not end first. */
static int ends_together(struct comm *comm, void *arg)
{
	int failures = 0;

	expect(comm_serve(comm, receives_in_vain, arg) == 0);
	must(comm_barrier(comm));
	return failures;
}

START_TEST(nothing_more_comes)
{
	struct transfer transfer[3 * VAIN] = {{0}};

	ck_assert_int_eq(comm_local_run(3, ends_together, transfer), 0);
}
END_TEST

/* The last rank aborts while each other one waits in its own way, and outlives them. */
static int stuck(struct comm *comm, void *arg)
{
	struct stream_spec spec = spec_of(comm, false, CODEC_NONE, LONG_ROWS, 64);
	struct transfer transfer = {0};
	struct stream *stream;
	char byte = 0;
	atomic_int *freed = arg;
	int last = comm->size - 1, failures = 0;

	spec.peer = last;
	spec.send = comm->rank == 1;
	transfer.data = xzalloc((size_t)LONG_ROWS * 64, sizeof(float));
	stream = stream_open(comm, &spec);
	must(stream ? 0 : -1);
	if (comm->rank == last) {
		clock_sleep(0.03);
		comm_abort(comm, EXIT_RETRY);
		for (double end = clock_s() + 30; *freed < last && clock_s() < end;)
			clock_sleep(1e-3);
		expect(*freed == last);
	} else if (comm->rank == 2) {
		expect(comm_recv_now(comm, last, 1, &byte, 1) == -1);
	} else {
		must(transfer_post(stream, &transfer));
		expect((spec.send ? stream_drain(stream) : transfer_wait(comm, &transfer)) == -1);
	}
	(*freed)++;
	expect(comm_barrier(comm) == -1);
	expect(transfer_post(stream, &transfer) == -1);
	free(transfer.data);
	return failures ? failures : -7;
}

START_TEST(abort_ends_all)
{
	for (int size = 2; size <= 4; size++) {
		atomic_int freed = 0;

		ck_assert_int_eq(serve_local(size, stuck, &freed), -7);
	}
}
END_TEST

/* A transport that breaks once the loop's queue is overfull, and keeps with which code the job was ended. */
struct broken {
	struct comm comm, *inner;
	struct loop *_Atomic loop;
	atomic_bool asked;
	int aborts, code;
};

static int broken_recv(struct comm *comm, int from, int tag, void *data, size_t bytes, struct comm_request *request)
{
	struct broken *broken = comm->state;

	return broken->inner->ops->recv(broken->inner, from, tag, data, bytes, request);
}

static int broken_test(struct comm *comm, struct comm_request *request)
{
	struct broken *broken = comm->state;
	bool full = false;

	(void)request;
	broken->asked = true;
	for (double end = clock_s() + 30; !full && clock_s() < end; clock_sleep(1e-3)) {
		if (!broken->loop)
			continue;
		loop_lock(broken->loop);
		full = broken->loop->count > QUEUE;
		loop_unlock(broken->loop);
	}
	return error(EXIT_BUG, "the transport broke");
}

static void broken_abort(struct comm *comm, int code)
{
	struct broken *broken = comm->state;

	broken->aborts++;
	broken->code = code;
}

static void broken_cancel(struct comm *comm, struct comm_request *request)
{
	(void)comm;
	(void)request;
}

/* Fills the queue while nobody takes anything from it, then gives up with a code of its own. */
static int fills_and_aborts(struct comm *comm, void *arg)
{
	struct broken *broken = arg;
	struct comm_request *request = xzalloc(QUEUE, sizeof(*request));
	int failures = 0;
	char byte;

	while (!broken->asked)
		clock_sleep(1e-3);
	for (int i = 0; i < QUEUE; i++)
		must(comm_recv(comm, 0, 1, &byte, 1, &request[i]));
	broken->loop = comm->state;
	loop_lock(broken->loop);
	expect(broken->loop->count == QUEUE);
	broken->loop->failed = true;
	loop_unlock(broken->loop);
	comm_abort(comm, EXIT_RETRY);
	free(request);
	return failures;
}

/* It is carried out once, though the queue was full, and with the code of what had failed first. */
START_TEST(abort_has_the_first_code)
{
	static const struct comm_ops ops = {.name = "broken", .recv = broken_recv, .test = broken_test,
					    .cancel = broken_cancel, .abort = broken_abort};
	struct broken broken = {.inner = comm_alone_open()};

	broken.comm = (struct comm){&ops, 0, 1, &broken};
	error_hold();
	ck_assert_int_eq(comm_serve(&broken.comm, fills_and_aborts, &broken), 0);
	error_clear();
	comm_close(broken.inner);
	ck_assert_int_eq(broken.aborts, 1);
	ck_assert_int_eq(broken.code, EXIT_BUG);
}
END_TEST

/* -- above 2 GiB --------------------------------------------------------------------------- */

enum { LARGE_CHANNELS = 768, LARGE_ROWS = 769000 };	/* 2.2 GiB */

static int large(struct comm *comm, void *arg)
{
	struct stream_spec spec = spec_of(comm, false, CODEC_NONE, LARGE_ROWS, LARGE_CHANNELS);
	size_t count = (size_t)LARGE_ROWS * LARGE_CHANNELS;
	struct transfer transfer = {.data = xalloc(count * sizeof(float)), .step = 1};
	struct stream *stream = stream_open(comm, &spec);
	struct digest digest, other;
	int failures = 0;

	(void)arg;
	must(stream ? 0 : -1);
	if (spec.send)
		fill_tensor(transfer.data, count, 5);
	must(transfer_post(stream, &transfer));
	must(transfer_wait(comm, &transfer));
	must(stream_drain(stream));
	digest = other = digest_of(transfer.data, count * sizeof(float));
	must(comm_broadcast(comm, 0, &other, sizeof(other)));
	expect(!memcmp(&digest, &other, sizeof(digest)));
	free(transfer.data);
	return failures;
}

START_TEST(large_tensor_arrives)
{
	if (!getenv("EDGEPIPE_LARGE")) {
		puts("skipped: a tensor of 2.2 GiB takes 4.4 GiB; EDGEPIPE_LARGE=1 sends it");
		return;
	}
	ck_assert_int_eq(serve_local(2, large, NULL), 0);
}
END_TEST

/* -- all ----------------------------------------------------------------------------------- */

static Suite *suite(void)
{
	Suite *suite = suite_create("stream");
	TCase *front = tcase_create("front"), *tensors = tcase_create("tensors");

	tcase_set_timeout(front, 60);
	tcase_add_loop_test(front, shared_case, 0, COUNT(comm_cases) * COUNT(sizes));
	tcase_add_test(front, serving_is_cheap);
	tcase_add_test(front, result_is_that_of_work);
	tcase_add_test(front, second_thread_has_the_rank);
	tcase_add_test(front, streams_need_a_front);
	tcase_add_test(front, abort_ends_all);
	tcase_add_test(front, abort_has_the_first_code);
	suite_add_tcase(suite, front);
	tcase_set_timeout(tensors, 60);
	tcase_add_loop_test(tensors, tensors_arrive, 0, CODEC_KINDS * COUNT(channels) * 4);
	tcase_add_loop_test(tensors, bytes_are_as_said, 0, CODEC_KINDS * 2);
	tcase_add_test(tensors, memory_is_a_ring);
	tcase_add_test(tensors, idle_transfer_has_ended);
	tcase_add_test(tensors, after_is_respected);
	tcase_add_test(tensors, queue_has_room_again);
	tcase_add_test(tensors, nothing_more_comes);
	tcase_add_test(tensors, large_tensor_arrives);
	suite_add_tcase(suite, tensors);
	return suite;
}

int main(void)
{
	return run_suite(suite());
}
