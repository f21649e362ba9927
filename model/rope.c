/* The table of rotary positions: cosines and sines of every position and pair. */
#include <math.h>
#include <stdlib.h>

#include "model/stage.h"

/* Angular frequency of pair i, as transformers' rope initialisers: plain, linear, llama3. */
static double rope_frequency(const struct model_config *c, int i)
{
	double frequency = pow(c->rope_theta, -2.0 * i / c->head_size);
	double wavelength = 2 * M_PI / frequency, smooth;

	if (c->rope == ROPE_LINEAR)
		return frequency / c->rope_factor;
	if (c->rope != ROPE_LLAMA3 || wavelength < c->rope_original / c->rope_high)
		return frequency;
	if (wavelength > c->rope_original / c->rope_low)
		return frequency / c->rope_factor;
	smooth = (c->rope_original / wavelength - c->rope_low) / (c->rope_high - c->rope_low);
	return (1 - smooth) * frequency / c->rope_factor + smooth * frequency;
}

void rope_load(struct stage *stage)
{
	const struct model_config *c = stage->config;
	int T = stage->spec.tokens, half = c->head_size / 2;
	size_t bytes = (size_t)T * (size_t)c->head_size * sizeof(float);
	float *table;

	if (stage->work.rope.rows == 0)
		return;
	table = xalloc(bytes);
	for (int t = 0; t < T; t++)
		for (int i = 0; i < half; i++) {
			/* Rounded to float twice, as transformers does: at long T the angles show it. */
			float angle = (float)t * (float)rope_frequency(c, i);

			table[t * c->head_size + i] = (float)cos((double)angle);
			table[t * c->head_size + half + i] = (float)sin((double)angle);
		}
	stage->dev->upload(stage->dev, stage->work.rope.data, table, bytes);
	free(table);
}
