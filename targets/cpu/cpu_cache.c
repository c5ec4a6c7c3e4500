/* Compiled objects in a folder, named by the SHA-256 of all that decides their bytes: kernel IR as text, what the descriptor
 * says, the processor, and the code that compiles. Two things are put in behind: large constants (elf_data.c), and the
 * provenance, for which a cached object has a gap of its length; so a model with other weights finds the objects of its
 * twin. A file ends with its own digest. It is written under another name and moved: a reader never sees half of it, and
 * of two writers the later wins with the same bytes. */
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codegen/llvm/elf_data.h"
#include "targets/cpu/cpu.h"
#include "zenithc/base/sha256.h"

enum { HEX = 64, GAP = 1, MIN_GAP = 32 };

/* ---- the key ---- */

static void put_io(zn_text *t, const zn_kio *io, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    zn_text_printf(t, "io %s %u %u", io[i].name, zn_kio_code(&io[i]), io[i].rank);
    for (uint32_t d = 0; d < io[i].rank; d++)
      zn_text_printf(t, " %" PRId64 " '%s'", io[i].dims[d], io[i].dim_text[d] ? io[i].dim_text[d] : "");
    zn_text_puts(t, "\n");
  }
}

static void put_consts(zn_text *t, const zn_kmod *m) {
  zn_arena a;
  zn_arena_init(&a, "constants");
  bool inside = zn_kmod_consts_bytes(m) <= ZN_LLVM_INLINE_BYTES; /* the object holds them */
  for (uint32_t i = 0; i < m->num_consts; i++) {
    uint64_t n = zn_kconst_bytes(&m->consts[i]);
    char hex[HEX + 1] = "";
    if (inside && n) zn_sha256(zn_kconst_data(&m->consts[i], &a), n, hex);
    zn_text_printf(t, "const %" PRIu64 " %s\n", n, hex);
    zn_arena_reset(&a);
  }
}

/* share: each function's part, or NULL. Of a part with kernels alone, what the descriptor says does not matter. */
static void put_variant(zn_text *t, const zn_kmod *m, const zn_caps *k, const uint32_t *share, uint32_t part) {
  if (part == 0)
    zn_text_printf(t, "module %s run %u plan %u workspace %" PRIu64 "\n", m->name, m->run_fn, m->plan_fn,
                   m->workspace_bytes);
  zn_text_printf(t, "for %s %s %s %s %u %u %u\n", k->arch ? k->arch : "", k->triple ? k->triple : "", k->cpu ? k->cpu : "",
                 k->features ? k->features : "", k->feature_bits, k->idx_bytes, k->vector_bytes);
  zn_text_printf(t, "can %d %d %d %d %d %d %d\n", k->fma, k->f16_convert, k->round_native, k->dot2,
                 k->dot4, k->dot_bf16, k->tile_dot);
  if (part == 0) put_io(t, m->inputs, m->num_inputs);
  if (part == 0) put_io(t, m->outputs, m->num_outputs);
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    bool here = m->funcs[i]->is_entry ? part == 0 : !share || share[i] == part;
    if (!here && part) continue;
    if (!here) {
      zn_text_printf(t, "elsewhere %s '%s' %d\n", m->funcs[i]->name, m->funcs[i]->note ? m->funcs[i]->note : "",
                     m->funcs[i]->serial);
      continue;
    }
    zn_text_printf(t, "function %d %d %d ", m->funcs[i]->is_entry, m->funcs[i]->exported, m->funcs[i]->serial);
    zn_kfunc_print(m, m->funcs[i], t);
  }
}

static const char *file_of(zn_arena *a, const char *folder, const zn_kmod *mod, const zn_caps *caps, const zn_llvm_opts *o) {
  zn_text t;
  char hex[HEX + 1];
  zn_text_init(&t, a);
  zn_text_printf(&t, "%s\nlevel %d names %d main %d defer %d part %d of %d provenance %zu\n",
                 zn_llvm_identity(a), o->opt_level, o->keep_names, o->export_main, o->defer_data, o->part > 0, o->parts > 1,
                 o->part ? 0 : strlen(mod->provenance));
  const uint32_t *share = o->parts > 1 ? zn_llvm_shares(a, mod, o) : NULL;
  put_consts(&t, mod); /* one list for all variants */
  put_variant(&t, mod, caps, share, o->part);
  for (uint32_t i = 0, at = mod->num_funcs; i < o->num_more; at += o->more[i++].mod->num_funcs)
    put_variant(&t, o->more[i].mod, o->more[i].caps, share ? share + at : NULL, o->part);
  zn_sha256(t.s, t.len, hex);
  return zn_arena_printf(a, "%s/%s.o", folder, hex);
}

/* ---- files ---- */

/* NULL: there is no such file, or it is not whole. */
static char *read_whole(zn_arena *a, const char *path, size_t *out_n) {
  FILE *f = fopen(path, "rb");
  struct stat st;
  char *p = NULL;
  if (f && fstat(fileno(f), &st) == 0 && st.st_size > 0) {
    p = zn_arena_alloc(a, (size_t)st.st_size + 1);
    *out_n = (size_t)st.st_size;
    if (fread(p, 1, *out_n, f) != *out_n) p = NULL;
  }
  if (f) fclose(f);
  return p;
}

static char *read_cached(zn_arena *a, const char *path, size_t *out_n) {
  char *p = read_whole(a, path, out_n), hex[HEX + 1];
  if (!p || *out_n < HEX) return NULL;
  *out_n -= HEX;
  zn_sha256(p, *out_n, hex);
  return memcmp(p + *out_n, hex, HEX) ? NULL : p;
}

static bool write_file(const char *path, const char *p, size_t n, const char *tail) {
  FILE *f = fopen(path, "wb");
  bool ok = f && fwrite(p, 1, n, f) == n && fputs(tail, f) >= 0;
  if (f && fclose(f) != 0) ok = false;
  return ok;
}

/* Failing to write costs nothing but time. */
static void write_cached(zn_arena *a, const char *path, const char *p, size_t n) {
  const char *temp = zn_arena_printf(a, "%s.%ld", path, (long)getpid());
  char hex[HEX + 1];
  zn_sha256(p, n, hex);
  if (!write_file(temp, p, n, hex) || rename(temp, path) != 0) remove(temp);
}

const char *zn_cpu_cache_ready(zn_ctx *c, const char *folder) {
  if (!folder || ((mkdir(folder, 0777) == 0 || errno == EEXIST) && access(folder, W_OK | X_OK) == 0)) return folder;
  zn_warn(c, NULL, "--cache: %s: cannot be written: %s", folder, strerror(errno));
  return NULL;
}

/* The only run of `len` gap bytes; NULL when there is none, or more. */
static char *find_gap(char *p, size_t n, size_t len) {
  char *found = NULL;
  for (size_t i = 0; i + len <= n;) {
    size_t k = 0;
    while (i + k < n && p[i + k] == GAP) k++;
    if (k >= len && (found || k > len)) return NULL;
    if (k == len) found = p + i;
    i += k + 1;
  }
  return found;
}

/* ---- objects ---- */

static zn_status finish(zn_ctx *c, const zn_kmod *mod, const zn_llvm_opts *o) {
  return o->defer_data ? zn_elf_defer(c, o->out) : zn_elf_fill_object(c, o->out, mod);
}

/* The object without provenance and large constants, from the cache or compiled into it; NULL: it cannot be had that way. */
static char *bare_object(zn_ctx *c, zn_arena *a, const zn_kmod *mod, const zn_caps *caps, const zn_llvm_opts *o,
                         const char *path, size_t *out_n) {
  size_t len = strlen(mod->provenance);
  char *p = read_cached(a, path, out_n), *filler = zn_arena_alloc(a, len + 1);
  if (p) return p;
  zn_kmod open = *mod;
  zn_llvm_opts raw = *o;
  memset(filler, GAP, len);
  filler[len] = 0;
  open.provenance = filler;
  raw.raw_data = true;
  if (zn_llvm_emit(c, &open, caps, &raw) != ZN_OK) return NULL;
  p = read_whole(a, o->out, out_n);
  if (p && (o->part || find_gap(p, *out_n, len))) write_cached(a, path, p, *out_n);
  return p;
}

static zn_status through_cache(zn_ctx *c, zn_arena *a, const zn_kmod *mod, const zn_caps *caps, const zn_llvm_opts *o,
                               const char *folder) {
  size_t n, len = strlen(mod->provenance);
  char *p = bare_object(c, a, mod, caps, o, file_of(a, folder, mod, caps, o), &n);
  char *gap = p && !o->part ? find_gap(p, n, len) : NULL;
  if (!p || (!o->part && !gap)) return zn_llvm_emit(c, mod, caps, o); /* bytes that look like a gap: without the cache */
  if (gap) memcpy(gap, mod->provenance, len);
  errno = 0;
  if (!write_file(o->out, p, n, "")) return zn_fail(c, ZN_ERR_IO, o->out, "cannot be written: %s", strerror(errno));
  return finish(c, mod, o);
}

zn_status zn_cpu_object(zn_ctx *c, const zn_kmod *mod, const zn_caps *caps, const zn_llvm_opts *o, const char *cache) {
  if (!cache || !mod->provenance || strlen(mod->provenance) < MIN_GAP) return zn_llvm_emit(c, mod, caps, o);
  zn_arena a;
  zn_arena_init(&a, "cache");
  zn_status st = through_cache(c, &a, mod, caps, o, cache);
  zn_arena_reset(&a);
  return st;
}
