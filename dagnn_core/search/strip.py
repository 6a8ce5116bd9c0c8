"""The results of a search as one image."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from dagnn_core.search.index import Hit, SearchIndex

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
    sheet = Image.new("RGB", (columns * (SIDE + GAP) + GAP, rows * (SIDE + CAPTION + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for place, hit in enumerate(hits):
        left, top = GAP + place % columns * (SIDE + GAP), GAP + place // columns * (SIDE + CAPTION + GAP)
        thumbnail = index.thumbnail(hit.row)
        if thumbnail is None:
            draw.multiline_text((left, top), _wrapped(hit.text, font), fill="black", font=font)
        else:
            image = Image.open(io.BytesIO(thumbnail), formats=("JPEG",))
            sheet.paste(image, (left + (SIDE - image.width) // 2, top + (SIDE - image.height) // 2))
        caption = f"{hit.rank}  {hit.score:.3f}  {hit.id}\n{', '.join(hit.labels)}"
        lines = [_cut(line, font) for line in caption.split("\n")]
        draw.multiline_text((left, top + SIDE + 4), "\n".join(lines), fill="#333333", font=font)
    stream = io.BytesIO()
    sheet.save(stream, format="PNG")
    return stream.getvalue()


def _cut(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    while line and font.getlength(line) > SIDE:
        line = line[:-1]
    return line


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= SIDE:
            lines[-1] = longer
        else:
            lines.append(_cut(word, font))
    return "\n".join(lines[:12])
