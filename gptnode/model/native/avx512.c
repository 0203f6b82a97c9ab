/* The dot products of linear.c with the instructions of AVX-512.
 *
 * One row is as fast as memory: each weight is read once, output by output. Several rows are as
 * fast as the sums: a tile of outputs and rows has its sums in registers, and tiles follow each other
 * so that what they share stays in the first cache, while the next weights are on their way. The sum
 * of one output and one row runs in the same order whatever their numbers are. */
#include "kernels.h"

#ifdef GPT_AVX512
#include <immintrin.h>

enum {
    TILE_OUTPUTS = 3, /* at most */
    TILE_ROWS = 4,
    TILES_ROWS = MAX_ROWS / TILE_ROWS,
    /* How far ahead of one row's sums: past one DRAM latency at a core's bandwidth. */
    AHEAD_BYTES = 4096,
};

/* Which inputs, and which weights to ask for meanwhile: `ahead` bytes on from where the sums are,
 * in each `passes`th piece of two cache lines, from piece `pass` on. */
typedef struct {
    int from, to, pass, passes;
    ptrdiff_t ahead;
} slice;

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx512bf16")))
/* Keeps a vector in a register, where the compiler would read it again for each output. */
#define IN_REGISTER(vector) __asm__("" : "+v"(vector))

/* The sums of one output and one row: two in turn, as an addition takes longer than reading what it
 * adds; int8 needs one. */
typedef struct {
    __m512 half[2];
} lanes;

VNNI INLINE void ask_for(const void *weights, ptrdiff_t ahead) {
    _mm_prefetch((const char *)weights + ahead, _MM_HINT_T0);
}

/* sum[r][t] += what `in` has of output + r for x[t] */
BF16 INLINE void bf16_tile(const gpt_matrix *matrix, int output, const int outputs,
                           const gpt_vector *x, const int rows, slice in, lanes sum[][TILE_ROWS]) {
    const uint16_t *w = gpt_row_of(matrix, output);
    __m512 s[TILE_OUTPUTS][TILE_ROWS][2];
    EACH(r, outputs)
        EACH(t, rows)
            EACH(half, 2) s[r][t][half] = sum[r][t].half[half];
    int ask_at = in.from + 64 * in.pass;
    for (int i = in.from; i < in.to; i += 64) {
        int ask = i == ask_at;
        ask_at += ask ? 64 * in.passes : 0;
        EACH(half, 2) {
            int at = i + 32 * half, left = matrix->k - at;
            __mmask32 within = left >= 32 ? ~0u : left > 0 ? (1u << left) - 1 : 0;
            __m512bh of_row[TILE_OUTPUTS];
            EACH(r, outputs) {
                const uint16_t *from = w + (size_t)r * matrix->stride + at;
                of_row[r] = (__m512bh)_mm512_maskz_loadu_epi16(within, from);
                if (ask) ask_for(from, in.ahead);
            }
            EACH(t, rows) {
                __m512i v = _mm512_maskz_loadu_epi16(within, x[t].bf16 + at);
                IN_REGISTER(v);
                EACH(r, outputs)
                    s[r][t][half] = _mm512_dpbf16_ps(s[r][t][half], of_row[r], (__m512bh)v);
            }
        }
    }
    EACH(r, outputs)
        EACH(t, rows)
            EACH(half, 2) sum[r][t].half[half] = s[r][t][half];
}

VNNI INLINE void int8_tile(const gpt_matrix *matrix, int output, const int outputs,
                           const gpt_vector *x, const int rows, slice in, lanes sum[][TILE_ROWS]) {
    const int8_t *w = gpt_row_of(matrix, output);
    const uint16_t *scales = gpt_scales_of(matrix, output);
    int groups = matrix->stride / GROUP_8;
    __m512 s[TILE_OUTPUTS][TILE_ROWS];
    EACH(r, outputs)
        EACH(t, rows) s[r][t] = sum[r][t].half[0];
    int ask_at = in.from + GROUP_8 * in.pass;
    for (int i = in.from; i < in.to; i += GROUP_8) {
        int ask = i == ask_at;
        ask_at += ask ? GROUP_8 * in.passes : 0;
        __m512i dot[TILE_OUTPUTS][TILE_ROWS];
        EACH(r, outputs)
            EACH(t, rows) dot[r][t] = _mm512_setzero_si512();
        EACH(quarter, 4) {
            int at = i + 32 * quarter;
            __m512i wide[TILE_OUTPUTS];
            EACH(r, outputs) {
                const int8_t *from = w + (size_t)r * matrix->stride + at;
                wide[r] = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)from));
                if (ask && quarter % 2 == 0) ask_for(from, in.ahead);
            }
            EACH(t, rows) {
                __m512i v = _mm512_loadu_si512(x[t].i16 + at);
                IN_REGISTER(v);
                EACH(r, outputs) dot[r][t] = _mm512_dpwssd_epi32(dot[r][t], wide[r], v);
            }
        }
        EACH(r, outputs) {
            float scale = from_bf16(scales[(size_t)r * groups + i / GROUP_8]);
            EACH(t, rows)
                s[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][t]), _mm512_set1_ps(scale),
                                          s[r][t]);
        }
    }
    EACH(r, outputs)
        EACH(t, rows) sum[r][t].half[0] = s[r][t];
}

/* 64 weights of a vector are two groups: lanes 0-7 have the one's scale, 8-15 the other's. */
VNNI INLINE void int4_tile(const gpt_matrix *matrix, int output, const int outputs,
                           const gpt_vector *x, const int rows, slice in, lanes sum[][TILE_ROWS]) {
    const char *w = gpt_row_of(matrix, output);
    const uint16_t *scales = gpt_scales_of(matrix, output);
    int groups = matrix->stride / GROUP_4;
    __m512i nibble = _mm512_set1_epi8(15);
    __m512i pair[2] = {_mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0),
                       _mm512_set_epi32(3, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2)};
    __m512 s[TILE_OUTPUTS][TILE_ROWS][2];
    EACH(r, outputs)
        EACH(t, rows)
            EACH(half, 2) s[r][t][half] = sum[r][t].half[half];
    int ask_at = in.from + 128 * in.pass;
    for (int i = in.from; i < in.to; i += 128) {
        int ask = i == ask_at;
        ask_at += ask ? 128 * in.passes : 0;
        __m128 of_groups[TILE_OUTPUTS];
        __m512i weights[TILE_OUTPUTS][2];
        EACH(r, outputs) {
            const char *at = w + ((size_t)r * matrix->stride + i) / 2;
            const void *four = scales + (size_t)r * groups + i / GROUP_4;
            of_groups[r] = _mm_castsi128_ps(
                _mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64(four)), 16));
            __m512i bytes = _mm512_loadu_si512(at);
            weights[r][0] = _mm512_and_si512(bytes, nibble);
            weights[r][1] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), nibble);
            if (ask) {
                ask_for(at, in.ahead);
                if (i % 1024 == 0) ask_for(four, in.ahead / 8);
            }
        }
        EACH(t, rows) {
            __m128 units = _mm_loadu_ps(x[t].units + i / GROUP_4);
            EACH(half, 2) {
                __m512i offset = _mm512_loadu_si512(x[t].offset + i / 4 + 16 * half);
                __m512i v = _mm512_loadu_si512(x[t].i8 + i + 64 * half);
                IN_REGISTER(offset);
                IN_REGISTER(v);
                EACH(r, outputs) {
                    __m512i dot = _mm512_dpbusd_epi32(offset, weights[r][half], v);
                    __m512 scale = _mm512_castps128_ps512(_mm_mul_ps(of_groups[r], units));
                    __m512 of_lanes = _mm512_permutexvar_ps(pair[half], scale);
                    s[r][t][half] =
                        _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), of_lanes, s[r][t][half]);
                }
            }
        }
    }
    EACH(r, outputs)
        EACH(t, rows)
            EACH(half, 2) sum[r][t].half[half] = s[r][t][half];
}

/* The totals of four sums' lanes, each in the order of _mm512_reduce_add_ps. */
VNNI INLINE __m128 totals(__m512 a, __m512 b, __m512 c, __m512 d) {
    __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    __m512 all = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88),
                               _mm512_shuffle_f32x4(ab, cd, 0xdd));
    all = _mm512_add_ps(all, _mm512_permute_ps(all, 0x4e));
    all = _mm512_add_ps(all, _mm512_permute_ps(all, 0xb1));
    __m512i firsts = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, all));
}

/* The halves' sum; int8 has but one, and a zero must not change its sign. */
VNNI INLINE __m512 both(const gpt_matrix *matrix, lanes sum) {
    return matrix->kind == GPT_INT8 ? sum.half[0] : _mm512_add_ps(sum.half[0], sum.half[1]);
}

VNNI INLINE float unit_of(const gpt_matrix *matrix, const gpt_vector *x) {
    return matrix->kind == GPT_INT8 ? x->unit : 1.0f;
}

/* Constant numbers of outputs and rows keep the sums in registers. BLOCK outputs and ELEMENTS of each
 * are what stays in the first cache beside four rows: rows a multiple of 4 KB apart have but its 12
 * ways. For one row, outputs are taken one by one: a matrix is then one stream, which is what memory
 * is fastest at. */
#define DOTS(NAME, TARGET, TILE, OUTPUTS, BLOCK, ELEMENTS)                                        \
    TARGET INLINE void NAME##_rows(const gpt_matrix *m, int output, const int outputs,            \
                                   const gpt_vector *x, int rows, slice in,                       \
                                   lanes sum[][TILE_ROWS]) {                                      \
        if (rows == 1) TILE(m, output, outputs, x, 1, in, sum);                                   \
        else if (rows == 2) TILE(m, output, outputs, x, 2, in, sum);                              \
        else if (rows == 3) TILE(m, output, outputs, x, 3, in, sum);                              \
        else TILE(m, output, outputs, x, 4, in, sum);                                             \
    }                                                                                             \
    TARGET static void NAME##_block(const gpt_matrix *m, int first, int count,                    \
                                    const gpt_vector *x, int rows, float *out, int out_stride) {  \
        static const lanes none;                                                                  \
        lanes sum[TILES_ROWS][BLOCK][TILE_ROWS];                                                  \
        int tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;                                           \
        ptrdiff_t ahead = (const char *)gpt_row_of(m, first + BLOCK) -                            \
                          (const char *)gpt_row_of(m, first);                                     \
        for (int tile = 0; tile < tiles; tile++)                                                  \
            for (int i = 0; i < count; i++)                                                       \
                EACH(t, TILE_ROWS) sum[tile][i][t] = none;                                        \
        for (int from = 0; from < m->stride; from += ELEMENTS)                                    \
            for (int tile = 0; tile < tiles; tile++) {                                            \
                int to = from + ELEMENTS < m->stride ? from + ELEMENTS : m->stride;               \
                int t = tile * TILE_ROWS, left = rows - t, i = 0;                                 \
                slice in = {from, to, tile, tiles, ahead};                                        \
                for (; i + OUTPUTS <= count; i += OUTPUTS)                                        \
                    NAME##_rows(m, first + i, OUTPUTS, x + t, left, in, sum[tile] + i);           \
                for (; i < count; i++)                                                            \
                    NAME##_rows(m, first + i, 1, x + t, left, in, sum[tile] + i);                 \
            }                                                                                     \
        for (int tile = 0; tile < tiles; tile++)                                                  \
            for (int i = 0; i < count; i++) {                                                     \
                const lanes *of = sum[tile][i];                                                   \
                float total[TILE_ROWS];                                                           \
                _mm_storeu_ps(total, totals(both(m, of[0]), both(m, of[1]), both(m, of[2]),       \
                                            both(m, of[3])));                                     \
                for (int t = tile * TILE_ROWS, u = 0; u < TILE_ROWS && t < rows; t++, u++)        \
                    out[(size_t)t * out_stride + i] = total[u] * unit_of(m, x + t);               \
            }                                                                                     \
    }                                                                                             \
    TARGET void NAME(const gpt_matrix *m, int first, int count, const gpt_vector *x, int rows,    \
                     float *out, int out_stride) {                                                \
        for (int i = 0; rows > 1 && i < count; i += BLOCK) {                                      \
            int some = count - i < BLOCK ? count - i : BLOCK;                                     \
            NAME##_block(m, first + i, some, x, rows, out + i, out_stride);                       \
        }                                                                                         \
        slice all = {0, m->stride, 0, 1, AHEAD_BYTES};                                            \
        for (int i = 0; rows == 1 && i < count; i++) {                                            \
            lanes sum[1][TILE_ROWS] = {{{{_mm512_setzero_ps(), _mm512_setzero_ps()}}}};           \
            TILE(m, first + i, 1, x, 1, all, sum);                                                \
            out[i] = _mm512_reduce_add_ps(both(m, sum[0][0])) * unit_of(m, x);                    \
        }                                                                                         \
    }
DOTS(gpt_bf16_avx512, BF16, bf16_tile, 3, 6, 2048)
DOTS(gpt_int8_avx512, VNNI, int8_tile, 3, 12, 2048)
DOTS(gpt_int4_avx512, VNNI, int4_tile, 2, 12, 4096)

#endif
