/* Kernel IR: how to compute. A function is a linear array of instructions; a value is the index of the instruction
 * that defines it, so the array order is the program order and structure comes from For/If/Else/Loop ... End.
 * Values are scalars (lanes 1) or vectors. Mutable state lives in variables (Var/Get/Set) and in buffers only.
 *
 * Kernel functions share one C signature, so that a launch is data:
 *     void kernel(void *const *bufs, const intptr_t *ints, intptr_t begin, intptr_t end);
 * bufs holds the pointer parameters in order, ints the idx parameters in order; [begin, end) is the part of the
 * kernel's grid to run (a kernel has at most one ZN_FOR_GRID loop, at top level; its iterations are independent;
 * a kernel without one is launched over [0, 1)). A grid loop counts from constant 0 by 1, so its variable is the
 * grid position itself: it runs from begin to min(end, hi).
 * Entry functions have the ABI's signature (runtime/zenith.h):
 *     int32_t entry(zn_tensor *in, zn_tensor *out, void *ws, uintptr_t ws_bytes, const zn_host *host);
 * with exactly these five parameters (ptr, ptr, ptr, idx, ptr). Only entries may Call and Ret.
 *
 * Arithmetic dtypes: bool, all 8..64-bit ints, idx, f32, f64. f16 and bf16 occur only in Load, Store, Cvt, Select,
 * Bitcast, Splat/Extract/Insert/Shuffle and variables. float8/4 and 2/4-bit ints are u8/i8 here; conversions are built
 * by the lowering. bool is one byte in memory (0 or 1).
 * Text form: .zk (docs/zk.md). */
#ifndef ZN_KIR_H
#define ZN_KIR_H
#include "zenithc/base/caps.h"
#include "zenithc/base/tensor.h"
#include "zenithc/base/text.h"

enum { ZN_KIR_MAX_ALLOC = 1 << 24 }; /* elements of one Alloc: it is stack */
typedef uint32_t zn_kref; /* instruction index; 0 = none (instruction 0 is a Nop) */

typedef enum zn_kop {
#define KOP(n, text, sig, cls) ZN_K_##n,
#include "codegen/kir/kops.def"
#undef KOP
  ZN_K_COUNT
} zn_kop;

typedef struct zn_kop_info {
  const char *text, *sig;
  char cls; /* C A M P X V L S as in kops.def */
} zn_kop_info;
extern const zn_kop_info zn_kops[ZN_K_COUNT];

typedef enum zn_for_kind {
  ZN_FOR_SERIAL,
  ZN_FOR_GRID,   /* split over threads by the launcher */
  ZN_FOR_VECTOR, /* iterations independent: widened to `factor` lanes by codegen/kir/widen.c (0 = the target's) */
  ZN_FOR_UNROLL, /* iterations independent: replicated `factor` times in lockstep (jammed) by widen.c */
  ZN_FOR_THREAD  /* iterations independent: spread over the threads of the team that runs the grid iteration (simt.c) */
} zn_for_kind;

typedef enum zn_dot_flags { /* Dot4's immediate */
  ZN_DOT_A_SIGNED = 1, /* the bytes of a are i8, else u8 */
  ZN_DOT_B_SIGNED = 2,
  ZN_DOT_PAIRS = 4     /* proved: a0*b0 + a1*b1 and a2*b2 + a3*b3 always fit i16 */
} zn_dot_flags;

typedef struct zn_kinst {
  uint8_t op;     /* zn_kop */
  uint8_t dtype;  /* zn_dtype of the result; for Store the stored element; for comparisons: of the result, BOOL */
  uint16_t lanes; /* 1 = scalar; for Store the number of elements */
  uint32_t a, b, c;
  union {
    int64_t i;
    double f;
  } imm;
} zn_kinst;

/* Is dtype t one that operation op computes on (classes A, M, P; comparisons: the operands' type)? */
bool zn_kop_accepts(zn_kop op, zn_dtype t);
/* Does the operation define something that operands may name (a value, or a variable for Var)? */
bool zn_kop_has_value(zn_kop op);
static inline bool zn_kdt_is_float(zn_dtype t) { return t == ZN_F32 || t == ZN_F64; }
static inline bool zn_kdt_is_int(zn_dtype t) {
  return t == ZN_IDX || t == ZN_I8 || t == ZN_I16 || t == ZN_I32 || t == ZN_I64 || t == ZN_U8 || t == ZN_U16 ||
         t == ZN_U32 || t == ZN_U64;
}

typedef enum zn_kparam_kind { ZN_KP_IN, ZN_KP_OUT, ZN_KP_INOUT, ZN_KP_INT } zn_kparam_kind;

typedef struct zn_kparam {
  const char *name;
  uint8_t kind;  /* zn_kparam_kind; ptr parameters first is not required */
  uint8_t dtype; /* element type for documentation and the interpreter's checks; IDX for INT */
  uint8_t align; /* bytes that divide the address of a pointer, a power of two; 0: the element's */
} zn_kparam;

typedef struct zn_kfunc {
  const char *name; /* C identifier, unique in the module */
  bool is_entry;
  bool exported; /* visible symbol in the artifact */
  uint16_t team; /* SIMT targets: threads that run one grid iteration together; 0 = not decided (zn_kpass_simt) */
  uint16_t blocks; /* SIMT targets: that many blocks shall fit a multiprocessor; 0 = not said */
  bool serial;   /* too short to be split over threads */
  const char *signature; /* of the node it computes, for tuning (zenithc/graph/knob.h); NULL when nobody asked */
  bool on_host;  /* SIMT targets: a kernel of the processor beside the device, written for caps->host */
  zn_kparam *params;
  uint32_t num_params, cap_params;
  zn_kinst *insts; /* [0] is Nop */
  uint32_t num_insts, cap_insts;
  uint32_t *extra; /* Call argument lists, Shuffle masks */
  uint32_t num_extra, cap_extra;
  const char *note; /* what it computes, for listings: "Conv conv1 + Relu"; may be NULL */
} zn_kfunc;

/* Mma's immediate: what the 32-bit words of a and b hold. */
typedef enum zn_mma_format {
  ZN_MMA_F16,
  ZN_MMA_BF16,
  ZN_MMA_TF32, /* f32 whose low 13 bits count as zeros */
  ZN_MMA_S8,   /* four bytes; the sum is i32 and wraps */
  ZN_MMA_U8S8, /* the same, those of a unsigned */
  ZN_MMA_FORMATS
} zn_mma_format;
/* Elements of a word. */
static inline unsigned zn_mma_per_word(zn_mma_format f) { return f == ZN_MMA_TF32 ? 1 : f >= ZN_MMA_S8 ? 4 : 2; }
static inline zn_dtype zn_mma_sum(zn_mma_format f) { return f >= ZN_MMA_S8 ? ZN_I32 : ZN_F32; }

/* Mma: row and column, inside A (16 x 8 words), B (8 words x 8) or C (16 x 8), of element `e` that thread `lane` holds; per:
 * elements of a word, which are neighbours along the depth. */
static inline void zn_mma_spot(char matrix, unsigned per, unsigned lane, unsigned e, unsigned *row, unsigned *col) {
  unsigned group = lane / 4, word = e / per, along = lane % 4 * per + e % per;
  if (matrix == 'A') *row = group + word % 2 * 8, *col = along + word / 2 * 4 * per;
  if (matrix == 'B') *row = along + word * 4 * per, *col = group;
  if (matrix == 'C') *row = group + e / 2 * 8, *col = lane % 4 * 2 + e % 2;
}
static inline void zn_mma_place(char matrix, unsigned lane, unsigned e, unsigned *row, unsigned *col) {
  zn_mma_spot(matrix, 2, lane, e, row, col);
}

/* Share's immediate: who uses the memory next, and whether it may write there. */
typedef enum zn_share_flags { ZN_SHARE_HOST = 0, ZN_SHARE_DEVICE = 1, ZN_SHARE_OWNER = 2, ZN_SHARE_WRITE = 4 } zn_share_flags;

/* Flow's immediate: what stands there, and which operands count. If and While begin a region, Else and End go on with it. */
typedef enum zn_flow_kind { ZN_FLOW_IF, ZN_FLOW_ELSE, ZN_FLOW_WHILE, ZN_FLOW_END, ZN_FLOW_KINDS } zn_flow_kind;
typedef enum zn_flow_flags { ZN_FLOW_COND = 4, ZN_FLOW_COUNT = 8 } zn_flow_flags;

/* GroupMma's immediate. */
static inline zn_mma_format zn_group_format(int64_t imm) { return (zn_mma_format)(imm % 8); }
static inline unsigned zn_group_under_way(int64_t imm) { return (unsigned)(imm / 8); }

/* GroupMma: row and column of the result's element `e` that thread `t` of the 128 holds. */
static inline void zn_group_place(unsigned t, unsigned e, unsigned *row, unsigned *col) {
  zn_mma_place('C', t % 32, e % 4, row, col);
  *row += t / 32 * 16, *col += e / 4 * 8;
}

/* TileDot's immediate. Results: `row_tiles` * `rows` rows of `cols` words. `kind` gives the bytes of a group and of a unit
 * (caps.h). Operand b: a row's bytes of a group follow each other; rows lie `row_bytes` apart, groups one behind the other in a
 * row, or, where row_bytes is 0, rows one behind the other in a group, and groups one behind the other.
 * Operand c: unit after unit of the depth, each of `col_step` columns one behind the other. */
typedef struct zn_tile {
  unsigned kind;
  unsigned rows, row_tiles;   /* 1 .. 16, 1 .. 2 */
  unsigned cols, col_step;    /* multiples of 4, at most 32 and 252 */
  unsigned groups, row_bytes; /* below 2^16 and 2^24 */
  bool b_signed, c_signed;
  bool reals; /* pairs of bytes are bf16, sums f32 */
} zn_tile;
int64_t zn_tile_code(const zn_tile *t);
bool zn_tile_read(int64_t code, zn_tile *out); /* false: not the code of a tile */
static inline uint64_t zn_tile_row_step(const zn_tile *t) { return t->row_bytes ? t->row_bytes : zn_tile_group(t->kind); }
static inline uint64_t zn_tile_group_step(const zn_tile *t) {
  const unsigned group = zn_tile_group(t->kind);
  return t->row_bytes ? group : (uint64_t)t->row_tiles * t->rows * group;
}

/* Sums of products of the parts of 32-bit words: (a, b, c) and a zn_dot_flags. */
static inline bool zn_kop_is_dot(uint8_t op) {
  return op == ZN_K_Dot4 || op == ZN_K_Pair4 || op == ZN_K_Dot2 || op == ZN_K_Dot2Bf16;
}

/* Operations that the threads of a warp or team do together, or at which they wait for each other. */
static inline bool zn_kop_joins(uint8_t op) {
  return op == ZN_K_Barrier || op == ZN_K_Mma || op == ZN_K_LdMatrix || op == ZN_K_LaneXor ||
         op == ZN_K_GroupMma || op == ZN_K_Meet || op == ZN_K_SignalWait;
}

/* Type of the value r. An Alloc's dtype is its element type; its value is a pointer. */
static inline zn_dtype zn_kf_dtype(const zn_kfunc *f, zn_kref r) {
  return f->insts[r].op == ZN_K_Alloc ? ZN_PTR : (zn_dtype)f->insts[r].dtype;
}
static inline unsigned zn_kf_lanes(const zn_kfunc *f, zn_kref r) { return f->insts[r].lanes; }

typedef struct zn_kconst {
  const char *name;
  zn_dtype dtype;
  uint64_t count;
  const void *data; /* borrowed: mapped model or arena, little-endian; NULL when `fill` produces it */
  void (*fill)(const void *user, void *dst); /* writes all count elements; may be called several times */
  const void *user;
} zn_kconst;

typedef struct zn_kcost { /* of all calls of a kernel in one run: codegen/lower/cost.c */
  double flops, bytes;
  bool inexact; /* data decides: at least so much */
} zn_kcost;

typedef struct zn_kio { /* a model input or output, for the descriptor */
  const char *name;
  zn_dtype dtype; /* of sequences and optionals: of their tensors; of maps: of the values */
  uint32_t rank;  /* lists: 1 */
  int64_t dims[ZN_MAX_RANK];          /* -1 where symbolic */
  const char *dim_text[ZN_MAX_RANK];  /* "batch", "2*seq + 1"; "" for constants */
  uint32_t kind;  /* the kind bits of runtime/zenith.h with a map's key type; 0: a tensor */
  uint32_t over;  /* outputs: number of the input whose memory it may lie over, plus one; 0: none */
} zn_kio;
/* The dtype field of zn_tensor and zn_io_desc. */
static inline uint32_t zn_kio_code(const zn_kio *io) { return io->kind | (uint32_t)zn_dtypes[io->dtype].onnx; }
static inline zn_vkind zn_kio_vkind(const zn_kio *io) {
  static const uint8_t kinds[8] = {ZN_V_TENSOR, ZN_V_SEQ, ZN_V_OPT, ZN_V_MAP, ZN_V_OPT, ZN_V_SEQ};
  return (zn_vkind)kinds[io->kind >> 8 & 7];
}
static inline bool zn_kio_of(const zn_kio *io) { return (io->kind >> 8 & 7) > 3; } /* an optional sequence, a sequence of maps */

typedef struct zn_kmod {
  zn_arena *arena;
  const char *name; /* C identifier prefix of the exported symbols: NAME_model NAME_run NAME_plan */
  zn_kfunc **funcs;
  uint32_t num_funcs, cap_funcs;
  zn_kconst *consts;
  uint32_t num_consts, cap_consts;
  zn_kio *inputs, *outputs;
  uint32_t num_inputs, num_outputs;
  uint32_t run_fn, plan_fn;  /* function numbers of the two entries */
  zn_kcost *costs;           /* per function; NULL: not counted */
  uint64_t workspace_bytes;  /* exact when static, 0 when it depends on symbols */
  bool mixed;                /* a device's artifact in whose runs the host has a part */
  bool flows;                /* its run has regions that a device may decide (Flow) */
  const char *provenance;    /* one line: compiler version, model hash, options, verdict */
} zn_kmod;

/* What f is for: caps, or the processor beside the device. */
static inline const zn_caps *zn_kfunc_caps(const zn_kfunc *f, const zn_caps *caps) {
  return (f->on_host || f->is_entry) && caps->host ? caps->host : caps;
}
/* Is f a kernel that a device runs? */
static inline bool zn_kfunc_on_device(const zn_kfunc *f) { return !f->is_entry && !f->on_host; }

typedef struct zn_variant { /* a module and what it was lowered for */
  const zn_kmod *mod;
  const zn_caps *caps;
} zn_variant;

zn_kmod *zn_kmod_new(zn_arena *a, const char *name);
uint32_t zn_kmod_add_const(zn_kmod *m, const char *name, zn_dtype dtype, uint64_t count, const void *data);
/* kconst.c: elements of a constant, borrowed or produced in a; every reader of constants asks this. */
const void *zn_kconst_data(const zn_kconst *k, zn_arena *a);
static inline uint64_t zn_kconst_bytes(const zn_kconst *k) { return k->count * zn_dtype_bytes(k->dtype); }
/* All constants one after another, each at a multiple of 64 bytes, as artifacts hold them: place of number i (of the end
 * for num_consts), size, and the bytes. Each is produced when its turn comes. false: f has an error. */
enum { ZN_KCONST_ALIGN = 64 };
uint64_t *zn_kmod_const_places(const zn_kmod *m, zn_arena *a);
uint64_t zn_kmod_consts_bytes(const zn_kmod *m);
bool zn_kmod_write_consts(const zn_kmod *m, FILE *f);
/* Removes the constants that no function names: tables that a lowering prepared and then had no use for. */
void zn_kmod_drop_consts(zn_kmod *m);
/* The same model lowered for several instruction sets: afterwards all modules name the same list of constants (in a), in
 * which equal bytes are one, and state the largest workspace. */
void zn_kmod_unite(zn_kmod *const *mods, uint32_t n, zn_arena *a);

/* ---- builder: errors are sticky (first one kept), every call after one returns 0 ---- */
typedef struct zn_kb {
  zn_ctx *ctx;
  zn_kmod *mod;
  zn_kfunc *f;
  const char *error; /* NULL = fine */
  int depth;         /* open regions */
} zn_kb;

/* Starts a function in mod; returns its number. */
uint32_t zn_kb_begin(zn_kb *b, zn_ctx *ctx, zn_kmod *mod, const char *name, bool is_entry);
/* Checks that all regions are closed and the function verifies; sticky error becomes ZN_BUG. */
void zn_kb_finish(zn_kb *b);
zn_kref zn_kb_param(zn_kb *b, const char *name, zn_kparam_kind kind, zn_dtype elem);

/* Appends as given, without folding: for passes. */
zn_kref zn_kb_raw(zn_kb *b, zn_kinst in);
/* The functions below check types and fold: constants, x+0, x*1, x*0 (integers), select with constant condition. */
zn_kref zn_kb_int(zn_kb *b, zn_dtype t, int64_t v);
zn_kref zn_kb_float(zn_kb *b, zn_dtype t, double v);
zn_kref zn_kb_idx(zn_kb *b, int64_t v);
zn_kref zn_kb_un(zn_kb *b, zn_kop op, zn_kref a);
zn_kref zn_kb_bin(zn_kb *b, zn_kop op, zn_kref x, zn_kref y); /* equal dtypes; a scalar operand is splat to match */
zn_kref zn_kb_cmp(zn_kb *b, zn_kop op, zn_kref x, zn_kref y);
zn_kref zn_kb_fma(zn_kb *b, zn_kref x, zn_kref y, zn_kref z);
/* Dot4, Pair4 or Dot2 (flags 0): acc + the products of the parts of x and y. */
zn_kref zn_kb_dot(zn_kb *b, zn_kop op, zn_kref x, zn_kref y, zn_kref acc, unsigned flags);
zn_kref zn_kb_select(zn_kb *b, zn_kref cond, zn_kref x, zn_kref y);
zn_kref zn_kb_cvt(zn_kb *b, zn_kref a, zn_dtype to);
zn_kref zn_kb_cvtfast(zn_kb *b, zn_kref a, zn_dtype to);
zn_kref zn_kb_bitcast(zn_kb *b, zn_kref a, zn_dtype to);
zn_kref zn_kb_splat(zn_kb *b, zn_kref a, unsigned lanes);
zn_kref zn_kb_iota(zn_kb *b, zn_dtype t, unsigned lanes);
zn_kref zn_kb_extract(zn_kb *b, zn_kref a, unsigned lane);
zn_kref zn_kb_insert(zn_kb *b, zn_kref a, zn_kref s, unsigned lane);
zn_kref zn_kb_shuffle(zn_kb *b, zn_kref x, zn_kref y, unsigned lanes, const uint32_t *mask);
zn_kref zn_kb_load(zn_kb *b, zn_dtype t, unsigned lanes, zn_kref ptr, zn_kref idx);
void zn_kb_store(zn_kb *b, zn_kref ptr, zn_kref idx, zn_kref value);
zn_kref zn_kb_ptradd(zn_kb *b, zn_kref ptr, zn_kref bytes);
void zn_kb_share(zn_kb *b, zn_kref ptr, zn_kref bytes, unsigned flags); /* zn_share_flags */
zn_kref zn_kb_flow(zn_kb *b, zn_kref cond, zn_kref count, zn_kref most, unsigned kind); /* with zn_flow_flags; bool */
void zn_kb_tiledot(zn_kb *b, zn_kref to, zn_kref rows, zn_kref cols, const zn_tile *t);
void zn_kb_async_copy(zn_kb *b, zn_kref to, zn_kref from, zn_kref bytes);
void zn_kb_async_wait(zn_kb *b, unsigned groups); /* closes no group */
void zn_kb_statement(zn_kb *b, zn_kop op);        /* Barrier, Meet, AsyncGroup, AsyncShare, Await */
void zn_kb_signal_set(zn_kb *b, zn_kref signal, int64_t arrivals);
void zn_kb_signal_arrive(zn_kb *b, zn_kref signal, int64_t bytes);
void zn_kb_async_arrive(zn_kb *b, zn_kref signal);
void zn_kb_signal_wait(zn_kb *b, zn_kref signal, zn_kref turn);
void zn_kb_bulk_copy(zn_kb *b, zn_kref to, zn_kref from, int64_t bytes, zn_kref signal);
void zn_kb_registers(zn_kb *b, int64_t most); /* < 0: fewer than before */
zn_kref zn_kb_ldmatrix(zn_kb *b, unsigned squares, bool transposed, zn_kref ptr, zn_kref word);
zn_kref zn_kb_groupmma(zn_kb *b, zn_kref rows, zn_kref cols, zn_kref acc, zn_mma_format format, unsigned under_way);
zn_kref zn_kb_groupwait(zn_kb *b, zn_kref acc);
zn_kref zn_kb_lanexor(zn_kb *b, zn_kref a, unsigned bits);
void zn_kb_prefetch(zn_kb *b, zn_kref ptr, zn_kref bytes);
zn_kref zn_kb_alloc(zn_kb *b, zn_dtype t, uint64_t count);
zn_kref zn_kb_hostalloc(zn_kb *b, zn_kref host, zn_kref bytes);
zn_kref zn_kb_hostimage(zn_kb *b, zn_kref host, zn_kref file, zn_kref image, int64_t pixels);
zn_kref zn_kb_constaddr(zn_kb *b, uint32_t const_id);
zn_kref zn_kb_var(zn_kb *b, zn_kref init);
zn_kref zn_kb_get(zn_kb *b, zn_kref var);
void zn_kb_set(zn_kb *b, zn_kref var, zn_kref v);
zn_kref zn_kb_for(zn_kb *b, zn_kref lo, zn_kref hi, int64_t step, zn_for_kind kind, unsigned factor);
void zn_kb_if(zn_kb *b, zn_kref cond);
void zn_kb_else(zn_kb *b);
void zn_kb_loop(zn_kb *b);
void zn_kb_break(zn_kb *b, zn_kref cond);
void zn_kb_end(zn_kb *b);
void zn_kb_ret(zn_kb *b, zn_kref code);
void zn_kb_call(zn_kb *b, uint32_t fn, const zn_kref *args, uint32_t num_args, zn_kref grid);

/* Constant value of an instruction, if it is one (looks through Splat). */
bool zn_kf_const_int(const zn_kfunc *f, zn_kref r, int64_t *out);
bool zn_kf_const_float(const zn_kfunc *f, zn_kref r, double *out);
double zn_exp_scale(zn_dtype t); /* f32, f64: for ScaledExp: sums of 2^62 results do not overflow */
/* match[i] = index of the End (or Else) that closes the region opened at i (For If Else Loop); 0 elsewhere. */
uint32_t *zn_kf_match(const zn_kfunc *f, zn_arena *a);

/* expand_dot.c: does the target do this Dot4 or Dot2 as such? Others become shifts and multiplications. */
bool zn_dot4_native(const zn_caps *caps, unsigned lanes, unsigned flags);
bool zn_pair4_native(const zn_caps *caps, unsigned lanes, unsigned flags);
bool zn_dot2_native(const zn_caps *caps, unsigned lanes);
bool zn_dot2_bf16_native(const zn_caps *caps, unsigned lanes);

/* ---- module-wide services, one file each ---- */
/* kverify.c: structure, types, lanes, variables in scope, one grid loop; reports through ctx as our bug's text. */
zn_status zn_kmod_verify(zn_ctx *c, const zn_kmod *m);
zn_status zn_kfunc_verify(zn_ctx *c, const zn_kmod *m, const zn_kfunc *f); /* one function; Calls are not followed */
/* ktext.c */
void zn_kmod_print(const zn_kmod *m, zn_text *t);
void zn_kfunc_print(const zn_kmod *m, const zn_kfunc *f, zn_text *t);
/* base_dir: where `bin` constants are looked up; NULL = refuse them. */
zn_status zn_kmod_parse(zn_ctx *c, zn_arena *a, const char *src, size_t n, const char *base_dir, zn_kmod **out);
/* widen.c: ZN_FOR_VECTOR and ZN_FOR_UNROLL loops become vector and replicated code (with scalar tails). */
zn_status zn_kpass_widen(zn_ctx *c, zn_kmod *m, const zn_caps *caps);
/* simt.c, for targets whose caps say simt; the interpreter runs the result as it is.
 * threads: marks of independent iterations become thread loops (before widen, which then only replicates).
 * simt: chooses the team of each kernel and puts a barrier wherever a thread may touch what another one touched. The rule
 * of such a kernel: code outside thread loops is run by the whole team alike, its stores by the first thread; an Alloc
 * belongs to the team. */
zn_status zn_kpass_threads(zn_ctx *c, zn_kmod *m);
zn_status zn_kpass_simt(zn_ctx *c, zn_kmod *m, const zn_caps *caps);
/* Bytes of a kernel's Allocs, each rounded up to 16. */
uint64_t zn_kfunc_alloc_bytes(const zn_kfunc *f);
/* expand.c: class M operations, and what caps lack (fma, rounding, f16 conversion), become arithmetic. */
zn_status zn_kpass_expand(zn_ctx *c, zn_kmod *m, const zn_caps *caps);
/* kalign.c: vector accesses of neighbours say how their addresses are aligned, as far as parameters and indexes prove it. */
zn_status zn_kpass_align(zn_ctx *c, zn_kmod *m);
/* kclean.c: local CSE, hoisting of loop-invariant scalars, removal of unused values. */
zn_status zn_kpass_clean(zn_ctx *c, zn_kmod *m);

/* ---- interp.c: slow and obvious; the definition of what the IR means ---- */
typedef struct zn_interp_opts {
  bool check_bounds;   /* loads and stores stay inside known buffers */
  uint64_t max_steps;  /* 0 = unlimited */
  const void *const *consts; /* of zn_interp_consts; null: outputs that point into constants are gone after the run */
} zn_interp_opts;
/* Contents of the module's constants, aligned as artifacts align them, in the arena. */
const void *const *zn_interp_consts(const zn_kmod *m, zn_arena *a);
/* Runs an entry function on ABI tensors exactly as compiled code would; returns its code (zn_result of zenith.h),
 * or a negative number when the interpreter itself refuses (bounds, steps; message through ctx). */
int32_t zn_interp_entry(zn_ctx *c, const zn_kmod *m, uint32_t fn, void *in, void *out, void *ws, uint64_t ws_bytes,
                        const void *host, const zn_interp_opts *opts);
/* Runs one kernel: for tests. */
int32_t zn_interp_kernel(zn_ctx *c, const zn_kmod *m, uint32_t fn, void *const *bufs, const uint64_t *buf_bytes,
                         const int64_t *ints, const zn_interp_opts *opts);
#endif
