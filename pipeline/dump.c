/*
 * --dump: what step 1 computed, as one safetensors file, for comparing with other programs.
 * Every stage keeps the hidden states of its own blocks; the head also the last one and the
 * logits.
 */
#include <stdlib.h>
#include <string.h>

#include "pipeline/internal.h"

struct dump {
	const struct training *training;
	size_t cut;			/* elements of a micro-batch's hidden state */
	size_t batch;			/* of the whole batch's */
	int first, count;		/* hidden states kept on this rank */
	float *hidden;			/* (count, batch) */
	float *logits;			/* on the head: (batch rows, V) */
};

/* Which hidden states a rank keeps. */
struct share { int first, count; int logits; };

static struct share share_of(const struct training *t)
{
	const struct places *p = &t->places;
	struct share share = {0, 0, 0};

	if (!t->stage)
		return share;
	share.first = t->first_block;
	share.count = t->blocks;
	share.logits = p->stage == p->stages - 1;
	share.count += share.logits;
	return share;
}

static size_t logits_elements(const struct training *t)
{
	return (size_t)t->micro_batches * (size_t)t->sequences * (size_t)t->tokens *
	       (size_t)t->model->vocabulary;
}

struct dump *dump_open(const struct training *t)
{
	struct dump *dump = xzalloc(1, sizeof(*dump));
	struct share share = share_of(t);

	dump->training = t;
	dump->cut = (size_t)t->sequences * (size_t)t->tokens * (size_t)t->model->width;
	dump->batch = dump->cut * (size_t)t->micro_batches;
	dump->first = share.first;
	dump->count = share.count;
	dump->hidden = xzalloc((size_t)share.count * dump->batch + 1, sizeof(float));
	if (share.logits)
		dump->logits = xzalloc(logits_elements(t), sizeof(float));
	return dump;
}

void dump_observe(void *arg, int micro)
{
	struct dump *dump = arg;
	const struct training *t = dump->training;

	for (int i = 0; i < dump->count; i++)
		stage_hidden(t->stage, i, dump->hidden + (size_t)i * dump->batch +
						  (size_t)micro * dump->cut);
	if (dump->logits)
		stage_logits(t->stage, dump->logits + (size_t)micro * logits_elements(t) /
							      (size_t)t->micro_batches);
}

void dump_close(struct dump *dump)
{
	if (!dump)
		return;
	free(dump->hidden);
	free(dump->logits);
	free(dump);
}

/* Everything on rank 0. */
struct dumped {
	float *hidden, *logits, *gradients;
	float loss;
};

static int send_share(const struct dump *dump, struct share share)
{
	const struct training *t = dump->training;

	if (comm_send_now(t->comm, 0, TAG_DUMP, &share, sizeof(share)))
		return -1;
	if (share.count > 0 &&
	    comm_send_now(t->comm, 0, TAG_DUMP, dump->hidden,
			  (size_t)share.count * dump->batch * sizeof(float)))
		return -1;
	if (share.logits && comm_send_now(t->comm, 0, TAG_DUMP, dump->logits,
					  logits_elements(t) * sizeof(float)))
		return -1;
	return 0;
}

static int receive_share(const struct dump *dump, int rank, struct dumped *all)
{
	const struct training *t = dump->training;
	struct share share;

	if (comm_recv_now(t->comm, rank, TAG_DUMP, &share, sizeof(share)))
		return -1;
	if (share.count > 0 && comm_recv_now(t->comm, rank, TAG_DUMP,
					     all->hidden + (size_t)share.first * dump->batch,
					     (size_t)share.count * dump->batch * sizeof(float)))
		return -1;
	if (share.logits && comm_recv_now(t->comm, rank, TAG_DUMP, all->logits,
					  logits_elements(t) * sizeof(float)))
		return -1;
	return 0;
}

static int receive_all(const struct dump *dump, struct dumped *all)
{
	const struct training *t = dump->training;
	struct share mine = share_of(t);

	memcpy(all->hidden + (size_t)mine.first * dump->batch, dump->hidden,
	       (size_t)mine.count * dump->batch * sizeof(float));
	if (mine.logits)
		memcpy(all->logits, dump->logits, logits_elements(t) * sizeof(float));
	for (int rank = 1; rank < t->comm->size; rank++)
		if (receive_share(dump, rank, all))
			return -1;
	return 0;
}

static int write_file(const struct dump *dump, const struct dumped *all)
{
	const struct training *t = dump->training;
	long long B = (long long)t->sequences * t->micro_batches, T = t->tokens;
	struct arena arena = {0};
	struct safetensors_entry *entry =
		arena_take(&arena, (size_t)(t->lora->count + 3) * sizeof(*entry));
	int status;

	entry[0] = (struct safetensors_entry){"logits", DTYPE_F32, 3,
					      {B, T, t->model->vocabulary}, all->logits};
	entry[1] = (struct safetensors_entry){"hidden_states", DTYPE_F32, 4,
					      {t->model->blocks + 1, B, T, t->model->width},
					      all->hidden};
	entry[2] = (struct safetensors_entry){"loss", DTYPE_F32, 1, {1}, &all->loss};
	for (int i = 0; i < t->lora->count; i++) {
		const struct lora_tensor *x = &t->lora->tensor[i];

		entry[3 + i] = (struct safetensors_entry){
			x->name, DTYPE_F32, 2, {x->rows, x->cols}, all->gradients + x->offset};
	}
	status =
	    folder_make(t->dump) ||
	    safetensors_write(arena_format(&arena, "%s/step-00000001.safetensors", t->dump),
			      entry, t->lora->count + 3, NULL);
	arena_release(&arena);
	return status ? -1 : 0;
}

int dump_write(struct dump *dump, float loss)
{
	const struct training *t = dump->training;
	struct dumped all = {.loss = loss};
	int status;

	if (t->comm->rank != 0)
		return send_share(dump, share_of(t)) ||
				       state_gather(t, STAGE_GRADIENTS, NULL)
			       ? -1
			       : 0;
	all.hidden = xalloc((size_t)(t->model->blocks + 1) * dump->batch * sizeof(float));
	all.logits = xalloc(logits_elements(t) * sizeof(float));
	all.gradients = xalloc(t->lora->elements * sizeof(float));
	status = receive_all(dump, &all) || state_gather(t, STAGE_GRADIENTS, all.gradients) ||
		 write_file(dump, &all);
	free(all.hidden);
	free(all.logits);
	free(all.gradients);
	return status ? -1 : 0;
}
