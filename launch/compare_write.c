/* compare_write.c - the rows as a table for people, as JSON (docs: the field names are a promise) and as CSV. */
#include <string.h>

#include "launch/compare.h"

const char *compare_codec(const struct comparison *c, const struct compare_case *of)
{
	const struct link *link = c->job.cluster.links.item;
	int kind = c->job.cluster.standard.codec;

	if (of->codec)
		return of->codec;
	for (int i = 0; i < c->job.cluster.links.count; i++)
		if (link[i].codec_given && link[i].codec != kind)
			return "as declared";
	return kind == CODEC_AUTO ? "auto" : codec_of((enum codec_kind)kind, false)->name;
}

/* -- the table ----------------------------------------------------------------------------- */

const char *compare_number(double value, char *buffer, size_t bytes)
{
	snprintf(buffer, bytes, value >= 99.95 ? "%.0f" : "%#.3g", value);
	return buffer;
}

const char *compare_tokens(double count, char *buffer, size_t bytes)
{
	snprintf(buffer, bytes, count < 1e6 ? "%.0f" : "%.4g million", count < 1e6 ? count : count / 1e6);
	return buffer;
}

/* Seconds as "4.01 h"; returns buffer. */
static const char *time_write(double s, char *buffer, size_t bytes)
{
	double unit = s >= 3 * 86400 ? 86400 : s >= 3600 ? 3600 : s >= 60 ? 60 : 1;
	char number[24];

	snprintf(buffer, bytes, "%s %s", compare_number(s / unit, number, sizeof(number)),
		 unit > 3600 ? "days" : unit > 60 ? "h" : unit > 1 ? "min" : "s");
	return buffer;
}

static void add_setting(const struct comparison *c, struct text *text)
{
	char tokens[32];

	text_add(text, "compare %s: %s tokens in sequences of %d, micro-batches of %d sequence%s, split %s, efficiency %g\n",
		 c->job.cluster.name, compare_tokens(c->asked.tokens, tokens, sizeof(tokens)), c->tokens, c->asked.micro_batch,
		 c->asked.micro_batch > 1 ? "s" : "", split_name(c->asked.split), c->asked.efficiency);
	if (c->clients)
		text_add(text, "%d client%s, each with the embedding and %d block%s, dealt micro-batches in turn\n", c->clients,
			 c->clients > 1 ? "s" : "", c->client_blocks, c->client_blocks > 1 ? "s" : "");
}

static void add_stage(const struct comparison *c, const struct compare_stage *stage, struct text *text)
{
	const char *name = cluster_node(&c->job.cluster, stage->node)->name;

	if (c->asked.split == SPLIT_FRACTIONAL)
		text_add(text, " %s %.0f%%", name, 100 * stage->share);
	else if (stage->blocks == 0)
		text_add(text, " %s head", name);
	else if (stage->blocks == 1)
		text_add(text, " %s %d", name, stage->first_block);
	else
		text_add(text, " %s %d-%d", name, stage->first_block, stage->first_block + stage->blocks - 1);
}

static void add_row(const struct comparison *c, const struct compare_row *row, bool best, struct text *text)
{
	char step[32], total[32];

	text_add(text, "%4d%c  %-10s  %-10s  %5d  ", row->hops, best ? '*' : ' ', compare_codec(c, &row->of),
		 row->of.schedule, row->of.micro_batches);
	if (row->step_s <= 0) {
		text_add(text, "%s\n", row->why);
		return;
	}
	text_add(text, "%10s  %10s  %-24s ", time_write(row->step_s, step, sizeof(step)),
		 time_write(row->total_s, total, sizeof(total)), row->bottleneck);
	for (int s = 0; s < row->hops; s++)
		add_stage(c, &row->stage[s], text);
	text_add(text, "\n");
}

static bool same_case(const struct compare_case *a, const struct compare_case *b)
{
	return a->codec == b->codec && a->schedule == b->schedule && a->micro_batches == b->micro_batches;
}

const struct compare_row *compare_best(const struct comparison *c, const struct compare_case *of)
{
	const struct compare_row *best = NULL;

	for (int i = 0; i < c->rows; i++)
		if (c->row[i].step_s > 0 && same_case(&c->row[i].of, of) && (!best || c->row[i].total_s < best->total_s))
			best = &c->row[i];
	return best;
}

void compare_table(const struct comparison *c, struct text *text)
{
	const struct compare_row *best = &c->row[c->best];
	char total[32];

	add_setting(c, text);
	text_add(text, "hops   %-10s  %-10s  %5s  %10s  %10s  %-24s  servers and their %s\n", "codec", "schedule", "M",
		 "step", "training", "busiest", c->asked.split == SPLIT_FRACTIONAL ? "share of the FLOPs" : "blocks");
	for (int i = 0; i < c->rows; i++)
		add_row(c, &c->row[i], compare_best(c, &c->row[i].of) == &c->row[i], text);
	text_add(text, "best: %d hop%s (%s, %s, M = %d), %s. * best of its codec, schedule and M. Simulated from declared numbers%s.\n",
		 best->hops, best->hops > 1 ? "s" : "", compare_codec(c, &best->of), best->of.schedule, best->of.micro_batches,
		 time_write(best->total_s, total, sizeof(total)),
		 c->asked.split == SPLIT_FRACTIONAL ? "; memory is not checked" : c->clients ? "; clients' memory is not checked" : "");
}

/* -- JSON ---------------------------------------------------------------------------------- */

static void add_json_setting(const struct comparison *c, struct text *text)
{
	text_add(text, "{\"name\":");
	json_add_text(text, c->job.cluster.name);
	text_add(text, ",\"split\":\"%s\",\"efficiency\":%.9g,\"micro_batch\":%d,\"sequence\":%d,\"tokens\":%.15g,"
		 "\"clients\":%d,\"client_blocks\":%d,\"servers\":%d,\"blocks\":%d,\"slowdown\":%.9g,\"numbers\":\"declared\"}",
		 split_name(c->asked.split), c->asked.efficiency, c->asked.micro_batch, c->tokens, c->asked.tokens, c->clients,
		 c->client_blocks, c->servers.nodes.count, c->model->blocks, c->slowdown);
}

static void add_json_stage(const struct comparison *c, const struct compare_stage *stage, struct text *text)
{
	text_add(text, "{\"node\":");
	json_add_text(text, cluster_node(&c->job.cluster, stage->node)->name);
	if (c->asked.split != SPLIT_FRACTIONAL)
		text_add(text, ",\"first_block\":%d,\"last_block\":%d", stage->blocks ? stage->first_block : 0,
			 stage->blocks ? stage->first_block + stage->blocks - 1 : -1);
	text_add(text, ",\"share\":%.9g}", stage->share);
}

static void add_json_row(const struct comparison *c, const struct compare_row *row, struct text *text)
{
	text_add(text, "{\"hops\":%d,\"codec\":\"%s\",\"schedule\":\"%s\",\"micro_batches\":%d,", row->hops,
		 compare_codec(c, &row->of), row->of.schedule, row->of.micro_batches);
	if (row->step_s <= 0) {
		text_add(text, "\"step_s\":null,\"total_s\":null,\"bottleneck\":null,\"plan\":[],\"why\":");
		json_add_text(text, row->why);
		text_add(text, "}");
		return;
	}
	text_add(text, "\"step_s\":%.9g,\"total_s\":%.9g,\"bottleneck\":", row->step_s, row->total_s);
	json_add_text(text, row->bottleneck);
	text_add(text, ",\"plan\":[");
	for (int s = 0; s < row->hops; s++) {
		text_add(text, s ? "," : "");
		add_json_stage(c, &row->stage[s], text);
	}
	text_add(text, "]}");
}

void compare_json(const struct comparison *c, struct text *text)
{
	text_add(text, "{\"version\":1,\"setting\":");
	add_json_setting(c, text);
	text_add(text, ",\"rows\":[");
	for (int i = 0; i < c->rows; i++) {
		text_add(text, i ? ",\n" : "\n");
		add_json_row(c, &c->row[i], text);
	}
	text_add(text, "\n],\"best_hops\":%d}\n", c->row[c->best].hops);
}

/* -- CSV ----------------------------------------------------------------------------------- */

/* A field that may hold anything (RFC 4180). */
static void add_field(struct text *text, const char *value)
{
	text_put(text, "\"", 1);
	for (; *value; value++)
		text_put(text, "\"\"", *value == '"' ? 2 : 0), text_put(text, value, *value == '"' ? 0 : 1);
	text_put(text, "\"", 1);
}

void compare_csv(const struct comparison *c, struct text *text)
{
	text_add(text, "hops,codec,schedule,micro_batches,step_s,total_s,bottleneck,nodes\n");
	for (int i = 0; i < c->rows; i++) {
		const struct compare_row *row = &c->row[i];
		struct text nodes = {0};

		text_add(text, "%d,%s,%s,%d,", row->hops, compare_codec(c, &row->of), row->of.schedule, row->of.micro_batches);
		if (row->step_s > 0)
			text_add(text, "%.9g,%.9g,", row->step_s, row->total_s);
		else
			text_add(text, ",,");
		for (int s = 0; row->step_s > 0 && s < row->hops; s++)
			text_add(&nodes, "%s%s", s ? " " : "", cluster_node(&c->job.cluster, row->stage[s].node)->name);
		add_field(text, row->bottleneck);
		text_add(text, ",");
		add_field(text, nodes.data ? nodes.data : "");
		text_add(text, "\n");
		text_release(&nodes);
	}
}
