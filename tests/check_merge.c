/*
 * tests/check_merge.c - long words are merged block by block; the tokens are those of merging the
 * leftmost pair of least rank again and again in the whole word, whatever the merges are.
 *
 * links: model
 */
#include "model/tokenizer.h"
#include "tests/suite.h"

#include <stdlib.h>
#include <string.h>

enum { LETTERS = 3, TOKENS = 40, LETTERS_OF_WORD = 7000 };

/* A vocabulary over a, b, c whose tokens are joined at random, with ranks at random. */
struct made {
	struct vocabulary vocabulary;
	struct bpe bpe;
	int rank[TOKENS][TOKENS], joined[TOKENS][TOKENS]; /* rank -1: no merge */
	unsigned seed;
};

static int random_to(struct made *m, int limit)
{
	m->seed = m->seed * 1664525u + 1013904223u;
	return (int)((m->seed >> 8) % (unsigned)limit);
}

static void add_token(struct made *m, const char *text, size_t bytes)
{
	ck_assert_int_eq(vocabulary_add(&m->vocabulary, "test", text, bytes, m->vocabulary.size,
					TOKEN_MODEL), 0);
}

/* Joins two tokens; the union is new, or there already by another way. */
static void add_merge(struct made *m, int left, int right, int rank)
{
	const struct token *a = &m->vocabulary.token[left], *b = &m->vocabulary.token[right];
	struct text text = {0};

	text_put(&text, a->text, a->bytes);
	text_put(&text, b->text, b->bytes);
	int both = vocabulary_find(&m->vocabulary, text.data, text.bytes);
	if (both < 0 && m->vocabulary.size < TOKENS) {
		both = m->vocabulary.size;
		add_token(m, text.data, text.bytes);
	}
	if (both >= 0 && m->rank[left][right] < 0) {
		m->rank[left][right] = rank;
		m->joined[left][right] = both;
		bpe_join(&m->bpe, left, right, both, rank);
	}
	text_release(&text);
}

static void make(struct made *m, unsigned seed)
{
	*m = (struct made){.seed = seed};
	memset(m->rank, -1, sizeof m->rank);
	for (int i = 0; i < LETTERS; i++)
		add_token(m, &"abc"[i], 1);
	bpe_open(&m->bpe, &m->vocabulary, 4 * TOKENS);
	/* Odd seeds: as trained, a merge comes behind those that made its parts. */
	for (int i = 0; i < 3 * TOKENS; i++)
		add_merge(m, random_to(m, m->vocabulary.size), random_to(m, m->vocabulary.size),
			  seed % 2 ? i : random_to(m, 50));
	bpe_ready(&m->bpe);
}

static void release(struct made *m)
{
	bpe_release(&m->bpe);
	vocabulary_release(&m->vocabulary);
}

/* The definition: looks through the whole word for each merge. */
static int merge_slowly(const struct made *m, int32_t *id, int count)
{
	for (;;) {
		int least = -1;

		for (int i = 0; i + 1 < count; i++) {
			int rank = m->rank[id[i]][id[i + 1]];
			if (rank >= 0 && (least < 0 || rank < m->rank[id[least]][id[least + 1]]))
				least = i;
		}
		if (least < 0)
			return count;
		id[least] = m->joined[id[least]][id[least + 1]];
		count--;
		memmove(id + least + 1, id + least + 2, (size_t)(count - least - 1) * sizeof *id);
	}
}

/* Words at random, of one letter, and that repeat themselves. */
static void make_word(struct made *m, int kind, char *word)
{
	int period = kind == 1 ? 1 : 2 + random_to(m, 9);

	for (int i = 0; i < LETTERS_OF_WORD; i++)
		word[i] = (char)(kind > 0 && i >= period ? word[i - period]
						       : 'a' + random_to(m, LETTERS));
}

START_TEST(as_the_definition)
{
	static char word[LETTERS_OF_WORD];
	static int32_t id[LETTERS_OF_WORD];
	struct made m;

	make(&m, (unsigned)_i);
	for (int kind = 0; kind < 3; kind++) {
		struct ids ids = {0};

		make_word(&m, kind, word);
		for (int i = 0; i < LETTERS_OF_WORD; i++)
			id[i] = word[i] - 'a';
		int count = merge_slowly(&m, id, LETTERS_OF_WORD);
		ck_assert_int_eq(bpe_encode(&m.bpe, word, sizeof word, &ids), 0);
		ck_assert_uint_eq(ids.count, (size_t)count);
		ck_assert_mem_eq(ids.id, id, ids.count * sizeof *ids.id);
		ids_release(&ids);
	}
	release(&m);
}
END_TEST

/* A word of 8 MB takes eight times as long as one of 1 MB, and some; what grows with the square takes 64 times. That is
 * time computed, the least of three: what else runs on the machine takes of its caches. */
START_TEST(time_of_a_long_word)
{
	enum { ONE = 1000000 / TIMES_LESS, TIMES = 8 };
	char *word = xalloc((size_t)ONE * TIMES);
	double seconds[2] = {1e9, 1e9};
	struct made m;

	make(&m, 7);
	for (int i = 0; i < ONE * TIMES; i++)
		word[i] = (char)('a' + random_to(&m, LETTERS));
	for (int turn = 0; turn < 6; turn++) {
		struct ids ids = {0};
		double start = computed_s();

		ck_assert_int_eq(bpe_encode(&m.bpe, word, turn % 2 ? (size_t)ONE * TIMES : ONE, &ids), 0);
		double took = computed_s() - start;
		seconds[turn % 2] = took < seconds[turn % 2] ? took : seconds[turn % 2];
		ids_release(&ids);
	}
	ck_assert_msg(seconds[1] < 4 * TIMES * seconds[0], "%.3f s and %.3f s", seconds[0], seconds[1]);
	release(&m);
	free(word);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("merge");
	TCase *tcase = tcase_create("merge");

	tcase_set_timeout(tcase, 120);
	tcase_add_loop_test(tcase, as_the_definition, 0, TIMES_LESS > 1 ? 6 : 24);
	tcase_add_test(tcase, time_of_a_long_word);
	suite_add_tcase(suite, tcase);
	return run_suite(suite);
}
