"""The same request gives the same image: in another process, after other calls, after an interruption, in a batch,
with more threads. Measured on the model that ships, with the bounds that hold."""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import pixel_difference
from PIL import Image

import ldm_course as ldm

PROMPT, OPTIONS = "a dog with glasses", {"num_inference_steps": 4}
IMAGE = ldm.scenes.Scene().render(128)
MASK = ldm.scenes.Scene().mask("face", 128)
TASKS = {
    "txt2img": lambda model, prompt, seed: ldm.txt2img(model, prompt, seed=seed, **OPTIONS),
    "img2img": lambda model, prompt, seed: ldm.img2img(model, prompt, IMAGE, seed=seed, **OPTIONS),
    "inpaint": lambda model, prompt, seed: ldm.inpaint(model, prompt, IMAGE, MASK, seed=seed, **OPTIONS),
}
each_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@pytest.fixture(scope="module")
def shipped() -> ldm.LatentDiffusion:
    return ldm.load()


def stopping(function, after):
    """The function, which raises KeyboardInterrupt after so many calls, as a notebook's stop button does."""
    calls = itertools.count()

    def call(x, t_prev, *rest):
        if next(calls) == after:
            raise KeyboardInterrupt
        return function(x, t_prev, *rest)

    return call


@pytest.mark.slow
def test_in_another_process_and_from_the_command_line(shipped, tmp_path):
    """Exactly the same: 0 of 255."""
    command = [Path(sys.executable).with_name("ldm-course"), "txt2img", PROMPT, "-o", tmp_path / "dog.png"]
    subprocess.run([*command, "--seed", "3", "--num-inference-steps", "4"], check=True, capture_output=True)
    assert pixel_difference(Image.open(tmp_path / "dog.png"), TASKS["txt2img"](shipped, PROMPT, 3)) == 0


@each_task
def test_after_other_calls_and_an_interruption(shipped, monkeypatch, task):
    """Exactly the same: nothing is left behind by other tasks, seeds, sizes and samplers, or by a stop button."""
    first = task(shipped, PROMPT, 3)
    state = torch.get_rng_state()
    ldm.txt2img(shipped, ["a cat", "a pig"], seed=9, height=64, width=96, scheduler="dpm++", **OPTIONS)
    ldm.img2img(shipped, "a bear", IMAGE, seed=4, scheduler="ddpm", num_inference_steps=4)
    assert torch.equal(torch.get_rng_state(), state)  # with a seed, nobody else's random numbers are touched

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shipped.unet, "forward", stopping(shipped.unet.forward, after=1))
        task(shipped, PROMPT, 3)
    assert torch.is_grad_enabled()
    assert pixel_difference(task(shipped, PROMPT, 3), first) == 0


def test_the_loop_can_be_left_in_the_middle(shipped):
    """`break` out of denoise, or an error in after_step, and start again: the same end."""
    context = ldm.encode_prompt(shipped, [PROMPT])
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    start = functools.partial(ldm.denoise, shipped, noise, context, shipped.schedule.timesteps(6))
    *_, whole = start()
    next(start())
    with pytest.raises(KeyboardInterrupt):
        list(start(after_step=stopping(lambda x, t_prev: x, after=1)))
    *_, again = start()
    assert torch.equal(whole.x_t, again.x_t)


@pytest.mark.slow
@each_task
def test_with_one_thread_and_with_two(shipped, task):
    """Sums are added up in another order: 1 of 255 at most."""
    threads, images = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            images.append(task(shipped, PROMPT, 3))
    finally:
        torch.set_num_threads(threads)
    assert pixel_difference(*images) <= 1


@each_task
def test_a_batch_equals_its_singles(shipped, task):
    """1 of 255 at most, also in the model that ships. (test_pipelines has all samplers, on a tiny model.)"""
    prompts = [PROMPT, "a rabbit in the snow"]
    batch = task(shipped, prompts, 3)
    for i, prompt in enumerate(prompts):
        assert pixel_difference(batch[i], task(shipped, prompt, 3 + i)) <= 1
