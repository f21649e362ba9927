/* All ranks fail together, and one fault is said once. */
#include <stdlib.h>
#include <string.h>

#include "launch/session.h"

/* Rank 0: the texts of all ranks, each once. */
static void print_texts(char *const *text, const int *code, int ranks)
{
	for (int i = 0; i < ranks; i++) {
		int same = 0;
		bool first = true;

		if (code[i] == 0)
			continue;
		for (int j = 0; j < ranks; j++)
			if (code[j] && !strcmp(text[j], text[i])) {
				same++;
				first = first && j >= i;
			}
		if (!first)
			continue;
		if (i > 0 && text[i][0])
			fprintf(stderr, "edgepipe: on rank %d%s:\n", i,
				same > 1 ? " and others" : "");
		fputs(text[i][0] ? text[i] : "edgepipe: error: failed without a word\n", stderr);
	}
}

/* One rank's code and text in one message: 4 bytes, then the text with its NUL. */
static int gather_failures(struct session *s, int code)
{
	const char *mine = error_text();
	size_t bytes = strlen(mine) + 1;
	char *message = xalloc(sizeof(code) + bytes);
	void **data = xzalloc((size_t)s->comm->size, sizeof(*data));
	size_t *sizes = xzalloc((size_t)s->comm->size, sizeof(*sizes));
	char **text = xzalloc((size_t)s->comm->size, sizeof(*text));
	int *codes = xzalloc((size_t)s->comm->size, sizeof(*codes));
	int result = code;

	memcpy(message, &code, sizeof(code));
	memcpy(message + sizeof(code), mine, bytes);
	if (comm_gather(s->comm, 0, message, sizeof(code) + bytes, data, sizes))
		result = EXIT_RETRY;
	else if (s->comm->rank == 0) {
		for (int i = 0; i < s->comm->size; i++) {
			memcpy(&codes[i], data[i], sizeof(codes[i]));
			text[i] = (char *)data[i] + sizeof(codes[i]);
		}
		print_texts(text, codes, s->comm->size);
		for (int i = s->comm->size - 1; i >= 0; i--)
			result = codes[i] ? codes[i] : result;
	}
	if (s->comm->rank == 0)
		for (int i = 0; i < s->comm->size; i++)
			free(data[i]);
	free(message);
	free(data);
	free(sizes);
	free(text);
	free(codes);
	if (comm_broadcast(s->comm, 0, &result, sizeof(result)))
		return EXIT_RETRY;
	return result;
}

int session_agree(struct session *s, int status)
{
	int code = status ? error_code() ? error_code() : EXIT_BUG : 0;
	int result = 0;

	if (comm_any(s->comm, code != 0))
		result = gather_failures(s, code);
	error_clear();
	error_hold();
	return result;
}

int session_exchange(struct session *s, const struct rank_facts *mine)
{
	s->facts[s->comm->rank] = *mine;
	for (int rank = 0; rank < s->comm->size; rank++)
		if (comm_broadcast(s->comm, rank, &s->facts[rank], sizeof(*mine)))
			return -1;
	return 0;
}

/* Says which ranks differ from rank 0 in one digest. */
static int compare_digest(const struct session *s, size_t offset, const char *what)
{
	const struct rank_facts *facts = s->facts;
	int status = 0;

	for (int i = 1; i < s->comm->size; i++) {
		struct digest a, b;

		memcpy(&a, (const char *)&facts[0] + offset, sizeof(a));
		memcpy(&b, (const char *)&facts[i] + offset, sizeof(b));
		if (!digest_equal(a, b))
			status = error(EXIT_CONFIG, "%s of node \"%s\" (rank %d, %s) differs from "
				       "that of rank 0 (%s)", what,
				       cluster_node(&s->job.cluster, i)->name, i,
				       facts[i].hardware.host, facts[0].hardware.host);
	}
	return status;
}

int session_compare(const struct session *s)
{
	int status = 0;

	if (s->comm->rank != 0)
		return 0;
	status |= compare_digest(s, offsetof(struct rank_facts, build), "the build of edgepipe");
	status |= compare_digest(s, offsetof(struct rank_facts, configuration),
				 "the topology file or an option");
	status |= compare_digest(s, offsetof(struct rank_facts, model), "config.json of the model");
	status |= compare_digest(s, offsetof(struct rank_facts, headers),
				 "the header of the model's safetensors");
	for (int i = 1; i < s->comm->size && !status; i++)
		if (strcmp(s->facts[i].hardware.isa, s->facts[0].hardware.isa) ||
		    strcmp(s->facts[i].blas, s->facts[0].blas)) {
			warn("rank %d computes with %s (%s), rank 0 with %s (%s): results may "
			     "differ in the last bits with the cuts", i, s->facts[i].blas,
			     s->facts[i].hardware.isa, s->facts[0].blas, s->facts[0].hardware.isa);
			break;
		}
	return status;
}

void session_release(struct session *s)
{
	wire_close(s);
	rundir_close(s, s->began);
	stage_close(s->stage);
	device_close(s->device);
	profile_free(s->profile);
	packing_close(s->packing);
	packing_close(s->valid_packing);
	dataset_close(s->train);
	dataset_close(s->valid);
	lora_free(s->lora);
	weights_close(s->weights);
	model_config_free(s->model);
	job_release(&s->job);
	free(s->passes);
	free(s->frame);
	free(s->values);
	free(s->facts);
	free(s->samples);
	free(s->run);
	arena_release(&s->arena);
	error_clear();
}
