"""Every variant by name, and how it is made. The names are those of the spec's shape lists."""

from vitlet_models import convnet, dualvit, pvtv2, sepvit, swin

FAMILIES = {
    "SepViT": (sepvit, sepvit.SepVit),
    "PVTv2": (pvtv2, pvtv2.PvtV2),
    "Swin": (swin, swin.Swin),
    "Dual-ViT": (dualvit, dualvit.DualVit),
}
# Only to be learned from: `names` leaves them out.
TEACHERS = {"ConvNet": (convnet, convnet.ConvNet)}


class UnknownModelError(ValueError):
    """No variant has this name."""


def names():
    """All published variants' names, family by family."""
    return [name for module, _ in FAMILIES.values() for name in module.CONFIGS]


def reduced():
    """The names of our own small variants, which the zoo's trained models are of."""
    return [name for module, _ in FAMILIES.values() for name in getattr(module, "REDUCED", ())]


def find(name):
    """The family's name, its module, its class, and the variant's configuration."""
    for family, (module, kind) in (FAMILIES | TEACHERS).items():
        configs = module.CONFIGS | getattr(module, "REDUCED", {})
        if name in configs:
            return family, module, kind, configs[name]
    raise UnknownModelError(f"no model is called '{name}'; there are: {', '.join(names() + reduced())}")


def default_input_size(name):
    """The side the variant was trained at."""
    side = getattr(find(name)[3], "side", 224)
    return side, side


def create(name, classes=1000, input_size=None, aux_head=True):
    """The network, in inference mode and with PyTorch's own random weights (`checkpoints` has better ones).

    `input_size` is (height, width); `aux_head=False` is for Dual-ViT only.
    """
    family, _, kind, config = find(name)
    options = {"input_size": input_size or default_input_size(name)}
    if family == "Dual-ViT":
        options["aux_head"] = aux_head
    elif not aux_head:
        raise ValueError(f"{name}: only Dual-ViT has an auxiliary head to leave out")
    return kind(config, classes, **options).eval()
