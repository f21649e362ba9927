/*
 * check_lp - J's minimum by an independent solver: the program that is written for it, solved by cbc where it is
 * installed.
 *
 * links: partition
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "partition/solvers.h"
#include "tests/instances.h"
#include "tests/suite.h"

enum { INSTANCES = 24, SKIPPED = 77 };

/* The objective that cbc finds; -1: the program has no solution. */
static double solved(const struct instance *in)
{
	struct text text = {0};
	char path[] = "/tmp/edgepipe-lp-XXXXXX.lp", line[256], command[96];
	double value = -1;
	int fd = mkstemps(path, 3);
	FILE *out;

	ck_assert_int_ge(fd, 0);
	lp_write(in, &text);
	ck_assert_int_eq(write(fd, text.data, text.bytes), (ssize_t)text.bytes);
	close(fd);
	snprintf(command, sizeof command, "cbc %s ratio 0 allow 0 solve 2>&1", path);
	out = popen(command, "r");
	ck_assert_ptr_nonnull(out);
	while (fgets(line, sizeof line, out))
		if (!strncmp(line, "Objective value:", 16))
			value = strtod(line + 16, NULL);
	ck_assert_int_eq(pclose(out), 0);
	unlink(path);
	text_release(&text);
	return value;
}

START_TEST(cbc_finds_the_same_minimum)
{
	int plans = 0;

	for (uint32_t seed = 1; seed <= INSTANCES; seed++) {
		struct arena arena = {0};
		struct draws d = {seed, 21};
		struct instance_want w = {.nodes = draw_int(&d, 1, 4), .blocks = draw_int(&d, 1, 6),
					  .micro_batches = draw_int(&d, 1, 16), .uneven = seed % 3 == 0,
					  .unlinked = seed % 2 == 0, .link_low_s = 0.05, .link_high_s = 2,
					  .latency_s = 0.5};
		struct instance *in = draw_instance(&arena, &d, &w);
		struct pool pool = {0};
		double found;

		in->stages = seed % 4 == 0 ? draw_int(&d, 1, w.nodes) : 0;
		in->head_alone = seed % 5 != 0;
		exact_solve(in, &pool);
		found = solved(in);
		if (pool.count == 0) {
			ck_assert_msg(found < 0, "seed %u: cbc finds %.9g where there is no plan", seed, found);
		} else {
			plans++;
			ck_assert_msg(fabs(found - pool_best(&pool)) < 1e-6 * found, "seed %u: cbc finds %.9g, exact %.9g",
				      seed, found, pool_best(&pool));
		}
		pool_release(&pool);
		arena_release(&arena);
	}
	printf("cbc agrees on %d instances\n", plans);
	ck_assert_int_ge(plans, 20);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("lp");
	TCase *tcase = tcase_create("lp");

	tcase_set_timeout(tcase, 200);
	tcase_add_test(tcase, cbc_finds_the_same_minimum);
	suite_add_tcase(s, tcase);
	return s;
}

int main(void)
{
	if (system("command -v cbc > /dev/null") != 0) {
		printf("skipped: cbc is not installed (Debian: coinor-cbc)\n");
		return SKIPPED;
	}
	return run_suite(suite());
}
