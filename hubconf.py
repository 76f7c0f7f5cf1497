"""Entry point of torch.hub: `torch.hub.load("OWNER/REPOSITORY", "distilmos").predict("some.wav").mos`."""

dependencies = ["onnxruntime", "soundfile", "pydantic", "yaml", "huggingface_hub"]

from distilmos import load as distilmos  # noqa: E402, F401
