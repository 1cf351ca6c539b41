#!/bin/bash
# data/prepare on good and malformed input, made here byte by byte: one case a validation rule.
# Each failure must give its exit status and one line, and leave nothing behind.
#     tests/test_prepare.sh [path of prepare]
. "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"

# ---- idx: 12 images of 2x3 ------------------------------------------------------------------------
digits='\0\1\2\3\4\5\6\7\10\11\0\1'
idx_images() { # FILE MAGIC N ROWS COLUMNS BYTES
    { be32 "$2"; be32 "$3"; be32 "$4"; be32 "$5"; head -c "$6" pattern; } >"$1"
}
idx_labels() { # FILE MAGIC N LABELS
    { be32 "$2"; be32 "$3"; printf "$4"; } >"$1"
}
idx_good() {
    rm -rf idx
    mkdir idx
    for split in train t10k; do
        idx_images idx/$split-images-idx3-ubyte 0x803 12 2 3 72
        idx_labels idx/$split-labels-idx1-ubyte 0x801 12 "$digits"
    done
}
for i in {0..255}; do printf "\\x$(printf %02x "$i")"; done >pattern
# shellcheck disable=SC2034 # used by eval
train=idx/train-images-idx3-ubyte labels=idx/train-labels-idx1-ubyte

idx_good
accepts 'idx' idx idx
shard=out/x-train-00000-of-00001.nns
equal 'idx: pixels' "$(bytes pattern 0 72)" "$(bytes $shard "$(image_offset $shard)" 72)"
equal 'idx: labels' 000001000200030004000500060007000800090000000100 "$(bytes $shard 4096 24)"
cp $shard first.nns
gzip idx/*
accepts 'idx.gz' idx idx
cmp -s $shard first.nns && pass || fail 'idx.gz: another data set than without gzip'
accepts 'idx: more channels and another size' idx idx --rgb --size 4x4
accepts 'idx: many shards' idx idx --shard-bytes 13
equal 'idx: shards of two images' 12 "$(find out -name '*.nns' | wc -l)"

# As other programs leave the files.
idx_dotted() { (cd idx && for f in *-idx*; do mv "$f" "${f/-idx/.idx}"; done); }
idx_good
idx_dotted
accepts 'idx: dotted names' idx idx
cmp -s $shard first.nns && pass || fail 'idx: dotted names: another data set'
gzip idx/*
accepts 'idx: dotted names, .gz' idx idx
idx_good
mkdir -p root/MNIST && cp -r idx root/MNIST/raw
accepts 'idx: MNIST/raw' idx root
accepts 'idx: raw' idx root/MNIST
mkdir -p root/FashionMNIST && cp -r idx root/FashionMNIST/raw
refuses 'idx: two data sets' 3 'more than one data set: name one, such as root/MNIST/raw' idx root --out out
idx_good
(cd idx && for f in *; do mv "$f" file && mkdir "$f" && mv file "$f/$f"; done)
accepts 'idx: folders of the same name' idx idx
cmp -s $shard first.nns && pass || fail 'idx: folders: another data set'
(cd idx && for f in *; do mv "$f/$f" "$f/${f/-idx/.idx}"; done)
accepts 'idx: dotted names in folders' idx idx

idx_case() { # NAME MESSAGE COMMAND: the command damages a good directory
    idx_good
    eval "$3"
    refuses "idx: $1" 3 "$2" idx idx --out out
}
idx_case 'missing file' 'not found' 'rm $labels'
idx_case 'empty file' 'ends early' ': >$train'
idx_case 'magic of images' 'begins with 0x00000801' 'idx_images $train 0x801 12 2 3 72'
idx_case 'magic of labels' 'begins with 0x00000803' 'idx_labels $labels 0x803 12 "$digits"'
idx_case 'no images' 'holds no images' 'idx_images $train 0x803 0 2 3 0; idx_labels $labels 0x801 0 ""'
idx_case 'counts differ' 'has 11 labels, expected 12' 'idx_labels $labels 0x801 11 "$digits"'
idx_case 'no rows' '0x3' 'idx_images $train 0x803 12 0 3 72'
idx_case 'too many columns' '2x16385' 'idx_images $train 0x803 12 2 16385 72'
idx_case 'size of the test split' 'expected 2x3' 'idx_images idx/t10k-images-idx3-ubyte 0x803 12 3 2 72'
idx_case 'label 10' 'label 3 is 10' 'idx_labels $labels 0x801 12 "\0\1\2\12\4\5\6\7\10\11\0\1"'
idx_case 'class without images' 'class "1"' 'idx_labels $labels 0x801 12 "\0\0\2\3\4\5\6\7\10\11\0\0"'
idx_case 'short images' 'ends early' 'truncate -s -1 $train'
idx_case 'short labels' 'ends early' 'truncate -s -1 $labels'
idx_case 'long images' 'more than its header' 'printf x >>$train'
idx_case 'long labels' 'more than its header' 'printf x >>$labels'
idx_case 'promised far more than fits' 'ends early' 'idx_images $train 0x803 0x7fffffff 2048 2048 72; idx_labels $labels 0x801 0x7fffffff "$digits"'
idx_case 'promised far more, .gz' 'ends early' 'idx_images $train 0x803 1 16384 16384 72; idx_labels $labels 0x801 1 "\0"; gzip idx/train-*'
idx_case 'promised far more' 'ends early' 'idx_images $train 0x803 0x7fffffff 2 3 72; idx_labels $labels 0x801 0x7fffffff "$digits"'
idx_case 'gzip: short' 'ends early' 'gzip $train; truncate -s -3 $train.gz'
idx_case 'gzip: junk behind' 'bytes follow' 'gzip $train; printf junk >>$train.gz'
idx_case 'gzip: two members' 'bytes follow' 'gzip $train; gzip <pattern >>$train.gz'
idx_case 'gzip: wrong checksum' 'damaged gzip' 'gzip $train; truncate -s -8 $train.gz; printf 12345678 >>$train.gz'
idx_case 'gzip: bomb' 'more than its header' 'head -c 20000000 /dev/zero >>$train; gzip $train'
idx_case 'FIFO' 'not a regular file' 'rm $train; mkfifo $train'

# ---- CIFAR: 2 records a file ----------------------------------------------------------------------
record() { printf "$1"; fill 10 1024; fill 20 1024; fill 30 1024; }
cifar10_good() {
    rm -rf cifar
    mkdir cifar
    for i in 1 2 3 4 5; do
        { record "\\$(printf %03o $((2 * i - 2)))"; record "\\$(printf %03o $((2 * i - 1)))"; } >cifar/data_batch_$i.bin
    done
    record '\3' >cifar/test_batch.bin
    printf '%s\n' airplane automobile bird cat deer dog frog horse ship truck '' >cifar/batches.meta.txt
}
cifar10_good
accepts 'CIFAR-10' cifar cifar
shard=out/x-train-00000-of-00001.nns
equal 'CIFAR-10: channels last' 0a141e0a141e "$(bytes $shard "$(image_offset $shard)" 6)"
equal 'CIFAR-10: labels' 00000100020003000400 "$(bytes $shard 4096 10)"
accepts 'CIFAR-10: grey' cifar cifar --grey
equal 'CIFAR-10: grey value' 12 "$(bytes $shard "$(image_offset $shard)" 1)"
sed -i '1s/^/\xef\xbb\xbf/' cifar/batches.meta.txt
accepts 'CIFAR-10: a byte order mark' cifar cifar
"$prepare" info $shard | grep -q '^  0     airplane ' && pass || fail "CIFAR-10: a byte order mark in a name: $("$prepare" info $shard)"
cifar10_good
mkdir wrapped
cp -r cifar wrapped/cifar-10-batches-bin
accepts 'CIFAR-10 in its directory' cifar wrapped
mkdir cifar100
for i in {0..99}; do record "\\$(printf %03o $((i % 20)))\\$(printf %03o "$i")"; done >cifar100/train.bin
record '\0\5' >cifar100/test.bin
printf 'fine%02d\n' {0..99} >cifar100/fine_label_names.txt
accepts 'CIFAR-100' cifar cifar100
record '\24\5' >cifar100/test.bin
refuses 'CIFAR-100: coarse label 20' 3 'record 0 has label' cifar cifar100 --out out

cifar_case() {
    cifar10_good
    eval "$3"
    refuses "CIFAR-10: $1" 3 "$2" cifar cifar --out out
}
cifar_case 'not there' 'neither data_batch_1.bin' 'rm cifar/data_batch_1.bin'
cifar_case 'a batch missing' 'data_batch_4.bin: cannot open' 'rm cifar/data_batch_4.bin'
cifar_case 'empty batch' 'expected a multiple of 3073' ': >cifar/data_batch_2.bin'
cifar_case 'short batch' 'expected a multiple of 3073' 'truncate -s -1 cifar/data_batch_2.bin'
cifar_case 'label 10' 'record 0 has label 10' 'record "\12" >cifar/data_batch_2.bin'
cifar_case 'no names' 'batches.meta.txt: cannot open' 'rm cifar/batches.meta.txt'
cifar_case 'nine names' 'has 9 class names' 'sed -i 3d cifar/batches.meta.txt'
cifar_case 'eleven names' 'one too many' 'echo zebra >>cifar/batches.meta.txt'
cifar_case 'a name twice' 'is there twice' 'sed -i s/dog/cat/ cifar/batches.meta.txt'
cifar_case 'a control character' 'no class name' 'sed -i "s/dog/d\to/" cifar/batches.meta.txt'
cifar_case 'names without an end' 'too long' 'head -c 9000 /dev/zero >cifar/batches.meta.txt'

# ---- the command line and the output directory ----------------------------------------------------
idx_good
refuses 'no command' 2 'unknown command ""'
refuses 'unknown command' 2 'idx, cifar, folder' idex idx --out out
refuses 'unknown option' 2 '--force' idx idx --out out --forse
refuses 'no source' 2 'prepare idx SRC' idx --out out
refuses 'no output' 2 '--out DIR' idx idx
refuses 'one argument too many' 2 'unexpected argument' idx idx more --out out
refuses 'bad size' 2 '--size 64x64' idx idx --out out --size 64
refuses 'size of zero' 2 '--size 64x64' idx idx --out out --size 0x64
refuses 'size with a tail' 2 '--size 64x64' idx idx --out out --size 64x64x3
refuses 'grey and rgb' 2 'not both' idx idx --out out --grey --rgb
refuses 'crop alone' 2 '--crop needs' idx idx --out out --crop
refuses 'idx is split' 2 'split already' idx idx --out out --test-fraction 0.5
refuses 'idx needs no workers' 2 '--workers' idx idx --out out --workers 3
refuses 'shard-bytes of 0' 2 '--shard-bytes' idx idx --out out --shard-bytes 0
refuses 'no parent' 4 'parent directory must exist' idx idx --out none/out
"$prepare" --help >stdout 2>stderr && grep -q shard-bytes stdout && pass || fail '--help'

accepts 'data set' idx idx
before=$(cksum out/*)
"$prepare" idx idx --out out 2>stderr
equal 'no overwriting: status' 2 $?
grep -q -- --force stderr && pass || fail "no overwriting: $(cat stderr)"
"$prepare" idx idx --grey --size 5x5 --out out --force >stdout 2>stderr && "$prepare" check out >stdout && pass || fail "--force: $(cat stderr)"
[ "$before" != "$(cksum out/*)" ] && pass || fail '--force: the data set is the old one'
[ -e .out.tmp ] && fail '--force: the old data set is left' || pass
touch out/mine
"$prepare" idx idx --out out --force 2>stderr
equal 'other files are safe: status' 2 $?
[ -e out/mine ] && pass || fail 'other files are safe'

rm -rf out
mkdir -p .out.tmp
echo old >.out.tmp/x-train-00000.part
mkdir out
"$prepare" idx idx --out out/ >stdout 2>stderr && "$prepare" check out >stdout && [ ! -e .out.tmp ] && pass || fail "into an empty directory, over an old temporary one: $(cat stderr)"
rm -rf out
mkdir here
touch here/mine
(cd here && "$prepare" idx ../idx --out . 2>../stderr)
[ $? = 2 ] && [ -e here/mine ] && pass || fail 'other files in .'
rm here/mine
for place in . ../here "$dir/here/"; do
    (cd here && "$prepare" idx ../idx --out "$place" >../stdout 2>../stderr)
    equal "--out $place in that directory: status" 2 $?
    grep -q 'is the current directory' stderr && [ -d here ] && [ ! -e .here.tmp ] && pass || fail "--out $place: $(cat stderr)"
done
mkdir -p here
equal 'the next command' 'next: ./train_mlp --data new' "$("$prepare" idx idx --out new | tail -n 1)"
rm -r new
equal 'the next command, quoted' "next: ./train_mlp --data 'it'\\''s new'" "$("$prepare" idx idx --out "it's new" | tail -n 1)"
chmod 700 here
"$prepare" idx idx --out here >stdout 2>stderr && pass || fail "over mode 700: $(cat stderr)"
equal 'the mode stays' 700 "$(stat -c %a here)"
chmod 750 here
"$prepare" idx idx --out here --force >stdout 2>stderr && pass || fail "--force over mode 750: $(cat stderr)"
equal '--force: the mode stays' 750 "$(stat -c %a here)"
"$prepare" idx idx --out new >stdout 2>stderr && pass || fail "a new place: $(cat stderr)"
equal 'the mode of a new place' "$(printf %o $((0777 & ~$(umask))))" "$(stat -c %a new)"

# Stopped while it packs two million images, which are a hole in a file.
wait_for_images() {
    for _ in {1..200}; do
        [ -s .out.tmp/x-train-00000.part ] && break
        sleep 0.02
    done
}
rm -rf out
idx_images $train 0x803 2000000 28 28 0
truncate -s $((16 + 2000000 * 784)) $train
idx_labels idx/train-labels-idx1-ubyte 0x801 2000000 ''
truncate -s $((8 + 2000000)) idx/train-labels-idx1-ubyte
idx_images idx/t10k-images-idx3-ubyte 0x803 12 28 28 0
truncate -s $((16 + 12 * 784)) idx/t10k-images-idx3-ubyte
"$prepare" idx idx --out out >stdout 2>stderr &
pid=$!
wait_for_images
"$prepare" idx idx --out out 2>stderr2
equal 'a second writer: status' 4 $?
kill -TERM $pid
wait $pid
equal 'SIGTERM: status' 143 $?
[ ! -e out ] && [ ! -e .out.tmp ] && pass || fail 'SIGTERM: something is left behind'
"$prepare" idx idx --out out >stdout 2>stderr &
pid=$!
wait_for_images
kill -KILL $pid
wait $pid 2>/dev/null
[ ! -e out ] && pass || fail 'SIGKILL: half a data set'
idx_good
accepts 'after SIGKILL' idx idx

if [ "$(id -u)" = 0 ]; then
    skip 'a read-only directory (root may write anywhere)'
else
    mkdir locked
    chmod a-w locked
    refuses 'read-only directory' 4 'cannot create' idx idx --out locked/out
fi

# ---- info and check -------------------------------------------------------------------------------
accepts 'data set' idx idx
shard=out/x-train-00000-of-00001.nns
"$prepare" info $shard >stdout 2>stderr && grep -q '12 of 2x3x1' stdout && pass || fail "info: $(cat stderr)"
"$prepare" check $shard >stdout 2>stderr && grep -q '12 images are intact' stdout && pass || fail "check: $(cat stderr)"
cp $shard bad.nns
printf x | dd of=bad.nns bs=1 seek=$(($(stat -c %s bad.nns) - 1)) conv=notrunc 2>/dev/null
"$prepare" info bad.nns >stdout 2>stderr && pass || fail 'info reads no images'
refuses 'check: damaged image' 3 'block 0' check bad.nns
truncate -s -1 bad.nns
refuses 'check: short file' 3 'cut short' check bad.nns
refuses 'check: not a shard' 3 'idx images' check $train
refuses 'check: no data set' 3 'no x-train' check idx
refuses 'info: nothing given' 2 'prepare info FILE' info

finish
