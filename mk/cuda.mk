# The runtime object that every CUDA artifact contains, as bytes inside zenithc. It includes nothing of CUDA.
GENHDR += $(B)/gen/zenith_cuda_o.inc
CUDA_RT := $(B)/gen/zenith_cuda.o $(B)/gen/cuda_share.o $(B)/gen/cuda_flow.o $(B)/gen/cuda_tape.o
CUDA_RT_H := $(addprefix runtime/,cuda_session.h cuda.def cuda_blob.h zenith.h zenith_device.h)
$(CUDA_RT): $(B)/gen/%.o: runtime/%.c $(CUDA_RT_H)
	@mkdir -p $(@D)
	$(CC) -std=c11 -O2 $(WARN) -D_GNU_SOURCE -fPIC -fno-stack-protector -fno-asynchronous-unwind-tables -Iruntime -c -o $@ $<
$(B)/gen/zenith_cuda_rt.o: $(CUDA_RT)
	$(CC) -r -nostdlib -o $@ $(CUDA_RT)
$(B)/gen/zenith_cuda_o.inc: $(B)/gen/zenith_cuda_rt.o
	od -An -v -tu1 $< | sed -e 's/ *\([0-9][0-9]*\)/\1,/g' > $@
