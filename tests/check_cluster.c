/*
 * tests/check_cluster.c - links as declared, and the machine as it describes itself: the
 * readers of /proc and of control groups are handed folders that stand for other machines.
 *
 * links: profiler base
 */
#include "profiler/internal.h"
#include "tests/folder.h"
#include "tests/suite.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

/* -- links --------------------------------------------------------------------------------- */

static struct node nodes[] = {{.name = "library"}, {.name = "lab"}, {.name = "kiosk"}};
static const char *library_lab[] = {"library", "lab"}, *lab_kiosk[] = {"kiosk", "lab"};

static struct link between[] = {
	{.nodes = {library_lab, 2}, .bandwidth_bytes_s = 10, .bandwidth_given = true},
	{.from = "lab", .to = "library", .latency_s = 3, .codec = 2, .latency_given = true,
	 .codec_given = true},
	{.nodes = {lab_kiosk, 2}, .bandwidth_bytes_s = 20, .latency_s = 1, .codec = 1,
	 .trace = "wifi.csv", .bandwidth_given = true, .latency_given = true,
	 .codec_given = true},
	{.from = "library", .to = "lab", .bandwidth_bytes_s = 30, .bandwidth_given = true},
};

static const struct cluster cluster = {
	.name = "campus",
	.nodes = {nodes, 3},
	.standard = {.bandwidth_bytes_s = 100, .latency_s = 2},
	.links = {between, 4},
};

static const struct { int from, to; double bandwidth, latency; int codec; } links[] = {
	{0, 2, 100, 2, 0}, /* the default */
	{2, 0, 100, 2, 0},
	{0, 1, 30, 2, 0},  /* the last entry that fits, what it leaves out from the default */
	{1, 0, 100, 3, 2}, /* and not from the entry before it */
	{1, 2, 20, 1, 1},  /* both directions of nodes: [..] */
	{2, 1, 20, 1, 1},
	{1, 1, 0, 0, 0}, /* to itself: no wire */
};

static void check_link(struct link link, int i)
{
	ck_assert_double_eq(link.bandwidth_bytes_s, links[i].bandwidth);
	ck_assert_double_eq(link.latency_s, links[i].latency);
	ck_assert_int_eq(link.codec, links[i].codec);
	ck_assert_str_eq(link.from, nodes[links[i].from].name);
	ck_assert_str_eq(link.to, nodes[links[i].to].name);
	ck_assert_int_eq(link.nodes.count, 0);
	ck_assert_int_eq(link.trace != NULL, links[i].codec == 1);
}

START_TEST(link_is_the_last_entry_that_fits)
{
	int from = links[_i].from, to = links[_i].to;
	const struct link *entry[9];

	check_link(cluster_link(&cluster, from, to), _i);
	cluster_entries(&cluster, entry);
	check_link(cluster_link_by(&cluster, entry[3 * from + to], from, to), _i);
}
END_TEST

/* A number counts where its flag says that it was given, and then 0 is meant: unlimited, at once, codec none. */
START_TEST(what_is_given_counts_and_nothing_else)
{
	struct link entry = {.nodes = {library_lab, 2}, .bandwidth_bytes_s = 10, .latency_s = 1,
			     .codec = 1};
	struct cluster one = cluster;
	struct link link;

	one.standard.codec = 3;
	one.links = (struct list){&entry, 1};
	link = cluster_link(&one, 0, 1);
	ck_assert_double_eq(link.bandwidth_bytes_s, 100);
	ck_assert_double_eq(link.latency_s, 2);
	ck_assert_int_eq(link.codec, 3);
	entry = (struct link){.nodes = {library_lab, 2}, .bandwidth_given = true,
			      .latency_given = true, .codec_given = true};
	link = cluster_link(&one, 0, 1);
	ck_assert_double_eq(link.bandwidth_bytes_s, 0);
	ck_assert_double_eq(link.latency_s, 0);
	ck_assert_int_eq(link.codec, 0);
}
END_TEST

START_TEST(nodes_are_found_by_name)
{
	ck_assert_int_eq(cluster_find(&cluster, "library"), 0);
	ck_assert_int_eq(cluster_find(&cluster, "kiosk"), 2);
	ck_assert_int_eq(cluster_find(&cluster, "kios"), -1);
}
END_TEST

/* -- other machines ------------------------------------------------------------------------ */

/* Puts a file below the folder, which stands for the root. */
static void plant(const char *path, const char *text)
{
	char *name = arena_format(&arena, "%s%s", folder, path);

	ck_assert_int_eq(folder_make(path_folder(&arena, name)), 0);
	ck_assert_int_eq(file_write(name, text, strlen(text)), 0);
}

START_TEST(no_control_group_is_no_limit)
{
	struct allowance allowance;

	cgroup_read(folder, &allowance);
	ck_assert(isinf(allowance.cpus) && isinf(allowance.memory_bytes));
	ck_assert(isinf(allowance.memory_free_bytes));
	plant("/proc/self/cgroup", "nonsense\n0::/user.slice\n::\n");
	cgroup_read(folder, &allowance);
	ck_assert(isinf(allowance.cpus) && isinf(allowance.memory_bytes));
}
END_TEST

START_TEST(version_2_is_read_up_to_the_root)
{
	struct allowance allowance;

	plant("/proc/self/cgroup", "0::/pod/box\n");
	plant("/sys/fs/cgroup/pod/box/cpu.max", "max 100000\n");
	plant("/sys/fs/cgroup/pod/cpu.max", "250000 100000\n");
	plant("/sys/fs/cgroup/pod/box/memory.max", "1000000\n");
	plant("/sys/fs/cgroup/pod/box/memory.current", "300000\n");
	plant("/sys/fs/cgroup/pod/box/memory.stat", "anon 90000\ninactive_file 200000\n");
	plant("/sys/fs/cgroup/pod/memory.max", "2000000\n");
	plant("/sys/fs/cgroup/pod/memory.current", "1900000\n");
	cgroup_read(folder, &allowance);
	ck_assert_double_eq(allowance.cpus, 2.5);
	ck_assert_double_eq(allowance.memory_bytes, 1000000);
	/* The box leaves 900000 (idle pages count as free), the pod around it 100000. */
	ck_assert_double_eq(allowance.memory_free_bytes, 100000);
}
END_TEST

START_TEST(version_2_idle_pages_count_as_free)
{
	struct allowance allowance;

	plant("/proc/self/cgroup", "0::/\n");
	plant("/sys/fs/cgroup/memory.max", "1000000\n");
	plant("/sys/fs/cgroup/memory.current", "300000\n");
	plant("/sys/fs/cgroup/memory.stat", "anon 90000\ninactive_file 200000\n");
	cgroup_read(folder, &allowance);
	ck_assert_double_eq(allowance.memory_free_bytes, 900000);
	ck_assert(isinf(allowance.cpus));
}
END_TEST

START_TEST(version_2_in_a_container_is_the_mount_itself)
{
	struct allowance allowance;

	plant("/proc/self/cgroup", "0::/../../outside\n");
	plant("/sys/fs/cgroup/cpu.max", "50000 100000\n");
	plant("/sys/outside/cpu.max", "1000 100000\n");
	cgroup_read(folder, &allowance);
	ck_assert_double_eq(allowance.cpus, 0.5);
}
END_TEST

START_TEST(version_1_is_read)
{
	struct allowance allowance;

	plant("/proc/self/cgroup", "9:name=systemd:/\n4:memory:/docker/1234\n"
	      "2:cpu,cpuacct:/docker/1234\n0::/\n");
	/* Bind-mounted without the path, as docker does. */
	plant("/sys/fs/cgroup/memory/memory.limit_in_bytes", "5000000\n");
	plant("/sys/fs/cgroup/memory/memory.usage_in_bytes", "2000000\n");
	plant("/sys/fs/cgroup/memory/memory.stat",
	      "inactive_file 7\ntotal_inactive_file 500000\n");
	plant("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000\n");
	plant("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
	cgroup_read(folder, &allowance);
	ck_assert_double_eq(allowance.cpus, 3);
	ck_assert_double_eq(allowance.memory_bytes, 5000000);
	ck_assert_double_eq(allowance.memory_free_bytes, 3500000);
}
END_TEST

START_TEST(version_1_says_unlimited_with_numbers)
{
	struct allowance allowance;

	plant("/proc/self/cgroup", "4:memory:/\n2:cpu:/\n");
	plant("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	plant("/sys/fs/cgroup/memory/memory.usage_in_bytes", "2000000\n");
	plant("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
	plant("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
	cgroup_read(folder, &allowance);
	ck_assert(isinf(allowance.cpus) && isinf(allowance.memory_bytes));
}
END_TEST

START_TEST(memory_is_what_meminfo_calls_available)
{
	double total = 7, left = 8;

	meminfo_read(folder, &total, &left);
	ck_assert(total == 7 && left == 8);
	plant("/proc/meminfo",
	      "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable: 600 kB\n");
	meminfo_read(folder, &total, &left);
	ck_assert_double_eq(total, 1024000);
	ck_assert_double_eq(left, 614400);
	folder_remove(arena_format(&arena, "%s/proc", folder));
	plant("/proc/meminfo", "MemTotal:       1000 kB\nMemFree:  10 kB\n");
	meminfo_read(folder, &total, &left);
	ck_assert_double_eq(left, 10240);
}
END_TEST

static const struct { const char *cpuinfo, *isa; } isas[] = {
	{NULL, ""},
	{"processor\t: 0\n", ""},
	{"processor\t: 0\nflags\t\t: fpu avx avx2k avx512 sse2\nbugs\t: avx2\n", ""},
	{"processor\t: 0\nflags\t\t: fpu avx2 sse2\nbugs\t: x\n", "avx2"},
	{"processor\t: 0\nflags\t\t: avx512f avx512_bf16 avx2 amx_bf16 amx_tile\n",
	 "avx2 avx512 avx512_bf16 amx"},
	{"processor\t: 0\nFeatures\t: fp asimd sve i8mm bf16\n", "neon sve i8mm bf16"},
};

START_TEST(isa_comes_from_the_kernel)
{
	char isa[64] = "untouched";

	if (isas[_i].cpuinfo)
		plant("/proc/cpuinfo", isas[_i].cpuinfo);
	isa_read(folder, isa, sizeof isa);
	ck_assert_str_eq(isa, isas[_i].isa);
}
END_TEST

START_TEST(isa_never_overflows)
{
	char isa[64];

	plant("/proc/cpuinfo", "processor\t: 0\nflags\t: avx2 avx512f avx512_vnni amx_bf16\n");
	memset(isa, '#', sizeof isa);
	isa_read(folder, isa, 12);
	ck_assert_str_eq(isa, "avx2 avx512");
	for (size_t i = 12; i < sizeof isa; i++)
		ck_assert_int_eq(isa[i], '#');
}
END_TEST

/* -- this machine -------------------------------------------------------------------------- */

START_TEST(this_machine_is_sane)
{
	struct hardware hardware;
	char isa[64];

	memset(&hardware, 0xee, sizeof hardware);
	ck_assert_int_eq(hardware_read(&hardware), 0);
	ck_assert_int_ge(hardware.cores, 1);
	ck_assert_int_le(hardware.cores, get_nprocs_conf());
	ck_assert_int_gt((int)strlen(hardware.cpu), 0);
	ck_assert_int_gt((int)strlen(hardware.host), 0);
	isa_read("", isa, sizeof isa);
	ck_assert_str_eq(hardware.isa, isa);
	ck_assert_double_gt(hardware.memory_bytes, 64e6);
	ck_assert_double_gt(hardware.memory_free_bytes, 1e6);
	ck_assert_double_le(hardware.memory_free_bytes, hardware.memory_bytes);
	printf("%s: %s (%s), %d cores, %.3g of %.3g bytes free\n", hardware.host, hardware.cpu,
	       hardware.isa, hardware.cores, hardware.memory_free_bytes, hardware.memory_bytes);
}
END_TEST

/* Bound to one CPU, a process has one core, whatever the machine has. */
START_TEST(binding_is_respected)
{
	struct hardware hardware;
	cpu_set_t set, one;
	int cpu = 0;

	ck_assert_int_eq(sched_getaffinity(0, sizeof set, &set), 0);
	while (!CPU_ISSET(cpu, &set))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
	hardware_read(&hardware);
	ck_assert_int_eq(sched_setaffinity(0, sizeof set, &set), 0);
	ck_assert_int_eq(hardware.cores, 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cluster");
	TCase *here = tcase_create("links and this machine"), *other = tcase_create("machines");

	tcase_add_loop_test(here, link_is_the_last_entry_that_fits, 0,
			    sizeof links / sizeof *links);
	tcase_add_test(here, what_is_given_counts_and_nothing_else);
	tcase_add_test(here, nodes_are_found_by_name);
	tcase_add_test(here, this_machine_is_sane);
	tcase_add_test(here, binding_is_respected);
	suite_add_tcase(suite, here);
	tcase_add_checked_fixture(other, folder_open, folder_close);
	tcase_add_test(other, no_control_group_is_no_limit);
	tcase_add_test(other, version_2_is_read_up_to_the_root);
	tcase_add_test(other, version_2_idle_pages_count_as_free);
	tcase_add_test(other, version_2_in_a_container_is_the_mount_itself);
	tcase_add_test(other, version_1_is_read);
	tcase_add_test(other, version_1_says_unlimited_with_numbers);
	tcase_add_test(other, memory_is_what_meminfo_calls_available);
	tcase_add_loop_test(other, isa_comes_from_the_kernel, 0, sizeof isas / sizeof *isas);
	tcase_add_test(other, isa_never_overflows);
	suite_add_tcase(suite, other);
	return run_suite(suite);
}
