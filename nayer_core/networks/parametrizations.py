"""Weights that a state dict holds in parts: weight and spectral normalisation, and pruning.

torch computes such a weight before each use. Here it is computed once, from the parts, as torch does in eval
mode: `torch.nn.utils.weight_norm`, `spectral_norm` and `prune`, and their kin in `parametrizations`.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

# Names behind that of the layer: of the weight, and of its parts; and how the weight follows from these.
_Rule = tuple[str, tuple[str, ...], Callable[..., Tensor]]


def resolve_parts(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Replace the parts of weights by the weights.

    Args:
        tensors: name -> tensor, float32 or int64.

    Returns:
        The tensors, in their order, and the names of the weights that were computed.
    """
    resolved = dict(tensors)
    computed = []
    for name in tensors:
        for ending, endings, compute in _RULES:
            layer = name.removesuffix(endings[0])
            parts = [layer + part for part in endings]
            if layer == name or not all(part in resolved for part in parts):
                continue
            try:
                weight = compute(*(resolved[part] for part in parts))
            except (
                IndexError,
                RuntimeError,
                TypeError,
                ZeroDivisionError,
            ):  # the shapes are not those of these parts
                continue
            for part in parts:
                del resolved[part]
            resolved[layer + ending] = weight
            computed.append(layer + ending)
            break
    return resolved, tuple(computed)


def _weight_norm(length: Tensor, direction: Tensor) -> Tensor:
    """G * v / |v|, where the norm is over every dimension in which g has one entry."""
    if length.dim() == 0:
        return torch.mul(direction, length / torch.linalg.vector_norm(direction))
    over = [dim for dim in range(direction.dim()) if length.shape[dim] == 1]
    _require(length.dim() == direction.dim() and length.shape == _reduced(direction, over))
    norm = torch.linalg.vector_norm(direction, dim=over, keepdim=True) if over else direction.abs()
    return torch.mul(direction, length / norm)


def _spectral_norm(weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """W / (u' W v): the dimension of u is the first one, or the second of a transposed convolution."""
    dim = 0 if len(left) == weight.shape[0] and len(right) == weight.numel() // len(left) else 1
    matrix = weight.movedim(dim, 0).flatten(1)
    return weight / torch.dot(left, matrix @ right)


def _pruned(weight: Tensor, mask: Tensor) -> Tensor:
    _require(weight.shape == mask.shape)
    return weight * mask


def _reduced(tensor: Tensor, over: list[int]) -> tuple[int, ...]:
    return tuple(1 if dim in over else side for dim, side in enumerate(tensor.shape))


def _require(shapes_agree: bool) -> None:
    """Parts of a stranger's file might grow when they are combined."""
    if not shapes_agree:
        raise IndexError("the parts do not belong together")


_TODAY = ".parametrizations.weight"  # since torch 1.9
_RULES: tuple[_Rule, ...] = (
    (".weight", (".weight_g", ".weight_v"), _weight_norm),
    (".weight", (f"{_TODAY}.original0", f"{_TODAY}.original1"), _weight_norm),
    (".weight", (".weight_orig", ".weight_u", ".weight_v"), _spectral_norm),
    (".weight", (f"{_TODAY}.original", f"{_TODAY}.0._u", f"{_TODAY}.0._v"), _spectral_norm),
    (".weight", (".weight_orig", ".weight_mask"), _pruned),
    (".bias", (".bias_orig", ".bias_mask"), _pruned),
)
