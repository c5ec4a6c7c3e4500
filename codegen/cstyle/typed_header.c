/* NAME.h for callers in C and C++: the ABI's declarations, the model's symbols and, for static
 * shapes, a plain function over arrays, which builds the tensor descriptors on the stack and calls
 * run. */
#include <ctype.h>
#include <inttypes.h>

#include "codegen/cstyle/cs_priv.h"
#include "zenithc/base/file.h"

static bool is_static(const zn_kio *io, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    for (uint32_t d = 0; d < io[i].rank; d++)
      if (io[i].dims[d] <= 0) return false;
  return true;
}

static bool is_reserved(const char *s) {
  static const char *const words[] = {
      "auto",    "break",    "case",      "char",      "const",    "continue",  "default",
      "do",      "double",   "else",      "enum",      "extern",   "float",     "for",
      "goto",    "if",       "inline",    "int",       "long",     "register",  "restrict",
      "return",  "short",    "signed",    "sizeof",    "static",   "struct",    "switch",
      "typedef", "union",    "unsigned",  "void",      "volatile", "while",     "class",
      "new",     "delete",   "this",      "template",  "typename", "namespace", "operator",
      "private", "public",   "protected", "virtual",   "true",     "false",     "bool",
      "try",     "catch",    "throw",     "using",     "and",      "or",        "not",
      "xor",     "in",       "out",       "workspace", "asm",      "export",    "friend",
      "mutable", "explicit", "nullptr",   "complex",   NULL};
  for (const char *const *w = words; *w; w++)
    if (!strcmp(s, *w)) return true;
  return false;
}

/* Argument names: the tensor's name as an identifier, made unique by the argument's number where it
 * must be. */
static const char **arg_names(zn_ctx *c, const zn_kmod *m) {
  uint32_t n = m->num_inputs + m->num_outputs;
  const char **names = ZN_ARRAY(&c->tmp, const char *, n + 1);
  for (uint32_t i = 0; i < n; i++) {
    const zn_kio *io = i < m->num_inputs ? &m->inputs[i] : &m->outputs[i - m->num_inputs];
    char *s = zn_arena_printf(&c->tmp, "%.48s", io->name ? io->name : "");
    for (char *p = s; *p; p++)
      if (!isalnum((unsigned char)*p)) *p = '_';
    bool clash = !isalpha((unsigned char)s[0]) || is_reserved(s);
    for (uint32_t j = 0; j < i; j++) clash = clash || !strcmp(s, names[j]);
    names[i] = clash ? zn_arena_printf(&c->tmp, "arg%u_%s", i, s) : s;
  }
  return names;
}

static void put_arg(zn_text *t, const zn_kio *io, const char *name, bool is_const) {
  zn_text_printf(t, "%s%s %s", is_const ? "const " : "", zn_dtypes[io->dtype].cname, name);
  for (uint32_t d = 0; d < io->rank; d++) zn_text_printf(t, "[%" PRId64 "]", io->dims[d]);
  if (io->rank == 0) zn_text_puts(t, "[1]");
}

static void put_fill(zn_text *t, const char *array, uint32_t i, const zn_kio *io,
                     const char *name) {
  uint64_t bytes = zn_dtype_bytes(io->dtype);
  for (uint32_t d = 0; d < io->rank; d++) bytes *= (uint64_t)io->dims[d];
  zn_text_printf(
      t, "  %s[%u].u.data_bits = 0;\n  %s[%u].u.data = (void *)(uintptr_t)(const void *)%s;\n",
      array, i, array, i, name);
  zn_text_printf(t, "  %s[%u].bytes = %" PRIu64 "u;\n  %s[%u].dtype = %u;\n  %s[%u].rank = %u;\n",
                 array, i, bytes, array, i, zn_dtypes[io->dtype].onnx, array, i, io->rank);
  for (uint32_t d = 0; d < io->rank; d++)
    zn_text_printf(t, "  %s[%u].shape[%u] = %" PRId64 ";\n", array, i, d, io->dims[d]);
}

static void put_infer(zn_ctx *c, const zn_kmod *m, zn_text *t) {
  const char **names = arg_names(c, m);
  zn_text_printf(
      t,
      "\n/* Exact; the workspace must be 64-byte aligned. */\n#define %s_WORKSPACE_BYTES %" PRIu64
      "u\n\n/* One inference on one thread. Returns a zn_result, 0 = done. Arrays need the "
      "alignment of their "
      "element type. */\nstatic inline int %s_infer(",
      m->name, m->workspace_bytes, m->name);
  for (uint32_t i = 0; i < m->num_inputs + m->num_outputs; i++) {
    bool in = i < m->num_inputs;
    put_arg(t, in ? &m->inputs[i] : &m->outputs[i - m->num_inputs], names[i], in);
    zn_text_puts(t, ", ");
  }
  zn_text_puts(t, "void *workspace) {\n");
  zn_text_printf(t, "  zn_tensor in[%u], out[%u];\n", m->num_inputs ? m->num_inputs : 1,
                 m->num_outputs ? m->num_outputs : 1);
  for (uint32_t i = 0; i < m->num_inputs; i++) put_fill(t, "in", i, &m->inputs[i], names[i]);
  for (uint32_t i = 0; i < m->num_outputs; i++)
    put_fill(t, "out", i, &m->outputs[i], names[m->num_inputs + i]);
  zn_text_printf(t, "  return (int)%s_run(in, out, workspace, %s_WORKSPACE_BYTES, NULL);\n}\n",
                 m->name, m->name);
}

/* Values that C has no array type for. */
static bool has_others(const zn_kio *io, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (zn_dtypes[io[i].dtype].cls == 'C' || io[i].dtype == ZN_STR || io[i].kind) return true;
  return false;
}

void zn_cprint_header(zn_ctx *c, const zn_kmod *m, zn_text *t) {
  zn_text_printf(t, "/* %s: a compiled model. %s */\n", m->name,
                 m->provenance ? m->provenance : "");
  zn_text_printf(t, "#ifndef %s_MODEL_H\n#define %s_MODEL_H\n\n", m->name, m->name);
  cs_put_abi(t);
  zn_text_puts(t, "\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n");
  zn_text_printf(t, "extern const zn_model %s_model;\n", m->name);
  zn_text_printf(t,
                 "int32_t %s_plan(zn_tensor *in, zn_tensor *out, void *out_ws_bytes, size_t zero, "
                 "const zn_host *host);\n"
                 "int32_t %s_run(zn_tensor *in, zn_tensor *out, void *ws, size_t ws_bytes, const "
                 "zn_host *host);\n",
                 m->name, m->name);
  bool plain = !has_others(m->inputs, m->num_inputs) && !has_others(m->outputs, m->num_outputs);
  if (!plain)
    zn_text_puts(t, "\n/* No typed function: complex numbers, strings, sequences, optionals and maps have no C array "
                    "type. Fill zn_tensor. */\n");
  if (plain && is_static(m->inputs, m->num_inputs) && is_static(m->outputs, m->num_outputs))
    put_infer(c, m, t);
  zn_text_puts(t, "\n#ifdef __cplusplus\n}\n#endif\n#endif\n");
}

zn_status zn_write_typed_header(zn_ctx *c, const zn_kmod *m, const char *path) {
  zn_text t;
  zn_text_init(&t, &c->tmp);
  zn_cprint_header(c, m, &t);
  return zn_write_file(c, path, t.s, t.len);
}
