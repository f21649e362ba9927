/*
 * fit.c - a line through measured times, by least squares of relative deviations: 10 % too much
 * is as bad at 1 ms as at 1 s. No coefficient is below 0, since more tokens never take less
 * time: of the few ways to leave coefficients out, the best one without a negative result is
 * the constrained optimum (three unknowns: seven ways).
 */
#include "profiler/profiler.h"

#include <math.h>

enum { TERMS = 3 };

#define WORTH 0.99		/* what another coefficient must save of the squares */

const char *origin_name(enum origin origin)
{
	switch (origin) {
	case ORIGIN_GUESSED: return "guessed";
	case ORIGIN_DECLARED: return "declared";
	case ORIGIN_MEASURED: return "measured";
	}
	return "guessed";
}

static void terms_of(const struct timing *sample, double term[TERMS])
{
	term[0] = 1;
	term[1] = sample->n;
	term[2] = sample->n * sample->T;
}

/* The normal equations of the terms in use, divided by the samples and by each term's largest
 * value. */
static int normal_equations(const struct timing *sample, int count, const int *use, int terms,
			    const double *most, double a[TERMS][TERMS + 1])
{
	for (int i = 0; i < terms; i++)
		for (int j = 0; j <= terms; j++)
			a[i][j] = 0;
	for (int k = 0; k < count; k++) {
		double term[TERMS], w = sample[k].weight / (sample[k].s * sample[k].s);

		terms_of(&sample[k], term);
		for (int i = 0; i < terms; i++) {
			double x = term[use[i]] / most[use[i]];

			for (int j = 0; j < terms; j++)
				a[i][j] += w * x * term[use[j]] / most[use[j]];
			a[i][terms] += w * x * sample[k].s;
		}
	}
	return terms;
}

/* Gauss-Jordan with pivoting; false where the samples do not tell the terms apart. */
static bool eliminate(double a[TERMS][TERMS + 1], int n)
{
	for (int c = 0; c < n; c++) {
		int best = c;
		double whole = 0;

		for (int r = c; r < n; r++) {
			best = fabs(a[r][c]) > fabs(a[best][c]) ? r : best;
			whole = fmax(whole, fabs(a[r][r]));
		}
		if (!(fabs(a[best][c]) > 1e-9 * whole))
			return false;
		for (int j = 0; j <= n; j++) {
			double swap = a[c][j];

			a[c][j] = a[best][j];
			a[best][j] = swap;
		}
		for (int r = 0; r < n; r++)
			for (int j = n; r != c && j >= c; j--)
				a[r][j] -= a[c][j] * a[r][c] / a[c][c];
	}
	return true;
}

/* The fit with the terms of a set alone; false: none, or one below 0. */
static bool solve(const struct timing *sample, int count, unsigned set, const double *most,
		  double c[TERMS])
{
	double a[TERMS][TERMS + 1];
	int use[TERMS], terms = 0;

	for (int i = 0; i < TERMS; i++) {
		c[i] = 0;
		if (set >> i & 1)
			use[terms++] = i;
	}
	/* one to spare, for the error to mean something */
	if (terms > (count > 2 ? count - 1 : count))
		return false;
	normal_equations(sample, count, use, terms, most, a);
	if (!eliminate(a, terms))
		return false;
	for (int i = 0; i < terms; i++) {
		c[use[i]] = a[i][terms] / a[i][i] / most[use[i]];
		if (!(c[use[i]] >= 0))
			return false;
	}
	return true;
}

/* The weighted squares of the relative deviations, and the largest one. */
static double squares_of(const struct timing *sample, int count, const double c[TERMS],
			 double *largest)
{
	double sum = 0;

	*largest = 0;
	for (int k = 0; k < count; k++) {
		double term[TERMS], deviation;

		terms_of(&sample[k], term);
		deviation =
		    (c[0] * term[0] + c[1] * term[1] + c[2] * term[2]) / sample[k].s - 1;
		sum += sample[k].weight * deviation * deviation;
		*largest = fmax(*largest, fabs(deviation));
	}
	return sum;
}

struct fit fit_samples(const struct timing *sample, int count)
{
	struct fit fit = {.origin = ORIGIN_MEASURED, .error = INFINITY};
	double most[TERMS] = {1, 0, 0}, least = INFINITY;
	static const unsigned sets[] = {2, 1, 4, 3, 6, 5, 7};	/* fewest terms first */

	for (int k = 0; k < count; k++) {
		most[1] = fmax(most[1], sample[k].n);
		most[2] = fmax(most[2], sample[k].n * sample[k].T);
	}
	for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
		double c[TERMS], largest, squares;

		if ((sets[i] & 2 && most[1] <= 0) || (sets[i] & 4 && most[2] <= 0) ||
		    !solve(sample, count, sets[i], most, c))
			continue;
		squares = squares_of(sample, count, c, &largest);
		if (squares >= least * WORTH)
			continue;
		least = squares;
		fit = (struct fit){c[0],	   c[1], c[2], largest, largest > FIT_NOISY,
				   ORIGIN_MEASURED};
	}
	return fit;
}
