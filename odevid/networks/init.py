"""Initialisations of the SRVP release: normal convolutions and BatchNorm, orthogonal linear layers."""

from torch import nn

CONV_STD = 0.02


def init_images(network: nn.Module) -> None:
    """Convolutions ~ N(0, 0.02^2); BatchNorm weights ~ N(1, 0.02^2), biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, CONV_STD)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, CONV_STD)
            nn.init.zeros_(module.bias)


def init_orthogonal(network: nn.Module, gain: float) -> None:
    """Linear layers orthogonal times `gain`, biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.orthogonal_(module.weight, gain)
            nn.init.zeros_(module.bias)
