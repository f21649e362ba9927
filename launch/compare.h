/*
 * launch/compare.h - what the files of `edgepipe compare` share: what was asked (compare_options.c), the setting
 * (compare.c), a chain of so many servers (compare_chain.c), the step that it takes (compare_row.c), and how the rows are
 * written (compare_write.c, compare_svg.c).
 */
#ifndef EDGEPIPE_LAUNCH_COMPARE_H
#define EDGEPIPE_LAUNCH_COMPARE_H

#include "launch/launch.h"

enum { CHOICES_MAX = 16 };

/* How a chain's blocks lie: whole and as even as can be, FLOPs in equal shares whatever that cuts, or as the planner
 * likes them best. */
enum split { SPLIT_BLOCKS, SPLIT_FRACTIONAL, SPLIT_PLANNED };

struct compare_options {
	const char *topology, *json, *csv, *svg;
	int hops_first, hops_last;	/* 0: not asked */
	const char *schedule[CHOICES_MAX], *codec[CHOICES_MAX];	/* a codec that is null: as the file says */
	int micro_batches[CHOICES_MAX];
	int schedules, codecs, sizes;	/* how many of each */
	int micro_batch;		/* sequences */
	double efficiency, tokens;	/* tokens 0: not asked */
	int split;
	const char **set;
	int set_count;
};

/* One of the curves: what stays the same while hops are added. */
struct compare_case {
	const char *codec, *schedule;	/* codec null: as the file says */
	int micro_batches;
};

/* A server of a chain and what it holds. */
struct compare_stage {
	int node;			/* in file order */
	int first_block, blocks;	/* of the whole model; fractional: 0, 0 */
	double share;			/* of the model's FLOPs */
	int codec_forward, codec_backward;	/* of the cut after it, where its link leaves that to the planner */
};

struct compare_row {
	int hops;
	struct compare_case of;
	double step_s, total_s;		/* 0: cannot run, and why */
	char bottleneck[160], why[320];
	struct compare_stage *stage;	/* [hops] */
};

/* What is compared. */
struct comparison {
	struct compare_options asked;
	struct job job;
	struct cluster servers;		/* the servers alone, at the rate that is achieved */
	int *node;			/* [servers]: their places in the file */
	int *client;			/* [clients]: likewise */
	int clients, client_blocks;
	struct model_config *model;	/* whole; */
	struct model_config rest;	/* what clients leave to the servers */
	struct lora *lora;		/* of the rest */
	int tokens;			/* of a sequence */
	double slowdown;
	int *threads;			/* per server, as the two next */
	double *memory_limit_bytes, *overhead_bytes;
	struct compare_row *row;
	int rows, best;			/* best: index, -1: no row can run */
	struct arena arena;
};

/* -- compare_options.c --------------------------------------------------------------------- */

/* 0, 1 for --help, -1 after errors. Lists are filled with their defaults where those do not need the file. */
int compare_options_read(struct compare_options *options, int argc, char **argv);
extern const char compare_help[];
const char *split_name(int split);

/* -- compare_chain.c ----------------------------------------------------------------------- */

/* A chain of servers, behind clients where there are any, with what it costs; all of it from one arena. */
struct chain {
	struct compare_stage *stage;	/* [hops] */
	struct costs costs;		/* points to the next six, [hops] each */
	double *forward_s, *backward_s, *link_forward_s, *link_backward_s, *latency_forward_s, *latency_backward_s;
	struct clients clients;
	int *room;			/* [clients + hops]: in flight */
	double planned_s;		/* the step by the planner's own simulation; 0: none */
};
/* -1 after an error (held or said): memory, stages that no block is left for. */
int chain_make(struct chain *chain, struct arena *arena, const struct comparison *c, int hops,
	       const struct compare_case *of);

/* -- compare_row.c ------------------------------------------------------------------------- */

/* Fills step_s, total_s, bottleneck and stage of a row, or why. */
void compare_row_fill(struct comparison *c, struct compare_row *row);

/* -- compare_write.c, compare_svg.c -------------------------------------------------------- */

/* The codec of a case as it is called: "none" for fp32; where the file decides, its own, or "as declared". */
const char *compare_codec(const struct comparison *c, const struct compare_case *of);
/* A value with three digits; returns buffer. */
const char *compare_number(double value, char *buffer, size_t bytes);
/* "264 million"; returns buffer. */
const char *compare_tokens(double count, char *buffer, size_t bytes);
/* The fastest row of a case; null: none can run. */
const struct compare_row *compare_best(const struct comparison *c, const struct compare_case *of);
void compare_table(const struct comparison *c, struct text *text);
void compare_json(const struct comparison *c, struct text *text);
void compare_csv(const struct comparison *c, struct text *text);
void compare_svg(const struct comparison *c, struct text *text);

#endif
