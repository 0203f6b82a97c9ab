/* To 8 and 4 bits and back; the formats are those of gptnode.model.quantised. */
#include "kernels.h"

/* 128 weights of a row, in the order of the row. */
static inline void run_of(const gpt_matrix *matrix, size_t at, float *wide) {
    if (matrix->kind == GPT_INT8) {
        const int8_t *values = (const int8_t *)matrix->values + at;
        float scale = from_bf16(matrix->scales[at / GROUP_8]);
        for (int j = 0; j < 128; j++) wide[j] = values[j] * scale;
        return;
    }
    const uint8_t *bytes = (const uint8_t *)matrix->values + at / 2;
    int8_t q[128];
    for (int j = 0; j < 64; j++) q[j] = (int8_t)((bytes[j] & 15) - 8);
    for (int j = 0; j < 64; j++) q[64 + j] = (int8_t)((bytes[j] >> 4) - 8);
    for (int g = 0; g < 4; g++) {
        float scale = from_bf16(matrix->scales[at / GROUP_4 + g]);
        for (int j = 0; j < GROUP_4; j++) wide[32 * g + j] = q[32 * g + j] * scale;
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

/* A group has 16 different weights: they are made once and looked up. */
__attribute__((target("avx512f,avx512bw,avx512vl"))) static void
int4_row_avx512(const gpt_matrix *matrix, size_t at, int runs, uint16_t *out) {
    const uint8_t *bytes = (const uint8_t *)matrix->values + at / 2;
    const uint16_t *scales = matrix->scales + at / GROUP_4;
    const __m512 integers =
        _mm512_set_ps(7, 6, 5, 4, 3, 2, 1, 0, -1, -2, -3, -4, -5, -6, -7, -8);
    const __m512i one = _mm512_set1_epi32(1), nearly_half = _mm512_set1_epi32(0x7fff);
    for (int run = 0; run < runs; run++, bytes += 64)
        EACH(group, 4) {
            __m512 weights = _mm512_mul_ps(integers, _mm512_set1_ps(from_bf16(*scales++)));
            __m512i bits = _mm512_castps_si512(weights); /* to the nearest bf16, ties to even */
            __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
            bits = _mm512_add_epi32(bits, _mm512_add_epi32(nearly_half, odd));
            __m256i sixteen = _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16));
            __m512i table = _mm512_broadcast_i64x4(sixteen);
            __m256i two = _mm256_loadu_si256((const void *)(bytes + group % 2 * 32));
            if (group >= 2) two = _mm256_srli_epi16(two, 4);
            two = _mm256_and_si256(two, _mm256_set1_epi8(15));
            __m512i found = _mm512_permutexvar_epi16(_mm512_cvtepu8_epi16(two), table);
            _mm512_storeu_si512(out, found);
            out += GROUP_4;
        }
}
#else
static void int4_row_avx512(const gpt_matrix *matrix, size_t at, int runs, uint16_t *out) {
    (void)matrix, (void)at, (void)runs, (void)out;
}
#endif

CLONES static void dequantise_row(const gpt_matrix *matrix, int row, uint16_t *out) {
    size_t at = (size_t)row * matrix->stride;
    int i = 0;
    if (matrix->kind == GPT_INT4 && gpt_has_vnni()) {
        i = matrix->k / 128 * 128;
        int4_row_avx512(matrix, at, i / 128, out);
    }
    for (; i + 128 <= matrix->k; i += 128) {
        float wide[128];
        run_of(matrix, at + i, wide);
        for (int j = 0; j < 128; j++) out[i + j] = to_bf16(wide[j]);
    }
    if (i < matrix->k) {
        float wide[128];
        run_of(matrix, at + i, wide);
        for (int j = 0; i + j < matrix->k; j++) out[i + j] = to_bf16(wide[j]);
    }
}

void gpt_dequantise(const gpt_matrix *matrix, uint16_t *out, int threads) {
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int row = 0; row < matrix->n; row++)
        dequantise_row(matrix, row, out + (size_t)row * matrix->k);
}

/* f32 to what bf16 holds, away from zero: so no integer leaves its range. */
static inline float away_from_zero(float number) {
    union { float number; uint32_t bits; } u = {number};
    u.bits = (u.bits + 0xffff) & 0xffff0000u;
    return u.number;
}

static inline uint16_t bits_of(float bf16) {
    union { float number; uint32_t bits; } u = {bf16};
    return u.bits << 1 ? (uint16_t)(u.bits >> 16) : 0; /* one zero for all groups of zeros */
}

/* One group: its scale as the reference has it, and its integers. */
INLINE uint16_t round_group(const float *wide, const int count, const int bits, int8_t *out) {
    const float top = bits == 8 ? 127 : 7, bottom = bits == 8 ? -127 : -8;
    float least = 0, most = 0;
    uint32_t size = 0; /* the largest magnitude as bits: those of Inf and NaN are the highest */
    for (int j = 0; j < count; j++) least = wide[j] < least ? wide[j] : least;
    for (int j = 0; j < count; j++) most = wide[j] > most ? wide[j] : most;
    for (int j = 0; j < count; j++) {
        union { float number; uint32_t bits; } u = {wide[j]};
        size = (u.bits & 0x7fffffff) > size ? u.bits & 0x7fffffff : size;
    }
    float largest = most > -least ? most : least;
    float scale = bits == 8 ? fabsf(largest) / 127 : largest / -8;
    scale = size < 0x7f800000 ? away_from_zero(scale) : NAN;
    float divisor = scale == 0 ? 1.0f : scale;
    for (int j = 0; j < count; j++) {
        float q = rintf(wide[j] / divisor);
        q = q < bottom ? bottom : q > top ? top : q;
        out[j] = (int8_t)(int32_t)q;
    }
    return bits_of(scale);
}

CLONES static void quantise_row(const uint16_t *weight, const gpt_matrix *matrix, int row) {
    size_t at = (size_t)row * matrix->stride;
    int group = matrix->kind == GPT_INT8 ? GROUP_8 : GROUP_4;
    uint16_t *scales = (uint16_t *)matrix->scales + at / group;
    weight += (size_t)row * matrix->k;
    for (int i = 0; i < matrix->stride; i += 128) {
        float wide[128];
        int count = matrix->k - i < 128 ? matrix->k - i : 128;
        for (int j = 0; j < count; j++) wide[j] = from_bf16(weight[i + j]);
        for (int j = count; j < 128; j++) wide[j] = 0;
        if (matrix->kind == GPT_INT8) {
            int8_t *values = (int8_t *)matrix->values + at + i;
            scales[i / GROUP_8] = round_group(wide, GROUP_8, 8, values);
            continue;
        }
        int8_t q[128];
        for (int g = 0; g < 128; g += GROUP_4)
            scales[(i + g) / GROUP_4] = round_group(wide + g, GROUP_4, 4, q + g);
        uint8_t *bytes = (uint8_t *)matrix->values + (at + i) / 2;
        for (int j = 0; j < 64; j++) bytes[j] = (uint8_t)((q[j] + 8) | (q[64 + j] + 8) << 4);
    }
}

void gpt_quantise(const uint16_t *weight, const gpt_matrix *matrix, int threads) {
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int row = 0; row < matrix->n; row++) quantise_row(weight, matrix, row);
}
