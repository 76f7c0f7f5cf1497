"""Prediction with a trained model, and its portable form."""
