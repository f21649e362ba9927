/*
 * inference.c - what commands that only run a model forward have of their own in the phases of set-up: an adapter that was
 * trained elsewhere or none at all, other data, and one rank in place of a whole cluster.
 */
#include <string.h>

#include "launch/session.h"

bool session_trains(const struct session *s)
{
	return strcmp(s->options.command, "eval") && strcmp(s->options.command, "generate");
}

void inference_alone(struct session *s)
{
	struct job *job = &s->job;
	struct node *here = job->cluster.nodes.item;

	if (session_trains(s) || s->comm->size > 1 || job->cluster.nodes.count < 2)
		return;
	*here = (struct node){.name = "this machine", .device = here->device};
	job->cluster.nodes.count = 1;
	job->cluster.links = (struct list){0};
	job->emulate.links = job->emulate.compute = false;
	job->plan.layers = (struct texts){0};
	job->plan.cuts = (struct list){0};
	job->plan.stages = 0;
	job->plan.solver = "uniform";
	if (s->options.plan)
		warn("one rank runs all blocks itself: --plan is for mpirun");
	s->options.plan = NULL;
}

/* Where no plan fits, generate.c says what is needed and what would fit, which takes a plan to say it of. */
int inference_plan(struct session *s)
{
	int status;

	error_mute();
	status = plan_decide(&s->problem, s->options.plan, &s->given, &s->plan);
	error_unmute();
	if (!status)
		return 0;
	memset(s->memory_limit_bytes, 0, (size_t)s->comm->size * sizeof(double));
	return plan_decide(&s->problem, s->options.plan, &s->given, &s->plan);
}

/* The adapter of a run, or the directory itself. */
static const char *adapter_folder(struct arena *arena, const char *folder)
{
	const char *of_run = path_join(arena, folder, "adapter");

	if (!path_exists(path_join(arena, folder, "adapter_config.json")) &&
	    path_exists(path_join(arena, of_run, "adapter_config.json")))
		return of_run;
	return folder;
}

/* Why something that is there is no adapter; null: it may be one. */
static const char *no_adapter(struct arena *arena, const char *folder)
{
	if (!path_exists(folder) || path_exists(path_join(arena, folder, "adapter_config.json")))
		return NULL;
	if (!path_exists(path_join(arena, folder, ".")))
		return "it is a file";
	if (path_exists(path_join(arena, folder, "metrics.jsonl")))
		return "this run has no adapter yet: it is written when a run ends";
	if (path_exists(path_join(arena, folder, "config.json")))
		return "it has no adapter_config.json, and looks like a model";
	return "it has no adapter_config.json";
}

struct lora *inference_lora(const struct session *s)
{
	struct lora_config want = s->job.lora;
	struct arena arena = {0};
	struct lora *lora;
	const char *why;

	if (!s->options.adapter)
		return want.init ? lora_resolve(s->model, &want) : lora_none();
	want = (struct lora_config){.init = adapter_folder(&arena, s->options.adapter)};
	why = no_adapter(&arena, want.init);
	if (why)
		lora = error_null(EXIT_INPUT, "'%s' is no adapter: %s; --adapter takes a folder with adapter_config.json and "
				  "adapter_model.safetensors, or a run directory", want.init, why);
	else
		lora = lora_resolve(s->model, &want);
	arena_release(&arena);
	return lora;
}

const char *inference_data(const struct session *s)
{
	return s->options.data ? s->options.data : s->job.data.valid;
}

/* -- the command --------------------------------------------------------------------------- */

enum { WATCH_ENDING = WATCH_KINDS + 1 };

/* Whatever lies outside of all other sections is the end: what is left on emulated links, and MPI's own. */
static int run_over(struct comm *comm, inference_run *run, const void *options, struct watch *watch)
{
	int status;

	watchdog_enter(watch_dog(watch), &(struct watchdog_section){WATCH_ENDING, 3, "ending", "the other ranks", -1, -1});
	status = run(comm, options, watch);
	comm_close(comm);
	watchdog_leave(watch_dog(watch));
	return status;
}

int inference_command(int status, const char *help, inference_run *run, const void *options)
{
	struct watch *watch;
	struct comm *comm;

	if (status)
		return stop_before(status, help);
	error_clear();
	watch = watch_open();
	comm = watch ? comm_mpi_launched() > 1 ? comm_mpi_open(NULL, NULL) : comm_alone_open() : NULL;
	status = comm ? run_over(comm, run, options, watch) : error_code();
	watch_close(watch);
	return status;
}
