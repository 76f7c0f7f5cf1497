"""Prediction with a trained model, and export of a model."""
