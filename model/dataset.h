/*
 * model/dataset.h - what the readers of data files share: one per form of file, all of them
 * filling rows of T ids and labels.
 */
#ifndef EDGEPIPE_MODEL_DATASET_H
#define EDGEPIPE_MODEL_DATASET_H

#include "model/chat.h"
#include "model/model.h"

#define UNTRAINED (-100) /* a label that does not count, as in transformers */

struct line_form;

/* A data file on its way into memory. */
struct reader {
	const char *path;
	const struct data_config *data;
	const struct model_config *config;
	struct tokenizer *tokenizer; /* null where nothing is tokenised */
	int end;		     /* the end-of-text token, -1: none */
	struct text end_text;	     /* as text */
	int tokens;		     /* T */
	int32_t *ids, *labels;	     /* (rows, T) */
	size_t rows, room;
	size_t cut, cut_tokens;
	bool skips; /* samples without a trained token are left out, and counted */
	size_t skipped;
	/* Of lines: */
	const struct line_form *form;
	enum data_column form_column; /* the form's first key */
	struct chat_template *template;
	struct chat chat;
	struct rendered rendered;
	struct ids ids_of_line, labels_of_line;
};

/* Fixes T: data.sequence, or `otherwise` where none is given. -1 above the positions. */
int reader_sequence(struct reader *reader, long long otherwise);
/* Makes room for exactly this many rows (at least those that are there). */
void reader_room(struct reader *reader, size_t rows);
/* Adds a sample: cut on the right to T tokens (and counted), or padded. Labels null: the ids
 * are the labels. -1 for an id outside the vocabulary. */
int reader_add(struct reader *reader, const int32_t *ids, const int32_t *labels, size_t count);

/* Whether data.mask speaks of answers alone, and how it is called. */
bool reader_wants_answers(const struct reader *reader);
const char *mask_name(const struct reader *reader);

/* The forms, one file each: -1 after an error. */
int read_jsonl(struct reader *reader);	 /* samples.c */
int read_text(struct reader *reader);	 /* packed.c */
int read_tensors(struct reader *reader); /* pretokenised.c */

#endif
