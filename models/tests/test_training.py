"""Training: the data, the schedule, and that a run which was stopped ends as one which was not."""

import csv
import math

import numpy as np
import pytest
import torch
from PIL import Image

from vitlet_models import __main__, checkpoints, convnet, data, registry, sepvit, swin, train

CLASSES = ("blue", "red")


@pytest.fixture
def folder(tmp_path):
    """Ten small photos of two colours for training, six for validation."""
    random = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 3)):
        for name in CLASSES:
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 100, (40, 48, 3), np.uint8)
                pixels[:, :, 0 if name == "red" else 2] += 100
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{index}.png")
    return tmp_path / "photos"


@pytest.fixture
def networks(monkeypatch):
    """Small SepViT and Swin: at half the side, tokens are averaged and maps are padded."""
    monkeypatch.setitem(sepvit.CONFIGS, "sepvit", sepvit.Config((8, 16), (1, 2), ((2, 4), (2, 4)), mlp_ratio=2, side=32))
    monkeypatch.setitem(swin.CONFIGS, "swin", swin.Config(8, (2, 2), (1, 2), window=4, side=32))


def recipe(folder, **changes):
    phases = (train.Phase(16, 0.01, 2), train.Phase(32, 0.005, 2))
    return train.Recipe(**{"model": "sepvit", "data": str(folder), "phases": phases, "batch": 3, "seed": 5} | changes)


def run(folder, name="out.pth", **options):
    return train.Run(folder.parent / name, folder.parent / "cache", threads=1, **options)


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("model", ["sepvit", "swin"])
@pytest.mark.parametrize("steps", [2, 3, 8])
def test_resuming(steps, model, folder, networks, monkeypatch):
    """Stopped within an epoch, between epochs, and at another size: the same weights to the bit, and the same log."""
    how = recipe(folder, model=model)
    train.train(how, run(folder, "whole.pth"))

    monkeypatch.setattr(train.Trainer, "due", lambda trainer: trainer.epoch * 3 + trainer.step == steps)
    assert "go on with --resume" in train.train(how, run(folder, "parts.pth"))
    assert not (folder.parent / "parts.pth").exists()
    monkeypatch.undo()
    monkeypatch.setitem(sepvit.CONFIGS, "sepvit", sepvit.Config((8, 16), (1, 2), ((2, 4), (2, 4)), mlp_ratio=2, side=32))
    monkeypatch.setitem(swin.CONFIGS, "swin", swin.Config(8, (2, 2), (1, 2), window=4, side=32))
    train.train(how, run(folder, "parts.pth", resume=True))

    whole, parts = (weights(folder.parent / name) for name in ("whole.pth", "parts.pth"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    logs = [rows(folder.parent / f"{name}.pth.csv") for name in ("whole", "parts")]
    for log in logs:
        for row in log:
            assert float(row.pop("seconds")) >= 0
            assert float(row.pop("images/s")) > 0
    assert logs[0] == logs[1]


def test_log_and_weights(folder, networks):
    """One row for each epoch; the weights are what `export` and `--init` take."""
    train.train(recipe(folder), run(folder, validate_every=2))
    log = rows(folder.parent / "out.pth.csv")
    assert tuple(log[0]) == train.COLUMNS
    assert [(row["epoch"], row["size"]) for row in log] == [("1", "16"), ("2", "16"), ("3", "32"), ("4", "32")]
    assert [row["val top-1"] != "" for row in log] == [False, True, False, True]
    assert all(0 < float(row["train loss"]) < 2 for row in log)
    model = registry.create("sepvit", len(CLASSES))
    checkpoints.load(model, checkpoints.read(folder.parent / "out.pth"))
    assert torch.load(folder.parent / "out.pth", weights_only=True)["classes"] == list(CLASSES)


def test_it_learns(folder, networks):
    """Two colours."""
    plain = data.Augmentation(erase=0, mixup=0, cutmix=0, jitter=0)
    train.train(recipe(folder, phases=(train.Phase(16, 0.01, 12),), augmentation=plain, average=0.5), run(folder))
    log = rows(folder.parent / "out.pth.csv")
    assert log[-1]["val top-1"] == "1.0000"
    assert float(log[-1]["train loss"]) < float(log[0]["train loss"])


def test_schedule():
    """Up in a line over a tenth of a phase, then down along half a cosine; anew in the next phase."""
    how = train.Recipe("sepvit_lite", "photos", (train.Phase(112, 1.0, 10), train.Phase(224, 0.5, 10)), warmup=0.1)
    assert [how.phase_at(epoch)[0].side for epoch in (0, 9, 10, 19)] == [112, 112, 224, 224]
    assert [how.lr_at(0, step, 4) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert how.lr_at(1, 0, 4) == 1.0
    assert how.lr_at(5, 2, 4) == pytest.approx(0.5)
    assert how.lr_at(9, 3, 4) == pytest.approx(0.5 * (1 + math.cos(math.pi * 35 / 36)))
    assert how.lr_at(11, 0, 4) == 0.5
    with pytest.raises(ValueError, match="epoch 20 of 20"):
        how.phase_at(20)


def test_init_for_another_task(folder, networks):
    """The head starts anew, all else comes from the file."""
    model = registry.create("sepvit", 7)
    checkpoints.randomise(model, 3)
    torch.save({"model": model.state_dict()}, folder.parent / "seven.pth")
    trainer = train.Trainer(recipe(folder, init=str(folder.parent / "seven.pth")), run(folder))
    now = trainer.model.state_dict()
    assert now["head.weight"].shape == (2, 16)
    assert all(torch.equal(now[key], value) for key, value in model.state_dict().items() if not key.startswith("head."))


@pytest.fixture
def teacher(folder, monkeypatch):
    """The file of a small convolutional network that knows the two colours."""
    monkeypatch.setitem(convnet.CONFIGS, "convnet", convnet.Config(4, (4, 8)))
    plain = data.Augmentation(erase=0, mixup=0, cutmix=0, jitter=0)
    how = recipe(folder, model="convnet", phases=(train.Phase(32, 0.01, 4),), augmentation=plain, average=0.5)
    train.train(how, run(folder, "teacher.pth"))
    return folder.parent / "teacher.pth"


def test_teacher(folder, networks, teacher):
    """It is asked at its own side, softened; its share of the loss is the recipe's; its weights stay as they are."""
    trainer = train.Trainer(recipe(folder, teacher=str(teacher), teaching=0.25), run(folder))
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    answers = trainer.teacher.answers(images)
    large = torch.nn.functional.interpolate(images, size=(32, 32), mode="area")
    torch.testing.assert_close(answers, (trainer.teacher.model(large) / 2).softmax(dim=1))

    trainer.resize(16)
    targets = torch.tensor([[1.0, 0.0]] * 3)
    logits = trainer.logits(images)
    labels = torch.nn.functional.cross_entropy(logits, targets)
    taught = 4 * torch.nn.functional.cross_entropy(logits / 2, answers)
    torch.testing.assert_close(trainer.loss_of(images, targets), 0.75 * labels + 0.25 * taught)

    before = {key: value.clone() for key, value in trainer.teacher.model.state_dict().items()}
    trainer.train()
    assert all(torch.equal(before[key], value) for key, value in trainer.teacher.model.state_dict().items())


def test_teacher_in_place_of_labels(folder, networks, teacher):
    """With nothing but its answers the colours are learned, too."""
    plain = data.Augmentation(erase=0, mixup=0, cutmix=0, jitter=0)
    how = recipe(folder, teacher=str(teacher), teaching=1.0, phases=(train.Phase(16, 0.01, 12),), augmentation=plain, average=0.5)
    train.train(how, run(folder))
    assert rows(folder.parent / "out.pth.csv")[-1]["val top-1"] == "1.0000"


def test_photos_are_decoded_once(folder, tmp_path, monkeypatch):
    first = data.load(folder / "train", 16, tmp_path / "cache")
    assert first.pixels.shape == (10, 16, 16, 3)
    assert first.labels.tolist() == [0] * 5 + [1] * 5
    with Image.open(folder / "train" / "red" / "0.png") as photo:
        squashed = np.asarray(photo.resize((16, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(first.pixels[5], squashed)
    monkeypatch.setattr(data, "decode", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(data.load(folder / "train", 16, tmp_path / "cache").pixels, first.pixels)


def test_no_partial_cache(folder, tmp_path):
    (folder / "train" / "red" / "9.png").write_bytes(b"no photo")
    with pytest.raises(data.DataError, match="9.png: not a photo that can be decoded"):
        data.load(folder / "train", 16, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "neither"])
def test_augmentation(kind):
    """Shares of classes add up to one, and say how much of each photo is in the mix."""
    how = data.Augmentation(crop=1.0, jitter=0, erase=0, mixup=float(kind == "mixup"), cutmix=float(kind == "cutmix"), smoothing=0)
    photos = torch.stack([torch.zeros(3, 20, 20), torch.ones(3, 20, 20)])
    for seed in range(20):
        images, targets = data.augment(photos, torch.tensor([0, 1]), 2, 16, how, torch.Generator().manual_seed(seed))
        again, _ = data.augment(photos, torch.tensor([0, 1]), 2, 16, how, torch.Generator().manual_seed(seed))
        assert torch.equal(images, again)
        assert images.shape == (2, 3, 16, 16)
        black, white = (data.normalise(image[None]) for image in (torch.zeros(3, 16, 16), torch.ones(3, 16, 16)))
        share = ((images - black) / (white - black)).mean(dim=(1, 2, 3))
        torch.testing.assert_close(targets, torch.stack([1 - share, share], dim=1), rtol=0, atol=1e-4)
        assert kind != "neither" or targets.tolist() == [[1, 0], [0, 1]]


def test_every_variation_at_once():
    """Sizes and sums hold with all of them."""
    photos = torch.rand(8, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    images, targets = data.augment(photos, torch.arange(8), 10, 32, data.Augmentation(erase=1.0), torch.Generator().manual_seed(1))
    assert images.shape == (8, 3, 32, 32)
    assert images.isfinite().all()
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))
    assert (targets > 0).all()


def test_drop_path_leaves_whole_images_out():
    """The deepest branch is dropped for its share of images, the first one never; what is kept makes up for it."""
    model = torch.nn.ModuleDict({"a": torch.nn.ModuleDict({"attn": torch.nn.Identity(), "mlp": torch.nn.Identity()})})
    drop = train.DropPath(model, 0.5)
    drop.generator, drop.images = torch.Generator().manual_seed(0), 1000
    ones = torch.ones(4000, 3, 2)
    assert torch.equal(model["a"]["attn"](ones), ones)
    kept = model["a"]["mlp"](ones).reshape(1000, -1)
    assert ((kept == 0).all(dim=1) | (kept == 2).all(dim=1)).all()
    assert 0.4 < (kept[:, 0] == 0).float().mean() < 0.6
    assert torch.equal(model.eval()["a"]["mlp"](ones), ones)


def command(monkeypatch, capsys, *arguments):
    """The command line's status and what it said."""
    monkeypatch.setattr("sys.argv", ["vitlet_models", "train", *map(str, arguments)])
    try:
        status = __main__.main()
    except SystemExit as stopped:
        status = stopped.code
    said = capsys.readouterr()
    return status, said.out + said.err


def test_command(folder, networks, monkeypatch, capsys):
    arguments = ("sepvit", "--data", folder, "--out", folder.parent / "a.pth", "--input", "16,32", "--epochs", "1,1", "--lr", "1e-3,1e-3")
    options = (*arguments, "--batch", "5", "--threads", "1", "--bf16")
    assert command(monkeypatch, capsys, *options, "--max-minutes", "0") == (0, "stopped in epoch 1 of 2; go on with --resume\n")
    status, said = command(monkeypatch, capsys, *options)
    assert status == 1
    assert "a.pth.checkpoint: a run was begun here; go on with it (--resume)" in said
    status, said = command(monkeypatch, capsys, *options, "--resume", "--clip", "2")
    assert status == 1
    assert "begun with another recipe; clip: 1.0 then, 2.0 now" in said
    status, said = command(monkeypatch, capsys, *options, "--resume")
    assert status == 0, said
    assert "a.pth: sepvit, 2 epochs, top-1 " in said
    assert len(rows(folder.parent / "a.pth.csv")) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "absent"), "absent/train: no such folder; the data set needs train/CLASS/*.jpg"),
        (("--input", "24"), "input 24: SepViT is trained at 16 or 32"),
        (("--input", "16,32"), "--input, --epochs and --lr: as many values for each"),
        (("--init", "absent.pth"), "absent.pth: no such file"),
        (("--teacher", "absent.pth"), "absent.pth: no such file"),
        (("--resume",), "b.pth.checkpoint: no checkpoint to resume from; start without --resume"),
        (("--batch", "99"), "10 photos do not fill a batch of 99 (--batch)"),
        (("--epochs", "x"), "'x': a whole number from 1 up"),
        (("--lr", "fast"), "'fast': numbers with commas between them"),
        (("--crop", "2"), "'2': a number from 0 to 1"),
    ],
)
def test_mistakes(options, message, folder, networks, monkeypatch, capsys):
    arguments = ("sepvit", "--data", folder, "--out", folder.parent / "b.pth", "--input", "16", "--epochs", "1", "--lr", "1e-3")
    status, said = command(monkeypatch, capsys, *arguments, *options)
    assert status != 0
    assert message in said


def test_init_from_another_network(folder, networks, monkeypatch, capsys):
    """Every tensor that does not fit is named."""
    state = registry.create("sepvit", 2).state_dict()
    state["norm.weight"] = torch.zeros(99)
    del state["blocks.0.0.norm1.bias"]
    torch.save(state, folder.parent / "wrong.pth")
    arguments = ("sepvit", "--data", folder, "--out", folder.parent / "c.pth", "--input", "16", "--init", folder.parent / "wrong.pth")
    status, said = command(monkeypatch, capsys, *arguments)
    assert status == 1
    assert "missing: blocks.0.0.norm1.bias" in said
    assert "norm.weight: 99 in the file, 16 here" in said


def test_teacher_of_something_else(folder, networks, teacher, monkeypatch, capsys):
    """Weights alone do not say what they are of; other classes are another task."""
    content = torch.load(teacher, weights_only=True)
    torch.save(content["model"], folder.parent / "bare.pth")
    torch.save(content | {"classes": ["cat", "dog"]}, folder.parent / "pets.pth")
    arguments = ("sepvit", "--data", folder, "--out", folder.parent / "c.pth", "--input", "16", "--teacher")
    assert "bare.pth: not a file that `train` wrote" in command(monkeypatch, capsys, *arguments, folder.parent / "bare.pth")[1]
    said = command(monkeypatch, capsys, *arguments, folder.parent / "pets.pth")[1]
    assert "pets.pth: it knows the classes cat, dog; the data has blue, red" in said


def test_classes_must_agree(folder, networks):
    (folder / "val" / "green").mkdir()
    with pytest.raises(data.DataError, match="train and val have different classes"):
        train.Trainer(recipe(folder), run(folder))


def test_a_loss_that_is_no_number(folder, networks):
    with pytest.raises(train.TrainingError, match="the loss is nan; lower --lr"):
        train.train(recipe(folder, phases=(train.Phase(16, 1e30, 9),), clip=0.0), run(folder))
