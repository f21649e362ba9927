/*
 * watch.c - how a run ends before its time: a hang, or a signal; and who says how to go on.
 *
 * When a rank dies, mpirun sends SIGTERM to the others. The lowest rank that is left on rank 0's machine then says how
 * the run goes on; ranks elsewhere cannot know whether somebody else does, and are silent.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launch/session.h"

/* Until the launcher has passed on what was said: it drops what comes with an exit. */
#define FLUSH_S 0.3

/* What a core and a link reach that one would still train with, and what a prediction may be wrong by: for the first
 * waits of a run, which have no others to be compared with. */
#define SLOW_FLOPS 5e9
#define SLOW_BYTES_S 250e3
#define NEW_FACTOR 3.0

struct watch {
	struct watchdog *watchdog;
	pthread_mutex_t lock;		/* for what follows */
	int rank;
	char *words;			/* null: there is nothing to go on with */
	bool near;			/* on rank 0's machine */
	int elders;			/* lower ranks on it */
	pid_t *elder;
};

/* Whether a lower rank on this machine is still there to speak. */
static bool elder_lives(const struct watch *w)
{
	for (int i = 0; i < w->elders; i++)
		if (kill(w->elder[i], 0) == 0 || errno == EPERM)
			return true;
	return false;
}

static void speak(struct watch *w)
{
	pthread_mutex_lock(&w->lock);
	if (w->words && w->near && !elder_lives(w)) {
		fprintf(stderr, "%s\n", w->words);
		fflush(stderr);
	}
	pthread_mutex_unlock(&w->lock);
}

static void expired(void *arg, const struct watchdog_section *section, double lasted_s)
{
	struct watch *w = arg;
	char step[40] = "", micro[32] = "", peer[160] = "";

	if (section->step >= 0)
		snprintf(step, sizeof(step), "step %lld: ", section->step);
	if (section->micro >= 0)
		snprintf(micro, sizeof(micro), " micro-batch %d", section->micro);
	if (section->peer)
		snprintf(peer, sizeof(peer), " (%s)", section->peer);
	fprintf(stderr, "edgepipe: rank %d: error: %s%s%s%s for %.0f s, far longer than usual: "
		"giving up\n", w->rank, step, section->what, micro, peer, lasted_s);
	fflush(stderr);
	if (w->rank == 0)
		speak(w);
	clock_sleep(FLUSH_S);
	_exit(EXIT_RETRY);
}

static void signalled(void *arg, int signal)
{
	speak(arg);
	clock_sleep(FLUSH_S);
	_exit(128 + signal);
}

struct watch *watch_open(void)
{
	struct watch *w = xzalloc(1, sizeof(*w));
	struct watchdog_calls calls = {expired, signalled, w};

	pthread_mutex_init(&w->lock, NULL);
	w->watchdog = watchdog_open(&calls);
	if (!w->watchdog) {
		free(w);
		return NULL;
	}
	return w;
}

struct watchdog *watch_dog(struct watch *w)
{
	return w ? w->watchdog : NULL;
}

/* An argument as a POSIX shell reads it back. */
static void add_quoted(struct text *text, const char *argument)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./=:,+-";

	if (*argument && !argument[strspn(argument, plain)]) {
		text_add(text, " %s", argument);
		return;
	}
	text_add(text, " '");
	for (const char *p = argument; *p; p++)
		if (*p == '\'')
			text_add(text, "'\\''");
		else
			text_put(text, p, 1);
	text_add(text, "'");
}

/* "edgepipe: the run can go on: mpirun -np 5 edgepipe train FILE --out DIR --set .. --resume" */
static char *words_of(const struct session *s)
{
	struct text text = {0};
	char *words;

	text_add(&text, "edgepipe: the run can go on: ");
	if (s->comm->size > 1)
		text_add(&text, "mpirun -np %d ", s->comm->size);
	text_add(&text, "edgepipe train");
	add_quoted(&text, s->options.topology);
	text_add(&text, " --out");
	add_quoted(&text, s->run);
	for (int i = 0; i < s->options.set_count; i++) {
		text_add(&text, " --set");
		add_quoted(&text, s->options.set[i]);
	}
	text_add(&text, " --resume");
	words = xcopy(text.data);
	text_release(&text);
	return words;
}

/* Rank 0's run directory on all ranks, where there is one. */
static int share_run(struct session *s)
{
	uint64_t bytes = s->comm->rank == 0 && s->run ? strlen(s->run) + 1 : 0;

	if (comm_broadcast(s->comm, 0, &bytes, sizeof(bytes)))
		return -1;
	if (!bytes)
		return 0;
	if (s->comm->rank != 0)
		s->run = xzalloc(bytes, 1);
	return comm_broadcast(s->comm, 0, s->run, bytes);
}

int watch_learn(struct watch *w, struct session *s)
{
	if (share_run(s))
		return -1;
	if (!w)
		return 0;
	pthread_mutex_lock(&w->lock);
	w->rank = s->comm->rank;
	w->words = s->run ? words_of(s) : NULL;
	w->elder = xzalloc((size_t)s->comm->size, sizeof(*w->elder));
	w->near = !strcmp(s->facts[w->rank].hardware.host, s->facts[0].hardware.host);
	for (int i = 0; i < w->rank; i++)
		if (!strcmp(s->facts[i].hardware.host, s->facts[0].hardware.host))
			w->elder[w->elders++] = s->facts[i].pid;
	pthread_mutex_unlock(&w->lock);
	return 0;
}

static double larger(double a, double b)
{
	return a > b ? a : b;
}

/* What one micro-batch may need through all stages and back, where machines and links are slow. */
static double through_s(const struct session *s)
{
	const struct plan *plan = &s->plan;
	double tokens = (double)plan->micro_batch * s->data.tokens, flops = model_head_flops(s->model), bytes = 0;

	for (int i = 0; i < plan->stages; i++)
		flops += plan->stage[i].blocks * (model_block_flops(s->model, s->data.tokens) +
				 model_block_again_flops(s->model, s->data.tokens, s->problem.recompute));
	for (int i = 0; i + 1 < plan->stages; i++)
		bytes += plan->link[i].bytes_forward + plan->link[i].bytes_backward;
	return flops * tokens / SLOW_FLOPS + bytes / SLOW_BYTES_S;
}

void watch_expect(struct watch *w, const struct session *s, const struct places *places)
{
	static const int passing[] = {WATCH_ACTIVATIONS, WATCH_GRADIENTS, WATCH_SEND, WATCH_NORM, WATCH_SETTLE};
	struct watchdog *dog = watch_dog(w);
	double predicted_s = NEW_FACTOR * s->plan.step_s;
	double one_s = larger(through_s(s), predicted_s);
	double all_s = larger(s->plan.micro_batches * through_s(s), predicted_s);
	double batch = (double)s->plan.micro_batches * s->plan.micro_batch;
	double valid_s = ceil((double)s->data.valid_samples / batch) * all_s;
	double state_bytes = 3.0 * sizeof(float) * (double)s->lora->elements;
	bool has_stage = places->stage >= 0;

	for (size_t i = 0; i < sizeof(passing) / sizeof(*passing); i++)
		watchdog_expect(dog, passing[i], one_s);
	/* Who has no stage sees nothing of a step or a validation but its end; rank 0 sends data a batch ahead. */
	watchdog_expect(dog, WATCH_VERDICT, has_stage ? one_s : all_s);
	watchdog_expect(dog, WATCH_VALID, has_stage ? one_s : valid_s);
	watchdog_expect(dog, WATCH_DATA, s->comm->rank == 0 ? all_s : one_s);
	watchdog_expect(dog, WATCH_STATE, state_bytes / SLOW_BYTES_S);
	/* A rank that computes is alive; whether it does, those who wait for it have to say. */
	watchdog_expect(dog, WATCH_COMPUTE, INFINITY);
}

const char *watch_words(const struct watch *w)
{
	return w ? w->words : NULL;
}

void watch_close(struct watch *w)
{
	if (!w)
		return;
	watchdog_close(w->watchdog);
	pthread_mutex_destroy(&w->lock);
	free(w->words);
	free(w->elder);
	free(w);
}
