/*
 * proc.c - what /proc says of the machine: memory and instruction sets.
 *
 * The instruction sets come from the kernel's flags, not from CPUID: the kernel drops a flag
 * that it does not let programs use, and one table serves x86 and ARM.
 */
#include "profiler/internal.h"

#include <string.h>

void meminfo_read(const char *root, double *total_bytes, double *free_bytes)
{
	char text[4096];
	double kib;

	if (!peek(root, "/proc/meminfo", text, sizeof text))
		return;
	if (peek_number(text, "MemTotal", &kib))
		*total_bytes = kib * 1024;
	if (peek_number(text, "MemAvailable", &kib) || peek_number(text, "MemFree", &kib))
		*free_bytes = kib * 1024;
}

/* The kernel's flag and our word for it, as far as kernels care. */
static const struct { const char *flag, *word; } isa_words[] = {
	{"avx2", "avx2"},
	{"avx512f", "avx512"},
	{"avx512_vnni", "avx512_vnni"},
	{"avx512_bf16", "avx512_bf16"},
	{"amx_bf16", "amx"},
	{"asimd", "neon"},
	{"sve", "sve"},
	{"i8mm", "i8mm"},
	{"bf16", "bf16"},
};

/* Whether a line, up to its newline, has a word between blanks. */
static bool line_has(const char *line, const char *word)
{
	size_t bytes = strlen(word);
	const char *end = line + strcspn(line, "\n");

	while (line < end) {
		size_t length;

		line += strspn(line, " \t:");
		length = strcspn(line, " \t\n");
		if (length == bytes && memcmp(line, word, bytes) == 0)
			return true;
		line += length;
	}
	return false;
}

/* The flags of the first CPU; ARM calls them features. Null: none. */
static const char *flags_line(const char *text)
{
	const char *line = strstr(text, "\nflags");

	if (!line)
		line = strstr(text, "\nFeatures");
	return line ? line + 1 : NULL;
}

void isa_read(const char *root, char *isa, size_t bytes)
{
	char text[16384];
	const char *flags;
	char *end = isa;

	isa[0] = 0;
	if (!peek(root, "/proc/cpuinfo", text, sizeof text))
		return;
	flags = flags_line(text);
	if (!flags)
		return;
	for (size_t i = 0; i < sizeof isa_words / sizeof *isa_words; i++) {
		const char *word = isa_words[i].word;

		size_t room = bytes - (size_t)(end - isa);

		if (line_has(flags, isa_words[i].flag) && strlen(word) + 2 <= room)
			end += snprintf(end, room, "%s%s", end > isa ? " " : "", word);
	}
}
