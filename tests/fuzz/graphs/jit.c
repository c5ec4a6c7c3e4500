/* Loads an object file into this process without a linker (LLVM's ORC): a graph costs its compilation and little more. */
#include <llvm-c/LLJIT.h>
#include <llvm-c/Target.h>
#include <llvm-c/Core.h>
#include <stdio.h>

#include "runtime/zenith.h"
#include "tests/fuzz/graphs/fuzz.h"

struct fz_jit {
  LLVMOrcLLJITRef jit;
};

static const char *message(LLVMErrorRef e) {
  char *m = LLVMGetErrorMessage(e);
  char *copy = strdup(m);
  LLVMDisposeErrorMessage(m);
  return copy;
}

fz_jit *fz_jit_load(const char *object, const char *name, const struct zn_model **out_model,
                    const char **out_error) {
  LLVMInitializeNativeTarget();
  LLVMInitializeNativeAsmPrinter();
  LLVMMemoryBufferRef buf;
  char *text = NULL, symbol[128];
  LLVMOrcLLJITRef jit;
  LLVMErrorRef e = LLVMOrcCreateLLJIT(&jit, NULL);
  if (e) return *out_error = message(e), NULL;
  if (LLVMCreateMemoryBufferWithContentsOfFile(object, &buf, &text)) return *out_error = text, NULL;
  e = LLVMOrcLLJITAddObjectFile(jit, LLVMOrcLLJITGetMainJITDylib(jit), buf);
  LLVMOrcExecutorAddress at = 0;
  snprintf(symbol, sizeof symbol, "%s_model", name);
  if (!e) e = LLVMOrcLLJITLookup(jit, &at, symbol);
  if (e) return *out_error = message(e), NULL;
  fz_jit *j = calloc(1, sizeof *j);
  j->jit = jit;
  *out_model = (const struct zn_model *)(uintptr_t)at;
  return j;
}

void fz_jit_close(fz_jit *j) {
  if (!j) return;
  LLVMErrorRef e = LLVMOrcDisposeLLJIT(j->jit);
  if (e) LLVMConsumeError(e);
  free(j);
}
