"""Training CLIP, the VAE, the UNet and the judge on the small world, and measuring what came out."""
