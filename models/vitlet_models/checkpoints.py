"""Weights: from the official releases, timm and torchvision, or random ones.

The networks' own keys are the official code's, so an official state dict needs no map. Key maps of timm and
torchvision: spec pvtv2 §3, swin §3. Nobody else publishes SepViT or Dual-ViT weights.
"""

import argparse
import re
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

# How files wrap the state dict: training scripts of PVTv2, Swin, SepViT; of Dual-ViT (spec dualvit §3).
WRAPPERS = ("model", "state_dict")


class CheckpointError(ValueError):
    """A file's weights do not fit the network."""


def read(path):
    """The state dict in a `.pth`, `.pt`, `.bin` or `.safetensors` file, unwrapped. Runs no code from the file."""
    path = Path(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = read_whole(path)
    try:
        return unwrap(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def read_whole(path):
    """All that PyTorch saved in a file. Runs no code from it."""
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        # Training scripts store their arguments beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the file's damage leads to
        raise CheckpointError(f"{path}: not a file of weights alone, or damaged: {error}") from error


def _read_safetensors(path):
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(f"{path}: reading this needs the package safetensors (pip install safetensors)") from error
    return load_file(path)


def unwrap(content):
    """The state dict within the dictionaries that training scripts put around it."""
    for _ in WRAPPERS:
        inner = next((content[key] for key in WRAPPERS if isinstance(content, dict) and isinstance(content.get(key), dict)), None)
        content = content if inner is None else inner
    if not isinstance(content, dict) or not content or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointError("no state dict in it, neither bare nor under 'model' or 'state_dict'")
    # What DistributedDataParallel puts before every key.
    return {key.removeprefix("module."): value for key, value in content.items()}


def save_half(state, path):
    """Writes a state dict's learned weights in 16-bit floating point: half the size, and enough to go on from."""
    learned = {key: value for key, value in state.items() if not is_computed(key)}
    half = {key: value.half() if value.is_floating_point() else value for key, value in learned.items()}
    torch.save({"model": half}, path)


def head_classes(state):
    """Classes that the weights were trained for, if they have a head."""
    head = next((state[key] for key in ("head.weight", "head.fc.weight") if key in state), None)
    return None if head is None else head.shape[0]


def load(model, state):
    """Puts a state dict, official or in timm's or torchvision's keys, into the network; every tensor must be there."""
    state = adapt(model, to_official_keys(state))
    own = model.state_dict()
    # Swin's index and masks are computed. Those in a file are of the size it was trained at.
    computed = {key for key in own if is_computed(key)}
    state = {key: value for key, value in state.items() if not is_computed(key)}
    problems = [f"missing: {key}" for key in own if key not in state and key not in computed]
    problems += [f"unknown: {key}" for key in state if key not in own]
    for key in own.keys() & state.keys():
        if own[key].shape != state[key].shape:
            problems.append(f"{key}: {_shape(state[key])} in the file, {_shape(own[key])} here")
    if problems:
        shown = problems[:20] + ([f"and {len(problems) - 20} more"] if len(problems) > 20 else [])
        raise CheckpointError("the weights are not this model's:\n  " + "\n  ".join(shown))
    model.load_state_dict(state, strict=not computed)


def is_computed(key):
    """Whether a state dict's entry follows from the configuration alone."""
    return key.endswith(("relative_position_index", "attn_mask"))


def _shape(tensor):
    return "x".join(map(str, tensor.shape)) or "scalar"


def to_official_keys(state):
    """Renames the keys of a timm or torchvision state dict; others pass unchanged."""
    if "features.0.0.weight" in state:
        return {_from_torchvision_swin(key): value for key, value in state.items()}
    if "stages.0.norm.weight" in state and "patch_embed.proj.weight" in state:
        return {_from_timm_pvtv2(key): value for key, value in state.items()}
    if "layers.1.downsample.norm.weight" in state and "layers.0.downsample.norm.weight" not in state:
        return {_from_timm_swin(key): value for key, value in state.items()}
    return state


def _from_timm_pvtv2(key):
    """spec pvtv2 §3."""
    key = re.sub(r"^patch_embed\.", "patch_embed1.", key)
    key = re.sub(r"^stages\.(\d+)\.downsample\.", lambda found: f"patch_embed{int(found[1]) + 1}.", key)
    key = re.sub(r"^stages\.(\d+)\.blocks\.", lambda found: f"block{int(found[1]) + 1}.", key)
    key = re.sub(r"^stages\.(\d+)\.norm\.", lambda found: f"norm{int(found[1]) + 1}.", key)
    return key.replace(".mlp.dwconv.", ".mlp.dwconv.dwconv.")


def _from_timm_swin(key):
    """spec swin §3: timm merges at the start of a stage, the official code at the end of the one before."""
    key = re.sub(r"^layers\.(\d+)\.downsample\.", lambda found: f"layers.{int(found[1]) - 1}.downsample.", key)
    return key.replace("head.fc.", "head.")


def _from_torchvision_swin(key):
    """spec swin §3: features are embedding, stage, merging, stage, …"""
    key = key.replace("features.0.0.", "patch_embed.proj.").replace("features.0.2.", "patch_embed.norm.")
    found = re.match(r"^features\.(\d+)\.(.*)", key)
    if found:
        index, rest = int(found[1]), found[2]
        stage = (index - 1) // 2
        key = f"layers.{stage}.blocks.{rest}" if index % 2 else f"layers.{stage}.downsample.{rest}"
    return key.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")


def adapt(model, state):
    """What may differ between a checkpoint and a network made for other uses of it.

    Swin's bias tables are resized to another window, bicubic over the table's two axes (spec swin §2.2). A Dual-ViT
    without auxiliary head leaves that of the checkpoint out (spec dualvit §2.7).
    """
    own = model.state_dict()
    adapted = {}
    for key, value in state.items():
        if key.startswith("aux_head.") and key not in own and getattr(model, "aux_head", False) is None:
            continue
        if key.endswith("relative_position_bias_table") and key in own and own[key].shape[0] != value.shape[0]:
            value = resize_bias_table(value, own[key].shape[0])
        adapted[key] = value
    return adapted


def resize_bias_table(table, rows):
    """(2M−1)²×heads → rows×heads, another such square."""
    sides = [round(count**0.5) for count in (table.shape[0], rows)]
    image = table.reshape(sides[0], sides[0], -1).permute(2, 0, 1).unsqueeze(0)
    image = functional.interpolate(image, (sides[1], sides[1]), mode="bicubic", align_corners=False)
    return image.squeeze(0).flatten(1).transpose(0, 1)


# Parameters that act as a part of the input, not as weights: at first zero or almost.
LEARNED_INPUTS = ("relative_position_bias_table", "win_tokens", "cls_token", "pos_embed")


@torch.no_grad()
def randomise(model, seed):
    """Gives every parameter and every statistic a random value, the same for the same seed.

    Unlike a fresh network's, no weight is one that hides a mistake: window tokens and biases are not zero, norms do
    more than normalise, LayerScale is not almost nothing. Activations keep a usual size.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor, mean, std):
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))

    for key, tensor in model.state_dict().items():
        name = key.rsplit(".", 1)[-1]
        if is_computed(key) or name == "num_batches_tracked":
            continue
        if name == "running_var":
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif name.startswith("gamma"):
            tensor.copy_(0.1 + 0.9 * torch.rand(tensor.shape, generator=generator))
        elif name in LEARNED_INPUTS or key == "q":
            normal(tensor, 0.0, 0.5)
        elif name == "weight" and tensor.dim() == 1:
            normal(tensor, 1.0, 0.1)
        elif name == "weight":
            normal(tensor, 0.0, tensor[0].numel() ** -0.5)
        else:
            normal(tensor, 0.0, 0.1)


@torch.no_grad()
def settle(model, input_size, seed):
    """Gives every batch norm the mean and the variance of what reaches it on random images.

    With statistics that are random too, a deep network's signal dies away: its logits would hardly depend on the image.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    if norms:
        model(images(8, input_size, seed))
    for norm in norms:
        norm.eval()
        # In few digits: another machine's last bits are then no other weights.
        norm.running_mean.copy_(norm.running_mean.bfloat16())
        norm.running_var.copy_(norm.running_var.bfloat16())


def images(count, input_size, seed):
    """Random images: large soft patches and some noise, with about the mean and deviation of normalised photos."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(count, 3, 8, 8, generator=generator)
    patches = functional.interpolate(patches, input_size, mode="bilinear", align_corners=False)
    return patches + 0.3 * torch.randn(count, 3, *input_size, generator=generator)
