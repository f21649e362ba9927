/*
 * hardware.c - this machine as training may use it: hwloc for cores, /proc and the control
 * groups for the rest.
 *
 * Nothing here fails: a machine that hides something is described by what is left, with one
 * core and 0 bytes (unknown) in the worst case.
 */
#include "profiler/internal.h"

#include <hwloc.h>
#include <math.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Cores that have at least one usable hardware thread: products gain nothing from a second. */
static int cores_inside(hwloc_topology_t topology, hwloc_const_cpuset_t set)
{
	hwloc_obj_t core = NULL;
	int count = 0;

	while ((core = hwloc_get_next_obj_covering_cpuset_by_type(topology, set, HWLOC_OBJ_CORE,
								  core)))
		count++;
	return count ? count : hwloc_bitmap_weight(set);
}

/* What the machine allows (cpuset) and this process is bound to. */
static int usable_cores(hwloc_topology_t topology)
{
	hwloc_cpuset_t set = hwloc_bitmap_alloc();
	hwloc_const_cpuset_t allowed = hwloc_topology_get_allowed_cpuset(topology);
	int count;

	if (!set)
		return 1;
	if (hwloc_get_cpubind(topology, set, HWLOC_CPUBIND_PROCESS) < 0)
		hwloc_bitmap_copy(set, allowed);
	hwloc_bitmap_and(set, set, allowed);
	count = cores_inside(topology, set);
	hwloc_bitmap_free(set);
	return count;
}

static void cpu_name(hwloc_topology_t topology, char *cpu, size_t bytes)
{
	hwloc_obj_t package = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0);
	const char *name = package ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;

	if (name)
		snprintf(cpu, bytes, "%s", name);
}

/* Sockets and NUMA nodes of the machine, at least one each, and the size of one cache of each
 * level. */
static void count_parts(hwloc_topology_t topology, struct hardware *hardware)
{
	static const hwloc_obj_type_t cache[] = {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE,
						 HWLOC_OBJ_L3CACHE};
	int sockets = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PACKAGE);
	int numa = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE);

	hardware->sockets = sockets > 1 ? sockets : 1;
	hardware->numa_nodes = numa > 1 ? numa : 1;
	for (size_t i = 0; i < sizeof cache / sizeof *cache; i++) {
		hwloc_obj_t object = hwloc_get_obj_by_type(topology, cache[i], 0);

		if (object)
			hardware->cache_bytes[i] = (double)object->attr->cache.size;
	}
}

static void topology_read(struct hardware *hardware)
{
	hwloc_topology_t topology;

	if (hwloc_topology_init(&topology) < 0)
		return;
	if (hwloc_topology_load(topology) == 0) {
		hardware->cores = usable_cores(topology);
		cpu_name(topology, hardware->cpu, sizeof hardware->cpu);
		count_parts(topology, hardware);
	}
	hwloc_topology_destroy(topology);
}

/* A display or 3D controller of those vendors whose cards compute: AMD, NVIDIA, Intel. */
static bool is_gpu(hwloc_obj_t device)
{
	unsigned vendor = device->attr->pcidev.vendor_id;

	return device->attr->pcidev.class_id >> 8 == 3 &&
	       (vendor == 0x1002 || vendor == 0x10de || vendor == 0x8086);
}

static void gpus_list(hwloc_topology_t topology, struct hardware *hardware)
{
	hwloc_obj_t device = NULL;
	size_t bytes = 0, room = sizeof hardware->gpus;

	while ((device = hwloc_get_next_pcidev(topology, device))) {
		const char *vendor, *name;

		if (!is_gpu(device))
			continue;
		vendor = hwloc_obj_get_info_by_name(device, "PCIVendor");
		name = hwloc_obj_get_info_by_name(device, "PCIDevice");
		if (bytes < room)
			bytes += (size_t)snprintf(hardware->gpus + bytes, room - bytes,
						  "%s%s %s", bytes > 0 ? ", " : "",
						  vendor ? vendor : "GPU", name ? name : "");
	}
}

void hardware_gpus(struct hardware *hardware)
{
	hwloc_topology_t topology;

	hardware->gpus[0] = 0;
	if (hwloc_topology_init(&topology) < 0)
		return;
	if (hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT) ==
		0 &&
	    hwloc_topology_load(topology) == 0)
		gpus_list(topology, hardware);
	hwloc_topology_destroy(topology);
}

static void allowance_apply(struct hardware *hardware, const struct allowance *allowance)
{
	if (isfinite(allowance->cpus))
		hardware->quota_cpus = allowance->cpus;
	/* Rounded down: a thread that the quota stops in mid-product holds up all. */
	if (allowance->cpus < hardware->cores)
		hardware->cores = (int)allowance->cpus;
	if (hardware->cores < 1)
		hardware->cores = 1;
	hardware->memory_bytes = fmin(hardware->memory_bytes, allowance->memory_bytes);
	hardware->memory_free_bytes = fmin(hardware->memory_free_bytes,
					   allowance->memory_free_bytes);
}

int hardware_read(struct hardware *hardware)
{
	struct allowance allowance;
	struct utsname system;
	double page = (double)sysconf(_SC_PAGESIZE);

	*hardware = (struct hardware){.cores = (int)sysconf(_SC_NPROCESSORS_ONLN)};
	if (gethostname(hardware->host, sizeof hardware->host - 1) < 0)
		hardware->host[0] = 0;
	if (uname(&system) == 0)
		snprintf(hardware->cpu, sizeof hardware->cpu, "%s", system.machine);
	topology_read(hardware);
	isa_read("", hardware->isa, sizeof hardware->isa);
	hardware->memory_bytes = page * (double)sysconf(_SC_PHYS_PAGES);
	hardware->memory_free_bytes = page * (double)sysconf(_SC_AVPHYS_PAGES);
	meminfo_read("", &hardware->memory_bytes, &hardware->memory_free_bytes);
	cgroup_read("", &allowance);
	allowance_apply(hardware, &allowance);
	return 0;
}
