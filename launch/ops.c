/*
 * ops.c - the table of `train --profile-ops`: what every op of a step took, how much of what this machine can do that is,
 * and what the step took beside its ops. Every rank makes its own; rank 0 prints them and writes ops.json.
 *
 * The least time of an op is that of its FLOPs at the rate of a large product, or of its bytes at the rate of a large
 * copy, whichever is longer: that one is the limit that it is held against. What fits into caches may beat the copy.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch/session.h"

/* Slots and shapes that a stage tells apart: some 40 for one family and one micro-batch. */
enum { OPS_ROOM = 256 };
#define SMALL 0.002		/* of the step: folded into one row */

struct device *ops_open(struct session *s)
{
	timed_open(s->device, OPS_ROOM);
	return s->device;
}

/* -- numbers ------------------------------------------------------------------------------- */

/* What is said of one rank. Sums are over all steps that were timed; seconds of a step: divided by their number. */
struct view {
	const struct session *session;
	const struct plan_stage *stage;
	int number;				/* of the stage */
	struct timed *timed;
	double steps, step_s;
	struct timed_op all, products;		/* sums */
	double products_least_s;
};

/* FLOP/s of products on matrices of a dtype. */
static double product_rate(const struct op_limits *limits, enum dtype dtype)
{
	const struct product_limit *of = &limits->product[dtype];

	return of->flops_s > 0 ? of->flops_s : limits->product[DTYPE_F32].flops_s;
}

/* Seconds that an op takes at the least, and which limit says so. */
static double least_s(const struct view *v, const struct timed_op *op, const char **limit)
{
	const struct op_limits *limits = &v->session->op_limits;
	double computing = op->flops / product_rate(limits, op->dtype);
	double moving = op->bytes / limits->memory_bytes_s;

	*limit = computing > moving ? "products" : "memory";
	return fmax(computing, moving);
}

static double share_of(double part, double whole)
{
	return whole > 0 ? part / whole : 0;
}

static void add_op(struct timed_op *sum, const struct timed_op *op)
{
	sum->calls += op->calls;
	sum->seconds += op->seconds;
	sum->flops += op->flops;
	sum->bytes += op->bytes;
}

static int slowest_first(const void *a, const void *b)
{
	const struct timed_op *x = a, *y = b;

	return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

static struct view view_of(const struct session *s, int number)
{
	struct timed *timed = s->device->timed;
	struct view v = {.session = s, .stage = &s->plan.stage[number], .number = number, .timed = timed};

	v.steps = (double)timed->spans;
	v.step_s = timed->spans_s / v.steps;
	qsort(timed->op, (size_t)timed->count, sizeof(*timed->op), slowest_first);
	for (int i = 0; i < timed->count; i++) {
		const struct timed_op *op = &timed->op[i];

		add_op(&v.all, op);
		if (op->kind != TIMED_PRODUCT)
			continue;
		add_op(&v.products, op);
		v.products_least_s += op->flops / product_rate(&s->op_limits, op->dtype);
	}
	add_op(&v.all, &timed->lost);
	return v;
}

/* -- the table ----------------------------------------------------------------------------- */

/* "  48   12.3 ms   9.9%", of sums over all steps. */
static void add_times(struct text *text, const struct view *v, const char *name, const struct timed_op *op)
{
	double seconds = op->seconds / v->steps;
	char calls[32] = "", took[32];

	if (op->calls > 0)
		snprintf(calls, sizeof(calls), "%.4g", (double)op->calls / v->steps);
	text_add(text, "%-46s %7s  %8s  %5.1f%%", name, calls,
		 unit_write(seconds, UNIT_SECONDS, took, sizeof(took)), 100 * seconds / v->step_s);
}

static void add_row(struct text *text, const struct view *v, const struct timed_op *op)
{
	char shape[64], name[128], rate[32];
	bool product = op->kind != TIMED_PASS;
	const char *limit;
	double least = least_s(v, op, &limit);

	snprintf(name, sizeof(name), "%s %s%s%s", op->slot, timed_shape(op, shape, sizeof(shape)),
		 op->dtype == DTYPE_F32 ? "" : " ", op->dtype == DTYPE_F32 ? "" : dtype_name(op->dtype));
	snprintf(rate, sizeof(rate), "%.3g %s", (product ? op->flops : op->bytes) / op->seconds / 1e9,
		 product ? "GFLOP/s" : "GB/s");
	add_times(text, v, name, op);
	text_add(text, "  %13s  %3.0f%% of %s\n", rate, 100 * share_of(least, op->seconds), limit);
}

static void add_named(struct text *text, const struct view *v, const char *name, const struct timed_op *op)
{
	add_times(text, v, name, op);
	text_add(text, "\n");
}

static void add_ops(struct text *text, const struct view *v)
{
	struct timed_op others = {0};
	int folded = 0;
	char name[64];

	for (int i = 0; i < v->timed->count; i++) {
		const struct timed_op *op = &v->timed->op[i];

		if (op->seconds >= SMALL * v->step_s * v->steps) {
			add_row(text, v, op);
		} else {
			add_op(&others, op);
			folded++;
		}
	}
	snprintf(name, sizeof(name), "others (%d)", folded);
	if (folded > 0)
		add_named(text, v, name, &others);
	snprintf(name, sizeof(name), "untold (beyond %d slots and shapes)", v->timed->room);
	if (v->timed->lost.calls > 0)
		add_named(text, v, name, &v->timed->lost);
}

static void add_limits(struct text *text, const struct view *v)
{
	const struct op_limits *limits = &v->session->op_limits;
	char bytes[32];

	text_add(text, "        limits, measured:");
	for (int i = 0; i <= DTYPE_I64; i++) {
		const struct product_limit *of = &limits->product[i];

		if (of->flops_s > 0)
			text_add(text, " products %.3g GFLOP/s (%s, %d x %d -> %d),", of->flops_s / 1e9,
				 dtype_name((enum dtype)i), of->side, of->side, of->side);
	}
	text_add(text, " memory %.3g GB/s (copy of %s)\n", limits->memory_bytes_s / 1e9,
		 unit_write(limits->copy_bytes, UNIT_BYTES, bytes, sizeof(bytes)));
}

/* Linears and head against the rate of a large product. */
static void add_summary(struct text *text, const struct view *v)
{
	const struct timed_op *p = &v->products;
	char took[32];

	if (p->calls == 0)
		return;
	text_add(text, "products of linears and head: %.3g GFLOP a step in %s: %.3g GFLOP/s, %.0f%% of the limit of "
		 "products\n", p->flops / v->steps / 1e9,
		 unit_write(p->seconds / v->steps, UNIT_SECONDS, took, sizeof(took)), p->flops / p->seconds / 1e9,
		 100 * v->products_least_s / p->seconds);
}

static void add_table(struct text *text, const struct view *v)
{
	const struct timed_op rest = {.seconds = v->step_s * v->steps - v->all.seconds};
	const struct timed_op step = {.seconds = v->step_s * v->steps};
	const struct session *s = v->session;
	int threads = pool_threads(s->device->pool);
	char took[32];

	text_add(text, "ops     stage %d (%s), %d thread%s: %.0f step%s of %s\n", v->number, s->stage_name[v->number],
		 threads, threads == 1 ? "" : "s", v->steps, v->steps == 1 ? "" : "s",
		 unit_write(v->step_s, UNIT_SECONDS, took, sizeof(took)));
	add_limits(text, v);
	text_add(text, "%-46s %7s  %8s  %6s  %13s  %s\n", "op (a step)", "calls", "seconds", "share", "rate",
		 "of its limit");
	add_ops(text, v);
	add_named(text, v, "sum of ops", &(struct timed_op){.seconds = v->all.seconds});
	add_named(text, v, s->job.emulate.compute ? "rest: waiting, messages, dispatch, declared pace"
						  : "rest: waiting, messages, dispatch", &rest);
	add_named(text, v, "step", &step);
	add_summary(text, v);
}

/* -- ops.json ------------------------------------------------------------------------------ */

static void add_sums(struct text *text, const struct view *v, const struct timed_op *op)
{
	text_add(text, "\"calls\":%.9g,\"seconds\":%.9g,\"flops\":%.17g,\"bytes\":%.17g", (double)op->calls / v->steps,
		 op->seconds / v->steps, op->flops / v->steps, op->bytes / v->steps);
}

static void add_op_object(struct text *text, const struct view *v, const struct timed_op *op)
{
	char shape[64];
	const char *limit;
	double least = least_s(v, op, &limit);

	text_add(text, "\n  {\"op\":\"%s\",\"shape\":\"%s\",\"dtype\":\"%s\",", op->slot,
		 timed_shape(op, shape, sizeof(shape)), dtype_name(op->dtype));
	add_sums(text, v, op);
	text_add(text, ",\"limit\":\"%s\",\"of_limit\":%.6g}", limit, share_of(least, op->seconds));
}

static void add_limits_object(struct text *text, const struct op_limits *limits)
{
	const char *separator = "";

	text_add(text, "{\"origin\":\"measured\",\"memory_bytes_s\":%.9g,\"product_flops_s\":{", limits->memory_bytes_s);
	for (int i = 0; i <= DTYPE_I64; i++) {
		if (limits->product[i].flops_s <= 0)
			continue;
		text_add(text, "%s\"%s\":%.9g", separator, dtype_name((enum dtype)i), limits->product[i].flops_s);
		separator = ",";
	}
	text_add(text, "}}");
}

static void add_object(struct text *text, const struct view *v)
{
	text_add(text, "{\"stage\":%d,\"node\":", v->number);
	json_add_text(text, v->session->stage_name[v->number]);
	text_add(text, ",\"threads\":%d,\"steps\":%.0f,\"step_s\":%.9g,\"ops_s\":%.9g,\"rest_s\":%.9g,\n "
		 "\"limits\":",
		 pool_threads(v->session->device->pool), v->steps, v->step_s, v->all.seconds / v->steps,
		 v->step_s - v->all.seconds / v->steps);
	add_limits_object(text, &v->session->op_limits);
	text_add(text, ",\n \"products\":{");
	add_sums(text, v, &v->products);
	text_add(text, ",\"of_limit\":%.6g", share_of(v->products_least_s, v->products.seconds));
	text_add(text, "},\n \"untold\":{");
	add_sums(text, v, &v->timed->lost);
	text_add(text, "},\n \"ops\":[");
	for (int i = 0; i < v->timed->count; i++) {
		text_add(text, "%s", i > 0 ? "," : "");
		add_op_object(text, v, &v->timed->op[i]);
	}
	text_add(text, "]}");
}

/* -- all ranks ----------------------------------------------------------------------------- */

static int own_number(const struct session *s)
{
	for (int i = 0; i < s->plan.stages; i++)
		if (s->plan.stage[i].node == s->comm->rank)
			return i;
	return -1;
}

/* What this rank tells rank 0: the object of ops.json, and the table, each ended by a NUL; nothing where no step of a
 * stage was run. */
static struct text own_words(const struct session *s)
{
	struct text text = {0};
	int number = own_number(s);
	struct view v;

	if (number < 0 || !s->device->timed || s->device->timed->spans == 0)
		return text;
	v = view_of(s, number);
	add_object(&text, &v);
	text_put(&text, "", 1);
	add_table(&text, &v);
	text_put(&text, "", 1);
	return text;
}

/* Rank 0; words of every rank. */
static void tell(struct session *s, void *const *words, const size_t *bytes)
{
	struct text file = {0};
	int told = 0;

	text_add(&file, "{\"version\":1,\"stages\":[");
	for (int i = 0; i < s->plan.stages; i++) {
		const char *object = words[s->rank_of_stage[i]];

		if (bytes[s->rank_of_stage[i]] == 0)
			continue;
		text_add(&file, "%s\n", told++ > 0 ? "," : "");
		text_add(&file, "%s", object);
		say("%s", object + strlen(object) + 1);
	}
	text_add(&file, "]}\n");
	if (told == 0)
		say("ops     no step was run: there is nothing to tell of ops");
	else if (file_replace(path_join(&s->arena, s->run, "ops.json"), file.data, file.bytes))
		warn("'%s/ops.json' was not written", s->run);
	else
		say("ops     %s/ops.json has all of them; attention counts visible pairs, 2 products forward, 4 "
		    "backward", s->run);
	text_release(&file);
}

int ops_share(struct session *s)
{
	struct text mine = own_words(s);
	void **words = xzalloc((size_t)s->comm->size, sizeof(*words));
	size_t *bytes = xzalloc((size_t)s->comm->size, sizeof(*bytes));
	int status = comm_gather(s->comm, 0, mine.data ? mine.data : "", mine.bytes, words, bytes);

	if (!status && s->comm->rank == 0)
		tell(s, words, bytes);
	for (int i = 0; s->comm->rank == 0 && i < s->comm->size; i++)
		free(words[i]);
	text_release(&mine);
	free(words);
	free(bytes);
	return status;
}
