"""Captions: one canonical sentence per scene, and many natural ways to say all or part of it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from ldm_course.errors import InputError
from ldm_course.scenes.description import Description
from ldm_course.scenes.vocabulary import ATTRIBUTES

ANIMALS = {
    "dog": ("dog", "dog", "dog", "puppy"),
    "cat": ("cat", "cat", "cat", "kitten"),
    "rabbit": ("rabbit", "rabbit", "rabbit", "bunny"),
    "bear": ("bear",),
    "pig": ("pig", "pig", "pig", "piglet"),
    "elephant": ("elephant",),
}
ACCESSORIES = {
    "glasses": ("glasses", "red glasses"),
    "hat": ("a hat", "a hat", "a red hat"),
    "crown": ("a crown", "a crown", "a golden crown"),
    "scarf": ("a scarf", "a scarf", "a green scarf"),
    "headphones": ("headphones",),
}
PLACES = {
    "beach": ("on the beach", "on the beach", "at the beach", "by the sea"),
    "forest": ("in the forest", "in the forest", "in the woods", "among the trees"),
    "city": ("in the city", "in the city", "in a city street", "in town"),
    "snow": ("in the snow", "in the snow", "on the snow"),
    "room": ("in a room", "in a room", "indoors", "in the living room"),
}
PHRASES = {  # after the noun: "a dog sitting"
    "sitting": ("sitting", "sitting", "sitting down", "that is sitting"),
    "running": ("running", "running", "on the run", "that is running"),
    "sleeping": ("sleeping", "sleeping", "asleep", "that is sleeping"),
}
VERBS = {  # as a sentence: "a dog sits"
    "sitting": ("sits", "is sitting", "sat"),
    "running": ("runs", "is running", "ran"),
    "sleeping": ("sleeps", "is sleeping", "naps", "is asleep"),
}
OPENINGS = ("a picture of ", "a drawing of ", "a cartoon of ", "an image of ", "an illustration of ")


def article(words: str) -> str:
    """The words with "a" or "an" before them."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def random_mention(rng: random.Random) -> tuple[str, ...]:
    """Draw which attributes a caption mentions: about half of the time all five, otherwise some.

    The animal is always among them. Two short forms are common: "a dog with glasses" and "a dog running".
    """
    chance = rng.random()
    if chance < 0.5:
        return tuple(ATTRIBUTES)
    if chance < 0.6:
        return ("animal", "accessory")
    if chance < 0.7:
        return ("animal", "action")
    return tuple(name for name in ATTRIBUTES if name == "animal" or rng.random() < 0.5)


def random_caption(scene: Description, rng: random.Random) -> str:
    """A caption of a scene in a random phrasing, mentioning a random part of it (see `random_mention`)."""
    return caption(scene.attributes(), rng, random_mention(rng))


def caption(
    values: Mapping[str, str], rng: random.Random | None = None, attributes: Sequence[str] | None = None
) -> str:
    """Say `values` (attribute -> value) in words; only those named in `attributes`, if given.

    With `rng` the phrasing is random, without it the first and plainest. A missing accessory is mentioned as
    "a plain dog" or "a dog with nothing on". InputError for an attribute that there is not.
    """
    for name in attributes or ():
        if not isinstance(name, str) or name not in ATTRIBUTES:
            raise InputError(f"attributes must be among {', '.join(ATTRIBUTES)}, not {name!r}.")
    said = {k: v for k, v in values.items() if attributes is None or k in attributes or k == "animal"}
    if rng is None:
        return _plain(said)

    noun = rng.choice(ANIMALS[said["animal"]])
    if "colour" in said:
        noun = f"{said['colour']} {noun}"
    place = rng.choice(PLACES[said["place"]]) if "place" in said else ""
    worn = ""
    if said.get("accessory") == "none":
        if rng.random() < 0.6:
            noun = f"plain {noun}"
        else:
            worn = "with nothing on"
    elif "accessory" in said:
        worn = f"{rng.choice(('with', 'with', 'with', 'wearing'))} {rng.choice(ACCESSORIES[said['accessory']])}"
    if "action" not in said:
        middle = [worn, place] if rng.random() < 0.8 else [place, worn]
        return _finish(noun, middle, rng)
    if rng.random() < 0.3:  # a whole sentence: "on the beach, a dog with glasses sits"
        subject = " ".join(filter(None, (article(noun), worn)))
        verb = rng.choice(VERBS[said["action"]])
        if place and rng.random() < 0.3:
            return f"{place}, {subject} {verb}"
        return f"{subject} {verb} {place}".strip()
    action = rng.choice(PHRASES[said["action"]])
    order = rng.random()
    if order < 0.2 and "that" not in action and action not in ("asleep", "on the run", "sitting down"):
        return _finish(f"{action} {noun}", [worn, place], rng)  # "a sleeping dog with a hat"
    middle = [worn, action, place] if order < 0.75 else [action, place, worn]
    return _finish(noun, middle, rng)


def _plain(said: Mapping[str, str]) -> str:
    """The canonical caption: "a brown dog with glasses sitting on the beach"."""
    words = [said["animal"]]
    if "colour" in said:
        words.insert(0, said["colour"])
    if said.get("accessory") == "none":
        words.insert(0, "plain")
    elif "accessory" in said:
        words.append(f"with {ACCESSORIES[said['accessory']][0]}")
    if "action" in said:
        words.append(said["action"])
    if "place" in said:
        words.append(PLACES[said["place"]][0])
    return article(" ".join(words))


def _finish(noun: str, middle: Sequence[str], rng: random.Random) -> str:
    """Article, noun and what follows it, sometimes behind "a picture of"."""
    opening = rng.choice(OPENINGS) if rng.random() < 0.2 else ""
    return opening + " ".join(filter(None, (article(noun), *middle)))
