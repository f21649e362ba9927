/*
 * A vector of AVX-512 and what one instruction does with it, as activation_kernels.h and
 * attention_kernels.h ask for them.
 */
#ifndef EDGEPIPE_TENSOR_VEC_AVX512_H
#define EDGEPIPE_TENSOR_VEC_AVX512_H

#include <immintrin.h>

typedef __m512 vec;
#define WIDTH 16

#define vec_load _mm512_loadu_ps
#define vec_store _mm512_storeu_ps
#define vec_all _mm512_set1_ps
#define vec_add _mm512_add_ps
#define vec_sub _mm512_sub_ps
#define vec_mul _mm512_mul_ps
#define vec_fma _mm512_fmadd_ps
#define vec_fnma _mm512_fnmadd_ps

#endif
