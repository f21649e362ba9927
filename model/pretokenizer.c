/*
 * model/pretokenizer.c - the pre-tokenizer: how a text is cut into words.
 *
 * Every step cuts its text into pieces, or changes it, and hands each piece to the next step; what
 * the last step hands on is a word. No list of pieces is kept.
 */
#include "model/internal.h"
#include "model/tokenizer.h"

#include <string.h>

#define GPT2_PATTERN \
	"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
/* \w of Rust's regular expressions. */
#define RUST_WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}"
/* As Unicode 8 had it. */
#define PUNCTUATION "(?![%s])[\\x{166d}\\x{111c9}\\p{P}\\x{21}-\\x{2f}\\x{3a}-\\x{40}\\x{5b}-\\x{60}\\x{7b}-\\x{7e}]"
#define SPACE_MARK "\xe2\x96\x81" /* U+2581 */
#define SPELLED_MOST 4 /* ByteLevel in one pre-tokenizer; those in use have one */

/* -- reading ------------------------------------------------------------------------------- */

static int add_split(struct steps *steps, const char *path, const char *pattern,
		     enum behaviour behaviour, bool invert)
{
	struct pattern *opened = pattern_open(path, pattern);

	if (!opened)
		return -1;
	struct step *step = steps_add(steps, STEP_SPLIT);
	step->pattern = opened;
	step->behaviour = behaviour;
	step->invert = invert;
	return 0;
}

static int read_behaviour(struct fields *fields, const char *standard)
{
	static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
					    "MergedWithNext", "Contiguous"};
	const char *name = fields_text(fields, "behavior", standard);

	for (int i = 0; i < 5; i++) {
		if (strcmp(name, names[i]) == 0)
			return i;
	}
	fields_refuse(fields, "behavior", name);
	return 0;
}

static int read_split(struct steps *steps, const char *path, const struct json *map)
{
	struct fields fields = {.path = path, .map = map};
	int behaviour = read_behaviour(&fields, "?");
	bool invert = fields_flag(&fields, "invert", false);
	struct pattern *pattern =
		fields.failed ? NULL : steps_pattern(path, json_find(map, "pattern"));

	if (!pattern)
		return -1;
	struct step *step = steps_add(steps, STEP_SPLIT);
	step->pattern = pattern;
	step->behaviour = (enum behaviour)behaviour;
	step->invert = invert;
	return 0;
}

static int read_byte_level(struct steps *steps, const char *path, const struct json *map)
{
	struct fields fields = {.path = path, .map = map};
	bool prefix = fields_flag(&fields, "add_prefix_space", true);
	bool cut = fields_flag(&fields, "use_regex", true);
	int spelled = 0;

	for (int i = 0; i < steps->count; i++)
		spelled += steps->step[i].kind == STEP_SPELL;
	if (spelled == SPELLED_MOST)
		return error(EXIT_CONFIG, "'%s': more than %d times ByteLevel in a pre_tokenizer, each "
			     "of which may double a text, is not built", path, SPELLED_MOST);
	struct step *step = steps_add(steps, STEP_BYTE_LEVEL);

	step->prefix = prefix ? PREFIX_ALWAYS : PREFIX_NEVER;
	if (fields.failed)
		return -1;
	step->behaviour = BEHAVIOUR_ISOLATED;
	step->pattern = cut ? pattern_open(path, GPT2_PATTERN) : NULL;
	if (cut && !step->pattern)
		return -1;
	steps_add(steps, STEP_SPELL);
	return 0;
}

int metaspace_read(struct steps *steps, const char *path, const struct json *map)
{
	static const char *const schemes[] = {"never", "first", "always"};
	struct fields fields = {.path = path, .map = map};
	const char *mark = fields_text(&fields, "replacement", SPACE_MARK);
	const char *scheme = fields_text(&fields, "prepend_scheme", "always");
	bool prefix = fields_flag(&fields, "add_prefix_space", true);
	bool cut = fields_flag(&fields, "split", true);
	size_t size = 1;
	int found = 0;

	if (fields.failed)
		return -1;
	while (found < 3 && strcmp(scheme, schemes[found]) != 0)
		found++;
	if (found == 3)
		return refuse_part(path, "the prepend_scheme", scheme);
	if (mark[0])
		utf8_at(mark, &size);
	if (strlen(mark) != size)
		return error(EXIT_DATA, "'%s': the replacement '%.40s' of a Metaspace is not one "
			     "character", path, mark);
	if (!prefix && fields_given(&fields, "prepend_scheme") && found != PREFIX_NEVER)
		return error(EXIT_DATA, "'%s': \"add_prefix_space\" is false and \"prepend_scheme\" is "
			     "\"%s\"", path, scheme);
	struct step *step = steps_add(steps, STEP_METASPACE);
	step_text(step, mark, strlen(mark));
	step->pattern = pattern_literal(mark, strlen(mark));
	step->behaviour = BEHAVIOUR_MERGED_WITH_NEXT;
	step->prefix = prefix ? (enum prefix)found : PREFIX_NEVER;
	step->cut = cut;
	return 0;
}

static int read_delimiter(struct steps *steps, const char *path, const struct json *map)
{
	struct fields fields = {.path = path, .map = map};
	const char *delimiter = fields_text(&fields, "delimiter", "");

	if (fields.failed)
		return -1;
	struct step *step = steps_add(steps, STEP_SPLIT);
	step->pattern = pattern_literal(delimiter, strlen(delimiter));
	return 0;
}

static int read_whitespace(struct steps *steps, const char *path)
{
	const char *newer = unicode_newer("word", 4);
	struct text pattern = {0};

	text_add(&pattern, "[" RUST_WORD "%s]+|[^" RUST_WORD "%s\\s]+", newer, newer);
	int done = add_split(steps, path, pattern.data, BEHAVIOUR_REMOVED, true);
	text_release(&pattern);
	return done;
}

static int read_digits(struct steps *steps, const char *path, const struct json *map)
{
	struct fields fields = {.path = path, .map = map};
	bool single = fields_flag(&fields, "individual_digits", false);

	if (fields.failed)
		return -1;
	return add_split(steps, path, "\\p{N}",
			 single ? BEHAVIOUR_ISOLATED : BEHAVIOUR_CONTIGUOUS, false);
}

static int add_punctuation(struct steps *steps, const char *path, enum behaviour behaviour)
{
	static const char later[] = "not Punctuation";
	struct text pattern = {0};

	text_add(&pattern, PUNCTUATION, unicode_newer(later, sizeof later - 1));
	int done = add_split(steps, path, pattern.data, behaviour, false);
	text_release(&pattern);
	return done;
}

static int read_punctuation(struct steps *steps, const char *path, const struct json *map)
{
	struct fields fields = {.path = path, .map = map};
	int behaviour = read_behaviour(&fields, "Isolated");

	if (fields.failed)
		return -1;
	return add_punctuation(steps, path, (enum behaviour)behaviour);
}

int pretokenizer_read(struct steps *steps, const char *path, const struct json *map)
{
	const char *type = json_as_text(json_find(map, "type"), "?");

	if (json_is_nothing(map))
		return 0;
	if (strcmp(type, "Sequence") == 0)
		return steps_read(steps, path, json_find(map, "pretokenizers"), pretokenizer_read);
	if (strcmp(type, "ByteLevel") == 0)
		return read_byte_level(steps, path, map);
	if (strcmp(type, "Split") == 0)
		return read_split(steps, path, map);
	if (strcmp(type, "Metaspace") == 0)
		return metaspace_read(steps, path, map);
	if (strcmp(type, "CharDelimiterSplit") == 0)
		return read_delimiter(steps, path, map);
	if (strcmp(type, "Whitespace") == 0)
		return read_whitespace(steps, path);
	if (strcmp(type, "WhitespaceSplit") == 0)
		return add_split(steps, path, "\\s", BEHAVIOUR_REMOVED, false);
	if (strcmp(type, "BertPreTokenizer") == 0)
		return add_split(steps, path, "\\s", BEHAVIOUR_REMOVED, false) < 0
			       ? -1
			       : add_punctuation(steps, path, BEHAVIOUR_ISOLATED);
	if (strcmp(type, "Digits") == 0)
		return read_digits(steps, path, map);
	if (strcmp(type, "Punctuation") == 0)
		return read_punctuation(steps, path, map);
	return refuse_part(path, "the pre_tokenizer", type);
}

/* -- running ------------------------------------------------------------------------------- */

/* A cut of a text into pieces: what lies between matches and the matches come one by one, and are
 * put together as the behaviour says. */
struct cut {
	struct tokenizer *tokenizer;
	const char *text;
	int step; /* the next one, which takes the pieces */
	bool first;
	enum behaviour behaviour;
	size_t start, end; /* the piece that waits */
	bool waits, matched; /* matched: the last piece was a match */
	struct ids *ids;
};

static int hand_on(struct cut *cut)
{
	size_t start = cut->start, bytes = cut->end - cut->start;

	if (!cut->waits || bytes == 0)
		return 0;
	return pretokenizer_run(cut->tokenizer, cut->step, cut->text + start, bytes,
				cut->first && start == 0, cut->ids);
}

/* Whether a piece is joined to the one that waits. */
static bool joins(const struct cut *cut, bool match)
{
	switch (cut->behaviour) {
	case BEHAVIOUR_MERGED_WITH_PREVIOUS:
		return match && !cut->matched;
	case BEHAVIOUR_MERGED_WITH_NEXT:
		return !match && cut->matched;
	case BEHAVIOUR_CONTIGUOUS:
		return match == cut->matched;
	default:
		return false;
	}
}

static int take_piece(struct cut *cut, size_t start, size_t end, bool match)
{
	if (cut->waits && joins(cut, match)) {
		cut->end = end;
	} else {
		if (hand_on(cut) < 0)
			return -1;
		cut->waits = !(match && cut->behaviour == BEHAVIOUR_REMOVED);
		cut->start = start;
		cut->end = end;
	}
	cut->matched = match;
	return 0;
}

static int run_pattern(struct tokenizer *t, int index, const char *text, size_t bytes,
		       bool first, struct ids *ids)
{
	const struct step *step = &t->pretokenizer.step[index];
	struct cut cut = {.tokenizer = t, .text = text, .step = index + 1, .first = first,
			  .behaviour = step->behaviour, .ids = ids};
	struct matches m = {.text = text, .bytes = bytes};
	size_t done = 0;
	int more;

	while ((more = pattern_next(step->pattern, &m)) > 0) {
		if (m.start > done && take_piece(&cut, done, m.start, step->invert) < 0)
			return -1;
		if (take_piece(&cut, m.start, m.end, !step->invert) < 0)
			return -1;
		done = m.end;
	}
	if (more == 0 && done < bytes && take_piece(&cut, done, bytes, step->invert) < 0)
		return -1;
	return more < 0 ? -1 : hand_on(&cut);
}

/* Spells the pieces where they are not words yet: what comes next sees the spelling. */
static int run_spelling(struct tokenizer *t, int index, const char *text, size_t bytes,
			bool first, struct ids *ids)
{
	struct text spelled = {0};

	spelling_write(text, bytes, &spelled);
	int done = pretokenizer_run(t, index + 1, spelled.data, spelled.bytes, first, ids);
	text_release(&spelled);
	return done;
}

static int run_byte_level(struct tokenizer *t, int index, const char *text, size_t bytes,
			  bool first, struct ids *ids)
{
	struct step *step = &t->pretokenizer.step[index];

	if (step->prefix != PREFIX_NEVER && text[0] != ' ') {
		step->scratch.bytes = 0;
		text_put(&step->scratch, " ", 1);
		text_put(&step->scratch, text, bytes);
		text = step->scratch.data;
		bytes++;
	}
	if (step->pattern)
		return run_pattern(t, index, text, bytes, first, ids);
	return pretokenizer_run(t, index + 1, text, bytes, first, ids);
}

static int run_metaspace(struct tokenizer *t, int index, const char *text, size_t bytes,
			 bool first, struct ids *ids)
{
	struct step *step = &t->pretokenizer.step[index];
	struct text *out = &step->scratch;
	bool starts = bytes >= step->bytes && memcmp(text, step->text, step->bytes) == 0;

	out->bytes = 0;
	if (text[0] != ' ' && !starts &&
	    (step->prefix == PREFIX_ALWAYS || (step->prefix == PREFIX_FIRST && first)))
		text_put(out, step->text, step->bytes);
	for (const char *p = text, *end = text + bytes; p < end;) {
		const char *space = memchr(p, ' ', (size_t)(end - p));
		const char *stop = space ? space : end;

		text_put(out, p, (size_t)(stop - p));
		if (space)
			text_put(out, step->text, step->bytes);
		p = space ? space + 1 : end;
	}
	if (step->cut)
		return run_pattern(t, index, out->data, out->bytes, first, ids);
	return pretokenizer_run(t, index + 1, out->data, out->bytes, first, ids);
}

int pretokenizer_run(struct tokenizer *t, int index, const char *text, size_t bytes,
		     bool first, struct ids *ids)
{
	if (index == t->pretokenizer.count)
		return tokenizer_word(t, text, bytes, ids);
	switch (t->pretokenizer.step[index].kind) {
	case STEP_BYTE_LEVEL:
		return run_byte_level(t, index, text, bytes, first, ids);
	case STEP_METASPACE:
		return run_metaspace(t, index, text, bytes, first, ids);
	case STEP_SPELL:
		return run_spelling(t, index, text, bytes, first, ids);
	default:
		return run_pattern(t, index, text, bytes, first, ids);
	}
}
