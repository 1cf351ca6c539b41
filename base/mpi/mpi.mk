# Communication over MPI, libnn_mpi.so beside the programs, where a program for MPI can be built.
# Included by Makefile.
#
#   MPICC    the compiler of Open MPI or MPICH; empty: builds without MPI

MPICC ?= mpicc
MPI_LIBRARY := $(BUILD)/libnn_mpi.so
# What is built already was tried before.
MPI_PROBE = printf '\043include <mpi.h>\nint main(void) { return MPI_Init(0, 0); }' | \
	$(MPICC) -x c - -o $(BUILD)/mpi_probe 2>/dev/null && echo yes
MPI_FOUND := $(shell command -v "$(MPICC)" && { [ -e $(MPI_LIBRARY) ] || \
	{ mkdir -p $(BUILD) && $(MPI_PROBE); }; })
MPI_NAME := $(if $(MPI_FOUND),$(realpath $(firstword $(MPI_FOUND))),none: $(MPICC) builds no program)

# With its own copy of what it needs of the programs' files.
MPI_SOURCES := $(wildcard base/mpi/*.c) base/error.c base/utf8.c base/os.c
MPI_OBJECTS := $(MPI_SOURCES:%.c=$(BUILD)/mpi/%.o)
# Both compilers take the one that they call from the environment.
MPI_COMPILE = OMPI_CC='$(CC)' MPICH_CC='$(CC)' $(MPICC) $(ALL_CFLAGS) -fPIC -fvisibility=hidden

$(TRAINERS): $(if $(MPI_FOUND),$(MPI_LIBRARY)) $(BUILD)/mpi/wanted

$(MPI_LIBRARY): $(MPI_OBJECTS)
	@echo "LD $@"
	$(Q)$(MPI_COMPILE) -shared -o $@ $^

$(MPI_OBJECTS): $(BUILD)/mpi/%.o: %.c $(BUILD)/flags $(BUILD)/mpi/wanted
	@mkdir -p $(@D)
	@echo "MPICC $<"
	$(Q)$(MPI_COMPILE) $(CONVERSIONS) -MMD -MP -c -o $@ $<

# Changes when the compiler does. A library that is no longer built is removed.
$(BUILD)/mpi/wanted: force
	@mkdir -p $(@D)
	@echo '$(MPI_NAME)' | cmp -s - $@ || { echo '$(MPI_NAME)' > $@; echo 'MPI $(MPI_NAME)'; \
		$(if $(MPI_FOUND),,rm -f $(MPI_LIBRARY);) }

-include $(MPI_OBJECTS:.o=.d)
