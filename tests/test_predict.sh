#!/usr/bin/env bash
# Pictures in, classes out: ./predict with both trainers' models, folders, standard input, JSON, and
# weights that do not say what they are.
. "$(dirname "$0")/lib.sh"
corpus=$PWD/tests/fuzz/corpus/image former=$PWD/tests/golden/former
cd "$work" || exit 1

# 24x16 BMPs of three classes that are brighter and brighter, with noise that confuses neighbours.
# Both ends, which --crop cuts off, are as bright as the next class.
awk 'BEGIN {
    srand(7)
    split("dark middle light", name, " ")
    for (class = 1; class <= 3; class++)
        for (i = 1; i <= 60; i++) {
            text = "BM\\x36\\4\\0\\0\\0\\0\\0\\0\\x36\\0\\0\\0\\x28\\0\\0\\0\\x18\\0\\0\\0\\x10\\0\\0\\0\\1\\0\\x18\\0\\0\\0\\0\\0\\x80\\4\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0"
            shift_of = 90 * (rand() - 0.5)
            for (p = 0; p < 384; p++) {
                x = p % 24
                here = x < 4 || x >= 20 ? class % 3 + 1 : class
                for (c = 0; c < 3; c++) text = text sprintf("\\x%02x", 60 * here + shift_of + 40 * (rand() - 0.5))
            }
            print (i <= 40 ? "train/" : "test/") name[class] "/" i ".bmp " text
        }
}' >pictures.txt
mkdir -p photos/{train,test}/{dark,middle,light}
while IFS=' ' read -r name text; do printf '%b' "$text" >"photos/$name"; done <pictures.txt
ok "pictures" "$prepare" folder photos --size 16x16 --crop --out cropped
ok "pictures, grey and stretched" "$prepare" folder photos --grey --size 10x14 --out grey
ok "the speedrun network" "$train_airbench" --data cropped --width 0.03 --epochs 4 --batch-size 20 --out cnn --quiet
ok "a plain one" "$train_cnn" --data cropped --net plain --width 0.5 --epochs 2 --batch-size 20 --out plain --quiet
ok "a perceptron" "$train_mlp" --data grey --hidden 9 --epochs 6 --batch-size 20 --out mlp --quiet

# ---- a folder of classes: the accuracy of --eval-only, for which options, mean and std come from
# the file, too ----
total() { awk '$1 == "all" {print $4}' "$1"; }
same_accuracy() { # same_accuracy TRAINER RUN DATA OPTIONS...
    local trainer=$1 run=$2 data=$3 expected
    shift 3
    expected=$("$trainer" --init "$run/best.safetensors" --data "$data" --eval-only "$@") || return 1
    "$predict" "$run" "$@" photos/test >table.txt || return 1
    echo "$expected"
    tail -n 8 table.txt
    [ -n "$(total table.txt)" ] && [[ $expected == "test accuracy $(total table.txt), "* ]]
}
ok "airbench: the accuracy of --eval-only" same_accuracy "$train_airbench" cnn cropped
ok "airbench without views" same_accuracy "$train_airbench" cnn cropped --tta 0
ok "plain: the accuracy of --eval-only" same_accuracy "$train_cnn" plain cropped
mkdir again && cp -r photos/test again/train && cp -r photos/test again/test
rm again/train/{middle,light}/{41..59}.bmp # so that its mean is another one
ok "pictures of another mean" "$prepare" folder again --size 16x16 --crop --out again-cropped
ok "the model's mean and std count, not the data set's" same_accuracy "$train_cnn" plain again-cropped
ok "mlp: the accuracy of --eval-only" same_accuracy "$train_mlp" mlp grey
ok "it is neither nothing nor all" awk '$1 == "all" {exit !($3 > 20 && $3 < 60)}' table.txt
ok "a line a picture, one a class, one for all" test "$(grep -c '^photos/test/' table.txt),$(grep -cE '^(dark|middle|light) +20 ' table.txt),$(grep -cE '^all +60 ' table.txt)" = 60,3,1
ok "mistakes say what it is" test "$(grep -c ' is ' table.txt)" = "$(awk '$1 == "all" {print $2 - $3}' table.txt)"
ok "piped it is plain" bash -c "! grep -q $'\033' table.txt"
"$predict" mlp photos/test/dark photos/test/light >two.txt
ok "folders that are classes" awk '$1 == "dark" && $2 == 20 {n++} $1 == "light" && $2 == 20 {n++} $1 == "all" && $2 == 40 {n++} END {exit n != 3}' two.txt
same_class() { # same_class FOLDER DIRECTORY: the accuracy is that of the folder by its plain name
    (cd "$2" && "$predict" "$work/mlp" "$1") | grep '^all ' >slash.txt
    "$predict" mlp photos/test/dark | grep '^all ' | diff - slash.txt && [ -s slash.txt ]
}
ok "with a slash behind" same_class photos/test/dark/ .
ok "with two" same_class photos/test/dark// .
ok "the one where one is" same_class . photos/test/dark
mkdir -p other/sub && cp photos/test/dark/4*.bmp other && cp photos/test/light/4*.bmp other/sub
echo text >other/notes.txt
"$predict" mlp other >other.txt
ok "a folder without classes has no accuracy" bash -c "! grep -q accuracy other.txt && grep -q '^18 pictures in ' other.txt"
mkdir other/dark && cp photos/test/dark/5*.bmp other/dark
"$predict" mlp other >other.txt
ok "some in folders that are no class" grep -qE '^28 pictures in .*; 18 in folders that are no class' other.txt

# ---- processes that decode ----
if [ -n "$SANITIZE" ]; then
    skip "as many processes as --threads" "a sanitized program takes no preloaded library"
else
    gcc -std=gnu11 -D_GNU_SOURCE -O1 -fPIC -shared -o fault_shim.so "$OLDPWD/tests/fault_shim.c" -ldl
    forks() { # forks N OPTION...: at least N times
        local n=$1
        shift
        rm -f hit
        FAULT_CALL=fork FAULT_AT=$n FAULT_REPORT=hit LD_PRELOAD=$PWD/fault_shim.so \
            "$train_mlp" --device cpu --init mlp/best.safetensors --predict photos "$@" # auto tries a driver in a fork
        [ -e hit ]
    }
    ok "--threads 3: three processes decode" forks 3 --threads 3
    if forks 2 --threads 1 >/dev/null; then miss "--threads 1: one"; else pass "--threads 1: one"; fi
fi

# ---- one picture ----
image=photos/test/light/41.bmp
"$predict" mlp $image >one.txt
tail -n +2 one.txt >classes.txt
ok "its name and every class, up to five" test "$(head -n 1 one.txt):$(wc -l <one.txt)" = "$image:4"
ok "likeliest first, and 100% in all" awk 'NR > 1 {sum += $1; if (NR > 2 && $1 > last) exit 1; last = $1 + 0}
    END {exit !(sum > 99.8 && sum < 100.2)}' one.txt
ok "standard input" bash -c "'$predict' mlp - <$image | tail -n +2 | cmp - classes.txt"
mkfifo pipe
ok "a pipe" bash -c "cat $image >pipe & '$predict' mlp pipe | tail -n +2 | cmp - classes.txt"
ln -s $image link.bmp
ln -s photos/test/light link-to-light
ok "a link to a class's folder" bash -c "'$predict' mlp link-to-light | grep -q '^light '"
ok "a link" bash -c "'$predict' mlp link.bmp | tail -n +2 | cmp - classes.txt"
tail -c +2 "$corpus/seed-jpeg-3-0" >small.jpg
tail -c +2 "$corpus/seed-png-6-8" >small.png
ok "a JPEG and a PNG of other sizes" "$predict" cnn small.jpg small.png
"$train_mlp" --steps 2 --hidden 8 --out drawings --quiet >/dev/null
ok "ten classes: five" test "$("$predict" drawings $image | wc -l)" -eq 6
ok "a file of weights" bash -c "'$predict' mlp/best.safetensors $image | cmp - one.txt"
rm drawings/{best,model}.safetensors
ok "a run's newest checkpoint" bash -c "'$predict' drawings $image | grep -q %"
ok "a checkpoint" bash -c "'$predict' drawings/checkpoints/step_00000002 $image | grep -q %"

# ---- JSON ----
printf 'BM not a picture' >broken.bmp
"$predict" mlp --json $image broken.bmp nowhere.png photos/test/dark/4?.bmp >lines.json 2>err.txt
ok "a picture that cannot be read: status 3" test $? -eq 3
ok "JSON: a line for each, all on stdout" test "$(wc -l <lines.json):$(wc -c <err.txt)" = 12:0
ok "JSON: the reason" grep -qx '{"picture":"nowhere.png","error":"cannot open: No such file or directory"}' lines.json
"$predict" mlp --json photos/test >folder.json
each() { # each FILE CONDITION: of every line as JSON, the dictionary p
    python3 -c 'import json, sys; sys.exit(not all(eval(sys.argv[2], {"p": json.loads(line)}) for line in open(sys.argv[1])))' "$@"
}
if command -v python3 >/dev/null; then
    ok "JSON: every line parses" each lines.json '"error" in p if "class" not in p else p["picture"] and {"class": p["class"], "probability": p["probability"]} == p["top"][0]'
    "$predict" mlp photos/test >table.txt
    ok "JSON: right where class and label agree" each folder.json 'p["right"] == (p["class"] == p["label"])'
    ok "JSON: right as in the table" test "$(grep -c '"right":true' folder.json)" = "$(awk '$1 == "all" {print $3}' table.txt)"
else
    skip "JSON parsed" "no python3"
fi
ok "JSON: a label where the folder is a class" test "$(grep -c '"label":"dark"' folder.json)" -eq 20

# ---- what cannot be ----
"$predict" mlp broken.bmp $image >some.txt 2>err.txt
ok "a broken picture: status 3" test $? -eq 3
ok "a broken picture: one line on stderr" test "$(cat err.txt)" = "error: broken.bmp: BMP ends inside its header"
ok "a broken picture: the others are there" cmp some.txt one.txt
cp broken.bmp photos/test/dark/zz.bmp
"$predict" mlp photos/test >table.txt 2>err.txt
ok "one of a folder: status 3" test $? -eq 3
ok "one of a folder: it does not count" grep -qE '^60 pictures in .*; 1 could not be read$' table.txt
: >empty.bmp
fails "an empty picture" 3 "empty file" "$predict" mlp empty.bmp
fails "an empty name" 2 "PICTURE... is empty" "$predict" mlp ""
fails "other weights" 2 "leave out --init" "$predict" mlp $image --init mlp/model.safetensors
fails "closed output" 4 "cannot write the answers" bash -c "'$predict' mlp $image >&-"
fails "no such run" 3 "nowhere" "$predict" nowhere $image
mkdir nothing
fails "a run without weights" 3 "no best.safetensors" "$predict" nothing $image
fails "a folder without pictures" 3 "nothing" "$predict" mlp nothing
fails "no picture" 2 "--predict needs pictures" "$predict" mlp
fails "an option first" 2 "RUN comes first" "$predict" --json mlp $image
fails "a misspelt option" 2 "--json" "$predict" mlp --jsn $image
fails "something else than weights" 3 "$image" "$predict" $image $image
fails "without weights" 2 "--init" "$train_cnn" --predict $image
fails "pictures without --predict" 2 "$image" "$train_mlp" $image
fails "the other trainer's weights" 3 "train_mlp" "$train_cnn" --init mlp/best.safetensors --predict $image
ok "weights of the train_cnn that was two networks: train_airbench answers" "$predict" "$former/airbench" $image
fails "weights of its other network" 3 "./train_cnn --net plain" "$predict" "$former/simple" $image
"$predict" --help >help.txt
status=$?
ok "help" test "$(awk '{if (length > m) m = length} END {print m <= 100}' help.txt):$status" = 1:0
"$predict" >/dev/null 2>err.txt
ok "nothing given: usage, status 2" test $?:"$(grep -c usage err.txt)" = 2:1

# ---- weights without metadata, as PyTorch saves them: an 8-byte size and the header, which the data
# follow; here the metadata are blanked ----
plain=plain.safetensors
size=$(od -An -tu8 -N8 mlp/best.safetensors | tr -d ' ')
{
    head -c 8 mlp/best.safetensors
    tail -c +9 mlp/best.safetensors | head -c "$size" | sed -E 's/"__metadata__":\{([^{}"]|"([^"\\]|\\.)*")*\},//' >header
    cat header
    printf '%*s' $((size - $(wc -c <header))) ''
    tail -c +$((size + 9)) mlp/best.safetensors
} >$plain
fails "no metadata: predict says what to type" 3 "./train_mlp --hidden 512,512" "$predict" $plain $image
fails "no metadata: so does the trainer" 2 "--data DIR" "$train_mlp" --hidden 9 --init $plain --predict $image
ok "no metadata: the same with network and data set" bash -c "'$train_mlp' --hidden 9 --data grey --init $plain --predict $image | cmp - one.txt"
unsummed=s/nn.checksum/nn.somewhat/
sed "$unsummed"';s/nn.trainer":"train_mlp/nn.trainer":"..\/bin\/ls/' mlp/best.safetensors >evil.safetensors
fails "a trainer that is none" 3 "nn.trainer" "$predict" evil.safetensors $image
for wrong in 's/"nn.input":"10x14x1/"nn.input":"10x14x2/' 's/"nn.std":"\[0/"nn.std":"[-/' 's/stretch/squeeze/' 's/\\"dark\\"/\\"dar\\"k/'; do
    sed "$unsummed;$wrong" mlp/best.safetensors >evil.safetensors
    fails "metadata: $wrong" 3 "evil.safetensors" "$predict" evil.safetensors $image
done
finish
