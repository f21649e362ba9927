/*
 * model/packing.c - rows that hold several samples each.
 *
 * The samples of an epoch, in the order of the first one, are taken WINDOW at a time; those of a
 * window are packed into rows of T tokens by best fit, longest first (Johnson et al., 1974: at most
 * 11/9 of the least number of rows, and 4 more). So who shares a row stays the same for the whole
 * run, every epoch has the same number of rows, each sample in one of them, and a place in the
 * stream is a row's number: what a checkpoint keeps. An epoch shuffles the windows, whose samples
 * came in no order anyway, and the rows of each. Of all windows nothing is held but how many rows
 * they have; the one that is asked for is packed again, once an epoch when places follow each
 * other.
 */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

#define WINDOW 2048
#define WORD 64

struct packing {
	const struct dataset *set;
	uint64_t seed;
	bool shuffle;
	struct packing_facts facts;
	size_t windows, window; /* how many, and the one that is packed now */
	size_t *has;		/* [windows]: rows */
	uint64_t epoch;		/* of which is known: */
	size_t *before;		/* [windows + 1]: rows of the windows before, in its order */
	/* Of the window: samples by their place in it. */
	int samples, rows;
	int length[WINDOW], row[WINDOW];
	int order[WINDOW];	     /* longest first; then samples row by row */
	int begin[WINDOW + 1];	     /* of a row in that order */
	int number[WINDOW];	     /* of a row, by when it was opened */
	int room[WINDOW], next[WINDOW]; /* of a row: tokens left; of those with as many, the next */
	int *count;		     /* [T + 1]: samples of a length */
	int *open;		     /* [T + 1]: the first row with so much room; -1: none */
	uint64_t *there;	     /* [T + 1 bits]: whether there is one */
	int32_t *ids, *labels;	     /* [T]: of a sample */
};

/* -- a window ------------------------------------------------------------------------------ */

/* Longest first; of equally long ones in their order. */
static void sort_lengths(struct packing *p)
{
	int T = p->set->tokens, at = 0;

	memset(p->count, 0, ((size_t)T + 1) * sizeof *p->count);
	for (int i = 0; i < p->samples; i++)
		p->count[p->length[i]]++;
	for (int length = T; length > 0; length--) {
		int count = p->count[length];

		p->count[length] = at;
		at += count;
	}
	for (int i = 0; i < p->samples; i++)
		p->order[p->count[p->length[i]]++] = i;
}

static void put_row(struct packing *p, int row)
{
	int room = p->room[row];

	p->next[row] = p->open[room];
	p->open[room] = row;
	p->there[room / WORD] |= (uint64_t)1 << room % WORD;
}

/* The row with the least room that is enough, taken out; -1: none. */
static int take_row(struct packing *p, int length)
{
	int words = p->set->tokens / WORD + 1;

	for (int w = length / WORD; w < words; w++) {
		uint64_t found = p->there[w];

		if (w == length / WORD)
			found = found >> length % WORD << length % WORD;
		if (found == 0)
			continue;
		int room = w * WORD + __builtin_ctzll(found), row = p->open[room];

		p->open[room] = p->next[row];
		if (p->open[room] < 0)
			p->there[w] &= ~((uint64_t)1 << room % WORD);
		return row;
	}
	return -1;
}

static void fit_samples(struct packing *p)
{
	int T = p->set->tokens;

	for (int room = 0; room <= T; room++)
		p->open[room] = -1;
	memset(p->there, 0, ((size_t)T / WORD + 1) * sizeof *p->there);
	p->rows = 0;
	for (int i = 0; i < p->samples; i++) {
		int sample = p->order[i], row = take_row(p, p->length[sample]);

		if (row < 0) {
			row = p->rows++;
			p->room[row] = T;
		}
		p->row[sample] = row;
		p->room[row] -= p->length[sample];
		put_row(p, row);
	}
}

/* Rows in the order of their first samples, and so are the samples of a row. */
static void order_rows(struct packing *p)
{
	int rows = 0;

	for (int row = 0; row < p->rows; row++)
		p->number[row] = -1;
	memset(p->begin, 0, ((size_t)p->rows + 1) * sizeof *p->begin);
	for (int i = 0; i < p->samples; i++) {
		int *number = &p->number[p->row[i]];

		if (*number < 0)
			*number = rows++;
		p->row[i] = *number;
		p->begin[*number + 1]++;
	}
	for (int row = 0; row < p->rows; row++)
		p->begin[row + 1] += p->begin[row];
	memcpy(p->next, p->begin, (size_t)p->rows * sizeof *p->next);
	for (int i = 0; i < p->samples; i++)
		p->order[p->next[p->row[i]]++] = i;
}

static void pack_window(struct packing *p, size_t window)
{
	uint64_t first = (uint64_t)window * WINDOW;

	p->window = window;
	p->samples = p->set->samples - first < WINDOW ? (int)(p->set->samples - first) : WINDOW;
	for (int i = 0; i < p->samples; i++) {
		int length = dataset_length(p->set, p->seed, p->shuffle, first + (uint64_t)i);

		p->length[i] = length < 1 ? 1 : length; /* damaged: packing_row meets it again */
	}
	sort_lengths(p);
	fit_samples(p);
	order_rows(p);
}

/* -- opening ------------------------------------------------------------------------------- */

static void count_window(struct packing *p)
{
	struct packing_facts *f = &p->facts;

	p->has[p->window] = (size_t)p->rows;
	f->rows += (size_t)p->rows;
	for (int row = 0; row < p->rows; row++) {
		int samples = p->begin[row + 1] - p->begin[row];

		f->most = samples > f->most ? samples : f->most;
	}
	for (int i = 0; i < p->samples; i++)
		f->tokens += (size_t)p->length[i];
}

/* The window that is number k of an epoch. */
static size_t window_at(const struct packing *p, uint64_t epoch, size_t k)
{
	return p->shuffle ? shuffle_index(p->seed, epoch, k, p->windows) : k;
}

static void order_windows(struct packing *p, uint64_t epoch)
{
	p->epoch = epoch;
	for (size_t k = 0; k < p->windows; k++)
		p->before[k + 1] = p->before[k] + p->has[window_at(p, epoch, k)];
}

struct packing *packing_open(const struct dataset *set, uint64_t seed, bool shuffle)
{
	struct packing *p = xzalloc(1, sizeof *p);
	size_t T = (size_t)set->tokens;

	p->set = set;
	p->seed = seed;
	p->shuffle = shuffle;
	p->windows = (set->samples - 1) / WINDOW + 1;
	p->has = xzalloc(p->windows, sizeof *p->has);
	p->before = xzalloc(p->windows + 1, sizeof *p->before);
	p->count = xzalloc(T + 1, sizeof *p->count);
	p->open = xzalloc(T + 1, sizeof *p->open);
	p->there = xzalloc(T / WORD + 1, sizeof *p->there);
	p->ids = xzalloc(T, sizeof *p->ids);
	p->labels = xzalloc(T, sizeof *p->labels);
	for (size_t window = 0; window < p->windows; window++) {
		pack_window(p, window);
		count_window(p);
	}
	order_windows(p, 0);
	return p;
}

struct packing_facts packing_facts(const struct packing *p)
{
	return p->facts;
}

void packing_close(struct packing *p)
{
	if (!p)
		return;
	free(p->has);
	free(p->before);
	free(p->count);
	free(p->open);
	free(p->there);
	free(p->ids);
	free(p->labels);
	free(p);
}

/* -- taking rows --------------------------------------------------------------------------- */

/* The last window of the epoch that begins at or before a row. */
static size_t find_window(const struct packing *p, size_t row)
{
	size_t low = 0, high = p->windows;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (p->before[middle] <= row)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* Packs the window of a place. Returns the row in it. */
static size_t seek(struct packing *p, uint64_t place)
{
	uint64_t epoch = place / p->facts.rows;
	size_t row = place % p->facts.rows, k, window;

	if (epoch != p->epoch)
		order_windows(p, epoch);
	k = find_window(p, row);
	row -= p->before[k];
	window = window_at(p, epoch, k);
	if (window != p->window)
		pack_window(p, window);
	/* Each window has an order of its own. */
	return p->shuffle ? shuffle_index(p->seed + window + 1, epoch, row, (uint64_t)p->rows) : row;
}

int packing_row(struct packing *p, uint64_t place, int32_t *ids, int32_t *labels,
		struct packed_sample *sample, int *samples)
{
	size_t row = seek(p, place);
	int T = p->set->tokens, used = 0, trained = 0, begin = p->begin[row];

	*samples = p->begin[row + 1] - begin;
	for (int i = 0; i < *samples; i++) {
		int at = p->order[begin + i], length = p->length[at];
		uint64_t number = (uint64_t)p->window * WINDOW + (uint64_t)at;

		int got = dataset_sample(p->set, p->seed, p->shuffle, number, p->ids, p->labels);
		if (got < 0)
			return -1;
		trained += got;
		memcpy(ids + used, p->ids, (size_t)length * sizeof *ids);
		memcpy(labels + used, p->labels, (size_t)length * sizeof *labels);
		sample[i] = (struct packed_sample){p->epoch * p->set->samples + number, length};
		used += length;
	}
	for (; used < T; used++) {
		ids[used] = 0;
		labels[used] = -1;
	}
	return trained;
}
