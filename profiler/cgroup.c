/*
 * cgroup.c - what control groups leave this process: CPU time and memory, versions 1 and 2.
 *
 * /proc/self/cgroup names the group; the files lie under /sys/fs/cgroup. A limit on any group
 * above counts as well, so that the walk goes from the group up to the root of the mount. In a
 * container the named path often does not exist below the mount, which then *is* the group:
 * what is missing is passed over, and the root is looked at in any case.
 */
#include "profiler/internal.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GROUP_BYTES 2048	/* of a path; a longer one is passed over */

static void least(double *value, double other)
{
	if (other < *value)
		*value = other;
}

/* A number alone in a file; infinity for "max" and where there is none. */
static double file_number(const char *root, const char *group, const char *name)
{
	char path[GROUP_BYTES + 64], text[64];

	snprintf(path, sizeof path, "%s/%s", group, name);
	if (!peek(root, path, text, sizeof text) || !isdigit((unsigned char)text[0]))
		return INFINITY;
	return strtod(text, NULL);
}

/*
 * Memory in use that cannot be dropped. File pages that nobody touched lately are counted by
 * the group but given back under pressure: a model that was just copied must not look like
 * memory that is gone.
 */
static double memory_used(const char *root, const char *group, const char *file,
			  const char *inactive)
{
	char path[GROUP_BYTES + 64], text[8192];
	double used = file_number(root, group, file), idle = 0;

	snprintf(path, sizeof path, "%s/memory.stat", group);
	if (isinf(used))
		return 0;
	if (peek(root, path, text, sizeof text))
		peek_number(text, inactive, &idle);
	return used > idle ? used - idle : 0;
}

static void memory_apply(struct allowance *allowance, double limit, double used)
{
	if (limit >= 0x1p62)	/* version 1 says "none" with a number near 2^63 */
		return;
	least(&allowance->memory_bytes, limit);
	least(&allowance->memory_free_bytes, limit > used ? limit - used : 0);
}

static void cpu_apply(struct allowance *allowance, double quota, double period)
{
	if (isfinite(quota) && isfinite(period) && period > 0)
		least(&allowance->cpus, quota / period);
}

static void apply_v2(const char *root, const char *group, struct allowance *allowance)
{
	char path[GROUP_BYTES + 64], text[64], *end;

	memory_apply(allowance, file_number(root, group, "memory.max"),
		     memory_used(root, group, "memory.current", "inactive_file"));
	snprintf(path, sizeof path, "%s/cpu.max", group);
	if (!peek(root, path, text, sizeof text) || !isdigit((unsigned char)text[0]))
		return;
	double quota = strtod(text, &end);

	cpu_apply(allowance, quota, strtod(end, NULL));
}

static void apply_v1(const char *root, const char *group, struct allowance *allowance)
{
	memory_apply(allowance, file_number(root, group, "memory.limit_in_bytes"),
		     memory_used(root, group, "memory.usage_in_bytes", "total_inactive_file"));
	cpu_apply(allowance, file_number(root, group, "cpu.cfs_quota_us"),
		  file_number(root, group, "cpu.cfs_period_us"));
}

typedef void apply_group(const char *root, const char *group, struct allowance *allowance);

/* Applies the group at mount + path, and every one above it up to the mount. */
static void walk_up(const char *root, const char *mount, const char *path,
		    struct allowance *allowance, apply_group *apply)
{
	char group[GROUP_BYTES];
	size_t top = strlen(mount), bytes = strlen(path);

	if (strstr(path, "..") || top + bytes >= sizeof group)
		bytes = 0;	/* a group outside of this namespace */
	snprintf(group, sizeof group, "%s%.*s", mount, (int)bytes, path);
	for (;;) {
		char *slash = strrchr(group + top, '/');

		apply(root, group, allowance);
		if (!slash)
			break;
		*slash = 0;
	}
}

/* Whether a list as "cpu,cpuacct" has a word. */
static bool list_has(const char *list, const char *word)
{
	size_t bytes = strlen(word);

	for (const char *item = list; item; item = strchr(item, ',')) {
		item += *item == ',';
		if (strncmp(item, word, bytes) == 0 && (!item[bytes] || item[bytes] == ','))
			return true;
	}
	return false;
}

/* One line of /proc/self/cgroup: "4:memory:/path", or "0::/path" for version 2. */
static void line_apply(const char *root, char *line, struct allowance *allowance)
{
	char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;

	if (!path)
		return;
	list++;
	*path++ = 0;
	if (!*list) {
		walk_up(root, "/sys/fs/cgroup", path, allowance, apply_v2);
		walk_up(root, "/sys/fs/cgroup/unified", path, allowance, apply_v2);
	}
	if (list_has(list, "cpu"))
		walk_up(root, "/sys/fs/cgroup/cpu", path, allowance, apply_v1);
	if (list_has(list, "memory"))
		walk_up(root, "/sys/fs/cgroup/memory", path, allowance, apply_v1);
}

void cgroup_read(const char *root, struct allowance *allowance)
{
	char text[8192], *line = text, *next;

	*allowance = (struct allowance){INFINITY, INFINITY, INFINITY};
	if (!peek(root, "/proc/self/cgroup", text, sizeof text))
		return;
	for (; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		line_apply(root, line, allowance);
	}
}
