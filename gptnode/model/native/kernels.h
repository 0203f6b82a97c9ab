/* Kernels for a few rows at a time: what a decode step does between embedding and logits.
 *
 * bf16 is uint16_t here. Weights are (n, k) matrices, row after row, in one of three forms; rows of
 * activations are bf16. Every output row depends on its own input row alone, and sums run in an
 * order that depends on k alone: batches and threads change no bit.
 *
 * The part between the marks is read by cffi, too: plain declarations only.
 */
#ifndef GPTNODE_KERNELS_H
#define GPTNODE_KERNELS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* cffi: begin */
enum { GPT_BF16 = 0, GPT_INT8 = 1, GPT_INT4 = 2 };

typedef struct {
    int kind;               /* GPT_BF16, GPT_INT8, GPT_INT4 */
    int n, k;               /* outputs, inputs */
    int stride;             /* inputs with padding: of a row of values, in elements */
    const void *values;     /* uint16_t, int8_t, or two in a byte: see quantised.py */
    const uint16_t *scales; /* bf16, one for each 128 (int8) or 32 (int4) inputs of a row */
    const uint16_t *bias;   /* bf16 (n), or null */
} gpt_matrix;

typedef struct {
    gpt_matrix q, k, v, o, gate, up, down;
    const uint16_t *attention_norm, *mlp_norm; /* bf16 (d_model) */
} gpt_block;

typedef struct {
    int d_model, n_heads, n_kv_heads, head_dim, d_ff;
    float norm_eps;
} gpt_shape;

typedef struct {
    uint16_t *const *keys;   /* for each block: (max_tokens, n_kv_heads, head_dim) */
    uint16_t *const *values; /* alike */
    int position;            /* where this row's token stands; all before it are in the cache */
} gpt_row;

size_t gpt_scratch_bytes(const gpt_shape *shape, int rows);

/* Runs `rows` tokens through the blocks: hidden (rows, d_model) in place; cosines and sines are
 * (rows, head_dim) in bf16. Keys and values are written into each row's cache first, so rows of
 * one context have to come in order of their positions. Returns 0; 1 without memory. */
int gpt_step(const gpt_shape *shape, const gpt_block *blocks, int n_blocks, const gpt_row *row,
             int rows, const uint16_t *cosines, const uint16_t *sines, uint16_t *hidden,
             void *scratch, int threads);

/* out (rows, n) in f32 = rmsnorm(x (rows, k)) times the matrix; no norm where `norm` is null. */
int gpt_head(const gpt_matrix *matrix, const uint16_t *norm, float norm_eps, const uint16_t *x,
             int rows, float *out, int threads);

/* out (rows, width) = rmsnorm(x) */
void gpt_rmsnorm(const uint16_t *x, const uint16_t *norm, float norm_eps, int rows, int width,
                 uint16_t *out, int threads);

/* Turns heads (rows, n_heads, head_dim) in place by each row's angles. */
void gpt_rotate(uint16_t *x, const uint16_t *cosines, const uint16_t *sines, int rows, int n_heads,
                int head_dim, int threads);

/* Causal attention of the last `tokens` of `length` tokens over all of them: queries and out are
 * (tokens, n_heads, head_dim), keys and values (length, n_kv_heads, head_dim).
 * Returns 0; 1 without memory. */
int gpt_attention(const gpt_shape *shape, const uint16_t *queries, const uint16_t *keys,
                  const uint16_t *values, int length, int tokens, uint16_t *out, int threads);

/* gate = silu(gate) * up, `count` elements */
void gpt_silu_mul(uint16_t *gate, const uint16_t *up, size_t count, int threads);

/* out (n, k) in bf16 = values * scales of a GPT_INT8 or GPT_INT4 matrix */
void gpt_dequantise(const gpt_matrix *matrix, uint16_t *out, int threads);

/* weight (n, k) in bf16 -> the values and scales of `matrix`, whose memory is given */
void gpt_quantise(const uint16_t *weight, const gpt_matrix *matrix, int threads);

/* With `yes`, plain C does what special instructions would do: so tests reach it on any machine. */
void gpt_use_plain(int yes);

/* "avx512-vnni-bf16", "avx512-vnni", "generic": which kernels this machine runs */
const char *gpt_instructions(void);
/* cffi: end */

enum { GROUP_8 = 128, GROUP_4 = 32, MAX_ROWS = 32, MAX_HEAD_DIM = 256, MAX_SHARED = 16 };

/* A row of activations as the dot products want it, in the form that the matrix's kind asks for. */
typedef struct {
    const uint16_t *bf16; /* GPT_BF16: (k) as it is */
    /* GPT_INT8: 16-bit integers with one unit for the row */
    const int16_t *i16; /* (stride), zero from k on */
    float unit;         /* value of one in i16 */
    /* GPT_INT4: 8-bit integers with a unit for each group of 32 */
    const int8_t *i8;      /* (stride), zero from k on */
    const int32_t *offset; /* (stride / 4): -8 times the sum of four in i8 */
    const float *units;    /* (stride / 32) */
} gpt_vector;

static inline float from_bf16(uint16_t value) {
    union { uint32_t bits; float number; } u = {(uint32_t)value << 16};
    return u.number;
}

/* To the nearest, ties to even; NaN stays NaN. */
static inline uint16_t to_bf16(float value) {
    union { float number; uint32_t bits; } u = {value};
    uint32_t rounded = (u.bits + 0x7fff + ((u.bits >> 16) & 1)) >> 16;
    uint32_t nan = (u.bits >> 16) | 0x40;
    return (uint16_t)((u.bits & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

static inline float rounded(float value) { return from_bf16(to_bf16(value)); }

/* e^x to 2e-7, for what f32 can hold, without a branch: the polynomial of Cephes. */
static inline float exp_f32(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = rintf(x * 1.44269504f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    union { int32_t bits; float number; } power = {((int32_t)n + 127) << 23};
    return p * power.number;
}

/* Where an output's weights begin, and their scales. */
static inline const void *gpt_row_of(const gpt_matrix *matrix, int output) {
    size_t at = (size_t)output * matrix->stride;
    if (matrix->kind == GPT_BF16) return (const uint16_t *)matrix->values + at;
    return (const char *)matrix->values + (matrix->kind == GPT_INT8 ? at : at / 2);
}

static inline const uint16_t *gpt_scales_of(const gpt_matrix *matrix, int output) {
    int group = matrix->kind == GPT_INT8 ? GROUP_8 : GROUP_4;
    return matrix->scales + (size_t)output * (matrix->stride / group);
}

#define INLINE static inline __attribute__((always_inline))

/* Loops of a constant length, unrolled so that arrays become registers. */
#define EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < n; i++)

/* Compiled for several processors where the compiler can do that; chosen when loaded. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

/* linear.c: whether the instructions of AVX-512 with VNNI may be used; never on other machines */
int gpt_has_vnni(void);

/* rows.c */
void gpt_norm_row(const uint16_t *x, const uint16_t *norm, float eps, int width, uint16_t *out);
void gpt_rotate_head(const uint16_t *restrict x, const uint16_t *restrict cosines,
                     const uint16_t *restrict sines, int width, uint16_t *restrict out);
/* out = bf16(silu(gate)) * bf16(up), both given in f32 that gets rounded first */
void gpt_gated(const float *gate, const float *up, int count, uint16_t *out);

/* Outputs first .. first + count of `matrix` for the vectors, of all but gpt_dot MAX_ROWS at most;
 * out[t * out_stride + i] for output first + i. */
typedef void gpt_dots(const gpt_matrix *matrix, int first, int count, const gpt_vector *x,
                      int rows, float *out, int out_stride);
/* linear.c: by what this machine has, and with the bias */
gpt_dots gpt_dot;
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define GPT_AVX512 1
/* avx512.c: where gpt_has_vnni(), and AVX-512's bf16 for the first */
gpt_dots gpt_bf16_avx512, gpt_int8_avx512, gpt_int4_avx512;
#endif
/* vectors.c: `row` for `matrix`, in memory of gpt_vector_bytes(matrix) for each row. */
size_t gpt_vector_bytes(const gpt_matrix *matrix);
gpt_vector gpt_vector_of(const uint16_t *row, const gpt_matrix *matrix, void *memory);

/* attention.c: one context's tokens first .. last for the query heads of one kv head */
typedef struct { float max, sum; } gpt_softmax;
void gpt_attend(const gpt_shape *shape, const uint16_t *keys, const uint16_t *values, int first,
                int last, const float *queries, float *scores, float *mixed, gpt_softmax *state);
void gpt_merge(const gpt_shape *shape, const float *mixed, const gpt_softmax *state, int parts,
               uint16_t *out);

#endif
