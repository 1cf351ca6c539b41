#!/usr/bin/env python3
"""Writes the fuzzers' first inputs, tests/fuzz/corpus/NAME/seed-*: small good files of every kind,
in the form that tests/fuzz/NAME.c describes. Found inputs lie beside them under other names."""
import gzip
import json
import math
import pathlib
import struct
import zlib

corpus = pathlib.Path(__file__).parent / "corpus"


def seed(fuzzer, name, data):
    path = corpus / fuzzer / f"seed-{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(w, h, depth, colour, interlace=0, extra=b"", apple=False):
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = [(0, 0, 1, 1)]
    if interlace:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
                  (0, 1, 1, 2)]
    rows = b""
    for x0, y0, dx, dy in passes:
        pw, ph = (w - x0 + dx - 1) // dx, (h - y0 + dy - 1) // dy
        row = (pw * samples * depth + 7) // 8
        for y in range(ph if pw else 0):
            rows += bytes([y % 5]) + bytes((37 * y + 11 * x) % (4 if colour == 3 else 256) for x in range(row))
    head = struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlace)
    packed = zlib.compress(rows, 9)
    first = chunk(b"CgBI", b"\x50\0\x20\2") if apple else b""
    return (b"\x89PNG\r\n\x1a\n" + first + chunk(b"IHDR", head) + extra +
            chunk(b"IDAT", packed[2:-4] if apple else packed) + chunk(b"IEND", b""))


def tiff(orientation):
    return b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHIHH", 0x112, 3, 1, orientation, 0) + bytes(4)


def jpeg(w, h, components, progressive, extra=b"", tables=True):
    sampling = b"".join(bytes([i + 1, 0x22 if i == 0 and components > 1 else 0x11, 0])
                        for i in range(components))
    head = bytes([8]) + struct.pack(">HH", h, w) + bytes([components]) + sampling
    table = bytes([0, 1] + [0] * 14) + b"\0"
    scan = bytes([components]) + b"".join(bytes([i + 1, 0]) for i in range(components))
    segment = lambda marker, data: bytes([0xff, marker]) + struct.pack(">H", len(data) + 2) + data
    side = 16 if components > 1 else 8
    units, blocks = -(-w // side) * -(-h // side), 3 + components if components > 1 else 1
    bits = bytes((2 * units * blocks + 7) // 8)
    out = b"\xff\xd8" + extra
    if components == 4:  # Adobe's marker says that it is CMYK
        out += segment(0xee, b"Adobe\0\x64\0\0\0\0\0")
    out += segment(0xdb, b"\0" + bytes([1] * 64)) + segment(0xc2 if progressive else 0xc0, head)
    if tables:
        out += segment(0xc4, b"\0" + table[1:] + b"\0") + segment(0xc4, b"\x10" + table[1:] + b"\0")
    if progressive:
        out += segment(0xda, scan + b"\0\0\1") + bits + segment(0xda, scan + b"\0\0\x10") + bits
        for i in range(components):
            out += segment(0xda, bytes([1, i + 1, 0]) + b"\1\x3f\0") + bits
    else:  # all coefficients are 0, of one bit each; a restart marker after every two units
        out += segment(0xdd, b"\0\2") + segment(0xda, scan + b"\0\x3f\0")
        for first in range(0, units, 2):
            out += bytes([0xff, 0xd0 + (first // 2 - 1) % 8]) if first else b""
            out += bytes((2 * min(2, units - first) * blocks + 7) // 8)
    return out + b"\xff\xd9"


def bmp(w, h, bits, header, palette, compression=0):
    row = (w * bits + 31) // 32 * 4
    body = bytes(range(256)) * (row * abs(h) // 256 + 1)
    at = 14 + header + len(palette)
    if header == 12:
        info = struct.pack("<IHHHH", 12, w, h, 1, bits)
    else:
        info = struct.pack("<IiiHHIIiiII", header, w, h, 1, bits, compression, 0, 0, 0, 0, 0).ljust(header, b"\xff")
    return b"BM" + struct.pack("<IHHI", at + row * abs(h), 0, 0, at) + info + palette + body[:row * abs(h)]


for depth, colour in [(8, 0), (1, 0), (2, 0), (4, 0), (16, 0), (8, 2), (16, 2), (8, 4), (8, 6), (16, 6)]:
    seed("image", f"png-{colour}-{depth}", b"\4" + png(5, 6, depth, colour))
palette = chunk(b"PLTE", bytes(range(12)))
seed("image", "png-palette", b"\4" + png(5, 6, 8, 3, 0, palette + chunk(b"tRNS", b"\1\2")))
seed("image", "png-palette-2", b"\5" + png(5, 6, 2, 3, 0, palette))
seed("image", "png-interlaced", b"\6" + png(9, 10, 8, 2, 1, chunk(b"tRNS", bytes(6))))
for components in (1, 3, 4):
    for progressive in (False, True):
        seed("image", f"jpeg-{components}-{int(progressive)}", b"\0" + jpeg(20, 17, components, progressive))
seed("image", "jpeg-exif", b"\0" + jpeg(20, 17, 1, False, b"\xff\xe1\0\x22Exif\0\0" + tiff(6)))
seed("image", "jpeg-mjpeg", b"\0" + jpeg(20, 17, 3, False, b"", False))
seed("image", "png-exif", b"\4" + png(5, 6, 8, 2, 0, chunk(b"eXIf", tiff(8))))
seed("image", "png-apple", b"\4" + png(5, 6, 8, 6, 0, b"", True))
seed("image", "bmp-masks", b"\0" + bmp(5, 4, 16, 40, struct.pack("<III", 0xf800, 0x7e0, 0x1f), 3))
seed("image", "bmp-gap", b"\0" + bmp(5, -4, 24, 40, bytes(40)))
for bits, header in [(24, 40), (32, 40), (24, 12), (24, 64), (32, 108), (32, 124), (16, 40)]:
    seed("image", f"bmp-{bits}-{header}", b"\0" + bmp(5, 4, bits, header, b""))
seed("image", "bmp-8", b"\0" + bmp(5, -4, 8, 40, bytes(1024)))
seed("image", "bmp-4", b"\0" + bmp(5, 4, 4, 40, bytes(64)))
seed("image", "bmp-1", b"\0" + bmp(5, 4, 1, 40, bytes(8)))

header = b'{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"n":{"dtype":"I64","shape":[],"data_offsets":[16,24]}}'
seed("safetensors", "two", b"\0" + struct.pack("<Q", len(header)) + header + bytes(24))
seed("safetensors", "sealed", b"\1" + bytes(8) + header + b"\n" + bytes(24))
seed("safetensors", "escapes", b"\1" + bytes(8) + b'{"\\u00e9\\n\\ud83d\\ude00":{"dtype":"BF16","shape":[0,3],"data_offsets":[0,0]}}\n')
info = {"nn.trainer": "train_cnn", "nn.options": '{"net":"plain"}', "nn.input": "2x3x1", "nn.fit": "crop",
        "nn.classes": '["a","b"]', "nn.mean": "[0.5]", "nn.std": "[1]"}
seed("safetensors", "info", b"\1" + bytes(8) + json.dumps({"__metadata__": info}).encode() + b"\n")
seed("safetensors", "empty", b"\0" + struct.pack("<Q", 2) + b"{}")
seed("safetensors", "deep", b"\1" + bytes(8) + b'{"a":' + b"[" * 40 + b"1e5,-0,true,null" + b"]" * 40 + b"}\n")


def facts(classes, tested, h, w, c, filters, state):
    """A run's facts for its page, with a profile among them."""
    run = {"state": state, "live": True, "first_layer": "conv.weight",
           "data": {"source": "x", "embedded": False, "train": 9, "test": max(tested, 1), "height": h, "width": w,
                    "channels": c, "classes": [chr(97 + i % 26) for i in range(classes)]},
           "steps": 3, "step_ms": 2.5, "ceilings": {"gflop_per_s": 9},
           "operations": [{"operation": "linear", "layer": "a", "ms": 1, "flop": 8, "share": 0.4}]}
    summary = {"trainer": "t", "network": "n", "test_accuracy": 0.5, "seconds": {"compute": 1},
               "options": {"lr": 0.1, "data": None, "ema": True}}
    pictures = min(tested, 2)
    parts = [("test.probability", "F32", [tested], struct.pack("<f", 0.5) * tested),
             ("test.loss", "F32", [tested], struct.pack("<f", 2) * tested),
             ("mistakes.image", "U32", [pictures], struct.pack(f"<{pictures}I", *range(pictures))),
             ("filters", "F32", filters, b"".join(struct.pack("<f", i - 3) for i in range(math.prod(filters)))),
             ("test.label", "U16", [tested], struct.pack(f"<{tested}H", *[i % classes for i in range(tested)])),
             ("test.predicted", "U16", [tested], struct.pack(f"<{tested}H", *[i % 3 % classes for i in range(tested)])),
             ("summary", "U8", None, json.dumps(summary).encode()), ("run", "U8", None, json.dumps(run).encode()),
             ("mistakes.pixels", "U8", [pictures, h, w, c], bytes(range(pictures * h * w * c))),
             ("inputs", "U8", [1, h, w, c], bytes(range(h * w * c)))]
    header, at = {}, 0
    for name, dtype, shape, data in parts:
        header[name] = {"dtype": dtype, "shape": shape or [len(data)], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    return bytes(8) + text + b" " * (-len(text) % 4 + 3) + b"\n" + b"".join(data for _, _, _, data in parts)


seed("report", "two", facts(2, 5, 2, 3, 1, [3, 3, 3, 1], "Finished"))
seed("report", "colour", facts(3, 4, 4, 3, 3, [1, 1, 1, 3], "Running"))
seed("report", "many", facts(40, 30, 1, 70, 1, [0, 0, 0, 0], "<b>"))
seed("report", "untested", facts(2, 0, 1, 1, 4, [2, 1, 2, 4], ""))


def shard(n, h, w, c, classes, how):
    images = 2 << 20
    stride = h * w * c
    labels = [i % classes for i in range(n)]
    head = bytearray(256)
    head[:8] = b"\x89NNS\r\n\x1a\n"
    struct.pack_into("<IHHII", head, 8, 0x01020304, 1, 0, 4096, 0)
    struct.pack_into("<QQQQII", head, 24, images + n * stride, n, 0, n, 0, 1)
    struct.pack_into("<8I", head, 64, h, w, c, 1, 1, stride, 1, classes)
    struct.pack_into("<10Q", head, 96, images, n * stride, 4096, 2 * n, 8192, 2 * classes, 12288,
                     8 * classes, 16384, 4)
    struct.pack_into("<IIII", head, 176, 1, 1 << 20, 0, 0)
    used = range(4)
    struct.pack_into("<8f", head, 192, *[0.5 if k < c else 0 for k in used], *[0.25 if k < c else 1 for k in used])
    pixels = bytes(i % 251 for i in range(n * stride))
    parts = [struct.pack(f"<{n}H", *labels), b"".join(bytes([97 + k, 0]) for k in range(classes)),
             struct.pack(f"<{classes}Q", *[labels.count(k) for k in range(classes)]),
             struct.pack("<I", zlib.crc32(pixels))]
    return bytes([how]) + bytes(head) + b"".join(p.ljust(64, b"\0") for p in parts) + pixels


seed("shard", "grey", shard(3, 4, 5, 1, 2, 3))
seed("shard", "rgb", shard(5, 6, 7, 3, 3, 7))
seed("shard", "unsealed", shard(3, 4, 5, 1, 2, 0))


def idx(n, h, w, how, damage):
    images = struct.pack(">IIII", 0x803, n, h, w) + bytes(i % 256 for i in range(n * h * w))
    labels = struct.pack(">II", 0x801, n) + bytes(i % 10 for i in range(n))
    lengths = struct.pack("<HHH", len(images), len(labels), len(images))
    return bytes([how, damage]) + lengths + images + labels + images + labels


seed("idx", "plain", idx(10, 2, 3, 0, 0))
seed("idx", "gzip", idx(10, 2, 3, 15, 0))
seed("idx", "damaged", idx(10, 2, 3, 1, 30))
images = struct.pack(">IIII", 0x803, 2, 2, 2) + bytes(8)
packed = gzip.compress(images, mtime=0)
seed("idx", "packed", bytes([0, 0]) + struct.pack("<HHH", len(packed), 10, len(packed)) + packed +
     struct.pack(">II", 0x801, 2) + bytes(2) + packed + struct.pack(">II", 0x801, 2) + bytes(2))

names = b"\n".join(b"airplane automobile bird cat deer dog frog horse ship truck".split()) + b"\n"
seed("cifar", "10", b"\0" + b"".join(bytes([2, 0, k]) for k in range(6)) + names)
seed("cifar", "100", b"\1" + bytes([2, 0, 5]) * 6 + b"".join(b"fine%02d\r\n" % i for i in range(100)))
seed("cifar", "short", b"\0" + bytes([1, 7, 0]) * 6 + names)

seed("args", "good", b"a\n--flag\n--onoff\non\n--integer=7\n--real\n1e-3\n--string\nx\n--choice\nlinear\nb")
seed("args", "bad", b"--integr\n12abc\n--choice=consant")
seed("args", "augment", b"flip=alternate,translate=2,cutout=8,brightness=0.1,contrast=0.1")
seed("args", "help", b"--help\n-h\n--\n-")

# Folders: a line an entry, a letter for its kind; see folder.c.
seed("folder", "flat", b"f a/1.jpg\nf a/2.png\nf b/3.bmp\nf b/4.jpeg\n")
seed("folder", "split", b"f train/a/1.jpg\nf train/b/2.png\nf test/a/3.jpg\nf test/b/4.jpg\n")
seed("folder", "odd", b"f a/1.jpg\nl a/2.jpg\np a/3.jpg\nd a/4.jpg\nf b/\xff.jpg\nf b/x\t.jpg\nf b/.hidden\nf c\n")
