/*
 * base/clock.c - time: one clock that never jumps, a sleep, and a stamp for file names.
 */
#include "base/base.h"

#include <errno.h>
#include <time.h>

double clock_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Sleeps until a point in time, not for a span: a signal in between must not make it longer. */
void clock_sleep(double s)
{
	struct timespec until;

	if (!(s > 0))
		return;
	if (s > 1e9)
		s = 1e9;
	clock_gettime(CLOCK_MONOTONIC, &until);
	time_t whole = (time_t)s;
	until.tv_sec += whole;
	until.tv_nsec += (long)((s - (double)whole) * 1e9);
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

void clock_stamp(char *buffer, size_t bytes)
{
	time_t now = time(NULL);
	struct tm utc;

	if (bytes == 0)
		return;
	if (!gmtime_r(&now, &utc) || strftime(buffer, bytes, "%Y%m%dT%H%M%SZ", &utc) == 0)
		buffer[0] = '\0';
}
