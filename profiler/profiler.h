/*
 * profiler/ - what there is: nodes and links as declared, and the hardware as measured.
 */
#ifndef EDGEPIPE_PROFILER_H
#define EDGEPIPE_PROFILER_H

#include "comm/comm.h"
#include "model/model.h"

/* -- cluster.c ----------------------------------------------------------------------------- */

/* One server. Numbers are as declared; 0: not declared. */
struct node {
	const char *name, *host, *device, *model;
	int role;			/* word of the job's table */
	long long cores;
	double memory_bytes;		/* what training may use */
	double compute_flops;		/* sustained rate */
	const char *nic;
};
/* A link as a file declares it. Both directions where `nodes` is given, else from -> to. */
struct link {
	struct texts nodes;
	const char *from, *to;
	/* 0: unlimited; with a trace its mean, once that was read */
	double bandwidth_bytes_s;
	double latency_s;
	int codec;			/* enum codec_kind */
	const char *trace;
	bool bandwidth_given, latency_given, codec_given;	/* 0 may be meant */
};
struct cluster {
	const char *name;
	struct list nodes;		/* of struct node */
	struct link standard;		/* links.default */
	struct list links;		/* of struct link: links.between */
};
static inline const struct node *cluster_node(const struct cluster *cluster, int i)
{
	return (const struct node *)cluster->nodes.item + i;
}
/* The index of a name, or -1. */
int cluster_find(const struct cluster *cluster, const char *name);
/* The link from one node to another as declared: the matching entry of links.between (the last
 * one that fits), with what it leaves out taken from the default. */
struct link cluster_link(const struct cluster *cluster, int from, int to);
/* The same of all links, in two steps and a fraction of the time: the entry of each,
 * [nodes][nodes] (null: there is none), and a link by its entry. */
void cluster_entries(const struct cluster *cluster, const struct link **entry);
struct link cluster_link_by(const struct cluster *cluster, const struct link *entry, int from,
			    int to);
/* Interfaces are numbered: those that nodes send through, below nodes.count, then those that
 * they receive through. The number of a node's, the same for all nodes with the same `nic`; -1
 * where it declares none: links are on their own. */
int cluster_nic(const struct cluster *cluster, int node, bool receives);

/* -- hardware.c ---------------------------------------------------------------------------- */

/* This machine, measured through hwloc, /proc and the cgroup. Plain data. */
struct hardware {
	char cpu[128];			/* model name */
	char isa[64];			/* "avx2 avx512 avx512_bf16 amx": for kernels */
	char host[64];
	int cores;			/* usable: cpuset, binding and quota; at least 1 */
	int sockets, numa_nodes;	/* of the machine */
	/* cores' worth of time that a control group leaves; 0: all */
	double quota_cpus;
	double cache_bytes[3];		/* one L1 (data), L2, L3 */
	double memory_bytes;		/* total, or the cgroup's limit */
	double memory_free_bytes;	/* MemAvailable, or what the cgroup's limit leaves */
	/* hardware_gpus fills it: "NVIDIA H200, NVIDIA H200"; "": none */
	char gpus[128];
};
int hardware_read(struct hardware *hardware);
/* Looks for GPUs, which takes longer than all the rest. */
void hardware_gpus(struct hardware *hardware);

/* -- fit.c --------------------------------------------------------------------------------- */

/* Where a number comes from. Measured beats declared, declared beats guessed. */
enum origin { ORIGIN_GUESSED, ORIGIN_DECLARED, ORIGIN_MEASURED };
const char *origin_name(enum origin origin);

/* Seconds of n tokens in sequences of T: c0 + c1 n + c2 n T. */
struct fit {
	double c0, c1, c2;
	double error;			/* largest deviation of a sample, as a share of it */
	bool noisy;			/* samples disagreed even when they were repeated */
	enum origin origin;
};
static inline double fit_at(const struct fit *fit, double n, double T)
{
	return fit->c0 + fit->c1 * n + fit->c2 * n * T;
}
/* A time that was measured; weight: how much it matters beside the others, 1 where nothing is
 * special. */
struct timing { double n, T, s, weight; };
/* The coefficients, none below 0, that leave the least squares of relative deviations. */
struct fit fit_samples(const struct timing *sample, int count);
/* Beyond this error a fit is measured again, and then said to be noisy. */
#define FIT_NOISY 0.15

/* -- profile.c ----------------------------------------------------------------------------- */

/* One node as measured. Plain data. */
struct node_profile {
	char name[64];
	struct hardware hardware;	/* cpu "": nothing is known of it */
	int threads;			/* that computed; 0: not known */
	/* the declared rate that it was held to (emulate.compute); 0: none */
	double held_flops;
	struct fit block_forward, block_backward, embedding_forward, embedding_backward;
	struct fit head_forward, head_backward;	/* final norm, head, loss */
	/* optimizer, of one block's adapters; 0: not known, as are the rest */
	double update_s;
	/* a large product in the precision that trains, all threads */
	double matmul_flops;
	double process_bytes;		/* what the process takes without a stage */
	double limit_bytes;		/* what training may use of the memory */
};
/* One direction between two nodes as measured. Plain data. */
struct link_profile {
	enum origin origin;		/* of what follows, up to noisy */
	double latency_s;
	double bandwidth_bytes_s;	/* alone; 0: unlimited, where that is declared */
	/* while the other direction is busy as well; 0: not known */
	double both_bytes_s;
	/* while disjoint pairs are busy as well; 0: not measured */
	double disjoint_bytes_s;
	double bytes;			/* that the fit used */
	double error;			/* as a fit's */
	bool noisy;
	bool held;			/* to these declared numbers (emulate.links) */
	double held_bytes_s, held_latency_s;	/* held_bytes_s 0: unlimited */
};
/* What must be the same for a profile to hold, besides nodes and links. Plain data. */
struct profile_key {
	char build_text[160];
	struct digest build, model;	/* of the program; of config.json */
	int lora_rank;
	char lora_targets[256];		/* modules, with blanks between */
	char precision[16], kernels[16], recompute[16];
	bool emulate_links, emulate_compute;
	double slowdown;
	int tokens;			/* T of the samples; others are extrapolated */
};
/* What a cluster measured. */
struct profile {
	struct profile_key key;
	int nodes;
	struct node_profile *node;	/* [nodes], in file order */
	struct link_profile *link;	/* [nodes * nodes]: from * nodes + to */
	struct digest digest;		/* of its text, for plans: profile_seal */
};
struct profile *profile_open(int nodes);
void profile_free(struct profile *profile);
/* What was measured or is declared for the link from one node to another. */
struct link_profile *profile_link(const struct profile *profile, int from, int to);
/* Bytes/s of a cut, which is busy in both directions: the rate alone, unless both at once is
 * clearly less. */
double link_profile_rate(const struct link_profile *link);
/* Of what a profile must be of: key, hardware, threads and what nodes and links are held to;
 * not of what was measured. */
struct digest profile_identity(const struct profile *profile);

/* -- profile_write.c ----------------------------------------------------------------------- */

/* profile.json (formats.md). */
void profile_write(const struct profile *profile, struct text *text);
/* Takes the digest, of the text that profile_write makes. */
void profile_seal(struct profile *profile);

/* -- profile_read.c ------------------------------------------------------------------------ */

/* The profile in a file or in memory; name is for messages. Null after errors (all of the file;
 * EXIT_DATA, EXIT_INPUT). */
struct profile *profile_read(const char *path);
struct profile *profile_parse(const char *data, size_t bytes, const char *name);

/* -- profile_check.c ----------------------------------------------------------------------- */

/* Whether a profile holds for what `want` says (see profile_identity; hardware and threads
 * where want knows them): -1 after errors that name every difference (EXIT_CONFIG). Its nodes
 * are put into want's order, further ones dropped. */
int profile_check(struct profile *profile, const struct profile *want, const char *path);

/* -- profile_table.c ----------------------------------------------------------------------- */

/* For people: nodes, with what a micro-batch of one sequence of T tokens takes, then links. */
void profile_print(const struct profile *profile, int T, struct text *text);

/* -- compute.c ----------------------------------------------------------------------------- */

/* What to measure on this node, and how long that may take. */
struct compute_spec {
	struct device *device;
	enum dtype dtype;		/* of training, as are the next two */
	enum recompute recompute;
	bool plain;			/* its weights of BF16 are not packed */
	const struct model_config *model;
	const struct weights *weights;
	const struct lora *lora;
	int tokens;			/* T of training */
	/* sequences; micro_batch 0: any divisor of batch may be asked for */
	long long batch, micro_batch;
	/* that every op is held to, as the executor does; 0: none */
	double pace_flops;
	double box_s;			/* all of it; a size that was begun is finished */
	/* that a stage may take; 0: any. A part that needs more is guessed */
	double memory_bytes;
	/* by a quota or by others: mean times count, not medians */
	bool throttled;
};
/* Runs real stages on random data of real magnitude and fills node's fits, update_s,
 * matmul_flops. -1 after an error. */
int compute_measure(const struct compute_spec *spec, struct node_profile *node);

/* -- links.c ------------------------------------------------------------------------------- */

struct links_spec {
	/* of training: a front, over emulated links where there are some */
	struct comm *comm;
	/* [size]: ranks whose clock is this one's: on one machine */
	const bool *near;
	/* links cannot disturb each other: disjoint pairs are measured at once */
	bool apart;
	double sample_s;		/* sizes grow until a sample takes this long */
	void (*progress)(void *arg, int round, int rounds);
	void *progress_arg;
};
/* Measures every ordered pair, in rounds in which each rank has one partner. row[to]: from this
 * rank. Collective. -1 after an error. */
int links_measure(const struct links_spec *spec, struct link_profile *row);
int links_rounds(int ranks);

/* -- flows.c ------------------------------------------------------------------------------- */

/* One flow of this rank: to or from a peer. */
struct flow {
	int peer;
	bool sends;
	double bytes_s;			/* expected, above 0: the same at both ends */
	double reached_bytes_s;		/* found, where it receives; 0: too short to tell */
	int cut;			/* the caller's, as is the next */
	bool backward;
};
/* All flows of all ranks at once, each for about so many seconds at the rate that is expected.
 * At most one flow from one rank to another. Collective. -1 after an error. */
int flows_measure(struct comm *comm, struct flow *flow, int count, double seconds);

#endif
