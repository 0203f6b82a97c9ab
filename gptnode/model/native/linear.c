/* Products of weight rows with a few activation rows: in plain C, and which way a machine takes.
 *
 * Quantised weights meet activations that are integers, too, so that products and sums within a
 * group are exact: 16 bits and one unit a row beside 8-bit weights, where a channel of 60 times the
 * others' magnitude leaves them 9 bits; 8 bits and a unit for each group of 32 beside 4-bit ones,
 * whose own error is ten times as large. */
#include "kernels.h"

static int plain_only = 0;

void gpt_use_plain(int yes) { plain_only = yes; }

static int at_most(int a, int b) { return a < b ? a : b; }

CLONES static void bf16_output(const gpt_matrix *matrix, int output, const gpt_vectors *x,
                               float *out, size_t out_stride) {
    const uint16_t *w = (const uint16_t *)matrix->values + (size_t)output * matrix->stride;
    for (int t = 0; t < x->rows; t++) {
        float lane[16] = {0}, sum = 0;
        for (int run = 0; run < matrix->k; run += DEPTH) {
            const uint16_t *v = (const uint16_t *)x->values;
            int count = at_most(DEPTH, matrix->k - run), i = 0;
            v += gpt_runs_before(x, run / DEPTH, t) * DEPTH;
            for (; i + 16 <= count; i += 16)
                for (int j = 0; j < 16; j++)
                    lane[j] += from_bf16(w[run + i + j]) * from_bf16(v[i + j]);
            for (; i < count; i++) sum += from_bf16(w[run + i]) * from_bf16(v[i]);
        }
        for (int j = 0; j < 16; j++) sum += lane[j];
        out[t * out_stride] = sum;
    }
}

CLONES static void int8_output(const gpt_matrix *matrix, int output, const gpt_vectors *x,
                               float *out, size_t out_stride) {
    size_t at = (size_t)output * matrix->stride;
    const int8_t *w = (const int8_t *)matrix->values + at;
    const uint16_t *scales = matrix->scales + at / GROUP_8;
    for (int t = 0; t < x->rows; t++) {
        float sum = 0;
        for (int i = 0; i < matrix->stride; i += GROUP_8) {
            const int16_t *v = (const int16_t *)x->values;
            v += gpt_runs_before(x, i / DEPTH, t) * DEPTH;
            int32_t dot = 0;
            for (int j = 0; j < GROUP_8; j++) dot += w[i + j] * v[j];
            sum += from_bf16(scales[i / GROUP_8]) * (float)dot;
        }
        out[t * out_stride] = sum * x->units[t];
    }
}

CLONES static void int4_output(const gpt_matrix *matrix, int output, const gpt_vectors *x,
                               float *out, size_t out_stride) {
    size_t at = (size_t)output * matrix->stride, groups = DEPTH / GROUP_4;
    const uint8_t *w = (const uint8_t *)matrix->values + at / 2;
    const uint16_t *scales = matrix->scales + at / GROUP_4;
    for (int t = 0; t < x->rows; t++) {
        float sum = 0;
        for (int i = 0; i < matrix->stride; i += GROUP_4) {
            size_t run = gpt_runs_before(x, i / DEPTH, t), group = i % DEPTH / GROUP_4;
            const int8_t *v = (const int8_t *)x->values + run * DEPTH + i % DEPTH;
            const uint8_t *bytes = w + i / 128 * 64 + i % 64;
            int shift = i % 128 / 64 * 4;
            int32_t dot = 0;
            for (int j = 0; j < GROUP_4; j++) dot += ((bytes[j] >> shift & 15) - 8) * v[j];
            sum += from_bf16(scales[i / GROUP_4]) * x->units[run * groups + group] * (float)dot;
        }
        out[t * out_stride] = sum;
    }
}

static void plain(const gpt_matrix *matrix, int first, int count, const gpt_vectors *x, float *out,
                  size_t out_stride) {
    for (int i = 0; i < count; i++)
        if (matrix->kind == GPT_BF16) bf16_output(matrix, first + i, x, out + i, out_stride);
        else if (matrix->kind == GPT_INT8) int8_output(matrix, first + i, x, out + i, out_stride);
        else int4_output(matrix, first + i, x, out + i, out_stride);
}

#ifdef GPT_X86

int gpt_has_vnni(void) {
    return !plain_only && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

int gpt_has_bf16(void) { return gpt_has_vnni() && __builtin_cpu_supports("avx512bf16"); }

/* Null where plain C has to do it. */
static gpt_product *special(int kind) {
    if (kind == GPT_BF16) return gpt_has_bf16() ? gpt_panel_bf16 : 0;
    if (!gpt_has_vnni()) return 0;
    return kind == GPT_INT8 ? gpt_panel_int8 : gpt_panel_int4;
}

#else

int gpt_has_vnni(void) { return 0; }

int gpt_has_bf16(void) { return 0; }

static gpt_product *special(int kind) {
    (void)kind;
    return 0;
}

#endif

const char *gpt_instructions(void) {
    return gpt_has_bf16() ? "avx512-vnni-bf16" : gpt_has_vnni() ? "avx512-vnni" : "generic";
}

void gpt_multiply(const gpt_matrix *matrix, int first, int count, const gpt_vectors *x, float *out,
                  size_t out_stride, gpt_ahead next) {
    gpt_product *product = special(matrix->kind);
    if (product) product(matrix, first, count, x, out, out_stride, next);
    else plain(matrix, first, count, x, out, out_stride);
    for (int t = 0; matrix->bias && t < x->rows; t++)
        for (int i = 0; i < count; i++)
            out[t * out_stride + i] += from_bf16(matrix->bias[first + i]);
}
