"""Networks shared by the models: frame encoders and decoders, multilayer perceptrons, initialisations."""

from odevid.networks.decoder import Decoder, Shared, build_decoder
from odevid.networks.encoder import Encoder, build_encoder
from odevid.networks.mlp import MLP

__all__ = ["MLP", "Decoder", "Encoder", "Shared", "build_decoder", "build_encoder"]
