/* Generated inputs: dimensions first, then what each input is used for, then numbers from
 * splitmix64. */
#include "zenithc/eval/gen.h"

#include <math.h>
#include <stdio.h>
#include <strings.h>

#include "zenithc/ops/op.h"

const char *zn_gen_kind_name(zn_gen_kind k) {
  static const char *const names[] = {"normal", "uniform", "zeros", "ones", "impulse", "sparse"};
  return (unsigned)k < ZN_GEN_KINDS ? names[k] : "?";
}

/* ---- symbols ---- */
typedef struct dims {
  const zn_exprs *ex;
  zn_arena *a;
  zn_gen_dim *v;
  uint32_t n, cap;
} dims;

static bool find_dim(const dims *d, const char *name, int64_t *out) {
  for (uint32_t i = 0; i < d->n; i++)
    if (strcmp(d->v[i].name, name) == 0) {
      *out = d->v[i].value;
      return true;
    }
  return false;
}

static void add_symbols(dims *d, zn_expr e, int64_t small) {
  if (e == ZN_EX_NONE || e == ZN_EX_OVERFLOW || zn_ex_is_const(d->ex, e, NULL)) return;
  if (zn_ex_kind(d->ex, e) != ZN_EX_SYM) {
    for (uint32_t i = 0; i < zn_ex_arity(d->ex, e); i++)
      add_symbols(d, zn_ex_operand(d->ex, e, i), small);
    return;
  }
  int64_t lo, hi, v;
  const char *name = zn_ex_name(d->ex, e);
  if (find_dim(d, name, &v)) return;
  zn_ex_range(d->ex, e, &lo, &hi);
  if (strcasestr(name, "batch")) small = 2;
  v = small < lo ? lo : small > hi ? hi : small;
  zn_gen_dim one = {name, v};
  ZN_PUSH(d->a, d->v, d->n, d->cap, one);
}

static bool symbol_value(void *user, zn_expr s, int64_t *out) {
  const dims *d = user;
  return find_dim(d, zn_ex_name(d->ex, s), out);
}

static bool extent(dims *d, const zn_graph *g, zn_vid v, int64_t axis, int64_t *out) {
  const zn_value *x = &g->vals[v];
  int64_t rank = x->cst ? (int64_t)x->cst->rank : x->type.rank;
  if (axis < 0) axis += rank;
  if (axis < 0 || axis >= rank) return false;
  if (x->cst) {
    *out = x->cst->dims[axis];
    return true;
  }
  return x->type.dims[axis] != ZN_EX_NONE &&
         zn_ex_eval(g->ex, x->type.dims[axis], symbol_value, d, out);
}

/* ---- uses ---- */
typedef struct use { /* what the consumers of an input demand */
  int64_t below;     /* values in [0, below); 0 = no demand */
  int64_t from;      /* lengths: at least this */
  bool mask, positive, count, numeral;
  const zn_str *words; /* strings that the model knows */
  uint32_t num_words;
  bool picture;          /* the bytes of an image file, of this size unless 0 */
  int64_t height, width;
} use;

static void need_below(use *u, int64_t n) {
  if (n > 0 && (u->below == 0 || n < u->below)) u->below = n;
}

static bool is_view(zn_op op) {
  switch (op) {
  case ZN_OP_Identity:
  case ZN_OP_Cast:
  case ZN_OP_Reshape:
  case ZN_OP_Squeeze:
  case ZN_OP_Unsqueeze:
  case ZN_OP_Flatten:
  case ZN_OP_Transpose:
  case ZN_OP_Slice:
  case ZN_OP_Expand:
  case ZN_OP_Concat:
  case ZN_OP_Split:
  case ZN_OP_Tile:
  case ZN_OP_Gather:
  case ZN_OP_Clip:
  case ZN_OP_Where: return true;
  default: return false;
  }
}

static void follow(dims *d, const zn_graph *g, zn_vid v, use *u, int depth);

static void follow_bodies(dims *d, const zn_graph *g, const zn_node *n, uint32_t input, use *u,
                          int depth) {
  uint32_t own = n->num_in - n->num_captures;
  if (input < own) return;
  for (uint32_t i = 0; i < n->num_attrs; i++) {
    if (n->attrs[i].kind != ZN_A_GRAPH) continue;
    const zn_graph *b = n->attrs[i].u.g;
    uint32_t at = b->num_inputs - n->num_captures + (input - own);
    if (at < b->num_inputs) follow(d, b, b->inputs[at], u, depth + 1);
  }
  (void)g;
}

/* Attributes that list the strings an operator looks for. */
static void know_words(const zn_node *n, use *u) {
  static const char *const lists[] = {"keys_strings", "cats_strings", "stopwords", "pool_strings", "string_vocabulary"};
  for (unsigned k = 0; k < sizeof lists / sizeof *lists; k++) {
    const zn_schema_attr *known = zn_schema_find_attr(zn_op_schema(n->op), lists[k]);
    const zn_attr *a = known ? zn_node_attr(n, lists[k]) : NULL;
    if (!a || a->kind != ZN_A_STRINGS || a->n <= u->num_words) continue;
    u->words = a->u.ss;
    u->num_words = a->n;
  }
}

/* Lower bound of a size that only the run knows: as inferred or, before that, as the model declares it. */
static int64_t least(const zn_graph *g, zn_vid v, int d) {
  const zn_type *t = &g->vals[v].type;
  int64_t lo = 0, hi = 0;
  if (t->rank < 0 && g->vals[v].declared) t = g->vals[v].declared;
  if (t->rank > d && t->dims[d] != ZN_EX_NONE) zn_ex_range(g->ex, t->dims[d], &lo, &hi);
  return lo < 0 ? 0 : lo;
}

static void look(dims *d, const zn_graph *g, const zn_node *n, uint32_t input, use *u, int depth) {
  int64_t e;
  know_words(n, u);
  switch (n->op) {
  case ZN_OP_Cast:
  case ZN_OP_CastLike:
  case ZN_OP_CastMap:
    if (input == 0 && g->vals[n->in[0]].type.dtype == ZN_STR && g->vals[n->out[0]].type.dtype != ZN_STR) u->numeral = true;
    break;
  case ZN_OP_Gather:
  case ZN_OP_GatherElements:
  case ZN_OP_ScatterElements:
    if (input == 1 && extent(d, g, n->in[0], zn_node_int(n, "axis"), &e)) need_below(u, e);
    break;
  case ZN_OP_GatherND:
  case ZN_OP_ScatterND:
    for (int64_t k = 0;
         input == 1 && extent(d, g, n->in[0], k, &e) && k < g->vals[n->in[0]].type.rank; k++)
      need_below(u, e);
    break;
  case ZN_OP_OneHot: {
    double depth_of;
    if (input == 0 && zn_value_f64(g, n->in[1], &depth_of)) need_below(u, (int64_t)depth_of);
    break;
  }
  case ZN_OP_RNN:
  case ZN_OP_GRU:
  case ZN_OP_LSTM:
    if (input == 4 && extent(d, g, n->in[0], zn_node_int(n, "layout"), &e)) {
      need_below(u, e + 1);
      u->from = 1;
    }
    break;
  case ZN_OP_ReverseSequence:
    if (input == 1 && extent(d, g, n->in[0], zn_node_int(n, "time_axis"), &e)) need_below(u, e + 1);
    break;
  case ZN_OP_Loop:
  case ZN_OP_TopK:
  case ZN_OP_Range:
    if (n->op == ZN_OP_Range || (n->op == ZN_OP_Loop ? input == 0 : input == 1)) u->count = true;
    break;
  case ZN_OP_Log:
  case ZN_OP_Sqrt: u->positive = true; break;
  case ZN_OP_ImageDecoder:
    u->picture = true;
    u->height = least(g, n->out[0], 0);
    u->width = least(g, n->out[0], 1);
    break;
  default: break;
  }
  if (n->num_captures) follow_bodies(d, g, n, input, u, depth);
  if (is_view(n->op) && !(n->op == ZN_OP_Gather && input == 1) &&
      !(n->op == ZN_OP_Slice && input > 0))
    for (uint32_t i = 0; i < n->num_out; i++)
      if (n->out[i]) follow(d, g, n->out[i], u, depth + 1);
}

static void follow(dims *d, const zn_graph *g, zn_vid v, use *u, int depth) {
  if (depth > 24) return;
  for (uint32_t k = 0; k < g->num_order; k++) {
    const zn_node *n = &g->nodes[g->order[k]];
    for (uint32_t i = 0; !n->dead && i < n->num_in; i++)
      if (n->in[i] == v) look(d, g, n, i, u, depth);
  }
}

zn_gen_dim *zn_gen_dims(const zn_graph *g, zn_arena *a, const zn_gen_dim *given, uint32_t num_given,
                        int64_t grow, uint32_t *out_n) {
  dims d = {.ex = g->ex, .a = a};
  for (uint32_t i = 0; i < num_given; i++) ZN_PUSH(a, d.v, d.n, d.cap, given[i]);
  for (uint32_t i = 0; i < g->num_inputs; i++) {
    const zn_type *t = &g->vals[g->inputs[i]].type;
    use u = {0};
    if (t->dtype == ZN_U8 && t->rank == 1) follow(&d, g, g->inputs[i], &u, 0);
    for (int k = 0; k < t->rank; k++)
      add_symbols(&d, t->dims[k],
                  u.picture ? 400 : k == 0 && t->rank > 1 ? 2 : grow * (t->rank == 4 && k >= 2 ? 32 : 8));
  }
  *out_n = d.n;
  return d.v;
}

/* ---- numbers ---- */
static uint64_t next(uint64_t *s) {
  uint64_t z = (*s += UINT64_C(0x9E3779B97F4A7C15));
  z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
  return z ^ (z >> 31);
}
static double uniform(uint64_t *s) { return (double)(next(s) >> 11) * 0x1p-53; }
static double normal(uint64_t *s) {
  double u = 1 - uniform(s), v = uniform(s);
  return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static double draw_float(zn_gen_kind kind, uint64_t *s, uint64_t k, uint64_t n, const use *u,
                         bool image) {
  double x = 0;
  switch (kind) {
  case ZN_GEN_NORMAL: x = image ? fmin(1, fmax(0, 0.5 + 0.2 * normal(s))) : normal(s); break;
  case ZN_GEN_UNIFORM: x = image ? uniform(s) : 2 * uniform(s) - 1; break;
  case ZN_GEN_ONES: x = 1; break;
  case ZN_GEN_IMPULSE: x = k == n / 2; break;
  case ZN_GEN_SPARSE: x = uniform(s) < 0.05 ? normal(s) : 0; break;
  default: break;
  }
  return u->positive ? fabs(x) + 0.01 : x;
}

static int64_t draw_int(zn_gen_kind kind, zn_dtype t, uint64_t *s, uint64_t k, uint64_t n,
                        const use *u) {
  unsigned bits = zn_int_bits(t);
  uint64_t span = u->mask              ? 2
                  : u->count           ? 4
                  : u->below > u->from ? (uint64_t)(u->below - u->from)
                  : bits >= 16         ? 10
                                       : UINT64_C(1) << bits;
  int64_t lo = u->count ? 1 : u->from;
  if (!u->below && !u->mask && !u->count && zn_is_signed(t) && bits < 16)
    lo = -(INT64_C(1) << (bits - 1));
  switch (kind) {
  case ZN_GEN_ZEROS:
    return u->mask || u->count || lo > 0 ? (lo > 0 ? lo : 1) : 0; /* an empty mask means NaN */
  case ZN_GEN_ONES: return span > 1 && lo <= 1 ? 1 : lo;
  case ZN_GEN_IMPULSE: return k == n / 2 && span > 1 ? lo + 1 : lo < 0 ? 0 : lo;
  default: break;
  }
  if (u->mask) return k == 0 || uniform(s) < 0.8;
  return lo + (int64_t)(next(s) % span);
}

/* Text of a number that every type holds. */
static zn_str draw_numeral(zn_arena *a, uint64_t *s, const use *u) {
  uint64_t r = next(s);
  const char *t;
  switch (u->below ? 0 : r % 4) {
  case 0: t = zn_arena_printf(a, "%u", (unsigned)(r / 4 % (u->below ? (uint64_t)u->below : 2))); break;
  case 1: t = zn_arena_printf(a, "%.3f", uniform(s)); break;
  case 2: t = zn_arena_printf(a, "+%.17g", uniform(s)); break;
  default: t = zn_arena_printf(a, " %e", uniform(s)); break;
  }
  return (zn_str){t, strlen(t)};
}

/* A word that the model knows, or a few letters: some of two bytes, some blanks. */
static zn_str draw_string(zn_arena *a, uint64_t *s, const use *u) {
  static const char *const letters[] = {"a", "b", "c", "e", "n", "o", "s", "t", "A", "M", "0", "7", " ", "-", ".", "\xc3\xa9",
                                        "\xc3\x9c", "\xd0\xb6", "\xce\xa3"};
  static const char *const words[] = {"a", "the", "zenith", "graph", "north", "cat", "dog", "0"};
  if (u->numeral) return draw_numeral(a, s, u);
  uint64_t r = next(s) % 8;
  if (u->num_words && r < 6) return u->words[next(s) % u->num_words];
  if (r < 3) {
    const char *w = words[next(s) % 8];
    return (zn_str){w, strlen(w)};
  }
  char text[64];
  size_t n = 0;
  for (uint64_t k = next(s) % 9; k > 0; k--) {
    const char *l = letters[next(s) % (sizeof letters / sizeof *letters)];
    memcpy(text + n, l, strlen(l));
    n += strlen(l);
  }
  return (zn_str){zn_arena_strndup(a, text, n), n};
}

static void fill(zn_arena *a, zn_htensor *t, zn_gen_kind kind, uint64_t *s, const use *u, bool image,
                 bool ramp) {
  uint64_t n = zn_htensor_count(t);
  int64_t last = t->rank ? t->dims[t->rank - 1] : 1;
  for (uint64_t k = 0; k < n; k++) {
    if (t->dtype == ZN_STR) {
      ((zn_str *)t->data)[k] = draw_string(a, s, u);
    } else if (t->dtype == ZN_BOOL) {
      bool one = kind == ZN_GEN_ZEROS     ? 0
                 : kind == ZN_GEN_ONES    ? 1
                 : kind == ZN_GEN_IMPULSE ? k == n / 2
                                          : next(s) >> 63;
      zn_store_i64(ZN_BOOL, t->data, k, u->mask && k == 0 ? 1 : one);
    } else if (t->dtype == ZN_C64 || t->dtype == ZN_C128) {
      zn_dtype part = t->dtype == ZN_C64 ? ZN_F32 : ZN_F64;
      for (uint64_t j = 2 * k; j < 2 * k + 2; j++)
        zn_store_f64(part, t->data, j, draw_float(kind, s, k, n, u, image));
    } else if (!zn_is_float(t->dtype)) {
      int64_t v = ramp && (!u->below || last <= u->below) ? (int64_t)(k % (uint64_t)last)
                                                          : draw_int(kind, t->dtype, s, k, n, u);
      zn_store_i64(t->dtype, t->data, k, v);
    } else if (u->below > 0 || u->mask || u->count) {
      zn_store_f64(t->dtype, t->data, k, (double)draw_int(kind, ZN_I64, s, k, n, u));
    } else {
      zn_store_f64(t->dtype, t->data, k, draw_float(kind, s, k, n, u, image));
    }
  }
}

/* A PNM file: in colour, gray or black and white, whichever the tensor has room for; noise when for none. */
static void draw_picture(zn_htensor *t, uint64_t *s, const use *u) {
  uint8_t *p = t->data;
  uint64_t n = zn_htensor_count(t), r = next(s);
  uint64_t w = u->width ? (uint64_t)u->width : 3 + r % 7, h = u->height ? (uint64_t)u->height : 2 + r / 7 % 5;
  for (char kind = '6'; kind >= '4'; kind--) {
    char head[64];
    int len = snprintf(head, sizeof head, "P%c\n%llu %llu\n%s", kind, (unsigned long long)w, (unsigned long long)h,
                       kind == '4' ? "" : "255\n");
    uint64_t body = h * (kind == '6' ? 3 * w : kind == '5' ? w : (w + 7) / 8);
    if ((uint64_t)len + body > n) continue;
    memset(p, 0, n);
    memcpy(p, head, (size_t)len);
    for (uint64_t k = 0; k < body; k++) p[(uint64_t)len + k] = (uint8_t)(next(s) >> 56);
    return;
  }
  for (uint64_t k = 0; k < n; k++) p[k] = (uint8_t)next(s);
}

/* ---- sequences, optionals, maps ---- */

/* Sizes that are not given are the same for all items, so that they fit together. */
static void draw_item(zn_arena *a, const dims *d, const zn_type *t, zn_gen_kind kind, uint64_t *s, const use *u,
                      zn_htensor *out) {
  int64_t shape[ZN_MAX_RANK];
  uint32_t rank = t->rank < 0 ? 1 : (uint32_t)t->rank;
  for (uint32_t k = 0; k < rank; k++)
    if (t->rank < 0 || t->dims[k] == ZN_EX_NONE || !zn_ex_is_const(d->ex, t->dims[k], &shape[k])) shape[k] = 3;
  *out = zn_htensor_new(a, (zn_dtype)t->dtype, rank, shape);
  fill(a, out, kind, s, u, false, false);
}

static void draw_map(zn_arena *a, const zn_type *t, zn_gen_kind kind, uint64_t *s, const use *u, zn_htensor *out) {
  const int64_t n = 3;
  zn_htensor *parts = ZN_ARRAY(a, zn_htensor, 2);
  parts[0] = zn_htensor_new(a, t->key == ZN_STR ? ZN_STR : t->key ? (zn_dtype)t->key : ZN_I64, 1, &n);
  parts[1] = zn_htensor_new(a, (zn_dtype)t->dtype, 1, &n);
  uint64_t first = next(s) % 4;
  for (uint64_t k = 0; k < (uint64_t)n; k++) { /* no key twice */
    if (t->key != ZN_STR) {
      zn_store_i64(parts[0].dtype, parts[0].data, k, (int64_t)((first + 3 * k) % 8));
      continue;
    }
    zn_str w = {zn_arena_printf(a, "key%u", (unsigned)(first + k)), 4};
    ((zn_str *)parts[0].data)[k] = u->num_words > k ? u->words[(first + k) % u->num_words] : w;
  }
  fill(a, &parts[1], kind, s, u, false, false);
  *out = (zn_htensor){.dtype = (zn_dtype)t->dtype, .rank = 1, .dims = {2}, .data = parts, .kind = ZN_V_MAP};
}

/* All sequences have the same length. */
static void draw_list(zn_arena *a, const dims *d, const zn_type *t, int64_t len, zn_gen_kind kind, uint64_t *s,
                      const use *u, zn_htensor *out) {
  if (t->kind == ZN_V_MAP) {
    draw_map(a, t, kind, s, u, out);
    return;
  }
  int64_t n = t->kind == ZN_V_OPT ? 1 : len;
  zn_htensor *items = ZN_ARRAY(a, zn_htensor, n);
  zn_type of = *t;
  of.of = 0;
  of.kind = !t->of ? ZN_V_TENSOR : t->kind == ZN_V_OPT ? ZN_V_SEQ : ZN_V_MAP;
  for (int64_t k = 0; k < n; k++) {
    if (of.kind == ZN_V_TENSOR) draw_item(a, d, &of, kind, s, u, &items[k]);
    else draw_list(a, d, &of, len, kind, s, u, &items[k]);
  }
  *out = (zn_htensor){.dtype = (zn_dtype)t->dtype, .rank = 1, .dims = {n}, .data = items, .kind = t->kind, .of = t->of != 0};
}

zn_status zn_gen_inputs(zn_ctx *c, const zn_graph *g, zn_arena *a, zn_gen_kind kind, uint64_t seed,
                        const zn_gen_dim *given, uint32_t num_given, zn_htensor *out) {
  dims d = {.ex = g->ex, .a = a};
  d.v = zn_gen_dims(g, a, given, num_given, 1, &d.n);
  for (uint32_t i = 0; i < g->num_inputs; i++) {
    const zn_value *v = &g->vals[g->inputs[i]];
    int64_t shape[ZN_MAX_RANK];
    if (v->type.dtype == ZN_NONE)
      return zn_fail(c, ZN_ERR_UNSUPPORTED, v->name,
                     "inputs can be generated for known element types only; give this one as a file");
    if (v->type.kind != ZN_V_TENSOR) {
      uint64_t s = seed * UINT64_C(0x2545F4914F6CDD1D) + i + 1;
      use u = {0};
      follow(&d, g, g->inputs[i], &u, 0);
      draw_list(a, &d, &v->type, 2 + (int64_t)(seed % 3), kind, &s, &u, &out[i]);
      out[i].name = v->name;
      continue;
    }
    uint32_t rank = v->type.rank < 0 ? 0 : (uint32_t)v->type.rank;
    for (uint32_t k = 0; k < rank; k++) {
      bool known = v->type.dims[k] != ZN_EX_NONE &&
                   zn_ex_eval(g->ex, v->type.dims[k], symbol_value, &d, &shape[k]);
      if (!known) shape[k] = 8;
    }
    uint64_t total;
    if (!zn_dims_count(rank, shape, 16, &total))
      return zn_error(c, v->name, "the input's dimensions are not valid");
    out[i] = zn_htensor_new(a, (zn_dtype)v->type.dtype, rank, shape);
    out[i].name = v->name;
    use u = {0};
    follow(&d, g, g->inputs[i], &u, 0);
    u.mask = strcasestr(v->name, "mask") != NULL && !zn_is_float(out[i].dtype);
    bool image = rank == 4 && (shape[1] == 1 || shape[1] == 3 || shape[3] == 1 || shape[3] == 3);
    bool ramp = strcasestr(v->name, "position") != NULL && kind != ZN_GEN_ZEROS;
    uint64_t s = seed * UINT64_C(0x2545F4914F6CDD1D) + i + 1;
    next(&s);
    if (u.picture && rank == 1 && out[i].dtype == ZN_U8) draw_picture(&out[i], &s, &u);
    else fill(a, &out[i], kind, &s, &u, image, ramp);
  }
  return ZN_OK;
}
