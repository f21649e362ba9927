/*
 * measure.c - all ranks measure themselves and the links between them, with the threads, the transport and, where there
 * are some, the declared paces that training would have.
 *
 * Nodes that have cores of their own, real or by a quota, compute at the same time, as they will when they train. Ranks
 * that play nodes on one machine (emulate.compute) do so in turns, as many at a time as there are cores for: training
 * holds them to declared speeds, so none must be slowed down by another.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch/session.h"

#define ALONE_S 10.0		/* for computing, where all nodes do so at once */
#define TURNS_S 24.0		/* for all turns together, within the next two for each */
#define TURN_LEAST_S 3.0
#define TURN_MOST_S 8.0
#define HELD_SHARE 0.3		/* of a turn that nodes take whose ops are paced: all samples agree soon */
#define SAMPLE_S 0.2		/* a message that no longer one comes after */
#define HELD_SAMPLE_S 0.06	/* the same where links are exact */
enum { VIGIL_TAG = 61 };

struct measure {
	struct session *session;
	struct profile *profile;
	int turns, done, all;		/* turns of computing; of progress */
	double box_s;			/* for computing, of a turn */
	double turn_s, round_s, began_s;	/* for the ETA: what each takes; of the one under way */
	bool apart;			/* links that share nothing */
};

/* -- progress ------------------------------------------------------------------------------ */

/* What is left, if turns and rounds take as long as the last ones did; before the first one, as long as they may. */
static void progress(struct measure *m, const char *what)
{
	int rounds = m->all - m->turns;
	double now = clock_s(), left;

	if (m->done > 0)
		*(m->done <= m->turns ? &m->turn_s : &m->round_s) = now - m->began_s;
	left = fmax(m->turns - m->done, 0) * m->turn_s + fmin(m->all - m->done, rounds) * m->round_s;
	say("profile %2d/%d | %s | ETA %.0fs", m->done + 1, m->all, what, ceil(left));
	m->began_s = now;
	m->done++;
}

static void round_begins(void *arg, int round, int rounds)
{
	char what[64];

	snprintf(what, sizeof(what), "links, round %d of %d", round + 1, rounds);
	progress(arg, what);
}

/* -- computing ----------------------------------------------------------------------------- */

static bool same_host(const struct session *s, int a, int b)
{
	return !strcmp(s->facts[a].hardware.host, s->facts[b].hardware.host);
}

/* When a rank computes: as soon as there are cores for it. */
static int turn_of(const struct session *s, int rank)
{
	int turn = 0, used = 0;

	for (int i = 0; s->job.emulate.compute && i <= rank; i++) {
		if (!same_host(s, i, rank))
			continue;
		if (used > 0 && used + s->facts[i].threads > s->facts[i].hardware.cores) {
			turn++;
			used = 0;
		}
		used += s->facts[i].threads;
	}
	return turn;
}

/* Whether the ranks that compute at this one's turn want more cores than there are: then a moment says little, and an
 * op's mean time is what it takes. */
static bool crowded(const struct session *s)
{
	int rank = s->comm->rank, wanted = 0;

	for (int i = 0; i < s->comm->size; i++)
		if (same_host(s, i, rank) && turn_of(s, i) == turn_of(s, rank))
			wanted += s->facts[i].threads;
	return wanted > s->facts[rank].hardware.cores;
}

static int measure_node(struct measure *m)
{
	const struct session *s = m->session;
	const struct rank_facts *facts = &s->facts[s->comm->rank];
	struct node_profile *node = &m->profile->node[s->comm->rank];
	double quota = facts->hardware.quota_cpus;
	struct compute_spec spec = {
		.device = s->device,
		.dtype = facts->dtype,
		.recompute = (enum recompute)s->job.train.recompute,
		.plain = s->job.train.weights == WEIGHTS_PLAIN,
		.model = s->model,
		.weights = s->weights,
		.lora = s->lora,
		.tokens = s->data.tokens,
		.batch = s->job.train.batch,
		.micro_batch = s->job.train.micro_batch,
		.pace_flops = node->held_flops / m->profile->key.slowdown,
		.box_s = m->box_s,
		/* Above 0 also where the process alone takes all that there is: 0 would mean any. */
		.memory_bytes = facts->memory_limit_bytes > 0 ?
				fmax(facts->memory_limit_bytes - facts->overhead_bytes, 1) : 0,
		.throttled = (quota > 0 && quota < facts->threads + 0.5) || crowded(s),
	};

	return compute_measure(&spec, node);
}

static void turn_begins(struct measure *m, int turn)
{
	const struct session *s = m->session;
	struct text text = {0};

	if (m->turns == 1)
		text_add(&text, "every node");
	for (int i = 0; m->turns > 1 && i < s->comm->size; i++)
		if (turn_of(s, i) == turn)
			text_add(&text, "%s%s", text.bytes ? ", " : "", m->profile->node[i].name);
	text_add(&text, ": blocks, head, embedding");
	progress(m, text.data);
	text_release(&text);
}

/* A receive to which nothing comes until all have measured keeps the thread that passes messages at work, as in training:
 * a server that has a fifth of a core feels that. */
struct vigil {
	struct comm_request waits, tells;
	char heard, told;
};

static int vigil_begin(const struct session *s, struct vigil *v)
{
	int next = (s->comm->rank + 1) % s->comm->size;

	if (s->comm->size == 1)
		return 0;
	return comm_recv(s->comm, next, VIGIL_TAG, &v->heard, 1, &v->waits) ? EXIT_RETRY : 0;
}

static int vigil_end(const struct session *s, struct vigil *v)
{
	int before = (s->comm->rank + s->comm->size - 1) % s->comm->size;

	if (s->comm->size == 1)
		return 0;
	return comm_send(s->comm, before, VIGIL_TAG, &v->told, 1, &v->tells) || comm_wait(s->comm, &v->waits) ||
	       comm_wait(s->comm, &v->tells) ? EXIT_RETRY : 0;
}

/* Every node in its turn. */
static int take_turns(struct measure *m)
{
	struct session *s = m->session;
	int mine = turn_of(s, s->comm->rank), code = 0;

	for (int turn = 0; turn < m->turns && !code; turn++) {
		turn_begins(m, turn);
		if (comm_barrier(s->comm))
			return EXIT_RETRY;
		code = session_agree(s, turn == mine ? measure_node(m) : 0);
	}
	return code;
}

static int measure_nodes(struct measure *m)
{
	struct vigil v = {0};
	int code = vigil_begin(m->session, &v);

	if (code)
		return code;
	code = take_turns(m);
	/* Where the transport has failed, nobody comes any more. */
	return code == EXIT_RETRY || vigil_end(m->session, &v) ? EXIT_RETRY : code;
}

/* -- links --------------------------------------------------------------------------------- */

static int measure_links(struct measure *m)
{
	struct session *s = m->session;
	int ranks = s->comm->size, status;
	bool *near = xzalloc((size_t)ranks, sizeof(*near));
	struct links_spec spec = {
		.comm = s->comm,
		.near = near,
		.apart = m->apart,
		.sample_s = m->apart ? HELD_SAMPLE_S : SAMPLE_S,
		.progress = round_begins,
		.progress_arg = m,
	};
	struct link_profile *row = &m->profile->link[s->comm->rank * ranks];

	for (int i = 0; i < ranks; i++)
		near[i] = same_host(s, i, s->comm->rank);
	status = links_measure(&spec, row);
	free(near);
	return status ? EXIT_RETRY : 0;
}

/* -- all ----------------------------------------------------------------------------------- */

/* What every rank found, on every rank. */
static int share(struct measure *m)
{
	struct session *s = m->session;
	size_t ranks = (size_t)s->comm->size;

	for (int i = 0; i < s->comm->size; i++)
		if (comm_broadcast(s->comm, i, &m->profile->node[i], sizeof(*m->profile->node)) ||
		    comm_broadcast(s->comm, i, profile_link(m->profile, i, 0), ranks * sizeof(*m->profile->link)))
			return EXIT_RETRY;
	return 0;
}

static int measure_all(struct session *s, void *arg)
{
	struct measure *m = arg;
	int code = measure_nodes(m);

	if (!code && s->comm->size > 1)
		code = measure_links(m);
	return code ? code : share(m);
}

/* Whether no two links pass one interface, as far as it is known: those that are held to declared numbers. */
static bool links_apart(const struct session *s)
{
	for (int i = 0; i < s->comm->size; i++)
		if (cluster_nic(&s->job.cluster, i, false) >= 0)
			return false;
	return s->job.emulate.links;
}

static void schedule(struct measure *m)
{
	const struct session *s = m->session;
	int ranks = s->comm->size;

	for (int i = 0; i < ranks; i++)
		m->turns = turn_of(s, i) + 1 > m->turns ? turn_of(s, i) + 1 : m->turns;
	m->box_s = m->turns == 1 ? ALONE_S : fmin(fmax(TURNS_S / m->turns, TURN_LEAST_S), TURN_MOST_S);
	m->turn_s = s->job.emulate.compute ? HELD_SHARE * m->box_s : m->box_s;
	m->apart = links_apart(s);
	m->round_s = m->apart ? 2 : 1 + 2.5 * (ranks / 2);
	m->all = m->turns + links_rounds(ranks);
}

/* The numbers as they stand in the file, so that a plan does not depend on whether they were written and read. */
static struct profile *settled(const struct profile *profile)
{
	struct text text = {0};
	struct profile *same;

	profile_write(profile, &text);
	same = profile_parse(text.data, text.bytes, "profile.json");
	text_release(&text);
	return same;
}

int measure_cluster(struct session *s)
{
	struct measure m = {.session = s};
	int code;

	m.profile = profile_wanted(&s->job, s->model, s->lora, s->data.tokens, s->facts);
	code = session_agree(s, m.profile ? 0 : -1);
	if (!code) {
		schedule(&m);
		hardware_gpus(&m.profile->node[s->comm->rank].hardware);
		code = wire_aside(s, measure_all, &m);
	}
	if (!code) {
		s->profile = settled(m.profile);
		code = session_agree(s, s->profile ? 0 : -1);
	}
	profile_free(m.profile);
	return code;
}
