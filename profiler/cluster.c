/*
 * cluster.c - nodes and links as a topology file declares them.
 *
 * A link is looked up, never stored twice: the entry that was written last wins, as in a style
 * sheet, so that a file can state a rule and then its exceptions.
 */
#include "profiler/profiler.h"

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

struct link cluster_link(const struct cluster *cluster, int from, int to)
{
	const char *a = cluster_node(cluster, from)->name, *b = cluster_node(cluster, to)->name;
	const struct link *entry = cluster->links.item;
	struct link link = standard_link(cluster, a, b);

	if (from == to)		/* no wire at all */
		return (struct link){.from = a, .to = b};
	for (int i = cluster->links.count - 1; i >= 0; i--) {
		if (!link_fits(&entry[i], a, b))
			continue;
		if (entry[i].bandwidth_given || entry[i].trace)
			link.bandwidth_bytes_s = entry[i].bandwidth_bytes_s;
		if (entry[i].latency_given)
			link.latency_s = entry[i].latency_s;
		if (entry[i].codec_given)
			link.codec = entry[i].codec;
		if (entry[i].trace)
			link.trace = entry[i].trace;
		break;
	}
	return link;
}

int cluster_nic(const struct cluster *cluster, int node, bool receives)
{
	const char *nic = cluster_node(cluster, node)->nic;

	for (int i = 0; nic && i < cluster->nodes.count; i++)
		if (cluster_node(cluster, i)->nic && !strcmp(cluster_node(cluster, i)->nic, nic))
			return receives ? i + cluster->nodes.count : i;
	return -1;
}
