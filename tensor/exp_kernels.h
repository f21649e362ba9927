/*
 * The part of an exponential that activation_kernels.h and attention_kernels.h share: included
 * by them, once for every instruction set, with what they ask for.
 */

/*
 * vector.h's vector_exp with multiplications and additions fused, but for the power of two:
 * exp(x) = 2^n p, and n is in the low bits of *shifted.
 */
TARGET static inline __attribute__((always_inline)) vec KERNEL(exp_parts)(vec x, vec *shifted)
{
	vec magic = vec_all(0x1.8p23f), sum = vec_fma(x, vec_all(1.44269504f), magic);
	vec n = vec_sub(sum, magic);
	vec f = vec_fnma(n, vec_all(0.693359375f), x), p = vec_all(1.9875691500e-4f);

	f = vec_fnma(n, vec_all(-2.12194440e-4f), f);
	p = vec_fma(p, f, vec_all(1.3981999507e-3f));
	p = vec_fma(p, f, vec_all(8.3334519073e-3f));
	p = vec_fma(p, f, vec_all(4.1665795894e-2f));
	p = vec_fma(p, f, vec_all(1.6666665459e-1f));
	p = vec_fma(p, f, vec_all(5.0000001201e-1f));
	*shifted = sum;
	return vec_add(vec_fma(p, vec_mul(f, f), f), vec_all(1));
}
