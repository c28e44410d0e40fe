"""The activation of the heads' hidden layers."""

from torch import nn
from transformers.activations import ACT2FN


def build_activation(name: str) -> nn.Module:
    """The activation that `model.activation` names: gelu is the exact one, not the tanh approximation (Hendrycks and
    Gimpel 2016), swish is another name for silu (Ramachandran et al. 2017), mish is Misra's (2019); leakyrelu has slope
    0.01 below 0 (Maas et al. 2013).
    """
    module: nn.Module = ACT2FN["leaky_relu" if name == "leakyrelu" else name]
    return module
