"""The shipped classifier, on rendered scenes."""

from __future__ import annotations

from ldm_course.evaluate import metrics
from ldm_course.evaluate.classifier import classify, load_classifier
from ldm_course.io.bundled import bundled_path


def test_it_finds_the_attributes_of_rendered_scenes():
    scenes = metrics.test_scenes(60, 7, None)
    found = classify(load_classifier(bundled_path()), metrics.render(scenes))
    assert metrics.all_right(found, [scene.attributes() for scene in scenes]).right >= 57
