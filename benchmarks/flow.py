"""The shipped model as a flow: where the levels stand, and what two minutes of further training change.

    python benchmarks/flow.py spacing     the same steps over four spacings of the levels: about 40 minutes
    python benchmarks/flow.py velocity    the UNet learns to predict the velocity, for a few minutes
    python benchmarks/flow.py reflow      and then to go straight, in 1, 2 and 4 steps

One core is enough for each. A row is printed as soon as it is there: the share of images with all five attributes
right, by the course's classifier, on prompts of combinations that the model was trained on, and Wilson's 95%
interval. All walks begin at t = 999, from the same noise, but for "leading".
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import ldm_course as ldm
from ldm_course.evaluate.classifier import classify, load_classifier
from ldm_course.evaluate.metrics import Share, all_right, test_scenes
from ldm_course.images import to_tensor
from ldm_course.samplers import Step, ddim, flow_euler, log_snr
from ldm_course.scenes import ATTRIBUTES, Scene, random_caption, training_scene
from ldm_course.schedule import NoiseSchedule

BATCH = 40  # images generated at once
SCALES = (1.0, 2.0, 3.0, 4.0, 5.0, 7.5)
SPACINGS = ("even in t", "even in s", "even in log SNR", "even in s, shifted")
SHIFT = 3.0  # Stable Diffusion 3's
LEVELS = 4  # of the walk that reflow straightens


def timesteps(schedule: NoiseSchedule, n: int, spacing: str) -> list[int]:
    """n timesteps from 999 down, evenly spaced in one of four measures of time, or those of `schedule.timesteps`."""
    if spacing == "even in t":
        return schedule.timesteps(n, "trailing")
    if spacing == "even in s":
        return schedule.timesteps_at(even(schedule.flow_times[-1].item(), 0.0, n)).tolist()
    if spacing == "even in s, shifted":
        last = schedule.flow_times[-1].item()
        s = even(last / (SHIFT - (SHIFT - 1) * last), 0.0, n)  # what the shift makes of these begins at the last
        return schedule.timesteps_at(SHIFT * s / (1 + (SHIFT - 1) * s)).tolist()
    if spacing == "even in log SNR":
        every = torch.tensor([log_snr(a) for a in schedule.alpha_bars.tolist()])
        wanted = even(every[-1].item(), every[0].item(), n)
        return (every - wanted[:, None]).abs().argmin(dim=1).tolist()
    return schedule.timesteps(n, spacing)


def even(first: float, last: float, n: int) -> Tensor:
    """n values at equal distances, from the first on; the last is where the next would be."""
    return torch.linspace(first, last, n + 1, dtype=torch.float64)[:-1]


class Exam:
    """Prompts of all five attributes, each with a noise of its own."""

    def __init__(self, model: ldm.LatentDiffusion, count: int, seed: int = 0):
        scenes = test_scenes(count, seed, False)
        self.truth = [scene.attributes() for scene in scenes]
        self.context = model.embed([caption(scene, f"test-{i}") for i, scene in enumerate(scenes)])
        self.empty = model.embed([""])
        self.x_T = ldm.sampling.draw_noise((count, 4, 16, 16), torch.Generator().manual_seed(seed))
        self.classifier = load_classifier(ldm.bundled_path())

    def sample(self, model: ldm.LatentDiffusion, steps: list[int], scale: float, step: Step) -> Tensor:
        """The finished latents."""
        return torch.cat([
            walk(model, x_T, context, self.empty, steps, scale, step)
            for x_T, context in zip(self.x_T.split(BATCH), self.context.split(BATCH))
        ])  # fmt: skip

    def share(self, model: ldm.LatentDiffusion, steps: list[int], scale: float, step: Step = flow_euler) -> Share:
        """How many images have everything right."""
        return all_right(classify(self.classifier, model.decode(self.sample(model, steps, scale, step))), self.truth)


def caption(scene: Scene, seed: str) -> str:
    return scene.caption(random.Random(seed), tuple(ATTRIBUTES))


def walk(
    model: ldm.LatentDiffusion,
    x_T: Tensor,
    context: Tensor,
    empty: Tensor,
    steps: list[int],
    scale: float,
    step: Step = flow_euler,
) -> Tensor:
    guided = {"negative_context": empty.expand_as(context), "guidance_scale": scale, "step": step}
    *_, end = ldm.denoise(model, x_T, context, steps, **guided)
    return end.x_t


def row(out: Path | None, **values: object) -> None:
    """Print a row of a table, and append it to a JSON file."""
    print("| " + " | ".join(str(value).strip() for value in values.values()) + " |", flush=True)
    if out is not None:
        plain = {name: [v.right, v.count] if isinstance(v, Share) else v for name, v in values.items()}
        rows = json.loads(out.read_text()) if out.exists() else []
        out.write_text("[\n" + ",\n".join(json.dumps(each) for each in [*rows, plain]) + "\n]\n")


# ---- the spacing of the levels ---------------------------------------------------------------------------------


def spacing(
    model: ldm.LatentDiffusion,
    count: int,
    out: Path | None,
    counts: Sequence[int],
    names: Sequence[str],
    scales: Sequence[float],
) -> None:
    exam, to_one = Exam(model, count), replace(model.schedule, set_alpha_to_one=True)
    few = Exam(model, BATCH)
    for name in SPACINGS:
        steps = timesteps(model.schedule, 5, name)
        by_ddim = few.sample(replace(model, schedule=to_one), steps, 7.5, ddim)
        apart = (few.sample(model, steps, 7.5, flow_euler) - by_ddim).abs().max() / by_ddim.abs().max()
        print(f"5 steps {name}, {steps}: flow and DDIM are {apart:.0e} of the largest value apart")
    for n in counts:
        for name in names:
            for scale in scales:
                share = exam.share(model, timesteps(model.schedule, n, name), scale)
                row(out, what="spacing", steps=n, spacing=name, guidance=scale, share=share)


# ---- to predict the velocity -----------------------------------------------------------------------------------


def training_set(model: ldm.LatentDiffusion, count: int) -> tuple[Tensor, Tensor]:
    """Latents of scenes and a context for each, drawn as for the model's own training."""
    scenes = [training_scene(0, i) for i in range(count)]
    x0 = torch.cat([model.encode(to_tensor([scene.render()])) for scene in scenes])
    texts = [random_caption(scene, random.Random(f"flow-{i}")) for i, scene in enumerate(scenes)]
    return x0, torch.cat([model.embed(texts[i : i + 100]) for i in range(0, count, 100)])


class Student:
    """A copy of the model whose UNet is trained to predict the velocity; its moving average is what is judged."""

    def __init__(self, model: ldm.LatentDiffusion, rate: float, decay: float = 0.99):
        unet = copy.deepcopy(model.unet).train().requires_grad_(True)
        schedule = replace(model.schedule, prediction_type="flow_prediction")
        self.training = replace(model, unet=unet, schedule=schedule)
        self.model = replace(self.training, unet=copy.deepcopy(unet).eval().requires_grad_(False))
        self.optimizer = torch.optim.AdamW(unet.parameters(), lr=rate, weight_decay=0.0)
        self.rate, self.decay, self.steps, self.seconds = rate, decay, 0, 0.0
        self.losses: list[float] = []

    def learn(self, loss_of, minutes: Sequence[float]) -> Iterator[float]:  # noqa: ANN001
        """Train, and stop at each of the minutes to be judged: the CPU's minutes, of training alone."""
        for until in minutes:
            while self.seconds < 60 * until:
                begin = time.process_time()
                self.optimizer.param_groups[0]["lr"] = self.rate * min(1.0, (self.steps + 1) / 20)
                with sdpa_kernel(SDPBackend.MATH):
                    loss = loss_of(self.training.unet, self.training.schedule)
                    self.optimizer.zero_grad()
                    loss.backward()
                torch.nn.utils.clip_grad_norm_(self.training.unet.parameters(), 1.0)
                self.optimizer.step()
                decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
                with torch.no_grad():
                    for mean, weight in zip(self.model.unet.parameters(), self.training.unet.parameters()):
                        mean.lerp_(weight, 1 - decay)
                self.losses.append(loss.item())
                self.steps += 1
                self.seconds += time.process_time() - begin
            yield until


def velocity(model: ldm.LatentDiffusion, count: int, out: Path | None, minutes: Sequence[float]) -> None:
    torch.manual_seed(0)
    exam, (x0, context) = Exam(model, count), training_set(model, 2000)
    student = Student(model, 3e-4)

    def loss_of(unet, schedule):  # noqa: ANN001, ANN202
        picks = torch.randint(len(x0), (16,))
        words = ldm.drop_captions(context[picks], exam.empty, 0.1)
        return ldm.diffusion_loss(unet, schedule, x0[picks], words)

    for until in student.learn(loss_of, minutes):
        for n in (4, 20):
            share = exam.share(student.model, timesteps(model.schedule, n, "even in s"), 3.0)
            loss = sum(student.losses[-50:]) / max(1, len(student.losses[-50:]))
            row(out, what="velocity", minutes=until, updates=student.steps, loss=round(loss, 4), steps=n, share=share)
    if out is not None:
        torch.save(student.model.unet.state_dict(), out.with_name("velocity.pt"))


# ---- to go straight --------------------------------------------------------------------------------------------


def pairs(model: ldm.LatentDiffusion, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, the latent that six steps at guidance 3 make of it, and the context that they had."""
    scenes = [training_scene(1, i) for i in range(count)]
    noise = ldm.sampling.draw_noise((count, 4, 16, 16), torch.Generator().manual_seed(10_000))
    texts = [random_caption(scene, random.Random(f"reflow-{i}")) for i, scene in enumerate(scenes)]
    context = torch.cat([model.embed(texts[i : i + 100]) for i in range(0, count, 100)])
    empty, steps = model.embed([""]), timesteps(model.schedule, 6, "even in t")
    ends = [
        walk(model, x_T, words, empty, steps, 3.0) for x_T, words in zip(noise.split(BATCH), context.split(BATCH))
    ]
    return noise, torch.cat(ends), context


def reflow(
    model: ldm.LatentDiffusion,
    count: int,
    out: Path | None,
    minutes: Sequence[float],
    made: int,
    start: Path | None,
) -> None:
    torch.manual_seed(0)
    exam = Exam(model, count)
    for n in (1, 2, 4):
        for scale in (1.0, 3.0):
            share = exam.share(model, timesteps(model.schedule, n, "even in s"), scale)
            row(out, what="before reflow", guidance=scale, steps=n, share=share)
    begin = time.perf_counter()
    noise, ends, context = pairs(model, made)
    print(f"{made} pairs took {time.perf_counter() - begin:.0f} s", flush=True)
    student = Student(model, 3e-4)
    if start is not None:
        for unet in (student.training.unet, student.model.unet):
            unet.load_state_dict(torch.load(start))
    visited = torch.tensor(timesteps(model.schedule, LEVELS, "even in s"))

    def loss_of(unet, schedule):  # noqa: ANN001, ANN202
        picks = torch.randint(len(noise), (16,))
        t = visited[torch.randint(LEVELS, (16,))]  # only the levels that are visited are learnt
        x_t = schedule.add_noise(ends[picks], noise[picks], t)
        first = (t == visited[0])[:, None, None, None]
        x_t = torch.where(first, noise[picks], x_t)  # as a walk begins: without the trace of the image at t = 999
        return (unet(x_t, t, context[picks]) - (noise[picks] - ends[picks])).square().mean()

    for until in student.learn(loss_of, minutes):
        for n in (1, 2, 4):
            share = exam.share(student.model, timesteps(model.schedule, n, "even in s"), 1.0)
            loss = sum(student.losses[-50:]) / max(1, len(student.losses[-50:]))
            row(out, what="reflow", minutes=until, updates=student.steps, loss=round(loss, 4), steps=n, share=share)
    if out is not None:
        torch.save(student.model.unet.state_dict(), out.with_name("reflow.pt"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("spacing", "velocity", "reflow"))
    parser.add_argument("--count", type=int, default=200, help="images for each row")
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20], help="of the walks of `spacing`")
    parser.add_argument("--spacings", nargs="+", default=[*SPACINGS, "leading"], help="of `spacing`")
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES, help="of guidance, for `spacing`")
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.0, 1.0, 2.0, 4.0], help="when to judge")
    parser.add_argument("--pairs", type=int, default=1500, help="of noise and latent, for reflow")
    parser.add_argument("--start", type=Path, help="a UNet of `velocity` for reflow to start from")
    parser.add_argument("--out", type=Path, help="a JSON file to add the rows to; weights go beside it")
    arguments = parser.parse_args()
    model, count, out = ldm.load(device="cpu"), arguments.count, arguments.out
    if arguments.what == "spacing":
        spacing(model, count, out, arguments.steps, arguments.spacings, arguments.scales)
    elif arguments.what == "velocity":
        velocity(model, count, out, arguments.minutes)
    else:
        reflow(model, count, out, arguments.minutes, arguments.pairs, arguments.start)


if __name__ == "__main__":
    main()
