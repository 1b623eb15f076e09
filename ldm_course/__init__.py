"""Build latent diffusion yourself, and prove every part equal to `diffusers`."""
