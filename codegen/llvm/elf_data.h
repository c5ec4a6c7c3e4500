/* Constants into finished ELF files, without passing through the assembler or the linker. */
#ifndef ZN_ELF_DATA_H
#define ZN_ELF_DATA_H
#include "codegen/kir/kir.h"

/* Sections that LLVM is given for the constants: a name in .bss makes it NOBITS, so that nothing writes its zeros. The
 * names behind the prefixes are what the section is called afterwards. */
#define ZN_ELF_BSS_SECTION ".bss.rodata.zn"

/* path is a relocatable object with the section above: gives it its bytes, as read-only section `.rodata.zn`. */
zn_status zn_elf_fill_object(zn_ctx *c, const char *path, const zn_kmod *mod);
/* Instead, before linking: calls the section `.zn` and leaves it empty, which linkers place behind everything else. */
zn_status zn_elf_defer(zn_ctx *c, const char *path);
/* path is a shared object linked from a deferred object: gives `.zn` its bytes. Nothing to do without such a section. */
zn_status zn_elf_fill_shared(zn_ctx *c, const char *path, const zn_kmod *mod);
#endif
