/*
 * bench/measure.h - what gemm.c and shapes.c share: OpenBLAS as the program has it, and spans that
 * can be trusted.
 */
#ifndef EDGEPIPE_BENCH_MEASURE_H
#define EDGEPIPE_BENCH_MEASURE_H

#include "tensor/tensor.h"

#include <stdlib.h>
#include <unistd.h>

#define LONG_ENOUGH_S 0.05 /* a span that can be trusted */

/* OpenBLAS reads its core when it is loaded: start again with the one that `edgepipe` takes. */
static inline void settle_blas(char **argv)
{
	const char *core = blas_better_core();

	if (!core)
		return;
	setenv("OPENBLAS_CORETYPE", core, 1);
	execv("/proc/self/exe", argv);
}

/* Seconds of one run: as many as it takes for a span that can be trusted. *times is how many that
 * were the last time, 1 at first. */
static inline double seconds_of(void (*run)(void *arg), void *arg, long *times)
{
	for (;; *times *= 2) {
		double start = clock_s(), span;

		for (long i = 0; i < *times; i++)
			run(arg);
		span = clock_s() - start;
		if (span >= LONG_ENOUGH_S)
			return span / (double)*times;
	}
}

static inline size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

#endif
