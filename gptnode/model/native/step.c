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
    TILE = PANEL,      /* outputs of a matrix that a thread takes at a time */
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
    void *vectors; /* what the next products multiply: see gpt_vectors_in */
    float *queries, *mixed;
    gpt_softmax *state;
    _Alignas(64) int arrived;
    _Alignas(64) int round;
    struct {
        _Alignas(64) int taken;
    } share[MAX_THREADS]; /* of a phase's tiles */
} gpt_run;

static int at_most(int a, int b) { return a < b ? a : b; }
static int tiles_of(const gpt_matrix *matrix) { return (matrix->n + TILE - 1) / TILE; }

/* The first tile of thread `me`'s share. */
static int share_of(const gpt_run *run, int me, int tiles) {
    return (int)((int64_t)tiles * me / run->threads);
}

/* The next of `tiles` tiles for thread `me`; -1 when all are taken. Its own share comes first, in
 * order, so that its reads go on where they were; then what others haven't come to. */
static int take(gpt_run *run, int me, int tiles) {
    for (int i = 0; i < run->threads; i++) {
        int whose = (me + i) % run->threads;
        int first = share_of(run, whose, tiles), last = share_of(run, whose + 1, tiles);
        int tile = first + __atomic_fetch_add(&run->share[whose].taken, 1, __ATOMIC_RELAXED);
        if (tile < last) return tile;
    }
    return -1;
}

/* Whether `tile` ends that share: the thread then goes on with the next phase. */
static int ends_share(const gpt_run *run, int me, int tile, int tiles) {
    return tile + 1 == share_of(run, me + 1, tiles);
}

static gpt_ahead start_of(const gpt_run *run, int me, const gpt_matrix *matrix) {
    return (gpt_ahead){matrix, share_of(run, me, tiles_of(matrix)) * TILE};
}

/* Tile `tile` of queries, keys and values, taken as one matrix. */
static gpt_ahead tile_of(const gpt_block *block, int tile) {
    const gpt_matrix *matrix = &block->q;
    if (tile >= tiles_of(matrix)) {
        tile -= tiles_of(matrix);
        matrix = &block->k;
        if (tile >= tiles_of(matrix)) {
            tile -= tiles_of(matrix);
            matrix = &block->v;
        }
    }
    return (gpt_ahead){matrix, tile * TILE};
}

static int query_key_value_tiles(const gpt_block *block) {
    return tiles_of(&block->q) + tiles_of(&block->k) + tiles_of(&block->v);
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
    gpt_vectors vectors = gpt_vectors_in(run->vectors, matrix, run->rows);
    gpt_set_vector(&vectors, matrix, t, row);
}

/* out (rows, TILE) */
static void multiply(const gpt_run *run, const gpt_matrix *matrix, int first, float *out,
                     gpt_ahead next) {
    gpt_vectors vectors = gpt_vectors_in(run->vectors, matrix, run->rows);
    gpt_multiply(matrix, first, at_most(TILE, matrix->n - first), &vectors, out, TILE, next);
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
    float out[FEW_ROWS * TILE];
    int tiles = query_key_value_tiles(block);
    for (int tile; (tile = take(run, me, tiles)) >= 0;) {
        gpt_ahead now = tile_of(block, tile), next = tile_of(block, tile + 1);
        int n = now.matrix->n, count = at_most(TILE, n - now.first);
        uint16_t *to = now.matrix == &block->q   ? run->query
                       : now.matrix == &block->k ? run->key
                                                 : run->value;
        if (ends_share(run, me, tile, tiles)) next = start_of(run, me, &block->o);
        multiply(run, now.matrix, now.first, out, next);
        for (int t = 0; t < run->rows; t++)
            for (int i = 0; i < count; i++)
                to[(size_t)t * n + now.first + i] = to_bf16(out[t * TILE + i]);
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

/* hidden = hidden + matrix times the vectors; `after` comes next */
static void add(gpt_run *run, int me, const gpt_matrix *matrix, gpt_ahead after) {
    float out[FEW_ROWS * TILE];
    int tiles = tiles_of(matrix);
    for (int tile; (tile = take(run, me, tiles)) >= 0;) {
        int first = tile * TILE, count = at_most(TILE, matrix->n - first);
        gpt_ahead next = {matrix, first + TILE};
        if (ends_share(run, me, tile, tiles)) next = after;
        multiply(run, matrix, first, out, next);
        for (int t = 0; t < run->rows; t++) {
            uint16_t *hidden = run->hidden + (size_t)t * matrix->n + first;
            for (int i = 0; i < count; i++)
                hidden[i] = to_bf16(from_bf16(hidden[i]) + rounded(out[t * TILE + i]));
        }
    }
    meet(run);
}

static void gate_and_up(gpt_run *run, int me, const gpt_block *block) {
    float gate[FEW_ROWS * TILE], up[FEW_ROWS * TILE];
    int n = block->gate.n, tiles = tiles_of(&block->gate);
    for (int tile; (tile = take(run, me, tiles)) >= 0;) {
        int first = tile * TILE, count = at_most(TILE, n - first);
        gpt_ahead next = {&block->gate, first + TILE};
        if (ends_share(run, me, tile, tiles)) next = start_of(run, me, &block->down);
        multiply(run, &block->gate, first, gate, (gpt_ahead){&block->up, first});
        multiply(run, &block->up, first, up, next);
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
        add(run, me, &block->o, start_of(run, me, &block->gate));
        norm(run, me, block->mlp_norm, &block->gate);
        gate_and_up(run, me, block);
        gpt_ahead after = {0};
        if (b + 1 < n_blocks)
            after = tile_of(block + 1, share_of(run, me, query_key_value_tiles(block + 1)));
        add(run, me, &block->down, after);
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
    run->vectors = piece(&at, 3 * rows * (widest + DEPTH)); /* the most that vectors may take */
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
    if (rows < 1 || rows > FEW_ROWS) return 1;
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
