"""Initial weights of our own families."""

from torch import nn


def initialise(network: nn.Module) -> None:
    """Draw the weights of `network` in place, from torch's global generator.

    Convolutions after He et al. 2015 (arXiv:1502.01852, fan-out), normalisations as the
    identity, linear layers small, so that an untrained network's logits are near zero. A network
    without numbers ("meta") is left alone: drawing nothing would load torch's compiler first.
    """
    if any(parameter.is_meta for parameter in network.parameters()):
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
