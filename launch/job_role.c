/* job_role.c - which commands a file with clients is for. */
#include "launch/launch.h"

int job_servers_only(const struct job *job, const char *command)
{
	char path[32], more[64] = "";
	int clients = 0;

	for (int i = job->cluster.nodes.count - 1; i >= 0; i--)
		if (cluster_node(&job->cluster, i)->role == ROLE_CLIENT) {
			snprintf(path, sizeof(path), "nodes.%d.role", i);
			clients++;
		}
	if (!clients)
		return 0;
	if (clients > 1)
		snprintf(more, sizeof(more), " (%d more nodes are clients)", clients - 1);
	config_error(&job->config, path, "clients are simulated by compare; %s does not run them yet%s: edgepipe compare is for "
		     "these", command, more);
	return -1;
}
