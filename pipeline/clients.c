/*
 * clients.c - what a step takes where several clients share one pipeline of servers.
 *
 *     client 0  --up-->           (micro-batches 0, 3, 6, ...)
 *     client 1  --up-->  stage 0  --->  stage 1  ---> ...
 *     client 2  --up-->           (and back, on links of their own)
 *
 * Devices and link directions are serial, as in simulate.c, and like there the next job that
 * starts earliest is fixed again and again. A device decides what it computes from its room
 * alone, so that no schedule has to be written down: the strict order is forwards until as many
 * are in flight as there is room, then a backward and a forward in turn; the greedy one takes a
 * backward that is there first.
 */
#include "pipeline/pipeline.h"

#include <math.h>

/* A client or a server: its n-th micro-batch is first + n * stride. */
struct seat {
	int first, stride, count;
	int room, forward, backward;	/* done so far */
	double forward_s, backward_s, free_s;
	/* [micro_batches]: when a micro-batch's activations and gradient are there; INFINITY:
	 * not known yet. */
	double *activations, *gradient;
	bool last;
};

/* A direction of a link: carries micro-batches first, first + stride, ... */
struct lane {
	int first, stride, count, next;
	double occupied_s, latency_s, free_s;
	int nic[2];
	double *sent, *arrives;		/* [micro_batches]; arrives is the receiving seat's */
};

struct crowd {
	struct arena arena;
	int micro_batches, clients, seats, lanes;
	struct seat *seat;		/* clients, then servers */
	struct lane *lane;
	double *nic_free_s;
	/* what rounding may put apart counts as the same instant */
	double patience_s;
	bool greedy;
};

static double *unknown(struct crowd *crowd)
{
	double *s = arena_take(&crowd->arena, (size_t)crowd->micro_batches * sizeof(*s));

	for (int m = 0; m < crowd->micro_batches; m++)
		s[m] = INFINITY;
	return s;
}

/* How many of first, first + stride, ... are below all. */
static int share(int all, int first, int stride)
{
	return all > first ? (all - first + stride - 1) / stride : 0;
}

static void open_seat(struct crowd *crowd, int index, double forward_s, double backward_s,
		      int room)
{
	bool client = index < crowd->clients;
	struct seat *seat = &crowd->seat[index];

	*seat = (struct seat){
		.first = client ? index : 0,
		.stride = client ? crowd->clients : 1,
		.room = room,
		.forward_s = forward_s,
		.backward_s = backward_s,
		.activations = unknown(crowd),
		.gradient = unknown(crowd),
		.last = index == crowd->seats - 1,
	};
	seat->count = share(crowd->micro_batches, seat->first, seat->stride);
	if (!client && (crowd->clients || index > 0))
		return;
	for (int m = 0; m < crowd->micro_batches; m++)
		seat->activations[m] = 0;	/* the data is there */
}

static struct lane *open_lane(struct crowd *crowd, int client, double occupied_s,
			      double latency_s, double *sent, double *arrives)
{
	struct lane *lane = &crowd->lane[crowd->lanes++];

	*lane = (struct lane){
		.first = client < 0 ? 0 : client,
		.stride = client < 0 ? 1 : crowd->clients,
		.occupied_s = occupied_s,
		.latency_s = latency_s,
		.nic = {-1, -1},
		.sent = sent,
		.arrives = arrives,
	};
	lane->count = share(crowd->micro_batches, lane->first, lane->stride);
	return lane;
}

static void set_nics(struct lane *lane, const int (*nics)[2], int cut)
{
	for (int i = 0; nics && i < 2; i++)
		lane->nic[i] = nics[cut][i];
}

/* -- play ---------------------------------------------------------------------------------- */

/* What is fixed next: a lane's message, or else what a seat computes. */
struct choice {
	double start_s, ready_s;
	struct lane *lane;
	struct seat *seat;
	bool backward;
};

static void consider_lane(const struct crowd *crowd, struct lane *lane, struct choice *best)
{
	struct choice choice = {.lane = lane};
	int micro = lane->first + lane->next * lane->stride;

	if (lane->next == lane->count || isinf(lane->sent[micro]))
		return;
	choice.ready_s = fmax(lane->sent[micro], lane->free_s);
	choice.start_s = choice.ready_s;
	for (int i = 0; i < 2; i++)
		if (lane->nic[i] >= 0)
			choice.start_s = fmax(choice.start_s, crowd->nic_free_s[lane->nic[i]]);
	if (choice.start_s < best->start_s ||
	    (choice.start_s == best->start_s && choice.ready_s < best->ready_s))
		*best = choice;
}

static void consider_seat(const struct crowd *crowd, struct seat *seat, struct choice *best)
{
	bool forward =
	    seat->forward < seat->count && seat->forward - seat->backward < seat->room;
	double f = INFINITY, b = INFINITY;
	struct choice choice = {.seat = seat};

	if (forward)
		f = fmax(seat->free_s,
			 seat->activations[seat->first + seat->forward * seat->stride]);
	if (seat->backward < seat->forward && (crowd->greedy || !forward))
		b = fmax(seat->free_s,
			 seat->gradient[seat->first + seat->backward * seat->stride]);
	choice.backward = b <= f + crowd->patience_s;
	choice.start_s = choice.backward ? b : f;
	if (choice.start_s + crowd->patience_s < best->start_s)
		*best = choice;
}

static void carry(struct crowd *crowd, struct lane *lane, double start_s)
{
	int micro = lane->first + lane->next * lane->stride;

	lane->free_s = start_s + lane->occupied_s;
	lane->arrives[micro] = lane->free_s + lane->latency_s;
	lane->next++;
	for (int i = 0; i < 2; i++)
		if (lane->nic[i] >= 0)
			crowd->nic_free_s[lane->nic[i]] = lane->free_s;
}

/* sent_forward[seat], sent_backward[seat]: where the lanes look for what a seat has
 * computed. */
struct outbox { double **forward, **backward; };

static void compute(struct crowd *crowd, const struct outbox *out, const struct choice *choice)
{
	struct seat *seat = choice->seat;
	long index = seat - crowd->seat;
	int done = choice->backward ? seat->backward++ : seat->forward++;
	int micro = seat->first + done * seat->stride;

	seat->free_s =
	    choice->start_s + (choice->backward ? seat->backward_s : seat->forward_s);
	if (choice->backward)
		out->backward[index][micro] = seat->free_s;
	else if (seat->last)
		seat->gradient[micro] = seat->free_s;
	else
		out->forward[index][micro] = seat->free_s;
}

static double play(struct crowd *crowd, const struct outbox *out)
{
	double end_s = 0;

	for (;;) {
		struct choice choice = {.start_s = INFINITY};

		for (int i = 0; i < crowd->lanes; i++)
			consider_lane(crowd, &crowd->lane[i], &choice);
		for (int i = 0; i < crowd->seats; i++)
			consider_seat(crowd, &crowd->seat[i], &choice);
		if (isinf(choice.start_s))
			return end_s;
		if (choice.lane) {
			carry(crowd, choice.lane, choice.start_s);
			continue;
		}
		compute(crowd, out, &choice);
		end_s = fmax(end_s, choice.seat->free_s);
	}
}

/* -- who sits where ------------------------------------------------------------------------ */

static void seat_all(struct crowd *crowd, const struct costs *servers,
		     const struct clients *clients, const int *room, struct outbox *out)
{
	size_t seats = (size_t)crowd->seats;

	crowd->seat = arena_take(&crowd->arena, seats * sizeof(*crowd->seat));
	crowd->lane = arena_take(&crowd->arena, 2 * seats * sizeof(*crowd->lane));
	crowd->nic_free_s = arena_take(&crowd->arena, (size_t)servers->nics * sizeof(double));
	out->forward = arena_take(&crowd->arena, seats * sizeof(*out->forward));
	out->backward = arena_take(&crowd->arena, seats * sizeof(*out->backward));
	for (int i = 0; i < crowd->seats; i++) {
		int s = i - crowd->clients;

		out->forward[i] = unknown(crowd);
		out->backward[i] = unknown(crowd);
		if (s < 0)
			open_seat(crowd, i, clients->forward_s[i], clients->backward_s[i],
				  room[i]);
		else
			open_seat(crowd, i, servers->forward_s[s], servers->backward_s[s],
				  room[i]);
		crowd->patience_s = fmax(crowd->patience_s, 1e-9 * (crowd->seat[i].forward_s +
								    crowd->seat[i].backward_s));
	}
}

static void link_all(struct crowd *crowd, const struct costs *servers,
		     const struct clients *clients, const struct outbox *out)
{
	int first = crowd->clients;

	for (int c = 0; c < crowd->clients; c++)
		set_nics(open_lane(crowd, c, clients->up_s[c], clients->latency_up_s[c],
				   out->forward[c], crowd->seat[first].activations),
			 clients->nic_up, c);
	for (int s = 0; s < servers->stages - 1; s++)
		set_nics(open_lane(crowd, -1, servers->link_forward_s[s],
				   servers->latency_forward_s[s], out->forward[first + s],
				   crowd->seat[first + s + 1].activations),
			 servers->nic_forward, s);
	for (int c = 0; c < crowd->clients; c++)
		set_nics(open_lane(crowd, c, clients->down_s[c], clients->latency_down_s[c],
				   out->backward[first], crowd->seat[c].gradient),
			 clients->nic_down, c);
	for (int s = 0; s < servers->stages - 1; s++)
		set_nics(open_lane(crowd, -1, servers->link_backward_s[s],
				   servers->latency_backward_s[s], out->backward[first + s + 1],
				   crowd->seat[first + s].gradient),
			 servers->nic_backward, s);
}

double simulate_clients(const struct costs *servers, const struct clients *clients,
			int micro_batches, const int *room, bool greedy)
{
	struct crowd crowd = {
		.micro_batches = micro_batches,
		.clients = clients->count,
		.seats = clients->count + servers->stages,
		.greedy = greedy,
	};
	struct outbox out;
	double step_s;

	seat_all(&crowd, servers, clients, room, &out);
	link_all(&crowd, servers, clients, &out);
	step_s = play(&crowd, &out);
	arena_release(&crowd.arena);
	return step_s;
}
