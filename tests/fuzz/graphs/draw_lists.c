/* Sequences and strings: lists that a Loop grows and that are split, changed and joined; texts that are joined, looked up,
 * compared and moved. Both are drawn as whole pieces: one step alone has nothing to say. */
#include "tests/fuzz/graphs/fuzz.h"

static zn_vid with_int(fz *f, zn_op op, const zn_vid *in, uint32_t n, const char *name, int64_t v) {
  fz_attrs at = {.n = 0};
  for (uint32_t i = 0; i < n; i++)
    if (!in[i]) return 0;
  fz_set_i(&at, name, v);
  return fz_node(f, op, in, n, 1, &at);
}

/* What a list of tensors of type t ends in: its length, one of its items, all of them joined. */
static bool read_list(fz *f, zn_vid list, int rank) {
  if (!list) return false;
  bool any = fz_chance(f, 30) && fz_node1(f, ZN_OP_SequenceLength, list, 0);
  if (fz_chance(f, 40)) any |= fz_node1(f, ZN_OP_SequenceAt, list, fz_scalar(f, ZN_I64, fz_chance(f, 50) ? 0 : -1)) != 0;
  if (any && fz_chance(f, 40)) return true;
  fz_attrs at = {.n = 0};
  bool fresh = fz_chance(f, 40);
  fz_set_i(&at, "axis", fz_range(f, 0, fresh ? rank : rank - 1));
  fz_set_i(&at, "new_axis", fresh);
  return fz_node(f, ZN_OP_ConcatFromSequence, &list, 1, 1, &at) || any;
}

static bool split_list(fz *f) {
  zn_vid x = fz_some(f, f->main, (int)fz_range(f, 1, 3)), list;
  if (!x) return false;
  int rank = fz_type(f, x)->rank;
  bool keep = fz_chance(f, 60);
  list = with_int(f, ZN_OP_SplitToSequence, &x, 1, "keepdims", keep);
  if (!list) return false;
  if (!keep) rank--;
  if (fz_chance(f, 30)) {
    zn_vid in[2] = {list, fz_scalar(f, ZN_I64, 0)}, less = fz_node(f, ZN_OP_SequenceErase, in, 2, 1, NULL);
    if (less && fz_chance(f, 50)) list = less;
  }
  return rank > 0 && read_list(f, list, rank);
}

static bool construct_list(fz *f) {
  zn_vid in[4];
  uint32_t n = 1 + fz_below(f, 3);
  in[0] = fz_some(f, f->main, (int)fz_range(f, 1, 3));
  if (!in[0]) return false;
  const zn_type t = *fz_type(f, in[0]);
  for (uint32_t i = 1; i < n; i++)
    if (!(in[i] = fz_exact(f, (zn_dtype)t.dtype, t.rank, t.dims))) return false;
  zn_vid list = fz_node(f, ZN_OP_SequenceConstruct, in, n, 1, NULL);
  if (list && fz_chance(f, 50)) {
    zn_vid ins[3] = {list, in[0], fz_scalar(f, ZN_I64, 0)};
    list = fz_node(f, ZN_OP_SequenceInsert, ins, fz_chance(f, 50) ? 3 : 2, 1, NULL);
  }
  return read_list(f, list, t.rank);
}

/* A Loop that appends something to a list in every iteration; the count is known or an input. */
static bool grow_list(fz *f) {
  if (f->g->parent) return false;
  zn_vid x = fz_some(f, f->main, (int)fz_range(f, 1, 2)), in[5] = {0};
  if (!x || !zn_is_float((zn_dtype)fz_type(f, x)->dtype)) return false;
  const zn_type t = *fz_type(f, x);
  fz_attrs at = {.n = 0}, body_at = {.n = 0};
  fz_set_i(&at, "dtype", zn_dtypes[t.dtype].onnx);
  in[0] = fz_chance(f, 60) ? fz_scalar(f, ZN_I64, (double)fz_range(f, 1, 4)) : fz_leaf(f, ZN_I64, 0, NULL);
  in[2] = fz_chance(f, 50) ? fz_node(f, ZN_OP_SequenceEmpty, NULL, 0, 1, &at)
                           : fz_node(f, ZN_OP_SequenceConstruct, &x, 1, 1, NULL);
  in[3] = x;
  if (!in[0] || !in[2]) return false;
  zn_graph *g = zn_graph_new(f->a, f->g->ex, "grow");
  g->parent = f->g;
  fz b = *f;
  b.g = g, b.pool = NULL, b.n = b.cap = b.nodes = 0, b.depth++;
  zn_vid i = zn_graph_input(g, "i", zn_type_tensor(ZN_I64, 0, NULL));
  zn_vid keep = zn_graph_input(g, "keep", zn_type_tensor(ZN_BOOL, 0, NULL));
  zn_vid list = zn_graph_input(g, "list", *fz_type(f, in[2])), state = zn_graph_input(g, "s", t);
  zn_vid go = fz_chance(&b, 60) ? fz_node1(&b, ZN_OP_Identity, keep, 0)
                                : fz_node1(&b, ZN_OP_Less, i, fz_scalar(&b, ZN_I64, (double)fz_range(&b, 0, 3)));
  zn_vid next = fz_node1(&b, fz_chance(&b, 50) ? ZN_OP_Tanh : ZN_OP_Abs, state, 0);
  zn_vid longer = next ? fz_node1(&b, ZN_OP_SequenceInsert, list, fz_chance(&b, 50) ? next : state) : 0;
  f->rng = b.rng;
  memcpy(f->made, b.made, sizeof f->made);
  if (!go || !longer) return false;
  zn_graph_output(g, go), zn_graph_output(g, longer), zn_graph_output(g, next);
  body_at.v[body_at.n++] = (zn_attr){.name = "body", .kind = ZN_A_GRAPH, .u.g = g};
  zn_vid grown = fz_node(f, ZN_OP_Loop, in, 4, 2, &body_at);
  return read_list(f, grown, t.rank);
}

/* ---- strings ---- */

static void set_words(fz *f, fz_attrs *at, const char *name, const char *const *words, uint32_t n) {
  zn_str *s = ZN_ARRAY(f->a, zn_str, n);
  for (uint32_t i = 0; i < n; i++) s[i] = (zn_str){words[i], strlen(words[i])};
  at->v[at->n++] = (zn_attr){.name = name, .kind = ZN_A_STRINGS, .n = n, .u.ss = s};
}

static zn_vid look_up(fz *f, zn_vid x) {
  static const char *const keys[] = {"a", "b", "word", "", "Zebra", "x y"};
  fz_attrs at = {.n = 0};
  uint32_t n = 1 + fz_below(f, 6);
  int64_t values[6];
  for (uint32_t i = 0; i < n; i++) values[i] = fz_range(f, -4, 9);
  if (fz_chance(f, 25)) {
    for (uint32_t i = 0; i < n; i++) values[i] = i;
    set_words(f, &at, "cats_strings", keys, n);
    fz_set_is(f, &at, "cats_int64s", values, n);
    return fz_node(f, ZN_OP_CategoryMapper, &x, 1, 1, &at);
  }
  set_words(f, &at, "keys_strings", keys, n);
  if (fz_chance(f, 60)) fz_set_is(f, &at, "values_int64s", values, n);
  else set_words(f, &at, "values_strings", keys, n);
  return fz_node(f, ZN_OP_LabelEncoder, &x, 1, 1, &at);
}

static bool matches(fz *f, zn_vid x) {
  static const char *const patterns[] = {"[a-z]+", "x y|word", ".*b.*", "", "(ab)*[A-Z]?.*"};
  fz_attrs at = {.n = 0};
  bool split = fz_chance(f, 50);
  if (!split) fz_set_s(f, &at, "pattern", patterns[fz_below(f, 5)]);
  else if (fz_chance(f, 60)) fz_set_s(f, &at, "delimiter", fz_chance(f, 50) ? " " : "o");
  return fz_node(f, split ? ZN_OP_StringSplit : ZN_OP_RegexFullMatch, &x, 1, split ? 2 : 1, &at) != 0;
}

static bool strings(fz *f) {
  if (f->g->parent) return false;
  zn_expr dims[2] = {fz_dim(f), fz_dim(f)};
  int rank = (int)fz_range(f, 1, 2);
  zn_vid x = fz_leaf(f, ZN_STR, rank, dims), y = fz_leaf(f, ZN_STR, rank, dims), two[2] = {x, y};
  bool any = false;
  if (!x || !y) return false;
  for (uint32_t steps = 1 + fz_below(f, 4); steps; steps--) {
    zn_vid z = 0;
    switch (fz_below(f, 8)) {
      case 7: any |= matches(f, x); break;
      case 0: z = fz_node1(f, ZN_OP_StringConcat, x, y); break;
      case 1: any |= fz_node1(f, ZN_OP_Equal, x, y) != 0; break;
      case 2: any |= look_up(f, x) != 0; break;
      case 3: z = with_int(f, ZN_OP_Concat, two, 2, "axis", fz_range(f, 0, rank - 1)); break;
      case 4: z = fz_node1(f, ZN_OP_Transpose, x, 0); break;
      case 5: z = fz_node1(f, ZN_OP_Gather, x, fz_i64s(f, ZN_I64, (int64_t[]){0, -1}, 2)); break;
      default: {
        zn_vid c = fz_leaf(f, ZN_BOOL, rank, dims), in[3] = {c, x, y};
        z = c ? fz_node(f, ZN_OP_Where, in, 3, 1, NULL) : 0;
      }
    }
    any |= z != 0;
    if (z && fz_type(f, z)->rank == rank && !memcmp(fz_type(f, z)->dims, fz_type(f, x)->dims, (size_t)rank * sizeof dims[0]))
      x = two[0] = z;
  }
  return any;
}

bool fz_draw_lists(fz *f) {
  switch (fz_below(f, 4)) {
    case 0: return split_list(f);
    case 1: return construct_list(f);
    case 2: return grow_list(f);
    default: return strings(f);
  }
}
