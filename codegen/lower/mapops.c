/* Maps: ZipMap makes a sequence of them, CastMap and DictVectorizer read one. A map is a list of two tensors of rank 1,
 * keys and values. */
#include <string.h>

#include "codegen/lower/labels.h"
#include "codegen/lower/lists.h"
#include "codegen/lower/sortkeys.h"
#include "codegen/lower/strnum.h"
#include "codegen/lower/strvalue.h"
#include "runtime/zenith.h"

/* ---------------------------------------------------------------- ZipMap */

typedef struct zip {
  zn_vid x, y;
  zn_expr rows, cols;
  zn_held scores;
  zn_loc keys, maps, pairs;
  zn_type key, value, map; /* types of the parts */
} zip;

static zn_loc key_table(zn_lw *lw, const zn_node *node, zn_dtype *out_type, uint32_t *out_n) {
  const zn_attr *i = zn_node_attr(node, "classlabels_int64s"), *s = zn_node_attr(node, "classlabels_strings");
  *out_type = i ? ZN_I64 : ZN_STR;
  *out_n = i ? i->n : s ? s->n : 0;
  if (i) return zn_lw_const(lw, "map_keys", ZN_I64, i->n, i->u.is);
  zn_loc at = zn_lw_strings(lw, s ? s->u.ss : NULL, *out_n);
  lw->bufs[at.index].keep = true; /* the outputs point to it */
  return at;
}

/* Row r: its values in place, the keys shared by all rows. */
static void write_row(zn_lw *lw, const zip *z, zn_expr row) {
  zn_kb *b = &lw->kb;
  zn_kref r = zn_lw_ix(lw, row), n = zn_lw_ix(lw, z->cols), two = zn_kb_idx(b, 2), zero = zn_kb_idx(b, 0);
  zn_kref keys = zn_lw_ptr_loc(lw, z->keys, ZN_KP_IN, ZN_U8), values = zn_lw_ptr_loc(lw, z->scores.at, ZN_KP_IN, ZN_U8);
  zn_kref pairs = zn_lw_ptr_loc(lw, z->pairs, ZN_KP_OUT, ZN_U64), maps = zn_lw_ptr_loc(lw, z->maps, ZN_KP_OUT, ZN_U64);
  zn_kref ksize = zn_kb_idx(b, zn_dtype_bytes((zn_dtype)z->key.dtype)), vsize = zn_kb_idx(b, 4);
  zn_kref kbytes = zn_s_mul(lw, n, ksize), vbytes = zn_s_mul(lw, n, vsize);
  zn_kref mine = zn_ls_at(lw, pairs, zn_s_mul(lw, r, two)), one = zn_kb_idx(b, 1);
  zn_ls_write(lw, zn_ls_at(lw, mine, zero), keys, kbytes, zn_lw_code(&z->key), 1, &n);
  zn_kref from = zn_kb_ptradd(b, values, zn_s_mul(lw, r, vbytes));
  zn_ls_write(lw, zn_ls_at(lw, mine, one), from, vbytes, zn_lw_code(&z->value), 1, &n);
  zn_ls_write_list(lw, zn_ls_at(lw, maps, r), mine, two, zn_lw_code(&z->map));
}

static zn_status zipmap_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  const zn_type t = *zn_lw_type(lw, node->in[0]);
  zn_exprs *ex = lw->ex;
  zip z = {.x = node->in[0], .y = node->out[0]};
  zn_dtype kt;
  uint32_t labels;
  z.keys = key_table(lw, node, &kt, &labels);
  z.rows = t.rank >= 2 ? t.dims[0] : zn_ex_const(ex, 1);
  z.cols = zn_ex_const(ex, labels);
  if (t.rank < 1 || t.rank > 2)
    return zn_fail(lw->ctx, ZN_ERR_MODEL, zn_node_where(lw->ctx, node), "input 1 has rank %d, expected 1 or 2", t.rank);
  zn_lw_require_le(lw, z.cols, t.dims[t.rank - 1]);
  zn_lw_require_le(lw, t.dims[t.rank - 1], z.cols);
  z.key = (zn_type){.kind = ZN_V_TENSOR, .dtype = (uint8_t)kt, .rank = 1};
  z.value = (zn_type){.kind = ZN_V_TENSOR, .dtype = ZN_F32, .rank = 1};
  z.map = (zn_type){.kind = ZN_V_MAP, .dtype = ZN_F32, .key = (uint8_t)kt};
  z.scores = zn_ls_hold(lw, n, z.x);
  z.maps = zn_lw_keep(lw, zn_ex_muli(ex, z.rows, ZN_TENSOR_BYTES));
  z.pairs = zn_lw_keep(lw, zn_ex_muli(ex, z.rows, 2 * ZN_TENSOR_BYTES));
  zn_lw_kernel(lw, n, "zipmap");
  zn_expr row = zn_lw_for(lw, z.rows, ZN_FOR_SERIAL, 0);
  write_row(lw, &z, row);
  zn_lw_end(lw);
  zn_kref maps = zn_lw_ptr_loc(lw, z.maps, ZN_KP_OUT, ZN_U64), count = zn_lw_ix(lw, z.rows);
  zn_ls_write_list(lw, zn_ls_ptr(lw, z.y, ZN_KP_OUT), maps, count, zn_lw_code(zn_lw_type(lw, z.y)));
  zn_lw_kernel_end(lw);
  zn_ls_know_len(lw, z.y, z.rows);
  return ZN_OK;
}
const zn_lower zn_lower_ml_zipmap = {NULL, zipmap_kernel};

/* ---------------------------------------------------------------- reading a map */

typedef struct mapin { /* in a kernel: addresses of the elements, their number */
  zn_kref keys, values, n;
} mapin;

/* Do keys and values have the declared types and one length? Checked in a kernel of its own. */
static void check_map(zn_lw *lw, zn_nid n, zn_vid m, zn_loc count) {
  const zn_type t = *zn_lw_type(lw, m);
  zn_lw_kernel(lw, n, "map_size");
  zn_kb *b = &lw->kb;
  zn_kref map = zn_ls_ptr(lw, m, ZN_KP_IN), two = zn_kb_idx(b, 2);
  zn_kref out = zn_lw_ptr_loc(lw, count, ZN_KP_OUT, ZN_I64), zero = zn_kb_idx(b, 0);
  zn_kref ok = zn_kb_cmp(b, ZN_K_Eq, zn_ls_count(lw, map), two);
  zn_lw_fail_if(lw, zn_kb_un(b, ZN_K_Not, ok), ZN_RUN_SHAPE);
  zn_kb_if(b, ok);
  for (int k = 0; k < 2; k++) {
    zn_kref part = zn_ls_item(lw, map, zn_kb_idx(b, k));
    zn_kref code = zn_ls_field(lw, part, ZN_T_DTYPE, ZN_U32), rank = zn_ls_field(lw, part, ZN_T_RANK, ZN_U32);
    zn_kref want = zn_kb_int(b, ZN_U32, zn_dtypes[k ? t.dtype : t.key].onnx), one = zn_kb_int(b, ZN_U32, 1);
    zn_lw_fail_if(lw, zn_kb_cmp(b, ZN_K_Ne, code, want), ZN_RUN_DTYPE);
    zn_lw_fail_if(lw, zn_kb_cmp(b, ZN_K_Ne, rank, one), ZN_RUN_RANK);
  }
  zn_kref keys = zn_ls_item(lw, map, zero), values = zn_ls_item(lw, map, zn_kb_idx(b, 1));
  zn_kref nk = zn_ls_dim(lw, keys, 0), nv = zn_ls_dim(lw, values, 0);
  zn_lw_fail_if(lw, zn_kb_cmp(b, ZN_K_Ne, nk, nv), ZN_RUN_SHAPE);
  zn_kb_store(b, out, zero, zn_kb_cvt(b, nk, ZN_I64));
  zn_kb_end(b);
  zn_lw_kernel_end(lw);
  zn_lw_check(lw);
}

static mapin open_map(zn_lw *lw, zn_vid m) {
  zn_kb *b = &lw->kb;
  zn_kref map = zn_ls_ptr(lw, m, ZN_KP_IN);
  zn_kref keys = zn_ls_item(lw, map, zn_kb_idx(b, 0)), values = zn_ls_item(lw, map, zn_kb_idx(b, 1));
  mapin r = {0};
  r.keys = zn_ls_field(lw, keys, ZN_T_DATA, ZN_PTR);
  r.values = zn_ls_field(lw, values, ZN_T_DATA, ZN_PTR);
  r.n = zn_ls_dim(lw, keys, 0);
  return r;
}

static zn_kref at(zn_lw *lw, zn_kref data, zn_dtype t, zn_kref k) {
  return zn_lw_load_at(lw, data, t, zn_lw_as_expr(lw, k, zn_ex_const(lw->ex, INT32_MAX)));
}

static const zn_str *no_string(zn_lw *lw) {
  zn_str *s = ZN_NEW(lw->arena, zn_str);
  s->ptr = "";
  return s;
}

/* Zeros (empty strings) everywhere. */
static void clear(zn_lw *lw, zn_vid y, zn_loc empty) {
  const zn_dtype t = (zn_dtype)zn_lw_type(lw, y)->dtype;
  zn_kb *b = &lw->kb;
  zn_expr idx[2] = {zn_ex_const(lw->ex, 0), zn_lw_for(lw, zn_lw_dim(lw, y, 1), ZN_FOR_SERIAL, 0)};
  zn_kref zero = t == ZN_STR ? zn_lw_ptr_loc(lw, empty, ZN_KP_IN, ZN_U64) : zn_kb_int(b, zn_lw_ctype(t), 0);
  zn_lw_store(lw, y, idx, zero);
  zn_lw_end(lw);
}

/* ---------------------------------------------------------------- CastMap, DictVectorizer */

typedef struct caster { /* values between text and numbers, where the types differ in that */
  bool reads, writes;
  zn_sn sn;
  zn_loc bytes;
  zn_kref word; /* a descriptor */
} caster;

static zn_kref cast_value(zn_lw *lw, const caster *c, zn_kref v, zn_kref place) {
  zn_kb *b = &lw->kb;
  if (c->reads) {
    zn_kref data = zn_sv_data(lw, v), len = zn_sv_len(lw, v), bad;
    v = zn_sn_read(&c->sn, data, len, &bad);
    zn_lw_fail_if(lw, bad, ZN_RUN_DOMAIN);
  }
  if (!c->writes) return v;
  zn_kref pool = zn_lw_ptr_loc(lw, c->bytes, ZN_KP_OUT, ZN_U8);
  zn_kref to = zn_kb_ptradd(b, pool, zn_s_mul(lw, place, zn_kb_idx(b, ZN_SN_ROOM))), len = zn_sn_write(&c->sn, to, v);
  zn_sv_set(lw, c->word, to, len);
  return c->word;
}

/* DENSE: values in the order of their keys; SPARSE: value at the place its key says. */
static zn_status castmap_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  zn_vid m = node->in[0], y = node->out[0];
  const zn_type t = *zn_lw_type(lw, m), ty = *zn_lw_type(lw, y);
  bool sparse = strcmp(zn_node_str(node, "map_form"), "SPARSE") == 0;
  caster c = {.reads = t.dtype == ZN_STR && ty.dtype != ZN_STR, .writes = t.dtype != ZN_STR && ty.dtype == ZN_STR};
  if (t.key != ZN_I64)
    return zn_fail(lw->ctx, ZN_ERR_MODEL, zn_node_where(lw->ctx, node), "the keys are not int64");
  zn_loc cell = zn_lw_scratch(lw, zn_ex_const(lw->ex, 8)), empty = zn_lw_strings(lw, no_string(lw), 1);
  check_map(lw, n, m, cell);
  if (zn_ex_kind(lw->ex, ty.dims[1]) == ZN_EX_SYM) zn_lw_define_sym(lw, ty.dims[1], cell);
  if (c.writes) c.bytes = zn_lw_keep(lw, zn_ex_muli(lw->ex, ty.dims[1], ZN_SN_ROOM));
  zn_lw_kernel(lw, n, "castmap");
  zn_kb *b = &lw->kb;
  if (c.reads) c.sn = zn_sn_reader(lw, (zn_dtype)ty.dtype);
  if (c.writes) {
    c.sn = zn_sn_writer(lw, (zn_dtype)t.dtype);
    c.word = zn_kb_alloc(b, ZN_U64, 2);
  }
  clear(lw, y, empty);
  mapin in = open_map(lw, m);
  zn_kref width = zn_lw_ix(lw, ty.dims[1]), zero = zn_kb_idx(b, 0), k = zn_s_for(lw, in.n);
  zn_kref key = at(lw, in.keys, ZN_I64, k), place;
  if (sparse) {
    place = zn_kb_cvt(b, key, ZN_IDX);
  } else { /* how many keys stand before it */
    zn_kref rank = zn_kb_var(b, zero), j = zn_s_for(lw, in.n), other = at(lw, in.keys, ZN_I64, j);
    zn_kref less = zn_kb_cmp(b, ZN_K_Lt, other, key), same = zn_kb_cmp(b, ZN_K_Eq, other, key);
    zn_kref tie = zn_kb_bin(b, ZN_K_And, same, zn_kb_cmp(b, ZN_K_Lt, j, k));
    zn_kref one = zn_kb_idx(b, 1), step = zn_kb_select(b, zn_kb_bin(b, ZN_K_Or, less, tie), one, zero);
    zn_kref old = zn_kb_get(b, rank);
    zn_kb_set(b, rank, zn_s_add(lw, old, step));
    zn_kb_end(b);
    place = zn_kb_get(b, rank);
  }
  zn_kref low = zn_kb_cmp(b, ZN_K_Ge, place, zero), high = zn_kb_cmp(b, ZN_K_Lt, place, width);
  zn_kb_if(b, zn_kb_bin(b, ZN_K_And, low, high));
  zn_expr idx[2] = {zn_ex_const(lw->ex, 0), zn_lw_as_expr(lw, place, ty.dims[1])};
  zn_lw_store(lw, y, idx, cast_value(lw, &c, at(lw, in.values, (zn_dtype)t.dtype, k), place));
  zn_kb_end(b);
  zn_kb_end(b);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_ml_castmap = {NULL, castmap_kernel};

static zn_status dictvectorizer_kernel(zn_lw *lw, zn_nid n) {
  const zn_node *node = zn_lw_node(lw, n);
  const zn_attr *i = zn_node_attr(node, "int64_vocabulary"), *s = zn_node_attr(node, "string_vocabulary");
  zn_vid m = node->in[0], y = node->out[0];
  const zn_type t = *zn_lw_type(lw, m);
  zn_keys vocabulary = {.n = i ? i->n : s ? s->n : 0};
  if (i) vocabulary.i = i->u.is;
  else if (s) vocabulary.s = s->u.ss;
  if ((t.key == ZN_STR) != (vocabulary.s != NULL) || !vocabulary.n)
    return zn_fail(lw->ctx, ZN_ERR_MODEL, zn_node_where(lw->ctx, node), "the vocabulary does not fit the map's keys");
  const zn_lookup *l = zn_lookup_make(lw, node->attrs, &vocabulary, false);
  zn_loc cell = zn_lw_scratch(lw, zn_ex_const(lw->ex, 8)), empty = zn_lw_strings(lw, no_string(lw), 1);
  check_map(lw, n, m, cell);
  zn_lw_kernel(lw, n, "dictvectorizer");
  zn_kb *b = &lw->kb;
  clear(lw, y, empty);
  mapin in = open_map(lw, m);
  zn_kref k = zn_s_for(lw, in.n), hit = zn_lookup_find(lw, l, at(lw, in.keys, (zn_dtype)t.key, k));
  zn_kb_if(b, zn_kb_cmp(b, ZN_K_Lt, hit, zn_kb_idx(b, vocabulary.n)));
  zn_expr idx[2] = {zn_ex_const(lw->ex, 0), zn_lw_as_expr(lw, hit, zn_lw_dim(lw, y, 1))};
  zn_lw_store(lw, y, idx, at(lw, in.values, (zn_dtype)t.dtype, k));
  zn_kb_end(b);
  zn_kb_end(b);
  zn_lw_kernel_end(lw);
  return ZN_OK;
}
const zn_lower zn_lower_ml_dictvectorizer = {NULL, dictvectorizer_kernel};
