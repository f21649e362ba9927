/*
 * model/data_check.c - looks a data file through: every error of it, and what its samples are
 * like, without keeping any.
 */
#include "model/dataset.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define ERRORS_SAID 100
#define LENGTHS ((size_t)1 << 20)    /* longer samples count as that long */
#define DISTINCT_MOST ((size_t)1 << 22) /* samples among which duplicates are sought */

struct data_survey {
	struct data_report *report;
	uint64_t *lengths; /* how many samples have this many tokens */
	uint64_t *seen;	   /* hash table of samples; 0: free */
	size_t slots, distinct;
	bool muted;
};

/* -- samples ------------------------------------------------------------------------------- */

static void grow(struct data_survey *s)
{
	size_t old = s->slots;
	uint64_t *from = s->seen;

	s->slots = old ? 2 * old : 1024;
	s->seen = xzalloc(s->slots, sizeof *s->seen);
	for (size_t i = 0; i < old; i++) {
		size_t at = from[i] & (s->slots - 1);

		while (from[i] && s->seen[at])
			at = (at + 1) & (s->slots - 1);
		if (from[i])
			s->seen[at] = from[i];
	}
	free(from);
}

/* Whether a sample was there before; of very many, the later ones are not remembered. */
static bool is_again(struct data_survey *s, const int32_t *ids, size_t count)
{
	uint64_t sum = checksum(ids, count * sizeof *ids, count) | 1;

	if (2 * s->distinct >= s->slots && s->distinct < DISTINCT_MOST)
		grow(s);
	size_t at = sum & (s->slots - 1);
	while (s->seen[at] && s->seen[at] != sum)
		at = (at + 1) & (s->slots - 1);
	if (s->seen[at] == sum)
		return true;
	if (s->distinct < DISTINCT_MOST) {
		s->seen[at] = sum;
		s->distinct++;
	}
	return false;
}

void survey_add(struct data_survey *s, const int32_t *ids, size_t count, size_t kept,
		size_t trained)
{
	struct data_report *report = s->report;

	report->samples++;
	report->all_tokens += count;
	report->kept_tokens += kept;
	report->trained_tokens += trained;
	if (report->samples == 1 || count < report->shortest)
		report->shortest = count;
	if (count > report->longest)
		report->longest = count;
	s->lengths[count < LENGTHS ? count : LENGTHS - 1]++;
	report->duplicates += is_again(s, ids, count);
}

void survey_error(struct data_survey *s)
{
	s->report->errors++;
	if (s->report->errors == ERRORS_SAID && !s->muted) {
		error_mute();
		s->muted = true;
	}
}

static size_t length_at(const struct data_survey *s, double part)
{
	uint64_t rank = (uint64_t)((double)(s->report->samples - 1) * part), seen = 0;

	for (size_t i = 0; i < LENGTHS; i++) {
		seen += s->lengths[i];
		if (seen > rank)
			return i;
	}
	return LENGTHS - 1;
}

/* -- the whole ----------------------------------------------------------------------------- */

int dataset_check(const char *path, const char *kind, const struct data_config *data,
		  const struct model_config *config, struct data_report *report)
{
	static const struct model_config none = {.vocabulary = INT_MAX, .end_token = -1};
	struct data_survey survey = {.report = report};
	struct reader r = {.data = data, .config = config ? config : &none, .survey = &survey};
	struct arena arena = {0};
	int done;

	*report = (struct data_report){.bytes = !config};
	survey.lengths = xzalloc(LENGTHS, sizeof *survey.lengths);
	done = reader_run(&r, &arena, path, kind);
	if (survey.muted)
		error_unmute();
	if (r.extension && strcmp(r.extension, ".safetensors") == 0)
		report->bytes = false;
	report->sequence = r.tokens;
	report->cut = r.cut;
	report->cut_tokens = r.cut_tokens;
	report->skipped = r.skipped;
	if (report->samples > 0) {
		report->median = length_at(&survey, 0.5);
		report->p95 = length_at(&survey, 0.95);
	}
	if (r.template)
		snprintf(report->template, sizeof report->template, "%s", template_name(r.template));
	snprintf(report->form, sizeof report->form, "%s", reader_form(&r));
	reader_release(&r);
	free(survey.lengths);
	free(survey.seen);
	arena_release(&arena);
	return done;
}
