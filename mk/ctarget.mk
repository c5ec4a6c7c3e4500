# The runtime pool is also linked into zenithc, for bench and run --threads.
OBJ    += $(B)/runtime/zenith_pool.o
LIBOBJ += $(B)/runtime/zenith_pool.o
