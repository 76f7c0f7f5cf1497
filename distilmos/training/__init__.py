"""Multi-task fine-tuning: settings, batches, the training loop and its exact continuation."""
