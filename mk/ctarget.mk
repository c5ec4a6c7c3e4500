.DEFAULT_GOAL := all
# The runtime's pool and image decoder are also linked into zenithc, for what it runs itself.
RUNTIME = $(B)/runtime/zenith_pool.o $(B)/runtime/zenith_image.o
OBJ    += $(RUNTIME)
LIBOBJ += $(RUNTIME)

# runtime/zenith.h as C strings, for the files that the c target writes.
GENHDR += $(B)/gen/zenith_abi.inc
$(B)/gen/zenith_abi.inc: runtime/zenith.h
	@mkdir -p $(@D)
	sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/.*/"&",/' $< > $@
