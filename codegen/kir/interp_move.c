/* The interpreter's data movement: vectors, selection, variables, loads and stores. Elements are
 * moved by size. */
#include "codegen/kir/interp.h"
#include "runtime/zenith.h"

#define SELECT(T)                                                                   \
  static void select_##T(const zn_idec *d, zn_imach *m) {                           \
    const uint8_t *pa = ZN_SLOT(uint8_t, m, d->a);                                  \
    const T *restrict pb = ZN_SLOT(T, m, d->b), *restrict pc = ZN_SLOT(T, m, d->c); \
    T *restrict pr = ZN_SLOT(T, m, d->r);                                           \
    uint32_t step = d->vector_ctl;                                                  \
    ZN_LANES(d, pr[i] = pa[i * step] ? pb[i] : pc[i]);                              \
  }
#define SPLAT(T)                                         \
  static void splat_##T(const zn_idec *d, zn_imach *m) { \
    const T x = *ZN_SLOT(T, m, d->a);                    \
    T *restrict pr = ZN_SLOT(T, m, d->r);                \
    ZN_LANES(d, pr[i] = x);                              \
  }
#define SHUFFLE(T)                                                                           \
  static void shuffle_##T(const zn_idec *d, zn_imach *m) {                                   \
    const T *pa = ZN_SLOT(T, m, d->a), *pb = ZN_SLOT(T, m, d->b);                            \
    T *pr = ZN_SLOT(T, m, d->r);                                                             \
    const uint32_t *mask = d->ptr, n = (uint32_t)d->imm;                                     \
    for (uint32_t i = 0; i < d->n; i++) pr[i] = mask[i] < n ? pa[mask[i]] : pb[mask[i] - n]; \
  }
SELECT(uint8_t)
SELECT(uint16_t)
SELECT(uint32_t)
SELECT(uint64_t)
SPLAT(uint8_t)
SPLAT(uint16_t)
SPLAT(uint32_t)
SPLAT(uint64_t)
SHUFFLE(uint8_t)
SHUFFLE(uint16_t)
SHUFFLE(uint32_t)
SHUFFLE(uint64_t)

static void iota(const zn_idec *d, zn_imach *m) {
  void *r = m->slots + d->r;
  zn_dtype t = (zn_dtype)d->dtype;
  for (uint32_t i = 0; i < d->n; i++) {
    if (t == ZN_IDX)
      ((int64_t *)r)[i] = i;
    else if (zn_is_float(t))
      zn_store_f64(t, r, i, (double)i);
    else
      zn_store_i64(t, r, i, (int64_t)i);
  }
}

/* Variables keep their slot; Get and Set copy. */
static void copy(const zn_idec *d, zn_imach *m) {
  memcpy(m->slots + d->r, m->slots + d->a, d->n * d->elem);
}

static void copy_8(const zn_idec *d, zn_imach *m) { memcpy(m->slots + d->r, m->slots + d->a, 8); }

static void extract(const zn_idec *d, zn_imach *m) {
  memcpy(m->slots + d->r, m->slots + d->a + (size_t)d->imm * d->elem, d->elem);
}

static void insert(const zn_idec *d, zn_imach *m) {
  memcpy(m->slots + d->r, m->slots + d->a, d->n * d->elem);
  memcpy(m->slots + d->r + (size_t)d->imm * d->elem, m->slots + d->b, d->elem);
}

/* ---- memory ---- */

static bool inside(const zn_iregion *r, const char *p, uint64_t bytes) {
  return p >= r->lo && bytes <= r->bytes && (uint64_t)(p - r->lo) <= r->bytes - bytes;
}

static void out_of_bounds(const zn_idec *d, zn_imach *m, const char *what, int64_t idx) {
  if (m->failed) return;
  m->failed = true;
  const zn_kfunc *f = NULL;
  for (uint32_t i = 0; i < m->mod->num_funcs; i++)
    if (m->funcs[i] && m->funcs[i]->slots == m->slots) f = m->funcs[i]->f;
  char where[300];
  snprintf(where, sizeof where, "interp: function '%s', instruction %u (%s.%s)", f ? f->name : "?",
           d->inst, zn_kops[d->op].text, zn_dtypes[d->dtype].name);
  zn_error(m->c, where, "%s, element index %lld", what, (long long)idx);
}

static bool check(const zn_idec *d, zn_imach *m, const char *p, uint64_t bytes, int64_t idx) {
  if (d->imm > 1 && (uintptr_t)p % (uint64_t)d->imm) {
    out_of_bounds(d, m, "address has not the promised alignment", idx);
    return false;
  }
  if (m->num_regions && inside(&m->regions[*d->hint], p, bytes)) return true;
  for (uint32_t i = 0; i < m->num_regions; i++) {
    if (inside(&m->regions[i], p, bytes)) {
      *d->hint = i;
      return true;
    }
  }
  out_of_bounds(d, m, "access outside every known buffer", idx);
  return false;
}

bool zn_interp_reachable(const zn_imach *m, const char *p, uint64_t bytes) {
  for (uint32_t i = 0; i < m->num_regions; i++)
    if (inside(&m->regions[i], p, bytes)) return true;
  return false;
}

static char *at(const zn_idec *d, zn_imach *m, int64_t idx) {
  uintptr_t base = *ZN_SLOT(uintptr_t, m, d->a);
  return (char *)(base + (uintptr_t)idx * d->elem);
}

static void load(const zn_idec *d, zn_imach *m) {
  int64_t idx = *ZN_SLOT(int64_t, m, d->b);
  const char *p = at(d, m, idx);
  size_t bytes = (size_t)d->n * d->elem;
  if (m->opts.check_bounds && !check(d, m, p, bytes, idx)) return;
  memcpy(m->slots + d->r, p, bytes);
}

#define LOAD1(T)                                                         \
  static void load_##T(const zn_idec *d, zn_imach *m) {                  \
    int64_t idx = *ZN_SLOT(int64_t, m, d->b);                            \
    const char *p = at(d, m, idx);                                       \
    if (m->opts.check_bounds && !check(d, m, p, sizeof(T), idx)) return; \
    memcpy(m->slots + d->r, p, sizeof(T));                               \
  }
LOAD1(uint32_t)
LOAD1(uint64_t)

static void gather(const zn_idec *d, zn_imach *m) {
  const int64_t *idx = ZN_SLOT(int64_t, m, d->b);
  for (uint32_t i = 0; i < d->n; i++) {
    const char *p = at(d, m, idx[i]);
    if (m->opts.check_bounds && !check(d, m, p, d->elem, idx[i])) return;
    memcpy(m->slots + d->r + (size_t)i * d->elem, p, d->elem);
  }
}

static void store(const zn_idec *d, zn_imach *m) {
  int64_t idx = *ZN_SLOT(int64_t, m, d->b);
  char *p = at(d, m, idx);
  size_t bytes = (size_t)d->n * d->elem;
  if (m->opts.check_bounds && !check(d, m, p, bytes, idx)) return;
  memcpy(p, m->slots + d->c, bytes);
}

static void scatter(const zn_idec *d, zn_imach *m) {
  const int64_t *idx = ZN_SLOT(int64_t, m, d->b);
  for (uint32_t i = 0; i < d->n; i++) {
    char *p = at(d, m, idx[i]);
    if (m->opts.check_bounds && !check(d, m, p, d->elem, idx[i])) return;
    memcpy(p, m->slots + d->c + (size_t)i * d->elem, d->elem);
  }
}

static void ptradd(const zn_idec *d, zn_imach *m) {
  *ZN_SLOT(uintptr_t, m, d->r) = *ZN_SLOT(uintptr_t, m, d->a) + *ZN_SLOT(uintptr_t, m, d->b);
}

static void host_alloc(const zn_idec *d, zn_imach *m) {
  const zn_host *host = *ZN_SLOT(const zn_host *, m, d->a);
  int64_t bytes = *ZN_SLOT(int64_t, m, d->b);
  void *p = host->alloc(host->alloc_user, (size_t)bytes);
  zn_interp_region(m, p, (uint64_t)bytes);
  memcpy(m->slots + d->r, &p, sizeof p);
}

static void not_recorded(const zn_idec *d, zn_imach *m) { *ZN_SLOT(uint8_t, m, d->r) = 0; }

/* The descriptor and what it points to. */
static bool tensor_reachable(zn_imach *m, const zn_tensor *t) {
  return zn_interp_reachable(m, (const char *)t, sizeof *t) && (!t->bytes || zn_interp_reachable(m, t->u.data, t->bytes));
}

/* The hook sees the caller's memory as it is: only what it may touch is checked. */
static void host_image(const zn_idec *d, zn_imach *m) {
  const zn_host *host = *ZN_SLOT(const zn_host *, m, d->a);
  zn_tensor *file = *ZN_SLOT(zn_tensor *, m, d->b), *image = *ZN_SLOT(zn_tensor *, m, d->c);
  if (!tensor_reachable(m, file) || !tensor_reachable(m, image)) {
    zn_error(m->c, NULL, "interp: an image or its file lies outside of what may be accessed");
    m->failed = true;
    return;
  }
  int32_t code = host->decode_image(host->image_user, file, (uint32_t)d->imm, image);
  memcpy(m->slots + d->r, &code, sizeof code);
}

/* Done at once: what is read before its AsyncWait is a bug that this does not show. */
static void async_copy(const zn_idec *d, zn_imach *m) {
  char *to = *ZN_SLOT(char *, m, d->a);
  const char *from = *ZN_SLOT(const char *, m, d->b);
  int64_t n = *ZN_SLOT(int64_t, m, d->c);
  bool aligned = (uintptr_t)to % 16 == 0, counted = n >= 0 && n <= 16;
  bool inside = zn_interp_reachable(m, to, 16) && (n <= 0 || zn_interp_reachable(m, from, (uint64_t)n));
  if (!aligned || !counted || (m->opts.check_bounds && !inside)) {
    zn_error(m->c, NULL, "interp: an asynchronous copy of %lld bytes at a bad place", (long long)n);
    m->failed = true;
    return;
  }
  if (n) memcpy(to, from, (size_t)n);
  memset(to + n, 0, (size_t)(16 - n));
}

static int32_t tile_byte(const char *p, bool is_signed) { return is_signed ? (int8_t)*p : (uint8_t)*p; }

/* Row r of a TileDot times all columns. */
static void tile_row(const zn_tile *t, const char *rows, const char *cols, uint64_t r, uint32_t *sums) {
  const uint64_t group = zn_tile_group(t->kind), unit = zn_tile_unit(t->kind);
  memset(sums, 0, t->cols * sizeof *sums);
  for (uint64_t g = 0; g < t->groups; g++)
    for (uint64_t k = 0; k < group; k++) {
      const int32_t x = tile_byte(rows + r * zn_tile_row_step(t) + g * zn_tile_group_step(t) + k, t->b_signed);
      const char *y = cols + (g * group + k) / unit * t->col_step * unit + k % unit;
      for (uint64_t j = 0; j < t->cols; j++) sums[j] += (uint32_t)(x * tile_byte(y + unit * j, t->c_signed));
    }
}

static uint32_t tile_half(const char *p) {
  uint16_t h;
  memcpy(&h, p, sizeof h);
  return h;
}

/* The same of bf16, in the order of tdpbf16ps: a group's even and odd elements each by themselves. */
static void tile_row_reals(const zn_tile *t, const char *rows, const char *cols, uint64_t r, float *sums) {
  const uint64_t words = zn_tile_group(t->kind) / 4;
  for (uint64_t j = 0; j < t->cols; j++) sums[j] = 0;
  for (uint64_t g = 0; g < t->groups; g++) {
    const char *x = rows + r * zn_tile_row_step(t) + g * zn_tile_group_step(t), *y = cols + g * words * t->col_step * 4;
    for (uint64_t j = 0; j < t->cols; j++) {
      float part[2] = {0, 0};
      for (uint64_t k = 0; k < 2 * words; k++) {
        const uint32_t weight = tile_half(y + (k / 2 * t->col_step + j) * 4 + k % 2 * 2);
        part[k % 2] = zn_interp_bf16_step(tile_half(x + 2 * k), weight, part[k % 2]);
      }
      sums[j] += part[0] + part[1];
    }
  }
}

static void tile_dot(const zn_idec *d, zn_imach *m) {
  char *to = *ZN_SLOT(char *, m, d->a);
  const char *rows = *ZN_SLOT(const char *, m, d->b), *cols = *ZN_SLOT(const char *, m, d->c);
  zn_tile t;
  bool fine = zn_tile_read(d->imm, &t);
  const uint64_t n = (uint64_t)t.rows * t.row_tiles, w = t.cols, group = zn_tile_group(t.kind), unit = zn_tile_unit(t.kind);
  const uint64_t rows_end = (n - 1) * zn_tile_row_step(&t) + (t.groups - 1) * zn_tile_group_step(&t) + group;
  if (m->opts.check_bounds)
    fine = fine && zn_interp_reachable(m, to, n * w * 4) && zn_interp_reachable(m, rows, rows_end) &&
           zn_interp_reachable(m, cols, ((t.groups * group / unit - 1) * t.col_step + w) * unit);
  if (!fine) {
    zn_error(m->c, NULL, "interp: a product of tiles reaches outside its buffers");
    m->failed = true;
    return;
  }
  for (uint64_t r = 0; r < n; r++) {
    uint32_t sums[32];
    float reals[32];
    if (t.reals) tile_row_reals(&t, rows, cols, r, reals);
    else tile_row(&t, rows, cols, r, sums);
    memcpy(to + r * w * 4, t.reals ? (const void *)reals : sums, w * 4);
  }
}

/* ---- signals ---- */

typedef struct signal { /* what the eight bytes hold here */
  uint16_t arrivals, left;
  int32_t turn; /* the present one */
} signal;

static bool refuse(zn_imach *m, const char *why) {
  zn_error(m->c, NULL, "interp: %s", why);
  m->failed = true;
  return false;
}

static bool read_signal(zn_imach *m, uint32_t slot, signal *s) {
  const char *p = *ZN_SLOT(const char *, m, slot);
  if ((uintptr_t)p % 8 || !zn_interp_reachable(m, p, sizeof *s)) return refuse(m, "a signal at a bad place");
  memcpy(s, p, sizeof *s);
  return true;
}

static void signal_set(const zn_idec *d, zn_imach *m) {
  signal s;
  if (!read_signal(m, d->a, &s)) return;
  s = (signal){.arrivals = (uint16_t)d->imm, .left = (uint16_t)d->imm};
  memcpy(*ZN_SLOT(char *, m, d->a), &s, sizeof s);
}

/* Bytes come at once here, so nothing is left of what a turn announces when its last thread arrives. */
static void signal_arrive(const zn_idec *d, zn_imach *m) {
  signal s;
  if (!read_signal(m, d->a, &s)) return;
  if (s.left == 0 || s.left > s.arrivals) {
    refuse(m, "an arrival at what is no signal");
    return;
  }
  if (--s.left == 0) s.left = s.arrivals, s.turn++;
  memcpy(*ZN_SLOT(char *, m, d->a), &s, sizeof s);
}

bool zn_interp_signal_over(const zn_idec *d, zn_imach *m, bool *over) {
  signal s;
  int64_t turn = *ZN_SLOT(int64_t, m, d->b);
  if (!read_signal(m, d->a, &s)) return false;
  if (turn != s.turn && turn != s.turn - 1) return refuse(m, "a turn is awaited that is neither the present nor the last");
  *over = turn < s.turn;
  return true;
}

static void bulk_copy(const zn_idec *d, zn_imach *m) {
  char *to = *ZN_SLOT(char *, m, d->a);
  const char *from = *ZN_SLOT(const char *, m, d->b);
  signal s;
  if (!read_signal(m, d->c, &s)) return;
  bool aligned = (uintptr_t)to % 16 == 0 && (uintptr_t)from % 16 == 0;
  bool inside = zn_interp_reachable(m, to, (uint64_t)d->imm) && zn_interp_reachable(m, from, (uint64_t)d->imm);
  if (!aligned || (m->opts.check_bounds && !inside)) refuse(m, "a copy at a bad place");
  else memcpy(to, from, (size_t)d->imm);
}

static void nothing(const zn_idec *d, zn_imach *m) {
  (void)d;
  (void)m;
}

#define BY_SIZE(name)               \
  (d->elem == 1   ? name##_uint8_t  \
   : d->elem == 2 ? name##_uint16_t \
   : d->elem == 4 ? name##_uint32_t \
                  : name##_uint64_t)

zn_ifn zn_interp_move(const zn_idec *d) {
  switch (d->op) {
    case ZN_K_Select: return BY_SIZE(select);
    case ZN_K_Splat: return BY_SIZE(splat);
    case ZN_K_Shuffle: return BY_SIZE(shuffle);
    case ZN_K_Iota: return iota;
    case ZN_K_Extract: return extract;
    case ZN_K_Insert: return insert;
    case ZN_K_Bitcast:
    case ZN_K_Var:
    case ZN_K_Get:
    case ZN_K_GroupWait:
    case ZN_K_Set: return d->n * d->elem <= 8 ? copy_8 : copy;
    case ZN_K_PtrAdd: return ptradd;
    case ZN_K_HostAlloc: return host_alloc;
    case ZN_K_HostImage: return host_image;
    case ZN_K_Flow: return not_recorded;
    case ZN_K_Prefetch:
    case ZN_K_Share: /* here all memory is one */
    case ZN_K_AsyncGroup:
    case ZN_K_AsyncWait:
    case ZN_K_AsyncShare:
    case ZN_K_Meet:
    case ZN_K_Registers:
    case ZN_K_SignalWait: /* interp.c */
    case ZN_K_Await: return nothing;
    case ZN_K_SignalSet: return signal_set;
    case ZN_K_AsyncArrive:
    case ZN_K_SignalArrive: return signal_arrive;
    case ZN_K_BulkCopy: return bulk_copy;
    case ZN_K_AsyncCopy: return async_copy;
    case ZN_K_TileDot: return tile_dot;
    case ZN_K_Load:
      if (d->vector_ctl) return gather;
      return d->n == 1 && d->elem == 4   ? load_uint32_t
             : d->n == 1 && d->elem == 8 ? load_uint64_t
                                         : load;
    case ZN_K_Store: return d->vector_ctl ? scatter : store;
    default: return NULL;
  }
}
