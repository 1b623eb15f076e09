"""Models as files: folders in diffusers' format and the Hugging Face hub, read and written."""
