/* Weights of integer products packed for Dot4 and Dot2: which instruction fits, which weights prove that no pair of
 * 16-bit sums overflows, and the steps that carry what would. */
#ifndef ZN_DOTPACK_H
#define ZN_DOTPACK_H
#include "codegen/lower/lower.h"

#define ZN_DOT_HALVES_COST 1.25 /* time of HALVES over that of BYTES with one step per word, measured */

enum { ZN_DOT_RANGE = 4 };

typedef enum zn_dot_form {
  ZN_DOT_NO_FORM,
  ZN_DOT_BYTES, /* Dot4: quads of bytes */
  ZN_DOT_HALVES, /* Dot2: pairs of 16 bits; activations are centred when they are widened */
  ZN_DOT_REALS,  /* Dot2Bf16: pairs of bf16, weights are their bits; sums are f32, and there is nothing to add to them */
  ZN_DOT_TILES,  /* TileDot: bytes or bf16, in the groups of caps->tile_dot; the weights are its columns */
  ZN_DOT_TILE_ROWS /* the same, but the weights are its rows */
} zn_dot_form;

/* A matrix of centred weights: column n, row k. Columns that one register tile shares form a block and one program of
 * steps. Step s multiplies a word of the activations, xored with a mask, by the step's weights. Then
 *   sum of weight * activation = sum of the steps + base - (zero point + a_add) * sums     (modulo 2^32). */
typedef struct zn_dotpack {
  zn_dot_form form;
  unsigned flags;        /* zn_dot_flags of the Dot4 */
  bool reals;            /* of bf16 */
  int64_t k, n, width;   /* width: columns of a block; the last block ends at n */
  int64_t blocks;
  int64_t steps;         /* of all blocks together; of each as many as words when not ordered */
  int32_t a_add;         /* BYTES and tiles: 0, or +-128: activations are stored that much higher, in the other signedness */
  bool ordered;          /* steps are not simply words 0, 1, 2, ... unmasked: `range` and `order` say which */
  int64_t words;         /* 32-bit words of the activations in a row: ceil(k / 4) or ceil(k / 2); tiles: whole groups */
  int32_t *w;            /* [steps][width] words of 4 bytes, 2 halves or 2 bf16; tiles: as zn_tile wants rows or columns */
  int32_t *order;        /* [steps][2]: word * scale, mask */
  int32_t *range;        /* [blocks][ZN_DOT_RANGE]: first step; doubles: so many times two steps go through Pair4, whose four
                          * products in a half fit it, those without a mask first, then the others; single steps behind them */
  bool has_plain;        /* there are doubles without a mask among those that come first */
  int32_t *sums;         /* [n] */
  int32_t *base;         /* [blocks][width] */
} zn_dotpack;

/* Centred weight (k, n); of bf16 its bits. */
typedef int32_t (*zn_dot_weight)(void *user, int64_t k, int64_t n);

/* Which form suits weights in [lo, hi] and activations of type a on this target. */
zn_dot_form zn_dot_choose(const zn_caps *caps, zn_dtype a, int32_t lo, int32_t hi);
/* Vector registers that a register tile needs beside accumulators and activations. */
unsigned zn_dot_temporaries(const zn_caps *caps);
/* Do tiles suit them? (Whether they pay, the schedule knows.) */
bool zn_dot_tiles(const zn_caps *caps, zn_dtype a, int32_t lo, int32_t hi);
static inline bool zn_dot_is_tiles(zn_dot_form f) { return f == ZN_DOT_TILES || f == ZN_DOT_TILE_ROWS; }
/* Time per word that BYTES takes for blocks of `width` columns, 1 for one Dot4 a word; from a sample of the blocks. */
double zn_dot_steps(const zn_caps *caps, int64_t k, int64_t n, int64_t width, zn_dot_weight weight, void *user);
/* Packs k x n weights for blocks of `width` columns; arrays from arena. scale: distance of two words in what `order`
 * indexes. */
void zn_dot_pack(zn_dotpack *p, zn_arena *arena, const zn_caps *caps, zn_dtype a, zn_dot_form form, int64_t k, int64_t n,
                 int64_t width, int64_t scale, zn_dot_weight weight, void *user);

/* The constants of a pack in the module. */
typedef struct zn_dot_consts {
  zn_loc w, order, range, sums, base;
} zn_dot_consts;
zn_dot_consts zn_dot_place(zn_lw *lw, const zn_dotpack *p, const char *name);
/* Adds the steps of block `block` up into variable acc. operands gives the activations of the word at `at` (word * scale)
 * and the index of the weights within [width]. Loops are serial: to be called inside the marked loops of a tile. */
void zn_dot_steps_emit(zn_lw *lw, const zn_dotpack *p, const zn_dot_consts *c, int64_t scale, zn_expr block, zn_expr column,
                       zn_kref acc, zn_kref (*activations)(zn_lw *lw, void *user, zn_expr at), void *user);
/* Starts a TileDot of block `block`, whose results, [rows][cols] i32, go to `to`; `other` is the activations' pointer and t says
 * how they lie: kind, groups, b_signed and c_signed are set here. */
void zn_dot_tile_emit(zn_lw *lw, const zn_dotpack *p, const zn_dot_consts *c, zn_expr block, zn_kref to, zn_kref other,
                      zn_dtype a, zn_tile *t);
/* The sum before the first step: init + base - (zero + a_add) * sums. zero: i32, 0 when there is none. block_column: block
 * * width + column in it; n: column. */
zn_kref zn_dot_initial(zn_lw *lw, const zn_dotpack *p, const zn_dot_consts *c, zn_kref init, zn_kref zero,
                       zn_expr block_column, zn_expr n);
#endif
