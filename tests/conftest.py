"""Tiny models with random weights, saved as transformers saves them."""

import json
from functools import cache

import pytest

MAX_TOKENS = 12
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "boat", "sea", "on", "the")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = (*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>")

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}
TEXTS = {**SMALL, "vocab_size": len(WORDS), "max_position_embeddings": MAX_TOKENS}
CLIP_TEXTS = {**TEXTS, "vocab_size": len(PIECES), "bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53}
PROJECTED = {"projection_dim": 8}
SQUARE = {"height": 32, "width": 32}


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """The folder of a model, by its name."""
    import torch
    import transformers as hf
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    words = {word: row for row, word in enumerate(WORDS)}
    bert_words = hf.BertTokenizer(vocab=words, model_max_length=MAX_TOKENS)
    bare_words = hf.BertTokenizer(vocab=words, model_input_names=["input_ids", "attention_mask"])
    clip_pieces = hf.CLIPTokenizer(
        vocab={piece: row for row, piece in enumerate(PIECES)}, merges=[], model_max_length=MAX_TOKENS
    )
    vit_pixels = ViTImageProcessorPil(size=SQUARE)
    dino_pixels = BitImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})
    dino = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    resnet = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    t5 = {"vocab_size": len(WORDS), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    clip = {"text_config": CLIP_TEXTS | PROJECTED, "vision_config": VISION | PROJECTED}
    parts = {
        "vit": lambda: (hf.ViTModel(hf.ViTConfig(**VISION)), vit_pixels),
        "vit-classifier": lambda: (hf.ViTForImageClassification(hf.ViTConfig(**VISION)), vit_pixels),
        "vit-mae": lambda: (hf.ViTMAEModel(hf.ViTMAEConfig(**VISION)), vit_pixels),
        "dinov2": lambda: (hf.Dinov2Model(hf.Dinov2Config(**dino)), dino_pixels),
        "resnet": lambda: (
            hf.ResNetModel(hf.ResNetConfig(**resnet)),
            ConvNextImageProcessorPil(size={"shortest_edge": 32}),
        ),
        "clip": lambda: (
            hf.CLIPModel(hf.CLIPConfig(**clip, **PROJECTED)),
            CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SQUARE),
            clip_pieces,
        ),
        "chinese-clip": lambda: (
            hf.ChineseCLIPModel(hf.ChineseCLIPConfig(text_config=TEXTS, vision_config=VISION | PROJECTED, **PROJECTED)),
            vit_pixels,
            bert_words,
        ),
        "siglip": lambda: (
            hf.SiglipModel(hf.SiglipConfig(text_config=TEXTS, vision_config=VISION)),
            SiglipImageProcessorPil(size=SQUARE),
            bare_words,
        ),
        "bert": lambda: (hf.BertModel(hf.BertConfig(**TEXTS)), bert_words),
        "sentence-bert": lambda: (hf.BertModel(hf.BertConfig(**TEXTS)), bert_words),
        "roberta": lambda: (hf.RobertaModel(hf.RobertaConfig(**TEXTS | {"pad_token_id": 0})), bare_words),
        "t5": lambda: (hf.T5ForConditionalGeneration(hf.T5Config(**t5)), bare_words),
    }

    @cache
    def make(name):
        folder = tmp_path_factory.mktemp("models") / name
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for part in parts[name]():
                part.save_pretrained(folder)
        if name == "sentence-bert":
            (folder / "1_Pooling").mkdir()
            pooling = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
            (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        return folder

    return make
