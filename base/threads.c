/*
 * base/threads.c - a pool of threads that wait passively, after a moment.
 *
 * Passively, because the thread that talks to MPI needs the core that a spinning worker would
 * burn. After a moment, because one run follows the other within microseconds while a step is
 * computed, and to put a core to sleep and wake it up again takes longer than that. A worker
 * that wakes up late simply finds the run closed: pool_run waits for those that took part, not
 * for all.
 */
#include "base/base.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* How long a thread looks for the others before it sleeps. */
#define MOMENT_S 50e-6

struct worker {
	struct pool *pool;
	pthread_t handle;
	int thread;
};

struct pool {
	int threads;			/* with the calling thread, which is number 0 */
	struct worker *workers;		/* threads - 1 */
	pthread_mutex_t lock;		/* to write what is below, next aside */
	pthread_cond_t start, done;
	bool stop;
	bool open;			/* a run may be joined */
	atomic_uint run;		/* its number */
	atomic_int active;		/* workers inside the run */
	int count;
	void (*work)(void *arg, int index, int thread);
	void *arg;
	atomic_llong next;		/* wider than count: every thread takes one too many */
};

static void take_all(struct pool *pool, int thread)
{
	long long index;

	while ((index = atomic_fetch_add(&pool->next, 1)) < pool->count)
		pool->work(pool->arg, (int)index, thread);
}

/* Whether the moment that began then lasts. */
static bool lasts(double start)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
	return clock_s() - start < MOMENT_S;
}

/* Joins the first run after *seen that is still open. False: there will be none. */
static bool join(struct pool *pool, unsigned *seen)
{
	for (bool open = false; !open;) {
		double start = clock_s();

		while (atomic_load(&pool->run) == *seen && lasts(start))
			;
		pthread_mutex_lock(&pool->lock);
		while (!pool->stop && pool->run == *seen)
			pthread_cond_wait(&pool->start, &pool->lock);
		if (pool->stop) {
			pthread_mutex_unlock(&pool->lock);
			return false;
		}
		*seen = pool->run;
		open = pool->open;
		pool->active += open;
		pthread_mutex_unlock(&pool->lock);
	}
	return true;
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	struct pool *pool = worker->pool;
	unsigned seen = 0;

	while (join(pool, &seen)) {
		take_all(pool, worker->thread);
		pthread_mutex_lock(&pool->lock);
		if (--pool->active == 0 && !pool->open)
			pthread_cond_signal(&pool->done);
		pthread_mutex_unlock(&pool->lock);
	}
	return NULL;
}

/* Starts the workers with all signals blocked: those belong to the main thread. */
static int start_workers(struct pool *pool, int threads)
{
	sigset_t all, before;
	int rc = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (rc == 0 && pool->threads < threads) {
		struct worker *worker = &pool->workers[pool->threads - 1];

		*worker = (struct worker){.pool = pool, .thread = pool->threads};
		rc = pthread_create(&worker->handle, NULL, worker_main, worker);
		if (rc == 0)
			pool->threads++;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc != 0)
		return error(EXIT_RETRY, "cannot start thread %d of %d: %s", pool->threads + 1,
			     threads, strerror(rc));
	return 0;
}

struct pool *pool_open(int threads)
{
	struct pool *pool = xzalloc(1, sizeof *pool);

	if (threads < 1)
		threads = 1;
	pool->threads = 1;
	pool->workers = xzalloc((size_t)threads, sizeof *pool->workers);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->start, NULL);
	pthread_cond_init(&pool->done, NULL);
	if (start_workers(pool, threads) < 0) {
		pool_close(pool);
		return NULL;
	}
	return pool;
}

void pool_run(struct pool *pool, int count, void (*work)(void *arg, int index, int thread),
	      void *arg)
{
	if (pool->threads == 1 || count <= 1) {
		for (int index = 0; index < count; index++)
			work(arg, index, 0);
		return;
	}

	pthread_mutex_lock(&pool->lock);
	pool->work = work;
	pool->arg = arg;
	pool->count = count;
	atomic_store(&pool->next, 0);
	pool->open = true;
	pool->run++;
	pthread_cond_broadcast(&pool->start);
	pthread_mutex_unlock(&pool->lock);

	take_all(pool, 0);

	pthread_mutex_lock(&pool->lock);
	pool->open = false;
	pthread_mutex_unlock(&pool->lock);

	double start = clock_s();

	while (atomic_load(&pool->active) > 0 && lasts(start))
		;
	pthread_mutex_lock(&pool->lock);
	while (pool->active > 0)
		pthread_cond_wait(&pool->done, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
}

int pool_threads(const struct pool *pool)
{
	return pool->threads;
}

void pool_close(struct pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->start);
	pthread_mutex_unlock(&pool->lock);
	for (int i = 0; i + 1 < pool->threads; i++)
		pthread_join(pool->workers[i].handle, NULL);
	pthread_cond_destroy(&pool->done);
	pthread_cond_destroy(&pool->start);
	pthread_mutex_destroy(&pool->lock);
	free(pool->workers);
	free(pool);
}
