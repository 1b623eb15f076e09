"""Training CLIP, the VAE, the classifier and the UNet on the small world."""
