/* job_role.c - which commands a file with clients is for. */
#include "launch/launch.h"

int job_servers_only(const struct job *job, const char *command)
{
	int clients = 0;

	for (int i = 0; i < job->cluster.nodes.count; i++) {
		char path[32];

		if (cluster_node(&job->cluster, i)->role != ROLE_CLIENT)
			continue;
		snprintf(path, sizeof(path), "nodes.%d.role", i);
		config_error(&job->config, path, "clients are simulated by compare; %s does not run them yet", command);
		clients++;
	}
	return clients ? -1 : 0;
}
