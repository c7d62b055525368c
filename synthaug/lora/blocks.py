"""The UNet's blocks as diffusers names them, and as the original Stable Diffusion numbers them.

Files for SDXL number them (``lora_unet_input_blocks_4_1_...``): kohya's scripts, A1111, Forge, ComfyUI and diffusers all
read that, while kohya's scripts read nothing else. Inside the library every name is diffusers'.

Two residual blocks a level, as in SD 1.x, 2.x and SDXL: input blocks 1, 2 and the downsampler 3 are level 0, and so on.
Layout: Rombach et al., https://github.com/CompVis/latent-diffusion (openaimodel.py).
"""

from __future__ import annotations

import re

__all__ = ["diffusers_block", "numbered_block"]

_RESNET = {
    "in_layers_0": "norm1", "in_layers_2": "conv1", "emb_layers_1": "time_emb_proj", "out_layers_0": "norm2", "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}  # fmt: skip
_ALONE = {
    "input_blocks_0_0": "conv_in", "out_0": "conv_norm_out", "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1", "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1", "label_emb_0_2": "add_embedding_linear_2",
}  # fmt: skip
"""Original name -> diffusers' name, of what lies outside of the blocks."""

_RESNET_BACK = {new: old for old, new in _RESNET.items()}
_ALONE_BACK = {new: old for old, new in _ALONE.items()}
_UNET = "lora_unet_"


def diffusers_block(name: str) -> str:
    """A kohya name with diffusers' block names; other names come back as they are.

    Example:
        >>> diffusers_block("lora_unet_output_blocks_2_2_conv")
        'lora_unet_up_blocks_0_upsamplers_0_conv'
    """
    rest = name.removeprefix(_UNET)
    if rest in _ALONE:
        return _UNET + _ALONE[rest]
    found = re.match(r"(input_blocks|output_blocks|middle_block)_(\d+)_(.*)$", rest)
    if not found or not name.startswith(_UNET):
        return name
    side, number, rest = found[1], int(found[2]), found[3]
    if side == "middle_block":
        place = "mid_block_attentions_0" if number == 1 else f"mid_block_resnets_{number // 2}"
        return f"{_UNET}{place}_{_RESNET.get(rest, rest)}"
    inner, _, rest = rest.partition("_")
    level, layer = divmod(number - 1, 3) if side == "input_blocks" else divmod(number, 3)
    way = "down" if side == "input_blocks" else "up"
    if rest in ("op", "conv"):
        return f"{_UNET}{way}_blocks_{level}_{way}samplers_0_conv"
    return f"{_UNET}{way}_blocks_{level}_{'resnets' if inner == '0' else 'attentions'}_{layer}_{_RESNET.get(rest, rest)}"


def numbered_block(name: str) -> str:
    """A kohya name with the original block numbers, as SDXL files have them; other names come back as they are.

    Example:
        >>> numbered_block("lora_unet_down_blocks_1_attentions_0_proj_in")
        'lora_unet_input_blocks_4_1_proj_in'
        >>> diffusers_block(numbered_block("lora_unet_up_blocks_0_upsamplers_0_conv"))
        'lora_unet_up_blocks_0_upsamplers_0_conv'
    """
    rest = name.removeprefix(_UNET)
    if rest in _ALONE_BACK:
        return _UNET + _ALONE_BACK[rest]
    if found := re.match(r"mid_block_(attentions|resnets)_(\d+)_(.*)$", rest):
        number = 1 if found[1] == "attentions" else 2 * int(found[2])
        return f"{_UNET}middle_block_{number}_{_RESNET_BACK.get(found[3], found[3])}"
    found = re.match(r"(down|up)_blocks_(\d+)_(attentions|resnets|downsamplers|upsamplers)_(\d+)_(.*)$", rest)
    if not found or not name.startswith(_UNET):
        return name
    way, level, what, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if what == "downsamplers":
        return f"{_UNET}input_blocks_{3 * level + 3}_0_op"
    if what == "upsamplers":
        return f"{_UNET}output_blocks_{3 * level + 2}_2_conv"  # after the attention, which SDXL has wherever it makes larger
    number = 3 * level + layer + (way == "down")
    inner = 0 if what == "resnets" else 1
    return f"{_UNET}{'input' if way == 'down' else 'output'}_blocks_{number}_{inner}_{_RESNET_BACK.get(rest, rest)}"
