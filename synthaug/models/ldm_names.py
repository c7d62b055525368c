"""Where each weight lies in a checkpoint that is one file, the layout of CompVis and Stability AI.

The same table serves both ways: who reads asks for the place of every weight that a network wants, who writes for
the place of every weight that it has. Apart from its name a weight may differ in form: OpenCLIP keeps the query, key
and value of an attention in one matrix, and the autoencoder's attention consists of convolutions of one pixel.

Names: https://github.com/CompVis/stable-diffusion, https://github.com/Stability-AI/generative-models,
https://github.com/mlfoundations/open_clip.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["TEXT", "UNET", "VAE", "Family", "Place", "places_of_text", "places_of_unet", "places_of_vae", "written"]

Family = Literal["sd1", "sd2", "sdxl"]

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXT: dict[Family, tuple[str, ...]] = {
    "sd1": ("cond_stage_model.transformer.text_model.",),
    "sd2": ("cond_stage_model.model.",),
    "sdxl": ("conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."),
}
"""Family -> what the names of its text encoders begin with; ``.model.`` is OpenCLIP's layout, the other CLIP's."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Name and form of one weight in the file."""

    name: str

    third: int | None = None
    """Which third of a joint matrix it is: query, key, value."""

    form: Literal["same", "pixel", "turned"] = "same"
    """``pixel`` has two axes more, of length one; ``turned`` is the transpose."""

    def read(self, stored: Tensor) -> Tensor:
        """The weight as diffusers has it; a view where that is possible."""
        part = stored if self.third is None else stored.chunk(3)[self.third]
        if self.form == "turned":
            return part.T.contiguous()
        return part.flatten(1) if self.form == "pixel" else part

    def write(self, weight: Tensor) -> Tensor:
        """The weight as the file has it, joint matrices still in thirds."""
        if self.form == "turned":
            return weight.T.contiguous()
        return weight[..., None, None] if self.form == "pixel" else weight.contiguous()


def written(weights: Mapping[str, Tensor], places: Mapping[str, Place]) -> dict[str, Tensor]:
    """A network's weights by the file's names."""
    thirds: dict[str, dict[int, Tensor]] = {}
    found: dict[str, Tensor] = {}
    for path, weight in weights.items():
        place = places[path]
        if place.third is None:
            found[place.name] = place.write(weight)
        else:
            thirds.setdefault(place.name, {})[place.third] = weight
    return found | {name: torch.cat([parts[i] for i in range(3)]) for name, parts in thirds.items()}


_ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
_LEVEL = re.compile(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def places_of_unet(paths: Collection[str], layers: int) -> dict[str, Place]:
    """Place of every weight of a UNet; weights that the layout has no name for are left out.

    Args:
        paths: Names of the weights in diffusers.
        layers: Residual blocks on the way down at each level.

    Example:
        >>> places_of_unet(["down_blocks.1.attentions.0.proj_in.weight"], layers=2)["down_blocks.1.attentions.0.proj_in.weight"].name
        'model.diffusion_model.input_blocks.4.1.proj_in.weight'
    """
    attending = {path.split(".")[1] for path in paths if path.startswith("up_blocks.") and ".attentions." in path}
    names = {path: _unet_name(path, layers, attending) for path in paths}
    return {path: Place(name=UNET + name) for path, name in names.items() if name}


def _unet_name(path: str, layers: int, attending: Collection[str]) -> str | None:
    module, _, kind = path.rpartition(".")
    if module in _ENDS:
        return f"{_ENDS[module]}.{kind}"
    if found := _MIDDLE.fullmatch(path):
        at = 1 if found[1] == "attentions" else 2 * int(found[2])
        return f"middle_block.{at}.{_inside(found[1], found[3])}"
    if not (found := _LEVEL.fullmatch(path)):
        return None
    way, level, what, at, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    first = level * (layers + 1) + (way == "down")
    side = "input_blocks" if way == "down" else "output_blocks"
    if what == "downsamplers":
        return f"{side}.{first + layers}.0.op.{kind}"
    if what == "upsamplers":
        return f"{side}.{first + layers}.{2 if found[2] in attending else 1}.{rest}"
    return f"{side}.{first + at}.{1 if what == 'attentions' else 0}.{_inside(what, rest)}"


def _inside(what: str, rest: str) -> str:
    """Name within a block; attention blocks are called alike."""
    module, _, kind = rest.rpartition(".")
    return f"{_RESNET[module]}.{kind}" if what == "resnets" else rest


_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def places_of_vae(paths: Collection[str], levels: int) -> dict[str, Place]:
    """Place of every weight of an autoencoder with so many levels."""
    return {path: _vae_place(path, levels) for path in paths}


def _vae_place(path: str, levels: int) -> Place:
    module, _, kind = path.rpartition(".")
    if ".mid_block.attentions.0." in path:
        side, _, part = module.partition(".mid_block.attentions.0.")
        form: Literal["same", "pixel"] = "pixel" if kind == "weight" and part != "group_norm" else "same"
        return Place(name=f"{VAE}{side}.mid.attn_1.{_ATTENTION[part]}.{kind}", form=form)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", path)
    name = re.sub(r"down_blocks\.(\d+)", r"down.\1", name)
    name = re.sub(r"up_blocks\.(\d+)", lambda found: f"up.{levels - 1 - int(found[1])}", name)
    name = re.sub(r"(down|up)samplers\.0", r"\1sample", name).replace("resnets", "block")
    return Place(name=VAE + name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out"))


_OPEN = {
    "embeddings.token_embedding.weight": "token_embedding.weight", "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
}  # fmt: skip
_OPEN_LAYER = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip
_THIRDS = {"self_attn.q_proj": 0, "self_attn.k_proj": 1, "self_attn.v_proj": 2}


def places_of_text(paths: Collection[str], prefix: str) -> dict[str, Place]:
    """Place of every weight of a text encoder whose names begin with one of :data:`TEXT`."""
    if not prefix.endswith(".model."):
        return {path: Place(name=prefix + path.removeprefix("text_model.")) for path in paths}
    return {path: _open_place(path.removeprefix("text_model."), prefix) for path in paths}


def _open_place(path: str, prefix: str) -> Place:
    if path == "text_projection.weight":
        return Place(name=f"{prefix}text_projection", form="turned")
    if path in _OPEN:
        return Place(name=prefix + _OPEN[path])
    _, _, layer, *rest, kind = path.split(".")
    block, part = f"{prefix}transformer.resblocks.{layer}", ".".join(rest)
    if part in _THIRDS:
        return Place(name=f"{block}.attn.in_proj_{kind}", third=_THIRDS[part])
    return Place(name=f"{block}.{_OPEN_LAYER[part]}.{kind}")
