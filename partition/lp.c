/*
 * lp.c - the problem of J as a mixed integer program in the LP format, for an independent
 * solver.
 *
 * y_d_p_q is 1 where node d runs blocks p..q-1 and hands over, z_d_p where it runs blocks p..
 * and the head, x_i_j_p where node i hands over to node j at the cut before block p; T is the
 * period. A plan is a path over cuts, which only rise, so no cycle needs to be forbidden; the
 * head alone stands behind the last cut. In-flight counts follow from T by a rule that is not
 * linear, so a stage is in the program only if it has room for all M micro-batches: where
 * memory is short of that, the program's optimum is no less than J.
 */
#include <math.h>

#include "partition/solvers.h"

struct program {
	const struct instance *in;
	struct text *text;
	int terms;			/* of the row */
};

static bool may_run(const struct instance *in, int d, int p, int q, bool last)
{
	bool alone = in->head_alone && in->nodes > 1;

	if (last ? q < in->blocks || (p == q && !alone) : p == q || (q == in->blocks && !alone))
		return false;
	return stage_room(in, d, p, q, last) >= in->micro_batches;
}

static bool may_follow(const struct instance *in, int i, int j, int p)
{
	return i != j && p > 0 && (p < in->blocks || in->head_alone) &&
	       !isinf(cut_way_s(in, i, j, p));
}

/* One term of a row: a coefficient and a name. */
static void add_stage(struct program *o, double times, int d, int p, int q, bool last)
{
	text_add(o->text, "%s%+.17g ", o->terms++ % 8 == 7 ? "\n  " : " ", times);
	if (last)
		text_add(o->text, "z_%d_%d", d, p);
	else
		text_add(o->text, "y_%d_%d_%d", d, p, q);
}

static void add_way(struct program *o, double times, int i, int j, int p)
{
	text_add(o->text, "%s%+.17g x_%d_%d_%d", o->terms++ % 8 == 7 ? "\n  " : " ", times, i,
		 j, p);
}

/* What is done with every stage, and with every link, that may be. */
static void each_stage(struct program *o,
		       void (*visit)(struct program *o, int d, int p, int q, bool last))
{
	for (int d = 0; d < o->in->nodes; d++)
		for (int p = 0; p <= o->in->blocks; p++)
			for (int q = p; q <= o->in->blocks; q++)
				for (int last = 0; last < 2; last++)
					if (may_run(o->in, d, p, q, last))
						visit(o, d, p, q, last);
}

static void each_way(struct program *o, void (*visit)(struct program *o, int i, int j, int p))
{
	for (int i = 0; i < o->in->nodes; i++)
		for (int j = 0; j < o->in->nodes; j++)
			for (int p = 1; p <= o->in->blocks; p++)
				if (may_follow(o->in, i, j, p))
					visit(o, i, j, p);
}

static void cost_stage(struct program *o, int d, int p, int q, bool last)
{
	add_stage(o, stage_s(o->in, d, p, q, last), d, p, q, last);
}

static void cost_way(struct program *o, int i, int j, int p)
{
	add_way(o, cut_way_s(o->in, i, j, p), i, j, p);
}

static void first_stage(struct program *o, int d, int p, int q, bool last)
{
	if (p == 0)
		add_stage(o, 1, d, p, q, last);
}

static void any_stage(struct program *o, int d, int p, int q, bool last)
{
	add_stage(o, 1, d, p, q, last);
}

static void link_row(struct program *o, int i, int j, int p)
{
	text_add(o->text, " l_%d_%d_%d: T %+.17g x_%d_%d_%d >= 0\n", i, j, p,
		 -cut_longest_s(o->in, i, j, p), i, j, p);
}

static void begin_row(struct program *o, const char *name, int a, int b)
{
	o->terms = 0;
	text_add(o->text, " %s_%d_%d:", name, a, b);
}

/* Each node runs one stage at most, and no longer than a period. */
static void node_rows(struct program *o, int d)
{
	const struct instance *in = o->in;

	for (int row = 0; row < 2; row++) {
		begin_row(o, row ? "busy" : "once", d, 0);
		if (row)
			text_add(o->text, " T");
		for (int p = 0; p <= in->blocks; p++)
			for (int q = p; q <= in->blocks; q++)
				for (int last = 0; last < 2; last++)
					if (may_run(in, d, p, q, last))
						add_stage(o,
							  row ? -stage_s(in, d, p, q, last) : 1,
							  d, p, q, last);
		if (!row && !o->terms)
			text_add(o->text, " 0 T");
		text_add(o->text, row ? " >= 0\n" : " <= 1\n");
	}
}

/* A stage that begins at block p > 0 has one before it; one that is not the last hands over
 * where it ends. */
static void path_rows(struct program *o, int d, int p)
{
	const struct instance *in = o->in;

	begin_row(o, "in", d, p);
	text_add(o->text, " 0 T");
	for (int q = p; q <= in->blocks; q++)
		for (int last = 0; last < 2; last++)
			if (may_run(in, d, p, q, last))
				add_stage(o, 1, d, p, q, last);
	for (int i = 0; i < in->nodes; i++)
		if (may_follow(in, i, d, p))
			add_way(o, -1, i, d, p);
	text_add(o->text, " = 0\n");
	begin_row(o, "out", d, p);
	text_add(o->text, " 0 T");
	for (int begin = 0; begin < p; begin++)
		if (may_run(in, d, begin, p, false))
			add_stage(o, 1, d, begin, p, false);
	for (int j = 0; j < in->nodes; j++)
		if (may_follow(in, d, j, p))
			add_way(o, -1, d, j, p);
	text_add(o->text, " = 0\n");
}

static void rows(struct program *o)
{
	const struct instance *in = o->in;

	begin_row(o, "first", 0, 0);
	text_add(o->text, " 0 T");
	each_stage(o, first_stage);
	text_add(o->text, " = 1\n");
	if (in->stages) {
		begin_row(o, "stages", 0, 0);
		text_add(o->text, " 0 T");
		each_stage(o, any_stage);
		text_add(o->text, " = %d\n", in->stages);
	}
	for (int d = 0; d < in->nodes; d++) {
		node_rows(o, d);
		for (int p = 1; p <= in->blocks; p++)
			path_rows(o, d, p);
	}
	each_way(o, link_row);
}

static void name_stage(struct program *o, int d, int p, int q, bool last)
{
	if (last)
		text_add(o->text, " z_%d_%d\n", d, p);
	else
		text_add(o->text, " y_%d_%d_%d\n", d, p, q);
}

static void name_way(struct program *o, int i, int j, int p)
{
	text_add(o->text, " x_%d_%d_%d\n", i, j, p);
}

void lp_write(const struct instance *in, struct text *text)
{
	struct program o = {.in = in, .text = text};

	text_add(
	    text,
	    "\\ J of %d blocks on %d nodes with %d micro-batches: seconds of a step\nMinimize\n"
	    " step:",
	    in->blocks, in->nodes, in->micro_batches);
	each_stage(&o, cost_stage);
	each_way(&o, cost_way);
	text_add(text, " %+d T\nSubject To\n", in->micro_batches - 1);
	rows(&o);
	text_add(text, "Binary\n");
	each_stage(&o, name_stage);
	each_way(&o, name_way);
	text_add(text, "End\n");
}
