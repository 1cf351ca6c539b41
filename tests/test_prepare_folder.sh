#!/bin/bash
# data/prepare on folders of images, good and malformed, made here byte by byte, and its decoding
# processes under attack. Each failure must give its exit status and one line, and leave nothing but
# the list of bad files.
#     tests/test_prepare_folder.sh [path of prepare]
. "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"
shard=out/x-train-00000-of-00001.nns

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
refuses 'bad files, the third time' 3 '(list: out.bad_files.tsv)' folder folder --out out
equal 'the list is made anew' '# left out by data/prepare: a path, a tab and the reason
test/dog/short.png	PNG ends inside a chunk
train/cat/empty.jpg	empty file' "$(tr '\0' '?' <out.bad_files.tsv)"
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
finish
