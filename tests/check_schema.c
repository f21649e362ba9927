/*
 * tests/check_schema.c - a configuration through a small table of its own: every kind of value,
 * every refusal, overrides, and that what is written reads back.
 *
 * links: base
 */
#include "base/base.h"
#include "tests/folder.h"
#include "tests/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* -- a table ------------------------------------------------------------------------------- */

struct dish { const char *name; long long servings; double weight; struct texts tags; };

struct menu {
	struct config config;
	const char *title, *notes, *style;
	int mood;
	long long guests, helpers, answer;
	double ratio, open, space, speed, rate, wait;
	bool vegan, trial;
	struct texts cooks;
	struct numbers prices;
	struct list dishes;
};

static const char *const moods[] = {"calm", "merry", "-wild", NULL};
static const char *const styles[] = {"plain", "fancy", "-baroque", NULL};
static const char *const automatic[] = {"auto", NULL};
static const char *const unlimited[] = {"unlimited", NULL};

#define AT(member) offsetof(struct menu, member)
#define DISH(member) offsetof(struct dish, member)

static const struct field rows[] = {
	{"title", FIELD_TEXT, AT(title), .required = true, .help = "of the menu"},
	{"kitchen.guests", FIELD_INTEGER, AT(guests), "4", 1, 100, .help = "how many come"},
	{"kitchen.helpers", FIELD_INTEGER, AT(helpers), "auto", 1, 9, .words = automatic},
	{"kitchen.answer", FIELD_INTEGER, AT(answer), .help = "-"},
	{"kitchen.ratio", FIELD_NUMBER, AT(ratio), "0.5", 0, 1, .help = "of this to that"},
	{"kitchen.mood", FIELD_WORD, AT(mood), "calm", .words = moods},
	{"kitchen.style", FIELD_TEXT, AT(style), .words = styles},
	{"kitchen.vegan", FIELD_FLAG, AT(vegan), "false", .help = "-"},
	{"kitchen.notes", FIELD_PATH, AT(notes), .help = "-"},
	{"kitchen.oven.space", FIELD_BYTES, AT(space), NULL, 1, INFINITY, .help = "-"},
	{"kitchen.oven.rate", FIELD_BYTES_S, AT(rate), "unlimited", 1, 1e9, .words = unlimited},
	{"kitchen.oven.wait", FIELD_SECONDS, AT(wait), "2 ms", 0, 3600, .help = "-"},
	{"kitchen.oven.speed", FIELD_FLOPS, AT(speed), NULL, 1, INFINITY, .help = "-"},
	{"kitchen.cooks", FIELD_TEXTS, AT(cooks), "everybody", .help = "-"},
	{"kitchen.prices", FIELD_NUMBERS, AT(prices), "[1, 2.5]", 0, 50, .help = "-"},
	{"dishes", FIELD_LIST, AT(dishes), .item_bytes = sizeof(struct dish),
	 .help = "in order"},
	{"dishes[].name", FIELD_TEXT, DISH(name), .required = true},
	{"dishes[].servings", FIELD_INTEGER, DISH(servings), "2", 1, 8, .help = "-"},
	{"dishes[].size.weight", FIELD_BYTES, DISH(weight), NULL, 1, INFINITY, .help = "-"},
	{"dishes[].tags", FIELD_TEXTS, DISH(tags), .help = "-"},
	{"later.trial", FIELD_FLAG, AT(trial), "false", .refused = "wait for the next season"},
	{"later.open", FIELD_NUMBER, AT(open), "1", .refused = "always open"},
	{"later.games", FIELD_LIST, 0, .refused = "bring your own", .help = "after dinner"},
	{"later.music", FIELD_TEXT, 0, .refused = "sing"},
};

static const struct schema schema = { rows, sizeof rows / sizeof *rows };

/* -- a folder for every test --------------------------------------------------------------- */

static char *file;
static struct menu menu;

static void set_up(void)
{
	folder_open();
	file = in_folder("m.yaml");
	/* Short names in messages: m.yaml, not the folder's. */
	ck_assert_int_eq(chdir(folder), 0);
}

static void tear_down(void)
{
	config_release(&menu.config);
	ck_assert_int_eq(chdir("/"), 0);
	folder_close();
}

/* Reads text as m.yaml into menu; returns what was said. */
static const char *said(const char *text, const char *const *overrides, int count)
{
	int rc;

	config_release(&menu.config);
	memset(&menu, 0, sizeof menu);
	ck_assert_int_eq(file_write("m.yaml", text, strlen(text)), 0);
	error_clear();
	error_hold();
	rc = config_read(&menu.config, &schema, &menu, "m.yaml", overrides, count);
	ck_assert_int_eq(rc, error_text()[0] ? -1 : 0);
	ck_assert_int_eq(config_errors(&menu.config) > 0, rc < 0);
	return error_text();
}

static const char *said_of(const char *text)
{
	return said(text, NULL, 0);
}

/* -- what is read -------------------------------------------------------------------------- */

START_TEST(defaults_fill_what_is_left_out)
{
	ck_assert_str_eq(said_of("title: x\n"), "");
	ck_assert_str_eq(menu.title, "x");
	ck_assert_int_eq(menu.guests, 4);
	ck_assert_int_eq(menu.helpers, 0);
	ck_assert_double_eq(menu.ratio, 0.5);
	ck_assert_int_eq(menu.mood, 0);
	ck_assert_ptr_null(menu.style);
	ck_assert_ptr_null(menu.notes);
	ck_assert_double_eq(menu.space, 0);
	ck_assert_double_eq(menu.rate, 0);
	ck_assert_double_eq(menu.wait, 0.002);
	ck_assert_int_eq(menu.cooks.count, 1);
	ck_assert_str_eq(menu.cooks.item[0], "everybody");
	ck_assert_int_eq(menu.prices.count, 2);
	ck_assert_double_eq(menu.prices.item[1], 2.5);
	ck_assert_int_eq(menu.dishes.count, 0);
	ck_assert_double_eq(menu.open, 1);
}
END_TEST

static const char whole[] =
	"title: \"a: b\"\n"
	"kitchen:\n"
	"  guests: 100\n"
	"  helpers: 9\n"
	"  answer: -42\n"
	"  ratio: 2.5e-1\n"
	"  mood: merry\n"
	"  style: fancy\n"
	"  vegan: true\n"
	"  notes: sub/notes.txt\n"
	"  oven: {space: 8 GiB, rate: 400 Mbit/s, wait: 0 s, speed: 3.56 TFLOPS}\n"
	"  cooks: [ann, \"b c\"]\n"
	"  prices: [50, .5, 1e-3]\n"
	"dishes:\n"
	"  - {name: soup, size: {weight: 1 KiB}, tags: hot}\n"
	"  - name: 5\n"
	"    servings: 8\n"
	"later: {trial: false, open: 1.0, games: [], music: ~}\n";

START_TEST(every_kind_is_read)
{
	const struct dish *dish;

	ck_assert_str_eq(said_of(whole), "");
	ck_assert_str_eq(menu.title, "a: b");
	ck_assert_int_eq(menu.guests, 100);
	ck_assert_int_eq(menu.helpers, 9);
	ck_assert_int_eq(menu.answer, -42);
	ck_assert_double_eq(menu.ratio, 0.25);
	ck_assert_int_eq(menu.mood, 1);
	ck_assert_str_eq(menu.style, "fancy");
	ck_assert(menu.vegan);
	ck_assert_str_eq(menu.notes, in_folder("sub/notes.txt"));
	ck_assert_double_eq(menu.space, 0x1p33);
	ck_assert_double_eq(menu.rate, 50e6);
	ck_assert_double_eq(menu.wait, 0);
	ck_assert_double_eq(menu.speed, 3.56e12);
	ck_assert_int_eq(menu.cooks.count, 2);
	ck_assert_str_eq(menu.cooks.item[1], "b c");
	ck_assert_int_eq(menu.prices.count, 3);
	ck_assert_double_eq(menu.prices.item[0], 50);
	ck_assert_double_eq(menu.prices.item[2], 1e-3);
	ck_assert_int_eq(menu.dishes.count, 2);
	dish = menu.dishes.item;
	ck_assert_str_eq(dish[0].name, "soup");
	ck_assert_int_eq(dish[0].servings, 2);
	ck_assert_double_eq(dish[0].weight, 1024);
	ck_assert_int_eq(dish[0].tags.count, 1);
	ck_assert_str_eq(dish[1].name, "5");
	ck_assert_int_eq(dish[1].servings, 8);
	ck_assert_int_eq(dish[1].tags.count, 0);
}
END_TEST

START_TEST(nothing_said_is_the_default)
{
	ck_assert_str_eq(said_of("title: x\nkitchen: {guests: ~, mood: null, oven: , notes: ,"
				 " helpers: auto, cooks: }\ndishes:\nlater:\n"), "");
	ck_assert_int_eq(menu.guests, 4);
	ck_assert_int_eq(menu.mood, 0);
	ck_assert_ptr_null(menu.notes);
	ck_assert_str_eq(menu.cooks.item[0], "everybody");
	ck_assert(!config_given(&menu.config, "kitchen.guests"));
	ck_assert(config_given(&menu.config, "kitchen.helpers"));
	ck_assert(!config_given(&menu.config, "kitchen.answer"));
	ck_assert(!config_given(&menu.config, "dishes.0.name"));
}
END_TEST

/* -- what is refused ----------------------------------------------------------------------- */

/* The value of a key in `kitchen`, and what is said about it after "kitchen.". */
static const struct { const char *line, *error; } bad[] = {
	{"guests: 1e3", "guests: \"1e3\" is not an integer (digits alone)"},
	{"guests: 1_0", "guests: \"1_0\" is not an integer (digits alone)"},
	{"guests: +5", "guests: \"+5\" is not an integer (digits alone)"},
	{"guests: 5.0", "guests: \"5.0\" is not an integer (digits alone)"},
	{"guests: 0x10", "guests: \"0x10\" is not an integer (digits alone)"},
	{"guests: \"\"", "guests: \"\" is not an integer (digits alone)"},
	{"guests: 010", "guests: \"010\" is not an integer: it begins with a zero"},
	{"guests: 0", "guests: \"0\" is out of range, it must be between 1 and 100"},
	{"guests: 101", "guests: \"101\" is out of range, it must be between 1 and 100"},
	{"guests: [1]", "guests: must be an integer, not a list"},
	{"guests: {a: 1}", "guests: must be an integer, not a map of keys"},
	{"answer: 9223372036854775808",
	 "answer: \"9223372036854775808\" is not an integer of 64 bits"},
	{"helpers: 0", "helpers: \"0\" is out of range, it must be between 1 and 9"},
	{"helpers: some", "helpers: \"some\" is not an integer (digits alone) or \"auto\""},
	{"ratio: nan", "ratio: \"nan\" is not a number"},
	{"ratio: .inf", "ratio: \".inf\" is not a number"},
	{"ratio: 0x1p3", "ratio: \"0x1p3\" is not a number"},
	{"ratio: 1e", "ratio: \"1e\" is not a number"},
	{"ratio: .", "ratio: \".\" is not a number"},
	{"ratio: 1e999", "ratio: \"1e999\" is not a number that a double can hold"},
	{"ratio: -0.1", "ratio: \"-0.1\" is out of range, it must be between 0 and 1"},
	{"mood: mery", "mood: \"mery\" is none of calm, merry (did you mean \"merry\"?)"},
	{"mood: wild", "mood: \"wild\" is not built yet (built: calm, merry)"},
	{"mood: -wild", "mood: \"-wild\" is none of calm, merry (did you mean \"wild\"?)"},
	{"mood: 7", "mood: \"7\" is none of calm, merry"},
	{"mood: [calm]", "mood: must be a word, not a list"},
	{"style: baroque", "style: \"baroque\" is not built yet (built: plain, fancy)"},
	{"style: fanci", "style: \"fanci\" is none of plain, fancy (did you mean \"fancy\"?)"},
	{"vegan: yes", "vegan: \"yes\" is not true or false"},
	{"vegan: True", "vegan: \"True\" is not true or false"},
	{"vegan: 1", "vegan: \"1\" is not true or false"},
	{"notes: ''", "notes: \"\" is not a path"},
	{"notes: [x]", "notes: must be a path, not a list"},
	{"oven: {space: 8}",
	 "oven.space: \"8\" has no unit (a size takes one of B, kB, KB, MB, GB, TB, KiB, MiB, "
	 "GiB, TiB)"},
	{"oven: {space: 0 B}", "oven.space: \"0 B\" is out of range, it must be at least 1 B"},
	{"oven: {rate: 10 Gbs}", "oven.rate: \"10 Gbs\" is not a rate (did you mean "
				 "\"10 Gbit/s\" or \"10 GB/s\"?) (or \"unlimited\")"},
	{"oven: {rate: 10 Gbit/s}",
	 "oven.rate: \"10 Gbit/s\" is out of range, it must be between 8 bit/s and 8 Gbit/s"},
	{"oven: {wait: -1 s}", "oven.wait: \"-1 s\" is negative"},
	{"oven: {wait: 2 h}",
	 "oven.wait: \"2 h\" is out of range, it must be between 0 and 1 h"},
	{"oven: 5", "oven: must be a map of keys, not a text"},
	{"oven: [5]", "oven: must be a map of keys, not a list"},
	{"cooks: {a: b}", "cooks: must be a word or a list of words, not a map of keys"},
	{"cooks: [a, [b]]", "cooks: must be a word or a list of words, not a list"},
	{"cooks: [a, ~]", "cooks: \"~\" is not a word or a list of words"},
	{"prices: 5", "prices: \"5\" is not a list of numbers"},
	{"prices: [5, x]", "prices: \"x\" is not a number"},
	{"prices: [5, {}]", "prices: must be a number, not a map of keys"},
	{"prices: [5, 51]", "prices: \"51\" is out of range, it must be between 0 and 50"},
};

START_TEST(a_bad_value_is_refused)
{
	const char *text = arena_format(&arena, "title: x\nkitchen:\n  %s\n", bad[_i].line);
	const char *error = said_of(text), *end = strchr(error, '\n');
	const char *message = strstr(error, ": error: kitchen.");

	ck_assert_msg(end && message, "%s: %s", text, error);
	message += strlen(": error: kitchen.");
	ck_assert_str_eq(arena_copy(&arena, message, (size_t)(end - message)), bad[_i].error);
	ck_assert_int_eq(error_code(), EXIT_CONFIG);
	ck_assert_int_eq(config_errors(&menu.config), 1);
	/* What is wrong holds its default. */
	ck_assert_int_eq(menu.guests, 4);
	ck_assert_double_eq(menu.ratio, 0.5);
	ck_assert_int_eq(menu.cooks.count, 1);
	ck_assert_int_eq(menu.prices.count, 2);
}
END_TEST

START_TEST(all_errors_are_said_at_once_in_order)
{
	ck_assert_str_eq(said_of("kitchen: {guest: 3, vegan: yes}\n"
				 "dishes:\n"
				 "  - {nam: soup, servings: 9}\n"
				 "  - stew\n"
				 "  - {name: , size: 3}\n"
				 "later: {trial: true, open: 2, games: [chess], music: loud}\n"
				 "zzzzzz: 1\n"
				 "kitchen.guests: 3\n"
				 "dishes: 4\n"),
		"m.yaml:9:1: error: duplicate key \"dishes\" (first at line 2)\n"
		"      9 | dishes: 4\n"
		"        | ^~~~~~\n"
		"m.yaml:1:11: error: unknown key \"guest\" in kitchen "
		"(did you mean \"guests\"?)\n"
		"      1 | kitchen: {guest: 3, vegan: yes}\n"
		"        |           ^~~~~\n"
		"m.yaml:1:28: error: kitchen.vegan: \"yes\" is not true or false\n"
		"      1 | kitchen: {guest: 3, vegan: yes}\n"
		"        |                            ^~~\n"
		"m.yaml:3:6: error: unknown key \"nam\" in dishes[0] (did you mean \"name\"?)\n"
		"      3 |   - {nam: soup, servings: 9}\n"
		"        |      ^~~\n"
		"m.yaml:3:27: error: dishes[0].servings: \"9\" is out of range, "
		"it must be between 1 and 8\n"
		"      3 |   - {nam: soup, servings: 9}\n"
		"        |                           ^\n"
		"m.yaml:3:5: error: missing key \"name\" in dishes[0]\n"
		"      3 |   - {nam: soup, servings: 9}\n"
		"        |     ^\n"
		"m.yaml:4:5: error: dishes[1]: must be a map of keys, not a text\n"
		"      4 |   - stew\n"
		"        |     ^~~~\n"
		"m.yaml:5:20: error: dishes[2].size: must be a map of keys, not a text\n"
		"      5 |   - {name: , size: 3}\n"
		"        |                    ^\n"
		"m.yaml:5:12: error: dishes[2].name: needs a value\n"
		"      5 |   - {name: , size: 3}\n"
		"        |            ^\n"
		"m.yaml:6:16: error: later.trial: not built yet: wait for the next season\n"
		"      6 | later: {trial: true, open: 2, games: [chess], music: loud}\n"
		"        |                ^~~~\n"
		"m.yaml:6:28: error: later.open: not built yet: always open\n"
		"      6 | later: {trial: true, open: 2, games: [chess], music: loud}\n"
		"        |                            ^\n"
		"m.yaml:6:38: error: later.games: not built yet: bring your own\n"
		"      6 | later: {trial: true, open: 2, games: [chess], music: loud}\n"
		"        |                                      ^\n"
		"m.yaml:6:54: error: later.music: not built yet: sing\n"
		"      6 | later: {trial: true, open: 2, games: [chess], music: loud}\n"
		"        |                                                      ^~~~\n"
		"m.yaml:7:1: error: unknown key \"zzzzzz\" "
		"(known: title, kitchen, dishes, later)\n"
		"      7 | zzzzzz: 1\n"
		"        | ^~~~~~\n"
		"m.yaml:8:1: error: unknown key \"kitchen.guests\" "
		"(known: title, kitchen, dishes, later)\n"
		"      8 | kitchen.guests: 3\n"
		"        | ^~~~~~~~~~~~~~\n"
		"m.yaml:1:1: error: missing key \"title\"\n"
		"      1 | kitchen: {guest: 3, vegan: yes}\n"
		"        | ^\n");
	ck_assert_int_eq(config_errors(&menu.config), 16);
}
END_TEST

START_TEST(one_value_has_one_error)
{
	ck_assert_str_eq(said_of("title: &x y\n<<: {title: z}\n"
				 "kitchen: {guests: !!str many}\n"),
			 "m.yaml:1:8: error: anchors are not allowed here (\"x\"): write the "
			 "value out\n"
			 "      1 | title: &x y\n"
			 "        |        ^~~~\n"
			 "m.yaml:2:1: error: merge keys (<<) are not allowed here: write the "
			 "keys out\n"
			 "      2 | <<: {title: z}\n"
			 "        | ^~\n"
			 "m.yaml:3:19: error: tags are not allowed here "
			 "(\"tag:yaml.org,2002:str\"): the type of a key is fixed\n"
			 "      3 | kitchen: {guests: !!str many}\n"
			 "        |                   ^~~~~~~~~~\n");
	said_of("title: x\nkitchen: {prices: [1, x], cooks: [a]}\n");
	ck_assert(!config_sound(&menu.config, "kitchen.prices"));
	ck_assert(config_sound(&menu.config, "kitchen.cooks"));
}
END_TEST

START_TEST(the_whole_must_be_a_map)
{
	ck_assert_str_eq(said_of("- a\n"),
			 "m.yaml:1:1: error: a map of keys is expected here, not a list\n"
			 "      1 | - a\n"
			 "        | ^\n");
	ck_assert_ptr_null(menu.config.root);
	ck_assert_str_eq(said_of("---\n"), "m.yaml:2:1: error: the file is empty\n");
	ck_assert_str_eq(said_of("title: x\ndishes: {name: x}\n"),
			 "m.yaml:2:9: error: dishes: must be a list, not a map of keys\n"
			 "      2 | dishes: {name: x}\n"
			 "        |         ^\n");
}
END_TEST

START_TEST(a_file_that_is_not_there)
{
	error_hold();
	ck_assert_int_eq(config_read(&menu.config, &schema, &menu, "none.yaml", NULL, 0), -1);
	ck_assert_int_eq(error_code(), EXIT_INPUT);
	ck_assert_ptr_null(menu.config.root);
	ck_assert(!config_given(&menu.config, "title"));
	ck_assert(!config_sound(&menu.config, "title"));
	config_error(&menu.config, "title", "is unheard of");
	ck_assert_str_eq(error_text(), "edgepipe: error: cannot open 'none.yaml': "
				       "No such file or directory\n");
}
END_TEST

START_TEST(a_terminal_is_safe)
{
	ck_assert_str_eq(said_of("title: x\n\"a\\e[31m\\n\\x9b\": 1\n"
				 "kitchen: {vegan: \"\\a\\n\"}\n"),
			 "m.yaml:2:1: error: unknown key \"a?[31m??\" (known: title, kitchen, "
			 "dishes, later)\n"
			 "      2 | \"a\\e[31m\\n\\x9b\": 1\n"
			 "        | ^~~~~~~~\n"
			 "m.yaml:3:18: error: kitchen.vegan: \"??\" is not true or false\n"
			 "      3 | kitchen: {vegan: \"\\a\\n\"}\n"
			 "        |                  ^~~~~~\n");
}
END_TEST

/* -- overrides ----------------------------------------------------------------------------- */

START_TEST(overrides_replace_and_create)
{
	static const char *const set[] = {
		"kitchen.guests=7", "dishes.1.servings=3", "dishes[0].name={not a map}",
		"dishes[0].name=pie: # 1", "later.trial=false", "kitchen.oven.wait=5 ms",
		"kitchen.prices=[3,4,5]", "kitchen.cooks=[a, 'b']", "kitchen.notes=n.txt",
		"dishes.0.size={weight: 2 KiB}", "kitchen.vegan=yes", "kitchen.vegan=true",
		"dishes.1.tags='b #'",
	};
	const char *text = "title: x\nkitchen: {guests: many}\n"
			   "dishes: [{name: a}, {name: b, servings: 1}]\n";
	const struct dish *dish;

	ck_assert_str_eq(said(text, set, sizeof set / sizeof *set), "");
	dish = menu.dishes.item;
	ck_assert_int_eq(menu.guests, 7);
	ck_assert_str_eq(dish[0].name, "pie: # 1");
	ck_assert_double_eq(dish[0].weight, 2048);
	ck_assert_int_eq(dish[1].servings, 3);
	ck_assert_str_eq(dish[1].tags.item[0], "b #");
	ck_assert_double_eq(menu.wait, 0.005);
	ck_assert_int_eq(menu.prices.count, 3);
	ck_assert_int_eq(menu.cooks.count, 2);
	ck_assert(menu.vegan);
	ck_assert_str_eq(menu.notes, in_folder("n.txt"));
	ck_assert(config_given(&menu.config, "kitchen.oven.wait"));
	ck_assert(!config_given(&menu.config, "dishes.2.name"));
	ck_assert_int_eq(config_line(&menu.config, "dishes.1.name"), 3);
	ck_assert_int_eq(config_line(&menu.config, "dishes.1.servings"), 0);
	ck_assert_int_eq(config_line(&menu.config, "dishes.0.size.weight"), 0);
}
END_TEST

START_TEST(an_override_replaces_a_whole_list)
{
	static const char *const set[] = {
		"dishes=[{name: a}, {name: b}]", "dishes.1.servings=5",
	};

	ck_assert_str_eq(said("title: x\ndishes: [{name: z}]\n", set, 2), "");
	ck_assert_int_eq(menu.dishes.count, 2);
	ck_assert_int_eq(((const struct dish *)menu.dishes.item)[1].servings, 5);
}
END_TEST

START_TEST(an_override_can_take_a_value_away)
{
	static const char *const set[] = {"kitchen.guests=", "kitchen.notes=~"};

	ck_assert_str_eq(said("title: x\nkitchen: {guests: 9, notes: n}\n", set, 2), "");
	ck_assert_int_eq(menu.guests, 4);
	ck_assert_ptr_null(menu.notes);
}
END_TEST

START_TEST(paths_are_relative_to_where_they_stand)
{
	static const char *const set[] = {"kitchen.notes=n.txt"};
	static const char text[] = "title: x\nkitchen: {notes: n.txt}\n";
	char *sub = in_folder("sub");

	ck_assert_int_eq(folder_make(sub), 0);
	ck_assert_int_eq(file_write("sub/m.yaml", text, strlen(text)), 0);
	ck_assert_int_eq(config_read(&menu.config, &schema, &menu, "sub/m.yaml", NULL, 0), 0);
	ck_assert_str_eq(menu.notes, path_join(&arena, sub, "n.txt"));
	config_release(&menu.config);
	ck_assert_int_eq(config_read(&menu.config, &schema, &menu, "sub/m.yaml", set, 1), 0);
	ck_assert_str_eq(menu.notes, in_folder("n.txt"));
	ck_assert_str_eq(said_of("title: x\nkitchen: {notes: /n.txt}\n"), "");
	ck_assert_str_eq(menu.notes, "/n.txt");
}
END_TEST

/* An override of "dishes: [{name: a}, {name: b}]", what is said after it, the code. */
static const struct { const char *set, *error; int code; } bad_set[] = {
	{"kitchen.guests", "must be KEY=VALUE, as train.batch=16", EXIT_USAGE},
	{"=5", "must be KEY=VALUE, as train.batch=16", EXIT_USAGE},
	{"", "must be KEY=VALUE, as train.batch=16", EXIT_USAGE},
	{"kitchen..guests=5", "its key has an empty part", EXIT_USAGE},
	{".guests=5", "its key has an empty part", EXIT_USAGE},
	{"kitchen.=5", "its key has an empty part", EXIT_USAGE},
	{"]=5", "its key has an empty part", EXIT_USAGE},
	{"kitchen.guests=x", "kitchen.guests: \"x\" is not an integer (digits alone)",
	 EXIT_CONFIG},
	{"kitchen.guest=5", "unknown key \"guest\" in kitchen (did you mean \"guests\"?)",
	 EXIT_CONFIG},
	{"kitchn.guests=5", "unknown key \"kitchn\" (did you mean \"kitchen\"?)", EXIT_CONFIG},
	{"dishes.2.name=c", "dishes has 2 items (0 to 1), there is no 2", EXIT_CONFIG},
	{"dishes.99999999999.name=c",
	 "dishes is a list of 2: name an item by its number, as dishes.0", EXIT_CONFIG},
	{"dishes.name=c", "dishes is a list of 2: name an item by its number, as dishes.0",
	 EXIT_CONFIG},
	{"kitchen.cooks.0=c", "kitchen.cooks has no items", EXIT_CONFIG},
	{"title.x=c", "title is a value, it holds no keys", EXIT_CONFIG},
	{"kitchen.prices=[1,", "did not find expected node content, while parsing a flow node",
	 EXIT_CONFIG},
	{"kitchen.prices=[1] 2", "did not find expected <document start>", EXIT_CONFIG},
	{"kitchen.prices=[&a 1]", "anchors are not allowed here (\"a\"): write the value out",
	 EXIT_CONFIG},
	{"dishes.0={name: a, name: b}", "duplicate key \"name\" (first at line 1)",
	 EXIT_CONFIG},
	{"dishes.0={servings: 3}", "missing key \"name\" in dishes[0]", EXIT_CONFIG},
	{"title=", "title: needs a value", EXIT_CONFIG},
	{"later.trial=true", "later.trial: not built yet: wait for the next season",
	 EXIT_CONFIG},
	{"kitchen.guests=a\nb:1: c",
	 "kitchen.guests: \"a?b:1: c\" is not an integer (digits alone)", EXIT_CONFIG},
};

START_TEST(a_bad_override_is_refused)
{
	char *set = arena_copy(&arena, bad_set[_i].set, strlen(bad_set[_i].set));
	const char *error = said("title: x\ndishes: [{name: a}, {name: b}]\n",
				 (const char *const *)&set, 1);

	for (char *c = set; *c; c++)
		*c = *c == '\n' ? ' ' : *c;
	ck_assert_str_eq(error, arena_format(&arena, "edgepipe: error: --set '%s': %s\n", set,
					     bad_set[_i].error));
	ck_assert_int_eq(error_code(), bad_set[_i].code);
}
END_TEST

START_TEST(a_long_override_is_cut_in_messages)
{
	char set[400] = "kitchen.guests=";
	const char *const list[] = {set};

	for (int i = 0; i < 90; i++)
		strncat(set, "ä", sizeof set - 1 - strlen(set));
	ck_assert_ptr_nonnull(strstr(said("title: x\n", list, 1),
				     "ää...': kitchen.guests: \"ää"));
	/* Nothing but bytes that go on a character. */
	memset(set, 0xab, sizeof set - 1);
	ck_assert_str_eq(said("title: x\n", list, 1),
			 "edgepipe: error: --set '...': must be KEY=VALUE, "
			 "as train.batch=16\n");
}
END_TEST

/* -- errors of others ---------------------------------------------------------------------- */

START_TEST(others_report_with_positions)
{
	said_of("title: x\nkitchen:\n  guests: 5\n"
		"dishes:\n  - name: a\n  - {name: b, tags: [c, d]}\n");
	error_hold();
	ck_assert_int_eq(config_errors(&menu.config), 0);
	ck_assert(config_sound(&menu.config, "dishes.1.name"));
	config_error(&menu.config, "dishes.1.name", "is not to my %s", "taste");
	ck_assert(!config_sound(&menu.config, "dishes.1.name"));
	ck_assert(config_sound(&menu.config, "dishes.1"));
	config_error(&menu.config, "dishes.1.name", "is said already");
	config_error(&menu.config, "dishes.1.tags.1", "is too much");
	config_error(&menu.config, "dishes.0.servings", "are too few");
	config_error(&menu.config, "kitchen.oven.wait", "is too long");
	config_error(&menu.config, "kitchen", "is a mess");
	ck_assert(!config_sound(&menu.config, "kitchen.guests"));
	ck_assert(config_sound(&menu.config, "title"));
	ck_assert_int_eq(config_errors(&menu.config), 5);
	ck_assert_str_eq(error_text(),
			 "m.yaml:6:12: error: dishes[1].name: is not to my taste\n"
			 "      6 |   - {name: b, tags: [c, d]}\n"
			 "        |            ^\n"
			 "m.yaml:6:25: error: dishes[1].tags[1]: is too much\n"
			 "      6 |   - {name: b, tags: [c, d]}\n"
			 "        |                         ^\n"
			 "m.yaml:5:5: error: dishes[0].servings: are too few\n"
			 "      5 |   - name: a\n"
			 "        |     ^\n"
			 "m.yaml:3:3: error: kitchen.oven.wait: is too long\n"
			 "      3 |   guests: 5\n"
			 "        |   ^\n"
			 "m.yaml:3:3: error: kitchen: is a mess\n"
			 "      3 |   guests: 5\n"
			 "        |   ^\n");
	ck_assert_int_eq(error_code(), EXIT_CONFIG);
}
END_TEST

/* -- writing ------------------------------------------------------------------------------- */

static char *written(void)
{
	struct text text = {0};
	char *copy;

	config_write(&menu.config, &menu, &text);
	copy = arena_copy(&arena, text.data, text.bytes);
	text_release(&text);
	return copy;
}

START_TEST(the_resolved_file_spells_everything_out)
{
	said_of(whole);
	ck_assert_str_eq(written(), arena_format(&arena,
		"title: \"a: b\"\n"
		"kitchen:\n"
		"  guests: 100\n"
		"  helpers: 9\n"
		"  answer: -42\n"
		"  ratio: 0.25\n"
		"  mood: merry\n"
		"  style: fancy\n"
		"  vegan: true\n"
		"  notes: %s/sub/notes.txt\n"
		"  oven:\n"
		"    space: 8 GiB\n"
		"    rate: 400 Mbit/s\n"
		"    wait: 0 s\n"
		"    speed: 3.56 TFLOPS\n"
		"  cooks: [ann, \"b c\"]\n"
		"  prices: [50, 0.5, 0.001]\n"
		"dishes:\n"
		"  - name: soup\n"
		"    servings: 2\n"
		"    size:\n"
		"      weight: 1 KiB\n"
		"    tags: [hot]\n"
		"  - name: 5\n"
		"    servings: 8\n"
		"later:\n"
		"  trial: false\n"
		"  open: 1\n", folder));
}
END_TEST

START_TEST(what_is_left_out_is_not_invented)
{
	said_of("title: x\n");
	ck_assert_str_eq(written(), "title: x\n"
				    "kitchen:\n"
				    "  guests: 4\n"
				    "  helpers: auto\n"
				    "  ratio: 0.5\n"
				    "  mood: calm\n"
				    "  vegan: false\n"
				    "  oven:\n"
				    "    rate: unlimited\n"
				    "    wait: 2 ms\n"
				    "  cooks: [everybody]\n"
				    "  prices: [1, 2.5]\n"
				    "later:\n"
				    "  trial: false\n"
				    "  open: 1\n");
}
END_TEST

/* Reads what is written of menu and compares the values that can hold anything. */
static void check_round_trip(void)
{
	struct menu was = menu;
	struct arena kept = menu.config.arena;
	char *text = written();

	memset(&menu.config, 0, sizeof menu.config);
	ck_assert_msg(said_of(text)[0] == '\0', "%s%s", text, error_text());
	ck_assert_str_eq(menu.title, was.title);
	ck_assert_int_eq(menu.answer, was.answer);
	ck_assert_mem_eq(&menu.ratio, &was.ratio, sizeof menu.ratio);
	ck_assert_mem_eq(&menu.space, &was.space, sizeof menu.space);
	ck_assert_mem_eq(&menu.rate, &was.rate, sizeof menu.rate);
	ck_assert_mem_eq(&menu.wait, &was.wait, sizeof menu.wait);
	ck_assert_mem_eq(&menu.speed, &was.speed, sizeof menu.speed);
	ck_assert_int_eq(menu.cooks.count, was.cooks.count);
	ck_assert_str_eq(menu.cooks.item[0], was.cooks.item[0]);
	ck_assert_str_eq(written(), text);
	arena_release(&kept);
}

START_TEST(numbers_read_back_to_the_same_bits)
{
	for (uint32_t i = 0; i < 300; i++) {
		struct philox dice = philox((struct philox){{i}}, 1, 2);
		double unit = dice.word[0] * 0x1p-32 + dice.word[1] * 0x1p-64;

		said_of("title: x\n");
		menu.ratio = i % 3 ? unit : pow(unit, 40);
		menu.space = 1 + unit * pow(10, i % 17);
		menu.rate = 1 + unit * pow(10, i % 9);
		menu.wait = i % 5 ? unit * pow(10, -(double)(i % 17)) : 60.0 * (i % 13);
		menu.speed = i % 2 ? 1 + floor(unit * 1e6) * 1e6 : 1 + unit * 1e15;
		menu.answer = (long long)((uint64_t)dice.word[2] << 32 | dice.word[3]);
		check_round_trip();
	}
}
END_TEST

START_TEST(texts_read_back_whatever_they_hold)
{
	static const char *const texts[] = {
		"null", "~", "true", "-", "- a", "a: b", "a #b", "#", "[x]", "{x}", "*x", "&x",
		"!x", "'", "\"", "\\", "\\n", "a\nb\n", "\t", " a ", "%YAML", "@", "`", "--- a",
		"...", "010", "\x01\x1f\x7f", "\xc2\x85", "\xc2\x9b",
		"\xe2\x80\xa8\xe2\x80\xa9", "\xef\xbb\xbf", "\xef\xbf\xbe",
		"ä 校园 \xf0\x9f\x8f\xab", "a/b.c-d_e", "<<",
		"a,b", "NULL", "Null",
	};

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		said_of("title: x\n");
		menu.title = texts[i];
		menu.cooks.item[0] = texts[i];
		check_round_trip();
	}
}
END_TEST

START_TEST(bytes_that_are_no_text_are_marked)
{
	said_of("title: x\n");
	menu.title = "a\xff\xed\xa0\x80\xc0\xaf\xe4";
	ck_assert_ptr_nonnull(strstr(written(), "title: \"a???????\"\n"));
}
END_TEST

/* -- help ---------------------------------------------------------------------------------- */

START_TEST(help_is_the_table)
{
	struct text text = {0};

	schema_help(&schema, &text);
	ck_assert_str_eq(text.data,
		"title                 of the menu\n"
		"                      a text, required\n"
		"\n"
		"kitchen\n"
		"  guests              how many come\n"
		"                      an integer, between 1 and 100; default 4\n"
		"  helpers             \n"
		"                      an integer, between 1 and 9, or auto; default auto\n"
		"  answer              -\n"
		"                      an integer\n"
		"  ratio               of this to that\n"
		"                      a number, between 0 and 1; default 0.5\n"
		"  mood                \n"
		"                      calm, merry (not built yet: wild); default calm\n"
		"  style               \n"
		"                      plain, fancy (not built yet: baroque)\n"
		"  vegan               -\n"
		"                      true or false; default false\n"
		"  notes               -\n"
		"                      a path\n"
		"  oven.space          -\n"
		"                      a size with its unit, at least 1 B\n"
		"  oven.rate           \n"
		"                      a rate with its unit, between 8 bit/s and 8 Gbit/s, or "
		"unlimited; default unlimited\n"
		"  oven.wait           -\n"
		"                      a duration with its unit, between 0 and 1 h; "
		"default 2 ms\n"
		"  oven.speed          -\n"
		"                      a speed with its unit, at least 1 FLOPS\n"
		"  cooks               -\n"
		"                      a word or a list of words; default everybody\n"
		"  prices              -\n"
		"                      a list of numbers, between 0 and 50; default [1, 2.5]\n"
		"\n"
		"dishes[]              in order\n"
		"                      a list\n"
		"  name                \n"
		"                      a text, required\n"
		"  servings            -\n"
		"                      an integer, between 1 and 8; default 2\n"
		"  size.weight         -\n"
		"                      a size with its unit, at least 1 B\n"
		"  tags                -\n"
		"                      a word or a list of words\n"
		"\n"
		"later\n"
		"  trial               \n"
		"                      true or false; default false; not built yet\n"
		"  open                \n"
		"                      a number; default 1; not built yet\n"
		"  games[]             after dinner\n"
		"                      a list; not built yet\n"
		"  music               \n"
		"                      a text; not built yet\n");
	text_release(&text);
}
END_TEST

static TCase *cases(void)
{
	TCase *tests = tcase_create("schema");

	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, defaults_fill_what_is_left_out);
	tcase_add_test(tests, every_kind_is_read);
	tcase_add_test(tests, nothing_said_is_the_default);
	tcase_add_loop_test(tests, a_bad_value_is_refused, 0, sizeof bad / sizeof *bad);
	tcase_add_test(tests, all_errors_are_said_at_once_in_order);
	tcase_add_test(tests, one_value_has_one_error);
	tcase_add_test(tests, the_whole_must_be_a_map);
	tcase_add_test(tests, a_file_that_is_not_there);
	tcase_add_test(tests, a_terminal_is_safe);
	tcase_add_test(tests, overrides_replace_and_create);
	tcase_add_test(tests, an_override_replaces_a_whole_list);
	tcase_add_test(tests, an_override_can_take_a_value_away);
	tcase_add_test(tests, paths_are_relative_to_where_they_stand);
	tcase_add_loop_test(tests, a_bad_override_is_refused, 0,
			    sizeof bad_set / sizeof *bad_set);
	tcase_add_test(tests, a_long_override_is_cut_in_messages);
	tcase_add_test(tests, others_report_with_positions);
	tcase_add_test(tests, the_resolved_file_spells_everything_out);
	tcase_add_test(tests, what_is_left_out_is_not_invented);
	tcase_add_test(tests, numbers_read_back_to_the_same_bits);
	tcase_add_test(tests, texts_read_back_whatever_they_hold);
	tcase_add_test(tests, bytes_that_are_no_text_are_marked);
	tcase_add_test(tests, help_is_the_table);
	return tests;
}

int main(void)
{
	Suite *suite = suite_create("schema");

	suite_add_tcase(suite, cases());
	return run_suite(suite);
}
