"""Write the cases that the page's core is tested with, from the real thing: python web/tests/make_cases.py

tests/cases.json: randn by seed, token ids, and the loop of every task and sampler with a UNet of one line.
"""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import ldm_course as ldm
from ldm_course import images, pipelines
from ldm_course.scenes import captions
from ldm_course.scenes.vocabulary import ATTRIBUTES
from ldm_course.text import tokenize, unknown_words

ODD = (
    "",
    " ",
    "a dog, with glasses!",
    "A DOG WITH GLASSES",
    "naïve café ÀÉ e\u0301",
    "dog's dogs' we've I'll 'tis 's's ''s",
    "日本語の犬 🐕‍🦺 👩🏽‍🚀",
    "ß ﬁ İ ı Σίσυφος ΟΔΟΣ ǅ",
    "a123 1/2 ½ ² Ⅷ ٣ १२",
    "a\u00a0dog\u2003with\u200bglasses\ufeff",
    "tab\tnew\nline\r\n\x0b\x0c\x85end",
    "\x1c\x1d\x1e\x1f control \x00 \x7f",
    "<|endoftext|> a <|startoftext|>dog<|endoftext|>",
    "<|ENDOFTEXT|> <|endoftext |>",
    "שלום عربى हिन्दी ไทย",
    "it’s “quoted” – dash — … ·",
    "\U0001d4d0\U0001d7d8 ａｂｃ１",
    "x" * 200,
    "a dog with glasses " * 30,
    "\u0345\u0301 combining first",
)


def every_caption() -> list[str]:
    """The plain caption of every scene, and so many random ones that each phrasing comes up."""
    said = [dict(zip(ATTRIBUTES, values)) for values in itertools.product(*ATTRIBUTES.values())]
    rng = random.Random(0)
    some = {captions.caption(values, rng, captions.random_mention(rng)) for values in said for _ in range(8)}
    return [captions.caption(values) for values in said] + sorted(some)


def fake_unet(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
    """Bends the latent, by how much says the text: enough to tell samplers, orders and guidance apart."""
    text = context.mean(dim=(1, 2)).view(-1, 1, 1, 1)
    return 0.9 * torch.tanh(x) + text + 0.0003 * t.view(-1, 1, 1, 1)


def loops(model: ldm.LatentDiffusion) -> list[dict]:
    """The finished latents of every task and sampler; encode and embed are as simple as the UNet."""

    class Model(SimpleNamespace):
        def embed(self, prompts: list[str]) -> Tensor:
            return torch.stack([torch.full((77, 128), len(prompt) / 100) for prompt in prompts])

        def encode(self, x: Tensor, noise: Tensor) -> Tensor:
            return torch.nn.functional.avg_pool2d(x, 8)[:, [0, 1, 2, 0]] + 0.1 * noise

        def decode(self, z: Tensor) -> Tensor:
            self.finished = z
            return torch.zeros(len(z), 3, 128, 128)

    fake: Any = Model(
        unet=fake_unet,
        vae=SimpleNamespace(downscale=8, config=SimpleNamespace(latent_channels=4)),
        schedule=model.schedule,
        device=torch.device("cpu"),
        dtype=torch.float32,
        native_size=128,
        native_latent_size=16,
    )
    scene = ldm.scenes.Scene(animal="dog").render(128)
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (10, 72, 120, 128))
    mask.paste(127, (0, 0, 64, 64))
    cases = []
    for scheduler, guidance, steps in itertools.product(pipelines.SAMPLERS, (1.0, 4.0), (1, 7)):
        options: dict[str, Any] = {
            "seed": 12,
            "scheduler": scheduler,
            "guidance_scale": guidance,
            "num_inference_steps": steps,
        }
        ldm.txt2img(fake, "a dog", **options)
        cases.append(dict(task="txt2img", strength=1, **options, z=fake.finished.flatten().tolist()))
        for strength in (0.0, 0.5, 1.0) if steps == 7 else (1.0,):
            ldm.img2img(fake, "a dog", scene, strength=strength, **options)
            cases.append(dict(task="img2img", strength=strength, **options, z=fake.finished.flatten().tolist()))
            ldm.inpaint(fake, "a dog", scene, mask, strength=strength, **options)
            cases.append(dict(task="inpaint", strength=strength, **options, z=fake.finished.flatten().tolist()))
    return cases


def composites() -> dict:
    """Two images, a soft mask, and what PIL makes of them."""
    rng = random.Random(1)
    a, b = (Image.frombytes("RGB", (16, 16), rng.randbytes(768)) for _ in range(2))
    mask = Image.frombytes("L", (16, 16), rng.randbytes(256))
    both = Image.composite(a, b, mask)
    return {name: list(image.tobytes()) for name, image in {"a": a, "b": b, "mask": mask, "composite": both}.items()}


def main() -> None:
    model = ldm.load(device="cpu")
    texts = [*every_caption(), *ODD]
    scene = ldm.scenes.Scene(animal="dog").render(128)
    mask = Image.effect_noise((128, 128), 200)
    noise = []
    for seed, sizes in itertools.product(
        (0, 1, 12, 10_000, 2**31 - 1), ((1024, 1024), (40,), (17,), (3, 2, 7, 1024))
    ):
        generator = torch.Generator("cpu").manual_seed(seed)
        drawn = [torch.randn(n, generator=generator, dtype=torch.float32, device="cpu").tolist() for n in sizes]
        noise.append({"seed": seed, "sizes": sizes, "drawn": drawn})
    tokenizer = {
        "vocab": model.tokenizer.get_vocab(),
        "merges": (Path(ldm.bundled_path()) / "tokenizer/merges.txt").read_text().splitlines()[1:],
        "bos": model.tokenizer.bos_token_id,
        "eos": model.tokenizer.eos_token_id,
        "pad": model.tokenizer.pad_token_id,
        "model_max_length": model.tokenizer.model_max_length,
        "known_words": sorted(model.known_words or ()),
    }
    schedule = {
        "alpha_bars": model.schedule.alpha_bars.tolist(),
        "final_alpha_bar_ddim": model.schedule.alpha_bar(-1),
        "steps_offset": model.schedule.steps_offset,
        "spacing": model.schedule.timestep_spacing,
        "prediction_type": model.schedule.prediction_type,
    }
    # of each row only the ids up to the first end token; the rest is padding
    rows = tokenize(model.tokenizer, texts).tolist()
    cases = {
        "tokenizer": tokenizer,
        "schedule": schedule,
        "texts": [
            {"text": t, "ids": ids, "unknown": unknown_words([t], model.known_words)} for t, ids in zip(texts, rows)
        ],
        "noise": noise,
        "timesteps": {n: model.schedule.timesteps(n) for n in (1, 2, 3, 8, 20, 50, 333, 999)},
        "image": list(scene.tobytes()),
        "tensor": images.to_tensor(scene)[0].flatten()[::97].tolist(),
        "mask": list(mask.tobytes()),
        "latent_mask": images.latent_mask(mask).flatten().tolist(),
        "loops": loops(model),
        "composite": composites(),
    }
    out = Path(__file__).parent / "cases.json"
    out.write_text(json.dumps(cases))
    print(f"wrote {out}: {len(texts)} texts, {len(cases['loops'])} loops, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
