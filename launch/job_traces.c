/* job_traces.c - links that follow a trace, where nothing is emulated: what is reckoned with is its mean, as a run does. */
#include "launch/launch.h"

int job_trace_means(struct job *job)
{
	struct link *link = job->cluster.links.item;
	int status = 0;

	for (int i = 0; i < job->cluster.links.count; i++) {
		struct link_trace *trace = link[i].trace ? link_trace_read(link[i].trace) : NULL;
		double sum = 0;

		if (link[i].trace && !trace)
			status = -1;
		for (int k = 0; trace && k < trace->count; k++)
			sum += trace->bytes_s[k];
		if (trace)
			link[i].bandwidth_bytes_s = sum / trace->count;
		link_trace_free(trace);
	}
	return status;
}
