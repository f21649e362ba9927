/*
 * tests/check_merged.c - an adapter merged into a model: every number beside W + scale B A in
 * double, types, shards, files that are copied, and files that are broken.
 *
 * links: base tensor model
 */
#include "tests/model_files.h"

#include <math.h>

#define ROOM 80
#define PLAIN "base_model.model."

/* Number i of something: in about +-1, a different one for every seed. */
static float number(int seed, size_t i)
{
	struct philox drawn = philox((struct philox){{(uint32_t)i, (uint32_t)seed, 0, 0}}, 1, 2);

	return 2 * philox_unit(drawn.word[0]) - 1;
}

static void *stored(enum dtype dtype, const float *x, size_t count)
{
	char *data = arena_take(&paths, count * dtype_bytes(dtype));

	for (size_t i = 0; i < count; i++) {
		uint32_t bits;
		uint16_t half;
		double wide = x[i];

		memcpy(&bits, &x[i], sizeof bits);
		half = (uint16_t)(bits >> 16);
		if (dtype == DTYPE_F16)
			half = (uint16_t)((bits >> 16 & 0x8000) |
					  ((bits >> 13 & 0x3ffff) - (112 << 10)));
		if (dtype == DTYPE_F64)
			memcpy(data + 8 * i, &wide, 8);
		else if (dtype == DTYPE_F32)
			memcpy(data + 4 * i, &x[i], 4);
		else
			memcpy(data + 2 * i, &half, 2);
	}
	return data;
}

/* A model of random numbers away from 0 in a type, and a file more. */
static struct model_config *random_model(const char *text, enum dtype dtype, float scale)
{
	struct model_config *config = model_config_read(model_folder("m", text));
	struct safetensors_entry entry[ROOM];
	int count = model_entries(config, true, entry, ROOM);

	for (int e = 0; e < count; e++) {
		size_t numbers = (size_t)entry[e].shape[0];

		if (entry[e].dims == 2)
			numbers *= (size_t)entry[e].shape[1];
		float *x = arena_take(&paths, numbers * sizeof *x);
		for (size_t i = 0; i < numbers; i++) {
			x[i] = scale * number(e, i);
			x[i] = fabsf(x[i]) < 0.001f ? 0.5f : x[i];
		}
		entry[e].data = stored(dtype, x, numbers);
		entry[e].dtype = dtype;
	}
	ck_assert_int_eq(safetensors_write(at("m/model.safetensors"), entry, count, NULL), 0);
	put_text(at("m/tokenizer.model"), "words");
	put_text(at("m/pytorch_model.bin"), "the base's weights");
	return config;
}

struct merging {
	struct model_config *config;
	struct weights *weights;
	struct lora *lora;
	float *values;
};

static void merging_open(struct merging *m, const char *text, enum dtype dtype, float scale)
{
	static const char *all[] = {"all"};
	const struct lora_config want = {.rank = 3, .alpha = 1.5, .targets = {all, 1}};

	m->config = random_model(text, dtype, scale);
	m->weights = weights_open(m->config);
	m->lora = lora_resolve(m->config, &want);
	ck_assert(m->weights && m->lora);
	m->values = xzalloc(m->lora->elements, sizeof(float));
	for (size_t i = 0; i < m->lora->elements; i++)
		m->values[i] = number(1000, i);
}

static void merging_close(struct merging *m)
{
	free(m->values);
	lora_free(m->lora);
	weights_close(m->weights);
	model_config_free(m->config);
}

static int merge(const struct merging *m, const char *folder, double shard_bytes)
{
	const struct merged_model merge = {
	    .weights = m->weights, .lora = m->lora, .values = m->values, .shard_bytes = shard_bytes};

	return merged_write(folder, &merge);
}

/* W + scale B A of a place of a tensor, in double. */
static double expected(const struct merging *m, const struct lora_tensor *a, double w, size_t out,
		       size_t in)
{
	const struct lora_tensor *b = a + 1;
	double sum = 0;

	for (int r = 0; r < a->rank; r++)
		sum += (double)m->values[b->offset + out * (size_t)b->cols + (size_t)r] *
		       (double)m->values[a->offset + (size_t)r * (size_t)a->cols + in];
	return w + (double)a->scale * sum;
}

/* The number that is merged and each of its neighbours, of which none is nearer to what is right
 * (but for the error of F32 itself). */
static void assert_nearest(double right, float merged, enum dtype dtype, const char *name)
{
	double unit = dtype == DTYPE_BF16 ? 0x1p-8 : dtype == DTYPE_F16 ? 0x1p-11 : 0x1p-24;
	double most = unit * fabs(right) + 6 * 0x1p-24 * (1 + fabs(right));

	if (dtype == DTYPE_F16)
		most += 0x1p-25;
	ck_assert_msg(fabs((double)merged - right) <= most, "%s: %.9g instead of %.9g", name,
		      (double)merged, right);
}

static void assert_merged(const struct merging *m, const struct lora_tensor *a,
			  const struct weights *merged)
{
	const struct safetensor *was = weights_find(m->weights, a->slot, a->block);
	const struct safetensor *is = weights_find(merged, a->slot, a->block);
	size_t rows = (size_t)was->shape[0], cols = (size_t)was->shape[1];
	bool turned = model_row(m->config, a->slot)->transposed;

	ck_assert(is->dtype == was->dtype && is->bytes == was->bytes);
	for (size_t i = 0; i < rows * cols; i++) {
		size_t step = dtype_bytes(was->dtype), row = i / cols, col = i % cols;
		float w, x;

		convert_to_f32(&w, (const char *)was->data + i * step, was->dtype, 1);
		convert_to_f32(&x, (const char *)is->data + i * step, is->dtype, 1);
		assert_nearest(expected(m, a, (double)w, turned ? col : row, turned ? row : col), x,
			       is->dtype, is->name);
	}
}

static const struct {
	const char *text;
	enum dtype dtype;
	double shard_bytes;
	int files;
} models[] = {
	{GPT2_TINY, DTYPE_F32, 4e9, 1},
	{GPT2_TINY, DTYPE_F16, 4e9, 1},
	{GPT2_TINY, DTYPE_BF16, 3000, 2},
	{LLAMA_TINY, DTYPE_F32, 5000, 2},
	{LLAMA_TINY, DTYPE_F16, 1, 30},
	{LLAMA_TINY, DTYPE_BF16, 4e9, 1},
	{LLAMA_TINY, DTYPE_F64, 4e9, 1},
};

START_TEST(every_number_is_w_and_scale_b_a)
{
	struct merging m;
	int adapted = 0;

	merging_open(&m, models[_i].text, models[_i].dtype, 1);
	ck_assert_int_eq(merge(&m, at("out"), models[_i].shard_bytes), 0);
	struct model_config *config = model_config_read(at("out"));
	struct weights *merged = weights_open(config);
	ck_assert_ptr_nonnull(merged);
	ck_assert_int_eq(merged->files, models[_i].files);
	for (int i = 0; i < m.lora->count; i += 2)
		assert_merged(&m, &m.lora->tensor[i], merged);
	/* all others are the same bytes */
	for (int f = 0; f < m.weights->files; f++)
		for (int i = 0; i < m.weights->file[f]->count; i++) {
			const struct safetensor *was = &m.weights->file[f]->tensor[i], *is = NULL;

			for (int g = 0; g < merged->files && !is; g++)
				is = safetensors_find(merged->file[g], was->name);
			ck_assert_msg(is && is->bytes == was->bytes, "%s", was->name);
			adapted += memcmp(is->data, was->data, was->bytes) != 0;
		}
	ck_assert_int_eq(adapted, m.lora->count / 2);
	ck_assert(path_exists(at("out/tokenizer.model")) && !path_exists(at("out/pytorch_model.bin")));
	ck_assert(!path_exists(at("out.tmp")));
	weights_close(merged);
	model_config_free(config);
	folder_remove(at("out"));
	merging_close(&m);
}
END_TEST

/* F16 at its edges, by an adapter that is W itself: W is 0, A has one 1 in a row, B the numbers. */
START_TEST(halves_are_rounded_to_the_nearest_even)
{
	static const struct { float x; uint16_t half; } edge[] = {
		{0, 0x0000}, {1, 0x3c00}, {-2, 0xc000}, {65504, 0x7bff}, {65519, 0x7bff},
		{1 + 0x1p-11f, 0x3c00}, {1 + 3 * 0x1p-11f, 0x3c02}, {1 + 0x1p-11f + 0x1p-20f, 0x3c01},
		{0x1p-14f, 0x0400}, {0x1p-14f - 0x1p-26f, 0x0400}, {0x1p-24f, 0x0001},
		{0x1p-25f, 0x0000}, {3 * 0x1p-25f, 0x0002}, {-0x1p-24f, 0x8001}, {2047.5f, 0x6800},
	};
	struct merging m;

	merging_open(&m, LLAMA_TINY, DTYPE_F16, 1);
	const struct lora_tensor *a = &m.lora->tensor[0], *b = a + 1;
	const struct safetensor *w = weights_find(m.weights, a->slot, a->block);
	char *path = at("m/model.safetensors");
	size_t bytes, begin = (size_t)((const char *)w->data - (const char *)m.weights->file[0]->map);
	char *file = file_read(path, &bytes);

	memset(file + begin, 0, w->bytes);
	merging_close(&m);
	put(path, file, bytes);
	free(file);
	m.config = model_config_read(at("m"));
	m.weights = weights_open(m.config);
	static const char *all[] = {"all"};
	m.lora = lora_resolve(m.config, &(struct lora_config){.rank = 1, .alpha = 1, .targets = {all, 1}});
	m.values = xzalloc(m.lora->elements, sizeof(float));
	a = &m.lora->tensor[0];
	b = a + 1;
	for (size_t k = 0; k < (size_t)COUNT(edge); k += (size_t)b->rows) {
		m.values[a->offset] = 1;
		for (size_t i = 0; i < (size_t)b->rows && k + i < (size_t)COUNT(edge); i++)
			m.values[b->offset + i] = edge[k + i].x;
		ck_assert_int_eq(merge(&m, at("out"), 4e9), 0);
		struct safetensors *out = safetensors_open(at("out/model.safetensors"));
		const struct safetensor *x = safetensors_find(out, "model.layers.0.self_attn.q_proj.weight");
		for (size_t i = 0; i < (size_t)b->rows && k + i < (size_t)COUNT(edge); i++) {
			uint16_t half;

			memcpy(&half, (const char *)x->data + 2 * 8 * i, 2);
			ck_assert_msg(half == edge[k + i].half, "%g is %04x", (double)edge[k + i].x, half);
		}
		safetensors_close(out);
	}
	/* 65520 would be infinite */
	m.values[b->offset] = 65520;
	error_hold();
	ck_assert_int_eq(merge(&m, at("out"), 4e9), -1);
	assert_said(EXIT_DATA, "not finite in F16");
	ck_assert(!path_exists(at("out.tmp")) && path_exists(at("out/config.json")));
	merging_close(&m);
}
END_TEST

/* A disk that is too small: a model with a hole of 2^43 bytes in its file. */
START_TEST(a_disk_without_room_is_seen_beforehand)
{
	const long long hole = 1LL << 43;
	struct merging m;
	char length[8];
	size_t bytes;

	merging_open(&m, GPT2_TINY, DTYPE_F32, 1);
	merging_close(&m);
	char *file = file_read(at("m/model.safetensors"), &bytes);
	unsigned long long header = 0;
	for (int i = 7; i >= 0; i--)
		header = header << 8 | (unsigned char)file[i];
	char *end = file + 8 + header;
	while (end[-1] != '}')
		end--;
	long long data = (long long)(bytes - 8 - header);
	char *text = arena_format(&paths, "%.*s,\"hole\":{\"dtype\":\"U8\",\"shape\":[%lld],\"data_offsets\":"
				  "[%lld,%lld]}}", (int)(end - 1 - file - 8), file + 8, hole, data,
				  data + hole);
	header = strlen(text);
	for (int i = 0; i < 8; i++)
		length[i] = (char)(header >> 8 * i);
	FILE *out = fopen(at("m/model.safetensors"), "wb");
	fwrite(length, 1, 8, out);
	fwrite(text, 1, header, out);
	fwrite(file + bytes - data, 1, (size_t)data, out);
	fclose(out);
	free(file);
	if (truncate(at("m/model.safetensors"), (long long)header + 8 + data + hole)) {
		printf("skipped: a file with a hole of 8 TiB, which this file system cannot hold\n");
		return;
	}
	m.config = model_config_read(at("m"));
	m.weights = weights_open(m.config);
	ck_assert_ptr_nonnull(m.weights);
	static const char *all[] = {"all"};
	m.lora = lora_resolve(m.config, &(struct lora_config){.rank = 1, .alpha = 1, .targets = {all, 1}});
	m.values = xzalloc(m.lora->elements, sizeof(float));
	error_hold();
	ck_assert_int_eq(merge(&m, at("big"), 4e9), -1);
	assert_said(EXIT_CREATE, "its disk has room for");
	ck_assert(!path_exists(at("big")) && !path_exists(at("big.tmp")));
	merging_close(&m);
	unlink(at("m/model.safetensors"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("merged");
	TCase *t = tcase_create("merged");

	tcase_add_unchecked_fixture(t, scratch_open, scratch_close);
	tcase_add_loop_test(t, every_number_is_w_and_scale_b_a, 0, COUNT(models));
	tcase_add_test(t, halves_are_rounded_to_the_nearest_even);
	tcase_add_test(t, a_disk_without_room_is_seen_beforehand);
	suite_add_tcase(s, t);
	return run_suite(s);
}
