"""The live page in Chromium: the same images as Python, quick to follow, keeps working without network."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from http.server import ThreadingHTTPServer

import numpy as np
import pytest
from live_page import PATIENCE, RESULTS, ROOT, LivePage, farthest, run_code

import ldm_course as ldm

OpenPage = Callable[..., LivePage]


def readme_prompts() -> tuple[str, ...]:
    """The prompts of docs/make_pictures.py; prompt i has seed i + 1."""
    spec = importlib.util.spec_from_file_location("make_pictures", ROOT / "docs" / "make_pictures.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PROMPTS


def test_an_image_appears_at_once(open_page: OpenPage, model: ldm.LatentDiffusion) -> None:
    live = open_page()
    assert "noise" in (live.page.get_attribute("#image", "aria-label") or "").lower()
    live.wait("a dog with glasses")
    assert farthest(live.image(), run_code(live.code(), model)) <= 1
    assert live.page.locator("#tokens button").all_inner_texts() == ["a", "dog", "with", "glasses"]
    live.page.wait_for_function("navigator.serviceWorker.controller !== null", timeout=PATIENCE)
    assert not live.faults


def test_the_readmes_images(open_page: OpenPage, model: ldm.LatentDiffusion) -> None:
    ours = [np.asarray(ldm.txt2img(model, prompt, seed=i + 1)) for i, prompt in enumerate(readme_prompts())]
    live = open_page()
    live.wait()
    for i, prompt in enumerate(readme_prompts()):
        assert farthest(live.ask(prompt, seed=i + 1), ours[i]) <= 1, prompt


@pytest.mark.parametrize("task", ["txt2img", "img2img", "inpaint"])
def test_every_scheduler(open_page: OpenPage, model: ldm.LatentDiffusion, task: str) -> None:
    live = open_page()
    live.wait()
    if task != "txt2img":
        live.turn_to(task)
        assert farthest(live.image(), run_code(live.code(), model)) <= 1
    for scheduler in ("ddim", "ddpm", "euler", "dpm++"):
        for guidance in (1.0, 5.0):
            painted = live.ask("a white cat with a hat", 7, 12, guidance, scheduler)
            assert farthest(painted, run_code(live.code(), model)) <= 1, (scheduler, guidance)


def test_two_prompts_mixed(open_page: OpenPage, model: ldm.LatentDiffusion) -> None:
    live = open_page()
    live.wait()
    assert not live.page.is_visible("#mix")
    live.page.click("#suggestions button:text-is('half dog, half pig')")
    live.wait("“a plain brown dog sitting on the beach” mixed with “a plain brown pig sitting on the beach”, 50 %")
    assert farthest(live.image(), run_code(live.code(), model)) <= 1
    live.page.fill("#second", "a pig with a hat")
    live.page.press("#second", "Enter")
    live.wait("mixed with “a pig with a hat”, 50 %")
    live.page.fill("#mix", "0.8")
    live.page.dispatch_event("#mix", "change")
    live.wait("mixed with “a pig with a hat”, 80 %")
    live.page.check("input[name=scheduler][value='ddpm']", force=True)
    live.wait("mixed with “a pig with a hat”, 80 %: seed 12, 20 steps of DDPM")
    assert farthest(live.image(), run_code(live.code(), model)) <= 1
    address = live.page.url
    live.page.fill("#second", "")
    live.page.press("#second", "Enter")
    live.wait("“a plain brown dog sitting on the beach”: seed 12")
    live.page.goto("about:blank")
    live.page.goto(address)
    live.wait("mixed with “a pig with a hat”, 80 %: seed 12, 20 steps of DDPM")


def test_a_part_of_a_scene_as_mask(open_page: OpenPage, model: ldm.LatentDiffusion) -> None:
    live = open_page()
    live.wait()
    live.turn_to("inpaint")
    live.page.evaluate("document.getElementById('machine').dataset.state = 'asked'")
    live.page.click("#mask-tools button:text-is('Face')")
    live.wait()
    assert "scene.mask" in live.code()
    assert farthest(live.image(), run_code(live.code(), model)) <= 1


def test_strength_follows_the_hand(open_page: OpenPage, record_property: Callable[[str, object], None]) -> None:
    live = open_page()
    live.wait()
    slowness = live.slowness()
    live.turn_to("img2img")
    before = int(live.page.get_attribute("#machine", "data-images") or 0)
    begun = time.monotonic()
    live.drag("#strength", seconds=4 * slowness, end=0.25)
    released = time.monotonic()
    rate = (int(live.page.get_attribute("#machine", "data-images") or 0) - before) / (released - begun)
    live.wait()
    last = time.monotonic() - released
    record_property("images_per_second", rate)
    record_property("seconds_to_the_last", last)
    print(f"slowness {slowness:.1f}: {rate:.2f} images/s while dragging, the last after {last:.2f} s")
    assert rate * slowness >= 3 and last / slowness <= 0.4
    strength = float(live.page.input_value("#strength"))
    assert strength == pytest.approx(0.25, abs=0.03) and f"strength={strength:g}" in live.code()
    dragged = live.image()
    live.page.evaluate("document.getElementById('machine').dataset.state = 'asked'")
    live.page.press("#prompt", "Enter")
    live.wait()
    assert farthest(dragged, live.image()) == 0  # the last value won


def test_a_newer_prompt_wins(open_page: OpenPage) -> None:
    live = open_page()
    live.wait()
    for prompt in ("a cat", "a bear", "a pig"):
        live.page.fill("#prompt", prompt)
        live.page.press("#prompt", "Enter")
    live.wait("“a pig”")
    images = live.page.get_attribute("#machine", "data-images")
    assert images == "2"  # the first, and the last; those between were ended


def test_a_painted_mask_changes_only_the_hole(open_page: OpenPage) -> None:
    live = open_page()
    live.wait()
    live.turn_to("inpaint")
    page = live.page
    page.click("#mask-tools button:text-is('Clear')")
    box = page.locator("#mask-painter canvas").bounding_box()
    assert box is not None
    page.evaluate("document.getElementById('machine').dataset.state = 'asked'")
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.35 * box["height"], steps=8)
    page.mouse.up()
    live.wait()
    with_mouse = live.image()
    scene = np.asarray(ldm.scenes.Scene(animal="dog", colour="brown", action="sitting", place="beach").render(128))
    changed = np.abs(with_mouse.astype(int) - scene).max(axis=2) > 0
    rows, columns = np.nonzero(changed)
    brush = 128 / 6
    assert changed.mean() > 0.02
    assert rows.min() >= 0.3 * 128 - brush / 2 - 2 and rows.max() <= 0.35 * 128 + brush / 2 + 2
    assert columns.min() >= 0.3 * 128 - brush / 2 - 2 and columns.max() <= 0.7 * 128 + brush / 2 + 2

    page.focus("#mask-painter canvas")
    page.keyboard.press("c")
    page.evaluate("document.getElementById('machine').dataset.state = 'asked'")
    page.keyboard.down(" ")
    for _ in range(10):
        page.keyboard.press("ArrowDown")
    page.keyboard.up(" ")
    live.wait()
    assert not np.array_equal(live.image(), with_mouse)


def test_every_step_can_be_seen(open_page: OpenPage) -> None:
    live = open_page()
    live.wait()
    page = live.page
    finished = live.image()
    page.fill("#step", "3")
    assert page.text_content("#step-out") == "t = 801"
    page.wait_for_timeout(8000)
    early = live.image()
    assert not np.array_equal(early, finished)
    latents = [live.image(id) for id in ("x_t", "eps", "x0")]
    assert not np.array_equal(latents[0], latents[2]) and not np.array_equal(latents[0], latents[1])
    assert page.locator("#veil").is_hidden()
    page.click("#tokens button:last-child")
    assert page.locator("#veil").is_visible() and "glasses" in page.inner_text("#badge")
    veils = []
    for step in ("3", "12"):
        page.fill("#step", step)
        veils.append(page.evaluate("document.getElementById('veil').toDataURL()"))
    assert veils[0] != veils[1]
    page.click("#play")
    page.wait_for_function("document.getElementById('step-out').textContent === 'end'", timeout=PATIENCE)
    assert not live.faults


def test_unknown_words_are_named(open_page: OpenPage) -> None:
    live = open_page()
    live.wait()
    live.page.fill("#prompt", "A purple dog, with a cigar!")
    assert "“purple”, “cigar”" in live.page.inner_text("#unknown")
    live.page.fill("#prompt", "a dog")
    assert live.page.text_content("#unknown") == ""


def test_the_page_never_waits(open_page: OpenPage) -> None:
    live = open_page()
    live.wait()
    slowness = live.slowness()
    live.page.evaluate("window.longTasks.length = 0")  # those of loading are not meant
    for task in ("img2img", "inpaint", "txt2img"):
        live.turn_to(task)
    live.drag("#guidance", seconds=3, end=0.3)
    live.wait()
    longest = max(live.page.evaluate("window.longTasks"), default=0)
    print(f"slowness {slowness:.1f}: the longest task took {longest:.0f} ms")
    assert longest <= 50 * slowness


def test_a_reload_needs_no_network(open_page: OpenPage, server: ThreadingHTTPServer) -> None:
    live = open_page()
    live.wait()
    page = live.page
    page.wait_for_function("navigator.serviceWorker.controller !== null", timeout=PATIENCE)
    page.wait_for_function(
        "async () => (await (await caches.open('ldm-course-weights')).keys()).length === 5", timeout=PATIENCE
    )
    first = live.image()
    server.shutdown()
    server.server_close()
    page.reload()
    live.wait()
    assert np.array_equal(live.image(), first)
    live.turn_to("img2img")
    live.turn_to("inpaint")


def test_tour(open_page: OpenPage) -> None:
    live = open_page(390, 844)
    page = live.page
    page.click("#tour-start")
    seen = []
    for step in range(1, 9):
        assert f"Step {step} of 8" in page.inner_text("#tour")
        assert page.locator(".lit").count() == 1
        seen.append(page.get_attribute("#tour a", "href"))
        page.click("#tour button:text-is('Done')" if step == 8 else "#tour button:text-is('Next')")
    assert page.locator(".lit").count() == 0
    assert all(link and link.startswith("../notebooks/0") for link in seen)
    page.keyboard.press("Escape")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_accessible(open_page: OpenPage, dark: bool) -> None:
    live = open_page(dark=dark)
    live.wait()
    page = live.page
    page.add_script_tag(path=ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js")

    def serious() -> list[str]:
        result = page.evaluate("axe.run()")
        grave = [v for v in result["violations"] if v["impact"] in ("serious", "critical")]
        return [f"{v['id']}: {node['html'][:120]}" for v in grave for node in v["nodes"]]

    for task in ("txt2img", "img2img", "inpaint"):
        if task != "txt2img":
            live.turn_to(task)
        assert serious() == []
    page.click("#draw")
    page.click("#tour-start")
    page.fill("#prompt", "a purple dog")
    page.click("#tokens button:last-child")
    assert serious() == []


def test_by_keyboard_alone(open_page: OpenPage) -> None:
    live = open_page()
    live.wait()
    page, reached = live.page, []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    for id in ("prompt", "play", "step", "seed", "dice", "steps", "guidance", "copy", "save", "tab-txt2img"):
        assert id in reached, id
    page.focus("#tab-txt2img")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#machine", "data-task") == "img2img"
    assert page.evaluate("document.activeElement.id") == "tab-img2img"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 820, 1440])
def test_looks(open_page: OpenPage, width: int, dark: bool) -> None:
    live = open_page(width, 900, dark)
    RESULTS.mkdir(exist_ok=True)
    live.wait()
    for task in ("txt2img", "img2img", "inpaint"):
        if task != "txt2img":
            live.turn_to(task)
        wide = live.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"the page is {wide} pixels wide"
        shade = "dark" if dark else "light"
        live.page.screenshot(path=RESULTS / f"live-{task}-{width}-{shade}.png", full_page=True)
