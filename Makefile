# nn.c: `make` builds the trainers and data/prepare; `make help` lists the rest.
#
#   SANITIZE=1   AddressSanitizer and UndefinedBehaviorSanitizer, in a build folder of their own
#   PORTABLE=1   for any x86-64 processor with AVX2 instead of this machine's own
#   V=1          show the commands

CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
ARCH := $(if $(PORTABLE),-march=x86-64-v3,-march=native)
OPT := $(if $(SANITIZE),-O1 -g -fsanitize=address -fsanitize=undefined -fno-sanitize-recover=undefined,-O3)
BUILD := build/$(if $(SANITIZE),sanitize,$(if $(PORTABLE),portable,native))

# Contraction to fused multiply-adds is on (gnu11's default); -ffast-math never is.
CFLAGS ?=
WARN := -Wall -Wextra -Wshadow
CONVERSIONS = $(if $(filter kernels/%,$<),,-Wconversion)
ALL_CFLAGS := -std=gnu11 -D_GNU_SOURCE -I. $(OPT) $(ARCH) -fopenmp -pthread $(WARN) $(CFLAGS)
LDLIBS := -lz -lm -pthread -fopenmp

Q := $(if $(V),,@)

# Everything but the programs' own files.
PROGRAMS := train_mlp train_cnn data/prepare
SOURCES := $(filter-out data/prepare.c,$(wildcard data/*.c runtime/*.c kernels/*.c kernels/*/*.c))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
DEVICE_TOOLS := $(BUILD)/check_kernels $(BUILD)/time_kernels
TOOLS := $(BUILD)/tests/compare_models $(DEVICE_TOOLS)
BENCHES := $(patsubst bench/%.c,$(BUILD)/bench/%,$(wildcard bench/*.c))

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all help test test-all bench clean format force $(if $(SANITIZE),$(PROGRAMS))

all: $(PROGRAMS)

help:
	@echo 'make               train_mlp, train_cnn and data/prepare; the CUDA backend where nvcc is'
	@echo 'make train_cnn     one program'
	@echo 'make emulated-fast the CUDA backend on this CPU: docs/cuda.md'
	@echo 'make test          the tests, under 10 minutes; SANITIZE=1 runs them under sanitizers'
	@echo 'make test-all      everything, under an hour'
	@echo 'make bench         benchmarks against other libraries (setup.sh --dev)'
	@echo 'make format        lay out all sources with clang-format'
	@echo 'make clean         remove what was built'

include $(wildcard kernels/cuda/cuda.mk tests/cuda_on_cpu/emulated.mk)

# The top folder has links to the programs that were built last; not with SANITIZE=1.
$(if $(SANITIZE),,$(PROGRAMS)): %: $(BUILD)/% force
	@[ "$$(readlink -f $@)" = "$$(readlink -f $<)" ] || ln -sfr $< $@

$(DEVICE_TOOLS): $(BUILD)/%: $(BUILD)/tests/%.o
$(PROGRAMS:%=$(BUILD)/%): $(BUILD)/%: $(BUILD)/%.o
$(PROGRAMS:%=$(BUILD)/%) $(DEVICE_TOOLS): $(OBJECTS)
	@echo "LD $@"
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(OBJECTS)
	@echo "LD $@"
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

$(BUILD)/bench/%: $(BUILD)/bench/%.o $(OBJECTS)
	@echo "LD $@"
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(LDLIBS) -lopenblas

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "CC $<"
	$(Q)$(CC) $(ALL_CFLAGS) $(CONVERSIONS) -MMD -MP -c -o $@ $<

# Changes when the compiler or its flags do, so that everything is then built again.
FLAGS := $(CC) $(ALL_CFLAGS)
$(BUILD)/flags: force
	@mkdir -p $(@D)
	@echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' > $@
force:

test: $(if $(SANITIZE),,all) $(TESTS) $(TOOLS) $(PROGRAMS:%=$(BUILD)/%) $(EMULATED_TESTS)
	$(Q)BUILD=$(BUILD) SANITIZE=$(SANITIZE) tests/run.sh test

test-all: $(if $(SANITIZE),,all) $(TESTS) $(TOOLS) $(PROGRAMS:%=$(BUILD)/%) $(EMULATED_TESTS)
	$(Q)BUILD=$(BUILD) SANITIZE=$(SANITIZE) tests/run.sh test-all

bench: $(BENCHES)
	$(Q)for b in $(BENCHES); do $$b; done

format:
	clang-format -i $$(git ls-files '*.c' '*.h' '*.cu' '*.cuh' '*.cpp')

# build/venv, Python packages for the interchange tests, stays.
clean:
	rm -rf build/native build/portable build/sanitize $(PROGRAMS)

-include $(OBJECTS:.o=.d) $(PROGRAMS:%=$(BUILD)/%.d) $(TESTS:=.d) $(BUILD)/tests/check_kernels.d $(TOOLS:=.d) $(BENCHES:=.d)
