/*
 * The next token from its logits, with the processors of transformers' generate in their order: repetition penalty
 * (Keskar et al., 2019), temperature, top-k, top-p (Holtzman et al., "The curious case of neural text degeneration",
 * 2020). Random numbers come from a counter keyed by (seed, prompt, position): the same token whoever samples beside it.
 */
#include <math.h>
#include <stdlib.h>

#include "model/model.h"

struct sampler {
	struct sampling settings;
	int vocabulary;
	int *order;		/* ids, the likeliest first */
	double *p;
	uint8_t *seen;
};

struct sampler *sampler_open(const struct sampling *settings, int vocabulary)
{
	struct sampler *s = xzalloc(1, sizeof(*s));

	s->settings = *settings;
	s->vocabulary = vocabulary;
	s->order = xalloc((size_t)vocabulary * sizeof(*s->order));
	s->p = xalloc((size_t)vocabulary * sizeof(*s->p));
	s->seen = xalloc((size_t)vocabulary);
	return s;
}

void sampler_close(struct sampler *s)
{
	if (!s)
		return;
	free(s->order);
	free(s->p);
	free(s->seen);
	free(s);
}

size_t sampler_bytes(int vocabulary)
{
	return (size_t)vocabulary * (sizeof(int) + sizeof(double) + 1);
}

/* Once for every token that was there, however often. */
static void penalise(struct sampler *s, float *logits, const int32_t *ids, size_t count)
{
	float penalty = (float)s->settings.repetition_penalty;

	for (int i = 0; i < s->vocabulary; i++)
		s->seen[i] = 0;
	for (size_t i = 0; i < count; i++) {
		float *x = &logits[ids[i]];

		if (!s->seen[ids[i]])
			*x = *x < 0 ? *x * penalty : *x / penalty;
		s->seen[ids[i]] = 1;
	}
}

/* The first of the largest; NaN is passed over. */
static int largest(const float *logits, int count)
{
	int best = 0;

	for (int i = 1; i < count; i++)
		if (logits[i] > logits[best] || isnan(logits[best]))
			best = i;
	return best;
}

/* a stands before b: larger, or as large and first. */
static bool before(const float *logits, int a, int b)
{
	return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

/* Moves heap[i] down among count, of which the likeliest is the first. */
static void sift(int *heap, const float *logits, int i, int count)
{
	int moved = heap[i];

	for (int child; (child = 2 * i + 1) < count; i = child) {
		if (child + 1 < count && before(logits, heap[child + 1], heap[child]))
			child++;
		if (!before(logits, heap[child], moved))
			break;
		heap[i] = heap[child];
	}
	heap[i] = moved;
}

static void heap_make(struct sampler *s, const float *logits)
{
	for (int i = 0; i < s->vocabulary; i++)
		s->order[i] = i;
	for (int i = s->vocabulary / 2 - 1; i >= 0; i--)
		sift(s->order, logits, i, s->vocabulary);
}

/* Takes the likeliest of the `left` that are left and puts it behind them: taken ones stand from the end on. */
static int heap_take(struct sampler *s, const float *logits, int left)
{
	int best = s->order[0];

	s->order[0] = s->order[left - 1];
	s->order[left - 1] = best;
	sift(s->order, logits, 0, left - 1);
	return best;
}

/* exp((logit - most) / temperature) of every token; returns the sum. */
static double weigh(struct sampler *s, const float *logits, float most)
{
	double sum = 0, temperature = s->settings.temperature;

	for (int i = 0; i < s->vocabulary; i++) {
		double x = ((double)logits[i] - (double)most) / temperature;

		s->p[i] = x > -700 ? exp(x) : 0;	/* NaN: 0 */
		sum += s->p[i];
	}
	return sum;
}

/* Takes as many of the likeliest as top-k leaves, those as likely as the last among them; *sum: of theirs. */
static int take_top_k(struct sampler *s, const float *logits, double *sum)
{
	int V = s->vocabulary, taken = 0, k = s->settings.top_k;

	for (*sum = 0; taken < V; taken++) {
		if (taken >= k && logits[s->order[0]] < logits[s->order[V - taken]])
			break;
		*sum += s->p[heap_take(s, logits, V - taken)];
	}
	return taken;
}

/* How many of the likeliest have a share of top-p together, of `most`, all of whom have `sum`; *sum becomes theirs. */
static int take_top_p(struct sampler *s, const float *logits, int most, bool sorted, double *sum)
{
	int V = s->vocabulary, count = 0;
	double wanted = s->settings.top_p * *sum, have = 0;

	while (count < most && (count == 0 || have < wanted)) {
		have += s->p[sorted ? s->order[V - 1 - count] : heap_take(s, logits, V - count)];
		count++;
	}
	*sum = have;
	return count;
}

/* In [0, 1), of this prompt's position. */
static double draw(const struct sampler *s, uint32_t prompt, uint32_t position)
{
	uint64_t seed = (uint64_t)s->settings.seed;
	struct philox word = philox((struct philox){{prompt, position, 0x67656e, 0}}, (uint32_t)seed,
				    (uint32_t)(seed >> 32));

	return ((double)word.word[0] * 0x1p32 + (double)word.word[1]) * 0x1p-64;
}

/* One of all, in the order of their ids. */
static int draw_any(const struct sampler *s, double at)
{
	int last = 0;

	for (int i = 0; i < s->vocabulary; i++) {
		if (s->p[i] > 0)
			last = i;
		at -= s->p[i];
		if (at < 0)
			break;
	}
	return last;
}

/* One of the likeliest, in their order. */
static int draw_taken(const struct sampler *s, int count, double at)
{
	int i = 0;

	for (; i < count - 1; i++) {
		at -= s->p[s->order[s->vocabulary - 1 - i]];
		if (at < 0)
			break;
	}
	return s->order[s->vocabulary - 1 - i];
}

static int sample(struct sampler *s, const float *logits, uint32_t prompt, uint32_t position)
{
	const struct sampling *settings = &s->settings;
	bool top_k = settings->top_k > 0 && settings->top_k < s->vocabulary;
	bool top_p = settings->top_p < 1;
	double sum = weigh(s, logits, logits[largest(logits, s->vocabulary)]);
	int count = s->vocabulary;

	if (!top_k && !top_p)
		return draw_any(s, draw(s, prompt, position) * sum);
	heap_make(s, logits);
	if (top_k)
		count = take_top_k(s, logits, &sum);
	if (top_p)
		count = take_top_p(s, logits, count, top_k, &sum);
	return draw_taken(s, count, draw(s, prompt, position) * sum);
}

int sampler_next(struct sampler *s, float *logits, const int32_t *ids, size_t count, uint32_t prompt)
{
	const struct sampling *settings = &s->settings;

	if (settings->repetition_penalty != 1)
		penalise(s, logits, ids, count);
	if (settings->temperature <= 0)
		return largest(logits, s->vocabulary);
	return sample(s, logits, prompt, (uint32_t)count);
}
