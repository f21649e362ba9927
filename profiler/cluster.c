/*
 * cluster.c - nodes and links as a topology file declares them.
 *
 * A link is looked up, never stored twice: the entry that was written last wins, as in a style
 * sheet, so that a file can state a rule and then its exceptions.
 */
#include "profiler/profiler.h"

#include <stdlib.h>
#include <string.h>

int cluster_find(const struct cluster *cluster, const char *name)
{
	for (int i = 0; i < cluster->nodes.count; i++)
		if (strcmp(cluster_node(cluster, i)->name, name) == 0)
			return i;
	return -1;
}

static bool names(const struct texts *texts, const char *name)
{
	for (int i = 0; i < texts->count; i++)
		if (strcmp(texts->item[i], name) == 0)
			return true;
	return false;
}

static bool link_fits(const struct link *link, const char *from, const char *to)
{
	if (link->nodes.count > 0)
		return names(&link->nodes, from) && names(&link->nodes, to);
	return link->from && link->to && strcmp(link->from, from) == 0 &&
	       strcmp(link->to, to) == 0;
}

static struct link standard_link(const struct cluster *cluster, const char *from,
				 const char *to)
{
	struct link link = cluster->standard;

	link.nodes = (struct texts){0};
	link.from = from;
	link.to = to;
	return link;
}

struct link cluster_link_by(const struct cluster *cluster, const struct link *entry, int from,
			    int to)
{
	const char *a = cluster_node(cluster, from)->name, *b = cluster_node(cluster, to)->name;
	struct link link = standard_link(cluster, a, b);

	if (from == to)		/* no wire at all */
		return (struct link){.from = a, .to = b};
	if (!entry)
		return link;
	if (entry->bandwidth_given || entry->trace)
		link.bandwidth_bytes_s = entry->bandwidth_bytes_s;
	if (entry->latency_given)
		link.latency_s = entry->latency_s;
	if (entry->codec_given)
		link.codec = entry->codec;
	if (entry->trace)
		link.trace = entry->trace;
	return link;
}

struct link cluster_link(const struct cluster *cluster, int from, int to)
{
	const char *a = cluster_node(cluster, from)->name, *b = cluster_node(cluster, to)->name;
	const struct link *entry = cluster->links.item;

	for (int i = cluster->links.count - 1; i >= 0; i--)
		if (link_fits(&entry[i], a, b))
			return cluster_link_by(cluster, &entry[i], from, to);
	return cluster_link_by(cluster, NULL, from, to);
}

/* The nodes that an entry is about: from them, and to them. */
static void find_ends(const struct cluster *cluster, const struct link *entry, bool *from,
		      bool *to)
{
	for (int d = 0; d < cluster->nodes.count; d++) {
		const char *name = cluster_node(cluster, d)->name;
		bool one = entry->from && entry->to;

		if (entry->nodes.count > 0)
			from[d] = to[d] = names(&entry->nodes, name);
		else {
			from[d] = one && !strcmp(entry->from, name);
			to[d] = one && !strcmp(entry->to, name);
		}
	}
}

void cluster_entries(const struct cluster *cluster, const struct link **entry)
{
	const struct link *link = cluster->links.item;
	size_t n = (size_t)cluster->nodes.count;
	bool *from = xzalloc(2 * n + 1, sizeof(bool)), *to = from + n;

	memset(entry, 0, n * n * sizeof(*entry));
	for (int i = 0; i < cluster->links.count; i++) {
		find_ends(cluster, &link[i], from, to);
		for (size_t a = 0; a < n; a++)
			for (size_t b = 0; from[a] && b < n; b++)
				if (to[b])
					entry[a * n + b] = &link[i];
	}
	free(from);
}

int cluster_nic(const struct cluster *cluster, int node, bool receives)
{
	const char *nic = cluster_node(cluster, node)->nic;

	for (int i = 0; nic && i < cluster->nodes.count; i++)
		if (cluster_node(cluster, i)->nic &&
		    !strcmp(cluster_node(cluster, i)->nic, nic))
			return receives ? i + cluster->nodes.count : i;
	return -1;
}
