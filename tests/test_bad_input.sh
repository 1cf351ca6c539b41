#!/usr/bin/env bash
# The rows of docs/reliability.md that are about data, through the programs: the status, one line
# that says what is wrong, and nothing left behind. Tests are named after their rows.
. "$(dirname "$0")/lib.sh"
export LC_ALL=C
"$prepare" idx tests/golden/grey --out "$work/good" >/dev/null || exit 1
root=$PWD
mkdir "$work/cases" && mv "$work/good" "$work/cases" && cd "$work/cases" || exit 1
shard=x-train-00000-of-00001.nns
train() { # DIR: a short run
    rm -rf run
    timeout 60 "$train_mlp" --data "$1" --out run --steps 4 --batch-size 8 --hidden 4 --quiet --threads 1
}
damaged() { # a copy of the good data set, in `bad`
    rm -rf bad
    cp -r good bad
}
poke() { # FILE OFFSET BYTES
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
u64() { od -An -tu8 -j"$2" -N8 "$1" | tr -d ' '; }
crc() { gzip -c | tail -c 8 | head -c 4; } # of stdin, little-endian
seal() { # FILE: makes the sums of the sections and of the header right
    local at
    for at in 112 128 144 160; do
        tail -c +$(($(u64 "$1" $at) + 1)) "$1" | head -c "$(u64 "$1" $((at + 8)))"
    done | crc | dd of="$1" bs=1 seek=4088 conv=notrunc 2>/dev/null
    head -c 4092 "$1" | crc | dd of="$1" bs=1 seek=4092 conv=notrunc 2>/dev/null
}
# The good data set with a new seal is still good: what follows is refused for its own reason.
damaged
seal bad/$shard
ok "good data" train bad

damaged
truncate -s -1 bad/$shard
fails "shard truncated before the run" 3 "cut short" train bad
truncate -s 100 bad/$shard
fails "shard truncated inside its header" 3 "100 bytes" train bad

damaged
poke bad/$shard $(($(u64 bad/$shard 96) + 5)) '\xaa\x55'
fails "bit rot in an image" 3 "block 0 (bytes" train bad
fails "bit rot in an image, --verify" 3 "block 0 (bytes" "$train_mlp" --data bad --out run --verify
fails "bit rot in an image, prepare check" 3 "block 0 (bytes" "$prepare" check bad
damaged
poke bad/$shard 4096 '\x7'
fails "bit rot in a label" 3 "labels, names, counts and sums have crc" train bad
damaged
poke bad/$shard 33 '\x7'
fails "bit rot in the header" 3 "header_crc" train bad

for case in '\x1f\x8b\x08:gzip' 'PK\x03\x04:a zip archive' '\xff\xd8\xff\xe0:a JPEG image' '\0\0\x08\x03:idx images' '<!DOCTYPE:HTML or XML'; do
    damaged
    poke bad/$shard 0 "${case%%:*}"
    fails "wrong magic: ${case##*:}" 3 "the first bytes look like ${case##*:}" train bad
done
damaged
poke bad/$shard 12 '\x2'
seal bad/$shard
fails "wrong version" 3 "version is 2.0" train bad
damaged
poke bad/$shard 8 '\x01\x02\x03\x04'
fails "wrong byte order" 3 "byte_order is 0x04030201, expected 0x01020304" train bad

damaged
poke bad/$shard "$(u64 bad/$shard 112)" '\xff\0'
seal bad/$shard
fails "label >= classes" 3 "label 0 is 255, expected less than 10" train bad
[ -s run/log.jsonl ] && miss "label >= classes: before the first step" || pass "label >= classes: before the first step"

# A data set that is larger than what a run has read when its file is cut: 3,000 images of 256x256.
be32() { printf "\\x$(printf %02x $(($1 >> 24 & 255)))\\x$(printf %02x $(($1 >> 16 & 255)))\\x$(printf %02x $(($1 >> 8 & 255)))\\x$(printf %02x $(($1 & 255)))"; }
mkdir idx
for split in train:3000 t10k:10; do
    n=${split#*:} name=idx/${split%:*}
    { be32 $((0x803)) && be32 "$n" && be32 256 && be32 256; } >"$name-images-idx3-ubyte"
    truncate -s $((16 + n * 65536)) "$name-images-idx3-ubyte"
    { be32 $((0x801)) && be32 "$n" && yes '\0\1\2\3\4\5\6\7\10\11' | head -n $((n / 10)) | while read -r digits; do printf "\\0${digits#\\0}"; done; } >"$name-labels-idx1-ubyte"
done
if "$prepare" idx idx --out large >"$work/out" 2>"$work/err"; then
    "$train_mlp" --data large --out cut --steps 100000 --batch-size 2 --hidden 64 --quiet --threads 1 >"$work/out" 2>"$work/err" &
    pid=$!
    for _ in {1..500}; do [ -e cut/log.jsonl ] && break || sleep 0.02; done
    truncate -s 3000000 large/$shard
    wait $pid
    status=$?
    if [ $status -eq 3 ] && grep -q "cut short" "$work/err" && [ "$(grep -c '^error: ' "$work/err")" -eq 1 ]; then
        pass "shard truncated during the run"
    else
        miss "shard truncated during the run: status $status: $(cat "$work/err")"
    fi
else
    miss "shard truncated during the run: $(cat "$work/err")"
fi
rm -rf large idx cut

# .gz: what is promised is the most that is unpacked.
gz() { # NAME TEXT COMMAND: the command damages `train`, the compressed train images
    rm -rf packed
    cp -r "$root/tests/golden/grey" packed
    local train=packed/train-images-idx3-ubyte
    gunzip $train.gz
    eval "$3"
    fails "$1" 3 "$2" timeout 60 "$prepare" idx packed --out out
    [ ! -e out ] && [ ! -e .out.tmp ] || miss "$1: something is left"
}
gz ".gz bomb" "holds more than its header promises" 'head -c 1000000000 /dev/zero >>$train; gzip -1 $train'
gz ".gz with trailing junk" "bytes follow the end of the gzip data" 'gzip $train; echo junk >>$train.gz'
gz ".gz of several members" "bytes follow the end of the gzip data" 'gzip $train; cp $train.gz two; cat two >>$train.gz'
gz ".gz cut short" "ends early" 'gzip $train; truncate -s -9 $train.gz'

# Names from outside: escaped where they are printed, and never followed.
mkdir -p photos/{train,test}/{cat,dog}
for name in train/cat/1 train/dog/2 test/cat/3 test/dog/4; do
    tail -c +2 "$root/tests/fuzz/corpus/image/seed-png-2-8" >photos/$name.png
done
mkfifo photos/train/cat/fifo.png
ln -s loop.png photos/train/cat/loop.png
ln -s ../../.. photos/train/cat/up.png
ln -s .. photos/train/up
cp photos/train/cat/1.png "photos/train/cat/"$'\e[2J\e]0;owned\a.png'
cp photos/train/cat/1.png "photos/train/cat/"$'\xc2\x9b2J.png' # CSI as a C1 control character
cp photos/train/cat/1.png "photos/train/cat/"$'latin\xe9.png'
mkdir "photos/train/"$'class\xff'
ok "FIFO, symlink loop, .., non-UTF-8 names" timeout 60 "$prepare" folder photos --out out
cut -f 1 out/bad_files.tsv >listed
cat >expected <<'LIST'
train/cat/\x1b[2J\x1b]0;owned\x07.png
train/cat/\xc2\x9b2J.png
train/cat/fifo.png
train/cat/latin\xe9.png
train/cat/loop.png
train/cat/up.png
train/class\xff
train/up
LIST
ok "FIFO, symlink loop, .., non-UTF-8 names: listed and escaped" same_text "$(sort expected)" "$(sort listed)"
mkdir "odd"$'\e[2J\xc2\x9b\xff'
fails "non-UTF-8 names: escaped in messages" 3 'odd\x1b[2J\xc2\x9b\xff' "$prepare" folder "odd"$'\e[2J\xc2\x9b\xff' --out odd2

if [ -z "$SANITIZE" ] && [ -e /usr/share/i18n/locales/de_DE ] && command -v localedef >/dev/null &&
    mkdir locales && localedef -i de_DE -f UTF-8 locales/de_DE.UTF-8 2>/dev/null &&
    [ "$(LOCPATH=$PWD/locales LC_ALL=de_DE.UTF-8 /usr/bin/printf '%.1f' 1,5 2>/dev/null)" = 1,5 ]; then
    german=(env "LOCPATH=$PWD/locales" LC_ALL=de_DE.UTF-8)
    options=(--data good --steps 3 --batch-size 8 --hidden 4 --lr 0.5 --threads 1 --quiet)
    "$train_mlp" "${options[@]}" --out english >/dev/null 2>&1
    ok "comma-decimal locale" "${german[@]}" "$train_mlp" "${options[@]}" --out german
    ok "comma-decimal locale: same weights" cmp english/model.safetensors german/model.safetensors
    numbers() { tr ',{}' '\n\n\n' <"$1/log.jsonl" | grep -E '"(loss|lr|epoch)"'; }
    ok "comma-decimal locale: same log" same_text "$(numbers english)" "$(numbers german)"
    ok "comma-decimal locale: prepare" "${german[@]}" "$prepare" folder photos --test-fraction 0 --out german_photos
    ok "comma-decimal locale: same shards" cmp german_photos/$shard out/$shard
else
    skip "comma-decimal locale" "${SANITIZE:+sanitizers are on, or }no localedef with de_DE"
fi
finish
