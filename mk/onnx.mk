# The ONNX schema as C (protoc-c), and the corruption test.
GENHDR += $(B)/gen/onnx_min.pb-c.h
GENOBJ += $(B)/gen/onnx_min.pb-c.o

$(B)/gen/onnx_min.pb-c.h: frontends/onnx/onnx_min.proto
	@mkdir -p $(@D)
	protoc-c --c_out=$(@D) -I frontends/onnx onnx_min.proto

$(B)/gen/onnx_min.pb-c.o: $(B)/gen/onnx_min.pb-c.h
	$(CC) -std=c11 -g $(OPT) $(SAN) -w -I$(B)/gen -c -o $@ $(B)/gen/onnx_min.pb-c.c

# make fuzz-corrupt N=2000 [MODELS=dir] [FUZZ_CMD="prog args"]: corrupted models must be refused, never crash or hang.
N        ?= 2000
MODELS   ?= ../shared/models
FUZZ_CMD ?= $(B)/fuzz/load_onnx
$(B)/fuzz/%: tests/fuzz/%.c $(B)/libzenithc.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LLVM_CFLAGS) -MMD -MP -o $@ $< $(B)/libzenithc.a $(LDLIBS)

fuzz-corrupt: $(B)/fuzz/corrupt $(B)/fuzz/load_onnx
	$(B)/fuzz/corrupt -n $(N) -d $(B)/fuzz $(MODELS) -- $(FUZZ_CMD)

.PHONY: fuzz-corrupt
-include $(wildcard $(B)/fuzz/*.d)
