"""shapes.py OUT: pictures of four shapes in noise, 32x32, as BMP in folders for data/prepare.

OUT/grey has three equal channels, OUT/green one that is not zero, OUT/black nothing to see.
Each has 150 training and 60 test pictures of a class.
"""
import pathlib
import random
import struct
import sys

SIDE, COUNTS = 32, {"train": 150, "test": 60}


def inside(shape, u, v):
    """u and v from 0 to 1 within the shape's square, v downwards."""
    if shape == "square":
        return True
    if shape == "ellipse":
        return (2 * u - 1) ** 2 + (2 * v - 1) ** 2 <= 1
    if shape == "triangle":
        return abs(2 * u - 1) <= v
    return abs(u - v) < 0.12 or abs(u + v - 1) < 0.12  # a cross


def picture(r, shape):
    ground, ink, side = r.randrange(60), r.randrange(140, 255), r.randrange(10, 18)
    left, top = r.randrange(4, 12), r.randrange(4, 12)
    rows = []
    for y in range(SIDE):
        for x in range(SIDE):
            u, v = (x - left) / side, (y - top) / side
            drawn = 0 <= u <= 1 and 0 <= v <= 1 and inside(shape, u, v)
            rows.append(max(0, min(255, (ink if drawn else ground) + r.randrange(-20, 20))))
    return rows


def bmp(rows, channels):
    """Of one value a pixel; `channels` are the factors of blue, green and red. Lowest row first."""
    pixels = bytearray()
    for y in reversed(range(SIDE)):
        for value in rows[y * SIDE:(y + 1) * SIDE]:
            pixels += bytes(value * c for c in channels)
    return (struct.pack("<2sIHHI", b"BM", 54 + len(pixels), 0, 0, 54) +
            struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, len(pixels), 0, 0, 0, 0) + pixels)


def main():
    r, out = random.Random(0), pathlib.Path(sys.argv[1])
    sets = {"grey": (1, 1, 1), "green": (0, 1, 0), "black": (0, 0, 0)}
    for split, count in COUNTS.items():
        for shape in ("square", "ellipse", "triangle", "cross"):
            for i in range(count):
                rows = picture(r, shape)
                for name, channels in sets.items():
                    folder = out / name / split / shape
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / f"{i}.bmp").write_bytes(bmp(rows, channels))


if __name__ == "__main__":
    main()
