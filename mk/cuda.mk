# The runtime object that every CUDA artifact contains, as bytes inside zenithc. It includes nothing of CUDA.
GENHDR += $(B)/gen/zenith_cuda_o.inc
$(B)/gen/zenith_cuda.o: runtime/zenith_cuda.c runtime/cuda.def runtime/cuda_blob.h runtime/zenith.h runtime/zenith_device.h
	@mkdir -p $(@D)
	$(CC) -std=c11 -O2 $(WARN) -D_GNU_SOURCE -fPIC -fno-stack-protector -fno-asynchronous-unwind-tables -Iruntime -c -o $@ $<
$(B)/gen/zenith_cuda_o.inc: $(B)/gen/zenith_cuda.o
	od -An -v -tu1 $< | sed -e 's/ *\([0-9][0-9]*\)/\1,/g' > $@
