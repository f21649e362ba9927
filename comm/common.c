/*
 * common.c - memory that the ranks of one machine share: when each shared interface is free,
 * and a bell for every rank.
 *
 * A robust mutex guards the times: where a rank is killed while it holds it, the next that
 * locks is told so and goes on. What the dead one left is sound, since any time is a sound
 * value.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "comm/internal.h"

/* What rank 0 tells the others: the name of the shared memory, or why there is none. */
struct invitation {
	char name[32];
	int why;		/* an errno; 0: it is there */
};

/* Maps what shm_open returned. Returns an errno, as does the next. */
static int map(struct common *common, int file, int ranks)
{
	void *memory;
	int why = file < 0 ? errno : posix_fallocate(file, 0, (off_t)common->bytes);

	if (!why) {
		memory = mmap(NULL, common->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
		why = memory == MAP_FAILED ? errno : 0;
		common->lock = why ? NULL : memory;
	}
	if (file >= 0)
		close(file);
	if (!why) {
		common->bell = (struct bell *)(common->lock + 1);
		common->free = (double *)(common->bell + ranks);
	}
	return why;
}

/* Rank 0. Zeroes say that all interfaces are free. */
static int make(struct common *common, const char *name, int ranks)
{
	int why = map(common, shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600), ranks);
	pthread_mutexattr_t robust;

	if (why)
		return why;
	pthread_mutexattr_init(&robust);
	pthread_mutexattr_setpshared(&robust, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
	why = pthread_mutex_init(common->lock, &robust);
	pthread_mutexattr_destroy(&robust);
	return why;
}

static void invite(struct common *common, struct invitation *invitation, int ranks)
{
	uint64_t chance = 0;

	if (getrandom(&chance, sizeof chance, 0) != (ssize_t)sizeof chance)
		chance = (uint64_t)getpid();
	snprintf(invitation->name, sizeof invitation->name, "/edgepipe-%016" PRIx64, chance);
	invitation->why = make(common, invitation->name, ranks);
}

int common_open(struct common *common, struct comm *comm, int nics)
{
	struct invitation invitation = {0};
	bool lost, missed;

	*common = (struct common){.bytes = sizeof *common->lock +
					   (size_t)comm->size * sizeof *common->bell +
					   (size_t)nics * sizeof *common->free};
	if (comm->rank == 0)
		invite(common, &invitation, comm->size);
	lost = comm_broadcast(comm, 0, &invitation, sizeof invitation) < 0;
	missed = lost || invitation.why ||
		 (comm->rank && map(common, shm_open(invitation.name, O_RDWR, 0), comm->size));
	missed = comm_any(comm, missed);
	if (comm->rank == 0)
		shm_unlink(invitation.name);	/* all have it, or nobody needs it */
	if (missed)
		common_close(common);
	if (lost || (missed && nics == 0))
		return lost ? -1 : 0;
	if (invitation.why)
		return error(EXIT_CONFIG, "cannot make memory for shared interfaces: %s",
			     strerror(invitation.why));
	if (missed)
		return error(EXIT_CONFIG, "shared interfaces can only be emulated with all "
			     "ranks on one machine");
	return 0;
}

void common_close(struct common *common)
{
	if (common->lock)
		munmap(common->lock, common->bytes);
	*common = (struct common){0};
}
