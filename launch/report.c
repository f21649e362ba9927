/*
 * report.c - RUN/report.html: one file without scripts and without anything from outside, so that it can be mailed, and
 * opens in ten years. Every number says whether it was measured, declared or predicted.
 */
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch/report.h"
#include "launch/svg.h"

static const char report_help[] =
	"edgepipe report - makes report.html of a run again, from the files of its directory\n"
	"\n"
	"Example:\n"
	"  edgepipe report runs/campus-20260131T235959Z\n"
	"\n"
	"Usage: edgepipe report RUN_DIR [-o FILE]\n"
	"  -o, --output FILE   elsewhere than to RUN_DIR/report.html (- is standard output)\n"
	"  -h, --help          this text\n"
	"\n"
	"`train` writes it at the end of a run; this command also shows what a run that was killed has left. The plan, its\n"
	"prediction and what would help need the model's config.json, where the run found it.\n";

static const char page_style[] =
	"body{font-family:'Helvetica Neue',Helvetica,Arial,'Liberation Sans',sans-serif;color:#222;background:#fff;margin:0}"
	"main{max-width:1080px;margin:0 auto;padding:24px 20px 60px}"
	"h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:36px 0 8px;border-bottom:1px solid #ddd;padding-bottom:4px}"
	"p{margin:6px 0;line-height:1.45}table{border-collapse:collapse;font-size:13px;margin:8px 0;display:block;overflow-x:auto}"
	"th,td{text-align:right;padding:4px 10px;border-bottom:1px solid #eee}th{font-weight:600;border-bottom:1px solid #999}"
	"th:first-child,td:first-child,td.t,th.t{text-align:left}"
	"pre{font-size:12px;background:#f6f8fa;border:1px solid #ddd;padding:10px;overflow-x:auto}"
	"pre span{display:block;white-space:pre-wrap;min-width:840px}"
	"svg{max-width:100%;height:auto;display:block}"
	".tag{font-size:11px;border:1px solid;border-radius:3px;padding:0 4px;white-space:nowrap}"
	".measured{color:#00573d}.predicted{color:#004a75}.declared{color:#6b4e00}"
	"footer{margin-top:40px;font-size:12px;color:#555}";

/* -- pieces -------------------------------------------------------------------------------- */

static void add_plain(struct text *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Text from outside, or any text: escaped. */
static void add_plain(struct text *text, const char *fmt, ...)
{
	char plain[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(plain, sizeof(plain), fmt, args);
	va_end(args);
	svg_escape(text, plain);
}

static void add_tag(struct text *text, const char *kind)
{
	text_add(text, " <span class=\"tag %s\">%s</span>", kind, kind);
}

static void add_cell(struct text *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add_cell(struct text *text, const char *fmt, ...)
{
	char plain[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(plain, sizeof(plain), fmt, args);
	va_end(args);
	text_add(text, "<td>");
	svg_escape(text, plain);
	text_add(text, "</td>");
}

/* Milliseconds of a step, or a dash for what is not known, or is nothing. */
static void add_ms(struct text *text, double s)
{
	if (s > 0)
		add_cell(text, "%.1f", 1e3 * s);
	else
		add_cell(text, "\xe2\x80\x93");
}

static const char *origins_of(const struct report *report)
{
	return plan_origins(report->plan, &report->problem);
}

/* -- sections ------------------------------------------------------------------------------ */

static void add_head(const struct report *report, struct text *text)
{
	const char *name = report->job.cluster.name ? report->job.cluster.name : "a run";

	text_add(text, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv="
		 "\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
		 "<meta name=\"viewport\" content=\"width=device-width\">\n<title>");
	add_plain(text, "edgepipe: %s", name);
	text_add(text, "</title>\n<style>%s%s</style>\n</head>\n<body>\n<main>\n<h1>", page_style, svg_style);
	add_plain(text, "%s", name);
	text_add(text, "</h1>\n<p>");
	add_plain(text, "%s", report->run);
	if (strlen(report->time) == 16)		/* 20260131T235959Z */
		add_plain(text, ", started %.4s-%.2s-%.2s %.2s:%.2s:%.2s UTC", report->time, report->time + 4, report->time + 6,
			  report->time + 9, report->time + 11, report->time + 13);
	text_add(text, "</p>\n");
}

static void add_row(struct text *text, const char *what, const char *kind, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static void add_row(struct text *text, const char *what, const char *kind, const char *fmt, ...)
{
	char plain[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(plain, sizeof(plain), fmt, args);
	va_end(args);
	text_add(text, "<tr><td>%s</td><td>", what);
	svg_escape(text, plain);
	if (kind)
		add_tag(text, kind);
	text_add(text, "</td></tr>\n");
}

static void add_losses(const struct report *report, struct text *text)
{
	const struct curve *loss = &report->loss, *valid = &report->valid;

	if (loss->count)
		add_row(text, "training loss, first and last step", "measured", "%.4f, %.4f", loss->value[0],
			loss->value[loss->count - 1]);
	if (valid->count)
		add_row(text, "validation loss, first and last", "measured", "%.4f, %.4f", valid->value[0],
			valid->value[valid->count - 1]);
}

/* The node of a stage that a file names. */
static const char *node_of(const struct report *report, int s)
{
	if (s < 0 || s >= report->plan->stages)
		return "?";
	return cluster_node(&report->job.cluster, report->plan->stage[s].node)->name;
}

/* "stage 3 (observatory)", "forward link 0 (library > physics)" */
static void add_bottleneck(const struct report *report, struct text *text)
{
	const char *word = report->plan->bottleneck;
	char names[160] = "";
	int s = -1;

	if (sscanf(word, "stage %d", &s) == 1)
		snprintf(names, sizeof(names), " (%.64s)", node_of(report, s));
	else if (sscanf(word, "forward link %d", &s) == 1)
		snprintf(names, sizeof(names), " (%.64s > %.64s)", node_of(report, s), node_of(report, s + 1));
	else if (sscanf(word, "backward link %d", &s) == 1)
		snprintf(names, sizeof(names), " (%.64s > %.64s)", node_of(report, s + 1), node_of(report, s));
	add_row(text, "bottleneck", "predicted", "%s%s", word, names);
}

static void add_summary(const struct report *report, struct text *text)
{
	const struct plan *plan = report->plan;

	text_add(text, "<h2>In short</h2>\n");
	if (report->code != 0)
		text_add(text, "<p><b>%s</b></p>\n", report->code < 0 ? "The run has not ended: it goes on, or was killed." :
			 "The run ended with an error.");
	text_add(text, "<table>\n");
	add_row(text, "steps", NULL, "%.0f of %lld", report->loss.count ? report->loss.step[report->loss.count - 1] : 0,
		report->steps);
	add_losses(report, text);
	if (report->median_step_s > 0)
		add_row(text, "step (median, without the first and those that a validation follows)", "measured", "%.4g s", report->median_step_s);
	if (report->planned && plan->step_s > 0)
		add_row(text, "step", "predicted", "%.4g s", plan->step_s);
	if (report->planned && plan->step_s > 0 && report->median_step_s > 0)
		add_row(text, "measured over predicted", NULL, "%+.1f %%", 100 * (report->median_step_s / plan->step_s - 1));
	if (report->planned && plan->bound_s > 0)
		add_row(text, "no schedule of this plan takes less than", "predicted", "%.4g s", plan->bound_s);
	if (report->planned && plan->bottleneck[0])
		add_bottleneck(report, text);
	if (report->tokens_s > 0)
		add_row(text, "tokens/s (mean of the whole run)", "measured", "%.0f", report->tokens_s);
	if (report->wall_s > 0)
		add_row(text, "the whole run", "measured", "%.4g s", report->wall_s);
	text_add(text, "</table>\n");
}

static void add_step(const struct report *report, struct text *text)
{
	struct gantt_panel panel[2];
	char predicted[160], measured[160];
	int panels = 0;

	text_add(text, "<h2>One step</h2>\n");
	snprintf(predicted, sizeof(predicted), "predicted: %.4g s, simulated from %s numbers", report->predicted.step_s,
		 origins_of(report));
	snprintf(measured, sizeof(measured), "measured: step %lld, %.4g s", report->traced_step, report->measured.step_s);
	if (report->has_predicted)
		panel[panels++] = (struct gantt_panel){&report->predicted, predicted};
	if (report->has_measured)
		panel[panels++] = (struct gantt_panel){&report->measured, measured};
	if (!report->has_predicted)
		text_add(text, "<p>Nothing was predicted: not every node declares its compute.</p>\n");
	if (!report->has_measured)
		text_add(text, "<p>No step was traced, so what is shown is the prediction alone: <code>--set train.trace=1</code> "
			 "records the last one.</p>\n");
	if (panels)
		gantt_svg(text, "Who computes which micro-batch when", panel, panels, false);
}

static void add_left_out(const struct report *report, struct text *text)
{
	const struct json *left_out = json_find(report->file, "left_out");

	for (size_t i = 0; i < json_size(left_out); i++) {
		const struct json *one = json_at(left_out, i);

		text_add(text, "<p>Left out: <b>");
		add_plain(text, "%s", json_as_text(json_find(one, "node"), ""));
		text_add(text, "</b>, ");
		add_plain(text, "%s", json_as_text(json_find(one, "why"), ""));
		text_add(text, "</p>\n");
	}
}

static void add_stage(const struct report *report, int s, struct text *text)
{
	const struct plan_stage *stage = &report->plan->stage[s];
	struct stage_measure none = {0};
	const struct stage_measure *m = s < report->measures ? &report->measure[s] : &none;
	const struct plan_link *after = &report->plan->link[s], *before = s > 0 ? &report->plan->link[s - 1] : NULL;
	double micro = report->plan->micro_batches, sends = before ? micro * before->seconds_backward : 0;

	if (s + 1 < report->plan->stages)
		sends += micro * after->seconds_forward;
	text_add(text, "<tr>");
	add_cell(text, "%d %.100s", s, cluster_node(&report->job.cluster, stage->node)->name);
	text_add(text, "<td class=\"t\">%s</td>", report->predicted.held[s]);
	add_cell(text, "%d", stage->in_flight);
	add_ms(text, micro * stage->forward_s);
	add_ms(text, m->forward_s);
	add_ms(text, micro * stage->backward_s);
	add_ms(text, m->backward_s);
	add_ms(text, m->idle_s);
	add_ms(text, sends);
	add_ms(text, m->send_s);
	add_cell(text, "%.1f", m->sent_bytes / 1024);
	text_add(text, "</tr>\n");
}

static void add_stages(const struct report *report, struct text *text)
{
	text_add(text, "<h2>Stages</h2>\n<p>Milliseconds of one step; measured: means over the steps after the first. Sends: what a "
		 "stage sends, both ways.</p>\n<table>\n<tr><th>stage</th><th class=\"t\">blocks</th><th>in flight</th>"
		 "<th>forward<br>predicted</th><th><br>measured</th><th>backward<br>predicted</th><th><br>measured</th>"
		 "<th>idle<br>measured</th><th>sends<br>predicted</th><th><br>measured</th><th>KiB sent<br>measured</th></tr>\n");
	for (int s = 0; s < report->plan->stages; s++)
		add_stage(report, s, text);
	text_add(text, "</table>\n");
}

static void add_help(const struct report *report, struct text *text)
{
	struct text said = {0};

	error_hold();
	if (report->has_predicted && plan_explain(report->plan, &report->problem, &said) == 0) {
		text_add(text, "<h2>What would help</h2>\n<p>");
		text_add(text, "Simulated from %s numbers; seconds of one step.</p>\n<pre><span>", origins_of(report));
		for (char *line = said.data, *end; (end = strchr(line, '\n')); line = end + 1) {
			*end = '\0';
			svg_escape(text, line);
			text_add(text, "\n");
		}
		text_add(text, "</span></pre>\n");
	}
	error_clear();
	text_release(&said);
}

static void add_plan(const struct report *report, struct text *text)
{
	if (!report->planned) {
		text_add(text, "<h2>The plan</h2>\n<p>It cannot be shown: ");
		add_plain(text, "%s", report->why);
		text_add(text, "</p>\n");
		return;
	}
	add_step(report, text);
	text_add(text, "<h2>The plan</h2>\n<p>");
	add_plain(text, "Solver %s, schedule %s, %d micro-batches of %d. The bar in a box is the share of the step that the node "
		  "computes (predicted); busy: the share that messages take on a link, forward and backward (predicted). Rates and "
		  "latencies of links are %s.", report->plan->solver, report->plan->schedule, report->plan->micro_batches,
		  report->plan->micro_batch, report->profile ? "measured where the profile has them, else declared" : "declared");
	text_add(text, "</p>\n");
	report_cluster(report, text);
	add_left_out(report, text);
	text_add(text, "<h2>Limits</h2>\n<p>Bars: measured, memory as its peak in the training steps%s; tick: estimated or predicted; frame: what there is.</p>\n",
		 report->has_measured ? "" : " (links: predicted, since no step was traced)");
	report_limits(report, text);
	add_stages(report, text);
	add_help(report, text);
}

static void report_write(const struct report *report, struct text *text)
{
	add_head(report, text);
	add_summary(report, text);
	if (report->loss.count + report->valid.count) {
		text_add(text, "<h2>Loss</h2>\n");
		report_loss(report, text);
	}
	add_plan(report, text);
	text_add(text, "<footer>Measured: taken from this run. Declared: from the topology file. Predicted: by the simulator. Made "
		 "by <code>edgepipe report</code>; times are seconds of a monotonic clock.</footer>\n</main>\n</body>\n</html>\n");
}

/* -- the whole ----------------------------------------------------------------------------- */

static void release(struct report *report)
{
	gantt_release(&report->predicted);
	gantt_release(&report->measured);
	json_free(report->file);
	profile_free(report->profile);
	lora_free(report->lora);
	model_config_free(report->model);
	job_release(&report->job);
	arena_release(&report->arena);
}

int report_make(const char *run, const char *output)
{
	struct report *report = xzalloc(1, sizeof(*report));
	struct text text = {0};
	int status;

	report->run = run;
	status = report_read(report);
	if (!status) {
		report_read_plan(report);
		report_read_trace(report);
		report_write(report, &text);
		if (output && !strcmp(output, "-"))
			fputs(text.data, stdout);
		else
			status = file_replace(output ? output : path_join(&report->arena, run, "report.html"), text.data,
					      text.bytes);
	}
	text_release(&text);
	release(report);
	free(report);
	return status;
}

int command_report(int argc, char **argv)
{
	static const struct option options[] = {{"output", required_argument, NULL, 'o'}, {"help", no_argument, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	const char *output = NULL;
	int option, status = 0;

	opterr = 0;
	optind = 1;
	while ((option = getopt_long(argc, argv, ":ho:", options, NULL)) != -1) {
		if (option == 'h')
			return fputs(report_help, stdout) < 0 || fflush(stdout) ? EXIT_IO : 0;
		if (option != 'o')
			return option_error("report", options, option, argv), error_code();
		output = optarg;
	}
	if (optind + 1 != argc)
		status = error(EXIT_USAGE, optind == argc ? "report: which run directory?" : "report: one run at a time");
	if (!status)
		status = report_make(argv[optind], output);
	if (!status && (!output || strcmp(output, "-") != 0))
		printf("report  %s%s\n", output ? output : argv[optind], output ? "" : "/report.html");
	if (!status && fflush(stdout))
		status = error(EXIT_IO, "cannot write to standard output");
	return status ? error_code() : 0;
}
