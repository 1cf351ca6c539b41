#!/bin/bash
# data/prepare on good and malformed input, made here byte by byte: one case a validation rule.
# Each failure must give its exit status and one line, and leave nothing behind.
#     tests/test_prepare.sh [path of prepare]
set -u
export LC_ALL=C
prepare=$(realpath "${1:-${BUILD:-build/native}/data/prepare}")
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir" || exit 1
passed=0 failed=0 skipped=0

pass() { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); printf 'FAILED %s\n' "$*"; }
skip() { skipped=$((skipped + 1)); printf 'skipped: %s\n' "$*"; }

# accepts NAME ARGUMENTS: status 0, the data set is intact and no temporary directory is left.
accepts() {
    local name=$1
    shift
    rm -rf out
    if ! "$prepare" "$@" --out out >stdout 2>stderr; then
        fail "$name: $(cat stderr)"
    elif ! "$prepare" check out >stdout 2>stderr; then
        fail "$name: check: $(cat stderr)"
    elif [ -e .out.tmp ]; then
        fail "$name: .out.tmp is left"
    else
        pass
    fi
}

# refuses NAME STATUS MESSAGE ARGUMENTS: that status, one line with the message, nothing left.
refuses() {
    local name=$1 status=$2 message=$3 got
    shift 3
    rm -rf out
    timeout 20 "$prepare" "$@" >stdout 2>stderr
    got=$?
    if [ $got != "$status" ]; then
        fail "$name: status $got, expected $status: $(cat stderr)"
    elif [ "$(wc -l <stderr)" != 1 ] || ! grep -q '^error: ' stderr; then
        fail "$name: not one line: $(cat stderr)"
    elif ! grep -qF -- "$message" stderr; then
        fail "$name: \"$(cat stderr)\" lacks \"$message\""
    elif [ -e out ] || [ -e .out.tmp ]; then
        fail "$name: something is left behind"
    else
        pass
    fi
}

equal() { # NAME EXPECTED FOUND
    if [ "$2" = "$3" ]; then pass; else fail "$1: found \"$3\", expected \"$2\""; fi
}

bytes() { # FILE OFFSET COUNT: as hexadecimal
    od -An -v -tx1 -j"$2" -N"$3" "$1" | tr -d ' \n'
}

image_offset() { od -An -tu8 -j96 -N8 "$1" | tr -d ' '; }

be32() { printf "\\x$(printf %02x $(($1 >> 24 & 255)))\\x$(printf %02x $(($1 >> 16 & 255)))\\x$(printf %02x $(($1 >> 8 & 255)))\\x$(printf %02x $(($1 & 255)))"; }
le32() { printf "\\x$(printf %02x $(($1 & 255)))\\x$(printf %02x $(($1 >> 8 & 255)))\\x$(printf %02x $(($1 >> 16 & 255)))\\x$(printf %02x $(($1 >> 24 & 255)))"; }
fill() { head -c "$2" /dev/zero | tr '\0' "\\$(printf %03o "$1")"; } # VALUE COUNT

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

# ---- image folders --------------------------------------------------------------------------------
bmp() { # FILE H W BLUE GREEN RED
    local row=$((($3 * 3 + 3) / 4 * 4))
    {
        printf BM; le32 $((54 + row * $2)); le32 0; le32 54
        le32 40; le32 "$3"; le32 "$2"; printf '\1\0\30\0'; le32 0; le32 0; le32 0; le32 0; le32 0; le32 0
        for ((y = 0; y < $2; y++)); do
            for ((x = 0; x < $3; x++)); do printf "\\x$(printf %02x "$4")\\x$(printf %02x "$5")\\x$(printf %02x "$6")"; done
            head -c $((row - 3 * $3)) /dev/zero
        done
    } >"$1"
}
png_chunk() { # TYPE; the data is in the file `data`
    be32 "$(wc -c <data)"
    { printf "$1"; cat data; } >typed
    cat typed
    be32 "0x$(gzip -c typed | tail -c 8 | head -c 4 | od -An -tx4 | tr -d ' ')"
}
png() { # FILE SIDE VALUE: grey, one stored zlib block
    local n=$(($2 * ($2 + 1))) a=1 b=0 y x
    {
        printf '\x89PNG\r\n\x1a\n'
        { be32 "$2"; be32 "$2"; printf '\10\0\0\0\0'; } >data
        png_chunk IHDR
        {
            printf '\x78\x01\x01'
            printf "\\x$(printf %02x $((n & 255)))\\x$(printf %02x $((n >> 8)))\\x$(printf %02x $((~n & 255)))\\x$(printf %02x $((~n >> 8 & 255)))"
            for ((y = 0; y < $2; y++)); do
                printf '\0'
                fill "$3" "$2"
                b=$(((b + a) % 65521))
                for ((x = 0; x < $2; x++)); do a=$(((a + $3) % 65521)) b=$(((b + a) % 65521)); done
            done
            be32 $((b << 16 | a))
        } >data
        png_chunk IDAT
        : >data
        png_chunk IEND
    } >"$1"
}
jpeg() { # FILE [H W]: grey of value 128, as all coefficients are 0
    local blocks=$(((${2:-8} + 7) / 8 * ((${3:-8} + 7) / 8)))
    {
        printf '\xff\xd8\xff\xdb\0\x43\0'
        fill 1 64
        printf '\xff\xc0\0\x0b\x08'
        be32 $((${2:-8} << 16 | ${3:-8}))
        printf '\1\1\x11\0'
        printf '\xff\xc4\0\x14\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
        printf '\xff\xc4\0\x14\x10\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
        printf '\xff\xda\0\x08\1\1\0\0\x3f\0'
        head -c $(((blocks + 3) / 4)) /dev/zero
        printf '\xff\xd9'
    } >"$1"
}
folder_good() {
    rm -rf folder
    mkdir -p folder/{train,test}/{cat,dog}
    cp good.bmp folder/train/cat/1.bmp
    cp good.png folder/train/dog/2.PNG
    cp good.jpg folder/train/dog/3.jpeg
    cp good.jpg folder/test/cat/4.jpg
    cp good.jpg folder/test/dog/5.jpg
}
bmp good.bmp 8 8 10 20 30
png good.png 8 77
jpeg good.jpg

folder_good
accepts 'folder' folder folder
pixels=$(image_offset $shard)
found=$(for i in 0 1 2; do printf '%s:%s\n' "$(bytes $shard $((4096 + 2 * i)) 2)" "$(bytes $shard $((pixels + 192 * i)) 6)"; done | sort | tr '\n' ' ')
equal 'folder: labels and pixels' '0000:1e140a1e140a 0100:4d4d4d4d4d4d 0100:808080808080 ' "$found"
[ -e out/bad_files.tsv ] && fail 'folder: bad_files.tsv without bad files' || pass
accepts 'folder: grey' folder folder --grey
accepts 'folder: enlarged' folder folder --size 13x7
equal 'folder: a flat image stays flat' 1 "$(tail -c 273 out/x-test-00000-of-00001.nns | od -An -v -tx1 -w1 | sort -u | wc -l)"
folder_good
bmp folder/train/cat/wide.bmp 3 5 1 2 3
accepts 'folder: sizes made equal' folder folder --size 4x4 --crop
refuses 'folder: sizes differ' 3 'images differ in size' folder folder --out out
refuses 'folder: split twice' 2 'is split already' folder folder --test-fraction 0.5 --out out

rm -rf flat
mkdir -p flat/{ant,bee}
for i in {1..150}; do
    cp good.jpg flat/ant/$i.jpg
    cp good.png flat/bee/$i.png
done
accepts 'flat folder' folder flat
cp -r out split_10
tests=$(od -An -tu8 -j32 -N8 out/x-test-00000-of-00001.nns | tr -d ' ')
[ "$tests" -ge 15 ] && [ "$tests" -le 50 ] && pass || fail "flat folder: $tests of 300 images for tests"
accepts 'flat folder, one worker' folder flat --workers 1
name=$(basename "$shard")
cmp -s "out/$name" "split_10/$name" && pass || fail 'the number of workers changes the data set'
accepts 'flat folder: half for tests' folder flat --test-fraction 0.5
labels=$(od -An -v -tu2 -w2 -j4096 -N40 $shard | sort | uniq -c | wc -l)
equal 'classes are mixed' 2 "$labels"

# Each of many classes of two pictures has one to learn from, or prepare would refuse.
mkdir pairs
for i in {1..400}; do mkdir pairs/$i && ln good.jpg pairs/$i/a.jpg && ln good.jpg pairs/$i/b.jpg; done
accepts 'classes of two pictures' folder pairs
accepts 'half for tests' folder pairs --test-fraction 0.5
rm -r pairs

# What is left out and listed: two bad images of 302 are allowed.
cp good.jpg flat/ant/.hidden.jpg
echo text >flat/ant/notes.txt
echo text >flat/readme.md
mkdir flat/ant/below
ln -s ../../good.jpg flat/ant/link.jpg
ln -s loop.jpg flat/ant/loop.jpg
mkfifo flat/ant/fifo.jpg
cp good.jpg flat/ant/$'no\xffutf8.jpg'
cp good.jpg flat/ant/$'tab\there.jpg'
: >flat/bee/empty.png
head -c 60 good.png >flat/bee/short.png
accepts 'folder: what is left out' folder flat
equal 'bad_files.tsv' 'ant/below	a directory inside a class
ant/fifo.jpg	not a regular file
ant/link.jpg	a symbolic link
ant/loop.jpg	a symbolic link
ant/no\xffutf8.jpg	the name is not UTF-8 or has control characters
ant/notes.txt	not .jpg, .jpeg, .png or .bmp
ant/tab\x09here.jpg	the name is not UTF-8 or has control characters
bee/empty.png	empty file
bee/short.png	PNG ends inside a chunk
readme.md	not a class'\''s directory' "$(sort out/bad_files.tsv)"

equal 'a folder below a class is told' 'warning: flat/ant/below is left out: a directory inside a class' "$("$prepare" folder flat --out out --force 2>&1 >stdout)"
ln -s ant flat/link
mkdir flat/$'new\nline'
equal 'so are several' 'warning: flat/ant/below is left out: a directory inside a class; 2 more folders in bad_files.tsv' "$("$prepare" folder flat --out out --force 2>&1 >stdout)"
rm -r flat/ant/below
equal 'and a link' 'warning: flat/link is left out: a symbolic link; 1 more folders in bad_files.tsv' "$("$prepare" folder flat --out out --force 2>&1 >stdout)"
equal 'links and names in bad_files.tsv' 'link	a symbolic link
new\x0aline	the name is not UTF-8 or has control characters' "$(grep -E '^(link|new)' out/bad_files.tsv)"
folder_good
mv folder/test/dog elsewhere
ln -s ../../elsewhere folder/test/dog
equal 'a link in one split' 'warning: folder/test/dog is left out: a symbolic link' "$("$prepare" folder folder --out out --force 2>&1 >stdout)"
mkdir folder/val
equal 'and a third split' 'warning: folder/test/dog is left out: a symbolic link; 1 more folders in bad_files.tsv' "$("$prepare" folder folder --out out --force 2>&1 >stdout)"
equal 'in bad_files.tsv' 'val	beside train/ and test/' "$(grep val out/bad_files.tsv)"
equal 'its pictures are left out' 1 "$(od -An -tu8 -j32 -N8 out/x-test-00000-of-00001.nns | tr -d ' ')"

# One bad image of three is too many; the message ends with the reason.
image_case() { # NAME MESSAGE COMMAND: the command makes bad.jpg (the name's ending does not matter)
    folder_good
    eval "$3"
    mv bad.jpg folder/train/cat/
    rm -f out.bad_files.tsv
    refuses "image: $1" 3 "$2" folder folder --out out
    grep -q "^train/cat/bad.jpg	.*$2" out.bad_files.tsv && pass || fail "image: $1: is not in the list: $(cat out.bad_files.tsv)"
}
image_case 'empty' 'empty file' ': >bad.jpg'
image_case 'text' 'neither JPEG nor PNG nor BMP' 'echo hello, world >bad.jpg'
image_case 'larger than 64 MiB' 'larger than 64 MiB' 'truncate -s 67108865 bad.jpg'
image_case 'JPEG without EOI' 'no EOI' 'head -c -2 good.jpg >bad.jpg'
image_case 'JPEG cut in a segment' 'no EOI' 'head -c 100 good.jpg >bad.jpg'
image_case 'JPEG: Huffman table' 'bad Huffman table' '{ head -c 89 good.jpg; printf "\xff"; tail -c +91 good.jpg; } >bad.jpg'
image_case 'JPEG of 0 lines' 'JPEG of 0 lines' 'jpeg bad.jpg 0 8'
image_case 'PNG without IEND' 'without IEND' 'head -c -12 good.png >bad.jpg'
image_case 'PNG: checksum' 'wrong checksum' '{ head -c 50 good.png; printf x; tail -c +52 good.png; } >bad.jpg'
image_case 'PNG of 0x0' 'image of 0x0' 'png bad.jpg 0 0'
image_case 'PNG bomb' 'image of 65535x65535' '{ be32 65535; be32 65535; printf "\10\0\0\0\0"; } >data; { printf "\x89PNG\r\n\x1a\n"; png_chunk IHDR; : >data; png_chunk IEND; } >bad.jpg'
image_case 'PNG over 64 Mi pixels' 'at most 64 Mi pixels' '{ be32 16000; be32 16000; printf "\10\0\0\0\0"; } >data; { printf "\x89PNG\r\n\x1a\n"; png_chunk IHDR; printf "\x78\x01" >data; png_chunk IDAT; : >data; png_chunk IEND; } >bad.jpg'
image_case 'BMP header' 'inside its header' 'head -c 20 good.bmp >bad.jpg'
image_case 'BMP cut' 'before its last pixel' 'head -c -1 good.bmp >bad.jpg'

# The list of a refusal is complete, and --skip-bad goes on.
folder_good
: >folder/train/cat/empty.jpg
head -c 60 good.png >folder/test/dog/short.png
echo text >folder/train/notes.txt
rm -f out.bad_files.tsv
refuses 'bad files' 3 '2 of the 7 images cannot be used, as test/dog/short.png: PNG ends inside a chunk; --skip-bad' folder folder --out out/
equal 'the list' '# left out by data/prepare: a path, a tab and the reason
test/dog/short.png	PNG ends inside a chunk
train/cat/empty.jpg	empty file
train/notes.txt	not a class'\''s directory' "$(cat out.bad_files.tsv)"
rm folder/train/notes.txt
refuses 'bad files, once more' 3 '(list: out.bad_files.tsv)' folder folder --out out
equal 'the list is made anew' 3 "$(wc -l <out.bad_files.tsv)"
printf 'mine\n' >out.bad_files.tsv
refuses 'bad files, the name is taken' 3 'without them' folder folder --out out
equal 'a list of others stays' mine "$(cat out.bad_files.tsv)"
grep -q 'list:' stderr && fail 'a list that was not written is told' || pass
rm out.bad_files.tsv
ln -s good.jpg out.bad_files.tsv
refuses 'bad files, a link is there' 3 'without them' folder folder --out out
[ -L out.bad_files.tsv ] && cmp -s good.jpg folder/test/cat/4.jpg && pass || fail 'a link of the name is followed'
rm out.bad_files.tsv
accepts '--skip-bad' folder folder --skip-bad
equal '--skip-bad: the list' 'test/dog/short.png	PNG ends inside a chunk
train/cat/empty.jpg	empty file' "$(cat out/bad_files.tsv)"
[ -e out.bad_files.tsv ] && fail '--skip-bad: a list of a refusal' || pass
rm folder/train/dog/*
: >folder/train/dog/1.jpg
refuses '--skip-bad: no image of a class' 3 'class "dog" has no usable image in the train split: take it out' folder folder --out out --skip-bad
grep -q '^train/dog/1.jpg' out.bad_files.tsv && pass || fail '--skip-bad: no list'
rm -f folder/*/*/* out.bad_files.tsv
for place in train/cat train/dog test/cat test/dog; do : >folder/$place/1.jpg; done
refuses 'not one good image' 3 'not one image can be read, as train/' folder folder --out out
equal 'not one good image: the list' 3 "$(wc -l <out.bad_files.tsv)"
refuses '--skip-bad is for folders' 2 '--skip-bad' idx idx --out out --skip-bad

# A photo that is stored turned to the left has its sides changed, unless --exif off.
folder_good
rm folder/train/*/*
jpeg good_8x16.jpg 8 16
{
    head -c 2 good_8x16.jpg
    printf '\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0'
    tail -c +3 good_8x16.jpg
} >turned.jpg
for place in train/cat train/dog test/cat test/dog; do rm -f folder/$place/* && cp turned.jpg folder/$place/; done
accepts 'EXIF' folder folder
"$prepare" info $shard | grep -q ' of 16x8x3, ' && pass || fail "EXIF: $("$prepare" info $shard)"
accepts 'EXIF off' folder folder --exif off
"$prepare" info $shard | grep -q ' of 8x16x3, ' && pass || fail "EXIF off: $("$prepare" info $shard)"
accepts 'EXIF with --size' folder folder --size 16x8 --exif on
refuses 'EXIF is for folders' 2 '--exif' idx idx --out out --exif off
refuses 'EXIF: on or off' 2 '--exif' folder folder --out out --exif maybe

# A decoding process that is killed or stopped costs at most the image it was at; a bomb costs itself.
rm -rf many
mkdir -p many/{ant,bee}
jpeg many/ant/1.jpg 3600 3600
for i in {2..60}; do cp many/ant/1.jpg many/ant/$i.jpg; done
cp -r many/ant/. many/bee
workers_of() { # PID: once there are any
    local children=''
    while [ -z "$children" ] && [ -e "/proc/$1" ]; do
        children=$(cat "/proc/$1/task/$1/children" 2>/dev/null)
    done
    echo "$children"
}
no_process() { # PID...: all have ended, if not at once
    local pid
    for _ in {1..100}; do
        for pid; do grep -qs '^State:[[:space:]]*[^Z]' "/proc/$pid/status" && sleep 0.02 && continue 2; done
        return 0
    done
    return 1
}
attack() { # NAME SIGNAL REASON
    rm -rf out
    "$prepare" folder many --size 8x8 --out out >stdout 2>stderr &
    local pid=$! workers listed
    workers=$(workers_of $pid)
    sleep 0.1
    kill -"$2" "${workers%% *}"
    wait $pid
    equal "$1: status" 0 $?
    listed=$(cat out/bad_files.tsv 2>/dev/null)
    [ -z "$listed" ] || [[ $listed == *"$3"* && $(wc -l <out/bad_files.tsv) = 1 ]] && pass || fail "$1: lists $listed"
    "$prepare" check out >stdout 2>stderr && pass || fail "$1: $(cat stderr)"
    no_process $workers && pass || fail "$1: a process is left"
}
if [ -e "/proc/$$/task/$$/children" ]; then
    attack 'a worker crashes' SEGV 'crashed with signal 11'
    attack 'a worker is killed' KILL 'killed'
    attack 'a worker hangs' STOP 'hung'
    "$prepare" folder many --size 8x8 --out out2 >stdout 2>stderr &
    pid=$!
    workers=$(workers_of $pid)
    kill -KILL $pid
    wait $pid 2>/dev/null
    [ -n "$workers" ] && no_process $workers && pass || fail 'a worker outlives its parent'
    rm -rf .out2.tmp
else
    skip 'attacks on a worker (no children in /proc)'
fi

folder_case() { # NAME STATUS MESSAGE COMMAND
    folder_good
    eval "$4"
    refuses "folder: $1" "$2" "$3" folder folder --out out
}
folder_case 'empty class' 3 'class "dog" is empty' 'rm folder/test/dog/*'
folder_case 'a class of bad images' 3 'cannot be used' 'rm folder/train/cat/*; : >folder/train/cat/1.jpg'
folder_case 'a class without training' 3 'class "emu" has no usable image in the train' 'mkdir folder/test/emu; cp good.jpg folder/test/emu/'
folder_case 'no test split' 3 'has train/ but no test/' 'rm -r folder/test'
folder_case 'an empty test split' 3 'larger --test-fraction or more pictures' 'mv folder/train/* folder/; mv folder/cat/{1,7}.bmp; rm folder/dog/3.jpeg; rm -r folder/train folder/test'
folder_case 'one class' 3 'holds 1 class directories' 'rm -r folder/*/dog'
folder_case 'nothing' 3 'holds 0 class directories' 'rm -r folder/*'
folder_case 'one class and a link' 3 'holds 1 class directories, expected two or more: DIR/CLASS/*.jpg; test/dog is left out: a symbolic link' 'mv folder/train/dog elsewhere2; rm -r folder/test/dog; for s in train test; do ln -s "$PWD/elsewhere2" folder/$s/dog; done'
folder_case 'one class and a line' 3 'new\x0aline is left out: the name is not UTF-8' 'mv folder/train/dog folder/train/$"new
line"; rm -r folder/test/dog'
folder_case 'a link for a split' 3 'folder/test: is a symbolic link' 'mv folder/test elsewhere3; ln -s "$PWD/elsewhere3" folder/test'
folder_case 'not there' 3 'cannot open' 'rm -r folder'

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

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
