"""Make a SegFormer with a last layer fitted to the synthetic street, as ONNX with the card that vidseg needs beside it.

pip install transformers onnxscript
python examples/segformer_to_onnx.py b0 segformer-b0.onnx
vidseg bench --weights segformer-b0.onnx

Its encoder and decoder are random (seed 0), so no weights are fetched and nothing can be gained by it but speed: put
`SegformerForSemanticSegmentation.from_pretrained(DIR)` in the place of `untrained` for a network of yours.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from torch.nn import functional as F
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from vidseg_core import load_classes, open_source

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, of values 0..255
SIZES = {
    "b0": {},
    "b2": {"depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768},
}
STREETS, FRAMES = range(1000, 1012), 2
STEPS, BATCH, PULL = 1500, 4096, 1e-4


def untrained(size, num_classes):
    torch.manual_seed(0)
    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=num_classes, **SIZES[size])).eval()


def pixels(image):
    return ((torch.from_numpy(image).float() - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)[None]


def streets(width, height):
    """Yield pictures and labels; seeds from 1000 on are for training."""
    for seed in STREETS:
        yield from open_source(f"street:seed={seed},size={width}x{height},rate=1,frames={FRAMES}")


@torch.no_grad()
def settle(model, images):
    """Give batch normalisation the statistics of pictures, as training would."""
    norm = model.decode_head.batch_norm.train()
    norm.reset_running_stats()
    norm.momentum = None
    for image in images:
        model(pixels(image))
    norm.eval()


def fit(model, frames, num_classes):
    """Fit the last layer, a convolution of 1 x 1, to labels: logistic regression on what it is given."""
    given, truth = [], []
    hook = model.decode_head.classifier.register_forward_pre_hook(lambda _, x: given.append(x[0].half()))
    with torch.no_grad():
        for frame in frames:
            model(pixels(frame.image))
            height, width = given[-1].shape[2:]
            given[-1] = given[-1][0].flatten(1).T  # pixels x channels
            truth.append(cv2.resize(frame.labels, (width, height), interpolation=cv2.INTER_NEAREST).ravel())
    hook.remove()
    inputs, labels = torch.cat(given), torch.from_numpy(np.concatenate(truth)).long()
    known = labels < num_classes
    inputs, labels = inputs[known], labels[known]
    mean, std = inputs.float().mean(0), inputs.float().std(0) + 1e-6
    layer = torch.nn.Linear(inputs.shape[1], num_classes)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=3e-3, weight_decay=PULL)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(len(labels), (BATCH,))
        loss = F.cross_entropy(layer((inputs[chosen].float() - mean) / std), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        classifier = model.decode_head.classifier
        weight = layer.weight / std
        classifier.weight.copy_(weight[:, :, None, None])
        classifier.bias.copy_(layer.bias - weight @ mean)
    return loss.item()


class Logits(torch.nn.Module):
    """Give the scores alone, which is what ONNX can say."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, picture):
        return self.model(picture).logits


def main(size: str, target: str, width: str = "1024", height: str = "512") -> None:
    classes = load_classes("camvid")
    shape = int(width), int(height)
    model = untrained(size, len(classes))
    frames = list(streets(*shape))
    settle(model, [frame.image for frame in frames[::6]])
    loss = fit(model, frames, len(classes))
    example = torch.zeros(1, 3, shape[1], shape[0])
    path = Path(target)
    torch.onnx.export(Logits(model).eval(), (example,), str(path), input_names=["picture"], output_names=["logits"],
                      external_data=False, verbose=False)  # fmt: skip
    card = {"classes": "camvid", "input": {"mean": list(MEAN), "std": list(STD)}, "output": {"corners": "half_pixel"}}
    path.with_suffix(".card.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    print(f"{path}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} million numbers, loss {loss:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
