/* Products of 8- and 4-bit weights with a few activation rows, for AVX-512 with VNNI.
 *
 * An output, all of its inputs, and up to four rows at a time; what the instructions add up in
 * integers is scaled group by group and kept in sixteen lanes to the end. The sum of an output and
 * a row runs in the same order whatever is computed beside it. */
#include "kernels.h"

#ifdef GPT_X86
#include <immintrin.h>

enum {
    OUTPUTS = 2,
    ROWS = 4,
    GROUPS = DEPTH / GROUP_4,
    AHEAD_BYTES = 4096, /* past one DRAM latency at a core's bandwidth */
};

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

/* `outputs` outputs from `output` on for `rows` rows from `t0` on, all sums in registers. */
VNNI INLINE void int8_tile(const gpt_matrix *matrix, int output, const int outputs,
                           const gpt_vectors *x, int t0, const int rows, float *out,
                           size_t out_stride) {
    size_t stride = matrix->stride, groups = stride / GROUP_8;
    const int8_t *w = (const int8_t *)matrix->values + output * stride;
    const uint16_t *scales = matrix->scales + output * groups;
    __m512 sum[OUTPUTS][ROWS];
    EACH(r, outputs)
        EACH(t, rows) sum[r][t] = _mm512_setzero_ps();
    const int16_t *v = (const int16_t *)x->values + t0 * stride;
    for (size_t g = 0; g < groups; g++, v += DEPTH) {
        __m512i dot[OUTPUTS][ROWS];
        EACH(r, outputs)
            EACH(t, rows) dot[r][t] = _mm512_setzero_si512();
        EACH(quarter, 4) {
            __m512i of_row[ROWS];
            EACH(t, rows) of_row[t] = _mm512_loadu_si512(v + t * stride + 32 * quarter);
            EACH(r, outputs) {
                const int8_t *at = w + r * stride + g * GROUP_8 + 32 * quarter;
                __m512i wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)at));
                if (quarter % 2 == 0) _mm_prefetch((const char *)at + AHEAD_BYTES, _MM_HINT_T0);
                EACH(t, rows) dot[r][t] = _mm512_dpwssd_epi32(dot[r][t], wide, of_row[t]);
            }
        }
        EACH(r, outputs) {
            __m512 scale = _mm512_set1_ps(from_bf16(scales[r * groups + g]));
            EACH(t, rows)
                sum[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][t]), scale, sum[r][t]);
        }
    }
    EACH(r, outputs)
        EACH(t, rows)
            out[(t0 + t) * out_stride + r] = _mm512_reduce_add_ps(sum[r][t]) * x->units[t0 + t];
}

/* 64 weights of a vector are two groups: lanes 0-7 have the one's scale, 8-15 the other's. */
VNNI INLINE void int4_tile(const gpt_matrix *matrix, int output, const int outputs,
                           const gpt_vectors *x, int t0, const int rows, float *out,
                           size_t out_stride) {
    size_t bytes = matrix->stride / 2, groups = matrix->stride / GROUP_4;
    const char *w = (const char *)matrix->values + output * bytes;
    const uint16_t *scales = matrix->scales + output * groups;
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i pair = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    __m512 sum[2][OUTPUTS][ROWS];
    EACH(r, outputs)
        EACH(t, rows) sum[0][r][t] = sum[1][r][t] = _mm512_setzero_ps();
    size_t row = gpt_runs_before(x, 0, t0), apart = gpt_runs_before(x, 1, t0) - row;
    for (size_t run = 0; run < bytes / 64; run++, row += apart) {
        __m128 units[ROWS];
        EACH(t, rows) units[t] = _mm_loadu_ps(x->units + (row + t) * GROUPS);
        EACH(r, outputs) {
            const char *at = w + r * bytes + 64 * run;
            const void *four = scales + r * groups + run * GROUPS;
            __m128i bits = _mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64(four)), 16);
            __m512i packed = _mm512_loadu_si512(at);
            _mm_prefetch(at + AHEAD_BYTES, _MM_HINT_T0);
            if (run % 8 == 0) _mm_prefetch((const char *)four + AHEAD_BYTES / 8, _MM_HINT_T0);
            __m512i half[2] = {_mm512_and_si512(packed, nibble),
                               _mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble)};
            EACH(t, rows) {
                const int8_t *v = (const int8_t *)x->values + (row + t) * DEPTH;
                const int32_t *offsets = x->offsets + (row + t) * (DEPTH / 4);
                __m512 scale =
                    _mm512_castps128_ps512(_mm_mul_ps(_mm_castsi128_ps(bits), units[t]));
                EACH(h, 2) {
                    __m512i dot = _mm512_loadu_si512(offsets + 16 * h);
                    dot = _mm512_dpbusd_epi32(dot, half[h], _mm512_loadu_si512(v + 64 * h));
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
            out[(t0 + t) * out_stride + r] =
                _mm512_reduce_add_ps(_mm512_add_ps(sum[0][r][t], sum[1][r][t]));
}

/* Constant numbers of outputs and rows keep the sums in registers. For one row, outputs are taken
 * one by one: a matrix is then one stream, which is what memory is fastest at. */
#define PANEL_OF(NAME, TILE)                                                                      \
    VNNI void NAME(const gpt_matrix *m, int first, int count, const gpt_vectors *x, float *out,   \
                   size_t out_stride, gpt_ahead next) {                                           \
        (void)next;                                                                               \
        for (int t = 0; t < x->rows; t += ROWS) {                                                 \
            int rows = x->rows - t, i = 0;                                                        \
            for (; rows > 1 && i + OUTPUTS <= count; i += OUTPUTS) {                              \
                if (rows == 2) TILE(m, first + i, OUTPUTS, x, t, 2, out + i, out_stride);         \
                else if (rows == 3) TILE(m, first + i, OUTPUTS, x, t, 3, out + i, out_stride);    \
                else TILE(m, first + i, OUTPUTS, x, t, 4, out + i, out_stride);                   \
            }                                                                                     \
            for (; i < count; i++)                                                                \
                for (int row = t; row < x->rows && row < t + ROWS; row++)                         \
                    TILE(m, first + i, 1, x, row, 1, out + i, out_stride);                        \
        }                                                                                         \
    }
PANEL_OF(gpt_panel_int8, int8_tile)
PANEL_OF(gpt_panel_int4, int4_tile)

#endif
