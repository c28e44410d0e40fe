"""The activation of the heads' hidden layers."""

from torch import nn
from transformers.activations import ACT2FN


def build_activation(name: str) -> nn.Module:
    """The function that `model.activation` names: gelu is the exact one (Hendrycks and Gimpel 2016), silu and swish are
    one (Ramachandran et al. 2017), mish is Misra's (2019); leakyrelu's slope below 0 is 0.01 (Maas et al. 2013).
    """
    module: nn.Module = ACT2FN["leaky_relu" if name == "leakyrelu" else name]
    return module
