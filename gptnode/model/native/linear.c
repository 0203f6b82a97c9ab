/* Dot products of weight rows with a few activation rows, in plain C and for AVX-512.
 *
 * Quantised weights meet activations that are integers, too, so that products and sums within a
 * group are exact: 16 bits and one unit a row beside 8-bit weights, where a channel of 60 times the
 * others' magnitude leaves them 9 bits; 8 bits and a unit for each group of 32 beside 4-bit ones,
 * whose own error is ten times as large. */
#include "kernels.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define GPT_X86 1
#include <immintrin.h>
#endif
/* How far ahead of the sums weights are asked for: past one DRAM latency at a core's bandwidth. */
enum { AHEAD_BYTES = 4096 };

/* Outputs first .. first + count for up to MAX_TILE_ROWS vectors. */
typedef void dot_tile(const gpt_matrix *matrix, int first, int count, const gpt_vector *x, int rows,
                      float *out, int out_stride);

static int plain_only = 0;

void gpt_use_plain(int yes) { plain_only = yes; }

static const void *row_of(const gpt_matrix *matrix, int output) {
    size_t at = (size_t)output * matrix->stride;
    if (matrix->kind == GPT_BF16) return (const uint16_t *)matrix->values + at;
    return (const char *)matrix->values + (matrix->kind == GPT_INT8 ? at : at / 2);
}

static const uint16_t *scales_of(const gpt_matrix *matrix, int output) {
    int group = matrix->kind == GPT_INT8 ? GROUP_8 : GROUP_4;
    return matrix->scales + (size_t)output * (matrix->stride / group);
}

/* ---- plain C ---- */

CLONES static void bf16_row(const gpt_matrix *matrix, int output, const gpt_vector *x, int rows,
                            float *out, int out_stride) {
    const uint16_t *w = row_of(matrix, output);
    for (int t = 0; t < rows; t++) {
        const uint16_t *v = x[t].bf16;
        float lane[16] = {0}, sum = 0;
        int i = 0;
        for (; i + 16 <= matrix->k; i += 16)
            for (int j = 0; j < 16; j++) lane[j] += from_bf16(w[i + j]) * from_bf16(v[i + j]);
        for (; i < matrix->k; i++) sum += from_bf16(w[i]) * from_bf16(v[i]);
        for (int j = 0; j < 16; j++) sum += lane[j];
        out[(size_t)t * out_stride] = sum;
    }
}

CLONES static void int8_row(const gpt_matrix *matrix, int output, const gpt_vector *x, int rows,
                            float *out, int out_stride) {
    const int8_t *w = row_of(matrix, output);
    const uint16_t *scales = scales_of(matrix, output);
    for (int t = 0; t < rows; t++) {
        float sum = 0;
        for (int i = 0; i < matrix->stride; i += GROUP_8) {
            int32_t dot = 0;
            for (int j = 0; j < GROUP_8; j++) dot += w[i + j] * x[t].i16[i + j];
            sum += from_bf16(scales[i / GROUP_8]) * (float)dot;
        }
        out[(size_t)t * out_stride] = sum * x[t].unit;
    }
}

CLONES static void int4_row(const gpt_matrix *matrix, int output, const gpt_vector *x, int rows,
                            float *out, int out_stride) {
    const uint8_t *w = row_of(matrix, output);
    const uint16_t *scales = scales_of(matrix, output);
    for (int t = 0; t < rows; t++) {
        float sum = 0;
        for (int i = 0; i < matrix->stride; i += GROUP_4) {
            const uint8_t *bytes = w + i / 128 * 64 + i % 64;
            int shift = i % 128 / 64 * 4;
            int32_t dot = 0;
            for (int j = 0; j < GROUP_4; j++)
                dot += ((bytes[j] >> shift & 15) - 8) * x[t].i8[i + j];
            sum += from_bf16(scales[i / GROUP_4]) * x[t].units[i / GROUP_4] * (float)dot;
        }
        out[(size_t)t * out_stride] = sum;
    }
}

#define ALL_OUTPUTS(NAME, ROW)                                                                    \
    static void NAME(const gpt_matrix *m, int first, int count, const gpt_vector *x, int rows,    \
                     float *out, int out_stride) {                                                \
        for (int i = 0; i < count; i++) ROW(m, first + i, x, rows, out + i, out_stride);          \
    }
ALL_OUTPUTS(bf16_plain, bf16_row)
ALL_OUTPUTS(int8_plain, int8_row)
ALL_OUTPUTS(int4_plain, int4_row)

/* ---- AVX-512 ---- */
#ifdef GPT_X86

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")))

/* `outputs` outputs for `rows` vectors, all sums in registers. The sum of one output and one vector
 * runs in the same order whatever their numbers are. */
BF16 INLINE void bf16_tile(const gpt_matrix *matrix, int output, const int outputs,
                           const gpt_vector *x, const int rows, float *out, int out_stride) {
    const uint16_t *w = row_of(matrix, output);
    /* Two sums for each product, as an addition takes longer than reading what it adds. */
    __m512 sum[2][2][MAX_TILE_ROWS];
    EACH(r, outputs)
        EACH(t, rows) sum[0][r][t] = sum[1][r][t] = _mm512_setzero_ps();
    for (int i = 0; i < matrix->k; i += 64)
        EACH(half, 2) {
            int at = i + 32 * half, left = matrix->k - at;
            __mmask32 in = left >= 32 ? ~0u : left > 0 ? (1u << left) - 1 : 0;
            __m512bh v[MAX_TILE_ROWS];
            EACH(t, rows) v[t] = (__m512bh)_mm512_maskz_loadu_epi16(in, x[t].bf16 + at);
            EACH(r, outputs) {
                const uint16_t *from = w + (size_t)r * matrix->stride + at;
                __m512bh of_row = (__m512bh)_mm512_maskz_loadu_epi16(in, from);
                _mm_prefetch((const char *)from + AHEAD_BYTES, _MM_HINT_T0);
                EACH(t, rows) sum[half][r][t] = _mm512_dpbf16_ps(sum[half][r][t], of_row, v[t]);
            }
        }
    EACH(r, outputs)
        EACH(t, rows)
            out[(size_t)t * out_stride + r] =
                _mm512_reduce_add_ps(_mm512_add_ps(sum[0][r][t], sum[1][r][t]));
}

VNNI INLINE void int8_tile(const gpt_matrix *matrix, int output, const int outputs,
                           const gpt_vector *x, const int rows, float *out, int out_stride) {
    const int8_t *w = row_of(matrix, output);
    const uint16_t *scales = scales_of(matrix, output);
    int groups = matrix->stride / GROUP_8;
    __m512 sum[2][MAX_TILE_ROWS];
    EACH(r, outputs)
        EACH(t, rows) sum[r][t] = _mm512_setzero_ps();
    for (int g = 0; g < groups; g++) {
        __m512i dot[2][MAX_TILE_ROWS];
        EACH(r, outputs)
            EACH(t, rows) dot[r][t] = _mm512_setzero_si512();
        EACH(quarter, 4) {
            int i = g * GROUP_8 + 32 * quarter;
            __m512i v[MAX_TILE_ROWS];
            EACH(t, rows) v[t] = _mm512_loadu_si512(x[t].i16 + i);
            EACH(r, outputs) {
                const int8_t *at = w + (size_t)r * matrix->stride + i;
                __m512i wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)at));
                if (i % 64 == 0) _mm_prefetch((const char *)at + AHEAD_BYTES, _MM_HINT_T0);
                EACH(t, rows)
                    dot[r][t] = _mm512_dpwssd_epi32(dot[r][t], wide, v[t]);
            }
        }
        EACH(r, outputs) {
            __m512 scale = _mm512_set1_ps(from_bf16(scales[(size_t)r * groups + g]));
            EACH(t, rows)
                sum[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][t]), scale, sum[r][t]);
        }
    }
    EACH(r, outputs)
        EACH(t, rows)
            out[(size_t)t * out_stride + r] = _mm512_reduce_add_ps(sum[r][t]) * x[t].unit;
}

/* 64 weights of a vector are two groups: lanes 0-7 have the one's scale, 8-15 the other's. */
VNNI INLINE void int4_tile(const gpt_matrix *matrix, int output, const int outputs,
                           const gpt_vector *x, const int rows, float *out, int out_stride) {
    const char *w = row_of(matrix, output);
    const uint16_t *scales = scales_of(matrix, output);
    int groups = matrix->stride / GROUP_4;
    __m512i nibble = _mm512_set1_epi8(15);
    __m512i pair = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    __m512 sum[2][2][MAX_TILE_ROWS];
    EACH(r, outputs)
        EACH(t, rows) sum[0][r][t] = sum[1][r][t] = _mm512_setzero_ps();
    for (int i = 0; i < matrix->stride; i += 128) {
        __m128 units[MAX_TILE_ROWS];
        EACH(t, rows) units[t] = _mm_loadu_ps(x[t].units + i / GROUP_4);
        EACH(r, outputs) {
            const char *at = w + ((size_t)r * matrix->stride + i) / 2;
            const void *four = scales + (size_t)r * groups + i / GROUP_4;
            __m128i bits = _mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64(four)), 16);
            __m512i bytes = _mm512_loadu_si512(at);
            _mm_prefetch(at + AHEAD_BYTES, _MM_HINT_T0);
            if (i % 1024 == 0) _mm_prefetch((const char *)four + AHEAD_BYTES / 8, _MM_HINT_T0);
            __m512i half[2] = {_mm512_and_si512(bytes, nibble),
                               _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble)};
            EACH(t, rows) {
                __m512 scale =
                    _mm512_castps128_ps512(_mm_mul_ps(_mm_castsi128_ps(bits), units[t]));
                EACH(h, 2) {
                    __m512i dot = _mm512_loadu_si512(x[t].offset + i / 4 + 16 * h);
                    __m512i v = _mm512_loadu_si512(x[t].i8 + i + 64 * h);
                    dot = _mm512_dpbusd_epi32(dot, half[h], v);
                    __m512i lanes = _mm512_add_epi32(pair, _mm512_set1_epi32(2 * h));
                    __m512 of_lanes = _mm512_permutexvar_ps(lanes, scale);
                    __m512 wide = _mm512_cvtepi32_ps(dot);
                    sum[h][r][t] = _mm512_fmadd_ps(wide, of_lanes, sum[h][r][t]);
                }
            }
        }
    }
    EACH(r, outputs)
        EACH(t, rows)
            out[(size_t)t * out_stride + r] =
                _mm512_reduce_add_ps(_mm512_add_ps(sum[0][r][t], sum[1][r][t]));
}

/* Constant numbers of outputs and rows keep the sums in registers. For one row, outputs are taken
 * one by one: a matrix is then one stream, which is what memory is fastest at. */
#define TILES(NAME, TARGET, TILE, OUTPUTS)                                                        \
    TARGET static void NAME(const gpt_matrix *m, int first, int count, const gpt_vector *x,       \
                            int rows, float *out, int out_stride) {                               \
        int i = 0;                                                                                \
        for (; rows > 1 && i + OUTPUTS <= count; i += OUTPUTS) {                                  \
            if (rows == 2) TILE(m, first + i, OUTPUTS, x, 2, out + i, out_stride);                \
            else if (rows == 3) TILE(m, first + i, OUTPUTS, x, 3, out + i, out_stride);           \
            else TILE(m, first + i, OUTPUTS, x, 4, out + i, out_stride);                          \
        }                                                                                         \
        for (; i < count; i++)                                                                    \
            for (int t = 0; t < rows; t++)                                                        \
                TILE(m, first + i, 1, x + t, 1, out + (size_t)t * out_stride + i, out_stride);    \
    }
TILES(bf16_avx512, BF16, bf16_tile, 2)
TILES(int8_avx512, VNNI, int8_tile, 2)
TILES(int4_avx512, VNNI, int4_tile, 2)

int gpt_has_vnni(void) {
    return !plain_only && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

static int has_bf16(void) { return gpt_has_vnni() && __builtin_cpu_supports("avx512bf16"); }

static dot_tile *kernel_for(int kind) {
    if (kind == GPT_BF16) return has_bf16() ? bf16_avx512 : bf16_plain;
    if (kind == GPT_INT8) return gpt_has_vnni() ? int8_avx512 : int8_plain;
    return gpt_has_vnni() ? int4_avx512 : int4_plain;
}

const char *gpt_instructions(void) {
    return has_bf16() ? "avx512-vnni-bf16" : gpt_has_vnni() ? "avx512-vnni" : "generic";
}

#else

static dot_tile *kernel_for(int kind) {
    return kind == GPT_BF16 ? bf16_plain : kind == GPT_INT8 ? int8_plain : int4_plain;
}

const char *gpt_instructions(void) { return "generic"; }

int gpt_has_vnni(void) { return 0; }

#endif

/* ---- what step.c uses ---- */

void gpt_dot(const gpt_matrix *matrix, int first, int count, const gpt_vector *x, int rows,
             float *out, int out_stride) {
    dot_tile *dot = kernel_for(matrix->kind);
    for (int t = 0; t < rows; t += MAX_TILE_ROWS) {
        int tile = rows - t < MAX_TILE_ROWS ? rows - t : MAX_TILE_ROWS;
        dot(matrix, first, count, x + t, tile, out + (size_t)t * out_stride, out_stride);
    }
    for (int t = 0; matrix->bias && t < rows; t++)
        for (int i = 0; i < count; i++)
            out[(size_t)t * out_stride + i] += from_bf16(matrix->bias[first + i]);
}
