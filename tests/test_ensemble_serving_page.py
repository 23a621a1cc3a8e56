"""The page in a real browser: typed, dropped, by keyboard, on a phone, in dark; and without scripts."""

import re
from itertools import pairwise

import pytest
from PIL import Image

from ensemble.serving.app import create_app
from ensemble.serving.page import money, scale_of
from ensemble.serving.settings import ServeSettings
from tests.fake_prices import FakePriceModel, serving

SIZES = {"phone": (390, 844), "tablet": (768, 1024), "desktop": (1280, 900)}
DROP = """(element, [name, bytes]) => {
  const moved = new DataTransfer();
  moved.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
  element.dispatchEvent(new DragEvent("drop", {dataTransfer: moved, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    with serving(create_app(FakePriceModel(folder), folder, ServeSettings())) as address:
        yield address


@pytest.fixture
def open_page(browser, url):
    """Opens the page in a context of its own; fails on any complaint of the browser, and any look outside."""
    contexts, complaints = [], []

    def opened(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: r.url.startswith((url, "blob:")) or complaints.append(r.url))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [one for one in complaints if "status of 422" not in one] == []  # which the page tells of


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.new("RGB", (30, 20), "#c33").save(path)
    return path


def test_a_product_is_typed_its_photo_dropped_and_its_price_shown_with_the_evidence(open_page, photo):
    page = open_page()
    page.get_by_label("Title").fill("organic tea")
    page.get_by_label("Description").fill("<b>20</b> bags")
    page.get_by_label("Rating").fill("four")
    page.locator("#drop").evaluate(DROP, ["photo.png", list(photo.read_bytes())])
    assert (
        page.locator("#preview").evaluate("async image => (await image.decode(), image.naturalWidth)") == 30
    )
    page.get_by_role("button", name="Price it").click()
    answer = page.get_by_role("region", name="Price")
    answer.get_by_text("$250").first.wait_for()
    said = answer.inner_text()
    assert "90% interval: $138 to $475" in said
    assert "A number could not be read and was left out." in said
    assert "'organic'" in said
    assert page.url.endswith("/")
    scale = answer.get_by_role("img", name=re.compile("interval from .138 to .475"))
    assert scale.locator("circle").count() == 5
    near = answer.locator("ol.near li")
    assert near.count() == 5
    assert "Near product 0 <b>&</b>" in near.first.inner_text()
    assert near.last.inner_text().startswith("no image")
    page.wait_for_load_state("networkidle")
    assert near.locator("img").evaluate_all("images => images.map(one => one.naturalWidth)") == [64] * 4
    page.get_by_text("How the heads of the blend priced it").click()
    assert answer.get_by_role("row", name=re.compile("ridge 50%")).is_visible()
    page.get_by_role("button", name="Clear").click()
    page.locator("#preview").wait_for(state="hidden")


def test_the_page_is_worked_by_keyboard_alone(open_page, photo):
    page = open_page()
    assert page.evaluate("document.activeElement.name") == "title"
    page.keyboard.type("tea")
    seen = []
    for _ in range(6):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.name || document.activeElement.textContent"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", seen
    assert seen == ["description", "photo", "brand", "rating", "Price it", "Clear"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.locator(".price").wait_for()
    assert page.evaluate("document.activeElement.id") == "answer"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_nothing_leaves_the_screen_and_every_word_stands_out(open_page, photo, size, scheme):
    width, height = SIZES[size]
    page = open_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.get_by_label("Title").fill("unbreakable" * 30)
    page.get_by_label("Photo").set_input_files(photo)
    page.get_by_label("Brand").fill("x")
    page.keyboard.press("Enter")
    page.locator(".price").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ticks = page.locator(".tick").evaluate_all(
        "ticks => ticks.map(t => [t.getBoundingClientRect().left, t.getBoundingClientRect().right])"
    )
    assert all(first[1] < second[0] for first, second in pairwise(ticks)), ticks
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 20
    assert min(contrasts.values()) >= 4.5, min(contrasts, key=contrasts.get)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(18, 22, 29)") == (scheme == "dark")


CONTRASTS = """() => {
  const numbers = (color) => color.match(/[0-9.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = numbers(color).map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if ((numbers(color)[3] ?? 1) === 1) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = {};
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || element.closest("title")) continue;
    const style = getComputedStyle(element);
    const color = element.closest("svg") ? style.fill : style.color;
    const pair = [light(color), light(behind(element))].sort((a, b) => a - b);
    found[`${element.tagName} ${element.textContent.slice(0, 20)}`] = (pair[1] + 0.05) / (pair[0] + 0.05);
  }
  return found;
}"""


def test_what_went_wrong_is_said_on_the_page(open_page):
    page = open_page()
    page.get_by_role("button", name="Price it").click()
    page.get_by_text("No price: nothing is known of the product").wait_for()
    page.get_by_label("Title").fill("x" * 50_001)
    with page.expect_response("**/answer"):
        page.get_by_role("button", name="Price it").click()
    page.get_by_text("title: more than 50000 characters").wait_for()


def test_without_scripts_the_form_still_prices(open_page, photo):
    page = open_page(java_script_enabled=False)
    page.get_by_label("Title").fill("tea & <i>")
    page.get_by_label("Photo").set_input_files(photo)
    page.get_by_role("button", name="Price it").click()
    assert "$90.00" in page.locator(".price").inner_text()
    assert page.get_by_label("Title").input_value() == "tea & <i>"


@pytest.mark.parametrize(
    "price, currency, said",
    [(3.5, "$", "$3.50"), (250.4, "₹", "₹250"), (123456.0, "EUR", "EUR 123,456"), (0.0042, None, "0.0042")],
)
def test_prices_are_written_for_people(price, currency, said):
    assert money(price, currency) == said


@pytest.mark.parametrize(
    "prices", [(1, 10, 100), (95, 100, 105), (10, 10, 10), (0.01, 5, 90_000), (12, 14, 30)]
)
def test_the_scale_holds_every_price_in_order_with_round_ticks(prices):
    low, price, high = prices
    scale = scale_of(low, price, high, [low * 0.7, high * 1.5], "$")
    assert 0 < scale.near[0].at < scale.low.at <= scale.price.at <= scale.high.at < scale.near[1].at < 100
    ticks = [tick.at for tick in scale.ticks]
    assert 2 <= len(ticks) <= 7
    assert ticks == sorted(ticks)
    assert all(0 <= at <= 100 for at in ticks)
