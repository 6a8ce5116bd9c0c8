import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dagnn_core.config.features import FeaturesConfig
from dagnn_core.errors import ArtifactError, BackendError, InputError
from dagnn_core.features.encoders.registry import (
    load_image_encoder,
    load_text_encoder,
    open_image_backbone,
    open_text_backbone,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
VISION = ["vit", "dinov2", "resnet", "clip", "siglip", "chinese-clip"]
TEXT = ["bert", "sentence-bert", "roberta", "t5", "clip", "siglip", "chinese-clip"]
SENTENCES = ["a red boat", "the sea", "a blue boat on the red sea", ""]


def make_image(seed=0, size=(60, 40), file_format="PNG", colours=256):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, colours, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(file, file_format)
    return file.getvalue()


IMAGES = [make_image(0), make_image(1, (40, 70)), make_image(2, (33, 33), "JPEG")]


def open_images(folder, pooling="auto", *, revision="", store=True):
    return open_image_backbone(
        FeaturesConfig(
            image="huggingface",
            image_model=str(folder),
            image_revision=revision,
            image_pooling=pooling,
            store_backbone=store,
        )
    )


def open_texts(folder, pooling="auto", *, revision="", store=True):
    return open_text_backbone(
        FeaturesConfig(
            text="huggingface",
            text_model=str(folder),
            text_revision=revision,
            text_pooling=pooling,
            store_backbone=store,
        )
    )


OPEN = {"image": open_images, "text": open_texts}


@pytest.fixture
def copy_of(model_folder, tmp_path):
    """A copy of a model's folder, to be spoiled."""
    return lambda name: shutil.copytree(model_folder(name), tmp_path / name)


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@torch.inference_mode()
def directly(folder, model_class="AutoModel"):
    """The outputs of transformers for IMAGES."""
    import transformers

    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    images = [Image.open(io.BytesIO(encoded)).convert("RGB") for encoded in IMAGES]
    model = getattr(transformers, model_class).from_pretrained(folder).eval()
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    return model.get_image_features(pixels) if hasattr(model, "get_image_features") else model(pixels)


@pytest.mark.parametrize(
    ("name", "pooling", "expected"),
    [
        ("vit", "auto", lambda outputs: outputs.pooler_output),
        ("vit", "cls", lambda outputs: outputs.last_hidden_state[:, 0]),
        ("vit", "mean", lambda outputs: outputs.last_hidden_state.mean(1)),
        ("vit-classifier", "auto", lambda outputs: outputs.last_hidden_state.mean(1)),
        ("dinov2", "auto", lambda outputs: outputs.last_hidden_state[:, 0]),
        ("resnet", "auto", lambda outputs: outputs.last_hidden_state.mean((2, 3))),
        ("resnet", "mean", lambda outputs: outputs.last_hidden_state.mean((2, 3))),
        ("clip", "auto", lambda outputs: outputs.pooler_output),
        ("clip", "projection", lambda outputs: outputs.pooler_output),
        ("clip", "cls", lambda outputs: outputs.last_hidden_state[:, 0]),
        ("siglip", "auto", lambda outputs: outputs.pooler_output),
        ("siglip", "mean", lambda outputs: outputs.last_hidden_state.mean(1)),
        ("chinese-clip", "auto", lambda outputs: outputs.pooler_output),
    ],
)
def test_image_vectors_are_those_of_transformers(model_folder, name, pooling, expected):
    backbone = open_images(model_folder(name), pooling)
    vectors = backbone.encode(IMAGES)
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, backbone.dim)
    np.testing.assert_allclose(vectors, expected(directly(model_folder(name))).numpy(), atol=1e-6)
    assert np.ptp(vectors, axis=0).max() > 1e-3


@torch.inference_mode()
def read_directly(folder, name):
    """The outputs of transformers for SENTENCES, one by one and without padding, but for SigLIP."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model_class = transformers.T5EncoderModel if name == "t5" else transformers.AutoModel
    model = model_class.from_pretrained(folder).eval()
    forward = getattr(model, "get_text_features", model)
    if name == "siglip":
        inputs = [tokenizer(text, padding="max_length", max_length=12, return_tensors="pt") for text in SENTENCES]
        return [forward(input_ids=entry["input_ids"]) for entry in inputs], [
            entry["attention_mask"] for entry in inputs
        ]
    inputs = [tokenizer(text, truncation=True, max_length=12, return_tensors="pt") for text in SENTENCES]
    return [forward(**entry) for entry in inputs], [entry["attention_mask"] for entry in inputs]


@pytest.mark.parametrize(
    ("name", "pooling", "expected"),
    [
        ("bert", "auto", "pooler"),
        ("bert", "cls", "cls"),
        ("bert", "mean", "mean"),
        ("sentence-bert", "auto", "mean"),
        ("roberta", "auto", "pooler"),
        ("t5", "auto", "mean"),
        ("clip", "auto", "pooler"),
        ("clip", "mean", "mean"),
        ("siglip", "auto", "pooler"),
        ("siglip", "mean", "mean"),
        ("chinese-clip", "projection", "pooler"),
    ],
)
def test_text_vectors_are_those_of_transformers_whatever_the_padding(model_folder, name, pooling, expected):
    vectors = open_texts(model_folder(name), pooling).encode(SENTENCES)
    for vector, outputs, mask in zip(vectors, *read_directly(model_folder(name), name), strict=True):
        hidden = outputs.last_hidden_state[0]
        wanted = {
            "pooler": lambda outputs=outputs: outputs.pooler_output[0],
            "cls": lambda hidden=hidden: hidden[0],
            "mean": lambda hidden=hidden, mask=mask: hidden[mask[0] == 1].mean(0),
        }[expected]()
        np.testing.assert_allclose(vector, wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", TEXT)
def test_long_texts_are_cut_off_at_the_maximum(model_folder, name):
    backbone = open_texts(model_folder(name))
    long, longer = backbone.encode(["a red boat " * 300, "a red boat " * 400])
    np.testing.assert_allclose(long, longer, atol=1e-6)
    assert np.isfinite(long).all()


@pytest.mark.parametrize(
    ("modality", "name"), [*(("image", name) for name in VISION), *(("text", name) for name in TEXT)]
)
@pytest.mark.parametrize("store", [True, False])
def test_a_saved_encoder_gives_equal_bits(copy_of, tmp_path, modality, name, store):
    folder = copy_of(name)
    backbone = OPEN[modality](folder, store=store)
    items = IMAGES if modality == "image" else SENTENCES
    (tmp_path / "saved").mkdir()
    backbone.save(tmp_path / "saved")
    if store:
        shutil.rmtree(folder)
    load = load_image_encoder if modality == "image" else load_text_encoder
    loaded = load(tmp_path / "saved")
    assert (loaded.kind, loaded.dim, loaded.identity) == ("huggingface", backbone.dim, backbone.identity)
    assert loaded.encode(items).tobytes() == backbone.encode(items).tobytes()
    files = {path.name for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    if not store:
        assert files == {"encoder.json"}
    elif modality == "image":
        assert files == {"encoder.json", "config.json", "model.safetensors", "preprocessor_config.json"}
    (tmp_path / "again").mkdir()
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / "encoder.json").read_text() == (tmp_path / "saved" / "encoder.json").read_text()


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_half_of_a_clip_like_model_is_kept(model_folder, tmp_path, name):
    kept = {}
    for modality, other in (("image", "text"), ("text", "vision")):
        (tmp_path / modality).mkdir()
        backbone = OPEN[modality](model_folder(name))
        backbone.save(tmp_path / modality)
        kept[modality] = set(load_file(tmp_path / modality / "model.safetensors"))
        assert not any(key.startswith(other) for key in kept[modality])
        assert sum(value.numel() for value in backbone._network.module.parameters()) == sum(
            value.numel() for value in load_file(tmp_path / modality / "model.safetensors").values()
        )
    whole = set(load_file(model_folder(name) / "model.safetensors"))
    assert whole - kept["image"] - kept["text"] <= {"logit_scale", "logit_bias"}


def test_weights_in_several_files_are_stored(model_folder, tmp_path):
    import transformers

    network = transformers.AutoModel.from_pretrained(model_folder("clip"))
    parts = shutil.copytree(model_folder("clip"), tmp_path / "parts")
    (parts / "model.safetensors").unlink()
    network.save_pretrained(parts, max_shard_size="20KB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    expected = open_images(model_folder("clip")).encode(IMAGES)
    (tmp_path / "saved").mkdir()
    open_images(parts).save(tmp_path / "saved")
    shutil.rmtree(parts)
    assert load_image_encoder(tmp_path / "saved").encode(IMAGES).tobytes() == expected.tobytes()


def test_identity_is_that_of_the_content(model_folder, copy_of):
    vit = copy_of("vit")
    first = open_images(model_folder("vit")).identity
    (vit / "README.md").write_text("about")
    assert open_images(vit).identity == first
    assert first["kind"] == "huggingface"
    seen = [first, open_images(vit, "mean").identity]
    edit_json(vit / "preprocessor_config.json", image_mean=[0.4, 0.4, 0.4])
    seen.append(open_images(vit).identity)
    weights = load_file(vit / "model.safetensors")
    weights["layernorm.bias"] += 1
    save_file(weights, vit / "model.safetensors", metadata={"format": "pt"})
    seen.append(open_images(vit).identity)
    assert len({json.dumps(identity) for identity in seen}) == 4


def test_what_prepares_images_goes_to_other_processes_without_the_network(model_folder):
    preprocess = open_images(model_folder("vit")).preprocess
    pickled = pickle.dumps(preprocess)
    assert len(pickled) < 2000
    np.testing.assert_array_equal(pickle.loads(pickled)(IMAGES[0]), preprocess(IMAGES[0]))


def test_a_large_photo_is_decoded_at_a_fraction_and_looks_the_same(model_folder):
    backbone = open_images(model_folder("vit"))
    assert backbone.preprocess.at_least == 64
    small, large = (backbone.preprocess(make_image(3, size, "JPEG")) for size in ((120, 80), (1200, 800)))
    assert np.abs(small - large).mean() < 0.03
    assert small.dtype == np.float32


def test_numbers_of_images_in_messages_and_batches(model_folder, monkeypatch):
    monkeypatch.setattr("dagnn_core.features.encoders.backbone.BATCH_IMAGES", 2)
    backbone = open_images(model_folder("vit"))
    together = backbone.encode(IMAGES)
    np.testing.assert_allclose(together[2], backbone.encode(IMAGES[2:])[0], atol=1e-6)
    assert backbone.encode([]).shape == (0, backbone.dim)
    with pytest.raises(InputError, match=r"^image 3 cannot be decoded"):
        backbone.encode([*IMAGES[:2], b"no image"])


def test_texts_go_through_in_batches(model_folder, monkeypatch):
    backbone = open_texts(model_folder("bert"), "mean")
    together = backbone.encode(SENTENCES)
    monkeypatch.setattr("dagnn_core.features.encoders.huggingface.BATCH_TEXTS", 1)
    np.testing.assert_allclose(backbone.encode(SENTENCES), together, atol=1e-6)
    assert backbone.encode([]).shape == (0, 16)


def test_nothing_is_said_where_nothing_is_wrong(model_folder, capfd):
    image_model, text_model = model_folder("vit-classifier"), model_folder("clip")
    capfd.readouterr()  # writing a model prints
    open_images(image_model).encode(IMAGES)
    open_texts(text_model).encode(SENTENCES)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_the_library_is_imported_only_where_a_model_is_opened():
    late = "'transformers' in sys.modules or 'huggingface_hub' in sys.modules"
    code = f"import sys, dagnn_core.model.embedder; sys.exit({late})"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})


@pytest.mark.parametrize(
    ("modality", "name", "pooling", "message"),
    [
        ("image", "vit", "projection", r"image_pooling is projection, which .*vit \(vit\) does not have.*: cls, mean"),
        ("image", "resnet", "cls", r"image_pooling is cls, which .* does not have; set it to auto or one of: mean"),
        ("image", "siglip", "cls", r"image_pooling is cls, which .* does not have.* one of: mean, projection"),
        ("text", "clip", "cls", r"text_pooling is cls, which .* does not have.* one of: mean, projection"),
        ("text", "bert", "projection", r"text_pooling is projection, which .* does not have"),
        ("image", "vit-mae", "auto", r"\(vit_mae\) gives the same image another vector each time"),
        ("image", "bert", "auto", r"bert is not a vision or CLIP-like model; correct features.image_model"),
        ("text", "resnet", "auto", r"resnet is not a text or CLIP-like model; correct features.text_model"),
    ],
)
def test_models_and_poolings_that_do_not_fit_are_refused(model_folder, modality, name, pooling, message):
    with pytest.raises(InputError, match=message):
        OPEN[modality](model_folder(name), pooling)


def only_pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights[next(name for name in weights if name.endswith("0.attention.attention.key.weight") or "query" in name)]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def wrong_shape(folder):
    edit_json(folder / "config.json", intermediate_size=48)


SPOILED = {
    "no folder": (
        "image",
        "vit",
        shutil.rmtree,
        r"features.image_model is '.*vit', but there is no such folder; .* commit in features.image_revision",
    ),
    "no config": (
        "image",
        "vit",
        lambda folder: (folder / "config.json").unlink(),
        r"vit has no config.json: not a model",
    ),
    "damaged config": (
        "image",
        "vit",
        lambda folder: (folder / "config.json").write_text("{"),
        r"config.json cannot be read .*, expected a JSON object",
    ),
    "list as config": (
        "image",
        "vit",
        lambda folder: (folder / "config.json").write_text("[]"),
        r"config.json is damaged, expected a JSON object",
    ),
    "unknown type": (
        "image",
        "vit",
        lambda folder: edit_json(folder / "config.json", model_type="novel"),
        r"config.json names no model that transformers knows \(.*novel",
    ),
    "code of its own": (
        "text",
        "bert",
        lambda folder: edit_json(folder / "config.json", auto_map={"AutoModel": "modeling.Evil"}),
        r"config.json: this model brings program code of its own \(auto_map\), which is never run",
    ),
    "pickled weights": (
        "image",
        "vit",
        only_pickled,
        r"vit has no model.safetensors .*read as safetensors alone, never pickled \(.bin\); convert",
    ),
    "no weights": (
        "text",
        "bert",
        lambda folder: (folder / "model.safetensors").unlink(),
        r"bert has no model.safetensors or .*: weights are read as safetensors",
    ),
    "cut weights": (
        "image",
        "clip",
        truncate,
        r"clip: the model cannot be loaded \(.*\); choose another model, or get its files again",
    ),
    "a weight lacking": (
        "image",
        "vit",
        without_weight,
        r"vit: the weights lack 1 that the model needs, such as .*random",
    ),
    "another shape": ("text", "bert", wrong_shape, r"bert: the model cannot be loaded \("),
    "nonsense in config": (
        "image",
        "vit",
        lambda folder: edit_json(folder / "config.json", hidden_size="wide"),
        r"names no model that transformers knows \(|the model cannot be loaded \(",
    ),
    "no processor": (
        "image",
        "vit",
        lambda folder: (folder / "preprocessor_config.json").unlink(),
        r"vit has no preprocessor_config.json or processor_config.json: .* save the image processor there",
    ),
    "unknown processor": (
        "image",
        "vit",
        lambda folder: (folder / "preprocessor_config.json").write_text('{"image_processor_type": "Novel"}'),
        r"vit: the image processor (cannot be loaded|fails on an image) \(",
    ),
    "images of any size": (
        "image",
        "dinov2",
        lambda folder: edit_json(folder / "preprocessor_config.json", do_center_crop=False),
        r"dinov2: the processor leaves images in different sizes, expected one size",
    ),
    "images of the wrong size": (
        "image",
        "vit",
        lambda folder: edit_json(folder / "preprocessor_config.json", size={"height": 40, "width": 40}),
        r"vit: the model \(vit\) cannot embed what its own preparation makes of an image \(.*40",
    ),
    "no tokenizer": (
        "text",
        "bert",
        lambda folder: [(folder / name).unlink(missing_ok=True) for name in ("vocab.txt", "tokenizer.json")],
        r"bert has no tokenizer.json or vocab.txt or .*save the tokenizer there",
    ),
    "damaged tokenizer": (
        "text",
        "bert",
        lambda folder: (folder / "tokenizer.json").write_text("{"),
        r"bert: the tokenizer cannot be loaded \(",
    ),
    "no padding": (
        "text",
        "bert",
        lambda folder: edit_json(folder / "tokenizer_config.json", pad_token=None),
        r"bert: the tokenizer has no padding token",
    ),
    "more words than vectors": (
        "text",
        "bert",
        lambda folder: edit_json(
            folder / "tokenizer_config.json", extra_special_tokens=["[NEW]"], additional_special_tokens=["[NEW]"]
        ),
        r"bert: the tokenizer has 13 words, the model vectors for 12",
    ),
    "unknown sentence pooling": (
        "text",
        "sentence-bert",
        lambda folder: (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}'),
        r"1_Pooling/config.json: expected one of cls and mean as pooling; set features.text_pooling",
    ),
}


@pytest.mark.parametrize(("modality", "name", "change", "message"), SPOILED.values(), ids=SPOILED)
def test_what_cannot_be_used_is_refused_in_one_line(copy_of, modality, name, change, message):
    folder = copy_of(name)
    change(folder)
    with pytest.raises(InputError, match=message) as raised:
        OPEN[modality](folder)
    assert "\n" not in str(raised.value)


def test_a_network_that_is_not_stored_must_stay_the_same(copy_of, tmp_path):
    folder = copy_of("vit")
    (tmp_path / "saved").mkdir()
    open_images(folder, store=False).save(tmp_path / "saved")
    edit_json(folder / "preprocessor_config.json", image_mean=[0.4, 0.4, 0.4])
    with pytest.raises(ArtifactError, match=r"encoder.json names the model .*vit, whose files .* no longer the same"):
        load_image_encoder(tmp_path / "saved")
    shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"'.*vit', but there is no such folder"):
        load_image_encoder(tmp_path / "saved")


@pytest.mark.parametrize("change", [{"model": 1}, {"digest": None}, {"pooling": "max"}])
def test_a_damaged_state_is_refused(model_folder, tmp_path, change):
    open_images(model_folder("vit")).save(tmp_path)
    edit_json(tmp_path / "encoder.json", **change)
    with pytest.raises(ArtifactError, match=r"encoder.json is damaged, expected `model`"):
        load_image_encoder(tmp_path)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty cache of the hub, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_model_in_the_cache_of_the_hub_needs_no_network(model_folder, hub, tmp_path):
    shutil.copytree(model_folder("vit"), hub / "models--owner--vit" / "snapshots" / COMMIT)
    backbone = open_images("owner/vit", revision=COMMIT, store=False)
    assert backbone.identity == open_images(model_folder("vit")).identity
    backbone.save(tmp_path)
    state = json.loads((tmp_path / "encoder.json").read_text())
    assert (state["model"], state["revision"]) == ("owner/vit", COMMIT)
    assert load_image_encoder(tmp_path).encode(IMAGES).tobytes() == backbone.encode(IMAGES).tobytes()


def test_the_unreachable_hub_is_named(hub):
    with pytest.raises(BackendError, match=r"owner/vit cannot be fetched from the Hugging Face hub \(.*; check"):
        open_images("owner/vit", revision=COMMIT)


def test_a_hub_model_needs_its_commit():
    with pytest.raises(InputError, match=r"no such folder.*for a model of the Hugging Face hub give its commit in"):
        open_texts("sentence-transformers/all-MiniLM-L6-v2")
    with pytest.raises(InputError, match=r"'not/a/hub/id' is not the id of a hub model, expected owner/name"):
        open_texts("not/a/hub/id", revision=COMMIT)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("RepoNotFound", r"the hub has no model 'owner/vit', or does not give it to you; .*`hf auth login`"),
        ("GatedRepo", r"the hub has no model 'owner/vit', or does not give it to you"),
        ("RevisionNotFound", rf"the hub's model owner/vit has no commit {COMMIT}"),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub, monkeypatch, code, message):
    from huggingface_hub import constants

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        with pytest.raises(InputError, match=message):
            open_images("owner/vit", revision=COMMIT)
    finally:
        server.shutdown()
        server.server_close()
