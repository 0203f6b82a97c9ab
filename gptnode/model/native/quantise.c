/* To 8 and 4 bits and back; the formats are those of gptnode.model.quantised. */
#include "kernels.h"

CLONES static void dequantise_row(const gpt_matrix *matrix, int row, uint16_t *out) {
    size_t at = (size_t)row * matrix->stride;
    int group = matrix->kind == GPT_INT8 ? GROUP_8 : GROUP_4;
    const uint16_t *scales = matrix->scales + at / group;
    for (int i = 0; i < matrix->k; i += group) {
        float scale = from_bf16(scales[i / group]), wide[GROUP_8];
        int count = matrix->k - i < group ? matrix->k - i : group;
        if (matrix->kind == GPT_INT8) {
            const int8_t *values = (const int8_t *)matrix->values + at + i;
            for (int j = 0; j < GROUP_8; j++) wide[j] = values[j];
        } else {
            const uint8_t *bytes = (const uint8_t *)matrix->values + at / 2 + i / 128 * 64 + i % 64;
            int shift = i % 128 / 64 * 4;
            for (int j = 0; j < GROUP_4; j++) wide[j] = (bytes[j] >> shift & 15) - 8;
        }
        for (int j = 0; j < count; j++) out[i + j] = to_bf16(wide[j] * scale);
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

CLONES static void to_integers(const float *wide, int count, float scale, float least, float most,
                               int16_t *out) {
    float divisor = scale == 0 ? 1.0f : scale;
    for (int j = 0; j < count; j++) {
        float q = rintf(wide[j] / divisor);
        out[j] = (int16_t)(q < least ? least : q > most ? most : q);
    }
}

CLONES static void quantise_row(const uint16_t *weight, const gpt_matrix *matrix, int row) {
    size_t at = (size_t)row * matrix->stride;
    int group = matrix->kind == GPT_INT8 ? GROUP_8 : GROUP_4;
    uint16_t *scales = (uint16_t *)matrix->scales + at / group;
    for (int i = 0; i < matrix->stride; i += 128) {
        float wide[128];
        int16_t q[128];
        for (int j = 0; j < 128; j++)
            wide[j] = i + j < matrix->k ? from_bf16(weight[(size_t)row * matrix->k + i + j]) : 0;
        for (int g = 0; g < 128; g += group) {
            float least = 0, most = 0;
            int finite = 1;
            for (int j = g; j < g + group; j++) {
                least = wide[j] < least ? wide[j] : least;
                most = wide[j] > most ? wide[j] : most;
                finite &= isfinite(wide[j]) != 0;
            }
            float largest = most > -least ? most : least;
            float scale = matrix->kind == GPT_INT8 ? fabsf(largest) / 127 : largest / -8;
            scale = finite ? away_from_zero(scale) : NAN;
            scales[(i + g) / group] = bits_of(scale);
            int bottom = matrix->kind == GPT_INT8 ? -127 : -8;
            to_integers(wide + g, group, scale, bottom, matrix->kind == GPT_INT8 ? 127 : 7, q + g);
        }
        if (matrix->kind == GPT_INT8) {
            int8_t *values = (int8_t *)matrix->values + at + i;
            for (int j = 0; j < 128; j++) values[j] = (int8_t)q[j];
        } else {
            uint8_t *bytes = (uint8_t *)matrix->values + (at + i) / 2;
            for (int j = 0; j < 64; j++) bytes[j] = (uint8_t)((q[j] + 8) | (q[64 + j] + 8) << 4);
        }
    }
}

void gpt_quantise(const uint16_t *weight, const gpt_matrix *matrix, int threads) {
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int row = 0; row < matrix->n; row++) quantise_row(weight, matrix, row);
}
