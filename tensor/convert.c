/*
 * A file's numbers to float. Files align nothing, hence the memcpy of every number.
 */
#include <string.h>

#include "tensor/tensor.h"

static float float_of_bits(uint32_t bits)
{
	float x;

	memcpy(&x, &bits, sizeof x);
	return x;
}

/*
 * IEEE binary16: sign 1, exponent 5 (bias 15), fraction 10. Shifted into a float's place, only
 * the bias is wrong: multiplying by 2^112 (= 127 - 15) corrects it, subnormals included.
 * Infinity and NaN need the exponent full.
 */
static float float_of_half(uint16_t half)
{
	uint32_t sign = (uint32_t)(half & 0x8000) << 16;
	uint32_t rest = (uint32_t)(half & 0x7fff) << 13;
	float x = float_of_bits(rest) * 0x1p112f;
	uint32_t bits;

	if (rest >= 0x0f800000)
		return float_of_bits(sign | 0x7f800000 | (rest & 0x007fffff));
	memcpy(&bits, &x, sizeof bits);
	return float_of_bits(sign | bits);
}

static void convert_f64(float *to, const char *from, size_t count)
{
	double x;

	for (size_t i = 0; i < count; i++) {
		memcpy(&x, from + i * sizeof x, sizeof x);
		to[i] = (float)x;
	}
}

static void convert_f16(float *to, const char *from, size_t count)
{
	uint16_t half;

	for (size_t i = 0; i < count; i++) {
		memcpy(&half, from + i * sizeof half, sizeof half);
		to[i] = float_of_half(half);
	}
}

/* bfloat16 is the upper half of a float. */
static void convert_bf16(float *to, const char *from, size_t count)
{
	uint16_t half;

	for (size_t i = 0; i < count; i++) {
		memcpy(&half, from + i * sizeof half, sizeof half);
		to[i] = float_of_bits((uint32_t)half << 16);
	}
}

void convert_to_f32(float *to, const void *from, enum dtype dtype, size_t count)
{
	switch (dtype) {
	case DTYPE_F32:
		if (count)
			memcpy(to, from, count * sizeof *to);
		break;
	case DTYPE_F64:
		convert_f64(to, from, count);
		break;
	case DTYPE_F16:
		convert_f16(to, from, count);
		break;
	case DTYPE_BF16:
		convert_bf16(to, from, count);
		break;
	default:
		report(EXIT_BUG, "cannot convert '%s' to F32", dtype_name(dtype));
	}
}
