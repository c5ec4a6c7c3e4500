# What the code that prints LLVM IR looks like, for the names of cached objects (targets/cpu/cpu_cache.c).
GENHDR += $(B)/gen/llvm_source.inc
$(B)/gen/llvm_source.inc: $(sort $(wildcard codegen/llvm/*.[ch])) codegen/kir/kir.h codegen/kir/kops.def runtime/zenith.h
	@mkdir -p $(@D)
	cat $^ | sha256sum | sed 's/\([0-9a-f]*\).*/"\1"/' > $@
