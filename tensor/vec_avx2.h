/*
 * A vector of AVX2 and what one instruction does with it, as activation_kernels.h and
 * attention_kernels.h ask for them.
 */
#ifndef EDGEPIPE_TENSOR_VEC_AVX2_H
#define EDGEPIPE_TENSOR_VEC_AVX2_H

#include <immintrin.h>

typedef __m256 vec;
#define WIDTH 8

#define vec_load _mm256_loadu_ps
#define vec_store _mm256_storeu_ps
#define vec_all _mm256_set1_ps
#define vec_add _mm256_add_ps
#define vec_sub _mm256_sub_ps
#define vec_mul _mm256_mul_ps
#define vec_fma _mm256_fmadd_ps
#define vec_fnma _mm256_fnmadd_ps

#endif
