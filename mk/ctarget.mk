.DEFAULT_GOAL := all
# The runtime pool is also linked into zenithc, for bench and run --threads.
OBJ    += $(B)/runtime/zenith_pool.o
LIBOBJ += $(B)/runtime/zenith_pool.o

# runtime/zenith.h as C strings, for the files that the c target writes.
GENHDR += $(B)/gen/zenith_abi.inc
$(B)/gen/zenith_abi.inc: runtime/zenith.h
	@mkdir -p $(@D)
	sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/.*/"&",/' $< > $@
