/* edgepipe profile: measures nodes and links, and says and writes what it found. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/session.h"

static const char profile_help[] =
	"edgepipe profile - how fast the nodes compute, and what the links between them carry\n"
	"\n"
	"Examples:\n"
	"  mpirun -np 5 edgepipe profile topologies/campus.yaml\n"
	"  mpirun -np 5 edgepipe profile topologies/campus.yaml -o profile.json\n"
	"  edgepipe plan topologies/campus.yaml --profile profile.json --explain\n"
	"\n"
	"Usage: mpirun -np NODES edgepipe profile TOPOLOGY.yaml [-o profile.json] [--set KEY=VALUE]...\n"
	"  -o, --output FILE   writes what was measured as JSON\n"
	"      --set KEY=VALUE overrides a key of the file, as for train\n"
	"  -h, --help          this text\n"
	"\n"
	"Runs blocks, head and embedding of the model (which every node needs, weights and all) on random data with the\n"
	"threads that train, and sends messages of growing sizes between every two nodes: each direction alone, both at once,\n"
	"and disjoint pairs at once. Nodes and links that are emulated are measured as they are held. Data are not needed. The\n"
	"result is also kept in ${XDG_CACHE_HOME:-~/.cache}/edgepipe, where a later `edgepipe train` finds it. A train whose nodes and\n"
	"links are all held to declared numbers plans with those, and uses a profile only where --profile names it.\n";

enum { OPTION_SET = 256 };

static const struct option long_options[] = {
	{"output", required_argument, NULL, 'o'},
	{"set", required_argument, NULL, OPTION_SET},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

/* -- options ------------------------------------------------------------------------------- */

/* 0, 1 for --help, -1 after an error. */
static int take_option(struct train_options *o, int option, char **argv)
{
	switch (option) {
	case 'o': o->profile = optarg; return 0;
	case OPTION_SET: o->set[o->set_count++] = optarg; return 0;
	case 'h': return 1;
	default: return option_error("profile", long_options, option, argv);
	}
}

static int read_options(struct train_options *o, int argc, char **argv)
{
	int option, status = 0;

	o->set = xzalloc((size_t)argc, sizeof(*o->set));
	o->command = "profile";
	opterr = 0;
	optind = 1;
	while (!status && (option = getopt_long(argc, argv, ":ho:", long_options, NULL)) != -1)
		status = take_option(o, option, argv);
	if (status)
		return status;
	o->topology = option_topology("profile", "mpirun -np 5 edgepipe profile topologies/campus.yaml", NULL, argc, argv);
	return o->topology ? 0 : -1;
}

/* -- the run ------------------------------------------------------------------------------- */

static void say_profile(const struct session *s, double seconds)
{
	struct text text = {0};
	char *line, *save;

	say("measured in %.1f s; seconds are of one sequence of %d tokens:", seconds, s->data.tokens);
	profile_print(s->profile, s->data.tokens, &text);
	for (line = strtok_r(text.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		say("%s", line);
	text_release(&text);
}

/* Rank 0: the file, and the cache. */
static int keep(struct session *s)
{
	struct text text = {0};
	int status = 0;

	if (s->comm->rank != 0)
		return 0;
	profile_write(s->profile, &text);
	if (s->options.profile)
		status = file_replace(s->options.profile, text.data, text.bytes);
	text_release(&text);
	if (cache_keep(&s->arena, s->profile))
		say("cached  %s", cache_path(&s->arena, s->profile));
	if (!status && s->options.profile)
		say("written %s", s->options.profile);
	return status;
}

/* Rank 0: measuring takes a minute, after which the file must have a place. */
static int check_output(struct session *s)
{
	const char *path = s->options.profile, *folder = path ? path_folder(&s->arena, path) : NULL;
	struct stat status;

	if (!path)
		return 0;
	if (stat(folder, &status) || access(folder, W_OK))
		return error(EXIT_CREATE, "cannot create '%s': %s", path, strerror(errno));
	if (!S_ISDIR(status.st_mode))
		return error(EXIT_CREATE, "cannot create '%s': '%s' is no folder", path, folder);
	if (!stat(path, &status) && S_ISDIR(status.st_mode))
		return error(EXIT_CREATE, "cannot create '%s': it is a folder", path);
	return 0;
}

static int run_phases(struct session *s)
{
	double start = clock_s();
	int code = setup_job(s);

	if (!code)
		code = session_agree(s, s->comm->rank == 0 ? check_output(s) : 0);

	if (!code)
		code = setup_model(s);
	if (!code) {
		s->data.tokens = dataset_sequence(&s->job.data, s->model);
		code = session_agree(s, s->data.tokens < 0 ? -1 : 0);
	}
	if (!code)
		code = setup_warm(s);
	if (!code)
		code = measure_cluster(s);
	if (code)
		return code;
	say_profile(s, clock_s() - start);
	return session_agree(s, keep(s));
}

int profile_run(struct comm *comm, const struct train_options *options)
{
	struct session session = {.options = *options, .comm = comm, .lock = -1};
	int code;

	log_rank(comm->rank);
	error_hold();
	code = run_phases(&session);
	session_release(&session);
	return code;
}

int command_profile(int argc, char **argv)
{
	struct train_options options = {0};
	struct comm *comm;
	int status;

	error_hold();
	status = read_options(&options, argc, argv);
	if (status) {
		free(options.set);
		return stop_before(status, profile_help);
	}
	error_clear();
	comm = comm_mpi_launched() > 1 ? comm_mpi_open(NULL, NULL) : comm_alone_open();
	status = comm ? profile_run(comm, &options) : error_code();
	if (comm)
		comm_close(comm);
	free(options.set);
	return status;
}
