"""`python -m vitlet_models`: lists the networks, exports them, and trains them."""

import argparse
import math
import sys
from dataclasses import fields
from pathlib import Path

from vitlet_models import checkpoints, data, export, layers, registry, train, variants


def input_size(text):
    """`224` or `192x256`, height first."""
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise argparse.ArgumentTypeError(f"'{text}': a side in pixels, as 224, or height and width, as 192x256")
    return int(sides[0]), int(sides[-1])


def positive(text):
    """A whole number from 1 up."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}': a whole number from 1 up")
    return int(text)


def one_or_more(kind):
    """`112,224`, as a tuple."""

    def values(text):
        try:
            return tuple(kind(value) for value in text.split(","))
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}': numbers with commas between them") from None

    return values


def share(text):
    """From 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}': a number from 0 to 1")
    return value


TRAIN_EXAMPLES = """\
From scratch, most epochs at half the side, for two hours at most; then on from there, and for another task:
  python -m vitlet_models train sepvit_lite --data imagenette --out a.pth --input 112,224 --epochs 60,10 --lr 1e-3,4e-4 --max-minutes 120
  python -m vitlet_models train ... --resume
  python -m vitlet_models train sepvit_lite --data trashnet --out b.pth --init a.pth --input 224 --epochs 30 --lr 3e-4

Beside FILE are FILE.csv, a row for each epoch, and FILE.checkpoint, from which --resume goes on, also after SIGTERM or a crash.
FILE itself is written at the end: the average of the weights over the last steps, for `export --checkpoint`.
"""


def add_train(verbs):
    """The options of `train`; those that decide what is learned have the fields of `Recipe` and `Augmentation`."""
    recipe, varied = {field.name: field.default for field in fields(train.Recipe)}, data.Augmentation()
    parser = verbs.add_parser(
        "train", help="train a network on two cores", epilog=TRAIN_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("name", help="as `list` prints it")
    add("--data", required=True, metavar="DIR", help="photos: DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg")
    add("--out", type=Path, required=True, metavar="FILE", help="where the weights go")
    add("--init", default="", metavar="FILE", help="weights to start from; their head is not used if it has other classes")
    add("--teacher", default="", metavar="FILE", help="a network that `train` wrote, for the same classes, to learn from beside the labels")
    add("--input", type=one_or_more(positive), default=(224,), metavar="SIDE,...", help="input side of each phase; 224 if left out")
    add("--epochs", type=one_or_more(positive), default=(30,), metavar="N,...", help="of each phase; 30 if left out")
    add("--lr", type=one_or_more(float), default=(1e-3,), metavar="X,...", help="highest learning rate of each phase; 1e-3 if left out")
    numbers = (
        ("--teaching", share, recipe["teaching"], "X", "how much the teacher's answers count, from 0 (only labels) to 1"),
        ("--batch", positive, recipe["batch"], "N", "photos in a step"),
        ("--warmup", share, recipe["warmup"], "X", "share of each phase in which the learning rate rises"),
        ("--weight-decay", float, recipe["weight_decay"], "X", "AdamW's"),
        ("--average", share, recipe["average"], "X", "of the weights: the share that stays at each step"),
        ("--drop-path", share, recipe["drop_path"], "X", "share of images for which the last residual branch is left out"),
        ("--clip", float, recipe["clip"], "X", "largest norm of the gradients; 0 for none"),
        ("--seed", int, recipe["seed"], "N", "of all that is random"),
        ("--crop", share, varied.crop, "X", "smallest share of a photo's area that is shown"),
        ("--jitter", share, varied.jitter, "X", "largest change of brightness, contrast and saturation"),
        ("--erase", share, varied.erase, "X", "share of photos from which a square is erased"),
        ("--mixup", float, varied.mixup, "X", "parameter of mixup's beta distribution; 0 for none"),
        ("--cutmix", float, varied.cutmix, "X", "of CutMix's; batches take turns if both are used"),
        ("--smoothing", share, varied.smoothing, "X", "label smoothing"),
        ("--max-minutes", float, math.inf, "N", "stop after so long, with a checkpoint; never if left out"),
        ("--checkpoint-every", float, 5.0, "N", "minutes between checkpoints"),
        ("--validate-every", positive, 1, "N", "epochs between validations"),
        ("--threads", positive, 2, "N", "cores to use"),
    )
    for option, kind, default, metavar, text in numbers:
        add(option, type=kind, default=default, metavar=metavar, help=text if default == math.inf else f"{text}; %(default)s if left out")
    add("--bf16", action="store_true", help="matrix products and convolutions in bf16: for CPUs with AMX or AVX-512 BF16")
    add("--cache", type=Path, metavar="DIR", help="where decoded photos are kept; beside FILE if left out")
    add("--resume", action="store_true", help="go on from FILE.checkpoint, with the same options")
    return parser


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m vitlet_models", description="Vision transformers as ONNX files for `vitlet compile`.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="every network, with its parameters and input size")
    one = verbs.add_parser("export", help="write a network's ONNX file")
    one.add_argument("name", help="as `list` prints it")
    one.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    one.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="weights: official, or timm's or torchvision's; random ones if left out"
    )
    one.add_argument(
        "--input",
        type=input_size,
        metavar="SIDE",
        help="input size, as 224 or 192x256 (height first); the one it was trained at if left out",
    )
    one.add_argument("--classes", type=positive, metavar="N", help="outputs; the checkpoint's if left out, else 1000")
    one.add_argument("--opset", type=positive, default=export.OPSET, metavar="N", help="ONNX operator set; %(default)s if left out")
    one.add_argument("--seed", type=int, default=0, metavar="N", help="of the random weights; %(default)s if left out")
    one.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="also write the checkpoint's weights, in half precision: to go on from with `train --init`",
    )
    one.add_argument("--no-aux-head", action="store_true", help="Dual-ViT without its auxiliary head")
    many = verbs.add_parser(
        "variants", help="write the files that a compiler is tried on: networks of other packages, too, by both exporters"
    )
    many.add_argument(
        "patterns", nargs="*", metavar="PATTERN", help="files to write, as 'dualvit_s*'; all of them (some 11 GB) if left out"
    )
    many.add_argument("--out", type=Path, metavar="DIR", help="where to; files that are there already are kept")
    many.add_argument("--again", action="store_true", help="write them anew")
    many.add_argument("--list", action="store_true", help="print what would be written")
    training = add_train(verbs)
    args = parser.parse_args()
    if args.verb == "train" and not len(args.input) == len(args.epochs) == len(args.lr):
        training.error("--input, --epochs and --lr: as many values for each")
    if args.verb == "export" and args.weights and not args.checkpoint:
        one.error("--weights: of which --checkpoint?")
    if args.verb == "variants" and not (args.out or args.list):
        many.error("where to? (--out DIR, or --list)")
    return args


def parameters(model):
    """How many numbers were learned."""
    return sum(parameter.numel() for parameter in model.parameters())


def run_list():
    """One line for each network: the published ones, an empty line, our own."""
    import torch

    def line(name):
        with torch.device("meta"):
            model = registry.create(name)
        height, width = registry.default_input_size(name)
        return f"{name:<20} {registry.find(name)[0]:<9} {parameters(model):>11,}  {height}x{width}"

    print(f"{'name':<20} {'family':<9} {'parameters':>11}  input")
    for names in (registry.names(), [], registry.reduced()):
        print("\n".join(map(line, names)))


def run_export(args):
    """Writes the file and says what is in it."""
    if not args.output.parent.is_dir():
        raise FileNotFoundError(f"{args.output}: no folder {args.output.parent}")
    model, size = export.prepare(args.name, args.checkpoint, args.input, args.classes, args.seed, not args.no_aux_head)
    export.to_onnx(model, size, args.output, args.opset)
    if args.weights:
        checkpoints.save_half(checkpoints.read(args.checkpoint), args.weights)
    weights = args.checkpoint or f"random, seed {args.seed}"
    print(
        f"{args.output}: {args.name}, {parameters(model):,} parameters, input {size[0]}x{size[1]}, "
        f"{model.head.out_features} classes, opset {args.opset}, weights: {weights}"
    )


def run_variants(args):
    """Writes the files; a failure stops none of the others."""
    if args.list:
        print("\n".join(variants.lines(variants.matching(args.patterns))))
        return
    failures = variants.run(args.out, args.patterns, args.again, lambda line: print(line, flush=True))
    if failures:
        raise ValueError(f"{failures} files could not be written")


def run_train(args):
    """Trains, and says how far it came."""
    given = vars(args)

    def of(kind, **more):
        return kind(**{field.name: given[field.name] for field in fields(kind) if field.name in given}, **more)

    phases = tuple(train.Phase(*phase) for phase in zip(args.input, args.lr, args.epochs, strict=True))
    recipe = of(train.Recipe, model=args.name, phases=phases, augmentation=of(data.Augmentation))
    run = train.Run(
        args.out,
        args.cache or args.out.parent / "cache",
        args.resume,
        args.max_minutes,
        args.checkpoint_every,
        args.validate_every,
        args.threads,
    )
    print(train.train(recipe, run))


VERBS = {"list": lambda _: run_list(), "export": run_export, "variants": run_variants, "train": run_train}


def main():
    """Exits with status 1 and one line on what went wrong."""
    args = arguments()
    try:
        VERBS[args.verb](args)
    except (layers.InputSizeError, checkpoints.CheckpointError, registry.UnknownModelError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
