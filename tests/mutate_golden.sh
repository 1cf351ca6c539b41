#!/usr/bin/env bash
# Plants faults in the CPU kernels and the recipes, one at a time, and prints which comparisons of
# tests/test_golden.sh turn red: tests/mutate_golden.sh [PART OF A FILE'S NAME], after `make`.
# Status 1 if a fault goes unnoticed.
set -u
cd "$(dirname "$0")/.." || exit 1
only=${1-} caught=0 missed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/build"
cp -a Makefile train_*.c predict.c base kernels data train pages tests "$work" || exit 1
cp -a build/native "$work/build" || exit 1

# Each: the file, sed's command for the first line that has the text, the text, and # the fault.
faults='kernels/cpu/loss.c s/-=/+=/ gradient[label - c] -= # sign of the loss gradient at the label
kernels/cpu/loss.c s/d.smoothing/0/g smooth = d.smoothing # label smoothing missing in the gradient
kernels/cpu/loss.c s/(double)d.smoothing/0/ - (1 - (double)d.smoothing) # label smoothing missing at the label in the loss
kernels/cpu/activation.c s/=.(float)/=-(float)/ dbias[c] = (float)total[c] # sign of a bias gradient
kernels/cpu/norm.c s/n->sums/-n->sums/ b->mean_dz[c] = # sign of a mean in the backward of a norm
kernels/cpu/norm.c s/=.n->sums/=0*n->sums/ b->mean_dz_xhat[c] = n->sums # variance taken for a constant in the backward of a norm
kernels/cpu/norm.c s/count.-.1/count/ count > 1 ? count - 1 # biased running variance
kernels/cpu/norm.c s/(1.-.n->momentum)/n->momentum/;s/+.n->momentum/+(1-n->momentum)/ n->running_var[c] = (1 # momentum of the running variance swapped
kernels/cpu/norm.c s/variance;/sqrtf(variance);/ n->running_var[c] = (1 # running deviation instead of variance
kernels/cpu/norm.c s/+.n->momentum/-n->momentum/ n->running_mean[c] = (1 # sign of the running mean
kernels/cpu/pool.c s/>/</ (v > largest) # global max-pooling takes the smallest
kernels/cpu/pool.c s/==.p/==(p^1)/ argmax + from, count) == p # argmax of the global max-pooling swapped
kernels/cpu/conv2d_pool_backward_f32.c s/right/(-below)/;s/below;/right;/;s/(-below)/below/ (argmax & 1) * right # rows and columns swapped in an argmax
kernels/cpu/conv2d_pool_grey_f32.c s/argmax.&.2/argmax\&1/ argmax + (argmax & 2) # wrong place from an argmax, grey pictures
kernels/cpu/optimizer.c s/s.c.momentum.\*.v1/0.5f*v1/ s.decay * w, v = # wrong momentum of SGD
kernels/cpu/optimizer.c s/+.s.decay.\*.w// s.decay * w, v = # no weight decay of SGD
kernels/cpu/optimizer.c s/s.decay/-s.decay/ s.decay * w, v = # sign of the weight decay of SGD
kernels/cpu/optimizer.c s/s.lr/-s.lr/ w - s.lr * (s.on_g # sign of the step of SGD
kernels/cpu/optimizer.c s/(1.-.s.c.beta1)/s.c.beta1/ m = s.c.beta1 # weight of the new gradient in AdamW
kernels/cpu/optimizer.c s/cpu_step.step.+.1.0/1.0/ cpu_step.step + 1.0 # no count of steps in the correction of AdamW
kernels/cpu/optimizer.c s/-.s.shrink.\*.w// - s.shrink * w # no weight decay of AdamW
kernels/cpu/optimizer.c s/=.momentum.\*.v\[i\]/=0.5f*v[i]/ v[i] = momentum * v[i] # wrong momentum of Muon
kernels/cpu/optimizer.c s/g\[i\].+.momentum.\*.v/v/ direction[i] = g[i] # no Nesterov in Muon
kernels/cpu/optimizer.c s/c.b,.a,.c.c/c.c,a,c.b/ combine(aa, c.b # coefficients of Muon swapped
kernels/cpu/optimizer.c s/renormalize.?/0?/ scale = renormalize # no renormalization by Muon
train/options.c s/true/false/ .nesterov = true # no Nesterov in SGD
train/recipe.h s/4.775/4.75/ .b = -4.775f # coefficient of Muon off by half a percent
train_airbench.c s/0.4f/0.5f/ NORM_MOMENTUM = 0.4f # momentum of the running statistics
train_cnn.c s/= 0.1f/= 0.2f/ NORM_MOMENTUM = 0.1f # the same of the residual network
train_airbench.c s/0.6f/0.5f/ .momentum = 0.6f # momentum of Muon'

build() { make -s -C "$work" NVCC= build/native/{train_mlp,train_cnn,train_airbench,data/prepare,tests/compare_models} >"$work/log" 2>&1; }

# The names that are red, as "airbench-{sgd,muon}: weights"; or nothing.
red() {
    "$work/tests/test_golden.sh" | sed -nE 's/^FAILED ([a-z-]+) ([a-z]+) .*/\1 \2/p' |
        awk '{red[$1] = red[$1] (red[$1] ? ", " : "") $2; if (!seen[$1]++) names[++n] = $1}
             END {for (i = 1; i <= n; i++) printf "%s%s (%s)", (i > 1 ? "; " : ""), names[i], red[names[i]]}'
}

if ! build || ! "$work/tests/test_golden.sh" >"$work/log" 2>&1; then
    echo "mutate_golden.sh: without a fault: $(tail -n 1 "$work/log")" >&2
    exit 2
fi
echo '| fault | where | red |'
echo '| --- | --- | --- |'
while read -r file change rest; do
    text=${rest% # *} fault=${rest#* # }
    [[ $file == *"$only"* ]] || continue
    # Compiled for AVX-512 alone.
    [[ $file != *_grey_* ]] || grep -qw avx512vl /proc/cpuinfo || continue
    line=$(grep -nF -- "$text" "$file" | head -n 1 | cut -d : -f 1)
    [ -n "$line" ] || { echo "mutate_golden.sh: no '$text' in $file" >&2 && exit 2; }
    sed "$line{$change}" "$file" >"$work/$file"
    if cmp -s "$file" "$work/$file"; then
        echo "mutate_golden.sh: '$change' does nothing in $file:$line" >&2
        exit 2
    fi
    if build; then result=$(red); else result="does not build: $(grep -m 1 error "$work/log")"; fi
    if [ -n "$result" ]; then caught=$((caught + 1)); else missed=$((missed + 1)); fi
    echo "| $fault | $file:$line | ${result:-NOTHING} |"
    cp -a "$file" "$work/$file" && touch "$work/$file"
done <<<"$faults"
echo
echo "$caught noticed, $missed not"
[ "$missed" -eq 0 ]
