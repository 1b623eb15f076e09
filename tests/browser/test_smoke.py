"""The quickest sign that the widgets work in a browser: one live slider, by mouse and by keys."""

from lab_page import excerpt


def test_a_slider_in_a_browser(open_page):
    page = open_page("smoke", excerpt("05", names=["PROMPT", "scene"], cells=["drag"]))
    page.run_all()
    assert not page.problems()
    slider = page.cell("drag").get_by_role("slider")
    assert page.follows("drag", lambda: page.by_mouse("slider", slider))
    assert page.follows("drag", lambda: page.by_keys("slider", slider))
    assert not page.errors
