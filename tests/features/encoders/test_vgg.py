import io
import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from dagnn_core.config.features import FeaturesConfig
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.encoders import vgg
from dagnn_core.features.encoders.registry import load_image_encoder, open_image_backbone
from dagnn_core.features.encoders.vgg import Vgg19, VggBackbone, crop

NUM_PARAMETERS = 143_678_248  # torchvision's count, with the last layer of 1000 classes
LAST_LAYER = 4096 * 1000 + 1000
# configuration E: numbers of torchvision's convolutions in `features`, and their widths
CONVOLUTIONS = {
    **{0: 64, 3: 64},
    **{7: 128, 10: 128},
    **{14: 256, 17: 256, 20: 256, 23: 256},
    **{27: 512, 30: 512, 33: 512, 36: 512},
    **{40: 512, 43: 512, 46: 512, 49: 512},
}


def make_image(seed=0, size=(60, 40), file_format="PNG", **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(file, file_format, **options)
    return file.getvalue()


@pytest.fixture
def narrow(monkeypatch):
    """A network of the same depth and with the same names, small enough to be quick."""
    monkeypatch.setattr(vgg, "CHANNELS", tuple(4 if isinstance(entry, int) else entry for entry in vgg.CHANNELS))
    monkeypatch.setattr(vgg, "DIM", 24)
    monkeypatch.setattr(VggBackbone, "dim", 24)


def torchvision_state(seed=0):
    """Weights as torchvision's file has them: with the last layer, without counters of batches."""
    torch.manual_seed(seed)
    network = Vgg19()
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.5, 0.5)
            nn.init.uniform_(part.running_var, 0.5, 2)
    state = {name: value for name, value in network.state_dict().items() if "num_batches_tracked" not in name}
    return state | {"classifier.6.weight": torch.zeros(5, vgg.DIM), "classifier.6.bias": torch.zeros(5)}


@pytest.fixture
def weights(narrow, tmp_path):
    path = tmp_path / "vgg19_bn.pth"
    torch.save(torchvision_state(), path)
    return path


def open_backbone(path, *, store=True):
    return open_image_backbone(FeaturesConfig(image="vgg19_bn", image_model=str(path), store_backbone=store))


def test_architecture_is_configuration_e_with_the_names_of_torchvision():
    with torch.device("meta"):
        network = Vgg19()
    assert sum(parameter.numel() for parameter in network.parameters()) + LAST_LAYER == NUM_PARAMETERS
    convolutions = {int(name): part for name, part in network.features.named_children() if isinstance(part, nn.Conv2d)}
    assert {number: part.out_channels for number, part in convolutions.items()} == CONVOLUTIONS
    assert all(part.kernel_size == (3, 3) and part.padding == (1, 1) for part in convolutions.values())
    assert all(isinstance(network.features[number + 1], nn.BatchNorm2d) for number in convolutions)
    assert all(isinstance(network.features[number + 2], nn.ReLU) for number in convolutions)
    pools = [int(name) for name, part in network.features.named_children() if isinstance(part, nn.MaxPool2d)]
    assert pools == [6, 13, 26, 39, 52]
    names = {name for name in network.state_dict() if name.startswith("classifier")}
    assert names == {f"classifier.{number}.{part}" for number in (0, 3) for part in ("weight", "bias")}
    assert network(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 4096)


def test_the_vector_is_the_second_fully_connected_layer_after_its_relu(weights):
    backbone = open_backbone(weights)
    vectors = backbone.encode([make_image(0), make_image(1)])
    assert vectors.dtype == np.float32
    state = torch.load(weights, weights_only=True)
    x = torch.from_numpy(np.stack([crop(make_image(0)), crop(make_image(1))])).float() / 255
    x = (x - torch.tensor(vgg.MEAN)[:, None, None]) / torch.tensor(vgg.DEVIATION)[:, None, None]
    for number in range(53):
        name = f"features.{number}"
        if f"{name}.running_mean" in state:
            moments = (state[f"{name}.running_mean"], state[f"{name}.running_var"])
            x = nn.functional.batch_norm(x, *moments, state[f"{name}.weight"], state[f"{name}.bias"]).relu()
        elif f"{name}.weight" in state:
            x = nn.functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
        elif number in (6, 13, 26, 39, 52):
            x = nn.functional.max_pool2d(x, 2)
    x = x.flatten(1)
    for number in (0, 3):
        x = (x @ state[f"classifier.{number}.weight"].T + state[f"classifier.{number}.bias"]).relu()
    np.testing.assert_allclose(vectors, x.numpy(), rtol=1e-4, atol=1e-6)
    assert (vectors >= 0).all()
    assert np.ptp(vectors, axis=0).max() > 0


@settings(max_examples=15, deadline=None)
@given(width=st.integers(40, 700), height=st.integers(40, 700))
def test_pixels_are_those_of_the_usual_transform(width, height):
    """Against the processor of transformers for the same recipe: resize to 256, cut out 224."""
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    encoded = make_image(3, (width, height))
    processor = BitImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, resample=2)
    expected = processor(Image.open(io.BytesIO(encoded)), do_rescale=False, do_normalize=False, return_tensors="np")
    pixels = crop(encoded)
    assert pixels.dtype == np.uint8
    if (max(width, height) * 256 // min(width, height) - 224) % 2 == 0:  # transformers rounds half pixels otherwise
        np.testing.assert_array_equal(pixels, expected["pixel_values"][0])
    else:
        assert pixels.shape == expected["pixel_values"][0].shape == (3, 224, 224)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3000, 2000)])
def test_images_of_all_sizes_are_cut(size):
    assert crop(make_image(0, size)).shape == (3, 224, 224)


@pytest.mark.parametrize("store", [True, False])
def test_a_saved_encoder_gives_equal_vectors(weights, tmp_path, store):
    backbone = open_backbone(weights, store=store)
    (tmp_path / "saved").mkdir()
    backbone.save(tmp_path / "saved")
    if store:
        weights.unlink()
    loaded = load_image_encoder(tmp_path / "saved")
    assert (loaded.kind, loaded.dim, loaded.identity) == ("vgg19_bn", 24, backbone.identity)
    # not to the bit: sums go in another order where a matrix lies at another address
    np.testing.assert_allclose(loaded.encode([make_image()]), backbone.encode([make_image()]), rtol=1e-5)
    files = {path.name for path in (tmp_path / "saved").iterdir()}
    assert files == ({"encoder.json", "model.safetensors"} if store else {"encoder.json"})
    (tmp_path / "again").mkdir()
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / "encoder.json").read_text() == (tmp_path / "saved" / "encoder.json").read_text()


def test_safetensors_with_counters_are_read_as_well(weights, tmp_path):
    state = torchvision_state() | {"features.1.num_batches_tracked": torch.tensor(7)}
    save_file(state, tmp_path / "vgg.safetensors")
    vectors = open_backbone(tmp_path / "vgg.safetensors").encode([make_image()])
    np.testing.assert_allclose(vectors, open_backbone(weights).encode([make_image()]), rtol=1e-5)


def test_preprocessing_goes_to_other_processes(weights):
    preprocess = open_backbone(weights).preprocess
    assert len(pickle.dumps(preprocess)) < 200
    with pytest.raises(InputError, match=r"cannot be decoded"):
        preprocess(b"no image")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("features.7.weight"), r"features.7.weight is missing, expected \[4, 4, 3, 3\] as in"),
        (
            lambda state: state.update({"features.0.weight": torch.zeros(4, 3, 5, 5)}),
            r"features.0.weight is \[4, 3, 5, 5\], expected \[4, 3, 3, 3\] as in torchvision's weights of vgg19_bn",
        ),
        (
            lambda state: state.update({"features.53.weight": torch.zeros(4)}),
            r"features.53.weight is \[4\], expected no such weight as in",
        ),
    ],
)
def test_other_weights_are_refused(weights, change, message):
    state = torch.load(weights, weights_only=True)
    change(state)
    torch.save(state, weights)
    with pytest.raises(InputError, match=message):
        open_backbone(weights)


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    "content",
    [b"", b"no weights", pickle.dumps(Evil(), protocol=2), b"PK\x03\x04"],
    ids=["empty", "text", "code", "zip"],
)
def test_files_that_are_no_weights_are_refused(narrow, tmp_path, capsys, content):
    path = tmp_path / "vgg.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"vgg.pth cannot be read as weights \(.+\), expected torchvision's") as raised:
        open_backbone(path)
    assert "\n" not in str(raised.value)
    assert capsys.readouterr().out == ""


def test_missing_and_changed_weights_are_named(weights, tmp_path):
    with pytest.raises(InputError, match=r"features.image_model is 'nowhere.pth', but there is no such file.*correct"):
        open_backbone("nowhere.pth")
    (tmp_path / "saved").mkdir()
    open_backbone(weights, store=False).save(tmp_path / "saved")
    torch.save(torchvision_state(1), weights)
    with pytest.raises(ArtifactError, match=r"encoder.json names the weights .*, which are no longer the same"):
        load_image_encoder(tmp_path / "saved")
    path = tmp_path / "saved" / "encoder.json"
    path.write_text(json.dumps({"kind": "vgg19_bn", "weights": 1}))
    with pytest.raises(ArtifactError, match=r"encoder.json is damaged, expected `weights` and `digest`"):
        load_image_encoder(tmp_path / "saved")


@pytest.mark.slow
def test_the_full_network_encodes_and_is_stored(tmp_path):
    torch.save(torchvision_state(), tmp_path / "vgg.pth")
    backbone = open_backbone(tmp_path / "vgg.pth")
    vectors = backbone.encode([make_image(0), make_image(1)])
    assert vectors.shape == (2, 4096)
    (tmp_path / "saved").mkdir()
    backbone.save(tmp_path / "saved")
    stored = load_file(tmp_path / "saved" / "model.safetensors")
    num_kept = sum(v.numel() for name, v in stored.items() if "running" not in name and "tracked" not in name)
    assert num_kept == NUM_PARAMETERS - LAST_LAYER
    loaded = load_image_encoder(tmp_path / "saved")
    np.testing.assert_allclose(loaded.encode([make_image(0), make_image(1)]), vectors, rtol=1e-3, atol=1e-5)
