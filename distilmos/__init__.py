"""DistilMOS: prediction of the mean opinion score of speech, with layer-wise self-distillation."""

__version__ = "0.1.0"
