/* axis.c - where values lie on a picture, and which of them are written beside it. */
#include <math.h>

#include "launch/svg.h"

enum { WANTED = 5 };			/* ticks, or a few more */

/* The round number (1, 2, 5 times a power of ten) at or above a step. */
static double round_step(double step)
{
	double power = pow(10, floor(log10(step))), rest = step / power;

	return (rest <= 1.0001 ? 1 : rest <= 2.0001 ? 2 : rest <= 5.0001 ? 5 : 10) * power;
}

static void linear_ticks(struct axis *axis, double low, double high)
{
	double step = round_step((high - low) / WANTED);

	axis->low = floor(low / step + 1e-9) * step;
	axis->high = ceil(high / step - 1e-9) * step;
	for (int i = 0; axis->ticks < TICKS_MAX; i++) {
		double value = axis->low + i * step;

		if (value > axis->high + step / 2)
			break;
		axis->tick[axis->ticks++] = fabs(value) < step / 2 ? 0 : value;
	}
}

/* 1, 2 and 5 of every power of ten, where those are not too many; else the powers alone. */
static void logarithmic_ticks(struct axis *axis, double low, double high)
{
	static const double parts[] = {1, 2, 5};
	bool fine = log10(high / low) < 4;
	double power = pow(10, floor(log10(low)));

	for (; power <= high && axis->ticks < TICKS_MAX; power *= 10)
		for (int i = 0; i < (fine ? 3 : 1) && axis->ticks < TICKS_MAX; i++)
			if (power * parts[i] >= low * 0.999 && power * parts[i] <= high * 1.001)
				axis->tick[axis->ticks++] = power * parts[i];
	axis->low = low;
	axis->high = high;
}

struct axis axis_make(double low, double high, double from, double to, bool logarithmic)
{
	struct axis axis = {.from = from, .to = to, .logarithmic = logarithmic};

	if (!(high > low))
		high = low + (low != 0 ? fabs(low) : 1);
	if (logarithmic) {
		logarithmic_ticks(&axis, low / 1.15, high * 1.15);
		return axis;
	}
	if (low > 0 && low < 0.7 * high)
		low = 0;
	linear_ticks(&axis, low, high);
	return axis;
}

double axis_at(const struct axis *axis, double value)
{
	double part = axis->logarithmic ? log(value / axis->low) / log(axis->high / axis->low)
					: (value - axis->low) / (axis->high - axis->low);

	return axis->from + part * (axis->to - axis->from);
}

const char *axis_write(const struct axis *axis, double value, char *buffer, size_t bytes)
{
	double step = axis->ticks > 1 ? axis->tick[1] - axis->tick[0] : value;
	int digits = step > 0 && !axis->logarithmic ? (int)fmax(0, -floor(log10(step) + 1e-9)) : 0;

	if (axis->logarithmic)
		snprintf(buffer, bytes, "%g", value);
	else
		snprintf(buffer, bytes, "%.*f", digits, value);
	return buffer;
}
