/*
 * check_svg.c - what pictures are made of: text that cannot break them, and axes.
 *
 * links: launch
 */
#include <check.h>
#include <math.h>
#include <string.h>

#include "launch/svg.h"
#include "tests/suite.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))
#define NONE "\xef\xbf\xbd"		/* U+FFFD */

static const struct { const char *from, *to; } escapes[] = {
	{"", ""},
	{"plain 1-2", "plain 1-2"},
	{"<b a='x' c=\"y\">&amp;", "&lt;b a=&#39;x&#39; c=&quot;y&quot;&gt;&amp;amp;"},
	{"a\nb\tc", "a b c"},
	{"a\x01" "b\x1f" "c\x7f", "a" NONE "b" NONE "c" NONE},
	{"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"},	/* ae, euro, a face */
	{"\xff\xfe", NONE NONE},
	{"\xc3", NONE},					/* cut short */
	{"\xe2\x82", NONE NONE},
	{"\xc3<", NONE "&lt;"},				/* what follows is not swallowed */
	{"\xc0\xbc", NONE NONE},			/* "<" in two bytes */
	{"\xe0\x80\xbc", NONE NONE NONE},		/* in three */
	{"\xf0\x80\x80\xbc", NONE NONE NONE NONE},	/* in four */
	{"\xed\xa0\x80", NONE NONE NONE},		/* a surrogate */
	{"\xf4\x90\x80\x80", NONE NONE NONE NONE},	/* beyond Unicode */
	{"\xef\xbf\xbf", NONE NONE NONE},		/* U+FFFF */
	{"\xef\xbf\xbd", NONE},
};

START_TEST(text_cannot_break_a_picture)
{
	struct text text = {0};

	text_add(&text, "%s", "");
	svg_escape(&text, escapes[_i].from);
	ck_assert_str_eq(text.data, escapes[_i].to);
	text_release(&text);
}
END_TEST

START_TEST(formatted_text_is_escaped_whole)
{
	struct text text = {0};
	char name[3000];

	memset(name, '<', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	svg_text(&text, 1, 2, "start", "small", "%s %d", name, 7);
	ck_assert_ptr_null(strstr(text.data, "<<"));
	ck_assert_ptr_nonnull(strstr(text.data, "&lt; 7</text>"));
	text_release(&text);
}
END_TEST

static const struct { double low, high; int logarithmic; const char *ticks; } axes[] = {
	{0, 10, 0, "0 2 4 6 8 10"},
	{0, 1, 0, "0.0 0.2 0.4 0.6 0.8 1.0"},
	{1, 9.3, 0, "0 2 4 6 8 10"},
	{3.26, 3.42, 0, "3.25 3.30 3.35 3.40 3.45"},
	{-3, 3, 0, "-4 -2 0 2 4"},
	{0.0012, 0.0031, 0, "0.000 0.001 0.002 0.003 0.004"},
	{5, 5, 0, "0 2 4 6 8 10"},
	{0, 0, 0, "0.0 0.2 0.4 0.6 0.8 1.0"},
	{100, 2000, 1, "100 200 500 1000 2000"},
	{0.07, 3.2, 1, "0.1 0.2 0.5 1 2"},
	{1, 1e6, 1, "1 10 100 1000 10000 100000 1e+06"},
};

START_TEST(ticks_are_round_and_around_the_values)
{
	struct axis axis = axis_make(axes[_i].low, axes[_i].high, 100, 300, axes[_i].logarithmic);
	struct text text = {0};
	char number[32];

	for (int i = 0; i < axis.ticks; i++)
		text_add(&text, "%s%s", i ? " " : "", axis_write(&axis, axis.tick[i], number, sizeof(number)));
	ck_assert_str_eq(text.data, axes[_i].ticks);
	ck_assert(axis.low <= axes[_i].low && axis.high >= axes[_i].high);
	ck_assert_double_eq_tol(axis_at(&axis, axis.low), 100, 1e-9);
	ck_assert_double_eq_tol(axis_at(&axis, axis.high), 300, 1e-9);
	text_release(&text);
}
END_TEST

/* Upwards is where the numbers of a picture are smaller. */
START_TEST(an_axis_may_go_upwards)
{
	struct axis axis = axis_make(0, 10, 300, 100, false), powers = axis_make(1, 100, 300, 100, true);

	ck_assert_double_eq_tol(axis_at(&axis, 2.5), 250, 1e-9);
	ck_assert_double_eq_tol(axis_at(&powers, 10), 200, 1e-9);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("svg");
	TCase *tests = tcase_create("svg");

	tcase_add_loop_test(tests, text_cannot_break_a_picture, 0, COUNT(escapes));
	tcase_add_test(tests, formatted_text_is_escaped_whole);
	tcase_add_loop_test(tests, ticks_are_round_and_around_the_values, 0, COUNT(axes));
	tcase_add_test(tests, an_axis_may_go_upwards);
	suite_add_tcase(suite, tests);
	return run_suite(suite);
}
