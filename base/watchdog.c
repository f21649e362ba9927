/*
 * watchdog.c - a thread that looks whether the process still gets on, and takes the signals that ask it to end.
 *
 * Whoever works says in which section he is; a section that lasts far longer than it ever did is a hang: a peer that
 * stopped, a lost message. What is usual is learnt as it goes: the longest that a section of this kind has taken. While
 * there is nothing to compare with, patience is long: a first micro-batch also pages a model in.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base.h"

#define LEAST_S 10.0
#define FACTOR 5.0
#define FIRST_FACTOR 60.0		/* times the least, where nothing is usual yet */
#define LOOK_S 0.25
enum { KINDS = 32 };

struct watchdog {
	struct watchdog_calls calls;
	double least_s;			/* 0: off */
	pthread_t thread;
	pthread_mutex_t lock;		/* for all below */
	struct watchdog_section now;
	double since_s;			/* 0: in no section */
	double usual_s[KINDS];
	bool stop;
};

/* EDGEPIPE_HANG_TIMEOUT: seconds in place of LEAST_S; 0: off, for debuggers. */
static double least_of_environment(void)
{
	const char *text = getenv("EDGEPIPE_HANG_TIMEOUT");
	char *end;
	double value;

	if (!text || !*text)
		return LEAST_S;
	value = strtod(text, &end);
	if (*end || !(value >= 0)) {
		warn("EDGEPIPE_HANG_TIMEOUT: \"%s\" is not a number of seconds; %g are taken", text,
		     LEAST_S);
		return LEAST_S;
	}
	return value;
}

static void signals_of(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
}

static double deadline_s(const struct watchdog *w)
{
	double usual_s = w->usual_s[w->now.kind];
	double least_s = w->now.patience * w->least_s;

	if (usual_s <= 0)
		return FIRST_FACTOR * least_s;
	return FACTOR * usual_s > least_s ? FACTOR * usual_s : least_s;
}

/* Copies the section when it has lasted too long. */
static bool is_late(struct watchdog *w, struct watchdog_section *section, double *lasted_s)
{
	bool late;

	pthread_mutex_lock(&w->lock);
	*lasted_s = clock_s() - w->since_s;
	late = w->least_s > 0 && w->since_s > 0 && *lasted_s > deadline_s(w);
	*section = w->now;
	pthread_mutex_unlock(&w->lock);
	return late;
}

/* If this thread itself was not run for a while, the process was stopped, and nobody else is to blame. */
static void forgive(struct watchdog *w, double gap_s)
{
	if (gap_s < 4 * LOOK_S)
		return;
	pthread_mutex_lock(&w->lock);
	if (w->since_s > 0)
		w->since_s = clock_s();
	pthread_mutex_unlock(&w->lock);
}

static bool stopped(struct watchdog *w)
{
	bool stop;

	pthread_mutex_lock(&w->lock);
	stop = w->stop;
	pthread_mutex_unlock(&w->lock);
	return stop;
}

static void *watch(void *arg)
{
	struct watchdog *w = arg;
	const struct timespec look = {0, (long)(LOOK_S * 1e9)};
	struct watchdog_section section;
	double lasted_s;
	double looked_s = clock_s();
	sigset_t set;
	int signal;

	signals_of(&set);
	while (!stopped(w)) {
		signal = sigtimedwait(&set, NULL, &look);
		forgive(w, clock_s() - looked_s);
		looked_s = clock_s();
		if (signal > 0 && !stopped(w))
			w->calls.signalled(w->calls.arg, signal);
		if (is_late(w, &section, &lasted_s))
			w->calls.expired(w->calls.arg, &section, lasted_s);
	}
	return NULL;
}

struct watchdog *watchdog_open(const struct watchdog_calls *calls)
{
	struct watchdog *w = xzalloc(1, sizeof(*w));
	sigset_t set;
	int rc;

	w->calls = *calls;
	w->least_s = least_of_environment();
	pthread_mutex_init(&w->lock, NULL);
	signals_of(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	rc = pthread_create(&w->thread, NULL, watch, w);
	if (rc) {
		pthread_sigmask(SIG_UNBLOCK, &set, NULL);
		pthread_mutex_destroy(&w->lock);
		free(w);
		return error_null(EXIT_RETRY, "cannot start the watchdog: %s", strerror(rc));
	}
	return w;
}

void watchdog_enter(struct watchdog *w, const struct watchdog_section *section)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->now = *section;
	w->since_s = clock_s();
	pthread_mutex_unlock(&w->lock);
}

void watchdog_leave(struct watchdog *w)
{
	double lasted_s;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	lasted_s = w->since_s > 0 ? clock_s() - w->since_s : 0;
	if (lasted_s > w->usual_s[w->now.kind])
		w->usual_s[w->now.kind] = lasted_s;
	w->since_s = 0;
	pthread_mutex_unlock(&w->lock);
}

void watchdog_close(struct watchdog *w)
{
	sigset_t set;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	signals_of(&set);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	pthread_mutex_destroy(&w->lock);
	free(w);
}
