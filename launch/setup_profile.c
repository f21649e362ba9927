/*
 * setup_profile.c - what the plan of `train` is made from: a profile that was given, else one that was kept, else one
 * that is measured now, where the solver asks for more than declared numbers.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "launch/session.h"

/* Solvers that never profile: their plans hang on declared numbers alone. */
static const char *const blind[] = {"uniform", "proportional", "manual"};

/* The solver of a job that names none: the best one, but for the one by hand. */
static const char *standard_solver(void)
{
	const char *const *name = solver_names();

	while (*name && !strcmp(*name, "manual"))
		name++;
	return *name ? *name : "manual";
}

/* Whether links and nodes are held to declared numbers, all of them: measuring would find just those. */
static bool all_held(const struct job *job)
{
	for (int i = 0; i < job->cluster.nodes.count; i++)
		if (cluster_node(&job->cluster, i)->compute_flops <= 0)
			return false;
	return job->emulate.links && job->emulate.compute;
}

/* Whether a plan has to be made that a profile makes better. */
static bool wants_profile(const struct session *s)
{
	const char *solver = s->job.plan.solver ? s->job.plan.solver : standard_solver();

	if (s->options.plan || s->job.plan.layers.count > 0 || s->comm->size == 1)
		return false;
	for (size_t i = 0; i < sizeof(blind) / sizeof(*blind); i++)
		if (!strcmp(solver, blind[i]))
			return false;
	if (!all_held(&s->job))
		return true;
	say("profile not needed: nodes and links are held to declared numbers; --profile FILE would be used");
	return false;
}

/* -- a given one --------------------------------------------------------------------------- */

static int read_given(struct session *s)
{
	struct profile *want = profile_wanted(&s->job, s->model, s->lora, s->data.tokens, s->facts);
	int status;

	s->profile = want ? profile_read(s->options.profile) : NULL;
	status = s->profile ? profile_check(s->profile, want, s->options.profile) : -1;
	profile_free(want);
	return status;
}

/* -- one that is measured ------------------------------------------------------------------ */

void memory_forget(struct session *s)
{
	int peak = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);

	for (int i = 0; i < s->weights->files; i++)
		for (int k = 0; k < s->weights->file[i]->count; k++)
			safetensor_forget(&s->weights->file[i]->tensor[k], s->weights->file[i]->tensor[k].bytes);
	heap_trim();
	if (peak < 0)
		return;
	if (write(peak, "5", 1) != 1)
		note("the peak of memory includes what measuring took");
	close(peak);
}

/* Rank 0: whether one is kept. */
static bool find_kept(struct session *s)
{
	struct profile *want = profile_wanted(&s->job, s->model, s->lora, s->data.tokens, s->facts);

	if (want)
		s->profile = cache_find(&s->arena, want);
	if (s->profile)
		say("profile from %s", cache_path(&s->arena, want));
	profile_free(want);
	return s->profile != NULL;
}

static int measure_now(struct session *s)
{
	int code;

	say("profile none is kept of these nodes, links, model and build: measuring");
	code = measure_cluster(s);
	if (code)
		return code;
	memory_forget(s);
	if (s->comm->rank == 0 && cache_keep(&s->arena, s->profile))
		say("profile kept in %s", cache_path(&s->arena, s->profile));
	return setup_overhead(s);
}

int setup_profile(struct session *s)
{
	bool kept = false;
	int status = 0;

	if (s->options.profile) {
		if (s->comm->rank == 0)
			status = read_given(s);
		return session_agree(s, status);
	}
	if (!wants_profile(s))
		return 0;
	if (s->comm->rank == 0)
		kept = find_kept(s);
	if (comm_broadcast(s->comm, 0, &kept, sizeof(kept)))
		return EXIT_RETRY;
	return kept || !session_trains(s) ? 0 : measure_now(s);
}
