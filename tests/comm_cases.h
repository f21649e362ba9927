/*
 * comm_cases.h - what every transport of comm/ must do, as works that all ranks run together.
 *
 * Shared by check_comm.c (ranks as threads), mpi_comm.c (ranks as processes), and the tests of
 * what is built on these two: check_shaped.c, check_stream.c, mpi_stream.c. A case returns how
 * many of its expectations failed. One that cannot go on aborts its world, so that the other
 * ranks do not wait for ever.
 */
#ifndef EDGEPIPE_COMM_CASES_H
#define EDGEPIPE_COMM_CASES_H

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "comm/comm.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* Counts a failure and says where. */
#define expect(condition) \
	((condition) ? (void)0 : \
	 (failures++, (void)fprintf(stderr, "%s:%d: rank %d of %d: not so: %s\n", __FILE__, \
				    __LINE__, comm->rank, comm->size, #condition)))
/* Without this call's success the case cannot go on. */
#define must(call) \
	do { \
		if ((call) < 0) { \
			fprintf(stderr, "%s:%d: rank %d of %d: failed: %s\n", __FILE__, \
				__LINE__, comm->rank, comm->size, #call); \
			comm_abort(comm, EXIT_FAILURE); \
			return failures + 1; \
		} \
	} while (0)

static int after(const struct comm *comm)
{
	return (comm->rank + 1) % comm->size;
}

static int before(const struct comm *comm)
{
	return (comm->rank + comm->size - 1) % comm->size;
}

/* Bytes that tell their message: another source, index or place gives other bytes. */
static void fill(unsigned char *data, size_t bytes, int source, int index)
{
	for (size_t i = 0; i < bytes; i++)
		data[i] = (unsigned char)(i * 31 + (i >> 8) * 7 + (size_t)source * 101 +
					  (size_t)index * 13 + 1);
}

static bool filled(const unsigned char *data, size_t bytes, int source, int index)
{
	for (size_t i = 0; i < bytes; i++)
		if (data[i] != (unsigned char)(i * 31 + (i >> 8) * 7 + (size_t)source * 101 +
					       (size_t)index * 13 + 1))
			return false;
	return true;
}

/* Is busy with something else, but keeps the transport going, as those of comm/ that delay
 * messages want it. */
static void be_busy(struct comm *comm, double s)
{
	struct comm_request idle = {0};

	for (double end = clock_s() + s; clock_s() < end; clock_sleep(5e-4))
		comm_test(comm, &idle);
}

/* -- messages ------------------------------------------------------------------------------ */

static const size_t ring_bytes[] = {0, 1, 7, 64, 4095, 4096, 4097, 65536, 1000003, 2 << 20, 3};
enum { RING = COUNT(ring_bytes) };

/* All under way at once around the ring, received before they are sent or after. */
static int ring(struct comm *comm, bool receive_first)
{
	struct comm_request send[RING] = {{0}}, recv[RING] = {{0}};
	unsigned char *out[RING], *in[RING];
	int failures = 0;

	for (int i = 0; i < RING; i++) {
		out[i] = xalloc(ring_bytes[i] + 1);
		in[i] = xzalloc(ring_bytes[i] + 1, 1);
		fill(out[i], ring_bytes[i], comm->rank, i);
	}
	for (int turn = 0; turn < 2; turn++) {
		bool receives = receive_first == (turn == 0);

		for (int i = 0; i < RING; i++)
			must(receives ? comm_recv(comm, before(comm), i, in[i], ring_bytes[i],
						  &recv[i])
				      : comm_send(comm, after(comm), i, out[i], ring_bytes[i],
						  &send[i]));
		must(comm_barrier(comm));
	}
	for (int i = RING - 1; i >= 0; i--) {
		must(comm_wait(comm, &send[i]));
		must(comm_wait(comm, &recv[i]));
		expect(send[i].state == NULL && recv[i].state == NULL);
		expect(comm_test(comm, &recv[i]) == 1);
		expect(filled(in[i], ring_bytes[i], before(comm), i));
		expect(in[i][ring_bytes[i]] == 0);
		free(out[i]);
		free(in[i]);
	}
	return failures;
}

static int case_ring(struct comm *comm, void *arg)
{
	(void)arg;
	return ring(comm, true) + ring(comm, false);
}

/* Tags are taken in another order than sent, large before small and the other way. */
static int case_tags(struct comm *comm, void *arg)
{
	static const size_t bytes[] = {1 << 20, 10, 300000, 20};
	static const int take[] = {3, 0, 1, 2};
	struct comm_request send[4] = {{0}};
	unsigned char *out[4], *in = xalloc(1 << 20);
	int failures = 0;

	(void)arg;
	for (int i = 0; i < 4; i++) {
		out[i] = xalloc(bytes[i]);
		fill(out[i], bytes[i], comm->rank, i);
		must(comm_send(comm, after(comm), 100 - i, out[i], bytes[i], &send[i]));
	}
	for (int i = 0; i < 4; i++) {
		must(comm_recv_now(comm, before(comm), 100 - take[i], in, bytes[take[i]]));
		expect(filled(in, bytes[take[i]], before(comm), take[i]));
	}
	for (int i = 0; i < 4; i++) {
		must(comm_wait(comm, &send[i]));
		free(out[i]);
	}
	free(in);
	return failures;
}

enum { MANY = 60, MANY_BYTES = 6000 };

static size_t many_bytes(int index)
{
	return (size_t)(index * 2753 % MANY_BYTES);
}

/* Everybody to everybody, one tag, sizes mixed: each pair keeps its order. Half of the receives
 * stand before the sends, half come after. */
static int case_order(struct comm *comm, void *arg)
{
	int count = comm->size * MANY, failures = 0;
	struct comm_request *send = xzalloc((size_t)count, sizeof *send);
	struct comm_request *recv = xzalloc((size_t)count, sizeof *recv);
	unsigned char *out = xalloc((size_t)MANY * MANY_BYTES);
	unsigned char *in = xalloc((size_t)count * MANY_BYTES);

	(void)arg;
	for (int i = 0; i < MANY; i++)
		fill(out + i * MANY_BYTES, many_bytes(i), comm->rank, i);
	for (int part = 0; part < 2; part++) {
		for (int i = part * count / 2; i < (part + 1) * count / 2; i++)
			must(comm_recv(comm, i % comm->size, 7, in + i * MANY_BYTES,
				       many_bytes(i / comm->size), &recv[i]));
		for (int i = 0; part == 0 && i < count; i++)
			must(comm_send(comm, i % comm->size, 7,
				       out + i / comm->size * MANY_BYTES,
				       many_bytes(i / comm->size), &send[i]));
		must(comm_barrier(comm));
	}
	for (int i = 0; i < count; i++) {
		must(comm_wait(comm, &send[i]));
		must(comm_wait(comm, &recv[i]));
		expect(filled(in + i * MANY_BYTES, many_bytes(i / comm->size), i % comm->size,
			      i / comm->size));
	}
	free(send);
	free(recv);
	free(out);
	free(in);
	return failures;
}

/* The callers' last tag stays out of what the collectives send, and they out of it. */
static int case_reserved(struct comm *comm, void *arg)
{
	struct comm_request recv = {0}, send = {0};
	char in = 0, out = (char)(40 + comm->rank);
	double sum = 1;
	int failures = 0;

	(void)arg;
	must(comm_recv(comm, before(comm), COMM_TAG_MAX, &in, 1, &recv));
	must(comm_barrier(comm));
	must(comm_fold(comm, &sum));
	expect(sum == comm->size);
	expect(!comm_any(comm, false));
	expect(comm_test(comm, &recv) == 0);
	must(comm_barrier(comm));
	must(comm_send(comm, after(comm), COMM_TAG_MAX, &out, 1, &send));
	must(comm_wait(comm, &recv));
	must(comm_wait(comm, &send));
	expect(in == 40 + before(comm));
	return failures;
}

/* A long wait leaves the core to others. */
static int case_wait(struct comm *comm, void *arg)
{
	struct timespec start, end;
	int failures = 0;

	(void)arg;
	must(comm_barrier(comm));
	if (comm->rank == 0)
		be_busy(comm, 0.3);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
	must(comm_barrier(comm));
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
	expect((double)(end.tv_sec - start.tv_sec) +
	       (double)(end.tv_nsec - start.tv_nsec) * 1e-9 < 0.1);
	return failures;
}

/* A receive that is given up leaves the next message to the next receive, and hinders no end. */
static int case_cancel(struct comm *comm, void *arg)
{
	struct comm_request request = {0}, send = {0};
	char in = 0, out = 3, unused = 9;
	int failures = 0;

	(void)arg;
	must(comm_recv(comm, before(comm), 1, &unused, 1, &request));
	comm->ops->cancel(comm, &request);
	expect(!request.state && comm_test(comm, &request) == 1);
	comm->ops->cancel(comm, &request);
	must(comm_barrier(comm));
	must(comm_send(comm, after(comm), 1, &out, 1, &send));
	must(comm_recv_now(comm, before(comm), 1, &in, 1));
	must(comm_wait(comm, &send));
	expect(in == 3 && unused == 9);
	must(comm_recv(comm, before(comm), 1, &unused, 1, &request));
	comm->ops->cancel(comm, &request);
	must(comm_barrier(comm));	/* a rank that is waited for must not end */
	return failures;
}

/* -- errors -------------------------------------------------------------------------------- */

/* Calls that are wrong in themselves say so, and nothing is sent. */
static int case_arguments(struct comm *comm, void *arg)
{
	struct comm_request request = {0}, other = {0};
	char in = 0, out = 1;
	int failures = 0;

	(void)arg;
	error_hold();
	expect(comm_send(comm, comm->size, 0, &out, 1, &request) == -1);
	expect(comm_recv(comm, -1, 0, &in, 1, &request) == -1);
	expect(comm_send(comm, 0, -1, &out, 1, &request) == -1);
	expect(comm_recv(comm, 0, COMM_TAG_MAX + 1, &in, 1, &request) == -1);
	expect(comm_send_now(comm, 0, COMM_TAG_MAX + 1, &out, 1) == -1);
	expect(comm_recv_now(comm, 0, -5, &in, 1) == -1);
	expect(comm_broadcast(comm, comm->size, &in, 1) == -1);
	expect(error_code() == EXIT_BUG);
	expect(strstr(error_text(), "outside 0 to 32767") != NULL);
	error_hold();
	must(comm_recv(comm, before(comm), 1, &in, 1, &request));
	expect(comm_recv(comm, before(comm), 1, &in, 1, &request) == -1);
	expect(strstr(error_text(), "still under way") != NULL);
	error_clear();
	must(comm_barrier(comm));
	must(comm_send(comm, after(comm), 1, &out, 1, &other));
	must(comm_wait(comm, &request));
	must(comm_wait(comm, &other));
	expect(in == 1);
	expect(comm_test(comm, &request) == 1);
	return failures;
}

/* One message around the ring whose receiver expects another size. The receive stands before
 * the send or comes after; either way the receiver alone sees an error, and the next message of
 * the same tag is whole. */
static int misfit(struct comm *comm, int tag, size_t sent, size_t expected, bool receive_first)
{
	struct comm_request send = {0}, recv = {0};
	unsigned char *out = xzalloc(sent + 1, 1), *in = xzalloc(expected + 1, 1);
	int failures = 0, rc = 0;

	error_hold();
	if (receive_first)
		rc = comm_recv(comm, before(comm), tag, in, expected, &recv);
	must(comm_barrier(comm));
	must(comm_send(comm, after(comm), tag, out, sent, &send));
	must(comm_barrier(comm));
	if (!receive_first)
		rc = comm_recv(comm, before(comm), tag, in, expected, &recv);
	if (rc == 0)
		rc = comm_wait(comm, &recv);
	expect(rc == -1);
	expect(recv.error != 0 && recv.state == NULL);
	expect(comm_test(comm, &recv) == -1);
	expect(error_code() == EXIT_BUG);
	expect(strstr(error_text(), "expected") != NULL);
	error_clear();
	must(comm_wait(comm, &send));
	expect(in[expected] == 0);
	free(in);
	free(out);
	return failures;
}

/* The barrier: nothing new may reach a rank that has not seen the misfit yet. */
static int whole(struct comm *comm, int tag)
{
	struct comm_request send = {0}, recv = {0};
	unsigned char out[777], in[777] = {0};
	int failures = 0;

	must(comm_barrier(comm));
	fill(out, sizeof out, comm->rank, tag);
	must(comm_recv(comm, before(comm), tag, in, sizeof in, &recv));
	must(comm_send(comm, after(comm), tag, out, sizeof out, &send));
	must(comm_wait(comm, &send));
	must(comm_wait(comm, &recv));
	expect(filled(in, sizeof in, before(comm), tag));
	return failures;
}

static int case_misfit(struct comm *comm, void *arg)
{
	static const size_t sizes[] = {0, 1, 100, 5000, 300000};
	int failures = 0, tag = 10;

	(void)arg;
	if (comm->size == 1 && strcmp(comm->ops->name, "mpi") == 0)
		return 0;	/* Open MPI does not see them in messages to oneself */
	for (int sent = 0; sent < COUNT(sizes); sent++)
		for (int expected = 0; expected < COUNT(sizes); expected++) {
			if (sent == expected)
				continue;
			failures += misfit(comm, tag, sizes[sent], sizes[expected], true);
			failures += misfit(comm, tag, sizes[sent], sizes[expected], false);
			failures += whole(comm, tag++);
		}
	return failures;
}

/* -- collectives --------------------------------------------------------------------------- */

/* Nobody leaves a barrier before the last has come: all ranks are on one machine, which has one clock. */
static int case_barrier(struct comm *comm, void *arg)
{
	int failures = 0;

	(void)arg;
	for (int late = 0; late < comm->size; late++) {
		double came, left;

		must(comm_barrier(comm));
		if (comm->rank == late)
			be_busy(comm, 0.03);
		came = clock_s();
		must(comm_barrier(comm));
		left = clock_s();
		must(comm_broadcast(comm, late, &came, sizeof(came)));
		expect(left >= came);
	}
	return failures;
}

static int case_any(struct comm *comm, void *arg)
{
	int failures = 0;

	(void)arg;
	expect(!comm_any(comm, false));
	for (int rank = 0; rank < comm->size; rank++) {
		expect(comm_any(comm, comm->rank == rank));
		expect(!comm_any(comm, false));
	}
	expect(comm_any(comm, true));
	return failures;
}

static int case_broadcast(struct comm *comm, void *arg)
{
	static const size_t sizes[] = {0, 1, 300, 200000};
	unsigned char *data = xalloc(200001);
	int failures = 0;

	(void)arg;
	for (int root = 0; root < comm->size; root++)
		for (int i = 0; i < COUNT(sizes); i++) {
			memset(data, 0, 200001);
			if (comm->rank == root)
				fill(data, sizes[i], root, i);
			must(comm_broadcast(comm, root, data, sizes[i]));
			expect(filled(data, sizes[i], root, i));
			expect(data[sizes[i]] == 0);
		}
	free(data);
	return failures;
}

/* Numbers whose sum depends on the order. */
static double addend(int rank)
{
	static const double values[] = {0.1, 1e16, -1e16, 0.7, 1e8};

	return values[rank % 5];
}

static double serial_fold(int size)
{
	double sum = addend(size - 1);

	for (int rank = size - 2; rank >= 0; rank--)
		sum += addend(rank);
	return sum;
}

/* The same bits as the serial fold, whoever is late. */
static int case_fold(struct comm *comm, void *arg)
{
	double expected = serial_fold(comm->size), sum, other = addend(0);
	int failures = 0;

	(void)arg;
	for (int rank = 1; rank < comm->size; rank++)
		other += addend(rank);
	expect(comm->size < 3 || memcmp(&expected, &other, sizeof expected) != 0);
	for (int round = 0; round < 5; round++) {
		sum = addend(comm->rank);
		be_busy(comm, ((comm->rank * 3 + round * 2) % 5) * 2e-3);
		must(comm_fold(comm, &sum));
		expect(memcmp(&sum, &expected, sizeof sum) == 0);
	}
	expected = sum = -0.0;
	must(comm_fold(comm, &sum));
	expect(memcmp(&sum, &expected, sizeof sum) == 0);
	return failures;
}

static size_t gathered_bytes(int rank, int root)
{
	return rank == 1 ? 0 : (size_t)(rank * 70001 + root * 5 + 3);
}

static int case_gather(struct comm *comm, void *arg)
{
	void **data = xzalloc((size_t)comm->size, sizeof *data);
	size_t *bytes = xzalloc((size_t)comm->size, sizeof *bytes);
	unsigned char *mine = xalloc(400000);
	int failures = 0;

	(void)arg;
	for (int root = 0; root < comm->size; root++) {
		size_t mine_bytes = gathered_bytes(comm->rank, root);

		fill(mine, mine_bytes, comm->rank, root);
		must(comm_gather(comm, root, mine_bytes ? mine : NULL, mine_bytes,
				 comm->rank == root ? data : NULL,
				 comm->rank == root ? bytes : NULL));
		for (int i = 0; comm->rank == root && i < comm->size; i++) {
			expect(bytes[i] == gathered_bytes(i, root));
			expect(data[i] && filled(data[i], bytes[i], i, root));
			free(data[i]);
		}
	}
	free(mine);
	free(data);
	free(bytes);
	return failures;
}

/* -- all of them --------------------------------------------------------------------------- */

static const struct comm_case {
	const char *name;
	int (*work)(struct comm *comm, void *arg);
} comm_cases[] = {
	{"ring", case_ring},
	{"tags", case_tags},
	{"order", case_order},
	{"reserved", case_reserved},
	{"wait", case_wait},
	{"cancel", case_cancel},
	{"arguments", case_arguments},
	{"misfit", case_misfit},
	{"barrier", case_barrier},
	{"any", case_any},
	{"broadcast", case_broadcast},
	{"fold", case_fold},
	{"gather", case_gather},
};

#endif
