"""The files that a compiler working on graphs, not names, is tried on: `python -m vitlet_models variants --out DIR`.

The same networks written by other code (timm, torchvision), by both of PyTorch's exporters, at several operator sets,
with and without simplification, with the batch dimension fixed or symbolic. All weights are random, the same for the
same seed, and nothing is downloaded. `INDEX.tsv` beside the files says what each one is.

timm's names have the size and the patch in them; the files' names leave those out.
"""

import fnmatch
import importlib.metadata
from dataclasses import dataclass, replace

from vitlet_models import checkpoints, export, registry

SEED = 0
INDEX = "INDEX.tsv"


@dataclass(frozen=True)
class Form:
    """How a file is written."""

    suffix: str = ""
    opset: int = export.OPSET
    dynamo: bool = False
    symbolic_batch: bool = False
    simplified: bool = False
    keep_batch_norm: bool = False
    external_data: bool = False
    # timm's attention as two products, not as PyTorch's one operation for both.
    plain_attention: bool = False

    def exporter(self):
        return "dynamo" if self.dynamo else "torchscript"

    def options(self):
        """What the index says of it besides exporter and operator set."""
        words = ("symbolic_batch", "simplified", "keep_batch_norm", "external_data", "plain_attention")
        return [word.replace("_", " ") for word in words if getattr(self, word)]


# The newer exporter writes operator set 18 or later.
DYNAMO = Form("-dynamo", opset=18, dynamo=True)
PLAIN = (Form(),)
BOTH = (*PLAIN, DYNAMO)
FORMS = (
    *BOTH,
    Form("-opset13", opset=13),
    Form("-opset20", opset=20),
    Form("-batch", symbolic_batch=True),
    Form("-simplified", simplified=True),
    Form("-batch-simplified", symbolic_batch=True, simplified=True),
    replace(DYNAMO, suffix="-dynamo-opset20", opset=20),
    replace(DYNAMO, suffix="-dynamo-batch", symbolic_batch=True),
    replace(DYNAMO, suffix="-dynamo-simplified", simplified=True),
)
BATCH_NORM = Form("-batch-norm", keep_batch_norm=True)
EXTERNAL = replace(DYNAMO, suffix="-external", external_data=True)
PLAIN_ATTENTION = Form("-plain-attention", plain_attention=True)
DYNAMO_PLAIN_ATTENTION = replace(DYNAMO, suffix="-dynamo-plain-attention", plain_attention=True)
# PyTorch's operation cannot be exported below operator set 14.
DEIT_FORMS = (*(replace(form, plain_attention=form.opset < 14) for form in FORMS), PLAIN_ATTENTION)
# Nor by the newer exporter on tensors of five dimensions.
TWINS_SVT_FORMS = (*PLAIN, PLAIN_ATTENTION, DYNAMO_PLAIN_ATTENTION)


@dataclass(frozen=True)
class Source:
    """One network: the package that defines it, its name there, and what it is made with."""

    package: str
    name: str
    forms: tuple = PLAIN
    side: int | tuple | None = None
    aux_head: bool = True

    def size(self):
        """Height and width of the input."""
        if isinstance(self.side, tuple):
            return self.side
        default = registry.default_input_size(self.name) if self.package == "vitlet_models" else (224, 224)
        return (self.side, self.side) if self.side else default

    def make(self, form):
        """The network with random weights, and its input size."""
        size = self.size()
        if self.package == "vitlet_models":
            return export.prepare(self.name, input_size=size, seed=SEED, aux_head=self.aux_head)
        make = {"timm": _timm, "torchvision": _torchvision}[self.package]
        model = make(self.name, form).eval()
        checkpoints.randomise(model, SEED)
        checkpoints.settle(model, size, SEED)
        return model, size

    def options(self):
        """What the index says of it besides its name."""
        size = [f"input {'x'.join(map(str, self.size()))}"] if self.side else []
        return size + ([] if self.aux_head else ["no aux head"])

    def label(self):
        """What the index says of its origin, with the version of another package if that is installed."""
        try:
            version = "" if self.package == "vitlet_models" else f" {importlib.metadata.version(self.package)}"
        except importlib.metadata.PackageNotFoundError:
            version = ""
        return f"{self.package}{version} {self.name}, seed {SEED}"


def _timm(name, form):
    import timm

    timm.layers.set_fused_attn(not form.plain_attention)
    return timm.create_model(name, pretrained=False)


def _torchvision(name, _):
    import torchvision

    return torchvision.models.get_model(name, weights=None)


# The smallest variant of each family, in every form.
SMALLEST = {
    "sepvit_lite": FORMS,
    "pvt_v2_b0": (*FORMS, EXTERNAL),
    "swin_tiny_w7_224": FORMS,
    "dualvit_s": (*FORMS, BATCH_NORM),
}

# By the file's name. The order is that in which they are written.
SOURCES = {
    **{
        name: Source("vitlet_models", name, SMALLEST.get(name, PLAIN))
        for name in (*SMALLEST, *(n for n in registry.names() if n not in SMALLEST))
    },
    "timm_swin_tiny": Source("timm", "swin_tiny_patch4_window7_224", FORMS),
    "torchvision_swin_t": Source("torchvision", "swin_t", FORMS),
    "timm_deit_tiny": Source("timm", "deit_tiny_patch16_224", DEIT_FORMS),
    "timm_pvt_v2_b0": Source("timm", "pvt_v2_b0", BOTH),
    "timm_pvt_v2_b2_li": Source("timm", "pvt_v2_b2_li", BOTH),
    "timm_vit_small": Source("timm", "vit_small_patch16_224", BOTH),
    "timm_twins_svt_small": Source("timm", "twins_svt_small", TWINS_SVT_FORMS),
    "timm_twins_pcpvt_small": Source("timm", "twins_pcpvt_small", BOTH),
    "timm_swin_s3_tiny": Source("timm", "swin_s3_tiny_224", BOTH),
    "timm_convnext_atto": Source("timm", "convnext_atto", BOTH),
    "timm_convnext_tiny": Source("timm", "convnext_tiny", BOTH),
    "timm_mobilevitv2_050": Source("timm", "mobilevitv2_050", BOTH, 256),
    "timm_mobilenetv2_100": Source("timm", "mobilenetv2_100", (*BOTH, BATCH_NORM)),
    "timm_resnet18": Source("timm", "resnet18", (*BOTH, BATCH_NORM)),
    "timm_efficientnet_lite0": Source("timm", "efficientnet_lite0", BOTH),
    # Input sizes of the published tables, one that is not square, and the other head.
    **{f"{name}_384": Source("vitlet_models", name, side=384) for name in ("dualvit_s", "dualvit_b", "dualvit_l")},
    "pvt_v2_b0_192x256": Source("vitlet_models", "pvt_v2_b0", side=(192, 256)),
    "dualvit_s_no_aux": Source("vitlet_models", "dualvit_s", aux_head=False),
}


def files():
    """Every file's name, with its source and form: first each network in its plain form, then the others."""
    plain = [(f"{stem}{form.suffix}.onnx", source, form) for stem, source in SOURCES.items() for form in source.forms]
    return sorted(plain, key=lambda entry: entry[2] not in PLAIN)


def matching(patterns):
    """The files whose names, without `.onnx`, match one of the patterns (all of them if there are none)."""
    chosen = [entry for entry in files() if not patterns or any(fnmatch.fnmatchcase(entry[0].removesuffix(".onnx"), p) for p in patterns)]
    if not chosen:
        raise ValueError(f"no file matches {' '.join(patterns)}; `variants --list` prints them all")
    return chosen


def lines(entries):
    """The index: a line for each file, after the columns' names."""
    yield "file\tsource\texporter\topset\toptions"
    for name, source, form in entries:
        yield f"{name}\t{source.label()}\t{form.exporter()}\t{form.opset}\t{', '.join(source.options() + form.options())}"


def write(source, form, path):
    """One file. It has its name once it is whole, except that a file of weights beside it is named in it."""
    part = path if form.external_data else path.with_name(f".part-{path.name}")
    model, size = source.make(form)
    try:
        export.to_onnx(
            model,
            size,
            part,
            form.opset,
            dynamo=form.dynamo,
            symbolic_batch=form.symbolic_batch,
            keep_batch_norm=form.keep_batch_norm,
            external_data=form.external_data,
        )
        if form.simplified:
            _simplify(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _write_index(folder):
    written = [entry for entry in files() if (folder / entry[0]).exists()]
    (folder / INDEX).write_text("\n".join(lines(written)) + "\n")


def _simplify(path):
    import onnx
    import onnxsim

    model, equal = onnxsim.simplify(onnx.load(path))
    if not equal:
        raise ValueError("onnxsim says that the simplified graph computes something else")
    onnx.save(model, path)


def run(folder, patterns, again, say):
    """Writes the files that are not there yet, or all with `again`, and the index. Returns how many could not be written."""
    folder.mkdir(parents=True, exist_ok=True)
    failures = 0
    for name, source, form in matching(patterns):
        path = folder / name
        if path.exists() and not again:
            say(f"{path}: is there")
            _write_index(folder)
            continue
        try:
            write(source, form, path)
            say(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
        except ImportError as error:
            failures += 1
            say(f"error: {path}: {error} (pip install './models[variants]')")
        except (RuntimeError, ValueError, TypeError, OSError) as error:  # the exporters' own are RuntimeErrors
            failures += 1
            say(f"error: {path}: {type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}")
        _write_index(folder)
    return failures
