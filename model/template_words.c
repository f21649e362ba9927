/*
 * model/template_words.c - what a Jinja template says, spelled in one way, so that two that differ
 * in spelling alone have one digest. Nothing is run.
 *
 * Texts and tags are cut as Jinja cuts them with trim_blocks and lstrip_blocks, which
 * transformers sets. Made equal are space inside of tags, quotes, x['y'] and x.y, literals that
 * are joined by + or follow each other, comments, what an exception says, and the parts about
 * add_generation_prompt, for what is trained has answers; what they write is for questions. The
 * standard system message of ChatML is taken out.
 */
#include "model/chat.h"

#include <stdlib.h>
#include <string.h>

#define HOLE "\\?" /* in place of the standard message: no literal is spelled so */
#define JINJA_MOST ((size_t)1 << 20) /* bytes; those that are known have some thousands */

enum item_kind { ITEM_PUT, ITEM_BLOCK };
struct item {
	enum item_kind kind;
	bool conditional; /* "x if y": nothing is joined to it */
	struct text words;
};
struct words {
	struct item *item;
	size_t count, room;
	const char *standard; /* null: none was found */
	size_t standard_bytes;
	struct text literal; /* scratch */
};

static struct item *item_add(struct words *w, enum item_kind kind)
{
	if (w->count == w->room) {
		w->room = w->room ? 2 * w->room : 64;
		w->item = xrealloc(w->item, w->room * sizeof *w->item);
	}
	w->item[w->count] = (struct item){.kind = kind};
	text_put(&w->item[w->count].words, "", 0);
	return &w->item[w->count++];
}

static void words_release(struct words *w)
{
	for (size_t i = 0; i < w->count; i++)
		text_release(&w->item[i].words);
	free(w->item);
	text_release(&w->literal);
}

/* -- words of a tag ------------------------------------------------------------------------ */

static bool is_name(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool ends_with(const struct text *text, const char *tail)
{
	size_t bytes = strlen(tail);

	return text->bytes >= bytes && memcmp(text->data + text->bytes - bytes, tail, bytes) == 0;
}

static void drop(struct text *text, size_t bytes)
{
	text->bytes -= bytes;
	text->data[text->bytes] = '\0';
}

/* Reads a literal behind its quote; the byte behind it. */
static const char *read_literal(const char *at, const char *end, char quote, struct text *literal)
{
	static const char from[] = "nrt", to[] = "\n\r\t";

	literal->bytes = 0;
	text_put(literal, "", 0);
	for (; at < end && *at != quote; at++) {
		const char *known = at + 1 < end && *at == '\\' ? strchr(from, at[1]) : NULL;

		if (*at == '\\' && at + 1 < end) {
			at++;
			if (!known && *at != '\\' && *at != '\'' && *at != '"')
				text_put(literal, "\\", 1);
		}
		text_put(literal, known ? to + (known - from) : at, 1);
	}
	return at < end ? at + 1 : at;
}

static void put_escaped(struct text *out, const char *data, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		char c = data[i];

		if (c == '\n')
			text_put(out, "\\n", 2);
		else if (c == '\'' || c == '\\')
			text_add(out, "\\%c", c);
		else
			text_put(out, data + i, 1);
	}
}

/* Where a literal holds ChatML's standard message; 0: it does not. */
static size_t standard_in(const struct text *literal, const char **message)
{
	static const char head[] = "<|im_start|>system\n", tail[] = "<|im_end|>";

	if (strncmp(literal->data, head, strlen(head)) != 0)
		return 0;
	*message = literal->data + strlen(head);
	const char *end = strstr(*message, tail);
	return end ? (size_t)(end - *message) : 0;
}

/* Adds a literal, without the standard message; behind another literal and a plus, to it. */
static void put_literal(struct words *w, struct text *out)
{
	const struct text *literal = &w->literal;
	size_t standard = w->standard_bytes, bytes = literal->bytes;
	const char *at = standard ? memmem(literal->data, bytes, w->standard, standard) : NULL;

	if (ends_with(out, "' + "))
		drop(out, 4);
	else if (ends_with(out, "raise_exception ( "))
		return;
	else
		text_put(out, "'", 1);
	size_t before = at ? (size_t)(at - literal->data) : bytes;
	put_escaped(out, literal->data, before);
	if (at) {
		text_add(out, HOLE);
		put_escaped(out, at + standard, bytes - before - standard);
	}
	text_add(out, "' ");
}

/* x['y'] as x . y: takes the bracket back, and says whether it did. */
static bool is_key(const struct text *out, const struct text *literal, const char *at, const char *end)
{
	bool name = literal->bytes > 0 && !(literal->data[0] >= '0' && literal->data[0] <= '9');

	for (size_t i = 0; i < literal->bytes; i++)
		name = name && is_name(literal->data[i]);
	size_t bytes = out->bytes;
	while (at < end && *at == ' ')
		at++;
	return name && at < end && *at == ']' && ends_with(out, " [ ") && bytes > 3 &&
	       (is_name(out->data[bytes - 4]) || out->data[bytes - 4] == ']' ||
		out->data[bytes - 4] == ')');
}

static const char *put_word(struct words *w, struct text *out, const char *at, const char *end)
{
	const char *from = at;

	if (*at == '\'' || *at == '"') {
		at = read_literal(at + 1, end, *at, &w->literal);
		if (is_key(out, &w->literal, at, end)) {
			drop(out, 2);
			text_add(out, ". %s ", w->literal.data);
			return (const char *)memchr(at, ']', (size_t)(end - at)) + 1;
		}
		put_literal(w, out);
		return at;
	}
	while (at < end && is_name(*at))
		at++;
	if (at == from)
		at += at + 1 < end && at[1] == '=' && strchr("=!<>", *at) ? 2 : 1;
	if (at - from == 2 && from[0] == 'i' && from[1] == 'f')
		w->item[w->count - 1].conditional = true;
	text_put(out, from, (size_t)(at - from));
	text_put(out, " ", 1);
	return at;
}

static void put_words(struct words *w, enum item_kind kind, const char *at, const char *end)
{
	struct item *last = w->count ? &w->item[w->count - 1] : NULL;
	bool joined =
	    kind == ITEM_PUT && last && last->kind == ITEM_PUT && !last->conditional;
	struct text *out = joined ? &last->words : &item_add(w, kind)->words;

	if (joined)
		text_add(out, "+ ");
	while (at < end) {
		if (strchr(" \t\r\n", *at))
			at++;
		else
			at = put_word(w, out, at, end);
	}
}

/* -- tags ---------------------------------------------------------------------------------- */

/* The end of a tag's words: where its closing mark stands, outside of literals. */
static const char *find_close(const char *at, const char *mark)
{
	char quote = '\0';

	if (mark[0] == '#')
		return strstr(at, mark);
	for (; *at; at++) {
		if (quote && *at == '\\' && at[1])
			at++;
		else if (quote)
			quote = *at == quote ? '\0' : quote;
		else if (*at == '\'' || *at == '"')
			quote = *at;
		else if (strncmp(at, mark, 2) == 0)
			return at;
	}
	return NULL;
}

static const char *find_open(const char *at)
{
	while ((at = strchr(at, '{')) && !strchr("{%#", at[1]))
		at++;
	return at && at[1] ? at : NULL;
}

/* The text before a tag as Jinja leaves it. line: it begins at the start of a line. */
static void put_data(struct words *w, const char *at, const char *end, const char *tag, bool line)
{
	const char *from = end;

	if (tag && tag[2] == '-') {
		while (end > at && strchr(" \t\r\n\f\v", end[-1]))
			end--;
	} else if (tag && tag[1] != '{' && tag[2] != '+') {
		while (from > at && strchr(" \t", from[-1]))
			from--;
		if ((from > at && from[-1] == '\n') || (from == at && line))
			end = from;
	}
	if (end == at)
		return;
	struct item *last = w->count ? &w->item[w->count - 1] : NULL;
	bool joined = last && last->kind == ITEM_PUT;
	struct text *out = joined ? &last->words : &item_add(w, ITEM_PUT)->words;
	if (joined)
		text_add(out, "+ ");
	w->literal.bytes = 0;
	text_put(&w->literal, at, (size_t)(end - at));
	put_literal(w, out);
}

/* Cuts a template into items; false where a tag has no end. */
static bool cut(struct words *w, const char *jinja)
{
	const char *at = jinja, *open, *close;
	bool line = true;

	while ((open = find_open(at))) {
		char mark[3] = {open[1] == '{' ? '}' : open[1], '}', '\0'};

		put_data(w, at, open, open, line);
		const char *words = open + 2 + (open[2] == '-' || open[2] == '+');
		close = find_close(words, mark);
		if (!close)
			return false;
		bool strip = close > words && close[-1] == '-';
		if (mark[0] != '#')
			put_words(w, mark[0] == '}' ? ITEM_PUT : ITEM_BLOCK, words, close - strip);
		at = close + 2;
		line = false;
		if (strip) {
			at += strspn(at, " \t\r\n\f\v");
			line = at[-1] == '\n';
		} else if (mark[0] != '}' && *at == '\n') {
			at++;
			line = true;
		}
	}
	const char *end = at + strlen(at);
	put_data(w, at, end > at && end[-1] == '\n' ? end - 1 : end, NULL, line);
	return true;
}

/* -- the whole ----------------------------------------------------------------------------- */

static bool is_block(const struct words *w, size_t i, const char *words)
{
	return i < w->count && w->item[i].kind == ITEM_BLOCK && strcmp(w->item[i].words.data, words) == 0;
}

/* How many items, from one on, say what a chat that waits for its answer ends with; 0: none. */
static size_t about_generation(const struct words *w, size_t i)
{
	bool asks = is_block(w, i, "if add_generation_prompt ") ||
		    is_block(w, i, "if loop . last and add_generation_prompt ");
	bool sets = is_block(w, i, "if not add_generation_prompt is defined ") &&
		    is_block(w, i + 1, "set add_generation_prompt = false ");

	if (!asks && !sets)
		return 0;
	if (i + 1 < w->count && (sets || w->item[i + 1].kind == ITEM_PUT) &&
	    is_block(w, i + 2, "endif "))
		return 3;
	return 0;
}

/* The standard message of the first literal that has one. */
static const char *find_standard(struct arena *arena, const char *jinja)
{
	struct text literal = {0};
	const char *found = NULL, *message, *at = jinja, *end = jinja + strlen(jinja);

	text_put(&literal, "", 0);
	while (!found && (at = strstr(at, "<|im_start|>system"))) {
		char quote = at > jinja ? at[-1] : '\0';

		if (quote == '\'' || quote == '"') {
			at = read_literal(at, end, quote, &literal);
			size_t bytes = standard_in(&literal, &message);
			found = bytes ? arena_copy(arena, message, bytes) : NULL;
		} else {
			at++;
		}
	}
	text_release(&literal);
	return found;
}

/* The text of words that are one literal; null: they are not. */
static const char *literal_of(struct arena *arena, const struct text *words)
{
	const char *end = words->data + words->bytes, *copy = NULL;
	struct text literal = {0};

	if (words->data[0] == '\'' &&
	    read_literal(words->data + 1, end, '\'', &literal) == end - 1)
		copy = arena_copy(arena, literal.data, literal.bytes);
	text_release(&literal);
	return copy;
}

/* False where the template breaks off. */
static bool put_in_words(struct arena *arena, const char *jinja, struct text *words,
			 struct jinja *said)
{
	struct words w = {0};
	bool whole;

	text_put(&w.literal, "", 0);
	w.standard = said->standard = find_standard(arena, jinja);
	w.standard_bytes = w.standard ? strlen(w.standard) : 0;
	whole = cut(&w, jinja);
	text_put(words, "", 0);
	for (size_t i = 0, skip; i < w.count; i += skip ? skip : 1) {
		skip = about_generation(&w, i);
		if (!skip)
			text_add(words, "%s %s\n", w.item[i].kind == ITEM_PUT ? "put" : "do",
				 w.item[i].words.data);
		else if (w.item[i + 1].kind == ITEM_PUT)
			said->question = literal_of(arena, &w.item[i + 1].words);
	}
	words_release(&w);
	return whole;
}

/*
 * The templates that are known, of models and of tools that train: the digest of their words, and
 * which row writes the same, if BOS and the standard message are read out of them. Each was
 * compared with transformers on the chats of tests/golden/templates and ten more (late and empty
 * messages of the system, spaces, thoughts).
 */
static const struct known_template known[] = {
	{"023748774766e1c601dbea2cba53bdc6", "chatml", false, false},
	{"4490238c466b1c3e48796d062d456b60", "chatml", false, false},
	{"7ffd6c164b24444426c1737fae03eb51", "chatml", false, false},
	{"863edb8d678d773c1d60650faeca449a", "chatml", false, false},
	{"8dade6f40cd6fbd54b10324793e43ae1", "chatml", false, false},
	{"998656b598e843ba40721e1106193e84", "chatml", false, false},
	{"a24d6c7145a0a5fa60b68016e8f426ee", "chatml", false, false},
	{"d299cf4e6e4e11b059cbf2db045e9974", "chatml", false, false},
	{"daf1d2d18d52350cca2179c36e24dfad", "chatml", false, false},
	{"f0a14b9560415f1b9780ee3350c7148d", "chatml", false, false},
	{"f9d618208862bb7b6cedf198597763d3", "chatml", false, false},
	{"208473c7558eea8fddf8657906e3a2f3", "chatml", false, true},
	{"703903a036f52535c0753d3d84991ff8", "chatml", false, true},
	{"7e95821336b9c18f78a2fb57a226c034", "chatml", false, true},
	{"acf8e9ae27974d2c0980dae8024b5493", "chatml", false, true},
	{"1dc88051db449311761ec04047ac405d", "qwen3", false, false},
	{"30d830d72f65560e9c79e42718572ff7", "qwen3", false, false},
	{"36f919676eff20a98f0d3ab0267e500e", "qwen3", false, false},
	{"39668769cb13b6511d2545caf85cbcf2", "qwen3", false, false},
	{"3e2c41143b97307342041e2180dd46a3", "qwen3", false, false},
	{"26c01dbf05e2953986ac73b8c7be2e23", "llama2", false, false},
	{"b50cfa54aa2213a8f1cced7721438094", "llama2", false, false},
	{"8d2eb79e3af8e931b79ac2b394518899", "llama3", false, false},
	{"ae691982c48703ad056b0b1624f15ef5", "llama3", false, false},
	{"f38d218cdabbb4724e74cc014507ee7f", "llama3", false, false},
	{"55dd2213b79a2f6b3db934841f89ad5a", "llama3.1", false, false},
	{"722f83800ab9e5a12899614b8f3eae99", "llama3.1", false, false},
	{"c7d5cae24d50de0612533448ff896786", "llama3.1", true, false},
	{"122281d20539f120b0a29709130c6141", "mistral", false, false},
	{"51164b4dcf49f94035c85acf4f2c183d", "mistral", false, false},
	{"143c1fc64ea342a757b2534512b5cb77", "mistral-v1", false, false},
	{"9d1540890c63f0cd0122e20aa1f10e1e", "mistral-v1", false, false},
	{"f3302ba398ef338d2b921c2176a4c929", "mistral-v1", false, false},
	{"46dd170059a070bf8801bf57a6a7927b", "mistral-v3", false, false},
	{"7a880c25e04091d8d8087aaede828c02", "mistral-v3", false, false},
	{"5dc0d3ccd1e9b1d0df5a8f19b021b70d", "gemma", false, false},
	{"62380a5b6b41f863c7526bd731622878", "gemma", false, false},
	{"63a3d87f9b6a2cdc7a5092f261fbd1ee", "gemma", false, false},
	{"9558a2af4575c6ccda126b98329d0301", "gemma", false, false},
	{"28e884564745fbb9eeffac4dbc7e2674", "gemma3", false, false},
	{"90405a84afca3d74517fc0412bae444d", "gemma3", false, false},
	{"bb28e50213eceb94583ccc89fa191508", "gemma3", false, false},
	{"d3fa01a4ee1b9a0bd285aa3e2a4dc385", "gemma3", false, false},
	{"44bf3cb8acbc745fa148f844c17c6749", "phi", false, false},
	{"ab84108c081557f2b40cb318bc5f7a40", "phi", false, false},
	{"52e7bb37dd92e272632fb37cb8b6e64a", "phi", false, true},
	{"68af58179e49a45181a7a63eaf732eb7", "phi", false, true},
	{"39e3dcb5f2985f7ae68bf9055779c965", "zephyr", false, false},
	{"abcae4069708aed5992985007802fa51", "zephyr", false, false},
};

const struct known_template *template_known(struct arena *arena, const char *jinja,
					    struct jinja *said)
{
	const struct known_template *found = NULL;
	struct text text = {0};
	char digest[33];

	*said = (struct jinja){0};
	if (strlen(jinja) > JINJA_MOST)
		return NULL;
	bool whole = put_in_words(arena, jinja, &text, said);
	digest_write(digest_of(text.data, text.bytes), digest);
	for (size_t i = 0; i < sizeof known / sizeof known[0] && whole && !found; i++) {
		if (strcmp(known[i].digest, digest) == 0)
			found = &known[i];
	}
	said->words = arena_copy(arena, text.data, text.bytes);
	text_release(&text);
	return found;
}
