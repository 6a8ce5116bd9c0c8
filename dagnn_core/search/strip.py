"""The results of a search as one image."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from dagnn_core.search.index import Hit, SearchIndex
from dagnn_core.text import cell

SIDE = 240  # of a thumbnail's square, in pixels
CAPTION = 44
GAP = 8
COLUMNS = 5


def draw_strip(index: SearchIndex, hits: Sequence[Hit]) -> bytes:
    """Thumbnails of the results in rows, each with score and labels, as PNG; an item without an image shows its text.

    Args:
        index: the index.
        hits: the results, best first.
    """
    columns = min(COLUMNS, max(1, len(hits)))
    rows = max(1, -(-len(hits) // columns))
    images = [_opened(index.thumbnail(hit.row)) for hit in hits]
    side = max((SIDE if image is None else image.height for image in images), default=SIDE)
    sheet = Image.new("RGB", (columns * (SIDE + GAP) + GAP, rows * (side + CAPTION + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for place, (hit, image) in enumerate(zip(hits, images, strict=True)):
        left, top = GAP + place % columns * (SIDE + GAP), GAP + place // columns * (side + CAPTION + GAP)
        if image is None:
            draw.multiline_text((left, top), _wrapped(hit.text, font), fill="black", font=font)
        else:
            sheet.paste(image, (left + (SIDE - image.width) // 2, top + (side - image.height) // 2))
        lines = [_cut(cell(line), font) for line in (f"{hit.rank}  {hit.score:.3f}  {hit.id}", ", ".join(hit.labels))]
        draw.multiline_text((left, top + side + 4), "\n".join(lines), fill="#333333", font=font)
    stream = io.BytesIO()
    sheet.save(stream, format="PNG")
    return stream.getvalue()


def _opened(thumbnail: bytes | None) -> Image.Image | None:
    return None if thumbnail is None else Image.open(io.BytesIO(thumbnail), formats=("JPEG",))


def _cut(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(line) <= SIDE:
        return line
    while line and font.getlength(f"{line} ...") > SIDE:
        line = line[:-1]
    return f"{line} ..."


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= SIDE:
            lines[-1] = longer
        else:
            lines.append(_cut(word, font))
    return "\n".join(lines[:12])
