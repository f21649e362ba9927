/*
 * check_shaped.c - emulated links: everything that a transport must do, and that nothing comes
 * earlier than they were declared. Ranks are threads.
 *
 * Another program may take the cores at any moment, so nothing is judged by being late. When
 * messages should come is in check_delays.c, to the microsecond.
 *
 * links: comm
 */
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/internal.h"
#include "tests/comm_cases.h"
#include "tests/faulty.h"
#include "tests/folder.h"
#include "tests/suite.h"

enum { TRIES = 20, RANKS_MOST = 5 };
#define MBIT_S 125000.0
#define NEVER_EARLY 1e-6	/* clocks are read before and after what they time */

/* -- links --------------------------------------------------------------------------------- */

/* All links of a world; shape[from][to] for so many ranks. */
struct links {
	struct shape shape[RANKS_MOST * RANKS_MOST];
	int size, nics;
};

static struct shape *link_of(struct links *links, int from, int to)
{
	return &links->shape[from * links->size + to];
}

static struct links uniform(int size, double bandwidth_bytes_s, double latency_s, int nic)
{
	struct links links = {.size = size, .nics = nic + 1};

	for (int i = 0; i < size * size; i++)
		links.shape[i] = (struct shape){bandwidth_bytes_s, latency_s, nic, nic, NULL};
	return links;
}

/* -- the shared cases ---------------------------------------------------------------------- */

struct shaped_case {
	struct links links;
	int (*work)(struct comm *comm, void *arg);
	void *arg;
};

static int in_shape(struct comm *comm, void *arg)
{
	struct shaped_case *one = arg;
	struct comm *shaped = comm_shaped_open(comm, one->links.shape, one->links.nics);
	int failures;

	if (!shaped)
		return 1;
	failures = one->work(shaped, one->arg);
	comm_close(shaped);
	return failures;
}

static int run_shaped(struct links links, int (*work)(struct comm *comm, void *arg), void *arg)
{
	struct shaped_case one = {links, work, arg};

	return comm_local_run(links.size, in_shape, &one);
}

/* Links alone, links through one interface that all share, nothing slowed down. */
static const struct {
	int size;
	double bandwidth_bytes_s, latency_s;
	int nic;
} worlds[] = {
	{1, 1e9, 3e-4, -1}, {2, 1e9, 3e-4, -1}, {5, 1e9, 3e-4, -1},
	{2, 2e9, 1e-4, 0}, {3, 2e9, 1e-4, 0}, {3, 0, 0, -1},
};

START_TEST(shared_case)
{
	const struct comm_case *one = &comm_cases[_i / COUNT(worlds)];
	int at = _i % COUNT(worlds);
	struct links links = uniform(worlds[at].size, worlds[at].bandwidth_bytes_s,
				     worlds[at].latency_s, worlds[at].nic);

	ck_assert_msg(run_shaped(links, one->work, NULL) == 0, "%s in world %d", one->name, at);
}
END_TEST

/* -- flows --------------------------------------------------------------------------------- */

enum { WINDOW = 4, FLOWS_MOST = 2, FLOW_MOST = 128 };

/* Messages one after the other, some under way at once. The receiver fills in the times. */
struct flow {
	int from, to, count;
	size_t bytes;
	double arrived_s[FLOW_MOST];	/* since the start */
};

struct flows {
	struct flow flow[FLOWS_MOST];
	int count;
	double start;		/* a time for all to start at, on the clock */
};

/* One end of a flow. */
struct end {
	struct flow *flow;
	bool sends;
	int started, done;
	struct comm_request request[WINDOW];
	unsigned char *data[WINDOW];
};

static int start_one(struct comm *comm, struct end *end, int tag)
{
	struct flow *flow = end->flow;
	int slot = end->started % WINDOW, index = end->started++;

	if (!end->sends)
		return comm_recv(comm, flow->from, tag, end->data[slot], flow->bytes,
				 &end->request[slot]);
	fill(end->data[slot], flow->bytes, flow->from, index);
	return comm_send(comm, flow->to, tag, end->data[slot], flow->bytes,
			 &end->request[slot]);
}

/* Starts and ends what it can. 1: something ended, 0: nothing, -1: an error. */
static int move_end(struct comm *comm, struct end *end, int tag, double start)
{
	struct flow *flow = end->flow;
	int done = 0;

	while (end->started < flow->count && end->started < end->done + WINDOW)
		if (start_one(comm, end, tag) < 0)
			return -1;
	if (end->done == end->started)
		return 0;
	done = comm_test(comm, &end->request[end->done % WINDOW]);
	if (done <= 0)
		return done;
	if (!end->sends) {
		flow->arrived_s[end->done] = clock_s() - start;
		if (!filled(end->data[end->done % WINDOW], flow->bytes, flow->from, end->done))
			return -1;
	}
	end->done++;
	return 1;
}

static int run_ends(struct comm *comm, struct end *end, int count, double start)
{
	bool under_way = true;

	while (under_way) {
		int moved = 0;

		under_way = false;
		for (int i = 0; i < count; i++) {
			int rc = move_end(comm, &end[i], i / 2, start);

			if (rc < 0)
				return -1;
			moved |= rc;
			under_way |= end[i].done < end[i].flow->count;
		}
		if (!moved)
			comm->ops->rest(comm, 5e-4);
	}
	return 0;
}

/* Runs what this rank has to do with the flows. */
static int run_flows(struct comm *comm, void *arg)
{
	struct flows *flows = arg;
	struct end end[FLOWS_MOST * 2] = {{0}};
	int failures = 0, count = flows->count * 2;

	for (int i = 0; i < count; i++) {
		struct flow *flow = &flows->flow[i / 2];

		end[i].sends = i % 2;
		end[i].flow = flow;
		if (comm->rank != (i % 2 ? flow->from : flow->to))
			end[i].done = end[i].started = flow->count;
		for (int slot = 0; slot < WINDOW; slot++)
			end[i].data[slot] = xalloc(flow->bytes);
	}
	must(comm_barrier(comm));
	clock_sleep(flows->start - clock_s());
	must(run_ends(comm, end, count, flows->start));
	must(comm_barrier(comm));
	for (int i = 0; i < count; i++)
		for (int slot = 0; slot < WINDOW; slot++)
			free(end[i].data[slot]);
	return failures;
}

static void measure(struct links links, struct flows *flows)
{
	flows->start = clock_s() + 0.02;
	ck_assert_int_eq(run_shaped(links, run_flows, flows), 0);
}

/* How long so many messages take by themselves; the last one is not earlier. */
static void not_before(const struct flow *flow, int index, double s)
{
	ck_assert_msg(flow->arrived_s[index] >= s - NEVER_EARLY, "message %d came after %.9g s, not %.9g", index,
		      flow->arrived_s[index], s);
}

/* -- rates --------------------------------------------------------------------------------- */

/* Both directions at once, each with a rate and a latency of its own. */
START_TEST(nothing_comes_early)
{
	struct flows flows = {{{.from = 0, .to = 1, .count = 30, .bytes = 20000},
			       {.from = 1, .to = 0, .count = 60, .bytes = 20000}}, 2, 0};
	struct links links = uniform(2, 40 * MBIT_S, 5e-3, -1);

	*link_of(&links, 1, 0) = (struct shape){80 * MBIT_S, 1e-3, -1, -1, NULL};
	measure(links, &flows);
	for (int i = 0; i < 30; i++)
		not_before(&flows.flow[0], i, (i + 1) * 20000 / (40 * MBIT_S) + 5e-3);
	for (int i = 0; i < 60; i++)
		not_before(&flows.flow[1], i, (i + 1) * 20000 / (80 * MBIT_S) + 1e-3);
}
END_TEST

/* The last of 2 x 25 messages, of whichever flow it is. */
static void not_before_all(const struct flows *flows)
{
	const struct flow *flow = flows->flow;

	not_before(&flow[flow[0].arrived_s[24] < flow[1].arrived_s[24]], 24, 50 * 20000 / (40 * MBIT_S) + 1e-3);
}

/* Ranks 0 and 1 send to rank 2 through one interface. */
START_TEST(interface_is_shared)
{
	struct flows flows = {{{.from = 0, .to = 2, .count = 25, .bytes = 20000},
			       {.from = 1, .to = 2, .count = 25, .bytes = 20000}}, 2, 0};
	struct links links = uniform(3, 0, 1e-3, -1);

	links.nics = 2;
	*link_of(&links, 0, 2) = (struct shape){40 * MBIT_S, 1e-3, -1, 1, NULL};
	*link_of(&links, 1, 2) = (struct shape){40 * MBIT_S, 1e-3, -1, 1, NULL};
	measure(links, &flows);
	not_before_all(&flows);
}
END_TEST

/* What one rank sends to two others leaves through its one interface. */
START_TEST(outgoing_interface_is_shared)
{
	struct flows flows = {{{.from = 0, .to = 1, .count = 25, .bytes = 20000},
			       {.from = 0, .to = 2, .count = 25, .bytes = 20000}}, 2, 0};
	struct links links = uniform(3, 0, 1e-3, -1);

	links.nics = 1;
	*link_of(&links, 0, 1) = (struct shape){40 * MBIT_S, 1e-3, 0, -1, NULL};
	*link_of(&links, 0, 2) = (struct shape){40 * MBIT_S, 1e-3, 0, -1, NULL};
	measure(links, &flows);
	not_before_all(&flows);
}
END_TEST

/* A second of 8 Mbit/s has room for 16 messages, the half second of 24 after it for 24. The trace starts when the transport
 * opens, a little before the flow. */
START_TEST(trace_is_followed)
{
	double rates[] = {8 * MBIT_S, 24 * MBIT_S};
	const struct link_trace trace = {2, rates};
	struct flows flows = {{{.to = 1, .count = 40, .bytes = 62500}}, 1, 0};
	struct links links = uniform(2, 0, 0, -1);

	link_of(&links, 0, 1)->trace = &trace;
	measure(links, &flows);
	not_before(&flows.flow[0], 7, 0.5 - 0.05);
	not_before(&flows.flow[0], 39, 1.5 - 0.05);
}
END_TEST

/* -- latency ------------------------------------------------------------------------------- */

enum { PINGS = 10 };
#define PING_S 8e-3

/* The time of sending goes along: threads have one clock. */
static int ping(struct comm *comm, void *arg)
{
	int failures = 0, other = 1 - comm->rank;

	(void)arg;
	for (int i = 0; i < 2 * PINGS; i++) {
		double sent = clock_s();

		if (i % 2 == comm->rank) {
			must(comm_send_now(comm, other, 1, &sent, sizeof sent));
			continue;
		}
		must(comm_recv_now(comm, other, 1, &sent, sizeof sent));
		expect(clock_s() - sent >= PING_S - NEVER_EARLY);
	}
	return failures;
}

START_TEST(latency_holds)
{
	ck_assert_int_eq(run_shaped(uniform(2, 0, PING_S, -1), ping, NULL), 0);
}
END_TEST

/* A send is done when its last byte has left, though nobody has received it, and though it is still on its way. */
struct leaving {
	double done_s;
	bool under_way;		/* when it was done */
};

static int leave_early(struct comm *comm, void *arg)
{
	struct leaving *leaving = arg;
	unsigned char *data = xalloc(62500);
	char go = 1;
	int failures = 0;
	double start;

	if (comm->rank == 0) {
		fill(data, 62500, 0, 0);
		start = clock_s();
		must(comm_send_now(comm, 1, 1, data, 62500));
		leaving->done_s = clock_s() - start;
		leaving->under_way = comm->ops->due(comm) < HUGE_VAL;
		memset(data, 0, 62500);		/* it is ours again */
		must(comm_send_now(comm, 1, 2, &go, 1));
	} else {
		must(comm_recv_now(comm, 0, 2, &go, 1));
		must(comm_recv_now(comm, 0, 1, data, 62500));
		expect(filled(data, 62500, 0, 0));
	}
	free(data);
	return failures;
}

START_TEST(send_is_done_when_it_has_left)
{
	struct leaving leaving = {0};

	/* Only whoever is kept from looking for 20 ms can miss that it is under way. */
	for (int try = 0; try < TRIES && !leaving.under_way; try++) {
		ck_assert_int_eq(run_shaped(uniform(2, 10 * MBIT_S, 20e-3, -1), leave_early,
					    &leaving), 0);
		ck_assert(leaving.done_s >= 0.05 - NEVER_EARLY);
	}
	ck_assert(leaving.under_way);
}
END_TEST

/* A rank that runs ahead is held after so many messages, or one more; not its collectives, nor what is received before
 * the others. Those before that go as soon as the cores let them; what is held is looked at for a while. */
enum { AHEAD = 30, HELD = 8, AHEAD_BYTES = 5000, LOOKS = 200, LOOKS_MOST = 40000 };

static int take_late(struct comm *comm, unsigned char *data)
{
	int failures = 0;

	must(comm_recv_now(comm, 0, 2, data, AHEAD_BYTES));
	expect(filled(data, AHEAD_BYTES, 0, AHEAD));
	must(comm_barrier(comm));
	for (int i = 0; i < AHEAD; i++) {
		must(comm_recv_now(comm, 0, 1, data, AHEAD_BYTES));
		expect(filled(data, AHEAD_BYTES, 0, i));
	}
	return failures;
}

static int run_ahead(struct comm *comm, unsigned char *data)
{
	struct comm_request request = {0};
	int failures = 0, sent = 0;

	for (; sent < AHEAD && !request.state; sent++) {
		fill(data, AHEAD_BYTES, 0, sent);
		must(comm_send(comm, 1, 1, data, AHEAD_BYTES, &request));
		for (int look = 0; look < (sent < HELD ? LOOKS_MOST : LOOKS) && !comm_test(comm, &request); look++)
			clock_sleep(5e-4);
	}
	expect(sent == HELD + 1 || sent == HELD + 2);
	fill(data, AHEAD_BYTES, 0, AHEAD);	/* sends are copies */
	must(comm_send_now(comm, 1, 2, data, AHEAD_BYTES));
	must(comm_barrier(comm));
	must(comm_wait(comm, &request));
	for (; sent < AHEAD; sent++) {
		fill(data, AHEAD_BYTES, 0, sent);
		must(comm_send_now(comm, 1, 1, data, AHEAD_BYTES));
	}
	return failures;
}

static int runs_ahead(struct comm *comm, void *arg)
{
	unsigned char *data = xalloc(AHEAD_BYTES);
	int failures = comm->rank == 0 ? run_ahead(comm, data) : take_late(comm, data);

	(void)arg;
	free(data);
	return failures;
}

START_TEST(window_is_finite)
{
	ck_assert_int_eq(run_shaped(uniform(2, 1e9, 1e-4, -1), runs_ahead, NULL), 0);
}
END_TEST

/* -- order, ends, costs -------------------------------------------------------------------- */

/* Large and small ones, all sent at once: none overtakes another of its pair. */
static int mixed(struct comm *comm, void *arg)
{
	static const size_t bytes[] = {100000, 1, 50000, 0, 4097, 30, 90000, 2};
	struct comm_request request[COUNT(bytes)] = {{0}};
	unsigned char *data[COUNT(bytes)];
	double before_s = 0, now, start = clock_s();
	size_t total = 0;
	int failures = 0;

	(void)arg;
	for (int i = 0; i < COUNT(bytes); i++) {
		data[i] = xalloc(bytes[i] + 1);
		fill(data[i], bytes[i], 0, i);
		must(comm->rank == 0
			? comm_send(comm, 1, 1, data[i], bytes[i], &request[i])
			: comm_recv(comm, 0, 1, memset(data[i], 0, bytes[i] + 1), bytes[i],
				    &request[i]));
	}
	for (int i = 0; i < COUNT(bytes); i++) {
		must(comm_wait(comm, &request[i]));
		now = clock_s() - start;
		total += bytes[i];
		expect(comm->rank == 0 || now >= before_s);
		expect(comm->rank == 1 || now >= (double)total / (80 * MBIT_S) - NEVER_EARLY);
		expect(filled(data[i], bytes[i], 0, i));
		before_s = now;
		free(data[i]);
	}
	return failures;
}

START_TEST(order_is_kept)
{
	ck_assert_int_eq(run_shaped(uniform(2, 80 * MBIT_S, 2e-3, -1), mixed, NULL), 0);
	ck_assert_int_eq(run_shaped(uniform(2, 80 * MBIT_S, 2e-3, 0), mixed, NULL), 0);
}
END_TEST

/* Rank 0 closes while all is still on the way. */
static int hurry(struct comm *comm, void *arg)
{
	struct comm_request request[3] = {{0}};
	static const size_t bytes[] = {10, 50000, 20};
	unsigned char data[3][50000];
	int failures = 0;

	(void)arg;
	for (int i = 0; i < 3; i++) {
		fill(data[i], bytes[i], 0, i);
		if (comm->rank == 0) {
			must(comm_send(comm, 1, 1, data[i], bytes[i], &request[i]));
			continue;
		}
		memset(data[i], 0, bytes[i]);
		must(comm_recv_now(comm, 0, 1, data[i], bytes[i]));
		expect(filled(data[i], bytes[i], 0, i));
	}
	return failures;
}

START_TEST(close_waits_for_the_last_message)
{
	ck_assert_int_eq(run_shaped(uniform(2, 40 * MBIT_S, 30e-3, -1), hurry, NULL), 0);
}
END_TEST

/* One rank aborts; the other, whose message is still on the way, sees its operations fail. */
static int aborted(struct comm *comm, void *arg)
{
	struct comm_request request = {0};
	char *data = xzalloc(100000, 1);
	int failures = 0;

	(void)arg;
	must(comm_barrier(comm));
	if (comm->rank == 1) {
		comm_abort(comm, EXIT_RETRY);
		expect(comm_send(comm, 0, 1, data, 1, &request) == -1);
	} else {
		expect(comm_recv_now(comm, 1, 1, data, 100000) == -1);
		expect(comm_send_now(comm, 1, 1, data, 100000) == -1 ||
		       comm_barrier(comm) == -1);
		clock_sleep(5e-3);
		expect(comm_test(comm, &request) == 1);
		expect(comm_send(comm, 1, 1, data, 1, &request) == -1);
		expect(comm_test(comm, &request) == -1);
	}
	free(data);
	return failures;
}

START_TEST(abort_ends_all)
{
	ck_assert_int_eq(run_shaped(uniform(2, 400 * MBIT_S, 1e-3, -1), aborted, NULL), 0);
}
END_TEST

static double cpu_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Waiting for a slow link costs no core, though something came that nobody asks for. */
static int idle(struct comm *comm, void *arg)
{
	struct comm_request request = {0};
	unsigned char *data = xzalloc(250000, 1), *other = xzalloc(20000, 1);
	int failures = 0;
	double start, start_cpu;

	(void)arg;
	if (comm->rank == 0)
		must(comm_recv(comm, 1, 2, other, 20000, &request));
	must(comm_barrier(comm));
	start = clock_s();
	start_cpu = cpu_s();
	if (comm->rank == 0)
		must(comm_send_now(comm, 1, 1, data, 250000));
	else
		must(comm_send_now(comm, 0, 2, other, 20000));
	expect(comm->rank == 1 || cpu_s() - start_cpu < 0.25 * (clock_s() - start));
	if (comm->rank == 1)
		must(comm_recv_now(comm, 0, 1, data, 250000));
	must(comm_wait(comm, &request));
	must(comm_barrier(comm));
	free(data);
	free(other);
	return failures;
}

START_TEST(waiting_is_cheap)
{
	struct links links = uniform(2, 0, 1e-3, -1);

	link_of(&links, 0, 1)->bandwidth_bytes_s = 5 * MBIT_S;
	ck_assert_int_eq(run_shaped(links, idle, NULL), 0);
}
END_TEST

/* Where the shared interfaces are in this process: their lock comes first. Null: not there. */
static pthread_mutex_t *find_lock(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long address = 0;
	char line[512];

	while (maps && !address && fgets(line, sizeof line, maps))
		if (strstr(line, "/dev/shm/edgepipe-"))
			address = strtoul(line, NULL, 16);
	if (maps)
		fclose(maps);
	return (pthread_mutex_t *)address;
}

/* A process that is killed while it holds the lock. */
static bool die_with_lock(pthread_mutex_t *lock)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		pthread_mutex_lock(lock);
		raise(SIGKILL);
	}
	return child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status);
}

/* A rank that dies while it reserves an interface takes nobody along. */
static int goes_on(struct comm *comm, void *arg)
{
	pthread_mutex_t *lock = find_lock();
	int failures = 0;

	(void)arg;
	expect(lock);
	for (int round = 0; round < 3 && lock; round++) {
		must(comm_barrier(comm));
		if (comm->rank == 0)
			expect(die_with_lock(lock));
		must(comm_barrier(comm));
	}
	return failures;
}

START_TEST(dead_ranks_hold_no_interface)
{
	ck_assert_int_eq(run_shaped(uniform(3, 1e9, 1e-4, 0), goes_on, NULL), 0);
	ck_assert_msg(!find_lock(), "the memory is still mapped");
}
END_TEST

/* Rank 1, whose own messages pass at once, hears its bell for one of rank 0 before it has looked for it; a wait for an old
 * count is over at once. */
static int rings(struct comm *comm, void *arg)
{
	struct bell *bell = comm->ops->bell(comm);
	uint32_t heard;
	char in = 0, out = 5;
	int failures = 0;

	(void)arg;
	if (comm->rank == 0) {
		must(comm_recv_now(comm, 1, 1, &in, 1));
		must(comm_send_now(comm, 1, 1, &out, 1));
		must(comm_recv_now(comm, 1, 2, &in, 1));
		return failures;
	}
	heard = bell_heard(bell);
	must(comm_send_now(comm, 0, 1, &out, 1));
	while (bell_heard(bell) == heard)
		bell_wait(bell, heard, 60);
	bell_wait(bell, heard, 1e6);
	must(comm_recv_now(comm, 0, 1, &in, 1));
	must(comm_send_now(comm, 0, 2, &in, 1));
	expect(in == 5);
	return failures;
}

START_TEST(message_rings_the_receivers_bell)
{
	struct links links = uniform(2, 0, 0, -1);

	link_of(&links, 0, 1)->latency_s = 1e-3;
	ck_assert_int_eq(run_shaped(links, rings, NULL), 0);
}
END_TEST

static int refused(struct comm *comm, void *arg)
{
	const struct links *links = arg;
	int failures = 0;

	error_hold();
	expect(comm_shaped_open(comm, links->shape, 1) == NULL);
	expect(error_code() == EXIT_BUG);
	expect(strstr(error_text(), "interfaces 3 and 3 of 1"));
	error_clear();
	must(comm_barrier(comm));	/* the inner one is still ours */
	return failures;
}

START_TEST(unknown_interface_is_refused)
{
	struct links links = uniform(2, 1e9, 0, 3);

	ck_assert_int_eq(comm_local_run(2, refused, &links), 0);
}
END_TEST

/* -- traces -------------------------------------------------------------------------------- */

static struct link_trace *read_text(const char *text)
{
	struct link_trace *trace;

	folder_open();
	ck_assert_int_eq(file_write(in_folder("trace.csv"), text, strlen(text)), 0);
	trace = link_trace_read(in_folder("trace.csv"));
	ck_assert_int_eq(folder_remove(folder), 0);
	return trace;
}

START_TEST(good_traces)
{
	static const char *const texts[] = {
		"0,8\n1,16.5\n2,1e1\n",
		"seconds,mbit_s\n0,8\n1,16.5\n2,10",
		"# a link\n\nseconds,mbit_s\r\n 17 , 8 \r\n18,16.5 # rain\r\n\t19,10\r\n \n#end",
	};

	for (int i = 0; i < COUNT(texts); i++) {
		struct link_trace *trace = read_text(texts[i]);

		ck_assert_msg(trace != NULL, "text %d", i);
		ck_assert_int_eq(trace->count, 3);
		ck_assert(trace->bytes_s[0] == 1e6);
		ck_assert(trace->bytes_s[1] == 16.5e6 / 8);
		ck_assert(trace->bytes_s[2] == 1.25e6);
		link_trace_free(trace);
	}
	link_trace_free(NULL);
}
END_TEST

static const struct {
	const char *text, *said;
} bad_traces[] = {
	{"", ":1: error: no rows"},
	{"seconds,mbit_s\n# nothing\n", ":3: error: no rows"},
	{"0,5\n2,5\n", ":2: error: a gap: second 2 comes after second 0"},
	{"0,5\n1,5\n1,5\n", ":3: error: second 1 comes after second 1"},
	{"4,5\n3,5\n", ":2: error: second 3 comes after second 4"},
	{"0,5\n1,0\n", ":2: error: the rate must be at least 0.001"},
	{"0,1e-300\n", ":1: error: the rate must be at least 0.001"},
	{"0,-1\n", ":1: error: the rate must be at least 0.001"},
	{"0,1e999\n", ":1: error: the rate must be at least 0.001"},
	{"0.5,1\n", ":1: error: the seconds must be whole"},
	{"-1,1\n", ":1: error: the seconds must be whole"},
	{"0,5\n1,fast\n", ":2: error: not a row"},
	{"0,nan\n", ":1: error: not a row"},
	{"0,0x10\n", ":1: error: not a row"},
	{"0,1e\n", ":1: error: not a row"},
	{"0\n", ":1: error: not a row"},
	{"0,\n", ":1: error: not a row"},
	{",5\n", ":1: error: not a row"},
	{"0;5\n", ":1: error: not a row"},
	{"0,5,6\n", ":1: error: not a row"},
	{"time,rate\n0,5\n", ":1: error: not a row"},
	{"0,5\nseconds,mbit_s\n", ":2: error: not a row"},
};

START_TEST(bad_trace)
{
	error_hold();
	ck_assert(read_text(bad_traces[_i].text) == NULL);
	ck_assert_int_eq(error_code(), EXIT_DATA);
	ck_assert_msg(strstr(error_text(), bad_traces[_i].said) != NULL, "case %d: %s", _i,
		      error_text());
	error_clear();
}
END_TEST

static int lines_of(const char *text)
{
	int lines = 0;

	for (; *text; text++)
		lines += *text == '\n';
	return lines;
}

START_TEST(all_errors_at_once)
{
	struct text text = {0};

	error_hold();
	ck_assert(read_text("0,5\nx\n1,0\n5,5\n6,5\n") == NULL);
	ck_assert_int_eq(lines_of(error_text()), 3);
	error_clear();
	for (int i = 0; i < 1000; i++)
		text_add(&text, "%d,0\n", i);
	error_hold();
	ck_assert(read_text(text.data) == NULL);
	ck_assert_int_eq(lines_of(error_text()), 21);
	error_clear();
	text_release(&text);
	error_hold();
	ck_assert(link_trace_read("/nowhere/trace.csv") == NULL);
	ck_assert_int_eq(error_code(), EXIT_INPUT);
	error_clear();
}
END_TEST

START_TEST(trace_ends)
{
	double rates[] = {100, 50, 200};
	const struct link_trace trace = {3, rates};
	static const struct {
		double start, bytes, end;
	} cases[] = {
		{0, 0, 0}, {1.25, 0, 1.25}, {0, 50, 0.5}, {0, 100, 1}, {0.5, 50, 1},
		{0.5, 75, 1.5}, {0, 150, 2}, {1.5, 125, 2.5}, {0, 350, 3},
		/* round again: 350 bytes every 3 s */
		{0, 400, 3.5}, {2.5, 200, 4}, {3, 100, 4}, {7.5, 125, 8.5}, {0, 700, 6},
		{2, 3500, 32}, {0, 3500 + 125, 31.5}, {300, 50, 300.5}, {1, 350e9 + 50, 3e9 + 2},
	};

	for (int i = 0; i < COUNT(cases); i++)
		ck_assert_msg(link_trace_end(&trace, cases[i].start, cases[i].bytes) ==
			      cases[i].end, "case %d: %.17g", i,
			      link_trace_end(&trace, cases[i].start, cases[i].bytes));
}
END_TEST

/* -- faults -------------------------------------------------------------------------------- */

enum { FAULTY_BYTES = 6000, FAULTY_COUNT = 4 };

/* What becomes of messages 0 to 3, in the order of their arrival. */
struct faulty_case {
	struct faulty fault;
	const char *arrive;
	bool link;		/* over an emulated one */
};

static int send_faulty(struct comm *comm, const struct faulty *fault)
{
	struct comm *bad = faulty_open(comm, fault);
	struct comm_request request[FAULTY_COUNT] = {{0}};
	unsigned char data[FAULTY_COUNT][FAULTY_BYTES];
	int failures = 0;

	for (int i = 0; i < FAULTY_COUNT; i++) {
		fill(data[i], FAULTY_BYTES, 0, i);
		must(comm_send(bad, 1, 5, data[i], FAULTY_BYTES, &request[i]));
	}
	for (int i = 0; i < FAULTY_COUNT; i++) {
		must(comm_wait(bad, &request[i]));
		expect(filled(data[i], FAULTY_BYTES, 0, i));
	}
	comm_close(bad);
	return failures;
}

static int receive_faulty(struct comm *comm, const struct faulty_case *one)
{
	const struct faulty *fault = &one->fault;
	unsigned char in[FAULTY_BYTES], other[FAULTY_BYTES];
	int failures = 0;

	for (const char *at = one->arrive; *at; at++) {
		int index = *at - '0';

		if (fault->kind == FAULT_SHORT && index == fault->nth) {
			error_hold();
			expect(comm_recv_now(comm, 0, 5, in, FAULTY_BYTES) == -1);
			expect(strstr(error_text(), "sent 100 bytes"));
			error_clear();
			continue;
		}
		must(comm_recv_now(comm, 0, 5, in, FAULTY_BYTES));
		fill(other, FAULTY_BYTES, 0, index);
		if (fault->kind == FAULT_FLIP && index == fault->nth)
			other[FAULTY_BYTES - 2] ^= 1;
		if (fault->kind == FAULT_TAIL && index == fault->nth)
			memset(other + 5000, 0, FAULTY_BYTES - 5000);
		expect(memcmp(in, other, FAULTY_BYTES) == 0);
	}
	comm_close(comm);
	return failures;
}

static int meets_fault(struct comm *comm, void *arg)
{
	const struct faulty_case *one = arg;
	struct links links = uniform(2, 1e8, 1e-4, -1);

	if (one->link)
		comm = comm_shaped_open(comm, links.shape, links.nics);
	if (!comm)
		return 1;
	return comm->rank == 0 ? send_faulty(comm, &one->fault) : receive_faulty(comm, one);
}

START_TEST(faults)
{
	struct faulty_case cases[] = {
		{{.kind = FAULT_NONE}, "0123", false},
		{{.kind = FAULT_FLIP, .nth = 1, .offset = -2}, "0123", false},
		{{.kind = FAULT_TAIL, .nth = 2, .offset = 5000}, "0123", false},
		{{.kind = FAULT_SHORT, .nth = 0, .offset = 100}, "0123", false},
		{{.kind = FAULT_DROP, .nth = 1}, "023", false},
		{{.kind = FAULT_TWICE, .nth = 1}, "01123", false},
		{{.kind = FAULT_TWICE, .nth = 3}, "01233", false},
		{{.kind = FAULT_SWAP, .nth = 1}, "0213", false},
		{{.kind = FAULT_SWAP, .nth = 3}, "0123", false},
	};

	for (int i = 0; i < COUNT(cases); i++) {
		struct faulty *fault = &cases[i].fault;

		fault->to = 1;
		fault->tag_from = 4;
		fault->tag_to = 5;
		ck_assert_msg(comm_local_run(2, meets_fault, &cases[i]) == 0, "case %d", i);
		cases[i].link = true;
		ck_assert_msg(comm_local_run(2, meets_fault, &cases[i]) == 0,
			      "case %d over a link", i);
	}
}
END_TEST

/* -- all of them --------------------------------------------------------------------------- */

static void add_links(Suite *suite)
{
	TCase *tcase = tcase_create("links");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, shared_case, 0, COUNT(comm_cases) * COUNT(worlds));
	tcase_add_test(tcase, nothing_comes_early);
	tcase_add_test(tcase, interface_is_shared);
	tcase_add_test(tcase, outgoing_interface_is_shared);
	tcase_add_test(tcase, trace_is_followed);
	tcase_add_test(tcase, latency_holds);
	tcase_add_test(tcase, send_is_done_when_it_has_left);
	tcase_add_test(tcase, window_is_finite);
	tcase_add_test(tcase, order_is_kept);
	tcase_add_test(tcase, close_waits_for_the_last_message);
	tcase_add_test(tcase, abort_ends_all);
	tcase_add_test(tcase, waiting_is_cheap);
	tcase_add_test(tcase, dead_ranks_hold_no_interface);
	tcase_add_test(tcase, message_rings_the_receivers_bell);
	tcase_add_test(tcase, unknown_interface_is_refused);
	suite_add_tcase(suite, tcase);
}

static Suite *suite(void)
{
	Suite *suite = suite_create("shaped");
	TCase *tcase = tcase_create("traces");

	add_links(suite);
	tcase_add_test(tcase, good_traces);
	tcase_add_loop_test(tcase, bad_trace, 0, COUNT(bad_traces));
	tcase_add_test(tcase, all_errors_at_once);
	tcase_add_test(tcase, trace_ends);
	tcase_add_test(tcase, faults);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return run_suite(suite());
}
