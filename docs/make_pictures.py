"""Generate the images of README and docs with the shipped model: python docs/make_pictures.py

Nothing is selected: prompt i of the grid has seed i + 1, and the chimeras, the forty dogs and the crossbreeds are the
first ones. The animation has the seed of the notebooks, 12, and the other images have seed 0.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import ldm_course as ldm
from ldm_course.lab.shared import plots
from ldm_course.scenes import random_scene
from ldm_course.scenes.chimera import random_chimera

OUT = Path(__file__).parent / "pictures"
PROMPTS = (
    "a dog with glasses",
    "a white cat with a hat sleeping in a room",
    "an orange bear with a scarf running in the snow",
    "a pink pig with headphones in the city",
    "a blue elephant with glasses in the forest",
    "a black rabbit with a crown on the beach",
    "a plain brown dog running on the beach",
    "a white bear sitting in the snow",
    "a cat with headphones sleeping in the forest",
    "an orange elephant with a scarf in the city",
    "a pink rabbit with glasses running in a room",
    "a blue dog with a hat sitting on the beach",
)
PAIRS = (
    ("a plain brown dog sitting on the beach", "a plain brown pig sitting on the beach"),
    ("a plain blue cat sitting in the snow", "a plain blue elephant sitting in the snow"),
    ("an orange rabbit with a crown sleeping in a room", "an orange bear with a crown sleeping in a room"),
)
MIXED = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0)  # the share of the second prompt


def labelled(images: list[Image.Image], texts: list[str], columns: int, scale: int = 2) -> Image.Image:
    """Images in rows, each with its text below, at `scale` times their size."""
    side, strip, gap = 128 * scale, 44, 12
    font = ImageFont.load_default(size=15)
    rows = -(-len(images) // columns)
    size = (columns * (side + gap) + gap, rows * (side + strip + gap) + gap)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for i, (image, text) in enumerate(zip(images, texts)):
        left, top = gap + i % columns * (side + gap), gap + i // columns * (side + strip + gap)
        sheet.paste(image.resize((side, side), Image.Resampling.BICUBIC), (left, top))
        pen.rectangle((left - 1, top - 1, left + side, top + side), outline="#bbbbbb")
        pen.multiline_text((left + 2, top + side + 4), wrapped(text, font, side), fill="#222222", font=font)
    return sheet


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text with line breaks, so that no line is wider than `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def crayon_dog() -> Image.Image:
    """An image in another style than the scenes: flat shapes as a child would draw them, slightly out of focus."""
    image = Image.new("RGB", (256, 256), "#9fd3ef")
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 176, 256, 256), fill="#7cc36b")
    pen.ellipse((196, 14, 242, 60), fill="#ffdf5c")
    pen.ellipse((78, 128, 178, 246), fill="#a8703a")
    for left in (84, 142):
        pen.ellipse((left, 220, left + 36, 250), fill="#8c5a2c")
    pen.ellipse((62, 34, 194, 160), fill="#b57b42")
    for left in (38, 170):
        pen.ellipse((left, 44, left + 48, 140), fill="#7d4e24")
    for left in (96, 138):
        pen.ellipse((left, 76, left + 22, 100), fill="white")
        pen.ellipse((left + 6, 82, left + 18, 96), fill="black")
    pen.ellipse((114, 106, 142, 126), fill="black")
    pen.arc((108, 112, 148, 146), 20, 160, fill="black", width=5)
    return image.filter(ImageFilter.GaussianBlur(1.2))


def the_loop(model: ldm.LatentDiffusion) -> bytes:
    """An animation of the loop: the noisy latent, and what the UNet takes the image to be, from noise to the end."""
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(12))
    context, empty = model.embed(["a dog with glasses"]), model.embed([""])
    timesteps = model.schedule.timesteps(20)
    states = list(ldm.denoise(model, noise, context, timesteps, negative_context=empty, guidance_scale=4.0))
    frames = plots.trajectory(model, states)[::2]
    titles = ("noisy latent", "estimate")
    drawn = [plots.grid([[frame.images[0], frame.images[3]]], titles, side=240) for frame in frames]
    return plots.animation(drawn, seconds=3.0, hold=2.0)


def forty_dogs(model: ldm.LatentDiffusion) -> Image.Image:
    """The first forty scenes of dogs with glasses, each from its full caption, by ten quick steps."""
    scenes = [random_scene(random.Random(i), held_out=None) for i in range(40)]
    scenes = [replace(scene, animal="dog", accessory="glasses") for scene in scenes]
    captions = [scene.caption(attributes=tuple(ldm.scenes.ATTRIBUTES)) for scene in scenes]
    how: dict[str, Any] = {"scheduler": "dpm++", "num_inference_steps": 10, "timestep_spacing": "trailing"}
    return ldm.scenes.contact_sheet(ldm.txt2img(model, captions, seed=0, guidance_scale=4.0, **how), 10)


def crossbreeds(model: ldm.LatentDiffusion) -> Image.Image:
    """Between two prompts: the text vectors are mixed, from the first prompt alone to the second alone."""
    rows = []
    for seed, pair in enumerate(PAIRS):
        one, other = model.embed(list(pair)).split(1)
        noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed)).expand(
            len(MIXED), -1, -1, -1
        )
        context = torch.cat([torch.lerp(one, other, share) for share in MIXED])
        empty = model.embed([""]).expand(len(MIXED), -1, -1)
        timesteps = model.schedule.timesteps(20)
        *_, last = ldm.denoise(model, noise, context, timesteps, negative_context=empty, guidance_scale=4.0)
        rows.append(ldm.images.to_pil(model.decode(last.x_t)))
    return plots.grid(rows, [f"{share:.0%}" for share in MIXED], side=176)


def main() -> None:
    OUT.mkdir(exist_ok=True)
    model = ldm.load(device="cpu")
    (OUT / "loop.png").write_bytes(the_loop(model))

    grid = [ldm.txt2img(model, prompt, seed=i + 1) for i, prompt in enumerate(PROMPTS)]
    labelled(grid, list(PROMPTS), 4).save(OUT / "grid.png", optimize=True)

    crayon_dog().save(OUT / "crayon-dog.jpg", quality=88)
    photo = ldm.load_image(OUT / "crayon-dog.jpg")
    strengths = (0.5, 0.7, 0.9)
    prompt = "a brown dog with glasses sitting on the beach"
    changed = [ldm.img2img(model, prompt, photo, strength=strength, seed=0) for strength in strengths]
    texts = ["the JPEG", *(f"strength {strength}" for strength in strengths)]
    labelled([photo, *changed], texts, 4).save(OUT / "img2img.png", optimize=True)

    sitting = ldm.scenes.Scene(animal="dog", colour="brown", action="sitting", place="beach").render(128)
    mask = Image.new("L", sitting.size, 0)
    mask.paste(255, (0, 72, 128, 128))
    running = ldm.inpaint(model, "a brown dog running", sitting, mask, seed=0, composite=True)
    labelled([sitting, mask.convert("RGB"), running], ["the image", "the mask", "“a brown dog running”"], 3).save(
        OUT / "inpaint.png", optimize=True
    )
    chimeras = [random_chimera(random.Random(i)).render() for i in range(14)]
    ldm.scenes.contact_sheet(chimeras, 7).save(OUT / "chimeras.png", optimize=True)
    forty_dogs(model).save(OUT / "forty-dogs.jpg", quality=90)
    crossbreeds(model).save(OUT / "crossbreeds.jpg", quality=90)
    print(f"wrote {', '.join(path.name for path in sorted(OUT.iterdir()))} into {OUT}")


if __name__ == "__main__":
    main()
