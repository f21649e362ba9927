/*
 * links.c - every ordered pair of ranks: how late a small message is, what a large one takes,
 * alone, with the other direction busy as well, and with disjoint pairs busy as well.
 *
 * In rounds, as a tournament is played: in each, every rank has one partner (or none, where
 * their number is odd), and after the last one everybody has met everybody. Pairs of a round
 * are measured one after the other, then all at once; where links are held to declared numbers
 * and share no interface, they cannot disturb each other: then at once only, and what that does
 * to a link is not measured.
 */
#include "profiler/flow.h"
#include "profiler/profiler.h"

#include <math.h>
#include <stdlib.h>

enum { TIMES_MOST = 12, SIZES_LEAST = 2, TRIES = 2, TAG_AGAIN = 51 };
#define LESS 0.9		/* of sample_s: long enough */
#define LATE 0.5		/* of a sample: more than that is not taken for its latency */
#define SHORT_S 0.02		/* shorter ones are repeated more often */

struct links {
	const struct links_spec *spec;
	struct link_profile *row;
	struct pair_end pair;		/* of this round */
};

/* -- the tournament ------------------------------------------------------------------------ */

int links_rounds(int ranks)
{
	return ranks < 2 ? 0 : ranks % 2 ? ranks : ranks - 1;
}

/* The partner in a round (the circle method); -1: none. */
static int partner(int rank, int round, int ranks)
{
	int places = ranks + ranks % 2, last = places - 1, other;

	if (rank == last)
		other = round;
	else if (rank == round)
		other = last;
	else
		other = ((2 * round - rank) % last + last) % last;
	return other < ranks ? other : -1;
}

/* -- one direction ------------------------------------------------------------------------- */

static size_t whole_frames(double bytes)
{
	size_t frames =
	    (size_t)(fmin(fmax(bytes, 1), (double)FLOW_MOST) / (double)FLOW_FRAME + 0.5);

	return (frames ? frames : 1) * FLOW_FRAME;
}

/* What takes about this long at a rate. */
static size_t bytes_for(double bytes_s, double s)
{
	return bytes_s > 0 ? whole_frames(bytes_s * s) : FLOW_MOST;
}

/* One size, more often where it is short; the median, of two the shorter. */
static int time_size(struct links *l, size_t bytes, double *s)
{
	double time[5];
	size_t nothing;
	int count = 0, repeats = 1;

	for (; count < repeats; count++) {
		if (pair_flow(&l->pair, bytes, &time[count], &nothing))
			return -1;
		if (count == 0)
			repeats = time[0] < SHORT_S		    ? 5
				  : time[0] < l->spec->sample_s / 2 ? 3
								    : 2;
	}
	for (int i = 1; i < count; i++)
		for (int k = i; k > 0 && time[k] < time[k - 1]; k--) {
			double swap = time[k];

			time[k] = time[k - 1];
			time[k - 1] = swap;
		}
	*s = time[(count - 1) / 2];
	return 0;
}

/* Sizes that grow until one takes long enough. *fastest: the best rate that any of them
 * reached. */
static int time_sizes(struct links *l, double latency_s, struct timing *timing, int *count,
		      double *most, double *fastest)
{
	size_t bytes = FLOW_LEAST;
	double s = 0;

	for (*count = 0; *count < TIMES_MOST; ) {
		if (time_size(l, bytes, &s))
			return -1;
		/* The latency comes once, however much is sent: it has been measured. */
		timing[(*count)++] = (struct timing){
		    .n = (double)bytes, .s = fmax(s - latency_s, 0.01 * s), .weight = 1};
		*most = (double)bytes;
		*fastest = fmax(*fastest, (double)bytes / fmax(s - latency_s, (1 - LATE) * s));
		if (bytes >= FLOW_MOST ||
		    (s >= LESS * l->spec->sample_s && *count >= SIZES_LEAST))
			break;
		bytes = whole_frames((double)bytes * fmin(fmax(l->spec->sample_s / s, 2), 8));
	}
	return 0;
}

/* Ends the peer's serving. */
static int send_end(struct links *l)
{
	size_t nothing;
	double s;

	return pair_flow(&l->pair, 0, &s, &nothing);
}

static int serve(struct links *l)
{
	double s;
	size_t bytes = 1;

	if (pair_ping(&l->pair, false, &s))
		return -1;
	while (bytes > 0)
		if (pair_flow(&l->pair, 0, &s, &bytes))
			return -1;
	return 0;
}

static int measure(struct links *l, struct link_profile *link)
{
	struct timing timing[TIMES_MOST];
	struct fit fit;
	double most = 0, fastest = 0;
	int count;

	if (pair_ping(&l->pair, true, &link->latency_s) ||
	    time_sizes(l, link->latency_s, timing, &count, &most, &fastest) || send_end(l))
		return -1;
	fit = fit_samples(timing, count);
	link->origin = ORIGIN_MEASURED;
	/* Samples that disagree may leave next to nothing that grows with the bytes: no rate is
	 * measured that none had. */
	link->bandwidth_bytes_s = fit.c1 > 1 / fastest ? 1 / fit.c1 : fastest;
	link->bytes = most;
	link->error = fit.error;
	link->noisy = fit.noisy;
	return 0;
}

/* From this rank to its partner; once more where it was noisy. The partner serves as often. */
static int measure_direction(struct links *l, bool sends)
{
	struct link_profile first = {0}, *link = &l->row[l->pair.peer];
	int again = 0;

	if (sends ? measure(l, link) : serve(l))
		return -1;
	first = *link;
	again = sends && link->noisy;
	if (sends ? comm_send_now(l->spec->comm, l->pair.peer, TAG_AGAIN, &again, sizeof again)
		  : comm_recv_now(l->spec->comm, l->pair.peer, TAG_AGAIN, &again, sizeof again))
		return -1;
	if (again && (sends ? measure(l, link) : serve(l)))
		return -1;
	if (again && sends && first.error < link->error)
		*link = first;
	return 0;
}

/* -- a pair -------------------------------------------------------------------------------- */

static bool is_lower(const struct links *l)
{
	return l->spec->comm->rank < l->pair.peer;
}

/* Bytes/s of a flow to the partner, who sends as well, or waits. The best of a few: a moment in
 * which somebody else had the core would look like a link that is shared. */
static int rate_to(struct links *l, bool sends, double *bytes_s)
{
	struct link_profile *link = &l->row[l->pair.peer];
	size_t out = sends ? bytes_for(link->bandwidth_bytes_s, l->spec->sample_s) : 0, in;

	for (int i = 0; i < TRIES; i++) {
		double s = 0;

		if (pair_flow(&l->pair, out, &s, &in))
			return -1;
		s = fmax(s - link->latency_s, 0.01 * s);
		if (sends && s > 0)
			*bytes_s = fmax(*bytes_s, (double)out / s);
	}
	return 0;
}

/* Each direction alone, then both together. */
static int measure_pair(struct links *l)
{
	return measure_direction(l, is_lower(l)) || measure_direction(l, !is_lower(l)) ||
	       rate_to(l, true, &l->row[l->pair.peer].both_bytes_s) ? -1 : 0;
}

/* While the other pairs of the round do the same: one direction, then the other. */
static int measure_disjoint(struct links *l)
{
	double *rate = &l->row[l->pair.peer].disjoint_bytes_s;

	return rate_to(l, is_lower(l), rate) || rate_to(l, !is_lower(l), rate) ? -1 : 0;
}

/* -- a round ------------------------------------------------------------------------------- */

static int pairs_in(int ranks)
{
	return ranks / 2;
}

/* Pair after pair, in the order of their lower ranks; everybody waits for everybody. */
static int measure_in_turns(struct links *l, int round)
{
	struct comm *comm = l->spec->comm;

	for (int rank = 0; rank < comm->size; rank++) {
		int other = partner(rank, round, comm->size);

		if (other < rank)
			continue;
		if ((comm->rank == rank || comm->rank == other) && measure_pair(l))
			return -1;
		if (comm_barrier(comm))
			return -1;
	}
	return 0;
}

static int run_round(struct links *l, int round)
{
	struct comm *comm = l->spec->comm;
	int peer = partner(comm->rank, round, comm->size), status = 0;

	if (peer >= 0)
		pair_open(&l->pair, comm, peer, l->spec->near[peer]);
	if (!l->spec->apart)
		status = measure_in_turns(l, round);
	else if (peer >= 0)
		status = measure_pair(l);
	if (!status)
		status = comm_barrier(comm);
	if (!status && peer >= 0 && !l->spec->apart && pairs_in(comm->size) > 1)
		status = measure_disjoint(l);
	if (peer >= 0)
		pair_close(&l->pair);
	return status;
}

int links_measure(const struct links_spec *spec, struct link_profile *row)
{
	struct links l = {.spec = spec, .row = row};
	int rounds = links_rounds(spec->comm->size);

	for (int round = 0; round < rounds; round++) {
		if (spec->progress)
			spec->progress(spec->progress_arg, round, rounds);
		if (run_round(&l, round))
			return -1;
	}
	return 0;
}
