"""Training, for a computer with two cores: from coarse photos to fine ones, stopped and resumed at will.

A run goes through phases, one for each input side. Each has its own epochs, and its own warm-up and cosine schedule of
the learning rate. What is chosen at random in a step depends on the seed and the step's number alone; so a run that
resumes from its checkpoint does what it would have done.
"""

import csv
import io
import math
import os
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from vitlet_models import checkpoints, data, registry

COLUMNS = ("epoch", "size", "lr", "train loss", "val top-1", "seconds", "images/s")
# Cached training photos are this much larger than the input, if the photos are: a crop then loses less.
MARGIN = 10 / 7
# How far from the first step the average of the weights reaches back: it starts from random ones.
AVERAGE_WARM_UP = 10


class TrainingError(ValueError):
    """A run cannot start, or cannot resume."""


@dataclass(frozen=True)
class Phase:
    """Epochs at one input side."""

    side: int
    lr: float
    epochs: int


@dataclass(frozen=True)
class Recipe:
    """All that decides what is learned."""

    model: str
    data: str
    phases: tuple
    init: str = ""
    # A file that `train` wrote of a network for the same classes, and how much its answers count beside the labels.
    teacher: str = ""
    teaching: float = 0.7
    batch: int = 64
    warmup: float = 0.05
    weight_decay: float = 0.05
    average: float = 0.998
    drop_path: float = 0.05
    clip: float = 1.0
    seed: int = 0
    bf16: bool = False
    augmentation: data.Augmentation = field(default_factory=data.Augmentation)

    @property
    def epochs(self):
        """Of all phases."""
        return sum(phase.epochs for phase in self.phases)

    def phase_at(self, epoch):
        """The phase that an epoch belongs to, and the number of its first one. Epochs count from 0."""
        first = 0
        for phase in self.phases:
            if epoch < first + phase.epochs:
                return phase, first
            first += phase.epochs
        raise ValueError(f"epoch {epoch} of {self.epochs}")

    def lr_at(self, epoch, step, steps):
        """The learning rate of a step, of `steps` in this epoch: up in a line, then down along half a cosine, to 0."""
        phase, first = self.phase_at(epoch)
        total = phase.epochs * steps
        done, warm = (epoch - first) * steps + step, self.warmup * total
        if done < warm:
            return phase.lr * (done + 1) / (warm + 1)
        return phase.lr * 0.5 * (1 + math.cos(math.pi * (done - warm) / (total - warm)))


@dataclass(frozen=True)
class Run:
    """How a recipe is carried out."""

    output: Path
    cache: Path
    resume: bool = False
    max_minutes: float = math.inf
    checkpoint_minutes: float = 5.0
    validate_every: int = 1
    threads: int = 2

    @property
    def checkpoint(self):
        """Where the run's state is kept."""
        return self.output.with_name(f"{self.output.name}.checkpoint")

    @property
    def log(self):
        """The CSV file."""
        return self.output.with_name(f"{self.output.name}.csv")


class DropPath:
    """Leaves a residual branch out, for some images of a batch (stochastic depth, arXiv 1603.09382).

    A hook on the branch's last module, because the networks are written for inference.
    """

    def __init__(self, model, most):
        self.generator, self.images = None, 0
        branches = [module for name, module in model.named_modules() if name.rsplit(".", 1)[-1] in ("attn", "mlp")]
        if most > 0:
            # Growing with depth, as published.
            for index, branch in enumerate(branches):
                branch.register_forward_hook(self.hook(most * index / max(len(branches) - 1, 1)))

    def hook(self, share):
        """For one branch."""

        def drop(module, _, output):
            if not module.training or share == 0:
                return None
            kept = (torch.rand(self.images, generator=self.generator) >= share).to(output.dtype) / (1 - share)
            # Swin's rows are windows, of which an image has several.
            kept = kept.repeat_interleave(len(output) // self.images)
            return output * kept.reshape(-1, *(1,) * (output.dim() - 1))

        return drop


@torch.no_grad()
def initialise(model, seed):
    """Random weights to train from: a truncated normal for linear maps, one by fan-out for convolutions (as published)."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
        elif isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            module.weight.normal_(0, math.sqrt(2 / fan_out), generator=generator)
        else:
            continue
        if module.bias is not None:
            module.bias.zero_()


def learned(model):
    """The state dict without what follows from the configuration: the tensors themselves, not copies."""
    return {key: value for key, value in model.state_dict().items() if not checkpoints.is_computed(key)}


def start_from(model, path):
    """Weights from a file. Another number of classes is another task: the heads then start anew."""
    state = checkpoints.to_official_keys(checkpoints.read(path))
    own = learned(model)
    if checkpoints.head_classes(state) not in (None, model.head.out_features):
        heads = [key for key in own if key.startswith(("head.", "aux_head."))]
        state |= {key: own[key] for key in heads}
    try:
        checkpoints.load(model, state)
    except checkpoints.CheckpointError as error:
        raise checkpoints.CheckpointError(f"{path}: {error}") from None


class Teacher:
    """A trained network whose answers are learned, too (knowledge distillation, arXiv 1503.02531).

    It sees the very images that the pupil sees, mixed ones included, so that both can agree on all of them (Beyer et al.,
    arXiv 2106.05237).
    """

    # How much softer than probabilities the answers are compared.
    TEMPERATURE = 2.0

    def __init__(self, path, classes):
        content = checkpoints.read_whole(path)
        try:
            recipe, known = content["recipe"], content["classes"]
            name, self.side = recipe["model"], recipe["phases"][-1]["side"]
        except (KeyError, TypeError, IndexError):
            raise checkpoints.CheckpointError(f"{path}: not a file that `train` wrote") from None
        if tuple(known) != tuple(classes):
            raise checkpoints.CheckpointError(f"{path}: it knows the classes {', '.join(known)}; the data has {', '.join(classes)}")
        self.model = registry.create(name, len(classes))
        if hasattr(self.model, "resize"):
            self.model.resize(self.side)
        checkpoints.load(self.model, content["model"])
        self.model.eval().to(memory_format=torch.channels_last)

    @torch.no_grad()
    def answers(self, images):
        """Softened probabilities, of images at the side that the teacher knows."""
        if images.shape[-1] != self.side:
            images = functional.interpolate(images, size=(self.side, self.side), mode="area")
        return (self.model(images).float() / self.TEMPERATURE).softmax(dim=1)

    def loss(self, logits, answers):
        """How far logits are from the answers: cross entropy, to the scale of that with labels."""
        return functional.cross_entropy(logits / self.TEMPERATURE, answers) * self.TEMPERATURE**2


def optimiser(model, weight_decay):
    """AdamW; biases, norms and what acts as a part of the input do not decay."""
    decayed, kept = [], []
    for name, parameter in model.named_parameters():
        exempt = parameter.dim() < 2 or name.rsplit(".", 1)[-1] in (*checkpoints.LEARNED_INPUTS, "q")
        (kept if exempt else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def write_whole(path, content):
    """Replaces a file at once, so that a run that dies leaves the old one."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def saved(content):
    """As `torch.save` writes it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


class Trainer:
    """A recipe on its way."""

    def __init__(self, recipe, run):
        self.recipe, self.run = recipe, run
        self.began = self.last_checkpoint = time.monotonic()
        self.stopping = False
        folder = Path(recipe.data)
        _, self.classes = data.files_of(folder / "train")
        if data.files_of(folder / "val")[1] != self.classes:
            raise data.DataError(f"{folder}: train and val have different classes")
        self.model = registry.create(recipe.model, len(self.classes))
        for phase in recipe.phases:
            # Sizes that do not go are found before the hours of work.
            self.resize(phase.side)
        initialise(self.model, recipe.seed)
        if recipe.init:
            start_from(self.model, recipe.init)
        self.model.to(memory_format=torch.channels_last)
        self.teacher = Teacher(recipe.teacher, self.classes) if recipe.teacher else None
        self.drop_path = DropPath(self.model, recipe.drop_path)
        self.optimiser = optimiser(self.model, recipe.weight_decay)
        self.average = {key: value.clone() for key, value in learned(self.model).items()}
        self.epoch = self.step = 0
        # Of the epoch so far.
        self.loss, self.seconds = 0.0, 0.0
        self.rows = []
        if run.resume:
            self.restore()
        elif run.checkpoint.exists():
            raise TrainingError(f"{run.checkpoint}: a run was begun here; go on with it (--resume) or remove the file")

    def resize(self, side):
        """The network takes images of this side from now on. PVTv2 and Dual-ViT take any that is not too small."""
        _, module, _, config = registry.find(self.recipe.model)
        if hasattr(self.model, "resize"):
            self.model.resize(side)
        else:
            module.check_size(config, (side, side))

    def state(self):
        """All that a run needs to go on."""
        return {
            "recipe": asdict(self.recipe),
            "model": learned(self.model),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "position": {"epoch": self.epoch, "step": self.step, "loss": self.loss, "seconds": self.seconds},
            "rows": self.rows,
        }

    def save(self):
        """Writes the checkpoint."""
        write_whole(self.run.checkpoint, saved(self.state()))
        self.last_checkpoint = time.monotonic()

    def restore(self):
        """Goes on from the checkpoint."""
        path = self.run.checkpoint
        if not path.is_file():
            raise TrainingError(f"{path}: no checkpoint to resume from; start without --resume")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises whatever the file's damage leads to
            raise TrainingError(f"{path}: damaged: {error}") from error
        now = asdict(self.recipe)
        differing = [key for key in now if now[key] != state["recipe"].get(key)]
        if differing:
            changes = "; ".join(f"{key}: {state['recipe'].get(key)} then, {now[key]} now" for key in differing)
            raise TrainingError(f"{path}: begun with another recipe; {changes}")
        checkpoints.load(self.model, state["model"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        for name, value in state["position"].items():
            setattr(self, name, value)
        self.rows = state["rows"]

    def photos(self, split, side):
        """One split, decoded for an input side. Photos to crop from are larger, as far as the files are."""
        folder = Path(self.recipe.data) / split
        if split == "train":
            side = min(round(side * MARGIN), max(side, data.shortest_side(folder)))
        return data.load(folder, side, self.run.cache)

    def due(self):
        """Whether the time is up, or a signal asked to stop."""
        return self.stopping or time.monotonic() - self.began > 60 * self.run.max_minutes

    def train(self):
        """Runs until the end or until the time is up; whether it came to the end."""
        side = None
        while self.epoch < self.recipe.epochs:
            phase, _ = self.recipe.phase_at(self.epoch)
            if phase.side != side:
                side = phase.side
                self.resize(side)
                photos, proof = self.photos("train", side), self.photos("val", side)
            if not self.train_epoch(photos, phase):
                self.save()
                return False
            self.finish_epoch(proof, phase, self.steps(photos))
        self.save()
        return True

    def steps(self, photos):
        """Of an epoch."""
        steps = len(photos) // self.recipe.batch
        if not steps:
            raise TrainingError(f"{len(photos)} photos do not fill a batch of {self.recipe.batch} (--batch)")
        return steps

    def train_epoch(self, photos, phase):
        """One pass over the photos, or the rest of one; whether it came to the end."""
        steps = self.steps(photos)
        # The last ones that fill no batch are left out of this epoch.
        order = torch.randperm(len(photos), generator=self.randomness(self.epoch, 0))
        batches = order[: steps * self.recipe.batch].split(self.recipe.batch)
        self.model.train()
        while self.step < steps:
            if self.due():
                return False
            began = time.monotonic()
            self.loss += self.train_step(photos, batches[self.step], phase, steps)
            self.step += 1
            self.seconds += time.monotonic() - began
            if time.monotonic() - self.last_checkpoint > 60 * self.run.checkpoint_minutes:
                self.save()
        return True

    def randomness(self, epoch, step):
        """A generator for one step, or for an epoch's order (step 0)."""
        return torch.Generator().manual_seed(((self.recipe.seed * 100_003) + epoch) * 1_000_003 + step)

    def train_step(self, photos, indices, phase, steps):
        """Learns from one batch; its loss."""
        generator = self.randomness(self.epoch, self.step + 1)
        images, labels = photos.batch(indices)
        images, targets = data.augment(images, labels, len(self.classes), phase.side, self.recipe.augmentation, generator)
        self.drop_path.generator, self.drop_path.images = generator, len(images)
        loss = self.loss_of(images, targets)
        if not loss.isfinite():
            raise TrainingError(f"epoch {self.epoch + 1}, step {self.step + 1}: the loss is {loss.item()}; lower --lr")
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip or math.inf, foreach=True)
        lr = self.recipe.lr_at(self.epoch, self.step, steps)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.update_average(self.epoch * steps + self.step)
        return loss.item()

    def loss_of(self, images, targets):
        """By the labels and, if there is one, by the teacher."""
        logits = self.logits(images)
        loss = functional.cross_entropy(logits, targets)
        if self.teacher is None:
            return loss
        with self.precision():
            answers = self.teacher.answers(images)
        return torch.lerp(loss, self.teacher.loss(logits, answers), self.recipe.teaching)

    def precision(self):
        """bf16 where that is safe, if the recipe says so."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16)

    def logits(self, images):
        """The network's answer."""
        with self.precision():
            return self.model(images.contiguous(memory_format=torch.channels_last)).float()

    @torch.no_grad()
    def update_average(self, step):
        """The weights' moving average, over few steps at first."""
        decay = min(self.recipe.average, (1 + step) / (AVERAGE_WARM_UP + step))
        for key, value in learned(self.model).items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    def finish_epoch(self, proof, phase, steps):
        """Validates, logs, and goes on to the next epoch."""
        last = self.epoch + 1 == self.recipe.epochs
        share = self.validate(proof) if last or (self.epoch + 1) % self.run.validate_every == 0 else None
        row = (
            self.epoch + 1,
            phase.side,
            f"{self.recipe.lr_at(self.epoch, steps - 1, steps):.3e}",
            f"{self.loss / steps:.4f}",
            "" if share is None else f"{share:.4f}",
            f"{self.seconds:.1f}",
            f"{steps * self.recipe.batch / self.seconds:.1f}",
        )
        self.rows.append(row)
        write_whole(self.run.log, table([COLUMNS, *self.rows]))
        print(", ".join(f"{name} {value}" for name, value in zip(COLUMNS, row, strict=True) if value != ""), flush=True)
        self.epoch, self.step, self.loss, self.seconds = self.epoch + 1, 0, 0.0, 0.0

    @torch.no_grad()
    def validate(self, proof):
        """The averaged weights' share of right answers."""
        own = {key: value.clone() for key, value in learned(self.model).items()}
        self.model.load_state_dict(self.average, strict=False)
        self.model.eval()
        right = 0
        for indices in torch.arange(len(proof)).split(2 * self.recipe.batch):
            images, labels = proof.batch(indices)
            right += (self.logits(data.normalise(images)).argmax(dim=1) == labels).sum().item()
        self.model.load_state_dict(own, strict=False)
        return right / len(proof)

    def write_weights(self):
        """The averaged weights, as `export --checkpoint` and `train --init` take them."""
        self.resize(registry.default_input_size(self.recipe.model)[0])
        self.model.load_state_dict(self.average, strict=False)
        weights = {key: value.contiguous() for key, value in self.model.state_dict().items()}
        write_whole(self.run.output, saved({"model": weights, "classes": list(self.classes), "recipe": asdict(self.recipe)}))


def table(rows):
    """CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def train(recipe, run):
    """Trains until the end, until the time is up, or until SIGTERM or SIGINT; what it has to say about it."""
    torch.set_num_threads(run.threads)
    if not run.output.parent.is_dir():
        raise FileNotFoundError(f"{run.output}: no folder {run.output.parent}")
    trainer = Trainer(recipe, run)

    def stop(*_):
        trainer.stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if not trainer.train():
        return f"stopped in epoch {trainer.epoch + 1} of {recipe.epochs}; go on with --resume"
    trainer.write_weights()
    return f"{run.output}: {recipe.model}, {recipe.epochs} epochs, top-1 {float(trainer.rows[-1][4]):.2%} on val"
