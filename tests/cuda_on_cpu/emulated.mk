# The CUDA backend executed on this CPU, for the tests. Included by Makefile.
#
# A build of its own in $(BUILD)/emulated/<how>: the sources of kernels/cuda compiled by g++ into
# libnn_cuda.so, and beside it the programs that open it as they would the real one. How: fast,
# asan (AddressSanitizer and UndefinedBehaviorSanitizer), tsan (ThreadSanitizer). The C files are
# those of $(BUILD).

EMULATED_BUILDS := fast asan tsan
EMULATED_PROGRAMS := $(TRAINERS) check_kernels check_collectives
EMULATED_SHIM := $(wildcard tests/cuda_on_cpu/*.cpp)
EMULATED := $(BUILD)/emulated

# The toolkit's headers, a C++ compiler, and the processor that fiber.cpp is written for.
CUDA_INCLUDE := $(patsubst %/cublasLt.h,%,$(wildcard $(CUDA_HOME)/include/cublasLt.h))
CAN_EMULATE := $(and $(CUDA_INCLUDE),$(CXX_FOUND),$(filter x86_64,$(shell uname -m)))

EMULATED_FLAGS := -std=c++17 -g -fPIC -fvisibility=hidden -fno-strict-aliasing -march=native -I. \
	$(addprefix -isystem ,$(filter-out /usr/include,$(CUDA_INCLUDE))) -Wall -Wextra -Wshadow \
	-Wno-unknown-pragmas -Werror=switch
EMULATED_NCCL = $$(sed 's/\#.*//' $(BUILD)/kernels/cuda/nccl)
SANITIZE_fast := -O2
SANITIZE_asan := -O2 -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	-fno-omit-frame-pointer
SANITIZE_tsan := -O1 -fsanitize=thread
SHIM_asan := -DNN_EMU_ASAN
SHIM_tsan := -DNN_EMU_TSAN

define EMULATED_BUILD
$(EMULATED)/$1/%.o: %.cu $(EMULATED)/flags $(BUILD)/kernels/cuda/nccl
	@mkdir -p $$(@D)
	@echo "CXX $$< ($1)"
	$(Q)$(CXX) -x c++ -DNN_EMU $(EMULATED_FLAGS) $$(EMULATED_NCCL) $(SANITIZE_$1) -MMD -MP -c -o $$@ $$<

# The shim tells the sanitizers what runs; it is not watched itself.
$(EMULATED)/$1/%.o: %.cpp $(EMULATED)/flags $(BUILD)/kernels/cuda/nccl
	@mkdir -p $$(@D)
	@echo "CXX $$< ($1)"
	$(Q)$(CXX) $(EMULATED_FLAGS) $$(EMULATED_NCCL) -O2 $(SHIM_$1) -MMD -MP -c -o $$@ $$<

EMULATED_SHIM_$1 := $(EMULATED_SHIM:%.cpp=$(EMULATED)/$1/%.o) $(CUDA_C_OBJECTS)
EMULATED_KERNELS_$1 := $(CUDA_SOURCES:%.cu=$(EMULATED)/$1/%.o)

$(EMULATED)/$1/libnn_cuda.so: $$(EMULATED_KERNELS_$1) $$(EMULATED_SHIM_$1)
	@echo "LD $$@"
	$(Q)$(CXX) $(SANITIZE_$1) -shared -o $$@ $$^ -ldl -Wl,--no-undefined

$(EMULATED)/$1/check_kernels $(EMULATED)/$1/check_collectives: $(EMULATED)/$1/%: $(BUILD)/tests/%.o
$(TRAINERS:%=$(EMULATED)/$1/%): $(EMULATED)/$1/%: $(BUILD)/%.o
$(EMULATED_PROGRAMS:%=$(EMULATED)/$1/%): $(OBJECTS)
	@mkdir -p $$(@D)
	@echo "LD $$@"
	$(Q)$(CC) $(ALL_CFLAGS) $(SANITIZE_$1) -o $$@ $$^ $(LDLIBS)

$(EMULATED)/$1/faults $(EMULATED)/$1/sound: $(EMULATED)/$1/%: $(EMULATED)/$1/tests/cuda_on_cpu/%.o \
		$(EMULATED)/$1/kernels/cuda/error.o $$(EMULATED_SHIM_$1)
	@echo "LD $$@"
	$(Q)$(CXX) $(SANITIZE_$1) -o $$@ $$^

# What its trainers start beside themselves.
$(EMULATED)/$1/libnn_mpi.so: $(MPI_LIBRARY)
$(EMULATED)/$1/pages/runs: $(BUILD)/pages/runs
$(EMULATED)/$1/libnn_mpi.so $(EMULATED)/$1/pages/runs:
	@mkdir -p $$(@D)
	$(Q)ln -sfr $$< $$@

emulated-$1: $(addprefix $(EMULATED)/$1/,libnn_cuda.so $(if $(MPI_FOUND),libnn_mpi.so) pages/runs faults sound $(EMULATED_PROGRAMS)) \
	$(EMULATED)/nvtx.so

-include $$(EMULATED_KERNELS_$1:.o=.d) $$(EMULATED_SHIM_$1:.o=.d) \
	$(addprefix $(EMULATED)/$1/tests/cuda_on_cpu/,faults.d sound.d)
endef
$(EMULATED)/nvtx.so: tests/cuda_on_cpu/nvtx.c $(EMULATED)/flags
	@echo "LD $@"
	$(Q)$(CC) -O2 -Wall -Wextra -shared -fPIC -isystem $(CUDA_INCLUDE) -o $@ $<

.PHONY: $(EMULATED_BUILDS:%=emulated-%)
$(foreach v,$(EMULATED_BUILDS),$(eval $(call EMULATED_BUILD,$v)))

# Changes when the compiler or its flags do.
$(EMULATED)/flags: force
	@mkdir -p $(@D)
	@echo '$(CXX) $(EMULATED_FLAGS)' | cmp -s - $@ || echo '$(CXX) $(EMULATED_FLAGS)' > $@

# What `make test` builds; its scripts say what is missing where this is empty.
EMULATED_TESTS := $(if $(CAN_EMULATE),$(if $(SANITIZE),,emulated-asan emulated-tsan))
