/*
 * launch/report.h - report.html: what a run did, for people, from the files of its directory alone. Read by report_read.c
 * (metrics.jsonl), report_plan.c (plan.json, config.resolved.yaml) and report_trace.c (trace.json); drawn by
 * report_loss.c, report_cluster.c, report_limits.c and gantt_svg.c; put together by report.c.
 */
#ifndef EDGEPIPE_LAUNCH_REPORT_H
#define EDGEPIPE_LAUNCH_REPORT_H

#include "launch/gantt.h"
#include "launch/launch.h"

/* Numbers over steps. */
struct curve {
	double *step, *value;
	int count;
};
/* What a stage did in a step: means over the steady ones (all but the first of the run). */
struct stage_measure { double forward_s, backward_s, idle_s, send_s, sent_bytes, peak_bytes; };

struct report {
	struct arena arena;
	const char *run;
	/* report_read.c */
	struct curve loss, valid, step_s;
	struct stage_measure *measure;	/* [measures] */
	int measures;
	double median_step_s, tokens_s, wall_s, predicted_step_s;	/* 0: not known */
	char time[32];			/* of the last start, UTC; "" */
	long long steps;		/* asked for; 0: not known */
	int code;			/* exit; -1: the run has not ended */
	/* report_plan.c; where planned is false, why is the reason */
	bool planned;
	char why[320];
	struct job job;
	struct model_config *model;
	struct lora *lora;
	struct profile *profile;
	struct json *file;		/* plan.json */
	struct plan *plan;
	struct problem problem;
	/* One step: as predicted, and as measured where one was traced. */
	bool has_predicted, has_measured;
	struct gantt predicted, measured;
	long long traced_step;
};

/* -- report_read.c, report_plan.c, report_trace.c ------------------------------------------ */

/* -1 after an error: there is no run, or its file is broken. */
int report_read(struct report *all);
/* What can be known; never fails. */
void report_read_plan(struct report *report);
void report_read_trace(struct report *report);

/* -- pictures ------------------------------------------------------------------------------ */

/* Of a report with a loss of training or validation. */
void report_loss(const struct report *report, struct text *text);
/* Of a report with a plan. */
void report_cluster(const struct report *report, struct text *text);
void report_limits(const struct report *report, struct text *text);
/* Seconds that the messages of a cut, in one direction, were on the link in a step. */
double gantt_sent_s(const struct gantt *gantt, int cut, bool backward);

#endif
