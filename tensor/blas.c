/*
 * What OpenBLAS says of itself, and whether it chose its core well.
 *
 * Builds for many cores (DYNAMIC_ARCH) read the CPU's family at start. A family that is newer
 * than the library falls back to Haswell or Zen kernels (AVX2), even where the CPU has all that
 * the SkylakeX kernels (AVX-512) need. The choice is made in the library's constructor, so it
 * can only be changed by OPENBLAS_CORETYPE in the environment of a fresh start.
 */
#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/internal.h"

void blas_one_thread(void)
{
	openblas_set_num_threads(1);
}

static bool cpu_has_avx512(void)
{
#if defined(__x86_64__)
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
	return false;
#endif
}

const char *blas_better_core(void)
{
	const char *core = openblas_get_corename();

	if (getenv("OPENBLAS_CORETYPE") || !cpu_has_avx512())
		return NULL;
	if (strcmp(core, "Haswell") != 0 && strcmp(core, "Zen") != 0)
		return NULL;
	return "SkylakeX";
}

/* openblas_get_config() is "OpenBLAS 0.3.21 DYNAMIC_ARCH ..."; the first two words are
 * wanted. */
const char *blas_describe(char *buffer, size_t bytes)
{
	const char *config = openblas_get_config();
	size_t words = strcspn(config, " ");

	if (config[words])
		words += 1 + strcspn(config + words + 1, " ");
	snprintf(buffer, bytes, "%.*s %s", (int)words, config, openblas_get_corename());
	return buffer;
}
