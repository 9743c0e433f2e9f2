"""`python -m vitlet_models`: lists the networks, and exports them."""

import argparse
import sys
from pathlib import Path

from vitlet_models import checkpoints, export, layers, registry, variants


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
    args = parser.parse_args()
    if args.verb == "variants" and not (args.out or args.list):
        many.error("where to? (--out DIR, or --list)")
    return args


def parameters(model):
    """How many numbers were learned."""
    return sum(parameter.numel() for parameter in model.parameters())


def run_list():
    """One line for each network."""
    import torch

    print(f"{'name':<20} {'family':<9} {'parameters':>11}  input")
    for name in registry.names():
        with torch.device("meta"):
            model = registry.create(name)
        height, width = registry.default_input_size(name)
        print(f"{name:<20} {registry.find(name)[0]:<9} {parameters(model):>11,}  {height}x{width}")


def run_export(args):
    """Writes the file and says what is in it."""
    if not args.output.parent.is_dir():
        raise FileNotFoundError(f"{args.output}: no folder {args.output.parent}")
    model, size = export.prepare(args.name, args.checkpoint, args.input, args.classes, args.seed, not args.no_aux_head)
    export.to_onnx(model, size, args.output, args.opset)
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


VERBS = {"list": lambda _: run_list(), "export": run_export, "variants": run_variants}


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
