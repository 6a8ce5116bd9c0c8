"""Find the images of a folder that fit a text or an image, with a trained model.

python examples/query_folder.py artifacts/model FOLDER "a boat on the sea at night"
python examples/query_folder.py artifacts/model FOLDER --image boat.jpg     # the most similar images
"""

import argparse
import sys
from pathlib import Path

from dagnn_core import DagnnError, TrainedModel, rank_gallery

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")


def main() -> None:
    """Print the best images, the best first."""
    parser = argparse.ArgumentParser(description="Find the images of a folder that fit a text or an image.")
    parser.add_argument("model", type=Path, help="model artifact, such as artifacts/model")
    parser.add_argument("folder", type=Path, help="folder with images")
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("text", nargs="?", help="what the images show")
    query.add_argument("--image", type=Path, help="an image, instead of a text")
    parser.add_argument("--top", type=int, default=10, help="number of images to print")
    arguments = parser.parse_args()

    model = TrainedModel.read(arguments.model)
    paths = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f"{arguments.folder} has no images, expected {', '.join(SUFFIXES)}")
    gallery = model.encode_images([path.read_bytes() for path in paths])
    if arguments.image:
        embedding = model.encode_images([arguments.image.read_bytes()])
    else:
        embedding = model.encode_texts([arguments.text])
    [ranking] = rank_gallery(embedding, gallery)
    for index in ranking[: arguments.top]:
        print(paths[index])


if __name__ == "__main__":
    try:
        main()
    except DagnnError as error:  # one line that says what is wrong, and what to do
        sys.exit(f"error: {error}")
