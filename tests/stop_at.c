/*
 * stop_at.c - preloaded into a rank, it stops that rank (SIGSTOP) at one place of a run that no clock can hit.
 *
 *	LD_PRELOAD=libstop_at.so STOP_RANK=0 STOP_AT=adapter mpirun ...
 *
 * The place is the first mkdir whose path, or write whose bytes contain STOP_AT, or MPI_Finalize for that word.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int MPI_Finalize(void);
int PMPI_Finalize(void);

static void stop_at(const void *what, size_t bytes)
{
	const char *place = getenv("STOP_AT"), *rank = getenv("STOP_RANK"), *mine = getenv("OMPI_COMM_WORLD_RANK");

	if (place && rank && mine && !strcmp(rank, mine) && memmem(what, bytes, place, strlen(place)))
		raise(SIGSTOP);
}

int mkdir(const char *path, mode_t mode)
{
	stop_at(path, strlen(path));
	return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

/* The bytes have left when it stops. */
ssize_t write(int file, const void *data, size_t bytes)
{
	ssize_t status = syscall(SYS_write, file, data, bytes);

	stop_at(data, bytes);
	return status;
}

int MPI_Finalize(void)
{
	stop_at("MPI_Finalize", strlen("MPI_Finalize"));
	return PMPI_Finalize();
}
