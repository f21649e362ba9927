/*
 * Devices whose memory is this process's own: cpu, reference and far. The three differ in their
 * kernels and in the offset between a device pointer and the host's; nothing else.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tensor/internal.h"
#include "tensor/onednn.h"

/* Far pointers lie here: no address of a process has this bit, so touching one faults. */
#define FAR_OFFSET ((ptrdiff_t)1 << 62)
#define HUGE_PAGE ((size_t)2 << 20)

static const struct {
	const char *name;
	size_t bytes;
} dtypes[] = {
    [DTYPE_F32] = {"F32", 4},	[DTYPE_F64] = {"F64", 8}, [DTYPE_F16] = {"F16", 2},
    [DTYPE_BF16] = {"BF16", 2}, [DTYPE_I32] = {"I32", 4}, [DTYPE_I64] = {"I64", 8},
};

size_t dtype_bytes(enum dtype dtype)
{
	return dtypes[dtype].bytes;
}

const char *dtype_name(enum dtype dtype)
{
	return dtypes[dtype].name;
}

/* Device pointers are moved as numbers: a far one is not a pointer to the compiler's liking. */
static void *moved(const void *p, ptrdiff_t bytes)
{
	return (void *)((uintptr_t)p + (uintptr_t)bytes);
}

struct matrix matrix_rows(struct matrix m, int first, int rows)
{
	m.data = moved(m.data, (ptrdiff_t)((size_t)first * m.ld * dtype_bytes(m.dtype)));
	m.rows = rows;
	return m;
}

struct matrix matrix_cols(struct matrix m, int first, int cols)
{
	m.data = moved(m.data, (ptrdiff_t)((size_t)first * dtype_bytes(m.dtype)));
	m.cols = cols;
	return m;
}

/* Memory that threads share to write zeros to. */
struct zeros {
	char *memory;
	size_t bytes;
};

static void write_zeros(void *arg, int index, int thread)
{
	const struct zeros *z = arg;
	size_t at = (size_t)index * HUGE_PAGE;

	(void)thread;
	memset(z->memory + at, 0, z->bytes - at < HUGE_PAGE ? z->bytes - at : HUGE_PAGE);
}

/* Zeroed by touching every page, so that no page fault is left for the first micro-batch. */
static void *memory_alloc(struct device *dev, size_t bytes)
{
	size_t align = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : SLAB_ALIGN;
	size_t room = (bytes + align - 1) / align * align;
	char text[32];
	void *host;

	if (room < bytes || posix_memalign(&host, align, room ? room : align))
		return error_null(EXIT_CONFIG, "cannot allocate %s on device '%s'",
				  unit_write((double)bytes, UNIT_BYTES, text, sizeof text),
				  dev->k.name);
	if (align == HUGE_PAGE)
		madvise(host, room, MADV_HUGEPAGE);
	pool_run(dev->pool, (int)((room + HUGE_PAGE - 1) / HUGE_PAGE), write_zeros,
		 &(struct zeros){host, room});
	return moved(host, dev->offset);
}

static void memory_free(struct device *dev, void *memory)
{
	if (memory)
		free(moved(memory, -dev->offset));
}

static void memory_upload(struct device *dev, void *to, const void *from, size_t bytes)
{
	if (bytes)
		memcpy(moved(to, -dev->offset), from, bytes);
}

static void memory_download(struct device *dev, void *to, const void *from, size_t bytes)
{
	if (bytes)
		memcpy(to, moved(from, -dev->offset), bytes);
}

/*
 * Who computes products in F32. oneDNN is 8 to 10 % faster than OpenBLAS 0.3.21 on AVX-512
 * (bench/shapes) and needs no more memory; on AVX2 OpenBLAS is as fast or faster. A rule, not a
 * stopwatch: two runs choose alike.
 */
static bool prefers_onednn(const char *name)
{
	return !strcmp(name, "onednn") ||
	       (strcmp(name, "openblas") != 0 && onednn_has_avx512());
}

static int choose_onednn(struct device *dev, const char *name, int threads)
{
	if (!strcmp(name, "reference"))
		return 0;
	dev->onednn = onednn_open(threads);
	dev->fast_f32 = dev->onednn && prefers_onednn(name);
	if (!dev->onednn && onednn_has_avx512())
		return error(EXIT_BUG, "oneDNN does not start");
	if (!dev->onednn && !strcmp(name, "onednn"))
		return error(EXIT_CONFIG,
			     "this edgepipe was built without oneDNN (train.kernels "
			     "auto or openblas)");
	return dev->onednn ? onednn_warm(dev->onednn, dev->pool) : 0;
}

static int choose_kernels(struct device *dev, const char *name)
{
	if (!strcmp(name, "cpu") || !strcmp(name, "openblas") || !strcmp(name, "onednn")) {
		dev->k = kernels_cpu();
	} else if (!strcmp(name, "reference")) {
		dev->k = kernels_ref;
	} else if (!strcmp(name, "far")) {
		dev->k = kernels_far();
		dev->offset = FAR_OFFSET;
	} else {
		return error(
		    EXIT_CONFIG,
		    "no device '%s' (there are: cpu, openblas, onednn, reference, far)", name);
	}
	return 0;
}

struct device *device_open(const char *name, int threads)
{
	struct device *dev = xzalloc(1, sizeof *dev);

	if (choose_kernels(dev, name) < 0)
		goto fail;
	blas_one_thread();
	dev->host_memory = !dev->offset;
	dev->alloc = memory_alloc;
	dev->free = memory_free;
	dev->upload = memory_upload;
	dev->download = memory_download;
	threads = strcmp(name, "reference") && threads > 1 ? threads : 1;
	dev->pool = pool_open(threads);
	if (!dev->pool || choose_onednn(dev, name, threads) < 0)
		goto fail;
	return dev;
fail:
	onednn_close(dev->onednn);
	pool_close(dev->pool);
	free(dev);
	return NULL;
}

void device_close(struct device *dev)
{
	if (!dev)
		return;
	onednn_close(dev->onednn);
	pool_close(dev->pool);
	free(dev->timed);
	free(dev);
}

bool cpu_has_bf16(void)
{
	return onednn_has_bf16();
}

const char *cpu_describe(char *buffer, size_t bytes)
{
	char onednn[64], blas[64];

	onednn_describe(onednn, sizeof onednn);
	blas_describe(blas, sizeof blas);
	snprintf(buffer, bytes, "%s%s%s", onednn, *onednn ? ", " : "", blas);
	return buffer;
}
