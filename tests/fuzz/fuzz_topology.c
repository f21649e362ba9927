/*
 * tests/fuzz/fuzz_topology.c - topology files: YAML, the table of keys, units, links.
 *
 * links: launch
 */
#include "launch/launch.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct job job = {0};
	char path[128];

	fuzz_file("topology.yaml", data, bytes, path);
	fuzz_done(job_read(&job, path, NULL, 0) < 0);
	job_release(&job);
	return 0;
}
