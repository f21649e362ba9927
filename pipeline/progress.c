/* What a finished step says: a line of metrics.jsonl for programs, a line on stdout for
 * people. */
#include <math.h>

#include "pipeline/internal.h"

static void add_stage(struct text *line, int stage, const char *node,
		      const struct step_times *t)
{
	text_add(line, "%s{\"stage\":%d,\"node\":", stage > 0 ? "," : "", stage);
	json_add_text(line, node);
	text_add(line,
		 ",\"forward_s\":%.6f,\"backward_s\":%.6f,\"idle_s\":%.6f,\"sent_bytes\":%.0f,"
		 "\"send_s\":%.6f,\"peak_bytes\":%.0f}",
		 t->forward_s, t->backward_s, t->idle_s, t->sent_bytes, t->send_s,
		 t->peak_bytes);
}

void step_line(const struct training *training, const struct step_record *r,
	       struct metrics *metrics)
{
	struct text line = {0};

	text_add(&line,
		 "{\"kind\":\"step\",\"step\":%lld,\"loss\":%.9g,\"grad_norm\":%.9g,"
		 "\"learning_rate\":%.9g,\"tokens\":%lld,\"trained_tokens\":%lld,"
		 "\"step_s\":%.6f,\"tokens_s\":%.1f,\"stages\":[",
		 r->step, (double)r->loss, (double)r->grad_norm, (double)r->learning_rate,
		 r->tokens, r->trained_tokens, r->step_s, (double)r->tokens / r->step_s);
	for (int s = 0; s < training->places.stages; s++)
		add_stage(&line, s, training->stage_name[s],
			  &r->times[training->places.rank_of_stage[s]]);
	text_add(&line, "]}");
	metrics_line(metrics, &line);
	text_release(&line);
}

/* "1h02m", "6m02s", "14s" */
static const char *duration(double s, char *buffer, size_t bytes)
{
	long long whole = llround(s);

	if (whole >= 3600)
		snprintf(buffer, bytes, "%lldh%02lldm", whole / 3600, whole / 60 % 60);
	else if (whole >= 60)
		snprintf(buffer, bytes, "%lldm%02llds", whole / 60, whole % 60);
	else
		snprintf(buffer, bytes, "%llds", whole);
	return buffer;
}

/* The share of all stages' time in which they did not compute: bubbles, transfers, waiting for
 * a core. */
static double idle_share(const struct training *training, const struct step_record *r)
{
	const struct places *places = &training->places;
	double busy_s = 0, idle;

	for (int s = 0; s < places->stages; s++) {
		const struct step_times *t = &r->times[places->rank_of_stage[s]];

		busy_s += t->forward_s + t->backward_s;
	}
	idle = 1 - busy_s / (r->step_s * places->stages);
	return idle > 0 ? idle : 0;
}

void step_say(struct progress *p, const struct training *training, const struct step_record *r)
{
	double now = clock_s(), done = (double)(r->step - p->first_step + 1);
	/* without validation and checkpoints */
	double left_s = p->training_s / done * (double)(r->steps - r->step);
	char eta[32];

	if (r->step != p->first_step && r->step != r->steps && now - p->last_s < 1)
		return;
	p->last_s = now;
	say("step %4lld/%lld | loss %.4f | grad norm %.3f | lr %.2e | %.0f ms | %.0f tok/s | "
	    "idle %.0f%% | ETA %s",
	    r->step, r->steps, (double)r->loss, (double)r->grad_norm, (double)r->learning_rate,
	    1e3 * r->step_s, (double)r->tokens / r->step_s, 100 * idle_share(training, r),
	    duration(left_s, eta, sizeof(eta)));
}

void pass_say(struct progress *p, uint64_t done, uint64_t all)
{
	double now = clock_s(), left_s = (now - p->start_s) * ((double)all / (double)done - 1);
	char eta[32];

	if (now - p->last_s < 1 || done == all)
		return;
	p->last_s = now;
	say("eval %6llu/%llu samples | ETA %s", (unsigned long long)done,
	    (unsigned long long)all, duration(left_s, eta, sizeof(eta)));
}
