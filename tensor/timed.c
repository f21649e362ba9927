/*
 * Kernels that are timed: what each call took is kept by slot and shape (timed_slots.c has the
 * table whose slots say so). What the times are good for is decided above; here they are only
 * kept.
 */
#include <string.h>

#include "tensor/internal.h"

/* One call, before it is known whether there was one like it. */
static struct timed_op *find(struct timed *t, const struct timed_op *like)
{
	for (int i = 0; i < t->count; i++) {
		struct timed_op *op = &t->op[i];

		if (op->slot == like->slot && op->dtype == like->dtype &&
		    !memcmp(op->size, like->size, sizeof op->size))
			return op;
	}
	if (t->count == t->room)
		return &t->lost;
	t->op[t->count] = *like;
	t->op[t->count].flops = t->op[t->count].bytes = 0;
	return &t->op[t->count++];
}

void timed_keep_call(struct device *dev, double start_s, const struct timed_op *call)
{
	double end_s = clock_s();
	struct timed_op *op;

	if (!dev->timed->counting)
		return;
	op = find(dev->timed, call);
	op->calls++;
	op->seconds += end_s - start_s;
	op->flops += call->flops;
	op->bytes += call->bytes;
}

void timed_open(struct device *dev, int room)
{
	struct timed *t = xzalloc(1, sizeof *t + (size_t)room * sizeof *t->op);

	t->inner = dev->k;
	t->room = room;
	t->lost.slot = "untold";
	dev->timed = t;
	timed_slots(&dev->k);
}

void timed_start(struct device *dev)
{
	dev->timed->counting = true;
	dev->timed->start_s = clock_s();
}

void timed_stop(struct device *dev)
{
	struct timed *t = dev->timed;

	t->spans_s += clock_s() - t->start_s;
	t->spans++;
	t->counting = false;
}

/* Grouped heads as "14/2": queries', and keys' with values'. */
static void attention_shape(const int *n, char *buffer, size_t bytes)
{
	char heads[32], window[32] = "";

	if (n[2] == n[3])
		snprintf(heads, sizeof heads, "%d", n[2]);
	else
		snprintf(heads, sizeof heads, "%d/%d", n[2], n[3]);
	if (n[5] > 0)
		snprintf(window, sizeof window, ", window %d", n[5]);
	snprintf(buffer, bytes, "%d x %d, %s heads of %d%s", n[0], n[1], heads, n[4], window);
}

const char *timed_shape(const struct timed_op *op, char *buffer, size_t bytes)
{
	const int *n = op->size;

	if (op->kind == TIMED_PRODUCT || op->kind == TIMED_THIN)
		snprintf(buffer, bytes, "%d x %d -> %d", n[0], n[1], n[2]);
	else if (op->kind == TIMED_PASS)
		snprintf(buffer, bytes, "%d x %d", n[0], n[1]);
	else
		attention_shape(n, buffer, bytes);
	return buffer;
}
