"""Notebook 01: autoencoder and VAE."""

from ldm_course.lab.nb01_vae import checks, figures

__all__ = ["checks", "figures"]
