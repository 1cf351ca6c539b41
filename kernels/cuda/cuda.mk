# The CUDA backend, libnn_cuda.so beside the programs, where nvcc and an NVIDIA driver are present.
# Included by Makefile.
#
#   CUDA=1       builds it without a driver too, for another machine; CUDA_ARCHS does the same
#   CUDA_ARCHS   unset: the GPUs of this machine, without one sm_80; "all": for a release; or a list
#                such as "80 90". The choice is kept until it is made again, or make clean.
#   NVCC=        builds without CUDA
#
# With NCCL where its header and library are found (CPATH and LIBRARY_PATH name other places); it is
# opened when several processes run.

ifeq ($(origin NVCC),undefined)
NVCC := $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
endif
CUDA_ARCHS ?=
# nvcc needs it too.
CXX_FOUND := $(shell command -v $(CXX))
# Where Linux, WSL and containers show one.
CUDA_DRIVER := $(wildcard /proc/driver/nvidia/version /dev/nvidiactl /usr/lib/wsl/lib/libcuda.so.1 \
	/usr/lib/*/libcuda.so.1 /usr/lib64/libcuda.so.1)
CUDA_MISSING := $(strip $(if $(NVCC),$(if $(CXX_FOUND),$(if $(CUDA)$(CUDA_ARCHS)$(CUDA_DRIVER),, \
	no NVIDIA driver; make CUDA=1 builds it for another machine),no $(CXX)),no nvcc))
CUDA_HOME := $(if $(NVCC),$(patsubst %/bin/nvcc,%,$(realpath $(NVCC))))
CUDA_SOURCES := $(wildcard kernels/cuda/*.cu)

# Sanitizers are for the emulated build (tests/cuda_on_cpu).
CUDA_LIBRARY := $(if $(SANITIZE)$(CUDA_MISSING),,$(BUILD)/libnn_cuda.so)

# Options that depend on what is here, and after # the same for a person.
CUDA_FOUND := $(BUILD)/kernels/cuda/archs $(BUILD)/kernels/cuda/nccl
CUDA_OBJECTS := $(CUDA_SOURCES:%.cu=$(BUILD)/%.o)
# Its own copy of what it needs of the programs' files.
CUDA_C_SOURCES := base/error.c base/utf8.c
CUDA_C_OBJECTS := $(CUDA_C_SOURCES:%.c=$(BUILD)/kernels/cuda/%.o)

NVCC_FLAGS := -std=c++17 -O3 -lineinfo -I. -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wshadow \
	-Xptxas -warn-spills
# As an error where the architectures are the ones that we try.
NVCC_FLAGS += $(if $(filter all,$(CUDA_ARCHS)),-Werror all-warnings)

# kernels/open.c calls dlopen().
LDLIBS += -ldl

$(TRAINERS): $(CUDA_LIBRARY) $(BUILD)/kernels/cuda/wanted

$(BUILD)/libnn_cuda.so: $(CUDA_OBJECTS) $(CUDA_C_OBJECTS)
	@echo "LD $@ ($$(sed 's/.*# //' $(BUILD)/kernels/cuda/archs))"
	$(Q)$(NVCC) -shared -cudart static -o $@ $^ -ldl -Xlinker --no-undefined \
		-Xlinker -rpath=$(CUDA_HOME)/lib64 # where linear.cu finds cuBLASLt, if it is not installed

$(CUDA_OBJECTS): $(BUILD)/%.o: %.cu $(CUDA_FOUND)
	@mkdir -p $(@D)
	@echo "NVCC $<"
	$(Q)$(NVCC) $(NVCC_FLAGS) $$(sed 's/#.*//' $(CUDA_FOUND)) -MMD -MP -MF $(@:.o=.d) \
		-MT $@ -c -o $@ $<

$(CUDA_C_OBJECTS): $(BUILD)/kernels/cuda/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "CC $< (shared)"
	$(Q)$(CC) $(ALL_CFLAGS) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<

$(BUILD)/kernels/cuda/archs: $(BUILD)/kernels/cuda/wanted scripts/cuda_archs.sh
	$(Q)scripts/cuda_archs.sh $(NVCC) '$(CUDA_ARCHS)' >$@
	@echo "CUDA $$(sed 's/.*# //' $@), by $(NVCC)"

NCCL_PROBE := "\#include <nccl.h>\nint main(void) { int v; return ncclGetVersion(&v); }\n"
$(BUILD)/kernels/cuda/nccl: $(BUILD)/kernels/cuda/wanted
	$(Q)if printf $(NCCL_PROBE) | $(CC) -x c -o $@.probe -I$(CUDA_HOME)/include - \
		-L$(CUDA_HOME)/lib64 -lnccl 2>/dev/null; then echo '-DNN_NCCL # with NCCL'; \
		else echo '# without NCCL: one GPU at a time'; fi >$@; rm -f $@.probe
	@echo "CUDA $$(sed 's/.*# //' $@)"

# Changes when the compiler or the wanted architectures do. A library that is no longer built is
# removed: it would not fit programs that are.
CUDA_WANTED := $(if $(CUDA_MISSING),none: $(CUDA_MISSING),$(NVCC) $(NVCC_FLAGS) $(CUDA_ARCHS))
$(BUILD)/kernels/cuda/wanted: force
	@mkdir -p $(@D)
	@echo '$(CUDA_WANTED)' | cmp -s - $@ || { echo '$(CUDA_WANTED)' > $@; \
		$(if $(CUDA_MISSING),echo 'CUDA $(CUDA_WANTED)'; rm -f $(BUILD)/libnn_cuda.so;) }

-include $(CUDA_OBJECTS:.o=.d) $(CUDA_C_OBJECTS:.o=.d)
