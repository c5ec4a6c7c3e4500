/* A kernel module as one C file: the ABI declarations, the dialect's prologue, constants, the
 * helpers that the functions asked for, the functions, the descriptor. Functions are printed first,
 * because they decide which helpers exist. */
#include "codegen/cstyle/cstyle.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>

#include "codegen/cstyle/cs_priv.h"

static const char *const abi_lines[] = {
#include "zenith_abi.inc"
    NULL};

/* The C99 dialect. The pragmas and attributes keep three promises on any command line: a*b+c is two
 * roundings, loops do not become calls of memset and memcpy, and buffers may alias. */
static const char *const c99_prologue[] = {
    "#if defined(__clang__)",
    "#pragma STDC FP_CONTRACT OFF",
    "#pragma clang diagnostic push",
    "#pragma clang diagnostic ignored \"-Wpsabi\"",
    "#define ZN_FN __attribute__((no_builtin(\"memcpy\", \"memmove\", \"memset\")))",
    "#elif defined(__GNUC__)",
    "#pragma GCC push_options",
    "#pragma GCC optimize(\"no-tree-loop-distribute-patterns\", \"fp-contract=off\")",
    "#pragma GCC diagnostic ignored \"-Wpsabi\" /* noted at the end of the file, so it stays off "
    "*/",
    "#define ZN_FN",
    "#else",
    "#pragma STDC FP_CONTRACT OFF",
    "#define ZN_FN",
    "#endif",
    "#if defined(__GNUC__)",
    "#define ZN_INLINE static inline __attribute__((always_inline, unused))",
    "#define ZN_ALIAS __attribute__((may_alias))",
    "#define ZN_ALIGN64(decl) decl __attribute__((aligned(64)))",
    "#define ZN_PREFETCH(p, i) __builtin_prefetch((const void *)((zu)(p) + (zu)(i)), 0, 2)",
    "#else",
    "#define ZN_PREFETCH(p, i) ((void)0)",
    "#define ZN_INLINE static inline",
    "#define ZN_ALIAS",
    "#if defined(_MSC_VER)",
    "#define ZN_ALIGN64(decl) __declspec(align(64)) decl",
    "#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L",
    "#define ZN_ALIGN64(decl) _Alignas(64) decl",
    "#else",
    "#define ZN_ALIGN64(decl) decl",
    "#endif",
    "#endif",
    "/* Vectors: the GCC and Clang extension, or a struct of lanes (any C99 compiler, or "
    "-DZN_NO_VECTOR_EXT). */",
    "#if (defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 9)) && "
    "!defined(ZN_NO_VECTOR_EXT)",
    "#define ZN_VEC 1",
    "#define ZN_LANE(a, k) ((a)[k])",
    "#define ZN_VECTOR(T, n, name) typedef T name __attribute__((vector_size((n) * sizeof(T))))",
    "#define ZN_VECTOR_UN(T, n, name) \\",
    "  typedef T name __attribute__((vector_size((n) * sizeof(T)), aligned(sizeof(T)), may_alias))",
    "#define ZN_VECTOR_AL(T, n, name) typedef T name __attribute__((vector_size((n) * sizeof(T)), "
    "may_alias))",
    "#else",
    "#define ZN_VEC 0",
    "#define ZN_LANE(a, k) ((a).v[k])",
    "#define ZN_VECTOR(T, n, name) typedef struct { T v[n]; } name",
    "#define ZN_VECTOR_UN(T, n, name) typedef struct { T v[n]; } name",
    "#define ZN_VECTOR_AL(T, n, name) typedef struct { T v[n]; } name",
    "#endif",
    "#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)",
    "#define ZN_SHUFFLE 1",
    "#else",
    "#define ZN_SHUFFLE 0",
    "#endif",
    "/* Element i of the buffer at p. */",
    "#define ZN_LD(t, p, i) (((const zn_##t##_m *)(const void *)(p))[(zi)(i)])",
    "#define ZN_ST(t, p, i, x) ((void)(((zn_##t##_m *)(void *)(p))[(zi)(i)] = (x)))",
    "typedef intptr_t zi;  /* index */",
    "typedef uintptr_t zu; /* its unsigned twin, for sums and products: they wrap */",
    "typedef float ZN_ALIAS zn_f32_m;",
    "typedef double ZN_ALIAS zn_f64_m;",
    "typedef int8_t ZN_ALIAS zn_i8_m;",
    "typedef int16_t ZN_ALIAS zn_i16_m;",
    "typedef int32_t ZN_ALIAS zn_i32_m;",
    "typedef int64_t ZN_ALIAS zn_i64_m;",
    "typedef uint8_t ZN_ALIAS zn_u8_m;",
    "typedef uint16_t ZN_ALIAS zn_u16_m;",
    "typedef uint32_t ZN_ALIAS zn_u32_m;",
    "typedef uint64_t ZN_ALIAS zn_u64_m;",
    "typedef uint8_t ZN_ALIAS zn_bool_m;",
    "typedef zi ZN_ALIAS zn_idx_m;",
    "typedef unsigned char *ZN_ALIAS zn_ptr_m;",
    NULL};

static const char *const c99_epilogue =
    "\n#if defined(__clang__)\n#pragma clang diagnostic pop\n#elif defined(__GNUC__)\n"
    "#pragma GCC pop_options\n#endif\n";

const zn_cdialect zn_cdialect_c99 = {.name = "c99",
                                     .prologue = c99_prologue,
                                     .kernel_qual = "ZN_FN static",
                                     .exported_qual = "ZN_FN",
                                     .helper_qual = "ZN_INLINE",
                                     .scalar = {[ZN_F32] = "float",
                                                [ZN_F64] = "double",
                                                [ZN_BOOL] = "uint8_t",
                                                [ZN_I8] = "int8_t",
                                                [ZN_I16] = "int16_t",
                                                [ZN_I32] = "int32_t",
                                                [ZN_I64] = "int64_t",
                                                [ZN_U8] = "uint8_t",
                                                [ZN_U16] = "uint16_t",
                                                [ZN_U32] = "uint32_t",
                                                [ZN_U64] = "uint64_t",
                                                [ZN_IDX] = "zi",
                                                [ZN_PTR] = "unsigned char *"},
                                     .unsigned_idx = "zu",
                                     .host_entries = true};

void cs_put_abi(zn_text *out) {
  for (const char *const *l = abi_lines; *l; l++) {
    zn_text_puts(out, *l);
    zn_text_puts(out, "\n");
  }
}

/* ---- constants ---- */

uint64_t zn_cprint_weights_bytes(const zn_kmod *m) { return zn_kmod_consts_bytes(m); }

zn_status zn_cprint_weights(zn_ctx *c, const zn_kmod *m, const char *path) {
  FILE *f = fopen(path, "wb");
  bool ok = f && zn_kmod_write_consts(m, f);
  if (f && fclose(f) != 0) ok = false;
  return ok ? ZN_OK : zn_fail(c, ZN_ERR_IO, NULL, "%s: cannot write the weights: %s", path, strerror(errno));
}

static bool all_finite(const zn_kconst *k) {
  for (uint64_t i = 0; i < k->count; i++)
    if (!isfinite(zn_load_f64(k->dtype, k->data, i))) return false;
  return true;
}

static void put_element(cs_state *s, const zn_kconst *k, zn_dtype t, uint64_t i) {
  zn_text *out = &s->body;
  if (t == ZN_F32 || t == ZN_F64) {
    double x = zn_load_f64(t, k->data, i);
    zn_text_printf(out, t == ZN_F32 ? "%af" : "%a", x);
    return;
  }
  int64_t x = zn_load_i64(t, k->data, i);
  if (t == ZN_I64 && x == INT64_MIN)
    zn_text_puts(out, "-INT64_C(9223372036854775807) - 1");
  else if (t == ZN_I32 && x == INT32_MIN)
    zn_text_puts(out, "-2147483647 - 1");
  else if (t == ZN_I64)
    zn_text_printf(out, x < 0 ? "-INT64_C(%" PRId64 ")" : "INT64_C(%" PRId64 ")", x < 0 ? -x : x);
  else if (t == ZN_U64)
    zn_text_printf(out, "UINT64_C(0x%" PRIx64 ")", (uint64_t)x);
  else
    zn_text_printf(out, t == ZN_U32 ? "%" PRId64 "u" : "%" PRId64, x);
}

/* How the elements are written: floats exactly in hexadecimal, or as bit patterns when one is Inf
 * or NaN. */
static zn_dtype literal_dtype(const zn_kconst *k) {
  zn_dtype t = cs_canon(k->dtype);
  if (zn_is_float(t) && !all_finite(k)) return t == ZN_F32 ? ZN_U32 : ZN_U64;
  return t == ZN_BOOL ? ZN_U8 : t;
}

static void put_const(cs_state *s, uint32_t i) {
  zn_kconst here = s->mod->consts[i], *k = &here;
  here.data = zn_kconst_data(&here, &s->arena);
  zn_dtype t = literal_dtype(k);
  uint64_t per_line = t == ZN_F32 || t == ZN_F64 ? 6 : zn_dtype_bytes(t) >= 4 ? 10 : 20;
  zn_text_printf(&s->body,
                 "\n/* %s: %s[%" PRIu64 "] */\nZN_ALIGN64(static const %s %s[%" PRIu64 "]) = {",
                 k->name ? k->name : "", zn_dtypes[k->dtype].name, k->count, s->dia->scalar[t],
                 s->const_names[i], k->count ? k->count : 1);
  for (uint64_t e = 0; e < k->count; e++) {
    zn_text_puts(&s->body, e % per_line == 0 ? "\n    " : " ");
    put_element(s, k, t, e);
    zn_text_puts(&s->body, e + 1 < k->count ? "," : "");
  }
  zn_text_puts(&s->body, k->count ? "};\n" : "0};\n");
}

static void put_weights_block(cs_state *s) {
  const char *n = s->mod->name;
  zn_text_printf(
      &s->body,
      "\n/* Weights: %" PRIu64
      " bytes in %s, 64-byte aligned, assembled in from there. The assembler looks in\n"
      " * the current directory and in -Wa,-Idir; -D%s_BIN='\"path\"' names another path, and\n"
      " * -D%s_EXTERN_WEIGHTS leaves the symbol %s_weights to the linker. */\n"
      "#ifndef %s_EXTERN_WEIGHTS\n#ifndef %s_BIN\n#define %s_BIN \"%s\"\n#endif\n",
      zn_cprint_weights_bytes(s->mod), s->opts->weights_file, n, n, n, n, n, n,
      s->opts->weights_file);
  zn_text_printf(&s->body,
                 "#if defined(__APPLE__)\n"
                 "__asm__(\".section __DATA,__const\\n.p2align 6\\n.private_extern "
                 "_%s_weights\\n_%s_weights:\\n\"\n"
                 "        \".incbin \\\"\" %s_BIN \"\\\"\\n.text\\n\");\n"
                 "#else\n"
                 "__asm__(\".pushsection .rodata\\n.balign 64\\n.globl %s_weights\\n.hidden "
                 "%s_weights\\n%s_weights:\\n\"\n"
                 "        \".incbin \\\"\" %s_BIN \"\\\"\\n.popsection\\n\");\n#endif\n#endif\n",
                 n, n, n, n, n, n, n);
  zn_text_printf(&s->body,
                 "#if defined(__GNUC__)\n__attribute__((visibility(\"hidden\")))\n#endif\n"
                 "extern const unsigned char %s_weights[%" PRIu64 "];\n",
                 n, zn_cprint_weights_bytes(s->mod));
}

static void name_consts(cs_state *s) {
  const zn_kmod *m = s->mod;
  s->const_names = ZN_ARRAY(&s->arena, const char *, m->num_consts + 1);
  const uint64_t *at = zn_kmod_const_places(m, &s->arena);
  for (uint32_t i = 0; i < m->num_consts; i++) {
    const char *name = m->consts[i].name ? cs_ident(s, m->consts[i].name) : "";
    s->const_names[i] = s->dia->simt            ? cs_fmt(s, "(zn_weights + %" PRIu64 ")", at[i])
                        : s->opts->weights_file ? cs_fmt(s, "(%s_weights + %" PRIu64 ")", m->name, at[i])
                                              : cs_fmt(s, "w%u_%s", i, name);
  }
}

/* ---- descriptor ---- */

static void put_string(zn_text *t, const char *s) {
  zn_text_puts(t, "\"");
  for (const unsigned char *p = (const unsigned char *)(s ? s : ""); *p; p++) {
    if (*p == '"' || *p == '\\' || *p == '?')
      zn_text_printf(t, "\\%c", *p);
    else if (*p < 32 || *p > 126)
      zn_text_printf(t, "\\%03o", *p);
    else
      zn_text_put(t, (const char *)p, 1);
  }
  zn_text_puts(t, "\"");
}

static void put_io(cs_state *s, const char *what, const zn_kio *io, uint32_t n) {
  zn_text *t = &s->body;
  zn_text_printf(t, "\nstatic const zn_io_desc zn_%s[%u] = {", what, n ? n : 1);
  for (uint32_t i = 0; i < n; i++) {
    zn_text_puts(t, i ? ",\n    {" : "\n    {");
    put_string(t, io[i].name);
    zn_text_printf(t, ", %u, %u, {", zn_kio_code(&io[i]), io[i].rank);
    for (uint32_t d = 0; d < io[i].rank; d++)
      zn_text_printf(t, d ? ", %" PRId64 : "%" PRId64, io[i].dims[d]);
    zn_text_puts(t, io[i].rank ? "}, {" : "0}, {");
    for (uint32_t d = 0; d < ZN_MAX_RANK; d++) {
      zn_text_puts(t, d ? ", " : "");
      put_string(t, d < io[i].rank ? io[i].dim_text[d] : "");
    }
    zn_text_puts(t, "}}");
  }
  zn_text_puts(t, n ? "};\n" : "{\"\", 0, 0, {0}, {\"\"}}};\n");
}

static uint64_t weights_bytes(const zn_kmod *m) {
  uint64_t total = 0;
  for (uint32_t i = 0; i < m->num_consts; i++) total += zn_kconst_bytes(&m->consts[i]);
  return total;
}

static void put_descriptor(cs_state *s) {
  const zn_kmod *m = s->mod;
  zn_text *t = &s->body;
  put_io(s, "inputs", m->inputs, m->num_inputs);
  put_io(s, "outputs", m->outputs, m->num_outputs);
  uint32_t kernels = 0;
  zn_text_puts(t, "\nstatic const char *const zn_kernel_names[] = {");
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    if (m->funcs[i]->is_entry) continue;
    zn_text_puts(t, kernels++ ? ",\n    " : "\n    ");
    put_string(t, m->funcs[i]->name);
  }
  zn_text_puts(t, kernels ? "};\n" : "\"\"};\n");
  zn_text_printf(t,
                 "\n#define ZN_DESCRIPTOR \\\n  {ZN_MODEL_MAGIC, ZN_ABI_VERSION, \"%s\", %u, %u, "
                 "zn_inputs, zn_outputs, "
                 "%s_plan, %s_run, \\\n   UINT64_C(%" PRIu64 "), UINT64_C(%" PRIu64 "), %" PRIu32
                 "u, %u, zn_kernel_names, \\\n   ",
                 m->name, m->num_inputs, m->num_outputs, m->name, m->name, m->workspace_bytes,
                 weights_bytes(m), s->opts->caps ? s->opts->caps->feature_bits : 0, kernels);
  put_string(t, m->provenance);
  zn_text_printf(t,
                 "}\nextern const zn_model %s_model;\nconst zn_model %s_model = ZN_DESCRIPTOR;\n"
                 "#ifdef ZN_MODEL_MAIN /* for a shared object that is opened by name */\n"
                 "extern const zn_model zn_model_main;\nconst zn_model zn_model_main = "
                 "ZN_DESCRIPTOR;\n#endif\n"
                 "#undef ZN_DESCRIPTOR\n",
                 m->name, m->name);
}

/* ---- the module ---- */

static void number_kernels(cs_state *s) {
  const zn_kmod *m = s->mod;
  uint32_t *no = ZN_ARRAY(&s->arena, uint32_t, m->num_funcs + 1), n = 0;
  s->kernel_names = ZN_ARRAY(&s->arena, const char *, m->num_funcs + 1);
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    s->kernel_names[i] = cs_fmt(s, m->funcs[i]->exported ? "%s" : "k_%s", m->funcs[i]->name);
    if (zn_kfunc_on_device(m->funcs[i])) no[i] = n++;
  }
  s->kernel_no = no;
}

static const char *const launcher =
    "\nZN_INLINE void zn_launch(const zn_host *host, uint32_t k, zn_kernel fn, void *const *b, "
    "const zi *n, zi count, int split) {\n"
    "  if (count <= 0) return;\n"
    "  if (host && host->profile) host->profile(host->user, k, 1);\n"
    "  if (split && count > 1 && host && host->parallel_for)\n"
    "    host->parallel_for(host->user, fn, b, n, count);\n"
    "  else\n"
    "    fn(b, n, 0, count);\n"
    "  if (host && host->profile) host->profile(host->user, k, 0);\n"
    "}\n";

static void put_entries(cs_state *s) {
  const zn_kmod *m = s->mod;
  zn_text_puts(&s->body, launcher);
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    if (!m->funcs[i]->is_entry) continue;
    const char *what = i == m->run_fn ? "run" : i == m->plan_fn ? "plan" : m->funcs[i]->name;
    const char *symbol = cs_fmt(s, "%s_%s", m->name, what);
    zn_text_printf(&s->body,
                   "\nint32_t %s(zn_tensor *in, zn_tensor *out, void *ws, size_t ws_bytes, const "
                   "zn_host *host);",
                   symbol);
    cs_print_entry(s, i, symbol);
  }
}

static void put_head(cs_state *s, zn_text *out) {
  zn_text_printf(out, "/* %s: a compiled model. %s\n", s->mod->name,
                 s->mod->provenance ? s->mod->provenance : "");
  zn_text_printf(out,
                 " * Freestanding C99: needs <stdint.h> and <stddef.h> only, calls nothing but the "
                 "host's hooks.\n"
                 " * Compile with -O2 %s\n */\n\n",
                 s->opts->cflags ? s->opts->cflags : "");
  cs_put_abi(out);
  zn_text_puts(out, "\n");
  for (const char *const *l = s->dia->prologue; *l; l++) {
    zn_text_puts(out, *l);
    zn_text_puts(out, "\n");
  }
}

void zn_cprint_cuda(zn_ctx *c, const zn_kmod *m, uint32_t first, uint32_t n, bool idx32, zn_text *out) {
  zn_cprint_opts o = {.dialect = &zn_cdialect_cuda};
  cs_state s = {.ctx = c, .mod = m, .opts = &o, .dia = o.dialect};
  zn_arena_init(&s.arena, "cstyle");
  zn_text_init(&s.helpers, &s.arena);
  zn_text_init(&s.body, &s.arena);
  number_kernels(&s);
  name_consts(&s);
  zn_text_printf(out, "#define ZN_IDX_BITS %d\n", idx32 ? 32 : 64);
  for (const char *const *l = s.dia->prologue; *l; l++) {
    zn_text_puts(out, *l);
    zn_text_puts(out, "\n");
  }
  for (uint32_t i = 0; i < m->num_funcs; i++)
    if (zn_kfunc_on_device(m->funcs[i]) && s.kernel_no[i] >= first && s.kernel_no[i] - first < n) cs_print_simt_kernel(&s, i);
  zn_text_put(out, s.helpers.s ? s.helpers.s : "", s.helpers.len);
  zn_text_put(out, s.body.s ? s.body.s : "", s.body.len);
  zn_arena_reset(&s.arena);
}

void zn_cprint_module(zn_ctx *c, const zn_kmod *m, const zn_cprint_opts *o, zn_text *out) {
  cs_state s = {.ctx = c, .mod = m, .opts = o, .dia = o->dialect ? o->dialect : &zn_cdialect_c99};
  zn_arena_init(&s.arena, "cstyle");
  zn_text_init(&s.helpers, &s.arena);
  zn_text_init(&s.body, &s.arena);
  number_kernels(&s);
  name_consts(&s);
  put_head(&s, out);
  if (o->weights_file && m->num_consts)
    put_weights_block(&s);
  else
    for (uint32_t i = 0; i < m->num_consts; i++) put_const(&s, i);
  zn_text_put(out, s.body.s ? s.body.s : "", s.body.len);
  zn_text_init(&s.body, &s.arena);
  for (uint32_t i = 0; i < m->num_funcs; i++)
    if (!m->funcs[i]->is_entry) cs_print_kernel(&s, i);
  if (s.dia->host_entries && !o->kernels_only) {
    put_entries(&s);
    put_descriptor(&s);
  }
  zn_text_puts(out, "\n");
  zn_text_put(out, s.helpers.s ? s.helpers.s : "", s.helpers.len);
  zn_text_put(out, s.body.s ? s.body.s : "", s.body.len);
  zn_text_puts(out, c99_epilogue);
  zn_arena_reset(&s.arena);
}
