/*
 * tests/check_units.c - numbers with units: what is read, what is refused and with which words.
 *
 * links: base
 */
#include "base/base.h"
#include "tests/suite.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *text;
	enum unit unit;
	double value;
} good[] = {
	{"0 B", UNIT_BYTES, 0},
	{"17B", UNIT_BYTES, 17},
	{"4 kB", UNIT_BYTES, 4e3},
	{"4 KB", UNIT_BYTES, 4e3},
	{"512 MB", UNIT_BYTES, 512e6},
	{"1.5 GB", UNIT_BYTES, 1.5e9},
	{"2 TB", UNIT_BYTES, 2e12},
	{"64 KiB", UNIT_BYTES, 65536},
	{"64MiB", UNIT_BYTES, 67108864},
	{"8 GiB", UNIT_BYTES, 8589934592.0},
	{"8GiB", UNIT_BYTES, 8589934592.0},
	{"  8   GiB  ", UNIT_BYTES, 8589934592.0},
	{"0.5 TiB", UNIT_BYTES, 549755813888.0},
	{"8 bit/s", UNIT_BYTES_S, 1},
	{"8 kbit/s", UNIT_BYTES_S, 1e3},
	{"400 Mbit/s", UNIT_BYTES_S, 50e6},
	{"1 Gbit/s", UNIT_BYTES_S, 125e6},
	{"1e1Gbit/s", UNIT_BYTES_S, 1250e6},
	{"0.8 Tbit/s", UNIT_BYTES_S, 100e9},
	{"9 B/s", UNIT_BYTES_S, 9},
	{"9 kB/s", UNIT_BYTES_S, 9e3},
	{"50 MB/s", UNIT_BYTES_S, 50e6},
	{"12 GB/s", UNIT_BYTES_S, 12e9},
	{"1 KiB/s", UNIT_BYTES_S, 1024},
	{"1 MiB/s", UNIT_BYTES_S, 1048576},
	{"1 GiB/s", UNIT_BYTES_S, 1073741824.0},
	{"3 ns", UNIT_SECONDS, 3e-9},
	{"20 us", UNIT_SECONDS, 20e-6},
	{"3 ms", UNIT_SECONDS, 0.003},
	{"7ms", UNIT_SECONDS, 0.007},
	{"2 s", UNIT_SECONDS, 2},
	{"1.5 min", UNIT_SECONDS, 90},
	{"2 h", UNIT_SECONDS, 7200},
	{"0 s", UNIT_SECONDS, 0},
	{"5 FLOPS", UNIT_FLOPS, 5},
	{"5 kFLOPS", UNIT_FLOPS, 5e3},
	{"5 MFLOPS", UNIT_FLOPS, 5e6},
	{"900 GFLOPS", UNIT_FLOPS, 900e9},
	{"35.5 TFLOPS", UNIT_FLOPS, 35.5e12},
	{"1 PFLOPS", UNIT_FLOPS, 1e15},
	{"2.5e-3 TFLOPS", UNIT_FLOPS, 2.5e9},
	{"1E+2 GFLOPS", UNIT_FLOPS, 1e11},
};

START_TEST(right_spellings_are_read)
{
	char why[256] = "";
	double value = -1;

	ck_assert_msg(unit_read(good[_i].text, good[_i].unit, &value, why, sizeof why) == 0,
		      "%s: %s", good[_i].text, why);
	ck_assert_msg(value == good[_i].value, "%s: %.17g", good[_i].text, value);
}
END_TEST

static const struct {
	const char *text;
	enum unit unit;
	const char *why;	/* a part of the message */
} bad[] = {
	/* No unit: the units are named. */
	{"400", UNIT_BYTES_S, "\"400\" has no unit (a rate takes one of bit/s, kbit/s, Mbit/s"},
	{"8", UNIT_BYTES, "B, kB, KB, MB, GB, TB, KiB, MiB, GiB, TiB"},
	{"0", UNIT_SECONDS, "has no unit (a duration takes one of ns, us, ms, s, min, h)"},
	{"1e9 ", UNIT_FLOPS, "FLOPS, kFLOPS, MFLOPS, GFLOPS, TFLOPS, PFLOPS"},
	/* Not a number. */
	{"", UNIT_BYTES, "is not a size (a number and one of B,"},
	{"GiB", UNIT_BYTES, "is not a size"},
	{"nan s", UNIT_SECONDS, "is not a duration"},
	{"NaN", UNIT_BYTES, "is not a size"},
	{"inf B", UNIT_BYTES, "is not a size"},
	{"infinity Mbit/s", UNIT_BYTES_S, "is not a rate"},
	{"+1 s", UNIT_SECONDS, "is not a duration"},
	{".5 s", UNIT_SECONDS, "is not a duration"},
	{"true", UNIT_FLOPS, "is not a speed"},
	{"-1 GiB", UNIT_BYTES, "\"-1 GiB\" is negative"},
	{"-0 s", UNIT_SECONDS, "is negative"},
	{"-inf s", UNIT_SECONDS, "is negative"},
	{"1e400 B", UNIT_BYTES, "is too large"},
	{"1e308 TiB", UNIT_BYTES, "is too large"},
	/* A number, and something behind it that is no unit. */
	{"0x10 B", UNIT_BYTES, "is not a size"},
	{"1.5.2 GB", UNIT_BYTES, "is not a size"},
	{"1,5 GiB", UNIT_BYTES, "is not a size"},
	{"5. GB", UNIT_BYTES, "is not a size"},
	{"5e GB", UNIT_BYTES, "is not a size"},
	{"8 GiB 8", UNIT_BYTES, "is not a size"},
	{"8 G iB", UNIT_BYTES, "is not a size"},
	{"8\tGiB", UNIT_BYTES, "is not a size"},
	{"1 s", UNIT_BYTES, "is not a size"},
	{"8 GiB", UNIT_SECONDS, "(its units: ns, us, ms, s, min, h)"},
	{"10 parsecs", UNIT_SECONDS, "(its units: ns, us, ms, s, min, h)"},
	{"1 abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz", UNIT_BYTES,
	 "(its units: B, kB, KB,"},
	/* Wrong spellings. */
	{"10 Gbs", UNIT_BYTES_S,
	 "\"10 Gbs\" is not a rate (did you mean \"10 Gbit/s\" or \"10 GB/s\"?)"},
	{"10 Gbt/s", UNIT_BYTES_S, "(did you mean \"10 Gbit/s\" or \"10 GB/s\"?)"},
	{"10Gbps", UNIT_BYTES_S, "(did you mean \"10 Gbit/s\" or \"10 GB/s\"?)"},
	{"10 Gb/s", UNIT_BYTES_S, "(did you mean \"10 Gbit/s\" or \"10 GB/s\"?)"},
	{"10 mbps", UNIT_BYTES_S, "(did you mean \"10 Mbit/s\" or \"10 MB/s\"?)"},
	{"400 Mbits/s", UNIT_BYTES_S, "(did you mean \"400 Mbit/s\"?)"},
	{"400 mbit/s", UNIT_BYTES_S, "(did you mean \"400 Mbit/s\"?)"},
	{"400 Mbit", UNIT_BYTES_S, "(did you mean \"400 Mbit/s\"?)"},
	{"5 MB", UNIT_BYTES_S, "(did you mean \"5 MB/s\""},
	{"8 gib", UNIT_BYTES, "(did you mean \"8 GiB\""},
	{"8 G", UNIT_BYTES, "(did you mean \"8 GB\" or \"8 GiB\"?)"},
	{"8 Gb", UNIT_BYTES, "(did you mean \"8 GB\""},
	{"2 MS", UNIT_SECONDS, "(did you mean \"2 ms\"?)"},
	{"2 m", UNIT_SECONDS, "(did you mean \"2 ms\" or \"2 min\"?)"},
	{"2 sec", UNIT_SECONDS, "(did you mean \"2 s\""},
	{"3.56 TFlops", UNIT_FLOPS, "(did you mean \"3.56 TFLOPS\""},
	{"3.56 TFLOP/s", UNIT_FLOPS, "(did you mean \"3.56 TFLOPS\""},
	{"3 tflops", UNIT_FLOPS, "(did you mean \"3 TFLOPS\""},
};

START_TEST(wrong_spellings_are_refused)
{
	char why[256] = "";
	double value = -7;

	ck_assert_msg(unit_read(bad[_i].text, bad[_i].unit, &value, why, sizeof why) == -1,
		      "\"%s\" was read as %g", bad[_i].text, value);
	ck_assert_msg(strstr(why, bad[_i].why) != NULL, "\"%s\": %s", bad[_i].text, why);
	ck_assert(value == -7);
}
END_TEST

START_TEST(a_small_buffer_is_kept)
{
	char why[8];
	double value;

	memset(why, 'x', sizeof why);
	ck_assert_int_eq(unit_read("400", UNIT_BYTES_S, &value, why, 4), -1);
	ck_assert_uint_eq(strlen(why), 3);
	ck_assert_int_eq(why[4], 'x');
}
END_TEST

START_TEST(the_locale_changes_nothing)
{
	static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8"};
	char why[256], text[32];
	double value;

	bool found = false;

	for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++)
		found = setlocale(LC_ALL, names[i]) != NULL;
	if (!found)
		printf("no locale with a decimal comma here: only \"C\" is tried\n");
	ck_assert_int_eq(unit_read("1.5 GB", UNIT_BYTES, &value, why, sizeof why), 0);
	ck_assert(value == 1.5e9);
	ck_assert_str_eq(unit_write(1500, UNIT_BYTES, text, sizeof text), "1.46 KiB");
	setlocale(LC_ALL, "C");
}
END_TEST

static const struct {
	double value;
	enum unit unit;
	const char *text;
} written[] = {
	{0, UNIT_BYTES, "0 B"},
	{17, UNIT_BYTES, "17 B"},
	{1023, UNIT_BYTES, "1023 B"},
	{1024, UNIT_BYTES, "1 KiB"},
	{8589934592.0, UNIT_BYTES, "8 GiB"},
	{1.21 * 0x1p30, UNIT_BYTES, "1.21 GiB"},
	{12.34 * 0x1p20, UNIT_BYTES, "12.3 MiB"},
	{567.8 * 0x1p20, UNIT_BYTES, "568 MiB"},
	{5000 * 0x1p40, UNIT_BYTES, "5000 TiB"},
	{50e6, UNIT_BYTES_S, "400 Mbit/s"},
	{125e6, UNIT_BYTES_S, "1 Gbit/s"},
	{117.3e6, UNIT_BYTES_S, "938 Mbit/s"},
	{124.96e6, UNIT_BYTES_S, "1.00 Gbit/s"},	/* not 1000 Mbit/s */
	{0.002, UNIT_SECONDS, "2 ms"},
	{0.043, UNIT_SECONDS, "43 ms"},
	{0.0123, UNIT_SECONDS, "12.3 ms"},
	{7e-9, UNIT_SECONDS, "7 ns"},
	{1.2345e-6, UNIT_SECONDS, "1.23 us"},
	{45, UNIT_SECONDS, "45 s"},
	{90, UNIT_SECONDS, "1.50 min"},
	{9000, UNIT_SECONDS, "2.50 h"},
	{3.56e12, UNIT_FLOPS, "3.56 TFLOPS"},
	{900e9, UNIT_FLOPS, "900 GFLOPS"},
	{9.996e9, UNIT_FLOPS, "10.0 GFLOPS"},
	{-2048, UNIT_BYTES, "-2 KiB"},
	{INFINITY, UNIT_SECONDS, "inf"},
	{1, UNIT_BYTES_S, "8 bit/s"},
};

START_TEST(values_are_written_with_a_fitting_unit)
{
	char text[32];

	ck_assert_str_eq(unit_write(written[_i].value, written[_i].unit, text, sizeof text),
			 written[_i].text);
}
END_TEST

START_TEST(what_is_written_reads_back)
{
	char text[32], why[256];

	for (int unit = UNIT_BYTES; unit <= UNIT_FLOPS; unit++) {
		for (double value = 1.2345e-6; value < 1e17; value *= 3.7) {
			double back = 0;

			if (unit != UNIT_SECONDS && value < 10)
				continue;
			unit_write(value, (enum unit)unit, text, sizeof text);
			ck_assert_msg(unit_read(text, (enum unit)unit, &back, why,
						sizeof why) == 0, "%s: %s", text, why);
			ck_assert_msg(fabs(back - value) <= 0.0051 * value, "%s: %g", text,
				      value);
		}
	}
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static Suite *suite(void)
{
	Suite *s = suite_create("units");
	TCase *t = tcase_create("units");

	tcase_add_loop_test(t, right_spellings_are_read, 0, COUNT(good));
	tcase_add_loop_test(t, wrong_spellings_are_refused, 0, COUNT(bad));
	tcase_add_test(t, a_small_buffer_is_kept);
	tcase_add_test(t, the_locale_changes_nothing);
	tcase_add_loop_test(t, values_are_written_with_a_fitting_unit, 0, COUNT(written));
	tcase_add_test(t, what_is_written_reads_back);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run_suite(suite());
}
