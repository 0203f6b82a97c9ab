/* Rows of activations in the form that dot products with a kind of matrix want. */
#include "kernels.h"

size_t gpt_vector_bytes(const gpt_matrix *matrix) {
    size_t stride = matrix->stride;
    if (matrix->kind == GPT_BF16) return 0;
    if (matrix->kind == GPT_INT8) return stride * sizeof(int16_t);
    return stride + stride / 4 * sizeof(int32_t) + stride / GROUP_4 * sizeof(float);
}

/* The largest magnitude; without the sign, bf16 are in the order of their bits. */
static inline float largest(const uint16_t *row, int count) {
    uint16_t most = 0;
    for (int i = 0; i < count; i++) {
        uint16_t size = row[i] & 0x7fff;
        most = size > most ? size : most;
    }
    return from_bf16(most);
}

/* The value of one where `most` becomes `top`, and what to multiply by; NaN and Inf go into the
 * value, and so into every result. */
static inline float unit_of(float most, float top, float *per_unit) {
    *per_unit = top / most;
    if (isfinite(most) && isfinite(*per_unit)) return most / top;
    *per_unit = 0;
    return isfinite(most) ? 0 : NAN;
}

CLONES static float to_int16(const uint16_t *row, int k, int stride, int16_t *i16) {
    float per_unit, unit = unit_of(largest(row, k), 32767, &per_unit);
    for (int i = 0; i < k; i++)
        i16[i] = per_unit > 0 ? (int16_t)rintf(from_bf16(row[i]) * per_unit) : 0;
    for (int i = k; i < stride; i++) i16[i] = 0;
    return unit;
}

CLONES static void to_int8(const uint16_t *row, int k, int stride, int8_t *i8, int32_t *offset,
                           float *units) {
    for (int i = 0; i < stride; i += GROUP_4) {
        int count = k - i < GROUP_4 ? k - i > 0 ? k - i : 0 : GROUP_4;
        float per_unit, unit = unit_of(largest(row + i, count), 127, &per_unit);
        units[i / GROUP_4] = unit;
        int8_t *to = i8 + i;
        for (int j = 0; j < count; j++)
            to[j] = per_unit > 0 ? (int8_t)rintf(from_bf16(row[i + j]) * per_unit) : 0;
        for (int j = count; j < GROUP_4; j++) to[j] = 0;
        for (int j = 0; j < GROUP_4 / 4; j++)
            offset[i / 4 + j] = -8 * (to[4 * j] + to[4 * j + 1] + to[4 * j + 2] + to[4 * j + 3]);
    }
}

gpt_vector gpt_vector_of(const uint16_t *row, const gpt_matrix *matrix, void *memory) {
    gpt_vector vector = {.bf16 = row};
    if (matrix->kind == GPT_INT8) {
        vector.i16 = memory;
        vector.unit = to_int16(row, matrix->k, matrix->stride, memory);
    } else if (matrix->kind == GPT_INT4) {
        int32_t *offset = memory;
        float *units = (float *)(offset + matrix->stride / 4);
        int8_t *i8 = (int8_t *)(units + matrix->stride / GROUP_4);
        vector.offset = offset;
        vector.units = units;
        vector.i8 = i8;
        to_int8(row, matrix->k, matrix->stride, i8, offset, units);
    }
    return vector;
}
