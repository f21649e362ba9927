/*
 * tests/check_random.c - Philox against its published answers, the shuffle as a permutation.
 *
 * links: base
 */
#include "base/base.h"
#include "tests/suite.h"

#include <stdlib.h>
#include <string.h>

/* The known-answer vectors that Random123 ships (kat_vectors, philox4x32 10). */
static const struct {
	uint32_t counter[4], key[2], answer[4];
} known[] = {
	{{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
	{{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
	 {0xffffffff, 0xffffffff},
	 {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
	{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
	 {0xa4093822, 0x299f31d0},
	 {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

START_TEST(philox_gives_the_published_words)
{
	struct philox counter;

	memcpy(counter.word, known[_i].counter, sizeof counter.word);
	struct philox got = philox(counter, known[_i].key[0], known[_i].key[1]);
	for (int i = 0; i < 4; i++)
		ck_assert_uint_eq(got.word[i], known[_i].answer[i]);
}
END_TEST

START_TEST(a_unit_float_is_below_one)
{
	ck_assert(philox_unit(0) == 0.0f);
	ck_assert(philox_unit(0xffffffff) < 1.0f);
	ck_assert(philox_unit(0xffffffff) > 0.9999999f);
	ck_assert(philox_unit(0x80000000) == 0.5f);
	ck_assert(philox_unit(0x100) == 0x1p-24f);
}
END_TEST

static bool is_permutation(uint64_t seed, uint64_t epoch, uint64_t count)
{
	bool *seen = xzalloc(count, sizeof *seen);
	bool fine = true;

	for (uint64_t i = 0; i < count && fine; i++) {
		uint64_t at = shuffle_index(seed, epoch, i, count);

		fine = at < count && !seen[at];
		if (fine)
			seen[at] = true;
	}
	free(seen);
	return fine;
}

START_TEST(a_shuffle_is_a_permutation)
{
	static const uint64_t counts[] = {1023, 1024, 1025, 4096, 4097, 9973, 65536, 65537};
	static const uint64_t seeds[] = {0, 1, 42, 0xffffffff, 0x100000000, UINT64_MAX};

	for (size_t s = 0; s < sizeof seeds / sizeof *seeds; s++) {
		for (uint64_t count = 1; count <= 70; count++)
			for (uint64_t epoch = 0; epoch < 4; epoch++)
				ck_assert(is_permutation(seeds[s], epoch, count));
		for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
			ck_assert(is_permutation(seeds[s], s, counts[c]));
	}
}
END_TEST

/* Places at which two shuffles of 1000 agree; chance gives one, the same shuffle a thousand. */
static int agreement(uint64_t seed, uint64_t epoch, uint64_t seed2, uint64_t epoch2)
{
	int same = 0;

	for (uint64_t i = 0; i < 1000; i++)
		same += shuffle_index(seed, epoch, i, 1000) ==
			shuffle_index(seed2, epoch2, i, 1000);
	return same;
}

START_TEST(every_seed_and_epoch_shuffles_anew)
{
	ck_assert_int_eq(agreement(7, 3, 7, 3), 1000);
	for (uint64_t epoch = 0; epoch < 20; epoch++) {
		ck_assert_int_lt(agreement(7, epoch, 7, epoch + 1), 12);
		ck_assert_int_lt(agreement(epoch, 0, epoch + 1, 0), 12);
		/* All 64 bits count. */
		ck_assert_int_lt(agreement(7, epoch, 7, epoch + (1ull << 32)), 12);
		ck_assert_int_lt(agreement(epoch, 7, epoch + (1ull << 32), 7), 12);
	}
}
END_TEST

START_TEST(a_shuffle_is_not_the_order_of_the_file)
{
	int same = 0, neighbours = 0;

	for (uint64_t i = 0; i < 1000; i++) {
		uint64_t at = shuffle_index(1, 0, i, 1000);

		same += at == i;
		neighbours += shuffle_index(1, 0, (i + 1) % 1000, 1000) == at + 1;
	}
	ck_assert_int_lt(same, 12);
	ck_assert_int_lt(neighbours, 12);
}
END_TEST

/*
 * With too few rounds, two indices that differ in one half alone go to places that differ in
 * the same way: 1024 is a full network of two halves of five bits.
 */
START_TEST(differences_do_not_survive)
{
	for (uint64_t bit = 1; bit < 1024; bit *= 2) {
		int same[2] = {0};

		for (uint64_t i = 0; i < 1024; i++) {
			uint64_t difference = shuffle_index(9, 0, i, 1024) ^
					      shuffle_index(9, 0, i ^ bit, 1024);

			same[0] += difference >> 5 == (bit >> 5 | (bit & 31));
			same[1] += (difference & 31) == (bit >> 5 | (bit & 31));
		}
		/* 32 by chance, in pairs. */
		ck_assert_int_lt(same[0], 100);
		ck_assert_int_lt(same[1], 100);
	}
}
END_TEST

START_TEST(small_shuffles_reach_every_order)
{
	int seen[27] = {0}, orders = 0;

	for (uint64_t epoch = 0; epoch < 600; epoch++) {
		uint64_t code = 0;

		for (uint64_t i = 0; i < 3; i++)
			code = code * 3 + shuffle_index(5, epoch, i, 3);
		seen[code]++;
	}
	for (int i = 0; i < 27; i++) {
		orders += seen[i] > 0;
		/* Six orders, a hundred each, give or take five deviations. */
		ck_assert(seen[i] == 0 || (seen[i] > 50 && seen[i] < 150));
	}
	ck_assert_int_eq(orders, 6);
}
END_TEST

START_TEST(the_largest_counts_do_not_overflow)
{
	uint64_t least = UINT64_MAX, most = 0;

	for (uint64_t i = 0; i < 100; i++) {
		uint64_t count = UINT64_MAX - 12345;
		uint64_t at = shuffle_index(1, 2, count - 1 - i, count);

		ck_assert_uint_lt(at, count);
		least = at < least ? at : least;
		most = at > most ? at : most;
		ck_assert_uint_lt(shuffle_index(1, 2, i, (1ull << 62) + 1), (1ull << 62) + 1);
	}
	ck_assert_uint_lt(least, 1ull << 62);
	ck_assert_uint_gt(most, 1ull << 63);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("random");
	TCase *t = tcase_create("random");

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, philox_gives_the_published_words, 0, 3);
	tcase_add_test(t, a_unit_float_is_below_one);
	tcase_add_test(t, a_shuffle_is_a_permutation);
	tcase_add_test(t, every_seed_and_epoch_shuffles_anew);
	tcase_add_test(t, a_shuffle_is_not_the_order_of_the_file);
	tcase_add_test(t, differences_do_not_survive);
	tcase_add_test(t, small_shuffles_reach_every_order);
	tcase_add_test(t, the_largest_counts_do_not_overflow);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run_suite(suite());
}
