/* Opening a model: the file is mapped, its structure unpacked into an arena that lives as long as the import. */
#include "frontends/onnx/import.h"
#include "frontends/onnx/wire.h"
#include "zenithc/ops/grad.h"

/* What people give in place of an ONNX file, by its first bytes. */
static const struct {
  unsigned at;
  const char *bytes, *what;
} others[] = {
    {0, "version https://git-lfs", "this is a pointer of Git LFS: fetch the file itself (`git lfs pull`)"},
    {0, "PK\3\4", "this is a zip archive, perhaps a PyTorch checkpoint: export the model with torch.onnx.export"},
    {0, "\x89HDF", "this is an HDF5 file, perhaps a Keras model: convert it with tf2onnx"},
    {4, "TFL3", "this is a TensorFlow Lite model: convert it with tf2onnx"},
    {0, "\x93NUMPY", "this is a NumPy array"},
    {0, "\x7f" "ELF", "this is a compiled object; a model is expected here"},
    {0, "\x1f\x8b", "this file is compressed: unpack it first"},
};

static void say_what_it_is(zn_ctx *c, const uint8_t *data, size_t n) {
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    const size_t len = strlen(others[i].bytes);
    if (n < others[i].at + len || memcmp(data + others[i].at, others[i].bytes, len)) continue;
    zn_help(c, "%s", others[i].what);
    return;
  }
  size_t text = 0;
  while (text < n && text < 256 && (data[text] >= ' ' || data[text] == '\n' || data[text] == '\r' || data[text] == '\t')) text++;
  if (n && text == (n < 256 ? n : 256))
    zn_help(c, "this is text; an ONNX model is a binary file, and graph text has the suffix .zg");
}

static zn_status load(zn_ctx *c, const uint8_t *data, size_t n, bool mapped, const char *dir, const zn_onnx_opts *opts,
                      zn_onnx_maps *maps, zn_graph **out) {
  zn_arena pa;
  zn_arena_init(&pa, "import");
  pa.oom = c->graph.oom;
  pa.oom_user = c->graph.oom_user;
  zn_status st = ZN_ERR_MODEL;
  *out = NULL;
  Pb__ModelProto *m = (Pb__ModelProto *)zn_wire_read(c, &pa, data, n, &pb__model_proto__descriptor, "model");
  if (!m) say_what_it_is(c, data, n);
  if (m) {
    zn_payload p = {.c = c, .a = &c->graph, .base = data, .size = n, .mapped = mapped, .dir = dir, .maps = maps};
    p.sparse_left = ((uint64_t)64 << 20) + (uint64_t)n * 16;
    st = zn_imp_run(c, m, &pa, &p, opts, out);
    if (st == ZN_OK) st = zn_grad_resolve(c, *out);
  }
  zn_arena_reset(&pa);
  return st;
}

zn_status zn_onnx_load_bytes(zn_ctx *c, const uint8_t *data, size_t n, const char *dir, const zn_onnx_opts *opts,
                             zn_onnx_maps *maps, zn_graph **out) {
  zn_onnx_maps own = {NULL, 0, 0};
  return load(c, data, n, false, dir, opts, maps ? maps : &own, out);
}

zn_status zn_onnx_load(zn_ctx *c, const char *path, const zn_onnx_opts *opts, zn_onnx_maps *maps, zn_graph **out) {
  zn_onnx_maps own = {NULL, 0, 0};
  if (!maps) maps = &own;
  const uint8_t *data;
  size_t n;
  *out = NULL;
  c->file = zn_arena_strdup(&c->perm, path);
  ZN_TRY(zn_payload_map(c, maps, path, &data, &n));
  const char *slash = strrchr(path, '/');
  const char *dir = !slash ? "." : slash == path ? "/" : zn_arena_strndup(&c->perm, path, (size_t)(slash - path));
  return load(c, data, n, true, dir, opts, maps, out);
}
