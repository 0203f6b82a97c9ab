/* Dot products of weight rows with a few activation rows: in plain C, which defines them, and the
 * choice of something faster (avx512.c).
 *
 * Quantised weights meet activations that are integers, too, so that products and sums within a
 * group are exact: 16 bits and one unit a row beside 8-bit weights, where a channel of 60 times the
 * others' magnitude leaves them 9 bits; 8 bits and a unit for each group of 32 beside 4-bit ones,
 * whose own error is ten times as large. */
#include "kernels.h"

static int plain_only = 0;

void gpt_use_plain(int yes) { plain_only = yes; }

CLONES static void bf16_row(const gpt_matrix *matrix, int output, const gpt_vector *x, int rows,
                            float *out, int out_stride) {
    const uint16_t *w = gpt_row_of(matrix, output);
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
    const int8_t *w = gpt_row_of(matrix, output);
    const uint16_t *scales = gpt_scales_of(matrix, output);
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
    const uint8_t *w = gpt_row_of(matrix, output);
    const uint16_t *scales = gpt_scales_of(matrix, output);
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

/* ---- the choice ---- */

#ifdef GPT_AVX512

int gpt_has_vnni(void) {
    return !plain_only && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

static int has_bf16(void) { return gpt_has_vnni() && __builtin_cpu_supports("avx512bf16"); }

static gpt_dots *kernel_for(int kind) {
    if (kind == GPT_BF16) return has_bf16() ? gpt_bf16_avx512 : bf16_plain;
    if (kind == GPT_INT8) return gpt_has_vnni() ? gpt_int8_avx512 : int8_plain;
    return gpt_has_vnni() ? gpt_int4_avx512 : int4_plain;
}

const char *gpt_instructions(void) {
    return has_bf16() ? "avx512-vnni-bf16" : gpt_has_vnni() ? "avx512-vnni" : "generic";
}

#else

int gpt_has_vnni(void) { return 0; }

static gpt_dots *kernel_for(int kind) {
    return kind == GPT_BF16 ? bf16_plain : kind == GPT_INT8 ? int8_plain : int4_plain;
}

const char *gpt_instructions(void) { return "generic"; }

#endif

void gpt_dot(const gpt_matrix *matrix, int first, int count, const gpt_vector *x, int rows,
             float *out, int out_stride) {
    gpt_dots *dots = kernel_for(matrix->kind);
    for (int t = 0; t < rows; t += MAX_ROWS) {
        int some = rows - t < MAX_ROWS ? rows - t : MAX_ROWS;
        dots(matrix, first, count, x + t, some, out + (size_t)t * out_stride, out_stride);
    }
    for (int t = 0; matrix->bias && t < rows; t++)
        for (int i = 0; i < count; i++)
            out[(size_t)t * out_stride + i] += from_bf16(matrix->bias[first + i]);
}
