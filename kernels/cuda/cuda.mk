# The CUDA backend, libnn_cuda.so beside the programs, where nvcc is present. Included by Makefile.
#
#   CUDA_ARCHS   unset: the GPUs of this machine, without one sm_80; "all": for a release; or a list
#                such as "80 90". The choice is kept until it is made again, or make clean.
#   NVCC=        builds without CUDA

ifeq ($(origin NVCC),undefined)
NVCC := $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
endif
CUDA_ARCHS ?=
# nvcc needs it too.
CXX_FOUND := $(shell command -v $(CXX))
CUDA_MISSING := $(if $(NVCC),$(if $(CXX_FOUND),,no $(CXX)),no nvcc)
CUDA_HOME := $(if $(NVCC),$(patsubst %/bin/nvcc,%,$(realpath $(NVCC))))
CUDA_SOURCES := $(wildcard kernels/cuda/*.cu)

# Sanitizers are for the emulated build (tests/cuda_on_cpu).
CUDA_LIBRARY := $(if $(SANITIZE)$(CUDA_MISSING),,$(BUILD)/libnn_cuda.so)

CUDA_OBJECTS := $(CUDA_SOURCES:%.cu=$(BUILD)/%.o)
# Its own copy of what it needs of the programs' files.
CUDA_C_SOURCES := runtime/error.c runtime/utf8.c
CUDA_C_OBJECTS := $(CUDA_C_SOURCES:%.c=$(BUILD)/kernels/cuda/%.o)

NVCC_FLAGS := -std=c++17 -O3 -lineinfo -I. -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wshadow \
	-Xptxas -warn-spills
# As an error where the architectures are the ones that we try.
NVCC_FLAGS += $(if $(filter all,$(CUDA_ARCHS)),-Werror all-warnings)

# kernels/open.c calls dlopen().
LDLIBS += -ldl

train_mlp train_cnn: $(CUDA_LIBRARY) $(BUILD)/kernels/cuda/wanted

$(BUILD)/libnn_cuda.so: $(CUDA_OBJECTS) $(CUDA_C_OBJECTS)
	@echo "LD $@ ($$(sed 's/.*# //' $(BUILD)/kernels/cuda/archs))"
	$(Q)$(NVCC) -shared -cudart static -o $@ $^ -ldl -Xlinker --no-undefined \
		-Xlinker -rpath=$(CUDA_HOME)/lib64 # where linear.cu finds cuBLASLt, if it is not installed

$(CUDA_OBJECTS): $(BUILD)/%.o: %.cu $(BUILD)/kernels/cuda/archs
	@mkdir -p $(@D)
	@echo "NVCC $<"
	$(Q)$(NVCC) $(NVCC_FLAGS) $$(sed 's/#.*//' $(BUILD)/kernels/cuda/archs) -MMD -MP -MF $(@:.o=.d) \
		-MT $@ -c -o $@ $<

$(CUDA_C_OBJECTS): $(BUILD)/kernels/cuda/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "CC $< (shared)"
	$(Q)$(CC) $(ALL_CFLAGS) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<

# The options of nvcc for the architectures, and after # their names.
$(BUILD)/kernels/cuda/archs: $(BUILD)/kernels/cuda/wanted scripts/cuda_archs.sh
	$(Q)scripts/cuda_archs.sh $(NVCC) '$(CUDA_ARCHS)' >$@
	@echo "CUDA $$(sed 's/.*# //' $@), by $(NVCC)"

# Changes when the compiler or the wanted architectures do. A library that is no longer built is
# removed: it would not fit programs that are.
CUDA_WANTED := $(if $(CUDA_MISSING),none: $(CUDA_MISSING),$(NVCC) $(NVCC_FLAGS) $(CUDA_ARCHS))
$(BUILD)/kernels/cuda/wanted: force
	@mkdir -p $(@D)
	@echo '$(CUDA_WANTED)' | cmp -s - $@ || { echo '$(CUDA_WANTED)' > $@; \
		$(if $(CUDA_MISSING),echo 'CUDA $(CUDA_WANTED)'; rm -f $(BUILD)/libnn_cuda.so;) }

-include $(CUDA_OBJECTS:.o=.d) $(CUDA_C_OBJECTS:.o=.d)
