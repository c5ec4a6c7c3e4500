/* A section that LLVM or the linker left without bytes (NOBITS) becomes a section of data: its header is rewritten and
 * the constants are written at its place in the file. In an object they go to the end; in a shared object the section is
 * the last one of the last segment, so the few bytes behind it (symbols, section headers) move behind the data. The
 * constants are written one at a time, produced when their turn comes. Little-endian ELF of both classes. */
#include "codegen/llvm/elf_data.h"

#include <elf.h>
#include <errno.h>

enum { DATA_ALIGN = 64, RODATA_AT = 4, ZN_AT = 11 }; /* the latter: offsets of the shorter names in ZN_ELF_BSS_SECTION */
enum { LARGE_SECTION = 0x10000000 };                 /* SHF_X86_64_LARGE, which older elf.h lack */


typedef struct elf {
  zn_ctx *ctx;
  zn_arena *a;
  const char *path;
  FILE *f;
  bool wide; /* 64-bit */
  Elf64_Ehdr eh;
  Elf64_Shdr *sec; /* section headers, as 64-bit ones */
  Elf64_Phdr *seg;
  char *names;
} elf;

static zn_status bad(elf *e, const char *what) {
  int code = errno;
  return zn_fail(e->ctx, ZN_ERR_IO, e->path, "%s%s%s", what, code ? ": " : "", code ? strerror(code) : "");
}

static bool read_at(elf *e, uint64_t at, void *to, size_t n) {
  errno = 0;
  return fseeko(e->f, (off_t)at, SEEK_SET) == 0 && fread(to, 1, n, e->f) == n;
}

static bool write_at(elf *e, uint64_t at, const void *from, size_t n) {
  errno = 0;
  return fseeko(e->f, (off_t)at, SEEK_SET) == 0 && fwrite(from, 1, n, e->f) == n;
}

/* ---- headers of the 32-bit class, field by field; the 64-bit ones are used as they are ---- */

#define EACH_EHDR(X) \
  X(e_type) X(e_machine) X(e_version) X(e_entry) X(e_phoff) X(e_shoff) X(e_flags) X(e_ehsize) X(e_phentsize) \
  X(e_phnum) X(e_shentsize) X(e_shnum) X(e_shstrndx)
#define EACH_SHDR(X) \
  X(sh_name) X(sh_type) X(sh_flags) X(sh_addr) X(sh_offset) X(sh_size) X(sh_link) X(sh_info) X(sh_addralign) \
  X(sh_entsize)

static bool read_header(elf *e) {
  if (!read_at(e, 0, &e->eh, sizeof e->eh)) return false;
  if (memcmp(e->eh.e_ident, ELFMAG, SELFMAG) || e->eh.e_ident[EI_DATA] != ELFDATA2LSB) return false;
  e->wide = e->eh.e_ident[EI_CLASS] == ELFCLASS64;
  if (e->wide) return true;
  Elf32_Ehdr n;
  if (!read_at(e, 0, &n, sizeof n)) return false;
#define X(field) e->eh.field = n.field;
  EACH_EHDR(X)
#undef X
  return true;
}

static bool write_header(elf *e) {
  if (e->wide) return write_at(e, 0, &e->eh, sizeof e->eh);
  Elf32_Ehdr n;
  if (!read_at(e, 0, &n, sizeof n)) return false;
  n.e_shoff = (Elf32_Off)e->eh.e_shoff;
  return write_at(e, 0, &n, sizeof n);
}

static uint64_t section_place(const elf *e, unsigned i) { return e->eh.e_shoff + (uint64_t)i * e->eh.e_shentsize; }

static bool read_section(elf *e, unsigned i) {
  if (e->wide) return read_at(e, section_place(e, i), &e->sec[i], sizeof *e->sec);
  Elf32_Shdr n;
  if (!read_at(e, section_place(e, i), &n, sizeof n)) return false;
#define X(field) e->sec[i].field = n.field;
  EACH_SHDR(X)
#undef X
  return true;
}

static bool write_section(elf *e, unsigned i) {
  if (e->wide) return write_at(e, section_place(e, i), &e->sec[i], sizeof *e->sec);
  Elf32_Shdr n;
#define X(field) n.field = (Elf32_Word)e->sec[i].field;
  EACH_SHDR(X)
#undef X
  return write_at(e, section_place(e, i), &n, sizeof n);
}

static zn_status read_all(elf *e) {
  if (!read_header(e)) return bad(e, "is not an ELF file we know");
  e->sec = ZN_ARRAY(e->a, Elf64_Shdr, e->eh.e_shnum + 1u);
  for (unsigned i = 0; i < e->eh.e_shnum; i++)
    if (!read_section(e, i)) return bad(e, "cannot be read");
  if (e->eh.e_shstrndx >= e->eh.e_shnum) return bad(e, "has no section names");
  const Elf64_Shdr *s = &e->sec[e->eh.e_shstrndx];
  e->names = zn_arena_alloc(e->a, s->sh_size + 1);
  if (!read_at(e, s->sh_offset, e->names, s->sh_size)) return bad(e, "cannot be read");
  e->seg = ZN_ARRAY(e->a, Elf64_Phdr, e->eh.e_phnum + 1u);
  if (e->eh.e_phnum && (!e->wide || !read_at(e, e->eh.e_phoff, e->seg, e->eh.e_phnum * sizeof *e->seg)))
    return bad(e, "has program headers that cannot be read");
  return ZN_OK;
}

/* 0: there is none. */
static unsigned find_section(const elf *e, const char *name) {
  for (unsigned i = 1; i < e->eh.e_shnum; i++)
    if (e->sec[i].sh_type == SHT_NOBITS && !strcmp(e->names + e->sec[i].sh_name, name)) return i;
  return 0;
}

static zn_status with_file(zn_ctx *c, const char *path, const zn_kmod *mod, zn_status (*edit)(elf *, const zn_kmod *)) {
  zn_arena a;
  zn_arena_init(&a, "elf");
  elf e = {.ctx = c, .a = &a, .path = path, .f = fopen(path, "r+b")};
  zn_status st = e.f ? read_all(&e) : bad(&e, "cannot be opened");
  if (st == ZN_OK) st = edit(&e, mod);
  if (e.f && fclose(e.f) != 0 && st == ZN_OK) st = bad(&e, "cannot be written");
  zn_arena_reset(&a);
  return st;
}

static zn_status write_data(elf *e, const zn_kmod *mod, uint64_t at, uint64_t size) {
  if (size != zn_kmod_consts_bytes(mod)) return bad(e, "has a constant section of another size");
  errno = 0;
  if (fseeko(e->f, (off_t)at, SEEK_SET) != 0 || !zn_kmod_write_consts(mod, e->f))
    return bad(e, "cannot be written");
  return ZN_OK;
}

static void to_data(Elf64_Shdr *s, uint64_t offset) {
  s->sh_type = SHT_PROGBITS;
  s->sh_flags = SHF_ALLOC | (s->sh_flags & LARGE_SECTION);
  s->sh_offset = offset;
}

/* ---- objects ---- */

static zn_status fill_object(elf *e, const zn_kmod *mod) {
  unsigned i = find_section(e, ZN_ELF_BSS_SECTION);
  if (!i) return ZN_OK;
  if (fseeko(e->f, 0, SEEK_END) != 0) return bad(e, "cannot be read");
  uint64_t at = ((uint64_t)ftello(e->f) + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
  if (!e->wide && at + e->sec[i].sh_size > UINT32_MAX) return bad(e, "is larger than a 32-bit object can be");
  to_data(&e->sec[i], at);
  e->sec[i].sh_name += RODATA_AT;
  e->sec[i].sh_addralign = DATA_ALIGN;
  if (!write_section(e, i)) return bad(e, "cannot be written");
  return write_data(e, mod, at, e->sec[i].sh_size);
}

zn_status zn_elf_fill_object(zn_ctx *c, const char *path, const zn_kmod *mod) {
  return with_file(c, path, mod, fill_object);
}

static zn_status defer(elf *e, const zn_kmod *mod) {
  (void)mod;
  unsigned i = find_section(e, ZN_ELF_BSS_SECTION);
  if (!i) return ZN_OK;
  e->sec[i].sh_name += ZN_AT;
  return write_section(e, i) ? ZN_OK : bad(e, "cannot be written");
}

zn_status zn_elf_defer(zn_ctx *c, const char *path) { return with_file(c, path, NULL, defer); }

/* ---- shared objects ---- */

static zn_status move_tail(elf *e, uint64_t from, uint64_t to) {
  if (fseeko(e->f, 0, SEEK_END) != 0) return bad(e, "cannot be read");
  uint64_t end = (uint64_t)ftello(e->f), n = end > from ? end - from : 0;
  char *tail = zn_arena_alloc(e->a, n + 1);
  if (!read_at(e, from, tail, n) || !write_at(e, to, tail, n)) return bad(e, "cannot be written");
  for (unsigned i = 1; i < e->eh.e_shnum; i++)
    if (!(e->sec[i].sh_flags & SHF_ALLOC) && e->sec[i].sh_offset >= from) e->sec[i].sh_offset += to - from;
  if (e->eh.e_shoff >= from) e->eh.e_shoff += to - from;
  return ZN_OK;
}

/* The segment that ends with section s, or NULL; *out_loaded: end of what the file holds of all segments. */
static Elf64_Phdr *segment_of(elf *e, const Elf64_Shdr *s, uint64_t *out_loaded) {
  Elf64_Phdr *found = NULL;
  *out_loaded = 0;
  for (unsigned i = 0; i < e->eh.e_phnum; i++) {
    Elf64_Phdr *p = &e->seg[i];
    if (p->p_type != PT_LOAD) continue;
    if (p->p_offset + p->p_filesz > *out_loaded) *out_loaded = p->p_offset + p->p_filesz;
    if (p->p_vaddr <= s->sh_addr && p->p_vaddr + p->p_memsz == s->sh_addr + s->sh_size) found = p;
  }
  return found;
}

/* The constants, which end segment p behind data that is written, get a read-only segment of their own, whose header
 * replaces the one that describes the table of headers: nobody needs that in a shared object. */
static void split_segment(elf *e, Elf64_Phdr *p, const Elf64_Shdr *s) {
  enum { PAGE = 4096 };
  unsigned at = (unsigned)(p - e->seg), spare = 0;
  while (spare < e->eh.e_phnum && e->seg[spare].p_type != PT_PHDR) spare++;
  if (spare > at || s->sh_addr % PAGE) return; /* the other order would move headers that are not ours */
  Elf64_Phdr own = *p;
  own.p_flags = PF_R;
  own.p_offset += s->sh_addr - p->p_vaddr;
  own.p_vaddr = own.p_paddr = s->sh_addr;
  own.p_filesz = own.p_memsz = s->sh_size;
  p->p_memsz = s->sh_addr - p->p_vaddr;
  if (p->p_filesz > p->p_memsz) p->p_filesz = p->p_memsz;
  memmove(e->seg + spare, e->seg + spare + 1, (at - spare) * sizeof *e->seg);
  e->seg[at] = own;
}

static zn_status fill_shared(elf *e, const zn_kmod *mod) {
  unsigned i = find_section(e, &ZN_ELF_BSS_SECTION[ZN_AT]);
  if (!i) return ZN_OK;
  Elf64_Shdr *s = &e->sec[i];
  uint64_t loaded;
  Elf64_Phdr *p = segment_of(e, s, &loaded);
  if (!p) return bad(e, "was linked in an order we do not expect: the constants are not last");
  uint64_t at = p->p_offset + (s->sh_addr - p->p_vaddr), size = s->sh_size;
  if (at < loaded && at < p->p_offset + p->p_filesz) return bad(e, "was linked with the constants inside other data");
  ZN_TRY(move_tail(e, loaded, (at + size + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN));
  to_data(s, at);
  if (p->p_vaddr == s->sh_addr) p->p_flags = PF_R;
  p->p_filesz = p->p_memsz;
  if (p->p_vaddr != s->sh_addr) split_segment(e, p, s);
  bool ok = write_at(e, e->eh.e_phoff, e->seg, e->eh.e_phnum * sizeof *e->seg);
  for (unsigned k = 0; ok && k < e->eh.e_shnum; k++) ok = write_section(e, k);
  if (!ok || !write_header(e)) return bad(e, "cannot be written");
  return write_data(e, mod, at, size);
}

zn_status zn_elf_fill_shared(zn_ctx *c, const char *path, const zn_kmod *mod) {
  return with_file(c, path, mod, fill_shared);
}
