/*
 * watch.c - how a run ends before its time: a hang, or a signal; and who says how to go on.
 *
 * When a rank dies, mpirun sends SIGTERM to the others. The lowest rank that is left on rank 0's machine then says how
 * the run goes on; ranks elsewhere cannot know whether somebody else does, and are silent.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launch/session.h"

/* Until the launcher has passed on what was said: it drops what comes with an exit. */
#define FLUSH_S 0.3

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
	char micro[32] = "", peer[160] = "";

	if (section->micro >= 0)
		snprintf(micro, sizeof(micro), " micro-batch %d", section->micro);
	if (section->peer)
		snprintf(peer, sizeof(peer), " (%s)", section->peer);
	fprintf(stderr, "edgepipe: rank %d: error: step %lld: %s%s%s for %.0f s, far longer than "
		"usual: giving up\n", w->rank, section->step, section->what, micro, peer, lasted_s);
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

/* "edgepipe: to go on: mpirun -np 5 edgepipe train FILE --out DIR --set .. --resume" */
static char *words_of(const struct session *s)
{
	struct text text = {0};
	char *words;

	text_add(&text, "edgepipe: the run can go on: ");
	if (s->comm->size > 1)
		text_add(&text, "mpirun -np %d ", s->comm->size);
	text_add(&text, "edgepipe train %s --out %s", s->options.topology, s->run);
	for (int i = 0; i < s->options.set_count; i++)
		text_add(&text, " --set %s", s->options.set[i]);
	text_add(&text, " --resume");
	words = xcopy(text.data);
	text_release(&text);
	return words;
}

int watch_learn(struct watch *w, struct session *s)
{
	char run[1024] = "";

	if (s->comm->rank == 0)
		snprintf(run, sizeof(run), "%s", s->run);
	if (comm_broadcast(s->comm, 0, run, sizeof(run)))
		return -1;
	if (!w)
		return 0;
	if (s->comm->rank != 0)
		s->run = xcopy(run);
	pthread_mutex_lock(&w->lock);
	w->rank = s->comm->rank;
	w->words = words_of(s);
	w->elder = xzalloc((size_t)s->comm->size, sizeof(*w->elder));
	w->near = !strcmp(s->facts[w->rank].hardware.host, s->facts[0].hardware.host);
	for (int i = 0; i < w->rank; i++)
		if (!strcmp(s->facts[i].hardware.host, s->facts[0].hardware.host))
			w->elder[w->elders++] = s->facts[i].pid;
	pthread_mutex_unlock(&w->lock);
	return 0;
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
