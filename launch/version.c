/* Which edgepipe this is, and on what it stands. */
#include "comm/comm.h"
#include "launch/launch.h"
#include "tensor/tensor.h"

void build_write(struct text *text)
{
	text_add(text, "edgepipe %s (%s, %s)", EDGEPIPE_VERSION, EDGEPIPE_REVISION,
		 EDGEPIPE_BUILD_TYPE);
}

void version_write(struct text *text)
{
	struct hardware hardware;
	char blas[128];

	build_write(text);
	text_add(text, "\nMPI       %s\nBLAS      %s\n", comm_mpi_version(),
		 cpu_describe(blas, sizeof(blas)));
	if (!hardware_read(&hardware))
		text_add(text, "CPU       %s, %d usable cores, %s\n", hardware.cpu, hardware.cores,
			 hardware.isa);
}
