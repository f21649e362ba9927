/* The learning rate of a step, as transformers' schedulers compute it (optimization.py). */
#include <math.h>

#include "pipeline/pipeline.h"

double learning_rate_at(const struct train_config *config, long long step, long long steps)
{
	double at = (double)(step - 1), warmup = (double)config->warmup;
	double after = fmax(1, (double)steps - warmup);

	if (at < warmup)
		return config->learning_rate * at / fmax(1, warmup);
	switch ((enum rate_schedule)config->schedule) {
	case RATE_LINEAR:
		return config->learning_rate * fmax(0, ((double)steps - at) / after);
	case RATE_COSINE:
		return config->learning_rate *
		       fmax(0, 0.5 * (1 + cos(M_PI * (at - warmup) / after)));
	case RATE_CONSTANT:
		return config->learning_rate;
	}
	return config->learning_rate;
}
