/* Products of bf16 weights with a few activation rows, for AVX-512 with bf16.
 *
 * More than four rows: four outputs meet four rows at a time, so that each number that is loaded is
 * used four times and sixteen sums stand in registers, while the panel that comes next is asked for
 * line by line. Up to four rows: weights are read in their order, output by output, as that is what
 * memory is fastest at.
 *
 * Either way the lanes of sixteen sums are added up in one go, by a transposition that adds, and
 * the sum of an output and a row is made of the same numbers in the same order: inputs come in
 * segments of 512, every fourth segment is of one class, and the four classes are added at the
 * end. */
#include "kernels.h"

#ifdef GPT_X86
#include <immintrin.h>

enum {
    OUTPUTS = 4, /* that are computed at once */
    ROWS = 4,    /* alike */
    CLASSES = 4,
    SEGMENT = 512, /* inputs whose products stay in lanes */
    BLOCK = CLASSES * SEGMENT,
    CHUNK = 4 * BLOCK, /* inputs that one row meets before the next output comes */
    LINE = 32,         /* inputs that are loaded at a time */
    LINES = SEGMENT / LINE,
    RUN_LINES = DEPTH / LINE,
    AHEAD_BYTES = 4096, /* for few rows: past one DRAM latency at a core's bandwidth */
};

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))
#define BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

static inline int at_most(int a, int b) { return a < b ? a : b; }

static inline int ceil_of(int a, int b) { return (a + b - 1) / b; }

/* What the compiler won't take apart to add in another order. */
#define ADD(a, b) _mm512_add_round_ps(a, b, _MM_FROUND_CUR_DIRECTION)

/* Lane i of the result is the sum of the lanes of vector i. */
AVX512 INLINE __m512 sums_of(const __m512 *x) {
    __m512 y[8];
    EACH(i, 8)
        y[i] = ADD(_mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]),
                   _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]));
    EACH(i, 4) {
        __m512d a = _mm512_castps_pd(y[2 * i]), b = _mm512_castps_pd(y[2 * i + 1]);
        y[i] = ADD(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                   _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    EACH(i, 2)
        y[i] = ADD(_mm512_shuffle_f32x4(y[2 * i], y[2 * i + 1], 0x88),
                   _mm512_shuffle_f32x4(y[2 * i], y[2 * i + 1], 0xdd));
    return ADD(_mm512_shuffle_f32x4(y[0], y[1], 0x88), _mm512_shuffle_f32x4(y[0], y[1], 0xdd));
}

/* A line of weights, of which `left` are there. */
BF16 INLINE __m512bh weights_at(const uint16_t *from, int left) {
    __mmask32 in = left >= LINE ? ~0u : left > 0 ? (1u << left) - 1 : 0;
    return (__m512bh)_mm512_maskz_loadu_epi16(in, from);
}

/* ---- few rows ---- */

/* Inputs of some outputs. */
typedef struct {
    const uint16_t *weights, *x;
    size_t stride; /* from an output's weights to the next's */
    size_t apart;  /* from a run of DEPTH inputs of x to the next */
    int count;     /* of outputs */
    int inputs;    /* at most CHUNK */
    size_t ahead;  /* bytes from what is read to what is asked for */
} gpt_few;

/* `lines` lines of one output: sum[row] is a segment's. */
BF16 INLINE void segment_of(const uint16_t *w, const uint16_t *x, size_t apart, size_t ahead,
                            int left, const int lines, const int rows, __m512 *sum) {
    EACH(line, lines) {
        __m512bh weights = weights_at(w + LINE * line, left - LINE * line);
        _mm_prefetch((const char *)(w + LINE * line) + ahead, _MM_HINT_T0);
        const uint16_t *of_line = x + line / RUN_LINES * apart + line % RUN_LINES * LINE;
        EACH(t, rows) {
            __m512bh v = (__m512bh)_mm512_loadu_si512(of_line + t * DEPTH);
            sum[t] = _mm512_dpbf16_ps(sum[t], weights, v);
        }
    }
}

/* sum[four outputs][row], in lanes (class, output) */
BF16 INLINE void few_rows(const gpt_few *few, const int rows, __m512 (*sum)[ROWS]) {
    for (int output = 0; output < few->count; output += OUTPUTS, sum++) {
        __m512 sums[CHUNK / BLOCK][ROWS][CLASSES * OUTPUTS];
        for (int o = 0; o < OUTPUTS; o++) {
            const uint16_t *w = few->weights + at_most(output + o, few->count - 1) * few->stride;
            const uint16_t *x = few->x;
            int left = few->inputs;
            for (int i = 0; left > 0 || i % CLASSES; i++, left -= SEGMENT) {
                __m512 all[ROWS];
                EACH(t, rows) all[t] = _mm512_setzero_ps();
                if (left >= SEGMENT)
                    segment_of(w, x, few->apart, few->ahead, left, LINES, rows, all);
                else
                    for (int at = 0; at < left; at += DEPTH)
                        segment_of(w + at, x + at / DEPTH * few->apart, 0, 0, left - at, RUN_LINES,
                                   rows, all);
                w += SEGMENT;
                x += SEGMENT / DEPTH * few->apart;
                EACH(t, rows) sums[i / CLASSES][t][i % CLASSES * OUTPUTS + o] = all[t];
            }
        }
        for (int block = 0; block * BLOCK < few->inputs; block++)
            EACH(t, rows) (*sum)[t] = ADD((*sum)[t], sums_of(sums[block][t]));
    }
}

BF16 static void multiply_few(const gpt_matrix *matrix, int first, int count,
                              const gpt_vectors *x, __m512 (*sum)[ROWS]) {
    /* As much of the rows as the first cache holds. */
    const int chunk = x->rows > 2 ? BLOCK : CHUNK / x->rows;
    for (int input = 0; input < matrix->k; input += chunk) {
        gpt_few few = {
            .weights = (const uint16_t *)matrix->values + (size_t)first * matrix->stride + input,
            .x = (const uint16_t *)x->values + (size_t)input * x->rows,
            .stride = matrix->stride,
            .apart = (size_t)DEPTH * x->rows,
            .count = count,
            .inputs = at_most(chunk, matrix->k - input),
            .ahead = AHEAD_BYTES,
        };
        if (chunk < matrix->k) few.ahead = sizeof(uint16_t) * matrix->stride;
        if (x->rows == 4) few_rows(&few, 4, sum);
        else if (x->rows == 3) few_rows(&few, 3, sum);
        else if (x->rows == 2) few_rows(&few, 2, sum);
        else few_rows(&few, 1, sum);
    }
}

/* ---- more rows ---- */

/* Sums by class, in lanes (row, output). */
typedef __m512 gpt_sums[CLASSES];

/* A segment of four outputs and some rows. */
typedef struct {
    const uint16_t *weights[OUTPUTS], *x;
    size_t apart;
    int left;                   /* inputs from here on */
    const char *ahead[OUTPUTS]; /* what is asked for, */
    int step;                   /* and how far to go from line to line */
} gpt_work;

BF16 INLINE void lines_of(const gpt_work *work, int first, int last, const int whole,
                          const int rows, __m512 *sum) {
    for (int run = first; run < last; run += RUN_LINES) {
        const uint16_t *x = work->x + run / RUN_LINES * work->apart;
        EACH(i, RUN_LINES) {
            int line = run + i;
            __m512bh v[ROWS];
            EACH(t, rows) v[t] = (__m512bh)_mm512_loadu_si512(x + t * DEPTH + LINE * i);
            EACH(o, OUTPUTS) {
                const uint16_t *from = work->weights[o] + LINE * line;
                __m512bh w = whole ? (__m512bh)_mm512_loadu_si512(from)
                                   : weights_at(from, work->left - LINE * line);
                _mm_prefetch(work->ahead[o] + line * work->step, _MM_HINT_T0);
                EACH(t, rows)
                    sum[t * OUTPUTS + o] = _mm512_dpbf16_ps(sum[t * OUTPUTS + o], w, v[t]);
            }
        }
    }
}

BF16 INLINE void some_rows(const gpt_work *work, const int rows, __m512 *sum) {
    __m512 sums[ROWS * OUTPUTS];
    EACH(i, ROWS * OUTPUTS) sums[i] = _mm512_setzero_ps();
    if (work->left >= SEGMENT) lines_of(work, 0, LINES, 1, rows, sums);
    else lines_of(work, 0, ceil_of(work->left, LINE), 0, rows, sums);
    *sum = ADD(*sum, sums_of(sums));
}

/* Each segment of the next panel's rows is asked for by one segment of four outputs: as many lines
 * are asked for as are read, and shared between the fours of rows. */
BF16 static void multiply_rows(const gpt_matrix *matrix, int first, int count,
                               const gpt_vectors *x, gpt_ahead next, gpt_sums *sums) {
    const int fours = ceil_of(x->rows, ROWS), askers = at_most(fours, OUTPUTS);
    const int lines = OUTPUTS / askers; /* asked for at a time */
    const uint16_t *values = matrix->values;
    gpt_work work = {.apart = (size_t)DEPTH * x->rows, .step = 64 * lines};
    for (int input = 0; input < matrix->k; input += SEGMENT) {
        const int block = input / BLOCK * BLOCK, class = input / SEGMENT % CLASSES;
        work.left = matrix->k - input;
        for (int output = 0; output < count; output += OUTPUTS) {
            for (int o = 0; o < OUTPUTS; o++) {
                size_t row = first + at_most(output + o, count - 1);
                work.weights[o] = values + row * matrix->stride + input;
            }
            int piece = class * (PANEL / OUTPUTS) + output / OUTPUTS;
            const uint16_t *then = work.weights[0];
            if (block + BLOCK < matrix->k)
                then = values + (size_t)(first + piece) * matrix->stride + block + BLOCK;
            else if (next.matrix)
                then = (const uint16_t *)next.matrix->values +
                       (size_t)(next.first + piece) * next.matrix->stride;
            for (int four = 0; four < fours; four++) {
                int left = x->rows - four * ROWS;
                __m512 *sum = &sums[output / OUTPUTS * fours + four][class];
                const char *share = (const char *)then + four * (2 * BLOCK / askers);
                for (int o = 0; o < OUTPUTS; o++) {
                    int asks = four < askers && o < lines;
                    work.ahead[o] = asks ? share + 64 * o : (const char *)work.weights[o];
                }
                work.x = (const uint16_t *)x->values + (size_t)input * x->rows +
                         four * ROWS * DEPTH;
                if (left >= 4) some_rows(&work, 4, sum);
                else if (left == 3) some_rows(&work, 3, sum);
                else if (left == 2) some_rows(&work, 2, sum);
                else some_rows(&work, 1, sum);
            }
        }
    }
}

/* ---- panels ---- */

typedef union {
    __m512 all;
    __m128 four[ROWS];
} gpt_lanes;

AVX512 INLINE void write_four(__m128 four, int count, float *out) {
    _mm_mask_storeu_ps(out, (__mmask8)((1 << at_most(OUTPUTS, count)) - 1), four);
}

AVX512 INLINE __m512 of_classes(__m512 a, __m512 b, __m512 c, __m512 d) {
    return ADD(ADD(a, c), ADD(b, d));
}

AVX512 static void panel_of_few(const gpt_matrix *matrix, int first, int count,
                                const gpt_vectors *x, float *out, size_t out_stride) {
    __m512 sum[PANEL / OUTPUTS][ROWS];
    for (int i = 0; i < ceil_of(count, OUTPUTS); i++)
        for (int t = 0; t < x->rows; t++) sum[i][t] = _mm512_setzero_ps();
    multiply_few(matrix, first, count, x, sum);
    for (int t = 0; t < x->rows; t++)
        for (int at = 0; at < count; at += OUTPUTS) {
            __m512 all = sum[at / OUTPUTS][t];
            gpt_lanes of = {of_classes(all, _mm512_shuffle_f32x4(all, all, 1),
                                       _mm512_shuffle_f32x4(all, all, 2),
                                       _mm512_shuffle_f32x4(all, all, 3))};
            write_four(of.four[0], count - at, out + t * out_stride + at);
        }
}

AVX512 static void panel_of_rows(const gpt_matrix *matrix, int first, int count,
                                 const gpt_vectors *x, float *out, size_t out_stride,
                                 gpt_ahead next) {
    gpt_sums sums[PANEL / OUTPUTS * (FEW_ROWS / ROWS)];
    int fours = ceil_of(x->rows, ROWS);
    for (int i = 0; i < ceil_of(count, OUTPUTS) * fours; i++)
        EACH(c, CLASSES) sums[i][c] = _mm512_setzero_ps();
    multiply_rows(matrix, first, count, x, next, sums);
    for (int four = 0; four < fours; four++)
        for (int at = 0; at < count; at += OUTPUTS) {
            const __m512 *sum = sums[at / OUTPUTS * fours + four];
            gpt_lanes of = {of_classes(sum[0], sum[1], sum[2], sum[3])};
            for (int t = four * ROWS; t < at_most(x->rows, (four + 1) * ROWS); t++)
                write_four(of.four[t % ROWS], count - at, out + t * out_stride + at);
        }
}

void gpt_panel_bf16(const gpt_matrix *matrix, int first, int count, const gpt_vectors *x,
                    float *out, size_t out_stride, gpt_ahead next) {
    if (x->rows <= ROWS) panel_of_few(matrix, first, count, x, out, out_stride);
    else panel_of_rows(matrix, first, count, x, out, out_stride, next);
}

#endif
