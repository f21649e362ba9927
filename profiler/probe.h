/*
 * profiler/probe.h - a stage that is run for its times alone: part of a model, of one size, on
 * random data.
 */
#ifndef EDGEPIPE_PROFILER_PROBE_H
#define EDGEPIPE_PROFILER_PROBE_H

#include "profiler/profiler.h"

enum part { PART_BLOCK, PART_EMBEDDING, PART_HEAD };

struct probe;
/* Null after an error. */
struct probe *probe_open(const struct compute_spec *spec, enum part part, int sequences,
			 int tokens);
/* How many of what is measured one run holds: blocks. */
int probe_parts(const struct compute_spec *spec, enum part part);
/* Memory of such a probe's stage. */
double probe_bytes(const struct compute_spec *spec, enum part part, int sequences, int tokens);
/* A forward and a backward of the next micro-batch, each held to the pace; seconds. */
void probe_run(struct probe *probe, double *forward_s, double *backward_s);
/* Seconds of an optimizer's update of all its adapters. */
double probe_update(struct probe *probe);
void probe_close(struct probe *probe);
/* FLOP/s of a large product in the precision that trains, held to the pace. */
double probe_matmul(const struct compute_spec *spec);

#endif
