/* One step of a few rows through all blocks of a span, in one parallel region.
 *
 * The threads of a step meet at barriers between its phases and share the work of a phase tile by
 * tile: whoever is free takes the next, so that a core that is busy elsewhere delays one tile.
 * Activations are rounded to bf16 where the operators of torch round them. */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#define RELAX() _mm_pause()
#else
#define RELAX()
#endif
#ifdef _WIN32
#define YIELD() ((void)0)
#else
#include <sched.h>
#define YIELD() sched_yield()
#endif

enum {
    TILE = 32,         /* outputs of a matrix that a thread takes at a time */
    PART_TOKENS = 256, /* of the context that a thread takes at a time */
    MAX_PARTS = 32,
    MAX_THREADS = 64,
    SPINS = 2000, /* looks at a barrier before the core is offered to others */
};

typedef struct {
    const gpt_shape *shape;
    const gpt_row *row;
    const uint16_t *cosines, *sines;
    int rows, threads;
    uint16_t *hidden, *normed, *query, *key, *value, *attended, *gated;
    char *integers;
    float *queries, *mixed;
    gpt_softmax *state;
    gpt_vector vector[MAX_ROWS];
    _Alignas(64) int arrived;
    _Alignas(64) int round;
    struct {
        _Alignas(64) int taken;
    } share[MAX_THREADS]; /* of a phase's tiles */
} gpt_run;

static int at_most(int a, int b) { return a < b ? a : b; }
static int tiles_of(const gpt_matrix *matrix) { return (matrix->n + TILE - 1) / TILE; }

/* The next of `tiles` tiles for thread `me`; -1 when all are taken. Its own share comes first, in
 * order, so that its reads go on where they were; then what others haven't come to. */
static int take(gpt_run *run, int me, int tiles) {
    for (int i = 0; i < run->threads; i++) {
        int whose = (me + i) % run->threads;
        int first = (int)((int64_t)tiles * whose / run->threads);
        int last = (int)((int64_t)tiles * (whose + 1) / run->threads);
        int tile = first + __atomic_fetch_add(&run->share[whose].taken, 1, __ATOMIC_RELAXED);
        if (tile < last) return tile;
    }
    return -1;
}

/* Waits for all threads; whoever comes last opens the next phase. */
static void meet(gpt_run *run) {
    int round = __atomic_load_n(&run->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&run->arrived, 1, __ATOMIC_ACQ_REL) == run->threads) {
        run->arrived = 0;
        for (int i = 0; i < run->threads; i++) run->share[i].taken = 0;
        __atomic_store_n(&run->round, round + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int spins = 0; __atomic_load_n(&run->round, __ATOMIC_ACQUIRE) == round; spins++) {
        if (spins < SPINS) RELAX();
        else YIELD();
    }
}

/* Rows of activations as the next matrix wants them. */
static void prepare(gpt_run *run, int t, const uint16_t *row, const gpt_matrix *matrix) {
    run->vector[t] = gpt_vector_of(row, matrix, run->integers + t * gpt_vector_bytes(matrix));
}

static void norm(gpt_run *run, int me, const uint16_t *weight, const gpt_matrix *next) {
    int width = run->shape->d_model;
    for (int t; (t = take(run, me, run->rows)) >= 0;) {
        uint16_t *out = run->normed + (size_t)t * width;
        gpt_norm_row(run->hidden + (size_t)t * width, weight, run->shape->norm_eps, width, out);
        prepare(run, t, out, next);
    }
    meet(run);
}

static void query_key_value(gpt_run *run, int me, const gpt_block *block) {
    const gpt_matrix *matrix[3] = {&block->q, &block->k, &block->v};
    uint16_t *to[3] = {run->query, run->key, run->value};
    float out[MAX_ROWS * TILE];
    int tiles = tiles_of(matrix[0]) + tiles_of(matrix[1]) + tiles_of(matrix[2]);
    for (int tile; (tile = take(run, me, tiles)) >= 0;) {
        int which = 0;
        while (tile >= tiles_of(matrix[which])) tile -= tiles_of(matrix[which++]);
        int n = matrix[which]->n, first = tile * TILE, count = at_most(TILE, n - first);
        gpt_dot(matrix[which], first, count, run->vector, run->rows, out, TILE);
        for (int t = 0; t < run->rows; t++)
            for (int i = 0; i < count; i++)
                to[which][(size_t)t * n + first + i] = to_bf16(out[t * TILE + i]);
    }
    meet(run);
}

static void rotate_and_append(gpt_run *run, int me, int block) {
    const gpt_shape *shape = run->shape;
    int width = shape->head_dim;
    size_t kv = (size_t)shape->n_kv_heads * width, all = (size_t)shape->n_heads * width;
    float scale = 1.0f / sqrtf((float)width);
    for (int t; (t = take(run, me, run->rows)) >= 0;) {
        const uint16_t *cosines = run->cosines + (size_t)t * width;
        const uint16_t *sines = run->sines + (size_t)t * width;
        uint16_t *query = run->query + t * all;
        uint16_t *key = run->row[t].keys[block] + run->row[t].position * kv;
        uint16_t *value = run->row[t].values[block] + run->row[t].position * kv;
        for (int h = 0; h < shape->n_heads; h++) {
            uint16_t turned[MAX_HEAD_DIM];
            gpt_rotate_head(query + h * width, cosines, sines, width, turned);
            for (int d = 0; d < width; d++)
                run->queries[t * all + h * width + d] = from_bf16(turned[d]) * scale;
        }
        for (int h = 0; h < shape->n_kv_heads; h++)
            gpt_rotate_head(run->key + t * kv + h * width, cosines, sines, width, key + h * width);
        memcpy(value, run->value + t * kv, kv * sizeof *value);
    }
    meet(run);
}

/* By the length alone: neither threads nor other rows change how sums are cut. */
static int part_tokens(int length) {
    int fewest = (length + MAX_PARTS - 1) / MAX_PARTS;
    return (fewest + PART_TOKENS - 1) / PART_TOKENS * PART_TOKENS;
}

static int parts_of(int length) {
    int size = part_tokens(length);
    return (length + size - 1) / size;
}

static void attend(gpt_run *run, int me, int block, const gpt_matrix *next) {
    const gpt_shape *shape = run->shape;
    int heads = shape->n_heads, kv_heads = shape->n_kv_heads, width = shape->head_dim;
    int shared = heads / kv_heads;
    float small[PART_TOKENS * MAX_SHARED], *scores = small;
    int longest = 0, tasks = 0;
    for (int t = 0; t < run->rows; t++) {
        longest = longest > run->row[t].position ? longest : run->row[t].position;
        tasks += parts_of(run->row[t].position + 1) * kv_heads;
    }
    size_t wanted = (size_t)part_tokens(longest + 1) * shared;
    if (wanted > sizeof small / sizeof *small) scores = malloc(wanted * sizeof *scores);
    for (int task; (task = take(run, me, tasks)) >= 0;) {
        int t = 0;
        while (task >= parts_of(run->row[t].position + 1) * kv_heads)
            task -= parts_of(run->row[t++].position + 1) * kv_heads;
        int length = run->row[t].position + 1, size = part_tokens(length);
        int part = task / kv_heads, head = task % kv_heads;
        size_t at = ((size_t)t * MAX_PARTS + part) * heads + head * shared;
        gpt_attend(shape, run->row[t].keys[block] + head * width,
                   run->row[t].values[block] + head * width, part * size,
                   at_most((part + 1) * size, length),
                   run->queries + ((size_t)t * heads + head * shared) * width, scores,
                   run->mixed + at * width, run->state + at);
    }
    if (scores != small) free(scores);
    meet(run);
    for (int t; (t = take(run, me, run->rows)) >= 0;) {
        size_t at = (size_t)t * MAX_PARTS * heads;
        uint16_t *out = run->attended + (size_t)t * heads * width;
        gpt_merge(shape, run->mixed + at * width, run->state + at,
                  parts_of(run->row[t].position + 1), out);
        prepare(run, t, out, next);
    }
    meet(run);
}

/* hidden = hidden + matrix times the vectors */
static void add(gpt_run *run, int me, const gpt_matrix *matrix) {
    float out[MAX_ROWS * TILE];
    for (int tile; (tile = take(run, me, tiles_of(matrix))) >= 0;) {
        int first = tile * TILE, count = at_most(TILE, matrix->n - first);
        gpt_dot(matrix, first, count, run->vector, run->rows, out, TILE);
        for (int t = 0; t < run->rows; t++) {
            uint16_t *hidden = run->hidden + (size_t)t * matrix->n + first;
            for (int i = 0; i < count; i++)
                hidden[i] = to_bf16(from_bf16(hidden[i]) + rounded(out[t * TILE + i]));
        }
    }
    meet(run);
}

static void gate_and_up(gpt_run *run, int me, const gpt_block *block) {
    float gate[MAX_ROWS * TILE], up[MAX_ROWS * TILE];
    int n = block->gate.n;
    for (int tile; (tile = take(run, me, tiles_of(&block->gate))) >= 0;) {
        int first = tile * TILE, count = at_most(TILE, n - first);
        gpt_dot(&block->gate, first, count, run->vector, run->rows, gate, TILE);
        gpt_dot(&block->up, first, count, run->vector, run->rows, up, TILE);
        for (int t = 0; t < run->rows; t++)
            gpt_gated(gate + t * TILE, up + t * TILE, count, run->gated + (size_t)t * n + first);
    }
    meet(run);
    for (int t; (t = take(run, me, run->rows)) >= 0;)
        prepare(run, t, run->gated + (size_t)t * n, &block->down);
    meet(run);
}

static void run_blocks(gpt_run *run, int me, const gpt_block *blocks, int n_blocks) {
    for (int b = 0; b < n_blocks; b++) {
        const gpt_block *block = &blocks[b];
        norm(run, me, block->attention_norm, &block->q);
        query_key_value(run, me, block);
        rotate_and_append(run, me, b);
        attend(run, me, b, &block->o);
        add(run, me, &block->o);
        norm(run, me, block->mlp_norm, &block->gate);
        gate_and_up(run, me, block);
        add(run, me, &block->down);
    }
}

/* Gives out consecutive pieces of the scratch memory; with no memory it only counts. */
static void *piece(char **at, size_t bytes) {
    void *here = *at;
    *at += (bytes + 63) / 64 * 64;
    return here;
}

static size_t lay_out(gpt_run *run, const gpt_shape *shape, int rows, char *memory) {
    char *at = memory;
    size_t heads = (size_t)rows * shape->n_heads, kv = (size_t)rows * shape->n_kv_heads;
    size_t width = shape->head_dim, all = shape->n_heads * width, widest = shape->d_model;
    widest = widest > all ? widest : all;
    widest = widest > (size_t)shape->d_ff ? widest : (size_t)shape->d_ff;
    run->normed = piece(&at, sizeof(uint16_t) * rows * shape->d_model);
    run->query = piece(&at, sizeof(uint16_t) * heads * width);
    run->key = piece(&at, sizeof(uint16_t) * kv * width);
    run->value = piece(&at, sizeof(uint16_t) * kv * width);
    run->attended = piece(&at, sizeof(uint16_t) * heads * width);
    run->gated = piece(&at, sizeof(uint16_t) * rows * shape->d_ff);
    run->integers = piece(&at, 3 * rows * (widest + 128)); /* the most that a vector may take */
    run->queries = piece(&at, sizeof(float) * heads * width);
    run->mixed = piece(&at, sizeof(float) * heads * width * MAX_PARTS);
    run->state = piece(&at, sizeof(gpt_softmax) * heads * MAX_PARTS);
    return (size_t)(at - memory);
}

size_t gpt_scratch_bytes(const gpt_shape *shape, int rows) {
    gpt_run run;
    return lay_out(&run, shape, rows, 0);
}

int gpt_step(const gpt_shape *shape, const gpt_block *blocks, int n_blocks, const gpt_row *row,
             int rows, const uint16_t *cosines, const uint16_t *sines, uint16_t *hidden,
             void *scratch, int threads) {
    gpt_run run = {.shape = shape, .row = row, .rows = rows, .cosines = cosines, .sines = sines,
                   .hidden = hidden, .threads = 1};
    if (rows < 1 || rows > MAX_ROWS) return 1;
    lay_out(&run, shape, rows, scratch);
    threads = at_most(threads, MAX_THREADS);
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
    {
#pragma omp single
        run.threads = omp_get_num_threads();
        run_blocks(&run, omp_get_thread_num(), blocks, n_blocks);
    }
#else
    run_blocks(&run, 0, blocks, n_blocks);
#endif
    return 0;
}
