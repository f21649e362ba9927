/*
 * profiler/internal.h - the readers of /proc and of control groups, which take the folder that
 * stands for "/" so that a test can hand them another machine.
 */
#ifndef EDGEPIPE_PROFILER_INTERNAL_H
#define EDGEPIPE_PROFILER_INTERNAL_H

#include "profiler/profiler.h"

/* -- files.c ------------------------------------------------------------------------------- */

/* The first bytes of ROOT/path into buffer, ended by a NUL; false, silently, where it cannot be
 * read. ROOT is "" for the real machine. */
bool peek(const char *root, const char *path, char *buffer, size_t bytes);
/* The number after "key" and a separator at the start of a line; false: no such line. */
bool peek_number(const char *text, const char *key, double *value);

/* -- proc.c -------------------------------------------------------------------------------- */

/* Memory from /proc/meminfo; what is not there stays as it is. */
void meminfo_read(const char *root, double *total_bytes, double *free_bytes);
/* The words of struct hardware's isa, from /proc/cpuinfo; "" where it says nothing. */
void isa_read(const char *root, char *isa, size_t bytes);

/* -- cgroup.c ------------------------------------------------------------------------------ */

/* What the control groups of this process leave it. INFINITY: no limit. */
struct allowance {
	double cpus;			/* cores' worth of time */
	double memory_bytes;		/* the tightest limit */
	double memory_free_bytes;	/* what the tightest one leaves now */
};
void cgroup_read(const char *root, struct allowance *allowance);

#endif
