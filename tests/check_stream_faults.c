/*
 * check_stream_faults.c - streams over a transport that does wrong: every damaged, lost, repeated or overtaken frame is
 * noticed and named, nothing after it gets through, and all ranks end. Ranks are threads.
 *
 * A last frame that is lost leaves its receiver waiting: only somebody with a clock can tell that from a slow link.
 *
 * links: base comm
 */
#include <unistd.h>

#include "tests/faulty.h"
#include "tests/stream_cases.h"
#include "tests/suite.h"

enum { ROWS = 4 * 512 + 100, WIDE = 64, FRAMES = 5, TENSORS = 3, STEP = 7, RESULT = 42 };

/* -- what was said ------------------------------------------------------------------------- */

struct said {
	FILE *file;
	int before;
};

static struct said hear(void)
{
	struct said said = {tmpfile(), dup(STDERR_FILENO)};

	ck_assert(said.file && said.before >= 0);
	ck_assert(dup2(fileno(said.file), STDERR_FILENO) >= 0);
	return said;
}

static void heard(struct said *said, char *text, size_t bytes)
{
	size_t count;

	dup2(said->before, STDERR_FILENO);
	close(said->before);
	rewind(said->file);
	count = fread(text, 1, bytes - 1, said->file);
	text[count] = '\0';
	fclose(said->file);
}

/* -- one fault ----------------------------------------------------------------------------- */

static struct stream_spec spec_of(const struct comm *comm, enum codec_kind codec)
{
	return (struct stream_spec){
		.name = "library > lab", .peer = !comm->rank, .tag = CHAIN_TAG,
		.send = comm->rank == 0, .codec = codec, .rows = ROWS, .channels = WIDE,
		.tokens = CHAIN_TOKENS, .seed = CHAIN_SEED,
	};
}

/* What goes wrong, and what must be said of it. */
struct damage {
	struct faulty fault;
	int bad;			/* number of the frame at which it is noticed */
	const char *why;
	enum codec_kind codec;
	uint32_t ahead;			/* the receiver is at a later step by so many */
	bool aborts;			/* the receiver does */
};

/* The fault may be noticed before all is handed over. */
static void post_all(struct stream *stream, struct transfer *transfer, float *data, uint32_t step)
{
	for (uint32_t i = 0; i < TENSORS; i++) {
		transfer[i] = (struct transfer){.data = data + i * ROWS * WIDE, .step = step,
						.micro = i};
		transfer_post(stream, &transfer[i]);
	}
}

/* The sender may find its end of the link gone, or notice nothing. */
static int sends(struct comm *comm, const struct damage *damage, float *data)
{
	struct stream_spec spec = spec_of(comm, damage->codec);
	struct stream *stream = stream_open(comm, &spec);
	struct transfer transfer[TENSORS];
	int failures = 0;

	must(stream ? 0 : -1);
	for (int i = 0; i < TENSORS; i++)
		fill_tensor(data + i * ROWS * WIDE, (size_t)ROWS * WIDE, (uint32_t)i);
	post_all(stream, transfer, data, STEP);
	stream_drain(stream);
	return failures;
}

/* Everything that is asked after a failure fails. */
static int fails(struct comm *comm, struct stream *stream, const struct stream_spec *spec)
{
	struct transfer idle = {0}, other = {0};
	struct comm_request request = {0};
	char byte = 0;
	int failures = 0;

	expect(transfer_post(stream, &other) == -1);
	expect(transfer_wait(comm, &other) == -1);
	expect(transfer_wait(comm, &idle) == 0);
	expect(stream_drain(stream) == -1);
	expect(!stream_open(comm, spec));
	expect(comm_send(comm, 0, 1, &byte, 1, &request) == -1);
	expect(comm_test(comm, &request) == -1);
	expect(comm_recv_now(comm, 0, 1, &byte, 1) == -1);
	expect(comm_barrier(comm) == -1);
	expect(comm_any(comm, false));
	return failures;
}

/* Tensors before the bad frame arrive; the bad one and all after it do not. */
static int receives(struct comm *comm, const struct damage *damage, float *data)
{
	struct stream_spec spec = spec_of(comm, damage->codec);
	struct stream *stream = stream_open(comm, &spec);
	float *sent = xalloc(sizeof(float) * ROWS * WIDE), *come = xalloc(sizeof(float) * ROWS * WIDE);
	struct transfer transfer[TENSORS];
	int failures = 0, bad = damage->bad / FRAMES;

	must(stream ? 0 : -1);
	post_all(stream, transfer, data, STEP + damage->ahead);
	for (int i = 0; i < TENSORS; i++) {
		expect(transfer_wait(comm, &transfer[i]) == (i < bad ? 0 : -1));
		fill_tensor(sent, (size_t)ROWS * WIDE, (uint32_t)i);
		travel(come, sent, &spec, STEP, 0);
		expect(i >= bad || !memcmp(come, transfer[i].data, sizeof(float) * ROWS * WIDE));
	}
	if (bad < TENSORS)
		failures += fails(comm, stream, &spec);
	if (damage->aborts)
		comm_abort(comm, EXIT_RETRY);
	free(sent);
	free(come);
	return failures ? failures : RESULT;
}

static int link_work(struct comm *comm, void *arg)
{
	const struct damage *damage = arg;
	float *data = xzalloc((size_t)TENSORS * ROWS * WIDE, sizeof(float));
	int result = comm->rank ? receives(comm, damage, data) : sends(comm, damage, data);

	free(data);
	return result;
}

static int damaged(struct comm *comm, void *arg)
{
	const struct damage *damage = arg;
	struct comm *bad;
	int result;

	if (comm->rank)
		return comm_serve(comm, link_work, arg);
	bad = faulty_open(comm, &damage->fault);
	result = comm_serve(bad, link_work, arg);
	comm_close(bad);
	return result;
}

/* Runs a link with a fault: the receiver's result, and the frame named once. */
static void check_damage(struct damage damage)
{
	char text[8192], place[128];
	struct said said;
	int result;

	damage.fault.to = 1;
	damage.fault.tag_from = damage.fault.tag_to = CHAIN_TAG;
	snprintf(place, sizeof(place),
		 "rank 1: error: link 'library > lab', step %d, micro-batch %d, frame %d of %d (activations): ",
		 STEP + (int)damage.ahead, damage.bad / FRAMES, damage.bad % FRAMES + 1, FRAMES);
	said = hear();
	result = comm_local_run(2, damaged, &damage);
	heard(&said, text, sizeof(text));
	ck_assert_msg(result == RESULT, "%d: %s", result, text);
	ck_assert_msg(strstr(text, place) && strstr(strstr(text, place), damage.why),
		      "not '%s%s': %s", place, damage.why, text);
	ck_assert_msg(!strstr(strstr(text, place) + 1, "rank 1: error:"), "%s", text);
}

/* -- faults -------------------------------------------------------------------------------- */

static const char checksum_differs[] = "damaged on the way (the checksum differs)";
static const char other_size[] = "another size came";
static const char later_frame[] = "lost or overtaken: a later frame came";
static const char earlier_frame[] = "an earlier frame came again";

/* One bit, in every field of the header and in the payload. */
static const long places[] = {0, 7, 8, 15, 16, 20, 24, 28, 31, 32, 1000, 6000, -1};

START_TEST(bit_flip)
{
	for (int nth = 0; nth < 2 * FRAMES; nth += 3)
		check_damage((struct damage){
			.fault = {.kind = FAULT_FLIP, .nth = nth, .offset = places[_i / 2]},
			.bad = nth, .why = checksum_differs,
			.codec = _i % 2 ? CODEC_INT8 : CODEC_NONE, .aborts = nth % 2});
}
END_TEST

/* Fault, message, offset; frame and reason. The last frame of a tensor is shorter than the others. */
static const struct {
	enum fault kind;
	int nth;
	long offset;
	int bad;
	const char *why;
} faults[] = {
	{FAULT_TAIL, 6, 0, 6, checksum_differs},   {FAULT_TAIL, 6, 20, 6, checksum_differs},
	{FAULT_TAIL, 6, 32, 6, checksum_differs},  {FAULT_TAIL, 6, 5000, 6, checksum_differs},
	{FAULT_TAIL, 4, -8, 4, checksum_differs},  {FAULT_SHORT, 6, 0, 6, other_size},
	{FAULT_SHORT, 6, 20, 6, other_size},	   {FAULT_SHORT, 6, 5000, 6, other_size},
	{FAULT_SHORT, 0, -1, 0, other_size},	   {FAULT_SHORT, 14, -4, 14, other_size},
	{FAULT_DROP, 0, 0, 0, later_frame},	   {FAULT_DROP, 6, 0, 6, later_frame},
	{FAULT_DROP, 8, 0, 8, other_size},	   {FAULT_DROP, 9, 0, 9, other_size},
	{FAULT_TWICE, 0, 0, 1, earlier_frame},	   {FAULT_TWICE, 6, 0, 7, earlier_frame},
	{FAULT_TWICE, 9, 0, 10, other_size},	   {FAULT_SWAP, 0, 0, 0, later_frame},
	{FAULT_SWAP, 6, 0, 6, later_frame},	   {FAULT_SWAP, 8, 0, 8, other_size},
};

START_TEST(frame_is_not_the_next)
{
	for (int codec = 0; codec < CODEC_KINDS; codec++)
		check_damage((struct damage){
			.fault = {.kind = faults[_i].kind, .nth = faults[_i].nth,
				  .offset = faults[_i].offset},
			.bad = faults[_i].bad, .why = faults[_i].why,
			.codec = (enum codec_kind)codec, .aborts = codec % 2});
}
END_TEST

/* A sound frame of another step. */
START_TEST(ranks_disagree)
{
	check_damage((struct damage){.ahead = 1,
				     .why = "another step, micro-batch or frame came"});
}
END_TEST

/* The same world, and nothing wrong with it. */
START_TEST(no_fault)
{
	struct damage damage = {.bad = TENSORS * FRAMES};
	struct said said = hear();
	char text[8192];
	int result = comm_local_run(2, damaged, &damage);

	heard(&said, text, sizeof(text));
	ck_assert_msg(result == RESULT && !*text, "%d: %s", result, text);
}
END_TEST

/* -- a failure of the front itself --------------------------------------------------------- */

/* Rank 1 gets a message of another size: its own operations fail, and with its end those of the others. */
static int misfit_over_front(struct comm *comm, void *arg)
{
	struct comm_request request = {0};
	char *data = xzalloc(100000, 1);
	int failures = 0;

	(void)arg;
	if (comm->rank == 0) {
		must(comm_send_now(comm, 1, 1, data, 50));
		expect(comm_recv_now(comm, 1, 2, data, 1) == -1);
	} else if (comm->rank == 1) {
		expect(comm_recv_now(comm, 0, 1, data, 60) == -1);
		expect(comm_recv(comm, 0, 1, data, 1, &request) == -1);
		comm_abort(comm, EXIT_RETRY);
		expect(comm_send_now(comm, 0, 2, data, 1) == -1);
	} else {
		expect(comm_send_now(comm, 1, 1, data, 100000) == -1);
	}
	for (int i = 0; i < 5000 && !failures; i++)
		expect(comm_recv(comm, 0, 1, data, 1, &request) == -1);
	expect(comm_barrier(comm) == -1);
	free(data);
	return failures ? failures : RESULT + comm->rank;
}

START_TEST(misfit_fails_the_front)
{
	struct served served = {misfit_over_front, NULL};
	struct said said = hear();
	char text[8192];
	int result = comm_local_run(3, in_front, &served);

	heard(&said, text, sizeof(text));
	ck_assert_msg(result == RESULT, "%d: %s", result, text);
	ck_assert_msg(strstr(text, "rank 0 sent 50 bytes, not the 60 expected"), "%s", text);
	ck_assert_msg(!strstr(text, "requests under way"), "%s", text);
}
END_TEST

/* -- all ----------------------------------------------------------------------------------- */

static Suite *suite(void)
{
	Suite *suite = suite_create("stream_faults");
	TCase *tcase = tcase_create("faults");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, bit_flip, 0, 2 * COUNT(places));
	tcase_add_loop_test(tcase, frame_is_not_the_next, 0, COUNT(faults));
	tcase_add_test(tcase, ranks_disagree);
	tcase_add_test(tcase, no_fault);
	tcase_add_test(tcase, misfit_fails_the_front);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return run_suite(suite());
}
