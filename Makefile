# nn.c: `make` builds the trainers, predict and data/prepare; `make help` lists the rest.
#
#   SANITIZE=1   AddressSanitizer and UndefinedBehaviorSanitizer, in a build folder of their own
#   PORTABLE=1   for any x86-64 processor: the CPU kernels for four instruction sets, one of which
#                is chosen at run time, instead of for this machine's own; NN_CPU=v1, v3, v4 or
#                v4bf16 in the environment of a program chooses one
#   ONLY="A B"   of the tests only these, as test_cli
#   V=1          show the commands
#
# It compiles one file on each processor, with 1.5 GB of memory for each; make -jN does as it says.

CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
ARCH := $(if $(PORTABLE),-march=x86-64,-march=native)
OPT := $(if $(SANITIZE),-O1 -g -fsanitize=address -fsanitize=undefined -fsanitize=float-cast-overflow -fno-sanitize-recover=all,-O3)
BUILD := build/$(if $(SANITIZE),sanitize,$(if $(PORTABLE),portable,native))

# Fuzzing has its own compiler and build; kernels, which use OpenMP, are not in it.
OPENMP := -fopenmp
ifneq ($(filter fuzz,$(MAKECMDGOALS)),)
CC := clang
OPT := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -Wno-unknown-pragmas -Wno-unknown-warning-option
BUILD := build/fuzz
OPENMP :=
endif

# Contraction to fused multiply-adds is on (gnu11's default); -ffast-math never is.
CFLAGS ?=
WARN := -Wall -Wextra -Wshadow -Werror=switch
CONVERSIONS = $(if $(filter kernels/%,$<),,-Wconversion)
ALL_CFLAGS := -std=gnu11 -D_GNU_SOURCE -I. $(OPT) $(ARCH) $(OPENMP) -pthread $(WARN) $(CFLAGS)
OBJCOPY ?= objcopy
LDLIBS := -lz -lm -pthread $(OPENMP)

Q := $(if $(V),,@)

# Empty where a make above this one shares out its jobs, and where files go while others are made.
JOBS := $(if $(filter clean format,$(MAKECMDGOALS)),,$(shell echo "$$MAKEFLAGS" | grep -q -e -j || \
	awk -v n="$$(nproc)" '/^MemAvailable/ {m = int($$2 / 1500000); print m < 1 ? 1 : m < n ? m : n}' \
	/proc/meminfo 2>/dev/null))
MAKEFLAGS += $(JOBS:%=-j%)

# The CPU backend is compiled once for each instruction set, best first, and each element type.
# kernels/open.c chooses.
CPU_SETS := $(if $(PORTABLE),v4bf16 v4 v3 v1,native)
CPU_VARIANTS := $(foreach s,$(CPU_SETS),$(s)_f32 $(s)_bf16)
ARCH_native := -march=native
ARCH_v4bf16 := -march=x86-64-v4 -mavx512bf16 -mamx-tile -mamx-bf16
ARCH_v4 := -march=x86-64-v4
ARCH_v3 := -march=x86-64-v3
ARCH_v1 := -march=x86-64

# docs/architecture.md: a program takes from its own folder and from those below it.
TRAINERS := $(basename $(wildcard train_*.c))
PROGRAMS := $(TRAINERS) predict data/prepare
BASE := $(wildcard base/*.c)
PAGES := $(filter-out pages/runs.c,$(wildcard pages/*.c))
PACK := $(filter-out data/pack/prepare.c,$(wildcard data/pack/*.c))
SOURCES := $(BASE) $(wildcard kernels/*.c data/*.c data/decode/*.c train/*.c)
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o) $(CPU_VARIANTS:%=$(BUILD)/kernels/cpu_%.o)
PAGE_OBJECTS := $(PAGES:%.c=$(BUILD)/%.o)
PACK_OBJECTS := $(PACK:%.c=$(BUILD)/%.o)
TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(filter-out tests/fuzz/main.c,$(wildcard tests/fuzz/*.c)))
DEVICE_TOOLS := $(patsubst %,$(BUILD)/%,check_kernels check_collectives time_kernels time_collectives)
TOOLS := $(BUILD)/pages/runs $(BUILD)/tests/slow_train_mlp $(BUILD)/tests/compare_models $(DEVICE_TOOLS) $(FUZZERS:%=$(BUILD)/tests/fuzz/%)
# oneDNN is compared where its header is installed.
BENCHES := $(patsubst bench/%.c,$(BUILD)/bench/%,$(filter-out $(if $(wildcard /usr/include/dnnl.h \
	/usr/include/oneapi/dnnl/dnnl.h),,bench/dnnl.c),$(wildcard bench/*.c)))

.DELETE_ON_ERROR:
.PRECIOUS: $(BUILD)/%.o
.PHONY: all help test test-all test-sets bench fuzz clean format force $(if $(SANITIZE),$(PROGRAMS))

all: $(PROGRAMS)

help:
	@echo 'make               $(PROGRAMS); the CUDA backend where nvcc is'
	@echo 'make train_cnn     one program'
	@echo 'make emulated-fast the CUDA backend on this CPU: docs/cuda.md'
	@echo 'make test          the tests, some minutes; SANITIZE=1 runs them under sanitizers'
	@echo 'make test-all      everything, about an hour'
	@echo 'make test-sets     make test with PORTABLE=1, once for each set of instructions that is here'
	@echo 'make bench         kernels against other libraries, and --bench (docs/performance.md, timing.md)'
	@echo 'make fuzz          fuzzers of everything that reads files, TIME=60 seconds each (setup.sh --dev)'
	@echo 'make format        lay out all sources with clang-format'
	@echo 'make clean         remove what was built'

include $(wildcard base/mpi/mpi.mk kernels/cuda/cuda.mk tests/cuda_on_cpu/emulated.mk)

# The top folder has links to the programs that were built last; not with SANITIZE=1.
$(if $(SANITIZE),,$(PROGRAMS)): %: $(BUILD)/% force
	@[ "$$(readlink -f $@)" = "$$(readlink -f $<)" ] || ln -sfr $< $@

$(DEVICE_TOOLS): $(BUILD)/%: $(BUILD)/tests/%.o
$(TRAINERS:%=$(BUILD)/%) $(BUILD)/predict: $(BUILD)/%: $(BUILD)/%.o
$(BUILD)/data/prepare: $(BUILD)/data/pack/prepare.o $(PACK_OBJECTS)
$(PROGRAMS:%=$(BUILD)/%) $(DEVICE_TOOLS): $(OBJECTS)
	@echo "LD $@"
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(LDLIBS)

# Without kernels: it is built where a run is looked at. Trainers start it to draw their pages.
RUNS_OBJECTS := $(patsubst %.c,$(BUILD)/%.o,pages/runs.c $(PAGES) $(BASE))
$(TRAINERS:%=$(BUILD)/%): | $(BUILD)/pages/runs
$(BUILD)/pages/runs: $(RUNS_OBJECTS)
	@echo "LD $@"
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(LDLIBS)

# Of tests/test_bench.sh.
$(BUILD)/tests/slow_train_mlp: $(BUILD)/tests/slow_step.o $(BUILD)/train_mlp.o $(OBJECTS)
	@echo "LD $@"
	$(Q)$(CC) $(ALL_CFLAGS) -Wl,--wrap=feed_next -o $@ $^ $(LDLIBS)

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(OBJECTS) $(PAGE_OBJECTS) $(PACK_OBJECTS)
	@echo "LD $@"
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

# On every file of its corpus; `make fuzz` has libFuzzer's main().
$(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/%.o $(BUILD)/tests/fuzz/main.o $(OBJECTS) $(PAGE_OBJECTS) $(PACK_OBJECTS)
	@echo "LD $@"
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/libfuzzed.a: $(filter-out $(BUILD)/kernels/%,$(OBJECTS)) $(PAGE_OBJECTS) $(PACK_OBJECTS)
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/fuzz_%: $(BUILD)/tests/fuzz/%.o $(BUILD)/libfuzzed.a
	@echo "LD $@"
	$(Q)$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

# Each for TIME seconds. What they find is in build/fuzz/found; a file of it belongs into
# tests/fuzz/corpus/NAME, with the fix.
TIME ?= 60
fuzz: $(FUZZERS:%=$(BUILD)/fuzz_%)
	$(Q)mkdir -p $(BUILD)/found $(FUZZERS:%=$(BUILD)/corpus/%)
	$(Q)for f in $(FUZZERS); do echo "== $$f"; \
	  $(BUILD)/fuzz_$$f -max_total_time=$(TIME) -timeout=20 -rss_limit_mb=3000 -verbosity=0 -print_final_stats=1 \
	  -artifact_prefix=$(BUILD)/found/$$f- $(BUILD)/corpus/$$f tests/fuzz/corpus/$$f || exit 1; done

$(BUILD)/bench/%: $(BUILD)/bench/%.o $(OBJECTS) $(PACK_OBJECTS)
	@echo "LD $@"
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(LDLIBS)
# Of Debian's OpenBLAS the one with OpenMP, whose threads do not compete with ours.
$(BUILD)/bench/gemm: LDLIBS += $(foreach d,$(wildcard /usr/lib/*/openblas-openmp),-L$d \
	-Xlinker -rpath=$d) -lopenblas
$(BUILD)/bench/dnnl: LDLIBS += -ldnnl

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "CC $<"
	$(Q)$(CC) $(ALL_CFLAGS) $(CONVERSIONS) -MMD -MP -c -o $@ $<

# A variant is one object whose only global symbol is cpu_open_<variant>. Files named *_f32.c and
# *_bf16.c belong to the variants of that element type alone.
CPU_FILES := $(basename $(notdir $(wildcard kernels/cpu/*.c)))
cpu_files = $(filter-out $(if $(filter %_bf16,$1),%_f32,%_bf16),$(CPU_FILES))

define CPU_VARIANT
$(BUILD)/kernels/cpu_$1/%.o: kernels/cpu/%.c $(BUILD)/flags
	@mkdir -p $$(@D)
	@echo "CC $$< ($1)"
	$(Q)$(CC) $(ALL_CFLAGS) $(ARCH_$(word 1,$(subst _, ,$1))) -DCPU_OPEN=cpu_open_$1 \
		-DCPU_BF16=$(if $(filter %_bf16,$1),1,0) -MMD -MP -c -o $$@ $$<

$(BUILD)/kernels/cpu_$1.o: $(patsubst %,$(BUILD)/kernels/cpu_$1/%.o,$(call cpu_files,$1))
	$(Q)$(LD) -r -o $$@ $$^
	$(Q)$(OBJCOPY) --keep-global-symbol=cpu_open_$1 $$@

-include $(patsubst %,$(BUILD)/kernels/cpu_$1/%.d,$(CPU_FILES))
endef
$(foreach v,$(CPU_VARIANTS),$(eval $(call CPU_VARIANT,$v)))

$(BUILD)/kernels/open.o: ALL_CFLAGS += '-DCPU_SETS(F)=${CPU_SETS:%=F(%)}'

# Changes when the compiler or its flags do, so that everything is then built again.
FLAGS := $(CC) $(ALL_CFLAGS) $(CPU_VARIANTS)
$(BUILD)/flags: force
	@mkdir -p $(@D)
	@echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' > $@
force:

test: $(if $(SANITIZE),,all) $(TESTS) $(TOOLS) $(PROGRAMS:%=$(BUILD)/%) $(EMULATED_TESTS)
	$(Q)BUILD=$(BUILD) SANITIZE=$(SANITIZE) tests/run.sh test $(ONLY)

test-all: $(if $(SANITIZE),,all) $(TESTS) $(TOOLS) $(PROGRAMS:%=$(BUILD)/%) $(EMULATED_TESTS)
	$(Q)BUILD=$(BUILD) SANITIZE=$(SANITIZE) tests/run.sh test-all $(ONLY)

# Without the CUDA backend, which the processor's instructions do not change.
test-sets:
	$(Q)$(MAKE) PORTABLE=1 NVCC= build/portable/check_kernels
	$(Q)MAKE='$(MAKE)' tests/sets.sh $(ONLY)

bench: $(BENCHES) $(filter train_%,$(PROGRAMS))
	$(Q)for b in $(filter-out %/roofline,$(BENCHES)); do $$b; done
	$(Q)for p in $(filter train_%,$(PROGRAMS)); do $(BUILD)/$$p --bench; done

format:
	clang-format -i $$(git ls-files '*.c' '*.h' '*.cu' '*.cuh' '*.cpp')

# build/venv, Python packages for the interchange tests, stays.
clean:
	rm -rf build/native build/portable build/sanitize build/fuzz $(PROGRAMS)

-include $(OBJECTS:.o=.d) $(PAGE_OBJECTS:.o=.d) $(PACK_OBJECTS:.o=.d) $(PROGRAMS:%=$(BUILD)/%.d) $(BUILD)/data/pack/prepare.d $(TESTS:=.d) $(DEVICE_TOOLS:$(BUILD)/%=$(BUILD)/tests/%.d) $(TOOLS:=.d) $(RUNS_OBJECTS:.o=.d) $(BENCHES:=.d)
