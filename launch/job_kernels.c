/*
 * Which kernels a job computes with on this machine, and in what. A rule, not a stopwatch: two
 * runs choose alike.
 */
#include "launch/launch.h"

const char *job_device(const struct job *job)
{
	switch ((enum kernel_choice)job->train.kernels) {
	case KERNELS_REFERENCE:
		return "reference";
	case KERNELS_OPENBLAS:
		return "openblas";
	case KERNELS_ONEDNN:
		return "onednn";
	case KERNELS_AUTO:
		break;
	}
	return "cpu";
}

enum dtype job_dtype(const struct job *job)
{
	return job->train.precision == PRECISION_BF16 && cpu_has_bf16() ? DTYPE_BF16
									: DTYPE_F32;
}
