/*
 * profiler/ - what there is: nodes and links as declared, and the hardware as measured.
 */
#ifndef EDGEPIPE_PROFILER_H
#define EDGEPIPE_PROFILER_H

#include "base/base.h"

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
	double bandwidth_bytes_s;	/* 0: unlimited; with a trace its mean, once that was read */
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
/* Interfaces are numbered: those that nodes send through, below nodes.count, then those that they receive through. The
 * number of a node's, the same for all nodes with the same `nic`; -1 where it declares none: links are on their own. */
int cluster_nic(const struct cluster *cluster, int node, bool receives);

/* -- hardware.c ---------------------------------------------------------------------------- */

/* This machine, measured through hwloc, /proc and the cgroup. */
struct hardware {
	char cpu[128];			/* model name */
	char isa[64];			/* "avx2 avx512 avx512_bf16 amx": for kernels */
	char host[64];
	int cores;			/* usable: cpuset, binding and quota; at least 1 */
	double memory_bytes;		/* total, or the cgroup's limit */
	double memory_free_bytes;	/* MemAvailable, or what the cgroup's limit leaves */
};
int hardware_read(struct hardware *hardware);

/* -- profile.c ----------------------------------------------------------------------------- */

/* Seconds of n tokens in sequences of T: c0 + c1 n + c2 n T. */
struct fit {
	double c0, c1, c2;
	double error;			/* largest deviation of a sample, as a share of it */
	bool noisy;			/* samples disagreed even when they were repeated */
};
static inline double fit_at(const struct fit *fit, double n, double T)
{
	return fit->c0 + fit->c1 * n + fit->c2 * n * T;
}
/* One node as measured. */
struct node_profile {
	char name[64];
	struct hardware hardware;
	int threads;			/* that computed */
	struct fit block_forward, block_backward, embedding_forward, embedding_backward;
	struct fit head_forward, head_backward;	/* final norm, head, loss */
	double update_s;		/* optimizer, of one block's adapters */
	double matmul_flops;		/* a large product, all threads */
	double process_bytes;		/* what the process takes without a stage */
};
/* One direction between two nodes as measured. */
struct link_profile {
	bool measured;
	double latency_s, bandwidth_bytes_s;	/* alone */
	double both_bytes_s;		/* this direction while the other one is busy as well */
	double disjoint_bytes_s;	/* while disjoint pairs are busy as well; 0: there is no such pair */
	double bytes;			/* that the fit used */
	double error;			/* as a fit's */
	bool noisy;
};
/* What a cluster measured; of a model's shape, by a build, on this hardware: digest says which. */
struct profile {
	int nodes;
	struct node_profile *node;	/* [nodes], in file order */
	struct link_profile *link;	/* [nodes * nodes]: from * nodes + to */
	struct digest digest;		/* of what it says, for plans */
};

#endif
