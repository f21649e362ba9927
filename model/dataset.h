/*
 * model/dataset.h - what the readers of data files share: one per form of file, all of them
 * filling rows of T ids and labels.
 */
#ifndef EDGEPIPE_MODEL_DATASET_H
#define EDGEPIPE_MODEL_DATASET_H

#include "model/chat.h"
#include "model/model.h"
#include "model/store.h"

#define UNTRAINED (-100) /* a label that does not count, as in transformers */

struct line_form;

/* A data file on its way into memory. */
struct reader {
	const char *path, *extension;
	const struct data_config *data;
	const struct model_config *config;
	struct tokenizer *tokenizer; /* null where nothing is tokenised */
	int end;		     /* the end-of-text token, -1: none */
	struct text end_text;	     /* as text */
	int tokens;		     /* T */
	struct store_writer *out;
	struct data_survey *survey; /* in place of a writer: samples are looked at alone */
	bool muted;	/* an error of the writer is not said */
	bool own_labels;
	bool unwritten; /* what ended the reading: the writer */
	size_t rows, trained_tokens, cut, cut_tokens, skipped;
	bool skips; /* samples without a trained token are left out */
	/* Of lines: */
	const struct line_form *form;
	bool unfit; /* the form does not go with the configuration: every line would say so */
	enum data_column form_column; /* the form's first key */
	struct chat_template *template;
	struct chat chat;
	struct rendered rendered;
	struct ids ids_of_line, labels_of_line;
};

/* Fixes T: data.sequence, or `otherwise` where none is given. -1 above the positions. */
int reader_sequence(struct reader *reader, long long otherwise);
/* Adds a sample, cut on the right to T tokens (and counted). Labels null: the ids are the labels.
 * -1 for an id outside the vocabulary. */
int reader_add(struct reader *reader, const int32_t *ids, const int32_t *labels, size_t count);
/* The same, with labels of any value. */
int reader_add_own(struct reader *reader, const int32_t *ids, const int32_t *labels,
		   size_t count);

/* data_check.c: takes note of a sample, of an error of a line. */
void survey_add(struct data_survey *survey, const int32_t *ids, size_t count, size_t kept,
		size_t trained);
void survey_error(struct data_survey *survey);

/* Reads the file that a path means, with the tokenizer where one is needed and there is a model;
 * into reader->survey. The arena keeps the file's name. */
int reader_run(struct reader *reader, struct arena *arena, const char *path, const char *kind);
/* What the samples are, in words: "messages", "plain text". */
const char *reader_form(const struct reader *reader);
void reader_release(struct reader *reader);

/* Whether data.mask speaks of answers alone, and how it is called. */
bool reader_wants_answers(const struct reader *reader);
const char *mask_name(const struct reader *reader);

/* The forms, one file each: -1 after an error. */
int read_jsonl(struct reader *reader);	 /* samples.c */
int read_text(struct reader *reader);	 /* packed.c */
int read_tensors(struct reader *reader); /* pretokenised.c */

#endif
