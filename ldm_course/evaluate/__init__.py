"""How good a trained model is, and how fast beside diffusers."""
