/*
 * watchdog.c - a thread that looks whether the process still gets on, and takes the signals
 * that ask it to end.
 *
 * Whoever works says in which section he is; a section that lasts far longer than it ever did
 * is a hang: a peer that stopped, a lost message. What is usual is learnt as it goes: the
 * longest that a section of this kind has taken. While a kind is new there is little to compare
 * with: then everything else that was seen so far counts, and what the kind may take by its
 * nature, which only its owner can know.
 *
 * Sections nest: an outer one lasts anew whenever an inner one was entered or left, since then
 * the process got on.
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
#define NEW_FACTOR 3.0			/* times the least, while a kind is new */
#define LOOK_S 0.25
enum { KINDS = 32, DEPTH = 8 };
/* sections of a kind until it is no longer new: the first ones may wait for nothing */
enum { NEW = 4 };

struct watchdog {
	struct watchdog_calls calls;
	double least_s;			/* 0: off */
	pthread_t thread;
	pthread_mutex_t lock;		/* for all below */
	struct watchdog_section section[DEPTH];	/* innermost last */
	int depth;			/* 0: in no section */
	double since_s;			/* when the innermost one began, or one in it ended */
	int seen[KINDS];
	double usual_s[KINDS], expected_s[KINDS];
	double longest_s;		/* of all kinds */
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
		warn("EDGEPIPE_HANG_TIMEOUT: \"%s\" is not a number of seconds; %g are taken",
		     text, LEAST_S);
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

static double larger(double a, double b)
{
	return a > b ? a : b;
}

static const struct watchdog_section *innermost(const struct watchdog *w)
{
	return &w->section[(w->depth < DEPTH ? w->depth : DEPTH) - 1];
}

static double deadline_s(const struct watchdog *w)
{
	const struct watchdog_section *now = innermost(w);
	double least_s = now->patience * w->least_s;

	if (w->seen[now->kind] >= NEW)
		return larger(least_s, FACTOR * w->usual_s[now->kind]);
	return larger(larger(NEW_FACTOR * least_s, FACTOR * w->longest_s),
		      w->expected_s[now->kind]);
}

/* What the innermost section has taken since it last got on is usual from now on. Under the
 * lock. */
static void book(struct watchdog *w, double now_s)
{
	double lasted_s = now_s - w->since_s;
	int kind;

	w->since_s = now_s;
	if (w->depth == 0)
		return;
	kind = innermost(w)->kind;
	w->usual_s[kind] = larger(w->usual_s[kind], lasted_s);
	w->longest_s = larger(w->longest_s, lasted_s);
	w->seen[kind] += w->seen[kind] < NEW;
}

/* Copies the section when it has lasted too long. */
static bool is_late(struct watchdog *w, struct watchdog_section *section, double *lasted_s)
{
	bool late;

	pthread_mutex_lock(&w->lock);
	*lasted_s = clock_s() - w->since_s;
	late = w->least_s > 0 && w->depth > 0 && *lasted_s > deadline_s(w);
	if (late)
		*section = *innermost(w);
	pthread_mutex_unlock(&w->lock);
	return late;
}

/* If this thread itself was not run for a while, the process was stopped, and nobody else is to
 * blame. */
static void forgive(struct watchdog *w, double gap_s)
{
	if (gap_s < 4 * LOOK_S)
		return;
	pthread_mutex_lock(&w->lock);
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

void watchdog_expect(struct watchdog *w, int kind, double s)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->expected_s[kind] = s;
	pthread_mutex_unlock(&w->lock);
}

void watchdog_enter(struct watchdog *w, const struct watchdog_section *section)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	book(w, clock_s());
	if (w->depth < DEPTH)
		w->section[w->depth] = *section;
	w->depth++;
	pthread_mutex_unlock(&w->lock);
}

void watchdog_leave(struct watchdog *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	book(w, clock_s());
	w->depth -= w->depth > 0;
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
