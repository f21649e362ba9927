/*
 * bell.c - a counter that a thread sleeps on until another one rings: futex(2), so it works
 * between processes too that share its memory. No ring is missed: read the counter, look at
 * what there is to do, then wait for another count.
 */
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "comm/internal.h"

uint32_t bell_heard(const struct bell *bell)
{
	return atomic_load(&bell->count);
}

void bell_ring(struct bell *bell)
{
	atomic_fetch_add(&bell->count, 1);
	syscall(SYS_futex, &bell->count, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void bell_wait(struct bell *bell, uint32_t heard, double s)
{
	struct timespec most = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};

	if (s > 0)
		syscall(SYS_futex, &bell->count, FUTEX_WAIT, heard, &most, NULL, 0);
}
