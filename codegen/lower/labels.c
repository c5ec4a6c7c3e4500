/* Operators that look an element up in a constant list: LabelEncoder, CategoryMapper, OneHotEncoder. The keys are sorted
 * at compile time; a binary search gives the number of the key, or the number of keys when there is none. */
#include <math.h>
#include <stdlib.h>

#include "codegen/lower/labels.h"
#include "codegen/lower/sortkeys.h"

/* ---------------------------------------------------------------- the index of a list of zn_keys */

struct zn_lookup {
  uint32_t n, distinct; /* keys given; different ones */
  zn_dtype type;        /* STR, I64, F64 */
  zn_spool pool;        /* sorted zn_keys */
  zn_loc sorted;
  zn_loc number;        /* i32: place in the given list */
};

typedef struct entry {
  const zn_keys *k;
  uint32_t at;
} entry;

static int compare_doubles(double x, double y) { /* NaN last */
  if (isnan(x) || isnan(y)) return isnan(x) - isnan(y);
  return (x > y) - (x < y);
}

static int compare_keys(const zn_keys *k, uint32_t x, uint32_t y) {
  if (k->i) return (k->i[x] > k->i[y]) - (k->i[x] < k->i[y]);
  if (k->f) return compare_doubles(k->f[x], k->f[y]);
  const zn_str *a = &k->s[x], *b = &k->s[y];
  uint64_t n = a->len < b->len ? a->len : b->len;
  int c = n ? memcmp(a->ptr, b->ptr, n) : 0;
  return c ? c : a->len < b->len ? -1 : a->len > b->len;
}

uint32_t zn_lookup_first(const zn_keys *k, uint32_t i) {
  uint32_t j = 0;
  while (compare_keys(k, j, i) != 0) j++;
  return j;
}

static int by_key(const void *x, const void *y) {
  const entry *a = x, *b = y;
  int c = compare_keys(a->k, a->at, b->at);
  return c ? c : a->at < b->at ? -1 : a->at > b->at;
}

/* last: of equal keys the last counts, else the first. */
const zn_lookup *zn_lookup_make(zn_lw *lw, const void *memo, const zn_keys *k, bool last) {
  zn_lookup *l = zn_lw_memo_find(lw, memo);
  if (l) return l;
  l = ZN_NEW(lw->arena, zn_lookup);
  l->n = k->n;
  l->type = k->s ? ZN_STR : k->i ? ZN_I64 : ZN_F64;
  entry *e = ZN_ARRAY(&lw->ctx->graph, entry, k->n + 1);
  for (uint32_t i = 0; i < k->n; i++) e[i] = (entry){k, i};
  if (k->n) qsort(e, k->n, sizeof *e, by_key);
  int32_t *number = ZN_ARRAY(lw->arena, int32_t, k->n + 1);
  for (uint32_t i = 0; i < k->n; i++) {
    bool again = l->distinct && compare_keys(k, (uint32_t)number[l->distinct - 1], e[i].at) == 0;
    if (!again) number[l->distinct++] = (int32_t)e[i].at;
    else if (last) number[l->distinct - 1] = (int32_t)e[i].at;
  }
  l->number = zn_lw_const(lw, "label_numbers", ZN_I32, l->distinct + 1, number);
  if (k->s) {
    zn_str *s = ZN_ARRAY(lw->arena, zn_str, l->distinct + 1);
    for (uint32_t i = 0; i < l->distinct; i++) s[i] = k->s[number[i]];
    l->pool = zn_sv_pool(lw, s, l->distinct);
  } else {
    int64_t *v = ZN_ARRAY(lw->arena, int64_t, l->distinct + 1); /* doubles keep their bits */
    for (uint32_t i = 0; i < l->distinct; i++)
      memcpy(&v[i], k->i ? (const void *)&k->i[number[i]] : (const void *)&k->f[number[i]], sizeof v[i]);
    l->sorted = zn_lw_const(lw, "label_keys", l->type, l->distinct + 1, v);
  }
  zn_lw_memo_add(lw, memo, l);
  return l;
}

/* Bool values: sorted key m stands before x, after x. */
static void against(zn_lw *lw, const zn_lookup *l, zn_kref m, zn_kref x, zn_kref *out_before, zn_kref *out_after) {
  zn_kb *b = &lw->kb;
  if (l->type == ZN_STR) {
    zn_kref data, len, zero = zn_kb_idx(b, 0);
    zn_sv_pool_at(lw, &l->pool, m, &data, &len);
    zn_kref xd = zn_sv_data(lw, x), xn = zn_sv_len(lw, x);
    zn_kref c = zn_sv_compare_bytes(lw, data, len, xd, xn);
    *out_before = zn_kb_cmp(b, ZN_K_Lt, c, zero);
    *out_after = zn_kb_cmp(b, ZN_K_Gt, c, zero);
    return;
  }
  zn_kref p = zn_lw_ptr_loc(lw, l->sorted, ZN_KP_IN, l->type), key = zn_kb_load(b, l->type, 1, p, m);
  *out_before = zn_value_before(lw, key, x, false);
  *out_after = zn_value_before(lw, x, key, false);
}

/* Number of the key that equals x (idx value), l->n when there is none. */
uint32_t zn_lookup_count(const zn_lookup *l) { return l->n; }

zn_kref zn_lookup_find(zn_lw *lw, const zn_lookup *l, zn_kref x) {
  zn_kb *b = &lw->kb;
  zn_kref none = zn_kb_idx(b, l->n), before, after;
  if (!l->distinct) return none;
  if (l->type != ZN_STR) x = zn_kb_cvt(b, x, l->type);
  zn_kref lo = zn_kb_var(b, zn_kb_idx(b, 0)), hi = zn_kb_var(b, zn_kb_idx(b, l->distinct));
  zn_kref found = zn_kb_var(b, none);
  zn_kb_loop(b);
  zn_kref from = zn_kb_get(b, lo), to = zn_kb_get(b, hi);
  zn_kb_break(b, zn_kb_cmp(b, ZN_K_Ge, from, to));
  zn_kref sum = zn_kb_bin(b, ZN_K_Add, from, to), mid = zn_kb_bin(b, ZN_K_Div, sum, zn_kb_idx(b, 2));
  against(lw, l, mid, x, &before, &after);
  zn_kref next = zn_s_inc(lw, mid);
  zn_kb_set(b, lo, zn_kb_select(b, before, next, from));
  zn_kb_set(b, hi, zn_kb_select(b, before, to, mid));
  zn_kref differs = zn_kb_bin(b, ZN_K_Or, before, after), same = zn_kb_un(b, ZN_K_Not, differs);
  zn_kref numbers = zn_lw_ptr_loc(lw, l->number, ZN_KP_IN, ZN_I32);
  zn_kref number = zn_s_load(lw, numbers, mid), old = zn_kb_get(b, found);
  zn_kb_set(b, found, zn_kb_select(b, same, number, old));
  zn_kb_break(b, same);
  zn_kb_end(b);
  return zn_kb_get(b, found);
}

/* ---------------------------------------------------------------- LabelEncoder */

typedef struct encoder {
  const zn_lookup *l;
  zn_loc values; /* n + 1: the last is the default */
  zn_dtype type;
} encoder;

static zn_keys keys_of_tensor(zn_lw *lw, const zn_htensor *t) {
  zn_keys k = {.n = (uint32_t)zn_htensor_count(t)};
  if (t->dtype == ZN_STR) {
    k.s = t->data;
  } else if (zn_is_float(t->dtype)) {
    double *f = ZN_ARRAY(lw->arena, double, k.n + 1);
    for (uint32_t i = 0; i < k.n; i++) f[i] = zn_load_f64(t->dtype, t->data, i);
    k.f = f;
  } else {
    int64_t *v = ZN_ARRAY(lw->arena, int64_t, k.n + 1);
    for (uint32_t i = 0; i < k.n; i++) v[i] = zn_load_i64(t->dtype, t->data, i);
    k.i = v;
  }
  return k;
}

/* The list STEM_floats, STEM_int64s, STEM_strings or STEM_tensor. */
static zn_keys list_of(zn_lw *lw, const zn_node *n, const char *stem) {
  const char *name = zn_arena_printf(lw->arena, "%s_tensor", stem);
  const zn_attr *t = zn_node_attr(n, name);
  if (t) return keys_of_tensor(lw, t->u.t);
  const zn_attr *s = zn_node_attr(n, zn_arena_printf(lw->arena, "%s_strings", stem));
  if (s) return (zn_keys){.s = s->u.ss, .n = s->n};
  const zn_attr *i = zn_node_attr(n, zn_arena_printf(lw->arena, "%s_int64s", stem));
  if (i) return (zn_keys){.i = i->u.is, .n = i->n};
  const zn_attr *f = zn_node_attr(n, zn_arena_printf(lw->arena, "%s_floats", stem));
  return f ? (zn_keys){.f = f->u.fs, .n = f->n} : (zn_keys){.n = 0};
}

/* The values in list order and the default behind them. */
static zn_loc value_table(zn_lw *lw, const zn_node *node, const zn_keys *v, zn_dtype t) {
  const zn_attr *dt = zn_node_attr(node, "default_tensor");
  if (t == ZN_STR) {
    zn_str *s = ZN_ARRAY(lw->arena, zn_str, v->n + 1);
    const char *d = zn_node_str(node, "default_string");
    for (uint32_t i = 0; i < v->n; i++) s[i] = v->s[i];
    s[v->n] = dt ? ((const zn_str *)dt->u.t->data)[0] : (zn_str){d, strlen(d)};
    return zn_lw_strings(lw, s, v->n + 1);
  }
  char *data = zn_arena_alloc(lw->arena, (size_t)(v->n + 1) * zn_dtype_bytes(t));
  for (uint32_t i = 0; i < v->n; i++) {
    if (v->f) zn_store_f64(t, data, i, v->f[i]);
    else zn_store_i64(t, data, i, v->i[i]);
  }
  bool real = zn_is_float(t);
  if (dt && real) zn_store_f64(t, data, v->n, zn_load_f64(dt->u.t->dtype, dt->u.t->data, 0));
  else if (dt) zn_store_i64(t, data, v->n, zn_load_i64(dt->u.t->dtype, dt->u.t->data, 0));
  else if (real) zn_store_f64(t, data, v->n, zn_node_float(node, "default_float"));
  else zn_store_i64(t, data, v->n, zn_node_int(node, "default_int64"));
  return zn_lw_const(lw, "label_values", t, v->n + 1, data);
}

static zn_kref value_at(zn_lw *lw, const encoder *e, zn_kref number) {
  zn_kref p = zn_lw_ptr_loc(lw, e->values, ZN_KP_IN, e->type == ZN_STR ? ZN_U64 : e->type);
  return zn_lw_load_at(lw, p, e->type, zn_lw_as_expr(lw, number, zn_ex_const(lw->ex, (int64_t)e->l->n + 1)));
}

static zn_kref labelencoder_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  encoder *e = zn_lw_memo_find(lw, node->attrs);
  if (!e) {
    zn_keys k = list_of(lw, node, "keys"), v = list_of(lw, node, "values");
    e = ZN_NEW(lw->arena, encoder);
    zn_dtype from = (zn_dtype)zn_lw_type(lw, node->in[0])->dtype;
    if (k.i && zn_is_float(from)) { /* compared as numbers, not cut down to integers */
      double *f = ZN_ARRAY(lw->arena, double, k.n + 1);
      for (uint32_t i = 0; i < k.n; i++) f[i] = (double)k.i[i];
      k = (zn_keys){.f = f, .n = k.n};
    }
    e->l = zn_lookup_make(lw, e, &k, true);
    e->type = (zn_dtype)zn_lw_type(lw, node->out[out])->dtype;
    e->values = value_table(lw, node, &v, e->type);
    zn_lw_memo_add(lw, node->attrs, e);
  }
  return value_at(lw, e, zn_lookup_find(lw, e->l, zn_lw_load(lw, node->in[0], idx)));
}
const zn_lower zn_lower_ml_labelencoder = {labelencoder_point, NULL};

/* ---------------------------------------------------------------- CategoryMapper */

static zn_kref categorymapper_point(zn_lw *lw, zn_nid n, uint32_t out, const zn_expr *idx) {
  const zn_node *node = zn_lw_node(lw, n);
  encoder *e = zn_lw_memo_find(lw, node->attrs);
  if (!e) {
    const zn_attr *s = zn_node_attr(node, "cats_strings"), *i = zn_node_attr(node, "cats_int64s");
    zn_keys str = {.s = s ? s->u.ss : NULL, .n = s && i ? s->n < i->n ? s->n : i->n : 0};
    zn_keys num = {.i = i ? i->u.is : NULL, .n = str.n};
    e = ZN_NEW(lw->arena, encoder);
    e->type = (zn_dtype)zn_lw_type(lw, node->out[out])->dtype;
    e->l = zn_lookup_make(lw, e, e->type == ZN_STR ? &num : &str, false);
    e->values = value_table(lw, node, e->type == ZN_STR ? &str : &num, e->type);
    zn_lw_memo_add(lw, node->attrs, e);
  }
  return value_at(lw, e, zn_lookup_find(lw, e->l, zn_lw_load(lw, node->in[0], idx)));
}
const zn_lower zn_lower_ml_categorymapper = {categorymapper_point, NULL};
