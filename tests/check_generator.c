/*
 * What generating computes: products of few rows and attention against kept keys against the reference; and the identity
 * that needs no oracle: token by token with kept keys and values, the logits are those of the whole sequence at once, for
 * every family, whatever the pieces, the neighbours and the cuts are.
 *
 * links: model
 */
#include "tests/stages.h"

#include <math.h>
#include <stdlib.h>

/* -- kernels ------------------------------------------------------------------------------- */

static uint32_t state = 1;

/* In [-1, 1). */
static float draw(void)
{
	state = state * 1664525u + 1013904223u;
	return (float)(int32_t)state * 0x1p-31f;
}

static struct matrix random_matrix(enum dtype dtype, int rows, int cols, int wider)
{
	size_t ld = (size_t)(cols + wider);
	struct matrix m = {xzalloc((size_t)rows * ld, dtype_bytes(dtype)), rows, cols, ld, dtype};

	for (size_t i = 0; i < (size_t)rows * ld; i++) {
		float x = draw();

		if (dtype == DTYPE_BF16)
			((uint16_t *)m.data)[i] = bf16_of(x);
		else
			((float *)m.data)[i] = x;
	}
	return m;
}

static float at(struct matrix m, int i, int j)
{
	size_t k = (size_t)i * m.ld + (size_t)j;

	return m.dtype == DTYPE_BF16 ? bf16_value(((uint16_t *)m.data)[k]) : ((float *)m.data)[k];
}

static void assert_near(struct matrix a, struct matrix b, double most)
{
	for (int i = 0; i < a.rows; i++)
		for (int j = 0; j < a.cols; j++)
			ck_assert_msg(fabs((double)at(a, i, j) - (double)at(b, i, j)) <= most, "(%d, %d): %g and %g", i, j,
				      (double)at(a, i, j), (double)at(b, i, j));
}

static void assert_same(struct matrix a, struct matrix b)
{
	for (int i = 0; i < a.rows; i++)
		for (int j = 0; j < a.cols; j++)
			ck_assert(at(a, i, j) == at(b, i, j));
}

static const struct { int rows, inner, cols; } few_sizes[] = {
	{1, 1, 1}, {1, 64, 64}, {3, 37, 53}, {16, 129, 300}, {5, 768, 257}, {2, 2100, 9}, {17, 40, 130},
};

/* Both ways to lie, all dtypes, with and without what is added; and each row is what it is alone. */
START_TEST(few_rows)
{
	int n = few_sizes[_i / 16].rows, in = few_sizes[_i / 16].inner, out = few_sizes[_i / 16].cols;
	bool w_t = _i & 1, half_w = _i & 2, half_x = _i & 4, adds = _i & 8;
	struct device *cpu = device_open("cpu", 2), *reference = device_open("reference", 1);
	struct matrix x = random_matrix(half_x ? DTYPE_BF16 : DTYPE_F32, n, in, 3), none = {0};
	struct matrix w = random_matrix(half_w ? DTYPE_BF16 : DTYPE_F32, w_t ? out : in, w_t ? in : out, 5);
	struct matrix bias = adds ? random_matrix(DTYPE_F32, 1, out, 0) : none;
	struct matrix y = random_matrix(DTYPE_F32, n, out, 2), z = y, alone = y;
	size_t bytes = (size_t)n * y.ld * sizeof(float);

	z.data = memcpy(xalloc(bytes), y.data, bytes);
	alone.data = memcpy(xalloc(bytes), y.data, bytes);
	reference->k.few(reference, z, x, w, w_t, bias, 0.5f, adds ? 1 : 0);
	cpu->k.few(cpu, y, x, w, w_t, bias, 0.5f, adds ? 1 : 0);
	assert_near(y, z, 2e-6 * (in + 10));
	for (int i = 0; i < n; i++)
		cpu->k.few(cpu, matrix_rows(alone, i, 1), matrix_rows(x, i, 1), w, w_t, bias, 0.5f, adds ? 1 : 0);
	assert_same(y, alone);
	free(x.data);
	free(w.data);
	free(bias.data);
	free(y.data);
	free(z.data);
	free(alone.data);
	device_close(cpu);
	device_close(reference);
}
END_TEST

static const struct { int heads, kv_heads, head_size, window; } shapes[] = {
	{4, 4, 64, 0}, {8, 2, 32, 0}, {6, 1, 5, 0}, {4, 2, 80, 7}, {14, 2, 16, 100}, {2, 2, 130, 0}, {1, 1, 520, 3},
};
enum { SEATS = 3, ROOM = 150 };

/* Sequences of unequal length grow row by row and in pieces; what a row sees is what the reference sees. */
START_TEST(kept_keys)
{
	enum dtype dtype = _i % 2 ? DTYPE_BF16 : DTYPE_F32;
	struct device *cpu = device_open("cpu", 2), *reference = device_open("reference", 1);
	int H = shapes[_i / 2].heads, G = shapes[_i / 2].kv_heads, D = shapes[_i / 2].head_size;
	int lengths[SEATS] = {1, 64, ROOM};
	struct cached c = {.sequences = SEATS, .room = ROOM, .heads = H, .kv_heads = G, .head_size = D,
			   .scale = 0.4f, .window = shapes[_i / 2].window, .dtype = dtype};
	struct matrix q = random_matrix(dtype, SEATS, H * D, 1), a = random_matrix(DTYPE_F32, SEATS, H * D, 0), b = a;
	int32_t sequence[ROOM], position[ROOM];

	b.data = xzalloc((size_t)SEATS * b.ld, sizeof(float));
	c.keys = xzalloc(1, cached_bytes(&c));
	c.values = xzalloc(1, cached_bytes(&c));
	c.sequence = sequence;
	c.position = position;
	for (int s = 0; s < SEATS; s++) {
		struct matrix k = random_matrix(dtype, lengths[s], G * D, 3), v = random_matrix(dtype, lengths[s], G * D, 0);

		for (int t = 0; t < lengths[s]; t++) {
			sequence[t] = s;
			position[t] = t;
		}
		cpu->k.keep(cpu, &c, k, v);
		free(k.data);
		free(v.data);
	}
	for (int s = 0; s < SEATS; s++) {
		sequence[s] = SEATS - 1 - s;
		position[s] = lengths[SEATS - 1 - s] - 1;
	}
	reference->k.attend(reference, a, q, &c);
	cpu->k.attend(cpu, b, q, &c);
	assert_near(b, a, 1e-5);
	for (int s = 0; s < SEATS; s++) {
		struct cached one = c;

		one.sequence = &sequence[s];
		one.position = &position[s];
		cpu->k.attend(cpu, matrix_rows(a, s, 1), matrix_rows(q, s, 1), &one);
	}
	assert_same(a, b);
	free(q.data);
	free(a.data);
	free(b.data);
	free(c.keys);
	free(c.values);
	device_close(cpu);
	device_close(reference);
}
END_TEST

/* -- generators ------------------------------------------------------------------------------ */

/* Logits (SEQUENCES, T, V) of the whole sequences at once, with the adapter. */
static float *whole_logits(struct device *dev, struct golden *g)
{
	struct stage_spec spec = whole(g);
	struct micro_batch micro = micro_batch(g);
	float *logits = xzalloc((size_t)ROWS * (size_t)g->config->vocabulary, sizeof(float));
	struct stage *stage;
	double loss = 0;

	spec.dump = true;
	micro.train = false;
	stage = stage_open(dev, g->config, g->weights, g->lora, &spec, g->initial);
	ck_assert_ptr_nonnull(stage);
	stage_forward(stage, 0, &micro, &loss);
	stage_logits(stage, logits);
	stage_close(stage);
	return logits;
}

/* One generator, or two with a cut between. */
struct chain { struct generator *part[2]; int parts, width, vocabulary; float *x; };

static struct chain open_chain(struct device *dev, struct golden *g, int cut)
{
	struct chain chain = {.parts = cut > 0 ? 2 : 1, .width = g->config->width, .vocabulary = g->config->vocabulary};

	for (int i = 0; i < chain.parts; i++) {
		int from, to;
		struct generator_spec spec = {
			.first_block = i == 0 ? 0 : cut,
			.blocks = chain.parts == 1 ? g->config->blocks : i == 0 ? cut : g->config->blocks - cut,
			.embedding = i == 0,
			.head = i == chain.parts - 1,
			.sequences = SEQUENCES,
			.room = TOKENS,
			.rows = 20,
			.dtype = g->dtype,
		};

		lora_range(g->lora, spec.first_block, spec.blocks, &from, &to);
		chain.part[i] = generator_open(dev, g->config, g->weights, g->lora, &spec,
					     g->initial + (from < to ? g->lora->tensor[from].offset : 0));
		ck_assert_ptr_nonnull(chain.part[i]);
	}
	chain.x = xzalloc((size_t)generator_rows(20) * (size_t)chain.width, sizeof(float));
	return chain;
}

static void close_chain(struct chain *chain)
{
	for (int i = 0; i < chain->parts; i++)
		generator_close(chain->part[i]);
	free(chain->x);
}

/* Runs rows and puts the logits of all of them where they belong in (SEQUENCES, T, V). */
static void run_chain(struct chain *chain, const struct decode_row *row, int rows, float *logits)
{
	size_t V = (size_t)chain->vocabulary;

	for (int i = 0; i < chain->parts; i++)
		generator_run(chain->part[i], chain->x, row, rows);
	for (int i = 0; i < rows; i++) {
		const float *found = generator_logits(chain->part[chain->parts - 1], chain->x, &i, 1);

		memcpy(logits + (size_t)(row[i].sequence * TOKENS + row[i].position) * V, found, V * sizeof(float));
	}
}

/* A prompt of so many tokens in pieces, then token by token, `beside` sequences together. */
static float *grow(struct device *dev, struct golden *g, int cut, int prompt, int piece, int beside)
{
	struct chain chain = open_chain(dev, g, cut);
	float *logits = xzalloc((size_t)ROWS * (size_t)chain.vocabulary, sizeof(float));
	struct decode_row row[TOKENS];

	for (int s = 0; s < SEQUENCES; s++)
		for (int t = 0; t < prompt; t += piece) {
			int rows = prompt - t < piece ? prompt - t : piece;

			for (int i = 0; i < rows; i++)
				row[i] = (struct decode_row){g->ids[s * TOKENS + t + i], s, t + i};
			run_chain(&chain, row, rows, logits);
		}
	for (int t = prompt; t < TOKENS; t++)
		for (int s = 0; s < SEQUENCES; s += beside) {
			for (int i = 0; i < beside; i++)
				row[i] = (struct decode_row){g->ids[(s + i) * TOKENS + t], s + i, t};
			run_chain(&chain, row, beside, logits);
		}
	close_chain(&chain);
	return logits;
}

static double most_off(const struct golden *g, const float *a, const float *b)
{
	double most = 0;

	for (size_t i = 0; i < (size_t)ROWS * (size_t)g->config->vocabulary; i++)
		most = fmax(most, fabs((double)a[i] - (double)b[i]));
	return most;
}

/* BF16 rounds at other places than a whole forward does. */
START_TEST(decoding_is_a_whole_forward)
{
	static const char *const devices[] = {"cpu", "far", "reference"};
	struct device *dev = device_open(devices[_i % 3], 2);
	struct golden g;
	float *all, *one, *other;

	golden_open(&g, cases[_i / 3 % COUNT(cases)]);
	g.dtype = dtypes[_i / 3 / COUNT(cases)];
	if (g.dtype == DTYPE_BF16 && _i % 3) {
		golden_close(&g);
		device_close(dev);
		return;
	}
	all = whole_logits(dev, &g);
	one = grow(dev, &g, 0, 5, 2, 1);
	ck_assert_msg(most_off(&g, all, one) < (g.dtype == DTYPE_BF16 ? 0.25 : 5e-5), "%s: off by %g", g.config->folder,
		      most_off(&g, all, one));
	other = grow(dev, &g, 3, 5, 2, 4);
	ck_assert(most_off(&g, one, other) == 0);
	free(other);
	other = grow(dev, &g, g.config->blocks - 1, 1, 1, 2);
	ck_assert(most_off(&g, one, other) == 0);
	free(all);
	free(one);
	free(other);
	golden_close(&g);
	device_close(dev);
}
END_TEST

/* More rows at once than products treat one by one, filled up to whole pieces. */
START_TEST(long_pieces)
{
	struct device *dev = device_open("cpu", 1);
	struct golden g;
	float *all, *logits;
	struct chain chain;
	struct decode_row row[20];

	golden_open(&g, cases[_i]);
	all = whole_logits(dev, &g);
	chain = open_chain(dev, &g, 2);
	logits = memcpy(xalloc((size_t)ROWS * (size_t)chain.vocabulary * sizeof(float)), all,
			(size_t)ROWS * (size_t)chain.vocabulary * sizeof(float));
	for (int i = 0; i < 20; i++)
		row[i] = (struct decode_row){g.ids[i], i / TOKENS, i % TOKENS};
	run_chain(&chain, row, 20, logits);
	ck_assert(most_off(&g, all, logits) < 5e-5);
	ck_assert(most_off(&g, all, logits) > 0 || _i > 0);
	close_chain(&chain);
	free(all);
	free(logits);
	golden_close(&g);
	device_close(dev);
}
END_TEST

/* The estimate is what is taken. */
START_TEST(memory_is_counted)
{
	struct golden g;
	struct generator_spec spec = {.blocks = 5, .embedding = true, .head = true, .sequences = 3, .room = 40, .rows = 4};
	struct generator_memory few, more;

	golden_open(&g, "llama3");
	few = generator_memory(g.config, g.weights, g.lora, &spec);
	spec.sequences = 6;
	more = generator_memory(g.config, g.weights, g.lora, &spec);
	/* keys and values of 5 blocks, 2 heads of 10, room rounded up to whole panels */
	ck_assert_uint_eq(few.cache, 2 * 5 * 2 * 10 * 48 * 3 * sizeof(float));
	ck_assert_uint_eq(more.cache, 2 * few.cache);
	ck_assert_uint_eq(more.total - few.total, few.cache);
	golden_close(&g);
}
END_TEST

/* -- choosing ------------------------------------------------------------------------------ */

static int next(struct sampling settings, const float *logits, const int32_t *ids, size_t count, uint32_t prompt)
{
	struct sampler *s = sampler_open(&settings, 6);
	float copy[6];
	int id;

	memcpy(copy, logits, sizeof(copy));
	id = sampler_next(s, copy, ids, count, prompt);
	sampler_close(s);
	return id;
}

static const float some[6] = {1.0f, 2.0f, 0.5f, 2.0f, -1.0f, 1.9f};

START_TEST(greedy_and_penalty)
{
	struct sampling s = {.top_p = 1, .repetition_penalty = 1};
	static const int32_t ids[] = {1, 1, 4};
	static const float negative[6] = {-1, -2, -3, -1.5f, -4, -5};

	ck_assert_int_eq(next(s, some, ids, 3, 0), 1);
	s.repetition_penalty = 1.01;		/* once, though 1 was there twice: 2 / 1.01 is above 1.9 */
	ck_assert_int_eq(next(s, some, ids, 3, 0), 3);
	s.repetition_penalty = 2;		/* logits below 0 are multiplied */
	ck_assert_int_eq(next(s, negative, (const int32_t[]){0}, 1, 0), 3);
}
END_TEST

/* Shares of many draws are those of the softmax over what is left. */
static void assert_shares(struct sampling s, const double wanted[6])
{
	enum { DRAWS = 20000 };
	int count[6] = {0};

	for (uint32_t i = 0; i < DRAWS; i++)
		count[next(s, some, NULL, 0, i)]++;
	for (int i = 0; i < 6; i++)
		ck_assert_msg(fabs((double)count[i] / DRAWS - wanted[i]) < (wanted[i] > 0 ? 0.015 : 1e-9), "%d: %d of %d",
			      i, count[i], DRAWS);
}

static void softmax(double p[6], double temperature, const bool left[6])
{
	double sum = 0;

	for (int i = 0; i < 6; i++)
		sum += p[i] = left[i] ? exp((double)some[i] / temperature) : 0;
	for (int i = 0; i < 6; i++)
		p[i] /= sum;
}

START_TEST(shares)
{
	struct sampling s = {.temperature = 0.7, .top_p = 1, .repetition_penalty = 1, .seed = 5};
	double p[6];

	softmax(p, 0.7, (const bool[6]){true, true, true, true, true, true});
	assert_shares(s, p);
	s.top_k = 2;
	softmax(p, 0.7, (const bool[6]){false, true, false, true, false, false});
	assert_shares(s, p);
	s.top_k = 1;			/* as likely as the last one: both stay */
	assert_shares(s, p);
	s.top_k = 3;
	s.top_p = 0.9;			/* the third is still needed: two have 0.70 of three */
	softmax(p, 0.7, (const bool[6]){false, true, false, true, false, true});
	assert_shares(s, p);
	s.top_p = 0.6;
	softmax(p, 0.7, (const bool[6]){false, true, false, true, false, false});
	assert_shares(s, p);
	s.top_k = 0;
	s.top_p = 1e-9;			/* one is left always */
	assert_shares(s, (const double[6]){0, 1, 0, 0, 0, 0});
	s.top_p = 0;
	assert_shares(s, (const double[6]){0, 1, 0, 0, 0, 0});
}
END_TEST

/* A function of seed, prompt and position alone. */
START_TEST(draws_are_keyed)
{
	struct sampling s = {.temperature = 5, .top_p = 1, .repetition_penalty = 1, .seed = 5}, other = s;
	int32_t ids[64] = {0};
	int seeds = 0, prompts = 0, places = 0;

	other.seed = 6;
	for (size_t i = 0; i < 64; i++) {
		int id = next(s, some, ids, i, 1);

		ck_assert_int_eq(next(s, some, ids, i, 1), id);
		seeds += next(other, some, ids, i, 1) != id;
		prompts += next(s, some, ids, i, 2) != id;
		places += i > 0 && next(s, some, ids, i - 1, 1) != id;
	}
	ck_assert(seeds > 10 && prompts > 10 && places > 10);
}
END_TEST

/* -- texts --------------------------------------------------------------------------------- */

/* Adds the ids of a text, byte by byte where the tokenizer has no merge; what is shown after each, joined by |. */
static char *shown(struct arena *arena, struct tokenizer *tokenizer, const char *text, const char *const *stop, int stops)
{
	struct transcript *t = transcript_open(tokenizer, stop, stops, -1);
	struct ids ids = {0};
	struct text all = {0};
	char *copy;
	size_t bytes;
	int stopped = 0;

	ck_assert_int_eq(tokenizer_encode(tokenizer, text, strlen(text), false, &ids), 0);
	for (size_t i = 0; i < ids.count && !stopped; i++) {
		const char *piece;

		stopped = transcript_add(t, ids.id[i]);
		ck_assert_int_ge(stopped, 0);
		piece = transcript_show(t, false, &bytes);
		text_put(&all, piece, bytes);
		text_add(&all, "|");
	}
	if (stopped) {
		text_add(&all, "!");
	} else {
		const char *rest = transcript_show(t, true, &bytes);

		text_put(&all, rest, bytes);
	}
	copy = arena_copy(arena, all.data ? all.data : "", all.bytes);
	text_release(&all);
	ids_release(&ids);
	transcript_close(t);
	return copy;
}

/* The characters of s that are not |. */
static char *joined(struct arena *arena, const char *s)
{
	char *to = arena_copy(arena, s, strlen(s)), *at = to;

	for (; *s; s++)
		if (*s != '|')
			*at++ = *s;
	*at = '\0';
	return to;
}

START_TEST(texts_stop_and_wait)
{
	struct arena arena = {0};
	struct tokenizer *t = tokenizer_open(GOLDEN "/tokenizer");
	const char *const stops[] = {"xyz", "END"};
	char *s;

	ck_assert_ptr_nonnull(t);
	s = shown(&arena, t, "ab xy END cd", stops, 2);
	ck_assert_str_eq(joined(&arena, s), "ab xy !");
	s = shown(&arena, t, "axxyzb", stops, 2);
	ck_assert_str_eq(joined(&arena, s), "ax!");
	ck_assert_ptr_null(strstr(s, "xx"));
	s = shown(&arena, t, "a EN b", stops, 2);	/* not a stop text after all */
	ck_assert_str_eq(joined(&arena, s), "a EN b");
	s = shown(&arena, t, "\xf0\x9f\xa6\x94\xc3\xa9", NULL, 0);	/* a character comes whole or not at all */
	ck_assert_str_eq(joined(&arena, s), "\xf0\x9f\xa6\x94\xc3\xa9");
	ck_assert_ptr_null(strstr(s, "\xf0|"));
	ck_assert_ptr_null(strstr(s, "\x9f|"));
	tokenizer_close(t);
	arena_release(&arena);
}
END_TEST

START_TEST(broken_texts_are_clean)
{
	struct text text = {0};

	transcript_clean(&text, "a\xc3\xa9\xff\xc3z\xed\xa0\x80\0\xf0\x9f", 12);
	ck_assert_str_eq(text.data, "a\xc3\xa9\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
				    "\xef\xbf\xbd\xef\xbf\xbd");
	text_release(&text);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("generator");
	TCase *kernels = tcase_create("kernels"), *generators = tcase_create("generators"), *texts = tcase_create("texts");

	say_dtypes_skipped();
	tcase_set_timeout(generators, 60);
	tcase_add_loop_test(kernels, few_rows, 0, 16 * COUNT(few_sizes));
	tcase_add_loop_test(kernels, kept_keys, 0, 2 * COUNT(shapes));
	tcase_add_loop_test(generators, decoding_is_a_whole_forward, 0, 3 * COUNT(cases) * dtypes_here());
	tcase_add_loop_test(generators, long_pieces, 0, COUNT(cases));
	tcase_add_test(generators, memory_is_counted);
	tcase_add_test(texts, greedy_and_penalty);
	tcase_add_test(texts, shares);
	tcase_add_test(texts, draws_are_keyed);
	tcase_add_test(texts, texts_stop_and_wait);
	tcase_add_test(texts, broken_texts_are_clean);
	suite_add_tcase(suite, kernels);
	suite_add_tcase(suite, generators);
	suite_add_tcase(suite, texts);
	return run_suite(suite);
}
